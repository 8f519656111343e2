"""Timelines that say unknown: from the labelled segments of training to what predict and evaluate say."""

import csv
import json

import numpy as np
import pytest
import torch

import tinyaction as ta
from tinyaction.cli import main
from tinyaction.data.segments import Segment as Labelled
from tinyaction.models.unknown import Unknown
from tinyaction.prepare.streams import make_streams
from tinyaction.results import timeline as timeline_module
from tinyaction.results.calibration import threshold_at_rate
from tinyaction.results.run import RunFolder
from tinyaction.results.timeline import RunMeans, Timeline, join_unknown, step_means
from tinyaction.results.timeline_metrics import Segment
from tinyaction.results.timeline_report import leave_timelines, read_timelines, unknown_lines
from tinyaction.training.timeline_unknown import fit_unknown, pooled_segments

NAMES = ["run", "jump", "background"]


def test_a_segment_is_the_mean_of_the_steps_whose_middle_lies_in_it():
    steps = torch.arange(8.0).reshape(2, 4).T                          # (S, F), each half a second, 0 to 2 s
    segments = [Labelled("v", 0.5, 1.5, "jump"), Labelled("v", 1.3, 1.7, "run"), Labelled("v", 0.3, 0.7, "run")]
    found = pooled_segments([(steps, segments)], NAMES, stride=0.5)
    assert found.features.tolist() == [[1.5, 5.5]] and found.labels.tolist() == [1]  # the others lie between two
    assert pooled_segments([(steps, segments[2:])], NAMES, stride=0.5) is None


def draw(seed: int, num_segments: int = 12):
    """A video with steps (S, 2) of a second: running lies to the right, jumping above, what is between at neither."""
    rng = np.random.RandomState(seed)
    labels = rng.randint(0, 2, num_segments)
    labels[:2] = 0, 1
    steps = np.concatenate([np.tile([[-1.0], [-1.0]], 2) + 5 * np.eye(2)[[label]].T + 0.3 * rng.randn(2, 2)
                            for label in labels], axis=1).T            # (S, 2)
    segments = [Labelled("v", 2 * number, 2 * number + 2, NAMES[label]) for number, label in enumerate(labels)]
    return torch.from_numpy(steps).float(), segments


def test_the_threshold_is_of_the_validation_segments():
    train, val = draw(0), draw(1)
    unknown, lines = fit_unknown([train], [val], NAMES, stride=1.0, rate=0.2)
    held_out = pooled_segments([val], NAMES, stride=1.0)
    distances = unknown.distances(held_out.features)
    assert unknown.threshold == pytest.approx(threshold_at_rate(distances, 0.2), abs=1e-5)
    assert unknown.is_unknown(torch.tensor([[4.0, -1], [-1, 4], [-1, -1], [4, 4]])) == [False, False, True, True]
    assert len(unknown.class_means) == 3  # that of the background, which is no class, is another's
    assert "as 1 of the 12 in validation videos are" in lines[1]
    for seed in range(2, 12):                                          # that at the threshold is not told unknown
        val = draw(seed)
        unknown, lines = fit_unknown([train], [val], NAMES, stride=1.0, rate=0.2)
        num_told = sum(unknown.is_unknown(pooled_segments([val], NAMES, stride=1.0).features))
        assert f"as {num_told} of the 12 in validation videos are" in lines[1]
    _, lines = fit_unknown([train], [val], NAMES, stride=1.0, rate=0.01)
    assert "note: 12 segments cannot promise a false-alarm rate of 0.01, the lowest is 0.077" in lines[2]
    assert fit_unknown([train], [(val[0], [])], NAMES, stride=1.0, rate=0.2) == (None, [
        "note: nothing is told unknown: no segment of the training or of the validation videos is as long as a step"])


def timeline() -> Timeline:
    """A second of each: run, jump, run, nothing, run. Only the first is where a class is, at (1, 0)."""
    scores = np.array([[.8, .1, .1], [.1, .6, .3], [.9, .1, 0], [0, 0, 1], [.7, .1, .2]])
    unknown = Unknown(torch.zeros(2), torch.tensor([[1.0, 0]]), temperature=1.0, threshold=0.5)
    means = RunMeans(2)
    means.add([0, 1, 0, 2, 0], torch.tensor([[3.0, 0], [0, 3], [0, 1], [9, 0], [-1, 0]]))
    return Timeline("v", NAMES, scores, 1.0, 5.0, overlaps=False, unknown=unknown, means=means)


def test_the_means_of_runs_are_the_same_chunk_by_chunk():
    best, features = [0, 0, 1, 1, 1, 2, 2, 0], torch.arange(16.0).reshape(8, 2)
    expected = {0: [2, 4], 2: [18, 21], 7: [14, 15]}                    # 2, the background, has none
    for size in (1, 2, 3, 8):
        means = RunMeans(2)
        for start in range(0, 8, size):
            means.add(best[start : start + size], features[start : start + size])
        assert {start: total.tolist() for start, total in means.sums.items()} == expected


def test_unknown_segments_that_touch_are_one_and_no_action():
    told = timeline()
    assert told.segments() == [Segment(0, 1, "run", pytest.approx(0.8)), Segment(1, 3, "unknown", pytest.approx(0.75)),
                               Segment(4, 5, "unknown", pytest.approx(0.7))]
    assert [one.label for one in told.actions()] == ["run"]
    assert unknown_lines([told, told]) == ["unknown: 4 of 6 told segments; they count as nothing told"]
    told.unknown = None
    assert [one.label for one in told.segments()] == ["run", "jump", "run", "run"]
    assert told.actions() == told.segments() and unknown_lines([told]) == []


def test_the_figures_are_those_of_the_actions(tmp_path):
    run = RunFolder(str(tmp_path / "run"))
    metrics = leave_timelines(run, {}, [timeline()], [[Segment(0, 1, "run")]])
    run.close()
    assert metrics.edit == metrics.f1[0.5] == metrics.frame_accuracy == 1.0
    (video,) = read_timelines(run.path / "timelines.csv")
    assert [one.label for one in video.told] == ["run", "unknown", "unknown"]


def test_segments_of_a_class_that_touch_stay_apart():
    runs = [Segment(0, 1, "run"), Segment(1, 2, "run")]
    told = join_unknown([*runs, Segment(2, 3, "unknown", 0.2), Segment(3, 6, "unknown", 0.6)])
    assert told == [*runs, Segment(2, 6, "unknown", pytest.approx(0.5))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streams"
    make_streams(folder, num_train=3, num_val=1, seconds=10, seed=3)
    text = (folder / "segments.csv").read_text()
    for name, kind in (("right", "plain"), ("left", "plain"), ("horizontal stripes", "striped"),
                       ("vertical stripes", "striped")):
        text = text.replace(name, kind)
    (folder / "segments.csv").write_text(text)
    return folder


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory) -> ta.RunResult:
    return ta.train(ta.RunConfig(str(folder), task="timeline", device="cpu", num_workers=0, model="conv2d", size=32,
                                 stride=0.25, epochs=6, lr=0.01, flip=0, batch_size=2, unknown_rate=0.2,
                                 out=str(tmp_path_factory.mktemp("runs") / "run")))


def with_threshold(result, tmp_path, threshold: float) -> str:
    """The same checkpoint, at another threshold."""
    checkpoint = ta.Checkpoint.load(result.checkpoint)
    checkpoint.unknown.threshold = threshold
    checkpoint.save(tmp_path / "best.pt")
    return str(tmp_path / "best.pt")


def test_a_run_stores_what_prediction_says(result, folder, tmp_path, capsys):
    checkpoint = ta.Checkpoint.load(result.checkpoint)
    assert checkpoint.unknown is not None and checkpoint.unknown.class_means.shape[0] == 3
    assert "distance: mahalanobis; fewer than 3 classes" in (result.path / "log.txt").read_text()
    video = str(folder / "val" / "stream0000.mp4")
    named = ta.TimelinePredictor(result.path, device="cpu", tells_unknown=False)(video).segments()
    assert named and {one.label for one in named} <= {"plain", "striped"}
    strict = with_threshold(result, tmp_path, 0.0)
    assert {one.label for one in ta.TimelinePredictor(strict, device="cpu")(video).segments()} == {"unknown"}
    outputs = {"csv": "a.csv", "json": "a.json", "srt": "a.srt", "vtt": "a.vtt", "timeline": "t.csv"}
    words = [word for flag, name in outputs.items() for word in (f"--{flag}", str(tmp_path / name))]
    assert main(["predict", video, "--checkpoint", strict, "--device", "cpu", *words]) == 0
    assert all(" unknown 0." in line for line in capsys.readouterr().out.splitlines()[1:])
    with open(tmp_path / "a.csv", newline="") as file:
        assert {row["class"] for row in csv.DictReader(file)} == {"unknown"}
    assert {json.loads(line)["class"] for line in (tmp_path / "a.json").read_text().splitlines()} == {"unknown"}
    assert "\nunknown 0." in (tmp_path / "a.srt").read_text() and "\nunknown 0." in (tmp_path / "a.vtt").read_text()
    assert ",unknown," in (tmp_path / "t.csv").read_text()
    assert main(["predict", video, "--checkpoint", strict, "--device", "cpu", "--no-unknown", "--json"]) == 0
    assert "unknown" not in capsys.readouterr().out


def test_prediction_adds_up_what_the_steps_of_each_run_have(result, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(timeline_module, "CHUNK_STEPS", 8)
    monkeypatch.setattr(timeline_module, "PIECE_STEPS", 5)
    predictor = ta.TimelinePredictor(with_threshold(result, tmp_path, 0.0), device="cpu")
    predictor.model.temporal.reach = 3                                 # so that 40 steps are several chunks
    video = str(folder / "val" / "stream0000.mp4")
    told = predictor(video)
    steps = torch.cat([step_means(piece) for piece in predictor.features.pieces(
        video, *predictor.features.open(video))])
    expected = RunMeans(2)
    expected.add(told.scores.argmax(axis=1).tolist(), steps)
    assert told.means.sums.keys() == expected.sums.keys() and told.means.num_steps == len(steps) == 40
    for start, total in expected.sums.items():
        torch.testing.assert_close(told.means.sums[start], total)


def test_evaluate_counts_unknown_segments_as_nothing_told(result, folder, tmp_path, capsys):
    out = tmp_path / "evaluated"
    assert main(["evaluate", "--task", "timeline", "--data", str(folder), "--device", "cpu", "--out", str(out),
                 "--checkpoint", with_threshold(result, tmp_path, 0.0)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (video,) = read_timelines(out / "timelines.csv")
    assert {one.label for one in video.told} == {"unknown"}
    assert lines[-2].startswith(f"unknown: {len(video.told)} of {len(video.told)} told segment")
    assert [float(line.split()[-1]) for line in lines if line.startswith(("edit score", "F1@10"))] == [0, 0]
    page = (out / "report.html").read_text()
    assert "</i>unknown</span>" in page


@pytest.mark.parametrize(("flags", "message"), [
    ("--unknown-rate 0.1 --overlaps", "--unknown-rate with --overlaps does not go with --task timeline; leave one"),
    ("--background DIR", "--background does not go with --task timeline; leave it out"),
    ("--unknown-rate 1", "--unknown-rate is 1.0; it must be below 1"),
    ("--unknown-rate 0.1", "a class is named 'unknown', which --unknown-rate says of segments of none of the classes"),
])
def test_flags_that_cannot_be_are_one_sentence(folder, tmp_path, monkeypatch, capsys, flags, message):
    for video in folder.rglob("*.mp4"):
        (tmp_path / "data" / video.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / video.parent.name / video.name).symlink_to(video)
    text = (folder / "segments.csv").read_text().replace("striped", "unknown")
    (tmp_path / "data" / "segments.csv").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "data", "--task", "timeline", "--model", "conv2d", *flags.split()]) == 2
    error = capsys.readouterr().err
    assert message in " ".join(error.split()) and not (tmp_path / "runs").exists()
