"""Runs of several labels on the same videos: average precision and F1 of each, and whether a difference is chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinyaction.results.plots import shortened

Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

NUM_DRAWS = 2_000  # of the bootstrap
CHUNK = 2_000_000  # weights at a time: draws times videos
BY_CHANCE = "Of one class in twenty the interval leaves out 0 by chance alone."


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval, by the percentile bootstrap over videos."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Array) -> "Estimate":
        """``values`` (1 + D,): of the videos, then of D draws of them; NaN where a draw has no positive."""
        low, high = np.percentile(values[1:][~np.isnan(values[1:])], [2.5, 97.5])
        return cls(float(values[0]), float(low), float(high))

    @property
    def interval(self) -> str:
        """"0.71 to 0.93"; of a figure that no draw of the videos changes "unknown": they have no mistake to draw."""
        return f"{self.low:.2f} to {self.high:.2f}" if self.low < self.high else "unknown"

    @property
    def is_apart(self) -> bool:
        """Whether a difference is more than these videos give by chance."""
        return not self.low <= 0 <= self.high


@dataclass(frozen=True)
class LabelSetFigures:
    """Figures of R runs on N videos and K classes: place 0 is of the videos, the next D of draws of them.

    NaN where a class has no positive; the means over classes leave it out.
    """

    average_precision: Array  # (1 + D, R, K)
    f1: Array  # (1 + D, R, K), with the thresholds of each run
    num_positives: npt.NDArray[np.int64]  # (K,)

    @property
    def mean_ap(self) -> Array:
        return mean_over_classes(self.average_precision)               # (1 + D, R)

    @property
    def mean_f1(self) -> Array:
        return mean_over_classes(self.f1)                              # (1 + D, R)


def mean_over_classes(figures: Array) -> Array:
    """(..., K) -> (...), NaN where no class has a figure."""
    is_there = ~np.isnan(figures)
    return np.where(is_there, figures, 0).sum(axis=-1) / np.where(is_there.any(axis=-1), is_there.sum(axis=-1), np.nan)


def label_set_figures(
    scores: Array, predicted: BoolArray, labels: BoolArray, *, num_draws: int = NUM_DRAWS, seed: int = 0
) -> LabelSetFigures:
    """Average precision and F1 of each run and class, and of the same videos drawn anew, with the same draws for all.

    Args:
        scores, predicted: (R, N, K).
        labels: (N, K).
    """
    N = scores.shape[1]
    rng = np.random.default_rng(seed)
    found = [_figures(scores, predicted, labels, np.ones((N, 1)))]
    num_left = num_draws
    while num_left:
        num = min(num_left, max(1, CHUNK // N))
        counts = rng.multinomial(N, np.full(N, 1 / N), size=num).T.astype(np.float64, order="C")
        found.append(_figures(scores, predicted, labels, counts))      # (N, num) times drawn
        num_left -= num
    aps, f1s = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return LabelSetFigures(aps, f1s, labels.sum(axis=0))


def _figures(scores: Array, predicted: BoolArray, labels: BoolArray, counts: Array) -> tuple[Array, Array]:
    """Average precision and F1 (D, R, K) of videos that count as often as ``counts`` (N, D) says."""
    num_positives = labels.T @ counts                                  # (K, D)
    positives = np.where(num_positives > 0, num_positives, np.nan)
    aps = np.stack([[weighted_average_precision(column, is_positive, counts)
                     for column, is_positive in zip(own.T, labels.T, strict=True)] for own in scores])  # (R, K, D)
    f1s = np.stack([2 * ((own & labels).T @ counts) / (own.T @ counts + positives) for own in predicted])
    return aps.transpose(2, 0, 1), f1s.transpose(2, 0, 1)


def weighted_average_precision(scores: Array, labels: BoolArray, counts: Array) -> Array:
    """(D,) of scores and labels (N,) and weights (N, D), as scikit-learn's with ``sample_weight``; NaN of no positive.

    Precision is needed only where a positive lies.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # the last place of each score
    places = np.flatnonzero(labels[order])                             # (P,) of the positives
    if not len(places):
        return np.full(counts.shape[1], np.nan)
    ends, score_of = np.unique(ends[np.searchsorted(ends, places)], return_inverse=True)  # (E,), (P,)
    num_predicted = np.add.reduceat(counts[order[: ends[-1] + 1]], [0, *(ends[:-1] + 1)]).cumsum(axis=0)  # (E, D)
    weights = counts[order[places]]                                    # (P, D)
    last = np.append(np.flatnonzero(np.diff(score_of)), len(places) - 1)
    precision = weights.cumsum(axis=0)[last] / np.maximum(num_predicted, 1)  # (E, D)
    total = weights.sum(axis=0)
    return np.asarray((weights * precision[score_of]).sum(axis=0) / np.where(total > 0, total, np.nan), np.float64)


def figure_cells(figures: LabelSetFigures, names: Sequence[str], right: BoolArray) -> list[list[str]]:
    """A row a run: name, mAP, its interval, mean F1, share of the videos with all labels right; ``right`` (R, N)."""
    rows = []
    for number, name in enumerate(names):
        mean_ap = Estimate.of(figures.mean_ap[:, number])
        rows.append([name, f"{mean_ap.value:.4f}", mean_ap.interval,
                     f"{figures.mean_f1[0, number]:.4f}", f"{right[number].mean():.4f}"])
    return rows


def difference_lines(figures: LabelSetFigures, names: Sequence[str], num_videos: int) -> list[str]:
    """A sentence a run: how far its mAP and F1 are from those of the first, and whether so few videos can tell."""
    lines = []
    for number, name in list(enumerate(names))[1:]:
        gains = [Estimate.of(mean[:, number] - mean[:, 0]) for mean in (figures.mean_ap, figures.mean_f1)]
        texts = [f"{what} {gain.value:+.4f} (95 % interval {gain.low:+.4f} to {gain.high:+.4f})"
                 for what, gain in zip(("mAP", "mean F1"), gains, strict=True)]
        apart = "" if gains[0].is_apart else f": by mAP these {num_videos} videos cannot tell them apart"
        lines.append(f"{name} minus {names[0]}: {', '.join(texts)}{apart}")
    return lines


def class_cells(figures: LabelSetFigures, class_names: Sequence[str]) -> list[list[str]]:
    """A row a class that has positives, the widest apart first: name, positives, a cell a run of AP and then of F1.

    Behind a figure of a run stands the interval of its difference from the first run.
    """
    rows: list[tuple[float, list[str]]] = []
    for k in np.flatnonzero(figures.num_positives).tolist():
        cells = [class_names[k], str(figures.num_positives[k])]
        for values in (figures.average_precision[:, :, k], figures.f1[:, :, k]):  # (1 + D, R)
            gains = [Estimate.of(own - values[:, 0]) for own in values.T]
            cells += [f"{value:.3f}" + (f" ({gain.low:+.2f} to {gain.high:+.2f})" if number else "")
                      for number, (value, gain) in enumerate(zip(values[0], gains, strict=True))]
        aps = figures.average_precision[0, :, k]
        rows.append((float(aps.max() - aps.min()), cells))
    return [cells for _, cells in sorted(rows, key=lambda row: -row[0])]


def class_lines(cells: Sequence[Sequence[str]], num_runs: int) -> list[str]:
    """:func:`class_cells` in text."""
    return [f"{shortened(name, 30)} ({num} videos): AP {' | '.join(rest[:num_runs])}; F1 {' | '.join(rest[num_runs:])}"
            for name, num, *rest in cells]
