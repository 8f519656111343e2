"""Where to compute: the device of a name, and the cores that this process may use."""

import os
from contextlib import suppress
from pathlib import Path

import torch

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "200000 100000": two cores


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises:
        ValueError: there is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} is not usable here ({reason}); try auto or cpu") from None
    return device


def num_cores() -> int:
    """Cores that this process may use: those of its affinity, fewer where a container's quota says so (Linux)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # other systems, and no quota: "max 100000"
        quota, period = CPU_QUOTA.read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def default_num_workers() -> int:
    """A process for each core, at most 8; where torchrun runs several processes on this machine, their share of it."""
    return max(1, min(8, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
