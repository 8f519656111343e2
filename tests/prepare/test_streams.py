"""Generated uncut videos: their truth is exact, and another seed gives other ones."""

import numpy as np
import pytest

from tinyaction.cli.prepare import main
from tinyaction.data.segments import read_segments
from tinyaction.prepare.streams import ACTION_SECONDS, STREAM_CLASSES, Stream, make_streams
from tinyaction.video import open_video


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "streams"
    assert main(["streams", "--data", str(folder), "--num-train", "2", "--num-val", "1", "--seconds", "10"]) == 0
    return folder


def test_the_list_names_the_videos_and_their_actions(streams):
    segments = read_segments(streams / "segments.csv")
    assert {(item.path, item.split) for item in segments} == {
        ("train/stream0000.mp4", "train"), ("train/stream0001.mp4", "train"), ("val/stream0000.mp4", "val")}
    assert (streams / "README.txt").read_text().startswith("GENERATED VIDEOS")
    for item in segments:
        video = open_video(streams / item.path)
        assert len(video) == round(10 * video.fps)
        assert item.label in STREAM_CLASSES and item.end < 10
        assert ACTION_SECONDS[0] - 0.1 <= item.end - item.start <= ACTION_SECONDS[1] + 0.1


def test_the_same_seed_gives_the_same_videos_and_another_one_others(streams, tmp_path):
    for seed in (0, 1):
        make_streams(tmp_path / str(seed), num_train=1, num_val=1, seconds=10, seed=seed)
    name = "train/stream0000.mp4"
    assert (tmp_path / "0" / name).read_bytes() == (streams / name).read_bytes()
    assert (tmp_path / "1" / name).read_bytes() != (streams / name).read_bytes()


def draw(seed: int, *, seconds: float = 60, overlaps: bool = False) -> Stream:
    return Stream.draw(np.random.default_rng(seed), seconds, overlaps=overlaps)


def test_the_times_are_those_of_the_frames_in_which_the_shape_is_seen():
    """Noise and background are the same without an action: a frame with one differs, no other does."""
    stream = next(one for one in map(draw, range(100)) if len(one.segments("", "")) > 3)
    empty = Stream(stream.width, stream.height, stream.fps, stream.num_frames,
                   [actor for actor in stream.actors if not actor.label], stream.seed)
    differs = [bool((a != b).any()) for a, b in zip(stream.frames(), empty.frames(), strict=True)]
    seconds = np.arange(stream.num_frames) / stream.fps
    told = np.zeros(stream.num_frames, bool)
    for item in stream.segments("a.mp4", "val"):
        told |= (seconds >= item.start - 1e-9) & (seconds < item.end - 1e-9)
    assert differs == told.tolist()


def test_a_shape_moves_to_the_side_that_its_label_names():
    moves = {"right": [], "left": [], "": []}
    for actor in (actor for seed in range(20) for actor in draw(seed).actors if actor.label in moves):
        moves[actor.label].append(actor.places[-1, 0] - actor.places[0, 0])
    assert min(moves["right"]) > 20 and max(moves["left"]) < -20 and set(moves[""]) == {0.0}


@pytest.mark.parametrize("overlaps", [False, True])
def test_actions_overlap_only_on_request_and_never_within_a_class(overlaps):
    num_overlapping = 0
    for seed in range(20):
        segments = draw(seed, overlaps=overlaps).segments("a.mp4", "val")
        for number, one in enumerate(segments):
            for other in segments[number + 1 :]:
                if other.start < one.end:
                    num_overlapping += 1
                    assert other.label != one.label
    assert (num_overlapping > 20) if overlaps else (num_overlapping == 0)


@pytest.mark.parametrize("flags, message", [
    (["--num-train", "0"], "num_train is 0; it must be at least 1"),
    (["--seconds", "2"], "seconds is 2.0; it must be at least 10"),
])
def test_numbers_that_give_no_set(tmp_path, capsys, flags, message):
    assert main(["streams", "--data", str(tmp_path / "new"), *flags]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "new").exists()
