"""Cross-validation of videos with several labels: each tested once, thresholds of all, no class without a positive."""

import csv
import json

import numpy as np
import pytest
from toys import LIGHTS, write_lights

import tinyaction as ta
from tinyaction.cli.train import main
from tinyaction.results.multilabel import best_thresholds, mean_average_precision, mean_f1
from tinyaction.results.run import read_run
from tinyaction.training.config import RunConfig
from tinyaction.training.folds import divide


@pytest.fixture(scope="module")
def lights(tmp_path_factory):
    """21 clips in 7 groups; one in seven has none of the labels, and three have wrong ones."""
    folder = write_lights(tmp_path_factory.mktemp("lights"))
    lines = (folder / "list.csv").read_text().splitlines()[1:]
    labels = ["" if ",blue," in line else line.split(",")[1] for line in lines]
    labels[2], labels[8], labels[16] = "green", "blue", "red"          # wrong ones, so that not all is easy
    rows = [f"{number}.mp4,{label},{line.split(',')[2]},{number // 3}"
            for number, (label, line) in enumerate(zip(labels, lines, strict=True))]
    (folder / "list.csv").write_text("path,label,split,group\n" + "\n".join(rows) + "\n")
    return folder


def flags(lights, out, **more) -> RunConfig:
    return RunConfig(str(lights), **{"model": "conv2d", "clip_len": 2, "size": 16, "num_workers": 0, "device": "cpu",
                                     "method": "probe", "pooling": "mean", "folds": 3, "out": str(out), **more})


@pytest.fixture(scope="module")
def final(lights, tmp_path_factory) -> tuple[ta.RunResult, list[str]]:
    lines: list[str] = []
    config = flags(lights, tmp_path_factory.mktemp("runs") / "run", final=True)
    return ta.train(config, on_line=lines.append), lines


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_each_video_is_tested_once_and_the_figures_are_of_those_tests(final, lights):
    result, lines = final
    assert not any("accuracy" in line for line in lines)               # of several labels there is none
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the extra 'test'")
    rows, folds = rows_of(result.path / "predictions.csv"), rows_of(result.path / "folds.csv")
    true = {f"{lights}/{row['path']}": set(filter(None, row["label"].split(";")))
            for row in rows_of(lights / "list.csv")}
    assert {row["path"]: set(filter(None, row["class"].split(";"))) for row in rows} == true and len(rows) == 21
    labels = np.array([[name in row["class"].split(";") for name in LIGHTS] for row in rows])
    scores = np.array([[float(row[f"score_{name}"]) for name in LIGHTS] for row in rows])
    fold_of = np.array([int(row["fold"]) for row in rows])
    assert result.accuracy == pytest.approx(metrics.average_precision_score(labels, scores), abs=1e-9)
    own = [mean_average_precision(scores[fold_of == number], labels[fold_of == number]) for number in (1, 2, 3)]
    assert [float(row["map"]) for row in folds] == pytest.approx(own)
    assert [int(row["videos"]) + int(row["train_videos"]) for row in folds] == [21] * 3
    thresholds = best_thresholds(scores, labels)
    assert result.evaluation.thresholds == pytest.approx(thresholds, abs=1e-5)
    assert [float(row["f1"]) for row in folds] == pytest.approx(
        [mean_f1(scores[fold_of == number] >= thresholds, labels[fold_of == number]) for number in (1, 2, 3)])
    summary = json.loads((result.path / "config.json").read_text())["cross_validation"]
    assert (summary["mAP"], summary["mean"]) == pytest.approx((result.accuracy, np.mean(own)))
    assert summary["std"] == pytest.approx(np.std(own, ddof=1))
    assert summary["low"] <= result.accuracy <= summary["high"]
    assert any(line.startswith(f"3 folds: mean mAP {np.mean(own):.4f}, standard deviation") for line in lines)
    assert any(line.startswith(f"fold 1/3: mAP {own[0]:.4f} over {folds[0]['videos']} videos of ") for line in lines)


def test_the_final_model_has_the_thresholds_of_the_videos_that_were_held_out(final, lights):
    result, _ = final
    checkpoint = ta.Checkpoint.load(result.checkpoint)
    assert checkpoint.thresholds == result.evaluation.thresholds.tolist()
    assert checkpoint.metrics["val_map"] == result.accuracy
    prediction = ta.Predictor(result.checkpoint, device="cpu")(lights / "6.mp4")
    assert {name for name, _ in prediction.predicted()} == {
        name for name, score, least in zip(LIGHTS, prediction.scores, checkpoint.thresholds, strict=True)
        if score >= least}
    page = (result.path / "report.html").read_text(encoding="utf-8")
    assert "mean mAP of 3 folds" in page and "as they were held out. best.pt holds" in page
    assert read_run(result.path).folds[0]["map"]


def test_a_video_is_predicted_by_what_was_trained_without_it_and_its_group(lights, tmp_path):
    result = ta.train(flags(lights, tmp_path / "folds", shortcuts="none"))
    assert not (result.path / "best.pt").exists()
    page = (result.path / "report.html").read_text(encoding="utf-8")
    assert "as they were held out.</p>" in page
    rows = rows_of(lights / "list.csv")
    group_of = {f"{lights}/{row['path']}": row["group"] for row in rows}
    held_out = [row["path"] for row in rows_of(result.path / "predictions.csv") if row["fold"] == "1"]
    groups = {group_of[path] for path in held_out}
    assert all((group in groups) == (path in held_out) for path, group in group_of.items())
    (tmp_path / "list.csv").write_text("path,label,split,group\n" + "".join(
        f"{path},{row['label']},{'val' if path in held_out else 'train'},{row['group']}\n"
        for row, path in zip(rows, group_of, strict=True)))
    alone = ta.train(flags(tmp_path / "list.csv", tmp_path / "alone", folds=0, allow_outside=True))
    scores = dict(zip(alone.evaluation.filenames, alone.evaluation.scores, strict=True))
    for name, own in zip(result.evaluation.filenames, result.evaluation.scores, strict=True):
        if name in scores:
            np.testing.assert_allclose(scores[name], own, atol=1e-6)
    assert len(scores) == len(held_out)


def test_fine_tuning_goes_in_folds_too(lights, tmp_path):
    result = ta.train(flags(lights, tmp_path / "run", method="finetune", folds=2, final=True, epochs=1))
    folds = rows_of(result.path / "folds.csv")
    assert [float(row["map"]) for row in folds] == pytest.approx(
        [read_run(result.path / f"fold-{number}").history[-1]["val_map"] for number in (1, 2)])
    assert ta.Checkpoint.load(result.checkpoint).thresholds == result.evaluation.thresholds.tolist()


def videos_of(rows, groups=None):
    videos = ta.VideoList([f"{index}.mp4" for index in range(len(rows))],
                          [labels[0] if labels else -1 for labels in rows], groups=groups)
    videos.label_sets = np.array([[k in labels for k in range(3)] for labels in rows], np.uint8)
    return videos


@pytest.mark.parametrize("seed", range(4))
def test_every_class_keeps_a_positive_in_training_and_is_spread_evenly(seed):
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(row).tolist() for row in rng.random((60, 3)) < [0.6, 0.25, 0.12]]
    rows[:4] = [[2]] * 4
    videos = videos_of(rows)
    parts = divide(videos, list(LIGHTS), 4)
    assert sorted(place for _, held_out in parts for place in held_out) == list(range(60))
    for train, held_out in parts:
        assert set(train).isdisjoint(held_out) and videos.label_sets[train].any(axis=0).all()
    counts = np.array([videos.label_sets[held_out].sum(axis=0) for _, held_out in parts])
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 2
    assert parts == divide(videos, list(LIGHTS), 4)


@pytest.mark.parametrize(("rows", "groups", "message"), [
    ([[0, 1], [0], [0, 1], [0, 2], [1, 2]], None, "--folds is 3, but class 'red' has 2 videos; take --folds 2, or"),
    ([[0, 1], [0], [0, 1], [0, 2], [1]], None, "class 'red' has 1 video only, which cannot be held out and trained"),
    ([[0, 1, 2], [0, 2], [0, 1], [1, 2]], ["a", "b", "a", "b"], "class 'blue' has 2 groups; take --folds 2"),
])
def test_too_few_positives_are_one_sentence(rows, groups, message):
    with pytest.raises(ValueError, match=message):
        divide(videos_of(rows, groups), list(LIGHTS), 3)


def test_the_command_says_so_and_leaves_no_folder(lights, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--data", str(lights), "--method", "probe", "--folds", "8"]) == 2
    error = capsys.readouterr().err
    assert "--folds is 8, but class 'blue' has " in error and error.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))


def test_folds_of_one_name_a_row_are_of_several_labels_where_the_flag_says_so(lights, tmp_path):
    rows = rows_of(lights / "list.csv")
    (tmp_path / "list.csv").write_text("path,label,split\n" + "".join(
        f"{lights}/{row['path']},{row['label'].split(';')[0]},{row['split']}\n" for row in rows))
    result = ta.train(flags(tmp_path, tmp_path / "run", multi_label=True, allow_outside=True, folds=2))
    assert result.evaluation.is_multi_label and len(result.evaluation.labels) == 21
