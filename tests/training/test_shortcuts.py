"""What simpler models get: each knows what it is said to know, and every run writes it down."""

import shlex

import numpy as np
import pytest
import torch
from toys import bar_frames, write_set

from tinyaction.cli.train import main, parse_args
from tinyaction.data.annotations import find_data
from tinyaction.data.lists import VideoList
from tinyaction.results.run import read_run
from tinyaction.results.shortcuts import shortcut_sentences
from tinyaction.training.config import RunConfig
from tinyaction.training.outcome import command_of
from tinyaction.training.probe import ProbeData, choose_and_fit, poolings_of
from tinyaction.training.shortcuts import chosen_clips, majority, mean_still, of_lists, of_probe, shuffled, still
from tinyaction.video.writer import write_video


@pytest.mark.parametrize(("num_clips", "extent", "num_chosen"), [
    (499, "quick", 0), (500, "quick", 20), (10_000, "quick", 400), (10, "all", 10), (5000, "all", 1000),
    (5000, "none", 0),
])
def test_quick_is_a_small_share_or_nothing(num_clips, extent, num_chosen):
    chosen = chosen_clips(num_clips, extent)
    assert len(set(chosen)) == num_chosen and (not chosen or (chosen[0], chosen[-1]) == (0, num_clips - 1))


def test_changed_frames_are_what_they_are_called():
    frames = torch.arange(3 * 6).reshape(3, 1, 6).to(torch.uint8)      # (N, 1, T), each frame its own number
    mixed = shuffled(frames, 2, np.random.default_rng(0))
    assert torch.equal(mixed.sort(dim=2).values, frames)
    assert len({tuple((clip - clip.min()).flatten().tolist()) for clip in mixed}) == 3  # each clip in its own order
    assert still(frames, 2)[1].flatten().tolist() == [9] * 6           # frame 3 of 6, 7, 8, 9, 10, 11
    assert mean_still(frames, 2)[0].flatten().tolist() == [2] * 6      # 2.5, to the even number


def test_the_majority_class_is_that_of_training():
    one = majority(np.array([1, 1, 1, 0]), np.array([0, 0, 1]))
    assert (one.num_right, one.num_clips) == (1, 4)
    assert majority(np.array([1, 0]), np.array([1, 0])).num_right == 1


def test_orientation_gives_the_tutorial_like_set_away(shared):
    data = find_data(shared / "clips" / "kinetics400_tiny")
    found = of_lists(data.train, data.val, extent="quick")
    assert [one.name for one in found] == ["the most frequent class", "orientation", "what the file says"]
    assert found[1].accuracy >= 0.9
    assert shortcut_sentences(found)[0].startswith("orientation alone gives ")


def test_files_that_cannot_be_read_are_left_out(tmp_path):
    write_set(tmp_path / "data", num_train=4, num_val=4)
    data = find_data(tmp_path / "data")
    names = [data.train[index][0] for index in range(4)]
    broken = VideoList([*names, str(tmp_path / "none.mp4")], [0, 1, 0, 1, 1])
    assert [one.num_clips for one in of_lists(broken, broken)] == [5, 4, 4]
    nothing = VideoList([str(tmp_path / "none.mp4")] * 2, [0, 1])
    assert [one.name for one in of_lists(nothing, nothing)] == ["the most frequent class"]


def rising(num_clips, *, seed):
    """Features (N, 1, 8, 3, 2, 2) that rise (class 1) or fall (class 0) over time by the same values."""
    labels = torch.arange(num_clips) % 2
    noise = torch.randn((num_clips, 1, 8, 3, 2, 2), generator=torch.Generator().manual_seed(seed))
    time = torch.linspace(-3, 3, 8)[None, None, :, None, None, None]
    return ProbeData(noise * 0.1 + (2 * labels - 1)[:, None, None, None, None, None] * time, labels, 2)


def test_a_probe_of_order_needs_the_order():
    train, val = rising(40, seed=0), rising(40, seed=1)
    probe = choose_and_fit(train, poolings_of("order"))
    found = {one.name: one.accuracy for one in of_probe(probe, train, val)}
    assert found["all frames"] == 1 and found["frames reversed"] == 0
    assert 0.25 <= found["frames shuffled"] <= 0.75 and 0.25 <= found["the mean of the frames"] <= 0.75
    one_frame = ProbeData(train.features[:, :, :1], train.labels, 2)
    assert of_probe(probe, one_frame, one_frame) == []


@pytest.fixture(scope="module")
def upright(tmp_path_factory):
    """Class "a" lies and class "b" stands; their pictures are the same."""
    folder = tmp_path_factory.mktemp("upright") / "clips"
    for split, num_clips in (("train", 10), ("val", 14)):
        for number in range(num_clips):
            frames = list(bar_frames(number // 2 % 2, number))
            frames = [np.ascontiguousarray(frame[:, :48] if number % 2 else frame[:48]) for frame in frames]
            path = folder / split / "ab"[number % 2] / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, frames, fps=10)
    return folder


FLAGS = ["--epochs", "1", "--size", "16", "--clip-len", "2", "--num-workers", "0", "--device", "cpu"]


@pytest.mark.parametrize("more", [
    [], ["--method", "probe", "--pooling", "mean"], ["--method", "probe", "--folds", "2", "--pooling", "mean"],
    ["--shortcuts", "all"],
])
def test_every_run_is_flagged(upright, tmp_path, capsys, more):
    assert main(["--data", str(upright), "--model", "conv2d", *FLAGS, *more, "--out", str(tmp_path / "run")]) == 0
    assert "note: orientation alone gives 1.00 (most frequent class 0.50)" in capsys.readouterr().out
    run = read_run(tmp_path / "run")
    names = [one.name for one in run.shortcuts]
    assert ("frames shuffled" in names) == bool(more)
    if more:
        assert run.shortcuts[names.index("all frames")].num_right == sum(one.is_right for one in run.predictions)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Orientation alone gives 1.00" in page and "of always saying" in page
    assert ("is measured on demand: tinyaction evaluate" in page) == (not more)
    assert all(text in page for text in ("data fingerprint", run.config["data_fingerprint"], run.config["date"]))


def test_a_run_may_leave_them_out(upright, tmp_path):
    assert main(["--data", str(upright), "--model", "conv2d", *FLAGS, "--shortcuts", "none",
                 "--out", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "run" / "shortcuts.csv").exists()
    assert "simpler models" not in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("flags", [
    {}, {"model": "tsn-resnet18", "weights": "imagenet", "freeze_norms": False, "lr": 1e-3}, {"method": "probe"},
    {"tensorboard": True, "group_by": r"p(\d)_", "seed": 3, "method": "finetune"},
])
def test_the_command_of_a_run_makes_the_same_config(flags):
    config = RunConfig("some clips", **{"model": "conv2d", "num_workers": 0, **flags})
    words = shlex.split(command_of(config))
    assert words[:2] == ["tinyaction", "train"]
    assert parse_args([*words[2:], "--num-workers", "0"]) == config
