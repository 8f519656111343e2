"""Rows of CSV files in arrays."""

import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tinyaction.data.annotations import find_data
from tinyaction.data.class_folders import split_by_class
from tinyaction.data.csv_lists import rarest_labels
from tinyaction.data.rows import PackedTexts, Rows, read_rows
from tinyaction.data.segments import Segment

WHOLE = [Segment(f"{letter}/ä {i}.mp4", 0, float("inf"), "abba"[i % 4], "train", f"g{i}", f"x.csv, line {i + 2}",
                 {"note": str(i)}) for i, letter in enumerate("abbab")]
PARTS = [Segment("a.mp4", 1.5, 4, "fall", "val", "", "x.csv, line 2"),
         Segment("a.mp4", 4, 5.25, "sit;stand", "", "", "x.csv, line 9")]


@pytest.mark.parametrize("segments", [WHOLE, PARTS, []])
def test_rows_are_what_they_were_made_of(segments):
    rows = Rows.of(segments)
    assert list(rows) == segments and [rows[i] for i in range(len(rows))] == segments
    assert [(row.where, row.others) for row in rows] == [(row.where, row.others) for row in segments]
    order = np.arange(len(rows))[::-1].copy()
    assert list(rows.take(order)) == segments[::-1] and list(rows.take(order).take(order)) == segments


def test_texts_that_are_taken_are_not_copied():
    texts = PackedTexts(f"text {i}" for i in range(30_000))
    taken = texts.take(np.arange(29_999, 0, -2))
    assert list(taken) == [f"text {i}" for i in range(29_999, 0, -2)] and taken[1] == "text 29997"
    assert taken._packed.array.ctypes.data == texts._packed.array.ctypes.data


def test_the_first_row_of_each_label():
    rows = Rows.of(WHOLE)
    assert {rows.labels.texts[number]: row.path for number, row in rows.first_of_labels().items()} == {
        "a": "a/ä 0.mp4", "b": "b/ä 1.mp4"}
    later = rows.take(np.array([2, 3, 4]))
    assert [row.path for row in later.first_of_labels().values()] == ["b/ä 2.mp4", "a/ä 3.mp4"]


def test_rarest_labels_count_rows():
    rows = Rows.of([Segment("a", 0, 1, label, where="x, line 2") for label in
                    ("red;blue", "red", "red", "blue;green", "green", "green", "blue;red")])
    assert list(rarest_labels(rows, Path("x"))) == ["blue", "red", "red", "blue", "green", "green", "blue"]


def test_a_list_takes_little_memory_a_row(tmp_path):
    num = 20_000
    table = tmp_path / "list.csv"
    table.write_text("path,label\n" + "".join(f"class_{i % 7}/clip_{i:08}.mp4,{i % 7}\n" for i in range(num)))
    tracemalloc.start()
    rows = read_rows(table)
    assert tracemalloc.get_traced_memory()[1] < 80 * num  # at the peak; a name has 25 bytes
    find_data(tmp_path, keep_split=False)
    assert tracemalloc.get_traced_memory()[1] < 200 * num
    tracemalloc.stop()
    assert len(rows) == num and rows[num - 1].where == f"{table}, line {num + 1}"


def test_a_split_is_the_draw_of_its_seed_class_by_class():
    labels = ["b", "a", "a", "b", "a", "b", "b", "a", "a"]
    rng = random.Random(3)
    expected = rng.sample([1, 2, 4, 7, 8], 2) + rng.sample([0, 3, 5, 6], 2)
    assert split_by_class(labels, 0.4, 3, Path("x")) == expected
