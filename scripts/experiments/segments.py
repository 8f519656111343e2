"""What segments of long videos cost in training, beside the same clips cut out into files of their own.

    python scripts/experiments/segments.py

Generated videos of an hour, segments of 2 to 6 seconds at random places, and each segment cut out into a file. It
times epochs of the loader without a network, in processor time of one process, segments and files in turn: from the
videos, and from stores of them. The first epoch opens each long video for the first time.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.data.annotations import VideoList, find_data
from tinyaction.data.dataset import VideoDataset, build_dataloader
from tinyaction.data.pipelines import train_pipeline
from tinyaction.data.segments import Segment, write_segments
from tinyaction.prepare.store import fill_store, plan_store
from tinyaction.prepare.stored_file import StoreSettings
from tinyaction.video import UInt8Array, open_segment
from tinyaction.video.writer import write_video


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.data or temporary)
        segments = make_segments(folder / "long", arguments)
        cut_out(folder, segments, arguments.fps)
        print(f"{len(segments)} segments in {arguments.num_videos} videos of {arguments.minutes:g} minutes, "
              f"{arguments.side}x{arguments.side} at {arguments.fps} frames a second; {arguments.clip_len} frames of "
              f"{arguments.size} pixels each")
        print(f"{'':<8}{'segments':>22}{'cut files':>22}{'ratio':>18}\n"
              f"{'':<8}{'first s  later s':>22}{'first s  later s':>22}{'first    later':>18}")
        for name in ("videos", "jpeg", "raw"):
            lists = [folder / "long", folder / "cut"] if name == "videos" else [
                stored(folder / kind, folder / f"{kind}-{name}", name, arguments.side) for kind in ("long", "cut")]
            long, cut = epoch_seconds([find_data(path).train for path in lists], arguments)
            later = median(a / b for a, b in zip(long[1:], cut[1:], strict=True))
            print(f"{name:<8}{long[0]:>12.2f}{median(long[1:]):>10.2f}{cut[0]:>12.2f}{median(cut[1:]):>10.2f}"
                  f"{long[0] / cut[0]:>10.2f}{later:>8.2f}", flush=True)
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="segments.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="a new folder to keep the videos in; default none")
    parser.add_argument("--num-videos", type=int, default=4, help="(default 4)")
    parser.add_argument("--minutes", type=float, default=60, help="of a video (default 60)")
    parser.add_argument("--num-segments", type=int, default=1000, help="in all (default 1000)")
    parser.add_argument("--side", type=int, default=64, help="pixels of a video (default 64)")
    parser.add_argument("--fps", type=int, default=10, help="frames a second (default 10)")
    parser.add_argument("--clip-len", type=int, default=8, help="frames of an item (default 8)")
    parser.add_argument("--size", type=int, default=56, help="pixels of an item (default 56)")
    parser.add_argument("--epochs", type=int, default=6, help="the first among them (default 6)")
    return parser.parse_args(argv)


def make_segments(folder: Path, arguments: argparse.Namespace) -> list[Segment]:
    """Write the long videos and their list, and a short one for validation, which is not timed."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.RandomState(0)
    segments = []
    per_video = arguments.num_segments // arguments.num_videos
    num_frames = round(60 * arguments.minutes * arguments.fps)
    for video in range(arguments.num_videos + 1):                      # the last is for validation
        name, split = f"{video}.mp4", "train" if video < arguments.num_videos else "val"
        write_video(folder / name, frames_of(num_frames if split == "train" else 100, arguments.side, seed=video),
                    fps=arguments.fps)
        if split == "val":
            segments += [Segment(name, place, place + 2, str(place // 2), split) for place in (0, 2)]
            continue
        part = 60 * arguments.minutes / per_video                      # each has its own part: none overlap
        for place in range(per_video):
            seconds = rng.uniform(2, min(6, part))
            start = place * part + rng.uniform(0, part - seconds)
            segments.append(Segment(name, start, start + seconds, str(place % 2), split))
    write_segments(folder / "list.csv", segments)
    return segments


def frames_of(num_frames: int, side: int, *, seed: int) -> Iterator[UInt8Array]:
    """A bright bar that moves over a background with some noise."""
    rng = np.random.RandomState(seed)
    background = rng.randint(0, 120, (side, side, 3)).astype(np.uint8)
    for number in range(num_frames):
        frame = np.roll(background, number // 7, axis=1)
        start = number * 3 % (side - side // 8)
        frame[start : start + side // 8] = 230
        yield frame


def cut_out(folder: Path, segments: Sequence[Segment], fps: int) -> None:
    """Write each segment into a file of its own, in the same codec, and their list."""
    (folder / "cut").mkdir(exist_ok=True)
    lines = ["path,label,split\n"]
    for number, segment in enumerate(segments):
        reader = open_segment(folder / "long" / segment.path, segment.start, segment.end)
        write_video(folder / "cut" / f"{number}.mp4", reader.read(range(len(reader))), fps=fps)
        lines.append(f"{number}.mp4,{segment.label},{segment.split}\n")
    (folder / "cut" / "list.csv").write_text("".join(lines))


def stored(source: Path, folder: Path, format: str, side: int) -> Path:
    fill_store(plan_store(source, folder, StoreSettings(format=format, short_side=side)))
    return folder


def epoch_seconds(lists: Sequence[VideoList], arguments: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Processor seconds of each epoch of the two lists, which take turns."""
    loaders = [build_dataloader(VideoDataset(videos, train_pipeline(clip_len=arguments.clip_len, size=arguments.size)),
                                batch_size=8, shuffle=True) for videos in lists]
    seconds: tuple[list[float], list[float]] = ([], [])
    for epoch in range(arguments.epochs):
        for loader, times in zip(loaders, seconds, strict=True):
            loader.set_epoch(epoch)
            start = time.process_time()
            for _ in loader:
                pass
            times.append(time.process_time() - start)
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
