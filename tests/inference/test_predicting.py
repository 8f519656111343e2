"""What can be predicted besides a file: folders, arrays, generators, long videos in windows, frames as they come."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import CLASSES, bar_frames, save_toy, write_clip, write_set

from tinyaction import Predictor, create_model, open_video
from tinyaction.cli.embed import main as embed
from tinyaction.cli.predict import main as predict
from tinyaction.data.sampling import window_starts
from tinyaction.inference.prediction import Prediction, Window
from tinyaction.inference.timeline import clock, merge_windows, segment_at
from tinyaction.video.writer import write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = write_set(tmp_path_factory.mktemp("bars"), num_train=1, num_val=3)
    save_toy(folder / "model.pt")
    return folder


@pytest.fixture(scope="module")
def predictor(folder) -> Predictor:
    return Predictor(folder / "model.pt", device="cpu")


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> Path:
    """50 frames at 10 a second: lying for 2.5 s, then standing."""
    frames = [*bar_frames(0, 3, num_frames=25), *bar_frames(1, 5, num_frames=25)]
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    write_video(path, frames, fps=10)
    return path


def test_every_kind_of_source_gives_the_scores_of_the_file(predictor, folder):
    path = folder / "val" / "clip 1.mp4"
    expected = predictor(path)
    array = open_video(path).get_batch(range(10))
    assert predictor(str(path)).scores == expected.scores
    assert predictor(array).scores == expected.scores
    assert predictor(torch.from_numpy(array).numpy()).scores == expected.scores
    assert predictor(frame for frame in array).scores == expected.scores
    assert predictor(list(array)).scores == expected.scores            # a list of frames is one video
    in_folder = predictor(folder / "val")
    assert [Path(p.source).name for p in in_folder] == ["clip 0.mp4", "clip 1.mp4", "clip 2.mp4"]
    assert in_folder[1].scores == expected.scores
    assert [p.scores for p in predictor(str(folder / "val" / "*.mp4"))] == [p.scores for p in in_folder]
    assert [p.scores for p in predictor([array, path])] == [expected.scores] * 2
    batched = predictor.predict(folder / "val", batch_size=2)          # 2 and 1
    assert np.array([p.scores for p in batched]) == pytest.approx(np.array([p.scores for p in in_folder]), abs=1e-6)


@pytest.mark.parametrize(("source", "message"), [
    (np.zeros((4, 8, 8, 3)), r"the array is float64; an array of frames must be \(T, H, W, 3\) uint8"),
    (np.zeros((8, 8, 3), np.uint8), r"the array is \(8, 8, 3\)"),
    (np.zeros((4, 3, 8, 8), np.uint8), r"looks like \(T, 3, H, W\): transpose it"),
    (np.zeros((0, 8, 8, 3), np.uint8), "which is empty"),
    (iter([]), "no frames came"),
    (iter([np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)]), r"frame 1 is \(9, 8, 3\); those before"),
    (iter([np.zeros((8, 8), np.uint8)]), r"frame 0 is uint8 \(8, 8\)"),
    (iter(["clip.mp4"]), "frame 0 is str"),
    (None, "a source is NoneType; it must be a file"),
    (1.5, "a source is float"),
    (b"clip.mp4", "a source is bytes"),
    (987, "camera 987: there is none"),
    ("nowhere/*.mp4", "no file fits this pattern"),
])
def test_a_source_of_the_wrong_kind_is_one_sentence(predictor, source, message):
    with pytest.raises(ValueError, match=message):
        predictor(source)


def test_in_a_folder_a_broken_file_is_told_and_the_rest_predicted(predictor, folder, tmp_path):
    for name in ("a.mp4", "c.mp4"):
        write_clip(tmp_path / name, 0, 1)
    (tmp_path / "b.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(ValueError, match=r"b\.mp4: not a readable video"):
        predictor(tmp_path)
    errors: list[Exception] = []
    found = predictor.predict(tmp_path, on_error=errors.append)
    assert [Path(p.source).name for p in found] == ["a.mp4", "c.mp4"]
    assert len(errors) == 1 and "b.mp4" in str(errors[0])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no video in this folder"):
        predictor(tmp_path / "empty")


@pytest.mark.parametrize(("arguments", "starts"), [
    ((11, 4, 3), [0, 3, 6, 7]),
    ((10, 4, 3), [0, 3, 6]),
    ((4, 4, 1), [0]),
    ((9, 2, 4), [0, 4, 7]),
    ((3, 1, 5), [0, 2]),
])
def test_window_starts(arguments, starts):
    assert window_starts(*arguments).tolist() == starts


@pytest.mark.parametrize(("window", "stride"), [(1.0, 0.4), (1.0, None), (1.3, 2.1), (60.0, 1.0)])
def test_a_window_is_predicted_as_if_it_had_been_cut_out(predictor, long_clip, window, stride):
    frames = open_video(long_clip).get_batch(range(50))
    found = list(predictor.windows(long_clip, window_seconds=window, stride_seconds=stride))
    assert found[0].start_seconds == 0 and found[-1].end_seconds == 5.0
    for part in found:
        first, end = round(part.start_seconds * 10), round(part.end_seconds * 10)
        assert part.prediction.scores == predictor(frames[first:end]).scores
    assert len(found) == len(window_starts(50, min(50, round(window * 10)), round((stride or window) * 10)))


def test_windows_keep_a_few_small_frames_only(predictor):
    """The frames of a video of 100,000 full-size ones are made when asked for, and never many at a time."""
    class Endless:
        shape, ndim, dtype = (100_000, 480, 640, 3), 4, np.dtype(np.uint8)
        asked = 0

        def __array__(self, dtype=None, copy=None):
            raise AssertionError("all frames at once")

        def __len__(self):
            return 100_000

        fps = 25.0

        def read(self, indices):
            for index in indices:
                type(self).asked += 1
                yield np.full((480, 640, 3), index % 256, np.uint8)

    predictor._reader, usual = lambda source: ("endless", Endless()), predictor._reader
    try:
        windows = predictor.windows("endless", window_seconds=4.0, stride_seconds=1.0)
        for _ in range(20):
            next(windows)
    finally:
        predictor._reader = usual
    assert Endless.asked <= 20 * 8                                     # 2 clips of 4 frames a window


def window_of(start: float, end: float, label: int, score: float) -> Window:
    scores = [1 - score, score] if label == 1 else [score, 1 - score]
    return Window(start, end, Prediction("clip", ["run", "jump"], scores))


def test_windows_become_segments_at_the_middles_between_them():
    windows = [window_of(0, 2, 0, 0.9), window_of(1, 3, 0, 0.7), window_of(2, 4, 1, 0.6), window_of(3, 5, 0, 0.8)]
    segments = merge_windows(windows)
    assert [(s.start_seconds, s.end_seconds, s.label) for s in segments] == [
        (0, 2.5, "run"), (2.5, 3.5, "jump"), (3.5, 5, "run")]
    assert [s.score for s in segments] == pytest.approx([0.8, 0.6, 0.8])
    assert [segment_at(segments, seconds).label for seconds in (0, 2.4, 2.5, 3.49, 3.5, 99)] == [
        "run", "run", "jump", "jump", "run", "run"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (65, "1:05"), (3723, "1:02:03"), (9.96, "0:10"),
                                               (1.25, "0:01.2"), (59.97, "1:00")])
def test_clock(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(("name", "lag"), [("conv2d", 0), ("tsm-conv2d", 1), ("tsm-resnet18", 8),
                                           ("tsm-mobilenet_v2", 10)])
def test_live_features_are_those_of_one_long_clip(tmp_path, name, lag):
    predictor = Predictor(save_toy(tmp_path / "model.pt", name), device="cpu")
    model = predictor.model
    blocks = np.random.RandomState(0).randint(0, 256, (18, 4, 4, 3)).astype(np.uint8)
    frames = list(blocks.repeat(10, axis=1).repeat(10, axis=2))        # (40, 40, 3) each
    for part in model.modules():                                       # norms that let the signal through
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        model.train()(predictor.frames_to_inputs(frames)[None])
    model.eval()
    live = predictor.live(fps=4, window_seconds=1)                     # clip_len is 4: every frame is taken
    found = []
    for number, frame in enumerate(frames):
        prediction = live.push(frame)
        assert (prediction is not None) == (number >= 3 + lag)         # a full window, after the lag
        found += [live._newest[-1]] if live._newest else []
    assert live.num_lagging == lag
    with torch.inference_mode():
        whole = model(predictor.frames_to_inputs(frames)[None]).mean(dim=(3, 4))  # (1, 18, F)
        last = model.cls_head(whole[:, 14 - lag:18 - lag, :, None, None]).softmax(dim=1)[0]
    assert torch.allclose(torch.cat(found, dim=1), whole[:, :18 - lag], atol=1e-3)  # of values up to 3
    assert whole.std(dim=1).max() > 1e-3                               # the frames do differ
    assert prediction.scores == pytest.approx(last.tolist(), abs=1e-3)
    assert isinstance(getattr(model.backbone, "shift", None), type(create_model(name, 2).backbone.shift) if lag
                      else type(None))                                 # the network is as it was
    if lag == 0:
        clip = predictor.frames_to_inputs(frames[-4:])[None]
        assert prediction.scores == pytest.approx(model(clip, mode="logits").softmax(2)[0, 0].tolist(), abs=1e-6)


def test_live_with_a_network_on_clips_gives_the_score_of_the_last_clip(tmp_path):
    predictor = Predictor(save_toy(tmp_path / "model.pt", "conv3d"), device="cpu")
    frames = list(np.random.RandomState(0).randint(0, 256, (24, 40, 40, 3)).astype(np.uint8))
    live = predictor.live(fps=10, window_seconds=1.2)                  # of 12 frames 4 are taken: 0, 3, 6, ...
    found = [live.push(frame) for frame in frames]
    assert [number for number, prediction in enumerate(found) if prediction] == [9, 12, 15, 18, 21]
    with torch.inference_mode():
        clip = predictor.frames_to_inputs([frames[i] for i in (12, 15, 18, 21)])[None]
        expected = predictor.model(clip, mode="logits").softmax(2)[0, 0].tolist()
    assert found[21].scores == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match=r"frame 24 is \(8, 8, 3\); those before are \(40, 40, 3\)"):
        live.push(np.zeros((8, 8, 3), np.uint8))


def test_features_are_what_the_classifier_sees(predictor, folder, tmp_path, capsys):
    out = tmp_path / "features.npy"
    assert embed([str(folder / "val"), "--checkpoint", str(folder / "model.pt"), "--out", str(out),
                  "--device", "cpu"]) == 0
    features, names = np.load(out), (tmp_path / "features.txt").read_text().splitlines()
    assert features.shape == (3, 128) and features.dtype == np.float32
    assert [Path(name).name for name in names] == ["clip 0.mp4", "clip 1.mp4", "clip 2.mp4"]
    with torch.inference_mode():
        logits = predictor.model(predictor.inputs_of(names[2])[None], mode="logits").mean(dim=1)[0]
        again = predictor.model.cls_head.fc(torch.from_numpy(features[2]))
    assert torch.allclose(again, logits, atol=1e-5)


def test_the_command_prints_a_table_json_and_csv(folder, tmp_path, capsys):
    video, checkpoint = str(folder / "val" / "clip 0.mp4"), str(folder / "model.pt")
    expected = Predictor(checkpoint, device="cpu")(video)
    assert predict([video, "--checkpoint", checkpoint]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == video and len(lines) == 3
    assert lines[1].split() == [f"{expected.score:.3f}", "#" * round(30 * expected.score), expected.label]
    assert predict([video, "--checkpoint", checkpoint, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row == {"source": video, "class": expected.label, "score": expected.score,
                   "scores": dict(zip(CLASSES, expected.scores, strict=True))}
    assert predict([str(folder / "val"), "--checkpoint", checkpoint, "--csv", str(tmp_path / "out.csv")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 9              # the table is there too
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0] == "source,class,score,lying,standing" and len(rows) == 4
    assert rows[1] == f"{video},{expected.label},{expected.score:.6f}," + ",".join(f"{s:.6f}" for s in expected.scores)


def test_the_command_writes_a_timeline_and_an_overlay(folder, long_clip, tmp_path, capsys):
    timeline, overlay = tmp_path / "t.csv", tmp_path / "o.mp4"
    assert predict([str(long_clip), "--checkpoint", str(folder / "model.pt"), "--window", "1", "--stride", "0.5",
                    "--timeline", str(timeline), "--overlay", str(overlay)]) == 0
    rows = [row.split(",") for row in timeline.read_text().splitlines()]
    assert rows[0] == ["start_seconds", "end_seconds", "class", "score"]
    assert [float(row[0]) for row in rows[1:]] == [0.0, *(float(row[1]) for row in rows[1:-1])]  # no gap
    assert float(rows[-1][1]) == 5.0
    assert timeline.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    drawn, original = open_video(overlay), open_video(long_clip)
    assert len(drawn) == 50 and drawn.fps == pytest.approx(10)
    difference = np.abs(drawn.get_batch([30])[0].astype(int) - original.get_batch([30])[0]).mean(axis=(1, 2))
    assert difference[:40].mean() < 12 < difference[-8:].mean()        # only the strip below is another picture
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "t.png", "o.mp4"}  # and no half file


@pytest.mark.parametrize(("arguments", "message"), [
    (["nowhere.mp4"], "nowhere.mp4: no such file"),
    (["VIDEO", "--json", "VIDEO"], "it must end in .json (put the sources before --json)"),
    (["VIDEO", "--overlay", "out.avi"], "--overlay is out.avi; it must end in .mp4"),
    (["VIDEO", "--overlay", "no/where/out.mp4"], "no such folder to write out.mp4 into"),
    (["VIDEO", "VIDEO", "--overlay", "out.mp4"], "--overlay is for one video; 2 sources"),
    (["VIDEO", "--stride", "1"], "--stride and --timeline are for windows"),
    (["VIDEO", "--window", "0"], "--window is 0.0; it must be above 0 seconds"),
    (["VIDEO", "--top", "0"], "--top is 0; it must be at least 1"),
    (["987"], "camera 987: there is none"),
    (["VIDEO", "--json", "--csv"], "cannot both go to the screen"),
])
def test_a_wrong_call_is_one_sentence_and_exit_code_2(folder, capsys, arguments, message):
    video = str(folder / "val" / "clip 0.mp4")
    words = [video if word == "VIDEO" else word for word in arguments]
    assert predict([*words, "--checkpoint", str(folder / "model.pt"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_checkpoint_of_an_older_layout_is_one_sentence(folder, tmp_path, capsys):
    old = torch.load(folder / "model.pt", weights_only=True)
    for change, message in (({"format": "tinyaction-0"}, "not a checkpoint of this version"),
                            ({"eval_pipeline": {"clip_len": 4, "sides": 32}}, "a checkpoint of another layout")):
        torch.save(old | change, tmp_path / "old.pt")
        assert predict(["clip.mp4", "--checkpoint", str(tmp_path / "old.pt")]) == 2
        assert message in capsys.readouterr().err


def test_predicting_with_the_guides_network_does_not_wait_for_torchvision(folder):
    """Importing torchvision takes over a second, as long as all the rest together."""
    code = ("import sys, torch; from tinyaction.cli.predict import main; code = main(sys.argv[1:]); "
            "late = {'torchvision', 'matplotlib', 'onnx', 'av'} & set(sys.modules); sys.exit(str(late or code))")
    words = [str(folder / "val" / "clip 0.mp4"), "--checkpoint", str(folder / "model.pt")]
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert result.stderr.strip() == "0"
