"""A published network on a folder in Kinetics layout, with the published views, beside the published accuracy.

    python scripts/experiments/published.py videomae-base --data kinetics400/val
    python scripts/experiments/published.py x3d_s --weights X3D_S.pyth --data kinetics400/val --num-workers 8

The weights are fetched where there is a network, or named as a file or folder. The data is class folders named as the
network's classes (``--classes`` maps others), or what ``tinyaction evaluate --data`` takes. Published accuracies are
of the whole validation set; Kinetics loses videos from year to year, so that many videos of it are gone by now.
"""

import argparse
import re
from collections.abc import Sequence

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.cli.progress import ProgressLine
from tinyaction.data.annotations import find_data
from tinyaction.data.class_map import match_classes, read_class_map, with_numbers
from tinyaction.data.dataset import VideoDataset, build_dataloader
from tinyaction.data.pipelines import eval_pipeline
from tinyaction.device import choose_device, default_num_workers
from tinyaction.models.checkpoint import checkpoint_of
from tinyaction.models.model_card import ModelCard
from tinyaction.models.pretrained import load_pretrained
from tinyaction.models.published import all_cards
from tinyaction.models.torchvision_published import torchvision_cards
from tinyaction.results.evaluation import Evaluation, evaluate
from tinyaction.results.metrics import wilson_interval


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    card = card_of(arguments.name, arguments.weights)
    result = evaluate_published(arguments, card)
    print(row_of(card, result, arguments.weights))
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="published.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of a network; `tinyaction models` lists them")
    add_flags(parser)
    return parser.parse_args(argv)


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", help="a word, hub:OWNER/NAME, a folder or a file; default as published first")
    parser.add_argument("--data", required=True, help="class folders, or a folder with lists, of which val is taken")
    parser.add_argument("--classes", help="file of two columns: the folder's class, the network's class")
    parser.add_argument("--views", help="clips and crops such as 5x3; default as published")
    parser.add_argument("--batch-size", type=int, default=1, help="videos of a batch (default 1)")
    parser.add_argument("--num-workers", type=int, default=default_num_workers(), help="processes that decode")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")


def card_of(name: str, weights: str | None) -> ModelCard:
    """What is published of these weights; of a file or a folder, of the first weights of that name."""
    cards = [card for card in (*all_cards(), *torchvision_cards()) if card.name == name and card.num_classes]
    if not cards:
        raise ValueError(f"{name}: no network of this name is published with a classifier; see tinyaction models")
    return next((card for card in cards if card.dataset == weights), cards[0])


def views_of(card: ModelCard, text: str | None) -> tuple[int, int]:
    """Clips and crops of the published evaluation, or those of ``--views``: "5 clips x 3 crops" -> (5, 3)."""
    found = re.fullmatch(r"(\d+)x(\d+)", text) if text else re.match(r"(\d+) clips?(?: x (\d+) crops)?", card.views)
    if found is None:
        raise ValueError(f"--views is {text}; it must be clips and crops, such as 5x3")
    return int(found[1]), int(found[2] or 1)


def evaluate_published(arguments: argparse.Namespace, card: ModelCard) -> Evaluation:
    num_clips, num_crops = views_of(card, arguments.views)
    device = choose_device(arguments.device)
    data = find_data(arguments.data, val_share=None)
    model = load_pretrained(card.name, weights=arguments.weights, max_views=8)
    checkpoint = checkpoint_of(model)
    names = read_class_map(arguments.classes) if arguments.classes else {}
    videos = with_numbers(data.val, match_classes(data.class_names, checkpoint.class_names, names=names))
    pipeline = eval_pipeline(**checkpoint.eval_pipeline | {"num_clips": num_clips, "num_crops": num_crops})
    loader = build_dataloader(VideoDataset(videos, pipeline, test_mode=True), batch_size=arguments.batch_size,
                              num_workers=arguments.num_workers, on_error="skip", max_skipped=0.5)
    progress = ProgressLine()
    try:
        return evaluate(model, loader, device=device, on_batch=progress)
    finally:
        progress.close()


def row_of(card: ModelCard, result: Evaluation, weights: str | None) -> str:
    """Measured, then published; the interval is what other videos of the same kind might have given."""
    num_videos = len(result.labels)
    low, high = wilson_interval(round(result.top1 * num_videos), num_videos)
    top5 = "" if result.top5 is None else f", top 5 {100 * result.top5:.1f} %"
    told = [f"top 1 {card.top1:.1f} %"] if card.top1 is not None else []
    told += [f"top 5 {card.top5:.1f} %"] if card.top5 is not None else []
    notes = [f"({len(result.bad)} more could not be read)"] if result.bad else []
    return "\n".join([
        f"{card.name}, weights {weights or card.dataset}",
        f"  measured   top 1 {100 * result.top1:.1f} % ({100 * low:.1f} to {100 * high:.1f} %){top5}, "
        + " ".join([f"{num_videos} videos", *notes]),
        f"  published  {', '.join(told) or 'nothing'}, {card.dataset}, {card.views}; source: {card.source}",
        *(f"  note       {note}" for note in card.notes)])


if __name__ == "__main__":
    raise SystemExit(main())
