"""A file that lies elsewhere, read by ranges of bytes or copied here; see :mod:`tinyaction.places`."""

import io
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyaction.places import (
    AnyPath,
    IsFolderError,
    is_place,
    place_info,
    read_place,
    request,
    url_of,
    without_secrets,
)

BLOCK_BYTES = 1 << 17
MOST_BLOCKS_AHEAD = 8  # that one request of a file read in turn brings
NUM_CACHED_BLOCKS = 128


def fetch_place(path: AnyPath, target: AnyPath) -> None:
    """Copy a file to a local one, some megabytes a request."""
    file = PlaceFile(path)
    with open(target, "wb") as local:
        for start in range(0, len(file), step := BLOCK_BYTES * 64):
            local.write(file.fetched(start, min(start + step, len(file))))


@contextmanager
def local_copy(path: AnyPath) -> Iterator[Path]:
    """The path itself, or a temporary copy of a file elsewhere, with its name."""
    if not is_place(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, Path(without_secrets(os.fspath(path))).name)
        fetch_place(path, copy)
        yield copy


class PlaceFile:
    """A file elsewhere, read by ranges: ``file[start:stop]`` as of bytes, ``len(file)``; ``num_bytes_read`` so far.

    Blocks that were read are kept, the latest of them. A file read in turn comes in larger and larger pieces.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = url_of(path)
        self.num_bytes_read = 0
        self.num_requests = 0
        info = place_info(path)
        if info.get("type") == "directory":
            raise IsFolderError(path, "a folder, not a file")
        self._whole: bytes | None = None
        if info.get("size") is None:  # a server that says no length
            self._whole = read_place(path)
        self._size = int(info.get("size", 0)) if self._whole is None else len(self._whole)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next = self._num_ahead = 0

    def __len__(self) -> int:
        return self._size

    @property
    def num_bytes_held(self) -> int:
        return len(self._blocks) * BLOCK_BYTES + len(self._whole or b"")

    def __getitem__(self, part: slice) -> bytes:
        start, stop, step = part.indices(self._size)
        return self.read_range(start, stop)[::step]

    def read_range(self, start: int, stop: int) -> bytes:
        start, stop = max(0, start), min(stop, self._size)
        if start >= stop:
            return b""
        numbers = range(start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES + 1)
        missing = [number for number in numbers if number not in self._blocks]
        got = {number: self._blocks[number] for number in numbers if number in self._blocks}
        if missing:
            got |= self._fetch_blocks(missing[0], missing[-1] + 1)
        for number in numbers:
            self._blocks.move_to_end(number)
        while len(self._blocks) > max(NUM_CACHED_BLOCKS, len(numbers)):
            self._blocks.popitem(last=False)
        content = b"".join(got[number] for number in numbers)
        return content[start - numbers[0] * BLOCK_BYTES : stop - numbers[0] * BLOCK_BYTES]

    def _fetch_blocks(self, first: int, stop: int) -> dict[int, bytes]:
        """Fetch these blocks in one request, and more of them where they follow what was fetched before."""
        self._num_ahead = min(2 * self._num_ahead + 1, MOST_BLOCKS_AHEAD) if first == self._next else 0
        while stop < first + self._num_ahead and stop not in self._blocks:
            stop += 1
        start = first * BLOCK_BYTES
        content = self.fetched(start, min(stop * BLOCK_BYTES, self._size))
        self._next = stop
        blocks = {first + i // BLOCK_BYTES: content[i : i + BLOCK_BYTES] for i in range(0, len(content), BLOCK_BYTES)}
        self._blocks |= blocks
        return blocks

    def fetched(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` to ``stop`` by a request of their own."""
        if self._whole is None:
            self.num_requests += 1
            content = request(self.path, lambda system, inner: self._checked(system, inner, start, stop))
            self.num_bytes_read += len(content)
            if len(content) == stop - start:
                return content
            self._whole = content
        return self._whole[start:stop]

    def _checked(self, system: Any, inner: str, start: int, stop: int) -> bytes:
        options = {"cache_type": "none"} if system.protocol == "hf" else {}  # it would read 5 MB ahead each time
        content = bytes(system.cat_file(inner, start=start, end=stop, **options))
        if len(content) not in (stop - start, self._size):  # the whole file: of a server without ranges
            raise EOFError
        return content

    def cursor(self, *, zeros: Sequence[tuple[int, int]] = (), is_exact: bool = False) -> "Cursor":
        """A file object on it.

        Bytes within ``zeros``, of (start, stop) each, are read as 0 and not fetched. With ``is_exact`` each read is a
        request of just these bytes.
        """
        return Cursor(self.fetched if is_exact else self.read_range, len(self), zeros)


class Cursor(io.RawIOBase):
    """A file object with a position of its own; see :meth:`PlaceFile.cursor`."""

    def __init__(self, read_range: Callable[[int, int], bytes], size: int, zeros: Sequence[tuple[int, int]]) -> None:
        self._read_range = read_range
        self._size = size
        self._zeros = zeros
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._place + size, self._size)
        parts = []
        while self._place < stop:
            inside = next(((start, end) for start, end in self._zeros if start <= self._place < end), None)
            if inside:
                end = min(stop, inside[1])
                parts.append(bytes(end - self._place))
            else:
                end = min([stop, *(start for start, _ in self._zeros if start > self._place)])
                parts.append(self._read_range(self._place, end))
            self._place = end
        return b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
