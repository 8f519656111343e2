"""Accuracies and the confusion matrix, on numbers that can be counted by hand."""

import numpy as np
import pytest

from tinyaction.results.metrics import class_scores, confusion_matrix, mean_class_accuracy, top_k_accuracy

SCORES = [  # ranks of the classes, best first
    [0.7, 0.2, 0.1],  # 0 1 2
    [0.1, 0.3, 0.6],  # 2 1 0
    [0.2, 0.5, 0.3],  # 1 2 0
    [0.4, 0.5, 0.1],  # 1 0 2
]


@pytest.mark.parametrize("labels, expected", [
    ([0, 2, 1, 1], [1.0, 1.0, 1.0]),
    ([1, 1, 2, 0], [0.0, 1.0, 1.0]),
    ([2, 0, 0, 2], [0.0, 0.0, 1.0]),
    ([0, 1, 0, 1], [0.5, 0.75, 1.0]),
])
def test_top_k_accuracy(labels, expected):
    assert top_k_accuracy(SCORES, labels, topk=(1, 2, 3)) == expected


def test_mean_class_accuracy_weighs_classes_not_videos():
    # Class 0: 3 of 3 right; class 1: 0 of 1. Class 2 does not occur and does not count.
    scores = [[0.8, 0.1, 0.1]] * 4
    assert mean_class_accuracy(scores, [0, 0, 0, 1]) == (3 / 3 + 0 / 1) / 2
    assert top_k_accuracy(scores, [0, 0, 0, 1], (1,)) == [3 / 4]


@pytest.mark.parametrize("normalize, expected", [
    (None, [[1, 2, 0], [0, 1, 0], [0, 0, 0]]),
    ("true", [[1 / 3, 2 / 3, 0], [0, 1, 0], [0, 0, 0]]),  # a row without videos is zero
    ("pred", [[1, 2 / 3, 0], [0, 1 / 3, 0], [0, 0, 0]]),
    ("all", [[1 / 4, 2 / 4, 0], [0, 1 / 4, 0], [0, 0, 0]]),
])
def test_confusion_matrix_rows_are_the_true_class(normalize, expected):
    matrix = confusion_matrix([0, 1, 1, 1], [0, 0, 0, 1], num_classes=3, normalize=normalize)
    assert np.array_equal(matrix, expected)
    assert matrix.dtype == (np.int64 if normalize is None else np.float64)


def test_confusion_matrix_without_num_classes_is_as_large_as_the_highest_class():
    assert confusion_matrix([0, 2], [0, 1]).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_defect_4_nothing_is_remembered_between_calls():
    # The guide prints 0, 0.5, 0.667 here.
    accuracies = [top_k_accuracy([[0.9, 0.1]], [label], (1,))[0] for label in (1, 0, 0)]
    assert accuracies == [0.0, 1.0, 1.0]


def test_defect_4_ties_go_to_the_lowest_class_in_every_metric():
    scores = np.full((6, 3), 1 / 3)
    labels = [0, 0, 0, 1, 1, 2]
    assert top_k_accuracy(scores, labels, (1, 2, 3)) == [3 / 6, 5 / 6, 1.0]
    assert mean_class_accuracy(scores, labels) == (3 / 3 + 0 / 2 + 0 / 1) / 3


def test_the_metrics_agree_about_what_is_predicted():
    rng = np.random.RandomState(0)
    scores = rng.randint(0, 3, (200, 6)) / 2  # full of ties
    labels = rng.randint(0, 6, 200)
    matrix = confusion_matrix(scores.argmax(axis=1), labels, num_classes=6)
    assert top_k_accuracy(scores, labels, (1,)) == [np.trace(matrix) / 200]
    assert mean_class_accuracy(scores, labels) == np.mean(np.diag(matrix) / matrix.sum(axis=1))


@pytest.mark.parametrize("metric", [top_k_accuracy, mean_class_accuracy])
@pytest.mark.parametrize("scores, labels, rule", [
    ([[0.5, 0.5]], [2], "label 2 is out of range; there are 2 classes"),
    ([[0.5, 0.5]], [-1], "label -1 is out of range; there are 2 classes"),
    ([0.5, 0.5], [0, 1], r"scores must be \(N, K\) and labels \(N,\); they are \(2,\) and \(2,\)"),
    ([[0.5, 0.5]], [0, 1], r"they are \(1, 2\) and \(2,\)"),
    (np.zeros((0, 2)), [], "no videos: an accuracy needs at least one"),
])
def test_wrong_scores_and_labels_are_named(metric, scores, labels, rule):
    with pytest.raises(ValueError, match=rule):
        metric(scores, labels)


@pytest.mark.parametrize("predicted, labels, options, rule", [
    ([3], [0], {"num_classes": 3}, "class 3 is out of range; there are 3 classes"),
    ([0], [-1], {}, "class -1 is out of range"),
    ([0, 1], [0], {}, r"predicted \(2,\) and labels \(1,\) must be one list of the same length"),
    ([0], [0], {"normalize": "rows"}, "normalize is 'rows'; it must be one of 'true', 'pred', 'all' or None"),
])
def test_a_wrong_confusion_matrix_is_named(predicted, labels, options, rule):
    with pytest.raises(ValueError, match=rule):
        confusion_matrix(predicted, labels, **options)


@pytest.mark.parametrize("accuracy", [top_k_accuracy, mean_class_accuracy])
def test_a_score_that_is_nan_is_no_accuracy(accuracy):
    """A row of NaN counted as right in one figure and as wrong in another."""
    with pytest.raises(ValueError, match="a score of video 1 is NaN"):
        accuracy([[0.1, 0.9], [np.nan, np.nan]], [1, 0])


def test_precision_recall_and_f1_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(5)
    labels, predicted = rng.integers(0, 4, (2, 200))
    ours = class_scores(confusion_matrix(predicted, labels, num_classes=4))
    theirs = sklearn.precision_recall_fscore_support(labels, predicted)
    np.testing.assert_allclose(ours, np.stack(theirs, axis=1), rtol=1e-12)


def test_a_class_that_is_never_predicted_has_no_precision():
    assert class_scores(np.array([[2, 0, 0], [1, 0, 0], [0, 0, 0]])) == [
        (2 / 3, 1.0, 4 / 5, 2), (pytest.approx(np.nan, nan_ok=True), 0.0, 0.0, 1),
        (pytest.approx(np.nan, nan_ok=True),) * 3 + (0,)]
