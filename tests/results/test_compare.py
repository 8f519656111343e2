"""Runs beside each other: the paired test against tables, runs matched by video, what differs, bad input."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tinyaction.cli import main
from tinyaction.results.compare import compare_runs, comparison_lines, comparison_page, paired_test
from tinyaction.results.evaluation import EpochRecord, Evaluation, TrainResult
from tinyaction.results.run import RunFolder, read_run

CLASSES = ["clap", "<script>alert(1)</script>", "wave"]


def make_run(path: Path, predicted: list[int], *, labels=(0, 0, 1, 1, 2, 2), folder="clips", **config) -> Path:
    """A run folder whose predictions are given."""
    scores = np.full((len(predicted), 3), 0.1)
    scores[np.arange(len(predicted)), predicted] = 0.8
    names = [f"{folder}/{CLASSES[label]}/{number}.mp4" for number, label in enumerate(labels)]
    val = Evaluation(0.5, scores, np.array(labels[:len(predicted)]), names[:len(predicted)], 0.0, 0.0)
    run = RunFolder(path)
    run.write_config({"class_names": CLASSES, "data": folder, "model": "conv2d", "lr": 0.1} | config)
    run.add_metrics(EpochRecord(0, 0.1, TrainResult(0.7, 0.5, 6, 0.0, 0.0), val))
    run.write_predictions(val, CLASSES)
    run.close()
    return path


@pytest.mark.parametrize(("only_first", "only_second", "p_value"), [
    (0, 0, 1.0),
    (0, 1, 1.0),
    (1, 9, 22 / 1024),                 # 2 * (C(10, 0) + C(10, 1)) / 2**10
    (9, 1, 22 / 1024),
    (0, 6, 2 / 64),
    (5, 5, 1.0),
])
def test_mcnemar_is_that_of_a_table(only_first, only_second, p_value):
    first = np.array([True] * only_first + [False] * only_second + [True] * 7)
    second = np.array([False] * only_first + [True] * only_second + [True] * 7)
    found = paired_test(first, second)
    assert (found.only_first, found.only_second, found.num_videos) == (only_first, only_second, len(first))
    assert found.p_value == pytest.approx(p_value, abs=1e-12)
    assert found.low <= found.difference <= found.high


def test_mcnemar_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    rng = np.random.default_rng(3)
    for _ in range(50):
        first, second = rng.random((2, 40)) < rng.random((2, 1))
        found = paired_test(first, second)
        num_different = found.only_first + found.only_second
        if num_different:
            assert found.p_value == pytest.approx(stats.binomtest(found.only_first, num_different).pvalue, abs=1e-9)


def test_the_interval_is_that_of_the_normal_law_where_there_are_many_videos():
    rng = np.random.default_rng(0)
    first, second = rng.random(4000) < 0.7, rng.random(4000) < 0.8
    gain = second.astype(float) - first
    half = 1.96 * gain.std() / np.sqrt(4000)
    found = paired_test(first, second)
    assert (found.low, found.high) == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.002)


def test_runs_are_compared_video_by_video(tmp_path, capsys):
    one = make_run(tmp_path / "one", [0, 0, 1, 1, 2, 2])
    two = make_run(tmp_path / "two", [0, 1, 1, 1, 2, 0], lr=0.2, flip=0.5, launcher="torchrun", probe={"strength": 1})
    comparison = compare_runs([read_run(one), read_run(two)])
    assert comparison.right.tolist() == [[True] * 6, [True, False, True, True, True, False]]
    assert comparison.disagreements() == [1, 5]
    assert comparison.different_flags() == {"lr": [0.1, 0.2], "flip": [None, 0.5]}
    assert comparison.class_accuracies()[:2] == [("clap", 2, [1.0, 0.5]), ("wave", 2, [1.0, 0.5])]
    assert main(["compare", str(one), str(two)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "two minus one: -0.3333" in said and "only two has 0 right, only one 2" in said
    assert "clips/wave/5.mp4, wave, wave, clap" in said and "lr: 0.1 | 0.2" in said


def test_videos_that_moved_are_matched_by_folder_and_name_and_others_left_out(tmp_path):
    one = make_run(tmp_path / "one", [0, 0, 1, 1, 2, 2])
    two = make_run(tmp_path / "two", [0, 0, 1, 1], folder="/elsewhere/clips")
    comparison = compare_runs([read_run(one), read_run(two)])
    assert (len(comparison.filenames), comparison.num_left_out) == (4, 2)
    assert any("2 videos are left out" in line for line in comparison_lines(comparison))


def test_no_name_runs_on_the_page(tmp_path):
    runs = [read_run(make_run(tmp_path / name, predicted)) for name, predicted in
            (("<i>", [0, 0, 1, 1, 2, 2]), ("b", [1, 0, 1, 1, 2, 2]), ("c", [1, 0, 1, 0, 2, 2]))]
    page = comparison_page(compare_runs(runs))
    tags: set[str] = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.add(tag)
    parser.feed(page)
    assert not tags & {"script", "i >", "a"} and "&lt;script&gt;" in page
    assert page.count('class="line run') + page.count('class="dot run') >= 6  # two charts of three runs


def test_the_page_is_written_where_nothing_is(tmp_path, capsys):
    runs = [str(make_run(tmp_path / name, [0, 0, 1, 1, 2, 2])) for name in "ab"]
    page = tmp_path / "page.html"
    assert main(["compare", *runs, "--out", str(page)]) == 0 and page.read_text().startswith("<!doctype html>")
    assert main(["compare", *runs, "--out", str(page)]) == 2 and "--force" in capsys.readouterr().err
    assert main(["compare", *runs, "--out", str(page), "--force"]) == 0


def test_bad_input_is_one_sentence(tmp_path, capsys):
    run = make_run(tmp_path / "run", [0, 0, 1, 1, 2, 2])
    other = make_run(tmp_path / "other", [0, 0, 1, 1, 2, 2], class_names=["a", "b", "c"])
    (other / "predictions.csv").write_text((run / "predictions.csv").read_text()
                                           .replace(CLASSES[1], "b").replace("clap", "a").replace("wave", "c"))
    moved = make_run(tmp_path / "moved", [0, 0, 1, 1, 2, 2], labels=(1, 0, 1, 1, 2, 2))
    (moved / "predictions.csv").write_text((moved / "predictions.csv").read_text()
                                           .replace("clips/<script>alert(1)</script>/0.mp4", "clips/clap/0.mp4"))
    alone = make_run(tmp_path / "alone", [0, 0, 1, 1, 2, 2])
    (alone / "predictions.csv").unlink()
    for words, says in (
        ([run], "1 run given; a comparison needs at least two"),
        ([run, other], "has the classes a, b, c"),
        ([run, moved], "clips/clap/0.mp4 is"),
        ([run, alone], "no predictions.csv in it"),
        ([run, tmp_path / "none"], "no such folder"),
    ):
        assert main(["compare", *map(str, words)]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1, error
