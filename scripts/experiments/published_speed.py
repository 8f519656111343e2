"""One forward pass of published networks beside that of transformers' or PyTorchVideo's: the same random weights.

    python scripts/experiments/published_speed.py [--pairs 9] [--depth 0] [NAME ...]

Prints the median milliseconds of both, of the processor's time on one thread, and the median of the pairs' ratios. The
passes alternate, and so does which of a pair comes first, so that what slows the machine down for a while slows both.
``--depth`` cuts transformers down.
"""

import argparse
import importlib
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import transformers

from tinyaction.models.model_card import ModelCard
from tinyaction.models.published import cards_of, family_of

Forward = Callable[[torch.Tensor], torch.Tensor]

NAMES = ("videomae-small", "videomae-base", "timesformer-base", "vjepa2-vitl", "x3d_s", "slow_r50", "slowfast_r50")


def make_pair(card: ModelCard) -> tuple[Forward, Forward]:
    """From normalized clips (N, 3, T, H, W) to logits (N, K): our network, and theirs with the same weights."""
    if card.name.startswith(("x3d", "slow")):
        return make_pytorchvideo_pair(card)
    own = card.arguments
    common: dict[str, Any] = {"num_labels": card.num_classes or 174, **{theirs: own[ours] for ours, theirs in {
        "embed_dim": "hidden_size", "depth": "num_hidden_layers", "num_heads": "num_attention_heads",
        "mlp_dim": "intermediate_size", "mlp_ratio": "mlp_ratio"}.items() if ours in own}}
    size: dict[str, Any] = {"image_size": card.size, "num_frames": card.clip_len}
    peer: Any
    if card.name.startswith("videomae"):
        peer = transformers.VideoMAEForVideoClassification(transformers.VideoMAEConfig(**size, **common))
    elif card.name.startswith("timesformer"):
        peer = transformers.TimesformerForVideoClassification(transformers.TimesformerConfig(**size, **common))
    else:
        peer = transformers.VJEPA2ForVideoClassification(transformers.VJEPA2Config(
            crop_size=card.size, frames_per_clip=card.clip_len, **common))
    family = family_of(card.name)
    model = family.build(num_classes=card.num_classes or 174, **own)
    model.load_state_dict(family.convert(peer.state_dict()))
    model.eval()
    peer.eval()
    pixels_name = "pixel_values_videos" if card.name.startswith("vjepa2") else "pixel_values"
    return (lambda clip: model.cls_head(model.backbone(clip).transpose(1, 2)),
            lambda clip: peer(**{pixels_name: clip.transpose(1, 2)}).logits)


def make_pytorchvideo_pair(card: ModelCard) -> tuple[Forward, Forward]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                                # it uses what torch and torchvision gave up
        hub = importlib.import_module("pytorchvideo.models.hub")
    peer = getattr(hub, card.name)(pretrained=False)
    peer.blocks[-1].activation = None                                  # a softmax
    family = family_of(card.name)
    model = family.build(num_classes=card.num_classes, **card.arguments)
    model.load_state_dict(family.convert(peer.state_dict()))
    model.eval()
    peer.eval()

    def theirs(clip: torch.Tensor) -> torch.Tensor:
        if not card.name.startswith("slowfast"):
            return peer(clip)
        frames = torch.linspace(0, clip.shape[2] - 1, clip.shape[2] // 4).long()
        return peer([clip.index_select(2, frames), clip])

    return lambda clip: model.cls_head(model.backbone(clip).transpose(1, 2)), theirs


def seconds_of(function: Forward, pixels: torch.Tensor) -> float:
    start = time.process_time()
    function(pixels)
    return time.process_time() - start


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--depth", type=int, default=0, help="blocks of a transformer; default its own")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {arguments.pairs} pairs")
    print(f"{'network':<20}{'clip':<14}{'ours':>10}{'theirs':>10}{'ratio':>8}{'difference':>12}")
    for name in arguments.names:
        card = cards_of(name)[0]
        if arguments.depth and "depth" in card.arguments:
            card = replace(card, arguments={**card.arguments, "depth": arguments.depth})
        torch.manual_seed(0)
        ours, theirs = make_pair(card)
        clip = torch.randn(1, 3, card.clip_len, card.size, card.size)
        with torch.inference_mode():
            difference = (ours(clip) - theirs(clip)).abs().max().item()
            pairs = [(seconds_of(ours, clip), seconds_of(theirs, clip)) if number % 2 else
                     (seconds_of(theirs, clip), seconds_of(ours, clip))[::-1] for number in range(arguments.pairs)]
        shape = f"{card.clip_len}x{card.size}x{card.size}"
        print(f"{name:<20}{shape:<14}{1e3 * statistics.median(a for a, _ in pairs):>7.0f} ms"
              f"{1e3 * statistics.median(b for _, b in pairs):>7.0f} ms"
              f"{statistics.median(a / b for a, b in pairs):>8.2f}{difference:>12.1e}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
