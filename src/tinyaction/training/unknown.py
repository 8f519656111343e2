"""After a run with ``--unknown-rate`` or ``--background``: best.pt learns how sure it is, and to say "unknown".

The class means are of the training videos. Temperature and threshold are of the validation videos, whose labels were
not trained on; of folds, of each video by what was trained without it. The kind of distance is the one that best tells
them from videos of a class whose mean it does not know, each class in turn, and from ``--background``. Its clips are
no class of their own: such a class would learn these backgrounds and none else, and a folder of that name makes one at
any time. They choose the threshold where no rate is named, and show how many of them it finds.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tinyaction.data.annotations import DataFolder, VideoList
from tinyaction.data.class_folders import is_video, walk_files
from tinyaction.data.dataset import VideoDataset, build_dataloader
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.device import choose_device
from tinyaction.models.checkpoint import load_model
from tinyaction.models.recognizer import Recognizer
from tinyaction.models.unknown import KINDS, ClassMeans, Unknown, fit_class_means, logits_and_pooled
from tinyaction.results.calibration import (
    auroc,
    expected_calibration_error,
    fit_temperature,
    lowest_rate,
    separating_threshold,
    threshold_at_rate,
    with_temperature,
)
from tinyaction.results.evaluation import Evaluation
from tinyaction.results.features import extract_features
from tinyaction.results.run import RunFolder
from tinyaction.training.build import OnLine, build_datasets, eval_arguments, find_run_data, prepare_folder
from tinyaction.training.config import RunConfig
from tinyaction.training.outcome import write_page
from tinyaction.training.probe_run import cache_and_reading

LEAST_CLASSES = 3  # of which one is left out, to choose the kind of distance
MOST_LEFT_OUT = 10  # classes, one after another
ROUNDING = 0.005  # of a distance, by which it may differ the next time: features are kept in 16 bits


def is_asked_for(config: RunConfig) -> bool:
    return config.unknown_rate > 0 or bool(config.background)


def background_videos(config: RunConfig) -> VideoList | None:
    """The clips of ``--background``; None without it. Raises ValueError where it is no folder with videos."""
    if not config.background:
        return None
    folder = Path(config.background)
    if not folder.is_dir():
        raise ValueError(f"--background is {folder}; it must be a folder of clips that are none of the classes")
    paths = sorted(str(path) for path in walk_files(folder) if is_video(path))
    if not paths:
        raise ValueError(f"--background is {folder}; there is no video in it")
    return VideoList(paths, [0] * len(paths))


def add_unknown(path: Path, config: RunConfig, evaluation: Evaluation, *, on_line: OnLine | None = None) -> None:
    """Store an :class:`Unknown` in the best.pt of a finished run, and write its predictions and report again.

    ``evaluation`` has the scores of the held-out videos, as predictions.csv has them.
    """
    run = RunFolder(path, reopen=True, on_line=on_line)
    try:
        folder = prepare_folder(config, on_line=on_line)
        data = find_run_data(config, folder)
        model, checkpoint = load_model(path / "best.pt")
        pooled = _Pooled(config, model.to(choose_device(config.device)), folder)
        temperature = fit_temperature(evaluation.scores, evaluation.labels)
        folds = _folds_of(run) if config.folds else None
        splits, everything = pooled.splits(
            data, None if folds is None else dict(zip(evaluation.filenames, folds, strict=True)))
        background = background_videos(config)
        known = Known(splits, everything, len(data.class_names),
                      None if background is None else pooled.of(background).features)
        aurocs = known.aurocs()
        means, held_out = known.best(aurocs)
        far = None if known.background is None else means.distances(known.background)
        threshold = ((1 + ROUNDING) * threshold_at_rate(held_out, config.unknown_rate)
                     if far is None or config.unknown_rate else separating_threshold(held_out, far))
        unknown = unknown_beyond(threshold, means, temperature=temperature)
        replace(checkpoint, unknown=unknown).save(path / "best.pt")
        after = replace(evaluation, scores=with_temperature(evaluation.scores, temperature))
        run.write_predictions(after, checkpoint.class_names, folds=folds)
        _write_facts(run, config, evaluation, after, unknown, held_out, aurocs)
        if far is not None:
            share = float((far > threshold).double().mean())
            run.log(f"background: {share:.1%} of {len(far)} clips are told unknown; AUROC "
                    f"{auroc_beyond(held_out, far):.3f}")
        write_page(run, config, *build_datasets(config, data.merged() if config.folds else data))
    finally:
        run.close()


@dataclass
class PooledVideos:
    """Pooled features (N, F') float64 and labels (N,) of the videos that could be read."""

    names: list[str]
    features: torch.Tensor
    labels: torch.Tensor

    def subset(self, chosen: torch.Tensor) -> "PooledVideos":
        return PooledVideos([], self.features[chosen], self.labels[chosen])


@dataclass
class Known:
    """Videos of the classes.

    ``splits`` are pairs of training videos and those that are held out from them; the class means that stay are of
    ``everything``. ``background`` (M, F') are none of the classes.
    """

    splits: list[tuple[PooledVideos, PooledVideos]]
    everything: PooledVideos
    num_classes: int
    background: torch.Tensor | None = None

    def means(self, kind: str) -> ClassMeans:
        return fit_class_means(kind, self.everything.features, self.everything.labels, self.num_classes)

    def held_out(self, kind: str, *, left_out: int = -1) -> torch.Tensor:
        """Distances (N,) of the held-out videos, from means of the training videos without a class."""
        distances = []
        for train, test in self.splits:
            means = fit_class_means(kind, train.features[train.labels != left_out],
                                    train.labels[train.labels != left_out], self.num_classes)
            distances.append(means.distances(test.features))
        return torch.cat(distances)

    def aurocs(self) -> dict[str, float]:
        """By kind, the mean AUROC of held-out videos of one class among those of the others, whose means alone it
        knows, over classes; and of the background. Empty where there are fewer than 3 classes and no background.
        """
        labels = torch.cat([test.labels for _, test in self.splits])
        present = sorted(set(labels.tolist()) & set(self.everything.labels.tolist()))
        left_out = present[:: -(-len(present) // MOST_LEFT_OUT)] if len(present) >= LEAST_CLASSES else []
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for kind, values in found.items():
            for label in left_out:
                values.append(auroc(labels == label, self.held_out(kind, left_out=label)))
            if self.background is not None:
                values.append(auroc_beyond(self.held_out(kind), self.means(kind).distances(self.background)))
        return {kind: sum(values) / len(values) for kind, values in found.items() if values}

    def best(self, aurocs: Mapping[str, float]) -> tuple[ClassMeans, torch.Tensor]:
        """The class means of the kind with the highest AUROC, and the distances of the held-out videos."""
        kind = max(aurocs, key=lambda kind: aurocs[kind]) if aurocs else KINDS[0]
        return self.means(kind), self.held_out(kind)


def unknown_beyond(threshold: float, means: ClassMeans, *, temperature: float = 1.0) -> Unknown:
    """In float32, as a checkpoint has it."""
    basis = None if means.basis is None else means.basis.float()
    return Unknown(means.centre.float(), means.class_means.float(), basis,
                   temperature=temperature, threshold=threshold)


def kind_line(kind: str, aurocs: Mapping[str, float], *, background: str = "") -> str:
    if not aurocs:
        return f"distance: {kind}; fewer than {LEAST_CLASSES} classes and no --background to choose the kind by"
    figures = ", ".join(f"{name} {value:.3f}" for name, value in aurocs.items())
    return (f"distance: {kind}, of {figures}: mean AUROC where each class in turn is unknown"
            + (", and of --background" if background else ""))


def auroc_beyond(known: torch.Tensor, others: torch.Tensor) -> float:
    """Of distances of others among those of known videos, as those are the larger ones."""
    return auroc(torch.cat([torch.zeros(len(known)), torch.ones(len(others))]), torch.cat([known, others]))


def _folds_of(run: RunFolder) -> list[int]:
    """In which fold each video of ``predictions.csv`` was held out."""
    with open(run.path / "predictions.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [int(row["fold"]) for row in csv.DictReader(file)]


@dataclass
class _Pooled:
    """Computes the pooled features of videos; those of a probe are kept beside the data already."""

    config: RunConfig
    model: Recognizer
    folder: Path

    def splits(
        self, data: DataFolder, fold_of: Mapping[str, int] | None
    ) -> tuple[list[tuple[PooledVideos, PooledVideos]], PooledVideos]:
        """(training, held out) videos, one pair a fold, and all that the class means are of."""
        if fold_of is None:
            train = self.of(data.train)
            return [(train, self.of(data.val))], train
        found = self.of(data.merged().train)
        folds = torch.tensor([fold_of[name] for name in found.names])
        return [(found.subset(folds != fold), found.subset(folds == fold))
                for fold in sorted(set(folds.tolist()))], found

    def of(self, videos: VideoList) -> PooledVideos:
        rows = list(self._from_cache(videos) if self.config.method == "probe" else self._from_network(videos))
        return PooledVideos([name for name, _, _ in rows], torch.stack([x for _, x, _ in rows]).cpu().double(),
                      torch.tensor([label for _, _, label in rows]))

    @torch.inference_mode()
    def _from_cache(self, videos: VideoList) -> Iterator[tuple[str, torch.Tensor, int]]:
        config, model = self.config, self.model
        pipeline = eval_pipeline(**eval_arguments(config))
        cache, reading = cache_and_reading(config, self.folder, model, pipeline)
        device = model.cls_head.fc.weight.device
        found = extract_features(model, videos, pipeline, cache, device=device, reading=reading)
        for index, features in zip(found.indices, found.features, strict=True):  # (V, T, F, 2, 2)
            pooled = model.cls_head.pool(features.float().to(device)).mean(dim=0)  # (F',)
            yield videos.item_name(index), pooled, int(videos.labels[index])

    def _from_network(self, videos: VideoList) -> Iterator[tuple[str, torch.Tensor, int]]:
        dataset = VideoDataset(videos, eval_pipeline(**eval_arguments(self.config)), test_mode=True)
        device = self.model.cls_head.fc.weight.device
        config = self.config
        loader = build_dataloader(dataset, batch_size=1, num_workers=config.num_workers,
                                  on_error="skip" if config.on_error == "skip" else "raise",
                                  max_skipped=config.max_skipped, video_timeout=config.video_timeout)
        for batch in loader:
            _, pooled = logits_and_pooled(self.model, batch["inputs"].to(device))  # (1, F')
            sample = batch["data_samples"][0]
            assert sample.label is not None
            yield sample.filename, pooled[0], int(sample.label)


def _write_facts(run: RunFolder, config: RunConfig, before: Evaluation, after: Evaluation, unknown: Unknown,
                 held_out: torch.Tensor, aurocs: Mapping[str, float]) -> None:
    """Add to log and config.json what was found."""
    eces = [expected_calibration_error(one.scores, one.labels) for one in (before, after)]
    num_false_alarms, N = int((held_out > unknown.threshold).sum()), len(held_out)
    content = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    run.write_config({**content, "unknown": {
        "temperature": unknown.temperature, "threshold": unknown.threshold, "ece_before": eces[0], "ece": eces[1],
        "num_false_alarms": num_false_alarms, "num_videos": N, "kind": unknown.kind, "aurocs": aurocs}})
    what = "held-out videos of the folds" if config.folds else "validation videos"
    run.log(f"temperature {unknown.temperature:.3f}, fitted on {N} {what}: calibration error (ECE) {eces[0]:.4f} "
            f"before, {eces[1]:.4f} after, on these same videos"
            + ("" if eces[1] < eces[0] else "; it mends nothing here"))
    run.log(kind_line(unknown.kind, aurocs, background=config.background))
    run.log(f"unknown: farther than {unknown.threshold:.4f} from all classes, as {num_false_alarms} of {N} {what} are")
    if 0 < config.unknown_rate < lowest_rate(N):
        run.log(f"note: {N} videos cannot promise a false-alarm rate of {config.unknown_rate:g}, the lowest is "
                f"{lowest_rate(N):.3f}; the threshold is their largest distance")
