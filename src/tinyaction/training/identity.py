"""What a run must keep when it is resumed, and what its processes must share: classes, videos, flags, code."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyaction.data.annotations import DataFolder, VideoList
from tinyaction.data.long_videos import LongVideo
from tinyaction.models.checkpoint import versions
from tinyaction.places import (
    NoSuchPlaceError,
    RefusedError,
    is_place,
    size_and_version,
    sizes_in_place,
    url_of,
    without_secrets,
)
from tinyaction.text import some_of
from tinyaction.training.config import MAY_CHANGE, RunConfig, flag_of
from tinyaction.training.distributed import gather_objects, num_processes

MAX_SIZES = 10_000  # files of a longer list are a sample, evenly spread: looking at each takes minutes for a million
MAX_ASKED = 100  # files that lie elsewhere and are asked for one by one


@dataclass(frozen=True)
class ListIdentity:
    """Digests of a list of videos; they do not depend on the place of its folder."""

    num_videos: int
    names: str
    labels: str
    sizes: str  # what sizes_of says of up to MAX_SIZES files

    @classmethod
    def of(cls, videos: VideoList, folder: str | Path) -> "ListIdentity":
        names, sizes = hashlib.sha256(), hashlib.sha256()
        prefix = prefix_of(folder)
        for path in videos.item_names():
            names.update(path.removeprefix(prefix).encode("utf-8", "surrogateescape") + b"\0")
        sample = [videos[index][0] for index in _spread(len(videos), MAX_SIZES)]
        for size in sizes_of(sample, is_whole=len(sample) == len(videos)):
            sizes.update(b"%d\0" % size)
        labels = hashlib.sha256(videos.label_bytes())
        return cls(len(videos), *(digest.hexdigest()[:16] for digest in (names, labels, sizes)))


def origin(data_fingerprint: str) -> dict[str, Any]:
    """What config.json says of when and with what a run or an evaluation was made, and of which data."""
    return {"versions": versions(), "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "data_fingerprint": data_fingerprint}


def fingerprint(lists: Sequence[ListIdentity]) -> str:
    """One digest of lists of videos: the same where names, labels and sizes are."""
    return hashlib.sha256(json.dumps([asdict(one) for one in lists]).encode()).hexdigest()[:16]


def fingerprint_of_segments(videos: Sequence[LongVideo], folder: str | Path) -> str:
    """One digest of uncut videos below a folder: the same where names, segments and sizes are."""
    sizes = sizes_of([video.path for video in videos])
    facts = [(video.path.removeprefix(prefix_of(folder)), size,
              [(item.start, item.end, item.label) for item in video.segments])
             for video, size in zip(videos, sizes, strict=True)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def prefix_of(folder: str | Path) -> str:
    """What paths of videos below a folder begin with."""
    return f"{url_of(folder)}/" if is_place(folder) else f"{folder}{os.sep}"


def sizes_of(paths: Sequence[str], *, is_whole: bool = True) -> list[int]:
    """Bytes of files, of folders of frames their number of files; -1 of missing ones, and where nothing tells.

    Of files elsewhere the lists of their folders tell, which cost a request for a thousand files. Where they do not,
    as over HTTP, or ``paths`` are a sample of folders with many more, up to MAX_ASKED of them are asked for one by
    one: of the others it is not noticed that they are replaced.
    """
    elsewhere = [path for path in paths if is_place(path)]
    found: dict[str, int] = {}
    if is_whole:
        for folder in sorted({path.rpartition("/")[0] for path in map(url_of, elsewhere) if path[:4] != "http"}):
            with suppress(NoSuchPlaceError, RefusedError):             # that nobody may list
                found |= sizes_in_place(folder)
    unknown = [path for path in elsewhere if found.get(url_of(path), -1) < 0]
    for index in _spread(len(unknown), MAX_ASKED):
        with suppress(NoSuchPlaceError, RefusedError):
            found[url_of(unknown[index])] = size_and_version(unknown[index])[0]
    return [found.get(url_of(path), -1) if is_place(path) else _size(path) for path in paths]


def _spread(num: int, at_most: int) -> list[int]:
    """Up to so many of ``num`` indices, evenly spread."""
    return np.linspace(0, num - 1, min(num, at_most)).round().astype(int).tolist()


def _size(path: str) -> int:
    try:
        return len(os.listdir(path)) if os.path.isdir(path) else os.path.getsize(path)
    except OSError:
        return -1


@dataclass(frozen=True)
class RunIdentity:
    """Everything on which the weights of a run depend, besides its random draws."""

    class_names: list[str]
    train: ListIdentity
    val: ListIdentity
    flags: dict[str, Any]
    num_processes: int  # that began the run; the same steps can be made by others
    number_format: str  # "float32", "bfloat16" or "float16"

    @classmethod
    def of(
        cls, config: RunConfig, data: DataFolder, folder: str | Path, amp: torch.dtype | None, *, num_processes: int
    ) -> "RunIdentity":
        """``folder`` is the one in which ``data`` was found."""
        flags = {name: without_secrets(value) if isinstance(value, str) else value
                 for name, value in asdict(config).items() if name not in (*MAY_CHANGE, "out")}
        return cls(list(data.class_names), ListIdentity.of(data.train, folder), ListIdentity.of(data.val, folder),
                   flags, num_processes, str(amp or torch.float32).removeprefix("torch."))

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> "RunIdentity":
        """From what ``asdict`` gave. Raises KeyError or TypeError for anything else."""
        return cls(**{**saved, "train": ListIdentity(**saved["train"]), "val": ListIdentity(**saved["val"])})


def differences(before: RunIdentity, now: RunIdentity) -> list[str]:
    """Describe each difference in a clause; a run may resume if there is none."""
    found = []
    if before.class_names != now.class_names:
        found.append(f"its classes were {some_of(before.class_names)}, now they are {some_of(now.class_names)}")
    found += _list_differences("training", before.train, now.train)
    found += _list_differences("validation", before.val, now.val)
    found += [f"{flag_of(name)} was {value}, now it is {now.flags.get(name)}"
              for name, value in before.flags.items() if now.flags.get(name) != value]
    if before.num_processes != now.num_processes:
        found.append(f"it was begun by {before.num_processes} processes, its config.json says {now.num_processes}")
    if before.number_format != now.number_format:
        found.append(f"it computed in {before.number_format}, this device would in {now.number_format} (--device)")
    return found


def _list_differences(kind: str, before: ListIdentity, now: ListIdentity) -> list[str]:
    """Describe the first difference; other names imply other labels and sizes."""
    if before.num_videos != now.num_videos:
        return [f"it had {before.num_videos} {kind} videos, now there are {now.num_videos}"]
    if before.names != now.names:
        return [f"its {kind} videos have other names, or another order"]
    if before.labels != now.labels:
        return [f"its {kind} videos have other labels"]
    if before.sizes != now.sizes:
        return [f"files of its {kind} videos were replaced: their sizes differ"]
    return []


def check_same_on_all(identity: RunIdentity) -> None:
    """Raise ValueError where another process has other videos, classes, flags or code than the first."""
    if num_processes() == 1:
        return
    facts = {"videos": (asdict(identity.train), asdict(identity.val), identity.class_names),
             "number format": identity.number_format, "code": code_digest(),
             **{flag_of(name): value for name, value in identity.flags.items()}}
    first, *others = gather_objects(facts)
    for number, other in enumerate(others, start=1):
        for name, value in first.items():
            if other.get(name) != value:
                values = "" if name in ("videos", "code") else f" ({value} and {other.get(name)})"
                raise ValueError(f"{name} of rank 0 and rank {number} differ{values}; all processes of a run need the "
                                 "same lists and files, flags and version of tinyaction")


def code_digest() -> str:
    """A digest of the source files of this package."""
    content = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


def processes_at_start(folder: str | Path) -> int:
    """How many processes began the run in a folder; as many as now where its ``config.json`` does not say."""
    try:
        number = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))["num_processes"]
    except (OSError, ValueError, KeyError, TypeError):
        return num_processes()
    return number if type(number) is int and number > 0 else num_processes()
