"""Prediction on videos that are not in any list: :class:`Predictor`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tinyaction.checkpoint import load_model
from tinyaction.dataset import collate
from tinyaction.engine import choose_device
from tinyaction.presets import eval_pipeline


@dataclass
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


class Predictor:
    """A checkpoint that is ready to predict, with the evaluation pipeline it was trained with.

        predictor = Predictor("runs/conv2d-1/best.pt")
        predictor("clip.mp4").top(3)

    Args:
        checkpoint: a file that training wrote.
        device: "auto", "cpu", "cuda", "mps".
        num_clips: views of a video whose scores are averaged; default as in the run's evaluation.
    """

    def __init__(self, checkpoint: str | Path, *, device: str = "auto", num_clips: int | None = None) -> None:
        self.device = choose_device(device)
        model, content = load_model(checkpoint)
        self.model = model.to(self.device)
        self.class_names: list[str] = content["class_names"]
        self.stand_in: bool = content["stand_in"]
        arguments = content["eval_pipeline"] | ({} if num_clips is None else {"num_clips": num_clips})
        self.pipeline = eval_pipeline(**arguments)

    def __call__(self, source: str | Path) -> Prediction:
        """Predict one video file. Raises VideoError where it cannot be read."""
        return self.predict([source])[0]

    @torch.inference_mode()
    def predict(self, sources: Iterable[str | Path]) -> Sequence[Prediction]:
        """Predict video files, one after the other, in their order."""
        predictions = []
        for source in sources:
            batch = collate([self.pipeline({"filename": str(source)})])
            (sample,) = self.model(batch["inputs"].to(self.device), batch["data_samples"], mode="predict")
            assert sample.pred_score is not None
            predictions.append(Prediction(str(source), self.class_names, sample.pred_score.double().tolist()))
        return predictions
