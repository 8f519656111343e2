"""None of the classes: from the flags of training to what predict says."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import write_set

import tinyaction as ta
from tinyaction.cli.evaluate import main as evaluate
from tinyaction.cli.predict import main as predict
from tinyaction.cli.train import main as train
from tinyaction.models.unknown import ClassMeans, Unknown, fit_class_means, logits_and_pooled, spread_basis
from tinyaction.results.calibration import auroc, expected_calibration_error, threshold_at_rate, with_temperature
from tinyaction.training.unknown import Known, PooledVideos, _Pooled
from tinyaction.video.writer import write_video


def write_noise(path: Path, seed: int) -> Path:
    """A video of noise: neither a lying nor a standing bar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(seed)
    blocks = rng.randint(0, 256, (10, 16, 16, 3)).astype(np.uint8)
    write_video(path, blocks.repeat(4, axis=1).repeat(4, axis=2), fps=10, replace=True)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_set(tmp_path_factory.mktemp("bars") / "bars", num_train=8, num_val=6)
    for number in range(4):
        write_noise(folder.parent / "noise" / f"{number}.mp4", number)
    return folder


SMALL = "--clip-len 4 --size 32 --num-workers 0 --device cpu"


def run(folder, out, flags) -> Path:
    assert train(["--data", str(folder), *SMALL.split(), "--out", str(out), *flags.split()]) == 0
    return out


@pytest.fixture(scope="module", params=["--method probe --pooling stats", "--epochs 2"])
def runs(request, folder, tmp_path_factory) -> tuple[Path, Path]:
    """The same run without and with a threshold."""
    place = tmp_path_factory.mktemp("runs")
    return run(folder, place / "plain", request.param), run(folder, place / "run", request.param
                                                           + " --unknown-rate 0.2")


def test_the_threshold_is_of_the_validation_videos_and_prediction_keeps_it(runs, folder):
    plain, path = runs
    before, after = ta.Checkpoint.load(plain / "best.pt"), ta.Checkpoint.load(path / "best.pt")
    assert before.unknown is None and after.unknown is not None
    assert all(torch.equal(after.state_dict[name], before.state_dict[name]) for name in before.state_dict)
    predictor = ta.Predictor(path, device="cpu")
    distances, labels = [], []
    for video in sorted((folder / "val").iterdir()):
        _, pooled = logits_and_pooled(predictor.model, predictor.inputs_of(video)[None])
        distances.append(float(after.unknown.distances(pooled)[0]))
        labels.append(predictor(video).label)
    assert after.unknown.threshold == pytest.approx(threshold_at_rate(distances, 0.2), abs=2e-3)
    assert labels.count("unknown") == json.loads((path / "config.json").read_text())["unknown"]["num_false_alarms"]
    noise = predictor(write_noise(folder.parent / "more" / "noise.mp4", 9))
    assert noise.label == "unknown" and noise.score == max(noise.scores) and "unknown; " in repr(noise)
    named = ta.Predictor(path, device="cpu", tells_unknown=False)(folder.parent / "more" / "noise.mp4")
    assert named.label in ("lying", "standing") and named.scores == noise.scores


def test_scores_are_at_the_temperature_everywhere(runs, folder, capsys):
    plain, path = runs
    temperature = ta.Checkpoint.load(path / "best.pt").unknown.temperature
    video = folder / "val" / "clip 1.mp4"
    before, after = ta.Predictor(plain, device="cpu")(video), ta.Predictor(path, device="cpu")(video)
    assert after.scores == pytest.approx(with_temperature([before.scores], temperature)[0].tolist(), abs=1e-6)
    with open(path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    written = {Path(row["path"]).name: [float(row["score_lying"]), float(row["score_standing"])] for row in rows}
    assert written[video.name] == pytest.approx(after.scores, abs=5e-3)
    facts = json.loads((path / "config.json").read_text())["unknown"]
    labels = [("lying", "standing").index(row["class"]) for row in rows]
    assert facts["ece"] == pytest.approx(expected_calibration_error(list(written.values()), labels), abs=1e-4)
    capsys.readouterr()
    accuracies = []
    for one in runs:
        words = ["--data", str(folder), "--checkpoint", str(one), "--num-workers", "0", "--device", "cpu"]
        assert evaluate(words) == 0
        accuracies.append(capsys.readouterr().out.splitlines()[0])
    assert accuracies[0] == accuracies[1]                              # a temperature changes no order
    page = (path / "report.html").read_text()
    assert "Before the temperature of" in page and page.count("accuracy by score") == 2
    assert "Before the temperature of" not in (plain / "report.html").read_text()


def test_predict_says_unknown_in_every_form(runs, folder, capsys, tmp_path):
    _, path = runs
    noise = write_noise(tmp_path / "noise.mp4", 5)
    words = [str(noise), "--checkpoint", str(path), "--device", "cpu"]
    assert predict(words) == 0
    assert capsys.readouterr().out.splitlines()[1] == "  unknown: none of the classes; it is least unlike"
    assert predict([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["class"] == "unknown"
    assert predict([*words, "--json", "--no-unknown"]) == 0
    assert json.loads(capsys.readouterr().out)["class"] in ("lying", "standing")
    assert predict([*words, "--window", "0.5", "--timeline", str(tmp_path / "t.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert all("unknown, not " in line and len(line) <= 80 for line in lines)
    assert [row.split(",")[2] for row in (tmp_path / "t.csv").read_text().splitlines()] == ["class", "unknown"]
    assert predict([*words, "--window", "0.5", "--on", "unknown>0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["class"] == "unknown"
    assert predict([*words, "--no-unknown", "--on", "unknown>0.5"]) == 2
    assert "no class of the model; the model knows lying, standing" in capsys.readouterr().err


def test_background_chooses_the_threshold_where_no_rate_does(folder, tmp_path, capsys):
    path = run(folder, tmp_path / "run", f"--method probe --pooling stats --background {folder.parent / 'noise'}")
    log = (path / "log.txt").read_text()
    assert "background: 100.0% of 4 clips are told unknown; AUROC 1.000" in log
    assert "as 0 of 6 validation videos are" in log
    facts = json.loads((path / "config.json").read_text())["unknown"]
    assert facts["kind"] == ta.Checkpoint.load(path / "best.pt").unknown.kind and facts["aurocs"]["mahalanobis"] == 1.0
    assert f"distance: {facts['kind']}, of mahalanobis 1.000, direction" in log and "and of --background" in log


def test_folds_measure_on_what_was_held_out(folder, tmp_path):
    path = run(folder, tmp_path / "run", "--method probe --pooling stats --folds 3 --final --unknown-rate 0.05")
    log = (path / "log.txt").read_text()
    assert "fitted on 14 held-out videos of the folds" in log
    assert "note: 14 videos cannot promise a false-alarm rate of 0.05, the lowest is 0.067" in log
    with open(path / "predictions.csv", newline="") as file:
        assert {row["fold"] for row in csv.DictReader(file)} == {"1", "2", "3"}
    saved = ta.Checkpoint.load(path / "best.pt").unknown
    assert saved is not None and 0 < saved.threshold < 2


def test_directions_by_hand():
    pooled = torch.tensor([[3.0, 2.0], [3.0, 2.0], [3.0, -1.0]])       # above twice, and below (3, 1)
    found = fit_class_means("direction", pooled, torch.tensor([1, 1, 2]), 4)
    assert found.kind == "direction" and found.centre.tolist() == [3, 1]
    assert found.class_means.tolist() == [[0, 1], [0, 1], [0, -1], [0, 1]]  # without videos: as the largest
    unknown = Unknown(found.centre, found.class_means[1:3], temperature=1.0, threshold=1.0)
    assert unknown.distances(torch.tensor([[3.0, 9.0], [9.0, 1.0]])).tolist() == pytest.approx([0, 2**0.5])
    assert unknown.is_unknown(torch.tensor([[3.0, 9.0], [9.0, 1.0]])) == [False, True]


def test_along_the_spread_of_the_classes_a_distance_counts_less():
    differences = torch.tensor([[3.0, 0, 0, 0], [-3, 0, 0, 0], [0, 1, 0, 0], [0, -1, 0, 0]]).double()
    basis = spread_basis(differences)                                  # variances 4.5 0.5 0 0, their mean 1.25
    found = ClassMeans(torch.zeros(4), torch.zeros(1, 4), basis)
    places = found.places(torch.eye(4))
    assert places.diag().tolist() == pytest.approx([(1.25 / 5.75)**0.5, (1.25 / 1.75)**0.5, 1, 1])
    assert found.distances(5 * torch.eye(4)).tolist() == pytest.approx(places.diag().tolist())  # length is nothing
    assert spread_basis(torch.zeros(3, 4)).shape == (4, 0)             # one video a class


def test_the_distance_is_that_of_a_shrunk_covariance():
    generator = torch.Generator().manual_seed(7)
    pooled = torch.randn(40, 6, generator=generator).double() * torch.tensor([1, 1, 1, 3, 3, 0.1]) + 4
    labels = torch.arange(40) % 3
    found = fit_class_means("mahalanobis", pooled, labels, 3)
    x = pooled / pooled.norm(dim=1, keepdim=True)
    means = torch.stack([x[labels == label].mean(dim=0) for label in range(3)])
    within = torch.cov((x - means[labels]).T, correction=0)
    within = (within + torch.eye(6) * within.trace() / 6) / 2
    expected = torch.stack([(((x - mean) @ within.inverse()) * (x - mean)).sum(dim=1).sqrt() for mean in means])
    ratio = found.distances(pooled) / expected.min(dim=0).values
    assert ratio.std() / ratio.mean() < 1e-6


@pytest.fixture(scope="module")
def cross():
    """Three classes at three corners of (x, y), which differ along the third feature much more, and that says nothing;
    with ``is_flat`` they differ in their length only, which is nothing to the one kind.
    """
    generator = torch.Generator().manual_seed(1)

    def draw(num_videos: int) -> PooledVideos:
        labels = torch.arange(num_videos) % 3
        x = torch.eye(3)[labels] + 0.05 * torch.randn(num_videos, 3, generator=generator)
        wide = 3 * torch.randn(num_videos, 1, generator=generator)
        return PooledVideos([], torch.cat([x, wide, torch.zeros(num_videos, 20) + 5], dim=1).double(), labels)

    return draw


def test_the_kind_is_chosen_by_classes_left_out(cross):
    train, held_out = cross(60), cross(30)
    known = Known([(train, held_out)], train, 3)
    aurocs = known.aurocs()
    by_hand = []
    for label in range(3):
        means = fit_class_means("mahalanobis", train.features[train.labels != label],
                                train.labels[train.labels != label], 3)
        by_hand.append(auroc(held_out.labels == label, means.distances(held_out.features)))
    assert aurocs["mahalanobis"] == pytest.approx(sum(by_hand) / 3)
    assert aurocs["mahalanobis"] > aurocs["direction"] + 0.2
    means, distances = known.best(aurocs)
    assert means.kind == "mahalanobis" and torch.equal(distances, means.distances(held_out.features))
    assert known.best({"mahalanobis": 0.7, "direction": 0.8})[0].kind == "direction"
    assert known.best({"mahalanobis": 0.7, "direction": 0.7})[0].kind == "mahalanobis"  # a tie


def test_of_two_classes_only_the_background_chooses(cross):
    train, held_out = (one.subset(one.labels < 2) for one in (cross(60), cross(30)))
    known = Known([(train, held_out)], train, 2)
    assert known.aurocs() == {} and known.best({})[0].kind == "mahalanobis"
    far = -held_out.features
    assert Known([(train, held_out)], train, 2, far).aurocs()["mahalanobis"] == 1.0


def test_folds_are_each_by_the_others(cross):
    found = cross(30)
    is_first = torch.arange(30) < 15
    parts = found.subset(is_first), found.subset(~is_first)
    known = Known([parts, parts[::-1]], found, 3)
    expected = torch.cat([fit_class_means("direction", train.features, train.labels, 3).distances(test.features)
                          for train, test in (parts, parts[::-1])])
    assert torch.equal(known.held_out("direction"), expected)


def test_each_fold_is_held_out_from_the_others(cross):
    found = replace(cross(6), names=list("abcdef"))
    fold_of = {"a": 2, "b": 1, "c": 2, "d": 1, "e": 1, "f": 2}
    data = SimpleNamespace(merged=lambda: SimpleNamespace(train=None))
    splits, everything = _Pooled.splits(SimpleNamespace(of=lambda videos: found), data, fold_of)
    assert everything is found
    assert [(train.features.tolist(), test.features.tolist()) for train, test in splits] == [
        (found.features[[0, 2, 5]].tolist(), found.features[[1, 3, 4]].tolist()),
        (found.features[[1, 3, 4]].tolist(), found.features[[0, 2, 5]].tolist())]


@pytest.mark.parametrize(("changes", "message"), [
    ({"threshold": float("nan")}, "its threshold is nan; it must be at least 0"),
    ({"temperature": 0.0}, "its temperature is 0.0; it must be above 0"),
    ({"centre": torch.zeros(3)}, "its class means are (2, 4) and their centre (3,)"),
    ({"class_means": torch.full((2, 4), float("inf"))}, "its class means are NaN or infinite"),
    ({"class_means": torch.zeros(3, 4)}, "it has 2 class names and 3 class means"),
    ({"basis": torch.zeros(3, 2)}, "the basis of its distances is (3, 2) and its centre (4,)"),
    ({"basis": torch.full((4, 2), float("nan"))}, "its class means are NaN or infinite"),
    ({"more": 1}, "unexpected keyword argument 'more'"),
])
def test_a_checkpoint_with_an_impossible_threshold_is_one_sentence(runs, tmp_path, changes, message):
    unknown = Unknown(torch.zeros(4), torch.zeros(2, 4), temperature=1.0, threshold=1.0)
    good = replace(ta.Checkpoint.load(runs[1] / "best.pt"), unknown=unknown)
    good.save(tmp_path / "good.pt")
    assert ta.Checkpoint.load(tmp_path / "good.pt").unknown.threshold == 1.0
    content = torch.load(tmp_path / "good.pt", weights_only=True)
    del content["unknown"]["basis"]                                    # as an earlier version wrote it
    torch.save(content, tmp_path / "earlier.pt")
    assert ta.Checkpoint.load(tmp_path / "earlier.pt").unknown.kind == "direction"
    torch.save({**content, "unknown": content["unknown"] | changes}, tmp_path / "bad.pt")
    with pytest.raises(ValueError) as caught:
        ta.Checkpoint.load(tmp_path / "bad.pt")
    assert message in str(caught.value)


@pytest.mark.parametrize(("flags", "message"), [
    ("--unknown-rate 1.5", "--unknown-rate is 1.5; it must be below 1"),
    ("--background nowhere", "--background is nowhere; it must be a folder of clips"),
    ("--background .", "--background is .; there is no video in it"),
    ("--unknown-rate 0.1 --folds 2", "--unknown-rate is stored in best.pt, which --folds leaves only with --final"),
    ("--unknown-rate 0.1 --folds 2 --final --method finetune", "--unknown-rate with --folds goes with --method probe"),
])
def test_flags_that_cannot_be_are_one_sentence(folder, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    assert train(["--data", str(folder), *flags.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
