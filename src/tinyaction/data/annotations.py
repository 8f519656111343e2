"""Which videos, with which labels: annotation lists, CSV files, folders of classes.

:func:`find_data` looks at a folder and understands four layouts, tried in this order:

    published       the lists of UCF101, HMDB51, ... as they come; see :mod:`tinyaction.data.published_lists`
    lists           *train*.txt and *val*.txt with lines "path label", beside train/ and val/ (the guide's layout)
    CSV             *train*.csv and *val*.csv, or one *.csv with a column "split"; columns "path,label[,split][,group]"
    class folders   train/<class>/*.mp4 and val/<class>/*.mp4, or <class>/*.mp4, which is split once and written down

Class names come from the folders, from the CSV, or from a classes.txt or label_map*.txt beside the lists.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tinyaction.data.class_folders import (
    VIDEO_SUFFIXES,
    empty_classes,
    unused_files,
    videos_by_class,
    write_split,
)
from tinyaction.data.groups import Split, compile_group_by, groups_of_paths
from tinyaction.data.lists import (
    PackedTexts,
    VideoList,
    check_within,
    ends_with_count,
    is_number,
    parse_label,
    read_class_names,
    read_list,
    read_text,
)
from tinyaction.data.published_lists import PublishedLists, delimiter_of, read_published
from tinyaction.text import check_class_names

SPLIT_FILE = "split.csv"  # what find_data writes for class folders that have no train/ and val/
CLEAN_FILE = "clean.csv"  # what `tinyaction check --write-clean` writes; read only where it is named


@dataclass
class DataFolder:
    """What :func:`find_data` found: two lists, the names of the classes, and what a person should be told.

    Attributes:
        notes: what was decided, as a new split.
        left_out: sentences on videos and classes that are there and in no list, or listed and not there.
        folder: in which the data was found.
    """

    train: VideoList
    val: VideoList
    class_names: list[str]
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    folder: Path | None = None

    def __post_init__(self) -> None:
        check_class_names(self.class_names, self.train.source)

    def merged(self) -> "DataFolder":
        """Training and validation videos as one list, which stands for both."""
        videos = self.train.joined(self.val)
        return replace(self, train=videos, val=videos)

    def unused_summary(self) -> str:
        """What a person should know before the data is used, in one sentence; "" where all of it is used once.

        Videos and classes that no list names, files that are no videos, and videos that one list names with two
        labels. It looks through the whole folder.
        """
        return "; ".join(part for part in (*self.left_out, *self._two_labels(), self.unused_files()) if part)

    def unused_files(self) -> str:
        """The part of :meth:`unused_summary` that is about files: "8 files are no videos: .txt 5, .jpg 3"."""
        if self.folder is None:
            return ""
        listed = {videos[index][0] for videos in (self.train, self.val) for index in range(len(videos))}
        num_by_suffix, videos = unused_files(self.folder, listed)
        parts = []
        if num_by_suffix:
            num = num_by_suffix.total()
            kinds = ", ".join(f"{name} {count}" for name, count in num_by_suffix.most_common(8))
            parts.append(f"{num} files are no videos: {kinds}" if num > 1 else f"1 file is no video: {kinds}")
        if videos and not self.left_out:
            first = videos[0].relative_to(self.folder)
            parts.append(f"{len(videos)} videos are in no list, the first is {first}" if len(videos) > 1 else
                         f"1 video is in no list: {first}")
        return "; ".join(parts)

    def _two_labels(self) -> Iterator[str]:
        for name, videos in (("training", self.train), ("validation", self.val)):
            labels = defaultdict(set)
            for index in range(len(videos)):
                path, label = videos[index]
                labels[path].add(label)
            twice = [path for path, given in labels.items() if len(given) > 1]
            if twice:
                yield f"{len(twice)} {name} videos have two labels, the first is {twice[0]}"


def find_data(
    source: str | Path, *, val_share: float = 0.2, split_seed: int = 0, allow_outside: bool = False,
    group_by: str = "",
) -> DataFolder:
    """Find the training and validation videos in a folder, or of a CSV file with a column "split".

    The layouts of folders are those of this module's docstring.

    Class folders without ``train/`` and ``val/``, and a CSV without a column "split", are split once, class by class
    (``val_share`` of each, at least one video), and the split is written to ``split.csv`` in the folder, so that every
    later run and evaluation uses it. Where the groups of clips are known, from the column "group" of a CSV or from
    ``group_by``, a regular expression on the paths below the folder, the split keeps them whole.
    A list that came from elsewhere may not name files outside the folder, by ``../`` or from the root, unless
    ``allow_outside``.

    Raises:
        ValueError: the folder is in none of the layouts, or a list has an error (file and line are named).
        FileNotFoundError: there is no such folder.
    """
    pattern = compile_group_by(group_by) if group_by else None
    data = _find_data(Path(source), Split(val_share, split_seed, pattern), allow_outside)
    if pattern is not None:
        assert data.folder is not None
        for videos in (data.train, data.val):
            paths = (videos[index][0] for index in range(len(videos)))
            videos.groups = PackedTexts(groups_of_paths(paths, data.folder, pattern))
    return data


def _find_data(folder: Path, split: Split, allow_outside: bool) -> DataFolder:
    tables: list[Path] = []
    if folder.is_file():
        if not {".csv", ".clean"} & set(folder.suffixes):
            raise ValueError(f"{folder}: a file; give the folder that holds the lists, the CSV file or the class "
                             "folders, or one CSV file with columns 'path,label,split'")
        tables, folder = [folder], folder.parent
    elif not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    elif published := read_published(folder, read_text):
        return _from_published(folder, published, allow_outside)
    names_file = _one_file(folder, ("classes.txt", "label_map*.txt"))
    class_names = read_class_names(names_file) if names_file else None
    if tables:
        data = _from_tables(folder, tables, class_names, split, allow_outside, is_named=True)
        data.folder = folder
        return data
    lists = [path for path in folder.glob("*.txt") if path != names_file]
    train_list, val_list = (_one_of(lists, word, folder) for word in ("train", "val"))
    tables = sorted(path for path in folder.glob("*.csv") if path.name != CLEAN_FILE)
    if train_list and val_list:
        data = _from_lists(folder, train_list, val_list, class_names, allow_outside)
    elif tables:
        data = _from_tables(folder, tables, class_names, split, allow_outside, is_named=False)
    elif train_list or val_list:
        raise ValueError(f"{folder}: found {train_list or val_list} but no list for the other split")
    else:
        data = _from_class_folders(folder, split)
    data.folder = folder
    return data


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
            check_within(folder, str(folder), path, str(lists.source))
        return VideoList([path for path, _ in rows], [numbers[name] for _, name in rows], prefix=str(folder),
                         source=str(lists.source))

    return DataFolder(listed(lists.train), listed(lists.val), lists.class_names, folder=folder)


def _prefix_of(folder: Path, split: str, list_file: Path) -> str:
    """Paths in a list are relative to train/ or val/ (the guide's layout) or to the folder: see which one is there."""
    lines = io.StringIO(read_text(list_file))
    first = next((line.rsplit(maxsplit=1)[0].strip() for line in lines if line.strip()), "")
    in_split = folder / split

    def is_in(place: Path) -> bool:
        return (place / first).exists() or ends_with_count(first, str(place))

    return str(in_split if is_in(in_split) or not is_in(folder) else folder)


# ---- CSV -----------------------------------------------------------------------------------------------------------


@dataclass
class _Row:
    path: str
    label: str
    split: str
    group: str  # "" where the table has no groups
    where: str  # "file, line n", for messages


def _from_tables(
    folder: Path, tables: Sequence[Path], class_names: list[str] | None, split: Split, allow_outside: bool, *,
    is_named: bool,
) -> DataFolder:
    """``is_named``: the one table was given by its name, so nothing is written beside it."""
    train_table, val_table = (_one_of(tables, word, folder) for word in ("train", "val"))
    notes: list[str] = []
    left_out: list[str] = []
    written = folder / SPLIT_FILE
    if written in tables:  # the other tables are what it was made of
        left_out = _left_out(folder, _read_table(written), [path for path in tables if path != written])
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
            groups = _row_groups(rows) if split.group_by is None else groups_of_paths(
                [row.path for row in rows], folder, split.group_by)
            train_ids, val_ids, splits = split.choose([row.label for row in rows], groups, tables[0])
            train, val = [rows[i] for i in train_ids], [rows[i] for i in val_ids]
            note = f"seed {split.seed} gives the same split again" if is_named else write_split(
                written, [(row.path, row.label) for row in rows], splits, split.seed, groups=groups)
            notes.append(f"{tables[0]} has no column 'split': {len(val)} of {len(rows)} videos were chosen for "
                         f"validation, {_how(groups)}; {note}")
        else:
            train, val = ([row for row in rows if row.split == name] for name in ("train", "val"))
            _check_splits(rows, tables[0])
    if _is_of_class_folders(tables[0], [*train, *val]):  # a folder named "7" is a name, not the number of a class
        class_names = sorted({row.label for row in [*train, *val]})
    class_names = _names_of_labels([*train, *val], class_names)
    numbers = {name: number for number, name in enumerate(class_names)}

    def listed(rows: list[_Row], source: Path) -> VideoList:
        for row in () if allow_outside else rows:
            check_within(folder, str(folder), row.path, row.where)
        labels = [_row_label(row, numbers, len(class_names)) for row in rows]
        return VideoList([row.path for row in rows], labels, prefix=str(folder), source=str(source),
                         groups=_row_groups(rows))

    return DataFolder(listed(train, train_table or tables[0]), listed(val, val_table or tables[0]), class_names, notes,
                      left_out)


def _read_table(path: Path) -> list[_Row]:
    rows = []
    text = read_text(path)
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
        split, group = ((values.get(column) or "").strip() for column in ("split", "group"))
        rows.append(_Row(values["path"].strip(), values["label"].strip(), split.lower(), group, where))
    with_group = sum(row.group != "" for row in rows)
    if 0 < with_group < len(rows):
        row = next(row for row in rows if not row.group)
        raise ValueError(f"{row.where}: no group, but other lines have one; give each line one, or none")
    if not rows:
        raise ValueError(f"{path}: the table is empty; a line is 'path,label[,split]'")
    return rows


def _row_groups(rows: list[_Row]) -> list[str] | None:
    return [row.group for row in rows] if rows and rows[0].group else None


def _how(groups: Sequence[str] | None) -> str:
    return "class by class" if groups is None else f"{len(set(groups))} groups kept whole"


def _rows_of(table: "csv.DictReader[str]", path: Path) -> Iterator[dict[Any, Any]]:
    try:
        yield from table
    except csv.Error as error:  # a quote that is never closed, mostly
        raise ValueError(f"{path}, line {table.line_num + 1}: {error}") from None


def _is_of_class_folders(table: Path, rows: list[_Row]) -> bool:
    return table.name in (SPLIT_FILE, CLEAN_FILE) and all(row.label in row.path.split("/")[:2] for row in rows)


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
    if all(map(is_number, labels)):
        highest = max((parse_label(row.label, row.where, None) for row in rows), default=0)
        return [str(number) for number in range(highest + 1)]
    return sorted(labels)


def _row_label(row: _Row, numbers: dict[str, int], num_classes: int) -> int:
    if row.label in numbers:
        return numbers[row.label]
    if is_number(row.label):
        return parse_label(row.label, row.where, num_classes)
    raise ValueError(f"{row.where}: the class {row.label!r} is not among the {num_classes} known class names")


# ---- class folders -------------------------------------------------------------------------------------------------


def _from_class_folders(folder: Path, split: Split) -> DataFolder:
    train_folder, val_folder = folder / "train", folder / "val"
    if train_folder.is_dir() and val_folder.is_dir():
        train, val = videos_by_class(train_folder), videos_by_class(val_folder)
        if train and val:
            unknown = sorted(set(val) - set(train))
            if unknown:
                raise ValueError(f"{val_folder}: class {unknown[0]!r} has no folder in {train_folder}")
            class_names = sorted(train)
            return DataFolder(_listed(train, class_names, train_folder), _listed(val, class_names, val_folder),
                              class_names, left_out=[*_empty(train_folder), *_empty(val_folder)])
        raise ValueError(f"{train_folder if not train else val_folder}: no class folders with videos in it")
    for there, missing in ((train_folder, val_folder), (val_folder, train_folder)):
        if there.is_dir() and videos_by_class(there):  # else "train" and, say, "test" would become two classes
            raise ValueError(f"{there} has class folders, but there is no {missing} beside it")
    classes = videos_by_class(folder)
    if not classes:
        raise ValueError(
            f"{folder}: no data found; expected *train*.txt and *val*.txt with lines 'path label', a CSV file with "
            f"columns 'path,label[,split]', or folders of videos named after their classes"
        )
    if len(classes) == 1:
        raise ValueError(f"{folder}: one class only ({next(iter(classes))!r}); a classifier needs at least two")
    class_names = sorted(classes)
    every = [(path, name) for name in class_names for path in classes[name]]
    paths = [path.relative_to(folder).as_posix() for path, _ in every]
    groups = None if split.group_by is None else groups_of_paths(paths, folder, split.group_by)
    train_ids, val_ids, splits = split.choose([name for _, name in every], groups, folder)
    note = write_split(folder / SPLIT_FILE, list(zip(paths, (name for _, name in every), strict=True)), splits,
                       split.seed, groups=groups)
    numbers = {name: number for number, name in enumerate(class_names)}
    train_list, val_list = (
        VideoList([str(every[i][0]) for i in ids], [numbers[every[i][1]] for i in ids], source=str(folder))
        for ids in (train_ids, val_ids)
    )
    return DataFolder(train_list, val_list, class_names,
                      [f"{folder} has no train/ and val/: {len(val_ids)} of {len(every)} videos were chosen for "
                       f"validation, {_how(groups)}; {note}"], _empty(folder))


def find_unsplit(folder: str | Path) -> DataFolder | None:
    """Class folders without a split, all their videos in both lists, to evaluate on; None for any other layout.

    One class, or one video of it, is enough. Nothing is written.
    """
    folder = Path(folder)
    if not folder.is_dir() or any((folder / split).is_dir() for split in ("train", "val")):
        return None
    if any(map(_is_list, folder.iterdir())) or not (classes := videos_by_class(folder)):
        return None
    class_names = sorted(classes)
    videos = _listed(classes, class_names, folder)
    return DataFolder(videos, videos, class_names, left_out=_empty(folder), folder=folder)


def _is_list(path: Path) -> bool:
    """Whether :func:`find_data` reads the file before it looks for class folders."""
    name = path.name.lower()
    if name.endswith(".csv"):
        return name != CLEAN_FILE
    return name.endswith((".txt", ".json")) and any(word in name for word in ("train", "val", "_test_split1"))


def _listed(classes: dict[str, list[Path]], class_names: list[str], source: Path) -> VideoList:
    pairs = [(str(path), number) for number, name in enumerate(class_names) for path in classes.get(name, [])]
    return VideoList([path for path, _ in pairs], [number for _, number in pairs], source=str(source))


def _empty(folder: Path) -> list[str]:
    names = empty_classes(folder)
    return [f"{folder} has class folders without a video: {', '.join(names[:8])}"] if names else []


def _left_out(folder: Path, rows: list[_Row], tables: Sequence[Path]) -> list[str]:
    """Videos and classes that came into the class folders, or the other tables, or went, after the split was made."""
    listed = {row.path for row in rows}
    if tables:
        there = {row.path: row.label for table in tables for row in _read_table(table)}
    else:
        there = {path.relative_to(folder).as_posix(): name for name, videos in videos_by_class(folder).items()
                 for path in videos}
    new = [path for path in there if path not in listed]
    gone = [row.path for row in rows if row.path not in there and not (folder / row.path).exists()]
    classes = sorted(set(there.values()) - {row.label for row in rows})
    parts = [f"{len(new)} videos in {folder} are not in {SPLIT_FILE}, the first is {folder / new[0]}"] if new else []
    parts += [f"{len(gone)} videos of {SPLIT_FILE} are not there, the first is {folder / gone[0]}"] if gone else []
    parts += [f"it has no video of {', '.join(map(repr, classes[:8]))}"] if classes else []
    advice = [f"{'; '.join(parts)}: delete {SPLIT_FILE} to split anew"] if parts else []
    return advice + ([] if tables else _empty(folder))


# ---- files ---------------------------------------------------------------------------------------------------------


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


__all__ = ["CLEAN_FILE", "SPLIT_FILE", "VIDEO_SUFFIXES", "DataFolder", "VideoList", "find_data", "find_unsplit",
           "read_list"]
