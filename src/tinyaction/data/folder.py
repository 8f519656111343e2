"""What is known of a folder of videos: :class:`DataFolder`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from tinyaction.data.class_folders import unused_files
from tinyaction.data.lists import VideoList
from tinyaction.text import check_class_names


@dataclass
class DataFolder:
    """What :func:`find_data` found: two lists, the names of the classes, and what a person should be told.

    Attributes:
        notes: what was decided, as a new split.
        left_out: sentences on videos and classes that are there and in no list, or listed and not there.
        folder: in which the data was found.
        is_split: False where both lists have all videos.
        test: videos that are for testing only, where they were asked for.
    """

    train: VideoList
    val: VideoList
    class_names: list[str]
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    folder: Path | None = None
    is_split: bool = True
    test: VideoList | None = None

    def __post_init__(self) -> None:
        check_class_names(self.class_names, self.train.source)

    def of_split(self, name: str) -> VideoList:
        """The videos of "train", "val" or "test"; ValueError where there are none."""
        videos: VideoList | None = getattr(self, name)
        if not videos:
            raise ValueError(f"{self.folder}: no video of the split {name!r}; a column 'split' of a CSV file, a list "
                             f"*{name}*.txt or a folder {name}/ names them")
        return videos

    @property
    def is_multi_label(self) -> bool:
        return self.train.label_sets is not None

    def merged(self) -> "DataFolder":
        """Training and validation videos as one list, which stands for both.

        By path and time, so that folds are those of the videos, whatever split or list they came in.
        """
        videos = self.train.joined(self.val)
        starts = [0.0] * len(videos) if videos.starts is None else videos.starts.tolist()
        in_order = sorted(range(len(videos)), key=lambda place: (videos.name(place), starts[place]))
        videos = videos.subset(in_order)
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
        lists = [videos for videos in (self.train, self.val, self.test) if videos is not None]
        num_by_suffix, videos = unused_files(self.folder, chain.from_iterable(videos.paths() for videos in lists))
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
            hashes = np.fromiter(map(hash, videos.item_names()), np.int64, len(videos))
            sorted_hashes = np.sort(hashes)
            repeated = sorted_hashes[1:][sorted_hashes[1:] == sorted_hashes[:-1]]
            labels = defaultdict(set)
            for index in np.flatnonzero(np.isin(hashes, repeated)).tolist() if len(repeated) else ():
                labels[videos.item_name(index)].add(int(videos.labels[index]))
            twice = [path for path, given in labels.items() if len(given) > 1]
            if twice:
                yield f"{len(twice)} {name} videos have two labels, the first is {twice[0]}"


def one_of(paths: Iterable[Path], word: str, folder: Path) -> Path | None:
    """The one path whose name contains the word."""
    found = sorted(path for path in paths if word in path.stem.lower())
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder}: several lists for {word!r} ({names}); keep one")
    return found[0] if found else None
