"""None of the classes: :class:`Unknown`, what a checkpoint carries to say so, by the distance from the class means.

A video is the mean of its views' pooled features, less the mean of all training videos, at length 1; its distance is
that to the nearest class mean. Source: CL2N of Wang et al. 2019, "SimpleShot", arXiv 1911.04623. It measured better
than the energy of the logits and than the highest score; scripts/experiments/unknown.py has the table.
"""

from dataclasses import dataclass, field

import torch

from tinyaction.models.recognizer import Recognizer

UNKNOWN = "unknown"  # in the place of a class


@dataclass
class Unknown:
    """How sure scores are, and from which distance on a video is none of the classes.

    Attributes:
        temperature: of the scores.
        threshold: a video that is farther from all classes is unknown.
        centre: (F',) mean of the training videos' pooled features.
        class_means: (K, F') means of their directions from there.
    """

    temperature: float
    threshold: float
    centre: torch.Tensor = field(repr=False)
    class_means: torch.Tensor = field(repr=False)

    def __post_init__(self) -> None:
        for name, value in (("temperature", self.temperature), ("threshold", self.threshold)):
            if not 0 < value < float("inf"):
                raise ValueError(f"its {name} is {value}; it must be above 0")
        if self.class_means.ndim != 2 or self.centre.shape != self.class_means.shape[1:]:
            raise ValueError(f"its class means are {tuple(self.class_means.shape)} and their centre "
                             f"{tuple(self.centre.shape)}")
        if not self.class_means.isfinite().all() or not self.centre.isfinite().all():
            raise ValueError("its class means are NaN or infinite")

    def distances(self, pooled: torch.Tensor) -> torch.Tensor:
        """Pooled features of videos (N, F'), the mean of their views, to distances from the nearest class (N,)."""
        return nearest_distance(pooled, self.centre, self.class_means)

    def is_unknown(self, pooled: torch.Tensor) -> list[bool]:
        """Of pooled features of videos (N, F')."""
        return (self.distances(pooled) > self.threshold).tolist()


def class_directions(
    pooled: torch.Tensor, labels: torch.Tensor, num_classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The centre (F',) and the class means (K, F') of training videos (N, F'); a class without videos is at 0."""
    centre = pooled.mean(dim=0)                                        # (F',)
    x = torch.nn.functional.normalize(pooled - centre, dim=1)          # (N, F')
    sums = torch.zeros(num_classes, x.shape[1], dtype=x.dtype).index_add(0, labels, x)  # (K, F')
    return centre, sums / labels.bincount(minlength=num_classes).clamp(min=1).unsqueeze(1)


def nearest_distance(pooled: torch.Tensor, centre: torch.Tensor, class_means: torch.Tensor) -> torch.Tensor:
    """(N, F') -> (N,): how far each direction from the centre is from the nearest class mean."""
    x = torch.nn.functional.normalize(pooled.cpu().double() - centre.double(), dim=1)  # (N, F')
    return (x.unsqueeze(1) - class_means.double()).norm(dim=2).min(dim=1).values  # (N,)


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
