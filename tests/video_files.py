"""Video files that tests write with PyAV, each frame known by its content, and what plain PyAV decodes of a file."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tinyaction.video import UInt8Array

HEIGHT, WIDTH, FPS = 64, 96, 25
X264 = "keyint=24:min-keyint=24:scenecut=0"


def numbered_frames(num_frames: int = 60) -> Iterator[UInt8Array]:
    """(H, W, 3), above the number in black and white bars, one for each of 6 binary digits, below noise that moves."""
    noise = np.random.RandomState(0).randint(0, 255, (HEIGHT // 8, WIDTH // 4, 3)).repeat(4, 0).repeat(4, 1)
    for number in range(num_frames):
        bars = np.kron(255 * (number >> np.arange(6) & 1), np.ones(WIDTH // 6))  # (W,)
        above = np.broadcast_to(bars[None, :, None], (HEIGHT // 2, WIDTH, 3))
        yield np.concatenate([above, np.roll(noise, (number, 3 * number), (0, 1))]).astype(np.uint8)


def numbers(frames: Iterable[UInt8Array]) -> list[int]:
    """The number that each frame shows."""
    return [int((frame[16, 8::16].mean(-1) > 127) @ (1 << np.arange(6))) for frame in frames]


def write_by_pyav(path: Path, frames: Iterable[UInt8Array], codec: str, *, pix_fmt: str = "yuv420p",
                  container_options: dict[str, str] | None = None, **options: str) -> Path:
    """Write frames (H, W, 3) RGB; the test is skipped where this PyAV cannot."""
    try:
        with av.open(str(path), "w", options=container_options or {}) as container:
            stream: Any = container.add_stream(codec, rate=FPS, options=options)
            for number, pixels in enumerate(frames):
                if not number:
                    stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], pix_fmt
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                container.mux(stream.encode(frame.reformat(format=pix_fmt)))
            container.mux(stream.encode())
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"this PyAV cannot write {path.name} with {codec}: {error}")
    return path


def write_h264(path: Path, *, options: str = f"{X264}:bframes=3", num_frames: int = 60, **settings: Any) -> Path:
    return write_by_pyav(path, numbered_frames(num_frames), "libx264", **{"x264-params": options}, **settings)


def cut_by_copy(source: Path, target: Path, *, first_key: int, hide_before: int) -> Path:
    """Copy packets from the key frame ``first_key`` on; frames before ``hide_before`` get negative times: hidden."""
    with av.open(str(source)) as old, av.open(str(target), "w", options={"avoid_negative_ts": "disabled"}) as new:
        stream = old.streams.video[0]
        copied = new.add_stream_from_template(stream)
        num_keys = 0
        step = round(1 / (FPS * stream.time_base))
        for packet in old.demux(stream):
            num_keys += packet.is_keyframe
            if num_keys > first_key and packet.size:
                packet.pts -= hide_before * step
                packet.dts -= hide_before * step
                packet.stream = copied
                new.mux(packet)
    return target


def decode_plainly(path: Path) -> list[UInt8Array]:
    """All frames (H, W, 3) RGB in turn, by PyAV alone; what fails to decode is passed over."""
    frames: list[UInt8Array] = []
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.best("video")):
            with suppress(av.FFmpegError):
                frames += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
    return frames


def are_equal(frames: Iterable[UInt8Array], others: Sequence[UInt8Array]) -> bool:
    """As many, and pixel by pixel the same."""
    return all(np.array_equal(frame, other) for frame, other in zip(frames, others, strict=True))
