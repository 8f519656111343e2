"""Draw on frames: labels, heat, timelines. Text and sheets are in ``results.sheets``."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tinyaction.inference.prediction import Window
from tinyaction.inference.timeline import merge_windows, window_edges
from tinyaction.results.sheets import GREY, INK, LINE, MARGIN, PAPER, write
from tinyaction.results.timeline_metrics import Segment
from tinyaction.results.timeline_picture import COLOURS, clock, tick_seconds
from tinyaction.video import UInt8Array

MOST_ROWS = 8  # classes of a timeline
ROW = 30  # height of a row of a timeline, pixels


def with_label(frame: UInt8Array, text: str) -> UInt8Array:
    """Copy a frame (H, W, 3) and write white text on a dark strip along its lower edge."""
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
    """Lay heat (H, W), 0..1, over a frame (H, W, 3): 0 is transparent, then blue, green, yellow, red."""
    colours = cv2.applyColorMap((255 * np.clip(heat, 0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    share = 0.65 * np.sqrt(np.clip(heat, 0, 1))[..., None]             # cold places stay as they are
    return np.asarray(frame * (1 - share) + colours * share + 0.5).astype(np.uint8)


def enlarged(frame: UInt8Array, side: int) -> UInt8Array:
    """Enlarge a frame by a whole factor until its longer side is at least ``side`` pixels."""
    factor = -(-side // max(frame.shape[:2]))
    if factor <= 1:
        return frame
    size = (frame.shape[1] * factor, frame.shape[0] * factor)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def draw_timeline(title: str, windows: Sequence[Window], *, width: int = 1000) -> UInt8Array:
    """Draw windows at their times: a band of segments, below it a row per class. (H, width, 3) RGB.

    A row is as strong as the score of its class; what lies between windows was not seen and stays white. Of many
    classes the :data:`MOST_ROWS` with the highest scores are drawn.
    """
    segments = merge_windows(windows)
    class_names = windows[0].prediction.class_names
    scores = np.array([window.prediction.scores for window in windows])  # (S, K)
    shown = sorted(np.argsort(-scores.max(axis=0), kind="stable")[:MOST_ROWS].tolist())
    colours = {class_names[label]: COLOURS[min(row, len(COLOURS) - 1)] for row, label in enumerate(shown)}
    place = _TimelinePlaces(windows[0].start_seconds, windows[-1].end_seconds, num_rows=len(shown), width=width)
    canvas = np.full((place.axis + 2 * LINE, width, 3), PAPER, np.uint8)
    for segment in segments:
        canvas[place.band : place.band + ROW, place.x(segment.start_seconds) : place.x(segment.end_seconds)] = \
            colours.get(segment.label, COLOURS[-1])
    over_time = _scores_over_time(windows, scores[:, shown], place.seconds())  # (pixels, rows), NaN where not seen
    for row, label in enumerate(shown):
        top = place.row(row)
        canvas[top : top + ROW - 4, place.left : place.right] = _shades(over_time[:, row], colours[class_names[label]])
    picture = Image.fromarray(canvas)
    _write_labels(ImageDraw.Draw(picture), place, title, segments, [class_names[label] for label in shown])
    return np.asarray(picture)


@dataclass
class _TimelinePlaces:
    """Where things are in the picture of a timeline, in pixels."""

    start_seconds: float
    end_seconds: float
    num_rows: int
    width: int
    left: int = 190
    band: int = MARGIN + LINE

    @property
    def right(self) -> int:
        return self.width - 3 * MARGIN

    @property
    def axis(self) -> int:
        return self.row(self.num_rows) + 8 + MARGIN

    def row(self, number: int) -> int:
        """The upper edge of a class's row."""
        return self.band + 2 * ROW - 8 + number * ROW

    def x(self, seconds: float) -> int:
        share = (seconds - self.start_seconds) / (self.end_seconds - self.start_seconds)
        return self.left + round(share * (self.right - self.left))

    def seconds(self) -> npt.NDArray[np.float64]:
        """The moment at the middle of each pixel column from ``left`` to ``right``."""
        num_pixels = self.right - self.left
        shares = (np.arange(num_pixels) + 0.5) / num_pixels
        return self.start_seconds + shares * (self.end_seconds - self.start_seconds)


def _scores_over_time(
    windows: Sequence[Window], scores: npt.NDArray[np.floating], seconds: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Scores (S, R) of windows at moments (P,): (P, R), NaN at moments that no window covers.

    A moment has the mean score of the windows that count between it and the next moment, at least of the one at it.
    """
    edges = np.array(window_edges(windows))
    first = np.clip(np.searchsorted(edges, seconds, side="right") - 1, 0, len(windows) - 1)
    last = np.maximum(first, np.append(first[1:], first[-1]) - 1)
    sums = np.concatenate([np.zeros((1, scores.shape[1])), np.cumsum(scores, axis=0)])
    means = (sums[last + 1] - sums[first]) / (last + 1 - first)[:, None]
    starts = np.array([window.start_seconds for window in windows])
    ends = np.array([window.end_seconds for window in windows])
    seen = (starts[first] <= seconds) & (seconds <= ends[first])
    return np.where(seen[:, None], means, np.nan)


def _shades(strengths: npt.NDArray[np.floating], colour: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Strengths (P,), 0..1, as a row of pixels (1, P, 3): from light grey to the colour, paper where NaN."""
    strength = np.clip(strengths, 0, 1)[None, :, None]
    shades = np.array((242, 242, 242)) * (1 - strength) + np.array(colour) * strength
    return np.where(np.isnan(shades), np.array(PAPER), shades).astype(np.uint8)


def _write_labels(pen: ImageDraw.ImageDraw, place: _TimelinePlaces, title: str, segments: Sequence[Segment],
                  row_names: Sequence[str]) -> None:
    """The title, the names of segments and rows, and the time axis."""
    write(pen, (MARGIN, MARGIN - 4), title, size=15, end=place.width - MARGIN)
    write(pen, (MARGIN, place.band + 6), "highest score", size=13, end=place.left - 8, colour=GREY)
    for segment in segments:
        left, right = place.x(segment.start_seconds), place.x(segment.end_seconds)
        if right - left > 64:
            write(pen, (left + 5, place.band + 6), segment.label, size=14, end=right - 4, colour=(255, 255, 255))
    for row, name in enumerate(row_names):
        write(pen, (MARGIN, place.row(row) + 4), name, size=13, end=place.left - 8, colour=INK)
    step = tick_seconds(place.end_seconds - place.start_seconds)
    for number in range(int((place.end_seconds - place.start_seconds) / step + 1e-9) + 1):
        seconds = place.start_seconds + number * step
        x = place.x(seconds)
        pen.line([(x, place.axis - 8), (x, place.axis - 2)], fill=GREY)
        write(pen, (max(place.left, x - 18), place.axis), clock(seconds), size=12, end=place.width, colour=GREY)
