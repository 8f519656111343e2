"""The course of a run in other programs: TensorBoard, MLflow, Weights & Biases.

A tracker is anything with ``on_epoch(record)``, where the record is a row of ``metrics.csv``. What a tracker cannot
do, as without a network, is a note in the log and never the end of a run.
"""

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}  # tracker -> what it imports
EXTRAS = {"tensorboard": "plots", "mlflow": "mlflow", "wandb": "wandb"}
RUN_ID = "{}_run.txt"  # in the run folder: the number of the run there, with which a resumed run goes on


class Tracker(Protocol):
    def on_epoch(self, record: Mapping[str, float]) -> None: ...


class TensorBoard:
    """Scalars in ``RUN/tensorboard``."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(folder / "tensorboard")

    def on_epoch(self, record: Mapping[str, float]) -> None:
        for column, value in record.items():
            kind, _, rest = column.partition("_")      # train_loss -> loss/train: drawn beside loss/val
            tag = f"{rest}/{kind}" if kind in ("train", "val") else f"{kind}/{rest}" if rest else column
            self.writer.add_scalar(tag, value, int(record["epoch"]))
        self.writer.flush()


class MLflow:
    """A run of the experiment "tinyaction", where MLFLOW_TRACKING_URI says, else in this folder."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a server that is away must not hold a run up
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        mlflow: Any = importlib.import_module("mlflow")
        self.client = mlflow.MlflowClient()
        known = self.client.get_experiment_by_name("tinyaction")
        experiment = known.experiment_id if known else self.client.create_experiment("tinyaction")
        self.run = kept_id(folder, "mlflow", lambda: self.client.create_run(
            experiment, run_name=folder.name, tags={"folder": str(folder)}).info.run_id)

    def on_epoch(self, record: Mapping[str, float]) -> None:
        for column, value in record.items():
            self.client.log_metric(self.run, column, value, step=int(record["epoch"]))


class WandB:
    """A run of the project "tinyaction" (WANDB_PROJECT names another one)."""

    def __init__(self, folder: Path) -> None:
        wandb: Any = importlib.import_module("wandb")
        self.run = wandb.init(project=os.environ.get("WANDB_PROJECT", "tinyaction"), name=folder.name, dir=folder,
                              id=kept_id(folder, "wandb", partial(token_hex, 4)), resume="allow")

    def on_epoch(self, record: Mapping[str, float]) -> None:
        self.run.log(dict(record), step=int(record["epoch"]))


TRACKERS: dict[str, Callable[[Path], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def kept_id(folder: Path, name: str, make: Callable[[], str]) -> str:
    """The number of the run in a tracker, from the run folder; made and written there the first time."""
    path = folder / RUN_ID.format(name)
    if not path.exists():
        path.write_text(make() + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError for the first tracker whose package is missing."""
    for name in names:
        try:
            importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else PACKAGES[name])
        except ImportError:
            raise ValueError(f"tracking with {name} needs the package {PACKAGES[name]}, which is not installed; pip "
                             f"install 'tinyaction[{EXTRAS[name]}]'") from None


class Trackers:
    """Several trackers of one run. One that fails is left out from then on, and ``on_note`` told why."""

    def __init__(self, names: Sequence[str], folder: Path, on_note: Callable[[str], None]) -> None:
        self.waiting = list(names)                                     # opened at the first epoch
        self.open: dict[str, Tracker] = {}
        self.folder = folder
        self.on_note = on_note

    def on_epoch(self, record: Mapping[str, float]) -> None:
        for name in [*self.open, *self.waiting]:
            try:
                if name not in self.open:
                    self.open[name] = TRACKERS[name](self.folder)
                self.open[name].on_epoch(record)
            except Exception as error:  # of a network, a login, a disk: whatever these packages raise
                self.open.pop(name, None)
                self.on_note(f"note: {name} is left out of this run: {' '.join(str(error).split())}")
        self.waiting = []
