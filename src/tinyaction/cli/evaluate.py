"""Measure a checkpoint of a run, or a published network, on the videos of a folder."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyaction.cli import Parser, check_at_least, errors_to_exit_code, num_workers_of, say
from tinyaction.cli.network import add_network_flags, check_network_flags, load_network, network_inputs
from tinyaction.cli.progress import ProgressLine
from tinyaction.cli.timelines import evaluate_timelines
from tinyaction.data.annotations import VAL_SHARE, VideoList, find_data
from tinyaction.data.class_map import check_classes, match_classes, read_class_map, with_numbers
from tinyaction.data.clip_length import clip_length_notes
from tinyaction.data.dataset import VideoDataset, build_dataloader, check_files_exist
from tinyaction.data.pipelines import NUM_CROPS, eval_pipeline, short_side_pixels
from tinyaction.device import choose_device
from tinyaction.files import check_output, write_whole
from tinyaction.models.checkpoint import Checkpoint
from tinyaction.models.pretrained import check_pretrained
from tinyaction.prepare.store import check_store
from tinyaction.results.compare import Comparison, compare_runs, comparison_lines, comparison_page
from tinyaction.results.evaluation import evaluate
from tinyaction.results.run import read_run
from tinyaction.results.shortcuts import shortcut_sentences
from tinyaction.results.summary import result_lines
from tinyaction.text import shell_line
from tinyaction.training.evaluated import Measured, simpler_models, write_evaluation


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    if arguments.out:
        check_output(arguments.out, flag="--out", is_folder=True,
                     inputs=[arguments.data, *network_inputs(arguments), *arguments.compare])
    others = [read_run(run) for run in arguments.compare]              # wrong ones are told before the work
    if arguments.task == "timeline":
        for line in evaluate_timelines(arguments, command_of(argv)):
            say(line)
        return 0
    device = choose_device(arguments.device)
    if arguments.model:
        check_pretrained(arguments.model, arguments.weights)  # a wrong name is told before the videos are looked for
        chosen = chosen_videos(arguments, multi_label=False)           # and wrong videos before weights are fetched
    model, checkpoint = load_network(arguments)
    if not arguments.model:
        chosen = chosen_videos(arguments, multi_label=bool(checkpoint.thresholds))
    listed, class_names, train = chosen
    videos = labeled_as_known(listed, class_names, checkpoint.class_names, arguments)
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
    for note in training_notes(checkpoint):
        say(note)
    progress = ProgressLine()
    try:
        result = evaluate(model, loader, device=device, on_batch=progress, thresholds=checkpoint.thresholds or None)
    finally:
        progress.close()
    for line in result_lines(result, checkpoint.class_names):
        say(line)
    measured = Measured(model, dataset, result, checkpoint.class_names,
                        config_of(arguments, argv, checkpoint, pipeline_arguments))
    if arguments.out:
        leave_folder(arguments, measured, listed, train, class_names)
    if others:
        show_comparison(compare_runs([*others, measured.as_run(arguments.out)]), arguments.out)
    return 0


def training_notes(checkpoint: Checkpoint) -> list[str]:
    notes = ["NOTE: this checkpoint was trained on generated stand-in clips."] if checkpoint.stand_in else []
    if checkpoint.config.get("final"):
        notes.append(f"note: this model was trained on all videos of {checkpoint.config.get('data')}; its accuracy on "
                     "them says nothing of others")
    return notes


def leave_folder(
    arguments: argparse.Namespace, measured: Measured, listed: VideoList, train: VideoList | None,
    class_names: Sequence[str],
) -> None:
    simpler = [] if arguments.shortcuts == "none" else simpler_models(
        measured, listed, train, class_names, extent=arguments.shortcuts, num_workers=arguments.num_workers,
        batch_size=arguments.batch_size)
    page = write_evaluation(arguments.out, measured, simpler)
    for sentence in shortcut_sentences(simpler) if simpler else ():
        say(f"note: {sentence}")
    say(f"report: {page}")


def config_of(
    arguments: argparse.Namespace, argv: Sequence[str] | None, checkpoint: Checkpoint, pipeline: Mapping[str, Any]
) -> dict[str, Any]:
    """What config.json says of the network, the clips and the command."""
    return {"evaluated": arguments.checkpoint or arguments.model,
            "command": command_of(argv),
            "model": checkpoint.model.get("name", arguments.model), "weights": arguments.weights or "",
            "data": arguments.data, "split": arguments.split or "", "clip_len": pipeline["clip_len"],
            "size": pipeline["size"], "num_clips": pipeline["num_clips"], "num_crops": pipeline.get("num_crops", 1),
            "eval_pipeline": dict(pipeline), "stand_in": checkpoint.stand_in}


def command_of(argv: Sequence[str] | None) -> str:
    return shell_line("tinyaction", "evaluate", *(sys.argv[1:] if argv is None else argv))


def show_comparison(comparison: Comparison, out: str) -> None:
    """Print the comparison; with a folder leave its page there."""
    for line in comparison_lines(comparison):
        say(line)
    if out:
        page = Path(out, "comparison.html")
        write_whole(page, comparison_page(comparison).encode("utf-8", errors="backslashreplace"))
        say(f"comparison: {page}")


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
    parser.add_argument("--out", default="", help="leave a new folder as that of a run: predictions with the scores "
                        "of all classes, classes.csv, shortcuts.csv, report.html; default none")
    parser.add_argument("--shortcuts", choices=("all", "quick", "none"), default="all",
                        help="with --out, what simpler models get: all shows up to 1,000 videos with other frames as "
                        "well, quick takes at most about a fifth of the evaluation (default all)")
    parser.add_argument("--compare", metavar="RUN", nargs="+", default=[], help="folders of runs or of other "
                        "evaluations on these videos: is this better, and where?")
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


def chosen_videos(
    arguments: argparse.Namespace, *, multi_label: bool
) -> tuple[VideoList, list[str], VideoList | None]:
    """The videos to evaluate, the names of their classes, and the videos of training where those are others.

    The videos are of a split, or all where there is none.
    Where "train" or "val" is asked for and there is no split, it is the one that training would make.
    """
    data = find_data(arguments.data, allow_outside=arguments.allow_outside, keep_split=False, any_split=True,
                     multi_label=multi_label,
                     val_share=VAL_SHARE if arguments.split in ("train", "val") else None)
    videos = data.of_split(arguments.split or ("val" if data.val or not data.test else "test"))
    if arguments.clip_len:
        data.notes += clip_length_notes(arguments.clip_len, videos)
    for note in (*data.notes, data.unused_summary()):
        if note:
            say(f"note: {note}")
    is_apart = len(data.train) > 0 and (data.is_split or videos is data.test) and arguments.split != "train"
    return videos, data.class_names, data.train if is_apart else None


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
