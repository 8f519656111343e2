"""How fast clips come, stage by stage, and what that costs in memory; and how the guide's own way compares.

Everything is measured in a fresh process (memory that was used before would hide what is used now) and repeated;
the median counts. Memory is the peak above what the process had before, in bytes.
"""

import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch

from tinyaction.data.annotations import VideoList
from tinyaction.data.dataset import VideoDataset, build_dataloader, collate
from tinyaction.data.pipelines import train_pipeline
from tinyaction.data.transforms import (
    Compose,
    Results,
    VideoCrop,
    VideoDecode,
    VideoFormat,
    VideoInit,
    VideoPack,
    VideoResize,
    VideoSample,
)
from tinyaction.models import create_model
from tinyaction.prepare.stored_file import StoreSettings, store_video
from tinyaction.video import UInt8Array
from tinyaction.video.frames import FORMATS

Result = TypeVar("Result")
STAGES = ("open", "decode", "resize", "augment", "pack", "item", "collate")


@dataclass
class Speed:
    """Clips (views of a video) a second, and bytes at the peak above those before; None where it is not known."""

    clips_per_second: float
    peak_bytes: int | None


@dataclass
class Comparison:
    """One video, evaluated the guide's way and here."""

    video: str
    guide: Speed
    here: Speed
    equal_pixels: bool

    @property
    def times_faster(self) -> float:
        return self.here.clips_per_second / self.guide.clips_per_second

    @property
    def memory_share(self) -> float | None:
        if not self.guide.peak_bytes or self.here.peak_bytes is None:
            return None
        return self.here.peak_bytes / self.guide.peak_bytes


# ---- the guide's way -----------------------------------------------------------------------------------------------


def guide_item(video: str, clip_len: int, num_clips: int, resize: int, crop: int) -> UInt8Array:
    """The guide's evaluation pipeline, restated plainly: (V, 3, T, crop, crop).

    Its frames are decoded in the order in which they were drawn, clip after clip, so a decoder goes back to the start
    for each; all of them are held at full size; then they are resized.

    Source: MMAction2's 20-minute guide as of version 1.2.0 (VideoInit, VideoSample, VideoDecode, VideoResize,
    VideoCrop, VideoFormat), with an even crop size.
    """
    import decord

    reader = decord.VideoReader(video, num_threads=1)
    rng = np.random.RandomState(42)
    interval = len(reader) // clip_len
    drawn = [np.arange(clip_len) * interval + rng.randint(interval, size=clip_len) for _ in range(num_clips)]
    frames = list(reader.get_batch(np.concatenate(drawn)).asnumpy())
    height, width = frames[0].shape[:2]
    scale = resize / min(height, width)
    size = int(width * scale + 0.5), int(height * scale + 0.5)
    frames = [cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in frames]
    left, top = size[0] // 2 - crop // 2, size[1] // 2 - crop // 2
    frames = [frame[top : top + crop, left : left + crop] for frame in frames]
    clips = np.stack(frames).reshape((num_clips, clip_len, crop, crop, 3))
    return np.ascontiguousarray(clips.transpose(0, 4, 1, 2, 3))


def our_item(video: str, clip_len: int, num_clips: int, resize: int, crop: int) -> UInt8Array:
    """The same with the transforms of this package."""
    pipeline = Compose([VideoInit(), VideoSample(clip_len, num_clips, test_mode=True), VideoDecode(),
                        VideoResize(resize), VideoCrop(crop), VideoFormat(), VideoPack()])
    return pipeline({"filename": video})["inputs"].numpy()


def compare_with_guide(
    videos: Sequence[str], *, clip_len: int = 16, num_clips: int = 5, resize: int = 256, crop: int = 224,
    repeats: int = 5, cpu_time: bool = False,
) -> list[Comparison]:
    """Evaluation items of each video both ways, in turn: pixels, speed and peak memory.

    ``cpu_time`` counts the seconds that a processor worked for the process, where others use the machine too.
    """
    comparisons = []
    for video in videos:
        arguments = (video, clip_len, num_clips, resize, crop)
        equal, seconds = in_fresh_process(_both_ways, arguments, repeats, cpu_time)
        peaks = [in_fresh_process(_peak_of_item, make, arguments) for make in (guide_item, our_item)]
        guide, here = (Speed(num_clips / each, peak) for each, peak in zip(seconds, peaks, strict=True))
        comparisons.append(Comparison(video, guide, here, equal))
    return comparisons


def _both_ways(
    arguments: tuple[str, int, int, int, int], repeats: int, cpu_time: bool
) -> tuple[bool, tuple[float, float]]:
    equal = np.array_equal(guide_item(*arguments), our_item(*arguments))
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(repeats):
        for make, times in zip((guide_item, our_item), seconds, strict=True):
            step: Callable[[], object] = partial(make, *arguments)
            times.append(_seconds(step, cpu_time=cpu_time))
    return equal, (statistics.median(seconds[0]), statistics.median(seconds[1]))


def _peak_of_item(make: Callable[..., UInt8Array], arguments: tuple[str, int, int, int, int]) -> int | None:
    import decord  # noqa: F401  (what is loaded once is not the item's)

    return peak_bytes(lambda: make(*arguments))


# ---- stages --------------------------------------------------------------------------------------------------------


def store_videos(videos: Sequence[str], folder: Path, settings: StoreSettings) -> tuple[list[str], float]:
    """Store the videos; returns their files and the seconds it took."""
    files = [folder / settings.format / f"{number}{FORMATS[settings.format]}" for number in range(len(videos))]
    start = time.perf_counter()
    for video, file in zip(videos, files, strict=True):
        store_video(Path(video), file, settings)
    return [str(file) for file in files], time.perf_counter() - start


def measure_stages(
    sources: dict[str, Sequence[str]], *, clip_len: int, size: int, batch_size: int, num_workers: Sequence[int],
    repeats: int = 5, cpu_time: bool = False, augment: str = "basic",
) -> dict[str, dict[str, Speed]]:
    """Training items of each source (name -> files), all sources in turn: stage -> speed, for each source.

    The stages are open, decode, resize, augment, pack, item (all of these, as training runs them: frame by frame, one
    item after another), collate, and "loader N" with N workers. ``augment`` as in the training pipeline.
    """
    pipeline = train_pipeline(clip_len=clip_len, size=size, augment=augment)
    return in_fresh_process(_stages, sources, pipeline, batch_size, tuple(num_workers), repeats, cpu_time)


def _stages(
    sources: dict[str, Sequence[str]], pipeline: Compose, batch_size: int, num_workers: Sequence[int],
    repeats: int, cpu_time: bool,
) -> dict[str, dict[str, Speed]]:
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in sources}
    peaks: dict[str, dict[str, int | None]] = {name: {} for name in sources}
    for repeat in range(repeats + 1):                                  # the first time warms up and measures memory
        for name, files in sources.items():
            times: dict[str, float] = {}
            items = []
            for index, file in enumerate(files):
                rng = np.random.RandomState(index)
                results: Results = {"filename": file, "label": 0, "rng": rng}
                for transform in pipeline.transforms:                  # one by one: Compose would join two of them
                    def step(transform: Any = transform, results: Results = results) -> None:
                        results.update(transform(results))
                    stage = _stage_of(transform)
                    _measure(step, stage, repeat, times, peaks[name], cpu_time)
                items.append({key: results[key] for key in ("inputs", "data_samples")})
            pipeline({"filename": files[-1], "label": 0, "rng": rng})  # what stood in the caches is not the items'
            for index, file in enumerate(files):
                def whole(file: str = file, index: int = index) -> None:
                    pipeline({"filename": file, "label": 0, "rng": np.random.RandomState(index)})
                _measure(whole, "item", repeat, times, peaks[name], cpu_time)
            for start in range(0, len(items), batch_size):
                batch = items[start : start + batch_size]
                _measure(partial(collate, batch), "collate", repeat, times, peaks[name], cpu_time)
            if repeat:
                for stage, spent in times.items():
                    seconds[name].setdefault(stage, []).append(spent / len(files))
    speeds = {name: {stage: Speed(1 / statistics.median(seconds[name][stage]), peaks[name][stage]) for stage in STAGES}
              for name in sources}
    for workers in num_workers:
        for name, files in sources.items():
            speeds[name][f"loader {workers}"] = Speed(
                _loader_speed(files, pipeline, batch_size, workers, repeats), None)
    return speeds


def _measure(step: Callable[[], object], stage: str, repeat: int, times: dict[str, float],
             peaks: dict[str, int | None], cpu_time: bool) -> None:
    if repeat:
        times[stage] = times.get(stage, 0.0) + _seconds(step, cpu_time=cpu_time)
    else:
        peak, before = peak_bytes(step), peaks.get(stage)
        peaks[stage] = peak if before is None or peak is None else max(peak, before)


def _stage_of(transform: Any) -> str:
    kinds = {VideoInit: "open", VideoDecode: "decode", VideoResize: "resize", VideoFormat: "pack", VideoPack: "pack"}
    name = type(transform).__name__
    return kinds.get(type(transform), "open" if name.endswith("Sample") else "augment")


def _loader_speed(files: Sequence[str], pipeline: Compose, batch_size: int, num_workers: int, repeats: int) -> float:
    """Items a second of a loader whose workers are up; each epoch goes over the files often enough to fill them."""
    often = max(1, -(-4 * batch_size * max(1, num_workers) // len(files)))
    videos = VideoList(list(files) * often, [0] * (len(files) * often))
    loader = build_dataloader(VideoDataset(videos, pipeline), batch_size=batch_size, num_workers=num_workers)
    seconds = []
    for repeat in range(min(repeats, 3) + 1):
        start = time.perf_counter()
        for _ in loader:
            pass
        if repeat:
            seconds.append(time.perf_counter() - start)
    loader.close()
    return len(videos) / statistics.median(seconds)


def measure_model(
    model: str, *, clip_len: int, size: int, batch_size: int, device: torch.device, amp: torch.dtype | None = None,
    repeats: int = 5,
) -> dict[str, Speed]:
    """The stages "to device", "forward" and "backward" (with the optimizer's step) of a batch of training clips."""
    return in_fresh_process(_model_stages, model, clip_len, size, batch_size, device, amp, repeats)


def _model_stages(
    model_name: str, clip_len: int, size: int, batch_size: int, device: torch.device, amp: torch.dtype | None,
    repeats: int,
) -> dict[str, Speed]:
    model = create_model(model_name, 2).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch_size, 1, 3, clip_len, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    kept: dict[str, torch.Tensor] = {}

    def to_device() -> None:
        kept["inputs"] = pixels.to(device) if device.type != "cpu" else pixels.clone()

    def forward() -> None:
        with torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            kept["loss"] = model.cls_head.loss(model(kept["inputs"], mode="logits"), labels)

    def backward() -> None:
        kept["loss"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    speeds = {}
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, int | None] = {}
    for repeat in range(repeats + 1):
        for stage, step in (("to device", to_device), ("forward", forward), ("backward", backward)):
            if repeat:
                seconds.setdefault(stage, []).append(_seconds(step, device))
            else:
                peaks[stage] = peak_bytes(step, device)
    for stage, times in seconds.items():
        speeds[stage] = Speed(batch_size / statistics.median(times), peaks[stage])
    return speeds


# ---- clocks and memory ---------------------------------------------------------------------------------------------


def _seconds(step: Callable[[], object], device: torch.device | None = None, *, cpu_time: bool = False) -> float:
    clock = time.process_time if cpu_time else time.perf_counter
    start = clock()
    step()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def peak_bytes(step: Callable[[], object], device: torch.device | None = None) -> int | None:
    """The most memory that a step takes above what was there, in bytes: the process's, or on CUDA the device's.

    On Linux the kernel's mark of the peak is put back before; elsewhere the mark only rises, so steps that stay below
    an earlier one give 0.
    """
    if device is not None and device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        step()
        return max(0, _status("VmHWM") - before)
    except OSError:
        import resource  # not on Windows

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        step()
        rise = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        return rise * (1 if sys.platform == "darwin" else 1024)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def in_fresh_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function of this module in a process of its own and return what it returns, or raise what it raises.

    Not by multiprocessing: that would import the calling script again, and the script would measure again.
    """
    program = "from tinyaction.cli.measuring import answer; answer()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps((function, arguments)),
                          stdout=subprocess.PIPE, env=environment)
    if done.returncode:
        raise ChildProcessError(f"measuring ended with exit code {done.returncode}; memory may be short: take fewer "
                                "videos or a smaller --batch-size")
    result = pickle.loads(done.stdout)
    if isinstance(result, Exception):
        raise result
    return result


def answer() -> None:
    """The other end of :func:`in_fresh_process`: asked on stdin, answers on stdout, which nothing else may use."""
    cv2.setNumThreads(0)                                               # as in a worker of the loader
    stdout = os.dup(1)
    os.dup2(2, 1)
    function, arguments = pickle.load(sys.stdin.buffer)
    try:
        result = function(*arguments)
    except (ValueError, OSError) as error:
        result = error
    with open(stdout, "wb") as file:
        pickle.dump(result, file)
