"""Features kept as float16 beside float32: accuracy of probes, largest difference of a score, bytes.

    python scripts/experiments/feature_precision.py --weizmann4 clips/weizmann4 --weights FILE

weizmann4 in 3 folds of 3 persons, and the generated set "direction". Nothing is drawn at random.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyaction import RunConfig, find_data
from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.prepare.synthetic import make_direction_set
from tinyaction.results import features
from tinyaction.training.build import build_model, eval_arguments
from tinyaction.training.folds import divide
from tinyaction.training.probe import poolings_of
from tinyaction.training.probe_run import ClipFeatures, fit_clips, is_mirroring, probe_data

FORMATS = {"float32": 0.0, "float16": features.LARGEST_FLOAT16}  # up to which number float16 is taken


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    torch.set_num_threads(1)
    common: dict[str, Any] = {"model": "tsn-mobilenet_v2", "weights": arguments.weights, "clip_len": 8,
                              "method": "probe", "device": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        make_direction_set(Path(folder) / "direction", num_train=100, num_val=60)
        compare(RunConfig(arguments.weizmann4, size=112, group_by=r"p(\d)_", folds=3, **common))
        compare(RunConfig(str(Path(folder) / "direction"), size=128, flip=0.0, probe_views=1, **common))
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="feature_precision.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weizmann4", required=True, help="the folder weizmann4")
    parser.add_argument("--weights", required=True, help="of tsn-mobilenet_v2")
    return parser.parse_args(argv)


def compare(config: RunConfig) -> None:
    """Print a line a format and pooling."""
    data = find_data(config.data, group_by=config.group_by)
    num_train, data = len(data.train), data.merged()
    K = len(data.class_names)
    model, _ = build_model(config, K)
    places = list(range(len(data.train)))
    parts = (divide(data.train, data.class_names, config.folds) if config.folds else
             [(places[:num_train], places[num_train:])])
    kept: dict[str, np.ndarray[Any, Any]] = {}
    for name, largest in FORMATS.items():
        features.LARGEST_FLOAT16 = largest
        found = features.extract_features(
            model, data.train, eval_pipeline(**eval_arguments(config)), features.FeatureCache(None),
            device=torch.device("cpu"), mirrored=is_mirroring(config))
        V = config.probe_views
        clips = ClipFeatures(data.train, found.features[:, :V], found.features[:, V:], [])
        for pooling in ("mean", "stats", "order", "auto"):
            poolings = poolings_of(pooling)
            known = probe_data(config, clips, K).pool(poolings)
            results = [fit_clips(model, known.subset(train), poolings, clips.subset(train), clips.subset(held_out)).val
                       for train, held_out in parts]
            scores = np.concatenate([one.scores for one in results])
            labels = np.concatenate([one.labels for one in results])
            difference = np.abs(scores - kept.setdefault(pooling, scores)).max()
            accuracy = (scores.argmax(axis=1) == labels).mean()
            print(f"{Path(config.data).name}, {name}, {pooling}: accuracy {accuracy:.4f} over {len(labels)} clips, "
                  f"{found.features[0].nbytes} bytes a clip, scores differ by {difference:.1e} at most", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
