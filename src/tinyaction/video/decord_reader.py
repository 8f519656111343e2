"""The guide's own reader, decord, for those who compare: without guarantees.

decord (last release 2021) counts hidden packets, returns neighbouring frames where decoding fails, and jumps to wrong
frames in some files; ``docs/reading_video.md`` has the table. :func:`tinyaction.video.open_video` has none of this.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyaction.video.base import UInt8Array, VideoError, VideoReader, check_indices


class DecordReader(VideoReader):
    """Frames as ``decord.VideoReader`` gives them, on one thread.

    Raises:
        VideoError: decord is not installed (it has wheels for Linux and Windows on x86-64) or cannot open the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            import decord  # after torch: the other order has crashed
        except ImportError:
            raise VideoError(path, "decord is not installed (pip install decord); leave reader='decord' out to read "
                                   "with PyAV") from None
        if not os.path.isfile(path):  # decord ends the process on a folder
            raise VideoError(path, "no such file", kind="missing")
        decord.logging.set_level(decord.logging.QUIET)
        self._errors = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, AssertionError, IndexError)
        try:
            self._reader: Any = decord.VideoReader(str(path), num_threads=1)
            self.fps = float(self._reader.get_avg_fps())
            starts = self._reader.get_frame_timestamp(range(len(self._reader)))[:, 0].astype(np.float64)
        except self._errors as error:
            raise VideoError(path, f"decord: {_first_line(error)}") from None
        if len(starts) == 0:
            raise VideoError(path, "decord: no video frames")
        self.seconds: npt.NDArray[np.float64] = starts - starts[0]

    def __len__(self) -> int:
        return len(self.seconds)

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        check_indices(indices, len(self), self.path)
        for index in indices:
            yield self.get_batch([index])[0]

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        try:
            frames: UInt8Array = self._reader.get_batch(list(indices)).asnumpy()
        except self._errors as error:
            raise VideoError(self.path, f"decord: {_first_line(error)}") from None
        return frames


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]
