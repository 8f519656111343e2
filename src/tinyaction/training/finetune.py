"""Fine-tuning on few clips: frozen stages, learning rates by part, the loss, averaged weights.

    freeze              keeps stages of the backbone as they were loaded
    parameter_groups    gives head and layers learning rates of their own, and norms and biases no weight decay
    Criterion           label smoothing, class weights, mixup
    create_average      a moving average of the weights, evaluated and saved in their place

Each is an argument of the loop (:mod:`tinyaction.training.loop`) or is applied to the model before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tinyaction.models.recognizer import Recognizer

CONTAINERS = ("net", "features", "encoder", "layers", "blocks")  # modules that only hold the stages of a network
UNDECAYED = ("cls_token", "pos_embed", "time_embed", "query")           # of transformers, beside norms and biases
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.MaxPool3d, nn.AvgPool3d)


def stages(backbone: nn.Module) -> list[list[nn.Module]]:
    """Parts of a backbone that have parameters, from the input on. Single layers between two poolings are one stage.

        ResNet          conv1 + bn1 | layer1 | layer2 | layer3 | layer4
        MobileNetV2     features.0 | features.1 | ... | features.18
        VGG16           features.0 + features.2 | features.5 + features.7 | ... (a pooling ends each of the five)
        ConvBackbone    conv1 | conv
    """
    groups: list[list[nn.Module]] = []
    continues = False
    for part in _parts(backbone):
        is_layer = not any(True for _ in part.children())
        if any(True for _ in part.parameters()):
            if is_layer and continues:
                groups[-1].append(part)
            else:
                groups.append([part])
            continues = is_layer
        elif isinstance(part, POOLS):
            continues = False
    return groups


def _parts(module: nn.Module) -> list[nn.Module]:
    parts: list[nn.Module] = []
    for name, part in module.named_children():
        parts += _parts(part) if name in CONTAINERS else [part]
    return parts


def freeze(model: Recognizer, what: str = "0", *, norms: bool = False) -> None:
    """Freeze parts of the backbone: training does not change their weights and runs them in evaluation mode.

    Args:
        what: a number of :func:`stages` from the input on, or "all".
        norms: also freeze the batch norms of the other stages. The pretrained mean and variance of a feature are
            better than those of few clips of few frames.

    Raises:
        ValueError: there are not so many stages.
    """
    there = stages(model.backbone)
    if what == "all":
        model.backbone.requires_grad_(False)
    elif not what.isdecimal() or int(what) > len(there):
        raise ValueError(f"--freeze is {what!r}; it must be all, or a number of stages, 0 to {len(there)}")
    elif int(what) > 0:
        for part in (part for stage in there[: int(what)] for part in stage):
            part.requires_grad_(False)
        for parameter in _own_parameters(model.backbone):              # class tokens and the like, before all stages
            parameter.requires_grad_(False)
    if norms:
        for part in model.backbone.modules():
            if isinstance(part, _BatchNorm):
                part.requires_grad_(False)


def _own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Parameters of the module itself, or of one that only holds stages, outside all stages."""
    own = list(module.parameters(recurse=False))
    for name, part in module.named_children():
        if name in CONTAINERS:
            own += _own_parameters(part)
    return own


def train_mode(model: nn.Module) -> None:
    """Set training mode, except in frozen parts, whose batch norms keep their statistics and drop nothing."""
    model.train()
    for part in model.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()


def parameter_groups(
    model: nn.Module, *, weight_decay: float = 0.0, head_lr_multiplier: float = 1.0, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Group the trained parameters for an optimizer: backbone first, from the input on, then the head.

    ``lr_scale`` of a group is ``head_lr_multiplier`` for the head and 1 for the backbone; with ``layer_decay`` that of
    a transformer falls towards the input. Three blocks and a decay of 1/2:

        patches, positions 1/16    blocks.0 1/8    blocks.1 1/4    blocks.2 1/2    last norm 1

    Norms, biases, positions and class token have no weight decay. Source: He et al. 2019, "Bag of tricks"; Bao et al.
    2022, "BEiT", for the falling rates and the positions.
    """
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_head = name.startswith("cls_head.")
            lr_scale = head_lr_multiplier if is_head else layer_scale(model, name, layer_decay)
            groups.setdefault((is_head, lr_scale, not has_decay(name, parameter)), []).append(parameter)
    return [{"params": groups[key], "weight_decay": 0.0 if key[2] else weight_decay, "lr_scale": key[1]}
            for key in sorted(groups)]


def layer_scale(model: nn.Module, name: str, layer_decay: float) -> float:
    """The share of the learning rate that a parameter of the backbone has; only transformers know their layers."""
    backbone: Any = getattr(model, "backbone", None)
    if layer_decay == 1 or not hasattr(backbone, "layer_of"):        # a VideoTransformer has it
        return 1.0
    return layer_decay ** (backbone.num_layers - 1 - backbone.layer_of(name))


def has_decay(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and name.rpartition(".")[2] not in UNDECAYED


def class_weights(labels: Sequence[int] | npt.NDArray[np.int64], num_classes: int) -> torch.Tensor:
    """Weights (K,) by which each class counts the same in the loss; their mean over the videos is 1.

    Raises:
        ValueError: a class has no video.
    """
    counts = np.bincount(np.asarray(labels), minlength=num_classes)
    if (counts == 0).any():
        raise ValueError(f"class {int(np.argmin(counts))} has no training video; class weights need one of each")
    return torch.from_numpy(len(labels) / (num_classes * counts)).float()


def positive_weights(label_sets: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Weights (K,) of the positives of (N, K) labels by which they count as much as the negatives of their class."""
    num_positives = label_sets.sum(axis=0, dtype=np.int64)
    return torch.from_numpy((len(label_sets) - num_positives) / num_positives).float()


@dataclass(frozen=True)
class Criterion:
    """Cross-entropy with label smoothing, class weights and mixup.

    Attributes:
        label_smoothing: share of a target that is spread evenly over all classes.
        class_weights: (K,), see :func:`class_weights`, or of several labels :func:`positive_weights`.
        mixup: alpha of the Beta distribution from which the share of the second video is drawn; 0 mixes nothing.
        seed: of mixup's draws.
        is_multi_label: binary cross-entropy of each class, for labels (B, K).

    Source: Szegedy et al. 2016 (label smoothing), Zhang et al. 2018 (mixup).
    """

    label_smoothing: float = 0.0
    class_weights: torch.Tensor | None = None
    mixup: float = 0.0
    seed: int = 0
    is_multi_label: bool = False

    def draw(self, num_videos: int, epoch: int, batch: int) -> tuple[float, npt.NDArray[np.int64]]:
        """Draw the share of each video and the (B,) videos that it is mixed with.

        A pure function of seed, epoch and number of the batch: a resumed run draws the same, on any number of
        processes.
        """
        rng = np.random.RandomState([self.seed, epoch, batch, 3])
        share = float(rng.beta(self.mixup, self.mixup))
        return max(share, 1 - share), rng.permutation(num_videos)

    def mix(
        self, inputs: torch.Tensor, labels: torch.Tensor, *, num_classes: int, epoch: int, batch: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix pixels (B, V, C, T, H, W), and labels (B,) or (B, K) into targets (B, K); ``mixup=0`` mixes nothing."""
        targets = labels if self.is_multi_label else F.one_hot(labels, num_classes).float()  # (B, K)
        if self.mixup == 0:
            return inputs, targets
        share, others = self.draw(len(labels), epoch, batch)
        other = torch.from_numpy(others).to(inputs.device)
        mixed = share * inputs.float() + (1 - share) * inputs[other].float()
        return mixed, share * targets + (1 - share) * targets[other]

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of logits (B, V, K) with targets (B, K), the mean over videos and views."""
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        if self.is_multi_label:
            smooth = targets * (1 - self.label_smoothing) + self.label_smoothing / 2  # over yes and no
            return F.binary_cross_entropy_with_logits(logits, smooth.unsqueeze(1).expand_as(logits),
                                                      pos_weight=weights)
        return F.cross_entropy(logits.flatten(0, 1), targets.repeat_interleave(logits.shape[1], dim=0), weight=weights,
                               label_smoothing=self.label_smoothing)


def create_average(model: nn.Module, decay: float) -> AveragedModel:
    """Create torch's moving average of weights and running statistics: ``decay`` of the old, the rest of the new.

    The decay of update n is at most ``(1 + n) / (10 + n)``, so that a short run's average is not that of its first
    steps. Update it after each step; ``.module`` is the averaged network.
    """
    return AveragedModel(model, multi_avg_fn=partial(_update_average, decay), use_buffers=True)


def _update_average(decay: float, averaged: Any, current: Any, num_averaged: Any) -> None:
    n = int(num_averaged)
    update = get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))      # type: ignore[no-untyped-call]
    update(averaged, current, num_averaged)


def averaged_model(average: AveragedModel) -> Recognizer:
    """The recognizer with the averaged weights."""
    assert isinstance(average.module, Recognizer)
    return average.module
