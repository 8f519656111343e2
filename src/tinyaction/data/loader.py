"""Batches of videos, whatever a single file does: :class:`VideoLoader`.

torch's DataLoader does the work: processes, queues, shared and pinned memory. This module adds:

    position        counts the batches of the epoch, so that a run resumes in the middle of one
    bad videos      a video that cannot be read is an error, or is dropped and listed; never replaced
    lost workers    names the file on which a worker hangs or dies, and goes on with new workers
    silence         no batch within the time limit although no worker reads is an error

:mod:`tinyaction.data.workers` records which file each worker reads.
"""

import errno
import logging
import multiprocessing
import multiprocessing.process
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from tinyaction.data.order import EpochSampler, IntArray, rank_batches
from tinyaction.data.shared_memory import SHARED_MEMORY, allow_open_files
from tinyaction.data.workers import (
    INDEX,
    PID,
    STARTED,
    CollateReadable,
    Failure,
    Key,
    LostWorker,
    LostWorkersError,
    VideoItems,
    WatchedDataset,
    how_it_ended,
    kill_at_exit,
    kill_with,
    start_worker,
)
from tinyaction.files import process_state
from tinyaction.video import VideoError

logger = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]

POLL_SECONDS = 1.0  # how often a waiting loader looks at its workers
MAX_RESTARTS = 3  # of workers that are lost, one time after the other, while they read no file


@dataclass(frozen=True)
class BadVideo:
    """A video that was dropped, and why."""

    index: int
    filename: str
    reason: str


class VideoLoader:
    """Batches of a dataset; :func:`tinyaction.data.dataset.build_dataloader` makes it.

    Args:
        num_workers: processes that decode; 0 decodes in this process.
        pin_memory: page-locked batches, for faster copies to a CUDA device.
        prefetch: batches that each worker makes ahead.
        rank, num_ranks: number of this process among several; see :func:`tinyaction.data.order.rank_batches`.
        on_error: "raise" the error of a video, or "skip" the video: its batch is smaller, ``loader.bad`` lists it. One
            that is unreachable is never skipped.
        max_skipped: largest share of an epoch's videos that may be skipped.
        video_timeout: seconds that a worker may take for one video before it is stopped; no limit without workers.

    Iterating raises what an item raised: :class:`tinyaction.video.VideoError`, or ``ValueError`` of a transform.

    ``even`` deals the last videos of an epoch to several processes alike; see :func:`rank_batches`.

    Attributes:
        position: batches of this epoch that were yielded, or left out since no video of them could be read.
        bad: videos of this epoch that were dropped (``on_error="skip"``), in the order in which they failed.
        on_wait: called about once a second while the loader waits for a batch, without workers for each video; may
            raise to leave.
    """

    def __init__(
        self,
        dataset: VideoItems,
        *,
        batch_size: int,
        sampler: EpochSampler,
        collate: Callable[[Sequence[Any]], Any],
        num_workers: int = 0,
        pin_memory: bool = False,
        prefetch: int = 2,
        rank: int = 0,
        num_ranks: int = 1,
        on_error: OnError = "raise",
        max_skipped: float = 0.1,
        video_timeout: float = 300.0,
        even: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}; it must be 'raise' or 'skip'")
        if not 0 <= max_skipped <= 1:
            raise ValueError(f"max_skipped is {max_skipped}; it must be a share, 0 to 1")
        if not video_timeout > 0:
            raise ValueError(f"video_timeout is {video_timeout}; it must be above 0 seconds")
        self.dataset = dataset
        self.batch_size = batch_size
        self.sampler = sampler
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.prefetch = prefetch
        self._bounds = rank_batches(len(sampler), batch_size, rank=rank, num_ranks=num_ranks, even=even)
        self._num_per_round = batch_size * num_ranks
        self.on_error = on_error
        self.max_skipped = max_skipped
        self.video_timeout = video_timeout
        self.position = 0
        self.bad: list[BadVideo] = []
        self.on_wait: Callable[[], None] | None = None
        self._first = 0                                     # batch with which the next iteration begins
        self._never_again: dict[int, str] = {}              # index -> why: items on which workers hung or died
        self._num_deaths: Counter[int] = Counter()          # index -> workers that died while they read it
        self._plan = _Plan()                                # keys of the batches that torch's loader makes
        self._table = torch.zeros(max(1, num_workers), 3, dtype=torch.float64)  # see tinyaction.data.workers
        self._collate = CollateReadable(collate, prefetch)
        self._torch_loaders: list[DataLoader[Any]] = []     # none or one, kept with its workers over the epochs
        self._is_done = True                                # whether its last iteration reached the end
        self._workers: list[multiprocessing.process.BaseProcess] = []
        if num_workers:
            kill_with(self, self._workers, self._torch_loaders)
        self._waiting_since = 0.0                           # for a batch, in seconds of time.monotonic()

    def __len__(self) -> int:
        """Batches of an epoch, counting those without a video: the same in all processes."""
        return len(self._bounds)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration. A restored position holds for the restored epoch only."""
        if epoch != self.sampler.epoch:
            self._first = 0
        self.sampler.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """The position in the epoch, for :meth:`load_state_dict` of a loader of the same videos."""
        return self.state_at(self.position, len(self.bad))

    def state_at(self, position: int, num_bad: int) -> dict[str, Any]:
        """The state after ``position`` batches, and the first ``num_bad`` of the videos dropped.

        It counts the videos of the epoch's order that all processes have had, so any number of them can go on.
        """
        num_items = len(self.sampler)
        num_done = num_items if position == len(self) else position * self._num_per_round
        return {"epoch": self.sampler.epoch, "num_done": num_done, "num_items": len(self.dataset),
                "bad": [asdict(video) for video in self.bad[:num_bad]], "never_again": dict(self._never_again)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration begin at the saved position, as if there had been no interruption."""
        if state["num_items"] != len(self.dataset):
            raise ValueError(f"the run was made with {state['num_items']} videos, now there are {len(self.dataset)}; "
                             "a run resumes only with the videos that it began with")
        num_done, num_items = state["num_done"], len(self.sampler)
        if not 0 <= num_done <= num_items or num_done % self._num_per_round and num_done < num_items:
            raise ValueError(f"num_done is {num_done}; an epoch has {num_items} videos in rounds of "
                             f"{self._num_per_round}")
        self.sampler.epoch = state["epoch"]
        self.position = self._first = len(self) if num_done == num_items else num_done // self._num_per_round
        self.bad = [BadVideo(**video) for video in state["bad"]]
        self._never_again = dict(state["never_again"])

    def __iter__(self) -> Iterator[Any]:
        return (batch for batch in self.rounds() if batch is not None)

    def rounds(self) -> Iterator[Any]:
        """The batches of the epoch; None for one without a video, as all of its videos were dropped.

        Begins at the position that was restored, or with the first batch; ``position`` says so at once.
        """
        order = self.sampler.order()
        self.position, self._first = self._first, 0
        if self.position == 0:
            self.bad = []
            for index in self._lost_before(order):
                self._drop(BadVideo(index, self.dataset.filename(index), self._never_again[index]))
        return self._rounds(order)

    def _rounds(self, order: IntArray) -> Iterator[Any]:
        num_lost_in_a_row = 0
        while self.position < len(self._bounds):
            try:
                for batch, failures in self._read(order, self._bounds[self.position :]):
                    self.position += 1
                    num_lost_in_a_row = 0
                    for failure in failures:
                        self._fail(failure)
                    if isinstance(batch, Exception):
                        raise batch
                    yield batch
            except LostWorkersError as lost:
                num_lost_in_a_row += 1
                self._after_loss(lost, num_lost_in_a_row)

    def _lost_before(self, order: IntArray) -> list[int]:
        """Items of this epoch and process on which workers were lost before, in the order of the epoch."""
        if not self._never_again:
            return []
        mine = np.concatenate([order[start:stop] for start, stop in self._bounds])
        return mine[np.isin(mine, list(self._never_again))].tolist()

    def reading(self) -> str:
        """The file that a worker, or this process, has read for the longest time; "" where none is being read."""
        rows = [row for row in self._table.tolist() if row[INDEX] >= 0]
        return self.dataset.filename(int(min(rows, key=lambda row: row[STARTED])[INDEX])) if rows else ""

    # ---- bad videos ------------------------------------------------------------------------------------------------

    def _fail(self, failure: "Failure") -> None:
        if self.on_error == "raise" or getattr(failure.error, "kind", "") == "unreachable":
            raise failure.error
        filename = self.dataset.filename(failure.index) if failure.index >= 0 else ""
        reason = f"{failure.error}" or type(failure.error).__name__
        self._drop(BadVideo(failure.index, filename, reason.removeprefix(f"{filename}: ")))

    def _drop(self, video: BadVideo) -> None:
        self.bad.append(video)
        self.check_skipped(len(self.bad))

    def check_skipped(self, num_bad: int) -> None:
        """Raise ValueError where so many of the epoch's videos, those of other processes among them, are too many."""
        if num_bad > self.max_skipped * len(self.sampler):
            shown = self.bad[:20]
            raise ValueError(
                f"{num_bad} of {len(self.sampler)} videos are bad; at most a share of {self.max_skipped:g} "
                "may be skipped (max_skipped):"
                + "".join(f"\n  {bad.filename}: {bad.reason}" for bad in shown)
                + (f"\n  and {num_bad - len(shown)} more" if num_bad > len(shown) else "")
            )

    # ---- lost workers ----------------------------------------------------------------------------------------------

    def _after_loss(self, lost: "LostWorkersError", num_in_a_row: int) -> None:
        """Raise, or leave out the items on which workers were lost, so that reading goes on."""
        for worker in lost.workers:
            index = worker.index
            if index < 0:
                continue
            filename = self.dataset.filename(index)
            reason = (f"not read within {self.video_timeout:g} s" if worker.is_stuck
                      else f"the worker process that read it was {worker.how}")
            if self.on_error == "raise":
                raise VideoError(filename, reason)
            self._num_deaths[index] += 1
            if worker.is_stuck or self._num_deaths[index] > 1:  # the first time something else may have killed it
                self._never_again[index] = reason
                self._drop(BadVideo(index, filename, reason))
            logger.warning("%s: %s; %s", filename, reason,
                           "skipped" if index in self._never_again else "it is read once more")
        if all(worker.index < 0 for worker in lost.workers):
            how = ", ".join(sorted({worker.how for worker in lost.workers}))
            if num_in_a_row >= MAX_RESTARTS:
                raise ChildProcessError(f"worker processes are {how} again and again while they read no file; memory "
                                        "may be short: take fewer workers or smaller batches")
            logger.warning("a worker process was %s while it read no file; starting new workers", how)

    def _read(self, order: IntArray, bounds: IntArray) -> Iterator[tuple[Any, list[Failure]]]:
        """Yield (batch or None or an error, failures) for each (start, stop); raises LostWorkersError."""
        self._plan.epoch, self._plan.order, self._plan.bounds = self.sampler.epoch, order, bounds
        self._plan.left_out = set(self._never_again)
        results = self._start()
        self._is_done = False
        while True:
            self._waiting_since = time.monotonic()
            try:
                result = self._next(results)
            except StopIteration:
                self._is_done = True
                return
            yield result

    def _next(self, results: Iterator[Any]) -> Any:
        """The next result; looks at the workers once a second while there is none."""
        while True:
            asked = time.monotonic()
            try:
                return next(results)
            except (RuntimeError, OSError, EOFError) as error:  # errors of items come as failures
                if not self.num_workers:
                    raise
                if time.monotonic() - asked > 5 * POLL_SECONDS:  # this process was halted (Ctrl-Z), as its workers
                    self._waiting_since = time.monotonic()
                self._look_after_workers()
                if not str(error).startswith("DataLoader timed out"):
                    raise _in_a_sentence(error) from error
            self._report()

    def _start(self) -> Iterator[Any]:
        """An iterator of torch's loader over the plan; puts its new workers into ``_workers``."""
        if not self._is_done:  # the last iteration was left in the middle: its workers have batches of the old plan
            self.close()
        for _ in range(MAX_RESTARTS):
            try:
                if not self._torch_loaders:
                    self._torch_loaders.append(self._create_torch_loader())
                return self._start_workers(self._torch_loaders[0])
            except (RuntimeError, OSError) as error:  # a worker of the last epoch is gone, or did not answer in time
                self.close()
                problem = error
        raise _in_a_sentence(problem) from problem

    def _create_torch_loader(self) -> DataLoader[Any]:
        if self.num_workers:
            allow_open_files(batch_size=self.batch_size, num_workers=self.num_workers, prefetch=self.prefetch)
            self._table.share_memory_()  # type: ignore[no-untyped-call]
        self._table[:, INDEX] = -1
        return DataLoader(
            WatchedDataset(self.dataset, self._table, None if self.num_workers else self._report),
            batch_sampler=self._plan,
            num_workers=self.num_workers,
            collate_fn=self._collate,
            pin_memory=self.pin_memory,
            prefetch_factor=self.prefetch if self.num_workers else None,
            persistent_workers=self.num_workers > 0,
            timeout=POLL_SECONDS if self.num_workers else 0,
            worker_init_fn=start_worker if self.num_workers else None,
            generator=torch.Generator(),  # of its own: a new epoch draws nothing from torch's global state
        )

    def _start_workers(self, torch_loader: DataLoader[Any]) -> Iterator[Any]:
        before = set(multiprocessing.active_children())
        # torch's handler would raise the death of a worker anywhere in this process, as in the middle of a step.
        in_main_thread = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGCHLD) if in_main_thread and hasattr(signal, "SIGCHLD") else None
        try:
            return iter(torch_loader)
        finally:
            if handler is not None:
                signal.signal(signal.SIGCHLD, handler)
            self._workers += [process for process in multiprocessing.active_children() if process not in before]
            kill_at_exit(self._workers)

    def _report(self) -> None:
        if self.on_wait is not None:
            self.on_wait()

    def _look_after_workers(self) -> None:
        """Raise LostWorkersError where workers died or hang on a file, ChildProcessError where they do nothing."""
        now = time.monotonic()
        rows = {int(row[PID]): row for row in self._table.tolist()}
        lost, halted = [], []
        is_reading = False
        for process in self._workers:
            row = rows.get(process.pid or 0, [0.0, -1.0, now])
            index = int(row[INDEX])
            if not process.is_alive():
                lost.append(LostWorker(index, how_it_ended(process.exitcode)))
            elif process_state(process.pid or 0) in ("T", "t"):
                halted.append(process.pid)
            elif index >= 0 and now - max(row[STARTED], self._waiting_since - POLL_SECONDS) > self.video_timeout:
                lost.append(LostWorker(index, "stopped", is_stuck=True))
            else:
                is_reading |= index >= 0
        if lost:
            self.close()
            raise LostWorkersError(lost)
        if now - self._waiting_since > self.video_timeout and (halted or not is_reading):
            self.close()
            who = ("the worker process {} was" if len(halted) == 1 else "the worker processes {} were").format(
                ", ".join(map(str, halted)))
            raise ChildProcessError(
                f"no batch came within {self.video_timeout:g} s, and "
                + (f"{who} halted by a signal (SIGSTOP)" if halted
                   else "no worker process reads a file; memory or shared memory may be short: take fewer workers or "
                        "smaller batches, or give a container more (docker run --ipc=host)"))

    def __repr__(self) -> str:
        return (f"VideoLoader({len(self)} batches of up to {self.batch_size} of {len(self.sampler)} videos, "
                f"{self.num_workers} workers)")

    def close(self) -> None:
        """Kill the workers; the next iteration starts new ones."""
        for process in self._workers:
            process.kill()
        self._workers.clear()
        self._torch_loaders.clear()


class _Plan(Sampler[list[Key]]):
    """Keys of each batch, made one batch at a time."""

    def __init__(self) -> None:
        self.epoch = 0
        self.order = np.empty(0, dtype=np.int64)
        self.bounds = np.empty((0, 2), dtype=np.int64)
        self.left_out: set[int] = set()

    def __len__(self) -> int:
        return len(self.bounds)

    def __iter__(self) -> Iterator[list[Key]]:
        for start, stop in self.bounds:
            yield [(self.epoch, index) for index in self.order[start:stop].tolist() if index not in self.left_out]


def _in_a_sentence(error: Exception) -> Exception:
    """What a worker process could not get from the system; any other error as it is."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EMFILE or "Too many open files" in str(error):
        return ValueError("too many open files: a batch of each worker process needs some; raise the limit "
                          "(ulimit -n 4096), or take fewer workers (--num-workers 0 starts none)")
    if number == errno.ENOSPC or "shared memory" in str(error):
        return ValueError(f"shared memory ({SHARED_MEMORY}) is full: free some, give a container more (docker run "
                          "--ipc=host), or take no workers (--num-workers 0)")
    return error


__all__ = ["BadVideo", "EpochSampler", "OnError", "VideoLoader", "rank_batches"]
