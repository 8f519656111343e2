"""Batches that do not fit in shared memory are refused; none is lost on its way. The full /dev/shm is a real one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tinyaction.data.shared_memory
from tinyaction.data.shared_memory import max_batches, share, too_little

MB = 2**20


def test_it_says_what_would_fit():
    """2 workers, 2 batches ahead each, and 2 in use: 6 batches of 15 MB; 1 worker holds 4, which fit."""
    assert max_batches(2, 2) == 2 * 2 + 2
    text = too_little(15 * 10**6, 64 * 10**6, batch_size=8, num_workers=2, prefetch=2)
    assert text == (
        "shared memory (/dev/shm) is too small: 2 workers hold up to 6 batches of 15.0 MB, 90 MB in all, and 64 MB "
        "are free; --num-workers 1 or --batch-size 5 would fit, or give a container more (docker run --ipc=host)")


def test_where_not_even_one_worker_fits_none_is_named():
    text = too_little(40 * MB, 64 * MB, batch_size=1, num_workers=4, prefetch=2)
    assert "; --num-workers 0 would fit, or" in text


def test_a_batch_that_fits_is_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(tinyaction.data.shared_memory, "SHARED_MEMORY", tmp_path)  # a disk with room
    batch = {"inputs": torch.ones(3), "data_samples": []}
    share(batch, batch_size=1, num_workers=1, prefetch=2)
    assert batch["inputs"].is_shared()
    share(None, batch_size=0, num_workers=1, prefetch=2)  # no item of it could be read


# ---- a full one ----------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path

import torch

from tinyaction.data.loader import EpochSampler, VideoLoader

num_filled, num_workers, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]


class Items:
    def __len__(self):
        return 40

    def __getitem__(self, key):
        return torch.full((2**20,), key[1], dtype=torch.uint8)

    def filename(self, index):
        return f"clip {index}.mp4"


def in_dict(items):
    return {"inputs": torch.stack(items)}


if __name__ == "__main__":
    Path("/dev/shm/filled").write_bytes(bytes(num_filled))
    loader = VideoLoader(Items(), batch_size=2, sampler=EpochSampler(40, shuffle=False, seed=0), video_timeout=3,
                         collate=in_dict if kind == "dict" else list, num_workers=num_workers)
    try:
        print(sum(int(batch["inputs"][:, 0].sum()) for batch in loader))
    except (ValueError, OSError) as error:
        print(error)
    loader.close()
"""


def in_private_mount(num_filled: int, num_workers: int, kind: str = "dict") -> str:
    """Run the program with a /dev/shm of 16 MB of its own; the test is skipped where the machine does not allow it."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    mount = "mount -t tmpfs -o size=16m tmpfs /dev/shm"
    try:
        allowed = subprocess.run([*unshare, "sh", "-c", mount], capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"needs unshare, to mount a small /dev/shm: {error}")
    if allowed.returncode:
        pytest.skip(f"this machine allows no mount of its own: {allowed.stderr.strip()}")
    result = subprocess.run([*unshare, "sh", "-c", mount + ' && exec "$0" "$@"', sys.executable, "-c", PROGRAM,
                             str(num_filled), str(num_workers), kind], capture_output=True, text=True, timeout=120,
                            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert result.returncode == 0, result.stderr
    return result.stdout


needs_linux = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory is no folder on this system")


@needs_linux
def test_what_fits_is_read_whole():
    assert in_private_mount(0, 2) == f"{sum(range(40))}\n"  # 6 batches of 2 MB


@needs_linux
def test_what_cannot_fit_is_refused_with_the_first_batch():
    assert in_private_mount(0, 4).startswith(
        "shared memory (/dev/shm) is too small: 4 workers hold up to 10 batches of 2.1 MB, 21 MB in all, and 17 MB "
        "are free; --num-workers 2 or --batch-size 1 would fit, or give a container more (docker run --ipc=host)\n")


@needs_linux
def test_what_others_fill_is_seen():
    assert in_private_mount(14 * MB, 1).startswith("shared memory (/dev/shm) is too small: 1 workers hold")


@needs_linux
def test_a_batch_that_is_lost_on_its_way_is_no_hang():
    """Tensors in a list are moved to shared memory by torch, which loses the batch where there is no room."""
    assert in_private_mount(15 * MB, 1, "list").startswith("no batch came within 3 s, and no worker process reads a ")
