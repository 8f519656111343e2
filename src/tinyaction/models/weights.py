"""Load pretrained weights: :func:`load_weights` into any recognizer, :func:`fill` a published network."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tinyaction.models.hub import fetch_file, fetch_weights
from tinyaction.models.openmmlab import translate_keys
from tinyaction.models.recognizer import Recognizer, VideoPreprocessor
from tinyaction.models.torch_file import check_finite, find_state_dict, read_torch_file
from tinyaction.places import is_place, without_secrets
from tinyaction.text import some_of

DATASETS = ("imagenet", "kinetics")

# Names of the last linear layer in torchvision's networks.
TORCHVISION_HEADS = ("fc", "classifier", "classifier.1", "classifier.2", "head", "head.1", "heads.head")

logger = logging.getLogger(__name__)


@dataclass
class LoadedWeights:
    """Which tensors were loaded. ``unexpected_keys`` are names in the file, the others names in the model."""

    source: str
    origin: str
    loaded: list[str]
    unexpected_keys: list[str]
    missing: list[str]
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Sentences for the log."""
        lines = [f"weights of {self.origin} from {self.source}: {len(self.loaded)} tensors loaded"]
        if self.unexpected_keys:
            lines.append(f"  not used, {len(self.unexpected_keys)}: {some_of(self.unexpected_keys)}")
        if self.missing:
            lines.append(f"  missing in the file, {len(self.missing)}, kept as initialised: {some_of(self.missing)}")
        return lines + [f"  {note}" for note in self.notes]


def load_weights(model: Recognizer, name: str, weights: str | Path) -> LoadedWeights:
    """Load pretrained weights into a recognizer, and return and log which tensors were loaded.

    The backbone must be filled completely. A head of another number of classes is left out, with a note. The model
    takes over the mean and std of the weights, where these are torchvision's or a checkpoint of tinyaction.

    Args:
        name: the recognizer's, as for :func:`tinyaction.create_model`.
        weights: "imagenet" or "kinetics" (torchvision's best for the network, or by torchvision's own name such as
            "IMAGENET1K_V1"; fetched once and kept by torch.hub), or a file: a state dict of torchvision, tinyaction,
            the TSM repository or MMAction2 1.x (TSN, TSM), alone or within a checkpoint. One that lies elsewhere, as
            s3://bucket/a.pt, is fetched once and kept beside them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, carries code, its tensors are not those of this network, or torchvision's
            weights do not exist or cannot be fetched.
    """
    published = find_published(name, str(weights))
    path = fetch_file(published.url) if published else fetch_weights(weights) if is_place(weights) else Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights; they must be {' or '.join(DATASETS)}, or a file")
    source = without_secrets(str(weights)) if published is None else f"{published} ({path.name})"
    content = read_torch_file(path, stand_ins=True)
    loaded = fit_state_dict(model, name, find_state_dict(content, path), source=source)
    own = model.state_dict()
    try:
        check_finite({key: own[key] for key in loaded.loaded})
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    mean_std = _saved_normalization(content) if published is None else _published_normalization(name, published)
    if mean_std is not None:
        mean, std = mean_std
        model.data_preprocessor = VideoPreprocessor(mean, std).to(model.cls_head.fc.weight.device)
        loaded.notes.append(f"pixels are normalized with its mean {_rounded(mean)} and std {_rounded(std)}")
    for line in loaded.lines():
        logger.info(line)
    return loaded


def _published_normalization(name: str, published: Any) -> tuple[Sequence[float], Sequence[float]]:
    from tinyaction.models.torchvision import net_name, normalization_of

    return normalization_of(str(net_name(name)), published)


def _saved_normalization(content: Any) -> tuple[Sequence[float], Sequence[float]] | None:
    """Find mean and std in the content of a checkpoint of tinyaction."""
    made_with = content.get("model") if isinstance(content, Mapping) else None
    if isinstance(made_with, Mapping) and "mean" in made_with and "std" in made_with:
        return made_with["mean"], made_with["std"]
    return None


def published_weights(name: str) -> list[Any]:
    """List torchvision's weights for the network of a recognizer, as members of its enum, the best first."""
    from tinyaction.models.torchvision import default_weights, net_name

    net = net_name(name)
    if net is None:
        return []
    best = default_weights(net)
    return [best] + [choice for choice in type(best) if choice is not best]


def find_published(name: str, weights: str) -> Any:
    """Find the best of torchvision's weights of that name; None if ``weights`` names a file."""
    choices = published_weights(name)
    for choice in choices:
        if weights == choice.name or (weights in DATASETS and choice.name.lower().startswith(weights)):
            return choice
    if weights not in DATASETS:
        return None
    there = sorted({choice.name.split("_")[0].rstrip("0123456789kK").lower() for choice in choices})
    raise ValueError(f"{name} has no weights {weights!r}; " + (
        f"torchvision has {' and '.join(there)} for it" if there else "torchvision has none for it; name a file"))


def kinetics400_names() -> tuple[str, ...]:
    """Return the 400 classes of Kinetics in the order that all published weights use."""
    return tuple(published_weights("r3d_18")[0].meta["categories"])


def fit_state_dict(model: Recognizer, name: str, state: Mapping[str, torch.Tensor], *, source: str) -> LoadedWeights:
    """Load tensors by name, after the names are translated; arguments and errors as in :func:`load_weights`."""
    origin, new_names = translate_keys(state)
    if origin == "torchvision":
        new_names = _torchvision_names(model, state, new_names)
    own = model.state_dict()
    loaded, unexpected_keys, notes = {}, [], []
    for key, tensor in state.items():
        new = new_names[key]
        if new == "cls_head.fc.weight":
            tensor = tensor.flatten(1)                                 # S3D has a 1x1x1 convolution
            fits = tensor.shape == own[new].shape
            notes.append(f"its head of {len(tensor)} classes is loaded too" if fits else
                         f"its head of {len(tensor)} classes is left out: this model has "
                         f"{model.cls_head.num_classes}")
        if new not in own:
            unexpected_keys.append(key)
        elif tensor.shape == own[new].shape:
            loaded[new] = tensor
        elif new.startswith("cls_head."):
            unexpected_keys.append(key)
        else:
            raise ValueError(f"{source} does not fit {name}: its {key} is {tuple(tensor.shape)}, that of the model "
                             f"{tuple(own[new].shape)}; the weights are of another network")

    missing = [key for key in own if key not in loaded and not key.endswith("num_batches_tracked")]
    trunk = [key for key in own if key.startswith("backbone.") and not key.endswith("num_batches_tracked")]
    holes = [key for key in missing if key.startswith("backbone.")]
    stages = {_stage(key) for key in trunk}
    deeper = [key for key in unexpected_keys if _stage(new_names[key]) in stages]
    if len(holes) == len(trunk):
        raise ValueError(f"{source} fits nowhere in {name}: none of its {len(state)} tensors has a place in the "
                         f"backbone (its names are like {next(iter(state))}, the model's like {trunk[0]})")
    if holes or deeper:
        what = (f"{len(holes)} of the backbone's {len(trunk)} tensors are missing in it, {holes[0]} first" if holes
                else f"{len(deeper)} of its tensors have no place in the backbone, {deeper[0]} first")
        raise ValueError(f"{source} does not fit {name}: {what}; the weights are of another network")
    if origin.endswith(("(TSM)", "(TSN)")) and origin.endswith("(TSM)") != hasattr(model.backbone, "shift"):
        notes.append(f"{origin[-4:-1]} weights in {name}: a start for training, but not the same scores")
    model.load_state_dict(loaded, strict=False)
    return LoadedWeights(source, origin, list(loaded), unexpected_keys, missing, notes)


def fill(
    build: Callable[[], Recognizer], state: Mapping[str, torch.Tensor], *, name: str, source: str,
    new_classifier: bool = False,
) -> Recognizer:
    """Build a network on the meta device and assign the tensors; initialise only a new classifier."""
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
    """Whether a tensor belongs to the classifier or to a transformer's pooling."""
    backbone: Any = model.backbone
    return key.startswith("cls_head.") or (
        hasattr(backbone, "layer_of") and backbone.layer_of(key) == backbone.num_layers - 1)


def _torchvision_names(
    model: Recognizer, state: Mapping[str, torch.Tensor], new_names: Mapping[str, str]
) -> dict[str, str]:
    """Map torchvision's names to those of ``model``: the last linear layer is our head, PooledBackbone nests a net."""
    from tinyaction.models.torchvision import PooledBackbone

    prefix = "backbone.net." if isinstance(model.backbone, PooledBackbone) else "backbone."
    names = {key: new.replace("backbone.", prefix, 1) for key, new in new_names.items()}
    own = model.state_dict()
    for head in TORCHVISION_HEADS:
        weight = state.get(f"{head}.weight")
        if weight is None or names[f"{head}.weight"] in own or weight.ndim not in (2, 5):
            continue
        if weight.shape[1] == model.cls_head.in_channels:
            names |= {f"{head}.{part}": f"cls_head.fc.{part}" for part in ("weight", "bias")}
    return names


def _stage(key: str) -> str:
    """backbone.layer1.0.conv1.weight -> backbone.layer1"""
    return ".".join(key.replace("backbone.net.", "backbone.net-").split(".")[:2])


def _rounded(numbers: Sequence[float]) -> list[float]:
    return [round(number, 3) for number in numbers]
