"""The folder of a run: what it was, how it went, what came out.

    config.json    the flags, the classes, the versions, the data
    metrics.csv    a row an epoch
    log.txt        what the terminal showed
    last.pt        the newest weights;  best.pt the ones with the highest validation accuracy
"""

import csv
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tinyaction.engine import EpochRecord

METRICS = ("epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1", "val_mean_class")
TIMES = ("seconds_waiting", "seconds_computing")


class RunFolder:
    """A new folder; nothing that is in one already is ever overwritten.

    Raises:
        ValueError: ``out`` is a folder with something in it, or a file.
    """

    def __init__(self, out: str | Path = "", *, name: str = "run", runs: str | Path = "runs") -> None:
        self.path = Path(out) if str(out) else _next_folder(Path(runs), name)
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ValueError(f"{self.path}: exists already and is not empty; name another folder with --out")
        self.path.mkdir(parents=True, exist_ok=True)

    def log(self, line: str = "") -> None:
        """Print a line and keep it in ``log.txt``."""
        print(line, flush=True)
        with open(self.path / "log.txt", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def remove(self) -> None:
        """Take back a run that came to nothing, so that the same command can be given again."""
        for name in ("config.json", "log.txt"):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # somebody else's file is in it
            self.path.rmdir()

    def write_config(self, config: Mapping[str, Any]) -> None:
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (self.path / "config.json").write_text(text + "\n", encoding="utf-8")

    def add_metrics(self, record: EpochRecord) -> dict[str, float]:
        """Append an epoch to ``metrics.csv`` and return its row; epochs count from 1 there."""
        row = metrics_row(record)
        path = self.path / "metrics.csv"
        is_new = not path.exists()
        with open(path, "a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(row)
            writer.writerow([f"{value:.6g}" for value in row.values()])
        return row


def metrics_row(record: EpochRecord) -> dict[str, float]:
    """Column -> value; ``val_top5`` only where there are more than five classes."""
    train, val = record.train, record.val
    row = dict(zip(METRICS, (record.epoch + 1, record.lr, train.loss, train.top1, val.loss, val.top1, val.mean_class),
                   strict=True))
    if val.top5 is not None:
        row["val_top5"] = val.top5
    times = (train.seconds_waiting + val.seconds_waiting, train.seconds_computing + val.seconds_computing)
    return row | dict(zip(TIMES, times, strict=True))


def _next_folder(runs: Path, name: str) -> Path:
    """runs/name-1, runs/name-2, ...: made here, so that two runs that start together get two folders."""
    for number in range(1, 1_000_000):
        path = runs / f"{name}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise ValueError(f"{runs}: a million runs named {name}")
