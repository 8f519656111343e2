"""The labelled clips that are most like a clip, as a network sees them: what it may confuse the clip with."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F

from tinyaction.data.annotations import VideoList, find_data
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.data.transforms import Compose
from tinyaction.device import choose_device
from tinyaction.files import write_whole
from tinyaction.models.checkpoint import load_model, published_pipeline
from tinyaction.models.recognizer import Recognizer
from tinyaction.results.features import FeatureCache, Reading, extract_features
from tinyaction.text import from_cell, to_cell

NEIGHBORS = ("path", "neighbor", "class", "similarity")  # of neighbors.csv, a row a neighbour, the nearest first


@dataclass(frozen=True)
class Neighbor:
    """A labelled clip; ``similarity`` is the cosine of its features with those of the clip that was asked for."""

    filename: str
    class_name: str
    similarity: float


@dataclass(repr=False)
class ClipLibrary:
    """The training clips of a run, or all clips of a folder, ready to be searched.

        library = ClipLibrary.build("runs/tsn-mobilenet_v2-probe-1")
        library.nearest("clip.mp4")[0]                     # [Neighbor(filename, class_name, similarity), ...]

    Attributes:
        vectors: (N, F), one a clip, of length 1.
        notes: sentences about clips that could not be read, and features that could not be kept.
    """

    model: Recognizer
    pipeline: Compose
    device: torch.device
    filenames: list[str]
    class_names: list[str]  # (N,), of each clip
    vectors: torch.Tensor
    notes: list[str] = field(default_factory=list)

    @classmethod
    def build(
        cls, network: str | Path | Recognizer, data: str | Path = "", *, device: str = "auto", num_workers: int = 0,
        allow_outside: bool = False, multi_label: bool = False, on_video: Callable[[int, int], None] | None = None,
    ) -> "ClipLibrary":
        """Features of the clips from the cache beside their folder, else from the network.

        Args:
            network: a checkpoint, the folder of a run, or a recognizer of :func:`tinyaction.load_pretrained`.
            data: a folder or list as for training, whose training clips are taken, or all of class folders without a
                split; default that of the run.
            on_video: called with (videos done, videos to compute).

        Raises:
            FileNotFoundError, ValueError: no such checkpoint or data, or no data is named.
        """
        device_used = choose_device(device)
        if not isinstance(network, Recognizer):
            model, checkpoint = load_model(network)
            name, arguments = str(checkpoint.model["name"]), checkpoint.eval_pipeline
            data = data or str(checkpoint.config.get("data", ""))
            multi_label = multi_label or bool(checkpoint.thresholds)
        elif network.published is None:
            raise ValueError("nothing is published of this recognizer, so its clips are not known; name the "
                             "checkpoint of a run")
        else:
            model, name, arguments = network.eval(), network.published.name, published_pipeline(network.published)
        if not data:
            raise ValueError("no clips to search are named; give the folder or list of labelled clips as data")
        if not Path(data).exists():
            raise FileNotFoundError(f"{data}: no such folder; give the folder or list of labelled clips as data")
        found = find_data(data, val_share=None, allow_outside=allow_outside, multi_label=multi_label)
        pipeline = eval_pipeline(**arguments)
        cache = FeatureCache.beside(data, f"{name}-{arguments['clip_len']}x{arguments['size']}", model, pipeline)
        features = extract_features(model, found.train, pipeline, cache, device=device_used, on_video=on_video,
                                    reading=Reading(num_workers, "skip", max_skipped=1.0))
        notes = [*cache.first_notes(), *(f"{bad.filename}: {bad.reason}" for bad in features.bad)]
        rows = [found.train.row(index, found.class_names) for index in features.indices]
        return cls(model, pipeline, device_used, [found.train[index][0] for index in features.indices],
                   [row.label for row in rows], clip_vectors(features.features), notes)

    def __repr__(self) -> str:
        return f"ClipLibrary({len(self.filenames)} clips of {len(set(self.class_names))} classes, on {self.device})"

    def nearest(self, clips: str | Path | Sequence[str | Path], *, num: int = 5) -> list[list[Neighbor]]:
        """For each clip, a video file, the ``num`` nearest of the library, the nearest first; never the file itself.

        Raises VideoError (a ValueError) where a clip cannot be read.
        """
        if num < 1:
            raise ValueError(f"num is {num}; it must be at least 1")
        names = [str(clip) for clip in ([clips] if isinstance(clips, str | Path) else clips)]
        found = extract_features(self.model, VideoList(names, [0] * len(names), source="clips"), self.pipeline,
                                 FeatureCache(None), device=self.device)
        places = [Path(name).resolve() for name in self.filenames]
        neighbors = []
        for name, vector in zip(names, clip_vectors(found.features), strict=True):
            others = [index for index, place in enumerate(places) if place != Path(name).resolve()]
            neighbors += nearest_clips(vector[None], self.vectors[others], [self.filenames[i] for i in others],
                                       [self.class_names[i] for i in others], num=num)
        return neighbors


def nearest_clips(
    vectors: torch.Tensor, library: torch.Tensor, filenames: Sequence[str], class_names: Sequence[str], *, num: int
) -> list[list[Neighbor]]:
    """:func:`nearest` with the names and classes of the library's clips."""
    order, cosines = nearest(vectors, library, num=num)
    return [[Neighbor(filenames[index], class_names[index], cosine) for index, cosine in zip(row, values, strict=True)]
            for row, values in zip(order.tolist(), cosines.tolist(), strict=True)]


def clip_vectors(features: torch.Tensor) -> torch.Tensor:
    """Features of clips (N, V, T, F, h, w) as their mean over views, time and places, of length 1: (N, F)."""
    means = [clip.float().mean(dim=(0, 1, 3, 4)) for clip in features]  # (F,) each
    return F.normalize(torch.stack(means), dim=1)


def nearest(vectors: torch.Tensor, library: torch.Tensor, *, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of a library (N, F) with the largest cosines for each of (Q, F): (Q, num) numbers and (Q, num) cosines.

    The nearest first, of equal ones that with the smaller number; all N where there are fewer than ``num``.
    """
    cosines = F.normalize(vectors.float(), dim=1) @ F.normalize(library.float(), dim=1).T     # (Q, N)
    order = cosines.argsort(dim=1, descending=True, stable=True)[:, :num]
    return order, cosines.gather(1, order)


# ---------------------------------------------------------------------------------------------------------------------
# neighbors.csv of a run
# ---------------------------------------------------------------------------------------------------------------------

def write_neighbors(path: Path, neighbors: dict[str, list[Neighbor]]) -> None:
    """Video -> the training clips nearest to it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(NEIGHBORS)
    for filename, found in neighbors.items():
        for one in found:
            writer.writerow([*map(to_cell, (filename, one.filename, one.class_name)), f"{one.similarity:.4f}"])
    write_whole(path, text.getvalue())


def read_neighbors(path: Path) -> dict[str, list[Neighbor]]:
    """What :func:`write_neighbors` wrote; empty where there is no such file. ValueError where it is another's."""
    neighbors: dict[str, list[Neighbor]] = {}
    if path.is_file():
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            for row in csv.DictReader(file):
                try:
                    filename, neighbor, class_name = (from_cell(row[name]) for name in NEIGHBORS[:3])
                    one = Neighbor(neighbor, class_name, float(row["similarity"]))
                except (KeyError, TypeError, ValueError) as error:
                    raise ValueError(f"{path}: cannot be read ({error!r})") from None
                neighbors.setdefault(filename, []).append(one)
    return neighbors
