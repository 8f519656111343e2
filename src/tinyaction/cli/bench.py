"""Clips a second, stage by stage, from your videos and from each kind of frame store of them.

Training items with this run's flags, one clip a video; then a loader, and the network. The stores are made in a
temporary folder.
"""

import argparse
import itertools
import json
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from tinyaction.cli import (
    Parser,
    add_list_flags,
    check_at_least,
    errors_to_exit_code,
    list_flags,
    num_workers_of,
    say,
)
from tinyaction.cli.network import check_clip_length
from tinyaction.cli.progress import CountLine
from tinyaction.data.annotations import find_data
from tinyaction.data.pipelines import AUGMENTATIONS, train_pipeline
from tinyaction.device import choose_device, num_cores
from tinyaction.files import check_output, write_whole
from tinyaction.models.checkpoint import versions
from tinyaction.prepare.stored_file import StoreSettings, store_video
from tinyaction.results.speed import STAGES, OnRepeat, measure_items, measure_loader, measure_model
from tinyaction.video.frames import FORMATS

Speeds = Mapping[str, float]  # stage -> clips a second


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    if arguments.json:
        check_output(arguments.json, flag="--json", inputs=arguments.data, force=arguments.force)
    device = choose_device(arguments.device)
    videos = chosen_videos(arguments)
    check_clip_length(arguments, videos)
    clock = "processor time" if arguments.cpu_time else "wall time"
    say(f"{processor()}, {num_cores()} cores, on {device}; torch {torch.__version__}\n"
        f"{len(videos)} videos, medians of {arguments.repeats}, {clock}")
    line, numbers, num_all = CountLine(), itertools.count(1), num_measurements(arguments)

    def on_repeat() -> None:
        line("measurements", next(numbers), num_all)

    with tempfile.TemporaryDirectory() as folder:
        sources, stores = store_each_form(videos, Path(folder), arguments.short_side)
        items = measure_sources(sources, arguments, on_repeat)
    model = measure_model(arguments.model, clip_len=arguments.clip_len, size=arguments.size,
                          batch_size=arguments.batch_size, device=device, repeats=arguments.repeats,
                          on_repeat=on_repeat)
    line.clear()
    lines = [*item_lines(items, arguments), *store_lines(items, stores), *model_lines(model, items, arguments)]
    print("\n".join(lines))
    if arguments.json:
        machine = {"processor": processor(), "cores": num_cores(), "system": platform.platform(),
                   "device": str(device), **versions()}
        result = {"machine": machine, "flags": vars(arguments), "videos": videos, "clips_per_second": items,
                  "stores": stores, "model": model}
        write_whole(arguments.json, json.dumps(result, indent=2) + "\n")
        say(f"written to {arguments.json}")
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="tinyaction bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", required=True, nargs="+", help="folder of videos and lists, or video files")
    parser.add_argument("--num-videos", type=int, default=6, help="of a folder, evenly spread (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement (%(default)s)")
    parser.add_argument("--clip-len", type=int, default=16, help="frames of a clip (%(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of the network's square, pixels (%(default)s)")
    parser.add_argument("--augment", default="basic", choices=AUGMENTATIONS,
                        help="of the training items: none takes the centre (%(default)s)")
    parser.add_argument("--short-side", type=int, default=256, help="of the stored frames, pixels (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="videos of a batch (%(default)s)")
    parser.add_argument("--model", default="conv2d", help="network of the last stages (%(default)s)")
    parser.add_argument("--num-workers", type=int, nargs="*", default=[0, -1], metavar="N",
                        help="of the loaders to measure: 0 decodes in the main process, -1 starts one per core "
                        "(default 0 -1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--cpu-time", action="store_true", help="count the process's processor time, not the wall's, "
                        "where others use the machine too (not for loaders and network)")
    parser.add_argument("--json", default="", metavar="FILE.json", help="file for the numbers")
    add_list_flags(parser)
    parser.add_argument("--force", action="store_true", help="replace a file that tinyaction wrote before")
    arguments = parser.parse_args(argv)
    check_at_least(1, arguments, "num_videos", "repeats", "clip_len", "size", "short_side", "batch_size")
    arguments.num_workers = [num_workers_of(workers) for workers in arguments.num_workers]
    return arguments


def chosen_videos(arguments: argparse.Namespace) -> list[str]:
    """The files, and of each folder so many of its videos, evenly spread over its validation list."""
    videos = []
    for place in arguments.data:
        if Path(place).is_dir():
            found = find_data(place, keep_split=False, **list_flags(arguments)).val
            num = min(arguments.num_videos, len(found))
            videos += [found[i * len(found) // num][0] for i in range(num)]
        else:
            videos.append(place)
    return videos


# ---- measuring -----------------------------------------------------------------------------------------------------


def num_measurements(arguments: argparse.Namespace) -> int:
    num_sources = 1 + len(FORMATS)
    return (arguments.repeats + 1) * (num_sources + num_sources * len(arguments.num_workers) + 1)


def store_each_form(
    videos: Sequence[str], folder: Path, short_side: int
) -> tuple[dict[str, list[str]], dict[str, dict[str, float]]]:
    """The files of each source, and what the stores took: seconds and bytes."""
    sources = {"videos": list(videos)}
    stores = {"videos": {"seconds": 0.0, "bytes": _size_of(videos)}}
    for form, suffix in FORMATS.items():
        files = [folder / form / f"{number}{suffix}" for number in range(len(videos))]
        start = time.perf_counter()
        for video, file in zip(videos, files, strict=True):
            store_video(Path(video), file, StoreSettings(form, short_side))
        seconds = time.perf_counter() - start
        sources[form] = [str(file) for file in files]
        stores[form] = {"seconds": seconds, "bytes": _size_of(sources[form])}
    return sources, stores


def _size_of(files: Sequence[str]) -> int:
    return sum(Path(file).stat().st_size for file in files if Path(file).exists())


def measure_sources(
    sources: Mapping[str, Sequence[str]], arguments: argparse.Namespace, on_repeat: OnRepeat
) -> dict[str, dict[str, float]]:
    """Clips a second of each source: its stages, and its loaders."""
    pipeline = train_pipeline(clip_len=arguments.clip_len, size=arguments.size, augment=arguments.augment)
    items = measure_items(sources, pipeline, batch_size=arguments.batch_size, repeats=arguments.repeats,
                          clock=time.process_time if arguments.cpu_time else time.perf_counter, on_repeat=on_repeat)
    for name, files in sources.items():
        for workers in arguments.num_workers:
            items[name][f"loader {workers}"] = measure_loader(
                files, pipeline, batch_size=arguments.batch_size, num_workers=workers, repeats=arguments.repeats,
                on_repeat=on_repeat)
    return items


# ---- what is shown -------------------------------------------------------------------------------------------------


def item_lines(items: Mapping[str, Speeds], arguments: argparse.Namespace) -> list[str]:
    """A table of stages by sources, at most 80 columns wide."""
    lines = ["", f"training items, {arguments.clip_len} frames of {arguments.size}x{arguments.size}, --augment "
                 f"{arguments.augment} (stores: short side {arguments.short_side})",
             f"{'clips/s':<10}" + "".join(f"{name:>14}" for name in items)]
    for stage in (*STAGES, *(f"loader {workers}" for workers in arguments.num_workers)):
        lines.append(f"{stage:<10}" + "".join(f"{speeds[stage]:>14,.1f}" for speeds in items.values()))
    return lines


def store_lines(items: Mapping[str, Speeds], stores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What a store gains and takes."""
    speed = {name: speeds["item"] for name, speeds in items.items()}
    return ["", f"items: jpeg {speed['jpeg'] / speed['videos']:.1f} times as fast as the videos, "
                f"raw {speed['raw'] / speed['jpeg']:.1f} times as fast as jpeg",
            "on disk: " + ", ".join(f"{name} {stores[name]['bytes'] / 1e6:.0f} MB" for name in items),
            "stored in " + ", ".join(f"{stores[form]['seconds']:.1f} s ({form})" for form in FORMATS)]


def model_lines(model: Speeds, items: Mapping[str, Speeds], arguments: argparse.Namespace) -> list[str]:
    """The network's stages, their sum, and how busy the loaders keep the device."""
    step = 1 / sum(1 / speed for speed in model.values())
    lines = ["", f"{arguments.model}, batches of {arguments.batch_size}", f"{'clips/s':>24}"]
    lines += [f"{stage:<10}{speed:>14,.1f}" for stage, speed in {**model, "step": step}.items()]
    if arguments.num_workers:
        workers = max(arguments.num_workers)
        shares = {name: min(1.0, speeds[f"loader {workers}"] / step) for name, speeds in items.items()}
        lines.append(f"with {workers} workers the device is busy up to "
                     + ", ".join(f"{share:.0%} ({name})" for name, share in shares.items()))
    return lines


def processor() -> str:
    """The name of the processor, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
