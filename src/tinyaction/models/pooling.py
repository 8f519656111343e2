"""Feature maps of the frames of a view to one vector, nothing in it trained: (N, T, F, h, w) -> (N, F').

    mean     average over time: what there was, F numbers
    stats    mean, standard deviation and mean absolute difference of neighbours: what there was and how much it
             changed, 3 F numbers; like the mean it does not see the direction of time
    order    linear trend over time in each quarter of the picture: what grew and what faded, 4 F numbers that change
             their sign where the view is played backwards
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

POOLINGS = ("mean", "stats", "order")
NUM_CELLS = 4  # of the 2 x 2 grid
TINY = 1e-12  # below the root, where its slope would be infinite


@dataclass(frozen=True)
class Pooling:
    """One of :data:`POOLINGS`, with ``signed_sqrt`` of the square roots of the features, which tames large ones.

    Source of the square roots: Perronnin et al. 2010, "Improving the Fisher kernel", as power normalization.
    """

    kind: str = "mean"
    signed_sqrt: bool = False

    def __post_init__(self) -> None:
        if self.kind not in POOLINGS:
            raise ValueError(f"pooling is {self.kind!r}; it must be one of {', '.join(POOLINGS)}")

    def num_outputs(self, num_features: int) -> int:
        """F' for F features."""
        return num_features * {"mean": 1, "stats": 3, "order": NUM_CELLS}[self.kind]

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """(N, T, F, h, w) -> (N, F')"""
        if self.kind == "order":
            cells = cell_means(features).flatten(2)                    # (N, T, 4 F)
            return temporal_trend(signed_root(cells) if self.signed_sqrt else cells)  # (N, 4 F)
        frames = features.mean(dim=(3, 4))                             # (N, T, F)
        frames = signed_root(frames) if self.signed_sqrt else frames   # (N, T, F)
        return frames.mean(dim=1) if self.kind == "mean" else temporal_statistics(frames)  # (N, F) or (N, 3 F)

    def __str__(self) -> str:
        return f"{self.kind} of square roots" if self.signed_sqrt else self.kind


def temporal_statistics(frames: torch.Tensor) -> torch.Tensor:
    """(N, T, F) -> (N, 3 F): mean, standard deviation (of T, not T - 1), mean absolute difference of neighbours.

        1 3 1 3  ->  2, 1, 2        1 1 3 3  ->  2, 1, 2/3        5  ->  5, 0, 0
    """
    mean = frames.mean(dim=1)                                          # (N, F)
    variance = (frames - mean.unsqueeze(1)).square().mean(dim=1)       # (N, F)
    if frames.shape[1] > 1:
        changes = frames.diff(dim=1).abs().mean(dim=1)                 # (N, F)
    else:
        changes = torch.zeros_like(mean)                               # (N, F)
    return torch.cat((mean, (variance + TINY).sqrt(), changes), dim=1)  # (N, 3 F)


def temporal_trend(frames: torch.Tensor) -> torch.Tensor:
    """(N, T, F) -> (N, F): approximate rank pooling, a mean of the later frames less one of the earlier.

        T = 4  ->  weights -3 -1 1 3 over 4        0 0 4 4  ->  4        4 4 0 0  ->  -4

    A single frame has no trend: 0. Source: Fernando et al. 2015, arXiv 1512.01848; the weights 2 t - T - 1 are
    Bilen et al. 2018, "Action recognition with dynamic image networks".
    """
    T = frames.shape[1]
    weights = torch.arange(1 - T, T, 2, device=frames.device, dtype=frames.dtype)  # (T,)
    return torch.einsum("t,ntf->nf", weights / max(1, T * T // 4), frames)  # (N, F)


def signed_root(x: torch.Tensor) -> torch.Tensor:
    """4 -> 2, -4 -> -2"""
    return x.sign() * (x.abs() + TINY).sqrt()


def cell_means(maps: torch.Tensor) -> torch.Tensor:
    """Maps (..., h, w) as the means of their four quarters (..., 2, 2); the mean of these is that of the map.

        h = 4  ->  rows 0 1 | 2 3      h = 3  ->  row 1 belongs to both halves by half      h = 1  ->  row 0 twice

    A map of 2 x 2 stays as it is.
    """
    rows, columns = (torch.tensor(half_weights(length), device=maps.device, dtype=maps.dtype)
                     for length in maps.shape[-2:])                    # (2, h), (2, w)
    return rows @ maps @ columns.T                                     # (..., 2, 2)


def half_weights(length: int) -> Sequence[Sequence[float]]:
    """Weights of ``length`` cells in the means of the first half and of the second: 3 -> 2/3 1/3 0, 0 1/3 2/3."""
    overlaps = [[max(0.0, min(place + 1.0, end) - max(float(place), end - length / 2)) for place in range(length)]
                for end in (length / 2, float(length))]
    return [[overlap * 2 / length for overlap in half] for half in overlaps]
