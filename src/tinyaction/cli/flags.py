"""The flags of ``train.py``: the fields of the run's config."""

import argparse
from dataclasses import MISSING, fields

from tinyaction.training.config import RunConfig, flag_of


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for every field of :class:`RunConfig`; what is not given is left out of the parsed flags."""
    for item in fields(RunConfig):
        text = item.metadata["help"]
        if item.type is bool:
            # A default of None is decided later, so that --no-... can be told from a flag that was not given.
            action = argparse.BooleanOptionalAction if item.default is None else "store_true"
            parser.add_argument(flag_of(item.name), action=action, default=argparse.SUPPRESS, help=text)
            continue
        if item.default is not MISSING and item.default not in ("", None):
            text += f" (default {item.default})"
        parser.add_argument(flag_of(item.name), type=item.type if callable(item.type) else str,
                            default=argparse.SUPPRESS, help=text)
