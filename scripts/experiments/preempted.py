"""Kill runs of several processes at random moments, resume them with other numbers of processes, compare the weights.

    PYTHONPATH=tests python scripts/experiments/preempted.py --kills 20

Each run has a raw store, averaged weights, mixup, dropout, accumulation and frozen norms. Two processes begin it. At a
random moment one rank is killed, or all ranks, or a rank is halted (SIGSTOP), or the torchrun that started them; then
the run is resumed with a number of processes and workers drawn at random and killed again. In the end its weights are
compared with those of a run that nothing disturbed, and for each step the videos that made it.

A broken file and a full disk of rank 0 are tests in tests/training/test_ranks.py.
"""

import argparse
import json
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from ranks import Ranks, Torchrun, has_saved, weight_difference  # type: ignore[import-not-found]
from toys import write_set  # type: ignore[import-not-found]

LIMIT = 6  # seconds without a sign of life (--video-timeout)
FLAGS = ("--model conv2d --method finetune --store raw --size 16 --clip-len 2 --batch-size 2 --grad-accum "
         "2 --epochs 3 --save-every 1 --lr 0.05 --mixup 0.2 --ema 0.9 --freeze-norms --device cpu "
         f"--video-timeout {LIMIT}").split()
KINDS = ("rank", "all", "halt", "torchrun")


def disturb(run: Path, ranks: "Ranks | Torchrun", kind: str, rng: random.Random) -> float | None:
    """Kill at a random moment; returns the seconds until the others had ended, None where the run was over before."""
    is_saved = has_saved(run, rng.randint(1, 5))
    while ranks.is_running() and not is_saved():
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.05))
    if not ranks.is_running():
        return None
    killed = time.monotonic()
    if isinstance(ranks, Torchrun):
        ranks.kill_torchrun(within=LIMIT + 30)
        return time.monotonic() - killed
    chosen = rng.randrange(len(ranks.processes))
    if kind == "all":
        ranks.kill(signal.SIGKILL, *range(len(ranks.processes)))
    else:
        ranks.kill(signal.SIGSTOP if kind == "halt" else signal.SIGKILL, chosen)
    codes = ranks.end(within=LIMIT + 30, but=chosen if kind == "halt" else None)
    seconds = time.monotonic() - killed
    if kind == "halt":
        ranks.kill(signal.SIGKILL, chosen)
        ranks.end()
    others = [code for rank, code in enumerate(codes) if rank != chosen and kind != "all"]
    errors = ranks.errors()
    if others and set(others) == {0}:  # the last step was over
        return None
    if others and (set(others) != {2} or len(errors) != 1 or f"rank {chosen} (process" not in errors[0]):
        raise SystemExit(f"{kind} of {chosen}: exit codes {codes}, errors {errors}; see {ranks.output}")
    return seconds


def videos_by_step(diary: Path) -> dict[tuple[int, int], list[str]]:
    """The videos that made each step: those of the last attempt that made it."""
    steps: dict[tuple[int, int], dict[str, list[str]]] = {}
    for path in sorted(diary.glob("*/*")):
        for line in path.read_text().splitlines():
            epoch, step, names = json.loads(line)
            steps.setdefault((epoch, step), {}).setdefault(path.parent.name, []).extend(names)
    return {key: sorted(attempts[max(attempts)]) for key, attempts in steps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kills-of-a-run", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    place = Path(tempfile.mkdtemp(prefix="preempted-"))
    data = write_set(place / "data", num_train=39, num_val=5)

    def kind_of(number: int, num_processes: int) -> str:
        return "all" if num_processes == 1 else KINDS[number % len(KINDS)]

    def start(folder: Path, num_processes: int, kind: str, *words: object) -> "Ranks | Torchrun":
        attempt = f"{time.time_ns()}"
        (folder / "diary" / attempt).mkdir(parents=True)
        begin = Torchrun if kind == "torchrun" else Ranks
        return begin(num_processes, folder / f"output {attempt}", *words, diary=folder / "diary" / attempt)

    whole = place / "whole"
    if start(whole, 2, "", "--data", data, "--out", whole / "run", "--num-workers", 1, *FLAGS).end(600) != [0, 0]:
        raise SystemExit(f"the undisturbed run failed; see {whole}")
    done: Counter[str] = Counter()
    number = 0
    while sum(done.values()) < arguments.kills:
        number += 1
        folder, counts = place / f"run {number}", [2]
        notes: list[str] = []
        words: tuple[object, ...] = ("--data", data, "--out", folder / "run", "--num-workers", 1, *FLAGS)
        while True:
            is_to_die = len(notes) < arguments.kills_of_a_run and sum(done.values()) < arguments.kills
            kind = kind_of(sum(done.values()), counts[-1]) if is_to_die else ""
            ranks = start(folder, counts[-1], kind, *words)
            seconds = disturb(folder / "run", ranks, kind, rng) if is_to_die else None
            if seconds is None:
                break
            done[kind] += 1
            notes.append(f"{kind} {seconds:.1f} s")
            # Every other run to the bit.
            counts.append(rng.choice([1, 2, 4]) if number % 2 else 2)
            words = ("--resume", folder / "run", "--num-workers", rng.choice([0, 1, 2]))
        if not set(ranks.end(600)) <= {0, -signal.SIGKILL}:            # killed after its last step
            raise SystemExit(f"run {number} failed; see {ranks.output}")
        difference = weight_difference(folder / "run", whole / "run")
        same_videos = videos_by_step(folder / "diary") == videos_by_step(whole / "diary")
        print(f"run {number}: processes {counts}, killed: {', '.join(notes) or 'never'}; weights "
              f"{f'differ by {difference:.1e}' if difference else 'equal to the bit'}; videos of each step "
              f"{'equal' if same_videos else 'DIFFER'}", flush=True)
    print(f"{sum(done.values())} kills: {dict(done)}; the runs are in {place}")


if __name__ == "__main__":
    main()
