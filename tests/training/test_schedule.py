"""The learning rate, step by step."""

from math import sqrt

import pytest

from tinyaction.training.schedule import learning_rate, scaled_learning_rate


def test_warm_up_then_half_a_cosine():
    rates = [learning_rate(step, base_lr=0.8, total_steps=8, warmup_steps=4) for step in range(10)]
    falling = [0.8 * (1 + cosine) / 2 for cosine in (1, sqrt(0.5), 0, -sqrt(0.5))]  # cos of 0, 45, 90, 135 degrees
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, *falling, 0.0, 0.0])


def test_without_warm_up_the_first_step_has_the_whole_rate():
    rates = [learning_rate(step, base_lr=1.0, total_steps=3) for step in range(4)]
    assert rates == pytest.approx([1.0, 0.75, 0.25, 0.0])  # cos of 0, 60, 120 degrees


def test_a_run_shorter_than_its_warm_up_never_divides_by_zero():
    assert [learning_rate(step, base_lr=1.0, total_steps=2, warmup_steps=4) for step in range(5)] == \
        [0.25, 0.5, 0.75, 1.0, 0.0]
    assert learning_rate(4, base_lr=1.0, total_steps=4, warmup_steps=4) == 0.0


@pytest.mark.parametrize("batch_size, expected", [(8, 0.1), (16, 0.2), (4, 0.05)])
def test_the_rate_is_proportional_to_the_batch(batch_size, expected):
    assert scaled_learning_rate(0.1, batch_size=batch_size, reference_batch_size=8) == pytest.approx(expected)
