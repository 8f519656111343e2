"""Classes and scores of videos, folders of them, long videos over time, and cameras."""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from tinyaction.cli import Parser, check_at_least, errors_to_exit_code, say
from tinyaction.cli.live import Watcher, add_live_flags, check_live_flags
from tinyaction.cli.network import (
    add_network_flags,
    check_clip_length,
    check_network_flags,
    load_network,
    load_predictor,
    network_inputs,
)
from tinyaction.cli.parts import add_part_flags, joined, work_on_cluster, work_on_part
from tinyaction.cli.timelines import predict_timelines, write_overlay, write_subtitle_files
from tinyaction.files import check_output, part_of, put_in_place
from tinyaction.inference.cameras import is_stream
from tinyaction.inference.overlay import draw_timeline
from tinyaction.inference.prediction import Prediction, Window
from tinyaction.inference.predictor import Predictor
from tinyaction.inference.sources import list_videos
from tinyaction.inference.timeline import merge_windows, write_segments
from tinyaction.models.checkpoint import Checkpoint, TimelineModelError
from tinyaction.prepare.parts import Records, Work
from tinyaction.results.plots import columns_of, shortened
from tinyaction.results.sheets import write_png
from tinyaction.results.timeline_metrics import Segment
from tinyaction.results.timeline_picture import clock
from tinyaction.text import counted, printable, to_cell
from tinyaction.video import VideoError

SUFFIXES = {"json": ".json", "csv": ".csv", "timeline": ".csv", "overlay": ".mp4", "srt": ".srt", "vtt": ".vtt"}
OF_TIMES = ("timeline", "srt", "vtt")  # outputs that need windows, or a model of timelines


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    return run(parse_args(argv))


def run(arguments: argparse.Namespace, parts: Path | None = None) -> int:
    """``parts``: take the scores from this folder, see :mod:`tinyaction.cli.join`."""
    videos = listed_videos(arguments) if arguments.part or arguments.cluster or parts else []
    if arguments.part:
        return work_on_part("predict", videos, arguments, partial(scores_in_part, arguments))
    if arguments.cluster:
        parts = work_on_cluster("predict", videos, arguments, partial(scores_in_part, arguments))
    check_clip_length(arguments, [source for source in arguments.sources if not is_stream(source)])
    predictor: Predictor | JoinedPredictor
    if (records := joined("predict", videos, arguments, parts)) is None:
        try:
            predictor = load_predictor(arguments, device=arguments.device, tells_unknown=not arguments.no_unknown)
        except TimelineModelError:
            if arguments.on:
                raise ValueError("--on needs a model of clips; this is one of timelines") from None
            return predict_timelines(arguments)
    else:
        _check_outputs(arguments)
        checkpoint = load_network(arguments)[1]
        predictor = JoinedPredictor(records, checkpoint)
    if arguments.window is None and any(getattr(arguments, name) is not None for name in ("stride", *OF_TIMES)):
        raise ValueError("--stride, --timeline, --srt and --vtt are for windows; say with --window how many seconds "
                         "one has")
    if predictor.stand_in:
        say("NOTE: this checkpoint was trained on generated stand-in clips.", file=sys.stderr)
    output = Output(arguments)
    watcher: Watcher | None = None
    failures: list[str] = []
    try:
        if isinstance(predictor, Predictor):
            watcher = Watcher(predictor, arguments, output)
        for source in arguments.sources:
            if watcher is not None and (is_stream(source) or arguments.on):
                for stream in [source] if is_stream(source) else list_videos(source) or [source]:
                    watcher.watch(str(stream))
            elif arguments.window is not None:
                for video in list_videos(source) or [source]:
                    _predict_windows(predictor, str(video), arguments, output)
            else:
                _predict_whole(predictor, source, arguments, output, failures)
    finally:
        if watcher is not None:
            watcher.close()
        output.close()
    if failures:
        say(f"error: {len(failures)} of {len(failures) + output.num_written} videos could not be read",
            file=sys.stderr)
    return 2 if failures else 0


# ---- flags ---------------------------------------------------------------------------------------------------------


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_args(argv)
    check_network_flags(arguments)  # before all else: "--json VIDEO" takes the source for the name of a file
    _check_numbers(arguments)
    if arguments.json and arguments.csv == arguments.json == "-":
        raise ValueError("--json and --csv cannot both go to the screen; name a file for one of them")
    check_live_flags(arguments)
    _check_outputs(arguments)
    if not arguments.sources:
        parser.error("the following arguments are required: SOURCE")
    arguments.many = len(arguments.sources) > 1 or (
        not is_stream(arguments.sources[0]) and list_videos(arguments.sources[0]) is not None)
    for name in (*OF_TIMES, "overlay"):
        if getattr(arguments, name) and arguments.many:
            raise ValueError(f"--{name} is for one video; {len(arguments.sources)} sources or a folder were given")
        if getattr(arguments, name) and (is_stream(arguments.sources[0]) or arguments.on):
            raise ValueError(f"--{name} is for video files, not for a camera or --on")
        if getattr(arguments, name) and (arguments.part or arguments.cluster):
            raise ValueError(f"--{name} is for one video, --part and --cluster for many; leave one of them out")
    if (arguments.part or arguments.cluster) and arguments.stride is not None and arguments.window is None:
        raise ValueError("--stride is for windows; say with --window how many seconds one has")
    if (arguments.part or arguments.cluster) and (arguments.on or any(map(is_stream, arguments.sources))):
        raise ValueError("--part and --cluster are for video files, not for a camera or --on")
    return arguments


def _parser() -> Parser:
    parser = Parser(prog="tinyaction predict", description=__doc__, allow_abbrev=False)
    parser.add_argument("sources", nargs="*", metavar="SOURCE",
                        help="video files, folders of videos, quoted patterns such as 'clips/*.mp4', a camera's "
                        "number, a stream such as rtsp://host/path, or - for standard input")
    add_network_flags(parser)
    parser.add_argument("--top", type=int, default=5, help="classes to show of each video (default 5)")
    parser.add_argument("--verbose", action="store_true", help="show the classes of each video of a folder, too")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE.json",
                        help="all scores, one JSON object a line, to the screen or into a file")
    parser.add_argument("--csv", nargs="?", const="-", metavar="FILE.csv",
                        help="all scores as CSV, to the screen or into a file")
    parser.add_argument("--window", type=float, metavar="SECONDS",
                        help="predict a long video in windows of this length; for a camera, the time that a score "
                        "covers (default 2)")
    parser.add_argument("--stride", type=float, metavar="SECONDS",
                        help="from one window to the next; default the window itself")
    parser.add_argument("--timeline", metavar="FILE.csv",
                        help="with --window, or a model of timelines: segments of one class as CSV, and as a picture "
                        "beside it")
    parser.add_argument("--srt", metavar="FILE.srt", help="the same segments as subtitles for players")
    parser.add_argument("--vtt", metavar="FILE.vtt", help="the same as subtitles for browsers")
    parser.add_argument("--overlay", metavar="FILE.mp4", help="the video with the label drawn on")
    parser.add_argument("--force", action="store_true", help="replace output files that tinyaction wrote before")
    parser.add_argument("--no-unknown", action="store_true",
                        help="always name a class, also where the checkpoint has a threshold for none of them")
    add_live_flags(parser)
    parser.add_argument("--skip-errors", action="store_true",
                        help="go on after a file that cannot be read, as is done within folders")
    parser.add_argument("--batch-size", type=int, default=1, help="videos that are computed together (default 1)")
    add_part_flags(parser)
    return parser


def _check_numbers(arguments: argparse.Namespace) -> None:
    check_at_least(1, arguments, "num_clips", "top", "batch_size")
    for name in ("window", "stride", "seconds"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{name} is {value}; it must be above 0 seconds")


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Refuse outputs of another suffix, such as a source that was taken for one, and files that are there already."""
    others: list[str | Path] = [*arguments.sources, *network_inputs(arguments)]
    for name, suffix in SUFFIXES.items():
        path = getattr(arguments, name)
        if path is None or path == "-":
            continue
        if Path(path).suffix.lower() != suffix:
            raise ValueError(f"--{name} is {path}; it must end in {suffix} (put the sources before --{name})")
        paths = [Path(path), Path(path).with_suffix(".png")] if name == "timeline" else [Path(path)]
        for each in paths:
            others.append(check_output(each, flag=f"--{name}", inputs=others, force=arguments.force))


# ---- what is predicted ---------------------------------------------------------------------------------------------


def _predict_whole(predictor: "Predictor | JoinedPredictor", source: str, arguments: argparse.Namespace,
                   output: "Output", failures: list[str]) -> None:
    """Predict a file or the files of a folder, each as a whole."""
    def note(error: Exception) -> None:
        failures.append(str(error))
        say(f"error: {error}", file=sys.stderr)

    goes_on = arguments.skip_errors or list_videos(source) is not None
    for prediction in predictor.stream(source, batch_size=arguments.batch_size, on_error=note if goes_on else None):
        output.add(prediction)
        if arguments.overlay:
            write_overlay(arguments, source, [Segment(0.0, float("inf"), prediction.label, prediction.score)])


def _predict_windows(predictor: "Predictor | JoinedPredictor", source: str, arguments: argparse.Namespace,
                     output: "Output") -> None:
    output.begin_windows(source)
    windows: list[Window] = []
    for window in predictor.windows(source, window_seconds=arguments.window, stride_seconds=arguments.stride):
        output.add(window.prediction, window.start_seconds, window.end_seconds)
        if any(getattr(arguments, name) for name in (*OF_TIMES, "overlay")):
            windows.append(window)
    segments = merge_windows(windows) if windows else []
    write_subtitle_files(arguments, segments)
    if arguments.timeline:
        write_segments(arguments.timeline, segments)
        picture = Path(arguments.timeline).with_suffix(".png")
        write_png(picture, draw_timeline(Path(source).name, windows))
        say(f"{counted(len(segments), 'segment')}: {arguments.timeline}, {picture}", file=sys.stderr)
    if arguments.overlay:
        write_overlay(arguments, source, segments)


# ---- in parts ------------------------------------------------------------------------------------------------------


def listed_videos(arguments: argparse.Namespace) -> list[str]:
    return [str(video) for source in arguments.sources for video in list_videos(source) or [source]]


def scores_in_part(arguments: argparse.Namespace) -> Work:
    """Yields for each video {"scores": (K,), "unknown": bool}, {"windows": [[start, end, scores, unknown], ...]} or
    {"bad": why}.
    """
    predictor = load_predictor(arguments, device=arguments.device, tells_unknown=not arguments.no_unknown)

    def work(videos: Sequence[str]) -> Iterator[tuple[str, Any]]:
        if arguments.window is not None:
            for video in videos:
                windows = predictor.windows(video, window_seconds=arguments.window, stride_seconds=arguments.stride)
                yield video, {"windows": [[window.start_seconds, window.end_seconds, window.prediction.scores,
                                           window.prediction.is_unknown] for window in windows]}
            return
        bad: list[Exception] = []
        for batch in predictor.inputs.of_files(videos, batch_size=arguments.batch_size, on_error=bad.append):
            for prediction in predictor.predict_batch(batch):
                yield prediction.source, {"scores": prediction.scores, "unknown": prediction.is_unknown}
        yield from ((error.path, {"bad": error.reason}) for error in bad if isinstance(error, VideoError))

    return work


class JoinedPredictor:
    """What parts found, with the methods of a predictor that this command calls."""

    def __init__(self, records: Records, checkpoint: Checkpoint) -> None:
        self.records = records
        self.checkpoint = checkpoint
        self.stand_in = checkpoint.stand_in

    def stream(self, source: str, *, on_error: Callable[[Exception], None] | None, **_: int) -> Iterator[Prediction]:
        for video in [str(path) for path in list_videos(source) or []] or [source]:
            found = self.records[video]
            if "scores" in found:
                yield self._prediction(video, found["scores"], found["unknown"])
            elif on_error is None:
                raise VideoError(video, found["bad"])
            else:
                on_error(VideoError(video, found["bad"]))

    def windows(self, source: str, **_: float | None) -> Iterator[Window]:
        for start, end, scores, is_unknown in self.records[source]["windows"]:
            yield Window(start, end, self._prediction(source, scores, is_unknown))

    def _prediction(self, source: str, scores: list[float], is_unknown: bool) -> Prediction:
        return Prediction(source, self.checkpoint.class_names, scores, is_unknown,
                          thresholds=self.checkpoint.thresholds)


# ---- what is shown and written -------------------------------------------------------------------------------------


class Output:
    """Predictions as they come: a table, JSON lines, or CSV; each to the screen or into a file.

    One video is shown with a bar a class, several with a line each and a summary, windows with a line each. With
    ``--on`` screen and JSON have the events only.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.top = arguments.top
        self._events_only = bool(arguments.on)
        self.one_line_each = arguments.many and not arguments.verbose
        self.num_written = 0
        self._counts: Counter[str] = Counter()
        self._to_screen = "-" not in (arguments.json, arguments.csv)
        self._parts: list[tuple[IO[str], Path, str]] = []  # (file that is written, its path, its name in the end)
        self._json = self._open(arguments.json)
        self._csv = self._open(arguments.csv)
        self._csv_heading: list[str] = []
        self._heading = ""

    def begin_windows(self, source: str) -> None:
        """Name the source of the windows that follow."""
        if self._to_screen and not self._events_only:
            self._print_heading(f"{'from':>9} - {'to':<9} {'':<10}  best classes")
            print(printable(str(source)))

    def add(self, prediction: Prediction, start: float | None = None, end: float | None = None) -> None:
        """Show and write the prediction of a video, or of the window from ``start`` to ``end``, in seconds."""
        self.num_written += 1
        times: dict[str, float] = {}
        if start is not None and end is not None:
            times = {"start_seconds": round(start, 3), "end_seconds": round(end, 3)}
        else:
            self._counts[prediction.label] += 1
        if self._csv:
            self._write_csv(prediction, times)
        if self._events_only:
            return
        if self._json:
            self._write_json(prediction, times)
        if self._to_screen:
            if times:
                print(printable(window_line(prediction, self.top, *times.values())), flush=True)
            elif self.one_line_each:
                self._print_heading(f"{'score':>6}  {'class':<{CLASS_COLUMNS}}  video")
                print(printable(video_line(prediction)), flush=True)
            else:
                print(printable(prediction.table(self.top)), flush=True)

    def add_event(self, row: dict[str, Any], line: str) -> None:
        """Show and write an event: a line for people, or its row as JSON."""
        if self._json:
            self._write_row(row)
        if self._to_screen:
            print(printable(line), flush=True)

    def close(self) -> None:
        """Show the summary and give the files their names, also after Ctrl-C; without a prediction there are none."""
        if self._to_screen and self.one_line_each and self._counts:
            print(summary_line(self._counts))
        for file, part, path in self._parts:
            file.close()
            if self.num_written:
                put_in_place(part, path)
            part.unlink(missing_ok=True)

    def _open(self, path: str | None) -> IO[str] | None:
        if path is None or path == "-":
            return sys.stdout if path else None
        part = part_of(path)
        file = open(part, "w", encoding="utf-8", newline="")
        self._parts.append((file, part, path))
        return file

    def _print_heading(self, heading: str) -> None:
        if heading != self._heading:
            print(printable(heading))
        self._heading = heading

    def _write_json(self, prediction: Prediction, times: dict[str, float]) -> None:
        several = {"classes": [name for name, _ in prediction.predicted()]} if prediction.thresholds else {}
        row = {"source": prediction.source, **times, "class": prediction.label, **several, "score": prediction.score,
               "scores": dict(zip(prediction.class_names, prediction.scores, strict=True))}
        self._write_row(row)

    def _write_row(self, row: dict[str, Any]) -> None:
        is_unicode = str(getattr(self._json, "encoding", "")).lower().startswith("utf")
        text = json.dumps(row, ensure_ascii=False)
        print(text if is_unicode and printable(text) == text else json.dumps(row), file=self._json, flush=True)

    def _write_csv(self, prediction: Prediction, times: dict[str, float]) -> None:
        assert self._csv is not None
        writer = csv.writer(self._csv)
        source = printable(str(prediction.source)) if self._csv.isatty() else str(prediction.source)
        heading = ["source", *times, "class", "score", *map(to_cell, prediction.class_names)]
        if not self._csv_heading:
            writer.writerow(heading)
            self._csv_heading = heading
        writer.writerow((to_cell(source), *times.values(), to_cell(prediction.label),
                         *(f"{score:.6f}" for score in (prediction.score, *prediction.scores))))
        self._csv.flush()


CLASS_COLUMNS = 24


def video_line(prediction: Prediction) -> str:
    """Score, class and source in 80 columns; of a long source the middle is left out."""
    name = shortened(prediction.label, CLASS_COLUMNS)
    padding = " " * (CLASS_COLUMNS - columns_of(name))
    return f"{prediction.score:6.3f}  {name}{padding}  {shortened(prediction.source, 80 - 10 - CLASS_COLUMNS)}"


def window_line(prediction: Prediction, top: int, start: float, end: float) -> str:
    """The times of a window, a bar of its best score, and its two best classes; at most 80 columns."""
    best = prediction.top(1 if prediction.is_unknown else min(top, 2))
    names = "  ".join(f"{shortened(name, 13)} {score:.3f}" for name, score in best)
    names = f"unknown, not {names}" if prediction.is_unknown else names
    if prediction.thresholds:
        names = f"{shortened(prediction.label, 38)} {prediction.score:.3f}"
    return f"{clock(start):>9} - {clock(end):<9} {'#' * round(10 * prediction.score):<10}  {names}"


def summary_line(counts: Counter[str]) -> str:
    """How many videos were predicted as which class, the most frequent classes first."""
    shown = ", ".join(f"{shortened(name, 30)} {count}" for name, count in counts.most_common(8))
    more = f", and {len(counts) - 8} more classes" if len(counts) > 8 else ""
    return f"{counts.total()} videos: {shown}{more}"
