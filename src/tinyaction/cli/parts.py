"""A command's videos in parts: ``--part 3/64`` does one of them, ``tinyaction join`` makes the files of all.

``--cluster`` does all of them over the machines of a Ray cluster, and the files in the end.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from tinyaction.cli import say
from tinyaction.cli.network import network_digest
from tinyaction.cli.progress import CountLine
from tinyaction.files import check_output
from tinyaction.places import is_place, url_of, without_secrets
from tinyaction.prepare.cluster import cluster_work
from tinyaction.prepare.parts import Job, Part, Records, Work, join_parts, run_part
from tinyaction.text import shell_line


def add_part_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("many machines")
    group.add_argument("--part", default="", metavar="K/N", help="work on every Nth video from the Kth, as 3/64; "
                       "`tinyaction join` then writes what one run would have written")
    group.add_argument("--parts", default="", metavar="FOLDER",
                       help="for the results of all parts; default the command's name with -parts")
    group.add_argument("--cluster", default="", metavar="ADDRESS", help="work on a Ray cluster: auto, or "
                       "ray://HOST:PORT; needs the extra cluster, and the videos under the same path everywhere")


def job_of(command: str, items: Sequence[str], arguments: argparse.Namespace) -> Job:
    texts = [*items, *(value for value in vars(arguments).values() if isinstance(value, str))]
    secret = next((text for text in texts if is_place(text) and url_of(text) != without_secrets(text)), None)
    if secret is not None:
        raise ValueError(f"{without_secrets(secret)} has a key or a query in its address, and --part and --cluster "
                         "keep addresses in files; leave it out: credentials are those of the environment")
    return Job(command, list(dict.fromkeys(items)), vars(arguments), network_digest(arguments))


def work_on_part(
    command: str, items: Sequence[str], arguments: argparse.Namespace, make_work: Callable[[], Work]
) -> int:
    """Do the part that the flags ask for, and say what comes next; returns the exit code."""
    if arguments.cluster:
        raise ValueError("--part and --cluster exclude each other; --cluster does all videos")
    part, job = Part.parse(arguments.part), job_of(command, items, arguments)
    path = _run(job, part, arguments, make_work)
    say(f"{path}: part {part}, {len(part.items_of(job.items))} videos; when all parts are there: "
        f"{shell_line('tinyaction', 'join', path.parent)}")
    return 0


def work_on_cluster(
    command: str, items: Sequence[str], arguments: argparse.Namespace, make_work: Callable[[], Work]
) -> Path:
    """Do all videos on the cluster that the flags name; returns the folder of the results, to be joined."""
    job = job_of(command, items, arguments)
    num_gpus = int(str(getattr(arguments, "device", "")).startswith("cuda"))

    def work() -> Work:
        return cluster_work(make_work, address=arguments.cluster, num_cpus=getattr(arguments, "num_workers", 2),
                            num_gpus=num_gpus)

    return _run(job, Part(1, 1), arguments, work).parent


def _run(job: Job, part: Part, arguments: argparse.Namespace, make_work: Callable[[], Work]) -> Path:
    folder, line = Path(arguments.parts or f"{job.command}-parts"), CountLine()
    if not any(folder.glob("*-of-*.jsonl")):
        check_output(folder, flag="--parts", is_folder=True)
    try:
        return run_part(job, part, folder, make_work, on_count=lambda done, of_all: line("videos", done, of_all))
    finally:
        line.clear()


def joined(command: str, items: Sequence[str], arguments: argparse.Namespace, folder: Path | None) -> Records | None:
    """What the parts in a folder found; None where no folder is given."""
    return None if folder is None else join_parts(job_of(command, items, arguments), folder)
