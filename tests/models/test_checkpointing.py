"""Gradient checkpointing: the same values with less kept for the backward pass."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from tinyaction.models import create_model, videomae
from tinyaction.models.checkpointing import checkpoint_blocks
from tinyaction.models.vit import DropPath

NETS = {
    "tsm-resnet18": partial(create_model, "tsm-resnet18", 2, dropout=0.0),
    "videomae": partial(videomae.build, num_classes=2, embed_dim=16, depth=6, num_heads=2, mlp_dim=32, clip_len=4,
                        size=32, patch=8),
}


def step(name: str, *, is_checkpointed: bool) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients and buffers after two training passes, and the bytes that the last kept for its backward pass."""
    torch.manual_seed(0)
    model = NETS[name]().train()
    for part in model.modules():
        if isinstance(part, nn.Dropout | DropPath):
            part.p = 0.3
    inputs = torch.randint(0, 256, (2, 1, 3, 4, 32, 32), dtype=torch.uint8)
    if is_checkpointed:
        checkpoint_blocks(model.backbone)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for _ in range(2):
        kept.clear()
        torch.manual_seed(7)
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = model(inputs, mode="logits").mean(dim=1)
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    values = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    return values | dict(model.named_buffers()), sum(size for place, size in kept.items() if place not in weights)


@pytest.mark.parametrize("name", NETS)
def test_values_are_equal_and_less_is_kept(name):
    (expected, num_bytes), (found, num_bytes_less) = (step(name, is_checkpointed=is_on) for is_on in (False, True))
    assert found.keys() == expected.keys() and num_bytes_less < 0.7 * num_bytes
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0, msg=lambda text, key=key: f"{key}: {text}")


def test_a_network_without_blocks_is_one_sentence():
    with pytest.raises(ValueError, match="--checkpointing is for networks of residual or transformer blocks; this"):
        checkpoint_blocks(create_model("conv2d", 2).backbone)
