"""The probe: equal to scikit-learn, honest folds, and a choice that follows the data."""

import numpy as np
import pytest
import torch

from tinyaction.models.pooling import Pooling
from tinyaction.training.probe import (
    STRENGTHS,
    ProbeData,
    assign_folds,
    balanced_weights,
    choose_and_fit,
    cross_validate,
    fit_logistic,
    poolings_of,
    video_probabilities,
)


def blobs(num: int, num_features: int, num_classes: int, *, seed: int = 0, spread: float = 1.0):
    """Rows around a centre of their class, features of very different sizes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % num_classes
    x = rng.normal(size=(num_classes, num_features))[labels] + spread * rng.normal(size=(num, num_features))
    return torch.tensor(x * 10.0 ** rng.integers(-2, 3, num_features) + 5), torch.tensor(labels)


@pytest.mark.parametrize(("num", "num_features"), [(40, 6), (30, 200)])
@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("strength", [0.1, 10.0])
@pytest.mark.parametrize("is_balanced", [False, True])
def test_probabilities_are_those_of_scikit_learn(num, num_features, num_classes, strength, is_balanced):
    """Fewer rows than features as well, where the fit works in the space of the rows."""
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn comes with the extra 'test'")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x, labels = blobs(num + 20, num_features, num_classes, spread=2.0)
    new, x, labels = x[:20], x[20:], labels[20:]
    labels[:7] = 0                                                     # classes of different sizes
    scaler = preprocessing.StandardScaler().fit(x.numpy())
    theirs = linear_model.LogisticRegression(C=1 / strength, tol=1e-9, max_iter=10_000,
                                             class_weight="balanced" if is_balanced else None)
    theirs.fit(scaler.transform(x.numpy()), labels.numpy())
    weights = balanced_weights(labels, num_classes) if is_balanced else torch.ones(len(labels))
    ours = fit_logistic(x, labels, num_classes, strength=strength, sample_weights=weights)
    expected = theirs.predict_proba(scaler.transform(new.numpy()))
    np.testing.assert_allclose(ours.logits(new).softmax(dim=1).numpy(), expected, atol=1e-4)
    assert 0.01 < expected.std()                                       # they are not all alike


@pytest.mark.parametrize("num_features", [6, 200])
@pytest.mark.parametrize("strength", [0.1, 10.0])
@pytest.mark.parametrize("is_balanced", [False, True])
def test_of_several_labels_probabilities_are_those_of_a_regression_a_class(num_features, strength, is_balanced):
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn comes with the extra 'test'")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    x, kinds = blobs(60, num_features, 4, spread=2.0)
    sets = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]]).float()[kinds]  # some clips have none
    sets[25:30] = torch.tensor([0.0, 0])
    new, x, sets = x[:20], x[20:], sets[20:]
    scaler = preprocessing.StandardScaler().fit(x.numpy())
    weights = balanced_weights(sets, 2) if is_balanced else torch.ones(40)
    ours = fit_logistic(x, sets, 2, strength=strength, sample_weights=weights)
    for k in range(2):
        theirs = linear_model.LogisticRegression(C=1 / strength, tol=1e-9, max_iter=10_000)
        theirs.fit(scaler.transform(x.numpy()), sets[:, k].numpy(),
                   sample_weight=weights[:, k].numpy() if is_balanced else None)
        expected = theirs.predict_proba(scaler.transform(new.numpy()))[:, 1]
        np.testing.assert_allclose(ours.probabilities(new)[:, k].numpy(), expected, atol=1e-4)
        assert 0.01 < expected.std()


def test_a_feature_that_never_changes_counts_for_nothing():
    x, labels = blobs(20, 3, 2)
    x[:, 1] = 0.1
    linear = fit_logistic(x, labels, 2, strength=1.0, sample_weights=torch.ones(20))
    assert linear.weight[:, 1].tolist() == [0, 0] and linear.bias.isfinite().all()


def test_balanced_weights_by_hand():
    assert balanced_weights(torch.tensor([0, 0, 0, 1]), 2).tolist() == pytest.approx([4 / 6, 4 / 6, 4 / 6, 2])
    assert balanced_weights(torch.tensor([0, 2]), 3).tolist() == [1, 1]  # nobody is in class 1
    sets = torch.tensor([[1, 1], [0, 1], [0, 1], [0, 0]])
    assert balanced_weights(sets, 2).tolist() == [[3, pytest.approx(1 / 3)], *[[1, pytest.approx(1 / 3)]] * 2, [1, 1]]


def test_folds_of_sets_spread_each_label_and_the_clips_without_one():
    assert assign_folds([[0, 1], [0, 1], [1], []], num_folds=2) == [0, 1, 0, 1]
    sets = [[0] if index % 2 else [0, 1] for index in range(30)] + [[0, 2]] * 3 + [[]] * 6
    folds = assign_folds(sets, num_folds=3)
    counts = [[sum(label in one for one, of in zip(sets, folds, strict=True) if of == fold) for fold in range(3)]
              for label in range(3)]
    assert counts[1:] == [[5, 5, 5], [1, 1, 1]] and max(counts[0]) - min(counts[0]) <= 2
    assert sorted(folds[-6:]) == [0, 0, 1, 1, 2, 2]


def test_the_strength_of_sets_is_that_of_the_lowest_binary_loss():
    """Two labels that two features tell, among 30 that tell nothing."""
    rng = torch.Generator().manual_seed(0)
    sets = torch.randint(0, 2, (80, 2), generator=rng).float()
    features = torch.randn(80, 32, generator=rng)
    features[:, :2] = 3 * sets + 0.5 * features[:, :2]
    data = ProbeData(features.reshape(80, 1, 1, 32, 1, 1), sets, 2)
    probe = choose_and_fit(data, [Pooling()])
    assert probe.linear.is_multi_label and probe.candidates[0].accuracy > 0.8
    scores = video_probabilities(probe.linear, data.rows(probe.pooling))
    assert ((scores > 0.5) == sets.bool()).float().mean() > 0.95
    folds = assign_folds([row.nonzero()[:, 0].tolist() for row in sets], num_folds=5)
    losses = [loss for loss, _ in cross_validate(data, data.rows(Pooling()), folds)]
    assert losses.index(min(losses)) == STRENGTHS.index(probe.strength)
    half = cross_validate(data, torch.zeros(80, 1, 1, dtype=torch.float64), folds)[0][0]
    assert half == pytest.approx(np.log(2), abs=0.02)                  # of features that say nothing
    with pytest.raises(ValueError, match="all 80 clips have the same labels"):
        choose_and_fit(ProbeData(data.features, torch.ones(80, 2), 2), [Pooling()])


def test_folds_by_hand():
    assert assign_folds([0, 0, 0, 1, 1, 1], num_folds=3) == [0, 1, 2, 0, 1, 2]
    assert assign_folds([0, 0, 1, 1], ["a", "b", "a", "b"], num_folds=2) == [0, 1, 0, 1]


def test_folds_keep_groups_whole_and_classes_even():
    rng = np.random.default_rng(0)
    labels, groups = (np.arange(90) % 3).tolist(), rng.integers(0, 15, 90).tolist()
    folds = assign_folds(labels, groups, num_folds=5)
    assert folds == assign_folds(labels, groups, num_folds=5)
    for group in set(groups):
        assert len({fold for fold, other in zip(folds, groups, strict=True) if other == group}) == 1
    counts = np.zeros((5, 3))
    np.add.at(counts, (folds, labels), 1)
    assert counts.min() >= 3 and counts.max() <= 9                     # 6 each would be even


@pytest.mark.parametrize(("arguments", "message"), [
    (([0, 0, 1], None, 2), "a class has 1 clips, fewer than the 2 folds; take fewer folds or add clips"),
    (([0, 0, 1, 1], ["a", "b", "a", "a"], 2), "a class has 1 groups, fewer than the 2 folds"),
    (([0, 1], None, 1), "num_folds is 1; it must be at least 2"),
])
def test_folds_that_cannot_be(arguments, message):
    labels, groups, num_folds = arguments
    with pytest.raises(ValueError, match=f"^{message}"):
        assign_folds(labels, groups, num_folds=num_folds)


def ramps(num: int = 24, *, num_views: int = 2, seed: int = 0) -> ProbeData:
    """Clips whose features rise (class 0) or fall (class 1) over time, from random levels: only the order tells."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % 2
    time = torch.linspace(-1, 1, 6).reshape(1, 1, 6, 1, 1, 1)
    sign = (1 - 2 * labels).reshape(-1, 1, 1, 1, 1, 1)
    level, noise = (torch.randn(num, num_views, num_frames, 3, 1, 1, generator=rng) for num_frames in (1, 6))
    return ProbeData((5 + level + sign * time + 0.3 * noise).expand(-1, -1, -1, -1, 2, 2), labels, 2)


def test_auto_takes_the_pooling_that_sees_what_tells_the_classes_apart():
    probe = choose_and_fit(ramps(), poolings_of("auto"))
    assert probe.pooling.kind == "order" and probe.num_folds == 5
    new = ramps(seed=1)
    scores = video_probabilities(probe.linear, new.rows(probe.pooling))
    assert (scores.argmax(dim=1) == new.labels).double().mean() == 1
    only_mean = choose_and_fit(ramps(), poolings_of("mean"))
    assert only_mean.candidates[0].accuracy < 0.75
    assert [one.loss for one in probe.candidates] == sorted(one.loss for one in probe.candidates)


def test_the_choice_is_the_same_each_time():
    first, second = (choose_and_fit(ramps(), poolings_of("auto")) for _ in range(2))
    assert first.candidates == second.candidates
    assert torch.equal(first.linear.weight, second.linear.weight)


def test_labels_without_meaning_want_the_strongest_penalty():
    """A choice by the fit to the training clips would take the weakest."""
    rng = torch.Generator().manual_seed(0)
    data = ProbeData(torch.randn(120, 1, 2, 20, 1, 1, generator=rng), torch.arange(120) % 2, 2)
    assert choose_and_fit(data, [Pooling("mean")]).strength >= 1000


def test_views_of_a_clip_weigh_as_much_as_one():
    """A clip that is there as two equal views is that clip once."""
    data = ramps(num_views=1)
    twice = ProbeData(data.features.expand(-1, 2, -1, -1, -1, -1), data.labels, 2)
    one, two = (choose_and_fit(each, [Pooling("order")]) for each in (data, twice))
    torch.testing.assert_close(one.linear.weight, two.linear.weight, rtol=1e-4, atol=1e-6)


def test_groups_are_held_out_together():
    """Clips of a person are near copies and the labels are the persons' own: only whole groups tell how bad it is."""
    rng = torch.Generator().manual_seed(0)
    persons = torch.arange(40) // 4
    features = torch.randn(10, 20, generator=rng)[persons] + 0.01 * torch.randn(40, 20, generator=rng)
    data = ProbeData(features.reshape(40, 1, 1, 20, 1, 1), persons % 2, 2)
    rows = data.rows(Pooling("mean"))
    alone = cross_validate(data, rows, assign_folds(data.labels.tolist(), num_folds=5))
    together = cross_validate(data, rows, assign_folds(data.labels.tolist(), persons.tolist(), num_folds=5))
    assert alone[-1][1] == 1 and together[-1][1] < 0.8


def test_one_clip_of_a_class_is_fitted_without_a_choice():
    data = ramps(3)
    probe = choose_and_fit(data, poolings_of("order"))
    assert (probe.num_folds, probe.strength) == (0, 1.0)
    assert np.isnan(probe.candidates[0].loss)


def test_features_that_are_not_finite_are_one_sentence():
    data = ramps()
    features = data.features.clone()
    features[3, 0, 0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"^the features of clip 3 are NaN or infinite"):
        choose_and_fit(ProbeData(features, data.labels, 2), [Pooling()])


def test_one_class_is_one_sentence():
    data = ramps(4)
    with pytest.raises(ValueError, match=r"^all 2 clips are of one class; a classifier needs clips of two$"):
        choose_and_fit(ProbeData(data.features[::2], data.labels[::2], 2), [Pooling()])


def test_an_unknown_pooling_is_one_sentence():
    with pytest.raises(ValueError, match="^pooling is 'max'; it must be one of mean, stats, order$"):
        poolings_of("max")
