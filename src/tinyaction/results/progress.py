"""How far an epoch is, and whether it waits for the loader or computes."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Progress:
    """How far an epoch is, after a batch."""

    kind: str  # "train" or "val"
    batch: int  # batches done
    num_batches: int
    loss: float  # mean over the videos so far
    top1: float  # share right so far
    videos_per_second: float
    seconds_left: float


OnBatch = Callable[[Progress], None]


class StepTimer:
    """Iterate over a loader and measure two times: waiting for each batch, and what is done with it."""

    def __init__(self, loader: Iterable[Any], data_seconds: float = 0.0, compute_seconds: float = 0.0) -> None:
        self.loader = loader
        self.data_seconds = data_seconds
        self.compute_seconds = compute_seconds

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        asked = time.perf_counter()
        for batch in batches:
            given = time.perf_counter()
            self.data_seconds += given - asked
            self._given, self._computed_before = given, self.compute_seconds
            yield batch
            asked = time.perf_counter()
            self.compute_seconds = self._computed_before + asked - given
        self.data_seconds += time.perf_counter() - asked

    def progress(self, kind: str, batch: int, num_batches: int, total_loss: float, num_right: int,
                 num_videos: int) -> Progress:
        self.compute_seconds = self._computed_before + time.perf_counter() - self._given
        seconds = self.data_seconds + self.compute_seconds
        num = max(num_videos, 1)  # none so far where float16 overflowed in each batch
        return Progress(kind, batch, num_batches, total_loss / num, num_right / num, num_videos / seconds,
                        seconds / batch * (num_batches - batch))
