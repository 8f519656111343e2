"""Texts and rows of lists held in arrays: :class:`PackedTexts`, :class:`Rows`."""

import math
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyaction.data.segments import LABEL_SEPARATOR, Segment, check_segments, iter_segments, label_names
from tinyaction.data.shared_array import GrowingArray, SharedArray

CHUNK = 10_000  # values that are Python's at a time: all of a long list take four times the memory


class Packer:
    """Collects texts, one at a time."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._packed, self._ends = GrowingArray("u1"), GrowingArray("i8")
        self._piece, self._piece_ends = bytearray(), array("q", [0])  # the last texts

    def add(self, text: str) -> None:
        content = text.encode("utf-8", "surrogateescape")
        self._piece += content
        self.num_bytes += len(content)
        self._piece_ends.append(self.num_bytes)
        if len(self._piece_ends) >= CHUNK:
            self._keep_piece()

    def _keep_piece(self) -> None:
        self._packed.extend(self._piece)
        self._ends.extend(self._piece_ends)
        self._piece, self._piece_ends = bytearray(), array("q")

    def finished(self) -> tuple[SharedArray, SharedArray]:
        """All texts as bytes, and where each begins and the last ends."""
        self._keep_piece()
        return self._packed.finished(), self._ends.finished()


class PackedTexts:
    """Texts held in two arrays, so that ten million of them are one copy for all workers."""

    def __init__(self, texts: "Iterable[str] | Packer" = ()) -> None:
        if not isinstance(texts, Packer):
            given, texts = texts, Packer()
            for text in given:
                texts.add(text)
        self._packed, self._ends = texts.finished()
        self._places: SharedArray | None = None  # of those that were taken

    def __len__(self) -> int:
        return len(self._ends.array) - 1 if self._places is None else len(self._places.array)

    def __getitem__(self, index: int) -> str:
        place = index if self._places is None else self._places.array[index]
        start, stop = self._ends.array[place : place + 2]
        return self._packed.array[start:stop].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        packed, ends = self._packed.array.data, self._ends.array
        for first in range(0, len(self), CHUNK):
            if self._places is None:
                pairs: Iterable[tuple[int, int]] = pairwise(ends[first : first + CHUNK + 1].tolist())
            else:
                places = self._places.array[first : first + CHUNK]
                pairs = zip(ends[places].tolist(), ends[places + 1].tolist(), strict=True)
            for start, stop in pairs:
                yield str(packed[start:stop], "utf-8", "surrogateescape")

    def take(self, places: npt.NDArray[np.integer[Any]]) -> "PackedTexts":
        """The texts of these places, without a copy of them."""
        taken = PackedTexts.__new__(PackedTexts)
        taken._packed, taken._ends = self._packed, self._ends
        taken._places = SharedArray(places if self._places is None else self._places.array[places])
        return taken


@dataclass(frozen=True)
class FewTexts(Collection[str]):
    """Texts of which many are equal: (N,) numbers of different ones."""

    texts: list[str]
    numbers: npt.NDArray[np.int32]

    def take(self, places: npt.NDArray[np.integer[Any]]) -> "FewTexts":
        return FewTexts(self.texts, self.numbers[places])

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, text: object) -> bool:
        return any(text == own for own in self)

    def __iter__(self) -> Iterator[str]:
        return map(self.texts.__getitem__, _values(self.numbers))


def _values(numbers: npt.NDArray[Any]) -> Iterator[Any]:
    for first in range(0, len(numbers), CHUNK):
        yield from numbers[first : first + CHUNK].tolist()


@dataclass(frozen=True)
class Rows(Collection[Segment]):
    """The rows of a CSV file in arrays, about 50 bytes a row. Iterating gives each as a :class:`Segment`.

    Attributes:
        starts, ends: (N,) float64 seconds; None where the videos are whole.
        lines: (N,) where the rows stand in ``source``.
    """

    source: str
    paths: PackedTexts
    labels: FewTexts  # a label with a separator is another text where it is a folder's name
    splits: FewTexts
    groups: PackedTexts | None
    lines: npt.NDArray[np.int32]
    starts: npt.NDArray[np.float64] | None
    ends: npt.NDArray[np.float64] | None
    others: dict[str, PackedTexts]

    @classmethod
    def of(cls, segments: Iterable[Segment]) -> "Rows":
        """Collect rows one at a time. All have a group, or none has; all are whole, or none is."""
        paths, groups = Packer(), Packer()
        others: dict[str, Packer] = {}
        labels: dict[tuple[str, bool], int] = {}
        splits: dict[str, int] = {}
        label_numbers, split_numbers, lines = array("i"), array("i"), array("i")
        starts, ends = array("d"), array("d")
        source, is_whole = "", True
        for number, row in enumerate(segments):
            if number == 0:
                source, is_whole = row.where.rpartition(", line ")[0], row.is_whole
                others = {name: Packer() for name in row.others}
            paths.add(row.path)
            if row.group:
                groups.add(row.group)
            is_one_name = LABEL_SEPARATOR not in row.label or label_names(row) == [row.label]
            label_numbers.append(labels.setdefault((row.label, is_one_name), len(labels)))
            split_numbers.append(splits.setdefault(row.split, len(splits)))
            lines.append(int(row.where.rpartition(" ")[2] or 0))
            if not is_whole:
                starts.append(row.start)
                ends.append(row.end)
            for name, packer in others.items():
                packer.add(row.others[name])
        of_labels, of_splits, of_lines = (np.frombuffer(values, np.int32)
                                          for values in (label_numbers, split_numbers, lines))
        return cls(source, PackedTexts(paths), FewTexts([label for label, _ in labels], of_labels),
                   FewTexts(list(splits), of_splits), PackedTexts(groups) if groups.num_bytes else None,
                   of_lines, None if is_whole else np.frombuffer(starts), None if is_whole else
                   np.frombuffer(ends), {name: PackedTexts(packer) for name, packer in others.items()})

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[Segment]:
        starts, ends = (repeat(whole) if times is None else _values(times)
                        for times, whole in ((self.starts, 0.0), (self.ends, math.inf)))
        groups = repeat("") if self.groups is None else iter(self.groups)
        names, others = list(self.others), zip(*self.others.values(), strict=True) if self.others else repeat(())
        for path, start, end, label, split, group, where, cells in zip(
                self.paths, starts, ends, self.labels, self.splits, groups, self.wheres(), others, strict=False):
            yield Segment(path, start, end, label, split, group, where, dict(zip(names, cells, strict=True)))

    def __contains__(self, row: object) -> bool:
        return any(row == own for own in self)

    def __getitem__(self, index: int) -> Segment:
        return next(iter(self.take(np.array([index]))))

    def wheres(self) -> Iterator[str]:
        """"file, line n" of each row."""
        return (f"{self.source}, line {line}" if line else "" for line in _values(self.lines))

    @property
    def is_whole(self) -> bool:
        return self.ends is None

    def take(self, places: npt.NDArray[np.integer[Any]]) -> "Rows":
        """The rows of these places, in this order."""
        return Rows(self.source, self.paths.take(places), self.labels.take(places), self.splits.take(places),
                    self.groups and self.groups.take(places), self.lines[places],
                    None if self.starts is None else self.starts[places],
                    None if self.ends is None else self.ends[places],
                    {name: cells.take(places) for name, cells in self.others.items()})

    def of_split(self, name: str) -> "Rows":
        number = self.splits.texts.index(name) if name in self.splits.texts else -1
        places = np.flatnonzero(self.splits.numbers == number).astype(np.int32)  # half the memory
        splits = FewTexts([name], np.broadcast_to(np.int32(0), len(places)))  # one number
        return replace(self.take(places), splits=splits)

    def with_split(self, is_val: npt.NDArray[np.bool_], groups: Sequence[str] | None) -> "Rows":
        """The rows, chosen for training or validation; with these groups where they are given."""
        return replace(self, splits=FewTexts(["train", "val"], is_val.astype(np.int32)),
                       groups=self.groups if groups is None else PackedTexts(groups))

    def first_of_labels(self) -> dict[int, Segment]:
        """Number of a label -> the first row that has it, in the order of the rows."""
        first = np.full(len(self.labels.texts), -1, np.int64)
        # From the last row to the first, which stays.
        first[self.labels.numbers[::-1]] = np.arange(len(self) - 1, -1, -1, dtype=np.int32)
        return {int(self.labels.numbers[place]): self[place] for place in np.sort(first[first >= 0]).tolist()}


def read_rows(path: str | Path, *, multi_label: bool = False) -> Rows:
    """Read a CSV file of whole videos, "path,label", or of segments; see :func:`check_segments` of overlaps.

    A label may be empty; see :func:`tinyaction.data.segments.check_no_label`.
    """
    rows = Rows.of(iter_segments(path, ("path", "label"), may_be_empty="label"))
    if not rows.is_whole:
        check_segments(list(rows), multi_label=multi_label)
    return rows
