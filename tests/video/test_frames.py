"""Stored frames as they are read: arrays, zips and folders, our own and those that others made."""

import json
import os
import zipfile

import cv2
import numpy as np
import pytest
from toys import pictures, telling_frames

from tinyaction.video import VideoError, open_video
from tinyaction.video.pictures import encode_jpeg, picture_size


@pytest.mark.parametrize("array", [np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8, 3), np.float32),
                                   np.zeros((0, 8, 8, 3), np.uint8), np.zeros((4, 8, 8, 1), np.uint8)])
def test_an_array_of_the_wrong_kind_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(VideoError, match=r"a\.npy: the array is \(.*frames are \(T, H, W, 3\) uint8"):
        open_video(tmp_path / "a.npy")


def test_pickles_are_not_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([print], dtype=object))
    with pytest.raises(VideoError, match=r"a\.npy: the array is \(1,\) object"):
        open_video(tmp_path / "a.npy")


def test_frames_outside_are_refused(stored):
    for form in ("jpeg", "raw"):
        with pytest.raises(VideoError, match="frames -1 to 24 asked of 24"):
            open_video(stored(format=form)).get_batch([24, -1])


def test_writing_to_a_raw_frame_changes_nothing_in_the_file(stored):
    path = stored(format="raw")
    (frame,) = open_video(path).read([3])
    frame[:] = 255 - frame
    np.testing.assert_array_equal(open_video(path).get_batch([3])[0], 255 - frame)


@pytest.mark.parametrize(("form", "cut", "message"), [
    ("jpeg", 100, "cut, or no zip of pictures"),
    ("jpeg", -1, "cut, or no zip of pictures"),
    ("raw", 100, r"cut, or no \.npy file"),
    ("raw", 60_000, r"the file is cut: it has 60000 of at least \d+ bytes"),
    ("raw", 0, r"cut, or no \.npy file"),
])
def test_a_cut_file_is_named(stored, form, cut, message):
    path = stored(format=form)
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
    with pytest.raises(VideoError, match=r"clip\.zip: frame 3 of 24, img_00004\.jpg, is damaged \(.*make it again"):
        reader.get_batch([2, 3])


def test_a_flipped_bit_anywhere_in_a_raw_frame_is_found(stored):
    path = stored(format="raw", short_side=17)  # frames of 17 x 26 x 3 bytes: not a multiple of 8
    whole = path.read_bytes()
    frames = open_video(path).get_batch(range(24))
    start = whole.index(frames[0].tobytes())
    for bit, place in enumerate(np.linspace(0, frames.nbytes - 1, 40).astype(int)):
        data = bytearray(whole)
        data[start + place] ^= 1 << bit % 8
        path.write_bytes(data)
        reader, frame = open_video(path), int(place) // frames[0].nbytes
        np.testing.assert_array_equal(reader.get_batch([(frame + 1) % 24]), frames[[(frame + 1) % 24]])
        with pytest.raises(VideoError, match=rf"clip\.npy: frame {frame} of 24 is damaged; make it again"):
            reader.get_batch([frame])


def test_lost_and_exchanged_parts_of_a_raw_frame_are_found(stored):
    path = stored(format="raw")
    whole = path.read_bytes()
    start = len(whole) - len(whole[whole.index(b'{"source'):]) - 24 * 32 * 48 * 3
    for foreign in (bytes(512), whole[start + 4608 : start + 4608 + 512]):  # zeros; a part of the next frame
        path.write_bytes(whole[: start + 512] + foreign + whole[start + 1024 :])
        with pytest.raises(VideoError, match="frame 0 of 24 is damaged"):
            open_video(path).get_batch([0])


def test_raw_frames_without_checksums_are_read(tmp_path):
    np.save(tmp_path / "a.npy", telling_frames(4, 8, 8))
    np.save(tmp_path / "b.npy", np.asfortranarray(telling_frames(4, 8, 8)))
    for name in "ab":
        np.testing.assert_array_equal(open_video(tmp_path / f"{name}.npy").get_batch([3, 1]),
                                      telling_frames(4, 8, 8)[[3, 1]])


@pytest.mark.parametrize("shape", [(10**6, 1080, 1920, 3), (2**40, 2**40, 2**40, 3), (5, 8, 8, 3)])
def test_an_array_that_promises_more_than_the_file_holds_is_refused(shape, tmp_path):
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.write(bytes(4 * 8 * 8 * 3))
    with pytest.raises(VideoError, match=r"a\.npy: the file is cut: it has \d+ of at least \d+ bytes") as caught:
        open_video(tmp_path / "a.npy")
    assert caught.value.kind == "cut"


def test_an_array_that_is_cut_while_it_is_open_is_an_error_and_no_signal(tmp_path):
    np.save(tmp_path / "a.npy", telling_frames(4, 200, 200))
    reader = open_video(tmp_path / "a.npy")
    os.truncate(tmp_path / "a.npy", 200 * 200 * 3)
    with pytest.raises(VideoError, match=r"a\.npy: the file is cut: it has 120000 of at least 480128 bytes") as caught:
        reader.get_batch([0, 3])
    assert caught.value.kind == "cut"


@pytest.mark.parametrize("field", ["size", "packed"])
def test_a_zip_with_entries_larger_than_the_file_is_refused(field, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.png", pictures(1)[0])
    data = bytearray((tmp_path / "a.zip").read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 20 : entry + 28] = (4_000_000_000).to_bytes(4, "little") * 2
    if field == "size":
        data[entry + 20 : entry + 24] = len(pictures(1)[0]).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(VideoError, match=r"a\.zip: cut, or no zip of pictures \(1\.png is (longer|compressed)"):
        open_video(tmp_path / "a.zip")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_pictures_above_the_limit_are_refused_before_they_are_decoded(suffix, tmp_path, monkeypatch):
    picture = cv2.imencode(suffix, np.zeros((60, 40, 3), np.uint8))[1].tobytes()
    (tmp_path / f"img_00001{suffix}").write_bytes(picture)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(f"1{suffix}", picture)
    for path in (tmp_path, tmp_path / "a.zip"):
        assert open_video(path, max_pixels=2400).get_batch([0]).shape == (1, 60, 40, 3)
    monkeypatch.setattr("cv2.imdecode", None)
    for path in (tmp_path, tmp_path / "a.zip"):
        with pytest.raises(VideoError, match=r"1\.\w+: a frame has 40 x 60 pixels, the limit is 2,399") as caught:
            open_video(path, max_pixels=2399).get_batch([0])
        assert caught.value.kind == "too large"
    np.save(tmp_path / "a.npy", np.zeros((1, 60, 40, 3), np.uint8))
    with pytest.raises(VideoError, match="a frame has 40 x 60 pixels"):
        open_video(tmp_path / "a.npy", max_pixels=2399)


@pytest.mark.parametrize(("suffix", "flags"), [
    (".jpg", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]), (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 1]),
    (".png", []), (".bmp", []), (".webp", []), (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),  # 101: lossless
])
@pytest.mark.parametrize("size", [(1, 1), (300, 7), (257, 513)])
def test_the_size_of_a_picture_by_its_header(suffix, flags, size):
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    data = cv2.imencode(suffix, pixels, flags)[1].tobytes()
    assert picture_size(data) == size
    for cut in range(0, min(len(data), 64)):
        picture_size(data[:cut])


def test_the_size_of_unusual_pictures():
    """Fill bytes and a comment before the frame of a JPEG, a BMP from top to bottom, one of OS/2, WebP with alpha."""
    jpeg = cv2.imencode(".jpg", np.zeros((60, 40, 3), np.uint8))[1].tobytes()
    assert picture_size(jpeg[:2] + b"\xff\xff\xfe\x00\x05abc" + jpeg[2:]) == (40, 60)
    assert picture_size(b"BM" + bytes(12) + (40).to_bytes(4, "little") + (7).to_bytes(4, "little")
                        + (-9).to_bytes(4, "little", signed=True)) == (7, 9)
    assert picture_size(b"BM" + bytes(12) + (12).to_bytes(4, "little") + b"\x07\x00\x09\x00") == (7, 9)
    assert picture_size(b"RIFF....WEBPVP8X" + bytes(8) + b"\x06\x00\x00\x08\x00\x00") == (7, 9)
    assert picture_size(b"GIF89a" + bytes(40)) is None


def test_a_picture_of_a_folder_that_is_not_one(frame_folder):
    (frame_folder() / "img_00003.png").write_bytes(b"text" * 100)
    with pytest.raises(VideoError, match=r"frame 2 of 6, img_00003\.png, is damaged \(no picture that is known here, "
                                         r"400 bytes\); extract the frames again") as caught:
        open_video(frame_folder(num=0)).get_batch([2])
    assert caught.value.kind == "damaged"


def test_an_encrypted_zip_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.png", pictures(1)[0])
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + place] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(VideoError, match=r"frame 0 of 1, 1\.png, is damaged \(.*encrypted"):
        open_video(tmp_path / "a.zip").get_batch([0])


@pytest.mark.parametrize("wrong", [{"seconds": [0.0]}, {"seconds": "x"}, {"checksums": "00"}, {"checksums": "g" * 384},
                                   {"fps": float("nan")}, {"fps": None}, {"source": None}])
def test_a_damaged_description_is_named(wrong, stored):
    path = stored(format="raw")
    data = path.read_bytes()
    place = data.index(b'{"source')
    path.write_bytes(data[:place] + json.dumps({**json.loads(data[place:]), **wrong}).encode())
    with pytest.raises(VideoError, match=r"clip\.npy: its description is damaged; make it again"):
        open_video(path)


@pytest.mark.parametrize("change", [
    lambda members: members[1:],  # one lost: the others lie elsewhere
    lambda members: members[1:2] + members[:1] + members[2:],
])
def test_a_zip_of_a_store_that_somebody_packed_anew_is_damaged(change, stored):
    path = stored()
    with zipfile.ZipFile(path) as whole:
        members = [(member, whole.read(member)) for member in whole.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in change(members):
            archive.writestr(member, data)
    with pytest.raises(VideoError, match=r"frame 0 of 24, img_00001\.jpg, is damaged \(its CRC-32 differs\); make it"):
        open_video(path).get_batch([0])


def test_a_flipped_bit_in_the_description_of_a_zip_is_found(stored):
    path = stored()
    data = bytearray(path.read_bytes())
    data[data.index(b'"pictures"') + 20] ^= 1
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"clip\.zip: cut, or no zip of pictures \(info\.json is damaged\)"):
        open_video(path)


def test_a_zip_without_its_table_of_pictures_is_read(stored):
    """As one of more than 4 GB, or of a tool that puts another entry behind info.json."""
    path = stored()
    frames = open_video(path).get_batch([0, 9, 23])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "")
    reader = open_video(path)
    assert reader.fps == 25 and reader.info["num_frames"] == 24
    np.testing.assert_array_equal(reader.get_batch([0, 9, 23]), frames)


def test_a_zip_with_a_frame_too_few_is_named(stored):
    path = stored()
    with zipfile.ZipFile(path) as whole:
        members = [(member, whole.read(member)) for member in whole.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members[1:-1]:
            archive.writestr(member, data)
        archive.comment = members[-1][1].replace(b'"pictures"', b'"_"')[:60_000]  # as an earlier version has it
    with pytest.raises(VideoError, match=r"clip\.zip: 23 frames instead of 24; make it again"):
        open_video(path)


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
    (lambda folder: (folder / "img_00002.png").write_bytes(b""),
     r"frame 1 of 6, img_00002\.png, is damaged \(no picture"),
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
