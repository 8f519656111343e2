"""From features to scores: the mean over places and frames, a linear layer, the mean over views."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from tinyaction.models.pooling import Pooling
from tinyaction.sample import DataSample

Activation = Literal["softmax", "sigmoid"]
AverageClips = Literal["prob", "score"] | None


class TemporalAverageHead(nn.Module):
    """Spatial mean, mean over frames, dropout, linear: (N, T, F, h, w) -> (N, K).

    Args:
        num_classes: K.
        in_channels: F of the backbone's features.
        dropout: share of the averaged features that is dropped in training.
        average_clips: how the views of a video become one prediction: "prob" averages the probabilities,
            "score" the logits, None keeps the views apart.
        activation: "softmax" where a video has one of the classes, "sigmoid" where it may have several.

    ``temperature`` is that of the scores of videos; with ``average_clips`` other than "prob" it plays no part.

    Source: the consensus of Temporal Segment Networks, Wang et al. 2016.
    """

    def __init__(
        self, num_classes: int, in_channels: int, *, dropout: float = 0.5, average_clips: AverageClips = "prob",
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        if average_clips not in ("prob", "score", None):
            raise ValueError(f"average_clips is {average_clips!r}; it must be 'prob', 'score' or None")
        if activation not in ("softmax", "sigmoid"):
            raise ValueError(f"activation is {activation!r}; it must be 'softmax' or 'sigmoid'")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.average_clips = average_clips
        self.temperature = 1.0
        self.activation = activation
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels, num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def pool(self, features: torch.Tensor) -> torch.Tensor:
        """(N, T, F, h, w) -> (N, F)"""
        return features.mean(dim=(3, 4)).mean(dim=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = self.pool(features)                                        # (N, F)
        try:
            return self.fc(self.dropout(x))                            # (N, K)
        except RuntimeError:
            if x.shape[1] == self.in_channels:
                raise
            raise ValueError(f"the backbone gives features of {x.shape[1]} channels, the head was made for "
                             f"{self.in_channels}; make it with in_channels={x.shape[1]}") from None

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of logits (B, V, K) with labels (B,), or binary with (B, K); views have those of the video."""
        B, V, K = logits.shape
        if self.activation == "sigmoid":
            return F.binary_cross_entropy_with_logits(logits, labels.unsqueeze(1).expand(B, V, K))
        return F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(V))

    def average(self, logits: torch.Tensor) -> torch.Tensor:
        """The guide's ``pred_score`` of logits (B, V, K): (B, K), or (B, V, K) with ``average_clips=None``."""
        if self.average_clips == "prob":
            scores = logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=2)
            return scores.mean(dim=1)                                  # (B, K)
        if self.average_clips == "score":
            return logits.mean(dim=1)                                  # (B, K)
        return logits

    def video_scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (B, V, K) to one score per video and class (B, K), also with ``average_clips=None``."""
        scores = self.average(logits)                                  # (B, K) or (B, V, K)
        scores = scores if scores.ndim == 2 else scores.mean(dim=1)    # (B, K)
        if self.temperature == 1 or self.average_clips != "prob":
            return scores
        powers = scores.pow(1 / self.temperature)                      # (B, K)
        return powers / powers.sum(dim=1, keepdim=True)                # (B, K)

    def predict(self, logits: torch.Tensor, data_samples: Sequence[DataSample]) -> list[DataSample]:
        """Write ``pred_score`` and ``pred_label`` of logits (B, V, K) into the samples and return them."""
        scores = self.average(logits)                                  # (B, K) or (B, V, K)
        labels = self.video_scores(logits).argmax(dim=1)               # (B,)
        for sample, score, label in zip(data_samples, scores.detach(), labels, strict=True):
            sample.pred_score, sample.pred_label = score, label
        return list(data_samples)


class PoolingHead(TemporalAverageHead):
    """A pooling over space and time, dropout, linear: (N, T, F, h, w) -> (N, K). A probe's head.

    Args:
        num_features: F of the backbone's features; ``in_channels`` is what the pooling makes of them.
        pooling: see :class:`tinyaction.models.pooling.Pooling`.
    """

    def __init__(
        self, num_classes: int, num_features: int, pooling: Pooling, *, dropout: float = 0.0,
        average_clips: AverageClips = "prob", activation: Activation = "softmax",
    ) -> None:
        super().__init__(num_classes, pooling.num_outputs(num_features), dropout=dropout, average_clips=average_clips,
                         activation=activation)
        self.pooling = pooling

    def pool(self, features: torch.Tensor) -> torch.Tensor:
        return self.pooling(features)                                  # (N, F')
