"""V-JEPA 2: a vision transformer with rotary positions in time, height and width, and an attentive pooler.

Source: Assran et al. 2025 (arXiv 2506.09985), of version 2.1 Mur-Labadia et al. 2026 (arXiv 2603.14482), and their
code. Networks that are published without a classifier have no pooler either: there, the mean of all tokens is taken.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tinyaction.models.model_card import ModelCard
from tinyaction.models.recognizer import MEAN, STD
from tinyaction.models.vit import (
    MLP,
    Block,
    PatchEmbed,
    Rename,
    TransformerConfig,
    VideoTransformer,
    build_recognizer,
    check_fields,
    convert_names,
    init_transformer,
    rotary_positions,
    take_fields,
)


@dataclass(frozen=True)
class VJEPA2Config(TransformerConfig):
    """``pooler_depth`` 0 is no pooler. ``trained_side`` is of version 2.1, see :func:`rotary_positions`."""

    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    clip_len: int = 64
    size: int = 256
    pooler_depth: int = 3
    trained_side: int = 0


class CrossAttention(nn.Module):
    """One query (1, 1, F) attends to all tokens, then an MLP: (N, L, F) -> (N, F). No linear layer joins the heads."""

    def __init__(self, embed_dim: int, num_heads: int, *, norm_eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.query_proj = nn.Linear(embed_dim, embed_dim)
        self.key_proj = nn.Linear(embed_dim, embed_dim)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.mlp = MLP(embed_dim, 4 * embed_dim)

    def forward(self, query: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        tokens = self.norm1(tokens)                                    # (N, L, F)
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (1 or N, heads, 1 or L, D)
                   for part in (self.query_proj(query), self.key_proj(tokens), self.value_proj(tokens)))
        q = q.expand(tokens.shape[0], -1, -1, -1)                      # (N, heads, 1, D)
        x = query + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (N, 1, F)
        return (x + self.mlp(self.norm2(x))).squeeze(1)                # (N, F)


class AttentivePooler(nn.Module):
    """Some blocks without positions, then one learned query: (N, L, F) -> (N, F)."""

    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__()
        dim, heads, eps = config.embed_dim, config.num_heads, config.norm_eps
        self.query = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, 4 * dim, norm_eps=eps) for _ in range(config.pooler_depth))
        self.cross = CrossAttention(dim, heads, norm_eps=eps)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return self.cross(self.query, tokens)


class VJEPA2(VideoTransformer):
    """Clips (N, 3, T, H, W) to one vector each, (N, F, 1, 1, 1)."""

    def __init__(self, config: VJEPA2Config) -> None:
        super().__init__(config.embed_dim)
        self.config = config
        self.patch_embed = PatchEmbed(config.embed_dim, patch=config.patch, tubelet=config.tubelet)
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, int(config.embed_dim * config.mlp_ratio),
                  norm_eps=config.norm_eps, qkv_bias=config.qkv_bias) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.pooler = AttentivePooler(config) if config.pooler_depth else None
        init_transformer(self)
        if self.pooler is not None:
            nn.init.trunc_normal_(self.pooler.query, std=0.02)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        grid = self.patch_embed.grid_of(clips)
        x = self.patch_embed(clips)                                    # (N, L, F)
        rotary = rotary_positions(grid, self.config.embed_dim // self.config.num_heads, x.device,
                                  trained_side=self.config.trained_side)
        for block in self.blocks:
            x = block(x, rotary)
        return self.norm(x)

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.mean(dim=1) if self.pooler is None else self.pooler(tokens)


build = partial(build_recognizer, VJEPA2, VJEPA2Config)
check_input = partial(check_fields, VJEPA2Config)


# ---------------------------------------------------------------------------------------------------------------------
# published files
# ---------------------------------------------------------------------------------------------------------------------

MODEL_TYPES = ("vjepa2",)
FIELDS = {"hidden_size": "embed_dim", "num_hidden_layers": "depth", "num_attention_heads": "num_heads",
          "mlp_ratio": "mlp_ratio", "frames_per_clip": "clip_len", "crop_size": "size", "patch_size": "patch",
          "tubelet_size": "tubelet", "qkv_bias": "qkv_bias", "layer_norm_eps": "norm_eps",
          "num_pooler_layers": "pooler_depth"}


def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`VJEPA2Config` as a published ``config.json`` gives them, of an encoder alone no pooler."""
    fields = take_fields(config, FIELDS)
    if "VJEPA2ForVideoClassification" not in config.get("architectures", ()):
        fields["pooler_depth"] = 0
    return asdict(VJEPA2Config(**fields))


# From transformers, then of version 2.1; what is left is as V-JEPA 2's own code has it, and so do we.
RENAMES: list[Rename] = [
    (r"^encoder\.embeddings\.patch_embeddings\.proj\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"attention\.proj\.", "attn.proj."),
    (r"attention\.(query|key|value)\.", lambda match: f"attn.{match[1][0]}."),
    (r"^encoder\.layernorm\.", "norm."),
    (r"^classifier\.", "head."),
    (r"^pooler\.query_tokens$", "pooler.query"),
    (r"^pooler\.self_attention_layers\.", "pooler.blocks."),
    (r"^pooler\.cross_attention_layer\.", "pooler.cross."),
    (r"layer_norm([12])\.", r"norm\1."),
    (r"self_attn\.([qkv])_proj\.", r"attn.\1."),
    (r"self_attn\.out_proj\.", "attn.proj."),
    (r"cross_attn\.([qkv])_proj\.", lambda match: {"q": "query", "k": "key", "v": "value"}[match[1]] + "_proj."),
    (r"^norms_block\.3\.", "norm."),
]
# Of pretraining, of single pictures, norms of earlier depths, and positions where rotary ones are.
DROPPED = r"(predictor|patch_embed_img|img_mod_embed|norms_block|pos_embed)\b"


def convert(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of transformers, or of V-JEPA 2's own code (versions 2 and 2.1), by our names.

    What version 2.1 adds to each token of a video goes into the bias of the patches, which is the same.
    """
    new = convert_names(state, RENAMES, prefixes=r"^(module\.|backbone\.|vjepa2\.)+", dropped=DROPPED)
    added = new.pop("backbone.video_mod_embed", None)
    if added is not None:
        new["backbone.patch_embed.proj.bias"] = new["backbone.patch_embed.proj.bias"] + added.flatten()
    return new


_SIZES: dict[str, dict[str, Any]] = {
    "vitb": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "vitl": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "vith": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
    "vitg": {"embed_dim": 1408, "depth": 40, "num_heads": 22, "mlp_ratio": 48 / 11},
}

_MORE_THAN_HERE = {
    "ssv2": "published for a pooler that sees the tokens of both clips at once; here scores are averaged",
    "diving48": "published for a pooler that sees tokens of four depths; here, as in transformers, it sees the last",
}


def _card(
    name: str, dataset: str, address: str, *, clip_len: int, frame_interval: int | None, size: int, num_classes: int,
    num_parameters: int, gflops: float, top1: float | None = None, views: str = "", trained_side: int = 0,
) -> ModelCard:
    arguments = _SIZES[name.rpartition("-")[2]] | {"clip_len": clip_len, "size": size}
    if not num_classes:
        arguments |= {"pooler_depth": 0}
    if trained_side:
        arguments |= {"trained_side": trained_side}
    return ModelCard(
        name=name, arguments=arguments, dataset=dataset, num_classes=num_classes, clip_len=clip_len,
        frame_interval=frame_interval, size=size, short_side=size * 256 // 224, test_size=size, mean=MEAN, std=STD,
        licence="MIT", top1=top1, top5=None, views=views, source="V-JEPA 2's README" if top1 else "",
        num_parameters=num_parameters, gflops=gflops, address=address, least_clip_len=2, least_size=16,
        notes=(_MORE_THAN_HERE[dataset],) if top1 else ())


_HUB, _OWN = "hub:facebook/", "https://dl.fbaipublicfiles.com/vjepa2/"

# Without classes: pretrained alone, for a head of one's own; counted with 174 classes.
PUBLISHED = (
    _card("vjepa2-vitl", "ssv2", f"{_HUB}vjepa2-vitl-fpc16-256-ssv2", clip_len=16, frame_interval=4, size=256,
          num_classes=174, top1=73.7, views="2 clips x 3 crops", num_parameters=353_399_982, gflops=935.2),
    _card("vjepa2-vitl", "diving48", f"{_HUB}vjepa2-vitl-fpc32-256-diving48", clip_len=32, frame_interval=2, size=256,
          num_classes=48, top1=89.0, views="4 clips x 3 crops", num_parameters=353_270_832, gflops=2334.3),
    _card("vjepa2-vith", "pretrained", f"{_HUB}vjepa2-vith-fpc64-256", clip_len=64, frame_interval=None, size=256,
          num_classes=0, num_parameters=631_870_894, gflops=10667.6),
    _card("vjepa2-vitg", "ssv2", f"{_HUB}vjepa2-vitg-fpc64-384-ssv2", clip_len=64, frame_interval=2, size=384,
          num_classes=174, top1=77.3, views="2 clips x 3 crops", num_parameters=1_105_668_142, gflops=61169.3),
    _card("vjepa2-vitg", "diving48", f"{_HUB}vjepa2-vitg-fpc32-384-diving48", clip_len=32, frame_interval=2, size=384,
          num_classes=48, top1=90.2, views="4 clips x 3 crops", num_parameters=1_105_490_608, gflops=20300.1),
    _card("vjepa2.1-vitb", "pretrained", f"{_OWN}vjepa2_1_vitb_dist_vitG_384.pt", clip_len=64, frame_interval=None,
          size=384, num_classes=0, trained_side=16, num_parameters=86_370_222, gflops=7849.3),
    _card("vjepa2.1-vitl", "pretrained", f"{_OWN}vjepa2_1_vitl_dist_vitG_384.pt", clip_len=64, frame_interval=None,
          size=384, num_classes=0, trained_side=16, num_parameters=304_063_662, gflops=22294.1),
)
