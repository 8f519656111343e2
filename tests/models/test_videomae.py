"""VideoMAE against transformers, the names of its own code and of MMAction2's, and its positions."""

import math

import pytest
import torch
import torch.nn.functional as F
from peers import compare, equal_shapes, lively, need_transformers, save

from tinyaction.models import videomae
from tinyaction.models.published import load_published
from tinyaction.models.vit import sinusoidal_positions

SIZES = [
    dict(image_size=32, patch_size=8, num_frames=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
         intermediate_size=64),
    dict(image_size=24, patch_size=4, num_frames=6, tubelet_size=3, hidden_size=48, num_hidden_layers=3,
         num_attention_heads=4, intermediate_size=80, layer_norm_eps=1e-6),
    dict(image_size=32, patch_size=16, num_frames=2, hidden_size=64, num_hidden_layers=2, num_attention_heads=8,
         intermediate_size=128, use_mean_pooling=False, qkv_bias=False),
]
SMALL = dict(embed_dim=16, depth=2, num_heads=2, mlp_dim=32, clip_len=4, size=16, patch=8)


def peer_of(options, *, num_labels=5):
    transformers = need_transformers()
    config = transformers.VideoMAEConfig(num_labels=num_labels, **options)
    return lively(transformers.VideoMAEForVideoClassification(config))


def small(**options):
    return lively(videomae.build(num_classes=5, **SMALL | options))


def clips(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("options", SIZES)
def test_equal_to_transformers(options, tmp_path):
    peer = peer_of(options)
    compare(save(peer, tmp_path), peer, peer.videomae.encoder.layer, "pixel_values")


def test_a_pretrained_network_takes_a_new_classifier(tmp_path):
    transformers = need_transformers()
    config = transformers.VideoMAEConfig(
        decoder_hidden_size=16, decoder_num_attention_heads=2, decoder_num_hidden_layers=1,
        decoder_intermediate_size=32, **SIZES[0] | {"use_mean_pooling": False})
    peer = lively(transformers.VideoMAEForPreTraining(config))
    model = load_published(save(peer, tmp_path), num_classes=7)
    x = clips(2, 3, 4, 32, 32)
    with torch.no_grad():
        tokens = peer.videomae.encoder(peer.videomae.embeddings(x.transpose(1, 2), None)).last_hidden_state
        torch.testing.assert_close(model.backbone.encode(x), tokens, rtol=0, atol=1e-5)
    assert model.backbone.config.mean_pooling and model.cls_head.num_classes == 7
    assert model.published.class_names == () and model.cls_head.fc.weight.std() < 0.02


@pytest.mark.parametrize("card", {card.name: card for card in videomae.PUBLISHED}.values(), ids=lambda card: card.name)
def test_published_sizes(card):
    transformers = need_transformers()
    own = card.arguments
    equal_shapes(card, transformers.VideoMAEForVideoClassification, transformers.VideoMAEConfig(
        hidden_size=own["embed_dim"], num_hidden_layers=own["depth"], num_attention_heads=own["num_heads"],
        intermediate_size=own["mlp_dim"], num_labels=card.num_classes))


# ---------------------------------------------------------------------------------------------------------------------
# names of other origin
# ---------------------------------------------------------------------------------------------------------------------

def own_code_names(state):
    """As VideoMAE's own code writes them, where the keys have no bias."""
    new = {}
    for name, tensor in state.items():
        name = name.replace("cls_head.fc.", "head.").removeprefix("backbone.")
        if name.endswith("attn.qkv.bias"):
            stem = name.removesuffix("qkv.bias")
            new[f"{stem}q_bias"], _, new[f"{stem}v_bias"] = tensor.chunk(3)
        else:
            new["fc_" + name if name.startswith("norm.") else name] = tensor
    return new


def mmaction2_names(state):
    """As MMAction2's VisionTransformer and head write them."""
    return {("" if name.startswith("head.") else "backbone.") + name.replace("head.", "cls_head.fc_cls.")
            .replace("patch_embed.proj", "patch_embed.projection").replace("mlp.fc1", "mlp.layers.0.0")
            .replace("mlp.fc2", "mlp.layers.1"): tensor for name, tensor in own_code_names(state).items()}


@pytest.mark.parametrize("foreign", [
    own_code_names, mmaction2_names,
    lambda state: {f"module.{key}": part for key, part in own_code_names(state).items()},
    lambda state: {f"model.{key}": part for key, part in own_code_names(state).items()},
    lambda state: own_code_names(state) | {"pos_embed": torch.ones(1), "decoder.norm.weight": torch.ones(1)},
])
def test_names_of_other_origin(foreign):
    model = small()
    for name, parameter in model.named_parameters():
        if name.endswith("attn.qkv.bias"):
            with torch.no_grad():
                parameter[16:32] = 0
    state = model.state_dict()
    converted = videomae.convert(foreign(state))
    assert converted.keys() == state.keys()
    assert all(converted[name].equal(state[name]) for name in state)


def test_the_configuration_of_version_2():
    fields = videomae.read_config({"model_type": "VideoMAEv2_Base", "model_config": {
        "img_size": 224, "patch_size": 14, "embed_dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 48 / 11,
        "qkv_bias": True, "tubelet_size": 2, "num_frames": 16, "use_mean_pooling": True, "layer_norm_eps": 1e-6}})
    assert fields == {"embed_dim": 1408, "depth": 40, "num_heads": 16, "mlp_dim": 6144, "clip_len": 16, "size": 224,
                      "patch": 14, "tubelet": 2, "qkv_bias": True, "mean_pooling": True, "norm_eps": 1e-6,
                      "last_norm_eps": 1e-6}


# ---------------------------------------------------------------------------------------------------------------------
# properties
# ---------------------------------------------------------------------------------------------------------------------

def test_only_positions_tell_the_order_of_patches():
    backbone = small().backbone
    x = clips(2, 3, 4, 16, 16)
    moved = x.unflatten(2, (2, 2)).flip(2).flatten(2, 3)               # the two tubelets of each clip exchanged
    assert (backbone(x) - backbone(moved)).abs().max() > 1e-2
    backbone.pos_embed.zero_()
    torch.testing.assert_close(backbone(x), backbone(moved), rtol=0, atol=1e-5)


def test_a_clip_does_not_depend_on_its_neighbours():
    backbone = small().backbone
    x = clips(4, 3, 4, 16, 16)
    torch.testing.assert_close(backbone(x)[2:3], backbone(x[2:3]), rtol=0, atol=1e-5)


def test_the_mean_of_all_tokens_or_the_first_alone():
    tokens = clips(2, 8, 16)
    mean, first = small().backbone, small(mean_pooling=False).backbone
    torch.testing.assert_close(mean.pool(tokens), mean.norm(sum(tokens.unbind(1)) / 8))
    assert first.pool(tokens).equal(first.norm(tokens[:, 0]))


def test_sinusoidal_positions():
    """Four features: sine and cosine of the position itself, and of a hundredth of it."""
    expected = [[math.sin(place), math.cos(place), math.sin(place / 100), math.cos(place / 100)] for place in range(9)]
    torch.testing.assert_close(sinusoidal_positions(9, 4)[0], torch.tensor(expected))


def test_positions_of_the_trained_grid_are_the_table_itself():
    backbone = small().backbone
    assert backbone.positions((2, 2, 2)).equal(sinusoidal_positions(8, 16))


def test_positions_of_another_size_are_bicubic_within_each_step_of_time():
    backbone = small().backbone
    grids = sinusoidal_positions(8, 16)[0].reshape(2, 2, 2, 16)        # time, row, column
    expected = torch.stack([F.interpolate(grid.permute(2, 0, 1)[None], (3, 4), mode="bicubic")[0].permute(1, 2, 0)
                            for grid in grids])                        # (2, 3, 4, 16)
    torch.testing.assert_close(backbone.positions((2, 3, 4)), expected.reshape(1, 24, 16))
    assert backbone(clips(1, 3, 4, 24, 32)).shape == (1, 16, 1, 1, 1)


def test_positions_of_twice_the_frames_are_linear_in_time():
    backbone = small().backbone
    first, last = sinusoidal_positions(8, 16)[0].reshape(2, 4, 16)
    expected = torch.cat([first, 0.75 * first + 0.25 * last, 0.25 * first + 0.75 * last, last])
    torch.testing.assert_close(backbone.positions((4, 2, 2))[0], expected)
