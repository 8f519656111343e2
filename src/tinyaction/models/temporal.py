"""A small network over the time of a long video: features of its steps to scores of classes at each of them.

    features (N, D, S)  ->  reduce (a fixed linear map)  ->  contrast  ->  stage 1  ->  logits  ->  stage 2  ->  ...
    a stage: 1x1 convolution, dilated residual layers 1 2 4 8 ..., 1x1 convolution

The contrast leaves what differs from the seconds around a step, and what changes from step to step: most of a frame's
features are those of the place, another one in each video, which says nothing of what happens. Each later stage sees
only the scores of the one before, and mends them: it closes gaps, and joins what belongs together. Source: Farha and
Gall 2019, "MS-TCN", arXiv 1903.01945; own code, and without the contrast there.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tinyaction.models.pooling import NUM_CELLS, cell_means
from tinyaction.models.recognizer import Recognizer

LARGEST_CHANGE = 4.0  # of a log probability from one step to the next, beyond which it costs no more
SMOOTHING = 0.15  # weight of these changes in the loss
AROUND_STEPS = 32  # before and after a step, whose mean it is compared with
CHANGE_STEPS = (1, 3)  # before and after a step, whose difference is what changes


class DilatedLayer(nn.Module):
    """(N, C, S) -> (N, C, S): looks at a step and at those ``dilation`` before and after it."""

    def __init__(self, num_channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dilated = nn.Conv1d(num_channels, num_channels, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(num_channels, num_channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(self.mix(F.relu(self.dilated(x))))


def make_stage(num_inputs: int, num_channels: int, num_layers: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(num_inputs, num_channels, 1),
                         *(DilatedLayer(num_channels, 2**number, dropout) for number in range(num_layers)),
                         nn.Conv1d(num_channels, num_classes, 1))


class TemporalNetwork(nn.Module):
    """Features (N, D, S) of S steps to logits (N, K, S), one tensor a stage; the last one counts.

    Args:
        num_features: D.
        num_reduced: R, half of the numbers that are kept of a step; see :meth:`set_reduction`.
        overlaps: several classes at once: their scores are sigmoids, not a softmax.
    """

    mean: torch.Tensor
    basis: torch.Tensor

    def __init__(
        self, num_features: int, num_classes: int, *, num_reduced: int = 64, num_channels: int = 64,
        num_layers: int = 5, num_stages: int = 4, dropout: float = 0.3, overlaps: bool = False,
    ) -> None:
        super().__init__()
        if not (1 <= num_layers <= 12 and 1 <= num_stages <= 8 and num_features * num_reduced <= 10**8):
            raise ValueError(f"num_layers is {num_layers}, num_stages {num_stages}, num_features {num_features} and "
                             f"num_reduced {num_reduced}; they must be 1 to 12, 1 to 8, and their product at most 1e8")
        self.arguments = {"num_features": num_features, "num_classes": num_classes, "num_reduced": num_reduced,
                          "num_channels": num_channels, "num_layers": num_layers, "num_stages": num_stages,
                          "dropout": dropout, "overlaps": overlaps}
        self.overlaps = overlaps
        # steps before and after one on which its scores depend
        self.reach = num_stages * (2**num_layers - 1) + max(AROUND_STEPS, *CHANGE_STEPS)
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("basis", torch.zeros(num_features, 2 * num_reduced))
        self.input_dropout = nn.Dropout1d(dropout)
        self.stages = nn.ModuleList(
            make_stage(num_reduced * (1 + len(CHANGE_STEPS)) if number == 0 else num_classes, num_channels, num_layers,
                       num_classes, dropout)
            for number in range(num_stages))

    def set_reduction(self, mean: torch.Tensor, deviations: torch.Tensor, changes: torch.Tensor) -> None:
        """Reduce to the directions in which features vary most within a video: R of their ``deviations`` (N, D) from
        the steps around them, R of their ``changes`` (M, D) from step to step. ``mean`` (D,) is that of all features.
        """
        num_reduced = self.basis.shape[1] // 2
        self.mean.copy_(mean)
        self.basis.copy_(torch.cat((main_directions(deviations, num_reduced), main_directions(changes, num_reduced)),
                                   dim=1))

    def reduce(self, features: torch.Tensor) -> torch.Tensor:
        """(S, D) -> (S, 2 R)"""
        return (features - self.mean) @ self.basis

    def forward(self, reduced: torch.Tensor) -> list[torch.Tensor]:
        """(N, 2 R, S) -> logits (N, K, S) of each stage."""
        outputs = [self.stages[0](self.input_dropout(contrast(reduced)))]
        for stage in list(self.stages)[1:]:
            outputs.append(stage(self.scores(outputs[-1])))
        return outputs

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """(N, K, S) -> (N, K, S), 0..1"""
        return logits.sigmoid() if self.overlaps else logits.softmax(dim=1)


def main_directions(rows: torch.Tensor, num_directions: int) -> torch.Tensor:
    """(N, D) -> (D, R): the directions in which rows are longest, scaled to a mean square of 1 on average; zeros where
    there are fewer of them.
    """
    basis = rows.new_zeros(rows.shape[1], num_directions)
    if len(rows) == 0:
        return basis
    values, vectors = torch.linalg.eigh((rows @ rows.T).double())      # ascending
    values, vectors = values[-num_directions:].flip(0), vectors[:, -num_directions:].flip(1)
    is_kept = values > 1e-9 * values[0].clamp(min=1e-300)
    directions = rows.double().T @ (vectors[:, is_kept] / values[is_kept].sqrt())  # (D, R)
    scale = (values[is_kept].sum() / (len(rows) * num_directions)).sqrt()
    basis[:, : directions.shape[1]] = (directions / scale).to(basis.dtype)
    return basis


def contrast(reduced: torch.Tensor) -> torch.Tensor:
    """(N, 2 R, S) -> (N, R + R * len(CHANGE_STEPS), S): the first half less its mean over the steps around each, the
    differences of the second half between a step before and one after each.
    """
    levels, positions = reduced.chunk(2, dim=1)
    around = F.avg_pool1d(levels, 2 * AROUND_STEPS + 1, stride=1, padding=AROUND_STEPS, count_include_pad=False)
    parts = [levels - around]
    for steps in CHANGE_STEPS:
        padded = F.pad(positions, (steps, steps), mode="replicate")
        parts.append(padded[..., 2 * steps :] - padded[..., : -2 * steps])
    return torch.cat(parts, dim=1)


def temporal_loss(outputs: Sequence[torch.Tensor], targets: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """The mean over the steps that were ``seen`` (N, S) of each stage's loss, its smoothing loss added; summed over
    stages.

    ``outputs`` (N, K, S) each; ``targets`` (N, S) int64 is a class a step, or (N, K, S) float the classes of each.
    """
    total = outputs[0].new_zeros(())
    both = (seen[:, 1:] & seen[:, :-1])[:, None]                       # (N, 1, S - 1)
    for logits in outputs:
        if targets.ndim == 2:
            losses = F.cross_entropy(logits, targets, reduction="none")  # (N, S)
            logs = logits.log_softmax(dim=1)                           # (N, K, S)
        else:
            losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)
            logs = F.logsigmoid(logits)
        changes = (logs[..., 1:] - logs[..., :-1].detach()).abs().clamp(max=LARGEST_CHANGE).square()  # (N, K, S - 1)
        smoothness = (changes * both).sum() / (both.sum() * logits.shape[1]).clamp(min=1)
        total = total + losses[seen].mean() + SMOOTHING * smoothness
    return total


class TimelineModel(nn.Module):
    """A frozen recognizer, of which only the features count, and a temporal network over them.

    A step is ``stride_seconds`` long; the recognizer sees a clip of ``window_seconds`` around its middle. Segments are
    told where their score is above ``min_score``.
    """

    def __init__(
        self, recognizer: Recognizer, temporal: TemporalNetwork, *, stride_seconds: float, window_seconds: float,
        min_score: float = 0.0,
    ) -> None:
        super().__init__()
        if not (stride_seconds >= 0.01 and window_seconds > 0 and 0 <= min_score <= 1):
            raise ValueError(f"stride_seconds is {stride_seconds}, window_seconds {window_seconds} and min_score "
                             f"{min_score}; they must be at least 0.01, above 0, and 0 to 1")
        self.recognizer = recognizer
        self.temporal = temporal
        self.stride_seconds = stride_seconds
        self.window_seconds = window_seconds
        self.min_score = min_score

    @property
    def settings(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, besides the recognizer's arguments and the weights."""
        return {"stride_seconds": self.stride_seconds, "window_seconds": self.window_seconds,
                "min_score": self.min_score, "network": self.temporal.arguments}

    def extract_features(self, clips: torch.Tensor, *, mirrored: bool = False) -> torch.Tensor:
        """Pixels (S, C, T, H, W) uint8 of S steps to features (S, F, 2, 2)."""
        maps = self.recognizer.extract_features((clips.flip(-1) if mirrored else clips)[:, None])  # (S, t, F, h, w)
        return cell_means(maps.float()).mean(dim=1)                    # (S, F, 2, 2)


def num_step_features(recognizer: Recognizer) -> int:
    """D: numbers of a step that the temporal network is given."""
    return NUM_CELLS * int(recognizer.backbone.out_channels)  # type: ignore[arg-type]
