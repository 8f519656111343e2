"""VideoMAE: a plain vision transformer on tubelets, versions 1 and 2.

Source: Tong et al. 2022 and Wang et al. 2023, with the names of the parts of their code.
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
    Block,
    Grid,
    PatchEmbed,
    Rename,
    TransformerConfig,
    VideoTransformer,
    build_recognizer,
    check_fields,
    convert_names,
    init_transformer,
    sinusoidal_positions,
    take_fields,
)


@dataclass(frozen=True)
class VideoMAEConfig(TransformerConfig):
    """``last_norm_eps`` is of the norm behind the mean of the tokens."""

    mlp_dim: int = 3072
    mean_pooling: bool = True
    norm_eps: float = 1e-12
    last_norm_eps: float = 1e-5


class VideoMAE(VideoTransformer):
    """Clips (N, 3, T, H, W) to one vector each, (N, F, 1, 1, 1)."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config.embed_dim)
        self.config = config
        self.grid: Grid = (config.clip_len // config.tubelet, config.size // config.patch, config.size // config.patch)
        self.patch_embed = PatchEmbed(config.embed_dim, patch=config.patch, tubelet=config.tubelet)
        t, h, w = self.grid
        self.register_buffer("pos_embed", sinusoidal_positions(t * h * w, config.embed_dim), persistent=False)
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.num_heads, config.mlp_dim, norm_eps=config.norm_eps,
                  qkv_bias=config.qkv_bias) for _ in range(config.depth))
        last_eps = config.last_norm_eps if config.mean_pooling else config.norm_eps
        self.norm = nn.LayerNorm(config.embed_dim, eps=last_eps)
        init_transformer(self)

    def encode(self, clips: torch.Tensor) -> torch.Tensor:
        grid = self.patch_embed.grid_of(clips)
        x = self.patch_embed(clips) + self.positions(grid).to(clips.dtype)  # (N, L, F)
        for block in self.blocks:
            x = block(x)
        return x

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """The norm of the mean of all tokens, or of the first token: (N, L, F) -> (N, F)."""
        return self.norm(tokens.mean(dim=1) if self.config.mean_pooling else tokens[:, 0])

    def maps(self, tokens: torch.Tensor, grid: Grid) -> torch.Tensor:
        return super().maps(self.norm(tokens), grid)

    def positions(self, grid: Grid) -> torch.Tensor:
        """Return the table for a grid, (1, L, F), resized: bicubic over space, linear over time.

        Source: VideoMAE's fine-tuning script, for sizes; Unmasked Teacher's, of the same group, for frames.
        """
        table, (t, h, w) = self.get_buffer("pos_embed"), self.grid
        if grid[1:] != (h, w):
            x = torch.unflatten(table[0], 0, (t, h, w)).permute(0, 3, 1, 2)  # (t, F, h, w)
            x = F.interpolate(x, grid[1:], mode="bicubic", align_corners=False)
            table = x.permute(0, 2, 3, 1).flatten(0, 2).unsqueeze(0)   # (1, t*h'*w', F)
        if grid[0] != t:
            x = torch.unflatten(table[0], 0, (t, -1)).permute(1, 2, 0)  # (h'*w', F, t)
            x = F.interpolate(x, grid[0], mode="linear", align_corners=False)
            table = x.permute(2, 0, 1).flatten(0, 1).unsqueeze(0)      # (1, t'*h'*w', F)
        return table


build = partial(build_recognizer, VideoMAE, VideoMAEConfig)
check_input = partial(check_fields, VideoMAEConfig)


# ---------------------------------------------------------------------------------------------------------------------
# published files
# ---------------------------------------------------------------------------------------------------------------------

MODEL_TYPES = ("videomae", "VideoMAEv2_Base", "VideoMAEv2_Large", "VideoMAEv2_Huge", "VideoMAEv2_giant")
FIELDS = {"hidden_size": "embed_dim", "num_hidden_layers": "depth", "num_attention_heads": "num_heads",
          "intermediate_size": "mlp_dim", "num_frames": "clip_len", "image_size": "size", "patch_size": "patch",
          "tubelet_size": "tubelet", "qkv_bias": "qkv_bias", "qv_bias": "qkv_bias", "use_mean_pooling": "mean_pooling",
          "layer_norm_eps": "norm_eps"}
FIELDS_2 = {"embed_dim": "embed_dim", "depth": "depth", "num_heads": "num_heads", "num_frames": "clip_len",
            "img_size": "size", "patch_size": "patch", "tubelet_size": "tubelet", "qkv_bias": "qkv_bias",
            "layer_norm_eps": "norm_eps"}


def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Read the fields of :class:`VideoMAEConfig` from a published ``config.json`` of version 1 or 2.

    Networks without a classifier average their tokens, whatever their file says: the paper fine-tunes them so.
    """
    if "model_config" in config:                                       # version 2, for its own code
        own = config["model_config"]
        fields = {"norm_eps": 1e-6, **take_fields(own, FIELDS_2)}
        mlp_dim = int(fields.get("embed_dim", 768) * own.get("mlp_ratio", 4))
        return asdict(VideoMAEConfig(**fields, mlp_dim=mlp_dim, last_norm_eps=fields["norm_eps"]))
    fields = take_fields(config, FIELDS)
    if "VideoMAEForVideoClassification" not in config.get("architectures", ()):
        fields["mean_pooling"] = True
    return asdict(VideoMAEConfig(**fields))


# From transformers, then from MMAction2; what is left is as VideoMAE's own code has it, and so do we.
RENAMES: list[Rename] = [
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"encoder\.layer\.", "blocks."),
    (r"attention\.attention\.(query|key|value)\.", lambda match: f"attn.{match[1][0]}."),
    (r"attention\.attention\.([qv])_bias$", r"attn.\1_bias"),
    (r"attention\.output\.dense\.", "attn.proj."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"output\.dense\.", "mlp.fc2."),
    (r"^(layernorm|fc_norm)\.", "norm."),
    (r"^classifier\.", "head."),
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"mlp\.layers\.0\.0\.", "mlp.fc1."),
    (r"mlp\.layers\.1\.", "mlp.fc2."),
    (r"^cls_head\.fc_cls\.", "head."),
    (r"attn\.([qv])_bias$", r"attn.\1.bias"),
]
PREFIXES = r"^(module\.|model\.|backbone\.|videomae\.|encoder\.(?!layer\.))+"
DROPPED = r"(decoder|encoder_to_decoder|mask_token|pos_embed)\b"       # of pretraining alone, or computed here


def convert(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Translate names of tensors of transformers, of VideoMAE's own code (versions 1 and 2) or of MMAction2."""
    return convert_names(state, RENAMES, prefixes=PREFIXES, dropped=DROPPED)


_SIZES: dict[str, tuple[dict[str, Any], float]] = {
    "small": ({"embed_dim": 384, "depth": 12, "num_heads": 6, "mlp_dim": 1536}, 56.9),
    "base": ({"embed_dim": 768, "depth": 12, "num_heads": 12, "mlp_dim": 3072}, 180.3),
    "large": ({"embed_dim": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096}, 596.8),
    "huge": ({"embed_dim": 1280, "depth": 32, "num_heads": 16, "mlp_dim": 5120}, 1191.0),
}


def _card(size: str, dataset: str, repository: str, *, top1: float | None, top5: float | None,
          num_parameters: int) -> ModelCard:
    arguments, gflops = _SIZES[size]
    is_ssv2 = dataset == "ssv2"
    return ModelCard(
        name=f"videomae-{size}", arguments=arguments, dataset=dataset, num_classes=174 if is_ssv2 else 400,
        clip_len=16, frame_interval=None if is_ssv2 else 4, size=224, short_side=224, test_size=224, mean=MEAN,
        std=STD, licence="CC-BY-NC-4.0", top1=top1, top5=top5, views=f"{2 if is_ssv2 else 5} clips x 3 crops",
        source="VideoMAE's model zoo", num_parameters=num_parameters, gflops=gflops,
        address=f"hub:MCG-NJU/{repository}", least_clip_len=2, least_size=16)


PUBLISHED = (
    _card("small", "kinetics", "videomae-small-finetuned-kinetics", top1=79.0, top5=93.8, num_parameters=22_038_544),
    _card("small", "ssv2", "videomae-small-finetuned-ssv2", top1=66.8, top5=90.3, num_parameters=21_951_534),
    _card("base", "kinetics", "videomae-base-finetuned-kinetics", top1=81.5, top5=95.1, num_parameters=86_544_016),
    _card("base", "ssv2", "videomae-base-finetuned-ssv2", top1=70.8, top5=92.4, num_parameters=86_370_222),
    _card("large", "kinetics", "videomae-large-finetuned-kinetics", top1=85.2, top5=96.8, num_parameters=304_295_312),
    _card("huge", "kinetics", "videomae-huge-finetuned-kinetics", top1=86.6, top5=97.1, num_parameters=632_160_400),
)
