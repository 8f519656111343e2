"""``train.py``: train a recognizer on a folder of videos and leave a run folder that explains itself."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.cli.evaluate import check_files, command, result_lines
from tinyaction.cli.flags import add_flags
from tinyaction.cli.prepare import put_kinetics400_tiny
from tinyaction.cli.progress import ProgressLine
from tinyaction.cli.store import make_store
from tinyaction.data.annotations import DataFolder, find_data
from tinyaction.data.augment import flip_label_map
from tinyaction.data.dataset import VideoDataset, VideoLoader, build_dataloader
from tinyaction.data.loader import fitting_prefetch
from tinyaction.data.pipelines import eval_pipeline, short_side_pixels, train_pipeline
from tinyaction.device import choose_device, default_num_workers
from tinyaction.distributed import (
    first_before_others,
    from_first,
    num_processes,
    rank,
    start_processes,
    stop_processes,
)
from tinyaction.models import check_input, create_model, load_weights, model_arguments
from tinyaction.models.checkpoint import Checkpoint, load_model, save_checkpoint, versions
from tinyaction.prepare.store import check_store, default_store, times_faster
from tinyaction.prepare.stored_file import StoreSettings
from tinyaction.prepare.synthetic import is_stand_in
from tinyaction.results.evaluation import EpochRecord, Evaluation, evaluate
from tinyaction.results.progress import Progress
from tinyaction.results.report import write_report
from tinyaction.results.run import TIMES, RunFolder, goodness, read_run, usage_lines
from tinyaction.training.config import RunConfig
from tinyaction.training.finetune import Objective, averaged_model, class_weights, create_average, freeze
from tinyaction.training.loop import create_optimizer, fit, num_steps
from tinyaction.training.precision import choose_amp, create_scaler
from tinyaction.training.resume import Keeper, Stateful, StoppedError, resumed_config
from tinyaction.training.schedule import learning_rate, scaled_learning_rate
from tinyaction.training.waiting import TOO_MUCH, advice, remedies, waiting_share
from tinyaction.video.frames import FORMATS, original_of

STAND_IN = "STAND-IN DATA: generated clips of moving shapes, not Kinetics; its accuracy says nothing of real videos."


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    config = parse_args(argv)
    # Wrong names are found before anything is downloaded.
    start_processes(choose_device(config.device))
    check_input(config.model, clip_len=config.clip_len, size=config.size)
    create_optimizer(config.optimizer, torch.nn.Linear(1, 1), lr=config.lr)
    if Path(config.data).name == "kinetics400_tiny":
        first_before_others(lambda: put_kinetics400_tiny(config.data))
    try:
        train(config)
    except StoppedError as stopped:
        return 128 + stopped.signum
    stop_processes()
    return 0


def parse_args(argv: Sequence[str] | None = None) -> RunConfig:
    """The flags; with --resume those of the run."""
    parser = Parser(prog="train.py", description=__doc__, allow_abbrev=False)
    add_flags(parser)
    given = vars(parser.parse_args(argv))
    if given.get("resume"):
        return resumed_config(given)
    if "data" not in given:
        parser.error("the following arguments are required: --data")
    return RunConfig(**given)


def train(config: RunConfig) -> RunFolder | None:
    """Train as the config says; everything that is found wrong beforehand is raised before a folder is made.

    Of several processes (torchrun) the first one writes the run folder; in the others the result is None.

    Raises:
        StoppedError: a signal asked to stop; all is saved for ``--resume``.
    """
    device = start_processes(choose_device(config.device))
    check_input(config.model, clip_len=config.clip_len, size=config.size)
    folder = first_before_others(lambda: data_folder(config))
    data = first_before_others(lambda: find_data(folder, allow_outside=config.allow_outside))
    if config.on_error == "raise":
        check_files(data.train, data.val)
    if config.resume and num_processes() > 1:
        raise ValueError("--resume goes with one process; torchrun would need the random states of all of them")
    torch.manual_seed(config.seed)
    model = create_model(config.model, len(data.class_names), max_views=config.max_views)
    loaded = load_weights(model, config.model, config.weights) if config.weights else None
    freeze(model, config.freeze, norms=config.freeze_norms)
    model.to(device)
    average = create_average(model, config.ema) if config.ema else None
    lr = scaled_learning_rate(config.lr, batch_size=config.batch_size * config.grad_accum * num_processes(),
                              reference_batch_size=RunConfig.REFERENCE_BATCH_SIZE)
    optimizer = create_optimizer(config.optimizer, model, lr=lr, weight_decay=config.weight_decay,
                                 head_lr=config.head_lr)
    goal = objective(config, data)
    train_set, val_set = datasets(config, data)
    train_loader, val_loader = _loaders(config, train_set, val_set, pin_memory=device.type == "cuda")
    steps_per_epoch = num_steps(len(train_loader), config.grad_accum)
    total_steps = config.epochs * steps_per_epoch
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    amp = choose_amp(config.amp, device, model,
                     torch.zeros(2, 1, 3, config.clip_len, config.size, config.size, dtype=torch.uint8))
    if config.compile:
        model.compile()
    parallel = DistributedDataParallel(model) if num_processes() > 1 else None
    scaler = create_scaler(amp)
    loop = partial(
        fit, model, train_loader, val_loader, optimizer, num_epochs=config.epochs, device=device,
        lr_at=lambda step: learning_rate(step, base_lr=lr, total_steps=total_steps, warmup_steps=warmup_steps),
        clip_grad_norm=config.clip_grad_norm, grad_accum=config.grad_accum, amp=amp, scaler=scaler,
        parallel=parallel, objective=goal, average=average,
    )
    if rank() > 0:
        torch.manual_seed(config.seed + rank())  # dropout of its own
        loop(on_epoch=lambda record: from_first(False))  # process 0 says when to stop
        return None

    run = RunFolder(config.resume or config.out, name=config.model, tensorboard=config.tensorboard,
                    reopen=bool(config.resume))
    stand_in = is_stand_in(config.data)

    def content() -> Checkpoint:
        return {
            "model": model_arguments(config.model, model),
            "state_dict": (model if average is None else averaged_model(average)).state_dict(),
            "class_names": data.class_names,
            "eval_pipeline": eval_arguments(config),
            "epoch": keeper.state.epoch,
            "metrics": keeper.row,
            "config": asdict(config),
            "stand_in": stand_in,
        }

    # Whatever has a state that training changes goes into objects: a resumed run puts it back.
    objects: dict[str, Stateful] = {"model": model, "optimizer": optimizer, "train_loader": train_loader}
    objects |= {name: thing for name, thing in (("average", average), ("scaler", scaler)) if thing is not None}
    keeper = Keeper(run, objects=objects, videos=data.train.digest(), save_every=config.save_every, content=content)
    if not (config.resume and keeper.restore()):
        if stand_in:
            run.log(STAND_IN)
        for note in data.notes:
            run.log(f"note: {note}")
        run.log(f"{len(data.train)} training and {len(data.val)} validation videos of {len(data.class_names)} classes "
                f"in {folder}")
        run.log(f"{config.model}, {config.clip_len} frames of {config.size}x{config.size}, on {device}; run folder "
                f"{run.path}")
        if num_processes() > 1:
            run.log(f"{num_processes()} processes: a step is made of {num_processes()} batches of {config.batch_size}")
        if config.amp != "off":
            form = str(amp or torch.float32).removeprefix("torch.")
            run.log(f"the network computes in {form}, as --amp {config.amp} says")
        for line in loaded.lines() if loaded else ():
            run.log(line)
        run.write_config({**asdict(config), "lr_of_the_batch": lr, "class_names": data.class_names,
                          "stand_in": stand_in, "device_used": str(device), "num_train": len(data.train),
                          "num_val": len(data.val), "versions": versions()})
        keeper.save()
    best_val: list[Evaluation] = []
    advised: list[str] = []

    def has_lost_patience(epoch: int) -> bool:
        return 0 < config.patience <= epoch - keeper.best["epoch"]

    def on_epoch(record: EpochRecord) -> bool:
        keeper.row = run.add_metrics(record)
        run.add_bad_files([*record.train.bad, *record.val.bad])
        best = keeper.best
        is_best = not best or goodness(keeper.row) > goodness({"val_top1": best["top1"], "val_loss": best["loss"]})
        if is_best:
            best.update(epoch=record.epoch, top1=record.val.top1, loss=record.val.loss)
            best_val[:] = [record.val]
            save_checkpoint(run.path / "best.pt", content())
            run.write_predictions(record.val, data.class_names)
        keeper.save()
        run.log(epoch_line(record, config.epochs, is_best))
        waiting, computing = record.train.seconds_waiting, record.train.seconds_computing
        starting_up = record.epoch == 0 and config.epochs > 1          # the workers' start is no fault of the reading
        if not advised and not starting_up and waiting > 1 and waiting_share(waiting, computing) > TOO_MUCH:
            advised.append(waiting_advice(config, record, train_set))
            run.log(advised[0])
        return from_first(has_lost_patience(record.epoch))

    progress = ProgressLine()

    def on_batch(batch: Progress) -> None:
        progress(batch)
        keeper.on_batch(batch)

    num_epochs = keeper.state.epoch if keeper.best and has_lost_patience(keeper.state.epoch - 1) else config.epochs
    with keeper.watching(train_loader, val_loader):
        try:
            loop(num_epochs=num_epochs, state=keeper.state, on_batch=on_batch, on_step=keeper.on_step,
                 on_epoch=on_epoch)
        finally:
            progress.close()
    if keeper.state.epoch < config.epochs:
        run.log(f"stopped after epoch {keeper.state.epoch}: {config.patience} epochs without a better one "
                "(--patience)")
    if not best_val:  # the best epoch was before the run was resumed
        best_val = [evaluate(load_model(run.path / "best.pt")[0], val_loader, device=device)]
    for line in summary_lines(config, data, run.path, int(keeper.best["epoch"]), best_val[0]):
        run.log(line)
    report(run, train_set, val_set, notice=STAND_IN if stand_in else "")
    if stand_in:
        run.log(STAND_IN)
    run.close()
    return run


def waiting_advice(config: RunConfig, record: EpochRecord, train_set: VideoDataset) -> str:
    """The flag that would help an epoch which waited too much, with what it would gain."""
    examples = [train_set.filename(index) for index in range(0, len(train_set), -(-len(train_set) // 2))]
    suffix = Path(examples[0]).suffix
    form = {FORMATS["jpeg"]: "jpeg", FORMATS["raw"]: "raw"}.get(suffix, "videos")
    better = {"videos": ("jpeg",), "jpeg": ("raw",), "raw": ()}[form]
    settings = {store: StoreSettings(store, short_side=short_side_pixels(config.size)) for store in better}
    return advice(
        record.train.seconds_waiting, record.train.seconds_computing,
        remedies(record.train.seconds_waiting, record.train.seconds_computing, num_workers=config.num_workers,
                 num_cores=default_num_workers(), form=form,
                 stores={store: times_faster(examples, train_set.pipeline, each) for store, each in settings.items()}),
    )


def report(run: RunFolder, train_set: VideoDataset, val_set: VideoDataset, *, notice: str) -> None:
    """Write the report; where that fails the run itself is whole, so it is said and no error."""
    try:
        run.log(f"report:   {write_report(run.path, train_set=train_set, val_set=val_set, notice=notice)}")
    except (ValueError, OSError) as error:
        run.log(f"no report: {error}; try again with: {command('tinyaction', 'report', run.path)}")


def data_folder(config: RunConfig) -> Path:
    """Where the run reads: the data, or with --store a store of it with frames of just the run's size.

    The frames that the network sees are then the same as from the videos (raw), or nearly so (jpeg).
    """
    short_side = short_side_pixels(config.size)
    if not config.store:
        check_store(config.data, short_side)
        return Path(config.data)
    settings = StoreSettings(format=config.store, short_side=short_side)
    return make_store(config.data, default_store(config.data, settings), settings, num_workers=config.num_workers,
                      allow_outside=config.allow_outside)


def datasets(config: RunConfig, data: DataFolder) -> tuple[VideoDataset, VideoDataset]:
    """The training videos with their augmentation, and the validation videos."""
    train_set = VideoDataset(
        data.train,
        train_pipeline(clip_len=config.clip_len, size=config.size, num_clips=config.train_clips,
                       flip_ratio=config.flip, flip_labels=flip_label_map(config.flip_pairs, data.class_names),
                       augment=config.augment, crop=config.crop),
        class_names=data.class_names, seed=config.seed,
    )
    val_set = VideoDataset(
        data.val, eval_pipeline(**eval_arguments(config)),
        test_mode=True, class_names=data.class_names, seed=config.seed,
    )
    return train_set, val_set


def eval_arguments(config: RunConfig) -> dict[str, int]:
    """Of eval_pipeline; the checkpoint carries them, so that evaluation and prediction do as training did."""
    arguments = {"clip_len": config.clip_len, "size": config.size, "num_clips": config.num_clips}
    return arguments if config.num_crops == 1 else arguments | {"num_crops": config.num_crops}


def objective(config: RunConfig, data: DataFolder) -> Objective | None:
    """What the loss asks for beyond the plain cross-entropy; None where that is nothing."""
    if not (config.label_smoothing or config.class_weights or config.mixup):
        return None
    weights = class_weights(data.train.labels, len(data.class_names)) if config.class_weights else None
    return Objective(config.label_smoothing, weights, config.mixup, config.seed)


def _loaders(
    config: RunConfig, train_set: VideoDataset, val_set: VideoDataset, *, pin_memory: bool
) -> tuple[VideoLoader, VideoLoader]:
    clip_bytes = 3 * config.clip_len * config.size**2
    prefetches = [fitting_prefetch(config.batch_size * clips * clip_bytes, config.num_workers)
                  for clips in (config.train_clips, config.num_clips * config.num_crops)]
    on_trouble: dict[str, Any] = {"on_error": config.on_error, "max_bad_share": config.max_bad,
                                  "time_limit": config.time_limit}
    return (
        build_dataloader(train_set, batch_size=config.batch_size, shuffle=True, balanced=config.balanced,
                         num_workers=config.num_workers, pin_memory=pin_memory, prefetch=prefetches[0],
                         rank=rank(), num_ranks=num_processes(), **on_trouble),
        build_dataloader(val_set, batch_size=config.batch_size, num_workers=config.num_workers,
                         pin_memory=pin_memory, prefetch=prefetches[1], rank=rank(), num_ranks=num_processes(),
                         **on_trouble),
    )


def epoch_line(record: EpochRecord, num_epochs: int, is_best: bool) -> str:
    train, val = record.train, record.val
    waiting = train.seconds_waiting + val.seconds_waiting
    seconds = waiting + train.seconds_computing + val.seconds_computing
    skipped = f"  skipped {len(train.bad)} train, {len(val.bad)} val" if train.bad or val.bad else ""
    return (f"epoch {record.epoch + 1:>3}/{num_epochs}  train {train.loss:.3f} {train.top1:.3f}  "
            f"val {val.loss:.3f} {val.top1:.3f}  {seconds:.1f} s, {waiting / seconds:.0%} waiting"
            f"{skipped}{'  best' if is_best else ''}")


def summary_lines(config: RunConfig, data: DataFolder, folder: Path, best_epoch: int, best: Evaluation) -> list[str]:
    rows = read_run(folder).history
    waiting, computing = (sum(row[name] for row in rows) for name in TIMES)
    example, _ = data.val[0]
    return [
        f"best epoch {best_epoch + 1} of {config.epochs}; {waiting + computing:.0f} s, {waiting:.0f} s of them "
        "waiting for data",
        *result_lines(best, data.class_names),
        *usage_lines(folder, config.data, original_of(example)),
    ]
