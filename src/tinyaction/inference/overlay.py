"""Videos and frames with something drawn on them: labels, heat, timelines. Text and sheets are in ``sheets``."""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tinyaction.inference.timeline import Segment, clock
from tinyaction.results.sheets import GREY, INK, LINE, MARGIN, PAPER, write
from tinyaction.video import UInt8Array

# Of classes, in the order in which they come. Source: Okabe and Ito 2008, for people with any kind of colour vision.
COLOURS = [(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (120, 120, 120)]
MOST_ROWS = 8  # classes of a timeline


class VideoFile:
    """Writes an MP4 that is either whole or not there.

        with VideoFile("out.mp4", fps=25) as video:
            video.write(frame)                # (H, W, 3) uint8 RGB, all of one size

    With PyAV (the extra ``av``) it is H.264, which every browser and player shows. Without it OpenCV writes VP9, which
    Chrome, Edge, Firefox and VLC show, QuickTime not; and where that is missing MPEG-4 part 2, which VLC shows and
    browsers do not. ``players`` says which it was. An odd last row or column is left out: the codecs want even sizes.

    Raises:
        ValueError: the name does not end in .mp4, or the frames differ in size.
        OSError: it cannot be written there.
    """

    def __init__(self, path: str | Path, *, fps: float) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"{path}: a video that is written must end in .mp4")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"{self.path.parent}: no such folder to write {self.path.name} into")
        self.fps = fps
        self.players = ""
        self._part = self.path.with_name(f".{self.path.stem}.part.mp4")
        self._writer: _PyAVWriter | _OpenCVWriter | None = None
        self._shape: tuple[int, ...] = ()

    def write(self, frame: UInt8Array) -> None:
        if self._writer is None:
            self._shape = frame.shape
            if min(frame.shape[:2]) < 2:
                raise ValueError(f"{self.path}: frames are {frame.shape}; a video needs at least 2x2 pixels")
            self._writer = self._open(frame.shape[1] // 2 * 2, frame.shape[0] // 2 * 2)
        if frame.shape != self._shape:
            raise ValueError(f"{self.path}: a frame is {frame.shape}, those before are {self._shape}")
        self._writer.write(np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]))

    def _open(self, width: int, height: int) -> "_PyAVWriter | _OpenCVWriter":
        try:
            import av

            av.codec.Codec("libx264", "w")
        except (ImportError, ValueError):  # not installed, or built without the encoder
            pass
        else:
            self.players = "H.264, for every browser and player"
            return _PyAVWriter(self._part, width, height, self.fps)
        install = 'H.264, for all players, comes with: pip install "tinyaction[av]"'
        for fourcc, players in (("vp09", f"VP9, for Chrome, Edge, Firefox and VLC; {install}"),
                                ("mp4v", f"MPEG-4 part 2, for VLC, not for browsers; {install}")):
            writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter.fourcc(*fourcc), self.fps, (width, height))
            if writer.isOpened():
                self.players = players
                return _OpenCVWriter(writer)
        raise OSError(f"{self.path}: no video can be written here; {install}")

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
                if kind is None:
                    self._part.replace(self.path)
        finally:
            self._part.unlink(missing_ok=True)
        if kind is None and self._writer is None:
            raise ValueError(f"{self.path}: no frames to write")


class _OpenCVWriter:
    def __init__(self, writer: cv2.VideoWriter) -> None:
        self.writer = writer

    def write(self, frame: UInt8Array) -> None:
        self.writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        self.writer.release()


class _PyAVWriter:
    def __init__(self, path: Path, width: int, height: int, fps: float) -> None:
        import av

        self.container: Any = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self.stream: Any = self.container.add_stream("libx264", rate=Fraction(fps).limit_denominator(10_000))
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
        self.stream.options = {"preset": "veryfast", "crf": "21"}

    def write(self, frame: UInt8Array) -> None:
        import av

        self.container.mux(self.stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def close(self) -> None:
        self.container.mux(self.stream.encode())
        self.container.close()


def with_label(frame: UInt8Array, text: str) -> UInt8Array:
    """A copy of a frame (H, W, 3) with a line of white text on a dark strip along its lower edge."""
    height = max(16, frame.shape[0] // 12)
    strip = _strip(text, frame.shape[1], min(height, frame.shape[0]))  # (h, W, 3)
    drawn = frame.copy()
    below = drawn[-strip.shape[0]:]
    below[:] = np.maximum(below // 3, strip)
    return drawn


@lru_cache(maxsize=64)
def _strip(text: str, width: int, height: int) -> UInt8Array:
    """White text on black, (height, width, 3)."""
    picture = Image.new("RGB", (width, height))
    write(ImageDraw.Draw(picture), (height // 4, height // 10), text, size=max(9, height * 2 // 3),
          end=width - height // 4, colour=(255, 255, 255))
    return np.asarray(picture)


def with_heat(frame: UInt8Array, heat: npt.NDArray[np.floating]) -> UInt8Array:
    """A frame (H, W, 3) with heat (H, W), 0..1, over it: from nothing over blue, green and yellow to red."""
    colours = cv2.applyColorMap((255 * np.clip(heat, 0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    share = 0.65 * np.sqrt(np.clip(heat, 0, 1))[..., None]             # cold places stay as they are
    return np.asarray(frame * (1 - share) + colours * share + 0.5).astype(np.uint8)


def enlarged(frame: UInt8Array, side: int) -> UInt8Array:
    """A frame whose longer side is at least ``side`` pixels, smoothly enlarged by a whole factor."""
    factor = -(-side // max(frame.shape[:2]))
    if factor <= 1:
        return frame
    size = (frame.shape[1] * factor, frame.shape[0] * factor)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def draw_timeline(
    title: str, segments: Sequence[Segment], scores: npt.NDArray[np.floating], class_names: Sequence[str], *,
    width: int = 1000,
) -> UInt8Array:
    """A picture (H, width, 3) RGB: the segments in their colours above, below a row a class with its score over time.

    ``scores`` (S, K): of windows that are spread evenly from the first segment's start to the last one's end. Where
    there are many classes, the :data:`MOST_ROWS` that score highest somewhere are drawn.
    """
    peaks = scores.max(axis=0)
    shown = sorted(np.argsort(-peaks, kind="stable")[:MOST_ROWS].tolist())
    colours = {class_names[label]: COLOURS[min(place, len(COLOURS) - 1)] for place, label in enumerate(shown)}
    left, right, row = 190, width - 3 * MARGIN, 30
    axis = MARGIN + LINE + 2 * row + row * len(shown) + MARGIN
    canvas = np.full((axis + 2 * LINE, width, 3), PAPER, np.uint8)
    start, end = segments[0].start_seconds, segments[-1].end_seconds
    pixels = (right - left) / (end - start)

    def x(seconds: float) -> int:
        return left + round((seconds - start) * pixels)

    top = MARGIN + LINE
    for segment in segments:
        colour = colours.get(segment.label, COLOURS[-1])
        canvas[top:top + row, x(segment.start_seconds):x(segment.end_seconds)] = colour
    for place, label in enumerate(shown):
        above = top + 2 * row - 8 + place * row
        strength = cv2.resize(scores[:, label].astype(np.float32)[None], (right - left, 1),
                              interpolation=cv2.INTER_AREA if len(scores) > right - left else cv2.INTER_NEAREST)[0]
        strength = np.clip(strength, 0, 1)[None, :, None]
        full, none = np.array(colours[class_names[label]]), np.array((242, 242, 242))
        canvas[above:above + row - 4, left:right] = none * (1 - strength) + full * strength

    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    write(pen, (MARGIN, MARGIN - 4), title, size=15, end=width - MARGIN)
    write(pen, (MARGIN, top + 6), "highest score", size=13, end=left - 8, colour=GREY)
    for segment in segments:
        room = x(segment.end_seconds) - 4
        if room - x(segment.start_seconds) > 60:
            write(pen, (x(segment.start_seconds) + 5, top + 6), segment.label, size=14, end=room,
                  colour=(255, 255, 255))
    for place, label in enumerate(shown):
        write(pen, (MARGIN, top + 2 * row - 4 + place * row), class_names[label], size=13, end=left - 8, colour=INK)
    step = _tick_seconds(end - start)
    for number in range(int((end - start) / step + 1e-9) + 1):
        at = x(start + number * step)
        pen.line([(at, axis - 8), (at, axis - 2)], fill=GREY)
        write(pen, (max(left, at - 18), axis), clock(start + number * step), size=12, end=width, colour=GREY)
    return np.asarray(picture)


def _tick_seconds(seconds: float) -> float:
    """The step of a time axis: about eight ticks."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)
    return next((step for step in steps if seconds / step <= 9), seconds)
