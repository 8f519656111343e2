"""The flags of ``tinyaction train``: the fields of the run's config, in their groups."""

import argparse
from dataclasses import MISSING, fields

from tinyaction.training.config import RunConfig, flag_of

METAVARS = {int: "N", float: "X", str: "TEXT"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every field of :class:`RunConfig`. A flag that is not given is left out of the parsed result."""
    group = parser.add_argument_group("run")
    for item in fields(RunConfig):
        if item.metadata["group"]:
            group = parser.add_argument_group(item.metadata["group"])
        text = item.metadata["help"]
        if item.type is bool:
            # The default of a flag by model is not known here, so it needs a --no-... to be switched off.
            action = argparse.BooleanOptionalAction if item.default is None else "store_true"
            group.add_argument(flag_of(item.name), action=action, default=argparse.SUPPRESS, help=text)
            continue
        if item.default is not MISSING and item.default not in ("", None):
            text += f" (default {item.default})"
        assert isinstance(item.type, type)
        choices = ",".join(map(str, item.metadata["choices"]))
        group.add_argument(flag_of(item.name), type=item.type, default=argparse.SUPPRESS, help=text,
                           metavar=f"{{{choices}}}" if choices else item.metadata["metavar"] or METAVARS[item.type])
