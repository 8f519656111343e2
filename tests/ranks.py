"""Processes of one training: children of a fork server, which start in 0.1 s, or those of torchrun."""

import json
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch

import tinyaction.training.loop
import tinyaction.training.run
from tinyaction.cli.train import main
from tinyaction.data import shared_array
from tinyaction.data.lists import VideoList
from tinyaction.files import is_alive
from tinyaction.models.checkpoint import Checkpoint
from tinyaction.training import distributed
from tinyaction.training.distributed import once_a_machine, start_processes, stop_processes

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tinyaction.cli.train", "torch._dynamo", "torch.distributed"])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def environment_of(rank: int, num: int, port: int) -> dict[str, object]:
    return {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num, "LOCAL_WORLD_SIZE": num, "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port}


class Ranks:
    """Processes 0 to n - 1 of one training.

    ``argv`` are the flags of all, ``own`` further ones of a rank. ``diary`` is a folder into which each process writes
    the videos of its batches. ``max_file_bytes`` stands for a full disk, of rank 0. ``folders`` stand for machines: in
    the first rank 0 works, in the second rank 1, ... ``environment`` is that of all.
    """

    def __init__(self, num: int, output: Path, *argv: object, own: dict[int, list[object]] | None = None,
                 diary: Path | None = None, max_file_bytes: int = 0, has_dropout: bool = True,
                 folders: list[Path] | None = None, environment: dict[str, str] | None = None) -> None:
        port = free_port()
        self.output = output
        self.processes = []
        for rank in range(num):
            words = [*map(str, argv), *map(str, (own or {}).get(rank, []))]
            own_environment = {**environment_of(rank, num, port), **(environment or {})}
            self.processes.append(processes.Process(target=be_rank, args=(
                words, own_environment, output, diary, max_file_bytes if rank == 0 else 0, has_dropout,
                folders and folders[rank])))
            self.processes[-1].start()

    def is_running(self) -> bool:
        return any(process.is_alive() for process in self.processes)

    def end(self, within: float = 60, *, but: int | None = None) -> list[int | None]:
        """Exit codes of all, in the order of the ranks; None for one that still runs, and for ``but``."""
        until = time.monotonic() + within
        for rank, process in enumerate(self.processes):
            if rank != but:
                process.join(max(0, until - time.monotonic()))
        return [process.exitcode for process in self.processes]

    def kill(self, signum: int, *ranks: int) -> None:
        for rank in ranks:
            os.kill(self.processes[rank].pid, signum)

    def errors(self) -> list[str]:
        return [line for line in self.output.read_text().splitlines() if line.startswith("error: ")]


class Torchrun:
    """The same, started by torchrun."""

    def __init__(self, num: int, output: Path, *argv: object, diary: Path | None = None) -> None:
        self.output = output
        script = output.with_suffix(".py")
        script.write_text("from pathlib import PosixPath\nfrom ranks import be_rank\n"
                          f"be_rank({[*map(str, argv)]}, {{}}, {output!r}, {diary!r})\n")
        with open(output, "a") as file:
            self.torchrun = subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num}", script],
                stdout=file, stderr=file)

    def is_running(self) -> bool:
        return self.torchrun.poll() is None

    def kill_torchrun(self, within: float) -> None:
        """Kill torchrun alone, and wait until the processes that it started have ended."""
        ranks = [int(pid) for path in Path(f"/proc/{self.torchrun.pid}/task").glob("*/children")
                 for pid in path.read_text().split()]
        self.torchrun.kill()
        self.torchrun.wait()
        until = time.monotonic() + within
        while left := [pid for pid in ranks if is_alive(pid)]:
            assert time.monotonic() < until, f"processes {left} of {ranks} outlive torchrun by {within} s"
            time.sleep(0.01)

    def end(self, within: float = 60) -> list[int]:
        return [self.torchrun.wait(within)]


def be_rank(
    argv: list[str], environment: dict[str, object], output: Path, diary: Path | None = None, max_file_bytes: int = 0,
    has_dropout: bool = True, folder: Path | None = None,
) -> None:
    os.chdir(folder or ".")
    os.environ |= {name: str(value) for name, value in environment.items()}
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of the loader's workers
    tinyaction.training.outcome.write_report = lambda *_, **__: "none"
    if diary is not None:
        keep_diary(diary)
    if not has_dropout:  # it is drawn for a batch, so that batches of another size have another
        torch.nn.functional.dropout = lambda x, *_, **__: x
    if max_file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    raise SystemExit(main(argv))


def open_list(environment: dict[str, object], folder: Path, machine: str, argument: str) -> None:
    """Read a list as training does; write down (names, whether this process read it, the memory where they lie)."""
    os.environ |= {name: str(value) for name, value in environment.items()}
    shared_array.LEAST_SHARED = 1000
    if machine == "unreachable":
        shared_array.MemoryFile.place = "/proc/1/fd/999999"
    elif machine:
        distributed.machine = lambda: machine
    calls = []

    def read(argument: str) -> VideoList:
        calls.append(argument)
        return VideoList([f"{argument} {number}.mp4" for number in range(500)], range(500))

    start_processes(torch.device("cpu"))
    videos = once_a_machine(lambda: read(argument), argument)
    place = videos._names._packed.array.ctypes.data
    maps = [line.replace("-", " ", 1).split() for line in Path("/proc/self/maps").read_text().splitlines()]
    inode = next(words[5] for words in maps if int(words[0], 16) <= place < int(words[1], 16))
    found = [list(videos.paths()), len(calls), inode]
    (folder / f"{environment['RANK']}.json").write_text(json.dumps(found))
    stop_processes()


def keep_diary(folder: Path) -> None:
    """Write down the epoch, the step and the videos of each batch that is trained on."""
    train_one_batch = tinyaction.training.loop.train_one_batch
    path = folder / f"{time.time_ns()}-{os.getpid()}.jsonl"

    def train_and_write_down(model, batch, updater, **arguments):
        train_one_batch(model, batch, updater, **arguments)
        state = arguments["state"]
        with open(path, "a") as file:
            names = [Path(sample.filename).stem for sample in batch["data_samples"]]
            file.write(json.dumps([state.epoch, state.step, names]) + "\n")

    tinyaction.training.loop.train_one_batch = train_and_write_down


def wait_for(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "nothing came within a minute"
        time.sleep(0.002)


def has_saved(run: Path, num_saves: int):
    """A condition: last.pt was written so many times since now."""
    seen = set()

    def condition() -> bool:
        try:
            seen.add((run / "last.pt").stat().st_mtime_ns)
        except FileNotFoundError:
            pass
        return len(seen) > num_saves
    return condition


def weight_difference(run: Path, other: Path) -> float:
    """Norm of the difference of the weights as a share of their norm, averaged or trained, the larger of both.

    0 for weights that are equal to the bit.
    """
    ours, theirs = (Checkpoint.load(path / "last.pt") for path in (run, other))
    assert ours.epoch == theirs.epoch
    shares = []
    for mine, yours in ((ours.state_dict, theirs.state_dict),
                        (ours.training.objects["model"], theirs.training.objects["model"])):
        a, b = (torch.cat([state[name].double().flatten() for name in yours]) for state in (mine, yours))
        shares.append(float((a - b).norm() / b.norm()))
    return max(shares)
