"""The loop, against numbers that can be worked out by hand.

The network is one number x per video, two weights and two biases, all zero at first: logits = w x + b. With the
first video x = 1 of class 0 both probabilities are 1/2, so the loss is log 2, its gradient by the logits
(-1/2, 1/2), and one step of size 1 leads to w = b = (1/2, -1/2).
"""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loops import CPU, AsFloat, FakeLoader, batch_of, sgd, tiny_model, weights_of
from torch import nn

import tinyaction.training.loop
from tinyaction.data.transforms import DataSample
from tinyaction.models import Recognizer, TemporalAverageHead, create_model
from tinyaction.training.loop import (
    Evaluation,
    TrainState,
    choose_device,
    create_optimizer,
    evaluate,
    fit,
    train_one_epoch,
)

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
    optimizer = sgd(model)
    asked, used = [], []

    def lr_at(step):
        asked.append(step)
        return 0.1 * step

    optimizer.register_step_pre_hook(lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"]))
    train_one_epoch(model, FakeLoader(batch_of((1, 0)), batch_of((2, 1))), optimizer, device=CPU, lr_at=lr_at,
                    state=TrainState(step=7))
    assert asked == [7, 8]
    assert used == pytest.approx([0.7, 0.8])


@pytest.mark.parametrize(("limit", "norm"), [(0.0, 1.0), (10.0, 1.0), (0.25, 0.25)])
def test_clipping(limit, norm):
    """The first gradient is (-1/2, 1/2, -1/2, 1/2), of norm 1."""
    model = tiny_model()
    train_one_epoch(model, FakeLoader(batch_of((1, 0))), sgd(model), device=CPU, clip_grad_norm=limit)
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


# ---- evaluation ----------------------------------------------------------------------------------------------------


def sign_model(**arguments) -> Recognizer:
    """Class 0 for x > 0, class 1 for x < 0: logits (x, -x)."""
    model = tiny_model(**arguments)
    model.cls_head.fc.weight.data = torch.tensor([[1.0], [-1.0]])
    return model


def test_evaluation_by_hand():
    loader = FakeLoader(batch_of((1, 0), (-1, 1)), batch_of((-1, 0)))
    result = evaluate(sign_model(), loader, device=CPU)
    p = 1 / (1 + math.exp(-2))
    assert result.scores == pytest.approx(np.array([[p, 1 - p], [1 - p, p], [1 - p, p]]))
    assert result.labels.tolist() == [0, 1, 0]
    assert result.filenames == ["x=1.mp4", "x=-1.mp4", "x=-1.mp4"]
    assert result.loss == pytest.approx(-(2 * math.log(p) + math.log(1 - p)) / 3)
    assert result.top1 == pytest.approx(2 / 3)
    assert result.mean_class == pytest.approx((1 / 2 + 1) / 2)
    assert result.confusion.tolist() == [[1, 1], [0, 1]]
    assert result.top5 is None


@pytest.mark.parametrize(("average_clips", "label"), [("prob", 1), ("score", 0), (None, 0)])
def test_views_are_averaged_as_the_head_says(average_clips, label):
    """Views 4, -1, -1: two of three say class 1, but the mean of x is above 0."""
    result = evaluate(sign_model(average_clips=average_clips), FakeLoader(batch_of(([4, -1, -1], label))), device=CPU)
    assert result.scores.shape == (1, 2)
    assert result.top1 == 1


def test_defect_4_each_evaluation_starts_anew():
    """The guide prints 0, 0.5, 0.667 for true accuracies 0, 1, 1: its metric is never cleared."""
    model = sign_model()
    right, wrong = FakeLoader(batch_of((1, 0))), FakeLoader(batch_of((1, 1)))
    assert [evaluate(model, loader, device=CPU).top1 for loader in (wrong, right, right)] == [0, 1, 1]


def test_defect_4_top_5_of_five_classes_is_not_given():
    """It would be 1.0 where every prediction is wrong."""
    scores, labels = np.eye(6)[:, [1, 2, 3, 4, 5, 0]], np.arange(6)
    assert Evaluation(0.0, scores[:5, :5], labels[:5], [], 0, 0).top5 is None
    assert Evaluation(0.0, scores, labels, [], 0, 0).top5 == 5 / 6  # class 5 comes last among equal scores


def test_defect_8_the_metric_reads_the_scores_that_the_head_writes():
    batch = batch_of((1, 0))
    result = evaluate(sign_model(), FakeLoader(batch), device=CPU)
    assert batch["data_samples"][0].pred_score.tolist() == pytest.approx(result.scores[0].tolist())
    assert batch["data_samples"][0].pred_label.item() == 0


def random_videos(num_videos: int) -> list[tuple[torch.Tensor, int]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randint(0, 256, (2, 3, 2, 16, 16), generator=generator, dtype=torch.uint8), i % 2)
            for i in range(num_videos)]


def loader_of(videos: list[tuple[torch.Tensor, int]], batch_size: int) -> FakeLoader:
    batches = [videos[i : i + batch_size] for i in range(0, len(videos), batch_size)]
    return FakeLoader(*({"inputs": torch.stack([pixels for pixels, _ in batch]),
                         "data_samples": [DataSample(torch.tensor([label]), (16, 16), 2, 2) for _, label in batch]}
                        for batch in batches))


def trained_conv2d() -> Recognizer:
    """With dropout and norms whose running numbers are not those of a batch, so that a wrong mode shows."""
    torch.manual_seed(0)
    model = create_model("conv2d", 2)
    train_one_epoch(model, loader_of(random_videos(4), 2), sgd(model, lr=0.1), device=CPU)
    return model


def test_evaluation_does_not_depend_on_the_batch_or_on_the_mode_before():
    model, videos = trained_conv2d(), random_videos(7)
    expected = evaluate(model.eval(), loader_of(videos, 7), device=CPU)
    for batch_size in (1, 3):
        result = evaluate(model.train(), loader_of(videos, batch_size), device=CPU)
        assert result.scores == pytest.approx(expected.scores, abs=1e-6)
        assert result.loss == pytest.approx(expected.loss, abs=1e-6)
        assert result.top1 == expected.top1


def test_evaluation_changes_no_weight_and_draws_nothing():
    model = trained_conv2d()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    evaluate(model, loader_of(random_videos(4), 2), device=CPU)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]


@pytest.mark.parametrize("training", [True, False])
def test_each_part_of_the_model_is_left_in_its_mode(training):
    model = create_model("conv2d", 2).train(training)
    model.backbone.conv1.eval()  # a frozen norm
    modes = [part.training for part in model.modules()]
    evaluate(model, loader_of(random_videos(2), 2), device=CPU)
    assert [part.training for part in model.modules()] == modes


def test_the_mode_is_put_back_where_the_loader_fails():
    class Failing(FakeLoader):
        def __iter__(self):
            yield batch_of((1, 0))
            raise ValueError("b.mp4: broken")

    model = sign_model().train()
    with pytest.raises(ValueError, match="b.mp4: broken"):
        evaluate(model, Failing(), device=CPU)
    assert model.training


def test_a_model_can_be_trained_after_an_evaluation():
    """Not so where the evaluation moved its weights within inference mode."""
    model = create_model("conv2d", 2)
    evaluate(model, loader_of(random_videos(2), 2), device=CPU)
    train_one_epoch(model, loader_of(random_videos(2), 2), sgd(model), device=CPU)


# ---- all of it -----------------------------------------------------------------------------------------------------


def test_fit_by_hand():
    """Two epochs of two steps: rates 1, 1/2, 1/3, 1/4; an evaluation and a record after each."""
    model = tiny_model()
    train_loader = FakeLoader(batch_of((1, 0)), batch_of((2, 1)))
    val_loader = FakeLoader(batch_of((1, 0)))
    seen = []
    history = fit(model, train_loader, val_loader, sgd(model), num_epochs=2, device=CPU,
                  lr_at=lambda step: 1 / (step + 1), on_epoch=seen.append)
    assert history == seen
    assert [record.epoch for record in history] == [0, 1]
    assert [record.lr for record in history] == [1 / 2, 1 / 4]
    assert train_loader.epochs == [0, 1]

    by_hand = tiny_model()
    optimizer = sgd(by_hand)
    for epoch in (0, 1):
        train = train_one_epoch(by_hand, train_loader, optimizer, device=CPU, lr_at=lambda step: 1 / (step + 1),
                                state=TrainState(step=2 * epoch))
        assert history[epoch].train.loss == train.loss
        assert history[epoch].val.loss == evaluate(by_hand, val_loader, device=CPU).loss
    assert weights_of(model) == weights_of(by_hand)


def test_on_epoch_can_stop_the_run():
    def stop(record):
        raise KeyboardInterrupt

    model = tiny_model()
    loader = FakeLoader(batch_of((1, 0)))
    with pytest.raises(KeyboardInterrupt):
        fit(model, loader, loader, sgd(model), num_epochs=5, device=CPU, on_epoch=stop)
    assert loader.epochs == [0]


def test_waiting_and_computing_are_told_apart(monkeypatch):
    """A clock of our own: each batch takes 3 s to come, each step 1 s, the end of the loader 0.5 s."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(tinyaction.training.loop, "time", SimpleNamespace(perf_counter=lambda: clock.now))

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
    train = train_one_epoch(model, loader, sgd(model), device=CPU, on_batch=seen.append)
    assert (train.seconds_waiting, train.seconds_computing) == (3 * 3 + 0.5, 3 * 1)
    val = evaluate(model, loader, device=CPU, on_batch=seen.append)
    assert (val.seconds_waiting, val.seconds_computing) == (3 * 3 + 0.5, 3 * 1)
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
    optimizer = create_optimizer("sgd", model, lr=0.1)
    history = fit(model, loader_of(videos, 2), loader_of(videos, 2), optimizer, num_epochs=2, device=cuda)
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    assert history[1].train.loss < history[0].train.loss


@pytest.mark.parametrize(
    ("cuda", "mps", "name"), [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_is_the_best_device_there_is(monkeypatch, cuda, mps, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)  # the trial on the device
    assert choose_device("auto").type == name


@pytest.mark.parametrize("name", ["gpu", "cuda:97", ""])
def test_a_device_that_is_not_there(name):
    with pytest.raises(ValueError, match=rf"device '{name}' is not usable here \(.*\); try auto or cpu") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


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
