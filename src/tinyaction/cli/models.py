"""The recognizers there are, and what one of them takes and costs."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tinyaction.cli import Parser, check_at_least, errors_to_exit_code
from tinyaction.models.create import (
    all_models,
    check_input,
    check_name,
    create_model,
    input_rule,
    normalization,
)
from tinyaction.models.hub import place_of
from tinyaction.models.model_card import ModelCard
from tinyaction.models.published import all_cards
from tinyaction.models.torchvision_published import torchvision_cards
from tinyaction.models.weights import published_weights

LIST_NOTES = """\
input   frames x height x width that the weights are for; most take others too
GFLOPs  of one view of that input; a multiplication and an addition count as one
Of torchvision's networks these are the numbers that it publishes, with its own
classifier; `tinyaction models NAME` counts the recognizer itself."""

PUBLISHED_NOTES = """\
For these, --model NAME --weights WORD predicts, embeds and evaluates without a
run; top 1 is the published accuracy in percent. --verbose adds where it is
published, of how many clips, and the frames from one to the next."""


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_args(argv)
    published = (*all_cards(), *torchvision_cards())
    if arguments.json:
        words = arguments.names or [""]
        cards = [card for card in published if any(word in card.name for word in words)]
        print(json.dumps([json_row(card) for card in cards], indent=1))
        return 0
    if not arguments.names:
        print(text_of_list(list(all_models())), "", text_of_published(published, verbose=arguments.verbose), sep="\n")
    for word in arguments.names:
        found = [name for name in all_models() if word in name]
        cards = [card for card in published if word in card.name]
        if word in all_models() or any(word == card.name for card in cards) or not found and not cards:
            cards = [card for card in cards if card.name == word]
            print(text_of_model(word, cards, clip_len=arguments.clip_len, size=arguments.size,
                                num_classes=arguments.num_classes))
        elif found:
            print(text_of_list(found))
        if cards:
            print("", text_of_published(cards, verbose=arguments.verbose), sep="\n")
    return 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="tinyaction models", description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a model; or a part of names, to list those models")
    parser.add_argument("--clip-len", type=int, help="count for so many frames; default those of the weights")
    parser.add_argument("--size", type=int, help="count for such a square of pixels; default that of the weights")
    parser.add_argument("--num-classes", type=int, default=2, help="classes of the head (default 2)")
    parser.add_argument("--verbose", action="store_true", help="all that is known of published networks, wider than "
                        "80 columns")
    parser.add_argument("--json", action="store_true", help="the published networks alone, as JSON")
    arguments = parser.parse_args(argv)
    check_at_least(1, arguments, "clip_len", "size")
    return arguments


def text_of_list(names: Sequence[str]) -> str:
    """A line a model; nothing is built for torchvision's networks, so that a hundred take no time."""
    lines = [f"{'model':<27}{'parameters':>10}  {'input':<11}{'GFLOPs':>9}  weights"]
    for name in names:
        rule = input_rule(name)
        published = published_weights(name)
        if published:
            meta = published[0].meta
            num_parameters = meta["num_params"]
            gflops = meta["_ops"] * (rule.clip_len if name.startswith(("tsn-", "tsm-")) else 1)
        else:
            num_parameters, gflops = count(name, clip_len=rule.clip_len, size=rule.size)
        shape = f"{rule.clip_len}x{rule.size}x{rule.size}"
        datasets = ", ".join(dict.fromkeys(dataset_of(weights) for weights in published))
        lines.append(f"{name:<27}{num_parameters / 1e6:>8.1f} M  {shape:<11}{gflops:>9.1f}  {datasets or '-'}")
    return "\n".join([*lines, "", LIST_NOTES])


def text_of_published(cards: Sequence[ModelCard], *, verbose: bool) -> str:
    """A line for each set of published weights, at most 80 columns wide without ``verbose``."""
    if verbose:
        return verbose_table(cards)
    heading = f"{'published network':<18}{'weights':<12}{'params':>8}{'GFLOPs':>8}  {'input':<11}{'top 1':>6}  licence"
    return "\n".join([heading, *map(_short_line, cards), "", PUBLISHED_NOTES])


def _short_line(card: ModelCard) -> str:
    top1 = "-" if card.top1 is None else f"{card.top1:.1f}"
    shape = card.input.partition(" ")[0]
    return (f"{card.name:<18}{card.dataset:<12}{card.num_parameters / 1e6:>6.1f} M{card.gflops:>8.1f}  {shape:<11}"
            f"{top1:>6}  {card.licence}")


def verbose_table(cards: Sequence[ModelCard]) -> str:
    """A line for each set of published weights, with its publisher and views."""
    lines = [f"{'network':<18}{'weights':<13}{'parameters':>10}{'GFLOPs':>9}  {'input':<16}{'top 1':>7}  "
             f"{'licence':<13}published by"]
    for card in cards:
        top1 = f"{card.top1:.1f} %" if card.top1 is not None else "-"
        source = f"{card.source} ({card.views})" if card.views else card.source
        lines.append(f"{card.name:<18}{card.dataset:<13}{card.num_parameters / 1e6:>8.1f} M{card.gflops:>9.1f}  "
                     f"{card.input:<16}{top1:>7}  {card.licence:<13}{source}".rstrip())
    return "\n".join(lines)


def json_row(card: ModelCard) -> dict[str, Any]:
    """What is published of a set of weights; ``accuracy`` is top 1 in percent."""
    names = ("name", "dataset", "num_parameters", "gflops", "input", "licence", "views", "source")
    return {name: getattr(card, name) for name in names} | {"accuracy": card.top1}


def text_of_model(
    name: str, cards: Sequence[ModelCard], *, clip_len: int | None, size: int | None, num_classes: int
) -> str:
    """All of one model, counted on the model itself."""
    check_name(name)
    rule = input_rule(name)
    clip_len = rule.clip_len if clip_len is None else clip_len
    size = rule.size if size is None else size
    check_input(name, clip_len=clip_len, size=size)
    num_parameters, gflops = count(name, clip_len=clip_len, size=size, num_classes=num_classes)
    mean, std = normalization(name)
    published = published_weights(name)
    lines = [
        name,
        f"  parameters     {num_parameters / 1e6:.2f} M with a head of {num_classes} classes",
        f"  GFLOPs         {gflops:.2f} per view of {clip_len} frames of {size}x{size} (multiply-adds)",
        f"  frames         {bound(rule.clip_len, rule.least_clip_len, rule.exact_clip_len)}",
        f"  pixels a side  {bound(rule.size, rule.least_size, rule.exact_size)}",
        f"  mean, std      {' '.join(f'{value:.2f}' for value in mean)}, {' '.join(f'{value:.2f}' for value in std)}",
    ]
    for weights in published:
        path = place_of(weights.url)
        (top1,) = [metrics["acc@1"] for metrics in weights.meta["_metrics"].values()]
        lines += [f"  weights        {weights.name}: {top1:.1f} % top-1 on {dataset_of(weights)}, "
                  f"{weights.meta['_file_size']:.0f} MB",
                  f"                 {path if path.is_file() else weights.url}"]
    words = [dataset_of(weights) for weights in published] or [card.dataset for card in cards]
    flags = f"--weights {words[0]} " if words else ""
    lines += ["  train:", f"    tinyaction train --data DIR --model {name} {flags}--clip-len {clip_len} --size {size}"]
    return "\n".join(lines)


def count(name: str, *, clip_len: int, size: int, num_classes: int = 2) -> tuple[int, float]:
    """Parameters, and billions of multiply-adds of one view; seen on shapes alone, nothing is computed."""
    try:
        with torch.device("meta"):
            model = create_model(name, num_classes)
    except NotImplementedError:  # RegNet computes its widths with tensors
        model = create_model(name, num_classes).to("meta")
    clip = torch.empty((1, 1, 3, clip_len, size, size), dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counter:
        model.eval()(clip, mode="logits")
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() / 2e9


def dataset_of(weights: Any) -> str:
    """imagenet or kinetics: what --weights calls them."""
    return "kinetics" if weights.name.startswith("KINETICS") else "imagenet"


def bound(natural: int, least: int, exact: bool) -> str:
    if exact:
        return f"exactly {natural}"
    return f"at least {least}" if least > 1 else "any"
