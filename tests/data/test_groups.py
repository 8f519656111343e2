"""Groups of clips: from a column and from paths, through every list that is made of others, and never divided."""

import re
from pathlib import Path

import pytest
from toys import write_clip

from tinyaction.cli.check import main as check
from tinyaction.cli.prepare import main as prepare
from tinyaction.data.annotations import DataFolder, VideoList, find_data
from tinyaction.data.groups import check_groups_apart, split_groups
from tinyaction.prepare.store import check_store, fill_store, plan_store
from tinyaction.prepare.stored_file import StoreSettings

BY_PERSON = r"p(\d+)_"


def class_folders(folder: Path, *, num_persons: int = 10, classes: tuple[str, ...] = ("run", "sit")) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for person in range(num_persons):
            (folder / name / f"p{person}_a.mp4").touch()
    return folder


def groups(data: DataFolder) -> tuple[set[str], set[str]]:
    assert data.train.groups is not None and data.val.groups is not None
    return set(data.train.groups), set(data.val.groups)


def test_a_column_gives_the_groups_and_a_subset_keeps_them(tmp_path):
    (tmp_path / "v.csv").write_text("path,label,split,group\na.mp4,run,train,Ann\nb.mp4,sit,train, Bö \n"
                                    "c.mp4,run,val,Cy\n")
    data = find_data(tmp_path)
    assert groups(data) == ({"Ann", "Bö"}, {"Cy"})
    data.train.num_frames = data.train.labels + 7
    chosen = data.train.subset([1, 0, 1])
    assert chosen.groups is not None and chosen.num_frames is not None
    assert list(chosen.groups) == ["Bö", "Ann", "Bö"]
    assert [chosen[index] for index in range(3)] == [data.train[index] for index in (1, 0, 1)]
    assert chosen.num_frames.tolist() == [8, 7, 8]


@pytest.mark.parametrize("column", ["", ",group"])
def test_a_list_without_groups_has_none(tmp_path, column):
    end = "," if column else ""
    (tmp_path / "v.csv").write_text(f"path,label,split{column}\na.mp4,run,train{end}\nb.mp4,sit,val{end}\n")
    data = find_data(tmp_path)
    assert data.train.groups is None and data.train.subset([0]).groups is None


def test_a_line_without_a_group_among_others_is_named(tmp_path):
    (tmp_path / "v.csv").write_text("path,label,split,group\na.mp4,run,train,Ann\nb.mp4,sit,val,\n")
    with pytest.raises(ValueError, match=r"v\.csv, line 3: no group, but other lines have one"):
        find_data(tmp_path)


@pytest.mark.parametrize(("group_by", "expected"), [
    (BY_PERSON, {"0", "1"}), (r"p\d+_", {"p0_", "p1_"}), ("^[^/]+", {"run", "sit"}), ("(p.)_(a)", {"p0", "p1"})])
def test_groups_by_path_look_below_the_data_folder(tmp_path, group_by, expected):
    """The folder's own name has a person, too, and is not looked at."""
    data = find_data(class_folders(tmp_path / "p7_set", num_persons=2), group_by=BY_PERSON)
    assert groups(data)[0] | groups(data)[1] == {"0", "1"}
    (tmp_path / "p7_set" / "split.csv").unlink()
    (tmp_path / "p7_set" / "v.csv").write_text("path,label,split\n" + "".join(
        f"{name}/p{person}_a.mp4,{name},{'val' if person else 'train'}\n" for name in ("run", "sit")
        for person in range(2)))
    data = find_data(tmp_path / "p7_set", group_by=group_by)
    assert groups(data)[0] | groups(data)[1] == expected


@pytest.mark.parametrize(("group_by", "words"), [
    ("p(", r"--group-by 'p(' is no regular expression: missing ), unterminated subpattern at position 1"),
    ("q", r"--group-by 'q' finds no group in 'run/p0_a.mp4'; it must find one in every path"),
    ("(q)?", r"--group-by '(q)?' finds no group in 'run/p0_a.mp4'"),
    ("q*", r"--group-by 'q*' finds no group in 'run/p0_a.mp4'"),
])
def test_patterns_that_find_no_group(tmp_path, group_by, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        find_data(class_folders(tmp_path / "set"), group_by=group_by)
    assert not (tmp_path / "set" / "split.csv").exists()


@pytest.mark.parametrize("is_table", [False, True])
def test_a_split_keeps_groups_whole_and_is_written_with_them(tmp_path, is_table):
    folder = class_folders(tmp_path / "set")
    if is_table:
        (folder / "v.csv").write_text("path,label,group\n" + "".join(
            f"{name}/p{person}_a.mp4,{name},{person}\n" for name in ("run", "sit") for person in range(10)))
    data = find_data(folder, group_by="" if is_table else BY_PERSON)
    train, val = groups(data)
    assert (len(train), len(val), train & val) == (8, 2, set())  # a fifth of the persons, and so of each class
    assert data.val.labels.tolist() in ([0, 0, 1, 1], [0, 1, 0, 1])
    assert "10 groups kept whole" in data.notes[0]
    assert groups(find_data(folder)) == (train, val)  # split.csv has them


def test_split_groups_is_stratified_and_seeded():
    labels = ["a"] * 12 + ["b"] * 6
    names = [f"{label}{index // 2}" for index, label in enumerate(labels)]  # pairs of clips
    drawn = {tuple(split_groups(labels, names, val_share=0.3, seed=seed, source=Path("x"))) for seed in range(20)}
    for places in drawn:
        assert sorted(labels[place] for place in places) == ["a"] * 4 + ["b"] * 2
        assert {names[place] for place in places}.isdisjoint(
            names[place] for place in range(18) if place not in places)
    assert len(drawn) > 5


def test_groups_that_are_too_large_for_the_share_still_give_both_sides():
    places = split_groups(["a", "b"] * 10, ["x", "x"] * 5 + ["y", "y"] * 5, val_share=0.1, seed=0, source=Path("x"))
    assert places in (list(range(10)), list(range(10, 20)))
    with pytest.raises(ValueError, match=r"x: the groups cannot be split so that class 'a' has clips in training and"):
        split_groups(["a", "a", "b", "b"], ["one", "one", "two", "one"], val_share=0.2, seed=0, source=Path("x"))


def test_a_group_in_both_lists_is_named():
    train = VideoList(["a", "b", "c"], [0, 1, 0], groups=["Ann", "Bo", "Bo"])
    with pytest.raises(ValueError, match=r"^group 'Bo' \(2 training and 1 validation clips\) is in both; keep "):
        check_groups_apart(train, VideoList(["d", "e"], [0, 1], groups=["Bo", "Cy"]))
    with pytest.raises(ValueError, match=r"^group 'Ann' .*, and 1 groups more are in both"):
        check_groups_apart(train, VideoList(["d", "e"], [0, 1], groups=["Bo", "Ann"]))
    check_groups_apart(train, VideoList(["d"], [0], groups=["Cy"]))
    check_groups_apart(train, VideoList(["a"], [0]))  # not known


def test_clean_csv_keeps_the_groups(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    rows = []
    for number, split in enumerate(("train", "train", "val", "val")):
        write_clip(folder / f"p{number}_a.avi", number % 2, number)
        rows.append(f"p{number}_a.avi,{'run' if number % 2 else 'sit'},{split},g{number}\n")
    (folder / "v.csv").write_text("path,label,split,group\n" + "".join(rows))
    check(["--data", str(folder), "--write-clean", "--num-workers", "1"])
    assert (folder / "clean.csv").read_text() == (folder / "v.csv").read_text()


def test_a_store_keeps_the_groups(tmp_path):
    """Of a column, and of a pattern that looks at the end of the names of the videos."""
    folder = tmp_path / "set"
    for name in ("run", "sit"):
        for person in range(3):
            write_clip(folder / name / f"p{person}_a.avi", int(name == "sit"), person, num_frames=2, side=8)
    by_end, settings = r"(\d)_a\.avi$", StoreSettings(format="raw", short_side=8)
    fill_store(plan_store(folder, tmp_path / "store", settings))
    assert find_data(tmp_path / "store").train.groups is None
    (folder / "split.csv").unlink()
    fill_store(plan_store(folder, tmp_path / "store", settings, group_by=by_end))
    stored = find_data(tmp_path / "store")
    assert groups(stored) == groups(find_data(folder)) == groups(find_data(tmp_path / "store", group_by=by_end))
    assert stored.class_names == ["run", "sit"] and sorted(stored.val.labels.tolist()) == [0, 1]
    check_store(tmp_path / "store", 8)


# ---- prepare split -------------------------------------------------------------------------------------------------


def test_a_new_split_keeps_groups_whole_whatever_the_old_one_was(tmp_path, capsys):
    rows = [f"{name}/p{person}_{take}.mp4,{name},{'train' if take else 'val'}" for name in ("run", "sit")
            for person in range(5) for take in range(2)]
    (tmp_path / "old.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    (tmp_path / "lists").mkdir()
    out = tmp_path / "lists" / "new.csv"
    words = ["split", "--data", str(tmp_path / "old.csv"), "--by", "group", "--out", str(out)]
    assert prepare(words) == 2
    assert "no groups are known; name them with --group-by" in capsys.readouterr().err and not out.exists()
    assert prepare([*words, "--group-by", BY_PERSON]) == 0
    assert "16 training and 4 validation videos; 1 of 5 groups" in capsys.readouterr().out
    data = find_data(out, allow_outside=True)
    sides = groups(data)
    assert not sides[0] & sides[1] and sides[0] | sides[1] == set("01234")
    paths = {Path(videos[index][0]).resolve() for videos in (data.train, data.val) for index in range(len(videos))}
    assert paths == {(tmp_path / row.split(",")[0]).resolve() for row in rows}
    assert prepare([*words, "--group-by", BY_PERSON, "--force", "--val-share", "1.5"]) == 2
    assert "--val-share is 1.5; it must be above 0 and below 1" in capsys.readouterr().err


def test_segments_of_a_video_stay_together_in_a_new_split(tmp_path):
    lines = [f"v{number}.mp4,{start},{start + 1},{name}" for number in range(6)
             for start, name in ((0, "sit"), (1, "run"))]
    (tmp_path / "old.csv").write_text("path,start,end,label\n" + "\n".join(lines) + "\n")
    assert prepare(["split", "--data", str(tmp_path / "old.csv"), "--by", "class", "--out",
                    str(tmp_path / "new.csv")]) == 0
    data = find_data(tmp_path / "new.csv")
    sides = [{videos.name(index) for index in range(len(videos))} for videos in (data.train, data.val)]
    assert not sides[0] & sides[1] and [len(side) for side in sides] == [5, 1]
