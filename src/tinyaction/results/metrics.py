"""Accuracy and the confusion matrix, as functions of scores and labels. Nothing is remembered between calls.

One rule for ties, everywhere: of equal scores the class with the lowest number is predicted (``argmax``).
MMAction2's ``mean_class_accuracy`` has this rule too; its ``top_k_accuracy`` takes what an unstable sort puts last,
often the highest number.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]


def top_k_accuracy(
    scores: npt.ArrayLike, labels: npt.ArrayLike, topk: Sequence[int] = (1, 5)
) -> list[float]:
    """Share of videos whose label is among their ``k`` highest scores, for each ``k``.

    ``scores`` (N, K), ``labels`` (N,). With ``k`` >= K it is 1.0 by definition; it says nothing there, so the commands
    print top-5 only where there are more than five classes.
    """
    scores, labels = _checked(scores, labels)
    order = np.argsort(-scores, axis=1, kind="stable")                 # (N, K), best first, ties by number
    ranks = np.argmax(order == labels[:, None], axis=1)                # (N,) place of the label, 0 = best
    return [float(np.mean(ranks < k)) for k in topk]


def mean_class_accuracy(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean over the classes that occur in ``labels`` of the share of their videos that are predicted right."""
    scores, labels = _checked(scores, labels)
    matrix = confusion_matrix(np.argmax(scores, axis=1), labels, num_classes=scores.shape[1])
    num_videos = matrix.sum(axis=1)
    present = num_videos > 0
    return float(np.mean(np.diag(matrix)[present] / num_videos[present]))


def confusion_matrix(
    predicted: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    num_classes: int | None = None,
    normalize: Literal["true", "pred", "all"] | None = None,
) -> npt.NDArray[np.float64] | npt.NDArray[np.int64]:
    """(K, K): row = true class, column = predicted class; counts, or shares of the row, the column or the whole.

    A row or column without videos is zero, not NaN. Raises ValueError for a class outside 0 .. num_classes - 1.
    """
    predicted, labels = np.asarray(predicted, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    if predicted.shape != labels.shape or labels.ndim != 1:
        raise ValueError(f"predicted {predicted.shape} and labels {labels.shape} must be one list of the same length")
    highest = int(max(predicted.max(initial=-1), labels.max(initial=-1)))
    lowest = int(min(predicted.min(initial=0), labels.min(initial=0)))
    K = highest + 1 if num_classes is None else num_classes
    if lowest < 0 or highest >= K:
        raise ValueError(f"class {lowest if lowest < 0 else highest} is out of range; there are {K} classes")
    matrix = np.bincount(labels * K + predicted, minlength=K * K).reshape(K, K)
    if normalize is None:
        return matrix.astype(np.int64)
    totals = {"true": matrix.sum(axis=1, keepdims=True), "pred": matrix.sum(axis=0, keepdims=True),
              "all": matrix.sum()}
    if normalize not in totals:
        raise ValueError(f"normalize is {normalize!r}; it must be one of 'true', 'pred', 'all' or None")
    return matrix / np.maximum(totals[normalize], 1)


def class_scores(matrix: npt.NDArray[np.int64]) -> list[tuple[float, float, float, int]]:
    """(precision, recall, F1, number of videos) of each class of a confusion matrix (K, K) of counts.

    NaN where there is nothing to divide by: the precision of a class that is never predicted, the recall of one
    without videos.
    """
    right, num_videos, num_predicted = np.diag(matrix).tolist(), matrix.sum(axis=1), matrix.sum(axis=0)

    def share(part: float, whole: float) -> float:
        return part / whole if whole else math.nan

    return [(share(right[label], predicted), share(right[label], videos), share(2 * right[label], predicted + videos),
             videos) for label, (videos, predicted) in enumerate(zip(num_videos.tolist(), num_predicted.tolist(),
                                                                     strict=True))]


def wilson_interval(num_right: int, num_videos: int) -> tuple[float, float]:
    """The 95 % interval of a share: what other videos of the same kind might have given.

        9 of 10  ->  0.60 to 0.98        900 of 1000  ->  0.88 to 0.92

    Source: Wilson 1927.
    """
    share, n, z = num_right / num_videos, num_videos, 1.96
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _checked(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, IntArray]:
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"scores must be (N, K) and labels (N,); they are {scores.shape} and {labels.shape}")
    if len(labels) == 0:
        raise ValueError("no videos: an accuracy needs at least one")
    if np.isnan(scores).any():
        raise ValueError(f"a score of video {int(np.isnan(scores).any(axis=1).argmax())} is NaN; an accuracy needs "
                         "numbers that can be ordered")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"label {wrong} is out of range; there are {scores.shape[1]} classes")
    return scores, labels
