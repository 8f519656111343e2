"""Writes a video file frame by frame: :class:`VideoFile`, or all frames at once: :func:`write_video`."""

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.stream import VideoStream

from tinyaction.files import part_of, put_in_place
from tinyaction.video.base import UInt8Array

# How an encoder stores pixels; all others store yuv420p, which players expect.
PIXEL_FORMATS = {"ffv1": "bgr0", "png": "rgba", "mjpeg": "yuvj420p"}
QUALITY = {
    "libx264": {"preset": "veryfast", "crf": "21"},
    "mpeg4": {"flags": "+qscale", "global_quality": str(3 * 118)},  # 118 units of lambda are one step of the quantizer
    "mjpeg": {"flags": "+qscale", "global_quality": str(3 * 118)},
}
PLAYERS = {"libx264": "H.264, for every browser and player", "mpeg4": "MPEG-4 part 2, for VLC, not for browsers"}


class VideoFile:
    """Writes a video that is either whole or not there.

        with VideoFile("out.mp4", fps=25) as video:
            video.write(frame)                # (H, W, 3) uint8 RGB, all of one size

    The file is written beside its place and renamed at the end. An odd last row or column is left out, since most
    codecs share colour among 2 x 2 pixels. The same frames give the same bytes on every machine: one thread encodes.

    Args:
        codec: FFmpeg's name of an encoder, such as "ffv1" (lossless, in .avi or .mkv), "mpeg4" or "mjpeg". Default is
            H.264 where this build of PyAV has an encoder for it, else "mpeg4"; ``players`` says who shows it.
        replace: whether a file that exists already may be replaced.

    Raises:
        FileExistsError: the file exists, and ``replace`` is not set.
        ValueError: the encoder is not known, or a frame is of another kind or size.
        OSError: the file cannot be written there, or its container cannot hold the codec.
    """

    def __init__(self, path: str | Path, *, fps: float, codec: str = "", replace: bool = False) -> None:
        self.path = Path(path)
        self.fps = fps
        self.codec = _known_encoder(codec) if codec else default_encoder()
        self.num_frames = 0
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"{self.path.parent}: no such folder to write {self.path.name} into")
        if self.path.exists() and not replace:
            raise FileExistsError(f"{self.path}: exists already; give another name, or remove it first")
        self._part = part_of(self.path, suffix=self.path.suffix)
        self._container: av.container.OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._shape: tuple[int, ...] = ()

    @property
    def players(self) -> str:
        """Which programs show the file."""
        return PLAYERS.get(self.codec, self.codec)

    def write(self, frame: UInt8Array) -> None:
        """Append a frame (H, W, 3) uint8 RGB."""
        expected = self._shape or "(height, width, 3), at least 2x2"
        good = frame.ndim == 3 and frame.shape[2] == 3 and min(frame.shape[:2]) >= 2 and frame.dtype == np.uint8
        if not good or self._shape not in ((), frame.shape):
            raise ValueError(f"{self.path}: frame {self.num_frames} is {frame.dtype} {frame.shape}; it must be uint8 "
                             f"{expected}")
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        if self._container is None or self._stream is None:
            self._shape = frame.shape
            self._container, self._stream = self._open(width, height)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(picture))
        self.num_frames += 1

    def _open(self, width: int, height: int) -> tuple[av.container.OutputContainer, VideoStream]:
        faststart = {"movflags": "faststart"} if self.path.suffix.lower() in (".mp4", ".mov") else {}
        try:
            container = av.open(str(self._part), "w", options=faststart)
            stream = container.add_stream(self.codec, rate=Fraction(self.fps).limit_denominator(10_000))
        except (av.FFmpegError, ValueError) as error:
            raise OSError(f"{self.path}: a {self.codec} video cannot be written here ({error})") from None
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = width, height
        stream.pix_fmt = PIXEL_FORMATS.get(self.codec, "yuv420p")
        stream.options = dict(QUALITY.get(self.codec, {}))
        stream.codec_context.thread_count = 1
        return container, stream

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if self._container is not None and self._stream is not None:
                if kind is None:
                    self._container.mux(self._stream.encode())
                self._container.close()
                if kind is None:
                    put_in_place(self._part, self.path)
        finally:
            self._part.unlink(missing_ok=True)
        if kind is None and self.num_frames == 0:
            raise ValueError(f"{self.path}: no frames to write")


def write_video(
    path: str | os.PathLike[str], frames: Iterable[UInt8Array], *, fps: float, codec: str = "", replace: bool = False
) -> int:
    """Write frames (H, W, 3) uint8 RGB to a video file, and return how many there were. See :class:`VideoFile`."""
    with VideoFile(Path(path), fps=fps, codec=codec, replace=replace) as video:
        for frame in frames:
            video.write(frame)
    return video.num_frames


def default_encoder() -> str:
    """H.264 where PyAV can encode it, else MPEG-4 part 2, which FFmpeg always can."""
    return "libx264" if "libx264" in av.codecs_available else "mpeg4"


def _known_encoder(name: str) -> str:
    try:
        return av.codec.Codec(name, "w").name
    except ValueError:
        raise ValueError(f"codec is {name!r}; PyAV has no encoder of this name here") from None
