"""The page and the pictures of a run: what happened, what the model saw, and where it is wrong.

    report.html        everything below in one file that needs no other; opens from disk, in light and dark
    train_clips.png    training clips as the network sees them, after augmentation
    mistakes.png       the validation videos that it gets wrong, the most confident first
    right.png          the ones that it gets right, the least confident first
    curves.png, confusion.png, classes.png    the charts, where matplotlib is installed

All but the sheets of clips comes from files of the run folder, so a report can be made again at any time; the sheets
read their few videos anew, through the pipelines that the run used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyaction.data.dataset import VideoDataset
from tinyaction.results import plots
from tinyaction.results.charts import (
    Series,
    class_bars,
    confusion_chart,
    isolated,
    line_chart,
    shortened,
    stacked_bars,
)
from tinyaction.results.metrics import confusion_matrix
from tinyaction.results.run import Run, read_run, usage_lines
from tinyaction.results.sheets import Strip, clip_frames, data_uri, draw_sheet, write_png
from tinyaction.video.frames import FORMATS

NUM_TRAIN_CLIPS = 8
NUM_MISTAKES = 16
NUM_RIGHT = 6


def write_report(
    folder: str | Path, *, train_set: VideoDataset | None = None, val_set: VideoDataset | None = None, notice: str = ""
) -> Path:
    """Write the report of a run folder, over an older one, and return the path of ``report.html``.

    Args:
        folder: a run folder with ``config.json`` and ``metrics.csv``; also of a run that is not finished.
        train_set: the run's training videos with its augmentation; without it there is no sheet of training clips.
        val_set: its validation videos; without it there are no sheets of mistakes and right ones.
        notice: a warning that stands on the page and on every picture, as that of stand-in data.

    Raises:
        ValueError: the folder is no run, or a file in it is damaged.
        OSError: the folder cannot be written.
    """
    run = read_run(folder)
    sheets = [_mistakes(run, val_set), _right(run, val_set), _train_clips(run, train_set)]
    for sheet in sheets:
        path = run.folder / f"{sheet.name}.png"
        path.unlink(missing_ok=True)  # an older report's, which this one may have nothing for
        if sheet.strips:
            write_png(path, draw_sheet(f"{sheet.title}, {run.folder.name}", sheet.strips, notice=notice))
    if plots.plots_available():
        _write_plots(run, notice)
    page = run.folder / "report.html"
    page.write_text(_page(run, sheets, notice), encoding="utf-8", errors="backslashreplace")
    return page


# ---- sheets --------------------------------------------------------------------------------------------------------


NOT_AT_HAND = "The videos were not at hand when this page was made; tinyaction report RUN --data FOLDER adds them."


@dataclass
class Sheet:
    """Clips under one heading; ``said`` is a sentence about them, ``lost`` the videos that could not be read."""

    name: str
    title: str
    said: str
    strips: list[Strip] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def add(self, dataset: VideoDataset | None, caption: str, filename: str, *, epoch: int = 0,
            index: int | None = None) -> None:
        """Read a video through the dataset's pipeline and add its strip; one that cannot be read is named instead."""
        if dataset is None:
            self.lost = [NOT_AT_HAND]
            return
        if index is None:
            index = _find(dataset, filename)
        if index is None:
            self.lost.append(f"{filename}: not among the {len(dataset)} videos of {dataset.videos.source}")
            return
        try:
            inputs = dataset[epoch, index]["inputs"]                   # (V, C, T, H, W)
        except (ValueError, OSError) as error:  # VideoError too; each begins with the file's name
            self.lost.append(str(error))
            return
        self.strips.append(Strip(clip_frames(inputs), caption, "/".join(Path(filename).parts[-2:])))


def _find(dataset: VideoDataset, filename: str) -> int | None:
    """Its place in the list; where the videos have moved or lie in a frame store, by the names of file and folder."""
    names = [dataset.videos[i][0] for i in range(len(dataset))]
    if filename in names:
        return names.index(filename)
    ends = [_end(name) for name in names]
    return ends.index(_end(filename)) if ends.count(_end(filename)) == 1 else None


def _end(filename: str) -> tuple[str, ...]:
    """The names of the folder and of the video, without what a frame store puts after it."""
    path = Path(filename)
    return (path.with_suffix("") if path.suffix in FORMATS.values() else path).parts[-2:]


def _mistakes(run: Run, val_set: VideoDataset | None) -> Sheet:
    wrong = sorted((one for one in run.predictions if one.predicted != one.label), key=lambda one: -one.score)
    sheet = Sheet("mistakes", "Most confident mistakes", f"Wrong: {len(wrong)} of {len(run.predictions)} validation "
                  "videos. ")
    if len(wrong) > NUM_MISTAKES:
        sheet.said += f"These {NUM_MISTAKES} have the highest scores. "
    if wrong:
        sheet.said += "Look for a wrong label, an action between the frames, a background that two classes share."
    for one in wrong[:NUM_MISTAKES]:
        caption = (f"predicted {_name(run, one.predicted)} {one.score:.2f}, true {_name(run, one.label)} "
                   f"{one.label_score:.2f}")
        sheet.add(val_set, caption, one.filename)
    return sheet


def _right(run: Run, val_set: VideoDataset | None) -> Sheet:
    right = sorted((one for one in run.predictions if one.predicted == one.label), key=lambda one: one.score)
    sheet = Sheet("right", "Right, but least sure", "The validation videos that it gets right with the lowest scores.")
    for one in right[:NUM_RIGHT]:
        sheet.add(val_set, f"{_name(run, one.label)} {one.score:.2f}", one.filename)
    return sheet


def _train_clips(run: Run, train_set: VideoDataset | None) -> Sheet:
    """Training videos of as many classes as there is room for, in the random draw of the last epoch."""
    epoch = int(run.history[-1]["epoch"]) - 1
    sheet = Sheet("train_clips", "Training clips as the network sees them",
                  "Sampled, cropped and mirrored as in the last epoch. Look here first where training does not work: "
                  "can you tell the classes apart on these frames?")
    if train_set is None:
        sheet.said = NOT_AT_HAND
        return sheet
    for index in _spread_over_classes(train_set.videos.labels, NUM_TRAIN_CLIPS):
        filename, label = train_set.videos[index]
        sheet.add(train_set, _name(run, label), filename, epoch=epoch, index=index)
    return sheet


def _name(run: Run, label: int) -> str:
    return isolated(shortened(run.class_names[label], 48))


def _spread_over_classes(labels: npt.NDArray[np.int64], num_videos: int) -> list[int]:
    """The first video of each class, then the second of each, and so on, put in the order of classes."""
    order = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    chosen = np.lexsort((labels, rank))[:num_videos]
    return [int(index) for index in chosen[np.lexsort((rank[chosen], labels[chosen]))]]


# ---- numbers -------------------------------------------------------------------------------------------------------


def wilson_interval(num_right: int, num_videos: int, *, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share: what other videos of the same kind might have given.

        9 of 10  ->  0.60 to 0.98        900 of 1000  ->  0.88 to 0.92

    Source: Wilson 1927.
    """
    share, n = num_right / num_videos, num_videos
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _matrix(run: Run) -> npt.NDArray[np.int64]:
    return confusion_matrix([one.predicted for one in run.predictions], [one.label for one in run.predictions],
                            num_classes=len(run.class_names)).astype(np.int64)


def _worst_first(matrix: npt.NDArray[np.int64]) -> list[int]:
    """Classes that have videos, the least accurate first; of equal ones the larger first."""
    num_videos = matrix.sum(axis=1)
    shares = np.diag(matrix) / np.maximum(num_videos, 1)
    return [int(label) for label in np.lexsort((-num_videos, shares)) if num_videos[label]]


def _column(run: Run, name: str) -> list[float]:
    return [row.get(name, math.nan) for row in run.history]


def _curves(run: Run) -> list[tuple[str, list[Series]]]:
    return [
        ("loss", [Series("training", _column(run, "train_loss"), "train"),
                  Series("validation", _column(run, "val_loss"), "val")]),
        ("accuracy", [Series("training", _column(run, "train_top1"), "train"),
                      Series("validation", _column(run, "val_top1"), "val")]),
    ]


def _write_plots(run: Run, notice: str) -> None:
    name = run.folder.name
    epochs = [int(row["epoch"]) for row in run.history]
    plots.plot_curves(run.folder / "curves.png", epochs, _curves(run), name, notice)
    if run.predictions:
        matrix = _matrix(run)
        worst = _worst_first(matrix)
        shares = [matrix[label, label] / matrix[label].sum() for label in worst]
        plots.plot_confusion(run.folder / "confusion.png", matrix, run.class_names, f"confusion, {name}", notice)
        plots.plot_classes(run.folder / "classes.png", [run.class_names[label] for label in worst], shares,
                           f"accuracy per class, {name}", notice)


# ---- page ----------------------------------------------------------------------------------------------------------


def _page(run: Run, sheets: Sequence[Sheet], notice: str) -> str:
    banner = f'<p class="notice">{escape(notice)}</p>' if notice else ""
    body = "".join([
        f"<header><h1>{escape(run.folder.name)}</h1><p>{escape(_subtitle(run))}</p></header>",
        banner,
        _tiles(run),
        _curve_section(run),
        _class_section(run),
        "".join(_sheet_section(sheet) for sheet in sheets if run.predictions or sheet.strips),
        _use_section(run),
        _config_section(run),
        _footer(run),
    ])
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(run.folder.name)} · tinyaction</title><style>{STYLE}</style></head>\n"
            f"<body><main>{body}</main></body></html>\n")


def _subtitle(run: Run) -> str:
    config = run.config
    return (f"{config.get('model')} on {config.get('data')}: {config.get('clip_len')} frames of "
            f"{config.get('size')}x{config.get('size')}, {len(run.class_names)} classes, "
            f"{config.get('num_train')} training and {config.get('num_val')} validation videos")


def _tiles(run: Run) -> str:
    waiting, computing = (np.nansum(_column(run, name)) for name in ("seconds_waiting", "seconds_computing"))
    tiles = []
    best = run.best
    if run.predictions:
        num_right = sum(one.predicted == one.label for one in run.predictions)
        low, high = wilson_interval(num_right, len(run.predictions))
        tiles.append((f"{num_right / len(run.predictions):.1%}", "validation accuracy",
                      f"{num_right} of {len(run.predictions)} videos; so few videos leave it between {low:.0%} and "
                      f"{high:.0%}" if high - low > 0.1 else f"{num_right} of {len(run.predictions)} videos; 95 % "
                      f"interval {low:.1%} to {high:.1%}"))
    tiles.append((f"{best['val_mean_class']:.1%}", "mean over classes", "each class counts the same"))
    if "val_top5" in best:
        tiles.append((f"{best['val_top5']:.1%}", "top-5", "the class is among the five highest scores"))
    tiles.append((f"{best['epoch']:.0f} of {len(run.history)}", "best epoch",
                  "chosen on these same videos, so its accuracy flatters a little"))
    if waiting + computing > 0:
        tiles.append((_duration(waiting + computing), "in all", f"{waiting / (waiting + computing):.0%} of it waiting "
                      "for videos" + ("; more --num-workers or a smaller --size would help" if
                                      waiting > computing else "")))
    cells = "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span><small>{escape(text)}</small>'
                    "</div>" for value, name, text in tiles)
    return f'<section class="tiles">{cells}</section>'


def _curve_section(run: Run) -> str:
    epochs = [int(row["epoch"]) for row in run.history]
    (loss_label, losses), (accuracy_label, accuracies) = _curves(run)
    times = [Series("computing", _column(run, "seconds_computing"), "computing"),
             Series("waiting for videos", _column(run, "seconds_waiting"), "waiting")]
    return ('<section><h2>Training</h2><div class="charts">'
            + line_chart(epochs, losses, label=loss_label, lowest=0)
            + line_chart(epochs, accuracies, label=accuracy_label, lowest=0, highest=1)
            + stacked_bars(epochs, times, label="seconds an epoch")
            + "</div></section>")


def _class_section(run: Run) -> str:
    if not run.predictions:
        return ("<section><h2>Classes</h2><p>There is no predictions.csv in this run folder, so nothing is known of "
                "single videos.</p></section>")
    matrix = _matrix(run)
    worst = _worst_first(matrix)
    bars = class_bars([run.class_names[label] for label in worst], [int(matrix[label, label]) for label in worst],
                      [int(matrix[label].sum()) for label in worst])
    return (f'<section><h2>Confusion</h2><p>Row: true class. Column: predicted class. '
            "Blue is right, orange is wrong, stronger is a larger share of the row; point at a cell for its names.</p>"
            f'<div class="pair"><div class="scroll">{confusion_chart(matrix, run.class_names)}</div>'
            f"<div>{_confused_pairs(run, matrix)}</div></div></section>"
            f"<section><h2>Accuracy per class</h2>{bars}</section>")


def _confused_pairs(run: Run, matrix: npt.NDArray[np.int64]) -> str:
    wrong = matrix - np.diag(np.diag(matrix))
    places = [place for place in np.argsort(-wrong, axis=None, kind="stable")[:8] if wrong.flat[place] > 0]
    if not places or len(run.class_names) == 2:
        return ""
    items = []
    for place in places:
        true, predicted = divmod(int(place), len(run.class_names))
        items.append(f"<li>{escape(isolated(run.class_names[true]))} → "
                     f"{escape(isolated(run.class_names[predicted]))}: "
                     f"{wrong[true, predicted]} of {matrix[true].sum()}</li>")
    return f"<h3>Most confused (true → predicted)</h3><ul>{''.join(items)}</ul>"


def _sheet_section(sheet: Sheet) -> str:
    strips = "".join(
        f'<article class="strip"><h3>{escape(strip.caption)} <small>{escape(strip.note)}</small></h3>'
        '<div class="frames">'
        + "".join(f'<img alt="frame {number} of {len(strip.frames)}" src="{data_uri(frame)}">'
                  for number, frame in enumerate(strip.frames, start=1))
        + "</div></article>"
        for strip in sheet.strips
    )
    lost = "".join(f"<li>{escape(line)}</li>" for line in sheet.lost)
    lost = f"<p>Not shown:</p><ul>{lost}</ul>" if lost else ""
    return f"<section><h2>{escape(sheet.title)}</h2><p>{escape(sheet.said)}</p>{strips}{lost}</section>"


def _use_section(run: Run) -> str:
    example = run.predictions[0].filename if run.predictions else "clip.mp4"
    lines = "\n".join(usage_lines(run.folder, run.config["data"], example))
    return f"<section><h2>Use it</h2><pre>{escape(lines)}</pre></section>"


def _config_section(run: Run) -> str:
    rows = []
    for name, value in run.config.items():
        if name == "class_names":
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key} {word}" for key, word in value.items())
        rows.append(f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>")
    return f'<section><h2>Configuration</h2><table class="config">{"".join(rows)}</table></section>'


def _footer(run: Run) -> str:
    text = f"Made from the files of this folder; make it again with: tinyaction report {run.folder}"
    if not plots.plots_available():
        text += (". The charts as PNG files (curves.png, confusion.png, classes.png) need matplotlib: "
                 "pip install 'tinyaction[plots]', then make it again")
    return f"<footer>{escape(text)}.</footer>"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


STYLE = """
:root { color-scheme: light dark; --page: #f7f7f5; --card: #fff; --ink: #1b1b1a; --soft: #5f5e5a; --line: #e2e1dc;
  --train: #2a78d6; --val: #d9622b; --right: #2a78d6; --wrong: #d9622b; --warn: #fdf0d5; --warnink: #6b4100; }
@media (prefers-color-scheme: dark) {
  :root { --page: #161615; --card: #1f1f1e; --ink: #f1f0ec; --soft: #b0afa8; --line: #3a3937;
    --train: #5b9ff0; --val: #ee8450; --right: #3f86dd; --wrong: #d9622b; --warn: #43330f; --warnink: #ffe1a6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 20px 16px 40px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 19px; margin: 0 0 10px; }
h3 { font-size: 15px; margin: 14px 0 6px; }
header p { color: var(--soft); margin: 4px 0 16px; }
h1, h2, h3, p, li, td, small { overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 16px; margin: 0 0 16px;
}
small, footer { color: var(--soft); font-size: 13px; font-weight: normal; }
footer { overflow-wrap: anywhere; }
.notice { background: var(--warn); color: var(--warnink); border-radius: 8px; padding: 12px 16px; font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 16px; }
.tile b { display: block; font-size: 26px; } .tile span { display: block; font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 16px; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: 4px; }
.key { font-weight: normal; color: var(--soft); font-size: 13px; margin-right: 14px; white-space: nowrap; }
.key i { display: inline-block; width: 12px; height: 3px; vertical-align: middle; margin-right: 5px; }
.chart { display: block; width: 100%; max-width: 560px; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); } svg .tick { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--line); } .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.train { stroke: var(--train); } .line.val { stroke: var(--val); }
.dot.train, .bar.computing { fill: var(--train); } .dot.val, .bar.waiting { fill: var(--val); }
i.train, i.computing { background: var(--train); } i.val, i.waiting { background: var(--val); }
.over { fill: transparent; } .over:hover { fill: var(--ink); fill-opacity: 0.06; }
.pair { display: flex; flex-wrap: wrap; gap: 8px 40px; } .pair > * { min-width: 0; max-width: 100%; }
.scroll { overflow-x: auto; } .matrix { display: block; } svg .rowname { font: 11px ui-monospace, monospace; }
details { margin-top: 10px; } summary { cursor: pointer; }
.ground { fill: var(--page); } .cell.right { fill: var(--right); } .cell.wrong { fill: var(--wrong); }
svg .count.strong { fill: #fff; }
.classes { columns: 2 420px; column-gap: 32px; }
.class { display: grid; grid-template-columns: minmax(0, 5fr) minmax(60px, 4fr) 76px; gap: 10px; align-items: center;
  break-inside: avoid; padding: 3px 0; font-size: 14px; }
.class .name { overflow-wrap: anywhere; } .class .value { color: var(--soft); text-align: right; }
.track { display: block; height: 10px; border-radius: 3px; background: var(--line); overflow: hidden; }
.fill { display: block; height: 100%; background: var(--train); }
.frames { display: grid; grid-template-columns: repeat(8, 1fr); gap: 2px; max-width: 1040px; }
.frames img { display: block; width: 100%; height: auto; }
@media (max-width: 640px) { .frames { grid-template-columns: repeat(4, 1fr); } }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; }
.config { border-collapse: collapse; width: 100%; font-size: 14px; }
.config th { text-align: left; font-weight: normal; color: var(--soft); padding: 3px 16px 3px 0; vertical-align: top;
  white-space: nowrap; } .config td { padding: 3px 0; width: 100%; }
"""
