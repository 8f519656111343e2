"""Timelines as pictures: a band of coloured stretches for each of several names, over one axis of time."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from tinyaction.results.sheets import GREY, INK, LINE, MARGIN, PAPER, write
from tinyaction.results.timeline_metrics import Segment
from tinyaction.video import UInt8Array

# Of classes, in the order in which they come. Source: Okabe and Ito 2008, for people with any kind of colour vision.
COLOURS = [(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (120, 120, 120)]
BAND = 22  # height of a band, pixels
LEFT = 190  # where the time begins, pixels
NO_BAND = (242, 242, 242)


def draw_bands(
    title: str, bands: Sequence[tuple[str, Sequence[Segment]]], class_names: Sequence[str], *, seconds: float,
    width: int = 1000,
) -> UInt8Array:
    """Draw segments from 0 to ``seconds``, a band a name; a band with the name "" is a gap. (H, width, 3) RGB."""
    top, right = MARGIN + LINE, width - 3 * MARGIN
    axis = top + len(bands) * (BAND + 4) + 8
    picture = Image.new("RGB", (width, axis + LINE + LINE), PAPER)
    pen = ImageDraw.Draw(picture)
    write(pen, (MARGIN, MARGIN - 4), title, size=15, end=width - MARGIN)

    def x(time: float) -> int:
        return LEFT + round(min(max(time / seconds, 0), 1) * (right - LEFT))

    for row, (name, segments) in enumerate(bands):
        upper = top + row * (BAND + 4)
        if not name:
            continue
        write(pen, (MARGIN, upper + 2), name, size=13, end=LEFT - 8, colour=INK)
        pen.rectangle([LEFT, upper, right, upper + BAND - 1], fill=NO_BAND)
        for one in segments:
            pen.rectangle([x(one.start_seconds), upper, max(x(one.end_seconds) - 1, x(one.start_seconds)),
                           upper + BAND - 1], fill=colour_of(one.label, class_names))
    step = tick_seconds(seconds)
    for number in range(int(seconds / step + 1e-9) + 1):
        place = x(number * step)
        pen.line([(place, axis - 8), (place, axis - 2)], fill=GREY)
        write(pen, (max(LEFT, place - 18), axis), clock(number * step), size=12, end=width, colour=GREY)
    left = LEFT
    for name in class_names:
        pen.rectangle([left, axis + LINE, left + 12, axis + LINE + 12], fill=colour_of(name, class_names))
        left = write(pen, (left + 18, axis + LINE - 2), name, size=13, end=width - MARGIN, colour=INK) + 18
    return np.asarray(picture)


def colour_of(label: str, class_names: Sequence[str]) -> tuple[int, int, int]:
    """The last colour is for all classes that come after those before it, and for unknown ones."""
    return COLOURS[min(list(class_names).index(label), len(COLOURS) - 1)] if label in class_names else COLOURS[-1]


def clock(seconds: float) -> str:
    """Format as 1:05 or 1:02:03, with tenths where they are not 0."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"


def tick_seconds(seconds: float) -> float:
    """The step of a time axis: about eight ticks."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)
    return next((step for step in steps if seconds / step <= 9), seconds)
