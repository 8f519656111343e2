"""TimeSformer against transformers, the names of its own code and of MMAction2's, and its positions."""

import pytest
import torch
from peers import compare, equal_shapes, lively, need_transformers, save

from tinyaction.models import timesformer
from tinyaction.models.published import load_published

SIZES = [
    dict(image_size=32, patch_size=8, num_frames=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
         intermediate_size=64),
    dict(image_size=24, patch_size=4, num_frames=3, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
         intermediate_size=80, layer_norm_eps=1e-5),
    dict(image_size=32, patch_size=16, num_frames=5, hidden_size=64, num_hidden_layers=2, num_attention_heads=8,
         intermediate_size=128, qkv_bias=False),
]
SMALL = dict(embed_dim=16, depth=2, num_heads=2, mlp_dim=32, clip_len=4, size=16, patch=8)


def peer_of(options):
    transformers = need_transformers()
    config = transformers.TimesformerConfig(num_labels=5, **options)
    return lively(transformers.TimesformerForVideoClassification(config))


def small(**options):
    return lively(timesformer.build(num_classes=5, **SMALL | options))


def clips(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("options", SIZES)
def test_equal_to_transformers(options, tmp_path):
    peer = peer_of(options)
    compare(save(peer, tmp_path), peer, peer.timesformer.encoder.layer, "pixel_values")


def test_other_clips_are_those_of_a_network_with_the_nearest_positions(tmp_path):
    """transformers' own forward repeats positions, but then cuts the clip into the configured number of frames."""
    model = load_published(save(peer_of(SIZES[0]), tmp_path), clip_len=8, size=64)
    larger = peer_of(SIZES[0] | {"num_frames": 8, "image_size": 64})
    state = peer_of(SIZES[0]).state_dict()
    space_name, time_name = "timesformer.embeddings.position_embeddings", "timesformer.embeddings.time_embeddings"
    space = state[space_name]                                          # (1, 1 + 4*4, F)
    grid = space[0, 1:].reshape(4, 4, -1).repeat_interleave(2, 0).repeat_interleave(2, 1).reshape(64, -1)
    state[space_name] = torch.cat((space[:, :1], grid[None]), dim=1)
    state[time_name] = state[time_name].repeat_interleave(2, 1)
    larger.load_state_dict(state)
    x = clips(2, 3, 8, 64, 64)
    with torch.no_grad():
        ours = model.cls_head(model.backbone(x).transpose(1, 2))
        torch.testing.assert_close(ours, larger(x.transpose(1, 2)).logits, rtol=0, atol=1e-5)
    assert (model.published.clip_len, model.published.size) == (8, 64)


def test_another_kind_of_attention_is_an_error(tmp_path):
    save(peer_of(SIZES[0] | {"attention_type": "joint_space_time"}), tmp_path)
    with pytest.raises(ValueError, match=r"its config\.json does not fit: its attention_type is 'joint_space_time'"):
        load_published(tmp_path)


@pytest.mark.parametrize("card", timesformer.PUBLISHED, ids=lambda card: f"{card.name}-{card.dataset}")
def test_published_sizes(card):
    transformers = need_transformers()
    equal_shapes(card, transformers.TimesformerForVideoClassification, transformers.TimesformerConfig(
        num_frames=card.clip_len, image_size=card.size, num_labels=card.num_classes))


# ---------------------------------------------------------------------------------------------------------------------
# names of other origin
# ---------------------------------------------------------------------------------------------------------------------

def own_code_names(state):
    """As TimeSformer's own code writes them, with convolutions on single frames."""
    return {"model." + name.replace("cls_head.fc.", "head.").removeprefix("backbone."):
            tensor.squeeze(2) if tensor.ndim == 5 else tensor for name, tensor in state.items()}


MMACTION2 = [
    ("patch_embed.proj.", "patch_embed.projection."), ("blocks.", "transformer_layers.layers."),
    ("temporal_norm1.", "attentions.0.norm."), ("temporal_attn.qkv.", "attentions.0.attn.in_proj_"),
    ("temporal_attn.proj.", "attentions.0.attn.out_proj."), ("temporal_fc.", "attentions.0.temporal_fc."),
    ("norm1.", "attentions.1.norm."), ("attn.qkv.", "attentions.1.attn.in_proj_"),
    ("attn.proj.", "attentions.1.attn.out_proj."), ("norm2.", "ffns.0.norm."), ("mlp.fc1.", "ffns.0.layers.0.0."),
    ("mlp.fc2.", "ffns.0.layers.1."),
]


def mmaction2_names(state):
    """As MMAction2's TimeSformer and its head write them."""
    new = {}
    for name, tensor in state.items():
        stem, name = ("", name.replace("cls_head.fc.", "cls_head.fc_cls.")) if name.startswith("cls_head") else (
            "backbone.", name.removeprefix("backbone."))
        for ours, theirs in MMACTION2:
            if f".{ours}" in f".{name}":
                name = f".{name}".replace(f".{ours}", f".{theirs}", 1)[1:]
        new[stem + name] = tensor.squeeze(2) if tensor.ndim == 5 else tensor
    return new


@pytest.mark.parametrize("foreign", [own_code_names, mmaction2_names])
def test_names_of_other_origin(foreign):
    state = small().state_dict()
    theirs = foreign(state)
    if foreign is mmaction2_names:
        assert "backbone.transformer_layers.layers.1.attentions.0.attn.in_proj_weight" in theirs
    converted = timesformer.convert(theirs)
    assert converted.keys() == state.keys()
    assert all(converted[name].equal(state[name]) for name in state)


# ---------------------------------------------------------------------------------------------------------------------
# properties
# ---------------------------------------------------------------------------------------------------------------------

def test_the_order_of_frames_is_known_by_their_positions_alone():
    backbone = small().backbone
    x = clips(2, 3, 4, 16, 16)
    assert (backbone(x) - backbone(x.flip(2))).abs().max() > 1e-2
    with torch.no_grad():
        backbone.time_embed.zero_()
        torch.testing.assert_close(backbone(x), backbone(x.flip(2)), rtol=0, atol=1e-5)


def test_a_block_without_attention_along_time_sees_each_frame_alone():
    backbone = small(depth=1).backbone
    x = clips(2, 3, 4, 16, 16)
    with torch.no_grad():
        backbone.time_embed.zero_()
        seen_together = backbone.encode(x)[:, 1:].unflatten(1, (4, 4)).clone()
        backbone.blocks[0].temporal_fc.weight.zero_()
        together = backbone.encode(x)[:, 1:].unflatten(1, (4, 4))      # (N, S, T, F)
        alone = torch.stack([backbone.encode(x[:, :, [frame]])[:, 1:] for frame in range(4)], dim=2)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert (seen_together - alone).abs().max() > 1e-2


def test_attention_along_time_stays_within_a_patch():
    block = small(depth=1).backbone.blocks[0]
    x = clips(1, 1 + 3 * 4, 16)                                        # class token, 3 patches of 4 frames
    changed = x.clone()
    changed[:, 1 + 1 * 4 + 2] *= -1                                    # patch 1, frame 2
    with torch.no_grad():
        block.attn.proj.weight.zero_()                                 # nothing goes from patch to patch
        differs = (block(x, 4) != block(changed, 4)).any(dim=2)[0]
    assert differs.tolist() == [False] + [False] * 4 + [True] * 4 + [False] * 4


def test_a_fresh_network_sees_frames_alone_behind_its_first_block():
    torch.manual_seed(0)
    blocks = timesformer.build(**SMALL).backbone.blocks
    assert blocks[0].temporal_fc.weight.std() > 0.01 and not blocks[1].temporal_fc.weight.any()


def test_a_clip_does_not_depend_on_its_neighbours():
    backbone = small().backbone
    x = clips(4, 3, 4, 16, 16)
    torch.testing.assert_close(backbone(x)[2:3], backbone(x[2:3]), rtol=0, atol=1e-5)


def test_nearest_positions():
    backbone = small().backbone
    space, time = backbone.positions((8, 4, 2))
    table = backbone.pos_embed[0, 1:].reshape(2, 2, 16)
    assert time[0, :, 0].equal(backbone.time_embed[0, [0, 0, 1, 1, 2, 2, 3, 3], 0])
    assert space[0, 1:].equal(table[[0, 0, 1, 1]].reshape(8, 16)) and space[0, 0].equal(backbone.pos_embed[0, 0])
