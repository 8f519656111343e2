"""Networks of transformers with random weights, and the comparison of ours with one of them."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tinyaction.models.published import family_of, load_published

REASON = "transformers is not installed: pip install 'tinyaction[peers]'"


def lively(net, *, seed=0):
    """The network in evaluation mode, with weights, norms and biases that are all different from their start."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.2 * noise if "norm" in name and name.endswith("weight") else 0.15 * noise)
    return net.eval()


def save(net, folder: Path, processor=None) -> Path:
    net.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return folder


def outputs_of(layers):
    """Keep what layers return, as a list in their order of calls."""
    kept = []
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, output: kept.append(
            output[0] if isinstance(output, tuple) else output))
    return kept


def compare(folder, peer, peer_layers, pixels_name):
    """Ours from the folder of ``peer``: logits within 1e-5, features at two depths, and gradients of one loss."""
    model = load_published(folder)                                     # fails where a tensor is missing or left over
    config = model.backbone.config
    torch.manual_seed(1)
    inputs = torch.randint(0, 256, (3, 1, 3, config.clip_len, config.size, config.size), dtype=torch.uint8)
    labels = torch.tensor([0, 2, 1])
    ends = [0, len(model.backbone.blocks) - 1]
    own_kept = outputs_of([model.backbone.blocks[end] for end in ends])
    peer_kept = outputs_of([peer_layers[end] for end in ends])

    logits = model(inputs, mode="logits")[:, 0]                        # (B, K)
    pixels = model.data_preprocessor(inputs)[:, 0].transpose(1, 2)     # (B, T, C, H, W)
    peer_logits = peer(**{pixels_name: pixels}).logits
    assert peer_logits.std() > 0.1
    torch.testing.assert_close(logits, peer_logits, rtol=0, atol=1e-5)
    for ours, theirs in zip(own_kept, peer_kept, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)

    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(peer_logits, labels).backward()
    theirs = family_of(model.published.name).convert(
        {name: parameter.grad for name, parameter in peer.named_parameters() if parameter.grad is not None})
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert theirs.keys() == ours.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-4,
                                   msg=lambda text, name=name: f"{name}: {text}")
    assert sum(gradient.abs().max() > 1e-3 for gradient in ours.values()) > len(ours) / 2


def equal_shapes(card, peer_class, peer_config):
    """Whether ours and the peer have the same tensors, built for a published size without memory."""
    family = family_of(card.name)
    with torch.device("meta"):
        model = family.build(num_classes=card.num_classes or 174, **card.arguments)
        peer = peer_class(copy.deepcopy(peer_config))
    ours = {name: tensor.shape for name, tensor in model.state_dict().items()}
    theirs = {name: tensor.shape for name, tensor in family.convert(peer.state_dict()).items()}
    assert ours == theirs
    return model


def need_transformers():
    return pytest.importorskip("transformers", reason=REASON)
