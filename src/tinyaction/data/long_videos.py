"""Uncut videos with the segments in which something happens: :func:`find_long_videos`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os.path import isfile, join
from pathlib import Path

from tinyaction.data.annotations import VAL_SHARE
from tinyaction.data.csv_lists import with_chosen_split
from tinyaction.data.groups import Split
from tinyaction.data.lists import check_within
from tinyaction.data.rows import Rows
from tinyaction.data.segments import SPLIT_FILE, Segment, read_segments
from tinyaction.text import check_class_names

SEGMENTS_FILE = "segments.csv"
BACKGROUND = "background"  # what is outside all segments; a segment may say so too


@dataclass(frozen=True)
class LongVideo:
    """A video and its segments in the order of time, those of the background left out."""

    path: str
    segments: Sequence[Segment]
    group: str = ""


@dataclass
class LongVideos:
    """Videos to train with; ``class_names`` are sorted, without the background."""

    train: list[LongVideo]
    val: list[LongVideo]
    class_names: list[str]
    source: Path
    notes: list[str] = field(default_factory=list)


def find_segments_file(source: str | Path) -> Path:
    """The ``segments.csv`` of a folder, or the file itself. Raises FileNotFoundError where there is none."""
    path = Path(source, SEGMENTS_FILE) if Path(source).is_dir() else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; uncut videos need one with the columns "
                                "path,start,end,label[,split]")
    return path


def read_long_videos(
    path: Path, *, overlaps: bool = False, allow_outside: bool = False
) -> dict[str, list[LongVideo]]:
    """Split ("" where the file does not say) -> the videos of a file of segments; paths are relative to it.

    Args:
        overlaps: segments of one video may overlap.
        allow_outside: paths may leave the folder of the file.

    Raises:
        ValueError: what :func:`read_segments` raises; a path that leaves the folder, a video on two sides.
        FileNotFoundError: a video is missing.
    """
    rows = with_written_split(path, read_segments(path, overlap=overlaps), overlaps=overlaps)
    return videos_of_segments(path, rows, allow_outside=allow_outside)


def with_written_split(path: Path, rows: list[Segment], *, overlaps: bool) -> list[Segment]:
    """The rows of a file without splits with those that ``split.csv`` beside it gives to all of its videos."""
    written = path.with_name(SPLIT_FILE)
    if path == written or not written.is_file() or any(row.split for row in rows):
        return rows
    split_of = {row.path: row.split for row in read_segments(written, overlap=overlaps)}
    return [replace(row, split=split_of[row.path]) for row in rows] if {row.path for row in rows} <= set(split_of) \
        else rows


def videos_of_segments(path: Path, rows: Sequence[Segment], *, allow_outside: bool) -> dict[str, list[LongVideo]]:
    of_path: dict[str, list[Segment]] = {}
    for item in rows:
        of_path.setdefault(item.path, []).append(item)
    found: dict[str, list[LongVideo]] = {}
    for name, items in of_path.items():
        where = items[0].where
        if not allow_outside:
            check_within(path.parent, str(path.parent), name, where)
        if not isfile(join(path.parent, name)):
            raise FileNotFoundError(f"{where}: there is no video {join(path.parent, name)}")
        splits = sorted({item.split for item in items})
        if len(splits) > 1 or splits[0] not in ("", "train", "val", "test"):
            raise ValueError(f"{where}: the split of {name!r} is {' and '.join(map(repr, splits))}; an uncut video "
                             "belongs to train, val or test")
        actions = sorted((item for item in items if item.label != BACKGROUND), key=lambda item: item.start)
        found.setdefault(splits[0], []).append(LongVideo(join(path.parent, name), actions, items[0].group))
    return found


def find_long_videos(source: str | Path, *, overlaps: bool = False, allow_outside: bool = False) -> LongVideos:
    """Find the training and validation videos of a folder's ``segments.csv``, or of a file of segments.

    Where the file has no splits, they are chosen as those of clips, and written to ``split.csv``.

    Raises as :func:`read_long_videos` does, and ValueError where there is no training or no validation video, or a
    class has no training segment.
    """
    path = find_segments_file(source)
    found = read_long_videos(path, overlaps=overlaps, allow_outside=allow_outside)
    unsplit, notes = found.get("", []), []
    if unsplit:
        if len(found) > 1:
            raise ValueError(f"{path}: {unsplit[0].path} has no split, other videos have one; give it to all")
        written = path.with_name(SPLIT_FILE)
        if written.exists():
            raise ValueError(f"{written}: gives no split to all videos of {path.name}; delete it to split anew")
        rows, note = with_chosen_split(path.parent, Rows.of(read_segments(path, overlap=overlaps)),
                                       Split(VAL_SHARE, 0, None), path, written=written)
        found = videos_of_segments(path, list(rows), allow_outside=allow_outside)
        notes.append(note)
    for split, what in (("train", "training"), ("val", "validation")):
        if not found.get(split):
            raise ValueError(f"{path}: no {what} video among {sum(map(len, found.values()))}; give one the split "
                             f"'{split}'")
    names = sorted({item.label for videos in found.values() for video in videos for item in video.segments})
    if not names:
        raise ValueError(f"{path}: no segment of an action in it, only of the {BACKGROUND}; label some")
    check_class_names(names, str(path))
    trained = {item.label for video in found["train"] for item in video.segments}
    missing = [name for name in names if name not in trained]
    if missing:
        raise ValueError(f"{path}: the class {missing[0]!r} has no training segment; give it some, or take it out of "
                         "the list")
    return LongVideos(found["train"], found["val"], names, path, notes)
