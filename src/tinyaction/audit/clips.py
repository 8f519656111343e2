"""What can be told of a clip without a network: :func:`look_at`, once for each file, and what is odd about it."""

import os
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from tinyaction.audit.recordings import Keypoints, describe_frames
from tinyaction.video import UInt8Array, VideoError, open_video

NUM_FRAMES = 9  # that are looked at, spread over the clip
KEYPOINT_STEP = 2  # keypoints are looked for in every second one of these
DARK = 0.08  # mean brightness, 0 to 1, below which there is little to see
STILL = 0.002  # mean change of brightness between the frames below which nothing moves
BARS = 0.08  # share of the picture that is black in all frames from which it is letterboxed
TAIL_SECONDS = 1.0  # by which the sound may outlast the picture


@dataclass(frozen=True)
class ClipFacts:
    """A clip as it is: size in pixels, seconds, bytes; brightness and motion 0 to 1; what its frames show."""

    path: str
    width: int
    height: int
    fps: float
    num_frames: int
    seconds: float
    num_bytes: int
    brightness: float
    motion: float  # mean change of brightness from one looked-at frame to the next
    bars: float  # share of the picture that is a black edge in all frames
    tail_seconds: float  # of sound after the last frame
    keypoints: list[Keypoints]

    @property
    def metadata(self) -> list[float]:
        """What a file says without its pictures: width, height, upright or not, frame rate, seconds, bytes."""
        return [self.width, self.height, float(self.height > self.width), self.fps, self.seconds, self.num_bytes]

    def oddities(self) -> list[str]:
        """What a person should know of the clip before it is trained on."""
        found = []
        if self.brightness < DARK:
            found.append(f"dark: mean brightness {self.brightness:.2f}")
        elif self.num_frames > 1 and self.motion < STILL:
            found.append("nothing moves")
        if self.brightness >= DARK and self.bars > BARS:
            found.append(f"black bars over {self.bars:.0%} of the picture")
        if self.tail_seconds > TAIL_SECONDS:
            found.append(f"sound goes on for {self.tail_seconds:.1f} s after the last frame")
        return found


def look_at(path: str) -> ClipFacts | VideoError:
    """Read a few frames of a video; an error is returned, so that one bad file ends nothing."""
    try:
        reader = open_video(path)
        chosen = np.linspace(0, len(reader) - 1, NUM_FRAMES).round().astype(int).tolist()
        distinct = sorted(set(chosen))
        frames = dict(zip(distinct, reader.read(distinct), strict=True))
    except VideoError as error:
        return error
    shown = [frames[index] for index in chosen]                        # a short video repeats them
    height, width = shown[0].shape[:2]
    seconds = float(reader.seconds[-1]) + (1 / reader.fps if reader.fps else 0.0)
    small = np.stack([cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA)
                      for frame in shown]) / 255.0                     # (T, 64, 64)
    return ClipFacts(path, width, height, reader.fps, len(reader), seconds, os.path.getsize(path),
                     float(small.mean()), float(np.abs(np.diff(small, axis=0)).mean()), _bars(shown),
                     _tail_seconds(path, seconds), describe_frames(shown[::KEYPOINT_STEP]))


def _bars(frames: list[UInt8Array]) -> float:
    """Share of the picture outside the rows and columns that are ever brighter than black."""
    brightest = np.max([frame.max(axis=2) for frame in frames], axis=0)  # (H, W)
    rows, columns = ((brightest > 24).mean(axis=axis) > 0.02 for axis in (1, 0))
    if not rows.any() or not columns.any():
        return 0.0                                                     # all black: dark, and no bars
    kept = (np.ptp(np.flatnonzero(rows)) + 1) * (np.ptp(np.flatnonzero(columns)) + 1)
    return 1.0 - float(kept) / brightest.size


def _tail_seconds(path: str, seconds: float) -> float:
    if not Path(path).is_file():                                       # a folder of frames
        return 0.0
    try:
        with av.open(path) as container:
            audio = container.streams.audio
            end = max((float(stream.duration * stream.time_base) for stream in audio
                       if stream.duration and stream.time_base), default=0.0)
    except (av.error.FFmpegError, OSError, ValueError):  # a store of frames, or what open_video reads by other means
        return 0.0
    return max(0.0, end - seconds)
