"""Features of any network: of files, folders, windows of long videos, with and without a classifier."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peers import lively
from toys import CLASSES, bar_frames, save_toy, write_set

import tinyaction as ta
from tinyaction.cli import main
from tinyaction.models import vjepa2
from tinyaction.models.model_card import PublishedModel
from tinyaction.video.writer import write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = write_set(tmp_path_factory.mktemp("bars"), num_train=2, num_val=3)
    save_toy(folder / "model.pt")
    return folder


@pytest.fixture(scope="module")
def embedder(folder) -> ta.Embedder:
    return ta.Embedder(folder / "model.pt", device="cpu")


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.avi"
    write_video(path, [*bar_frames(0, 3, num_frames=25), *bar_frames(1, 5, num_frames=25)], fps=10, codec="ffv1")
    return path


def test_a_segment_is_named_as_results_name_it(embedder, long_clip, folder):
    windows = [features for _, _, features in embedder.windows(long_clip, window_seconds=2.5)]
    names = [f"{long_clip}#t=0,2.5", f"{long_clip}#t=2.5,5"]
    assert [name for name, _ in embedder.stream(names)] == names
    np.testing.assert_allclose(embedder(names), windows, atol=1e-6)
    assert np.abs(windows[0] - windows[1]).max() > 0.01
    prediction = ta.Predictor(folder / "model.pt", device="cpu")(names[1])
    assert prediction.source == names[1]
    with pytest.raises(ValueError, match="the segment starts at 4 and ends at 2; it must end after"):
        embedder(f"{long_clip}#t=4,2")


def embed(capsys, *words) -> str:
    assert main(["embed", *map(str, words)]) == 0
    return capsys.readouterr().out


def refusal(capsys, *words) -> str:
    assert main(["embed", *map(str, words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_features_are_those_of_the_network_whatever_the_source(embedder, folder):
    names = sorted((folder / "val").glob("*.mp4"))
    inputs = torch.stack([embedder.inputs.item(str(name))["inputs"] for name in names])  # (N, V, C, T, H, W)
    with torch.no_grad():
        maps = embedder.model(inputs, mode="tensor").unflatten(0, (3, 2))                # (N, V, T, F, h, w)
    expected = maps.mean(dim=(1, 2, 4, 5)).numpy()
    for many in (embedder(folder / "val"), embedder(list(map(str, names))), embedder(folder / "val", batch_size=2)):
        np.testing.assert_allclose(many, expected, rtol=1e-5, atol=1e-6)
    frames = ta.open_video(names[1]).get_batch(range(10))
    for one in (names[1], frames, list(frames)):
        np.testing.assert_allclose(embedder(one), expected[1], rtol=1e-5, atol=1e-6)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


def test_a_window_is_the_part_as_if_it_had_been_cut_out(embedder, long_clip):
    found = list(embedder.windows(long_clip, window_seconds=1.0, stride_seconds=2.0))
    assert [(round(start, 3), round(end, 3)) for start, end, _ in found] == [(0, 1), (2, 3), (4, 5)]
    frames = ta.open_video(long_clip).get_batch(range(50))
    for start, _, features in found:
        first = round(10 * start)
        np.testing.assert_allclose(features, embedder(frames[first : first + 10]), rtol=1e-5, atol=1e-6)


def test_a_network_on_frames_from_a_file_of_weights(folder, tmp_path):
    net = ta.create_model("tsn-squeezenet1_1", 2)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    found = ta.Embedder.from_pretrained("tsn-squeezenet1_1", weights=tmp_path / "net.pt", clip_len=2, size=64,
                                        device="cpu")
    assert found.inputs.arguments["short_side"] == 73 and not found.model.training
    video = folder / "val" / "clip 0.mp4"
    with torch.no_grad():
        maps = net.eval()(found.inputs.item(str(video))["inputs"][None], mode="tensor")  # (1, T, F, h, w)
    np.testing.assert_allclose(found(video), maps.mean(dim=(0, 1, 3, 4)).numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="there are no pretrained weights for conv2d; name a file of weights"):
        ta.Embedder.from_pretrained("conv2d")
    with pytest.raises(ValueError, match="size is 8; tsn-squeezenet1_1 takes at least 17 pixels a side"):
        ta.Embedder.from_pretrained("tsn-squeezenet1_1", weights=tmp_path / "net.pt", size=8)


def test_an_encoder_without_a_classifier(folder):
    """The mean of its tokens."""
    arguments = dict(embed_dim=12, depth=2, num_heads=2, clip_len=4, size=32, patch=8, pooler_depth=0)
    model = lively(vjepa2.build(num_classes=2, **arguments))
    model.published = PublishedModel("vjepa2-vith", arguments, (), 4, None, 32, 36, "random")
    found = ta.Embedder(model, device="cpu")
    video = folder / "val" / "clip 0.mp4"
    with torch.no_grad():
        pixels = model.data_preprocessor(found.inputs.item(str(video))["inputs"])
        tokens = model.backbone.encode(pixels)                         # (1, L, F)
    np.testing.assert_allclose(found(video), tokens.mean(dim=(0, 1)).numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="nothing is published of this recognizer, so its clips are not known"):
        ta.Embedder(ta.create_model("conv2d", 2))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_command_keeps_names_and_labels_of_a_data_folder(folder, embedder, tmp_path, capsys, num_workers):
    text = embed(capsys, "--data", folder, "--checkpoint", folder / "model.pt", "--out", tmp_path / "f.npz",
                 "--device", "cpu", "--num-workers", num_workers)
    assert "f.npz: 5 videos, 128 features each" in text
    content = np.load(tmp_path / "f.npz")
    assert content["labels"].tolist() == [0, 1, 0, 1, 0] and content["class_names"].tolist() == list(CLASSES)
    assert [Path(name).parent.name for name in content["names"]] == ["train"] * 2 + ["val"] * 3
    np.testing.assert_allclose(content["features"][2:], embedder(folder / "val"), rtol=1e-5, atol=1e-6)


def test_the_command_takes_segments_with_several_labels(folder, embedder, long_clip, tmp_path, capsys):
    (tmp_path / "list.csv").write_text("path,start,end,label,split\n" + "".join(
        f"{long_clip},{row}\n" for row in ("0,1,walk;wave,train", "0.5,3,,train", "3,4,wave,val")))
    embed(capsys, "--data", tmp_path, "--allow-outside", "--checkpoint", folder / "model.pt", "--out",
          tmp_path / "f.npz", "--device", "cpu")
    content = np.load(tmp_path / "f.npz")
    assert content["labels"].tolist() == [[1, 1], [0, 0], [0, 1]]
    assert content["class_names"].tolist() == ["walk", "wave"]
    assert content["names"].tolist() == [f"{long_clip}#t={times}" for times in ("0,1", "0.5,3", "3,4")]
    frames = ta.open_video(long_clip).get_batch(range(50))
    for features, (first, stop) in zip(content["features"], ((0, 10), (5, 30), (30, 40)), strict=True):
        np.testing.assert_allclose(features, embedder(frames[first:stop]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_the_command_writes_windows_with_their_seconds(folder, long_clip, tmp_path, capsys, suffix):
    out = tmp_path / f"f{suffix}"
    embed(capsys, long_clip, folder / "val" / "clip 0.mp4", "--checkpoint", folder / "model.pt", "--windows", "2",
          "--out", out, "--device", "cpu")
    if suffix == ".npz":
        content = np.load(out)
        assert content["start_seconds"].tolist() == pytest.approx([0, 2, 3, 0])
        assert content["end_seconds"].tolist() == pytest.approx([2, 4, 5, 1])
        assert [Path(name).name for name in content["names"]] == ["long.avi"] * 3 + ["clip 0.mp4"]
    else:
        assert (tmp_path / "f.txt").read_text().splitlines()[1] == f"{long_clip}\t2.000\t4.000"
        assert np.load(out).shape == (4, 128)


@pytest.mark.parametrize("words, message", [
    ([], "name what to embed: either sources (files, folders, patterns) or --data"),
    (["a.mp4", "--data", "b"], "name what to embed: either sources (files, folders, patterns) or --data"),
    (["a.mp4", "--stride", "1"], "--stride is for windows; say with --windows how many seconds one has"),
    (["a.mp4", "--windows", "0"], "--windows is 0.0; it must be above 0 seconds"),
    (["a.mp4", "--out", "f.csv"], "--out is f.csv; it must end in .npy or .npz"),
    (["no.mp4"], "no.mp4"),
])
def test_what_cannot_be_embedded_is_one_sentence(folder, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, *words, "--checkpoint", folder / "model.pt")
    assert not list(tmp_path.iterdir())
