"""Arrays that the processes of one machine share: :class:`SharedArray`, and :class:`GrowingArray` that makes one.

A large one lies in a file in memory without a name (memfd). Another process maps it through the descriptor of this
one, /proc/PID/fd/N, and it is gone with the last process that has it, however that ends. It takes no room in /dev/shm.
It is written as a file is, so that where memory is short there is an error and no SIGBUS.
"""

import logging
import mmap
import os
import pickle
import uuid
from contextvars import ContextVar
from functools import cache
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST_SHARED = 2**22  # bytes of an array that is shared rather than copied
logger = logging.getLogger(__name__)
_is_offered: ContextVar[bool] = ContextVar("is_offered", default=False)  # to the other ranks of this machine


class MemoryFile:
    """A file in memory; ``place`` and ``inode`` name it to other processes, as long as this one has it.

    Raises OSError where the system has no such files, or another stands at the place by now.
    """

    def __init__(self, place: str = "", inode: int = 0) -> None:
        if not hasattr(os, "memfd_create") or not os.path.isdir("/proc/self/fd"):
            raise OSError("this system has no files in memory (memfd), or no /proc")
        self._descriptor = os.open(place, os.O_RDONLY) if place else os.memfd_create("tinyaction")
        if place and self.inode != inode:
            raise FileNotFoundError(f"{place}: another file")

    @property
    def place(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    @property
    def inode(self) -> int:
        return os.fstat(self._descriptor).st_ino

    def write(self, content: Any) -> None:
        """Append bytes, or an array."""
        left = memoryview(content).cast("B")
        while left:
            left = left[os.write(self._descriptor, left) :]

    def read(self) -> bytes:
        return Path(self.place).read_bytes()

    def map(self, dtype: str) -> npt.NDArray[Any]:
        """Its content as an array; what is written to that stays in this process."""
        size = os.fstat(self._descriptor).st_size
        return np.frombuffer(mmap.mmap(self._descriptor, size, access=mmap.ACCESS_COPY), dtype)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class SharedArray:
    """An array that spawned workers and ranks of this machine map. A small one is copied, or one that has no room.

    Pickled for anything else, a file or another machine, it is its content.
    """

    def __init__(self, array: npt.NDArray[Any], file: MemoryFile | None = None) -> None:
        self.array = array
        self._file = file

    def __getstate__(self) -> Any:
        if get_spawning_popen() is None and not _is_offered.get():  # for what may outlive this process
            return self.array
        if self._file is None and self.array.nbytes >= LEAST_SHARED:
            self._move()
        return self.array if self._file is None else (self._file.place, self._file.inode, self.array.dtype.str,
                                                      self.array.shape)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple):
            place, inode, dtype, shape = state
            self._file = MemoryFile(place, inode)
            self.array = self._file.map(dtype).reshape(shape)
        else:
            self.array, self._file = state, None

    def _move(self) -> None:
        try:
            file = MemoryFile()
            file.write(np.ascontiguousarray(self.array))
            self.array, self._file = file.map(self.array.dtype.str).reshape(self.array.shape), file
        except OSError as error:
            warn_of_copies(str(error))


class _SharedField:
    """A field that is an array, or None, and that is held as a :class:`SharedArray`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, instance: Any, owner: type) -> Any:
        held = instance.__dict__.get(self._name)
        return None if held is None else held.array

    def __set__(self, instance: Any, array: npt.NDArray[Any] | None) -> None:
        instance.__dict__[self._name] = None if array is None else SharedArray(array)


def shared_field() -> Any:
    """A field of a class for an array, or None, of which other processes have no copy."""
    return _SharedField()


class GrowingArray:
    """Collects an array in pieces; a large one in its file from the start, so that it is never there twice."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._content = bytearray()  # of a small one
        self._file: MemoryFile | None = None
        self._num_bytes = 0  # in the file
        self._has_room = True

    def extend(self, piece: Any) -> None:
        """Append bytes, or an array."""
        if self._file is None:
            self._content += memoryview(piece).cast("B")
            if len(self._content) < LEAST_SHARED or not self._has_room:
                return
            piece, self._content = self._content, bytearray()
        try:
            self._file = self._file or MemoryFile()
            self._file.write(piece)
            self._num_bytes += memoryview(piece).nbytes
        except OSError as error:
            warn_of_copies(str(error))
            before = self._file.read()[: self._num_bytes] if self._file else b""
            self._content += before + memoryview(piece).cast("B")
            self._file, self._has_room = None, False

    def finished(self) -> SharedArray:
        if self._file is None:
            return SharedArray(np.frombuffer(self._content, self._dtype))
        return SharedArray(self._file.map(self._dtype), self._file)


@cache  # once, and not for each array
def warn_of_copies(reason: str) -> None:
    logger.warning("each process has a copy of its own of the list of videos, as memory that they share cannot be "
                   "had: %s", reason)


# ---- objects -------------------------------------------------------------------------------------------------------


def machine() -> str:
    """Processes for which it is equal find each other in /proc."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex


class Offer:
    """An object for other processes of this machine, which map its arrays; it lasts as long as this does."""

    def __init__(self, value: Any) -> None:
        token = uuid.uuid4().hex
        self._file = MemoryFile()
        before = _is_offered.set(True)
        try:
            self._file.write(token.encode() + pickle.dumps(value))
        finally:
            _is_offered.reset(before)
        self.address = f"{self._file.place} {token}"


def take_offer(address: str) -> Any:
    """The object of an :class:`Offer`; raises OSError where it cannot be reached."""
    place, _, token = address.partition(" ")
    content = Path(place).read_bytes() if place else b""
    if not place or content[:32] != token.encode():
        raise FileNotFoundError(f"{place or 'no memory that processes share'}: another file")
    return pickle.loads(memoryview(content)[32:])
