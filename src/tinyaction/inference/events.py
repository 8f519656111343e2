"""Keep the newest frames of a stream, and save the moment before and after an event: :class:`EventClips`."""

import re
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tinyaction.video import UInt8Array
from tinyaction.video.writer import write_video

BEFORE_SECONDS = 3.0  # that a clip begins before the score rose
AFTER_SECONDS = 3.0  # that it goes on after the event was told
MOST_SECONDS = 30.0  # of frames that are kept
MOST_WAITING = 4  # clips to write; then the stream waits
QUALITY = 92  # of the JPEG that a frame is kept as: about a tenth of its pixels


@dataclass
class _OpenClip:
    """A clip that still gets frames, each as (seconds, JPEG)."""

    path: Path
    until_seconds: float
    frames: list[tuple[float, bytes]]


class EventClips:
    """A ring of the newest frames, and the clips that are cut from it.

    Memory does not grow: frames are kept as JPEG, for ``kept_seconds`` at most, and a clip has a fixed length. A
    thread writes the files, so that the stream goes on meanwhile.

    Args:
        folder: where the clips go; it is made with the first one.
        kept_seconds: time back that a clip can reach.
        on_line: receives a sentence for each clip that could not be written.
    """

    def __init__(self, folder: str | Path, *, kept_seconds: float, on_line: Callable[[str], None]) -> None:
        self.folder = Path(folder)
        self.kept_seconds = min(kept_seconds, MOST_SECONDS)
        self.num_begun = 0
        self._on_line = on_line
        self._ring: deque[tuple[float, bytes]] = deque()
        self._open: list[_OpenClip] = []
        self._writer = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def add(self, seconds: float, frame: UInt8Array) -> None:
        """Take the next frame (H, W, 3) uint8 RGB."""
        encoded = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        self._ring.append((seconds, encoded))
        while self._ring[0][0] < seconds - self.kept_seconds:
            self._ring.popleft()
        for clip in self._open:
            clip.frames.append((seconds, encoded))
        self._finish([clip for clip in self._open if seconds >= clip.until_seconds])

    def begin(self, label: str, time: str, *, seconds: float, start_seconds: float) -> Path:
        """Begin the clip of an event whose score rose at ``start_seconds``, and say where it will be."""
        self.num_begun += 1
        path = self.folder / f"{self.num_begun:04d}-{_as_file_name(label)}-{_as_file_name(time)}.mp4"
        first = start_seconds - BEFORE_SECONDS
        self._open.append(_OpenClip(path, seconds + AFTER_SECONDS, [one for one in self._ring if one[0] >= first]))
        return path

    def interrupt(self) -> None:
        """The stream has a gap here: no clip goes over it."""
        self._finish(list(self._open))
        self._ring.clear()

    def close(self) -> None:
        """Write what is left, and wait for it."""
        self.interrupt()
        self._writer.shutdown(wait=True)

    def _finish(self, clips: Sequence[_OpenClip]) -> None:
        for clip in clips:
            self._open.remove(clip)
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft().result()
            self._waiting.append(self._writer.submit(self._write, clip))

    def _write(self, clip: _OpenClip) -> None:
        seconds = clip.frames[-1][0] - clip.frames[0][0] if clip.frames else 0.0
        fps = (len(clip.frames) - 1) / seconds if seconds > 0 else 25.0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_video(clip.path, (_decoded(jpeg) for _, jpeg in clip.frames), fps=fps)
        except (OSError, ValueError) as error:
            self._on_line(f"{clip.path}: the clip is not saved ({error})")


def _decoded(jpeg: bytes) -> UInt8Array:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.ascontiguousarray(picture[..., ::-1], dtype=np.uint8)


def _as_file_name(text: str) -> str:
    """Letters, digits, dots and dashes of a text: a class may be called ``../etc``."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:60] or "event"
