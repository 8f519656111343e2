"""What is written of an evaluation of several labels: rows of predictions.csv and classes.csv, lines of the log."""

import math
from collections.abc import Sequence

from tinyaction.data.segments import LABEL_SEPARATOR
from tinyaction.results.evaluation import Evaluation
from tinyaction.results.multilabel import average_precision, label_set_scores
from tinyaction.results.plots import columns_of, shortened

CLASSES = ("class", "positives", "average_precision", "f1", "precision", "recall", "threshold")


def prediction_cells(evaluation: Evaluation, index: int, class_names: Sequence[str]) -> tuple[str, str, float, float]:
    """True and predicted labels of a video, its highest score, and the lowest of its true labels; NaN of none."""
    scores, labels = evaluation.scores[index], evaluation.labels[index].astype(bool)
    sets = (LABEL_SEPARATOR.join(name for name, holds in zip(class_names, row, strict=True) if holds)
            for row in (labels, evaluation.predicted_sets[index]))
    lowest = float(scores[labels].min()) if labels.any() else math.nan
    return *sets, float(scores.max()), lowest  # type: ignore[return-value]


def class_rows(
    evaluation: Evaluation, class_names: Sequence[str]
) -> list[tuple[str, int, float, float, float, float, float]]:
    """The columns :data:`CLASSES` of each class; NaN where there is nothing to divide by."""
    assert evaluation.thresholds is not None
    scores = label_set_scores(evaluation.predicted_sets, evaluation.labels)
    found = average_precision(evaluation.scores, evaluation.labels).tolist()
    return [(name, positives, ap, f1, precision, recall, threshold)
            for name, (precision, recall, f1, positives), ap, threshold
            in zip(class_names, scores, found, evaluation.thresholds.tolist(), strict=True)]


def label_set_lines(evaluation: Evaluation, class_names: Sequence[str]) -> list[str]:
    """mAP, F1 and a line a class, at most 80 columns wide."""
    num_listed = len(evaluation.labels) + len(evaluation.bad)
    of_all = f"{len(evaluation.labels)} of {num_listed}" if evaluation.bad else f"{num_listed}"
    lines = [f"mAP {evaluation.mean_ap:.4f} over {of_all} videos, mean F1 {evaluation.f1:.4f}, all labels right "
             f"{evaluation.exact_match:.4f}"]
    lines += [f"  skipped: {video.filename}: {video.reason}" for video in evaluation.bad]
    names = [shortened(name, 26) for name in class_names]
    width = max(map(columns_of, [*names, "class"]))
    lines.append(f"  {'class':<{width}}  videos     AP     F1  precision  recall  threshold")
    for name, (_, positives, ap, f1, precision, recall, threshold) in zip(
            names, class_rows(evaluation, class_names), strict=True):
        lines.append(f"  {name}{' ' * (width - columns_of(name))}  {positives:>6}  {ap:.3f}  {f1:.3f}  "
                     f"{precision:>9.3f}  {recall:>6.3f}  {threshold:>9.3f}")
    return lines
