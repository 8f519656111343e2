"""Clips that are longer than the videos: a note, or an error before any work."""

import threading
import time

import pytest
from toys import write_clip

from tinyaction.cli import main as tinyaction
from tinyaction.data.clip_length import clip_length_notes
from tinyaction.data.lists import VideoList, read_list


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two classes of three clips of 5, 7 and 10 frames."""
    folder = tmp_path_factory.mktemp("lengths")
    for label, name in enumerate(("lying", "standing")):
        for seed, num_frames in enumerate((5, 7, 10)):
            write_clip(folder / name / f"{seed}.mp4", label, seed, num_frames=num_frames)
    return folder


def list_of(folder, *names):
    return VideoList(names, [0] * len(names), prefix=str(folder))


LYING = ("lying/0.mp4", "lying/1.mp4", "lying/2.mp4")


@pytest.mark.parametrize(("names", "clip_len", "note"), [
    (LYING, 10, None),
    (LYING, 11, "a clip of 11 frames repeats frames: the longest of 3 videos looked at has 10; take a smaller "),
    (LYING[:1], 50, "a clip of 50 frames repeats frames: the video has 5; take a smaller --clip-len"),
    (LYING * 5, 100, "the longest of 8 videos looked at has 10"),  # spread: its last is among them
    ((*LYING, "none.mp4"), 100, "the longest of 3 videos looked at has 10"),
    (("none.mp4",), 10**9, None),
    ((), 10**9, None),
])
def test_a_clip_that_repeats_frames_is_said(names, clip_len, note, clips):
    notes = clip_length_notes(clip_len, list_of(clips, *names))
    assert [note in each for each in notes] == ([True] if note else [])


def test_a_clip_ten_times_as_long_is_an_error(clips):
    with pytest.raises(ValueError, match="^--clip-len is 101, and the longest of 3 videos looked at has 10 frames; it "
                                         "may be at most 10 times as many$"):
        clip_length_notes(101, list_of(clips, *LYING))


def test_a_file_that_hangs_is_left_to_the_loader(clips, monkeypatch):
    opened = threading.Event()

    class Hangs:
        def __call__(self, results):
            opened.set()
            time.sleep(60)

    monkeypatch.setattr("tinyaction.data.clip_length.VideoInit", Hangs)
    monkeypatch.setattr("tinyaction.data.clip_length.SECONDS_TO_LOOK", 0.2)
    assert clip_length_notes(100, list_of(clips, *LYING)) == [] and opened.is_set()


def test_a_segment_has_its_own_frames(clips):
    (clips / "segments.csv").write_text("path,start,end,label\nlying/2.mp4,0,0.3,0\n")
    videos = read_list(clips / "segments.csv", prefix=str(clips))
    (clips / "segments.csv").unlink()
    assert "the video has 3;" in clip_length_notes(10, videos)[0]


@pytest.mark.parametrize("words", [
    "train --data {clips} --out {out}/run --device cpu --size 16",
    "train --data {clips} --out {out}/run --method probe",
    "train --data {clips} --out {out}/run --method probe --folds 3",
    "evaluate --data {clips} --model x3d_xs", "predict {clips} --model x3d_xs", "embed {clips} --out {out}/e.npy "
    "--model x3d_xs", "explain {clips}/lying/0.mp4 --model x3d_xs --out {out}/p.png", "bench --data {clips}",
])
def test_every_command_refuses_it_before_the_work(words, clips, tmp_path, capsys, monkeypatch):
    def network(*arguments, **keywords):
        raise AssertionError("the work has begun")

    for name in ("training.build.create_model", "inference.predictor.load_pretrained", "cli.network.load_pretrained"):
        monkeypatch.setattr(f"tinyaction.{name}", network)
    argv = words.format(clips=clips, out=tmp_path).split()
    assert tinyaction([*argv, "--clip-len", "1000"]) == 2
    error = capsys.readouterr().err
    assert "--clip-len is 1000, and the" in error and "at most 10 times as many" in error
    assert not list(tmp_path.iterdir())
