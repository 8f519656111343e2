"""``tinyaction bench`` and ``scripts/bench.py``: the same as ``scripts/benchmark.py``, shorter to type."""

from collections.abc import Sequence

from tinyaction.cli import errors_to_exit_code
from tinyaction.cli.benchmark import measure, parse_args


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    return measure(parse_args(argv, prog="tinyaction bench"))
