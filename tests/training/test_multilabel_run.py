"""A run on videos with several labels: loss, figures, thresholds, files."""

import csv
import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loops import CPU, FakeLoader, sgd, tiny_model
from toys import LIGHTS, write_lights

import tinyaction as ta
from tinyaction.cli.evaluate import main as evaluate_command
from tinyaction.cli.report import main as report
from tinyaction.data.transforms import VideoFlip
from tinyaction.models.create import create_model, model_arguments
from tinyaction.models.heads import TemporalAverageHead
from tinyaction.results.evaluation import evaluate
from tinyaction.results.neighbors import read_neighbors
from tinyaction.results.run import read_run
from tinyaction.training.build import build, check_data
from tinyaction.training.config import RunConfig
from tinyaction.training.finetune import Criterion, positive_weights
from tinyaction.training.loop import train_one_epoch


@pytest.fixture(scope="session")
def lights(tmp_path_factory):
    return write_lights(tmp_path_factory.mktemp("lights"))


def flags(lights, **more):
    return RunConfig(str(lights), **{"model": "conv2d", "clip_len": 2, "size": 16, "epochs": 12, "lr": 0.1,
                                     "warmup_epochs": 0, "num_workers": 0, "device": "cpu", **more})


@pytest.fixture(scope="session")
def result(lights, tmp_path_factory):
    return ta.train(flags(lights, out=str(tmp_path_factory.mktemp("run") / "run")))


# ---- head and loss -------------------------------------------------------------------------------------------------


def test_the_score_of_a_class_does_not_depend_on_the_others():
    head = TemporalAverageHead(3, 4, activation="sigmoid")
    logits = torch.tensor([[[0.0, 2.0, -1.0], [1.0, 0.0, -1.0]]])      # (1, V=2, K=3)
    expected = (torch.sigmoid(logits[:, 0]) + torch.sigmoid(logits[:, 1])) / 2
    torch.testing.assert_close(head.video_scores(logits), expected)
    logits[..., 0] += 5
    torch.testing.assert_close(head.video_scores(logits)[:, 1:], expected[:, 1:])


def test_the_loss_is_binary_cross_entropy_of_each_view():
    logits, labels = torch.randn(2, 3, 4), torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 1]])
    by_hand = torch.stack([F.binary_cross_entropy(logits[:, view].sigmoid(), labels) for view in range(3)]).mean()
    head = TemporalAverageHead(4, 8, activation="sigmoid")
    torch.testing.assert_close(head.loss(logits, labels), by_hand)
    criterion = Criterion(is_multi_label=True)
    _, targets = criterion.mix(logits, labels, num_classes=4, epoch=0, batch=0)
    torch.testing.assert_close(criterion.loss(logits, targets), by_hand)


def test_a_positive_weighs_as_the_negatives_of_its_class():
    label_sets = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], dtype=np.uint8)
    weights = positive_weights(label_sets)
    assert weights.tolist() == pytest.approx([3 / 1, 1 / 3])
    logits, labels = torch.zeros(4, 1, 2), torch.from_numpy(label_sets).float()
    half = F.binary_cross_entropy_with_logits(torch.zeros(1), torch.ones(1))
    # Class 0: 1 positive of weight 3 and 3 negatives; class 1: 3 positives of 1/3 and 1 negative
    expected = half * ((3 + 3) + (1 + 1)) / 8
    torch.testing.assert_close(Criterion(class_weights=weights, is_multi_label=True).loss(logits, labels), expected)


def test_smooth_labels_are_spread_over_yes_and_no():
    logits, labels = torch.randn(2, 1, 3), torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    smooth = F.binary_cross_entropy_with_logits(logits[:, 0], torch.where(labels == 1, 0.95, 0.05))
    torch.testing.assert_close(Criterion(0.1, is_multi_label=True).loss(logits, labels), smooth)


def test_the_activation_is_an_argument_of_the_model():
    arguments = model_arguments("conv2d", create_model("conv2d", 3, activation="sigmoid"))
    assert arguments["activation"] == "sigmoid"
    assert create_model(**arguments).cls_head.activation == "sigmoid"
    assert "activation" not in model_arguments("conv2d", create_model("conv2d", 3))
    with pytest.raises(ValueError, match="activation is 'tanh'; it must be 'softmax' or 'sigmoid'"):
        TemporalAverageHead(3, 4, activation="tanh")


def batch(*videos):
    samples = [ta.DataSample(torch.tensor(labels), (1, 1), 1, 1, f"x={x}") for x, labels in videos]
    return {"inputs": torch.tensor([x for x, _ in videos])[:, None, None, None, None, None], "data_samples": samples}


def test_in_training_a_video_is_right_if_all_its_labels_are():
    model = tiny_model(2, activation="sigmoid")
    with torch.no_grad():
        model.cls_head.fc.weight.copy_(torch.tensor([[1.0], [-1.0]]))  # x = 1: class 0 alone
    loader = FakeLoader(batch((1.0, [1.0, 0]), (1.0, [1.0, 1]), (-1.0, [0.0, 1])))
    assert train_one_epoch(model, loader, sgd(model, 0.0), device=CPU).top1 == pytest.approx(2 / 3)


def test_an_evaluation_has_sets_and_thresholds():
    model = tiny_model(2, activation="sigmoid")
    with torch.no_grad():
        model.cls_head.fc.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    loader = FakeLoader(batch((3.0, [1.0, 0]), (2.0, [1.0, 0])), batch((1.0, [0.0, 1])))
    found = evaluate(model, loader)
    assert found.labels.tolist() == [[1, 0], [1, 0], [0, 1]]
    between = (torch.sigmoid(torch.tensor([2.0, 1.0])).mean()).item()
    assert found.thresholds.tolist() == pytest.approx([between, torch.sigmoid(torch.tensor([-1.0, -2])).mean().item()])
    assert (found.mean_ap, found.f1, found.exact_match, found.selection_metric) == (1, 1, 1, 1)
    given = evaluate(model, loader, thresholds=[0.99, 0.01])
    assert given.predicted_sets.tolist() == [[False, True], [False, True], [False, True]]
    assert repr(found).startswith("Evaluation(3 videos, 2 classes, loss ")
    assert repr(found).endswith("mAP 1.0000, F1 1.0000)")


# ---- a run ---------------------------------------------------------------------------------------------------------


def test_a_run_learns_sets_of_labels(result):
    assert result.evaluation.mean_ap > 0.95                            # chance is 4/7
    assert result.accuracy == result.evaluation.mean_ap
    assert repr(result).startswith(f"RunResult(mAP {result.accuracy:.4f} over 7 videos")


def test_the_checkpoint_has_the_thresholds_of_its_validation(result):
    checkpoint = ta.Checkpoint.load(result.checkpoint)
    assert checkpoint.thresholds == result.evaluation.thresholds.tolist()
    assert checkpoint.model["activation"] == "sigmoid"
    assert checkpoint.class_names == list(LIGHTS)
    assert checkpoint.config["multi_label"] is True


def test_the_files_of_a_run_have_its_figures(result):
    run = read_run(result.path)
    assert list(run.history[0]) == ["epoch", "lr", "train_loss", "train_exact_match", "val_loss", "val_map", "val_f1",
                                    "val_exact_match", "data_seconds", "compute_seconds"]
    assert run.best["val_map"] == result.accuracy
    assert run.best["epoch"] == result.best_epoch
    true = [{LIGHTS[label] for label in one.labels} for one in run.predictions]
    assert true == [{"blue"}, {"green"}, {"blue", "green"}, {"red"}, {"blue", "red"}, {"green", "red"}, set(LIGHTS)]
    predicted = [[label in one.predicted_labels for label in range(3)] for one in run.predictions]
    assert predicted == result.evaluation.predicted_sets.tolist()
    assert [float(row["threshold"]) for row in run.classes] == pytest.approx(result.evaluation.thresholds, rel=1e-5)
    assert [row["positives"] for row in run.classes] == ["4", "4", "4"]
    with open(result.path / "predictions.csv", newline="") as file:
        assert next(csv.reader(file)) == ["path", "class", "predicted", "score", "class_score", "score_blue",
                                          "score_green", "score_red"]
    log = (result.path / "log.txt").read_text()
    assert f"mAP {result.accuracy:.4f} over 7 videos, mean F1" in log
    assert "no report" not in log


def test_the_report_shows_sets_and_a_row_a_class(result):
    page = (result.path / "report.html").read_text(encoding="utf-8")
    assert f"<b>{result.accuracy:.1%}</b><span>mAP</span>" in page
    for row in read_run(result.path).classes:
        cells = [row["class"], "4", f"{float(row['average_precision']):.3f}", f"{float(row['f1']):.3f}"]
        assert "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) in page
    data = json.loads(re.search('id="predictions">(.*?)</script>', page)[1])
    true = [data["classes"][row[1]] for row in data["rows"]]
    assert sorted(true) == sorted(["blue", "green", "blue, green", "red", "blue, red", "green, red",
                                   "blue, green, red"])
    assert "Confusion" not in page


def test_the_report_is_made_again(result, lights, capsys):
    assert report([str(result.path), "--data", str(lights)]) == 0
    assert "mAP" in (result.path / "report.html").read_text(encoding="utf-8")


def test_one_label_a_video_is_taken_for_a_set_where_it_is_asked_for(lights, tmp_path):
    (tmp_path / "list.csv").write_text("path,label,split\n" + "".join(
        f"{lights}/{number}.mp4,{name},{split}\n" for number, name, split in
        ((0, "blue", "train"), (1, "green", "train"), (7, "blue", "val"))))
    training = build(flags(tmp_path, multi_label=True, allow_outside=True))
    assert training.model.cls_head.activation == "sigmoid"
    assert training.train_set[0]["data_samples"].label.tolist() == [1, 0]
    assert build(flags(tmp_path, allow_outside=True)).model.cls_head.activation == "softmax"


@pytest.fixture(scope="module")
def with_dark(lights, tmp_path_factory):
    """The same clips, and of 7 kinds one whose cell is empty: what shines in it is no label of the list."""
    folder = tmp_path_factory.mktemp("dark")
    lines = (lights / "list.csv").read_text().splitlines()
    names = [line.replace(",blue,", ",,") if ",blue," in line else line for line in lines[1:]]
    (folder / "list.csv").write_text("\n".join([lines[0], *(f"{lights}/{name}" for name in names)]) + "\n")
    return folder


@pytest.fixture(scope="module")
def probed(with_dark, tmp_path_factory):
    return ta.train(flags(with_dark, method="probe", allow_outside=True, lr=None, epochs=None, warmup_epochs=0,
                          out=str(tmp_path_factory.mktemp("run") / "probe")))


def check_empty_sets(result):
    """mAP as scikit-learn's, and a video without labels in every file."""
    found, run = result.evaluation, read_run(result.path)
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the extra 'test'")
    assert found.labels.sum(axis=1).tolist().count(0) == 1
    expected = [metrics.average_precision_score(found.labels[:, k], found.scores[:, k]) for k in range(3)]
    assert found.mean_ap == pytest.approx(np.mean(expected), abs=1e-9)
    one = run.predictions[found.labels.sum(axis=1).tolist().index(0)]
    assert (one.label, one.labels, run.names_of(one)[0]) == (-1, (), "no label")
    assert np.isnan(one.label_score) and one.is_right == (one.predicted_labels == ())
    with open(result.path / "predictions.csv", newline="") as file:
        row = list(csv.DictReader(file))[run.predictions.index(one)]
    assert (row["class"], row["class_score"]) == ("", "")
    page = (result.path / "report.html").read_text(encoding="utf-8")
    assert "no label" in page and "nan" not in page.lower().split("<script>")[0]


def test_a_video_may_have_none_of_the_labels(with_dark, tmp_path):
    check_empty_sets(ta.train(flags(with_dark, allow_outside=True, epochs=1, out=str(tmp_path / "run"))))


def test_a_probe_of_several_labels_is_an_ordinary_recognizer(probed, with_dark, lights, capsys):
    check_empty_sets(probed)
    assert probed.accuracy > 0.9
    checkpoint = ta.Checkpoint.load(probed.checkpoint)
    assert checkpoint.thresholds == probed.evaluation.thresholds.tolist()
    predictor = ta.Predictor(probed.checkpoint, device="cpu")
    for one, scores, row in zip(read_run(probed.path).predictions, probed.evaluation.scores,
                                probed.evaluation.predicted_sets, strict=True):
        prediction = predictor(one.filename)
        np.testing.assert_allclose(prediction.scores, scores, atol=5e-3)  # the cache is float16
        assert prediction.label == (";".join(name for name, _ in prediction.predicted()) or "(none)")
        assert {name for name, _ in prediction.predicted()} == {LIGHTS[k] for k in np.flatnonzero(row)}
    assert evaluate_command(["--data", str(with_dark), "--allow-outside", "--checkpoint", str(probed.path),
                             "--num-workers", "0", "--device", "cpu"]) == 0
    assert f"mAP {probed.accuracy:.4f} over 7 videos" in capsys.readouterr().out
    neighbors = read_neighbors(probed.path / "neighbors.csv")
    assert {one.class_name for found in neighbors.values() for one in found} <= {
        "", "green", "red", "blue;green", "blue;red", "green;red", "blue;green;red"}
    assert "always" not in (probed.path / "log.txt").read_text()


def test_a_set_without_several_labels_is_evaluated_as_the_network_was_trained(probed, lights, tmp_path, capsys):
    (tmp_path / "list.csv").write_text(f"path,label\n{lights}/0.mp4,\n{lights}/1.mp4,green\n{lights}/3.mp4,red\n")
    assert evaluate_command(["--data", str(tmp_path), "--allow-outside", "--checkpoint", str(probed.path),
                             "--num-workers", "0", "--device", "cpu"]) == 0
    assert "over 3 videos" in capsys.readouterr().out


@pytest.mark.parametrize("more", [{}, {"multi_label": True}, {"class_weights": True}])
def test_fine_tuning_may_begin_with_a_probe_of_several_labels(with_dark, tmp_path, more):
    result = ta.train(flags(with_dark, method="probe-then-finetune", allow_outside=True, epochs=1, pooling="mean",
                            out=str(tmp_path / "run"), **more))
    run = read_run(result.path)
    assert [row["epoch"] for row in run.history] == [0, 1]
    assert run.config["probe"]["val_accuracy"] == run.history[0]["val_map"]
    assert run.config["finetune"] == {"val_accuracy": run.history[1]["val_map"], "epoch": 1}
    assert f"probe: mAP {run.history[0]['val_map']:.4f}; fine-tuned from it: " in (run.folder / "log.txt").read_text()
    assert ta.Checkpoint.load(result.checkpoint).thresholds == result.evaluation.thresholds.tolist()


def test_weights_begin_with_a_probe_whether_the_flag_or_the_list_says_several_labels(lights):
    for more in ({}, {"multi_label": True}):
        assert flags(lights, model="tsn-resnet18", weights="imagenet", **more).method == "probe-then-finetune"


def test_a_mirrored_video_changes_its_labels_in_pairs():
    results = {"label": torch.tensor([1.0, 0, 1]), "imgs": [np.zeros((2, 2, 3), np.uint8)]}
    assert VideoFlip(1.0, label_map={0: 1, 1: 0})(results)["label"].tolist() == [0, 1, 1]


def test_a_resumed_run_goes_on_with_its_thresholds(lights, tmp_path):
    out = str(tmp_path / "run")
    whole = ta.train(flags(lights, epochs=2, out=out))
    last = ta.Checkpoint.load(whole.path / "last.pt")
    assert len(last.thresholds) == 3
    assert ta.train(flags(lights, epochs=2, resume=out)).accuracy == whole.accuracy


def test_class_weights_and_mixup_know_several_labels(lights):
    criterion = build(flags(lights, class_weights=True, mixup=0.2)).criterion
    assert criterion.is_multi_label
    assert criterion.class_weights.tolist() == pytest.approx([6 / 8] * 3)


@pytest.mark.parametrize(("more", "rule"), [
    ({"balanced": True}, "--balanced goes with one label a video.*; take --class-weights"),
])
def test_what_knows_one_label_only_is_refused(lights, tmp_path, more, rule):
    with pytest.raises(ValueError, match=rule):
        flags(lights, multi_label=True, **more)
    with pytest.raises(ValueError, match=rule):                        # the list says so
        ta.train(flags(lights, out=str(tmp_path / "run"), **more))
    assert not (tmp_path / "run").exists()


def test_a_class_without_a_training_video_is_named(lights):
    data = ta.find_data(lights)
    data.train.label_sets[:, 1] = 0
    with pytest.raises(ValueError, match="no training video has the label 'green'"):
        check_data(flags(lights), data)
