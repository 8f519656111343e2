"""``--multi-label``: a list in which no row has two names means the same to every command that reads one."""

import csv
import json
import shutil

import numpy as np
import pytest
from toys import LIGHTS, save_toy, write_lights

from tinyaction.cli import main
from tinyaction.cli.bench import chosen_videos
from tinyaction.cli.bench import parse_args as bench_args
from tinyaction.data.annotations import find_data
from tinyaction.results.run import read_run

SETS = [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]] * 2


@pytest.fixture(scope="module")
def lights(tmp_path_factory):
    """14 clips with one label each, or none."""
    folder = write_lights(tmp_path_factory.mktemp("lights") / "clips", num_train=7, num_val=7)
    write_list(folder)
    return folder


def write_list(folder, *, split=True):
    names = ["".join(name for name, holds in zip(LIGHTS, row, strict=True) if holds) for row in SETS]
    rows = [f"{number}.mp4,{name}" + (f",{'train' if number < 7 else 'val'}" if split else "")
            for number, name in enumerate(names)]
    (folder / "list.csv").write_text("\n".join(["path,label" + ",split" * split, *rows]) + "\n")


def refused_without(capsys, *words):
    """The command fails with one sentence that names the flag, and then is called with it."""
    words = [str(word) for word in words]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "list.csv, line 4: no label" in error and "with --multi-label" in error and error.count("\n") == 1
    code = main([*words, "--multi-label"])
    return code, capsys.readouterr().out


def sets_of(folder):
    data = find_data(folder, multi_label=True)
    assert data.class_names == list(LIGHTS)
    return [*data.train.label_sets.tolist(), *data.val.label_sets.tolist()]


def test_check_and_the_list_that_it_writes(lights, tmp_path, capsys):
    folder = shutil.copytree(lights, tmp_path / "clips")
    code, said = refused_without(capsys, "check", "--data", folder, "--write-clean", "--clip-len", 2)
    counts = {name: {"train": sum(row[k] for row in SETS[:7]), "val": 2} for k, name in enumerate(LIGHTS)}
    assert code == 0 and "nothing wrong was found" in said
    assert [line.split() for line in said.splitlines() if line.startswith(LIGHTS)] == [
        [name, str(count["train"]), str(count["val"])] for name, count in counts.items()]
    assert said.strip().endswith(f"tinyaction train --data {folder}/clean.csv --multi-label")
    assert sets_of(folder / "clean.csv") == SETS


def test_a_clean_list_that_lost_its_rows_of_two_labels_is_trained_with_the_flag(tmp_path, capsys):
    folder = write_lights(tmp_path / "clips", num_train=7, num_val=7)
    (folder / "broken.mp4").write_bytes(b"")
    rows = [f"{number}.mp4,{LIGHTS[number % 2]},{'train' if number < 7 else 'val'}" for number in range(14)]
    (folder / "list.csv").write_text("\n".join(
        ["path,label,split", *rows, f"broken.mp4,{LIGHTS[0]};{LIGHTS[1]},train"]) + "\n")
    assert main(["check", "--data", str(folder), "--write-clean"]) == 1
    assert "clean.csv --multi-label" in " ".join(capsys.readouterr().out.split())


def test_store_and_what_trains_on_it(lights, tmp_path, capsys):
    for words in (["store"], ["prepare", "store"]):
        store = tmp_path / "-".join(words)
        code, said = refused_without(capsys, *words, "--data", lights, "--out", store, "--short-side", 16,
                                     "--num-workers", 0)
        assert code == 0 and said.strip().endswith(f"tinyaction train --data {store} --multi-label")
        assert sets_of(store) == SETS


def test_train_from_a_store_of_its_own(lights, tmp_path, capsys):
    folder = shutil.copytree(lights, tmp_path / "clips")
    code, _ = refused_without(capsys, "train", "--data", folder, "--store", "raw", "--model", "conv2d", "--clip-len",
                              2, "--size", 16, "--method", "probe", "--pooling", "mean", "--num-workers", 0,
                              "--device", "cpu", "--out", tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert code == 0 and run.is_multi_label and run.config["store"] == "raw"
    assert [[int(k in one.labels) for k in range(3)] for one in run.predictions] == SETS[7:]
    assert (tmp_path / "clips-raw18" / "train.csv").is_file()


def test_prepare_split(lights, tmp_path, capsys):
    write_list(folder := shutil.copytree(lights, tmp_path / "clips"), split=False)
    code, _ = refused_without(capsys, "prepare", "split", "--data", folder, "--by", "class", "--out",
                              tmp_path / "new.csv")
    with open(tmp_path / "new.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert code == 0 and len(rows) == 14
    assert {row["path"]: [int(name == row["label"]) for name in LIGHTS] for row in rows} == {
        f"clips/{number}.mp4": labels for number, labels in enumerate(SETS)}


def test_neighbors_and_embed(lights, tmp_path, capsys):
    network = save_toy(tmp_path / "model.pt", clip_len=2, size=16)
    code, said = refused_without(capsys, "neighbors", lights / "0.mp4", "--checkpoint", network, "--data", lights,
                                 "--num-workers", 0, "--device", "cpu", "--json", "-n", 20)
    assert code == 0 and sorted(one["class"] for one in json.loads(said)["neighbors"]) == [
        "", "blue", "green", "green", "red", "red"]
    code, _ = refused_without(capsys, "embed", "--data", lights, "--checkpoint", network, "--num-workers", 0,
                              "--device", "cpu", "--out", tmp_path / "f.npz")
    content = np.load(tmp_path / "f.npz")
    assert code == 0 and content["labels"].tolist() == SETS and content["class_names"].tolist() == list(LIGHTS)


def test_bench_measures_the_videos_of_such_a_list(lights):
    with pytest.raises(ValueError, match="no label"):
        chosen_videos(bench_args(["--data", str(lights)]))
    arguments = bench_args(["--data", str(lights), "--multi-label", "--num-videos", "1"])
    assert chosen_videos(arguments) == [f"{lights}/7.mp4"]


def test_segments_may_overlap_where_they_may_have_several_labels(tmp_path):
    def write(*rows):
        (tmp_path / "list.csv").write_text("\n".join(["path,start,end,label,split", *rows]) + "\n")
        return tmp_path / "list.csv"

    table = write("a.mp4,0,2,walk,train", "a.mp4,1,3,wave,train", "b.mp4,0,1,walk,val")
    with pytest.raises(ValueError, match="must not overlap"):
        find_data(table)
    assert find_data(table, multi_label=True).train.label_sets.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="join their labels in one line: walk;wave"):
        find_data(write("a.mp4,0,2,walk,train", "a.mp4,0,2,wave,train", "b.mp4,0,1,walk,val"), multi_label=True)
