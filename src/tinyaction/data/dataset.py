"""From annotation lines to batches: :class:`VideoDataset`, :func:`collate`, :func:`build_dataloader`.

Lists of videos are read in :mod:`tinyaction.data.annotations`; workers and order are in :mod:`tinyaction.data.loader`.

Randomness: one generator, seeded by (run seed, epoch, item index), makes every random draw of an item, and (run seed,
epoch) seeds the order of an epoch. So the batches are the same whatever the number of workers.
"""

from collections.abc import Mapping, Sequence
from os.path import exists, join
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from tinyaction.data.annotations import VideoList, find_data, read_list
from tinyaction.data.lists import check_label_0
from tinyaction.data.loader import EpochSampler, VideoLoader
from tinyaction.data.published_lists import UCF101_SPLITS, read_published
from tinyaction.data.rows import read_rows
from tinyaction.data.transforms import Transform
from tinyaction.places import is_place, place_info
from tinyaction.sample import DataSample

Item = dict[str, Any]  # {"inputs": (V, C, T, H, W) uint8, "data_samples": DataSample}
Batch = dict[str, Any]  # {"inputs": (B, V, C, T, H, W) uint8, "data_samples": list of B DataSample}


class VideoDataset(Dataset[Item]):
    """Videos of an annotation list, a CSV file or a folder, each run through a pipeline.

    Args:
        ann_file: a text file with lines "path label", or a CSV file "path,label" or "path,start,end,label", relative
            to ``data_root``; or, of which it has one split, a CSV file with a column "split", a list of UCF101 or
            HMDB51, or a folder that :func:`tinyaction.data.annotations.find_data` reads; or a :class:`VideoList`.
        pipeline: a callable ``dict -> dict`` that receives ``filename``, ``label`` and ``rng``; see
            :mod:`tinyaction.data.transforms`.
        data_root: folder of the list.
        data_prefix: folder of the videos of a list without splits, relative to ``data_root``; or, as in the guide,
            ``dict(video="train")``.
        test_mode: random transforms draw the same in every epoch.
        class_names: names of the classes, by label; labels must be below their number. CSV files with splits and
            folders know theirs.
        split: "train" or "val" of a CSV file or a folder; by default, where they have a split, "val" in test mode,
            else "train". Class folders that have none are split as by ``tinyaction train``; nothing is written.
        seed: the run's seed.

    ``dataset[3]`` is item 3 of epoch 0, ``dataset[2, 3]`` item 3 of epoch 2.

    Raises:
        ValueError: the list is empty or a line is wrong (file and line are named), or other class names are given.
        FileNotFoundError: there is no such list or folder.
    """

    def __init__(
        self,
        ann_file: str | Path | VideoList,
        pipeline: Transform,
        *,
        data_root: str | Path = "",
        data_prefix: str | Path | Mapping[str, str] = "",
        test_mode: bool = False,
        class_names: Sequence[str] | None = None,
        split: Literal["train", "val"] | None = None,
        seed: int = 0,
    ) -> None:
        if isinstance(ann_file, VideoList):
            self.videos = ann_file
        else:
            beside = ann_file if is_place(ann_file) else join(data_root, ann_file)
            place = Path(ann_file if exists(ann_file) and not exists(beside) else beside)
            is_table = place.suffix.lower() in (".csv", ".tsv") and place.is_file()
            is_published = place.is_file() and read_published(place) is not None
            is_folder = is_place(ann_file) or place.is_dir()
            if is_folder or is_published or is_table and (split or any(read_rows(place).splits.texts)):
                default = UCF101_SPLITS.get(place.name[:-6], "val" if test_mode else "train")
                self.videos, class_names = _read_split(place, split or default, class_names)
            else:
                self.videos = read_list(place, prefix=join(data_root, _video_folder(data_prefix)),
                                        num_classes=None if class_names is None else len(class_names),
                                        class_names=class_names)
                if class_names is None and not test_mode:
                    check_label_0(self.videos)
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
        rng = np.random.RandomState([self.seed, 0 if self.test_mode else epoch, index])
        return self.pipeline({**self.videos.results(index), "rng": rng})

    def filename(self, index: int) -> str:
        """The path of a video, with the times of a segment: "clips/long.mp4#t=12.5,15"."""
        return self.videos.item_name(index)

    def __repr__(self) -> str:
        mode = "test" if self.test_mode else "train"
        num_classes = len(self.class_names or np.unique(self.videos.labels))
        return (f"VideoDataset({len(self)} videos of {num_classes} classes from {self.videos.source}, {mode} mode)\n"
                f"{self.pipeline!r}")


def _video_folder(data_prefix: str | Path | Mapping[str, str]) -> str | Path:
    if not isinstance(data_prefix, Mapping):
        return data_prefix
    if set(data_prefix) != {"video"}:
        raise ValueError(f"data_prefix is {dict(data_prefix)!r}; it must be a folder, or dict(video=folder)")
    return data_prefix["video"]


def _read_split(place: Path, split: str, class_names: Sequence[str] | None) -> tuple[VideoList, list[str]]:
    """One list of a folder or a CSV file, and the names of its classes."""
    if split not in ("train", "val"):
        raise ValueError(f"split is {split!r}; it must be 'train' or 'val'")
    data = find_data(place, keep_split=False)
    if class_names is not None and list(class_names) != data.class_names:
        raise ValueError(f"class_names are {', '.join(class_names[:4])} ({len(class_names)}), those of {place} are "
                         f"{', '.join(data.class_names[:4])} ({len(data.class_names)}); leave class_names out")
    return (data.train if split == "train" else data.val), data.class_names


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
    dataset: VideoDataset, *, batch_size: int, shuffle: bool = False, balanced: bool = False, **options: Any
) -> VideoLoader:
    """Batches of a dataset; call ``loader.set_epoch(epoch)`` before each training epoch.

    Args:
        batch_size: videos of a batch; the last one may be smaller.
        shuffle: a new order in every epoch, by the dataset's seed.
        balanced: draw each class equally often, repeating videos of rare classes; see
            :class:`tinyaction.data.order.EpochSampler`.
        options: such as ``num_workers`` and ``on_error``; see :class:`tinyaction.data.loader.VideoLoader`.
    """
    sampler = EpochSampler(len(dataset), shuffle=shuffle, seed=dataset.seed,
                           labels=dataset.videos.labels if balanced else None)
    return VideoLoader(dataset, batch_size=batch_size, sampler=sampler, collate=collate, **options)


def check_files_exist(*lists: VideoList) -> None:
    """Raise FileNotFoundError for the first video that does not exist; of those elsewhere only one is asked for."""
    for videos in lists:
        elsewhere = next(filter(is_place, videos.paths()), None)
        if elsewhere is not None:
            place_info(elsewhere)
        missing = [name for name in videos.paths() if not exists(name) and not is_place(name)]
        if missing:
            raise FileNotFoundError(f"{missing[0]}: no such file; {len(missing)} of {len(videos)} videos listed in "
                                    f"{videos.source} are missing")
