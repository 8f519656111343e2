"""The one door to video files: :func:`open_video`.

decord opens a file fastest, knows the time of each frame, and jumps to key frames where that leaves frames out. Where
it does not, OpenCV decodes faster, and each frame that it gives is known by its time to be the one that was asked for.
Where decord fails, on opening or in the middle, OpenCV goes on alone, and then PyAV where the extra "av" is installed
(AV1 and GIF, which the other two cannot read). All give the same pixels for the files that they can read. Decoders
take damage for a shorter video, so frames are counted against the file's header. Whatever fails is said in one
sentence with the path and each reason (:class:`VideoError`), and never papered over.
"""

import importlib.util
import os
import sys
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: what is wrong with a file is said in the error
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

from tinyaction.header import Header, read_header  # noqa: E402

UInt8Array = npt.NDArray[np.uint8]

# What decord 0.6.0 reads right, by container: the codecs with which it may jump to key frames. With others (seen:
# HEVC, MPEG-1, MPEG-2) a jump lands up to dozens of frames off without a word, and in XVID the first jump to the last
# frame gives other pixels, so every frame on the way is decoded; in other containers (seen: .mpg, .wmv) even that goes
# wrong, so OpenCV reads them.
DECORD_JUMPS = {
    "mp4": frozenset({"AVC1", "AVC3", "MP4V"}),
    "avi": frozenset({"FMP4", "MP4V", "MJPG", "FFV1"}),
    "mkv": frozenset[str](),
}

FRAMES_READ_AT_ONCE = 8  # by decord, or as many as these bytes hold; each batch costs a little
BYTES_READ_AT_ONCE = 16_000_000


class VideoError(ValueError):
    """A video that cannot be read; the message begins with its path."""


class VideoReader(Protocol):
    """What every reader offers. ``fps`` is in frames per second, 0.0 where the file does not say."""

    fps: float

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        """Yield the frames (H, W, 3), RGB, at ascending ``indices``, each once; :class:`VideoError` where one is
        missing. Memory does not grow with their number."""
        ...

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        """Return frames (N, H, W, 3), RGB, at ``indices``, in any order; :class:`VideoError` where one is missing."""
        distinct = sorted(set(indices))
        frames = dict(zip(distinct, self.read(distinct), strict=True))
        return np.stack([frames[index] for index in indices])


def open_video(path: str | Path) -> VideoReader:
    """Open a video file for reading frames by index.

    Returns a reader with ``len(reader)`` frames, ``reader.fps`` and ``reader.get_batch(indices)``. A reader belongs to
    the process that opened it: open one per item and let it go, never keep one across a fork.

    Raises:
        VideoError: there is no such file, it is empty or cut, or neither decord nor OpenCV can decode it.
    """
    path = Path(path)
    if not path.exists():
        raise VideoError(f"{path}: no such file")
    if path.is_dir() or path.suffix.lower() in (".zip", ".npy"):
        from tinyaction.framestore import open_frames  # here: that room writes what this one reads

        return open_frames(path)
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes)")
    num_bytes, num_promised = path.stat().st_size, _promised_bytes(path)
    if num_bytes < num_promised:  # a decoder would take what is left for a shorter video
        raise VideoError(f"{path}: the file is cut: it has {num_bytes} of at least {num_promised} bytes")
    header = read_header(path)
    if header.fault:
        raise VideoError(f"{path}: {header.fault}")
    return FirstThatReads(path, header)


class FirstThatReads(VideoReader):
    """The first reader that can read the file; where it gives up in the middle, the next one goes on.

    A reader that finds another number of frames than the header promises, or than the one before it, is passed over.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self._promised = header.num_frames
        self._readers: list[Callable[[Path], VideoReader]] = [OpenCVReader]
        if header.container:
            jumps = DECORD_JUMPS.get(header.container, frozenset())
            can_jump = bool(header.codecs) and jumps.issuperset(header.codecs)
            self._readers.insert(0, lambda path: DecordReader(path, can_jump=can_jump))
        if _has_av():
            self._readers.append(PyAVReader)
        self._reasons: list[str] = []
        self._reader = self._next_reader()
        self.fps = self._reader.fps

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        check_indices(indices, len(self), self.path)
        todo = deque(indices)
        while todo:
            try:
                for frame in self._reader.read(list(todo)):
                    todo.popleft()
                    yield frame
            except VideoError as error:
                self._reasons.append(f"{error}")
                self._promised = [len(self)]  # the indices were chosen for so many
                self._reader = self._next_reader()

    def _next_reader(self) -> VideoReader:
        while self._readers:
            try:
                reader = self._readers.pop(0)(self.path)
                if self._promised and len(reader) not in self._promised:
                    name = type(reader).__name__.removesuffix("Reader")
                    raise VideoError(f"{name}: {len(reader)} frames instead of {self._promised[0]}")
                return reader
            except VideoError as error:
                self._reasons.append(f"{error}")
        hint = "" if _has_av() else "; pip install 'tinyaction[av]' adds a reader of AV1, GIF and more"
        raise VideoError(f"{self.path}: not a readable video ({'; '.join(self._reasons)}){hint}")


def _has_av() -> bool:
    return importlib.util.find_spec("av") is not None


def check_indices(indices: Sequence[int], num_frames: int, path: Path | str) -> None:
    """Raise VideoError where one of the indices is no frame of a video of so many."""
    if len(indices) and (min(indices) < 0 or max(indices) >= num_frames):
        raise VideoError(f"{path}: frames {min(indices)} to {max(indices)} asked of {num_frames}")


class DecordReader(VideoReader):
    """Frames through decord where it leaves frames out by a jump to a key frame, else through OpenCV.

    OpenCV decodes a frame in about 0.85 of decord's time, and only what it is asked for; decord goes on in a thread of
    its own for as long as it lives, which takes a second core and, of 1080x1920, 600 MB a second. OpenCV is believed
    as far as its frames have the times that decord gives them, once its first one has the same pixels: damage, a
    second stream, an edit list would show in these. From the first frame that differs, decord reads.

    Args:
        can_jump: whether decord's jumps to key frames can be trusted; without, every frame on the way is decoded.
    """

    def __init__(self, path: Path, *, can_jump: bool = True) -> None:
        import decord

        self.path = path
        self._can_jump = can_jump
        try:
            self._reader: Any = self._open()  # None while OpenCV reads
            self._num_frames = len(self._reader)
            if self._num_frames == 0:
                raise VideoError("decord: no video frames")
            self.fps = float(self._reader.get_avg_fps())
            self._keys: list[int] = list(self._reader.get_key_indices()) or [0]
            self._seconds: npt.NDArray[np.float32] = self._reader.get_frame_timestamp(range(self._num_frames))[:, 0]
        except (decord.DECORDError, RuntimeError, AssertionError, UnicodeError) as error:
            raise VideoError(f"decord: {_first_sentence(error)}") from None
        self._capture: ForwardCapture | None = None
        self._is_opencv_right = self._is_opencv_wrong = False  # not known yet

    def _open(self) -> Any:
        import decord  # here, so that torch is always imported first: the other order has crashed

        decord.logging.set_level(decord.logging.QUIET)
        self._next = 0  # the frame that decord's next() gives
        # Of a frame that it cannot decode decord gives its neighbour, unless fault_tol says how many may be so.
        return decord.VideoReader(str(self.path), num_threads=1, fault_tol=1e-6)

    def __len__(self) -> int:
        return self._num_frames

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        todo = deque(indices)
        if todo and not self._saves_by_jumping(indices):
            for frame in self._read_opencv(indices):
                todo.popleft()
                yield frame
        num_at_once = FRAMES_READ_AT_ONCE
        while todo:
            batch = self._read_decord([todo.popleft() for _ in range(min(num_at_once, len(todo)))])
            num_at_once = max(FRAMES_READ_AT_ONCE, BYTES_READ_AT_ONCE // batch[0].nbytes)
            yield from batch

    def _saves_by_jumping(self, indices: Sequence[int]) -> bool:
        """Whether decord, going from key frame to key frame, takes less time than OpenCV, going on in turn."""
        if not self._can_jump:
            return False
        num_decoded, place = 0, 0
        for index in indices:
            place = max(place, self._keys[max(0, bisect_right(self._keys, index) - 1)])
            num_decoded += index + 1 - place
            place = index + 1
        start = self._capture.next_index if self._capture and self._capture.next_index <= indices[0] else 0
        return num_decoded < 0.85 * (indices[-1] + 1 - start)

    def _read_opencv(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        """The frames as far as OpenCV's are surely decord's."""
        if self._is_opencv_wrong:
            return
        if self._capture is None or indices[0] < self._capture.next_index:
            self._capture = ForwardCapture(self.path)
        capture = self._capture
        if not self._is_opencv_right and capture.go_to(0):
            self._compare(capture.picture(), 0)  # decoded soonest
        tolerance = np.diff(self._seconds).min(initial=1.0) / 2  # a time within it is no other frame's
        for index in indices:
            is_there = capture.go_to(index) and abs(capture.seconds - self._seconds[index]) < tolerance
            frame = capture.picture() if is_there else None
            if frame is None or not self._is_opencv_right:
                self._compare(frame, index)
            if frame is None or self._is_opencv_wrong:
                self._capture = None
                return
            yield frame

    def _compare(self, frame: UInt8Array | None, index: int) -> None:
        """Note whether OpenCV's frame is decord's; an equal one that is plain, black say, tells nothing."""
        try:
            is_same = frame is not None and np.array_equal(frame, self._read_decord([index])[0])
        except VideoError:  # said where that frame is asked for
            is_same = False
        self._is_opencv_wrong = not is_same
        if frame is not None and is_same and np.ptp(frame[::4, ::4]):
            self._is_opencv_right = True
            self._reader = None  # it would go on decoding

    def _read_decord(self, indices: Sequence[int]) -> UInt8Array:
        import decord

        try:
            self._reader = self._reader or self._open()
            frames = self._read_jumping(indices) if self._can_jump else self._read_in_turn(indices)
        except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, StopIteration) as error:
            raise VideoError(f"decord: {_first_sentence(error)}") from None
        if frames.shape[-1] != 3:  # of codecs that store transparency
            raise VideoError(f"decord: {frames.shape[-1]} channels instead of 3")
        return frames

    def _read_jumping(self, indices: Sequence[int]) -> UInt8Array:
        frames: UInt8Array = self._reader.get_batch(list(indices)).asnumpy()
        return frames

    def _read_in_turn(self, indices: Sequence[int]) -> UInt8Array:
        if indices[0] < self._next:
            self._reader = self._open()
        wanted = set(indices)
        frames = []
        while self._next <= indices[-1]:
            frame = self._reader.next()
            if self._next in wanted:
                frames.append(frame.asnumpy())
            self._next += 1
        return np.stack(frames)


class ForwardCapture:
    """A file as OpenCV decodes it, frame after frame: seeking by frame number is off by some frames in many files.

    It decodes with as many threads as OpenCV has been given: with one in the workers of a loader, else with all.
    """

    def __init__(self, path: Path) -> None:
        threads = [cv2.CAP_PROP_N_THREADS, cv2.getNumThreads()]
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, threads)
        cv2.utils.logging.setLogLevel(level)
        self.next_index = 0  # the frame that the next grab gives

    def go_to(self, index: int) -> bool:
        """Decode up to this frame, the last one or one ahead; False where the file ends, or is damaged, before."""
        while self.next_index <= index and self._capture.grab():
            self.next_index += 1
        return self.next_index == index + 1

    @property
    def seconds(self) -> float:
        """When the frame is shown."""
        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000

    def picture(self) -> UInt8Array | None:
        """The frame (H, W, 3) RGB; None where it cannot be had."""
        is_whole, frame = self._capture.retrieve()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False) if is_whole else None

    @property
    def is_open(self) -> bool:
        return self._capture.isOpened()

    def get(self, what: int) -> float:
        """A property of the file, by OpenCV's number."""
        return float(self._capture.get(what))


class OpenCVReader(VideoReader):
    """Frames through OpenCV.

    OpenCV stops at damage without an error and its frame count is the header's, so the frames are counted by reading
    them once: a file that holds fewer than its header says is refused. Only MP4, MOV and AVI headers hold a count; in
    other files it is a guess from the duration.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._capture = ForwardCapture(path)
        if not self._capture.is_open:
            raise VideoError("OpenCV: cannot be opened")
        if int(self._capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").upper() == b"ANSI":
            raise VideoError("OpenCV: a text, which would be shown as scrolling letters")
        self.fps = self._capture.get(cv2.CAP_PROP_FPS)
        num_in_header = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._capture.go_to(sys.maxsize)
        self._num_frames = self._capture.next_index
        if self._num_frames == 0:
            raise VideoError("OpenCV: no video frames")
        is_guess = path.suffix.lower() not in (".mp4", ".m4v", ".mov", ".avi")
        if self._num_frames < (0.9 * num_in_header - 1 if is_guess else num_in_header):
            raise VideoError(f"OpenCV: only {self._num_frames} of {num_in_header} frames can be decoded")

    def __len__(self) -> int:
        return self._num_frames

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        if indices and indices[0] < self._capture.next_index:
            self._capture = ForwardCapture(self.path)
        for index in indices:
            frame = self._capture.picture() if self._capture.go_to(index) else None
            if frame is None:
                raise VideoError(f"OpenCV: decoding stopped at frame {self._capture.next_index} of {len(self)}")
            yield frame


class PyAVReader(VideoReader):
    """Frames through PyAV, whose wheels bring FFmpeg with decoders for AV1 and GIF.

    Opening reads the times of all frames without decoding; a decoded frame is known by its time, so that one that
    cannot be decoded is missed and does not shift the others.
    """

    def __init__(self, path: Path) -> None:
        import av

        self._path = str(path)
        try:
            with av.open(self._path) as container:
                stream = container.streams.best("video")
                if stream is None or container.format.name == "tty":  # a text, as scrolling letters
                    raise VideoError("PyAV: no video stream")
                self._stream_index = stream.index
                self.fps = float(stream.average_rate or 0)
                is_avi = container.format.name == "avi"
                times = [packet.pts for packet in container.demux(stream) if packet.size]
        except (av.FFmpegError, UnicodeError) as error:
            raise VideoError(f"PyAV: {getattr(error, 'strerror', None) or error}") from None
        if not times:
            raise VideoError("PyAV: no video frames")
        known = {time for time in times if time is not None}
        # Times in AVI are guesses. None: the frames are counted as they come.
        self._times: list[int] | None = None if is_avi or len(known) < len(times) else sorted(known)
        self._num_frames = len(times)

    def __len__(self) -> int:
        return self._num_frames

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        import av

        todo = deque(indices)
        try:
            for jump in (True, False):  # a jump can land where the first frames need some of before
                for index, frame in self._decoded(todo[0] if jump and todo else 0):
                    if todo and index == todo[0]:
                        todo.popleft()
                        yield _upright(frame)
                    if not todo:
                        return
                    if index > todo[0]:
                        break
        except av.FFmpegError as error:
            raise VideoError(f"PyAV: decoding stopped before frame {todo[0]} of {self._num_frames} "
                             f"({error.strerror})") from None
        raise VideoError(f"PyAV: frame {todo[0]} of {self._num_frames} cannot be decoded")

    def _decoded(self, start: int) -> Iterator[tuple[int, Any]]:
        """(index, frame) of the frames that can be decoded, from the key frame before ``start``."""
        import av

        with av.open(self._path) as container:
            stream = container.streams[self._stream_index]
            if start and self._times is not None:
                container.seek(self._times[start], stream=stream)
            for count, frame in enumerate(container.decode(stream)):
                if self._times is None or frame.pts is None:
                    yield count, frame
                else:
                    yield bisect_left(self._times, frame.pts), frame


def _upright(frame: Any) -> UInt8Array:
    """A frame of PyAV as (H, W, 3) RGB, turned as the file's rotation tag says."""
    pixels: UInt8Array = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, k=round(frame.rotation / 90)) if frame.rotation else pixels


def _promised_bytes(path: Path) -> int:
    """The least size that the file has by its own headers, in bytes; 0 where they do not say.

    MP4 and MOV are a row of boxes (size, name, content); AVI and Matroska give the size of the whole at the beginning.
    """
    with path.open("rb") as file:
        start = file.read(64)
        if start[:4] == b"RIFF":
            size = int.from_bytes(start[4:8], "little")
            return size if size < 0xFFFFFFFF else 0
        if start[:4] == b"\x1aE\xdf\xa3":  # Matroska: a head, then one segment (4 bytes of name, size, content)
            segment = _matroska_end(start, 4) + 4
            return _matroska_end(start, segment) if segment + 8 <= len(start) else 0
        end = 0
        while True:
            file.seek(end)
            box = file.read(16)
            if box[4:8] not in (b"ftyp", b"free", b"mdat", b"moof", b"moov", b"wide"):
                return end
            size = int.from_bytes(box[:4], "big")
            if size == 1:
                size = int.from_bytes(box[8:16], "big")
            if size < 8:  # 0: up to the end of the file
                return 0
            end += size


def _matroska_end(data: bytes, place: int) -> int:
    """Where the element ends whose size stands at ``place``; 0 where all bits of the size are set: not known.

    The size has one byte more than its first byte has leading zero bits.
    """
    length = 9 - data[place].bit_length()
    size = int.from_bytes(data[place : place + length], "big") - (1 << 7 * length)
    return 0 if size == (1 << 7 * length) - 1 else place + length + size


def _first_sentence(error: Exception) -> str:
    """The part of a decoder's message that a person can use: decord's carry time stamps, source lines and a stack."""
    line, *_ = str(error).strip().splitlines() or [""]
    for cut in (": Check failed: ", ": "):
        if cut in line:
            line = line.rsplit(cut, 1)[-1]
            break
    return line.strip()[:160] or type(error).__name__
