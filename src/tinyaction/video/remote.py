"""What a reader of videos does otherwise where the file lies elsewhere; see :mod:`tinyaction.places`.

The index of an MP4 or MOV file lists its packets: they are listed without one of them being fetched. Other files have
no such index and are copied as a whole, to a temporary file.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from tinyaction.place_file import PlaceFile, fetch_place
from tinyaction.video.base import UInt8Array, VideoError, VideoReader
from tinyaction.video.packets import PacketTable, begins_anew, num_bytes_of_length

NUM_LOOKED_AT = 4096  # bytes of a packet, to see what it is
LOOKED_INTO = ("vp8",)  # codecs of which each packet must be looked into to know whether it is shown


@contextmanager
def index_alone(
    file: PlaceFile, parts: Sequence[tuple[int, int]], options: Mapping[str, str]
) -> Iterator[tuple[Iterator[Any], frozenset[int]]]:
    """(packets of the best video stream, bytes at which its key frames lie); the packets' contents are zeros.

    ``parts`` are those of :func:`tinyaction.video.containers.parts_beside_index`.
    """
    container: Any = av.open(file.cursor(zeros=parts), options=dict(options), metadata_errors="ignore")
    try:
        stream = container.streams.best("video")
        for other in container.streams:
            if other is not stream and hasattr(other, "discard"):
                other.discard = av.stream.Discard.all
        yield container.demux(stream), frozenset(entry.pos for entry in stream.index_entries if entry.is_keyframe)
    finally:
        container.close()


def is_key(file: PlaceFile, table: PacketTable, position: int, *, codec: str, extradata: bytes | None) -> bool:
    """Whether decoding may begin at a packet, by its content."""
    place = table.identities[position][1]
    assert place is not None
    return begins_anew(file[place : place + NUM_LOOKED_AT], codec, num_bytes_of_length(codec, extradata))


class CopiedVideo(VideoReader):
    """A file elsewhere that was copied to a temporary one, which goes when the reader does."""

    def __init__(self, path: Path, open_local: Callable[[Path], VideoReader]) -> None:
        self.path = path
        folder = tempfile.mkdtemp(prefix="tinyaction-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        copy = Path(folder, "video")
        fetch_place(path, copy)
        with self._named():
            self._reader = open_local(copy)
        self.fps, self.seconds = self._reader.fps, self._reader.seconds

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        with self._named():
            frames = self._reader.read(indices)
        return self._read(frames)

    def _read(self, frames: Iterator[UInt8Array]) -> Iterator[UInt8Array]:
        with self._named():
            yield from frames

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except VideoError as error:
            raise VideoError(self.path, error.reason, kind=error.kind) from None
