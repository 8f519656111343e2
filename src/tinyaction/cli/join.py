"""Put the parts of check, store, embed, predict or audit together: prints and writes what one run would have.

Run it in the folder in which the parts were run, as names of files are relative to it.
"""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.prepare.parts import read_job

IN_PARTS = ("check", "store", "embed", "predict", "audit")


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="tinyaction join", description=__doc__, allow_abbrev=False)
    parser.add_argument("parts", metavar="PARTS", help="the folder of --parts")
    parser.add_argument("--force", action="store_true", help="replace output files that tinyaction wrote before")
    parser.add_argument("--skip-errors", action="store_true", help="of embed: leave out videos that cannot be read")
    given = parser.parse_args(argv)
    if not Path(given.parts).is_dir():
        raise FileNotFoundError(f"{given.parts}: no such folder; name the folder of --parts")
    command, kept = read_job(Path(given.parts))
    if command not in IN_PARTS:
        raise ValueError(f"{given.parts}: parts of {command!r}; it must be one of {', '.join(IN_PARTS)}")
    arguments = argparse.Namespace(**kept | {"part": "", "cluster": "", "force": given.force})
    if given.skip_errors:
        arguments.skip_errors = True
    exit_code: int = importlib.import_module(f"tinyaction.cli.{command}").run(arguments, parts=Path(given.parts))
    return exit_code
