"""The steps that a clip goes through, from a file name to a tensor.

A transform is any callable ``dict -> dict``; a list of them is a pipeline (:class:`Compose`). The keys:

    filename, label          given
    video_reader             VideoInit puts it in, VideoDecode takes it out
    total_frames, fps        frames in the file, frames per second (0.0 where unknown)
    frame_inds               (num_clips * clip_len,) which frames, clip after clip
    clip_len, num_clips      frames of a clip, clips of a video
    imgs                     list of num_clips * clip_len frames (H, W, 3) uint8 RGB; after VideoFormat (V, C, T, H, W)
    img_shape                (H, W) of the frames as they are now
    rng                      the item's own random generator; put in by VideoDataset

Random transforms draw once per video, in a method of their own, from ``rng``; without one (a transform called by hand)
from numpy's global state. What is drawn is applied to every frame alike.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch

from tinyaction.data.sampling import check_counts, dense_indices, interval_indices, segment_indices, uniform_indices
from tinyaction.sample import DataSample
from tinyaction.video import UInt8Array, VideoError, open_video

Results = dict[str, Any]
Transform = Callable[[Results], Results]
FrameStep = Callable[[UInt8Array], UInt8Array]  # a frame (H, W, 3) to another


class Compose:
    """Run transforms one after the other.

    What follows a :class:`VideoDecode` and changes each frame by itself (:class:`PerFrame`), and then
    :class:`VideoFormat`, is done to each frame as soon as it is read: full-size frames are never all in memory, and
    a frame stays in the processor's cache from its first step to its last. The result is the same.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, results: Results) -> Results:
        todo = deque(self.transforms)
        while todo:
            transform = todo.popleft()
            if _is_plain(transform, VideoDecode):
                steps: list[Any] = []
                while todo and _is_plain(todo[0], PerFrame):
                    steps.append(todo.popleft())
                last: Any = todo.popleft() if todo and _is_plain(todo[0], VideoFormat) else None
                results = _apply(partial(cast(VideoDecode, transform), steps=steps, last=last), results)
            else:
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
    """Call a transform. Raises ValueError where one before it is missing, or where it returns no dict."""
    name = getattr(transform, "func", transform)
    try:
        changed = transform(results)
    except KeyError as error:
        key = error.args[0] if error.args else None
        if key not in MADE_BY or key in results:
            raise
        raise ValueError(f"{name!r} needs {key!r}, which no transform before it has put in; add {MADE_BY[key]} before "
                         "it") from error
    if not isinstance(changed, dict):
        raise ValueError(f"{name!r} returned {type(changed).__name__}; a transform must return the dict")
    return changed


class VideoInit:
    """Open the video at ``filename``; adds ``video_reader``, ``total_frames`` and ``fps``.

    A ``video_reader`` that is already there is kept: frames in memory go through the same pipeline.

    ``num_frames``, where the list gives it, is how many of them count; VideoError where there are fewer.
    """

    def __call__(self, results: Results) -> Results:
        reader = results.get("video_reader")
        results["video_reader"] = open_video(results["filename"]) if reader is None else reader
        results["total_frames"] = len(results["video_reader"])
        results["fps"] = results["video_reader"].fps
        if "num_frames" in results:
            if results["total_frames"] < results["num_frames"]:
                raise VideoError(f"{results['filename']}: {results['total_frames']} frames, the list says "
                                 f"{results['num_frames']}; extract the frames again, or mend the list")
            results["total_frames"] = results["num_frames"]
        return results

    def __repr__(self) -> str:
        return "VideoInit()"


class VideoSample:
    """Choose frames as the guide does: one at random from each of ``clip_len`` equal intervals.

    With ``test_mode`` the draw is the same for every video: that of ``numpy.random.RandomState(42)``, which gives the
    guide's own test frames without touching numpy's global state. See
    :func:`tinyaction.data.sampling.segment_indices`.
    """

    def __init__(self, clip_len: int, num_clips: int, test_mode: bool = False) -> None:
        check_counts(clip_len, num_clips)
        self.clip_len = clip_len
        self.num_clips = num_clips
        self.test_mode = test_mode

    def __call__(self, results: Results) -> Results:
        rng = np.random.RandomState(42) if self.test_mode else rng_of(results)
        indices = segment_indices(results["total_frames"], self.clip_len, self.num_clips, rng)  # (V, T)
        return _with_frame_inds(results, indices)

    def __repr__(self) -> str:
        return f"VideoSample(clip_len={self.clip_len}, num_clips={self.num_clips}, test_mode={self.test_mode})"


class UniformSample:
    """Choose frames that cover the whole video; random within equal intervals, or with ``test_mode`` evenly spread.

    See :func:`tinyaction.data.sampling.uniform_indices`.
    """

    def __init__(self, clip_len: int, num_clips: int = 1, test_mode: bool = False) -> None:
        check_counts(clip_len, num_clips)
        self.clip_len = clip_len
        self.num_clips = num_clips
        self.test_mode = test_mode

    def __call__(self, results: Results) -> Results:
        rng = None if self.test_mode else rng_of(results)
        indices = uniform_indices(results["total_frames"], self.clip_len, self.num_clips, rng)  # (V, T)
        return _with_frame_inds(results, indices)

    def __repr__(self) -> str:
        return f"UniformSample(clip_len={self.clip_len}, num_clips={self.num_clips}, test_mode={self.test_mode})"


class IntervalSample:
    """Choose clips of frames ``frame_interval`` apart, spread over the video: random (training) or with ``test_mode``
    even. See :func:`tinyaction.data.sampling.interval_indices`, whose further arguments these are.
    """

    def __init__(
        self, clip_len: int, frame_interval: int = 1, num_clips: int = 1, test_mode: bool = False, *,
        target_fps: float | None = None, twice_sample: bool = False, temporal_jitter: bool = False,
        keep_tail_frames: bool = False, out_of_bound: Literal["loop", "repeat_last"] = "loop",
    ) -> None:
        check_counts(clip_len, num_clips)
        self.clip_len = clip_len
        self.frame_interval = frame_interval
        self.num_clips = num_clips
        self.test_mode = test_mode
        self.target_fps = target_fps
        self.twice_sample = twice_sample
        self.temporal_jitter = temporal_jitter
        self.keep_tail_frames = keep_tail_frames
        self.out_of_bound = out_of_bound

    def __call__(self, results: Results) -> Results:
        indices = interval_indices(
            results["total_frames"], self.clip_len, self.num_clips, None if self.test_mode else rng_of(results),
            frame_interval=self.frame_interval, target_fps=self.target_fps, fps=results.get("fps", 0.0),
            twice_sample=self.twice_sample, temporal_jitter=self.temporal_jitter,
            keep_tail_frames=self.keep_tail_frames, out_of_bound=self.out_of_bound, jitter_rng=rng_of(results),
        )                                                              # (V, T)
        return _with_frame_inds(results, indices)

    def __repr__(self) -> str:
        return (f"IntervalSample(clip_len={self.clip_len}, frame_interval={self.frame_interval}, "
                f"num_clips={self.num_clips}, test_mode={self.test_mode})")


class DenseSample:
    """Choose clips from one stretch of ``sample_range`` frames; with ``test_mode`` from ``num_sample_positions`` ones.

    See :func:`tinyaction.data.sampling.dense_indices`.
    """

    def __init__(
        self, clip_len: int, frame_interval: int = 1, num_clips: int = 1, test_mode: bool = False, *,
        sample_range: int = 64, num_sample_positions: int = 10,
    ) -> None:
        check_counts(clip_len, num_clips)
        self.clip_len = clip_len
        self.frame_interval = frame_interval
        self.num_clips = num_clips
        self.test_mode = test_mode
        self.sample_range = sample_range
        self.num_sample_positions = num_sample_positions

    def __call__(self, results: Results) -> Results:
        indices = dense_indices(
            results["total_frames"], self.clip_len, self.num_clips, None if self.test_mode else rng_of(results),
            frame_interval=self.frame_interval, sample_range=self.sample_range,
            num_sample_positions=self.num_sample_positions,
        )                                                              # (V, T)
        return _with_frame_inds(results, indices)

    def __repr__(self) -> str:
        return (f"DenseSample(clip_len={self.clip_len}, frame_interval={self.frame_interval}, "
                f"num_clips={self.num_clips}, test_mode={self.test_mode}, sample_range={self.sample_range})")


def _is_plain(transform: Any, kind: Any) -> bool:
    """Whether calling the transform does what calling this kind does; a class derived from it may do otherwise."""
    return isinstance(transform, kind) and type(transform).__call__ is kind.__call__


class PerFrame:
    """A transform that changes every frame by itself. Subclasses say how, in :meth:`step`."""

    def step(self, results: Results) -> FrameStep:
        """Draw, once for all frames; note in ``results`` what changes with them; return what to do to each frame."""
        raise NotImplementedError

    def __call__(self, results: Results) -> Results:
        step = self.step(results)
        frames: list[UInt8Array] = list(results["imgs"])
        changed: dict[int, UInt8Array] = {}
        for frame in frames:
            if id(frame) not in changed:  # a frame that stands in several clips is one object, see VideoDecode
                changed[id(frame)] = step(frame)
        results["imgs"] = [changed[id(frame)] for frame in frames]
        return results


class VideoDecode:
    """Decode ``frame_inds`` to ``imgs``, each distinct frame once and in file order, and let go of the reader.

    Frames that are asked for twice are the same array object twice. ``steps`` are done to each frame as it comes;
    with ``last`` it is then written to its places in the clips, and kept nowhere else.
    """

    def __call__(
        self, results: Results, *, steps: Sequence[PerFrame] = (), last: "VideoFormat | None" = None
    ) -> Results:
        reader = results.pop("video_reader")
        results.pop("imgs", None)
        distinct, places = np.unique(results["frame_inds"], return_inverse=True)  # sorted
        frames: list[UInt8Array] = []
        changes: list[FrameStep] = []
        for number, frame in enumerate(reader.read(distinct.tolist())):
            if number == 0:
                results["img_shape"] = frame.shape[:2]
                changes = [step.step(results) for step in steps]
            for change in changes:
                frame = change(frame)
            if last:
                last.write(results, frame, np.flatnonzero(places == number).tolist())
            else:
                frames.append(frame if frame.flags.writeable else frame.copy())  # it was somebody else's
        if not last:
            results["imgs"] = [frames[place] for place in places.reshape(-1)]
        return results

    def __repr__(self) -> str:
        return "VideoDecode()"


class VideoResize(PerFrame):
    """Resize every frame, bilinear.

    ``r_size`` an int: the short side in pixels, the other side in proportion. A tuple: the exact (width, height).
    Source: ``cv2.resize`` with ``INTER_LINEAR``, as mmcv's ``imresize``; rounding ``int(x * scale + 0.5)``.
    """

    def __init__(self, r_size: int | tuple[int, int]) -> None:
        sides = (r_size, r_size) if isinstance(r_size, int) else tuple(r_size)
        if len(sides) != 2 or min(sides) < 1:
            raise ValueError(f"r_size is {r_size}; it must be a short side or (width, height), at least 1 pixel each")
        self.r_size = r_size

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

    def step(self, results: Results) -> FrameStep:
        results["img_shape"] = self.size_for(*results["img_shape"])[::-1]
        return self.resize_frame

    def __repr__(self) -> str:
        return f"VideoResize(r_size={self.r_size})"


class VideoCrop(PerFrame):
    """Cut the square of ``c_size`` pixels from the centre of every frame.

    Raises:
        ValueError: the frame is smaller than the square.
    """

    def __init__(self, c_size: int) -> None:
        if c_size < 1:
            raise ValueError(f"c_size is {c_size}; it must be at least 1 pixel")
        self.c_size = c_size

    def step(self, results: Results) -> FrameStep:
        height, width = results["img_shape"]
        if self.c_size > min(height, width):
            raise ValueError(
                f"{results.get('filename', 'video')}: a crop of {self.c_size} pixels does not fit into a frame of "
                f"{width}x{height} (width x height); resize first, or crop less"
            )
        left, top = width // 2 - self.c_size // 2, height // 2 - self.c_size // 2
        results["img_shape"] = (self.c_size, self.c_size)
        return lambda frame: frame[top : top + self.c_size, left : left + self.c_size]

    def __repr__(self) -> str:
        return f"VideoCrop(c_size={self.c_size})"


class VideoRandomResizedCrop(PerFrame):
    """Cut a random box, the same from every frame, and resize it to a square of ``size`` pixels, bilinear.

    ``area``: range of the box's share of the frame; ``aspect``: range of its width / height, drawn evenly on a
    logarithmic scale. After ten boxes that do not fit, the largest centred square is taken.
    Source: Szegedy et al. 2015, "Going deeper with convolutions"; draws as in MMAction2's ``RandomResizedCrop``.
    """

    def __init__(
        self, size: int, *, area: tuple[float, float] = (0.08, 1.0), aspect: tuple[float, float] = (3 / 4, 4 / 3)
    ) -> None:
        if size < 1:
            raise ValueError(f"size is {size}; it must be at least 1 pixel")
        if not (0 < area[0] <= area[1] <= 1):
            raise ValueError(f"area is {area}; it must be (low, high) with 0 < low <= high <= 1")
        if not (0 < aspect[0] <= aspect[1]):
            raise ValueError(f"aspect is {aspect}; it must be (low, high) with 0 < low <= high")
        self.size = size
        self.area = area
        self.aspect = aspect

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

    def step(self, results: Results) -> FrameStep:
        height, width = results["img_shape"]
        return cut_and_resized(results, self.draw_box(height, width, rng_of(results)), self.size)

    def __repr__(self) -> str:
        return f"VideoRandomResizedCrop(size={self.size}, area={self.area}, aspect={self.aspect})"


class VideoFlip(PerFrame):
    """Mirror the whole video left to right with probability ``flip_ratio``; adds ``flip``.

    Where left and right tell classes apart, leave it out, or give ``label_map``: label -> label of the mirrored video.
    """

    def __init__(self, flip_ratio: float = 0.5, *, label_map: Mapping[int, int] | None = None) -> None:
        if not 0 <= flip_ratio <= 1:
            raise ValueError(f"flip_ratio is {flip_ratio}; it must be a probability, 0 to 1")
        self.flip_ratio = flip_ratio
        self.label_map = dict(label_map or {})

    def draw(self, rng: Any) -> bool:
        return bool(rng.random_sample() < self.flip_ratio)

    def step(self, results: Results) -> FrameStep:
        results["flip"] = self.draw(rng_of(results))
        if results["flip"] and "label" in results:
            results["label"] = self.label_map.get(results["label"], results["label"])
        return _mirrored if results["flip"] else lambda frame: frame

    def __repr__(self) -> str:
        return f"VideoFlip(flip_ratio={self.flip_ratio}{f', label_map={self.label_map}' if self.label_map else ''})"


class VideoFormat:
    """Stack ``imgs`` from a list of V * T frames (H, W, 3) to one array (V, C, T, H, W) uint8."""

    def __call__(self, results: Results) -> Results:
        frames = results.pop("imgs")
        for place, frame in enumerate(frames):
            self.write(results, frame, [place])
        return results

    def write(self, results: Results, frame: UInt8Array, places: Sequence[int]) -> None:
        """Write one frame to its ``places``, each clip * clip_len + frame; the first one makes the array ``imgs``."""
        V, T = results["num_clips"], results["clip_len"]
        H, W, C = frame.shape
        if "imgs" not in results:
            results["imgs"] = np.empty((V, C, T, H, W), dtype=np.uint8)
        clips = results["imgs"]                                        # (V, C, T, H, W)
        assert frame.shape == (*clips.shape[3:], clips.shape[1]) and frame.dtype == np.uint8
        frame = np.ascontiguousarray(frame)                            # a cut-out is split 8 times slower
        for place in places:
            cv2.split(frame, list(clips[place // T, :, place % T]))    # into C planes; 5 times faster than transpose

    def __repr__(self) -> str:
        return "VideoFormat()"


class VideoPack:
    """Make ``{"inputs": (V, C, T, H, W) uint8 tensor, "data_samples": DataSample}`` of what the steps collected."""

    def __call__(self, results: Results) -> Results:
        label = results.get("label")
        sample = DataSample(
            label=None if label is None else torch.tensor([label]),    # (1,) int64
            img_shape=tuple(results["img_shape"]),
            num_clips=results["num_clips"],
            clip_len=results["clip_len"],
            filename=str(results.get("filename", "")),
        )
        return {"inputs": torch.from_numpy(results["imgs"]), "data_samples": sample}

    def __repr__(self) -> str:
        return "VideoPack()"


def rng_of(results: Results) -> Any:
    """The item's own generator, or numpy's global state where a transform is called by hand, as in the guide."""
    return results.get("rng", np.random)


def _with_frame_inds(results: Results, indices: npt.NDArray[np.int64]) -> Results:
    results["num_clips"], results["clip_len"] = indices.shape
    results["frame_inds"] = indices.reshape(-1)                        # (V*T,)
    return results


def cut_and_resized(results: Results, box: tuple[int, int, int, int], size: int) -> FrameStep:
    """The step that cuts (left, top, width, height), in pixels, and resizes it to a square of ``size``."""
    left, top, width, height = box
    resize = VideoResize((size, size))
    results["img_shape"] = (size, size)
    return lambda frame: resize.resize_frame(frame[top : top + height, left : left + width])


def _mirrored(frame: UInt8Array) -> UInt8Array:
    return cv2.flip(frame, 1).astype(np.uint8, copy=False)
