"""Interrupt and resume a run: what ``last.pt`` saves, when, on which signals, and ``--resume``."""

import logging
import math
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch

from tinyaction.data.loader import VideoLoader
from tinyaction.models.checkpoint import BestEpoch, Checkpoint, SavedTraining, load_newest, previous_of
from tinyaction.places import is_place, url_of, without_secrets
from tinyaction.results.run import RunFolder
from tinyaction.text import shell_line
from tinyaction.training.config import MAY_CHANGE, RunConfig, flag_of, known_flags, read_flags
from tinyaction.training.distributed import gather_objects, num_processes, rank
from tinyaction.training.fetched_run import check_same_start, config_of_place, file_of_main
from tinyaction.training.identity import RunIdentity, differences
from tinyaction.training.loop import TrainState
from tinyaction.training.peers import PeerFailedError, TrainingInterrupted
from tinyaction.training.rounds import RoundLoader
from tinyaction.video import VideoError

logger = logging.getLogger(__name__)

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
MAX_THREADS = 1024  # a larger number means a damaged file
DAMAGE = (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError, OverflowError)


class Stateful(Protocol):
    """An object whose state is saved: model, optimizer, scaler, average of weights, loader."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any, /) -> Any: ...


def training_state(state: TrainState, objects: Mapping[str, Stateful]) -> dict[str, Any]:
    """Collect what an exact resume needs: position, states of the objects, all random generators."""
    return {"state": asdict(state), "objects": {name: thing.state_dict() for name, thing in objects.items()},
            "random": random_state()}


def restore_training(saved: Mapping[str, Any], objects: Mapping[str, Stateful]) -> TrainState:
    """Restore a :func:`training_state` and return the position of the run.

    Raises:
        ValueError: other objects were saved, a state does not fit its object, or the saved state is damaged.
    """
    try:
        if saved["objects"].keys() != objects.keys():
            raise ValueError(f"the run was saved with {', '.join(saved['objects'])}, now there are "
                             f"{', '.join(objects)}")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the saved training state is damaged ({_reason(error)})") from None
    for name, thing in objects.items():
        try:
            thing.load_state_dict(saved["objects"][name])
            if isinstance(thing, torch.optim.Optimizer):
                check_optimizer(thing)
        except DAMAGE as error:
            raise ValueError(f"the saved {name} does not fit: {_reason(error)}") from None
    try:
        set_random_state(saved["random"])
        return checked_state(saved["state"])
    except DAMAGE as error:
        raise ValueError(f"the saved training state is damaged ({_reason(error)})") from None


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError for a restored state that ``step()`` would fail on."""
    for group in optimizer.param_groups:
        numbers = [value for name, value in group.items() if name in ("lr", "weight_decay", "momentum", "lr_scale")]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
            raise ValueError("a rate is not a finite number")
        for parameter in group["params"]:
            for name, value in optimizer.state.get(parameter, {}).items():
                if name == "step" or value is None:
                    continue
                if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
                    raise ValueError(f"{name} has not the shape of its parameter, {tuple(parameter.shape)}")


def checked_state(saved: Mapping[str, Any]) -> TrainState:
    """Check a saved position. Raises ValueError or TypeError for an impossible value."""
    for item in fields(TrainState):
        value = saved[item.name]
        if type(value) is not item.type or not value >= 0 or not math.isfinite(value):
            raise ValueError(f"{item.name} is {value!r}")
    return TrainState(**saved)


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


def random_state() -> dict[str, Any]:
    """Collect the states of all global generators, as types that ``weights_only`` reads, and the number of threads.

    The number of threads changes the last bits of a sum on a CPU.
    """
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
        "num_threads": torch.get_num_threads(),
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore a :func:`random_state`."""
    kind, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    num_threads = state.get("num_threads", torch.get_num_threads())
    if not 1 <= num_threads <= MAX_THREADS:
        raise ValueError(f"num_threads is {num_threads}")
    torch.set_num_threads(num_threads)
    if len(state["cuda"]) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all(state["cuda"])


def own_part(saved: Mapping[str, Any], rank: int, num_processes: int) -> dict[str, Any]:
    """Take from a saved training state what process ``rank`` of ``num_processes`` restores.

    Each gets its own part where as many processes saved it; otherwise rank 0 gets the sums of all of them.
    """
    parts = saved["ranks"] or [{"state": saved["state"], "loader": saved["objects"]["train_loader"],
                                "random": saved["random"]}]
    if len(parts) == num_processes:
        own = parts[rank]
    else:
        state, loader = dict(parts[0]["state"]), dict(parts[0]["loader"])
        for name in ("total_loss", "num_right", "num_videos"):
            state[name] = sum((part["state"][name] for part in parts), start=0 * state[name]) * (rank == 0)
        loader["bad"] = [video for part in parts for video in part["loader"]["bad"]] if rank == 0 else []
        own = {"state": state, "loader": loader, "random": parts[0]["random"]}
    never_again = {index: why for part in parts for index, why in part["loader"]["never_again"].items()}
    return {**saved, "state": own["state"], "random": own["random"],
            "objects": {**saved["objects"], "train_loader": {**own["loader"], "never_again": never_again}}}


class CheckpointManager:
    """Saves ``last.pt`` and resumes from it; on a CPU the resumed run is equal to the last bit.

    Each of several processes has one; all of them save together.

    Args:
        run: of rank 0, which writes; None in the others.
        objects: name -> object whose state training changes: model, optimizer, scaler, average.
        identity: must be the same when the run is resumed.
        content: returns the checkpoint without its training state; in rank 0.

    Attributes:
        train_loader, val_loader: to train with; they end training after a signal, in all processes alike.
        state: position of the run.
        best: the best epoch so far; None before the end of the first.
        metrics: columns of metrics.csv for the last complete epoch.
        thresholds: of several labels, those of that epoch; empty of one.
    """

    def __init__(self, folder: Path, run: RunFolder | None, *, train_loader: VideoLoader, val_loader: VideoLoader,
                 objects: dict[str, Stateful], identity: RunIdentity, save_every: int, grad_accum: int,
                 content: Callable[[], Checkpoint] | None = None) -> None:
        self.folder = folder
        self.run = run
        self.train_loader = RoundLoader(train_loader, "train", stop_signal=lambda: self.signum,
                                        may_stop=self.is_between_steps,
                                        all_or_none=bool(identity.flags.get("sync_batch_norm")))
        self.val_loader = RoundLoader(val_loader, "val", stop_signal=lambda: self.signum)
        self.objects = {**objects, "train_loader": self.train_loader}
        self.grad_accum = grad_accum
        self.identity = identity
        self.save_every = save_every
        self.content = content
        self.state = TrainState()
        self.best: BestEpoch | None = None
        self.metrics: dict[str, float] = {}
        self.thresholds: list[float] = []
        self.path = folder / "last.pt"
        self.signum = 0  # of the signal that came to this process
        self._is_resumed = False

    def restore(self) -> bool:
        """Resume from ``last.pt``; return False if the run stopped before saving one.

        Raises:
            ValueError: the run cannot be resumed exactly; every reason is named.
        """
        with file_of_main(self.path, self.run) as path:
            is_there = path.exists() or previous_of(path).exists()
            saved, note = load_newest(path) if is_there else (None, "")
            check_same_start(saved.training if saved else None, self.path)
        if saved is None:
            return False
        if saved.training is None or "train" not in (saved.training.identity or {}):
            raise ValueError(f"{self.path}: no training state of this version of tinyaction is in it; resume with the "
                             f"version that wrote it, or start a new run with --weights {self.path}")
        self._check_identity(saved.training.identity)
        try:
            own = own_part(vars(saved.training), rank(), num_processes())
            self.state = restore_training(own, self.objects)
            if own["objects"]["train_loader"]["epoch"] == self.state.epoch:  # batches of as many processes as now
                self.state.num_batches = self.train_loader.position
            self.metrics = {name: float(value) for name, value in saved.metrics.items()}
            self.thresholds = saved.thresholds
            best = saved.training.best
            self.best = best and BestEpoch(int(best.epoch), float(best.top1), float(best.loss))
        except DAMAGE as error:
            raise ValueError(f"{self.path}: {error}; start a new run with --weights "
                             f"{self.folder / 'best.pt'}") from None
        self._is_resumed = True
        if self.run is not None:
            self.run.forget_after(self.state.epoch)
            for line in [note, *config_notes(self.folder, saved.config)]:
                if line:
                    self.run.log(f"note: {line}")
            self.run.log(f"resumed in epoch {self.state.epoch + 1}, after {self.state.num_batches} of its batches")
        return True

    def _check_identity(self, saved: Any) -> None:
        try:
            found = differences(RunIdentity.load(saved), self.identity)
        except DAMAGE as error:
            raise ValueError(f"{self.path}: its training state is damaged ({_reason(error)}); start a new run with "
                             f"--weights {self.folder / 'best.pt'}") from None
        if found:
            raise ValueError(f"{self.folder} cannot go on: {'; '.join(found)}. Put that back, or start a new run "
                             f"with --weights {self.folder / 'best.pt'}")

    def save(self) -> None:
        """Write ``last.pt``, in rank 0. All processes must call it."""
        parts = gather_objects({"state": asdict(self.state), "loader": self.train_loader.state_dict(),
                                "random": random_state()})
        if self.run is not None and self.content is not None:
            training = SavedTraining(**training_state(self.state, self.objects), identity=asdict(self.identity),
                                     best=self.best, ranks=parts if len(parts) > 1 else [])
            replace(self.content(), training=training).save(self.path, keep_previous=True)
            self.run.copy()

    def is_between_steps(self) -> bool:
        """Whether the run can be saved now: no gradients are accumulated, in any process."""
        num_batches = self.state.num_batches
        return num_batches % self.grad_accum == 0 or num_batches == len(self.train_loader)

    def on_step(self, state: TrainState) -> None:
        if self.save_every and state.step % self.save_every == 0:
            self.save()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Save when a signal or a bad video ends the block; remove a run that stopped before its first step.
        """
        before = _set_handlers(self._on_signal)
        go_on = shell_line("tinyaction", "train", "--resume", self.folder)
        is_empty = False
        try:
            yield
        except TrainingInterrupted as stopped:
            self.save()
            if self.run is not None:
                self.run.log(f"stopped by {stopped} in epoch {self.state.epoch + 1}, after {self.state.num_batches} "
                             f"of its batches; saved. To go on:\n  {go_on}")
            raise
        except (VideoError, PeerFailedError) as error:
            is_empty = self._is_empty()
            is_between_batches = isinstance(error, VideoError) or error.may_save
            if is_between_batches and not is_empty and self.is_between_steps():
                self.save()
            if is_empty or isinstance(error, PeerFailedError):
                raise
            advice = "go on" if error.kind == "unreachable" else "mend the file, or add --on-error skip, and go on"
            raise ValueError(f"{error}; the steps before are saved: {advice} with: {go_on}") from None
        except BaseException:
            is_empty = self._is_empty()
            raise
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
            if self.run is not None:
                if is_empty:
                    self.run.remove_if_empty()
                else:
                    self.run.add_bad_files(bad for loader in (self.train_loader, self.val_loader)
                                           for bad in loader.bad)

    def _is_empty(self) -> bool:
        return not self._is_resumed and self.state.step == 0

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if num_processes() > 1:  # torchrun passes on what the terminal has sent already
            self.signum = self.signum or signum
            return
        if self.signum:
            raise KeyboardInterrupt
        self.signum = signum
        logger.warning("%s: stopping after this step; once more leaves at once", signal.Signals(signum).name)


def _set_handlers(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Install a handler for the stop signals and return the former ones; none outside the main thread.

    Ignored signals stay ignored: ``nohup`` ignores SIGHUP.
    """
    before = {}
    try:
        for signum in STOP_SIGNALS:
            if signal.getsignal(signum) != signal.SIG_IGN:
                before[int(signum)] = signal.signal(signum, handler)
    except ValueError:
        pass
    return before


def config_notes(folder: Path, flags: Mapping[str, Any]) -> list[str]:
    """List flags that were edited in ``config.json``; the checkpoint's are used instead."""
    try:
        written = read_flags(folder)
    except (ValueError, OSError) as error:
        return [f"{error}; the flags in last.pt hold"]
    return [f"{folder / 'config.json'} says {flag_of(name)} {written[name]}; the {value} in last.pt holds"
            for name, value in flags.items()
            if name not in (*MAY_CHANGE, "out") and name in written and written[name] != value]


def resumed_config(given: Mapping[str, Any]) -> RunConfig:
    """Read the flags of the run ``given["resume"]`` and replace those of ``MAY_CHANGE`` that are given.

    A run that lies elsewhere is fetched first. Reads ``last.pt``, or ``config.json`` if the run stopped before saving
    one.

    Raises:
        ValueError: a given flag may not change, or the run's files are damaged.
        FileNotFoundError: the run does not exist.
    """
    place = url_of(given["resume"]).rstrip("/") if is_place(given["resume"]) else ""
    folder = Path(place or given["resume"])
    if not place and not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such run folder to resume")
    fixed = {name: value for name, value in given.items() if name not in MAY_CHANGE}
    if fixed:
        words = [word for name, value in fixed.items() for word in _words(name, value)]
        new_run = shell_line("tinyaction", "train", "--config", folder / "config.json", "--weights",
                             folder / "best.pt", *words)
        raise ValueError(f"{flag_of(next(iter(fixed)))} belongs to the run and cannot change with --resume; start a "
                         f"new run from its weights: {new_run}")
    if place:
        return config_of_place(place, given.get("device", ""), lambda folder: _config_in(
            folder, {**given, "resume": str(folder), "out": without_secrets(place)}))
    return _config_in(folder, given)


def _config_in(folder: Path, given: Mapping[str, Any]) -> RunConfig:
    last = folder / "last.pt"
    if last.exists() or previous_of(last).exists():
        flags = known_flags(load_newest(last)[0].config, source=str(last))
    else:
        flags = read_flags(folder / "config.json")
    return RunConfig(**{**flags, **given})


def _words(name: str, value: Any) -> list[str]:
    """Write a flag as on a command line."""
    if value is True:
        return [flag_of(name)]
    return ["--no-" + flag_of(name)[2:]] if value is False else [flag_of(name), str(value)]
