"""Probes of a frozen network where there are few clips: weizmann4 (36 clips) and the generated set "direction".

    python scripts/experiments/few_clips.py --weizmann4 clips/weizmann4 --weights mobilenet_v2_imagenet_features.pt

weizmann4: whole persons are held out, three at a time or one; within the training persons, pooling and strength are
chosen by cross-validation that holds out whole persons too. Nothing is chosen by looking at tested clips, and nothing
is random, so there are no seeds. Beside it an epoch of a run that encodes every clip anew, for --freeze all.
direction: a clip and the same played backwards, which only their order tells apart.
Seconds are of the clock and of the processor, of a whole run with its report, in one process.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tinyaction import RunConfig, RunResult, train
from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.prepare.synthetic import make_direction_set
from tinyaction.results.run import TIMES, read_run

BY_PERSON = r"p(\d)_"


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.weizmann4:
            run_weizmann4(arguments, Path(folder))
        if arguments.num_train:
            run_direction(arguments, Path(folder))
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="few_clips.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weizmann4", default="", help="the folder weizmann4; without: only direction")
    parser.add_argument("--weights", required=True, help="of --model")
    parser.add_argument("--model", default="tsn-mobilenet_v2")
    parser.add_argument("--clip-len", type=int, default=8, help="frames of a view (default 8)")
    parser.add_argument("--size", type=int, default=112, help="pixels a side for weizmann4 (default 112)")
    parser.add_argument("--direction-size", type=int, default=128, help="pixels a side for direction (default 128)")
    parser.add_argument("--views", type=int, default=2, help="views of a weizmann4 video (default 2)")
    parser.add_argument("--poolings", nargs="+", default=["stats", "auto"], help="for weizmann4 (default stats auto)")
    parser.add_argument("--num-train", type=int, default=100, help="of direction, even; 0 leaves it out (default 100)")
    parser.add_argument("--num-val", type=int, default=60, help="of direction, even (default 60)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    return parser.parse_args(argv)


def timed_run(arguments: argparse.Namespace, data: Path, title: str, **flags: Any) -> RunResult:
    """Train, and print accuracy, times and what was chosen."""
    out = Path(tempfile.mkdtemp(dir=data.parent)) / "run"
    config = RunConfig(str(data), model=arguments.model, weights=arguments.weights, clip_len=arguments.clip_len,
                       num_workers=0, device="cpu", out=str(out), **flags)
    clock, processor = time.perf_counter(), time.process_time()
    result = train(config)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    run = read_run(out)
    chosen = {fold["chosen"] for fold in run.folds} or {run.config.get("probe", {}).get("pooling", "nothing")}
    print(f"{title}: accuracy {result.accuracy:.3f} over {len(result.evaluation.labels)} clips, {clock:.1f} s "
          f"({processor:.1f} s of the processor); chosen: {'; '.join(sorted(chosen))}", flush=True)
    return result


def run_weizmann4(arguments: argparse.Namespace, folder: Path) -> None:
    data = folder / "weizmann4"
    for path in Path(arguments.weizmann4).glob("*/p*_orig.mp4"):       # a copy, as features are kept beside the data
        (data / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, data / path.parent.name)
    probe = {"method": "probe", "size": arguments.size, "probe_views": arguments.views, "group_by": BY_PERSON}
    for number, pooling in enumerate(arguments.poolings):
        for folds, what in ((3, "3 persons"), (9, "1 person")):
            title = f"weizmann4, {pooling}, {folds} folds of {what}"
            if number == 0 and folds == 3:
                timed_run(arguments, data, f"{title}, cold", folds=folds, pooling=pooling, **probe)
            timed_run(arguments, data, title, folds=folds, pooling=pooling, **probe)
    once = timed_run(arguments, data, "weizmann4, auto, one split", **probe)
    encoding = timed_run(arguments, data, "weizmann4, encoded in every epoch", method="finetune", freeze="all",
                         epochs=3, size=arguments.size, group_by=BY_PERSON)
    row = read_run(once.path).history[0]
    epoch = min(sum(row[name] for name in TIMES) for row in read_run(encoding.path).history[1:])
    print(f"weizmann4: an epoch that encodes takes {epoch:.2f} s; choosing and fitting a probe, all in all, "
          f"{row['compute_seconds']:.2f} s: {epoch / row['compute_seconds']:.1f} times as long", flush=True)


def run_direction(arguments: argparse.Namespace, folder: Path) -> None:
    data = folder / "direction"
    make_direction_set(data, num_train=arguments.num_train, num_val=arguments.num_val)
    for pooling in ("mean", "stats", "order", "auto"):
        timed_run(arguments, data, f"direction, {pooling}", method="probe", pooling=pooling, probe_views=1, flip=0.0,
                  size=arguments.direction_size)


if __name__ == "__main__":
    raise SystemExit(main())
