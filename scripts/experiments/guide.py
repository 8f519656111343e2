"""An evaluation item the way of MMAction2's 20-minute guide, beside the same item here: pixels, speed, peak memory.

    python scripts/experiments/guide.py clip.mp4 another.mp4

16 frames x 5 clips, resized to a short side of 256, the centre square of 224. The guide's way needs decord. Speeds are
medians of processor time, in turn; each memory is measured in a process of its own (Linux).
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

import tinyaction as ta
from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.video import UInt8Array

Result = TypeVar("Result")
CLIP_LEN, NUM_CLIPS, SHORT_SIDE, CROP = 16, 5, 256, 224


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="guide.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", metavar="VIDEO")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (default 5)")
    arguments = parser.parse_args(argv)
    print(f"{'':<24}{'clips/s':^20}{'times':>7}{'peak MB':^20}{'equal':>8}")
    print(f"{'video':<24}{'guide':>10}{'here':>10}{'faster':>7}{'guide':>10}{'here':>10}{'pixels':>8}")
    for video in arguments.videos:
        each = compare(video, repeats=arguments.repeats)
        speeds = "".join(f"{NUM_CLIPS / seconds:>10.1f}" for seconds in (each.guide_seconds, each.our_seconds))
        peaks = "".join(f"{peak / 1e6:>10.1f}" for peak in (each.guide_bytes, each.our_bytes))
        print(f"{Path(video).name[:23]:<24}{speeds}{each.guide_seconds / each.our_seconds:>7.1f}{peaks}"
              f"{'yes' if each.equal_pixels else 'NO':>8}", flush=True)
    return 0


def guide_item(video: str) -> UInt8Array:
    """The guide's evaluation pipeline, restated plainly: (V, 3, T, CROP, CROP).

    Its frames are decoded in the order in which they were drawn, clip after clip, so a decoder goes back to the start
    for each; all of them are held at full size; then they are resized.

    Source: MMAction2's 20-minute guide as of version 1.2.0 (VideoInit, VideoSample, VideoDecode, VideoResize,
    VideoCrop, VideoFormat), with an even crop size.
    """
    import decord

    reader = decord.VideoReader(video, num_threads=1)
    rng = np.random.RandomState(42)
    interval = len(reader) // CLIP_LEN
    drawn = [np.arange(CLIP_LEN) * interval + rng.randint(interval, size=CLIP_LEN) for _ in range(NUM_CLIPS)]
    frames = list(reader.get_batch(np.concatenate(drawn)).asnumpy())
    height, width = frames[0].shape[:2]
    scale = SHORT_SIDE / min(height, width)
    size = int(width * scale + 0.5), int(height * scale + 0.5)
    frames = [cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in frames]
    left, top = size[0] // 2 - CROP // 2, size[1] // 2 - CROP // 2
    frames = [frame[top : top + CROP, left : left + CROP] for frame in frames]
    clips = np.stack(frames).reshape((NUM_CLIPS, CLIP_LEN, CROP, CROP, 3))
    return np.ascontiguousarray(clips.transpose(0, 4, 1, 2, 3))


def our_item(video: str) -> UInt8Array:
    """The same with the transforms of this package."""
    pipeline = ta.Compose([ta.VideoInit(), ta.VideoSample(CLIP_LEN, NUM_CLIPS, test_mode=True), ta.VideoDecode(),
                           ta.VideoResize(SHORT_SIDE), ta.VideoCrop(CROP), ta.VideoFormat(), ta.VideoPack()])
    return pipeline({"filename": video})["inputs"].numpy()


MAKERS = {"guide": guide_item, "here": our_item}


@dataclass
class Comparison:
    """One video, evaluated the guide's way and here."""

    equal_pixels: bool
    guide_seconds: float
    our_seconds: float
    guide_bytes: int
    our_bytes: int


def compare(video: str, *, repeats: int) -> Comparison:
    equal, guide_seconds, our_seconds = in_fresh_process(both_ways, video, repeats)
    guide_bytes, our_bytes = (in_fresh_process(peak_bytes, name, video) for name in MAKERS)
    return Comparison(equal, guide_seconds, our_seconds, guide_bytes, our_bytes)


def both_ways(video: str, repeats: int) -> tuple[bool, float, float]:
    """Whether the pixels are equal, and the seconds of either way."""
    cv2.setNumThreads(0)                                               # as in a worker of the loader
    equal = np.array_equal(guide_item(video), our_item(video))
    seconds: dict[str, list[float]] = {name: [] for name in MAKERS}
    for _ in range(repeats):
        for name, make in MAKERS.items():
            start = time.process_time()
            make(video)
            seconds[name].append(time.process_time() - start)
    return equal, statistics.median(seconds["guide"]), statistics.median(seconds["here"])


def peak_bytes(name: str, video: str) -> int:
    """The most memory of this process that one item takes above what was there. The mark of the peak only rises."""
    import decord  # noqa: F401  (what is loaded once is not the item's)

    cv2.setNumThreads(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    MAKERS[name](video)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def in_fresh_process(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function of this file in a process of its own: memory used before would hide what is used now."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


if __name__ == "__main__":
    raise SystemExit(main())
