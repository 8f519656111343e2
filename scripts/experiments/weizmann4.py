"""Recognizers on weizmann4 (4 actions by 9 persons, 36 clips), each tested on persons that it has never seen.

    python scripts/experiments/weizmann4.py --data shared/clips/weizmann4 --weights mobilenet_v2_imagenet_features.pt

Three folds: persons 0-2, 3-5, 6-8 are tested by a network that learned the other six. The accuracy of a seed is over
all 36 clips, each tested once, with the weights of the last epoch: nothing is chosen by looking at the test clips.
Each network is tested on one view of 8 frames and on the mean of four. The movements are periodic, and 8 evenly spread
frames can meet a person in one and the same posture 8 times (p0_orig of jack); four views do not.
"""

import argparse
import copy
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.data.annotations import VideoList
from tinyaction.data.dataset import Batch, Item, VideoDataset, build_dataloader, collate
from tinyaction.data.pipelines import eval_pipeline, train_pipeline
from tinyaction.models import Recognizer, create_model
from tinyaction.results.evaluation import Evaluation, Loader, evaluate
from tinyaction.training.finetune import Criterion, freeze
from tinyaction.training.loop import TrainState, train_one_epoch
from tinyaction.training.schedule import learning_rate
from tinyaction.training.updater import Updater, create_optimizer

Clip = tuple[str, int, int]  # path, label, person
CPU = torch.device("cpu")
VIEWS = (1, 4)  # clips of 8 frames of a tested video, whose scores are averaged
FOLDS = [(0, 1, 2), (3, 4, 5), (6, 7, 8)]


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    torch.set_num_threads(arguments.threads)
    folder = Path(arguments.data)
    class_names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    clips = [(str(path), label, int(path.name[1])) for label, name in enumerate(class_names)
             for path in sorted((folder / name).glob("p*_orig.mp4"))]
    if len(clips) != 36:
        raise ValueError(f"{folder}: {len(clips)} clips CLASS/pN_orig.mp4; weizmann4 has 36")
    print(f"{'':<28}{'accuracy':>10}{'spread':>9}   of each seed", flush=True)
    if arguments.weights:
        for name, accuracy in frozen_baselines(clips, arguments):
            print(f"{name:<28}{accuracy:>10.3f}", flush=True)
    for model_name in arguments.models:
        start = time.perf_counter()
        network = None if model_name == "conv2d" else Folds(model_name, clips, arguments)
        results = [[train_conv2d(clips, persons, seed) if network is None else network.train_and_test(persons, seed)
                    for persons in FOLDS] for seed in range(arguments.seeds)]  # seed, fold, number of views
        for column, num_clips in enumerate(VIEWS):
            lines = table_lines([[fold[column] for fold in seed] for seed in results], class_names)
            print(f"{f'{model_name}, {num_clips} x 8':<28}{lines[0]}")
            print(*lines[1:], sep="\n", end="", flush=True)
        print(f"    {time.perf_counter() - start:.0f} s", flush=True)
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="weizmann4.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder weizmann4")
    parser.add_argument("--weights", default="", help="ImageNet weights of MobileNetV2; without: no pretrained rows")
    parser.add_argument("--models", nargs="+", default=["conv2d", "tsn-mobilenet_v2", "tsm-mobilenet_v2"])
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (default 3)")
    parser.add_argument("--size", type=int, default=112, help="pixels a side for MobileNetV2 (default 112)")
    parser.add_argument("--epochs", type=int, default=12, help="for MobileNetV2 (default 12)")
    parser.add_argument("--lr", type=float, default=2e-4, help="of AdamW for MobileNetV2 (default 2e-4)")
    parser.add_argument("--head-lr-multiplier", type=float, default=10.0,
                        help="multiple of it for the head (default 10)")
    parser.add_argument("--freeze", type=int, default=14, help="stages of MobileNetV2, of 19, that stay (default 14)")
    parser.add_argument("--least-area", type=float, default=0.5,
                        help="least share of the frame in a training box (default 0.5)")
    parser.add_argument("--variants", type=int, default=4, help="augmented variants of a clip (default 4)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    return parser.parse_args(argv)


class CachedBatches:
    """Batches of features: in each epoch one of the variants of each clip, and an order, drawn from seed and epoch.

    It does for features what the dataset and its loader do for videos.
    """

    def __init__(self, items: Sequence[Sequence[Item]], *, batch_size: int, seed: int) -> None:
        self.items = items  # for each clip its variants
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.items) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.RandomState([self.seed, self.epoch])
        drawn = [self.items[clip][rng.randint(len(self.items[clip]))] for clip in rng.permutation(len(self.items))]
        for start in range(0, len(drawn), self.batch_size):
            yield collate(drawn[start : start + self.batch_size])


class Folds:
    """The clips of one network with its first stages run once, so that each fit trains the others only.

    A clip of features goes into the rest of the network as a clip of pixels goes into the whole.
    """

    def __init__(self, model_name: str, clips: Sequence[Clip], arguments: argparse.Namespace) -> None:
        self.model_name, self.clips, self.arguments = model_name, clips, arguments
        model = self.create()
        trunk, _ = split(model, arguments.freeze)
        videos = VideoList([path for path, _, _ in clips], [label for _, label, _ in clips])
        train = VideoDataset(videos, train_pipeline(clip_len=8, size=arguments.size, area=(arguments.least_area, 1.0)))
        self.variants = [[features_of(trunk, train[epoch, index]) for epoch in range(arguments.variants)]
                         for index in range(len(clips))]
        self.tests = []  # for each number of views the clips
        for num_clips in VIEWS:
            test = VideoDataset(videos, eval_pipeline(clip_len=8, size=arguments.size, num_clips=num_clips))
            self.tests.append([features_of(trunk, test[index]) for index in range(len(clips))])

    def create(self) -> Recognizer:
        return create_model(self.model_name, 4, weights=self.arguments.weights)

    def train_and_test(self, persons: Sequence[int], seed: int) -> list[Evaluation]:
        arguments = self.arguments
        torch.manual_seed(seed)
        _, model = split(self.create(), arguments.freeze)
        freeze(model, "0", norms=True)
        is_out = [person in persons for _, _, person in self.clips]
        loader = CachedBatches([item for item, out in zip(self.variants, is_out, strict=True) if not out],
                               batch_size=8, seed=seed)
        optimizer = create_optimizer("adamw", model, lr=arguments.lr, weight_decay=0.01,
                                     head_lr_multiplier=arguments.head_lr_multiplier)
        train(model, loader, optimizer, lr=arguments.lr, num_epochs=arguments.epochs,
              criterion=Criterion(label_smoothing=0.1))
        tests = [[[item] for item, out in zip(items, is_out, strict=True) if out] for items in self.tests]
        return [evaluate(model, CachedBatches(items, batch_size=12, seed=0), device=CPU) for items in tests]


def split(model: Recognizer, num_stages: int) -> tuple[Recognizer, Recognizer]:
    """(the first stages, the rest) of a recognizer on MobileNetV2, each a recognizer that takes clips."""
    first, rest = copy.deepcopy(model), copy.deepcopy(model)
    features = model.backbone.features
    assert isinstance(features, nn.Sequential) and 0 < num_stages < len(features)
    first.backbone.features = copy.deepcopy(features[:num_stages])
    rest.backbone.features = copy.deepcopy(features[num_stages:])
    rest.data_preprocessor = nn.Identity()
    return first.eval(), rest


@torch.inference_mode()
def features_of(trunk: Recognizer, item: Item) -> Item:
    """An item with pixels (V, 3, T, H, W) as one with features (V, F, T, h, w)."""
    features = trunk(item["inputs"][None], mode="tensor")              # (V, T, F, h, w)
    return {"inputs": features.transpose(1, 2).clone(), "data_samples": item["data_samples"]}


def train(
    model: Recognizer, loader: Loader, optimizer: torch.optim.Optimizer, *, lr: float, num_epochs: int,
    criterion: Criterion | None = None,
) -> None:
    """One epoch of warm-up, then a cosine."""
    steps = len(loader)
    updater = Updater(optimizer, lambda step: learning_rate(step, base_lr=lr, total_steps=num_epochs * steps,
                                                            warmup_steps=steps), clip_grad_norm=10.0)
    for epoch in range(num_epochs):
        loader.set_epoch(epoch)
        train_one_epoch(model, loader, updater, device=CPU, criterion=criterion,
                        state=TrainState(epoch, epoch * steps))


def table_lines(results: Sequence[Sequence[Evaluation]], class_names: Sequence[str]) -> list[str]:
    """Mean, spread and accuracy of each seed; then the clips that were wrong."""
    accuracies, wrong = [], []
    for seed, folds in enumerate(results):
        right = 0
        for fold in folds:
            predicted = fold.scores.argmax(axis=1)
            right += int((predicted == fold.labels).sum())
            wrong += [f"    wrong: {Path(name).parent.name}/{Path(name).stem} as {class_names[guess]} (seed {seed})"
                      for name, guess, label in zip(fold.filenames, predicted, fold.labels, strict=True)
                      if guess != label]
        accuracies.append(right / sum(len(fold.labels) for fold in folds))
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    each = " ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    return [f"{statistics.mean(accuracies):>10.3f}{spread:>9.3f}   {each}", *wrong, ""]


def train_conv2d(clips: Sequence[Clip], persons: Sequence[int], seed: int) -> list[Evaluation]:
    """The guide's network from scratch, as the pipelines train it: 8 frames of 64 pixels, SGD 0.01, 30 epochs."""
    torch.manual_seed(seed)
    model = create_model("conv2d", 4)
    train_list, test_list = (VideoList([path for path, _, person in clips if (person in persons) == is_test],
                                       [label for _, label, person in clips if (person in persons) == is_test])
                             for is_test in (False, True))
    train_set = VideoDataset(train_list, train_pipeline(clip_len=8, size=64), seed=seed)
    train(model, build_dataloader(train_set, batch_size=8, shuffle=True),
          create_optimizer("sgd", model, lr=0.01, weight_decay=1e-4), lr=0.01, num_epochs=30)
    tests = [VideoDataset(test_list, eval_pipeline(clip_len=8, size=64, num_clips=num_clips)) for num_clips in VIEWS]
    return [evaluate(model, build_dataloader(test, batch_size=12), device=CPU) for test in tests]


def frozen_baselines(
    clips: Sequence[Clip], arguments: argparse.Namespace
) -> Iterator[tuple[str, float]]:
    """(what, accuracy) of a linear classifier on features of the frozen network, leaving out one person, and three."""
    model = create_model("tsn-mobilenet_v2", 4, weights=arguments.weights).eval()
    pipeline = eval_pipeline(clip_len=8, size=arguments.size)
    with torch.inference_mode():
        features = torch.cat([
            model(collate([pipeline({"filename": path, "label": label})])["inputs"], mode="tensor").mean(dim=(3, 4))
            for path, label, _ in clips
        ])                                                             # (36, T, F)
    mean = features.mean(dim=1)                                        # (36, F)
    changes = features.diff(dim=1).abs().mean(dim=1)                   # (36, F)
    labels, persons = (torch.tensor([clip[column] for clip in clips]) for column in (1, 2))
    for name, x in (("middle frame", features[:, 4]), ("mean of 8 frames", mean),
                    ("mean and differences", torch.cat((mean, changes), dim=1))):
        for kind, folds in (("1 out", [(person,) for person in range(9)]), ("3 out", FOLDS)):
            num_right = 0
            for fold in folds:
                out = torch.isin(persons, torch.tensor(fold))
                predicted = linear_classifier(x[~out], labels[~out], x[out])
                num_right += int((predicted == labels[out]).sum())
            yield f"{name}, {kind}", num_right / len(clips)


def linear_classifier(x: torch.Tensor, labels: torch.Tensor, x_new: torch.Tensor) -> torch.Tensor:
    """Classes of (M, F) by logistic regression on (N, F), standardized, with an L2 penalty of 0.01."""
    mean, std = x.mean(dim=0), x.std(dim=0) + 1e-3
    x, x_new = (x - mean) / std, (x_new - mean) / std
    weight = torch.zeros(int(labels.max()) + 1, x.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T, labels) + 0.01 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return (x_new @ weight.T).argmax(dim=1)


if __name__ == "__main__":
    raise SystemExit(main())
