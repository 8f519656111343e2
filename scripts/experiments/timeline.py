"""Timelines of uncut videos beside merged windows on the same frozen features.

    python scripts/experiments/timeline.py --weights mobilenet_v2_imagenet_features.pt --weizmann4 clips/weizmann4

streams: a network over time is trained on generated videos of one seed, and tested on those of others. weizmann4:
clips of persons left out, in random order with background between them (the first frame of the next clip at rest, or
noise); 3 folds of 3 persons, the others train but for one, whose videos choose the epoch.

The windows are those of ``tinyaction predict --window 1 --stride 0.25 --timeline``: a linear classifier on pooled
features of 1 second, background among its classes, whose pooling and strength are chosen on the validation videos;
neighbouring windows of one class are merged.

False events are told in generated half hours in which nothing happens: streams without their actions, of other seeds.
The network is trained once more, with three of them among the training videos and two among the validation videos, on
which the lowest score that is told is chosen as ``--false-events 1`` does; in the others false events are counted.
Last, the network is trained and tested on streams whose actions overlap.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import tinyaction as ta
from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.data.long_videos import BACKGROUND, LongVideo, read_long_videos
from tinyaction.data.segments import Segment as TrueSegment
from tinyaction.data.segments import read_segments, write_segments
from tinyaction.inference.prediction import Prediction, Window
from tinyaction.inference.timeline import merge_windows
from tinyaction.prepare.streams import Stream as Drawn
from tinyaction.prepare.streams import make_streams
from tinyaction.prepare.synthetic import add_noise
from tinyaction.results.features import FeatureCache
from tinyaction.results.timeline import Timeline, TimelinePredictor, reduced, scores_over_time, true_segments
from tinyaction.results.timeline_metrics import Segment, Video, choose_score, timeline_metrics
from tinyaction.training.probe import Linear, ProbeData, poolings_of
from tinyaction.video.writer import write_video

STRIDE = 0.125  # seconds of a step
WINDOW_STEPS, HOP_STEPS = 8, 2  # windows of 1 second every 0.25
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
SHOWN = ("frame_accuracy", "edit", "f1_10", "f1_25", "f1_50", "map_0.5", "map", "boundary_error_seconds")
PER_HOUR = 1.0  # false events that are allowed
CALM_SECONDS, CALM_VIDEOS = 120.0, 15  # half an hour in which nothing happens


@dataclass
class Stream:
    """A video with the features of all its steps, (S, F, 2, 2)."""

    video: LongVideo
    duration: float
    features: torch.Tensor

    @property
    def true(self) -> list[Segment]:
        return true_segments(self.video)


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(arguments.work or temporary)
        if arguments.test_seeds:
            folders = streams_of(arguments, work, "streams")
            calm = [make_calm_videos(work / f"calm-{seed}", seed) for seed in arguments.calm_seeds]
            tests = Tests(folders[1:], "val", calm[5:])
            compare(arguments, "streams", folders[0], tests, flip=0)
            if calm:
                both = add_calm_videos(folders[0], calm[:3], calm[3:5], work / "streams-and-calm")
                compare(arguments, "streams and calm videos", both, tests, flip=0, with_windows=False)
            folders = streams_of(arguments, work, "overlaps", overlaps=True)
            compare(arguments, "streams with overlaps", folders[0], Tests(folders[1:], "val"), flip=0,
                    overlaps=True, with_windows=False)
        if arguments.weizmann4:
            for fold in range(3):
                folder = work / f"weizmann4-{fold}"
                make_concatenations(Path(arguments.weizmann4), folder, fold)
                compare(arguments, f"weizmann4, persons {3 * fold} to {3 * fold + 2} left out", folder,
                        Tests([folder], "test"), flip=0.5)
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="timeline.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="of --model")
    parser.add_argument("--model", default="tsn-mobilenet_v2")
    parser.add_argument("--size", type=int, default=96, help="pixels a side (default 96)")
    parser.add_argument("--weizmann4", default="", help="the folder weizmann4; without: only streams")
    parser.add_argument("--seed", type=int, default=0, help="of the streams to train on (default 0)")
    parser.add_argument("--test-seeds", type=int, nargs="*", default=[11, 12, 13], help="of those to test on")
    parser.add_argument("--train-seeds", type=int, nargs="+", default=[0, 1, 2], help="of the network over time")
    parser.add_argument("--calm-seeds", type=int, nargs="*", default=[40, 44, 45, 41, 42, 51, 52, 53, 54, 55, 56],
                        help="of half hours in which nothing happens: three to train on, two to choose the lowest "
                             "score on; the others are tested")
    parser.add_argument("--work", default="", help="folder to keep videos and features in; default a temporary one")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    return parser.parse_args(argv)


def streams_of(arguments: argparse.Namespace, work: Path, name: str, *, overlaps: bool = False) -> list[Path]:
    """Folders of the seed to train on, and of those to test on; made where they are not there."""
    seeds = [arguments.seed, *arguments.test_seeds]
    folders = [work / f"{name}-{seed}" for seed in seeds]
    for number, (folder, seed) in enumerate(zip(folders, seeds, strict=True)):
        if not folder.exists():
            make_streams(folder, num_train=1 if number else 24, num_val=8, seed=seed, overlaps=overlaps)
    return folders


@dataclass(frozen=True)
class Tests:
    """Folders whose ``split`` is tested, and calm ones in which false events are counted."""

    folders: Sequence[Path]
    split: str
    calm: Sequence[Path] = ()


def compare(arguments: argparse.Namespace, title: str, train: Path, tests: Tests, *, flip: float,
            overlaps: bool = False, with_windows: bool = True) -> None:
    """Train on one folder, print the figures on the others: of each seed, and of merged windows."""
    for seed in arguments.train_seeds:
        with tempfile.TemporaryDirectory() as run:
            result = ta.train(ta.RunConfig(
                str(train), task="timeline", model=arguments.model, weights=arguments.weights, size=arguments.size,
                stride=STRIDE, flip=flip, overlaps=overlaps, seed=seed, device="cpu", out=f"{run}/run"))
            predictor = TimelinePredictor(result.checkpoint, device="cpu")
        reading = Reading(arguments, predictor)
        print_figures(f"{title}, network over time, seed {seed}", reading.told, reading, train, tests)
    if not with_windows:
        return
    names = predictor.checkpoint.class_names
    classifier = fit_windows(list(reading.streams(train, "train")), list(reading.streams(train, "val")), names)
    print_figures(f"{title}, merged windows, {classifier.pooling} {classifier.strength:g}",
                  lambda one: merged(classifier, one, names), reading, train, tests)


@dataclass
class Reading:
    """Reads the features of videos, which are kept beside them."""

    arguments: argparse.Namespace
    predictor: TimelinePredictor

    def streams(self, folder: Path, split: str) -> Iterator[Stream]:
        arguments, steps = self.arguments, self.predictor.features
        steps.cache = FeatureCache.beside(
            folder, f"{arguments.model}-1x{arguments.size}-{STRIDE:g}s-every-{STRIDE:g}s",
            self.predictor.model.recognizer, steps.pipeline)
        overlaps = self.predictor.model.temporal.overlaps
        for video in read_long_videos(folder / "segments.csv", overlaps=overlaps)[split]:
            reader, duration = steps.open(video.path)
            features = np.concatenate(list(steps.pieces(video.path, reader, duration)))
            yield Stream(video, duration, torch.from_numpy(features))

    def told(self, one: Stream) -> list[Segment]:
        pieces = [reduced(self.predictor.model, one.features.numpy())]
        scores = torch.cat(list(scores_over_time(self.predictor.model, pieces))).numpy()
        return Timeline(one.video.path, self.predictor.checkpoint.class_names, scores, STRIDE, one.duration,
                        self.predictor.model.temporal.overlaps).segments()


@dataclass
class Told:
    """What is told of some videos, beside what is true."""

    told: list[Video]
    true: list[Video]
    durations: list[float]

    @classmethod
    def of(cls, tell: Callable[[Stream], Video], streams: Iterator[Stream]) -> "Told":
        found = [(tell(one), one.true, one.duration) for one in streams]
        return cls(*(list(column) for column in zip(*found, strict=True)))

    def __add__(self, other: "Told") -> "Told":
        return Told(self.told + other.told, self.true + other.true, self.durations + other.durations)

    def above(self, score: float) -> "Told":
        return replace(self, told=[[one for one in video if one.score > score] for video in self.told])

    def figures(self) -> dict[str, float]:
        return timeline_metrics(self.told, self.true, self.durations).as_dict()


def print_figures(title: str, tell: Callable[[Stream], Video], reading: Reading, train: Path, tests: Tests) -> None:
    found = sum((Told.of(tell, reading.streams(folder, tests.split)) for folder in tests.folders), Told([], [], []))
    figures = found.figures()
    print(f"{title}: {', '.join(f'{name} {figures[name]:.3f}' for name in SHOWN)} ({len(found.told)} videos)",
          flush=True)
    if not tests.calm:
        return
    val = Told.of(tell, reading.streams(train, "val"))
    parts = [Told.of(tell, reading.streams(folder, "val")) for folder in tests.calm]
    for what, chosen_on in [("all are told", None), ("chosen on the validation videos", val)]:
        lowest = 0.0 if chosen_on is None else choose_score(
            chosen_on.told, chosen_on.true, chosen_on.durations, per_hour=PER_HOUR)
        events = [sum(map(len, part.above(lowest).told)) for part in parts]
        figures = found.above(lowest).figures()
        print(f"  {what}: lowest score {lowest:.3f}, false events in half hours {events}; on the tests edit "
              f"{figures['edit']:.3f}, F1@50 {figures['f1_50']:.3f}, {figures['false_events_per_hour']:.1f} false "
              "events an hour of background", flush=True)


def make_calm_videos(folder: Path, seed: int) -> Path:
    """Streams without their actions; shapes that rest come and go."""
    if folder.exists():
        return folder
    folder.mkdir(parents=True)
    rows = []
    for number in range(CALM_VIDEOS):
        stream = Drawn.draw(np.random.default_rng((seed, number)), CALM_SECONDS, overlaps=False)
        calm = replace(stream, actors=[actor for actor in stream.actors if not actor.label])
        write_video(folder / f"{number:02d}.mp4", calm.frames(), fps=calm.fps)
        rows.append(TrueSegment(f"{number:02d}.mp4", 0, CALM_SECONDS, BACKGROUND, "val"))
    write_segments(folder / "segments.csv", rows)
    return folder


def add_calm_videos(streams: Path, calm_train: Sequence[Path], calm_val: Sequence[Path], folder: Path) -> Path:
    """The videos of all folders."""
    if folder.exists():
        return folder
    rows = read_segments(streams / "segments.csv")
    shutil.copytree(streams, folder)
    for split, calm in (*(("train", calm) for calm in calm_train), *(("val", calm) for calm in calm_val)):
        for row in read_segments(calm / "segments.csv"):
            path = f"{split}/{calm.name}-{row.path}"
            shutil.copy2(calm / row.path, folder / path)
            rows.append(replace(row, path=path, split=split))
    write_segments(folder / "segments.csv", rows)
    return folder


# ---- merged windows ------------------------------------------------------------------------------------------------


@dataclass
class WindowClassifier:
    linear: Linear
    pooling: ta.models.pooling.Pooling
    strength: float
    accuracy: float  # on the validation windows


def windows_of(streams: Sequence[Stream], names: Sequence[str], hop: int) -> ProbeData:
    """Windows (N, 1, T, F, 2, 2), each with the class at its middle."""
    clips, labels = [], []
    for one in streams:
        for start in range(0, max(1, len(one.features) - WINDOW_STEPS + 1), hop):
            middle = (start + WINDOW_STEPS / 2) * STRIDE
            inside = [item.label for item in one.video.segments if item.start <= middle < item.end]
            clips.append(one.features[start : start + WINDOW_STEPS])
            labels.append(names.index(inside[0] if inside else BACKGROUND))
    return ProbeData(torch.stack(clips)[:, None], torch.tensor(labels), len(names))


def fit_windows(train: Sequence[Stream], val: Sequence[Stream], names: Sequence[str]) -> WindowClassifier:
    """The pooling and strength that are right about most validation windows."""
    fitted, checked = windows_of(train, names, WINDOW_STEPS // 2), windows_of(val, names, HOP_STEPS)
    everyone = torch.ones(len(fitted.labels), dtype=torch.bool)
    found = []
    for pooling in poolings_of("auto"):
        rows, val_rows = fitted.rows(pooling), checked.rows(pooling)
        for strength, linear in zip(STRENGTHS, fitted.fit(rows, everyone, STRENGTHS, tolerance=1e-5), strict=True):
            right = linear.logits(val_rows)[:, 0].argmax(dim=1) == checked.labels
            found.append(WindowClassifier(linear, pooling, strength, right.double().mean().item()))
    return max(found, key=lambda one: one.accuracy)


def merged(classifier: WindowClassifier, one: Stream, names: list[str]) -> list[Segment]:
    rows = windows_of([one], names, HOP_STEPS).rows(classifier.pooling)
    scores = classifier.linear.logits(rows)[:, 0].softmax(dim=1).tolist()
    windows = [Window(number * HOP_STEPS * STRIDE, (number * HOP_STEPS + WINDOW_STEPS) * STRIDE,
                      Prediction(one.video.path, names, values)) for number, values in enumerate(scores)]
    return [segment for segment in merge_windows(windows) if segment.label != BACKGROUND]


# ---- weizmann4 -----------------------------------------------------------------------------------------------------


def make_concatenations(clips: Path, folder: Path, fold: int) -> None:
    """Videos of 8 clips of one side's persons each, background between them, and their segments.csv."""
    if folder.exists():
        return
    rng = np.random.default_rng(fold)
    tested = {3 * fold, 3 * fold + 1, 3 * fold + 2}
    chooser = (3 * fold + 3) % 9
    sides = {"train": sorted(set(range(9)) - tested - {chooser}), "val": [chooser], "test": sorted(tested)}
    labels = sorted(path.name for path in clips.iterdir() if path.is_dir())
    segments = []
    for split, persons in sides.items():
        (folder / split).mkdir(parents=True)
        for number in range({"train": 15, "val": 3, "test": 9}[split]):
            frames: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
            path = f"{split}/stream{number:02d}.mp4"
            chosen = [(label, person) for label in labels for person in persons]
            order = rng.permutation(len(chosen))[np.arange(8) % len(chosen)]
            for label, person in (chosen[index] for index in order):
                reader = ta.open_video(clips / label / f"p{person}_orig.mp4")
                clip = list(reader.read(range(len(reader))))
                rest = int(rng.integers(20, 61))                       # 0.8 to 2.4 seconds
                still = clip[0] if rng.random() < 0.5 else np.full_like(clip[0], 110)
                frames += [add_noise(still, rng, sigma=4.0) for _ in range(rest)]
                segments.append(TrueSegment(path, len(frames) / 25, (len(frames) + len(clip)) / 25, label, split))
                frames += clip
            frames += [add_noise(np.full_like(frames[0], 110), rng, sigma=4.0) for _ in range(30)]
            write_video(folder / path, frames, fps=25)
    write_segments(folder / "segments.csv", segments)


if __name__ == "__main__":
    raise SystemExit(main())
