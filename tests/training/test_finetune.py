"""Each habit of fine-tuning, seen in what it changes: weights, statistics, rates, losses, orders."""

import math
import re

import numpy as np
import pytest
import torch
from loops import CPU, FakeLoader, batch_of, sgd, tiny_model, weights_of
from torch import nn
from torchvision.ops import StochasticDepth

from tinyaction.data.loader import EpochSampler
from tinyaction.models import create_model
from tinyaction.sample import DataSample
from tinyaction.training.finetune import (
    Criterion,
    averaged_model,
    class_weights,
    create_average,
    freeze,
    parameter_groups,
    stages,
    train_mode,
)
from tinyaction.training.loop import Callbacks, fit, train_one_epoch
from tinyaction.training.updater import Updater, create_optimizer


def names_of(backbone: nn.Module) -> list[list[str]]:
    names = {id(part): name for name, part in backbone.named_modules()}
    return [[names[id(part)] for part in stage] for stage in stages(backbone)]


def test_stages_from_the_input_on():
    assert names_of(create_model("conv2d", 2).backbone) == [["conv1"], ["conv"]]
    resnet = [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]]
    assert names_of(create_model("tsn-resnet18", 2).backbone) == resnet
    assert names_of(create_model("tsm-resnet18", 2).backbone) == resnet
    assert names_of(create_model("tsm-mobilenet_v2", 2).backbone) == [[f"features.{i}"] for i in range(19)]
    assert names_of(create_model("r3d_18", 2).backbone) == [["stem"], *resnet[1:]]


@pytest.mark.parametrize(("name", "num_stages"), [("tsn-vgg16", 5), ("tsn-vgg11_bn", 5), ("tsn-alexnet", 3)])
def test_poolings_end_the_stages_of_plain_networks(name, num_stages):
    """They were one stage, so that --freeze 1 froze the whole backbone."""
    model = create_model(name, 2)
    found = names_of(model.backbone)
    assert len(found) == num_stages
    assert found[0][0] == "features.0"
    freeze(model, "1")
    frozen = {name.rpartition(".")[0] for name, weight in model.backbone.named_parameters()
              if not weight.requires_grad}
    assert frozen == set(found[0])


def test_a_frozen_part_is_in_evaluation_mode_stochastic_depth_included():
    """Before, mvit_v2_s dropped whole branches of its frozen blocks at random."""
    model = create_model("mvit_v2_s", 2)
    freeze(model, "3")
    train_mode(model)
    in_training = {part for part in model.modules() if part.training}
    first, second, third, *rest = [set(modules) for modules in
                                   ([module for part in stage for module in part.modules()]
                                    for stage in stages(model.backbone))]
    assert not in_training & (first | second | third)
    assert set.union(*rest) <= in_training and model.cls_head.dropout in in_training
    freeze(model, "all")
    train_mode(model)
    assert not any(part.training for part in model.backbone.modules())
    assert model.cls_head.dropout.training


def test_frozen_features_are_the_same_in_each_pass():
    torch.manual_seed(0)
    model = tiny_model()
    model.backbone = nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 1), StochasticDepth(0.5, "row"), nn.Dropout(0.5)))
    freeze(model, "1")
    train_mode(model)
    frames = torch.randn(8, 1, 2, 2)
    assert model.backbone(frames).equal(model.backbone(frames))


def pixels(seed: int = 0) -> dict:
    rng = np.random.RandomState(seed)
    samples = [DataSample(torch.tensor([label]), (32, 32), 1, 2, f"{label}.mp4") for label in (0, 1)]
    return {"inputs": torch.from_numpy(rng.randint(0, 256, (2, 1, 3, 2, 32, 32), dtype=np.uint8)),
            "data_samples": samples}


def changed_by_an_epoch(model) -> set[str]:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_one_epoch(model, FakeLoader(pixels()), Updater(create_optimizer("sgd", model, lr=0.1, weight_decay=0.1)),
                    device=CPU)
    return {name for name, tensor in model.state_dict().items() if not tensor.equal(before[name])}


def test_frozen_stages_keep_weights_and_statistics_and_the_others_do_not():
    torch.manual_seed(0)
    model = create_model("conv2d", 2)
    freeze(model, "1")
    first = {name for name in model.state_dict() if name.startswith("backbone.conv1.")}
    assert changed_by_an_epoch(model) == set(model.state_dict()) - first


def test_freeze_all_leaves_the_head():
    torch.manual_seed(0)
    model = create_model("tsm-conv2d", 2)
    freeze(model, "all")
    assert changed_by_an_epoch(model) == {"cls_head.fc.weight", "cls_head.fc.bias"}


def test_frozen_norms_keep_weights_and_statistics_while_the_convolutions_learn():
    torch.manual_seed(0)
    model = create_model("conv2d", 2)
    freeze(model, norms=True)
    convolutions = {f"backbone.{part}.0.{kind}" for part in ("conv1", "conv") for kind in ("weight", "bias")}
    assert changed_by_an_epoch(model) == convolutions | {"cls_head.fc.weight", "cls_head.fc.bias"}
    assert model.cls_head.dropout.training


def test_a_transformers_own_parameters_freeze_with_its_first_stage():
    model = create_model("tsn-vit_b_32", 2)
    freeze(model, "1")
    frozen = {name.removeprefix("backbone.net.") for name, weight in model.named_parameters()
              if not weight.requires_grad}
    assert {"class_token", "encoder.pos_embedding", "conv_proj.weight"} <= frozen
    assert not any("encoder_layer" in name for name in frozen)


@pytest.mark.parametrize("what", ["3", "-1", "some", "1.5", ""])
def test_what_cannot_be_frozen(what):
    words = f"--freeze is {what!r}; it must be all, or a number of stages, 0 to 2"
    with pytest.raises(ValueError, match=re.escape(words)):
        freeze(create_model("conv2d", 2), what)


def test_training_mode_of_a_whole_network_is_the_usual_one():
    model = create_model("conv2d", 2).eval()
    train_mode(model)
    assert all(part.training for part in model.modules())


def test_rates_and_decay_of_the_parameter_groups():
    """Decay for the three matrices only; the head ten times as fast. Each parameter is in one group."""
    model = create_model("conv2d", 2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, weight_decay=0.1, head_lr_multiplier=10)
    table = {names[id(parameter)]: (group["weight_decay"], group["lr_scale"])
             for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(table) == len(names)
    assert {name for name, (decay, _) in table.items() if decay == 0.1} == {
        "backbone.conv1.0.weight", "backbone.conv.0.weight", "cls_head.fc.weight"}
    assert {name for name, (_, scale) in table.items() if scale == 10} == {"cls_head.fc.weight", "cls_head.fc.bias"}


def test_the_heads_rate_follows_the_schedule():
    model = create_model("conv2d", 2)
    optimizer = create_optimizer("sgd", model, lr=0.5, head_lr_multiplier=10)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5, 5.0}
    history = fit(model, FakeLoader(pixels()), FakeLoader(pixels(1)), Updater(optimizer, lambda step: 0.001),
                  num_epochs=1, device=CPU)
    assert {group["lr"] for group in optimizer.param_groups} == {0.001, 0.01}
    assert history[0].lr == 0.001
    freeze(model, "all")
    optimizer = create_optimizer("sgd", model, lr=0.5, head_lr_multiplier=10)
    history = fit(model, FakeLoader(pixels()), FakeLoader(pixels(1)), Updater(optimizer, lambda step: 0.001),
                  num_epochs=1, device=CPU)
    assert history[0].lr == pytest.approx(0.001)  # that of the flags, also where only the head is trained


# ---- the loss ------------------------------------------------------------------------------------------------------


def test_label_smoothing_by_hand():
    """Logits (0, log 3), so p = (1/4, 3/4); with smoothing 0.2 the target of class 1 is (0.1, 0.9)."""
    logits = torch.tensor([[[0.0, math.log(3)]]])
    targets = torch.tensor([[0.0, 1.0]])
    assert Criterion().loss(logits, targets).item() == pytest.approx(-math.log(3 / 4))
    expected = -0.1 * math.log(1 / 4) - 0.9 * math.log(3 / 4)
    assert Criterion(label_smoothing=0.2).loss(logits, targets).item() == pytest.approx(expected)


def test_class_weights_let_each_class_count_alike():
    """Three videos of class 0, one of class 1: weights 2/3 and 2, of mean 1 over the four videos."""
    weights = class_weights([0, 0, 1, 0], 2)
    assert weights.tolist() == pytest.approx([2 / 3, 2])
    logits = torch.tensor([[[0.0, math.log(3)]]]).repeat(4, 1, 1)
    targets = torch.eye(2)[[0, 0, 1, 0]]
    expected = (3 * 2 / 3 * -math.log(1 / 4) + 2 * -math.log(3 / 4)) / 4
    assert Criterion(class_weights=weights).loss(logits, targets).item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="class 1 has no training video"):
        class_weights([0, 2], 3)


def test_an_objective_of_nothing_is_the_plain_cross_entropy_for_several_views():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 2, 4), torch.tensor([1, 3, 0])
    model = create_model("conv2d", 4)
    inputs, targets = Criterion().mix(torch.zeros(3), labels, num_classes=4, epoch=0, batch=0)
    assert Criterion().loss(logits, targets).item() == pytest.approx(model.cls_head.loss(logits, labels).item())
    assert inputs.equal(torch.zeros(3))


def test_mixup_mixes_pixels_and_targets_by_the_same_share():
    """Each video is one number, its label: so the mixed pixel is the expected label."""
    labels = torch.tensor([0, 1, 2, 3])
    inputs = labels.to(torch.uint8)[:, None, None, None, None, None]
    goal = Criterion(mixup=1.0, seed=5)
    mixed, targets = goal.mix(inputs, labels, num_classes=4, epoch=7, batch=0)
    assert targets.sum(dim=1).tolist() == pytest.approx([1] * 4)
    assert (targets @ torch.arange(4.0)).tolist() == pytest.approx(mixed.flatten().tolist())
    assert not mixed.flatten().equal(labels.float())
    assert targets.argmax(dim=1).equal(labels)  # the video's own share is the larger one


def test_mixup_is_a_function_of_seed_and_batch_and_touches_nobodys_random_state():
    goal = Criterion(mixup=0.4, seed=1)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    draws = [goal.draw(8, 0, batch) for batch in range(20)]
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert [share for share, _ in draws] == [goal.draw(8, 0, batch)[0] for batch in range(20)]
    assert len({share for share, _ in draws}) == 20 and all(0.5 <= share <= 1 for share, _ in draws)
    assert len({tuple(others) for _, others in draws}) == 20
    assert goal.draw(8, 0, 3)[0] != goal.draw(8, 1, 3)[0]
    assert goal.draw(8, 0, 3)[0] != Criterion(mixup=0.4, seed=2).draw(8, 0, 3)[0]


def test_training_uses_the_objective():
    """Smoothing of 1/2 at logits 0: the gradient of one step is half that of the plain loss (test_loop)."""
    model = tiny_model()
    result = train_one_epoch(model, FakeLoader(batch_of((1, 0))), sgd(model), device=CPU,
                             criterion=Criterion(label_smoothing=0.5))
    assert result.loss == pytest.approx(math.log(2))
    assert weights_of(model) == pytest.approx([0.25, -0.25, 0.25, -0.25])


# ---- the average ---------------------------------------------------------------------------------------------------


def test_the_average_by_hand_buffers_too_and_evaluation_uses_it():
    """First update: a copy. Then the decay is min(0.5, (1 + n) / (10 + n)): 2/11 with n = 1, 3/12 with n = 2."""
    model = create_model("conv2d", 2)
    average = create_average(model, 0.5)
    bias, running = model.cls_head.fc.bias, model.backbone.conv1[1].running_mean
    for value in (1.0, 2.0, 4.0):
        nn.init.constant_(bias, value)
        nn.init.constant_(running, 10 * value)
        average.update_parameters(model)
    second = 2 / 11 * 1 + 9 / 11 * 2
    third = 3 / 12 * second + 9 / 12 * 4
    averaged = averaged_model(average)
    assert averaged.cls_head.fc.bias.tolist() == pytest.approx([third] * 2)
    assert averaged.backbone.conv1[1].running_mean.tolist() == pytest.approx([10 * third] * 64)


def test_the_average_follows_each_step_and_is_what_is_evaluated():
    model = tiny_model()
    average = create_average(model, 0.9)
    history = fit(model, FakeLoader(batch_of((1, 0)), batch_of((2, 1))), FakeLoader(batch_of((1, 0))),
                  sgd(model, average=average), num_epochs=1, device=CPU)
    first = np.array([0.5, -0.5, 0.5, -0.5])                           # see test_loop, as the second step
    p = 1 / (1 + math.exp(-3))
    second = first + [-2 * p, 2 * p, -p, p]
    expected = 2 / 11 * first + 9 / 11 * second
    assert weights_of(averaged_model(average)) == pytest.approx(expected)
    assert weights_of(model) == pytest.approx(second)
    margin = expected[0] + expected[2] - expected[1] - expected[3]
    assert history[0].val.loss == pytest.approx(math.log(1 + math.exp(-margin)))


def test_an_average_goes_on_from_its_state():
    model = tiny_model()
    whole, broken = create_average(model, 0.9), create_average(model, 0.9)
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(model.cls_head.fc.bias, value)
        whole.update_parameters(model)
        broken.update_parameters(model)
        state, broken = broken.state_dict(), create_average(tiny_model(), 0.9)
        broken.load_state_dict(state)
    assert averaged_model(broken).cls_head.fc.bias.equal(averaged_model(whole).cls_head.fc.bias)


# ---- the order and the end -----------------------------------------------------------------------------------------


def test_a_balanced_order_gives_each_class_equally_often():
    labels = np.array([0] * 7 + [1] * 2 + [2] * 2)
    sampler = EpochSampler(11, shuffle=True, seed=0, labels=labels)
    seen = set()
    for epoch in range(6):
        sampler.epoch = epoch
        order = sampler.order()
        assert len(order) == 11
        assert sorted(np.bincount(labels[order]).tolist()) == [3, 4, 4]
        assert set(np.bincount(order, minlength=11)[:7].tolist()) <= {0, 1}  # of the frequent class none twice
        seen |= set(order.tolist())
        assert order.tolist() == order_again(sampler, epoch)
    assert seen == set(range(11))


def order_again(sampler: EpochSampler, epoch: int) -> list[int]:
    again = EpochSampler(len(sampler), shuffle=True, seed=sampler.seed, labels=sampler.labels)
    again.epoch = epoch
    return again.order().tolist()


def test_training_ends_when_on_epoch_says_so():
    model = tiny_model()
    history = fit(model, FakeLoader(batch_of((1, 0))), FakeLoader(batch_of((1, 0))), sgd(model), num_epochs=9,
                  device=CPU, callbacks=Callbacks(on_epoch=lambda record: record.epoch == 2))
    assert len(history) == 3
