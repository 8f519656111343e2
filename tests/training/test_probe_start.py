"""Fine-tuning that begins with a probe: where it starts, what it keeps, and that it goes on after a kill."""

import csv
import json

import numpy as np
import pytest
import torch
from toys import write_set

import tinyaction as ta
from tinyaction.models import PoolingHead
from tinyaction.models.checkpoint import Checkpoint, load_model
from tinyaction.models.pooling import Pooling
from tinyaction.results.run import epoch_sort_key, read_run
from tinyaction.training import run as run_module
from tinyaction.training.build import build
from tinyaction.training.config import RunConfig
from tinyaction.training.finetune import averaged_model
from tinyaction.training.probe_start import begin_with_probe, comparison_line, saved_pooling


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("bars") / "bars", num_train=6, num_val=3)


def config(folder, out="", **flags) -> RunConfig:
    given = {"model": "conv2d", "method": "probe-then-finetune", "clip_len": 4, "size": 32, "num_workers": 0,
             "device": "cpu", "epochs": 2, "optimizer": "adamw", "lr": 1e-4, "pooling": "stats", "batch_size": 2}
    return RunConfig(str(folder), out=str(out), **{**given, **flags})


@pytest.fixture(scope="module")
def probe(folder, tmp_path_factory) -> ta.RunResult:
    return ta.train(config(folder, tmp_path_factory.mktemp("runs") / "probe", method="probe"))


@pytest.fixture(scope="module")
def tuned(folder, probe, tmp_path_factory) -> ta.RunResult:
    return ta.train(config(folder, tmp_path_factory.mktemp("runs") / "tuned"))


def test_training_begins_with_the_probe(folder, probe):
    training = build(config(folder, ema=0.9))
    begin_with_probe(training, on_count=None)
    expected = load_model(probe.checkpoint)[0].state_dict()
    for model in (training.model, averaged_model(training.updater.average)):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    trained = {id(one) for group in training.updater.optimizer.param_groups for one in group["params"]}
    assert trained == {id(one) for one in training.model.parameters() if one.requires_grad}
    assert id(training.model.cls_head.fc.weight) in trained


def test_the_gradient_goes_through_the_pooling(folder):
    training = build(config(folder, pooling="order"))
    begin_with_probe(training, on_count=None)
    training.model.cls_head.fc.weight.requires_grad_(False)
    batch = next(iter(training.train_loader))
    training.model(batch["inputs"], batch["data_samples"], mode="loss")["loss_cls"].backward()
    gradients = [one.grad for one in training.model.backbone.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert max(gradient.abs().max() for gradient in gradients) > 0


def test_epoch_0_is_the_probe(probe, tuned):
    rows = read_run(tuned.path).history
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    alone = read_run(probe.path).history[0]
    for name in ("train_loss", "train_top1", "val_loss", "val_top1"):
        assert rows[0][name] == alone[name]
    facts = json.loads((tuned.path / "config.json").read_text())
    assert facts["probe"]["val_accuracy"] == rows[0]["val_top1"] == probe.accuracy
    best = max(rows[1:], key=epoch_sort_key)
    assert facts["finetune"] == {"val_accuracy": best["val_top1"], "epoch": best["epoch"]}
    log = (tuned.path / "log.txt").read_text()
    assert f"probe: accuracy {probe.accuracy:.4f}; fine-tuned from it: {best['val_top1']:.4f} in epoch" in log


def test_what_is_kept_is_what_it_says(folder, tuned, probe):
    """Here the probe is right about every video, so nothing can be better."""
    assert probe.accuracy == 1.0 and tuned.best_epoch == 0
    kept, alone = Checkpoint.load(tuned.checkpoint), Checkpoint.load(probe.checkpoint)
    assert all(torch.equal(kept.state_dict[name], tensor) for name, tensor in alone.state_dict.items())
    assert kept.eval_pipeline == alone.eval_pipeline == {"clip_len": 4, "size": 32, "num_clips": 2}
    with open(tuned.path / "predictions.csv") as ours, open(probe.path / "predictions.csv") as theirs:
        assert list(csv.reader(ours)) == list(csv.reader(theirs))
    assert read_run(tuned.path).best["epoch"] == 0
    last = Checkpoint.load(tuned.path / "last.pt")
    assert not torch.equal(last.state_dict["backbone.conv1.0.weight"], kept.state_dict["backbone.conv1.0.weight"])
    page = (tuned.path / "report.html").read_text()
    assert "none of 2 epochs of fine-tuning is better" in page and "loss" in page
    again = ta.evaluate(load_model(tuned.checkpoint)[0], build(config(folder)).val_loader, device=torch.device("cpu"))
    np.testing.assert_allclose(again.scores, tuned.evaluation.scores, atol=5e-3)  # the cache is float16


def test_ties_go_to_the_probe_and_a_better_epoch_wins():
    def row(epoch, top1, loss):
        return {"epoch": epoch, "val_top1": top1, "val_loss": loss}

    rows = [row(0, 0.5, 2.0), row(1, 0.5, 0.1), row(2, 0.25, 0.0)]
    assert max(rows, key=epoch_sort_key)["epoch"] == 0
    assert "fine-tuned from it: 0.5000 in epoch 1, no better, so best.pt is the probe" in comparison_line(rows)
    rows.append(row(3, 0.75, 9.0))
    assert max(rows, key=epoch_sort_key)["epoch"] == 3
    assert comparison_line(rows).endswith("from it: 0.7500 in epoch 3, so best.pt is the fine-tuned network")


def test_cached_features_change_nothing(folder, tuned, tmp_path):
    """The first run computed its features or found them; this one finds them."""
    again = ta.train(config(folder, tmp_path / "again"))
    ours, theirs = (Checkpoint.load(run.path / "last.pt").state_dict for run in (again, tuned))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("num_steps", [0, 1, 4])
def test_a_killed_run_goes_on_to_the_bit(num_steps, folder, tuned, tmp_path, monkeypatch):
    """Of six steps in two epochs; 0 is a kill between the probe and the first ``last.pt``."""
    save = run_module.CheckpointManager.save
    saves = []

    def save_or_die(manager):
        if len(saves) == num_steps:
            raise Killed
        saves.append(manager)
        save(manager)

    with monkeypatch.context() as patch:
        patch.setattr(run_module.CheckpointManager, "save", save_or_die)
        patch.setattr(run_module.RunFolder, "remove_if_empty", lambda self: None)  # a kill leaves what there is
        with pytest.raises(Killed):
            ta.train(config(folder, tmp_path / "run", save_every=1))
    (tmp_path / "run" / ".lock").unlink(missing_ok=True)
    assert (saved_pooling(str(tmp_path / "run")) is None) == (num_steps == 0)
    result = ta.train(config(folder, tmp_path / "run", save_every=1, resume=str(tmp_path / "run")))
    assert result.best_epoch == tuned.best_epoch and result.accuracy == tuned.accuracy
    for name in ("last.pt", "best.pt"):
        ours, theirs = (Checkpoint.load(run.path / name).state_dict for run in (result, tuned))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    ours, theirs = (read_run(run.path).history for run in (result, tuned))
    for mine, other in zip(ours, theirs, strict=True):
        assert {key: mine[key] for key in mine if "seconds" not in key} == {
            key: other[key] for key in other if "seconds" not in key}
    facts = json.loads((result.path / "config.json").read_text())
    assert facts["probe"]["pooling"] == "stats" and facts["finetune"]["epoch"] in (1, 2)


def test_with_frozen_stages_and_norms_only_the_rest_learns(folder, tmp_path):
    result = ta.train(config(folder, tmp_path / "run", freeze="1", freeze_norms=True, epochs=1))
    before, after = (Checkpoint.load(result.path / name).state_dict for name in ("best.pt", "last.pt"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"backbone.conv.0.weight", "backbone.conv.0.bias", "cls_head.fc.weight", "cls_head.fc.bias"}


def test_a_checkpoint_of_it_is_an_ordinary_recognizer(tuned):
    model, checkpoint = load_model(tuned.path / "last.pt")
    assert isinstance(model.cls_head, PoolingHead) and model.cls_head.pooling.kind == "stats"
    assert saved_pooling(str(tuned.path)) == Pooling("stats", model.cls_head.pooling.signed_sqrt)
    assert checkpoint.metrics["epoch"] == 2


def test_the_method_follows_from_weights_and_the_rates_from_the_method():
    assert RunConfig("d", model="conv2d").method == "finetune"
    config = RunConfig("d", model="tsn-resnet18", weights="imagenet")
    assert (config.method, config.lr, config.head_lr_multiplier, config.label_smoothing) == (
        "probe-then-finetune", 5e-5, 1.0, 0.0)
    assert RunConfig("d", model="tsn-resnet18", weights="imagenet", method="finetune").head_lr_multiplier == 10


def test_a_run_that_fails_before_its_first_step_leaves_no_folder(folder, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no step")

    monkeypatch.setattr(run_module, "fit", fail)
    with pytest.raises(ValueError, match="no step"):
        ta.train(config(folder, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
