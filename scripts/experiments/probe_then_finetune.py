"""A probe, fine-tuning, and fine-tuning that begins with the probe, on weizmann4: each tested on persons never seen.

    python scripts/experiments/probe_then_finetune.py --data weizmann4 --weights mobilenet_v2_imagenet_features.pt

Three folds: persons 0-2, 3-5, 6-8 are tested by a network that learned the other six, by ``ta.train`` with its default
rates. Accuracies are over all 36 clips, each tested once. Those of the last epoch choose nothing by looking at the
tested clips; "kept" is what a run keeps, which chooses the best epoch on them and so flatters.
"""

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import tinyaction as ta
from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.results.run import read_run

METHODS = ("probe", "finetune", "probe-then-finetune")
FOLDS = ("012", "345", "678")  # persons that are tested


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        tables = [write_table(Path(arguments.data).resolve(), Path(folder), persons) for persons in FOLDS]
        for method in arguments.methods:
            last, kept, start = [], [], time.process_time()
            for seed in range(1 if method == "probe" else arguments.seeds):
                found = [run(arguments, method, table, Path(folder) / f"{method}-{seed}-{fold}", seed)
                         for fold, table in enumerate(tables)]
                last.append(statistics.mean(values[0] for values in found))
                kept.append(statistics.mean(values[1] for values in found))
            print(f"{method:<20} last epoch {summary(last)}   kept {summary(kept)}   "
                  f"{(time.process_time() - start) / len(last):.0f} s of processor time a seed", flush=True)
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="probe_then_finetune.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder weizmann4")
    parser.add_argument("--weights", required=True, help="of --model")
    parser.add_argument("--model", default="tsn-mobilenet_v2")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of fine-tuning (default 3)")
    parser.add_argument("--size", type=int, default=112, help="pixels a side (default 112)")
    parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning (default 10)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    return parser.parse_args(argv)


def write_table(data: Path, folder: Path, persons: str) -> Path:
    """A CSV of all clips in which ``persons`` are tested."""
    path = folder / f"persons{persons}.csv"
    clips = sorted(data.glob("*/p*_orig.mp4"))
    if len(clips) != 36:
        raise ValueError(f"{data}: {len(clips)} clips CLASS/pN_orig.mp4; weizmann4 has 36")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        writer.writerows([clip, clip.parent.name, "val" if clip.name[1] in persons else "train"] for clip in clips)
    return path


def run(arguments: argparse.Namespace, method: str, table: Path, out: Path, seed: int) -> tuple[float, float]:
    """(accuracy of the last epoch, accuracy of what the run keeps); both are those of the probe for one."""
    result = ta.train(ta.RunConfig(
        str(table), allow_outside=True, model=arguments.model, weights=arguments.weights, method=method,
        size=arguments.size, epochs=arguments.epochs, num_clips=2 if method == "finetune" else 1, num_workers=1,
        seed=seed, device="cpu", out=str(out)))
    return read_run(out).history[-1]["val_top1"], result.accuracy


def summary(accuracies: Sequence[float]) -> str:
    each = " ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    return f"{statistics.mean(accuracies):.3f} ({each})"


if __name__ == "__main__":
    raise SystemExit(main())
