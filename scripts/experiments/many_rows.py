"""Time and memory of a list of many rows: opening, splitting, an epoch's order, going on in its middle, workers.

    python scripts/experiments/many_rows.py --rows 1000000 10000000

The list is generated: lines "class_012/clip_0000123.mp4 12". No video is read.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.data.annotations import VideoList, read_list
from tinyaction.data.class_folders import split_by_class
from tinyaction.data.loader import EpochSampler, VideoLoader
from tinyaction.training.identity import ListIdentity


class Names:
    """Item i is the name of video i."""

    def __init__(self, videos: VideoList) -> None:
        self.videos = videos

    def __len__(self) -> int:
        return len(self.videos)

    def filename(self, index: int) -> str:
        return self.videos[index][0]

    def __getitem__(self, key: tuple[int, int]) -> str:
        return self.videos[key[1]][0]


@contextmanager
def measured(what: str) -> Iterator[None]:
    began = time.process_time()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB -> MiB
    print(f"  {what:<42}{time.process_time() - began:8.1f} s  peak {peak:6.0f} MiB", flush=True)


def private_mib(pid: int) -> float:
    """Memory that a process shares with no other, MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty", "Private_Clean"))) / 1024


def measure(num_rows: int, what: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train_list.txt")
        with open(path, "w") as file:
            file.writelines(f"class_{i % 400:03}/clip_{i:08}.mp4 {i % 400}\n" for i in range(num_rows))
        print(f"{num_rows} rows, {path.stat().st_size / 2**20:.0f} MiB of text, {what}")
        with measured("start of Python and torch"):
            pass
        with measured("opening the list"):
            videos = read_list(path)
        if what == "split":
            with measured("splitting it class by class"):
                split_by_class([str(label) for label in videos.labels.tolist()], 0.2, 0, path)
            return
        with measured("digests for --resume"):
            ListIdentity.of(videos, folder)
        sampler = EpochSampler(len(videos), shuffle=True, seed=0)
        with measured("order of an epoch"):
            sampler.order()
        loader = VideoLoader(Names(videos), batch_size=32, sampler=sampler, collate=list, num_workers=2, num_ranks=8)
        loader.load_state_dict(loader.state_at(len(loader) // 2, 0))
        with measured("going on in its middle, to the first batch"):
            next(iter(loader))
        print(f"  memory of its own of each of 2 workers: "
              f"{', '.join(f'{private_mib(process.pid or 0):.0f} MiB' for process in loader._workers)}")
        loader.close()


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    arguments = parser.parse_args(argv)
    for num_rows in arguments.rows:
        for what in ("train", "split"):
            sys.stdout.flush()
            if (pid := os.fork()) == 0:  # peaks are those of a process
                measure(num_rows, what)
                os._exit(0)
            os.waitpid(pid, 0)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
