"""Readers of frames that are stored one by one: a .npy, a zip of pictures, a folder of pictures.

They read the stores that :mod:`tinyaction.prepare.store` makes, whose files carry a line of JSON (the comment of the
zip, the bytes after the array): the size and time of their video and the settings. A file whose video has changed
since is never read.

Folders of frames as MMAction2 and TSM keep them (``img_00001.jpg``, ...) are read too, and so are zips of pictures and
.npy arrays that somebody else made.
"""

import json
import os
import re
import shlex
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tinyaction.video.base import MAX_PIXELS, UInt8Array, VideoError, VideoReader, check_indices, even_seconds

FORMS = {"jpeg": ".zip", "raw": ".npy"}
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
STORE_FILE = "store.json"


@dataclass(frozen=True)
class StoreSettings:
    """How the frames of a store are kept.

    Attributes:
        form: "jpeg" (a tenth of the space) or "raw" (no decoding at all, and exactly the resized frames).
        short_side: of the frames, in pixels; smaller videos keep their size.
        every: keep frames 0, every, 2 * every, ...
        quality: of the JPEG frames, 1 to 100; 95 is above 38 dB on real clips. Without meaning for "raw".
    """

    form: str = "jpeg"
    short_side: int = 256
    every: int = 1
    quality: int = 95

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"the form of a store is {self.form!r}; it must be {' or '.join(FORMS)}")
        for name, least, most in (("short_side", 1, 65_500), ("every", 1, 10**9), ("quality", 1, 100)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} to {most}")
        if self.form == "raw":
            object.__setattr__(self, "quality", 100)  # so that it does not make equal stores different

    def __str__(self) -> str:
        every = "" if self.every == 1 else f", one frame of {self.every}"
        return f"{self.form}, short side {self.short_side}{every}" + (
            f", quality {self.quality}" if self.form == "jpeg" else "")

    @property
    def flags(self) -> list[str]:
        """The words of a command line that ask for these settings."""
        words = ["--form", self.form, "--short-side", str(self.short_side)]
        words += ["--every", str(self.every)] if self.every != 1 else []
        return words + (["--quality", str(self.quality)] if self.form == "jpeg" and self.quality != 95 else [])


def open_frames(path: Path, *, max_pixels: int = MAX_PIXELS) -> VideoReader:
    """A reader for a folder of frames, a zip of pictures, or a .npy; :func:`tinyaction.video.open_video` calls it."""
    if path.is_dir():
        return FrameFolderReader(path)
    return FrameZipReader(path) if path.suffix.lower() == ".zip" else FrameArrayReader(path)


class FrameArrayReader(VideoReader):
    """Frames (T, H, W, 3) uint8 of a .npy, through a memory map: only the frames that are asked for are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            frames = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise VideoError(path, f"cut, or no .npy file ({error}); {_make_again(path)}") from None
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise VideoError(path, f"the array is {frames.shape} {frames.dtype}; frames are (T, H, W, 3) uint8; "
                             f"{_make_again(path)}")
        self._frames: UInt8Array = np.asarray(frames)
        with open(path, "rb") as file:
            file.seek(frames.offset + frames.nbytes)
            self.info = _read_info(file.read(), path)
        self.fps = float(self.info.get("fps", 0.0))
        self.seconds = even_seconds(len(self), self.fps)

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        check_indices(indices, len(self), self.path)
        return (self._frames[index] for index in indices)  # views: what is cut away is never read


class FrameZipReader(VideoReader):
    """JPEG (or other) pictures that lie uncompressed in a zip, in the order of their names.

    The file is mapped and its directory read as one numpy table where all names are of one length, as in our own
    stores: ``zipfile`` would make an object for each of hundreds of frames to read sixteen.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._bytes: UInt8Array = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
            comment, table = _zip_table(self._bytes)
            if table is None:
                comment, table = _zip_table_of_zipfile(path)
        except (zipfile.BadZipFile, ValueError, OSError) as error:
            raise VideoError(path, f"cut, or no zip of pictures ({error}); {_make_again(path)}") from None
        if len(table) == 0:
            raise VideoError(path, "no pictures in it")
        self.info = _read_info(comment, path)
        if self.info and self.info["num_frames"] != len(table):
            raise VideoError(path, f"{len(table)} frames instead of {self.info['num_frames']}; {_make_again(path)}")
        self._table = table                                            # (T, 3): offset, size, CRC-32
        self.fps = float(self.info.get("fps", 0.0))
        self.seconds = even_seconds(len(self), self.fps)

    def __len__(self) -> int:
        return len(self._table)

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        check_indices(indices, len(self), self.path)
        return _of_one_size((self._picture(index) for index in indices), self.path)

    def _picture(self, index: int) -> UInt8Array:
        offset, size, checksum = self._table[index].tolist()
        start = offset
        header = self._bytes[offset : offset + 30].tobytes()
        if header[:4] == b"PK\x03\x04":
            name_length, extra_length = struct.unpack_from("<HH", header, 26)
            start = offset + 30 + name_length + extra_length
            data = self._bytes[start : start + size]
            if len(data) == size and zlib.crc32(data.data) == checksum:
                picture = _decode_picture(data)
                if picture is not None:
                    return picture
        raise VideoError(self.path, f"frame {index} of {len(self)} is damaged; {_make_again(self.path)}")


class FrameFolderReader(VideoReader):
    """A folder of numbered pictures: ``img_00001.jpg``, ``img_00002.jpg``, ... as MMAction2 and TSM keep them.

    Other numbered series beside ``img_`` (optical flow) are passed over; without ``img_`` there must be one series.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        series: dict[str, dict[int, str]] = {}
        for name in os.listdir(path):
            match = re.fullmatch(r"(.*?)(\d+)(\.\w+)", name)
            if match and match[3].lower() in PICTURE_SUFFIXES and not name.startswith("."):
                series.setdefault(match[1], {})[int(match[2])] = name
        if not series:
            raise VideoError(path, "no frames in the folder; they are named img_00001.jpg, img_00002.jpg, ...")
        prefix = "img_" if "img_" in series else min(series)
        if prefix != "img_" and len(series) > 1:
            raise VideoError(path, f"several series of pictures ({', '.join(sorted(series)[:4])}); keep one, or "
                             "name the frames img_00001.jpg, img_00002.jpg, ...")
        names = series[prefix]
        first, last = min(names), max(names)
        if first > 1 or len(names) != last - first + 1:
            number = 1 if first > 1 else next(number for number in range(first, last) if number not in names)
            digits, suffix = re.findall(r"\d+|\.\w+$", names[last])[-2:]
            missing = path / f"{prefix}{number:0{len(digits)}}{suffix}"
            raise VideoError(missing, f"this frame is missing, though {names[last]} is there; extract the frames of "
                             "the video again")
        self._names = [names[number] for number in range(first, last + 1)]
        self.fps = 0.0
        self.seconds = even_seconds(len(self), self.fps)

    def __len__(self) -> int:
        return len(self._names)

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        check_indices(indices, len(self), self.path)
        return _of_one_size((self._picture(self.path / self._names[index]) for index in indices), self.path)

    def _picture(self, file: Path) -> UInt8Array:
        try:
            data = np.fromfile(file, dtype=np.uint8)
        except OSError as error:
            raise VideoError(file, f"{error.strerror}") from None
        picture = _decode_picture(data) if len(data) else None
        if picture is None:
            raise VideoError(file, f"not a readable picture ({len(data)} bytes); extract the frames again")
        return picture


def _decode_picture(data: UInt8Array) -> UInt8Array | None:
    """An encoded picture to (H, W, 3) RGB; None where OpenCV cannot."""
    if hasattr(cv2, "IMREAD_COLOR_RGB"):  # since OpenCV 4.11
        return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)  # type: ignore[return-value]
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return None if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _of_one_size(frames: Iterable[UInt8Array], path: Path) -> Iterator[UInt8Array]:
    shape = None
    for frame in frames:
        shape = shape or frame.shape
        if frame.shape != shape:
            raise VideoError(path, f"frames of several sizes (width, height): {shape[1::-1]} and "
                             f"{frame.shape[1::-1]}")
        yield frame


_ZIP_ENTRY = [("signature", "S4"), ("", "V6"), ("method", "<u2"), ("", "V4"), ("checksum", "<u4"), ("packed", "<u4"),
              ("size", "<u4"), ("name_length", "<u2"), ("extra_length", "<u2"), ("comment_length", "<u2"), ("", "V8"),
              ("offset", "<u4")]  # 46 bytes of the central directory, the name follows


def _zip_table(data: UInt8Array) -> tuple[bytes, npt.NDArray[np.int64] | None]:
    """Comment and (T, 3) offset, size and CRC-32 of a zip; None where names differ in length or more is unusual.

    Source: APPNOTE.TXT of the zip format, sections 4.3.12 (directory) and 4.3.16 (end of the directory).
    """
    tail = data[-(22 + 65_535):].tobytes()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise ValueError("it has no directory")
    *_, num_entries, size, start, comment_length = struct.unpack_from("<4s4H2LH", tail, end)
    comment = tail[end + 22 :]
    if len(comment) != comment_length or start + size > len(data):
        raise ValueError("it has no directory")
    if num_entries in (0, 0xFFFF) or start == 0xFFFFFFFF or size < 46 * num_entries:
        return comment, None
    name_length = size // num_entries - 46
    fields = [*_ZIP_ENTRY, ("name", f"S{name_length}")]
    entry = np.dtype([(name or f"_{i}", kind) for i, (name, kind) in enumerate(fields)])
    if entry.itemsize * num_entries != size:
        return comment, None
    entries = np.frombuffer(data[start : start + size].tobytes(), dtype=entry)
    names = entries["name"].tolist()
    usual = (
        (entries["signature"] == b"PK\x01\x02").all() and not entries["method"].any()
        and (entries["name_length"] == name_length).all() and not entries["extra_length"].any()
        and not entries["comment_length"].any() and (entries["packed"] == entries["size"]).all()
        and all(name.endswith(b".jpg") for name in names) and names == sorted(names)
    )
    table = np.stack([entries[name].astype(np.int64) for name in ("offset", "size", "checksum")], axis=1)
    return comment, table if usual else None


def _zip_table_of_zipfile(path: Path) -> tuple[bytes, npt.NDArray[np.int64]]:
    """The same of any zip of pictures, by the standard library."""
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if member.filename.lower().endswith(PICTURE_SUFFIXES)]
        packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise ValueError(f"{packed[0]} is compressed; pictures must lie uncompressed in it, as zip -0 puts them")
        members.sort(key=lambda member: [int(part) if part.isdigit() else part
                                         for part in re.split(r"(\d+)", member.filename)])
        rows = [(member.header_offset, member.file_size, member.CRC) for member in members]
        return archive.comment, np.array(rows, dtype=np.int64).reshape(-1, 3)


# ---- the line of JSON in every stored file --------------------------------------------------------------------------


def size_and_time(source: Path) -> tuple[int, int]:
    """Bytes and time of change of a file; of a folder of frames the sum and the latest."""
    if not source.is_dir():
        found = source.stat()
        return found.st_size, found.st_mtime_ns
    stats = [entry.stat() for entry in os.scandir(source)]
    return sum(found.st_size for found in stats), max((found.st_mtime_ns for found in stats), default=0)


def _read_info(text: bytes, path: Path) -> dict[str, Any]:
    """The line of JSON of a stored file, {} where there is none; VideoError where its video has changed since."""
    if not text.strip().startswith(b"{"):
        return {}
    try:
        info: dict[str, Any] = json.loads(text)
        source, known = Path(info["source"]), (info["size"], info["mtime_ns"])
        int(info["num_frames"]), float(info["fps"])
    except (ValueError, KeyError, TypeError):
        raise VideoError(path, f"its description is damaged; {_make_again(path)}") from None
    try:
        now = size_and_time(source)
    except OSError:  # the store has been taken elsewhere: nothing to compare with
        return info
    if now != known:
        raise VideoError(path, f"stale, {source} has changed since; {_make_again(path)}")
    return info


def original_of(path: str) -> str:
    """The video that a stored file was made from; the path itself where it is no such file, or the video is gone."""
    if Path(path).suffix.lower() not in FORMS.values():
        return path
    try:
        source = str(getattr(open_frames(Path(path)), "info", {}).get("source", ""))
    except VideoError:
        return path
    return source if source and Path(source).exists() else path


def _make_again(path: Path) -> str:
    """What to run: found in the store.json above the file, where there is one."""
    for folder in path.parents:
        command = command_of(folder)
        if command:
            return f"run: {command}"
    return "make it again"


def command_of(folder: Path) -> str:
    """The command that made the store in this folder and brings it up to date; "" where it holds no store."""
    try:
        description = json.loads((folder / STORE_FILE).read_text(encoding="utf-8"))
        settings, source = StoreSettings(**description["settings"]), description["source"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return shlex.join(["tinyaction", "store", "--data", source, "--out", str(folder), *settings.flags])
