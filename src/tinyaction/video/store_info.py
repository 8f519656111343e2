"""What the files of a store know of themselves: the line of JSON in each, and the store.json above them."""

import json
import math
import os
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tinyaction.places import is_place, size_and_version
from tinyaction.text import shell_line
from tinyaction.video.base import VideoError, even_seconds

STORE_FILE = "store.json"  # in the folder of a store
INFO_FILE = "info.json"  # in each zip of a store
MAX_INFO_BYTES = 1 << 26


def size_and_time(source: Path) -> tuple[int, int]:
    """Bytes and time of change of a file; of a folder of frames the sum and the latest; elsewhere its version."""
    if is_place(source):
        return size_and_version(source)
    if not source.is_dir():
        found = source.stat()
        return found.st_size, found.st_mtime_ns
    stats = [entry.stat() for entry in os.scandir(source)]
    return sum(found.st_size for found in stats), max((found.st_mtime_ns for found in stats), default=0)


def checked_info(text: bytes | dict[str, Any], path: Path, num_frames: int) -> dict[str, Any]:
    """The line of JSON of a stored file, {} where there is none; VideoError where its video has changed since."""
    if not isinstance(text, dict) and not text.strip().startswith(b"{"):
        return {}
    try:
        info: dict[str, Any] = text if isinstance(text, dict) else json.loads(text)
        source, known = Path(info["source"]), (info["size"], info["mtime_ns"])
        is_whole = math.isfinite(info["fps"])
        if "seconds" in info:
            is_whole &= np.array(info["seconds"], np.float64).shape == (num_frames,)
        if "checksums" in info:
            is_whole &= len(bytes.fromhex(info["checksums"])) == 8 * num_frames
    except (ValueError, KeyError, TypeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise VideoError(path, f"its description is damaged; {make_again(path)}", kind="damaged")
    if info["num_frames"] != num_frames:
        raise VideoError(path, f"{num_frames} frames instead of {info['num_frames']}; {make_again(path)}")
    check_source(path, source, known)
    return info


def check_source(path: Path, source: Path, known: tuple[int, int]) -> None:
    """Raise VideoError where the video of a stored file no longer has the size and time that it had.

    Videos elsewhere are not asked for: each clip that is read would cost a request. The command that makes the store
    asks for them.
    """
    if is_place(source):
        return
    try:
        now = size_and_time(source)
    except OSError:  # the store has been taken elsewhere: nothing to compare with
        return
    if now != known:
        raise VideoError(path, f"stale, {source} has changed since; {make_again(path)}")


def times(info: dict[str, Any], num_frames: int) -> tuple[float, npt.NDArray[np.float64]]:
    """(frames per second, times of the frames) of a stored file; 0.0 and zeros where nobody says."""
    fps = float(info.get("fps", 0.0))
    seconds = info.get("seconds")
    return fps, even_seconds(num_frames, fps) if seconds is None else np.array(seconds, np.float64)


def own_info(file: IO[bytes]) -> dict[str, Any]:
    """What info.json says, the last entry of a zip that tinyaction made; {} of other zips.

    It says where each picture lies, so that the directory, an object for each of hundreds of pictures, is not read.
    Source: APPNOTE.TXT of the zip format, sections 4.3.12 (directory) and 4.3.16 (its end).
    """
    file.seek(-min(46 + len(INFO_FILE) + 22, file.seek(0, os.SEEK_END)), os.SEEK_END)
    entry = file.read()
    if entry[:4] != b"PK\x01\x02" or entry[46:-22] != INFO_FILE.encode() or entry[-22:-18] != b"PK\x05\x06":
        return {}
    checksum, _, num_bytes, place = (int.from_bytes(entry[i : i + 4], "little") for i in (16, 20, 24, 42))
    file.seek(place + 30 + len(INFO_FILE))
    text = file.read(min(num_bytes, MAX_INFO_BYTES))
    if zlib.crc32(text) != checksum:
        raise ValueError(f"{INFO_FILE} is damaged")
    info: dict[str, Any] = json.loads(text)
    return info


def make_again(path: Path) -> str:
    """What to run: found in the store.json above the file, where there is one."""
    command = next((found for folder in path.parents if (found := command_of(folder))), "")
    return f"run: {command}" if command else "make it again"


def command_of(folder: Path) -> str:
    """The command that made the store in this folder and brings it up to date; "" where it holds no store."""
    try:
        arguments = json.loads((folder / STORE_FILE).read_text(encoding="utf-8"))["arguments"]
        return shell_line("tinyaction", "store", *arguments, "--out", folder)
    except (OSError, ValueError, KeyError, TypeError):
        return ""
