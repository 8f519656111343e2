"""Writes a video file frame by frame: :class:`VideoFile`."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from tinyaction.files import part_of, put_in_place
from tinyaction.video.base import UInt8Array


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
        self._part = part_of(self.path, suffix=".mp4")
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
                    put_in_place(self._part, self.path)
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
