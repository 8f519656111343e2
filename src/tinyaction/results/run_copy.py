"""A run folder that is wanted elsewhere, as s3://bucket/runs/a: written in runs/a and copied after each save."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tinyaction.files import is_part, part_folder
from tinyaction.place_file import fetch_place
from tinyaction.places import (
    NoSuchBucketError,
    NoSuchPlaceError,
    PlaceError,
    is_place,
    list_place,
    path_inside,
    place_exists,
    remove_place,
    url_of,
    without_secrets,
    write_place,
)

LOCAL_ONLY = (".lock", "last.previous.pt")


def local_run_folder(out: str | Path) -> Path:
    """The folder in which a run is written: ``out`` itself, or of a place elsewhere runs/ and its last name."""
    return Path("runs", Path(without_secrets(os.fspath(out))).name) if is_place(out) else Path(out)


def place_of_run(folder: Path) -> str:
    """The place that a run is copied to, by its ``config.json``; "" where there is none."""
    try:
        out = str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["out"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return out if is_place(out) else ""


class RunCopy:
    """Copies what has changed in a run folder to ``place``; ``failure`` is why the last time came to nothing.

    Raises:
        ValueError: a new run, and something is there; or the place can only be read.
    """

    def __init__(self, folder: Path, place: str | Path, *, is_new: bool) -> None:
        self.folder = folder
        self.place = url_of(place).rstrip("/")
        self.failure = ""
        self._copied: dict[str, tuple[int, int]] = {}
        if self.place.startswith(("http://", "https://")):
            raise ValueError(f"--out is {self.place}; files are only read from there, name s3://, gs:// or a folder")
        try:
            is_there = is_new and bool(list_place(self.place))
        except NoSuchBucketError:
            raise
        except NoSuchPlaceError:
            is_there = False
        if is_there:
            raise ValueError(f"{self.place}: exists already and is not empty; name another folder with --out, or go "
                             "on with the run in it with --resume")

    def copy(self) -> None:
        """Copy what has changed; the first failure is an error, a later one is noted in ``failure``."""
        is_first = not self._copied
        self.failure = ""
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.name not in LOCAL_ONLY and not is_part(path.name):
                status = path.stat()
                state = status.st_size, status.st_mtime_ns
                name = path.relative_to(self.folder).as_posix()
                if self._copied.get(name) != state:
                    try:
                        write_place(f"{self.place}/{name}", path)
                    except PlaceError as error:
                        if is_first:
                            raise
                        self.failure = f"{error}; the run is whole in {self.folder}"
                        return
                    self._copied[name] = state

    def remove(self) -> None:
        """Remove what was copied, of a run that stopped before its first step."""
        for name in self._copied:
            with suppress(PlaceError):
                remove_place(f"{self.place}/{name}")


def fetch_run(place: str | Path, facts: Mapping[str, str] | None = None) -> Path:
    """Copy a run that lies elsewhere to where it goes on; returns the folder.

    ``facts`` are added to its ``config.json``.

    Raises:
        FileNotFoundError: no run is there.
        ValueError: the folder is here already.
    """
    place, folder = url_of(place).rstrip("/"), local_run_folder(place)
    if folder.exists():
        raise ValueError(f"--resume is {place}, and {folder} is here already; go on with --resume {folder}, or move "
                         "it away")
    if not place_exists(f"{place}/config.json"):
        raise FileNotFoundError(f"{place}: no run is there")
    with part_folder(folder) as part:
        for path in list_place(place, is_deep=True):
            target = path_inside(part, url_of(path).removeprefix(f"{place}/"), what="run folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            fetch_place(path, target)
        config = json.loads((part / "config.json").read_text(encoding="utf-8"))
        config |= {"out": without_secrets(place), **(facts or {})}     # it may be a copy of a run that lies elsewhere
        (part / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        part.rename(folder)
    return folder
