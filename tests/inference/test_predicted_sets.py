"""Sets of labels in predictions, evaluation, windows, live and exported files."""

import csv
import json

import numpy as np
import pytest
import torch
from toys import LIGHTS, write_lights

import tinyaction as ta
from tinyaction.cli.evaluate import main as evaluate
from tinyaction.cli.predict import main as predict
from tinyaction.inference.export import OPENERS, export_model, metadata_of, quiet_exporters
from tinyaction.inference.prediction import Prediction, Window
from tinyaction.inference.timeline import merge_windows
from tinyaction.models.create import create_model, model_arguments

THRESHOLDS = [0.3, 0.5, 0.9]


def predicted(scores, thresholds=THRESHOLDS):
    return Prediction("clip.mp4", list(LIGHTS), scores, thresholds=thresholds)


@pytest.fixture(scope="module")
def lights(tmp_path_factory):
    return write_lights(tmp_path_factory.mktemp("lights"), num_train=7, num_val=7)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Scores that differ from clip to clip: of each class a few clips reach the threshold."""
    torch.manual_seed(0)
    model = create_model("conv2d", 3, activation="sigmoid")
    torch.nn.init.normal_(model.cls_head.fc.weight, std=1)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    ta.Checkpoint(model_arguments("conv2d", model), model.state_dict(), list(LIGHTS),
                  {"clip_len": 2, "size": 16, "num_clips": 1}, thresholds=[0.5, 0.5, 0.5]).save(path)
    return path


# ---- a prediction --------------------------------------------------------------------------------------------------


def test_each_class_that_reaches_its_threshold_is_predicted():
    prediction = predicted([0.3, 0.49, 0.95])
    assert prediction.predicted() == [("red", 0.95), ("blue", 0.3)]
    assert prediction.label == "red;blue"
    assert prediction.score == 0.95
    assert predicted([0.2, 0.49, 0.89]).label == "(none)"
    assert predicted([0.3, 0.49, 0.95], thresholds=()).predicted() == [("red", 0.95)]


def test_the_table_has_a_star_at_each_predicted_class():
    lines = predicted([0.3, 0.49, 0.95]).table(1).splitlines()
    assert [line[:9] for line in lines] == ["clip.mp4", "*  0.950 ", "*  0.300 "]


def test_windows_with_one_set_become_one_segment():
    windows = [Window(start, start + 1, predicted(scores)) for start, scores in enumerate(
        ([0.4, 0.6, 0.1], [0.4, 0.8, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.1]))]
    segments = merge_windows(windows)
    assert [(segment.label, segment.score) for segment in segments] == [
        ("green;blue", pytest.approx(0.7)), ("green", 0.8), ("(none)", 0.1)]


# ---- commands ------------------------------------------------------------------------------------------------------


def test_evaluate_uses_the_thresholds_of_the_checkpoint(lights, checkpoint, capsys):
    assert evaluate(["--data", str(lights), "--checkpoint", str(checkpoint), "--device", "cpu",
                     "--num-workers", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("mAP "))
    assert " over 7 videos, mean F1 " in lines[first]
    rows = [line.split() for line in lines[first + 2 : first + 5]]
    assert [(row[0], row[1], row[-1]) for row in rows] == [(name, "4", "0.500") for name in LIGHTS]
    assert max(map(len, lines[first:])) <= 80


def test_lists_and_checkpoints_of_different_kinds_are_told(lights, checkpoint, tmp_path, capsys):
    torch.manual_seed(0)
    model = create_model("conv2d", 3)
    path = tmp_path / "single.pt"
    ta.Checkpoint(model_arguments("conv2d", model), model.state_dict(), list(LIGHTS),
                  {"clip_len": 2, "size": 16, "num_clips": 1}).save(path)
    assert evaluate(["--data", str(lights), "--checkpoint", str(path), "--device", "cpu", "--num-workers", "0"]) == 2
    assert "several labels, and the network was trained on one label a video" in capsys.readouterr().err


def test_one_label_a_video_is_a_set_for_a_network_of_several(checkpoint, lights, tmp_path, capsys):
    rows = [f"{lights / str(number)}.mp4,{name}" for number, name in enumerate(("blue", "green", "red"))]
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    assert evaluate(["--data", str(tmp_path), "--checkpoint", str(checkpoint), "--device", "cpu", "--allow-outside",
                     "--num-workers", "0"]) == 0
    assert "over 3 videos, mean F1" in capsys.readouterr().out


def test_predict_writes_sets(lights, checkpoint, tmp_path, capsys):
    arguments = ["--checkpoint", str(checkpoint), "--device", "cpu"]
    table, lines = tmp_path / "out.csv", tmp_path / "out.json"
    assert predict([str(lights), *arguments, "--csv", str(table), "--json", str(lines)]) == 0
    predictor = ta.Predictor(checkpoint, device="cpu")
    expected = {str(path): predictor(path) for path in lights.glob("*.mp4")}
    assert len({prediction.label for prediction in expected.values()}) > 1
    with open(table, newline="") as file:
        assert {row["source"]: row["class"] for row in csv.DictReader(file)} == {
            path: prediction.label for path, prediction in expected.items()}
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {row["source"]: row["classes"] for row in rows} == {
        path: [name for name, _ in prediction.predicted()] for path, prediction in expected.items()}
    for row in rows:
        assert row["classes"] == sorted((name for name in LIGHTS if row["scores"][name] >= 0.5),
                                        key=lambda name: -row["scores"][name])


def test_live_shows_sets(checkpoint):
    predictor = ta.Predictor(checkpoint, device="cpu")
    live = predictor.live(fps=10, window_seconds=0.2)
    frames = np.full((4, 32, 32, 3), 200, np.uint8)
    last = [live.push(frame) for frame in frames][-1]
    assert last.thresholds == [0.5, 0.5, 0.5]
    assert last.label == predictor(frames).label


def test_an_exported_file_has_scores_and_thresholds(checkpoint, tmp_path):
    predictor = ta.Predictor(checkpoint, device="cpu")
    clips = [predictor.inputs_of(np.full((4, 32, 32, 3), value, np.uint8)) for value in (20, 200)]
    path = tmp_path / "model.torchscript"
    assert export_model(predictor, path, format="torchscript", clips=clips) < 1e-5
    with quiet_exporters():
        scores = OPENERS["torchscript"](path)(clips[0][None])
    torch.testing.assert_close(scores[0].double(), torch.tensor(
        predictor(np.full((4, 32, 32, 3), 20, np.uint8)).scores, dtype=torch.double), atol=1e-5, rtol=0)
    metadata = metadata_of(predictor, clips[0])
    assert json.loads(metadata["thresholds"]) == [0.5, 0.5, 0.5]
    assert "a class holds where its score is at least its threshold" in metadata["output"]


def test_a_checkpoint_with_wrong_thresholds_is_not_read(checkpoint, tmp_path):
    saved = ta.Checkpoint.load(checkpoint)
    for wrong in ([], [0.5], [0.5, 0.5, 2.0]):
        saved.thresholds = wrong
        saved.save(tmp_path / "wrong.pt")
        with pytest.raises(ValueError, match="its thresholds are"):
            ta.Checkpoint.load(tmp_path / "wrong.pt")
