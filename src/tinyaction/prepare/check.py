"""What is wrong with a folder of videos: every file decoded to its end, and the lists held against each other.

Each file is read in another process with a time limit (see :mod:`tinyaction.prepare.pool`), so that one that hangs or
kills its process is a finding like every other, and is never opened in this process.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from os.path import isfile
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from tinyaction.data.annotations import DataFolder, VideoList
from tinyaction.prepare.parts import add_line, read_lines
from tinyaction.prepare.pool import Lost, map_in_processes
from tinyaction.video import UInt8Array, VideoError, VideoReader, open_video
from tinyaction.video.segment import segment_of

Segments = dict[str, tuple[float, float, str]]  # name -> start and end in seconds, and the line of the list
HASH_BITS = 64  # of each of three frames
NEAR_BITS = 8  # of 192: videos that differ by no more are nearly the same; re-encoded copies differ by 0 to 5
# What FFmpeg's H.264 decoder says of packets before the first key frame, in streams joined in the middle: no damage.
LEAD_IN_MESSAGES = ("non-existing PPS", "non-existing SPS", "no frame!", "mmco: unref short failure")


@dataclass
class CheckedFile:
    """What was found out about a file.

    Attributes:
        problem: why it cannot be read, one sentence without the path; "" where it can.
        kind: of the problem, see VideoError.
        concealed_damage: what its decoder complained of although all frames came: some are not as they were.
        digest: sha256 of the content.
        perceptual_hash: 192 bits as hexadecimal digits, of the frames at 1/4, 2/4, 3/4; "" where there is little to
            see.
    """

    path: str
    problem: str = ""
    kind: str = ""
    concealed_damage: str = ""
    num_frames: int = 0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    digest: str = ""
    perceptual_hash: str = ""


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
        _read_all(reader, result)
    except VideoError as error:
        result.problem, result.kind = error.reason, error.kind
    except (ValueError, OSError, MemoryError, cv2.error) as error:
        result.problem, result.kind = f"{type(error).__name__}: {error}", "unreadable"
    if isfile(path):
        result.digest = _digest(path)
    return result


def _read_all(reader: VideoReader, result: CheckedFile) -> None:
    """Decode every frame; note the size, the perceptual hash and what the decoder complains of."""
    places = {len(reader) * quarter // 4 for quarter in (1, 2, 3)}
    hashes: list[UInt8Array] = []
    num_before_first = 0
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as messages:
            for index, frame in enumerate(reader.read(range(len(reader)))):
                if index == 0:
                    num_before_first = len(messages)
                    result.height, result.width = frame.shape[:2]
                if index in places:
                    hashes.append(frame_hash(frame))
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(True)
    texts = [text.strip() for number, (severity, _, text) in enumerate(messages) if severity <= av.logging.ERROR
             and not (number < num_before_first and text.startswith(LEAD_IN_MESSAGES))]
    if texts:
        result.concealed_damage = f"all frames come, but the decoder complains {len(texts)} times, first: {texts[0]}"
    bits = np.concatenate((hashes * 3)[:3])
    if HASH_BITS * 3 * 0.1 < bits.sum() < HASH_BITS * 3 * 0.9:  # of a plain picture all bits are alike
        result.perceptual_hash = np.packbits(bits).tobytes().hex()


def frame_hash(frame: UInt8Array) -> UInt8Array:
    """64 bits of a frame: whether each of 8x9 cells is brighter than the one on its right ("difference hash")."""
    cells = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    return (np.asarray(cells)[:, :-1] > np.asarray(cells)[:, 1:]).astype(np.uint8).reshape(-1)


def _digest(path: str) -> str:
    content = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            content.update(chunk)
    return content.hexdigest()


def check_files(paths: Sequence[str], *, num_workers: int = 1, video_timeout: float = 60.0) -> Iterator[CheckedFile]:
    """Check files in ``num_workers`` processes, each file within ``video_timeout`` seconds; in any order."""
    for path, result in map_in_processes(check_file, paths, num_workers=max(1, num_workers),
                                         timeout_seconds=video_timeout):
        yield CheckedFile(path, result.reason, result.kind) if isinstance(result, Lost) else result


def check_data(
    data: DataFolder,
    *,
    clip_len: int = 1,
    num_workers: int = 1,
    video_timeout: float = 60.0,
    cache: Path | None = None,
    known: Mapping[str, CheckedFile] | None = None,
    on_file: Callable[[int, int], None] | None = None,
) -> Check:
    """Check all videos of a data folder.

    Args:
        clip_len: frames that a clip will have; shorter videos are a finding, as their frames would repeat.
        cache: a file of what was found out, which grows while it runs: a check that is given again goes on there.
        known: what was found of each file elsewhere; none of them is read.
        on_file: called with the number of files done and of all.
    """
    lists = {"train": data.train, "val": data.val}
    listed = {split: [videos[i][0] for i in range(len(videos))] for split, videos in lists.items()}
    paths = listed_files(data)
    files = dict(_read_cache(cache) if known is None else known)
    files = {path: files[path] for path in paths if path in files}
    todo = [path for path in paths if path not in files]
    for result in check_files(todo, num_workers=num_workers, video_timeout=video_timeout):
        files[result.path] = result
        _add_to_cache(cache, result)
        if on_file is not None:
            on_file(len(files), len(paths))
    files = {path: files[path] for path in paths}  # in the order of the lists, whichever was done first
    num_classes = len(data.class_names)
    num_videos = {split: np.bincount(videos.labels, minlength=num_classes) if videos.label_sets is None else
                  videos.label_sets.sum(axis=0, dtype=np.int64) for split, videos in lists.items()}
    counts = {name: {split: int(num_videos[split][label]) for split in lists}
              for label, name in enumerate(data.class_names)}
    segments = _segments_by_video(lists.values())
    findings = [*_of_files(files, 0 if segments else clip_len), *_listed_twice(lists), *_under_two_labels(data, files),
                *_in_both_splits(listed, files, is_segments=bool(segments)), *_of_classes(counts)]
    for _, found in map_in_processes(partial(check_segments, clip_len=clip_len), list(segments.items()),
                                     num_workers=max(1, num_workers), timeout_seconds=video_timeout):
        findings += [] if isinstance(found, Lost) else found           # Lost: the file is a finding already
    findings += [Finding("not used", [], note) for note in data.left_out]
    return Check(files, findings, counts)


def listed_files(data: DataFolder) -> list[str]:
    """The videos of both lists, each once."""
    return list(dict.fromkeys(videos[index][0] for videos in (data.train, data.val) for index in range(len(videos))))


def _of_files(files: Mapping[str, CheckedFile], clip_len: int) -> list[Finding]:
    findings = [Finding(result.kind, [path], result.problem) for path, result in files.items() if result.problem]
    findings += [Finding("concealed damage", [path], result.concealed_damage) for path, result in files.items()
                 if result.concealed_damage and not result.problem]
    findings += [Finding("fewer frames than a clip", [path], f"{result.num_frames} frames, a clip has {clip_len}")
                 for path, result in files.items() if not result.problem and result.num_frames < clip_len]
    return findings


def _of_classes(counts: Mapping[str, Mapping[str, int]]) -> list[Finding]:
    return [Finding("label gap", [], f"class {name!r} has no video in {split}")
            for name, count in counts.items() for split, number in count.items() if number == 0]


def clean_places(videos: VideoList, check: Check, *, drop_concealed: bool = False) -> list[int]:
    """Places of the videos that may stay: readable, of one label, listed once, and not in training already.

    ``drop_concealed``: videos with concealed damage go, too.
    """
    bad = {path for path, result in check.files.items()
           if result.problem or drop_concealed and result.concealed_damage}
    bad |= {path for finding in check.findings if finding.kind in ("same content under two labels", "segment")
            for path in finding.paths}
    bad |= {finding.paths[1] for finding in check.findings if finding.kind == "same content in train and val"}
    kept: dict[str, int] = {}
    for index in range(len(videos)):
        name = videos.item_name(index)
        if not {name, videos[index][0]} & bad:
            kept.setdefault(name, index)
    return list(kept.values())


def _listed_twice(lists: Mapping[str, VideoList]) -> list[Finding]:
    findings = []
    for split, videos in lists.items():
        labels = defaultdict(list)
        for index, label in enumerate(videos.labels.tolist()):
            labels[videos.item_name(index)].append(label)
        findings += [Finding("listed twice", [name], f"{len(given)} times in {split}, labels {given}")
                     for name, given in labels.items() if len(given) > 1]
    return findings


def _under_two_labels(data: DataFolder, files: Mapping[str, CheckedFile]) -> list[Finding]:
    """Files of the same bytes that have different labels, whatever their names; one of the labels is wrong.

    Of segments, those with the same times.
    """
    labels: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)  # (content, times) -> name -> label
    for videos in (data.train, data.val):
        for index in range(len(videos)):
            path, name = videos[index][0], videos.item_name(index)
            if files[path].digest:
                labels[files[path].digest, name.removeprefix(path)][name] = videos.row(index, data.class_names).label
    return [Finding("same content under two labels", list(given),
                    "labels " + ", ".join(map(repr, given.values())))
            for given in labels.values() if len(set(given.values())) > 1]


def _segments_by_video(lists: Iterable[VideoList]) -> dict[str, Segments]:
    """The segments of each video of the lists; none of lists of whole videos."""
    found: dict[str, Segments] = defaultdict(dict)
    for videos in lists:
        if videos.starts is not None and videos.ends is not None and videos.lines is not None:
            for index, times in enumerate(zip(videos.starts.tolist(), videos.ends.tolist(), strict=True)):
                where = f"{videos.source}, line {videos.lines[index]}"
                found[videos[index][0]][videos.item_name(index)] = (*times, where)
    return found


def check_segments(job: tuple[str, Segments], clip_len: int) -> list[Finding]:
    """What is wrong with the segments of one video; a video that cannot be opened has a finding of its own."""
    path, segments = job
    findings: list[Finding] = []
    try:
        reader = open_video(path)
    except (VideoError, OSError):
        return findings
    for name, (start, end, where) in segments.items():
        try:
            num_frames = len(segment_of(reader, start, end, path=path, where=where))
        except VideoError as error:
            findings.append(Finding("segment", [name], error.reason))
            continue
        if num_frames < clip_len:
            findings.append(Finding("fewer frames than a clip", [name], f"{num_frames} frames, a clip has {clip_len}"))
    return findings


def _in_both_splits(
    listed: Mapping[str, Sequence[str]], files: Mapping[str, CheckedFile], *, is_segments: bool
) -> list[Finding]:
    """Validation videos that are training videos too: the same bytes, or nearly the same pictures."""
    findings = []
    by_digest = {files[path].digest: path for path in listed["train"] if files[path].digest}
    same = set()
    for path in dict.fromkeys(listed["val"]):
        twin = by_digest.get(files[path].digest)
        if twin == path and is_segments:
            same.add(path)
            findings.append(Finding("segments of one video in train and val", [path]))
        elif twin is not None:
            same.add(path)
            findings.append(Finding("same content in train and val", [twin, path]))
    # Of 192 bits in 12 groups at least four groups are equal where at most 8 bits differ.
    groups: dict[tuple[int, str], list[str]] = defaultdict(list)
    for path in dict.fromkeys(listed["train"]):
        for place, group in _groups(files[path].perceptual_hash):
            groups[place, group].append(path)
    for path in dict.fromkeys(listed["val"]):
        if path in same:
            continue
        shared = Counter(twin for key in _groups(files[path].perceptual_hash) for twin in groups.get(key, ()))
        for twin, num_equal in shared.items():
            distance = _distance(files[path].perceptual_hash, files[twin].perceptual_hash)
            if num_equal >= 4 and distance <= NEAR_BITS:
                findings.append(Finding("nearly the same in train and val", [twin, path],
                                        f"{distance} of {3 * HASH_BITS} bits differ"))
                break
    return findings


def _groups(bits: str) -> list[tuple[int, str]]:
    return [(place, bits[place : place + 4]) for place in range(0, len(bits), 4)]


def _distance(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


def summary(check: Check) -> dict[str, Any]:
    """Counts of the findings by kind, sizes, rates and lengths of the readable videos, counts of the classes."""
    good = [result for result in check.files.values() if not result.problem]
    frames = [result.num_frames for result in good]
    return {
        "num_files": len(check.files),
        "num_readable": len(good),
        "num_concealed": sum(bool(result.concealed_damage) for result in good),
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
    for entry in read_lines(cache):
        try:
            if _stamp(entry["file"]["path"]) == entry["stamp"]:
                files[entry["file"]["path"]] = CheckedFile(**entry["file"])
        except (KeyError, TypeError):  # of another version
            continue
    return files


def _add_to_cache(cache: Path | None, result: CheckedFile) -> None:
    if cache is not None:
        add_line(cache, {"stamp": _stamp(result.path), "file": asdict(result)})


def _stamp(path: str) -> list[int]:
    try:
        status = Path(path).stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


__all__ = ["Check", "CheckedFile", "Finding", "check_data", "check_file", "check_files", "clean_places",
           "listed_files", "summary"]
