"""Tensors into a network, each into its place."""

from collections.abc import Mapping

import torch
from torch import nn


def load_all(model: nn.Module, state: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Load tensors by name; all must be there, have a place, and fit.

    Raises:
        ValueError: names of the tensors for which this is not so.
    """
    own = model.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # not in every file
    missing = [name for name in own if name not in state and name not in counters]
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        raise ValueError(f"{source} does not fit: " + "; ".join(
            f"{len(names)} tensor{'s' if len(names) > 1 else ''} {what} ({', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''})"
            for names, what in ((missing, "missing"), (unexpected, "without a place")) if names))
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise ValueError(f"{source} does not fit: its {name} is {tuple(tensor.shape)}, that of the network "
                             f"{tuple(own[name].shape)}")
    model.load_state_dict(dict(state), strict=False)
