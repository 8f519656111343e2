"""The folder of a run, or of an evaluation, of ``--task timeline``.

    config.json      as of every run; the figures of the validation videos are "timeline" in it
    metrics.csv      of a run a row an epoch, of an evaluation one row with the figures
    timelines.csv    what is true and what is told: a row a video, with its length, and a row a segment
    report.html      all of it to look at
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tinyaction.files import write_whole
from tinyaction.models.unknown import UNKNOWN
from tinyaction.results.page import facts_section, html_page, origin_section, section, table
from tinyaction.results.plots import Series, line_chart
from tinyaction.results.run import Run, RunFolder, read_run, read_table_rows
from tinyaction.results.timeline import Timeline
from tinyaction.results.timeline_metrics import NAMES, Segment, TimelineMetrics, timeline_metrics
from tinyaction.results.tracks import TrackedVideo, tracks_section
from tinyaction.text import counted, from_cell, shell_line, to_cell

TABLE = "timelines.csv"
COLUMNS = ("source", "kind", "start_seconds", "end_seconds", "class", "score")  # kind: video, true or predicted
OF_OTHER_SECTIONS = ("command", "date", "versions", "data_fingerprint", "timeline", "class_names")


def leave_timelines(
    run: RunFolder, facts: Mapping[str, Any], timelines: Sequence[Timeline], true: Sequence[Sequence[Segment]]
) -> TimelineMetrics:
    """Measure timelines; write ``config.json``, with ``facts``, ``timelines.csv``, of evaluations ``metrics.csv``."""
    videos = [TrackedVideo(timeline.source, timeline.duration, list(real), timeline.segments())
              for timeline, real in zip(timelines, true, strict=True)]
    metrics = timeline_metrics([timeline.actions() for timeline in timelines], true,
                               [video.duration for video in videos])
    run.write_config({**facts, "timeline": {
        name: value if math.isfinite(value) else None for name, value in metrics.as_dict().items()}})
    if "evaluated" in facts:
        figures = {"epoch": 0.0, **metrics.as_dict()}
        _write(run.path / "metrics.csv", [list(figures), [f"{value:.6g}" for value in figures.values()]])
    rows: list[Sequence[Any]] = [COLUMNS]
    for video in videos:
        source = to_cell(video.source)
        rows.append((source, "video", 0, round(video.duration, 3), "", ""))
        for kind, segments in (("true", video.true), ("predicted", video.told)):
            rows += [(source, kind, round(one.start_seconds, 3), round(one.end_seconds, 3), to_cell(one.label),
                      "" if kind == "true" else round(one.score, 6)) for one in segments]
    _write(run.path / TABLE, rows)
    return metrics


def _write(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_whole(path, text.getvalue())


def unknown_lines(timelines: Sequence[Timeline]) -> list[str]:
    """How many segments are told unknown, where that may be told."""
    if not any(timeline.unknown for timeline in timelines):
        return []
    num_told, num_actions = (sum(map(len, parts)) for parts in zip(
        *((timeline.segments(), timeline.actions()) for timeline in timelines), strict=True))
    return [f"unknown: {num_told - num_actions} of {counted(num_told, 'told segment')}; they count as nothing told"]


def usage_lines(folder: Path, data: str, example: str) -> list[str]:
    """The commands that evaluate the best weights, and find the segments of a video."""
    checkpoint = folder / "best.pt"
    return ["evaluate: " + shell_line("tinyaction", "evaluate", "--task", "timeline", "--data", data,
                                      "--checkpoint", checkpoint),
            "predict:  " + shell_line("tinyaction", "predict", example, "--checkpoint", checkpoint)]


def read_timelines(path: Path) -> list[TrackedVideo]:
    """The videos of a ``timelines.csv``; ValueError names the file and the line."""
    found: dict[str, TrackedVideo] = {}

    def add(row: dict[str, str]) -> None:
        source, start, end = from_cell(row["source"]), float(row["start_seconds"]), float(row["end_seconds"])
        if row["kind"] == "video":
            found[source] = TrackedVideo(source, end, [], [])
            return
        segments = {"true": found[source].true, "predicted": found[source].told}[row["kind"]]
        segments.append(Segment(start, end, from_cell(row["class"]), float(row["score"] or 1)))

    read_table_rows(path, COLUMNS, add)
    return list(found.values())


def write_timeline_report(folder: str | Path) -> Path:
    """Write ``report.html`` from the files of a run folder; raises as :func:`tinyaction.results.run.read_run`."""
    run = read_run(folder)
    config = run.config
    rows = [[NAMES.get(name, name), "-" if value is None else f"{value:.3f}"]
            for name, value in config["timeline"].items()]
    if (run.folder / TABLE).is_file():
        videos = read_timelines(run.folder / TABLE)
        tracks = tracks_section(videos, _actions(run, videos), run.folder)
        example = videos[0].source
    else:  # of an earlier version
        tracks, example = section("True and predicted", f"<p>{TABLE} is missing.</p>"), "long.mp4"
    flatters = "" if run.is_evaluation else (
        "The best epoch was chosen on these videos, so the figures flatter a little. ")
    body = "".join([
        f"<header><h1>{escape(run.folder.name)}</h1><p>{escape(_subtitle(run))}</p></header>",
        section("Figures", f"<p>{flatters}F1@50: actions found with an overlap of 50 %; background is no action.</p>"
                + table(["figure", "value"], rows)),
        tracks,
        "" if run.is_evaluation else _curve_section(run),
        "" if run.is_evaluation else section("Use it", "<pre>{}</pre>".format(escape("\n".join(
            usage_lines(run.folder, config["data"], example))))),
        origin_section(config),
        facts_section("Configuration", {name: value for name, value in config.items()
                                        if name not in OF_OTHER_SECTIONS}),
    ])
    page = run.folder / "report.html"
    write_whole(page, html_page(run.folder.name, body).encode("utf-8", errors="backslashreplace"))
    return page


def _actions(run: Run, videos: Sequence[TrackedVideo]) -> list[str]:
    """The classes that are true or told somewhere, in the order of the run."""
    found = {one.label for video in videos for one in (*video.true, *video.told)}
    return [name for name in dict.fromkeys((*run.class_names, UNKNOWN)) if name in found]


def _subtitle(run: Run) -> str:
    config = run.config
    num_classes = len(run.class_names)
    videos = (f"{config['num_val']} videos" if run.is_evaluation else
              f"{config['num_train']} training and {config['num_val']} validation videos")
    return (f"timeline of {config['model']} on {config['data']}: {counted(config['clip_len'], 'frame')} of "
            f"{config['size']}x{config['size']} every {config['stride']:g} s, {num_classes} classes, {videos}")


def _curve_section(run: Run) -> str:
    epochs = [int(row["epoch"]) for row in run.history]
    curves = "".join(line_chart(epochs, [Series("training", [row[f"train_{name}"] for row in run.history], "train"),
                                         Series("validation", [row[f"val_{name}"] for row in run.history], "val")],
                                label=label, lowest=0, highest=highest, best=int(run.best["epoch"]))
                     for name, label, highest in (("loss", "loss", None), ("top1", "accuracy of steps", 1.0)))
    return section("Training", f'<div class="charts">{curves}</div><p>The dotted line is the best epoch.</p>')
