"""What is known of one video beside its pixels: :class:`DataSample`."""

from dataclasses import dataclass, fields

import torch

from tinyaction.notebook import table


@dataclass(repr=False)
class DataSample:
    """What is known of one video beside its pixels, and later what the recognizer says of it.

    Attributes:
        label: (1,) int64, or None where the label is not known.
        img_shape: (H, W) of the frames in ``inputs``.
        num_clips: views of the video, V.
        clip_len: frames of a view, T.
        filename: where the video came from.
        pred_score: (K,) scores of the classes after prediction ((V, K) with ``average_clips=None``).
        pred_label: () int64, the class of the highest score after prediction.
    """

    label: torch.Tensor | None
    img_shape: tuple[int, int]
    num_clips: int
    clip_len: int
    filename: str = ""
    pred_score: torch.Tensor | None = None
    pred_label: torch.Tensor | None = None

    def _known(self) -> list[tuple[str, object]]:
        """(name, value) of what is known, tensors as plain numbers."""
        values = [(item.name, getattr(self, item.name)) for item in fields(self)]
        return [(name, [round(number, 4) for number in value.tolist()] if name == "pred_score" and value.ndim == 1
                 else value.tolist() if isinstance(value, torch.Tensor) else value)
                for name, value in values if value is not None and value != ""]

    def __repr__(self) -> str:
        return f"DataSample({', '.join(f'{name}={value!r}' for name, value in self._known())})"

    def _repr_html_(self) -> str:
        return table("DataSample", self._known())
