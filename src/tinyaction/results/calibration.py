"""Are scores what they say, and what is none of the classes: temperature, calibration error, AUROC, thresholds.

Pure functions of scores (N, K), labels (N,) and distances (N,), and the section of the report that shows them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinyaction.results.page import section
from tinyaction.results.plots import reliability_chart
from tinyaction.results.run import Run

Array = npt.NDArray[np.float64]

NUM_BINS = 15
TEMPERATURES = (0.05, 20.0)  # lowest and highest
PRIOR = 0.5  # standard deviation of the logarithm of a temperature, before any video is seen


def with_temperature(scores: npt.ArrayLike, temperature: float) -> Array:
    """Scores (N, K) at a temperature: above 1 they become less sure, below 1 surer; their order stays.

    Of one view it is the softmax of the logits divided by the temperature. Source: Guo et al. 2017, arXiv 1706.04599.
    """
    powers = np.asarray(scores, np.float64) ** (1 / temperature)       # (N, K)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def fit_temperature(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The temperature at which the scores (N, K) of held-out videos are most likely, given their labels (N,).

    Its logarithm has a normal prior around 0, so that it stays near 1 where a few videos say little: with no mistake
    among them the most likely temperature alone would make every score 1.
    """
    logs = np.log(np.maximum(np.asarray(scores, np.float64), 1e-12))   # (N, K)
    right = logs[np.arange(len(logs)), np.asarray(labels, np.int64)]   # (N,)

    def loss(log_temperature: float) -> float:
        z = logs / math.exp(log_temperature)
        normalizer = z.max(axis=1) + np.log(np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1))
        return float((normalizer - right / math.exp(log_temperature)).sum() + (log_temperature / PRIOR)**2 / 2)

    grid = np.linspace(math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]), 25).tolist()
    best = int(np.argmin([loss(one) for one in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    while high - low > 1e-6:
        third = (high - low) / 3
        low, high = (low, high - third) if loss(low + third) <= loss(high - third) else (low + third, high)
    return math.exp((low + high) / 2)


@dataclass(frozen=True)
class Bin:
    """Videos with about the same highest score: the mean of these scores, the share that is right, how many."""

    confidence: float
    accuracy: float
    num_videos: int


def reliability_bins(confidences: npt.ArrayLike, is_right: npt.ArrayLike, *, num_bins: int = NUM_BINS) -> list[Bin]:
    """Sort highest scores (N,) into bins of equal width, [0, 1/15), [1/15, 2/15) ...; 1 itself is a bin of its own.

    Bins without videos are left out.
    """
    confidences, is_right = np.asarray(confidences, np.float64), np.asarray(is_right, bool)
    places = np.minimum(np.floor(confidences * num_bins + 1e-9).astype(int), num_bins)
    return [Bin(float(confidences[places == place].mean()), float(is_right[places == place].mean()),
                int((places == place).sum())) for place in np.unique(places)]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: the mean difference of score and accuracy, over the videos.

    It is torchmetrics' ``MulticlassCalibrationError(norm="l1")``. Source: Naeini et al. 2015.
    """
    num_videos = sum(part.num_videos for part in bins)
    return sum(part.num_videos * abs(part.confidence - part.accuracy) for part in bins) / num_videos


def expected_calibration_error(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """:func:`calibration_error` of scores (N, K) and labels (N,), in 15 bins."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, np.int64)
    return calibration_error(reliability_bins(scores.max(axis=1), scores.argmax(axis=1) == labels))


def auroc(is_positive: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Probability that a positive has a higher score than a negative; equal scores count half. Two lists (N,)."""
    is_positive, scores = np.asarray(is_positive, bool), np.asarray(scores, np.float64)
    num_positive = int(is_positive.sum())
    num_negative = len(is_positive) - num_positive
    if not num_positive or not num_negative:
        raise ValueError(f"{num_positive} positives and {num_negative} negatives; an AUROC needs both")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]            # (N,), equal scores share their mean rank
    return float((ranks[is_positive].sum() - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def threshold_at_rate(distances: npt.ArrayLike, rate: float) -> float:
    """The threshold above which another clip of the classes lies with a probability of at most ``rate``.

        9 distances, rate 0.2   ->  the 8th smallest: 1 of 9 lies above it, and of a 10th clip at most 2 in 10
        9 distances, rate 0.05  ->  the largest, for want of more: see :func:`lowest_rate`

    ``distances`` (N,) are those of held-out clips. Source: split conformal prediction, Vovk et al. 2005.
    """
    ordered = np.sort(np.asarray(distances, np.float64))
    place = math.ceil((len(ordered) + 1) * (1 - rate) - 1e-9)
    return float(ordered[min(max(place, 1), len(ordered)) - 1])


def lowest_rate(num_clips: int) -> float:
    """The lowest false-alarm rate that so many held-out clips can promise."""
    return 1 / (num_clips + 1)


def separating_threshold(known: npt.ArrayLike, background: npt.ArrayLike) -> float:
    """The threshold with the smallest sum of two shares: known clips above it, and background at or below it."""
    known, background = np.asarray(known, np.float64), np.asarray(background, np.float64)
    ordered = np.unique(np.concatenate([known, background]))
    between = np.concatenate([(ordered[:-1] + ordered[1:]) / 2, ordered[-1:]])
    errors = [float((known > one).mean() + (background <= one).mean()) for one in between]
    best = np.flatnonzero(np.isclose(errors, min(errors)))
    return float(between[best[len(best) // 2]])


def calibration_section(run: Run) -> str:
    """The part of the report about how far scores can be believed."""
    if not run.predictions:
        return ""
    bins = reliability_bins([one.score for one in run.predictions],
                            [one.predicted == one.label for one in run.predictions])
    text = (f"Where the network says 80 %, is it right in 80 of 100 videos? The expected calibration error is "
            f"{calibration_error(bins):.3f}: so far are score and accuracy apart, on average.")
    facts = run.config.get("unknown")
    if facts:
        text += (f" Before the temperature of {facts['temperature']:.2f} it was {facts['ece_before']:.3f}; the "
                 f"temperature was fitted on these same videos. Clips farther than {facts['threshold']:.3f} from the "
                 f"mean of every class are told unknown: {facts['num_false_alarms']} of these {facts['num_videos']}.")
    return section("How sure it is", f'<p>{text}</p><div class="charts">{reliability_chart(bins)}</div>')
