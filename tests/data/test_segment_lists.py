"""Lists of segments wherever lists of videos go: folders, batches, stores, checks, features, runs, reports."""

import csv

import numpy as np
import pytest
import torch
from toys import bar_frames, save_toy

import tinyaction as ta
from tinyaction.cli.check import main as check
from tinyaction.cli.evaluate import main as evaluate
from tinyaction.data.dataset import VideoDataset
from tinyaction.data.lists import read_list
from tinyaction.data.pipelines import eval_pipeline, train_pipeline
from tinyaction.data.segments import Segment, read_segments, write_segments
from tinyaction.prepare.store import fill_store, plan_store
from tinyaction.prepare.stored_file import StoreSettings
from tinyaction.results.features import FeatureCache, extract_features
from tinyaction.training.config import RunConfig
from tinyaction.training.identity import ListIdentity
from tinyaction.training.run import train
from tinyaction.video.writer import write_video

NAMES = ("lying", "standing")


def write_long(path, labels, *, seed):
    """A second of 10 frames for each label."""
    frames = (frame for place, label in enumerate(labels) for frame in bar_frames(label, seed + place))
    write_video(path, frames, fps=10, replace=True)


def rows_of(path, labels, split=""):
    return [Segment(path, place, place + 1, NAMES[label], split) for place, label in enumerate(labels)]


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory):
    """Three videos of four seconds; a.mp4 and b.mp4 are for training. Only for reading."""
    folder = tmp_path_factory.mktemp("data") / "long"
    folder.mkdir()
    rows = []
    for seed, (name, labels, split) in enumerate((("a.mp4", (0, 1, 0, 1), "train"), ("b.mp4", (1, 0, 0, 1), "train"),
                                                  ("c.mp4", (1, 1, 0, 0), "val"))):
        write_long(folder / name, labels, seed=10 * seed)
        rows += rows_of(name, labels, split)
    write_segments(folder / "segments.csv", rows)
    return folder


def written(folder, *lines, name="list.csv", header="path,start,end,label,split"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join([header, *lines]) + "\n")
    return folder


def test_find_data_reads_segments(long_videos):
    data = ta.find_data(long_videos)
    assert data.class_names == list(NAMES) and data.notes == []
    assert data.train.starts.tolist() == [0, 1, 2, 3] * 2 and data.train.ends.tolist() == [1, 2, 3, 4] * 2
    assert data.train.labels.tolist() == [0, 1, 0, 1, 1, 0, 0, 1] and len(data.val) == 4
    assert data.val.item_name(1) == f"{long_videos}/c.mp4#t=1,2"
    part = data.train.subset([5, 0])
    assert (part.starts.tolist(), part.ends.tolist(), part.lines.tolist()) == ([1, 0], [2, 1], [7, 2])
    assert list(part.groups) == ["b.mp4", "a.mp4"]  # what belongs together where nothing else says so
    assert "c.mp4" not in data.unused_summary()


def test_an_item_has_the_frames_of_its_segment_and_its_name(long_videos):
    item = ta.find_data(long_videos).val
    dataset = VideoDataset(item, eval_pipeline(clip_len=10, size=32), test_mode=True, class_names=NAMES)
    write_long(long_videos / "cut.mp4", (1,), seed=21)
    cut = eval_pipeline(clip_len=10, size=32)({"filename": str(long_videos / "cut.mp4")})
    (long_videos / "cut.mp4").unlink()
    found = dataset[1]
    assert found["data_samples"].filename == dataset.filename(1) == f"{long_videos}/c.mp4#t=1,2"
    assert (found["inputs"].float() - cut["inputs"].float()).abs().mean() < 4  # of another encoding


def test_a_dataset_reads_a_csv_by_its_name(long_videos):
    dataset = VideoDataset("segments.csv", train_pipeline(clip_len=4, size=32), data_root=long_videos,
                           class_names=NAMES)
    assert len(dataset) == 8 and dataset[2]["inputs"].shape == (1, 3, 4, 32, 32)  # those for training
    assert dataset[7]["data_samples"].label.item() == 1
    assert len(read_list(long_videos / "segments.csv")) == 12


def test_segments_without_a_split_keep_videos_whole(tmp_path):
    lines = [f"{video}.mp4,{start},{start + 1},{label}" for video in "abcde" for start, label in ((0, "x"), (2, "y"))]
    data = ta.find_data(written(tmp_path / "set", *lines, header="path,start,end,label"))
    sides = [{videos.name(index) for index in range(len(videos))} for videos in (data.train, data.val)]
    assert sides[0].isdisjoint(sides[1]) and len(sides[0] | sides[1]) == 5
    assert "2 of 10 segments were chosen for validation, 5 videos kept whole" in data.notes[0]
    assert [row.split for row in read_segments(tmp_path / "set/split.csv")].count("val") == 2
    again = ta.find_data(tmp_path / "set")
    assert again.notes == again.left_out == [] and again.val.starts.tolist() == data.val.starts.tolist()


def test_a_video_in_training_and_validation_is_said(tmp_path):
    folder = written(tmp_path / "set", "a.mp4,0,1,x,train", "a.mp4,1,2,y,val", "b.mp4,0,1,y,train", "c.mp4,0,1,x,val")
    data = ta.find_data(folder)
    assert data.notes == ["1 video with segments in training and in validation, the first is a.mp4: their validation "
                          "is no test on new videos"]
    assert data.train.groups is None


@pytest.mark.parametrize(("lines", "message"), [
    (["a.mp4,0,2,x,train", "a.mp4,1,3,y,val"], r"line 3: 1 to 3 s of 'a.mp4' \(y\) overlaps 0 to 2 s \(x\) of "),
    (["a.mp4,0,2,x,train", "a.mp4,0,2,x,val"], "is there twice"),
    (["a.mp4,0,2,x,train", "b.mp4,3,2,x,val"], "line 3: the segment starts at 3 and ends at 2"),
    (["../a.mp4,0,2,x,train", "b.mp4,1,2,x,val"], "line 2: '../a.mp4' leaves the data folder"),
    (["a.mp4,0,2,,train"], "line 2: no label; a line is 'path,start,end,label"),
])
def test_bad_lists_are_refused_with_their_line(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        ta.find_data(written(tmp_path / "set", *lines))


def test_two_tables_may_not_overlap(tmp_path):
    written(tmp_path / "set", "a.mp4,0,2,x", name="train.csv", header="path,start,end,label")
    written(tmp_path / "set", "a.mp4,1,2,x", name="val.csv", header="path,start,end,label")
    with pytest.raises(ValueError, match="val.csv, line 2: 1 to 2 s of 'a.mp4' .* overlaps 0 to 2 s"):
        ta.find_data(tmp_path / "set")


def test_an_unknown_class_is_refused(tmp_path):
    folder = written(tmp_path / "set", "a.mp4,0,1,sit,train", "b.mp4,0,1,sitt,val")
    (folder / "classes.txt").write_text("fall\nsit\n")
    with pytest.raises(ValueError, match="line 3: the class 'sitt' is not among the 2 known class names; did you"):
        ta.find_data(folder)


def test_a_class_without_training_video_is_said(tmp_path):
    folder = written(tmp_path / "set", "a.mp4,0,1,sit,train", "b.mp4,0,1,sit,val", "c.mp4,0,1,sitt,val")
    assert [note.partition(": ")[2] for note in ta.find_data(folder).notes] == [
        "no training video has the label 'sitt', so it cannot be learned; is it misspelt?"]


@pytest.mark.parametrize("format", ["raw", "jpeg"])
def test_a_store_keeps_a_video_once_for_all_its_segments(long_videos, tmp_path, format):
    settings = StoreSettings(format=format, short_side=32)
    plan = plan_store(long_videos, tmp_path / "store", settings)
    assert len(plan.missing) == 3
    fill_store(plan)
    assert len(list((tmp_path / "store").glob("*.mp4.*"))) == 3
    data, stored = ta.find_data(long_videos), ta.find_data(tmp_path / "store")
    assert stored.class_names == data.class_names and stored.train.starts.tolist() == data.train.starts.tolist()
    assert not (tmp_path / "store/train.txt").exists() and list(stored.train.groups)[0].startswith("a.mp4.")
    pipeline = eval_pipeline(clip_len=4, size=28)
    for index in range(4):
        of_video, of_store = (VideoDataset(folder.val, pipeline)[index]["inputs"].float() for folder in (data, stored))
        assert (of_video - of_store).abs().mean() <= (0 if format == "raw" else 8)


def test_resuming_sees_other_segments(long_videos):
    videos = ta.find_data(long_videos).train
    other = videos.subset(range(8))
    other.ends = other.ends - 0.25
    assert ListIdentity.of(videos, long_videos) != ListIdentity.of(other, long_videos)
    assert videos.digest() != other.digest()


def test_check_says_what_is_wrong_with_segments(long_videos, tmp_path, capsys):
    folder = tmp_path / "set"
    written(folder, "a.mp4,0,1,x,train", "a.mp4,1,2,y,val", "a.mp4,2,30,x,train", "b.mp4,3,3.05,y,train",
            "b.mp4,1.01,1.05,x,train", "b.mp4,0,1,x,train", "c.mp4,0,1,x,val", "c.mp4,1,2,y,val")
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (folder / name).write_bytes((long_videos / name).read_bytes())
    assert check(["--data", str(folder), "--clip-len", "4", "--num-workers", "1", "--write-clean"]) == 1
    out = capsys.readouterr().out
    assert (f"a.mp4#t=2,30: the segment 2 to 30 s of {folder}/list.csv, line 4 ends beyond the video, which lasts "
            "4.000 s; give seconds: both are whole numbers, as of frames, of which it has 40") in out
    assert f"b.mp4#t=1.01,1.05: the segment 1.01 to 1.05 s of {folder}/list.csv, line 6 has no frame" in out
    assert "b.mp4#t=3,3.05: 1 frames, a clip has 4" in out
    assert "segments of one video in train and val: 1\n  a.mp4\n" in out
    assert "two labels" not in out and "listed twice" not in out
    kept = [(row.path, row.start, row.split) for row in read_segments(folder / "clean.csv")]
    assert kept == [("a.mp4", 0, "train"), ("b.mp4", 3, "train"), ("b.mp4", 0, "train"), ("a.mp4", 1, "val"),
                    ("c.mp4", 0, "val"), ("c.mp4", 1, "val")]


def test_features_are_kept_for_each_segment(long_videos, tmp_path):
    torch.manual_seed(0)
    model = ta.create_model("tsn-resnet18", 2)
    pipeline = eval_pipeline(clip_len=2, size=32)
    videos = ta.find_data(long_videos).train
    first = extract_features(model, videos, pipeline, FeatureCache(tmp_path / "f"), device=torch.device("cpu"))
    assert first.num_computed == 8 and len(list((tmp_path / "f").iterdir())) == 8
    again = extract_features(model, videos, pipeline, FeatureCache(tmp_path / "f"), device=torch.device("cpu"))
    assert again.num_computed == 0 and again.features.equal(first.features)
    assert len(np.unique(first.features.flatten(1).numpy(), axis=0)) == 8


def test_a_run_on_segments_names_them_in_all_that_it_writes(long_videos, tmp_path):
    result = train(RunConfig(data=str(long_videos), out=str(tmp_path / "run"), epochs=1, batch_size=4, clip_len=4,
                             size=32, num_workers=0, device="cpu"))
    with open(result.path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"].rpartition("/")[2] for row in rows] == [f"c.mp4#t={start},{start + 1}" for start in range(4)]
    page = (result.path / "report.html").read_text()
    assert "c.mp4#t=2,3" in page and "not among" not in page
    assert f"predict {long_videos}/c.mp4 " in (result.path / "log.txt").read_text()


def test_evaluate_takes_a_csv_of_segments(long_videos, tmp_path, capsys):
    checkpoint = save_toy(tmp_path / "toy.pt")
    assert evaluate(["--data", str(long_videos / "segments.csv"), "--checkpoint", str(checkpoint),
                     "--num-workers", "0", "--device", "cpu"]) == 0
    assert "4 videos" in capsys.readouterr().out


def test_a_segment_that_is_not_in_its_video_names_video_and_line(long_videos, tmp_path):
    lines = [f"{long_videos}/a.mp4,0,1,x,train", f"{long_videos}/a.mp4,3,9.5,y,train"]
    rows = read_list(written(tmp_path / "set", *lines) / "list.csv")
    dataset = VideoDataset(rows, eval_pipeline(clip_len=2, size=32))
    with pytest.raises(ta.VideoError, match=r"a\.mp4: the segment 3 to 9.5 s of .*list.csv, line 3 ends beyond"):
        dataset[1]
