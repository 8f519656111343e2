"""One dataclass holds a run: :class:`RunConfig`. Its fields are the flags of ``tinyaction train``."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tinyaction.data.pipelines import AUGMENTATIONS, CROPS, NUM_CROPS
from tinyaction.device import default_num_workers
from tinyaction.models.create import GUIDE_MODELS, all_models, input_rule, is_transformer, published_card
from tinyaction.models.model_card import ModelCard

AUTO = "auto"  # of --model; its run has None in the flags that depend on it, until choose_model has named it
BY_MODEL = None  # default of a flag that default_hyperparameters gives; no field is None after __post_init__


def flag(
    default: Any, text: str, *, group: str = "", metavar: str = "", choices: Sequence[Any] = (),
    at_least: float | None = None, above: float | None = None, below: float | None = None,
    within: tuple[float, float] | None = None,
) -> Any:
    """A field of :class:`RunConfig` with its help text and the rule for its values.

    Args:
        group: heading in the help; it holds for the following fields too, until the next one.
        metavar: what stands for the value in the help.
        within: lowest and highest value, both allowed.
    """
    if default is BY_MODEL:
        text += " (default by model and weights)"
    metadata = {"help": text, "group": group, "metavar": metavar, "choices": tuple(choices), "at_least": at_least,
                "above": above, "below": below, "within": within}
    return field(default=default, metadata=metadata)


@dataclass
class RunConfig:
    """All settings of a run. Values are checked: a wrong one is a ValueError that names the flag and the rule."""

    data: str = flag(MISSING, "folder with videos and lists, or with class folders", group="data", metavar="DIR")
    _: KW_ONLY
    store: str = flag("", "read frames from a store beside the data; it is made first if it is missing",
                      choices=("jpeg", "raw"))
    num_workers: int = flag(-1, "processes that decode; 0 decodes in the main process, -1 starts one per core",
                            at_least=-1)
    on_error: str = flag("raise", "at a video that cannot be read: stop, or leave it out and say so",
                         choices=("raise", "skip"))
    max_skipped: float = flag(0.1, "largest share of videos that --on-error skip may leave out", within=(0, 1))
    video_timeout: float = flag(300.0, "seconds in which a worker must have read a video, and other processes "
                                       "given a sign of life", above=0)
    allow_outside: bool = flag(False, "lists may name videos outside the data folder")
    group_by: str = flag("", "regular expression that finds a clip's group in its path, as its person or recording: "
                             "a group is never divided", metavar="REGEX")

    multi_label: bool = flag(False, "a video may have several labels, as in a CSV with wave;walk, which needs no flag")

    model: str = flag(AUTO, "name of the recognizer, `tinyaction models` lists them; auto is a pretrained one for "
                      "your clips and device", group="model", metavar="NAME")
    weights: str = flag("", "pretrained weights: imagenet, kinetics or another word of the model, "
                      "hub:OWNER/NAME, a folder, a file, or none", metavar="NAME")
    clip_len: int = flag(BY_MODEL, "frames of a clip", at_least=1)
    frame_interval: int = flag(BY_MODEL, "frames from one of a clip to the next, in a video of 30 a second; 0 spreads "
                                         "the clip over the video", at_least=0)
    size: int = flag(BY_MODEL, "side of the square that the network sees, in pixels", at_least=1)
    freeze: str = flag("0", "stages of the backbone to freeze, from the input on: a number, or all", metavar="N")
    freeze_norms: bool = flag(BY_MODEL, "freeze all batch norms")

    method: str = flag(BY_MODEL, "finetune trains the network; probe trains a linear classifier on its frozen "
                                 "features, in seconds; the third trains on from there and keeps the better",
                       group="method", choices=("finetune", "probe", "probe-then-finetune"))
    task: str = flag("clips", "clips have one label each; timeline finds segments in uncut videos, by a network over "
                              "time on frozen features", choices=("clips", "timeline"))
    stride: float = flag(0.2, "seconds of a step of a timeline", at_least=0.02)
    window: float = flag(1.0, "seconds that a network on clips sees around each step of a timeline", above=0)
    overlaps: bool = flag(False, "segments of a timeline may overlap: several classes at once")
    false_events: float = flag(0.0, "segments of a timeline that may be told in an hour in which nothing happens: the "
                                    "validation videos choose the lowest score that is told; 0 tells all", at_least=0)
    probe_views: int = flag(2, "clips of a video whose features a probe sees, and whose scores are averaged",
                            at_least=1)
    pooling: str = flag("auto", "what a probe sees of the frames: their mean; stats: mean, deviation and change; "
                                "order: trend over time; auto is chosen by cross-validation",
                        choices=("auto", "mean", "stats", "order"))

    folds: int = flag(0, "cross-validation over all videos, of training and of validation, in so many parts; groups "
                         "are kept whole", at_least=0)
    final: bool = flag(False, "after --folds, train on all videos as well: the best.pt of the run")

    epochs: int = flag(BY_MODEL, "passes over the training videos", group="training", at_least=1)
    batch_size: int = flag(8, "videos of a batch", at_least=1)
    grad_accum: int = flag(1, "batches that make one optimizer step", at_least=1)
    lr: float = flag(BY_MODEL, "highest learning rate for a batch of 8 videos; other batches in proportion", above=0)
    head_lr_multiplier: float = flag(BY_MODEL, "learning rate of the head, as a multiple of --lr", above=0)
    layer_decay: float = flag(BY_MODEL, "learning rate of each block of a transformer, as a multiple of that of "
                                        "the next; 1 is the same for all", above=0, within=(0, 1))
    warmup_epochs: float = flag(1.0, "epochs in which the learning rate rises; then it falls as a cosine",
                                at_least=0)
    optimizer: str = flag(BY_MODEL, "optimizer", choices=("sgd", "adam", "adamw"))
    weight_decay: float = flag(BY_MODEL, "weight decay of the optimizer", at_least=0)
    clip_grad_norm: float = flag(10.0, "largest norm of the gradients; 0 clips nothing", at_least=0)
    drop_path: float = flag(BY_MODEL, "share of the branches of a transformer's last block that are left out in "
                                      "training; less towards the input", within=(0, 0.9))
    label_smoothing: float = flag(BY_MODEL, "share of a target spread over all classes", at_least=0, below=1)
    class_weights: bool = flag(False, "weight rare classes more in the loss")
    balanced: bool = flag(False, "draw rare classes more often, so that each class comes equally often")
    ema: float = flag(0.0, "decay of a moving average of the weights, evaluated and saved in their place, as 0.99; "
                           "0 is none", at_least=0, below=1)
    patience: int = flag(0, "epochs without improvement after which training ends; 0 never ends early", at_least=0)
    amp: str = flag("auto", "number format: auto is bf16 or fp16 on CUDA and float32 elsewhere, off is float32",
                    choices=("auto", "off", "bf16", "fp16"))
    compile: bool = flag(False, "compile the network with torch.compile")
    checkpointing: bool = flag(False, "compute residual and transformer blocks again in the backward pass, which "
                                      "takes less memory and more time")
    sync_batch_norm: bool = flag(False, "batch norms see the videos of all processes, not of each alone")

    train_clips: int = flag(1, "clips of a training video in each epoch", group="augmentation", at_least=1)
    augment: str = flag("basic", "basic crops and mirrors; randaugment and color change colours as well",
                        choices=AUGMENTATIONS)
    crop: str = flag("resized", "random box of a training clip: any area and shape, or one of TSN's few",
                     choices=CROPS)
    flip: float = flag(0.5, "probability of mirroring a clip; 0 where left and right matter", within=(0, 1))
    flip_pairs: str = flag("", "classes that change places when mirrored: 'turn left=turn right,...'",
                           metavar="PAIRS")
    mixup: float = flag(0.0, "alpha of mixup's Beta distribution; 0 mixes nothing", at_least=0)

    num_clips: int = flag(1, "clips of a validation video, whose scores are averaged", group="evaluation", at_least=1)
    num_crops: int = flag(1, "squares of each validation clip: the centre, 3 along the long side, 10 also mirrored",
                          choices=NUM_CROPS)
    max_views: int = flag(0, "views that the network sees at once, to bound memory; 0 is all", at_least=0)

    shortcuts: str = flag("quick", "what simpler models get, in the report: quick takes at most about a fifth of one "
                                   "evaluation; all shows every video with other frames as well; or none",
                          choices=("quick", "all", "none"))
    unknown_rate: float = flag(0.0, "share of clips of the classes that may be told unknown, as 0.05: predict then "
                                    "says so of clips that are far from all classes; 0 never", at_least=0, below=1)
    background: str = flag("", "folder of clips that are none of the classes: they choose the threshold, where no "
                               "--unknown-rate does, and show what it finds", metavar="DIR")

    out: str = flag("", "folder of the run; default a new one under runs/", group="run", metavar="DIR")
    resume: str = flag("", "folder of a run to continue where it stopped, with its flags; on a CPU to the bit",
                       metavar="DIR")
    requeue: bool = flag(False, "where SLURM sends SIGUSR1, ask it to start the job again (scontrol requeue)")
    save_every: int = flag(0, "optimizer steps between saves of last.pt; 0 saves after each epoch", at_least=0)
    seed: int = flag(0, "seed of every random draw", at_least=0, below=2**32)
    device: str = flag("auto", "auto, cpu, cuda, cuda:1 or mps", metavar="NAME")
    tensorboard: bool = flag(False, "write the columns of metrics.csv for TensorBoard as well")
    track: str = flag("", "tell another program of each epoch", choices=("tensorboard", "mlflow", "wandb"))

    def __post_init__(self) -> None:
        is_auto = self.model == AUTO
        if is_auto and self.weights:
            raise ValueError(f"--weights is {self.weights!r}, but --model auto brings its own; name the model")
        if self.method is None and not is_auto:
            self.method = "probe-then-finetune" if self.pretrained and self.task == "clips" else "finetune"
        defaults = {} if is_auto else default_hyperparameters(self.model, self.pretrained, self.method)
        if self.task == "timeline":
            defaults |= timeline_hyperparameters(self.model)
        for name, value in defaults.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        for item in fields(self):
            if not (is_auto and getattr(self, item.name) is None and item.default is BY_MODEL):
                setattr(self, item.name, checked(item, getattr(self, item.name)))
        if self.num_workers == -1:
            self.num_workers = default_num_workers()
        if self.class_weights and self.balanced:
            raise ValueError("--class-weights and --balanced both make up for rare classes; take one of them")
        if self.sync_batch_norm and self.compile:
            raise ValueError("--sync-batch-norm does not go with --compile; leave one of them out")
        if self.method == "probe":
            check_probe(self)
        if self.task == "timeline":
            check_timeline(self)
        elif self.overlaps or self.false_events:
            name = "--overlaps" if self.overlaps else "--false-events"
            raise ValueError(f"{name} goes with --task timeline; leave it out")
        for name, is_given in (("--layer-decay", self.layer_decay != 1), ("--drop-path", self.drop_path != 0)):
            if is_given and not is_auto and not is_transformer(self.model):
                raise ValueError(f"{name} is for transformers with blocks, such as videomae-small, and not for "
                                 f"{self.model}; leave it out")
        check_folds(self)
        check_unknown(self)
        if self.multi_label:
            check_multi_label(self)

    @property
    def trackers(self) -> list[str]:
        return sorted({*(["tensorboard"] if self.tensorboard else []), *([self.track] if self.track else [])})

    @property
    def pretrained(self) -> str:
        """The weights that training begins with, "" for none."""
        return "" if self.weights == "none" else self.weights


def check_probe(config: RunConfig) -> None:
    """Raise ValueError for flags that a probe would pass over without a word."""
    for name, is_given, advice in (
        ("--resume", bool(config.resume), "start it again: its features are kept"),
        ("--num-clips", config.num_clips != 1, "the views of a probe are --probe-views"),
        ("--balanced", config.balanced, "take --class-weights"),
        ("--ema", config.ema > 0, "leave it out"),
        ("--mixup", config.mixup > 0, "leave it out"),
        ("--patience", config.patience > 0, "leave it out"),
    ):
        if is_given:
            raise ValueError(f"{name} goes with --method finetune and not with --method probe; {advice}")


def check_unknown(config: RunConfig) -> None:
    """Raise ValueError where a threshold for "unknown" cannot be stored, or not be measured."""
    for name, is_given in (("--unknown-rate", config.unknown_rate > 0), ("--background", bool(config.background))):
        if is_given and config.folds and not config.final:
            raise ValueError(f"{name} is stored in best.pt, which --folds leaves only with --final; add --final")
        if is_given and config.folds and config.method != "probe":
            raise ValueError(f"{name} with --folds goes with --method probe; the features of a fine-tuned network are "
                             "others in each fold")


def timeline_hyperparameters(model: str) -> dict[str, Any]:
    """Defaults of ``--task timeline``, chosen on generated streams; a network on frames sees one frame a step."""
    values: dict[str, Any] = {"optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-4, "epochs": 30,
                              "label_smoothing": 0.0}
    return values | ({"clip_len": 1} if model == "conv2d" or model.startswith("tsn-") else {})


def check_timeline(config: RunConfig) -> None:
    """Raise ValueError for flags that a timeline would pass over without a word."""
    for name, is_given, advice in (
        (f"--method {config.method}", config.method not in (None, "finetune"), "a network over time is trained, on "
                                                                               "frozen features"),
        ("--model auto", config.model == AUTO, "name a model, as --model tsn-mobilenet_v2 --weights imagenet"),
        ("--resume", bool(config.resume), "start it again: its features are kept"),
        ("--store", bool(config.store), "its features are kept"),
        ("--optimizer", config.optimizer != "adamw", "AdamW trains it"),
        *((flag_of(name), getattr(config, name) != usual, "leave it out") for name, usual in (
            ("class_weights", False), ("balanced", False), ("ema", 0), ("mixup", 0), ("patience", 0),
            ("label_smoothing", 0), ("grad_accum", 1), ("num_crops", 1), ("num_clips", 1), ("compile", False),
            ("group_by", ""), ("folds", 0), ("layer_decay", 1), ("drop_path", 0), ("frame_interval", 0),
            ("background", ""))),
        ("--unknown-rate with --overlaps", config.overlaps and config.unknown_rate > 0,
         "leave one out: what goes on at once lies between the classes"),
    ):
        if is_given:
            raise ValueError(f"{name} does not go with --task timeline; {advice}")


def check_folds(config: RunConfig) -> None:
    """Raise ValueError for flags that do not go with ``--folds``, or only with it."""
    if config.folds == 1:
        raise ValueError("--folds is 1; it must be at least 2, as each part is tested by training on the others")
    if config.final and not config.folds:
        raise ValueError("--final goes with --folds; without them best.pt is trained on the training videos anyway")
    for name, is_given, advice in (
        ("--resume", bool(config.resume), "start it again: the features of a probe are kept"),
        ("--patience", config.patience > 0, "it would choose the epoch on the videos that are held out: leave it out"),
    ):
        if config.folds and is_given:
            raise ValueError(f"{name} does not go with --folds; {advice}")


def check_multi_label(config: RunConfig) -> None:
    """Raise ValueError for flags that know one label a video only."""
    for name, is_given, advice in (
        ("--balanced", config.balanced, "take --class-weights"),
        ("--task timeline", config.task == "timeline", "leave out --multi-label"),
        ("--unknown-rate", config.unknown_rate > 0, "leave it out: a video may have none of the labels"),
        ("--background", bool(config.background), "leave it out"),
    ):
        if is_given:
            raise ValueError(f"{name} goes with one label a video, and here a video may have several; {advice}")


# Flags that a resumed run may change: neither weights nor metrics depend on them.
MAY_CHANGE = ("data", "num_workers", "device", "save_every", "on_error", "max_skipped", "video_timeout", "resume",
              "requeue", "checkpointing", "tensorboard", "track", "allow_outside", "shortcuts")
REFERENCE_BATCH_SIZE = 8  # the batch that ``lr`` is meant for
FACTS = ("lr_of_the_batch", "class_names", "stand_in", "device_used", "num_train", "num_val", "versions",
         "probe", "finetune", "cross_validation", "unknown", "timeline", "num_processes", "job", "launcher",
         "command", "date", "data_fingerprint", "most_frequent_class")
OLD_NAMES = {"head_lr": "head_lr_multiplier", "max_bad": "max_skipped", "time_limit": "video_timeout"}


def checked(item: "Field[Any]", value: Any) -> Any:
    """The value of a field, an int where a float is meant as a float; ValueError names the flag and its rule."""
    name, rule = flag_of(item.name), item.metadata
    assert isinstance(item.type, type)
    if item.type is float and type(value) is int:
        value = float(value)
    if type(value) is not item.type:
        kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        raise ValueError(f"{name} is {value!r}; it must be {kinds[item.type]}")
    if rule["choices"] and value not in rule["choices"] and value != item.default:
        *most, last = map(str, rule["choices"])
        raise ValueError(f"{name} is {value!r}; it must be {', '.join(most)} or {last}")
    low, high = rule["within"] or (rule["at_least"], None)
    sentences = [text for is_wrong, text in [
        (low is not None and not value >= low, f"at least {low}"),
        (rule["above"] is not None and not value > rule["above"], f"above {rule['above']}"),
        (high is not None and not value <= high, f"at most {high}"),
        (rule["below"] is not None and not value < rule["below"], f"below {rule['below']}"),
        (isinstance(value, float) and not math.isfinite(value), "finite"),
    ] if is_wrong]
    if sentences:
        raise ValueError(f"{name} is {value}; it must be {sentences[0]}")
    return value


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def read_flags(path: str | Path) -> dict[str, Any]:
    """Read the flags in a run's ``config.json``, name -> value; those of earlier versions get their new names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not the config of a run, or names an unknown flag.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a run folder has a config.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not the config of a run ({error})") from None
    return known_flags(content, source=str(path))


def known_flags(content: Any, *, source: str) -> dict[str, Any]:
    """The flags among what a run wrote down about itself; ValueError for a name that is neither flag nor fact."""
    if not isinstance(content, Mapping) or "data" not in content:
        raise ValueError(f"{source}: not the config of a run; it must be an object with the name 'data'")
    names = [item.name for item in fields(RunConfig)]
    flags: dict[str, Any] = {OLD_NAMES.get(str(name), str(name)): value for name, value in content.items()
                             if name not in FACTS}
    for name in flags:
        if name not in names:
            close = get_close_matches(str(name), names, n=1)
            raise ValueError(f"{source}: {name!r} is no flag of tinyaction train"
                             + (f"; did you mean {close[0]!r}?" if close else ""))
    return flags


def default_hyperparameters(model: str, weights: str = "", method: str = "finetune") -> dict[str, Any]:
    """Values of the fields of :class:`RunConfig` whose default depends on the model and its weights.

        the guide's networks       8 frames of 64 pixels, SGD 0.01, 30 epochs: seconds on a CPU
        other networks             frames and pixels of their own weights, SGD 0.01, 50 epochs
        with pretrained weights    AdamW, the head ten times as fast as the backbone, batch norms frozen, soft labels,
                                   20 epochs: for folders of tens to thousands of clips
        published transformers     VideoMAE's recipe (Tong et al. 2022, its table of fine-tuning): AdamW, weight decay
                                   0.05, soft labels, drop path 0.1, rates that fall by 0.75 a block towards the input;
                                   its rate of 1e-3 for 256 clips is 3e-5 for 8
        ... that begin with a probe    a quarter of that rate and the same for the head, which is trained already; no
                                   soft labels, whose first steps would undo what makes the probe sure
    """
    values: dict[str, Any] = {
        "clip_len": 8, "size": 64, "frame_interval": 0, "optimizer": "sgd", "lr": 0.01, "weight_decay": 1e-4,
        "epochs": 30, "head_lr_multiplier": 1.0, "layer_decay": 1.0, "freeze_norms": False, "label_smoothing": 0.0,
        "drop_path": 0.0}
    if model not in GUIDE_MODELS and (model in all_models() or published_card(model)):  # unknown names are for later
        rule = input_rule(model, weights)
        values |= {"clip_len": rule.clip_len, "size": rule.size, "epochs": 50,
                   "frame_interval": (rule.frame_interval or 0) if isinstance(rule, ModelCard) else 0}
    if weights:
        values |= {"optimizer": "adamw", "lr": 2e-4, "weight_decay": 0.01, "epochs": 20, "head_lr_multiplier": 10.0,
                   "freeze_norms": True, "label_smoothing": 0.1}
    if weights and is_transformer(model):
        values |= {"lr": 3e-5, "weight_decay": 0.05, "layer_decay": 0.75, "drop_path": 0.1}
    if method == "probe-then-finetune":
        values |= {"head_lr_multiplier": 1.0, "label_smoothing": 0.0, "lr": values["lr"] / 4}
    return values
