"""The videos of a folder that are worth labelling next: the run is unsure of them, and they are unlike its own."""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from tinyaction.cli import Parser, check_at_least, errors_to_exit_code, num_workers_of, say
from tinyaction.cli.progress import CountLine
from tinyaction.files import check_output, write_whole
from tinyaction.results.plots import shortened
from tinyaction.results.suggest import as_rows, suggest
from tinyaction.text import printable, to_cell

COLUMNS = ("path", "class", "score", "uncertainty", "distance")


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="tinyaction suggest", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", required=True, help="folder of videos without labels")
    parser.add_argument("--checkpoint", required=True, help="the folder of a run, or a best.pt or last.pt in it")
    parser.add_argument("-n", "--num", type=int, default=20, help="videos to name (default 20)")
    parser.add_argument("--csv", metavar="OUT", help="also write the table as a CSV")
    parser.add_argument("--num-workers", type=int, default=-1, help="processes that decode; -1 (default) is one per "
                        "core")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--force", action="store_true", help="replace a CSV that tinyaction wrote before")
    args = parser.parse_args(argv)
    check_at_least(1, args, "num")
    if args.csv:
        check_output(args.csv, flag="--csv", inputs=[args.data, args.checkpoint], force=args.force)
    count = CountLine()
    found, notes = suggest(args.checkpoint, args.data, num=args.num, device=args.device,
                           num_workers=num_workers_of(args.num_workers),
                           on_video=lambda done, total: count("videos", done, total))
    count.clear()
    for note in notes:
        say(f"note: {note}", file=sys.stderr)
    rows = as_rows(found)
    print(f"{'unsure':>6}  {'far':>5}  {'class so far':<20}  video")
    for path, name, _, unsure, far in rows:
        line = f"{float(unsure):>6.2f}  {float(far):>5.2f}  {shortened(name, 20):<20}  {shortened(path, 44)}"
        print(printable(line))
    if args.csv:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([COLUMNS, *([to_cell(cell) for cell in row[:2]] + row[2:] for row in rows)])
        write_whole(Path(args.csv), text.getvalue())
        say(f"table: {args.csv}")
    return 0
