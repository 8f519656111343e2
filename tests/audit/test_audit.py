"""An audit of a set in which faults were planted, as a command and as a function."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from toys import clip_of, place

from tinyaction.cli import main
from tinyaction.data.annotations import find_data
from tinyaction.results.shortcuts import Shortcut, shortcut_sentences
from tinyaction.training.shortcuts import from_metadata, majority
from tinyaction.video.writer import write_video


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """Class "a" lies, class "b" stands: orientation tells them apart; b/5 is a crop of b/0; one clip is dark."""
    folder = tmp_path_factory.mktemp("planted") / "clips"
    rows = []
    for number in range(12):
        label = "ab"[number % 2]
        frames = clip_of(place(number), seed=number, num_frames=6)
        if number == 11:
            frames = clip_of(place(1), seed=77, num_frames=6)
            frames = [np.ascontiguousarray(frame[10:230, 20:310]) for frame in frames]
        if number == 4:
            frames = [frame // 40 for frame in frames]
        if label == "b":
            frames = [np.ascontiguousarray(frame[:, 60:240]) for frame in frames]
        path = folder / label / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, [frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2] for frame in frames], fps=10)
        rows.append((f"{label}/{number}.mp4", label, "train" if number < 8 else "val"))
    with open(folder / "split.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder


def test_what_was_planted_is_found_and_written(planted: Path, tmp_path: Path, capsys):
    out, groups = tmp_path / "audit", tmp_path / "groups.csv"
    assert main(["audit", "--data", str(planted), "--num-workers", "1", "--out", str(out),
                 "--write-groups", str(groups), "--allow-outside"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    facts = json.loads((out / "audit.json").read_text())
    assert [[Path(pair[name]).stem for name in ("first", "second")] for pair in facts["leaks"]] == [["1", "11"]]
    assert [Path(odd["path"]).stem for odd in facts["odd"]] == ["4"] and "dark" in facts["odd"][0]["what"]
    assert "orientation alone gives 1.00" in said
    assert "1 of 4 validation clips are of the same recording or place" in said
    assert "needs features of a pretrained network" in said
    listed = (out / "look_at.txt").read_text().splitlines()
    assert [Path(path).stem for path in listed] == ["11", "1", "4"]
    page = (out / "audit.html").read_text()
    assert page.count("<img") == 3 and "http" not in page
    found = find_data(groups, allow_outside=True)
    sides = [{name for name in videos.groups} for videos in (found.train, found.val)]
    assert sides[0] & sides[1] == set() and len(sides[0] | sides[1]) == 11


def test_bad_input_is_one_sentence(planted: Path, tmp_path: Path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("a person's own")
    for words, says in (
        (["--data", str(tmp_path / "none")], "none"),
        (["--data", str(planted), "--out", str(tmp_path / "full")], "a folder that is not empty"),
        (["--data", str(planted), "--out", str(tmp_path / "x"), "--model", "tsn-x"], "tsn-x"),
    ):
        assert main(["audit", *words]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1, error
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("clips", ["a/0 a/1", "a/0 b/1", "a/0 gone"])
def test_what_cannot_be_split_is_looked_at_all_the_same(planted: Path, tmp_path: Path, capsys, clips):
    """One class; one clip a class; a list whose only validation clip is gone."""
    data, names = tmp_path / "data", clips.split()
    for name in names:
        path = data / f"{name}.mp4" if "/" in name else data / "b" / "gone.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        if name != "gone":
            path.write_bytes((planted / "a" / "0.mp4").read_bytes())
    if "gone" in names:
        (data / "split.csv").write_text("path,label,split\na/0.mp4,a,train\nb/gone.mp4,b,val\n")
    assert main(["audit", "--data", str(data), "--num-workers", "1", "--out", str(tmp_path / "audit")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no simpler models and no doubtful labels" in said
    assert ("1 clips cannot be read" if "gone" in names else "no validation, so nothing is said of leaks") in said
    facts = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert len(facts["same_recording"]) == (0 if "gone" in names else 1) and facts["leaks"] == []


# ---- simpler models ------------------------------------------------------------------------------------------------

FOLDS = [([0, 1, 2, 3], [4, 5]), ([2, 3, 4, 5], [0, 1]), ([0, 1, 4, 5], [2, 3])]
LABELS = np.array([0, 1, 0, 1, 0, 1])


def test_facts_of_files_are_held_out_too():
    facts = np.array([[0.0, 5], [1, 5], [0, 5], [1, 5], [0, 5], [1, 5]])
    assert from_metadata("orientation", facts[:, [0]], LABELS, FOLDS).accuracy == 1
    assert from_metadata("nothing", facts[:, [1]], LABELS, FOLDS).accuracy == 0.5  # a constant says nothing
    own = np.arange(6.0)[:, None] ** 2 % 5             # different for each clip, of no use for the others
    assert from_metadata("own", own, LABELS, FOLDS).accuracy < 1
    assert majority(np.array([0, 0, 2])).num_right == 2


@pytest.mark.parametrize(("right", "says"), [
    ({"orientation": 58}, "orientation alone gives 0.97"),
    ({"what the file says": 57}, "what the file says, no picture, alone gives 0.95"),
    ({"all frames": 55, "one middle frame": 55}, "one frame gives 0.92"),
    ({"all frames": 55, "one middle frame": 40, "frames shuffled": 55}, "does not use the order"),
    ({"all frames": 55, "one middle frame": 40, "frames shuffled": 30}, ""),
])
def test_a_sentence_where_it_matters(right, says):
    counts = {"the most frequent class": 30, "orientation": 30, "what the file says": 31} | right
    if "all frames" in counts:
        counts.setdefault("frames shuffled", 30)
    sentences = shortcut_sentences([Shortcut(name, count, 60) for name, count in counts.items()])
    assert (says in sentences[0] if says else sentences == []), sentences
