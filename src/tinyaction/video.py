"""The one door to video files: :func:`open_video`.

decord reads most files fastest. Where it cannot read a file, OpenCV is tried; both give the same pixels for the files
that both can read. Whatever fails is said in one sentence with the path (:class:`VideoError`), and never papered over.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]

# What decord 0.6.0 reads right, by suffix: the codecs (in OpenCV's names) with which it may jump to key frames. With
# others (seen: HEVC, MPEG-1, MPEG-2) a jump lands up to dozens of frames off without a word, so every frame on the way
# is decoded; in other containers (seen: .mpg, .wmv) even that goes wrong, so OpenCV reads them.
_MP4_CODECS = frozenset({"H264", "AVC1", "FMP4", "MP4V"})
DECORD_JUMPS = {
    ".mp4": _MP4_CODECS, ".m4v": _MP4_CODECS, ".mov": _MP4_CODECS,
    ".avi": frozenset({"FMP4", "MJPG", "FFV1"}),
    ".mkv": frozenset[str](), ".webm": frozenset[str](),
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
    reasons = []
    for reader_class in (DecordReader, OpenCVReader) if path.suffix.lower() in DECORD_JUMPS else (OpenCVReader,):
        try:
            return reader_class(path)
        except VideoError as error:
            reasons.append(f"{reader_class.name}: {error}")
    raise VideoError(f"{path}: not a readable video ({'; '.join(reasons)})")


class DecordReader:
    """Frames through decord, one decoding thread: parallelism comes from the loader's workers.

    Where decord fails in the middle of a file, OpenCV reads that file from there on, if it finds as many frames in it.
    """

    name = "decord"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()
        self._can_jump = _codec(path) in DECORD_JUMPS.get(path.suffix.lower(), ())
        self._opencv: OpenCVReader | None = None

    def _open(self) -> None:
        import decord  # here, so that torch is always imported first: the other order has crashed

        try:
            self._reader: Any = decord.VideoReader(str(self.path), num_threads=1)
            self._num_frames = len(self._reader)
            self.fps = float(self._reader.get_avg_fps())
        except (decord.DECORDError, RuntimeError) as error:
            raise VideoError(_first_sentence(error)) from None
        if self._num_frames == 0:
            raise VideoError("no video frames")
        self._next = 0  # the frame that decord's next() gives

    def __len__(self) -> int:
        return self._num_frames

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        import decord

        if min(indices) < 0 or max(indices) >= self._num_frames:
            raise VideoError(f"{self.path}: frames {min(indices)} to {max(indices)} asked of {self._num_frames}")
        if self._opencv is None:
            try:
                frames = self._read_jumping(indices) if self._can_jump else self._read_in_turn(indices)
                if frames.shape[-1] == 3:
                    return frames
                reason = f"{frames.shape[-1]} channels instead of 3"  # of codecs that store transparency
            except (decord.DECORDError, RuntimeError, StopIteration) as error:
                reason = _first_sentence(error)
            self._opencv = self._opencv_instead(reason)
        return self._opencv.get_batch(indices)

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

    def _opencv_instead(self, reason: str) -> "OpenCVReader":
        try:
            reader = OpenCVReader(self.path)
            if len(reader) != self._num_frames:
                raise VideoError(f"{len(reader)} frames instead of {self._num_frames}")
        except VideoError as error:
            raise VideoError(f"{self.path}: damaged (decord: {reason}; OpenCV: {error})") from None
        return reader


class OpenCVReader:
    """Frames through OpenCV.

    OpenCV stops at damage without an error and its frame count is the header's, so the frames are counted by reading
    them once: a file that holds fewer than its header says is refused. Only MP4, MOV and AVI headers hold a count; in
    other files it is a guess from the duration.
    """

    name = "OpenCV"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise VideoError("cannot be opened")
        if _codec(path) == "ANSI":
            raise VideoError("a text, which would be shown as scrolling letters")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        num_in_header = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._num_frames = 0
        while self._capture.grab():
            self._num_frames += 1
        if self._num_frames == 0:
            raise VideoError("no video frames")
        if self._num_frames < num_in_header and path.suffix.lower() in (".mp4", ".m4v", ".mov", ".avi"):
            raise VideoError(f"only {self._num_frames} of {num_in_header} frames can be decoded")
        self._next = self._num_frames  # the frame that the next read() gives

    def __len__(self) -> int:
        return self._num_frames

    def get_batch(self, indices: Sequence[int]) -> UInt8Array:
        wanted = sorted(set(indices))
        if wanted[0] < 0 or wanted[-1] >= self._num_frames:
            raise VideoError(f"{self.path}: frames {wanted[0]} to {wanted[-1]} asked of {self._num_frames}")
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
                raise VideoError(f"{self.path}: decoding stopped at frame {self._next} of {self._num_frames}")
            self._next += 1
            frames[index] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
        return np.stack([frames[index] for index in indices])


def _codec(path: Path) -> str:
    """The four letters by which OpenCV names the codec of a file; empty where it cannot open the file."""
    fourcc = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FOURCC))
    return fourcc.to_bytes(4, "little").strip(b"\0").decode("latin-1").upper()


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
    if isinstance(reader, DecordReader) and todo:
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
