"""A video file is whole or not there, and holds the frames that were given."""

import numpy as np
import pytest

from tinyaction.video import open_video
from tinyaction.video.writer import VideoFile, default_encoder, write_video

GREY = np.full((49, 65, 3), 120, np.uint8)


def read_all(path):
    video = open_video(path)
    return video.get_batch(range(len(video)))


def test_a_video_file_is_whole_or_not_there(tmp_path):
    with VideoFile(tmp_path / "good.mp4", fps=12.5) as video:
        for _ in range(5):
            video.write(GREY)
    assert video.num_frames == 5
    reader = open_video(tmp_path / "good.mp4")
    assert len(reader) == 5 and reader.fps == pytest.approx(12.5)
    last = reader.get_batch([4])[0]
    assert last.shape == (48, 64, 3) and np.abs(last.astype(int) - 120).max() <= 4  # the odd row and column are cut
    with pytest.raises(RuntimeError, match="half way"), VideoFile(tmp_path / "bad.mp4", fps=10) as video:
        video.write(GREY)
        raise RuntimeError("half way")
    with pytest.raises(ValueError, match="no frames to write"), VideoFile(tmp_path / "empty.mp4", fps=10):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["good.mp4"]


@pytest.mark.parametrize("codec", ["", "mpeg4"])
def test_frames_come_back_in_rgb(tmp_path, codec):
    colours = [[200, 40, 40], [40, 200, 40], [40, 40, 200]]
    frames = [np.full((48, 64, 3), colour, np.uint8) for colour in colours]
    assert write_video(tmp_path / "a.mp4", frames, fps=12.5, codec=codec) == 3
    np.testing.assert_allclose(read_all(tmp_path / "a.mp4").mean((1, 2)), colours, atol=6)


@pytest.mark.parametrize("name", ["a.avi", "a.mkv"])
def test_ffv1_is_lossless(tmp_path, name):
    frames = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    write_video(tmp_path / name, frames, fps=25, codec="ffv1")
    np.testing.assert_array_equal(read_all(tmp_path / name), frames)


def test_the_default_is_h264_where_it_can_be_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr("av.codecs_available", {"libx264", "mpeg4"})
    assert default_encoder() == "libx264" and "every browser" in VideoFile(tmp_path / "a.mp4", fps=25).players
    monkeypatch.setattr("av.codecs_available", {"mpeg4"})
    assert default_encoder() == "mpeg4" and "not for browsers" in VideoFile(tmp_path / "a.mp4", fps=25).players


def test_a_file_that_exists_is_replaced_only_where_asked(tmp_path):
    path = tmp_path / "mine.mp4"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"mine\.mp4: exists already; give another name"):
        write_video(path, [GREY], fps=25)
    assert path.read_bytes() == b"mine"
    write_video(path, [GREY], fps=25, replace=True)
    assert len(open_video(path)) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["mine.mp4"]


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames"),
        ([np.zeros((48, 64), np.uint8)], r"frame 0 is uint8 \(48, 64\); it must be uint8 \(height, width, 3\)"),
        ([np.zeros((48, 1, 3), np.uint8)], "at least 2x2"),
        ([np.zeros((48, 64, 3), np.float32)], "frame 0 is float32"),
        ([np.zeros((48, 64, 3), np.uint8), np.zeros((48, 66, 3), np.uint8)], r"frame 1 is uint8 \(48, 66, 3\)"),
    ],
)
def test_frames_that_cannot_be_written(tmp_path, frames, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", frames, fps=25)
    assert list(tmp_path.iterdir()) == []


def test_places_and_codecs_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing: no such folder to write a.mp4 into"):
        write_video(tmp_path / "missing" / "a.mp4", [GREY], fps=25)
    with pytest.raises(ValueError, match="codec is 'h999'; PyAV has no encoder of this name"):
        write_video(tmp_path / "a.mp4", [GREY], fps=25, codec="h999")
    for name, codec in (("a.mp4", "wmv2"), ("a.xyz", "")):
        with pytest.raises(OSError, match=f"{name}: a .* video cannot be written here"):
            write_video(tmp_path / name, [GREY], fps=25, codec=codec)
    assert list(tmp_path.iterdir()) == []
