"""Evaluation on folders of classes: all videos count, and nothing is written there."""

import pytest
from toys import CLASSES, save_toy, write_clip

from tinyaction.cli import COMMANDS
from tinyaction.cli import main as tinyaction
from tinyaction.cli.evaluate import main


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
