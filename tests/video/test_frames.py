"""Stored frames as they are read: arrays, zips and folders, our own and those that others made."""

import io
import zipfile

import numpy as np
import pytest
from toys import pictures, telling_frames

from tinyaction.prepare.store import encode_jpeg
from tinyaction.video import VideoError, frames, open_video


@pytest.mark.parametrize("array", [np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8, 3), np.float32),
                                   np.zeros((0, 8, 8, 3), np.uint8), np.zeros((4, 8, 8, 1), np.uint8)])
def test_an_array_of_the_wrong_kind_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(VideoError, match=r"a\.npy: the array is \(.*frames are \(T, H, W, 3\) uint8"):
        open_video(tmp_path / "a.npy")


def test_pickles_are_not_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([print], dtype=object))
    with pytest.raises(VideoError, match="a.npy: cut, or no"):
        open_video(tmp_path / "a.npy")


def test_frames_outside_are_refused(stored):
    for form in ("jpeg", "raw"):
        with pytest.raises(VideoError, match="frames -1 to 24 asked of 24"):
            open_video(stored(form=form)).get_batch([24, -1])


def test_raw_frames_cannot_be_written_to(stored):
    (frame,) = open_video(stored(form="raw")).read([3])
    with pytest.raises(ValueError, match="read-only"):
        frame[:] = 0


@pytest.mark.parametrize(("form", "cut", "message"), [
    ("jpeg", 100, "cut, or no zip of pictures"),
    ("jpeg", -1, "cut, or no zip of pictures"),
    ("raw", 100, r"cut, or no \.npy file"),
    ("raw", 60_000, r"cut, or no \.npy file"),
    ("raw", 0, r"cut, or no \.npy file"),
])
def test_a_cut_file_is_named(stored, form, cut, message):
    path = stored(form=form)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(VideoError, match=f"{path}: {message}"):
        open_video(path)


def test_a_flipped_bit_within_a_frame_is_found(stored):
    path = stored()
    data = bytearray(path.read_bytes())
    start = zipfile.ZipFile(path).infolist()[3].header_offset
    data[start + 400] ^= 1
    path.write_bytes(data)
    reader = open_video(path)
    reader.get_batch([2, 4])
    with pytest.raises(VideoError, match=r"clip\.zip: frame 3 of 24 is damaged; make it again"):
        reader.get_batch([2, 3])


def test_a_zip_with_a_frame_too_few_is_named(stored):
    path = stored()
    with zipfile.ZipFile(path) as whole:
        members, comment = [(member, whole.read(member)) for member in whole.infolist()], whole.comment
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members[:-1]:
            archive.writestr(member, data)
        archive.comment = comment
    with pytest.raises(VideoError, match=r"clip\.zip: 23 frames instead of 24; make it again"):
        open_video(path)


def test_zip_tables_of_both_ways_agree(stored):
    path = stored()
    comment, table = frames._zip_table(np.fromfile(path, np.uint8))
    other_comment, other = frames._zip_table_of_zipfile(path)
    assert comment == other_comment
    np.testing.assert_array_equal(table, other)


def test_a_zip_with_something_unusual_goes_the_slow_way():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("1.jpg", b"x")
        archive.writestr("2.txt", b"x")
    assert frames._zip_table(np.frombuffer(buffer.getvalue(), np.uint8))[1] is None


def test_a_zip_that_somebody_else_made(tmp_path):
    """Names of unequal length, a folder, a text beside: frames come in the order of their numbers."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("clip/readme.txt", "hello")
        for number, picture in reversed(list(enumerate(pictures(12), start=1))):
            archive.writestr(f"clip/{number}.png", picture)
    reader = open_video(tmp_path / "a.zip")
    assert len(reader) == 12 and reader.fps == 0
    np.testing.assert_array_equal(reader.get_batch([10, 1]), telling_frames(12, 16, 24)[[10, 1]])


@pytest.mark.parametrize(("names", "compression", "message"), [
    ([], zipfile.ZIP_STORED, "no pictures in it"),
    (["a.txt"], zipfile.ZIP_STORED, "no pictures in it"),
    (["1.png"], zipfile.ZIP_DEFLATED, r"1\.png is compressed; pictures must lie uncompressed in it, as zip -0"),
])
def test_zips_without_frames(tmp_path, names, compression, message):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", compression) as archive:
        for name in names:
            archive.writestr(name, pictures(1)[0])
    with pytest.raises(VideoError, match=message):
        open_video(tmp_path / "a.zip")


@pytest.mark.parametrize("names, extra", [
    (["2.png", "1.png", "3.png"], b""),
    (["1.PNG", "2.PNG", "3.PNG"], b""),
    (["1.png", "2.png", "3.png"], b"UT\x05\x00\x03\x00\x00\x00\x00"),  # as zip -0 writes it: times
])
def test_zips_as_other_tools_write_them(names, extra, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            member = zipfile.ZipInfo(name)
            member.extra = extra
            archive.writestr(member, pictures(3)[int(name[0]) - 1])
    np.testing.assert_array_equal(open_video(tmp_path / "a.zip").get_batch([0, 1, 2]), telling_frames(3, 16, 24))


def test_pictures_of_a_zip_come_in_the_order_of_their_names(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("2.jpg", "1.jpg", "3.jpg"):
            frame = np.full((16, 16, 3), 50 * int(name[0]), np.uint8)
            archive.writestr(name, encode_jpeg(frame, 95))
    assert open_video(tmp_path / "a.zip").get_batch([0, 1, 2])[:, 8, 8, 0].tolist() == [50, 100, 150]


@pytest.mark.parametrize("first", [0, 1])
def test_a_folder_of_frames(frame_folder, first):
    frame_folder(name="flow_x_{:05}.png")
    (frame_folder() / "notes.txt").write_text("")
    reader = open_video(frame_folder(first=first, folder=f"from {first}"))
    assert len(reader) == 6
    np.testing.assert_array_equal(reader.get_batch([5, 0, 2]), telling_frames(6, 16, 24)[[5, 0, 2]])


def test_flow_beside_the_frames_is_passed_over(frame_folder):
    frame_folder(num=5, name="flow_x_{:05}.png")
    assert len(open_video(frame_folder())) == 6


def test_a_missing_frame_is_named(frame_folder):
    folder = frame_folder()
    (folder / "img_00003.png").unlink()
    with pytest.raises(VideoError, match=r"frames/img_00003\.png: this frame is missing, though img_00006\.png is"):
        open_video(folder)


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda folder: [file.unlink() for file in folder.iterdir()], "no frames in the folder"),
    (lambda folder: (folder / "img_00001.png").unlink(), r"img_00001\.png: this frame is missing"),
    (lambda folder: (folder / "img_00002.png").write_bytes(b""), r"img_00002\.png: not a readable picture"),
    (lambda folder: (folder / "img_00002.png").write_bytes(pictures(1, 8, 8)[0]), "frames of several sizes"),
    (lambda folder: [file.rename(folder / file.name.replace("img", "ab"[int(file.stem[-1]) % 2]))
                     for file in list(folder.iterdir())], "several series of pictures"),
])
def test_wrong_folders(frame_folder, spoil, message):
    folder = frame_folder()
    spoil(folder)
    with pytest.raises(VideoError, match=message):
        open_video(folder).get_batch(range(5))


def test_what_macos_leaves_is_no_frame(frame_folder):
    folder = frame_folder(name="{:05}.PNG")
    (folder / "._00001.PNG").write_bytes(b"what macOS leaves")
    assert len(open_video(folder)) == 6
