"""A run of a probe: an ordinary run folder, whose recognizer says of the videos what it said of their features."""

import csv
import json

import numpy as np
import pytest
from toys import write_set

import tinyaction as ta
from tinyaction.cli.evaluate import main as evaluate
from tinyaction.cli.train import main
from tinyaction.results.neighbors import read_neighbors
from tinyaction.results.run import read_run
from tinyaction.training.build import build_datasets
from tinyaction.training.config import RunConfig
from tinyaction.training.probe_run import is_mirroring


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("bars") / "bars", num_train=6, num_val=3)


def config(folder, out, **flags) -> RunConfig:
    return RunConfig(str(folder), method="probe", clip_len=4, size=32, num_workers=0, device="cpu", out=str(out),
                     **flags)


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory) -> ta.RunResult:
    return ta.train(config(folder, tmp_path_factory.mktemp("runs") / "run", pooling="stats"))


def test_the_recognizer_says_of_videos_what_it_said_of_features(result, folder, capsys):
    """To the rounding of float16 in the cache."""
    with open(result.path / "predictions.csv", newline="") as file:
        written = list(csv.DictReader(file))
    predictor = ta.Predictor(result.checkpoint, device="cpu")
    assert len(written) == 3
    for row, scores in zip(written, result.evaluation.scores, strict=True):
        prediction = predictor(row["path"])
        np.testing.assert_allclose(prediction.scores, scores, atol=5e-3)
        assert prediction.label == row["predicted"]
    arguments = ["--data", str(folder), "--checkpoint", str(result.path), "--num-workers", "0", "--device", "cpu"]
    assert evaluate(arguments) == 0
    assert f"accuracy {result.accuracy:.4f} over 3 videos" in capsys.readouterr().out


def test_the_run_folder_is_an_ordinary_one(result, folder):
    run = read_run(result.path)
    assert len(run.history) == 1 and run.best["val_top1"] == result.accuracy
    assert {"best.pt", "config.json", "log.txt", "metrics.csv", "predictions.csv", "report.html"} <= {
        path.name for path in result.path.iterdir()}
    assert run.config["probe"]["num_folds"] == 3 and run.config["probe"]["pooling"].startswith("stats")
    page = (result.path / "report.html").read_text()
    assert "best epoch" not in page and "3-fold cross-validation" in page
    checkpoint = ta.Checkpoint.load(result.checkpoint)
    assert checkpoint.eval_pipeline == {"clip_len": 4, "size": 32, "num_clips": 2}
    again = RunConfig(**{**checkpoint.config, "out": ""})
    assert repr(build_datasets(again, ta.find_data(folder))[0].pipeline) == repr(ta.eval_pipeline(
        **checkpoint.eval_pipeline))


def test_the_nearest_training_clips_of_each_validation_video(result, folder):
    """Those that the checkpoint finds."""
    written = read_neighbors(result.path / "neighbors.csv")
    library = ta.ClipLibrary.build(result.checkpoint, device="cpu")
    for name, found in written.items():
        again = library.nearest(name, num=3)[0]
        assert [one.filename for one in found] == [one.filename for one in again]
        assert [one.similarity for one in found] == pytest.approx([one.similarity for one in again], abs=1e-3)
    assert len(written) == 3


def test_a_second_run_computes_nothing_and_says_the_same(result, folder, tmp_path):
    lines = []
    again = ta.train(config(folder, tmp_path / "again", pooling="stats"), on_line=lines.append)
    assert np.array_equal(again.evaluation.scores, result.evaluation.scores)
    assert any(line.startswith("features of 9 videos in") and ", 0 of them computed now" in line for line in lines)
    assert any("no --weights" in line for line in lines)


def test_mirroring_follows_the_flags_of_flipping(folder):
    assert is_mirroring(config(folder, ""))
    assert not is_mirroring(config(folder, "", flip=0.0))
    assert not is_mirroring(config(folder, "", flip_pairs="horizontal=vertical"))
    assert not is_mirroring(config(folder, "", augment="none"))


def test_a_run_that_fails_leaves_no_folder(folder, tmp_path):
    broken = write_set(tmp_path / "broken", num_train=3, num_val=1)
    next((broken / "train").glob("*.mp4")).write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"clip \d\.mp4"):
        ta.train(config(broken, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("flags", "message"), [
    ("--pooling max", "--pooling is 'max'; it must be auto, mean, stats or order"),
    ("--probe-views 0", "--probe-views is 0; it must be at least 1"),
    ("--method knn", "--method is 'knn'; it must be finetune, probe or probe-then-finetune"),
    ("--method probe --num-clips 3", "--num-clips goes with --method finetune and not with --method probe; the views"),
    ("--method probe --mixup 0.2", "--mixup goes with --method finetune and not with --method probe; leave it out"),
])
def test_flags_that_cannot_be_are_one_sentence(flags, message, folder, capsys):
    assert main(["--data", str(folder), *flags.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.strip().splitlines()) == 1


def test_the_flags_of_a_run_are_read_again(result):
    content = json.loads((result.path / "config.json").read_text())
    assert content["method"] == "probe"
    assert ta.Checkpoint.load(result.checkpoint).model["pooling"] == "stats"
