"""Batches that come whatever happens to one file: :class:`VideoLoader`.

torch's DataLoader does the work: processes, queues, shared and pinned memory. What is added here:

    the position    how many batches of the epoch were given, so that a run resumes in the middle of one
    bad videos      an item that raises is an error, or is dropped and listed; never replaced
    lost workers    a worker that hangs on a file or dies of one is named with that file; the others' work goes on

:mod:`tinyaction.data.workers` says how a lost worker's file is known.
"""

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
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Sampler

from tinyaction.data.workers import (
    INDEX,
    PID,
    STARTED,
    CollateWhatIsThere,
    Failure,
    Key,
    LostWorkersError,
    VideoItems,
    Watched,
    how_it_ended,
    start_worker,
)
from tinyaction.video import VideoError

logger = logging.getLogger(__name__)

IntArray = npt.NDArray[np.int64]
OnError = Literal["raise", "skip"]

POLL_SECONDS = 1.0  # how often a waiting loader looks at its workers


@dataclass(frozen=True)
class BadVideo:
    """A video that was dropped, and why."""

    index: int
    filename: str
    reason: str


class EpochSampler(Sampler[Key]):
    """Keys (epoch, index) of one epoch, in an order drawn from (seed, epoch); set ``epoch`` before each.

    With the ``labels`` of the items each label comes equally often in an epoch of as many items: those of rare ones
    again and again, those of frequent ones in turns.
    """

    def __init__(
        self, num_items: int, *, shuffle: bool, seed: int, labels: npt.NDArray[np.int64] | None = None
    ) -> None:
        self.num_items = num_items
        self.labels = labels
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.num_items

    def order(self) -> IntArray:
        """The items of the epoch in their order: an array, since a list of a million keys would take 150 MB."""
        rng = np.random.RandomState([self.seed, self.epoch])
        order = np.arange(self.num_items) if self.labels is None else self._balanced(self.labels, rng)
        if self.shuffle:
            rng.shuffle(order)
        return order

    def _balanced(self, labels: IntArray, rng: np.random.RandomState) -> IntArray:
        there = rng.permutation(np.unique(labels))  # which labels come once more, where it does not come out even
        parts = []
        for number, label in enumerate(there):
            items = rng.permutation(np.flatnonzero(labels == label))
            parts.append(np.resize(items, (self.num_items + number) // len(there)))  # repeats, or cuts
        return np.concatenate(parts)

    def __iter__(self) -> Iterator[Key]:
        return ((self.epoch, int(index)) for index in self.order())


def rank_batches(num_items: int, batch_size: int, *, rank: int, num_ranks: int, even: bool) -> IntArray:
    """Where the batches of one of ``num_ranks`` processes lie in the order of the epoch: (start, stop) each.

    Every item is in one batch of one process.

        num_items = 11, batch_size = 2, num_ranks = 2
            even = False    rank 0: 01 45 89    rank 1: 23 67 a
        num_items = 9
            even = False    rank 0: 01 45 8     rank 1: 23 67     (evaluation: the batches of one process, dealt out)
            even = True     rank 0: 01 45       rank 1: 23 678    (training: every process has a batch in every step)
    """
    starts = np.arange(0, num_items, batch_size)
    bounds = np.stack([starts, np.minimum(starts + batch_size, num_items)], axis=1)  # (batches, 2)
    if not even:
        return bounds[rank::num_ranks]
    if num_items < num_ranks:
        raise ValueError(f"{num_items} training videos are too few for {num_ranks} processes")
    per_step = batch_size * num_ranks
    num_full = (num_items - num_ranks) // per_step  # steps before the last, which has num_ranks items or more
    last = num_full * per_step + np.linspace(0, num_items - num_full * per_step, num_ranks + 1).round().astype(int)
    return np.concatenate([bounds[: num_full * num_ranks][rank::num_ranks], [last[rank : rank + 2]]])


class VideoLoader:
    """Batches of a dataset; see :func:`tinyaction.data.dataset.build_dataloader` for the arguments.

    Attributes:
        position: batches of this epoch that were given or passed over.
        bad: videos of this epoch that were dropped (``on_error="skip"``), in the order in which it was found.
        on_wait: called about once a second while no batch is there; may raise to leave.
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
    ) -> None:
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
        self._bounds = rank_batches(len(sampler), batch_size, rank=rank, num_ranks=num_ranks, even=sampler.shuffle)
        self.on_error = on_error
        self.max_skipped = max_skipped
        self.video_timeout = video_timeout
        self.position = 0
        self.bad: list[BadVideo] = []
        self.on_wait: Callable[[], None] | None = None
        self._first = 0                                     # the batch with which the next iteration begins
        self._never_again: dict[int, str] = {}              # index -> why: items that took a worker with them
        self._num_deaths: Counter[int] = Counter()          # index -> workers that died while they read it
        self._plan = _Plan()                                # the batches that torch's loader is to make
        self._board = torch.zeros(max(1, num_workers), 3, dtype=torch.float64)
        self._board.share_memory_()  # type: ignore[no-untyped-call]
        self._collate = CollateWhatIsThere(collate)
        self._torch_loader: DataLoader[Any] | None = None   # kept over the epochs with its workers
        self._is_done = True                                # whether its last iteration came to the end
        self._workers: list[multiprocessing.process.BaseProcess] = []

    def __len__(self) -> int:
        """Batches of an epoch, the ones that skipping may empty included."""
        return len(self._bounds)

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next iteration. One that was left in the middle goes on there (:meth:`load_state_dict`)."""
        if epoch != self.sampler.epoch:
            self._first = 0
        self.sampler.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is, for :meth:`load_state_dict` of a loader of the same videos."""
        return {"epoch": self.sampler.epoch, "position": self.position, "num_items": len(self.dataset),
                "bad": [asdict(video) for video in self.bad], "never_again": dict(self._never_again)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on at the position, as if there had been no interruption."""
        if state["num_items"] != len(self.dataset):
            raise ValueError(f"the run was made with {state['num_items']} videos, now there are {len(self.dataset)}; "
                             "a run resumes only with the videos that it began with")
        if not 0 <= state["position"] <= len(self):
            raise ValueError(f"position is {state['position']}; an epoch has {len(self)} batches")
        self.sampler.epoch = state["epoch"]
        self.position = self._first = state["position"]
        self.bad = [BadVideo(**video) for video in state["bad"]]
        self._never_again = dict(state["never_again"])

    def __iter__(self) -> Iterator[Any]:
        order = self.sampler.order()
        self.position, self._first = self._first, 0
        if self.position == 0:
            self.bad = []
            for index in self._lost_before(order):
                self._drop(BadVideo(index, self.dataset.filename(index), self._never_again[index]))
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
                    if batch is not None:
                        yield batch
            except LostWorkersError as lost:
                num_lost_in_a_row += 1
                self._after_loss(lost, num_lost_in_a_row)

    def _lost_before(self, order: IntArray) -> list[int]:
        """Items of this epoch and process that took a worker with them, in their order."""
        if not self._never_again:
            return []
        mine = np.concatenate([order[start:stop] for start, stop in self._bounds])
        return mine[np.isin(mine, list(self._never_again))].tolist()

    # ---- bad videos ------------------------------------------------------------------------------------------------

    def _fail(self, failure: "Failure") -> None:
        if self.on_error == "raise":
            raise failure.error
        filename = self.dataset.filename(failure.index) if failure.index >= 0 else ""
        reason = f"{failure.error}" or type(failure.error).__name__
        self._drop(BadVideo(failure.index, filename, reason.removeprefix(f"{filename}: ")))

    def _drop(self, video: BadVideo) -> None:
        self.bad.append(video)
        if len(self.bad) > self.max_skipped * len(self.sampler):
            raise ValueError(
                f"{len(self.bad)} of {len(self.sampler)} videos are bad; at most a share of {self.max_skipped:g} "
                "may be skipped (max_skipped):"
                + "".join(f"\n  {bad.filename}: {bad.reason}" for bad in self.bad[:20])
                + (f"\n  and {len(self.bad) - 20} more" if len(self.bad) > 20 else "")
            )

    # ---- lost workers ----------------------------------------------------------------------------------------------

    def _after_loss(self, lost: "LostWorkersError", num_in_a_row: int) -> None:
        """Raise, or mark what a worker was lost with, so that reading goes on without it."""
        for index, how, was_stuck in lost.items:
            if index < 0:
                continue
            filename = self.dataset.filename(index)
            reason = (f"not read within {self.video_timeout:g} s" if was_stuck
                      else f"the worker process that read it was {how}")
            if self.on_error == "raise":
                raise VideoError(filename, reason)
            self._num_deaths[index] += 1
            if was_stuck or self._num_deaths[index] > 1:  # what killed it from outside is not the file's fault
                self._never_again[index] = reason
                self._drop(BadVideo(index, filename, reason))
            logger.warning("%s: %s; %s", filename, reason,
                           "skipped" if index in self._never_again else "it is read once more")
        if all(index < 0 for index, _, _ in lost.items):
            how = ", ".join(sorted({how for _, how, _ in lost.items}))
            if num_in_a_row >= 3:
                raise ChildProcessError(f"worker processes are {how} again and again while they read no file; memory "
                                        "may be short: take fewer workers or smaller batches")
            logger.warning("a worker process was %s while it read no file; the workers are started anew", how)

    def _read(self, order: IntArray, bounds: IntArray) -> Iterator[tuple[Any, list["Failure"]]]:
        """(batch or None, failures) for each part of the order; raises LostWorkersError."""
        self._plan.epoch, self._plan.order, self._plan.bounds = self.sampler.epoch, order, bounds
        self._plan.left_out = set(self._never_again)
        results = self._start()
        self._is_done = False
        while True:
            try:
                result = next(results)
            except StopIteration:
                self._is_done = True
                return
            except (RuntimeError, OSError, EOFError) as error:  # an item's own errors came as failures
                if not self.num_workers or not self._look_after_workers(error):
                    raise
                if self.on_wait is not None:
                    self.on_wait()
                continue
            yield result

    def _start(self) -> Iterator[Any]:
        """An iterator of torch's loader over the plan; its workers are known afterwards."""
        if not self._is_done:  # left in the middle: its workers have batches of the old plan
            self.close()
        if self._torch_loader is None:
            self._torch_loader = DataLoader(
                Watched(self.dataset, self._board),
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
            self._board[:, INDEX] = -1
        before = set(multiprocessing.active_children())
        # torch's handler would raise a worker's death anywhere in this process, in the midst of an optimizer step.
        in_main_thread = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGCHLD) if in_main_thread and hasattr(signal, "SIGCHLD") else None
        try:
            results = iter(self._torch_loader)
        except RuntimeError:  # a worker of the last epoch is gone, or did not answer in time
            self.close()
            return self._start()
        if handler is not None:
            signal.signal(signal.SIGCHLD, handler)
        self._workers += [process for process in multiprocessing.active_children() if process not in before]
        return results

    def _look_after_workers(self, error: Exception) -> bool:
        """Whether the error only says that no batch was there yet. Raises LostWorkersError for others."""
        rows = {int(row[PID]): row for row in self._board.tolist()}
        now = time.monotonic()
        lost = []
        for process in self._workers:
            row = rows.get(process.pid or 0, [0.0, -1.0, now])
            if not process.is_alive():
                lost.append((int(row[INDEX]), how_it_ended(process.exitcode), False))
            elif row[INDEX] >= 0 and now - row[STARTED] > self.video_timeout:
                lost.append((int(row[INDEX]), "stopped", True))
        if lost:
            self.close()
            raise LostWorkersError(lost)
        return str(error).startswith("DataLoader timed out")

    def __repr__(self) -> str:
        return (f"VideoLoader({len(self)} batches of up to {self.batch_size} of {len(self.sampler)} videos, "
                f"{self.num_workers} workers)")

    def close(self) -> None:
        """End the workers at once; the next iteration starts new ones."""
        for process in self._workers:
            process.kill()
        self._workers = []
        self._torch_loader = None


class _Plan(Sampler[list[Key]]):
    """Lists of keys, made when they are asked for."""

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
