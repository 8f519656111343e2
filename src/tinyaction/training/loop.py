"""The loop, by hand: :func:`train_one_epoch`, :func:`evaluate`, :func:`fit`.

Nothing here knows of files or flags, and nothing prints: results are returned, progress goes to a callback.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from tinyaction.data.dataset import Batch
from tinyaction.data.loader import BadVideo
from tinyaction.distributed import dealt_back, from_first, share_state, summed
from tinyaction.models.recognizer import Recognizer, stack_labels
from tinyaction.results.metrics import confusion_matrix, mean_class_accuracy, top_k_accuracy
from tinyaction.training.finetune import Objective, averaged_model, parameter_groups, train_mode


class Loader(Protocol):
    """What the loop asks of a loader; :class:`tinyaction.data.dataset.VideoLoader` is one."""

    def set_epoch(self, epoch: int) -> None: ...
    def __iter__(self) -> Iterator[Batch]: ...
    def __len__(self) -> int: ...


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


@dataclass
class TrainState:
    """Where training is, after a step. With the states of model, optimizer, loader and random generators it is all
    that a run needs to go on as if it had not stopped.
    """

    epoch: int = 0
    step: int = 0  # optimizer steps since the beginning
    num_batches: int = 0  # of this epoch so far, like the sums that follow
    total_loss: float = 0.0
    num_right: int = 0
    num_videos: int = 0
    num_pending: int = 0  # videos whose gradients wait for the next step; nothing can be saved until it is 0 again
    seconds_waiting: float = 0.0
    seconds_computing: float = 0.0

    def add_batch(self, loss: float, num_right: int, num_videos: int) -> None:
        """``loss`` is the sum over the videos."""
        self.num_batches += 1
        self.total_loss += loss
        self.num_right += num_right
        self.num_videos += num_videos
        self.num_pending += num_videos

    def begin_next_epoch(self) -> None:
        vars(self).update(vars(TrainState(self.epoch + 1, self.step)))


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


OnBatch = Callable[[Progress], None]
OnStep = Callable[[TrainState], None]
LearningRateAt = Callable[[int], float]  # optimizer step, from 0 -> learning rate


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises:
        ValueError: there is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} is not usable here ({reason}); try auto or cpu") from None
    return device


def create_optimizer(
    name: str, model: nn.Module, *, lr: float, weight_decay: float = 0.0, head_lr: float = 1.0
) -> torch.optim.Optimizer:
    """"sgd" (momentum 0.9), "adam" or "adamw" over the model's :func:`tinyaction.training.finetune.parameter_groups`.

    ``lr`` is the backbone's; the head's is ``head_lr`` times that.
    """
    parameters = parameter_groups(model, weight_decay=weight_decay, head_lr=head_lr)
    for group in parameters:
        group["lr"] = lr * group["lr_scale"]
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    raise ValueError(f"optimizer {name!r} is not known; it must be sgd, adam or adamw")


def num_steps(num_batches: int, grad_accum: int) -> int:
    """Steps of an epoch; the last one may be made of fewer batches."""
    return math.ceil(num_batches / grad_accum)


def choose_amp(name: str, device: torch.device, model: Recognizer, inputs: torch.Tensor) -> torch.dtype | None:
    """The number format for a name: "off", "bf16", "fp16", or "auto".

    "auto" is bfloat16 on a CUDA device that has it, else float16 there; on a CPU bfloat16 where ``model`` runs at
    least a tenth faster with it on ``inputs`` (B, V, C, T, H, W), which is measured now; elsewhere float32.

    Raises:
        ValueError: the device does not compute in that format.
    """
    formats = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name not in ("auto", *formats):
        raise ValueError(f"amp {name!r} is not known; it must be off, auto, bf16 or fp16")
    if name == "fp16" and device.type != "cuda" or name == "bf16" and device.type not in ("cuda", "cpu"):
        raise ValueError(f"--amp {name} does not go with device {device.type}; take --amp auto or --amp off")
    if name != "auto":
        return formats[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu":
        gain = min(_seconds_of(model, inputs, None) / _seconds_of(model, inputs, torch.bfloat16) for _ in range(2))
        return torch.bfloat16 if from_first(gain) > 1.1 else None
    return None


def _seconds_of(model: Recognizer, inputs: torch.Tensor, amp: torch.dtype | None) -> float:
    """Seconds of one forward and backward pass, the second of two; weights and statistics are left as they were."""
    state = copy.deepcopy(model.state_dict())
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(inputs.device.type, dtype=amp, enabled=amp is not None):
            loss = model(inputs, mode="logits").float().square().mean()
        loss.backward()
        seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    model.load_state_dict(state)
    return seconds


def create_scaler(amp: torch.dtype | None) -> torch.amp.GradScaler | None:
    """A scaler of the loss for float16, which needs one; None for other formats."""
    return torch.amp.GradScaler() if amp == torch.float16 else None


def train_one_epoch(
    model: Recognizer,
    loader: Loader,
    optimizer: torch.optim.Optimizer,
    *,
    device: torch.device,
    lr_at: LearningRateAt | None = None,
    state: TrainState | None = None,
    clip_grad_norm: float = 0.0,
    grad_accum: int = 1,
    amp: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
    parallel: DistributedDataParallel | None = None,
    objective: Objective | None = None,
    average: AveragedModel | None = None,
    on_batch: OnBatch | None = None,
    on_step: OnStep | None = None,
) -> TrainResult:
    """Go once over the loader and update the model after each batch, or after every ``grad_accum`` batches.

    Args:
        model: is moved to ``device``.
        lr_at: learning rate of an optimizer step; None leaves the optimizer's own.
        state: where training is, kept up to date after each step; in the middle of an epoch the loader gives the rest.
        clip_grad_norm: largest norm of all gradients together; 0 clips nothing.
        grad_accum: batches whose gradients make one step: that of a batch so many times larger (but for batch norms).
        amp: bfloat16 or float16, in which the network computes where that is safe; None computes in float32.
        scaler: for float16, whose small gradients would become 0; see :func:`create_scaler`.
        parallel: the model wrapped for several processes; the result is then that of all of them together.
        objective: label smoothing, class weights, mixup; None is the plain cross-entropy. With mixup the accuracy is
            that on mixed videos, against the label of the larger share.
        average: is updated after each step; see :func:`tinyaction.training.finetune.create_average`.
        on_batch: called after each batch.
        on_step: called after each step, when all of it is done: to save, or to leave by raising.

    Raises:
        ValueError: a loss is not finite (step and files are named), a label is not below the model's number of
            classes, or what the loader raises.
    """
    train_mode(model.to(device))
    forward = model if parallel is None else parallel
    state = TrainState() if state is None else state

    def update() -> None:
        if scaler is not None:
            scaler.unscale_(optimizer)
        if grad_accum > 1:                                             # gradients of sums become those of the mean
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad /= state.num_pending
        if clip_grad_norm:
            nn.utils.clip_grad_norm_(model.parameters(), clip_grad_norm)
        if scaler is not None:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state.step, state.num_pending = state.step + 1, 0
        if average is not None:
            average.update_parameters(model)

    optimizer.zero_grad(set_to_none=True)
    waiting = WaitingClock(loader, state.seconds_waiting, state.seconds_computing)
    with nullcontext() if parallel is None else Join([parallel]):      # processes may have unequally many batches
        for batch in waiting:
            if lr_at is not None:
                for group in optimizer.param_groups:
                    group["lr"] = lr_at(state.step) * group.get("lr_scale", 1.0)
            inputs = batch["inputs"].to(device, non_blocking=True)     # (B, V, C, T, H, W) uint8
            labels = _labels_of(batch, model.cls_head.num_classes).to(device, non_blocking=True)  # (B,)
            B = len(labels)
            if objective is not None:
                inputs, targets = objective.mix(inputs, labels, num_classes=model.cls_head.num_classes,
                                                step=state.step, num_before=state.num_pending)
            with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
                logits = forward(inputs, mode="logits")                # (B, V, K)
                loss = (model.cls_head.loss(logits, labels) if objective is None
                        else objective.loss(logits, targets))
            if not math.isfinite(loss.item()):                         # before the weights take harm
                files = ", ".join(sample.filename for sample in batch["data_samples"])
                raise ValueError(f"the loss of step {state.step} is {loss.item()}; lower the learning rate, or look "
                                 f"at the videos of that batch: {files}")
            total = loss * B if grad_accum > 1 else loss
            (total if scaler is None else scaler.scale(total)).backward()  # type: ignore[no-untyped-call]
            state.add_batch(loss.item() * B, int((logits.mean(dim=1).argmax(dim=1) == labels).sum()), B)
            is_step = state.num_batches % grad_accum == 0
            if is_step:
                update()
            progress = waiting.progress("train", state.num_batches, len(loader), state.total_loss, state.num_right,
                                        state.num_videos)
            state.seconds_waiting, state.seconds_computing = waiting.seconds_waiting, waiting.seconds_computing
            if on_batch is not None:
                on_batch(progress)
            if is_step and on_step is not None:
                on_step(state)
        if state.num_pending:
            update()
            if on_step is not None:
                on_step(state)
    total_loss, num_right, num_videos = summed(state.total_loss, state.num_right, state.num_videos)
    if num_videos == 0:
        raise ValueError("the loader gave no batch; an epoch needs at least one video")
    return TrainResult(total_loss / num_videos, num_right / num_videos, int(num_videos),
                       waiting.seconds_waiting, waiting.seconds_computing, bad_of(loader))


def evaluate(
    model: Recognizer, loader: Loader, *, device: torch.device, on_batch: OnBatch | None = None
) -> Evaluation:
    """Predict every video of the loader, in evaluation mode; the model is put back into the mode it was in.

    The model is moved to ``device``. Nothing is drawn at random, and nothing is kept from one call to the next.
    Several processes evaluate the batches that were dealt to them, with the weights of process 0, and each returns the
    whole, in the order of a single process.

    Raises:
        ValueError: a label is not below the model's number of classes, or what the loader raises.
    """
    total_loss, num_right, num_videos = 0.0, 0, 0
    predicted: list[tuple[float, torch.Tensor, torch.Tensor, list[str]]] = []  # loss, scores, labels, names of a batch
    waiting = WaitingClock(loader)
    model.to(device)  # not within inference mode: weights that are moved there could not be trained afterwards
    share_state(model)
    with torch.inference_mode(), _evaluation_mode(model):
        for number, batch in enumerate(waiting):
            inputs = batch["inputs"].to(device, non_blocking=True)     # (B, V, C, T, H, W) uint8
            labels = _labels_of(batch, model.cls_head.num_classes)     # (B,)
            logits = model(inputs, mode="logits")                      # (B, V, K)
            samples = model.cls_head.predict(logits, batch["data_samples"])
            scores = torch.stack([sample.pred_score for sample in samples if sample.pred_score is not None])
            if scores.ndim == 3:                                       # average_clips=None keeps the views apart
                scores = scores.mean(dim=1)                            # (B, K)
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


def fit(
    model: Recognizer,
    train_loader: Loader,
    val_loader: Loader,
    optimizer: torch.optim.Optimizer,
    *,
    num_epochs: int,
    device: torch.device,
    lr_at: LearningRateAt | None = None,
    state: TrainState | None = None,
    clip_grad_norm: float = 0.0,
    grad_accum: int = 1,
    amp: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
    parallel: DistributedDataParallel | None = None,
    objective: Objective | None = None,
    average: AveragedModel | None = None,
    on_batch: OnBatch | None = None,
    on_step: OnStep | None = None,
    on_epoch: Callable[[EpochRecord], bool | None] | None = None,
) -> list[EpochRecord]:
    """Train and evaluate until ``num_epochs`` are done; arguments as in :func:`train_one_epoch`.

    Where there is an ``average`` of the weights, it is what is evaluated.
    ``on_epoch`` is called with each record: to save, to print; what it returns is whether this was the last epoch.
    ``state`` is where to begin, and is kept up to date; when ``on_epoch`` is called it stands at the next epoch.
    """
    history = []
    state = TrainState() if state is None else state
    for epoch in range(state.epoch, num_epochs):
        train_loader.set_epoch(epoch)
        train = train_one_epoch(model, train_loader, optimizer, device=device, lr_at=lr_at,
                                state=state, clip_grad_norm=clip_grad_norm, grad_accum=grad_accum, amp=amp,
                                scaler=scaler, parallel=parallel, objective=objective, average=average,
                                on_batch=on_batch, on_step=on_step)
        val = evaluate(model if average is None else averaged_model(average), val_loader, device=device,
                       on_batch=on_batch)
        group = optimizer.param_groups[0]
        record = EpochRecord(epoch, group["lr"] / group.get("lr_scale", 1.0), train, val)
        history.append(record)
        state.begin_next_epoch()
        if on_epoch is not None and on_epoch(record):
            break
    return history


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


def _labels_of(batch: Batch, num_classes: int) -> torch.Tensor:
    """(B,) int64; ValueError names the video whose label the model does not know."""
    labels = stack_labels(batch["data_samples"])
    for sample, label in zip(batch["data_samples"], labels.tolist(), strict=True):
        if not 0 <= label < num_classes:
            raise ValueError(f"{sample.filename or 'a sample'}: the label {label} is out of range; the model knows "
                             f"{num_classes} classes, so 0 to {num_classes - 1}")
    return labels


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
