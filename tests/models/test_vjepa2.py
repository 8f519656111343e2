"""V-JEPA 2 against transformers, and its rotary positions."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from peers import compare, equal_shapes, lively, need_transformers, save

from tinyaction.models import vjepa2
from tinyaction.models.published import load_published
from tinyaction.models.vit import rotary_positions, rotate

SIZES = [
    dict(crop_size=32, patch_size=8, frames_per_clip=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
         mlp_ratio=2),
    dict(crop_size=24, patch_size=4, frames_per_clip=6, tubelet_size=3, hidden_size=48, num_hidden_layers=3,
         num_attention_heads=4, mlp_ratio=48 / 11, num_pooler_layers=1),
    dict(crop_size=32, patch_size=16, frames_per_clip=8, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
         qkv_bias=False, num_pooler_layers=2),
]
PREDICTOR = dict(pred_hidden_size=24, pred_num_attention_heads=2, pred_num_hidden_layers=1)
SMALL = dict(embed_dim=24, depth=2, num_heads=2, clip_len=4, size=16, patch=8, pooler_depth=1)


def peer_of(options, kind="VJEPA2ForVideoClassification"):
    transformers = need_transformers()
    return lively(getattr(transformers, kind)(transformers.VJEPA2Config(num_labels=5, **PREDICTOR, **options)))


def small():
    return lively(vjepa2.build(num_classes=5, **SMALL))


def clips(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("options", SIZES)
def test_equal_to_transformers(options, tmp_path):
    peer = peer_of(options)
    compare(save(peer, tmp_path), peer, peer.vjepa2.encoder.layer, "pixel_values_videos")


@pytest.mark.parametrize("change", [{"frames_per_clip": 8}, {"crop_size": 48}])
def test_other_clips_are_those_of_a_network_that_was_made_for_them(change, tmp_path):
    model = load_published(save(peer_of(SIZES[0]), tmp_path))
    other = peer_of(SIZES[0] | change)
    x = clips(2, 3, change.get("frames_per_clip", 4), *2 * (change.get("crop_size", 32),))
    with torch.no_grad():
        ours = model.cls_head(model.backbone(x).transpose(1, 2))
        torch.testing.assert_close(ours, other(x.transpose(1, 2)).logits, rtol=0, atol=1e-5)


def test_a_pretrained_network_averages_its_tokens(tmp_path):
    peer = peer_of(SIZES[0], "VJEPA2Model")
    with pytest.raises(ValueError, match="has no classifier, it is pretrained alone; say num_classes for a new one"):
        load_published(save(peer, tmp_path))
    model = load_published(tmp_path, num_classes=3)
    x = clips(2, 3, 4, 32, 32)
    with torch.no_grad():
        tokens = peer.get_vision_features(x.transpose(1, 2))           # (N, L, F)
        torch.testing.assert_close(model.backbone.encode(x), tokens, rtol=0, atol=1e-5)
        torch.testing.assert_close(model.backbone(x).flatten(1), tokens.mean(dim=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("card", vjepa2.PUBLISHED, ids=lambda card: f"{card.name}-{card.dataset}")
def test_published_sizes(card):
    transformers = need_transformers()
    own = card.arguments
    if not card.num_classes:
        pytest.skip("an encoder alone, which transformers does not have with a classifier")
    equal_shapes(card, transformers.VJEPA2ForVideoClassification, transformers.VJEPA2Config(
        hidden_size=own["embed_dim"], num_hidden_layers=own["depth"], num_attention_heads=own["num_heads"],
        mlp_ratio=own.get("mlp_ratio", 4.0), num_labels=card.num_classes or 174))


# ---------------------------------------------------------------------------------------------------------------------
# V-JEPA 2's own files
# ---------------------------------------------------------------------------------------------------------------------

def own_file(path, *, version):
    """A file as V-JEPA 2's own code saves it, of a random encoder; returns the tensors without their prefix."""
    dim, depth = SMALL["embed_dim"], SMALL["depth"]
    shapes = {"patch_embed.proj.weight": (dim, 3, 2, 8, 8), "patch_embed.proj.bias": (dim,)}
    for block in range(depth):
        for name, shape in [("norm1", (dim,)), ("attn.qkv", (3 * dim, dim)), ("attn.proj", (dim, dim)),
                            ("norm2", (dim,)), ("mlp.fc1", (4 * dim, dim)), ("mlp.fc2", (dim, 4 * dim))]:
            shapes |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
    if version == "2":
        shapes |= {"norm.weight": (dim,), "norm.bias": (dim,), "pos_embed": (1, 8, dim)}
    else:
        shapes |= {f"norms_block.{number}.{part}": (dim,) for number in range(4) for part in ("weight", "bias")}
        shapes |= {"img_mod_embed": (1, 1, dim), "video_mod_embed": (1, 1, dim),
                   "patch_embed_img.proj.weight": (dim, 3, 1, 8, 8), "patch_embed_img.proj.bias": (dim,)}
    random = torch.Generator().manual_seed(0)
    state = {name: 0.3 * torch.randn(shape, generator=random) for name, shape in shapes.items()}
    named = {f"module.backbone.{name}": tensor for name, tensor in state.items()}
    key = {"2": "target_encoder", "2.1": "ema_encoder"}[version]
    torch.save({"encoder": {}, "predictor": {"module.backbone.predictor_norm.weight": torch.ones(4)}, key: named,
                "opt": None, "epoch": 3}, path)
    return state


def turned_third(x, places, *, version):
    """One third of queries or keys (N, heads, L, d), each pair turned; the rates stand as in the version's code."""
    d = x.shape[3]
    angles = places[:, None] * 10000 ** -(torch.arange(d // 2) / (d / 2))
    angles = angles.repeat_interleave(2, dim=1) if version == "2.1" else angles.repeat(1, 2)
    other = torch.stack((-x[..., 1::2], x[..., 0::2]), dim=4).flatten(3)
    return x * angles.cos() + other * angles.sin()


def expected_tokens(state, clips, *, version):
    """The encoder written down once more, step by step as in its own code: (N, L, F)."""
    dim, heads = SMALL["embed_dim"], SMALL["num_heads"]
    x = F.conv3d(clips, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=(2, 8, 8))
    t, h, w = x.shape[2:]
    x = x.flatten(2).transpose(1, 2)
    ids = torch.arange(t * h * w)
    places = [ids // (h * w), ids % (h * w) // w, ids % w]
    if version == "2.1":
        x = x + state["video_mod_embed"]
        places[1:] = [places[1] * 15 / (h - 1), places[2] * 15 / (w - 1)]
    third = 2 * (dim // heads // 3 // 2)
    for block in range(SMALL["depth"]):
        part = {name.removeprefix(f"blocks.{block}."): tensor for name, tensor in state.items()}
        y = F.layer_norm(x, (dim,), part["norm1.weight"], part["norm1.bias"], eps=1e-6)
        qkv = F.linear(y, part["attn.qkv.weight"], part["attn.qkv.bias"])
        q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (torch.cat([turned_third(z[..., i * third : (i + 1) * third], places[i], version=version)
                           for i in range(3)] + [z[..., 3 * third :]], dim=3) for z in (q, k))
        y = ((q @ k.transpose(2, 3) / q.shape[3]**0.5).softmax(dim=3) @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(y, part["attn.proj.weight"], part["attn.proj.bias"])
        y = F.layer_norm(x, (dim,), part["norm2.weight"], part["norm2.bias"], eps=1e-6)
        y = F.gelu(F.linear(y, part["mlp.fc1.weight"], part["mlp.fc1.bias"]))
        x = x + F.linear(y, part["mlp.fc2.weight"], part["mlp.fc2.bias"])
    last = "norms_block.3" if version == "2.1" else "norm"
    return F.layer_norm(x, (dim,), state[f"{last}.weight"], state[f"{last}.bias"], eps=1e-6)


@pytest.mark.parametrize("version, name", [("2", "vjepa2-vith"), ("2.1", "vjepa2.1-vitb")])
def test_a_file_of_its_own_code(tmp_path, monkeypatch, version, name):
    state = own_file(tmp_path / "vit.pt", version=version)
    card = next(card for card in vjepa2.PUBLISHED if card.name == name)
    small_card = replace(card, arguments={**card.arguments, **SMALL, "pooler_depth": 0})
    monkeypatch.setattr(vjepa2, "PUBLISHED", (small_card,))
    model = load_published(name, weights=tmp_path / "vit.pt", num_classes=3, clip_len=4, size=32)
    x = clips(2, 3, 4, 32, 16)
    tokens = expected_tokens(state, x, version=version)
    assert tokens.std() > 0.1
    with torch.no_grad():
        torch.testing.assert_close(model.backbone.encode(x), tokens, rtol=0, atol=1e-5)
        torch.testing.assert_close(model.backbone(x).flatten(1), tokens.mean(dim=1), rtol=0, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# properties
# ---------------------------------------------------------------------------------------------------------------------

def test_rotary_angles():
    """A head of 14 features: 4 each for time, row and column, with the rates 1 and 1/100 twice; 2 are left alone."""
    cos, sin = rotary_positions((3, 2, 5), 14, torch.device("cpu"))    # patch 2*10 + 1*5 + 4: time 2, row 1, column 4
    angles = [2, 0.02, 2, 0.02, 1, 0.01, 1, 0.01, 4, 0.04, 4, 0.04, 0, 0]
    assert cos[29].tolist() == pytest.approx([math.cos(angle) for angle in angles])
    assert sin[29].tolist() == pytest.approx([math.sin(angle) for angle in angles])
    assert cos.shape == (30, 14) and cos[0].eq(1).all()


def test_rotation_turns_pairs():
    x = torch.tensor([3.0, 4.0, 5.0, 6.0]).view(1, 1, 1, 4)
    quarter = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert rotate(x, quarter).flatten().tolist() == [-4, 3, 5, 6]


def test_the_order_of_frames_matters():
    backbone = small().backbone
    x = clips(2, 3, 4, 16, 16)
    moved = x.unflatten(2, (2, 2)).flip(2).flatten(2, 3)
    assert (backbone(x) - backbone(moved)).abs().max() > 1e-3


def test_a_clip_does_not_depend_on_its_neighbours():
    backbone = small().backbone
    x = clips(4, 3, 4, 16, 16)
    torch.testing.assert_close(backbone(x)[2:3], backbone(x[2:3]), rtol=0, atol=1e-5)


def test_the_pooler_does_not_see_the_order_of_tokens_but_all_of_them():
    backbone = small().backbone
    tokens = clips(2, 8, 24)
    torch.testing.assert_close(backbone.pool(tokens), backbone.pool(tokens.flip(1)), rtol=0, atol=1e-5)
    changed = tokens.clone()
    changed[:, 5] *= -1                                                # a norm would not see a shift
    assert (backbone.pool(tokens) - backbone.pool(changed)).abs().amax(dim=1).min() > 1e-3
