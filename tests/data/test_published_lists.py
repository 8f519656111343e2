"""Lists as published: a few lines of each format, read as they stand."""

import json
from functools import partial

import pytest

from tinyaction.data.annotations import DataFolder, find_data
from tinyaction.data.dataset import VideoDataset


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def read(folder) -> tuple[list, list, list]:
    data: DataFolder = find_data(folder)
    pairs = [[(videos.name(i), data.class_names[videos.labels[i]]) for i in range(len(videos))]
             for videos in (data.train, data.val)]
    return *pairs, data.class_names


def test_ucf101(tmp_path):
    write(tmp_path, classInd__txt="1 Archery\r\n2 Bowling\r\n",
          trainlist01__txt="Archery/v_Archery_g08_c01.avi 1\r\nBowling/v_Bowling_g08_c01.avi 2\r\n",
          testlist01__txt="Bowling/v_Bowling_g01_c01.avi\n")
    assert read(tmp_path) == (
        [("Archery/v_Archery_g08_c01.avi", "Archery"), ("Bowling/v_Bowling_g08_c01.avi", "Bowling")],
        [("Bowling/v_Bowling_g01_c01.avi", "Bowling")], ["Archery", "Bowling"])


def test_the_splits_of_ucf101_by_their_lists(tmp_path):
    """Lists as they are unpacked, beside the folder of the videos."""
    lists, videos = tmp_path / "ucfTrainTestlist", tmp_path / "UCF-101"
    lists.mkdir()
    write(lists, classInd__txt="1 Archery\r\n2 Bowling\r\n", **{
        f"{word}list0{number}__txt": f"Archery/{word}{number}.avi{' 1' * (word == 'train')}\n"
        for word in ("train", "test") for number in (1, 2, 3)})
    (videos / "Archery").mkdir(parents=True)
    for word, number in (("train", 1), ("test", 2), ("train", 3)):
        (videos / "Archery" / f"{word}{number}.avi").touch()
    for given, number in ((tmp_path, 1), (lists, 1), (lists / "trainlist02.txt", 2), (lists / "testlist03.txt", 3)):
        train, val, names = read(given)
        assert names == ["Archery", "Bowling"]
        assert [train[0][0].removeprefix("UCF-101/"), val[0][0].removeprefix("UCF-101/")] == [
            f"Archery/train{number}.avi", f"Archery/test{number}.avi"]
        is_there = given != lists  # the folder of the lists alone has no videos
        assert [path[0][0].startswith("UCF-101/") for path in (train, val)] == [
            is_there and number in (1, 3), is_there and number == 2]


def test_the_videos_for_testing_of_ucf101_and_hmdb51(tmp_path):
    """They are for validation, too."""
    write(tmp_path, classInd__txt="1 Archery\n", trainlist01__txt="Archery/a.avi 1\n",
          testlist01__txt="Archery/b.avi\n")
    data = find_data(tmp_path)
    assert data.of_split("test") is data.val and data.val.name(0) == "Archery/b.avi"
    hmdb51 = tmp_path / "hmdb51"
    hmdb51.mkdir()
    write(hmdb51, wave_test_split1__txt="a.avi 1\nb.avi 2\n")
    data = find_data(hmdb51)
    assert data.of_split("test") is data.val and data.val.name(0) == "wave/b.avi"


def test_a_dataset_reads_a_list_of_ucf101_as_training_does(tmp_path):
    write(tmp_path, classInd__txt="1 Archery\n2 Bowling\n",
          trainlist01__txt="Archery/a.avi 1\nBowling/b.avi 2\n", testlist01__txt="Bowling/c.avi\n")
    for name, pairs in (("train", [("Archery/a.avi", 0), ("Bowling/b.avi", 1)]), ("test", [("Bowling/c.avi", 1)])):
        for test_mode in (False, True):
            dataset = VideoDataset(f"{name}list01.txt", dict, data_root=tmp_path, test_mode=test_mode)
            videos = [dataset.videos[index] for index in range(len(dataset))]
            assert videos == [(str(tmp_path / path), label) for path, label in pairs]
            assert dataset.class_names == ["Archery", "Bowling"]


def test_labels_that_count_from_1_make_no_class_0(tmp_path):
    """As a list alone, of a dataset; or as the numbers of a table."""
    write(tmp_path, trainlist01__txt="a.avi 1\nb.avi 2\n",
          table__csv="path,label,split\na.avi,1,train\nb.avi,2,train\na.avi,1,val\n")
    for read_it, name in ((partial(VideoDataset, pipeline=dict), "trainlist01.txt"), (find_data, "table.csv"),
                          (partial(VideoDataset, pipeline=dict), "table.csv")):
        with pytest.raises(ValueError, match=rf"{name}: no video has label 0; do labels count from 1\?"):
            read_it(tmp_path / name)
    assert len(VideoDataset(tmp_path / "trainlist01.txt", dict, class_names=["none", "a", "b"])) == 2
    assert len(VideoDataset(tmp_path / "trainlist01.txt", dict, test_mode=True)) == 2


def test_the_splits_of_hmdb51_by_their_lists(tmp_path):
    """And classes in the order of their names, not of their files': _ comes before the end of a name."""
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    for name in ("climb", "climb_stairs"):
        for number in (1, 2, 3):
            (lists / f"{name}_test_split{number}.txt").write_text(f"{name}{number}.avi 1 \nb.avi 2 \n")
    assert read(tmp_path)[0] == [("climb/climb1.avi", "climb"), ("climb_stairs/climb_stairs1.avi", "climb_stairs")]
    assert read(lists / "climb_stairs_test_split3.txt") == (
        [("climb/climb3.avi", "climb"), ("climb_stairs/climb_stairs3.avi", "climb_stairs")],
        [("climb/b.avi", "climb"), ("climb_stairs/b.avi", "climb_stairs")], ["climb", "climb_stairs"])


def test_hmdb51(tmp_path):
    write(tmp_path, wave_test_split1__txt="a.avi 1 \nb.avi 2 \nc.avi 0 \n", smile_test_split1__txt="d.avi 1 \n")
    assert read(tmp_path) == ([("smile/d.avi", "smile"), ("wave/a.avi", "wave")], [("wave/b.avi", "wave")],
                              ["smile", "wave"])


def test_lists_in_their_own_folder_are_no_files_left_over(tmp_path):
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    write(lists, wave_test_split1__txt="a.avi 1 \nb.avi 2 \n", wave_test_split2__txt="a.avi 2 \nb.avi 1 \n")
    (tmp_path / "wave").mkdir()
    for name in ("a.avi", "b.avi", "notes.txt"):
        (tmp_path / "wave" / name).write_bytes(b"")
    assert find_data(tmp_path).unused_files() == "1 file is no video: .txt 1"


def test_something_something(tmp_path):
    entry = {"id": "78687", "label": "holding a potato", "template": "Holding [something]", "placeholders": []}
    other = {"id": "42", "label": "tearing paper", "template": "Tearing [something]", "placeholders": ["paper"]}
    (tmp_path / "something-something-v2-train.json").write_text(json.dumps([entry, other]))
    (tmp_path / "something-something-v2-validation.json").write_text(json.dumps([entry]))
    assert read(tmp_path) == ([("78687.webm", "Holding something"), ("42.webm", "Tearing something")],
                              [("78687.webm", "Holding something")], ["Holding something", "Tearing something"])


@pytest.mark.parametrize("labels, names", [
    ('{"Tearing something": "0", "Holding something": "1"}', ["Tearing something", "Holding something"]),
    ('{"Tearing something": "1", "Holding something": "2"}', "the numbers of the 2 classes are not 0 to 1"),
    ('["Tearing something"]', "not class names with their numbers"),
    ('{"Tearing something": "0"}', "no line of the file of labels, has the class 'Holding something'"),
])
def test_the_file_of_labels_gives_the_order(labels, names, tmp_path):
    entries = [{"id": 7, "template": "Holding [something]"}, {"id": 8, "template": "Tearing [something]"}]
    write(tmp_path, **{f"ssv2-{word}__json": text for word, text in (
        ("train", json.dumps(entries)), ("validation", json.dumps(entries)), ("labels", labels))})
    if isinstance(names, str):
        with pytest.raises(ValueError, match=names):
            read(tmp_path)
    else:
        assert read(tmp_path)[2] == names


def test_jester_with_its_labels_and_frames(tmp_path):
    write(tmp_path, **{"jester-v1-labels__csv": "Swiping Left\nDrumming Fingers\n",
                       "jester-v1-train__csv": "1;Drumming Fingers\n2;Swiping Left\n",
                       "jester-v1-validation__csv": "3;Swiping Left\n"})
    (tmp_path / "20bn-jester-v1" / "1").mkdir(parents=True)
    assert read(tmp_path) == ([("20bn-jester-v1/1", "Drumming Fingers"), ("2", "Swiping Left")],
                              [("3", "Swiping Left")], ["Swiping Left", "Drumming Fingers"])


def test_jester(tmp_path):
    (tmp_path / "jester-v1-train.csv").write_text("34870;Drumming Fingers\n56557;Sliding Two Fingers Right\n")
    (tmp_path / "jester-v1-validation.csv").write_text("9223;Drumming Fingers\n")
    assert read(tmp_path)[:2] == ([("34870", "Drumming Fingers"), ("56557", "Sliding Two Fingers Right")],
                                  [("9223", "Drumming Fingers")])


def test_kinetics(tmp_path):
    header = "label,youtube_id,time_start,time_end,split\n"
    (tmp_path / "kinetics_train.csv").write_text(header + "abseiling,-3B32lodo2M,59,69,train\nyoga,abc,0,10,train\n")
    (tmp_path / "kinetics_val.csv").write_text(header + "yoga,xyz,5,15,val\n")
    assert read(tmp_path)[:2] == ([("abseiling/-3B32lodo2M_000059_000069.mp4", "abseiling"),
                                   ("yoga/abc_000000_000010.mp4", "yoga")], [("yoga/xyz_000005_000015.mp4", "yoga")])


def test_kinetics_as_it_is_unpacked(tmp_path):
    """With quotes and a sixth column; folders of the split, classes with _ for a space."""
    header = "label,youtube_id,time_start,time_end,split,is_cc\n"
    (tmp_path / "train.csv").write_text(header + '"air drumming",_dbcJuKJQNs,40,50,train,0\nyawning,x,1,11,train,1\n')
    (tmp_path / "validate.csv").write_text(header + "yawning,--07WQ2iBlw,1,11,validate,0\n")
    for path in ("train/air_drumming/_dbcJuKJQNs_000040_000050.mp4", "train/x_000001_000011.mp4",
                 "val/yawning/--07WQ2iBlw_000001_000011.mp4"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert read(tmp_path)[:2] == (
        [("train/air_drumming/_dbcJuKJQNs_000040_000050.mp4", "air drumming"),
         ("train/x_000001_000011.mp4", "yawning")],
        [("val/yawning/--07WQ2iBlw_000001_000011.mp4", "yawning")])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_tables_of_spreadsheets(delimiter, encoding, newline, tmp_path):
    rows = ["path,label,split", "a.mp4,gehen,train", "b.mp4,stehen – lang,train", "c.mp4,gehen,val"]
    text = "".join(row.replace(",", delimiter) + newline for row in rows)
    (tmp_path / "videos.csv").write_bytes(text.encode(encoding))
    assert read(tmp_path) == ([("a.mp4", "gehen"), ("b.mp4", "stehen – lang")], [("c.mp4", "gehen")],
                              ["gehen", "stehen – lang"])


@pytest.mark.parametrize("files, sentence", [
    ({"classInd__txt": "1 Archery\n3 Bowling\n"}, "classInd.txt, line 2: '3 Bowling'; a line of this file is 'number"),
    ({"classInd__txt": "1 Archery\n"}, "classInd.txt is there and trainlist01.txt is not; both come with UCF101"),
    ({"classInd__txt": "1 A\n2 B\n", "trainlist01__txt": "A/v.avi 2\n"},
     "trainlist01.txt, line 1: 'A/v.avi 2'; classInd.txt gives A the number 1"),
    ({"wave_test_split1__txt": "a.avi 3\n"}, "line 1: 'a.avi 3'; a line of this file is 'video 0', 1 for training"),
    ({"x-train__json": "[1]", "x-val__json": "[]"}, "x-train.json: not a list of Something-Something"),
    ({"x-train__csv": "1;a\n2 b\n", "x-val__csv": "1;a\n"}, "line 2: '2 b'; this list began with 'video;class', so"),
    ({"train__txt": "a.mp4 1\nb.mp4 2\n", "val__txt": "a.mp4 1\n"}, "no video has label 0; do labels count from 1?"),
])
def test_what_is_not_as_published_is_named(files, sentence, tmp_path):
    write(tmp_path, **files)
    with pytest.raises(ValueError) as e:
        find_data(tmp_path)
    assert sentence in str(e.value)


@pytest.mark.parametrize("name", ["a.mp4", "clip one.MKV"])
def test_columns_of_video_files_are_not_guessed(name, tmp_path):
    """Two labels were read as one frame and a label."""
    (tmp_path / name).touch()
    write(tmp_path, train__txt=f"{name} 1 0\n", val__txt=f"{name} 1 0\n")
    with pytest.raises(ValueError, match=rf"train\.txt, line 1: two numbers behind '{name}'; a line is 'path label'"):
        find_data(tmp_path)
