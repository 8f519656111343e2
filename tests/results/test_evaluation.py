"""Evaluation, against numbers that can be worked out by hand: the network of ``loops``, of one number per video."""


import math
import random

import numpy as np
import pytest
import torch
from loops import CPU, FakeLoader, batch_of, loader_of, random_videos, sgd, tiny_model

from tinyaction.models import Recognizer, create_model
from tinyaction.results.evaluation import Evaluation, evaluate
from tinyaction.training.loop import train_one_epoch


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


def test_scores_that_are_nan_name_the_video():
    with pytest.raises(ValueError, match=r"x=nan\.mp4: the network's scores are NaN; its weights are not finite"):
        evaluate(sign_model(), FakeLoader(batch_of((1, 0), (math.nan, 0))), device=CPU)


def test_without_a_device_the_model_stays_where_it_is():
    assert evaluate(sign_model(), FakeLoader(batch_of((1, 0)))).top1 == 1
