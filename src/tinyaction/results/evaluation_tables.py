"""What an evaluation leaves as tables: predictions.csv, a row a video, and classes.csv, a row a class."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyaction.files import write_whole
from tinyaction.results import label_sets
from tinyaction.results.evaluation import Evaluation
from tinyaction.results.metrics import class_scores, wilson_interval
from tinyaction.text import to_cell

PREDICTIONS = ("path", "class", "predicted", "score", "class_score")
CLASSES = ("class", "videos", "precision", "recall", "recall_low", "recall_high", "f1")


def write_tables(
    folder: Path, evaluation: Evaluation, class_names: Sequence[str], *, folds: Sequence[int] | None = None
) -> None:
    """Write both tables, over earlier ones.

    The score of each class is in a column "score_NAME"; ``folds`` is in which each video was held out.
    """
    columns = [*PREDICTIONS, *(["fold"] if folds else []), *(f"score_{name}" for name in class_names)]
    rows = []
    for number, filename in enumerate(evaluation.filenames):
        label, predicted, *scores = _prediction(evaluation, number, class_names)
        rows.append([*map(to_cell, (filename, label, predicted)), *map(_figure, scores),
                     *([folds[number]] if folds else []), *map(_figure, evaluation.scores[number])])
    _write(folder / "predictions.csv", columns, rows)
    if evaluation.is_multi_label:
        _write(folder / "classes.csv", label_sets.CLASSES, [
            [to_cell(name), positives, *map(_figure, values)]
            for name, positives, *values in label_sets.class_rows(evaluation, class_names)])
    else:
        _write(folder / "classes.csv", CLASSES, [
            [to_cell(name), num_videos, *map(_figure, (precision, recall, *recall_interval(recall, num_videos), f1))]
            for name, (precision, recall, f1, num_videos) in zip(
                class_names, class_scores(evaluation.confusion), strict=True)])


def recall_interval(recall: float, num_videos: int) -> tuple[float, float]:
    """The 95 % interval of a class's recall; NaN where it has no videos."""
    return wilson_interval(round(recall * num_videos), num_videos) if num_videos else (math.nan, math.nan)


def _prediction(evaluation: Evaluation, index: int, class_names: Sequence[str]) -> tuple[str, str, float, float]:
    """True class, predicted class, the scores of the predicted and of the true one."""
    if evaluation.is_multi_label:
        return label_sets.prediction_cells(evaluation, index, class_names)
    scores, label = evaluation.scores[index], int(evaluation.labels[index])
    predicted = int(scores.argmax())
    return class_names[label], class_names[predicted], float(scores[predicted]), float(scores[label])


def _figure(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns, *rows])
    write_whole(path, text.getvalue())
