"""Generated uncut videos with exact truth: several actions each, background between them: :func:`make_streams`.

    <folder>/README.txt      what this is
    <folder>/segments.csv    path,start,end,label,split: seconds from the first frame
    <folder>/train/, val/    the videos

The actions are those of the direction and the stand-in scenes: a plain shape moves right or left, a shape with lying
or standing stripes swings to and fro. Between them there is nothing, or a plain shape that rests.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from tinyaction.data.segments import Segment, write_segments
from tinyaction.files import new_folder
from tinyaction.prepare.synthetic import (
    DIRECTION_CLASSES,
    STAND_IN_CLASSES,
    Image,
    Shape,
    add_noise,
    draw_background,
    draw_shape,
)
from tinyaction.video.writer import write_video

STREAM_CLASSES = (*DIRECTION_CLASSES, *STAND_IN_CLASSES)
SIZES = ((96, 96), (112, 96), (96, 112), (128, 112))  # (width, height), pixels
FRAME_RATES = (10.0, 12.5, 20.0, 25.0)  # whose frames are shown at whole milliseconds
ACTION_SECONDS = (1.2, 3.5)  # shortest and longest
PAUSE_SECONDS = (0.8, 3.0)  # of background between actions

_README = """GENERATED VIDEOS: uncut, with the time of each action in segments.csv

Written by tinyaction. A plain shape moves right or left, a shape with lying or standing stripes swings to and fro;
between the actions there is nothing, or a plain shape that rests. Size, frame rate, noise, brightness and the drift of
the background differ from video to video. Numbers from this set say that the code works and nothing about real videos.
"""


def make_streams(
    folder: str | os.PathLike[str], *, num_train: int = 24, num_val: int = 8, seconds: float = 40.0,
    overlaps: bool = False, seed: int = 0, on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write uncut videos of ``seconds`` each and their truth. The same seed gives the same videos.

    Args:
        overlaps: every other action, on average, begins before the one before it has ended, and is of another class.
        on_progress: called with (videos written, videos in all).

    Raises:
        ValueError: a number of videos is below 1, or the videos are shorter than 10 seconds.
        FileExistsError: folder holds something. It appears only when it is complete.
    """
    for name, value in (("num_train", num_train), ("num_val", num_val)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if not 10 <= seconds < float("inf"):
        raise ValueError(f"seconds is {seconds}; it must be at least 10, for several actions and what is between them")
    segments: list[Segment] = []
    with new_folder(folder) as part:
        (part / "README.txt").write_text(_README, encoding="utf-8")
        for split_index, (split, num_videos) in enumerate((("train", num_train), ("val", num_val))):
            (part / split).mkdir()
            for number in range(num_videos):
                stream = Stream.draw(np.random.default_rng((seed, split_index, number)), seconds, overlaps=overlaps)
                path = f"{split}/stream{number:04d}.mp4"
                write_video(Path(part, path), stream.frames(), fps=stream.fps)
                segments += stream.segments(path, split)
                if on_progress is not None:
                    on_progress(len({item.path for item in segments}), num_train + num_val)
        write_segments(part / "segments.csv", segments)


@dataclass(frozen=True)
class Actor:
    """A shape that is in the picture from frame ``start`` to before ``stop``; a label of "" is one that rests."""

    label: str
    start: int
    stop: int
    shape: Shape
    places: np.ndarray[tuple[int, int], np.dtype[np.float64]]  # (stop - start, 2), x and y in pixels

    @classmethod
    def draw(cls, rng: np.random.Generator, label: str, start: int, stop: int, *, width: int, height: int) -> "Actor":
        """A random shape that does what the label says from ``start`` to ``stop``, at random places."""
        is_striped = label in STAND_IN_CLASSES
        side = min(width, height)
        smallest, largest = (0.16, 0.26) if is_striped else (0.11, 0.18)
        shape = Shape.draw(rng, radius=side * rng.uniform(smallest, largest), period=side * rng.uniform(0.09, 0.13))
        shape = shape if is_striped else replace(shape, dark=shape.light)
        low, high = np.full(2, shape.radius), np.array([width, height]) - shape.radius
        times = np.linspace(0, 1, stop - start)[:, None]
        if is_striped:
            cycles, phase = rng.uniform(0.4, 1.6, 2), rng.uniform(0, 1, 2)
            places = (low + high) / 2 + (high - low) / 2 * np.sin(2 * np.pi * (cycles * times + phase))
        else:
            begin, end = rng.uniform(low, high, (2, 2))
            length = rng.uniform(0.5, 1) * (high[0] - low[0])
            begin[0] = rng.uniform(low[0], high[0] - length)
            end[0] = begin[0] + length
            if label == "left":
                begin, end = end, begin
            places = begin + (end - begin) * (times if label else 0 * times)
        return cls(label, start, stop, shape, places)


@dataclass(frozen=True)
class Stream:
    """An uncut video before it is drawn."""

    width: int
    height: int
    fps: float
    num_frames: int
    actors: list[Actor]
    seed: int  # of background, camera and noise

    @classmethod
    def draw(cls, rng: np.random.Generator, seconds: float, *, overlaps: bool) -> "Stream":
        width, height = SIZES[rng.integers(len(SIZES))]
        fps = float(rng.choice(FRAME_RATES))
        num_frames = round(seconds * fps)
        actors: list[Actor] = []
        end, label, is_inside = 0, "", False  # end: of all actions so far
        while True:
            is_inside = overlaps and bool(label) and not is_inside and rng.random() < 0.5
            if is_inside:
                start = round(end - rng.uniform(0.3, 0.7) * (end - actors[-1].start))
            else:
                start = end + round(rng.uniform(*PAUSE_SECONDS) * fps)
                if rng.random() < 0.4:
                    actors.append(Actor.draw(rng, "", end, start, width=width, height=height))
            stop = start + round(rng.uniform(*ACTION_SECONDS) * fps)
            if stop + PAUSE_SECONDS[0] * fps > num_frames:
                break
            label = str(rng.choice([name for name in STREAM_CLASSES if not is_inside or name != label]))
            actors.append(Actor.draw(rng, label, start, stop, width=width, height=height))
            end = max(end, stop)
        return cls(width, height, fps, num_frames, actors, int(rng.integers(2**32)))

    def segments(self, path: str, split: str) -> list[Segment]:
        return [Segment(path, actor.start / self.fps, actor.stop / self.fps, actor.label, split)
                for actor in self.actors if actor.label]

    def frames(self) -> Iterator[Image]:
        """The frames (H, W, 3): a background that drifts and changes its brightness, the actors, noise."""
        rng = np.random.default_rng(self.seed)
        margin = 16  # pixels of background around the picture
        background = draw_background(rng, width=self.width + 2 * margin, height=self.height + 2 * margin,
                                     brightest=int(rng.integers(80, 150)))
        cycles, phase = rng.uniform(0, 0.02, 3), rng.uniform(0, 1, 3)
        sigma, brightness = rng.uniform(0, 10), rng.uniform(0, 0.15)
        for number in range(self.num_frames):
            x, y, light = np.sin(2 * np.pi * (cycles * number + phase))
            left, top = round(margin * (1 + x)), round(margin * (1 + y))
            frame = background[top : top + self.height, left : left + self.width]
            frame = np.asarray(cv2.convertScaleAbs(frame, alpha=1 + brightness * light), np.uint8)
            for actor in self.actors:
                if actor.start <= number < actor.stop:
                    x, y = actor.places[number - actor.start]
                    frame = draw_shape(frame, actor.shape, x=float(x), y=float(y),
                                       vertical=actor.label == STAND_IN_CLASSES[1])
            yield add_noise(frame, rng, sigma=sigma)
