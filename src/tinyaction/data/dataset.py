"""From annotation lines to batches: :class:`VideoDataset`, :func:`collate`, :func:`build_dataloader`.

Lists of videos are read in :mod:`tinyaction.data.annotations`; workers and order are in :mod:`tinyaction.data.loader`.

Randomness: one generator, seeded by (run seed, epoch, item index), makes every random draw of an item, and (run seed,
epoch) seeds the order of an epoch. So the batches are the same whatever the number of workers.
"""

from collections.abc import Sequence
from os.path import exists, join
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from tinyaction.data.annotations import VideoList, read_list
from tinyaction.data.loader import EpochSampler, OnError, VideoLoader
from tinyaction.data.transforms import Transform
from tinyaction.sample import DataSample

Item = dict[str, Any]  # {"inputs": (V, C, T, H, W) uint8, "data_samples": DataSample}
Batch = dict[str, Any]  # {"inputs": (B, V, C, T, H, W) uint8, "data_samples": list of B DataSample}


class VideoDataset(Dataset[Item]):
    """Videos of an annotation file, each run through a pipeline.

    Args:
        ann_file: a text file with lines "path label", relative to ``data_root``; or a :class:`VideoList`.
        pipeline: a callable ``dict -> dict`` that receives ``filename``, ``label`` and ``rng``; see
            :mod:`tinyaction.data.transforms`.
        data_root: folder of the annotation file.
        data_prefix: folder of the videos, relative to ``data_root``.
        test_mode: random transforms draw the same in every epoch.
        class_names: names of the classes, by label; labels must be below their number.
        seed: the run's seed.

    ``dataset[3]`` is item 3 of epoch 0, ``dataset[2, 3]`` item 3 of epoch 2.

    Raises:
        ValueError: the list is empty or a line is wrong (file and line are named).
        FileNotFoundError: there is no such list.
    """

    def __init__(
        self,
        ann_file: str | Path | VideoList,
        pipeline: Transform,
        *,
        data_root: str | Path = "",
        data_prefix: str = "",
        test_mode: bool = False,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(ann_file, VideoList):
            beside = join(data_root, ann_file)
            num_classes = None if class_names is None else len(class_names)
            ann_file = read_list(ann_file if exists(ann_file) and not exists(beside) else beside,
                                 prefix=join(data_root, data_prefix), num_classes=num_classes)
        self.videos = ann_file
        self.pipeline = pipeline
        self.test_mode = test_mode
        self.class_names = None if class_names is None else list(class_names)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        index %= len(self)
        filename, label = self.videos[index]
        rng = np.random.RandomState([self.seed, 0 if self.test_mode else epoch, index])
        results = {"filename": filename, "label": label, "rng": rng}
        if self.videos.num_frames is not None:
            results["num_frames"] = int(self.videos.num_frames[index])
        return self.pipeline(results)

    def filename(self, index: int) -> str:
        return self.videos[index][0]

    def __repr__(self) -> str:
        mode = "test" if self.test_mode else "train"
        num_classes = len(self.class_names or np.unique(self.videos.labels))
        return (f"VideoDataset({len(self)} videos of {num_classes} classes from {self.videos.source}, {mode} mode)\n"
                f"{self.pipeline!r}")


def collate(items: Sequence[Item]) -> Batch:
    """Stack B items to ``{"inputs": (B, V, C, T, H, W) uint8, "data_samples": list of B}``.

    Raises:
        ValueError: the items differ in shape; the first two that do are named.
    """
    first = items[0]
    for item in items:
        if item["inputs"].shape != first["inputs"].shape:
            a, b = ((it["data_samples"].filename, tuple(it["inputs"].shape)) for it in (first, item))
            raise ValueError(f"videos of one batch must have one shape (V, C, T, H, W), but {a[0]} has {a[1]} and "
                             f"{b[0]} has {b[1]}; end the pipeline with a crop of one size")
    samples: list[DataSample] = [item["data_samples"] for item in items]
    return {"inputs": torch.stack([item["inputs"] for item in items]), "data_samples": samples}


def build_dataloader(
    dataset: VideoDataset,
    *,
    batch_size: int,
    shuffle: bool = False,
    balanced: bool = False,
    num_workers: int = 0,
    seed: int | None = None,
    pin_memory: bool = False,
    prefetch: int = 2,
    rank: int = 0,
    num_ranks: int = 1,
    on_error: OnError = "raise",
    max_skipped: float = 0.1,
    video_timeout: float = 300.0,
    even: bool = False,
) -> VideoLoader:
    """Batches of a dataset; call ``loader.set_epoch(epoch)`` before each training epoch.

    Args:
        batch_size: videos of a batch; the last one may be smaller.
        shuffle: a new order in every epoch.
        balanced: draw each class equally often, repeating videos of rare classes; see
            :class:`tinyaction.data.order.EpochSampler`.
        num_workers: processes that decode; 0 decodes in this process.
        seed: of the order; default the dataset's.
        pin_memory: page-locked batches, for faster copies to a CUDA device.
        prefetch: batches that each worker makes ahead.
        rank, num_ranks, even: number of this process among several, and how the last batches are dealt to them; see
            :func:`tinyaction.data.order.rank_batches`.
        on_error: "raise" the error of a video, or "skip" the video: its batch is smaller, ``loader.bad`` lists it.
        max_skipped: largest share of an epoch's videos that may be skipped.
        video_timeout: seconds that a worker may take for one video before it is stopped; no limit without workers.

    Iterating raises what an item raised: :class:`tinyaction.video.VideoError`, or ``ValueError`` of a transform.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    sampler = EpochSampler(len(dataset), shuffle=shuffle, seed=dataset.seed if seed is None else seed,
                           labels=dataset.videos.labels if balanced else None)
    return VideoLoader(dataset, batch_size=batch_size, sampler=sampler, collate=collate, num_workers=num_workers,
                       pin_memory=pin_memory, prefetch=prefetch, rank=rank, num_ranks=num_ranks, on_error=on_error,
                       max_skipped=max_skipped, video_timeout=video_timeout, even=even)


def check_files_exist(*lists: VideoList) -> None:
    """Raise FileNotFoundError for the first video that does not exist."""
    for videos in lists:
        missing = [name for name, _ in (videos[i] for i in range(len(videos))) if not Path(name).exists()]
        if missing:
            raise FileNotFoundError(f"{missing[0]}: no such file; {len(missing)} of {len(videos)} videos listed in "
                                    f"{videos.source} are missing")
