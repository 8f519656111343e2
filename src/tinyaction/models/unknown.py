"""None of the classes: :class:`Unknown`, what a checkpoint carries to say so, by the distance from the class means.

A video is the mean of its views' pooled features, at length 1; its distance is that to the nearest class mean. Two
kinds, of which a run chooses the better one:

    mahalanobis    a distance counts less along the directions in which videos of one class differ, too
    direction      plain, the mean of all training videos subtracted first

Sources: Mahalanobis distances of Lee et al. 2018, arXiv 1807.03888, of features at length 1 after Mueller and Hein
2025, arXiv 2505.18032; CL2N of Wang et al. 2019, "SimpleShot", arXiv 1911.04623. Both measured better than the energy
of the logits and than the highest score; scripts/experiments/unknown.py has the table.
"""

from dataclasses import dataclass, field

import torch

from tinyaction.models.recognizer import Recognizer

UNKNOWN = "unknown"  # in the place of a class
KINDS = ("mahalanobis", "direction")  # the first where there is nothing to choose by
MOST_DIRECTIONS = 64  # of which the spread inside of the classes is known
MOST_ROWS = 512  # videos that it is computed from


@dataclass
class ClassMeans:
    """Where the classes lie.

    Attributes:
        centre: (F',) what is subtracted from pooled features.
        class_means: (K, F') of what :meth:`places` makes of the training videos.
        basis: (F', R) the directions along which distances count less, each as long as its share is small; None is
            the kind "direction".
    """

    centre: torch.Tensor = field(repr=False)
    class_means: torch.Tensor = field(repr=False)
    basis: torch.Tensor | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        return "direction" if self.basis is None else "mahalanobis"

    def places(self, pooled: torch.Tensor) -> torch.Tensor:
        """Pooled features of videos (N, F'), the mean of their views, to where they lie (N, F')."""
        x = torch.nn.functional.normalize(pooled.cpu().double() - self.centre.double(), dim=1)
        return x if self.basis is None else x - x @ self.basis.double() @ self.basis.double().T

    def distances(self, pooled: torch.Tensor) -> torch.Tensor:
        """(N, F') -> (N,): how far each is from the nearest class."""
        return torch.cdist(self.places(pooled), self.class_means.double()).min(dim=1).values


@dataclass(kw_only=True)
class Unknown(ClassMeans):
    """How sure scores are, and from which distance on a video is none of the classes.

    Attributes:
        temperature: of the scores.
        threshold: a video that is farther from all classes is unknown.
    """

    temperature: float
    threshold: float

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"its temperature is {self.temperature}; it must be above 0")
        if not 0 <= self.threshold < float("inf"):
            raise ValueError(f"its threshold is {self.threshold}; it must be at least 0")
        if self.class_means.ndim != 2 or self.centre.shape != self.class_means.shape[1:]:
            raise ValueError(f"its class means are {tuple(self.class_means.shape)} and their centre "
                             f"{tuple(self.centre.shape)}")
        if self.basis is not None and (self.basis.ndim != 2 or self.basis.shape[:1] != self.centre.shape):
            raise ValueError(f"the basis of its distances is {tuple(self.basis.shape)} and its centre "
                             f"{tuple(self.centre.shape)}")
        if not all(one.isfinite().all() for one in (self.class_means, self.centre, self.basis) if one is not None):
            raise ValueError("its class means are NaN or infinite")

    def is_unknown(self, pooled: torch.Tensor) -> list[bool]:
        """Of pooled features of videos (N, F')."""
        return (self.distances(pooled) > self.threshold).tolist()


def fit_class_means(kind: str, pooled: torch.Tensor, labels: torch.Tensor, num_classes: int) -> ClassMeans:
    """The classes of training videos: pooled features (N, F') and labels (N,).

    A class without videos lies where the largest one does: nothing is near to it alone.
    """
    is_plain = kind == "direction"
    found = ClassMeans(pooled.mean(dim=0) if is_plain else torch.zeros_like(pooled[0]), torch.empty(0))
    x = found.places(pooled)                                           # (N, F')
    found.class_means = _means(x, labels, num_classes)
    if not is_plain:
        found.basis = spread_basis(x - found.class_means[labels])
        found.class_means = _means(found.places(pooled), labels, num_classes)
    return found


def _means(x: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    counts = labels.bincount(minlength=num_classes)
    sums = torch.zeros(num_classes, x.shape[1], dtype=x.dtype).index_add(0, labels, x)
    means = sums / counts.clamp(min=1).unsqueeze(1)                    # (K, F')
    return torch.where(counts.unsqueeze(1) > 0, means, means[counts.argmax()])


def spread_basis(differences: torch.Tensor) -> torch.Tensor:
    """The basis (F', R) of a Mahalanobis distance, from what parts videos (N, F') from the mean of their class.

    The covariance is (v + m) / 2 along the :data:`MOST_DIRECTIONS` with the largest variances v, and m / 2 along all
    others, where m is the mean variance of the F' features. So a distance along one of the former counts
    sqrt(m / (v + m)) of what it is, and along the others all of it.
    """
    rows = differences[:: -(-len(differences) // MOST_ROWS)]           # (N', F')
    values, vectors = torch.linalg.eigh(rows @ rows.T)                 # ascending
    values, vectors = values[-MOST_DIRECTIONS:], vectors[:, -MOST_DIRECTIONS:]
    is_kept = values > 1e-9 * values[-1].clamp(min=1e-300)
    directions = rows.T @ (vectors[:, is_kept] / values[is_kept].sqrt())  # (F', R), orthonormal
    mean_variance = rows.square().mean()
    shares = (mean_variance / (values[is_kept] / len(rows) + mean_variance)).sqrt()  # (R,)
    return directions * (1 - shares).sqrt()


@torch.inference_mode()
def logits_and_pooled(model: Recognizer, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (B, V, C, T, H, W) to logits (B, V, K) and pooled features of videos (B, F'), ``max_views`` at a time."""
    B, V = inputs.shape[:2]
    views = inputs.flatten(0, 1).unsqueeze(1)                          # (B*V, 1, C, T, H, W)
    logits, pooled = [], []
    step = model.max_views or B * V
    for start in range(0, B * V, step):
        features = model.extract_features(views[start : start + step])  # (step, T, F, h, w)
        logits.append(model.cls_head(features))
        pooled.append(model.cls_head.pool(features).float())
    return torch.unflatten(torch.cat(logits), 0, (B, V)), torch.unflatten(torch.cat(pooled), 0, (B, V)).mean(dim=1)
