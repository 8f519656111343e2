"""The training loop: :func:`train_one_epoch`, :func:`fit`.

Returns results and reports progress to callbacks; reads no files and no flags, prints nothing. Around it:

    updater.py              one optimizer step; sets its learning rate by ``lr_at(step)``
    schedule.py             ``lr_at`` of a run: warm-up, then a cosine
    finetune.py             the loss with label smoothing, class weights, mixup; frozen layers
    run.py                  one run: log, metrics.csv, best epoch, report
    resume.py               saves checkpoints after steps and epochs; resumes from them
    models/checkpoint.py    contents of a checkpoint
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tinyaction.data.dataset import Batch
from tinyaction.models.recognizer import Recognizer
from tinyaction.results.evaluation import EpochRecord, Loader, TrainResult, evaluate, labels_of, skipped_by
from tinyaction.results.progress import OnBatch, StepTimer
from tinyaction.training.distributed import all_reduce_sum, broadcast_state, gather_in_order, num_processes, rank
from tinyaction.training.finetune import Criterion, averaged_model, train_mode
from tinyaction.training.updater import Updater

logger = logging.getLogger(__name__)

MAX_OVERFLOWS = 20  # batches in a row whose float16 loss is not finite, after which training ends


@dataclass
class TrainState:
    """Position of training. Resuming also needs the states of model, optimizer, loader and random generators."""

    epoch: int = 0
    step: int = 0  # optimizer steps since the beginning
    num_batches: int = 0  # in this epoch so far, as are the sums below
    total_loss: float = 0.0
    num_right: int = 0
    num_videos: int = 0
    num_pending: int = 0  # videos whose gradients are accumulated, not yet applied; save only at 0
    num_overflows: int = 0  # batches in a row whose float16 loss was not finite
    data_seconds: float = 0.0
    compute_seconds: float = 0.0

    def add_videos(self, loss_sum: float, num_right: int, num_videos: int) -> None:
        self.total_loss += loss_sum
        self.num_right += num_right
        self.num_videos += num_videos

    def begin_next_epoch(self) -> None:
        vars(self).update(vars(TrainState(self.epoch + 1, self.step)))


@dataclass
class Callbacks:
    """Functions that the loop calls.

    Attributes:
        on_batch: after each batch of training and evaluation.
        on_step: after each optimizer step; may save, or raise to end training.
        on_epoch: after each epoch; returns True to end training.
    """

    on_batch: OnBatch | None = None
    on_step: Callable[[TrainState], None] | None = None
    on_epoch: Callable[[EpochRecord], bool | None] | None = None


def train_one_epoch(
    model: Recognizer,
    loader: Loader,
    updater: Updater,
    *,
    device: torch.device,
    criterion: Criterion | None = None,
    seed: int | None = None,
    state: TrainState | None = None,
    callbacks: Callbacks | None = None,
) -> TrainResult:
    """Train on every batch of the loader; update the model after every ``updater.grad_accum`` batches.

    Args:
        model: moved to ``device``.
        criterion: label smoothing, class weights, mixup; None: plain cross-entropy. With mixup, accuracy is that
            of the mixed videos against the label with the larger share.
        seed: of dropout, drawn for each batch alike whatever the number of processes; None: torch's global state.
        state: position to start from, updated in place. Within an epoch, the loader must give the remaining batches.

    With several processes, each trains on its own batches and returns the result over all. A loader gives None for a
    batch without videos, so that all processes make their steps after the same batches.

    Raises:
        ValueError: a loss is not finite (names step and files), or a label is not below the number of classes.
    """
    state, callbacks = state or TrainState(), callbacks or Callbacks()
    train_mode(model.to(device))
    updater.optimizer.zero_grad(set_to_none=True)
    timer = StepTimer(loader, state.data_seconds, state.compute_seconds)
    for batch in timer:
        if batch is not None:
            train_one_batch(model, batch, updater, device=device, criterion=criterion, seed=seed, state=state)
        state.num_batches += 1
        is_step = state.num_batches % updater.grad_accum == 0
        if is_step:
            make_step(model, updater, state)
        progress = timer.progress("train", state.num_batches, len(loader), state.total_loss, state.num_right,
                                  state.num_videos)
        state.data_seconds, state.compute_seconds = timer.data_seconds, timer.compute_seconds
        if callbacks.on_batch is not None:
            callbacks.on_batch(progress)
        if is_step and callbacks.on_step is not None:
            callbacks.on_step(state)
    while make_step(model, updater, state):  # the remaining batches, of this or another process
        if callbacks.on_step is not None:
            callbacks.on_step(state)
    total_loss, num_right, num_videos = all_reduce_sum(state.total_loss, state.num_right, state.num_videos)
    if num_videos == 0:
        raise ValueError("no batch of the epoch had a finite loss; lower the learning rate, or train in float32"
                         if state.num_batches else "the loader gave no batch; an epoch needs at least one video")
    return TrainResult(total_loss / num_videos, num_right / num_videos, int(num_videos),
                       timer.data_seconds, timer.compute_seconds, gather_in_order(skipped_by(loader)))


def train_one_batch(
    model: Recognizer, batch: Batch, updater: Updater, *, device: torch.device, criterion: Criterion | None,
    seed: int | None, state: TrainState,
) -> None:
    """Accumulate the gradients of a batch in the model, its loss and accuracy in ``state``."""
    inputs = batch["inputs"].to(device, non_blocking=True)             # (B, V, C, T, H, W) uint8
    labels = labels_of(batch, model.cls_head.num_classes).to(device, non_blocking=True)  # (B,)
    B = len(labels)
    number = state.num_batches * num_processes() + rank()              # of the batch in the epoch, of all processes
    if seed is not None:
        torch.manual_seed(int(np.random.SeedSequence([seed, state.epoch, number]).generate_state(1, np.uint64)[0]))
    if criterion is not None:
        inputs, targets = criterion.mix(inputs, labels, num_classes=model.cls_head.num_classes, epoch=state.epoch,
                                        batch=number)
    buffers = [buffer.clone() for buffer in model.buffers()] if updater.scaler is not None else []
    with torch.autocast(device.type, dtype=updater.amp, enabled=updater.amp is not None):
        logits = model(inputs, mode="logits")                          # (B, V, K)
        loss = model.cls_head.loss(logits, labels) if criterion is None else criterion.loss(logits, targets)
    is_finite = math.isfinite(loss.item())
    if not is_finite:
        count_overflow(loss.item(), batch, updater, state)
    updater.backward(loss * B)                                         # the scaler skips steps that are not finite
    state.num_pending += B
    if is_finite:
        predicted = model.cls_head.video_scores(logits.detach()).argmax(dim=1)  # (B,)
        num_right = int((predicted == labels).sum())
        state.add_videos(loss.item() * B, num_right, B)
    else:
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)                                       # undo the overflow in batch norms


def count_overflow(loss: float, batch: Batch, updater: Updater, state: TrainState) -> None:
    """Raise ValueError for a loss that is not finite; under float16 tolerate a few in a row with a warning."""
    state.num_overflows += 1
    files = ", ".join(sample.filename for sample in batch["data_samples"])
    if updater.scaler is not None and state.num_overflows <= MAX_OVERFLOWS:
        logger.warning("step %d is skipped: its loss is not finite in float16 (%s)", state.step, files)
        return
    advice = "lower the learning rate, " + ("" if updater.scaler is None else "compute in bf16 or float32, ")
    raise ValueError(f"the loss of step {state.step} is {loss}; {advice}or look at the videos of that batch: {files}")


def make_step(model: Recognizer, updater: Updater, state: TrainState) -> bool:
    """Update the weights; return False if no process has gradients."""
    if not updater.step(model, state.step, state.num_pending):
        return False
    state.step, state.num_pending = state.step + 1, 0
    return True


def fit(
    model: Recognizer,
    train_loader: Loader,
    val_loader: Loader,
    updater: Updater,
    *,
    num_epochs: int,
    device: torch.device,
    criterion: Criterion | None = None,
    seed: int | None = None,
    state: TrainState | None = None,
    callbacks: Callbacks | None = None,
) -> list[EpochRecord]:
    """Train and evaluate for epochs ``state.epoch`` to ``num_epochs - 1``; arguments as in :func:`train_one_epoch`.

    Evaluates ``updater.average`` instead of the model if there is one. ``state`` points at the next epoch when
    ``callbacks.on_epoch`` is called.
    """
    history = []
    state, callbacks = state or TrainState(), callbacks or Callbacks()
    evaluated = model if updater.average is None else averaged_model(updater.average)
    for epoch in range(state.epoch, num_epochs):
        train_loader.set_epoch(epoch)
        train = train_one_epoch(model, train_loader, updater, device=device, criterion=criterion, seed=seed,
                                state=state, callbacks=callbacks)
        broadcast_state(evaluated.to(device))
        val = evaluate(evaluated, val_loader, device=device, on_batch=callbacks.on_batch, gather=gather_in_order)
        record = EpochRecord(epoch, updater.lr, train, val)
        history.append(record)
        state.begin_next_epoch()
        if callbacks.on_epoch is not None and callbacks.on_epoch(record):
            break
    return history
