"""The check of a folder: each kind of trouble is found, named, and taken out of the clean lists."""

import json
import shutil
import time
from pathlib import Path

import pytest
from toys import write_clip, write_set

import tinyaction.prepare.check
from tinyaction.cli.check import main
from tinyaction.data.annotations import find_data
from tinyaction.prepare.check import check_data, check_file, check_files


@pytest.fixture(scope="module")
def bars(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("bars"), num_train=6, num_val=4)


@pytest.fixture
def troubled(bars, tmp_path) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(bars, folder)
    whole = (folder / "train" / "clip 1.mp4").read_bytes()
    (folder / "train" / "clip 2.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "clip 3.mp4").write_bytes(b"")
    (folder / "train" / "clip 4.mp4").unlink()
    (folder / "val" / "clip 0.mp4").write_bytes(b"no video at all" * 20)
    (folder / "val" / "clip 1.mp4").write_bytes(whole)
    write_clip(folder / "val" / "clip 2.mp4", 0, seed=50, num_frames=3)
    with open(folder / "bars_train_list.txt", "a") as lines:
        lines.write("clip 0.mp4 1\n")
    with open(folder / "classes.txt", "a") as lines:
        lines.write("running\n")
    return folder


KINDS = {
    "cut": ["train/clip 2.mp4"],
    "empty": ["train/clip 3.mp4"],
    "missing": ["train/clip 4.mp4"],
    "unreadable": ["val/clip 0.mp4"],
    "same content in train and val": ["train/clip 1.mp4", "val/clip 1.mp4"],
    "fewer frames than a clip": ["val/clip 2.mp4"],
    "listed twice": ["train/clip 0.mp4"],
}


def test_each_kind_of_trouble_is_found(troubled, capsys):
    assert main(["--data", str(troubled), "--num-workers", "2", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    paths = {kind: [str(Path(path).relative_to(troubled)) for finding in found["list"] if finding["kind"] == kind
                    for path in finding["paths"]] for kind in found["findings"]}
    gaps = [finding["text"] for finding in found["list"] if finding["kind"] == "label gap"]
    assert paths.pop("label gap") == []
    assert gaps == ["class 'running' has no video in train", "class 'running' has no video in val"]
    assert paths == KINDS
    assert (found["num_files"], found["num_readable"]) == (10, 6)
    assert found["frames"] == {"least": 3, "median": 10, "most": 10}
    assert found["sizes"] == {"64x64": 6}
    assert found["classes"]["lying"] == {"train": 3, "val": 2}


def test_the_table_and_the_clean_lists(troubled, capsys):
    assert main(["--data", str(troubled), "--num-workers", "1", "--write-clean"]) == 1
    text = capsys.readouterr().out
    assert "6 of 10 videos can be read to their end\n" in text
    assert "\ncut: 1\n  train/clip 2.mp4: the file is cut: it has " in text
    assert "\n  train/clip 1.mp4 = val/clip 1.mp4\n" in text
    for line in text.splitlines():
        assert len(line) <= 80 or str(troubled) in line or "  " in line[:2]
    assert (troubled / "bars_train_list.txt.clean").read_text() == "clip 0.mp4 0\nclip 1.mp4 1\nclip 5.mp4 1\n"
    assert (troubled / "bars_val_list.txt.clean").read_text() == "clip 2.mp4 0\nclip 3.mp4 1\n"
    for split in ("train", "val"):  # and with them in place nothing is left but what is too short, or in no list
        (troubled / f"bars_{split}_list.txt.clean").replace(troubled / f"bars_{split}_list.txt")
    (troubled / "classes.txt").write_text("lying\nstanding\n")
    assert main(["--data", str(troubled), "--num-workers", "1", "--clip-len", "3"]) == 0
    assert "nothing wrong was found" in capsys.readouterr().out


def test_clean_tables_of_class_folders(tmp_path, capsys):
    for label, name in enumerate(("a", "b")):
        for number in range(4):
            write_clip(tmp_path / "data" / name / f"{number}.mp4", label, seed=10 * label + number)
    (tmp_path / "data" / "a" / "0.mp4").write_bytes(b"")
    assert main(["--data", str(tmp_path / "data"), "--num-workers", "1", "--write-clean"]) == 1
    assert "7 of 8 videos" in capsys.readouterr().out
    (tmp_path / "data" / "split.csv.clean").replace(tmp_path / "data" / "split.csv")
    data = find_data(tmp_path / "data")
    assert len(data.train) + len(data.val) == 7
    assert data.class_names == ["a", "b"]


def test_a_check_that_is_given_again_reads_only_what_is_new(bars, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    shutil.copytree(bars, folder)
    read = []
    real = tinyaction.prepare.check.check_files
    monkeypatch.setattr("tinyaction.prepare.check.check_files", lambda paths, **rest: read.append(len(paths)) or real(
        paths, **rest))
    cache = tmp_path / "cache.jsonl"
    first = check_data(find_data(folder), cache=cache)
    cache.write_text(cache.read_text()[:-20])  # killed while it wrote the last line
    write_clip(folder / "train" / "clip 0.mp4", 0, seed=77)
    second = check_data(find_data(folder), cache=cache)
    assert read == [10, 2]
    assert first.findings == second.findings == []
    assert list(second.files) == list(first.files)


def test_a_file_that_hangs_and_one_that_crashes_are_findings(bars, monkeypatch):
    """The reader is replaced in this process; the workers are its forks."""
    real = tinyaction.prepare.check.open_video

    def reader(path):
        if path.endswith("clip 1.mp4"):
            time.sleep(60)
        if path.endswith("clip 2.mp4"):
            import os

            os._exit(11)
        return real(path)

    monkeypatch.setattr("tinyaction.prepare.check.open_video", reader)
    paths = [str(bars / "train" / f"clip {number}.mp4") for number in range(6)]
    results = {result.path: result for result in check_files(paths, num_workers=2, time_limit=1.0)}
    assert list(sorted(results)) == paths
    assert {path[-10:]: result.kind for path, result in results.items() if result.problem} == {
        "clip 1.mp4": "hangs", "clip 2.mp4": "crashes"}


def test_a_copy_in_another_encoding_looks_alike(shared, tmp_path):
    """Real clips, decoded and written again with another codec; other clips of the same kind do not look alike."""
    from tinyaction.prepare.check import NEAR_BITS, _distance
    from tinyaction.video import open_video
    from tinyaction.video.writer import write_video

    clips = sorted((shared / "clips/kinetics400_tiny/val").glob("*.mp4"))[:6:5] + [shared / "clips/odd/demo.mp4"]
    looks = []
    for clip in clips:
        reader = open_video(clip)
        frames = reader.get_batch(range(40))[:, ::2, ::2]
        first, second = tmp_path / "a.avi", tmp_path / "b.mp4"
        write_video(first, frames, fps=25, codec="mjpeg", replace=True)
        write_video(second, frames, fps=25, codec="mpeg4", replace=True)
        looks.append([check_file(str(path)).look for path in (first, second)])
    for one, other in looks:
        assert _distance(one, other) <= NEAR_BITS
    assert min(_distance(looks[i][0], looks[k][0]) for i in range(3) for k in range(i)) > 5 * NEAR_BITS


def test_wrong_flags_are_named(bars, capsys):
    assert main(["--data", str(bars), "--clip-len", "0"]) == 2
    assert "--clip-len is 0; it must be at least 1" in capsys.readouterr().err
