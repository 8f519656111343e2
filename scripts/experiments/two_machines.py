"""Train on two machines, here two network namespaces with a cable between them, and break what can break.

    sudo PYTHONPATH=tests python scripts/experiments/two_machines.py

Linux only, as root, with ``ip`` (iproute2): each machine has a host name, an address and a torchrun of its own, and
both see the same files. The cable is cut as a switch would that fails: neither side is told.

Each row has the exit codes of both torchruns, the seconds until the processes of both had ended and what was said.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ranks import has_saved, weight_difference  # type: ignore[import-not-found]
from toys import write_set  # type: ignore[import-not-found]

from tinyaction.files import is_alive

ADDRESSES = {"machine-a": "10.77.0.1", "machine-b": "10.77.0.2"}
LOOPBACK = ("localhost", "127.0.0.1")
LIMIT = 6  # seconds without a sign of life (--video-timeout)
FLAGS = ("--model conv2d --method finetune --size 16 --clip-len 2 --batch-size 2 --grad-accum 2 --save-every 1 "
         f"--lr 0.05 --ema 0.9 --freeze-norms --device cpu --num-workers 1 --video-timeout {LIMIT}").split()
DISTURBANCES = ("nothing", "a process of b", "machine b", "cable", "SIGTERM to b", "machine b of --nnodes=1:2")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class Cable:
    """Two network namespaces and a pair of virtual network cards."""

    def __enter__(self) -> "Cable":
        for name in ADDRESSES:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL, check=False)
            ip("netns", "add", name)
        ip("link", "add", "end-a", "type", "veth", "peer", "name", "end-b")
        for name, address in ADDRESSES.items():
            end = f"end-{name[-1]}"
            ip("link", "set", end, "netns", name)
            ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", end, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in ADDRESSES:
            ip("netns", "delete", name)

    def cut(self) -> None:
        """Lose all that is sent, without a word: the cards stay up."""
        for name, other in zip(ADDRESSES, reversed(ADDRESSES.values()), strict=True):
            ip("-n", name, "route", "add", "blackhole", f"{other}/32")

    def mend(self) -> None:
        for name, other in zip(ADDRESSES, reversed(ADDRESSES.values()), strict=True):
            ip("-n", name, "route", "delete", "blackhole", f"{other}/32")


@dataclass
class Job:
    """torchrun on both machines."""

    output: Path

    def start(self, *argv: object, nnodes: str = "2", max_restarts: int = 0) -> None:
        self.output.mkdir()
        self.torchruns = {}
        for name in ADDRESSES:
            words = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nnodes}", "--nproc_per_node=1",
                     f"--max-restarts={max_restarts}", "--rdzv-id=a", "--rdzv-backend=c10d",
                     f"--rdzv-endpoint={ADDRESSES['machine-a']}:29400", "-m", "tinyaction", "train", *map(str, argv)]
            # A host name of its own; gloo finds the network card by it.
            begin = (f"hostname {name}; mount --bind {self._hosts()} /etc/hosts; exec \"$@\"")
            with open(self.output / name, "w") as file:
                self.torchruns[name] = subprocess.Popen(
                    ["ip", "netns", "exec", name, "unshare", "--uts", "--mount", "sh", "-c", begin, "sh", *words],
                    stdout=file, stderr=file, start_new_session=True)

    def _hosts(self) -> Path:
        path = self.output / "hosts"
        path.write_text("".join(f"{address} {name}\n" for name, address in [*ADDRESSES.items(), LOOPBACK]))
        return path

    def ranks(self, name: str) -> list[int]:
        """The processes that torchrun of this machine started."""
        children = Path(f"/proc/{self.torchruns[name].pid}/task").glob("*/children")
        return [int(pid) for path in children for pid in path.read_text().split()]

    def end(self, processes: list[int], within: float) -> tuple[list[int | None], float]:
        """Exit codes of both torchruns, and the seconds until the processes of training had ended."""
        started = time.monotonic()
        while any(map(is_alive, processes)) and time.monotonic() - started < within:
            time.sleep(0.05)
        seconds = time.monotonic() - started
        while any(one.poll() is None for one in self.torchruns.values()) and time.monotonic() - started < within:
            time.sleep(0.05)
        codes = [one.poll() for one in self.torchruns.values()]        # None: torchrun itself waits for the other one
        for one in self.torchruns.values():
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
                one.wait()
        return codes, seconds

    def said(self) -> list[str]:
        return [f"{name}: {line}" for name in self.torchruns for line in (self.output / name).read_text().splitlines()
                if line.startswith(("error: ", "stopped", "interrupted"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=DISTURBANCES, default=DISTURBANCES)
    parser.add_argument("--keep", type=Path, help="an empty folder for what was written, to look at")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("it makes network namespaces, so it must be run as root")
    with tempfile.TemporaryDirectory() as temporary, Cable() as cable:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        data = write_set(folder / "data", num_train=16)
        reference = folder / "one machine"
        with open(folder / "one machine.txt", "w") as file:
            subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m",
                            "tinyaction", "train", *FLAGS, "--data", data, "--out", reference, "--epochs", "3"],
                           check=True, stdout=file, stderr=file)
        for what in arguments.only:
            run = folder / what.replace(" ", "-").replace(":", "-")
            job = Job(folder / f"{run.name}-output")
            is_elastic = "nnodes" in what
            job.start(*FLAGS, "--data", data, "--out", run, "--epochs", 3, nnodes="1:2" if is_elastic else "2",
                      max_restarts=3 if is_elastic else 0)
            is_saved = has_saved(run, 3)
            while what != "nothing" and not is_saved():
                time.sleep(0.01)
                if all(one.poll() is not None for one in job.torchruns.values()):
                    raise SystemExit(f"{what}: it ended before; see {job.output}")
            processes = [pid for name in ADDRESSES for pid in job.ranks(name)]
            if what == "a process of b":
                os.kill(job.ranks("machine-b")[0], signal.SIGKILL)
            elif what.startswith("machine b"):
                for pid in (job.torchruns["machine-b"].pid, *job.ranks("machine-b")):
                    os.kill(pid, signal.SIGKILL)
            elif what == "cable":
                cable.cut()
            elif what == "SIGTERM to b":
                job.torchruns["machine-b"].terminate()
            codes, seconds = job.end(processes, 120)
            if what == "cable":
                cable.mend()
            print(f"{what}: exit codes {codes}, processes ended after {seconds:.1f} s", flush=True)
            for line in job.said():
                print(f"    {line}")
            if codes != [0, 0] and not is_elastic:
                job = Job(folder / f"{run.name}-resumed")
                job.start("--resume", run)
                codes, _ = job.end([], 120)
                print(f"    resumed on both: exit codes {codes}")
            print(f"    weights differ by {weight_difference(run, reference):.1e} from those of two processes of one "
                  "machine")


if __name__ == "__main__":
    main()
