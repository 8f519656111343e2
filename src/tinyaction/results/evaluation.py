"""What came out of an epoch, and how it is found out for the videos of a loader: :func:`evaluate`.

Nothing here knows of files or flags, and nothing prints: results are returned, progress goes to a callback.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tinyaction.data.dataset import Batch
from tinyaction.data.loader import BadVideo
from tinyaction.distributed import dealt_back, share_state
from tinyaction.models.recognizer import Recognizer, stack_labels
from tinyaction.results.metrics import confusion_matrix, mean_class_accuracy, top_k_accuracy
from tinyaction.results.progress import OnBatch, WaitingClock


class Loader(Protocol):
    """What training and evaluation ask of a loader; :class:`tinyaction.data.dataset.VideoLoader` is one."""

    def set_epoch(self, epoch: int) -> None: ...
    def __iter__(self) -> Iterator[Batch]: ...
    def __len__(self) -> int: ...


@dataclass
class TrainResult:
    """One epoch of training. ``seconds_waiting`` were spent waiting for the loader, ``seconds_computing`` the rest."""

    loss: float
    top1: float
    num_videos: int
    seconds_waiting: float
    seconds_computing: float
    bad: list[BadVideo] = field(default_factory=list)  # videos that the loader skipped


@dataclass(repr=False)
class Evaluation:
    """What a recognizer said of every video of a loader, in the loader's order."""

    loss: float
    scores: npt.NDArray[np.float64]  # (N, K)
    labels: npt.NDArray[np.int64]  # (N,)
    filenames: list[str]
    seconds_waiting: float
    seconds_computing: float
    bad: list[BadVideo] = field(default_factory=list)  # videos that the loader skipped: no part of any figure

    def __repr__(self) -> str:
        return (f"Evaluation({len(self.labels)} videos, {self.num_classes} classes, loss {self.loss:.4f}, "
                f"top1 {self.top1:.4f}, mean_class {self.mean_class:.4f})")

    @property
    def num_classes(self) -> int:
        return self.scores.shape[1]

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
    model: Recognizer, loader: Loader, *, device: torch.device | None = None, on_batch: OnBatch | None = None
) -> Evaluation:
    """Predict every video of the loader, in evaluation mode; the model is put back into the mode it was in.

    The model is moved to ``device``; without one it stays where it is.
    Nothing is drawn at random, and nothing is kept from one call to the next.
    Several processes evaluate the batches that were dealt to them, with the weights of process 0, and each returns the
    whole, in the order of a single process.

    Raises:
        ValueError: a label is not below the model's number of classes, or what the loader raises.
    """
    total_loss, num_right, num_videos = 0.0, 0, 0
    predicted: list[tuple[float, torch.Tensor, torch.Tensor, list[str]]] = []  # loss, scores, labels, names of a batch
    waiting = WaitingClock(loader)
    device = device or next(model.parameters()).device
    model.to(device)  # not within inference mode: weights that are moved there could not be trained afterwards
    share_state(model)
    with torch.inference_mode(), _evaluation_mode(model):
        for number, batch in enumerate(waiting):
            inputs = batch["inputs"].to(device, non_blocking=True)     # (B, V, C, T, H, W) uint8
            labels = labels_of(batch, model.cls_head.num_classes)     # (B,)
            logits = model(inputs, mode="logits")                      # (B, V, K)
            scores = model.cls_head.video_scores(logits)               # (B, K)
            samples = model.cls_head.predict(logits, batch["data_samples"])
            loss = model.cls_head.loss(logits, labels.to(device)).item() * len(samples)
            predicted.append((loss, scores.cpu(), labels, [sample.filename for sample in samples]))
            total_loss += loss
            num_right += int((scores.argmax(dim=1).cpu() == labels).sum())
            num_videos += len(samples)
            if on_batch is not None:
                on_batch(waiting.progress("val", number + 1, len(loader), total_loss, num_right, num_videos))
    predicted = dealt_back(predicted)
    if not predicted:
        raise ValueError("the loader gave no batch; an accuracy needs at least one video")
    all_losses, all_scores, all_labels, all_filenames = zip(*predicted, strict=True)
    filenames = [name for names in all_filenames for name in names]
    return Evaluation(sum(all_losses) / len(filenames), torch.cat(all_scores).double().numpy(),
                      torch.cat(all_labels).numpy(), filenames, waiting.seconds_waiting, waiting.seconds_computing,
                      bad_of(loader))


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every part is put back into the mode it was in, also where the loader raises, and also a frozen one."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def bad_of(loader: Loader) -> list[BadVideo]:
    """The videos that the loaders of all processes skipped; a plain list of batches skips none."""
    return dealt_back(list(getattr(loader, "bad", ())))


def labels_of(batch: Batch, num_classes: int) -> torch.Tensor:
    """(B,) int64; ValueError names the video whose label the model does not know."""
    labels = stack_labels(batch["data_samples"])
    for sample, label in zip(batch["data_samples"], labels.tolist(), strict=True):
        if not 0 <= label < num_classes:
            raise ValueError(f"{sample.filename or 'a sample'}: the label {label} is out of range; the model knows "
                             f"{num_classes} classes, so 0 to {num_classes - 1}")
    return labels
