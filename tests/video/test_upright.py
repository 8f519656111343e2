"""Frames are upright, in ffmpeg's colours; and decord's own frames where they are asked for."""

import hashlib
import json
import sys

import numpy as np
import pytest
from video_files import are_equal, decode_plainly, numbered_frames, write_by_pyav, write_h264

from tinyaction.data.transforms import VideoInit
from tinyaction.video import VideoError, open_video
from tinyaction.video.upright import upright

# (H, W, 3) whose pixels say where they were: (row, column, 7)
STORED = np.stack([*np.indices((2, 3)), np.full((2, 3), 7)], axis=-1).astype(np.uint8)
EIGHT = {  # a b c d of the matrix: what is shown, as the (row, column) where each pixel was
    (1, 0, 0, 1): ["00 01 02", "10 11 12"],
    (-1, 0, 0, 1): ["02 01 00", "12 11 10"],  # mirrored left to right, as a selfie
    (1, 0, 0, -1): ["10 11 12", "00 01 02"],  # upside down mirrored
    (-1, 0, 0, -1): ["12 11 10", "02 01 00"],  # turned by half
    (0, 1, -1, 0): ["10 00", "11 01", "12 02"],  # turned clockwise, as a phone held upright
    (0, -1, 1, 0): ["02 12", "01 11", "00 10"],  # turned counterclockwise
    (0, 1, 1, 0): ["00 10", "01 11", "02 12"],  # transposed
    (0, -1, -1, 0): ["12 02", "11 01", "10 00"],
}


def matrix(a, b, c, d):
    """As in a file: 16.16 fixed point, 2.30 in the last column."""
    return np.array([[a * 65536, b * 65536, 0], [c * 65536, d * 65536, 0], [0, 0, 1 << 30]], np.int32)


def places(frame):
    return [" ".join(f"{row}{column}" for row, column, _ in line) for line in frame]


@pytest.mark.parametrize("numbers", EIGHT, ids=str)
def test_all_eight_orientations(numbers):
    shown = upright(STORED, matrix(*numbers))
    assert places(shown) == EIGHT[numbers]
    assert (shown[..., 2] == 7).all() and shown.flags.c_contiguous


def test_other_angles_go_to_the_nearest_right_one():
    assert places(upright(STORED, matrix(0.9, 0.4, -0.4, 0.9))) == EIGHT[1, 0, 0, 1]
    assert places(upright(STORED, matrix(0.4, 0.9, -0.9, 0.4))) == EIGHT[0, 1, -1, 0]


@pytest.mark.parametrize("numbers", EIGHT, ids=str)
def test_the_matrix_of_a_file_is_followed(numbers, tmp_path):
    """Patched into the track header of a lossless file of three pictures."""
    path = write_h264(tmp_path / "clip.mp4", num_frames=3)
    content = path.read_bytes()
    identity = matrix(1, 0, 0, 1).astype(">i4").tobytes()
    place = content.index(identity, content.index(b"tkhd"))
    stored = decode_plainly(path)
    path.write_bytes(content[:place] + matrix(*numbers).astype(">i4").tobytes() + content[place + len(identity) :])
    assert are_equal(open_video(path).read(range(3)), [upright(frame, matrix(*numbers)) for frame in stored])


@pytest.mark.parametrize("tags", [
    "colorprim=bt709:transfer=bt709:colormatrix=bt709", "colorprim=bt470bg:colormatrix=bt470bg",
    "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc", "range=pc:colormatrix=bt709", "fullrange=on",
])
def test_colours_are_those_of_plain_pyav_whatever_the_tags(tags, tmp_path):
    path = write_h264(tmp_path / "clip.mp4", options=f"bframes=0:{tags}", num_frames=3)
    assert are_equal(open_video(path).read(range(3)), decode_plainly(path))


@pytest.mark.parametrize("codec, pix_fmt, suffix", [
    ("ffv1", "yuv444p", "mkv"), ("ffv1", "yuv422p10le", "mkv"), ("ffv1", "bgra", "mkv"), ("ffv1", "gray", "mkv"),
    ("libx264", "yuv420p10le", "mp4"), ("libx264", "yuv444p", "mkv"), ("png", "rgba", "mov"),
])
def test_colours_of_other_pixel_formats(codec, pix_fmt, suffix, tmp_path):
    path = write_by_pyav(tmp_path / f"clip.{suffix}", numbered_frames(3), codec, pix_fmt=pix_fmt)
    assert are_equal(open_video(path).read(range(3)), decode_plainly(path))


# ---------------------------------------------------------------------------------------------------------------------
# VideoInit(reader="decord")
# ---------------------------------------------------------------------------------------------------------------------


def test_decord_gives_its_own_frames(shared):
    decord = pytest.importorskip("decord", reason="decord has no wheel for this machine")
    path = str(shared / "clips/odd/demo.mp4")
    results = VideoInit(reader="decord")({"filename": path})
    theirs = decord.VideoReader(path, num_threads=1)
    assert results["total_frames"] == len(theirs) == 280
    assert results["fps"] == theirs.get_avg_fps()
    indices = [200, 0, 33, 33]  # in any order
    assert are_equal(results["video_reader"].get_batch(indices), list(theirs.get_batch(indices).asnumpy()))
    assert are_equal(results["video_reader"].read([3, 9]), list(theirs.get_batch([3, 9]).asnumpy()))


@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_both_readers_give_the_guides_frames(reader, shared):
    """sha256 of the frames that MMAction2 decoded with decord."""
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    reference = json.loads((shared / "reference/a_pipeline.json").read_text())["entries"]["demo/A"]
    opened = VideoInit(reader=reader)({"filename": str(shared / "clips/odd/demo.mp4")})["video_reader"]
    frames = opened.get_batch(reference["frame_inds"])
    assert [hashlib.sha256(frame.tobytes()).hexdigest() for frame in frames] == reference["decoded_sha256"]


def test_where_decord_is_missing_a_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(VideoError, match=r"clip\.mp4: decord is not installed \(pip install decord\); leave reader="):
        VideoInit(reader="decord")({"filename": str(write_h264(tmp_path / "clip.mp4", num_frames=3))})


@pytest.mark.parametrize("name, rule", [("gone.mp4", "no such file"), ("", "no such file"), ("text.mp4", "decord: ")])
def test_what_decord_cannot_open_is_named(name, rule, tmp_path):
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=rule):
        VideoInit(reader="decord")({"filename": str(tmp_path / name)})


def test_there_are_two_readers():
    with pytest.raises(ValueError, match="reader is 'opencv'; it must be 'pyav' or 'decord'"):
        VideoInit(reader="opencv")
