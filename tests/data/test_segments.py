"""Lists with start and end."""

import pytest

from tinyaction.data.segments import Segment, format_seconds, parse_seconds, read_segments, write_segments


@pytest.fixture
def table(tmp_path):
    def write(*lines, header="path,start,end,label"):
        path = tmp_path / "segments.csv"
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(("text", "seconds"), [
    ("12.5", 12.5), ("0", 0), ("75", 75), ("1:02", 62), ("75:00", 4500), ("0:00:12.5", 12.5), ("1:02:03.25", 3723.25),
    (" 3. ", 3), ("0:00:01,500", 1.5), ("2,5", 2.5)])
def test_times_are_seconds_or_clock_times(text, seconds):
    assert parse_seconds(text, "list.csv, line 2") == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:60", "1:60:00", "1e3", "nan", "inf", "1:2:3:4", ":5", ".5.5", "٣",
                                  "9" * 40])
def test_what_is_no_time_is_said_with_its_place(text):
    with pytest.raises(ValueError, match="list.csv, line 2: the time .* is none; write seconds"):
        parse_seconds(text, "list.csv, line 2")


def test_a_table_is_read_as_it_stands(table):
    path = table("long.mp4, 1.5, 0:00:04, fall, Val, Ann", '"a, b.mp4",0,2.25,sit,train,Ben',
                 header="Path,Start,End,Label,Split,Group")
    assert read_segments(path) == [Segment("long.mp4", 1.5, 4, "fall", "val", "Ann"),
                                   Segment("a, b.mp4", 0, 2.25, "sit", "train", "Ben")]
    assert read_segments(path)[1].where == f"{path}, line 3"


def test_a_spreadsheet_with_semicolons_and_decimal_commas_is_read(table):
    assert read_segments(table("a.mp4;0,5;1,25;fall", header="path;start;end;label")) == [
        Segment("a.mp4", 0.5, 1.25, "fall")]


def test_what_is_written_reads_back_and_frames_at_the_ends_stay_theirs(tmp_path):
    segments = [Segment("x,y.mp4", 2 / 30, 7 / 30, 'say "hi"', "train", "Ann"),
                Segment("z.mp4", 3599.9994, 7200.25, "fall", "val", "Ben")]
    write_segments(tmp_path / "out.csv", segments)
    again = read_segments(tmp_path / "out.csv")
    for before, after in zip(segments, again, strict=True):
        assert (before.path, before.label, before.split, before.group) == (after.path, after.label, after.split,
                                                                           after.group)
        assert abs(before.start - after.start) <= 5e-7 and abs(before.end - after.end) <= 5e-7
    write_segments(tmp_path / "plain.csv", [Segment("z.mp4", 0, 1, "fall")])
    assert (tmp_path / "plain.csv").read_text() == "path,start,end,label\nz.mp4,0,1,fall\n"


def test_seconds_are_written_short():
    assert [format_seconds(value) for value in (0, 100, 12.5, 1 / 3)] == ["0", "100", "12.5", "0.333333"]


@pytest.mark.parametrize(("lines", "message"), [
    (["a.mp4,5,3,fall"], "line 2: the segment starts at 5 and ends at 3; it must end after it starts"),
    (["a.mp4,5,5,fall"], "line 2: the segment starts at 5 and ends at 5"),
    (["a.mp4,soon,5,fall"], "line 2: the time 'soon' is none"),
    (["a.mp4,1,,fall"], "line 2: no end; a line is 'path,start,end,label"),
    (["a.mp4,1,2,fall,x"], "line 2: 4 columns, but more cells"),
    ([], "the table is empty"),
    (["a.mp4,1,2,fall", "b.mp4,1,2,fall", "./a.mp4,1.0,2,fall"],
     r"line 4: 1 to 2 s of './a.mp4' \(fall\) is there twice, first in .*line 2; delete one"),
    (["a.mp4,4,9,fall", "a.mp4,1,4.5,sit"],
     r"line 2: 4 to 9 s of 'a.mp4' \(fall\) overlaps 1 to 4.5 s \(sit\) of .*line 3; with one label a frame"),
])
def test_bad_lines_are_said_in_one_sentence(table, lines, message):
    with pytest.raises(ValueError, match=message):
        read_segments(table(*lines))


def test_a_short_segment_within_a_long_one_overlaps_it(table):
    path = table("a.mp4,0,100,walk", "a.mp4,10,20,walk", "a.mp4,50,60,fall")
    with pytest.raises(ValueError, match="line 3: 10 to 20 s"):
        read_segments(path)
    assert len(read_segments(path, overlap=True)) == 3


def test_segments_overlap_where_a_row_has_several_labels(table):
    assert len(read_segments(table("a.mp4,0,4,walk;talk", "a.mp4,2,6,talk"))) == 2
    with pytest.raises(ValueError, match=r"line 3: 0 to 4 s of 'a.mp4' \(wave\) has the times of .*line 2; join their "
                                         r"labels in one line: walk;talk;wave"):
        read_segments(table("a.mp4,0,4,walk;talk", "a.mp4,0,4,wave"))


def test_segments_that_touch_do_not_overlap(table):
    assert len(read_segments(table("a.mp4,0,0.333333,fall", "a.mp4,0.333333,1,sit", "b.mp4,0,1,sit"))) == 3


def test_columns_that_are_missing_are_said(table):
    with pytest.raises(ValueError, match="line 1: columns path, label; a table begins with 'path,start,end,label'"):
        read_segments(table("a.mp4,fall", header="path,label"))
