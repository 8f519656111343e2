"""Cross-validation over all videos of a folder: each is tested once, by training on others: :func:`run_folds`.

    RUN/folds.csv            a row a fold
    RUN/predictions.csv      a row a video, by what was trained without it
    RUN/fold-1/ ...          of fine-tuning: an ordinary run each
    RUN/best.pt              with --final: trained on all videos

Of several labels, mAP stands for accuracy, and the thresholds are chosen on all videos, each as it was held out.

The videos of training and of validation are one list here. Groups are held out whole. Of a fine-tuned fold the last
epoch counts: the best one was chosen on the videos that are held out, and its accuracy would flatter.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyaction.data.annotations import DataFolder, VideoList
from tinyaction.data.groups import known_groups
from tinyaction.device import choose_device
from tinyaction.files import write_whole
from tinyaction.models import check_input
from tinyaction.models.checkpoint import Checkpoint
from tinyaction.prepare.synthetic import is_stand_in
from tinyaction.results.evaluation import EpochRecord, Evaluation, TrainResult
from tinyaction.results.label_set_compare import Estimate, label_set_figures
from tinyaction.results.metrics import wilson_interval
from tinyaction.results.multilabel import best_thresholds
from tinyaction.results.run import FOLDS, LABEL_SET_FOLDS, RunFolder, next_lines
from tinyaction.results.shortcuts import Shortcut
from tinyaction.results.summary import result_lines
from tinyaction.text import to_cell
from tinyaction.training.build import (
    STAND_IN,
    OnCount,
    OnLine,
    build_datasets,
    build_model,
    check_data,
    find_run_data,
    prepare_folder,
)
from tinyaction.training.config import RunConfig
from tinyaction.training.distributed import num_processes
from tinyaction.training.outcome import add_shortcuts, checkpoint_of, run_facts, write_page
from tinyaction.training.probe import assign_folds, poolings_of
from tinyaction.training.probe_run import (
    NO_WEIGHTS,
    clip_features,
    fit_clips,
    majority_lines,
    probe_data,
    probe_facts,
    probe_lines,
    tested_data,
)
from tinyaction.training.shortcuts import of_folds, of_probe, summed
from tinyaction.video.frames import original_of

Ids = list[int]  # places in the list of all videos
MOST_GROUPS = 4  # named in a line


@dataclass
class Fold:
    """A part of the videos that was held out: ``record.val`` is of them, ``record.train`` of the others."""

    record: EpochRecord
    groups: list[str]  # empty where none are known
    chosen: str = ""  # pooling and strength of a probe
    shortcuts: list[Shortcut] = field(default_factory=list)  # only of a probe


@dataclass(frozen=True)
class FineTuning:
    """How a network is trained on the training list of a folder; given by :mod:`tinyaction.training.run`."""

    fold: Callable[[RunConfig, DataFolder], EpochRecord]  # an ordinary run in ``RunConfig.out``; its last epoch
    final: Callable[[RunConfig, DataFolder], Checkpoint]  # without validation and without a folder


@dataclass
class CrossValidation:
    """The folds of a run, and the final model where one was asked for: its checkpoint, and facts for config.json."""

    folds: list[Fold]
    final: Checkpoint | None
    facts: dict[str, Any]

    @property
    def accuracies(self) -> list[float]:
        """Of each fold; of several labels mAP."""
        return [fold.record.val.selection_metric for fold in self.folds]

    def record(self) -> EpochRecord:
        """The folds as one epoch: means over the training of all, and the scores of each video that was held out.

        Of several labels each fold gets the thresholds that are best on all videos.
        """
        trained, held_out = [fold.record.train for fold in self.folds], [fold.record.val for fold in self.folds]
        sizes = [len(one.labels) for one in held_out]
        loss, top1 = (float(np.mean([getattr(one, name) for one in trained])) for name in ("loss", "top1"))
        train = TrainResult(loss, top1, trained[0].num_videos, sum(one.data_seconds for one in trained),
                            sum(one.compute_seconds for one in trained))
        val = Evaluation(
            float(np.average([one.loss for one in held_out], weights=sizes)),
            np.concatenate([one.scores for one in held_out]), np.concatenate([one.labels for one in held_out]),
            [name for one in held_out for name in one.filenames], sum(one.data_seconds for one in held_out),
            sum(one.compute_seconds for one in held_out), [bad for one in held_out for bad in one.bad])
        if val.is_multi_label:
            val.thresholds = best_thresholds(val.scores, val.labels)
            for one in held_out:
                one.thresholds = val.thresholds
        return EpochRecord(0, self.folds[0].record.lr, train, val)

    def summary(self, val: Evaluation) -> dict[str, float]:
        """Mean and spread over the folds, and the interval of the accuracy, or the mAP, over all videos."""
        if val.is_multi_label:
            figures = label_set_figures(val.scores[None], val.predicted_sets[None], val.labels.astype(np.bool_))
            found = Estimate.of(figures.mean_ap[:, 0])
            low, high = found.low, found.high
        else:
            low, high = wilson_interval(int((val.scores.argmax(axis=1) == val.labels).sum()), len(val.labels))
        return {"num_folds": len(self.folds), metric_name(val): val.selection_metric,
                "mean": float(np.mean(self.accuracies)), "std": float(np.std(self.accuracies, ddof=1)), "low": low,
                "high": high}


def run_folds(
    config: RunConfig, fine_tuning: FineTuning, *, on_line: OnLine | None = None, on_count: OnCount | None = None
) -> tuple[Path, Evaluation]:
    """Cross-validate and leave a run folder; return it with the scores of each video by what was trained without it.

    Raises ValueError or OSError: a flag, a list, the groups, the weights or a video is wrong; the message names it.
    """
    if num_processes() > 1:
        raise ValueError("--folds goes with one process; start it without torchrun")
    device = choose_device(config.device)
    check_input(config.model, clip_len=config.clip_len, size=config.size)
    folder = prepare_folder(config, on_line=on_line, on_count=on_count)
    data = find_run_data(config, folder).merged()
    config = check_data(config, data)
    divide(data.train, data.class_names, config.folds)                 # before anything is computed
    run = RunFolder(config.out, name=f"{config.model}-folds", trackers=config.trackers, on_line=on_line)
    try:
        for line in first_lines(config, data, folder, device, run.path):
            run.log(line)
        result = (probe_folds(config, data, folder, device, run, on_count=on_count) if config.method == "probe" else
                  fine_tuned_folds(config, data, run, fine_tuning))
        record = result.record()
        write_run(run, config, data, result, record, device)
    except BaseException:
        if (run.path / "fold-1").exists():                             # an epoch of it may be whole
            run.close()
        else:
            run.remove_if_empty()
        raise
    add_shortcuts(run, config, lambda: [
        *of_folds(data.train, divide(data.train, data.class_names, config.folds)),
        *summed([fold.shortcuts for fold in result.folds])])
    write_page(run, config, *build_datasets(config, data))
    run.close()
    return run.path, record.val


def divide(videos: VideoList, class_names: Sequence[str], num_folds: int) -> list[tuple[Ids, Ids]]:
    """(places of the training videos, places of those that are held out) of each fold; groups are held out whole.

    Raises ValueError: a class has fewer videos, or groups, than there are folds.
    """
    groups, what = known_groups(videos), "video" if videos.groups is None else "group"
    sets = [[label] for label in videos.labels.tolist()] if videos.label_sets is None else [
        np.flatnonzero(row).tolist() for row in videos.label_sets]
    of_class: dict[int, set[str]] = {}
    for labels, group in zip(sets, groups, strict=True):
        for label in labels:
            of_class.setdefault(label, set()).add(group)
    for label, names in sorted(of_class.items()):
        if len(names) < num_folds:
            name = class_names[label]
            advice = (f"s; take --folds {len(names)}, or add clips" if len(names) > 1 else
                      " only, which cannot be held out and trained on; add clips of other groups" if videos.groups else
                      " only, which cannot be held out and trained on; add clips")
            raise ValueError(f"--folds is {num_folds}, but class {name!r} has {len(names)} {what}{advice}")
    fold_of = assign_folds(sets, groups, num_folds=num_folds)
    parts = [([place for place, one in enumerate(fold_of) if one != fold],
              [place for place, one in enumerate(fold_of) if one == fold]) for fold in range(num_folds)]
    for train, _ in parts:
        lost = sorted(set(of_class) - {label for place in train for label in sets[place]})
        if lost:
            raise ValueError(f"all groups of class {class_names[lost[0]]!r} came into one of the {num_folds} folds; "
                             "take another number of --folds")
    return parts


# ---- the folds -----------------------------------------------------------------------------------------------------


def probe_folds(
    config: RunConfig, data: DataFolder, folder: Path, device: torch.device, run: RunFolder, *,
    on_count: OnCount | None,
) -> CrossValidation:
    """Features once, then a classifier a fold, and one of all videos with ``--final``."""
    K, poolings = len(data.class_names), poolings_of(config.pooling)
    model, notes = build_model(config, K)
    for note in notes:
        run.log(note)
    clips, = clip_features(config, [data.train], folder, model, device, on_line=run.log, on_count=on_count)
    run.add_bad_files(clips.bad)
    known = probe_data(config, clips, K).pool(poolings)
    folds: list[Fold] = []
    for train, held_out in divide(clips.videos, data.class_names, config.folds):
        learned = known.subset(train)
        result = fit_clips(model, learned, poolings, clips.subset(train), clips.subset(held_out))
        folds.append(Fold(EpochRecord(0, 0.0, result.train, result.val), groups_of(clips.videos, held_out),
                          f"{result.probe.pooling}, L2 strength {result.probe.strength:g}"))
        if config.shortcuts != "none" and not config.multi_label:
            folds[-1].shortcuts = of_probe(result.probe, learned, tested_data(clips.subset(held_out), K))
        run.log(fold_line(len(folds), config.folds, folds[-1]))
    folds[0].record.val.bad = clips.bad
    if not config.final:
        return CrossValidation(folds, None, {})
    final = fit_clips(model, known, poolings, clips, clips)
    for line in probe_lines(final.probe):
        run.log(f"final: {line}")
    checkpoint = checkpoint_of(config, model, data.class_names, epoch=1, metrics={})
    return CrossValidation(folds, checkpoint, {"probe": probe_facts(final.probe)})


def fine_tuned_folds(
    config: RunConfig, data: DataFolder, run: RunFolder, fine_tuning: FineTuning
) -> CrossValidation:
    """An ordinary run a fold, and a training without validation with ``--final``."""
    folds: list[Fold] = []
    videos = data.train
    ordinary = replace(config, folds=0, final=False)
    for train, held_out in divide(videos, data.class_names, config.folds):
        part = replace(data, train=videos.subset(train), val=videos.subset(held_out))
        record = fine_tuning.fold(replace(ordinary, out=str(run.path / f"fold-{len(folds) + 1}")), part)
        run.add_bad_files([*record.train.bad, *record.val.bad])
        folds.append(Fold(record, groups_of(videos, held_out)))
        run.log(fold_line(len(folds), config.folds, folds[-1]))
    return CrossValidation(folds, fine_tuning.final(ordinary, data) if config.final else None, {})


def groups_of(videos: VideoList, places: Ids) -> list[str]:
    return [] if videos.groups is None else sorted({videos.groups[place] for place in places})


# ---- what is said and written --------------------------------------------------------------------------------------


def first_lines(config: RunConfig, data: DataFolder, folder: Path, device: torch.device, path: Path) -> list[str]:
    stand_in, groups = is_stand_in(config.data), data.train.groups
    lines = [STAND_IN] if stand_in else []
    lines += [f"note: {note}" for note in (*data.notes, data.unused_summary()) if note]
    lines += [NO_WEIGHTS] if config.method == "probe" and not config.pretrained else []
    of_groups = "" if groups is None else f" in {len(set(groups))} groups"
    return [*lines,
            f"{len(data.train)} videos of {len(data.class_names)} classes{of_groups} in {folder}: {config.folds} "
            "folds, each of which is tested by training on the others",
            f"{config.method} of {config.model}, {config.clip_len} frames of {config.size}x{config.size} on {device}; "
            f"run folder {path}"]


def fold_line(number: int, num_folds: int, fold: Fold) -> str:
    val, groups = fold.record.val, fold.groups
    names = ", ".join(groups) if len(groups) <= MOST_GROUPS else f"{', '.join(groups[:MOST_GROUPS])}, ..."
    of_groups = f" of {len(groups)} group{'s' if len(groups) > 1 else ''} ({names})" if groups else ""
    chosen = f"; {fold.chosen}" if fold.chosen else ""
    return (f"fold {number}/{num_folds}: {metric_name(val)} {val.selection_metric:.4f} over {len(val.labels)} videos"
            f"{of_groups}{chosen}")


def metric_name(val: Evaluation) -> str:
    return "mAP" if val.is_multi_label else "accuracy"


def write_run(
    run: RunFolder, config: RunConfig, data: DataFolder, result: CrossValidation, record: EpochRecord,
    device: torch.device,
) -> None:
    val, summary = record.val, result.summary(record.val)
    metrics = run.add_metrics(record)
    run.write_predictions(val, data.class_names, folds=[
        number for number, fold in enumerate(result.folds, start=1) for _ in fold.record.val.labels])
    text = io.StringIO(newline="")
    csv.writer(text).writerows([LABEL_SET_FOLDS if val.is_multi_label else FOLDS, *fold_rows(result)])
    write_whole(run.path / "folds.csv", text.getvalue())
    if result.final is not None:
        thresholds = [] if val.thresholds is None else val.thresholds.tolist()
        replace(result.final, metrics=metrics, config=asdict(config), thresholds=thresholds).save(run.path / "best.pt")
    run.write_config({**run_facts(config, data, device=device), "cross_validation": summary, **result.facts})
    for line in [*result_lines(val, data.class_names), summary_line(summary, metric_name(val)),
                 *majority_lines(data.train, val, data.class_names),
                 *next_lines(run.path, asdict(config), original_of(data.train[0][0]))]:
        run.log(line)


def fold_rows(result: CrossValidation) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for number, fold in enumerate(result.folds, start=1):
        val = fold.record.val
        figures = (val.mean_ap, val.f1) if val.is_multi_label else (val.top1, val.mean_class)
        rows.append([number, len(val.labels), fold.record.train.num_videos, *map(repr, (*figures, val.loss)),
                     to_cell(fold.chosen), len(fold.groups) or "", to_cell("; ".join(fold.groups))])
    return rows


def summary_line(summary: dict[str, float], metric: str) -> str:
    low, high = summary["low"], summary["high"]
    interval = (f"95 % interval of the {metric} over all videos {low:.4f} to {high:.4f}" if low < high else
                "no interval, as none of the videos is ranked wrong")
    return (f"{summary['num_folds']} folds: mean {metric} {summary['mean']:.4f}, standard deviation "
            f"{summary['std']:.4f}; {interval}")
