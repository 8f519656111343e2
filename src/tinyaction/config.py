"""One dataclass holds a run: its fields are the flags of ``train.py``, and it is stored in the checkpoint."""

import argparse
import math
import os
from dataclasses import MISSING, dataclass, field, fields
from typing import Any


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def default_num_workers() -> int:
    """A process for each core that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


@dataclass
class RunConfig:
    data: str = field(metadata={"help": "folder of the videos and their lists, a CSV, or class folders"})
    model: str = _flag("conv2d", "name of the recognizer; `tinyaction models` lists them")
    weights: str = _flag("", "pretrained weights: imagenet, kinetics, or a file; default none")
    epochs: int = _flag(30, "times over the training videos")
    batch_size: int = _flag(8, "videos of a batch")
    lr: float = _flag(0.01, "highest learning rate, for a batch of 8 videos; other batches in proportion")
    optimizer: str = _flag("sgd", "sgd, adam or adamw")
    weight_decay: float = _flag(1e-4, "of the optimizer")
    warmup_epochs: float = _flag(1.0, "epochs over which the learning rate rises; then it falls as a cosine")
    clip_grad_norm: float = _flag(10.0, "largest norm of the gradients; 0 clips nothing")
    num_workers: int = _flag(-1, "processes that decode; 0 decodes in the main process, -1 is one a core")
    clip_len: int = _flag(8, "frames of a clip")
    num_clips: int = _flag(1, "clips of a validation video, whose scores are averaged")
    train_clips: int = _flag(1, "clips of a training video in each epoch")
    size: int = _flag(64, "side of the square that the network sees, in pixels")
    flip: float = _flag(0.5, "share of training videos that are mirrored; 0 where left and right matter")
    seed: int = _flag(0, "of every random draw")
    device: str = _flag("auto", "auto, cpu, cuda, mps")
    tensorboard: bool = _flag(False, "write the columns of metrics.csv for TensorBoard as well")
    out: str = _flag("", "folder of the run; default a new one under runs/")

    REFERENCE_BATCH_SIZE = 8  # the batch that ``lr`` is meant for

    def __post_init__(self) -> None:
        if self.num_workers == -1:
            self.num_workers = default_num_workers()
        rules = {
            "epochs": 1, "batch_size": 1, "clip_len": 1, "num_clips": 1, "train_clips": 1, "size": 1, "num_workers": 0,
            "seed": 0, "warmup_epochs": 0, "clip_grad_norm": 0, "weight_decay": 0,
        }
        for name, least in rules.items():
            value = getattr(self, name)
            if not value >= least:
                raise ValueError(f"{flag_of(name)} is {value}; it must be at least {least}")
        if self.seed >= 2**32:
            raise ValueError(f"--seed is {self.seed}; it must be below {2**32}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"--lr is {self.lr}; it must be above 0 and finite")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"--flip is {self.flip}; it must be a share, 0 to 1")


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for every field of :class:`RunConfig`."""
    for item in fields(RunConfig):
        required = item.default is MISSING
        text = item.metadata["help"]
        if item.type is bool:
            parser.add_argument(flag_of(item.name), action="store_true", help=text)
            continue
        if not required and item.default != "":
            text += f" (default {item.default})"
        parser.add_argument(flag_of(item.name), type=item.type if callable(item.type) else str, required=required,
                            default=None if required else item.default, help=text)
