"""Text of users and files that goes to terminals, logs and spreadsheets without being obeyed there."""

import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from tinyaction.places import without_secrets

_FORMULA = re.compile(r"'*[=+\-@]")  # what a spreadsheet takes for a formula, or an escaped one


_COMMAND = re.compile(r"(?<=:) +(tinyaction [a-z]+ .*)$")


def printable(text: str) -> str:
    """Write control characters as their codes: those of a file name could move the cursor or rename a window.

    Addresses are without passwords and signatures.
    """
    text = without_secrets(text)
    codes = {letter: f"\\x{ord(letter):02x}" for letter in set(text) - set("\n\t") if _is_control(letter)}
    return "".join(codes.get(letter, letter) for letter in text)


def _is_control(letter: str) -> bool:
    return ord(letter) < 32 or 127 <= ord(letter) < 160


def wrapped(text: str, width: int) -> str:
    """Break sentences into lines of at most ``width``; a command to copy, at the end of a line, stays whole."""
    return "\n".join(part for line in text.split("\n") for part in _parts(line, width))


def _parts(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    if (command := _COMMAND.search(line)) is not None:
        return [*_parts(line[: command.start()].rstrip(), width), f"  {command[1]}"]
    return textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def shell_line(*words: str | Path) -> str:
    """A command as it is typed: in a POSIX shell, on Windows in cmd.exe."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if sys.platform == "win32" else shlex.join(texts)


def counted(number: int, thing: str) -> str:
    """1, "segment" -> 1 segment; 2 -> 2 segments; 2, "class" -> 2 classes"""
    return f"{number} {thing}" + ("" if number == 1 else "es" if thing.endswith(("s", "ch")) else "s")


def some_of(names: Sequence[str]) -> str:
    """The first four names, for a message."""
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def check_class_names(names: Sequence[str], source: object) -> None:
    """Raise ValueError for a name that would break the lines of a list, or a terminal."""
    for label, name in enumerate(names):
        if not name.strip():
            raise ValueError(f"{source}: the name of class {label} is empty; give it one")
        if any(_is_control(letter) or letter in "\u2028\u2029" for letter in name):
            raise ValueError(f"{source}: the class name {name!r} has a line break or another control character; "
                             "rename the class")


def to_cell(text: str) -> str:
    """A cell of a CSV file that a spreadsheet shows and does not run: a formula gets an apostrophe in front."""
    return f"'{text}" if _FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """The text of which :func:`to_cell` made a cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
