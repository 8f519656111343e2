"""The page, the JSON and the list of an audit."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from tinyaction.audit.audit import Audit
from tinyaction.audit.labels import LabelDoubt
from tinyaction.data.segments import write_segments
from tinyaction.files import write_whole
from tinyaction.results.page import html_page, section, table
from tinyaction.results.sheets import data_uri, draw_strip, resized
from tinyaction.video import UInt8Array, VideoError, open_video

MOST_SHOWN = 40  # clips, or pairs, with pictures in a section; the JSON has all
NUM_FRAMES, SIDE = 5, 112  # of a strip; pixels of the longer side
NOTHING = "<p>Nothing was found.</p>"
LEFT_OUT = "<p>Not looked at; the notes above say why.</p>"
Picture = Callable[[str], str]  # path -> HTML


def write_audit(audit: Audit, folder: Path) -> None:
    """Write ``audit.html``, ``audit.json`` and ``look_at.txt`` (paths, the gravest first) into a folder."""
    write_whole(folder / "audit.html", audit_page(audit).encode("utf-8", errors="backslashreplace"))
    write_whole(folder / "audit.json", json.dumps(audit_facts(audit), indent=2) + "\n")
    write_whole(folder / "look_at.txt", "".join(f"{path}\n" for path in audit.paths_to_look_at()))


def write_groups(audit: Audit, path: Path) -> None:
    """A CSV of all clips with a group each and without a split, which training or ``prepare split`` makes by group."""
    write_segments(path, [
        replace(audit.videos.row(index, audit.class_names), group=audit.groups[index],
                path=os.path.relpath(audit.path(index), path.parent).replace(os.sep, "/"))
        for index in range(len(audit.videos))])


def audit_facts(audit: Audit) -> dict[str, Any]:
    """All findings as JSON."""
    def name_of(label: int) -> str | None:
        return audit.class_names[label] if label >= 0 else None

    return {
        "data": str(audit.folder), "num_train": audit.num_train, "num_val": len(audit.videos) - audit.num_train,
        "sentences": audit.sentences(), "notes": audit.notes,
        "shortcuts": [asdict(one) | {"accuracy": one.accuracy, "interval": one.interval} for one in audit.shortcuts],
        "labels": [{"path": audit.path(one.index), "label": name_of(one.label), "looks_like": name_of(one.looks_like),
                    "margin": round(one.margin, 4)} for one in audit.doubts],
        "leaks": [_pair(audit, pair) for pair in audit.leaks],
        "same_recording": [_pair(audit, pair) for pair in audit.pairs],
        "never_right": [audit.path(index) for index in audit.never_right],
        "odd": [{"path": audit.path(index), "what": text} for index, text in audit.oddities],
        "unreadable": audit.unreadable,
    }


def _pair(audit: Audit, pair: Any) -> dict[str, Any]:
    return {"first": audit.path(pair.first), "second": audit.path(pair.second), "mirrored": pair.is_mirrored,
            "places_that_agree": pair.num_inliers}


def audit_page(audit: Audit) -> str:
    """The audit as one page of HTML; it reads the clips that it shows."""
    picture = cache(picture_of)                                        # a clip may stand in several sections
    sentences = "".join(f"<li>{escape(text)}</li>" for text in audit.sentences())
    notes = "".join(f"<p>Note: {escape(text)}.</p>" for text in audit.notes)
    num_val = len(audit.videos) - audit.num_train
    return html_page(f"Audit of {audit.folder}", "".join([
        f"<header><h1>Audit</h1><p>{escape(str(audit.folder))}: {audit.num_train} training and {num_val} validation "
        f"clips of {len(audit.class_names)} classes</p></header>",
        section("In short", (f"<ul>{sentences}</ul>" if sentences else NOTHING) + notes),
        section("What simpler models get", _shortcut_table(audit)),
        section("Doubtful labels", _label_section(audit, picture)),
        section("The same recording or place in training and validation", _leak_section(audit, picture)),
        _unlikely_section(audit, picture),
        section("Odd clips", _strips((_strip(audit.path(index), text, picture) for index, text in
                                      audit.oddities[:MOST_SHOWN]), len(audit.oddities))),
        section("Classes", _class_table(audit)),
    ]))


def _shortcut_table(audit: Audit) -> str:
    rows = [[one.name, f"{one.accuracy:.3f}", f"{one.interval[0]:.2f} to {one.interval[1]:.2f}"]
            for one in audit.shortcuts]
    return ("<p>Accuracy on clips that were held out, with their whole recordings unless a note says otherwise.</p>"
            + table(["seen", "accuracy", "95 % interval"], rows)) if rows else LEFT_OUT


def _label_section(audit: Audit, picture: Picture) -> str:
    if audit.scores is None:
        return LEFT_OUT
    return _strips((_strip(audit.path(one.index), doubt_text(one, audit.class_names), picture)
                    for one in audit.doubts[:MOST_SHOWN]), len(audit.doubts))


def doubt_text(doubt: LabelDoubt, class_names: Sequence[str]) -> str:
    if doubt.looks_like < 0:
        text = f"labelled {class_names[doubt.label]}, looks without it"
    elif doubt.label < 0:
        text = f"not labelled {class_names[doubt.looks_like]}, looks like it"
    else:
        text = f"labelled {class_names[doubt.label]}, looks like {class_names[doubt.looks_like]}"
    return f"{text} (ahead by {doubt.margin:.2f})"


def _unlikely_section(audit: Audit, picture: Picture) -> str:
    """Of several labels these are among the doubtful ones."""
    if audit.videos.label_sets is not None:
        return ""
    return section("Clips whose label the probe finds least likely", _strips(
        (_strip(audit.path(index), f"labelled {audit.class_names[audit.videos.labels[index]]}", picture)
         for index in audit.never_right[:MOST_SHOWN]), len(audit.never_right)))


def _leak_section(audit: Audit, picture: Picture) -> str:
    parts = []
    for pair in audit.leaks[:MOST_SHOWN]:
        how = "mirrored, " if pair.is_mirrored else ""
        parts.append(_strip(audit.path(pair.first), f"{how}{pair.num_inliers} places agree with the next", picture)
                     + _strip(audit.path(pair.second), "", picture))
    return _strips(parts, len(audit.leaks))


def _strips(strips: Iterable[str], num_all: int) -> str:
    cut = f"<p>The first {MOST_SHOWN} of {num_all}; audit.json has all.</p>" if num_all > MOST_SHOWN else ""
    return cut + "".join(strips) if num_all else NOTHING


def _strip(path: str, caption: str, picture: Picture) -> str:
    """A clip under its name; a sentence where it cannot be read."""
    head = f"<h3>{escape(caption)} <small>{escape('/'.join(Path(path).parts[-2:]))}</small></h3>"
    return f'<article class="clip">{head}{picture(path)}</article>'


def picture_of(path: str) -> str:
    """Some frames of a clip as HTML."""
    try:
        return f'<img alt="frames" src="{data_uri(draw_strip(some_frames(path)))}">'
    except VideoError as error:
        return f"<p>{escape(error.reason)}</p>"


def some_frames(path: str) -> list[UInt8Array]:
    """A few small frames (h, w, 3), spread over a video."""
    reader = open_video(path)
    chosen = np.unique(np.linspace(0, len(reader) - 1, NUM_FRAMES + 2)[1:-1].round().astype(int)).tolist()
    return [resized(frame, SIDE) for frame in reader.read(chosen)]


def _class_table(audit: Audit) -> str:
    """Counts, lengths, sizes and rates of each class."""
    rows = []
    labels, sets = audit.videos.labels, audit.videos.label_sets
    for label, name in enumerate(audit.class_names):
        places = np.flatnonzero(labels == label if sets is None else sets[:, label]).tolist()
        facts = [one for place in places if (one := audit.facts[place]) is not None]
        in_train = sum(place < audit.num_train for place in places)
        seconds = [one.seconds for one in facts]
        rows.append([name, str(in_train), str(len(places) - in_train),
                     f"{min(seconds):.1f} to {max(seconds):.1f}, median {np.median(seconds):.1f}" if facts else "",
                     _most_common(f"{one.width}x{one.height}" for one in facts),
                     _most_common(f"{one.fps:.4g}" for one in facts)])
    return table(["class", "training", "validation", "seconds", "sizes", "frames a second"], rows)


def _most_common(values: Iterable[str]) -> str:
    counts = Counter(values).most_common()
    more = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
    return ", ".join(f"{value} ({count})" for value, count in counts[:3]) + more


def audit_lines(audit: Audit) -> Sequence[str]:
    """The audit in text."""
    lines = [f"{one.accuracy:.3f}  {one.name} ({one.interval[0]:.2f} to {one.interval[1]:.2f})"
             for one in audit.shortcuts]
    return [*(["accuracy of simpler models, on clips held out:", *(f"  {line}" for line in lines)] if lines else []),
            *(f"- {text}" for text in audit.sentences()), *(f"note: {text}" for text in audit.notes)]
