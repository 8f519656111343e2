"""The one door to video files: :func:`open_video`.

decord opens a file fastest and knows how many frames it has and when each is shown. OpenCV decodes them faster, and
each frame that it gives is known by its time to be the one that was asked for. Where that fails decord reads in turn,
then OpenCV alone, and then PyAV where the extra "av" is installed (AV1 and GIF, which the other two cannot read). They
give the same pixels, but for frames that are damaged or change their size midway. Decoders take damage for a shorter
video, so frames are counted against the file's header. Whatever fails is said in one sentence with the path and each
reason (:class:`VideoError`), and never papered over.
"""

import importlib.util
import os
import sys
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: what is wrong with a file is said in the error
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

from tinyaction.video.base import UInt8Array, VideoError, VideoReader, check_indices  # noqa: E402
from tinyaction.video.frames import open_frames  # noqa: E402
from tinyaction.video.header import Header, read_header  # noqa: E402

SEEK_MARGIN = 16  # frames that OpenCV goes back beyond the one that it seeks
NUM_COMPARED = 256  # frames at most until one is found that is not plain


def open_video(path: str | Path) -> VideoReader:
    """Open a video file for reading frames by index.

    Returns a reader with ``len(reader)`` frames, ``reader.fps``, ``reader.read(indices)``, which yields frames in
    their order, and ``reader.get_batch(indices)`` in any order. A reader belongs to the process that opened it: open
    one per item and let it go, never keep one across a fork.

    Raises:
        VideoError: there is no such file, it is empty or cut, or neither decord nor OpenCV can decode it.
    """
    path = Path(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:  # decoders crash on it
        raise VideoError(f"{ascii(str(path))}: the name is not UTF-8; rename the file") from None
    if not path.exists():
        raise VideoError(f"{path}: no such file")
    if path.is_dir() or path.suffix.lower() in (".zip", ".npy"):
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

    name = "video"

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self._promised = header.num_frames
        self._readers: list[Callable[[Path], VideoReader]] = [OpenCVReader]
        if header.container:  # in others (seen: .mpg, .wmv) even decord's reading in turn goes wrong
            has_one_stream = max(len(header.num_frames), len(header.codecs)) <= 1
            self._readers.insert(0, TimedReader if has_one_stream else DecordReader)
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
                    raise VideoError(f"{reader.name}: {len(reader)} frames instead of {self._promised[0]}")
                return reader
            except VideoError as error:
                self._reasons.append(f"{error}")
        hint = "" if _has_av() else "; pip install 'tinyaction[av]' adds a reader of AV1, GIF and more"
        raise VideoError(f"{self.path}: not a readable video ({'; '.join(self._reasons)}){hint}")


def _has_av() -> bool:
    return importlib.util.find_spec("av") is not None


class DecordReader(VideoReader):
    """Frames through decord, in turn, on one decoding thread, and what it knows of the file.

    Its jumps to key frames are not used: they land off by up to dozens of frames, without a word, in HEVC, MPEG-1,
    MPEG-2, MPEG-4 with B-frames, and in H.264 with open groups of pictures or intra refresh.
    """

    name = "decord"

    def __init__(self, path: Path) -> None:
        import decord

        self.path = path
        try:
            self._reader: Any = self._open()
            self._num_frames = len(self._reader)
            if self._num_frames == 0:
                raise VideoError("decord: no video frames")
            self.fps = float(self._reader.get_avg_fps())
            self.keys: list[int] = list(self._reader.get_key_indices()) or [0]
            self.seconds: npt.NDArray[np.float64] = self._times()
        except (decord.DECORDError, RuntimeError, AssertionError, UnicodeError) as error:
            raise VideoError(f"decord: {_first_sentence(error)}") from None

    def _open(self) -> Any:
        import decord  # here, so that torch is always imported first: the other order has crashed

        decord.logging.set_level(decord.logging.QUIET)
        self._next = 0  # the frame that decord's next() gives
        # Of a frame that it cannot decode decord gives its neighbour, unless fault_tol says how many may be so.
        return decord.VideoReader(str(self.path), num_threads=1, fault_tol=1e-6)

    def _times(self) -> npt.NDArray[np.float64]:
        """When each frame is shown, in seconds after the first; where the file does not say (AVI), evenly."""
        times = self._reader.get_frame_timestamp(range(self._num_frames))[:, 0].astype(np.float64)
        is_known = self._num_frames == 1 or np.diff(times).min() > 0
        return times - times[0] if is_known else np.arange(self._num_frames) / (self.fps or 1.0)

    def __len__(self) -> int:
        return self._num_frames

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        import decord

        for index in indices:
            try:
                if self._reader is None or index < self._next:
                    self._reader = self._open()
                while self._next <= index:
                    frame = self._reader.next()
                    self._next += 1
                pixels: UInt8Array = frame.asnumpy()
            except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, StopIteration) as error:
                raise VideoError(f"decord: {_first_sentence(error)}") from None
            if pixels.shape[-1] != 3:  # of codecs that store transparency
                raise VideoError(f"decord: {pixels.shape[-1]} channels instead of 3")
            yield pixels

    def rest(self) -> None:
        """Let go of the file until the next read: decord goes on decoding in a thread of its own for as long as it
        lives, which takes a second core and, of 1080x1920, 600 MB a second."""
        self._reader = None


class TimedReader(VideoReader):
    """Frames through OpenCV, each known by the time that decord gives it; where one is not, decord reads.

    OpenCV decodes a frame in about 0.85 of decord's time, and only what it is asked for. Its first frames must have
    decord's pixels, and each must come at its time: what damage loses, or an edit list cuts off, shows in that.
    """

    name = "decord"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decord = DecordReader(path)
        self.fps = self._decord.fps
        self._tolerance = np.diff(self._decord.seconds).min(initial=1.0) / 2  # a time within it is no other frame's
        self._capture: ForwardCapture | None = None  # the one that the next read goes on with
        self._is_opencv_right: bool | None = None  # not known yet
        self._can_jump = True

    def __len__(self) -> int:
        return len(self._decord)

    def read(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        num_read = 0
        for frame in self._read_opencv(indices):
            num_read += 1
            yield frame
        yield from self._decord.read(indices[num_read:])

    def _read_opencv(self, indices: Sequence[int]) -> Iterator[UInt8Array]:
        """The frames as far as it is sure which they are."""
        if self._is_opencv_right is False:
            return
        capture, self._capture = self._capture or ForwardCapture(self.path), None  # a read beside this opens its own
        if self._is_opencv_right is None:
            self._is_opencv_right = self._gives_the_same(capture)
            self._decord.rest()
        for index in indices if self._is_opencv_right else ():
            is_there = self._jump(capture, index) or self._go_on(capture, index)
            frame = capture.picture() if is_there else None
            if frame is None:
                self._is_opencv_right = False
                return
            yield frame
        self._capture = capture

    def _gives_the_same(self, capture: "ForwardCapture") -> bool:
        """Whether OpenCV's first frame is decord's, or the first that is not plain: two black ones tell nothing."""
        try:
            for index, frame in enumerate(self._decord.read(range(min(len(self), NUM_COMPARED)))):
                picture = capture.picture() if self._go_on(capture, index) else None
                if picture is None or not np.array_equal(picture, frame):
                    return False
                if np.ptp(frame[::4, ::4], axis=(0, 1)).any():
                    break
        except VideoError:  # said where that frame is asked for
            return False
        return True

    def _jump(self, capture: "ForwardCapture", index: int) -> bool:
        """Go to a frame by way of a key frame, where that leaves out more than it costs; False: it did not."""
        keys = self._decord.keys
        key = keys[max(0, bisect_right(keys, index - SEEK_MARGIN) - 1)]
        start = capture.next_index if capture.next_index <= index else 0
        if not self._can_jump or key - start < SEEK_MARGIN:
            return False
        self._can_jump = capture.seek(index, self._decord.seconds) and self._go_on(capture, index)
        if not self._can_jump:
            capture.open()
        return self._can_jump

    def _go_on(self, capture: "ForwardCapture", index: int) -> bool:
        """Decode in turn up to a frame; whether it came, and at its time."""
        return capture.go_to(index) and abs(capture.seconds - self._decord.seconds[index]) < self._tolerance


class ForwardCapture:
    """A file as OpenCV decodes it, frame after frame.

    It decodes with as many threads as OpenCV has been given: with one in the workers of a loader, else with all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.open()

    def open(self) -> None:
        """Go back to before the first frame."""
        threads = [cv2.CAP_PROP_N_THREADS, cv2.getNumThreads()]
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG, threads)
        cv2.utils.logging.setLogLevel(level)
        self.next_index = 0  # the frame that comes next
        self._holds_last = False  # whether the one before it can still be had
        self._first_seconds = 0.0

    @property
    def is_open(self) -> bool:
        return self._capture.isOpened()

    def get(self, what: int) -> float:
        """A property of the file, by OpenCV's number."""
        return float(self._capture.get(what))

    @property
    def seconds(self) -> float:
        """When the frame is shown, after the first."""
        return self.get(cv2.CAP_PROP_POS_MSEC) / 1000 - self._first_seconds

    def go_to(self, index: int) -> bool:
        """Decode up to this frame, from the first one where it lies behind; False where the file ends before."""
        if index < self.next_index - self._holds_last:
            self.open()
        while self.next_index <= index:
            self._holds_last = self._capture.grab()
            if not self._holds_last:
                return False
            if self.next_index == 0:
                self._first_seconds = self.get(cv2.CAP_PROP_POS_MSEC) / 1000
            self.next_index += 1
        return True

    def seek(self, index: int, seconds: npt.NDArray[np.float64]) -> bool:
        """Jump to this frame or to one before; False where one behind comes.

        OpenCV takes all frames for equally long and is off by some in many files: which one comes is known by the
        times (T,) of all frames.
        """
        if self.next_index == 0 and not self.go_to(0):  # it knows the time of the first one
            return False
        self._holds_last = self._capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * seconds[index]) and self._capture.grab()
        if not self._holds_last:
            return False
        self.next_index = 1 + int(np.abs(seconds - self.seconds).argmin())
        return self.next_index <= index + 1

    def picture(self) -> UInt8Array | None:
        """The frame (H, W, 3) RGB; None where it cannot be had."""
        is_whole, frame = self._capture.retrieve()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False) if is_whole else None


class OpenCVReader(VideoReader):
    """Frames through OpenCV.

    OpenCV stops at damage without an error and its frame count is the header's, so the frames are counted by reading
    them once: a file that holds fewer than its header says is refused. Only MP4, MOV and AVI headers hold a count; in
    other files it is a guess from the duration.
    """

    name = "OpenCV"

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

    name = "PyAV"

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
    return np.ascontiguousarray(np.rot90(pixels, k=round(frame.rotation / 90)))


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
