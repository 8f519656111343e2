"""A run that goes on where not every process sees its folder: fetched by rank 0, and by each other machine."""

import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyaction.device import choose_device
from tinyaction.models.checkpoint import SavedTraining, previous_of
from tinyaction.place_file import fetch_place, local_copy
from tinyaction.results.run import RunFolder
from tinyaction.results.run_copy import fetch_run, local_run_folder, place_of_run
from tinyaction.training.config import RunConfig, read_flags
from tinyaction.training.distributed import (
    broadcast_from_main,
    gather_objects,
    one_voice,
    rank,
    start_processes,
)
from tinyaction.training.job import facts_of_job, is_of_this_job


def config_of_place(place: str, device: str, config_of: Callable[[Path], RunConfig]) -> RunConfig:
    """Fetch a run from where it lies elsewhere, unless torchrun restarted the job that did; in rank 0 alone.

    All processes get the config that ``config_of`` makes of the folder. ``device``: the one to train on, "" for that
    of the run.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        with local_copy(f"{place}/config.json") as path:
            start_processes(choose_device(device or read_flags(path)["device"]))
    with one_voice():
        return broadcast_from_main(config_of(_folder_of(place)) if rank() == 0 else None)  # type: ignore[return-value]


def _folder_of(place: str) -> Path:
    folder = local_run_folder(place)
    if place_of_run(folder) == place and is_of_this_job(folder):
        return folder
    return fetch_run(place, facts_of_job())


@contextmanager
def file_of_main(path: Path, run: RunFolder | None) -> Iterator[Path]:
    """A file of the run folder as rank 0 has it, in each process; ``run`` is that folder, in rank 0.

    On a machine that does not see it, a temporary copy of what rank 0 copied elsewhere: the first process there
    fetches it. Of a run that is not copied it is ``path`` everywhere.
    """
    place = broadcast_from_main(place_of_run(path.parent))
    wanted = broadcast_from_main(_state(path))
    host = socket.gethostname()
    blind = gather_objects("" if _state(path) == wanted else host)     # hosts of the processes that do not see it
    if not place or wanted is None or not any(blind):
        yield path
        return
    if run is not None:
        run.copy()                                                     # to fetch what rank 0 has now
    folder = Path(tempfile.gettempdir(), f"tinyaction-{broadcast_from_main(uuid.uuid4().hex)}")
    fetches = blind[rank()] == host and blind.index(host) == rank()
    try:
        if fetches:
            folder.mkdir(mode=0o700)
            fetch_place(f"{place}/{path.name}", folder / path.name)
        gather_objects(None)                                           # until it is there
        yield folder / path.name if blind[rank()] else path
    finally:
        if fetches:
            shutil.rmtree(folder, ignore_errors=True)


def _state(path: Path) -> tuple[int, int] | None:
    for each in (path, previous_of(path)):
        if each.exists():
            return each.stat().st_size, each.stat().st_mtime_ns
    return None


def check_same_start(saved: SavedTraining | None, path: Path) -> None:
    """Raise ValueError where processes go on from another position than rank 0; None is the beginning of a run."""
    position = str(saved.state) if saved else ""
    first, *others = gather_objects((position, socket.gethostname()))
    for number, (other, host) in enumerate(others, start=1):
        if other != first[0]:
            raise ValueError(f"rank 0 on {first[1]} and rank {number} on {host} do not see the same {path}; let all "
                             "machines see the run folder, or begin runs with --out s3://bucket/run")
