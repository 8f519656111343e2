"""The recipes of a run."""

import numpy as np
import pytest
import torch

from tinyaction.data.pipelines import eval_pipeline, short_side_pixels, train_pipeline


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


# ---- protocols and augmentations -----------------------------------------------------------------------------------


def test_several_crops_are_views(telling_clip):
    """Of a clip of 32 x 48: three squares of 24 along the 36 columns of the resized picture."""
    path = telling_clip(height=32, width=48)
    for num_crops, num_views in ((1, 2), (3, 6), (10, 20)):
        packed = eval_pipeline(clip_len=4, size=24, num_clips=2, num_crops=num_crops)({"filename": path})
        assert packed["inputs"].shape == (num_views, 3, 4, 24, 24)
    three = eval_pipeline(clip_len=1, size=32, num_crops=3)({"filename": path})["inputs"]
    assert three[:, 2, 0, 0, 0].tolist() == [0, 16, 8]  # the blue says which column: both ends first
    with pytest.raises(ValueError, match="num_crops is 5; it must be one of 1, 3, 10"):
        eval_pipeline(clip_len=1, size=32, num_crops=5)


def drawn(path, seed=0, **arguments) -> torch.Tensor:
    pipeline = train_pipeline(clip_len=4, size=24, **arguments)
    return pipeline({"filename": path, "label": 0, "rng": np.random.RandomState(seed)})["inputs"]


def test_augment_none_draws_frames_only(telling_clip):
    path = telling_clip(height=28, width=28)
    clips = [drawn(path, seed, augment="none") for seed in range(8)]
    for clip in clips:
        assert clip[0, 1:].equal(clips[0][0, 1:])  # green and blue say which row and column a pixel is of
    assert len({tuple(clip[0, 0, :, 0, 0].tolist()) for clip in clips}) > 4


@pytest.mark.parametrize("augment", ["randaugment", "color"])
def test_further_augmentations_change_colours_and_repeat_with_the_generator(telling_clip, augment):
    path = telling_clip(height=64, width=64)
    basic = [drawn(path, seed) for seed in range(6)]
    more = [drawn(path, seed, augment=augment) for seed in range(6)]
    assert sum(not a.equal(b) for a, b in zip(basic, more, strict=True)) >= 4
    assert all(clip.equal(drawn(path, seed, augment=augment)) for seed, clip in enumerate(more))


def test_multiscale_boxes_lie_in_corners_and_the_centre(telling_clip):
    """Scale 1 of a square picture is the whole of it: with the box of other recipes that is a rare chance."""
    path = telling_clip(height=28, width=28)
    boxes = {(int(clip[0, 1, 0, 0, 0]), int(clip[0, 2, 0, 0, 0])) for seed in range(60)
             for clip in [drawn(path, seed, crop="multiscale", flip_ratio=0)]}
    assert (0, 0) in boxes and 5 < len(boxes) < 40


def test_a_mirrored_video_takes_its_partners_label(telling_clip):
    path = telling_clip(height=64, width=64)
    pipeline = train_pipeline(clip_len=1, size=24, flip_labels={0: 1, 1: 0})
    for seed in range(8):
        packed = pipeline({"filename": path, "label": 1, "rng": np.random.RandomState(seed)})
        is_mirrored = bool(packed["inputs"][0, 2, 0, 12, 0] > packed["inputs"][0, 2, 0, 12, -1])
        assert packed["data_samples"].label.item() == (0 if is_mirrored else 1)


@pytest.mark.parametrize("arguments", [{"augment": "colour"}, {"crop": "big"}])
def test_an_unknown_augmentation_is_named(arguments):
    with pytest.raises(ValueError, match="it must be one of"):
        train_pipeline(clip_len=1, size=24, **arguments)
