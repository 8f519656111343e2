"""Slow and SlowFast: 3D ResNets that see few frames, and beside them many with few channels. Source: Feichtenhofer et
al. 2019 (arXiv 1812.03982); layout, names and hyper-parameters of PyTorchVideo's published networks.

    slow   T/4 frames, 64 ... 2048 channels   stem  stage1  stage2  stage3  stage4 -- mean over time --+-- head
                                               ^      ^       ^       ^                                 |
    fast   T frames,    8 ...  256 channels   stem  stage1  stage2  stage3  stage4 -- mean over time --+
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from tinyaction.models.heads import AverageClips
from tinyaction.models.recognizer import Recognizer, VideoPreprocessor
from tinyaction.models.residual3d import (
    MEAN,
    STD,
    Bottleneck,
    ResBlock,
    ResStage,
    ResStem,
    WindowHead,
    check_clip,
    conv3d,
    init_residual,
    pytorchvideo_card,
)

SLOW_FRAMES = (1, 1, 3, 3)  # frames that the first convolution of a block sees, by stage
FAST_FRAMES = (3, 3, 3, 3)


def make_stage(in_channels: int, out_channels: int, *, depth: int, num_frames: int, stride: int) -> ResStage:
    """``depth`` blocks: ``num_frames`` x1x1, 1x3x3 with the stride of the first block, 1x1x1."""
    inner, blocks = out_channels // 4, []
    for index in range(depth):
        block_stride = (1, stride, stride) if index == 0 else (1, 1, 1)
        branch = Bottleneck(conv3d(in_channels if index == 0 else out_channels, inner, (num_frames, 1, 1)),
                            conv3d(inner, inner, (1, 3, 3), stride=block_stride),
                            conv3d(inner, out_channels, (1, 1, 1)))
        blocks.append(ResBlock(branch, stride=block_stride))
    return ResStage(blocks)


class Slow(nn.Module):
    """The slow pathway alone: (N, 3, T, H, W) -> (N, 32 * channels, T, H/32, W/32).

    Args:
        depths: blocks of the four stages; (3, 4, 6, 3) is ResNet-50.
        channels: of the stem.
    """

    takes_clips = True

    def __init__(self, *, depths: Sequence[int] = (3, 4, 6, 3), channels: int = 64) -> None:
        super().__init__()
        blocks: list[nn.Module] = [ResStem(channels, 1)]
        in_channels = channels
        for stage, depth in enumerate(depths):
            out_channels = channels * 2 ** (stage + 2)
            blocks.append(make_stage(in_channels, out_channels, depth=depth, num_frames=SLOW_FRAMES[stage],
                                     stride=1 if stage == 0 else 2))
            in_channels = out_channels
        self.blocks = nn.ModuleList(blocks)
        self.out_channels = in_channels
        init_residual(self)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        check_clip(clips.shape[2], min(clips.shape[3:]), network="Slow")
        x = clips
        for block in self.blocks:  # stem H/4, four stages H/4, H/8, H/16, H/32
            x = block(x)
        return x                                                       # (N, F, T, H/32, W/32)


class Fusion(nn.Module):
    """Fast features beside the slow ones: every ``alpha``-th step of a convolution over time."""

    def __init__(self, fast_channels: int, *, num_frames: int, alpha: int, norm: bool) -> None:
        super().__init__()
        self.conv_fast_to_slow = conv3d(fast_channels, 2 * fast_channels, (num_frames, 1, 1), stride=(alpha, 1, 1))
        self.norm = nn.BatchNorm3d(2 * fast_channels) if norm else None

    def forward(self, slow: torch.Tensor, fast: torch.Tensor) -> torch.Tensor:
        fused = self.conv_fast_to_slow(fast)                           # (N, 2 * C/beta, T/alpha, h, w)
        if self.norm is not None:
            fused = F.relu(self.norm(fused), inplace=True)
        return torch.cat([slow, fused], dim=1)                         # (N, C + 2 * C/beta, T/alpha, h, w)


class Pathways(nn.Module):
    """One step of both pathways, and the fusion behind it; the last step has none."""

    def __init__(self, slow: nn.Module, fast: nn.Module, fusion: Fusion | None) -> None:
        super().__init__()
        self.multipathway_blocks = nn.ModuleList([slow, fast])
        self.multipathway_fusion = fusion

    def forward(self, slow: torch.Tensor, fast: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        slow, fast = self.multipathway_blocks[0](slow), self.multipathway_blocks[1](fast)
        if self.multipathway_fusion is not None:
            slow = self.multipathway_fusion(slow, fast)
        return slow, fast


class SlowFast(nn.Module):
    """Both pathways, averaged over time: (N, 3, T, H, W) -> (N, F, 1, H/32, W/32); T is a multiple of ``alpha``.

    Args:
        depths, channels: as of :class:`Slow`.
        alpha: frames of the clip per frame of the slow pathway.
        beta: channels of the slow pathway per channel of the fast one.
        fusion_frames: kernel over time of the fusions.
        fusion_norm: norm and ReLU behind each fusion; MMAction2 has none.
        strided: the slow pathway takes every ``alpha``-th frame (MMAction2); else from the first to the last.
    """

    takes_clips = True

    def __init__(self, *, depths: Sequence[int] = (3, 4, 6, 3), channels: int = 64, alpha: int = 4, beta: int = 8,
                 fusion_frames: int = 7, fusion_norm: bool = True, strided: bool = False) -> None:
        super().__init__()
        self.alpha, self.strided = alpha, strided
        slow_in, fast_in = channels, channels // beta
        fusion = partial(Fusion, num_frames=fusion_frames, alpha=alpha, norm=fusion_norm)
        blocks = [Pathways(ResStem(slow_in, 1), ResStem(fast_in, 5), fusion(fast_in))]
        for stage, depth in enumerate(depths):
            slow_out, fast_out = channels * 2 ** (stage + 2), channels * 2 ** (stage + 2) // beta
            stride = 1 if stage == 0 else 2
            blocks.append(Pathways(
                make_stage(slow_in + 2 * fast_in, slow_out, depth=depth, num_frames=SLOW_FRAMES[stage], stride=stride),
                make_stage(fast_in, fast_out, depth=depth, num_frames=FAST_FRAMES[stage], stride=stride),
                None if stage == len(depths) - 1 else fusion(fast_out)))
            slow_in, fast_in = slow_out, fast_out
        self.blocks = nn.ModuleList(blocks)
        self.out_channels = slow_in + fast_in
        init_residual(self)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        check_clip(clips.shape[2], min(clips.shape[3:]), network="SlowFast")
        slow, fast = clips[:, :, slow_indices(clips.shape[2], self.alpha, strided=self.strided)], clips
        for block in self.blocks:
            slow, fast = block(slow, fast)                             # (N, C, T/alpha, h, w), (N, C/beta, T, h, w)
        return torch.cat([slow.mean(dim=2, keepdim=True), fast.mean(dim=2, keepdim=True)], dim=1)  # (N, F, 1, h, w)


def slow_indices(num_frames: int, alpha: int, *, strided: bool = False) -> list[int]:
    """Return the frames of a clip that the slow pathway sees.

        num_frames = 32, alpha = 4           -> 0 4 8 13 17 22 26 31
        num_frames = 32, alpha = 4, strided  -> 0 4 8 12 16 20 24 28

    Raises:
        ValueError: the clip is no multiple of ``alpha``.
    """
    if num_frames < alpha or num_frames % alpha:
        raise ValueError(f"clip_len is {num_frames}; SlowFast takes multiples of {alpha} frames, of which its slow "
                         f"pathway sees one in {alpha}")
    if strided:
        return list(range(0, num_frames, alpha))
    steps = num_frames // alpha - 1
    return [index * (num_frames - 1) // max(1, steps) for index in range(steps + 1)]


def build(kind: Literal["slow", "slowfast"], *, num_classes: int = 400, window: Sequence[int] | None = None,
          dropout: float = 0.5, average_clips: AverageClips = "prob", max_views: int = 0,
          mean: Sequence[float] = MEAN, std: Sequence[float] = STD, **backbone: Any) -> Recognizer:
    """Make a Slow or SlowFast with its head, freshly initialised.

    Args:
        window: of the head, see :class:`WindowHead`.
        backbone: the arguments of :class:`Slow` or :class:`SlowFast`.
    """
    net = Slow(**backbone) if kind == "slow" else SlowFast(**backbone)
    head = WindowHead(num_classes, net.out_channels, window=window, dropout=dropout, average_clips=average_clips)
    return Recognizer(net, head, VideoPreprocessor(mean, std), max_views=max_views)


def check_input(arguments: Mapping[str, Any], *, clip_len: int, size: int) -> None:
    """Raise ValueError if a network with these arguments of :func:`build` cannot take such clips."""
    is_slow = arguments["kind"] == "slow"
    check_clip(clip_len, size, network="Slow" if is_slow else "SlowFast")
    if not is_slow:
        slow_indices(clip_len, arguments.get("alpha", 4))


def convert(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Translate the names of a state dict of PyTorchVideo."""
    names = {key: key.replace("blocks.5.proj", "cls_head.fc").replace("blocks.6.proj", "cls_head.fc") for key in state}
    return {name if name.startswith("cls_head.") else f"backbone.{name}": state[key] for key, name in names.items()}


PUBLISHED = (
    pytorchvideo_card(
        "slow_r50", "SLOW_8x8_R50.pyth", arguments={"kind": "slow", "window": (8, 7, 7)}, clip_len=8,
        frame_interval=8, size=224, test_size=256, top1=74.58, top5=91.63, num_parameters=32_454_096, gflops=41.741),
    pytorchvideo_card(
        "slowfast_r50", "SLOWFAST_8x8_R50.pyth", arguments={"kind": "slowfast", "window": (1, 7, 7)}, clip_len=32,
        frame_interval=2, size=224, test_size=256, top1=76.94, top5=92.69, num_parameters=34_566_488, gflops=50.309,
        least_clip_len=4),
    pytorchvideo_card(
        "slowfast_r101", "SLOWFAST_8x8_R101.pyth", clip_len=32, frame_interval=2, size=224, test_size=256, top1=77.90,
        top5=93.27, arguments={"kind": "slowfast", "depths": (3, 4, 23, 3), "fusion_frames": 5, "window": (1, 7, 7)},
        num_parameters=62_826_968, gflops=96.397, least_clip_len=4),
)
