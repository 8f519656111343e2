"""Whether a file is whole, by its container's own words: sizes of its parts against the size of the file.

Decoders take what is left of a cut file for a shorter video, and pass over damaged parts without a word. Looking at
how a file is put together takes well under a millisecond for a clip, and nothing is decoded.
"""

import mmap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tinyaction.place_file import PlaceFile
from tinyaction.video.base import VideoError

ISO_BOXES = (b"ftyp", b"free", b"mdat", b"moof", b"moov", b"wide", b"skip", b"sidx", b"styp", b"mfra", b"uuid",
             b"emsg", b"prft", b"ssix", b"pdin", b"meta")
# Matroska and WebM: elements of (name, size, content). What may lie in which. Source: RFC 8794 and RFC 9559.
EBML, SEGMENT, CLUSTER, GROUP, BLOCK, SIMPLE_BLOCK, VOID, CHECKSUM = (
    0x1A45DFA3, 0x18538067, 0x1F43B675, 0xA0, 0xA1, 0xA3, 0xEC, 0xBF)
PARTS_OF = {
    0: {EBML, SEGMENT},
    SEGMENT: {CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469},
    CLUSTER: {GROUP, SIMPLE_BLOCK, 0xE7, 0xAB, 0xA7, 0x5854, 0xAF},
    GROUP: {BLOCK, 0x75A1, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x8E, 0xC8, 0xA2},
}
SYNC = b"\x47"  # the first byte of each packet of a transport stream
FLV_TAGS = (8, 9, 15, 18)  # sound, pictures, data


def check_whole(path: Path) -> tuple[set[int], bool]:
    """Raise VideoError where a file is cut, or a part of it is none, as far as its container says how long it is.

    MP4, MOV, AVI, Matroska, WebM and FLV do, and transport streams by the length of their packets.

    Returns the numbers of packets (that are not empty) of its tracks, where they are counted here: AVI and Matroska;
    and whether an index in the file counts the same, which is then right where the header says otherwise.
    """
    num_bytes = path.stat().st_size
    if num_bytes == 0:
        raise VideoError(path, "the file is empty (0 bytes)", kind="empty")
    num_packets: Counter[int] = Counter()
    num_indexed: Counter[int] = Counter()
    end = 0
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
                end = _end_of_chunks(data, num_packets, num_indexed)
            elif data[4:8] in ISO_BOXES:
                end = _end_of_boxes(data)
            elif int.from_bytes(data[:4], "big") == EBML:
                end = _end_of_elements(data, num_packets)
            elif data[:3] == b"FLV":
                end = _end_of_tags(data)
            else:
                end = _end_of_packets(data)
    except _UnknownPartError as error:
        reason = f"the file is damaged: byte {error} is in no known part of it"
        raise VideoError(path, reason, kind="damaged") from None
    _check_end(path, end, num_bytes)
    return set(num_packets.values()), num_indexed.total() > 0 and +num_packets == +num_indexed


def check_whole_place(path: Path, file: PlaceFile) -> None:
    """The same of an MP4 or MOV file that lies elsewhere."""
    _check_end(path, _end_of_boxes(file), len(file))


def _check_end(path: Path, end: int, num_bytes: int) -> None:
    if end > num_bytes:
        raise VideoError(path, f"the file is cut: it has {num_bytes} of at least {end} bytes", kind="cut")


class _UnknownPartError(Exception):
    """At the byte that it names no part begins that may be there."""


def is_iso(path: Path) -> bool:
    """Whether a file begins as MP4 and MOV files do."""
    with path.open("rb") as file:
        return file.read(8)[4:] in ISO_BOXES


def parts_beside_index(file: PlaceFile) -> list[tuple[int, int]]:
    """(first byte, byte after it) of the pictures and sounds of an MP4 or MOV file whose index lists all of them.

    Empty where it is no such file, or its index lies in parts between the pictures.
    """
    boxes = list(_boxes(file, 0, len(file))) if file[4:8] in ISO_BOXES else []
    names = {name for name, _, _ in boxes}
    return [(start, stop) for name, start, stop in boxes if name == b"mdat"] if (
        b"moov" in names and b"moof" not in names) else []


def several_codecs(path: Path) -> str:
    """Names of a track's codecs, as "avc1, mp4v", in an MP4 file that has a track of several; else ""."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return several_codecs_in(data)


def several_codecs_in(data: mmap.mmap | PlaceFile) -> str:
    todo = [(0, len(data))]
    while todo:
        place, end = todo.pop()
        for name, start, stop in _boxes(data, place, end):
            if name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
                todo.append((start, stop))
            elif name == b"stsd":
                codecs = dict.fromkeys(entry for entry, _, _ in _boxes(data, start + 8, stop))
                if len(codecs) > 1:
                    return ", ".join(codec.decode("latin-1") for codec in codecs)
    return ""


def _boxes(data: mmap.mmap | PlaceFile, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, first byte of the content, byte after it) of the boxes from ``place`` to ``end``."""
    while place + 8 <= end:
        size, head = int.from_bytes(data[place : place + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        if size < head:
            return
        yield data[place + 4 : place + 8], place + head, min(place + size, end)
        place += size


def _end_of_boxes(data: mmap.mmap | PlaceFile) -> int:
    """The byte after the last box of an MP4 or MOV file. Source: ISO/IEC 14496-12, 4.2."""
    end = 0
    is_fragmented = False  # its index lies in parts between the pictures
    name = data[4:8]
    while name in ISO_BOXES or is_fragmented and len(name) == 4 and name.isalnum():  # unknown boxes are passed over
        is_fragmented |= name == b"moof"
        size = int.from_bytes(data[end : end + 4], "big")
        if size == 1:
            size = int.from_bytes(data[end + 8 : end + 16], "big")
        if size < 8:  # 0: up to the end of the file
            return 0
        end += size
        name = data[end + 4 : end + 8]
    if is_fragmented and data[end:].strip(b"\0"):  # other files may have what cameras append
        raise _UnknownPartError(end)
    return end


def _end_of_chunks(data: mmap.mmap, num_packets: Counter[int], num_indexed: Counter[int]) -> int:
    """The byte after an AVI file's last chunk; counts chunks of pictures, and entries of the index, by stream.

    Source: Microsoft, RIFF and AVI.
    """
    place = end = 0
    movie_end = 0  # byte after the list "movi", whose chunks are looked at
    while place + 8 <= len(data):
        name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        kind = data[place + 8 : place + 12] if name in (b"RIFF", b"LIST") else b""
        if name == b"RIFF" and size in (0, 0xFFFFFFFF):  # a file that was written to a pipe does not know
            return 0
        if name == b"idx1":  # some writers count too much into the list before it
            movie_end = 0
            for entry in range(place + 8, min(place + 8 + size, len(data) - 15), 16):  # name, flags, place, size
                if data[entry : entry + 2].isdigit() and data[entry + 2 : entry + 4] in (b"dc", b"db"):
                    num_indexed[int(data[entry : entry + 2])] += data[entry + 12 : entry + 16] != bytes(4)
        if place < movie_end and not kind and name != b"JUNK":
            if name[:2].isdigit() and name[2:] in (b"dc", b"db"):
                num_packets[int(name[:2])] += size > 0
            elif not (name[:2].isdigit() and name[2:].isalpha() or name[:2] == b"ix"):
                raise _UnknownPartError(place)
        if name != b"RIFF":  # often off by some bytes; its parts tell as much
            end = max(end, place + 8 + size)
        if kind == b"movi":
            movie_end = place + 8 + size
        place += 12 if kind in (b"AVI ", b"AVIX", b"movi", b"rec ") else 8 + size + size % 2
    return end


def _end_of_elements(data: mmap.mmap, num_packets: Counter[int]) -> int:
    """The byte after the last element of a Matroska file; its blocks are counted by track."""
    parents = [(0, len(data))]  # (name, byte after it) of the elements around the place
    last = place = 0
    while place < len(data):
        name, start, size = _element(data, place)
        if start > len(data):  # cut within a name or a size
            return max(last, start)
        while len(parents) > 1 and (place >= parents[-1][1] or not _belongs(name, parents[-1][0])
                                    and _belongs(name, parents[-2][0])):
            parents.pop()  # one of unknown size ends where something begins that cannot be within it
        if not _belongs(name, parents[-1][0]):
            if len(parents) == 1 and not data[place:].strip(b"\0\r\n"):
                return last  # filled up behind its end
            raise _UnknownPartError(place)
        end = parents[-1][1] if size is None else start + size
        last = max(last, end)
        if name in (BLOCK, SIMPLE_BLOCK) and start < len(data):
            num_packets[data[start] & 0x7F] += 1
        if name in PARTS_OF:
            parents.append((name, end))
        place = start if name in PARTS_OF else end
    return last


def _belongs(name: int, parent: int) -> bool:
    return name in PARTS_OF[parent] or name in (VOID, CHECKSUM)


def _element(data: mmap.mmap, place: int) -> tuple[int, int, int | None]:
    """(name, first byte of the content, its size) of an element; the size is None where the file leaves it open.

    Name and size have one byte more than their first byte has leading zero bits. The name is -1 where there is none.
    """
    name_length = 9 - data[place].bit_length()
    size_place = place + name_length
    if name_length > 4:
        return -1, place, 0
    if size_place >= len(data):
        return -1, size_place + 1, 0
    size_length = 9 - data[size_place].bit_length()
    size = int.from_bytes(data[size_place : size_place + size_length], "big") & ((1 << 7 * size_length) - 1)
    is_open = size == (1 << 7 * size_length) - 1
    return int.from_bytes(data[place:size_place], "big"), size_place + size_length, None if is_open else size


def _end_of_tags(data: mmap.mmap) -> int:
    """The byte after the last tag of an FLV file. Source: Adobe, Video File Format 10.1, annex E."""
    place = int.from_bytes(data[5:9], "big") + 4
    while place < len(data):
        if data[place] & 31 not in FLV_TAGS:
            if not data[place:].strip(b"\0"):
                return place
            raise _UnknownPartError(place)
        place += 11 + int.from_bytes(data[place + 1 : place + 4], "big") + 4
    return place - 4 if len(data) == place - 4 else place  # some writers leave the size behind the last tag out


def _end_of_packets(data: mmap.mmap) -> int:
    """The byte after the last packet of a transport stream, 0 for other files. Source: ITU-T H.222.0, 2.4.3.2."""
    for size, offset in ((188, 0), (192, 4)):  # as broadcast; as Blu-ray and camcorders store it
        if data[offset : offset + 2 * size + 1 : size] == 3 * SYNC:
            firsts = data[offset : len(data) // size * size : size]
            num_right = len(firsts) - len(firsts.lstrip(SYNC))
            if num_right < len(firsts):
                raise _UnknownPartError(offset + num_right * size)
            rest = data[len(data) // size * size :]  # a part of a packet, or bytes behind the end
            return len(data) - len(rest) + size if rest[offset : offset + 1] == SYNC else 0
    return 0
