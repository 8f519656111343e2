"""Evaluation on folders of classes: all videos count, and nothing is written there."""

import csv

import pytest
from toys import CLASSES, save_toy, write_clip, write_lights, write_set

from tinyaction.cli import COMMANDS
from tinyaction.cli import main as tinyaction
from tinyaction.cli.evaluate import chosen_videos, main, parse_args
from tinyaction.results.run import read_run


@pytest.fixture
def argv(tmp_path):
    save_toy(tmp_path / "toy.pt")
    return ["--data", str(tmp_path / "third"), "--checkpoint", str(tmp_path / "toy.pt"), "--num-workers", "0"]


@pytest.mark.parametrize("clips", [
    {"lying": 3, "standing": 4},
    {"standing": 2},  # one class
    {"standing": 1},  # one clip of it
])
def test_all_videos_count_and_nothing_is_written(clips, argv, tmp_path, capsys):
    for name, num_clips in clips.items():
        for number in range(num_clips):
            write_clip(tmp_path / "third" / name / f"{number}.mp4", ("lying", "standing").index(name), number)
    before = sorted((tmp_path / "third").rglob("*"))
    assert main(argv) == 0
    assert f" over {sum(clips.values())} videos" in capsys.readouterr().out
    assert sorted((tmp_path / "third").rglob("*")) == before
    code, (out, error) = main([*argv, "--split", "val"]), capsys.readouterr()
    if len(clips) > 1:  # the split that training would make
        assert code == 0 and " over 2 videos" in out and "seed 0 gives the same split again" in out
    else:
        assert code == 2 and "one class only ('standing'); a classifier needs at least two" in error
    assert sorted((tmp_path / "third").rglob("*")) == before


@pytest.mark.parametrize("labels", [CLASSES, (0, 1), ("standing", "standing")])
@pytest.mark.parametrize("is_named", [False, True])
def test_all_videos_of_a_table_without_a_split_count(is_named, labels, argv, tmp_path, capsys):
    for number in range(6):
        write_clip(tmp_path / "third" / f"{number}.mp4", number % 2, number)
    table = tmp_path / "third" / "videos.csv"
    table.write_text("path,label\n" + "".join(f"{number}.mp4,{labels[number % 2]}\n" for number in range(6)))
    before = sorted((tmp_path / "third").rglob("*"))
    argv[1] = str(table) if is_named else argv[1]
    assert main(argv) == 0
    assert " over 6 videos" in capsys.readouterr().out
    if len(set(labels)) > 1:
        assert main([*argv, "--split", "train"]) == 0
        assert " over 4 videos" in capsys.readouterr().out
    assert sorted((tmp_path / "third").rglob("*")) == before


def write_all(folder, *, num):
    for number in range(num):
        write_clip(folder / f"{number}.mp4", number % 2, number)
    return folder


@pytest.mark.parametrize(("splits", "asked", "num"), [
    (["test"] * 4, [], 4), (["test"] * 4, ["--split", "test"], 4),  # no line of "train"
    (["val", "test", "val", "test"], [], 2), (["val", "val", "val", "test"], ["--split", "test"], 1),
    (["train", "val", "test", "test"], ["--split", "train"], 1), (["train", "train", "test", "test"], [], 2),
])
def test_a_table_needs_only_the_split_that_is_measured(splits, asked, num, argv, tmp_path, capsys):
    folder = write_all(tmp_path / "third", num=4)
    (folder / "videos.csv").write_text("path,label,split\n" + "".join(
        f"{number}.mp4,{CLASSES[number % 2]},{split}\n" for number, split in enumerate(splits)))
    assert main([*argv, *asked]) == 0
    assert f" over {num} videos" in capsys.readouterr().out
    missing = next(name for name in ("train", "val", "test", "") if name not in splits)
    if missing:
        assert main([*argv, "--split", missing]) == 2
        assert f"third: no video of the split '{missing}'; a column 'split' of a CSV" in capsys.readouterr().err


def test_classes_in_another_order_are_known_by_their_names(argv, tmp_path, capsys):
    folder = tmp_path / "third"
    outputs = []
    for names in (CLASSES, CLASSES[::-1]):
        for split in ("train", "val"):
            write_all(folder / split, num=3)
            (folder / f"{split}.txt").write_text("".join(
                f"{number}.mp4 {names.index(CLASSES[number % 2])}\n" for number in range(3)))
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))
        assert main(argv) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and " over 3 videos" in outputs[0]


@pytest.mark.parametrize("layout", ["folders", "lists", "tables"])
def test_the_videos_for_testing_lie_beside_the_others(layout, argv, tmp_path, capsys):
    """And they are no videos that no list names."""
    folder = tmp_path / "third"
    for split, num in (("train", 2), ("val", 2), ("test", 4)):
        write_all(folder / split, num=num)
        for number in range(num) if layout == "folders" else ():
            home = folder / split / CLASSES[number % 2]
            home.mkdir(exist_ok=True)
            (folder / split / f"{number}.mp4").rename(home / f"{number}.mp4")
        if layout == "lists":
            (folder / f"{split}.txt").write_text("".join(f"{number}.mp4 {number % 2}\n" for number in range(num)))
        if layout == "tables":
            (folder / f"{split}.csv").write_text("path,label\n" + "".join(
                f"{split}/{number}.mp4,{CLASSES[number % 2]}\n" for number in range(num)))
    assert main([*argv, "--split", "test"]) == 0
    out = capsys.readouterr().out
    assert " over 4 videos" in out and "in no list" not in out
    assert main(argv) == 0 and " over 2 videos" in capsys.readouterr().out


@pytest.mark.parametrize("num_workers", ["-1", "-5"])
def test_the_number_of_workers_is_as_its_help_says(num_workers, argv, tmp_path, capsys):
    """In every command that has the flag; prepare/check reads files in processes, so it needs one at least."""
    for label, name in enumerate(CLASSES):
        for number in range(2):
            write_clip(tmp_path / "third" / name / f"{number}.mp4", label, 7 * number)
    data = ["--data", str(tmp_path / "third"), "--num-workers", num_workers]
    commands = {
        "evaluate": argv[:-2] + data[2:], "store": [*data, "--out", str(tmp_path / "stored")],
        "check": [*data, "--clip-len", "2"],
        "bench": [*data, "--repeats", "1", "--clip-len", "2", "--size", "16", "--device", "cpu", "--num-videos", "1"],
        "train": [*data, "--out", str(tmp_path / "run"), "--epochs", "1", "--size", "16", "--clip-len", "2"],
        "audit": [*data, "--out", str(tmp_path / "audit")],
        "embed": [*argv[2:4], *data, "--out", str(tmp_path / "features.npy")],
        "neighbors": [str(tmp_path / "third" / CLASSES[0] / "0.mp4"), *argv[2:4], *data],
        "suggest": [*argv[2:4], *data, "--csv", str(tmp_path / "next.csv")],
    }
    helps = {name for name in COMMANDS if "--num-workers" in help_of(name, capsys)}
    assert helps == set(commands)
    for name, words in commands.items():
        if num_workers == "-5":
            assert tinyaction([name, *words]) == 2, name
            assert "num-workers is -5; it must be at least -1" in capsys.readouterr().err, name
        elif name in ("evaluate", "check"):
            assert tinyaction([name, *words]) == 0, capsys.readouterr()


def help_of(command, capsys) -> str:
    with pytest.raises(SystemExit):
        tinyaction([command, "--help"])
    return capsys.readouterr().out


def test_a_folder_of_no_known_class_is_named(argv, tmp_path, capsys):
    write_clip(tmp_path / "third" / "sitting" / "0.mp4", 0, 0)
    assert main(argv) == 2
    assert "third: its class 'sitting' is none of the checkpoint, which knows lying, standing" in (
        capsys.readouterr().err)


# ---- the folder of --out -------------------------------------------------------------------------------------------


def test_out_leaves_what_train_leaves_and_goes_into_a_comparison(argv, tmp_path, capsys):
    write_set(tmp_path / "third", num_train=4, num_val=6)
    runs = [str(tmp_path / name) for name in ("first", "second")]
    assert main([*argv, "--out", runs[0]]) == 0
    assert main([*argv, "--out", runs[1], "--compare", runs[0], "--shortcuts", "none"]) == 0
    said = capsys.readouterr().out
    assert "second minus first: +0.0000" in said and "they disagree on 0 of 6 videos" in said
    assert {path.name for path in (tmp_path / "second").iterdir()} >= {
        "comparison.html", "classes.csv", "config.json", "log.txt", "predictions.csv", "report.html"}
    run = read_run(runs[0])
    assert run.is_evaluation and len(run.predictions) == 6
    assert [one.name for one in run.shortcuts] == [
        "the most frequent class", "orientation", "what the file says", "all frames", "one middle frame",
        "the mean of the frames", "frames shuffled", "frames reversed"]
    assert run.shortcuts[3].num_right == sum(one.is_right for one in run.predictions)
    assert all(one.num_clips == 6 for one in run.shortcuts)
    assert read_run(runs[1]).shortcuts == []
    with open(tmp_path / "first" / "classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], row["videos"]) for row in rows] == [("lying", "3"), ("standing", "3")]
    assert float(rows[0]["recall_low"]) < float(rows[0]["recall"]) + 1e-9 < float(rows[0]["recall_high"]) + 2e-9
    assert run.config["command"].startswith("tinyaction evaluate --data ")
    page = (tmp_path / "first" / "report.html").read_text()
    assert "What simpler models get" in page and "How sure it is" in page and "data fingerprint" in page
    assert tinyaction(["report", runs[0]]) == 0 and (tmp_path / "first" / "report.html").read_text() == page
    assert tinyaction(["report", runs[0], "--data", str(tmp_path / "third")]) == 2
    assert "names the videos; leave it out" in capsys.readouterr().err


def test_the_report_of_segments_is_made_again_with_their_clips(argv, tmp_path):
    write_set(tmp_path / "third", num_train=2, num_val=2)
    videos = sorted((tmp_path / "third").rglob("*.mp4"))
    (tmp_path / "third" / "segments.csv").write_text("path,start,end,label\n" + "".join(
        f"{path.relative_to(tmp_path / 'third')},{start},{start + 0.4},{label}\n"
        for path, label in zip(videos, ("lying", "standing") * 2, strict=True) for start in (0, 0.4)))
    argv[1] = str(tmp_path / "third" / "segments.csv")
    assert main([*argv, "--out", str(tmp_path / "first"), "--shortcuts", "none"]) == 0
    page = (tmp_path / "first" / "report.html").read_text()
    assert page.count('alt="frame 1 of') > 0 and "#t=0.4,0.8" in page
    assert tinyaction(["report", str(tmp_path / "first")]) == 0
    assert (tmp_path / "first" / "report.html").read_text() == page


def test_compare_needs_no_folder_and_is_told_of_wrong_ones_first(argv, tmp_path, capsys):
    write_set(tmp_path / "third", num_train=2, num_val=2)
    assert main([*argv, "--out", str(tmp_path / "first"), "--shortcuts", "quick"]) == 0
    capsys.readouterr()
    assert main([*argv, "--compare", str(tmp_path / "first")]) == 0
    assert "this evaluation minus first: +0.0000" in capsys.readouterr().out
    assert main([*argv, "--compare", str(tmp_path / "none")]) == 2
    captured = capsys.readouterr()
    assert "none: no such folder" in captured.err and captured.out == ""


@pytest.mark.parametrize("clips", [{"lying": 3, "standing": 4}, {"standing": 2}, {"standing": 1}])
def test_out_without_training_videos_says_what_can_be_said(clips, argv, tmp_path):
    for name, num_clips in clips.items():
        for number in range(num_clips):
            write_clip(tmp_path / "third" / name / f"{number}.mp4", ("lying", "standing").index(name), number)
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    names = [one.name for one in read_run(tmp_path / "out").shortcuts]
    assert names[0] == "the most frequent class" and ("orientation" in names) == (len(clips) > 1)


def test_out_of_several_labels_and_of_timelines(argv, tmp_path, capsys):
    write_lights(tmp_path / "lights", num_train=7, num_val=7)
    assert tinyaction(["train", "--data", str(tmp_path / "lights"), "--epochs", "1", "--size", "16", "--clip-len", "2",
                       "--num-workers", "0", "--model", "conv2d", "--out", str(tmp_path / "run")]) == 0
    assert main(["--data", str(tmp_path / "lights"), "--checkpoint", str(tmp_path / "run"), "--num-workers", "0",
                 "--out", str(tmp_path / "out")]) == 0
    run = read_run(tmp_path / "out")
    assert run.is_multi_label and len(run.classes) == 3 and run.shortcuts == []
    assert "mAP" in (tmp_path / "out" / "report.html").read_text()
    assert main([*argv, "--task", "timeline", "--compare", str(tmp_path / "out")]) == 2
    assert "--compare is for clips; leave it out" in capsys.readouterr().err


def test_files_are_not_told_apart_by_the_clips_that_they_are_tested_on(tmp_path):
    """A list without splits is read as training and as validation: neither is another's."""
    write_set(tmp_path, num_train=2, num_val=2)
    table = tmp_path / "all.csv"
    table.write_text("path,label\n" + "".join(f"{path},{index % 2}\n" for index, path in enumerate(
        sorted(tmp_path.rglob("*.mp4")))))
    arguments = parse_args(["--data", str(table), "--checkpoint", "x.pt", "--allow-outside"])
    videos, _, train = chosen_videos(arguments, multi_label=False)
    assert len(videos) == 4 and train is None
