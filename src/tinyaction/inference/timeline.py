"""Merge windows of a video into segments of one class."""

import csv
import io
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from tinyaction.files import write_whole
from tinyaction.inference.prediction import Window
from tinyaction.results.timeline_metrics import Segment
from tinyaction.text import to_cell


def merge_windows(windows: Sequence[Window]) -> list[Segment]:
    """Merge windows, in the order of time, into segments without gap or overlap.

    Neighbouring windows with the same class become one segment, and its score the mean of theirs; :func:`window_edges`
    says where one class ends and the next begins.

        windows   0-2 run   1-3 run   2-4 jump   ->   segments   0-2.5 run   2.5-4 jump
    """
    edges = window_edges(windows)
    segments: list[Segment] = []
    counts: list[int] = []
    for window, start, end in zip(windows, edges, edges[1:], strict=False):
        label, score = window.prediction.top(1)[0]
        if segments and segments[-1].label == label:
            last = segments[-1]
            counts[-1] += 1
            last.end_seconds = end
            last.score += (score - last.score) / counts[-1]
        else:
            segments.append(Segment(start, end, label, score))
            counts.append(1)
    return segments


def window_edges(windows: Sequence[Window]) -> list[float]:
    """The S + 1 moments between which each of S windows counts: every moment belongs to the window nearest to it.

        windows 0-2, 1-3, 2-4 with their middles 1, 2, 3   ->   0, 1.5, 2.5, 4
    """
    middles = [(window.start_seconds + window.end_seconds) / 2 for window in windows]
    between = [(a + b) / 2 for a, b in zip(middles, middles[1:], strict=False)]
    return [windows[0].start_seconds, *between, windows[-1].end_seconds]


def segment_at(segments: Sequence[Segment], seconds: float) -> Segment:
    """The segment at a moment; before the first segment the first one, after the last the last one."""
    place = bisect_right(segments, seconds, key=lambda segment: segment.start_seconds) - 1
    return segments[max(0, place)]


def write_segments(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write a CSV with the columns start_seconds, end_seconds, class, score."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("start_seconds", "end_seconds", "class", "score"))
    for segment in segments:
        writer.writerow((f"{segment.start_seconds:.3f}", f"{segment.end_seconds:.3f}", to_cell(segment.label),
                         f"{segment.score:.4f}"))
    write_whole(path, text.getvalue())


def write_subtitles(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write segments as subtitles that players show over the video: SubRip (.srt) or WebVTT (.vtt), by the suffix."""
    is_vtt = Path(path).suffix.lower() == ".vtt"
    parts = ["WEBVTT"] if is_vtt else []
    for number, one in enumerate(segments, start=1):
        times = " --> ".join(_subtitle_time(seconds, "." if is_vtt else ",")
                             for seconds in (one.start_seconds, one.end_seconds))
        label = one.label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") if is_vtt else one.label
        parts.append(f"{number}\n{times}\n{label} {one.score:.2f}")
    write_whole(path, "\n\n".join(parts) + "\n")


def _subtitle_time(seconds: float, point: str) -> str:
    """3723.5 -> 01:02:03.500"""
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
