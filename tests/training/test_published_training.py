"""Published networks, made small, in training: probes of them, fine-tuning with falling rates, their own clips."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import enliven
from toys import write_set

import tinyaction as ta
from tinyaction.models import slowfast, timesformer, videomae, vjepa2, x3d
from tinyaction.models.checkpoint import Checkpoint, load_model
from tinyaction.training import outcome
from tinyaction.training.build import build, build_model, eval_arguments
from tinyaction.training.config import RunConfig
from tinyaction.training.finetune import parameter_groups

CUBE = dict(clip_len=4, size=32, patch=8, num_heads=2)
TINY = {  # name -> family, arguments, features of a clip (T, F, h, w)
    "videomae-tiny": (videomae, dict(embed_dim=16, depth=3, mlp_dim=32, **CUBE), (2, 16, 4, 4)),
    "timesformer-tiny": (timesformer, dict(embed_dim=16, depth=1, mlp_dim=32, **CUBE), (4, 16, 4, 4)),
    "vjepa2-tiny": (vjepa2, dict(embed_dim=24, depth=1, pooler_depth=1, **CUBE), (2, 24, 4, 4)),
    "slowfast-tiny": (slowfast, dict(kind="slowfast", depths=(1, 1, 1, 1), channels=8), (1, 288, 1, 1)),
    "x3d-tiny": (x3d, dict(depth=1.0), (4, 432, 1, 1)),
}


@pytest.fixture(autouse=True)
def tiny_cards(monkeypatch):
    """A small network in each family, by a name of its own; and no pictures of these runs."""
    monkeypatch.setattr(outcome, "write_report", lambda *_, **__: "none")
    for family in (videomae, timesformer, vjepa2, slowfast, x3d):
        cards = [replace(family.PUBLISHED[0], name=name, arguments=arguments, clip_len=4, size=32, short_side=36,
                         test_size=32, frame_interval=2, least_clip_len=1)
                 for name, (own, arguments, _) in TINY.items() if own is family]
        monkeypatch.setattr(family, "PUBLISHED", (*family.PUBLISHED, *cards))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("bars") / "bars", num_train=6, num_val=3)


def weights_of(name, tmp_path):
    torch.manual_seed(0)
    model = ta.create_model(name, 5)
    enliven(model)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth")


def config(folder, name, tmp_path, **flags) -> RunConfig:
    given = {"weights": weights_of(name, tmp_path), "num_workers": 0, "device": "cpu", "epochs": 1, "batch_size": 3}
    return RunConfig(str(folder), model=name, out=str(tmp_path / "run"), **{**given, **flags})


@pytest.mark.parametrize("name", TINY)
def test_a_probe_of_each_family_predicts_as_it_was_evaluated(name, folder, tmp_path):
    result = ta.train(config(folder, name, tmp_path, method="probe"))
    model, checkpoint = load_model(result.checkpoint)
    features = model.extract_features(torch.zeros(1, 1, 3, 4, 32, 32))
    assert features.shape[1:] == TINY[name][2]
    assert checkpoint.eval_pipeline["frame_interval"] == 2 and checkpoint.eval_pipeline["short_side"] == 36
    prediction = ta.Predictor(result.checkpoint, device="cpu")(result.evaluation.filenames[0])
    np.testing.assert_allclose(prediction.scores, result.evaluation.scores[0], atol=5e-3)  # the cache is float16


def test_maps_are_the_tokens_of_their_places():
    """A patch that changes alone changes the map at its own place most, in all three families."""
    for name in ("videomae-tiny", "timesformer-tiny", "vjepa2-tiny"):
        torch.manual_seed(0)
        backbone = ta.create_model(name, 2).backbone.eval()
        backbone.gives_maps = True
        clips = torch.zeros(1, 3, 4, 32, 32)
        changed = clips.clone()
        changed[:, :, 2:, 8:16, 24:] = 2.0                             # second half of the time, row 1, column 3
        with torch.no_grad():
            difference = (backbone(changed) - backbone(clips)).abs().mean(dim=1)[0]  # (t, h, w)
        t, row, column = np.unravel_index(int(difference.argmax()), difference.shape)
        assert (t >= difference.shape[0] // 2, row, column) == (True, 1, 3), name


@pytest.mark.parametrize("method", ["finetune", "probe-then-finetune"])
@pytest.mark.parametrize("name", ["videomae-tiny", "x3d-tiny"])
def test_fine_tuning_changes_all_but_frozen_norms(method, name, folder, tmp_path):
    result = ta.train(config(folder, name, tmp_path, method=method))
    start = torch.load(tmp_path / "weights.pth")
    last = Checkpoint.load(result.path / "last.pt").state_dict
    for key, tensor in last.items():
        if key.startswith("backbone."):
            assert torch.equal(tensor, start[key]) == ("running_" in key or "num_batches" in key or name == "x3d-tiny"
                                                       and tensor.ndim == 1 and "block.2" not in key
                                                       and "block.0" not in key), key
    prediction = ta.Predictor(result.checkpoint, device="cpu")(result.evaluation.filenames[0])
    np.testing.assert_allclose(prediction.scores, result.evaluation.scores[0], atol=5e-3)


def test_rates_fall_by_layer_as_beit_has_them():
    model = ta.create_model("videomae-tiny", 2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, weight_decay=0.05, head_lr_multiplier=2, layer_decay=0.5)
    scale = {names[id(one)]: (group["lr_scale"], group["weight_decay"]) for group in groups for one in group["params"]}
    assert len(scale) == len(names) == sum(len(group["params"]) for group in groups)
    assert scale["backbone.patch_embed.proj.weight"] == (1 / 16, 0.05)
    assert scale["backbone.blocks.0.attn.qkv.weight"] == (1 / 8, 0.05)
    assert scale["backbone.blocks.1.norm1.weight"] == (1 / 4, 0.0)
    assert scale["backbone.blocks.2.mlp.fc2.bias"] == (1 / 2, 0.0)
    assert scale["backbone.norm.weight"] == (1.0, 0.0)
    assert scale["cls_head.fc.weight"] == (2.0, 0.05)
    time = ta.create_model("timesformer-tiny", 2)
    for group in parameter_groups(time, weight_decay=0.05, layer_decay=0.5):
        if any(one is time.backbone.pos_embed for one in group["params"]):
            assert (group["lr_scale"], group["weight_decay"]) == (1 / 4, 0.0)


def test_the_optimizer_steps_by_the_rates(folder, tmp_path):
    updater = build(config(folder, "videomae-tiny", tmp_path, method="finetune", layer_decay=0.5, lr=0.016)).updater
    assert sorted({group["lr"] for group in updater.optimizer.param_groups}) == pytest.approx(
        [0.016 * 3 / 8 * scale for scale in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 10)])
    assert updater.lr == pytest.approx(0.016 * 3 / 8)


def test_drop_path_rises_to_the_last_block_and_keeps_the_expectation(folder, tmp_path):
    model, _ = build_model(config(folder, "videomae-tiny", tmp_path, method="finetune", drop_path=0.5), 2)
    blocks = model.backbone.blocks
    assert [block.drop_path.p for block in blocks] == [0.0, 0.25, 0.5]
    x = torch.randn(1, 4, 16).expand(4000, -1, -1)
    torch.manual_seed(0)
    with torch.no_grad():
        whole = blocks[2].eval()(x)[0] - x[0]
        assert blocks[2](x)[1:].equal(blocks[2](x)[:-1])               # nothing is left out in evaluation
        first = blocks[2].attn(blocks[2].norm1(x[:1]))[0]
        dropped = blocks[2].train().drop_path(first.expand(4000, -1, -1))
    assert {float(value) for value in (dropped / first).round().unique()} == {0.0, 2.0}
    torch.testing.assert_close(dropped.mean(dim=0), first, rtol=0.1, atol=1e-3)
    assert whole.isfinite().all()


def test_training_clips_follow_the_published_rule(folder, tmp_path):
    """Frames 2 at 30 a second apart are neighbours at the 10 a second of these clips; the start is drawn."""
    given = config(folder, "videomae-tiny", tmp_path, method="finetune", augment="none")
    training = build(given)
    assert repr(training.train_set.pipeline.transforms[1]) == (
        "TimedSample(clip_len=4, frame_interval=2, num_clips=1, test_mode=False)")
    train, val = (repr(pipeline.transforms[3:]) for pipeline in (training.train_set.pipeline,
                                                                 training.val_set.pipeline))
    assert train == val and "VideoAntialiasResize(short_side=36)" in train
    sampler = training.train_set.pipeline.transforms[1]
    drawn = np.stack([sampler.indices(10, 10.0, np.random.RandomState(seed))[0] for seed in range(30)])
    assert (np.diff(drawn) == 1).all() and set(drawn[:, 0]) == set(range(7))
    spread = eval_arguments(config(folder, "videomae-tiny", tmp_path, frame_interval=0))
    assert "frame_interval" not in spread


def test_the_recipe_of_transformers_and_of_others():
    names = ("lr", "weight_decay", "layer_decay", "drop_path", "frame_interval", "head_lr_multiplier")

    def values(*arguments):
        return tuple(ta.default_hyperparameters(*arguments)[name] for name in names)

    assert values("videomae-small", "kinetics") == (3e-5, 0.05, 0.75, 0.1, 4, 10.0)
    assert values("videomae-small", "ssv2")[4] == 0
    assert values("videomae-small", "kinetics", "probe-then-finetune") == (7.5e-6, 0.05, 0.75, 0.1, 4, 1.0)
    assert values("x3d_s", "kinetics") == (2e-4, 0.01, 1.0, 0.0, 6, 10.0)
    assert values("r3d_18", "kinetics")[2:5] == (1.0, 0.0, 0)


@pytest.mark.parametrize(("flags", "words"), [
    ({"model": "conv2d", "layer_decay": 0.5},
     "--layer-decay is for transformers with blocks, such as videomae-small, and not for conv2d; leave it out"),
    ({"model": "x3d_s", "drop_path": 0.1}, "--drop-path is for transformers with blocks"),
    ({"model": "videomae-small", "layer_decay": 0.0}, "--layer-decay is 0.0; it must be above 0"),
    ({"model": "videomae-small", "layer_decay": 1.5}, "--layer-decay is 1.5; it must be at most 1"),
    ({"model": "videomae-small", "drop_path": 1.0}, "--drop-path is 1.0; it must be at most 0.9"),
    ({"model": "videomae-small", "frame_interval": -1}, "--frame-interval is -1; it must be at least 0"),
])
def test_flags_that_cannot_be(flags, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        RunConfig("d", **flags)


@pytest.mark.parametrize(("method", "flags", "words"), [
    ("probe", {"clip_len": 1}, "clip_len is 1; "), ("finetune", {"clip_len": 3}, "clip_len is 3; the network takes"),
    ("probe-then-finetune", {"size": 30}, "size is 30; the network takes a multiple of 8"),
])
def test_clips_that_do_not_fit_are_one_sentence_before_any_work(method, flags, words, folder, tmp_path):
    given = config(folder, "videomae-tiny", tmp_path, method=method, **flags)
    with pytest.raises(ValueError, match=re.escape(words)):
        ta.train(given)
    assert not (tmp_path / "run").exists()
