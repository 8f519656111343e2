"""torchvision's networks without their classifiers, as backbones on frames, on shifted frames, and on clips.

The parts keep torchvision's names, so that ``backbone.layer1.0.conv1.weight`` is torchvision's
``layer1.0.conv1.weight``; only a network that pools by itself stands one level deeper, as ``backbone.net``.
"""

from collections import OrderedDict
from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

from tinyaction.models.checkpointing import recompute
from tinyaction.models.temporal_shift import TemporalShift

CLASSIFICATION_NETS = torchvision.models.list_models(module=torchvision.models)
VIDEO_NETS = torchvision.models.list_models(module=torchvision.models.video)
SHIFTED_NETS = ["resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2"]

# Networks that end in one vector: behind a class token, or behind norms and pooling in their own order.
POOLED_KINDS = {"VisionTransformer": "heads", "MViT": "head", "SwinTransformer3d": "head"}

# Without weights these two warn or add a second classifier, unless they are told.
BUILD_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": True, "aux_logits": False},
    "inception_v3": {"init_weights": True, "aux_logits": False},
}


def net_name(name: str) -> str | None:
    """torchvision's name of the network in a recognizer, or None for the guide's."""
    net = name.removeprefix("tsn-").removeprefix("tsm-")
    return net if net in CLASSIFICATION_NETS or net in VIDEO_NETS else None


def build_net(net_name: str) -> nn.Module:
    """torchvision's network, freshly initialised, made for the picture size of its own weights."""
    arguments = BUILD_ARGUMENTS.get(net_name, {})
    if net_name.startswith("vit_"):
        arguments = {"image_size": default_weights(net_name).transforms().crop_size[0]}
    return torchvision.models.get_model(net_name, weights=None, **arguments)


def default_weights(net_name: str) -> Any:
    """torchvision's best weights for a network, as its enum member; nothing is downloaded."""
    return torchvision.models.get_model_weights(net_name).DEFAULT


def normalization_of(net_name: str, weights: Any) -> tuple[list[float], list[float]]:
    """Mean and std of the pixels, RGB, 0..255, with which ``weights`` (a member of torchvision's enum) were made.

    They belong to the weights, not to the network: one of VGG16's three kinds has its own.
    """
    if net_name in ("googlenet", "inception_v3"):  # torchvision's own forward turns ImageNet's into -1 to 1
        return [127.5] * 3, [127.5] * 3
    recipe = weights.transforms()
    return [255 * value for value in recipe.mean], [255 * value for value in recipe.std]


def plain_backbone(net_name: str) -> nn.Module:
    """A network without its classifier: on frames (N, 3, H, W) -> (N, F, h, w), a video network on clips
    (N, 3, T, H, W) -> (N, F, t, h, w).
    """
    net: Any = build_net(net_name)
    takes_clips = net_name in VIDEO_NETS
    kind = type(net).__name__
    if kind in POOLED_KINDS:
        return PooledBackbone(net, POOLED_KINDS[kind], takes_clips=takes_clips)
    parts: dict[str, nn.Module] = dict(net.named_children())
    if kind == "ConvNeXt":  # its classifier begins with a norm of the pooled features
        parts["classifier"] = net.classifier[:1]
        last = "classifier"
    elif kind == "DenseNet":  # its forward ends with a ReLU that is no part
        parts = {"features": net.features, "relu": nn.ReLU(inplace=True)}
        last = "relu"
    elif kind == "MaxVit":  # a list of blocks that its forward goes through
        parts["blocks"] = nn.Sequential(*net.blocks)
        last = "blocks"
    elif kind == "S3D":  # pools over two frames and 7x7 pixels, before its classifier sees the mean
        last = "avgpool"
    else:  # all that stands before the pooling, or where that is no part, before the classifier
        names = list(parts)
        last = names[names.index("avgpool") - 1] if "avgpool" in names else names[-2]
    names = list(parts)
    kept = [name for name in names[:names.index(last) + 1] if not name.lower().startswith("aux")]
    return SequentialBackbone(OrderedDict((name, parts[name]) for name in kept), takes_clips=takes_clips)


class SequentialBackbone(nn.Sequential):
    """The parts of a network one after the other, up to its last feature map."""

    def __init__(self, parts: "OrderedDict[str, nn.Module]", *, takes_clips: bool) -> None:
        super().__init__(parts)
        self.takes_clips = takes_clips
        self.out_channels = count_channels(self, takes_clips=takes_clips)


class PooledBackbone(nn.Module):
    """A network that makes one vector of its input: (N, 3, [T,] H, W) -> (N, F, [1,] 1, 1)."""

    def __init__(self, net: nn.Module, classifier: str, *, takes_clips: bool) -> None:
        super().__init__()
        self.takes_clips = takes_clips
        linears = [part for part in getattr(net, classifier).modules() if isinstance(part, nn.Linear)]
        self.out_channels = linears[0].in_features
        setattr(net, classifier, nn.Identity())
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).unflatten(1, (-1, 1, 1, 1) if self.takes_clips else (-1, 1, 1))


def count_channels(backbone: nn.Module, *, takes_clips: bool) -> int:
    """F of a backbone's features, seen on shapes alone: nothing is computed."""
    shape = (1, 3, 16, 224, 224) if takes_clips else (1, 3, 224, 224)
    tensors = {name: tensor.to("meta") for name, tensor in [*backbone.named_parameters(), *backbone.named_buffers()]}
    was_training = backbone.training
    backbone.eval()
    features = torch.func.functional_call(backbone, tensors, (torch.empty(shape, device="meta"),))
    backbone.train(was_training)
    return features.shape[1]


class TemporalShiftResNet(nn.Module):
    """A ResNet whose residual branches read shifted frames: (N, 3, T, H, W) -> (N, F, T, H/32, W/32).

    The shift stands before the first convolution of each block, the shortcut stays as it is; with 23 blocks or more
    in the third stage (101 layers) in every other block. Source: Lin et al. 2019 and their code.
    """

    takes_clips = True
    recomputes = False  # see tinyaction.models.checkpointing

    def __init__(self, net: torchvision.models.ResNet) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.shift = TemporalShift()
        self.blocks_per_shift = 2 if len(net.layer3) >= 23 else 1
        self.out_channels: int = net.fc.in_features

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        N, T = clips.shape[0], clips.shape[2]
        x = clips.transpose(1, 2).flatten(0, 1)                        # (N*T, 3, H, W)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))           # (N*T, 64, H/4, W/4)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for number, block in enumerate(stage):
                shifted = self.shift(x, T) if number % self.blocks_per_shift == 0 else x
                forward = partial(residual_block, block)
                x = recompute(block, forward, x, shifted) if self.recomputes else forward(x, shifted)
        return torch.unflatten(x, 0, (N, T)).transpose(1, 2)           # (N, F, T, H/32, W/32)


def residual_block(block: nn.Module, shortcut: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """torchvision's residual block, with an input of its own for the branch."""
    assert isinstance(block, BasicBlock | Bottleneck)
    x = block.relu(block.bn1(block.conv1(branch)))
    x = block.bn2(block.conv2(x))
    if isinstance(block, Bottleneck):
        x = block.bn3(block.conv3(block.relu(x)))
    if block.downsample is not None:
        shortcut = block.downsample(shortcut)
    return block.relu(x + shortcut)


class TemporalShiftMobileNetV2(nn.Module):
    """MobileNetV2 whose residual branches read shifted frames: (N, 3, T, H, W) -> (N, 1280, T, H/32, W/32).

    The shift stands in the blocks that have a shortcut. Source: the code of Lin et al. 2019.
    """

    takes_clips = True

    def __init__(self, net: torchvision.models.MobileNetV2) -> None:
        super().__init__()
        self.features = net.features
        self.shift = TemporalShift()
        self.out_channels: int = net.last_channel

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        N, T = clips.shape[0], clips.shape[2]
        x: torch.Tensor = clips.transpose(1, 2).flatten(0, 1)          # (N*T, 3, H, W)
        for part in self.features:
            if isinstance(part, InvertedResidual) and part.use_res_connect:
                x = x + part.conv(self.shift(x, T))
            else:
                x = part(x)
        return torch.unflatten(x, 0, (N, T)).transpose(1, 2)           # (N, 1280, T, H/32, W/32)


def shifted_backbone(net_name: str) -> nn.Module:
    """A classification network with the temporal shift, on clips: (N, 3, T, H, W) -> (N, F, T, h, w)."""
    net = build_net(net_name)
    if isinstance(net, torchvision.models.MobileNetV2):
        return TemporalShiftMobileNetV2(net)
    assert isinstance(net, torchvision.models.ResNet)
    return TemporalShiftResNet(net)
