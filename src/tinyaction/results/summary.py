"""An evaluation in text, at most 80 columns wide."""

import string
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tinyaction.results.evaluation import Evaluation
from tinyaction.results.label_sets import label_set_lines
from tinyaction.results.plots import columns_of, shortened

WIDTH = 80


def result_lines(result: Evaluation, class_names: Sequence[str]) -> list[str]:
    """Accuracy and confusion matrix, of several labels mAP and a line a class, in text at most 80 columns wide."""
    if result.is_multi_label:
        return label_set_lines(result, class_names)
    num_listed = len(result.labels) + len(result.bad)
    of_all = f"{len(result.labels)} of {num_listed}" if result.bad else f"{num_listed}"
    lines = [f"accuracy {result.top1:.4f} over {of_all} videos, mean over classes {result.mean_class:.4f}"]
    if result.top5 is not None:
        lines[0] += f", top-5 {result.top5:.4f}"
    lines += [f"  skipped: {video.filename}: {video.reason}" for video in result.bad]
    return lines + confusion_lines(result.confusion, class_names)


def confusion_lines(matrix: npt.NDArray[np.int64], class_names: Sequence[str]) -> list[str]:
    """The matrix (K, K) with the names of its columns where it fits, else with letters, else the confused pairs."""
    title = "confusion matrix (row = true class, column = predicted class):"
    by_name = _table(matrix, row_names=class_names, column_names=class_names, gap=2)
    if max(map(columns_of, by_name)) <= WIDTH:
        return [title, *by_name]
    if len(class_names) <= len(string.ascii_lowercase):
        letters = string.ascii_lowercase[: len(class_names)]
        rows = [f"{letter}  {shortened(name, 24)}" for letter, name in zip(letters, class_names, strict=True)]
        by_letter = _table(matrix, row_names=rows, column_names=letters, gap=1)
        if max(map(columns_of, by_letter)) <= WIDTH:
            return [title.replace("class)", "class, by its letter)"), *by_letter]
    return _pair_lines(matrix, class_names)


def _table(
    matrix: npt.NDArray[np.int64], *, row_names: Sequence[str], column_names: Sequence[str], gap: int
) -> list[str]:
    """A line of column names, then a line a row; numbers stand below the end of their column's name."""
    left = max(map(columns_of, row_names))
    least = max(3, len(str(int(matrix.max()))))
    widths = [max(least, columns_of(name)) for name in column_names]
    heading = "".join(" " * (gap + width - columns_of(name)) + name
                      for name, width in zip(column_names, widths, strict=True))
    lines = [" " * (left + 2) + heading]
    for name, counts in zip(row_names, matrix.tolist(), strict=True):
        cells = "".join(f"{count:>{gap + width}}" for count, width in zip(counts, widths, strict=True))
        lines.append(f"  {name}{' ' * (left - columns_of(name))}{cells}")
    return lines


def confused_pairs(matrix: npt.NDArray[np.int64], num_pairs: int) -> list[tuple[int, int]]:
    """(true class, predicted class) of the cells off the diagonal that hold videos, the most videos first."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:num_pairs]
    return [divmod(int(place), len(matrix)) for place in order if wrong.flat[place] > 0]


def _pair_lines(matrix: npt.NDArray[np.int64], class_names: Sequence[str]) -> list[str]:
    pairs = confused_pairs(matrix, 10)
    if not pairs:
        return ["no video was confused"]
    return ["most confused (true -> predicted):", *(
        f"  {int(matrix[true, predicted]):>5} videos  {shortened(class_names[true], 30)} -> "
        f"{shortened(class_names[predicted], 30)}" for true, predicted in pairs)]
