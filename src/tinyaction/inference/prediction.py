"""What is predicted: the scores of a video, or of a part of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tinyaction.data.segments import LABEL_SEPARATOR
from tinyaction.models.unknown import UNKNOWN
from tinyaction.results.plots import shortened

NO_LABEL = "(none)"  # of a video without any of several labels


@dataclass(repr=False)
class Prediction:
    """Scores of one video; ``scores`` (K,) in the order of ``class_names``.

    ``is_unknown``: it is far from all of them, so its label is "unknown"; its scores say what it is least unlike.
    Where a video may have several labels, ``thresholds`` (K,) are the scores from which a class holds, else empty.
    """

    source: str
    class_names: list[str]
    scores: list[float]
    is_unknown: bool = False
    thresholds: Sequence[float] = field(default=(), kw_only=True)

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The ``k`` best classes with their scores, best first."""
        order = sorted(range(len(self.scores)), key=lambda label: -self.scores[label])
        return [(self.class_names[label], self.scores[label]) for label in order[:k]]

    def predicted(self) -> list[tuple[str, float]]:
        """The classes that are predicted with their scores, best first: one, or of several labels any number."""
        if not self.thresholds:
            return self.top(1)
        holds = {name for name, score, threshold in zip(self.class_names, self.scores, self.thresholds, strict=True)
                 if score >= threshold}
        return [(name, score) for name, score in self.top(len(self.scores)) if name in holds]

    @property
    def label(self) -> str:
        """The predicted class; several are joined by semicolons."""
        if self.is_unknown:
            return UNKNOWN
        return LABEL_SEPARATOR.join(name for name, _ in self.predicted()) or NO_LABEL

    @property
    def score(self) -> float:
        """The highest score of a class."""
        return max(self.scores)

    def __repr__(self) -> str:
        best = ", ".join(f"{name} {score:.3f}" for name, score in self.top(3))
        return f"Prediction({self.source}: {'unknown; ' if self.is_unknown else ''}{best})"

    def table(self, k: int = 5) -> str:
        """The source, then the ``k`` best classes with a bar each, at most 80 columns wide but for the source.

        Of several labels, all that are predicted are there, with a star.
        """
        marked = {name for name, _ in self.predicted()} if self.thresholds else set()
        unknown = ["  unknown: none of the classes; it is least unlike"] if self.is_unknown else []
        return "\n".join([self.source, *unknown, *(
            f"{'*' if name in marked else ' '} {score:6.3f}  {'#' * round(30 * score):<30}  {shortened(name, 38)}"
            for place, (name, score) in enumerate(self.top(len(self.scores))) if place < k or name in marked)])

    __str__ = table


@dataclass
class Window:
    """A part of a video, in seconds, and what was predicted for it."""

    start_seconds: float
    end_seconds: float
    prediction: Prediction
