"""The pipelines of training and evaluation. To change one, copy its list of transforms and edit it."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tinyaction.data.antialias import VideoAntialiasResize
from tinyaction.data.augment import CROPS as CROP_NAMES
from tinyaction.data.augment import TorchvisionAugment, VideoMultiScaleCrop, VideoTenCrop, VideoThreeCrop
from tinyaction.data.timed import TimedSample
from tinyaction.data.transforms import (
    Compose,
    Results,
    Transform,
    UniformSample,
    VideoCrop,
    VideoDecode,
    VideoFlip,
    VideoFormat,
    VideoInit,
    VideoPack,
    VideoRandomResizedCrop,
    VideoResize,
)
from tinyaction.video import UInt8Array

AUGMENTATIONS = ("none", "basic", "randaugment", "color")
CROPS = ("resized", "multiscale")
NUM_CROPS = tuple(CROP_NAMES)  # 1, 3 or 10


def train_pipeline(
    *,
    clip_len: int,
    size: int,
    num_clips: int = 1,
    flip_ratio: float = 0.5,
    flip_labels: Mapping[int, int] | None = None,
    area: tuple[float, float] = (0.5, 1.0),
    augment: str = "basic",
    crop: str = "resized",
    frame_interval: int | None = None,
    short_side: int | None = None,
    antialias: bool = False,
) -> Compose:
    """Random frames, a random box, mirrored with probability ``flip_ratio``.

    Args:
        clip_len: frames of a clip.
        size: side of the square that the network sees, in pixels.
        num_clips: clips of a video in each epoch.
        flip_ratio: share of videos that are mirrored; 0 where left and right tell classes apart.
        flip_labels: label -> label of the mirrored video, for those that change.
        area: range of the random box's share of the frame.
        augment: "basic" crops and mirrors, "randaugment" and "color" also change colours, "none" takes the centre.
        crop: "resized" takes a box of any area and shape, "multiscale" one of TSN's few.
        frame_interval, short_side, antialias: as in :func:`eval_pipeline`; a random box is cut from frames that are
            larger than the square, whatever ``short_side`` says.

    Raises:
        ValueError: ``augment`` or ``crop`` is none of these.
    """
    if augment not in AUGMENTATIONS:
        raise ValueError(f"augment is {augment!r}; it must be one of {', '.join(AUGMENTATIONS)}")
    if crop not in CROPS:
        raise ValueError(f"crop is {crop!r}; it must be one of {', '.join(CROPS)}")
    from torchvision.transforms import v2  # takes longer to import than a prediction, which does not need it

    box = VideoRandomResizedCrop(size, area=area) if crop == "resized" else VideoMultiScaleCrop(size)
    change: dict[str, list[Transform]] = {
        "none": [VideoCrop(size)],
        "basic": [box, VideoFlip(flip_ratio, label_map=flip_labels or {})],
    }
    change["randaugment"] = [*change["basic"], TorchvisionAugment(v2.RandAugment(num_ops=2, magnitude=7))]
    change["color"] = [*change["basic"], TorchvisionAugment(v2.ColorJitter(0.4, 0.4, 0.4, 0.1))]
    pixels = short_side if short_side is not None and augment == "none" else short_side_pixels(size)
    return Compose([
        VideoInit(),
        UniformSample(clip_len, num_clips) if frame_interval is None else
        TimedSample(clip_len, frame_interval, num_clips, test_mode=False),
        VideoDecode(),
        VideoAntialiasResize(pixels) if antialias else VideoResize(pixels),
        *change[augment],
        VideoFormat(),
        VideoPack(),
    ])


def eval_pipeline(
    *, clip_len: int, size: int, num_clips: int = 1, num_crops: int = 1, frame_interval: int | None = None,
    short_side: int | None = None, antialias: bool = False,
) -> Compose:
    """Evenly spread frames and the centre of the picture; nothing is drawn at random. Arguments as in training.

    Args:
        num_crops: 1 is the centre; 3 are squares along the long side, as high as the picture; 10 are the corners and
            the centre, also mirrored. Views are ``num_clips * num_crops``.
        frame_interval: from one frame to the next, see :class:`TimedSample`; None spreads them over the whole video.
        short_side: to which a frame is resized before the crop, but for 3 crops; default as in training.
        antialias: resize as :class:`VideoAntialiasResize` does.

    Raises:
        ValueError: ``num_crops`` is another number.
    """
    if num_crops not in NUM_CROPS:
        raise ValueError(f"num_crops is {num_crops}; it must be one of {', '.join(map(str, NUM_CROPS))}")
    crops: dict[int, type[VideoCrop | VideoThreeCrop | VideoTenCrop]] = {1: VideoCrop, 3: VideoThreeCrop,
                                                                        10: VideoTenCrop}
    pixels = size if num_crops == 3 else short_side_pixels(size) if short_side is None else short_side
    return Compose([
        VideoInit(),
        UniformSample(clip_len, num_clips, test_mode=True) if frame_interval is None else
        TimedSample(clip_len, frame_interval, num_clips),
        VideoDecode(),
        VideoAntialiasResize(pixels) if antialias else VideoResize(pixels),
        crops[num_crops](size),
        VideoFormat(),
        VideoPack(),
    ])


def sampled_frames(pipeline: Compose, total_frames: int, *, fps: float = 0.0) -> npt.NDArray[np.int64]:
    """Indices (V*T,) that a pipeline samples from a video of ``total_frames``, clip after clip; reads no video."""
    results: Results = {"filename": "", "total_frames": total_frames, "fps": fps}
    for transform in pipeline.transforms:
        if not isinstance(transform, VideoInit):
            results = transform(results)
        if "frame_inds" in results:
            return np.asarray(results["frame_inds"])
    raise ValueError(f"no transform of this pipeline chooses frames: {pipeline!r}")


def steps_after_decoding(pipeline: Compose) -> Compose:
    """The transforms after a pipeline's VideoDecode, for frames that are decoded already."""
    kinds = [type(transform) for transform in pipeline.transforms]
    return Compose(pipeline.transforms[kinds.index(VideoDecode) + 1 :])


def resize_early(pipeline: Compose, frame: UInt8Array) -> UInt8Array:
    """Resize a frame as the pipeline's VideoResize will, so that frames kept in memory are small.

    VideoResize leaves a frame of the right size as it is.
    """
    resize = next((transform for transform in pipeline.transforms
                   if isinstance(transform, VideoResize | VideoAntialiasResize)), None)
    return frame if resize is None else resize.resize_frame(frame)


def short_side_pixels(size: int) -> int:
    """The short side to which a frame is resized before a crop of ``size``: 256 for 224, as the field does."""
    return size * 256 // 224
