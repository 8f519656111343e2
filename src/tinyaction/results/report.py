"""The report of a run: one page with what happened, what the model saw, and where it is wrong.

    report.html        one file that needs no other; opens from disk, in light and dark
    train_clips.png    training clips as the network sees them, after augmentation
    mistakes.png       the validation videos that it gets wrong, the most confident first
    right.png          the ones that it gets right, the least confident first

Everything but the sheets of clips comes from files of the run folder, so a report can be made again at any time. The
sheets read their few videos anew, through the pipelines that the run used.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyaction.data.dataset import VideoDataset
from tinyaction.data.segments import split_segment_name
from tinyaction.files import write_whole
from tinyaction.results.metrics import class_scores, confusion_matrix, wilson_interval
from tinyaction.results.neighbors import read_neighbors
from tinyaction.results.page import html_page, section, table
from tinyaction.results.plots import Series, class_bars, confusion_chart, isolated, line_chart, shortened, stacked_bars
from tinyaction.results.predictions_table import predictions_section, table_order
from tinyaction.results.run import TIMES, Run, end_of_name, read_run, usage_lines
from tinyaction.results.sheets import Strip, clip_frames, data_uri, draw_sheet, draw_strip, write_png
from tinyaction.results.summary import confused_pairs
from tinyaction.results.timeline_report import write_timeline_report
from tinyaction.text import from_cell, shell_line

NUM_TRAIN_CLIPS = 8
NUM_MISTAKES = 16
NUM_RIGHT = 6
NUM_SMALL_STRIPS = 60  # in the table of predictions: each is a video to decode, and about 8 KB


def write_report(
    folder: str | Path, *, train_set: VideoDataset | None = None, val_set: VideoDataset | None = None, notice: str = ""
) -> Path:
    """Write the report of a run folder, replacing an older one, and return the path of ``report.html``.

    Args:
        folder: a run folder with ``config.json`` and ``metrics.csv``; the run need not be finished.
        train_set: the run's training videos with its augmentation; without it there is no sheet of training clips.
        val_set: its validation videos; without it there are no sheets of mistakes and right ones.
        notice: a warning that stands on the page and on every picture, such as that of stand-in data.

    Raises:
        ValueError: the folder is no run folder, or a file in it is damaged.
        OSError: the folder cannot be written.
    """
    run = read_run(folder)
    if run.config.get("task") == "timeline":
        return write_timeline_report(folder)
    sheets = [_mistakes(run, val_set), _right(run, val_set), _train_clips(run, train_set)]
    for sheet in sheets:
        path = run.folder / f"{sheet.name}.png"
        path.unlink(missing_ok=True)  # an older report's picture, which this report may not have
        if sheet.strips:
            write_png(path, draw_sheet(f"{sheet.title}, {run.folder.name}", sheet.strips, notice=notice))
    page = run.folder / "report.html"
    text = _page(run, sheets, {} if val_set is None else _small_strips(run, val_set), notice)
    write_whole(page, text.encode("utf-8", errors="backslashreplace"))
    return page


# ---- sheets --------------------------------------------------------------------------------------------------------


NOT_AT_HAND = "The videos were not at hand when this page was made; tinyaction report RUN --data FOLDER adds them."


@dataclass
class Sheet:
    """Clips under one heading; ``intro`` is a sentence about them, ``lost`` the videos that could not be read."""

    name: str
    title: str
    intro: str
    num_crops: int = 1  # of each clip
    strips: list[Strip] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def add(self, dataset: VideoDataset | None, caption: str, filename: str, *, epoch: int = 0,
            index: int | None = None, note: str = "") -> None:
        """Read a video through the dataset's pipeline and add its strip; a video that cannot be read is named."""
        if dataset is None:
            self.lost = [NOT_AT_HAND]
            return
        if index is None:
            index = find_video(dataset, filename)
        if index is None:
            self.lost.append(f"{filename}: not among the {len(dataset)} videos of {dataset.videos.source}")
            return
        try:
            inputs = dataset[epoch, index]["inputs"]                   # (V, C, T, H, W)
        except (ValueError, OSError) as error:  # VideoError is a ValueError; the message begins with the file's name
            self.lost.append(str(error))
            return
        frames = clip_frames(inputs, num_crops=self.num_crops)
        notes = ["/".join(Path(filename).parts[-2:]), note]
        self.strips.append(Strip(frames, caption, "; ".join(filter(None, notes))))


def find_video(dataset: VideoDataset, filename: str) -> int | None:
    """The index of a video in the dataset, by its path, else by the names of its folder and file if only one fits."""
    names = [dataset.filename(index) for index in range(len(dataset))]
    if filename in names:
        return names.index(filename)
    ends = [end_of_name(name) for name in names]
    return ends.index(end_of_name(filename)) if ends.count(end_of_name(filename)) == 1 else None


def _mistakes(run: Run, val_set: VideoDataset | None) -> Sheet:
    wrong = sorted((one for one in run.predictions if one.predicted != one.label), key=lambda one: -one.score)
    intro = f"Wrong: {len(wrong)} of {len(run.predictions)} {'held-out' if run.folds else 'validation'} videos. "
    if len(wrong) > NUM_MISTAKES:
        intro += f"These {NUM_MISTAKES} have the highest scores. "
    if wrong:
        intro += "Look for a wrong label, an action between the frames, a background that two classes share."
    sheet = Sheet("mistakes", "Most confident mistakes", intro, run.config.get("num_crops", 1))
    neighbors = read_neighbors(run.folder / "neighbors.csv")
    for one in wrong[:NUM_MISTAKES]:
        near = ", ".join(f"{found.class_name} {found.similarity:.2f} ({Path(found.filename).name})"
                         for found in neighbors.get(one.filename, []))
        caption = (f"predicted {_name(run, one.predicted)} {one.score:.2f}, true {_name(run, one.label)} "
                   f"{one.label_score:.2f}")
        sheet.add(val_set, caption, one.filename, note=f"nearest training clips: {near}" if near else "")
    return sheet


def _right(run: Run, val_set: VideoDataset | None) -> Sheet:
    right = sorted((one for one in run.predictions if one.predicted == one.label), key=lambda one: one.score)
    sheet = Sheet("right", "Right, but least sure", "The videos that it gets right with the lowest scores.",
                  run.config.get("num_crops", 1))
    for one in right[:NUM_RIGHT]:
        sheet.add(val_set, f"{_name(run, one.label)} {one.score:.2f}", one.filename)
    return sheet


def _train_clips(run: Run, train_set: VideoDataset | None) -> Sheet:
    """Training videos of as many classes as there is room for, in the random draw of the last epoch."""
    epoch = max(0, int(run.history[-1]["epoch"]) - 1)
    sheet = Sheet("train_clips", "Training clips as the network sees them",
                  "Sampled, cropped and mirrored as in the last epoch. Look here first where training does not work: "
                  "can you tell the classes apart on these frames?")
    if train_set is None:
        sheet.intro = NOT_AT_HAND
        return sheet
    for index in spread_over_classes(train_set.videos.labels, NUM_TRAIN_CLIPS):
        filename, label = train_set.filename(index), train_set.videos[index][1]
        if filename in run.bad_files:  # it may have ended a worker process
            sheet.lost.append(f"{filename}: skipped in training, see bad_files.txt")
            continue
        sheet.add(train_set, _name(run, label), filename, epoch=epoch, index=index)
    return sheet


def _small_strips(run: Run, val_set: VideoDataset) -> dict[str, str]:
    """A small picture of each of the clips that are most worth a look, by file name."""
    strips: dict[str, str] = {}
    for one in table_order(run.predictions)[:NUM_SMALL_STRIPS]:
        index = find_video(val_set, one.filename)
        try:
            if index is not None:
                frames = clip_frames(val_set[index]["inputs"], num_frames=6, side=72,
                                     num_crops=run.config.get("num_crops", 1))
                strips[one.filename] = data_uri(draw_strip(frames))
        except (ValueError, OSError):  # the sheet of mistakes names what cannot be read; the table links the file
            continue
    return strips


def _name(run: Run, label: int) -> str:
    return isolated(shortened(run.class_names[label], 48))


def spread_over_classes(labels: npt.NDArray[np.int64], num_videos: int) -> list[int]:
    """Take the first video of each class, then the second of each, and so on; return them in the order of classes."""
    order = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    chosen = np.lexsort((labels, rank))[:num_videos]
    return [int(index) for index in chosen[np.lexsort((rank[chosen], labels[chosen]))]]


# ---- numbers -------------------------------------------------------------------------------------------------------


def _worst_first(matrix: npt.NDArray[np.int64]) -> list[int]:
    """Classes that have videos, the least accurate first; of equally accurate ones the larger first."""
    num_videos = matrix.sum(axis=1)
    shares = np.diag(matrix) / np.maximum(num_videos, 1)
    return [int(label) for label in np.lexsort((-num_videos, shares)) if num_videos[label]]


def _column(run: Run, name: str) -> list[float]:
    return [row.get(name, math.nan) for row in run.history]


# ---- page ----------------------------------------------------------------------------------------------------------


def _page(run: Run, sheets: Sequence[Sheet], strips: Mapping[str, str], notice: str) -> str:
    is_curve = not run.folds and run.config.get("method") != "probe"
    body = "".join([
        f"<header><h1>{escape(run.folder.name)}</h1><p>{escape(_subtitle(run))}</p></header>",
        f'<p class="notice">{escape(notice)}</p>' if notice else "",
        _tile_section(run),
        _curve_section(run) if is_curve else "",
        _fold_section(run) if run.folds else "",
        _confusion_section(run),
        predictions_section(run, strips),
        "".join(_sheet_section(sheet) for sheet in sheets if run.predictions or sheet.strips),
        section("Use it", f"<pre>{escape(_usage(run))}</pre>"),
        _config_section(run),
        f"<footer>Made from the files of this folder; make it again with: tinyaction report {escape(str(run.folder))}."
        "</footer>",
    ])
    return html_page(run.folder.name, body)


def _subtitle(run: Run) -> str:
    config = run.config
    weights = "" if not config.get("weights") else f", weights: {config['weights']},"
    return (f"{config.get('model')}{weights} on {config.get('data')}: {config.get('clip_len')} frames of "
            f"{config.get('size')}x{config.get('size')}, {len(run.class_names)} classes, "
            + (f"{config.get('num_train')} videos in {len(run.folds)} folds" if run.folds else
               f"{config.get('num_train')} training and {config.get('num_val')} validation videos"))


def _usage(run: Run) -> str:
    if run.folds and not run.config.get("final"):
        again = shell_line("tinyaction", "train", "--config", run.folder / "config.json", "--final")
        return f"folds only measure; to train on all videos as well: {again}"
    example = split_segment_name(run.predictions[0].filename)[0] if run.predictions else "clip.mp4"
    return "\n".join(usage_lines(run.folder, run.config["data"], example, is_tested=not run.folds))


def _fold_section(run: Run) -> str:
    """A row a fold, and how far they are from each other."""
    columns = {"fold": [fold["fold"] for fold in run.folds], "videos": [fold["videos"] for fold in run.folds]}
    columns |= {heading: [f"{float(fold[name]):.1%}" for fold in run.folds]
                for heading, name in (("accuracy", "accuracy"), ("mean over classes", "mean_class_accuracy"))}
    columns |= {heading: [from_cell(fold[name]) for fold in run.folds]
                for heading, name in (("groups held out", "groups"), ("chosen", "chosen"))}
    columns = {heading: cells for heading, cells in columns.items() if any(cells)}  # groups are not always known
    return section("Folds", "<p>Each video is tested once, by what was trained without it and its group.</p>"
                   + table(list(columns), [list(row) for row in zip(*columns.values(), strict=True)]))


def _tile_section(run: Run) -> str:
    """The run in a few numbers, each with what it means."""
    best = run.best
    tiles = [_accuracy_tile(run), *_comparison_tiles(run), _majority_tile(run)] if run.predictions else []
    tiles.append((f"{best['val_mean_class']:.1%}", "mean over classes", "each class counts the same"))
    if "val_top5" in best:
        tiles.append((f"{best['val_top5']:.1%}", "top-5", "the class is among the five highest scores"))
    if "probe" in run.config:
        tiles += _probe_tiles(run)
    if run.folds:
        tiles += _fold_tiles(run)
    elif best["epoch"] == 0:
        tiles.append(("the probe", "is kept", f"none of {len(run.history) - 1} epochs of fine-tuning is better"))
    elif run.config.get("method") != "probe":
        tiles.append((f"{best['epoch']:.0f} of {run.history[-1]['epoch']:.0f}", "best epoch",
                      "chosen on these same videos, so its accuracy flatters a little"))
    tiles += _time_tiles(run)
    cells = "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span><small>{escape(text)}</small>'
                    "</div>" for value, name, text in tiles)
    return f'<section class="tiles">{cells}</section>'


def _comparison_tiles(run: Run) -> list[tuple[str, str, str]]:
    """The probe and the network that was fine-tuned from it, where the run has both."""
    probe, tuned = (run.config.get(name, {}).get("val_accuracy") for name in ("probe", "finetune"))
    if probe is None or tuned is None:
        return []
    again = shell_line("tinyaction", "train", "--config", run.folder / "config.json", "--method", "probe")
    text = "better than the probe" if tuned > probe else (
        f"{'worse than' if tuned < probe else 'no better than'} the probe, which best.pt is; it comes in a fraction "
        f"of the time with: {again}")
    return [(f"{probe:.1%}", "probe", "a linear classifier on the frozen network"),
            (f"{tuned:.1%}", "fine-tuned", text)]


def _majority_tile(run: Run) -> tuple[str, str, str]:
    """What a person should compare an accuracy with."""
    label, count = Counter(one.label for one in run.predictions).most_common(1)[0]
    return f"{count / len(run.predictions):.1%}", "majority class", f"of always saying {_name(run, label)}"


def _fold_tiles(run: Run) -> list[tuple[str, str, str]]:
    accuracies = [float(fold["accuracy"]) for fold in run.folds]
    tile = (f"{np.mean(accuracies):.1%} ± {np.std(accuracies, ddof=1):.1%}", f"mean of {len(accuracies)} folds",
            f"and standard deviation; from {min(accuracies):.1%} to {max(accuracies):.1%}")
    if not run.config.get("final"):
        return [tile]
    return [tile, ("all videos", "best.pt", "is trained on all of them, so none is left to test it: the accuracy of "
                                            "the folds stands for it")]


def _probe_tiles(run: Run) -> list[tuple[str, str, str]]:
    """What a probe's classifier was chosen by; the validation videos had no part in it."""
    probe = run.config["probe"]
    if not probe.get("num_folds"):
        return [(str(probe["pooling"]), "pooling", "too few training clips of a class to choose it")]
    return [(str(probe["pooling"]), "pooling",
             f"chosen by {probe['num_folds']}-fold cross-validation of {'all' if run.folds else 'the training'} "
             f"clips, where its accuracy was {probe['cv_accuracy']:.1%}")]


def _accuracy_tile(run: Run) -> tuple[str, str, str]:
    num_videos = len(run.predictions)
    num_right = sum(one.predicted == one.label for one in run.predictions)
    low, high = wilson_interval(num_right, num_videos)
    text = f"{num_right} of {num_videos} videos; "
    text += (f"so few videos leave it between {low:.0%} and {high:.0%}" if high - low > 0.1
             else f"95 % interval {low:.1%} to {high:.1%}")
    return f"{num_right / num_videos:.1%}", "held-out accuracy" if run.folds else "validation accuracy", text


def _time_tiles(run: Run) -> list[tuple[str, str, str]]:
    waiting, computing = (float(np.nansum(_column(run, name))) for name in TIMES)
    if waiting + computing <= 0:
        return []
    text = f"{waiting / (waiting + computing):.0%} of it waiting for videos"
    if waiting > computing:
        text += "; more --num-workers or a smaller --size would help"
    return [(_duration(waiting + computing), "in all", text)]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _curve_section(run: Run) -> str:
    epochs = [int(row["epoch"]) for row in run.history]
    losses, accuracies = ([Series("training", _column(run, f"train_{name}"), "train"),
                           Series("validation", _column(run, f"val_{name}"), "val")] for name in ("loss", "top1"))
    waiting, computing = (_column(run, name) for name in TIMES)
    times = [Series("computing", computing, "computing"), Series("waiting for videos", waiting, "waiting")]
    rate, best = [Series("learning rate", _column(run, "lr"), "train")], int(run.best["epoch"])
    return section("Training", '<div class="charts">'
                   + line_chart(epochs, losses, label="loss", lowest=0, best=best)
                   + line_chart(epochs, accuracies, label="accuracy", lowest=0, highest=1, best=best)
                   + line_chart(epochs, rate, label="learning rate", lowest=0, best=best)
                   + stacked_bars(epochs, times, label="seconds an epoch")
                   + "</div><p>The dotted line is the best epoch, whose weights best.pt holds.</p>")


def _confusion_section(run: Run) -> str:
    """Which classes are taken for which, and how accurate each is."""
    if not run.predictions:
        return section("Classes", "<p>There is no predictions.csv in this run folder, so nothing is known of single "
                                   "videos.</p>")
    matrix = confusion_matrix([one.predicted for one in run.predictions], [one.label for one in run.predictions],
                              num_classes=len(run.class_names)).astype(np.int64)  # (K, K)
    worst = _worst_first(matrix)
    bars = class_bars([run.class_names[label] for label in worst], [int(matrix[label, label]) for label in worst],
                      [int(matrix[label].sum()) for label in worst])
    confusion = ("<p>Row: true class. Column: predicted class. Blue is right, orange is wrong, stronger is a larger "
                 "share of the row; point at a cell for its names, click it for its clips.</p>"
                 f'<div class="pair"><div class="scroll">{confusion_chart(matrix, run.class_names)}</div>'
                 f"<div>{_confused_pairs(run, matrix)}</div></div>")
    return section("Confusion", confusion) + section("Accuracy per class", bars + _class_table(run, matrix))


def _class_table(run: Run, matrix: npt.NDArray[np.int64]) -> str:
    """Precision, recall, F1 and support of each class that has videos or is predicted, folded away."""
    rows = [[name, *("–" if math.isnan(value) else f"{value:.3f}" for value in (precision, recall, f1)), str(support)]
            for name, (precision, recall, f1, support) in zip(run.class_names, class_scores(matrix), strict=True)]
    return ("<details><summary>Precision, recall, F1 and number of videos</summary>"
            + table(["class", "precision", "recall", "F1", "videos"], rows) + "</details>")


def _confused_pairs(run: Run, matrix: npt.NDArray[np.int64]) -> str:
    """The eight pairs of classes that are confused most; nothing where two classes make it obvious."""
    pairs = confused_pairs(matrix, 8)
    if not pairs or len(run.class_names) == 2:
        return ""
    names = [escape(isolated(name)) for name in run.class_names]
    items = "".join(f"<li>{names[true]} → {names[predicted]}: {matrix[true, predicted]} of {matrix[true].sum()}</li>"
                    for true, predicted in pairs)
    return f"<h3>Most confused (true → predicted)</h3><ul>{items}</ul>"


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
    return section(sheet.title, f"<p>{escape(sheet.intro)}</p>{strips}{lost}")


def _config_section(run: Run) -> str:
    rows = []
    for name, value in run.config.items():
        if name == "class_names":
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key} {word}" for key, word in value.items())
        rows.append(f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>")
    return section("Configuration", f'<table class="config">{"".join(rows)}</table>')
