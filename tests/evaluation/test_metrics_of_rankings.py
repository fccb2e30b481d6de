"""Precision at the top and F1: by hand, by all orders of what ties, one ranking or many."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from odin_core.evaluation.ranking import f1_score, information_coefficient, precision_at_k

NAN = float("nan")
FEW = hnp.arrays(np.float64, 5, elements=st.integers(-1, 1).map(float) | st.just(NAN))
MANY = hnp.arrays(np.float64, (2, 3, 4, 6), elements=st.integers(-2, 2).map(float) | st.just(NAN))


def test_precision_at_the_top_worked_by_hand():
    scores, outcomes = [0.9, 0.1, 0.8, 0.7, NAN], [0.02, 0.05, -0.01, 0.01, 0.9]
    assert [precision_at_k(scores, outcomes, k) for k in (1, 2, 3, 4)] == [1, 1 / 2, 2 / 3, 3 / 4]
    assert math.isnan(precision_at_k(scores, outcomes, 5))


@given(FEW, FEW, st.integers(1, 5))
def test_ties_count_as_the_mean_over_their_orders(scores, outcomes, k):
    both = ~(np.isnan(scores) | np.isnan(outcomes))
    x, y = scores[both], outcomes[both]
    found = precision_at_k(scores, outcomes, k)
    if len(x) < k:
        assert math.isnan(found)
        return
    shares = [
        np.mean([y[i] > 0 for i in sorted(order, key=lambda i: -x[i])[:k]]) for order in permutations(range(len(x)))
    ]
    assert found == pytest.approx(np.mean(shares), abs=1e-12)


@given(MANY, st.integers(1, 6))
def test_many_rankings_give_what_each_gives_alone(pair, k):
    forecasts, outcomes = pair
    precision, f1 = precision_at_k(forecasts, outcomes, k), f1_score(forecasts, outcomes)
    assert precision.shape == f1.shape == (3, 4)
    for place in np.ndindex(3, 4):
        np.testing.assert_array_equal(precision[place], precision_at_k(forecasts[place], outcomes[place], k))
        np.testing.assert_array_equal(f1[place], f1_score(forecasts[place], outcomes[place]))


def test_f1_of_signed_forecasts_worked_by_hand():
    """Two of three longs were right, one rise was missed, and the pair without an outcome is none: 4 / (4 + 1 + 1)."""
    assert f1_score([1, 1, 2, -1, -1, 3], [0.1, 0.2, -0.1, 0.1, -0.3, NAN]) == pytest.approx(4 / 6)
    assert f1_score([-1, -1], [0.1, 0.1]) == 0
    assert math.isnan(f1_score([-1, -1], [-0.1, -0.1]))


@given(FEW, FEW)
def test_f1_does_not_care_which_side_is_the_forecast(x, y):
    np.testing.assert_array_equal(f1_score(x, y), f1_score(y, x))


@pytest.mark.parametrize("metric", [f1_score, lambda x, y: precision_at_k(x, y, 1), information_coefficient])
def test_forecasts_and_outcomes_of_different_shape_are_refused(metric):
    with pytest.raises(ValueError, match=r"\(2,\)"):
        metric([1, 2], [1, 2, 3])


def test_the_top_has_at_least_one_place():
    with pytest.raises(ValueError, match="k=0"):
        precision_at_k([1.0], [1.0], 0)
