"""The clips that are worth labelling next: those a network is unsure of, and unlike what is labelled: :func:`suggest`.

    uncertainty   1 - (first score - second score): margin sampling (Scheffer et al. 2001)
    distance      of its features to the nearest clip that is labelled or chosen: k-center (Sener and Savarese 2018)

The clip with the largest product is chosen, then distances are taken anew, and so on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tinyaction.data.annotations import VideoList, find_data
from tinyaction.data.class_folders import is_video, walk_files
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.device import choose_device
from tinyaction.models.checkpoint import load_model
from tinyaction.models.heads import PoolingHead, TemporalAverageHead
from tinyaction.models.recognizer import Recognizer
from tinyaction.results.features import FeatureCache, Reading, extract_features
from tinyaction.results.neighbors import clip_vectors


@dataclass(frozen=True)
class Suggestion:
    """A clip without a label; ``uncertainty`` 0 to 1, ``distance`` 0 to 2 to what is labelled or was named before."""

    filename: str
    class_name: str
    score: float
    uncertainty: float
    distance: float


@torch.inference_mode()
def suggest(
    checkpoint: str | Path, folder: str | Path, *, num: int, device: str = "auto", num_workers: int = 0,
    on_video: Callable[[int, int], None] | None = None,
) -> tuple[list[Suggestion], list[str]]:
    """The ``num`` videos of a folder to label next, the most worthwhile first, and notes on what was left out.

    The training videos of the run count as labelled, and are not suggested; where they are gone, a note says so.

    Raises ValueError, FileNotFoundError: no such checkpoint or folder, no new video in it, several labels a video.
    """
    model, known = load_model(checkpoint)
    head = model.cls_head
    if type(head) not in (TemporalAverageHead, PoolingHead) or head.activation == "sigmoid":
        raise ValueError(f"{checkpoint}: suggest takes networks with one label a video whose head averages features; "
                         "train one with --method probe")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of videos without labels")
    pipeline = eval_pipeline(**known.eval_pipeline)
    name = f"{known.model['name']}-{known.eval_pipeline['clip_len']}x{known.eval_pipeline['size']}"
    model, reading = model.to(choose_device(device)), Reading(num_workers, "skip", max_skipped=1.0)
    notes: list[str] = []

    def features_of(videos: VideoList, place: str | Path) -> tuple[torch.Tensor, list[str]]:
        cache = FeatureCache.beside(place, name, model, pipeline)
        found = extract_features(model, videos, pipeline, cache, device=head.fc.weight.device, reading=reading,
                                 on_video=on_video)
        notes.extend([*cache.first_notes(), *(f"{bad.filename}: {bad.reason}" for bad in found.bad)])
        return found.features, [videos[index][0] for index in found.indices]

    labelled, vectors = set[Path](), torch.zeros(0, 0)
    data = str(known.config.get("data", ""))
    try:
        train = find_data(data, allow_outside=True, keep_split=False, multi_label=bool(known.thresholds)).train
        if train.starts is None:
            features, names = features_of(train, data)
            labelled, vectors = {Path(one).resolve() for one in names}, clip_vectors(features)
    except (ValueError, OSError) as error:
        notes.append(f"the training videos of the run are not counted as labelled: {error}")
    paths = [str(path) for path in walk_files(Path(folder)) if is_video(path) and path.resolve() not in labelled]
    if not paths:
        raise ValueError(f"{folder}: no video in it that is not labelled already")
    features, names = features_of(VideoList(paths, [0] * len(paths), source=str(folder)), folder)
    scores = _scores(model, features)                                  # (N, K)
    clips = clip_vectors(features).numpy()                             # (N, F)
    chosen = choose_clips(scores, clips, vectors.numpy(), num=num)
    return [Suggestion(names[index], known.class_names[scores[index].argmax()], float(scores[index].max()),
                       float(uncertainty(scores)[index]), distance) for index, distance in chosen], notes


def _scores(model: Recognizer, features: torch.Tensor) -> npt.NDArray[np.float64]:
    head = model.cls_head
    logits = torch.stack([head(clip.float().to(head.fc.weight.device)) for clip in features])  # (N, V, K)
    return np.asarray(head.video_scores(logits).double().cpu().numpy(), np.float64)


def uncertainty(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, K) scores -> (N,): 1 where two classes are equally likely, 0 where one is sure."""
    two = np.sort(scores, axis=1)[:, -2:]                              # (N, 2)
    return np.asarray(1 - (two[:, 1] - two[:, 0]))


def choose_clips(
    scores: npt.NDArray[np.float64], clips: npt.NDArray[np.float32], labelled: npt.NDArray[np.float32], *, num: int
) -> list[tuple[int, float]]:
    """(place, distance) of clips by scores (N, K) and vectors (N, F) of length 1, beside labelled ones (M, F).

    The distance is 1 - cosine, as it was when the clip was chosen; 1 where nothing is labelled yet.
    """
    distances = 1 - (clips @ labelled.T).max(axis=1) if len(labelled) else np.ones(len(clips))
    unsure = uncertainty(scores)
    chosen: list[tuple[int, float]] = []
    left = np.ones(len(clips), dtype=bool)
    for _ in range(min(num, len(clips))):
        place = int(np.where(left, unsure * np.maximum(distances, 0), -1).argmax())
        chosen.append((place, float(distances[place])))
        left[place] = False
        distances = np.minimum(distances, 1 - clips @ clips[place])
    return chosen


def as_rows(found: Sequence[Suggestion]) -> list[list[str]]:
    """Rows of text, without a header: path, class, score, uncertainty, distance."""
    return [[one.filename, one.class_name, f"{one.score:.4f}", f"{one.uncertainty:.4f}", f"{one.distance:.4f}"]
            for one in found]
