"""Whether a file is whole by its container's own words, on literal bytes."""

import re

import pytest
from video_files import numbered_frames, numbers, write_by_pyav

from tinyaction.video import VideoError, open_video
from tinyaction.video.containers import check_whole


def box(name, content=b"", *, size=None):
    return (8 + len(content) if size is None else size).to_bytes(4, "big") + name + content


def chunk(name, content=b""):
    return name + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)


def avi(movie, *, size=None):
    content = b"AVI " + chunk(b"LIST", b"hdrl" + chunk(b"avih", bytes(56))) + chunk(b"LIST", b"movi" + movie)
    return b"RIFF" + (len(content) if size is None else size).to_bytes(4, "little") + content


def element(name, content=b"", *, size=None):
    """Of Matroska: its name, its size in one byte, its content."""
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + (size or bytes([0x80 | len(content)])) + content


EBML, SEGMENT, TRACKS, CLUSTER, TIME, BLOCK = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0x1F43B675, 0xE7, 0xA3
OPEN, OPEN_8 = b"\xff", b"\x01" + b"\xff" * 7  # sizes that are not known, in 1 and 8 bytes
TWO_BLOCKS = element(TIME, b"\0") + 2 * element(BLOCK, b"\x81\0\0\0pixels")


def matroska(cluster, **sizes):
    return element(EBML) + element(SEGMENT, element(TRACKS) + cluster, **sizes)


def flv(*tags):
    body = b"".join(bytes([kind]) + size.to_bytes(3, "big") + bytes(7) + bytes(size) + bytes(4) for kind, size in tags)
    return b"FLV\x01\x01\0\0\0\x09" + bytes(4) + body


def stream(num_packets, *, before=b""):
    return num_packets * (before + b"\x47" + bytes(187))


WHOLE = {
    "mp4": box(b"ftyp", b"isom") + box(b"moov", bytes(20)) + box(b"mdat", bytes(100)),
    "mp4, 64-bit size": box(b"ftyp") + box(b"mdat", (16 + 9).to_bytes(8, "big") + bytes(9), size=1),
    "mp4, to the end": box(b"ftyp") + box(b"mdat", bytes(99), size=0),
    "mp4, with what cameras append": box(b"ftyp") + box(b"mdat", bytes(9)) + b"\xff\xff\xff\xffjunk....",
    "mp4 in fragments": box(b"ftyp") + 2 * (box(b"moof", bytes(4)) + box(b"emsg") + box(b"mdat", bytes(9))),
    "avi": avi(chunk(b"00dc", bytes(9)) + chunk(b"00dc") + chunk(b"01wb", bytes(4)) + chunk(b"00dc", bytes(2))),
    "avi, from a pipe": avi(chunk(b"00dc", bytes(9)), size=0xFFFFFFFF),
    "avi, records": avi(chunk(b"LIST", b"rec " + chunk(b"00dc", bytes(4))) + chunk(b"ix00", bytes(8))),
    "matroska": matroska(element(CLUSTER, TWO_BLOCKS) + element(CLUSTER, TWO_BLOCKS)),
    "matroska, live": matroska(element(CLUSTER, TWO_BLOCKS, size=OPEN_8) + element(CLUSTER, TWO_BLOCKS, size=OPEN),
                               size=OPEN_8),
    "matroska, checksum": matroska(element(CLUSTER, element(0xBF, b"\xff\x01\x02\x03") + TWO_BLOCKS)),
    "flv": flv((18, 20), (9, 300), (8, 7)),
    "transport stream": stream(5),
    "transport stream of a camcorder": stream(5, before=b"\0\0\x12\x34"),
    "another": b"\x00\x00\x01\xba an MPEG stream",
}


def checked(content, folder):
    (folder / "clip").write_bytes(content)
    return check_whole(folder / "clip")


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_whole_files(content, tmp_path):
    checked(content, tmp_path)


@pytest.mark.parametrize("name, num_packets", [
    ("avi", {2}),  # empty chunks are dropped frames, and 01wb is sound
    ("avi, records", {1}), ("matroska", {4}), ("matroska, live", {4}), ("matroska, checksum", {2}), ("mp4", set()),
])
def test_packets_are_counted_by_track(name, num_packets, tmp_path):
    assert checked(WHOLE[name], tmp_path) == (num_packets, False)


def index(*names_and_sizes):
    return chunk(b"idx1", b"".join(name + bytes(8) + size.to_bytes(4, "little") for name, size in names_and_sizes))


PICTURES = chunk(b"00dc", bytes(9)) + chunk(b"00dc") + chunk(b"01wb", bytes(4)) + chunk(b"00dc", bytes(2))


@pytest.mark.parametrize("entries, is_confirmed", [
    ([(b"00dc", 9), (b"00dc", 0), (b"01wb", 4), (b"00dc", 2)], True),
    ([(b"00dc", 9), (b"00dc", 0), (b"00dc", 2)], True),  # of the pictures
    ([(b"00dc", 9), (b"01dc", 0), (b"00dc", 2)], True),
    ([(b"00dc", 9), (b"00dc", 1), (b"00dc", 2)], False),
    ([(b"00dc", 9), (b"01dc", 2)], False),
    ([], False),
])
def test_whether_the_index_of_an_avi_counts_the_same(entries, is_confirmed, tmp_path):
    assert checked(avi(PICTURES) + index(*entries), tmp_path) == ({2}, is_confirmed)


@pytest.mark.parametrize("name, num_left_out", [
    ("mp4", 1), ("mp4", 90), ("mp4, 64-bit size", 3), ("avi", 5), ("matroska", 1), ("matroska", 30),
    ("matroska, live", 16), ("flv", 3),
    ("flv", 100), ("transport stream", 1), ("transport stream", 187), ("transport stream of a camcorder", 60),
])
def test_cut_files(name, num_left_out, tmp_path):
    content = WHOLE[name][:-num_left_out]
    with pytest.raises(VideoError, match=r"clip: the file is cut: ") as caught:
        checked(content, tmp_path)
    assert caught.value.kind == "cut"
    num_bytes, at_least = map(int, re.findall(r"\d+", caught.value.reason))
    assert num_bytes == len(content) < at_least <= len(WHOLE[name])


@pytest.mark.parametrize("content, place", [
    (avi(chunk(b"00dc", bytes(8)) + b"\0\0\0\0\0\0\0\0" + chunk(b"00dc")), 12 + 8 + 4 + 64 + 12 + 16),
    (matroska(element(CLUSTER, element(TIME, b"\0") + b"\0\0\0\0")), 5 + 5 + 5 + 5 + 3),
    (matroska(element(0x12345678, b"odd")), 5 + 5 + 5),
    (flv((9, 30), (0, 30)), 13 + 15 + 30),
    (stream(3) + bytes(188) + stream(2), 3 * 188),
    (box(b"ftyp") + box(b"moof", bytes(4)) + box(b"mdat", bytes(9)) + box(b"\0\0\0\0", bytes(9)), 8 + 12 + 17),
])
def test_what_is_in_no_part_that_may_be_there_is_damage(content, place, tmp_path):
    with pytest.raises(VideoError, match=rf"clip: the file is damaged: byte {place} is in no known part") as caught:
        checked(content, tmp_path)
    assert caught.value.kind == "damaged"


@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4", "ffv1"])
@pytest.mark.parametrize("num_more", [1, 5])
def test_an_avi_whose_header_counts_too_many_is_read_as_players_do(codec, num_more, tmp_path):
    """Its index and its data agree; where they do not, a frame was lost."""
    path = write_by_pyav(tmp_path / "clip.avi", numbered_frames(20), codec,
                         pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p")
    content = bytearray(path.read_bytes())
    place = content.index(b"strh") + 8 + 32  # dwLength
    assert content[place] == 20
    content[place] += num_more
    path.write_bytes(content)
    assert numbers(open_video(path).read(range(20))) == list(range(20))
    place = content.index(b"00dc", content.index(b"movi") + 2000)
    content[place : place + 4] = b"01dc"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=f"19 packets instead of {20 + num_more}; the file is cut or damaged"):
        open_video(path)


def test_an_mp4_of_two_codecs_in_one_track_is_named(tmp_path):
    """It is whole; FFmpeg shows the pictures of the first codec."""
    path, other = (write_by_pyav(tmp_path / f"{codec}.mp4", numbered_frames(20), codec)
                   for codec in ("libx264", "mpeg4"))
    content, entry = path.read_bytes(), other.read_bytes()
    place = entry.index(b"stsd") + 12
    entry = entry[place : place + int.from_bytes(entry[place : place + 4], "big")]

    def grow(content, name, new):
        """Replace the content of a box, and count the bytes into the boxes around it."""
        place = content.index(name) - 4
        size = int.from_bytes(content[place : place + 4], "big")
        for parent in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            at = content.index(parent) - 4
            grown = int.from_bytes(content[at : at + 4], "big") + 8 + len(new) - size
            content = content[:at] + grown.to_bytes(4, "big") + content[at + 4 :]
        return content[:place] + box(name, new) + content[place + size :]

    def old(name, num_bytes):
        place = content.index(name) + 4
        return content[place : place + num_bytes]

    size = int.from_bytes(content[content.index(b"stsd") - 4 :][:4], "big")
    content = grow(content, b"stsd", bytes(7) + b"\2" + old(b"stsd", size - 8)[8:] + entry)
    runs = [(1, 12, 1), (2, 8, 2)]  # first chunk, frames of a chunk, codec
    content = grow(content, b"stsc", b"".join(number.to_bytes(4, "big") for number in (0, 2, *sum(runs, ()))))
    content = grow(content, b"stco", bytes(7) + b"\2" + 2 * old(b"stco", 12)[8:])
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"one track has pictures of several codecs \(avc1, mp4v\), of which"):
        open_video(path)


def test_an_empty_file(tmp_path):
    with pytest.raises(VideoError, match=r"clip: the file is empty \(0 bytes\)") as caught:
        checked(b"", tmp_path)
    assert caught.value.kind == "empty"


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_bytes_without_a_picture_are_no_video(name, tmp_path):
    (tmp_path / "clip").write_bytes(WHOLE[name])
    with pytest.raises(VideoError, match=r"clip: "):
        open_video(tmp_path / "clip")


@pytest.mark.parametrize("content", [
    *(bytes(size) for size in (1, 3, 8, 200)), *(content[:7] for content in WHOLE.values())])
def test_a_few_bytes_end_in_a_video_error(content, tmp_path):
    (tmp_path / "clip").write_bytes(content)
    with pytest.raises(VideoError):
        open_video(tmp_path / "clip")


@pytest.mark.parametrize("name, behind", [("matroska", b"\r\n"), ("matroska", bytes(32)), ("flv", bytes(16)),
                                          ("avi, records", bytes(5))])
def test_bytes_behind_the_end_are_no_damage(name, behind, tmp_path):
    (tmp_path / "clip").write_bytes(WHOLE[name] + behind)
    check_whole(tmp_path / "clip")
