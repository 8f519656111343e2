"""A run of ``--task timeline``: features of uncut videos, a network over their time, a run folder."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel

from tinyaction.data.long_videos import BACKGROUND, LongVideo, LongVideos, find_long_videos
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.data.segments import Segment as TrueSegment
from tinyaction.device import choose_device
from tinyaction.models import check_input, model_arguments
from tinyaction.models.checkpoint import Checkpoint
from tinyaction.models.temporal import TemporalNetwork, TimelineModel, num_step_features, temporal_loss
from tinyaction.models.unknown import UNKNOWN, Unknown
from tinyaction.results.evaluation import EpochRecord, Evaluation, TrainResult
from tinyaction.results.features import FeatureCache
from tinyaction.results.run import RunFolder, epoch_sort_key
from tinyaction.results.timeline import RunMeans, StepFeatures, Timeline, reduced, scores_over_time, true_segments
from tinyaction.results.timeline_metrics import background_hours, choose_score
from tinyaction.results.timeline_picture import clock
from tinyaction.results.timeline_report import leave_timelines, unknown_lines, usage_lines, write_timeline_report
from tinyaction.text import counted
from tinyaction.training.build import OnCount, OnLine, build_model, eval_arguments
from tinyaction.training.config import RunConfig
from tinyaction.training.distributed import num_processes
from tinyaction.training.finetune import create_average
from tinyaction.training.identity import fingerprint_of_segments, origin
from tinyaction.training.outcome import command_of
from tinyaction.training.probe_run import is_mirroring
from tinyaction.training.schedule import learning_rate
from tinyaction.training.timeline_unknown import fit_unknown, steps_of
from tinyaction.video.segment import segment_of

CROP_STEPS = 128  # of a training sample
LEAST_BATCHES = 16  # of an epoch
AVERAGE_DECAY = 0.995  # of the weights that are kept
REDUCTION_STEPS = 2048  # from which the reduction of the features is computed
LOG_EVERY = 10  # epochs
SURE_EVENTS = (3.0, 4.74, 6.30)  # events that 0, 1, 2 seen ones leave possible with 95 % certainty (Poisson)


@dataclass
class StepData:
    """Steps of a video, their features reduced: (2 R, S), in ``views`` also mirrored; ``targets`` (S,) or (K, S)."""

    video: LongVideo
    duration: float
    views: list[torch.Tensor]
    targets: torch.Tensor


@dataclass
class BestEpochState:
    """The epoch (from 1) with the highest accuracy of validation steps, and its weights over time."""

    epoch: int
    metrics: dict[str, float]
    evaluation: Evaluation
    network: dict[str, torch.Tensor]


@dataclass
class TimelineRun:
    """What a run trains and learns from."""

    config: RunConfig
    videos: LongVideos
    class_names: list[str]  # with the background
    model: TimelineModel
    features: StepFeatures
    device: torch.device
    run: RunFolder
    on_count: OnCount | None

    def read(self, videos: Sequence[LongVideo], *, mirrored: bool) -> list[StepData]:
        found = []
        for number, video in enumerate(videos, start=1):
            reader, duration = self.features.open(video.path)
            views = [torch.cat([reduced(self.model, piece) for piece in
                                self.features.pieces(video.path, reader, duration, mirrored=is_mirrored)], dim=1)
                     for is_mirrored in (False, True)[: 1 + mirrored]]
            targets = step_targets(video.segments, views[0].shape[1], self.config.stride, self.videos.class_names,
                                   overlaps=self.config.overlaps)
            found.append(StepData(video, duration, views, targets.to(self.device)))
            if self.on_count is not None:
                self.on_count("videos", number, len(videos))
        return found

    def check_segments(self) -> None:
        """Open each video once; ValueError names the first segment that is none of it."""
        for video in (*self.videos.train, *self.videos.val):
            reader, _ = self.features.open(video.path)
            for item in video.segments:
                segment_of(reader, item.start, item.end, path=video.path, where=item.where)

    def fit_reduction(self) -> None:
        """Compute the reduction from steps spread over all training videos; a piece is what is around its steps."""
        num_steps = sum(self.features.open(video.path)[1] for video in self.videos.train) / self.config.stride
        every, offset = max(1, math.ceil(num_steps / REDUCTION_STEPS)), 0
        means, deviations, changes = [], [], []
        for number, video in enumerate(self.videos.train, start=1):
            for piece in self.features.pieces(video.path, *self.features.open(video.path)):
                steps = torch.from_numpy(piece).float().flatten(1)     # (S, D)
                means.append(steps.mean(dim=0))
                deviations.append((steps - means[-1])[offset % every :: every])
                changes.append((steps[2:] - steps[:-2])[offset % every :: every])
                offset -= len(piece)
            if self.on_count is not None:
                self.on_count("videos", number, len(self.videos.train))
        self.model.temporal.set_reduction(torch.stack(means).mean(dim=0), *(
            torch.cat(rows).to(self.device) for rows in (deviations, changes)))


def step_targets(
    segments: Sequence[TrueSegment], num_steps: int, stride: float, class_names: Sequence[str], *, overlaps: bool
) -> torch.Tensor:
    """(S,) int64, the class at the middle of each step, K where there is none; with ``overlaps`` (K, S) float."""
    middles = (torch.arange(num_steps) + 0.5) * stride
    several = torch.zeros(len(class_names), num_steps)
    for item in segments:
        several[class_names.index(item.label), (middles >= item.start) & (middles < item.end)] = 1
    if overlaps:
        return several
    return torch.where(several.any(dim=0), several.argmax(dim=0), len(class_names))


def run_timeline(
    config: RunConfig, *, on_line: OnLine | None = None, on_count: OnCount | None = None
) -> tuple[Path, int, Evaluation]:
    """Compute features, train, leave a run folder; returns it, its best epoch (from 1) and what that says of each step
    of the validation videos; with ``--overlaps`` of each step and class.

    Raises ValueError or OSError: a flag, a list, the weights or a video is wrong; the message names it.
    """
    if num_processes() > 1:
        raise ValueError("--task timeline goes with one process; start it without torchrun")
    device = choose_device(config.device)
    check_input(config.model, clip_len=config.clip_len, size=config.size)
    videos = find_long_videos(config.data, overlaps=config.overlaps, allow_outside=config.allow_outside)
    if config.unknown_rate and UNKNOWN in videos.class_names:
        raise ValueError(f"{videos.source}: a class is named {UNKNOWN!r}, which --unknown-rate says of segments of "
                         "none of the classes; rename it")
    recognizer, notes = build_model(config, 2)
    names = videos.class_names if config.overlaps else [*videos.class_names, BACKGROUND]
    temporal = TemporalNetwork(num_step_features(recognizer), len(names), overlaps=config.overlaps)
    model = TimelineModel(recognizer, temporal, stride_seconds=config.stride,
                          window_seconds=config.window if config.clip_len > 1 else config.stride)
    pipeline = eval_pipeline(**eval_arguments(config))
    cache = FeatureCache.beside(
        videos.source.parent,
        f"{config.model}-{config.clip_len}x{config.size}-{model.window_seconds:g}s-every-{config.stride:g}s",
        recognizer, pipeline)
    run = RunFolder(config.out, name=f"{config.model}-timeline", trackers=config.trackers, on_line=on_line)
    try:
        for line in [*first_lines(config, videos, device, run.path), *notes]:
            run.log(line)
        training = TimelineRun(config, videos, names, model.to(device).eval(),
                               StepFeatures(model, pipeline, device, cache), device, run, on_count)
        best, evaluation = fit_timeline(training)
    except BaseException:
        run.remove_if_empty()
        raise
    run.close()
    return run.path, best, evaluation


def first_lines(config: RunConfig, videos: LongVideos, device: torch.device, path: Path) -> list[str]:
    lines = [f"note: {note}" for note in videos.notes]
    if not config.pretrained:
        lines.append("note: no --weights, so these are features of a network that has learned nothing")
    short = sum(item.end - item.start < config.stride for one in (*videos.train, *videos.val) for item in one.segments)
    if short:
        lines.append(f"note: shorter than a step of {config.stride:g} s: {counted(short, 'segment')}, which may fall "
                     "between two; take a smaller --stride")
    num_segments = sum(len(video.segments) for video in videos.train)
    return [*lines, f"{counted(len(videos.train), 'training video')} with {counted(num_segments, 'segment')} and "
                    f"{counted(len(videos.val), 'validation video')} of {len(videos.class_names)} classes in "
                    f"{videos.source}",
            f"timeline of {config.model}, {counted(config.clip_len, 'frame')} of {config.size}x{config.size} every "
            f"{config.stride:g} s on {device}; run folder {path}"]


def fit_timeline(training: TimelineRun) -> tuple[int, Evaluation]:
    """Train for all epochs, keep the best one, measure it and write all down."""
    config, run = training.config, training.run
    started = time.perf_counter()
    training.check_segments()
    training.fit_reduction()
    train = training.read(training.videos.train, mirrored=is_mirroring(config))
    val = training.read(training.videos.val, mirrored=False)
    cache = training.features.cache
    for note in cache.notes if cache else ():
        run.log(f"note: {note}")
    run.log(f"features of {len(train) + len(val)} videos in {time.perf_counter() - started:.1f} s; kept in "
            f"{cache.folder if cache and cache.folder else 'memory only'}")
    network = training.model.temporal
    average = create_average(network, AVERAGE_DECAY)
    assert isinstance(average.module, TemporalNetwork)
    training.model.temporal = average.module                           # is evaluated and kept
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    num_steps = sum(one.targets.shape[-1] for one in train)
    num_batches = max(LEAST_BATCHES, round(num_steps / (CROP_STEPS * config.batch_size)))
    best: BestEpochState | None = None
    run.log(f"{'epoch':<9}  train loss  accuracy  val loss  accuracy of steps")
    for epoch in range(config.epochs):
        trained = train_epoch(network, average, train, config, optimizer, generator, epoch=epoch,
                              num_batches=num_batches)
        started = time.perf_counter()
        validated = evaluate_steps(training, val)
        validated.compute_seconds = time.perf_counter() - started
        record = EpochRecord(epoch, optimizer.param_groups[0]["lr"], trained, validated)
        metrics = run.add_metrics(record)
        if best is None or epoch_sort_key(metrics) > epoch_sort_key(best.metrics):
            best = BestEpochState(epoch + 1, metrics, validated, copy.deepcopy(average.module.state_dict()))
        if (epoch + 1) % LOG_EVERY == 0 or epoch + 1 == config.epochs:
            run.log(f"{epoch + 1:>4}/{config.epochs:<4}  {trained.loss:>10.3f}  {trained.top1:>8.3f}  "
                    f"{validated.loss:>8.3f}  {validated.top1:>8.3f}")
    assert best is not None
    average.module.load_state_dict(best.network)
    timelines = [Timeline(one.video.path, training.class_names, step_scores(training, one).numpy(), config.stride,
                          one.duration, config.overlaps) for one in val]
    if config.false_events:
        choose_min_score(training, timelines, val)
    unknown = choose_unknown(training, timelines, train, val) if config.unknown_rate else None
    Checkpoint(model_arguments(config.model, training.model.recognizer), training.model.state_dict(),
               training.class_names, eval_arguments(config), epoch=best.epoch, metrics=best.metrics,
               config=asdict(config), unknown=unknown, timeline=training.model.settings).save(run.path / "best.pt")
    write_results(training, timelines, val, best.epoch)
    return best.epoch, best.evaluation


def train_epoch(
    network: TemporalNetwork, average: AveragedModel, data: Sequence[StepData], config: RunConfig,
    optimizer: torch.optim.Optimizer, generator: torch.Generator, *, epoch: int, num_batches: int,
) -> TrainResult:
    """Batches of random crops; a video is drawn as often as its share of all steps."""
    started, total_loss, num_right, num_seen = time.perf_counter(), 0.0, 0, 0
    lengths = torch.tensor([float(one.views[0].shape[1]) for one in data])
    network.train()
    for number in range(num_batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(epoch * num_batches + number, base_lr=config.lr,
                                        total_steps=config.epochs * num_batches,
                                        warmup_steps=round(config.warmup_epochs * num_batches))
        inputs, targets, seen = draw_crops(data, lengths, config, generator)
        outputs = network(inputs)                                      # (N, K, CROP_STEPS) each
        loss = temporal_loss(outputs, targets, seen)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_grad_norm or math.inf)
        optimizer.step()
        if not loss.isfinite():
            raise ValueError(f"the loss is {loss.item()} in epoch {epoch + 1}; lower --lr")
        average.update_parameters(network)
        total_loss += loss.item()
        right = outputs[-1].argmax(dim=1) == targets if targets.ndim == 2 else (outputs[-1] > 0) == (targets > 0)
        is_counted = seen if targets.ndim == 2 else seen[:, None].expand_as(right)
        num_right += int(right[is_counted].sum())
        num_seen += int(is_counted.sum())
    network.eval()
    return TrainResult(total_loss / num_batches, num_right / num_seen, len(data), 0.0, time.perf_counter() - started)


def draw_crops(
    data: Sequence[StepData], lengths: torch.Tensor, config: RunConfig, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs (N, 2 R, CROP_STEPS), targets, and which steps are of a video, (N, CROP_STEPS); the last step of shorter
    ones is repeated.
    """
    chosen = torch.multinomial(lengths, config.batch_size, replacement=True, generator=generator).tolist()
    parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for index in chosen:
        one = data[index]
        is_mirrored = len(one.views) > 1 and float(torch.rand((), generator=generator)) < config.flip
        view = one.views[is_mirrored]
        start = int(torch.randint(max(1, view.shape[1] - CROP_STEPS + 1), (), generator=generator))
        crop, targets = view[:, start : start + CROP_STEPS], one.targets[..., start : start + CROP_STEPS]
        padding = (0, CROP_STEPS - crop.shape[1])
        seen = F.pad(torch.ones_like(crop[0], dtype=torch.bool), padding)
        parts.append((F.pad(crop, padding, mode="replicate"), F.pad(targets, padding), seen))
    inputs, targets, seen = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
    return inputs, targets, seen


@torch.inference_mode()
def step_scores(training: TimelineRun, one: StepData) -> torch.Tensor:
    """(S, K) of a video, chunk by chunk as a prediction."""
    return torch.cat(list(scores_over_time(training.model, [one.views[0]])))


def evaluate_steps(training: TimelineRun, data: Sequence[StepData]) -> Evaluation:
    """What the network says of each step; with ``--overlaps`` of each step and class, which is one of no and yes."""
    scores, labels, names = [], [], []
    for one in data:
        found, targets = step_scores(training, one), one.targets.movedim(-1, 0).cpu()  # (S, K); (S,) or (S, K)
        if training.config.overlaps:
            yes = found.flatten()
            found, targets = torch.stack((1 - yes, yes), dim=1), targets.flatten().long()
        scores.append(found.double())
        labels.append(targets)
        names += [one.video.path] * len(targets)
    all_scores, all_labels = torch.cat(scores), torch.cat(labels)
    right = all_scores[torch.arange(len(all_labels)), all_labels]
    loss = float(-right.clamp(min=1e-12).log().mean())
    return Evaluation(loss, all_scores.numpy(), all_labels.numpy(), names, 0.0, 0.0)


def choose_min_score(training: TimelineRun, timelines: Sequence[Timeline], val: Sequence[StepData]) -> None:
    """The score above which segments are told, so that the validation videos keep to ``--false-events``."""
    truth, durations = [true_segments(one.video) for one in val], [one.duration for one in val]
    per_hour = training.config.false_events
    chosen = choose_score([one.segments() for one in timelines], truth, durations, per_hour=per_hour)
    training.model.min_score = chosen
    for one in timelines:
        one.min_score = chosen
    hours = background_hours(truth, durations)
    training.run.log(f"segments are told above a score of {chosen:.3f}: so the validation videos have at most "
                     f"{per_hour:g} false events an hour of background, of which they have {clock(3600 * hours)}")
    num_allowed = int(hours * per_hour + 1e-9)
    if num_allowed < len(SURE_EVENTS):
        most = SURE_EVENTS[num_allowed] / max(hours, 1e-9)
        training.run.log(f"note: with 95 % certainty that is fewer than {most:.1f} an hour; to promise {per_hour:g} "
                         f"it takes {clock(3600 * SURE_EVENTS[0] / per_hour)} of background "
                         "without one: list validation videos in which nothing happens")


def choose_unknown(
    training: TimelineRun, timelines: Sequence[Timeline], train: Sequence[StepData], val: Sequence[StepData]
) -> Unknown | None:
    """What tells segments that are none of the classes, by ``--unknown-rate``; the timelines tell them from now on."""
    learned, held_out = (((steps_of(training.features, one.video), one.video.segments) for one in part)
                         for part in (train, val))
    unknown, lines = fit_unknown(learned, held_out, training.class_names, stride=training.config.stride,
                                 rate=training.config.unknown_rate)
    for line in lines:
        training.run.log(line)
    for timeline, one in zip(timelines, val, strict=True):
        timeline.unknown, timeline.means = unknown, RunMeans(len(training.class_names) - 1)
        timeline.means.add(timeline.scores.argmax(axis=1).tolist(), steps_of(training.features, one.video))
    return unknown


def write_results(
    training: TimelineRun, timelines: Sequence[Timeline], val: Sequence[StepData], best_epoch: int
) -> None:
    """Measure the best weights on the validation videos; write config, table, report and the last lines."""
    config, run = training.config, training.run
    metrics = leave_timelines(run, {
        **asdict(config), "class_names": training.class_names, "stand_in": False, "device_used": str(training.device),
        "num_train": len(training.videos.train), "num_val": len(val), "command": command_of(config),
        **origin(fingerprint_of_segments((*training.videos.train, *training.videos.val),
                                         training.videos.source.parent)),
    }, timelines, [true_segments(one.video) for one in val])
    run.log(f"best epoch {best_epoch} of {config.epochs}, by the accuracy of its steps on the validation videos:")
    for line in (*metrics.lines(), *unknown_lines(timelines), *usage_lines(run.path, config.data, val[0].video.path)):
        run.log(line)
    run.log(f"report:   {write_timeline_report(run.path)}")
