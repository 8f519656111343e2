"""Which packets of a video file become which frames: read off the packets, without decoding.

A container holds packets in the order of decoding. Each becomes one frame, shown at its time, or none: the hidden
lead-in of a cut, a trimmed end, pictures that refer to what was cut off. Where packets alone cannot tell,
``needs_scan`` is set, and the reader decodes the file once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

# Codecs in which decoding may begin at key frames, and frames that no other refers to may be left out.
SEEKABLE = frozenset(("av1", "libdav1d", "dnxhd", "ffv1", "h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4",
                      "prores", "rawvideo", "vp8", "vp9"))
IN_ORDER = frozenset(("av1", "libdav1d", "ffv1", "mjpeg", "prores", "vp8", "vp9"))  # never reordered
NOT_CODED_BYTES = 10  # MPEG-4: a packet no larger may say "as before"; it shows nothing of its own

Identity = tuple[int | None, int | None, int]  # presentation time, byte in the file, size: the same in every pass


@dataclass
class PacketTable:
    """The packets of one stream in the order of decoding; a packet's place in it is its position.

    Attributes:
        identities: what each packet is recognised by in a later pass.
        times: when each packet's frame is shown, in units of the stream's clock; None where the file does not say.
        num_empty: packets without content: frames that were dropped when the file was made.
        shown: positions of the packets that are shown, in the order of showing.
        keys: positions where decoding may begin, ascending; the first is 0.
        needed: positions that are decoded whatever the codec says of who refers to them.
        decode_times: of all packets whose decoding time the file gives.
        is_contradictory: times go back where the codec never does.
        offsets: least and greatest time from the decoding of a packet to the showing of its frame.
        breaks: positions before which the clock breaks: one recording ends there and another begins.
        is_counted: the file gives no times: frames are counted as the decoder gives them.
        is_scanned: the file was decoded once, and ``shown`` is what came.
        needs_scan: only decoding tells which frames are shown.
    """

    identities: list[Identity] = field(default_factory=list)
    times: list[int | None] = field(default_factory=list)
    num_empty: int = 0
    shown: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=lambda: [0])
    needed: frozenset[int] = frozenset()
    decode_times: list[int] = field(default_factory=list)
    offsets: tuple[int, int] = (0, 0)
    is_contradictory: bool = False
    breaks: list[int] = field(default_factory=list)
    is_counted: bool = False
    is_scanned: bool = False
    needs_scan: bool = False

    @property
    def first(self) -> int:
        return min(self.shown, default=0)

    def is_at_break(self, position: int) -> bool:
        """Whether a packet may be damaged because a recording begins or ends there."""
        return position < self.first or any(abs(position - place) <= 3 for place in self.breaks)

    def time_at(self, position: int) -> int:
        time = self.times[position]
        assert time is not None
        return time


def list_packets(
    packets: Iterable[Any], *, codec: str, extradata: bytes | None, is_avi: bool, step: int, max_step: float,
    key_places: frozenset[int] | None = None,
) -> PacketTable:
    """List a stream's packets as PyAV demuxes them.

    Args:
        codec: FFmpeg's name of the decoder.
        extradata: the codec's own header; says how H.264 and HEVC packets are divided.
        is_avi: AVI files number their packets in the order of decoding and give no other time.
        step: usual time from a frame to the next, in units of the stream's clock.
        max_step: a longer step is a break of the clock, as between two recordings in one transport stream.
        key_places: bytes at which the index of the file has key frames, where the packets are not there to be looked
            at. Then all of these are in ``keys``, and the reader looks whether decoding may begin there.
    """
    table = PacketTable()
    identities, times, decode_times = table.identities, table.times, table.decode_times
    shift = 0  # what makes the clock go on after a break
    last = lowest = highest = 0  # decoding time of the packet before, least and greatest offset
    is_first_key = False
    layers: list[int] = []
    num_pictures = 0  # of MPEG-4
    num_length_bytes = num_bytes_of_length(codec, extradata)
    for packet in packets:
        if not packet.size:
            table.num_empty += packet.pts is not None  # a dropped frame; without a time it is the end of the file
            continue
        position, time, decode_time = len(times), packet.pts, packet.dts
        identities.append((time, packet.pos, packet.size))
        if decode_time is not None:
            decode_time += shift
            if decode_times and not 0 <= decode_time - last <= max_step:
                table.breaks.append(position)
                shift += last + step - decode_time
                decode_time = last + step
            last = decode_time
            decode_times.append(decode_time)
        if time is not None:
            time += shift
            if decode_time is not None:
                lowest, highest = min(lowest, time - decode_time), max(highest, time - decode_time)
        times.append(time)
        if not (packet.is_discard or codec == "vp8" and not memoryview(packet)[0] & 0x10):  # VP8: show_frame
            table.shown.append(position)
        if packet.is_keyframe if key_places is None else packet.pos in key_places:
            is_first_key |= position == 0
            if position and codec in SEEKABLE and time is not None and (
                    key_places is not None or begins_anew(packet, codec, num_length_bytes)):
                table.keys.append(position)
        if codec == "mpeg4" and is_avi:
            num_pictures += bytes(packet).count(b"\0\0\1\xb6")
        if codec == "hevc" and key_places is None:
            layers.append(_temporal_layer(packet, num_length_bytes))
    table.offsets = lowest, highest
    table.needed = frozenset(range(len(times))) if codec == "hevc" and key_places is not None else _always_needed(
        codec, layers, len(times))
    _put_in_order(table, codec, is_avi=is_avi, step=step, is_first_key=is_first_key,
                  has_not_coded=codec == "mpeg4" and _has_not_coded(identities, num_pictures))
    return table


def _has_not_coded(identities: Sequence[Identity], num_pictures: int) -> bool:
    """Whether MPEG-4 packets stand for frames that are the one before once more."""
    num_not_coded = sum(size <= NOT_CODED_BYTES for *_, size in identities)
    is_packed = num_pictures - len(identities) >= num_not_coded  # XviD: two pictures in one packet, none in the next
    return num_not_coded > 0 and not is_packed


def _always_needed(codec: str, layers: list[int], num_packets: int) -> frozenset[int]:
    """Positions of the packets that may not be left out although nobody asks for their frames."""
    if codec not in SEEKABLE:
        return frozenset(range(num_packets))
    highest = max(layers, default=0)  # a temporal layer of HEVC may refer to frames of lower ones called unreferenced
    return frozenset(position for position, layer in enumerate(layers) if layer < highest)


def _put_in_order(
    table: PacketTable, codec: str, *, is_avi: bool, step: int, is_first_key: bool, has_not_coded: bool
) -> None:
    """Sort the packets that are shown by their times, or note in the table why that cannot be done."""
    known = [time for position in table.shown if (time := table.times[position]) is not None]
    is_guessed = is_avi and any(table.offsets)  # FFmpeg guesses the order of AVI frames, often wrongly
    if not has_not_coded and (is_guessed or len(known) < len(table.shown) and (is_avi or not known)):
        table.is_counted = True
        table.keys = [0]
        table.times = [*range(0, step * len(table.shown), step)]
        if table.decode_times:  # a frame comes when the packet behind it does
            gaps = [later - earlier for earlier, later in pairwise(table.decode_times) if later > earlier]
            table.times = [*table.decode_times[1:], table.decode_times[-1] + min(gaps, default=step)]
        return
    table.is_contradictory = codec in IN_ORDER and not table.breaks and known != sorted(known)
    table.needs_scan = (
        len(known) < len(table.shown) or bool(table.breaks) or not is_first_key
        or min(known, default=0) < (table.times[0] or 0)  # leading pictures: they refer to what was before the file
        or len(set(known)) < len(known) and known != sorted(known)
        or has_not_coded
    )
    if not table.needs_scan:
        table.shown.sort(key=table.time_at)  # stable: equal times stay in their order


def scanned(table: PacketTable, shown: list[int], step: int) -> PacketTable:
    """The table of a file that was decoded once: ``shown`` are the positions in the order in which frames came."""
    known = iter(sorted(time for position in shown if (time := table.times[position]) is not None))
    times = without_gaps([None if table.times[position] is None else next(known) for position in shown], step)
    by_position = dict(zip(shown, times, strict=True))
    positions = range(len(table.times))
    return PacketTable(identities=table.identities, times=[by_position.get(position) for position in positions],
                       shown=shown, needed=frozenset(positions), breaks=table.breaks, is_scanned=True)


def without_gaps(times: Sequence[int | None], step: int) -> list[int]:
    """Give each frame a time; an unknown one comes a step after the one before, and none before that.

        step = 2:  5 7 None 11 10  ->  5 7 9 11 13
    """
    result: list[int] = []
    for time in times:
        last = result[-1] if result else -step
        result.append(last + step if time is None or result and time < last else time)
    return result


def begins_anew(packet: Any, codec: str, num_length_bytes: int) -> bool:
    """Whether frames after this key frame need nothing before it; containers mark others too.

    H.264: an IDR picture, or one whose recovery point message counts 0 frames until all is right.
    Source: ITU-T H.264, 7.4.1 and D.1.8.
    """
    if codec != "h264":
        return True
    for unit in _units(packet, num_length_bytes):
        kind = unit[0] & 31
        if kind == 6 and len(unit) > 3 and unit[1] == 6:
            return bool(unit[3] & 0x80)  # 0 in Exp-Golomb code is the bit 1
        if kind in (1, 5):  # a slice, a slice of an IDR picture
            return kind == 5
    return False


def _temporal_layer(packet: Any, num_length_bytes: int) -> int:
    """Temporal layer of an HEVC picture, 0 for the base. Source: ITU-T H.265, 7.3.1.2."""
    for unit in _units(packet, num_length_bytes):
        if len(unit) > 1 and unit[0] >> 1 & 63 < 32:  # a slice
            return (unit[1] & 7) - 1
    return 0


def num_bytes_of_length(codec: str, extradata: bytes | None) -> int:
    """Bytes of the length before each unit of a packet; 0: start codes divide them (streams, AVI).

    Source: ISO/IEC 14496-15, 5.3.3 (H.264) and 8.3.3 (HEVC).
    """
    place, least = {"h264": (4, 7), "hevc": (21, 23)}.get(codec, (0, 1))  # of the byte that says it; of the header
    if not place or not extradata or extradata[0] != 1 or len(extradata) < least:
        return 0
    return 1 + (extradata[place] & 3)


def _units(packet: Any, num_length_bytes: int) -> Iterator[memoryview]:
    """The units of an H.264 or HEVC packet; see annex B of both for start codes."""
    data = memoryview(packet)
    place = 0
    if not num_length_bytes:
        content = bytes(data)
        while (place := content.find(b"\0\0\1", place) + 3) > 2 and place < len(content):
            yield data[place : place + 8]
        return
    while place + num_length_bytes < len(data):
        size = int.from_bytes(data[place : place + num_length_bytes], "big")
        place += num_length_bytes
        if size:
            yield data[place : place + size]
        place += size
