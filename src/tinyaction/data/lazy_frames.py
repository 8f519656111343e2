"""Frames of an item that are decoded on demand: :class:`LazyFrames`."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tinyaction.video import UInt8Array, VideoReader

FrameFunction = Callable[[UInt8Array], UInt8Array]  # a frame (H, W, 3) to another


class LazyFrames(Sequence[UInt8Array]):
    """The frames of a video at ``indices``, which may repeat and come in any order, as a sequence of that length.

    Each distinct frame is decoded once, in file order, and goes through the functions of :meth:`map` at once, so
    :meth:`in_file_order` never holds two full-size frames. Used as a list, the sequence decodes all frames and keeps
    the results of the functions; a frame that stands in two places is one array object.

    Attributes:
        shape: (H, W) of the frames in the file.
    """

    def __init__(self, reader: VideoReader, indices: npt.NDArray[np.int64]) -> None:
        distinct, self._places = np.unique(indices, return_inverse=True)  # ascending
        decoded = reader.read(distinct.tolist())
        first = [next(decoded)]
        self.shape = first[0].shape[:2]
        self._decoded = _resumed(first, decoded)
        self._functions: tuple[FrameFunction, ...] = ()
        self._frames: list[UInt8Array] | None = None
        self._is_read = False

    def map(self, function: FrameFunction) -> "LazyFrames":
        """Change each frame by ``function`` when it is decoded; returns the sequence itself."""
        if self._frames is not None:
            self._frames = map_list(self._frames, function)
        else:
            self._functions += (function,)
        return self

    def in_file_order(self) -> Iterator[tuple[list[int], UInt8Array]]:
        """Yield each distinct frame with its places in the sequence, once; some frames are not writable."""
        if self._frames is not None:
            yield from (([place], frame) for place, frame in enumerate(self._frames))
            return
        if self._is_read:
            raise RuntimeError("the frames were read already; make a list of them to use them twice")
        self._is_read = True
        for number, frame in enumerate(self._decoded):
            for function in self._functions:
                frame = function(frame)
            yield np.flatnonzero(self._places == number).tolist(), frame

    def _list(self) -> list[UInt8Array]:
        if self._frames is None:
            frames: dict[int, UInt8Array] = {}
            for places, frame in self.in_file_order():
                own = frame if frame.flags.writeable else frame.copy()  # it was somebody else's
                frames.update(dict.fromkeys(places, own))
            self._frames = [frames[place] for place in range(len(self))]
        return self._frames

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[UInt8Array]:
        return iter(self._list())

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        return self._list()[place]

    def __repr__(self) -> str:
        return f"LazyFrames({len(self)} frames, in the file {self.shape[1]}x{self.shape[0]})"


def _resumed(first: list[UInt8Array], rest: Iterator[UInt8Array]) -> Iterator[UInt8Array]:
    yield first.pop()  # not held while the next one is decoded
    yield from rest


def map_frames(frames: Sequence[UInt8Array], function: FrameFunction) -> Sequence[UInt8Array]:
    """Change every frame by itself, lazily where they are lazy."""
    return frames.map(function) if isinstance(frames, LazyFrames) else map_list(frames, function)


def map_list(frames: Sequence[UInt8Array], function: FrameFunction) -> list[UInt8Array]:
    """Change every frame by itself; a frame in two places is changed once."""
    changed: dict[int, UInt8Array] = {}
    for frame in frames:
        if id(frame) not in changed:
            changed[id(frame)] = function(frame)
    return [changed[id(frame)] for frame in frames]
