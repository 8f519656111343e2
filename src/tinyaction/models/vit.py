"""Parts that the vision transformers share. N clips, L tokens of F features, t x h x w grid of patches."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tinyaction.models.heads import AverageClips, TemporalAverageHead
from tinyaction.models.recognizer import MEAN, STD, Recognizer, VideoPreprocessor

Grid = tuple[int, int, int]  # patches in time, height and width


@dataclass(frozen=True)
class TransformerConfig:
    """Fields of every family's config. ``clip_len`` and ``size`` are those of the training clips."""

    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    clip_len: int = 16
    size: int = 224
    patch: int = 16
    tubelet: int = 2
    qkv_bias: bool = True
    norm_eps: float = 1e-6


class PatchEmbed(nn.Module):
    """Cut clips into boxes of ``tubelet`` frames by ``patch`` x ``patch`` pixels, one token each, time first.

        (N, 3, T, H, W) -> (N, L, F) with L = T/tubelet * H/patch * W/patch
    """

    def __init__(self, embed_dim: int, *, patch: int, tubelet: int) -> None:
        super().__init__()
        box = (tubelet, patch, patch)
        self.proj = nn.Conv3d(3, embed_dim, kernel_size=box, stride=box)

    def grid_of(self, clips: torch.Tensor) -> Grid:
        """Return (t, h, w) of clips. Raises ValueError unless they divide into patches."""
        tubelet, patch, _ = self.proj.kernel_size
        T, H, W = clips.shape[2:]
        check_clip(T, (H, W), patch=patch, tubelet=tubelet)
        return T // tubelet, H // patch, W // patch

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        # In order, or every norm and sum behind it would work on a transposed tensor, at several times the cost.
        return self.proj(clips).flatten(2).transpose(1, 2).contiguous()  # (N, L, F)


def check_clip(num_frames: int, size: tuple[int, int], *, patch: int, tubelet: int) -> None:
    """Raise ValueError unless clips of frames of ``size``, (H, W), divide into patches."""
    if num_frames < tubelet:
        raise ValueError(f"clip_len is {num_frames}; the network takes at least {tubelet} frames, those of one patch")
    if num_frames % tubelet:
        raise ValueError(f"clip_len is {num_frames}; the network takes a multiple of {tubelet} frames")
    for side in size:
        if side < patch or side % patch:
            raise ValueError(f"size is {side}; the network takes a multiple of {patch} pixels")


class Attention(nn.Module):
    """Multi-head self-attention: (N, L, F) -> (N, L, F).

    The bias of the keys adds the same to all scores of a query, which a softmax does not see: where the original has
    none, it is 0 here and stays without effect.
    """

    def __init__(self, embed_dim: int, num_heads: int, *, bias: bool = True) -> None:
        super().__init__()
        assert embed_dim % num_heads == 0, f"{embed_dim} features, {num_heads} heads"
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=bias)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: torch.Tensor, rotary: "RotaryTable | None" = None) -> torch.Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))        # (N, L, 3, heads, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).contiguous().unbind(0)    # (N, heads, L, D) each; CPUs like it in order
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        x = F.scaled_dot_product_attention(q, k, v)                    # (N, heads, L, D)
        return self.proj(x.transpose(1, 2).flatten(2))                 # (N, L, F)


class MLP(nn.Module):
    """Two linear layers with a GELU between, on each token: (N, L, F) -> (N, L, F)."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Leave a branch out for a share ``p`` of the samples of a training batch, and scale it up for the others.

    Stochastic depth, Huang et al. 2016 (arXiv 1603.09382). torchvision has it too, and takes a second to import.
    """

    def __init__(self) -> None:
        super().__init__()
        self.p = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.p:
            return x
        keeps = x.new_empty((len(x), *[1] * (x.ndim - 1))).bernoulli_(1 - self.p)  # (N, 1, ...)
        return x * keeps / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a shortcut: (N, L, F) -> (N, L, F)."""

    def __init__(
        self, embed_dim: int, num_heads: int, mlp_dim: int, *, norm_eps: float, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.attn = Attention(embed_dim, num_heads, bias=qkv_bias)
        self.norm2 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.mlp = MLP(embed_dim, mlp_dim)
        self.drop_path = DropPath()

    def forward(self, x: torch.Tensor, rotary: "RotaryTable | None" = None) -> torch.Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), rotary))
        return x + self.drop_path(self.mlp(self.norm2(x)))


# ---------------------------------------------------------------------------------------------------------------------
# positions
# ---------------------------------------------------------------------------------------------------------------------

def sinusoidal_positions(num_tokens: int, embed_dim: int) -> torch.Tensor:
    """The fixed table of Vaswani et al. 2017, (1, L, F): sine in even features, cosine in odd ones.

    Always on the CPU: it is no parameter, and a network that is built on the meta device needs its values.
    """
    features = torch.arange(embed_dim, dtype=torch.float64, device="cpu")
    rates = 10000 ** -((features - features % 2) / embed_dim)                                 # (F,)
    table = torch.arange(num_tokens, dtype=torch.float64, device="cpu").unsqueeze(1) * rates  # (L, F)
    table[:, 0::2] = table[:, 0::2].sin()
    table[:, 1::2] = table[:, 1::2].cos()
    return table.float().unsqueeze(0)                                  # (1, L, F)


RotaryTable = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, (L, D) each


def rotary_positions(grid: Grid, head_dim: int, device: torch.device, *, trained_side: int = 0) -> RotaryTable:
    """Angles by which V-JEPA 2 turns queries and keys, as cosines and sines (L, D).

        features of a head    [0, d)      [d, 2d)      [2d, 3d)    the rest      d = 2 * (D // 3 // 2)
        turned by             time        row          column      not at all

    Within a third the d/2 rates stand twice one after the other, although neighbouring features are turned as pairs.
    The published weights were trained so. Version 2.1 has ``trained_side``: each rate stands beside itself, and rows
    and columns are spread over as many as a frame had in training. Source: Assran et al. 2025 and their code.
    """
    third = 2 * (head_dim // 3 // 2)
    rates = 10000 ** -(torch.arange(third // 2, device=device) / (third / 2))                 # (d/2,)
    sides = [torch.arange(side, device=device, dtype=torch.float32) for side in grid]
    if trained_side:
        sides[1:] = [side * (trained_side - 1) / max(1, len(side) - 1) for side in sides[1:]]
    places = torch.cartesian_prod(*sides)                                                     # (L, 3)
    rates = rates.repeat_interleave(2) if trained_side else rates.repeat(2)                   # (d,)
    angles = F.pad((places.unsqueeze(2) * rates).flatten(1), (0, head_dim - 3 * third))       # (L, D)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, rotary: RotaryTable) -> torch.Tensor:
    """Turn neighbouring features of queries or keys (N, heads, L, D) as pairs: (a, b) -> (a cos - b sin, ...).

    In place on the result: on CPUs each further large tensor costs more than the turning.
    """
    cos, sin = (part.to(x.dtype) for part in rotary)
    turned = x * cos
    turned[..., 0::2].addcmul_(x[..., 1::2], sin[..., 0::2], value=-1)
    turned[..., 1::2].addcmul_(x[..., 0::2], sin[..., 1::2])
    return turned


# ---------------------------------------------------------------------------------------------------------------------
# the whole
# ---------------------------------------------------------------------------------------------------------------------

class VideoTransformer(nn.Module):
    """Patches, blocks and a pooling that ends in one vector of a clip: (N, 3, T, H, W) -> (N, F, 1, 1, 1).

    A family gives ``patch_embed``, ``blocks``, ``encode``, ``pool`` and ``maps``. With ``gives_maps`` the output is
    the features of each patch, (N, F, t, h, w), as a probe pools them.
    """

    takes_clips = True
    gives_maps = False
    patch_embed: PatchEmbed
    blocks: nn.ModuleList

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (N, 3, T, H, W) to tokens (N, L, F) behind the last block."""
        raise NotImplementedError

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (N, L, F) to features of clips (N, F)."""
        raise NotImplementedError

    def maps(self, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Tokens (N, L, F), each behind the last norm, to the features of each patch (N, F, t, h, w)."""
        return self.token_maps(tokens, grid).movedim(4, 1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        tokens = self.encode(clips)                                    # (N, L, F)
        if self.gives_maps:
            return self.maps(tokens, self.patch_embed.grid_of(clips))  # (N, F, t, h, w)
        return torch.unflatten(self.pool(tokens), 1, (-1, 1, 1, 1))    # (N, F, 1, 1, 1)

    def extra_repr(self) -> str:
        return "gives_maps" if self.gives_maps else ""                 # features of either kind are kept apart by it

    def token_maps(self, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Tokens (N, L, F) within the network as they lie in the clip, (N, t, h, w, F)."""
        return torch.unflatten(tokens, 1, grid)

    @property
    def num_layers(self) -> int:
        """One more than the largest number of :meth:`layer_of`."""
        return len(self.blocks) + 2

    def layer_of(self, parameter_name: str) -> int:
        """Return the depth of a parameter, for layer-wise learning-rate decay.

        Patches, positions and class token are 0, block ``i`` is ``i + 1``, all behind the blocks is the last. The name
        may be this backbone's or the whole recognizer's. Source: BEiT's layer-wise decay, which VideoMAE uses.
        """
        parts = parameter_name.removeprefix("backbone.").split(".")
        if parts[0] in ("patch_embed", "cls_token", "pos_embed", "time_embed"):
            return 0
        return int(parts[1]) + 1 if parts[0] == "blocks" else self.num_layers - 1

    def set_drop_path(self, rate: float) -> None:
        """Set stochastic depth: the drop rate rises linearly from 0 in the first block to ``rate`` in the last."""
        for depth, block in enumerate(self.blocks):
            for part in block.modules():
                if isinstance(part, DropPath):
                    part.p = rate * depth / max(1, len(self.blocks) - 1)


def build_recognizer(
    backbone: Callable[[Any], VideoTransformer], config: Callable[..., TransformerConfig], *, num_classes: int = 400,
    dropout: float = 0.0, average_clips: AverageClips = "prob", max_views: int = 0, mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD, **fields: Any,
) -> Recognizer:
    """Make a family's recognizer, freshly initialised; ``fields`` are those of its ``config``."""
    net = backbone(config(**fields))
    head = TemporalAverageHead(num_classes, net.out_channels, dropout=dropout, average_clips=average_clips)
    return Recognizer(net, head, VideoPreprocessor(mean, std), max_views=max_views)


def check_fields(
    config: Callable[..., TransformerConfig], fields: Mapping[str, Any], *, clip_len: int, size: int
) -> None:
    """Raise ValueError if a network with these fields of ``config`` cannot take such clips."""
    own = config(**fields)
    check_clip(clip_len, (size, size), patch=own.patch, tubelet=own.tubelet)


def init_transformer(module: nn.Module) -> None:
    """Truncated normal (std 0.02, cut at 2 std) for linear layers and patches, 0 for biases. Source: VideoMAE."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv3d):
            nn.init.trunc_normal_(part.weight, std=0.02, a=-0.04, b=0.04)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


# ---------------------------------------------------------------------------------------------------------------------
# published files
# ---------------------------------------------------------------------------------------------------------------------

def take_fields(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Take the fields that a published ``config.json`` has, by our names.

    Raises:
        ValueError: a field is no number, or of a network that cannot be built here.
    """
    if config.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"its hidden_act is {config['hidden_act']!r}; the networks here have 'gelu'")
    fields = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
    for name in ("size", "patch"):
        if isinstance(fields.get(name), list):
            if len(set(fields[name])) > 1:
                raise ValueError(f"its {name} is {fields[name]}; the networks here take squares")
            fields[name] = fields[name][0]
    for theirs, ours in names.items():
        value = fields.get(ours, True)
        if not isinstance(value, int | float) or (not isinstance(value, bool) and value <= 0):
            raise ValueError(f"its {theirs} is {value!r}; it must be a number above 0")
    if fields.get("embed_dim", 0) % fields.get("num_heads", 1):
        raise ValueError(f"its {fields['embed_dim']} features cannot be shared by {fields['num_heads']} heads")
    return fields


Rename = tuple[str, str | Callable[[re.Match[str]], str]]  # pattern and replacement of re.sub


def convert_names(
    state: Mapping[str, torch.Tensor], renames: Sequence[Rename], *, prefixes: str, dropped: str = "$^"
) -> dict[str, torch.Tensor]:
    """Translate names of tensors: remove ``prefixes``, then apply all renames, which call the classifier ``head``.

    Tensors whose name then begins with ``dropped`` are left out; queries, keys and values become ``qkv``.
    """
    new = {}
    for name, tensor in state.items():
        name = re.sub(prefixes, "", name)
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        if not re.match(dropped, name):
            new[f"cls_head.fc.{name[5:]}" if name.startswith("head.") else f"backbone.{name}"] = tensor
    return fuse_qkv(new)


def fuse_qkv(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Join ``q``, ``k`` and ``v`` of each layer to ``qkv``; a missing bias of the keys is 0."""
    fused = {}
    for name, tensor in state.items():
        stem, _, kind = name.rpartition(".")
        if not stem.endswith((".q", ".k", ".v")):
            fused[name] = tensor
        elif stem.endswith(".q"):
            parts = [state.get(f"{stem[:-1]}{part}.{kind}") for part in "qkv"]
            if kind == "bias" and parts[1] is None:
                parts[1] = torch.zeros_like(tensor)
            fused[f"{stem}kv.{kind}"] = torch.cat([part for part in parts if part is not None])
    return fused
