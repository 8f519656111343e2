"""What is published about a network: how it is built, its input, its accuracy, and the source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class InputRule:
    """Clips that a network takes: ``clip_len`` frames of ``size`` pixels a side as its weights were trained with, or
    others down to ``least_*``, unless ``exact_*``.
    """

    clip_len: int
    size: int
    least_clip_len: int = 1
    least_size: int = 1
    exact_clip_len: bool = False
    exact_size: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelCard(InputRule):
    """One network with one set of published weights.

    Attributes:
        name: of the network, such as ``x3d_s``.
        arguments: what the family's ``build`` makes it from, in plain values.
        dataset: the word for its weights: ``kinetics`` (400 classes).
        clip_len, frame_interval: frames of a clip, and the frames from one to the next at 30 frames per second;
            None: the clip is spread over the video.
        size: pixels a side for which the network is made and its GFLOPs are counted.
        short_side, test_size: resize and crop of the published evaluation.
        mean, std: of the pixels, RGB, 0..255.
        licence: of the weights.
        top1, top5: published accuracy in percent, of ``views`` per video, by ``source``.
        num_parameters, gflops: of the network with its published head; billions of multiply-adds of one view.
        address: where the weights are published.
    """

    name: str
    arguments: Mapping[str, Any]
    dataset: str
    num_classes: int
    frame_interval: int | None
    short_side: int
    test_size: int
    mean: Sequence[float]
    std: Sequence[float]
    licence: str
    top1: float | None
    top5: float | None
    views: str
    source: str
    num_parameters: int
    gflops: float
    address: str
    least_size: int = 32
    notes: Sequence[str] = ()

    @property
    def input(self) -> str:
        """"16x224x224 /4": frames x height x width / frame interval in a video of 30 frames a second."""
        return f"{self.clip_len}x{self.size}x{self.size}" + (f" /{self.frame_interval}" if self.frame_interval else "")


@dataclass(frozen=True)
class PublishedModel:
    """What is known about a recognizer's published weights, in plain values that a checkpoint can carry.

    Attributes:
        name: of the network.
        arguments: with which its family built it.
        class_names: one for each score, in order; empty for a new classifier.
        clip_len, frame_interval, size, short_side: the clips to give it, as in :class:`ModelCard`.
        source: where the weights come from.
        antialias: whether the original resizes with antialiasing.
    """

    name: str
    arguments: Mapping[str, Any]
    class_names: Sequence[str]
    clip_len: int
    frame_interval: int | None
    size: int
    short_side: int
    source: str
    antialias: bool = False
