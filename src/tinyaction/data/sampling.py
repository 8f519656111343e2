"""Which frames of a video: pure index arithmetic.

No file, no pixel, no class. Every function takes a number of frames and gives indices (num_clips, clip_len), int64,
within ``0 .. total_frames - 1`` and in order of time within each clip. ``rng`` is anything with numpy's ``randint``:
a ``numpy.random.RandomState``, or the module ``numpy.random`` for its global state.
"""

import math
from typing import Any, Literal

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
    check_counts(clip_len, num_clips, total_frames)
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
    check_counts(clip_len, num_clips, total_frames)
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


def interval_indices(
    total_frames: int,
    clip_len: int,
    num_clips: int,
    rng: Any | None,
    *,
    frame_interval: int = 1,
    target_fps: float | None = None,
    fps: float = 0.0,
    twice_sample: bool = False,
    temporal_jitter: bool = False,
    keep_tail_frames: bool = False,
    out_of_bound: Literal["loop", "repeat_last"] = "loop",
    jitter_rng: Any = np.random,
) -> IntArray:
    """Clips of frames that are ``frame_interval`` apart, spread over the video.

        total_frames = 20, clip_len = 4, frame_interval = 2, num_clips = 1, rng None
            ->  6 8 10 12   (the clip in the middle)
        total_frames = 3, clip_len = 4, frame_interval = 2
            ->  "loop" 0 2 1 0 (from the start again), "repeat_last" 0 2 2 2

    With an ``rng`` a clip begins at random within its share of the video (training). Without one (evaluation) clips
    are evenly spread from the first frame to the last; clips of one frame are the middles of equal shares.

    Args:
        target_fps: take frames as if the video had this rate; needs ``fps``, the video's own, in frames per second.
        twice_sample: in evaluation twice as many clips, as in TSM's protocol: single frames also where shares begin.
        temporal_jitter: each frame later by a random part of ``frame_interval``, drawn from ``jitter_rng``.
        keep_tail_frames: in training, shares of the video that are not rounded down, so that its end is seen.
        out_of_bound: what stands for frames after the last one.

    Source: ``SampleFrames`` of MMAction2 1.2.0, whose indices these are, draw for draw. In "loop" mode the frames of a
    short video come around again, so that they are not in order of time.
    """
    check_counts(clip_len, num_clips, total_frames)
    span: float = clip_len * frame_interval  # frames from the first of a clip to the first after it
    if target_fps is not None:
        span = max(1.0, span * fps / target_fps) if fps else max(1.0, float(span))
    elif rng is None:
        span = (clip_len - 1) * frame_interval + 1
    if rng is None:
        starts = _spread_starts(total_frames, span, clip_len, num_clips, twice=twice_sample,
                                whole_steps=target_fps is not None)
    else:
        starts = _random_starts(total_frames, span, num_clips, rng, keep_tail_frames)
    if target_fps is not None:
        within = np.linspace(0, span - 1, clip_len).astype(np.int64)
    else:
        within = np.arange(clip_len) * frame_interval
    indices = starts[:, None] + within                                 # (num_clips, clip_len)
    if temporal_jitter:
        indices = indices + jitter_rng.randint(frame_interval, size=indices.size).reshape(indices.shape)
    if out_of_bound == "loop":
        return np.mod(indices, total_frames).astype(np.int64)
    inside = indices < total_frames
    last = np.max(np.where(inside, indices, 0), axis=1, keepdims=True)
    return np.where(inside, indices, last).astype(np.int64)


def dense_indices(
    total_frames: int,
    clip_len: int,
    num_clips: int,
    rng: Any | None,
    *,
    frame_interval: int = 1,
    sample_range: int = 64,
    num_sample_positions: int = 10,
) -> IntArray:
    """``num_clips`` clips from one stretch of ``sample_range`` frames; frames after the last come around again.

        total_frames = 100, clip_len = 1, num_clips = 8, sample_range = 64, rng draws 20
            ->  20 28 36 44 52 60 68 76

    With an ``rng`` the stretch begins at random: (num_clips, clip_len). Without one, ``num_sample_positions``
    stretches begin evenly spread over the video: (num_sample_positions * num_clips, clip_len).

    Source: ``DenseSampleFrames`` of MMAction2 1.2.0; dense sampling as in Wang et al. 2018, "Non-local".
    """
    check_counts(clip_len, num_clips, total_frames)
    num_places = max(1, 1 + total_frames - sample_range)
    if rng is None:
        places = np.linspace(0, num_places - 1, num=num_sample_positions, dtype=int)
    else:
        places = np.array([0 if num_places == 1 else rng.randint(0, num_places - 1)])
    starts = (places[:, None] + np.arange(num_clips) * (sample_range // num_clips)).reshape(-1) % total_frames
    indices = starts[:, None] + np.arange(clip_len) * frame_interval
    return np.mod(indices, total_frames).astype(np.int64)


def _spread_starts(
    total_frames: int, span: float, clip_len: int, num_clips: int, *, twice: bool, whole_steps: bool
) -> npt.NDArray[np.float64]:
    """Starts of clips, evenly spread: single frames from the middles of equal shares, longer clips from end to end."""
    if clip_len == 1:
        share = total_frames / num_clips
        begins = np.arange(num_clips) * share
        middles = begins + share / 2
        return np.floor(np.concatenate([middles, begins]) if twice else middles)
    num_starts = num_clips * (2 if twice else 1)
    room = max(total_frames - span, 0)
    if num_starts == 1:
        return np.array([room // 2])
    step = room / max(num_clips - 1, 1)
    return np.arange(num_starts) * np.floor(step) if whole_steps else np.round(np.arange(num_starts) * step)


def _random_starts(
    total_frames: int, span: float, num_clips: int, rng: Any, keep_tail_frames: bool
) -> npt.NDArray[np.float64]:
    """Starts of clips, each at random within its share of the video; the branches are those of MMAction2."""
    room = total_frames - span + 1
    shares = np.arange(num_clips)
    if keep_tail_frames:
        if total_frames <= span - 1:
            return np.zeros(num_clips)
        share = room / num_clips
        return (shares * share + rng.uniform(0, share, num_clips)).astype(np.int32)
    share = room // num_clips
    if share > 0:
        return shares * share + rng.randint(share, size=num_clips)
    if total_frames > max(num_clips, span):
        return np.sort(rng.randint(room, size=num_clips))
    if share == 0:
        return np.around(shares * room / num_clips)
    return np.zeros(num_clips)


def window_frames(
    seconds: npt.NDArray[np.float64], end_seconds: float, *, window_seconds: float, stride_seconds: float
) -> list[tuple[float, int, int]]:
    """Windows that slide over the time of a video: (start in seconds, first frame, the frame after its last one).

        10 frames a second, 11 of them; window_seconds = 0.4, stride_seconds = 0.3
            ->  0.0: 0123   0.3: 3456   0.6: 6789   0.7: 789A   (the last window ends with the video)

    A window's first frame is the one that is shown when it begins; a moment less than half a usual frame before the
    next frame counts as that frame's. A video that is shorter than a window is one window.

    Args:
        seconds: (N,) when each frame is shown, ascending from 0.
        end_seconds: when the last frame ends.
    """
    tolerance = float(np.median(np.diff(seconds, append=end_seconds))) / 2
    last_start = max(0.0, end_seconds - window_seconds)
    starts = [*np.arange(0, last_start, stride_seconds).tolist(), last_start]
    windows: list[tuple[float, int, int]] = []
    for start in starts:
        first = max(0, int(np.searchsorted(seconds, start + tolerance, side="right")) - 1)
        stop = max(first + 1, int(np.searchsorted(seconds, start + window_seconds - tolerance)))
        if not windows or windows[-1][1:] != (first, stop):            # rounding may give the last start twice
            windows.append((start, first, stop))
    return windows


def step_frames(
    seconds: npt.NDArray[np.float64], end_seconds: float, *, stride_seconds: float, window_seconds: float,
    clip_len: int,
) -> IntArray:
    """The frames of a window around the middle of each step of a video's time: (S, clip_len).

        4 frames a second, 8 of them; stride_seconds = 0.5  ->  steps 0-0.5 0.5-1 1-1.5 1.5-2
            clip_len = 1                          ->  1 / 3 / 5 / 7   (shown at 0.25, 0.75 ...)
            clip_len = 2, window_seconds = 1.0    ->  0 2 / 2 4 / 4 6 / 6 7   (1/4 second before and after the middle)

    Moments before the first frame or after the last one have that frame. Arguments as of :func:`window_frames`.
    """
    middles = (np.arange(max(1, math.ceil(end_seconds / stride_seconds - 1e-6))) + 0.5) * stride_seconds  # (S,)
    within = ((np.arange(clip_len) + 0.5) / clip_len - 0.5) * window_seconds  # (T,)
    moments = middles[:, None] + within + 1e-6                         # rounded times of frames
    return np.clip(np.searchsorted(seconds, moments, side="right") - 1, 0, len(seconds) - 1).astype(np.int64)


def repeated_indices(total_frames: int, clip_len: int) -> IntArray:
    """Stretch a video that is shorter than the clip: frame ``floor(i * total_frames / clip_len)`` at place ``i``.

        total_frames = 3, clip_len = 8   ->  0 0 0 1 1 1 2 2
    """
    return np.arange(clip_len, dtype=np.int64) * total_frames // clip_len


def check_counts(clip_len: int, num_clips: int, total_frames: int = 1) -> None:
    """Raise ValueError for a count below 1."""
    for name, value in (("total_frames", total_frames), ("clip_len", clip_len), ("num_clips", num_clips)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
