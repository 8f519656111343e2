"""TimeSformer: each block attends along time first, then over the patches of a frame.

Source: Bertasius et al. 2021, with the names of the parts of their code.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tinyaction.models.model_card import ModelCard
from tinyaction.models.vit import (
    MLP,
    Attention,
    DropPath,
    Grid,
    PatchEmbed,
    Rename,
    TransformerConfig,
    VideoTransformer,
    build_recognizer,
    check_fields,
    convert_names,
    init_transformer,
    take_fields,
)

MEAN, STD = (114.75, 114.75, 114.75), (57.375, 57.375, 57.375)         # 0.45 and 0.225 of 255


@dataclass(frozen=True)
class TimeSformerConfig(TransformerConfig):
    mlp_dim: int = 3072
    clip_len: int = 8
    tubelet: int = 1


class DividedBlock(nn.Module):
    """Attention along time, attention over space, MLP: (N, 1 + S*T, F) both ways, S patches of T frames each.

    The class token stands first. Along time it does nothing; over space each frame has its own copy, and the mean of
    what the copies learn goes back.
    """

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__()
        dim, heads = config.embed_dim, config.num_heads
        self.temporal_norm1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.temporal_attn = Attention(dim, heads, bias=config.qkv_bias)
        self.temporal_fc = nn.Linear(dim, dim)
        self.norm1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.attn = Attention(dim, heads, bias=config.qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.mlp = MLP(dim, config.mlp_dim)
        self.drop_path = DropPath()

    def forward(self, x: torch.Tensor, num_frames: int) -> torch.Tensor:
        N, T = x.shape[0], num_frames                                  # len(x) would fix N in an exported file
        cls, patches = x[:, :1], x[:, 1:]                              # (N, 1, F), (N, S*T, F)

        paths = torch.unflatten(patches, 1, (-1, T)).flatten(0, 1)     # (N*S, T, F)
        moved = self.temporal_fc(self.drop_path(self.temporal_attn(self.temporal_norm1(paths))))
        patches = patches + moved.unflatten(0, (N, -1)).flatten(1, 2)  # (N, S*T, F)

        frames = patches.unflatten(1, (-1, T)).transpose(1, 2)         # (N, T, S, F)
        frames = torch.cat((cls.unsqueeze(1).expand(-1, T, -1, -1), frames), dim=2)  # (N, T, 1+S, F)
        seen = self.drop_path(self.attn(self.norm1(frames.flatten(0, 1))))           # (N*T, 1+S, F)
        seen = seen.unflatten(0, (N, T))                               # (N, T, 1+S, F)
        cls = cls + seen[:, :, 0].mean(dim=1, keepdim=True)            # (N, 1, F)
        patches = patches + seen[:, :, 1:].transpose(1, 2).flatten(1, 2)

        x = torch.cat((cls, patches), dim=1)                           # (N, 1+S*T, F)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class TimeSformer(VideoTransformer):
    """Clips (N, 3, T, H, W) to the class token of each, (N, F, 1, 1, 1)."""

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__(config.embed_dim)
        self.config = config
        self.side = config.size // config.patch
        self.patch_embed = PatchEmbed(config.embed_dim, patch=config.patch, tubelet=config.tubelet)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.side**2, config.embed_dim))
        self.time_embed = nn.Parameter(torch.zeros(1, config.clip_len, config.embed_dim))
        self.blocks = nn.ModuleList(DividedBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        init_transformer(self)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for block in list(self.blocks)[1:]:                            # begins as a network on single frames
            assert isinstance(block, DividedBlock)
            nn.init.zeros_(block.temporal_fc.weight)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        T, h, w = grid = self.patch_embed.grid_of(clips)
        space, time = self.positions(grid)                             # (1, 1+S, F), (1, T, F)
        x = torch.unflatten(self.patch_embed(clips), 1, (T, h * w)).transpose(1, 2)         # (N, S, T, F)
        x = x + space[:, 1:].unsqueeze(2) + time.unsqueeze(1)
        cls = (self.cls_token + space[:, :1]).expand(x.shape[0], -1, -1)  # (N, 1, F)
        x = torch.cat((cls, x.flatten(1, 2)), dim=1)                   # (N, 1+S*T, F)
        for block in self.blocks:
            x = block(x, T)
        return x

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """The norm of the class token: (N, 1+S*T, F) -> (N, F)."""
        return self.norm(tokens[:, 0])

    def maps(self, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        return super().maps(self.norm(tokens), grid)

    def token_maps(self, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        """(N, 1+S*T, F) -> (N, T, h, w, F), without the class token."""
        t, h, w = grid
        return torch.unflatten(tokens[:, 1:], 1, (h, w, t)).permute(0, 3, 1, 2, 4)

    def positions(self, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
        """Return positions of class token and patches (1, 1+S, F) and of frames (1, T, F), nearest-neighbour resized.

        Source: TimeSformer's code.
        """
        space: torch.Tensor = self.pos_embed
        time: torch.Tensor = self.time_embed
        if grid[1:] != (self.side, self.side):
            x = torch.unflatten(space[:, 1:].transpose(1, 2), 2, (self.side, self.side))  # (1, F, side, side)
            x = F.interpolate(x, grid[1:], mode="nearest").flatten(2).transpose(1, 2)     # (1, S, F)
            space = torch.cat((space[:, :1], x), dim=1)
        if grid[0] != self.config.clip_len:
            time = F.interpolate(time.transpose(1, 2), grid[0], mode="nearest").transpose(1, 2)
        return space, time


build = partial(build_recognizer, TimeSformer, TimeSformerConfig, mean=MEAN, std=STD)
check_input = partial(check_fields, TimeSformerConfig)


# ---------------------------------------------------------------------------------------------------------------------
# published files
# ---------------------------------------------------------------------------------------------------------------------

MODEL_TYPES = ("timesformer",)
FIELDS = {"hidden_size": "embed_dim", "num_hidden_layers": "depth", "num_attention_heads": "num_heads",
          "intermediate_size": "mlp_dim", "num_frames": "clip_len", "image_size": "size", "patch_size": "patch",
          "qkv_bias": "qkv_bias", "layer_norm_eps": "norm_eps"}


def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Read the fields of :class:`TimeSformerConfig` from a published ``config.json``."""
    kind = config.get("attention_type", "divided_space_time")
    if kind != "divided_space_time":
        raise ValueError(f"its attention_type is {kind!r}; the network here has 'divided_space_time'")
    return asdict(TimeSformerConfig(**take_fields(config, FIELDS)))


# From transformers, then from MMAction2; what is left is as TimeSformer's own code has it, and so do we.
RENAMES: list[Rename] = [
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.time_embeddings$", "time_embed"),
    (r"^encoder\.layer\.", "blocks."),
    (r"temporal_attention\.attention\.", "temporal_attn."),
    (r"temporal_attention\.output\.dense\.", "temporal_attn.proj."),
    (r"temporal_layernorm\.", "temporal_norm1."),
    (r"temporal_dense\.", "temporal_fc."),
    (r"attention\.attention\.", "attn."),
    (r"attention\.output\.dense\.", "attn.proj."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"output\.dense\.", "mlp.fc2."),
    (r"^layernorm\.", "norm."),
    (r"^(classifier|cls_head\.fc_cls)\.", "head."),
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"^transformer_layers\.layers\.", "blocks."),
    (r"attentions\.0\.norm\.", "temporal_norm1."),
    (r"attentions\.0\.attn\.", "temporal_attn."),
    (r"attentions\.0\.temporal_fc\.", "temporal_fc."),
    (r"attentions\.1\.norm\.", "norm1."),
    (r"attentions\.1\.attn\.", "attn."),
    (r"attn\.in_proj_", "attn.qkv."),
    (r"attn\.out_proj\.", "attn.proj."),
    (r"ffns\.0\.norm\.", "norm2."),
    (r"ffns\.0\.layers\.0\.0\.", "mlp.fc1."),
    (r"ffns\.0\.layers\.1\.", "mlp.fc2."),
]


def convert(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Translate names of tensors of transformers, of TimeSformer's own code or of MMAction2."""
    new = convert_names(state, RENAMES, prefixes=r"^(module\.|model\.|backbone\.|timesformer\.)+")
    patches = new.get("backbone.patch_embed.proj.weight")
    if patches is not None and patches.ndim == 4:                      # on single frames
        new["backbone.patch_embed.proj.weight"] = patches.unsqueeze(2)
    return new


_VARIANTS: dict[str, tuple[dict[str, Any], int, float]] = {             # arguments, frame interval, GFLOPs
    "base": ({"clip_len": 8, "size": 224}, 32, 195.8),
    "hr": ({"clip_len": 16, "size": 448}, 16, 1702.7),
    "large": ({"clip_len": 96, "size": 224}, 4, 2379.9),
}


def _card(variant: str, dataset: str, address: str, *, top1: float, top5: float, num_parameters: int) -> ModelCard:
    arguments, frame_interval, gflops = _VARIANTS[variant]
    config = TimeSformerConfig(**arguments)
    return ModelCard(
        name=f"timesformer-{variant}", arguments=arguments, dataset=dataset,
        num_classes={"kinetics": 400, "kinetics600": 600, "ssv2": 174}[dataset], clip_len=config.clip_len,
        frame_interval=None if dataset == "ssv2" else frame_interval, size=config.size, short_side=config.size,
        test_size=config.size, mean=MEAN, std=STD, licence="CC-BY-NC-4.0", top1=top1, top5=top5,
        views="1 clip x 3 crops", source="TimeSformer's model zoo", num_parameters=num_parameters, gflops=gflops,
        address=f"hub:{address}", least_size=16)


PUBLISHED = (
    _card("base", "kinetics", "facebook/timesformer-base-finetuned-k400", top1=77.9, top5=93.2,
          num_parameters=121_566_352),
    _card("base", "kinetics600", "facebook/timesformer-base-finetuned-k600", top1=79.1, top5=94.4,
          num_parameters=121_720_152),
    _card("base", "ssv2", "facebook/timesformer-base-finetuned-ssv2", top1=59.1, top5=85.6,
          num_parameters=121_392_558),
    _card("hr", "kinetics", "facebook/timesformer-hr-finetuned-k400", top1=79.6, top5=94.0,
          num_parameters=122_024_080),
    _card("hr", "kinetics600", "facebook/timesformer-hr-finetuned-k600", top1=81.8, top5=95.8,
          num_parameters=122_177_880),
    _card("hr", "ssv2", "facebook/timesformer-hr-finetuned-ssv2", top1=61.8, top5=86.9, num_parameters=121_850_286),
    _card("large", "kinetics", "fcakyon/timesformer-large-finetuned-k400", top1=80.6, top5=94.7,
          num_parameters=121_633_936),
    _card("large", "kinetics600", "fcakyon/timesformer-large-finetuned-k600", top1=82.2, top5=95.6,
          num_parameters=121_787_736),
    _card("large", "ssv2", "fcakyon/timesformer-large-finetuned-ssv2", top1=62.0, top5=87.5,
          num_parameters=121_460_142),
)
