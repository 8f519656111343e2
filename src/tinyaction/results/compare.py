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

from tinyaction.results.metrics import wilson_interval
from tinyaction.results.page import html_page, section, table
from tinyaction.results.plots import Series, line_chart, shortened
from tinyaction.results.run import Run, end_of_name
from tinyaction.results.summary import WIDTH
from tinyaction.text import some_of

BoolArray = npt.NDArray[np.bool_]

NUM_DRAWS = 10_000  # of the bootstrap
MOST_LINES = 20  # of a list in the terminal
MOST_ROWS = 1000  # of a table on the page
MOST_COLOURS = 6  # of curves; a seventh run has the colour of the first
ALIKE = 0.05  # p-value from which two runs are not told apart
NO_FLAGS = ("class_names", "versions", "out", "command", "date", "most_frequent_class", "evaluated", "eval_pipeline")


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
    """R runs on the N videos that all of them predicted."""

    runs: Sequence[Run]
    filenames: Sequence[str]
    labels: npt.NDArray[np.int64]  # (N,)
    predicted: npt.NDArray[np.int64]  # (R, N)
    num_left_out: int  # videos that not all runs predicted

    @property
    def right(self) -> BoolArray:
        return self.predicted == self.labels                           # (R, N)

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
        return np.flatnonzero((self.predicted != self.predicted[0]).any(axis=0)).tolist()


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
        if run.is_multi_label:
            raise ValueError(f"{run.folder}: its videos have several labels; only runs of one label can be compared")
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
            if own[name].label != tables[0][name].label:
                raise ValueError(f"{name} is {run.class_names[own[name].label]!r} in {run.folder} and "
                                 f"{run.class_names[tables[0][name].label]!r} in {first.folder}; its label changed "
                                 "between the runs")
    return Comparison(runs, [tables[0][name].filename for name in common],
                      np.array([tables[0][name].label for name in common]),
                      np.array([[own[name].predicted for name in common] for own in tables]),
                      len({name for own in tables for name in own}) - len(common))


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


def comparison_lines(comparison: Comparison) -> list[str]:
    """The comparison in text."""
    lines = [f"{name}: accuracy {accuracy}, {counts} (95 % interval {interval})"
             for name, accuracy, counts, interval in accuracy_cells(comparison)]
    if comparison.num_left_out:
        lines.append(f"{comparison.num_left_out} videos are left out: not every run predicted them")
    names = comparison.names
    for test, name in zip(comparison.tests(), names[1:], strict=True):
        lines += wrap(paired_line(test, names[0], name), WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    flags = comparison.different_flags()
    lines += ["flags that differ:" if flags else "no flag differs",
              *(f"  {flag}: {' | '.join(map(str, values))}" for flag, values in flags.items())]
    differing = [row for row in comparison.class_accuracies() if min(row[2]) < max(row[2])]
    if differing:
        lines.append("classes on which they differ:")
        lines += [f"  {shortened(name, 30)}: {' | '.join(f'{share:.2f}' for share in shares)} of {count} videos"
                  for name, count, shares in differing[:MOST_LINES]]
    disagreeing = comparison.disagreements()
    lines.append(f"they disagree on {len(disagreeing)} of {len(comparison.filenames)} videos"
                 + (", the first:" if len(disagreeing) > MOST_LINES else ":" if disagreeing else ""))
    lines += ["  " + ", ".join(cells) for cells in _disagreement_cells(comparison, disagreeing[:MOST_LINES])]
    return lines


def _disagreement_cells(comparison: Comparison, chosen: Sequence[int]) -> list[list[str]]:
    """File, true class, what each run says."""
    classes = comparison.runs[0].class_names
    return [[comparison.filenames[index], classes[comparison.labels[index]],
             *(classes[label] for label in comparison.predicted[:, index])] for index in chosen]


def comparison_page(comparison: Comparison) -> str:
    """The comparison as one page of HTML."""
    names = comparison.names
    sentences = [paired_line(test, names[0], name) for test, name in zip(comparison.tests(), names[1:], strict=True)]
    if comparison.num_left_out:
        sentences.append(f"{comparison.num_left_out} videos are left out: not every run predicted them.")
    disagreeing = comparison.disagreements()
    cut = f" The table shows the first {MOST_ROWS}." if len(disagreeing) > MOST_ROWS else ""
    flags = [[flag, *map(str, values)] for flag, values in comparison.different_flags().items()]
    classes = [[name, str(count), *(f"{share:.3f}" for share in shares)]
               for name, count, shares in comparison.class_accuracies()]
    return html_page(" and ".join(names), "".join([
        f"<header><h1>{escape(' and '.join(names))}</h1>"
        f"<p>{len(comparison.filenames)} videos that all of them predicted</p></header>",
        section("Accuracy", table(["run", "accuracy", "videos", "95 % interval"], accuracy_cells(comparison))
                + "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)),
        "" if any(run.is_evaluation for run in comparison.runs) else section(
            "Training", f'<div class="charts">{_curves(comparison)}</div>'),
        section("Flags that differ", table(["flag", *names], flags)),
        section("Classes", table(["class", "videos", *names], classes)),
        section("Where they disagree", f"<p>{len(disagreeing)} of {len(comparison.filenames)} videos.{cut}</p>"
                + table(["video", "true class", *names], _disagreement_cells(comparison, disagreeing[:MOST_ROWS]))),
    ]))


def _curves(comparison: Comparison) -> str:
    """Validation accuracy and loss over epochs, a line a run."""
    epochs = list(range(1, 1 + max(int(run.history[-1]["epoch"]) for run in comparison.runs)))

    def chart(column: str, label: str, highest: float | None) -> str:
        lines = []
        for number, (name, run) in enumerate(zip(comparison.names, comparison.runs, strict=True)):
            values = {int(row["epoch"]): row.get(column, math.nan) for row in run.history}
            lines.append(Series(name, [values.get(epoch, math.nan) for epoch in epochs],
                                f"run{number % MOST_COLOURS}"))
        return line_chart(epochs, lines, label=label, lowest=0, highest=highest)

    return chart("val_top1", "validation accuracy", 1) + chart("val_loss", "validation loss", None)
