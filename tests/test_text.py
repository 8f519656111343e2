"""Names that try to be more than names: for a terminal, a list, a spreadsheet."""

import csv
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import save_toy, write_set

from tinyaction.cli import say
from tinyaction.cli.predict import main as predict
from tinyaction.data.annotations import find_data
from tinyaction.models.checkpoint import Checkpoint
from tinyaction.results.run import RunFolder
from tinyaction.text import check_class_names, from_cell, printable, shell_line, to_cell, wrapped


def test_control_characters_become_their_codes():
    assert printable("a\x1b[2Jb\tc\nd\x9b\x7f – é\r") == "a\\x1b[2Jb\tc\nd\\x9b\\x7f – é\\x0d"


@given(st.text())
def test_nothing_reaches_a_terminal_but_text(text):
    assert all(letter.isprintable() or ord(letter) >= 160 or letter in "\n\t" for letter in printable(text))


@given(st.text(alphabet="'=+-@ab", max_size=6))
def test_cells_come_back_and_no_formula_stands_in_one(text):
    assert from_cell(to_cell(text)) == text
    assert to_cell(text)[:1] not in tuple("=+-@")


@pytest.mark.parametrize("name, words", [
    ("two\nlines", "has a line break or another control character"), ("\x1b[31mred", "line break or another control"),
    ("", "the name of class 1 is empty"), ("  ", "the name of class 1 is empty"), ("a\u2028b", "a line break"),
])
def test_class_names_that_are_refused(name, words):
    with pytest.raises(ValueError, match=f"^list.txt: .*{words}"):
        check_class_names(["fine", name], "list.txt")


def test_every_layout_is_held_to_it(tmp_path):
    (tmp_path / "videos.csv").write_text('path,label,split\na.mp4,"two\nlines",train\nb.mp4,x,train\nb.mp4,x,val\n')
    with pytest.raises(ValueError, match=r"videos\.csv: the class name 'two\\nlines' has a line break"):
        find_data(tmp_path)


@pytest.mark.parametrize("names, words", [
    (None, "its class_names are no list of names"), ([1, 2], "its class_names are no list of names"),
    ("ab", "its class_names are no list of names"), (["a"], "it has 1 class names and 2 classes"),
    (["a", "b", "c"], "it has 3 class names and 2 classes"), (["a", "\x1b]0;title\x07"], "another control character"),
])
def test_class_names_of_a_checkpoint(names, words, tmp_path):
    path = save_toy(tmp_path / "toy.pt")
    checkpoint = Checkpoint.load(path)
    checkpoint.class_names = names
    checkpoint.save(path)
    with pytest.raises(ValueError, match=f"toy.pt: not a usable checkpoint: .*{words}"):
        Checkpoint.load(path)


def test_file_names_with_escapes_and_formulas(tmp_path, capsys, monkeypatch):
    bars = write_set(tmp_path / "bars", num_train=1, num_val=1)
    save_toy(tmp_path / "toy.pt")
    monkeypatch.chdir(tmp_path)
    clip = tmp_path / "=1+1\x1b[2J.mp4"
    clip.write_bytes((bars / "train" / "clip 0.mp4").read_bytes())
    assert predict([clip.name, "--checkpoint", "toy.pt", "--csv", "out.csv"]) == 0
    with open("out.csv", newline="") as file:
        assert next(csv.DictReader(file))["source"].startswith("'=1+1")
    assert predict([f"no {clip.name}", "--checkpoint", "toy.pt"]) == 2
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err


def test_the_log_of_a_run(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.log("read \x1b[2J.mp4")
    assert (run.path / "log.txt").read_text() == "read \\x1b[2J.mp4\n"
    run.close()


def test_a_command_is_quoted_as_its_shell_reads_it(monkeypatch):
    words = ("tinyaction", "store", "--data", "my clips")
    monkeypatch.setattr("tinyaction.text.sys.platform", "linux")
    assert shell_line(*words) == "tinyaction store --data 'my clips'"
    monkeypatch.setattr("tinyaction.text.sys.platform", "win32")
    assert shell_line(*words) == 'tinyaction store --data "my clips"'


def test_long_sentences_are_broken_and_a_command_stays_whole():
    command = "tinyaction train --data " + "a" * 80
    text = f"{'word ' * 20}train with:  {command}\nshort: {command[:40]}\nclass    train    val"
    lines = wrapped(text, 80).split("\n")
    assert f"  {command}" in lines and lines[-2:] == [f"short: {command[:40]}", "class    train    val"]
    assert all(len(line) <= 80 for line in lines if command not in line)
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())


@pytest.mark.parametrize("is_terminal", [False, True])
def test_only_a_terminal_breaks_sentences(is_terminal, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    say("word \x1b[2J " * 20)
    lines = capsys.readouterr().out.splitlines()
    assert "\x1b" not in "".join(lines) and (max(map(len, lines)) <= 80) == is_terminal


def test_no_escape_of_a_name_reaches_the_terminal_in_json(tmp_path, capsys):
    bars = write_set(tmp_path / "bars", num_train=1, num_val=1)
    save_toy(tmp_path / "toy.pt")
    clip = tmp_path / "a\x9b2J.mp4"
    clip.write_bytes((bars / "train" / "clip 0.mp4").read_bytes())
    assert predict([str(clip), "--checkpoint", str(tmp_path / "toy.pt"), "--json"]) == 0
    shown = capsys.readouterr().out
    assert "\x9b" not in shown and json.loads(shown)["source"] == str(clip)
