"""Shared memory, in which worker processes hand over their batches: what fits in it.

On Linux it is the file system /dev/shm. Docker gives a container 64 MB of it, which a few batches of clips fill. A
batch that finds no room there is lost without a word between the worker and the main process, so its worker makes
room for it before it is sent, where an error can still be handed on.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

SHARED_MEMORY = Path("/dev/shm")
RESERVE = 2**20  # bytes for labels, semaphores and the board of the workers


def share(batch: Any, *, batch_size: int, num_workers: int, prefetch: int) -> None:
    """Move the tensors of a batch to shared memory.

    Raises:
        ValueError: the batches that the workers hold at a time do not fit in it, or this one did not.
    """
    values = batch.values() if isinstance(batch, Mapping) else [batch]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    num_bytes = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    if not num_bytes:
        return
    arguments = {"batch_size": batch_size, "num_workers": num_workers, "prefetch": prefetch}
    if SHARED_MEMORY.is_dir():
        usage = shutil.disk_usage(SHARED_MEMORY)
        if num_bytes * max_batches(num_workers, prefetch) + RESERVE > usage.total:
            raise ValueError(too_little(num_bytes, usage.total, **arguments))
        if num_bytes + RESERVE > usage.free:
            raise ValueError(too_little(num_bytes, usage.free, **arguments))
    for tensor in tensors:
        try:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError:  # another process was faster
            raise ValueError(too_little(num_bytes, 0, **arguments)) from None


def max_batches(num_workers: int, prefetch: int) -> int:
    """Batches in shared memory at a time: those made ahead, the one in use, and the one before, when they change."""
    return num_workers * prefetch + 2


def too_little(num_bytes: int, num_bytes_there: int, *, batch_size: int, num_workers: int, prefetch: int) -> str:
    """Say that batches of ``num_bytes`` do not fit, and what would."""
    room = max(0, num_bytes_there - RESERVE)
    needed = num_bytes * max_batches(num_workers, prefetch)
    fewer = max((n for n in range(1, num_workers) if num_bytes * max_batches(n, prefetch) <= room), default=0)
    smaller = room * batch_size // needed
    would = [f"--num-workers {fewer}", *([f"--batch-size {smaller}"] if 0 < smaller < batch_size else [])]
    return (f"shared memory ({SHARED_MEMORY}) is too small: {num_workers} workers hold up to "
            f"{max_batches(num_workers, prefetch)} batches of {num_bytes / 1e6:.1f} MB, {needed / 1e6:.0f} MB in all, "
            f"and {num_bytes_there / 1e6:.0f} MB are free; {' or '.join(would)} would fit, or give a container more "
            "(docker run --ipc=host)")


def allow_open_files(*, batch_size: int, num_workers: int, prefetch: int) -> None:
    """Raise this process's limit of open files where its workers need more: a tensor in shared memory is one.

    Raises:
        ValueError: the system allows too few.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = 64 + 8 * num_workers  # libraries, pipes to the workers
    wanted = least + max_batches(num_workers, prefetch) * (batch_size + 1)  # labels are tensors too
    if hard != resource.RLIM_INFINITY:
        if hard < least:
            raise ValueError(f"this process may open {hard} files, and {num_workers} workers need {least} or more; "
                             "raise the limit (ulimit -n 4096), or take no workers (--num-workers 0)")
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
