"""The temporal shift as a table, and the networks that have it."""

import pytest
import torch
from nets import lively_net
from torchvision.models.resnet import BasicBlock, Bottleneck

import tinyaction as ta
from tinyaction.models.backbones import TemporalShiftConvBackbone
from tinyaction.models.temporal_shift import TemporalShift, temporal_shift
from tinyaction.models.torchvision import (
    TemporalShiftMobileNetV2,
    TemporalShiftResNet,
    residual_block,
    shifted_backbone,
)


def test_a_part_of_the_channels_comes_from_the_next_frame_and_a_part_from_the_last():
    frames = torch.tensor([[10, 11, 12, 13], [20, 21, 22, 23], [30, 31, 32, 33]])  # (T=3, C=4)
    assert temporal_shift(frames, 3, fold_div=4).tolist() == [[20, 0, 12, 13], [30, 11, 22, 23], [0, 21, 32, 33]]


def test_clips_do_not_mix():
    frames = torch.arange(1, 9).reshape(4, 2)  # two clips of two frames, two channels
    assert temporal_shift(frames, 2, fold_div=2).tolist() == [[3, 0], [0, 2], [7, 0], [0, 6]]


@pytest.mark.parametrize("fold_div, fold", [(8, 2), (5, 3), (3, 5), (32, 0)])
def test_one_part_in_fold_div_goes_each_way(fold_div, fold):
    frames = torch.arange(2 * 4 * 16, dtype=torch.float32).reshape(8, 16, 1, 1) + 1
    out, clips = temporal_shift(frames, 4, fold_div=fold_div).reshape(2, 4, 16), frames.reshape(2, 4, 16)
    assert out[:, :-1, :fold].equal(clips[:, 1:, :fold]) and not out[:, -1, :fold].any()
    assert out[:, 1:, fold:2 * fold].equal(clips[:, :-1, fold:2 * fold]) and not out[:, 0, fold:2 * fold].any()
    assert out[:, :, 2 * fold:].equal(clips[:, :, 2 * fold:])


def test_a_single_frame_has_no_neighbours():
    assert temporal_shift(torch.ones(2, 8), 1, fold_div=4).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]] * 2


def test_the_module_is_the_function_and_stores_nothing():
    frames = torch.rand(6, 16, 2, 2)
    assert TemporalShift(4)(frames, 3).equal(temporal_shift(frames, 3, fold_div=4))
    assert not TemporalShift().state_dict()


class NoShift(torch.nn.Module):
    def forward(self, frames, num_frames):
        return frames


class Places(torch.nn.Module):
    """Notes the shape at each place."""

    def __init__(self):
        super().__init__()
        self.channels, self.num_frames = [], set()

    def forward(self, frames, num_frames):
        self.channels.append(frames.shape[1])
        self.num_frames.add(num_frames)
        return frames


@pytest.mark.parametrize("name, expected", [
    ("resnet18", [64, 64, 64, 128, 128, 256, 256, 512]),
    ("resnet50", [64, 256, 256, 256, 512, 512, 512, 512, *[1024] * 6, 2048, 2048]),
    ("resnet101", [64, 256, 256, 512, 512, *[1024] * 11, 1024, 2048]),  # every other block
    ("mobilenet_v2", [24, 32, 32, 64, 64, 64, 96, 96, 160, 160]),
])
@torch.inference_mode()
def test_the_shift_stands_before_each_residual_branch(name, expected):
    backbone = shifted_backbone(name).eval()
    backbone.shift = Places()
    backbone(torch.zeros(1, 3, 2, 32, 32))
    assert backbone.shift.channels == expected
    assert backbone.shift.num_frames == {2}


@pytest.mark.parametrize("net_name, wrap, stage", [
    ("resnet18", TemporalShiftResNet, "layer4"), ("resnet50", TemporalShiftResNet, "layer4"),
    ("mobilenet_v2", TemporalShiftMobileNetV2, "features"),
])
@torch.inference_mode()
def test_without_its_shift_the_trunk_is_torchvisions_exactly(net_name, wrap, stage):
    frames = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net = lively_net(net_name, frames)
    seen = []
    handle = getattr(net, stage).register_forward_hook(lambda module, inputs, output: seen.append(output))
    net(frames)
    handle.remove()
    backbone = wrap(net).eval()
    backbone.shift = NoShift()
    clips = frames.unflatten(0, (2, 2)).transpose(1, 2)  # (N=2, C, T=2, H, W)
    assert backbone(clips).transpose(1, 2).flatten(0, 1).equal(seen[0])
    backbone.shift = TemporalShift()
    assert not backbone(clips).transpose(1, 2).flatten(0, 1).allclose(seen[0], atol=1e-2)


@pytest.mark.parametrize("make_block", [BasicBlock, Bottleneck])
@torch.inference_mode()
def test_the_shortcut_is_not_shifted(make_block):
    """A branch that sees nothing adds nothing, and the block passes on its own input."""
    block = make_block(64, 64 // make_block.expansion).eval()
    x = torch.rand(2, 64, 5, 5)
    assert residual_block(block, x, torch.zeros_like(x)).equal(x)
    assert residual_block(block, x, x).allclose(block(x)) and not block(x).allclose(x)
    block.downsample = torch.nn.Conv2d(64, 64, kernel_size=1)
    assert residual_block(block, x, torch.zeros_like(x)).equal(block.downsample(x).relu())


class Blank(torch.nn.Module):
    def forward(self, frames, num_frames):
        return torch.zeros_like(frames)


@torch.inference_mode()
def test_the_shortcut_of_mobilenet_is_not_shifted():
    backbone = shifted_backbone("mobilenet_v2").eval()
    backbone.shift = Blank()
    frames = torch.rand(2, 3, 32, 32)
    x = frames
    for part in backbone.features:
        x = x if getattr(part, "use_res_connect", False) else part(x)
    assert x.any() and backbone(frames[:, :, None])[:, :, 0].equal(x)


@pytest.mark.parametrize("name", ["tsm-conv2d", "tsm-resnet18", "tsm-mobilenet_v2"])
@torch.inference_mode()
def test_the_number_of_frames_is_the_inputs(name):
    torch.manual_seed(0)
    model = ta.create_model(name, 3).eval()
    for num_frames in (1, 3, 8):
        clips = torch.randint(0, 256, (2, 2, 3, num_frames, 32, 32), dtype=torch.uint8)
        together = model(clips, mode="logits")
        alone = torch.cat([model(clips[:, view : view + 1], mode="logits") for view in range(2)], dim=1)
        assert together.shape == (2, 2, 3) and together.allclose(alone, atol=1e-5)


@torch.inference_mode()
def test_the_order_of_frames_matters_and_only_of_neighbours():
    torch.manual_seed(0)
    backbone = TemporalShiftConvBackbone().eval()
    clip = torch.rand(1, 3, 6, 16, 16)
    changed = clip.clone()
    changed[:, :, 2] = 0
    differs = (backbone(clip) - backbone(changed)).abs().amax(dim=(0, 1, 3, 4)) > 0  # (T,)
    assert differs.tolist() == [False, True, True, True, False, False]


def test_it_is_exported_for_any_number_of_clips():
    backbone = TemporalShiftConvBackbone().eval()
    batch = torch.export.Dim("batch", min=1, max=16)
    exported = torch.export.export(backbone, (torch.rand(2, 3, 4, 16, 16),), dynamic_shapes=({0: batch},)).module()
    clips = torch.rand(5, 3, 4, 16, 16)
    assert exported(clips).allclose(backbone(clips), atol=1e-6)
