"""A run of --task timeline: an ordinary folder, whose checkpoint says of videos what it said of their features."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from toys import bar_frames

import tinyaction as ta
from tinyaction.cli import main
from tinyaction.data.annotations import find_data
from tinyaction.data.long_videos import find_long_videos, read_long_videos
from tinyaction.data.segments import read_segments
from tinyaction.prepare.streams import make_streams
from tinyaction.results.run import read_run
from tinyaction.results.timeline_report import read_timelines
from tinyaction.training import timeline_run
from tinyaction.training.config import RunConfig
from tinyaction.training.timeline_run import StepData, draw_crops, step_targets
from tinyaction.video.writer import write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streams"
    make_streams(folder, num_train=3, num_val=1, seconds=10, seed=3)
    text = (folder / "segments.csv").read_text()
    for name in ("right", "left"):                                     # so that each class is in training
        text = text.replace(name, "plain")
    for name in ("horizontal stripes", "vertical stripes"):
        text = text.replace(name, "striped")
    (folder / "segments.csv").write_text(text)
    return folder


def config(folder, out, **flags) -> RunConfig:
    return RunConfig(str(folder), task="timeline", device="cpu", out=str(out), num_workers=0, **{
        "model": "conv2d", "size": 32, "stride": 0.25, "epochs": 3, "flip": 0, "batch_size": 2} | flags)


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory) -> ta.RunResult:
    return ta.train(config(folder, tmp_path_factory.mktemp("runs") / "run"))


def test_the_run_folder_is_an_ordinary_one(result):
    run = read_run(result.path)
    assert len(run.history) == 3 and run.best["val_top1"] == result.accuracy
    assert run.best["epoch"] == result.best_epoch and run.config["timeline"]["frame_accuracy"] > 0
    assert {"best.pt", "config.json", "log.txt", "metrics.csv", "timelines.csv", "report.html"} <= {
        path.name for path in result.path.iterdir()}
    assert run.class_names == ["plain", "striped", "background"]
    assert "timeline of conv2d, 1 frame of 32x32 every 0.25 s on cpu" in (result.path / "log.txt").read_text()
    page = (result.path / "report.html").read_text()
    assert "F1@50" in page and "tinyaction train --data" in page and run.config["data_fingerprint"] in page
    assert RunConfig(**ta.Checkpoint.load(result.checkpoint).config).clip_len == 1


def test_the_report_is_made_again(result, capsys):
    before = (result.path / "report.html").read_bytes()
    (result.path / "report.html").unlink()
    assert main(["report", str(result.path)]) == 0
    assert (result.path / "report.html").read_bytes() == before


def test_the_same_seed_gives_the_same_weights(result, folder, tmp_path):
    again = ta.train(config(folder, tmp_path / "again"))
    first, second = (ta.Checkpoint.load(one.checkpoint).state_dict for one in (result, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = ta.train(config(folder, tmp_path / "other", seed=1))
    assert not np.array_equal(result.evaluation.scores, other.evaluation.scores)


def test_the_averaged_weights_are_kept_and_not_the_last_ones(folder, tmp_path, monkeypatch):
    averages, trained = [], []
    create = timeline_run.create_average

    def watched(network, decay):
        assert decay == 0.995
        averages.append(create(network, decay))
        trained.append(network)
        return averages[0]

    monkeypatch.setattr(timeline_run, "create_average", watched)
    kept = ta.TimelinePredictor(ta.train(config(folder, tmp_path / "run", epochs=1)).path, device="cpu").model.temporal
    for name, value in averages[0].module.state_dict().items():
        assert torch.equal(kept.state_dict()[name], value)
    assert int(averages[0].n_averaged) == timeline_run.LEAST_BATCHES   # after each step
    first = "stages.0.0.weight"
    assert not torch.allclose(kept.state_dict()[first], trained[0].state_dict()[first], atol=1e-4)


def test_a_crop_that_is_longer_than_its_video_repeats_the_last_step():
    one = StepData(None, 2.0, [torch.tensor([[1.0, 2.0, 3.0]])], torch.tensor([0, 1, 1]))
    inputs, targets, seen = draw_crops([one], torch.tensor([3.0]), RunConfig("x", batch_size=2), torch.Generator())
    assert inputs.shape == (2, 1, timeline_run.CROP_STEPS)
    assert inputs[0, 0, :4].tolist() == [1, 2, 3, 3] and inputs[0, 0, -1] == 3
    assert targets[1, :3].tolist() == [0, 1, 1] and seen.sum(dim=1).tolist() == [3, 3] and seen[0, 2]


def test_evaluate_measures_what_the_run_did(result, folder, capsys):
    assert main(["evaluate", "--task", "timeline", "--data", str(folder), "--checkpoint", str(result.path),
                 "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    log = (result.path / "log.txt").read_text()
    lines = [line for line in shown.splitlines() if not line.startswith("1 video, ")]
    assert len(lines) == 13 and all(line in log for line in lines)     # to the rounding of float16 in the cache


def test_evaluate_leaves_a_folder_with_figures_segments_and_a_page(result, folder, tmp_path, capsys):
    out = tmp_path / "evaluated"
    words = ["evaluate", "--task", "timeline", "--data", str(folder), "--checkpoint", str(result.path),
             "--device", "cpu", "--out", str(out)]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {out / 'report.html'}"
    run, trained = read_run(out), read_run(result.path)
    for name, value in trained.config["timeline"].items():
        if value is not None:
            assert run.config["timeline"][name] == pytest.approx(run.history[0][name], abs=1e-5)
            assert run.config["timeline"][name] == pytest.approx(value, abs=0.02)  # float16 in the cache
    (video,), (before,) = (read_timelines(one / "timelines.csv") for one in (out, result.path))
    segments = [one for one in read_segments(folder / "segments.csv") if one.path == "val/stream0000.mp4"]
    assert [(one.start_seconds, one.end_seconds, one.label) for one in video.true] == [
        (pytest.approx(one.start, abs=1e-3), pytest.approx(one.end, abs=1e-3), one.label) for one in segments]
    assert video.duration == 10 and video.true == before.true
    page = (out / "report.html").read_text()
    assert "tinyaction evaluate --task timeline" in page and run.config["data_fingerprint"] in page
    assert "Training" not in page and "frame accuracy" in page
    assert main(["report", str(out)]) == 0 and (out / "report.html").read_text() == page
    assert main(words) == 2 and "--out" in capsys.readouterr().err


def test_predict_writes_segments_in_every_form(result, folder, tmp_path, capsys):
    video = str(folder / "val" / "stream0000.mp4")
    names = {"csv": "a.csv", "json": "a.json", "srt": "a.srt", "vtt": "a.vtt", "timeline": "t.csv", "overlay": "a.mp4"}
    outputs = [word for flag, name in names.items() for word in (f"--{flag}", str(tmp_path / name))]
    words = ["predict", video, "--checkpoint", str(result.path), "--device", "cpu"]
    assert main([*words, *outputs]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"{video}: ")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(shown) - 1 == int(shown[0].split()[1])
    lines = [json.loads(line) for line in (tmp_path / "a.json").read_text().splitlines()]
    assert [(row["class"], float(row["start_seconds"])) for row in rows] == [
        (line["class"], line["start_seconds"]) for line in lines]
    assert (tmp_path / "a.srt").read_text().count(" --> ") == len(rows)
    assert (tmp_path / "a.vtt").read_text().startswith("WEBVTT")
    assert (tmp_path / "t.png").is_file() and len(ta.open_video(tmp_path / "a.mp4")) == len(ta.open_video(video))
    assert main([*words, "--csv"]) == 0
    assert capsys.readouterr().out.startswith("source,start_seconds,end_seconds,class,score")


def test_false_events_choose_the_lowest_score_that_is_told(folder, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(timeline_run, "choose_score",
                        lambda *_, per_hour: asked.append(per_hour) or 0.3)
    kept = ta.train(config(folder, tmp_path / "run", false_events=2, epochs=1))
    timeline = ta.TimelinePredictor(kept.path, device="cpu")(str(folder / "val" / "stream0000.mp4"))
    assert asked == [2] and timeline.min_score == 0.3
    log = (kept.path / "log.txt").read_text()
    assert "told above a score of 0.300: so the validation videos have at most 2 false events an hour of back" in log
    assert "to promise 2 it takes 1:30:00 of background without one" in log


@pytest.mark.parametrize("command, message", [
    ("predict VIDEO --checkpoint RUN --window 1", "--window does not go with a model of timelines"),
    ("predict 0 --checkpoint RUN", "0: a timeline is of a video file, not of a camera"),
    ("explain VIDEO --checkpoint RUN --out OUT.png", "a model of timelines (train --task timeline), not of clips"),
    ("embed VIDEO --checkpoint RUN --out OUT.npy", "a model of timelines (train --task timeline), not of clips"),
    ("export --checkpoint RUN --format torchscript --out OUT.torchscript", "a model of timelines"),
    ("evaluate --data DATA --checkpoint RUN", "a model of timelines (train --task timeline), not of clips"),
    ("evaluate --task timeline --data DATA --checkpoint RUN --split train --num-crops 3", "--num-crops does not go"),
    ("evaluate --task timeline --data DATA --model x3d-s", "--task timeline measures a run"),
    ("train --data DATA --task timeline --method probe", "--method probe does not go with --task timeline"),
    ("train --data DATA --task timeline --model conv2d --ema 0.9", "--ema does not go with --task timeline; leave"),
    ("train --data DATA --model conv2d --false-events 1", "--false-events goes with --task timeline; leave it out"),
    ("train --data DATA --task timeline", "name a model, as --model"),
    ("train --data DATA/val --task timeline --model conv2d", "segments.csv: no such file; uncut videos need one"),
    ("train --data DATA --task timeline --model conv3d --window 11 --size 32 --clip-len 4 --out OUT",
     "lasts 10.00 s, less than the window of 11 s"),
])
def test_what_does_not_fit_is_one_sentence(result, folder, tmp_path, capsys, command, message):
    names = {"VIDEO": str(folder / "val" / "stream0000.mp4"), "RUN": str(result.path), "DATA": str(folder)}
    words = [names.get(word, word.replace("DATA", str(folder)).replace("OUT", str(tmp_path / "out")))
             for word in command.split()]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def write_list(folder, text):
    (folder / "a.mp4").write_bytes(b"")
    (folder / "b.mp4").write_bytes(b"")
    (folder / "segments.csv").write_text("path,start,end,label,split\n" + text)
    return folder


@pytest.mark.parametrize("text, message", [
    ("", "the table is empty"),
    ("a.mp4,1,2,background,train\nb.mp4,1,2,background,val\n", "no segment of an action in it"),
    ("a.mp4,1,2,run,train\nb.mp4,1,2,jump,val\n", "the class 'jump' has no training segment"),
    ("a.mp4,1,2,run,train\n", "no validation video among 1; give one the split 'val'"),
    ("a.mp4,1,2,run,train\na.mp4,3,4,run,val\n", "an uncut video belongs to train, val or test"),
    ("a.mp4,1,2,run,train\nb.mp4,1,2,run,\n", "has no split, other videos have one"),
    ("a.mp4,1,3,run,train\na.mp4,2,4,jump,train\n", "must not overlap"),
    ("../x.mp4,1,2,run,train\n", "leaves the data folder"),
])
def test_lists_without_what_training_needs(tmp_path, text, message):
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        find_long_videos(write_list(tmp_path, text))
    assert message in str(caught.value)


def test_a_segment_beyond_its_video_is_an_error_and_leaves_no_run(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "streams")
    with open(copy / "segments.csv", "a") as file:
        file.write("val/stream0000.mp4,20,24,plain,val\n")
    with pytest.raises(ValueError, match="the segment 20 to 24 s of .* ends beyond the video, which lasts 10.000 s"):
        ta.train(config(copy, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_without_splits_the_split_of_clips_is_taken(tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.mp4").write_bytes(b"")
    lines = "".join(f"{number}.mp4,{start},{start + 1},run\n" for number in range(6) for start in (1, 3))
    (tmp_path / "segments.csv").write_text(f"path,start,end,label\n{lines}")
    first = find_long_videos(tmp_path)
    assert len(first.val) == 1 and len(first.train) == 5 and "2 of 12 segments were chosen" in first.notes[0]
    clips = find_data(tmp_path)
    assert {clips.val[index][0] for index in range(2)} == {video.path for video in first.val}
    again = find_long_videos(tmp_path)
    assert again.val == first.val and not again.notes
    assert sorted(read_long_videos(tmp_path / "segments.csv")) == ["train", "val"]
    with open(tmp_path / "segments.csv", "a") as file:
        file.write("6.mp4,1,2,run\n")
    (tmp_path / "6.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="split.csv: gives no split to all videos of segments.csv; delete it"):
        find_long_videos(tmp_path)


def test_targets_are_the_classes_at_the_middles_of_steps(folder):
    segments = [one for one in read_segments(folder / "segments.csv") if one.path == "val/stream0000.mp4"][:1]
    first = segments[0]
    targets = step_targets(segments, 40, 0.25, ["plain", "striped"], overlaps=False)
    middles = (np.arange(40) + 0.5) * 0.25
    expected = np.where((middles >= first.start) & (middles < first.end), ["plain", "striped"].index(first.label), 2)
    assert targets.tolist() == expected.tolist()


def write_bars(folder, name, split, seed) -> str:
    """Bars that lie or stand, 1.5 to 3 seconds each, with empty pictures between them; returns its lines."""
    rng = np.random.default_rng(seed)
    frames, lines = [], ""
    for number in range(8):
        empty = np.random.default_rng(seed).integers(0, 80, (32, 32, 3)).astype(np.uint8)
        frames += [empty] * int(rng.integers(8, 20))
        bars = list(bar_frames(number % 2, seed, num_frames=int(rng.integers(15, 31)), side=32))
        label = "lying" if number % 2 == 0 else "standing"
        lines += f"{name}.mp4,{len(frames) / 10},{(len(frames) + len(bars)) / 10},{label},{split}\n"
        frames += bars
    write_video(folder / f"{name}.mp4", frames, fps=10)
    return lines


@pytest.mark.slow
def test_it_learns_where_bars_lie_and_stand(tmp_path):
    """A network with random weights gives features enough for that."""
    lines = [write_bars(tmp_path, f"v{seed}", "val" if seed == 3 else "train", seed) for seed in range(4)]
    (tmp_path / "segments.csv").write_text("path,start,end,label,split\n" + "".join(lines))
    result = ta.train(config(tmp_path, tmp_path / "run", epochs=25, stride=0.1, batch_size=8))
    figures = read_run(result.path).config["timeline"]
    assert figures["f1_50"] > 0.9 and figures["edit"] > 0.9 and figures["boundary_error_seconds"] <= 0.2
    assert result.accuracy > 0.9


def test_several_classes_at_once(tmp_path, capsys):
    make_streams(tmp_path / "streams", num_train=2, num_val=1, seconds=20, seed=1, overlaps=True)
    text = (tmp_path / "streams" / "segments.csv").read_text()
    (tmp_path / "streams" / "segments.csv").write_text(text.replace("left", "right").replace("vertical", "horizontal"))
    with pytest.raises(ValueError, match="must not overlap"):
        ta.train(config(tmp_path / "streams", tmp_path / "run"))
    result = ta.train(config(tmp_path / "streams", tmp_path / "run", overlaps=True))
    checkpoint = ta.Checkpoint.load(result.checkpoint)
    assert checkpoint.class_names == ["horizontal stripes", "right"] and checkpoint.timeline["network"]["overlaps"]
    assert result.evaluation.scores.shape == (2 * 80, 2)               # each step and class: no or yes
    assert main(["predict", str(tmp_path / "streams" / "val"), "--checkpoint", str(result.path), "--json"]) == 0


def test_a_network_of_an_earlier_version_is_told(result, folder, tmp_path, capsys):
    checkpoint = ta.Checkpoint.load(result.checkpoint)
    basis = checkpoint.state_dict["temporal.basis"]
    checkpoint.state_dict["temporal.basis"] = basis[:, : basis.shape[1] // 2]
    checkpoint.save(tmp_path / "best.pt")
    assert main(["predict", str(folder / "val" / "stream0000.mp4"), "--checkpoint", str(tmp_path / "best.pt")]) == 2
    assert "its network over time is that of an earlier version of tinyaction; use the version that wrote it, or " \
        "train again" in " ".join(capsys.readouterr().err.split())
