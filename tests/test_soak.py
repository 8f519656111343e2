"""Many items through workers: memory and file descriptors stay what they were after the first of them."""

import os
from pathlib import Path

import pytest
from toys import write_set

from tinyaction.data.annotations import VideoList, find_data
from tinyaction.data.dataset import VideoDataset, build_dataloader
from tinyaction.data.pipelines import eval_pipeline


def memory_and_descriptors(pid: int) -> tuple[float, int]:
    """Memory of a process in MB (of shared pages the part that falls to it), and its number of open files."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return kilobytes / 1024, len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize("num_items", [600, pytest.param(2000, marks=pytest.mark.slow)])
def test_memory_and_descriptors_do_not_grow(num_items, tmp_path):
    """Readers are opened and closed for each item; after the first 200 the memory grows by less than 5 %."""
    train = find_data(write_set(tmp_path, num_train=8, num_val=2)).train
    pairs = [train[i % len(train)] for i in range(num_items)]
    videos = VideoList([path for path, _ in pairs], [label for _, label in pairs])
    loader = build_dataloader(VideoDataset(videos, eval_pipeline(clip_len=4, size=56)), batch_size=4, num_workers=2)
    seen = []
    for number, _ in enumerate(loader, start=1):
        if 4 * number in (200, num_items - 40):  # before the workers have nothing left to do
            pids = [os.getpid(), *(process.pid for process in loader._workers)]
            seen.append([memory_and_descriptors(pid) for pid in pids])
    loader.close()
    assert len(seen) == 2
    before, after = (sum(memory for memory, _ in moment) for moment in seen)
    print(f"\n{num_items} items, 3 processes: {before:.0f} MB after 200, {after:.0f} MB at the end "
          f"({after / before - 1:+.1%}); open files {[n for _, n in seen[0]]} -> {[n for _, n in seen[1]]}")
    assert after < 1.05 * before
    for (_, first), (_, last) in zip(*seen, strict=True):
        assert last <= first + 24  # batches on their way are files too; a leak would be hundreds
