"""Commands in parts: joined they print and write what one run does, to the byte."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toys import save_toy, write_set

from tinyaction.audit.clips import ClipFacts
from tinyaction.audit.parts import packed, unpacked
from tinyaction.audit.recordings import Keypoints
from tinyaction.cli import main
from tinyaction.inference.embedder import Embedder
from tinyaction.prepare.parts import Part, add_line, read_lines

JOBS = {
    "check": "check --data data --num-workers 1 --clip-len 2 --write-clean",
    "store": "store --data data --num-workers 0 --short-side 16 --out store",
    "embed": "embed --data data --checkpoint model.pt --device cpu --num-workers 1 --out features.npz",
    "windows": "embed data/train data/val --checkpoint model.pt --device cpu --windows 0.4 --out windows.npy",
    "audit": "audit --data data --model conv2d --weights model.pt --size 16 --clip-len 2 --num-workers 1 --out page",
    "audit alone": "audit --data data --num-workers 1 --out page",
    "predict": "predict data/train data/val --checkpoint model.pt --device cpu --csv scores.csv --json scores.json",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_set(folder / "data", num_train=4, num_val=2)
    (folder / "data" / "val" / "clip 1.mp4").write_bytes(b"no video")
    save_toy(folder / "model.pt")
    return folder


@pytest.fixture
def here(place, tmp_path, monkeypatch) -> Path:
    """The same folder at the same time of each file, so that stores name equal times."""
    shutil.copytree(place, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def run(capsys, command: str, *more: str) -> tuple[int, str, str]:
    code = main([*command.split(), *more])
    return code, *capsys.readouterr()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".check.jsonl" and "parts" not in path.parts}


@pytest.mark.parametrize("name", JOBS)
def test_parts_joined_are_one_run(here, capsys, monkeypatch, name):
    command = JOBS[name]
    if name == "embed":
        (here / "data" / "val" / "clip 1.mp4").write_bytes((here / "data" / "val" / "clip 0.mp4").read_bytes())
    more = ["--on-error", "skip"] if name == "store" else []
    more = ["--skip-errors"] if name == "windows" else more
    before = files_of(here)
    for number in (2, 3, 1):
        code, out, err = run(capsys, command, *more, "--part", f"{number}/3", "--parts", "parts")
        assert code == 0 and f"part {number}/3, " in out and "tinyaction join parts" in out, err
    with monkeypatch.context() as patch:
        patch.delattr("tinyaction.audit.audit.look_at")                # join looks at no video
        with_parts = run(capsys, "join parts")
    joined = files_of(here)
    for path in joined.keys() - before.keys():
        (here / path).unlink()
    if name == "store":
        shutil.rmtree(here / "store")
    alone = run(capsys, command, *more)
    assert files_of(here) == joined and len(joined) > len(before)
    if name in ("store", "audit"):                                     # which says how many it does now
        assert with_parts[1].splitlines()[-2:] == alone[1].splitlines()[-2:]
    else:
        assert with_parts == alone
    if name == "audit":
        assert "features of 5 videos" in with_parts[1] and ", 0 of them computed now" in with_parts[1]
        assert ", 5 of them computed now" in alone[1]
    if name in ("check", "predict", "windows"):
        assert "clip 1.mp4" in "".join(alone[1:])


def test_embed_names_videos_that_cannot_be_read_and_leaves_them_out(here, capsys):
    """One of two whose names follow each other, so that the second keeps its own name."""
    command = JOBS["embed"].replace("data data", "data data --skip-errors")
    assert run(capsys, JOBS["embed"])[0] == 2
    code, out, err = run(capsys, command)
    assert code == 2 and "features.npz: 5 videos, " in out
    assert "error: data/val/clip 1.mp4: " in err and "error: 1 of 6 videos could not be read" in err
    with np.load(here / "features.npz") as found:
        assert [Path(name).name for name in found["names"]] == [f"clip {i}.mp4" for i in (0, 1, 2, 3, 0)]
        one = Embedder("model.pt", device="cpu")(str(found["names"][4]))
        np.testing.assert_allclose(found["features"][4], one, rtol=1e-5)
        assert len(found["labels"]) == 5
    assert run(capsys, JOBS["embed"], "--force", "--part", "1/1", "--parts", "parts")[0] == 0
    code, _, err = run(capsys, "join parts --force")
    assert code == 2 and err.startswith("error: data/val/clip 1.mp4: ")
    assert run(capsys, "join parts --force --skip-errors") == (2, out, run(capsys, command, "--force")[2])


def test_a_part_goes_on_with_what_is_missing(here, capsys):
    command = JOBS["predict"] + " --part 1/1 --parts parts"
    assert run(capsys, command)[0] == 0
    path = here / "parts" / "1-of-1.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:30])              # killed while it wrote
    code, _, err = run(capsys, "join parts")
    assert code == 2 and "part 1/1 is not finished, 4 of its 6 videos are missing; run it again" in err
    assert run(capsys, command)[0] == 0
    assert path.read_bytes().startswith(b"".join(lines[:3]) + lines[3][:30] + b"\n")
    again = list(read_lines(path))
    (here / "copy").write_bytes(whole)
    assert sorted(again[1:]) == sorted(list(read_lines(here / "copy"))[1:])
    grown = path.read_bytes()
    assert run(capsys, command)[0] == 0 and path.read_bytes() == grown


def test_parts_of_something_else(here, capsys):
    command = JOBS["predict"]
    assert run(capsys, command, "--part", "1/2", "--parts", "parts")[0] == 0
    code, _, err = run(capsys, "join parts")
    assert code == 2 and err == "error: parts: part 2/2 is missing; run it with --part\n"
    for other, message in (
        (command.replace("data/val", "data/val/clip?0.mp4") + " --part 2/2", "made with --sources"),
        (command + " --num-clips 1 --part 2/2", "made with --num-clips None and not 1"),
        (command + " --part 2/3", "a part of 2 and not of 3"),
        (JOBS["windows"] + " --part 2/2", "of another command (predict and not embed)"),
    ):
        code, _, err = run(capsys, other, "--parts", "parts")
        assert code == 2 and message in err and err.count("\n") == 1
    save_toy(here / "model.pt", clip_len=3)
    code, _, err = run(capsys, command, "--part", "2/2", "--parts", "parts")
    assert code == 2 and "a part of another network" in err
    (here / "data" / "val" / "clip 2.mp4").write_bytes(b"one more")
    code, _, err = run(capsys, JOBS["check"], "--part", "1/2", "--parts", "parts2")
    assert code == 0
    (here / "data" / "bars_val_list.txt").write_text("clip 0.mp4 0\n")
    code, _, err = run(capsys, JOBS["check"], "--part", "2/2", "--parts", "parts2")
    assert code == 2 and "of other videos, or of the same in another order" in err
    add_line(here / "parts" / "1-of-9.jsonl", "no header")
    code, _, err = run(capsys, "join parts")
    assert code == 2 and "1-of-9.jsonl: not a part, or its first line is damaged" in err
    assert "no such folder" in run(capsys, "join nowhere")[2]


def test_facts_of_a_clip_in_a_part_are_those_of_the_clip(tmp_path):
    rng = np.random.default_rng(0)
    frames = [Keypoints(rng.random((num, 2), np.float32), rng.integers(0, 256, (num, 128), np.uint8), (40, 30))
              for num in (3, 0, 800)]
    facts = ClipFacts("a \udcff.mp4", 640, 360, 30000 / 1001, 9, 1 / 3, 10**10, 0.1, 0.2, 0.3, 0.7, frames)
    add_line(tmp_path / "part", [facts.path, packed(facts)])
    path, record = next(read_lines(tmp_path / "part"))
    found = unpacked(record)
    assert path == facts.path and replace(found, keypoints=[]) == replace(facts, keypoints=[])
    for own, before in zip(found.keypoints, frames, strict=True):
        assert own.size == before.size and own.places.dtype == np.float32 and own.descriptors.dtype == np.uint8
        assert np.array_equal(own.places, before.places) and np.array_equal(own.descriptors, before.descriptors)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/2"])
def test_part_out_of_range(text):
    with pytest.raises(ValueError, match=r"--part is .*; it must be K/N with K from 1 to N"):
        Part.parse(text)


def test_every_item_is_in_one_part():
    items = [str(number) for number in range(10)]
    assert [Part(number, 4).items_of(items) for number in (1, 2, 3, 4)] == [
        ["0", "4", "8"], ["1", "5", "9"], ["2", "6"], ["3", "7"]]
    assert Part(3, 4).items_of(["0"]) == []
