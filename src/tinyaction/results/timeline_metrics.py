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
    times = sorted({0.0, duration, *(min(max(time, 0.0), duration) for one in (*predicted, *true)
                                     for time in (one.start_seconds, one.end_seconds))})
    return sum(end - start for start, end in zip(times, times[1:], strict=False)
               if labels_at(predicted, (start + end) / 2) == labels_at(true, (start + end) / 2))


def labels_at(segments: Video, seconds: float) -> set[str]:
    return {one.label for one in segments if one.start_seconds <= seconds < one.end_seconds}


def edit_score(predicted: Video, true: Video) -> float:
    """1 less the least number of insertions, deletions and exchanges of actions that make one order the other, as a
    share of the longer one.

        told run jump run, true run jump  ->  1 - 1/3
    """
    told, real = ([one.label for one in sorted(video, key=lambda one: (one.start_seconds, one.end_seconds))]
                  for video in (predicted, true))
    if not told and not real:
        return 1.0
    row = list(range(len(real) + 1))                                   # from no action told
    for number, label in enumerate(told, start=1):
        above, row = row, [number]
        for place, other in enumerate(real):
            row.append(min(above[place + 1] + 1, row[place] + 1, above[place] + (label != other)))
    return 1 - row[-1] / max(len(told), len(real))


def overlaps_of(one: Segment, others: Sequence[Segment]) -> npt.NDArray[np.float64]:
    """Intersection over union of the times of a segment with each of others, (N,)."""
    starts = np.array([other.start_seconds for other in others])
    ends = np.array([other.end_seconds for other in others])
    common = np.minimum(ends, one.end_seconds) - np.maximum(starts, one.start_seconds)
    whole = np.maximum(ends, one.end_seconds) - np.minimum(starts, one.start_seconds)
    return np.maximum(common, 0) / whole


def found_pairs(predicted: Video, true: Video, overlap: float) -> list[tuple[Segment, Segment]]:
    """(told, true) actions of one label, as MS-TCN pairs them: each told one, in the order of time, takes the true one
    that it overlaps most, if that is enough and nobody has taken it.
    """
    pairs, taken = [], set()
    for one in sorted(predicted, key=lambda one: one.start_seconds):
        if not true:
            break
        shares = overlaps_of(one, true) * [one.label == other.label for other in true]
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


def seconds_of_actions(one: Segment, true: Video) -> float:
    """Seconds of a segment in which a true action, or several, goes on."""
    covered, until = 0.0, one.start_seconds
    for other in sorted(true, key=lambda other: other.start_seconds):
        covered += max(0.0, min(other.end_seconds, one.end_seconds) - max(other.start_seconds, until))
        until = max(until, other.end_seconds)
    return covered


def background_hours(true: Sequence[Video], durations: Sequence[float]) -> float:
    return sum(duration - seconds_of_actions(Segment(0, duration, ""), real)
               for real, duration in zip(true, durations, strict=True)) / 3600


def false_events(predicted: Sequence[Video], true: Sequence[Video]) -> list[Segment]:
    """The told segments of which more than half is background."""
    return [one for told, real in zip(predicted, true, strict=True) for one in told
            if seconds_of_actions(one, real) < (one.end_seconds - one.start_seconds) / 2]


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
    taken: set[tuple[int, int]] = set()
    hits = []
    for one, number in sorted(told, key=lambda pair: -pair[0].score):
        shares = overlaps_of(one, real[number]) if real[number] else np.zeros(0)
        free = [place for place in np.argsort(-shares, kind="stable").tolist()
                if shares[place] >= overlap and (number, place) not in taken]
        taken |= {(number, free[0])} if free else set()
        hits.append(bool(free))
    num_hits = np.cumsum(hits)
    precision = num_hits / np.arange(1, len(hits) + 1)
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_beyond[np.array(hits, dtype=bool)].sum() / sum(map(len, real)))
