"""Prediction on videos that are not in any list: :class:`Predictor`.

A file goes the way of evaluation, step by step: the same pipeline, the same forward pass, the same averaging. A long
video is a row of windows, each predicted as if it had been cut out; see also :mod:`tinyaction.inference.live`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tinyaction.data.annotations import VideoList
from tinyaction.data.dataset import Batch, Item, VideoDataset, build_dataloader, collate
from tinyaction.data.pipelines import eval_pipeline, resize_early, sampled_frames, steps_after_decoding
from tinyaction.data.sampling import window_frames
from tinyaction.device import choose_device
from tinyaction.inference.cameras import moments_of
from tinyaction.inference.live import LivePredictor, predict_moments
from tinyaction.inference.prediction import Prediction, Window
from tinyaction.inference.sources import MemoryReader, check_array, checked_frames, list_videos
from tinyaction.models import Recognizer
from tinyaction.models.checkpoint import checkpoint_of, load_model
from tinyaction.models.pretrained import load_pretrained
from tinyaction.models.unknown import logits_and_pooled
from tinyaction.video import UInt8Array, VideoError, VideoReader, open_video

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
        try:
            self.eval_arguments: dict[str, Any] = dict(self.checkpoint.eval_pipeline)
            if num_clips is not None:
                self.eval_arguments["num_clips"] = num_clips
            self.pipeline = eval_pipeline(**self.eval_arguments)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{checkpoint}: a checkpoint of another layout ({error}); use the version of tinyaction "
                             "that wrote it, or train again") from None
        self._steps_after_decoding = steps_after_decoding(self.pipeline)

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
        is_many = isinstance(source, list | tuple) and not _are_frames(source)
        is_many = is_many or isinstance(source, str | Path) and list_videos(source) is not None
        return predictions if is_many else predictions[0]

    def predict(self, source: Any, *, batch_size: int = 1, num_threads: int = 2,
                on_error: Callable[[Exception], None] | None = None) -> list[Prediction]:
        """Predict one source or a list of them, see :meth:`__call__`, in their order."""
        return list(self.stream(source, batch_size=batch_size, num_threads=num_threads, on_error=on_error))

    def stream(self, source: Any, *, batch_size: int = 1, num_threads: int = 2,
               on_error: Callable[[Exception], None] | None = None) -> Iterator[Prediction]:
        """Predict one source or a list of them; yield each prediction as soon as it is there.

        Args:
            batch_size: videos that go through the network together. More is faster on a GPU; the scores of a video
                then depend on its neighbours in the last digits (1e-6).
            num_threads: videos that are decoded at the same time, ahead of the network.
            on_error: is told of each source that cannot be read, which is then left out; default is to raise.
        """
        for name, value in (("batch_size", batch_size), ("num_threads", num_threads)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        files = list_videos(source) if isinstance(source, str | Path) else None
        if files is not None:
            yield from self._stream_files(files, batch_size, num_threads, on_error)
            return
        with ThreadPoolExecutor(num_threads) as pool:
            sources = _flat(source)
            ahead = [pool.submit(self._item, item) for item in islice(sources, num_threads + batch_size)]
            items: list[Item] = []
            while ahead:
                future = ahead.pop(0)
                ahead += [pool.submit(self._item, item) for item in islice(sources, 1)]
                try:
                    items.append(future.result())
                except (ValueError, OSError) as error:
                    if on_error is None:
                        for waiting in ahead:
                            waiting.cancel()
                        raise
                    on_error(error)
                if items and (len(items) == batch_size or not ahead):
                    yield from self.predict_batch(collate(items))
                    items = []

    def _stream_files(self, files: Sequence[Path], batch_size: int, num_workers: int,
                      on_error: Callable[[Exception], None] | None) -> Iterator[Prediction]:
        """Predict the files of a folder, decoded in processes: one that kills its process is an error like others."""
        dataset = VideoDataset(VideoList(map(str, files), [0] * len(files)), self.pipeline, test_mode=True)
        loader = build_dataloader(dataset, batch_size=batch_size, num_workers=min(num_workers, len(files)),
                                  on_error="skip", max_skipped=1.0)
        num_told = 0
        for batch in chain(loader, [None]):
            for bad in loader.bad[num_told:]:
                if on_error is None:
                    raise VideoError(bad.filename, bad.reason)
                on_error(VideoError(bad.filename, bad.reason))
            num_told = len(loader.bad)
            if batch is not None:
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
        return [Prediction(sample.filename, self.class_names, of_video.double().tolist(), unknown)
                for sample, of_video, unknown in zip(batch["data_samples"], scores, is_unknown, strict=True)]

    def embed(self, source: Any) -> tuple[npt.NDArray[np.float32], list[str]]:
        """Compute the features that the classifier sees, averaged over views: (N, F), and the videos' names."""
        names, features = [], []
        for item in map(self._item, _flat(source)):
            names.append(item["data_samples"].filename)
            with torch.inference_mode():
                maps = self.model(item["inputs"][None].to(self.device), mode="tensor")  # (V, T, F, h, w)
            features.append(maps.float().mean(dim=(3, 4)).mean(dim=(0, 1)).cpu().numpy())  # (F,)
        return np.stack(features), names

    def windows(
        self, source: Any, *, window_seconds: float, stride_seconds: float | None = None, fps: float | None = None
    ) -> Iterator[Window]:
        """Predict a long video part by part; memory does not grow with its length.

        Each window is predicted as if it had been cut out of the video. The video is decoded once, in file order, and
        only the frames that some window asks for are kept, resized, until that window has been predicted.

        Args:
            source: a file, an open video or an array; for frames of unknown number see :meth:`live`.
            window_seconds: length of a window; a shorter video is one window.
            stride_seconds: from the start of a window to that of the next; default the window itself, so that they
                do not overlap. The last window is moved back to end with the video.
            fps: frames per second; default the times that the file gives its frames.
        """
        stride_seconds = window_seconds if stride_seconds is None else stride_seconds
        for name, seconds in (("window_seconds", window_seconds), ("stride_seconds", stride_seconds)):
            if not 0 < seconds < float("inf"):
                raise ValueError(f"{name} is {seconds}; it must be above 0")
        name, reader = self._reader(source)
        seconds_shown, end_seconds = _frame_times(name, reader, fps)
        windows = window_frames(seconds_shown, end_seconds, window_seconds=window_seconds,
                                stride_seconds=stride_seconds)
        needed = self._needed_frames(windows, reader.fps)
        frames = self._read_small(reader, needed)
        held: dict[int, UInt8Array] = {}                               # by number in the video
        for (start, first, stop), inside in zip(windows, needed, strict=True):
            held = {index: frame for index, frame in held.items() if index >= first}
            while inside[-1] not in held:
                index, frame = next(frames)
                held[index] = frame
            part = {index - first: held[index] for index in inside}
            item = self._item(MemoryReader(part, num_frames=stop - first, fps=reader.fps, name=name), name)
            yield Window(start, min(start + window_seconds, end_seconds), self.predict_batch(collate([item]))[0])

    def _needed_frames(self, windows: Sequence[tuple[float, int, int]], fps: float) -> list[list[int]]:
        """The frames that the pipeline asks for in each window, ascending, numbered as in the video."""
        inside = {num_frames: np.unique(sampled_frames(self.pipeline, num_frames, fps=fps))
                  for num_frames in {stop - first for _, first, stop in windows}}
        return [(first + inside[stop - first]).tolist() for _, first, stop in windows]

    def _read_small(self, reader: VideoReader, needed: Sequence[Sequence[int]]) -> Iterator[tuple[int, UInt8Array]]:
        """Read each needed frame once, in file order, and resize it at once: (number in the video, frame)."""
        indices = sorted({index for inside in needed for index in inside})
        for index, frame in zip(indices, reader.read(indices), strict=True):
            yield index, resize_early(self.pipeline, frame)

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
        return self._item(source)["inputs"]

    def frames_to_inputs(self, frames: Sequence[UInt8Array]) -> torch.Tensor:
        """Full-size frames (H, W, 3) as the network is given them: (V, C, T, H, W) uint8, V the number of crops."""
        return self._steps_after_decoding({
            "filename": "frames", "imgs": list(frames), "img_shape": frames[0].shape[:2],
            "num_clips": 1, "clip_len": len(frames)})["inputs"]

    def _item(self, source: Any, name: str = "") -> Item:
        """What the pipeline makes of one source; ``name`` is that of an open video."""
        if isinstance(source, str | Path):
            return self.pipeline({"filename": str(source)})
        found, reader = self._reader(source)
        return self.pipeline({"filename": name or found, "video_reader": reader})

    def _reader(self, source: Any) -> tuple[str, VideoReader]:
        """The name of a source, and a reader of its frames."""
        if isinstance(source, str | Path):
            return str(source), open_video(source)
        if hasattr(source, "get_batch"):                               # a video that is open already
            return str(getattr(source, "name", "video")), source
        if hasattr(source, "ndim"):
            return "array", MemoryReader(check_array(source), name="array")
        if isinstance(source, Iterable) and not isinstance(source, bytes | dict | set):
            # Resized at once: full-size frames would fill the memory.
            frames = [resize_early(self.pipeline, frame) for frame in checked_frames(source)]
            if not frames:
                raise ValueError("no frames came; a prediction needs at least one")
            return "frames", MemoryReader(frames)
        raise ValueError(f"a source is {type(source).__name__}; it must be a file, a folder, a list of them, an array "
                         "(T, H, W, 3) uint8, frames (H, W, 3) uint8, or a camera's number")


def _flat(source: Any) -> Iterator[Any]:
    """Yield the single sources in a source: files of a folder, items of a list."""
    if isinstance(source, list | tuple) and not _are_frames(source):
        for item in source:
            yield from _flat(item)
    elif isinstance(source, str | Path):
        videos = list_videos(source)
        yield from [source] if videos is None else videos
    else:
        yield source


def _are_frames(items: Sequence[Any]) -> bool:
    return len(items) > 0 and getattr(items[0], "ndim", 0) == 3


def _frame_times(name: str, reader: VideoReader, fps: float | None) -> tuple[npt.NDArray[np.float64], float]:
    """When each frame is shown, (N,) seconds, and when the last one ends."""
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"fps is {fps}; it must be above 0")
    seconds = reader.seconds if fps is None else np.arange(len(reader)) / fps
    rate = fps or reader.fps or (len(seconds) - 1) / (float(seconds[-1]) or float("inf"))
    if not rate:
        raise ValueError(f"{name}: it does not say how many frames a second has; give fps")
    return seconds, float(seconds[-1]) + 1 / rate
