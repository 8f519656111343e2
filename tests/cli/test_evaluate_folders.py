"""Evaluation on folders of classes: all videos count, and nothing is written there."""

import pytest
from toys import save_toy, write_clip

from tinyaction.cli.evaluate import main
from tinyaction.cli.store import main as store_main


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
    assert main([*argv, "--split", "val"]) == 2
    assert "third has no split; leave out --split to evaluate all of its" in capsys.readouterr().err
    assert sorted((tmp_path / "third").rglob("*")) == before


@pytest.mark.parametrize("num_workers", ["-1", "-5"])
def test_the_number_of_workers_is_as_its_help_says(num_workers, argv, tmp_path, capsys):
    write_clip(tmp_path / "third" / "lying" / "0.mp4", 0, 0)
    assert main([*argv[:-1], num_workers]) == (0 if num_workers == "-1" else 2)
    store = ["--data", str(tmp_path / "third"), "--out", str(tmp_path / "stored"), "--num-workers", num_workers]
    assert num_workers == "-1" or store_main(store) == 2
    assert capsys.readouterr().err.count("--num-workers is -5; it must be at least -1") == 2 * (num_workers == "-5")


def test_a_folder_of_no_known_class_is_named(argv, tmp_path, capsys):
    write_clip(tmp_path / "third" / "sitting" / "0.mp4", 0, 0)
    assert main(argv) == 2
    assert "third: the folder 'sitting' is named after no class of the checkpoint, which knows lying, standing" in (
        capsys.readouterr().err)
