"""How objects show themselves in a notebook: small HTML tables."""

from collections.abc import Iterable
from html import escape


def table(title: str, rows: Iterable[tuple[object, ...]], *, head: tuple[str, ...] = ()) -> str:
    """An HTML table; every cell is text and is escaped."""
    def line(cells: Iterable[object], tag: str) -> str:
        row = "".join(f'<{tag} style="text-align:left">{escape(str(cell))}</{tag}>' for cell in cells)
        return f"<tr>{row}</tr>"

    top = f"<thead>{line(head, 'th')}</thead>" if head else ""
    body = "".join(line(cells, "td") for cells in rows)
    return f"<div><b>{escape(title)}</b></div><table>{top}<tbody>{body}</tbody></table>"
