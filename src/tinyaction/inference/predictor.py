"""Prediction on videos that are not in any list: :class:`Predictor`.

A file goes the way of evaluation, step by step: the same pipeline, the same forward pass, the same averaging. A long
video is a row of windows, each predicted as if it had been cut out; see also :mod:`tinyaction.inference.live`.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tinyaction.data.dataset import Batch, collate
from tinyaction.device import choose_device
from tinyaction.inference.cameras import moments_of
from tinyaction.inference.inputs import OnSourceError, SourceInputs, is_many
from tinyaction.inference.live import LivePredictor, predict_moments
from tinyaction.inference.prediction import Prediction, Window
from tinyaction.models import Recognizer
from tinyaction.models.checkpoint import checkpoint_of, load_model
from tinyaction.models.pretrained import load_pretrained
from tinyaction.models.unknown import logits_and_pooled
from tinyaction.video import UInt8Array

logger = logging.getLogger(__name__)


class Predictor:
    """A checkpoint that is ready to predict, with the evaluation pipeline it was trained with; or a published network.

        predictor = Predictor("runs/conv2d-1")
        predictor = Predictor.from_pretrained("videomae-base", weights="kinetics")
        predictor("clip.mp4").top(3)

    Args:
        checkpoint: a file that training wrote, the folder of a run, for its best.pt, or a recognizer of
            :func:`tinyaction.load_pretrained`, which is moved to the device.
        device: "auto", "cpu", "cuda", "mps".
        num_clips: views of a video whose scores are averaged; default as in the run's evaluation.
        tells_unknown: whether a video may be "unknown", where the checkpoint has a threshold for it.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is no checkpoint of this version, a recognizer without published classes, or there is no such
            device.
    """

    def __init__(
        self, checkpoint: str | Path | Recognizer, *, device: str = "auto", num_clips: int | None = None,
        tells_unknown: bool = True,
    ) -> None:
        self.device = choose_device(device)
        if isinstance(checkpoint, Recognizer):
            model, self.checkpoint = checkpoint.eval(), checkpoint_of(checkpoint)
        else:
            model, self.checkpoint = load_model(checkpoint)
        self.model: Recognizer = model.to(self.device)
        self.class_names = self.checkpoint.class_names
        self.stand_in = self.checkpoint.stand_in
        self.unknown = self.checkpoint.unknown if tells_unknown else None
        self.inputs = SourceInputs.of(self.checkpoint.eval_pipeline, num_clips=num_clips, source=checkpoint)
        self.pipeline, self.eval_arguments = self.inputs.pipeline, self.inputs.arguments

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, *, weights: str | Path | None = None, clip_len: int | None = None,
        size: int | None = None, device: str = "auto", num_clips: int | None = None,
    ) -> "Predictor":
        """A published network by its name, with its own classes and clips; see :func:`tinyaction.load_pretrained`."""
        device_used = choose_device(device)                            # before anything is fetched
        model = load_pretrained(name_or_folder, weights=weights, clip_len=clip_len, size=size)
        return cls(model, device=str(device_used), num_clips=num_clips)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name} {value}" for name, value in self.eval_arguments.items())
        return (f"Predictor({self.checkpoint.model['name']}, {len(self.class_names)} classes, {arguments}, on "
                f"{self.device})")

    def __call__(self, source: Any, **arguments: Any) -> Any:
        """Predict whatever ``source`` is.

            a file, or a video that is open already      -> Prediction
            an array (T, H, W, 3) uint8 RGB              -> Prediction
            frames (H, W, 3) uint8 RGB, from a generator -> Prediction of all of them together
            a folder, a pattern, a list of the above     -> list of Prediction
            a camera's number                            -> iterator of Prediction, without end

        Other arguments are those of :meth:`predict`, or for a camera of :meth:`watch`.
        Raises ValueError (VideoError of a file) where a source cannot be read.
        """
        if isinstance(source, int) and not isinstance(source, bool):
            return self.watch(source, **arguments)
        predictions = self.predict(source, **arguments)
        return predictions if is_many(source) else predictions[0]

    def predict(self, source: Any, *, batch_size: int = 1, num_threads: int = 2,
                on_error: OnSourceError | None = None) -> list[Prediction]:
        """Predict one source or a list of them, see :meth:`__call__`, in their order."""
        return list(self.stream(source, batch_size=batch_size, num_threads=num_threads, on_error=on_error))

    def stream(self, source: Any, *, batch_size: int = 1, num_threads: int = 2,
               on_error: OnSourceError | None = None) -> Iterator[Prediction]:
        """Predict one source or a list of them; yield each prediction as soon as it is there.

        Args:
            batch_size: videos that go through the network together. More is faster on a GPU; the scores of a video
                then depend on its neighbours in the last digits (1e-6).
            num_threads: videos that are decoded at the same time, ahead of the network.
            on_error: is told of each source that cannot be read, which is then left out; default is to raise.
        """
        for batch in self.inputs.batches(source, batch_size=batch_size, num_workers=num_threads, on_error=on_error):
            yield from self.predict_batch(batch)

    def predict_batch(self, batch: Batch) -> list[Prediction]:
        """Predict what :func:`tinyaction.collate` made."""
        with torch.inference_mode():
            inputs = batch["inputs"].to(self.device)                   # (B, V, C, T, H, W) uint8
            if self.unknown is None:
                logits, is_unknown = self.model(inputs, mode="logits"), [False] * len(inputs)  # (B, V, K), B
            else:
                logits, pooled = logits_and_pooled(self.model, inputs)  # (B, V, K), (B, F')
                is_unknown = self.unknown.is_unknown(pooled)           # B
            scores = self.model.cls_head.video_scores(logits).cpu()    # (B, K)
        return [Prediction(sample.filename, self.class_names, of_video.double().tolist(), unknown,
                           thresholds=self.checkpoint.thresholds)
                for sample, of_video, unknown in zip(batch["data_samples"], scores, is_unknown, strict=True)]

    def windows(
        self, source: Any, *, window_seconds: float, stride_seconds: float | None = None, fps: float | None = None
    ) -> Iterator[Window]:
        """Predict a long video part by part, as :meth:`SourceInputs.windows` reads it; memory does not grow.

        Each window is predicted as if it had been cut out of the video. For frames of unknown number see :meth:`live`.
        """
        for start, end, item in self.inputs.windows(source, window_seconds=window_seconds,
                                                    stride_seconds=stride_seconds, fps=fps):
            yield Window(start, end, self.predict_batch(collate([item]))[0])

    def live(self, *, fps: float | None = None, window_seconds: float = 2.0) -> LivePredictor:
        """A predictor that is given frames one at a time; see :class:`tinyaction.inference.live.LivePredictor`."""
        return LivePredictor(self, fps=fps, window_seconds=window_seconds)

    def watch(self, camera: int | str, *, window_seconds: float = 2.0,
              on_line: Callable[[str], None] = logger.warning) -> Iterator[Prediction]:
        """Predict what a camera sees, several times per window, without end; or a stream, by its address.

        ``on_line`` receives a sentence when it breaks off and when it is back.
        """
        moments = moments_of(str(camera), on_line=on_line)
        return (prediction for _, prediction in predict_moments(self, moments, window_seconds=window_seconds)
                if prediction is not None)

    def inputs_of(self, source: Any) -> torch.Tensor:
        """What the network is given for a source, (V, C, T, H, W) uint8."""
        return self.inputs.item(source)["inputs"]

    def frames_to_inputs(self, frames: Sequence[UInt8Array]) -> torch.Tensor:
        """Full-size frames (H, W, 3) as the network is given them: (V, C, T, H, W) uint8, V the number of crops."""
        return self.inputs.of_frames(frames)
