"""The job that runs the processes of a training: restarts of torchrun, SLURM's queue."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

from tinyaction.results.run_copy import local_run_folder
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
    """
    if not job_name():
        return ""
    is_restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    is_restart |= os.environ.get("RANK", "0") != "0"                   # of several machines rank 0 decides for all
    folders = [local_run_folder(config.out)] if config.out else sorted(Path("runs").glob(f"{config.model}-*"))
    for folder in folders:
        job, launcher = _begun_by(folder)
        if job == job_name() and (is_restart or launcher == launcher_name()):
            return str(folder)
    return ""


def _begun_by(folder: Path) -> tuple[str | None, str | None]:
    """The job and the launcher that began a run."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
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
