"""An audit in parts, for an array of jobs or a cluster: all that is read of a video is in its part.

Features are kept beside the data, where an audit looks for them; the facts of a clip are in the file of the part.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyaction.audit.audit import audit_folder, look_at_files
from tinyaction.audit.clips import ClipFacts
from tinyaction.audit.recordings import Keypoints
from tinyaction.data.annotations import VideoList
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.device import choose_device
from tinyaction.prepare.parts import Records, Work
from tinyaction.results.features import keep_features
from tinyaction.training.build import build_model, eval_arguments
from tinyaction.training.config import RunConfig
from tinyaction.training.probe_run import cache_and_reading, is_mirroring

NUM_AT_ONCE = 64  # videos whose features are in memory; workers begin anew for each so many


def paths_of(config: RunConfig) -> list[str]:
    """The videos of an audit."""
    data = audit_folder(config)
    return list(dict.fromkeys([*data.train.paths(), *data.val.paths()]))


def work_in_part(config: RunConfig) -> Work:
    """Yields (path, {"bad": why the network has no features of it, or "", "facts": of the clip, or why none})."""
    keep = _features_kept(config) if config.pretrained else lambda paths: {}

    def work(paths: Sequence[str]) -> Iterator[tuple[str, Any]]:
        for first in range(0, len(paths), NUM_AT_ONCE):
            some = paths[first : first + NUM_AT_ONCE]
            reasons = keep(some)
            for path, facts in look_at_files(some, config):
                yield path, {"bad": reasons.get(path, ""), "facts": facts if isinstance(facts, str) else packed(facts)}

    return work


def _features_kept(config: RunConfig) -> Callable[[Sequence[str]], dict[str, str]]:
    """What keeps the features of videos, and tells why some have none."""
    data, device = audit_folder(config), choose_device(config.device)
    assert data.folder is not None
    model, _ = build_model(config, len(data.class_names))
    pipeline = eval_pipeline(**eval_arguments(config))
    cache, reading = cache_and_reading(config, data.folder, model, pipeline)

    def keep(paths: Sequence[str]) -> dict[str, str]:
        bad = keep_features(model, VideoList(paths, [0] * len(paths)), pipeline, cache, device=device,
                            mirrored=is_mirroring(config), reading=reading).bad
        if cache.folder is None:
            raise ValueError("; ".join(cache.notes))
        return {video.filename: video.reason for video in bad}

    return keep


def found_in_parts(records: Records) -> Iterator[tuple[str, ClipFacts | str]]:
    """What :func:`look_at_files` found in the parts. Takes the records out, which are as large."""
    for path in list(records):
        facts = records.pop(path)["facts"]
        yield path, facts if isinstance(facts, str) else unpacked(facts)


def packed(facts: ClipFacts) -> dict[str, Any]:
    """The facts as JSON holds them, about 0.7 MB."""
    def text(array: npt.NDArray[Any]) -> str:
        return base64.b64encode(array.tobytes()).decode()

    return {**vars(facts), "keypoints": [[text(one.places), text(one.descriptors), *one.size]
                                         for one in facts.keypoints]}


def unpacked(record: dict[str, Any]) -> ClipFacts:
    def array(text: str, kind: type[Any]) -> npt.NDArray[Any]:
        return np.frombuffer(base64.b64decode(text), kind)

    keypoints = [Keypoints(array(places, np.float32).reshape(-1, 2), array(descriptors, np.uint8).reshape(-1, 128),
                           (width, height)) for places, descriptors, width, height in record["keypoints"]]
    return ClipFacts(**{**record, "keypoints": keypoints})
