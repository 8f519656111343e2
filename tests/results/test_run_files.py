"""What a run folder keeps of its predictions, and that those of earlier versions are read."""

import csv

import numpy as np

from tinyaction.results.evaluation import EpochRecord, Evaluation, TrainResult
from tinyaction.results.evaluation_tables import PREDICTIONS
from tinyaction.results.run import RunFolder, read_run

NAMES = ["path", "score", '=HYPERLINK("http://x"), 1', "class_score"]  # as columns are called, and a formula
SCORES = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.15, 0.05]])


def write(tmp_path, **arguments):
    val = Evaluation(0.5, SCORES, np.array([2, 0]), ["a.mp4", "=b.mp4"], 1.0, 1.0)
    run = RunFolder(tmp_path / "run")
    run.write_config({"data": "x", "class_names": NAMES})
    run.add_metrics(EpochRecord(0, 0.1, TrainResult(0.5, 0.5, 2, 1.0, 1.0), val))
    run.write_predictions(val, NAMES, **arguments)
    run.close()
    return run.path


def test_predictions_have_the_scores_of_all_classes_whatever_they_are_called(tmp_path):
    path = write(tmp_path, folds=[2, 0]) / "predictions.csv"
    with open(path, newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == [*PREDICTIONS, "fold", *(f"score_{name}" for name in NAMES)]
    assert len(set(header)) == len(header)
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in [*header, *rows[0], *rows[1]])
    assert [row[5] for row in rows] == ["2", "0"]
    np.testing.assert_array_equal(np.array([[float(cell) for cell in row[6:]] for row in rows]), SCORES)
    assert [row[3:5] for row in rows] == [["0.4", "0.3"], ["0.7", "0.7"]]


def test_predictions_of_an_earlier_version_are_read_as_those_of_today(tmp_path):
    folder = write(tmp_path)
    today = read_run(folder).predictions
    with open(folder / "predictions.csv", newline="") as file:
        rows = [row[: len(PREDICTIONS)] for row in csv.reader(file)]
    with open(folder / "predictions.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert read_run(folder).predictions == today
    assert [(one.filename, one.label, one.predicted, one.score, one.label_score) for one in today] == [
        ("a.mp4", 2, 3, 0.4, 0.3), ("=b.mp4", 0, 0, 0.7, 0.7)]
