"""No command writes to a path that existed before it: inputs, lists, other people's files."""

import os
from pathlib import Path

import numpy as np
import pytest
from toys import save_toy, write_clip, write_set

from tinyaction.cli import COMMANDS, main

# A command with its flag for an output; VIDEO, CHECKPOINT and DATA are its inputs, OUT is the output.
OUTPUTS = [
    "predict VIDEO --checkpoint CHECKPOINT --device cpu --csv OUT",
    "predict VIDEO --checkpoint CHECKPOINT --device cpu --json OUT",
    "predict VIDEO --checkpoint CHECKPOINT --device cpu --overlay OUT",
    "predict VIDEO --checkpoint CHECKPOINT --device cpu --window 0.5 --timeline OUT",
    "predict VIDEO --checkpoint CHECKPOINT --device cpu --on lying>0.5 --save-events OUT",
    "explain VIDEO --checkpoint CHECKPOINT --device cpu --out OUT",
    "explain VIDEO --checkpoint CHECKPOINT --device cpu --no-video --out OUT",
    "embed VIDEO --checkpoint CHECKPOINT --device cpu --out OUT",
    "export --checkpoint CHECKPOINT --format torchscript --out OUT",
    "export --checkpoint CHECKPOINT --format torch-export --out OUT",
    "prepare direction --num-train 2 --num-val 2 --data OUT",
    "prepare streams --num-train 1 --num-val 1 --seconds 10 --data OUT",
    "prepare import SEGMENTS --export activitynet --out OUT",
    "prepare import SEGMENTS --out OUT",
    "prepare split --data DATA --by class --out OUT",
    "store --data DATA --num-workers 0 --out OUT",
    "store --data DATA --num-workers 0 --out DATA-store --part 1/2 --parts OUT",
    "check --data DATA --part 1/2 --parts OUT",
    "predict VIDEO --checkpoint CHECKPOINT --device cpu --part 1/2 --parts OUT",
    "embed VIDEO --checkpoint CHECKPOINT --device cpu --part 1/2 --parts OUT",
    "bench --data VIDEO --repeats 1 --num-workers 0 --clip-len 2 --size 16 --device cpu --json OUT",
    "compare RUN RUN --out OUT",
    "evaluate --data DATA --checkpoint CHECKPOINT --num-workers 0 --device cpu --out OUT",
    "evaluate --task timeline --data SEGMENTS --checkpoint CHECKPOINT --device cpu --out OUT",
    "audit --data DATA --num-workers 1 --out OUT",
    "audit --data DATA --num-workers 1 --out DATA-audit --write-groups OUT",
    "suggest --data DATA --checkpoint CHECKPOINT --device cpu --num-workers 0 --csv OUT",
    "predict VIDEO --checkpoint CHECKPOINT --device cpu --window 0.5 --srt OUT",
    "predict VIDEO --checkpoint CHECKPOINT --device cpu --window 0.5 --vtt OUT",
    "train --data DATA --epochs 1 --num-workers 0 --device cpu --size 16 --clip-len 2 --out OUT",
    "train --data DATA --method probe --num-workers 0 --device cpu --size 16 --clip-len 2 --out OUT",
    "train --data DATA --method probe --folds 2 --num-workers 0 --device cpu --size 16 --clip-len 2 --out OUT",
    "train --data SEGMENTS --task timeline --num-workers 0 --device cpu --out OUT",
    "embed --data DATA --checkpoint CHECKPOINT --device cpu --num-workers 0 --out OUT",
    "prepare kinetics400_tiny --data OUT",
]
WITHOUT_OUTPUT = {"check", "report", "models", "neighbors", "join"}  # check names its files itself, below
FORCED = ("predict", "explain", "embed", "export", "bench", "compare", "prepare import", "prepare split", "suggest",
          "prepare kinetics", "audit --data DATA --num-workers 1 --out DATA-audit")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Inputs of commands, a file of every kind that they write, a person's folder."""
    folder = tmp_path_factory.mktemp("place")
    write_set(folder / "data", num_train=2, num_val=2)
    write_clip(folder / "q.mp4", 0, 1)
    write_clip(folder / "data.mp4", 1, 2)
    save_toy(folder / "model.pt")
    (folder / "segments.csv").write_text("path,start,end,label\nq.mp4,0,1,lying\n")
    np.save(folder / "list.npy", np.ones(3))
    for name in ("list.txt", "split.csv", "scores.json", "q.png", "q.csv", "q.npy", "model.torchscript", "model.pt2",
                 "q.txt", "plain"):
        (folder / name).write_text("a person's own\n")
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def words_of(command: str, place: Path, out: str | Path) -> list[str]:
    names = {"VIDEO": place / "q.mp4", "CHECKPOINT": place / "model.pt", "DATA": place / "data", "OUT": out,
             "SEGMENTS": place / "segments.csv", "NEW": place / "new"}
    return [str(names.get(word, word)) for word in command.split()]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("command", OUTPUTS)
def test_no_command_writes_to_what_is_there(place, monkeypatch, capsys, command, force):
    monkeypatch.chdir(place)
    if force and not command.startswith(FORCED):
        pytest.skip("the command has no --force")
    before = snapshot(place)
    targets = [path for path in place.rglob("*") if not path.name.startswith(".")] + [place]
    for target in targets:
        for out in (target, os.path.relpath(target)):
            assert main(words_of(command, place, out) + ["--force"] * force) == 2, out
            error = capsys.readouterr().err
            assert error.startswith("error: ") and error.count("\n") == 1, error
    assert snapshot(place) == before


@pytest.mark.parametrize("command, sibling", [
    (OUTPUTS[3], "new.png"), (OUTPUTS[5], "new.mp4"), (OUTPUTS[7], "new.txt"),
])
def test_what_is_written_beside_the_output_counts_too(place, tmp_path, capsys, command, sibling):
    (tmp_path / sibling).write_text("a person's own")
    suffix = {"predict": ".csv", "explain": ".png", "embed": ".npy"}[command.split()[0]]
    assert main(words_of(command, place, tmp_path / f"new{suffix}")) == 2
    assert f"{sibling}, which exists and was not written by tinyaction" in capsys.readouterr().err
    assert os.listdir(tmp_path) == [sibling]


@pytest.mark.parametrize("command, suffix", [
    (OUTPUTS[0], ".csv"), (OUTPUTS[1], ".json"), (OUTPUTS[2], ".mp4"), (OUTPUTS[3], ".csv"), (OUTPUTS[5], ".png"),
    (OUTPUTS[7], ".npy"), (OUTPUTS[8], ".torchscript"),
])
def test_a_new_name_is_written_and_replaced_only_with_force(place, tmp_path, capsys, command, suffix):
    before = snapshot(place)
    words = words_of(command, place, tmp_path / f"new{suffix}")
    assert main(words) == 0
    written = snapshot(tmp_path)
    assert str(tmp_path / f"new{suffix}") in written and not list(tmp_path.glob(".*"))
    capsys.readouterr()
    assert main(words) == 2
    assert "add --force to replace it" in capsys.readouterr().err
    assert snapshot(tmp_path) == written
    assert main([*words, "--force"]) == 0
    assert snapshot(tmp_path).keys() == written.keys() and snapshot(place) == before


def test_two_outputs_of_one_name(place, tmp_path, capsys):
    out = str(tmp_path / "a.csv")
    assert main([*words_of(OUTPUTS[3], place, out), "--csv", out]) == 2
    assert "which this command also reads or writes" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_clean_lists(tmp_path, capsys):
    write_set(tmp_path / "data", num_train=2, num_val=2)
    (tmp_path / "data" / "clean.csv").write_text("a person's own")
    words = ["check", "--data", str(tmp_path / "data"), "--num-workers", "1", "--clip-len", "2", "--write-clean"]
    before = snapshot(tmp_path)
    for force in ([], ["--force"]):
        assert main(words + force) == 2
        assert "--write-clean is " in capsys.readouterr().err
    assert snapshot(tmp_path) == before
    (tmp_path / "data" / "clean.csv").unlink()
    assert main(words) in (0, 1)
    assert main(words) == 2
    assert main([*words, "--force"]) in (0, 1)


def test_every_command_is_looked_at():
    assert {command.split()[0] for command in OUTPUTS} | WITHOUT_OUTPUT == set(COMMANDS)
