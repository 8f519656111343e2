"""Frames with something drawn on them: labels, heat, timelines. Text and sheets are in ``results.sheets``."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tinyaction.inference.timeline import Segment, clock
from tinyaction.results.sheets import GREY, INK, LINE, MARGIN, PAPER, write
from tinyaction.video import UInt8Array

# Of classes, in the order in which they come. Source: Okabe and Ito 2008, for people with any kind of colour vision.
COLOURS = [(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (120, 120, 120)]
MOST_ROWS = 8  # classes of a timeline


def with_label(frame: UInt8Array, text: str) -> UInt8Array:
    """A copy of a frame (H, W, 3) with a line of white text on a dark strip along its lower edge."""
    height = max(16, frame.shape[0] // 12)
    strip = _strip(text, frame.shape[1], min(height, frame.shape[0]))  # (h, W, 3)
    drawn = frame.copy()
    below = drawn[-strip.shape[0]:]
    below[:] = np.maximum(below // 3, strip)
    return drawn


@lru_cache(maxsize=64)
def _strip(text: str, width: int, height: int) -> UInt8Array:
    """White text on black, (height, width, 3)."""
    picture = Image.new("RGB", (width, height))
    write(ImageDraw.Draw(picture), (height // 4, height // 10), text, size=max(9, height * 2 // 3),
          end=width - height // 4, colour=(255, 255, 255))
    return np.asarray(picture)


def with_heat(frame: UInt8Array, heat: npt.NDArray[np.floating]) -> UInt8Array:
    """A frame (H, W, 3) with heat (H, W), 0..1, over it: from nothing over blue, green and yellow to red."""
    colours = cv2.applyColorMap((255 * np.clip(heat, 0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    share = 0.65 * np.sqrt(np.clip(heat, 0, 1))[..., None]             # cold places stay as they are
    return np.asarray(frame * (1 - share) + colours * share + 0.5).astype(np.uint8)


def enlarged(frame: UInt8Array, side: int) -> UInt8Array:
    """A frame whose longer side is at least ``side`` pixels, smoothly enlarged by a whole factor."""
    factor = -(-side // max(frame.shape[:2]))
    if factor <= 1:
        return frame
    size = (frame.shape[1] * factor, frame.shape[0] * factor)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def draw_timeline(
    title: str, segments: Sequence[Segment], scores: npt.NDArray[np.floating], class_names: Sequence[str], *,
    width: int = 1000,
) -> UInt8Array:
    """A picture (H, width, 3) RGB: the segments in their colours above, below a row a class with its score over time.

    ``scores`` (S, K): of windows that are spread evenly from the first segment's start to the last one's end. Where
    there are many classes, the :data:`MOST_ROWS` that score highest somewhere are drawn.
    """
    peaks = scores.max(axis=0)
    shown = sorted(np.argsort(-peaks, kind="stable")[:MOST_ROWS].tolist())
    colours = {class_names[label]: COLOURS[min(place, len(COLOURS) - 1)] for place, label in enumerate(shown)}
    left, right, row = 190, width - 3 * MARGIN, 30
    axis = MARGIN + LINE + 2 * row + row * len(shown) + MARGIN
    canvas = np.full((axis + 2 * LINE, width, 3), PAPER, np.uint8)
    start, end = segments[0].start_seconds, segments[-1].end_seconds
    pixels = (right - left) / (end - start)

    def x(seconds: float) -> int:
        return left + round((seconds - start) * pixels)

    top = MARGIN + LINE
    for segment in segments:
        colour = colours.get(segment.label, COLOURS[-1])
        canvas[top:top + row, x(segment.start_seconds):x(segment.end_seconds)] = colour
    for place, label in enumerate(shown):
        above = top + 2 * row - 8 + place * row
        strength = cv2.resize(scores[:, label].astype(np.float32)[None], (right - left, 1),
                              interpolation=cv2.INTER_AREA if len(scores) > right - left else cv2.INTER_NEAREST)[0]
        strength = np.clip(strength, 0, 1)[None, :, None]
        full, none = np.array(colours[class_names[label]]), np.array((242, 242, 242))
        canvas[above:above + row - 4, left:right] = none * (1 - strength) + full * strength

    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    write(pen, (MARGIN, MARGIN - 4), title, size=15, end=width - MARGIN)
    write(pen, (MARGIN, top + 6), "highest score", size=13, end=left - 8, colour=GREY)
    for segment in segments:
        room = x(segment.end_seconds) - 4
        if room - x(segment.start_seconds) > 60:
            write(pen, (x(segment.start_seconds) + 5, top + 6), segment.label, size=14, end=room,
                  colour=(255, 255, 255))
    for place, label in enumerate(shown):
        write(pen, (MARGIN, top + 2 * row - 4 + place * row), class_names[label], size=13, end=left - 8, colour=INK)
    step = _tick_seconds(end - start)
    for number in range(int((end - start) / step + 1e-9) + 1):
        at = x(start + number * step)
        pen.line([(at, axis - 8), (at, axis - 2)], fill=GREY)
        write(pen, (max(left, at - 18), axis), clock(start + number * step), size=12, end=width, colour=GREY)
    return np.asarray(picture)


def _tick_seconds(seconds: float) -> float:
    """The step of a time axis: about eight ticks."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)
    return next((step for step in steps if seconds / step <= 9), seconds)
