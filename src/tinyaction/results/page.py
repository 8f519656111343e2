"""The frame of a page: one file of HTML that needs no other and opens from disk, in light and dark."""

from html import escape
from importlib import resources


def html_page(title: str, body: str) -> str:
    """A whole page around ``body``, which is HTML already."""
    style = (resources.files("tinyaction.results") / "report.css").read_text(encoding="utf-8")
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(title)} · tinyaction</title><style>\n{style}</style></head>\n"
            f"<body><main>{body}</main></body></html>\n")


def section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def table(heading: list[str], rows: list[list[str]]) -> str:
    """A table of texts, which are escaped here; it scrolls sideways where it is wider than the screen."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heading)
    lines = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return (f'<div class="scroll"><table class="rows"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'
            "</div>")
