"""Clips that belong together, as those of one person or recording: groups by path, and splits that keep them whole."""

import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyaction.data.class_folders import split_by_class
from tinyaction.data.lists import VideoList
from tinyaction.video.frames import FORMATS


def group_of_path(path: str, group_by: re.Pattern[str]) -> str:
    r"""What the first parentheses of ``group_by`` found in a path, or all that it found where it has none.

        p(\d)_   bend/p3_orig.mp4  ->  3          ^[^/]+   rec7/walk.mp4  ->  rec7

    Raises ValueError where it finds nothing.
    """
    found = group_by.search(path)
    group = found and found[min(1, group_by.groups)]
    if not group:
        raise ValueError(f"--group-by {group_by.pattern!r} finds no group in {path!r}; it must find one in every path")
    return group


def compile_group_by(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--group-by {pattern!r} is no regular expression: {error}") from None


def known_groups(videos: VideoList) -> list[str]:
    """The group of each clip; where none are known its video, which a list may name more than once."""
    return list(videos.paths() if videos.groups is None else videos.groups)


def check_groups_apart(train: VideoList, val: VideoList) -> None:
    """ValueError where a group has clips in training and in validation: its validation would be no test."""
    if train.groups is None or val.groups is None:
        return
    num_train, num_val = Counter(train.groups), Counter(val.groups)
    both = sorted(set(num_train) & set(num_val))
    if both:
        more = f", and {len(both) - 1} groups more are" if len(both) > 1 else " is"
        raise ValueError(f"group {both[0]!r} ({num_train[both[0]]} training and {num_val[both[0]]} validation clips)"
                         f"{more} in both; keep each in one of them, delete split.csv where tinyaction wrote it to "
                         "split anew, or take --folds, which divides all clips itself")


@dataclass(frozen=True)
class Split:
    """How videos that have no split are split: not at all where ``val_share`` is None.

    ``keep``: write a new split down. ``any_split``: read the videos of "test" too; a split may have no video.
    """

    val_share: float | None
    seed: int
    group_by: re.Pattern[str] | None
    keep: bool = True
    any_split: bool = False

    def choose(
        self, labels: Collection[str], groups: Sequence[str] | None, source: Path
    ) -> npt.NDArray[np.bool_]:
        """(N,) whether a video is chosen for validation."""
        assert self.val_share is not None
        if groups is None:
            val_ids = split_by_class(labels, self.val_share, self.seed, source)
        else:
            val_ids = split_groups(labels, groups, val_share=self.val_share, seed=self.seed, source=source)
        is_val = np.zeros(len(labels), np.bool_)
        is_val[val_ids] = True
        return is_val


def split_groups(
    labels: Collection[str], groups: Sequence[str], *, val_share: float, seed: int, source: Path
) -> list[int]:
    """Places of the validation clips: whole groups, ``val_share`` of each class as nearly as groups allow.

    Clips with the label "" have none of the classes, so they may all be on one side.

    Raises ValueError where a class cannot have a group on both sides.
    """
    in_all = Counter(labels)
    targets = {label: min(max(1, round(num * val_share)), num - 1) for label, num in in_all.items()}
    in_group: dict[str, Counter[str]] = {}
    for label, group in zip(labels, groups, strict=True):
        in_group.setdefault(group, Counter())[label] += 1
    order = sorted(in_group)
    random.Random(seed).shuffle(order)
    in_val: Counter[str] = Counter()
    chosen: set[str] = set()

    def take(group: str) -> None:
        if all(in_val[label] + num < in_all[label] for label, num in in_group[group].items() if label):
            chosen.add(group)
            in_val.update(in_group[group])

    for group in order:
        if sum(abs(in_val[label] + num - targets[label]) - abs(in_val[label] - targets[label])
               for label, num in in_group[group].items()) < 0:         # nearer to the targets with it
            take(group)
    for label in sorted(label for label in in_all if label and not in_val[label]):  # all its groups are too large
        for group in sorted(order, key=lambda group: in_group[group].total()):
            if not in_val[label] and in_group[group][label]:
                take(group)
        if not in_val[label]:
            raise ValueError(f"{source}: the groups cannot be split so that class {label!r} has clips in training and "
                             "in validation; it needs two groups or more, or a column 'split'")
    return [place for place, group in enumerate(groups) if group in chosen]


def groups_of_paths(paths: Iterable[str], folder: Path, group_by: re.Pattern[str]) -> list[str]:
    """The group of each path, by the part of it below ``folder``, without the suffix of a frame store."""
    groups = []
    for path in map(Path, paths):
        path = path.relative_to(folder) if path.is_relative_to(folder) else path
        path = path.with_suffix("") if path.suffix in FORMATS.values() else path
        groups.append(group_of_path(path.as_posix(), group_by))
    return groups
