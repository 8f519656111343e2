"""The head of a probe, and a recognizer with it from a checkpoint."""

import pytest
import torch

from tinyaction import Checkpoint, create_model, load_model
from tinyaction.models import PoolingHead, model_arguments
from tinyaction.models.pooling import POOLINGS, Pooling


@pytest.mark.parametrize("kind", POOLINGS)
def test_logits_are_linear_in_what_the_pooling_gives(kind):
    head = PoolingHead(3, 5, Pooling(kind))
    features = torch.randn(2, 4, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    expected = Pooling(kind)(features) @ head.fc.weight.T + head.fc.bias
    torch.testing.assert_close(head(features), expected)
    assert head.in_channels == Pooling(kind).num_outputs(5)


def test_a_checkpoint_makes_the_same_head_again(tmp_path):
    torch.manual_seed(0)
    model = create_model("conv2d", 2, dropout=0.0, pooling="order", signed_sqrt=True).eval()
    arguments = model_arguments("conv2d", model)
    Checkpoint(arguments, model.state_dict(), ["a", "b"], {"clip_len": 4, "size": 32}).save(tmp_path / "best.pt")
    again, _ = load_model(tmp_path)
    inputs = torch.randint(0, 256, (1, 2, 3, 4, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(again(inputs, mode="logits"), model(inputs, mode="logits"))
    assert isinstance(again.cls_head, PoolingHead) and again.cls_head.pooling == Pooling("order", True)
    assert "pooling" not in model_arguments("conv2d", create_model("conv2d", 2))  # readable by earlier versions
