"""UCF101 (split 1): the commands, the published rows with their sources, and a probe of a pretrained network.

    python scripts/experiments/ucf101.py                                       # what to run, what to expect
    python scripts/experiments/ucf101.py --data UCF101 --model videomae-base --weights kinetics

The folder holds the class folders and the data set's own lists (classInd.txt, trainlist01.txt, testlist01.txt). The
rows are of networks that were fine-tuned whole, some as a mean over the three splits; a probe of frozen features is
the quick check beside them, no attempt to reach them.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import tinyaction as ta
from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.device import default_num_workers
from tinyaction.results.metrics import wilson_interval


@dataclass(frozen=True)
class Row:
    """A published accuracy in percent."""

    network: str
    pretrained_on: str
    top1: float
    source: str


ROWS = (
    Row("VideoMAE ViT-B", "UCF101 itself, without labels", 91.3, "Tong et al. 2022, arXiv 2203.12602"),
    Row("TSM ResNet-50, 8 frames", "Kinetics-400", 95.9, "Lin et al. 2019, arXiv 1811.08383"),
    Row("VideoMAE ViT-B", "Kinetics-400, without labels", 96.1, "Tong et al. 2022, arXiv 2203.12602"),
)
COMMANDS = (
    "tinyaction check --data UCF101",
    "tinyaction store --data UCF101 --out UCF101-frames",
    "tinyaction train --data UCF101-frames --method probe --model videomae-base --weights kinetics",
    "tinyaction train --data UCF101-frames --model tsm-resnet50 --weights TSM_KINETICS.pth --size 224",
)


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    print("\n".join(["commands:", *(f"  {command}" for command in COMMANDS), "published, top 1 on UCF101:"]))
    for row in ROWS:
        print(f"  {row.top1:5.1f} %  {row.network:<24} pretrained on {row.pretrained_on:<30} {row.source}")
    if arguments.data:
        print(measured_row(arguments))
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="ucf101.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="the folder of UCF101; without it nothing is measured")
    parser.add_argument("--model", default="videomae-base", help="as for tinyaction train (default videomae-base)")
    parser.add_argument("--weights", default="", help="as for tinyaction train")
    parser.add_argument("--clip-len", type=int, default=16, help="frames of a clip (default 16)")
    parser.add_argument("--size", type=int, default=224, help="pixels a side (default 224)")
    parser.add_argument("--num-workers", type=int, default=default_num_workers(), help="processes that decode")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--out", default="", help="run folder; default a new one in runs/")
    return parser.parse_args(argv)


def measured_row(arguments: argparse.Namespace) -> str:
    """Train a probe on the training list, test it on the other."""
    run = ta.train(ta.RunConfig(
        arguments.data, method="probe", model=arguments.model, weights=arguments.weights, clip_len=arguments.clip_len,
        size=arguments.size, num_workers=arguments.num_workers, device=arguments.device, out=arguments.out))
    num_videos = len(run.evaluation.labels)
    low, high = wilson_interval(round(run.accuracy * num_videos), num_videos)
    return (f"measured:\n  {100 * run.accuracy:5.1f} %  probe of {arguments.model}, weights "
            f"{arguments.weights or 'none'}, {num_videos} videos ({100 * low:.1f} to {100 * high:.1f} %); run "
            f"{run.path}")


if __name__ == "__main__":
    raise SystemExit(main())
