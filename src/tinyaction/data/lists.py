"""Lists of videos and labels: text lists as published, and how they are held in memory."""

import hashlib
import io
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from os import sep
from os.path import basename, exists, isabs, join, relpath
from pathlib import Path, PureWindowsPath

import numpy as np
import numpy.typing as npt

from tinyaction.data.class_folders import is_video
from tinyaction.data.published_lists import decoded

MAX_CLASSES = 100_000
MAX_LINE = 10_000  # characters; the longest path that Linux opens has 4,096


class PackedTexts:
    """Texts held in two arrays, so that a million of them are one copy for all workers."""

    def __init__(self, texts: Iterable[str]) -> None:
        packed, ends = bytearray(), array("q", [0])
        for text in texts:
            packed += text.encode("utf-8", "surrogateescape")
            ends.append(len(packed))
        self._ends = np.frombuffer(ends, dtype=np.int64)
        self._packed = np.frombuffer(packed, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return self._packed[self._ends[index] : self._ends[index + 1]].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


class VideoList:
    """Videos and their labels, held in arrays, so that a million of them are one copy for all workers.

    ``videos[i]`` is ``(filename, label)`` with ``prefix`` joined to the filename; ``videos.labels`` is (N,) int64.
    ``videos.groups[i]``, where groups are known, names what the video must not be parted from: a person, a recording.
    """

    def __init__(
        self, filenames: Iterable[str], labels: Iterable[int], *, prefix: str = "", source: str = "",
        groups: Iterable[str] | None = None,
    ) -> None:
        self._names = PackedTexts(filenames)
        self.labels: npt.NDArray[np.int64] = np.fromiter(labels, dtype=np.int64)
        self.groups = None if groups is None else PackedTexts(groups)
        assert len(self._names) == len(self.labels)
        assert self.groups is None or len(self.groups) == len(self.labels)
        self.prefix = prefix
        self.source = source
        self.num_frames: npt.NDArray[np.int64] | None = None  # of each video, where the list says so

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return join(self.prefix, self.name(index)), int(self.labels[index])

    def name(self, index: int) -> str:
        """The file name as it stands in the list, without the prefix."""
        return self._names[index]

    def subset(self, indices: Sequence[int]) -> "VideoList":
        """The videos of these places, in this order, with all that is known of them."""
        groups = None if self.groups is None else [self.groups[index] for index in indices]
        videos = VideoList([self.name(index) for index in indices], self.labels[list(indices)], prefix=self.prefix,
                           source=self.source, groups=groups)
        videos.num_frames = None if self.num_frames is None else self.num_frames[list(indices)]
        return videos

    def joined(self, others: "VideoList") -> "VideoList":
        """These videos and then the others; ValueError where groups are known of one of the lists only."""
        if (self.groups is None) != (others.groups is None):
            with_groups, without = (self, others) if others.groups is None else (others, self)
            raise ValueError(f"{with_groups.source} has groups and {without.source} has none; give both a column "
                             "'group', or --group-by")
        groups = None if self.groups is None or others.groups is None else [*self.groups, *others.groups]
        paths = [videos[index][0] for videos in (self, others) for index in range(len(videos))]
        videos = VideoList(paths, np.concatenate([self.labels, others.labels]), source=self.source, groups=groups)
        if self.num_frames is not None and others.num_frames is not None:
            videos.num_frames = np.concatenate([self.num_frames, others.num_frames])
        return videos

    def digest(self) -> str:
        """A number of the videos' names and labels, in their order, whatever folder they lie in."""
        content = hashlib.sha256(self.labels.tobytes())
        for index in range(len(self)):
            content.update(basename(self[index][0]).encode("utf-8", "surrogateescape") + b"\0")
        return content.hexdigest()[:16]

    def __repr__(self) -> str:
        return f"VideoList({len(self)} videos, {len(np.unique(self.labels))} classes, from {self.source})"


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
    for number, line in enumerate(io.StringIO(read_text(ann_file), newline="\n"), start=1):
        words = line.rsplit(maxsplit=1)
        if not words:
            continue
        if len(words) == 1:
            raise ValueError(f"{ann_file}, line {number}: {words[0]!r} has no label; a line is 'path label'")
        path, label = words[0].strip(), words[1]
        if not labels:
            has_counts = ends_with_count(path, prefix)
        if has_counts:
            path, _, count = path.rpartition(" ")
            if not path.strip() or not is_number(count) or int(count) < 1:
                raise ValueError(f"{ann_file}, line {number}: {line.strip()!r}; this list began with 'path num_frames "
                                 "label', so every line is that")
            path = path.strip()
            counts.append(int(count))
        clip, _, tail = path.rpartition(" ")
        if is_number(tail) and is_video(Path(clip)) and not exists(join(prefix, path)):
            raise ValueError(f"{ann_file}, line {number}: two numbers behind {clip!r}; a line is 'path label', with "
                             "one label")
        if label not in known:
            known[label] = parse_label(label, f"{ann_file}, line {number}", num_classes)
        if within is not None:
            check_within(within, prefix, path, f"{ann_file}, line {number}")
        filenames.append(path)
        labels.append(known[label])
    if not labels:
        raise ValueError(f"{ann_file}: the list is empty; a line is 'path label'")
    videos = VideoList(filenames, labels, prefix=prefix, source=str(ann_file))
    videos.num_frames = np.frombuffer(counts, dtype=np.int64) if has_counts else None
    return videos


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


def read_text(path: str | Path) -> str:
    """A text file, whatever ends its lines; ValueError names the line that is no text, or not UTF-8, or endless."""
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"{path}: no regular file; a list is a text file")
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


def check_within(folder: str | Path, prefix: str, name: str, where: str) -> None:
    """ValueError where a path leaves the folder. Links within it are the user's own."""
    is_absolute = isabs(name) or PureWindowsPath(name).drive != ""
    if is_absolute or relpath(join(prefix, name), folder).split(sep)[0] == "..":
        raise ValueError(f"{where}: {name!r} leaves the data folder; --allow-outside (allow_outside=True) allows it")
