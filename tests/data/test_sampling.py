"""Which frames: literal tables, and what holds for every length of video."""

import numpy as np
import pytest

from tinyaction.data.sampling import repeated_indices, segment_indices, uniform_indices


class Lowest:
    """An rng that always draws the lowest number, so that the intervals themselves can be read off."""

    def randint(self, low, high=None, size=None):
        lowest = 0 if high is None else low
        return lowest if size is None else np.full(size, lowest)


class Highest:
    """An rng that always draws the highest number."""

    def randint(self, low, high=None, size=None):
        highest = (low if high is None else high) - 1
        return highest if size is None else np.full(size, highest)


@pytest.mark.parametrize("total_frames, clip_len, lowest, highest", [
    (9, 4, [0, 2, 4, 6], [1, 3, 5, 7]),  # the guide never sees frame 8
    (8, 4, [0, 2, 4, 6], [1, 3, 5, 7]),
    (4, 4, [0, 1, 2, 3], [0, 1, 2, 3]),
    (2, 4, [0, 0, 1, 1], [0, 0, 1, 1]),  # shorter than the clip: frames repeat
    (1, 3, [0, 0, 0], [0, 0, 0]),
    (100, 1, [0], [99]),
])
def test_segment_indices(total_frames, clip_len, lowest, highest):
    assert segment_indices(total_frames, clip_len, 2, Lowest()).tolist() == [lowest, lowest]
    assert segment_indices(total_frames, clip_len, 2, Highest()).tolist() == [highest, highest]


@pytest.mark.parametrize("total_frames, clip_len, lowest, highest", [
    (9, 4, [0, 2, 4, 6], [2, 4, 6, 8]),  # the whole video, ends belonging to both sides
    (2, 4, [0, 0, 0, 1], [0, 0, 1, 1]),
    (1, 3, [0, 0, 0], [0, 0, 0]),
    (100, 1, [0], [99]),
])
def test_uniform_indices_at_random(total_frames, clip_len, lowest, highest):
    assert uniform_indices(total_frames, clip_len, 2, Lowest()).tolist() == [lowest, lowest]
    assert uniform_indices(total_frames, clip_len, 2, Highest()).tolist() == [highest, highest]


@pytest.mark.parametrize("total_frames, clip_len, num_clips, expected", [
    (9, 4, 1, [[1, 3, 5, 7]]),
    (9, 4, 3, [[0, 2, 4, 6], [1, 3, 5, 7], [1, 3, 5, 7]]),
    (41, 4, 3, [[2, 12, 22, 32], [5, 15, 25, 35], [7, 17, 27, 37]]),  # 10 apart; 2.5, 5 and 7.5 within
    (2, 4, 1, [[0, 0, 0, 1]]),
    (1, 3, 2, [[0, 0, 0], [0, 0, 0]]),
    (300, 1, 1, [[149]]),
])
def test_uniform_indices_evenly_spread(total_frames, clip_len, num_clips, expected):
    assert uniform_indices(total_frames, clip_len, num_clips, None).tolist() == expected


@pytest.mark.parametrize("total_frames, clip_len, expected", [
    (3, 8, [0, 0, 0, 1, 1, 1, 2, 2]),
    (2, 4, [0, 0, 1, 1]),
    (1, 4, [0, 0, 0, 0]),
    (15, 16, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
])
def test_repeated_indices(total_frames, clip_len, expected):
    assert repeated_indices(total_frames, clip_len).tolist() == expected


@pytest.mark.parametrize("choose", [segment_indices, uniform_indices])
@pytest.mark.parametrize("total_frames", [1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 300])
@pytest.mark.parametrize("clip_len, num_clips", [(1, 1), (8, 3), (16, 5)])
def test_every_video_gives_valid_clips_in_order_of_time(choose, total_frames, clip_len, num_clips):
    indices = choose(total_frames, clip_len, num_clips, np.random.RandomState(0))
    assert indices.shape == (num_clips, clip_len)
    assert indices.dtype == np.int64
    assert indices.min() >= 0 and indices.max() < total_frames
    assert (np.diff(indices, axis=1) >= 0).all()


@pytest.mark.parametrize("choose", [segment_indices, uniform_indices])
def test_each_clip_has_a_draw_of_its_own(choose):
    first, second = choose(300, 8, 2, np.random.RandomState(0))
    assert first.tolist() != second.tolist()


def test_defect_3_frames_past_the_last_whole_interval_are_seen():
    # The guide never sees the last 15 of 31 frames; uniform_indices does. segment_indices keeps the guide's rule.
    rng = np.random.RandomState(0)
    seen_by_segment = {int(i) for _ in range(200) for i in segment_indices(31, 16, 1, rng)[0]}
    seen_by_uniform = {int(i) for _ in range(200) for i in uniform_indices(31, 16, 1, rng)[0]}
    assert seen_by_segment == set(range(16))
    assert seen_by_uniform == set(range(31))


@pytest.mark.parametrize("choose", [segment_indices, uniform_indices])
@pytest.mark.parametrize("name", ["total_frames", "clip_len", "num_clips"])
def test_a_count_below_one_is_an_error(choose, name):
    counts = {"total_frames": 10, "clip_len": 4, "num_clips": 1, name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        choose(**counts, rng=np.random.RandomState(0))
