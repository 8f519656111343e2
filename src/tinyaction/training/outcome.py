"""What every kind of run leaves: checkpoint, facts in config.json, simpler models beside it, the page."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tinyaction.data.annotations import DataFolder
from tinyaction.data.dataset import VideoDataset
from tinyaction.models import model_arguments
from tinyaction.models.checkpoint import Checkpoint
from tinyaction.models.recognizer import Recognizer
from tinyaction.prepare.synthetic import is_stand_in
from tinyaction.results.report import write_report
from tinyaction.results.run import RunFolder
from tinyaction.results.shortcuts import Shortcut, shortcut_sentences, write_shortcuts
from tinyaction.text import shell_line
from tinyaction.training.build import STAND_IN, eval_arguments
from tinyaction.training.config import RunConfig, default_hyperparameters, flag_of, timeline_hyperparameters
from tinyaction.training.identity import ListIdentity, fingerprint, origin
from tinyaction.training.shortcuts import most_frequent


def checkpoint_of(
    config: RunConfig, model: Recognizer, class_names: list[str], *, epoch: int, metrics: dict[str, float],
    thresholds: Sequence[float] = (),
) -> Checkpoint:
    """The weights of ``model`` and all else that a prediction needs."""
    return Checkpoint(model_arguments(config.model, model), model.state_dict(), class_names, eval_arguments(config),
                      epoch=epoch, metrics=metrics, config=asdict(config), stand_in=is_stand_in(config.data),
                      thresholds=list(thresholds))


def run_facts(
    config: RunConfig, data: DataFolder, *, device: object, lists: Sequence[ListIdentity] = ()
) -> dict[str, Any]:
    """What config.json says of every run: flags, classes, data, versions, the command and the time of it.

    ``lists`` are those of training and validation, where they have been computed already.
    """
    folder = data.folder or Path(config.data)
    return {**asdict(config), "class_names": data.class_names, "stand_in": is_stand_in(config.data),
            "device_used": str(device), "num_train": len(data.train), "num_val": len(data.val),
            "most_frequent_class": "" if data.is_multi_label else data.class_names[most_frequent(data.train.labels)],
            "command": command_of(config),
            **origin(fingerprint(lists or [ListIdentity.of(videos, folder) for videos in (data.train, data.val)]))}


def command_of(config: RunConfig) -> str:
    """The command that makes this run again, with the flags that are not the usual ones of its network."""
    usual = default_hyperparameters(config.model, config.pretrained, config.method)
    usual |= timeline_hyperparameters(config.model) if config.task == "timeline" else {}
    words = ["tinyaction", "train"]
    for item in fields(RunConfig):
        value = getattr(config, item.name)
        if item.name not in ("model", "method") and value == usual.get(item.name, item.default) or item.name in (
                "out", "resume", "num_workers"):
            continue
        if isinstance(value, bool):
            words.append(flag_of(item.name) if value else f"--no-{flag_of(item.name)[2:]}")
        else:
            words += [flag_of(item.name), str(value)]
    return shell_line(*words)


def add_shortcuts(run: RunFolder, config: RunConfig, find: Callable[[], list[Shortcut]]) -> None:
    """Write what simpler models get, and log what matters of it, or why there is none: the run itself is whole."""
    if config.shortcuts == "none" or config.multi_label:
        return
    try:
        found = find()
        write_shortcuts(run.path, found)
        for sentence in shortcut_sentences(found):
            run.log(f"note: {sentence}")
    except (ValueError, OSError) as error:
        run.log(f"nothing on simpler models: {error}")


def write_page(run: RunFolder, config: RunConfig, train_set: VideoDataset, val_set: VideoDataset) -> None:
    """Write the report, and log a failure instead of raising: the run itself is whole."""
    stand_in = is_stand_in(config.data)
    try:
        page = write_report(run.path, train_set=train_set, val_set=val_set, notice=STAND_IN if stand_in else "")
        run.log(f"report:   {page}")
    except (ValueError, OSError) as error:
        run.log(f"no report: {error}; try again with: {shell_line('tinyaction', 'report', run.path)}")
    if stand_in:
        run.log(STAND_IN)
