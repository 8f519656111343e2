"""The lesson of the generated set "direction": what a network cannot see that averages its frames.

    python scripts/experiments/direction.py

Two classes, a shape that moves right and the same clip played backwards, twin by twin. conv2d scores each frame by
itself and averages: twins have one score, so it is right on one of each two. tsm-conv2d is the same network with a
shift of channels between its two convolutions: a frame sees its neighbours, and so the order.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.data.annotations import find_data
from tinyaction.data.dataset import VideoDataset, build_dataloader
from tinyaction.data.pipelines import eval_pipeline, train_pipeline
from tinyaction.models import create_model
from tinyaction.prepare.synthetic import make_direction_set
from tinyaction.results.evaluation import evaluate
from tinyaction.training.loop import TrainState, train_one_epoch
from tinyaction.training.schedule import learning_rate
from tinyaction.training.updater import Updater, create_optimizer

CPU = torch.device("cpu")


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.epochs} epochs of {arguments.num_train} clips, 8 frames of {arguments.size} pixels, Adam "
          f"{arguments.lr:g}; accuracy on {arguments.num_val} clips of other scenes")
    print(f"{'':<20}" + "".join(f"  seed {seed}" for seed in range(arguments.seeds)) + "   seconds", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(arguments.data or Path(folder, "direction"))
        if not data.exists():
            make_direction_set(data, num_train=arguments.num_train, num_val=arguments.num_val)
        for model_name in arguments.models:
            start = time.perf_counter()
            accuracies = [train(model_name, data, seed, arguments) for seed in range(arguments.seeds)]
            print(f"{model_name:<20}" + "".join(f"{accuracy:8.3f}" for accuracy in accuracies)
                  + f"{time.perf_counter() - start:10.0f}", flush=True)
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="direction.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="a set that is there, or a folder to keep it in; default none")
    parser.add_argument("--models", nargs="+", default=["conv2d", "tsm-conv2d"], help="also: tsn-resnet18 ...")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (default 3)")
    parser.add_argument("--epochs", type=int, default=4, help="(default 4)")
    parser.add_argument("--num-train", type=int, default=200, help="training clips, even (default 200)")
    parser.add_argument("--num-val", type=int, default=60, help="validation clips, even (default 60)")
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default 64)")
    parser.add_argument("--lr", type=float, default=1e-3, help="of Adam (default 1e-3)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default 2)")
    return parser.parse_args(argv)


def train(model_name: str, data: Path, seed: int, arguments: argparse.Namespace) -> float:
    """Accuracy on the validation clips after training; nothing is mirrored: left and right are the classes."""
    torch.manual_seed(seed)
    folder = find_data(data)
    model = create_model(model_name, 2)
    train_set = VideoDataset(folder.train, train_pipeline(clip_len=8, size=arguments.size, flip_ratio=0), seed=seed)
    val_set = VideoDataset(folder.val, eval_pipeline(clip_len=8, size=arguments.size), test_mode=True)
    loader = build_dataloader(train_set, batch_size=8, shuffle=True)
    steps = len(loader)
    updater = Updater(
        create_optimizer("adam", model, lr=arguments.lr),
        lambda step: learning_rate(step, base_lr=arguments.lr, total_steps=arguments.epochs * steps,
                                   warmup_steps=steps),
        clip_grad_norm=40.0,
    )
    for epoch in range(arguments.epochs):
        loader.set_epoch(epoch)
        train_one_epoch(model, loader, updater, device=CPU, state=TrainState(step=epoch * steps))
    return evaluate(model, build_dataloader(val_set, batch_size=8), device=CPU).top1


if __name__ == "__main__":
    raise SystemExit(main())
