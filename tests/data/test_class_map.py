"""Classes of a folder among those of a network."""

import pytest

from tinyaction.data.annotations import VideoList
from tinyaction.data.class_map import match_classes, read_class_map, with_numbers

KNOWN = ["abseiling", "run", "swim", "jump rope"]


def test_classes_are_found_by_name():
    assert match_classes(["Jump_Rope", "run"], KNOWN, names={}) == [3, 1]
    assert match_classes(["rope", "run"], KNOWN, names={"rope": "jump rope"}) == [3, 1]


@pytest.mark.parametrize("given, names, message", [
    (["jump ropes", "run"], {}, "class 'jump ropes' is none of the network's 4 classes; did you mean jump rope?"),
    (["0", "1"], {}, "class '0' is none of the network's 4 classes (abseiling, run, swim, jump rope); --classes FILE"),
    (["run", "runs"], {"runs": "run"}, "classes 'run' and 'runs' are both the network's 'run'"),
    (["run"], {"walk": "run"}, "class 'walk' is to be mapped and is none of the folder's: run"),
])
def test_classes_that_are_not_there(given, names, message):
    with pytest.raises(ValueError) as error:
        match_classes(given, KNOWN, names=names)
    assert str(error.value).startswith(message)


def test_labels_become_the_networks_numbers():
    videos = VideoList(["a.mp4", "b.mp4", "c.mp4"], [0, 1, 0], prefix="clips")
    moved = with_numbers(videos, [3, 1])
    assert [moved[index] for index in range(3)] == [("clips/a.mp4", 3), ("clips/b.mp4", 1), ("clips/c.mp4", 3)]
    assert videos.labels.tolist() == [0, 1, 0]


def test_a_file_of_two_columns(tmp_path):
    path = tmp_path / "map.csv"
    path.write_text('rope, jump rope\n\n"letting it drop","Lifting up, then letting it drop down"\n')
    assert read_class_map(path) == {"rope": "jump rope", "letting it drop": "Lifting up, then letting it drop down"}
    path.write_text("rope\tjump, rope\n")
    assert read_class_map(path) == {"rope": "jump, rope"}


@pytest.mark.parametrize("text, message", [
    ("rope,\n", r"map.csv, line 1: 'rope,' must be two columns"),
    ("a,b\nrope\n", r"map.csv, line 2: 'rope' must be two columns"),
    ("a,b\na,c\n", r"map.csv, line 2: class 'a' comes twice"),
])
def test_a_file_of_something_else(tmp_path, text, message):
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_class_map(tmp_path / "map.csv")
    with pytest.raises(FileNotFoundError, match="no such file of classes"):
        read_class_map(tmp_path / "none.csv")
