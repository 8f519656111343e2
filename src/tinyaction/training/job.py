"""The job that runs the processes of a training: restarts of torchrun, SLURM's queue."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from tinyaction.results.run_copy import local_run_folder
from tinyaction.training.config import RunConfig


def job_name() -> str:
    """The job of torchrun, the same after its restarts; "" without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return f"process {os.getppid()}" if name == "none" else name  # "none" without --rdzv-id and --standalone


def folder_of_job(config: RunConfig) -> str:
    """The run that this job began before torchrun restarted it (``--max-restarts``); "" where there is none."""
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return ""
    folders = [local_run_folder(config.out)] if config.out else sorted(Path("runs").glob(f"{config.model}-*"))
    return next((str(folder) for folder in folders if _job_of(folder) == job_name()), "")


def _job_of(folder: Path) -> str | None:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("job")
    except (OSError, ValueError, AttributeError):
        return None


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
