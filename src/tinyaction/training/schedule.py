"""The learning rate as a pure function of the step."""

import math


def learning_rate(step: int, *, base_lr: float, total_steps: int, warmup_steps: int = 0) -> float:
    """Linear warm-up, then half a cosine from ``base_lr`` down to 0.

        step 0 .. warmup_steps - 1     base_lr * (step + 1) / warmup_steps
        warmup_steps .. total_steps    base_lr * (1 + cos(pi * progress)) / 2
        later                          0

    Steps count optimizer updates from 0. Source: Loshchilov and Hutter 2017, "SGDR", without restarts.
    """
    if step < warmup_steps:
        return base_lr * (step + 1) / warmup_steps
    if step >= total_steps:
        return 0.0
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return base_lr * (1 + math.cos(math.pi * progress)) / 2


def scaled_learning_rate(lr: float, *, batch_size: int, reference_batch_size: int) -> float:
    """Scale the learning rate in proportion to the batch size: ``lr`` is for ``reference_batch_size``.

    Source: Goyal et al. 2017, "Accurate, Large Minibatch SGD".
    """
    return lr * batch_size / reference_batch_size
