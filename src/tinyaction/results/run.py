"""The folder of a run: its settings, its course, its results.

    config.json        the flags, the classes, the versions, the data
    metrics.csv        a row an epoch; of several labels the accuracy in it is mAP, and F1
    predictions.csv    a row a validation video: what best.pt says of it, with the scores of all classes
    classes.csv        a row a class: precision, recall and its interval, F1; of several labels average precision
    timelines.csv      what is true and what is told of uncut videos; only of --task timeline
    shortcuts.csv      a row a simpler model: what it sees and how many videos it has right (see shortcuts.py)
    neighbors.csv      of each validation video the training clips most like it; only of a probe
    log.txt            what the terminal showed
    best.pt            the weights with the highest validation accuracy
    last.pt            the newest weights and all that a resumed run needs;  last.previous.pt  those before
    folds.csv          a row a fold; only of --folds
    bad_files.txt      videos that were skipped, and why; only where there are any
    tensorboard/       the columns of metrics.csv for TensorBoard, where asked for;  mlflow_run.txt  its run in MLflow
    report.html        all of this to look at, with pictures beside it (see report.py and report.css)
    .lock              held while a run writes here

:class:`RunFolder` writes it, :func:`read_run` reads it.
"""

import csv
import errno
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tinyaction.data.loader import BadVideo
from tinyaction.data.segments import LABEL_SEPARATOR, split_segment_name
from tinyaction.files import write_whole
from tinyaction.places import is_place, without_secrets
from tinyaction.results.evaluation import EpochRecord, Evaluation
from tinyaction.results.evaluation_tables import PREDICTIONS, write_tables
from tinyaction.results.label_sets import CLASSES
from tinyaction.results.run_copy import RunCopy, local_run_folder, place_of_run
from tinyaction.results.shortcuts import Shortcut, read_shortcuts
from tinyaction.results.trackers import Trackers, check_trackers
from tinyaction.text import from_cell, printable, shell_line
from tinyaction.video.frames import FORMATS

T = TypeVar("T")

METRICS = ("epoch", "lr", "train_loss", "train_top1", "val_loss", "val_top1", "val_mean_class")
LABEL_SET_METRICS = (
    "epoch", "lr", "train_loss", "train_exact_match", "val_loss", "val_map", "val_f1", "val_exact_match")
TIMES = ("data_seconds", "compute_seconds")
FOLDS = ("fold", "videos", "train_videos", "accuracy", "mean_class_accuracy", "loss", "chosen", "num_groups", "groups")
LABEL_SET_FOLDS = ("fold", "videos", "train_videos", "map", "f1", *FOLDS[5:])
OLD_COLUMNS = {"seconds_waiting": "data_seconds", "seconds_computing": "compute_seconds"}  # of earlier versions
LOCK = ".lock"


class RunFolder:
    """A new folder, or with ``reopen`` that of a resumed run. Locked for this process until :meth:`close`.

    Where ``out`` lies elsewhere, as s3://bucket/runs/a, the folder is runs/a; :meth:`copy` and :meth:`close` copy it.
    Never overwrites a file that it finds in a folder. ``on_line`` receives each line of the log, to print it.

    Raises:
        ValueError: ``out`` is a folder with something in it, or a file, or another process writes to it; or
            the package of a tracker is missing.
    """

    def __init__(
        self, out: str | Path = "", *, name: str = "run", trackers: Sequence[str] = (), reopen: bool = False,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self._on_line = on_line
        check_trackers(trackers)  # first: where one is missing no folder is made
        self.path = local_run_folder(out) if str(out) else _next_folder(Path("runs"), name)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: exists already and is a file; name a folder with --out")
        if reopen and not self.path.exists():
            raise FileNotFoundError(f"{self.path}: no such run folder")
        place = place_of_run(self.path) if reopen else out
        self._copy = RunCopy(self.path, place, is_new=not reopen) if is_place(place) else None
        self.path.mkdir(parents=True, exist_ok=True)
        self._trackers = Trackers(trackers, self.path, self.log)
        self._lock = _lock(self.path)
        if not reopen:
            try:
                check_new(self.path)
            except ValueError:
                self._unlock()
                raise

    def copy(self) -> None:
        """Copy the run to the place where it is wanted, if that is elsewhere; a failure is logged."""
        if self._copy is not None:
            self._copy.copy()
            if self._copy.failure:
                self.log(f"not copied: {self._copy.failure}; tried again at the next save")

    def close(self) -> None:
        """Copy the run for the last time, and release the lock; OSError where it cannot be copied."""
        try:
            if self._lock >= 0 and self._copy is not None:
                self._copy.copy()
                if self._copy.failure:
                    raise OSError(self._copy.failure)
                if self._on_line is not None:
                    self._on_line(f"copied to {self._copy.place}")
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            with suppress(OSError):  # Windows removes no open file
                (self.path / LOCK).unlink()
            os.close(self._lock)
        self._lock = -1

    def forget_after(self, num_epochs: int) -> None:
        """Take the rows of later epochs out of ``metrics.csv``: they will be done again."""
        path = self.path / "metrics.csv"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = lines[:1] + [line for line in lines[1:] if line.endswith("\n")
                                and line.split(",")[0].isdigit() and int(line.split(",")[0]) <= num_epochs]
            if kept != lines:
                write_whole(path, "".join(kept))

    def add_bad_files(self, bad: Iterable[BadVideo]) -> None:
        """Keep ``bad_files.txt`` as lines "path<TAB>reason", each path once."""
        path = self.path / "bad_files.txt"
        reasons = _read_bad_files(path)
        new = {video.filename: " ".join(video.reason.split()) for video in bad}
        if new.keys() - reasons.keys():
            reasons = {**new, **reasons}
            write_whole(path, "".join(f"{name}\t{reasons[name]}\n" for name in sorted(reasons)))

    def log(self, line: str) -> None:
        """Append a line to ``log.txt`` and hand it to ``on_line``."""
        line = printable(line)
        with open(self.path / "log.txt", "a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._on_line is not None:
            self._on_line(line)

    def remove_if_empty(self) -> None:
        """Remove a run that stopped before its first step, so that the same command can be given again."""
        self._unlock()
        for name in ("config.json", "log.txt", "last.pt", "bad_files.txt", "best.pt", "metrics.csv", "predictions.csv",
                     "classes.csv", "shortcuts.csv", "neighbors.csv", "folds.csv"):  # the last seven are of a probe
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # somebody else's file is in it
            self.path.rmdir()
        if self._copy is not None:
            self._copy.remove()

    def write_config(self, config: Mapping[str, Any]) -> None:
        text = without_secrets(json.dumps(config, indent=2, ensure_ascii=False))
        write_whole(self.path / "config.json", text + "\n")

    def mend_config(self, facts: Mapping[str, Any], *, fixed: Iterable[str]) -> bool:
        """Undo what was done to ``config.json`` by hand: the ``fixed`` names say what they say in ``facts``.

        A damaged file says all that ``facts`` do. Returns whether there was something to undo.
        """
        true = json.loads(json.dumps({name: facts[name] for name in fixed}))
        try:
            content = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            is_whole = "class_names" in content and all(content.get(name, true[name]) == true[name] for name in true)
        except (OSError, ValueError, TypeError, AttributeError):
            content, is_whole = {}, False
        if not is_whole:
            self.write_config({**facts, **content, **true})
        return not is_whole

    def add_to_config(self, facts: Mapping[str, Any]) -> None:
        """Add what a run found out to its ``config.json``; one that was damaged meanwhile stays as it is."""
        with suppress(OSError, ValueError):
            content = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            self.write_config({**content, **facts})

    def write_predictions(
        self, evaluation: Evaluation, class_names: Sequence[str], *, folds: Sequence[int] | None = None
    ) -> None:
        """Write ``predictions.csv`` and ``classes.csv``, over those of an earlier epoch."""
        write_tables(self.path, evaluation, class_names, folds=folds)

    def add_metrics(self, record: EpochRecord) -> dict[str, float]:
        """Append an epoch to ``metrics.csv`` and return its row; epochs count from 1 there."""
        row = metrics_row(record)
        path = self.path / "metrics.csv"
        is_new = not path.exists()
        with open(path, "a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(row)
            # All digits: the best epoch of the file is that of best.pt.
            writer.writerow([value if isinstance(value, int) else repr(float(value)) for value in row.values()])
        self._trackers.on_epoch(row)
        return row


def check_new(path: Path) -> None:
    """Raise ValueError where a run would begin in a folder with something in it."""
    if path.is_dir() and any(child.name != LOCK for child in path.iterdir()):
        raise ValueError(f"{path}: exists already and is not empty; name another folder with --out, or go on with the "
                         "run in it with --resume")


def _lock(folder: Path) -> int:
    """A descriptor of a file whose lock no other process can have; it ends with this process, however that ends.

    A record lock, as children of a fork do not inherit it: a worker that outlives a killed run does not hold it.
    """
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise ValueError(f"{folder}: another run is writing to this folder; wait for it, or stop it") from None
        raise
    try:
        if os.path.samestat(os.stat(folder / LOCK), os.fstat(file)):
            return file
    except FileNotFoundError:
        pass
    os.close(file)  # its owner has just ended and removed it
    return _lock(folder)


def metrics_row(record: EpochRecord) -> dict[str, float]:
    """Column -> value; ``val_top5`` only where there are more than five classes."""
    train, val = record.train, record.val
    times = (train.data_seconds + val.data_seconds, train.compute_seconds + val.compute_seconds)
    if val.is_multi_label:
        figures = (train.loss, train.top1, val.loss, val.mean_ap, val.f1, val.exact_match)
        return dict(zip((*LABEL_SET_METRICS, *TIMES), (record.epoch + 1, record.lr, *figures, *times), strict=True))
    row = dict(zip(METRICS, (record.epoch + 1, record.lr, train.loss, train.top1, val.loss, val.top1, val.mean_class),
                   strict=True))
    if val.top5 is not None:
        row["val_top5"] = val.top5
    return row | dict(zip(TIMES, times, strict=True))


@dataclass
class SavedPrediction:
    """A line of ``predictions.csv``: ``score`` is that of the predicted class, ``label_score`` of the true one."""

    filename: str
    label: int
    predicted: int
    score: float
    label_score: float
    labels: tuple[int, ...] = ()  # of several labels all of them; the two above are then the first, or -1
    predicted_labels: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()  # of several labels, of each class

    @property
    def is_right(self) -> bool:
        return self.label == self.predicted and self.labels == self.predicted_labels


@dataclass(repr=False)
class Run:
    """What the files of a run folder say."""

    folder: Path
    config: dict[str, Any]  # config.json
    history: list[dict[str, float]]  # metrics.csv; a value that is missing there is missing here
    predictions: list[SavedPrediction]  # predictions.csv; empty where there is none
    bad_files: frozenset[str] = frozenset()  # paths in bad_files.txt: videos that were skipped
    folds: Sequence[Mapping[str, str]] = ()  # folds.csv; empty where there is none
    classes: Sequence[Mapping[str, str]] = ()  # classes.csv; only of several labels
    shortcuts: Sequence[Shortcut] = ()  # shortcuts.csv; empty where there is none

    def __repr__(self) -> str:
        best = self.best
        return (f"Run({self.folder}: {self.config.get('model')} on {len(self.class_names)} classes, "
                f"{len(self.history)} epochs, best {best['epoch']:.0f} with "
                + (f"mAP {best['val_map']:.4f})" if self.is_multi_label else f"accuracy {best['val_top1']:.4f})"))

    @property
    def class_names(self) -> list[str]:
        return list(self.config["class_names"])

    @property
    def is_multi_label(self) -> bool:
        return bool(self.config.get("multi_label"))

    @property
    def is_evaluation(self) -> bool:
        """Whether ``tinyaction evaluate`` left it: no training, one row of metrics."""
        return "evaluated" in self.config

    def names_of(self, one: SavedPrediction) -> tuple[str, str]:
        """The true and the predicted label of a video by name; several are joined."""
        names = self.class_names
        if not self.is_multi_label:
            return names[one.label], names[one.predicted]
        true, predicted = (", ".join(names[label] for label in labels)
                           for labels in (one.labels, one.predicted_labels))
        return true or "no label", predicted or "no label"

    @property
    def best(self) -> dict[str, float]:
        """The row of the epoch that ``best.pt`` holds: the highest by :func:`epoch_sort_key`."""
        return max(self.history, key=epoch_sort_key)


def epoch_sort_key(row: Mapping[str, float]) -> tuple[float, bool, float]:
    """Sort key: higher accuracy or mAP, then the probe that fine-tuning began with (epoch 0), then lower loss."""
    loss = row.get("val_loss", math.inf)
    accuracy = row.get("val_top1", row.get("val_map", -1.0))
    return accuracy, row.get("epoch") == 0, -loss if math.isfinite(loss) else -math.inf


def usage_lines(folder: Path, data: str, example: str, *, is_tested: bool = True) -> list[str]:
    """The commands that evaluate the best weights, use them on a video, and show where they found its class.

    Without ``is_tested`` all videos were trained on, and none is left to evaluate.
    """
    checkpoint = folder / "best.pt"
    evaluate = ["evaluate: " + shell_line("tinyaction", "evaluate", "--data", data, "--checkpoint", checkpoint)]
    return [*(evaluate if is_tested else []),
            "predict:  " + shell_line("tinyaction", "predict", example, "--checkpoint", checkpoint),
            "explain:  " + shell_line("tinyaction", "explain", example, "--checkpoint", checkpoint)]


def next_lines(folder: Path, config: Mapping[str, Any], example: str) -> list[str]:
    """:func:`usage_lines`; of cross-validation, after a sentence on what its folds leave."""
    if config.get("evaluated"):
        return [config["command"]]
    if not config.get("folds"):
        return usage_lines(folder, config["data"], example)
    if not config.get("final"):
        again = shell_line("tinyaction", "train", "--config", folder / "config.json", "--final")
        return [f"no best.pt, as folds only measure; to train on all videos as well: {again}"]
    return ["best.pt is trained on all videos, so none is left to test it; what the folds got stands for it",
            *usage_lines(folder, config["data"], example, is_tested=False)]


def read_run(folder: str | Path) -> Run:
    """Read ``config.json``, ``metrics.csv`` and, where it is there, ``predictions.csv``.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no run folder, no epoch has ended yet, or a file is damaged; the file is named.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    for name in ("config.json", "metrics.csv"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: no {name} in it; a run folder has one as soon as the first epoch has ended")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names = [str(name) for name in config["class_names"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'}: not the configuration of a run ({error!r})") from None
    columns: Sequence[str] = LABEL_SET_METRICS if config.get("multi_label") else METRICS
    if config.get("task") == "timeline" and "evaluated" in config:
        columns = ("epoch",)                                           # and the figures of timelines
    history = read_table_rows(folder / "metrics.csv", columns, _metrics_of)
    if not history:
        raise ValueError(f"{folder / 'metrics.csv'}: no epoch in it yet")
    numbers = {name: number for number, name in enumerate(names)}
    path = folder / "predictions.csv"
    parse = _label_set_of if config.get("multi_label") else _prediction_of
    predictions = read_table_rows(path, PREDICTIONS, lambda row: parse(row, numbers)) if path.is_file() else []
    columns = LABEL_SET_FOLDS if config.get("multi_label") else FOLDS
    folds = read_table_rows(folder / "folds.csv", columns, dict) if (folder / "folds.csv").is_file() else []
    has_classes = config.get("multi_label") and (folder / "classes.csv").is_file()
    classes = read_table_rows(folder / "classes.csv", CLASSES, dict) if has_classes else []
    return Run(folder, config, history, predictions, frozenset(_read_bad_files(folder / "bad_files.txt")), folds,
               classes, read_shortcuts(folder))


def _prediction_of(row: Mapping[str, str], numbers: Mapping[str, int]) -> SavedPrediction:
    return SavedPrediction(from_cell(row["path"]), numbers[from_cell(row["class"])],
                           numbers[from_cell(row["predicted"])], float(row["score"]), float(row["class_score"]))


def _label_set_of(row: Mapping[str, str], numbers: Mapping[str, int]) -> SavedPrediction:
    labels, predicted = (tuple(numbers[name] for name in from_cell(row[column]).split(LABEL_SEPARATOR) if name)
                         for column in ("class", "predicted"))
    first, first_predicted = (numbers_of[0] if numbers_of else -1 for numbers_of in (labels, predicted))
    return SavedPrediction(from_cell(row["path"]), first, first_predicted, float(row["score"]),
                           float(row["class_score"] or math.nan), labels, predicted,
                           tuple(float(row[f"score_{name}"]) for name in numbers if f"score_{name}" in row))


def end_of_name(filename: str) -> str:
    """Folder and name of a video or a segment, without the suffix that a frame store adds."""
    name, times = split_segment_name(filename)
    path = Path(name)
    return "/".join((path.with_suffix("") if path.suffix in FORMATS.values() else path).parts[-2:]) + times


def _read_bad_files(path: Path) -> dict[str, str]:
    """Path -> reason of the videos that were skipped; empty where there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return dict(line.partition("\t")[::2] for line in lines)


def read_table_rows(path: Path, columns: Sequence[str], parse: Callable[[dict[str, str]], T]) -> list[T]:
    """The lines of a CSV file, each parsed; ValueError names the file and the line."""
    parsed = []
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.DictReader(file)
        missing = [name for name in columns if name not in (table.fieldnames or [])]
        if missing:
            raise ValueError(f"{path}, line 1: no column {missing[0]!r}")
        for row in table:
            try:
                parsed.append(parse(row))
            except (ValueError, LookupError, TypeError) as error:
                raise ValueError(f"{path}, line {table.line_num}: cannot be read ({error!r})") from None
    return parsed


def _metrics_of(row: dict[str, str]) -> dict[str, float]:
    return {OLD_COLUMNS.get(name, name): float(text) for name, text in row.items() if text}


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
