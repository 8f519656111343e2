"""The loop, against numbers that can be worked out by hand.

The network is one number x per video, two weights and two biases, all zero at first: logits = w x + b. With the
first video x = 1 of class 0 both probabilities are 1/2, so the loss is log 2, its gradient by the logits
(-1/2, 1/2), and one step of size 1 leads to w = b = (1/2, -1/2).
"""

import math
from types import SimpleNamespace

import pytest
import torch
from loops import CPU, AsFloat, FakeLoader, batch_of, loader_of, random_videos, sgd, tiny_model, weights_of
from torch import nn

from tinyaction.models import Recognizer, TemporalAverageHead, create_model
from tinyaction.results import progress
from tinyaction.results.evaluation import evaluate
from tinyaction.training.loop import Callbacks, TrainState, fit, train_one_epoch
from tinyaction.training.updater import Updater, create_optimizer

# ---- training ------------------------------------------------------------------------------------------------------


def test_one_step_by_hand():
    model = tiny_model()
    result = train_one_epoch(model, FakeLoader(batch_of((1, 0))), sgd(model), device=CPU)
    assert result.loss == pytest.approx(math.log(2))
    assert (result.top1, result.num_videos) == (1, 1)  # of two equal scores the first counts
    assert weights_of(model) == pytest.approx([0.5, -0.5, 0.5, -0.5])


def test_two_steps_by_hand():
    """Step 2, x = 2 of class 1: logits (3/2, -3/2), so p(class 0) = p = 1 / (1 + e^-3), the loss is -log(1 - p)."""
    model = tiny_model()
    result = train_one_epoch(model, FakeLoader(batch_of((1, 0)), batch_of((2, 1))), sgd(model), device=CPU)
    p = 1 / (1 + math.exp(-3))
    assert result.loss == pytest.approx((math.log(2) - math.log(1 - p)) / 2)
    assert result.top1 == 1 / 2
    assert weights_of(model) == pytest.approx([0.5 - 2 * p, -0.5 + 2 * p, 0.5 - p, -0.5 + p])


def test_the_mean_is_over_videos_not_over_batches():
    """Two right ones in a batch and one wrong one alone: 2 of 3, and losses weighted 2 to 1."""
    loader = FakeLoader(batch_of((1, 0), (1, 0)), batch_of((1, 1)))
    model = tiny_model()
    nn.init.constant_(model.cls_head.fc.bias[:1], 1.0)
    result = train_one_epoch(model, loader, sgd(model, lr=0), device=CPU)
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    assert result.top1 == pytest.approx(2 / 3)
    assert result.loss == pytest.approx((2 * right + wrong) / 3)


def test_defect_8_each_view_carries_the_label_of_its_video():
    """Training with two clips failed in the guide's loss. The gradient is the mean of the views': x = 1 and 3."""
    model = tiny_model()
    result = train_one_epoch(model, FakeLoader(batch_of(([1, 3], 0), ([1, 3], 0))), sgd(model), device=CPU)
    assert result.loss == pytest.approx(math.log(2))
    assert (result.num_videos, result.top1) == (2, 1)
    assert weights_of(model) == pytest.approx([0.5 * 2, -0.5 * 2, 0.5, -0.5])


def test_the_rate_is_set_before_each_step():
    model = tiny_model()
    asked, used = [], []

    def lr_at(step):
        asked.append(step)
        return 0.1 * step

    updater = sgd(model, lr_at=lr_at)
    updater.optimizer.register_step_pre_hook(lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"]))
    train_one_epoch(model, FakeLoader(batch_of((1, 0)), batch_of((2, 1))), updater, device=CPU,
                    state=TrainState(step=7))
    assert asked == [7, 8]
    assert used == pytest.approx([0.7, 0.8])


@pytest.mark.parametrize(("limit", "norm"), [(0.0, 1.0), (10.0, 1.0), (0.25, 0.25)])
def test_clipping(limit, norm):
    """The first gradient is (-1/2, 1/2, -1/2, 1/2), of norm 1."""
    model = tiny_model()
    train_one_epoch(model, FakeLoader(batch_of((1, 0))), sgd(model, clip_grad_norm=limit), device=CPU)
    assert math.hypot(*weights_of(model)) == pytest.approx(norm, rel=1e-5)


def test_training_is_in_training_mode():
    model = tiny_model().eval()
    modes = []
    model.register_forward_pre_hook(lambda *_: modes.append(model.training))
    train_one_epoch(model, FakeLoader(batch_of((1, 0))), sgd(model), device=CPU)
    assert modes == [True]


def test_a_loss_that_is_not_finite_names_the_files_and_harms_no_weight():
    model = tiny_model()
    with pytest.raises(ValueError, match=r"the loss of step 3 is nan; .*: x=1\.mp4, x=nan\.mp4"):
        train_one_epoch(model, FakeLoader(batch_of((1, 0), (math.nan, 1))), sgd(model), device=CPU,
                        state=TrainState(step=3))
    assert weights_of(model) == [0, 0, 0, 0]


@pytest.mark.parametrize("label", [2, -1])
def test_defect_5_a_label_out_of_range_is_named_and_no_crash_of_the_device(label):
    model = tiny_model()
    words = rf"x=5\.mp4: the label {label} is out of range; the model knows 2 classes, so 0 to 1"
    with pytest.raises(ValueError, match=words):
        train_one_epoch(model, FakeLoader(batch_of((1, 0), (5, label))), sgd(model), device=CPU)
    with pytest.raises(ValueError, match=words):
        evaluate(model, FakeLoader(batch_of((1, 0), (5, label))), device=CPU)


def test_a_video_without_a_label_is_named():
    batch = batch_of((1, 0), (2, 0))
    batch["data_samples"][1].label = None
    with pytest.raises(ValueError, match=r"x=2\.mp4 has no label"):
        train_one_epoch(tiny_model(), FakeLoader(batch), sgd(tiny_model()), device=CPU)


def test_no_batch_at_all():
    model = tiny_model()
    with pytest.raises(ValueError, match="the loader gave no batch"):
        train_one_epoch(model, FakeLoader(), sgd(model), device=CPU)
    with pytest.raises(ValueError, match="the loader gave no batch"):
        evaluate(model, FakeLoader(), device=CPU)


# ---- all of it -----------------------------------------------------------------------------------------------------


def test_fit_by_hand():
    """Two epochs of two steps: rates 1, 1/2, 1/3, 1/4; an evaluation and a record after each."""
    model = tiny_model()
    train_loader = FakeLoader(batch_of((1, 0)), batch_of((2, 1)))
    val_loader = FakeLoader(batch_of((1, 0)))
    seen = []
    history = fit(model, train_loader, val_loader, sgd(model, lr_at=lambda step: 1 / (step + 1)), num_epochs=2,
                  device=CPU, callbacks=Callbacks(on_epoch=seen.append))
    assert history == seen
    assert [record.epoch for record in history] == [0, 1]
    assert [record.lr for record in history] == [1 / 2, 1 / 4]
    assert train_loader.epochs == [0, 1]

    by_hand = tiny_model()
    updater = sgd(by_hand, lr_at=lambda step: 1 / (step + 1))
    for epoch in (0, 1):
        train = train_one_epoch(by_hand, train_loader, updater, device=CPU, state=TrainState(step=2 * epoch))
        assert history[epoch].train.loss == train.loss
        assert history[epoch].val.loss == evaluate(by_hand, val_loader, device=CPU).loss
    assert weights_of(model) == weights_of(by_hand)


def test_on_epoch_can_stop_the_run():
    def stop(record):
        raise KeyboardInterrupt

    model = tiny_model()
    loader = FakeLoader(batch_of((1, 0)))
    with pytest.raises(KeyboardInterrupt):
        fit(model, loader, loader, sgd(model), num_epochs=5, device=CPU, callbacks=Callbacks(on_epoch=stop))
    assert loader.epochs == [0]


def test_waiting_and_computing_are_told_apart(monkeypatch):
    """A clock of our own: each batch takes 3 s to come, each step 1 s, the end of the loader 0.5 s."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    class Slow(FakeLoader):
        def __iter__(self):
            for batch in super().__iter__():
                clock.now += 3
                yield batch
            clock.now += 0.5

    class SlowHead(TemporalAverageHead):
        def forward(self, features):
            clock.now += 1
            return super().forward(features)

    model = Recognizer(nn.Identity(), SlowHead(2, 1, dropout=0), AsFloat())
    loader = Slow(batch_of((1, 0), (1, 0)), batch_of((1, 0), (1, 0)), batch_of((1, 0), (1, 0)))
    seen = []
    train = train_one_epoch(model, loader, sgd(model), device=CPU, callbacks=Callbacks(on_batch=seen.append))
    assert (train.data_seconds, train.compute_seconds) == (3 * 3 + 0.5, 3 * 1)
    val = evaluate(model, loader, device=CPU, on_batch=seen.append)
    assert (val.data_seconds, val.compute_seconds) == (3 * 3 + 0.5, 3 * 1)
    assert [(p.kind, p.batch, p.num_batches) for p in seen] == [
        ("train", 1, 3), ("train", 2, 3), ("train", 3, 3), ("val", 1, 3), ("val", 2, 3), ("val", 3, 3)]
    assert [p.videos_per_second for p in seen] == [2 / 4] * 6
    assert [p.seconds_left for p in seen] == [8, 4, 0] * 2
    assert seen[2].loss == pytest.approx(train.loss)
    assert seen[5].loss == pytest.approx(val.loss)
    assert [p.top1 for p in seen[3:]] == [1, 1, 1]


# ---- devices and optimizers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["train", "evaluate"])
def test_defect_8_the_model_moves_to_its_device(use):
    class Spy(Recognizer):
        moved: list[torch.device] = []

        def to(self, device):
            self.moved.append(device)
            return super().to(device)

    model = Spy(nn.Identity(), TemporalAverageHead(2, 1), AsFloat())
    loader = FakeLoader(batch_of((1, 0)))
    if use == "train":
        train_one_epoch(model, loader, sgd(model), device=CPU)
    else:
        evaluate(model, loader, device=CPU)
    assert model.moved == [CPU]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_everything_moves_there():
    cuda = torch.device("cuda")
    model, videos = create_model("conv2d", 2), random_videos(4)
    on_cpu = evaluate(model, loader_of(videos, 2), device=CPU)
    on_cuda = evaluate(model, loader_of(videos, 2), device=cuda)
    assert on_cuda.scores == pytest.approx(on_cpu.scores, abs=1e-3)
    updater = Updater(create_optimizer("sgd", model, lr=0.1))
    history = fit(model, loader_of(videos, 2), loader_of(videos, 2), updater, num_epochs=2, device=cuda)
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    assert history[1].train.loss < history[0].train.loss


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sgd", torch.optim.SGD, {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01}),
        ("adam", torch.optim.Adam, {"lr": 0.3, "weight_decay": 0.01}),
        ("adamw", torch.optim.AdamW, {"lr": 0.3, "weight_decay": 0.01}),
    ],
)
def test_optimizers(name, kind, settings):
    model = create_model("conv2d", 2)
    model.backbone.conv1.requires_grad_(False)
    optimizer = create_optimizer(name, model, lr=0.3, weight_decay=0.01)
    assert type(optimizer) is kind
    for group in optimizer.param_groups:  # norms and biases have no weight decay, see test_finetune
        is_matrix = group["params"][0].ndim > 1
        assert {key: group[key] for key in settings} == settings | ({} if is_matrix else {"weight_decay": 0.0})
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 10 - 4  # all but the frozen ones


def test_an_unknown_optimizer():
    with pytest.raises(ValueError, match="optimizer 'lamb' is not known; it must be sgd, adam or adamw"):
        create_optimizer("lamb", tiny_model(), lr=0.1)
