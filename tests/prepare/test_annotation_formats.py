"""Segments of other tools: read, written, and back without a loss."""

import json
import os

import pytest

from tinyaction.cli.prepare import main
from tinyaction.data.segments import Segment, read_segments, write_segments
from tinyaction.prepare.annotation_formats import annotations_of, read_annotations

ACTIVITYNET = {"version": "VERSION 1.3", "taxonomy": [{"nodeName": "fall"}], "database": {
    "abc": {"duration": 82.73, "subset": "training", "resolution": "1920x1080", "url": "https://example.org/abc",
            "annotations": [{"segment": [6.195294851794072, 77.73], "label": "fall"}]},
    "def": {"duration": 9, "subset": "validation", "annotations": [{"segment": [0, 1.5], "label": "sit down"},
                                                                    {"segment": [2, 9.01], "label": "fall"}]},
    "ghi": {"duration": 5, "subset": "testing", "annotations": []}}}


def region(start, end, label, **more):
    return {"id": "r1", "from_name": "tl", "to_name": "video", "type": "timelinelabels", "origin": "manual",
            "value": {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}, **more}


def task(*regions, video="/data/upload/1/3d3ad63e-abc.mp4", number=7, **data):
    return {"id": number, "data": {"video": video, **data}, "predictions": [],
            "annotations": [{"id": 1, "was_cancelled": False, "result": list(regions)}]}


@pytest.fixture
def imported(tmp_path):
    """Write a file of another tool beside the videos and read it."""
    def do(content, *, videos=("abc.mp4", "clips/v_def.mkv"), fps=None):
        for name in videos:
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).touch()
        path = tmp_path / "export.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return read_annotations(path, videos=tmp_path / "set", fps=fps)

    return do


def test_activitynet_is_read(imported):
    result = imported(ACTIVITYNET)
    assert result.segments == [
        Segment("abc.mp4", 6.195294851794072, 77.73, "fall", "train"),
        Segment("clips/v_def.mkv", 0, 1.5, "sit down", "val"), Segment("clips/v_def.mkv", 2, 9.01, "fall", "val")]
    assert result.notes == []


def test_label_studio_counts_frames_from_one_with_both_ends(imported):
    box = {"id": "b", "type": "videorectangle", "value": {"sequence": [], "framesCount": 100, "labels": ["hand"]}}
    result = imported([task(region(26, 50, "fall"), box, region(51, 51, "sit"))], fps=25)
    assert result.segments == [Segment("abc.mp4", 1, 2, "fall"), Segment("abc.mp4", 2, 2.04, "sit")]


def test_label_studio_says_its_rate_in_the_data_and_seconds_of_sound(imported):
    sound = {"id": "s", "type": "labels", "value": {"start": 0.25, "end": 3.5, "channel": 0, "labels": ["speech"]}}
    content = [task(region(1, 10, "fall"), sound, video="/data/local-files/?d=other/v_def.mkv", fps=10)]
    result = imported(content, fps=24)
    video = "clips/v_def.mkv"
    assert result.segments == [Segment(video, 0, 1, "fall"), Segment(video, 0.25, 3.5, "speech")]
    assert "overlaps" in result.notes[0]


def test_cancelled_annotations_and_predictions_are_passed_over(imported):
    first = task(region(1, 10, "fall"))
    first["annotations"].insert(0, {"was_cancelled": True, "result": [region(1, 90, "wrong")]})
    first["predictions"] = [{"result": [region(1, 80, "guess")]}]
    assert [item.label for item in imported([first, task(number=8)], fps=10).segments] == ["fall"]


def test_a_fifo_is_no_export(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.json: no regular file"):
        read_annotations(tmp_path / "a.json", videos=tmp_path)


def test_videos_that_are_not_there_are_said(imported):
    result = imported(ACTIVITYNET, videos=("abc.mp4",))
    assert result.segments[1].path == "def.mp4"
    assert result.notes[0].startswith("1 videos are not in ") and result.notes[0].endswith("the first is def.mp4")


ROWS = [Segment("abc.mp4", 0.1234, 3.75, "fall", "train", "Ann"),
        Segment("abc.mp4", 4, 10.001, "sit, down", "train", "Ann"),
        Segment("clips/v_def.mkv", 1 / 30, 2 / 3, "fall", "val", "Ben")]


@pytest.mark.parametrize("tool", ["activitynet", "labelstudio"])
@pytest.mark.parametrize("rows", [ROWS, [Segment("new.mp4", 3599.9994, 7200, "fall")]])
def test_round_trips_are_exact_to_a_millisecond(imported, tmp_path, tool, rows):
    text, _ = annotations_of(rows, tool, videos=tmp_path / "set", fps=30)
    again = imported(text).segments
    assert [(item.path, item.label, item.split, item.group) for item in again] == [
        (item.path, item.label, item.split, item.group) for item in rows]
    assert max(abs(a.start - b.start) + abs(a.end - b.end) for a, b in zip(rows, again, strict=True)) < 1e-5
    assert json.loads(annotations_of(again, tool, videos=tmp_path / "set", fps=30)[0]) == json.loads(text)


def test_a_region_that_was_moved_in_label_studio_has_its_new_times(imported):
    content = json.loads(annotations_of(ROWS[:1], "labelstudio", videos=".", fps=10)[0])
    content[0]["annotations"][0]["result"][0]["value"]["ranges"][0] = {"start": 11, "end": 40}
    assert (imported(content).segments[0].start, imported(content).segments[0].end) == (1, 4)


@pytest.mark.parametrize(("content", "message"), [
    ("{", r"export.json, line 1: no JSON \("),
    ({"images": [], "annotations": []}, r"neither Label Studio's list of tasks nor ActivityNet's 'database'"),
    ([], "neither Label Studio's"),
    ([{"id": 3, "video": "a.mp4", "tl": []}], "task 3: this file has no 'annotations'; export from Label"),
    ([{"id": 3, "completions": []}], "task 3: this file is of Label Studio before 1.0"),
    ([task(region(26, 50, "fall"))], "task 7, region r1: its times are frames; give --fps, the frame rate of the"),
    ([task(region(5, 3, "fall"), fps=10)], "region r1: frames 5 to 3; they count from 1"),
    ([task(region("5", 8, "fall"), fps=10)], "region r1: the time '5' is no number"),
    ([task(region(5, 8, "fall"), fps="x")], "region r1: the frame rate is 'x'; it must be a number above 0"),
    ([task(region(5, 8, "fall"), video="a.wav", fps=1)], r"task 7: no video in its data \(video, fps\)"),
    ([task()], "no segment in it"),
    ({"database": {"abc": {"annotations": [{"segment": [3, 2], "label": "x"}]}}},
     "export.json, abc, annotation 1: the segment starts at 3 and ends at 2; it must start at 0 or later"),
    ({"database": {"abc": {"annotations": [{"segment": [3], "label": "x"}]}}}, r"the segment \[3\] is not \[start, "),
    ({"database": {"abc": {"annotations": [{"segment": [1, 2]}]}}}, "annotation 1: 'label' is missing"),
    ({"database": {"abc": {"segments": []}}}, "abc: 'annotations' is missing; is this a file of another version"),
    ({"database": {"abc": {"duration": 9.5, "annotations": [{"segment": [120, 240], "label": "x"}]}}},
     "begins beyond the duration, 9.5 s; these look like frames: give seconds"),
])
def test_other_files_are_refused_with_their_place(imported, content, message):
    with pytest.raises(ValueError, match=message):
        imported(content)


def test_two_videos_of_one_name_are_refused(imported):
    with pytest.raises(ValueError, match=r"a/abc.mp4 and abc.mp4 could both be 'abc'|abc.mp4 and a/abc.mp4"):
        imported(ACTIVITYNET, videos=("abc.mp4", "a/abc.mp4"))


def test_activitynet_holds_one_split_a_video(tmp_path):
    rows = [Segment("a.mp4", 0, 1, "x", "train", where="l.csv, line 2"), Segment("a.mp4", 1, 2, "x", "val")]
    with pytest.raises(ValueError, match="l.csv, line 2: a.mp4 has segments of several splits"):
        annotations_of(rows, "activitynet", videos=tmp_path)


def test_the_command_there_and_back(tmp_path, capsys):
    write_segments(tmp_path / "list.csv", ROWS)
    assert main(["import", str(tmp_path / "list.csv"), "--export", "activitynet", "--out", f"{tmp_path}/a.json"]) == 0
    assert "2 videos cannot be read: their duration is the end of their last segment" in capsys.readouterr().out
    assert main(["import", f"{tmp_path}/a.json", "--out", f"{tmp_path}/again.csv"]) == 0
    assert "again.csv: 3 segments of 2 classes in 2 videos" in capsys.readouterr().out
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "list.csv").read_bytes()
    assert read_segments(tmp_path / "again.csv")[1].label == "sit, down"
    for words, message in ((["--out", f"{tmp_path}/x.txt"], "it must end in .csv"),
                           (["--out", f"{tmp_path}/again.csv"], "exists; name another file"),
                           (["--export", "activitynet", "--out", f"{tmp_path}/x.json"], "line 1: columns {")):
        assert main(["import", f"{tmp_path}/a.json", *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith("error: ") and message in error
    assert main(["import", f"{tmp_path}/list.csv", "--export", "labelstudio", "--out", f"{tmp_path}/x.json"]) == 2
    assert "give --fps, the frame rate of its <Video> tag" in capsys.readouterr().err
