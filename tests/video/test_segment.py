"""Segments of videos: their frames are those of a clip that was cut out losslessly."""

import json

import numpy as np
import pytest
from video_files import numbers, write_h264

from tinyaction.data.pipelines import eval_pipeline, train_pipeline
from tinyaction.video import VideoError, open_segment, open_video, reader, segment
from tinyaction.video.segment import frames_between, open_kept
from tinyaction.video.writer import write_video

pytestmark = pytest.mark.usefixtures("nothing_kept")


@pytest.fixture
def nothing_kept(monkeypatch):
    monkeypatch.setattr(segment, "_kept", {})


def first_pixels(reader):
    """What ``telling_frames`` wrote into each frame: its number."""
    return [int(frame[0, 0, 0]) for frame in reader.read(range(len(reader)))]


def test_a_segment_has_the_frames_whose_time_lies_in_it():
    seconds = np.array([0, 0.5, 1.0, 1.5, 2.0])
    assert frames_between(seconds, 0.5, 2.0) == (1, 4)
    assert frames_between(seconds, 0.4, 2.1) == (1, 5)
    assert frames_between(seconds, 0.51, 1.0) == (2, 2)
    assert frames_between(np.array([0, 1 / 3, 2 / 3]), 0.333333, 0.666667) == (1, 2)  # as files round them


def test_a_segment_is_read_as_a_video_of_its_own(telling_clip):
    reader = open_segment(telling_clip(), 0.2, 0.4)  # 25 frames a second
    assert first_pixels(reader) == [5, 6, 7, 8, 9]
    assert reader.seconds.tolist() == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
    assert reader.fps == 25
    assert reader.get_batch([4, 0, 4])[:, 0, 0, 0].tolist() == [9, 5, 9]
    with pytest.raises(VideoError, match="frames 2 to 5 asked of 5"):
        reader.read([2, 5])


def test_segments_that_touch_share_no_frame_and_lose_none(telling_clip):
    path = telling_clip()
    parts = [open_segment(path, start, end) for start, end in ((0, 0.3), (0.3, 0.52), (0.52, 0.96))]
    assert [number for part in parts for number in first_pixels(part)] == list(range(24))


@pytest.mark.parametrize(("start", "end", "message"), [
    (0.5, 2, "the segment 0.5 to 2 s of list.csv, line 3 ends beyond the video, which lasts 0.960 s; correct the"),
    (2.5, 3, "ends beyond the video"),
    (5, 20, "give seconds: both are whole numbers, as of frames, of which it has 24"),
    (0.41, 0.43, "the segment 0.41 to 0.43 s of list.csv, line 3 has no frame"),
])
def test_a_segment_that_is_not_in_the_video_is_said(telling_clip, start, end, message):
    path = telling_clip()
    with pytest.raises(VideoError, match=message) as caught:
        open_segment(path, start, end, where="list.csv, line 3")
    assert caught.value.kind == "segment"
    assert str(caught.value).startswith(f"{path}: ")


def test_the_sound_of_a_video_may_be_somewhat_longer(telling_clip):
    assert first_pixels(open_segment(telling_clip(), 0.88, 1.2)) == [22, 23]


def test_pictures_without_times_have_no_segments(frame_folder):
    with pytest.raises(VideoError, match="nothing says when its frames are shown"):
        open_segment(frame_folder(), 0, 1)


@pytest.mark.parametrize("settings", [{"format": "raw"}, {"format": "jpeg", "quality": 100},
                                      {"format": "raw", "frame_stride": 2}])
def test_stored_frames_have_the_segments_of_their_video(stored, settings):
    path = stored(short_side=64, **settings)
    expected = [6, 8] if settings.get("frame_stride") == 2 else [5, 6, 7, 8, 9]
    assert first_pixels(open_segment(path, 0.2, 0.4)) == pytest.approx(expected, abs=2)


def test_a_video_is_listed_once_for_all_its_segments(telling_clip, monkeypatch):
    opened = []
    monkeypatch.setattr(segment, "open_video", lambda path: opened.append(path) or open_video(path))
    path = telling_clip()
    for start in (0, 0.4, 0.8, 0.2):
        assert first_pixels(open_segment(path, start, start + 0.12)) == [round(25 * start) + i for i in range(3)]
    assert opened == [path]


@pytest.mark.parametrize("is_fresh", [True, False])
def test_a_segment_is_read_from_the_key_frame_before_it(tmp_path, monkeypatch, is_fresh):
    """A decoder that was opened just now seeks, too."""
    path = write_h264(tmp_path / "clip.mp4", num_frames=120)
    kept = open_kept(path)
    num_keys = len(kept._table.keys)
    if is_fresh:
        kept.close_decoder()
    seen = []
    monkeypatch.setattr(reader, "_identity", lambda packet: seen.append(packet) or (packet.pts, packet.pos,
                                                                                   packet.size))
    assert numbers(open_segment(path, 4.0, 4.2).read([0, 4])) == [100 % 64, 104 % 64]
    assert num_keys > 4 and len(seen) < 120 // 3


def test_few_files_keep_their_decoders(telling_clip, monkeypatch):
    monkeypatch.setattr(segment, "MAX_DECODERS", 2)
    readers = [open_kept(telling_clip(name=f"{number}.avi")) for number in range(4)]
    assert [one._idle is None for one in readers] == [True, True, False, False]
    assert [first_pixels(one)[:2] for one in readers] == [[0, 1]] * 4


def test_a_video_that_changes_is_opened_anew(telling_clip):
    assert len(open_kept(telling_clip())) == 24
    assert len(open_kept(telling_clip(num_frames=12))) == 12


def test_a_kept_stored_file_whose_video_changes_is_stale(stored, telling_clip):
    path = stored(format="raw")
    open_segment(path, 0, 0.5)
    telling_clip(num_frames=12)
    with pytest.raises(VideoError, match="stale"):
        open_segment(path, 0, 0.5)


@pytest.mark.parametrize(("name", "value"), [("MAX_KEPT_BYTES", 2 * 24 * 280), ("MAX_KEPT_FILES", 2)])
def test_what_is_kept_is_bounded(telling_clip, monkeypatch, name, value):
    monkeypatch.setattr(segment, name, value)
    readers = [open_kept(telling_clip(name=f"{number}.avi")) for number in range(4)]
    assert len(segment._kept) == 2
    assert [first_pixels(reader)[:2] for reader in readers] == [[0, 1]] * 4


def test_two_segments_of_one_video_are_read_side_by_side(tmp_path):
    path = write_h264(tmp_path / "clip.mp4")
    first, second = open_segment(path, 0.4, 1.2), open_segment(path, 1.2, 2.4)
    pairs = zip(first.read(range(20)), second.read(range(20)), strict=True)
    assert [number for pair in pairs for number in numbers(pair)] == [
        number for i in range(20) for number in (10 + i, 30 + i)]
    assert numbers(first.read([3, 9])) == [13, 19]


def items(pipeline, filename, **more):
    return pipeline({"filename": str(filename), "label": 0, "rng": np.random.RandomState(3), **more})["inputs"]


def test_items_equal_those_of_a_losslessly_cut_clip(shared, tmp_path):
    """On every readable file, a segment of up to five frames from a third of it on, in training and in evaluation."""
    pipelines = [train_pipeline(clip_len=4, size=32), eval_pipeline(clip_len=4, size=32, num_clips=2)]
    num_checked = 0
    for name in sorted(json.loads((shared / "clips/files/truth.json").read_text())):
        path = shared / "clips/files" / name
        reader = open_video(path)
        times = reader.seconds
        first = len(times) // 3
        start, end = times[first], times[min(first + 5, len(times) - 1)]
        chosen = np.flatnonzero((times >= start) & (times < end)).tolist()
        if len(chosen) == 0 or len(reader) < 2:
            continue
        cut = tmp_path / f"{name}.avi"
        write_video(cut, reader.read(chosen), fps=25, codec="ffv1", replace=True)
        for pipeline in pipelines:
            of_segment = items(pipeline, path, start_seconds=start, end_seconds=end)
            assert of_segment.equal(items(pipeline, cut)), name
        num_checked += 1
    assert num_checked >= 20
