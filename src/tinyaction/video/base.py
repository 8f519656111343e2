"""What every reader of frames offers: :class:`VideoReader`."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]


class VideoError(ValueError):
    """A video that cannot be read; the message begins with its path."""


class VideoReader(Protocol):
    """What every reader offers. ``name`` says what reads; ``fps`` is in frames per second, 0.0 where the file does not
    say."""

    name: str
    fps: float

    def __len__(self) -> int: ...

    @cached_property
    def seconds(self) -> npt.NDArray[np.float64]:
        """(N,), when each frame is shown, counted from the first; all 0 where the file does not say."""
        return np.arange(len(self)) / self.fps if self.fps else np.zeros(len(self))

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        """Yield the frames (H, W, 3), RGB, at ascending ``indices``; :class:`VideoError` where one is missing.

        Memory does not grow with their number. Frames that belong to somebody else cannot be written to.
        """
        ...

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        """Return frames (N, H, W, 3), RGB, at ``indices``, in any order; :class:`VideoError` where one is missing."""
        distinct = sorted(set(indices))
        frames = dict(zip(distinct, self.read(distinct), strict=True))
        return np.stack([frames[index] for index in indices])


def check_indices(indices: Sequence[int], num_frames: int, path: Path | str) -> None:
    """Raise VideoError where one of the indices is no frame of a video of so many, ValueError where they descend."""
    if len(indices) and (min(indices) < 0 or max(indices) >= num_frames):
        raise VideoError(f"{path}: frames {min(indices)} to {max(indices)} asked of {num_frames}")
    if (np.diff(indices) <= 0).any():
        raise ValueError(f"{path}: frames are read in ascending order, each once; get_batch takes them in any order")
