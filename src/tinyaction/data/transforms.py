"""The steps that a clip goes through, from a file name to a tensor.

A transform is any callable ``dict -> dict``; a list of them is a pipeline (:class:`Compose`). The keys, and who puts
them in:

    filename, label          VideoDataset: the line of the list
    start_seconds            VideoDataset, where the line is a segment: the item is the frames from here
    end_seconds              to before here, and "where" is the line's place, for messages
    rng                      VideoDataset: the random generator of the item
    video_reader             VideoInit; VideoDecode takes it out
    total_frames, fps        VideoInit: frames in the file, frames per second (0.0 where unknown)
    frame_inds               *Sample: (num_clips * clip_len,) indices of frames, clip after clip
    clip_len, num_clips      *Sample: frames of a clip, clips of a video
    imgs                     VideoDecode: num_clips * clip_len frames (H, W, 3) uint8 RGB, decoded on demand;
                             VideoFormat: one array (V, C, T, H, W)
    img_shape                VideoDecode: (H, W) of the frames; kept up to date by every transform that changes it

The pixels stay uint8: the model makes floats of them (:class:`tinyaction.models.recognizer.VideoPreprocessor`).

A transform of your own may change frames one by one, ``map_frames(results["imgs"], function)``, or assign a list,
``results["imgs"] = [function(frame) for frame in results["imgs"]]``. A sampler of your own has its index arithmetic in
:mod:`tinyaction.data.sampling` and its transform here. Pipelines are put together in :mod:`tinyaction.data.pipelines`.

Random transforms draw from ``rng`` once per video and apply the draw to every frame. Called by hand, without ``rng``,
they draw from numpy's global state.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch

from tinyaction.data.lazy_frames import LazyFrames, map_frames
from tinyaction.data.sampling import check_counts, dense_indices, interval_indices, segment_indices, uniform_indices
from tinyaction.data.segments import segment_name
from tinyaction.places import without_secrets
from tinyaction.sample import DataSample
from tinyaction.video import UInt8Array, VideoError, open_video
from tinyaction.video.decord_reader import DecordReader
from tinyaction.video.segment import open_kept, segment_of

Results = dict[str, Any]
Transform = Callable[[Results], Results]


class Compose:
    """Run transforms one after the other.

    Raises:
        ValueError: a transform misses what an earlier one would have put in, or gives something that is no dict.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, results: Results) -> Results:
        for transform in self.transforms:
            results = _apply(transform, results)
        return results

    def __repr__(self) -> str:
        return "Compose([\n" + "".join(f"    {transform!r},\n" for transform in self.transforms) + "])"


MADE_BY = {  # key -> the transform that puts it in
    "video_reader": "VideoInit", "total_frames": "VideoInit", "frame_inds": "UniformSample or another sampler",
    "clip_len": "UniformSample or another sampler", "num_clips": "UniformSample or another sampler",
    "imgs": "VideoDecode", "img_shape": "VideoDecode",
}


def _apply(transform: Transform, results: Results) -> Results:
    """Call a transform. Raises ValueError where it misses a key, or where it returns no dict."""
    try:
        changed = transform(results)
    except KeyError as error:
        key = error.args[0] if error.args else None
        if key in results:
            raise
        if key not in MADE_BY:
            raise ValueError(f"{transform!r} looked for {key!r}; the dict has {', '.join(results)}") from error
        raise ValueError(f"{transform!r} needs {key!r}, which no transform before it has put in; add {MADE_BY[key]} "
                         "before it") from error
    if not isinstance(changed, dict):
        raise ValueError(f"{transform!r} returned {type(changed).__name__}; a transform must return the dict")
    return changed


@dataclass(frozen=True)
class VideoInit:
    """Open the video at ``filename``; adds ``video_reader``, ``total_frames`` and ``fps``.

    A ``video_reader`` that is there already is kept. Of an item that is a segment, the reader has its frames only, so
    all later steps see what they would see of a clip that was cut out. ``num_frames``, where the list gives it, is how
    many frames count; VideoError where there are fewer. ``reader="decord"`` reads as the guide does, without
    guarantees; see :mod:`tinyaction.video.decord_reader`.
    """

    reader: Literal["pyav", "decord"] = "pyav"

    def __post_init__(self) -> None:
        if self.reader not in ("pyav", "decord"):
            raise ValueError(f"reader is {self.reader!r}; it must be 'pyav' or 'decord'")

    def __call__(self, results: Results) -> Results:
        is_segment = "start_seconds" in results
        if "video_reader" not in results:
            opened = DecordReader if self.reader == "decord" else open_kept if is_segment else open_video
            results["video_reader"] = opened(results["filename"])
        if is_segment:
            results["video_reader"] = segment_of(
                results["video_reader"], results["start_seconds"], results["end_seconds"], path=results["filename"],
                where=results.get("where", ""))
        results["total_frames"] = len(results["video_reader"])
        results["fps"] = results["video_reader"].fps
        if "num_frames" in results:
            if results["total_frames"] < results["num_frames"]:
                raise VideoError(results["filename"], f"{results['total_frames']} frames, the list says "
                                 f"{results['num_frames']}; extract the frames again, or mend the list")
            results["total_frames"] = results["num_frames"]
        return results


@dataclass(frozen=True)
class VideoSample:
    """Choose frames as the guide does: one at random from each of ``clip_len`` equal intervals.

    With ``test_mode`` the draw is the same for every video: that of ``numpy.random.RandomState(42)``, which gives the
    guide's own test frames without touching numpy's global state. See
    :func:`tinyaction.data.sampling.segment_indices`.
    """

    clip_len: int
    num_clips: int
    test_mode: bool = False

    def __post_init__(self) -> None:
        check_counts(self.clip_len, self.num_clips)

    def __call__(self, results: Results) -> Results:
        rng = np.random.RandomState(42) if self.test_mode else rng_of(results)
        indices = segment_indices(results["total_frames"], self.clip_len, self.num_clips, rng)  # (V, T)
        return _with_frame_inds(results, indices)


@dataclass(frozen=True)
class UniformSample:
    """Choose frames that cover the whole video: random within equal intervals, evenly spread with ``test_mode``.

    See :func:`tinyaction.data.sampling.uniform_indices`.
    """

    clip_len: int
    num_clips: int = 1
    test_mode: bool = False

    def __post_init__(self) -> None:
        check_counts(self.clip_len, self.num_clips)

    def __call__(self, results: Results) -> Results:
        rng = None if self.test_mode else rng_of(results)
        indices = uniform_indices(results["total_frames"], self.clip_len, self.num_clips, rng)  # (V, T)
        return _with_frame_inds(results, indices)


@dataclass(frozen=True)
class IntervalSample:
    """Choose clips of frames ``frame_interval`` apart: at random places, evenly spread with ``test_mode``.

    The other arguments are those of :func:`tinyaction.data.sampling.interval_indices`.
    """

    clip_len: int
    frame_interval: int = 1
    num_clips: int = 1
    test_mode: bool = False
    target_fps: float | None = field(default=None, kw_only=True)
    twice_sample: bool = field(default=False, kw_only=True)
    temporal_jitter: bool = field(default=False, kw_only=True)
    keep_tail_frames: bool = field(default=False, kw_only=True)
    out_of_bound: Literal["loop", "repeat_last"] = field(default="loop", kw_only=True)

    def __post_init__(self) -> None:
        check_counts(self.clip_len, self.num_clips)

    def __call__(self, results: Results) -> Results:
        indices = interval_indices(
            results["total_frames"], self.clip_len, self.num_clips, None if self.test_mode else rng_of(results),
            frame_interval=self.frame_interval, target_fps=self.target_fps, fps=results.get("fps", 0.0),
            twice_sample=self.twice_sample, temporal_jitter=self.temporal_jitter,
            keep_tail_frames=self.keep_tail_frames, out_of_bound=self.out_of_bound, jitter_rng=rng_of(results),
        )                                                              # (V, T)
        return _with_frame_inds(results, indices)


@dataclass(frozen=True)
class DenseSample:
    """Choose clips from one stretch of ``sample_range`` frames, from ``num_sample_positions`` with ``test_mode``.

    See :func:`tinyaction.data.sampling.dense_indices`.
    """

    clip_len: int
    frame_interval: int = 1
    num_clips: int = 1
    test_mode: bool = False
    sample_range: int = field(default=64, kw_only=True)
    num_sample_positions: int = field(default=10, kw_only=True)

    def __post_init__(self) -> None:
        check_counts(self.clip_len, self.num_clips)

    def __call__(self, results: Results) -> Results:
        indices = dense_indices(
            results["total_frames"], self.clip_len, self.num_clips, None if self.test_mode else rng_of(results),
            frame_interval=self.frame_interval, sample_range=self.sample_range,
            num_sample_positions=self.num_sample_positions,
        )                                                              # (V, T)
        return _with_frame_inds(results, indices)


@dataclass(frozen=True)
class VideoDecode:
    """Put the frames at ``frame_inds`` into ``imgs``; they are decoded on demand. Takes ``video_reader`` out.

    Each distinct frame is decoded once, in file order; see :class:`tinyaction.data.lazy_frames.LazyFrames`.
    """

    def __call__(self, results: Results) -> Results:
        results["imgs"] = LazyFrames(results.pop("video_reader"), results["frame_inds"])
        results["img_shape"] = results["imgs"].shape
        return results


@dataclass(frozen=True)
class VideoResize:
    """Resize every frame, bilinear.

    ``r_size`` is the short side in pixels (an int; keeps the proportions), or the exact (width, height).
    Source: ``cv2.resize`` with ``INTER_LINEAR``, as mmcv's ``imresize``; rounding ``int(x * scale + 0.5)``.
    """

    r_size: int | tuple[int, int]

    def __post_init__(self) -> None:
        sides = (self.r_size, self.r_size) if isinstance(self.r_size, int) else tuple(self.r_size)
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(f"r_size is {self.r_size}; it must be a short side or (width, height), at least 1 pixel "
                             "each")

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """The (width, height) to which a frame of this size is resized."""
        if not isinstance(self.r_size, int):
            return self.r_size[0], self.r_size[1]
        scale = self.r_size / min(height, width)
        return int(width * scale + 0.5), int(height * scale + 0.5)

    def resize_frame(self, frame: UInt8Array) -> UInt8Array:
        """(H, W, 3) to the size of :meth:`size_for`; the frame itself where it has that size."""
        size = self.size_for(frame.shape[0], frame.shape[1])
        if size == (frame.shape[1], frame.shape[0]):
            return frame
        return cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)

    def __call__(self, results: Results) -> Results:
        results["img_shape"] = self.size_for(*results["img_shape"])[::-1]
        results["imgs"] = map_frames(results["imgs"], self.resize_frame)
        return results


@dataclass(frozen=True)
class VideoCrop:
    """Cut the square of ``c_size`` pixels from the centre of every frame.

    Raises:
        ValueError: the frame is smaller than the square.
    """

    c_size: int

    def __post_init__(self) -> None:
        if self.c_size < 1:
            raise ValueError(f"c_size is {self.c_size}; it must be at least 1 pixel")

    def __call__(self, results: Results) -> Results:
        height, width = results["img_shape"]
        if self.c_size > min(height, width):
            raise ValueError(
                f"{results.get('filename', 'video')}: a crop of {self.c_size} pixels does not fit into a frame of "
                f"{width}x{height} (width x height); resize first, or crop less"
            )
        left, top = width // 2 - self.c_size // 2, height // 2 - self.c_size // 2
        box = (slice(top, top + self.c_size), slice(left, left + self.c_size))
        results["img_shape"] = (self.c_size, self.c_size)
        results["imgs"] = map_frames(results["imgs"], lambda frame: frame[box])
        return results


@dataclass(frozen=True)
class VideoRandomResizedCrop:
    """Cut a random box, the same from every frame, and resize it to a square of ``size`` pixels, bilinear.

    ``area``: range of the box's share of the frame; ``aspect``: range of its width / height, drawn evenly on a
    logarithmic scale. After ten boxes that do not fit, the largest centred square is taken.
    Source: Szegedy et al. 2015, "Going deeper with convolutions"; draws as in MMAction2's ``RandomResizedCrop``.
    """

    size: int
    area: tuple[float, float] = field(default=(0.08, 1.0), kw_only=True)
    aspect: tuple[float, float] = field(default=(3 / 4, 4 / 3), kw_only=True)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}; it must be at least 1 pixel")
        if not (0 < self.area[0] <= self.area[1] <= 1):
            raise ValueError(f"area is {self.area}; it must be (low, high) with 0 < low <= high <= 1")
        if not (0 < self.aspect[0] <= self.aspect[1]):
            raise ValueError(f"aspect is {self.aspect}; it must be (low, high) with 0 < low <= high")

    def draw_box(self, height: int, width: int, rng: Any) -> tuple[int, int, int, int]:
        """Draw (left, top, box width, box height) in pixels within a frame of ``height`` x ``width``."""
        aspects = np.exp(rng.uniform(np.log(self.aspect[0]), np.log(self.aspect[1]), size=10))
        areas = rng.uniform(self.area[0], self.area[1], size=10) * height * width
        box_widths = np.round(np.sqrt(areas * aspects)).astype(int)
        box_heights = np.round(np.sqrt(areas / aspects)).astype(int)
        for box_width, box_height in zip(box_widths.tolist(), box_heights.tolist(), strict=True):
            if 1 <= box_width <= width and 1 <= box_height <= height:
                left = int(rng.randint(0, width - box_width + 1))
                top = int(rng.randint(0, height - box_height + 1))
                return left, top, box_width, box_height
        side = min(height, width)
        return (width - side) // 2, (height - side) // 2, side, side

    def __call__(self, results: Results) -> Results:
        height, width = results["img_shape"]
        return cut_and_resize(results, self.draw_box(height, width, rng_of(results)), self.size)


@dataclass(frozen=True)
class VideoFlip:
    """Mirror the whole video left to right with probability ``flip_ratio``; adds ``flip``.

    Leave it out where left and right tell classes apart, or give ``label_map``: label -> label of the mirrored video.
    """

    flip_ratio: float = 0.5
    label_map: Mapping[int, int] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.flip_ratio <= 1:
            raise ValueError(f"flip_ratio is {self.flip_ratio}; it must be a probability, 0 to 1")

    def draw(self, rng: Any) -> bool:
        return bool(rng.random_sample() < self.flip_ratio)

    def __call__(self, results: Results) -> Results:
        results["flip"] = self.draw(rng_of(results))
        if results["flip"] and "label" in results:
            label = results["label"]
            results["label"] = self.label_map.get(label, label) if not isinstance(label, torch.Tensor) else (
                label[[self.label_map.get(k, k) for k in range(len(label))]])  # (K,); classes change in pairs
        if results["flip"]:
            results["imgs"] = map_frames(results["imgs"], _mirrored)
        return results


@dataclass(frozen=True)
class VideoFormat:
    """Decode ``imgs`` into one array (V, C, T, H, W) uint8, one full-size frame in memory at a time."""

    def __call__(self, results: Results) -> Results:
        V, T = results["num_clips"], results["clip_len"]
        frames = results.pop("imgs")
        clips: UInt8Array | None = None
        for places, frame in frames.in_file_order() if isinstance(frames, LazyFrames) else _one_by_one(frames):
            H, W, C = frame.shape
            if clips is None:
                clips = np.empty((V, C, T, H, W), dtype=np.uint8)
            if clips.shape != (V, C, T, H, W) or frame.dtype != np.uint8 or places[-1] >= V * T:
                raise ValueError(f"{results.get('filename', 'video')}: a frame of {frame.shape} {frame.dtype} among "
                                 f"frames for {clips.shape}; all are (H, W, 3) uint8 of one size, {V} x {T} of them")
            frame = np.ascontiguousarray(frame)                        # a cut-out is split 8 times slower
            for place in places:
                cv2.split(frame, list(clips[place // T, :, place % T]))  # into C planes; 5 times faster than transpose
        results["imgs"] = clips
        return results


def _one_by_one(frames: Sequence[UInt8Array]) -> Iterator[tuple[list[int], UInt8Array]]:
    return (([place], frame) for place, frame in enumerate(frames))


@dataclass(frozen=True)
class VideoPack:
    """Make ``{"inputs": (V, C, T, H, W) uint8 tensor, "data_samples": DataSample}`` of what the steps collected."""

    def __call__(self, results: Results) -> Results:
        label = results.get("label")
        name = without_secrets(str(results.get("filename", "")))
        if "start_seconds" in results:
            name = segment_name(name, results["start_seconds"], results["end_seconds"])
        sample = DataSample(
            label=label if isinstance(label, torch.Tensor) else None if label is None else torch.tensor([label]),
            img_shape=tuple(results["img_shape"]),
            num_clips=results["num_clips"],
            clip_len=results["clip_len"],
            filename=name,
        )
        if not isinstance(results["imgs"], np.ndarray):
            raise ValueError("VideoPack() needs the frames as one array, which no transform before it has made; add "
                             "VideoFormat before it")
        return {"inputs": torch.from_numpy(results["imgs"]), "data_samples": sample}


def rng_of(results: Results) -> Any:
    """The item's own generator, or numpy's global state where a transform is called by hand, as in the guide."""
    return results.get("rng", np.random)


def _with_frame_inds(results: Results, indices: npt.NDArray[np.int64]) -> Results:
    results["num_clips"], results["clip_len"] = indices.shape
    results["frame_inds"] = indices.reshape(-1)                        # (V*T,)
    return results


def cut_and_resize(results: Results, box: tuple[int, int, int, int], size: int) -> Results:
    """Cut (left, top, width, height), in pixels, from every frame and resize it to a square of ``size``."""
    left, top, width, height = box
    resize = VideoResize((size, size))
    results["img_shape"] = (size, size)
    results["imgs"] = map_frames(
        results["imgs"], lambda frame: resize.resize_frame(frame[top : top + height, left : left + width]))
    return results


def _mirrored(frame: UInt8Array) -> UInt8Array:
    return cv2.flip(frame, 1).astype(np.uint8, copy=False)
