"""Which clips to label next: against distances and scores worked out by hand, and as a command."""

import csv

import numpy as np
import pytest
from toys import save_toy, write_clip

from tinyaction.cli import main
from tinyaction.results.suggest import choose_clips, uncertainty

CLIPS = np.array([[1, 0], [0.6, 0.8], [0, 1], [0, 1]], np.float32)


def test_uncertainty_is_how_near_the_second_class_is():
    assert uncertainty(np.array([[0.5, 0.5, 0], [0.9, 0.1, 0], [0.2, 0.5, 0.3]])) == pytest.approx([1, 0.2, 0.8])


def test_the_farthest_of_equally_unsure_clips_is_first_and_a_copy_of_it_last():
    even = np.full((4, 2), 0.5)
    assert choose_clips(even, CLIPS, np.array([[1, 0]], np.float32), num=4) == [
        (2, 1.0), (1, pytest.approx(0.2)), (0, 0.0), (3, 0.0)]
    assert [place for place, _ in choose_clips(even, CLIPS, np.zeros((0, 2), np.float32), num=2)] == [0, 2]


def test_a_sure_clip_comes_after_an_unsure_one():
    scores = np.array([[0.5, 0.5], [0.5, 0.5], [0.99, 0.01], [0.9, 0.1]])
    chosen = choose_clips(scores, CLIPS, np.array([[1, 0]], np.float32), num=9)
    assert [place for place, _ in chosen] == [1, 3, 0, 2]


def test_the_command_names_new_videos_and_writes_a_table(tmp_path, capsys):
    save_toy(tmp_path / "model.pt")
    for number in range(4):
        write_clip(tmp_path / "new" / f"{number}.mp4", number % 2, number)
    (tmp_path / "new" / "broken.mp4").write_text("no video")
    words = ["suggest", "--data", str(tmp_path / "new"), "--checkpoint", str(tmp_path / "model.pt"), "-n", "3",
             "--num-workers", "0", "--device", "cpu"]
    assert main([*words, "--csv", str(tmp_path / "next.csv")]) == 0
    said = capsys.readouterr()
    assert "broken.mp4" in said.err and "not counted as labelled" in said.err
    rows = list(csv.DictReader((tmp_path / "next.csv").read_text().splitlines()))
    assert len({row["path"] for row in rows}) == 3 and all(0 <= float(row["uncertainty"]) <= 1 for row in rows)
    for wrong, says in ((["--data", str(tmp_path / "none")], "no such folder of videos"), (["-n", "0"], "--num is 0"),
                        (["--data", str(tmp_path / "empty")], "no video in it")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert main([*words, *wrong]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1, error
