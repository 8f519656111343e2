"""Lists as data sets publish them.

    UCF101              classInd.txt "1 Archery", trainlist01.txt "Archery/v.avi 1", testlist01.txt "Archery/v.avi"
    HMDB51              wave_test_split1.txt "v.avi 1" for each class: 1 training, 2 test, 0 neither
    Something-Something *train*.json and *val*.json: [{"id": "7", "template": "Holding [something]", ...}, ...]
    Jester              *train*.csv and *val*.csv, without a header: "34870;Drumming Fingers"
    Kinetics            *train*.csv and *val*.csv: "label,youtube_id,time_start,time_end,split"

UCF101 and HMDB51 come with three splits; the first is read, with its test videos for validation.
"""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinyaction.data.tables import read_text

Rows = list[tuple[str, str]]  # (path below the folder, class name)
KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


@dataclass
class PublishedLists:
    """The two lists of a data set; paths are relative to the folder."""

    train: Rows
    val: Rows
    class_names: list[str]
    source: Path  # the training list


def read_published(folder: Path) -> PublishedLists | None:
    """Read the lists of a folder that are in a published format; None where there are none.

    Raises:
        ValueError: a line is not as published; the file and the line are named.
    """
    tables = {split: _one(folder, f"*{split}*.csv") for split in ("train", "val")}
    jsons = {split: _one(folder, f"*{split}*.json") for split in ("train", "val")}
    if (folder / "classInd.txt").is_file():
        return _read_ucf101(folder)
    if splits := sorted(folder.glob("*_test_split1.txt")):
        return _read_hmdb51(folder, splits)
    if jsons["train"] and jsons["val"]:
        return _both(jsons, lambda path: _read_something(folder, path))
    if tables["train"] and tables["val"]:
        header = read_text(tables["train"]).partition("\n")[0]
        if header.lower().replace('"', "").startswith(",".join(KINETICS_COLUMNS)):
            return _both(tables, lambda path: _read_kinetics(folder, path))
        if header.count(";") == 1 and header.split(";")[0].strip().isdigit():
            return _both(tables, lambda path: _read_jester(folder, path))
    return None


def _one(folder: Path, pattern: str) -> Path | None:
    found = sorted(folder.glob(pattern))
    return found[0] if len(found) == 1 else None


def _both(paths: dict[str, Path | None], read: Callable[[Path], Rows]) -> PublishedLists:
    train_path, val_path = paths["train"], paths["val"]
    assert train_path and val_path
    train, val = read(train_path), read(val_path)
    class_names = sorted({name for _, name in train})
    unknown = sorted({name for _, name in val} - set(class_names))
    if unknown:
        raise ValueError(f"{val_path}: no training video has the class {unknown[0]!r}")
    return PublishedLists(train, val, class_names, train_path)


def _lines(path: Path) -> list[tuple[str, str]]:
    """("file, line n", line) of each line that is not blank."""
    lines = enumerate(read_text(path).split("\n"), start=1)
    return [(f"{path}, line {number}", line.strip()) for number, line in lines if line.strip()]


def _place(folder: Path, name: str) -> str:
    """Where a video lies: below the folder, or below its videos/."""
    return name if (folder / name).exists() or not (folder / "videos").is_dir() else f"videos/{name}"


def _read_ucf101(folder: Path) -> PublishedLists:
    names = folder / "classInd.txt"
    class_names: list[str] = []
    for where, line in _lines(names):
        number, _, name = line.partition(" ")
        if number != str(len(class_names) + 1) or not name.strip():
            raise ValueError(f"{where}: {line!r}; a line of this file is 'number name', and the numbers count from 1")
        class_names.append(name.strip())
    lists: dict[str, Rows] = {}
    for name in ("trainlist01.txt", "testlist01.txt"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: classInd.txt is there and {name} is not; both come with UCF101")
        rows = lists[name] = []
        for where, line in _lines(folder / name):
            path = line.split(" ")[0]
            label = path.split("/")[0]
            if label not in class_names:
                raise ValueError(f"{where}: {path!r} is in no folder of a class of {names}")
            rows.append((_place(folder, path), label))
    return PublishedLists(lists["trainlist01.txt"], lists["testlist01.txt"], class_names, folder / "trainlist01.txt")


def _read_hmdb51(folder: Path, splits: list[Path]) -> PublishedLists:
    train: Rows = []
    val: Rows = []
    for split in splits:
        name = split.name.removesuffix("_test_split1.txt")
        for where, line in _lines(split):
            path, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2") or not path:
                raise ValueError(f"{where}: {line!r}; a line of this file is 'video 0', 1 for training or 2 for test")
            if use != "0":
                (train if use == "1" else val).append((_place(folder, f"{name}/{path.strip()}"), name))
    return PublishedLists(train, val, [split.name.removesuffix("_test_split1.txt") for split in splits], splits[0])


def _read_something(folder: Path, path: Path) -> Rows:
    try:
        entries = json.loads(read_text(path))
        pairs = [(str(entry["id"]), str(entry.get("template") or entry["label"])) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not a list of Something-Something, each with 'id' and 'template' "
                         f"({type(error).__name__}: {error})") from None
    return [(_place(folder, f"{name}.webm"), template.replace("[", "").replace("]", "")) for name, template in pairs]


def _read_jester(folder: Path, path: Path) -> Rows:
    """Videos are folders of frames."""
    rows = []
    for where, line in _lines(path):
        name, mark, label = (part.strip() for part in line.partition(";"))
        if not (name and mark and label) or ";" in label:
            raise ValueError(f"{where}: {line!r}; this list began with 'video;class', so every line is that")
        rows.append((_place(folder, name), label))
    return rows


def _read_kinetics(folder: Path, path: Path) -> Rows:
    """Clips are named after their video and the seconds they were cut at: label/ID_000012_000022.mp4."""
    rows = []
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
        beside = f"{path.stem}/{name}" if (folder / path.stem / name).exists() else f"{label}/{name}"
        rows.append((_place(folder, beside), label))
    return rows
