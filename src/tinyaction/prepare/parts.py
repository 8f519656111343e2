"""A command's videos in parts, for an array of jobs: :func:`run_part` does one, :func:`join_parts` reads all.

    PARTS/3-of-64.jsonl    one line for what all parts must agree on, then one a video: checksum, space, JSON

Part 3 of 64 has every 64th video from the third. A video's line is written when it is done, so a part that was stopped
goes on with what is missing; a line that was cut by a kill is passed over, and its video is done again.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyaction.text import some_of
from tinyaction.version import __version__

# Yields (video, what was found) for each of the given videos, in any order; what was found is what JSON can hold.
Work = Callable[[Sequence[str]], Iterator[tuple[str, Any]]]
Records = dict[str, Any]
# Arguments without an effect on what is found of a video.
LOCAL = ("part", "parts", "cluster", "num_workers", "device", "force", "skip_errors")


@dataclass(frozen=True)
class Part:
    number: int  # from 1
    num_parts: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.num_parts:
            raise ValueError(f"--part is {self}; it must be K/N with K from 1 to N, as 3/64")

    @classmethod
    def parse(cls, text: str) -> "Part":
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if not found:
            raise ValueError(f"--part is {text}; it must be K/N with K from 1 to N, as 3/64")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.num_parts}"

    @property
    def file_name(self) -> str:
        return f"{self.number}-of-{self.num_parts}.jsonl"

    def items_of(self, items: Sequence[str]) -> Sequence[str]:
        return items[self.number - 1 :: self.num_parts]


@dataclass(frozen=True)
class Job:
    """A command on many videos. ``network`` is a digest of its weights, ``arguments`` are those of its flags."""

    command: str
    items: Sequence[str]  # each once
    arguments: dict[str, Any]
    network: str = ""

    def header(self, part: Part) -> dict[str, Any]:
        items = hashlib.sha256("\n".join(self.items).encode("utf-8", "surrogateescape")).hexdigest()
        return {"command": self.command, "version": __version__, "network": self.network, "items": items,
                "part": [part.number, part.num_parts], "arguments": self.arguments}

    def check_header(self, header: dict[str, Any], path: Path) -> None:
        """Raise ValueError where a part file is of another job."""
        own = self.header(Part(*header["part"]))
        names = {"command": "command", "version": "version of tinyaction", "network": "network"}
        for name, text in names.items():
            if header[name] != own[name]:
                raise _another(path, f"of another {text} ({header[name]} and not {own[name]})")
        for name, value in own["arguments"].items():
            kept = header["arguments"].get(name)
            if name not in LOCAL and kept != value:
                raise _another(path, f"made with --{name.replace('_', '-')} {kept} and not {value}")
        if header["items"] != own["items"]:
            raise _another(path, "of other videos, or of the same in another order")


def _another(path: Path, why: str) -> ValueError:
    return ValueError(f"{path}: a part {why}; name another folder with --parts, or remove this one")


def run_part(
    job: Job, part: Part, folder: Path, make_work: Callable[[], Work], *,
    on_count: Callable[[int, int], None] = lambda num_done, num_all: None,
) -> Path:
    """Do what is missing of a part and return its file.

    Args:
        make_work: called once, and only where something is to be done: loads a network, for example.
        on_count: called with (videos done now, videos that were missing).

    Raises:
        ValueError: the folder holds parts of something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*-of-*.jsonl")):
        header = _header(path)
        job.check_header(header, path)
        if header["part"][1] != part.num_parts:
            raise _another(path, f"of {header['part'][1]} and not of {part.num_parts}")
    path = folder / part.file_name
    if not path.is_file():
        add_line(path, job.header(part))
    done = dict(list(read_lines(path))[1:])
    todo = [item for item in part.items_of(job.items) if item not in done]
    if todo:
        for number, record in enumerate(make_work()(todo), start=1):
            add_line(path, record)
            on_count(number, len(todo))
    return path


def read_job(folder: Path) -> tuple[str, dict[str, Any]]:
    """The command of the parts in a folder, and the arguments that the first of them was given."""
    paths = sorted(folder.glob("*-of-*.jsonl"))
    if not paths:
        raise ValueError(f"{folder}: no part in it, as 3-of-64.jsonl; name the folder of --parts")
    header = _header(paths[0])
    return header["command"], header["arguments"]


def join_parts(job: Job, folder: Path) -> Records:
    """What the parts in a folder found of each video. Raises ValueError where one is missing, unfinished or other."""
    paths = sorted(folder.glob("*-of-*.jsonl"))
    headers = [_header(path) for path in paths]
    numbers = {header["part"][1] for header in headers}
    if len(numbers) > 1:
        raise ValueError(f"{folder}: parts of {' and of '.join(map(str, sorted(numbers)))}; keep those of one number")
    records: Records = {}
    for path, header in zip(paths, headers, strict=True):
        job.check_header(header, path)
        records.update(list(read_lines(path))[1:])
    num_parts = numbers.pop()
    found = {header["part"][0] for header in headers}
    if missing := [f"{number}/{num_parts}" for number in range(1, num_parts + 1) if number not in found]:
        what = f"part {missing[0]} is missing; run it" if len(missing) == 1 else (
            f"parts {some_of(missing)} are missing; run them")
        raise ValueError(f"{folder}: {what} with --part")
    for number in range(1, num_parts + 1):
        part = Part(number, num_parts)
        items = part.items_of(job.items)
        if num_open := sum(item not in records for item in items):
            raise ValueError(f"{folder}: part {part} is not finished, {num_open} of its {len(items)} videos are "
                             "missing; run it again")
    return records


def _header(path: Path) -> dict[str, Any]:
    header = next(read_lines(path), None)
    if not isinstance(header, dict) or header.keys() != Job("", [], {}).header(Part(1, 1)).keys():
        raise ValueError(f"{path}: not a part, or its first line is damaged; remove it and run the part again")
    return header


# ---- a file that grows by lines ------------------------------------------------------------------------------------


def add_line(path: Path, content: Any) -> None:
    """Append a line; one before it that a kill cut short is ended."""
    text = json.dumps(content)
    with open(path, "a+b") as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - 1))
        is_cut = end > 0 and file.read(1) != b"\n"
        file.write(f"{chr(10) if is_cut else ''}{_checksum(text)} {text}\n".encode())


def read_lines(path: Path) -> Iterator[Any]:
    """The contents of the lines that are whole."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            checksum, _, text = line.rstrip("\n").partition(" ")
            if checksum == _checksum(text):
                yield json.loads(text)


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode('utf-8', 'surrogateescape')):08x}"


__all__ = ["Job", "Part", "join_parts", "read_job", "run_part"]
