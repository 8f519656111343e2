"""Rows of a CSV file: whole videos with their labels, or segments of videos, with a start and an end.

    path,start,end,label
    long.mp4,12.5,15,fall
    long.mp4,0:01:20,0:01:24.5,sit down

Times are seconds, or ``h:mm:ss.s`` or ``m:ss``, from the first frame of the video. A segment has the frames whose time
lies in [start, end). Columns ``split`` and ``group`` may follow. Several labels are joined by semicolons:
``wave;walk``; in such a list an empty cell is a video with none of the labels.
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from os.path import normpath
from pathlib import Path

from tinyaction.data.tables import read_table
from tinyaction.files import whole_file
from tinyaction.text import from_cell, to_cell
from tinyaction.video.segment import TIME_TOLERANCE

SPLIT_FILE = "split.csv"  # what find_data writes for class folders that have no train/ and val/
CLEAN_FILE = "clean.csv"  # what `tinyaction check --write-clean` writes; read only where it is named
COLUMNS = ("path", "start", "end", "label")
LABEL_SEPARATOR = ";"  # between the labels of a video that has several
NUM_DECIMALS = 6  # of the seconds in files
_FRAGMENT = re.compile(r"#t=[0-9.]+,[0-9.]+$")
_TIME = re.compile(r"(?:(?:([0-9]+):)?([0-9]+):)?([0-9]+(?:[.,][0-9]*)?)")


@dataclass(frozen=True)
class Segment:
    """A stretch of a video, from ``start`` to before ``end`` in seconds, and its label; a whole one ends at infinity.

    Attributes:
        path: as it stands in the file.
        split: "train", "val" or "test"; "" where the file does not say.
        group: whose videos stay together when they are split; "" where the file does not say.
        where: "file, line n", for messages.
        others: further columns, as written.
    """

    path: str
    start: float
    end: float
    label: str
    split: str = ""
    group: str = ""
    where: str = field(default="", compare=False)
    others: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def is_whole(self) -> bool:
        return self.end == math.inf

    @property
    def name(self) -> str:
        """The path, or the name of the segment; see :func:`segment_name`."""
        return self.path if self.is_whole else segment_name(self.path, self.start, self.end)


def label_names(row: Segment) -> list[str]:
    """The labels of a row: "wave;walk" is two, but one where the video lies in a folder of that name; "" is none.

    Raises ValueError for an empty label, and for one that is there twice.
    """
    if LABEL_SEPARATOR not in row.label or row.label in row.path.split("/"):
        return [row.label] if row.label else []
    names = [name.strip() for name in row.label.split(LABEL_SEPARATOR)]
    for name in names:
        if not name:
            raise ValueError(f"{row.where}: an empty label in {row.label!r}; between two {LABEL_SEPARATOR} is a name")
        if names.count(name) > 1:
            raise ValueError(f"{row.where}: the label {name!r} is there twice in {row.label!r}; name it once")
    return names


def read_segments(path: str | Path, *, overlap: bool = False) -> list[Segment]:
    """Read a CSV file of segments; see this module's docstring.

    Args:
        overlap: segments of one video may overlap.

    Raises:
        ValueError: a column or a cell is missing, a time is wrong, or what :func:`check_segments` raises; the file,
            the line, the value and the rule are named.
        FileNotFoundError: there is no such file.
    """
    rows = list(iter_segments(path, COLUMNS))
    check_segments(rows, overlap=overlap)
    return rows


def check_no_label(rows: Collection[Segment], *, multi_label: bool = False) -> None:
    """Raise ValueError for a row without a label, unless rows may have several, and so none.

    They may with ``multi_label``, or where a row has several. One row of each label is enough.
    """
    empty = next((row for row in rows if not row.label), None)
    if empty is None or (multi_label and any(row.label for row in rows)):
        return
    if not any(len(label_names(row)) > 1 for row in rows):
        columns = ",".join(COLUMNS if not empty.is_whole else ("path", "label"))
        raise ValueError(f"{empty.where}: no label; a line is '{columns}[,split]', and only among lines with several "
                         "labels, or with --multi-label, has a video none")


def iter_segments(path: str | Path, required: Sequence[str], *, may_be_empty: str = "") -> Iterator[Segment]:
    """Yield the rows of a CSV file, of segments or of whole videos; raises as :func:`read_segments`.

    ``may_be_empty``: a required column of which a cell may be empty.
    """
    num_with_group, without_group = 0, ""
    is_ours = Path(path).name in (SPLIT_FILE, CLEAN_FILE)  # safe for spreadsheets
    for where, cells in read_table(path, required, together=("start", "end"), may_be_empty=may_be_empty):
        cells = {column: from_cell(cell) for column, cell in cells.items()} if is_ours else cells
        others = {column: cell for column, cell in cells.items() if column not in ("", *COLUMNS, "split", "group")
                  } if len(cells) > 2 else {}                          # ten million rows mostly have no more
        start, end = parse_range(cells["start"], cells["end"], where) if "start" in cells else (0.0, math.inf)
        group = cells.get("group", "")
        num_with_group += group != ""
        without_group = without_group or ("" if group else where)
        yield Segment(cells["path"], start, end, cells["label"], cells.get("split", "").lower(), group, where, others)
    if num_with_group and without_group:
        raise ValueError(f"{without_group}: no group, but other lines have one; give each line one, or none")


def write_segments(path: str | Path, rows: Collection[Segment]) -> None:
    """Write a CSV file that :func:`read_segments` or, of whole videos, :func:`tinyaction.data.rows.read_rows` reads.

    It has the columns ``split`` and others where a row has one, and ``group`` where all have. In split.csv and
    clean.csv no spreadsheet takes a cell for a formula. Raises UnicodeEncodeError where a name is not UTF-8.
    """
    num_filled: Counter[str] = Counter()
    for row in rows:
        num_filled.update(name for name in ("end", "split", "group") if _cell(row, name))
        num_filled.update(name for name, cell in row.others.items() if cell)
    columns = [column for column in dict.fromkeys((*COLUMNS, "split", "group", *num_filled))
               if column in ("path", "label") or num_filled["end" if column == "start" else column] >= (
                   len(rows) if column == "group" else 1)]
    to_text = to_cell if Path(path).name in (SPLIT_FILE, CLEAN_FILE) else str
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows([to_text(_cell(row, column)) for column in columns] for row in rows)


def _cell(row: Segment, column: str) -> str:
    if column not in ("start", "end"):
        return row.others.get(column, "") if column not in (*COLUMNS, "split", "group") else str(getattr(row, column))
    return "" if row.is_whole else format_seconds(getattr(row, column))


def parse_seconds(text: str, where: str) -> float:
    """Seconds of "12.5", "1:02.5" or "1:00:02.5"; ``where`` begins the message of the ValueError."""
    match = _TIME.fullmatch(text.strip())
    seconds = float(match[3].replace(",", ".")) if match else 0.0
    if match is None or match[2] and (seconds >= 60 or match[1] and int(match[2]) >= 60) or len(text) > 30:
        raise ValueError(f"{where}: the time {text[:40]!r} is none; write seconds (12.5) or h:mm:ss.s (0:00:12.5)")
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


def check_segments(segments: Sequence[Segment], *, overlap: bool = False, multi_label: bool = False) -> None:
    """Raise ValueError where a segment is there twice or, without ``overlap``, two of one video overlap.

    They may overlap as well where a row has several labels, or may have them by ``multi_label``; then a stretch that
    has some is one row with all of them.
    """
    has_sets = multi_label or any(LABEL_SEPARATOR in item.label and len(label_names(item)) > 1 for item in segments)
    by_path: dict[str, list[Segment]] = {}
    for item in segments:
        if item.is_whole:  # may be listed twice, in training and in validation
            continue
        by_path.setdefault(normpath(item.path), []).append(item)
    for items in by_path.values():
        items.sort(key=lambda item: (item.start, item.end, item.label))
        for first, second in pairwise(items):
            both = f"{second.where}: {_span(second)} of {second.path!r} ({second.label})"
            if (first.start, first.end, first.label) == (second.start, second.end, second.label):
                raise ValueError(f"{both} is there twice, first in {first.where}; delete one")
            if has_sets and (first.start, first.end) == (second.start, second.end):
                raise ValueError(f"{both} has the times of {first.where}; join their labels in one line: {first.label}"
                                 f"{LABEL_SEPARATOR}{second.label}")
            if not (overlap or has_sets) and second.start < first.end - TIME_TOLERANCE:
                raise ValueError(f"{both} overlaps {_span(first)} ({first.label}) of {first.where}; with one label a "
                                 "frame, segments of a video must not overlap")


def _span(item: Segment) -> str:
    return f"{format_seconds(item.start)} to {format_seconds(item.end)} s"
