"""``train.py``: train a recognizer on a folder of videos and leave a run folder that explains itself."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from tinyaction.annotations import DataFolder, find_data
from tinyaction.augment import flip_label_map
from tinyaction.checkpoint import save_checkpoint, versions
from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.cli.evaluate import check_files, command, result_lines
from tinyaction.cli.prepare import put_kinetics400_tiny
from tinyaction.cli.progress import ProgressLine
from tinyaction.cli.store import make_store
from tinyaction.config import RunConfig, add_flags, default_num_workers
from tinyaction.dataset import VideoDataset, VideoLoader, build_dataloader
from tinyaction.distributed import (
    first_before_others,
    from_first,
    num_processes,
    rank,
    start_processes,
    stop_processes,
)
from tinyaction.engine import (
    EpochRecord,
    choose_amp,
    choose_device,
    create_optimizer,
    create_scaler,
    fit,
    num_steps,
)
from tinyaction.finetune import Objective, averaged_model, class_weights, create_average, freeze
from tinyaction.framestore import FORMS, StoreSettings, check_store, default_store, times_faster
from tinyaction.loader import fitting_prefetch
from tinyaction.models import check_input, create_model, load_weights, model_arguments
from tinyaction.presets import eval_pipeline, short_side_pixels, train_pipeline
from tinyaction.report import write_report
from tinyaction.runfolder import RunFolder, usage_lines
from tinyaction.schedule import learning_rate, scaled_learning_rate
from tinyaction.synthetic import is_stand_in
from tinyaction.waiting import TOO_MUCH, advice, remedies, waiting_share

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
    train(config)
    stop_processes()
    return 0


def parse_args(argv: Sequence[str] | None = None) -> RunConfig:
    parser = Parser(prog="train.py", description=__doc__, allow_abbrev=False)
    add_flags(parser)
    return RunConfig(**vars(parser.parse_args(argv)))


def train(config: RunConfig) -> RunFolder | None:
    """Train as the config says; everything that is found wrong beforehand is raised before a folder is made.

    Of several processes (torchrun) the first one writes the run folder; in the others the result is None.
    """
    device = start_processes(choose_device(config.device))
    check_input(config.model, clip_len=config.clip_len, size=config.size)
    folder = first_before_others(lambda: data_folder(config))
    data = first_before_others(lambda: find_data(folder))
    check_files(data.train, data.val)
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
    loop = partial(
        fit, model, train_loader, val_loader, optimizer, num_epochs=config.epochs, device=device,
        lr_at=lambda step: learning_rate(step, base_lr=lr, total_steps=total_steps, warmup_steps=warmup_steps),
        clip_grad_norm=config.clip_grad_norm, grad_accum=config.grad_accum, amp=amp, scaler=create_scaler(amp),
        parallel=parallel, objective=goal, average=average,
    )
    if rank() > 0:
        torch.manual_seed(config.seed + rank())  # dropout of its own
        loop(on_epoch=lambda record: from_first(False))  # process 0 says when to stop
        return None

    run = RunFolder(config.out, name=config.model, tensorboard=config.tensorboard)
    stand_in = is_stand_in(config.data)
    if stand_in:
        run.log(STAND_IN)
    for note in data.notes:
        run.log(f"note: {note}")
    run.log(f"{len(data.train)} training and {len(data.val)} validation videos of {len(data.class_names)} classes in "
            f"{folder}")
    run.log(f"{config.model}, {config.clip_len} frames of {config.size}x{config.size}, on {device}; run folder "
            f"{run.path}")
    if num_processes() > 1:
        run.log(f"{num_processes()} processes: a step is made of {num_processes()} batches of {config.batch_size}")
    if config.amp != "off":
        run.log(f"the network computes in {amp or torch.float32}, as --amp {config.amp} says".replace("torch.", ""))
    for line in loaded.lines() if loaded else ():
        run.log(line)
    run.write_config({**asdict(config), "lr_of_the_batch": lr, "class_names": data.class_names, "stand_in": stand_in,
                      "device_used": str(device), "num_train": len(data.train), "num_val": len(data.val),
                      "versions": versions()})
    best: list[EpochRecord] = []
    advised: list[str] = []

    def on_epoch(record: EpochRecord) -> bool:
        row = run.add_metrics(record)
        checkpoint = {
            "model": model_arguments(config.model, model),
            "state_dict": (model if average is None else averaged_model(average)).state_dict(),
            "class_names": data.class_names,
            "eval_pipeline": eval_arguments(config),
            "epoch": record.epoch + 1,
            "metrics": row,
            "config": asdict(config),
            "stand_in": stand_in,
        }
        save_checkpoint(run.path / "last.pt", checkpoint)
        is_best = not best or (record.val.top1, -record.val.loss) > (best[0].val.top1, -best[0].val.loss)
        if is_best:
            best[:] = [record]
            save_checkpoint(run.path / "best.pt", checkpoint)
            run.write_predictions(record.val, data.class_names)
        run.log(epoch_line(record, config.epochs, is_best))
        waiting, computing = record.train.seconds_waiting, record.train.seconds_computing
        starting_up = record.epoch == 0 and config.epochs > 1          # the workers' start is no fault of the reading
        if not advised and not starting_up and waiting > 1 and waiting_share(waiting, computing) > TOO_MUCH:
            advised.append(waiting_advice(config, record, train_set))
            run.log(advised[0])
        return from_first(0 < config.patience <= record.epoch - best[0].epoch)

    progress = ProgressLine()
    try:
        history = loop(on_batch=progress, on_epoch=on_epoch)
    except BaseException:
        if not best:
            run.remove()
        raise
    finally:
        progress.close()
    if len(history) < config.epochs:
        run.log(f"stopped after epoch {len(history)}: {config.patience} epochs without a better one (--patience)")
    for line in summary_lines(config, data, run.path, best[0], history):
        run.log(line)
    report(run, train_set, val_set, notice=STAND_IN if stand_in else "")
    if stand_in:
        run.log(STAND_IN)
    return run


def waiting_advice(config: RunConfig, record: EpochRecord, train_set: VideoDataset) -> str:
    """The flag that would help an epoch which waited too much, with what it would gain."""
    examples = [train_set.filename(index) for index in range(0, len(train_set), -(-len(train_set) // 2))]
    suffix = Path(examples[0]).suffix
    form = {FORMS["jpeg"]: "jpeg", FORMS["raw"]: "raw"}.get(suffix, "videos")
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
    settings = StoreSettings(form=config.store, short_side=short_side)
    return make_store(config.data, default_store(config.data, settings), settings, num_workers=config.num_workers)


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
    """Of presets.eval_pipeline; the checkpoint carries them, so that evaluation and prediction do as training did."""
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
    return (
        build_dataloader(train_set, batch_size=config.batch_size, shuffle=True, balanced=config.balanced,
                         num_workers=config.num_workers, pin_memory=pin_memory, prefetch=prefetches[0],
                         rank=rank(), num_ranks=num_processes()),
        build_dataloader(val_set, batch_size=config.batch_size, num_workers=config.num_workers,
                         pin_memory=pin_memory, prefetch=prefetches[1], rank=rank(), num_ranks=num_processes()),
    )


def epoch_line(record: EpochRecord, num_epochs: int, is_best: bool) -> str:
    train, val = record.train, record.val
    waiting = train.seconds_waiting + val.seconds_waiting
    seconds = waiting + train.seconds_computing + val.seconds_computing
    return (f"epoch {record.epoch + 1:>3}/{num_epochs}  train {train.loss:.3f} {train.top1:.3f}  "
            f"val {val.loss:.3f} {val.top1:.3f}  {seconds:.1f} s, {waiting / seconds:.0%} waiting"
            f"{'  best' if is_best else ''}")


def summary_lines(
    config: RunConfig, data: DataFolder, folder: Path, best: EpochRecord, history: Sequence[EpochRecord]
) -> list[str]:
    seconds = np.sum([[record.train.seconds_waiting + record.val.seconds_waiting,
                       record.train.seconds_computing + record.val.seconds_computing] for record in history], axis=0)
    example, _ = data.val[0]
    return [
        f"best epoch {best.epoch + 1} of {config.epochs}; {seconds.sum():.0f} s, {seconds[0]:.0f} s of them waiting "
        "for data",
        *result_lines(best.val, data.class_names),
        *usage_lines(folder, config.data, example),
    ]
