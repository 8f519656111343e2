"""Stored frames: each video decoded once, read ten times faster ever after.

A store is a data folder like any other, made from one. The lists are the same, only the names end differently:

    STORE/store.json                      the settings, and the folder that it was made from
    STORE/train.txt, val.txt, classes.txt lines "path label"; written last, so a store that has them is whole
    STORE/train/abc.mp4.zip               form "jpeg": img_00001.jpg, ... uncompressed in a zip, or
    STORE/train/abc.mp4.npy               form "raw": (T, H, W, 3) uint8, read by memory map

Every file of frames carries a line of JSON (the comment of the zip, the bytes after the array): the size and time of
its video and the settings. A file whose video has changed since is never read. Files are written beside their place
and renamed into it, so one that is there is whole; a command that was killed goes on where it stopped.
:mod:`tinyaction.video.frames` reads them.
"""

import errno
import json
import os
import shlex
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from tinyaction.data.annotations import DataFolder, VideoList, find_data
from tinyaction.data.loader import EpochSampler, VideoLoader
from tinyaction.data.transforms import VideoResize
from tinyaction.files import remove_parts, whole_file, write_whole
from tinyaction.video import UInt8Array, VideoError, VideoReader, open_video
from tinyaction.video.frames import (
    FORMS,
    STORE_FILE,
    FrameArrayReader,
    FrameZipReader,
    StoreSettings,
    command_of,
    size_and_time,
)

SECONDS_PER_VIDEO = 6 * 3600.0  # a worker that takes longer for one is stopped, and the video is named


# ---- whose frames a stored file holds -------------------------------------------------------------------------------


def _key(source: Path, settings: StoreSettings) -> dict[str, Any]:
    """What decides whether a stored file is still that of its video."""
    size, time_ns = size_and_time(source)
    return {"source": str(source), "size": size, "mtime_ns": time_ns, **asdict(settings)}


def _is_current(target: Path, key: dict[str, Any]) -> bool:
    """Whether the file is there, whole, and made from this state of the video with these settings."""
    try:
        reader = FrameZipReader(target) if target.suffix == ".zip" else FrameArrayReader(target)
    except VideoError:  # not there, cut, or stale
        return False
    return all(reader.info.get(name) == value for name, value in key.items())


# ---- writing -------------------------------------------------------------------------------------------------------


def store_video(source: Path, target: Path, settings: StoreSettings) -> int:
    """Decode one video and write its file of frames; returns its bytes. ``target`` is there whole or not at all.

    Raises:
        VideoError: the video cannot be read.
        OSError: the file cannot be written.
    """
    reader = open_video(source)
    indices = range(0, len(reader), settings.every)
    info = {**_key(source, settings), "num_frames": len(indices), "fps": reader.fps / settings.every}
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as part:
        with open(part, "wb") as file:
            _write_frames(file, reader, indices, settings, json.dumps(info))
        num_bytes = part.stat().st_size
    return num_bytes


def _write_frames(file: IO[bytes], reader: VideoReader, indices: Sequence[int], settings: StoreSettings,
                  info: str) -> None:
    """The frames in the form of the settings, with the line of JSON behind them."""
    write = _write_zip if settings.form == "jpeg" else _write_array
    write(file, _resized(reader, indices, settings.short_side), len(indices), settings, info)


def _resized(reader: VideoReader, indices: Sequence[int], short_side: int) -> Iterator[UInt8Array]:
    """The frames as ``VideoResize(short_side)`` makes them, one at a time; smaller ones stay as they are."""
    resize = VideoResize(short_side)
    for frame in reader.read(indices):
        yield resize.resize_frame(frame) if min(frame.shape[:2]) > short_side else frame


def _write_zip(file: IO[bytes], frames: Iterable[UInt8Array], num_frames: int, settings: StoreSettings,
               info: str) -> None:
    digits = max(5, len(str(num_frames)))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, frame in enumerate(frames, start=1):
            name = zipfile.ZipInfo(f"img_{number:0{digits}}.jpg")  # the same date in all: equal input, equal bytes
            archive.writestr(name, encode_jpeg(frame, settings.quality))
        archive.comment = info.encode()


def encode_jpeg(frame: UInt8Array, quality: int) -> bytes:
    """(H, W, 3) RGB to JPEG with colours at half size (4:2:0)."""
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded
    return data.tobytes()


def _write_array(file: IO[bytes], frames: Iterable[UInt8Array], num_frames: int, settings: StoreSettings,
                 info: str) -> None:
    shape = None
    for frame in frames:
        if shape is None:
            shape = (num_frames, *frame.shape)
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        assert frame.shape == shape[1:]
        file.write(np.ascontiguousarray(frame).data)
    file.write(info.encode())  # numpy and its memory map look at the array only


# ---- a whole folder ------------------------------------------------------------------------------------------------


@dataclass
class StorePlan:
    """What is to be done for a store; :func:`plan_store` makes it, :func:`fill_store` does it."""

    source: Path
    folder: Path
    settings: StoreSettings
    data: DataFolder
    targets: dict[str, str]  # video -> its file of frames, relative to the folder
    missing: list[str]  # videos whose frames are not stored yet
    num_bytes: int  # estimate for the missing ones
    num_measured: int  # from so many videos
    free_bytes: int

    def __str__(self) -> str:
        done = len(self.targets) - len(self.missing)
        if not self.missing:
            return f"{self.folder}: all {done} videos are stored ({self.settings})"
        return (f"{self.folder}: {len(self.missing)} videos to store ({self.settings}), {done} are there already; "
                f"about {_megabytes(self.num_bytes)} (estimated from {self.num_measured} of them), "
                f"{_megabytes(self.free_bytes)} free")


@dataclass
class StoreResult:
    """``num_stored`` videos were written, ``num_bytes`` in all; ``bad`` ones could not be read: video -> reason."""

    num_stored: int = 0
    num_bytes: int = 0
    bad: dict[str, str] = field(default_factory=dict)


def default_store(folder: str | Path, settings: StoreSettings) -> Path:
    """Beside the data: ``clips`` -> ``clips-jpeg256``."""
    folder = Path(folder).resolve()
    every = "" if settings.every == 1 else f"-every{settings.every}"
    quality = "" if settings.form == "raw" or settings.quality == 95 else f"-q{settings.quality}"
    return folder.with_name(f"{folder.name}-{settings.form}{settings.short_side}{every}{quality}")


def plan_store(
    source: str | Path, folder: str | Path, settings: StoreSettings, *, num_measured: int = 8,
    allow_outside: bool = False,
) -> StorePlan:
    """Look at what is there and what is missing, and estimate the space for it; writes nothing.

    ``allow_outside``: lists may name videos outside ``source``; these have a place of their own in the store.

    Raises:
        ValueError: ``folder`` holds a store of other settings or of other videos, or something else; there is not
            enough free space; or what :func:`tinyaction.data.annotations.find_data` raises.
    """
    source, folder = Path(source), Path(folder)
    if (source / STORE_FILE).is_file():
        raise ValueError(f"{source}: this is a frame store already; give the folder of the videos")
    data = find_data(source, allow_outside=allow_outside)
    _check_folder(folder, source, settings)
    targets = _targets(data, source, settings)
    missing = [video for video, target in targets.items()
               if not _is_current(folder / target, _key_or_none(Path(video), settings))]
    measured = [size for size in map(lambda video: _estimate(video, settings), _spread(missing, num_measured)) if size]
    num_bytes = round(sum(measured) / len(measured) * len(missing)) if measured else 0
    there = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    plan = StorePlan(source, folder, settings, data, targets, missing, num_bytes, len(measured),
                     shutil.disk_usage(there).free)
    if num_bytes > plan.free_bytes:
        smaller = "--form jpeg, " if settings.form == "raw" else ""
        raise ValueError(f"{plan}: too much; take {smaller}a smaller --short-side, --every 2 or another --out")
    return plan


def fill_store(
    plan: StorePlan,
    *,
    num_workers: int = 0,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] = lambda num_done, num_all: None,
) -> StoreResult:
    """Store what is missing, in ``num_workers`` processes (0: in this one), then write the lists.

    It can be stopped and called again at any moment: videos whose file is there are not decoded again.

    Raises:
        ValueError: videos that cannot be read, all named, after all others are stored; with ``skip_bad`` they are left
            out of the lists instead and returned.
        OSError: the disk is full; what is finished is kept.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    remove_parts(plan.folder)
    description = {"settings": asdict(plan.settings), "source": str(plan.source.resolve())}
    write_whole(plan.folder / STORE_FILE, json.dumps(description, indent=2) + "\n")
    jobs = _Jobs(plan.missing, [plan.folder / plan.targets[video] for video in plan.missing], plan.settings)
    result = StoreResult()
    loader = VideoLoader(jobs, batch_size=1, sampler=EpochSampler(len(jobs), shuffle=False, seed=0),
                         collate=itemgetter(0), num_workers=min(num_workers, len(jobs)), on_error="skip",
                         max_skipped=1.0, video_timeout=SECONDS_PER_VIDEO)
    try:
        for num_bytes in loader:
            result.num_stored += 1
            result.num_bytes += num_bytes
            on_progress(loader.position, len(plan.missing))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(f"{plan.folder}: the disk is full after {result.num_stored} of {len(plan.missing)} videos; "
                      "they are kept: free some space and run the same command again") from None
    finally:
        loader.close()
    result.bad = {video.filename: f"{video.filename}: {video.reason}" for video in loader.bad}
    if result.bad and not skip_bad:
        reasons = "\n  ".join(list(result.bad.values())[:20])
        raise ValueError(f"{len(result.bad)} of {len(plan.targets)} videos cannot be read, all others are stored; "
                         f"mend them or leave them out (--on-error skip):\n  {reasons}")
    _write_lists(plan, result.bad)
    return result


def check_store(folder: str | Path, short_side: int) -> None:
    """ValueError where ``folder`` is a store of frames smaller than a run's ``short_side``, or one that is unfinished.

    Folders that are no store pass.
    """
    folder = Path(folder)
    command = command_of(folder)
    if not command:
        return
    description = json.loads((folder / STORE_FILE).read_text(encoding="utf-8"))
    settings = StoreSettings(**description["settings"])
    if not (folder / "val.txt").is_file():
        raise ValueError(f"{folder}: this frame store is not finished; run: {command}")
    if settings.short_side < short_side:
        larger = shlex.join(["tinyaction", "store", "--data", description["source"], "--form", settings.form,
                             "--short-side", str(short_side)])
        raise ValueError(f"{folder}: its frames have a short side of {settings.short_side} pixels, this run needs "
                         f"{short_side}; run: {larger}, or train with a smaller --size")


class _Jobs:
    """Videos to store, as a dataset: the loader is the pool of processes, the same as in training."""

    def __init__(self, videos: list[str], targets: list[Path], settings: StoreSettings) -> None:
        self.videos = videos
        self.targets = targets
        self.settings = settings

    def __len__(self) -> int:
        return len(self.videos)

    def filename(self, index: int) -> str:
        return self.videos[index]

    def __getitem__(self, key: tuple[int, int]) -> int | OSError:
        """Bytes written. What the disk refuses is no fault of the video, so it is not raised: the loader, which
        passes over bad videos, raises what it is handed."""
        _, index = key
        try:
            return store_video(Path(self.videos[index]), self.targets[index], self.settings)
        except OSError as error:
            return error


def _targets(data: DataFolder, source: Path, settings: StoreSettings) -> dict[str, str]:
    """Video -> name of its stored file: its place within the data folder, with a suffix more."""
    targets = {}
    root = source.resolve()
    for videos in (data.train, data.val):
        for index in range(len(videos)):
            video, _ = videos[index]
            absolute = Path(video).absolute()
            inside = Path(os.path.normpath(absolute))
            name = str(inside.relative_to(root)) if inside.is_relative_to(root) else "elsewhere" + str(inside)
            if "\n" in name or name != name.strip():
                raise ValueError(f"{video!r}: a name with a line break, or with spaces around it, fits into no list")
            targets[video] = Path(name + FORMS[settings.form]).as_posix()
    return targets


def _write_lists(plan: StorePlan, bad: dict[str, str]) -> None:
    every = plan.settings.every
    readme = plan.source / "README.txt"  # where the clips are generated, it says so
    if readme.is_file():
        write_whole(plan.folder / "README.txt", readme.read_bytes())
    write_whole(plan.folder / "classes.txt", "".join(f"{name}\n" for name in plan.data.class_names))

    def lines(videos: VideoList) -> Iterator[str]:
        for index in range(len(videos)):
            video, label = videos[index]
            if video not in bad:
                count = "" if videos.num_frames is None else f" {-(-int(videos.num_frames[index]) // every)}"
                yield f"{plan.targets[video]}{count} {label}\n"

    for name, videos in (("train.txt", plan.data.train), ("val.txt", plan.data.val)):
        write_whole(plan.folder / name, "".join(lines(videos)))


def _check_folder(folder: Path, source: Path, settings: StoreSettings) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder}: a file; a store is a folder")
    try:
        description = json.loads((folder / STORE_FILE).read_text(encoding="utf-8"))
        kept = StoreSettings(**description["settings"])
    except FileNotFoundError:
        if any(folder.iterdir()):
            raise ValueError(f"{folder}: not empty and no frame store; name another folder with --out") from None
        return
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{folder / STORE_FILE}: damaged; delete {folder} and make the store again") from None
    if kept != settings:
        raise ValueError(f"{folder}: holds a store of other settings ({kept}; asked: {settings}); name another folder "
                         f"with --out, or run: {command_of(folder)}")
    if description["source"] != str(source.resolve()):
        raise ValueError(f"{folder}: holds the frames of {description['source']}; name another folder with --out")


def _key_or_none(video: Path, settings: StoreSettings) -> dict[str, Any]:
    try:
        return _key(video, settings)
    except OSError:
        return {"source": None}  # the video is not there: nothing stored is current, and storing it says why


def _estimate(video: str, settings: StoreSettings) -> int:
    """Bytes of a stored video, from three of its frames; 0 where it cannot be read."""
    try:
        reader = open_video(video)
        num_frames = len(range(0, len(reader), settings.every))
        frames = list(_resized(reader, sorted({0, len(reader) // 2, len(reader) - 1}), settings.short_side))
    except (VideoError, OSError):
        return 0
    sizes = [len(encode_jpeg(frame, settings.quality)) + 132 if settings.form == "jpeg" else frame.nbytes
             for frame in frames]
    return num_frames * sum(sizes) // len(sizes)


def _spread(items: list[str], num: int) -> list[str]:
    """At most ``num`` of the items, evenly spread."""
    return [items[i * len(items) // min(num, len(items))] for i in range(min(num, len(items)))]


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:.1f} GB"
