"""What all readers of frames share: the error, the protocol, the check of indices."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tinyaction.places import without_secrets

UInt8Array = npt.NDArray[np.uint8]
MAX_PIXELS = 100_000_000  # of one frame; a larger one is refused before it is decoded


class VideoError(ValueError):
    """A video that cannot be read; the message begins with its path.

    Attributes:
        path: of the video.
        reason: what is wrong, without the path.
        kind: "missing", "refused", "empty", "cut", "frame count", "damaged", "too large", "hangs", "crashes" or
            "unreadable"; "unreachable" is no fault of the video: it and others can be read when its server answers.
    """

    def __init__(self, path: str | Path, reason: str, *, kind: str = "unreadable") -> None:
        self.path = without_secrets(str(path))
        super().__init__(f"{self.path}: {reason}")
        self.reason = reason
        self.kind = kind

    def __reduce__(self) -> tuple[object, ...]:
        """Keep all fields on the way from a worker process to the main process."""
        return _rebuilt_error, (self.path, self.reason, self.kind)


def _rebuilt_error(path: str, reason: str, kind: str) -> VideoError:
    return VideoError(path, reason, kind=kind)


class VideoReader(Protocol):
    """Frames of one video by index. Open one per item and per process; never keep one across a fork.

    Attributes:
        fps: frames per second on average, finite; 0.0 where unknown.
        seconds: (N,) float64, when each frame is shown, counted from the first.
    """

    fps: float
    seconds: npt.NDArray[np.float64]

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        """Yield the frames (H, W, 3), RGB, at ascending ``indices``; memory does not grow with their number.

        Raises:
            VideoError: a frame is missing or damaged.
            ValueError: the indices do not ascend.
        """
        ...

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        """Return frames (N, H, W, 3), RGB, at ``indices``, in any order; an index may stand twice."""
        distinct = sorted(set(indices))
        frames = dict(zip(distinct, self.read(distinct), strict=True))
        return np.stack([frames[index] for index in indices])


def check_indices(indices: Sequence[int], num_frames: int, path: Path | str) -> None:
    """Raise VideoError where an index is no frame of the video, ValueError where they do not ascend."""
    if len(indices) and (min(indices) < 0 or max(indices) >= num_frames):
        raise VideoError(path, f"frames {min(indices)} to {max(indices)} asked of {num_frames}")
    if (np.diff(indices) <= 0).any():
        raise ValueError(f"{path}: frames are read in ascending order, each once; get_batch takes them in any order")


def even_seconds(num_frames: int, fps: float) -> npt.NDArray[np.float64]:
    """(N,) times of frames that are shown evenly; where ``fps`` is 0.0, unknown, all are 0."""
    return np.arange(num_frames) / fps if fps else np.zeros(num_frames)


def check_pixels(path: Path | str, size: tuple[int, int], max_pixels: int) -> None:
    """Raise VideoError where a frame of this (width, height) is above the limit."""
    width, height = size
    if width * height > max_pixels:
        raise VideoError(path, f"a frame has {width} x {height} pixels, the limit is {max_pixels:,}; raise it with "
                               "max_pixels where the file is trusted", kind="too large")
