"""Which videos with which labels, from lists, tables and class folders; every error names its file and line."""

import csv
import os
import re
import tracemalloc
from pathlib import Path

import pytest

from tinyaction.data.annotations import DataFolder, VideoList, find_data, read_list


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Files by name; a name that ends in .mp4 only has to be there."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def items(videos: VideoList, folder: Path) -> list[tuple[str, int]]:
    """(name relative to the folder, label) of every video."""
    pairs = [videos[i] for i in range(len(videos))]
    return [(Path(name).relative_to(folder).as_posix(), label) for name, label in pairs]


# ---- lists ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4 0\nb.mp4 1\n",
        "a.mp4 0\nb.mp4 1",  # no end of line at the end
        "\n  \na.mp4 0\n\nb.mp4 1\n\n",
        "a.mp4 0\r\nb.mp4 1\r\n",
        "\ufeffa.mp4 0\nb.mp4 1\n",  # the mark that Windows editors put in front
        "a.mp4\t0\n  b.mp4   1  \n",
    ],
)
def test_a_list_is_read_whatever_the_editor_did(tmp_path, text):
    write(tmp_path, {"list.txt": text})
    videos = read_list(tmp_path / "list.txt", prefix="clips")
    assert [videos[i] for i in range(2)] == [(os.path.join("clips", "a.mp4"), 0), (os.path.join("clips", "b.mp4"), 1)]
    assert videos.labels.tolist() == [0, 1]


def test_defect_5_a_path_with_spaces_and_a_blank_line_are_no_error(tmp_path):
    write(tmp_path, {"list.txt": "a clip of me.mp4 1\n\nüben 3.mp4 0\n"})
    videos = read_list(tmp_path / "list.txt")
    assert [videos[0], videos[1]] == [("a clip of me.mp4", 1), ("üben 3.mp4", 0)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.mp4 0\nb.mp4\n", "line 2: 'b.mp4' has no label"),
        ("a.mp4 0\nmy clip.mp4\n", "line 2: the label 'clip.mp4' is not a whole number"),
        ("a.mp4 1.5\n", "line 1: the label '1.5' is not a whole number"),
        ("a.mp4 \u00b2\n", "line 1: the label '²' is not a whole number"),
        ("\na.mp4 -1\n", "line 2: the label -1 is negative; labels count from 0"),
        ("a.mp4 2\n", "line 1: the label 2 is out of range; there are 2 classes, so 0 to 1"),
        ("", "the list is empty"),
        (" \n\n", "the list is empty"),
        (b"a.mp4 0\nm\xfcde.mp4 1\n", "line 2: not UTF-8 text"),
    ],
)
def test_defect_5_a_wrong_line_is_named(tmp_path, text, words):
    write(tmp_path, {"list.txt": text})
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'list.txt'}") + ".*" + re.escape(words)):
        read_list(tmp_path / "list.txt", num_classes=2)


def test_defect_5_a_slip_of_the_key_does_not_make_a_billion_classes(tmp_path):
    write(tmp_path, {"list.txt": "a.mp4 0\nb.mp4 1000000000\n"})
    with pytest.raises(ValueError, match=r"line 2: the label 1000000000 is out of range; labels go from 0 to 99999"):
        read_list(tmp_path / "list.txt")


def test_paths_are_relative_to_the_split_or_to_the_folder(tmp_path):
    guide = write(tmp_path / "guide", {"x_train_y.txt": "a.mp4 0\nb.mp4 1", "x_val_y.txt": "c.mp4 1",
                                       "train/a.mp4": "", "train/b.mp4": "", "val/c.mp4": ""})
    data = find_data(guide)
    assert items(data.train, guide) == [("train/a.mp4", 0), ("train/b.mp4", 1)]
    assert items(data.val, guide) == [("val/c.mp4", 1)]

    whole = write(tmp_path / "whole", {"train.txt": "train/a.mp4 0\nelse/b.mp4 1", "val.txt": "val/c.mp4 1",
                                       "train/a.mp4": "", "else/b.mp4": "", "val/c.mp4": ""})
    data = find_data(whole)
    assert items(data.train, whole) == [("train/a.mp4", 0), ("else/b.mp4", 1)]
    assert items(data.val, whole) == [("val/c.mp4", 1)]


def test_an_absolute_path_in_a_list_stays_as_it_is_where_that_is_allowed(tmp_path):
    video = str(tmp_path / "elsewhere" / "a.mp4")
    write(tmp_path / "data", {"train.txt": f"{video} 0\n{video} 1\n", "val.txt": f"{video} 0\n"})
    assert find_data(tmp_path / "data", allow_outside=True).val[0] == (video, 0)


@pytest.mark.parametrize("name", ["../../a.mp4", "/etc/passwd", "x/../../../a.mp4", "C:\\clips\\a.mp4"])
@pytest.mark.parametrize("table", [False, True])
def test_a_path_that_leaves_the_data_folder_is_refused(name, table, tmp_path):
    if table:
        files = {"train.csv": f"path,label\nb.mp4,0\n{name},1\n", "val.csv": "path,label\nb.mp4,0\n"}
    else:
        files = {"train.txt": f"b.mp4 0\n{name} 1\n", "val.txt": "b.mp4 0\n"}
    write(tmp_path / "data", files)
    line = 3 if table else 2
    with pytest.raises(ValueError, match=rf"line {line}: .* leaves the data folder; --allow-outside"):
        find_data(tmp_path / "data")
    if "\\" in name:
        with pytest.raises(ValueError, match=rf"line {line}: .* has backslashes, which only Windows reads; write / "):
            find_data(tmp_path / "data", allow_outside=True)
    else:
        assert len(find_data(tmp_path / "data", allow_outside=True).train) == 2


@pytest.mark.parametrize("files", [
    {"train.txt": "run\\a.mp4 0\n", "val.txt": "b.mp4 0\n"},
    {"x.csv": "path,label,split\nrun\\a.mp4,0,train\nb.mp4,0,val\n"},
])
def test_paths_of_windows_are_named(files, tmp_path):
    write(tmp_path, files)
    with pytest.raises(ValueError, match=r"line [12]: 'run\\\\a\.mp4' has backslashes"):
        find_data(tmp_path)
    write(tmp_path, {"run\\a.mp4": ""})  # a file may be called so
    assert find_data(tmp_path).train.name(0) == "run\\a.mp4"


def test_a_list_of_one_split_is_read_by_its_name(tmp_path):
    """As OpenMMLab publishes UCF101: three lists of each kind in one folder."""
    write(tmp_path, {f"ucf_{word}_split_{number}.txt": f"{word}{number}.mp4 {label}\n"
                     for number in (1, 2) for word, label in (("train", 0), ("val", 0))})
    write(tmp_path, {"train2.mp4": "", "val2.mp4": ""})
    with pytest.raises(ValueError, match=r"several lists for 'train'"):
        find_data(tmp_path)
    data = find_data(tmp_path / "ucf_train_split_2.txt")
    assert (items(data.train, tmp_path), items(data.val, tmp_path)) == ([("train2.mp4", 0)], [("val2.mp4", 0)])
    with pytest.raises(ValueError, match=r"ucf_val_split_2\.txt: a file; give the folder"):
        find_data(tmp_path / "ucf_val_split_2.txt")


def test_names_that_a_spreadsheet_would_run_come_back_as_they_are(tmp_path):
    videos = {f"{name}/{number}.mp4": "" for name in ("=1+1", "'=a", "-run", "@x", "+y", "'b") for number in range(4)}
    write(tmp_path, videos)
    split = find_data(tmp_path)
    cells = [cell for row in csv.reader((tmp_path / "split.csv").read_text().splitlines()) for cell in row]
    assert not [cell for cell in cells if cell[0] in "=+-@"] and "'=1+1/0.mp4" in cells and "'b" in cells
    again = find_data(tmp_path)
    assert split.notes and not again.notes and not again.left_out and same(split, again, tmp_path)
    assert sorted(again.class_names) == sorted({name.split("/")[0] for name in videos})


@pytest.mark.parametrize("table", [False, True])
def test_nothing_is_written_where_that_is_asked(table, tmp_path):
    names = [f"{label}/{number}.mp4" for label in ("run", "sit") for number in range(5)]
    write(tmp_path, {"v.csv": "path,label\n" + "".join(f"{name},{name[:3]}\n" for name in names)} if table else
          dict.fromkeys(names, ""))
    data = find_data(tmp_path, keep_split=False)
    assert "seed 0 gives the same split again" in data.notes[0] and not (tmp_path / "split.csv").exists()
    both = find_data(tmp_path, val_share=None)
    assert items(both.train, tmp_path) == items(both.val, tmp_path) == [
        (name, int(name.startswith("s"))) for name in names]
    assert not both.is_split and both.notes == [] and not (tmp_path / "split.csv").exists()
    assert same(data, find_data(tmp_path), tmp_path) and (tmp_path / "split.csv").exists()
    assert same(data, find_data(tmp_path, val_share=None), tmp_path)  # a split that is there holds


def test_a_path_may_go_from_train_to_its_neighbour(tmp_path):
    """Out of train/, but not out of the data folder."""
    write(tmp_path, {"train.txt": "../clips/a.mp4 0\nb.mp4 1\n", "val.txt": "b.mp4 0\n", "train/b.mp4": ""})
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").touch()
    data = find_data(tmp_path)
    assert data.train.name(0) == "../clips/a.mp4"


@pytest.mark.parametrize("name", ["train.txt", "train.csv", "classes.txt"])
@pytest.mark.parametrize("line, rule", [
    ("a\0b.mp4 0", "a NUL byte; this is no text"),
    ("x" * 20_000 + ".mp4 0", "20006 characters; a line has at most 10000"),
])
def test_lines_that_are_no_text_are_named(name, line, rule, tmp_path):
    other = name.replace("train", "val")
    head = "path,label" if name.endswith("csv") else "a.mp4 0"
    files = {other: f"{head}\na.mp4,0\n"}
    if name == "classes.txt":
        files = {"train.txt": "a.mp4 0\n", "val.txt": "a.mp4 0\n"}
    write(tmp_path, {**files, name: f"{head}\n{line}\n"})
    with pytest.raises(ValueError, match=rf"{re.escape(name)}, line 2: {re.escape(rule)}"):
        find_data(tmp_path)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({}, ["0", "1", "2"]),
        ({"classes.txt": "run\njump high\nsit\n"}, ["run", "jump high", "sit"]),
        ({"classes.txt": "\ufeffrun\r\njump\r\nsit\r\n\r\n"}, ["run", "jump", "sit"]),
        ({"label_map_k400.txt": "run\njump\nsit\nstand\n"}, ["run", "jump", "sit", "stand"]),
    ],
)
def test_names_of_the_classes_of_lists(tmp_path, files, names):
    write(tmp_path, {"train.txt": "a.mp4 0\nb.mp4 2\n", "val.txt": "c.mp4 1\n", **files})
    assert find_data(tmp_path).class_names == names


# ---- CSV -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("path,label,split\na b.mp4,1,train\nb.mp4,0,train\nc.mp4,1,val\n", ["0", "1"]),
        ("path,label,split\na b.mp4,sit,train\nb.mp4,run,train\nc.mp4,sit,val\n", ["run", "sit"]),
        ("\ufeffSplit, Label, Path\r\ntrain, sit, a b.mp4\r\ntrain, run, b.mp4\r\nval, sit, c.mp4", ["run", "sit"]),
        ('path,label,split\n"a b.mp4","sit",train\n\nb.mp4,run,train\nc.mp4,sit,VAL\nd.mp4,run,test', ["run", "sit"]),
    ],
)
def test_a_table_with_splits(tmp_path, table, names):
    write(tmp_path, {"videos.csv": table})
    data = find_data(tmp_path)
    assert data.class_names == names
    assert items(data.train, tmp_path) == [("a b.mp4", 1), ("b.mp4", 0)]
    assert items(data.val, tmp_path) == [("c.mp4", 1)]


def test_two_tables(tmp_path):
    write(tmp_path, {"my_train.csv": "path,label\na.mp4,run\nb.mp4,sit\n", "my_val.csv": "path,label\nc.mp4,sit\n"})
    data = find_data(tmp_path)
    assert (items(data.train, tmp_path), items(data.val, tmp_path)) == ([("a.mp4", 0), ("b.mp4", 1)], [("c.mp4", 1)])


def test_classes_txt_gives_the_order_of_the_names_of_a_table(tmp_path):
    write(tmp_path, {"v.csv": "path,label,split\na.mp4,run,train\nb.mp4,1,train\nc.mp4,sit,val\n",
                     "classes.txt": "sit\nrun\n"})
    data = find_data(tmp_path)
    assert data.class_names == ["sit", "run"]
    assert data.train.labels.tolist() == [1, 1]  # by name and by number
    assert data.val.labels.tolist() == [0]


def test_a_table_without_splits_is_split_class_by_class(tmp_path):
    rows = "".join(f"{label}{i}.mp4,{label}\n" for label, count in (("run", 10), ("sit", 20)) for i in range(count))
    write(tmp_path, {"v.csv": "path,label\n" + rows})
    data = find_data(tmp_path)
    assert sorted(data.val.labels.tolist()) == [0] * 2 + [1] * 4  # a fifth of each
    assert len(data.train) == 30 - 6
    assert not set(items(data.train, tmp_path)) & set(items(data.val, tmp_path))
    assert re.search(r"no column 'split': 6 of 30 videos were chosen for validation, class by class", data.notes[0])
    assert items(find_data(tmp_path).val, tmp_path) == items(data.val, tmp_path)  # the same every time


def test_a_row_that_comes_later_moves_no_video_to_the_other_side(tmp_path):
    rows = "".join(f"{label}{i}.mp4,{label}\n" for label in ("run", "sit") for i in range(10))
    write(tmp_path, {"v.csv": "path,label\n" + rows})
    before = find_data(tmp_path)
    write(tmp_path, {"v.csv": "path,label\nnew.mp4,run\n" + rows})
    after = find_data(tmp_path)
    assert items(after.val, tmp_path) == items(before.val, tmp_path)
    assert items(after.train, tmp_path) == items(before.train, tmp_path)
    assert after.left_out == [f"1 videos in {tmp_path} are not in split.csv, the first is {tmp_path}/new.mp4: delete "
                              "split.csv to split anew"]


# ---- class folders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mts", ".M2TS", ".gif", ".ts", ".WMV", ".flv", ".mpg", ".3gp", ".ogv", ".vob"])
def test_suffixes_of_videos(tmp_path, suffix):
    write(tmp_path, {f"{split}/{name}/a{suffix}": "" for split in ("train", "val") for name in ("run", "sit")})
    assert items(find_data(tmp_path).val, tmp_path) == [(f"val/run/a{suffix}", 0), (f"val/sit/a{suffix}", 1)]


def test_links_to_files_and_folders_are_followed_and_loops_end(tmp_path):
    write(tmp_path, {"far/clips/a.mp4": "", "far/b.mp4": "", "data/train/run/c.mp4": "", "data/train/sit/d.mp4": "",
                     "data/val/sit/e.mp4": ""})
    (tmp_path / "data/val/run").symlink_to(tmp_path / "far/clips")
    (tmp_path / "data/train/run/link.mp4").symlink_to(tmp_path / "far/b.mp4")
    (tmp_path / "data/train/run/up").symlink_to(tmp_path / "data/train/run")
    (tmp_path / "far/clips/loop").symlink_to(tmp_path / "far")
    data = find_data(tmp_path / "data")
    assert items(data.train, tmp_path / "data") == [("train/run/c.mp4", 0), ("train/run/link.mp4", 0),
                                                    ("train/sit/d.mp4", 1)]
    assert items(data.val, tmp_path / "data") == [("val/run/a.mp4", 0), ("val/run/loop/b.mp4", 0),
                                                  ("val/sit/e.mp4", 1)]
    assert data.unused_summary() == ""


def test_files_that_are_not_used_are_counted(tmp_path):
    write(tmp_path, {"train/a.mp4": "", "train/b.mp4": "", "train/c.mp4": "", "val/d.mp4": "", "train/x.txt": "",
                     "train/deep/y.TXT": "", "z.jpg": "", "LICENSE": "", "train.txt": "a.mp4 0\nb.mp4 1\na.mp4 1\n",
                     "val.txt": "d.mp4 0\n", "README.md": "", ".hidden/x.jpg": "", "train/.DS_Store": ""})
    data = find_data(tmp_path)
    assert data.unused_files() == ("4 files are no videos: .txt 2, no suffix 1, .jpg 1; 1 video is in no list: "
                                   "train/c.mp4")
    assert data.unused_summary() == (f"1 training videos have two labels, the first is {tmp_path}/train/a.mp4; "
                                     f"{data.unused_files()}")


def test_frames_of_a_listed_folder_are_used(tmp_path):
    write(tmp_path, {"train.txt": "clip 2 0\n", "val.txt": "clip 2 0\n", "clip/img_00001.jpg": "",
                     "clip/img_00002.jpg": "", "other/img_00001.jpg": ""})
    assert find_data(tmp_path).unused_summary() == "1 file is no video: .jpg 1"


def test_a_table_is_read_by_its_name(tmp_path):
    """And nothing is written beside it, and no other table is looked at."""
    write(tmp_path, {"a.csv": "path,label,split\na.mp4,run,train\nb.mp4,sit,val\n", "b.csv": "path,label,split\n",
                     "c.csv": "path,label\n" + "".join(f"{i}.mp4,{i % 2}\n" for i in range(10))})
    data = find_data(tmp_path / "a.csv")
    assert (items(data.train, tmp_path), items(data.val, tmp_path)) == ([("a.mp4", 0)], [("b.mp4", 1)])
    first, second = find_data(tmp_path / "c.csv"), find_data(tmp_path / "c.csv")
    assert same(first, second, tmp_path) and len(first.val) == 2
    assert "seed 0 gives the same split again" in first.notes[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv", "c.csv"]


def test_a_hundred_thousand_classes_take_no_time_of_their_square(tmp_path):
    """Each comparison of two names would be one of 5 billion."""
    names = [f"class {number}" for number in range(100_000)]
    write(tmp_path, {"classes.txt": "\n".join(names), "a.csv": "path,label\n" + "".join(
        f"{number}.mp4,class {number // 2}\n" for number in range(100_000))})
    data = find_data(tmp_path / "a.csv")
    assert data.class_names == names and len(data.val) == len(data.train) == 50_000


def test_lists_that_are_no_files_and_endless_labels_are_errors(tmp_path):
    os.mkfifo(tmp_path / "train.txt")
    write(tmp_path, {"val.txt": "a.mp4 " + "9" * 5000 + "\n"})
    with pytest.raises(ValueError, match=r"train\.txt: no regular file; a list is a text file"):
        find_data(tmp_path)
    with pytest.raises(ValueError, match=r"val\.txt, line 1: the label 9+ is out of range"):
        read_list(tmp_path / "val.txt")


def test_a_fifo_is_no_list(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(FileNotFoundError, match=r"a\.csv: no folder and no regular file; a list is a text file$"):
        find_data(tmp_path / "a.csv")


def test_the_folder_that_one_is_in(tmp_path, monkeypatch):
    class_folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(find_data(".").train) == 8


@pytest.mark.parametrize("place", ["", "a.tsv"])
def test_a_table_with_tabs(place, tmp_path):
    write(tmp_path, {"a.tsv": "path\tlabel\tsplit\n1.mp4\trun\ttrain\n2.mp4\tjump\tval\n"})
    data = find_data(tmp_path / place)
    assert data.class_names == ["jump", "run"] and data.train.name(0) == "1.mp4" and data.unused_files() == ""


def class_folders(folder: Path, *, names: tuple[str, ...] = ("jump", "run"), count: int = 5) -> Path:
    return write(folder, {f"{name}/{i}.mp4": "" for name in names for i in range(count)})


def test_class_folders_with_train_and_val(tmp_path):
    write(tmp_path, {"train/run/a.mp4": "", "train/jump high/deep/b.MP4": "", "train/run/notes.txt": "",
                     "train/run/._a.mp4": "", "train/empty/x.txt": "", "val/run/c.avi": ""})
    data = find_data(tmp_path)
    assert data.class_names == ["jump high", "run"]
    assert items(data.train, tmp_path) == [("train/jump high/deep/b.MP4", 0), ("train/run/a.mp4", 1)]
    assert items(data.val, tmp_path) == [("val/run/c.avi", 1)]
    assert data.notes == []


def same(a: DataFolder, b: DataFolder, folder: Path) -> bool:
    return (a.class_names, items(a.train, folder), items(a.val, folder)) == (
        b.class_names, items(b.train, folder), items(b.val, folder))


@pytest.mark.parametrize(
    "names", [("jump", "run"), ("9", "10"), ("01", "1"), ("a, b", 'the "best"'), ("0", "2"), ("x y", "ü")]
)
def test_the_split_of_class_folders_is_written_down_and_used_again(tmp_path, names):
    """Also of folders whose names are numbers: they are names all the same."""
    class_folders(tmp_path, names=names)
    first = find_data(tmp_path)
    assert first.class_names == sorted(names)
    assert sorted(first.val.labels.tolist()) == [0, 1]  # one of five of each class
    assert "2 of 10 videos were chosen for validation" in first.notes[0]
    assert (tmp_path / "split.csv").is_file()
    second = find_data(tmp_path, split_seed=99)  # what is written down counts
    assert second.notes == []
    assert same(first, second, tmp_path)


def test_the_split_depends_on_the_seed_and_on_nothing_else(tmp_path):
    splits = []
    for number, seed in enumerate((0, 0, 1)):
        folder = class_folders(tmp_path / str(number), count=20)
        splits.append(items(find_data(folder, split_seed=seed).val, folder))
    assert splits[0] == splits[1] != splits[2]
    assert len(splits[0]) == 2 * 4


def test_new_videos_beside_a_written_split_are_noticed(tmp_path):
    class_folders(tmp_path)
    before = find_data(tmp_path)
    write(tmp_path, {"run/new.mp4": "", "swim/1.mp4": "", "sit/notes.txt": ""})
    (tmp_path / "jump/0.mp4").unlink()
    after = find_data(tmp_path)
    assert same(before, after, tmp_path) and after.notes == []
    assert after.left_out == [
        f"2 videos in {tmp_path} are not in split.csv, the first is {tmp_path}/run/new.mp4; 1 videos of split.csv are "
        f"not there, the first is {tmp_path}/jump/0.mp4; it has no video of 'swim': delete split.csv to split anew",
        f"{tmp_path} has class folders without a video: sit"]
    assert after.unused_summary() == "; ".join([*after.left_out, "1 file is no video: .txt 1"])


def test_a_read_only_folder_is_split_the_same_way_each_time(tmp_path, monkeypatch):
    class_folders(tmp_path)

    def refuse(self, *args, **kwargs):  # root may write everywhere, so the mode of the folder would prove nothing
        raise PermissionError(13, "Permission denied", str(self))

    for method in ("open", "write_bytes", "write_text"):
        monkeypatch.setattr(Path, method, refuse)
    first, second = find_data(tmp_path), find_data(tmp_path)
    assert same(first, second, tmp_path)
    assert "split.csv could not be written (Permission denied); seed 0 gives the same split again" in first.notes[0]
    assert not (tmp_path / "split.csv").exists()


def test_a_class_may_be_called_train(tmp_path):
    class_folders(tmp_path, names=("car", "train"))
    assert find_data(tmp_path).class_names == ["car", "train"]


# ---- errors --------------------------------------------------------------------------------------------------------

TWO_LISTS = {"train.txt": "a.mp4 0\nb.mp4 1\n", "val.txt": "c.mp4 1\n"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"notes.md": ""}, "{folder}: no data found; expected *train*.txt and *val*.txt"),
        ({"train.txt": "a.mp4 0"}, "{folder}/train.txt but no list for the other split"),
        (TWO_LISTS | {"old_train.txt": "a.mp4 0"}, "{folder}: several lists for 'train' (old_train.txt, train.txt)"),
        (TWO_LISTS | {"val.txt": "c.mp4 1\nd.mp4 2\n"},
         "{folder}/val.txt, line 2: the label 2 is out of range; there are 2 classes, so 0 to 1"),
        (TWO_LISTS | {"classes.txt": "run\n"}, "{folder}/train.txt, line 2: the label 1 is out of range"),
        (TWO_LISTS | {"classes.txt": "run\n\nsit\n"}, "{folder}/classes.txt, line 2: blank"),
        (TWO_LISTS | {"classes.txt": "run\nsit\nrun\n"}, "{folder}/classes.txt, line 3: the class 'run' is there tw"),
        (TWO_LISTS | {"classes.txt": "\n"}, "{folder}/classes.txt: no class names"),
        (TWO_LISTS | {"classes.txt": b"\xff\n"}, "{folder}/classes.txt, line 1: not UTF-8"),
        ({"v.csv": ""}, "{folder}/v.csv, line 1: columns (none); a table begins with 'path,label'"),
        ({"v.csv": "a.mp4,0\nb.mp4,1\n"}, "{folder}/v.csv, line 1: columns a.mp4, 0; a table begins with"),
        ({"v.csv": "path,label\n"}, "{folder}/v.csv: the table is empty"),
        ({"v.csv": "path,label\na.mp4,0\n,1\n"}, "{folder}/v.csv, line 3: no path"),
        ({"v.csv": "path,label\na.mp4\n"}, "{folder}/v.csv, line 2: no label"),
        ({"v.csv": "path,label\na, b.mp4,0\n"}, "{folder}/v.csv, line 2: 2 columns, but more cells"),
        ({"v.csv": 'path,label\n"a.mp4,0' + "x" * 140_000}, "{folder}/v.csv, line 2: 140008 characters"),
        ({"v.csv": "path,label,split\na.mp4,0,train\nb.mp4,1,dev\n"},
         "{folder}/v.csv, line 3: the split 'dev' is none of train, val, test"),
        ({"v.csv": "path,label,split\na.mp4,0,train\n"}, "{folder}/v.csv: no line with the split 'val'"),
        ({"v.csv": "path,label,split\na.mp4,-1,train\nb.mp4,0,val\n"},
         "{folder}/v.csv, line 2: the label -1 is negative"),
        ({"v.csv": "path,label,split\na.mp4,run,train\nb.mp4,0,val\n", "classes.txt": "sit\nstand\n"},
         "{folder}/v.csv, line 2: the class 'run' is not among the 2 known class names"),
        ({"v.csv": "path,label,split\na.mp4,0,train\nb.mp4,2,val\n", "classes.txt": "sit\nstand\n"},
         "{folder}/v.csv, line 3: the label 2 is out of range"),
        ({"v.csv": "path,label\na.mp4,run\nb.mp4,sit\n"}, "{folder}/v.csv: class 'run' has one video only"),
        ({"a.csv": "path,label\n", "b.csv": "path,label\n"}, "{folder}: several CSV files (a.csv, b.csv)"),
        ({"run/a.mp4": "", "run/b.mp4": ""}, "{folder}: one class only ('run')"),
        ({"run/a.mp4": "", "run/b.mp4": "", "sit/a.mp4": ""}, "{folder}: class 'sit' has one video only"),
        ({"train/run/a.mp4": "", "val/sit/b.mp4": ""}, "{folder}/val: class 'sit' has no folder in {folder}/train"),
        ({"train/run/a.mp4": "", "val/b.mp4": ""}, "{folder}/val: no class folders with videos in it"),
        ({"train/run/a.mp4": "", "train/sit/a.mp4": "", "test/run/b.mp4": "", "test/sit/c.mp4": ""},
         "{folder}/train has class folders, but there is no {folder}/val beside it"),
    ],
)
def test_what_is_wrong_in_a_folder_is_named(tmp_path, files, words):
    write(tmp_path, files)
    with pytest.raises(ValueError, match=re.escape(words.format(folder=tmp_path))):
        find_data(tmp_path)
    assert not (tmp_path / "split.csv").exists()


def test_a_missing_folder_and_a_file_in_its_place(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        find_data(tmp_path / "nowhere")
    write(tmp_path, {"v.csv": "path,label\n"})
    write(tmp_path, {"v.txt": "a.mp4 0\n"})
    with pytest.raises(ValueError, match=r"v\.txt: a file; give the folder that holds .*, one CSV file"):
        find_data(tmp_path / "v.txt")
    with pytest.raises(FileNotFoundError, match=r"nolist\.txt"):
        read_list(tmp_path / "nolist.txt")


def test_a_video_list_is_arrays_so_that_workers_share_it():
    """Python objects would be copied into every worker as their reference counts are touched."""
    videos = VideoList(["ä.mp4", "", "b c.mp4"], [2, 0, 1], prefix="p", source="here")
    assert [videos[i] for i in range(3)] == [("p/ä.mp4", 2), ("p/", 0), ("p/b c.mp4", 1)]
    assert len(videos) == 3
    assert repr(videos) == "VideoList(3 videos, 3 classes, from here)"


# ---- lists of folders of frames, and long lists --------------------------------------------------------------------


@pytest.mark.parametrize("place", ["train", ""])
def test_lists_with_numbers_of_frames(tmp_path, place):
    """As MMAction2 keeps raw frames, and TSM: "path num_frames label"; a path may hold spaces here too."""
    for name in ("run fast", "sit"):
        (tmp_path / place / name).mkdir(parents=True)
    (tmp_path / "train.txt").write_text("run fast 120 1\nsit 7 0\n")
    (tmp_path / "val.txt").write_text("sit 7 0\n")
    (tmp_path / "val").mkdir()
    if place:
        (tmp_path / "val/sit").mkdir()
    videos = find_data(tmp_path).train
    folder = tmp_path / place
    assert [videos[i] for i in range(2)] == [(str(folder / "run fast"), 1), (str(folder / "sit"), 0)]
    assert videos.num_frames.tolist() == [120, 7]


def test_a_number_at_the_end_of_a_file_name_is_no_count(tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip 7").write_bytes(b"")
    (tmp_path / "list.txt").write_text("clip 7 0\n")
    videos = read_list(tmp_path / "list.txt", prefix=str(tmp_path))
    assert videos[0] == (str(tmp_path / "clip 7"), 0) and videos.num_frames is None


@pytest.mark.parametrize("line", ["b 0", "b 0 1", "b -3 1", "b x 1", "7 1"])
def test_a_list_with_counts_has_them_in_every_line(tmp_path, line):
    (tmp_path / "a").mkdir()
    (tmp_path / "list.txt").write_text(f"a 7 0\n{line}\n")
    with pytest.raises(ValueError, match=r"list\.txt, line 2: .*this list began with 'path num_frames label'"):
        read_list(tmp_path / "list.txt", prefix=str(tmp_path))


def test_a_long_list_is_read_into_arrays(tmp_path):
    """Bytes of the names, 8 for the end of each, 8 for its label: no object per line, and never the whole text."""
    num = 40_000
    names = [f"class {i % 400:03}/clip {i:06}.mp4" for i in range(num)]
    (tmp_path / "list.txt").write_text("".join(f"{name} {i % 400}\n" for i, name in enumerate(names)))
    tracemalloc.start()
    videos = read_list(tmp_path / "list.txt", prefix="data")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    needed = sum(map(len, names)) + 8 * num + 8 * num
    assert needed < held < 1.15 * needed  # arrays that grow have some room behind them
    assert peak < 1.3 * needed
    assert [videos[i] for i in (0, 777, num - 1)] == [(f"data/{names[i]}", i % 400) for i in (0, 777, num - 1)]
    assert list(videos.paths()) == [f"data/{name}" for name in names]


def test_a_folder_whose_class_name_is_refused_stays_as_it_was(tmp_path):
    """A split.csv with the refused name would stand in the way once the class is renamed."""
    for name in ("two\nlines", "run"):
        (tmp_path / name).mkdir()
        for number in range(2):
            (tmp_path / name / f"{number}.mp4").touch()
    with pytest.raises(ValueError, match="has a line break or another control character; rename the class"):
        find_data(tmp_path)
    assert not (tmp_path / "split.csv").exists()
    (tmp_path / "two\nlines").rename(tmp_path / "two lines")
    assert find_data(tmp_path).class_names == ["run", "two lines"]
