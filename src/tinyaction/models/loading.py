"""Tensors into a network, each into its place."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tinyaction.models.recognizer import Recognizer
from tinyaction.models.torch_file import check_finite
from tinyaction.models.weights import LoadedWeights

logger = logging.getLogger(__name__)


def fill(
    build: Callable[[], Recognizer], state: Mapping[str, torch.Tensor], *, name: str, source: str,
    new_classifier: bool = False,
) -> Recognizer:
    """Build a network without memory, and give it the tensors; what a new classifier needs is freshly initialised."""
    with torch.device("meta"):
        model = build()
    own = model.state_dict()
    unexpected = [key for key in state if key not in own]
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    fresh = [key for key in missing if new_classifier and _is_behind_blocks(model, key)]
    for key, tensor in state.items():
        if key in own and tensor.shape != own[key].shape:
            raise ValueError(f"{source} does not fit {name}: its {key} is {tuple(tensor.shape)}, that of the network "
                             f"{tuple(own[key].shape)}; the weights are of another network")
    if len(missing) > len(fresh):
        holes = [key for key in missing if key not in fresh]
        raise ValueError(f"{source} does not fit {name}: {len(holes)} of {len(own)} tensors are missing in it, "
                         f"{holes[0]} first; the weights are of another network")
    if unexpected:
        raise ValueError(f"{source} does not fit {name}: {len(unexpected)} of its {len(state)} tensors have no place, "
                         f"{unexpected[0]} first; the weights are of another network")
    try:
        check_finite(state)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    tensors = {key: tensor.to(own[key].dtype, copy=True) for key, tensor in state.items()}
    if fresh:
        initial = build().state_dict()
        tensors |= {key: initial[key] for key in fresh}
    for key in own.keys() - tensors.keys():                            # counters of batches
        tensors[key] = torch.zeros(own[key].shape, dtype=own[key].dtype)
    model.load_state_dict(tensors, assign=True)
    for line in LoadedWeights(source, "the network's publisher", list(state), [], fresh).lines():
        logger.info(line)
    return model


def _is_behind_blocks(model: Recognizer, key: str) -> bool:
    """Whether a tensor belongs to the classifier, or to what a transformer pools its tokens with."""
    backbone: Any = model.backbone
    return key.startswith("cls_head.") or (
        hasattr(backbone, "layer_of") and backbone.layer_of(key) == backbone.num_layers - 1)
