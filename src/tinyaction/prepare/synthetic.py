"""Generated video sets: a stand-in for the tutorial's clips, and the set whose classes differ only in time.

Both are real video files in the tutorial's layout, read by the same code as anybody's clips:

    <folder>/README.txt                       what this is
    <folder>/classes.txt                      a class name a line, in the order of the labels
    <folder>/kinetics_tiny_train_video.txt    lines "name label"
    <folder>/kinetics_tiny_val_video.txt
    <folder>/train/, <folder>/val/            the clips

Their scenes come in twins, one clip of each class that agree in everything but what makes the class. What twins share
(background, colours, size, path) can therefore tell nothing about the class, and the two are always in the same split.
"""

from __future__ import annotations

import itertools
import os
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from tinyaction.files import new_folder
from tinyaction.video.writer import write_video

Image = npt.NDArray[np.uint8]  # (H, W, 3), RGB, 0..255
ClipProgress = Callable[[int, int], None]  # (clips written, clips in all)
Seed = tuple[int, ...]  # (seed of the set, split, scene)

STAND_IN_TITLE = "GENERATED CLIPS, NOT KINETICS: a stand-in for kinetics400_tiny"
STAND_IN_CLASSES = ("horizontal stripes", "vertical stripes")
DIRECTION_CLASSES = ("right", "left")

# (width, height), pixels
STAND_IN_SIZES = ((160, 120), (176, 144), (240, 180), (320, 180), (320, 240), (340, 256), (192, 256))

# is_stand_in looks for the first line.
_STAND_IN_README = f"""{STAND_IN_TITLE}

Written by tinyaction because the tutorial's archive could not be had. A shape with stripes moves over a background;
the class is whether the stripes lie or stand. Each scene is there twice, once with either kind of stripes, so that
neither colour nor place tells the classes apart. Numbers from this set say that the code works and nothing about
Kinetics. `python scripts/prepare.py --force` replaces this folder by the real set.
"""

_DIRECTION_README = """Generated clips: which way does the shape move?

Written by tinyaction. Class 0 (right): a shape moves right. Class 1 (left): the same clip played backwards. Both
clips of a pair consist of the same pictures, to the bit, so only their order tells the classes apart. Mirroring a clip
changes its class: train without the flip.
"""


# ---------------------------------------------------------------------------------------------------------------------
# writing
# ---------------------------------------------------------------------------------------------------------------------


def _write_set(
    folder: str | os.PathLike[str], *, readme: str, class_names: Sequence[str], num_clips: dict[str, int],
    names: Iterator[str], write_clip: Callable[[Path, Seed, int], None], seed: int, on_progress: ClipProgress | None,
) -> None:
    """Write a set of two classes in the tutorial's layout, scene by scene, each as twins.

    Args:
        num_clips: split -> clips in it.
        names: of the clips, in the order of writing.
        write_clip: is called with the path, the seed of the scene and the label.
    """
    num_written, num_all = 0, sum(num_clips.values())
    with new_folder(folder) as part:
        (part / "README.txt").write_text(readme, encoding="utf-8")
        (part / "classes.txt").write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        for split_index, (split, num_in_split) in enumerate(num_clips.items()):
            (part / split).mkdir()
            lines = []
            for scene in range(num_in_split // 2):
                for label in (0, 1):
                    name = next(names)
                    write_clip(part / split / name, (seed, split_index, scene), label)
                    lines.append(f"{name} {label}\n")
                    num_written += 1
                    if on_progress is not None:
                        on_progress(num_written, num_all)
            (part / f"kinetics_tiny_{split}_video.txt").write_text("".join(lines), encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# drawing
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """What moves: |x|^power + |y|^power <= radius^power is a diamond (1), a disc (2) or nearly a square (8)."""

    power: float
    radius: float  # pixels
    period: float  # pixels from one stripe to the next of its colour
    dark: npt.NDArray[np.float32]  # (3,), the colours of the stripes
    light: npt.NDArray[np.float32]  # (3,)

    @classmethod
    def draw(cls, rng: np.random.Generator, *, radius: float, period: float) -> Shape:
        """A random shape in two colours that differ clearly."""
        power = float(rng.choice([1.0, 2.0, 8.0]))
        dark, light = rng.uniform(0, 90, 3), rng.uniform(165, 255, 3)
        return cls(power, radius, period, dark.astype(np.float32), light.astype(np.float32))


def draw_background(rng: np.random.Generator, *, width: int, height: int, brightest: int) -> Image:
    """(H, W, 3): a few random colours up to brightest (0..255) that run smoothly into each other."""
    cells = rng.integers(10, brightest + 1, (3, 4, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def draw_shape(background: Image, shape: Shape, *, x: float, y: float, vertical: bool) -> Image:
    """A copy of background (H, W, 3) with shape centred at (x, y) pixels, its stripes standing or lying."""
    H, W = background.shape[:2]
    reach = shape.radius + 1
    left, right = max(0, int(x - reach)), min(W, int(x + reach) + 1)
    top, bottom = max(0, int(y - reach)), min(H, int(y + reach) + 1)
    dx = np.arange(left, right, dtype=np.float32)[None] - x  # (1, w)
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] - y  # (h, 1)
    distance = (np.abs(dx) ** shape.power + np.abs(dy) ** shape.power) ** (1 / shape.power)  # (h, w)
    mask = np.clip(shape.radius + 0.5 - distance, 0, 1)[..., None]  # (h, w, 1), soft by a pixel at the rim
    across = dx if vertical else dy
    stripes = 0.5 + np.clip(2 * np.sin(2 * np.pi / shape.period * across), -0.5, 0.5)[..., None]
    paint = shape.dark + stripes * (shape.light - shape.dark)  # (h, 1, 3) or (1, w, 3)

    image = background.copy()
    patch = image[top:bottom, left:right]
    patch[:] = np.rint(patch + mask * (paint - patch))
    return image


def add_noise(image: Image, rng: np.random.Generator, *, sigma: float) -> Image:
    """Grey noise of standard deviation sigma (0..255) on image (H, W, 3)."""
    noise = sigma * rng.standard_normal((*image.shape[:2], 1), dtype=np.float32)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# the stand-in
# ---------------------------------------------------------------------------------------------------------------------


def stand_in_clip(seed: Seed, *, vertical: bool) -> tuple[float, Iterator[Image]]:
    """(frames per second, frames) of a scene; its twins are the two values of vertical for one seed."""
    rng = np.random.default_rng(seed)
    width, height = STAND_IN_SIZES[rng.integers(len(STAND_IN_SIZES))]
    fps = float(rng.choice([10, 15, 24, 25, 30]))
    num_frames = int(rng.integers(40, 121))
    short_side = min(width, height)
    background = draw_background(rng, width=width, height=height, brightest=225)
    shape = Shape.draw(rng, radius=short_side * rng.uniform(0.22, 0.34), period=short_side * rng.uniform(0.07, 0.12))
    sigma = rng.uniform(0, 10)
    # The centre swings to and fro on both axes, as far as the shape stays inside.
    middle = np.array([width, height]) / 2
    cycles, phase = rng.uniform(0.4, 1.6, 2), rng.uniform(0, 1, 2)

    def frames() -> Iterator[Image]:
        for time in np.linspace(0, 1, num_frames):
            x, y = middle + (middle - shape.radius) * np.sin(2 * np.pi * (cycles * time + phase))
            yield add_noise(draw_shape(background, shape, x=x, y=y, vertical=vertical), rng, sigma=sigma)

    return fps, frames()


def make_stand_in(folder: str | os.PathLike[str], *, seed: int = 0, on_progress: ClipProgress | None = None) -> None:
    """Write the stand-in for the tutorial's set: 30 training and 10 validation clips, half of each class.

    The class is whether the stripes of a moving shape lie (0) or stand (1). The same seed gives the same clips.
    Raises FileExistsError where folder holds anything; it appears only when it is complete.
    """
    _write_set(folder, readme=_STAND_IN_README, class_names=STAND_IN_CLASSES, num_clips={"train": 30, "val": 10},
               names=_stand_in_names(np.random.default_rng(seed)), write_clip=_write_stand_in_clip, seed=seed,
               on_progress=on_progress)


def _write_stand_in_clip(path: Path, seed: Seed, label: int) -> None:
    fps, frames = stand_in_clip(seed, vertical=label == 1)
    write_video(path, frames, fps=fps)


def is_stand_in(folder: str | os.PathLike[str]) -> bool:
    """Whether make_stand_in wrote folder."""
    readme = Path(folder) / "README.txt"
    return readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith(STAND_IN_TITLE)


def is_generated(folder: str | os.PathLike[str]) -> bool:
    """Whether a set was generated here: the stand-in, or one whose README says so in its first words."""
    readme = Path(folder) / "README.txt"
    return is_stand_in(folder) or readme.is_file() and readme.read_text(
        encoding="utf-8", errors="replace").startswith("Generated clips")


def _stand_in_names(rng: np.random.Generator) -> Iterator[str]:
    """Names of eleven characters, as the tutorial's clips have."""
    yield "D32_1gwq35E.mp4"  # the clip that the guide opens by name; its label is 0 there and here
    while True:
        yield "".join(rng.choice(list(string.ascii_letters + string.digits), 11)) + ".mp4"


# ---------------------------------------------------------------------------------------------------------------------
# direction
# ---------------------------------------------------------------------------------------------------------------------

# UniformSample takes 8 (or 1, 2, 4, 16) of 33 frames symmetrically: 2 6 10 ... 30 from either end. So twins also agree
# in the set of their sampled frames.
DIRECTION_NUM_FRAMES = 33


def direction_clip(seed: Seed) -> list[Image]:
    """The frames (80, 80, 3) of a shape that moves right; played backwards they are the twin of class "left"."""
    rng = np.random.default_rng(seed)
    side = 80
    # A plain, bright shape on a dark background: the motion is easy to see.
    background = draw_background(rng, width=side, height=side, brightest=100)
    shape = Shape.draw(rng, radius=rng.uniform(9, 15), period=side)
    shape = replace(shape, dark=shape.light)
    # A random start, so that no part of the picture belongs to one class.
    low, high = shape.radius, side - shape.radius
    length = rng.uniform(30, high - low)
    start = rng.uniform(low, high - length)
    xs = np.linspace(start, start + length, DIRECTION_NUM_FRAMES)
    ys = np.linspace(rng.uniform(low, high), rng.uniform(low, high), DIRECTION_NUM_FRAMES)
    return [draw_shape(background, shape, x=x, y=y, vertical=False) for x, y in zip(xs, ys, strict=True)]


def make_direction_set(
    folder: str | os.PathLike[str], *, num_train: int = 200, num_val: int = 60, seed: int = 0,
    on_progress: ClipProgress | None = None,
) -> None:
    """Write clips of a shape that moves right (class 0), each beside the same clip played backwards (class 1).

    Args:
        num_train, num_val: clips, both classes together; even, since clips come in twins.

    Raises:
        ValueError: a number of clips is odd or below 2.
        FileExistsError: folder holds something. It appears only when it is complete.
    """
    for name, value in (("num_train", num_train), ("num_val", num_val)):
        if value < 2 or value % 2:
            raise ValueError(f"{name} is {value}; it must be even and at least 2: clips come in twins")
    names = (f"scene{scene:04d}_{name}.avi" for scene in itertools.count() for name in DIRECTION_CLASSES)
    _write_set(folder, readme=_DIRECTION_README, class_names=DIRECTION_CLASSES,
               num_clips={"train": num_train, "val": num_val}, names=names, write_clip=_write_direction_clip,
               seed=seed, on_progress=on_progress)


def _write_direction_clip(path: Path, seed: Seed, label: int) -> None:
    """Lossless: a lossy codec changes each frame by what came before it, and so gives away the order."""
    frames = direction_clip(seed)
    write_video(path, frames[::-1] if label == 1 else frames, fps=25, codec="ffv1")
