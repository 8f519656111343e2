"""Runs that stop and go on: what is saved and when, signals, ``--resume``."""

import json
import random
import shlex
import signal
import sys
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
from tinyaction.results.progress import Progress
from tinyaction.results.run import RunFolder
from tinyaction.training.config import RunConfig, flag_of
from tinyaction.training.loop import TrainState
from tinyaction.video import VideoError


class Stateful(Protocol):
    """What a resumed run puts back: models, optimizers, scalers, averages of weights, loaders."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any, /) -> Any: ...


def training_state(state: TrainState, objects: Mapping[str, Stateful]) -> dict[str, Any]:
    """All that a run needs to go on exactly: where it is, the states of its objects, all random generators."""
    return {"state": asdict(state), "objects": {name: thing.state_dict() for name, thing in objects.items()},
            "random": random_state()}


def restore_training(saved: Mapping[str, Any], objects: Mapping[str, Stateful]) -> TrainState:
    """Put back what :func:`training_state` gave, and return where the run was.

    Raises:
        ValueError: the objects are others than those that were saved, or do not fit.
    """
    if saved["objects"].keys() != objects.keys():
        raise ValueError(f"the run was saved with {', '.join(saved['objects'])}, now there are {', '.join(objects)}; "
                         "resume with the version that it was made with")
    for name, thing in objects.items():
        try:
            thing.load_state_dict(saved["objects"][name])
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"the saved {name} does not fit: {' '.join(str(error).split())[:160]}") from None
    set_random_state(saved["random"])
    return TrainState(**saved["state"])


def random_state() -> dict[str, Any]:
    """The states of all global generators, in kinds that ``weights_only`` reads."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put back what :func:`random_state` gave."""
    kind, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all(state["cuda"])


class StoppedError(Exception):
    """The run was asked to stop; ``signum`` is the signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Keeper:
    """Keeps ``last.pt`` so that the run can go on from it, exactly.

    Args:
        objects: whatever has a state that training changes, by name: model, optimizer, loader, scaler, averages.
        videos: which training videos these are; a run goes on only with the same.
        content: makes the checkpoint that a prediction needs.

    Attributes:
        state: where the run is.
        best: the best epoch so far; None before the end of the first.
        metrics: the columns of metrics.csv of the last whole epoch.
    """

    def __init__(self, run: RunFolder, *, objects: dict[str, Stateful], videos: str, save_every: int,
                 content: Callable[[], Checkpoint]) -> None:
        self.run = run
        self.objects = objects
        self.videos = videos
        self.save_every = save_every
        self.content = content
        self.state = TrainState()
        self.best: BestEpoch | None = None
        self.metrics: dict[str, float] = {}
        self.path = run.path / "last.pt"
        self._is_resumed = False
        self._signum = 0

    def restore(self) -> bool:
        """Go on from ``last.pt``; False where the run was stopped before it had one."""
        if not (self.path.exists() or previous_of(self.path).exists()):
            return False
        saved, note = load_newest(self.path)
        if saved.training is None:
            raise ValueError(f"{self.path}: this version of tinyaction cannot go on from it; start a new run")
        if saved.training.identity != {"videos": self.videos}:
            raise ValueError(f"{self.run.path} began with other training videos; a run goes on only with the same")
        self.state = restore_training(vars(saved.training), self.objects)
        self.best, self.metrics = saved.training.best, dict(saved.metrics)
        self.run.forget_after(self.state.epoch)
        self._is_resumed = True
        if note:
            self.run.log(f"note: {note}")
        self.run.log(f"resumed in epoch {self.state.epoch + 1}, after {self.state.num_batches} of its batches")
        return True

    def save(self) -> None:
        training = SavedTraining(**training_state(self.state, self.objects), identity={"videos": self.videos},
                                 best=self.best)
        replace(self.content(), training=training).save(self.path, keep_previous=True)

    def on_step(self, state: TrainState) -> None:
        if self.save_every and state.step % self.save_every == 0:
            self.save()
        self.check()

    def on_batch(self, progress: Progress) -> None:
        if progress.kind == "val":
            self.check()

    def check(self) -> None:
        """Raise StoppedError where a signal came and nothing is half done."""
        if self._signum and not self.state.num_pending:
            raise StoppedError(self._signum)

    @contextmanager
    def watching(self, *loaders: VideoLoader) -> Iterator[None]:
        """While the block trains: signals and bad files end it with all steps saved.

        A run that comes to nothing before its first step leaves no folder.
        """
        before = _set_handlers(self._on_signal)
        for loader in loaders:
            loader.on_wait = self.check
        go_on = shlex.join(["tinyaction", "train", "--resume", str(self.run.path)])
        came_to_nothing = False
        try:
            yield
        except StoppedError as stopped:
            self.save()
            self.run.log(f"stopped by {stopped} in epoch {self.state.epoch + 1}, after {self.state.num_batches} of "
                         f"its batches; saved. To go on:\n  {go_on}")
            raise
        except VideoError as error:  # the loader's, so all steps before are whole
            came_to_nothing = self._came_to_nothing()
            if came_to_nothing:
                raise
            if not self.state.num_pending:
                self.save()
            raise ValueError(f"{error}; the steps before are saved: mend the file, or add --on-error skip, and go on "
                             f"with: {go_on}") from None
        except BaseException:
            came_to_nothing = self._came_to_nothing()
            raise
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
            if came_to_nothing:
                self.run.remove()
            else:
                self.run.add_bad_files(bad for loader in loaders for bad in loader.bad)

    def _came_to_nothing(self) -> bool:
        return not self._is_resumed and self.state.step == 0

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._signum:
            raise KeyboardInterrupt
        self._signum = signum
        print(f"\n{signal.Signals(signum).name}: stopping after this step; once more leaves at once", file=sys.stderr)


def _set_handlers(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Take SIGINT and SIGTERM, and return who had them; outside the main thread nobody can take them."""
    before = {}
    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            before[int(signum)] = signal.signal(signum, handler)
    except ValueError:
        pass
    return before


def resumed_config(given: Mapping[str, Any]) -> RunConfig:
    """The flags of the run that ``--resume`` names, with those that may change as they are given now.

    Raises:
        ValueError: another flag is given, or the run's ``config.json`` is damaged.
        FileNotFoundError: there is no such run.
    """
    fixed = [flag_of(name) for name in given if name not in RunConfig.MAY_CHANGE]
    if fixed:
        raise ValueError(f"{fixed[0]} belongs to the run and cannot change with --resume; start a new run for that")
    path = Path(given["resume"], "config.json")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; --resume names the folder of a run")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        flags = {item.name: saved[item.name] for item in fields(RunConfig) if item.name in saved}
        return RunConfig(**{**flags, **given})
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not the flags of a run ({error})") from None
