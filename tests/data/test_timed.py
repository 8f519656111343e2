"""Frames a fixed time apart, as published networks were given them."""

import pytest

from tinyaction.data.antialias import VideoAntialiasResize
from tinyaction.data.pipelines import eval_pipeline, sampled_frames
from tinyaction.data.timed import TimedSample
from tinyaction.data.transforms import UniformSample, VideoResize


@pytest.mark.parametrize("total_frames, fps, num_clips, expected", [
    (30, 30, 1, [[10, 13, 16, 19]]),                                   # 10 frames before the clip, 10 behind it
    (60, 60, 1, [[20, 26, 32, 38]]),                                   # the same moments
    (30, 0, 1, [[10, 13, 16, 19]]),                                    # a rate that is not known
    (20, 20, 1, [[6, 8, 10, 12]]),
    (30, 30, 3, [[0, 3, 6, 9], [10, 13, 16, 19], [20, 23, 26, 29]]),
    (8, 30, 1, [[0, 2, 4, 6]]),                                        # shorter than a clip: closer together
    (3, 30, 1, [[0, 1, 2, 2]]),
])
def test_frames_of_a_clip(total_frames, fps, num_clips, expected):
    assert TimedSample(4, 3, num_clips).indices(total_frames, fps).tolist() == expected


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="frame_interval is 0; it must be at least 1"):
        TimedSample(4, 0)


def test_the_pipeline_of_a_published_network():
    published = eval_pipeline(clip_len=4, size=16, frame_interval=3, short_side=16, antialias=True)
    assert TimedSample(4, 3) in published.transforms and VideoAntialiasResize(16) in published.transforms
    assert sampled_frames(published, 60, fps=60).tolist() == [20, 26, 32, 38]
    own = eval_pipeline(clip_len=4, size=224)
    assert UniformSample(4, 1, test_mode=True) in own.transforms and VideoResize(256) in own.transforms
    three = eval_pipeline(clip_len=4, size=16, short_side=18, num_crops=3)
    assert VideoResize(16) in three.transforms                         # squares as high as the picture
