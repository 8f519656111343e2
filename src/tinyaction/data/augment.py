"""Further transforms: augmentation beyond the basic recipe, and several crops of a clip for evaluation.

They use the keys of :mod:`tinyaction.data.transforms`, draw once per video and apply the draw to every frame.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from tinyaction.data.transforms import Results, cut_and_resize, rng_of
from tinyaction.video import UInt8Array


@dataclass(frozen=True)
class TorchvisionAugment:
    """Any transform of ``torchvision.transforms.v2`` on uint8 images, with one draw for all frames of a video.

        TorchvisionAugment(v2.RandAugment(num_ops=2, magnitude=7))
        TorchvisionAugment(v2.ColorJitter(0.4, 0.4, 0.4, 0.1))

    torchvision draws from torch's global generator of the CPU. It is seeded from the item's own generator for the
    call and restored afterwards, so a draw depends on the item alone; generators of other devices are not touched.

    Raises:
        ValueError: the transform gives frames that are not uint8.
    """

    transform: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, results: Results) -> Results:
        frames = torch.from_numpy(np.stack(list(results["imgs"]))).permute(0, 3, 1, 2)  # (V*T, C, H, W)
        seed = int(rng_of(results).randint(2**31 - 1))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed every GPU
            frames = self.transform(frames)
        if frames.dtype != torch.uint8:
            raise ValueError(f"{self.transform} gives {frames.dtype} frames; pixels stay uint8 until the model, leave "
                             "out conversions and normalization")
        results["imgs"] = list(frames.permute(0, 2, 3, 1).contiguous().numpy())   # each (H, W, C)
        results["img_shape"] = results["imgs"][0].shape[:2]
        return results


@dataclass(frozen=True)
class VideoMultiScaleCrop:
    """Cut a box of one of a few sizes from one of a few places, and resize it to ``size`` x ``size``, bilinear.

    The two sides of the box are one of ``scales`` of the frame's short side, or neighbours in that list.
    It lies in a corner or the centre, or with ``num_places=13`` also halfway between.
    Source: Wang et al. 2016, "Temporal Segment Networks"; draws as in MMAction2's ``MultiScaleCrop``.
    """

    size: int
    scales: Sequence[float] = field(default=(1, 0.875, 0.75, 0.66), kw_only=True)
    num_places: int = field(default=5, kw_only=True)

    def __post_init__(self) -> None:
        if self.num_places not in (5, 13):
            raise ValueError(f"num_places is {self.num_places}; it must be 5 or 13")
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ValueError(f"scales is {self.scales}; each must be above 0 and at most 1")

    def draw_box(self, height: int, width: int, rng: Any) -> tuple[int, int, int, int]:
        """Draw (left, top, box width, box height) in pixels within a frame of ``height`` x ``width``."""
        sides = [max(1, int(min(height, width) * scale)) for scale in self.scales]
        shapes = [(box_width, box_height) for i, box_height in enumerate(sides) for j, box_width in enumerate(sides)
                  if abs(i - j) <= 1]
        drawn = shapes[int(rng.randint(0, len(shapes)))]
        # Snap a side within 2 pixels of size to it: the box is not resized then.
        box_width, box_height = (
            self.size if abs(side - self.size) < 3 and self.size <= limit else side
            for side, limit in zip(drawn, (width, height), strict=True)
        )
        x, y = (width - box_width) // 4, (height - box_height) // 4
        places = [(0, 0), (4 * x, 0), (0, 4 * y), (4 * x, 4 * y), (2 * x, 2 * y)]
        if self.num_places == 13:
            places += [(0, 2 * y), (4 * x, 2 * y), (2 * x, 4 * y), (2 * x, 0), (x, y), (3 * x, y), (x, 3 * y),
                       (3 * x, 3 * y)]
        left, top = places[int(rng.randint(0, len(places)))]
        return left, top, box_width, box_height

    def __call__(self, results: Results) -> Results:
        height, width = results["img_shape"]
        return cut_and_resize(results, self.draw_box(height, width, rng_of(results)), self.size)


@dataclass(frozen=True)
class VideoThreeCrop:
    """Three squares of ``c_size`` pixels for evaluation: both ends and the middle of the frame's long side.

    The short side must be ``c_size``. Views are three times ``num_clips``, see :func:`view_order`.
    Source: MMAction2's ``ThreeCrop``; the protocol of Wang et al. 2018, "Non-local".
    """

    c_size: int

    def __call__(self, results: Results) -> Results:
        height, width = results["img_shape"]
        if min(height, width) != self.c_size:
            raise ValueError(f"{results.get('filename', 'video')}: three crops of {self.c_size} pixels need frames "
                             f"with a short side of {self.c_size}, they are {width}x{height}; resize to it first")
        x, y = (width - self.c_size) // 2, (height - self.c_size) // 2
        return _several_crops(results, [(0, 0), (2 * x, 2 * y), (x, y)], self.c_size)


@dataclass(frozen=True)
class VideoTenCrop:
    """Ten squares of ``c_size`` pixels for evaluation: the corners and the centre, each also mirrored.

    Views are ten times ``num_clips``, see :func:`view_order`. Source: Krizhevsky et al. 2012; MMAction2's ``TenCrop``.
    """

    c_size: int

    def __call__(self, results: Results) -> Results:
        height, width = results["img_shape"]
        if min(height, width) < self.c_size:
            raise ValueError(f"{results.get('filename', 'video')}: a crop of {self.c_size} pixels does not fit into a "
                             f"frame of {width}x{height} (width x height); resize first, or crop less")
        x, y = (width - self.c_size) // 4, (height - self.c_size) // 4
        places = [(0, 0), (4 * x, 0), (0, 4 * y), (4 * x, 4 * y), (2 * x, 2 * y)]
        return _several_crops(results, [place for place in places for _ in range(2)], self.c_size)


CROPS = {  # number of crops -> their names, in the order in which they are cut
    1: ("centre",),
    3: ("first end", "last end", "centre"),
    10: tuple(f"{place}{mirrored}" for place in ("upper left", "upper right", "lower left", "lower right", "centre")
              for mirrored in ("", " mirrored")),
}


class View(NamedTuple):
    """One of the V views of a video: a clip (frames of one stretch of time) and the crop that is cut from it."""

    clip: int
    crop: str


def view_order(num_clips: int, num_crops: int) -> list[View]:
    """The views of a video in the order in which they stand in ``inputs`` (V, C, T, H, W).

        num_clips = 2, num_crops = 3  ->  clips 0 1 of the first end, 0 1 of the last end, 0 1 of the centre
    """
    return [View(clip, crop) for crop in CROPS[num_crops] for clip in range(num_clips)]


def _several_crops(results: Results, places: Sequence[tuple[int, int]], side: int) -> Results:
    """Cut a square at each (left, top) of ``places``, named as in :data:`CROPS`; views stand in view_order."""
    names = CROPS[len(places)]
    frames = list(results["imgs"])
    T = len(frames) // results["num_clips"]
    crops: list[UInt8Array] = []
    for clip, crop in view_order(results["num_clips"], len(places)):
        left, top = places[names.index(crop)]
        for frame in frames[clip * T : (clip + 1) * T]:
            square = frame[top : top + side, left : left + side]
            crops.append(square[:, ::-1] if crop.endswith("mirrored") else square)
    results["num_clips"] *= len(places)
    results["imgs"] = crops
    results["img_shape"] = (side, side)
    return results


def flip_label_map(pairs: str, class_names: Sequence[str]) -> Mapping[int, int]:
    """Labels that change places when a video is mirrored, from text like "turn left=turn right,wave l=wave r".

    Raises:
        ValueError: a pair is not "name=name", or a name is no class.
    """
    numbers = {name: label for label, name in enumerate(class_names)}
    swapped: dict[int, int] = {}
    for pair in filter(None, (text.strip() for text in pairs.split(","))):
        names = [name.strip() for name in pair.split("=")]
        unknown = [name for name in names if name not in numbers]
        if len(names) != 2 or unknown:
            reason = f"{unknown[0]!r} is no class" if len(names) == 2 else "it must be name=name"
            raise ValueError(f"--flip-pairs has {pair!r}: {reason}; the classes are {', '.join(class_names[:8])}"
                             f"{', ...' if len(class_names) > 8 else ''}")
        first, second = (numbers[name] for name in names)
        swapped[first], swapped[second] = second, first
    return swapped
