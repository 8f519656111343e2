"""From annotation lines to batches: :class:`VideoDataset`, :func:`collate`, :func:`build_dataloader`.

Randomness: every random draw of an item comes from one generator that is seeded by (run seed, epoch, item index), and
the order of an epoch from (run seed, epoch). So the batches are the same whatever the number of workers.
"""

from collections.abc import Iterator, Sequence
from os.path import exists, join
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tinyaction.annotations import VideoList, read_list
from tinyaction.transforms import DataSample, Transform
from tinyaction.video import VideoError

Item = dict[str, Any]  # {"inputs": (V, C, T, H, W) uint8, "data_samples": DataSample}
Batch = dict[str, Any]  # {"inputs": (B, V, C, T, H, W) uint8, "data_samples": list of B DataSample}


class VideoDataset(Dataset[Item]):
    """Videos of an annotation file, each run through a pipeline.

    Args:
        ann_file: a text file with lines "path label", relative to ``data_root``; or a :class:`VideoList`.
        pipeline: a callable ``dict -> dict``, see :mod:`tinyaction.transforms`; it is given ``filename``, ``label``
            and ``rng``.
        data_root: folder of the annotation file.
        data_prefix: folder of the videos, relative to ``data_root``.
        test_mode: random transforms draw the same in every epoch (evaluation pipelines draw nothing anyway).
        class_names: names of the classes, by label; labels must be below their number.
        seed: the run's seed.

    ``dataset[3]`` is item 3 of epoch 0, ``dataset[2, 3]`` item 3 of epoch 2; the loader asks for the latter.

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
        return self.pipeline({"filename": filename, "label": label, "rng": rng})

    def __repr__(self) -> str:
        mode = "test" if self.test_mode else "train"
        return f"VideoDataset({len(self)} videos from {self.videos.source}, {mode} mode)\n{self.pipeline!r}"


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


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, index) of one epoch, in an order drawn from (seed, epoch); set ``epoch`` before each."""

    def __init__(self, num_items: int, *, shuffle: bool, seed: int) -> None:
        self.num_items = num_items
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.num_items

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.num_items)
        if self.shuffle:
            np.random.RandomState([self.seed, self.epoch]).shuffle(order)
        return ((self.epoch, int(index)) for index in order)


class VideoLoader(DataLoader[Item]):
    """A DataLoader whose errors read as they were raised: one sentence with the video, not a worker's traceback."""

    sampler: EpochSampler

    def set_epoch(self, epoch: int) -> None:
        self.sampler.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, Exception):
                raise batch
            yield batch


def build_dataloader(
    dataset: VideoDataset,
    *,
    batch_size: int,
    shuffle: bool = False,
    num_workers: int = 0,
    seed: int | None = None,
    pin_memory: bool = False,
) -> VideoLoader:
    """Batches of a dataset; call ``loader.set_epoch(epoch)`` before each training epoch.

    Args:
        batch_size: videos of a batch; the last one may be smaller.
        shuffle: a new order in every epoch.
        num_workers: processes that decode; 0 decodes in this process.
        seed: of the order; default the dataset's.
        pin_memory: page-locked batches, for faster copies to a CUDA device.

    Iterating raises what an item raised: :class:`VideoError`, or ``ValueError`` of a transform.
    """
    sampler = EpochSampler(len(dataset), shuffle=shuffle, seed=dataset.seed if seed is None else seed)
    return VideoLoader(
        _ErrorsAsItems(dataset),  # type: ignore[arg-type]
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_collate_or_error,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),  # else each epoch draws from torch's global state: dropout would see the workers
        worker_init_fn=_start_worker,
    )


class _ErrorsAsItems(Dataset[Item | Exception]):
    """Hands an error on as an item: torch would turn it into a worker's traceback in the message of another error."""

    def __init__(self, dataset: VideoDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Item | Exception:
        try:
            return self.dataset[key]
        except (ValueError, OSError) as error:  # VideoError is a ValueError
            return error


def _collate_or_error(items: Sequence[Item | Exception]) -> Batch | Exception:
    for item in items:
        if isinstance(item, Exception):
            return item
    try:
        return collate(items)  # type: ignore[arg-type]
    except ValueError as error:
        return error


def _start_worker(worker_id: int) -> None:
    """One core for each worker: OpenCV would start a thread for every core in every worker."""
    import cv2

    cv2.setNumThreads(0)


__all__ = ["Batch", "DataSample", "EpochSampler", "Item", "VideoDataset", "VideoError", "VideoLoader",
           "build_dataloader", "collate"]
