"""Put a set of videos in place, download or generate it, split it, or bring over segments of another tool."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tinyaction.cli import Parser, add_list_flags, errors_to_exit_code, list_flags, say, store
from tinyaction.cli.progress import CountLine
from tinyaction.data.annotations import VAL_SHARE
from tinyaction.data.segments import read_segments, write_segments
from tinyaction.files import check_output, write_whole
from tinyaction.prepare.annotation_formats import TOOLS, annotations_of, read_annotations
from tinyaction.prepare.download import prepare_kinetics400_tiny
from tinyaction.prepare.split import write_new_split
from tinyaction.prepare.streams import make_streams
from tinyaction.prepare.synthetic import STAND_IN_TITLE, is_stand_in, make_direction_set


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    command: Callable[[argparse.Namespace], None] = args.command
    command(args)
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="tinyaction prepare", description=__doc__, allow_abbrev=False)
    sets = parser.add_subparsers(metavar="SET", help="left out: kinetics400_tiny")

    tiny = sets.add_parser("kinetics400_tiny", help="the tutorial's 40 clips", allow_abbrev=False)
    tiny.add_argument("--data", default="data/kinetics400_tiny", help="folder to fill (%(default)s)")
    tiny.add_argument("--force", action="store_true", help="replace a stand-in by the real set")
    tiny.set_defaults(command=run_kinetics400_tiny)

    direction = sets.add_parser("direction", help="a shape that moves right, or left", allow_abbrev=False)
    direction.add_argument("--data", default="data/direction", help="folder to fill (%(default)s)")
    direction.add_argument("--seed", type=int, default=0, help="another seed gives other clips (%(default)s)")
    direction.add_argument("--num-train", type=int, default=200, help="training clips, even (%(default)s)")
    direction.add_argument("--num-val", type=int, default=60, help="validation clips, even (%(default)s)")
    direction.set_defaults(command=run_direction)

    streams = sets.add_parser("streams", help="uncut videos with the time of each action", allow_abbrev=False)
    streams.add_argument("--data", default="data/streams", help="folder to fill (%(default)s)")
    streams.add_argument("--seed", type=int, default=0, help="another seed gives other videos (%(default)s)")
    streams.add_argument("--num-train", type=int, default=24, help="training videos (%(default)s)")
    streams.add_argument("--num-val", type=int, default=8, help="validation videos (%(default)s)")
    streams.add_argument("--seconds", type=float, default=40.0, help="length of each (%(default)s)")
    streams.add_argument("--overlaps", action="store_true", help="let every other action overlap the one before")
    streams.set_defaults(command=run_streams)

    frames = sets.add_parser("store", help="the frames of a set, decoded once", description=store.__doc__,
                             allow_abbrev=False)
    store.add_flags(frames)
    frames.set_defaults(command=store.run)

    split = sets.add_parser("split", help="choose the validation videos anew, as a CSV", allow_abbrev=False,
                            description="Choose the validation videos of a folder or list anew, and write a CSV for "
                            "train --data CSV.")
    add_split_flags(split)
    split.set_defaults(command=run_split)

    segments = sets.add_parser("import", help="segments that another tool labeled, as our CSV", allow_abbrev=False,
                               description="Label Studio's or ActivityNet's JSON as a CSV of segments, and back.")
    segments.add_argument("file", metavar="FILE", help="the JSON of another tool; with --export our CSV")
    segments.add_argument("--out", required=True, help="the CSV to write, into the folder of the videos; with "
                          "--export the JSON")
    segments.add_argument("--export", choices=TOOLS, help="write the segments of our CSV as the JSON of another tool")
    segments.add_argument("--videos", metavar="DIR", help="folder of the videos (default: that of the CSV)")
    segments.add_argument("--fps", type=float, help="frame rate of the <Video> tag in Label Studio")
    segments.add_argument("--force", action="store_true", help="replace output files that tinyaction wrote before")
    segments.set_defaults(command=run_import)

    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "kinetics400_tiny")
    return parser.parse_args(arguments)


def add_split_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, help="folder of the videos and their lists, or one list")
    parser.add_argument("--by", choices=("group", "class"), default="group", help="keep groups whole, or go class by "
                        "class (default group)")
    parser.add_argument("--group-by", default="", help="regular expression on the path: clips with the same match are "
                        "a group; default the column 'group'")
    parser.add_argument("--out", required=True, metavar="CSV", help="the CSV to write")
    parser.add_argument("--val-share", type=float, default=VAL_SHARE, help="of the videos (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another split (%(default)s)")
    add_list_flags(parser)
    parser.add_argument("--force", action="store_true", help="replace a CSV that tinyaction wrote before")


def run_kinetics400_tiny(args: argparse.Namespace) -> None:
    line = CountLine()
    state = prepare_kinetics400_tiny(args.data, force=args.force, on_progress=line, log=line.print)
    line.print(f"{args.data}: {state}")
    if is_stand_in(args.data):
        say(f"{STAND_IN_TITLE}\ntinyaction prepare --force tries again to replace it by the real set")


def run_direction(args: argparse.Namespace) -> None:
    check_output(args.data, flag="--data", is_folder=True)
    line = CountLine()
    make_direction_set(args.data, num_train=args.num_train, num_val=args.num_val, seed=args.seed,
                       on_progress=lambda done, total: line("clips", done, total))
    line.print(f"{args.data}: {args.num_train} training and {args.num_val} validation clips")


def run_streams(args: argparse.Namespace) -> None:
    check_output(args.data, flag="--data", is_folder=True)
    line = CountLine()
    make_streams(args.data, num_train=args.num_train, num_val=args.num_val, seconds=args.seconds,
                 overlaps=args.overlaps, seed=args.seed, on_progress=lambda done, total: line("videos", done, total))
    line.print(f"{args.data}: {args.num_train} training and {args.num_val} validation videos of {args.seconds:g} s")


def run_split(args: argparse.Namespace) -> None:
    if Path(args.out).suffix.lower() != ".csv":
        raise ValueError(f"--out is {args.out}; it must end in .csv")
    check_output(args.out, flag="--out", inputs=[args.data], force=args.force)
    found = write_new_split(args.data, args.out, by=args.by, val_share=args.val_share, seed=args.seed,
                            group_by=args.group_by, **list_flags(args))
    say(f"{args.out}: {found}")


def run_import(args: argparse.Namespace) -> None:
    suffix = ".json" if args.export else ".csv"
    if Path(args.out).suffix.lower() != suffix:
        raise ValueError(f"--out is {args.out}; it must end in {suffix}")
    if args.fps is not None and not 0 < args.fps < float("inf"):
        raise ValueError(f"--fps is {args.fps}; it must be above 0")
    check_output(args.out, flag="--out", inputs=[args.file], force=args.force)
    folder = args.videos or Path(args.file if args.export else args.out).parent
    if args.export:
        segments = read_segments(args.file, overlap=True)
        text, notes = annotations_of(segments, args.export, videos=folder, fps=args.fps)
        write_whole(args.out, text)
    else:
        imported = read_annotations(args.file, videos=folder, fps=args.fps)
        segments, notes = imported.segments, imported.notes
        write_segments(args.out, segments)
    for note in notes:
        say(f"note: {note}")
    num_videos = len({item.path for item in segments})
    num_classes = len({item.label for item in segments})
    say(f"{args.out}: {len(segments)} segments of {num_classes} classes in {num_videos} videos")
