"""What is predicted: the scores of a video, or of a part of it."""

from dataclasses import dataclass

from tinyaction.results.plots import shortened


@dataclass(repr=False)
class Prediction:
    """Scores of one video; ``scores`` (K,) in the order of ``class_names``."""

    source: str
    class_names: list[str]
    scores: list[float]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The ``k`` best classes with their scores, best first."""
        order = sorted(range(len(self.scores)), key=lambda label: -self.scores[label])
        return [(self.class_names[label], self.scores[label]) for label in order[:k]]

    @property
    def label(self) -> str:
        return self.top(1)[0][0]

    @property
    def score(self) -> float:
        """The score of ``label``."""
        return max(self.scores)

    def __repr__(self) -> str:
        best = ", ".join(f"{name} {score:.3f}" for name, score in self.top(3))
        return f"Prediction({self.source}: {best})"

    def table(self, k: int = 5) -> str:
        """The source, then the ``k`` best classes with a bar each, at most 80 columns wide but for the source."""
        return "\n".join([self.source, *(f"  {score:6.3f}  {'#' * round(30 * score):<30}  {shortened(name, 38)}"
                                         for name, score in self.top(k))])

    __str__ = table


@dataclass
class Window:
    """A part of a video, in seconds, and what was predicted for it."""

    start_seconds: float
    end_seconds: float
    prediction: Prediction
