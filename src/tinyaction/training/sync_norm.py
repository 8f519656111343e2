"""Batch norms over the videos of all processes in a round: :func:`synchronize_norms`.

torch's SyncBatchNorm does the same on GPUs only.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tinyaction.training.distributed import num_processes, wait


class SyncedBatchNorm(_BatchNorm):
    """A batch norm whose mean and variance are those of all processes. All must call it equally often."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        pass  # that of the norm in whose place it stands

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        y, mean, var, num = _Normalize.apply(x.float(), self.weight, self.bias, self.eps)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(var.detach() * num / (num - 1).clamp(min=1), momentum)
        return y.to(x.dtype)


class _Normalize(torch.autograd.Function):
    """x (N, C, ...) -> normalized x, mean (C,), variance (C,), number of values of a channel."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> Any:
        num = all_reduce(x.new_tensor(x.numel() / x.shape[1]))
        mean = all_reduce(_sum(x)) / num
        centred = x - _wide(mean, x)
        var = all_reduce(_sum(centred * centred)) / num
        normalized = centred * _wide((var + eps).rsqrt(), x)
        ctx.save_for_backward(normalized, weight, (var + eps).rsqrt(), num)
        ctx.mark_non_differentiable(mean, var, num)
        return normalized * _wide(weight, x) + _wide(bias, x), mean, var, num

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> Any:
        normalized, weight, inverse_std, num = ctx.saved_tensors
        own = torch.stack([_sum(grad), _sum(grad * normalized)])       # (2, C): the gradients of bias and weight
        means = all_reduce(own.clone()) / num
        grad_x = grad - _wide(means[0], grad) - normalized * _wide(means[1], grad)
        return grad_x * _wide(weight * inverse_std, grad), own[1], own[0], None


def all_reduce(tensor: torch.Tensor) -> torch.Tensor:
    if num_processes() > 1:
        wait(dist.all_reduce(tensor, async_op=True), tensor)
    return tensor


def _sum(x: torch.Tensor) -> torch.Tensor:
    return x.sum([0, *range(2, x.ndim)])                               # (C,)


def _wide(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return values.view(1, -1, *[1] * (x.ndim - 2))


def synchronize_norms(model: nn.Module) -> None:
    """Replace the batch norms of a model in place; weights, statistics and their names stay."""
    for part in model.modules():
        if isinstance(part, _BatchNorm):
            part.__class__ = SyncedBatchNorm                           # the same fields, another forward
