"""Networks with norms that are not at their neutral start."""

from functools import partial
from importlib import import_module

import torch
from torch import nn
from torchvision.models import get_model

from tinyaction.models.openmmlab_video import translate
from tinyaction.models.recognizer import VideoPreprocessor
from tinyaction.models.weights import fill


def lively_net(name, inputs, **options):
    """A network in evaluation mode whose running statistics are those of ``inputs``, so that no layer fades away."""
    torch.manual_seed(0)
    net = get_model(name, weights=None, **options)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
            part.momentum = 1.0
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.3, 0.3)
    with torch.no_grad():
        net.train()(inputs)
    return net.eval()


def enliven(net):
    """Give every norm and bias random values, so that no layer is neutral or fades away."""
    random = torch.Generator().manual_seed(0)
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=random)
        elif name.endswith(("running_mean", "bias")):
            tensor.uniform_(-0.3, 0.3, generator=random)
        elif tensor.ndim == 1:                                         # the weight of a norm
            tensor.uniform_(0.5, 1.5, generator=random)


def recognizer_from_mmaction2(state, source="the file"):
    """The recognizer of a state dict of MMAction2, without a file around it."""
    found = translate(state, source=source)
    build = partial(import_module(f"tinyaction.models.{found.family}").build, num_classes=found.num_classes,
                    **found.arguments)
    model = fill(build, found.state, name=found.family, source=source)
    model.data_preprocessor = VideoPreprocessor(found.mean, found.std)
    return model
