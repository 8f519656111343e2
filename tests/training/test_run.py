"""A run from Python: ``ta.train`` returns what came out, and prints nothing."""

import csv

import pytest
from toys import write_set

import tinyaction as ta
from tinyaction.results.run import epoch_sort_key, read_run
from tinyaction.training.config import RunConfig
from tinyaction.training.run import waiting_advice


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
