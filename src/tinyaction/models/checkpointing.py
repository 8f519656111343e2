"""Gradient checkpointing: compute a block again in the backward pass, in place of keeping what it computed."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import resnet, swin_transformer, vision_transformer
from torchvision.models.video import mvit
from torchvision.models.video import resnet as video_resnet

from tinyaction.models.residual3d import ResBlock
from tinyaction.models.timesformer import DividedBlock
from tinyaction.models.vit import Block

BLOCKS = (Block, DividedBlock, ResBlock, resnet.BasicBlock, resnet.Bottleneck, video_resnet.BasicBlock,
          video_resnet.Bottleneck, vision_transformer.EncoderBlock, swin_transformer.SwinTransformerBlock,
          mvit.MultiscaleBlock)


def checkpoint_blocks(backbone: nn.Module) -> None:
    """Make the residual and transformer blocks of a backbone recompute. Weights, their names and all values stay.

    Raises:
        ValueError: the network has no such blocks.
    """
    blocks = [part for part in backbone.modules() if isinstance(part, BLOCKS)]
    if not blocks:
        raise ValueError("--checkpointing is for networks of residual or transformer blocks; this one has none")
    for block in blocks:
        block.forward = partial(recompute, block, block.forward)  # type: ignore[method-assign]
    if hasattr(backbone, "recomputes"):  # a network that calls the parts of its blocks itself
        setattr(backbone, "recomputes", True)  # noqa: B010


def recompute(block: nn.Module, forward: Callable[..., torch.Tensor], *inputs: Any) -> torch.Tensor:
    """``forward(*inputs)`` of a block, again in the backward pass, with the same dropout."""
    if not torch.is_grad_enabled():
        return forward(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _kept_statistics(block)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _kept_statistics(block: nn.Module) -> Iterator[None]:
    """Undo what the second pass does to the running statistics of batch norms."""
    before = [buffer.clone() for buffer in block.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(block.buffers(), before, strict=True):
            buffer.copy_(value)
