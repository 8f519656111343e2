"""Labels that are probably wrong, by confident learning.

Source: Northcutt et al. 2021 (arXiv 1911.00068).
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LabelDoubt:
    """A clip that looks like another class than its own: ``margin`` is how much likelier the other one is, -1 to 1.

    Of several labels one of the two is a class and the other -1: the clip has the label and looks as if it had not,
    or looks as if it had the label and has not.
    """

    index: int
    label: int
    looks_like: int
    margin: float
    is_confident: bool  # the other class is as likely as for its own clips; else it is only likelier


def class_thresholds(probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(K,): how likely each class is, on average, for the clips that carry its label; infinite where there is none."""
    K = probabilities.shape[1]
    return np.array([probabilities[labels == label, label].mean() if (labels == label).any() else np.inf
                     for label in range(K)])


def doubtful_labels(
    probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> list[LabelDoubt]:
    """All clips, the most doubtful label first; of clips without any doubt the surest last.

    A clip is confidently of another class where that class is as likely for it as for the clips that carry its label.
    Those come first, by how far the other class is ahead; then the rest by the same.

    Args:
        probabilities: (N, K) of clips on which the classifier was not trained.
        labels: (N,) as given.
    """
    N = len(labels)
    given = probabilities[np.arange(N), labels]                        # (N,)
    others = probabilities.copy()
    others[np.arange(N), labels] = -np.inf
    thresholds = class_thresholds(probabilities, labels)
    confident = np.where(others >= thresholds, others, -np.inf)        # (N, K)
    is_confident = confident.max(axis=1) > given
    looks_like = np.where(is_confident, confident.argmax(axis=1), others.argmax(axis=1))
    margin = probabilities[np.arange(N), looks_like] - given
    order = np.lexsort((-margin, ~is_confident))
    return [LabelDoubt(int(index), int(labels[index]), int(looks_like[index]), float(margin[index]),
                       bool(is_confident[index])) for index in order]


def doubtful_sets(probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.uint8]) -> list[LabelDoubt]:
    """:func:`doubtful_labels` of each class for itself, "has it" against "has it not": those with a margin above 0.

    Args:
        probabilities: (N, K), each class from 0 to 1, of clips on which the classifier was not trained.
        labels: (N, K) as given, 1 where a class holds.
    """
    doubts = []
    for k in range(labels.shape[1]):
        of_class = np.stack([1 - probabilities[:, k], probabilities[:, k]], axis=1)  # (N, 2)
        doubts += [replace(doubt, label=k if doubt.label else -1, looks_like=-1 if doubt.label else k)
                   for doubt in doubtful_labels(of_class, labels[:, k].astype(np.int64)) if doubt.margin > 0]
    return sorted(doubts, key=lambda doubt: (not doubt.is_confident, -doubt.margin))
