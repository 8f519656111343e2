"""Confident learning against a table that was worked out by hand."""

import numpy as np
import pytest

from tinyaction.audit.labels import class_thresholds, doubtful_labels, doubtful_sets

PROBABILITIES = np.array([
    [0.9, 0.1, 0.0],
    [0.7, 0.2, 0.1],
    [0.2, 0.7, 0.1],   # labelled 0, as likely 1 as those labelled 1
    [0.1, 0.6, 0.3],
    [0.0, 0.8, 0.2],
    [0.3, 0.3, 0.4],   # labelled 2
    [0.45, 0.1, 0.45],  # labelled 2: undecided
])
LABELS = np.array([0, 0, 0, 1, 1, 2, 2])


def test_thresholds_are_the_mean_confidence_of_a_class():
    assert class_thresholds(PROBABILITIES, LABELS) == pytest.approx([0.6, 0.7, 0.425])
    assert class_thresholds(PROBABILITIES[:5], LABELS[:5])[2] == np.inf


def test_the_most_doubtful_label_is_first_and_only_it_is_confident():
    first, *rest = doubtful_labels(PROBABILITIES, LABELS)
    assert (first.index, first.label, first.looks_like, first.is_confident) == (2, 0, 1, True)
    assert first.margin == pytest.approx(0.5)
    assert not any(doubt.is_confident for doubt in rest)
    assert [doubt.index for doubt in rest] == [6, 5, 3, 1, 4, 0]  # by how far the other class is ahead
    assert [doubt.margin for doubt in rest] == pytest.approx([0, -0.1, -0.3, -0.5, -0.6, -0.8])


def test_it_finds_what_cleanlab_finds():
    filters = pytest.importorskip("cleanlab.filter", reason="cleanlab is not installed")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    logits = rng.normal(size=(200, 3))
    logits[np.arange(200), labels] += 2.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    given = np.where(np.arange(200) < 10, (labels + 1) % 3, labels)
    ours = [doubt.index for doubt in doubtful_labels(probabilities, given)[:20]]
    theirs = filters.find_label_issues(given, probabilities, return_indices_ranked_by="self_confidence")[:20]
    assert len(set(ours) & set(range(10))) >= len(set(theirs.tolist()) & set(range(10)))


# ---- several labels a clip -----------------------------------------------------------------------------------------


def test_each_class_of_several_is_doubted_for_itself():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.95, 0.45]])
    labels = np.array([[1, 0], [1, 0], [0, 1], [1, 1], [0, 0]], np.uint8)
    # class 0: given is 0.2 likely for clip 3, and "not" 0.8, as for clip 2 alone (0.9) and clip 4 (0.05): mean 0.475
    found = doubtful_sets(probabilities, labels)
    assert [(one.index, one.label, one.looks_like, one.is_confident) for one in found] == [
        (4, -1, 0, True), (3, 0, -1, True)]
    assert [one.margin for one in found] == pytest.approx([0.95 - 0.05, 0.8 - 0.2])


@pytest.mark.parametrize("seed", range(4))
def test_doubts_of_several_labels_are_those_of_cleanlab(seed):
    filters = pytest.importorskip("cleanlab.multilabel_classification.filter", reason="cleanlab is not installed")
    rng = np.random.default_rng(seed)
    true = rng.random((150, 3)) < [0.5, 0.3, 0.15]
    probabilities = 1 / (1 + np.exp(-(4 * (true - 0.5) + rng.normal(size=(150, 3)))))
    given = (true ^ (rng.random((150, 3)) < 0.06)).astype(np.uint8)
    doubts = doubtful_sets(probabilities, given)
    for name, ours in (("predicted_neq_given", doubts),
                       ("confident_learning", [doubt for doubt in doubts if doubt.is_confident])):
        theirs = filters.find_multilabel_issues_per_class(
            [np.flatnonzero(row).tolist() for row in given], probabilities, filter_by=name, n_jobs=1)  # (N, K) bool
        assert {(one.index, max(one.label, one.looks_like)) for one in ours} == set(
            zip(*np.nonzero(theirs), strict=True))
        assert theirs.sum() > 10
