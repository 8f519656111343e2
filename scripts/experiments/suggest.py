"""How many labels a probe needs where `tinyaction suggest` names the next clips, and where they are drawn by chance.

    python scripts/experiments/suggest.py --data clips/weizmann4 --group-by 'p(\\d)_' \\
        --weights mobilenet_v2_imagenet_features.pt --seeds 10

Clips of a third of the groups are held out. A seed draws them, and a first labelled clip of each class; then clips are
labelled --step at a time until the probe of them has 95 % of the accuracy of a probe of all other clips.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.data.annotations import find_data
from tinyaction.data.groups import split_groups
from tinyaction.device import choose_device
from tinyaction.results.neighbors import clip_vectors
from tinyaction.results.suggest import choose_clips
from tinyaction.training.build import build_model
from tinyaction.training.config import RunConfig
from tinyaction.training.probe import ProbeData, choose_and_fit, poolings_of, video_probabilities
from tinyaction.training.probe_run import clip_features, probe_data

Choose = Callable[[ProbeData, list[int], list[int], int], list[int]]  # (data, labelled, others, how many) -> places


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--data", required=True, help="folder or list of labelled clips")
    parser.add_argument("--weights", required=True, help="pretrained weights of the network")
    parser.add_argument("--model", default="tsn-mobilenet_v2")
    parser.add_argument("--group-by", default="", help="clips with the same match are held out together")
    parser.add_argument("--pooling", default="stats")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--clip-len", type=int, default=8)
    parser.add_argument("--step", type=int, default=2, help="labels a round (default 2)")
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args(argv)
    found = find_data(args.data, group_by=args.group_by, keep_split=False, allow_outside=True)
    videos = found.train.joined(found.val)
    config = RunConfig(args.data, method="probe", model=args.model, weights=args.weights, size=args.size,
                       clip_len=args.clip_len, group_by=args.group_by, augment="none")
    model, _ = build_model(config, len(found.class_names))
    clips, = clip_features(config, [videos], Path(args.data), model, choose_device("cpu"), on_line=print,
                           on_count=None)
    data = probe_data(config, clips, len(found.class_names))
    totals: dict[str, list[float]] = {"suggest": [], "random": []}
    for seed in range(args.seeds):
        rng = np.random.default_rng(seed)
        names = [found.class_names[label] for label in clips.videos.labels]
        held_out = split_groups(names, [str(group) for group in data.groups or []], val_share=1 / 3, seed=seed,
                                source=Path(args.data))
        pool = sorted(set(range(len(names))) - set(held_out))
        target = 0.95 * accuracy(data, pool, held_out, args.pooling)
        first = [int(rng.choice([place for place in pool if names[place] == name])) for name in found.class_names]
        for how, choose in (("suggest", by_suggestion(args.pooling)), ("random", by_chance(rng))):
            labelled = list(first)
            while accuracy(data, labelled, held_out, args.pooling) < target:
                labelled += choose(data, labelled, sorted(set(pool) - set(labelled)), args.step)
            totals[how].append(len(labelled))
        print(f"seed {seed}: {totals['suggest'][-1]:.0f} labels by suggest, {totals['random'][-1]:.0f} by chance, of "
              f"{len(pool)}; accuracy to reach {target:.3f}", flush=True)
    for how, labels in totals.items():
        print(f"{how:<8} mean {np.mean(labels):.1f}, median {np.median(labels):.1f}, standard deviation "
              f"{np.std(labels, ddof=1):.1f}")
    gain = np.array(totals["random"]) - np.array(totals["suggest"])
    print(f"suggest needs fewer labels for {(gain > 0).sum()} seeds, more for {(gain < 0).sum()}")
    return 0


def scores_of(data: ProbeData, labelled: list[int], others: list[int], pooling: str) -> np.ndarray:
    probe = choose_and_fit(data.subset(labelled), poolings_of(pooling))
    return video_probabilities(probe.linear, data.subset(others).rows(probe.pooling)).numpy()


def accuracy(data: ProbeData, labelled: list[int], held_out: list[int], pooling: str) -> float:
    scores = scores_of(data, labelled, held_out, pooling)
    return float((scores.argmax(axis=1) == data.labels[held_out].numpy()).mean())


def by_suggestion(pooling: str) -> Choose:
    def choose(data: ProbeData, labelled: list[int], others: list[int], num: int) -> list[int]:
        vectors = clip_vectors(data.features).numpy()
        chosen = choose_clips(scores_of(data, labelled, others, pooling), vectors[others], vectors[labelled], num=num)
        return [others[place] for place, _ in chosen]

    return choose


def by_chance(rng: np.random.Generator) -> Choose:
    def choose(data: ProbeData, labelled: list[int], others: list[int], num: int) -> list[int]:
        return [int(place) for place in rng.choice(others, min(num, len(others)), replace=False)]

    return choose


if __name__ == "__main__":
    raise SystemExit(main())
