"""A run from Python: ``ta.train`` returns what came out, and prints nothing."""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import write_set

import tinyaction as ta
from tinyaction.data.loader import BadVideo
from tinyaction.results.evaluation import EpochRecord, Evaluation, TrainResult
from tinyaction.results.run import epoch_sort_key, read_run
from tinyaction.training.config import RunConfig
from tinyaction.training.run import epoch_heading, epoch_line, waiting_advice


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RunConfig:
    data = write_set(tmp_path_factory.mktemp("bars"), num_train=6, num_val=3)
    return RunConfig(str(data), clip_len=2, size=16, epochs=2, batch_size=2, num_workers=0, device="cpu",
                     out=str(data.parent / "run"))


@pytest.fixture(scope="module")
def result(config) -> ta.RunResult:
    return ta.train(config)


def test_the_result_says_what_came_out(result, config):
    assert str(result.path) == config.out
    assert result.num_epochs == 2
    row = read_run(result.path).best
    assert (result.best_epoch, result.accuracy) == (row["epoch"], row["val_top1"])
    assert ta.Checkpoint.load(result.checkpoint).epoch == result.best_epoch
    assert result.evaluation.num_classes == 2
    assert repr(result) == (f"RunResult(accuracy {result.accuracy:.4f} over 3 videos, epoch {result.best_epoch} of 2, "
                            f"{result.path}/best.pt)")


def test_lines_and_progress_go_to_callbacks_and_nothing_is_printed(config, tmp_path, capfd):
    lines, batches = [], []
    config = RunConfig(config.data, clip_len=2, size=16, epochs=1, num_workers=0, device="cpu",
                       out=str(tmp_path / "run"))
    ta.train(config, on_line=lines.append, on_batch=batches.append)
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "run" / "log.txt").read_text() == "".join(f"{line}\n" for line in lines)
    assert [progress.kind for progress in batches] == ["train", "val"]


def test_a_network_trained_with_checkpointing_is_an_ordinary_one(config, tmp_path):
    """The weights, and with them the scores on one CPU, are those of a run without."""
    found = []
    for is_on in (False, True):
        run = ta.train(replace(config, model="tsm-resnet18", weights="none", size=32, epochs=1, checkpointing=is_on,
                               out=str(tmp_path / f"{is_on}")))
        predictor = ta.Predictor(run.checkpoint, device="cpu")
        found.append((ta.Checkpoint.load(run.checkpoint).state_dict,
                      [predictor(path).scores for path in run.evaluation.filenames], run.evaluation.scores))
    (weights, scores, _), (own_weights, own_scores, evaluated) = found
    assert own_weights.keys() == weights.keys()
    assert all(torch.equal(own_weights[name], weight) for name, weight in weights.items())
    np.testing.assert_array_equal(own_scores, scores)
    np.testing.assert_allclose(own_scores, evaluated, rtol=1e-5)


def test_the_numbers_of_an_epoch_stand_below_their_names_in_80_columns():
    bad = [BadVideo(0, "a.mp4", "damaged")]
    train, val = TrainResult(1.4, 0.25, 1200, 30.25, 1234.5, bad), Evaluation(
        1.386, np.array([[0.4, 0.6], [0.8, 0.2]]), np.array([1, 1]), ["a.mp4", "b.mp4"], 0.0, 0.0)
    heading = epoch_heading(1000)
    assert heading.startswith("epoch ")
    first, second = epoch_line(EpochRecord(998, 0.1, train, val), 1000, is_best=True).split("\n")
    assert len(first) <= 80 and second == "  skipped 1 train, 0 val"
    ends = {name.end(): name[0].strip() for name in re.finditer(r"\S+( \S+)*", heading)
            if name[0] != "epoch"}
    numbers = {number.end(): number[0] for number in re.finditer(r"\S+", first.removesuffix("  best"))}
    named = [(ends[end], numbers[end]) for end in sorted(ends)]
    assert named == [("train loss", "1.400"), ("accuracy", "0.250"), ("val loss", "1.386"),
                     ("accuracy", "0.500"), ("seconds", "1264.8"), ("waiting", "2%")]
    assert first.startswith("epoch 999/1000  ") and first.endswith("  best")


def test_the_columns_are_named_once_above_the_first_epoch(result):
    log = (result.path / "log.txt").read_text().split("\n")
    assert log.count(epoch_heading(2)) == 1
    assert log[log.index(epoch_heading(2)) + 1].startswith("epoch   1/2 ")


def test_metrics_csv_keeps_all_digits(result):
    """With six of them another epoch could look best than the one in best.pt."""
    with open(result.path / "metrics.csv", newline="") as file:
        rows = [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]
    assert rows[-1] == ta.Checkpoint.load(result.path / "last.pt").metrics
    best = ta.Checkpoint.load(result.checkpoint)
    assert max(rows, key=epoch_sort_key) == best.metrics and best.epoch == result.best_epoch


def test_metrics_of_earlier_versions_are_read(result, tmp_path):
    for name in ("config.json", "metrics.csv"):
        text = (result.path / name).read_text()
        (tmp_path / name).write_text(text.replace("data_seconds", "seconds_waiting").replace("compute_seconds",
                                                                                            "seconds_computing"))
    assert "seconds_waiting" in (tmp_path / "metrics.csv").read_text()
    assert read_run(tmp_path).history == read_run(result.path).history


@pytest.mark.parametrize(("num_workers", "filename", "flag"), [
    (1, "a.mp4", "--num-workers 4 "), (4, "a.mp4", "--store jpeg "), (4, "a.mp4.zip", "--store raw "),
    (4, "a.mp4.npy", "the cores are at their limit"),
])
def test_a_run_that_waits_is_told_one_flag(num_workers, filename, flag, monkeypatch):
    monkeypatch.setattr("tinyaction.training.run.default_num_workers", lambda: 4)
    assert waiting_advice(RunConfig("d", num_workers=num_workers), filename).startswith(flag)
