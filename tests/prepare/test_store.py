import errno
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath

import av
import cv2
import numpy as np
import pytest
from toys import telling_frames, write_set

from tinyaction.cli import store as store_command
from tinyaction.data.annotations import find_data
from tinyaction.data.dataset import VideoDataset
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.data.transforms import VideoResize
from tinyaction.prepare.store import check_store, default_store, fill_store, place_elsewhere, plan_store
from tinyaction.prepare.stored_file import StoreSettings, store_video
from tinyaction.video import VideoError, open_video
from tinyaction.video.frames import FORMATS, original_of
from tinyaction.video.writer import write_video


def make(source, folder, settings=None, **arguments):
    return fill_store(plan_store(source, folder, settings or StoreSettings()), **arguments)


def write_at_times(path, frames, seconds):
    """MJPEG in Matroska, whose clock counts milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1000, width=frames.shape[2], height=frames.shape[1])
        stream.pix_fmt = "yuvj420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for pixels, time in zip(frames, seconds, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


# ---- one file ------------------------------------------------------------------------------------------------------


def test_raw_frames_are_the_resized_frames_of_the_video(stored, telling_clip):
    reader = open_video(stored(format="raw", short_side=16))
    resize = VideoResize(16)
    expected = np.stack([resize.resize_frame(frame) for frame in open_video(telling_clip()).get_batch(range(24))])
    assert len(reader) == 24 and reader.fps == 25
    np.testing.assert_array_equal(reader.get_batch([5, 0, 23, 5]), expected[[5, 0, 23, 5]])


@pytest.mark.parametrize("form", ["jpeg", "raw"])
def test_every_nth_frame_and_the_rate_that_follows(stored, form):
    """Channel 0 of the telling clip is the frame's number."""
    reader = open_video(stored(format=form, frame_stride=5))
    assert len(reader) == 5 and reader.fps == 5
    numbers = np.median(reader.get_batch(range(5))[..., 0], axis=(1, 2))
    np.testing.assert_allclose(numbers, [0, 5, 10, 15, 20], atol=1)


@pytest.mark.parametrize("format", ["jpeg", "raw"])
@pytest.mark.parametrize("stride", [1, 3])
def test_a_store_keeps_the_times_of_a_video(format, stride, tmp_path):
    """Frames 0 to 11 at 0, 1, 4, 9 ... 121 hundredths of a second."""
    path = tmp_path / "uneven.mkv"
    write_at_times(path, telling_frames(12, 16, 16), [number**2 / 100 for number in range(12)])
    store_video(path, tmp_path / f"a{FORMATS[format]}", StoreSettings(format, frame_stride=stride))
    reader = open_video(tmp_path / f"a{FORMATS[format]}")
    np.testing.assert_array_equal(reader.seconds, open_video(path).seconds[::stride])
    np.testing.assert_allclose(reader.seconds, np.arange(0, 12, stride) ** 2 / 100, atol=1e-9)


def test_even_times_take_no_space(stored):
    assert "seconds" not in open_video(stored()).info
    np.testing.assert_allclose(open_video(stored(frame_stride=5)).seconds, [0, 0.2, 0.4, 0.6, 0.8])


def test_a_store_of_an_earlier_version_is_read_and_made_anew(toys, tmp_path):
    make(toys, tmp_path / "s")
    old = {"settings": {"form": "jpeg", "short_side": 256, "every": 1, "quality": 95}, "source": str(toys.resolve())}
    (tmp_path / "s/store.json").write_text(json.dumps(old))
    file = tmp_path / "s/train/clip 1.mp4.zip"
    with zipfile.ZipFile(file) as whole:
        pictures = [(member, whole.read(member)) for member in whole.infolist()[:-1]]
        info = json.loads(whole.read("info.json"))
    with zipfile.ZipFile(file, "w") as archive:
        for member, data in pictures:
            archive.writestr(member, data)
        names = {"format": "form", "frame_stride": "every"}
        archive.comment = json.dumps({names.get(name, name): value for name, value in info.items()}).encode()
    reader = open_video(file)
    assert len(reader) == 10 and reader.fps == 10 and len(reader.get_batch([9])) == 1
    check_store(tmp_path / "s", 256)
    assert plan_store(toys, tmp_path / "s", StoreSettings()).missing == [str(toys / "train/clip 1.mp4")]


def test_small_videos_keep_their_size(stored):
    assert open_video(stored(format="raw", short_side=256)).get_batch([0]).shape == (1, 32, 48, 3)


def test_the_zip_is_one_that_people_and_the_standard_library_open(stored):
    path = stored()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[::23] == ["img_00001.jpg", "img_00024.jpg"]
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("info.json"))["num_frames"] == 24
        first = cv2.imdecode(np.frombuffer(archive.read("img_00001.jpg"), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(open_video(path).get_batch([0])[0], first)


def test_numpy_alone_reads_the_array(stored):
    path = stored(format="raw")
    np.testing.assert_array_equal(np.load(path), open_video(path).get_batch(range(24)))


def test_equal_input_gives_equal_bytes(tmp_path, telling_clip):
    clip = telling_clip()
    for form in ("jpeg", "raw"):
        for name in ("a", "b"):
            store_video(clip, tmp_path / name, StoreSettings(form))
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_jpeg_frames_of_real_clips_are_above_38_decibels(shared, tmp_path):
    clip = shared / "clips/odd/demo.mp4"
    originals = [VideoResize(256).resize_frame(frame) for frame in open_video(clip).get_batch(range(0, 280, 40))]
    store_video(clip, tmp_path / "demo.mp4.zip", StoreSettings(frame_stride=40))
    kept = open_video(tmp_path / "demo.mp4.zip").get_batch(range(7))
    assert min(map(psnr, kept, originals)) > 38


def test_a_changed_video_makes_its_frames_stale(stored, telling_clip):
    path = stored()
    os.utime(telling_clip(), ns=(0, 1))
    with pytest.raises(VideoError, match=rf"{path}: stale, .*telling\.avi has changed since"):
        open_video(path)


def test_a_store_without_its_videos_is_read(stored, telling_clip):
    path = stored()
    telling_clip().unlink()
    assert len(open_video(path)) == 24


def test_a_failed_write_leaves_nothing(tmp_path, telling_clip, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    clip = telling_clip()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store_video(clip, tmp_path / "out/a.zip", StoreSettings())
    assert list((tmp_path / "out").iterdir()) == []


# ---- a whole folder ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data") / "my clips", num_train=4, num_val=2)


def packed(folder):
    data = find_data(folder)
    pipeline = eval_pipeline(clip_len=4, size=32, num_clips=2)
    return {Path(name).name.split(".")[0]: pipeline({"filename": name, "label": label})
            for name, label in (data.val[i] for i in range(len(data.val)))}


def test_a_raw_store_of_the_runs_size_gives_the_same_batches(toys, tmp_path):
    make(toys, tmp_path / "s", StoreSettings("raw", short_side=36))
    videos, frames = packed(toys), packed(tmp_path / "s")
    assert videos.keys() == frames.keys() and len(videos) == 2
    for name in videos:
        assert (videos[name]["inputs"] == frames[name]["inputs"]).all()
        assert videos[name]["data_samples"].label == frames[name]["data_samples"].label


def test_a_store_is_a_data_folder_with_the_same_lists_and_classes(toys, tmp_path):
    (toys / "README.txt").write_text("GENERATED\n")
    make(toys, tmp_path / "s", num_workers=2)
    data, store = find_data(toys), find_data(tmp_path / "s")
    assert store.class_names == data.class_names
    for mine, theirs in ((store.train, data.train), (store.val, data.val)):
        assert [mine[i] for i in range(len(mine))] == [
            (name.replace(str(toys), str(tmp_path / "s")) + ".zip", label)
            for name, label in (theirs[i] for i in range(len(theirs)))]
    assert (tmp_path / "s/README.txt").read_text() == "GENERATED\n"


def test_only_what_is_new_or_changed_is_stored(toys, tmp_path):
    make(toys, tmp_path / "s")
    assert plan_store(toys, tmp_path / "s", StoreSettings()).missing == []
    assert "all 6 videos are stored" in str(plan_store(toys, tmp_path / "s", StoreSettings()))
    video = toys / "train/clip 2.mp4"
    os.utime(video, ns=(0, 12345))
    (tmp_path / "s/val/clip 1.mp4.zip").write_bytes(b"PK")
    plan = plan_store(toys, tmp_path / "s", StoreSettings())
    assert plan.missing == [str(video), str(toys / "val/clip 1.mp4")]
    assert "2 videos to store" in str(plan) and "4 are there already" in str(plan)
    assert fill_store(plan).num_stored == 2


def test_the_estimate_is_near(toys, tmp_path):
    for form in ("jpeg", "raw"):
        plan = plan_store(toys, tmp_path / form, StoreSettings(form))
        assert plan.num_bytes == pytest.approx(fill_store(plan).num_bytes, rel=0.1)


def test_other_settings_are_refused(toys, tmp_path):
    make(toys, tmp_path / "s")
    with pytest.raises(ValueError, match=r"s: holds a store of other settings \(jpeg, short side 256, quality 95; "
                                         r"asked: raw, short side 256\); name another .* run: tinyaction store"):
        plan_store(toys, tmp_path / "s", StoreSettings("raw"))


@pytest.mark.parametrize(("prepare", "message"), [
    (lambda s, other: (s / "mine.txt").write_text(""), "not empty and no frame store"),
    (lambda s, other: (s / "store.json").write_text("{"), r"store\.json: damaged; delete"),
    (lambda s, other: (s / "store.json").write_text(json.dumps(
        {"settings": {"format": "jpeg", "short_side": 256, "frame_stride": 1, "quality": 95}, "source": "/else"})),
     "holds the frames of /else"),
])
def test_other_folders_are_refused(toys, tmp_path, prepare, message):
    (tmp_path / "s").mkdir()
    prepare(tmp_path / "s", toys)
    with pytest.raises(ValueError, match=message):
        plan_store(toys, tmp_path / "s", StoreSettings())


def test_a_store_of_a_store_is_refused(toys, tmp_path):
    make(toys, tmp_path / "s")
    with pytest.raises(ValueError, match="is a frame store already"):
        plan_store(tmp_path / "s", tmp_path / "t", StoreSettings())


def test_too_little_space_is_said_before_it_starts(toys, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(ValueError, match=r"6 videos to store .* 0 MB free: too much; take --format jpeg, a smaller"):
        plan_store(toys, tmp_path / "s", StoreSettings("raw"))
    assert not (tmp_path / "s").exists()


def test_a_full_disk_keeps_what_is_finished(toys, tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def fills_up(file):
        calls.append(file)
        if len(calls) == 7:  # file and folder of store.json and of two videos before it
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(OSError, match=r"s: the disk is full after 2 of 6 videos; they are kept: free some space"):
        make(toys, tmp_path / "s")
    monkeypatch.undo()
    assert list(tmp_path.rglob("*.part")) == []
    with pytest.raises(ValueError, match=r"s: this frame store is not finished; run: tinyaction store"):
        check_store(tmp_path / "s", 64)
    assert make(toys, tmp_path / "s").num_stored == 4


def test_bad_videos_are_named_after_all_others_are_stored(tmp_path, capsys):
    source = write_set(tmp_path / "data", num_train=4, num_val=2)
    (source / "train/clip 3.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"1 of 6 videos cannot be read, all others are stored; .*\n.*clip 3\.mp4: "):
        make(source, tmp_path / "s")
    assert len(list((tmp_path / "s").rglob("*.zip"))) == 5 and not (tmp_path / "s/train.txt").exists()
    arguments = ["--data", str(source), "--out", str(tmp_path / "s"), "--num-workers", "0", "--on-error", "skip"]
    assert store_command.main(arguments) == 0
    assert len(find_data(tmp_path / "s").train) == 3
    assert "clip 3.mp4" in (tmp_path / "s/bad_files.txt").read_text()
    assert "1 of 6 videos cannot be read and are left out" in capsys.readouterr().out


def test_frames_smaller_than_the_run_needs_are_refused(toys, tmp_path):
    make(toys, tmp_path / "s", StoreSettings(short_side=48))
    check_store(tmp_path / "s", 48)
    check_store(toys, 1000)
    with pytest.raises(ValueError, match=r"short side of 48 pixels, this run needs 256; run: tinyaction store .*"
                                         r"--format jpeg --short-side 256, or train with a smaller --size"):
        check_store(tmp_path / "s", 256)


def test_the_default_folder_says_what_is_in_it():
    assert default_store("/x/clips", StoreSettings()) == Path("/x/clips-jpeg256")
    assert default_store("/x/clips", StoreSettings("raw", 128, frame_stride=2)) == Path("/x/clips-raw128-stride2")
    assert default_store("/x/clips", StoreSettings(quality=80)) == Path("/x/clips-jpeg256-q80")


@pytest.mark.parametrize(("settings", "message"), [
    ({"format": "gif"}, "'gif'; it must be jpeg or raw"), ({"short_side": 0}, "short_side is 0"),
    ({"frame_stride": 0}, "frame_stride is 0"), ({"quality": 101}, "quality is 101; it must be 1 to 100"),
])
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        StoreSettings(**settings)


def test_videos_outside_the_folder_have_a_place_of_their_own(tmp_path):
    (tmp_path / "far").mkdir()
    write_video(tmp_path / "far/a.avi", telling_frames(4, 16, 16), fps=5, codec="ffv1")
    (tmp_path / "data").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"data/{split}.txt").write_text(f"{tmp_path}/far/a.avi 0\n{tmp_path}/far/a.avi 1\n")
    with pytest.raises(ValueError, match="leaves the data folder; --allow-outside"):
        make(tmp_path / "data", tmp_path / "s", StoreSettings("raw"))
    fill_store(plan_store(tmp_path / "data", tmp_path / "s", StoreSettings("raw"), allow_outside=True))
    name, label = find_data(tmp_path / "s").val[1]
    assert label == 1 and name == f"{tmp_path}/s/elsewhere{tmp_path}/far/a.avi.npy"
    assert len(open_video(name)) == 4


def test_killing_the_command_loses_nothing_finished(tmp_path):
    """Killed and given again: what is there is whole, and at the end all of it is, each video decoded once."""
    source = write_set(tmp_path / "data", num_train=12, num_val=4, num_frames=40)
    command = [sys.executable, "-c", "import sys; from tinyaction.cli.store import main; sys.exit(main(sys.argv[1:]))",
               "--data", str(source), "--out", str(tmp_path / "s"), "--num-workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while len(list(tmp_path.rglob("*.zip"))) < 3:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # its worker ends with what it was at
    finished = list((tmp_path / "s").rglob("*.zip"))
    assert 3 <= len(finished) < 16 and not (tmp_path / "s/train.txt").exists()
    for path in finished:
        assert len(open_video(path).get_batch(range(40))) == 40
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*.zip")}
    make(source, tmp_path / "s")
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*.zip")}
    assert len(after) == 16 and before.items() <= after.items()
    assert len(find_data(tmp_path / "s").train) == 12


def test_leftovers_of_killed_commands_are_removed(toys, tmp_path):
    folder = tmp_path / "s/train"
    folder.mkdir(parents=True)
    (tmp_path / "s/store.json").write_text(json.dumps(
        {"settings": {"format": "jpeg", "short_side": 256, "frame_stride": 1, "quality": 95},
         "source": str(toys.resolve())}))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (folder / f".a.mp4.zip.{ended.pid}.part").write_bytes(b"half")
    (folder / f".b.mp4.zip.{os.getpid()}.part").write_bytes(b"at work")
    make(toys, tmp_path / "s")
    assert [path.name for path in folder.glob(".*.part")] == [f".b.mp4.zip.{os.getpid()}.part"]


def test_the_list_says_how_many_frames_of_a_folder_count(frame_folder):
    """As in MMAction2: frames beyond the list's number are not looked at; too few are an error."""
    pipeline = eval_pipeline(clip_len=3, size=16)
    given = {"filename": str(frame_folder()), "label": 0}
    numbers = [pipeline({**given, **count})["inputs"][0, 0, :, 8, 8].tolist() for count in ({}, {"num_frames": 3})]
    assert max(numbers[0]) > 2 >= max(numbers[1])
    with pytest.raises(VideoError, match="frames: 6 frames, the list says 7; extract the frames again, or mend"):
        pipeline({**given, "num_frames": 7})


@pytest.mark.parametrize("every, count", [(1, 5), (2, 3)])
def test_a_store_keeps_how_many_frames_of_a_folder_count(every, count, frame_folder, tmp_path):
    """Of frames 0 to 4 every second one is 0, 2, 4."""
    frame_folder(folder="data/a clip")
    for split in ("train", "val"):
        (tmp_path / f"data/{split}.txt").write_text("a clip 5 0\n")
    make(tmp_path / "data", tmp_path / "s", StoreSettings("raw", frame_stride=every))
    videos = find_data(tmp_path / "s").val
    assert videos.num_frames.tolist() == [count]
    assert len(open_video(videos[0][0])) == 6 // every  # the frames beyond are kept, and not looked at:
    item = VideoDataset(videos, eval_pipeline(clip_len=20, size=16))[0]
    assert sorted(set(item["inputs"][0, 0, :, 8, 8].tolist())) == list(range(0, 5, every))


def test_the_original_of_a_stored_file(stored, telling_clip, tmp_path):
    video, file = str(telling_clip()), str(stored())
    assert original_of(file) == video and original_of(video) == video
    (tmp_path / "cut.npy").write_bytes(b"")
    assert original_of(str(tmp_path / "cut.npy")) == str(tmp_path / "cut.npy")
    Path(video).unlink()
    assert original_of(file) == file


def test_a_changed_frame_of_a_folder_makes_a_store_stale(frame_folder, tmp_path):
    folder = frame_folder()
    target = tmp_path / "a.npy"
    store_video(folder, target, StoreSettings("raw"))
    assert len(open_video(target)) == 6
    found = (folder / "img_00003.png").stat()
    os.utime(folder / "img_00003.png", ns=(0, found.st_mtime_ns + 10**9))
    with pytest.raises(VideoError, match="stale, .*frames has changed since"):
        open_video(target)


def test_another_size_at_the_same_time_makes_frames_stale(stored, telling_clip):
    path, video = stored(), telling_clip()
    store_video(video, path, StoreSettings())
    before = video.stat()
    video.write_bytes(video.read_bytes() + b"x")
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(VideoError, match="stale"):
        open_video(path)


def test_frames_of_other_settings_are_not_current(toys, tmp_path):
    make(toys, tmp_path / "s")
    file = tmp_path / "s/store.json"
    file.write_text(file.read_text().replace('"frame_stride": 1', '"frame_stride": 2'))
    assert len(plan_store(toys, tmp_path / "s", StoreSettings(frame_stride=2)).missing) == 6


def test_a_deleted_video_is_named(tmp_path):
    source = write_set(tmp_path / "data", num_train=4, num_val=2)
    make(source, tmp_path / "s")
    (source / "train/clip 3.mp4").unlink()
    with pytest.raises(ValueError, match=r"1 of 6 videos cannot be read.*\n.*clip 3\.mp4: no such file"):
        make(source, tmp_path / "s")


def test_the_estimate_is_of_what_is_missing(toys, tmp_path):
    make(toys, tmp_path / "s")
    whole = plan_store(toys, tmp_path / "t", StoreSettings()).num_bytes
    (tmp_path / "s/val/clip 1.mp4.zip").unlink()
    assert plan_store(toys, tmp_path / "s", StoreSettings()).num_bytes == pytest.approx(whole / 6, rel=0.2)


def test_a_store_that_just_fits_is_made(toys, tmp_path, monkeypatch):
    num_bytes = plan_store(toys, tmp_path / "s", StoreSettings()).num_bytes
    for free in (num_bytes, num_bytes - 1):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: type("Usage", (), {"free": free})())
        if free == num_bytes:
            plan_store(toys, tmp_path / "s", StoreSettings())
        else:
            with pytest.raises(ValueError, match="too much"):
                plan_store(toys, tmp_path / "s", StoreSettings())


def test_what_the_disk_says_is_not_called_full(toys, tmp_path, monkeypatch):
    def broken(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match=r"^\[Errno 5\] Input/output error$"):
        make(toys, tmp_path / "s")


def test_progress_counts_what_is_missing(toys, tmp_path):
    make(toys, tmp_path / "s")
    for name in ("train/clip 1", "val/clip 0"):
        (tmp_path / f"s/{name}.mp4.zip").unlink()
    seen = []
    make(toys, tmp_path / "s", on_progress=lambda *progress: seen.append(progress))
    assert seen == [(1, 2), (2, 2)]


def test_a_larger_short_side_enlarges_nothing(stored):
    assert open_video(stored(format="raw", short_side=40)).get_batch([0]).shape == (1, 32, 48, 3)


def test_a_name_with_a_line_break_fits_into_no_list(tmp_path, telling_clip):
    for split in ("train", "val"):
        (tmp_path / f"data/{split}/class").mkdir(parents=True)
        telling_clip().rename(tmp_path / f"data/{split}/class/a\nclip.avi")
    with pytest.raises(ValueError, match="fits into no list"):
        plan_store(tmp_path / "data", tmp_path / "s", StoreSettings())


def test_the_place_of_a_video_outside_lies_in_the_store(tmp_path):
    (tmp_path / "far").mkdir()
    write_video(tmp_path / "far/a.avi", telling_frames(4, 16, 16), fps=5, codec="ffv1")
    (tmp_path / "data").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"data/{split}.txt").write_text("../../far/a.avi 0\n../../far/a.avi 1\n")
        (tmp_path / "data" / split).mkdir()
    plan = plan_store(tmp_path / "data", tmp_path / "s", StoreSettings("raw"), allow_outside=True)
    assert set(plan.targets.values()) == {f"elsewhere{tmp_path}/far/a.avi.npy"}


def test_all_bad_videos_are_left_out(tmp_path):
    source = write_set(tmp_path / "data", num_train=4, num_val=2)
    for number in range(1, 4):
        (source / f"train/clip {number}.mp4").write_bytes(b"no video")
    (source / "val/clip 1.mp4").write_bytes(b"no video")
    result = make(source, tmp_path / "s", skip_bad=True)
    assert result.num_stored == 2 and len(result.bad) == 4


@pytest.mark.parametrize("path, place", [
    (PurePosixPath("/a/b c.mp4"), "elsewhere/a/b c.mp4"), (PureWindowsPath("C:\\a\\b.mp4"), "elsewhere/C/a/b.mp4"),
    (PureWindowsPath("\\\\server\\videos\\a\\b.mp4"), "elsewhere/server/videos/a/b.mp4"),
])
def test_the_place_of_a_video_outside_the_data_is_a_name_on_every_system(path, place):
    """Windows allows no colon in a name."""
    assert place_elsewhere(path) == place
