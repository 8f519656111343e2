"""Which packets become which frames, on literal packets; a frame is shown every 2 units of the clock."""

import math

import pytest

from tinyaction.video.packets import PacketTable, list_packets, num_bytes_of_length, scanned, without_gaps

STEP = 2


class Packet(bytes):
    """The content of a packet, with what PyAV says of it."""

    @property
    def size(self):
        return len(self)


def packet(pts, dts=None, *, content=bytes(100), is_key=False, is_discard=False, pos=None):
    made = Packet(content)
    made.pts, made.dts, made.is_keyframe, made.is_discard, made.pos = pts, dts, is_key, is_discard, pos
    return made


def in_turn(times, *, keys=(0,), hidden=(), contents=None, first=0):
    """Packets decoded at 0, 2, 4 ... and shown at ``times``."""
    contents = contents or [bytes(100)] * len(times)
    return [packet(time, first + STEP * place, content=contents[place], is_key=place in keys,
                   is_discard=place in hidden, pos=1000 * place) for place, time in enumerate(times)]


def listed(packets, codec="mpeg4", *, extradata=None, is_avi=False, max_step=math.inf):
    return list_packets(packets, codec=codec, extradata=extradata, is_avi=is_avi, step=STEP, max_step=max_step)


# ---------------------------------------------------------------------------------------------------------------------
# what packets alone tell
# ---------------------------------------------------------------------------------------------------------------------


def test_frames_are_shown_by_their_times_and_not_in_the_order_of_decoding():
    table = listed(in_turn([0, 6, 2, 4]))  # I P B B
    assert table.shown == [0, 2, 3, 1]
    assert table.times == [0, 6, 2, 4]
    assert table.identities[1] == (6, 1000, 100)
    assert table.offsets == (-2, 4)  # shown at 6, decoded at 2; shown at 4, decoded at 6
    assert not (table.needs_scan or table.is_counted or table.is_contradictory or table.breaks)


def test_hidden_and_empty_packets_are_no_frames():
    packets = in_turn([0, 2, 4, 6, 8], hidden=(0, 4))
    packets[2] = packet(4, 4, content=b"")
    table = listed(packets)
    assert table.shown == [1, 2]  # of 0, 2, 6 and 8, positions among those that hold anything
    assert table.times == [0, 2, 6, 8]
    assert not table.needs_scan


def test_equal_times_stay_in_their_order():
    table = listed(in_turn([0, 2, 2, 2, 4]))
    assert table.shown == [0, 1, 2, 3, 4] and not table.needs_scan
    assert listed(in_turn([0, 4, 2, 2])).needs_scan  # which of the two comes first, only decoding tells


def test_an_unknown_time_among_known_ones_is_left_to_decoding():
    table = listed(in_turn([0, None, 4]))
    assert table.needs_scan and table.times == [0, None, 4]


def test_leading_pictures_are_left_to_decoding():
    """Shown before the first key frame, they refer to what was before the file."""
    assert listed(in_turn([4, 0, 2, 6])).needs_scan


def test_a_file_that_begins_with_no_key_frame_is_left_to_decoding():
    assert listed(in_turn([0, 2, 4], keys=())).needs_scan


def test_mpeg4_packets_of_a_few_bytes_may_show_nothing():
    contents = [bytes(100), bytes(7), bytes(100)]
    assert listed(in_turn([0, 2, 4], contents=contents)).needs_scan
    assert not listed(in_turn([0, 2, 4], contents=contents), "mpeg2video").needs_scan


@pytest.mark.parametrize("codec, is_contradictory", [("vp9", True), ("av1", True), ("h264", False)])
def test_times_that_go_back_contradict_codecs_without_reordering(codec, is_contradictory):
    assert listed(in_turn([0, 4, 2]), codec).is_contradictory is is_contradictory


# ---------------------------------------------------------------------------------------------------------------------
# clocks
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second, name", [([0, 2, 4], "back"), ([900, 902, 904], "far on")])
def test_a_clock_that_breaks_goes_on(second, name):
    """Two recordings in one stream: the frames of the second one come a step after the first."""
    table = listed(in_turn([10, 12, 14], first=10) + in_turn(second, first=second[0]), max_step=50)
    assert table.times == [10, 12, 14, 16, 18, 20]
    assert table.breaks == [3]
    assert table.needs_scan
    assert [table.is_at_break(position) for position in (1, 5)] == [True, True]


def test_packets_are_known_again_by_the_times_of_the_file():
    table = listed(in_turn([10, 12], first=10) + in_turn([0, 2]), max_step=50)
    assert [identity[0] for identity in table.identities] == [10, 12, 0, 2]


def test_avi_files_without_times_are_counted():
    packets = [packet(None, place, is_key=place == 0) for place in (0, 1, 4)]  # two frames were dropped before the 4
    table = listed(packets, is_avi=True)
    assert table.is_counted and table.keys == [0]
    assert table.shown == [0, 1, 2]
    assert table.times == [1, 4, 5]  # a frame comes when the packet behind it does, the last one the least gap later


def test_times_that_ffmpeg_guesses_for_avi_are_not_taken():
    assert listed(in_turn([0, 6, 2, 4]), is_avi=True).is_counted
    assert not listed(in_turn([0, 2, 4, 6]), is_avi=True).is_counted


def test_a_file_without_any_time_is_counted():
    table = listed([packet(None), packet(None), packet(None)], "h264")
    assert table.is_counted and table.times == [0, 2, 4] and table.shown == [0, 1, 2]


@pytest.mark.parametrize("times, expected", [
    ([5, 7, None, 11, 10], [5, 7, 9, 11, 13]),
    ([None, None, 4], [0, 2, 4]),
    ([3, 3, 3], [3, 3, 3]),
    ([], []),
])
def test_without_gaps(times, expected):
    assert without_gaps(times, STEP) == expected


def test_after_decoding_the_frames_that_came_get_the_times_in_their_order():
    """Position 1 was never shown; the others came as 3, 2, 4, whose packets bear 8, 6 and 9."""
    table = PacketTable([(time, None, 1) for time in (0, 2, 6, 8, 9)], [0, 2, 6, 8, 9], [0, 1, 2, 3, 4], [0, 2])
    found = scanned(table, [3, 2, 4], STEP)
    assert found.shown == [3, 2, 4]
    assert found.times == [None, None, 8, 6, 9]
    assert found.keys == [0]  # decoded from the start: it was not said where decoding may begin
    assert found.needed == {0, 1, 2, 3, 4}
    assert found.identities == table.identities


# ---------------------------------------------------------------------------------------------------------------------
# what the codecs say
# ---------------------------------------------------------------------------------------------------------------------


def test_hidden_vp8_frames_are_not_shown():
    """Bit 4 of the first byte: show_frame. An alt-ref frame has 0 there."""
    table = listed(in_turn([0, 2, 2, 4], contents=[b"\x10", b"\x00", b"\x11", b"\x31"]), "vp8")
    assert table.shown == [0, 2, 3]


IDR, SLICE, AUD = b"\x65\x88....", b"\x41\x9a....", b"\x09\xf0"
WHOLE_AT_ONCE, WHOLE_LATER = b"\x06\x06\x01\x80", b"\x06\x06\x01\x28"  # recovery_frame_cnt 0 and 4


def with_start_codes(*units):
    return b"".join(b"\0\0\0\1" + unit for unit in units)


def with_lengths(*units):
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


AVCC = b"\x01\x64\0\x1e\xff\xe1\0"  # lengths of 4 bytes
HVCC = b"\x01" + bytes(20) + b"\x03" + bytes(10)


@pytest.mark.parametrize("join, extradata", [(with_start_codes, None), (with_lengths, AVCC)])
@pytest.mark.parametrize("units, is_seekable", [
    ([IDR], True), ([AUD, IDR], True), ([SLICE], False), ([WHOLE_AT_ONCE, SLICE], True), ([WHOLE_LATER, SLICE], False),
    ([], False),
])
def test_h264_is_decoded_from_key_frames_that_need_nothing_before(units, is_seekable, join, extradata):
    contents = [join(IDR), join(SLICE), join(*units) or b"\0", join(SLICE)]
    table = listed(in_turn([0, 2, 4, 6], keys=(0, 2), contents=contents), "h264", extradata=extradata)
    assert table.keys == ([0, 2] if is_seekable else [0])


@pytest.mark.parametrize("codec, header", [("h264", AVCC), ("hevc", HVCC)])
def test_a_header_that_is_cut_divides_no_packets(codec, header):
    """That of HEVC has 23 bytes without a set, that of H.264 seven."""
    least = {"h264": 7, "hevc": 23}[codec]
    for num_bytes in range(len(header) + 1):
        assert num_bytes_of_length(codec, header[:num_bytes]) == (4 if num_bytes >= least else 0)


@pytest.mark.parametrize("join, extradata", [(with_start_codes, None), (with_lengths, HVCC)])
def test_of_hevc_with_temporal_layers_only_the_highest_may_be_left_out(join, extradata):
    """Byte 2 of a slice: its layer and 1."""
    layers = [0, 1, 2, 2, 0]
    contents = [join(bytes([0x02, layer + 1]) + b"....") for layer in layers]
    table = listed(in_turn([0, 8, 4, 6, 10], contents=contents), "hevc", extradata=extradata)
    assert table.needed == {0, 1, 4}


def test_hevc_without_layers_leaves_it_to_the_codec():
    contents = [with_start_codes(b"\x02\x01....")] * 3
    assert listed(in_turn([0, 2, 4], contents=contents), "hevc").needed == frozenset()


def test_of_other_codecs_all_is_decoded_from_the_start():
    table = listed(in_turn([0, 2, 4, 6], keys=(0, 2)), "theora")
    assert table.keys == [0] and table.needed == {0, 1, 2, 3}


def test_no_packets_no_frames():
    table = listed([packet(0, 0, content=b"")])
    assert table.shown == [] and table.times == []


PICTURE, NOT_CODED = b"\0\0\1\xb6" + bytes(100), b"\0\0\1\xb6\x51\0"


def test_a_picture_that_is_not_coded_makes_a_scan_necessary_but_for_packed_ones():
    """A packet of a few bytes says "as before"; XviD also puts one behind each packet that holds two pictures."""
    alone = in_turn([0, 6, 2, 4], contents=[PICTURE, PICTURE, NOT_CODED, PICTURE])
    assert listed(alone, is_avi=True).needs_scan
    packed = in_turn([0, 6, 2, 4], contents=[PICTURE, 2 * PICTURE, NOT_CODED, PICTURE])
    assert listed(packed, is_avi=True).is_counted and not listed(packed, is_avi=True).needs_scan
