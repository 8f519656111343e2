"""Cross-validation: each video is tested once, by what was trained without it and without its group."""

import csv
import json

import numpy as np
import pytest
import torch
from toys import write_set

import tinyaction as ta
from tinyaction.cli.evaluate import main as evaluate
from tinyaction.cli.train import main
from tinyaction.results.metrics import wilson_interval
from tinyaction.results.run import read_run
from tinyaction.training.config import RunConfig
from tinyaction.training.folds import divide

NAMES = ["horizontal", "vertical"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("bars") / "bars", num_train=6, num_val=4)


def config(folder, out, **flags) -> RunConfig:
    flags = {"method": "probe", "pooling": "stats", **flags}
    return RunConfig(str(folder), clip_len=4, size=32, num_workers=0, device="cpu", out=str(out), **flags)


@pytest.fixture(scope="module")
def final(folder, tmp_path_factory) -> tuple[ta.RunResult, list[str]]:
    lines: list[str] = []
    out = tmp_path_factory.mktemp("runs") / "run"
    return ta.train(config(folder, out, folds=2, final=True), on_line=lines.append), lines


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_each_video_is_tested_once_and_the_figures_are_of_those_tests(final, folder):
    result, lines = final
    predictions, folds = rows_of(result.path / "predictions.csv"), rows_of(result.path / "folds.csv")
    data = ta.find_data(folder)
    everyone = [videos[index][0] for videos in (data.train, data.val) for index in range(len(videos))]
    assert sorted(row["path"] for row in predictions) == sorted(everyone)
    right = np.array([row["class"] == row["predicted"] for row in predictions])
    fold_of = np.array([int(row["fold"]) for row in predictions])
    accuracies = [right[fold_of == number].mean() for number in (1, 2)]
    assert [float(row["accuracy"]) for row in folds] == pytest.approx(accuracies)
    assert [(row["videos"], row["train_videos"]) for row in folds] == [("5", "5"), ("5", "5")]
    summary = json.loads((result.path / "config.json").read_text())["cross_validation"]
    low, high = wilson_interval(int(right.sum()), 10)
    assert summary == pytest.approx({"num_folds": 2, "accuracy": right.mean(), "mean": np.mean(accuracies),
                                     "std": np.std(accuracies, ddof=1), "low": low, "high": high})
    said = next(line for line in lines if line.startswith("2 folds: mean accuracy"))
    assert f"{np.mean(accuracies):.4f}, standard deviation {np.std(accuracies, ddof=1):.4f}; 95 %" in said
    for row in predictions:
        scores = [float(value) for name, value in row.items() if name.startswith("score_")]
        assert sum(scores) == pytest.approx(1, abs=1e-4) and max(scores) == float(row["score"])


def test_a_video_is_predicted_by_what_was_trained_without_it(folder, tmp_path):
    """A probe of the other fold alone gives the same scores."""
    result = ta.train(config(folder, tmp_path / "folds", folds=2))
    videos = ta.find_data(folder).merged().train
    train, held_out = divide(videos, NAMES, 2)[0]
    alone = ta.train(config(write_lists(tmp_path, videos, train, held_out), tmp_path / "alone"))
    np.testing.assert_allclose(alone.evaluation.scores, result.evaluation.scores[: len(held_out)], atol=1e-6)


def test_folds_are_those_of_the_videos_whatever_the_order_of_the_list(folder, tmp_path):
    videos = ta.find_data(folder).merged().train
    rows = [f"{videos[index][0]},{NAMES[videos.labels[index]]},{split}\n"
            for index, split in zip(range(len(videos)), ["train"] * 7 + ["val"] * 3, strict=True)]
    folds = []
    for number, order in enumerate((rows, rows[::-1], rows[5:] + rows[:5])):
        table = tmp_path / f"{number}.csv"
        table.write_text("path,label,split\n" + "".join(order))
        found = ta.find_data(table, allow_outside=True).merged().train
        folds.append([[found[index][0] for index in held_out] for _, held_out in divide(found, NAMES, 2)])
    assert folds[0] == folds[1] == folds[2] and set(folds[0][0]).isdisjoint(folds[0][1])


def write_lists(tmp_path, videos, train, held_out):
    (tmp_path / "data").mkdir()
    for index in range(len(videos)):
        path, _ = videos[index]
        (tmp_path / "data" / f"{index}.mp4").symlink_to(path)
    table = "".join(f"{index}.mp4,{int(videos.labels[index])},{split}\n"
                    for split, places in (("train", train), ("val", held_out)) for index in places)
    (tmp_path / "data" / "videos.csv").write_text("path,label,split\n" + table)
    return tmp_path / "data"


def test_the_final_model_is_trained_on_all_videos_and_says_whose_accuracy_stands_for_it(final, folder, capsys):
    result, lines = final
    checkpoint = ta.Checkpoint.load(result.checkpoint)
    assert checkpoint.metrics["val_top1"] == result.accuracy
    assert any("best.pt is trained on all videos, so none is left to test it" in line for line in lines)
    assert not any(line.startswith("evaluate:") for line in lines)
    assert ta.Predictor(result.checkpoint, device="cpu")(ta.find_data(folder).val[0][0]).scores
    arguments = ["--data", str(folder), "--checkpoint", str(result.path), "--num-workers", "0", "--device", "cpu"]
    assert evaluate(arguments) == 0
    assert "was trained on all videos of" in capsys.readouterr().out


def test_without_final_there_is_no_model_and_the_next_command_is_said(folder, tmp_path):
    lines: list[str] = []
    result = ta.train(config(folder, tmp_path / "run", folds=2), on_line=lines.append)
    assert not (result.path / "best.pt").exists()
    assert any(line.endswith(f"tinyaction train --config {result.path}/config.json --final") for line in lines)
    assert main(["--config", str(result.path / "config.json"), "--final", "--out", str(tmp_path / "again"),
                 "--num-workers", "0"]) == 0
    assert (tmp_path / "again" / "best.pt").exists()


def test_folds_of_fine_tuning_are_ordinary_runs_whose_last_epoch_counts(folder, tmp_path):
    result = ta.train(config(folder, tmp_path / "run", method="finetune", folds=2, final=True, epochs=2))
    for number in (1, 2):
        fold = read_run(tmp_path / "run" / f"fold-{number}")
        assert len(fold.history) == 2 and (fold.folder / "best.pt").exists()
        row = rows_of(result.path / "folds.csv")[number - 1]
        assert float(row["accuracy"]) == fold.history[-1]["val_top1"]
        assert float(row["loss"]) == pytest.approx(fold.history[-1]["val_loss"])
    checkpoint = ta.Checkpoint.load(result.checkpoint)
    assert checkpoint.epoch == 2 and checkpoint.metrics["val_top1"] == result.accuracy
    assert ta.Predictor(result.checkpoint, device="cpu")(ta.find_data(folder).val[0][0]).scores


def test_groups_are_held_out_whole_and_named(folder, tmp_path):
    """Clips 0 and 1 of the training list and of validation share their names."""
    lines: list[str] = []
    result = ta.train(config(folder, tmp_path / "run", folds=2, group_by=r"clip (\d)"), on_line=lines.append)
    groups = [row["groups"].split("; ") for row in rows_of(result.path / "folds.csv")]
    assert sorted(groups[0] + groups[1]) == ["0", "1", "2", "3", "4", "5"]
    for row in rows_of(result.path / "predictions.csv"):
        assert row["path"].split("clip ")[1][0] in groups[int(row["fold"]) - 1]
    assert any("in 6 groups" in line for line in lines)


def videos_of(labels, groups=None):
    return ta.VideoList([f"{index}.mp4" for index in range(len(labels))], labels, groups=groups)


@pytest.mark.parametrize(("labels", "groups", "words"), [
    ([0, 0, 0, 1, 1], None, r"--folds is 3, but class 'vertical' has 2 videos; take --folds 2, or add clips"),
    ([0, 0, 0, 1], None, r"class 'vertical' has 1 video only, which cannot be held out and trained on; add clips$"),
    ([0], None, r"class 'horizontal' has 1 video only, "),
    ([0, 0, 0, 1, 1, 1], ["a"] * 6, r"--folds is 3, but class 'horizontal' has 1 group only, .*other groups$"),
    ([0, 0, 0, 1, 1, 1], ["a", "b", "b", "a", "b", "a"], r"class 'horizontal' has 2 groups; take --folds 2"),
])
def test_too_few_clips_or_groups_are_one_sentence(labels, groups, words):
    with pytest.raises(ValueError, match=words):
        divide(videos_of(labels, groups), NAMES, 3)


def test_a_video_that_is_listed_twice_is_held_out_with_itself():
    videos = ta.VideoList(["a", "b", "c", "a", "d"], [0, 0, 1, 0, 1])
    for train, held_out in divide(videos, NAMES, 2):
        assert {videos[place][0] for place in train}.isdisjoint(videos[place][0] for place in held_out)


@pytest.mark.parametrize(("flags", "message"), [
    ("--folds 1", "--folds is 1; it must be at least 2"),
    ("--folds -1", "--folds is -1; it must be at least 0"),
    ("--final", "--final goes with --folds"),
    ("--folds 3 --resume x", "--folds begins a new run and --resume goes on with one"),
    ("--folds 3 --patience 2", "--patience does not go with --folds; it would choose the epoch on the videos"),
    ("--folds 9 --method probe", "--folds is 9, but class 'lying' has 5 videos; take --folds 5, or add clips"),
    ("--folds 2 --method probe --group-by (horizontal|vertical|val)", "finds no group in"),
])
def test_flags_that_cannot_be_are_one_sentence(flags, message, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--data", str(folder), *flags.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("runs/*"))


def test_a_config_cannot_resume_folds():
    with pytest.raises(ValueError, match="--resume does not go with --folds"):
        RunConfig("x", folds=2, resume="y")


def test_groups_of_one_list_only_are_one_sentence():
    with pytest.raises(ValueError, match=r"a\.csv has groups and b\.csv has none; give both a column 'group'"):
        ta.VideoList(["a"], [0], groups=["x"], source="a.csv").joined(ta.VideoList(["b"], [0], source="b.csv"))


def test_a_run_that_fails_leaves_no_folder(folder, tmp_path):
    broken = write_set(tmp_path / "broken", num_train=4, num_val=2)
    next((broken / "train").glob("*.mp4")).write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"clip \d\.mp4"):
        ta.train(config(broken, tmp_path / "run", folds=2))
    assert not (tmp_path / "run").exists()
    skipped = ta.train(config(broken, tmp_path / "run", folds=2, on_error="skip", max_skipped=0.5))
    assert len(skipped.evaluation.labels) == 5 and len(skipped.evaluation.bad) == 1
    assert (tmp_path / "run" / "bad_files.txt").exists()
    assert torch.tensor(skipped.evaluation.scores).isfinite().all()
