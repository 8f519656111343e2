"""Damaged copies of clips of many codecs and containers: each is read with its frames in their places, or is named.

A decoder hides damage that it can see, and one flipped bit in the data of HEVC or VP9 no decoder sees. So a copy may
come with other pixels; it may not crash, hang, raise anything but VideoError, or, without a word, have another number
of frames or show a frame in the place of another. A flipped bit in a time moves a frame in time, one in an edit list
hides frames, and nothing in the file says that it was otherwise; such copies are counted and must stay rare.
"""

import random
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import X264, numbered_frames, write_by_pyav

from tinyaction.prepare.check import check_files
from tinyaction.video import UInt8Array, VideoError, open_video

NUM_FRAMES = 60
H264, HEVC, VPX = {"x264-params": f"{X264}:bframes=3"}, {"x265-params": "keyint=24:log-level=none"}, {"g": "24"}
FRAGMENTS = {"container_options": {"movflags": "frag_keyframe+empty_moov"}}
SOURCES = [  # container, encoder, its options
    ("mp4", "libx264", H264), ("mov", "libx264", H264), ("mkv", "libx264", H264), ("avi", "libx264", H264),
    ("ts", "libx264", H264), ("flv", "libx264", H264), ("fragments.mp4", "libx264", H264 | FRAGMENTS),
    ("hevc.mp4", "libx265", HEVC), ("hevc.mkv", "libx265", HEVC), ("hevc.ts", "libx265", HEVC),
    ("vp8.webm", "libvpx", VPX), ("vp9.webm", "libvpx-vp9", VPX), ("vp9.mp4", "libvpx-vp9", VPX),
    ("av1.mp4", "libsvtav1", {"g": "24", "preset": "12"}), ("av1.webm", "libsvtav1", {"g": "24", "preset": "12"}),
    ("mpeg4.mp4", "mpeg4", {"g": "12", "bf": "2"}), ("mpeg4.avi", "mpeg4", {"g": "12"}),
    ("mpeg2.ts", "mpeg2video", {"g": "12", "bf": "2"}), ("mjpeg.avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
    ("mjpeg.mov", "mjpeg", {"pix_fmt": "yuvj420p"}), ("ffv1.mkv", "ffv1", {"g": "12"}), ("ffv1.avi", "ffv1", {}),
]


def cut(data, rng):
    del data[rng.randrange(1, len(data)) :]


def flip_bits(data, rng, *, num_bits):
    for _ in range(num_bits):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def some_range(data, rng):
    length = rng.randrange(len(data) // 100, len(data) // 4)
    start = rng.randrange(len(data) - length)
    return slice(start, start + length)


def zero_range(data, rng):
    place = some_range(data, rng)
    data[place] = bytes(place.stop - place.start)


def repeat_range(data, rng):
    place = some_range(data, rng)
    data[place.start : place.start] = data[place]


def overwrite_header(data, rng):
    for _ in range(8):
        data[rng.randrange(min(len(data), 512))] = rng.randrange(256)


KINDS = {
    "cut": cut, "20 bits flipped": partial(flip_bits, num_bits=20), "1 bit flipped": partial(flip_bits, num_bits=1),
    "range of zeros": zero_range, "range repeated": repeat_range, "header damaged": overwrite_header,
}
ALLOWED = ("as it was", "other pixels, decoder complains", "other pixels, nobody can tell")
RARE = "other times or edits, nobody can tell"  # at most 1 in 50


def outcome(path: Path, source: list[UInt8Array], seconds: np.ndarray) -> str:
    """What became of a copy that a process of its own has read without a crash."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as log:
            reader = open_video(path)
            frames = list(reader.read(range(len(reader))))
    except VideoError as error:
        return f"named: {error.kind}"
    finally:
        av.logging.set_level(level)
    if len(frames) < len(source) == len(reader._table.identities):
        return RARE  # all packets are there, some are hidden
    if len(frames) != len(source):
        return f"{len(frames)} frames"
    if np.abs(reader.seconds - seconds).max() > 0.002:
        return RARE
    if {frame.shape for frame in frames} != {source[0].shape}:
        return "another size"
    distances = [np.abs(frame.astype(int) - original).mean() for frame, original in zip(frames, source, strict=True)]
    for place in np.flatnonzero(np.array(distances) > 8):
        if min(np.abs(frames[place].astype(int) - original).mean() for original in source) < 1:
            return f"frame {place} shows another"
    if not any(distances):
        return "as it was"
    return "other pixels, decoder complains" if log else "other pixels, nobody can tell"


def check_copies(folder: Path, num_copies: int, seed: int) -> None:
    rng = random.Random(seed)
    sources = []
    for suffix, codec, options in SOURCES:
        with suppress(pytest.skip.Exception):  # an encoder that this PyAV does not have
            sources.append(write_by_pyav(folder / f"source.{suffix}", numbered_frames(NUM_FRAMES), codec, **options))
    copies: dict[Path, tuple[str, Path]] = {}
    for number in range(num_copies):
        source = sources[number % len(sources)]
        kind = list(KINDS)[(number // len(sources) + number) % len(KINDS)]
        data = bytearray(source.read_bytes())
        KINDS[kind](data, rng)
        path = folder / f"copy {number}.{source.name.removeprefix('source.')}"
        path.write_bytes(data)
        copies[path] = kind, source
    checked = {Path(result.path): result for result in check_files([str(path) for path in copies], num_workers=2,
                                                                   video_timeout=20)}
    assert checked.keys() == copies.keys()
    assert [(path.name, result.problem) for path, result in checked.items()
            if result.kind in ("crashes", "hangs")] == []
    truth = {source: ([*reader.read(range(NUM_FRAMES))], reader.seconds) for source in sources
             if (reader := open_video(source))}
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    wrong = []
    for path, (kind, source) in copies.items():
        what = outcome(path, *truth[source])
        counts[kind][what] += 1
        if what not in (*ALLOWED, RARE) and not what.startswith("named: "):
            wrong.append((path.name, kind, what))
    for kind, found in counts.items():
        print(f"\n{kind:<16}" + ", ".join(f"{what} {number}" for what, number in found.most_common()), end="")
    print()
    assert wrong == []
    assert sum(found[RARE] for found in counts.values()) <= max(1, num_copies // 50)


def test_sixty_damaged_copies(tmp_path):
    check_copies(tmp_path, 60, seed=4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 6])
def test_three_hundred_damaged_copies(seed, tmp_path):
    check_copies(tmp_path, 300, seed)
