"""``tinyaction bench`` is ``scripts/benchmark.py``."""

from tinyaction.cli.benchmark import main

__all__ = ["main"]
