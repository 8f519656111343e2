"""Build everything that training needs from the config of a run: :func:`build`."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyaction.data.annotations import DataFolder, find_data
from tinyaction.data.augment import flip_label_map
from tinyaction.data.clip_length import clip_length_notes
from tinyaction.data.dataset import VideoDataset, build_dataloader, check_files_exist
from tinyaction.data.groups import check_groups_apart
from tinyaction.data.loader import VideoLoader
from tinyaction.data.pipelines import eval_pipeline, short_side_pixels, train_pipeline
from tinyaction.device import choose_device
from tinyaction.models import check_input, create_model, load_weights
from tinyaction.models.create import give_maps, is_transformer, published_card
from tinyaction.models.heads import Activation
from tinyaction.models.recognizer import Recognizer
from tinyaction.prepare.download import prepare_kinetics400_tiny
from tinyaction.prepare.store import check_store, default_store, make_store
from tinyaction.prepare.stored_file import StoreSettings
from tinyaction.training.config import REFERENCE_BATCH_SIZE, RunConfig
from tinyaction.training.distributed import (
    broadcast_from_main,
    main_process_first,
    num_processes,
    once_a_machine,
    rank,
    start_processes,
)
from tinyaction.training.finetune import Criterion, class_weights, create_average, freeze, positive_weights
from tinyaction.training.identity import processes_at_start
from tinyaction.training.job import folder_of_job
from tinyaction.training.precision import choose_amp, create_scaler
from tinyaction.training.rounds import share_step
from tinyaction.training.schedule import learning_rate, scaled_learning_rate
from tinyaction.training.sync_norm import synchronize_norms
from tinyaction.training.updater import LearningRateAt, Updater, create_optimizer

STAND_IN = "STAND-IN DATA: generated clips of moving shapes, not Kinetics; its accuracy says nothing of real videos."
NO_WEIGHTS = ("NO PRETRAINED WEIGHTS: the network learns from these clips alone; with --weights the same clips mostly "
              "give far more.")
OnLine = Callable[[str], None]  # a line of the log
OnCount = Callable[[str, int, int | None], None]  # unit, how many so far, how many in all or None


@dataclass
class Training:
    """Everything that a run trains with, made by :func:`build`."""

    config: RunConfig
    device: torch.device
    folder: Path  # where the videos are read: the data, or a store of it
    data: DataFolder
    train_set: VideoDataset
    val_set: VideoDataset
    model: Recognizer
    train_loader: VideoLoader
    val_loader: VideoLoader
    updater: Updater
    criterion: Criterion | None
    lr: float  # of the whole batch
    notes: list[str]  # on the weights
    num_processes: int  # that began the run


def build(
    config: RunConfig, *, data: DataFolder | None = None, on_line: OnLine | None = None,
    on_count: OnCount | None = None,
) -> Training:
    """Find the data; make model, loaders and updater. Every error in flags, lists and files is raised here.

    Args:
        data: found already.
        on_line: receives a sentence for each download or store.
        on_count: called with its progress.
    """
    device = start_processes(choose_device(config.device))
    config = replace(config, resume=config.resume or broadcast_from_main(folder_of_job(config)))
    num_at_start = broadcast_from_main(processes_at_start(config.resume) if config.resume else num_processes())
    batch_size, grad_accum = share_step(config.batch_size, config.grad_accum, num_before=num_at_start,
                                        num_now=num_processes(), keep_rounds=config.sync_batch_norm)
    amp = choose_amp(config.amp, device)
    check_input(config.model, clip_len=config.clip_len, size=config.size)  # before anything is downloaded
    if rank() > 0:
        on_line, on_count = None, None
    if data is None:
        folder = main_process_first(lambda: prepare_folder(config, on_line=on_line, on_count=on_count))
        data = once_a_machine(lambda: find_run_data(config, folder), (os.getcwd(), folder, data_flags(config)))
        check_groups_apart(data.train, data.val)
    folder = data.folder or Path(config.data)
    config = check_data(config, data)
    model, notes = build_model(config, len(data.class_names))
    model.to(device)
    criterion = build_criterion(config, data)
    train_set, val_set = build_datasets(config, data)
    check_num_batches(len(train_set), batch_size)
    train_loader = build_loader(config, train_set, batch_size, is_train=True, pin_memory=device.type == "cuda")
    val_loader = build_loader(config, val_set, config.batch_size, is_train=False, pin_memory=device.type == "cuda")
    lr = scaled_learning_rate(config.lr, batch_size=config.batch_size * config.grad_accum * num_at_start,
                              reference_batch_size=REFERENCE_BATCH_SIZE)
    updater = build_updater(config, model, lr, amp, num_batches=len(train_loader), grad_accum=grad_accum)
    if config.compile:
        model.compile()
    return Training(config, device, folder, data, train_set, val_set, model, train_loader, val_loader, updater,
                    criterion, lr, notes, num_at_start)


def find_run_data(config: RunConfig, folder: str | Path, *, keep_split: bool = True) -> DataFolder:
    """The videos of a run in a folder, its data or the store of them; see :func:`find_data`."""
    return find_data(folder, keep_split=keep_split, **data_flags(config))


def data_flags(config: RunConfig) -> dict[str, Any]:
    """How a run reads its list: arguments of :func:`find_data`."""
    return {"allow_outside": config.allow_outside, "group_by": config.group_by, "multi_label": config.multi_label}


def check_num_batches(num_videos: int, batch_size: int) -> None:
    """Raise ValueError where some process would have no batch in any round."""
    num_batches = math.ceil(num_videos / batch_size)
    if num_batches < num_processes():
        raise ValueError(f"{num_videos} training videos are {num_batches} batches of {batch_size}, too few for "
                         f"{num_processes()} processes; take a smaller --batch-size or fewer processes")


def check_data(config: RunConfig, data: DataFolder) -> RunConfig:
    """The config with ``multi_label`` as the data has it; a note on clips longer than the videos goes to the data's.

    Raises:
        ValueError: a flag does not go with the data, or a class of several labels has no training video.
        FileNotFoundError: a video is not there, where such videos are not skipped.
    """
    config = _with_labels(config, data)
    if config.on_error == "raise":
        check_files_exist(*([data.train] if data.train is data.val else [data.train, data.val]))
    data.notes += clip_length_notes(config.clip_len, data.train)
    return config


def _with_labels(config: RunConfig, data: DataFolder) -> RunConfig:
    if data.train.label_sets is None:
        return config
    without = np.flatnonzero(~data.train.label_sets.any(axis=0))
    if len(without):
        raise ValueError(f"no training video has the label {data.class_names[without[0]]!r}, so it cannot be learned; "
                         "add one, or take the label out of all lists")
    return replace(config, multi_label=True)


def prepare_folder(config: RunConfig, *, on_line: OnLine | None = None, on_count: OnCount | None = None) -> Path:
    """Fetch the tutorial's set if it is asked for; return the folder to read: the data, or a store made of it.

    A raw store gives the frames of the videos, a jpeg store nearly the same.
    """
    if Path(config.data).name == "kinetics400_tiny":
        prepare_kinetics400_tiny(config.data, on_progress=on_count, log=on_line)
    short_side = short_side_pixels(config.size)
    if not config.store:
        check_store(config.data, short_side)
        return Path(config.data)
    settings = StoreSettings(format=config.store, short_side=short_side)
    folder = default_store(config.data, settings)
    make_store(config.data, folder, settings, num_workers=config.num_workers, on_line=on_line, on_count=on_count,
               **data_flags(config))
    return folder


def build_model(config: RunConfig, num_classes: int) -> tuple[Recognizer, list[str]]:
    """Make the recognizer, load its weights, freeze its stages; return it with notes on the weights."""
    torch.manual_seed(config.seed)
    activation: Activation = "sigmoid" if config.multi_label else "softmax"
    if config.pretrained and published_card(config.model) is not None:
        model = create_model(config.model, num_classes, weights=config.weights, max_views=config.max_views,
                             activation=activation)
        assert model.published is not None
        notes = [f"weights of {config.model} from {model.published.source}; its classifier is new"]
    else:
        model = create_model(config.model, num_classes, max_views=config.max_views, activation=activation)
        notes = load_weights(model, config.model, config.weights).lines() if config.pretrained else []
        notes += [NO_WEIGHTS] if config.weights == "none" and config.method != "probe" else []
    if config.method != "finetune":
        give_maps(model)
    if config.drop_path:                                               # of transformers alone
        backbone: Any = model.backbone
        backbone.set_drop_path(config.drop_path)
    freeze(model, config.freeze, norms=config.freeze_norms)
    if config.checkpointing:
        from tinyaction.models.checkpointing import checkpoint_blocks  # imports torchvision: a second

        checkpoint_blocks(model.backbone)
    if config.sync_batch_norm:
        synchronize_norms(model)
    return model, notes


def build_datasets(config: RunConfig, data: DataFolder) -> tuple[VideoDataset, VideoDataset]:
    """Make the datasets for training, with augmentation except for a probe, and for validation."""
    train_set = VideoDataset(
        data.train,
        eval_pipeline(**eval_arguments(config)) if config.method == "probe" else
        train_pipeline(clip_len=config.clip_len, size=config.size, num_clips=config.train_clips,
                       flip_ratio=config.flip, flip_labels=flip_label_map(config.flip_pairs, data.class_names),
                       augment=config.augment, crop=config.crop, **published_arguments(config)),
        class_names=data.class_names, seed=config.seed,
    )
    val_set = VideoDataset(
        data.val, eval_pipeline(**eval_arguments(config)),
        test_mode=True, class_names=data.class_names, seed=config.seed,
    )
    return train_set, val_set


def build_loader(
    config: RunConfig, dataset: VideoDataset, batch_size: int, *, is_train: bool, pin_memory: bool
) -> VideoLoader:
    """Make a loader of this process's batches."""
    return build_dataloader(
        dataset, batch_size=batch_size, shuffle=is_train, balanced=config.balanced and is_train,
        num_workers=config.num_workers, pin_memory=pin_memory, rank=rank(), num_ranks=num_processes(),
        on_error="skip" if config.on_error == "skip" else "raise", max_skipped=config.max_skipped,
        video_timeout=config.video_timeout, even=config.sync_batch_norm and is_train,
    )


def build_criterion(config: RunConfig, data: DataFolder) -> Criterion | None:
    """Make the loss; None: plain cross-entropy, of several labels binary."""
    if not (config.label_smoothing or config.class_weights or config.mixup):
        return None
    if data.train.label_sets is not None:
        weights = positive_weights(data.train.label_sets) if config.class_weights else None
        return Criterion(config.label_smoothing, weights, config.mixup, config.seed, is_multi_label=True)
    weights = class_weights(data.train.labels, len(data.class_names)) if config.class_weights else None
    return Criterion(config.label_smoothing, weights, config.mixup, config.seed)


def build_updater(
    config: RunConfig, model: Recognizer, lr: float, amp: torch.dtype | None, *, num_batches: int,
    grad_accum: int,
) -> Updater:
    """What updates the weights that the model has now; ``lr`` is that of the whole batch."""
    return Updater(
        create_optimizer(config.optimizer, model, lr=lr, weight_decay=config.weight_decay,
                         head_lr_multiplier=config.head_lr_multiplier, layer_decay=config.layer_decay),
        build_schedule(config, lr, num_batches=num_batches, grad_accum=grad_accum),
        config.clip_grad_norm, grad_accum, amp, create_scaler(amp),
        create_average(model, config.ema) if config.ema else None,
    )


def build_schedule(config: RunConfig, lr: float, *, num_batches: int, grad_accum: int) -> LearningRateAt:
    """Return the learning rate by optimizer step, for epochs of ``num_batches`` batches."""
    steps_per_epoch = math.ceil(num_batches / grad_accum)
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    return lambda step: learning_rate(step, base_lr=lr, total_steps=config.epochs * steps_per_epoch,
                                      warmup_steps=warmup_steps)


def eval_arguments(config: RunConfig) -> dict[str, Any]:
    """Return the arguments of eval_pipeline. The checkpoint carries them: prediction sees what evaluation saw."""
    num_clips = {"finetune": config.num_clips, "probe": config.probe_views}.get(
        config.method, max(config.num_clips, config.probe_views))      # probe-then-finetune: the same for both
    arguments = {"clip_len": config.clip_len, "size": config.size, "num_clips": num_clips}
    if config.num_crops > 1:
        arguments["num_crops"] = config.num_crops
    return arguments | published_arguments(config)


def published_arguments(config: RunConfig) -> dict[str, Any]:
    """Arguments of both pipelines by which a published network sees what it was published with; nothing of others."""
    card = published_card(config.model)
    arguments: dict[str, Any] = {"frame_interval": config.frame_interval} if config.frame_interval else {}
    if card is not None:
        arguments["short_side"] = config.size * card.short_side // card.test_size
    return arguments | ({"antialias": True} if is_transformer(config.model) else {})
