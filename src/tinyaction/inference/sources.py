"""Sources of predictions besides a file: folders, patterns, arrays, generators of frames.

Cameras and streams are in :mod:`tinyaction.inference.cameras`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from tinyaction.data.class_folders import VIDEO_SUFFIXES, is_video, walk_files
from tinyaction.places import is_place, list_place, suffix_of, url_of, without_secrets
from tinyaction.video import UInt8Array, VideoReader, check_indices
from tinyaction.video.base import even_seconds
from tinyaction.video.frames import FORMATS

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".heic"}


class MemoryReader(VideoReader):
    """Frames in memory, with the methods of a video reader (see :func:`tinyaction.video.open_video`).

    Args:
        frames: an array (N, H, W, 3) uint8 RGB, a sequence of frames (H, W, 3) of one size, or index -> frame of those
            frames that will be read.
        num_frames: N; needed only with index -> frame.
        fps: frames per second; 0.0 where unknown.
    """

    def __init__(
        self, frames: UInt8Array | Sequence[UInt8Array] | Mapping[int, UInt8Array], *, num_frames: int | None = None,
        fps: float = 0.0, name: str = "frames",
    ) -> None:
        self._frames = frames
        self._num_frames = len(frames) if num_frames is None else num_frames
        self.fps = fps
        self.name = name
        self.seconds = even_seconds(len(self), fps)

    def __len__(self) -> int:
        return self._num_frames

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        check_indices(indices, len(self), self.name)
        for index in indices:
            frame = self._frames[index].view()
            frame.flags.writeable = False  # it is the caller's
            yield frame


def list_videos(source: str | Path) -> list[str | Path] | None:
    """List the videos of a folder and its subfolders, or of a pattern such as ``clips/*.mp4``; None for a file.

    A folder may lie elsewhere, as s3://bucket/clips.

    Raises:
        ValueError: the folder or the pattern holds no video, or the source is a picture.
    """
    if is_place(source):
        return _list_place(source)
    path = Path(source)
    if path.is_dir():
        found = sorted(item for item in walk_files(path) if is_video(item))
        if not found:
            raise ValueError(f"{path}: no video in this folder; looked for {', '.join(sorted(VIDEO_SUFFIXES))}")
    elif not path.exists() and any(letter in str(source) for letter in "*?["):
        found = sorted(Path(name) for name in glob(str(source), recursive=True) if Path(name).is_file())
        if not found:
            raise ValueError(f"{source}: no file fits this pattern")
    else:
        _check_file(source)
        return None
    return [*found]


def _list_place(source: str | Path) -> list[str | Path] | None:
    if suffix_of(source) in (*VIDEO_SUFFIXES, *FORMATS.values()):
        return None
    found: list[str | Path] = [path for path in list_place(source, is_deep=True) if is_video(Path(path))]
    if not found:
        raise ValueError(f"{without_secrets(url_of(source))}: no video there; looked for "
                         f"{', '.join(sorted(VIDEO_SUFFIXES))}")
    return found


def _check_file(source: str | Path) -> None:
    """Raise ValueError where a source is a picture."""
    if Path(source).suffix.lower() in PICTURE_SUFFIXES:
        raise ValueError(f"{source}: a picture is no video; give a video file, or frames as an array in Python")


def check_array(array: Any) -> UInt8Array:
    """Return the array. Raises ValueError unless it is (T, H, W, 3) uint8 with at least one frame and one pixel."""
    wanted = "an array of frames must be (T, H, W, 3) uint8, RGB, 0..255"
    shape = tuple(array.shape)
    if array.ndim != 4 or shape[3] != 3:
        reason = "; this one looks like (T, 3, H, W): transpose it" if array.ndim == 4 and shape[1] == 3 else ""
        raise ValueError(f"the array is {shape}; {wanted}{reason}")
    if array.dtype != np.uint8:
        raise ValueError(f"the array is {array.dtype}; {wanted}")
    if 0 in shape:
        raise ValueError(f"the array is {shape}, which is empty; {wanted}")
    return np.asarray(array)


def check_frame(frame: Any, number: int, shape: tuple[int, ...] | None = None) -> UInt8Array:
    """Return frame ``number``. Raises ValueError unless it is (H, W, 3) uint8, and of ``shape`` where given."""
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise ValueError(f"frame {number} is {found}; a frame must be (H, W, 3) uint8, RGB, 0..255")
    if 0 in frame.shape or shape not in (None, frame.shape):
        rule = "it must have pixels" if shape is None else f"those before are {shape}: one size for all"
        raise ValueError(f"frame {number} is {frame.shape}; {rule}")
    return frame


def checked_frames(frames: Iterable[Any]) -> Iterator[UInt8Array]:
    """Yield the frames, each checked by :func:`check_frame` and all of one size."""
    shape = None
    for number, frame in enumerate(frames):
        frame = check_frame(frame, number, shape)
        shape = frame.shape
        yield frame
