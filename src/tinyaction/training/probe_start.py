"""Fine-tuning that begins with the classifier of a probe: its features are moved from where they are good already.

A new head of random weights would first of all pull the pretrained features to itself.
Source: Kumar et al. 2022, "Fine-tuning can distort pretrained features" (arXiv 2202.10054).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tinyaction.models.checkpoint import load_newest, previous_of
from tinyaction.models.create import use_pooling
from tinyaction.models.pooling import Pooling
from tinyaction.results.run import epoch_sort_key
from tinyaction.training.build import OnCount, Training, build_updater
from tinyaction.training.distributed import broadcast_from_main, broadcast_state, main_process_first, rank
from tinyaction.training.probe_run import ProbeResult, fit_probe, probe_lines


def begin_with_probe(training: Training, *, on_count: OnCount | None) -> ProbeResult | None:
    """Fit a probe, make its classifier the head that training begins with, and return it.

    Of a resumed run only the kind of the head is restored, and None returned: ``last.pt`` holds its weights.
    """
    config, model = training.config, training.model
    pooling = broadcast_from_main(saved_pooling(config.resume) if rank() == 0 else None)
    result = None
    if pooling is not None:
        model.cls_head.dropout.p = 0.0
        use_pooling(model, pooling)
    else:
        lines: list[str] = []
        result = main_process_first(lambda: fit_probe(
            config, training.data, training.folder, model, training.device, on_line=lines.append,
            on_count=on_count if rank() == 0 else None))
        broadcast_state(model)
        training.notes += [*lines, *probe_lines(result.probe)]
    torch.manual_seed(config.seed)  # what follows is the same whether the features were in the cache or not
    training.updater = build_updater(config, model, training.lr, training.updater.amp,
                                     num_batches=len(training.train_loader), grad_accum=training.updater.grad_accum)
    return result


def saved_pooling(folder: str) -> Pooling | None:
    """The pooling of the head in a run's ``last.pt``; None where there is none yet."""
    last = Path(folder) / "last.pt"
    if not folder or not (last.exists() or previous_of(last).exists()):
        return None
    model = load_newest(last)[0].model
    return Pooling(model.get("pooling", "mean"), model.get("signed_sqrt", False))


def finetune_facts(history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The best epoch of fine-tuning in the rows of metrics.csv, for config.json; the probe is epoch 0."""
    best = max((row for row in history if row["epoch"] > 0), key=epoch_sort_key)
    return {"val_accuracy": metric_of(best), "epoch": int(best["epoch"])}


def metric_of(row: Mapping[str, float]) -> float:
    """Accuracy, or of several labels mAP, in a row of metrics.csv."""
    return row["val_map"] if "val_map" in row else row["val_top1"]


def comparison_line(history: Sequence[Mapping[str, float]]) -> str:
    """Both accuracies, and which of the two ``best.pt`` is."""
    first, tuned = next(row for row in history if row["epoch"] == 0), finetune_facts(history)
    probe, name = metric_of(first), "mAP" if "val_map" in first else "accuracy"
    text = f"probe: {name} {probe:.4f}; fine-tuned from it: {tuned['val_accuracy']:.4f} in epoch {tuned['epoch']}"
    if tuned["val_accuracy"] > probe:
        return f"{text}, so best.pt is the fine-tuned network"
    return f"{text}, no better, so best.pt is the probe; --method probe alone gives it in a fraction of the time"
