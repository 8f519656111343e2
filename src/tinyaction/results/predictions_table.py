"""The table of all predictions on a report: what report.js sorts, filters and plays.

The page holds the rows as JSON. A video that is there is linked relative to the page, so that a folder of run and
videos can be moved as a whole; frames of the most interesting clips are in the page itself.
"""

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from tinyaction.data.segments import split_segment_name
from tinyaction.results.run import Run, SavedPrediction
from tinyaction.video.frames import original_of

MOST_ROWS = 10_000  # of the table: a browser stays quick with them
COLUMNS = ("video", "true class", "predicted", "score")


def table_order(predictions: Sequence[SavedPrediction]) -> list[SavedPrediction]:
    """The predictions worth looking at first: wrong ones, the surest first; then right ones, the least sure first."""
    return sorted(predictions, key=lambda one: (one.predicted == one.label,
                                                one.score if one.predicted == one.label else -one.score))


def predictions_section(run: Run, strips: Mapping[str, str]) -> str:
    """The section with the table, as HTML; ``strips`` are pictures of clips (``data:`` addresses) by file name."""
    if not run.predictions:
        return ""
    shown = table_order(run.predictions)[:MOST_ROWS]
    rows = [[one.filename, one.label, one.predicted, round(one.score, 6), link_to(one.filename, run.folder)]
            for one in shown]
    pictures = {place: strips[one.filename] for place, one in enumerate(shown) if one.filename in strips}
    data = json.dumps({"classes": run.class_names, "columns": COLUMNS, "rows": rows, "strips": pictures})
    left_out = len(run.predictions) - len(shown)
    cut = f"<p>{left_out} more clips, all of them right, are only in predictions.csv.</p>" if left_out else ""
    head = "".join(f'<th scope="col" data-column="{number}"><button type="button">{escape(name)}</button></th>'
                   for number, name in enumerate(COLUMNS))
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


def link_to(filename: str, folder: Path) -> str:
    """The address of a video from a page in ``folder``; empty where there is no such file.

    Browsers begin and end at the times of a segment.
    """
    name, times = split_segment_name(filename)
    path = Path(os.path.abspath(original_of(name)))
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
