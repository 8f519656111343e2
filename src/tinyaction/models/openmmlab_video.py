"""MMAction2's clip networks with their scores: X3D, SlowOnly, SlowFast, TimeSformer and VideoMAE's ViT.

The network that fits is read from names and shapes alone; what no tensor says (mean and std, heads, alpha) is that of
the published configs. Source: the modules of MMAction2 1.2.0 (x3d, resnet3d, resnet3d_slowonly, resnet3d_slowfast,
timesformer, vit_mae and their heads) and these configs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import torch

from tinyaction.models import slowfast, x3d
from tinyaction.models.recognizer import MEAN, STD

State = Mapping[str, torch.Tensor]
Kind = Literal["x3d", "slowonly", "slowfast", "timesformer", "vit"]

# The module that builds each kind. The transformers' ``convert`` knows MMAction2's names; the others stand here.
MODULES = {"x3d": "x3d", "slowonly": "slowfast", "slowfast": "slowfast", "timesformer": "timesformer",
           "vit": "videomae"}
# Mean and std of the published configs, where they are not ImageNet's.
NORMALIZATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "x3d": ((114.75,) * 3, (57.38,) * 3), "timesformer": ((127.5,) * 3, (127.5,) * 3)}

# A convolution and its norm stand together there: conv1.conv, conv1.bn. Our names are PyTorchVideo's.
BLOCK_NAMES = [
    (r"conv1\.conv\.", "branch2.conv_a."), (r"conv1\.bn\.", "branch2.norm_a."),
    (r"conv2\.conv\.", "branch2.conv_b."), (r"conv2\.bn\.", "branch2.norm_b."),
    (r"conv3\.conv\.", "branch2.conv_c."), (r"conv3\.bn\.", "branch2.norm_c."),
    (r"downsample\.conv\.", "branch1_conv."), (r"downsample\.bn\.", "branch1_norm."),
]
X3D_NAMES = [
    (r"(layer\d\.\d+)\.conv2\.bn\.", r"\1.branch2.norm_b.0."),         # squeeze and excitation is norm_b.1
    (r"se_module\.fc1\.", "branch2.norm_b.1.block.0."), (r"se_module\.fc2\.", "branch2.norm_b.1.block.2."),
    (r"conv1_s\.conv\.", "blocks.0.conv.conv_t."), (r"conv1_t\.conv\.", "blocks.0.conv.conv_xy."),
    (r"conv1_t\.bn\.", "blocks.0.norm."),
    (r"conv5\.conv\.", "blocks.5.pre_conv."), (r"conv5\.bn\.", "blocks.5.pre_norm."),
    (r"cls_head\.fc1\.", "cls_head.hidden."), (r"cls_head\.fc2\.", "cls_head.fc."),
]
STEM_NAMES = [(r"backbone\.conv1\.conv\.", "backbone.blocks.0.conv."),
              (r"backbone\.conv1\.bn\.", "backbone.blocks.0.norm.")]
SLOWFAST_NAMES = [
    (r"slow_path\.conv1_lateral\.conv\.", "blocks.0.multipathway_fusion.conv_fast_to_slow."),
    (r"slow_path\.layer(\d)_lateral\.conv\.", r"blocks.\1.multipathway_fusion.conv_fast_to_slow."),
    (r"_path\.conv1\.conv\.", "_path.blocks.0.conv."), (r"_path\.conv1\.bn\.", "_path.blocks.0.norm."),
]
PATHWAYS = [(r"slow_path\.blocks\.(\d)\.", r"blocks.\1.multipathway_blocks.0."),
            (r"fast_path\.blocks\.(\d)\.", r"blocks.\1.multipathway_blocks.1.")]
STAGES = [(r"layer(\d)\.(\d+)\.", r"blocks.\1.res_blocks.\2.")]
HEAD = [(r"cls_head\.fc_cls\.", "cls_head.fc.")]
NAMES: dict[Kind, list[tuple[str, str]]] = {
    "x3d": X3D_NAMES + BLOCK_NAMES + STAGES,
    "slowonly": STEM_NAMES + BLOCK_NAMES + STAGES + HEAD,
    "slowfast": SLOWFAST_NAMES + BLOCK_NAMES + STAGES + PATHWAYS + HEAD,
}


def find_kind(state: State) -> Kind | None:
    """Return which network of MMAction2 has these tensors; None for none of them."""
    names = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if any(name.startswith("backbone.slow_path.") for name in names):
        return "slowfast"
    if "backbone.conv1_s.conv.weight" in names:
        return "x3d"
    if any(name.startswith("backbone.transformer_layers.layers.") for name in names):
        return "timesformer"
    if "backbone.blocks.0.mlp.layers.0.0.weight" in names:
        return "vit"
    stem = names.get("backbone.conv1.conv.weight")
    return "slowonly" if stem is not None and stem.ndim == 5 else None  # of 4 dimensions it is a TSN


@dataclass(frozen=True)
class Translated:
    """A network of MMAction2 in the terms of this package.

    Attributes:
        family: the module in ``tinyaction.models`` that builds it.
        arguments: of that module's ``build``, in plain values.
        num_classes: of its classifier.
        mean, std: of the pixels, RGB, 0..255.
        state: its tensors, in the names of the recognizer that ``build`` makes.
    """

    family: str
    arguments: dict[str, Any]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    state: dict[str, torch.Tensor]


def translate(state: State, *, source: str = "the file") -> Translated:
    """Rename the tensors of one of these networks and find the arguments of ours with the same scores.

    Raises:
        ValueError: it is none of these, is cut, or a variant that has no place here.
    """
    kind = find_kind(state)
    if kind is None:
        raise ValueError(f"{source} is no X3D, SlowOnly, SlowFast, TimeSformer or VideoMAE of MMAction2: its first "
                         f"name is {next(iter(state), 'none')!r}")
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()
             if not name.removeprefix("module.").startswith("data_preprocessor.")}
    try:
        arguments = ARGUMENTS[kind](state)
        num_classes = len(state["cls_head.fc2.weight" if kind == "x3d" else "cls_head.fc_cls.weight"])
    except KeyError as error:
        raise ValueError(f"{source} is cut: {error.args[0]} is missing") from None
    if kind in NAMES:
        converted = {_rename(name, kind): tensor for name, tensor in state.items()}
    else:
        converted = import_module(f"tinyaction.models.{MODULES[kind]}").convert(state)
    if kind == "slowfast":
        converted["cls_head.fc.weight"] = _slow_first(converted["cls_head.fc.weight"], beta=arguments["beta"])
    mean, std = NORMALIZATION.get(kind, (MEAN, STD))
    return Translated(MODULES[kind], arguments, num_classes, mean, std, converted)


def _rename(name: str, kind: Kind) -> str:
    """Translate MMAction2's name of a tensor to that of the recognizer here."""
    for pattern, replacement in NAMES[kind]:
        name = re.sub(pattern, replacement, name)
    return name


def _x3d_arguments(state: State) -> dict[str, Any]:
    """Derive X3D's factors from the channels of the stem and the number of blocks."""
    stem = state["backbone.conv1_s.conv.weight"].shape[0]
    inner = state["backbone.layer1.0.conv1.conv.weight"].shape[0]
    depths = _depths(state, "backbone.")
    return {
        "width": stem / 12, "bottleneck": inner / stem, "norm_every_shortcut": True,
        "depth": min(depth / least for depth, least in zip(depths, x3d.STAGE_DEPTHS, strict=True)),
        "hidden": state["cls_head.fc1.weight"].shape[0],
    }


def _slowonly_arguments(state: State) -> dict[str, Any]:
    _check_inflation(state, "backbone.", slowfast.SLOW_FRAMES)
    return {"kind": "slow", "depths": _depths(state, "backbone."),
            "channels": state["backbone.conv1.conv.weight"].shape[0]}


def _slowfast_arguments(state: State) -> dict[str, Any]:
    """No tensor shows ``alpha``: in the published configs it is 8 with fusions of 5 frames, 4 with fusions of 7."""
    _check_inflation(state, "backbone.slow_path.", slowfast.SLOW_FRAMES)
    _check_inflation(state, "backbone.fast_path.", slowfast.FAST_FRAMES)
    slow, fast = (_depths(state, f"backbone.{pathway}_path.") for pathway in ("slow", "fast"))
    if slow != fast:
        raise ValueError(f"a SlowFast with {slow} blocks in the slow pathway and {fast} in the fast one has no place "
                         "here; both must have the same")
    fusion_frames = state["backbone.slow_path.conv1_lateral.conv.weight"].shape[2]
    if fusion_frames not in (5, 7):
        raise ValueError(f"fusions of {fusion_frames} frames are in no published config of MMAction2; known are 5 "
                         "(4x16, alpha 8) and 7 (8x8, alpha 4)")
    channels = state["backbone.slow_path.conv1.conv.weight"].shape[0]
    return {"kind": "slowfast", "depths": slow, "channels": channels,
            "beta": channels // state["backbone.fast_path.conv1.conv.weight"].shape[0],
            "alpha": 8 if fusion_frames == 5 else 4, "fusion_frames": fusion_frames, "fusion_norm": False,
            "strided": True}


def _timesformer_arguments(state: State) -> dict[str, Any]:
    """Assume heads of 64 features; raise ValueError for other than divided attention."""
    if not any(".temporal_fc." in name for name in state):
        raise ValueError("a TimeSformer with joint or spatial attention has no place here; the network here has "
                         "divided attention (divST)")
    patch = state["backbone.patch_embed.projection.weight"].shape[-1]
    side = round((state["backbone.pos_embed"].shape[1] - 1) ** 0.5)
    return _transformer_arguments(state, "backbone.transformer_layers.layers.", "ffns.0.layers.0.0.weight") | {
        "clip_len": state["backbone.time_embed"].shape[1], "size": side * patch, "patch": patch}


def _vit_arguments(state: State) -> dict[str, Any]:
    """Assume heads of 64 features and clips of 16 frames; read the size from the table of positions."""
    tubelet, patch = state["backbone.patch_embed.projection.weight"].shape[2:4]
    size = 224
    if "backbone.pos_embed" in state:
        size = round((state["backbone.pos_embed"].shape[1] / (16 // tubelet)) ** 0.5) * patch
    return _transformer_arguments(state, "backbone.blocks.", "mlp.layers.0.0.weight") | {
        "clip_len": 16, "size": size, "patch": patch, "tubelet": tubelet, "norm_eps": 1e-6, "last_norm_eps": 1e-6}


def _transformer_arguments(state: State, blocks: str, mlp: str) -> dict[str, Any]:
    embed_dim = state["backbone.patch_embed.projection.weight"].shape[0]
    return {"embed_dim": embed_dim, "num_heads": embed_dim // 64, "mlp_dim": state[f"{blocks}0.{mlp}"].shape[0],
            "depth": sum(name.startswith(blocks) and name.endswith(mlp) for name in state)}


def _depths(state: State, prefix: str) -> list[int]:
    """Count the blocks of the four stages."""
    found = [re.match(rf"{re.escape(prefix)}layer(\d)\.(\d+)\.", name) for name in state]
    numbers = [(int(match[1]), int(match[2])) for match in found if match]
    return [1 + max((block for at, block in numbers if at == stage), default=-1) for stage in (1, 2, 3, 4)]


def _check_inflation(state: State, prefix: str, num_frames: tuple[int, ...]) -> None:
    for stage, expected in enumerate(num_frames, start=1):
        frames = state[f"{prefix}layer{stage}.0.conv1.conv.weight"].shape[2]
        if frames != expected:
            raise ValueError(f"{prefix}layer{stage} sees {frames} frames at once, the network here {expected}; only "
                             "the published inflation (3x1x1) has a place here")


def _slow_first(weight: torch.Tensor, *, beta: int) -> torch.Tensor:
    """Reorder the classifier's columns: MMAction2 has the fast features first, we have the slow ones first."""
    num_fast = weight.shape[1] // (beta + 1)
    return torch.cat([weight[:, num_fast:], weight[:, :num_fast]], dim=1)


ARGUMENTS = {"x3d": _x3d_arguments, "slowonly": _slowonly_arguments, "slowfast": _slowfast_arguments,
             "timesformer": _timesformer_arguments, "vit": _vit_arguments}
