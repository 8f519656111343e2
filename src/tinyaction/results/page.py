"""The frame of a page: one file of HTML that needs no other and opens from disk, in light and dark."""

from collections.abc import Mapping
from html import escape
from importlib import resources
from typing import Any

ORIGIN = ("command", "date", "versions", "data_fingerprint")  # of config.json, in a section of their own


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
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(text)}</th>" for text in heading)
    lines = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return (f'<div class="scroll"><table class="rows"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'
            "</div>")


def origin_section(config: Mapping[str, Any]) -> str:
    """What made a run, and when: the same command on data of the same fingerprint makes it again."""
    return facts_section("Where it comes from", {name.replace("_", " "): config[name] for name in ORIGIN
                                                 if name in config})


def facts_section(title: str, facts: Mapping[str, Any]) -> str:
    rows = []
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {word}" for key, word in value.items())
        rows.append(f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>")
    return section(title, f'<table class="config">{"".join(rows)}</table>') if rows else ""
