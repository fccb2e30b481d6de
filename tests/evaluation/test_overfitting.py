"""Combinatorially symmetric cross-validation: luck is found out, an edge is not, and a slow twin agrees."""

import math
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from odin_core.evaluation import metrics
from odin_core.evaluation.overfitting import probability_of_backtest_overfitting

PERFORMANCE = hnp.arrays(
    np.float64,
    st.tuples(st.integers(8, 21), st.integers(2, 5)),
    elements=st.integers(-3, 3).map(lambda r: r / 100) | st.just(math.nan),
)


def noise(seed: int, periods: int = 1000, trials: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.01, (periods, trials))


def by_hand(performance: np.ndarray, n_blocks: int, metric) -> list[tuple[float, float, float]]:
    """For every split: best metric in sample, its metric out of sample, logit; trials without a metric are last."""
    rows = []
    blocks = np.array_split(performance, n_blocks)
    for chosen in combinations(range(n_blocks), n_blocks // 2):
        inside = np.concatenate([blocks[i] for i in chosen])
        outside = np.concatenate([blocks[i] for i in range(n_blocks) if i not in chosen])
        seen, then = (np.array([metric(half[:, t]) for t in range(half.shape[1])]) for half in (inside, outside))
        best = int(np.argmax(np.where(np.isnan(seen), -np.inf, seen)))
        rank = stats.rankdata(np.where(np.isnan(then), -np.inf, then))[best] if not np.isnan(seen[best]) else 1.0
        odds = rank / (performance.shape[1] + 1)
        rows.append((seen[best], then[best], math.log(odds / (1 - odds))))
    return rows


@settings(max_examples=40)
@given(PERFORMANCE, st.sampled_from([2, 4]))
def test_any_metric_agrees_with_the_slow_twin(performance, n_blocks):
    def mean(rows):
        return metrics.expectancy(rows)

    found = probability_of_backtest_overfitting(performance, n_blocks, mean)
    expected = np.array(by_hand(performance, n_blocks, mean))
    np.testing.assert_array_equal(
        np.column_stack([found.in_sample, found.out_of_sample, found.logits])[:, :2], expected[:, :2]
    )
    np.testing.assert_allclose(found.logits, expected[:, 2], atol=1e-12)


@pytest.mark.parametrize("periods", [48, 53])
def test_sharpe_ratios_out_of_sums_agree_with_those_of_the_returns(periods):
    performance = noise(1, periods, 7) + 1e-3
    performance[5:9, 2] = math.nan
    found = probability_of_backtest_overfitting(performance, 8)
    expected = np.array(by_hand(performance, 8, partial(metrics.sharpe_ratio, periods=1)))
    found_rows = np.column_stack([found.in_sample, found.out_of_sample, found.logits])
    np.testing.assert_allclose(found_rows, expected, rtol=1e-9, atol=1e-12)
    assert found.probability == np.mean(expected[:, 2] <= 0)
    assert found.probability_of_loss == np.mean(expected[:, 1] < 0)
    line = stats.linregress(expected[:, 0], expected[:, 1])
    assert found.degradation_slope == pytest.approx(line.slope)
    assert found.degradation_intercept == pytest.approx(line.intercept)


def test_among_random_strategies_the_best_is_an_even_bet():
    """Over 20 searches among 200: their mean and how widely they scatter, as the docstring says."""
    found = [probability_of_backtest_overfitting(noise(seed), 10) for seed in range(20)]
    probabilities = [each.probability for each in found]
    assert np.mean(probabilities) == pytest.approx(0.5, abs=0.1)
    assert np.std(probabilities) == pytest.approx(0.16, abs=0.05)
    assert np.mean(np.array(probabilities) < 0.2) <= 0.05
    assert np.mean([each.probability_of_loss for each in found]) == pytest.approx(0.5, abs=0.1)
    assert {len(each.logits) for each in found} == {math.comb(10, 5)}


def test_one_true_edge_among_random_strategies_is_found_in_every_half():
    performance = noise(3)
    performance[:, 17] += 0.003  # a Sharpe ratio of 0.3 a period
    found = probability_of_backtest_overfitting(performance)
    assert len(found.logits) == 12_870
    assert found.probability < 0.01
    assert found.probability_of_loss < 0.01
    assert np.mean(found.chosen == 17) > 0.99


def test_trials_that_only_differ_in_when_they_were_lucky_are_all_overfitting():
    """Each has the same total, so what is won in one half is missing in the other."""
    performance = noise(4, 400, 50)
    performance -= performance.mean(axis=0)
    found = probability_of_backtest_overfitting(performance, 8, metrics.expectancy)
    assert found.probability == 1
    assert found.degradation_slope == pytest.approx(-1)
    assert found.probability_of_loss == 1


def test_a_trial_that_stood_still_in_a_half_has_no_sharpe_ratio_there():
    """0.1 has no exact square, so the sums alone would leave it some spread and an enormous ratio."""
    performance = noise(5, 40, 3)
    performance[:20, 1] = 0.1
    found = probability_of_backtest_overfitting(performance, 4)
    expected = np.array(by_hand(performance, 4, partial(metrics.sharpe_ratio, periods=1)))
    np.testing.assert_allclose(found.in_sample, expected[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.logits, expected[:, 2], atol=1e-12)


def test_without_any_metric_the_choice_counts_as_overfitted():
    found = probability_of_backtest_overfitting(np.zeros((16, 3)), 4)
    assert found.probability == 1
    assert found.probability_of_loss == 1
    assert math.isnan(found.degradation_slope)


def test_the_input_is_left_alone_and_the_answer_is_the_same_again():
    performance = noise(6, 64, 9)
    before = performance.copy()
    first, second = (probability_of_backtest_overfitting(performance, 8) for _ in range(2))
    np.testing.assert_array_equal(performance, before)
    assert first.logits.tobytes() == second.logits.tobytes()


@pytest.mark.parametrize(
    ("shape", "n_blocks", "message"),
    [
        ((40, 1), 4, "two trials or more"),
        ((40,), 4, "two trials or more"),
        ((40, 3), 5, "even"),
        ((40, 3), 0, "even"),
        ((99, 3), 22, "2 to 20"),
        ((31, 3), 16, "31 periods in 16 blocks"),
    ],
)
def test_what_cannot_be_split_is_refused(shape, n_blocks, message):
    with pytest.raises(ValueError, match=message):
        probability_of_backtest_overfitting(np.zeros(shape), n_blocks)
