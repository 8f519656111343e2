"""A checkpoint: all that a prediction needs; ``last.pt`` also holds all that a resumed run needs.

A dataclass in Python, one plain dict on the disk: written whole, read without running anything.
"""

import io
import platform
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from tinyaction.files import whole_file
from tinyaction.models.create import create_model, model_arguments
from tinyaction.models.model_card import PublishedModel
from tinyaction.models.recognizer import Recognizer
from tinyaction.models.temporal import TemporalNetwork, TimelineModel
from tinyaction.models.torch_file import check_finite, read_torch_file
from tinyaction.models.unknown import Unknown
from tinyaction.place_file import local_copy
from tinyaction.places import is_place, suffix_of, without_secrets
from tinyaction.text import check_class_names
from tinyaction.version import __version__

FORMAT = "tinyaction-1"  # the layout on the disk; it has not changed since the first version
MAX_VIDEO_BYTES = 4 << 30  # of the pixels of one video, as eval_pipeline describes them


def versions() -> dict[str, str]:
    return {"tinyaction": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


class TimelineModelError(ValueError):
    """A model of timelines where one of clips is asked for."""


@dataclass
class BestEpoch:
    """The epoch with the highest validation accuracy, then the lowest loss."""

    epoch: int  # from 0
    top1: float  # of several labels mAP
    loss: float


@dataclass
class SavedTraining:
    """State from which a run resumes; see :mod:`tinyaction.training.resume`."""

    state: dict[str, Any]  # where training is: the fields of TrainState
    objects: dict[str, Any] = field(repr=False)  # name -> state dict of the model, the optimizer, the loader ...
    random: dict[str, Any] = field(repr=False)  # the states of all random generators
    identity: dict[str, Any]  # the fields of RunIdentity, which must be the same in the resumed run
    best: BestEpoch | None = None  # None before the end of the first epoch
    ranks: list[dict[str, Any]] = field(default_factory=list, repr=False)  # position and random state of each process


@dataclass
class Checkpoint:
    """A recognizer and how it was made."""

    model: dict[str, Any]  # the arguments of create_model
    state_dict: dict[str, torch.Tensor] = field(repr=False)
    class_names: list[str]
    eval_pipeline: dict[str, Any]  # the arguments of data.pipelines.eval_pipeline
    epoch: int = 0  # epochs done
    metrics: dict[str, float] = field(default_factory=dict)  # of the last epoch done: its row of metrics.csv
    config: dict[str, Any] = field(default_factory=dict)  # the run's flags
    stand_in: bool = False  # True where the run trained on generated clips
    versions: dict[str, str] = field(default_factory=versions)
    thresholds: list[float] = field(default_factory=list)  # of several labels, by class; empty where there is one
    training: SavedTraining | None = None  # in last.pt only
    unknown: Unknown | None = None  # where ``--unknown-rate`` or ``--background`` asked for it
    timeline: dict[str, Any] = field(default_factory=dict)  # the settings of a TimelineModel; of others empty

    def save(self, path: str | Path, *, keep_previous: bool = False) -> None:
        """Write the file whole or not at all; with ``keep_previous`` keep the one before as :func:`previous_of`.

        Raises:
            OSError: it could not be written, as on a full disk; the file before is still there.
        """
        config = {name: without_secrets(value) if isinstance(value, str) else value
                  for name, value in self.config.items()}
        content = {"format": FORMAT, **vars(self), "config": config, "training": _training_to_dict(self.training)}
        if self.training is None:
            del content["training"]
        content["unknown"] = vars(self.unknown) if self.unknown else None
        if self.unknown is None:
            del content["unknown"]
        if not self.thresholds:
            del content["thresholds"]
        if not self.timeline:
            del content["timeline"]
        data = io.BytesIO()  # torch's own writer makes a RuntimeError, or an abort, of a full disk
        torch.save(content, data)
        try:
            with whole_file(path, keep_old_as=previous_of(path) if keep_previous else None) as part:
                part.write_bytes(data.getbuffer())
        except OSError as error:
            before = ", the one before is whole" if Path(path).exists() else ""
            raise OSError(error.errno, f"{error.strerror}; the checkpoint could not be saved{before}",
                          str(path)) from None

    @classmethod
    def load(cls, path: str | Path) -> "Checkpoint":
        """Read a checkpoint onto the CPU; of a run folder its ``best.pt``. It may lie elsewhere, as s3://bucket/a.pt.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no checkpoint of tinyaction, is damaged or cut, names code, or its values are impossible.
        """
        path = checkpoint_file(path)
        if is_place(path):
            with local_copy(path) as copy:
                try:
                    return cls.load(copy)
                except ValueError as error:
                    raise ValueError(str(error).replace(str(copy), without_secrets(str(path)))) from None
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such checkpoint")
        content = read_torch_file(path)
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        if not isinstance(content, dict) or found != FORMAT:
            raise ValueError(f"{path}: not a checkpoint of this version of tinyaction (format {found!r}, "
                             f"not {FORMAT!r}); use the version that wrote it, or train again")
        try:
            values = {item.name: content[item.name] for item in fields(cls) if item.name in content}
            unknown = Unknown(**content["unknown"]) if content.get("unknown") else None
            checkpoint = cls(**values | {"training": _training_from_dict(content.get("training")), "unknown": unknown})
            _check(checkpoint)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path}: not a usable checkpoint: {reason[:200]}") from None
        return checkpoint


def checkpoint_file(path: str | Path) -> Path:
    """The file itself, or the best.pt of a run folder."""
    is_folder = suffix_of(path) not in (".pt", ".pth") if is_place(path) else Path(path).is_dir()
    return Path(path, "best.pt") if is_folder else Path(path)


def _training_to_dict(training: SavedTraining | None) -> dict[str, Any] | None:
    if training is None:
        return None
    return {**vars(training), "best": {} if training.best is None else vars(training.best)}


def _training_from_dict(content: dict[str, Any] | None) -> SavedTraining | None:
    if content is None:
        return None
    content = dict(content)
    best = content.pop("best")
    videos = content.pop("videos", None)                               # of the first version: the only identity
    identity = content.pop("identity", {"videos": videos})
    return SavedTraining(**content, identity=identity, best=BestEpoch(**best) if best else None)


def _check(checkpoint: Checkpoint) -> None:
    """Raise ValueError for an impossible value, before it allocates anything large."""
    names = checkpoint.class_names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its class_names are no list of names")
    check_class_names(names, "its class_names")
    if not checkpoint.timeline and checkpoint.model["num_classes"] != len(names):
        raise ValueError(f"it has {len(names)} class names and {checkpoint.model['num_classes']} classes")
    if checkpoint.unknown is not None and len(checkpoint.unknown.class_means) != len(names):
        raise ValueError(f"it has {len(names)} class names and {len(checkpoint.unknown.class_means)} class means")
    num_bytes = 3
    for name, value in checkpoint.eval_pipeline.items():
        if type(value) is int and value < 1:
            raise ValueError(f"its {name} is {value}; it must be at least 1")
        if name in ("clip_len", "size", "num_clips", "num_crops"):
            num_bytes *= value ** (2 if name == "size" else 1) if type(value) is int else 1
    if num_bytes > MAX_VIDEO_BYTES:
        raise ValueError(f"its eval_pipeline {checkpoint.eval_pipeline} asks for {num_bytes / 1e6:,.0f} MB a video; "
                         f"it may be {MAX_VIDEO_BYTES / 1e6:,.0f} MB at most")
    is_multi_label = checkpoint.model.get("activation") == "sigmoid"
    if len(checkpoint.thresholds) != (len(names) if is_multi_label else 0) or not all(
            isinstance(value, float) and 0 <= value <= 1 for value in checkpoint.thresholds):
        raise ValueError(f"its thresholds are {str(checkpoint.thresholds)[:60]}; a model of several labels has one "
                         "from 0 to 1 for each class, others have none")
    check_finite(checkpoint.state_dict)


def previous_of(path: str | Path) -> Path:
    """last.pt -> last.previous.pt"""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def load_newest(path: str | Path) -> tuple[Checkpoint, str]:
    """Load ``path``, or its :func:`previous_of` if it is damaged or missing; returns the checkpoint and a note.

    Raises:
        FileNotFoundError, ValueError: as :meth:`Checkpoint.load`, of ``path``, where neither can be read.
    """
    try:
        return Checkpoint.load(path), ""
    except (FileNotFoundError, ValueError) as error:
        try:
            return Checkpoint.load(previous_of(path)), f"{error}; going on from {previous_of(path).name}"
        except (FileNotFoundError, ValueError):
            raise error from None


def load_model(path: str | Path) -> tuple[Recognizer, Checkpoint]:
    """Build the recognizer of a checkpoint, in evaluation mode on the CPU; return both.

    Raises as :meth:`Checkpoint.load` does, ValueError where the weights are not those of the model, and
    TimelineModelError where it is one of :func:`load_timeline_model`.
    """
    checkpoint = Checkpoint.load(path)
    if checkpoint.timeline:
        raise TimelineModelError(f"{path}: a model of timelines (train --task timeline), not of clips; tinyaction "
                                 "predict takes it, and tinyaction evaluate --task timeline")
    try:
        model = create_model(**checkpoint.model)
        model.load_state_dict(checkpoint.state_dict)
        if checkpoint.unknown is not None:
            model.cls_head.temperature = checkpoint.unknown.temperature
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: its model cannot be made ({reason[:160]})") from None
    return model.eval(), checkpoint


def load_timeline_model(path: str | Path) -> tuple[TimelineModel, Checkpoint]:
    """The same of a checkpoint that ``--task timeline`` wrote; ValueError of any other."""
    checkpoint = Checkpoint.load(path)
    if not checkpoint.timeline:
        raise ValueError(f"{path}: a model of clips; give the checkpoint of a run with --task timeline")
    try:
        settings = dict(checkpoint.timeline)
        temporal = TemporalNetwork(**settings.pop("network"))
        if checkpoint.state_dict["temporal.basis"].shape != temporal.basis.shape:
            raise ValueError("its network over time is that of an earlier version of tinyaction; use the version that "
                             "wrote it, or train again")
        model = TimelineModel(create_model(**checkpoint.model), temporal, **settings)
        model.load_state_dict(checkpoint.state_dict)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: its model cannot be made ({reason[:160]})") from None
    return model.eval(), checkpoint


def checkpoint_of(model: Recognizer) -> Checkpoint:
    """Make a checkpoint of a recognizer with published weights, with its published classes and input.

    Raises:
        ValueError: nothing is published of it, or it has a new classifier.
    """
    known = model.published
    if known is None or not known.class_names:
        raise ValueError("this recognizer has no published class names, as tinyaction.load_pretrained gives without "
                         "num_classes; train it first, and use the checkpoint of the run")
    return Checkpoint(model_arguments(known.name, model), model.state_dict(), list(known.class_names),
                      published_pipeline(known))


def published_pipeline(known: PublishedModel) -> dict[str, Any]:
    """The arguments of data.pipelines.eval_pipeline for the clips that were published."""
    return {"clip_len": known.clip_len, "size": known.size, "num_clips": 1, "short_side": known.short_side,
            "frame_interval": known.frame_interval, "antialias": known.antialias}
