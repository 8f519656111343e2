"""``tinyaction evaluate``: the accuracy of a checkpoint on the validation videos, or all videos of class folders."""

import argparse
from collections.abc import Sequence

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.cli.progress import ProgressLine
from tinyaction.data.annotations import DataFolder, VideoList, find_data, videos_of_classes
from tinyaction.data.dataset import VideoDataset, build_dataloader, check_files_exist
from tinyaction.data.pipelines import NUM_CROPS, eval_pipeline, short_side_pixels
from tinyaction.device import choose_device, default_num_workers
from tinyaction.models.checkpoint import Checkpoint, load_model
from tinyaction.prepare.store import check_store
from tinyaction.results.evaluation import evaluate
from tinyaction.results.summary import result_lines


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    device = choose_device(arguments.device)
    model, checkpoint = load_model(arguments.checkpoint)
    videos = chosen_videos(arguments, checkpoint)
    if arguments.on_error == "raise":
        check_files_exist(videos)
    pipeline_arguments = dict(checkpoint.eval_pipeline)
    for name in ("num_clips", "num_crops"):
        if getattr(arguments, name) is not None:
            pipeline_arguments[name] = getattr(arguments, name)
    if arguments.max_views is not None:
        model.max_views = arguments.max_views
    check_store(arguments.data, short_side_pixels(pipeline_arguments["size"]))
    dataset = VideoDataset(videos, eval_pipeline(**pipeline_arguments), test_mode=True)
    loader = build_dataloader(dataset, batch_size=arguments.batch_size, num_workers=arguments.num_workers,
                              pin_memory=device.type == "cuda", on_error=arguments.on_error,
                              max_skipped=arguments.max_skipped, video_timeout=arguments.video_timeout)
    if checkpoint.stand_in:
        print("NOTE: this checkpoint was trained on generated stand-in clips.")
    progress = ProgressLine()
    try:
        result = evaluate(model, loader, device=device, on_batch=progress)
    finally:
        progress.close()
    for line in result_lines(result, checkpoint.class_names):
        print(line)
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="tinyaction evaluate", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", required=True, help="folder of the videos and their lists")
    parser.add_argument("--checkpoint", required=True, help="the folder of a run, or a best.pt or last.pt in it")
    parser.add_argument("--split", choices=("val", "train"),
                        help="which videos; default val, and all of class folders that have no split")
    parser.add_argument("--num-clips", type=int, help="clips of a video; default as in the run")
    parser.add_argument("--num-crops", type=int, choices=NUM_CROPS, help="squares of a clip; default as in the run")
    parser.add_argument("--max-views", type=int, help="views that the network sees at once, to bound memory; 0 is all")
    parser.add_argument("--batch-size", type=int, default=8, help="videos of a batch (default 8)")
    parser.add_argument("--num-workers", type=int, default=-1,
                        help="processes that decode; 0 decodes in the main process, -1 (default) starts one per core")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--on-error", choices=("raise", "skip"), default="raise",
                        help="raise: stop at a video that cannot be read; skip: leave it out, and say so")
    parser.add_argument("--max-skipped", type=float, default=0.1, help="share that may be left out (default 0.1)")
    parser.add_argument("--video-timeout", type=float, default=300.0, help="seconds for one video (default 300)")
    parser.add_argument("--allow-outside", action="store_true", help="lists may name videos elsewhere")
    arguments = parser.parse_args(argv)
    for name, least in (("num_clips", 1), ("max_views", 0), ("batch_size", 1), ("num_workers", -1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}")
    if arguments.num_workers == -1:
        arguments.num_workers = default_num_workers()
    return arguments


def chosen_videos(arguments: argparse.Namespace, checkpoint: Checkpoint) -> VideoList:
    """The videos to evaluate: those of a split, or all videos of class folders that have none."""
    videos = videos_of_classes(arguments.data, checkpoint.class_names)
    if videos is not None:
        if arguments.split is not None:
            raise ValueError(f"{arguments.data} has no split; leave out --split to evaluate all of its {len(videos)} "
                             "videos")
        return videos
    data = find_data(arguments.data, allow_outside=arguments.allow_outside)
    check_classes(data, checkpoint, arguments)
    return data.train if arguments.split == "train" else data.val


def check_classes(data: DataFolder, checkpoint: Checkpoint, arguments: argparse.Namespace) -> None:
    """Raise ValueError where the data and the checkpoint do not speak of the same classes."""
    known, given = checkpoint.class_names, data.class_names
    if len(known) != len(given):
        raise ValueError(f"{arguments.checkpoint} knows {len(known)} classes ({_some(known)}), {arguments.data} has "
                         f"{len(given)} ({_some(given)}); use the data that the checkpoint was trained for")
    named = [names for names in (known, given) if names != [str(number) for number in range(len(names))]]
    if len(named) == 2 and known != given:
        raise ValueError(f"{arguments.checkpoint} knows the classes {_some(known)}, {arguments.data} has "
                         f"{_some(given)}; the order counts too")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
