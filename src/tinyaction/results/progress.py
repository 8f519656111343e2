"""Where an epoch is, and whether it waits for the loader or computes."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Progress:
    """Where an epoch is, after a batch."""

    kind: str  # "train" or "val"
    batch: int  # batches done
    num_batches: int
    loss: float  # mean over the videos so far
    top1: float  # share right so far
    videos_per_second: float
    seconds_left: float


OnBatch = Callable[[Progress], None]


class WaitingClock:
    """Goes over a loader with two clocks: the time until a batch is there, and the time until the next is asked."""

    def __init__(self, loader: Iterable[Any], seconds_waiting: float = 0.0, seconds_computing: float = 0.0) -> None:
        self.loader = loader
        self.seconds_waiting = seconds_waiting
        self.seconds_computing = seconds_computing

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        asked = time.perf_counter()
        for batch in batches:
            given = time.perf_counter()
            self.seconds_waiting += given - asked
            self._given, self._computed_before = given, self.seconds_computing
            yield batch
            asked = time.perf_counter()
            self.seconds_computing = self._computed_before + asked - given
        self.seconds_waiting += time.perf_counter() - asked

    def progress(self, kind: str, batch: int, num_batches: int, total_loss: float, num_right: int,
                 num_videos: int) -> Progress:
        self.seconds_computing = self._computed_before + time.perf_counter() - self._given
        seconds = self.seconds_waiting + self.seconds_computing
        return Progress(kind, batch, num_batches, total_loss / num_videos, num_right / num_videos,
                        num_videos / seconds, seconds / batch * (num_batches - batch))
