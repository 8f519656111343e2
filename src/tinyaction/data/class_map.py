"""Classes of a folder among those that a network knows."""

import copy
import csv
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from tinyaction.data.annotations import VideoList
from tinyaction.text import some_of


def read_class_map(path: str | Path) -> dict[str, str]:
    """Read lines of two columns, between them a tab or a comma: the folder's class, the network's class.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line of other columns, or a class that comes twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of classes; a line is 'class of the folder, class of the "
                                "network'")
    names: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        row = next(csv.reader([line], delimiter="\t" if "\t" in line else ",", skipinitialspace=True))
        if len(row) != 2 or not all(word.strip() for word in row):
            raise ValueError(f"{path}, line {number}: {line.strip()!r} must be two columns, the folder's class and "
                             "the network's, between them a tab or a comma")
        given, known = row[0].strip(), row[1].strip()
        if given in names:
            raise ValueError(f"{path}, line {number}: class {given!r} comes twice")
        names[given] = known
    return names


def match_classes(given: Sequence[str], known: Sequence[str], *, names: Mapping[str, str]) -> list[int]:
    """The number in ``known`` of every class in ``given``, by its name or by that in ``names``.

        given jump_rope, run;  known (run, swim, jump rope);  names {}   ->  2 0

    Capital letters do not count, and ``_`` is a space.

    Raises:
        ValueError: a class has no number, two have the same one, or a name in ``names`` is no class.
    """
    for name in names:
        if name not in given:
            raise ValueError(f"class {name!r} is to be mapped and is none of the folder's: {some_of(given)}")
    numbers = {_plain(name): number for number, name in enumerate(known)}
    matched: dict[int, str] = {}
    for name in given:
        number = numbers.get(_plain(names.get(name, name)))
        if number is None:
            near = get_close_matches(_plain(names.get(name, name)), numbers, n=3)
            raise ValueError(f"class {names.get(name, name)!r} is none of the network's {len(known)} classes"
                             + (f"; did you mean {' or '.join(known[numbers[each]] for each in near)}?" if near else
                                f" ({some_of(known)});") + " --classes FILE maps names, two columns a line")
        if number in matched:
            raise ValueError(f"classes {matched[number]!r} and {name!r} are both the network's {known[number]!r}; put "
                             "their videos into one class")
        matched[number] = name
    return list(matched)


def check_classes(known: Sequence[str], given: Sequence[str], *, source: object, data: object) -> None:
    """Raise ValueError where ``data`` has other classes than ``source``, which knows ``known``, or in another order.

    Classes that are called by their numbers agree with any names.
    """
    numbers = [str(number) for number in range(len(known))]
    if len(known) != len(given) or (known != given and numbers not in (known, given)):
        raise ValueError(f"{source} knows {len(known)} classes ({some_of(known)}), {data} has {len(given)} "
                         f"({some_of(given)}); names and order must be those it was trained with")


def with_numbers(videos: VideoList, numbers: Sequence[int], *, num_classes: int = 0) -> VideoList:
    """The same videos, label i replaced by ``numbers[i]``; sets of labels become (N, num_classes)."""
    renumbered = copy.copy(videos)
    renumbered.labels = np.asarray([*numbers, -1], dtype=np.int64)[videos.labels]  # -1 stays: no label
    if videos.label_sets is not None:
        renumbered.label_sets = np.zeros((len(videos), num_classes), dtype=np.uint8)
        renumbered.label_sets[:, list(numbers)] = videos.label_sets
    return renumbered


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
