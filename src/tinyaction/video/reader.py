"""Read a video as its player shows it: :func:`open_video`.

A video is the frames that a player shows, in the order and at the times at which it shows them, upright. Opening lists
the packets of the file without decoding (:mod:`tinyaction.video.packets`); reading decodes what the frames that are
asked for need and nothing else: it seeks to the key frame before them, and lets the codec skip frames that no other
frame refers to. The pixels are those of decoding all in turn. Whatever fails is a :class:`VideoError`.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from tinyaction.place_file import PlaceFile
from tinyaction.places import IsFolderError, PlaceError, is_place, suffix_of
from tinyaction.video.base import MAX_PIXELS, UInt8Array, VideoError, VideoReader, check_indices, check_pixels
from tinyaction.video.containers import (
    check_whole,
    check_whole_place,
    is_iso,
    parts_beside_index,
    several_codecs,
    several_codecs_in,
)
from tinyaction.video.frames import open_frames
from tinyaction.video.packets import Identity, PacketTable, list_packets, scanned
from tinyaction.video.remote import LOOKED_INTO, CopiedVideo, index_alone, is_key
from tinyaction.video.upright import display_matrix, upright

MIN_SKIPPED_PACKETS = 8  # a seek that saves fewer costs more than it saves
MAX_STEP_SECONDS = 10  # from frame to frame of a transport stream; FFmpeg takes more for a break of its clock
AVI_UNKNOWN = 1 << 30  # the number of frames that FFmpeg writes to a pipe
# The header of an MP4 file says all but how far frames are reordered, which few decoders need to be told: its frames
# are looked at only where decoding goes wrong without.
QUICK = {"skip_frame": "all", "analyzeduration": "1"}
# Formats of FFmpeg that are no video of their own: lists of other files, single pictures, texts.
NO_VIDEO_FORMATS = ("concat", "dash", "hls", "tty", "lavfi")


def open_video(path: str | Path, *, max_pixels: int = MAX_PIXELS, num_threads: int = 1) -> VideoReader:
    """Open a video file, or stored frames: a folder of pictures, a zip of pictures, an array.

    Returns a reader with ``len(reader)`` frames, ``reader.fps``, ``reader.seconds``, ``reader.read(indices)``, which
    yields frames in their order, and ``reader.get_batch(indices)`` in any order.

    Args:
        max_pixels: of a frame; larger ones are refused before they are decoded.
        num_threads: that decode one video. With more than one, a reader that is alive when the process forks, as a
            loader's workers do, can hang the child.

    Raises:
        VideoError: there is no such file, or it is empty, cut, damaged, too large, or no video.
    """
    path = Path(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise VideoError(ascii(str(path)), "the name is not UTF-8; rename the file") from None
    with _errors_named(path):
        if is_place(path):
            return _open_place(path, max_pixels=max_pixels, num_threads=num_threads)
        if not path.exists():
            raise VideoError(path, "no such file", kind="missing")
        if path.is_dir() or path.suffix.lower() in (".zip", ".npy"):
            return open_frames(path, max_pixels=max_pixels)
        return VideoFile(path, max_pixels=max_pixels, num_threads=num_threads)


def _open_place(path: Path, *, max_pixels: int, num_threads: int) -> VideoReader:
    if suffix_of(path) in (".zip", ".npy"):
        return open_frames(path, max_pixels=max_pixels)
    try:
        file = PlaceFile(path)
    except IsFolderError:
        return open_frames(path, max_pixels=max_pixels)
    with suppress(_NeedsCopyError):
        return VideoFile(path, max_pixels=max_pixels, num_threads=num_threads, file=file)
    return CopiedVideo(path, lambda copy: VideoFile(copy, max_pixels=max_pixels, num_threads=num_threads))


class _NeedsCopyError(Exception):
    """A file elsewhere whose index does not say what the packets are."""


class VideoFile(VideoReader):
    """A video file through PyAV; see :func:`open_video`. ``file`` is an MP4 or MOV file that lies elsewhere."""

    def __init__(
        self, path: Path, *, max_pixels: int = MAX_PIXELS, num_threads: int = 1, file: PlaceFile | None = None
    ) -> None:
        self.path = path
        self.file = file
        num_promised: set[int] = set()
        is_indexed = False
        if file is None:
            num_promised, is_indexed = check_whole(path)
        elif parts_beside_index(file):
            check_whole_place(path, file)
        else:
            raise _NeedsCopyError
        self._limits: dict[str, Any] = {"max_pixels": max_pixels, "num_threads": num_threads, "file": file}
        decoder = Decoder(path, is_quick=file is not None or is_iso(path), **self._limits)
        self.fps = decoder.fps
        self._table = decoder.list_packets()
        decoder.check_count(self._table, num_promised, is_indexed=is_indexed)
        if self._table.needs_scan or decoder.may_have_fields:
            self._table = decoder.scan(self._table)
        self._idle: Decoder | None = decoder  # for the next read; a second one beside it opens its own
        if not self._table.shown:
            raise VideoError(path, "no video frames")
        positions = range(len(self)) if self._table.is_counted else self._table.shown
        times = np.array([self._table.times[position] for position in positions], np.float64)
        self.seconds: npt.NDArray[np.float64] = (times - times[0]) * decoder.seconds_per_unit
        if self.seconds[-1] > 0 and 2 * len(self) <= len(self._table.identities) + 1:  # two packets a frame: fields
            self.fps = (len(self) - 1) / float(self.seconds[-1])

    def __len__(self) -> int:
        return len(self._table.shown)

    def close_decoder(self) -> None:
        """Free the decoder that waits for the next read, which opens another."""
        self._idle = None

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        check_indices(indices, len(self), self.path)
        return self._read(list(indices))

    def _read(self, indices: list[int]) -> Iterator[UInt8Array]:
        todo = deque(indices)
        with _errors_named(self.path):
            decoder, self._idle = self._idle, None
            decoder = decoder or Decoder(self.path, is_quick=False, **self._limits)
            try:
                keys_there = decoder.confirmed_keys(self._table, indices)
                for keys, is_last in ((keys_there, False), ([0], True)):  # what fails is tried in turn, once
                    parts = _split_at_keys(todo, self._table, keys)
                    try:
                        for start, part in parts:
                            for frame in decoder.decode(self._table, part, start):
                                todo.popleft()
                                yield frame
                        break
                    except (VideoError, av.FFmpegError):
                        if is_last:
                            raise
                        decoder.open_fully()
            finally:
                self._idle = decoder


class Decoder:
    """One open file: lists its packets, finds them again, decodes; one pass at a time."""

    def __init__(
        self, path: Path, *, is_quick: bool, max_pixels: int, num_threads: int, file: PlaceFile | None = None
    ) -> None:
        self.path = path
        self.is_quick = is_quick
        self._file = file
        self._max_pixels = max_pixels
        # FFmpeg counts rows and columns that it adds to a frame: it may take some more than what is checked here.
        self._options = {"max_pixels": f"{min(2 * max_pixels + 65536, 2**31 - 1)}", "protocol_whitelist": "file",
                         "skip_loop_filter": "all", "skip_idct": "all"}  # of the frames that opening looks at
        self._num_threads = num_threads
        self._open()

    def close(self) -> None:
        """Close the file now: a container and its streams refer to each other, and would wait for the collector."""
        if hasattr(self, "_container"):
            self._container.close()

    __del__ = close

    def open_fully(self) -> None:
        """Open the file anew and look at its first frames."""
        self.is_quick = False
        self._open()

    def _open(self, **more: str) -> None:
        options = self._options | (QUICK if self.is_quick else {}) | more
        self.close()
        self._is_at_start = True
        self._options_of_opening = options
        source: Any = f"file:{self.path}" if self._file is None else self._file.cursor()
        self._container: Any = av.open(source, options=options, metadata_errors="ignore")
        self._format = self._container.format.name
        stream: Any = self._container.streams.best("video")
        if self._format == "image2" or self._format.endswith("_pipe"):
            raise VideoError(self.path, "a picture is no video; frames of one lie in a folder, as img_00001.jpg, "
                                        "img_00002.jpg, ...")
        if (stream is None or stream.disposition & av.stream.Disposition.attached_pic
                or self._format in NO_VIDEO_FORMATS):
            raise VideoError(self.path, "no video in it")
        if stream.codec_context is None:
            raise VideoError(self.path, "no decoder for its codec")
        if self.is_quick and not (stream.frames and stream.codec_context.width and stream.codec_context.height):
            self.open_fully()
            return
        self._stream = stream
        for other in self._container.streams:
            if other is not stream and hasattr(other, "discard"):  # PyAV 18: not even read
                other.discard = av.stream.Discard.all
        self._context: Any = stream.codec_context
        self._context.thread_count = self._num_threads
        self._context.thread_type = "AUTO"
        self._context.options = {"max_pixels": options["max_pixels"]}
        check_pixels(self.path, (self._context.width, self._context.height), self._max_pixels)
        self._context.open(strict=False)  # before skip_frame is set: some decoders keep what it was at first
        self._size = self._context.width, self._context.height
        self._reformatter = VideoReformatter()
        self.seconds_per_unit = float(stream.time_base)
        rate = float(stream.average_rate or 0)
        self.fps = rate if math.isfinite(rate) else 0.0
        self._step = round(1 / ((self.fps or 25) * self.seconds_per_unit))

    def list_packets(self) -> PacketTable:
        self._is_at_start = False
        is_stream = self._format == "mpegts"
        listed = partial(
            list_packets, codec=self._context.name, extradata=self._context.extradata, is_avi=self._format == "avi",
            step=self._step, max_step=MAX_STEP_SECONDS / self.seconds_per_unit if is_stream else math.inf)
        if self._file is None:
            return listed(self._container.demux(self._stream))
        if self._context.name in LOOKED_INTO:
            raise _NeedsCopyError
        with index_alone(self._file, parts_beside_index(self._file), self._options_of_opening) as (packets, places):
            return listed(packets, key_places=places)

    def confirmed_keys(self, table: PacketTable, indices: Sequence[int]) -> list[int]:
        """The keys of the table; of a file elsewhere less those before ``indices`` where decoding may not begin."""
        keys = list(table.keys)
        known = {0}
        while self._file is not None and (new := {start for start, _ in _split_at_keys(indices, table, keys)} - known):
            wrong = {key for key in new if not is_key(self._file, table, key, codec=self._context.name,
                                                      extradata=self._context.extradata)}
            keys = [key for key in keys if key not in wrong]
            known |= new - wrong
        return keys

    @property
    def may_have_fields(self) -> bool:
        """Whether it is interlaced H.264, in which each field of a frame may have a packet of its own."""
        return self._context.name == "h264" and int(getattr(self._context, "field_order", 0)) > 1

    def check_count(self, table: PacketTable, num_promised: set[int], *, is_indexed: bool) -> None:
        """Raise VideoError where there are fewer packets than the container says, or their times contradict.

        ``num_promised`` and ``is_indexed`` are what :func:`check_whole` returns.
        """
        num_packets = len(table.identities) + table.num_empty
        num_in_header = self._stream.frames if self._format == "avi" or "mp4" in self._format else 0
        if num_in_header == AVI_UNKNOWN or is_indexed:
            num_in_header = 0
        elif self._format == "avi" and table.decode_times:
            num_packets = table.decode_times[-1] + 1  # dropped frames count, too
        elif 0 < num_packets < num_in_header:  # an edit list may show a part of them
            whole = Decoder(self.path, is_quick=self.is_quick, max_pixels=self._max_pixels, num_threads=1,
                            file=self._file)
            whole._open(ignore_editlist="1")
            listed = whole.list_packets()
            num_packets = len(listed.identities) + listed.num_empty
        if num_packets < num_in_header and (
                codecs := several_codecs_in(self._file) if self._file else several_codecs(self.path)):
            raise VideoError(self.path, f"one track has pictures of several codecs ({codecs}), of which the first is "
                                        "shown; convert the file to one codec")
        if num_packets < num_in_header or num_promised and len(table.identities) not in num_promised:
            raise VideoError(self.path, f"{num_packets} packets instead of {num_in_header or max(num_promised)}; the "
                                        "file is cut or damaged", kind="frame count")
        lowest, highest = table.offsets
        span = table.decode_times[-1] - table.decode_times[0] + self._step if table.decode_times else math.inf
        if table.is_contradictory or highest - lowest > span:
            raise VideoError(self.path, "the times of its frames contradict each other", kind="damaged")

    def scan(self, table: PacketTable) -> PacketTable:
        """Decode the whole file to see which frames are shown; what fails before the first one is cut off anyway."""
        self.open_fully()
        shown: list[int] = []
        self._context.skip_frame = "DEFAULT"
        for position, packet in self._packets(table, 0, len(table.times)):
            try:
                shown += [frame.pts for frame in self._context.decode(packet)]
            except av.FFmpegError as error:
                if shown:
                    raise self._damaged(table, position, error.strerror or type(error).__name__) from None
        return scanned(table, shown, self._step)

    def decode(self, table: PacketTable, indices: Sequence[int], start: int) -> Iterator[UInt8Array]:
        """Yield the frames at ascending ``indices``, decoding from the packet at ``start`` on."""
        todo = deque(indices if table.is_counted else [table.shown[index] for index in indices])
        came: dict[int, Any] = {}
        for position, frame in self._asked_frames(table, frozenset(todo), start):
            came[position] = frame
            while todo and todo[0] in came:
                yield self._pixels(came.pop(todo.popleft()))
            if not todo:
                return
            if not table.is_counted and table.time_at(position) > table.time_at(todo[0]):
                break  # a later frame has come
        raise self._damaged(table, todo[0])

    def _asked_frames(self, table: PacketTable, asked: frozenset[int], start: int) -> Iterator[tuple[int, Any]]:
        """Yield (position, frame) of the packets that are asked for, as the decoder gives them.

        A packet's position travels through the decoder in the place of its time, so each frame is known for sure.
        """
        num_frames, last = 0, -math.inf
        stop = len(table.times) if table.is_counted or table.is_scanned else max(asked)
        self._context.flush_buffers()
        for place, packet in self._packets(table, start, stop):
            is_needed = packet is None or table.is_counted or place in asked or place in table.needed
            self._context.skip_frame = "DEFAULT" if is_needed else "NONREF"
            try:
                frames = self._context.decode(packet)
            except av.FFmpegError as error:
                if place >= table.first:
                    raise self._damaged(table, place, error.strerror or type(error).__name__) from None
                continue
            for frame in frames:
                position = num_frames if table.is_counted else frame.pts
                num_frames += 1
                if table.times[position] is not None and not table.is_counted:
                    if table.time_at(position) < last:
                        raise VideoError(self.path, "the times of its frames contradict their order", kind="damaged")
                    last = table.time_at(position)
                if position in asked:
                    if frame.is_corrupt and not table.breaks:
                        raise self._damaged(table, position)
                    yield position, frame

    def _packets(self, table: PacketTable, start: int, stop: int) -> Iterator[tuple[int, Any]]:
        """Yield (position, packet) from ``start`` to ``stop``, then a last (position, None): no more will come.

        Where a seek lands elsewhere than at ``start`` or before, the file is opened anew.
        """
        position = start
        for position, packet in self._listed_packets(table, start):
            if packet.is_corrupt and not table.is_at_break(position):
                raise self._damaged(table, position)
            packet.pts = position
            yield position, packet
            if position >= stop:
                break
        yield position, None

    def _listed_packets(self, table: PacketTable, start: int) -> Iterator[tuple[int, Any]]:
        """Yield (position, packet) from ``start`` on, each the one that was listed at opening."""
        if start or not self._is_at_start:
            self._seek(table.identities[start])
        packets = (packet for packet in self._container.demux(self._stream) if packet.size)
        first = next(packets, None)
        landed = start
        if first is None or _identity(first) != table.identities[start]:  # before it, or elsewhere
            keys = {table.identities[key]: key for key in table.keys}
            landed = -1 if first is None else keys.get(_identity(first), -1)
        if not 0 <= landed <= start:
            self._open()
            packets = (packet for packet in self._container.demux(self._stream) if packet.size)
            first, landed = next(packets, None), 0
        self._is_at_start = False
        for position, packet in enumerate(chain([first], packets), landed):
            if table.identities[position : position + 1] != [packet and _identity(packet)]:
                raise VideoError(self.path, "the file has changed since it was opened")
            if position >= start:
                yield position, packet
        if position + 1 < len(table.identities):  # seen where files of one kind were joined, after a seek
            raise VideoError(self.path, f"{position + 1} packets instead of {len(table.identities)} came again",
                             kind="damaged")

    def _seek(self, identity: Identity) -> None:
        time, byte, _ = identity
        with suppress(av.FFmpegError, OSError):  # where it fails, the file is opened anew
            if self._format in ("mpegts", "mpeg"):  # their search by time begins in the middle of packets
                self._container.seek(byte or 0, unsupported_byte_offset=True)
            elif time is not None:
                self._container.seek(time, stream=self._stream)

    def _pixels(self, frame: Any) -> UInt8Array:
        """A decoded frame as (H, W, 3) RGB, upright, in the size of the first, as ffmpeg converts it."""
        width, height = self._size if all(self._size) else (frame.width, frame.height)
        if self.is_quick and (width, height) != (frame.width, frame.height):
            raise VideoError(self.path, "its header gives another size", kind="damaged")  # it is opened fully then
        picture = self._reformatter.reformat(frame, width, height, "rgb24", threads=1)
        plane = picture.planes[0]
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)  # some bytes too long
        pixels: UInt8Array = lines[:, : 3 * width].reshape(height, width, 3)
        matrix = display_matrix(frame)
        return pixels if matrix is None else upright(pixels, matrix)

    def _damaged(self, table: PacketTable, position: int, why: str = "it does not come whole") -> VideoError:
        number = position if table.is_counted else table.shown.index(position) if position in table.shown else -1
        name = f"frame {number} of {len(table.shown)}" if number >= 0 else "a hidden frame"
        return VideoError(self.path, f"{name} cannot be decoded ({why}); the file is damaged", kind="damaged")


def _identity(packet: Any) -> Identity:
    return packet.pts, packet.pos, packet.size


def _split_at_keys(indices: Iterable[int], table: PacketTable, keys: Sequence[int]) -> list[tuple[int, list[int]]]:
    """(position where decoding begins, indices) of each stretch that is decoded without a seek.

    A frame is reached from the last key frame that is shown and decoded before it.
    """
    parts: list[tuple[int, list[int]]] = []
    stop = 0
    for index in indices:
        key = 0
        if len(keys) > 1:
            position = table.shown[index]
            place = bisect_right(keys, position) - 1
            while place > 0 and table.time_at(keys[place]) > table.time_at(position):
                place -= 1
            key = keys[place]
            if parts and key - stop > MIN_SKIPPED_PACKETS:
                parts.append((key, []))
            stop = max(stop, position)
        if not parts:
            parts.append((key, []))
        parts[-1][1].append(index)
    return parts


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turn whatever a decoder or parser raises into a VideoError that names the file."""
    try:
        yield
    except (VideoError, _NeedsCopyError):
        raise
    except PlaceError as error:
        raise VideoError(path, error.reason, kind=error.kind) from None
    except MemoryError as error:
        raise VideoError(path, f"there is not enough memory for it ({error})", kind="too large") from None
    except Exception as error:
        raise VideoError(path, f"not a readable video ({getattr(error, 'strerror', None) or error or type(error)})"
                         ) from error
