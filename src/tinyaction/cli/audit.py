"""What is doubtful about a folder of clips: labels, recordings in train and val, shortcuts, odd files."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from textwrap import wrap

from tinyaction.audit.audit import audit_data
from tinyaction.audit.page import audit_lines, write_audit, write_groups
from tinyaction.audit.parts import found_in_parts, paths_of, work_in_part
from tinyaction.cli import Parser, add_list_flags, errors_to_exit_code, list_flags, say
from tinyaction.cli.parts import add_part_flags, joined, work_on_cluster, work_on_part
from tinyaction.cli.progress import CountLine
from tinyaction.files import check_output
from tinyaction.results.summary import WIDTH
from tinyaction.text import printable
from tinyaction.training.config import RunConfig


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    return run(parse_args(argv))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="tinyaction audit", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", required=True, help="folder of the videos and their lists")
    parser.add_argument("--model", default="tsn-mobilenet_v2", help="network whose features tell of labels and frames "
                        "(default tsn-mobilenet_v2)")
    parser.add_argument("--weights", default="", help="its pretrained weights, as for train; without them labels and "
                        "frames are left out")
    parser.add_argument("--clip-len", type=int, help="frames of a clip (default by model)")
    parser.add_argument("--size", type=int, help="side of the square that the network sees (default by model)")
    parser.add_argument("--group-by", default="", help="regular expression on the path: clips with the same match are "
                        "kept together")
    parser.add_argument("--out", default="audit", help="new folder for audit.html, audit.json and look_at.txt "
                        "(default audit)")
    parser.add_argument("--write-groups", metavar="CSV", help="also write a list of all clips with their recordings, "
                        "for train --data CSV")
    parser.add_argument("--num-workers", type=int, default=-1, help="processes that decode; -1 (default) is one per "
                        "core")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    add_list_flags(parser)
    parser.add_argument("--force", action="store_true", help="replace a CSV that tinyaction wrote before")
    add_part_flags(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace, parts: Path | None = None) -> int:
    """``parts``: a folder of what was read of all videos; features are beside the data, where this finds them."""
    config = RunConfig(args.data, method="probe", model=args.model, weights=args.weights, clip_len=args.clip_len,
                       size=args.size, group_by=args.group_by, num_workers=args.num_workers, device=args.device,
                       on_error="skip", max_skipped=1.0, **list_flags(args))
    folder = check_output(args.out, flag="--out", inputs=[args.data], is_folder=True)
    if args.write_groups:
        check_output(args.write_groups, flag="--write-groups", inputs=[args.data, args.out], force=args.force)
    records = None
    if args.part or args.cluster or parts:
        paths = paths_of(config)
        if args.part:
            return work_on_part("audit", paths, args, partial(work_in_part, config))
        if args.cluster:
            parts = work_on_cluster("audit", paths, args, partial(work_in_part, config))
        records = joined("audit", paths, args, parts)
    count = CountLine()
    audit = audit_data(config, looked_at=None if records is None else found_in_parts(records), on_line=count.print,
                       on_count=count)
    count.clear()
    folder.mkdir(parents=True, exist_ok=True)
    write_audit(audit, folder)
    for line in audit_lines(audit):
        for part in wrap(printable(line), WIDTH, subsequent_indent="  ", break_long_words=False):
            print(part)
    if args.write_groups:
        write_groups(audit, Path(args.write_groups))
        say(f"groups: {args.write_groups}")
    say(f"page: {folder / 'audit.html'}; {len(audit.paths_to_look_at())} clips to look at in "
        f"{folder / 'look_at.txt'}")
    return 0
