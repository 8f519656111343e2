"""The report of a run of ``--task timeline``: figures, curves, and what is told beside what is true."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from tinyaction.files import write_whole
from tinyaction.results.page import html_page, section, table
from tinyaction.results.plots import Series, line_chart
from tinyaction.results.run import read_run
from tinyaction.results.sheets import write_png
from tinyaction.results.timeline import Timeline
from tinyaction.results.timeline_metrics import NAMES, Segment
from tinyaction.results.timeline_picture import draw_bands

PICTURE = "timelines.png"
MOST_VIDEOS = 8  # on the picture
MOST_SECONDS = 300.0  # of each


def draw_comparison(
    path: Path, timelines: Sequence[Timeline], predicted: Sequence[Sequence[Segment]],
    true: Sequence[Sequence[Segment]], class_names: Sequence[str],
) -> None:
    """Write a picture of the begin of some videos: what is true, and below it what is told."""
    bands: list[tuple[str, Sequence[Segment]]] = []
    for timeline, told, real in list(zip(timelines, predicted, true, strict=True))[:MOST_VIDEOS]:
        bands += [("", []), (f"{Path(timeline.source).stem}, true", real), ("told", told)]
    seconds = min(MOST_SECONDS, max(timeline.duration for timeline in timelines[:MOST_VIDEOS]))
    write_png(path, draw_bands("Validation videos", bands[1:], class_names, seconds=seconds))


def write_timeline_report(folder: str | Path) -> Path:
    """Write ``report.html`` from the files of a run folder; raises as :func:`tinyaction.results.run.read_run`."""
    run = read_run(folder)
    config, figures = run.config, run.config["timeline"]
    rows = [[NAMES.get(name, name), "-" if value is None else f"{value:.3f}"] for name, value in figures.items()]
    epochs = [int(row["epoch"]) for row in run.history]
    curves = "".join(line_chart(epochs, [Series("training", [row[f"train_{name}"] for row in run.history], "train"),
                                         Series("validation", [row[f"val_{name}"] for row in run.history], "val")],
                                label=label, lowest=0, highest=highest, best=int(run.best["epoch"]))
                     for name, label, highest in (("loss", "loss", None), ("top1", "accuracy of steps", 1.0)))
    picture = run.folder / PICTURE
    image = f"<p>{PICTURE} is missing.</p>"
    if picture.is_file():
        content = base64.b64encode(picture.read_bytes()).decode("ascii")
        image = f'<img alt="true and told segments" src="data:image/png;base64,{content}">'
    subtitle = (f"timeline of {config['model']} on {config['data']}: {config['clip_len']} frames of "
                f"{config['size']}x{config['size']} every {config['stride']:g} s, {len(run.class_names)} classes, "
                f"{config['num_train']} training and {config['num_val']} validation videos")
    body = "".join([
        f"<header><h1>{escape(run.folder.name)}</h1><p>{escape(subtitle)}</p></header>",
        section("True and told", f'<div class="scroll">{image}</div>'),
        section("Figures of the validation videos", "<p>The best epoch was chosen on these videos, so the figures "
                "flatter a little. F1@50: actions found with an overlap of 50 %; background is no action.</p>"
                + table(["figure", "value"], rows)),
        section("Training", f'<div class="charts">{curves}</div>'),
    ])
    page = run.folder / "report.html"
    write_whole(page, html_page(run.folder.name, body).encode("utf-8", errors="backslashreplace"))
    return page
