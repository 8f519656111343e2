"""Stored frames: each video decoded once, read ten times faster ever after.

A store is a data folder like any other, made from one. The lists are the same, only the names end differently:

    STORE/store.json                      the settings, and the folder that it was made from
    STORE/train.txt, val.txt, classes.txt lines "path label"; written last, so a store that has them is whole; of
                                          groups or segments train.csv and val.csv
    STORE/train/abc.mp4.zip               format "jpeg": pictures in a zip, or
    STORE/train/abc.mp4.npy               format "raw": an array, read by memory map

Every file of frames knows the size and time of its video and the settings, and is never read when its video has
changed since; see :mod:`tinyaction.prepare.stored_file`. Files are written beside their place and renamed into it, so
one that is there is whole; a command that was killed goes on where it stopped. A video that hangs or kills the process
that decodes it is named, and the others are stored.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath

import cv2

from tinyaction.data.annotations import DataFolder, VideoList, find_data
from tinyaction.data.segments import Segment, write_segments
from tinyaction.files import is_part, remove_parts, write_whole
from tinyaction.places import (
    NoSuchBucketError,
    NoSuchPlaceError,
    is_place,
    join_place,
    list_place,
    place_exists,
    read_place,
    remove_place,
    suffix_of,
    url_of,
    without_secrets,
)
from tinyaction.prepare.parts import Part
from tinyaction.prepare.pool import Lost, map_in_processes
from tinyaction.prepare.stored_file import (
    StoreSettings,
    is_current,
    resized_frames,
    store_video,
)
from tinyaction.text import shell_line
from tinyaction.video import VideoError, open_video
from tinyaction.video.frames import FORMATS
from tinyaction.video.pictures import encode_jpeg
from tinyaction.video.store_info import STORE_FILE

SECONDS_PER_VIDEO = 6 * 3600.0  # a process that takes longer for one is ended, and the video is named
SECONDS_PER_ESTIMATE = 60.0
NUM_MEASURED = 8  # videos from which the space is estimated
BAD_FILES = "bad_files.txt"
WHOLE = Part(1, 1)
UNKNOWN_BYTES = 1 << 62


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
        return (f"{self.folder}: {len(self.missing)} videos to store ({self.settings}), {done} are there already;\n"
                f"  about {_megabytes(self.num_bytes)} (estimated from {self.num_measured} of them), "
                f"{'an unknown space' if self.free_bytes == UNKNOWN_BYTES else _megabytes(self.free_bytes)} free")


@dataclass
class StoreResult:
    """``num_stored`` videos were written, ``num_bytes`` in all; ``bad`` ones could not be read: video -> reason."""

    num_stored: int = 0
    num_bytes: int = 0
    bad: dict[str, str] = field(default_factory=dict)


def default_store(folder: str | Path, settings: StoreSettings) -> Path:
    """Beside the data: ``clips`` -> ``clips-jpeg256``; of data that lies elsewhere in the working folder."""
    folder = Path(Path(without_secrets(os.fspath(folder))).name if is_place(folder) else folder).resolve()
    stride = "" if settings.frame_stride == 1 else f"-stride{settings.frame_stride}"
    quality = "" if settings.format == "raw" or settings.quality == 95 else f"-q{settings.quality}"
    return folder.with_name(f"{folder.name}-{settings.format}{settings.short_side}{stride}{quality}")


def make_store(
    source: str | Path, folder: str | Path, settings: StoreSettings, *, num_workers: int = 0,
    video_timeout: float = SECONDS_PER_VIDEO, skip_bad: bool = False, allow_outside: bool = False, group_by: str = "",
    multi_label: bool = False, known_bad: Callable[[list[str]], Mapping[str, str]] | None = None,
    on_line: Callable[[str], None] | None = None, on_count: Callable[[str, int, int], None] | None = None,
) -> None:
    """Bring a store up to date: :func:`plan_store`, then :func:`fill_store`; arguments and errors as there.

    Args:
        known_bad: called with all videos, returns those that are known to be bad (video -> why), not to be tried.
        on_line: receives a sentence before and after.
        on_count: called after each video with ("videos", how many so far, how many in all).
    """
    say = on_line or (lambda sentence: None)
    count = on_count or (lambda unit, num_done, num_all: None)
    plan = plan_store(source, folder, settings, allow_outside=allow_outside, group_by=group_by,
                      multi_label=multi_label)
    say(str(plan))
    result = fill_store(plan, num_workers=num_workers, video_timeout=video_timeout, skip_bad=skip_bad,
                        known_bad=known_bad(list(plan.targets)) if known_bad else {},
                        on_progress=partial(count, "videos"))
    if plan.missing:
        say(f"{plan.folder}: {result.num_stored} videos stored, {result.num_bytes / 1e6:.0f} MB")
    if result.bad:
        write_whole(plan.folder / BAD_FILES, "".join(f"{reason}\n" for reason in result.bad.values()))
        say(f"{plan.folder}: {len(result.bad)} of {len(plan.targets)} videos cannot be read and are left out of the "
            f"lists; {plan.folder / BAD_FILES} names them")


def plan_store(
    source: str | Path, folder: str | Path, settings: StoreSettings, *, allow_outside: bool = False,
    group_by: str = "", multi_label: bool = False, part: Part = WHOLE,
) -> StorePlan:
    """Look at what is there and what is missing, and estimate the space for it.

    It writes nothing into the store. Class folders and a CSV without a split get ``split.csv``, as in training: the
    store has the same split as a run on its videos.

    ``allow_outside``: lists may name videos outside ``source``; these have a place of their own in the store.
    ``part``: look for missing ones in this part alone.

    Raises:
        ValueError: ``folder`` holds a store of other settings or of other videos, or something else; there is not
            enough free space; or what :func:`tinyaction.data.annotations.find_data` raises.
    """
    source, folder = Path(source), Path(folder)
    if not suffix_of(source) and _exists(join_place(source, STORE_FILE)):
        raise ValueError(f"{source}: this is a frame store already; give the folder of the videos")
    data = find_data(source, allow_outside=allow_outside, group_by=group_by, multi_label=multi_label)
    _check_folder(folder, source, settings)
    targets = _targets(data, source, settings)
    missing = [video for video in part.items_of(list(targets))
               if not is_current(folder / targets[video], Path(video), settings)]
    estimates = map_in_processes(partial(_estimate, settings=settings), _spread(missing, NUM_MEASURED), num_workers=1,
                                 timeout_seconds=SECONDS_PER_ESTIMATE)
    measured = [size for _, size in estimates if size and not isinstance(size, Lost)]
    num_bytes = round(sum(measured) / len(measured) * len(missing)) if measured else 0
    plan = StorePlan(source, folder, settings, data, targets, missing, num_bytes, len(measured), _free_bytes(folder))
    if num_bytes > plan.free_bytes:
        smaller = "--format jpeg, " if settings.format == "raw" else ""
        sentence = str(plan).replace("\n ", "")
        raise ValueError(f"{sentence}: too much; take {smaller}a smaller --short-side, --frame-stride 2 or another "
                         "--out")
    return plan


def fill_store(
    plan: StorePlan,
    *,
    num_workers: int = 0,
    video_timeout: float = SECONDS_PER_VIDEO,
    skip_bad: bool = False,
    known_bad: Mapping[str, str] | None = None,
    on_progress: Callable[[int, int], None] = lambda num_done, num_all: None,
) -> StoreResult:
    """Store what is missing, in ``num_workers`` processes (0: in this one), then write the lists.

    It can be stopped and called again at any moment: videos whose file is there are not decoded again. A video that
    takes longer than ``video_timeout`` seconds, or kills its process, is a bad one. ``known_bad`` are not tried again.

    Raises:
        ValueError: videos that cannot be read, all named, after all others are stored; with ``skip_bad`` they are left
            out of the lists instead and returned.
        OSError: the disk is full; what is finished is kept.
    """
    result = StoreResult()
    bad = dict(known_bad or {})
    todo = [video for video in plan.missing if video not in bad]
    for num_done, (video, outcome) in enumerate(
            store_videos(plan, todo, num_workers=num_workers, video_timeout=video_timeout), start=1):
        if isinstance(outcome, str):
            bad[video] = outcome
        else:
            result.num_stored += 1
            result.num_bytes += outcome
        on_progress(num_done, len(todo))
    result.bad = {video: bad[video] for video in plan.targets if video in bad}
    if result.bad and not skip_bad:
        reasons = "\n  ".join(list(result.bad.values())[:20])
        raise ValueError(f"{len(result.bad)} of {len(plan.targets)} videos cannot be read, all others are stored; "
                         f"mend them or leave them out (--on-error skip):\n  {reasons}")
    _write_lists(plan, result.bad)
    return result


def _begin(plan: StorePlan) -> None:
    """Make the folder, remove what killed processes left in it, and write its settings."""
    if not is_place(plan.folder):
        plan.folder.mkdir(parents=True, exist_ok=True)
        for folder in {(plan.folder / target).parent for target in plan.targets.values()}:
            remove_parts(folder)
    source = _source_name(plan.source)
    description = {"settings": asdict(plan.settings), "source": source,
                   "arguments": ["--data", source, *plan.settings.flags]}
    write_whole(plan.folder / STORE_FILE, json.dumps(description, indent=2) + "\n")


def store_videos(
    plan: StorePlan, videos: Sequence[str], *, num_workers: int = 0, video_timeout: float = SECONDS_PER_VIDEO
) -> Iterator[tuple[str, int | str]]:
    """Store videos of a plan; yield each with the bytes that were written, 0 where it was stored before, or why it
    cannot be read. Raises OSError where the disk is full.
    """
    _begin(plan)
    missing = set(plan.missing)
    yield from ((video, 0) for video in videos if video not in missing)
    jobs = [(video, plan.folder / plan.targets[video]) for video in videos if video in missing]
    work = partial(_store, settings=plan.settings)
    stored = map_in_processes(work, jobs, num_workers=num_workers, timeout_seconds=video_timeout) if num_workers else (
        (job, work(job)) for job in jobs)
    num_stored = 0
    for (video, _), outcome in stored:
        if isinstance(outcome, OSError):
            raise _disk_error(outcome, plan, num_stored)
        if isinstance(outcome, int):
            num_stored += 1
            yield video, outcome
        else:
            reason = f"{outcome.kind}: {outcome.reason}" if isinstance(outcome, Lost) else str(outcome)
            yield video, reason if reason.startswith(video) else f"{video}: {reason}"


def check_store(folder: str | Path, short_side: int) -> None:
    """ValueError where ``folder`` is a store of frames smaller than a run's ``short_side``, or one that is unfinished.

    Folders that are no store pass.
    """
    if is_place(folder):
        if suffix_of(folder) or not place_exists(join_place(folder, STORE_FILE)):
            return
        folder = url_of(folder)
    elif not Path(folder, STORE_FILE).is_file():
        return
    settings, source = _read_store(folder)
    if not any(_exists(join_place(folder, name)) for name in ("val.txt", "val.csv")):
        raise ValueError(f"{folder}: this frame store is not finished; run: {_command(folder, source, settings)}")
    if settings.short_side < short_side:
        larger = shell_line("tinyaction", "store", "--data", source, "--format", settings.format,
                            "--short-side", str(short_side))
        raise ValueError(f"{folder}: its frames have a short side of {settings.short_side} pixels, this run needs "
                         f"{short_side}; run: {larger}, or train with a smaller --size")


def _exists(path: str) -> bool:
    return place_exists(path) if is_place(path) else Path(path).is_file()


def _read_store(folder: str | Path) -> tuple[StoreSettings, str]:
    """Settings and source of a store, also of one of an earlier version, whose settings had other names."""
    try:
        file = join_place(folder, STORE_FILE)
        description = json.loads(read_place(file) if is_place(file) else Path(file).read_text(encoding="utf-8"))
        earlier = {"form": "format", "every": "frame_stride"}
        settings = {earlier.get(name, name): value for name, value in description["settings"].items()}
        return StoreSettings(**settings), str(description["source"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{without_secrets(file)}: damaged; delete {folder} and make the store again") from None


def _command(folder: str | Path, source: str, settings: StoreSettings) -> str:
    return shell_line("tinyaction", "store", "--data", source, *settings.flags, "--out", folder)


def _store(job: tuple[str, Path], settings: StoreSettings) -> int | Exception:
    """Bytes written, or what went wrong: OSError for what the disk refuses, everything else is the video's fault."""
    video, target = job
    try:
        return store_video(Path(video), target, settings)
    except (ValueError, OSError, MemoryError, cv2.error) as error:
        return error


def _disk_error(error: OSError, plan: StorePlan, num_stored: int) -> OSError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return OSError(f"{plan.folder}: the disk is full after {num_stored} of {len(plan.missing)} videos; they "
                   "are kept: free some space and run the same command again")


def _targets(data: DataFolder, source: Path, settings: StoreSettings) -> dict[str, str]:
    """Video -> name of its stored file: its place within the data folder, with a suffix more."""
    targets = {}
    root = data.folder or source  # source may be one table
    for videos in (data.train, data.val):
        for index in range(len(videos)):
            video, _ = videos[index]
            name = _name_in_store(video, root)
            if "\n" in name or name != name.strip():
                raise ValueError(f"{video!r}: a name with a line break, or with spaces around it, fits into no list")
            targets[video] = Path(name + FORMATS[settings.format]).as_posix()
    of_target: dict[str, str] = {}
    for video, target in targets.items():
        if of_target.setdefault(target, video) != video and is_place(video):
            raise ValueError(f"{video} and {of_target[target]} would both be {target} in the store; rename one")
    return targets


def _name_in_store(video: str, root: Path) -> str:
    if is_place(video):
        address = without_secrets(video)
        inner = address.removeprefix(f"{without_secrets(str(root))}/")
        return inner if inner != address else f"elsewhere/{address.replace('://', '/')}"
    inside, root = Path(os.path.normpath(Path(video).absolute())), root.resolve()
    return str(inside.relative_to(root)) if inside.is_relative_to(root) else place_elsewhere(inside)


def place_elsewhere(path: PurePath) -> str:
    """The place in a store of a video outside the data: /a/b.mp4 -> elsewhere/a/b.mp4, C:\\b -> elsewhere/C/b."""
    return "/".join(["elsewhere", *re.findall(r"[^:/\\]+", path.anchor), *path.parts[1:]])


def _write_lists(plan: StorePlan, bad: dict[str, str]) -> None:
    stride = plan.settings.frame_stride
    readme = plan.source / "README.txt"  # where the clips are generated, it says so
    if readme.is_file():
        write_whole(plan.folder / "README.txt", readme.read_bytes())
    write_whole(plan.folder / "classes.txt", "".join(f"{name}\n" for name in plan.data.class_names))

    def lines(videos: VideoList) -> Iterator[str]:
        for index in range(len(videos)):
            video, label = videos[index]
            if video not in bad:
                count = "" if videos.num_frames is None else f" {-(-int(videos.num_frames[index]) // stride)}"
                yield f"{plan.targets[video]}{count} {label}\n"

    def rows(videos: VideoList) -> Iterator[Segment]:
        for index in range(len(videos)):
            video, _ = videos[index]
            if video not in bad:
                yield replace(videos.row(index, plan.data.class_names), path=plan.targets[video])

    train, val = plan.data.train, plan.data.val
    is_table = train.starts is not None or train.label_sets is not None or (
        train.groups is not None and val.groups is not None)
    for name, videos in (("train", train), ("val", val)):
        other = plan.folder / f"{name}{'.txt' if is_table else '.csv'}"
        if is_place(other):
            remove_place(other)
        else:
            other.unlink(missing_ok=True)
        if is_table:
            write_segments(plan.folder / f"{name}.csv", list(rows(videos)))
        else:
            write_whole(plan.folder / f"{name}.txt", "".join(lines(videos)))


def _source_name(source: Path) -> str:
    return without_secrets(str(source)) if is_place(source) else str(source.resolve())


def _free_bytes(folder: Path) -> int:
    if is_place(folder):
        return UNKNOWN_BYTES
    there = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    return shutil.disk_usage(there).free


def _names_in(folder: Path) -> list[str]:
    """Of the files and folders in a folder; empty where there is none."""
    if not is_place(folder):
        return [item.name for item in folder.iterdir()] if folder.exists() else []
    try:
        return list_place(folder, is_deep=True)
    except NoSuchBucketError:
        raise
    except NoSuchPlaceError:
        return []


def _check_folder(folder: Path, source: Path, settings: StoreSettings) -> None:
    if not is_place(folder) and folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: a file; a store is a folder")
    if not _exists(join_place(folder, STORE_FILE)):
        if not all(map(is_part, _names_in(folder))):
            raise ValueError(f"{folder}: not empty and no frame store; name another folder with --out")
        return
    kept, kept_source = _read_store(folder)
    if kept != settings:
        raise ValueError(f"{folder}: holds a store of other settings ({kept}; asked: {settings}); name another folder "
                         f"with --out, or run: {_command(folder, kept_source, kept)}")
    if kept_source != _source_name(source):
        raise ValueError(f"{folder}: holds the frames of {kept_source}; name another folder with --out")


def _estimate(video: str, settings: StoreSettings) -> int:
    """Bytes of a stored video, from three of its frames; 0 where it cannot be read."""
    try:
        reader = open_video(video)
        num_frames = len(range(0, len(reader), settings.frame_stride))
        frames = list(resized_frames(reader, sorted({0, len(reader) // 2, len(reader) - 1}), settings.short_side))
    except (VideoError, OSError):
        return 0
    sizes = [len(encode_jpeg(frame, settings.quality)) + 132 if settings.format == "jpeg" else frame.nbytes
             for frame in frames]
    return num_frames * sum(sizes) // len(sizes)


def _spread(items: list[str], num: int) -> list[str]:
    """At most ``num`` of the items, evenly spread."""
    return [items[i * len(items) // min(num, len(items))] for i in range(min(num, len(items)))]


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:.1f} GB"
