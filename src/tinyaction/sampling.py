"""Which frames of a video: pure index arithmetic.

No file, no pixel, no class. Every function takes a number of frames and gives indices (num_clips, clip_len), int64,
within ``0 .. total_frames - 1`` and in order of time within each clip. ``rng`` is anything with numpy's ``randint``:
a ``numpy.random.RandomState``, or the module ``numpy.random`` for its global state.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def segment_indices(total_frames: int, clip_len: int, num_clips: int, rng: Any) -> IntArray:
    """One random frame from each of ``clip_len`` intervals of equal, whole length: the guide's rule.

        total_frames = 9, clip_len = 4   ->  intervals of 2: 01|23|45|67, frame 8 is never seen
        total_frames = 2, clip_len = 4   ->  0 0 1 1   (frames repeat, nothing is drawn)

    Source: ``VideoSample`` of MMAction2's 20-minute guide, whose indices these are for every video of at least
    ``clip_len`` frames, draw for draw. Shorter videos, where the guide fails, repeat frames.
    """
    _check(total_frames, clip_len, num_clips)
    if total_frames < clip_len:
        return np.tile(repeated_indices(total_frames, clip_len), (num_clips, 1))
    interval = total_frames // clip_len
    starts = np.arange(clip_len) * interval
    return np.stack([starts + rng.randint(interval, size=clip_len) for _ in range(num_clips)]).astype(np.int64)


def uniform_indices(total_frames: int, clip_len: int, num_clips: int, rng: Any | None) -> IntArray:
    """One frame from each of ``clip_len`` equal intervals that together cover the whole video.

        total_frames = 9, clip_len = 4   ->  intervals 0-2 2-4 4-6 6-8 (ends belong to both sides)
            rng None, num_clips = 1      ->  1 3 5 7   (the middles)
            rng None, num_clips = 3      ->  0 2 4 6 / 1 3 5 7 / 1 3 5 7   (1/4, 2/4, 3/4 of each)
        total_frames = 2, clip_len = 4   ->  0 0 0 1   (frames repeat)

    With an ``rng`` the frame is drawn at random within each interval (training); without one the clips lie evenly
    spread within the intervals (evaluation).

    Source: ``UniformSample`` of MMAction2 1.2.0. One difference: with an ``rng`` and ``num_clips > 1`` each clip has a
    draw of its own; MMAction2 draws one clip whatever ``num_clips`` says.
    """
    _check(total_frames, clip_len, num_clips)
    interval = (total_frames - 1) / clip_len
    edges = np.round(interval * np.arange(clip_len + 1)).astype(np.int64)
    starts, ends = edges[:-1], edges[1:]
    if rng is None:
        within = (interval / (num_clips + 1) * np.arange(1, num_clips + 1)).astype(np.int64)
        return starts + within[:, None]  # (num_clips, clip_len)
    return np.array(
        [[rng.randint(start, end + 1) for start, end in zip(starts, ends, strict=True)] for _ in range(num_clips)],
        dtype=np.int64,
    )


def repeated_indices(total_frames: int, clip_len: int) -> IntArray:
    """Stretch a video that is shorter than the clip: frame ``floor(i * total_frames / clip_len)`` at place ``i``.

        total_frames = 3, clip_len = 8   ->  0 0 0 1 1 1 2 2
    """
    return np.arange(clip_len, dtype=np.int64) * total_frames // clip_len


def _check(total_frames: int, clip_len: int, num_clips: int) -> None:
    for name, value in (("total_frames", total_frames), ("clip_len", clip_len), ("num_clips", num_clips)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
