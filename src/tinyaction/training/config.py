"""One dataclass holds a run: its fields are the flags of ``train.py``, and it is stored in the checkpoint."""

import math
from dataclasses import dataclass, field
from typing import Any

from tinyaction.data.pipelines import AUGMENTATIONS, CROPS, NUM_CROPS
from tinyaction.device import default_num_workers
from tinyaction.models.create import GUIDE_MODELS, all_models, input_rule


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def _by_recipe(text: str) -> Any:
    """A flag whose default is the recipe's for the model and its weights; None only until __post_init__."""
    return field(default=None, metadata={"help": text + "; default by the model and its weights"})


@dataclass
class RunConfig:
    data: str = field(metadata={"help": "folder of the videos and their lists, a CSV, or class folders"})
    store: str = _flag("", "read frames from a store beside the data, made first if it is missing: jpeg or raw")
    model: str = _flag("conv2d", "name of the recognizer; `tinyaction models` lists them")
    weights: str = _flag("", "pretrained weights: imagenet, kinetics, or a file; default none")
    epochs: int = _by_recipe("times over the training videos")
    batch_size: int = _flag(8, "videos of a batch")
    lr: float = _by_recipe("highest learning rate, for a batch of 8 videos; other batches in proportion")
    optimizer: str = _by_recipe("sgd, adam or adamw")
    weight_decay: float = _by_recipe("of the optimizer")
    warmup_epochs: float = _flag(1.0, "epochs over which the learning rate rises; then it falls as a cosine")
    clip_grad_norm: float = _flag(10.0, "largest norm of the gradients; 0 clips nothing")
    grad_accum: int = _flag(1, "batches whose gradients make one step")
    amp: str = _flag("off", "number format: off (float32), bf16, fp16, or auto: what is faster on the device")
    compile: bool = _flag(False, "compile the network with torch.compile")
    num_workers: int = _flag(-1, "processes that decode; 0 decodes in the main process, -1 is one a core")
    clip_len: int = _by_recipe("frames of a clip")
    num_clips: int = _flag(1, "clips of a validation video, whose scores are averaged")
    train_clips: int = _flag(1, "clips of a training video in each epoch")
    size: int = _by_recipe("side of the square that the network sees, in pixels")
    head_lr: float = _by_recipe("learning rate of the head, as a multiple of --lr")
    freeze: str = _flag("0", "stages of the backbone, from the input on, that stay as they are: a number, or all")
    freeze_norms: bool = _by_recipe("all batch norms stay as they are")
    label_smoothing: float = _by_recipe("share of a target that is spread over all classes")
    mixup: float = _flag(0.0, "mix pairs of videos, by shares of a Beta distribution of this alpha; 0 mixes nothing")
    class_weights: bool = _flag(False, "rare classes count more in the loss, so that each counts alike")
    balanced: bool = _flag(False, "rare classes are drawn more often, so that each comes equally often")
    ema: float = _flag(0.0, "evaluate and save a moving average of the weights, of this decay, such as 0.99")
    patience: int = _flag(0, "epochs without a better one after which training ends; 0 goes on to the last")
    augment: str = _flag("basic", "training clips: none, basic (box and flip), randaugment or color (and these)")
    crop: str = _flag("resized", "random box of a training clip: resized (any area and shape) or multiscale (TSN's)")
    num_crops: int = _flag(1, "squares of each validation clip: 1 the centre, 3 along the long side, 10 and mirrored")
    max_views: int = _flag(0, "views that the network sees at once in evaluation, to bound memory; 0 sees all")
    flip_pairs: str = _flag("", "classes that change places when mirrored: 'turn left=turn right,...'")
    flip: float = _flag(0.5, "share of training videos that are mirrored; 0 where left and right matter")
    seed: int = _flag(0, "of every random draw")
    device: str = _flag("auto", "auto, cpu, cuda, mps")
    tensorboard: bool = _flag(False, "write the columns of metrics.csv for TensorBoard as well")
    out: str = _flag("", "folder of the run; default a new one under runs/")
    save_every: int = _flag(0, "steps after which last.pt is written; 0 only at the end of each epoch")
    on_error: str = _flag("raise", "raise: stop at a video that cannot be read; skip: leave it out, and say so")
    max_bad: float = _flag(0.1, "with --on-error skip, the share of videos that may be left out")
    time_limit: float = _flag(300.0, "seconds in which a worker must have read a video")
    allow_outside: bool = _flag(False, "lists may name videos outside the data folder, by ../ or from the root")
    resume: str = _flag("", "folder of a run to go on with, exactly where it stopped; its own flags hold")

    # What a resumed run may be given anew: it changes neither the weights nor the metrics.
    MAY_CHANGE = ("data", "num_workers", "device", "save_every", "on_error", "max_bad", "time_limit", "resume")
    REFERENCE_BATCH_SIZE = 8  # the batch that ``lr`` is meant for

    def __post_init__(self) -> None:
        for name, value in recipe(self.model, self.weights).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.num_workers == -1:
            self.num_workers = default_num_workers()
        rules = {
            "epochs": 1, "batch_size": 1, "clip_len": 1, "num_clips": 1, "train_clips": 1, "size": 1, "num_workers": 0,
            "seed": 0, "save_every": 0, "warmup_epochs": 0, "grad_accum": 1, "clip_grad_norm": 0, "weight_decay": 0,
            "mixup": 0, "patience": 0, "max_views": 0,
        }
        for name, least in rules.items():
            value = getattr(self, name)
            if not value >= least:
                raise ValueError(f"{flag_of(name)} is {value}; it must be at least {least}")
        if self.store not in ("", "jpeg", "raw"):
            raise ValueError(f"--store is {self.store!r}; it must be jpeg or raw")
        if self.amp not in ("off", "auto", "bf16", "fp16"):
            raise ValueError(f"--amp is {self.amp!r}; it must be off, auto, bf16 or fp16")
        if self.seed >= 2**32:
            raise ValueError(f"--seed is {self.seed}; it must be below {2**32}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"--lr is {self.lr}; it must be above 0 and finite")
        if not 0 < self.head_lr < math.inf:
            raise ValueError(f"--head-lr is {self.head_lr}; it must be above 0 and finite")
        for name in ("label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{flag_of(name)} is {getattr(self, name)}; it must be at least 0 and below 1")
        for name, choices in {"augment": AUGMENTATIONS, "crop": CROPS, "num_crops": NUM_CROPS}.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{flag_of(name)} is {getattr(self, name)}; it must be one of "
                                 f"{', '.join(map(str, choices))}")
        if self.class_weights and self.balanced:
            raise ValueError("--class-weights and --balanced both make up for rare classes; take one of them")
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f"--on-error is {self.on_error!r}; it must be raise or skip")
        if not self.time_limit > 0:
            raise ValueError(f"--time-limit is {self.time_limit}; it must be above 0 seconds")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"--max-bad is {self.max_bad}; it must be a share, 0 to 1")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"--flip is {self.flip}; it must be a share, 0 to 1")


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def recipe(model: str, weights: str = "") -> dict[str, Any]:
    """What a run does where its flags do not say: fields of :class:`RunConfig`.

        the guide's networks       8 frames of 64 pixels, SGD 0.01, 30 epochs: seconds on a CPU
        other networks             frames and pixels of their own weights, SGD 0.01, 50 epochs
        with pretrained weights    AdamW, the head ten times as fast as the backbone, batch norms as they were loaded,
                                   soft labels, 20 epochs: for folders of tens to thousands of clips
    """
    values = {"clip_len": 8, "size": 64, "optimizer": "sgd", "lr": 0.01, "weight_decay": 1e-4, "epochs": 30,
              "head_lr": 1.0, "freeze_norms": False, "label_smoothing": 0.0}
    if model not in GUIDE_MODELS and model in all_models():  # an unknown name is an error later, by itself
        rule = input_rule(model)
        values |= {"clip_len": rule.clip_len, "size": rule.size, "epochs": 50}
    if weights:
        values |= {"optimizer": "adamw", "lr": 2e-4, "weight_decay": 0.01, "epochs": 20, "head_lr": 10.0,
                   "freeze_norms": True, "label_smoothing": 0.1}
    return values
