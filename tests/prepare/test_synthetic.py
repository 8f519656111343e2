"""Generated sets: whole, repeatable, and with nothing that tells the classes apart but what should."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

import tinyaction.prepare.download as download
import tinyaction.prepare.synthetic as synthetic
from tinyaction.data.sampling import uniform_indices
from tinyaction.prepare.download import prepare_kinetics400_tiny
from tinyaction.prepare.synthetic import (
    direction_clip,
    is_stand_in,
    make_direction_set,
    make_stand_in,
    stand_in_clip,
)
from tinyaction.video import open_video


@pytest.fixture(scope="module")
def direction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "direction"
    make_direction_set(folder, num_train=4, num_val=2)
    return folder


def read_set(folder: Path, split: str) -> list[tuple[Path, int]]:
    lines = (folder / f"kinetics_tiny_{split}_video.txt").read_text().splitlines()
    return [(folder / split / line.rsplit(" ", 1)[0], int(line.rsplit(" ", 1)[1])) for line in lines]


def read_all(path: Path) -> np.ndarray:
    video = open_video(path)
    return video.get_batch(range(len(video)))


def read_with_opencv(path: Path) -> np.ndarray:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        decoded, frame = capture.read()
        if not decoded:
            return np.stack(frames)
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


# ---- the stand-in ---------------------------------------------------------------------------------------------------


def test_the_stand_in_has_the_tutorials_layout(stand_in):
    assert sorted(path.name for path in stand_in.iterdir()) == [
        "README.txt", "classes.txt", "kinetics_tiny_train_video.txt", "kinetics_tiny_val_video.txt", "train", "val",
    ]
    for split, num_of_each in (("train", 15), ("val", 5)):
        videos = read_set(stand_in, split)
        assert Counter(label for _, label in videos) == {0: num_of_each, 1: num_of_each}
        assert {path for path, _ in videos} == set((stand_in / split).iterdir())
    assert read_set(stand_in, "train")[0] == (stand_in / "train" / "D32_1gwq35E.mp4", 0)  # the guide's example
    assert (stand_in / "classes.txt").read_text() == "horizontal stripes\nvertical stripes\n"


def test_the_stand_in_says_what_it_is(stand_in, direction, tmp_path):
    assert (stand_in / "README.txt").read_text().startswith("GENERATED CLIPS, NOT KINETICS")
    assert is_stand_in(stand_in)
    assert not is_stand_in(direction)
    assert not is_stand_in(tmp_path)
    assert not is_stand_in(tmp_path / "missing")


def test_prepare_knows_the_stand_in_by_its_own_files(stand_in, tmp_path):
    """All that it writes counts as its own, so that force may replace it; here it cannot, and it stays."""
    assert download.make_stand_in is make_stand_in
    missing = (tmp_path / "missing.zip").as_uri()
    assert prepare_kinetics400_tiny(stand_in, url=missing) == "present"
    with pytest.raises(OSError, match=r"missing\.zip"):
        prepare_kinetics400_tiny(stand_in, force=True, url=missing)
    assert len(list(stand_in.rglob("*.mp4"))) == 40


def test_the_stand_ins_clips_vary_and_its_classes_are_stripes(stand_in):
    """Lying stripes change from row to row, standing ones from column to column; the mean colour is the same."""
    sizes, rates, lengths = set(), set(), set()
    for split in ("train", "val"):
        videos = read_set(stand_in, split)
        for (lying, label_0), (standing, label_1) in zip(videos[::2], videos[1::2], strict=True):
            assert (label_0, label_1) == (0, 1)
            means, excess = [], []
            for path in (lying, standing):
                video = open_video(path)
                picked = video.get_batch([0, len(video) // 2]).astype(np.float32)  # (2, H, W, 3)
                means.append(picked.mean((0, 1, 2)))
                down, across = (np.abs(np.diff(picked, axis=axis)).sum() for axis in (1, 2))
                excess.append(across - down)
                lengths.add(len(video))
                rates.add(round(video.fps))
                sizes.add(picked.shape[2:0:-1])
            assert excess[0] < 0 < excess[1]
            np.testing.assert_allclose(means[0], means[1], atol=1.5)
    assert sizes == set(synthetic.STAND_IN_SIZES)
    assert rates == {10, 15, 24, 25, 30}
    assert 40 <= min(lengths) < 50 and 110 < max(lengths) <= 120 and len(lengths) > 10


def test_twins_differ_in_the_stripes_only():
    lying, standing = ((fps, np.stack(list(frames))) for fps, frames in (
        stand_in_clip((0, 0, 3), vertical=False), stand_in_clip((0, 0, 3), vertical=True)))
    assert lying[0] == standing[0] and lying[1].shape == standing[1].shape
    differs = (lying[1] != standing[1]).any(-1).mean()  # share of the pixels
    assert 0.01 < differs < 0.3
    np.testing.assert_allclose(lying[1].mean((1, 2)), standing[1].mean((1, 2)), atol=1)  # frame by frame


def test_colour_and_place_do_not_tell_the_twins_apart():
    """The best a straight line can do on the mean colours of all four quarters, fitted on other scenes, is a coin."""
    features = []
    for scene in range(40):
        for vertical in (False, True):
            _, frames = stand_in_clip((0, 0, scene), vertical=vertical)
            frame = next(frames)
            features.append(cv2.resize(frame, (2, 2), interpolation=cv2.INTER_AREA).ravel() / 255)
    x = np.column_stack([np.array(features), np.ones(80)])  # (80, 13)
    y = np.tile([-1.0, 1.0], 40)
    weights = np.linalg.lstsq(x[:60], y[:60], rcond=None)[0]
    assert abs((np.sign(x[60:] @ weights) == y[60:]).mean() - 0.5) <= 0.2


def test_the_same_seed_gives_the_same_clips():
    def first_frames(seed: int) -> np.ndarray:
        _, frames = stand_in_clip((seed, 0, 0), vertical=True)
        return np.stack([next(frames) for _ in range(3)])

    np.testing.assert_array_equal(first_frames(5), first_frames(5))
    assert first_frames(5).shape != first_frames(6).shape or (first_frames(5) != first_frames(6)).any()


def test_random_state_of_others_is_left_alone(tmp_path):
    np.random.seed(3)
    expected = np.random.RandomState(3).random_sample(2)
    first = np.random.random_sample()
    make_direction_set(tmp_path / "direction", num_train=2, num_val=2)
    assert (first, np.random.random_sample()) == tuple(expected)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_set_that_was_not_finished_leaves_nothing(tmp_path, monkeypatch, error):
    def fail_on_the_third(path: Path, *args: object, **kwargs: object) -> None:
        if len(list(path.parent.iterdir())) == 2:
            raise error
        path.touch()

    monkeypatch.setattr(synthetic, "write_video", fail_on_the_third)
    with pytest.raises(type(error)):
        make_stand_in(tmp_path / "data" / "kinetics400_tiny")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for make in (make_stand_in, make_direction_set):
        with pytest.raises(FileExistsError, match="is there already"):
            make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_and_a_link_to_one_are_filled(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    counts = []
    make_direction_set(tmp_path / "link", num_train=2, num_val=2, on_progress=lambda *count: counts.append(count))
    assert counts == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(read_set(tmp_path / "disk", "train")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link"]


# ---- direction ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_all, read_with_opencv])
def test_twins_are_each_other_played_backwards_to_the_bit(direction, read):
    for split, num_clips in (("train", 4), ("val", 2)):
        videos = read_set(direction, split)
        assert [label for _, label in videos] == [0, 1] * (num_clips // 2)
        for (right, _), (left, _) in zip(videos[::2], videos[1::2], strict=True):
            np.testing.assert_array_equal(read(right), read(left)[::-1])
    assert (direction / "classes.txt").read_text() == "right\nleft\n"


def test_direction_is_what_the_class_says(direction):
    for path, label in read_set(direction, "train"):
        frames = read_all(path).astype(float)  # (33, 80, 80, 3)
        background = np.median(frames, axis=0)
        weights = np.abs(frames - background).sum((1, 3))  # (33, 80): how much of the shape is in each column
        centres = (weights * np.arange(80)).sum(1) / weights.sum(1)
        assert (centres[-1] - centres[0] > 15) == (label == 0)
        assert (centres[-1] - centres[0] < -15) == (label == 1)


@pytest.mark.parametrize("clip_len", [1, 2, 4, 8, 16])
def test_twins_agree_in_the_set_of_their_sampled_frames(clip_len):
    (indices,) = uniform_indices(synthetic.DIRECTION_NUM_FRAMES, clip_len, 1, None)
    backwards = synthetic.DIRECTION_NUM_FRAMES - 1 - indices
    assert sorted(backwards.tolist()) == indices.tolist()


def test_direction_repeats_with_its_seed_and_scenes_differ():
    np.testing.assert_array_equal(direction_clip((0, 0, 1)), direction_clip((0, 0, 1)))
    clips = [np.stack(direction_clip(seed)) for seed in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))]
    assert all((a != b).any() for i, a in enumerate(clips) for b in clips[:i])


@pytest.mark.parametrize("counts", [{"num_train": 3}, {"num_val": 0}, {"num_train": -2}])
def test_direction_takes_even_counts(tmp_path, counts):
    ((name, value),) = counts.items()
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be even"):
        make_direction_set(tmp_path / "direction", **counts)
    assert list(tmp_path.iterdir()) == []
