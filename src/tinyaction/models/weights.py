"""Pretrained weights of every origin: torchvision's own, or a file whose keys say where it comes from."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchvision

from tinyaction.models.openmmlab import translate_keys
from tinyaction.models.recognizer import Recognizer
from tinyaction.models.torchvision_backbones import PooledBackbone, net_name

# Names of the last linear layer in torchvision's networks.
TORCHVISION_HEADS = ("fc", "classifier", "classifier.1", "classifier.2", "head", "head.1", "heads.head")

WEIGHTS_OF_TORCHVISION = ("imagenet", "kinetics")

logger = logging.getLogger(__name__)


@dataclass
class LoadedWeights:
    """What became of the weights; ``left_over`` are names of the file, the others names of the model."""

    source: str
    origin: str
    loaded: list[str]
    left_over: list[str]
    missing: list[str]
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The same in words, for people."""
        lines = [f"weights of {self.origin} from {self.source}: {len(self.loaded)} tensors loaded"]
        if self.left_over:
            lines.append(f"  left over in the file, {len(self.left_over)}: {_some(self.left_over)}")
        if self.missing:
            lines.append(f"  missing in the file, {len(self.missing)}, kept as initialised: {_some(self.missing)}")
        return lines + [f"  {note}" for note in self.notes]


def load_weights(model: Recognizer, name: str, weights: str | Path) -> LoadedWeights:
    """Load pretrained weights into a recognizer and say what was loaded.

    The backbone must be filled completely. A head of another number of classes is left out, with a note.

    Args:
        name: the recognizer's, as for :func:`tinyaction.create_model`.
        weights: "imagenet" or "kinetics" (torchvision's best for the network, downloaded and kept by torch.hub), or a
            file: a state dict of torchvision, tinyaction, the TSM repository or MMAction2 1.x (TSN, TSM).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, or its tensors are not those of this network.
    """
    if str(weights) in WEIGHTS_OF_TORCHVISION:
        source, state = str(weights), download_torchvision(name, str(weights))
    else:
        source, state = str(weights), read_state_dict(weights)
    loaded = fit_state_dict(model, name, state, source=source)
    for line in loaded.lines():
        logger.info(line)
    return loaded


def download_torchvision(name: str, dataset: str) -> dict[str, torch.Tensor]:
    """The state dict of torchvision's best weights for the network of a recognizer."""
    net = net_name(name)
    choices: list[Any] = [] if net is None else list(torchvision.models.get_model_weights(net))
    choices = [choice for choice in choices if choice.name.lower().startswith(dataset)]
    if net is None or not choices:
        raise ValueError(f"{name} has no {dataset} weights")
    best = torchvision.models.get_model_weights(net).DEFAULT
    return (best if best in choices else choices[-1]).get_state_dict(progress=False)


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint file by their names there."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such weights; it must be {', '.join(WEIGHTS_OF_TORCHVISION)} or a file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: not a readable checkpoint ({reason[:160]})") from None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if isinstance(content, Mapping):
        state = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
        if state:
            return state
    raise ValueError(f"{path}: holds no state dict (names and tensors)")


def fit_state_dict(model: Recognizer, name: str, state: Mapping[str, torch.Tensor], *, source: str) -> LoadedWeights:
    """Load tensors by name, after the names are translated; arguments and errors as in :func:`load_weights`."""
    origin, new_names = translate_keys(state)
    own = model.state_dict()
    if isinstance(model.backbone, PooledBackbone) and origin == "torchvision":
        new_names = {key: new.replace("backbone.", "backbone.net.", 1) for key, new in new_names.items()}
    for head in TORCHVISION_HEADS:                                     # torchvision's classifier becomes ours
        for key, new in new_names.items():
            if key in (f"{head}.weight", f"{head}.bias") and new not in own and origin == "torchvision":
                weight = state[f"{head}.weight"]
                if weight.ndim in (2, 5) and weight.shape[1] == model.cls_head.in_channels:
                    new_names[key] = f"cls_head.fc.{key.rsplit('.', 1)[1]}"

    loaded, left_over, notes = {}, [], []
    for key, tensor in state.items():
        new = new_names[key]
        if new == "cls_head.fc.weight":
            tensor = tensor.flatten(1)                                 # S3D has a 1x1x1 convolution
        if new not in own:
            left_over.append(key)
        elif tensor.shape == own[new].shape:
            loaded[new] = tensor
        elif new.startswith("cls_head."):
            left_over.append(key)
            if new.endswith("weight"):
                notes.append(f"its head of {len(tensor)} classes is left out: this model has "
                             f"{model.cls_head.num_classes}")
        else:
            raise ValueError(f"{source} does not fit {name}: its {key} is {tuple(tensor.shape)}, that of the model "
                             f"{tuple(own[new].shape)}; the weights are of another network")
    missing = [key for key in own if key not in loaded and not key.endswith("num_batches_tracked")]
    trunk = [key for key in own if key.startswith("backbone.") and not key.endswith("num_batches_tracked")]
    holes = [key for key in missing if key.startswith("backbone.")]
    if len(holes) == len(trunk):
        raise ValueError(f"{source} fits nowhere in {name}: none of its {len(state)} tensors has a name of the model "
                         f"(it begins with {next(iter(state))}, the model with {trunk[0]})")
    if holes:
        raise ValueError(f"{source} does not fit {name}: {len(holes)} of the {len(trunk)} tensors of its backbone are "
                         f"missing, {holes[0]} first; the weights are of another network")
    model.load_state_dict(loaded, strict=False)
    return LoadedWeights(source, origin, list(loaded), left_over, missing, notes)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
