"""An exported file gives the original's scores for pixels, for any number of videos, and says what it needs."""

import json
import sys

import numpy as np
import pytest
import torch
from toys import CLASSES, save_toy, write_clip

from tinyaction import Predictor
from tinyaction.cli.export import main as export
from tinyaction.inference import export as exporting
from tinyaction.inference.export import SUFFIXES, export_model, generated_clips
from tinyaction.models import videomae
from tinyaction.models.model_card import PublishedModel

NETWORKS = ["conv2d", "tsn-resnet18", "tsm-resnet18", "tsm-mobilenet_v2", "r3d_18"]


def calibrated(path, name, **pipeline) -> Predictor:
    """A predictor whose norms know the statistics of what comes, so that its scores are neither 0 nor 1."""
    predictor = Predictor(save_toy(path / "model.pt", name, **pipeline), device="cpu")
    for part in predictor.model.modules():
        if hasattr(part, "momentum"):
            part.momentum = None
    with torch.no_grad():
        predictor.model.train()(torch.stack(generated_clips(predictor, num_clips=3)))
        torch.nn.init.normal_(predictor.model.cls_head.fc.weight, std=0.05)
    predictor.model.eval()
    return predictor


def metadata_in(path) -> dict:
    """The metadata of an exported file, as its user reads it."""
    if path.suffix == ".onnx":
        import onnx

        found = {item.key: item.value for item in onnx.load(str(path), load_external_data=False).metadata_props}
    else:
        found = dict.fromkeys(("class_names", "shape", "eval_pipeline", "views", "frames", "pixels"), "")
        if path.suffix == ".pt2":
            torch.export.load(path, extra_files=found)
        else:
            torch.jit.load(str(path), _extra_files=found)
    texts = {name: text.decode() if isinstance(text, bytes) else text for name, text in found.items()}
    return {name: json.loads(text) if text[:1] in "[{" else text for name, text in texts.items()}


def check(predictor, path, format):
    clips = generated_clips(predictor, num_clips=2)
    difference = export_model(predictor, path, format=format, clips=clips)
    assert difference <= 1e-4
    with exporting.quiet_exporters():
        metadata = metadata_in(path)
    assert metadata["class_names"] == list(CLASSES)
    assert metadata["shape"] == list(clips[0].shape)
    assert metadata["eval_pipeline"] == predictor.checkpoint.eval_pipeline
    batch = torch.stack([*clips, clips[0].flip(2), clips[1].flip(0)])  # (4, V, C, T, H, W), another B
    with torch.inference_mode():
        expected = predictor.model(batch, mode="logits").softmax(dim=2).mean(dim=1)
    with exporting.quiet_exporters():
        scores = exporting.OPENERS[format](path)(batch)
    assert scores.shape == (4, 2) and scores.dtype == torch.float32
    assert scores.detach().numpy() == pytest.approx(expected.numpy(), abs=1e-4)
    assert expected[:, 0].std() > 1e-3                                 # the clips do differ
    assert [item.name for item in path.parent.glob(".*")] == []        # no half file


@pytest.mark.parametrize(("name", "format"), [
    ("conv2d", "torch-export"), ("conv2d", "torchscript"), ("conv2d", "onnx"), ("tsm-conv2d", "onnx"),
    ("tsm-conv2d", "torchscript"),
])
def test_an_exported_file_gives_the_same_scores(tmp_path, name, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    check(calibrated(tmp_path, name), tmp_path / f"model{SUFFIXES[format]}", format)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("format", list(SUFFIXES))
def test_every_network_of_the_promise(tmp_path, name, format):
    check(calibrated(tmp_path, name, clip_len=8, size=64), tmp_path / f"model{SUFFIXES[format]}", format)


@pytest.mark.parametrize("format", ["torch-export", "torchscript"])
def test_a_model_with_bounded_views_takes_any_number_of_videos(tmp_path, format):
    """The bound splits a batch in a loop that an exported file would repeat for the traced size only."""
    predictor = calibrated(tmp_path, "conv2d", num_clips=3)
    predictor.model.max_views = 2
    path = tmp_path / f"model{SUFFIXES[format]}"
    clips = generated_clips(predictor, num_clips=1)
    assert export_model(predictor, path, format=format, clips=clips) <= 1e-4
    assert predictor.model.max_views == 2
    batch = torch.stack([clips[0], clips[0].flip(1), clips[0].flip(2), clips[0].flip(0), clips[0]])
    with exporting.quiet_exporters(), torch.inference_mode():
        scores = exporting.OPENERS[format](path)(batch)
        expected = predictor.model.cls_head.video_scores(predictor.model(batch, mode="logits"))
    assert scores.numpy() == pytest.approx(expected.numpy(), abs=1e-4)


def test_one_clip_is_checked_in_a_batch_of_three_too():
    seen = []

    def run(batch):
        seen.append(len(batch))
        return batch.flatten(1).float().mean(dim=1, keepdim=True)

    difference = exporting.largest_difference(run, run, [torch.ones(1, 3, 2, 4, 4)])
    assert difference == 0 and sorted(set(seen)) == [1, 3]


def test_the_metadata_names_every_view(tmp_path):
    predictor = calibrated(tmp_path, "conv2d", num_clips=2, num_crops=3)
    path = tmp_path / "model.torchscript"
    export_model(predictor, path, format="torchscript", clips=generated_clips(predictor, num_clips=1))
    with exporting.quiet_exporters():
        metadata = metadata_in(path)
    assert metadata["shape"][0] == 6 and metadata["frames"].startswith("2 clips of 4 frames")
    assert metadata["pixels"] == ("short side resized to 32, bilinear, then three squares of 32 along the long side, "
                                  "see views")
    assert metadata["views"] == [{"clip": clip, "crop": crop} for crop in ("first end", "last end", "centre")
                                 for clip in (0, 1)]
    other = Predictor(tmp_path / "model.pt", device="cpu", num_clips=1)
    assert '"num_clips": 1' in exporting.metadata_of(other, torch.zeros(3, 3, 4, 32, 32))["eval_pipeline"]


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    predictor = calibrated(tmp_path, "conv2d")
    path = tmp_path / "model.torchscript"
    usual = exporting.OPENERS["torchscript"]
    monkeypatch.setitem(exporting.OPENERS, "torchscript", lambda part: lambda clips: usual(part)(clips) + 2e-4)
    with pytest.raises(ValueError, match=r"not written: its scores differ by up to 2\.0e-04 .* accepted is 1\.0e-04"):
        export_model(predictor, path, format="torchscript", clips=generated_clips(predictor))
    monkeypatch.setitem(exporting.OPENERS, "torchscript", lambda part: lambda clips: usual(part)(clips) * np.nan)
    with pytest.raises(ValueError, match="not written"):
        export_model(predictor, path, format="torchscript", clips=generated_clips(predictor))
    assert [item.name for item in tmp_path.iterdir()] == ["model.pt"]


def test_an_error_of_another_package_is_one_sentence(tmp_path, monkeypatch):
    """onnxruntime's are of classes of its own, and of several lines."""
    class FailError(Exception):
        pass

    def fail(part):
        raise FailError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation\nfor Conv")

    predictor = calibrated(tmp_path, "conv2d")
    monkeypatch.setitem(exporting.OPENERS, "torchscript", fail)
    with pytest.raises(ValueError, match=r"^conv2d cannot be exported as torchscript: \[ONNXRuntimeError\] : 9 : "
                                         r"NOT_IMPLEMENTED : Could not find an implementation$"):
        export_model(predictor, tmp_path / "model.torchscript", format="torchscript",
                     clips=generated_clips(predictor))
    assert [item.name for item in tmp_path.iterdir()] == ["model.pt"]


def test_the_metadata_says_which_frames_and_pixels_a_published_network_takes():
    predictor = Predictor(published_net(), device="cpu")
    metadata = exporting.metadata_of(predictor, predictor.inputs_of(np.zeros((40, 20, 20, 3), np.uint8)))
    assert metadata["frames"] == ("1 clips of 4 frames 2 apart at 30 frames a second, the clips spread evenly over "
                                  "the video")
    assert metadata["pixels"] == "short side resized to 18, bilinear with antialiasing, then the centre square of 16"


def published_net():
    arguments = dict(embed_dim=16, depth=1, num_heads=2, mlp_dim=32, clip_len=4, size=16, patch=8)
    model = videomae.build(num_classes=2, **arguments)
    model.published = PublishedModel("videomae-base", arguments, ("a", "b"), 4, 2, 16, 18, "random", antialias=True)
    return model


def test_the_command_compares_on_real_clips_and_says_so(tmp_path, capsys):
    video = write_clip(tmp_path / "clips" / "a.mp4", 1, 2)
    checkpoint = save_toy(tmp_path / "model.pt")
    assert export(["--checkpoint", str(checkpoint), "--format", "torchscript", "--check", str(video.parent)]) == 0
    out = capsys.readouterr().out
    assert "largest difference of a score on 1 videos: 0.0e+00" in out
    assert f"written: {tmp_path / 'model.torchscript'}" in out
    assert export(["--checkpoint", str(checkpoint), "--format", "torchscript"]) == 2
    assert "which exists; name another file with --out, or add --force" in capsys.readouterr().err
    assert export(["--checkpoint", str(checkpoint), "--format", "torchscript", "--force"]) == 0
    assert "generated clips" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "message"), [
    (["--format", "tflite"], "invalid choice: 'tflite'"),
    (["--format", "torchscript", "--out", "model.onnx"], "must end in .torchscript"),
    (["--format", "torchscript", "--out", "no/where/m.torchscript"], "no such folder to write"),
])
def test_a_wrong_call_is_one_sentence(tmp_path, capsys, words, message):
    assert export(["--checkpoint", str(save_toy(tmp_path / "model.pt")), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_missing_extra_is_one_sentence_with_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert export(["--checkpoint", str(tmp_path / "model.pt"), "--format", "onnx"]) == 2
    error = capsys.readouterr().err
    assert error == 'error: format onnx needs onnxscript; pip install "tinyaction[export]"\n'
