"""Measure how fast clips come, stage by stage, from the videos and from each kind of frame store.

Training items with this run's flags, one clip a video; the stores are made in a temporary folder. Then evaluation
items the way of MMAction2's 20-minute guide, beside the same items here.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.cli.measuring import (
    STAGES,
    Comparison,
    Speed,
    compare_with_guide,
    measure_model,
    measure_stages,
    store_videos,
)
from tinyaction.data.annotations import find_data
from tinyaction.data.pipelines import AUGMENTATIONS
from tinyaction.device import choose_device, default_num_workers, num_cores
from tinyaction.models.checkpoint import versions
from tinyaction.prepare.stored_file import StoreSettings
from tinyaction.video.frames import FORMATS

EVAL_CLIP_LEN, EVAL_CLIPS, EVAL_RESIZE, EVAL_CROP = 16, 5, 256, 224  # the guide's


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    return measure(parse_args(argv))


def measure(arguments: argparse.Namespace) -> int:
    device = choose_device(arguments.device)
    videos = chosen_videos(arguments.data, arguments.num_videos)
    result: dict[str, Any] = {"machine": machine(device), "flags": vars(arguments), "videos": videos}
    print(f"{result['machine']['processor']}, {num_cores()} cores, on {device}; torch {torch.__version__}")
    clock = "processor time" if arguments.cpu_time else "wall time"
    print(f"{len(videos)} videos, medians of {arguments.repeats}, {clock}")
    if "stages" in arguments.parts:
        result["stages"], result["stores"] = stages(arguments, videos)
        for line in stage_lines(result["stages"], arguments, result["stores"]):
            print(line)
    if "model" in arguments.parts:
        speeds = measure_model(arguments.model, clip_len=arguments.clip_len, size=arguments.size,
                               batch_size=arguments.batch_size, device=device, repeats=arguments.repeats)
        result["model"] = speeds
        for line in model_lines(speeds, arguments, result.get("stages", {})):
            print(line)
    if "guide" in arguments.parts:
        comparisons = compare_with_guide(videos, clip_len=EVAL_CLIP_LEN, num_clips=EVAL_CLIPS, resize=EVAL_RESIZE,
                                         crop=EVAL_CROP, repeats=arguments.repeats, cpu_time=arguments.cpu_time)
        result["guide"] = comparisons
        for line in guide_lines(comparisons):
            print(line)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2, default=as_json) + "\n", encoding="utf-8")
        print(f"written to {arguments.json}")
    return 0


def parse_args(argv: Sequence[str] | None, prog: str = "benchmark.py") -> argparse.Namespace:
    parser = Parser(prog=prog, description=__doc__, allow_abbrev=False)
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
    parser.add_argument("--num-workers", type=int, nargs="*", default=[0, default_num_workers()],
                        help="loaders to measure (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--parts", nargs="+", default=["stages", "model", "guide"],
                        choices=("stages", "model", "guide"), help="what to measure (all)")
    parser.add_argument("--cpu-time", action="store_true", help="count the process's processor time, not the wall's, "
                        "where others use the machine too (not for loaders and network)")
    parser.add_argument("--json", default="", help="file for the numbers")
    arguments = parser.parse_args(argv)
    for name in ("num_videos", "repeats", "clip_len", "size", "short_side", "batch_size"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; it must be at least 1")
    if any(workers < 0 for workers in arguments.num_workers):
        raise ValueError(f"--num-workers is {min(arguments.num_workers)}; it must be at least 0")
    return arguments


def chosen_videos(data: Sequence[str], num_videos: int) -> list[str]:
    """The files, and of each folder so many of its videos, evenly spread over its validation list."""
    videos = []
    for place in data:
        if Path(place).is_dir():
            found = find_data(place).val
            num = min(num_videos, len(found))
            videos += [found[i * len(found) // num][0] for i in range(num)]
        else:
            videos.append(place)
    return videos


def stages(
    arguments: argparse.Namespace, videos: Sequence[str]
) -> tuple[dict[str, dict[str, Speed]], dict[str, dict[str, float]]]:
    """Speeds of videos and stores, and what the stores took: seconds and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        sources: dict[str, Sequence[str]] = {"videos": list(videos)}
        stores = {}
        for form in FORMATS:
            files, seconds = store_videos(videos, Path(folder), StoreSettings(form, arguments.short_side))
            sources[form] = files
            stores[form] = {"seconds": seconds, "bytes": sum(Path(file).stat().st_size for file in files)}
        stores["videos"] = {"seconds": 0, "bytes": sum(Path(video).stat().st_size for video in videos)}
        speeds = measure_stages(sources, clip_len=arguments.clip_len, size=arguments.size,
                                batch_size=arguments.batch_size, num_workers=arguments.num_workers,
                                repeats=arguments.repeats, cpu_time=arguments.cpu_time, augment=arguments.augment)
    return speeds, stores


def stage_lines(
    speeds: dict[str, dict[str, Speed]], arguments: argparse.Namespace, stores: dict[str, dict[str, float]]
) -> list[str]:
    """A table at most 80 columns wide."""
    lines = ["", f"training items, {arguments.clip_len} frames of {arguments.size}x{arguments.size}, --augment "
                 f"{arguments.augment} (stores: short side {arguments.short_side})",
             f"{'':<10}" + "".join(f"{name:^22}" for name in speeds),
             f"{'stage':<10}" + f"{'clips/s':>12}{'peak MB':>10}" * len(speeds)]
    for stage in (*STAGES, *(f"loader {workers}" for workers in arguments.num_workers)):
        cells = [speed_cells(speeds[name][stage]) for name in speeds]
        lines.append(f"{stage:<10}" + "".join(cells))
    items = {name: speeds[name]["item"].clips_per_second for name in speeds}
    lines += ["", f"items: jpeg {items['jpeg'] / items['videos']:.1f} times as fast as the videos, "
                  f"raw {items['raw'] / items['jpeg']:.1f} times as fast as jpeg",
              "on disk: " + ", ".join(f"{name} {stores[name]['bytes'] / 1e6:.0f} MB" for name in speeds),
              "stored in " + ", ".join(f"{stores[form]['seconds']:.1f} s ({form})" for form in FORMATS)]
    return lines


def model_lines(
    speeds: dict[str, Speed], arguments: argparse.Namespace, sources: dict[str, dict[str, Speed]]
) -> list[str]:
    lines = ["", f"{arguments.model}, batches of {arguments.batch_size}",
             f"{'stage':<10}{'clips/s':>12}{'peak MB':>10}"]
    lines += [f"{stage:<10}{speed_cells(speed)}" for stage, speed in speeds.items()]
    step = 1 / sum(1 / speed.clips_per_second for speed in speeds.values())
    lines.append(f"{'step':<10}{step:>12.1f}")
    if sources and arguments.num_workers:
        workers = max(arguments.num_workers)
        shares = {name: min(1.0, stages[f"loader {workers}"].clips_per_second / step)
                  for name, stages in sources.items()}
        lines.append(f"with {workers} workers the device is busy up to "
                     + ", ".join(f"{share:.0%} ({name})" for name, share in shares.items()))
    return lines


def guide_lines(comparisons: Sequence[Comparison]) -> list[str]:
    lines = ["", f"evaluation items, {EVAL_CLIP_LEN} frames x {EVAL_CLIPS} clips, beside the guide's way",
             f"{'':<24}{'clips/s':^20}{'times':>7}{'peak MB':^20}{'equal':>8}",
             f"{'video':<24}{'guide':>10}{'here':>10}{'faster':>7}{'guide':>10}{'here':>10}{'pixels':>8}"]
    for each in comparisons:
        peaks = "".join(f"{megabytes(speed.peak_bytes):>10}" for speed in (each.guide, each.here))
        lines.append(f"{Path(each.video).name[:23]:<24}{each.guide.clips_per_second:>10.1f}"
                     f"{each.here.clips_per_second:>10.1f}{each.times_faster:>7.1f}{peaks}"
                     f"{'yes' if each.equal_pixels else 'NO':>8}")
    return lines


def speed_cells(speed: Speed) -> str:
    return f"{speed.clips_per_second:>12,.1f}{megabytes(speed.peak_bytes):>10}"


def megabytes(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 1e6:.1f}"


def machine(device: torch.device) -> dict[str, Any]:
    return {"processor": processor(), "cores": num_cores(), "system": platform.platform(), "device": str(device),
            "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "", **versions()}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def as_json(value: object) -> Any:
    if isinstance(value, Comparison):
        return asdict(value) | {"times_faster": value.times_faster, "memory_share": value.memory_share}
    return asdict(value)  # type: ignore[call-overload]
