"""Charts of a run as inline SVG and HTML: data in, text out; a browser draws them.

Colours come from the CSS variables of the page they stand in (see report.css), so a chart follows its light or dark
theme. Everything that is text is escaped here: a class may be called ``<b>``.
"""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 360, 220  # of a chart, in its own units; one is about a pixel on a phone
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 34  # margins: numbers on the left, epochs below


@dataclass
class Series:
    """One line, or one part of stacked bars: a value per epoch, NaN where missing; ``css_class`` gives the colour."""

    name: str
    values: Sequence[float]
    css_class: str


def line_chart(
    epochs: Sequence[int], series: Sequence[Series], *, label: str, lowest: float, highest: float | None = None,
    best: int | None = None,
) -> str:
    """Draw lines over epochs as SVG. ``lowest`` and ``highest`` bound the axis; None is the highest value.

    ``best`` is an epoch to mark.
    """
    if highest is None:
        highest = max((value for line in series for value in line.values if math.isfinite(value)), default=lowest + 1)
    axis = Axis(epochs, lowest, highest)
    parts = [axis.svg()]
    if best is not None and len(epochs) > 1:
        parts.append(f'<line class="best" x1="{axis.x(best):.1f}" x2="{axis.x(best):.1f}" y1="{TOP}" '
                     f'y2="{HEIGHT - BOTTOM}"><title>best epoch, {best}</title></line>')
    for line in series:
        for run in _finite_runs(epochs, line.values):
            points = " ".join(f"{axis.x(epoch):.1f},{axis.y(value):.1f}" for epoch, value in run)
            parts.append(f'<polyline class="line {line.css_class}" points="{points}"/>')
            if len(run) == 1:
                parts.append(f'<circle class="dot {line.css_class}" cx="{axis.x(run[0][0]):.1f}" '
                             f'cy="{axis.y(run[0][1]):.1f}" r="3"/>')
    parts.append(axis.tooltips(series))
    return _figure("".join(parts), label, series)


def stacked_bars(epochs: Sequence[int], series: Sequence[Series], *, label: str) -> str:
    """Draw bars over epochs as SVG, the series stacked on one another."""
    totals = [sum(values) for values in zip(*(part.values for part in series), strict=True)]
    axis = Axis(epochs, 0.0, max((total for total in totals if math.isfinite(total)), default=1.0), bars=True)
    width = min(24.0, 0.8 * axis.step)
    parts = [axis.svg()]
    base = np.zeros(len(epochs))
    for part in series:
        values = np.nan_to_num(np.asarray(part.values, dtype=float))
        for epoch, low, value in zip(epochs, base, values, strict=True):
            top, bottom = axis.y(low + value), axis.y(low)
            parts.append(f'<rect class="bar {part.css_class}" x="{axis.x(epoch) - width / 2:.1f}" y="{top:.1f}" '
                         f'width="{width:.1f}" height="{bottom - top:.1f}"/>')
        base = base + values
    parts.append(axis.tooltips(series))
    return _figure("".join(parts), label, series)


class Axis:
    """Map epochs and values to places in the drawing."""

    def __init__(self, epochs: Sequence[int], lowest: float, highest: float, *, bars: bool = False) -> None:
        self.ticks = nice_ticks(lowest, highest)
        self.lowest, self.highest = self.ticks[0], max(highest, self.ticks[-1])
        self.epochs = list(epochs)
        first, last = (min(epochs), max(epochs)) if epochs else (0, 1)
        half = 0.5 if bars or first == last else 0.0  # bars, and a single point, need room to their left and right
        self.first, self.last = first - half, last + half
        self.step = (WIDTH - LEFT - RIGHT) / (self.last - self.first)  # between two epochs

    def x(self, epoch: float) -> float:
        return LEFT + (epoch - self.first) * self.step

    def y(self, value: float) -> float:
        share = (value - self.lowest) / (self.highest - self.lowest)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def svg(self) -> str:
        parts = []
        for tick in self.ticks:
            y = self.y(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                         f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
        for epoch in whole_ticks(self.epochs):
            parts.append(f'<text class="tick" x="{self.x(epoch):.1f}" y="{HEIGHT - BOTTOM + 15}" '
                         f'text-anchor="middle">{epoch}</text>')
        middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
        parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">epoch</text>')
        return "".join(parts)

    def tooltips(self, series: Sequence[Series]) -> str:
        """An invisible column over each epoch, whose tooltip shows its numbers."""
        parts = []
        for place, epoch in enumerate(self.epochs):
            numbers = ", ".join(f"{line.name} {line.values[place]:.4g}" for line in series)
            parts.append(f'<rect class="over" x="{self.x(epoch) - self.step / 2:.1f}" y="{TOP}" '
                         f'width="{self.step:.1f}" height="{HEIGHT - TOP - BOTTOM}">'
                         f"<title>epoch {epoch}: {escape(numbers)}</title></rect>")
        return "".join(parts)


class ReliabilityBin(Protocol):
    """What :func:`reliability_chart` draws; :class:`tinyaction.results.calibration.Bin` is one."""

    @property
    def confidence(self) -> float: ...
    @property
    def accuracy(self) -> float: ...
    @property
    def num_videos(self) -> int: ...


def reliability_chart(bins: Sequence[ReliabilityBin]) -> str:
    """Draw accuracy over score as SVG: a dot a bin, the larger the more videos; on the diagonal scores are true."""
    def x(share: float) -> float:
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(share: float) -> float:
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = []
    for share in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>'
                     f'<text class="tick" x="{LEFT - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:g}</text>'
                     f'<text class="tick" x="{x(share):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{share:g}'
                     "</text>")
    parts.append(f'<text class="tick" x="{x(0.5)}" y="{HEIGHT - 4}" text-anchor="middle">score</text>'
                 f'<line class="best" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>')
    most = max((part.num_videos for part in bins), default=1)
    for part in bins:
        says = f"{part.num_videos} videos: score {part.confidence:.3f}, accuracy {part.accuracy:.3f}"
        parts.append(f'<circle class="dot train" cx="{x(part.confidence):.1f}" cy="{y(part.accuracy):.1f}" '
                     f'r="{2.5 + 7.5 * math.sqrt(part.num_videos / most):.1f}" fill-opacity="0.7">'
                     f"<title>{says}</title></circle>")
    return _figure("".join(parts), "accuracy by score", [])


def nice_ticks(lowest: float, highest: float) -> list[float]:
    """Round numbers, 1, 2 or 5 x 10^n apart, from at or below ``lowest`` to at or below ``highest``.

        0, 0.7  ->  0 0.2 0.4 0.6        0, 1  ->  0 0.2 0.4 0.6 0.8 1        3, 3  ->  3 3.2 3.4 3.6 3.8 4
    """
    if not highest > lowest:
        highest = lowest + 1
    rough = (highest - lowest) / 5                                     # at most 6 ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    start = math.floor(lowest / step + 1e-9)
    return [round(number * step, 12) for number in range(start, math.floor(highest / step + 1e-9) + 1)]


def whole_ticks(epochs: Sequence[int]) -> list[int]:
    """The epochs to label on the axis: the first one, and every 1st, 2nd, 5th, 10th ... one."""
    if not epochs:
        return []
    step = next(factor * 10**power for power in range(12) for factor in (1, 2, 5)
                if (max(epochs) - min(epochs)) / (factor * 10**power) < 8)
    return [epoch for epoch in epochs if epoch == min(epochs) or epoch % step == 0 and epoch - min(epochs) >= step / 2]


def confusion_chart(matrix: npt.NDArray[np.int64], class_names: Sequence[str]) -> str:
    """Draw the cells of a matrix (K, K) that are not 0 as SVG: row = true class, column = predicted class.

    A cell is as dark as its share of the row. Up to 60 classes or so rows and columns carry names; beyond that a cell
    says what it is when pointed at.
    """
    K = len(class_names)
    cell = max(3, min(56, 720 // K))
    named = cell >= 11
    labels = [shortened(name, 26) for name in class_names]
    margin = round(max(map(columns_of, labels)) * 6.8) + 12 if named else 0  # of a monospaced font, 11 px
    width = height = margin + K * cell
    left = top = margin
    parts = []
    for number, (label, name) in enumerate(zip(labels, class_names, strict=True) if named else ()):
        middle = margin + number * cell + cell / 2
        text = f"{escape(label)}<title>{escape(name)}</title></text>"
        parts.append(f'<text class="rowname" direction="ltr" x="{left - 8}" y="{middle + 4:.1f}" '
                     f'text-anchor="end">{text}<text class="rowname" direction="ltr" '
                     f'transform="translate({middle + 4:.1f} {top - 8}) rotate(-90)">{text}')
    size = K * cell
    parts.append(f'<rect class="ground" x="{left}" y="{top}" width="{size}" height="{size}"/>')
    num_videos = matrix.sum(axis=1)
    gap, faintest = (1, 0.2) if cell >= 8 else (0, 0.5)
    for true, predicted in zip(*(axis.tolist() for axis in np.nonzero(matrix)), strict=True):
        count = int(matrix[true, predicted])
        share = count / int(num_videos[true])
        x, y = left + predicted * cell, top + true * cell
        kind = "right" if true == predicted else "wrong"
        says = f"{class_names[true]} → {class_names[predicted]}: {count} of {int(num_videos[true])}"
        parts.append(f'<rect class="cell {kind}" x="{x + gap}" y="{y + gap}" width="{cell - 2 * gap}" '
                     f'height="{cell - 2 * gap}" data-true="{true}" data-predicted="{predicted}" '
                     f'fill-opacity="{faintest + (1 - faintest) * share:.2f}">'
                     f"<title>{escape(says)}</title></rect>")
        if cell >= 7 * len(str(count)) + 4 and cell >= 12:
            ink = "strong" if share > 0.5 else "weak"
            parts.append(f'<text class="count {ink}" x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}" '
                         f'text-anchor="middle">{count}</text>')
    return (f'<svg class="matrix" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="confusion matrix">{"".join(parts)}</svg>')


def isolated(text: str) -> str:
    """Mark a name within a sentence, so that a right-to-left name does not reorder the words after it."""
    return f"\u2068{text}\u2069"


def class_bars(names: Sequence[str], num_right: Sequence[int], num_videos: Sequence[int]) -> str:
    """Draw a bar per class, in the order given, as HTML, which wraps on a narrow screen.

    After sixty the rest is folded away.
    """
    rows = []
    for name, right, videos in zip(names, num_right, num_videos, strict=True):
        share = right / videos if videos else 0.0
        text = f"{right} of {videos}" if videos else "no videos"
        rows.append(f'<div class="class"><span class="name">{escape(name)}</span>'
                    f'<span class="track"><span class="fill" style="width:{100 * share:.1f}%"></span></span>'
                    f'<span class="value">{text}</span></div>')
    first, rest = (f'<div class="classes">{"".join(part)}</div>' for part in (rows[:60], rows[60:]))
    return first + (f"<details><summary>{len(rows) - 60} more classes</summary>{rest}</details>" if rows[60:] else "")


def columns_of(text: str) -> int:
    """Columns that a text takes in a terminal: wide East Asian letters take two, combining marks none."""
    return sum(0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
               for letter in text)


def shortened(text: str, columns: int) -> str:
    """Return the text, with its middle left out where it needs more than ``columns``."""
    if columns_of(text) <= columns:
        return text
    head, tail = "", ""
    for letter in text:
        if columns_of(head + letter) > (columns - 1) * 2 // 3:
            break
        head += letter
    for letter in reversed(text):
        if columns_of(head + letter + tail) > columns - 1:
            break
        tail = letter + tail
    return f"{head}…{tail}"


def _finite_runs(epochs: Sequence[int], values: Sequence[float]) -> Iterator[list[tuple[int, float]]]:
    """Yield the stretches of a line between its NaNs."""
    run: list[tuple[int, float]] = []
    for epoch, value in zip(epochs, values, strict=True):
        if math.isfinite(value):
            run.append((epoch, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _figure(drawing: str, label: str, series: Sequence[Series]) -> str:
    keys = "".join(f'<span class="key"><i class="{line.css_class}"></i>{escape(line.name)}</span>' for line in series)
    return (f'<figure><figcaption>{escape(label)}<div>{keys}</div></figcaption><svg class="chart" role="img" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{escape(label)}">{drawing}</svg></figure>')
