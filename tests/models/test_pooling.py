"""Feature maps to one vector: literal values, and what each pooling sees of the order of frames."""

import pytest
import torch

from tinyaction.models.pooling import (
    POOLINGS,
    Pooling,
    cell_means,
    half_weights,
    signed_root,
    temporal_statistics,
    temporal_trend,
)


def over_time(*values: float) -> torch.Tensor:
    """(1, T, 1)"""
    return torch.tensor(values).reshape(1, -1, 1)


def random_maps(*, h: int = 5, w: int = 4) -> torch.Tensor:
    return torch.randn(3, 6, 2, h, w, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("values", "expected"), [
    ((1, 3, 1, 3), (2, 1, 2)), ((1, 1, 3, 3), (2, 1, 2 / 3)), ((5,), (5, 0, 0)),
])
def test_statistics_by_hand(values, expected):
    found = temporal_statistics(over_time(*map(float, values)))
    torch.testing.assert_close(found, torch.tensor([expected]), atol=2e-6, rtol=0, check_dtype=False)


@pytest.mark.parametrize(("values", "expected"), [
    ((0, 0, 4, 4), (-3 * 0 - 1 * 0 + 1 * 4 + 3 * 4) / 4), ((4, 4, 0, 0), -4), ((7, 7, 7), 0), ((5,), 0),
    ((0, 9, 1), 1),
])
def test_trend_by_hand(values, expected):
    assert temporal_trend(over_time(*map(float, values))).item() == pytest.approx(expected)


def test_signed_root_by_hand():
    torch.testing.assert_close(signed_root(torch.tensor([4.0, -4.0, 0.0])), torch.tensor([2.0, -2.0, 0.0]))


def test_halves_by_hand():
    assert half_weights(1) == [[1], [1]]
    assert half_weights(2) == [[1, 0], [0, 1]]
    assert half_weights(4) == [[1 / 2, 1 / 2, 0, 0], [0, 0, 1 / 2, 1 / 2]]
    torch.testing.assert_close(half_weights(3), [[2 / 3, 1 / 3, 0.0], [0.0, 1 / 3, 2 / 3]])
    found = cell_means(torch.arange(16.0).reshape(4, 4))
    assert found.tolist() == [[(0 + 1 + 4 + 5) / 4, (2 + 3 + 6 + 7) / 4], [(8 + 9 + 12 + 13) / 4, 12.5]]


@pytest.mark.parametrize("shape", [(7, 7), (1, 1), (3, 5), (2, 2)])
def test_the_mean_of_the_quarters_is_the_mean_of_the_map(shape):
    maps = random_maps(h=shape[0], w=shape[1])
    torch.testing.assert_close(cell_means(maps).mean(dim=(3, 4)), maps.mean(dim=(3, 4)))
    torch.testing.assert_close(cell_means(cell_means(maps)), cell_means(maps), rtol=0, atol=0)


@pytest.mark.parametrize("signed_sqrt", [False, True])
@pytest.mark.parametrize("kind", POOLINGS)
def test_what_a_pooling_sees_of_a_view_played_backwards(kind, signed_sqrt):
    maps, pooling = random_maps(), Pooling(kind, signed_sqrt)
    forwards, backwards = pooling(maps), pooling(maps.flip(1))
    assert forwards.shape == (3, pooling.num_outputs(2)) and forwards.abs().max() > 0.01
    torch.testing.assert_close(backwards, -forwards if kind == "order" else forwards)


@pytest.mark.parametrize("kind", POOLINGS)
def test_quarters_tell_all_that_a_pooling_asks_of_the_maps(kind):
    """So that a cache of quarters is enough."""
    torch.testing.assert_close(Pooling(kind)(cell_means(random_maps())), Pooling(kind)(random_maps()))


def test_statistics_see_neighbours_and_the_mean_sees_no_order():
    maps = random_maps()
    shuffled = maps[:, [3, 0, 5, 1, 4, 2]]
    torch.testing.assert_close(Pooling("mean")(shuffled), Pooling("mean")(maps))
    assert not torch.allclose(Pooling("stats")(shuffled), Pooling("stats")(maps), atol=0.01)


@pytest.mark.parametrize("kind", POOLINGS)
def test_features_of_zero_have_finite_slopes(kind):
    maps = torch.zeros(1, 4, 2, 3, 3, requires_grad=True)
    Pooling(kind, signed_sqrt=True)(maps).sum().backward()
    assert maps.grad is not None and maps.grad.isfinite().all()


def test_an_unknown_name_is_one_sentence():
    with pytest.raises(ValueError, match=r"^pooling is 'max'; it must be one of mean, stats, order$"):
        Pooling("max")
