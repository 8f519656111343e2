"""A segment of a video as a reader of its own: :func:`open_segment`.

    seconds   0.0   0.5   1.0   1.5   2.0        of five frames
    segment        [0.5          ,    2.0)  ->   frames 1 2 3, numbered 0 1 2
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyaction.places import is_place
from tinyaction.video.base import UInt8Array, VideoError, VideoReader, check_indices
from tinyaction.video.frames import ArrayReader, PictureReader
from tinyaction.video.reader import VideoFile, open_video
from tinyaction.video.store_info import check_source, size_and_time

TIME_TOLERANCE = 2e-6  # seconds; what rounding to microseconds and storing even times can change
MAX_BEYOND_SECONDS = 0.25  # that a segment may end after the last frame: sound is often longer than the picture
MAX_KEPT_BYTES = 1 << 28  # of a process, for what opening found out
MAX_KEPT_FILES = 128  # stored ones stay open, and a process may often open 1,024
MAX_DECODERS = 4  # that stay open, of the files used last: one of 1080p holds some 50 MB
BYTES_PER_FRAME = {VideoFile: 280, ArrayReader: 30, PictureReader: 60}  # of them, measured


class FrameRange(VideoReader):
    """The frames ``first`` to before ``stop`` of a reader, numbered from 0."""

    def __init__(self, reader: VideoReader, first: int, stop: int, *, path: str | Path = "video") -> None:
        self.path = path
        self.fps = reader.fps
        self.seconds = reader.seconds[first:stop] - reader.seconds[first]
        self._reader = reader
        self._first = first

    def __len__(self) -> int:
        return len(self.seconds)

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        check_indices(indices, len(self), self.path)
        return self._reader.read([self._first + index for index in indices])


def open_segment(path: str | Path, start: float, end: float, *, where: str = "") -> FrameRange:
    """Open the frames of a video whose time lies in [start, end), in seconds from its first frame.

    What opening the file finds out is kept for its next segment: listing an hour of packets takes longer than reading
    a clip.

    Args:
        where: the line of the list, for messages.

    Raises:
        VideoError: the segment ends beyond the video, or no frame lies in it, or the video cannot be read.
    """
    return segment_of(open_kept(path), start, end, path=path, where=where)


def segment_of(
    reader: VideoReader, start: float, end: float, *, path: str | Path = "video", where: str = ""
) -> FrameRange:
    """The segment of an open video; see :func:`open_segment`."""
    segment = f"the segment {start:.6g} to {end:.6g} s" + f" of {where}" * bool(where)
    if len(reader) > 1 and not reader.seconds[-1] > 0:
        raise VideoError(path, f"{segment} cannot be found: nothing says when its frames are shown", kind="segment")
    duration = duration_of(reader)
    if end > duration + MAX_BEYOND_SECONDS:
        advice = "correct the list"
        if start == int(start) and end == int(end) and end <= len(reader):
            advice = f"give seconds: both are whole numbers, as of frames, of which it has {len(reader)}"
        raise VideoError(path, f"{segment} ends beyond the video, which lasts {duration:.3f} s; {advice}",
                         kind="segment")
    first, stop = frames_between(reader.seconds, start, end)
    if first == stop:
        raise VideoError(path, f"{segment} has no frame: it is shorter than the time from one to the next; lengthen "
                               "it", kind="segment")
    return FrameRange(reader, first, stop, path=path)


def frames_between(seconds: npt.NDArray[np.float64], start: float, end: float) -> tuple[int, int]:
    """(first, stop) of the frames whose time lies in [start, end), as of frames at ascending ``seconds``."""
    first, stop = np.searchsorted(seconds, [start - TIME_TOLERANCE, end - TIME_TOLERANCE]).tolist()
    return first, stop


def duration_of(reader: VideoReader) -> float:
    """Seconds from the first frame to the end of the last, which is shown as long as frames are on average."""
    last = float(reader.seconds[-1])
    return last + (1 / reader.fps if reader.fps else last / max(1, len(reader) - 1))


_kept: dict[tuple[object, ...], VideoReader] = {}  # the one used last is the last


def open_kept(path: str | Path) -> VideoReader:
    """Open a video as :func:`open_video` does, and keep for the next time what that found out.

    The files used longest ago are forgotten first; one that has changed is opened anew. A few keep their decoder, too:
    opening the file of an hour takes as long as decoding a hundred small frames.
    """
    place = Path(path)
    if not is_place(path) and not place.is_file():
        return open_video(path)
    key = (str(path), os.getpid(), *size_and_time(place))
    reader = _kept.pop(key, None)
    if reader is None:
        reader = open_video(path)
    elif info := getattr(reader, "info", None):  # of a stored file: its video may have changed
        check_source(place, Path(info["source"]), (info["size"], info["mtime_ns"]))
    _kept[key] = reader
    while len(_kept) > MAX_KEPT_FILES or len(_kept) > 1 and sum(map(_num_bytes, _kept.values())) > MAX_KEPT_BYTES:
        del _kept[next(iter(_kept))]
    videos = [kept for kept in _kept.values() if isinstance(kept, VideoFile)]
    for kept in videos[-MAX_DECODERS - 1 : -MAX_DECODERS]:
        kept.close_decoder()
    return reader


def _num_bytes(reader: VideoReader) -> int:
    held = reader.file.num_bytes_held if isinstance(reader, VideoFile) and reader.file else 0  # of one elsewhere
    return BYTES_PER_FRAME.get(type(reader), 0) * len(reader) + held
