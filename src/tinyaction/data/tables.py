"""Text files and tables as people and spreadsheets save them."""

import csv
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

MAX_LINE = 10_000  # characters; the longest path that Linux opens has 4,096


def read_text(path: str | Path) -> str:
    """A text file, whatever ends its lines; ValueError names the line that is no text, or not UTF-8, or endless."""
    return "".join(read_lines(path))


def read_lines(path: str | Path) -> Iterator[str]:
    """The lines of a text file with their ends, one at a time: a list of ten million is never held whole.

    They are UTF-8, or UTF-16 with its mark, as spreadsheets save them. Raises ValueError as :func:`read_text`.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"{path}: no regular file; a list is a text file")
    with open(path, "rb") as raw:
        encoding = "utf-16" if raw.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with open(path, encoding=encoding) as file:
        try:
            for number, line in enumerate(file, start=1):
                if "\0" in line:
                    raise ValueError(f"{path}, line {number}: a NUL byte; this is no text, or not UTF-8: save it as "
                                     "UTF-8")
                if len(line) > MAX_LINE and len(line := line.rstrip("\n")) > MAX_LINE:
                    raise ValueError(f"{path}, line {number}: {len(line)} characters; a line has at most {MAX_LINE}")
                yield line
        except UnicodeDecodeError:
            number = _undecodable_line(path, encoding)
            raise ValueError(f"{path}, line {number}: not UTF-8 text; save the file as UTF-8") from None


def _undecodable_line(path: str | Path, encoding: str) -> int:
    """The number of the first line that is no text; the pieces in which a file is decoded do not tell."""
    try:
        Path(path).read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        return error.object[: error.start].count(b"\n") + 1
    raise AssertionError("it could not be decoded before")


def delimiter_of(header: str) -> str:
    """What separates the cells of a line: a comma, a semicolon or a tab."""
    return max(",;\t", key=header.count)


def read_table(
    path: str | Path, required: Sequence[str], *, together: tuple[str, str] | None = None, may_be_empty: str = ""
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ("file, line n", cells by column) of a CSV file, the cells without spaces around them.

    Commas, semicolons or tabs may separate the cells; the names of the columns are taken in lower case.

    Args:
        required: columns of which no cell is empty, but those of the column ``may_be_empty``.
        together: two columns that are required where one of them is there.

    Raises:
        ValueError: a column or a cell is missing, a line has too many cells, or there is no line.
    """
    lines = read_lines(path)
    header = next(lines, "")
    table = csv.reader(chain([header], lines), skipinitialspace=True, delimiter=delimiter_of(header))
    rows = _rows_of(table, path)
    columns = [name.strip().lower() for name in next(rows, [])]
    if together and set(together) & set(columns):
        required = [required[0], *together, *(name for name in required[1:] if name not in together)]
    expected = ",".join(required)
    if not set(required) <= set(columns):
        raise ValueError(f"{path}, line 1: columns {', '.join(columns) or '(none)'}; a table begins with "
                         f"'{expected}' or '{expected},split'")
    is_empty = True
    for values in filter(None, rows):
        where = f"{path}, line {table.line_num}"
        if len(values) > len(columns):
            raise ValueError(f"{where}: {len(columns)} columns, but more cells; a path with a comma goes into quotes")
        cells = dict(zip(columns, map(str.strip, values), strict=False))
        for column in required:
            if not cells.get(column) and (column != may_be_empty or column not in cells):
                raise ValueError(f"{where}: no {column}; a line is '{expected}[,split]'")
        if len(values) < len(columns):
            cells = dict.fromkeys(columns, "") | cells
        is_empty = False
        yield where, cells
    if is_empty:
        raise ValueError(f"{path}: the table is empty; a line is '{expected}[,split]'")


def _rows_of(table: Any, path: str | Path) -> Iterator[list[str]]:  # a csv.reader
    try:
        yield from table
    except csv.Error as error:  # a quote that is never closed, mostly
        raise ValueError(f"{path}, line {table.line_num + 1}: {error}") from None
