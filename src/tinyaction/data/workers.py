"""The worker processes of a loader: what they read, what they hand on, how they end.

Each worker writes the item that it reads, and since when, on a board in shared memory. When no batch comes for a
second, the board says whose item takes too long.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import Dataset, get_worker_info

Key = tuple[int, int]  # (epoch, index of the item)
# What a file can do to a reader or a transform. Anything else is a defect of the program and is raised as it is.
ITEM_ERRORS = (ValueError, OSError, MemoryError, cv2.error)
PID, INDEX, STARTED = 0, 1, 2  # columns of the board


class VideoItems(Protocol):
    """What the loader asks of a dataset; :class:`tinyaction.data.dataset.VideoDataset` is one."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: Key, /) -> Any: ...
    def filename(self, index: int) -> str: ...


@dataclass
class Failure:
    index: int
    error: Exception


class LostWorkersError(Exception):
    """Items (index or -1, how it ended, whether it was stuck) of the workers that are no more."""

    def __init__(self, items: list[tuple[int, str, bool]]) -> None:
        super().__init__(items)
        self.items = items


class Watched(Dataset[Any]):
    """Says on the board what it reads; hands an error on as an item (torch would make it a worker's traceback)."""

    def __init__(self, dataset: VideoItems, board: torch.Tensor) -> None:
        self.dataset = dataset
        self.board = board

    def __getitem__(self, key: Key) -> Any:
        worker = get_worker_info()
        row = torch.zeros(3) if worker is None else self.board[worker.id]
        row[STARTED] = time.monotonic()
        row[INDEX] = key[1]
        try:
            return self.dataset[key]
        except ITEM_ERRORS as error:
            return Failure(key[1], error)
        finally:
            row[INDEX] = -1


class CollateWhatIsThere:
    """(batch of the items that could be read, or None, and the failures)."""

    def __init__(self, collate: Callable[[Sequence[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[Any]) -> tuple[Any, list[Failure]]:
        good = [item for item in items if not isinstance(item, Failure)]
        failures = [item for item in items if isinstance(item, Failure)]
        try:
            return (self.collate(good) if good else None), failures
        except ValueError as error:  # of different shapes: no item is to blame alone
            return error, failures


def start_worker(worker_id: int) -> None:
    cv2.setNumThreads(0)  # one core for each worker: OpenCV would start a thread for every core in every worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the main one ends the others
    threading.Thread(target=end_with_parent, daemon=True).start()
    worker = get_worker_info()
    assert worker is not None and isinstance(worker.dataset, Watched)
    worker.dataset.board[worker_id, PID] = multiprocessing.current_process().pid or 0


def end_with_parent() -> None:
    """torch's own watch begins after this, and would wait for ever for a parent that was killed before."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def how_it_ended(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"ended with exit code {exitcode}"
