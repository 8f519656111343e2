"""How well a timeline fits the truth, as the field measures it. Pure functions of segments; nothing is remembered.

    frame accuracy    share of the time at which what is told is what is true, background included
    edit score        order of the actions, whatever their times
    F1@10, 25, 50     actions found with an overlap (IoU) of 10, 25, 50 %
    mAP at tIoU       the same, with the scores of the segments put in order
    boundary error    seconds between a told start or end and the true one, of the actions that were found
    false events      told segments that are mostly background, by the hour of background

A video's segments may overlap. Stretches without a segment are background, which is no action: edit score, F1 and mAP
do not count it. Sources: Lea et al. 2016 and Farha and Gall 2019 (MS-TCN) for edit score and F1; ActivityNet (Caba
Heilbron et al. 2015) for mAP. All are 0..1, as the accuracies of this package.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F1_OVERLAPS = (0.1, 0.25, 0.5)
MAP_OVERLAPS = (0.3, 0.4, 0.5, 0.6, 0.7)
NAMES = {"frame_accuracy": "frame accuracy", "edit": "edit score", "f1_10": "F1@10", "f1_25": "F1@25",
         "f1_50": "F1@50", **{f"map_{overlap:g}": f"mAP at tIoU {overlap:g}" for overlap in MAP_OVERLAPS},
         "map": "mAP, mean of these", "boundary_error_seconds": "boundary error, s",
         "false_events_per_hour": "false events an hour"}
FOUND = 0.1  # the overlap from which on an action is found, and its boundary error counts


@dataclass
class Segment:
    """A stretch of a video, in seconds, and its label; ``score`` 0..1 is how sure a prediction is of it."""

    start_seconds: float
    end_seconds: float
    label: str
    score: float = 1.0


Video = Sequence[Segment]


@dataclass(frozen=True)
class TimelineMetrics:
    """All figures over a set of videos; NaN where nothing can be said, as of the boundaries of no action."""

    frame_accuracy: float
    edit: float
    f1: dict[float, float]  # overlap -> F1
    mean_ap: dict[float, float]  # overlap -> mAP
    boundary_error_seconds: float  # median
    false_events_per_hour: float  # of background

    def as_dict(self) -> dict[str, float]:
        """Name -> figure, in the order of :meth:`lines`."""
        return {"frame_accuracy": self.frame_accuracy, "edit": self.edit,
                **{f"f1_{round(100 * overlap)}": value for overlap, value in self.f1.items()},
                **{f"map_{overlap:g}": value for overlap, value in self.mean_ap.items()},
                "map": float(np.mean(list(self.mean_ap.values()))),
                "boundary_error_seconds": self.boundary_error_seconds,
                "false_events_per_hour": self.false_events_per_hour}

    def lines(self) -> list[str]:
        """A table of two columns."""
        return [f"{NAMES.get(name, name):<24}{value:7.3f}" for name, value in self.as_dict().items()]


def timeline_metrics(
    predicted: Sequence[Video], true: Sequence[Video], durations: Sequence[float]
) -> TimelineMetrics:
    """All figures of videos that last ``durations`` seconds; one list of segments a video, in the same order."""
    if not len(predicted) == len(true) == len(durations) or not durations:
        raise ValueError(f"{len(predicted)} predicted videos, {len(true)} true ones and {len(durations)} durations; "
                         "they must be as many, and at least one")
    right = sum(agreement_seconds(told, real, duration)
                for told, real, duration in zip(predicted, true, durations, strict=True))
    errors = boundary_errors(predicted, true)
    hours = background_hours(true, durations)
    return TimelineMetrics(
        frame_accuracy=right / sum(durations),
        edit=float(np.mean([edit_score(told, real) for told, real in zip(predicted, true, strict=True)])),
        f1={overlap: f1_at(predicted, true, overlap) for overlap in F1_OVERLAPS},
        mean_ap={overlap: mean_average_precision(predicted, true, overlap) for overlap in MAP_OVERLAPS},
        boundary_error_seconds=float(np.median(errors)) if errors else float("nan"),
        false_events_per_hour=len(false_events(predicted, true)) / hours if hours else float("nan"),
    )


def agreement_seconds(predicted: Video, true: Video, duration: float) -> float:
    """Seconds of a video at which both have the same labels, or both none."""
    changes = sorted((min(max(seconds, 0.0), duration), side, one.label, change)
                     for side, segments in enumerate((predicted, true)) for one in segments
                     for seconds, change in ((one.start_seconds, 1), (one.end_seconds, -1)))
    going_on: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    total = last = 0.0
    for seconds, side, label, change in changes:
        if seconds > last:
            total += (seconds - last) * (going_on[0].keys() == going_on[1].keys())
            last = seconds
        going_on[side][label] += change
        if not going_on[side][label]:
            del going_on[side][label]
    return total + (duration - last)


def edit_score(predicted: Video, true: Video) -> float:
    """1 less the least number of insertions, deletions and exchanges of actions that make one order the other, as a
    share of the longer one.

        told run jump run, true run jump  ->  1 - 1/3
    """
    told, real = ([one.label for one in sorted(video, key=lambda one: (one.start_seconds, one.end_seconds))]
                  for video in (predicted, true))
    if not told and not real:
        return 1.0
    places, labels = np.arange(len(real) + 1), np.array(real)
    row = places                                                       # from no action told
    for number, label in enumerate(told, start=1):
        best = np.minimum(row[1:] + 1, row[:-1] + (labels != label))   # left out, or exchanged
        row = np.minimum.accumulate(np.append(number, best) - places) + places  # or one is inserted
    return 1 - float(row[-1]) / max(len(told), len(real))


def times_of(segments: Video) -> npt.NDArray[np.float64]:
    """Starts and ends in seconds, (2, N)."""
    return np.array([[one.start_seconds for one in segments], [one.end_seconds for one in segments]])


def overlaps_of(one: Segment, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Intersection over union of a segment with each of others, of :func:`times_of` (2, N); (N,)."""
    starts, ends = times
    common = np.minimum(ends, one.end_seconds) - np.maximum(starts, one.start_seconds)
    whole = np.maximum(ends, one.end_seconds) - np.minimum(starts, one.start_seconds)
    return np.maximum(common, 0) / whole


def found_pairs(predicted: Video, true: Video, overlap: float) -> list[tuple[Segment, Segment]]:
    """(told, true) actions of one label, as MS-TCN pairs them: each told one, in the order of time, takes the true one
    that it overlaps most, if that is enough and nobody has taken it.
    """
    pairs, taken = [], set()
    times, labels = times_of(true), np.array([one.label for one in true])
    for one in sorted(predicted, key=lambda one: one.start_seconds):
        if not true:
            break
        shares = overlaps_of(one, times) * (labels == one.label)
        best = int(shares.argmax())
        if shares[best] >= overlap and best not in taken:
            taken.add(best)
            pairs.append((one, true[best]))
    return pairs


def f1_at(predicted: Sequence[Video], true: Sequence[Video], overlap: float) -> float:
    """F1 of the actions of all videos together, found with at least this overlap; 1 where there are none at all."""
    num_found = sum(len(found_pairs(told, real, overlap)) for told, real in zip(predicted, true, strict=True))
    num_all = sum(map(len, predicted)) + sum(map(len, true))
    return 2 * num_found / num_all if num_all else 1.0


def boundary_errors(predicted: Sequence[Video], true: Sequence[Video]) -> list[float]:
    """Seconds by which starts and ends differ, of each action that was found."""
    return [abs(a - b) for told, real in zip(predicted, true, strict=True)
            for one, other in found_pairs(told, real, FOUND)
            for a, b in ((one.start_seconds, other.start_seconds), (one.end_seconds, other.end_seconds))]


def seconds_of_actions(segments: Video, true: Video) -> npt.NDArray[np.float64]:
    """Seconds of each segment in which a true action, or several, goes on, (N,).

    That is how much the seconds of actions before a time grow from its start to its end.
    """
    times, seconds = [0.0], [0.0]
    for one in sorted(true, key=lambda one: one.start_seconds):
        start = max(one.start_seconds, times[-1])                      # nothing counts twice
        if one.end_seconds > start:
            times += [start, one.end_seconds]
            seconds += [seconds[-1], seconds[-1] + one.end_seconds - start]
    before_end, before_start = (np.interp(values, times, seconds) for values in (
        [one.end_seconds for one in segments], [one.start_seconds for one in segments]))
    return np.asarray(before_end - before_start)


def background_hours(true: Sequence[Video], durations: Sequence[float]) -> float:
    return sum(duration - float(seconds_of_actions([Segment(0, duration, "")], real)[0])
               for real, duration in zip(true, durations, strict=True)) / 3600


def false_events(predicted: Sequence[Video], true: Sequence[Video]) -> list[Segment]:
    """The told segments of which more than half is background."""
    return [one for told, real in zip(predicted, true, strict=True)
            for one, seconds in zip(told, seconds_of_actions(told, real).tolist(), strict=True)
            if seconds < (one.end_seconds - one.start_seconds) / 2]


def score_above_false_events(
    predicted: Sequence[Video], true: Sequence[Video], durations: Sequence[float], *, per_hour: float
) -> float:
    """The lowest score above which there are at most ``per_hour`` false events an hour of background.

        false events with scores 0.9 0.8 0.6, 1 hour, 1 an hour  ->  0.8
        no more than are allowed                                 ->  0.0
    """
    scores = sorted((one.score for one in false_events(predicted, true)), reverse=True)
    num_allowed = int(per_hour * background_hours(true, durations) + 1e-9)
    return scores[num_allowed] if num_allowed < len(scores) else 0.0


def mean_average_precision(predicted: Sequence[Video], true: Sequence[Video], overlap: float) -> float:
    """Mean over the classes that are true somewhere of :func:`average_precision`; NaN where there is none."""
    labels = sorted({one.label for video in true for one in video})
    return float(np.mean([average_precision(predicted, true, label, overlap) for label in labels])) if labels else \
        float("nan")


def average_precision(predicted: Sequence[Video], true: Sequence[Video], label: str, overlap: float) -> float:
    """Area under precision over recall of one class, the precision at a recall being the best at it or beyond.

    The surest segment chooses first: of the true ones of its video that nobody has taken, the one that it overlaps
    most, if that is enough.
    """
    real = [[one for one in video if one.label == label] for video in true]
    told = [(one, number) for number, video in enumerate(predicted) for one in video if one.label == label]
    times = [times_of(video) for video in real]
    taken: set[tuple[int, int]] = set()
    hits = []
    for one, number in sorted(told, key=lambda pair: -pair[0].score):
        shares = overlaps_of(one, times[number])
        free = [place for place in np.argsort(-shares, kind="stable").tolist()
                if shares[place] >= overlap and (number, place) not in taken]
        taken |= {(number, free[0])} if free else set()
        hits.append(bool(free))
    num_hits = np.cumsum(hits)
    precision = num_hits / np.arange(1, len(hits) + 1)
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_beyond[np.array(hits, dtype=bool)].sum() / sum(map(len, real)))
