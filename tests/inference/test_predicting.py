"""What can be predicted besides a file: folders, arrays, generators, long videos in windows, frames as they come."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import CLASSES, bar_frames, save_toy, write_clip, write_set

from tinyaction import Predictor, create_model, open_video
from tinyaction.cli.embed import main as embed
from tinyaction.cli.predict import main as predict
from tinyaction.data.sampling import window_frames
from tinyaction.inference.prediction import Prediction, Window
from tinyaction.inference.sources import MemoryReader
from tinyaction.inference.timeline import merge_windows, segment_at
from tinyaction.results.timeline_picture import clock
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


@pytest.mark.parametrize(("fps", "num_frames", "window", "stride", "expected"), [
    (10, 11, 0.4, 0.3, [(0.0, 0, 4), (0.3, 3, 7), (0.6, 6, 10), (0.7, 7, 11)]),
    (10, 10, 0.4, 0.3, [(0.0, 0, 4), (0.3, 3, 7), (0.6, 6, 10)]),
    (1, 4, 4.0, 1.0, [(0.0, 0, 4)]),
    (1, 9, 2.0, 4.0, [(0.0, 0, 2), (4.0, 4, 6), (7.0, 7, 9)]),         # what lies between is not seen
    (1, 3, 9.0, 5.0, [(0.0, 0, 3)]),                                   # shorter than a window
    (2, 4, 0.1, 1.0, [(0.0, 0, 1), (1.0, 2, 3), (1.9, 3, 4)]),         # a window of less than a frame has one
])
def test_frames_of_windows(fps, num_frames, window, stride, expected):
    seconds = np.arange(num_frames) / fps
    found = window_frames(seconds, num_frames / fps, window_seconds=window, stride_seconds=stride)
    assert [(pytest.approx(start), first, stop) for start, first, stop in found] == expected


def test_frames_of_windows_follow_the_times_of_a_video_with_a_varying_rate():
    """Ten frames in the first second, then one that stays for two seconds, then ten in the last one."""
    seconds = np.array([*np.arange(10) / 10, 1.0, *(3 + np.arange(10) / 10)])
    found = window_frames(seconds, 4.0, window_seconds=1.0, stride_seconds=0.5)
    assert [frames[1:] for frames in found] == [(0, 10), (5, 11), (10, 11), (10, 16), (11, 21)]
    assert [start for start, *_ in found] == [0, 0.5, 1.0, 2.5, 3.0]   # the frame that stays is predicted once


@pytest.mark.parametrize(("window", "stride"), [(1.0, 0.4), (1.0, None), (1.3, 2.1), (60.0, 1.0)])
def test_a_window_is_predicted_as_if_it_had_been_cut_out(predictor, long_clip, window, stride):
    frames = open_video(long_clip).get_batch(range(50))
    found = list(predictor.windows(long_clip, window_seconds=window, stride_seconds=stride))
    assert found[0].start_seconds == 0 and found[-1].end_seconds == pytest.approx(5.0)
    for part in found:
        first, end = round(part.start_seconds * 10), round(part.end_seconds * 10)
        assert part.prediction.scores == predictor(frames[first:end]).scores


class TimedFrames(MemoryReader):
    """Frames with times of their own, as a reader of a file gives them."""

    def __init__(self, frames, seconds):
        super().__init__(frames, fps=len(frames) / seconds[-1])
        self.seconds = np.array(seconds)


def test_windows_take_their_times_from_the_reader(predictor, long_clip):
    """The second half plays at half the speed: a second of it has 5 frames and not 10."""
    frames = open_video(long_clip).get_batch(range(50))
    times = [*np.arange(25) / 10, *(2.5 + np.arange(25) / 5)]
    found = list(predictor.windows(TimedFrames(frames, times), window_seconds=1.0))
    assert found[3].start_seconds == 3.0                               # while frame 27 is shown, from 2.9 s on
    assert found[3].prediction.scores == predictor(frames[27:33]).scores
    again = list(predictor.windows(TimedFrames(frames, times), window_seconds=1.0, fps=10))
    assert [w.prediction.scores for w in again] == [
        w.prediction.scores for w in predictor.windows(long_clip, window_seconds=1.0)]


def test_windows_of_frames_without_a_rate_need_one(predictor):
    with pytest.raises(ValueError, match="array: it does not say how many frames a second has; give fps"):
        list(predictor.windows(np.zeros((8, 40, 40, 3), np.uint8), window_seconds=1))
    assert len(list(predictor.windows(np.zeros((8, 40, 40, 3), np.uint8), window_seconds=1, fps=4))) == 2


def test_windows_keep_a_few_small_frames_only(predictor):
    """The frames of a video of 100,000 full-size ones are made when asked for, and never many at a time."""
    class Endless(MemoryReader):
        asked = 0

        def read(self, indices):
            for index in indices:
                type(self).asked += 1
                yield np.full((480, 640, 3), index % 256, np.uint8)

    windows = predictor.windows(Endless({}, num_frames=100_000, fps=25.0), window_seconds=4.0, stride_seconds=1.0)
    for _ in range(20):
        next(windows)
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
    live = predictor.live(fps=4, window_seconds=1)                     # clip_len is 4: every frame is sampled
    found = [live.push(frame) for frame in frames]
    assert [prediction is not None for prediction in found] == [number >= 3 + lag for number in range(18)]
    assert live.latency_frames == lag
    with torch.inference_mode():
        whole = model(predictor.frames_to_inputs(frames)[None]).mean(dim=(3, 4))  # (1, 18, F)
        for number in range(3 + lag, 18):                              # a full window, late by the network's latency
            clip = whole[:, number - 3 - lag:number + 1 - lag, :, None, None]
            assert found[number].scores == pytest.approx(model.cls_head(clip).softmax(dim=1)[0].tolist(), abs=1e-3)
    assert whole.std(dim=1).max() > 1e-3                               # the frames do differ
    assert isinstance(getattr(model.backbone, "shift", None), type(create_model(name, 2).backbone.shift) if lag
                      else type(None))                                 # the network is as it was
    if lag == 0:
        clip = predictor.frames_to_inputs(frames[-4:])[None]
        assert found[-1].scores == pytest.approx(model(clip, mode="logits").softmax(2)[0, 0].tolist(), abs=1e-6)


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
    assert len(capsys.readouterr().out.splitlines()) == 5              # the table is there too
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
    (["VIDEO", "--overlay", "no/where/out.mp4"], "no such folder to write"),
    (["VIDEO", "VIDEO", "--overlay", "out.mp4"], "--overlay is for one video; 2 sources"),
    (["VIDEO", "--stride", "1"], "--stride, --timeline, --srt and --vtt are for windows"),
    (["VIDEO", "--window", "0"], "--window is 0.0; it must be above 0 seconds"),
    (["VIDEO", "--top", "0"], "--top is 0; it must be at least 1"),
    (["987"], "camera 987: there is none"),
    (["0", "--overlay", "out.mp4"], "--overlay is for video files, not for a camera or --on"),
    (["VIDEO", "--json", "--csv"], "cannot both go to the screen"),
    (["gopher://example.com/a.mp4"], "gopher://example.com/a.mp4: the protocol gopher:// is unknown"),
    (["photo.JPG"], "photo.JPG: a picture is no video"),
    ([], "the following arguments are required: SOURCE"),
    (["VIDEO", "--overlay", "VIDEO"], "which this command also reads or writes"),
    (["VIDEO", "--csv", "LIST"], "which exists and was not written by tinyaction"),
])
def test_a_wrong_call_is_one_sentence_and_exit_code_2(folder, capsys, arguments, message):
    video, table = str(folder / "val" / "clip 0.mp4"), folder / "table.csv"
    table.write_text("mine")
    words = [{"VIDEO": video, "LIST": str(table)}.get(word, word) for word in arguments]
    assert predict([*words, "--checkpoint", str(folder / "model.pt"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert table.read_text() == "mine"


def test_a_missing_checkpoint_is_named_before_all_else(capsys):
    assert predict(["--json", "clip.mp4"]) == 2                        # where --json takes the source for its file
    assert capsys.readouterr().err.startswith("error: no network is given; name the checkpoint")


def test_a_run_folder_is_its_best_checkpoint(folder, tmp_path, capsys):
    video = str(folder / "val" / "clip 0.mp4")
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(FileNotFoundError, match=r"run/best\.pt: no such checkpoint"):
        Predictor(run)
    (run / "best.pt").write_bytes((folder / "model.pt").read_bytes())
    assert Predictor(run, device="cpu")(video).scores == Predictor(folder / "model.pt", device="cpu")(video).scores
    assert predict([video, "--checkpoint", str(run)]) == 0


def test_a_folder_is_a_line_a_video_under_one_heading_and_a_summary(folder, capsys):
    words = [str(folder / "val"), "--checkpoint", str(folder / "model.pt")]
    expected = Predictor(folder / "model.pt", device="cpu")(folder / "val")
    assert predict(words) == 0
    heading, *lines, summary = capsys.readouterr().out.splitlines()
    assert heading.split() == ["score", "class", "video"]
    assert [line.split()[:2] for line in lines] == [[f"{p.score:.3f}", p.label] for p in expected]
    assert all(len(line) <= 80 and line.endswith(Path(p.source).name) for line, p in zip(lines, expected, strict=True))
    counts = Counter(p.label for p in expected)
    assert summary == "3 videos: " + ", ".join(f"{name} {count}" for name, count in counts.most_common())
    assert predict([*words, "--verbose"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 9              # source and two classes each, no summary


def test_a_broken_file_ends_the_command_unless_it_is_skipped(folder, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    whole = str(folder / "val" / "clip 0.mp4")
    words = [str(tmp_path / "broken.mp4"), whole, "--checkpoint", str(folder / "model.pt")]
    assert predict(words) == 2
    assert "clip 0.mp4" not in capsys.readouterr().out
    assert predict([*words, "--skip-errors"]) == 2
    out, err = capsys.readouterr()
    assert "clip 0.mp4" in out and err.splitlines()[-1] == "error: 1 of 2 videos could not be read"


def test_windows_have_one_heading(folder, long_clip, capsys):
    assert predict([str(long_clip), str(long_clip), "--checkpoint", str(folder / "model.pt"), "--window", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["from", "-", "to"] and len(lines) == 1 + 2 * 4
    assert [line for line in lines if line == str(long_clip)] == [str(long_clip)] * 2


def test_a_terminal_that_lacks_a_letter_shows_its_code(folder, tmp_path):
    """As on Windows with code page 1252: no UnicodeEncodeError, and JSON stays JSON."""
    video = write_clip(tmp_path / "\u6253\u5b57.mp4", 0, 1)
    code = "import sys; from tinyaction.cli.predict import main; sys.exit(main(sys.argv[1:]))"
    for flags in ([], ["--json"]):
        result = subprocess.run([sys.executable, "-c", code, video, "--checkpoint", folder / "model.pt", *flags],
                                capture_output=True, env={**os.environ, "PYTHONIOENCODING": "cp1252"})
        assert result.returncode == 0, result.stderr.decode("cp1252")
        shown = result.stdout.decode("cp1252")
        assert json.loads(shown)["source"] == str(video) if flags else "\\u6253\\u5b57.mp4" in shown


def test_scores_leave_the_device_before_they_become_doubles(folder, monkeypatch):
    """Apple's MPS has no float64."""
    usual_cpu, usual_double, on_cpu = torch.Tensor.cpu, torch.Tensor.double, set()

    def cpu(tensor):
        result = usual_cpu(tensor).clone()
        on_cpu.add(result.untyped_storage().data_ptr())
        return result

    def double(tensor):
        assert tensor.untyped_storage().data_ptr() in on_cpu, "a double on the device"
        return usual_double(tensor)

    predictor = Predictor(folder / "model.pt", device="cpu")
    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    monkeypatch.setattr(torch.Tensor, "double", double)
    predictor(folder / "val" / "clip 0.mp4")
    live = predictor.live(fps=4, window_seconds=1)
    assert [live.push(np.zeros((40, 40, 3), np.uint8)) for _ in range(4)][-1] is not None


def test_a_predictor_says_what_it_is(predictor):
    assert repr(predictor) == "Predictor(conv2d, 2 classes, clip_len 4, size 32, num_clips 2, on cpu)"


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
            "late = {'torchvision', 'onnx'} & set(sys.modules); sys.exit(str(late or code))")
    words = [str(folder / "val" / "clip 0.mp4"), "--checkpoint", str(folder / "model.pt")]
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert result.stderr.strip() == "0"


def test_a_file_of_a_folder_that_kills_its_process_is_named(folder, tmp_path, monkeypatch, capsys):
    """The reader is replaced in this process; the workers are its forks."""
    for name in ("a", "b", "c"):
        shutil.copyfile(folder / "val" / "clip 0.mp4", tmp_path / f"{name}.mp4")

    def reader(path):
        if str(path).endswith("b.mp4"):
            os._exit(11)
        return open_video(path)

    monkeypatch.setattr("tinyaction.data.transforms.open_video", reader)
    assert predict([str(tmp_path), "--checkpoint", str(folder / "model.pt")]) == 2
    said = capsys.readouterr()
    assert "a.mp4" in said.out and "c.mp4" in said.out and "b.mp4" not in said.out
    assert f"error: {tmp_path}/b.mp4: " in said.err and "exit code 11" in said.err
    assert "1 of 3 videos could not be read" in said.err


def test_a_folder_of_bad_files_only(folder, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(b"no video" * 10)
    assert predict([str(tmp_path), "--checkpoint", str(folder / "model.pt")]) == 2
    assert "2 of 2 videos could not be read" in capsys.readouterr().err
