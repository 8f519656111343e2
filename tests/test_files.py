"""Outputs are whole or not there, and never replace what somebody else made."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from toys import save_toy

from tinyaction import files
from tinyaction.files import check_output, new_folder, part_of, put_in_place, remove_parts, whole_file, write_whole
from tinyaction.inference.timeline import Segment, write_segments
from tinyaction.results.evaluation import Evaluation
from tinyaction.results.report import write_report
from tinyaction.results.run import METRICS, TIMES, RunFolder
from tinyaction.results.sheets import write_png
from tinyaction.video.writer import VideoFile

DEAD = 2**22 + 1  # above the largest process number of Linux and macOS


@pytest.fixture(autouse=True)
def ledger(tmp_path_factory, monkeypatch) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache / "tinyaction" / "outputs.txt"


# ---- whole or not at all --------------------------------------------------------------------------------------------


def test_text_and_bytes_are_written_and_nothing_stays_beside_them(tmp_path):
    write_whole(tmp_path / "a.txt", "ä\udcff\n")
    write_whole(tmp_path / "b.bin", b"\x00\xff")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa4\xff\n"
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\xff"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_error_in_the_middle_keeps_the_old_file(tmp_path, error):
    write_whole(tmp_path / "a.txt", "old")
    with pytest.raises(error), whole_file(tmp_path / "a.txt") as part:
        part.write_text("ne")
        raise error
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_name_appears_after_the_file_is_on_the_disk_and_then_the_folder(tmp_path, monkeypatch):
    path, steps = tmp_path / "a.txt", []
    fsync, replace = os.fsync, os.replace

    def kind(number: int) -> str:
        return "folder" if os.path.samestat(os.fstat(number), os.stat(tmp_path)) else "file"

    monkeypatch.setattr(os, "fsync", lambda number: (steps.append((kind(number), path.exists())), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda old, new: (steps.append(("rename", path.exists())), replace(old, new)))
    write_whole(path, "new")
    assert steps == [("file", False), ("rename", False), ("folder", True)]


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "disk" / "a.txt")
    write_whole(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "disk" / "a.txt").read_text() == "new"


def write_slowly(path: Path, connection) -> None:
    with whole_file(path) as part:
        part.write_text("half")
        connection.send(part.name)
        time.sleep(60)


def test_what_a_killed_process_left_goes_with_the_next_write_and_a_living_one_keeps_its_own(tmp_path):
    """The kill is real: SIGKILL in the middle of a write."""
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=write_slowly, args=(tmp_path / "last.pt", theirs))
    process.start()
    name = ours.recv()
    remove_parts(tmp_path)
    assert os.listdir(tmp_path) == [name]                              # it is alive
    process.kill()
    process.join()
    (tmp_path / f".last.pt.{DEAD}.part").write_text("of an earlier version")
    (tmp_path / f".set.{DEAD}.part").mkdir()
    (tmp_path / f".set.{DEAD}.part" / "clip.mp4").write_text("half")
    (tmp_path / ".notes.part").write_text("somebody's own")
    files._remove_parts_once.cache_clear()                             # a new process begins with an empty one
    write_whole(tmp_path / "last.pt", "whole")
    assert sorted(os.listdir(tmp_path)) == [".notes.part", "last.pt"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux tells of processes in /proc")
def test_a_process_that_has_ended_is_not_alive_although_its_parent_never_asks():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert files.is_alive(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)          # it has ended, and its number is still taken
    assert not files.is_alive(process.pid)
    process.communicate()


@pytest.mark.parametrize("folder", ["new", "empty"])
def test_a_new_folder_is_whole_or_not_there(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError), new_folder(tmp_path / folder) as part:
        (part / "a.txt").write_text("a")
        raise OSError
    assert os.listdir(tmp_path) == ["empty"] and os.listdir(tmp_path / "empty") == []
    with new_folder(tmp_path / folder) as part:
        (part / "a.txt").write_text("a")
    assert os.listdir(tmp_path / folder) == ["a.txt"]
    with pytest.raises(FileExistsError), new_folder(tmp_path / folder):
        pass


# ---- may it be written? ---------------------------------------------------------------------------------------------


def test_a_new_file_and_an_empty_folder_may_be_written(tmp_path):
    assert check_output(tmp_path / "a.csv", flag="--csv") == tmp_path / "a.csv"
    assert check_output(str(tmp_path / "x" / "y"), flag="--out", is_folder=True) == tmp_path / "x" / "y"
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty", flag="--out", is_folder=True)
    with pytest.raises(ValueError, match="--csv is .*, which is a folder; name a file"):
        check_output(tmp_path / "empty", flag="--csv")
    with pytest.raises(FileNotFoundError, match="--csv is .*no/a.csv; there is no such folder"):
        check_output(tmp_path / "no" / "a.csv", flag="--csv")


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["same", "relative", "symbolic link", "hard link", "parts"])
def test_an_input_is_never_written_even_with_force(tmp_path, monkeypatch, kind, force):
    monkeypatch.chdir(tmp_path)
    source = check_output(tmp_path / "q.mp4", flag="--overlay")
    write_whole(source, "video")  # made by tinyaction, so --force could replace it
    output = {"same": source, "relative": Path("q.mp4"), "symbolic link": Path("link.mp4"),
              "hard link": Path("hard.mp4"), "parts": tmp_path / "." / "x" / ".." / "q.mp4"}[kind]
    (tmp_path / "x").mkdir()
    if kind == "symbolic link":
        output.symlink_to(source)
    if kind == "hard link":
        output.hardlink_to(source)
    with pytest.raises(ValueError, match=r"^--overlay is .*, which this command also reads or writes; name another"):
        check_output(output, flag="--overlay", inputs=["0", "clips/*.mp4", source], force=force)


def test_an_input_that_does_not_exist_yet_counts_too(tmp_path):
    with pytest.raises(ValueError, match="also reads or writes"):
        check_output(tmp_path / "a.csv", flag="--timeline", inputs=[tmp_path / "a.csv"])


def test_force_replaces_what_tinyaction_wrote_and_nothing_else(tmp_path, ledger):
    path = tmp_path / "ä a.csv"
    write_whole(check_output(path, flag="--csv"), "one")
    assert len(ledger.read_text().splitlines()) == 1
    with pytest.raises(ValueError, match=r"--csv is .* which exists; name another file with --csv, or add --force"):
        check_output(path, flag="--csv")
    write_whole(check_output(path, flag="--csv", force=True), "two")
    write_whole(check_output(path, flag="--csv", force=True), "three")
    path.write_text("a person's")
    with pytest.raises(ValueError, match=r"exists and was not written by tinyaction, or was changed since"):
        check_output(path, flag="--csv", force=True)
    assert path.read_text() == "a person's"


@pytest.mark.parametrize("make", [
    lambda path: path.write_text("mine"), lambda path: (path.mkdir(), (path / "a").touch()),
    lambda path: path.symlink_to("nowhere"), os.mkfifo,
])
@pytest.mark.parametrize("force", [False, True])
def test_what_somebody_else_made_is_never_written(tmp_path, make, force):
    make(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"--csv is .*a\.csv"):
        check_output(tmp_path / "a.csv", flag="--csv", force=force)


def test_files_that_no_command_announced_are_not_in_the_ledger(tmp_path, ledger):
    write_whole(tmp_path / "a.txt", "a")
    assert not ledger.exists()


def test_without_a_home_it_writes_and_force_replaces_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "no"))
    (tmp_path / "file").touch()
    write_whole(check_output(tmp_path / "a.csv", flag="--csv"), "one")
    with pytest.raises(ValueError, match="was not written by tinyaction"):
        check_output(tmp_path / "a.csv", flag="--csv", force=True)


def test_a_writer_that_makes_its_file_itself(tmp_path, ledger):
    path = check_output(tmp_path / "a.mp4", flag="--overlay")
    part = part_of(path, suffix=".mp4")
    assert part.name.startswith(f".a.mp4.{os.getpid()}@") and part.name.endswith(".part.mp4")
    assert part.parent == tmp_path
    part.write_text("video")
    put_in_place(part, path)
    check_output(path, flag="--overlay", force=True)


# ---- every writer ---------------------------------------------------------------------------------------------------


def write_predictions(path: Path) -> None:
    evaluation = Evaluation(0.5, np.eye(2), np.arange(2), ["a.mp4", "b.mp4"], 1.0, 2.0)
    run = RunFolder(path.parent, reopen=True)
    try:
        run.write_predictions(evaluation, ["x", "y"])
    finally:
        run.close()


def write_report_of_a_run(path: Path) -> None:
    config = {"data": "gone", "model": "conv2d", "class_names": ["x", "y"], "clip_len": 2, "size": 16, "versions": {}}
    (path.parent / "config.json").write_text(json.dumps(config))
    (path.parent / "metrics.csv").write_text(",".join((*METRICS, *TIMES)) + "\n" + "1,0.1,1,0.5,1,0.5,0.5,1,1\n")
    write_report(path.parent)


def write_video(path: Path) -> None:
    with VideoFile(path, fps=5, replace=True) as video:
        video.write(np.zeros((16, 16, 3), np.uint8))


@pytest.mark.parametrize("name, write", [
    ("predictions.csv", write_predictions), ("report.html", write_report_of_a_run), ("video.mp4", write_video),
    ("segments.csv", lambda path: write_segments(path, [Segment(0, 1, "x", 0.5)])),
    ("sheet.png", lambda path: write_png(path, np.zeros((4, 4, 3), np.uint8))),
    ("model.pt", lambda path: save_toy(path)),
])
def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path, monkeypatch, name, write):
    path = tmp_path / "folder" / name
    path.parent.mkdir()
    path.write_text("old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path)
    assert path.read_text() == "old"
    assert not [item.name for item in path.parent.iterdir() if ".part" in item.name]
    monkeypatch.undo()
    write(path)
    assert path.read_bytes() != b"old"
