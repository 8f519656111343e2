"""Train a recognizer on a folder of videos, and leave a run folder with a report.

example:
  tinyaction train --data clips --model tsm-resnet18 --weights imagenet

to run it again with the flags of its config; flags on the line replace those:
  tinyaction train --config runs/a/config.json --seed 1
"""

import argparse
import os
import signal
from collections.abc import Sequence
from functools import partial

from tinyaction.cli import Parser, errors_to_exit_code, say
from tinyaction.cli.flags import add_flags
from tinyaction.cli.progress import CountLine, ProgressLine, unless_hung_up
from tinyaction.training.config import RunConfig, read_flags
from tinyaction.training.distributed import num_processes, rank, stop_processes
from tinyaction.training.job import requeue_job
from tinyaction.training.peers import PeerFailedError, TrainingInterrupted
from tinyaction.training.resume import resumed_config
from tinyaction.training.run import train


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    progress, count = ProgressLine(), CountLine()
    try:
        config = parse_args(argv)
        train(config, on_line=unless_hung_up(partial(show, progress, count)), on_batch=unless_hung_up(progress),
              on_count=unless_hung_up(count))
    except TrainingInterrupted as stopped:
        if config.requeue and rank() == 0 and signal.Signals(stopped.signum).name == "SIGUSR1":
            unless_hung_up(say)(requeue_job())
        return 128 + stopped.signum
    except PeerFailedError:  # the other process says why
        return 2
    except (ValueError, OSError):
        if num_processes() == 1 and os.environ.get("LOCAL_RANK", "0") != "0":
            return 2  # before the processes meet, the first of each machine says it
        raise
    finally:
        unless_hung_up(progress.close)()
    stop_processes()
    return 0


def show(progress: ProgressLine, count: CountLine, line: str) -> None:
    """Print a line of the log in place of a progress that stands on the terminal."""
    progress.close()
    count.print(line)


def parse_args(argv: Sequence[str] | None = None) -> RunConfig:
    """The config of a run: from the flags, from that of another run (--config), or that of a run to go on with."""
    parser = Parser(prog="tinyaction train", usage="tinyaction train --data DIR [flags]", description=__doc__,
                    allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    parser.add_argument("--config", metavar="FILE", default="",
                        help="config.json of a run: its flags, but for --out, with those on the line in their place")
    given = vars(parser.parse_args(argv))
    path = given.pop("config")
    if given.get("resume"):
        if path:
            parser.error("--config begins a new run and --resume goes on with one; give one of them")
        if given.get("folds"):
            parser.error("--folds begins a new run and --resume goes on with one; give one of them")
        return resumed_config(given)
    if path:
        flags = read_flags(path)
        return RunConfig(**{**flags, "out": "", "resume": "", **given})
    if "data" not in given:
        parser.error("the following arguments are required: --data")
    return RunConfig(**given)
