"""Timelines that say unknown: a network over time that never saw a class, on videos in which it happens.

    python scripts/experiments/unknown_timeline.py --weights mobilenet_v2_imagenet_features.pt

Each class in turn: 24 generated streams without its actions train (8 more choose epoch and threshold), and 24 streams
of other seeds, with all classes, are tested. Each true action is what is told over most of its time.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import tinyaction as ta
from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.data.long_videos import read_long_videos
from tinyaction.data.segments import Segment as TrueSegment
from tinyaction.data.segments import write_segments
from tinyaction.models.unknown import UNKNOWN
from tinyaction.prepare.streams import STREAM_CLASSES, Stream, make_streams
from tinyaction.results.timeline import Timeline, TimelinePredictor, true_segments
from tinyaction.results.timeline_metrics import Segment, timeline_metrics
from tinyaction.video.writer import write_video

SECONDS = 40.0
NOTHING = "nothing"


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(arguments.work or temporary)
        tests = [work / f"streams-{seed}" for seed in arguments.test_seeds]
        for folder, seed in zip(tests, arguments.test_seeds, strict=True):
            if not folder.exists():
                make_streams(folder, num_train=1, num_val=8, seed=seed)
        for name in arguments.classes:
            folder = make_streams_without(name, work / f"without-{name.replace(' ', '_')}", seed=arguments.seed)
            result = ta.train(ta.RunConfig(
                str(folder), task="timeline", model=arguments.model, weights=arguments.weights, size=96, stride=0.125,
                flip=0, device="cpu", unknown_rate=arguments.rate, out=str(work / f"run-{folder.name}")))
            show(name, [(read, true) for test in tests for read, true in timelines(result.checkpoint, test)])
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="unknown_timeline.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="of --model")
    parser.add_argument("--model", default="tsn-mobilenet_v2")
    parser.add_argument("--classes", nargs="+", choices=STREAM_CLASSES, default=STREAM_CLASSES, help="to leave out")
    parser.add_argument("--rate", type=float, default=0.1, help="false alarms that are asked for (default 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of the streams to train on (default 0)")
    parser.add_argument("--test-seeds", type=int, nargs="+", default=[11, 12, 13], help="of those to test on")
    parser.add_argument("--work", default="", help="folder to keep videos and runs in; default a temporary one")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    return parser.parse_args(argv)


def make_streams_without(name: str, folder: Path, *, seed: int) -> Path:
    """The training and validation streams of a seed, less the actions of a class: nothing is there instead."""
    if folder.exists():
        return folder
    rows: list[TrueSegment] = []
    for split_index, (split, num_videos) in enumerate((("train", 24), ("val", 8))):
        (folder / split).mkdir(parents=True)
        for number in range(num_videos):
            stream = Stream.draw(np.random.default_rng((seed, split_index, number)), SECONDS, overlaps=False)
            stream = replace(stream, actors=[actor for actor in stream.actors if actor.label != name])
            path = f"{split}/stream{number:04d}.mp4"
            write_video(folder / path, stream.frames(), fps=stream.fps)
            rows += stream.segments(path, split)
    write_segments(folder / "segments.csv", rows)
    return folder


def timelines(checkpoint: Path, folder: Path) -> list[tuple[Timeline, list[Segment]]]:
    """What is told, and what is true."""
    predictor = TimelinePredictor(checkpoint, device="cpu")
    videos = read_long_videos(folder / "segments.csv")["val"]
    return [(predictor(video.path), true_segments(video)) for video in videos]


def told_over(true: Segment, told: Sequence[Segment]) -> str:
    """The label that covers most of a true segment; nothing where none covers half of it."""
    seconds: Counter[str] = Counter()
    for one in told:
        seconds[one.label] += max(0.0, min(one.end_seconds, true.end_seconds)  # type: ignore[assignment]
                                  - max(one.start_seconds, true.start_seconds))
    label, longest = max(seconds.items(), key=lambda item: item[1], default=("", 0.0))
    return label if longest >= (true.end_seconds - true.start_seconds) / 2 else NOTHING


def show(name: str, found: Sequence[tuple[Timeline, list[Segment]]]) -> None:
    """Each way with and without unknown: its own actions, the others, and the figures of the others."""
    print(f"\n{name} left out of training, {len(found)} videos", flush=True)
    for title, is_told in (("no unknown", False), ("unknown", True)):
        read = [timeline if is_told else replace(timeline, unknown=None) for timeline, _ in found]
        told = [timeline.segments() for timeline in read]
        pairs = [(one, told_over(one, segments)) for segments, (_, true) in zip(told, found, strict=True)
                 for one in true]
        own = Counter(label if label in (UNKNOWN, NOTHING) else "another class" for one, label in pairs
                      if one.label == name)
        others = Counter("right" if label == one.label else label if label in (UNKNOWN, NOTHING) else "another class"
                         for one, label in pairs if one.label != name)
        metrics = timeline_metrics([timeline.actions() for timeline in read],
                                   [[one for one in true if one.label != name] for _, true in found],
                                   [timeline.duration for timeline in read])
        print(f"  {title:<11} its actions: {dict(sorted(own.items()))}; the others: {dict(sorted(others.items()))}; "
              f"edit {metrics.edit:.3f}, F1@50 {metrics.f1[0.5]:.3f}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
