"""The loop, by hand: :func:`train_one_epoch`, :func:`fit`.

Nothing here knows of files or flags, and nothing prints: results are returned, progress goes to a callback.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from tinyaction.distributed import summed
from tinyaction.models.recognizer import Recognizer
from tinyaction.results.evaluation import EpochRecord, Loader, TrainResult, bad_of, evaluate, labels_of
from tinyaction.results.progress import OnBatch, WaitingClock
from tinyaction.training.finetune import Objective, averaged_model, parameter_groups, train_mode


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


OnStep = Callable[[TrainState], None]
LearningRateAt = Callable[[int], float]  # optimizer step, from 0 -> learning rate


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
            labels = labels_of(batch, model.cls_head.num_classes).to(device, non_blocking=True)  # (B,)
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
            predicted = model.cls_head.video_scores(logits.detach()).argmax(dim=1)  # (B,)
            state.add_batch(loss.item() * B, int((predicted == labels).sum()), B)
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
