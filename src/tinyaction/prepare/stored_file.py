"""One file of stored frames: how it is made, and whether it is still that of its video.

    abc.mp4.zip      format "jpeg": img_00001.jpg, ..., info.json, all uncompressed
    abc.mp4.npy      format "raw": (T, H, W, 3) uint8, then the same line of JSON

:mod:`tinyaction.video.frames` reads them.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tinyaction.data.transforms import VideoResize
from tinyaction.files import whole_file
from tinyaction.places import is_place, without_secrets
from tinyaction.video import UInt8Array, VideoError, VideoReader, open_video
from tinyaction.video.base import even_seconds
from tinyaction.video.frames import FORMATS, checksum, open_frames
from tinyaction.video.pictures import encode_jpeg
from tinyaction.video.store_info import INFO_FILE, size_and_time

MAX_TIME_DIFFERENCE = 1e-6  # seconds; frames whose times are even up to this have no times of their own


@dataclass(frozen=True)
class StoreSettings:
    """How the frames of a store are kept.

    Attributes:
        format: "jpeg" (a tenth of the space) or "raw" (no decoding at all, and exactly the resized frames).
        short_side: of the frames, in pixels; smaller videos keep their size.
        frame_stride: keep frames 0, frame_stride, 2 * frame_stride, ...
        quality: of the JPEG frames, 1 to 100; 95 is above 38 dB on real clips. Without meaning for "raw".
    """

    format: str = "jpeg"
    short_side: int = 256
    frame_stride: int = 1
    quality: int = 95

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"the format of a store is {self.format!r}; it must be {' or '.join(FORMATS)}")
        for name, least, most in (("short_side", 1, 65_500), ("frame_stride", 1, 10**9), ("quality", 1, 100)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} to {most}")
        if self.format == "raw":
            object.__setattr__(self, "quality", 100)  # so that it does not make equal stores different

    def __str__(self) -> str:
        stride = "" if self.frame_stride == 1 else f", one frame of {self.frame_stride}"
        return f"{self.format}, short side {self.short_side}{stride}" + (
            f", quality {self.quality}" if self.format == "jpeg" else "")

    @property
    def flags(self) -> list[str]:
        """The words of a command line that ask for these settings."""
        words = ["--format", self.format, "--short-side", str(self.short_side)]
        words += ["--frame-stride", str(self.frame_stride)] if self.frame_stride != 1 else []
        return words + (["--quality", str(self.quality)] if self.format == "jpeg" and self.quality != 95 else [])


def store_video(source: Path, target: Path, settings: StoreSettings) -> int:
    """Decode one video and write its file of frames; returns its bytes. ``target`` is there whole or not at all.

    Raises:
        VideoError: the video cannot be read.
        OSError: the file cannot be written.
    """
    reader = open_video(source)
    indices = range(0, len(reader), settings.frame_stride)
    info = source_info(source, settings)
    if not is_place(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as part:
        with open(part, "wb") as file:
            write_frames(file, reader, indices, settings, info)
        return part.stat().st_size


def source_info(source: Path, settings: StoreSettings) -> dict[str, Any]:
    """What decides whether a stored file is still that of its video."""
    size, time_ns = size_and_time(source)
    return {"source": without_secrets(str(source)), "size": size, "mtime_ns": time_ns, **asdict(settings)}


def is_current(target: Path, source: Path, settings: StoreSettings) -> bool:
    """Whether the file is there, whole, and made from this state of the video with these settings."""
    try:
        info = open_frames(target).info
        return all(info.get(name) == value for name, value in source_info(source, settings).items())
    except (VideoError, OSError):  # not there, cut, or stale; or the video is not there, and storing it says why
        return False


def write_frames(file: IO[bytes], reader: VideoReader, indices: Sequence[int], settings: StoreSettings,
                 info: dict[str, Any]) -> None:
    """Write the frames in the format of the settings, with ``info`` and what is known of the frames behind them."""
    fps, seconds = reader.fps / settings.frame_stride, reader.seconds[list(indices)]
    seconds = seconds - seconds[0]
    info = {**info, "num_frames": len(indices), "fps": fps}
    if np.abs(seconds - even_seconds(len(seconds), fps)).max() > MAX_TIME_DIFFERENCE:
        info["seconds"] = seconds.tolist()
    frames = resized_frames(reader, indices, settings.short_side)
    if settings.format == "jpeg":
        _write_zip(file, frames, settings.quality, info)
    else:
        _write_array(file, frames, len(indices), info)


def resized_frames(reader: VideoReader, indices: Sequence[int], short_side: int) -> Iterator[UInt8Array]:
    """The frames as ``VideoResize(short_side)`` makes them, one at a time; smaller ones stay as they are."""
    resize = VideoResize(short_side)
    for frame in reader.read(indices):
        yield resize.resize_frame(frame) if min(frame.shape[:2]) > short_side else frame


def _write_zip(file: IO[bytes], frames: Iterable[UInt8Array], quality: int, info: dict[str, Any]) -> None:
    """Write pictures, and where each lies, so that a reader needs no directory of hundreds of entries."""
    places = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, frame in enumerate(frames, start=1):
            member = zipfile.ZipInfo(f"img_{number:05}.jpg")  # the same date in all: equal input, equal bytes
            archive.writestr(member, encode_jpeg(frame, quality))
            places.append((member.header_offset + 30 + len(member.filename), member.file_size, member.CRC))
        if max(places)[0] < 2**32:
            info = {**info, "pictures": np.array(places, "<u4").tobytes().hex()}
        archive.writestr(zipfile.ZipInfo(INFO_FILE), json.dumps(info))


def _write_array(file: IO[bytes], frames: Iterable[UInt8Array], num_frames: int, info: dict[str, Any]) -> None:
    shape = None
    checksums = ""
    for frame in frames:
        if shape is None:
            shape = (num_frames, *frame.shape)
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        assert frame.shape == shape[1:]
        frame = np.ascontiguousarray(frame)
        file.write(frame.data)
        checksums += f"{checksum(frame):016x}"
    file.write(json.dumps({**info, "checksums": checksums}).encode())  # numpy looks at the array only
