"""The recognizer: pixels to scores. Normalize (uint8 becomes float here), backbone, head."""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
from torch import nn

from tinyaction.models.heads import TemporalAverageHead
from tinyaction.models.model_card import PublishedModel
from tinyaction.sample import DataSample

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


class VideoPreprocessor(nn.Module):
    """Pixels 0..255 (..., C, T, H, W), uint8 or float, to normalized float: ``(pixels - mean) / std`` per channel.

    ``mean`` and ``std`` are RGB, 0..255, ImageNet's by default. The state dict does not hold them.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels - self.mean) / self.std


class Recognizer(nn.Module):
    """Preprocessor, backbone and head.

    Args:
        backbone: maps frames (N, C, H, W) to (N, F, h, w), or, with an attribute ``takes_clips = True``, clips
            (N, C, T, H, W) to (N, F, t, h, w).
        cls_head: maps features (N, T, F, h, w) to logits (N, K); see :class:`TemporalAverageHead`.
        data_preprocessor: normalizes pixels; see :class:`VideoPreprocessor`.
        max_views: bounds memory in evaluation mode: so many views go through the network at once; 0 is all.

    ``published`` says what else is known of a network with published weights: class names, clips, source.
    """

    published: PublishedModel | None = None

    def __init__(
        self, backbone: nn.Module, cls_head: TemporalAverageHead, data_preprocessor: nn.Module | None = None, *,
        max_views: int = 0,
    ) -> None:
        super().__init__()
        self.max_views = max_views
        self.data_preprocessor = VideoPreprocessor() if data_preprocessor is None else data_preprocessor
        self.backbone = backbone
        self.cls_head = cls_head
        for part in backbone.modules():
            if isinstance(part, nn.Conv2d):  # channels last is the fastest memory order on GPUs and CPUs
                part.to(memory_format=torch.channels_last)

    def extract_features(self, inputs: torch.Tensor) -> torch.Tensor:
        """Pixels (B, V, C, T, H, W) to features (B*V, T, F, h, w), whatever the backbone."""
        if inputs.ndim != 6:
            raise ValueError(f"inputs are {tuple(inputs.shape)}; they must be (B, V, C, T, H, W)")
        clips = self.data_preprocessor(inputs).flatten(0, 1)           # (B*V, C, T, H, W)
        if getattr(self.backbone, "takes_clips", False):
            return self.backbone(clips).transpose(1, 2)                # (B*V, t, F, h, w)
        N, T = clips.shape[0], clips.shape[2]
        frames = clips.transpose(1, 2).flatten(0, 1)                   # (B*V*T, C, H, W)
        return self.backbone(frames).unflatten(0, (N, T))              # (B*V, T, F, h, w)

    def compute_logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Pixels (B, V, C, T, H, W) to logits (B, V, K)."""
        B, V = inputs.shape[:2]
        if not self.training and 0 < self.max_views < B * V:
            views = inputs.flatten(0, 1).unsqueeze(1)                  # (B*V, 1, C, T, H, W)
            logits = [self.cls_head(self.extract_features(views[start : start + self.max_views]))
                      for start in range(0, B * V, self.max_views)]    # (max_views, K) each
            return torch.unflatten(torch.cat(logits), 0, (B, V))       # (B, V, K)
        features = self.extract_features(inputs)                       # (B*V, T, F, h, w)
        return self.cls_head(features).unflatten(0, (B, V))            # (B, V, K)

    @overload
    def forward(self, inputs: torch.Tensor, data_samples: Sequence[DataSample] | None = None,
                mode: Literal["tensor", "logits"] = "tensor") -> torch.Tensor: ...
    @overload
    def forward(self, inputs: torch.Tensor, data_samples: Sequence[DataSample],
                mode: Literal["loss"]) -> dict[str, torch.Tensor]: ...
    @overload
    def forward(self, inputs: torch.Tensor, data_samples: Sequence[DataSample],
                mode: Literal["predict"]) -> list[DataSample]: ...

    def forward(self, inputs: torch.Tensor, data_samples: Sequence[DataSample] | None = None,
                mode: str = "tensor") -> Any:
        """Pixels (B, V, C, T, H, W), 0..255, to what ``mode`` asks for.

        "tensor": features (B*V, T, F, h, w). "logits": (B, V, K). "loss": ``{"loss_cls": ()}``, with the labels of
        ``data_samples``. "predict": the samples with ``pred_score`` and ``pred_label``.
        """
        if mode == "tensor":
            return self.extract_features(inputs)
        if mode == "logits":
            return self.compute_logits(inputs)
        if mode not in ("loss", "predict"):
            raise ValueError(f"mode is {mode!r}; it must be 'tensor', 'logits', 'loss' or 'predict'")
        if data_samples is None:
            raise ValueError(f"mode {mode!r} needs data_samples")
        logits = self.compute_logits(inputs)                           # (B, V, K)
        if mode == "loss":
            return {"loss_cls": self.cls_head.loss(logits, stack_labels(data_samples).to(logits.device))}
        return self.cls_head.predict(logits, data_samples)


def stack_labels(data_samples: Sequence[DataSample]) -> torch.Tensor:
    """Labels of B samples, (B,) int64 or of several labels (B, K) float32.

    Raises ValueError with the name of the first sample without one.
    """
    for sample in data_samples:
        if sample.label is None:
            raise ValueError(f"{sample.filename or 'a sample'} has no label; a loss needs one")
    labels = [sample.label for sample in data_samples if sample.label is not None]
    return torch.stack(labels) if labels[0].is_floating_point() else torch.cat(labels)
