"""Lists of videos and labels: text lists as published, and how they are held in memory."""

import difflib
import hashlib
import math
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import chain
from os import sep
from os.path import basename, exists, isabs, join, relpath
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tinyaction.data.class_folders import is_video
from tinyaction.data.rows import PackedTexts, Rows, read_rows
from tinyaction.data.segments import LABEL_SEPARATOR, Segment, check_no_label, label_names, segment_name
from tinyaction.data.shared_array import shared_field
from tinyaction.data.tables import read_lines, read_text
from tinyaction.places import is_place, join_place, without_secrets

MAX_CLASSES = 100_000
_MAY_LEAVE = re.compile(r"^/|\.\.|[:\\]")


class VideoList:
    """Videos and their labels, held in arrays, so that ten million of them are one copy for all workers.

    ``videos[i]`` is ``(filename, label)`` with ``prefix`` joined to the filename; ``videos.labels`` is (N,) int64.
    ``videos.groups[i]``, where groups are known, names what the video must not be parted from: a person, a recording.
    ``videos.starts`` and ``videos.ends`` are (N,) float64 seconds of a list of segments, ``videos.lines`` (N,) the
    lines where they stand in ``videos.source``; None of a list of whole videos.
    ``videos.label_sets``, where a video may have several labels, is (N, K) uint8, 1 where a class holds; then
    ``labels`` are the first of each, -1 where there is none.
    """

    labels: npt.NDArray[np.int64] = shared_field()
    num_frames: npt.NDArray[np.int64] | None = shared_field()  # of each video, where the list says so
    starts: npt.NDArray[np.float64] | None = shared_field()
    ends: npt.NDArray[np.float64] | None = shared_field()
    lines: npt.NDArray[np.int64] | None = shared_field()
    label_sets: npt.NDArray[np.uint8] | None = shared_field()

    def __init__(
        self, filenames: Iterable[str], labels: Iterable[int], *, prefix: str = "", source: str = "",
        groups: Iterable[str] | None = None,
    ) -> None:
        self._names = filenames if isinstance(filenames, PackedTexts) else PackedTexts(filenames)
        self.labels = labels if isinstance(labels, np.ndarray) else np.frombuffer(labels, np.int64) if isinstance(
            labels, array) else np.fromiter(labels, np.int64)
        self.groups = groups if groups is None or isinstance(groups, PackedTexts) else PackedTexts(groups)
        assert len(self._names) == len(self.labels)
        assert self.groups is None or len(self.groups) == len(self.labels)
        self.prefix = prefix
        self.source = source
        self.columns: dict[str, list[str]] = {}  # further columns of a table: name -> cell of each video

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return join_place(self.prefix, self.name(index)), int(self.labels[index])

    def name(self, index: int) -> str:
        """The file name as it stands in the list, without the prefix."""
        return self._names[index]

    def item_name(self, index: int) -> str:
        """The path of a video, or the name of a segment of it: "clips/long.mp4#t=12.5,15"; without secrets."""
        path = without_secrets(self[index][0])
        return path if self.starts is None or self.ends is None else segment_name(
            path, self.starts[index], self.ends[index])

    def paths(self) -> Iterator[str]:
        """The path of each video, one at a time: faster than ``videos[index]``."""
        return (join_place(self.prefix, name) for name in self._names)

    def item_names(self) -> Iterator[str]:
        """As :meth:`item_name`, of each item."""
        paths = map(without_secrets, self.paths())
        if self.starts is None or self.ends is None:
            return paths
        return map(segment_name, paths, self.starts, self.ends)

    def results(self, index: int) -> dict[str, Any]:
        """The line as a pipeline receives it; see :mod:`tinyaction.data.transforms`."""
        filename, label = self[index]
        results: dict[str, Any] = {"filename": filename, "label": label}
        if self.label_sets is not None:
            results["label"] = torch.from_numpy(self.label_sets[index]).float()  # (K,)
        if self.num_frames is not None:
            results["num_frames"] = int(self.num_frames[index])
        if self.starts is not None and self.ends is not None and self.lines is not None:
            results |= {"start_seconds": float(self.starts[index]), "end_seconds": float(self.ends[index]),
                        "where": f"{self.source}, line {self.lines[index]}"}
        return results

    def row(self, index: int, class_names: Sequence[str]) -> Segment:
        """As the line of a CSV file, without a group where that is the video itself."""
        name = self.name(index)
        group = "" if self.groups is None or self.groups[index] == name else self.groups[index]
        start, end = (0.0, math.inf) if self.starts is None or self.ends is None else (
            float(self.starts[index]), float(self.ends[index]))
        labels = [class_names[self.labels[index]]] if self.label_sets is None else [
            class_name for class_name, holds in zip(class_names, self.label_sets[index], strict=True) if holds]
        return Segment(name, start, end, LABEL_SEPARATOR.join(labels), group=group,
                       others={name: cells[index] for name, cells in self.columns.items()} | (
                            {} if self.num_frames is None else {"num_frames": str(self.num_frames[index])}))

    def subset(self, indices: Sequence[int]) -> "VideoList":
        """The videos of these places, in this order, with all that is known of them."""
        groups = None if self.groups is None else (self.groups[index] for index in indices)
        places = np.asarray(indices, dtype=np.int64)
        videos = VideoList((self.name(index) for index in indices), self.labels[places], prefix=self.prefix,
                           source=self.source, groups=groups)
        for name in ("num_frames", "starts", "ends", "lines", "label_sets"):
            values = getattr(self, name)
            setattr(videos, name, None if values is None else values[places])
        videos.columns = {name: [cells[index] for index in indices] for name, cells in self.columns.items()}
        return videos

    def with_groups(self, groups: Iterable[str]) -> "VideoList":
        """The same videos with a group each."""
        videos = copy(self)
        videos.groups = PackedTexts(groups)
        assert len(videos.groups) == len(self)
        return videos

    def with_names(self, names: Iterable[str]) -> "VideoList":
        """The same videos under other names."""
        videos = copy(self)
        videos._names = PackedTexts(names)
        assert len(videos._names) == len(self)
        return videos

    def joined(self, others: "VideoList") -> "VideoList":
        """These videos and then the others; ValueError where one list only has groups, or segments."""
        for what, is_first, is_second, advice in (
            ("groups", self.groups is not None, others.groups is not None, "a column 'group', or --group-by"),
            ("segments", self.starts is not None, others.starts is not None, "columns 'start' and 'end'"),
            ("several labels", self.label_sets is not None, others.label_sets is not None, "--multi-label"),
        ):
            if is_first != is_second:
                has, lacks = (self, others) if is_first else (others, self)
                raise ValueError(f"{has.source} has {what} and {lacks.source} has none; give both {advice}")
        groups = None if self.groups is None or others.groups is None else chain(self.groups, others.groups)
        source = self.source if self.source == others.source else f"{self.source} and {others.source}"
        videos = VideoList(chain(self.paths(), others.paths()), np.concatenate([self.labels, others.labels]),
                           source=source, groups=groups)
        for name in ("num_frames", "starts", "ends", "lines", "label_sets"):
            values = [getattr(part, name) for part in (self, others)]
            setattr(videos, name, None if any(value is None for value in values) else np.concatenate(values))
        return videos

    def use_label_sets(self, num_classes: int) -> None:
        """Give each video the set of its one label, unless they have sets."""
        if self.label_sets is None:
            self.label_sets = label_sets(self.labels[:, None].tolist(), num_classes)

    def label_bytes(self) -> bytes:
        """All labels, for a digest."""
        return (self.labels if self.label_sets is None else self.label_sets).tobytes()

    def digest(self) -> str:
        """A number of the videos' names and labels, in their order, whatever folder they lie in."""
        content = hashlib.sha256(self.label_bytes())
        for name in self.item_names():
            content.update(basename(name).encode("utf-8", "surrogateescape") + b"\0")
        return content.hexdigest()[:16]

    def __repr__(self) -> str:
        return f"VideoList({len(self)} videos, {len(np.unique(self.labels))} classes, from {self.source})"


def read_list(
    ann_file: str | Path, *, prefix: str = "", num_classes: int | None = None, within: str | Path | None = None,
    class_names: Sequence[str] | None = None,
) -> VideoList:
    """Read lines "path label"; the label is the last word, so paths may contain spaces; blank lines are passed over.

    Lists of folders of frames may have lines "path num_frames label" (MMAction2's raw frames, TSM); it is such a list
    where the path of the first line is there without the number behind it, and not with it.
    ``within`` is a folder that no path may leave; None allows all. A CSV file may have segments; see
    :mod:`tinyaction.data.segments`. Its labels are among the ``class_names``, by default its own, sorted.

    Raises:
        ValueError: no line at all, a line without a label, a label that is negative or not below ``num_classes``;
            the message names the file and the line.
        FileNotFoundError: there is no such file.
    """
    if Path(ann_file).suffix.lower() in (".csv", ".tsv"):
        rows = read_rows(ann_file)
        check_no_label(rows.first_of_labels().values())
        if within is not None:
            for name, where in zip(rows.paths, rows.wheres(), strict=True):
                check_within(within, prefix, name, where)
        class_names = names_of_labels(rows.first_of_labels().values(), class_names)
        return videos_of_rows(rows, class_names, prefix=prefix, source=str(ann_file))
    labels, counts = array("q"), array("q")

    def paths() -> Iterator[str]:
        for path, label, num_frames in _rows_of_list(ann_file, prefix, num_classes, within):
            labels.append(label)
            if num_frames is not None:
                counts.append(num_frames)
            yield path

    names = PackedTexts(paths())
    if not labels:
        raise ValueError(f"{ann_file}: the list is empty; a line is 'path label'")
    videos = VideoList(names, labels, prefix=prefix, source=str(ann_file))
    videos.num_frames = np.frombuffer(counts, dtype=np.int64) if counts else None
    return videos


def _rows_of_list(
    ann_file: str | Path, prefix: str, num_classes: int | None, within: str | Path | None
) -> Iterator[tuple[str, int, int | None]]:
    """(path, label, number of frames where the list says so) of each line of a text list."""
    known: dict[str, int] = {}  # label as written -> label: a million lines have few different ones
    has_counts = None
    num_frames = None
    for number, line in enumerate(read_lines(ann_file), start=1):
        words = line.rsplit(maxsplit=1)
        if not words:
            continue
        if len(words) == 1:
            raise ValueError(f"{ann_file}, line {number}: {words[0]!r} has no label; a line is 'path label'")
        path, label = words[0].strip(), words[1]
        if has_counts is None:
            has_counts = ends_with_count(path, prefix)
        if has_counts:
            path, _, count = path.rpartition(" ")
            if not path.strip() or not is_number(count) or int(count) < 1:
                raise ValueError(f"{ann_file}, line {number}: {line.strip()!r}; this list began with 'path num_frames "
                                 "label', so every line is that")
            path, num_frames = path.strip(), int(count)
        clip, _, tail = path.rpartition(" ")
        if is_number(tail) and is_video(Path(clip)) and not exists(join(prefix, path)):
            raise ValueError(f"{ann_file}, line {number}: two numbers behind {clip!r}; a line is 'path label', with "
                             "one label")
        if label not in known:
            known[label] = parse_label(label, f"{ann_file}, line {number}", num_classes)
        if within is not None:
            check_within(within, prefix, path, f"{ann_file}, line {number}")
        check_slashes(prefix, path, f"{ann_file}, line {number}")
        yield path, known[label], num_frames


def videos_of_rows(rows: Rows, class_names: Sequence[str], *, prefix: str, source: str) -> VideoList:
    """The list of the rows of a CSV file; ValueError where a label is none of the class names, or of their numbers."""
    numbers = {name: number for number, name in enumerate(class_names)}
    for name, where in zip(rows.paths, rows.wheres(), strict=True):
        check_slashes(prefix, name, where)
    sets: list[list[int]] = [[0]] * len(rows.labels.texts)  # the numbers of each label
    for place, row in rows.first_of_labels().items():
        sets[place] = [_label_number(name, row.where, numbers) for name in label_names(row)]
    first = np.array([labels[0] if labels else -1 for labels in sets], dtype=np.int64)
    videos = VideoList(rows.paths, first[rows.labels.numbers], prefix=prefix, source=source, groups=rows.groups)
    videos.starts, videos.ends = rows.starts, rows.ends
    videos.lines = None if rows.is_whole else rows.lines.astype(np.int64)
    if any(len(labels) != 1 for labels in sets):
        videos.label_sets = label_sets(sets, len(class_names))[rows.labels.numbers]
    videos.columns = {name: list(cells) for name, cells in rows.others.items()}
    if any(videos.columns.get("num_frames", ())):
        videos.num_frames = np.array([_row_num_frames(row) for row in rows], dtype=np.int64)
    return videos


def _row_num_frames(row: Segment) -> int:
    text = row.others["num_frames"]
    if not is_number(text) or not 1 <= int(text[:20]) < 1 << 31:
        raise ValueError(f"{row.where}: num_frames is {text!r}; it must be a whole number from 1 on in every line")
    return int(text)


def names_of_labels(rows: Iterable[Segment], class_names: Sequence[str] | None) -> list[str]:
    """The class names that are known, or those of the labels: sorted names, or all numbers up to the highest."""
    if class_names is not None:
        return list(class_names)
    labels = {name: row.where for row in rows for name in label_names(row)}
    if all(map(is_number, labels)):
        highest = max((parse_label(name, where, None) for name, where in labels.items()), default=0)
        return [str(number) for number in range(highest + 1)]
    return sorted(labels)


def label_sets(sets: Sequence[Sequence[int]], num_classes: int) -> npt.NDArray[np.uint8]:
    """The labels of each video as (N, K), 1 where a class holds."""
    matrix = np.zeros((len(sets), num_classes), dtype=np.uint8)
    for row, labels in zip(matrix, sets, strict=True):
        row[list(labels)] = 1
    return matrix


def _label_number(name: str, where: str, numbers: dict[str, int]) -> int:
    if name in numbers:
        return numbers[name]
    if is_number(name):
        return parse_label(name, where, len(numbers))
    near = difflib.get_close_matches(name, numbers, 1)
    raise ValueError(f"{where}: the class {name!r} is not among the {len(numbers)} known class names"
                     + (f"; did you mean {near[0]!r}?" if near else ""))


def ends_with_count(path: str, prefix: str) -> bool:
    """Whether "clip 120" is a folder or file "clip" and its number of frames, and not a file of that name."""
    clip, _, count = path.rpartition(" ")
    is_count = is_number(count) and not is_video(Path(clip))
    return is_count and exists(join(prefix, clip.strip())) and not exists(join(prefix, path))


def parse_label(word: str, where: str, num_classes: int | None) -> int:
    if not is_number(word):
        raise ValueError(f"{where}: the label {word!r} is not a whole number; a line is 'path label'")
    label = int(word[:20])  # longer ones are out of range whatever follows
    if label < 0:
        raise ValueError(f"{where}: the label {label} is negative; labels count from 0")
    if num_classes is not None and label >= num_classes:
        raise ValueError(f"{where}: the label {label} is out of range; there are {num_classes} classes, so 0 to "
                         f"{num_classes - 1}")
    if label >= MAX_CLASSES:  # a slip of the key would make a network of that many classes
        raise ValueError(f"{where}: the label {label} is out of range; labels go from 0 to {MAX_CLASSES - 1}")
    return label


def check_label_0(videos: VideoList) -> None:
    """ValueError where the labels of training videos, which have no names, seem to count from 1."""
    is_there = (videos.labels == 0).any() if videos.label_sets is None else videos.label_sets[:, 0].any()
    if len(videos) and not is_there:
        raise ValueError(f"{videos.source}: no video has label 0; do labels count from 1? Here they count from 0; if "
                         "class 0 only has no training video, add a classes.txt with one name a line, or give "
                         "class_names")


def is_number(word: str) -> bool:
    return re.fullmatch("-?[0-9]+", word) is not None


def read_class_names(path: Path) -> list[str]:
    """One name a line; the line's place is the label."""
    text = read_text(path).rstrip()
    names = [name.strip() for name in text.split("\n")] if text else []
    seen: set[str] = set()
    for number, name in enumerate(names, start=1):
        if not name:
            raise ValueError(f"{path}, line {number}: blank; each line names the class of its place, so none is blank")
        if name in seen:
            raise ValueError(f"{path}, line {number}: the class {name!r} is there twice")
        seen.add(name)
    if not names:
        raise ValueError(f"{path}: no class names; one a line, in the order of the labels")
    return names


def check_within(folder: str | Path, prefix: str, name: str, where: str) -> None:
    """ValueError where a path leaves the folder. Links within it are the user's own."""
    if not _MAY_LEAVE.search(name) and f"{prefix}{sep}".startswith(f"{folder}{sep}"):  # nearly all, ten times as fast
        return
    is_absolute = isabs(name) or PureWindowsPath(name).drive != "" or is_place(name)
    if is_absolute or relpath(join(prefix, name), folder).split(sep)[0] == "..":
        raise ValueError(f"{where}: {name!r} leaves the data folder; --allow-outside (allow_outside=True) allows it")


def check_slashes(prefix: str, name: str, where: str) -> None:
    """ValueError where a path was written on Windows, and this is another system."""
    if "\\" in name and sep != "\\" and not exists(join(prefix, name)):
        raise ValueError(f"{where}: {name!r} has backslashes, which only Windows reads; write / between folders")
