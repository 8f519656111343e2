"""Runs beside each other: accuracy, flags, classes, the videos on which they disagree, and whether that is chance."""

from collections.abc import Sequence

from tinyaction.cli import Parser, errors_to_exit_code, say
from tinyaction.files import check_output, write_whole
from tinyaction.results.compare import compare_runs, comparison_lines, comparison_page
from tinyaction.results.run import read_run


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="tinyaction compare", description=__doc__, allow_abbrev=False)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs; the others are set beside the first")
    parser.add_argument("--out", metavar="FILE", help="also write the comparison as a page, as compare.html")
    parser.add_argument("--force", action="store_true", help="replace a page that tinyaction wrote before")
    arguments = parser.parse_args(argv)
    if arguments.out:
        check_output(arguments.out, flag="--out", inputs=arguments.runs, force=arguments.force)
    comparison = compare_runs([read_run(run) for run in arguments.runs])
    for line in comparison_lines(comparison):
        say(line)
    if arguments.out:
        write_whole(arguments.out, comparison_page(comparison).encode("utf-8", errors="backslashreplace"))
        say(f"page: {arguments.out}")
    return 0
