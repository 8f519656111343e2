"""Runs beside each other, on the videos that all of them predicted: is one better, and where?

    paired_test       of two classifiers on the same videos: McNemar's test, the interval of the difference
    compare_runs      the predictions of runs, video by video
    comparison_lines  the same in text
    comparison_page   the same as a page
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyaction.data.lists import label_sets
from tinyaction.data.segments import LABEL_SEPARATOR
from tinyaction.results.label_set_compare import (
    BY_CHANCE,
    LabelSetFigures,
    class_cells,
    class_lines,
    difference_lines,
    figure_cells,
    label_set_figures,
)
from tinyaction.results.metrics import wilson_interval
from tinyaction.results.page import html_page, section, table
from tinyaction.results.plots import Series, line_chart, shortened
from tinyaction.results.run import Run, SavedPrediction, end_of_name
from tinyaction.results.summary import WIDTH
from tinyaction.text import some_of

BoolArray = npt.NDArray[np.bool_]

NUM_DRAWS = 10_000  # of the bootstrap
MOST_LINES = 20  # of a list in the terminal
MOST_ROWS = 1000  # of a table on the page
MOST_COLOURS = 6  # of curves; a seventh run has the colour of the first
ALIKE = 0.05  # p-value from which two runs are not told apart
NO_FLAGS = ("class_names", "versions", "out", "command", "date", "most_frequent_class", "evaluated", "eval_pipeline",
            "probe", "finetune", "cross_validation", "unknown", "timeline", "num_processes", "job", "launcher",
            "lr_of_the_batch", "num_val")


@dataclass(frozen=True)
class PairedTest:
    """Two classifiers on the same N videos; the difference is the second's accuracy minus the first's."""

    num_videos: int
    only_first: int  # videos that only the first has right
    only_second: int
    p_value: float  # McNemar's exact test, two-sided
    difference: float
    low: float  # 95 % interval of the difference
    high: float


def paired_test(first: BoolArray, second: BoolArray, *, seed: int = 0) -> PairedTest:
    """Compare which of the same videos two classifiers have right, each (N,) bool.

    McNemar's exact test asks: if both were equally good, how often would the videos that only one of them has right
    fall to one side as much as here? The interval is the percentile bootstrap over videos. Source: McNemar 1947;
    Efron and Tibshirani 1993.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    num_different = only_first + only_second
    tail = sum(math.comb(num_different, count) for count in range(min(only_first, only_second) + 1))
    p_value = min(1.0, 2 * tail / 2**num_different)
    N = len(first)
    counts = np.random.default_rng(seed).multinomial(N, np.array([only_first, only_second, N - num_different]) / N,
                                                     size=NUM_DRAWS)   # (draws, 3): videos drawn anew
    low, high = np.percentile((counts[:, 1] - counts[:, 0]) / N, [2.5, 97.5])
    return PairedTest(N, only_first, only_second, p_value, (only_second - only_first) / N, float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """R runs on the N videos that all of them predicted; ``figures`` are those of runs of several labels."""

    runs: Sequence[Run]
    filenames: Sequence[str]
    labels: npt.NDArray[np.int64]  # (N,), or of several labels (N, K)
    predicted: npt.NDArray[np.int64]  # (R, N), or (R, N, K)
    num_left_out: int  # videos that not all runs predicted
    figures: LabelSetFigures | None = None

    @property
    def right(self) -> BoolArray:
        is_right = self.predicted == self.labels
        return is_right if self.figures is None else is_right.all(axis=2)  # (R, N)

    @property
    def names(self) -> list[str]:
        """The folders' names; whole paths where two are the same."""
        names = [run.folder.name for run in self.runs]
        return names if len(set(names)) == len(names) else [str(run.folder) for run in self.runs]

    def tests(self) -> list[PairedTest]:
        """Each run but the first, beside the first."""
        return [paired_test(self.right[0], right) for right in self.right[1:]]

    def different_flags(self) -> dict[str, list[Any]]:
        """Flag -> its value in each run, where they are not all the same; None where a run has no such flag.

        An evaluation has few flags; beside it only those count that all have.
        """
        configs = [run.config for run in self.runs]
        names = [name for name in dict.fromkeys(key for config in configs for key in config)
                 if name not in NO_FLAGS]
        if any(run.is_evaluation for run in self.runs):
            names = [name for name in names if name != "data_fingerprint" and all(name in one for one in configs)]
        values = {name: [config.get(name) for config in configs] for name in names}
        return {name: row for name, row in values.items() if any(value != row[0] for value in row)}

    def class_accuracies(self) -> list[tuple[str, int, list[float]]]:
        """(class, videos, accuracy of each run), the classes on which the runs differ most first."""
        rows = []
        for label, name in enumerate(self.runs[0].class_names):
            of_class = self.labels == label
            if of_class.any():
                rows.append((name, int(of_class.sum()), self.right[:, of_class].mean(axis=1).tolist()))
        return sorted(rows, key=lambda row: min(row[2]) - max(row[2]))

    def disagreements(self) -> list[int]:
        """The videos on which the runs do not all say the same."""
        differs = (self.predicted != self.predicted[0]).reshape(*self.predicted.shape[:2], -1).any(axis=2)  # (R, N)
        return np.flatnonzero(differs.any(axis=0)).tolist()


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Match the predictions of runs by file; where the videos have moved, by the names of folder and file.

    Raises:
        ValueError: fewer than two runs, one has no predictions or other classes or labels, or no video is common.
    """
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} run given; a comparison needs at least two")
    first = runs[0]
    for run in runs:
        if not run.predictions:
            raise ValueError(f"{run.folder}: no predictions.csv in it, so it cannot be compared")
        if run.is_multi_label != first.is_multi_label:
            one, several = (run, first) if first.is_multi_label else (first, run)
            raise ValueError(f"{several.folder} has several labels a video and {one.folder} has one; only runs of the "
                             "same kind can be compared")
        if run.class_names != first.class_names:
            raise ValueError(f"{run.folder} has the classes {some_of(run.class_names)}, {first.folder} has "
                             f"{some_of(first.class_names)}; only runs of the same classes, in the same order, can be "
                             "compared")
    tables = [{one.filename: one for one in run.predictions} for run in runs]
    common = [name for name in tables[0] if all(name in other for other in tables[1:])]
    if not common:
        tables = [{end_of_name(name): one for name, one in whole.items()} for whole in tables]
        common = [name for name in tables[0] if all(name in other for other in tables[1:])]
    if not common:
        raise ValueError(f"{first.folder} and {runs[1].folder} predicted no video in common; evaluate both on the "
                         "same videos first")
    for run, own in zip(runs, tables, strict=True):
        for name in common:
            if (own[name].label, own[name].labels) != (tables[0][name].label, tables[0][name].labels):
                raise ValueError(f"{name} is {run.names_of(own[name])[0]!r} in {run.folder} and "
                                 f"{first.names_of(tables[0][name])[0]!r} in {first.folder}; its label changed "
                                 "between the runs")
    filenames = [tables[0][name].filename for name in common]
    num_left_out = len({name for own in tables for name in own}) - len(common)
    rows = [[own[name] for name in common] for own in tables]
    if first.is_multi_label:
        return _label_set_comparison(runs, filenames, rows, num_left_out)
    return Comparison(runs, filenames, np.array([one.label for one in rows[0]]),
                      np.array([[one.predicted for one in own] for own in rows]), num_left_out)


def _label_set_comparison(
    runs: Sequence[Run], filenames: Sequence[str], rows: Sequence[Sequence[SavedPrediction]], num_left_out: int
) -> Comparison:
    """Raises ValueError where a run has no scores of all classes, or no video a label."""
    K = len(runs[0].class_names)
    for run, own in zip(runs, rows, strict=True):
        if len(own[0].scores) != K:
            raise ValueError(f"{run.folder / 'predictions.csv'}: not all classes have a column of scores, as in runs "
                             "of an earlier version; tinyaction evaluate --out writes one that has them")
    labels = label_sets([one.labels for one in rows[0]], K)            # (N, K)
    if not labels.any():
        raise ValueError(f"no video that {runs[0].folder} and {runs[1].folder} have in common has a label, so nothing "
                         "can be compared; evaluate both on videos with labels first")
    predicted = np.stack([label_sets([one.predicted_labels for one in own], K) for own in rows])
    scores = np.array([[one.scores for one in own] for own in rows])   # (R, N, K)
    figures = label_set_figures(scores, predicted.astype(np.bool_), labels.astype(np.bool_))
    return Comparison(runs, filenames, labels.astype(np.int64), predicted.astype(np.int64), num_left_out, figures)


def paired_line(test: PairedTest, first: str, second: str) -> str:
    """One sentence: which is better, and whether so few videos can tell."""
    sentence = (f"{second} minus {first}: {test.difference:+.4f} (95 % interval {test.low:+.4f} to {test.high:+.4f}); "
                f"only {second} has {test.only_second} right, only {first} {test.only_first}; McNemar p "
                f"{test.p_value:.3g}")
    return sentence + (f": these {test.num_videos} videos cannot tell them apart" if test.p_value > ALIKE else "")


def accuracy_cells(comparison: Comparison) -> list[list[str]]:
    rows = []
    for name, right in zip(comparison.names, comparison.right, strict=True):
        low, high = wilson_interval(int(right.sum()), right.size)
        rows.append([name, f"{right.mean():.4f}", f"{right.sum()} of {right.size}", f"{low:.2f} to {high:.2f}"])
    return rows


def paired_sentences(comparison: Comparison) -> list[str]:
    """What a person should know of the runs as a whole."""
    names, sentences = comparison.names, []
    if comparison.figures is not None:
        sentences = difference_lines(comparison.figures, names, len(comparison.filenames))
        if not all(run.is_evaluation for run in comparison.runs):
            sentences.append("A run chose its thresholds on these videos, so its F1 flatters; that of tinyaction "
                             "evaluate --out on others does not.")
    what = "" if comparison.figures is None else "all labels right, "
    sentences += [what + paired_line(test, names[0], name)
                  for test, name in zip(comparison.tests(), names[1:], strict=True)]
    if comparison.num_left_out:
        sentences.append(f"{comparison.num_left_out} videos are left out: not every run predicted them")
    return sentences


def comparison_lines(comparison: Comparison) -> list[str]:
    """The comparison in text."""
    lines = [f"{name}: accuracy {accuracy}, {counts} (95 % interval {interval})"
             for name, accuracy, counts, interval in accuracy_cells(comparison)]
    if comparison.figures is not None:
        lines = [f"{name}: mAP {mean_ap} (95 % interval {interval}), mean F1 {f1}, all labels right {right}"
                 for name, mean_ap, interval, f1, right in figure_cells(
                     comparison.figures, comparison.names, comparison.right)]
    lines += _wrapped(paired_sentences(comparison))
    flags = comparison.different_flags()
    lines += ["flags that differ:" if flags else "no flag differs",
              *(f"  {flag}: {' | '.join(map(str, values))}" for flag, values in flags.items())]
    lines += _class_lines(comparison)
    disagreeing = comparison.disagreements()
    lines.append(f"they disagree on {len(disagreeing)} of {len(comparison.filenames)} videos"
                 + (", the first:" if len(disagreeing) > MOST_LINES else ":" if disagreeing else ""))
    lines += ["  " + ", ".join(cells) for cells in _disagreement_cells(comparison, disagreeing[:MOST_LINES])]
    return lines


def _wrapped(sentences: Sequence[str]) -> list[str]:
    return [line for sentence in sentences
            for line in wrap(sentence, WIDTH, subsequent_indent="  ", break_on_hyphens=False)]


def _class_lines(comparison: Comparison) -> list[str]:
    """The classes on which the runs differ, in text."""
    if comparison.figures is not None:
        cells = class_cells(comparison.figures, comparison.runs[0].class_names)[:MOST_LINES]
        return _wrapped([f"AP and F1 of each class; in parentheses the 95 % interval of the difference from "
                         f"{comparison.names[0]}. {BY_CHANCE}", *class_lines(cells, len(comparison.runs))])
    differing = [row for row in comparison.class_accuracies() if min(row[2]) < max(row[2])]
    heading = ["classes on which they differ:"] if differing else []
    return heading + [f"  {shortened(name, 30)}: {' | '.join(f'{share:.2f}' for share in shares)} of {count} videos"
                      for name, count, shares in differing[:MOST_LINES]]


def _disagreement_cells(comparison: Comparison, chosen: Sequence[int]) -> list[list[str]]:
    """File, true label or labels, what each run says."""
    classes = comparison.runs[0].class_names

    def name(label: Any) -> str:
        if comparison.figures is None:
            return classes[label]
        return LABEL_SEPARATOR.join(classes[k] for k in np.flatnonzero(label)) or "no label"

    return [[comparison.filenames[index], name(comparison.labels[index]), *map(name, comparison.predicted[:, index])]
            for index in chosen]


def comparison_page(comparison: Comparison) -> str:
    """The comparison as one page of HTML."""
    names = comparison.names
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in paired_sentences(comparison))
    disagreeing = comparison.disagreements()
    cut = f" The table shows the first {MOST_ROWS}." if len(disagreeing) > MOST_ROWS else ""
    flags = [[flag, *map(str, values)] for flag, values in comparison.different_flags().items()]
    return html_page(" and ".join(names), "".join([
        f"<header><h1>{escape(' and '.join(names))}</h1>"
        f"<p>{len(comparison.filenames)} videos that all of them predicted</p></header>",
        section("Accuracy", _figure_table(comparison) + sentences),
        "" if any(run.is_evaluation for run in comparison.runs) else section(
            "Training", f'<div class="charts">{_curves(comparison)}</div>'),
        section("Flags that differ", table(["flag", *names], flags)),
        section("Classes", _class_table(comparison)),
        section("Where they disagree", f"<p>{len(disagreeing)} of {len(comparison.filenames)} videos.{cut}</p>"
                + table(["video", "true class", *names], _disagreement_cells(comparison, disagreeing[:MOST_ROWS]))),
    ]))


def _figure_table(comparison: Comparison) -> str:
    """A row a run."""
    if comparison.figures is None:
        return table(["run", "accuracy", "videos", "95 % interval"], accuracy_cells(comparison))
    return table(["run", "mAP", "95 % interval", "mean F1", "all labels right"],
                 figure_cells(comparison.figures, comparison.names, comparison.right))


def _class_table(comparison: Comparison) -> str:
    """A row a class."""
    names = comparison.names
    if comparison.figures is None:
        return table(["class", "videos", *names], [
            [name, str(count), *(f"{share:.3f}" for share in shares)]
            for name, count, shares in comparison.class_accuracies()])
    columns = [f"{what} of {name}" for what in ("average precision", "F1") for name in names]
    return (f"<p>In parentheses stands the 95 % interval of the difference from {escape(names[0])}. {BY_CHANCE}</p>"
            + table(["class", "videos with it", *columns],
                    class_cells(comparison.figures, comparison.runs[0].class_names)))


def _curves(comparison: Comparison) -> str:
    """Validation accuracy, or of several labels mAP, and loss over epochs, a line a run."""
    epochs = list(range(1, 1 + max(int(run.history[-1]["epoch"]) for run in comparison.runs)))

    def chart(column: str, label: str, highest: float | None) -> str:
        lines = []
        for number, (name, run) in enumerate(zip(comparison.names, comparison.runs, strict=True)):
            values = {int(row["epoch"]): row.get(column, math.nan) for row in run.history}
            lines.append(Series(name, [values.get(epoch, math.nan) for epoch in epochs],
                                f"run{number % MOST_COLOURS}"))
        return line_chart(epochs, lines, label=label, lowest=0, highest=highest)

    figure = ("val_top1", "validation accuracy") if comparison.figures is None else ("val_map", "validation mAP")
    return chart(*figure, 1) + chart("val_loss", "validation loss", None)
