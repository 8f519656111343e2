"""The order of an epoch: :class:`EpochSampler`, and its batches in each of several processes: :func:`rank_batches`."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from tinyaction.data.workers import Key

IntArray = npt.NDArray[np.int64]


class EpochSampler(Sampler[Key]):
    """Keys (epoch, index) of one epoch, in an order drawn from (seed, epoch); set ``epoch`` before each.

    With ``labels`` every label comes equally often, in an epoch of the same length: items of rare labels repeat,
    items of frequent ones take turns over the epochs.
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
        """Indices of the items in the order of the epoch, as an array: a list of a million keys takes 150 MB."""
        rng = np.random.RandomState([self.seed, self.epoch])
        order = np.arange(self.num_items) if self.labels is None else self._balanced(self.labels, rng)
        if self.shuffle:
            rng.shuffle(order)
        return order

    def _balanced(self, labels: IntArray, rng: np.random.RandomState) -> IntArray:
        present = rng.permutation(np.unique(labels))  # the last ones come once more where the division has a rest
        parts = []
        for number, label in enumerate(present):
            items = rng.permutation(np.flatnonzero(labels == label))
            parts.append(np.resize(items, (self.num_items + number) // len(present)))  # repeats, or cuts
        return np.concatenate(parts)

    def __iter__(self) -> Iterator[Key]:
        return ((self.epoch, int(index)) for index in self.order())


def rank_batches(num_items: int, batch_size: int, *, rank: int, num_ranks: int, even: bool) -> IntArray:
    """(start, stop) of each batch of one of ``num_ranks`` processes, in the order of the epoch.

    Every item is in exactly one batch of one process, and every process has equally many batches.

        num_items = 9, batch_size = 2, num_ranks = 2
            even = False    rank 0: 01 45 8     rank 1: 23 67 -       (the batches of a single process, in turn)
            even = True     rank 0: 01 45       rank 1: 23 678        (no batch is empty)
        num_items = 11
            even = False    rank 0: 01 45 89    rank 1: 23 67 a
    """
    if even:
        return _even_batches(num_items, batch_size, rank=rank, num_ranks=num_ranks)
    num_rounds = -(-num_items // (batch_size * num_ranks))
    starts = batch_size * (np.arange(num_rounds) * num_ranks + rank)
    return np.minimum(np.stack([starts, starts + batch_size], axis=1), num_items)  # (rounds, 2)


def _even_batches(num_items: int, batch_size: int, *, rank: int, num_ranks: int) -> IntArray:
    if num_items < num_ranks:
        raise ValueError(f"{num_items} training videos are too few for {num_ranks} processes")
    per_round = batch_size * num_ranks
    num_full = (num_items - num_ranks) // per_round  # rounds before the last, which has num_ranks items or more
    last = num_full * per_round + np.linspace(0, num_items - num_full * per_round, num_ranks + 1).round().astype(int)
    starts = per_round * np.arange(num_full) + batch_size * rank
    return np.concatenate([np.stack([starts, starts + batch_size], axis=1), [last[rank : rank + 2]]])
