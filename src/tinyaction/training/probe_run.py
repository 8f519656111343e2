"""A run of ``--method probe``: the features of all clips, a classifier, an ordinary run folder: :func:`run_probe`."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tinyaction.data.annotations import DataFolder, VideoList
from tinyaction.data.groups import check_groups_apart, known_groups
from tinyaction.data.loader import BadVideo
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.data.transforms import Compose
from tinyaction.device import choose_device
from tinyaction.models import check_input
from tinyaction.models.create import use_pooling
from tinyaction.models.pooling import Pooling
from tinyaction.models.recognizer import Recognizer
from tinyaction.prepare.synthetic import is_stand_in
from tinyaction.results.evaluation import EpochRecord, Evaluation, TrainResult, count_right
from tinyaction.results.features import FeatureCache, Reading, extract_features
from tinyaction.results.multilabel import best_thresholds
from tinyaction.results.neighbors import Neighbor, clip_vectors, nearest_clips, write_neighbors
from tinyaction.results.run import RunFolder, usage_lines
from tinyaction.results.shortcuts import Shortcut
from tinyaction.results.summary import result_lines
from tinyaction.training.build import (
    STAND_IN,
    OnCount,
    OnLine,
    build_datasets,
    build_model,
    check_data,
    eval_arguments,
    find_run_data,
    prepare_folder,
)
from tinyaction.training.config import RunConfig
from tinyaction.training.outcome import add_shortcuts, checkpoint_of, run_facts, write_page
from tinyaction.training.probe import Probe, ProbeData, choose_and_fit, poolings_of
from tinyaction.training.shortcuts import most_frequent, of_lists, of_probe
from tinyaction.video.frames import original_of

NO_WEIGHTS = ("note: no --weights, so these are features of a network that has learned nothing; a probe is only as "
              "good as its features")
NUM_SHOWN = 3  # poolings in the log, neighbours of a video


@dataclass
class ProbeResult:
    """What came out: the recognizer, how its classifier was chosen, and what it says of the clips."""

    model: Recognizer
    probe: Probe
    train: TrainResult
    val: Evaluation
    neighbors: dict[str, list[Neighbor]] = field(default_factory=dict)  # of each validation video
    shortcuts: list[Shortcut] = field(default_factory=list)  # probes of fewer frames, this one on changed ones


def run_probe(
    config: RunConfig, *, on_line: OnLine | None = None, on_count: OnCount | None = None
) -> tuple[Path, Evaluation]:
    """Compute features, choose and fit a classifier, leave a run folder. A run that fails leaves none.

    Raises ValueError or OSError: a flag, a list, the weights or a video is wrong; the message names it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("--method probe goes with one process; start it without torchrun")
    device = choose_device(config.device)
    check_input(config.model, clip_len=config.clip_len, size=config.size)
    folder = prepare_folder(config, on_line=on_line, on_count=on_count)
    data = find_run_data(config, folder)
    check_groups_apart(data.train, data.val)
    config = check_data(config, data)
    model, notes = build_model(config, len(data.class_names))
    run = RunFolder(config.out, name=f"{config.model}-probe", trackers=config.trackers, on_line=on_line)
    try:
        for line in [*first_lines(config, data, folder, device, run.path), *notes]:
            run.log(line)
        result = fit_probe(config, data, folder, model, device, on_line=run.log, on_count=on_count)
        run.add_bad_files([*result.train.bad, *result.val.bad])
        write_run(run, config, data, result, device)
    except BaseException:
        run.remove_if_empty()
        raise
    add_shortcuts(run, config, lambda: [*of_lists(data.train, data.val, extent=config.shortcuts), *result.shortcuts])
    write_page(run, config, *build_datasets(config, data))
    run.close()
    return run.path, result.val


def first_lines(config: RunConfig, data: DataFolder, folder: Path, device: torch.device, path: Path) -> list[str]:
    lines = [STAND_IN] if is_stand_in(config.data) else []
    lines += [f"note: {note}" for note in (*data.notes, data.unused_summary()) if note]
    lines += [] if config.pretrained else [NO_WEIGHTS]
    return [*lines,
            f"{len(data.train)} training and {len(data.val)} validation videos of {len(data.class_names)} classes in "
            f"{folder}",
            f"probe of {config.model}, {config.probe_views} x {config.clip_len} frames of {config.size}x{config.size} "
            f"on {device}; run folder {path}"]


def fit_probe(
    config: RunConfig, data: DataFolder, folder: Path, model: Recognizer, device: torch.device, *, on_line: OnLine,
    on_count: OnCount | None,
) -> ProbeResult:
    """Features from the cache or the network, then the classifier."""
    started = time.perf_counter()
    train, val = clip_features(config, [data.train, data.val], folder, model, device, on_line=on_line,
                               on_count=on_count)
    data_seconds = time.perf_counter() - started
    known = probe_data(config, train, len(data.class_names))
    result = fit_clips(model, known, poolings_of(config.pooling), train, val)
    result.val.data_seconds = data_seconds
    result.neighbors = nearest_training_clips(train, val, data.class_names)
    if config.method == "probe" and config.shortcuts != "none" and not config.multi_label:
        result.shortcuts = of_probe(result.probe, known, tested_data(val, len(data.class_names)))
    return result


@dataclass(frozen=True)
class ClipFeatures:
    """Features of the clips of a list that could be read: ``features`` (N, V, T, F, 2, 2) of its N ``videos``.

    ``mirrored`` (N, V, T, F, 2, 2) are further views in training; none where clips must not be mirrored.
    """

    videos: VideoList
    features: torch.Tensor
    mirrored: torch.Tensor
    bad: list[BadVideo]

    def subset(self, indices: Sequence[int]) -> "ClipFeatures":
        return ClipFeatures(self.videos.subset(indices), self.features[indices], self.mirrored[indices], [])


def cache_and_reading(
    config: RunConfig, folder: Path, model: Recognizer, pipeline: Compose
) -> tuple[FeatureCache, Reading]:
    """Where the features of a run are kept, and how its videos are read."""
    return (FeatureCache.beside(folder, f"{config.model}-{config.clip_len}x{config.size}", model, pipeline),
            Reading(config.num_workers, "skip" if config.on_error == "skip" else "raise", config.max_skipped,
                    config.video_timeout))


def clip_features(
    config: RunConfig, lists: Sequence[VideoList], folder: Path, model: Recognizer, device: torch.device, *,
    on_line: OnLine, on_count: OnCount | None,
) -> list[ClipFeatures]:
    """Features of the clips of each list, from the cache or else the network; of the first list mirrored, too."""
    started = time.perf_counter()
    pipeline = eval_pipeline(**eval_arguments(config))
    cache, reading = cache_and_reading(config, folder, model, pipeline)
    results, num_computed = [], 0
    for number, videos in enumerate(lists):
        mirrored = number == 0 and is_mirroring(config)
        found = extract_features(model, videos, pipeline, cache, device=device, mirrored=mirrored, reading=reading,
                                 on_video=lambda done, total: on_count("videos", done, total) if on_count else None)
        V = found.features.shape[1] // (1 + mirrored)
        results.append(ClipFeatures(videos.subset(found.indices), found.features[:, :V], found.features[:, V:],
                                    found.bad))
        num_computed += found.num_computed
    for note in cache.first_notes():
        on_line(f"note: {note}")
    on_line(f"features of {sum(len(one.videos) for one in results)} videos in {time.perf_counter() - started:.1f} s, "
            f"{num_computed} of them computed now; kept in\n  {cache.folder or 'memory only'}")
    return results


def probe_data(config: RunConfig, clips: ClipFeatures, num_classes: int) -> ProbeData:
    return ProbeData(torch.cat([clips.features, clips.mirrored], dim=1), labels_of(clips.videos), num_classes,
                      known_groups(clips.videos),
                     config.class_weights or config.balanced)


def tested_data(clips: ClipFeatures, num_classes: int) -> ProbeData:
    """Clips as they are when a probe is tested: never mirrored."""
    return ProbeData(clips.features, labels_of(clips.videos), num_classes)


def labels_of(videos: VideoList) -> torch.Tensor:
    """(N,) int64, or where videos may have several labels (N, K) float32."""
    sets = videos.label_sets
    return torch.from_numpy(videos.labels) if sets is None else torch.from_numpy(sets).float()


def fit_clips(
    model: Recognizer, data: ProbeData, poolings: Sequence[Pooling], train: ClipFeatures, val: ClipFeatures
) -> ProbeResult:
    """Choose and fit a classifier of ``data``, make it the head of the model, and evaluate it on both lists."""
    started = time.perf_counter()
    probe = choose_and_fit(data, poolings)
    set_head(model, probe)
    fitted, evaluation = evaluate_features(model, train), evaluate_features(model, val)
    evaluation.compute_seconds = time.perf_counter() - started
    num_right = count_right(torch.from_numpy(fitted.scores), torch.from_numpy(fitted.labels))
    trained = TrainResult(fitted.loss, num_right / len(train.videos), len(train.videos), 0.0, 0.0, train.bad)
    return ProbeResult(model, probe, trained, evaluation)


def nearest_training_clips(
    train: ClipFeatures, val: ClipFeatures, class_names: Sequence[str]
) -> dict[str, list[Neighbor]]:
    """For each validation video the training clips that the network finds most like it."""
    names = [[one.videos.item_name(index) for index in range(len(one.videos))] for one in (train, val)]
    found = nearest_clips(clip_vectors(val.features), clip_vectors(train.features), names[0],
                          [train.videos.row(index, class_names).label for index in range(len(train.videos))],
                          num=NUM_SHOWN)
    return dict(zip(names[1], found, strict=True))


def is_mirroring(config: RunConfig) -> bool:
    """Not where left and right tell classes apart: ``--flip 0``, or classes that change places."""
    return config.flip > 0 and not config.flip_pairs and config.augment != "none"


def set_head(model: Recognizer, probe: Probe) -> None:
    """Give the recognizer the probe's pooling and classifier as its head."""
    model.cls_head.dropout.p = 0.0  # the classifier was fitted to whole features
    use_pooling(model, probe.pooling)
    with torch.no_grad():
        model.cls_head.fc.weight.copy_(probe.linear.weight)
        model.cls_head.fc.bias.copy_(probe.linear.bias)
    model.eval()


@torch.inference_mode()
def evaluate_features(model: Recognizer, clips: ClipFeatures) -> Evaluation:
    """What the head says of features; the same as of the videos themselves, but for the rounding of float16."""
    head = model.cls_head
    device = head.fc.weight.device
    logits = torch.stack([head(features.float().to(device)) for features in clips.features])  # (N, V, K)
    labels = labels_of(clips.videos)                                   # (N,) or (N, K)
    result = Evaluation(head.loss(logits, labels.to(device)).item(), head.video_scores(logits).double().cpu().numpy(),
                        labels.long().numpy(), list(clips.videos.item_names()), 0.0, 0.0, clips.bad)
    if result.is_multi_label:
        result.thresholds = best_thresholds(result.scores, result.labels)
    return result


def write_run(run: RunFolder, config: RunConfig, data: DataFolder, result: ProbeResult, device: torch.device) -> None:
    metrics = run.add_metrics(EpochRecord(0, 0.0, result.train, result.val))
    thresholds = [] if result.val.thresholds is None else result.val.thresholds.tolist()
    checkpoint_of(config, result.model, data.class_names, epoch=1, metrics=metrics,
                  thresholds=thresholds).save(run.path / "best.pt")
    run.write_predictions(result.val, data.class_names)
    write_neighbors(run.path / "neighbors.csv", result.neighbors)
    run.write_config({**run_facts(config, data, device=device), "probe": probe_facts(result.probe, result.val)})
    example, _ = data.val[0]
    for line in [*probe_lines(result.probe), *result_lines(result.val, data.class_names),
                 *majority_lines(data.train, result.val, data.class_names),
                 *usage_lines(run.path, config.data, original_of(example))]:
        run.log(line)


def probe_facts(probe: Probe, val: Evaluation | None = None) -> dict[str, Any]:
    """What was chosen and how well it does, for config.json; no ``cv_`` where there was no cross-validation."""
    facts: dict[str, Any] = {"pooling": str(probe.pooling), "strength": probe.strength, "num_folds": probe.num_folds}
    if probe.num_folds:
        facts |= {"cv_loss": probe.candidates[0].loss, "cv_accuracy": probe.candidates[0].accuracy}
    return facts if val is None else facts | {"val_accuracy": val.selection_metric}


def probe_lines(probe: Probe) -> list[str]:
    """The best choices as a table, the first of which was taken; at most 80 columns wide."""
    if not probe.num_folds:
        return ["a class has a single training clip or group, so nothing could be chosen:",
                f"  pooling {probe.pooling}, L2 strength {probe.strength:g}"]
    return [f"{probe.num_folds}-fold cross-validation of the training clips; the first choice is taken:",
            f"  {'pooling':<28}  L2 strength  log loss  {'exact' if probe.linear.is_multi_label else 'accuracy':>8}",
            *(f"  {one.pooling!s:<28}  {one.strength:>11g}  {one.loss:8.3f}  {one.accuracy:8.3f}"
              for one in probe.candidates[:NUM_SHOWN])]


def majority_lines(train: VideoList, val: Evaluation, class_names: list[str]) -> list[str]:
    """The accuracy of always saying the class that has most training clips; nothing of several labels."""
    if val.is_multi_label:
        return []
    label = most_frequent(train.labels)
    return [f"always {class_names[label]}, the most frequent class: accuracy {(val.labels == label).mean():.4f}"]
