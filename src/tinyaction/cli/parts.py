"""A command's videos in parts: ``--part 3/64`` does one of them, ``tinyaction join`` makes the files of all."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from tinyaction.cli.network import network_digest
from tinyaction.cli.progress import CountLine
from tinyaction.files import check_output
from tinyaction.prepare.parts import Job, Part, Records, Work, join_parts, run_part
from tinyaction.text import shell_line


def add_part_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("an array of jobs")
    group.add_argument("--part", default="", metavar="K/N", help="work on every Nth video from the Kth, as 3/64; "
                       "`tinyaction join` then writes what one run would have written")
    group.add_argument("--parts", default="", metavar="FOLDER",
                       help="for the results of all parts; default the command's name with -parts")


def job_of(command: str, items: Sequence[str], arguments: argparse.Namespace) -> Job:
    return Job(command, list(dict.fromkeys(items)), vars(arguments), network_digest(arguments))


def work_on_part(
    command: str, items: Sequence[str], arguments: argparse.Namespace, make_work: Callable[[], Work]
) -> int:
    """Do the part that the flags ask for, and say what comes next; returns the exit code."""
    part, folder, line = Part.parse(arguments.part), Path(arguments.parts or f"{command}-parts"), CountLine()
    if not any(folder.glob("*-of-*.jsonl")):
        check_output(folder, flag="--parts", is_folder=True)
    path = run_part(job_of(command, items, arguments), part, folder, make_work,
                    on_count=lambda num_done, num_all: line("videos", num_done, num_all))
    line.print(f"{path}: part {part}, {len(part.items_of(job_of(command, items, arguments).items))} videos; when all "
               f"parts are there: {shell_line('tinyaction', 'join', folder)}")
    return 0


def joined(command: str, items: Sequence[str], arguments: argparse.Namespace, folder: Path | None) -> Records | None:
    """What the parts in a folder found; None where no folder is given."""
    return None if folder is None else join_parts(job_of(command, items, arguments), folder)
