"""Peak memory and time of one training step with gradient checkpointing and without, each in a process of its own.

    python scripts/experiments/checkpointing.py [--model videomae-small] [--batch-size 2]

The network has its published size and random weights, on a processor in float32; the step is one of AdamW.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Sequence

import torch

from tinyaction.cli import Parser, errors_to_exit_code
from tinyaction.models.checkpointing import checkpoint_blocks
from tinyaction.models.published import cards_of, family_of


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024   # KiB -> MiB


def one_step(name: str, batch_size: int, is_checkpointed: bool) -> None:
    card = cards_of(name)[0]
    torch.manual_seed(0)
    model = family_of(card.name).build(num_classes=card.num_classes or 174, **card.arguments).train()
    if is_checkpointed:
        checkpoint_blocks(model.backbone)
    inputs = torch.randint(0, 256, (batch_size, 1, 3, card.clip_len, card.size, card.size), dtype=torch.uint8)
    optimizer = torch.optim.AdamW(model.parameters())
    before, began = peak_mib(), time.process_time()
    logits = model(inputs, mode="logits").mean(dim=1)                  # (B, K)
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(batch_size))
    loss.backward()  # type: ignore[no-untyped-call]
    after_backward = peak_mib()
    optimizer.step()
    how = "with" if is_checkpointed else "without"
    print(f"{name}, {card.clip_len}x{card.size}, {batch_size} videos, {how}: peak {before:.0f} MiB before the step, "
          f"{after_backward:.0f} after the backward pass, {peak_mib():.0f} after it; "
          f"{time.process_time() - began:.1f} s of a processor; loss {loss.item():.6f}", flush=True)


@errors_to_exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="videomae-small")
    parser.add_argument("--batch-size", type=int, default=2)
    arguments = parser.parse_args(argv)
    for is_checkpointed in (False, True):
        process = multiprocessing.get_context("spawn").Process(
            target=one_step, args=(arguments.model, arguments.batch_size, is_checkpointed))
        process.start()
        process.join()
        if process.exitcode:
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
