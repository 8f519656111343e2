"""Time and memory of a list of many rows: opening, splitting, an epoch's order, going on in its middle, workers.

    python scripts/experiments/many_rows.py --rows 1000 1000000 10000000

The list is generated: lines "class_012/clip_0000123.mp4 12", and a CSV file of the same to be split. No video is
there. Workers are forked, then spawned; the memory of their own is Python's and torch's, see that of 1,000 rows. With
"ranks" there are that many processes as of torchrun, each with the order of an epoch.
"""

import argparse
import multiprocessing
import os
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.data.annotations import VideoList, find_data
from tinyaction.data.loader import EpochSampler, VideoLoader
from tinyaction.training.build import find_run_data
from tinyaction.training.config import RunConfig
from tinyaction.training.distributed import gather_objects, once_a_machine, start_processes, stop_processes
from tinyaction.training.identity import ListIdentity

MEMORY = "private / with its part of what is shared / with all of it"


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


def write_list(path: Path, num_rows: int, line: str, header: str = "") -> None:
    with open(path, "w") as file:
        file.write(header)
        file.writelines(line.format(name=f"class_{i % 400:03}/clip_{i:08}.mp4", label=i % 400)
                        for i in range(num_rows))


def memory_mib(pid: int) -> str:
    """Memory that a process shares with no other, with what it shares counted in part, and with all of that; MiB."""
    lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    kib = {words[0]: int(words[1]) for words in lines if words[-1] == "kB"}
    numbers = (kib["Private_Dirty:"] + kib["Private_Clean:"], kib["Pss:"], kib["Rss:"])
    return " / ".join(f"{number / 1024:.0f}" for number in numbers) + " MiB"


def write_lists(folder: Path, num_rows: int, *, is_table: bool) -> None:
    path = folder / ("list.csv" if is_table else "train_list.txt")
    if is_table:
        write_list(path, num_rows, "{name},{label}\n", "path,label\n")
    else:
        write_list(path, num_rows, "{name} {label}\n")
        write_list(folder / "val_list.txt", 400, "{name} {label}\n")
    print(f"{num_rows} rows, {path.stat().st_size / 2**20:.0f} MiB of text")


def measure(num_rows: int, what: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_lists(Path(folder), num_rows, is_table=what == "split")
        print(what)
        with measured("start of Python and torch"):
            pass
        with measured("opening the list" if what != "split" else "opening the list, splitting it by class"):
            data = find_data(folder, keep_split=False)
        if what == "fork":
            with measured("digests for --resume"):
                ListIdentity.of(data.train, folder)
            with measured("what no list names, two labels"):
                data.unused_summary()
        sampler = EpochSampler(len(data.train), shuffle=True, seed=0)
        with measured("order of an epoch"):
            sampler.order()
        if what == "split":
            return
        multiprocessing.set_start_method(what, force=True)
        loader = VideoLoader(Names(data.train), batch_size=32, sampler=sampler, collate=list, num_workers=2,
                             num_ranks=8)
        loader.load_state_dict(loader.state_at(len(loader) // 2, 0))
        with measured("going on in its middle, to the first batch"):
            next(iter(loader))
        print(f"  {MEMORY}: this process {memory_mib(os.getpid())}, 2 workers "
              f"{', '.join(memory_mib(process.pid or 0) for process in loader._workers)}")
        loader.close()


def measure_ranks(num_rows: int, num_ranks: int) -> None:
    """The list as training opens it, and its digests, in processes that torchrun would start."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        write_lists(Path(folder), num_rows, is_table=False)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        processes = [multiprocessing.get_context("spawn").Process(target=be_rank, args=(folder, rank, num_ranks, port))
                     for rank in range(num_ranks)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()


def be_rank(folder: str, rank: int, num_ranks: int, port: int) -> None:
    os.environ |= {"RANK": f"{rank}", "WORLD_SIZE": f"{num_ranks}", "LOCAL_RANK": f"{rank}",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    start_processes(torch.device("cpu"))
    before = memory_mib(os.getpid())
    with measured(f"rank {rank}: opening the list"):
        data = once_a_machine(lambda: find_run_data(RunConfig(folder), folder), folder)
    gather_objects(None)
    with measured(f"rank {rank}: its digests"):
        identity = ListIdentity.of(data.train, folder)
    assert gather_objects(identity)[0] == identity
    order = EpochSampler(len(data.train), shuffle=True, seed=0).order()
    gather_objects(None)
    print(f"  {MEMORY}: rank {rank} {memory_mib(os.getpid())}, before the list {before}; the order of the epoch is "
          f"{order.nbytes / 2**20:.0f} MiB", flush=True)
    gather_objects(None)
    stop_processes()


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 1_000_000, 10_000_000])
    parser.add_argument("--kinds", nargs="+", default=["fork", "spawn", "split"], choices=["fork", "spawn", "split"],
                        help="how workers are started, or a CSV file split")
    parser.add_argument("--ranks", type=int, default=0, help="instead, the memory of so many processes of torchrun")
    arguments = parser.parse_args(argv)
    for num_rows in arguments.rows:
        if arguments.ranks:
            measure_ranks(num_rows, arguments.ranks)
        for what in () if arguments.ranks else arguments.kinds:
            sys.stdout.flush()
            if (pid := os.fork()) == 0:  # peaks are those of a process
                measure(num_rows, what)
                os._exit(0)
            os.waitpid(pid, 0)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
