"""How fast clips come, stage by stage: clips a second, each the median of several repeats.

The stages of an item are open, decode, resize, augment and pack; "item" is all of them as training runs them, frame by
frame. "collate" makes batches, "loader N" is a loader with N workers; "to device", "forward" and "backward" (with the
optimizer's step) are the network's.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
import torch

from tinyaction.data.annotations import VideoList
from tinyaction.data.dataset import VideoDataset, build_dataloader, collate
from tinyaction.data.transforms import (
    Compose,
    Results,
    Transform,
    VideoDecode,
    VideoFormat,
    VideoInit,
    VideoPack,
    VideoResize,
)
from tinyaction.models import create_model

STAGES = ("open", "decode", "resize", "augment", "pack", "item", "collate")

Clock = Callable[[], float]
OnRepeat = Callable[[], None]  # is called after each of num_repeats() measurements


def measure_items(
    sources: Mapping[str, Sequence[str]], pipeline: Compose, *, batch_size: int, repeats: int,
    clock: Clock = time.perf_counter, on_repeat: OnRepeat = lambda: None,
) -> dict[str, dict[str, float]]:
    """Training items of each source (name -> files), all sources in turn: name -> stage -> clips a second."""
    seconds: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in sources}
    num_threads = cv2.getNumThreads()
    cv2.setNumThreads(0)                                               # as in a worker of the loader
    try:
        for repeat in range(repeats + 1):                              # the first time warms up
            for name, files in sources.items():
                for stage, spent in _item_seconds(files, pipeline, batch_size, clock).items():
                    if repeat:
                        seconds[name][stage].append(spent / len(files))
                on_repeat()
    finally:
        cv2.setNumThreads(num_threads)
    return {name: {stage: 1 / statistics.median(times) for stage, times in stages.items()}
            for name, stages in seconds.items()}


def _item_seconds(files: Sequence[str], pipeline: Compose, batch_size: int, clock: Clock) -> dict[str, float]:
    """Seconds that each stage takes for all files together."""
    seconds = dict.fromkeys(STAGES, 0.0)
    items = []
    for index, file in enumerate(files):
        results: Results = {"filename": file, "label": 0, "rng": np.random.RandomState(index)}
        for transform in pipeline.transforms:
            with _timed(seconds, _stage_of(transform), clock):
                results = transform(results)
                if "imgs" in results and not isinstance(results["imgs"], np.ndarray):
                    results["imgs"] = list(results["imgs"])            # in this stage, and not when the next asks
        items.append(results)
    for index, file in enumerate(files):
        with _timed(seconds, "item", clock):
            pipeline({"filename": file, "label": 0, "rng": np.random.RandomState(index)})
    for start in range(0, len(items), batch_size):
        with _timed(seconds, "collate", clock):
            collate(items[start : start + batch_size])
    return seconds


@contextmanager
def _timed(seconds: dict[str, float], stage: str, clock: Clock) -> Iterator[None]:
    start = clock()
    yield
    seconds[stage] += clock() - start


def _stage_of(transform: Transform) -> str:
    stages: dict[type, str] = {VideoInit: "open", VideoDecode: "decode", VideoResize: "resize", VideoFormat: "pack",
                               VideoPack: "pack"}
    sampler_stage = "open" if type(transform).__name__.endswith("Sample") else "augment"
    return stages.get(type(transform), sampler_stage)


def measure_loader(
    files: Sequence[str], pipeline: Compose, *, batch_size: int, num_workers: int, repeats: int,
    on_repeat: OnRepeat = lambda: None,
) -> float:
    """Items a second of a loader whose workers are up; an epoch goes over the files often enough to fill them."""
    often = max(1, -(-4 * batch_size * max(1, num_workers) // len(files)))
    videos = VideoList(list(files) * often, [0] * (len(files) * often))
    loader = build_dataloader(VideoDataset(videos, pipeline), batch_size=batch_size, num_workers=num_workers)
    seconds = []
    for _ in range(repeats + 1):                                       # the first time starts the workers
        start = time.perf_counter()
        for _ in loader:
            pass
        seconds.append(time.perf_counter() - start)
        on_repeat()
    loader.close()
    return len(videos) / statistics.median(seconds[1:])


def measure_model(
    model_name: str, *, clip_len: int, size: int, batch_size: int, device: torch.device, repeats: int,
    on_repeat: OnRepeat = lambda: None,
) -> dict[str, float]:
    """The network's stages on a batch of random training clips: stage -> clips a second."""
    model = create_model(model_name, 2).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch_size, 1, 3, clip_len, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    seconds: dict[str, list[float]] = defaultdict(list)
    for repeat in range(repeats + 1):
        spent = {"to device": 0.0, "forward": 0.0, "backward": 0.0}
        with _timed(spent, "to device", clock):
            inputs = pixels.to(device) if device.type != "cpu" else pixels.clone()
        with _timed(spent, "forward", clock):
            loss = model.cls_head.loss(model(inputs, mode="logits"), labels)
        with _timed(spent, "backward", clock):
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for stage, value in spent.items():
            if repeat:                                                 # the first time warms up
                seconds[stage].append(value)
        on_repeat()
    return {stage: batch_size / statistics.median(times) for stage, times in seconds.items()}
