"""Features of an audit in parts, for an array of jobs or a cluster: they are kept beside the data, where it looks."""

from collections.abc import Iterator, Sequence
from typing import Any

from tinyaction.audit.audit import audit_folder
from tinyaction.data.annotations import VideoList
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.device import choose_device
from tinyaction.prepare.parts import Work
from tinyaction.results.features import keep_features
from tinyaction.training.build import build_model, eval_arguments
from tinyaction.training.config import RunConfig
from tinyaction.training.probe_run import cache_and_reading, is_mirroring

NUM_AT_ONCE = 64  # videos whose features are in memory; workers begin anew for each so many


def paths_of(config: RunConfig) -> list[str]:
    """The videos of an audit."""
    data = audit_folder(config)
    return list(dict.fromkeys([*data.train.paths(), *data.val.paths()]))


def features_in_part(config: RunConfig) -> Work:
    """Yields (path, {"bad": why, or ""}) of videos when their features are kept."""
    data, device = audit_folder(config), choose_device(config.device)
    assert data.folder is not None
    model, _ = build_model(config, len(data.class_names))
    pipeline = eval_pipeline(**eval_arguments(config))
    cache, reading = cache_and_reading(config, data.folder, model, pipeline)

    def work(paths: Sequence[str]) -> Iterator[tuple[str, Any]]:
        for first in range(0, len(paths), NUM_AT_ONCE):
            some = paths[first : first + NUM_AT_ONCE]
            bad = keep_features(model, VideoList(some, [0] * len(some)), pipeline, cache, device=device,
                                mirrored=is_mirroring(config), reading=reading).bad
            if cache.folder is None:
                raise ValueError("; ".join(cache.notes))
            reasons = {video.filename: video.reason for video in bad}
            yield from ((path, {"bad": reasons.get(path, "")}) for path in some)

    return work
