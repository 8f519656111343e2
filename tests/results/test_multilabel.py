"""Measures of several labels: by hand, against scikit-learn, and by their properties."""

import math

import numpy as np
import pytest

from tinyaction.results.multilabel import (
    average_precision,
    best_thresholds,
    label_set_scores,
    mean_average_precision,
    mean_f1,
)


def drawn(num_videos=60, num_classes=5, seed=0, decimals=1):
    """Scores with many ties, and labels that go with them a little."""
    rng = np.random.default_rng(seed)
    labels = rng.random((num_videos, num_classes)) < [0.02, 0.1, 0.3, 0.6, 0.9][:num_classes]
    labels[0] = True                                                   # each class has a positive
    return np.round(np.clip(rng.random(labels.shape) * 0.7 + 0.3 * labels, 0, 1), decimals), labels


def test_average_precision_by_hand():
    scores, labels = np.array([[0.9], [0.8], [0.7], [0.6]]), np.array([[1], [0], [1], [0]])
    assert average_precision(scores, labels)[0] == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_videos_of_one_score_count_together_whatever_their_order():
    scores, labels = np.array([[0.5], [0.5], [0.5], [0.1]]), np.array([[1], [0], [0], [1]])
    both = [average_precision(scores[order], labels[order])[0] for order in ([0, 1, 2, 3], [2, 1, 3, 0])]
    assert both == pytest.approx([(1 / 3 + 2 / 4) / 2] * 2)


@pytest.mark.parametrize("decimals", [1, 2, 12])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_scikit_learn(seed, decimals):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the extra 'test'")
    scores, labels = drawn(seed=seed, decimals=decimals)
    theirs = metrics.average_precision_score(labels, scores, average=None)
    assert average_precision(scores, labels) == pytest.approx(theirs, abs=1e-9)
    assert mean_average_precision(scores, labels) == pytest.approx(
        metrics.average_precision_score(labels, scores), abs=1e-9)


def test_precision_recall_and_f1_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the extra 'test'")
    scores, labels = drawn()
    predicted = scores >= 0.5
    theirs = metrics.precision_recall_fscore_support(labels, predicted, zero_division=np.nan)
    assert np.array(label_set_scores(predicted, labels)).T == pytest.approx(np.array(theirs), nan_ok=True)
    assert mean_f1(predicted, labels) == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))


def test_a_class_without_positives_is_left_out_of_the_means():
    scores, labels = drawn()
    labels[:, 2] = False
    found = average_precision(scores, labels)
    assert math.isnan(found[2])
    assert mean_average_precision(scores, labels) == pytest.approx(np.mean(found[[0, 1, 3, 4]]))
    others = [0, 1, 3, 4]
    assert mean_f1(scores >= 0.5, labels) == pytest.approx(mean_f1(scores[:, others] >= 0.5, labels[:, others]))
    assert best_thresholds(scores, labels)[2] == 0.5
    assert math.isnan(mean_average_precision(scores, np.zeros_like(labels)))


def test_a_threshold_lies_midway_between_two_scores():
    assert best_thresholds([[0.9], [0.8], [0.3]], [[1], [1], [0]])[0] == pytest.approx(0.55)


def test_of_equally_good_thresholds_the_highest_is_taken():
    # 0.9 alone: F1 2*1/(1+2) = 2/3; down to 0.2: 2*2/(4+2) = 2/3
    assert best_thresholds([[0.9], [0.5], [0.4], [0.2]], [[1], [0], [0], [1]])[0] == pytest.approx((0.9 + 0.5) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_threshold_has_a_higher_f1(seed):
    scores, labels = drawn(seed=seed)
    chosen = [row[2] for row in label_set_scores(scores >= best_thresholds(scores, labels), labels)]
    for threshold in np.linspace(0, 1, 101):
        others = [row[2] for row in label_set_scores(scores >= threshold, labels)]
        assert all(own >= other - 1e-12 for own, other in zip(chosen, others, strict=True))


@pytest.mark.parametrize(("scores", "labels", "message"), [
    ([[0.5, 0.5]], [[1]], r"must both be \(N, K\)"),
    (np.zeros((0, 2)), np.zeros((0, 2)), "no videos"),
    ([[math.nan]], [[1]], "not finite"),
])
def test_what_cannot_be_measured_is_said(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        average_precision(scores, labels)
