"""Videos with several labels: CSV files with "wave;walk", and lists that are taken for such."""

import numpy as np
import pytest
import torch

from tinyaction.data.annotations import find_data
from tinyaction.data.class_map import with_numbers
from tinyaction.data.dataset import VideoDataset
from tinyaction.data.lists import read_list
from tinyaction.data.transforms import VideoPack


@pytest.fixture
def table(tmp_path):
    def write(*lines, header="path,label,split", name="list.csv"):
        path = tmp_path / name
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return path

    return write


def test_labels_joined_by_semicolons_are_sets(table):
    data = find_data(table("a.mp4,walk;wave,train", "b.mp4,walk,train", "c.mp4, wave ; bend ,val"))
    assert data.class_names == ["bend", "walk", "wave"]
    assert data.train.label_sets.tolist() == [[0, 1, 1], [0, 1, 0]]
    assert data.val.label_sets.tolist() == [[1, 0, 1]]
    assert data.train.labels.tolist() == [1, 1]                        # the first of each
    assert data.val.row(0, data.class_names).label == "bend;wave"


def test_one_list_with_several_labels_makes_sets_of_both(table):
    data = find_data(table("a.mp4,walk;wave,train", "b.mp4,wave,val"))
    assert data.val.label_sets.tolist() == [[0, 1]]


def test_numbers_may_be_joined_as_well(table):
    assert find_data(table("a.mp4,0;2,train", "b.mp4,1,val")).train.label_sets.tolist() == [[1, 0, 1]]


def test_without_semicolons_a_list_has_sets_only_where_they_are_asked_for(table):
    path = table("a.mp4,walk,train", "b.mp4,wave,val")
    assert find_data(path).train.label_sets is None
    assert find_data(path, multi_label=True).train.label_sets.tolist() == [[1, 0]]


def test_a_class_folder_may_have_a_semicolon_in_its_name(tmp_path):
    for name in ("a;b", "c"):
        (tmp_path / name).mkdir()
        for number in range(2):
            (tmp_path / name / f"{number}.mp4").touch()
    for _ in range(2):                                                 # the second time from split.csv
        data = find_data(tmp_path)
        assert data.class_names == ["a;b", "c"]
        assert not data.is_multi_label


@pytest.mark.parametrize(("label", "rule"), [
    ("walk;;wave", "line 2: an empty label in 'walk;;wave'"),
    ("walk;", "line 2: an empty label in 'walk;'"),
    ("walk;wave;walk", "line 2: the label 'walk' is there twice in 'walk;wave;walk'"),
])
def test_a_wrong_set_is_named(table, label, rule):
    with pytest.raises(ValueError, match=rule):
        find_data(table(f"a.mp4,{label},train", "b.mp4,wave,val"))


def test_an_unknown_label_of_a_set_is_named(table):
    path = table("a.mp4,walk;wive", header="path,label")
    with pytest.raises(ValueError, match="line 2: the class 'wive' is not among the 2 known .*; did you mean 'wave'"):
        read_list(path, class_names=["walk", "wave"])


def test_a_split_is_made_by_the_rarest_label(table):
    rows = [f"{i}.mp4,walk{';wave' if i < 4 else ''}" for i in range(20)]
    data = find_data(table(*rows, header="path,label"))
    assert data.val.label_sets.sum(axis=0).tolist() == [1 + 3, 1]      # a fifth of 4 with both, and of 16 with one
    with pytest.raises(ValueError, match="class 'wave' have other labels as well, .* add a column 'split'"):
        find_data(table("a.mp4,bend;wave", "b.mp4,wave", "c.mp4,bend", header="path,label"))


def test_sets_go_with_their_videos(table):
    videos = find_data(table("a.mp4,walk;wave,train", "b.mp4,walk,train", "c.mp4,wave,val")).train
    assert videos.subset([1, 0]).label_sets.tolist() == [[1, 0], [1, 1]]
    assert videos.joined(videos).label_sets.tolist() == [[1, 1], [1, 0]] * 2
    assert with_numbers(videos, [2, 0], num_classes=3).label_sets.tolist() == [[1, 0, 1], [0, 0, 1]]
    single = find_data(table("a.mp4,walk,train", "c.mp4,wave,val", name="single.csv")).train
    with pytest.raises(ValueError, match="list.csv has several labels and .*single.csv has none"):
        videos.joined(single)


def test_the_digest_knows_all_labels(table):
    both = [find_data(table(f"a.mp4,walk{more},train", "b.mp4,walk;wave,val")).train.digest()
            for more in ("", ";wave")]
    assert both[0] != both[1]


def test_an_item_has_its_set_as_numbers(table):
    def pipeline(results):
        return VideoPack()({**results, "imgs": np.zeros((1, 3, 1, 2, 2), np.uint8), "img_shape": (2, 2),
                            "num_clips": 1, "clip_len": 1})

    dataset = VideoDataset(table("a.mp4,walk;wave,train", "b.mp4,wave,val"), pipeline)
    label = dataset[0]["data_samples"].label
    assert label.dtype == torch.float32
    assert label.tolist() == [1, 1]


# ---- an empty cell: none of the labels -----------------------------------------------------------------------------


def test_an_empty_label_among_several_is_an_empty_set(table):
    path = table("a.mp4,walk;wave,train", "b.mp4,,train", "c.mp4,walk,train", "d.mp4,,val")
    data = find_data(path)
    assert data.train.label_sets.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert data.train.labels.tolist() == [0, -1, 0]
    assert data.val.label_sets.tolist() == [[0, 0]]                    # whose own lines have none with several
    assert data.train.row(1, data.class_names).label == ""
    assert with_numbers(data.train, [2, 1], num_classes=3).labels.tolist() == [2, -1, 2]
    assert read_list(path).label_sets.tolist() == [[1, 1], [0, 0], [1, 0], [0, 0]]


def test_without_several_labels_an_empty_one_is_an_error_unless_it_is_asked_for(table):
    path = table("a.mp4,walk,train", "b.mp4,,train", "c.mp4,wave,val")
    with pytest.raises(ValueError, match="line 3: no label; a line is 'path,label.*--multi-label"):
        find_data(path)
    with pytest.raises(ValueError, match="line 3: no label"):
        read_list(path)
    assert find_data(path, multi_label=True).train.label_sets.tolist() == [[1, 0], [0, 0]]
    with pytest.raises(ValueError, match="line 2: no label"):          # nothing says what could be there
        find_data(table("a.mp4,,train", "b.mp4,,val"), multi_label=True)


def test_one_of_two_tables_may_have_the_several_labels(table, tmp_path):
    table("a.mp4,walk;wave", header="path,label", name="train.csv")
    table("b.mp4,walk", "c.mp4,", header="path,label", name="val.csv")
    assert find_data(tmp_path).val.label_sets.tolist() == [[1, 0], [0, 0]]
    table("a.mp4,walk", header="path,label", name="train.csv")
    with pytest.raises(ValueError, match="val.csv, line 3: no label"):
        find_data(tmp_path)


def test_a_line_that_ends_before_its_label_is_no_empty_set(table):
    with pytest.raises(ValueError, match="line 3: no label"):
        find_data(table("a.mp4,walk;wave", "b.mp4", header="path,label"))


def test_empty_sets_are_split_like_a_class(table, tmp_path):
    rows = [f"{i}.mp4,{'walk;wave' if i < 10 else ''}" for i in range(20)]
    table(*rows, header="path,label")
    for _ in range(2):                                                 # the second time from split.csv
        data = find_data(tmp_path)
        assert data.val.label_sets.sum(axis=1).tolist().count(0) == 2 == len(data.val) // 2
    data = find_data(table("a.mp4,walk;wave", "b.mp4,walk;wave", "c.mp4,", header="path,label", name="other.csv"))
    assert (len(data.train), len(data.val)) == (2, 1) and data.val.label_sets.all()  # the only one is trained on


def test_a_segment_may_have_none_of_the_labels(table):
    header = "path,start,end,label,split"
    data = find_data(table("a.mp4,0,2,walk;wave,train", "a.mp4,1,3,,train", "b.mp4,0,1,walk,val", header=header))
    assert data.train.label_sets.tolist() == [[1, 1], [0, 0]]
    with pytest.raises(ValueError, match="line 3: no label; a line is 'path,start,end,label"):
        find_data(table("a.mp4,0,2,walk,train", "a.mp4,2,3,,train", "b.mp4,0,1,walk,val", header=header))


def test_labels_that_count_from_1_are_told_beside_an_empty_one(table):
    with pytest.raises(ValueError, match="do labels count from 1"):
        find_data(table("a.mp4,1;2,train", "b.mp4,,train", "c.mp4,1,val"))
