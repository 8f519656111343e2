"""Timelines on a page: what is true and, below it, what is told, two bands a video; tracks.js shows and plays."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path

from tinyaction.results.predictions_table import Originals, link_to
from tinyaction.results.timeline_metrics import Segment, agreement_seconds
from tinyaction.results.timeline_picture import COLOURS, clock, tick_seconds

MOST_SEGMENTS = 8_000  # on a page: about 2 MB


@dataclass
class TrackedVideo:
    """A video, its length in seconds, the segments that are true, and those that are told."""

    source: str
    duration: float
    true: list[Segment]
    told: list[Segment]

    @property
    def accuracy(self) -> float:
        """The share of the time at which what is told is true."""
        return agreement_seconds(self.told, self.true, self.duration) / self.duration


def tracks_section(videos: Sequence[TrackedVideo], class_names: Sequence[str], folder: Path) -> str:
    """The section with all videos, the least accurate first; those beyond :data:`MOST_SEGMENTS` are left out."""
    shown: list[TrackedVideo] = []
    num_segments = 0
    for video in sorted(videos, key=lambda video: video.accuracy):
        num_segments += len(video.true) + len(video.told) + 2
        if shown and num_segments > MOST_SEGMENTS:
            break
        shown.append(video)
    left_out = len(videos) - len(shown)
    cut = f"<p>{left_out} more videos, which are more accurate, are only in timelines.csv.</p>" if left_out else ""
    key = "".join(f'<span class="key"><i class="seg {_colour(name, class_names)}"></i>{escape(name)}</span>'
                  for name in class_names)
    script = (resources.files("tinyaction.results") / "tracks.js").read_text(encoding="utf-8")
    originals = Originals()
    return (
        '<section id="tracks"><h2>True and predicted</h2><p>Point at a stretch, tap it, or go along a band with the '
        f"arrow keys, to read it; click it, or press Enter, to play the video from there.</p><p>{key}</p>"
        '<p class="controls" hidden><label>search <input id="tracks-search" type="search"></label> '
        '<label>order <select id="tracks-order"><option value="accuracy">least accurate first</option>'
        '<option value="name">by name</option></select></label> <label>width <select id="tracks-zoom">'
        + "".join(f'<option value="{times}">{times}×</option>' for times in (1, 2, 4, 8, 16))
        + '</select></label> <span id="tracks-count" role="status"></span></p>'
        + cut + "".join(_figure(video, class_names, link_to(video.source, folder, originals)) for video in shown)
        + f"</section><script>\n{script}</script>")


def _figure(video: TrackedVideo, class_names: Sequence[str], link: str) -> str:
    name = "/".join(Path(video.source).parts[-2:])
    step = tick_seconds(video.duration)
    ticks = "".join(f'<span style="left:{100 * number * step / video.duration:.2f}%">{clock(number * step)}</span>'
                    for number in range(int(0.95 * video.duration / step) + 1))  # one at the end is cut off
    bands = "".join(_band(what, segments, video.duration, class_names, has_score=what == "predicted")
                    for what, segments in (("true", video.true), ("predicted", video.told)))
    player = f'<video src="{escape(link)}" controls muted playsinline preload="none" hidden></video>' if link else ""
    return (f'<figure class="tracks" data-accuracy="{video.accuracy:.6f}" data-name="{escape(video.source)}">'
            f"<figcaption>{escape(name)} <small>{clock(video.duration)}, frame accuracy {video.accuracy:.1%}"
            f"{'' if link else '; the file was not there when this page was made'}</small></figcaption>"
            f'<div class="scroll"><div class="wide">{bands}<div class="ticks" aria-hidden="true">{ticks}</div></div>'
            f'</div><p class="told" role="status"></p>{player}</figure>')


def _band(
    what: str, segments: Sequence[Segment], duration: float, class_names: Sequence[str], *, has_score: bool
) -> str:
    """A band of stretches; those that overlap go below each other."""
    parts, ends = list[str](), list[float]()
    for one in sorted(segments, key=lambda one: (one.start_seconds, one.end_seconds)):
        lane = next((lane for lane, end in enumerate(ends) if end <= one.start_seconds), len(ends))
        ends[lane : lane + 1] = [one.end_seconds]
        start, width = (100 * seconds / duration for seconds in (
            one.start_seconds, one.end_seconds - one.start_seconds))
        text = f"{what}: {one.label}, {clock(one.start_seconds)} to {clock(one.end_seconds)}"
        text += f", score {one.score:.2f}" if has_score else ""
        parts.append(f'<i class="seg {_colour(one.label, class_names)}" role="button" tabindex="{-1 if parts else 0}" '
                     f'data-start="{one.start_seconds:.3f}" title="{escape(text)}" aria-label="{escape(text)}" '
                     f'style="left:{start:.3f}%;width:{width:.3f}%;top:{24 * lane}px">{escape(one.label)}</i>')
    return (f'<small class="what">{what}</small><div class="band" role="group" aria-label="{what} segments" '
            f'style="height:{24 * max(1, len(ends))}px">{"".join(parts)}</div>')


def _colour(label: str, class_names: Sequence[str]) -> str:
    last = len(COLOURS) - 1
    return f"c{min(list(class_names).index(label), last) if label in class_names else last}"
