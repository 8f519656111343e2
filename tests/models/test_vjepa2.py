"""V-JEPA 2 against transformers, and its rotary positions."""

import math

import pytest
import torch
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


def test_a_pretrained_network_takes_a_new_pooler_and_classifier(tmp_path):
    peer = peer_of(SIZES[0], "VJEPA2Model")
    with pytest.raises(ValueError, match="has no classifier, it is pretrained alone; say num_classes for a new one"):
        load_published(save(peer, tmp_path))
    model = load_published(tmp_path, num_classes=3)
    x = clips(2, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.backbone.encode(x), peer.get_vision_features(x.transpose(1, 2)), rtol=0,
                                   atol=1e-5)
    pooler = model.backbone.pooler
    assert 0.015 < pooler.cross.query_proj.weight.std() < 0.025 and pooler.query.std() > 0.01


@pytest.mark.parametrize("card", vjepa2.PUBLISHED, ids=lambda card: f"{card.name}-{card.dataset}")
def test_published_sizes(card):
    transformers = need_transformers()
    own = card.arguments
    equal_shapes(card, transformers.VJEPA2ForVideoClassification, transformers.VJEPA2Config(
        hidden_size=own["embed_dim"], num_hidden_layers=own["depth"], num_attention_heads=own["num_heads"],
        mlp_ratio=own.get("mlp_ratio", 4.0), num_labels=card.num_classes or 174))


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
