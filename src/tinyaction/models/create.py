"""Recognizers by name."""

from collections.abc import Callable
from difflib import get_close_matches

from torch import nn

from tinyaction.models.backbones import Conv3dBackbone, ConvBackbone
from tinyaction.models.heads import AverageClips, TemporalAverageHead
from tinyaction.models.recognizer import Recognizer

MODELS: dict[str, Callable[[], nn.Module]] = {
    "conv2d": ConvBackbone,
    "conv3d": Conv3dBackbone,
}


def create_model(
    name: str, num_classes: int, *, dropout: float = 0.5, average_clips: AverageClips = "prob"
) -> Recognizer:
    """Make a recognizer by its name, freshly initialised from torch's global random state.

    ``conv2d`` and ``conv3d`` are the guide's networks on frames and on clips.

    Raises:
        ValueError: there is no such name (the nearest are given), or fewer than two classes.
    """
    if name not in MODELS:
        near = get_close_matches(name, MODELS, n=3) or sorted(MODELS)
        raise ValueError(f"model {name!r} is not known; did you mean {' or '.join(near)}?")
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; a classifier needs at least two")
    backbone = MODELS[name]()
    head = TemporalAverageHead(num_classes, backbone.out_channels, dropout=dropout, average_clips=average_clips)  # type: ignore[arg-type]
    return Recognizer(backbone, head)
