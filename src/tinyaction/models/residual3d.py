"""Blocks and head that the 3D ResNets of PyTorchVideo share: X3D, Slow and SlowFast.

The parts keep PyTorchVideo's names, so that its published files load by name.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from tinyaction.models.heads import AverageClips, TemporalAverageHead
from tinyaction.models.model_card import ModelCard

Kernel = tuple[int, int, int]
MEAN, STD = (114.75,) * 3, (57.375,) * 3  # 0.45 and 0.225 of 255
STRIDE = 32  # pixels a side of the clip per place of the last feature map


def conv3d(in_channels: int, out_channels: int, kernel: Kernel, *, stride: Kernel = (1, 1, 1),
           groups: int = 1) -> nn.Conv3d:
    """A convolution without bias that keeps the size at stride 1; kernel and stride are (frames, height, width)."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)


class ResStem(nn.Module):
    """Convolution over 7x7 pixels, norm, ReLU, max pooling: (N, 3, T, H, W) -> (N, C, T, H/4, W/4)."""

    def __init__(self, channels: int, num_frames: int) -> None:
        super().__init__()
        self.conv = conv3d(3, channels, (num_frames, 7, 7), stride=(1, 2, 2))
        self.norm = nn.BatchNorm3d(channels)
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.conv(x)), inplace=True)              # (N, C, T, H/2, W/2)
        return self.pool(x)                                            # (N, C, T, H/4, W/4)


class Bottleneck(nn.Module):
    """Three convolutions with norms: ``conv_a``, ReLU, ``conv_b``, ``act_b``, ``conv_c``."""

    def __init__(self, conv_a: nn.Conv3d, conv_b: nn.Conv3d, conv_c: nn.Conv3d, *, gate: nn.Module | None = None,
                 act_b: nn.Module | None = None) -> None:
        super().__init__()
        self.conv_a, self.norm_a = conv_a, nn.BatchNorm3d(conv_a.out_channels)
        norm_b = nn.BatchNorm3d(conv_b.out_channels)
        self.conv_b, self.norm_b = conv_b, norm_b if gate is None else nn.Sequential(norm_b, gate)
        self.act_b = nn.ReLU(inplace=True) if act_b is None else act_b
        self.conv_c, self.norm_c = conv_c, nn.BatchNorm3d(conv_c.out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm_a(self.conv_a(x)), inplace=True)          # (N, inner, T, H, W)
        x = self.act_b(self.norm_b(self.conv_b(x)))                    # (N, inner, T, H/s, W/s)
        return self.norm_c(self.conv_c(x))                             # (N, out, T, H/s, W/s)


class ResBlock(nn.Module):
    """ReLU of the branch plus the shortcut; the shortcut is a convolution where channels or size change."""

    def __init__(self, branch2: Bottleneck, *, stride: Kernel, norm_of_equal_channels: bool = True) -> None:
        super().__init__()
        in_channels, out_channels = branch2.conv_a.in_channels, branch2.conv_c.out_channels
        self.branch1_conv, self.branch1_norm, self.branch2 = None, None, branch2
        if in_channels != out_channels or stride != (1, 1, 1):
            self.branch1_conv = conv3d(in_channels, out_channels, (1, 1, 1), stride=stride)
            if in_channels != out_channels or norm_of_equal_channels:
                self.branch1_norm = nn.BatchNorm3d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.branch1_conv is None else self.branch1_conv(x)
        if self.branch1_norm is not None:
            shortcut = self.branch1_norm(shortcut)
        return F.relu(self.branch2(x).add_(shortcut), inplace=True)


class ResStage(nn.Module):
    """Blocks one after the other."""

    def __init__(self, blocks: Sequence[ResBlock]) -> None:
        super().__init__()
        self.res_blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.res_blocks:
            x = block(x)
        return x


class WindowHead(TemporalAverageHead):
    """Mean over each window of the map, optional hidden layer, dropout, linear; then the mean of the windows.

        map 13x6x6, window 13x5x5  ->  2 x 2 windows, one step apart
        map  8x4x4, window 13x5x5  ->  one window of 8x4x4

    PyTorchVideo's networks see larger pictures in evaluation than in training, and average so.

    Args:
        window: frames, height and width of a window of the map; None is the whole map.
        hidden: width of a linear layer with ReLU before the classifier; 0 for none.
        average_windows: "logits" averages the logits of the windows, "prob" their probabilities (the logits returned
            are then the logarithms of these means).
    """

    def __init__(self, num_classes: int, in_channels: int, *, window: Sequence[int] | None = None, hidden: int = 0,
                 average_windows: Literal["logits", "prob"] = "logits", dropout: float = 0.5,
                 average_clips: AverageClips = "prob") -> None:
        super().__init__(num_classes, hidden or in_channels, dropout=dropout, average_clips=average_clips)
        self.in_channels = in_channels
        self.window = window
        self.average_windows = average_windows
        self.hidden = nn.Linear(in_channels, hidden, bias=False) if hidden else None
        if self.hidden is not None:
            nn.init.kaiming_normal_(self.hidden.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = features.transpose(1, 2)                                   # (N, F, T, h, w)
        if self.window is None:
            x = x.mean(dim=(2, 3, 4)).unsqueeze(1)                     # (N, 1, F)
        else:
            window = [min(sides) for sides in zip(self.window, x.shape[2:], strict=True)]
            x = F.avg_pool3d(x, window, stride=1)                      # (N, F, t, u, v)
            x = x.flatten(2).transpose(1, 2)                           # (N, L, F), L = t*u*v windows
        if self.hidden is not None:
            x = F.relu(self.hidden(x), inplace=True)                   # (N, L, hidden)
        logits = self.fc(self.dropout(x))                              # (N, L, K)
        L = logits.shape[1]
        if self.average_windows == "logits" or L == 1:
            return logits.mean(dim=1)                                  # (N, K)
        return logits.log_softmax(dim=2).logsumexp(dim=1) - math.log(L)  # (N, K)


def check_clip(clip_len: int, size: int, *, network: str) -> None:
    """Raise ValueError for clips without a frame, or pictures too small to be halved five times."""
    if clip_len < 1:
        raise ValueError(f"clip_len is {clip_len}; {network} takes at least 1 frame")
    if size < STRIDE:
        raise ValueError(f"size is {size}; {network} takes at least {STRIDE} pixels a side")


def init_residual(module: nn.Module) -> None:
    """Kaiming normal (fan out) for convolutions; the last norm of a branch starts at 0, so that a block starts as its
    shortcut. Source: He et al. 2015, Goyal et al. 2017."""
    for part in module.modules():
        if isinstance(part, nn.Conv3d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, Bottleneck):
            nn.init.zeros_(part.norm_c.weight)


def pytorchvideo_card(
    name: str, file: str, *, arguments: Mapping[str, Any], clip_len: int, frame_interval: int, size: int,
    test_size: int, top1: float, top5: float, num_parameters: int, gflops: float, least_clip_len: int = 1,
) -> ModelCard:
    """Make the card of a network in PyTorchVideo's model zoo, whose weights are in ``file``."""
    return ModelCard(
        name=name, arguments=arguments, dataset="kinetics", num_classes=400, clip_len=clip_len,
        frame_interval=frame_interval, size=size, short_side=test_size, test_size=test_size, mean=MEAN, std=STD,
        licence="Apache-2.0", top1=top1, top5=top5, views="10 clips x 3 crops", source="PyTorchVideo's model zoo",
        num_parameters=num_parameters, gflops=gflops,
        address=f"https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/{file}",
        least_clip_len=least_clip_len, least_size=STRIDE)
