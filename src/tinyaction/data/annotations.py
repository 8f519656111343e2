"""Which videos, with which labels: annotation lists, CSV files, folders of classes.

:func:`find_data` looks at a folder and understands three layouts, tried in this order:

    lists           *train*.txt and *val*.txt with lines "path label", beside train/ and val/ (the guide's layout)
    CSV             *train*.csv and *val*.csv, or one *.csv with a column "split"; columns "path,label[,split]"
    class folders   train/<class>/*.mp4 and val/<class>/*.mp4, or <class>/*.mp4, which is split once and written down

Class names come from the folders, from the CSV, or from a classes.txt or label_map*.txt beside the lists.
"""

import csv
import hashlib
import io
import random
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import sep
from os.path import basename, exists, isabs, join, relpath
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyaction.data.published_lists import PublishedLists, decoded, delimiter_of, read_published
from tinyaction.files import write_whole
from tinyaction.text import check_class_names

VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp"}
MAX_CLASSES = 100_000
MAX_LINE = 10_000  # characters; the longest path that Linux opens has 4,096
SPLIT_FILE = "split.csv"  # what find_data writes for class folders that have no train/ and val/


class VideoList:
    """Videos and their labels, held in three arrays, so that a million of them are one copy for all workers.

    ``videos[i]`` is ``(filename, label)`` with ``prefix`` joined to the filename; ``videos.labels`` is (N,) int64.
    """

    def __init__(self, filenames: Iterable[str], labels: Iterable[int], *, prefix: str = "", source: str = "") -> None:
        text, ends = bytearray(), array("q", [0])
        for name in filenames:
            text += name.encode("utf-8", "surrogateescape")
            ends.append(len(text))
        self.labels: npt.NDArray[np.int64] = np.fromiter(labels, dtype=np.int64)
        assert len(ends) == len(self.labels) + 1
        self._ends = np.frombuffer(ends, dtype=np.int64)
        self._text = np.frombuffer(text, dtype=np.uint8)
        self.prefix = prefix
        self.source = source
        self.num_frames: npt.NDArray[np.int64] | None = None  # of each video, where the list says so

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return join(self.prefix, self.name(index)), int(self.labels[index])

    def name(self, index: int) -> str:
        """The file name as it stands in the list, without the prefix."""
        return self._text[self._ends[index] : self._ends[index + 1]].tobytes().decode("utf-8", "surrogateescape")

    def digest(self) -> str:
        """A number of the videos' names and labels, in their order, whatever folder they lie in."""
        content = hashlib.sha256(self.labels.tobytes())
        for index in range(len(self)):
            content.update(basename(self[index][0]).encode("utf-8", "surrogateescape") + b"\0")
        return content.hexdigest()[:16]

    def __repr__(self) -> str:
        return f"VideoList({len(self)} videos, {len(np.unique(self.labels))} classes, from {self.source})"


@dataclass
class DataFolder:
    """What :func:`find_data` found: two lists, the names of the classes, and what a person should be told."""

    train: VideoList
    val: VideoList
    class_names: list[str]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_class_names(self.class_names, self.train.source)


def read_list(
    ann_file: str | Path, *, prefix: str = "", num_classes: int | None = None, within: str | Path | None = None
) -> VideoList:
    """Read lines "path label"; the label is the last word, so paths may contain spaces; blank lines are passed over.

    Lists of folders of frames may have lines "path num_frames label" (MMAction2's raw frames, TSM); it is such a list
    where the path of the first line is there without the number behind it, and not with it.
    ``within`` is a folder that no path may leave; None allows all.

    Raises:
        ValueError: no line at all, a line without a label, a label that is negative or not below ``num_classes``;
            the message names the file and the line.
        FileNotFoundError: there is no such file.
    """
    filenames: list[str] = []
    labels, counts = array("q"), array("q")
    known: dict[str, int] = {}  # label as written -> label: a million lines have few different ones
    has_counts = False
    for number, line in enumerate(io.StringIO(_read_text(ann_file), newline="\n"), start=1):
        words = line.rsplit(maxsplit=1)
        if not words:
            continue
        if len(words) == 1:
            raise ValueError(f"{ann_file}, line {number}: {words[0]!r} has no label; a line is 'path label'")
        path, label = words[0].strip(), words[1]
        if not labels:
            has_counts = _ends_with_count(path, prefix)
        if has_counts:
            path, _, count = path.rpartition(" ")
            if not path.strip() or not _is_number(count) or int(count) < 1:
                raise ValueError(f"{ann_file}, line {number}: {line.strip()!r}; this list began with 'path num_frames "
                                 "label', so every line is that")
            path = path.strip()
            counts.append(int(count))
        clip, _, tail = path.rpartition(" ")
        if _is_number(tail) and _is_video_name(clip) and not exists(join(prefix, path)):
            raise ValueError(f"{ann_file}, line {number}: two numbers behind {clip!r}; a line is 'path label', with "
                             "one label")
        if label not in known:
            known[label] = _label(label, f"{ann_file}, line {number}", num_classes)
        if within is not None:
            _check_within(within, prefix, path, f"{ann_file}, line {number}")
        filenames.append(path)
        labels.append(known[label])
    if not labels:
        raise ValueError(f"{ann_file}: the list is empty; a line is 'path label'")
    videos = VideoList(filenames, labels, prefix=prefix, source=str(ann_file))
    videos.num_frames = np.frombuffer(counts, dtype=np.int64) if has_counts else None
    return videos


def _ends_with_count(path: str, prefix: str) -> bool:
    """Whether "clip 120" is a folder or file "clip" and its number of frames, and not a file of that name."""
    clip, _, count = path.rpartition(" ")
    is_count = _is_number(count) and not _is_video_name(clip)
    return is_count and exists(join(prefix, clip.strip())) and not exists(join(prefix, path))


def _is_video_name(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def find_data(
    folder: str | Path, *, val_share: float = 0.2, split_seed: int = 0, allow_outside: bool = False
) -> DataFolder:
    """Find the training and validation videos in a folder; the layouts are those of this module's docstring.

    Class folders without ``train/`` and ``val/``, and a CSV without a column "split", are split once, class by class
    (``val_share`` of each, at least one video), and the split is written to ``split.csv`` in the folder, so that every
    later run and evaluation uses it.
    A list that came from elsewhere may not name files outside the folder, by ``../`` or from the root, unless
    ``allow_outside``.

    Raises:
        ValueError: the folder is in none of the layouts, or a list has an error (file and line are named).
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"{folder}: a file; give the folder that holds the lists, the CSV file or the class folders")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if published := read_published(folder, _read_text):
        return _from_published(folder, published, allow_outside)
    names_file = _one_file(folder, ("classes.txt", "label_map*.txt"))
    class_names = _read_class_names(names_file) if names_file else None
    lists = [path for path in folder.glob("*.txt") if path != names_file]
    train_list, val_list = (_one_of(lists, word, folder) for word in ("train", "val"))
    if train_list and val_list:
        return _from_lists(folder, train_list, val_list, class_names, allow_outside)
    tables = sorted(folder.glob("*.csv"))
    if tables:
        return _from_tables(folder, tables, class_names, val_share, split_seed, allow_outside)
    if train_list or val_list:
        raise ValueError(f"{folder}: found {train_list or val_list} but no list for the other split")
    return _from_class_folders(folder, val_share, split_seed)


# ---- lists ---------------------------------------------------------------------------------------------------------


def _from_lists(
    folder: Path, train_list: Path, val_list: Path, class_names: list[str] | None, allow_outside: bool
) -> DataFolder:
    """Without class names the training list says how many classes there are."""
    within = None if allow_outside else folder
    num_classes = len(class_names) if class_names else None
    train = read_list(train_list, prefix=_prefix_of(folder, "train", train_list), num_classes=num_classes,
                      within=within)
    if class_names is None:
        if train.labels.min() > 0:
            raise ValueError(f"{train_list}: no video has label 0; do labels count from 1? Here they count from 0; if "
                             "class 0 only has no training video, add a classes.txt with one name a line")
        class_names = [str(label) for label in range(int(train.labels.max()) + 1)]
    val = read_list(val_list, prefix=_prefix_of(folder, "val", val_list), num_classes=len(class_names),
                    within=within)
    return DataFolder(train, val, class_names)


def _from_published(folder: Path, lists: PublishedLists, allow_outside: bool) -> DataFolder:
    numbers = {name: number for number, name in enumerate(lists.class_names)}

    def listed(rows: list[tuple[str, str]]) -> VideoList:
        for path, _ in () if allow_outside else rows:
            _check_within(folder, str(folder), path, str(lists.source))
        return VideoList([path for path, _ in rows], [numbers[name] for _, name in rows], prefix=str(folder),
                         source=str(lists.source))

    return DataFolder(listed(lists.train), listed(lists.val), lists.class_names)


def _prefix_of(folder: Path, split: str, list_file: Path) -> str:
    """Paths in a list are relative to train/ or val/ (the guide's layout) or to the folder: see which one is there."""
    lines = io.StringIO(_read_text(list_file))
    first = next((line.rsplit(maxsplit=1)[0].strip() for line in lines if line.strip()), "")
    in_split = folder / split

    def is_in(place: Path) -> bool:
        return (place / first).exists() or _ends_with_count(first, str(place))

    return str(in_split if is_in(in_split) or not is_in(folder) else folder)


def _label(word: str, where: str, num_classes: int | None) -> int:
    if not _is_number(word):
        raise ValueError(f"{where}: the label {word!r} is not a whole number; a line is 'path label'")
    label = int(word)
    if label < 0:
        raise ValueError(f"{where}: the label {label} is negative; labels count from 0")
    if num_classes is not None and label >= num_classes:
        raise ValueError(f"{where}: the label {label} is out of range; there are {num_classes} classes, so 0 to "
                         f"{num_classes - 1}")
    if label >= MAX_CLASSES:  # a slip of the key would make a network of that many classes
        raise ValueError(f"{where}: the label {label} is out of range; labels go from 0 to {MAX_CLASSES - 1}")
    return label


def _is_number(word: str) -> bool:
    return re.fullmatch("-?[0-9]+", word) is not None


def _read_class_names(path: Path) -> list[str]:
    """One name a line; the line's place is the label."""
    text = _read_text(path).rstrip()
    names = [name.strip() for name in text.split("\n")] if text else []
    for number, name in enumerate(names, start=1):
        if not name:
            raise ValueError(f"{path}, line {number}: blank; each line names the class of its place, so none is blank")
        if name in names[: number - 1]:
            raise ValueError(f"{path}, line {number}: the class {name!r} is there twice")
    if not names:
        raise ValueError(f"{path}: no class names; one a line, in the order of the labels")
    return names


# ---- CSV -----------------------------------------------------------------------------------------------------------


@dataclass
class _Row:
    path: str
    label: str
    split: str
    where: str  # "file, line n", for messages


def _from_tables(
    folder: Path, tables: Sequence[Path], class_names: list[str] | None, val_share: float, split_seed: int,
    allow_outside: bool,
) -> DataFolder:
    train_table, val_table = (_one_of(tables, word, folder) for word in ("train", "val"))
    notes: list[str] = []
    written = folder / SPLIT_FILE
    if written in tables:  # the other tables are what it was made of
        notes.extend(_unlisted(folder, _read_table(written), [path for path in tables if path != written]))
        tables, train_table, val_table = [written], None, None
    if train_table and val_table:
        train, val = _read_table(train_table), _read_table(val_table)
    else:
        if len(tables) > 1:
            names = ", ".join(path.name for path in tables)
            raise ValueError(f"{folder}: several CSV files ({names}); keep one with a column 'split', or *train*.csv "
                             "and *val*.csv")
        rows = _read_table(tables[0])
        if not any(row.split for row in rows):
            train_ids, val_ids = _split([row.label for row in rows], val_share, split_seed, tables[0])
            train, val = [rows[i] for i in train_ids], [rows[i] for i in val_ids]
            splits = ["train"] * len(rows)
            for index in val_ids:
                splits[index] = "val"
            note = _write_split(written, [(row.path, row.label) for row in rows], splits, split_seed)
            notes.append(f"{tables[0]} has no column 'split': {len(val)} of {len(rows)} videos were chosen for "
                         f"validation, class by class; {note}")
        else:
            train, val = ([row for row in rows if row.split == split] for split in ("train", "val"))
            _check_splits(rows, tables[0])
    if _is_of_class_folders(tables[0], [*train, *val]):  # a folder named "7" is a name, not the number of a class
        class_names = sorted({row.label for row in [*train, *val]})
    class_names = _names_of_labels([*train, *val], class_names)
    numbers = {name: number for number, name in enumerate(class_names)}

    def listed(rows: list[_Row], source: Path) -> VideoList:
        for row in () if allow_outside else rows:
            _check_within(folder, str(folder), row.path, row.where)
        labels = [_row_label(row, numbers, len(class_names)) for row in rows]
        return VideoList([row.path for row in rows], labels, prefix=str(folder), source=str(source))

    return DataFolder(listed(train, train_table or tables[0]), listed(val, val_table or tables[0]), class_names, notes)


def _read_table(path: Path) -> list[_Row]:
    rows = []
    text = _read_text(path)
    table = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, delimiter=delimiter_of(text))
    columns = [(name or "").strip().lower() for name in table.fieldnames or []]
    if "path" not in columns or "label" not in columns:
        raise ValueError(f"{path}, line 1: columns {', '.join(columns) or '(none)'}; a table begins with "
                         "'path,label' or 'path,label,split'")
    table.fieldnames = columns
    for values in _rows_of(table, path):
        where = f"{path}, line {table.line_num}"
        if None in values:
            raise ValueError(f"{where}: {len(columns)} columns, but more cells; a path with a comma goes into quotes")
        for column in ("path", "label"):
            if not (values[column] or "").strip():
                raise ValueError(f"{where}: no {column}; a line is 'path,label[,split]'")
        split = (values.get("split") or "").strip().lower()
        rows.append(_Row(values["path"].strip(), values["label"].strip(), split, where))
    if not rows:
        raise ValueError(f"{path}: the table is empty; a line is 'path,label[,split]'")
    return rows


def _rows_of(table: "csv.DictReader[str]", path: Path) -> Iterator[dict[Any, Any]]:
    try:
        yield from table
    except csv.Error as error:  # a quote that is never closed, mostly
        raise ValueError(f"{path}, line {table.line_num + 1}: {error}") from None


def _is_of_class_folders(table: Path, rows: list[_Row]) -> bool:
    return table.name == SPLIT_FILE and all(row.path.split("/")[0] == row.label for row in rows)


def _check_splits(rows: list[_Row], path: Path) -> None:
    for row in rows:
        if row.split not in ("train", "val", "test"):
            raise ValueError(f"{row.where}: the split {row.split!r} is none of train, val, test")
    for split in ("train", "val"):
        if not any(row.split == split for row in rows):
            raise ValueError(f"{path}: no line with the split {split!r}")


def _names_of_labels(rows: list[_Row], class_names: list[str] | None) -> list[str]:
    if class_names is not None:
        return class_names
    labels = {row.label for row in rows}
    if all(map(_is_number, labels)):
        highest = max((_label(row.label, row.where, None) for row in rows), default=0)
        return [str(number) for number in range(highest + 1)]
    return sorted(labels)


def _row_label(row: _Row, numbers: dict[str, int], num_classes: int) -> int:
    if row.label in numbers:
        return numbers[row.label]
    if _is_number(row.label):
        return _label(row.label, row.where, num_classes)
    raise ValueError(f"{row.where}: the class {row.label!r} is not among the {num_classes} known class names")


# ---- class folders -------------------------------------------------------------------------------------------------


def _from_class_folders(folder: Path, val_share: float, split_seed: int) -> DataFolder:
    train_folder, val_folder = folder / "train", folder / "val"
    if train_folder.is_dir() and val_folder.is_dir():
        train, val = _videos_by_class(train_folder), _videos_by_class(val_folder)
        if train and val:
            unknown = sorted(set(val) - set(train))
            if unknown:
                raise ValueError(f"{val_folder}: class {unknown[0]!r} has no folder in {train_folder}")
            class_names = sorted(train)
            return DataFolder(_listed(train, class_names, train_folder), _listed(val, class_names, val_folder),
                              class_names)
        raise ValueError(f"{train_folder if not train else val_folder}: no class folders with videos in it")
    for there, missing in ((train_folder, val_folder), (val_folder, train_folder)):
        if there.is_dir() and _videos_by_class(there):  # else "train" and, say, "test" would become two classes
            raise ValueError(f"{there} has class folders, but there is no {missing} beside it")
    classes = _videos_by_class(folder)
    if not classes:
        raise ValueError(
            f"{folder}: no data found; expected *train*.txt and *val*.txt with lines 'path label', a CSV file with "
            f"columns 'path,label[,split]', or folders of videos named after their classes"
        )
    if len(classes) == 1:
        raise ValueError(f"{folder}: one class only ({next(iter(classes))!r}); a classifier needs at least two")
    class_names = sorted(classes)
    every = [(path, name) for name in class_names for path in classes[name]]
    train_ids, val_ids = _split([name for _, name in every], val_share, split_seed, folder)
    splits = ["train"] * len(every)
    for index in val_ids:
        splits[index] = "val"
    note = _write_split(folder / SPLIT_FILE, [(path.relative_to(folder).as_posix(), name) for path, name in every],
                        splits, split_seed)
    numbers = {name: number for number, name in enumerate(class_names)}
    train_list, val_list = (
        VideoList([str(every[i][0]) for i in ids], [numbers[every[i][1]] for i in ids], source=str(folder))
        for ids in (train_ids, val_ids)
    )
    return DataFolder(train_list, val_list, class_names,
                      [f"{folder} has no train/ and val/: {len(val_ids)} of {len(every)} videos were chosen for "
                       f"validation, class by class; {note}"])


def videos_of_classes(folder: str | Path, class_names: Sequence[str]) -> VideoList | None:
    """All videos of class folders without a split, to evaluate known classes on; None for any other layout.

    One class, or one video of it, is enough. Nothing is written.

    Raises:
        ValueError: a folder is named after none of the classes.
    """
    folder = Path(folder)
    is_other = any(folder.glob("*.csv")) or any((folder / split).is_dir() for split in ("train", "val"))
    if not folder.is_dir() or is_other or any("train" in path.stem.lower() for path in folder.glob("*.txt")):
        return None
    classes = _videos_by_class(folder)
    unknown = [name for name in classes if name not in class_names]
    if unknown:
        raise ValueError(f"{folder}: the folder {unknown[0]!r} is named after no class of the checkpoint, which knows "
                         f"{', '.join(class_names[:8])}")
    return _listed(classes, list(class_names), folder) if classes else None


def _videos_by_class(folder: Path) -> dict[str, list[Path]]:
    """Class name -> its videos, sorted; folders without a video are no classes."""
    found = {
        child.name: sorted(path for path in child.rglob("[!.]*") if path.suffix.lower() in VIDEO_SUFFIXES)
        for child in sorted(folder.iterdir()) if child.is_dir() and not child.name.startswith(".")
    }
    return {name: videos for name, videos in found.items() if videos}


def _listed(classes: dict[str, list[Path]], class_names: list[str], source: Path) -> VideoList:
    pairs = [(str(path), number) for number, name in enumerate(class_names) for path in classes.get(name, [])]
    return VideoList([path for path, _ in pairs], [number for _, number in pairs], source=str(source))


def _split(labels: Sequence[str], val_share: float, seed: int, source: Path) -> tuple[list[int], list[int]]:
    """Choose validation items class by class; every class keeps at least one video on both sides."""
    rng = random.Random(seed)
    val_ids: list[int] = []
    for label in sorted(set(labels)):
        ids = [i for i, other in enumerate(labels) if other == label]
        if len(ids) < 2:
            raise ValueError(f"{source}: class {label!r} has one video only; two are needed, to train and to validate")
        num_val = min(max(1, round(len(ids) * val_share)), len(ids) - 1)
        val_ids.extend(rng.sample(ids, num_val))
    chosen = set(val_ids)
    return [i for i in range(len(labels)) if i not in chosen], sorted(val_ids)


def _write_split(path: Path, videos: Sequence[tuple[str, str]], splits: Sequence[str], seed: int) -> str:
    """Write the split of (path, label) pairs down, and say where; in a read-only folder say why not."""
    lines = [f"{_quoted(name)},{_quoted(label)},{split}\n"
             for (name, label), split in zip(videos, splits, strict=True)]
    try:
        write_whole(path, ("path,label,split\n" + "".join(lines)).encode("utf-8"))
    except UnicodeEncodeError:
        wrong = next(name for name, _ in videos if not name.isprintable())
        raise ValueError(f"{str(path.parent / wrong)!a}: the file name is not UTF-8; rename it") from None
    except OSError as error:  # a read-only folder: the same seed gives the same split the next time
        return f"{path} could not be written ({error.strerror}); seed {seed} gives the same split again"
    return f"written to {path}: delete it to split anew"


def _unlisted(folder: Path, rows: list[_Row], tables: Sequence[Path]) -> list[str]:
    """Videos that came into the class folders, or the other tables, after the split was written down."""
    listed = {row.path for row in rows}
    there = [path.relative_to(folder).as_posix() for videos in _videos_by_class(folder).values() for path in videos]
    if tables:
        there = [row.path for table in tables for row in _read_table(table)]
    new = [path for path in there if path not in listed]
    if not new:
        return []
    return [f"{len(new)} videos in {folder} are not in {SPLIT_FILE}, the first is {folder / new[0]}: delete "
            f"{SPLIT_FILE} to split anew"]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text


# ---- files ---------------------------------------------------------------------------------------------------------


def _read_text(path: str | Path) -> str:
    """A text file, whatever ends its lines; ValueError names the line that is no text, or not UTF-8, or endless."""
    try:
        text = decoded(Path(path).read_bytes())
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {number}: not UTF-8 text; save the file as UTF-8") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if "\0" in line:
            raise ValueError(f"{path}, line {number}: a NUL byte; this is no text, or not UTF-8: save it as UTF-8")
        if len(line) > MAX_LINE:
            raise ValueError(f"{path}, line {number}: {len(line)} characters; a line has at most {MAX_LINE}")
    return text


def _check_within(folder: str | Path, prefix: str, name: str, where: str) -> None:
    """ValueError where a path leaves the folder. Links within it are the user's own."""
    is_absolute = isabs(name) or PureWindowsPath(name).drive != ""
    if is_absolute or relpath(join(prefix, name), folder).split(sep)[0] == "..":
        raise ValueError(f"{where}: {name!r} leaves the data folder; --allow-outside (allow_outside=True) allows it")


def _one_of(paths: Iterable[Path], word: str, folder: Path) -> Path | None:
    """The one path whose name contains the word."""
    found = sorted(path for path in paths if word in path.stem.lower())
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder}: several lists for {word!r} ({names}); keep one")
    return found[0] if found else None


def _one_file(folder: Path, patterns: Sequence[str]) -> Path | None:
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    return None
