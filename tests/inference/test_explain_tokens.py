"""The heat of a transformer: planted weights that see red, and the slope of the score along each token."""

import pytest
import torch
from peers import lively

from tinyaction.inference.explain import class_heat, token_heat
from tinyaction.models import timesformer, videomae, vjepa2

OWN = {videomae: {"mlp_dim": 16}, timesformer: {"mlp_dim": 16}, vjepa2: {"pooler_depth": 1}}
FAMILIES = tuple(OWN)
SMALL = dict(embed_dim=12, depth=2, num_heads=2, clip_len=4, size=32, patch=8)
T, SIDE, PATCH = 4, 32, 8


def small(family):
    """A network without positions, so that tokens differ by what is seen alone."""
    model = lively(family.build(num_classes=2, mean=(0, 0, 0), std=(255, 255, 255), **SMALL, **OWN[family]))
    for name in ("pos_embed", "time_embed"):
        if hasattr(model.backbone, name):
            getattr(model.backbone, name).data.zero_()
    return model


def planted(family):
    """Feature 0 of a token is how red its patch is, feature 1 is one; class 0 is the red."""
    model = small(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
            else:
                parameter.fill_(float(name.endswith("weight")))
        proj = model.backbone.patch_embed.proj
        proj.weight[0, 0] = 1 / proj.weight[0, 0].numel()
        proj.bias[1] = 1
        identity = torch.eye(12)
        if family is timesformer:                                      # the class token takes the mean of all patches
            model.backbone.blocks[-1].attn.qkv.weight[24:] = identity
            model.backbone.blocks[-1].attn.proj.weight.copy_(identity)
        if family is vjepa2:
            model.backbone.pooler.cross.value_proj.weight.copy_(identity)
        model.cls_head.fc.weight[0, 0] = 1
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_it_points_at_the_one_patch_that_counts(family):
    clips = torch.zeros(2, 3, T, SIDE, SIDE, dtype=torch.uint8)
    clips[1, 0, 2:, 8:16, 16:24] = 255                                 # red, row 1, column 2, in the second half
    clips[1, 2, :2, 24:, :8] = 255                                     # blue says nothing
    heat = class_heat(planted(family), clips, 0)                       # (V, T, H, W)
    assert heat[1, 2:, 12, 20].max() == heat.max() == 1 and heat[1, 3, 11:13, 19:21].min() > 0.5
    assert heat[0].max() == 0 and heat[1, :, :4].max() == 0 and heat[1, :, 20:].max() == 0
    assert heat[1, :, :, :12].max() == 0 and heat[1, :, :, 28:].max() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_where_all_places_are_alike_there_is_no_heat(family):
    clips = torch.full((1, 3, T, SIDE, SIDE), 90, dtype=torch.uint8)
    assert class_heat(small(family), clips, 1).max() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_slope_of_the_score_towards_the_mean_token(family):
    model = small(family).double()
    clips = torch.randint(0, 256, (1, 3, T, SIDE, SIDE), generator=torch.Generator().manual_seed(0)).double()
    heat = token_heat(model, clips, 1)                                 # (1, t, h, w)
    place, step = (0, heat.shape[1] - 1, 2, 1), 1e-5
    token = (place[1] * 4 + 2) * 4 + 1 if family is not timesformer else 1 + (2 * 4 + 1) * heat.shape[1] + place[1]

    def towards_mean(block, arguments):
        x, *rest = arguments
        x = x.clone()
        x[0, token] += step * (x[0, family is timesformer :].mean(dim=0) - x[0, token])
        return (x, *rest)

    with torch.no_grad():
        before = model(clips[None], mode="logits")[0, 0, 1]
        model.backbone.blocks[-1].register_forward_pre_hook(towards_mean)
        after = model(clips[None], mode="logits")[0, 0, 1]
    assert (before - after) / step == pytest.approx(heat[place].item(), rel=1e-3)
    assert all(parameter.grad is None for parameter in model.parameters()) and not torch.is_inference(heat)
