"""Prediction on videos that are not in any list: :class:`Predictor`.

A file goes the way of evaluation, step by step: the same pipeline, the same forward pass, the same averaging. A long
video is a row of windows, each of them predicted as if it had been cut out; see also :mod:`tinyaction.inference.live`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tinyaction.data.dataset import Batch, Item, collate
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.data.sampling import window_starts
from tinyaction.data.transforms import Compose, Results, VideoDecode, VideoResize
from tinyaction.device import choose_device
from tinyaction.inference.live import LivePredictor
from tinyaction.inference.prediction import Prediction, Window
from tinyaction.inference.sources import Camera, MemoryReader, check_array, checked_frames, list_videos
from tinyaction.models import Recognizer
from tinyaction.models.checkpoint import Checkpoint, load_model
from tinyaction.video import UInt8Array, VideoReader, open_video


class Predictor:
    """A checkpoint that is ready to predict, with the evaluation pipeline it was trained with.

        predictor = Predictor("runs/conv2d-1/best.pt")
        predictor("clip.mp4").top(3)

    Args:
        checkpoint: a file that training wrote.
        device: "auto", "cpu", "cuda", "mps".
        num_clips: views of a video whose scores are averaged; default as in the run's evaluation.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is no checkpoint of this version, or there is no such device.
    """

    def __init__(self, checkpoint: str | Path, *, device: str = "auto", num_clips: int | None = None) -> None:
        self.device = choose_device(device)
        model, content = load_model(checkpoint)
        self.model: Recognizer = model.to(self.device)
        self.checkpoint: Checkpoint = content
        self.class_names = content.class_names
        self.stand_in = content.stand_in
        try:
            arguments = content.eval_pipeline | ({} if num_clips is None else {"num_clips": num_clips})
            self.pipeline = eval_pipeline(**arguments)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{checkpoint}: a checkpoint of another layout ({error}); use the version of tinyaction "
                             "that wrote it, or train again") from None

    def __call__(self, source: Any, **arguments: Any) -> Any:
        """Predict whatever ``source`` is.

            a file                                       -> Prediction
            an array (T, H, W, 3) uint8 RGB              -> Prediction
            frames (H, W, 3) uint8 RGB, from a generator -> Prediction of all of them together
            a folder, a pattern, a list of the above     -> list of Prediction
            a camera's number                            -> iterator of Prediction, without end

        Other arguments are those of :meth:`predict`, or for a camera of :meth:`live`.
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
        """Predict one source or a list of them, see :meth:`__call__`; the predictions are in their order."""
        return list(self.stream(source, batch_size=batch_size, num_threads=num_threads, on_error=on_error))

    def stream(self, source: Any, *, batch_size: int = 1, num_threads: int = 2,
               on_error: Callable[[Exception], None] | None = None) -> Iterator[Prediction]:
        """Predict one source or a list of them, and give each prediction as soon as it is there.

        Args:
            batch_size: videos that go through the network together. More is faster on a GPU; the scores of a video
                then depend on its neighbours in the last digits (1e-6).
            num_threads: videos that are decoded at the same time, ahead of the network.
            on_error: is told of each source that cannot be read, which is then left out; default is to raise.
        """
        for name, value in (("batch_size", batch_size), ("num_threads", num_threads)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
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

    def predict_batch(self, batch: Batch) -> list[Prediction]:
        """Predict what :func:`tinyaction.collate` made."""
        with torch.inference_mode():
            inputs = batch["inputs"].to(self.device)                   # (B, V, C, T, H, W) uint8
            scores = self.model.cls_head.video_scores(self.model(inputs, mode="logits"))  # (B, K)
        return [Prediction(sample.filename, self.class_names, of_video.double().tolist())
                for sample, of_video in zip(batch["data_samples"], scores, strict=True)]

    def embed(self, source: Any) -> tuple[npt.NDArray[np.float32], list[str]]:
        """Features of videos, (N, F), and their names: what the classifier sees, averaged over views."""
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
            source: a file or an array; frames of unknown number go to :meth:`live`.
            window_seconds: length of a window; a shorter video is one window.
            stride_seconds: from the start of a window to that of the next; default the window itself, so that they
                do not overlap. The last window is moved back to end with the video.
            fps: frames per second; default what the file says.
        """
        stride_seconds = window_seconds if stride_seconds is None else stride_seconds
        for name, seconds in (("window_seconds", window_seconds), ("stride_seconds", stride_seconds)):
            if not 0 < seconds < float("inf"):
                raise ValueError(f"{name} is {seconds}; it must be above 0")
        name, reader = self._reader(source)
        fps = _known_fps(name, reader.fps if fps is None else fps)
        total = len(reader)
        window = min(total, max(1, round(window_seconds * fps)))
        starts = window_starts(total, window, max(1, round(stride_seconds * fps)))  # (S,)
        inside = self._frames_of_a_video(window)                       # (R,) relative to a window's start
        wanted = np.unique(starts[:, None] + inside)                   # ascending, each frame once
        frames = zip(wanted.tolist(), reader.read(wanted.tolist()), strict=True)
        held: dict[int, UInt8Array] = {}
        newest = -1
        for start in starts.tolist():
            held = {index: frame for index, frame in held.items() if index >= start}
            while newest < start + inside[-1]:
                newest, frame = next(frames)
                held[newest] = self._resized(frame)
            part = MemoryReader([held.get(start + index, _NO_FRAME) for index in range(window)], fps=fps, name=name)
            yield Window(start / fps, (start + window) / fps,
                         self.predict_batch(collate([self._packed(name, part)]))[0])

    def live(self, *, fps: float, window_seconds: float = 2.0) -> LivePredictor:
        """A predictor that is given frames one at a time; see :class:`tinyaction.inference.live.LivePredictor`."""
        return LivePredictor(self, fps=fps, window_seconds=window_seconds)

    def watch(self, camera: int, *, window_seconds: float = 2.0, fps: float | None = None) -> Iterator[Prediction]:
        """Predict what a camera sees, several times per window, until it is closed."""
        frames = Camera(camera)
        live = self.live(fps=_known_fps(f"camera {camera}", fps or frames.fps or 30.0), window_seconds=window_seconds)
        return (prediction for prediction in map(live.push, frames) if prediction is not None)

    def _item(self, source: Any) -> Item:
        """One source to what a dataset gives for it."""
        if isinstance(source, str | Path):
            return self.pipeline({"filename": str(source)})
        return self._packed(*self._reader(source))

    def _packed(self, name: str, reader: VideoReader) -> Item:
        """What the pipeline makes of an opened video: VideoInit is left out, the rest is as for a file."""
        return Compose(self.pipeline.transforms[1:])(_opened(name, reader))

    def _reader(self, source: Any) -> tuple[str, VideoReader]:
        if isinstance(source, str | Path):
            return str(source), open_video(source)
        if hasattr(source, "ndim"):
            return "array", MemoryReader(check_array(source), name="array")
        if isinstance(source, Iterable) and not isinstance(source, bytes | dict | set):
            frames = [self._resized(frame) for frame in checked_frames(source)]  # full-size ones would fill the memory
            if not frames:
                raise ValueError("no frames came; a prediction needs at least one")
            return "frames", MemoryReader(frames)
        raise ValueError(f"a source is {type(source).__name__}; it must be a file, a folder, a list of them, an array "
                         "(T, H, W, 3) uint8, frames (H, W, 3) uint8, or a camera's number")

    def _resized(self, frame: UInt8Array) -> UInt8Array:
        """A full-size frame as the pipeline's own resize makes it; that step then finds nothing left to do."""
        resize = self.pipeline.transforms[self._decode_place() + 1]
        return resize.resize_frame(frame) if isinstance(resize, VideoResize) else frame

    def _frames_of_a_video(self, total_frames: int) -> npt.NDArray[np.int64]:
        """Which frames the pipeline asks of a video of this length, ascending, each once."""
        before_decoding = Compose(self.pipeline.transforms[1:self._decode_place()])
        return np.unique(before_decoding(_opened("", MemoryReader([_NO_FRAME] * total_frames)))["frame_inds"])

    def _decode_place(self) -> int:
        return next(place for place, step in enumerate(self.pipeline.transforms) if isinstance(step, VideoDecode))

    def inputs_of(self, source: Any) -> torch.Tensor:
        """What the network is given for a source, (V, C, T, H, W) uint8."""
        return self._item(source)["inputs"]

    def frames_to_inputs(self, frames: Sequence[UInt8Array]) -> torch.Tensor:
        """Full-size frames (H, W, 3) as the network is given them, (V, C, T, H, W) uint8: the part of the pipeline
        that stands behind decoding; V is 1, or the number of crops."""
        results = {"filename": "frames", "imgs": list(frames), "img_shape": frames[0].shape[:2],
                   "num_clips": 1, "clip_len": len(frames)}
        return Compose(self.pipeline.transforms[self._decode_place() + 1:])(results)["inputs"]


_NO_FRAME: UInt8Array = np.empty((0, 0, 3), np.uint8)  # stands where nobody looks


def _opened(name: str, reader: VideoReader) -> Results:
    """What VideoInit gives."""
    return {"filename": name, "video_reader": reader, "total_frames": len(reader)}


def _flat(source: Any) -> Iterator[Any]:
    """The single sources in a source: files of a folder, items of a list."""
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


def _known_fps(name: str, fps: float) -> float:
    if not 0 < fps < float("inf"):
        raise ValueError(f"{name}: it does not say how many frames a second has; give fps")
    return fps
