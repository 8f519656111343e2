"""What an evaluation leaves: a folder as that of a run, with simpler models beside the network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyaction.data.dataset import VideoDataset
from tinyaction.data.groups import known_groups
from tinyaction.data.lists import VideoList
from tinyaction.models.recognizer import Recognizer
from tinyaction.results.evaluation import EpochRecord, Evaluation, TrainResult
from tinyaction.results.report import write_report
from tinyaction.results.run import Run, RunFolder, SavedPrediction, metrics_row, read_run
from tinyaction.results.shortcuts import Shortcut, write_shortcuts
from tinyaction.results.summary import result_lines
from tinyaction.training.build import STAND_IN
from tinyaction.training.folds import divide
from tinyaction.training.identity import ListIdentity, fingerprint, origin
from tinyaction.training.probe import MAX_FOLDS, least_groups
from tinyaction.training.shortcuts import most_frequent, of_folds, of_lists, of_network


@dataclass
class Measured:
    """A network, the videos that it was shown, and what it said; ``config`` goes into config.json."""

    model: Recognizer
    dataset: VideoDataset
    evaluation: Evaluation
    class_names: list[str]
    config: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        videos = self.dataset.videos
        return {**self.config, "class_names": self.class_names, "num_val": len(self.evaluation.labels),
                "multi_label": self.evaluation.is_multi_label,
                **origin(fingerprint([ListIdentity.of(videos, self.config["data"])]))}

    @property
    def record(self) -> EpochRecord:
        """A row of metrics.csv that knows nothing of a training."""
        return EpochRecord(0, math.nan, TrainResult(math.nan, math.nan, 0, 0.0, 0.0), self.evaluation)

    def as_run(self, folder: str) -> Run:
        """The evaluation as :func:`read_run` gives it: from its folder where it has one."""
        if folder:
            return read_run(folder)
        scores, labels = self.evaluation.scores, self.evaluation.labels
        predictions = [] if self.evaluation.is_multi_label else [
            SavedPrediction(name, int(label), int(row.argmax()), float(row.max()), float(row[label]))
            for name, label, row in zip(self.evaluation.filenames, labels, scores, strict=True)]
        return Run(Path("this evaluation"), self.facts, [metrics_row(self.record)], predictions)


def simpler_models(
    measured: Measured, listed: VideoList, train: VideoList | None, class_names: Sequence[str], *, extent: str,
    num_workers: int, batch_size: int,
) -> list[Shortcut]:
    """What simpler models get on the videos of an evaluation; nothing where they have several labels.

    ``listed`` are its videos and ``train`` others to learn from, both with the labels of their list, whose names are
    ``class_names``. Without ``train`` files are told apart in folds of the videos themselves.
    """
    if measured.evaluation.is_multi_label:
        return []
    measured.config["most_frequent_class"] = _known_name(measured, listed, train or listed)
    if train is not None:
        found = of_lists(train, listed, extent=extent)
    else:
        num_folds = min(MAX_FOLDS, least_groups(listed.labels.tolist(), known_groups(listed)))
        try:
            folds = divide(listed, class_names, num_folds) if num_folds > 1 else []
        except ValueError:  # groups that cannot be held out so: then nothing is said of the files
            folds = []
        found = of_folds(listed, folds)
    return [*found, *of_network(measured.model, measured.dataset, measured.evaluation, extent=extent,
                                num_workers=num_workers, batch_size=batch_size)]


def _known_name(measured: Measured, listed: VideoList, learned: VideoList) -> str:
    """The most frequent class as the network calls it; "" where no evaluated video is of it."""
    places = np.flatnonzero(listed.labels == most_frequent(learned.labels))
    return measured.class_names[measured.dataset.videos.labels[places[0]]] if len(places) else ""


def write_evaluation(out: str | Path, measured: Measured, simpler: Sequence[Shortcut]) -> Path:
    """Leave a folder as that of a run, and return its page. Raises ValueError where something is in the folder."""
    run = RunFolder(out)
    try:
        run.write_config(measured.facts)
        run.add_metrics(measured.record)
        run.write_predictions(measured.evaluation, measured.class_names)
        run.add_bad_files(measured.evaluation.bad)
        if simpler:
            write_shortcuts(run.path, simpler)
        for line in result_lines(measured.evaluation, measured.class_names):
            run.log(line)
        return write_report(run.path, val_set=measured.dataset, notice=STAND_IN if measured.config["stand_in"] else "")
    finally:
        run.close()
