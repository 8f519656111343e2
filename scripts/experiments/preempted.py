"""Kill runs of several processes at random moments, resume them with other numbers of processes, compare the weights.

    python scripts/experiments/preempted.py --kills 20

Each run has a store, averaged weights, mixup, accumulation and frozen norms. Two processes begin it. It is killed at
a random moment (one rank, all ranks, torchrun itself, or a rank is halted by SIGSTOP), resumed with a number of
processes and workers drawn at random, killed again, and so on. In the end its weights are compared with those of a run
that nothing disturbed, and for each step the videos that made it.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

LIMIT = 12  # seconds without a sign of life (--video-timeout)
FLAGS = (f"--store raw --size 16 --clip-len 2 --batch-size 2 --grad-accum 2 --epochs 3 --save-every 1 --lr 0.05 "
         f"--mixup 0.2 --ema 0.9 --freeze-norms --device cpu --allow-outside --video-timeout {LIMIT}").split()
KINDS = ("rank", "all", "torchrun", "halt")


def work(argv: list[str]) -> int:
    """Be one process of a run that writes down the videos of each step."""
    import torch

    import tinyaction.training.loop as loop
    from tinyaction.cli.train import main

    torch.set_num_threads(1)
    diary = Path(f"{os.environ['DIARY']}-{os.getpid()}.jsonl")
    train_one_batch = loop.train_one_batch

    def write_down(model: Any, batch: Any, updater: Any, **arguments: Any) -> None:
        train_one_batch(model, batch, updater, **arguments)
        state = arguments["state"]
        names = [Path(sample.filename).stem for sample in batch["data_samples"]]
        with open(diary, "a") as file:
            file.write(json.dumps([state.epoch, state.step, names]) + "\n")

    loop.train_one_batch = write_down
    return main(argv)


def start(folder: Path, num_processes: int, *words: object) -> "subprocess.Popen[bytes]":
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    (folder / "diary").mkdir(parents=True, exist_ok=True)
    with open(folder / "output.txt", "a") as output:
        return subprocess.Popen([*launcher, __file__, "--work", *map(str, words)], stdout=output, stderr=output,
                                env=os.environ | {"DIARY": f"{folder}/diary/{time.time_ns()}", "OMP_NUM_THREADS": "1"})


def children_of(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def saved_at(run: Path) -> int:
    try:
        return (run / "last.pt").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def kill(process: "subprocess.Popen[bytes]", kind: str, rng: random.Random) -> tuple[list[int], list[int]]:
    """Kill what ``kind`` says; returns the ranks that must end by themselves, and the one that torchrun must end."""
    ranks = children_of(process.pid)
    chosen = rng.choice(ranks)
    if kind == "torchrun":
        os.kill(process.pid, signal.SIGKILL)
    for pid in ranks if kind == "all" else [chosen] if kind in ("rank", "halt") else []:
        os.kill(pid, signal.SIGSTOP if kind == "halt" else signal.SIGKILL)
    return [pid for pid in ranks if kind != "halt" or pid != chosen], [chosen]


def disturb(
    run: Path, process: "subprocess.Popen[bytes]", kind: str, rng: random.Random
) -> tuple[float, float] | None:
    """Kill at a random moment; returns the seconds until the other ranks had ended, and torchrun as well.

    None where the run was over before.
    """
    for _ in range(rng.randint(1, 5)):
        before = saved_at(run)
        while process.poll() is None and saved_at(run) == before:
            time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.05))
    if process.poll() is not None or not children_of(process.pid):
        process.wait()
        return None
    (others, halted), killed = kill(process, kind, rng), time.monotonic()
    seconds = []
    for pids in (others, halted):
        while any(map(is_running, pids)) or (pids is halted and process.poll() is None):
            if time.monotonic() - killed > LIMIT + 60:
                raise SystemExit(f"{kind}: hangs; see {run.parent / 'output.txt'}")
            time.sleep(0.01)
        seconds.append(time.monotonic() - killed)
    return seconds[0], seconds[1]


def videos_by_step(diary: Path) -> dict[str, list[str]]:
    """The videos that made each step: those of the last attempt that made it."""
    steps: dict[tuple[int, int], dict[str, list[str]]] = {}
    for path in sorted(diary.iterdir()):
        attempt = path.name.partition("-")[0]
        for line in path.read_text().splitlines():
            epoch, step, names = json.loads(line)
            steps.setdefault((epoch, step), {}).setdefault(attempt, []).extend(names)
    return {f"{key}": sorted(attempts[max(attempts)]) for key, attempts in sorted(steps.items())}


def largest_difference(run: Path, other: Path) -> tuple[float, str]:
    """Largest difference of the weights as a share of the largest of a tensor, and its name; 0 for equal bits."""
    from tinyaction.models.checkpoint import Checkpoint

    ours, theirs = (Checkpoint.load(path / "last.pt") for path in (run, other))
    assert ours.training is not None and theirs.training is not None
    sides = {"averaged": (ours.state_dict, theirs.state_dict),
             "trained": (ours.training.objects["model"], theirs.training.objects["model"])}
    return max((float((mine[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1e-12)), f"{kind} {name}")
               for kind, (mine, other) in sides.items() for name, tensor in other.items()
               if tensor.is_floating_point())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kills-of-a-run", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    from toys import write_set  # type: ignore[import-not-found]

    rng = random.Random(arguments.seed)
    place = Path(tempfile.mkdtemp(prefix="preempted-"))
    data = write_set(place / "data", num_train=39, num_val=5)
    whole = place / "whole"
    if start(whole, 2, "--data", data, "--out", whole / "run", "--num-workers", 1, *FLAGS).wait():
        raise SystemExit(f"the undisturbed run failed; see {whole / 'output.txt'}")
    done: Counter[str] = Counter()
    number = 0
    while sum(done.values()) < arguments.kills:
        number += 1
        folder = place / f"run {number}"
        only_two = number % 2 == 0  # then to the bit
        counts = [2]
        process = start(folder, 2, "--data", data, "--out", folder / "run", "--num-workers", 1, *FLAGS)
        notes: list[str] = []
        while len(notes) < min(arguments.kills_of_a_run, arguments.kills - sum(done.values()) + len(notes)):
            kind = KINDS[sum(done.values()) % len(KINDS)]
            seconds = disturb(folder / "run", process, kind, rng)
            if seconds is None:
                break
            done[kind] += 1
            notes.append(f"{kind} ({seconds[0]:.1f} s, {seconds[1]:.1f} s)")
            counts.append(2 if only_two else rng.choice([1, 2, 4]))
            process = start(folder, counts[-1], "--resume", folder / "run", "--num-workers", rng.choice([0, 1, 2]))
        if process.wait():
            raise SystemExit(f"run {number} failed; see {folder / 'output.txt'}")
        difference, name = largest_difference(folder / "run", whole / "run")
        same_videos = videos_by_step(folder / "diary") == videos_by_step(whole / "diary")
        print(f"run {number}: processes {counts}, killed {', '.join(notes) or 'never'}; weights "
              f"{f'differ by {difference:.1e} ({name})' if difference else 'equal to the bit'}; videos of each step "
              f"{'equal' if same_videos else 'DIFFER'}", flush=True)
    print(f"{sum(done.values())} kills: {dict(done)}")
    print(f"the runs are in {place}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        raise SystemExit(work(sys.argv[2:]))
    main()
