"""What is wrong with a folder of videos: every file decoded to its end, and the lists held against each other.

Each file is read in a process of its own with a time limit (see :mod:`tinyaction.data.loader`), so that one that hangs
or crashes its decoder is a finding like every other.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os.path import isfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tinyaction.data.annotations import DataFolder, VideoList
from tinyaction.data.loader import BadVideo, EpochSampler, VideoLoader
from tinyaction.video import UInt8Array, VideoError, open_video

LOOK_BITS = 64  # of each of three frames
NEAR_BITS = 8  # of 192: videos that differ by no more look alike; re-encoded copies differ by 0 to 5

@dataclass
class CheckedFile:
    """What was found out about a file; ``problem`` is "" or one sentence without the path."""

    path: str
    problem: str = ""
    kind: str = ""  # of the problem, see VideoError; "concealed damage": all frames come, some not as they were
    num_frames: int = 0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    digest: str = ""  # sha256 of the content
    look: str = ""  # 192 bits as hexadecimal digits, of the frames at 1/4, 2/4, 3/4; "" where there is little to see


@dataclass
class Finding:
    """Something that is wrong: its kind, the videos that it is about, and what there is to say."""

    kind: str
    paths: list[str]
    text: str = ""


@dataclass
class Check:
    """All that was found: ``files`` by path, ``findings`` in the order in which a person should read them."""

    files: dict[str, CheckedFile]
    findings: list[Finding]
    class_counts: dict[str, dict[str, int]] = field(default_factory=dict)  # class -> {"train": n, "val": n}


def check_file(path: str) -> CheckedFile:
    """Read a file to its end. What is wrong with it is in the result; nothing is raised."""
    result = CheckedFile(path)
    try:
        reader = open_video(path)
        result.fps = round(reader.fps, 3)
        result.num_frames = len(reader)
        places = {len(reader) * quarter // 4 for quarter in (1, 2, 3)}
        looks: list[UInt8Array] = []
        for index, frame in enumerate(reader.read(range(len(reader)))):
            result.height, result.width = frame.shape[:2]
            if index in places:
                looks.append(_look(frame))
        bits = np.concatenate((looks * 3)[:3])
        if LOOK_BITS * 3 * 0.1 < bits.sum() < LOOK_BITS * 3 * 0.9:  # of a plain picture all bits are alike
            result.look = np.packbits(bits).tobytes().hex()
    except VideoError as error:
        result.problem, result.kind = error.reason, error.kind
    except (ValueError, OSError, MemoryError, cv2.error) as error:
        result.problem, result.kind = f"{type(error).__name__}: {error}", "unreadable"
    if isfile(path):
        with open(path, "rb") as file:
            result.digest = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") \
                else hashlib.sha256(file.read()).hexdigest()
    return result


def _look(frame: UInt8Array) -> UInt8Array:
    """64 bits of a frame: whether each of 8x9 cells is brighter than the one on its right ("difference hash")."""
    cells = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    return (np.asarray(cells)[:, :-1] > np.asarray(cells)[:, 1:]).astype(np.uint8).reshape(-1)


class _Files:
    """The files as items of a loader."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> CheckedFile:
        return check_file(self.paths[key[1]])

    def filename(self, index: int) -> str:
        return self.paths[index]


def check_files(paths: Sequence[str], *, num_workers: int = 1, time_limit: float = 60.0) -> Iterator[CheckedFile]:
    """Check files in ``num_workers`` processes, each file within ``time_limit`` seconds; in any order."""
    files = _Files(paths)
    loader = VideoLoader(files, batch_size=1, sampler=EpochSampler(len(files), shuffle=False, seed=0), collate=list,
                         num_workers=max(1, num_workers), on_error="skip", max_bad_share=1.0, time_limit=time_limit)
    num_lost = 0
    for batch in loader:
        yield from batch
        for bad in loader.bad[num_lost:]:
            yield _lost(bad)
        num_lost = len(loader.bad)
    for bad in loader.bad[num_lost:]:
        yield _lost(bad)


def _lost(bad: BadVideo) -> CheckedFile:
    return CheckedFile(bad.filename, bad.reason, "hangs" if "not read within" in bad.reason else "crashes")


def check_data(
    data: DataFolder,
    *,
    clip_len: int = 1,
    num_workers: int = 1,
    time_limit: float = 60.0,
    cache: Path | None = None,
    on_file: Callable[[int, int], None] | None = None,
) -> Check:
    """Check all videos of a data folder.

    Args:
        clip_len: frames that a clip will have; shorter videos are a finding, as their frames would repeat.
        cache: a file of what was found out, which grows while it runs: a check that is given again goes on there.
        on_file: called with the number of files done and of all.
    """
    lists = {"train": data.train, "val": data.val}
    listed = {split: [videos[i][0] for i in range(len(videos))] for split, videos in lists.items()}
    paths = list(dict.fromkeys([*listed["train"], *listed["val"]]))
    files = _read_cache(cache)
    files = {path: files[path] for path in paths if path in files}
    todo = [path for path in paths if path not in files]
    for result in check_files(todo, num_workers=num_workers, time_limit=time_limit) if todo else ():
        files[result.path] = result
        _add_to_cache(cache, result)
        if on_file is not None:
            on_file(len(files), len(paths))
    findings = [Finding(result.kind, [path], result.problem) for path, result in files.items() if result.problem]
    findings += [Finding("fewer frames than a clip", [path], f"{result.num_frames} frames, a clip has {clip_len}")
                 for path, result in files.items() if not result.problem and result.num_frames < clip_len]
    findings += _listed_twice(lists)
    findings += _in_both_splits(listed, files)
    counts = {name: {split: int((videos.labels == label).sum()) for split, videos in lists.items()}
              for label, name in enumerate(data.class_names)}
    for name, count in counts.items():
        for split, number in count.items():
            if number == 0:
                findings.append(Finding("label gap", [], f"class {name!r} has no video in {split}"))
    return Check({path: files[path] for path in paths}, findings, counts)


def clean_lines(videos: VideoList, check: Check) -> list[tuple[str, int]]:
    """(name as listed, label) of the videos that may stay: readable, listed once, and not in training already."""
    bad = {path for path, result in check.files.items() if result.problem}
    bad |= {finding.paths[1] for finding in check.findings if finding.kind == "same content in train and val"}
    kept: dict[str, tuple[str, int]] = {}
    for index in range(len(videos)):
        path, label = videos[index]
        if path not in bad:
            kept.setdefault(path, (videos.name(index), label))
    return list(kept.values())


def _listed_twice(lists: Mapping[str, VideoList]) -> list[Finding]:
    findings = []
    for split, videos in lists.items():
        labels = defaultdict(list)
        for index in range(len(videos)):
            path, label = videos[index]
            labels[path].append(label)
        findings += [Finding("listed twice", [path], f"{len(given)} times in {split}, labels {given}")
                     for path, given in labels.items() if len(given) > 1]
    return findings


def _in_both_splits(listed: Mapping[str, Sequence[str]], files: Mapping[str, CheckedFile]) -> list[Finding]:
    """Validation videos that are training videos too: the same bytes, or nearly the same pictures."""
    findings = []
    by_digest = {files[path].digest: path for path in listed["train"] if files[path].digest}
    same = set()
    for path in listed["val"]:
        twin = by_digest.get(files[path].digest)
        if twin is not None:
            same.add(path)
            findings.append(Finding("same content in train and val", [twin, path]))
    # Of 192 bits in 12 groups at least four groups are equal where at most 8 bits differ.
    groups: dict[tuple[int, str], list[str]] = defaultdict(list)
    for path in listed["train"]:
        for place, group in _groups(files[path].look):
            groups[place, group].append(path)
    for path in listed["val"]:
        if path in same:
            continue
        shared = Counter(twin for key in _groups(files[path].look) for twin in groups.get(key, ()))
        for twin, num_equal in shared.items():
            distance = _distance(files[path].look, files[twin].look)
            if num_equal >= 4 and distance <= NEAR_BITS:
                findings.append(Finding("look alike in train and val", [twin, path],
                                        f"{distance} of {3 * LOOK_BITS} bits differ"))
                break
    return findings


def _groups(look: str) -> list[tuple[int, str]]:
    return [(place, look[place : place + 4]) for place in range(0, len(look), 4)]


def _distance(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


def summary(check: Check) -> dict[str, Any]:
    """Counts of the findings by kind, sizes, rates and lengths of the readable videos, counts of the classes."""
    good = [result for result in check.files.values() if not result.problem]
    frames = [result.num_frames for result in good]
    return {
        "num_files": len(check.files),
        "num_readable": len(good),
        "findings": dict(Counter(finding.kind for finding in check.findings)),
        "frames": {"least": min(frames), "median": int(np.median(frames)), "most": max(frames)} if frames else {},
        "sizes": dict(Counter(f"{result.width}x{result.height}" for result in good).most_common()),
        "frames_per_second": dict(Counter(f"{result.fps:g}" for result in good).most_common()),
        "classes": check.class_counts,
    }


def _read_cache(cache: Path | None) -> dict[str, CheckedFile]:
    """What an earlier check found out of files that have not changed since."""
    if cache is None or not cache.is_file():
        return {}
    files = {}
    for line in cache.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        try:
            entry = json.loads(line)
            if _stamp(entry["file"]["path"]) == entry["stamp"]:
                files[entry["file"]["path"]] = CheckedFile(**entry["file"])
        except (ValueError, KeyError, TypeError):  # a line that was cut when the check was killed
            continue
    return files


def _add_to_cache(cache: Path | None, result: CheckedFile) -> None:
    if cache is None:
        return
    with open(cache, "a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(json.dumps({"stamp": _stamp(result.path), "file": asdict(result)}) + "\n")


def _stamp(path: str) -> list[int]:
    try:
        status = Path(path).stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


__all__ = ["Check", "CheckedFile", "Finding", "check_data", "check_file", "check_files", "clean_lines",
           "summary"]
