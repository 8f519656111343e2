"""Features of videos, by any network without its classifier: :class:`Embedder`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tinyaction.data.dataset import Batch, collate
from tinyaction.device import choose_device
from tinyaction.inference.inputs import OnSourceError, SourceInputs, flat_sources, is_many, segment_times
from tinyaction.models import Recognizer
from tinyaction.models.checkpoint import load_model, published_pipeline
from tinyaction.models.pretrained import load_encoder

Vector = npt.NDArray[np.float32]


class Embedder:
    """One vector a video: the features that a classifier would see, averaged over views, time and places.

        embedder = Embedder.from_pretrained("videomae-base")           # nothing is trained
        embedder = Embedder("runs/tsm-mobilenet_v2-1")                 # the backbone of a run
        embedder("clip.mp4")                                           # (F,)
        embedder("clips")                                              # (N, F), the videos in the order of their names

    Args:
        network: a checkpoint, the folder of a run, or a recognizer of :func:`tinyaction.load_pretrained`, which is
            moved to the device.
        device: "auto", "cpu", "cuda", "mps".
        num_clips: views of a video; default as in the run's evaluation.

    Raises as :class:`tinyaction.Predictor`.
    """

    def __init__(
        self, network: str | Path | Recognizer, *, device: str = "auto", num_clips: int | None = None
    ) -> None:
        self.device = choose_device(device)
        if not isinstance(network, Recognizer):
            model, checkpoint = load_model(network)
            self.name, arguments = str(checkpoint.model["name"]), checkpoint.eval_pipeline
        elif network.published is None:
            raise ValueError("nothing is published of this recognizer, so its clips are not known; make it with "
                             "tinyaction.load_pretrained, or name the checkpoint of a run")
        else:
            model, arguments = network.eval(), published_pipeline(network.published)
            self.name = network.published.name
        self.model: Recognizer = model.to(self.device)
        self.inputs = SourceInputs.of(arguments, num_clips=num_clips, source=network)

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, *, weights: str | Path | None = None, clip_len: int | None = None,
        size: int | None = None, device: str = "auto", num_clips: int | None = None,
    ) -> "Embedder":
        """Any pretrained network by its name, also one on frames, such as "tsn-mobilenet_v2", or without a classifier.

        The arguments are those of :func:`tinyaction.load_pretrained`; a network on frames takes "imagenet" or a file.
        """
        device_used = choose_device(device)                            # before anything is fetched
        model = load_encoder(name_or_folder, weights=weights, clip_len=clip_len, size=size)
        return cls(model, device=str(device_used), num_clips=num_clips)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name} {value}" for name, value in self.inputs.arguments.items())
        return f"Embedder({self.name}, {arguments}, on {self.device})"

    def __call__(self, source: Any, **arguments: Any) -> Vector:
        """Features (F,) of one video, or (N, F) of a list, a folder or a pattern; see :meth:`stream`."""
        vectors = [features for _, features in self.stream(source, **arguments)]
        return np.stack(vectors) if is_many(source) else vectors[0]

    def stream(
        self, source: Any, *, batch_size: int = 1, num_workers: int = 2, on_error: OnSourceError | None = None
    ) -> Iterator[tuple[str, Vector]]:
        """The name of each video and its features (F,), as soon as they are there.

        Sources are those of :class:`tinyaction.Predictor`, but for cameras; the arguments those of
        :meth:`SourceInputs.batches`. The files of a list are decoded in processes, too.
        """
        is_files = isinstance(source, list | tuple) and all(
            isinstance(item, str | Path) and not segment_times(item) for item in source)
        batches = (self.inputs.of_files(list(map(str, flat_sources(source))), batch_size=batch_size,
                                        num_workers=num_workers, on_error=on_error) if is_files else
                   self.inputs.batches(source, batch_size=batch_size, num_workers=num_workers, on_error=on_error))
        for batch in batches:
            names = [sample.filename for sample in batch["data_samples"]]
            yield from zip(names, self._features(batch), strict=True)

    def windows(
        self, source: Any, *, window_seconds: float, stride_seconds: float | None = None, fps: float | None = None
    ) -> Iterator[tuple[float, float, Vector]]:
        """A long video part by part: (start, end, features), in seconds; see :meth:`SourceInputs.windows`."""
        for start, end, item in self.inputs.windows(source, window_seconds=window_seconds,
                                                    stride_seconds=stride_seconds, fps=fps):
            yield start, end, self._features(collate([item]))[0]

    @torch.inference_mode()
    def _features(self, batch: Batch) -> Vector:
        """(B, F)"""
        inputs = batch["inputs"].to(self.device)                       # (B, V, C, T, H, W)
        B, V = inputs.shape[:2]
        maps = self.model(inputs, mode="tensor").float()               # (B*V, t, F, h, w)
        means = maps.mean(dim=(1, 3, 4)).unflatten(0, (B, V)).mean(dim=1)  # (B, F)
        return np.asarray(means.cpu().numpy(), np.float32)
