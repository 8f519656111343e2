"""A run of ``--method probe``: the features of all clips, a classifier, an ordinary run folder: :func:`run_probe`."""

import os
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tinyaction.data.annotations import DataFolder, VideoList, find_data
from tinyaction.data.dataset import check_files_exist
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.device import choose_device
from tinyaction.models import PoolingHead, check_input, model_arguments
from tinyaction.models.checkpoint import Checkpoint, versions
from tinyaction.models.recognizer import Recognizer
from tinyaction.prepare.synthetic import is_stand_in
from tinyaction.results.evaluation import EpochRecord, Evaluation, TrainResult
from tinyaction.results.features import FeatureCache, Features, Reading, extract_features
from tinyaction.results.report import write_report
from tinyaction.results.run import RunFolder, usage_lines
from tinyaction.results.summary import result_lines
from tinyaction.text import shell_line
from tinyaction.training.build import (
    STAND_IN,
    OnCount,
    OnLine,
    build_datasets,
    build_model,
    eval_arguments,
    prepare_folder,
)
from tinyaction.training.config import RunConfig
from tinyaction.training.probe import Probe, ProbeData, choose_and_fit, poolings_of
from tinyaction.video.frames import original_of

NUM_SHOWN = 3  # poolings in the log


@dataclass
class ProbeResult:
    """What came out: the recognizer, how its classifier was chosen, and what it says of the clips."""

    model: Recognizer
    probe: Probe
    train: TrainResult
    val: Evaluation


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
    data = find_data(folder, allow_outside=config.allow_outside)
    if config.on_error == "raise":
        check_files_exist(data.train, data.val)
    model, notes = build_model(config, len(data.class_names))
    run = RunFolder(config.out, name=f"{config.model}-probe", tensorboard=config.tensorboard, on_line=on_line)
    try:
        for line in [*first_lines(config, data, folder, device, run.path), *notes]:
            run.log(line)
        result = fit_probe(config, data, folder, model, device, run, on_count=on_count)
        write_run(run, config, data, result, device)
    except BaseException:
        run.remove_if_empty()
        raise
    write_page(run, config, data)
    run.close()
    return run.path, result.val


def first_lines(config: RunConfig, data: DataFolder, folder: Path, device: torch.device, path: Path) -> list[str]:
    lines = [STAND_IN] if is_stand_in(config.data) else []
    lines += [f"note: {note}" for note in data.notes]
    if not config.weights:
        lines.append("note: no --weights, so these are features of a network that has learned nothing; a probe is "
                     "only as good as its features")
    return [*lines,
            f"{len(data.train)} training and {len(data.val)} validation videos of {len(data.class_names)} classes in "
            f"{folder}",
            f"probe of {config.model}, {config.probe_views} x {config.clip_len} frames of {config.size}x{config.size} "
            f"on {device}; run folder {path}"]


def fit_probe(
    config: RunConfig, data: DataFolder, folder: Path, model: Recognizer, device: torch.device, run: RunFolder, *,
    on_count: OnCount | None,
) -> ProbeResult:
    """Features from the cache or the network, then the classifier. Mirrored views are further views in training."""
    started = time.perf_counter()
    pipeline = eval_pipeline(**eval_arguments(config))
    cache = FeatureCache.beside(folder, f"{config.model}-{config.clip_len}x{config.size}", model, pipeline)
    reading = Reading(config.num_workers, "skip" if config.on_error == "skip" else "raise", config.max_skipped,
                      config.video_timeout)

    def extract(videos: VideoList, *, mirrored: bool = False) -> Features:
        return extract_features(model, videos, pipeline, cache, device=device, mirrored=mirrored, reading=reading,
                                on_video=lambda done, total: on_count("videos", done, total) if on_count else None)

    train, val = extract(data.train), extract(data.val)
    parts = [train.features]
    if is_mirroring(config):
        parts.append(extract(data.train, mirrored=True).features)
    data_seconds = time.perf_counter() - started
    for note in cache.notes:
        run.log(f"note: {note}")
    run.add_bad_files([*train.bad, *val.bad])
    run.log(f"features of {len(train.indices) + len(val.indices)} videos in {data_seconds:.1f} s, "
            f"{train.num_computed + val.num_computed} of them computed now; kept in {cache.folder or 'memory only'}")
    started = time.perf_counter()
    labels = torch.from_numpy(data.train.labels)[train.indices]
    probe = choose_and_fit(ProbeData(torch.cat(parts, dim=1), labels, len(data.class_names),
                                     class_weights=config.class_weights), poolings_of(config.pooling))
    set_head(model, probe)
    fitted = evaluate_features(model, train, data.train)
    evaluation = evaluate_features(model, val, data.val)
    evaluation.data_seconds = data_seconds
    evaluation.compute_seconds = time.perf_counter() - started
    trained = TrainResult(fitted.loss, fitted.top1, len(labels), 0.0, 0.0, train.bad)
    return ProbeResult(model, probe, trained, evaluation)


def is_mirroring(config: RunConfig) -> bool:
    """Not where left and right tell classes apart: ``--flip 0``, or classes that change places."""
    return config.flip > 0 and not config.flip_pairs and config.augment != "none"


def set_head(model: Recognizer, probe: Probe) -> None:
    """Give the recognizer the probe's pooling and classifier as its head."""
    K, num_pooled = probe.linear.weight.shape
    head = PoolingHead(K, num_pooled // probe.pooling.num_outputs(1), probe.pooling)
    with torch.no_grad():
        head.fc.weight.copy_(probe.linear.weight)
        head.fc.bias.copy_(probe.linear.bias)
    model.cls_head = head.to(next(model.backbone.parameters()).device)
    model.eval()


@torch.inference_mode()
def evaluate_features(model: Recognizer, found: Features, videos: VideoList) -> Evaluation:
    """What the head says of features; the same as of the videos themselves, but for the rounding of float16."""
    head = model.cls_head
    device = head.fc.weight.device
    logits = torch.stack([head(features.float().to(device)) for features in found.features])  # (N, V, K)
    labels = torch.from_numpy(videos.labels)[found.indices].to(device)
    return Evaluation(head.loss(logits, labels).item(), head.video_scores(logits).double().cpu().numpy(),
                      labels.cpu().numpy(), [videos[index][0] for index in found.indices], 0.0, 0.0, found.bad)


def write_run(run: RunFolder, config: RunConfig, data: DataFolder, result: ProbeResult, device: torch.device) -> None:
    stand_in = is_stand_in(config.data)
    metrics = run.add_metrics(EpochRecord(0, 0.0, result.train, result.val))
    Checkpoint(model_arguments(config.model, result.model), result.model.state_dict(), data.class_names,
               eval_arguments(config), epoch=1, metrics=metrics, config=asdict(config),
               stand_in=stand_in).save(run.path / "best.pt")
    run.write_predictions(result.val, data.class_names)
    run.write_config({
        **asdict(config), "class_names": data.class_names, "stand_in": stand_in, "device_used": str(device),
        "num_train": len(data.train), "num_val": len(data.val), "versions": versions(),
        "probe": probe_facts(result.probe)})
    example, _ = data.val[0]
    for line in [*probe_lines(result.probe), *result_lines(result.val, data.class_names),
                 majority_line(data.train, result.val, data.class_names),
                 *usage_lines(run.path, config.data, original_of(example))]:
        run.log(line)


def probe_facts(probe: Probe) -> dict[str, Any]:
    """What was chosen, for config.json; no figure where there was no cross-validation."""
    facts: dict[str, Any] = {"pooling": str(probe.pooling), "strength": probe.strength, "num_folds": probe.num_folds}
    if probe.num_folds:
        facts |= {"cv_loss": probe.candidates[0].loss, "cv_accuracy": probe.candidates[0].accuracy}
    return facts


def probe_lines(probe: Probe) -> list[str]:
    if not probe.num_folds:
        return [f"a class has a single training clip, so nothing could be chosen by cross-validation: pooling "
                f"{probe.pooling}, L2 strength {probe.strength:g}"]
    return [f"pooling {one.pooling}, L2 strength {one.strength:g}: log loss {one.loss:.3f}, accuracy "
            f"{one.accuracy:.3f} in {probe.num_folds}-fold cross-validation of the training clips"
            + (" (chosen)" if number == 0 else "") for number, one in enumerate(probe.candidates[:NUM_SHOWN])]


def majority_line(train: VideoList, val: Evaluation, class_names: list[str]) -> str:
    """The accuracy of always saying the class that has most training clips."""
    label, _ = max(sorted(Counter(train.labels.tolist()).items()), key=lambda item: item[1])
    return f"always {class_names[label]}, the most frequent class: accuracy {(val.labels == label).mean():.4f}"


def write_page(run: RunFolder, config: RunConfig, data: DataFolder) -> None:
    stand_in = is_stand_in(config.data)
    train_set, val_set = build_datasets(config, data)
    try:
        page = write_report(run.path, train_set=train_set, val_set=val_set, notice=STAND_IN if stand_in else "")
        run.log(f"report:   {page}")
    except (ValueError, OSError) as error:  # the run itself is whole
        run.log(f"no report: {error}; try again with: {shell_line('tinyaction', 'report', run.path)}")
    if stand_in:
        run.log(STAND_IN)
