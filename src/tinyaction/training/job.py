"""The job that runs the processes of a training: restarts of torchrun, SLURM's queue."""

import json
import os
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from tinyaction.place_file import local_copy
from tinyaction.places import NoSuchPlaceError, is_place, join_place
from tinyaction.results.run_copy import fetch_run, local_run_folder
from tinyaction.training.config import RunConfig


def job_name() -> str:
    """The job of torchrun, the same after its restarts; "" without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return f"process {os.getppid()}" if name == "none" else name  # "none" without --rdzv-id and --standalone


def launcher_name() -> str:
    """The torchrun that started this process."""
    return f"process {os.getppid()} on {socket.gethostname()}"


def folder_of_job(config: RunConfig) -> str:
    """The run that this job began before torchrun restarted it (``--max-restarts``); "" where there is none.

    torchrun counts no restart where a machine joins (``--nnodes=1:4``): then the run is one that this torchrun began.
    A run that is copied elsewhere is fetched where rank 0 is on another machine after the restart.
    """
    folders = [local_run_folder(config.out)] if config.out else sorted(Path("runs").glob(f"{config.model}-*"))
    found = [str(folder) for folder in folders if is_of_this_job(folder)]
    if not found and is_place(config.out) and _is_counted_restart() and os.environ.get("RANK", "0") == "0":
        with suppress(NoSuchPlaceError), local_copy(join_place(config.out, "config.json")) as path:
            found = [str(fetch_run(config.out, facts_of_job()))] if _begun_by(path)[0] == job_name() else []
    return found[-1] if found else ""


def _is_counted_restart() -> bool:
    return bool(job_name()) and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def is_of_this_job(folder: Path) -> bool:
    """Whether this job began the run in a folder, or fetched it."""
    is_restart = _is_counted_restart() or os.environ.get("RANK", "0") != "0"  # of several machines rank 0 decides
    job, launcher = _begun_by(folder / "config.json")
    return bool(job_name()) and job == job_name() and (is_restart or launcher == launcher_name())


def facts_of_job() -> dict[str, str]:
    """What ``config.json`` says of the job that began a run, or fetched it."""
    return {"job": job_name(), "launcher": launcher_name()}


def _begun_by(path: Path) -> tuple[str | None, str | None]:
    """The job and the launcher in a ``config.json``."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        return config.get("job"), config.get("launcher")
    except (OSError, ValueError, AttributeError):
        return None, None


def requeue_job() -> str:
    """Ask SLURM to start this job again; returns a sentence that says what came of it."""
    job, command = os.environ.get("SLURM_JOB_ID", ""), shutil.which("scontrol")
    if not job or command is None:
        return "not requeued: this is no job of SLURM (SLURM_JOB_ID is not set, or there is no scontrol)"
    try:
        result = subprocess.run([command, "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not requeued: {error}"
    if result.returncode:
        return f"not requeued: scontrol requeue {job} says {' '.join((result.stderr or result.stdout).split())}"
    return f"job {job} is requeued"
