"""``--task timeline --unknown-rate``: from which distance on a segment is none of the classes.

A segment is the mean of its steps' features, before they are reduced for the network over time, where little is left
of what no class has. Class means are of the segments that are labelled in the training videos; the threshold, and the
kind of distance, of those in the validation videos.
"""

from collections.abc import Iterable, Sequence

import torch

from tinyaction.data.long_videos import LongVideo
from tinyaction.data.segments import Segment
from tinyaction.models.unknown import Unknown
from tinyaction.results.calibration import lowest_rate, threshold_at_rate
from tinyaction.results.timeline import StepFeatures, step_means
from tinyaction.training.unknown import Known, PooledVideos, kind_line, unknown_beyond

ROUNDING = 1e-6  # of a distance, by which it may differ the next time: class means are kept in 32 bits
StepsOfVideo = tuple[torch.Tensor, Sequence[Segment]]  # features (S, F) of its steps, labelled segments


def steps_of(features: StepFeatures, video: LongVideo) -> torch.Tensor:
    """(S, F) of a video whose features are in the cache."""
    return torch.cat([step_means(piece) for piece in features.pieces(video.path, *features.open(video.path))])


def fit_unknown(
    train: Iterable[StepsOfVideo], val: Iterable[StepsOfVideo], class_names: Sequence[str], *, stride: float,
    rate: float,
) -> tuple[Unknown | None, list[str]]:
    """What tells segments that are none of the classes, and lines about it; None where no segment is long enough to
    learn or to measure it by.
    """
    known, held_out = (pooled_segments(videos, class_names, stride=stride) for videos in (train, val))
    if known is None or held_out is None:
        return None, ["note: nothing is told unknown: no segment of the training or of the validation videos is as "
                      "long as a step"]
    classes = Known([(known, held_out)], known, len(class_names))
    aurocs = classes.aurocs()
    means, distances = classes.best(aurocs)
    threshold, N = (1 + ROUNDING) * threshold_at_rate(distances, rate), len(distances)
    num_beyond = int((distances > threshold).sum())
    lines = [kind_line(means.kind, aurocs), f"unknown: segments farther than {threshold:.4f} from all classes, as "
                                            f"{num_beyond} of the {N} in validation videos are"]
    if rate < lowest_rate(N):
        lines.append(f"note: {N} segments cannot promise a false-alarm rate of {rate:g}, the lowest is "
                     f"{lowest_rate(N):.3f}; the threshold is their largest distance")
    return unknown_beyond(threshold, means), lines


def pooled_segments(
    videos: Iterable[StepsOfVideo], class_names: Sequence[str], *, stride: float
) -> PooledVideos | None:
    """Each labelled segment, of the steps whose middle lies in it; those without one are left out."""
    rows, labels = [], []
    for steps, segments in videos:
        middles = (torch.arange(len(steps)) + 0.5) * stride
        for item in segments:
            inside = steps[(middles >= item.start) & (middles < item.end)]  # (S', F)
            if len(inside):
                rows.append(inside.double().mean(dim=0))
                labels.append(class_names.index(item.label))
    return PooledVideos([], torch.stack(rows), torch.tensor(labels)) if rows else None
