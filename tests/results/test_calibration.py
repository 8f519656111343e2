"""Calibration, AUROC and thresholds: literal cases, and equality with independent packages."""

import numpy as np
import pytest
import torch

from tinyaction.results.calibration import (
    PRIOR,
    Bin,
    auroc,
    calibration_error,
    expected_calibration_error,
    fit_temperature,
    lowest_rate,
    reliability_bins,
    separating_threshold,
    threshold_at_rate,
    with_temperature,
)
from tinyaction.results.plots import reliability_chart


def random_scores(num_videos: int, num_classes: int, seed: int, *, sharpness: float = 2.0):
    rng = np.random.RandomState(seed)
    logits = sharpness * rng.randn(num_videos, num_classes)
    labels = np.array([rng.choice(num_classes, p=p) for p in softmax(logits / 2)])
    return softmax(logits), labels


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_bins_and_their_error():
    """Two videos at 0.9, of which one is right; two at 0.6, both right; one at exactly 1, wrong."""
    bins = reliability_bins([0.9, 0.9, 0.6, 0.6, 1.0], [True, False, True, True, False])
    assert bins == [Bin(pytest.approx(0.6), 1.0, 2), Bin(pytest.approx(0.9), 0.5, 2), Bin(1.0, 0.0, 1)]
    assert calibration_error(bins) == pytest.approx((2 * 0.4 + 2 * 0.4 + 1 * 1.0) / 5)
    assert expected_calibration_error([[0.9, 0.1], [0.1, 0.9], [0.4, 0.6], [0.6, 0.4], [1, 0]], [0, 0, 1, 0, 1]
                                      ) == pytest.approx(0.52)
    assert len(reliability_bins(np.linspace(0, 1, 16), np.ones(16))) == 16      # each edge begins a bin


@pytest.mark.parametrize(("num_videos", "num_classes"), [(7, 2), (500, 3), (2000, 40)])
def test_the_error_is_that_of_torchmetrics(num_videos, num_classes):
    classification = pytest.importorskip("torchmetrics.functional.classification", reason="compares with torchmetrics")
    torch = pytest.importorskip("torch")
    scores, labels = random_scores(num_videos, num_classes, seed=num_classes)
    expected = classification.multiclass_calibration_error(
        torch.from_numpy(scores), torch.from_numpy(labels), num_classes=num_classes, n_bins=15, norm="l1")
    assert expected_calibration_error(scores, labels) == pytest.approx(float(expected), abs=1e-6)


def test_auroc_by_hand():
    assert auroc([0, 0, 1, 1], [1, 2, 3, 4]) == 1
    assert auroc([1, 1, 0, 0], [1, 2, 3, 4]) == 0
    assert auroc([0, 1, 0, 1], [1, 1, 1, 1]) == 0.5
    assert auroc([0, 1, 1], [2, 1, 3]) == 0.5
    assert auroc([0, 1, 0, 1], [1, 2, 2, 3]) == pytest.approx(3.5 / 4)
    with pytest.raises(ValueError, match="2 positives and 0 negatives"):
        auroc([1, 1], [1, 2])


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_that_of_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics", reason="compares with scikit-learn")
    rng = np.random.RandomState(seed)
    is_positive, scores = rng.rand(200) < 0.3, rng.randint(0, 30, 200)          # many are equal
    assert auroc(is_positive, scores) == pytest.approx(metrics.roc_auc_score(is_positive, scores), abs=1e-12)


def test_a_temperature_divides_the_logits():
    logits = np.random.RandomState(0).randn(6, 4)
    assert with_temperature(softmax(logits), 2.5) == pytest.approx(softmax(logits / 2.5))
    assert with_temperature(softmax(logits), 1.0) == pytest.approx(softmax(logits))


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.0, 3.0])
def test_the_temperature_with_which_scores_were_spoilt_is_found(factor):
    """Labels are drawn by the scores at temperature 2."""
    scores, labels = random_scores(4000, 3, seed=1)
    spoilt = with_temperature(scores, 1 / factor)
    found = fit_temperature(spoilt, labels)
    assert found == pytest.approx(2 * factor, rel=0.12)
    before, after = (expected_calibration_error(one, labels) for one in (spoilt, with_temperature(spoilt, found)))
    assert after < 0.03 and after <= before


@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_is_that_which_l_bfgs_finds(seed):
    """Of the logits, with the same prior around 0."""
    scores, labels = random_scores(60, 4, seed=seed)
    logits, targets = torch.from_numpy(np.log(scores)), torch.from_numpy(labels)
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits / log_temperature.exp(), targets, reduction="sum")
        loss = loss + log_temperature**2 / PRIOR**2 / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(scores, labels) == pytest.approx(float(log_temperature.detach().exp()), rel=1e-4)


def test_a_few_videos_without_a_mistake_do_not_make_every_score_one():
    scores, labels = [[0.7, 0.3], [0.8, 0.2], [0.2, 0.8]], [0, 0, 1]
    found = fit_temperature(scores, labels)
    assert 0.5 < found < 1.2
    assert with_temperature(scores, found).max() < 0.95


@pytest.mark.parametrize(("num_clips", "rate", "expected"), [
    (9, 0.2, 8), (9, 0.1, 9), (9, 0.05, 9), (99, 0.05, 95), (19, 0.05, 19), (1, 0.5, 1), (4, 0.99, 1)])
def test_the_threshold_of_a_rate(num_clips, rate, expected):
    assert threshold_at_rate(np.random.RandomState(0).permutation(num_clips) + 1.0, rate) == expected


def test_the_rate_is_kept_on_other_clips():
    rng, rates = np.random.RandomState(0), []
    for _ in range(2000):
        held_out, others = rng.randn(19), rng.randn(50)
        rates.append((others > threshold_at_rate(held_out, 0.1)).mean())
    assert np.mean(rates) == pytest.approx(0.1, abs=0.01)
    assert lowest_rate(19) == 0.05


def test_a_threshold_that_separates():
    assert separating_threshold([1, 2, 3], [5, 6]) == 4
    assert separating_threshold([1, 2, 9], [5, 6]) == 3.5                       # one of three is lost, no background
    assert separating_threshold([1, 2], [1, 2]) in (1.5, 2)


def test_the_diagram_has_a_dot_a_bin_on_the_diagonal_where_scores_are_true():
    svg = reliability_chart([Bin(0.5, 0.5, 4), Bin(1.0, 1.0, 1)])
    assert svg.count("<circle") == 2 and "4 videos: score 0.500, accuracy 0.500" in svg
    assert 'cx="196.0" cy="99.0" r="10.0"' in svg and 'cx="348.0" cy="12.0"' in svg
