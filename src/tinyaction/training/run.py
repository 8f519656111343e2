"""A run, from its config to its result: :func:`train` builds, fits and reports."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tinyaction.data.annotations import DataFolder
from tinyaction.device import default_num_workers
from tinyaction.models.checkpoint import BestEpoch, Checkpoint, load_model
from tinyaction.models.recognizer import Recognizer
from tinyaction.prepare.synthetic import is_stand_in
from tinyaction.results.evaluation import EpochRecord, Evaluation, evaluate
from tinyaction.results.multilabel import NO_POSITIVE_THRESHOLD
from tinyaction.results.progress import OnBatch, Progress
from tinyaction.results.run import TIMES, RunFolder, check_new, epoch_sort_key, read_run, usage_lines
from tinyaction.results.summary import result_lines
from tinyaction.text import counted
from tinyaction.training.auto import choose_model
from tinyaction.training.build import NO_WEIGHTS, STAND_IN, OnCount, OnLine, Training, build
from tinyaction.training.config import RunConfig
from tinyaction.training.distributed import broadcast_from_main, limit_of_waiting, num_processes, one_voice, rank
from tinyaction.training.finetune import averaged_model
from tinyaction.training.folds import FineTuning, run_folds
from tinyaction.training.identity import RunIdentity, check_same_on_all
from tinyaction.training.job import facts_of_job, folder_of_job
from tinyaction.training.loop import Callbacks, TrainState, fit
from tinyaction.training.outcome import add_shortcuts, checkpoint_of, run_facts, write_page
from tinyaction.training.probe_run import ProbeResult, majority_lines, probe_facts, run_probe
from tinyaction.training.probe_start import begin_with_probe, comparison_line, finetune_facts
from tinyaction.training.resume import CheckpointManager, Stateful
from tinyaction.training.shortcuts import of_lists, of_network
from tinyaction.training.timeline_run import run_timeline
from tinyaction.training.unknown import add_unknown, background_videos, is_asked_for
from tinyaction.video.frames import FORMATS, original_of

MUCH_WAITING = 1 / 3  # share of an epoch spent waiting for data above which a flag is named


@dataclass(repr=False)
class RunResult:
    """What came out of a run."""

    path: Path  # the run folder
    best_epoch: int  # counts from 1, as in metrics.csv; 0 is the probe that fine-tuning began with
    num_epochs: int  # epochs that were trained
    evaluation: Evaluation  # of the best epoch's weights on the validation videos
    last: EpochRecord | None = None  # the last epoch; None where it was trained before the run was resumed

    @property
    def accuracy(self) -> float:
        """Of several labels mAP."""
        return self.evaluation.selection_metric

    @property
    def checkpoint(self) -> Path:
        """The weights of the best epoch."""
        return self.path / "best.pt"

    def __repr__(self) -> str:
        name = "mAP" if self.evaluation.is_multi_label else "accuracy"
        return (f"RunResult({name} {self.accuracy:.4f} over {len(self.evaluation.labels)} videos, epoch "
                f"{self.best_epoch} of {self.num_epochs}, {self.checkpoint})")


def train(
    config: RunConfig, *, data: DataFolder | None = None, on_line: OnLine | None = None,
    on_batch: OnBatch | None = None, on_count: OnCount | None = None,
) -> RunResult:
    """Train by a config and write a run folder. Raises errors in flags, lists and files before it makes the folder.

    Of several processes (torchrun) the main one writes the run folder; all return the same result.

    Args:
        data: lists that are read already, to fine-tune on; default those of the config.
        on_line: receives each line of the log, as ``print``.
        on_batch: called with the progress after each batch.
        on_count: called with the progress of a download or a store, before the training.

    Raises:
        ValueError, OSError: a flag, a list or a video is wrong; the message names it.
        TrainingInterrupted: a signal asked to stop; all is saved for ``RunConfig.resume``.
    """
    with one_voice():
        if config.out and not config.resume and not folder_of_job(config):
            check_new(Path(config.out))                                # before anything is fetched or computed
        background_videos(config)                                      # wrong ones are told before the training
        config = config if config.task == "timeline" else choose_model(config, on_line=on_line)
    result = _train(config, data=data, on_line=on_line, on_batch=on_batch, on_count=on_count)
    if is_asked_for(config) and config.task == "clips" and rank() == 0:
        add_unknown(result.path, config, result.evaluation, on_line=on_line)
    return result


def _train(
    config: RunConfig, *, data: DataFolder | None, on_line: OnLine | None, on_batch: OnBatch | None,
    on_count: OnCount | None,
) -> RunResult:
    with one_voice():
        if config.task == "timeline":
            path, best_epoch, evaluation = run_timeline(config, on_line=on_line, on_count=on_count)
            return RunResult(path, best_epoch, config.epochs, evaluation)
        if config.folds:
            fine_tuning = FineTuning(partial(train_fold, on_batch=on_batch), partial(train_final, on_batch=on_batch))
            path, evaluation = run_folds(config, fine_tuning, on_line=on_line, on_count=on_count)
            return RunResult(path, 1, 1, evaluation)
        if config.method == "probe":
            path, evaluation = run_probe(config, on_line=on_line, on_count=on_count)
            return RunResult(path, 1, 1, evaluation)
        training = build(config, data=data, on_line=on_line, on_count=on_count)
        probe = begin_with_probe(training, on_count=on_count) if config.method == "probe-then-finetune" else None
        identity = RunIdentity.of(training.config, training.data, training.folder, training.updater.amp,
                                  num_processes=training.num_processes)
        check_same_on_all(identity)
        recorder = RunRecorder(training, identity, on_line=on_line, on_batch=on_batch) if rank() == 0 else None
        result = None
        if recorder is None:
            fit_beside_main(training, identity)
        else:
            recorder.begin(probe)
            fit_and_record(training, recorder)
            result = report(training, recorder)
        result = broadcast_from_main(result)
        assert result is not None
        return result


def train_fold(config: RunConfig, data: DataFolder, *, on_batch: OnBatch | None) -> EpochRecord:
    """An ordinary run on these lists, whose lines are in its own log only; return its last epoch."""
    last = train(config, data=data, on_batch=on_batch).last
    assert last is not None
    return last


def train_final(config: RunConfig, data: DataFolder, *, on_batch: OnBatch | None) -> Checkpoint:
    """All epochs on the training videos, and the weights after the last: there is nothing to choose an epoch by."""
    training = build(config, data=replace(data, val=data.train.subset([0])))  # a loop without validation has one video
    if config.method == "probe-then-finetune":
        begin_with_probe(training, on_count=None)
    state = TrainState()
    fit(training.model, training.train_loader, training.val_loader, training.updater, num_epochs=config.epochs,
        device=training.device, criterion=training.criterion, seed=config.seed, state=state,
        callbacks=Callbacks(on_batch))
    return checkpoint_of(config, weights_of(training), training.data.class_names, epoch=state.epoch, metrics={})


def weights_of(training: Training) -> Recognizer:
    """The network that is kept: where weights are averaged (``--ema``) that of the averages."""
    average = training.updater.average
    return training.model if average is None else averaged_model(average)


def fit_beside_main(training: Training, identity: RunIdentity) -> None:
    """Train in a process that writes nothing."""
    manager = CheckpointManager(Path(training.config.resume), None, **managed(training), identity=identity)
    if not (training.config.resume and manager.restore()):
        manager.save()

    def on_epoch(record: EpochRecord) -> bool:
        manager.save()
        return broadcast_from_main(False)  # the main process says when to stop

    fit_managed(training, manager, Callbacks(None, manager.on_step, on_epoch))


def managed(training: Training) -> dict[str, Any]:
    """Arguments of a CheckpointManager."""
    updater = training.updater
    objects: dict[str, Stateful | None] = {"model": training.model, "optimizer": updater.optimizer,
                                           "average": updater.average, "scaler": updater.scaler}
    return {"train_loader": training.train_loader, "val_loader": training.val_loader,
            "objects": {name: thing for name, thing in objects.items() if thing is not None},
            "save_every": training.config.save_every, "grad_accum": updater.grad_accum}


def fit_managed(training: Training, manager: CheckpointManager, callbacks: Callbacks) -> None:
    """Train to the end, or until a signal stops all processes."""
    is_over = broadcast_from_main(has_lost_patience(manager, training.config.patience, manager.state.epoch - 1))
    with manager.watching(), limit_of_waiting(training.config.video_timeout):
        fit(training.model, manager.train_loader, manager.val_loader, training.updater,
            num_epochs=manager.state.epoch if is_over else training.config.epochs, device=training.device,
            criterion=training.criterion, seed=training.config.seed, state=manager.state, callbacks=callbacks)


def fit_and_record(training: Training, recorder: "RunRecorder") -> None:
    manager, config = recorder.manager, training.config
    fit_managed(training, manager, Callbacks(recorder.on_batch, manager.on_step, recorder.on_epoch))
    if manager.state.epoch < config.epochs:
        recorder.run.log(f"stopped after epoch {manager.state.epoch}: {config.patience} epochs without improvement "
                         "(--patience)")


def has_lost_patience(manager: CheckpointManager, patience: int, epoch: int) -> bool:
    return manager.best is not None and 0 < patience <= epoch - manager.best.epoch


class RunRecorder:
    """Writes down a run as it goes: log, metrics, checkpoints, predictions of the best epoch."""

    def __init__(
        self, training: Training, identity: RunIdentity, *, on_line: OnLine | None, on_batch: OnBatch | None
    ) -> None:
        config = training.config
        self.training, self.identity = training, identity
        self.stand_in = is_stand_in(config.data)
        self.best_evaluation: Evaluation | None = None  # None where the best epoch was before the run was resumed
        self.last: EpochRecord | None = None
        self._show_progress = on_batch
        self._has_advised = False
        self.run = RunFolder(config.resume or config.out, name=config.model, trackers=config.trackers,
                             reopen=bool(config.resume), on_line=on_line)
        self.manager = CheckpointManager(self.run.path, self.run, **managed(training), identity=identity,
                                         content=self.content)

    def content(self) -> Checkpoint:
        """The part of a checkpoint that a prediction needs."""
        manager, K = self.manager, len(self.training.data.class_names)
        before = [NO_POSITIVE_THRESHOLD] * K if self.training.config.multi_label else []  # no epoch has ended
        return checkpoint_of(self.training.config, weights_of(self.training), self.training.data.class_names,
                             epoch=manager.state.epoch, metrics=manager.metrics,
                             thresholds=manager.thresholds or before)

    def begin(self, probe: ProbeResult | None = None) -> None:
        """Go on with the run, or write down what it is, and what the probe reached that it begins with."""
        if self.training.config.resume and self.manager.restore():
            if self.run.mend_config(self._facts(), fixed=("class_names", *self.identity.flags)):
                self.run.log(f"note: {self.run.path / 'config.json'} was edited or damaged; it is written anew")
            for line in process_lines(self.training):
                self.run.log(line)
            self.run.log(epoch_heading(self.training.config.epochs, is_multi_label=self.training.config.multi_label))
            return
        for line in first_lines(self.training, self.run.path, stand_in=self.stand_in):
            self.run.log(line)
        self.run.write_config(self._facts() | (
            {} if probe is None else {"probe": probe_facts(probe.probe, probe.val)}))
        if probe is not None:
            self.run.forget_after(-1)                                  # of a run that was killed just here
            record = EpochRecord(-1, 0.0, probe.train, probe.val)
            self._record(record)
            self.run.log(epoch_line(record, self.training.config.epochs, is_best=True))
        self.manager.save()

    def _facts(self) -> dict[str, Any]:
        """What config.json says of the run."""
        training = self.training
        facts = run_facts(training.config, training.data, device=training.device,
                          lists=(self.identity.train, self.identity.val))
        return facts | {"lr_of_the_batch": training.lr, "num_processes": self.identity.num_processes} | facts_of_job()

    def on_batch(self, progress: Progress) -> None:
        if self._show_progress is not None:
            self._show_progress(progress)

    def on_epoch(self, record: EpochRecord) -> bool:
        """Write down an epoch; True where patience has run out."""
        is_best = self._record(record)
        self.manager.save()
        self.run.log(epoch_line(record, self.training.config.epochs, is_best))
        self._advise(record)
        return broadcast_from_main(has_lost_patience(self.manager, self.training.config.patience, record.epoch))

    def _record(self, record: EpochRecord) -> bool:
        """Write down the metrics of an epoch, and its weights and predictions where it is the best so far."""
        self.last = record
        manager, best = self.manager, self.manager.best
        manager.metrics = self.run.add_metrics(record)
        manager.thresholds = [] if record.val.thresholds is None else record.val.thresholds.tolist()
        self.run.add_bad_files([*record.train.bad, *record.val.bad])
        is_best = best is None or epoch_sort_key(manager.metrics) > epoch_sort_key(
            {"epoch": best.epoch + 1, "val_top1": best.top1, "val_loss": best.loss})
        if is_best:
            manager.best = BestEpoch(record.epoch, record.val.selection_metric, record.val.loss)
            self.best_evaluation = record.val
            self.content().save(self.run.path / "best.pt")
            self.run.write_predictions(record.val, self.training.data.class_names)
        return is_best

    def _advise(self, record: EpochRecord) -> None:
        """Once in a run, name a flag for an epoch that waited much; not for the first, in which the workers start."""
        waiting, seconds = record.train.data_seconds, record.train.data_seconds + record.train.compute_seconds
        is_start = record.epoch == 0 and self.training.config.epochs > 1
        if not self._has_advised and not is_start and waiting > 1 and waiting > MUCH_WAITING * seconds:
            self._has_advised = True
            advice = waiting_advice(self.training.config, self.training.train_set.videos[0][0])
            self.run.log(f"{waiting / seconds:.0%} of the epoch was spent waiting for data; {advice}")


def first_lines(training: Training, path: Path, *, stand_in: bool) -> list[str]:
    """What the log says before the first epoch."""
    config, data = training.config, training.data
    number_format = str(training.updater.amp or torch.float32).removeprefix("torch.")
    lines = [STAND_IN] if stand_in else []
    lines += [f"note: {note}" for note in (*data.notes, data.unused_summary()) if note]
    lines += [f"{len(data.train)} training and {len(data.val)} validation videos of {len(data.class_names)} classes "
              f"in {training.folder}",
              f"{config.model}, {config.clip_len} frames of {config.size}x{config.size}, {number_format} on "
              f"{training.device}; run folder {path}"]
    return [*lines, *process_lines(training), *training.notes, epoch_heading(
        config.epochs, is_multi_label=config.multi_label)]


def process_lines(training: Training) -> list[str]:
    """Say how several processes share a step; nothing for a run of one process."""
    if num_processes() == training.num_processes == 1:
        return []
    num_batches = training.updater.grad_accum * num_processes()
    return [f"{counted(num_processes(), 'process')}: a step is made of "
            f"{counted(num_batches, 'batch')} of {training.train_loader.batch_size}"]


def epoch_line(record: EpochRecord, num_epochs: int, is_best: bool) -> str:
    train, val = record.train, record.val
    waiting = train.data_seconds + val.data_seconds
    seconds = waiting + train.compute_seconds + val.compute_seconds
    name = f"epoch {record.epoch + 1:>3}/{num_epochs}"
    if record.epoch < 0:
        name = f"{'probe':<{len(name)}}"
    skipped = f"\n  skipped {len(train.bad)} train, {len(val.bad)} val" if train.bad or val.bad else ""
    return (f"{name}  {train.loss:10.3f}  {train.top1:8.3f}  {val.loss:8.3f}  {val.selection_metric:8.3f}  "
            f"{seconds:7.1f}  {waiting / seconds:>7.0%}{'  best' if is_best else ''}{skipped}")


def epoch_heading(num_epochs: int, *, is_multi_label: bool = False) -> str:
    """The names of the columns of :func:`epoch_line`."""
    first, second = ("exact", "mAP") if is_multi_label else ("accuracy", "accuracy")
    return (f"{'epoch':<{len(f'epoch   1/{num_epochs}')}}  train loss  {first:>8}  val loss  {second:>8}  seconds  "
            "waiting")


def waiting_advice(config: RunConfig, filename: str) -> str:
    """Name the flag that most likely helps a run that waits for its videos."""
    num_cores = default_num_workers()
    if config.num_workers < num_cores:
        return f"--num-workers {num_cores} would use all cores"
    suffix = Path(filename).suffix
    if suffix == FORMATS["raw"]:
        return "the cores are at their limit"
    store = "raw" if suffix == FORMATS["jpeg"] else "jpeg"
    return f"--store {store} would read each clip faster"


def report(training: Training, recorder: RunRecorder) -> RunResult:
    """Write the last lines of the log and the report, and return the result."""
    run, best = recorder.run, recorder.manager.best
    assert best is not None
    evaluation = recorder.best_evaluation
    if evaluation is None:
        model, saved = load_model(run.path / "best.pt")
        model.cls_head.temperature = 1.0  # add_unknown fits it to plain scores
        evaluation = evaluate(model, training.val_loader, device=training.device, thresholds=saved.thresholds or None)
    for line in last_lines(training, run.path, best.epoch, evaluation):
        run.log(line)
    if training.config.method == "probe-then-finetune":
        run.add_to_config({"finetune": finetune_facts(read_run(run.path).history)})
    add_shortcuts(run, training.config, lambda: [
        *of_lists(training.data.train, training.data.val, extent=training.config.shortcuts), *of_network(
            load_model(run.path / "best.pt")[0].to(training.device), training.val_set, evaluation,
            extent=training.config.shortcuts, num_workers=training.config.num_workers,
            batch_size=training.config.batch_size)])
    write_page(run, training.config, training.train_set, training.val_set)
    if training.config.weights == "none":
        run.log(NO_WEIGHTS)
    run.close()
    return RunResult(run.path, best.epoch + 1, recorder.manager.state.epoch, evaluation, recorder.last)


def last_lines(training: Training, path: Path, best_epoch: int, evaluation: Evaluation) -> list[str]:
    """What the log says after the last epoch; ``best_epoch`` counts from 0."""
    rows = read_run(path).history
    waiting, computing = (sum(row[name] for row in rows) for name in TIMES)
    example, _ = training.data.val[0]
    num_epochs = training.config.epochs
    best = f"best epoch {best_epoch + 1} of {num_epochs}" if best_epoch >= 0 else (
        f"none of {num_epochs} epochs is better than the probe")
    return [
        f"{best}; {waiting + computing:.0f} s, {waiting:.0f} s of "
        "them waiting for data",
        *result_lines(evaluation, training.data.class_names),
        *([*majority_lines(training.data.train, evaluation, training.data.class_names), comparison_line(rows)]
          if training.config.method == "probe-then-finetune" else []),
        *usage_lines(path, training.config.data, original_of(example)),
    ]
