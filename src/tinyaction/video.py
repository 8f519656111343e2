"""The one door to video files: :func:`open_video`.

decord reads most files fastest. Where it cannot open a file, OpenCV is tried; both give the same pixels for the files
that both can read. Whatever fails is said in one sentence with the path (:class:`VideoError`), and never papered over.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]


class VideoError(ValueError):
    """A video that cannot be read; the message begins with its path."""


class VideoReader(Protocol):
    """What every reader offers. ``fps`` is in frames per second, 0.0 where the file does not say."""

    fps: float

    def __len__(self) -> int: ...

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        """Return frames (N, H, W, 3), RGB, at ``indices``, in any order; :class:`VideoError` where one is missing."""
        ...


def open_video(path: str | Path) -> VideoReader:
    """Open a video file for reading frames by index.

    Returns a reader with ``len(reader)`` frames, ``reader.fps`` and ``reader.get_batch(indices)``. A reader belongs to
    the process that opened it: open one per item and let it go, never keep one across a fork.

    Raises:
        VideoError: there is no such file, it is empty, or neither decord nor OpenCV can decode it.
    """
    path = Path(path)
    if not path.is_file():
        raise VideoError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes)")
    reasons = []
    for reader_class in (DecordReader, OpenCVReader):
        try:
            return reader_class(path)
        except VideoError as error:
            reasons.append(f"{reader_class.name}: {error}")
    raise VideoError(f"{path}: not a readable video ({'; '.join(reasons)})")


class DecordReader:
    """Frames through decord, one decoding thread: parallelism comes from the loader's workers."""

    name = "decord"

    def __init__(self, path: Path) -> None:
        import decord  # here, so that torch is always imported first: the other order has crashed

        self.path = path
        try:
            self._reader: Any = decord.VideoReader(str(path), num_threads=1)
            self._num_frames = len(self._reader)
            self.fps = float(self._reader.get_avg_fps())
        except (decord.DECORDError, RuntimeError) as error:
            raise VideoError(_first_sentence(error)) from None
        if self._num_frames == 0:
            raise VideoError("no video frames")

    def __len__(self) -> int:
        return self._num_frames

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        import decord

        try:
            frames: UInt8Array = self._reader.get_batch(list(indices)).asnumpy()
        except (decord.DECORDError, RuntimeError) as error:
            raise VideoError(
                f"{self.path}: decoding stopped between frames {min(indices)} and {max(indices)} "
                f"of {self._num_frames} ({_first_sentence(error)})"
            ) from None
        return frames


class OpenCVReader:
    """Frames through OpenCV.

    OpenCV stops at damage without an error and its frame count is the header's, so the frames are counted by reading
    them once: a file that holds fewer than its header says is refused.
    """

    name = "OpenCV"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise VideoError("cannot be opened")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        num_in_header = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._num_frames = 0
        while self._capture.grab():
            self._num_frames += 1
        if self._num_frames == 0:
            raise VideoError("no video frames")
        if self._num_frames < num_in_header:
            raise VideoError(f"only {self._num_frames} of {num_in_header} frames can be decoded")
        self._next = self._num_frames  # the frame that the next read() gives

    def __len__(self) -> int:
        return self._num_frames

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        wanted = sorted(set(indices))
        if wanted[0] < 0 or wanted[-1] >= self._num_frames:
            raise VideoError(f"{self.path}: frames {wanted[0]} to {wanted[-1]} asked of {self._num_frames}")
        if wanted[0] < self._next:  # seeking by frame number is off by some frames in many files: read from the start
            self._capture.release()
            self._capture = cv2.VideoCapture(str(self.path))
            self._next = 0
        frames: dict[int, UInt8Array] = {}
        for index in wanted:
            while self._next < index and self._capture.grab():
                self._next += 1
            decoded, frame = self._capture.read()
            if not decoded:
                raise VideoError(f"{self.path}: decoding stopped at frame {self._next} of {self._num_frames}")
            self._next += 1
            frames[index] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
        return np.stack([frames[index] for index in indices])


def _first_sentence(error: Exception) -> str:
    """The part of a decoder's message that a person can use: decord's carry time stamps, source lines and a stack."""
    line = str(error).strip().splitlines()[0]
    for cut in (": Check failed: ", ": "):
        if cut in line:
            line = line.rsplit(cut, 1)[-1]
            break
    return line.strip()[:160] or type(error).__name__
