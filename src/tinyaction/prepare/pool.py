"""Work on files in processes of their own, so that a file that hangs or kills its process is a finding.

The pools of the standard library do not say which item killed a worker, and end with it; see
:class:`concurrent.futures.process.BrokenProcessPool`.
"""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import cv2

from tinyaction.data.workers import end_with_parent, how_it_ended

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Lost:
    """An item whose process ended before it was done; ``kind`` is "hangs" or "crashes"."""

    kind: str
    reason: str


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int, timeout_seconds: float
) -> Iterator[tuple[Item, Result | Lost]]:
    """Yield (item, function(item)) as they are done, in any order.

    An item that takes longer than ``timeout_seconds``, or whose process dies, is :class:`Lost`, and the others go on.
    ``function`` and the items must be picklable, and the caller importable, where processes are spawned.

    Raises:
        RuntimeError: ``function`` raised (the message has its traceback), or no process could be started.
    """
    todo = list(reversed(items))
    workers: list[_Worker[Item, Result]] = []
    try:
        workers = [_Worker(function, todo.pop()) for _ in range(min(num_workers, len(items)))]
        while workers:
            soonest = min(worker.deadline(timeout_seconds) for worker in workers)
            wait([worker.connection for worker in workers], max(0.0, min(soonest - time.monotonic(), 60.0)))
            for place, worker in reversed(list(enumerate(workers))):
                done = worker.result(timeout_seconds)
                if done is None:
                    continue
                item = worker.item
                if not todo:
                    workers.pop(place).end()
                elif isinstance(done, Lost):
                    worker.end()
                    workers[place] = _Worker(function, todo.pop())
                else:
                    worker.start(todo.pop())
                yield item, done
    finally:
        for worker in workers:
            worker.end()


class _Worker(Generic[Item, Result]):
    """A process and the item that it works on."""

    def __init__(self, function: Callable[[Item], Result], item: Item) -> None:
        self.connection, other_end = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=_serve, args=(function, other_end), daemon=True)
        self._process.start()
        other_end.close()  # so that a dead process is the end of its connection
        self._is_ready = False  # a spawned process takes seconds to import; that is not the item's time
        self.start(item)

    def start(self, item: Item) -> None:
        self.item = item
        self._begin = time.monotonic()
        with suppress(ConnectionError):  # it has died meanwhile: result() says so
            self.connection.send(item)

    def deadline(self, timeout_seconds: float) -> float:
        return self._begin + timeout_seconds if self._is_ready else float("inf")

    def result(self, timeout_seconds: float) -> Result | Lost | None:
        """What came of the item; None where it is not done yet."""
        try:
            while self.connection.poll():
                is_result, content = self.connection.recv()
                if is_result:
                    if isinstance(content, _Traceback):
                        raise RuntimeError(f"{self.item}: {content.text}")
                    result: Result = content
                    return result
                self._is_ready, self._begin = True, time.monotonic()
        except (EOFError, ConnectionError):
            self._process.join()
            how = how_it_ended(self._process.exitcode)
            if not self._is_ready:
                raise RuntimeError(f"a worker process {how} before it began; a script that starts workers needs "
                                   "'if __name__ == \"__main__\":' around its work") from None
            return Lost("crashes", f"the process that read it {how}")
        if time.monotonic() >= self.deadline(timeout_seconds):
            return Lost("hangs", f"not read within {timeout_seconds:g} s (--video-timeout)")
        return None

    def end(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.join()
        self._process.close()


@dataclass(frozen=True)
class _Traceback:
    text: str


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    """Answer each item with (True, result); say (False, None) when ready to begin."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the main one ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    connection.send((False, None))
    while True:
        try:
            item = connection.recv()
        except (EOFError, ConnectionError):
            os._exit(0)
        try:
            result = function(item)
        except Exception:
            result = _Traceback(traceback.format_exc())
        connection.send((True, result))
