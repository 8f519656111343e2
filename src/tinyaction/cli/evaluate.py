"""Measure a checkpoint of a run, or a published network, on the videos of a folder."""

import argparse
from collections.abc import Sequence

from tinyaction.cli import Parser, check_at_least, errors_to_exit_code, num_workers_of
from tinyaction.cli.network import add_network_flags, check_network_flags, load_network
from tinyaction.cli.progress import ProgressLine
from tinyaction.cli.timelines import evaluate_timelines
from tinyaction.data.annotations import VAL_SHARE, VideoList, find_data
from tinyaction.data.class_map import check_classes, match_classes, read_class_map, with_numbers
from tinyaction.data.clip_length import clip_length_notes
from tinyaction.data.dataset import VideoDataset, build_dataloader, check_files_exist
from tinyaction.data.pipelines import NUM_CROPS, eval_pipeline, short_side_pixels
from tinyaction.device import choose_device
from tinyaction.models.checkpoint import Checkpoint
from tinyaction.models.pretrained import check_pretrained
from tinyaction.prepare.store import check_store
from tinyaction.results.evaluation import evaluate
from tinyaction.results.summary import result_lines
from tinyaction.text import printable


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    if arguments.task == "timeline":
        for line in evaluate_timelines(arguments):
            print(line)
        return 0
    device = choose_device(arguments.device)
    if arguments.model:
        check_pretrained(arguments.model, arguments.weights)  # a wrong name is told before the videos are looked for
    videos, class_names = chosen_videos(arguments)
    model, checkpoint = load_network(arguments)
    videos = labeled_as_known(videos, class_names, checkpoint.class_names, arguments)
    check_label_sets(videos, checkpoint)
    if arguments.on_error == "raise":
        check_files_exist(videos)
    pipeline_arguments = dict(checkpoint.eval_pipeline)
    for name in ("num_clips", "num_crops"):
        if getattr(arguments, name) is not None:
            pipeline_arguments[name] = getattr(arguments, name)
    if arguments.max_views is not None:
        model.max_views = arguments.max_views
    check_store(arguments.data, pipeline_arguments.get("short_side") or short_side_pixels(pipeline_arguments["size"]))
    dataset = VideoDataset(videos, eval_pipeline(**pipeline_arguments), test_mode=True)
    loader = build_dataloader(dataset, batch_size=arguments.batch_size, num_workers=arguments.num_workers,
                              pin_memory=device.type == "cuda", on_error=arguments.on_error,
                              max_skipped=arguments.max_skipped, video_timeout=arguments.video_timeout)
    if checkpoint.stand_in:
        print("NOTE: this checkpoint was trained on generated stand-in clips.")
    if checkpoint.config.get("final"):
        print(printable(f"note: this model was trained on all videos of {checkpoint.config.get('data')}; its accuracy "
                        "on them says nothing of others"))
    progress = ProgressLine()
    try:
        result = evaluate(model, loader, device=device, on_batch=progress, thresholds=checkpoint.thresholds or None)
    finally:
        progress.close()
    for line in result_lines(result, checkpoint.class_names):
        print(line)
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="tinyaction evaluate", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", required=True, help="folder of the videos and their lists, or one list")
    add_network_flags(parser)
    parser.add_argument("--task", choices=("clips", "timeline"), default="clips",
                        help="timeline: how well a run with --task timeline finds the segments of uncut videos")
    parser.add_argument("--classes", metavar="FILE", help="the data's classes as the network calls them: lines of two "
                        "columns, between them a tab or a comma; needed where names differ")
    parser.add_argument("--split", choices=("val", "train", "test"),
                        help="which videos; default val, or else test, and all where there is no split")
    parser.add_argument("--num-crops", type=int, choices=NUM_CROPS, help="squares of a clip; default as in the run")
    parser.add_argument("--max-views", type=int, help="views that the network sees at once, to bound memory; 0 is all")
    parser.add_argument("--batch-size", type=int, default=8, help="videos of a batch (default 8)")
    parser.add_argument("--num-workers", type=int, default=-1,
                        help="processes that decode; 0 decodes in the main process, -1 (default) starts one per core")
    parser.add_argument("--on-error", choices=("raise", "skip"), default="raise",
                        help="raise: stop at a video that cannot be read; skip: leave it out, and say so")
    parser.add_argument("--max-skipped", type=float, default=0.1, help="share that may be left out (default 0.1)")
    parser.add_argument("--video-timeout", type=float, default=300.0, help="seconds for one video (default 300)")
    parser.add_argument("--allow-outside", action="store_true", help="lists may name videos elsewhere")
    arguments = parser.parse_args(argv)
    check_network_flags(arguments)
    check_at_least(1, arguments, "num_clips", "batch_size")
    check_at_least(0, arguments, "max_views")
    arguments.num_workers = num_workers_of(arguments.num_workers)
    return arguments


def chosen_videos(arguments: argparse.Namespace) -> tuple[VideoList, list[str]]:
    """The videos to evaluate, and the names of their classes: of a split, or all where there is none.

    Where "train" or "val" is asked for and there is no split, it is the one that training would make.
    """
    data = find_data(arguments.data, allow_outside=arguments.allow_outside, keep_split=False, any_split=True,
                     val_share=VAL_SHARE if arguments.split in ("train", "val") else None)
    videos = data.of_split(arguments.split or ("val" if data.val or not data.test else "test"))
    if arguments.clip_len:
        data.notes += clip_length_notes(arguments.clip_len, videos)
    for note in (*data.notes, data.unused_summary()):
        if note:
            print(printable(f"note: {note}"))
    return videos, data.class_names


def labeled_as_known(
    videos: VideoList, given: list[str], known: list[str], arguments: argparse.Namespace
) -> VideoList:
    """The videos with the labels of the network, which knows their classes by the same names."""
    if arguments.model or arguments.classes:
        names = read_class_map(arguments.classes) if arguments.classes else {}
        return with_numbers(videos, match_classes(given, known, names=names), num_classes=len(known))
    if any(names == [str(number) for number in range(len(names))] for names in (given, known)):
        check_classes(known, given, source=arguments.checkpoint, data=arguments.data)
        return videos
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"{arguments.data}: its class {unknown[0]!r} is none of the checkpoint, which knows "
                         f"{', '.join(known[:8])}")
    return with_numbers(videos, [known.index(name) for name in given], num_classes=len(known))


def check_label_sets(videos: VideoList, checkpoint: Checkpoint) -> None:
    """Give videos sets of labels where the network knows such; ValueError where it knows one label a video only."""
    if checkpoint.thresholds:
        videos.use_label_sets(len(checkpoint.class_names))
    elif videos.label_sets is not None:
        raise ValueError(f"{videos.source}: its videos have several labels, and the network was trained on one label "
                         "a video; train it on such a list, or evaluate it on one")
