"""X3D: small 3D networks of depthwise convolutions, expanded step by step. Source: Feichtenhofer 2020 (arXiv
2004.04730); layout, names and hyper-parameters of PyTorchVideo's published networks.

    clip (3, T, H, W)  stem: 3x3 pixels, then 5 frames, each alone    24 channels   H/2
                       stage 1 to 4: 1x1x1, depthwise 3x3x3, 1x1x1    24 to 192     H/4 ... H/32
                       pre_conv                                       432
                       mean over a window, hidden layer of 2048, classifier
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tinyaction.models.heads import AverageClips
from tinyaction.models.model_card import ModelCard
from tinyaction.models.recognizer import Recognizer, VideoPreprocessor
from tinyaction.models.residual3d import (
    MEAN,
    STD,
    STRIDE,
    Bottleneck,
    ResBlock,
    ResStage,
    WindowHead,
    check_clip,
    conv3d,
    init_residual,
    pytorchvideo_card,
)

STAGE_DEPTHS = (1, 2, 5, 3)


def round_width(width: float) -> int:
    """The nearest multiple of 8, at least 8 and at least 90 % of ``width``."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


class SqueezeExcitation(nn.Module):
    """Each channel times a gate 0..1 that the means of all channels decide. Source: Hu et al. 2018."""

    def __init__(self, channels: int, inner_channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv3d(channels, inner_channels, 1), nn.ReLU(inplace=True),
                                   nn.Conv3d(inner_channels, channels, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.block(x.mean(dim=(2, 3, 4), keepdim=True))     # gates (N, C, 1, 1, 1)


class X3DStem(nn.Module):
    """(N, 3, T, H, W) -> (N, C, T, H/2, W/2). PyTorchVideo calls the spatial one ``conv_t``, and the other so."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ModuleDict({
            "conv_t": conv3d(3, channels, (1, 3, 3), stride=(1, 2, 2)),
            "conv_xy": conv3d(channels, channels, (5, 1, 1), groups=channels),
        })
        self.norm = nn.BatchNorm3d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv["conv_xy"](self.conv["conv_t"](x))               # (N, C, T, H/2, W/2)
        return F.relu(self.norm(x), inplace=True)


class PreConv(nn.Module):
    """Wider features before the mean: (N, C, T, h, w) -> (N, F, T, h, w)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.pre_conv = conv3d(in_channels, out_channels, (1, 1, 1))
        self.pre_norm = nn.BatchNorm3d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.pre_norm(self.pre_conv(x)), inplace=True)


class X3D(nn.Module):
    """The network up to its feature map: (N, 3, T, H, W) -> (N, F, T, H/32, W/32).

    Args:
        width, depth: factors of the channels and of the blocks per stage.
        bottleneck: inner channels of a block, as a factor of its outer ones.
        stem_channels: of the network at width 1.
        se_ratio: channels of squeeze and excitation, in every second block, as a share of the inner ones.
        norm_every_shortcut: a norm behind each convolution of a shortcut, as MMAction2 and PySlowFast have it;
            PyTorchVideo has none where a block keeps the number of channels.
    """

    takes_clips = True

    def __init__(self, *, width: float = 2.0, depth: float = 2.2, bottleneck: float = 2.25, stem_channels: int = 12,
                 se_ratio: float = 0.0625, norm_every_shortcut: bool = False) -> None:
        super().__init__()
        in_channels = round_width(stem_channels * width)
        blocks: list[nn.Module] = [X3DStem(in_channels)]
        narrow = stem_channels
        for stage, stage_depth in enumerate(STAGE_DEPTHS):
            narrow = narrow if stage == 0 else round_width(2 * narrow)
            channels = round_width(narrow * width)
            inner = int(bottleneck * channels)
            blocks.append(ResStage([
                make_block(in_channels if index == 0 else channels, inner, channels, stride=2 if index == 0 else 1,
                           gate_channels=round_width(inner * se_ratio) if index % 2 == 0 else 0,
                           norm_every_shortcut=norm_every_shortcut)
                for index in range(math.ceil(depth * stage_depth))]))
            in_channels = channels
        self.blocks = nn.ModuleList([*blocks, PreConv(channels, inner)])
        self.out_channels = inner
        init_residual(self)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        check_clip(clips.shape[2], min(clips.shape[3:]), network="X3D")
        x = clips
        for block in self.blocks:  # stem H/2, four stages H/4, H/8, H/16, H/32, pre_conv H/32
            x = block(x)
        return x                                                       # (N, F, T, H/32, W/32)


def make_block(in_channels: int, inner: int, channels: int, *, stride: int, gate_channels: int,
               norm_every_shortcut: bool) -> ResBlock:
    """Make a block, wide and depthwise inside; ``gate_channels`` of squeeze and excitation, 0 for none."""
    steps = (1, stride, stride)
    gate = SqueezeExcitation(inner, gate_channels) if gate_channels else nn.Identity()
    branch = Bottleneck(conv3d(in_channels, inner, (1, 1, 1)),
                        conv3d(inner, inner, (3, 3, 3), stride=steps, groups=inner),
                        conv3d(inner, channels, (1, 1, 1)), gate=gate, act_b=nn.SiLU(inplace=True))
    return ResBlock(branch, stride=steps, norm_of_equal_channels=norm_every_shortcut)


def build(*, num_classes: int = 400, window: Sequence[int] | None = None, hidden: int = 2048, dropout: float = 0.5,
          average_clips: AverageClips = "prob", max_views: int = 0, mean: Sequence[float] = MEAN,
          std: Sequence[float] = STD, **backbone: Any) -> Recognizer:
    """Make an X3D with its head, freshly initialised.

    Args:
        window, hidden: of the head, see :class:`WindowHead`.
        backbone: the arguments of :class:`X3D`.
    """
    net = X3D(**backbone)
    head = WindowHead(num_classes, net.out_channels, window=window, hidden=hidden, average_windows="prob",
                      dropout=dropout, average_clips=average_clips)
    return Recognizer(net, head, VideoPreprocessor(mean, std), max_views=max_views)


def check_input(arguments: Mapping[str, Any], *, clip_len: int, size: int) -> None:
    """Raise ValueError if a network with these arguments of :func:`build` cannot take such clips."""
    check_clip(clip_len, size, network="X3D")


def convert(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Translate the names of a state dict of PyTorchVideo."""
    converted = {}
    for key, tensor in state.items():
        if key.startswith("blocks.5.pool.post_conv."):
            converted["cls_head.hidden.weight"] = tensor.flatten(1)    # a convolution over one place
        elif key.startswith("blocks.5.proj."):
            converted[key.replace("blocks.5.proj", "cls_head.fc")] = tensor
        else:
            converted["backbone." + key.replace("blocks.5.pool.", "blocks.5.")] = tensor
    return converted


def _card(name: str, file: str, *, clip_len: int, size: int, depth: float = 2.2, **known: Any) -> ModelCard:
    side = math.ceil(size / STRIDE)
    return pytorchvideo_card(name, file, arguments={"depth": depth, "window": (clip_len, side, side)},
                             clip_len=clip_len, size=size, **known)


PUBLISHED = (
    _card("x3d_xs", "X3D_XS.pyth", clip_len=4, frame_interval=12, size=160, test_size=182, top1=69.12, top5=88.63,
          num_parameters=3_794_274, gflops=0.605),
    _card("x3d_s", "X3D_S.pyth", clip_len=13, frame_interval=6, size=160, test_size=182, top1=73.33, top5=91.27,
          num_parameters=3_794_274, gflops=1.963),
    _card("x3d_m", "X3D_M.pyth", clip_len=16, frame_interval=5, size=224, test_size=256, top1=75.94, top5=92.72,
          num_parameters=3_794_274, gflops=4.732),
    _card("x3d_l", "X3D_L.pyth", clip_len=16, frame_interval=5, size=312, test_size=356, top1=77.44, top5=93.31,
          num_parameters=6_153_384, gflops=18.368, depth=5.0),
)
