"""Make the page of a run again, from its folder and its videos."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyaction.cli import Parser, errors_to_exit_code, say
from tinyaction.data.annotations import VideoList
from tinyaction.data.class_map import check_classes
from tinyaction.data.dataset import VideoDataset
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.data.segments import split_segment_name
from tinyaction.results.report import write_report
from tinyaction.results.run import Run, read_run
from tinyaction.training.build import STAND_IN, build_datasets, find_run_data
from tinyaction.training.config import RunConfig, known_flags


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="tinyaction report", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", help="folder of a run, as runs/conv2d-1")
    parser.add_argument("--data", help="folder of its videos, where they have moved since")
    arguments = parser.parse_args(argv)
    run = read_run(arguments.run)
    data = arguments.data or run.config["data"]
    train_set: VideoDataset | None = None
    val_set: VideoDataset | None = None
    if run.config.get("task") == "timeline":
        pass  # all is in the folder
    elif run.is_evaluation and run.predictions:
        if arguments.data:
            raise ValueError(f"--data is {arguments.data}, but {arguments.run} is of tinyaction evaluate, whose "
                             "predictions.csv names the videos; leave it out")
        val_set = _evaluated(run)
    elif arguments.data or Path(data).is_dir():
        train_set, val_set = _datasets(run, data)
    else:
        say(f"note: {data} is not there, so the report has no clips; say with --data where the videos are")
    say(str(write_report(arguments.run, train_set=train_set, val_set=val_set,
                         notice=STAND_IN if run.config.get("stand_in") else "")))
    return 0


def _evaluated(run: Run) -> VideoDataset:
    """The videos, or segments, of an evaluation as its table names them."""
    paths, times = zip(*(split_segment_name(one.filename) for one in run.predictions), strict=True)
    videos = VideoList(paths, [one.label for one in run.predictions], source=str(run.folder / "predictions.csv"))
    if all(times):
        spans = np.array([time.removeprefix("#t=").split(",") for time in times], dtype=float)
        videos.starts, videos.ends, videos.lines = spans[:, 0], spans[:, 1], np.arange(2, len(spans) + 2)
    return VideoDataset(videos, eval_pipeline(**run.config["eval_pipeline"]), test_mode=True)


def _datasets(run: Run, data: str) -> tuple[VideoDataset, VideoDataset]:
    config = RunConfig(**known_flags(run.config, source=str(run.folder / "config.json")))
    found = find_run_data(config, data, keep_split=False)
    if config.folds:
        found = found.merged()
    check_classes(run.class_names, found.class_names, source=run.folder, data=data)
    return build_datasets(config, found)
