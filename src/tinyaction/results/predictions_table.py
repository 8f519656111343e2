"""The table of all predictions on a report: what report.js sorts, filters and plays.

The page holds the rows as JSON. A video that is there is linked relative to the page, so that a folder of run and
videos can be moved as a whole; frames of the most interesting clips are in the page itself.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from tinyaction.data.segments import split_segment_name
from tinyaction.results.run import Run, SavedPrediction
from tinyaction.video.frames import FORMATS, original_of

MOST_ROWS = 10_000  # of the table: a browser stays quick with them
COLUMNS = ("video", "true class", "predicted", "score")


def table_order(predictions: Sequence[SavedPrediction]) -> list[SavedPrediction]:
    """The predictions worth looking at first: wrong ones, the surest first; then right ones, the least sure first."""
    return sorted(predictions, key=lambda one: (one.is_right, one.score if one.is_right else -one.score))


def predictions_section(
    run: Run, strips: Mapping[str, str], *, group_of: Callable[[str], str] | None = None
) -> str:
    """The section with the table, as HTML; ``strips`` are pictures of clips (``data:`` addresses) by file name.

    ``group_of`` gives the group of a file; a column shows them where there are any.
    """
    if not run.predictions:
        return ""
    shown = table_order(run.predictions)[:MOST_ROWS]
    classes = run.class_names
    numbers = [[one.label, one.predicted] for one in shown]
    if run.is_multi_label:  # each set of labels that occurs stands for a class
        classes = sorted({name for one in shown for name in run.names_of(one)})
        numbers = [[classes.index(name) for name in run.names_of(one)] for one in shown]
    groups = [] if group_of is None else [group_of(one.filename) for one in shown]
    columns, cells = (COLUMNS, [[] for _ in shown]) if not any(groups) else (
        (*COLUMNS, "group"), [[group] for group in groups])
    originals = Originals()
    rows = [[one.filename, *labels, round(one.score, 6), *more, link_to(one.filename, run.folder, originals)]
            for one, labels, more in zip(shown, numbers, cells, strict=True)]
    pictures = {place: strips[one.filename] for place, one in enumerate(shown) if one.filename in strips}
    data = json.dumps({"classes": classes, "columns": columns, "rows": rows, "strips": pictures})
    left_out, num_wrong = len(run.predictions) - len(shown), sum(not one.is_right for one in run.predictions)
    right = f"{max(0, num_wrong - len(shown))} of them wrong" if num_wrong > len(shown) else "all of them right"
    cut = f"<p>{left_out} more clips, {right}, are only in predictions.csv.</p>" if left_out else ""
    head = "".join(f'<th scope="col" data-column="{number}"><button type="button">{escape(name)}</button></th>'
                   for number, name in enumerate(columns))
    script = (resources.files("tinyaction.results") / "report.js").read_text(encoding="utf-8")
    return (
        '<section id="clips-section" hidden><h2 id="clips-title">All predictions</h2>'
        '<p class="controls"><label>search <input id="clips-search" type="search"></label> '
        '<label>show <select id="clips-which"><option value="all">all</option><option value="wrong">wrong</option>'
        '<option value="right">right</option></select></label> '
        '<button id="clips-reset" type="button">reset</button> <span id="clips-count" role="status"></span></p>'
        f'{cut}<div class="scroll"><table class="rows" id="clips" tabindex="-1"><thead><tr>{head}'
        '<th scope="col">clip</th></tr></thead><tbody></tbody></table></div>'
        '<button id="clips-more" type="button" hidden>show more</button></section>'
        f'<script type="application/json" id="predictions">{_inert(data)}</script><script>\n{script}</script>')


class Originals:
    """:func:`original_of` of many files. A store has the tree of its videos, so one tells the place of the others."""

    def __init__(self) -> None:
        self._stored, self._source = "", ""  # the two roots, once a file has been opened

    def of(self, path: str) -> str:
        bare = path.removesuffix(Path(path).suffix)
        if Path(path).suffix.lower() not in FORMATS.values():
            return path
        if self._stored and bare.startswith(self._stored):
            guess = self._source + bare[len(self._stored) :]
            if os.path.isfile(guess):
                return guess
        source = original_of(path)
        tail = os.path.commonprefix([bare[::-1], source[::-1]]) if source != path else ""
        length = len(tail[::-1].partition(os.sep)[2])                  # of the part below a folder that both have
        if length:
            self._stored, self._source = bare[:-length], source[:-length]
        return source


def link_to(filename: str, folder: Path, originals: Originals) -> str:
    """The address of a video from a page in ``folder``; empty where there is no such file.

    Browsers begin and end at the times of a segment.
    """
    name, times = split_segment_name(filename)
    path = Path(os.path.abspath(originals.of(name)))
    if not path.is_file():
        return ""
    try:
        relative = os.path.relpath(path, os.path.abspath(folder)).replace(os.sep, "/")
    except ValueError:  # another drive of Windows
        return path.as_uri() + times
    return quote(relative.encode(errors="surrogateescape")) + times


def _inert(text: str) -> str:
    """JSON that cannot end the element that holds it, whatever the names in it."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
