"""The commands with a published network in place of a checkpoint."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from peers import REASON, lively
from toys import CLASSES, write_clip

import tinyaction as ta
from tinyaction.cli import main
from tinyaction.data.antialias import VideoAntialiasResize
from tinyaction.data.pipelines import sampled_frames
from tinyaction.data.timed import TimedSample
from tinyaction.inference.export import SUFFIXES, export_model
from tinyaction.models import timesformer, videomae, vjepa2, x3d
from tinyaction.models.model_card import PublishedModel
from tinyaction.models.weights import kinetics400_names

NAMES = ["abseiling", "standing", "swimming", "lying"]
SMALL = dict(embed_dim=16, depth=2, num_heads=2, mlp_dim=32, clip_len=4, size=16, patch=8)
CONFIG = {"model_type": "videomae", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
          "intermediate_size": 32, "num_frames": 4, "image_size": 16, "patch_size": 8, "tubelet_size": 2,
          "id2label": {str(number): name for number, name in enumerate(NAMES)}}


@pytest.fixture(scope="module")
def small():
    return lively(videomae.build(num_classes=4, **SMALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small):
    """A network as the hub has it."""
    path = tmp_path_factory.mktemp("network")
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "preprocessor_config.json").write_text(json.dumps({"crop_size": 16, "size": 18}))
    torch.save(small.state_dict(), path / "pytorch_model.bin")
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Class folders whose names are among the network's."""
    path = tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        for label, name in enumerate(CLASSES):
            write_clip(path / split / name / "a.mp4", label, seed=label, num_frames=12, side=40)
    return path


@pytest.fixture
def named(monkeypatch, folder):
    """The network under the name videomae-base, with clips of frames 2 apart."""
    known = videomae.PUBLISHED[2]
    card = type(known)(**{**vars(known), "arguments": SMALL, "num_classes": 4, "clip_len": 4, "size": 16,
                          "test_size": 16, "short_side": 18, "frame_interval": 2})
    monkeypatch.setattr(videomae, "PUBLISHED", (card,))
    return ["--model", "videomae-base", "--weights", str(folder)]


def run(capsys, *argv):
    assert main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


def refusal(capsys, *argv):
    assert main([str(word) for word in argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


# ---------------------------------------------------------------------------------------------------------------------
# predict, embed, evaluate
# ---------------------------------------------------------------------------------------------------------------------

def test_the_predictor_has_the_networks_classes_and_clips(named, folder, clips, small):
    predictor = ta.Predictor.from_pretrained("videomae-base", weights=folder, device="cpu")
    assert predictor.class_names == NAMES
    assert TimedSample(4, 2) in predictor.pipeline.transforms
    assert VideoAntialiasResize(18) in predictor.pipeline.transforms
    video = clips / "val" / "lying" / "a.mp4"                          # of 10 frames a second: 2 / 30 s are one frame
    frames = [frame for _, frame in zip(range(12), ta.open_video(video).read(range(12)), strict=True)]
    pixels = [VideoAntialiasResize(18).resize_frame(frame)[1:17, 1:17] for frame in frames[4:8]]
    clip = torch.from_numpy(np.stack(pixels)).permute(3, 0, 1, 2)[None]  # (V, C, T, H, W)
    assert predictor.inputs_of(video).equal(clip)
    with torch.no_grad():
        expected = small(clip[None], mode="logits")[0, 0].softmax(dim=0)
    assert predictor(video).scores == pytest.approx(expected.tolist(), abs=1e-6)
    again = ta.Predictor(ta.load_pretrained("videomae-base", weights=folder), device="cpu")
    assert again(video).scores == predictor(video).scores
    long = list(predictor.windows(video, window_seconds=0.6))
    assert [window.prediction.source for window in long] == [str(video)] * 2


def test_a_recognizer_without_published_classes_is_refused(folder):
    for model in (ta.create_model("conv2d", 2), ta.load_pretrained(folder, num_classes=3)):
        with pytest.raises(ValueError, match="this recognizer has no published class names"):
            ta.Predictor(model)


def test_it_becomes_a_checkpoint(named, folder, clips, tmp_path):
    predictor = ta.Predictor.from_pretrained("videomae-base", weights=folder, device="cpu")
    predictor.checkpoint.save(tmp_path / "best.pt")
    video = clips / "val" / "lying" / "a.mp4"
    assert ta.Predictor(tmp_path, device="cpu")(video).scores == predictor(video).scores


def test_predict_prints_the_published_classes(named, clips, capsys):
    lines = run(capsys, "predict", clips / "val" / "lying" / "a.mp4", *named, "--device", "cpu").splitlines()
    assert sorted(line.split()[-1] for line in lines[1:]) == sorted(NAMES)


def test_a_folder_names_its_network_alone(folder, clips, capsys):
    lines = run(capsys, "predict", clips / "val" / "lying" / "a.mp4", "--model", folder, "--device", "cpu", "--json")
    assert sorted(json.loads(lines)["scores"]) == sorted(NAMES)


def test_embed(named, clips, capsys, tmp_path):
    run(capsys, "embed", clips / "val", *named, "--out", tmp_path / "f.npy", "--device", "cpu")
    features = np.load(tmp_path / "f.npy")
    assert features.shape == (2, 16) and np.abs(features[0] - features[1]).max() > 1e-3


@pytest.mark.parametrize("data", [".", "val"])  # with train/ and val/, and class folders alone
def test_evaluate_by_the_names_of_classes(data, named, folder, clips, capsys, tmp_path):
    words = ["--data", clips / data, *named, "--num-workers", "0", "--device", "cpu"]
    predictor = ta.Predictor.from_pretrained("videomae-base", weights=folder, device="cpu")
    said = [predictor(clips / "val" / name / "a.mp4").label for name in CLASSES]
    num_right = sum(label == name for label, name in zip(said, CLASSES, strict=True))
    line = run(capsys, "evaluate", *words).splitlines()[0]
    assert line.startswith(f"accuracy {num_right / 2:.4f} over 2 videos")
    other = next(name for name in NAMES if name not in said)
    (tmp_path / "map.csv").write_text(f"{CLASSES[0]},{said[0]}\n{CLASSES[1]},{other}\n")
    line = run(capsys, "evaluate", *words, "--classes", tmp_path / "map.csv").splitlines()[0]
    assert line.startswith("accuracy 0.5000 over 2 videos")
    (tmp_path / "map.csv").write_text("lying,running\n")
    assert "class 'running' is none of the network's 4 classes" in refusal(
        capsys, "evaluate", *words, "--classes", tmp_path / "map.csv")
    assert not list(clips.rglob("*.csv"))


# ---------------------------------------------------------------------------------------------------------------------
# one sentence
# ---------------------------------------------------------------------------------------------------------------------

def test_evaluate_knows_the_video_networks_of_torchvision(capsys, tmp_path):
    words = ["evaluate", "--data", tmp_path / "none", "--model", "r3d_18"]
    assert "none: no such folder" in refusal(capsys, *words)          # its name is known, so the data are looked for
    assert "has no weights 'imagenet'" in refusal(capsys, *words, "--weights", "imagenet")


@pytest.mark.parametrize("words, message", [
    ([], "no network is given; name the checkpoint of a run with --checkpoint, or a published network with --model"),
    (["--checkpoint", "a", "--model", "videomae-base"], "--checkpoint a and --model videomae-base exclude each other"),
    (["--checkpoint", "a", "--weights", "kinetics"], "--weights is for a published network; name it with --model"),
    (["--checkpoint", "a", "--clip-len", "4"], "--clip-len is for a published network"),
    (["--model", "videomae-base", "--size", "0"], "--size is 0; it must be at least 1"),
    (["--model", "videomae-bass"], "network 'videomae-bass' is not known; did you mean videomae-base"),
    (["--model", "videomae-base", "--weights", "kinetic"], "videomae-base has no weights 'kinetic': published are"),
])
@pytest.mark.parametrize("command", ["predict", "embed", "explain", "export", "evaluate"])
def test_flags_that_name_no_network(capsys, tmp_path, monkeypatch, command, words, message):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", 0, seed=0)
    own = {"export": ["--format", "torchscript"], "evaluate": ["--data", "data"]}.get(command, ["clip.mp4"])
    assert message in refusal(capsys, command, *own, *words)


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def foreign(folder):
    pytest.importorskip("safetensors.torch").save_file({"conv1.weight": torch.ones(2)}, folder / "model.safetensors")


def lacking_a_shard(folder):
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors").rename(folder / names["a"])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def of_another_architecture(folder):
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "dinov2"}))


@pytest.mark.parametrize("damage, words, message", [
    (cut, [], "model.safetensors: is cut, or no .safetensors file ("),
    (foreign, [], "of 30 tensors are missing in it, backbone.patch_embed.proj.weight first; the weights"),
    (lacking_a_shard, [], "1 of 2 files of the weights are missing, model-00002-of-00002.safetensors first"),
    (of_another_architecture, [], "its config.json is of model_type 'dinov2'; known are videomae, "),
    (None, ["--clip-len", "1"], "clip_len is 1; the network takes at least 2 frames, those of one patch"),
    (None, ["--size", "12"], "size is 12; the network takes a multiple of 8 pixels"),
])
@pytest.mark.parametrize("command", ["predict", "embed", "evaluate"])
def test_files_that_do_not_fit_are_one_sentence_before_any_work(
    named, small, clips, capsys, tmp_path, monkeypatch, command, damage, words, message
):
    safetensors = pytest.importorskip("safetensors.torch", reason="the extra hub is not installed")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    safetensors.save_file(small.state_dict(), tmp_path / "model.safetensors")
    if damage is not None:
        damage(tmp_path)
    monkeypatch.setattr("tinyaction.video.reader.VideoReader.read", lambda *_: pytest.fail("a video was decoded"))
    own = {"evaluate": ["--data", clips]}.get(command, [clips / "val"])
    out = ["--out", tmp_path / "features.npy"] if command == "embed" else []
    assert message in refusal(capsys, command, *own, "--model", "videomae-base", "--weights", tmp_path, *words, *out)
    assert not (tmp_path / "features.npy").exists()


def test_without_a_network_it_says_which_files_to_bring(capsys, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    write_clip(tmp_path / "clip.mp4", 0, seed=0)
    code = ("import sys, socket\ndef no(*a, **k): raise OSError('no network')\nsocket.getaddrinfo = no\n"
            "from tinyaction.cli import main\nsys.exit(main(sys.argv[1:]))")
    result = subprocess.run([sys.executable, "-c", code, "predict", tmp_path / "clip.mp4", "--model", "videomae-base",
                             "--weights", "kinetics"], capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    for word in ("config.json", "model.safetensors", "MCG-NJU/videomae-base-finetuned-kinetics", "into a folder"):
        assert word in result.stderr


# ---------------------------------------------------------------------------------------------------------------------
# folders of transformers
# ---------------------------------------------------------------------------------------------------------------------

def test_a_folder_saved_by_transformers(tmp_path, clips, capsys):
    transformers = pytest.importorskip("transformers", reason=REASON)
    pytest.importorskip("safetensors", reason="the extra hub is not installed")
    config = transformers.VideoMAEConfig(
        image_size=16, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, id2label=dict(enumerate(NAMES)), label2id={name: i for i, name in enumerate(NAMES)})
    peer = lively(transformers.VideoMAEForVideoClassification(config))
    processor = transformers.VideoMAEImageProcessor(size={"shortest_edge": 18}, crop_size={"height": 16, "width": 16})
    peer.save_pretrained(tmp_path / "net")
    processor.save_pretrained(tmp_path / "net")
    video = clips / "val" / "standing" / "a.mp4"
    run(capsys, "predict", video, "--model", tmp_path / "net", "--csv", tmp_path / "out.csv", "--device", "cpu")
    row = next(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    predictor = ta.Predictor.from_pretrained(tmp_path / "net", device="cpu")
    chosen = sampled_frames(predictor.pipeline, 12, fps=10.0)
    frames = list(ta.open_video(video).read(chosen.tolist()))
    with torch.no_grad():
        expected = peer(**processor(frames, return_tensors="pt")).logits.softmax(dim=1)[0]
    assert [float(row[name]) for name in NAMES] == pytest.approx(expected.tolist(), abs=0.02)  # Pillow rounds pixels


# ---------------------------------------------------------------------------------------------------------------------
# train, export, explain
# ---------------------------------------------------------------------------------------------------------------------

def test_train_goes_on_from_the_published_weights(named, clips, capsys, tmp_path, small):
    text = run(capsys, "train", "--data", clips, *named, "--out", tmp_path / "run", "--epochs", "1", "--num-workers",
               "0", "--device", "cpu", "--lr", "1e-9", "--batch-size", "2", "--method", "finetune")
    assert "its classifier is new" in text and "missing" not in text
    model, checkpoint = ta.load_model(tmp_path / "run")
    assert checkpoint.class_names == list(CLASSES) and model.cls_head.fc.weight.shape == (2, 16)
    assert checkpoint.eval_pipeline == {"clip_len": 4, "size": 16, "num_clips": 1, "short_side": 18,
                                        "frame_interval": 2, "antialias": True}  # as it was published
    torch.testing.assert_close(model.backbone.state_dict(), small.backbone.state_dict(), rtol=0, atol=1e-5)
    run(capsys, "predict", clips / "val", "--checkpoint", tmp_path / "run", "--device", "cpu")


def test_export(named, clips, capsys, tmp_path):
    run(capsys, "export", *named, "--format", "torch-export", "--out", tmp_path / "net.pt2", "--check", clips / "val")
    assert (tmp_path / "net.pt2").is_file()


@pytest.mark.parametrize("format", ["torch-export", "torchscript"])
@pytest.mark.parametrize("family", [timesformer, vjepa2])
def test_transformers_are_exported_for_any_number_of_videos(tmp_path, family, format):
    published = family.PUBLISHED[0].arguments
    arguments = {**published, **{name: value for name, value in SMALL.items() if name in published}, "embed_dim": 48}
    model = lively(family.build(num_classes=4, **arguments))
    model.published = PublishedModel(family.PUBLISHED[0].name, arguments, tuple(NAMES), 4, None, 16, 18, "random")
    clips = [torch.randint(0, 256, (1, 3, 4, 16, 16), dtype=torch.uint8) for _ in range(3)]
    path = tmp_path / f"net{SUFFIXES[format]}"
    assert export_model(ta.Predictor(model, device="cpu"), path, format=format, clips=clips) < 1e-5


def test_explain_shows_where_a_transformer_looked(named, clips, capsys, tmp_path):
    words = [clips / "val" / "lying" / "a.mp4", *named, "--device", "cpu", "--out", tmp_path / "why.png"]
    text = run(capsys, "explain", *words)
    assert (tmp_path / "why.png").is_file() and (tmp_path / "why.mp4").is_file()
    assert text.splitlines()[0].split(": ")[1].rpartition(" ")[0] in NAMES


def test_explain_shows_where_a_convolution_looked(clips, capsys, tmp_path):
    network = lively(x3d.build(num_classes=400, **x3d.PUBLISHED[0].arguments))
    torch.save(network.state_dict(), tmp_path / x3d.PUBLISHED[0].address.rpartition("/")[2])
    words = ["--model", "x3d_xs", "--weights", next(tmp_path.iterdir()), "--size", "64", "--device", "cpu"]
    text = run(capsys, "explain", clips / "val" / "lying" / "a.mp4", *words, "--no-video", "--out",
               tmp_path / "why.png")
    assert (tmp_path / "why.png").is_file() and text.split(": ")[1].rpartition(" ")[0] in kinetics400_names()
