"""One optimizer step, from the gradients of one or several batches on one or several processes: :class:`Updater`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tinyaction.training.distributed import all_reduce_gradients, all_reduce_sum
from tinyaction.training.finetune import parameter_groups

LearningRateAt = Callable[[int], float]  # optimizer step, from 0 -> learning rate


def create_optimizer(
    name: str, model: nn.Module, *, lr: float, weight_decay: float = 0.0, head_lr_multiplier: float = 1.0,
    layer_decay: float = 1.0,
) -> torch.optim.Optimizer:
    """"sgd" (momentum 0.9), "adam" or "adamw" over the model's :func:`tinyaction.training.finetune.parameter_groups`.

    ``lr`` is the backbone's; the head's is ``head_lr_multiplier`` times that.
    """
    parameters = parameter_groups(model, weight_decay=weight_decay, head_lr_multiplier=head_lr_multiplier,
                                  layer_decay=layer_decay)
    for group in parameters:
        group["lr"] = lr * group["lr_scale"]
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": partial(torch.optim.SGD, momentum=0.9), "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if name not in kinds:
        raise ValueError(f"optimizer {name!r} is not known; it must be sgd, adam or adamw")
    return kinds[name](parameters, lr=lr, weight_decay=weight_decay)


@dataclass
class Updater:
    """Everything that turns gradients into new weights.

    A step of several batches on several processes equals one of all their videos as one batch: it adds the gradients
    of the *sum* of the losses and divides by the number of videos. (Batch norms still see each batch alone.)

    Attributes:
        lr_at: learning rate of an optimizer step; None keeps the optimizer's own.
        clip_grad_norm: largest norm of all gradients together; 0 clips nothing.
        grad_accum: batches of this process that make one step.
        amp: bfloat16 or float16, in which the network computes where that is safe; None computes in float32.
        scaler: for float16, whose small gradients would become 0; see
            :func:`tinyaction.training.precision.create_scaler`.
        average: moving average of the weights, updated after each step; see
            :func:`tinyaction.training.finetune.create_average`.
    """

    optimizer: torch.optim.Optimizer
    lr_at: LearningRateAt | None = None
    clip_grad_norm: float = 0.0
    grad_accum: int = 1
    amp: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None
    average: AveragedModel | None = None

    @property
    def lr(self) -> float:
        """Learning rate of the backbone in the last step."""
        group = self.optimizer.param_groups[0]
        return group["lr"] / group.get("lr_scale", 1.0)

    def backward(self, loss_sum: torch.Tensor) -> None:
        """Add the gradients of a batch; ``loss_sum`` is the sum of the losses of its videos."""
        (loss_sum if self.scaler is None else self.scaler.scale(loss_sum)).backward()  # type: ignore[no-untyped-call]

    def step(self, model: nn.Module, step: int, num_videos: int) -> int:
        """Update the model with the gradients so far, of ``num_videos`` videos in this process, as step ``step``.

        Returns the number of videos in all processes; does nothing where it is 0. A process without a batch left
        must call it with 0 videos: the others wait for its gradients.
        """
        num_in_all = int(all_reduce_sum(num_videos)[0])
        if num_in_all == 0:
            return 0
        if self.lr_at is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr_at(step) * group.get("lr_scale", 1.0)
        all_reduce_gradients(model)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= num_in_all
        if self.clip_grad_norm:
            nn.utils.clip_grad_norm_(model.parameters(), self.clip_grad_norm)
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(model)
        return num_in_all
