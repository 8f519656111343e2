"""Results of an epoch, and :func:`evaluate`, which computes them for the videos of a loader.

Returns results, reports progress to a callback; knows no files and no flags, prints nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tinyaction.data.dataset import Batch
from tinyaction.data.loader import BadVideo
from tinyaction.models.recognizer import Recognizer, stack_labels
from tinyaction.results.metrics import confusion_matrix, mean_class_accuracy, top_k_accuracy
from tinyaction.results.multilabel import best_thresholds, mean_average_precision, mean_f1
from tinyaction.results.progress import OnBatch, StepTimer

Gather = Callable[[list[Any]], list[Any]]  # the results of this process -> those of all, in the order of one process


class Loader(Protocol):
    """What training and evaluation ask of a loader; :class:`tinyaction.data.loader.VideoLoader` is one."""

    def set_epoch(self, epoch: int) -> None: ...
    def __iter__(self) -> Iterator[Batch]: ...
    def __len__(self) -> int: ...


@dataclass
class TrainResult:
    """One epoch of training. ``data_seconds`` were spent waiting for the loader, ``compute_seconds`` the rest."""

    loss: float
    top1: float  # of several labels the share of videos whose set is right, with thresholds of 0.5
    num_videos: int
    data_seconds: float
    compute_seconds: float
    bad: list[BadVideo] = field(default_factory=list)  # videos that the loader skipped


@dataclass(repr=False)
class Evaluation:
    """Scores of every video of a loader, in the loader's order.

    Where a video may have several labels, they are (N, K), and ``thresholds`` (K,) are the scores from which a class
    is predicted. Then the figures are ``mean_ap``, ``f1`` and ``exact_match``; ``top1``, ``mean_class`` and
    ``confusion`` are those of one label.
    """

    loss: float
    scores: npt.NDArray[np.float64]  # (N, K)
    labels: npt.NDArray[np.int64]  # (N,) or (N, K)
    filenames: list[str]
    data_seconds: float
    compute_seconds: float
    bad: list[BadVideo] = field(default_factory=list)  # videos that the loader skipped; no figure counts them
    thresholds: npt.NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        if self.is_multi_label:
            return (f"Evaluation({len(self.labels)} videos, {self.num_classes} classes, loss {self.loss:.4f}, "
                    f"mAP {self.mean_ap:.4f}, F1 {self.f1:.4f})")
        return (f"Evaluation({len(self.labels)} videos, {self.num_classes} classes, loss {self.loss:.4f}, "
                f"top1 {self.top1:.4f}, mean_class {self.mean_class:.4f})")

    @property
    def num_classes(self) -> int:
        return self.scores.shape[1]

    @property
    def is_multi_label(self) -> bool:
        return self.labels.ndim == 2

    @property
    def selection_metric(self) -> float:
        """What the best epoch is chosen by: ``top1``, or ``mean_ap`` of several labels."""
        return self.mean_ap if self.is_multi_label else self.top1

    @property
    def mean_ap(self) -> float:
        return mean_average_precision(self.scores, self.labels)

    @property
    def predicted_sets(self) -> npt.NDArray[np.bool_]:
        """(N, K), True where the score of a class reaches its threshold."""
        assert self.thresholds is not None
        return self.scores >= self.thresholds

    @property
    def f1(self) -> float:
        """Mean over the classes that have positives."""
        return mean_f1(self.predicted_sets, self.labels)

    @property
    def exact_match(self) -> float:
        """Share of the videos of which all classes are predicted right."""
        return float((self.predicted_sets == self.labels.astype(bool)).all(axis=1).mean())

    @property
    def top1(self) -> float:
        return top_k_accuracy(self.scores, self.labels, (1,))[0]

    @property
    def top5(self) -> float | None:
        """None where there are five classes or fewer: it would be 1.0 even if every prediction were wrong."""
        return top_k_accuracy(self.scores, self.labels, (5,))[0] if self.num_classes > 5 else None

    @property
    def mean_class(self) -> float:
        return mean_class_accuracy(self.scores, self.labels)

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """(K, K) counts, row = true class, column = predicted class."""
        predicted = self.scores.argmax(axis=1)
        return confusion_matrix(predicted, self.labels, num_classes=self.num_classes).astype(np.int64)


@dataclass
class EpochRecord:
    """One line of a run's history; ``epoch`` counts from 0, ``lr`` is that of the epoch's last step."""

    epoch: int
    lr: float
    train: TrainResult
    val: Evaluation


def evaluate(
    model: Recognizer, loader: Loader, *, device: torch.device | None = None, on_batch: OnBatch | None = None,
    gather: Gather = list, thresholds: Sequence[float] | None = None,
) -> Evaluation:
    """Predict every video of the loader in evaluation mode; restore the mode of the model afterwards.

    Moves the model to ``device``, if one is given. Draws nothing at random, keeps nothing between calls.

    Args:
        gather: merges the results of several processes, each of which evaluates the batches dealt to it; see
            :func:`tinyaction.training.distributed.gather_in_order`. Every process returns the whole.
        thresholds: of several labels, (K,); default those that are best on these videos.

    Raises:
        ValueError: a label is not below the model's number of classes, a score is NaN, or what the loader raises.
    """
    total_loss, num_right, num_videos = 0.0, 0, 0
    predicted: list[tuple[float, torch.Tensor, torch.Tensor, list[str]]] = []  # loss, scores, labels, names of a batch
    timer = StepTimer(loader)
    device = device or next(model.parameters()).device
    model.to(device)  # outside inference mode: weights moved inside it cannot be trained afterwards
    with torch.inference_mode(), _evaluation_mode(model):
        for number, batch in enumerate(timer):
            inputs = batch["inputs"].to(device, non_blocking=True)     # (B, V, C, T, H, W) uint8
            labels = labels_of(batch, model.cls_head.num_classes)     # (B,)
            logits = model(inputs, mode="logits")                      # (B, V, K)
            scores = model.cls_head.video_scores(logits)               # (B, K)
            samples = model.cls_head.predict(logits, batch["data_samples"])
            scores = scores.cpu()
            _check_scores(scores, [sample.filename for sample in samples])
            loss = model.cls_head.loss(logits, labels.to(device)).item() * len(samples)
            predicted.append((loss, scores, labels, [sample.filename for sample in samples]))
            total_loss += loss
            num_right += count_right(scores, labels)
            num_videos += len(samples)
            if on_batch is not None:
                on_batch(timer.progress("val", number + 1, len(loader), total_loss, num_right, num_videos))
    predicted = gather(predicted)
    if not predicted:
        raise ValueError("the loader gave no batch; an accuracy needs at least one video")
    all_losses, all_scores, all_labels, all_filenames = zip(*predicted, strict=True)
    filenames = [name for names in all_filenames for name in names]
    result = Evaluation(sum(all_losses) / len(filenames), torch.cat(all_scores).double().numpy(),
                        torch.cat(all_labels).long().numpy(), filenames, timer.data_seconds, timer.compute_seconds,
                        gather(skipped_by(loader)))
    if result.is_multi_label:
        result.thresholds = best_thresholds(result.scores, result.labels) if thresholds is None else (
            np.asarray(thresholds, dtype=np.float64))
    return result


def count_right(scores: torch.Tensor, labels: torch.Tensor) -> int:
    """Videos whose label (B,) has the highest of the scores (B, K), or all of whose labels (B, K) are right at 0.5."""
    if labels.ndim == 2:
        return int(((scores >= 0.5) == labels.bool()).all(dim=1).sum())
    return int((scores.argmax(dim=1) == labels).sum())


def _check_scores(scores: torch.Tensor, filenames: list[str]) -> None:
    """Raise ValueError for the first video with a NaN score, which has no order."""
    for filename, is_nan in zip(filenames, scores.isnan().any(dim=1).tolist(), strict=True):
        if is_nan:
            raise ValueError(f"{filename or 'a video'}: the network's scores are NaN; its weights are not finite, or "
                             "overflow on this video: lower the learning rate, or use an earlier checkpoint")


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode; restore the mode of each part afterwards, also after an error (frozen parts differ)."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def skipped_by(loader: Loader) -> list[BadVideo]:
    """The videos that the loader of this process skipped; a plain list of batches skips none."""
    return list(getattr(loader, "bad", ()))


def labels_of(batch: Batch, num_classes: int) -> torch.Tensor:
    """(B,) int64, or of several labels (B, K); ValueError names the video whose label the model does not know."""
    labels = stack_labels(batch["data_samples"])
    if labels.ndim == 2:
        if labels.shape[1] != num_classes:
            raise ValueError(f"the videos have labels of {labels.shape[1]} classes; the model knows {num_classes}")
        return labels
    for sample, label in zip(batch["data_samples"], labels.tolist(), strict=True):
        if not 0 <= label < num_classes:
            raise ValueError(f"{sample.filename or 'a sample'}: the label {label} is out of range; the model knows "
                             f"{num_classes} classes, so 0 to {num_classes - 1}")
    return labels
