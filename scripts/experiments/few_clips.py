"""Probes of a frozen network where there are few clips: weizmann4 (36 clips) and the generated set "direction".

    python scripts/experiments/few_clips.py --weizmann4 clips/weizmann4 --weights mobilenet_v2_imagenet_features.pt

weizmann4: whole persons are held out, three at a time or one; within the training persons, pooling and strength are
chosen by cross-validation that holds out whole persons too. Nothing is chosen by looking at tested clips, and nothing
is random, so there are no seeds. direction: a clip and the same played backwards, which only their order tells apart.
Times are of all clips' features, computed (cold) and read from the cache (again), with the fits after that.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.data.annotations import VideoList, find_data
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.models import create_model
from tinyaction.prepare.synthetic import make_direction_set
from tinyaction.results.features import FeatureCache, extract_features
from tinyaction.training.probe import ProbeData, choose_and_fit, poolings_of, video_probabilities

CPU = torch.device("cpu")
FOLDS: dict[str, list[tuple[int, ...]]] = {
    "3 folds of 3 persons": [(0, 1, 2), (3, 4, 5), (6, 7, 8)],
    "leave one out": [(person,) for person in range(9)],
}


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.weizmann4:
            run_weizmann4(arguments, Path(folder))
        if arguments.num_train:
            run_direction(arguments, Path(folder))
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="few_clips.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weizmann4", default="", help="the folder weizmann4; without: only direction")
    parser.add_argument("--weights", required=True, help="of --model")
    parser.add_argument("--model", default="tsn-mobilenet_v2")
    parser.add_argument("--size", type=int, default=112, help="pixels a side for weizmann4 (default 112)")
    parser.add_argument("--direction-size", type=int, default=128, help="pixels a side for direction (default 128)")
    parser.add_argument("--views", type=int, default=2, help="clips of 8 frames of a weizmann4 video (default 2)")
    parser.add_argument("--poolings", nargs="+", default=["stats", "auto"], help="for weizmann4 (default stats auto)")
    parser.add_argument("--num-train", type=int, default=100, help="of direction, even; 0 leaves it out (default 100)")
    parser.add_argument("--num-val", type=int, default=60, help="of direction, even (default 60)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    return parser.parse_args(argv)


def features_of(arguments: argparse.Namespace, videos: VideoList, cache: Path, *, size: int, num_clips: int,
                is_mirroring: bool) -> torch.Tensor:
    """(N, V, T, F, 2, 2); the mirrored views stand behind the others."""
    model = create_model(arguments.model, 2, weights=arguments.weights)
    pipeline = eval_pipeline(clip_len=8, size=size, num_clips=num_clips)
    return torch.cat([extract_features(model, videos, pipeline, FeatureCache(cache), device=CPU,
                                       mirrored=mirrored).features
                      for mirrored in (False, True)[: 1 + is_mirroring]], dim=1)


def run_weizmann4(arguments: argparse.Namespace, folder: Path) -> None:
    clips = [(str(path), label, int(path.name[1]))
             for label, name in enumerate(sorted(path.name for path in Path(arguments.weizmann4).iterdir()
                                                 if path.is_dir()))
             for path in sorted((Path(arguments.weizmann4) / name).glob("p*_orig.mp4"))]
    if len(clips) != 36:
        raise ValueError(f"{arguments.weizmann4}: {len(clips)} clips CLASS/pN_orig.mp4; weizmann4 has 36")
    videos = VideoList([path for path, _, _ in clips], [label for _, label, _ in clips])
    for what in ("cold", "again"):
        start = time.perf_counter()
        features = features_of(arguments, videos, folder / "weizmann4", size=arguments.size,
                               num_clips=arguments.views, is_mirroring=True)
        print(f"weizmann4, features, {what}: {time.perf_counter() - start:.1f} s", flush=True)
    labels, persons = torch.tensor([label for _, label, _ in clips]), torch.tensor([clip[2] for clip in clips])
    for name in arguments.poolings:
        for title, folds in FOLDS.items():
            start, num_right, chosen = time.perf_counter(), 0, []
            for fold in folds:
                is_out = torch.isin(persons, torch.tensor(fold))
                data = ProbeData(features[~is_out], labels[~is_out], 4, groups=persons[~is_out].tolist())
                probe = choose_and_fit(data, poolings_of(name))
                held_out = ProbeData(features[is_out, : arguments.views], labels[is_out], 4)
                scores = video_probabilities(probe.linear, held_out.rows(probe.pooling))
                num_right += int((scores.argmax(dim=1) == labels[is_out]).sum())
                chosen.append(f"{probe.pooling} {probe.strength:g}")
            print(f"weizmann4, {name}, {title}: {num_right / 36:.3f} ({num_right} of 36), "
                  f"{time.perf_counter() - start:.1f} s; chosen: {', '.join(sorted(set(chosen)))}", flush=True)


def run_direction(arguments: argparse.Namespace, folder: Path) -> None:
    make_direction_set(folder / "direction", num_train=arguments.num_train, num_val=arguments.num_val)
    data = find_data(folder / "direction")
    start = time.perf_counter()
    train, val = (features_of(arguments, videos, folder / "direction-features", size=arguments.direction_size,
                              num_clips=1, is_mirroring=False) for videos in (data.train, data.val))
    print(f"direction, features: {time.perf_counter() - start:.1f} s", flush=True)
    labels = torch.from_numpy(data.val.labels)
    for name in ("mean", "stats", "order", "auto"):
        probe = choose_and_fit(ProbeData(train, torch.from_numpy(data.train.labels), 2), poolings_of(name))
        scores = video_probabilities(probe.linear, ProbeData(val, labels, 2).rows(probe.pooling))
        accuracy = (scores.argmax(dim=1) == labels).double().mean().item()
        print(f"direction, {name}: {accuracy:.3f} on {len(labels)} clips; chosen: {probe.pooling} "
              f"{probe.strength:g}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
