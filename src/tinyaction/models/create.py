"""Recognizers by name: :func:`create_model`. A new network gets its name in ``GUIDE_MODELS`` or ``all_models``."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from tinyaction.models.backbones import Conv3dBackbone, ConvBackbone, TemporalShiftConvBackbone
from tinyaction.models.heads import Activation, AverageClips, PoolingHead, TemporalAverageHead
from tinyaction.models.model_card import InputRule, ModelCard
from tinyaction.models.pooling import Pooling
from tinyaction.models.recognizer import MEAN, STD, Recognizer, VideoPreprocessor

MakeBackbone = Callable[[], nn.Module]

GUIDE_MODELS: dict[str, MakeBackbone] = {
    "conv2d": ConvBackbone,
    "conv3d": Conv3dBackbone,
    "tsm-conv2d": TemporalShiftConvBackbone,
}


@cache
def all_models() -> dict[str, MakeBackbone]:
    """Name of a recognizer -> function that makes its backbone.

    Imports torchvision, which takes longer than predicting a video with one of the guide's networks.
    """
    from tinyaction.models import torchvision as nets

    return {
        **GUIDE_MODELS,
        **{f"tsm-{net}": partial(nets.shifted_backbone, net) for net in nets.SHIFTED_NETS},
        **{net: partial(nets.plain_backbone, net) for net in nets.VIDEO_NETS},
        **{f"tsn-{net}": partial(nets.plain_backbone, net) for net in nets.CLASSIFICATION_NETS},
    }


def create_model(
    name: str, num_classes: int, *, weights: str | None = None, dropout: float = 0.5,
    average_clips: AverageClips = "prob", mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
    max_views: int = 0, arguments: Mapping[str, Any] | None = None, pooling: str | None = None,
    signed_sqrt: bool = False, activation: Activation = "softmax",
) -> Recognizer:
    """Make a recognizer by its name, freshly initialised from torch's global random state.

    ``conv2d`` and ``conv3d`` are the guide's networks on frames and on clips; ``tsn-<net>`` is a classification
    network of torchvision on single frames, ``tsm-<net>`` one with the temporal shift; torchvision's video networks
    have their own names, and so have published ones of other origin, see :mod:`tinyaction.models.published`.

    Args:
        weights: pretrained ones, see :func:`tinyaction.models.weights.load_weights`.
        dropout: share of the averaged features that is dropped in training.
        average_clips: see :class:`TemporalAverageHead`.
        mean, std: of the pixels, RGB, 0..255; default those of the weights, without weights those of torchvision's
            best for the network.
        max_views: see :class:`Recognizer`.
        arguments: of a published network, where they are not those of its name.
        pooling, signed_sqrt: of a :class:`PoolingHead`, see :class:`tinyaction.models.pooling.Pooling`; default a
            :class:`TemporalAverageHead`.
        activation: "sigmoid" where a video may have several labels.

    Raises:
        ValueError: there is no such name (the nearest are given), fewer than two classes, weights that do not fit.
    """
    check_name(name)
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; a classifier needs at least two")
    if published_card(name) is not None:
        from tinyaction.models.published import create_published

        model = create_published(name, num_classes, weights=weights, arguments=arguments, dropout=dropout,
                                 average_clips=average_clips, mean=mean, std=std, max_views=max_views)
        model.cls_head.activation = activation
        if pooling is not None:
            use_pooling(model, Pooling(pooling, signed_sqrt))
        return model
    backbone = create_backbone(name)
    num_features = int(backbone.out_channels)  # type: ignore[arg-type]
    head = TemporalAverageHead(num_classes, num_features, dropout=dropout, average_clips=average_clips,
                               activation=activation)
    own_mean, own_std = normalization(name)
    preprocessor = VideoPreprocessor(own_mean if mean is None else mean, own_std if std is None else std)
    model = Recognizer(backbone, head, preprocessor, max_views=max_views)
    if pooling is not None:
        use_pooling(model, Pooling(pooling, signed_sqrt))
    if weights is not None:
        from tinyaction.models.weights import load_weights

        load_weights(model, name, weights)
        if mean is not None or std is not None:
            model.data_preprocessor = preprocessor
    return model


def use_pooling(model: Recognizer, pooling: Pooling) -> None:
    """Give a recognizer a fresh :class:`PoolingHead` in place of its head, for the same classes."""
    old, num_features = model.cls_head, give_maps(model)
    head = PoolingHead(old.num_classes, num_features, pooling, dropout=old.dropout.p, average_clips=old.average_clips,
                       activation=old.activation)
    model.cls_head = head.to(old.fc.weight.device)


def give_maps(model: Recognizer) -> int:
    """Let a transformer give features of its patches, as :class:`PoolingHead` reads them; returns their number, F."""
    if hasattr(model.backbone, "gives_maps"):
        model.backbone.gives_maps = True  # type: ignore[assignment]
    return int(model.backbone.out_channels)  # type: ignore[arg-type]


def model_arguments(name: str, model: Recognizer) -> dict[str, Any]:
    """Return the arguments of :func:`create_model` that build ``model`` again, as plain values for a checkpoint."""
    preprocessor = model.data_preprocessor
    assert isinstance(preprocessor, VideoPreprocessor)
    head = model.cls_head
    own = {} if model.published is None else {"arguments": dict(model.published.arguments)}
    pooled = ({"pooling": head.pooling.kind, "signed_sqrt": head.pooling.signed_sqrt} if isinstance(head, PoolingHead)
              else {})
    return own | {
        "name": name,
        "num_classes": model.cls_head.num_classes,
        "dropout": model.cls_head.dropout.p,
        "average_clips": model.cls_head.average_clips,
        "mean": _shortest(preprocessor.mean),
        "std": _shortest(preprocessor.std),
        "max_views": model.max_views,
        **pooled,
        **({"activation": head.activation} if head.activation != "softmax" else {}),
    }


def _shortest(values: torch.Tensor) -> list[float]:
    """Return the shortest decimals with these float32 values: 123.675, not 123.67500305175781."""
    return [float(str(value)) for value in values.flatten().cpu().numpy()]


def create_backbone(name: str) -> nn.Module:
    """Make the backbone of a recognizer by name. Raises ValueError for an unknown name."""
    check_name(name)
    return (GUIDE_MODELS.get(name) or all_models()[name])()


def published_card(name: str, weights: str = "") -> ModelCard | None:
    """Return the card of a published network, of ``weights`` or its first; None for others and torchvision's."""
    if name in GUIDE_MODELS or name in all_models():
        return None
    from tinyaction.models.published import all_cards

    cards = [card for card in all_cards() if card.name == name]
    return next((card for card in cards if card.dataset == weights), cards[0] if cards else None)


def is_transformer(name: str) -> bool:
    """Whether it is a published transformer, with layers and patches: a :class:`VideoTransformer`."""
    if published_card(name) is None:
        return False
    from tinyaction.models.published import family_of

    return hasattr(family_of(name), "MODEL_TYPES")


def check_name(name: str) -> None:
    """Raise ValueError, with the nearest names, for an unknown model."""
    if name not in GUIDE_MODELS and name not in all_models() and published_card(name) is None:
        from tinyaction.models.published import all_cards

        known = [*all_models(), *dict.fromkeys(card.name for card in all_cards())]
        near = get_close_matches(name, known, n=3) or ["conv2d", "tsn-resnet18", "tsm-resnet18", "r3d_18"]
        raise ValueError(f"model {name!r} is not known; did you mean {' or '.join(near)}?")


def input_rule(name: str, weights: str = "") -> InputRule:
    """Return which clips a recognizer takes, by its card for ``weights``. Raises ValueError for an unknown name."""
    check_name(name)
    if name in GUIDE_MODELS:
        return InputRule(clip_len=8, size=112)
    card = published_card(name, weights)
    if card is not None:
        return card
    from tinyaction.models.torchvision import VIDEO_NETS, default_weights, net_name

    net = net_name(name)
    assert net is not None
    best = default_weights(net)
    is_video = net in VIDEO_NETS
    return InputRule(
        clip_len=16 if is_video else 8,
        size=best.transforms().crop_size[0],
        least_clip_len=best.meta.get("min_temporal_size", 1),
        least_size=max(best.meta["min_size"]),
        exact_clip_len=net.startswith("mvit"),
        exact_size=net.startswith(("mvit", "vit", "maxvit")),
    )


def check_input(name: str, *, clip_len: int, size: int) -> None:
    """Raise ValueError if a recognizer cannot take clips of ``clip_len`` frames of ``size`` pixels a side."""
    rule = input_rule(name)
    if rule.exact_clip_len and clip_len != rule.clip_len:
        raise ValueError(f"clip_len is {clip_len}; {name} takes exactly {rule.clip_len} frames")
    if clip_len < rule.least_clip_len:
        raise ValueError(f"clip_len is {clip_len}; {name} takes at least {rule.least_clip_len} frames")
    if rule.exact_size and size != rule.size:
        raise ValueError(f"size is {size}; {name} takes exactly {rule.size} pixels a side")
    if size < rule.least_size:
        raise ValueError(f"size is {size}; {name} takes at least {rule.least_size} pixels a side")
    card = published_card(name)
    if card is not None:
        from tinyaction.models.published import family_of

        family_of(name).check_input(card.arguments, clip_len=clip_len, size=size)


def normalization(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and std (RGB, 0..255) of the network's best weights, or ImageNet's if it has none."""
    if name in GUIDE_MODELS:
        return MEAN, STD
    card = published_card(name)
    if card is not None:
        return card.mean, card.std
    from tinyaction.models.torchvision import default_weights, net_name, normalization_of

    net = net_name(name)
    return (MEAN, STD) if net is None else normalization_of(net, default_weights(net))
