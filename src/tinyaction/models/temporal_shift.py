"""The temporal shift: a 2D network sees neighbouring frames at no cost. Source: Lin et al. 2019, TSM."""

import torch
from torch import nn


def temporal_shift(frames: torch.Tensor, num_frames: int, *, fold_div: int = 8) -> torch.Tensor:
    """Shift some channels one frame back, some one frame on, and keep the rest: (N*T, C, ...) -> (N*T, C, ...).

        channels     [0, C/8)        [C/8, C/4)        [C/4, C)
        frame 0      of frame 1      zeros             of frame 0
        frame 1      of frame 2      of frame 0        of frame 1
        frame 2      zeros           of frame 1        of frame 2

    Args:
        frames: features of N clips, frame after frame.
        num_frames: T.
        fold_div: one part in ``fold_div`` goes each way, ``C // fold_div`` channels.
    """
    clips = torch.unflatten(frames, 0, (-1, num_frames))               # (N, T, C, ...)
    fold = clips.shape[2] // fold_div
    blank = torch.zeros_like(clips[:, :1, :fold])                      # (N, 1, fold, ...)
    from_next = torch.cat((clips[:, 1:, :fold], blank), dim=1)         # (N, T, fold, ...)
    from_last = torch.cat((blank, clips[:, :-1, fold:2 * fold]), dim=1)
    return torch.cat((from_next, from_last, clips[:, :, 2 * fold:]), dim=2).flatten(0, 1)


class TemporalShift(nn.Module):
    """:func:`temporal_shift` as a module without parameters.

    A backbone keeps one as ``backbone.shift`` and calls it before each shifted layer with the features (N*T, C, h, w)
    and T. Live prediction replaces it by a module with the same call that remembers the last frame of a stream.
    """

    def __init__(self, fold_div: int = 8) -> None:
        super().__init__()
        self.fold_div = fold_div

    def forward(self, frames: torch.Tensor, num_frames: int) -> torch.Tensor:
        return temporal_shift(frames, num_frames, fold_div=self.fold_div)

    def extra_repr(self) -> str:
        return f"fold_div={self.fold_div}"
