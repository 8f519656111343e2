"""What is predicted: the scores of a video, or of a part of it."""

from dataclasses import dataclass

from tinyaction.models.unknown import UNKNOWN
from tinyaction.results.plots import shortened


@dataclass(repr=False)
class Prediction:
    """Scores of one video; ``scores`` (K,) in the order of ``class_names``.

    ``is_unknown``: it is far from all of them, so its label is "unknown"; its scores say what it is least unlike.
    """

    source: str
    class_names: list[str]
    scores: list[float]
    is_unknown: bool = False

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The ``k`` best classes with their scores, best first."""
        order = sorted(range(len(self.scores)), key=lambda label: -self.scores[label])
        return [(self.class_names[label], self.scores[label]) for label in order[:k]]

    @property
    def label(self) -> str:
        return UNKNOWN if self.is_unknown else self.top(1)[0][0]

    @property
    def score(self) -> float:
        """The highest score of a class."""
        return max(self.scores)

    def __repr__(self) -> str:
        best = ", ".join(f"{name} {score:.3f}" for name, score in self.top(3))
        return f"Prediction({self.source}: {'unknown; ' if self.is_unknown else ''}{best})"

    def table(self, k: int = 5) -> str:
        """The source, then the ``k`` best classes with a bar each, at most 80 columns wide but for the source."""
        lines = [f"  {score:6.3f}  {'#' * round(30 * score):<30}  {shortened(name, 38)}"
                 for name, score in self.top(k)]
        unknown = ["  unknown: none of the classes; it is least unlike"] if self.is_unknown else []
        return "\n".join([self.source, *unknown, *lines])

    __str__ = table


@dataclass
class Window:
    """A part of a video, in seconds, and what was predicted for it."""

    start_seconds: float
    end_seconds: float
    prediction: Prediction
