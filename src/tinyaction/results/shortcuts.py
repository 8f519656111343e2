"""What simpler models get on the same videos as a network, and what that says of the network's accuracy.

    shortcuts.csv      a row a simpler model: what it sees, how many videos it has right
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tinyaction.files import write_whole
from tinyaction.results.metrics import wilson_interval
from tinyaction.results.page import section, table

COLUMNS = ("sees", "right", "videos", "accuracy", "low", "high")
MAJORITY, UPRIGHT, METADATA = "the most frequent class", "orientation", "what the file says"
FULL, MIDDLE, MEAN, SHUFFLED, REVERSED = (
    "all frames", "one middle frame", "the mean of the frames", "frames shuffled", "frames reversed")
ALIKE = 0.02  # of two accuracies
CLEAR = 0.1  # above the most frequent class


@dataclass(frozen=True)
class Shortcut:
    """How many of ``num_clips`` a simpler model has right, and what it saw."""

    name: str
    num_right: int
    num_clips: int

    @property
    def accuracy(self) -> float:
        return self.num_right / self.num_clips

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.num_right, self.num_clips)


def shortcut_sentences(shortcuts: Sequence[Shortcut], *, network: str = "this network") -> list[str]:
    """One sentence each where a simpler model does what a network is praised for."""
    by_name = {one.name: one for one in shortcuts}
    least, full = by_name[MAJORITY], by_name.get(FULL)
    sentences = []
    for name, what in ((UPRIGHT, "orientation"), (METADATA, "what the file says, no picture,")):
        one = by_name.get(name)
        if one is not None and one.interval[0] > least.accuracy + CLEAR:
            sentences.append(f"{what} alone gives {one.accuracy:.2f} (most frequent class {least.accuracy:.2f}): the "
                             "way the clips were made, not the action, may be what is learnt")
            break
    if full is None or full.accuracy <= least.accuracy + CLEAR:
        return sentences
    single, shuffled = by_name.get(MIDDLE), by_name.get(SHUFFLED)
    if single is not None and single.accuracy >= full.accuracy - ALIKE:
        sentences.append(f"one frame gives {single.accuracy:.2f}, all of them {full.accuracy:.2f}: motion is not what "
                         "tells these classes apart")
    elif shuffled is not None and shuffled.accuracy >= full.accuracy - ALIKE:
        sentences.append(f"shuffled frames give {shuffled.accuracy:.2f}, ordered ones {full.accuracy:.2f}: {network} "
                         "does not use the order of frames")
    return sentences


def write_shortcuts(folder: Path, shortcuts: Sequence[Shortcut]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([COLUMNS, *(
        [one.name, one.num_right, one.num_clips, *(f"{value:.4f}" for value in (one.accuracy, *one.interval))]
        for one in shortcuts)])
    write_whole(folder / "shortcuts.csv", text.getvalue())


def read_shortcuts(folder: Path) -> list[Shortcut]:
    """Those of a run folder; none where it has no ``shortcuts.csv``. Raises ValueError where that is damaged."""
    path = folder / "shortcuts.csv"
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        try:
            return [Shortcut(row["sees"], int(row["right"]), int(row["videos"])) for row in csv.DictReader(file)]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: cannot be read ({error!r})") from None


def shortcut_section(shortcuts: Sequence[Shortcut], *, missing: str) -> str:
    """The part of the report about simpler models; ``missing`` says how to measure those on frames, "" for nothing."""
    if not shortcuts:
        return ""
    rows = [[one.name, f"{one.accuracy:.3f}", "{:.2f} to {:.2f}".format(*one.interval),
             f"{one.num_right} of {one.num_clips}"] for one in shortcuts]
    sentences = "".join(f"<li>{escape(text[0].upper() + text[1:])}.</li>" for text in shortcut_sentences(shortcuts))
    has_frames = any(one.name == SHUFFLED for one in shortcuts)
    return section("What simpler models get", (
        "<p>Each row knows less than the network: an accuracy that one of them reaches says nothing of actions. "
        "What the file says is its size, orientation, frame rate, length and bytes.</p>"
        + (f'<ul class="found">{sentences}</ul>' if sentences else "")
        + table(["sees", "accuracy", "95 % interval", "videos"], rows)
        + (f"<p>{escape(missing)}</p>" if missing and not has_frames else "")))
