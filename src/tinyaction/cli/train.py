"""``train.py``: train a recognizer on a folder of videos and leave a run folder that explains itself."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from tinyaction.annotations import DataFolder, find_data
from tinyaction.augment import flip_label_map
from tinyaction.checkpoint import save_checkpoint, versions
from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.cli.evaluate import check_files, command, result_lines
from tinyaction.cli.prepare import put_kinetics400_tiny
from tinyaction.cli.progress import ProgressLine
from tinyaction.config import RunConfig, add_flags
from tinyaction.dataset import VideoDataset, VideoLoader, build_dataloader
from tinyaction.engine import EpochRecord, choose_device, create_optimizer, fit
from tinyaction.finetune import Objective, averaged_model, class_weights, create_average, freeze
from tinyaction.models import check_input, create_model, load_weights, model_arguments
from tinyaction.presets import eval_pipeline, train_pipeline
from tinyaction.report import write_report
from tinyaction.runfolder import RunFolder, usage_lines
from tinyaction.schedule import learning_rate, scaled_learning_rate
from tinyaction.synthetic import is_stand_in

STAND_IN = "STAND-IN DATA: generated clips of moving shapes, not Kinetics; its accuracy says nothing of real videos."


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    config = parse_args(argv)
    # Wrong names are found before anything is downloaded.
    choose_device(config.device)
    check_input(config.model, clip_len=config.clip_len, size=config.size)
    create_optimizer(config.optimizer, torch.nn.Linear(1, 1), lr=config.lr)
    if Path(config.data).name == "kinetics400_tiny":
        put_kinetics400_tiny(config.data)
    train(config)
    return 0


def parse_args(argv: Sequence[str] | None = None) -> RunConfig:
    parser = Parser(prog="train.py", description=__doc__, allow_abbrev=False)
    add_flags(parser)
    return RunConfig(**vars(parser.parse_args(argv)))


def train(config: RunConfig) -> RunFolder:
    """Train as the config says; everything that is found wrong beforehand is raised before a folder is made."""
    device = choose_device(config.device)
    check_input(config.model, clip_len=config.clip_len, size=config.size)
    data = find_data(config.data)
    check_files(data.train, data.val)
    torch.manual_seed(config.seed)
    model = create_model(config.model, len(data.class_names), max_views=config.max_views)
    loaded = load_weights(model, config.model, config.weights) if config.weights else None
    freeze(model, config.freeze, norms=config.freeze_norms)
    model.to(device)
    average = create_average(model, config.ema) if config.ema else None
    lr = scaled_learning_rate(config.lr, batch_size=config.batch_size,
                              reference_batch_size=RunConfig.REFERENCE_BATCH_SIZE)
    optimizer = create_optimizer(config.optimizer, model, lr=lr, weight_decay=config.weight_decay,
                                 head_lr=config.head_lr)
    goal = objective(config, data)
    train_set, val_set = datasets(config, data)
    train_loader, val_loader = _loaders(config, train_set, val_set, pin_memory=device.type == "cuda")
    total_steps = config.epochs * len(train_loader)
    warmup_steps = round(config.warmup_epochs * len(train_loader))

    run = RunFolder(config.out, name=config.model, tensorboard=config.tensorboard)
    stand_in = is_stand_in(config.data)
    if stand_in:
        run.log(STAND_IN)
    for note in data.notes:
        run.log(f"note: {note}")
    run.log(f"{len(data.train)} training and {len(data.val)} validation videos of {len(data.class_names)} classes in "
            f"{config.data}")
    run.log(f"{config.model}, {config.clip_len} frames of {config.size}x{config.size}, on {device}; run folder "
            f"{run.path}")
    for line in loaded.lines() if loaded else ():
        run.log(line)
    run.write_config({**asdict(config), "lr_of_the_batch": lr, "class_names": data.class_names, "stand_in": stand_in,
                      "device_used": str(device), "num_train": len(data.train), "num_val": len(data.val),
                      "versions": versions()})
    best: list[EpochRecord] = []

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
        return 0 < config.patience <= record.epoch - best[0].epoch

    progress = ProgressLine()
    try:
        history = fit(
            model, train_loader, val_loader, optimizer, num_epochs=config.epochs, device=device,
            lr_at=lambda step: learning_rate(step, base_lr=lr, total_steps=total_steps, warmup_steps=warmup_steps),
            clip_grad_norm=config.clip_grad_norm, objective=goal, average=average, on_batch=progress,
            on_epoch=on_epoch,
        )
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


def report(run: RunFolder, train_set: VideoDataset, val_set: VideoDataset, *, notice: str) -> None:
    """Write the report; where that fails the run itself is whole, so it is said and no error."""
    try:
        run.log(f"report:   {write_report(run.path, train_set=train_set, val_set=val_set, notice=notice)}")
    except (ValueError, OSError) as error:
        run.log(f"no report: {error}; try again with: {command('tinyaction', 'report', run.path)}")


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
    return (
        build_dataloader(train_set, batch_size=config.batch_size, shuffle=True, balanced=config.balanced,
                         num_workers=config.num_workers, pin_memory=pin_memory),
        build_dataloader(val_set, batch_size=config.batch_size, num_workers=config.num_workers,
                         pin_memory=pin_memory),
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
