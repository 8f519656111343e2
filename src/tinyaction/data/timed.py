"""Clips as published networks were given them: frames a fixed time apart."""

from dataclasses import dataclass
from typing import Any

from tinyaction.data.sampling import IntArray, check_counts, interval_indices
from tinyaction.data.transforms import Results, rng_of

FRAMES_PER_SECOND = 30  # in which published frame intervals count


@dataclass(frozen=True)
class TimedSample:
    """Choose clips of frames ``frame_interval`` apart at 30 frames a second: spread evenly over the video, or with
    ``test_mode=False`` from a random frame on, as in training.

    Of a video of another rate the same time lies between two frames, to the nearest whole frame; a video that does
    not say its rate counts as one of 30. In a video that is shorter than a clip the frames are closer together, so
    that as few as possible repeat.
    """

    clip_len: int
    frame_interval: int
    num_clips: int = 1
    test_mode: bool = True

    def __post_init__(self) -> None:
        check_counts(self.clip_len, self.num_clips)
        if self.frame_interval < 1:
            raise ValueError(f"frame_interval is {self.frame_interval}; it must be at least 1")

    def indices(self, total_frames: int, fps: float, rng: Any | None = None) -> IntArray:
        """(num_clips, clip_len) the frames of a video; with an ``rng`` they begin at random."""
        interval = round(self.frame_interval * fps / FRAMES_PER_SECOND) if fps > 0 else self.frame_interval
        interval = max(1, min(interval, total_frames // self.clip_len))
        return interval_indices(total_frames, self.clip_len, self.num_clips, rng, frame_interval=interval,
                                out_of_bound="repeat_last")

    def __call__(self, results: Results) -> Results:
        rng = None if self.test_mode else rng_of(results)
        indices = self.indices(results["total_frames"], results.get("fps", 0.0), rng)
        return results | {"frame_inds": indices.flatten(), "num_clips": self.num_clips, "clip_len": self.clip_len}
