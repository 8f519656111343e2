"""From whatever a user names to what a network is given: :class:`SourceInputs`.

A file goes the way of evaluation, step by step. A long video is a row of windows, each read as if it had been cut out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from tinyaction.data.segments import parse_range, split_segment_name
from tinyaction.data.transforms import Compose
from tinyaction.inference.sources import MemoryReader, check_array, checked_frames, list_videos
from tinyaction.video import UInt8Array, VideoError, VideoReader, open_segment, open_video

OnSourceError = Callable[[Exception], None]


@dataclass(frozen=True)
class SourceInputs:
    """Sources as a pipeline makes them: files, folders, patterns, arrays, frames, open videos.

    ``arguments`` are those of :func:`tinyaction.eval_pipeline` that made the pipeline.
    """

    pipeline: Compose
    arguments: Mapping[str, Any]

    @classmethod
    def of(cls, arguments: Mapping[str, Any], *, num_clips: int | None, source: object) -> "SourceInputs":
        """From what a checkpoint says of its clips, with other ``num_clips`` if they are given."""
        arguments = dict(arguments) | ({} if num_clips is None else {"num_clips": num_clips})
        try:
            return cls(eval_pipeline(**arguments), arguments)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{source}: a checkpoint of another layout ({error}); use the version of tinyaction "
                             "that wrote it, or train again") from None

    def batches(
        self, source: Any, *, batch_size: int = 1, num_workers: int = 2, on_error: OnSourceError | None = None
    ) -> Iterator[Batch]:
        """Batches of one source or a list of them, in their order.

        Args:
            num_workers: videos that are decoded at the same time: those of a folder in processes, others in threads.
            on_error: is told of each source that cannot be read, which is then left out; default is to raise.
        """
        for name, value in (("batch_size", batch_size), ("num_workers", num_workers)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        files = list_videos(source) if isinstance(source, str | Path) else None
        if files is not None:
            yield from self.of_files(files, batch_size=batch_size, num_workers=num_workers, on_error=on_error)
            return
        with ThreadPoolExecutor(num_workers) as pool:
            sources = flat_sources(source)
            ahead = [pool.submit(self.item, item) for item in islice(sources, num_workers + batch_size)]
            items: list[Item] = []
            while ahead:
                future = ahead.pop(0)
                ahead += [pool.submit(self.item, item) for item in islice(sources, 1)]
                try:
                    items.append(future.result())
                except (ValueError, OSError) as error:
                    if on_error is None:
                        for waiting in ahead:
                            waiting.cancel()
                        raise
                    on_error(error)
                if items and (len(items) == batch_size or not ahead):
                    yield collate(items)
                    items = []

    def of_files(
        self, files: Sequence[str | Path], *, batch_size: int = 1, num_workers: int = 2,
        on_error: OnSourceError | None = None,
    ) -> Iterator[Batch]:
        """Batches of files, decoded in processes: one that kills its process is an error like others."""
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
                yield batch

    def windows(
        self, source: Any, *, window_seconds: float, stride_seconds: float | None = None, fps: float | None = None
    ) -> Iterator[tuple[float, float, Item]]:
        """A long video part by part: (start, end, item), in seconds; memory does not grow with its length.

        The video is decoded once, in file order, and only the frames that some window asks for are kept, resized,
        until that window has been made.

        Args:
            source: a file, an open video or an array.
            window_seconds: length of a window; a shorter video is one window.
            stride_seconds: from the start of a window to that of the next; default the window itself, so that they
                do not overlap. The last window is moved back to end with the video.
            fps: frames per second; default the times that the file gives its frames.
        """
        stride_seconds = window_seconds if stride_seconds is None else stride_seconds
        for name, seconds in (("window_seconds", window_seconds), ("stride_seconds", stride_seconds)):
            if not 0 < seconds < float("inf"):
                raise ValueError(f"{name} is {seconds}; it must be above 0")
        name, reader = self.open(source)
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
            item = self.item(MemoryReader(part, num_frames=stop - first, fps=reader.fps, name=name), name)
            yield start, min(start + window_seconds, end_seconds), item

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

    def item(self, source: Any, name: str = "") -> Item:
        """What the pipeline makes of one source; ``name`` is that of an open video."""
        if isinstance(source, str | Path) and not segment_times(source):
            return self.pipeline({"filename": str(source)})
        found, reader = self.open(source)
        return self.pipeline({"filename": name or found, "video_reader": reader})

    def of_frames(self, frames: Sequence[UInt8Array]) -> torch.Tensor:
        """Full-size frames (H, W, 3) as the network is given them: (V, C, T, H, W) uint8, V the number of crops."""
        return steps_after_decoding(self.pipeline)({
            "filename": "frames", "imgs": list(frames), "img_shape": frames[0].shape[:2],
            "num_clips": 1, "clip_len": len(frames)})["inputs"]

    def open(self, source: Any) -> tuple[str, VideoReader]:
        """The name of a source, and a reader of its frames."""
        if isinstance(source, str | Path):
            times = segment_times(source)
            return str(source), open_segment(split_segment_name(str(source))[0], *times) if times else (
                open_video(source))
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


def segment_times(source: str | Path) -> tuple[float, float] | None:
    """(10.0, 20.0) of "long.mp4#t=10,20", as results name a segment; None of a file."""
    _, fragment = split_segment_name(str(source))
    if not fragment or Path(source).exists():
        return None
    start, end = fragment.removeprefix("#t=").split(",")
    return parse_range(start, end, str(source))


def is_many(source: Any) -> bool:
    """Whether a source is a list, a folder or a pattern, and not one video."""
    if isinstance(source, list | tuple):
        return not _are_frames(source)
    return isinstance(source, str | Path) and list_videos(source) is not None


def flat_sources(source: Any) -> Iterator[Any]:
    """Yield the single sources in a source: files of a folder, items of a list."""
    if isinstance(source, list | tuple) and not _are_frames(source):
        for item in source:
            yield from flat_sources(item)
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
