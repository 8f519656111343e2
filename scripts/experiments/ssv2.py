"""Something-Something V2: the published networks, what they reached, and their evaluation on the data.

    python scripts/experiments/ssv2.py                                         # what to expect, with sources
    python scripts/experiments/ssv2.py videomae-base --data ssv2               # measured beside it

The folder holds the videos and the data set's own lists (*train*.json, *validation*.json). The networks are evaluated
with the published views; where these cannot be had here, as V-JEPA 2's pooling over two clips, the row says so.
"""

import argparse
from collections.abc import Sequence

from published import card_of, evaluate_published, row_of, views_of

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.device import default_num_workers
from tinyaction.models.published import all_cards


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    print("published, top 1 on Something-Something V2:")
    for card in all_cards():
        if card.dataset == "ssv2":
            print(f"  {card.top1:5.1f} %  {card.name:<18} {card.clip_len} frames, {card.views:<18} {card.source}")
            print(f"           python scripts/experiments/ssv2.py {card.name} --data ssv2")
    if arguments.name:
        card = card_of(arguments.name, "ssv2")
        arguments.weights = arguments.weights or "ssv2"
        views_of(card, arguments.views)
        print(row_of(card, evaluate_published(arguments, card), arguments.weights))
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="ssv2.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="", help="of a network in the list; without it nothing is measured")
    parser.add_argument("--data", default="", help="the folder of Something-Something V2")
    parser.add_argument("--weights", default="", help="a folder or file in place of the published weights")
    parser.add_argument("--classes", help="file of two columns: the folder's class, the network's class")
    parser.add_argument("--views", help="clips and crops such as 2x3; default as published")
    parser.add_argument("--batch-size", type=int, default=1, help="videos of a batch (default 1)")
    parser.add_argument("--num-workers", type=int, default=default_num_workers(), help="processes that decode")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    arguments = parser.parse_args(argv)
    if arguments.name and not arguments.data:
        raise ValueError("--data is missing: the folder of Something-Something V2 to evaluate on")
    return arguments


if __name__ == "__main__":
    raise SystemExit(main())
