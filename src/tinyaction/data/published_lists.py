"""Lists as data sets publish them, and as spreadsheets save them.

    UCF101              classInd.txt "1 Archery", trainlist01.txt "Archery/v.avi 1", testlist01.txt "Archery/v.avi"
    HMDB51              wave_test_split1.txt "v.avi 1" for each class: 1 training, 2 test, 0 neither
    Something-Something *train*.json and *val*.json: [{"id": "7", "template": "Holding [something]", ...}, ...]
    Jester              *train*.csv and *val*.csv, without a header: "34870;Drumming Fingers"
    Kinetics            *train*.csv and *val*.csv: "label,youtube_id,time_start,time_end,split,is_cc"

UCF101 and HMDB51 come with three splits, their test videos for validation. Of a folder the first is read; a list that
is given itself chooses its split: ``trainlist02.txt``, ``wave_test_split3.txt``. Lists may lie in the folder that they
are unpacked to (:data:`LIST_FOLDERS`), videos in one of :data:`VIDEO_FOLDERS`. Where Something-Something or Jester has
its ``*labels*`` file beside the lists, classes have its order, else that of their names.
"""

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinyaction.data.class_folders import LIST_FOLDERS
from tinyaction.data.tables import read_lines, read_text

Rows = list[tuple[str, str]]  # (path below the folder, class name)
KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
VIDEO_FOLDERS = ("videos", "UCF-101", "hmdb51_org", "20bn-something-something-v2", "20bn-something-something-v1",
                 "20bn-jester-v1")
UCF101_SPLITS = {"trainlist": "train", "testlist": "val"}  # by the name of a list without its "01.txt"
_NAMED_SPLIT = re.compile(r"(?:train|test)list0([1-3])\.txt|.+_test_split([1-3])\.txt")


@dataclass
class PublishedLists:
    """The two lists of a data set; paths are relative to ``folder``."""

    train: Rows
    val: Rows
    class_names: list[str]
    source: Path  # the training list
    folder: Path
    val_is_test: bool = False  # the data set calls the videos of ``val`` its test videos


def read_published(source: Path) -> PublishedLists | None:
    """Read lists in a published format, of a folder or of the split that a list names; None where there are none.

    Raises:
        ValueError: a line is not as published; the file and the line are named.
    """
    if source.is_dir():
        found = (_read_lists(source, lists, 1) for lists in _list_folders(source))
        return next((lists for lists in found if lists is not None), None)
    named = _NAMED_SPLIT.fullmatch(source.name)
    if named is None:
        return None
    folder = source.parent.parent if source.parent.name in LIST_FOLDERS else source.parent
    return _read_lists(folder, source.parent, int(named[1] or named[2]))


def _list_folders(folder: Path) -> list[Path]:
    return [folder, *(folder / name for name in LIST_FOLDERS if (folder / name).is_dir())]


def _read_lists(folder: Path, lists: Path, split: int) -> PublishedLists | None:
    """``lists``: where the lists lie; paths are relative to ``folder``."""
    tables = {word: _one(lists, f"*{word}*.csv") for word in ("train", "val")}
    jsons = {word: _one(lists, f"*{word}*.json") for word in ("train", "val")}
    place = _Places(folder)
    if (lists / "classInd.txt").is_file():
        return _read_ucf101(lists, place, split)
    if files := list(lists.glob(f"*_test_split{split}.txt")):
        return _read_hmdb51(files, place, split)
    if jsons["train"] and jsons["val"]:
        return _both(jsons, place, lambda path: _read_something(place, path))
    if tables["train"] and tables["val"]:
        header = next(read_lines(tables["train"]), "").rstrip("\n")
        if header.lower().replace('"', "").startswith(",".join(KINETICS_COLUMNS)):
            return _both(tables, place, lambda path: _read_kinetics(place, path))
        if header.count(";") == 1 and header.split(";")[0].strip().isdigit():
            return _both(tables, place, lambda path: _read_jester(place, path))
    return None


class _Places:
    """Where videos lie: below the folder, or below a folder in it that has videos."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.others = [name for name in VIDEO_FOLDERS if (folder / name).is_dir()]

    def __call__(self, *names: str) -> str:
        """The first of these names that is there, in whichever folder; the first name where none is."""
        every = [*names, *(f"{other}/{name}" for other in self.others for name in names)]
        if len(every) == 1:
            return names[0]
        return next((name for name in every if (self.folder / name).exists()), every[0])


def _one(folder: Path, pattern: str) -> Path | None:
    found = sorted(folder.glob(pattern))
    return found[0] if len(found) == 1 else None


def _both(paths: dict[str, Path | None], place: _Places, read: Callable[[Path], Rows]) -> PublishedLists:
    train_path, val_path = paths["train"], paths["val"]
    assert train_path and val_path
    train, val = read(train_path), read(val_path)
    class_names = _labels_beside(train_path) or sorted({name for _, name in train})
    for path, rows in ((train_path, train), (val_path, val)):
        unknown = sorted({name for _, name in rows} - set(class_names))
        if unknown:
            raise ValueError(f"{path}: no training video, or no line of the file of labels, has the class "
                             f"{unknown[0]!r}")
    return PublishedLists(train, val, class_names, train_path, place.folder)


def _labels_beside(path: Path) -> list[str]:
    """Class names in the order of their numbers: {"Holding something": "0"} in JSON, or one name a line."""
    file = _one(path.parent, f"*labels*{path.suffix}")
    if file is None:
        return []
    if file.suffix != ".json":
        return [line for _, line in _lines(file)]
    try:
        numbers = {name: int(number) for name, number in json.loads(read_text(file)).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file}: not class names with their numbers ({type(error).__name__}: {error})") from None
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise ValueError(f"{file}: the numbers of the {len(numbers)} classes are not 0 to {len(numbers) - 1}")
    return sorted(numbers, key=numbers.__getitem__)


def _lines(path: Path) -> list[tuple[str, str]]:
    """("file, line n", line) of each line that is not blank."""
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [(f"{path}, line {number}", line.strip()) for number, line in lines if line.strip()]


def _read_ucf101(lists: Path, place: _Places, split: int) -> PublishedLists:
    names = lists / "classInd.txt"
    numbers: dict[str, str] = {}  # class -> its number as written
    for where, line in _lines(names):
        number, _, name = line.partition(" ")
        if number != str(len(numbers) + 1) or not name.strip():
            raise ValueError(f"{where}: {line!r}; a line of this file is 'number name', and the numbers count from 1")
        numbers[name.strip()] = number
    rows: dict[str, Rows] = {"train": [], "test": []}
    for word in rows:
        path = lists / f"{word}list0{split}.txt"
        if not path.is_file():
            raise ValueError(f"{lists}: classInd.txt is there and {path.name} is not; both come with UCF101")
        for where, line in _lines(path):
            video, _, number = line.partition(" ")
            label = video.split("/")[0]
            if label not in numbers:
                raise ValueError(f"{where}: {video!r} is in no folder of a class of {names}")
            if number.strip() not in ("", numbers[label]):
                raise ValueError(f"{where}: {line!r}; {names.name} gives {label} the number {numbers[label]}")
            rows[word].append((place(video), label))
    return PublishedLists(rows["train"], rows["test"], list(numbers), lists / f"trainlist0{split}.txt", place.folder,
                          val_is_test=True)


def _read_hmdb51(files: list[Path], place: _Places, split: int) -> PublishedLists:
    by_class = {path.name.removesuffix(f"_test_split{split}.txt"): path for path in files}
    rows: dict[str, Rows] = {"0": [], "1": [], "2": []}
    for name in sorted(by_class):
        for where, line in _lines(by_class[name]):
            path, _, use = line.rpartition(" ")
            if use not in rows or not path:
                raise ValueError(f"{where}: {line!r}; a line of this file is 'video 0', 1 for training or 2 for test")
            if use != "0":
                rows[use].append((place(f"{name}/{path.strip()}"), name))
    return PublishedLists(rows["1"], rows["2"], sorted(by_class), by_class[min(by_class)], place.folder,
                          val_is_test=True)


def _read_something(place: _Places, path: Path) -> Rows:
    try:
        entries = json.loads(read_text(path))
        pairs = [(str(entry["id"]), str(entry.get("template") or entry["label"])) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not a list of Something-Something, each with 'id' and 'template' "
                         f"({type(error).__name__}: {error})") from None
    return [(place(f"{name}.webm"), template.replace("[", "").replace("]", "")) for name, template in pairs]


def _read_jester(place: _Places, path: Path) -> Rows:
    """Videos are folders of frames."""
    rows = []
    for where, line in _lines(path):
        name, mark, label = (part.strip() for part in line.partition(";"))
        if not (name and mark and label) or ";" in label:
            raise ValueError(f"{where}: {line!r}; this list began with 'video;class', so every line is that")
        rows.append((place(name), label))
    return rows


def _read_kinetics(place: _Places, path: Path) -> Rows:
    """Clips are named after their video and the seconds they were cut at: ID_000012_000022.mp4, in folders of classes.

    These lie in the folder, or in one named after the list or the split; a space in their names may be ``_``.
    """
    rows = []
    split = "train" if "train" in path.stem.lower() else "val"
    outer = [f"{name}/" for name in dict.fromkeys((path.stem, split, f"videos_{split}"))
             if (place.folder / name).is_dir()]
    table = csv.DictReader(io.StringIO(read_text(path), newline=""))
    table.fieldnames = [name.strip().lower() for name in table.fieldnames or []]
    for row in table:
        try:
            start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
            name = f"{row['youtube_id'].strip()}_{start:06}_{end:06}.mp4"
            label = row["label"].strip()
        except (ValueError, TypeError, AttributeError, OverflowError):
            raise ValueError(f"{path}, line {table.line_num}: not as in Kinetics, "
                             f"'{','.join(KINETICS_COLUMNS)}'") from None
        folders = dict.fromkeys((f"{label}/", f"{label.replace(' ', '_')}/", ""))
        within = [f"{folder}{name}" for folder in folders]
        rows.append((place(*within, *(first + name for first in outer for name in within)), label))
    return rows
