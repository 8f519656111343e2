"""What predict and evaluate do with a checkpoint of ``--task timeline``."""

import argparse
import csv
import io
import json
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from tinyaction.cli import say
from tinyaction.cli.progress import CountLine
from tinyaction.data.long_videos import BACKGROUND, LongVideo, find_segments_file, read_long_videos
from tinyaction.files import write_whole
from tinyaction.inference.overlay import with_label
from tinyaction.inference.sources import list_videos
from tinyaction.inference.timeline import write_segments, write_subtitles
from tinyaction.models.unknown import UNKNOWN
from tinyaction.results.run import RunFolder
from tinyaction.results.sheets import write_png
from tinyaction.results.timeline import TimelinePredictor, true_segments
from tinyaction.results.timeline_metrics import Segment, timeline_metrics
from tinyaction.results.timeline_picture import clock, draw_bands
from tinyaction.results.timeline_report import leave_timelines, unknown_lines, write_timeline_report
from tinyaction.text import counted, printable, to_cell
from tinyaction.training.identity import fingerprint_of_segments, origin
from tinyaction.video import open_video
from tinyaction.video.writer import VideoFile

COLUMNS = ("source", "start_seconds", "end_seconds", "class", "score")


def check_flags(arguments: argparse.Namespace, *names: str) -> None:
    """Raise ValueError for flags, as they are named in Python, that a model of timelines would pass over."""
    for name in names:
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} does not go with a model of timelines, which has the steps "
                             "and clips of its run; leave it out")


def predict_timelines(arguments: argparse.Namespace) -> int:
    """Find the segments of videos and show or write them; a file of a folder that cannot be read is told."""
    check_flags(arguments, "window", "stride", "num_clips", "seconds")
    cameras = [source for source in arguments.sources if source.isdigit() and not Path(source).exists()]
    if cameras:
        raise ValueError(f"{cameras[0]}: a timeline is of a video file, not of a camera")
    videos = [str(video) for source in arguments.sources for video in list_videos(source) or [source]]
    predictor = TimelinePredictor(arguments.checkpoint, device=arguments.device,
                                  tells_unknown=not arguments.no_unknown)
    found: dict[str, list[Segment]] = {}
    failures = 0
    count = CountLine()
    for video in videos:
        try:
            timeline = predictor(video, on_piece=lambda done, total: count("pieces", done, total))
        except (ValueError, OSError) as error:
            if not arguments.many:
                raise
            failures += 1
            say(f"error: {error}", file=sys.stderr)
            continue
        segments = found[video] = timeline.segments()
        if "-" not in (arguments.csv, arguments.json):
            count.print(f"{video}: {counted(len(segments), 'segment')} in {clock(timeline.duration)}")
            for one in segments:
                print(printable(segment_line(one)), flush=True)
        write_subtitle_files(arguments, segments)
        if arguments.timeline:
            names = [name for name in predictor.checkpoint.class_names if name != BACKGROUND]
            names += [UNKNOWN] if predictor.unknown else []
            write_segments(arguments.timeline, segments)
            bands = [(name, [one for one in segments if one.label == name]) for name in names]
            write_png(Path(arguments.timeline).with_suffix(".png"),
                      draw_bands(Path(video).name, bands, names, seconds=timeline.duration))
        if arguments.overlay:
            write_overlay(arguments, video, segments)
    count.clear()
    if found:
        write_rows(arguments, found)
    return 2 if failures else 0


def segment_line(one: Segment) -> str:
    return (f"{clock(one.start_seconds):>9} - {clock(one.end_seconds):<9} {'#' * round(10 * one.score):<10}  "
            f"{one.label} {one.score:.3f}")


def write_rows(arguments: argparse.Namespace, found: dict[str, list[Segment]]) -> None:
    """All segments as CSV, as JSON lines, or both: to the screen or into a file."""
    rows = [(video, round(one.start_seconds, 3), round(one.end_seconds, 3), one.label, round(one.score, 6))
            for video, segments in found.items() for one in segments]
    if arguments.csv:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        shown = printable if arguments.csv == "-" and sys.stdout.isatty() else str
        writer.writerows((to_cell(shown(video)), *times, to_cell(label), score)
                         for video, *times, label, score in rows)
        _write(arguments.csv, text.getvalue())
    if arguments.json:
        lines = (json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=arguments.json == "-") for row in rows)
        _write(arguments.json, "".join(f"{line}\n" for line in lines))


def _write(path: str, text: str) -> None:
    if path == "-":
        print(text, end="")
    else:
        write_whole(path, text)


def write_subtitle_files(arguments: argparse.Namespace, segments: Sequence[Segment]) -> None:
    for path in (arguments.srt, arguments.vtt):
        if path:
            write_subtitles(path, segments)


def write_overlay(arguments: argparse.Namespace, source: str, segments: Sequence[Segment]) -> None:
    """The video with the labels of each moment drawn on."""
    reader = open_video(source)
    ahead, active = deque(sorted(segments, key=lambda one: one.start_seconds)), list[Segment]()
    with VideoFile(arguments.overlay, fps=reader.fps or 25.0, replace=arguments.force) as video:
        for seconds, frame in zip(reader.seconds.tolist(), reader.read(range(len(reader))), strict=True):
            while ahead and ahead[0].start_seconds <= seconds:
                active.append(ahead.popleft())
            active = [one for one in active if seconds < one.end_seconds]
            text = ", ".join(f"{one.label} {one.score:.2f}" for one in active)
            video.write(with_label(frame, text) if text else frame)
    say(f"{video.path}: {video.players}", file=sys.stderr)


def evaluate_timelines(arguments: argparse.Namespace, command: str) -> list[str]:
    """The figures of a checkpoint on the uncut videos of a folder, as lines; with ``--out`` a folder with a page."""
    check_flags(arguments, "classes", "num_crops", "num_clips", "max_views")
    if arguments.compare:
        raise ValueError("--compare is for clips; leave it out with --task timeline")
    if not arguments.checkpoint:
        raise ValueError("--task timeline measures a run of --task timeline; name its folder with --checkpoint")
    predictor = TimelinePredictor(arguments.checkpoint, device=arguments.device)
    path = find_segments_file(arguments.data)
    videos = chosen_videos(arguments, path, predictor)
    count, timelines = CountLine(), []
    for number, video in enumerate(videos, start=1):
        timelines.append(predictor(video.path))
        count("videos", number, len(videos))
    true = list(map(true_segments, videos))
    count.print(f"{counted(len(videos), 'video')}, {counted(sum(map(len, true)), 'segment')}")
    if not arguments.out:
        metrics = timeline_metrics([timeline.actions() for timeline in timelines], true,
                                   [timeline.duration for timeline in timelines])
        return [*metrics.lines(), *unknown_lines(timelines)]
    config, pipeline = predictor.checkpoint.config, predictor.checkpoint.eval_pipeline
    run = RunFolder(arguments.out)
    try:
        metrics = leave_timelines(run, {
            "task": "timeline", "evaluated": arguments.checkpoint, "command": command, "data": arguments.data,
            "split": arguments.split or "", "model": predictor.checkpoint.model.get("name"),
            "weights": config.get("weights") or "", "clip_len": pipeline["clip_len"], "size": pipeline["size"],
            "stride": predictor.model.stride_seconds, "min_score": predictor.model.min_score,
            "class_names": predictor.checkpoint.class_names, "num_val": len(videos),
            **origin(fingerprint_of_segments(videos, path.parent))}, timelines, true)
        lines = [*metrics.lines(), *unknown_lines(timelines)]
        for line in lines:
            run.log(line)
        return [*lines, printable(f"report: {write_timeline_report(run.path)}")]
    finally:
        run.close()


def chosen_videos(arguments: argparse.Namespace, path: Path, predictor: TimelinePredictor) -> list[LongVideo]:
    """The videos of the split that was asked for; ValueError where there is none, or a class is not known."""
    found = read_long_videos(path, overlaps=predictor.model.temporal.overlaps, allow_outside=arguments.allow_outside)
    videos = found.get(arguments.split or "val") or found.get("")
    if not videos:
        raise ValueError(f"{path}: no video of the split {arguments.split or 'val'}; it has "
                         f"{', '.join(found)}: name one with --split")
    known = predictor.checkpoint.class_names
    for item in (item for video in videos for item in video.segments):
        if item.label not in known:
            raise ValueError(f"{item.where}: the class {item.label!r} is none of the checkpoint, which knows "
                             f"{', '.join(known[:8])}")
    return videos
