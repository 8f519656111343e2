"""The timeline of an uncut video: features of its steps, scores over time, segments. Memory is that of a piece.

    video  ->  pieces of steps, features (S, F, 2, 2)  ->  reduced, (S, 2 R)  ->  scores (S, K)  ->  segments

Training and prediction share this: a piece is the same whoever asks for it, and is kept in a cache where there is one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tinyaction.data.long_videos import BACKGROUND, LongVideo
from tinyaction.data.pipelines import eval_pipeline, steps_after_decoding
from tinyaction.data.sampling import step_frames
from tinyaction.data.transforms import Compose
from tinyaction.device import choose_device
from tinyaction.models.checkpoint import load_timeline_model
from tinyaction.models.temporal import TimelineModel
from tinyaction.models.unknown import UNKNOWN, Unknown
from tinyaction.results.features import LARGEST_FLOAT16, Array, FeatureCache
from tinyaction.results.timeline_metrics import Segment
from tinyaction.video import UInt8Array, VideoReader, open_video
from tinyaction.video.segment import duration_of

PIECE_STEPS = 128  # steps that are read, and kept, together
BATCH_STEPS = 16  # steps that go through the network together
CHUNK_STEPS = 1024  # steps whose scores are computed together
OnPiece = Callable[[int, int], None]  # (pieces done, pieces of the video)


@dataclass
class StepFeatures:
    """Features of the steps of videos, from the cache, else from the network.

    Args:
        model: in evaluation mode, on ``device``.
        pipeline: of evaluation; its steps after decoding are taken.
        cache: without one nothing is kept.
    """

    model: TimelineModel
    pipeline: Compose
    device: torch.device
    cache: FeatureCache | None = None

    def open(self, path: str) -> tuple[VideoReader, float]:
        """A reader of the video, and its duration in seconds.

        Raises ValueError where the video is shorter than a window, or does not say when its frames are shown.
        """
        reader = open_video(path)
        if len(reader) > 1 and not reader.seconds[-1] > 0:
            raise ValueError(f"{path}: nothing says when its frames are shown; a timeline needs to know")
        duration = duration_of(reader)
        if duration < self.model.window_seconds - 1e-6:
            raise ValueError(f"{path}: lasts {duration:.2f} s, less than the window of "
                             f"{self.model.window_seconds:g} s that the network sees; leave it out, or train with a "
                             "shorter --window")
        return reader, duration

    def pieces(
        self, path: str, reader: VideoReader, duration: float, *, mirrored: bool = False,
        on_piece: OnPiece | None = None,
    ) -> Iterator[Array]:
        """Features (S, F, 2, 2) of :data:`PIECE_STEPS` steps after another, in the order of time."""
        clip_len = sampled_clip_len(self.pipeline)
        frames = step_frames(reader.seconds, duration, stride_seconds=self.model.stride_seconds,
                             window_seconds=self.model.window_seconds, clip_len=clip_len)  # (S, T)
        num_pieces = -(-len(frames) // PIECE_STEPS)
        kept = self.cache.path_of(path, mirrored=mirrored) if self.cache else None
        for number in range(num_pieces):
            place = kept.with_name(f"{kept.stem}-{number}.npz") if kept else None
            features = self.cache.read(place) if self.cache else None  # (1, S, F, 2, 2)
            if features is None:
                features = self._compute(path, reader, frames[number * PIECE_STEPS :][:PIECE_STEPS], mirrored)[None]
                if self.cache:
                    self.cache.write(place, features)
            yield features[0]
            if on_piece is not None:
                on_piece(number + 1, num_pieces)

    @torch.inference_mode()
    def _compute(self, path: str, reader: VideoReader, frames: npt.NDArray[np.int64], mirrored: bool) -> Array:
        """Of steps with these frames (S, T); a frame is resized as soon as it is read, and kept while it is needed."""
        after_decoding = steps_after_decoding(self.pipeline)
        needed = np.unique(frames).tolist()
        read = zip(needed, reader.read(needed), strict=True)
        held: dict[int, torch.Tensor] = {}
        computed = []
        for start in range(0, len(frames), BATCH_STEPS):
            batch = frames[start : start + BATCH_STEPS]
            held = {index: pixels for index, pixels in held.items() if index >= batch.min()}
            while batch.max() not in held:
                index, frame = next(read)
                held[index] = _packed(after_decoding, frame)
            clips = torch.stack([torch.cat([held[index] for index in step], dim=1) for step in batch.tolist()])
            features = self.model.extract_features(clips.to(self.device), mirrored=mirrored)  # (S, F, 2, 2)
            computed.append(features.cpu().numpy())
        found = np.concatenate(computed)
        if not np.isfinite(found).all():
            raise ValueError(f"{path}: its features are NaN or infinite; the weights of the network are not finite, "
                             "or overflow on this video: give other --weights")
        return found.astype(np.float16) if np.abs(found).max() < LARGEST_FLOAT16 else found


def _packed(after_decoding: Compose, frame: UInt8Array) -> torch.Tensor:
    """A frame (H, W, 3) as the network is given it, (C, 1, H, W) uint8."""
    inputs: torch.Tensor = after_decoding({"filename": "", "imgs": [frame], "img_shape": frame.shape[:2],
                                           "num_clips": 1, "clip_len": 1})["inputs"]  # (V, C, 1, H, W)
    return inputs[len(inputs) // 2]


def sampled_clip_len(pipeline: Compose) -> int:
    return int(next(transform.clip_len for transform in pipeline.transforms if hasattr(transform, "clip_len")))


def reduced(model: TimelineModel, features: Array) -> torch.Tensor:
    """Features (S, F, 2, 2) as the temporal network takes them, (2 R, S) float32 on its device."""
    flat = torch.from_numpy(features).float().flatten(1).to(model.temporal.mean.device)  # (S, D)
    return model.temporal.reduce(flat).T


@torch.inference_mode()
def scores_over_time(model: TimelineModel, pieces: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Reduced features (2 R, S) piece by piece to scores (S, K) chunk by chunk, as if all had been there at once.

    A chunk is computed with as many steps before and after it as its scores depend on.
    """
    network = model.temporal
    held = torch.empty(0)  # (2 R, S) from step ``begin`` on
    begin = done = 0
    for piece in pieces:
        held = torch.cat((held, piece), dim=1) if held.numel() else piece
        while begin + held.shape[1] >= done + CHUNK_STEPS + network.reach:
            scores = network.scores(network(held[None, :, : done + CHUNK_STEPS + network.reach - begin])[-1])[0]
            yield scores[:, done - begin : done - begin + CHUNK_STEPS].T.cpu()
            done += CHUNK_STEPS
            unneeded = max(0, done - network.reach - begin)
            held, begin = held[:, unneeded:], begin + unneeded
    if begin + held.shape[1] > done:
        yield network.scores(network(held[None])[-1])[0, :, done - begin :].T.cpu()


@dataclass
class Timeline:
    """Scores (S, K) of the steps of a video; unless ``overlaps``, the last class is the background.

    A segment is told where its score is above ``min_score``; as unknown where ``unknown`` says of the mean of its
    steps, which is in ``means``, that it is none of the classes.
    """

    source: str
    class_names: list[str]
    scores: npt.NDArray[np.float32]
    stride_seconds: float
    duration: float
    overlaps: bool
    min_score: float = 0.0
    unknown: Unknown | None = None
    means: "RunMeans | None" = None

    def segments(self) -> list[Segment]:
        """The stretches in which a class has the highest score, or with ``overlaps`` one above 0.5, in the order of
        time; ``score`` is its mean.
        """
        if self.overlaps:
            chosen = [(label, self.scores[:, label] > 0.5) for label in range(len(self.class_names))]
        else:
            best = self.scores.argmax(axis=1)
            chosen = [(label, best == label) for label, name in enumerate(self.class_names) if name != BACKGROUND]
        found = [self._segment(label, start, stop) for label, is_on in chosen for start, stop in runs(is_on)]
        return join_unknown(sorted((one for one in found if one.score > self.min_score),
                                   key=lambda one: (one.start_seconds, one.end_seconds)))

    def actions(self) -> list[Segment]:
        """Those of a class: to tell unknown is to tell none."""
        return [one for one in self.segments() if self.unknown is None or one.label != UNKNOWN]

    def _segment(self, label: int, start: int, stop: int) -> Segment:
        is_unknown = self.unknown is not None and self.means is not None and self.unknown.is_unknown(
            self.means.sums[start][None] / (stop - start))[0]
        name = UNKNOWN if is_unknown else self.class_names[label]
        return Segment(start * self.stride_seconds, min(stop * self.stride_seconds, self.duration), name,
                       float(self.scores[start:stop, label].mean()))


def true_segments(video: LongVideo) -> list[Segment]:
    """The segments of a list, as those that are told."""
    return [Segment(item.start, item.end, item.label) for item in video.segments]


def join_unknown(segments: Sequence[Segment]) -> list[Segment]:
    """Make one of unknown segments that touch, as nothing parts them: the network took them for different classes."""
    found: list[Segment] = []
    for one in segments:
        last = found[-1] if found else None
        if last and last.label == one.label == UNKNOWN and one.start_seconds <= last.end_seconds:
            seconds, more = last.end_seconds - last.start_seconds, one.end_seconds - one.start_seconds
            found[-1] = Segment(last.start_seconds, one.end_seconds, UNKNOWN,
                                (last.score * seconds + one.score * more) / (seconds + more))
        else:
            found.append(one)
    return found


@dataclass
class RunMeans:
    """The mean features of each run of steps with one best class, added up as the scores of chunks come in: their
    memory is that of the runs, not of the steps. ``sums`` has (F,) by the first step of a run; of the background none.
    """

    background: int  # its place among the classes
    sums: dict[int, torch.Tensor] = field(default_factory=dict)
    num_steps: int = 0
    _start: int = 0
    _label: int = -1

    def add(self, best: Sequence[int], features: torch.Tensor) -> None:
        """The next steps: their best classes (S,) and features (S, F)."""
        place = 0
        for label, members in groupby(best):
            stop = place + sum(1 for _ in members)
            if label != self._label:
                self._start, self._label = self.num_steps + place, label
            if label != self.background:
                self.sums[self._start] = self.sums.get(self._start, 0) + features[place:stop].double().sum(dim=0)
            place = stop
        self.num_steps += place


def step_means(features: Array) -> torch.Tensor:
    """Features (S, F, 2, 2) of a piece to those by which unknown is told, (S, F)."""
    return torch.from_numpy(features).float().mean(dim=(2, 3))


def runs(is_on: Sequence[bool] | npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """0 1 1 0 1  ->  (1, 3), (4, 5): first place of a run of ones and the place after its last one."""
    found, place = [], 0
    for value, members in groupby(bool(one) for one in is_on):
        length = sum(1 for _ in members)
        if value:
            found.append((place, place + length))
        place += length
    return found


class TimelinePredictor:
    """A checkpoint of ``--task timeline``, ready for uncut videos of any length.

        TimelinePredictor("runs/conv2d-timeline-1")("long.mp4").segments()

    ``tells_unknown``: whether a segment may be "unknown", where the checkpoint has a threshold for it. Raises as
    :func:`tinyaction.models.checkpoint.load_timeline_model` does.
    """

    def __init__(self, checkpoint: str | Path, *, device: str = "auto", tells_unknown: bool = True) -> None:
        used = choose_device(device)
        self.model, self.checkpoint = load_timeline_model(checkpoint)
        self.unknown = self.checkpoint.unknown if tells_unknown else None
        self.features = StepFeatures(self.model.to(used), eval_pipeline(**self.checkpoint.eval_pipeline), used)

    def __call__(self, path: str, *, on_piece: OnPiece | None = None) -> Timeline:
        reader, duration = self.features.open(path)
        held = torch.empty(0)  # (S, F) of the steps that have no scores yet
        scores, means = [], RunMeans(len(self.checkpoint.class_names) - 1)

        def pieces() -> Iterator[torch.Tensor]:
            nonlocal held
            for piece in self.features.pieces(path, reader, duration, on_piece=on_piece):
                if self.unknown is not None:
                    held = torch.cat((held, step_means(piece))) if len(held) else step_means(piece)
                yield reduced(self.model, piece)

        for chunk in scores_over_time(self.model, pieces()):           # (S, K)
            scores.append(chunk)
            if self.unknown is not None:
                means.add(chunk.argmax(dim=1).tolist(), held[: len(chunk)])
                held = held[len(chunk) :]
        return Timeline(path, self.checkpoint.class_names, torch.cat(scores).numpy(), self.model.stride_seconds,
                        duration, self.model.temporal.overlaps, self.model.min_score, unknown=self.unknown,
                        means=means)
