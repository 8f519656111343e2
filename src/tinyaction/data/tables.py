"""Text files and tables as people and spreadsheets save them."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MAX_LINE = 10_000  # characters; the longest path that Linux opens has 4,096


def read_text(path: str | Path) -> str:
    """A text file, whatever ends its lines; ValueError names the line that is no text, or not UTF-8, or endless."""
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"{path}: no regular file; a list is a text file")
    try:
        text = decoded(Path(path).read_bytes())
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {number}: not UTF-8 text; save the file as UTF-8") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if "\0" in line:
            raise ValueError(f"{path}, line {number}: a NUL byte; this is no text, or not UTF-8: save it as UTF-8")
        if len(line) > MAX_LINE:
            raise ValueError(f"{path}, line {number}: {len(line)} characters; a line has at most {MAX_LINE}")
    return text


def decoded(content: bytes) -> str:
    """Text as spreadsheets save it: UTF-8, or UTF-16 with its mark; raises UnicodeDecodeError."""
    is_utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def delimiter_of(text: str) -> str:
    """What separates the cells of the first line: a comma, a semicolon or a tab."""
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count)


def read_table(
    path: str | Path, required: Sequence[str], *, together: tuple[str, str] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ("file, line n", cells by column) of a CSV file, the cells without spaces around them.

    Commas, semicolons or tabs may separate the cells; the names of the columns are taken in lower case.

    Args:
        required: columns of which no cell is empty.
        together: two columns that are required where one of them is there.

    Raises:
        ValueError: a column or a cell is missing, a line has too many cells, or there is no line.
    """
    text = read_text(path)
    table = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, delimiter=delimiter_of(text))
    columns = [(name or "").strip().lower() for name in table.fieldnames or []]
    if together and set(together) & set(columns):
        required = [required[0], *together, *(name for name in required[1:] if name not in together)]
    expected = ",".join(required)
    if not set(required) <= set(columns):
        raise ValueError(f"{path}, line 1: columns {', '.join(columns) or '(none)'}; a table begins with "
                         f"'{expected}' or '{expected},split'")
    table.fieldnames = columns
    is_empty = True
    for values in _rows_of(table, path):
        where = f"{path}, line {table.line_num}"
        if None in values:
            raise ValueError(f"{where}: {len(columns)} columns, but more cells; a path with a comma goes into quotes")
        cells = {column: (cell or "").strip() for column, cell in values.items()}
        for column in required:
            if not cells[column]:
                raise ValueError(f"{where}: no {column}; a line is '{expected}[,split]'")
        is_empty = False
        yield where, cells
    if is_empty:
        raise ValueError(f"{path}: the table is empty; a line is '{expected}[,split]'")


def _rows_of(table: "csv.DictReader[str]", path: str | Path) -> Iterator[dict[Any, Any]]:
    try:
        yield from table
    except csv.Error as error:  # a quote that is never closed, mostly
        raise ValueError(f"{path}, line {table.line_num + 1}: {error}") from None
