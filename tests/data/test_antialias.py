"""The resize of published transformers: its sizes, that no pixel is skipped, and the pixels of the originals."""

import numpy as np
import pytest

import tinyaction as ta
from tinyaction.data.antialias import VideoAntialiasResize


def noise(height, width, *, num_frames=2):
    return np.random.RandomState(0).randint(0, 256, (num_frames, height, width, 3)).astype(np.uint8)


def centre(frame, side):
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    return frame[top:top + side, left:left + side]


@pytest.mark.parametrize("size, expected", [
    ((256, 340), (224, 297)), ((340, 256), (297, 224)), ((224, 300), (224, 300)), ((100, 100), (224, 224)),
    ((720, 1280), (224, 398)),
])
def test_sizes_round_down(size, expected):
    assert VideoAntialiasResize(224).size_for(*size) == expected
    assert VideoAntialiasResize(224).resize_frame(noise(*size)[0]).shape[:2] == expected


def test_every_pixel_counts_and_none_in_the_large_frame_is_skipped():
    frame = np.zeros((32, 32, 3), np.uint8)
    frame[1::4, 1::4] = 240                                            # one pixel in sixteen
    small = VideoAntialiasResize(8).resize_frame(frame)
    assert abs(small[1:-1, 1:-1].mean() - 15) < 1                      # 240 / 16
    assert ta.VideoResize(8).resize_frame(frame).mean() > 50           # four of sixteen are looked at


def test_a_frame_of_the_right_size_and_a_flat_one_stay():
    (frame,) = noise(16, 20, num_frames=1)
    assert VideoAntialiasResize(16).resize_frame(frame) is frame
    flat = np.full((50, 70, 3), (3, 130, 255), np.uint8)
    assert (VideoAntialiasResize(16).resize_frame(flat) == (3, 130, 255)).all()


def test_frames_that_must_not_be_written():
    (frame,) = noise(30, 40, num_frames=1)
    expected = VideoAntialiasResize(12).resize_frame(frame)
    frame.flags.writeable = False
    assert np.array_equal(VideoAntialiasResize(12).resize_frame(frame), expected)


def test_in_a_pipeline():
    frames = list(noise(30, 40))
    resize = VideoAntialiasResize(12)
    results = resize({"imgs": frames, "img_shape": (30, 40)})
    assert results["img_shape"] == (12, 16)
    assert all(np.array_equal(done, resize.resize_frame(frame)) for done, frame in zip(results["imgs"], frames,
                                                                                       strict=True))
    assert repr(resize) == "VideoAntialiasResize(short_side=12)"
    with pytest.raises(ValueError, match="short_side is 0; it must be at least 1 pixel"):
        VideoAntialiasResize(0)


def processors():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install "
                                                              "'tinyaction[peers]'")
    raw = {"do_rescale": False, "do_normalize": False}
    return [
        (224, 224, lambda frames: transformers.VideoMAEImageProcessor(**raw)(
            list(frames), return_tensors="np")["pixel_values"][0]),
        (292, 256, lambda frames: transformers.VJEPA2VideoProcessor(**raw)(
            frames, return_tensors="np")["pixel_values_videos"][0]),
    ]


def check_against_processors(frames):
    for short_side, side, process in processors():
        theirs = process(frames).transpose(0, 2, 3, 1)
        ours = np.stack([centre(VideoAntialiasResize(short_side).resize_frame(frame), side) for frame in frames])
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("size", [(256, 340), (480, 270), (231, 407), (100, 120)])
def test_pixels_are_those_of_the_original_processors(size):
    check_against_processors(noise(*size))


def test_pixels_of_a_real_clip_are_those_of_the_original_processors(shared):
    reader = ta.open_video(shared / "clips" / "odd" / "demo.mp4")
    check_against_processors(np.stack(list(reader.read([0, 40, 80]))))
