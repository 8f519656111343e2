"""A run is told to other programs, and none of them can end it."""

import sys
from pathlib import Path

import pytest

from tinyaction.results.trackers import MLflow, Trackers, WandB, check_trackers

ROWS = [{"epoch": 1, "lr": 0.1, "train_loss": 0.5}, {"epoch": 2, "lr": 0.05, "train_loss": 0.25}]


def test_mlflow_has_every_number_and_a_resumed_run_goes_on(tmp_path: Path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tmp_path / "run").mkdir()
    for row in ROWS:                                   # a new process each: opened anew
        MLflow(tmp_path / "run").on_epoch(row)
    number = (tmp_path / "run" / "mlflow_run.txt").read_text().strip()
    client = mlflow.MlflowClient()
    assert [(one.step, one.value) for one in client.get_metric_history(number, "train_loss")] == [(1, 0.5), (2, 0.25)]
    assert client.get_run(number).info.run_name == "run"


def test_wandb_without_a_network(tmp_path: Path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracker = WandB(tmp_path)
    for row in ROWS:
        tracker.on_epoch(row)
    tracker.run.finish()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_a_tracker_that_fails_is_a_note_and_left_out(tmp_path: Path, monkeypatch):
    seen: list[str] = []

    class Good:
        def __init__(self, folder: Path) -> None: ...

        def on_epoch(self, record) -> None:
            seen.append(f"epoch {record['epoch']}")

    class Bad(Good):
        def on_epoch(self, record) -> None:
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr("tinyaction.results.trackers.TRACKERS", {"bad": Bad, "good": Good})
    trackers = Trackers(["bad", "good"], tmp_path, seen.append)
    for row in ROWS:
        trackers.on_epoch(row)
    assert seen == ["note: bad is left out of this run: no route to host", "epoch 1", "epoch 2"]


@pytest.mark.parametrize(("name", "module", "extra"), [
    ("tensorboard", "torch.utils.tensorboard", "plots"), ("mlflow", "mlflow", "mlflow"), ("wandb", "wandb", "wandb"),
])
def test_a_missing_package_is_named_before_the_run(monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"needs the package {name}.*pip install 'tinyaction\[{extra}\]'"):
        check_trackers([name])
