"""The one door to video files: :func:`open_video`.

decord reads most files fastest. Where it fails, on opening or in the middle, OpenCV goes on, and then PyAV where the
extra "av" is installed (AV1 and GIF, which the other two cannot read). All give the same pixels for the files that
they can read. Decoders take damage for a shorter video, so frames are counted against the file's header. Whatever
fails is said in one sentence with the path and each reason (:class:`VideoError`), and never papered over.
"""

import importlib.util
import os
from bisect import bisect_left
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


class VideoError(ValueError):
    """A video that cannot be read; the message begins with its path."""


class VideoReader(Protocol):
    """What every reader offers. ``fps`` is in frames per second, 0.0 where the file does not say."""

    fps: float

    def __len__(self) -> int: ...

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        """Return frames (N, H, W, 3), RGB, at ``indices``, in any order; :class:`VideoError` where one is missing."""
        ...


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


class FirstThatReads:
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

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        if min(indices) < 0 or max(indices) >= len(self):
            raise VideoError(f"{self.path}: frames {min(indices)} to {max(indices)} asked of {len(self)}")
        while True:
            try:
                return self._reader.get_batch(indices)
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


class DecordReader:
    """Frames through decord, one decoding thread: parallelism comes from the loader's workers.

    Args:
        can_jump: whether decord's jumps to key frames can be trusted; without, every frame on the way is decoded.
    """

    def __init__(self, path: Path, *, can_jump: bool = True) -> None:
        self.path = path
        self._can_jump = can_jump
        self._open()

    def _open(self) -> None:
        import decord  # here, so that torch is always imported first: the other order has crashed

        decord.logging.set_level(decord.logging.QUIET)
        try:
            # Of a frame that it cannot decode decord gives its neighbour, unless fault_tol says how many may be so.
            self._reader: Any = decord.VideoReader(str(self.path), num_threads=1, fault_tol=1e-6)
            self._num_frames = len(self._reader)
            self.fps = float(self._reader.get_avg_fps())
        except (decord.DECORDError, RuntimeError, AssertionError, UnicodeError) as error:
            raise VideoError(f"decord: {_first_sentence(error)}") from None
        if self._num_frames == 0:
            raise VideoError("decord: no video frames")
        self._next = 0  # the frame that decord's next() gives

    def __len__(self) -> int:
        return self._num_frames

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        import decord

        try:
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
        if min(indices) < self._next:
            self._open()
        wanted = set(indices)
        frames: dict[int, UInt8Array] = {}
        while self._next <= max(wanted):
            frame = self._reader.next()
            if self._next in wanted:
                frames[self._next] = frame.asnumpy()
            self._next += 1
        return np.stack([frames[index] for index in indices])


class OpenCVReader:
    """Frames through OpenCV.

    OpenCV stops at damage without an error and its frame count is the header's, so the frames are counted by reading
    them once: a file that holds fewer than its header says is refused. Only MP4, MOV and AVI headers hold a count; in
    other files it is a guess from the duration.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise VideoError("OpenCV: cannot be opened")
        if int(self._capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").upper() == b"ANSI":
            raise VideoError("OpenCV: a text, which would be shown as scrolling letters")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        num_in_header = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._num_frames = 0
        while self._capture.grab():
            self._num_frames += 1
        if self._num_frames == 0:
            raise VideoError("OpenCV: no video frames")
        is_guess = path.suffix.lower() not in (".mp4", ".m4v", ".mov", ".avi")
        if self._num_frames < (0.9 * num_in_header - 1 if is_guess else num_in_header):
            raise VideoError(f"OpenCV: only {self._num_frames} of {num_in_header} frames can be decoded")
        self._next = self._num_frames  # the frame that the next read() gives

    def __len__(self) -> int:
        return self._num_frames

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        wanted = sorted(set(indices))
        if wanted[0] < self._next:  # seeking by frame number is off by some frames in many files: read from the start
            self._capture.release()
            self._capture = cv2.VideoCapture(str(self.path))
            self._next = 0
        frames: dict[int, UInt8Array] = {}
        for index in wanted:
            while self._next < index and self._capture.grab():
                self._next += 1
            decoded, frame = self._capture.read()
            if not decoded:
                raise VideoError(f"OpenCV: decoding stopped at frame {self._next} of {self._num_frames}")
            self._next += 1
            frames[index] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
        return np.stack([frames[index] for index in indices])


class PyAVReader:
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

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        import av

        wanted = set(indices)
        try:
            frames = self._read(wanted, jump=self._times is not None)
            if wanted - frames.keys():  # a jump can land where the first frames need some of before
                frames = self._read(wanted, jump=False)
        except av.FFmpegError as error:
            raise VideoError(f"PyAV: decoding stopped between frames {min(wanted)} and {max(wanted)} of "
                             f"{self._num_frames} ({error.strerror})") from None
        for index in wanted - frames.keys():
            raise VideoError(f"PyAV: frame {index} of {self._num_frames} cannot be decoded")
        return np.stack([frames[index] for index in indices])

    def _read(self, wanted: set[int], *, jump: bool) -> dict[int, UInt8Array]:
        """The wanted frames that can be decoded, from the key frame before the first, or from the beginning."""
        import av

        frames: dict[int, UInt8Array] = {}
        with av.open(self._path) as container:
            stream = container.streams[self._stream_index]
            if jump and self._times is not None:
                container.seek(self._times[min(wanted)], stream=stream)
            for count, frame in enumerate(container.decode(stream)):
                index = count
                if self._times is not None and frame.pts is not None:
                    index = bisect_left(self._times, frame.pts)
                if index in wanted:
                    frames[index] = _upright(frame)
                if index >= max(wanted):
                    break
        return frames


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


def frames_in_order(reader: VideoReader, indices: Sequence[int]) -> Iterator[tuple[int, UInt8Array]]:
    """(index, frame) for ascending ``indices``, each once, in memory that does not grow with the video.

    A long video is read in turn through OpenCV where decord has opened it: decord is several times slower here, and
    keeps more and more memory (960 MB after 4,000 frames of 340x256). OpenCV's first frame is compared with decord's,
    and where OpenCV stops, decord goes on.
    """
    todo = deque(indices)
    if isinstance(reader, FirstThatReads) and todo:
        capture = cv2.VideoCapture(str(reader.path))
        try:
            place, is_same = 0, False
            while todo and capture.grab():
                if place == todo[0]:
                    frame = np.asarray(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB), np.uint8)
                    is_same = is_same or np.array_equal(frame, reader.get_batch([place])[0])
                    if not is_same:
                        break
                    yield todo.popleft(), frame
                place += 1
        finally:
            capture.release()
    while todo:
        chunk = [todo.popleft() for _ in range(min(8, len(todo)))]
        yield from zip(chunk, reader.get_batch(chunk), strict=True)
