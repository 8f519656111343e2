"""MMAction2's TimeSformer and VideoMAE.

As in test_openmmlab_video: names and shapes are written down from its sources (version 1.2.0: backbones timesformer
and vit_mae, common/transformer, mmcv's FFN), and its forward passes stand below once more. No published file was
compared.
"""

import pytest
import torch
import torch.nn.functional as F
from nets import recognizer_from_mmaction2

from tinyaction.models.openmmlab_video import find_kind

D, DEPTH, MLP, CLASSES = 128, 3, 256, 6                                # two heads of 64 features


def random_state(shapes):
    random = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        tensor = torch.randn(shape, generator=random)
        state[name] = tensor / tensor[0].numel() ** 0.5 if "weight" in name and len(shape) > 1 else tensor
    return state


def linear(name, num_out, num_in, *, bias=True):
    return {f"{name}.weight": (num_out, num_in)} | ({f"{name}.bias": (num_out,)} if bias else {})


def norm(name):
    return {f"{name}.weight": (D,), f"{name}.bias": (D,)}


def timesformer_state(*, divided=True):
    """Of 4 frames of 32 pixels in patches of 8."""
    shapes = {"backbone.cls_token": (1, 1, D), "backbone.pos_embed": (1, 17, D), "backbone.time_embed": (1, 4, D),
              "backbone.patch_embed.projection.weight": (D, 3, 8, 8), "backbone.patch_embed.projection.bias": (D,)}
    for index in range(DEPTH):
        layer = f"backbone.transformer_layers.layers.{index}"
        for number in (0, 1) if divided else (0,):
            name = f"{layer}.attentions.{number}"
            shapes |= norm(f"{name}.norm") | linear(f"{name}.attn.out_proj", D, D)
            shapes |= {f"{name}.attn.in_proj_weight": (3 * D, D), f"{name}.attn.in_proj_bias": (3 * D,)}
        if divided:
            shapes |= linear(f"{layer}.attentions.0.temporal_fc", D, D)
        shapes |= linear(f"{layer}.ffns.0.layers.0.0", MLP, D) | linear(f"{layer}.ffns.0.layers.1", D, MLP)
        shapes |= norm(f"{layer}.ffns.0.norm")
    return random_state(shapes | norm("backbone.norm") | linear("cls_head.fc_cls", CLASSES, D))


def vit_state(*, with_table=True):
    """Of 16 frames of 32 pixels in tubelets of 2x8x8."""
    shapes = {"backbone.patch_embed.projection.weight": (D, 3, 2, 8, 8), "backbone.patch_embed.projection.bias": (D,)}
    for index in range(DEPTH):
        block = f"backbone.blocks.{index}"
        shapes |= norm(f"{block}.norm1") | norm(f"{block}.norm2") | linear(f"{block}.attn.qkv", 3 * D, D, bias=False)
        shapes |= {f"{block}.attn.q_bias": (D,), f"{block}.attn.v_bias": (D,)} | linear(f"{block}.attn.proj", D, D)
        shapes |= linear(f"{block}.mlp.layers.0.0", MLP, D) | linear(f"{block}.mlp.layers.1", D, MLP)
    state = random_state(shapes | norm("backbone.fc_norm") | linear("cls_head.fc_cls", CLASSES, D))
    return state | ({"backbone.pos_embed": sinusoid(8 * 4 * 4)} if with_table else {})


def sinusoid(num_positions):
    """vit_mae's get_sinusoid_encoding."""
    rates = torch.tensor([10000.0 ** -((i - i % 2) / D) for i in range(D)], dtype=torch.float64)
    angles = torch.arange(num_positions).view(-1, 1) * rates
    table = torch.where(torch.arange(D) % 2 == 0, angles.sin(), angles.cos())
    return table.float().unsqueeze(0)


class Forward:
    """MMAction2's modules as functions of a state dict."""

    def __init__(self, state):
        self.state = state

    def linear(self, x, name):
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, x, name):
        return F.layer_norm(x, (D,), self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps=1e-6)

    def attention(self, x, weight, bias):
        """Of tokens (N, L, D), before the last projection."""
        q, k, v = F.linear(x, weight, bias).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (-1, 64)).transpose(1, 2) for part in (q, k, v))
        x = (q / 64 ** 0.5 @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return x.transpose(1, 2).flatten(2)

    def multihead(self, x, name):
        x = self.attention(x, self.state[f"{name}.in_proj_weight"], self.state[f"{name}.in_proj_bias"])
        return self.linear(x, f"{name}.out_proj")

    def vit(self, clips):
        weight, bias = (self.state[f"backbone.patch_embed.projection.{part}"] for part in ("weight", "bias"))
        x = F.conv3d(clips, weight, bias, stride=(2, 8, 8)).flatten(2).transpose(1, 2) + sinusoid(8 * 4 * 4)
        for index in range(DEPTH):
            block = f"backbone.blocks.{index}"
            q_bias, v_bias = self.state[f"{block}.attn.q_bias"], self.state[f"{block}.attn.v_bias"]
            qkv_bias = torch.cat((q_bias, torch.zeros(D), v_bias))
            heads = self.attention(self.norm(x, f"{block}.norm1"), self.state[f"{block}.attn.qkv.weight"], qkv_bias)
            x = x + self.linear(heads, f"{block}.attn.proj")
            hidden = F.gelu(self.linear(self.norm(x, f"{block}.norm2"), f"{block}.mlp.layers.0.0"))
            x = x + self.linear(hidden, f"{block}.mlp.layers.1")
        return self.linear(self.norm(x.mean(dim=1), "backbone.fc_norm"), "cls_head.fc_cls")

    def timesformer(self, clips):
        (B, _, T), S = clips.shape[:3], 16
        weight, bias = (self.state[f"backbone.patch_embed.projection.{part}"] for part in ("weight", "bias"))
        frames = clips.transpose(1, 2).flatten(0, 1)                   # (B*T, 3, H, W)
        x = F.conv2d(frames, weight, bias, stride=8).flatten(2).transpose(1, 2)
        x = torch.cat((self.state["backbone.cls_token"].expand(B * T, -1, -1), x), dim=1)
        x = x + self.state["backbone.pos_embed"]
        cls = x.view(B, T, S + 1, D)[:, 0, :1]                         # of the first frame; all are the same
        x = x[:, 1:].view(B, T, S, D).transpose(1, 2) + self.state["backbone.time_embed"]  # (B, S, T, D)
        for index in range(DEPTH):
            layer = f"backbone.transformer_layers.layers.{index}"
            paths = self.norm(x.flatten(0, 1), f"{layer}.attentions.0.norm")             # (B*S, T, D)
            moved = self.multihead(paths, f"{layer}.attentions.0.attn")
            x = x + self.linear(moved, f"{layer}.attentions.0.temporal_fc").view(B, S, T, D)
            seen = torch.cat((cls.unsqueeze(1).expand(-1, T, -1, -1), x.transpose(1, 2)), dim=2)  # (B, T, 1+S, D)
            seen = self.norm(seen.flatten(0, 1), f"{layer}.attentions.1.norm")
            seen = self.multihead(seen, f"{layer}.attentions.1.attn").view(B, T, S + 1, D)
            cls, x = cls + seen[:, :, 0].mean(dim=1, keepdim=True), x + seen[:, :, 1:].transpose(1, 2)
            tokens = torch.cat((cls, x.flatten(1, 2)), dim=1)          # (B, 1+S*T, D)
            hidden = F.gelu(self.linear(self.norm(tokens, f"{layer}.ffns.0.norm"), f"{layer}.ffns.0.layers.0.0"))
            tokens = tokens + self.linear(hidden, f"{layer}.ffns.0.layers.1")
            cls, x = tokens[:, :1], tokens[:, 1:].view(B, S, T, D)
        return self.linear(self.norm(cls[:, 0], "backbone.norm"), "cls_head.fc_cls")


@torch.no_grad()
@pytest.mark.parametrize("kind, state, clip_len, mean, std", [
    ("timesformer", timesformer_state(), 4, (127.5,) * 3, (127.5,) * 3),
    ("vit", vit_state(), 16, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
])
def test_the_scores_are_mmaction2s(kind, state, clip_len, mean, std):
    assert find_kind(state) == kind
    model = recognizer_from_mmaction2(state).eval()
    pixels = torch.randint(0, 256, (2, 1, 3, clip_len, 32, 32), generator=torch.Generator().manual_seed(0))
    normalized = (pixels[:, 0] - torch.tensor(mean).view(3, 1, 1, 1)) / torch.tensor(std).view(3, 1, 1, 1)
    expected = getattr(Forward(state), kind)(normalized)
    logits = model(pixels, mode="logits")[:, 0]
    scale = expected.abs().max().item()
    assert scale > 0.1 and (expected[0] - expected[1]).abs().max() > 1e-3 * scale
    assert (logits - expected).abs().max().item() <= 1e-5 * max(1.0, scale)


def test_other_attention_is_refused():
    with pytest.raises(ValueError, match="a TimeSformer with joint or spatial attention has no place here"):
        recognizer_from_mmaction2(timesformer_state(divided=False))


def test_tensors_that_are_missing_are_named():
    state = vit_state()
    del state["backbone.blocks.1.mlp.layers.1.bias"]
    with pytest.raises(ValueError, match="1 of .* tensors are missing in it, backbone.blocks.1.mlp.fc2.bias"):
        recognizer_from_mmaction2(state)


def test_without_a_table_of_positions_pictures_have_224_pixels():
    model = recognizer_from_mmaction2(vit_state(with_table=False))
    assert model.backbone.config.size == 224
