"""From scores over time to events: :class:`Trigger` says when, :class:`TriggerState` is fed the scores.

        fall>0.8 for 1s

    score   0.2  0.9  0.9  0.9  0.7  0.6
    second  0    1    2    3    4    5        begin at 2 (above 0.8 for 1 s), end at 5 (0.6 is below 0.8 * 0.8)

An event ends at a lower score than it begins at, so that a score which wavers about the level is one event. After its
end the trigger is quiet for its cool-down. Nothing here knows a camera, a clock or a network.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

RELEASE_SHARE = 0.8  # of the level at which an event begins: where it ends, if the trigger does not say
COOL_DOWN_SECONDS = 5.0
EXAMPLE = "it reads CLASS>SCORE [for SECONDS] [until<SCORE], such as 'fall>0.8 for 1s'"


@dataclass(frozen=True)
class Trigger:
    """When an event of a class begins, ends, and may begin again.

    Attributes:
        level: an event begins when the score has been above it for ``hold_seconds``,
        release: and ends as soon as it is below this one.
    """

    label: str
    level: float
    hold_seconds: float = 0.0
    release: float = 0.0
    cool_down_seconds: float = COOL_DOWN_SECONDS


@dataclass(frozen=True)
class Event:
    """The begin or the end of an event; ``score`` is the highest so far, ``start_seconds`` when it rose above."""

    kind: Literal["begin", "end"]
    label: str
    seconds: float
    start_seconds: float
    score: float


class TriggerState:
    """Where a trigger is: fed a score at a time, it says when an event begins or ends."""

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self._above_since: float | None = None
        self._highest = 0.0
        self._is_on = False
        self._quiet_until = -float("inf")

    def feed(self, seconds: float, score: float) -> Event | None:
        """Take the score at a moment, which must not be before the last one."""
        trigger = self.trigger
        if self._is_on:
            self._highest = max(self._highest, score)
            return self._end(seconds) if score < trigger.release else None
        if not score > trigger.level:
            self._above_since = None
            return None
        if self._above_since is None:
            self._above_since, self._highest = seconds, score
        self._highest = max(self._highest, score)
        if seconds - self._above_since < trigger.hold_seconds or seconds < self._quiet_until:
            return None
        self._is_on = True
        return Event("begin", trigger.label, seconds, self._above_since, self._highest)

    def interrupt(self, seconds: float) -> Event | None:
        """The stream has a gap here: an event ends, and what was above before it does not count on."""
        if self._is_on:
            return self._end(seconds)
        self._above_since = None
        return None

    def _end(self, seconds: float) -> Event:
        assert self._above_since is not None
        event = Event("end", self.trigger.label, seconds, self._above_since, self._highest)
        self._above_since, self._is_on = None, False
        self._quiet_until = seconds + self.trigger.cool_down_seconds
        return event


# ---- reading ``--on`` ----------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"\d+\.?\d*|\.\d+")


def parse_trigger(text: str, *, class_names: Sequence[str] | None = None,
                  cool_down_seconds: float = COOL_DOWN_SECONDS) -> Trigger:
    """Read ``fall>0.8``, ``fall>0.8 for 1s``, ``turn left > 0.8 for 0.5s until<0.4``.

    Raises:
        ValueError: it cannot be read, a score is not between 0 and 1, or the class is not among ``class_names``; the
            message has the text and a caret below the place.
    """
    arrow = text.rfind(">")
    if arrow < 0:
        raise _fault(text, len(text), f"a '>' and a score are missing; {EXAMPLE}")
    label = text[:arrow].strip()
    if not label:
        raise _fault(text, arrow, f"a class is missing before '>'; {EXAMPLE}")
    if class_names is not None and label not in class_names:
        close = get_close_matches(label, class_names, n=1)
        advice = f"did you mean {close[0]!r}?" if close else f"the model knows {', '.join(class_names[:20])}"
        raise _fault(text, text.index(label), f"no class of the model; {advice}")
    level, place = _number(text, arrow + 1, "a score between 0 and 1", highest=1.0)
    hold_seconds, release = 0.0, RELEASE_SHARE * level
    if (found := _word(text, place, "for")) is not None:
        hold_seconds, place = _number(text, found, "seconds")
        place = _word(text, place, "s") or place
    if (found := _word(text, place, "until")) is not None:
        below = _word(text, found, "<")
        if below is None:
            raise _fault(text, _skip(text, found), f"a '<' is missing after 'until'; {EXAMPLE}")
        release, place = _number(text, below, "a score between 0 and 1", highest=1.0)
        if release > level:
            raise _fault(text, below, f"an event cannot end at a higher score than {level:g}, where it begins")
    if text[place:].strip():
        raise _fault(text, _skip(text, place), f"this cannot be read; {EXAMPLE}")
    return Trigger(label, level, hold_seconds, release, cool_down_seconds)


def _skip(text: str, place: int) -> int:
    """The next place that is no space."""
    return place + len(text[place:]) - len(text[place:].lstrip())


def _word(text: str, place: int, word: str) -> int | None:
    """The place behind ``word`` where it stands next, else None."""
    place = _skip(text, place)
    ends_well = not word.isalpha() or not text[place + len(word) : place + len(word) + 1].isalpha()
    return place + len(word) if text.startswith(word, place) and ends_well else None


def _number(text: str, place: int, what: str, *, highest: float = float("inf")) -> tuple[float, int]:
    """The number that stands next and the place behind it."""
    place = _skip(text, place)
    match = _NUMBER.match(text, place)
    if match is None:
        raise _fault(text, place, f"{what} must stand here; {EXAMPLE}")
    if not float(match[0]) <= highest:
        raise _fault(text, place, f"{match[0]} is not {what}")
    return float(match[0]), match.end()


def _fault(text: str, place: int, reason: str) -> ValueError:
    one_line = re.sub(r"\s", " ", text)
    return ValueError(f"--on cannot be read: {reason}\n  {one_line}\n  {' ' * place}^")
