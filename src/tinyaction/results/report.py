"""The report of a run: one page with what happened, what the model saw, and where it is wrong.

    report.html        one file that needs no other; opens from disk, in light and dark
    train_clips.png    training clips as the network sees them, after augmentation
    mistakes.png       the validation videos that it gets wrong, the most confident first
    right.png          the ones that it gets right, the least confident first

Everything but the sheets of clips comes from files of the run folder, so a report can be made again at any time. The
sheets read their few videos anew, through the pipelines that the run used.
"""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyaction.data.dataset import VideoDataset
from tinyaction.data.segments import split_segment_name
from tinyaction.files import write_whole
from tinyaction.results.calibration import calibration_section
from tinyaction.results.evaluation_tables import recall_interval
from tinyaction.results.label_set_page import label_set_section, label_set_tiles
from tinyaction.results.metrics import class_scores, confusion_matrix, wilson_interval
from tinyaction.results.page import ORIGIN, facts_section, html_page, origin_section, section, table
from tinyaction.results.plots import Series, class_bars, confusion_chart, isolated, line_chart, shortened, stacked_bars
from tinyaction.results.predictions_table import predictions_section
from tinyaction.results.report_clips import FoundVideos, Sheet, mistakes_sheet, right_sheet, small_strips, train_sheet
from tinyaction.results.run import TIMES, Run, next_lines, read_run
from tinyaction.results.sheets import data_uri, draw_sheet, write_png
from tinyaction.results.shortcuts import shortcut_section
from tinyaction.results.summary import confused_pairs
from tinyaction.results.timeline_report import write_timeline_report
from tinyaction.text import from_cell, shell_line

OF_OTHER_SECTIONS = (*ORIGIN, "class_names", "most_frequent_class", "eval_pipeline")


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
    found = None if val_set is None else FoundVideos(val_set)
    sheets = [mistakes_sheet(run, found), right_sheet(run, found)]
    if not run.is_evaluation:
        sheets.append(train_sheet(run, train_set))
    for sheet in sheets:
        path = run.folder / f"{sheet.name}.png"
        path.unlink(missing_ok=True)  # an older report's picture, which this report may not have
        if sheet.strips:
            write_png(path, draw_sheet(f"{sheet.title}, {run.folder.name}", sheet.strips, notice=notice))
    page = run.folder / "report.html"
    text = _page(run, sheets, found, notice)
    write_whole(page, text.encode("utf-8", errors="backslashreplace"))
    return page


# ---- numbers -------------------------------------------------------------------------------------------------------


def _worst_first(matrix: npt.NDArray[np.int64]) -> list[int]:
    """Classes that have videos, the least accurate first; of equally accurate ones the larger first."""
    num_videos = matrix.sum(axis=1)
    shares = np.diag(matrix) / np.maximum(num_videos, 1)
    return [int(label) for label in np.lexsort((-num_videos, shares)) if num_videos[label]]


def _column(run: Run, name: str) -> list[float]:
    return [row.get(name, math.nan) for row in run.history]


# ---- page ----------------------------------------------------------------------------------------------------------


def _page(run: Run, sheets: Sequence[Sheet], val_set: FoundVideos | None, notice: str) -> str:
    is_curve = not run.folds and not run.is_evaluation and run.config.get("method") != "probe"
    body = "".join([
        f"<header><h1>{escape(run.folder.name)}</h1><p>{escape(_subtitle(run))}</p></header>",
        f'<p class="notice">{escape(notice)}</p>' if notice else "",
        _tile_section(run),
        shortcut_section(run.shortcuts, missing=_how_to_measure(run)),
        _curve_section(run) if is_curve else "",
        _fold_section(run) if run.folds else "",
        label_set_section(run) if run.is_multi_label else _confusion_section(run) + calibration_section(run),
        predictions_section(run, {} if val_set is None else small_strips(run, val_set),
                            group_of=None if val_set is None else val_set.group),
        "".join(_sheet_section(sheet) for sheet in sheets if run.predictions or sheet.strips),
        section("Use it", f"<pre>{escape(_usage(run))}</pre>"),
        origin_section(run.config),
        _config_section(run),
        f"<footer>Made from the files of this folder; make it again with: tinyaction report {escape(str(run.folder))}."
        "</footer>",
    ])
    return html_page(run.folder.name, body)


def _subtitle(run: Run) -> str:
    config = run.config
    weights = "" if not config.get("weights") else f", weights: {config['weights']},"
    videos = (f"{config.get('num_val')} videos" if run.is_evaluation else
              f"{config.get('num_train')} videos in {len(run.folds)} folds" if run.folds else
              f"{config.get('num_train')} training and {config.get('num_val')} validation videos")
    return (f"{config.get('model')}{weights} on {config.get('data')}: {config.get('clip_len')} frames of "
            f"{config.get('size')}x{config.get('size')}, {len(run.class_names)} classes, {videos}")


def _how_to_measure(run: Run) -> str:
    """Where a report lacks the network on changed frames: the command that adds them; "" where there is none."""
    if run.folds or run.is_evaluation or run.is_multi_label or run.config.get("clip_len") == 1:
        return ""
    command = shell_line("tinyaction", "evaluate", "--data", run.config["data"], "--checkpoint",
                         run.folder / "best.pt", "--out", f"{run.folder}-evaluated")
    return ("The network itself on one frame, on the mean of the frames and on frames in another order: with so few "
            f"videos that takes more than a fifth of an evaluation, so it is measured on demand: {command}")


def _usage(run: Run) -> str:
    example = split_segment_name(run.predictions[0].filename)[0] if run.predictions else "clip.mp4"
    return "\n".join(next_lines(run.folder, run.config, example))


def _fold_section(run: Run) -> str:
    """A row a fold, and how far they are from each other."""
    columns = {"fold": [fold["fold"] for fold in run.folds], "videos": [fold["videos"] for fold in run.folds]}
    columns |= {heading: [f"{float(fold[name]):.1%}" for fold in run.folds]
                for heading, name in ((("mAP", "map"), ("mean F1", "f1")) if run.is_multi_label else
                                      (("accuracy", "accuracy"), ("mean over classes", "mean_class_accuracy")))}
    columns |= {heading: [from_cell(fold[name]) for fold in run.folds]
                for heading, name in (("groups held out", "groups"), ("chosen", "chosen"))}
    columns = {heading: cells for heading, cells in columns.items() if any(cells)}  # groups are not always known
    group = " and its group" if "groups held out" in columns else (
        ". No groups are known: clips of one person or recording may be on both sides; --group-by keeps them together")
    return section("Folds", f"<p>Each video is tested once, by what was trained without it{group}.</p>"
                   + table(list(columns), [list(row) for row in zip(*columns.values(), strict=True)]))


def _tile_section(run: Run) -> str:
    """The run in a few numbers, each with what it means."""
    best = run.best
    tiles = label_set_tiles(run) if run.is_multi_label else _accuracy_tiles(run)
    if "probe" in run.config:
        tiles += _probe_tiles(run)
    if run.folds:
        tiles += _fold_tiles(run)
    elif run.is_evaluation:
        pass
    elif best["epoch"] == 0:
        tiles.append(("the probe", "is kept", f"none of {len(run.history) - 1} epochs of fine-tuning is better"))
    elif run.config.get("method") != "probe":
        tiles.append((f"{best['epoch']:.0f} of {run.history[-1]['epoch']:.0f}", "best epoch",
                      "chosen on these same videos, so its accuracy flatters a little"))
    tiles += _time_tiles(run)
    cells = "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span><small>{escape(text)}</small>'
                    "</div>" for value, name, text in tiles)
    return f'<section class="tiles">{cells}</section>'


def _accuracy_tiles(run: Run) -> list[tuple[str, str, str]]:
    best = run.best
    tiles = [_accuracy_tile(run), *_comparison_tiles(run), *_majority_tiles(run)] if run.predictions else []
    tiles.append((f"{best['val_mean_class']:.1%}", "mean over classes", "each class counts the same"))
    if "val_top5" in best:
        tiles.append((f"{best['val_top5']:.1%}", "top-5", "the class is among the five highest scores"))
    return tiles


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


def _majority_tiles(run: Run) -> list[tuple[str, str, str]]:
    """What a person should compare an accuracy with: always saying the class that has most training videos."""
    name = run.config.get("most_frequent_class")
    if name not in run.class_names:                                    # a run of an earlier version
        return []
    share = np.mean([run.class_names[one.label] == name for one in run.predictions])
    return [(f"{share:.1%}", "majority class", f"of always saying {isolated(shortened(name, 48))}")]


def _fold_tiles(run: Run) -> list[tuple[str, str, str]]:
    accuracies = [float(fold["map" if run.is_multi_label else "accuracy"]) for fold in run.folds]
    tile = (f"{np.mean(accuracies):.1%} ± {np.std(accuracies, ddof=1):.1%}", f"mean{' mAP' * run.is_multi_label} of "
            f"{len(accuracies)} folds", f"and standard deviation; from {min(accuracies):.1%} to {max(accuracies):.1%}")
    if not run.config.get("final"):
        return [tile]
    return [tile, ("all videos", "best.pt", "is trained on all of them, so none is left to test it: what the "
                                            "folds got stands for it")]


def _probe_tiles(run: Run) -> list[tuple[str, str, str]]:
    """What a probe's classifier was chosen by; the validation videos had no part in it."""
    probe = run.config["probe"]
    if not probe.get("num_folds"):
        return [(str(probe["pooling"]), "pooling", "too few training clips of a class to choose it")]
    return [(str(probe["pooling"]), "pooling",
             f"chosen by {probe['num_folds']}-fold cross-validation of {'all' if run.folds else 'the training'} "
             f"clips, where {'all labels were right in' if run.is_multi_label else 'its accuracy was'} "
            f"{probe['cv_accuracy']:.1%}")]


def _accuracy_tile(run: Run) -> tuple[str, str, str]:
    num_videos = len(run.predictions)
    num_right = sum(one.predicted == one.label for one in run.predictions)
    low, high = wilson_interval(num_right, num_videos)
    text = f"{num_right} of {num_videos} videos; "
    text += (f"so few videos leave it between {low:.0%} and {high:.0%}" if high - low > 0.1
             else f"95 % interval {low:.1%} to {high:.1%}")
    name = "accuracy" if run.is_evaluation else "held-out accuracy" if run.folds else "validation accuracy"
    return f"{num_right / num_videos:.1%}", name, text


def _time_tiles(run: Run) -> list[tuple[str, str, str]]:
    waiting, computing = (float(np.nansum(_column(run, name))) for name in TIMES)
    if waiting + computing <= 0:
        return []
    text = f"{waiting / (waiting + computing):.0%} of it waiting for videos"
    if waiting > computing:
        text += "; more --num-workers, or a store of the videos (tinyaction store), would help"
    return [(_duration(waiting + computing), "in all", text)]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _curve_section(run: Run) -> str:
    epochs = [int(row["epoch"]) for row in run.history]
    losses, accuracies = ([Series("training", _column(run, f"train_{name}"), "train"),
                           Series("validation", _column(run, f"val_{name}"), "val")] for name in ("loss", "top1"))
    label = "accuracy"
    if run.is_multi_label:
        label = "mAP and F1 of validation"
        accuracies = [Series("F1", _column(run, "val_f1"), "train"), Series("mAP", _column(run, "val_map"), "val")]
    waiting, computing = (_column(run, name) for name in TIMES)
    times = [Series("computing", computing, "computing"), Series("waiting for videos", waiting, "waiting")]
    rate, best = [Series("learning rate", _column(run, "lr"), "train")], int(run.best["epoch"])
    return section("Training", '<div class="charts">'
                   + line_chart(epochs, losses, label="loss", lowest=0, best=best)
                   + line_chart(epochs, accuracies, label=label, lowest=0, highest=1, best=best)
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
    rows = [[name, *("–" if math.isnan(value) else f"{value:.3f}" for value in (precision, recall, f1)),
             "{:.2f} to {:.2f}".format(*recall_interval(recall, support)) if support else "–", str(support)]
            for name, (precision, recall, f1, support) in zip(run.class_names, class_scores(matrix), strict=True)]
    return ("<details><summary>Precision, recall with its 95 % interval, F1 and number of videos</summary>"
            + table(["class", "precision", "recall", "F1", "recall's interval", "videos"], rows) + "</details>")


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
    return facts_section("Configuration", {name: value for name, value in run.config.items()
                                           if name not in OF_OTHER_SECTIONS})
