"""None of the classes, on weizmann4 (4 actions by 9 persons, 36 clips): each class in turn is left out and unknown.

    python scripts/experiments/unknown.py --weizmann4 clips/weizmann4 --weights mobilenet_v2_imagenet_features.pt

A person is tested by a probe and class means of the other eight and three of the classes: 108 clips of known classes
and 36 of unknown ones are tested. The threshold of each score is of the eight: of each of them by the seven others, at
the false-alarm rate. Temperatures likewise, with all four classes. "chosen by the run" is the kind of distance that
each test chooses on its eight persons and three classes alone, as a run does. Nothing is chosen on the person who is
tested, and nothing is random. "far" are clips of other videos (--far), tested with all four classes known.

With --streams the same is measured on generated actions: trained on segments of one seed, tested on those of others
(--seeds). Scores of the tests are put together after each is standardized by the test's own held-out clips, as tests
may have chosen different kinds.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.data.annotations import VideoList, find_data
from tinyaction.data.class_folders import is_video, walk_files
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.models import create_model
from tinyaction.models.unknown import KINDS, fit_class_means
from tinyaction.prepare.streams import make_streams
from tinyaction.results.calibration import (
    auroc,
    expected_calibration_error,
    fit_temperature,
    threshold_at_rate,
    with_temperature,
)
from tinyaction.results.features import FeatureCache, extract_features
from tinyaction.training.probe import Linear, ProbeData, choose_and_fit, poolings_of, video_probabilities
from tinyaction.training.unknown import Known, PooledVideos

CPU = torch.device("cpu")
Tensor = torch.Tensor
Array = np.ndarray[tuple[int, ...], np.dtype[Any]]
# Training rows (N, V, F'), their labels, rows of other clips, the classifier -> how unknown these are, higher is more.
Score = Callable[[Tensor, Tensor, Tensor, Linear], Tensor]


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    torch.set_num_threads(arguments.threads)
    if arguments.streams:
        measure_streams(arguments)
        return 0
    clips = [(str(path), label, int(path.name[1]))
             for label, name in enumerate(sorted(path.name for path in Path(arguments.weizmann4).iterdir()
                                                 if path.is_dir()))
             for path in sorted((Path(arguments.weizmann4) / name).glob("p*_orig.mp4"))]
    if len(clips) != 36:
        raise ValueError(f"{arguments.weizmann4}: {len(clips)} clips CLASS/pN_orig.mp4; weizmann4 has 36")
    labels, persons = torch.tensor([label for _, label, _ in clips]), torch.tensor([person for *_, person in clips])
    features = features_of(arguments, [path for path, _, _ in clips], mirrored=True)
    far = [str(path) for path in sorted(walk_files(arguments.far)) if is_video(path)] if arguments.far else []
    far_features = features_of(arguments, far[: arguments.num_far]) if far else None
    for pooling in arguments.poolings:
        measure_unknown(arguments, pooling, features, labels, persons)
        measure_all_known(arguments, pooling, features, labels, persons, far_features)
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="unknown.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weizmann4", help="the folder weizmann4")
    source.add_argument("--streams", action="store_true", help="generated actions in place of weizmann4")
    parser.add_argument("--weights", required=True, help="of --model")
    parser.add_argument("--model", default="tsn-mobilenet_v2")
    parser.add_argument("--size", type=int, default=112, help="pixels a side (default 112)")
    parser.add_argument("--views", type=int, default=2, help="clips of 8 frames of a video (default 2)")
    parser.add_argument("--poolings", nargs="+", default=["stats", "mean"], help="of the probe (default stats mean)")
    parser.add_argument("--rate", type=float, default=0.1, help="false alarms that are asked for (default 0.1)")
    parser.add_argument("--far", default="", help="a folder of clips that are nothing like weizmann4")
    parser.add_argument("--num-far", type=int, default=12, help="of these clips (default 12)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 11, 12, 13],
                        help="of the streams: one to train on, then those to test on (default 0 11 12 13)")
    parser.add_argument("--work", default="", help="folder to keep streams in; default a temporary one")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    return parser.parse_args(argv)


def features_of(arguments: argparse.Namespace, paths: list[str] | VideoList, *, mirrored: bool = False) -> Tensor:
    """(N, V, T, F, 2, 2); the mirrored views stand behind the others."""
    model = create_model(arguments.model, 2, weights=arguments.weights)
    pipeline = eval_pipeline(clip_len=8, size=arguments.size, num_clips=arguments.views)
    videos = VideoList(list(paths), [0] * len(paths)) if isinstance(paths, list) else paths
    return torch.cat([extract_features(model, videos, pipeline, FeatureCache(None), device=CPU,
                                       mirrored=each).features for each in (False, True)[: 1 + mirrored]], dim=1)


# ---- scores --------------------------------------------------------------------------------------------------------


def largest_softmax(train: Tensor, labels: Tensor, rows: Tensor, linear: Linear) -> Tensor:
    return -video_probabilities(linear, rows).max(dim=1).values


def energy(train: Tensor, labels: Tensor, rows: Tensor, linear: Linear) -> Tensor:
    return -linear.logits(rows).logsumexp(dim=2).mean(dim=1)


def distance(train: Tensor, labels: Tensor, rows: Tensor, linear: Linear) -> Tensor:
    """Plainly of the features as they are."""
    x = train.mean(dim=1)
    means = torch.stack([x[labels == label].mean(dim=0) for label in sorted(set(labels.tolist()))])
    return torch.cdist(rows.mean(dim=1), means).min(dim=1).values


def of_kind(kind: str) -> Score:
    """What a checkpoint carries."""
    return lambda train, labels, rows, linear: fit_class_means(
        kind, train.mean(dim=1), labels, len(linear.bias)).distances(rows.mean(dim=1))


SCORES: dict[str, Score] = {"largest softmax": largest_softmax, "energy of the logits": energy,
                            "class mean, distance": distance,
                            **{f"class mean, {kind}": of_kind(kind) for kind in KINDS}}
CHOSEN = "chosen by the run"


# ---- tables --------------------------------------------------------------------------------------------------------


class Tested:
    """A probe of some clips, and what each score says of held-out ones."""

    def __init__(self, pooling: str, views: int, features: Tensor, labels: Tensor, persons: Tensor) -> None:
        self.views, self.labels, self.persons = views, labels, persons
        self.data = ProbeData(features, labels, int(labels.max()) + 1, groups=persons.tolist())
        self.probe = choose_and_fit(self.data, poolings_of(pooling))
        self.rows = self.data.rows(self.probe.pooling)

    def of(self, features: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Scores of other clips, and their probabilities."""
        none = torch.zeros(len(features), dtype=torch.long)
        rows = ProbeData(features[:, : self.views], none, self.data.num_classes).rows(self.probe.pooling)
        return self._scores(self.rows, self.labels, rows, self.probe.linear)

    def held_out(self) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Scores, probabilities and labels of each person by the others."""
        parts = []
        for person in sorted(set(self.persons.tolist())):
            is_out = self.persons == person
            linear = self.data.fit(self.rows, ~is_out, [self.probe.strength])[0]
            parts.append((*self._scores(self.rows[~is_out], self.labels[~is_out], self.rows[is_out, : self.views],
                                        linear), self.labels[is_out]))
        return ({name: torch.cat([scores[name] for scores, _, _ in parts]) for name in SCORES},
                torch.cat([one for _, one, _ in parts]), torch.cat([one for *_, one in parts]))

    def chosen(self) -> str:
        """The score that a run would choose on these clips, its persons being the folds."""
        def subset(chosen: Tensor) -> PooledVideos:
            return PooledVideos([], self.rows[chosen, : self.views].mean(dim=1), self.labels[chosen])

        splits = [(subset(self.persons != person), subset(self.persons == person))
                  for person in sorted(set(self.persons.tolist()))]
        aurocs = Known(splits, subset(self.persons >= 0), self.data.num_classes).aurocs()
        return f"class mean, {max(aurocs, key=lambda kind: aurocs[kind])}"

    def _scores(self, train: Tensor, labels: Tensor, rows: Tensor, linear: Linear) -> tuple[dict[str, Tensor], Tensor]:
        return ({name: score(train[:, : self.views], labels, rows, linear) for name, score in SCORES.items()},
                video_probabilities(linear, rows))


def measure_unknown(arguments: argparse.Namespace, pooling: str, features: Tensor, labels: Tensor, persons: Tensor
                    ) -> None:
    table = UnknownTable(arguments.rate)
    for left_out in range(4):
        for person in range(9):
            is_train = (persons != person) & (labels != left_out)
            as_known = labels[is_train] - (labels[is_train] > left_out).long()
            tested = Tested(pooling, arguments.views, features[is_train], as_known, persons[is_train])
            table.add(tested, features[persons == person], labels[persons == person] == left_out)
    table.show(f"weizmann4, one class left out, pooling {pooling}")


class UnknownTable:
    """Clips of known and of unknown classes, tested by probes that do not know the latter."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        names = (*SCORES, CHOSEN)
        self.told: dict[str, list[Tensor]] = {name: [] for name in names}  # unknown
        self.scores: dict[str, list[Tensor]] = {name: [] for name in names}  # standardized
        self.is_unknown: list[Tensor] = []
        self.choices: list[str] = []

    def add(self, tested: "Tested", features: Tensor, is_unknown: Tensor) -> None:
        scores, _ = tested.of(features)
        inside, _, _ = tested.held_out()
        self.choices.append(tested.chosen())
        for name in self.told:
            kept = self.choices[-1] if name == CHOSEN else name
            self.told[name].append(scores[kept] > threshold_at_rate(inside[kept], self.rate))
            self.scores[name].append((scores[kept] - inside[kept].mean()) / inside[kept].std())
        self.is_unknown.append(is_unknown)

    def show(self, title: str) -> None:
        truth = torch.cat(self.is_unknown)
        print(f"\n{title}, thresholds for {self.rate:.0%} false alarms\n"
              f"{'':<24}{'AUROC':>7}{'of a test':>11}{'false alarms':>15}{'found':>13}", flush=True)
        for name, scores in self.scores.items():
            told = torch.cat(self.told[name])
            alarms, finds = told[~truth], told[truth]
            alone = np.mean([auroc(*pair) for pair in zip(self.is_unknown, scores, strict=True)])
            print(f"{name:<24}{auroc(truth, torch.cat(scores)):>7.3f}{alone:>11.3f}"
                  f"{f'{int(alarms.sum())} of {len(alarms)}':>15}"
                  f"{f'{int(finds.sum())} of {len(finds)}':>13}", flush=True)
        counts = ", ".join(f"{self.choices.count(name)} x {name}" for name in sorted(set(self.choices)))
        print(f"chosen: {counts}", flush=True)


def measure_all_known(arguments: argparse.Namespace, pooling: str, features: Tensor, labels: Tensor, persons: Tensor,
                      far: Tensor | None) -> None:
    """Calibration of persons left out, before and after the temperature; and clips that are far from everything."""
    scores_far: dict[str, list[float]] = {name: [] for name in SCORES}
    truth: list[bool] = []
    before, after, true, temperatures = [], [], [], []
    for person in range(9):
        is_out = persons == person
        tested = Tested(pooling, arguments.views, features[~is_out], labels[~is_out], persons[~is_out])
        _, inside, inside_labels = tested.held_out()
        temperature = fit_temperature(inside, inside_labels)
        known, probabilities = tested.of(features[is_out])
        before.append(probabilities.numpy())
        after.append(with_temperature(probabilities, temperature))
        true.append(labels[is_out].numpy())
        temperatures.append(temperature)
        if far is not None:
            others, _ = tested.of(far)
            for name in SCORES:
                scores_far[name] += [*known[name].tolist(), *others[name].tolist()]
            truth += [False] * len(probabilities) + [True] * len(far)
    if far is not None:
        print(f"far clips: AUROC {', '.join(f'{name} {auroc(truth, scores_far[name]):.3f}' for name in SCORES)}")
    show_calibration(np.concatenate(true), np.concatenate(before), np.concatenate(after))
    print(f"temperatures {min(temperatures):.2f} to {max(temperatures):.2f}", flush=True)


def show_calibration(labels: Array, before: Array, after: Array) -> None:
    for what, scores in (("before", before), ("after", after)):
        loss = -np.log(scores[np.arange(len(labels)), labels]).mean()
        print(f"all classes, {what} the temperature: ECE {expected_calibration_error(scores, labels):.3f}, "
              f"log loss {loss:.3f}, accuracy {(scores.argmax(axis=1) == labels).mean():.3f}", flush=True)


# ---- generated actions ---------------------------------------------------------------------------------------------


def measure_streams(arguments: argparse.Namespace) -> None:
    """Trained on the segments of 24 videos, tested on those of 24 videos of other seeds."""
    sets: list[tuple[Tensor, Tensor, Tensor]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in arguments.seeds:
            folder = Path(arguments.work or temporary, f"streams-{seed}")
            if not folder.exists():
                make_streams(folder, num_train=24 if not sets else 1, num_val=8, seed=seed)
            data = find_data(folder)
            videos = data.val if sets else data.train
            sets.append((features_of(arguments, videos), torch.from_numpy(videos.labels),
                         torch.tensor([int(str(group)[-8:-4]) % 6 for group in videos.groups or ()])))
    (features, labels, folds), *others = sets
    test, test_labels = (torch.cat([other[place] for other in others]) for place in (0, 1))
    for pooling in arguments.poolings:
        table = UnknownTable(arguments.rate)
        for left_out, name in enumerate(data.class_names):
            alone = UnknownTable(arguments.rate)
            is_train = labels != left_out
            as_known = labels[is_train] - (labels[is_train] > left_out).long()
            tested = Tested(pooling, arguments.views, features[is_train], as_known, folds[is_train])
            for one in (alone, table):
                one.add(tested, test, test_labels == left_out)
            alone.show(f"streams, {name} left out, pooling {pooling}")
        table.show(f"streams, all four of these, pooling {pooling}")
        tested = Tested(pooling, arguments.views, features, labels, folds)
        _, inside, inside_labels = tested.held_out()
        temperature = fit_temperature(inside, inside_labels)
        _, probabilities = tested.of(test)
        show_calibration(test_labels.numpy(), probabilities.numpy(), with_temperature(probabilities, temperature))
        print(f"temperature {temperature:.2f}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
