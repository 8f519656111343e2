"""What is known of one video beside its pixels: :class:`DataSample`."""

import operator
from dataclasses import dataclass, fields

import torch


@dataclass(repr=False)
class DataSample:
    """What is known of one video beside its pixels, and later what the recognizer predicts for it.

    Attributes:
        label: (1,) int64, also given as a plain number; of several labels (K,) float32, 1 where a class holds; None
            where the label is not known.
        img_shape: (H, W) of the frames in ``inputs``.
        num_clips: views of the video, V.
        clip_len: frames of a view, T.
        filename: where the video came from.
        pred_score: (K,) scores of the classes after prediction ((V, K) with ``average_clips=None``).
        pred_label: () int64, the class of the highest score after prediction.
    """

    label: torch.Tensor | None = None
    img_shape: tuple[int, int] | None = None
    num_clips: int | None = None
    clip_len: int | None = None
    filename: str = ""
    pred_score: torch.Tensor | None = None
    pred_label: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.label is not None and not isinstance(self.label, torch.Tensor):
            self.label = torch.tensor([operator.index(self.label)])    # (1,) int64

    def __repr__(self) -> str:
        """Only what is known, with tensors as plain numbers."""
        known = []
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None or value == "":
                continue
            if isinstance(value, torch.Tensor):
                value = value.tolist()
            if item.name == "pred_score" and value and not isinstance(value[0], list):
                value = [round(number, 4) for number in value]
            known.append(f"{item.name}={value!r}")
        return f"DataSample({', '.join(known)})"
