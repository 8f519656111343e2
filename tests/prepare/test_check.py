"""The check of a folder: each kind of trouble is found, named, and taken out of the clean lists."""

import json
import multiprocessing
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from toys import bar_frames, write_clip, write_set

import tinyaction.prepare.check
from tinyaction.cli.check import main, report_lines
from tinyaction.data.annotations import find_data
from tinyaction.data.class_folders import is_video
from tinyaction.prepare.check import Check, Finding, check_data, check_file, check_files
from tinyaction.video import open_video
from tinyaction.video.writer import write_video


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
    assert (troubled / "clean.csv").read_text() == (
        "path,label,split\ntrain/clip 0.mp4,lying,train\ntrain/clip 1.mp4,standing,train\n"
        "train/clip 5.mp4,standing,train\nval/clip 2.mp4,lying,val\nval/clip 3.mp4,standing,val\n")
    assert f"clean.csv: 5 of 11 videos; train with: tinyaction train --data {troubled}/clean.csv\n" in text
    (troubled / "classes.txt").write_text("lying\nstanding\n")
    assert main(["--data", str(troubled / "clean.csv"), "--num-workers", "1", "--clip-len", "3"]) == 0
    assert "nothing wrong was found" in capsys.readouterr().out
    assert len(find_data(troubled).train) == 7  # clean.csv is read where it is named only


def test_the_clean_table_keeps_every_column(tmp_path, capsys):
    """Numbers of frames hold when it is read, whether a table gave them or a text list."""
    folder = tmp_path / "data"
    for number in range(4):
        write_clip(folder / f"={number}.mp4", number % 2, number)
    (folder / "bad.mp4").write_text("no video")
    (folder / "v.csv").write_text("path,num_frames,label,split,person\n" + "".join(
        f"={number}.mp4,{number + 3},{'ab'[number % 2]},{'train' if number < 2 else 'val'},p {number}\n"
        for number in range(4)) + "bad.mp4,1,a,train,@\n")
    assert main(["--data", str(folder), "--num-workers", "1", "--clip-len", "3", "--write-clean"]) == 1
    assert (folder / "clean.csv").read_text().splitlines() == [
        "path,label,split,num_frames,person", "'=0.mp4,a,train,3,p 0", "'=1.mp4,b,train,4,p 1", "'=2.mp4,a,val,5,p 2",
        "'=3.mp4,b,val,6,p 3"]
    data = find_data(folder / "clean.csv")
    assert [data.train.num_frames.tolist(), data.val.num_frames.tolist()] == [[3, 4], [5, 6]]
    assert data.train[0] == (str(folder / "=0.mp4"), 0) and data.val.columns["person"] == ["p 2", "p 3"]


def test_the_clean_table_of_lists_of_frames_keeps_their_numbers(tmp_path, frame_folder, capsys):
    for name in ("a", "b", "c"):
        frame_folder(num=ord(name) - ord("a") + 3, folder=name)
    (tmp_path / "train.txt").write_text("a 3 0\nb 2 1\n")
    (tmp_path / "val.txt").write_text("c 2 1\n")
    assert main(["--data", str(tmp_path), "--num-workers", "1", "--clip-len", "1", "--write-clean"]) in (0, 1)
    assert (tmp_path / "clean.csv").read_text() == (
        "path,label,split,num_frames\na,0,train,3\nb,1,train,2\nc,1,val,2\n")
    assert find_data(tmp_path / "clean.csv").train.num_frames.tolist() == [3, 2]


@pytest.mark.parametrize("cell", ["x", "0", "", "9" * 30])
def test_a_wrong_number_of_frames_is_named(cell, tmp_path):
    (tmp_path / "v.csv").write_text("path,label,split,num_frames\na.mp4,0,train,3\nb.mp4,1,val,3\n"
                                    f"c.mp4,1,val,{cell}\n")
    with pytest.raises(ValueError, match=rf"v\.csv, line 4: num_frames is '{cell}'; it must be a whole number from 1"):
        find_data(tmp_path)


def test_videos_on_another_drive_are_named_whole(monkeypatch):
    """As Windows does it: no path leads from one drive to another."""
    def refuse(path, start):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("os.path.relpath", refuse)
    check = Check({}, [Finding("missing", ["D:/a.mp4"], "no such file")], {"a": {"train": 1, "val": 1}})
    assert report_lines(check, "C:/data")[-1] == "  D:/a.mp4: no such file"


def test_clean_tables_of_class_folders(tmp_path, capsys):
    for label, name in enumerate(("a", "b")):
        for number in range(4):
            write_clip(tmp_path / "data" / name / f"{number}.mp4", label, seed=10 * label + number)
    (tmp_path / "data" / "a" / "0.mp4").write_bytes(b"")
    assert main(["--data", str(tmp_path / "data"), "--num-workers", "1", "--write-clean"]) == 1
    assert "7 of 8 videos" in capsys.readouterr().out
    data = find_data(tmp_path / "data" / "clean.csv")
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


def hang_or_crash(path: str):
    """In the place of open_video."""
    if path.endswith("clip 1.mp4"):
        time.sleep(60)
    if path.endswith("clip 2.mp4"):
        os._exit(11)
    return open_video(path)


def test_a_file_that_hangs_and_one_that_crashes_are_findings(bars, monkeypatch):
    """The reader is replaced in this process; the workers are its forks."""
    monkeypatch.setattr("tinyaction.prepare.check.open_video", hang_or_crash)
    paths = [str(bars / "train" / f"clip {number}.mp4") for number in range(6)]
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    try:
        results = {result.path: result for result in check_files(paths, num_workers=2, video_timeout=1.0)}
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert list(sorted(results)) == paths
    assert {path[-10:]: result.kind for path, result in results.items() if result.problem} == {
        "clip 1.mp4": "hangs", "clip 2.mp4": "crashes"}


def flip_bits(path: Path, *, seed: int, num_bits: int = 20) -> None:
    """In the middle half of the file, where the coded frames are."""
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(len(data) // 4, len(data) * 3 // 4, num_bits):
        data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def test_concealed_damage_is_named(tmp_path, capsys):
    """The MJPEG decoder gives every frame and complains; such files are kept in the clean list, or dropped."""
    for label, name in enumerate("ab"):
        for number in range(4):
            path = tmp_path / "data" / name / f"{number}.avi"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, bar_frames(label, seed=number, num_frames=20), fps=10, codec="mjpeg")
            if number < 3:
                flip_bits(path, seed=10 * label + number)
    assert main(["--data", str(tmp_path / "data"), "--num-workers", "1", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    concealed = {file["path"] for file in found["files"] if file["concealed_damage"]}
    num_readable = found["num_readable"]
    assert concealed and len(concealed) + 8 - num_readable >= 3
    assert not any(path.endswith("3.avi") for path in concealed)
    assert found["num_concealed"] == found["findings"]["concealed damage"] == len(concealed)
    text = next(finding["text"] for finding in found["list"] if finding["kind"] == "concealed damage")
    assert re.fullmatch(r"all frames come, but the decoder complains \d+ times, first: .+", text)
    for flags, num_kept in (([], num_readable), (["--drop-concealed"], num_readable - len(concealed))):
        assert main(["--data", str(tmp_path / "data"), "--num-workers", "1", "--write-clean", "--force", *flags]) == 1
        said = capsys.readouterr().out
        assert f"{num_readable} of 8 videos can be read to their end, {len(concealed)} of them with concealed" in said
        assert f"{num_kept} of 8 videos; train with" in said


def test_flipped_bits_of_mpeg4_are_mostly_errors(tmp_path):
    """Of what the decoder does not notice nothing can be said."""
    num_named = 0
    for seed in range(20):
        path = tmp_path / f"{seed}.mp4"
        write_clip(path, 0, seed=seed, num_frames=20)
        flip_bits(path, seed=seed)
        result = check_file(str(path))
        num_named += bool(result.problem or result.concealed_damage)
    assert num_named >= 16


@pytest.mark.parametrize("folder", ["files", "odd", "weizmann4"])
def test_no_sound_file_is_accused_of_damage(shared, folder):
    files = [str(path) for path in sorted((shared / "clips" / folder).rglob("*")) if is_video(path)]
    accused = {Path(result.path).name: result.concealed_damage for result in check_files(files, num_workers=2)
               if result.concealed_damage}
    assert len(files) > 8 and accused == {}


def test_equal_files_under_two_labels(tmp_path, capsys):
    for label, name in enumerate(("a", "b")):
        for number in range(4):
            write_clip(tmp_path / "data" / name / f"{number}.mp4", label, seed=10 * label + number)
    find_data(tmp_path / "data")  # chooses the split
    data = find_data(tmp_path / "data")
    first = next(data.train[i][0] for i in range(len(data.train)) if data.train[i][1] == 0)
    second = next(data.train[i][0] for i in range(len(data.train)) if data.train[i][1] == 1)
    shutil.copyfile(first, second)
    write_clip(tmp_path / "data/c/0.mp4", 0, seed=99)
    assert main(["--data", str(tmp_path / "data"), "--num-workers", "1", "--write-clean"]) == 1
    text = capsys.readouterr().out
    assert f"same content under two labels: 1\n  {first[-7:]} = {second[-7:]}: labels 'a', 'b'\n" in text
    assert "not used: 1\n  1 videos in " in text and "it has no video of 'c': delete split.csv to split anew" in text
    assert "clean.csv: 6 of 8 videos" in text


def test_a_copy_in_another_encoding_has_nearly_the_same_hash(shared, tmp_path):
    """Real clips, decoded and written again with another codec; other clips of the same kind differ."""
    from tinyaction.prepare.check import NEAR_BITS, _distance

    clips = sorted((shared / "clips/kinetics400_tiny/val").glob("*.mp4"))[:6:5] + [shared / "clips/odd/demo.mp4"]
    hashes = []
    for clip in clips:
        reader = open_video(clip)
        frames = reader.get_batch(range(40))[:, ::2, ::2]
        first, second = tmp_path / "a.avi", tmp_path / "b.mp4"
        write_video(first, frames, fps=25, codec="mjpeg", replace=True)
        write_video(second, frames, fps=25, codec="mpeg4", replace=True)
        hashes.append([check_file(str(path)).perceptual_hash for path in (first, second)])
    for one, other in hashes:
        assert _distance(one, other) <= NEAR_BITS
    assert min(_distance(hashes[i][0], hashes[k][0]) for i in range(3) for k in range(i)) > 5 * NEAR_BITS


def test_wrong_flags_are_named(bars, capsys):
    assert main(["--data", str(bars), "--clip-len", "0"]) == 2
    assert "--clip-len is 0; it must be at least 1" in capsys.readouterr().err
