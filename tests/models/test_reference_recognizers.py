"""MMAction2's own numbers for TSM ResNet-18: group g of the reference."""

import json

import numpy as np
import pytest
import torch

import tinyaction as ta
from tinyaction.models import create_model, load_weights
from tinyaction.models.temporal_shift import temporal_shift

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def arrays(shared):
    return np.load(shared / "reference" / "g_models.npz")


@pytest.fixture(scope="module")
def model(shared):
    """The inputs of the reference are normalized already, so the model must not do it again."""
    model = create_model("tsm-resnet18", 10, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    loaded = load_weights(model, "tsm-resnet18", shared / "reference" / "g_tsm_r18_state.pt")
    assert loaded.origin == "MMAction2 (TSM)" and loaded.unexpected_keys == loaded.missing == []
    return model


INPUTS = [("x", "x_1_8_3_64_64_torch_seed123"), ("x2", "x2_2_8_3_64_64_torch_seed124")]


@pytest.mark.parametrize("key, inputs", INPUTS)
@torch.inference_mode()
def test_features_and_logits(arrays, model, key, inputs):
    clips = torch.from_numpy(arrays[inputs]).transpose(1, 2)[:, None]  # (B, V=1, C, T, H, W)
    features = model(clips)                                            # (B, T, F, h, w)
    expected = arrays[f"tsm_r18/{key}/feat_mean"]                      # (B*T, F)
    assert np.allclose(features.mean(dim=(3, 4)).flatten(0, 1), expected, rtol=0, atol=TOLERANCE)
    logits = model(clips, mode="logits")[:, 0]                         # (B, K)
    assert np.allclose(logits, arrays[f"tsm_r18/{key}/logits"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("key, inputs", INPUTS)
@pytest.mark.parametrize("average_clips", ["prob", "score", None])
@torch.inference_mode()
def test_predictions(arrays, model, key, inputs, average_clips, monkeypatch):
    clips = torch.from_numpy(arrays[inputs]).transpose(1, 2)[:, None]
    monkeypatch.setattr(model.cls_head, "average_clips", average_clips)
    samples = [ta.DataSample(None, (64, 64), 1, 8) for _ in clips]
    scores = torch.stack([sample.pred_score for sample in model(clips, samples, mode="predict")])
    assert np.allclose(scores, arrays[f"tsm_r18/{key}/pred_{average_clips}"], rtol=0, atol=TOLERANCE)


def test_the_number_of_parameters(shared, model):
    expected = json.loads((shared / "reference" / "g_models.json").read_text())["tsm_r18"]["n_params"]
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize("fold_div", [3, 4, 8])
def test_the_shift(arrays, fold_div):
    out = temporal_shift(torch.from_numpy(arrays["shift/in"]), 8, fold_div=fold_div)
    assert np.array_equal(out, arrays[f"shift/seg8_div{fold_div}"])
