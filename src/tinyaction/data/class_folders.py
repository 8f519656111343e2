"""Folders of videos: which files count as videos, class folders, and the split of videos that have none."""

import os
import random
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from tinyaction.data.segments import Segment, write_segments
from tinyaction.text import check_class_names

# What PyAV opens and people use, in any case. Pictures are no videos: folders of them are frames of one.
VIDEO_SUFFIXES = frozenset((
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2t", ".m2ts", ".m2v", ".m4v", ".mkv",
    ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogg", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv",
))
LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".md")  # at the top of a folder these describe the videos
LIST_FOLDERS = ("ucfTrainTestlist", "testTrainMulti_7030_splits")  # into which UCF101 and HMDB51 unpack theirs


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its folders by name, following links; each folder once, so loops end.

    Hidden files and folders are passed over.
    """
    seen: set[tuple[int, int]] = set()
    for place, names, files in os.walk(folder, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            names.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def videos_by_class(folder: Path) -> dict[str, list[Path]]:
    """Class name -> its videos, sorted; folders without a video are no classes."""
    found = {child.name: sorted(filter(is_video, walk_files(child))) for child in _class_folders(folder)}
    return {name: videos for name, videos in found.items() if videos}


def empty_classes(folder: Path) -> list[str]:
    """Names of the folders beside the class folders that hold no video."""
    return [child.name for child in _class_folders(folder) if not any(map(is_video, walk_files(child)))]


def empty_notes(folder: Path) -> list[str]:
    names = empty_classes(folder)
    return [f"{folder} has class folders without a video: {', '.join(names[:8])}"] if names else []


def _class_folders(folder: Path) -> list[Path]:
    return [child for child in sorted(folder.iterdir()) if child.is_dir() and not child.name.startswith(".")]


def unused_files(folder: Path, listed: Iterable[str]) -> tuple[Counter[str], list[Path]]:
    """(number of files that are no videos by suffix, videos) that lie in a data folder and are not used.

    ``listed``: the names of the files, and folders of frames, that are used. Lists at the top of the folder, or in
    one of :data:`LIST_FOLDERS`, are not counted.
    """
    real_folder_of = lru_cache(10_000)(os.path.realpath)

    def real(path: str) -> str:
        return os.path.realpath(path) if os.path.islink(path) else os.path.join(
            real_folder_of(os.path.dirname(path)), os.path.basename(path))

    used = np.sort(np.fromiter((hash(real(path)) for path in listed), np.int64))  # ten million names are gigabytes

    def is_used(path: str) -> bool:
        place = np.searchsorted(used, hash(path))
        return bool(place < len(used) and used[place] == hash(path))

    list_folders = {folder, *(folder / name for name in LIST_FOLDERS)}
    num_by_suffix: Counter[str] = Counter()
    videos: list[Path] = []
    for path in walk_files(folder):
        is_list = path.parent in list_folders and path.suffix.lower() in LIST_SUFFIXES
        if is_list or is_used(real(str(path))) or is_used(real_folder_of(str(path.parent))):
            continue
        if is_video(path):
            videos.append(path)
        else:
            num_by_suffix[path.suffix.lower() or "no suffix"] += 1
    return num_by_suffix, videos


def split_by_class(labels: Collection[str], val_share: float, seed: int, source: Path) -> list[int]:
    """Choose validation items class by class; every class keeps at least one video on both sides."""
    rng = random.Random(seed)
    val_ids: list[int] = []
    ids_of: dict[str, array[int]] = {}  # a tenth of the memory of lists
    for index, label in enumerate(labels):
        ids_of.setdefault(label, array("i")).append(index)
    for label, ids in sorted(ids_of.items()):
        if len(ids) < 2 and not label:                                 # the one video with none of the labels trains
            continue
        if len(ids) < 2:
            raise ValueError(f"{source}: class {label!r} has one video only; two are needed, to train and to validate")
        num_val = min(max(1, round(len(ids) * val_share)), len(ids) - 1)
        val_ids.extend(rng.sample(ids, num_val))
    return val_ids


def write_split(path: Path | None, rows: Collection[Segment], seed: int) -> str:
    """Write rows and split down, and say where; without a path, or in a read-only folder, how it comes again."""
    if path is None:
        return f"seed {seed} gives the same split again"
    names = sorted({row.label for row in rows} - {""})
    check_class_names(names, path.parent)                              # a folder that is refused stays as it was
    try:
        write_segments(path, rows)
    except UnicodeEncodeError:
        wrong = next(row.path for row in rows if not row.path.isprintable())
        raise ValueError(f"{str(path.parent / wrong)!a}: the file name is not UTF-8; rename it") from None
    except OSError as error:  # a read-only folder: the same seed gives the same split the next time
        return f"{path} could not be written ({error.strerror}); seed {seed} gives the same split again"
    return f"written to {path}: delete it to split anew"
