"""The batches of several processes, in rounds of one batch each: :class:`RoundLoader`.

    order of the epoch    0 1 2 3 4 5 6 7 8            batches of 2
    round                 0       1       2
    rank 0                0 1     4 5     8
    rank 1                2 3     6 7     (none)

The processes meet before each round. So they stop at the same batch, whichever of them gets the signal, and where one
cannot read its batch none of them trains on theirs.
"""

import signal
from collections.abc import Callable, Iterator
from typing import Any, Literal

from tinyaction.data.loader import BadVideo, VideoLoader
from tinyaction.training.distributed import gather_numbers, peers
from tinyaction.training.peers import PeerFailedError, TrainingInterrupted, is_launcher_gone
from tinyaction.video import VideoError


class _StopWaiting(Exception):  # noqa: N818  (not an error)
    """A signal came while this process waits for a batch."""


class RoundLoader:
    """The batches of this process; one process alone meets nobody, and stops on its own signals.

    Args:
        kind: "train" gives None for a batch without videos, so that all processes count the same rounds; "val" leaves
            it out.
        stop_signal: the number of a signal that came to this process, or 0.
        may_stop: whether a signal may stop training now; the same in all processes.
        all_or_none: leave out a round in which a process has no video, for batch norms that see all of a round.

    Iterating raises TrainingInterrupted after a signal, PeerFailedError where another process cannot read, and what
    ``loader`` raises.
    """

    def __init__(self, loader: VideoLoader, kind: Literal["train", "val"], *, stop_signal: Callable[[], int],
                 may_stop: Callable[[], bool] = lambda: True, all_or_none: bool = False) -> None:
        self.loader = loader
        self.kind = kind
        self.stop_signal = stop_signal
        self.may_stop = may_stop
        self.all_or_none = all_or_none
        self._position = 0  # rounds that were given, as the following
        self._num_bad = 0

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def bad(self) -> list[BadVideo]:
        return self.loader.bad

    @property
    def position(self) -> int:
        return self._position

    def set_epoch(self, epoch: int) -> None:
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """That of the loader, without the batch that it has read ahead."""
        return self.loader.state_at(self._position, self._num_bad)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)
        self._position, self._num_bad = self.loader.position, len(self.loader.bad)

    def __iter__(self) -> Iterator[Any]:
        self.loader.on_wait = self._on_wait
        rounds = self.loader.rounds()
        self._position = self.loader.position
        while self._position < len(self.loader):
            self._tell(f"{self.kind} batch {self._position + 1} of {len(self.loader)}, epoch "
                       f"{self.loader.sampler.epoch + 1}")
            batch, error = None, None
            try:
                batch = next(rounds)
            except _StopWaiting:
                pass
            except Exception as problem:  # the others hear of it
                error = problem
            if not self._meet(error, is_empty=batch is None) and self.all_or_none:
                batch = None
            if batch is not None:
                self._tell(f"{self.kind} batch {self._position + 1}, of " + ", ".join(
                    sample.filename for sample in batch["data_samples"]))
            self._position, self._num_bad = self._position + 1, len(self.loader.bad)
            if batch is not None or self.kind == "train":
                yield batch

    def _meet(self, error: Exception | None, *, is_empty: bool) -> bool:
        """Compare notes with the other processes, and end alike; returns whether all of them have a batch."""
        signum = self.stop_signal() or (signal.SIGTERM if is_launcher_gone() else 0)
        notes = gather_numbers(signum, error is not None, error is not None and not isinstance(error, VideoError),
                               is_empty, len(self.loader.bad))
        signals, failures, defects, empty, num_bad = zip(*notes, strict=True)
        if error is not None:
            raise error
        self.loader.check_skipped(int(sum(num_bad)))
        if any(failures):
            raise PeerFailedError("another process could not read its batch", may_save=not any(defects))
        if any(signals) and self.may_stop():
            raise TrainingInterrupted(int(max(signals)))
        return not any(empty)

    def _on_wait(self) -> None:
        self._tell(f"{self.loader.reading() or 'no file'}, for {self.kind} batch {self._position + 1}, epoch "
                   f"{self.loader.sampler.epoch + 1}")
        if self.stop_signal() and self.may_stop():
            raise _StopWaiting

    def _tell(self, where: str) -> None:
        others = peers()
        if others is not None:
            others.tell(where)


def share_step(
    batch_size: int, grad_accum: int, *, num_before: int, num_now: int, keep_rounds: bool = False
) -> tuple[int, int]:
    """Batch size and accumulation with which ``num_now`` processes make the steps that ``num_before`` made.

    Batches stay as they are where the processes can share them, and are cut where not. With ``keep_rounds`` a round
    keeps its videos instead, for batch norms that see all of it.

        2 processes, batches of 4, grad_accum = 2      a step is 4 batches of 4, in rounds of 8
            num_now = 1     4, 4      keep_rounds    8, 2
            num_now = 4     4, 1                     2, 2
            num_now = 8     2, 1                     1, 2
    """
    num_batches = num_before * grad_accum
    num_videos = num_batches * batch_size
    if keep_rounds and num_before * batch_size % num_now == 0:
        return num_before * batch_size // num_now, grad_accum
    if not keep_rounds and num_batches % num_now == 0:
        return batch_size, num_batches // num_now
    if not keep_rounds and num_videos % num_now == 0:
        each = num_videos // num_now
        accum = next(n for n in range(1, each + 1) if each % n == 0 and each // n <= batch_size)
        return each // accum, accum
    shared = num_before * batch_size if keep_rounds else num_videos
    possible = [str(n) for n in range(1, shared + 1) if shared % n == 0]
    raise ValueError(f"a step of this run is {num_videos} videos ({num_before} processes, {grad_accum} batches of "
                     f"{batch_size} each), which {num_now} processes cannot share alike; start "
                     f"{', '.join(possible[:8])} of them")
