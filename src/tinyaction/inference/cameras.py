"""Frames that come by themselves: cameras, streams by their address, a pipe; and files, played as if they were one.

    0                      a camera's number
    rtsp://host/path       a stream; also rtmp, srt, udp, tcp, http and https where they end in no suffix of a video
                           and in no /, as the address of a folder does
    -                      standard input, as in: ffmpeg ... -f mpegts - | tinyaction predict - ...

Cameras and streams are opened again when they break off; a pipe and a file end.
"""

import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from tinyaction.data.class_folders import VIDEO_SUFFIXES
from tinyaction.video import UInt8Array, open_video

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "tcp", "http", "https")
TIMEOUT_SECONDS = 10.0  # in which a stream must open, and give its next frame
MOST_WAITING = 8  # frames that wait for the network
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each try to open it again; then always the last one


@dataclass(frozen=True)
class Moment:
    """A frame (H, W, 3) uint8 RGB and when it came, in seconds from the first one; without a frame a gap."""

    seconds: float
    frame: UInt8Array | None


def is_stream(source: str) -> bool:
    """Whether a source has no end that is known: a camera's number, an address, or ``-``."""
    if source == "-" or source.isdigit() and not Path(source).exists():
        return True
    scheme, found, path = source.partition("://")
    path = path.partition("?")[0]
    is_file = scheme.lower().startswith("http") and (
        path.endswith("/") or Path(path).suffix.lower() in VIDEO_SUFFIXES)
    return bool(found) and scheme.lower() in SCHEMES and not is_file


def shown_name(source: str) -> str:
    """The name of a source in messages; an address without its password."""
    if source.isdigit() and not Path(source).exists():
        return f"camera {source}"
    return "standard input" if source == "-" else re.sub(r"://[^/@]*@", "://", source)


def moments_of(source: str, *, on_line: Callable[[str], None]) -> Iterator[Moment]:
    """Open a source, and return its frames with their times; those of a camera or a stream never end.

    Args:
        source: see :func:`is_stream`; anything else is a file.
        on_line: receives a sentence each time that a camera or a stream breaks off or is back.

    Raises:
        ValueError: it cannot be opened.
    """
    if source == "-":
        return _frames_of(_opened(sys.stdin.buffer, shown_name(source)), shown_name(source))
    if is_stream(source):
        opened = (lambda: Camera(int(source))) if source.isdigit() else (lambda: Stream(source))
        frames = reconnecting(opened(), opened, name=shown_name(source), on_line=on_line)
        return newest(timed_by_clock(frames))
    reader = open_video(source)
    return map(Moment, reader.seconds.tolist(), reader.read(range(len(reader))))


def newest(moments: Iterable[Moment], *, most_waiting: int = MOST_WAITING) -> Iterator[Moment]:
    """Read ahead in a thread; where frames come faster than they are used, the oldest ones that wait are left out.

    So the network sees what is now, also where it is slower than the camera. A gap is never left out.
    """
    waiting: deque[Moment | Exception | None] = deque()
    changed = threading.Condition()
    is_over = threading.Event()

    def add(item: Moment | Exception | None) -> None:
        with changed:
            if len(waiting) >= most_waiting:
                oldest = waiting.popleft()
                if isinstance(oldest, Moment) and oldest.frame is None:
                    waiting[0] = oldest                                # the gap takes the place of the next frame
            waiting.append(item)
            changed.notify()

    def read() -> None:
        try:
            for moment in moments:
                add(moment)
                if is_over.is_set():
                    return
            add(None)
        except Exception as error:  # told to the one who uses the frames
            add(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: waiting)
                item = waiting.popleft()
            if isinstance(item, Exception):
                raise item
            if item is None:
                return
            yield item
    finally:
        is_over.set()


def timed_by_clock(frames: Iterable[UInt8Array | None], *, clock: Callable[[], float] = time.monotonic
                   ) -> Iterator[Moment]:
    begin = None
    for frame in frames:
        now = clock()
        begin = now if begin is None else begin
        yield Moment(now - begin, frame)


def reconnecting(
    frames: Iterable[UInt8Array], open_again: Callable[[], Iterable[UInt8Array]], *, name: str,
    on_line: Callable[[str], None], sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[UInt8Array | None]:
    """Yield frames without end, and None after each break and before each try to open the source again.

    A break is one sentence to ``on_line``, and so is its end.
    """
    while True:
        reason = f"{name}: it gives no more frames"
        try:
            yield from frames
        except (ValueError, OSError) as error:
            reason = str(error)
        broken_since = clock()
        on_line(f"{reason}; trying to open it again until it is back")
        for seconds in chain(WAITS, repeat(WAITS[-1])):
            yield None
            sleep(seconds)
            try:
                frames = open_again()
                break
            except (ValueError, OSError):
                continue
        on_line(f"{name}: back after {clock() - broken_since:.0f} s")


class Camera:
    """Frames of a camera, (H, W, 3) uint8 RGB, as they come; ``fps`` is what the camera says, 0.0 where it does not.

    Raises:
        ValueError: there is no such camera, or it gives no frame.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it would print every way that it has tried
        try:
            self._capture = cv2.VideoCapture(number)
        finally:
            cv2.utils.logging.setLogLevel(level)
        if not self._capture.isOpened():
            raise ValueError(f"camera {number}: there is none, or another program uses it; try another number, or a "
                             "video file")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))

    def __iter__(self) -> Iterator[UInt8Array]:
        try:
            while True:
                read, frame = self._capture.read()
                if not read:
                    raise ValueError(f"camera {self.number}: it gives no more frames")
                yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
        finally:
            self._capture.release()


class Stream:
    """Frames (H, W, 3) uint8 RGB of a stream by its address, as they come.

    Raises:
        ValueError: nobody answers there, it is no video, or it broke off.
    """

    def __init__(self, address: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.name = shown_name(address)
        options = {"rtsp_transport": "tcp"} if address.lower().startswith("rtsp") else {}
        self._container = _opened(address, self.name, options=options, timeout=timeout_seconds)

    def __iter__(self) -> Iterator[UInt8Array]:
        return (moment.frame for moment in _frames_of(self._container, self.name) if moment.frame is not None)


def _opened(source: Any, name: str, **arguments: Any) -> "av.container.InputContainer":
    try:
        container = av.open(source, **arguments)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"{name}: it cannot be opened as a video ({_reason(error)})") from None
    if not container.streams.video:
        container.close()
        raise ValueError(f"{name}: there is no video in it")
    return container


def _frames_of(container: "av.container.InputContainer", name: str) -> Iterator[Moment]:
    """Yield the frames of a container with the times that it gives them, from 0; it is closed at its end."""
    first, number = None, 0
    try:
        for frame in container.decode(video=0):
            seconds = number / 25 if frame.time is None else frame.time  # raw streams have no times
            first = seconds if first is None else first
            number += 1
            yield Moment(seconds - first, np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"{name}: it broke off ({_reason(error)})") from None
    finally:
        container.close()


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]
