"""Readers of frames that are stored one by one: a .npy, a zip of pictures, a folder of pictures.

They read the stores that :mod:`tinyaction.prepare.store` makes. Each of its files carries a line of JSON
(``info.json`` in the zip, the bytes after the array): the size and time of its video, the settings, the checksums of
raw frames, and the frames' times where they are not even. A file whose video has changed since is never read.

Folders of frames as MMAction2 and TSM keep them (``img_00001.jpg``, ...), zips of pictures and .npy arrays that
somebody else made are read too. Sizes are held against the file and the limit before anything is allocated.
"""

import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from tinyaction.place_file import PlaceFile
from tinyaction.places import PlaceError, is_place, list_place, read_place, suffix_of
from tinyaction.video.base import MAX_PIXELS, UInt8Array, VideoError, VideoReader, check_indices, check_pixels
from tinyaction.video.pictures import PICTURE_SUFFIXES, decode_picture, picture_size
from tinyaction.video.store_info import INFO_FILE, MAX_INFO_BYTES, checked_info, make_again, own_info, times

FORMATS = {"jpeg": ".zip", "raw": ".npy"}


def open_frames(path: Path, *, max_pixels: int = MAX_PIXELS) -> "ArrayReader | PictureReader":
    """A reader for a folder of frames, a zip of pictures, or a .npy; :func:`tinyaction.video.open_video` calls it.

    Both have ``info``: the line of JSON of a stored file, {} where there is none.
    """
    if suffix_of(path) == ".npy" and (is_place(path) or not path.is_dir()):
        return ArrayReader(path, max_pixels)
    if suffix_of(path) == ".zip" and (is_place(path) or not path.is_dir()):
        return _open_zip(path, max_pixels)
    return _open_folder(path, max_pixels)


class ArrayReader(VideoReader):
    """Frames (T, H, W, 3) uint8 of a .npy: only the frames that are asked for are read, each by one call.

    A memory map would cost more where the whole frame is touched, as by its checksum, and would end the process with a
    signal where another one cuts the file.
    """

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS) -> None:
        self.path = path
        try:
            self.file = PlaceFile(path) if is_place(path) else None
            with self.file.cursor() if self.file else open(path, "rb") as file:
                read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
                shape, is_fortran, kind = read_header[np.lib.format.read_magic(file)[0]](file)
                start = file.tell()
                if kind != np.uint8 or len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
                    raise VideoError(path, f"the array is {shape} {kind}; frames are (T, H, W, 3) uint8; "
                                     f"{make_again(path)}")
                end, num_bytes = start + math.prod(shape), file.seek(0, os.SEEK_END)
                if end > num_bytes:
                    raise self._cut(num_bytes, end)
                check_pixels(path, (shape[2], shape[1]), max_pixels)
                file.seek(end)
                self.info = checked_info(file.read(MAX_INFO_BYTES), path, shape[0])
        except (VideoError, PlaceError):
            raise
        except (ValueError, KeyError, EOFError, OSError) as error:
            raise VideoError(path, f"cut, or no .npy file ({error}); {make_again(path)}") from None
        self._start, self._shape, self._is_fortran = start, shape, is_fortran
        self._sums = self.info.get("checksums")
        self.fps, self.seconds = times(self.info, len(self))

    def __len__(self) -> int:
        return self._shape[0]

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        check_indices(indices, len(self), self.path)
        if self._is_fortran:  # each frame lies spread over the whole file
            if self.file:
                raise VideoError(self.path, "its frames are in Fortran's order, which is read from a local disk only")
            return map(np.load(self.path, mmap_mode="r").__getitem__, indices)
        return self._read(list(indices))

    def _read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        num_bytes = math.prod(self._shape[1:])
        with self.file.cursor(is_exact=True) if self.file else open(self.path, "rb", buffering=0) as file:
            for index in indices:
                frame = np.empty(self._shape[1:], np.uint8)                    # (H, W, 3)
                file.seek(self._start + index * num_bytes)
                if file.readinto(frame.data.cast("B")) != num_bytes:
                    raise self._cut(file.seek(0, os.SEEK_END), self._start + len(self) * num_bytes)
                if self._sums is not None and checksum(frame) != int(self._sums[16 * index : 16 * index + 16], 16):
                    raise VideoError(self.path, f"frame {index} of {len(self)} is damaged; {make_again(self.path)}",
                                     kind="damaged")
                yield frame

    def _cut(self, num_bytes: int, least: int) -> VideoError:
        return VideoError(self.path, f"the file is cut: it has {num_bytes} of at least {least} bytes; "
                          f"{make_again(self.path)}", kind="cut")


def checksum(frame: UInt8Array) -> int:
    """The sum of a frame's bytes taken as 64-bit numbers, modulo 2**64: any flipped bit, lost or foreign part shows.

    It is ten times as fast as CRC-32, which would cost as much as resizing the frame.
    """
    data = frame.reshape(-1)
    whole = len(data) // 8 * 8
    rest = int.from_bytes(data[whole:].tobytes(), "little")
    return (int(data[:whole].view("<u8").sum(dtype=np.uint64)) + rest) % 2**64


class PictureReader(VideoReader):
    """Pictures of one size, each encoded by itself: those of a folder, or uncompressed ones in a zip."""

    def __init__(self, path: Path, num_frames: int, name: Callable[[int], str], load: Callable[[int], bytes],
                 info: dict[str, Any], max_pixels: int) -> None:
        self.path = path
        self.info = info
        self._num_frames = num_frames
        self._name = name
        self._load = load
        self._max_pixels = max_pixels
        self.file: PlaceFile | None = None  # one of a store that lies elsewhere
        self.fps, self.seconds = times(info, len(self))

    def __len__(self) -> int:
        return self._num_frames

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        check_indices(indices, len(self), self.path)
        return self._read(list(indices))

    def _read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        shape = None
        for index in indices:
            picture = self._picture(index)
            shape = shape or picture.shape
            if picture.shape != shape:
                raise VideoError(self.path, f"frames of several sizes (width, height): {shape[1::-1]} and "
                                 f"{picture.shape[1::-1]}")
            yield picture

    def _picture(self, index: int) -> UInt8Array:
        try:
            data = self._load(index)
        except PlaceError:
            raise
        except (OSError, EOFError, zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: it is encrypted
            raise self._damaged(index, f"{error}") from None
        size = picture_size(data)
        if size is None:
            raise self._damaged(index, f"no picture that is known here, {len(data)} bytes")
        check_pixels(f"{self.path}: {self._name(index)}", size, self._max_pixels)
        picture = decode_picture(np.frombuffer(data, np.uint8))
        if picture is None:
            raise self._damaged(index, "it cannot be decoded")
        return picture

    def _damaged(self, index: int, why: str) -> VideoError:
        advice = make_again(self.path) if self.info else "extract the frames again"
        return VideoError(self.path, f"frame {index} of {len(self)}, {self._name(index)}, is damaged ({why}); "
                          f"{advice}", kind="damaged")


def _open_zip(path: Path, max_pixels: int) -> PictureReader:
    try:
        place = PlaceFile(path) if is_place(path) else None
        with cast(IO[bytes], place.cursor()) if place else open(path, "rb") as file:
            num_bytes = file.seek(0, os.SEEK_END)
            info = own_info(file)
        if "pictures" in info:
            return _open_own_zip(path, place, info, max_pixels)
        archive = zipfile.ZipFile(cast(IO[bytes], place.cursor()) if place else path)
        members = [member for member in archive.infolist() if _is_picture(member.filename)]
        for member in members:
            if member.header_offset + member.compress_size > num_bytes:
                raise ValueError(f"{member.filename} is longer than the file")
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                raise ValueError(f"{member.filename} is compressed; pictures must lie uncompressed in it, as zip -0 "
                                 "puts them")
        infos = [member for member in archive.infolist()
                 if member.filename == INFO_FILE and member.compress_type == zipfile.ZIP_STORED]
        info_text = archive.read(infos[0]) if infos else archive.comment  # the comment: an earlier version's
    except (VideoError, PlaceError):
        raise
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, RuntimeError) as error:
        raise VideoError(path, f"cut, or no zip of pictures ({error}); {make_again(path)}") from None
    if not members:
        raise VideoError(path, "no pictures in it")
    members.sort(key=lambda member: [(int(part), "") if part.isdecimal() else (-1, part)
                                     for part in re.split(r"(\d+)", member.filename)])
    return PictureReader(path, len(members), lambda index: members[index].filename,
                         lambda index: archive.read(members[index]), checked_info(info_text, path, len(members)),
                         max_pixels)


def _open_own_zip(path: Path, place: PlaceFile | None, info: dict[str, Any], max_pixels: int) -> PictureReader:
    table = np.frombuffer(bytes.fromhex(info["pictures"]), "<u4").reshape(-1, 3).astype(np.int64)
    places, sizes, checksums = table.T                                  # (T,) each
    data: PlaceFile | UInt8Array = place or np.asarray(np.memmap(path, np.uint8, "r"))
    if len(table) == 0 or (places + sizes > len(data)).any():
        raise ValueError("its pictures are longer than the file")

    def load(index: int) -> bytes:
        start, stop = int(places[index]), int(places[index] + sizes[index])
        content = data.fetched(start, stop) if isinstance(data, PlaceFile) else data[start:stop].tobytes()
        if zlib.crc32(content) != checksums[index]:
            raise zipfile.BadZipFile("its CRC-32 differs")
        return content

    reader = PictureReader(path, len(table), lambda index: f"img_{index + 1:05}.jpg", load,
                           checked_info(info, path, len(table)), max_pixels)
    reader.file = place
    return reader


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def _open_folder(path: Path, max_pixels: int) -> PictureReader:
    """A folder of numbered pictures: ``img_00001.jpg``, ``img_00002.jpg``, ... as MMAction2 and TSM keep them.

    Other numbered series beside ``img_`` (optical flow) are passed over; without ``img_`` there must be one series.
    """
    series: dict[str, dict[int, str]] = {}
    for name in [place.rpartition("/")[2] for place in list_place(path)] if is_place(path) else os.listdir(path):
        match = re.fullmatch(r"(.*?)(\d{1,12})(\.\w+)", name)
        if match and _is_picture(name):
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
    in_order = [names[number] for number in range(first, last + 1)]
    return PictureReader(path, len(in_order), lambda index: in_order[index],
                         lambda index: read_whole(path / in_order[index]), {}, max_pixels)


def read_whole(path: Path) -> bytes:
    return read_place(path) if is_place(path) else path.read_bytes()


def original_of(path: str) -> str:
    """The video that a stored file was made from; the path itself where it is no such file, or the video is gone."""
    if Path(path).suffix.lower() not in FORMATS.values():
        return path
    try:
        source = str(open_frames(Path(path)).info.get("source", ""))
    except VideoError:
        return path
    return source if source and Path(source).exists() else path
