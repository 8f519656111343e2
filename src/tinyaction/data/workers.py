"""The worker processes of a loader: what they read, what they send, how they end.

Each worker writes the index of the item that it reads, and when it began, to a row of a table in shared memory. When
no batch comes for a second, the loader looks there for the item that takes too long.
"""

import atexit
import multiprocessing
import multiprocessing.util  # waits for all processes when Python ends: what is registered after it runs before it
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import Dataset, get_worker_info

from tinyaction.data.shared_memory import share

Key = tuple[int, int]  # (epoch, index of the item)
# Errors that a file can cause in a reader or a transform. Any other is a defect of the program and ends the run.
ITEM_ERRORS = (ValueError, OSError, MemoryError, cv2.error)
PID, INDEX, STARTED = 0, 1, 2  # columns of the table; INDEX is -1 while a worker reads nothing


class VideoItems(Protocol):
    """What the loader needs of a dataset; :class:`tinyaction.data.dataset.VideoDataset` has it."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: Key, /) -> Any: ...
    def filename(self, index: int) -> str: ...


@dataclass
class Failure:
    """An item that could not be read."""

    index: int
    error: Exception


@dataclass(frozen=True)
class LostWorker:
    """A worker process that died, or that was given up."""

    index: int  # of the item that it read; -1 where it read none
    how: str
    is_stuck: bool = False  # it is alive and took too long over its item


class LostWorkersError(Exception):
    """Workers were lost; their loader can start new ones."""

    def __init__(self, workers: list[LostWorker]) -> None:
        super().__init__(workers)
        self.workers = workers


class WatchedDataset(Dataset[Any]):
    """Writes to the table which item is being read, and returns an error as a :class:`Failure`.

    torch would turn the error into a traceback of the worker and drop the rest of the batch.
    """

    def __init__(self, dataset: VideoItems, table: torch.Tensor, on_item: Callable[[], None] | None = None) -> None:
        self.dataset = dataset
        self.table = table  # (workers, 3) float64, shared
        self.on_item = on_item  # called before each item where there are no workers

    def __getitem__(self, key: Key) -> Any:
        worker = get_worker_info()
        row = self.table[0 if worker is None else worker.id]
        row[STARTED] = time.monotonic()
        row[INDEX] = key[1]
        try:
            if self.on_item is not None:
                self.on_item()
            return self.dataset[key]
        except ITEM_ERRORS as error:
            return Failure(key[1], error)
        finally:
            row[INDEX] = -1


@dataclass(frozen=True)
class CollateReadable:
    """Return (batch of the items that could be read, or None, or the error of putting them together; failures)."""

    collate: Callable[[Sequence[Any]], Any]
    prefetch: int

    def __call__(self, items: Sequence[Any]) -> tuple[Any, list[Failure]]:
        good = [item for item in items if not isinstance(item, Failure)]
        failures = [item for item in items if isinstance(item, Failure)]
        worker = get_worker_info()
        try:
            batch = self.collate(good) if good else None
            if worker is not None:
                share(batch, batch_size=len(good), num_workers=worker.num_workers, prefetch=self.prefetch)
        except ValueError as error:  # no item alone is to blame
            return error, failures
        return batch, failures


def start_worker(worker_id: int) -> None:
    cv2.setNumThreads(0)  # one core a worker: OpenCV would start a thread for every core in each of them
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the main one ends the workers
    if hasattr(signal, "SIGHUP"):  # so does a closed terminal
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    worker = get_worker_info()
    assert worker is not None and isinstance(worker.dataset, WatchedDataset)
    worker.dataset.table[worker_id, PID] = multiprocessing.current_process().pid or 0


def end_with_parent() -> None:
    """End this process when its parent ends. torch watches too, but begins later."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


_started: weakref.WeakSet[multiprocessing.process.BaseProcess] = weakref.WeakSet()


def kill_at_exit(processes: Iterable[multiprocessing.process.BaseProcess]) -> None:
    """Kill worker processes before Python waits for their end: by its SIGTERM a halted one (SIGSTOP) never ends."""
    _started.update(processes)


@atexit.register
def _kill_started() -> None:
    for process in list(_started):
        if process.is_alive():
            process.kill()


def kill_with(owner: object, processes: list[multiprocessing.process.BaseProcess], torch_loaders: list[Any]) -> None:
    """Kill worker processes when their loader is collected, as after an error; torch would wait 5 s for each.

    ``torch_loaders`` are let go only then. Collected with their owner, the pipe of a queue that had nothing to send
    is closed twice, by the collector and by the thread of the queue: the second time it may be another file's number.
    """
    parent = os.getpid()

    def kill() -> None:
        for process in processes if os.getpid() == parent else ():     # not where a worker collects its copy
            process.kill()
        torch_loaders.clear()

    weakref.finalize(owner, kill).atexit = False


def how_it_ended(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with exit code {exitcode}"
