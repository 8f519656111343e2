"""Which videos, with which labels: annotation lists, CSV files, folders of classes.

:func:`find_data` looks at a folder and understands four layouts, tried in this order:

    published       the lists of UCF101, HMDB51, ... as they come; see :mod:`tinyaction.data.published_lists`
    lists           *train*.txt and *val*.txt with lines "path label", beside train/ and val/ (the guide's layout)
    CSV             *train*.csv and *val*.csv, or one *.csv with a column "split"; columns "path,label[,split][,group]"
                    or, of segments, "path,start,end,label[,split][,group]"; see :mod:`tinyaction.data.segments`
    class folders   train/<class>/*.mp4 and val/<class>/*.mp4, or <class>/*.mp4, which is split once and written down

Class names come from the folders, from the CSV, or from a classes.txt or label_map*.txt beside the lists.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinyaction.data.class_folders import VIDEO_SUFFIXES, empty_notes, videos_by_class, write_split
from tinyaction.data.csv_lists import from_tables
from tinyaction.data.folder import DataFolder, one_of
from tinyaction.data.groups import Split, compile_group_by, groups_of_paths
from tinyaction.data.lists import (
    VideoList,
    check_label_0,
    check_within,
    ends_with_count,
    read_class_names,
    read_list,
)
from tinyaction.data.place_folder import mirrored
from tinyaction.data.published_lists import PublishedLists, read_published
from tinyaction.data.rows import PackedTexts
from tinyaction.data.segments import CLEAN_FILE, LABEL_SEPARATOR, SPLIT_FILE, Segment
from tinyaction.data.tables import read_lines
from tinyaction.places import is_place

VAL_SHARE = 0.2  # of the videos of a class, where they have no split


def find_data(
    source: str | Path, *, val_share: float | None = VAL_SHARE, split_seed: int = 0, allow_outside: bool = False,
    group_by: str = "", keep_split: bool = True, any_split: bool = False, multi_label: bool = False,
) -> DataFolder:
    """Find the training and validation videos in a folder, or of one file: a CSV file with a column "split", a list
    *train*.txt with *val*.txt beside it, or a list of one of the splits of UCF101 and HMDB51.

    The layouts of folders are those of this module's docstring.

    Class folders without ``train/`` and ``val/``, and a CSV without a column "split", are split once, class by class
    (``val_share`` of each, at least one video), and the split is written to ``split.csv`` in the folder, so that every
    later run and evaluation uses it; with ``keep_split=False`` nothing is written. With ``val_share=None`` they are
    not split: both lists have all videos, to evaluate on, and one class or one video of it is enough.
    Where the groups of clips are known, from the column "group" of a CSV or from ``group_by``, a regular expression on
    the paths below the folder, the split keeps them whole.
    With ``any_split`` the videos of "test" are read as well, and a CSV file may have no line of "train" or of "val".
    A list that came from elsewhere may not name files outside the folder, by ``../`` or from the root, unless
    ``allow_outside``.
    The source may lie elsewhere, as s3://bucket/clips; a split is then not written down.
    Videos have sets of labels where a row of a CSV names several, as "wave;walk", or with ``multi_label``; then the
    set of a row without a label is empty.

    Raises:
        ValueError: the folder is in none of the layouts, or a list has an error (file and line are named).
        FileNotFoundError: there is no such folder.
    """
    if is_place(source):
        with mirrored(source) as (local, mirror):
            return mirror.restored(find_data(
                local, val_share=val_share, split_seed=split_seed, allow_outside=allow_outside, group_by=group_by,
                keep_split=False, any_split=any_split, multi_label=multi_label))
    pattern = compile_group_by(group_by) if group_by else None
    data = _find_data(Path(source), Split(val_share, split_seed, pattern, keep_split, any_split), allow_outside,
                      multi_label)
    if pattern is not None:
        assert data.folder is not None
        for videos in (data.train, data.val):
            videos.groups = PackedTexts(groups_of_paths(videos.paths(), data.folder, pattern))
    if multi_label or data.train.label_sets is not None or data.val.label_sets is not None:
        for name in data.class_names:
            if LABEL_SEPARATOR in name:
                raise ValueError(f"{source}: the class {name!r} has a {LABEL_SEPARATOR} in its name, which stands "
                                 "between the labels of a video; rename it")
        for videos in filter(None, (data.train, data.val, data.test)):
            videos.use_label_sets(len(data.class_names))
    return data


def _find_data(folder: Path, split: Split, allow_outside: bool, multi_label: bool) -> DataFolder:
    tables: list[Path] = []
    if published := read_published(folder):
        return _from_published(published, allow_outside)
    pair = _with_val_list(folder)
    if pair:
        folder = folder.parent
    elif folder.is_file():
        if not {".csv", ".tsv", ".clean"} & set(folder.suffixes):
            raise ValueError(f"{folder}: a file; give the folder that holds the lists, the CSV file or the class "
                             "folders, one CSV file with columns 'path,label,split', or a list *train*.txt that has "
                             "*val*.txt beside it")
        tables, folder = [folder], folder.parent
    elif not folder.is_dir():
        raise FileNotFoundError(f"{folder}: " + ("no folder and no regular file; a list is a text file"
                                                 if folder.exists() else "no such folder"))
    names_file = _one_file(folder, ("classes.txt", "label_map*.txt"))
    class_names = read_class_names(names_file) if names_file else None
    if tables or pair:
        data = _from_lists(folder, *pair, class_names, allow_outside) if pair else from_tables(
            folder, tables, class_names, replace(split, keep=False), allow_outside, multi_label)
        data.folder = folder
        return data
    lists = [path for path in folder.glob("*.txt") if path != names_file]
    train_list, val_list = (one_of(lists, word, folder) for word in ("train", "val"))
    tables = sorted(path for path in folder.glob("*.[ct]sv") if path.name != CLEAN_FILE)
    if train_list and val_list:
        data = _from_lists(folder, train_list, val_list, class_names, allow_outside)
    elif tables:
        data = from_tables(folder, tables, class_names, split, allow_outside, multi_label)
    elif train_list or val_list:
        raise ValueError(f"{folder}: found {train_list or val_list} but no list for the other split")
    else:
        data = _from_class_folders(folder, split)
    data.folder = folder
    if split.any_split and not data.test:
        data.test = _test_beside(folder, data.class_names, one_of(lists, "test", folder), allow_outside)
    return data


def _test_beside(
    folder: Path, class_names: list[str], test_list: Path | None, allow_outside: bool
) -> VideoList | None:
    """The videos for testing that lie in a list, or in class folders in test/, beside those of the other splits."""
    if test_list:
        return read_list(test_list, prefix=_prefix_of(folder, "test", test_list), num_classes=len(class_names),
                         within=None if allow_outside else folder)
    test_folder = folder / "test"
    if not test_folder.is_dir() or not (folder / "train").is_dir():
        return None
    classes = videos_by_class(test_folder)
    unknown = sorted(set(classes) - set(class_names))
    if unknown:
        raise ValueError(f"{test_folder}: class {unknown[0]!r} is none of the other splits")
    return _listed(classes, class_names, test_folder)


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
        check_label_0(train)
        class_names = [str(label) for label in range(int(train.labels.max()) + 1)]
    val = read_list(val_list, prefix=_prefix_of(folder, "val", val_list), num_classes=len(class_names),
                    within=within)
    return DataFolder(train, val, class_names)


def _from_published(lists: PublishedLists, allow_outside: bool) -> DataFolder:
    folder = lists.folder
    numbers = {name: number for number, name in enumerate(lists.class_names)}

    def listed(rows: list[tuple[str, str]]) -> VideoList:
        for path, _ in () if allow_outside else rows:
            check_within(folder, str(folder), path, str(lists.source))
        return VideoList([path for path, _ in rows], [numbers[name] for _, name in rows], prefix=str(folder),
                         source=str(lists.source))

    val = listed(lists.val)
    return DataFolder(listed(lists.train), val, lists.class_names, folder=folder,
                      test=val if lists.val_is_test else None)


def _prefix_of(folder: Path, split: str, list_file: Path) -> str:
    """Paths in a list are relative to train/ or val/ (the guide's layout) or to the folder: see which one is there."""
    first = next((line.rsplit(maxsplit=1)[0].strip() for line in read_lines(list_file) if line.strip()), "")
    in_split = folder / split

    def is_in(place: Path) -> bool:
        return (place / first).exists() or ends_with_count(first, str(place))

    return str(in_split if is_in(in_split) or not is_in(folder) else folder)


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
                              class_names, left_out=[*empty_notes(train_folder), *empty_notes(val_folder)])
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
    if split.val_share is None:
        videos = _listed(classes, sorted(classes), folder)
        return DataFolder(videos, videos, sorted(classes), left_out=empty_notes(folder), is_split=False)
    if len(classes) == 1:
        raise ValueError(f"{folder}: one class only ({next(iter(classes))!r}); a classifier needs at least two")
    class_names = sorted(classes)
    every = [(path, name) for name in class_names for path in classes[name]]
    paths = [path.relative_to(folder).as_posix() for path, _ in every]
    groups = None if split.group_by is None else groups_of_paths(paths, folder, split.group_by)
    how = "class by class" if groups is None else f"{len(set(groups))} groups kept whole"
    is_val = split.choose([name for _, name in every], groups, folder)
    rows = [Segment(paths[i], 0, math.inf, name, "val" if is_val[i] else "train", groups[i] if groups else "")
            for i, (_, name) in enumerate(every)]
    note = write_split(folder / SPLIT_FILE if split.keep else None, rows, split.seed)
    numbers = {name: number for number, name in enumerate(class_names)}
    train_list, val_list = (
        VideoList([str(every[i][0]) for i in ids], [numbers[every[i][1]] for i in ids], source=str(folder))
        for ids in (np.flatnonzero(~is_val).tolist(), np.flatnonzero(is_val).tolist())
    )
    return DataFolder(train_list, val_list, class_names,
                      [f"{folder} has no train/ and val/: {is_val.sum()} of {len(every)} videos were chosen for "
                       f"validation, {how}; {note}"], empty_notes(folder))


def _listed(classes: dict[str, list[Path]], class_names: list[str], source: Path) -> VideoList:
    pairs = [(str(path), number) for number, name in enumerate(class_names) for path in classes.get(name, [])]
    return VideoList([path for path, _ in pairs], [number for _, number in pairs], source=str(source))


# ---- files ---------------------------------------------------------------------------------------------------------


def _with_val_list(path: Path) -> tuple[Path, Path] | None:
    """A list a_train_2.txt and a_val_2.txt beside it; None where it is another file, or alone."""
    if path.suffix != ".txt" or not path.is_file():
        return None
    val_list = path.with_name("val".join(path.name.rsplit("train", maxsplit=1)))
    return (path, val_list) if val_list != path and val_list.is_file() else None


def _one_file(folder: Path, patterns: Sequence[str]) -> Path | None:
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    return None


__all__ = ["CLEAN_FILE", "SPLIT_FILE", "VIDEO_SUFFIXES", "DataFolder", "VideoList", "find_data", "read_list"]
