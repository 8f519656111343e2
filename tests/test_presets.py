"""The recipes of a run."""

import numpy as np
import pytest
import torch

from tinyaction.presets import eval_pipeline, short_side_pixels, train_pipeline


@pytest.mark.parametrize("size, expected", [(224, 256), (112, 128), (64, 73), (56, 64), (1, 1)])
def test_short_side_is_256_for_a_crop_of_224(size, expected):
    assert short_side_pixels(size) == expected


@pytest.mark.parametrize("pipeline", [train_pipeline, eval_pipeline])
def test_a_recipe_gives_the_clips_asked_for(pipeline, telling_clip):
    packed = pipeline(clip_len=4, size=24, num_clips=2)({"filename": telling_clip(), "label": 1})
    assert packed["inputs"].shape == (2, 3, 4, 24, 24) and packed["inputs"].dtype == torch.uint8
    assert packed["data_samples"].label.tolist() == [1]


def test_evaluation_draws_nothing(telling_clip):
    path, pipeline = telling_clip(), eval_pipeline(clip_len=4, size=24)
    state = np.random.get_state()[1].tolist()
    first = pipeline({"filename": path, "rng": np.random.RandomState(0)})["inputs"]
    second = pipeline({"filename": path, "rng": np.random.RandomState(1)})["inputs"]
    by_hand = pipeline({"filename": path})["inputs"]
    assert first.equal(second) and first.equal(by_hand)
    assert np.random.get_state()[1].tolist() == state


def test_training_draws_frames_box_and_flip_from_the_items_generator(telling_clip):
    path, pipeline = telling_clip(height=64, width=64), train_pipeline(clip_len=4, size=24)
    state = np.random.get_state()[1].tolist()
    clips = [pipeline({"filename": path, "rng": np.random.RandomState(seed)})["inputs"] for seed in range(8)]
    again = pipeline({"filename": path, "rng": np.random.RandomState(3)})["inputs"]
    assert again.equal(clips[3])
    frames = {tuple(clip[0, 0, :, 0, 0].tolist()) for clip in clips}  # the red of a pixel says which frame it is of,
    tops = {int(clip[0, 1, 0, 0, 12]) for clip in clips}  # the green which row,
    mirrored = {bool(clip[0, 2, 0, 12, 0] > clip[0, 2, 0, 12, -1]) for clip in clips}  # the blue which column
    assert len(frames) > 4 and len(tops) > 4 and mirrored == {False, True}
    assert np.random.get_state()[1].tolist() == state


def test_no_flip_where_left_and_right_tell_classes_apart(telling_clip):
    path, pipeline = telling_clip(height=64, width=64), train_pipeline(clip_len=1, size=24, flip_ratio=0)
    for seed in range(8):
        clip = pipeline({"filename": path, "rng": np.random.RandomState(seed)})["inputs"]
        assert clip[0, 2, 0, 12, 0] < clip[0, 2, 0, 12, -1]
