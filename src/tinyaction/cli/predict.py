"""``predict.py``: classes and scores of videos, folders of them, long videos over time, and cameras."""

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.files import check_output, part_of, put_in_place
from tinyaction.inference.prediction import Prediction, Window
from tinyaction.inference.predictor import Predictor
from tinyaction.inference.sources import list_videos
from tinyaction.video import open_video


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    predictor = Predictor(arguments.checkpoint, device=arguments.device, num_clips=arguments.num_clips)
    if predictor.stand_in:
        print("NOTE: this checkpoint was trained on generated stand-in clips.", file=sys.stderr)
    output = Output(arguments)
    failures: list[str] = []
    try:
        for source in arguments.sources:
            if source.isdigit() and not Path(source).exists():
                _watch(predictor, int(source), arguments, output)
            elif arguments.window is not None:
                for video in list_videos(source) or [source]:
                    _predict_windows(predictor, str(video), arguments, output)
            else:
                many = list_videos(source) is not None
                on_error = (lambda error: _note(failures, error)) if many or arguments.skip_errors else None
                for prediction in predictor.stream(source, batch_size=arguments.batch_size, on_error=on_error):
                    output.add(prediction)
                    if arguments.overlay:
                        _write_overlay(arguments.overlay, source, [Window(0.0, float("inf"), prediction)])
    finally:
        output.close()
    if failures:
        print(f"error: {len(failures)} of {len(failures) + output.num_written} videos could not be read",
              file=sys.stderr)
    return 2 if failures else 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="predict.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("sources", nargs="+", metavar="SOURCE",
                        help="video files, folders of videos, quoted patterns such as 'clips/*.mp4', or a camera's "
                        "number")
    parser.add_argument("--checkpoint", required=True, help="best.pt or last.pt of a run")
    parser.add_argument("--top", type=int, default=5, help="classes to show (default 5)")
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
                        help="with --window: segments of one class as CSV, and as a picture beside it")
    parser.add_argument("--overlay", metavar="FILE.mp4", help="the video with the label drawn on")
    parser.add_argument("--seconds", type=float, help="stop watching a camera after this time; default Ctrl-C")
    parser.add_argument("--skip-errors", action="store_true",
                        help="go on after a file that cannot be read, as is done within folders")
    parser.add_argument("--num-clips", type=int, help="clips of a video; default as in the run")
    parser.add_argument("--batch-size", type=int, default=1, help="videos that are computed together (default 1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--force", action="store_true", help="replace outputs that tinyaction wrote before")
    arguments = parser.parse_args(argv)
    for name in ("num_clips", "top", "batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    for name in ("window", "stride", "seconds"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{name} is {value}; it must be above 0 seconds")
    if arguments.window is None and (arguments.stride is not None or arguments.timeline):
        raise ValueError("--stride and --timeline are for windows; say with --window how many seconds one has")
    if arguments.json and arguments.csv == arguments.json == "-":
        raise ValueError("--json and --csv cannot both go to the screen; name a file for one of them")
    inputs = [arguments.checkpoint, *arguments.sources]
    for name, suffix in (("json", ".json"), ("csv", ".csv"), ("timeline", ".csv"), ("overlay", ".mp4")):
        path = getattr(arguments, name)
        if path is None or path == "-":
            continue
        if Path(path).suffix.lower() != suffix:  # else a flag without a file would take the next source for it
            raise ValueError(f"--{name} is {path}; it must end in {suffix} (put the sources before --{name})")
        for output in [path, Path(path).with_suffix(".png")] if name == "timeline" else [path]:
            inputs.append(check_output(output, flag=f"--{name}", inputs=inputs, force=arguments.force))
    for name in ("timeline", "overlay"):
        single = len(arguments.sources) == 1 and list_videos(arguments.sources[0]) is None
        if getattr(arguments, name) and not single:
            raise ValueError(f"--{name} is for one video; {len(arguments.sources)} sources or a folder were given")
    return arguments


class Output:
    """Predictions as they come: a table with bars, JSON lines, or CSV; each to the screen or into a file."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.top = arguments.top
        self.num_written = 0
        self._to_screen = "-" not in (arguments.json, arguments.csv)
        self._parts: list[tuple[Any, Path, str]] = []  # (file that is written, its path, its name in the end)
        self._json = self._open(arguments.json)
        self._csv = self._open(arguments.csv)
        self._has_header = False

    def _open(self, path: str | None) -> Any:
        if path is None or path == "-":
            return sys.stdout if path else None
        part = part_of(path)
        file = open(part, "w", encoding="utf-8", newline="")
        self._parts.append((file, part, path))
        return file

    def add(self, prediction: Prediction, start: float | None = None, end: float | None = None) -> None:
        self.num_written += 1
        scores = dict(zip(prediction.class_names, prediction.scores, strict=True))
        times: dict[str, float] = {}
        if start is not None and end is not None:
            times = {"start_seconds": round(start, 3), "end_seconds": round(end, 3)}
        if self._json:
            row = {"source": prediction.source, **times, "class": prediction.label, "score": prediction.score,
                   "scores": scores}
            print(json.dumps(row, ensure_ascii=False), file=self._json, flush=True)
        if self._csv:
            writer = csv.writer(self._csv)
            if not self._has_header:
                writer.writerow(("source", *times, "class", "score", *scores))
                self._has_header = True
            writer.writerow((prediction.source, *times.values(), prediction.label,
                             *(f"{score:.6f}" for score in (prediction.score, *scores.values()))))
            self._csv.flush()
        if self._to_screen:
            for line in table_lines(prediction, self.top, start, end):
                print(line, flush=True)

    def close(self) -> None:
        """Give the files their names, also after Ctrl-C; without a prediction there are none."""
        for file, part, path in self._parts:
            file.close()
            if self.num_written:
                put_in_place(part, path)
            part.unlink(missing_ok=True)


def table_lines(prediction: Prediction, top: int, start: float | None = None, end: float | None = None) -> list[str]:
    """A line a class with a bar, under the source; of a window one line; at most 80 columns."""
    from tinyaction.inference.timeline import clock

    if start is None or end is None:
        return [prediction.source, *(f"  {score:6.3f}  {'#' * round(30 * score):<30}  {_short(name, 38)}"
                                     for name, score in prediction.top(top))]
    names = "  ".join(f"{_short(name, 20)} {score:.3f}" for name, score in prediction.top(min(top, 2)))
    bar = "#" * round(10 * prediction.score)
    return [f"{clock(start):>9} - {clock(end):<9} {bar:<10}  {names}"[:80]]


def _short(name: str, columns: int) -> str:
    return name if len(name) <= columns else name[: columns - 1] + "…"


def _predict_windows(predictor: Predictor, source: str, arguments: argparse.Namespace, output: Output) -> None:
    if output._to_screen:
        print(source)
    windows: list[Window] = []
    for window in predictor.windows(source, window_seconds=arguments.window, stride_seconds=arguments.stride):
        output.add(window.prediction, window.start_seconds, window.end_seconds)
        if arguments.timeline or arguments.overlay:
            windows.append(window)
    if arguments.timeline:
        _write_timeline(arguments.timeline, source, windows)
    if arguments.overlay:
        _write_overlay(arguments.overlay, source, windows)


def _write_timeline(path: str, source: str, windows: list[Window]) -> None:
    import numpy as np

    from tinyaction.inference.overlay import draw_timeline
    from tinyaction.inference.timeline import merge_windows, write_segments
    from tinyaction.results.sheets import write_png

    segments = merge_windows(windows)
    write_segments(path, segments)
    picture = Path(path).with_suffix(".png")
    scores = np.array([window.prediction.scores for window in windows])
    write_png(picture, draw_timeline(Path(source).name, segments, scores, windows[0].prediction.class_names))
    print(f"{len(segments)} segments: {path}, {picture}", file=sys.stderr)


def _write_overlay(path: str, source: str, windows: list[Window]) -> None:
    from tinyaction.inference.overlay import with_label
    from tinyaction.inference.timeline import merge_windows, segment_at
    from tinyaction.video.writer import VideoFile

    segments = merge_windows(windows)
    reader = open_video(source)
    fps = reader.fps or 25.0
    with VideoFile(path, fps=fps) as video:
        for index, frame in enumerate(reader.read(range(len(reader)))):
            segment = segment_at(segments, index / fps)
            video.write(with_label(frame, f"{segment.label} {segment.score:.2f}"))
    print(f"{path}: {video.players}", file=sys.stderr)


def _watch(predictor: Predictor, camera: int, arguments: argparse.Namespace, output: Output) -> None:
    """Print the scores of a camera until Ctrl-C or ``--seconds``."""
    import time

    if arguments.overlay or arguments.timeline:
        raise ValueError("--overlay and --timeline are for video files, not for a camera")
    begin = time.monotonic()
    predictions: Iterator[Prediction] = predictor.watch(camera, window_seconds=arguments.window or 2.0)
    for prediction in predictions:
        now = time.monotonic() - begin
        output.add(prediction, max(0.0, now - (arguments.window or 2.0)), now)
        if arguments.seconds is not None and now >= arguments.seconds:
            break


def _note(failures: list[str], error: Exception) -> None:
    failures.append(str(error))
    print(f"error: {error}", file=sys.stderr)
