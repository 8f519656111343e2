"""Segments as other tools write them, from and to our CSV: Label Studio's JSON, and ActivityNet's.

    Label Studio   [{"data": {"video": "a.mp4"}, "annotations": [{"result": [
                       {"type": "timelinelabels", "value": {"ranges": [{"start": 26, "end": 50}],
                                                            "timelinelabels": ["fall"]}}, ...]}]}, ...]
    ActivityNet    {"database": {"a": {"subset": "training", "duration": 9.5,
                                       "annotations": [{"segment": [1.0, 2.0], "label": "fall"}]}, ...}}

Label Studio counts frames from 1, both ends included, at the frame rate of its <Video> tag: 26 to 50 at 25 a second
are 1 to 2 s. Its regions on a sound track have seconds. OpenTAD and FiftyOne exchange ActivityNet's form.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tinyaction.data.class_folders import is_video, walk_files
from tinyaction.data.segments import Segment, check_segments
from tinyaction.data.tables import read_text
from tinyaction.video import VideoError, open_video
from tinyaction.video.segment import duration_of

SUBSETS = {"training": "train", "validation": "val", "testing": "test"}
TOOLS = ("activitynet", "labelstudio")


@dataclass
class Imported:
    """The segments of a file, and what a person should know of them."""

    segments: list[Segment] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_annotations(path: str | Path, *, videos: str | Path, fps: float | None = None) -> Imported:
    """Read the file of another tool.

    Args:
        videos: folder of the videos, which are named relative to it; one that is not there keeps its name.
        fps: the frame rate of Label Studio's <Video> tag, where its file counts frames and does not say it.

    Raises:
        ValueError: the file is of another form or another version, or a segment in it is wrong; the file and the
            place in it are named.
        FileNotFoundError: there is no such file.
    """
    try:
        content = json.loads(read_text_of(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: no JSON ({error.msg}); files of Label Studio (export as JSON) "
                         "and of ActivityNet are read") from None
    names = _Names(Path(videos))
    result = Imported()
    if isinstance(content, dict) and isinstance(content.get("database"), dict):
        rows = _activitynet_rows(content["database"], path, names)
    elif isinstance(content, list) and content and all(isinstance(task, dict) for task in content):
        rows = _label_studio_rows(content, path, names, fps)
    else:
        keys = ", ".join(map(str, list(content)[:6])) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: neither Label Studio's list of tasks nor ActivityNet's 'database' ({keys}); export "
                         "in one of these forms")
    result.segments = list(rows)
    if not result.segments:
        raise ValueError(f"{path}: no segment in it")
    if names.missing:
        result.notes.append(f"{len(names.missing)} videos are not in {videos}, the first is {names.missing[0]}")
    try:
        check_segments(result.segments)
    except ValueError as error:
        result.notes.append(str(error))
    return result


def read_text_of(path: str | Path) -> str:
    """Exports are often one endless line, which :func:`tinyaction.data.tables.read_text` refuses."""
    try:
        if Path(path).is_file():
            return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        pass  # read_text names the line
    return read_text(path)


def annotations_of(
    segments: Sequence[Segment], tool: str, *, videos: str | Path, fps: float | None = None
) -> tuple[str, list[str]]:
    """(the text of a file of another tool, notes); see :func:`read_annotations` for the arguments.

    Raises ValueError where the tool cannot hold the segments.
    """
    content: object
    notes: list[str] = []
    if tool == "activitynet":
        content, notes = _to_activitynet(segments, Path(videos))
    elif fps is None:
        raise ValueError("Label Studio counts frames: give --fps, the frame rate of its <Video> tag")
    else:
        content = _to_label_studio(segments, fps)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n", notes


# ---- ActivityNet ---------------------------------------------------------------------------------------------------


def _activitynet_rows(database: Mapping[str, Any], path: str | Path, names: "_Names") -> Iterator[Segment]:
    for name, entry in database.items():
        where = f"{path}, {name}"
        found = _get(entry, "annotations", list, where)
        subset = str(entry.get("subset", "")).lower()
        duration = entry.get("duration")
        video = names.of_id(str(entry.get("path", "")), str(name)) if found else ""
        for number, annotation in enumerate(found):
            place = f"{where}, annotation {number + 1}"
            times = _get(annotation, "segment", list, place)
            if len(times) != 2:
                raise ValueError(f"{place}: the segment {times} is not [start, end] in seconds")
            start, end = _range(times[0], times[1], place)
            if isinstance(duration, int | float) and 0 < duration < start:
                hint = "; these look like frames: give seconds" if start == int(start) and end == int(end) else ""
                raise ValueError(f"{place}: the segment {times} begins beyond the duration, {duration} s{hint}")
            yield Segment(video, start, end, _get(annotation, "label", str, place), SUBSETS.get(subset, subset),
                          str(entry.get("group", "")), place)


def _to_activitynet(segments: Sequence[Segment], videos: Path) -> tuple[dict[str, Any], list[str]]:
    database: dict[str, dict[str, Any]] = {}
    subset_of = {split: subset for subset, split in SUBSETS.items()}
    num_unknown = 0
    for video, items in groupby(sorted(segments, key=lambda item: item.path), key=lambda item: item.path):
        own = list(items)
        kinds = {(item.split, item.group) for item in own}
        if len(kinds) > 1:
            raise ValueError(f"{own[0].where}: {video} has segments of several splits or groups; ActivityNet's form "
                             "has one a video")
        try:
            duration = duration_of(open_video(videos / video))
        except VideoError:
            duration, num_unknown = max(item.end for item in own), num_unknown + 1
        name = Path(video).with_suffix("").as_posix()
        entry = {"subset": subset_of.get(own[0].split, own[0].split), "duration": round(duration, 6), "path": video,
                 "group": own[0].group,
                 "annotations": [{"segment": [round(item.start, 6), round(item.end, 6)], "label": item.label}
                                 for item in own]}
        database[video if name in database else name] = {key: value for key, value in entry.items() if value != ""}
    notes = [f"{num_unknown} videos cannot be read: their duration is the end of their last segment"]
    return {"version": "tinyaction", "database": database}, notes if num_unknown else []


# ---- Label Studio --------------------------------------------------------------------------------------------------


def _label_studio_rows(
    tasks: Sequence[dict[str, Any]], path: str | Path, names: "_Names", fps: float | None
) -> Iterator[Segment]:
    for number, task in enumerate(tasks):
        where = f"{path}, task {task.get('id', number + 1)}"
        if "annotations" not in task:
            kind = ("is of Label Studio before 1.0 ('completions'); export it again with a newer one"
                    if "completions" in task else
                    "has no 'annotations'; export from Label Studio as JSON, not as JSON-MIN or CSV")
            raise ValueError(f"{where}: this file {kind}")
        data = _get(task, "data", dict, where)
        video = names.of_address(_address(data, where))
        rate = next((data[key] for key in ("fps", "framerate", "frame_rate") if key in data), fps)
        annotations = [one for one in _get(task, "annotations", list, where)
                       if isinstance(one, dict) and not one.get("was_cancelled")]
        for region in _get(annotations[0], "result", list, where) if annotations else ():
            place = f"{where}, region {region.get('id', '?')}"
            for start, end, label in _regions(region, rate, place):
                yield Segment(video, start, end, label, str(data.get("split", "")), str(data.get("group", "")), place)


def _regions(region: Mapping[str, Any], fps: Any, place: str) -> Iterator[tuple[float, float, str]]:
    """(start, end, label) of a region of time; none of other regions, as boxes and choices."""
    value = region.get("value", {})
    if region.get("type") == "labels" and "start" in value:
        for label in _get(value, "labels", list, place):
            yield *_range(value["start"], value.get("end"), place), str(label)
    if region.get("type") != "timelinelabels":
        return
    if fps is None:
        raise ValueError(f"{place}: its times are frames; give --fps, the frame rate of the <Video> tag in Label "
                         "Studio (24 where it has none)")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < float("inf"):
        raise ValueError(f"{place}: the frame rate is {fps!r}; it must be a number above 0")
    for frames in _get(value, "ranges", list, place):
        first, last = (_number(_get(frames, key, object, place), place) for key in ("start", "end"))
        if last < first or first < 1:
            raise ValueError(f"{place}: frames {first:g} to {last:g}; they count from 1 and end after they start")
        start, end = (first - 1) / fps, last / fps
        match region.get("meta"):
            case {"seconds": [int() | float() as exact_start, int() | float() as exact_end]}:  # tinyaction wrote it
                if max(abs(exact_start - start), abs(exact_end - end)) * fps <= 1:  # the region was not moved since
                    start, end = exact_start, exact_end
        for label in _get(value, "timelinelabels", list, place):
            yield start, end, str(label)


def _to_label_studio(segments: Sequence[Segment], fps: float) -> list[dict[str, Any]]:
    def key(item: Segment) -> tuple[str, str, str]:
        return item.path, item.split, item.group

    tasks = []
    for (video, split, group), items in groupby(sorted(segments, key=key), key=key):
        result = []
        for number, item in enumerate(items):
            first = int(item.start * fps + 0.5) + 1
            frames = {"start": first, "end": max(first, int(item.end * fps + 0.5))}
            result.append({"id": f"s{number}", "from_name": "timeline", "to_name": "video", "type": "timelinelabels",
                           "value": {"ranges": [frames], "timelinelabels": [item.label]},
                           "meta": {"seconds": [round(item.start, 6), round(item.end, 6)]}})
        data = {"video": video, "fps": fps, "split": split, "group": group}
        tasks.append({"data": {name: value for name, value in data.items() if value != ""},
                      "annotations": [{"result": result}]})
    return tasks


def _address(data: Mapping[str, Any], where: str) -> str:
    texts = [text for text in (data.get("video"), *data.values()) if isinstance(text, str)]
    found = next((text for text in texts if is_video(Path(unquote(text)))), None)
    if found is None:
        raise ValueError(f"{where}: no video in its data ({', '.join(data)})")
    return unquote(found)


# ---- names and values ----------------------------------------------------------------------------------------------


class _Names:
    """Finds the videos of a folder by the names that other tools give them; ``missing`` are those not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: list[str] = []
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for path in filter(is_video, walk_files(folder)):
            inside = path.relative_to(folder).as_posix()
            self._by_name.setdefault(path.name, []).append(inside)
            self._by_stem.setdefault(path.stem, []).append(inside)

    def of_id(self, path: str, name: str) -> str:
        """``path``, where tinyaction wrote the file, else the video of that name, as NAME.mp4 or v_NAME.mp4."""
        return self._first([path] if path else [], self._by_stem, [name, f"v_{name}"], path or f"{name}.mp4")

    def of_address(self, address: str) -> str:
        """Addresses of uploads have eight digits before the name: /data/upload/1/3d3ad63e-a.mp4."""
        address = address.partition("?d=")[2] or address
        name = address.rpartition("/")[2]
        plain = re.sub("^[0-9a-f]{8}-", "", name)
        is_own = not address.startswith("/") and "://" not in address
        return self._first([address], self._by_name, [name, plain], address if is_own else plain)

    def _first(self, paths: list[str], known: dict[str, list[str]], keys: list[str], default: str) -> str:
        for path in paths:
            if path and not path.startswith("/") and (self.folder / path).is_file():
                return path
        found = next((known[key] for key in keys if key in known), [])
        if len(found) > 1:
            raise ValueError(f"{self.folder}: {found[0]} and {found[1]} could both be {keys[0]!r}; keep one of them")
        if not found and default not in self.missing:
            self.missing.append(default)
        return found[0] if found else default


def _get(entry: Any, key: str, kind: Any, where: str) -> Any:
    """The value of a key; ValueError where it is missing or of another kind."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or value is None or value == "":
        found = f"{value!r:.60}" if isinstance(entry, dict) and key in entry else "missing"
        raise ValueError(f"{where}: {key!r} is {found}; is this a file of another version?")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"{where}: the time {value!r} is no number")
    return float(value)


def _range(first: Any, last: Any, where: str) -> tuple[float, float]:
    start, end = _number(first, where), _number(last, where)
    if not 0 <= start < end:
        raise ValueError(f"{where}: the segment starts at {first} and ends at {last}; it must start at 0 or later and "
                         "end after it starts")
    return start, end
