"""Runs of several labels beside each other: figures as scikit-learn's, intervals by their properties, bad input."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tinyaction.cli import main
from tinyaction.results.compare import compare_runs, comparison_lines, comparison_page
from tinyaction.results.evaluation import EpochRecord, Evaluation, TrainResult
from tinyaction.results.label_set_compare import Estimate, class_cells, label_set_figures, weighted_average_precision
from tinyaction.results.multilabel import mean_average_precision, mean_f1
from tinyaction.results.run import RunFolder, read_run

CLASSES = ["clap", "walk", "wave"]


def drawn(*, num_videos=40, seed=0, noise=0.6):
    """Labels (N, 3), and scores (2, N, 3) of two runs that see them through noise of their own, with ties."""
    rng = np.random.default_rng(seed)
    labels = rng.random((num_videos, 3)) < [0.5, 0.3, 0.15]
    scores = 1 / (1 + np.exp(-(labels - 0.5 + noise * rng.standard_normal((2, num_videos, 3)))))
    return np.round(scores, 2), labels


def test_figures_of_drawn_videos_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the extra 'test'")
    scores, labels = drawn()
    counts = np.random.default_rng(1).multinomial(40, np.full(40, 1 / 40), size=5).astype(float)
    for k in range(3):
        theirs = [metrics.average_precision_score(labels[:, k], scores[0, :, k], sample_weight=row) for row in counts]
        assert weighted_average_precision(scores[0, :, k], labels[:, k], counts.T) == pytest.approx(theirs, abs=1e-12)
    figures = label_set_figures(scores, scores >= 0.5, labels, num_draws=3)
    draws = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=3)
    for place, row in enumerate([np.ones(40, int), *draws]):
        for r in range(2):
            for k in range(3):
                assert figures.f1[place, r, k] == pytest.approx(metrics.f1_score(
                    labels[:, k], scores[r, :, k] >= 0.5, sample_weight=row), abs=1e-12)
            again = np.repeat(np.arange(40), row)                      # the same videos, each as often as it was drawn
            assert figures.mean_ap[place, r] == pytest.approx(
                mean_average_precision(scores[r][again], labels[again]), abs=1e-12)
            assert figures.mean_f1[place, r] == pytest.approx(
                mean_f1(scores[r][again] >= 0.5, labels[again]), abs=1e-12)


def test_a_class_without_positives_is_left_out():
    scores, labels = drawn()
    labels[:, 1] = False
    figures = label_set_figures(scores, scores >= 0.5, labels, num_draws=50)
    others = label_set_figures(scores[..., [0, 2]], scores[..., [0, 2]] >= 0.5, labels[:, [0, 2]], num_draws=50)
    assert np.isnan(figures.average_precision[..., 1]).all() and np.isnan(figures.f1[..., 1]).all()
    assert figures.mean_ap == pytest.approx(others.mean_ap) and figures.mean_f1 == pytest.approx(others.mean_f1)
    assert [cells[0] for cells in class_cells(figures, CLASSES)] in (["clap", "wave"], ["wave", "clap"])


def test_a_run_is_as_good_as_itself_and_draws_do_not_depend_on_their_number_at_a_time(monkeypatch):
    scores, labels = drawn()
    same = np.stack([scores[0], scores[0]])
    figures = label_set_figures(same, same >= 0.5, labels, num_draws=100)
    gain = Estimate.of(figures.mean_ap[:, 1] - figures.mean_ap[:, 0])
    assert (gain.value, gain.low, gain.high, gain.is_apart) == (0, 0, 0, False)
    monkeypatch.setattr("tinyaction.results.label_set_compare.CHUNK", 300)
    np.testing.assert_array_equal(label_set_figures(same, same >= 0.5, labels, num_draws=100).f1, figures.f1)


def test_equal_runs_are_told_apart_about_one_time_in_twenty_and_a_better_one_is_found():
    apart = []
    for seed in range(100):
        scores, labels = drawn(num_videos=80, seed=seed)
        mean_ap = label_set_figures(scores, scores >= 0.5, labels, num_draws=200).mean_ap
        apart.append(Estimate.of(mean_ap[:, 1] - mean_ap[:, 0]).is_apart)
    assert 0 < sum(apart) <= 12                                        # 5 are expected
    scores, labels = drawn(num_videos=80)
    better = np.stack([scores[0], drawn(num_videos=80, noise=0.2)[0][1]])
    mean_ap = label_set_figures(better, better >= 0.5, labels, num_draws=200).mean_ap
    gain = Estimate.of(mean_ap[:, 1] - mean_ap[:, 0])
    assert gain.is_apart and gain.low > 0 and gain.low < gain.value < gain.high


# ---- folders of runs -----------------------------------------------------------------------------------------------


def make_run(path: Path, scores, labels, **config) -> Path:
    """A run folder of several labels whose scores are given."""
    names = [f"clips/{number}.mp4" for number in range(len(labels))]
    val = Evaluation(0.5, np.array(scores, float), np.array(labels, int), names, 0, 0, thresholds=np.full(3, 0.5))
    run = RunFolder(path)
    run.write_config({"class_names": CLASSES, "data": "clips", "model": "conv2d", "multi_label": True} | config)
    run.add_metrics(EpochRecord(0, 0.1, TrainResult(0.7, 0.5, 6, 0.0, 0.0), val))
    run.write_predictions(val, CLASSES)
    run.close()
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, (scores, labels) = tmp_path_factory.mktemp("runs"), drawn()
    return [make_run(folder / name, own, labels, lr=rate) for name, own, rate in
            (("one", scores[0], 0.1), ("two", scores[1], 0.2))]


def test_runs_of_several_labels_are_compared(runs, tmp_path, capsys):
    scores, labels = drawn()
    comparison = compare_runs([read_run(run) for run in runs])
    right = ((scores >= 0.5) == labels).all(axis=2)
    assert comparison.right.tolist() == right.tolist()
    differs = ((scores[0] >= 0.5) != (scores[1] >= 0.5)).any(axis=1)
    assert comparison.disagreements() == np.flatnonzero(differs).tolist()
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "page.html")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    one, two = (mean_average_precision(own, labels) for own in scores)
    assert f"one: mAP {one:.4f} (95 % interval" in said and f"two minus one: mAP {two - one:+.4f} (95 %" in said
    assert "by mAP these 40 videos cannot tell them apart" in said and "lr: 0.1 | 0.2" in said
    assert f"all labels right, two minus one: {right[1].mean() - right[0].mean():+.4f}" in said
    assert "chose its thresholds on these videos, so its F1 flatters" in said
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"<td>one</td><td>{one:.4f}</td>" in page and "validation mAP" in page
    assert f"walk ({labels[:, 1].sum()} videos): AP" in said and "F1 of two" in page


def test_the_numbers_of_classes_are_those_of_their_runs(runs):
    scores, labels = drawn()
    comparison = compare_runs([read_run(runs[0]), read_run(runs[1])])
    for name, num, *cells in class_cells(comparison.figures, CLASSES):
        k = CLASSES.index(name)
        assert int(num) == labels[:, k].sum()
        expected = [mean_average_precision(own[:, [k]], labels[:, [k]]) for own in scores]
        expected += [mean_f1(own[:, [k]] >= 0.5, labels[:, [k]]) for own in scores]
        assert [cell.split(" ")[0] for cell in cells] == [f"{value:.3f}" for value in expected]
        assert ["(" in cell for cell in cells] == [False, True, False, True]


def test_a_video_without_labels_and_one_that_moved_are_compared_too(runs, tmp_path):
    scores, labels = drawn()
    labels[0] = False
    scores[1, 0] = 0.1
    pair = [make_run(tmp_path / name, own, labels, evaluated="x") for name, own in zip("ab", scores, strict=True)]
    text = "\n".join(comparison_lines(compare_runs([read_run(run) for run in pair])))
    assert "flatters" not in text                                      # thresholds of other videos
    assert ("clips/0.mp4, no label" in text) == bool((scores[0, 0] >= 0.5).any())
    assert "no label" in comparison_page(compare_runs([read_run(run) for run in pair]))


def test_bad_input_is_one_sentence(runs, tmp_path, capsys):
    scores, labels = drawn()
    empty = make_run(tmp_path / "empty", scores[0], np.zeros_like(labels))
    other = make_run(tmp_path / "other", scores[0], ~labels)
    old = make_run(tmp_path / "old", scores[0], labels)
    with open(old / "predictions.csv", newline="") as file:
        rows = [row[:5] for row in csv.reader(file)]
    with open(old / "predictions.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    single = make_run(tmp_path / "single", scores[0], labels)
    (single / "config.json").write_text((single / "config.json").read_text().replace("true", "false"))
    (single / "metrics.csv").write_text("epoch,lr,train_loss,train_top1,val_loss,val_top1,val_mean_class\n"
                                        "1,0.1,0.5,0.5,0.5,0.5,0.5\n")
    (single / "predictions.csv").write_text("path,class,predicted,score,class_score\nclips/0.mp4,clap,clap,0.9,0.9\n")
    for words, says in (
        ([empty, empty], "have in common has a label, so nothing can be compared"),
        ([runs[0], other], "clips/0.mp4 is "),
        ([runs[0], old], "not all classes have a column of scores"),
        ([runs[0], single], "single has one; only runs of the same kind can be compared"),
        ([single, runs[0]], "single has one; only runs of the same kind can be compared"),
    ):
        assert main(["compare", *map(str, words)]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1, error
