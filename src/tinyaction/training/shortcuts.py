"""What simpler models get on the same clips: what the file says, one frame, frames without order.

Each accuracy is of clips on which the model was not trained: all clips once, in folds that keep groups whole.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tinyaction.results.metrics import wilson_interval
from tinyaction.training.probe import ProbeData, choose_and_fit, fit_logistic, poolings_of, video_probabilities

FoldIds = Sequence[tuple[Sequence[int], Sequence[int]]]  # (places of training, places held out) of each fold
METADATA_STRENGTH = 1.0
ORIENTATION = 2  # its place in ClipFacts.metadata


@dataclass(frozen=True)
class Shortcut:
    """How many of ``num_clips`` a simpler model has right, and what it saw."""

    name: str
    num_right: int
    num_clips: int

    @property
    def accuracy(self) -> float:
        return self.num_right / self.num_clips

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.num_right, self.num_clips)


def majority(labels: npt.NDArray[np.int64]) -> Shortcut:
    """Always the most frequent class."""
    return Shortcut("the most frequent class", max(Counter(labels.tolist()).values()), len(labels))


def from_metadata(
    name: str, facts: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], folds: FoldIds
) -> Shortcut:
    """A logistic regression of facts (N, F) of the files, without any picture."""
    x, y = torch.from_numpy(facts), torch.from_numpy(labels)
    K = int(labels.max()) + 1
    num_right = 0
    for train, held_out in folds:
        linear = fit_logistic(x[list(train)], y[list(train)], K, strength=METADATA_STRENGTH,
                              sample_weights=torch.ones(len(train)))
        num_right += int((linear.logits(x[list(held_out)]).argmax(dim=1) == y[list(held_out)]).sum())
    return Shortcut(name, num_right, len(labels))


def out_of_fold(
    data: ProbeData, folds: FoldIds, pooling: str, *, change: Callable[[torch.Tensor], torch.Tensor] = lambda x: x
) -> npt.NDArray[np.float64]:
    """(N, K) probabilities of each clip by a probe that was trained without it.

    ``change`` is done to the features (N, V, T, F, h, w) of the clips that are held out, and not in training.
    """
    scores = torch.zeros(len(data.labels), data.num_classes, dtype=torch.float64)
    for train, held_out in folds:
        probe = choose_and_fit(data.subset(train), poolings_of(pooling))
        tested = data.subset(held_out)
        rows = ProbeData(change(tested.features), tested.labels, tested.num_classes).rows(probe.pooling)
        scores[list(held_out)] = video_probabilities(probe.linear, rows)
    return scores.numpy()


def of_frames(
    data: ProbeData, folds: FoldIds, pooling: str, scores: npt.NDArray[np.float64], *, seed: int = 0
) -> list[Shortcut]:
    """A probe of all frames (its ``scores`` are given), of one, of their mean; the first on frames out of order."""
    T = data.features.shape[2]
    shuffled = torch.from_numpy(np.random.default_rng(seed).permutation(T))
    labels = data.labels.numpy()

    def counted(name: str, found: npt.NDArray[np.float64]) -> Shortcut:
        return Shortcut(name, int((found.argmax(axis=1) == labels).sum()), len(labels))

    def of(features: torch.Tensor) -> npt.NDArray[np.float64]:
        return out_of_fold(ProbeData(features, data.labels, data.num_classes, data.groups), folds, "mean")

    return [counted("all frames", scores),
            counted("one middle frame", of(data.features[:, :, T // 2 : T // 2 + 1])),
            counted("the mean of the frames", of(data.features.mean(dim=2, keepdim=True))),
            counted("frames shuffled", out_of_fold(data, folds, pooling, change=lambda x: x[:, :, shuffled])),
            counted("frames reversed", out_of_fold(data, folds, pooling, change=lambda x: x.flip(2)))]


def shortcut_sentences(shortcuts: Sequence[Shortcut]) -> list[str]:
    """One sentence each where a simpler model does what a network is praised for."""
    by_name = {one.name: one for one in shortcuts}
    least, full = by_name["the most frequent class"], by_name.get("all frames")
    sentences = []
    for name, what in (("orientation", "orientation"), ("what the file says", "what the file says, no picture,")):
        one = by_name.get(name)
        if one is not None and one.interval[0] > least.accuracy + 0.1:
            sentences.append(f"{what} alone gives {one.accuracy:.2f} (most frequent class {least.accuracy:.2f}): the "
                             "way the clips were made, not the action, may be what is learnt")
            break
    if full is None:
        return sentences
    single, shuffled = by_name["one middle frame"], by_name["frames shuffled"]
    if single.accuracy >= full.accuracy - 0.02 and full.accuracy > least.accuracy + 0.1:
        sentences.append(f"one frame gives {single.accuracy:.2f}, all of them {full.accuracy:.2f}: motion is not what "
                         "tells these classes apart")
    elif shuffled.accuracy >= full.accuracy - 0.02 and full.accuracy > least.accuracy + 0.1:
        sentences.append(f"shuffled frames give {shuffled.accuracy:.2f}, ordered ones {full.accuracy:.2f}: this probe "
                         "does not use the order of frames")
    return sentences
