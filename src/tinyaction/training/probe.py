"""A linear classifier on frozen features: logistic regression whose strength the data choose.

    fit_logistic       the classifier of a given L2 strength
    assign_folds       which clips are held out together: stratified, groups kept whole
    cross_validate     how well a strength does on clips that the classifier has not seen
    choose_and_fit     strength and pooling by cross-validation, then a classifier of all clips

Pure functions of arrays; no file, no network. The rows are views, and each clip has the same number of them: views of
a clip are in the same fold, and together weigh as much as one clip. Nothing is drawn at random.

Labels are (N,) int64, or where a clip may have several (N, K), 1 where a class holds: then each class has a binary
regression of its own, all of the same strength.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F

from tinyaction.models.pooling import Pooling
from tinyaction.results.evaluation import count_right

STRENGTHS = tuple(10.0**power for power in range(4, -2, -1))  # the strongest first: each begins where the last ended
MAX_FOLDS = 5
DEFAULT_STRENGTH = 1.0  # where there are too few clips to choose one
FEW_CLASS_CLIPS = 2  # of each class, or of its groups, that cross-validation needs


@dataclass(frozen=True)
class Linear:
    """``logits = x @ weight.T + bias``, of features as they are: standardization is part of it. All float64."""

    weight: torch.Tensor  # (K, F)
    bias: torch.Tensor  # (K,)
    is_multi_label: bool = False

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(N, F) -> (N, K)"""
        return x.double() @ self.weight.T + self.bias

    def probabilities(self, x: torch.Tensor) -> torch.Tensor:
        """(N, F) -> (N, K)"""
        logits = self.logits(x)
        return logits.sigmoid() if self.is_multi_label else logits.softmax(dim=-1)


@dataclass(frozen=True)
class Standardization:
    """Subtract the mean of each feature and divide by its standard deviation; features that never change become 0."""

    mean: torch.Tensor  # (F,)
    std: torch.Tensor  # (F,)

    @classmethod
    def of(cls, x: torch.Tensor) -> "Standardization":
        mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
        return cls(mean, torch.where(std > 1e-9 * (1 + mean.abs()), std, torch.inf))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std

    def fold_into(self, linear: Linear) -> Linear:
        """The classifier of features as they are, from that of standardized ones."""
        weight = linear.weight / self.std
        return Linear(weight, linear.bias - weight @ self.mean, linear.is_multi_label)


def fit_logistic(
    x: torch.Tensor, labels: torch.Tensor, num_classes: int, *, strength: float, sample_weights: torch.Tensor
) -> Linear:
    """Logistic regression of (N, F) on standardized features, multinomial or one a class, by L-BFGS in float64.

    It minimizes ``sum_i sample_weights[i] * cross_entropy_i + strength / 2 * sum(weight ** 2)``; the bias is free.
    That is scikit-learn's ``LogisticRegression(C=1 / strength)`` behind a ``StandardScaler``, of several labels one
    for each class. Of two classes it penalizes the difference of their weights; twice the strength on both is the
    same.
    """
    return fit_path(x, labels, num_classes, strengths=[strength], sample_weights=sample_weights)[0]


def fit_path(
    x: torch.Tensor, labels: torch.Tensor, num_classes: int, *, strengths: Sequence[float],
    sample_weights: torch.Tensor, tolerance: float = 1e-9,
) -> list[Linear]:
    """:func:`fit_logistic` for several strengths, each of which begins at the solution of the one before.

    With fewer rows than features it works in the space of the rows, as the best weights are a sum of rows. There the
    rows are divided by their mean length, so that a step of the search means the same for few and for many features.
    ``tolerance`` is the largest slope of the mean loss at which the search ends.
    """
    x = x.double()
    scaling = Standardization.of(x)
    x = scaling(x)                                                     # (N, F)
    basis = _row_basis(x) if x.shape[0] < x.shape[1] else None         # (F, R), orthonormal columns
    reduced = x if basis is None else x @ basis                        # (N, R)
    length = float(reduced.square().sum(dim=1).mean().sqrt().clamp(min=1e-12))
    reduced = reduced / length                                         # mean squared length 1
    weight = torch.zeros(num_classes, reduced.shape[1], dtype=torch.float64)
    bias = torch.zeros(num_classes, dtype=torch.float64)
    found = []
    for strength in strengths:
        weight, bias = _minimize(reduced, labels, weight, bias, strength=strength / length**2,
                                 sample_weights=sample_weights, tolerance=tolerance)
        in_full = (weight if basis is None else weight @ basis.T) / length  # (K, F)
        found.append(scaling.fold_into(Linear(in_full, bias, labels.ndim == 2)))
    return found


def _row_basis(x: torch.Tensor) -> torch.Tensor:
    """Orthonormal columns (F, R) that span the rows of (N, F)."""
    values, vectors = torch.linalg.eigh(x @ x.T)                       # (N,), (N, N)
    is_kept = values > 1e-12 * values[-1].clamp(min=1e-300)
    return x.T @ (vectors[:, is_kept] / values[is_kept].sqrt())        # (F, R)


def _minimize(
    x: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, strength: float,
    sample_weights: torch.Tensor, tolerance: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    N, K = len(x), len(bias)
    shares = (sample_weights.double() / sample_weights.sum()).reshape(N, -1)  # (N, 1), or one of each class (N, K)
    is_multi_label = labels.ndim == 2
    penalty = (strength if K == 2 and not is_multi_label else strength / 2) / float(sample_weights.sum())
    targets = (labels if is_multi_label else F.one_hot(labels, K)).double() * shares  # (N, K)
    x = torch.cat([x, x.new_ones(N, 1)], dim=1)                        # (N, R + 1): the bias is a weight of ones
    both = torch.cat([weight, bias.unsqueeze(1)], dim=1).requires_grad_()  # (K, R + 1)
    optimizer = torch.optim.LBFGS([both], max_iter=1000, tolerance_grad=tolerance, tolerance_change=1e-14,
                                  history_size=20, line_search_fn="strong_wolfe")

    @torch.no_grad()
    def closure() -> torch.Tensor:
        """The loss, and its slope by hand: with few clips autograd would take most of the time."""
        logits = x @ both.T                                            # (N, K)
        logs = F.logsigmoid(logits) if is_multi_label else logits.log_softmax(dim=1)
        penalized = both.clone()
        penalized[:, -1] = 0
        both.grad = (logs.exp() * shares - targets).T @ x + 2 * penalty * penalized  # (K, R + 1)
        loss = penalty * penalized.square().sum() - (targets * logs).sum()
        return loss - ((shares - targets) * F.logsigmoid(-logits)).sum() if is_multi_label else loss

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)                                           # thousands of small steps: others only wait
    try:
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    finally:
        torch.set_num_threads(num_threads)
    return both.detach()[:, :-1], both.detach()[:, -1]


def balanced_weights(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """(N,) so that all classes weigh the same and all rows together N: scikit-learn's ``class_weight="balanced"``.

    Of several labels (N, K): the rows of a class weigh as much as those without it, each of which weighs 1.
    """
    if labels.ndim == 2:
        num_positives = labels.sum(dim=0)                              # (K,)
        return torch.where(labels == 1, (len(labels) - num_positives) / num_positives.clamp(min=1), 1.0)
    counts = torch.bincount(labels, minlength=num_classes).double()
    present = int((counts > 0).sum())
    return (len(labels) / (present * counts))[labels]


def assign_folds(
    labels: Sequence[int] | Sequence[Sequence[int]], groups: Sequence[object] | None = None, *, num_folds: int
) -> list[int]:
    """The fold of each clip: each class spread evenly over the folds, the clips of a group in one of them.

        labels 0 0 0 1 1 1, 3 folds                   ->  0 1 2 0 1 2
        labels 0 0 1 1, groups a b a b, 2 folds       ->  0 1 0 1
        labels 01 01 1 -, 2 folds                     ->  0 1 0 1     (several labels a clip, or none)

    The largest groups are dealt first, each to the fold that has fewest of its classes, then to the smallest one.
    Of several labels rare classes count more.

    Raises:
        ValueError: fewer than two folds, or a class has fewer clips (or groups) than there are folds.
    """
    if num_folds < 2:
        raise ValueError(f"num_folds is {num_folds}; it must be at least 2")
    names = list(range(len(labels))) if groups is None else list(groups)
    least = least_groups(labels, names)
    if least < num_folds:
        what = "clips" if groups is None else "groups"
        raise ValueError(f"a class has {least} {what}, fewer than the {num_folds} folds; take fewer folds or add "
                         "clips")
    members: dict[object, list[int]] = {}
    for index, name in enumerate(names):
        members.setdefault(name, []).append(index)
    sets = _sets_of(labels)
    is_multi_label = any(len(names) != 1 for names in sets)
    none = max(label for names in sets for label in names) + 1         # stands for the clips without a label
    counts = np.zeros((num_folds, none + 1))
    totals = np.bincount([label for names in sets for label in names or [none]], minlength=none + 1)
    weights = 1 / np.maximum(totals, 1) if is_multi_label else np.ones(none + 1)
    folds = [0] * len(labels)
    for indices in sorted(members.values(), key=len, reverse=True):    # stable: of equal ones in the order of the list
        own = np.bincount([label for index in indices for label in sets[index] or [none]], minlength=none + 1)
        fold = min(range(num_folds), key=lambda fold: (counts[fold] @ (own * weights), counts[fold].sum(), fold))
        counts[fold] += own
        for index in indices:
            folds[index] = fold
    return folds


def least_groups(labels: Sequence[int] | Sequence[Sequence[int]], groups: Sequence[object]) -> int:
    """The number of groups of the class that has fewest."""
    of_class: dict[int, set[object]] = {}
    for names, group in zip(_sets_of(labels), groups, strict=True):
        for label in names:
            of_class.setdefault(label, set()).add(group)
    return min(len(groups) for groups in of_class.values())


def _sets_of(labels: Sequence[int] | Sequence[Sequence[int]]) -> list[Sequence[int]]:
    return [[one] if isinstance(one, int) else one for one in labels]


@dataclass(frozen=True)
class ProbeData:
    """Features of the views of labelled clips: ``features`` (N, V, T, F, h, w), ``labels`` (N,) int64 or (N, K).

    ``groups`` are what must not be torn apart, as persons or recordings, one of each clip; None is every clip alone.
    """

    features: torch.Tensor
    labels: torch.Tensor
    num_classes: int
    groups: Sequence[object] | None = None
    class_weights: bool = False
    pooled: Mapping[Pooling, torch.Tensor] = field(default_factory=dict)

    def pool(self, poolings: Sequence[Pooling]) -> "ProbeData":
        """The same with the rows of these poolings computed, for all subsets at once."""
        return replace(self, pooled={pooling: self.rows(pooling) for pooling in poolings})

    def subset(self, indices: Sequence[int]) -> "ProbeData":
        groups = None if self.groups is None else [self.groups[index] for index in indices]
        return replace(self, features=self.features[indices], labels=self.labels[indices], groups=groups,
                       pooled={pooling: rows[indices] for pooling, rows in self.pooled.items()})

    def rows(self, pooling: Pooling) -> torch.Tensor:
        """(N, V, F') float64"""
        if pooling in self.pooled:
            return self.pooled[pooling]
        N, V = self.features.shape[:2]
        pooled = [pooling(clip.float()).double() for clip in self.features]  # a clip at a time: the maps are large
        return torch.stack(pooled).reshape(N, V, -1)

    def fit(
        self, rows: torch.Tensor, chosen: torch.Tensor, strengths: Sequence[float], *, tolerance: float = 1e-9
    ) -> list[Linear]:
        """Classifiers of the clips ``chosen`` (N,) bool, one a strength."""
        V = rows.shape[1]
        labels = self.labels[chosen]
        weights = balanced_weights(labels, self.num_classes) if self.class_weights else torch.ones(len(labels))
        return fit_path(rows[chosen].flatten(0, 1), labels.repeat_interleave(V, dim=0), self.num_classes,
                        strengths=strengths, tolerance=tolerance,
                        sample_weights=weights.repeat_interleave(V, dim=0) / V)


def video_probabilities(linear: Linear, rows: torch.Tensor) -> torch.Tensor:
    """(N, V, F') -> (N, K): the mean of the views' probabilities, as the recognizer averages them."""
    return linear.probabilities(rows).mean(dim=1)


def cross_validate(data: ProbeData, rows: torch.Tensor, folds: Sequence[int]) -> list[tuple[float, float]]:
    """(log loss, accuracy) of each of :data:`STRENGTHS` on the clips held out, each once.

    Of several labels the loss is the mean over the classes, and accuracy the share of clips with all labels right.
    """
    fold_of = torch.tensor(folds)
    losses, num_right = torch.zeros(len(STRENGTHS)), torch.zeros(len(STRENGTHS))
    for fold in sorted(set(folds)):
        is_out = fold_of == fold
        for number, linear in enumerate(data.fit(rows, ~is_out, STRENGTHS, tolerance=1e-5)):
            scores = video_probabilities(linear, rows[is_out])         # (M, K)
            labels = data.labels[is_out]
            right = scores[torch.arange(len(labels)), labels] if labels.ndim == 1 else torch.where(
                labels == 1, scores, 1 - scores)                       # (M,) or (M, K): probability of the truth
            losses[number] -= right.clamp(min=1e-12).log().sum() * len(labels) / right.numel()
            num_right[number] += count_right(scores, labels)
    N = len(fold_of)
    return list(zip((losses / N).tolist(), (num_right / N).tolist(), strict=True))


@dataclass(frozen=True)
class Candidate:
    """A pooling with its best strength, as cross-validation found it; NaN where there were too few clips for that."""

    pooling: Pooling
    strength: float
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Probe:
    """The classifier of all clips, and what it was chosen from: ``candidates``, the chosen one first."""

    linear: Linear
    pooling: Pooling
    strength: float
    candidates: list[Candidate]
    num_folds: int  # of the cross-validation; 0 where there was none


def choose_and_fit(data: ProbeData, poolings: Sequence[Pooling]) -> Probe:
    """Choose pooling and strength by the log loss in cross-validation, then fit all clips.

    With fewer than two clips (or groups) of a class there is nothing to choose by: the first of ``poolings`` and
    :data:`DEFAULT_STRENGTH` are taken.

    Raises:
        ValueError: features are not finite, or all clips have the same labels.
    """
    if not data.features.isfinite().all():
        bad = int((~data.features.isfinite().flatten(1).all(dim=1)).nonzero()[0])
        raise ValueError(f"the features of clip {bad} are NaN or infinite; the weights of the network are not finite, "
                         "or overflow on this clip")
    labels = data.labels.tolist() if data.labels.ndim == 1 else [row.nonzero()[:, 0].tolist() for row in data.labels]
    if (data.labels == data.labels[:1]).all():
        same = "are of one class; a classifier needs clips of two" if data.labels.ndim == 1 else (
            "have the same labels; a classifier needs clips that differ")
        raise ValueError(f"all {len(labels)} clips {same}")
    groups = list(range(len(labels))) if data.groups is None else data.groups
    num_folds = min(MAX_FOLDS, least_groups(labels, groups))
    if num_folds < FEW_CLASS_CLIPS:
        candidates = [Candidate(poolings[0], DEFAULT_STRENGTH, np.nan, np.nan)]
        num_folds = 0
    else:
        folds = assign_folds(labels, groups, num_folds=num_folds)
        candidates = sorted((_best_strength(data, pooling, folds) for pooling in poolings), key=lambda one: one.loss)
    best = candidates[0]
    everyone = torch.ones(len(labels), dtype=torch.bool)
    linear = data.fit(data.rows(best.pooling), everyone, [best.strength])[0]
    return Probe(linear, best.pooling, best.strength, candidates, num_folds)


def _best_strength(data: ProbeData, pooling: Pooling, folds: Sequence[int]) -> Candidate:
    """Of equal losses the stronger one."""
    results = cross_validate(data, data.rows(pooling), folds)
    number = min(range(len(results)), key=lambda number: results[number][0])
    return Candidate(pooling, STRENGTHS[number], *results[number])


def poolings_of(name: str) -> list[Pooling]:
    """Those that ``--pooling`` leaves to the cross-validation: all for "auto", else one, each with and without roots.

    Raises ValueError for an unknown name.
    """
    kinds = ("stats", "mean", "order") if name == "auto" else (name,)
    return [Pooling(kind, signed_sqrt) for kind in kinds for signed_sqrt in (False, True)]
