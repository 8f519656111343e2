"""The recipe of a run, readable top to bottom. To change it, copy the list and edit it."""

from tinyaction.transforms import (
    Compose,
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


def train_pipeline(
    *,
    clip_len: int,
    size: int,
    num_clips: int = 1,
    flip_ratio: float = 0.5,
    area: tuple[float, float] = (0.5, 1.0),
) -> Compose:
    """Random frames, a random box, mirrored every other time.

    Args:
        clip_len: frames of a clip.
        size: side of the square that the network sees, in pixels.
        num_clips: clips of a video in each epoch.
        flip_ratio: share of videos that are mirrored; 0 where left and right tell classes apart.
        area: range of the random box's share of the frame.
    """
    return Compose([
        VideoInit(),
        UniformSample(clip_len, num_clips),
        VideoDecode(),
        VideoResize(short_side_pixels(size)),
        VideoRandomResizedCrop(size, area=area),
        VideoFlip(flip_ratio),
        VideoFormat(),
        VideoPack(),
    ])


def eval_pipeline(*, clip_len: int, size: int, num_clips: int = 1) -> Compose:
    """Evenly spread frames and the centre of the picture; nothing is drawn at random. Arguments as in training."""
    return Compose([
        VideoInit(),
        UniformSample(clip_len, num_clips, test_mode=True),
        VideoDecode(),
        VideoResize(short_side_pixels(size)),
        VideoCrop(size),
        VideoFormat(),
        VideoPack(),
    ])


def short_side_pixels(size: int) -> int:
    """The short side to which a frame is resized before a crop of ``size``: 256 for 224, as the field does."""
    return size * 256 // 224
