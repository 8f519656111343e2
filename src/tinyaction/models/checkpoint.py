"""Checkpoints: one plain dict, written atomically, read without running anything.

    format         FORMAT, so that other files are told apart
    model          {"name", "num_classes"}: the arguments of create_model
    state_dict     the weights
    class_names    list of K
    eval_pipeline  {"clip_len", "size", "num_clips"}: the arguments of data/pipelines.eval_pipeline
    epoch          epochs done
    metrics        of that epoch, on the validation videos
    config         the run's flags
    stand_in       True where the run trained on generated clips
    versions       of tinyaction and torch
    training       in last.pt only, what a resumed run goes on from; see tinyaction.training.resume
"""

import io
import os
import platform
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from tinyaction.models.create import create_model
from tinyaction.models.recognizer import Recognizer
from tinyaction.version import __version__

FORMAT = "tinyaction-1"

Checkpoint = dict[str, Any]


def versions() -> dict[str, str]:
    return {"tinyaction": __version__, "torch": str(torch.__version__), "python": platform.python_version()}


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, *, keep_previous: bool = False) -> None:
    """Write to a temporary file beside ``path``, flush it to the disk and rename it: never half a checkpoint.

    With ``keep_previous`` the one before stays beside it, as :func:`previous_of` names it.

    Raises:
        OSError: it could not be written, as on a full disk; what was there before is still there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    content = io.BytesIO()  # torch's own writer makes a RuntimeError, or an abort, of a full disk
    torch.save({"format": FORMAT, "versions": versions(), **checkpoint}, content)
    try:
        with open(temporary, "wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if keep_previous and path.exists():
            os.replace(path, previous_of(path))
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; the checkpoint could not be saved, the one before is whole",
                      str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def previous_of(path: str | Path) -> Path:
    """last.pt -> last.previous.pt"""
    path = Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def load_newest(path: str | Path) -> tuple[Checkpoint, str]:
    """The checkpoint at ``path``, or the one before where that is cut or missing; and a note where it was so.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_checkpoint`, of ``path``, where neither can be read.
    """
    try:
        return load_checkpoint(path), ""
    except (FileNotFoundError, ValueError) as error:
        try:
            return load_checkpoint(previous_of(path)), f"{error}; going on from {previous_of(path).name}"
        except (FileNotFoundError, ValueError):
            raise error from None


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint with ``weights_only=True``, onto the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, is cut, carries code, or is not one of tinyaction's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        with warnings.catch_warnings():  # of how foreign files are pickled
            warnings.simplefilter("ignore")
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises half a dozen kinds for a damaged file
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"reading it would run code, {code[1]}" if code else "it is damaged, cut, or of another kind"
        raise ValueError(f"{path}: not a readable checkpoint: {reason}") from None
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
        found = checkpoint.get("format") if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise ValueError(f"{path}: not a checkpoint of this version of tinyaction (format {found!r}, "
                         f"not {FORMAT!r}); use the version that wrote it, or train again")
    return checkpoint


def load_model(path: str | Path) -> tuple[Recognizer, Checkpoint]:
    """The recognizer of a checkpoint, in evaluation mode on the CPU, and the checkpoint's dict.

    Raises as :func:`load_checkpoint` does, and ValueError where the weights are not those of the model.
    """
    checkpoint = load_checkpoint(path)
    try:
        model = create_model(**checkpoint["model"])
        model.load_state_dict(checkpoint["state_dict"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: its model cannot be made ({reason[:160]})") from None
    return model.eval(), checkpoint
