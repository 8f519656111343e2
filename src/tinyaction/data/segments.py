"""Segments of videos: a label with a start and an end, as a CSV file lists them.

    path,start,end,label
    long.mp4,12.5,15,fall
    long.mp4,0:01:20,0:01:24.5,sit down

Times are seconds, or ``h:mm:ss.s`` or ``m:ss``, from the first frame of the video. A segment has the frames whose time
lies in [start, end). Columns ``split`` and ``group`` may follow.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from os.path import normpath
from pathlib import Path
from typing import Any

from tinyaction.data.lists import read_text
from tinyaction.data.published_lists import delimiter_of
from tinyaction.files import write_whole
from tinyaction.video.segment import TIME_TOLERANCE

COLUMNS = ("path", "start", "end", "label")
NUM_DECIMALS = 6  # of the seconds in files
_FRAGMENT = re.compile(r"#t=[0-9.]+,[0-9.]+$")
_TIME = re.compile(r"(?:(?:([0-9]+):)?([0-9]+):)?([0-9]+(?:[.,][0-9]*)?)")


@dataclass(frozen=True)
class Segment:
    """A stretch of a video, from ``start`` to before ``end`` in seconds, and its label.

    Attributes:
        path: as it stands in the file.
        split: "train", "val" or "test"; "" where the file does not say.
        group: whose videos stay together when they are split; "" where the file does not say.
        where: "file, line n", for messages.
    """

    path: str
    start: float
    end: float
    label: str
    split: str = ""
    group: str = ""
    where: str = field(default="", compare=False)


def read_segments(path: str | Path, *, overlap: bool = False) -> list[Segment]:
    """Read a CSV file of segments; see this module's docstring.

    Args:
        overlap: segments of one video may overlap.

    Raises:
        ValueError: a column or a cell is missing, a time is wrong, or what :func:`check_segments` raises; the file,
            the line, the value and the rule are named.
        FileNotFoundError: there is no such file.
    """
    segments = [
        Segment(cells["path"], *parse_range(cells["start"], cells["end"], where), cells["label"],
                cells.get("split", "").lower(), cells.get("group", ""), where)
        for where, cells in read_table(path, COLUMNS)
    ]
    check_segments(segments, overlap=overlap)
    return segments


def write_segments(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write a CSV file that :func:`read_segments` reads; columns ``split`` and ``group`` where a segment has one."""
    columns = [*COLUMNS, *(name for name in ("split", "group") if any(getattr(item, name) for item in segments))]
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for item in segments:
        cells = vars(item) | {"start": format_seconds(item.start), "end": format_seconds(item.end)}
        table.writerow(cells[column] for column in columns)
    write_whole(path, text.getvalue())


def parse_seconds(text: str, where: str) -> float:
    """Seconds of "12.5", "1:02.5" or "1:00:02.5"; ``where`` begins the message of the ValueError."""
    match = _TIME.fullmatch(text.strip())
    seconds = float(match[3].replace(",", ".")) if match else 0.0
    if match is None or match[2] and (seconds >= 60 or match[1] and int(match[2]) >= 60) or len(text) > 30:
        raise ValueError(f"{where}: the time {text!r} is none; write seconds (12.5) or h:mm:ss.s (0:00:12.5)")
    return seconds + 60 * int(match[2] or 0) + 3600 * int(match[1] or 0)


def parse_range(start_text: str, end_text: str, where: str) -> tuple[float, float]:
    """(start, end) in seconds; ValueError where the end is not after the start."""
    start, end = parse_seconds(start_text, where), parse_seconds(end_text, where)
    if end <= start:
        raise ValueError(f"{where}: the segment starts at {start_text} and ends at {end_text}; it must end after it "
                         "starts")
    return start, end


def segment_name(path: str, start: float, end: float) -> str:
    """The name of a segment in results: "long.mp4#t=12.5,15". Source: W3C Media Fragments URI, 4.2.1."""
    return f"{path}#t={format_seconds(start)},{format_seconds(end)}"


def split_segment_name(name: str) -> tuple[str, str]:
    """(path, "#t=12.5,15") of :func:`segment_name`; ("long.mp4", "") of a path."""
    match = _FRAGMENT.search(name)
    return (name[: match.start()], match[0]) if match else (name, "")


def format_seconds(seconds: float) -> str:
    """Seconds as files have them: "12.5", "0.033333"."""
    return f"{seconds:.{NUM_DECIMALS}f}".rstrip("0").rstrip(".")


def check_segments(segments: Sequence[Segment], *, overlap: bool = False) -> None:
    """Raise ValueError where a segment is there twice or, without ``overlap``, two of one video overlap."""
    by_path: dict[str, list[Segment]] = {}
    for item in segments:
        by_path.setdefault(normpath(item.path), []).append(item)
    for items in by_path.values():
        items.sort(key=lambda item: (item.start, item.end, item.label))
        for first, second in pairwise(items):
            both = f"{second.where}: {_span(second)} of {second.path!r} ({second.label})"
            if (first.start, first.end, first.label) == (second.start, second.end, second.label):
                raise ValueError(f"{both} is there twice, first in {first.where}; delete one")
            if not overlap and second.start < first.end - TIME_TOLERANCE:
                raise ValueError(f"{both} overlaps {_span(first)} ({first.label}) of {first.where}; with one label a "
                                 "frame, segments of a video must not overlap")


def _span(item: Segment) -> str:
    return f"{format_seconds(item.start)} to {format_seconds(item.end)} s"


# ---- tables --------------------------------------------------------------------------------------------------------


def read_table(path: str | Path, required: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ("file, line n", cells by column) of a CSV file, the cells without spaces around them.

    Commas, semicolons or tabs may separate the cells; the names of the columns are taken in lower case.

    Raises:
        ValueError: a column or a cell of ``required`` is missing, a line has too many cells, or there is no line.
    """
    text = read_text(path)
    table = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, delimiter=delimiter_of(text))
    columns = [(name or "").strip().lower() for name in table.fieldnames or []]
    expected = ",".join(required)
    if not set(required) <= set(columns):
        raise ValueError(f"{path}, line 1: columns {', '.join(columns) or '(none)'}; a table begins with "
                         f"'{expected}' or '{expected},split'")
    table.fieldnames = columns
    is_empty = True
    for values in _rows_of(table, path):
        where = f"{path}, line {table.line_num}"
        if None in values:
            raise ValueError(f"{where}: {len(columns)} columns, but more cells; a path with a comma goes into quotes")
        cells = {column: (cell or "").strip() for column, cell in values.items()}
        for column in required:
            if not cells[column]:
                raise ValueError(f"{where}: no {column}; a line is '{expected}[,split]'")
        is_empty = False
        yield where, cells
    if is_empty:
        raise ValueError(f"{path}: the table is empty; a line is '{expected}[,split]'")


def _rows_of(table: "csv.DictReader[str]", path: str | Path) -> Iterator[dict[Any, Any]]:
    try:
        yield from table
    except csv.Error as error:  # a quote that is never closed, mostly
        raise ValueError(f"{path}, line {table.line_num + 1}: {error}") from None
