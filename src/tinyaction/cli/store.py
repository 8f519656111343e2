"""Decode each video of a folder once and keep its frames: a data folder like the first, which reads ten times faster.

Training and evaluation take it as they take any other: --data STORE. The command can be stopped and given again: what
is stored is not decoded again, and what has changed since is.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tinyaction.cli import Parser, add_list_flags, errors_to_exit_code, list_flags
from tinyaction.cli.parts import add_part_flags, joined, work_on_cluster, work_on_part
from tinyaction.cli.progress import CountLine
from tinyaction.device import default_num_workers
from tinyaction.files import check_output
from tinyaction.places import is_place
from tinyaction.prepare.parts import Part
from tinyaction.prepare.store import SECONDS_PER_VIDEO, default_store, make_store, plan_store, store_videos
from tinyaction.prepare.stored_file import StoreSettings
from tinyaction.text import shell_line
from tinyaction.video.store_info import STORE_FILE


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="tinyaction store", description=__doc__, allow_abbrev=False)
    add_flags(parser)
    add_part_flags(parser)
    return run(parser.parse_args(argv))


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help="folder of the videos and their lists")
    parser.add_argument("--out", default="", help="folder of the store; default beside the data, as DATA-jpeg256")
    parser.add_argument("--format", default="jpeg", choices=("jpeg", "raw"),
                        help="JPEG frames in a zip, or arrays (ten times the space, no decoding) (%(default)s)")
    parser.add_argument("--short-side", type=int, default=256, help="of the frames, in pixels (%(default)s)")
    parser.add_argument("--frame-stride", type=int, default=1, help="keep one frame of so many (%(default)s)")
    parser.add_argument("--quality", type=int, default=95, help="of the JPEG frames, 1 to 100 (%(default)s)")
    parser.add_argument("--num-workers", type=int, default=-1,
                        help="processes; 0 decodes in the main process, -1 (default) starts one per core")
    parser.add_argument("--video-timeout", type=float, default=SECONDS_PER_VIDEO,
                        help="seconds for one video; one that takes longer cannot be read (%(default)g)")
    parser.add_argument("--on-error", default="raise", choices=("raise", "skip"),
                        help="videos that cannot be read: name them and fail, or leave them out (%(default)s)")
    add_list_flags(parser)


def run(arguments: argparse.Namespace, parts: Path | None = None) -> int:
    """``parts``: take from this folder which videos are bad, see :mod:`tinyaction.cli.join`."""
    if arguments.num_workers < -1:
        raise ValueError(f"--num-workers is {arguments.num_workers}; it must be at least -1")
    if arguments.num_workers == -1:
        arguments.num_workers = default_num_workers()
    if not arguments.video_timeout > 0:
        raise ValueError(f"--video-timeout is {arguments.video_timeout:g}; it must be above 0 seconds")
    settings = StoreSettings(format=arguments.format, short_side=arguments.short_side,
                             frame_stride=arguments.frame_stride, quality=arguments.quality)
    target = Path(arguments.out or default_store(arguments.data, settings))
    if not is_place(target) and not (target / STORE_FILE).is_file():  # a store that is there is brought up to date
        check_output(target, flag="--out", inputs=[arguments.data], is_folder=True)
    part, cluster = getattr(arguments, "part", ""), getattr(arguments, "cluster", "")
    if part or cluster:
        plan = plan_store(arguments.data, target, settings, part=Part.parse(part or "1/1"), **list_flags(arguments))
        work = partial(partial, store_videos, plan, num_workers=max(arguments.num_workers, bool(cluster)),
                       video_timeout=arguments.video_timeout)
        if part:
            return work_on_part("store", list(plan.targets), arguments, work)
        parts = work_on_cluster("store", list(plan.targets), arguments, work)

    def known_bad(videos: list[str]) -> dict[str, str]:
        records = joined("store", videos, arguments, parts) or {}
        return {video: found for video, found in records.items() if isinstance(found, str)}

    line = CountLine()
    make_store(arguments.data, target, settings, num_workers=arguments.num_workers,
               video_timeout=arguments.video_timeout, skip_bad=arguments.on_error == "skip", known_bad=known_bad,
               on_line=line.print, on_count=line, **list_flags(arguments))
    line.print("train with: " + shell_line(
        "tinyaction", "train", "--data", target, *["--multi-label"] * arguments.multi_label))
    return 0
