"""What simpler models get on the same clips: what the file says, one frame, frames without order.

Each accuracy is of clips on which the model was not trained: the validation clips, or all clips once, in folds that
keep groups whole. Of a run it takes at most about a fifth of the time of one evaluation: see :func:`chosen_clips`.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tinyaction.data.dataset import VideoDataset, build_dataloader
from tinyaction.data.lists import VideoList
from tinyaction.models.recognizer import Recognizer
from tinyaction.results.evaluation import Evaluation
from tinyaction.results.shortcuts import (
    FULL,
    MAJORITY,
    MEAN,
    METADATA,
    MIDDLE,
    REVERSED,
    SHUFFLED,
    UPRIGHT,
    Shortcut,
)
from tinyaction.training.probe import Probe, ProbeData, choose_and_fit, fit_logistic, poolings_of, video_probabilities
from tinyaction.video import VideoError, open_video

FoldIds = Sequence[tuple[Sequence[int], Sequence[int]]]  # (places of training, places held out) of each fold
Change = Callable[[torch.Tensor], torch.Tensor]
Array = npt.NDArray[np.float64]

METADATA_STRENGTH = 1.0
NUM_FACTS, ORIENTATION = 6, 2  # of a row of clip_metadata, and the place of "upright or not" in it
TIME = 3  # the dimension of T in (B, V, C, T, H, W)
QUICK_SHARE = 25  # one of so many clips is shown four times more: less than a fifth of the time of all
LEAST_FILES = 40
LEAST_CLIPS = 20  # that can tell something of an accuracy
MOST_CLIPS = 1000  # that tell it to 3 %


def chosen_clips(num_clips: int, extent: str) -> list[int]:
    """Places of the clips that a network sees once more with other frames, evenly spread; none where too few.

    ``extent`` is "quick", "all" or "none", as the flag ``--shortcuts``.
    """
    num_chosen = {"none": 0, "quick": num_clips // QUICK_SHARE, "all": num_clips}[extent]
    if extent == "quick" and num_chosen < LEAST_CLIPS:
        return []
    return evenly(num_clips, num_chosen)


def evenly(num_clips: int, num_chosen: int) -> list[int]:
    """At most :data:`MOST_CLIPS` of them."""
    return np.linspace(0, num_clips - 1, min(num_chosen, num_clips, MOST_CLIPS)).round().astype(int).tolist()


# ---- without a picture ---------------------------------------------------------------------------------------------


def most_frequent(labels: npt.NDArray[np.int64]) -> int:
    """The label that most clips have; of several the lowest."""
    counts = Counter(labels[labels >= 0].tolist())
    return min(counts, key=lambda label: (-counts[label], label))


def majority(labels: npt.NDArray[np.int64], train: npt.NDArray[np.int64] | None = None) -> Shortcut:
    """Always the class that is the most frequent one in training; without training labels, in ``labels`` itself."""
    label = most_frequent(labels if train is None else train)
    return Shortcut(MAJORITY, int((labels == label).sum()), len(labels))


def from_metadata(name: str, facts: Array, labels: npt.NDArray[np.int64], folds: FoldIds) -> Shortcut:
    """A logistic regression of facts (N, F) of the files, without any picture."""
    x, y = torch.from_numpy(facts), torch.from_numpy(labels)
    K = int(labels.max()) + 1
    num_right, num_clips = 0, 0
    for train, held_out in folds:
        linear = fit_logistic(x[list(train)], y[list(train)], K, strength=METADATA_STRENGTH,
                              sample_weights=torch.ones(len(train)))
        num_right += int((linear.logits(x[list(held_out)]).argmax(dim=1) == y[list(held_out)]).sum())
        num_clips += len(held_out)
    return Shortcut(name, num_right, num_clips)


def clip_metadata(videos: VideoList, index: int) -> list[float]:
    """Width, height, upright or not, frame rate, seconds, bytes. Raises VideoError where the file cannot be read."""
    path = Path(videos[index][0])
    reader = open_video(path)
    height, width = next(iter(reader.read([0]))).shape[:2]
    seconds = float(reader.seconds[-1] - reader.seconds[0]) if len(reader) > 1 else 0.0
    if videos.starts is not None and videos.ends is not None:
        seconds = min(float(videos.ends[index]), seconds) - float(videos.starts[index])
    num_bytes = sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else os.path.getsize(path)
    return [width, height, float(height > width), reader.fps, seconds, num_bytes]


def facts_of(videos: VideoList, places: Sequence[int]) -> tuple[Array, list[int]]:
    """(N, F) :func:`clip_metadata` of the clips that can be read, and their places."""
    rows, readable = [], []
    for place in places:
        try:
            rows.append(clip_metadata(videos, place))
        except (VideoError, OSError):
            continue
        readable.append(place)
    return np.array(rows, np.float64).reshape(len(rows), NUM_FACTS), readable


def of_facts(facts: Array, labels: npt.NDArray[np.int64], folds: FoldIds) -> list[Shortcut]:
    """What orientation alone, and all facts (N, F), tell of the clips held out; nothing where none can be learned."""
    folds = [(train, held_out) for train, held_out in folds
             if len(held_out) and len(set(labels[list(train)].tolist())) > 1]
    if not folds:
        return []
    return [from_metadata(UPRIGHT, facts[:, [ORIENTATION]], labels, folds),
            from_metadata(METADATA, facts, labels, folds)]


def of_lists(train: VideoList, val: VideoList, *, extent: str = "all") -> list[Shortcut]:
    """The most frequent class, and what the files say: learned on training clips, as many as there are to test.

    "quick" opens a fifth of the files, but no fewer than :data:`LEAST_FILES`.
    """
    num_tested = len(val) if extent == "all" else max(len(val) // 5, LEAST_FILES)
    num_tested = min(num_tested, len(val), MOST_CLIPS)
    (learned, train_places), (tested, val_places) = (facts_of(videos, evenly(len(videos), num)) for videos, num in (
        (train, max(num_tested, LEAST_CLIPS)), (val, num_tested)))
    labels = np.concatenate([train.labels[train_places], val.labels[val_places]])
    fold = list(range(len(learned))), list(range(len(learned), len(labels)))
    return [majority(val.labels, train.labels), *of_facts(np.concatenate([learned, tested]), labels, [fold])]


def of_folds(videos: VideoList, folds: FoldIds) -> list[Shortcut]:
    """The same of clips that are held out in turn."""
    facts, places = facts_of(videos, evenly(len(videos), len(videos)))
    row = {place: number for number, place in enumerate(places)}
    known = [([row[one] for one in train if one in row], [row[one] for one in held_out if one in row])
             for train, held_out in folds]
    return [majority(videos.labels), *of_facts(facts, videos.labels[places], known)]


# ---- a network ------------------------------------------------------------------------------------------------------


def shuffled(frames: torch.Tensor, dim: int, rng: np.random.Generator) -> torch.Tensor:
    """The frames of clips (N, ...) in another order, drawn for each clip.

    One order for all would let a network be all right or all wrong: eight shuffled frames may still lean forwards.
    """
    orders = [torch.from_numpy(rng.permutation(frames.shape[dim])).to(frames.device) for _ in frames]
    return torch.stack([clip.index_select(dim - 1, order) for clip, order in zip(frames, orders, strict=True)])


def still(frames: torch.Tensor, dim: int) -> torch.Tensor:
    """The middle frame, as often as there are frames."""
    return frames.narrow(dim, frames.shape[dim] // 2, 1).expand_as(frames)


def mean_still(frames: torch.Tensor, dim: int) -> torch.Tensor:
    """The mean of the frames, as often as there are frames."""
    mean = frames.float().mean(dim=dim, keepdim=True)
    return (mean if frames.is_floating_point() else mean.round()).to(frames.dtype).expand_as(frames)


@torch.inference_mode()
def of_network(
    model: Recognizer, dataset: VideoDataset, evaluation: Evaluation, *, extent: str, num_workers: int = 0,
    batch_size: int = 8,
) -> list[Shortcut]:
    """The accuracy of a network on clips whose frames are changed, beside its own on the same clips.

    ``evaluation`` is what it says of the videos of ``dataset``, from which clips are chosen by ``extent``.
    """
    predicted = dict(zip(evaluation.filenames, evaluation.scores.argmax(axis=1).tolist(), strict=True))
    readable = [index for index in range(len(dataset)) if dataset.filename(index) in predicted]
    chosen = [readable[place] for place in chosen_clips(len(readable), extent)]
    if not chosen:
        return []
    rng = np.random.default_rng(0)
    changes: dict[str, Change] = {MIDDLE: lambda x: still(x, TIME), MEAN: lambda x: mean_still(x, TIME),
                                  SHUFFLED: lambda x: shuffled(x, TIME, rng), REVERSED: lambda x: x.flip(TIME)}
    part = VideoDataset(dataset.videos.subset(chosen), dataset.pipeline, test_mode=True)
    loader = build_dataloader(part, batch_size=batch_size, num_workers=num_workers)
    model.eval()
    device = next(model.parameters()).device
    num_right = dict.fromkeys([FULL, *changes], 0)
    for batch in loader:
        inputs = batch["inputs"].to(device)                            # (B, V, C, T, H, W)
        if inputs.shape[TIME] == 1:
            return []                                                  # one frame has no order
        labels = torch.cat([sample.label for sample in batch["data_samples"]])
        num_right[FULL] += sum(predicted[sample.filename] == int(sample.label) for sample in batch["data_samples"])
        for name, change in changes.items():
            scores = model.cls_head.video_scores(model(change(inputs), mode="logits"))  # (B, K)
            num_right[name] += int((scores.argmax(dim=1).cpu() == labels).sum())
    return [Shortcut(name, count, len(chosen)) for name, count in num_right.items()]


# ---- a probe --------------------------------------------------------------------------------------------------------


def of_probe(probe: Probe, data: ProbeData, tested: ProbeData) -> list[Shortcut]:
    """A probe of ``data`` on other clips: on its frames, changed ones, and probes of one frame and of their mean."""
    T = data.features.shape[2]
    if T == 1:
        return []

    def counted(name: str, scores: torch.Tensor) -> Shortcut:
        return Shortcut(name, int((scores.argmax(dim=1) == tested.labels).sum()), len(tested.labels))

    def of_changed(name: str, change: Change) -> Shortcut:
        rows = replace(tested, features=change(tested.features), pooled={}).rows(probe.pooling)
        return counted(name, video_probabilities(probe.linear, rows))

    def of_one(name: str, change: Change) -> Shortcut:
        learned, held_out = (replace(one, features=change(one.features), pooled={}) for one in (data, tested))
        own = choose_and_fit(learned, poolings_of("mean")[:1])
        return counted(name, video_probabilities(own.linear, held_out.rows(own.pooling)))

    return [of_changed(FULL, lambda x: x),
            of_one(MIDDLE, lambda x: x[:, :, T // 2 : T // 2 + 1]),
            of_one(MEAN, lambda x: x.float().mean(dim=2, keepdim=True)),
            of_changed(SHUFFLED, lambda x: shuffled(x, 2, np.random.default_rng(0))),
            of_changed(REVERSED, lambda x: x.flip(2))]


def summed(folds: Sequence[Sequence[Shortcut]]) -> list[Shortcut]:
    """The shortcuts of all folds as one list."""
    return [Shortcut(same[0].name, sum(one.num_right for one in same), sum(one.num_clips for one in same))
            for same in zip(*folds, strict=True)]


def out_of_fold(data: ProbeData, folds: FoldIds, pooling: str) -> tuple[Array, list[Shortcut]]:
    """(N, K) probabilities of each clip by a probe that was trained without it, and :func:`of_probe` of all clips.

    Nothing of simpler models where a clip may have several labels.
    """
    scores = torch.zeros(len(data.labels), data.num_classes, dtype=torch.float64)
    found = []
    for train, held_out in folds:
        learned, tested = data.subset(train), data.subset(held_out)
        probe = choose_and_fit(learned, poolings_of(pooling))
        scores[list(held_out)] = video_probabilities(probe.linear, tested.rows(probe.pooling))
        if data.labels.ndim == 1:
            found.append(of_probe(probe, learned, tested))
    return scores.numpy(), summed(found)
