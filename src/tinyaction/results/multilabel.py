"""Measures of videos with several labels: average precision, thresholds, F1 of each class. Nothing is remembered.

``scores`` (N, K) are independent probabilities, ``labels`` (N, K) say 1 where a class holds. A class without positives
has nothing to find: its average precision is NaN, and no mean counts it. (scikit-learn counts it as 0.)
"""

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

NO_POSITIVE_THRESHOLD = 0.5  # of a class that has no positive to choose it by


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """Average precision of each class, (K,): the mean over its positives of the precision down to their score.

        scores 0.9 0.8 0.7 0.6, labels 1 0 1 0  ->  (1/1 + 2/3) / 2 = 0.833

    Videos of equal scores count together, whatever their order. Equals scikit-learn's ``average_precision_score``.
    """
    scores, labels = _checked(scores, labels)
    return np.array([_average_precision(scores[:, k], labels[:, k]) for k in range(scores.shape[1])])


def mean_average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """mAP: the mean of :func:`average_precision` over the classes that have positives; NaN where none has."""
    found = average_precision(scores, labels)
    return float(np.mean(found[~np.isnan(found)])) if not np.isnan(found).all() else math.nan


def best_thresholds(scores: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """The threshold of each class with the highest F1 on these videos, (K,); of equal ones the highest.

    A class is predicted where its score is at least the threshold, which lies midway between two scores.

        scores 0.9 0.8 0.3, labels 1 1 0  ->  0.55
    """
    scores, labels = _checked(scores, labels)
    return np.array([_best_threshold(scores[:, k], labels[:, k]) for k in range(scores.shape[1])])


def label_set_scores(predicted: npt.ArrayLike, labels: npt.ArrayLike) -> list[tuple[float, float, float, int]]:
    """(precision, recall, F1, number of positives) of each class, of predicted and true labels (N, K).

    NaN where there is nothing to divide by, as in :func:`tinyaction.results.metrics.class_scores`.
    """
    predicted, labels = np.asarray(predicted, dtype=bool), np.asarray(labels, dtype=bool)
    right, num_predicted, num_positives = (matrix.sum(axis=0).tolist() for matrix in
                                           (predicted & labels, predicted, labels))

    def share(part: float, whole: float) -> float:
        return part / whole if whole else math.nan

    return [(share(hits, found), share(hits, positives), share(2 * hits, found + positives), positives)
            for hits, found, positives in zip(right, num_predicted, num_positives, strict=True)]


def mean_f1(predicted: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean F1 over the classes that have positives; NaN where none has."""
    values = [f1 for _, _, f1, positives in label_set_scores(predicted, labels) if positives]
    return sum(values) / len(values) if values else math.nan


def _average_precision(scores: FloatArray, labels: BoolArray) -> float:
    if not labels.any():
        return math.nan
    _, num_right, num_predicted = _cuts(scores, labels)
    precision, recall = num_right / num_predicted, num_right / num_right[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _best_threshold(scores: FloatArray, labels: BoolArray) -> float:
    if not labels.any():
        return NO_POSITIVE_THRESHOLD
    values, num_right, num_predicted = _cuts(scores, labels)
    best = int(np.argmax(2 * num_right / (num_predicted + num_right[-1])))  # the first one is the highest threshold
    return float((values[best] + np.append(values[1:], 0.0)[best]) / 2)


def _cuts(scores: FloatArray, labels: BoolArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The different scores, from the highest on, and for each how many videos reach it: those with the label, all."""
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(labels[order])
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # the last place of each score
    return ordered[last], hits[last].astype(np.float64), last + 1.0


def _checked(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape:
        raise ValueError(f"scores and labels must both be (N, K); they are {scores.shape} and {labels.shape}")
    if len(scores) == 0:
        raise ValueError("no videos: an average precision needs at least one")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite; an average precision needs numbers that can be ordered")
    return scores, labels.astype(bool)
