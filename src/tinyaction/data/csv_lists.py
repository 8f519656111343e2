"""The CSV layouts of a data folder: tables of whole videos, or of segments of videos."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyaction.data.class_folders import empty_notes, videos_by_class, write_split
from tinyaction.data.folder import DataFolder, one_of
from tinyaction.data.groups import Split, groups_of_paths
from tinyaction.data.lists import check_label_0, check_within, is_number, names_of_labels, videos_of_rows
from tinyaction.data.rows import FewTexts, PackedTexts, Rows, read_rows
from tinyaction.data.segments import CLEAN_FILE, SPLIT_FILE, check_no_label, check_segments, label_names
from tinyaction.text import counted


def from_tables(
    folder: Path, tables: Sequence[Path], class_names: list[str] | None, split: Split, allow_outside: bool,
    multi_label: bool,
) -> DataFolder:
    train_table, val_table = (one_of(tables, word, folder) for word in ("train", "val"))
    test_table = one_of(tables, "test", folder) if split.any_split else None
    notes: list[str] = []
    left_out: list[str] = []
    is_split = True
    written = folder / SPLIT_FILE
    if written in tables:  # the other tables are what it was made of
        others = [read_rows(path, multi_label=multi_label) for path in tables if path != written]
        left_out = _left_out(folder, read_rows(written, multi_label=multi_label), others)
        tables, train_table, val_table, test_table = [written], None, None, None
    if train_table and val_table:
        train, val, test = (read_rows(table, multi_label=multi_label) if table else Rows.of(())
                            for table in (train_table, val_table, test_table))
        check_segments([row for rows in (train, val, test) if not rows.is_whole for row in rows],
                       multi_label=multi_label)
        check_no_label([row for rows in (train, val, test) for row in rows.first_of_labels().values()],
                       multi_label=multi_label)
    else:
        if len(tables) > 1:
            names = ", ".join(path.name for path in tables)
            raise ValueError(f"{folder}: several CSV files ({names}); keep one with a column 'split', or *train*.csv "
                             "and *val*.csv")
        rows = read_rows(tables[0], multi_label=multi_label)
        check_no_label(rows.first_of_labels().values(), multi_label=multi_label)  # before a split of them is written
        if any(rows.splits.texts):
            _check_splits(rows, tables[0], needed=() if split.any_split else ("train", "val"))
        elif split.val_share is None:
            is_split = False
        else:
            rows, note = with_chosen_split(folder, rows, split, tables[0], written=written if split.keep else None)
            notes.append(note)
        train, val = (rows.of_split(name) if is_split else rows for name in ("train", "val"))
        test = rows.of_split("test") if split.any_split else Rows.of(())
        del rows
    lists = (train, val, test)
    labelled = [row for rows in lists for row in rows.first_of_labels().values()]
    if _is_of_class_folders(tables[0], lists):  # a folder named "7" is a name, not the number of a class
        class_names = sorted({row.label for row in labelled})
    notes += _untrained_labels(train, val, class_names)
    has_names = class_names is not None or split.any_split
    class_names = names_of_labels(labelled, class_names)
    for rows in () if allow_outside else lists:
        for name, where in zip(rows.paths, rows.wheres(), strict=True):
            check_within(folder, str(folder), name, where)
    train_list, val_list, test_list = (
        videos_of_rows(rows, class_names, prefix=str(folder), source=str(table or tables[0]))
        for rows, table in ((train, train_table), (val, val_table), (test, test_table))
    )
    if not has_names and class_names == [str(number) for number in range(len(class_names))]:
        check_label_0(train_list)
    data = DataFolder(train_list, val_list, class_names, notes, left_out, is_split=is_split, test=test_list)
    return _with_videos_as_groups(data)


def _untrained_labels(train: Rows, val: Rows, class_names: Sequence[str] | None) -> list[str]:
    """A note on the first label of the validation videos that no training video has; none where all have one."""
    trained = {name for row in train.first_of_labels().values() for name in label_names(row)}
    if class_names is not None:                                        # a class may be told by its number
        trained |= {str(number) for number, name in enumerate(class_names) if name in trained}
        trained |= {class_names[int(name)] for name in trained if is_number(name) and int(name) < len(class_names)}
    new = next((row for row in val.first_of_labels().values() if len(train)
                and not trained.issuperset(label_names(row))), None)
    return [] if new is None else [f"{new.where}: no training video has the label {new.label!r}, so it cannot be "
                                   "learned; is it misspelt?"]


def with_chosen_split(
    folder: Path, rows: Rows, split: Split, table: Path, *, written: Path | None
) -> tuple[Rows, str]:
    """The rows with the split that is chosen for them, and what to say of it; segments of a video stay together."""
    groups = None if rows.groups is None else list(rows.groups)
    kept_whole = "groups"
    if split.group_by is not None:
        groups = groups_of_paths(rows.paths, folder, split.group_by)
    elif groups is None and not rows.is_whole:
        groups, kept_whole = list(rows.paths), "videos"
    is_val = split.choose(rarest_labels(rows, table), groups, table)
    rows = rows.with_split(is_val, groups if kept_whole == "groups" else None)
    what = "videos" if rows.is_whole else "segments"
    how = "class by class" if groups is None else f"{len(set(groups))} {kept_whole} kept whole"
    note = write_split(written, rows, split.seed)
    return rows, (f"{table} has no column 'split': {is_val.sum()} of {len(rows)} {what} were chosen for validation, "
                  f"{how}; {note}")


def rarest_labels(rows: Rows, table: Path) -> FewTexts:
    """The label by which a row is split: the only one, or of several the one that the fewest rows have.

    Raises ValueError where it is the one row that is split by a label which others have, too.
    """
    counts = np.bincount(rows.labels.numbers, minlength=len(rows.labels.texts)).tolist()  # rows of each label
    names_of = {number: label_names(row) for number, row in rows.first_of_labels().items()}
    num_rows: Counter[str] = Counter()
    for number, names in names_of.items():
        num_rows.update(dict.fromkeys(names, counts[number]))
    rarest = {number: min(names or [""], key=lambda name: (num_rows[name], name))
              for number, names in names_of.items()}
    num_chosen: Counter[str] = Counter()
    for number, name in rarest.items():
        num_chosen[name] += counts[number]
    alone = [name for name, num in num_chosen.items() if num == 1 < num_rows[name]]
    if alone:
        raise ValueError(f"{table}: the videos of class {alone[0]!r} have other labels as well, so they cannot be "
                         "split class by class; add a column 'split' with train and val")
    return FewTexts([rarest.get(number, "") for number in range(len(counts))], rows.labels.numbers)


def _with_videos_as_groups(data: DataFolder) -> DataFolder:
    """Where nothing else says what belongs together, the segments of a video do; a note where both lists have some."""
    train, val = data.train, data.val
    has_groups = train.groups is not None or val.groups is not None
    if not data.is_split or has_groups or train.starts is None or val.starts is None:
        return data
    paths = [[videos.name(index) for index in range(len(videos))] for videos in (train, val)]
    both = sorted(set(paths[0]) & set(paths[1]))
    if both:
        data.notes.append(f"{counted(len(both), 'video')} with segments in training and in validation, the first is "
                          f"{both[0]}: their validation is no test on new videos")
    else:
        train.groups, val.groups = (PackedTexts(of_list) for of_list in paths)
    return data


def _is_of_class_folders(table: Path, lists: Sequence[Rows]) -> bool:
    return table.name in (SPLIT_FILE, CLEAN_FILE) and all(
        label in path.split("/")[:2] for rows in lists for path, label in zip(rows.paths, rows.labels, strict=True))


def _check_splits(rows: Rows, path: Path, *, needed: Sequence[str]) -> None:
    for row in rows if set(rows.splits.texts) - {"train", "val", "test"} else ():
        if row.split not in ("train", "val", "test"):
            raise ValueError(f"{row.where}: the split {row.split!r} is none of train, val, test")
    for split in needed:
        if split not in rows.splits.texts:
            raise ValueError(f"{path}: no line with the split {split!r}")


def _left_out(folder: Path, rows: Rows, tables: Sequence[Rows]) -> list[str]:
    """Videos and classes that came into the class folders, or the other tables, or went, after the split was made."""
    listed = {row.name for row in rows}
    if tables:
        there = {row.name: label_names(row) for table in tables for row in table}
    else:
        there = {path.relative_to(folder).as_posix(): [name] for name, videos in videos_by_class(folder).items()
                 for path in videos}
    new = [name for name in there if name not in listed]
    gone = [row.name for row in rows if row.name not in there and not (folder / row.path).exists()]
    classes = sorted({name for names in there.values() for name in names}
                     - {name for row in rows for name in label_names(row)})
    parts = [f"{len(new)} videos in {folder} are not in {SPLIT_FILE}, the first is {folder / new[0]}"] if new else []
    parts += [f"{len(gone)} videos of {SPLIT_FILE} are not there, the first is {folder / gone[0]}"] if gone else []
    parts += [f"it has no video of {', '.join(map(repr, classes[:8]))}"] if classes else []
    advice = [f"{'; '.join(parts)}: delete {SPLIT_FILE} to split anew"] if parts else []
    return advice + ([] if tables else empty_notes(folder))
