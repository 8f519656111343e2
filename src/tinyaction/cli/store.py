"""Decode each video of a folder once and keep its frames: a data folder like the first, which reads ten times faster.

Training and evaluation take it as they take any other: --data STORE. The command can be stopped and given again: what
is stored is not decoded again, and what has changed since is.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.cli.progress import CountLine
from tinyaction.device import default_num_workers
from tinyaction.files import check_output, write_whole
from tinyaction.prepare.store import SECONDS_PER_VIDEO, default_store, fill_store, plan_store
from tinyaction.prepare.stored_file import StoreSettings
from tinyaction.video.store_info import STORE_FILE

BAD_FILES = "bad_files.txt"


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="tinyaction store", description=__doc__, allow_abbrev=False)
    add_flags(parser)
    run(parser.parse_args(argv))
    return 0


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
    parser.add_argument("--allow-outside", action="store_true", help="lists may name videos elsewhere")


def run(arguments: argparse.Namespace) -> None:
    if arguments.num_workers < -1:
        raise ValueError(f"--num-workers is {arguments.num_workers}; it must be at least -1")
    if arguments.num_workers == -1:
        arguments.num_workers = default_num_workers()
    if not arguments.video_timeout > 0:
        raise ValueError(f"--video-timeout is {arguments.video_timeout:g}; it must be above 0 seconds")
    settings = StoreSettings(format=arguments.format, short_side=arguments.short_side,
                             frame_stride=arguments.frame_stride, quality=arguments.quality)
    target = Path(arguments.out or default_store(arguments.data, settings))
    if not (target / STORE_FILE).is_file():  # a store that is there is brought up to date
        check_output(target, flag="--out", inputs=[arguments.data], is_folder=True)
    folder = make_store(arguments.data, target, settings,
                        num_workers=arguments.num_workers, video_timeout=arguments.video_timeout,
                        skip_bad=arguments.on_error == "skip", allow_outside=arguments.allow_outside)
    print(f"train with: tinyaction train --data {folder}")


def make_store(
    source: str | Path, folder: str | Path, settings: StoreSettings, *, num_workers: int,
    video_timeout: float = SECONDS_PER_VIDEO, skip_bad: bool = False, allow_outside: bool = False,
) -> Path:
    """Bring a store up to date, telling on stdout what it takes; returns its folder."""
    plan = plan_store(source, folder, settings, allow_outside=allow_outside)
    line = CountLine()
    line.print(str(plan))
    result = fill_store(plan, num_workers=num_workers, video_timeout=video_timeout, skip_bad=skip_bad,
                        on_progress=lambda done, total: line("videos", done, total))
    line.clear()
    if plan.missing:
        line.print(f"{plan.folder}: {result.num_stored} videos stored, {result.num_bytes / 1e6:.0f} MB")
    if result.bad:
        bad_files = plan.folder / BAD_FILES
        write_whole(bad_files, "".join(f"{reason}\n" for reason in result.bad.values()))
        line.print(f"{plan.folder}: {len(result.bad)} of {len(plan.targets)} videos cannot be read and are left out "
                   f"of the lists; {bad_files} names them")
    return plan.folder
