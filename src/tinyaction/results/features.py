"""What the frozen network makes of each clip, computed once and kept beside the data: :func:`extract_features`.

    clips-features/                                  beside the folder clips
      tsn-mobilenet_v2-8x112-1f0c.../                one network, one pipeline: a digest of both
        run-0a93....npz                              one video, by its identity: a digest of its size, time and content

A file holds the quarters of the feature maps, (V, T, F, 2, 2), which is all that a pooling asks for, in float16 where
they fit. Each is written whole or not at all, so a run that was stopped goes on where it was, and runs share them.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tinyaction.data.annotations import VideoList
from tinyaction.data.dataset import VideoDataset, build_dataloader
from tinyaction.data.loader import BadVideo, OnError
from tinyaction.data.transforms import Compose
from tinyaction.files import whole_file
from tinyaction.models.pooling import cell_means
from tinyaction.models.recognizer import Recognizer

END_BYTES = 1 << 16  # of a video, at its begin and at its end, that its identity is made of
LARGEST_FLOAT16 = 65504.0

Array = npt.NDArray[np.float16 | np.float32]


@dataclass
class FeatureCache:
    """Features of one network and pipeline in a folder; ``notes`` are sentences about what could not be kept or read.

    Without a ``folder`` nothing is kept. Each file knows the name of the folder, which is that of the network, so that
    one that was copied from another network's is not taken for its own.
    """

    folder: Path | None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def beside(cls, data: str | Path, name: str, model: Recognizer, pipeline: Compose) -> "FeatureCache":
        """clips -> clips-features/NAME-DIGEST; ``name`` is for people, the digest is of network and pipeline."""
        data = Path(data).resolve()
        return cls(data.with_name(f"{data.name}-features") / f"{name}-{network_digest(model, pipeline)}")

    def first_notes(self) -> list[str]:
        """Three, and how many more: a folder of foreign features has one for each file."""
        more = len(self.notes) - 3
        return [*self.notes[:3], *([f"{more} more notes on kept features"] if more > 0 else [])]

    def path_of(self, video: str, *, segment: str = "", mirrored: bool = False) -> Path | None:
        """``segment``: the end of the item's name, as "#t=12.5,15"; "" is the whole video."""
        if self.folder is None:
            return None
        ending = f"{segment}{'-mirrored' if mirrored else ''}.npz"
        return self.folder / f"{Path(video).stem[:60]}-{video_digest(video)}{ending}"

    def read(self, path: Path | None) -> Array | None:
        """None where there is none, or it is damaged: then a note says so, and it can be computed again."""
        if path is None:
            return None
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:  # verifies its checksum
                features, network = np.asarray(content["features"]), str(content["network"])
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None
        except (ValueError, OSError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            self.notes.append(f"{path}: damaged features, computed again ({' '.join(str(error).split())[:80]})")
            return None
        if network != path.parent.name:
            self.notes.append(f"{path}: features of another network ({network[:80]}), computed again")
            return None
        if features.ndim != 5 or features.shape[3:] != (2, 2) or not np.isfinite(features).all():
            self.notes.append(f"{path}: no features of a video, computed again")
            return None
        return features

    def write(self, path: Path | None, features: Array) -> None:
        """A full or read-only disk is a note, and nothing more is kept."""
        if path is None or self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as part, open(part, "wb") as file:
                np.savez(file, features=features, network=np.array(self.folder.name))
        except OSError as error:
            self.notes.append(f"{path.parent}: features are not kept ({error.strerror or error}); the next run "
                              "computes them again")
            self.folder = None


def network_digest(model: Recognizer, pipeline: Compose) -> str:
    """Of all on which features depend but the video: the layers and their weights, normalization, pipeline."""
    content = hashlib.sha256(f"{pipeline!r}\n{model.backbone!r}\n".encode())
    parts: tuple[nn.Module, ...] = (model.backbone, model.data_preprocessor)
    for part in parts:
        for name, tensor in [*part.state_dict().items(), *part.named_buffers()]:
            content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return content.hexdigest()[:16]


def video_digest(path: str) -> str:
    """Of a video's size, time of last change, and first and last bytes; of a folder of frames those of its files.

    Raises OSError where it cannot be read.
    """
    content = hashlib.sha256()
    if os.path.isdir(path):
        for name in sorted(os.listdir(path)):
            status = os.stat(os.path.join(path, name))
            content.update(f"{name}\0{status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        return content.hexdigest()[:16]
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        content.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        content.update(file.read(END_BYTES))
        file.seek(max(0, status.st_size - END_BYTES))
        content.update(file.read(END_BYTES))
    return content.hexdigest()[:16]


@dataclass
class Features:
    """Features of the videos of a list, in its order; those that were skipped are in ``bad`` and nowhere else."""

    features: torch.Tensor  # (N, V, T, F, 2, 2), float16 or float32
    indices: list[int]  # (N,), which videos of the list
    bad: list[BadVideo]
    num_computed: int  # the others were in the cache


@dataclass(frozen=True)
class Reading:
    """How videos are read; see :func:`tinyaction.data.dataset.build_dataloader`."""

    num_workers: int = 0
    on_error: OnError = "raise"
    max_skipped: float = 0.1
    video_timeout: float = 300.0


def extract_features(
    model: Recognizer, videos: VideoList, pipeline: Compose, cache: FeatureCache, *, device: torch.device,
    mirrored: bool = False, reading: Reading | None = None, on_video: Callable[[int, int], None] | None = None,
) -> Features:
    """Features of each video from the cache, else from the network, once, in evaluation mode.

    The numbers are the same whether they were in the cache or not: they are rounded as they are kept.

    Args:
        mirrored: also of the pictures mirrored left to right; these views stand behind the others, so there are 2 V.
        on_video: called with (videos done, videos to compute).

    Raises:
        ValueError: features are NaN or infinite (the video is named), or what the loader raises.
    """
    kept = keep_features(model, videos, pipeline, cache, device=device, mirrored=mirrored, reading=reading,
                         on_video=on_video)
    indices = sorted(kept.known)
    return Features(_stacked([kept.known[index] for index in indices], videos), indices, kept.bad, kept.num_computed)


@dataclass
class Kept:
    """Features by their place in the list, (V, T, F, 2, 2) each, and the videos that could not be read."""

    known: dict[int, Array]
    bad: list[BadVideo] = field(default_factory=list)
    num_computed: int = 0


def keep_features(
    model: Recognizer, videos: VideoList, pipeline: Compose, cache: FeatureCache, *, device: torch.device,
    mirrored: bool = False, reading: Reading | None = None, on_video: Callable[[int, int], None] | None = None,
) -> Kept:
    """Compute what the cache lacks, and keep it; as :func:`extract_features`, also where no video can be read."""
    kinds = (False, True) if mirrored else (False,)
    paths: list[list[Path | None]] = []
    kept = Kept({})
    for index in range(len(videos)):
        paths.append([_path_or_none(cache, videos, index, mirrored=kind) for kind in kinds])
        read = [features for path in paths[index] if (features := cache.read(path)) is not None]
        if len(read) == len(kinds):
            kept.known[index] = np.concatenate(read)
    missing = [index for index in range(len(videos)) if index not in kept.known]
    if not missing:
        return kept
    dataset = VideoDataset(videos.subset(missing), pipeline, test_mode=True)
    reading = reading or Reading()
    max_skipped = min(1.0, reading.max_skipped * len(videos) / len(missing))  # a share of all, as in other runs
    loader = build_dataloader(dataset, batch_size=1, num_workers=reading.num_workers, on_error=reading.on_error,
                              max_skipped=max_skipped, video_timeout=reading.video_timeout)
    places: dict[str, list[int]] = {}
    for index in missing:
        places.setdefault(videos.item_name(index), []).append(index)
    model = model.to(device).eval()
    for number, batch in enumerate(loader, start=1):
        name = batch["data_samples"][0].filename
        computed = [_compute(model, batch["inputs"].to(device), name, mirrored=kind) for kind in kinds]
        for index in places[name]:
            kept.known[index] = np.concatenate(computed)
            for path, features in zip(paths[index], computed, strict=True):
                cache.write(path, features)
        if on_video is not None:
            on_video(number, len(missing))
    kept.bad, kept.num_computed = list(loader.bad), len(missing) - len(loader.bad)
    return kept


def _path_or_none(cache: FeatureCache, videos: VideoList, index: int, *, mirrored: bool) -> Path | None:
    """None also for a video that is not there: the loader says so."""
    video = videos[index][0]
    try:
        return cache.path_of(video, segment=videos.item_name(index).removeprefix(video), mirrored=mirrored)
    except OSError:
        return None


@torch.inference_mode()
def _compute(model: Recognizer, inputs: torch.Tensor, name: str, *, mirrored: bool) -> Array:
    """Pixels (1, V, C, T, H, W) to (V, T, F, 2, 2), rounded to float16 where it can hold them."""
    maps = model.extract_features(inputs.flip(-1) if mirrored else inputs)  # (V, T, F, h, w)
    features = cell_means(maps.float()).cpu().numpy()                  # (V, T, F, 2, 2)
    if not np.isfinite(features).all():
        raise ValueError(f"{name}: its features are NaN or infinite; the weights of the network are not finite, or "
                         "overflow on this video: give other --weights")
    return features.astype(np.float16) if np.abs(features).max() < LARGEST_FLOAT16 else features


def _stacked(features: Sequence[Array], videos: VideoList) -> torch.Tensor:
    if not features:
        raise ValueError(f"{videos.source}: none of its {len(videos)} videos could be read")
    for one in features:
        if one.shape != features[0].shape:
            raise ValueError(f"{videos.source}: features of {features[0].shape} and of {one.shape}; the cache holds "
                             "those of another network: remove its folder")
    return torch.stack([torch.from_numpy(one) for one in features])
