"""Networks that turn pixels into features. A 2D one sees frames (N, C, H, W), a 3D one whole clips (N, C, T, H, W).

A backbone of your own is any module with two attributes: ``takes_clips`` (False: frames, True: clips) and
``out_channels`` (F of its features). Give it a name in :mod:`tinyaction.models.create`.
"""

import torch
from torch import nn

from tinyaction.models.temporal_shift import TemporalShift


class ConvBackbone(nn.Module):
    """The guide's two-layer network on single frames: (N, 3, H, W) -> (N, 128, H/8, W/8).

    Source: MMAction2's 20-minute guide, with its names of the parts.
    """

    takes_clips = False
    out_channels = 128

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3), nn.BatchNorm2d(64), nn.ReLU())
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.conv = nn.Sequential(
            nn.Conv2d(64, 128, kernel_size=3, stride=2, padding=1), nn.BatchNorm2d(128), nn.ReLU()
        )
        init_convolutions(self)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = self.conv1(frames)                                         # (N, 64, H/2, W/2)
        x = self.maxpool(x)                                            # (N, 64, H/4, W/4)
        return self.conv(x)                                            # (N, 128, H/8, W/8)


class TemporalShiftConvBackbone(ConvBackbone):
    """The guide's two-layer network, temporal shift before layer 2: (N, 3, T, H, W) -> (N, 128, T, H/8, W/8)."""

    takes_clips = True

    def __init__(self) -> None:
        super().__init__()
        self.shift = TemporalShift()

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        N, T = clips.shape[0], clips.shape[2]
        x = self.conv1(clips.transpose(1, 2).flatten(0, 1))            # (N*T, 64, H/2, W/2)
        x = self.maxpool(x)                                            # (N*T, 64, H/4, W/4)
        x = self.conv(self.shift(x, T))                                # (N*T, 128, H/8, W/8)
        return x.unflatten(0, (N, T)).transpose(1, 2)                  # (N, 128, T, H/8, W/8)


class Conv3dBackbone(nn.Module):
    """The newest guide's two-layer network on clips: (N, 3, T, H, W) -> (N, 128, T/2, H/8, W/8).

    Source: MMAction2's 20-minute guide as of version 1.2.0, with its names of the parts.
    """

    takes_clips = True
    out_channels = 128

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv3d(3, 64, kernel_size=(3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3)), nn.BatchNorm3d(64), nn.ReLU()
        )
        self.maxpool = nn.MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.conv = nn.Sequential(
            nn.Conv3d(64, 128, kernel_size=3, stride=2, padding=1), nn.BatchNorm3d(128), nn.ReLU()
        )
        init_convolutions(self)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        x = self.conv1(clips)                                          # (N, 64, T, H/2, W/2)
        x = self.maxpool(x)                                            # (N, 64, T, H/4, W/4)
        return self.conv(x)                                            # (N, 128, T/2, H/8, W/8)


def init_convolutions(module: nn.Module) -> None:
    """Kaiming normal (fan out) for convolutions, 1 and 0 for norms. Source: He et al. 2015; the guide's choice."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
