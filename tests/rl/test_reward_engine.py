"""The risk-adjusted objective: its terms against loops, its gradients and credits against finite differences."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from odin_core.evaluation.off_policy import Logged, inverse_propensity, self_normalised
from odin_core.policies.actions import ACTIONS, FLAT, SIZES, decode
from odin_core.rl.offline_config import RiskWeights
from odin_core.rl.reward_engine import DEVIATION_FLOOR, drawdown, objective, of_sessions, shaped, sharpe, sortino

REWARDS = hnp.arrays(np.float64, st.integers(1, 25), elements=st.floats(-3, 3, width=32))
EVERYTHING = RiskWeights(mean=1.0, sharpe=0.5, sortino=0.3, drawdown=0.7)


def sharpe_by_hand(rewards: np.ndarray) -> float:
    n = len(rewards)
    if n < 2:
        return 0.0
    mean = sum(rewards) / n
    variance = sum((r - mean) ** 2 for r in rewards) / (n - 1)
    return mean / math.sqrt(variance + DEVIATION_FLOOR**2)


def sortino_by_hand(rewards: np.ndarray) -> float:
    n = len(rewards)
    downside = sum(min(r, 0.0) ** 2 for r in rewards) / n
    return sum(rewards) / n / math.sqrt(downside + DEVIATION_FLOOR**2)


def drawdown_by_hand(rewards: np.ndarray) -> float:
    wealth = [sum(rewards[:t]) for t in range(len(rewards) + 1)]
    return max(wealth[s] - wealth[t] for t in range(len(wealth)) for s in range(t + 1)) / len(rewards)


BY_HAND = {sharpe: sharpe_by_hand, sortino: sortino_by_hand, drawdown: drawdown_by_hand}


def slope(f, at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences."""
    moves = np.eye(at.size) * step
    return np.array([(f(at + move) - f(at - move)) / (2 * step) for move in moves])


@pytest.mark.parametrize("term", BY_HAND)
@given(rewards=REWARDS)
def test_terms_agree_with_their_loop_twins(term, rewards):
    before = rewards.copy()
    assert term(rewards)[0] == pytest.approx(BY_HAND[term](rewards), abs=1e-9)
    np.testing.assert_array_equal(rewards, before)


@pytest.mark.parametrize("term", BY_HAND)
def test_slopes_agree_with_finite_differences(term):
    rng = np.random.default_rng(5)
    for n in (1, 2, 3, 17):
        rewards = rng.standard_normal(n)
        np.testing.assert_allclose(term(rewards)[1], slope(lambda r: term(r)[0], rewards), atol=1e-5)


def test_a_drawdown_begins_at_the_start_and_counts_the_fall_alone():
    assert drawdown(np.array([-1.0, -1.0, 5.0]))[0] == pytest.approx(2 / 3)
    value, gradient = drawdown(np.array([3.0, -2.0, -1.0, 4.0]))
    assert value == pytest.approx(3 / 4)
    np.testing.assert_allclose(gradient, [0, -1 / 4, -1 / 4, 0])


def test_sessions_that_are_all_alike_have_a_finite_ratio():
    assert sharpe(np.full(9, 0.2))[0] == pytest.approx(0.2 / DEVIATION_FLOOR)
    assert sharpe(np.zeros(9))[0] == 0.0


@pytest.mark.parametrize("self_normal", [True, False])
@pytest.mark.parametrize("based", [True, False])
def test_credits_are_the_slope_of_the_objective_in_the_weights(self_normal, based):
    rng = np.random.default_rng(2)
    n, sessions = 40, 7
    reward, weight = rng.standard_normal(n), rng.uniform(0.1, 3, n)
    session = np.concatenate([np.arange(sessions), rng.integers(0, sessions, n - sessions)])
    told = {"self_normalised": self_normal, "baseline": rng.standard_normal(n) if based else None}

    def value(w: np.ndarray) -> float:
        return objective(reward, w, session, EVERYTHING, **told).value

    found = objective(reward, weight, session, EVERYTHING, **told)
    np.testing.assert_allclose(found.credit, slope(value, weight), atol=1e-5)
    assert found.value == pytest.approx(of_sessions(found.sessions, EVERYTHING)[0])


def test_the_mean_alone_is_the_off_policy_value():
    rng = np.random.default_rng(3)
    n = 60
    log = Logged(
        reward=rng.standard_normal(n), propensity=rng.uniform(0.1, 1, n), target=rng.uniform(0, 1, n),
        session=rng.integers(0, 5, n),
    )  # fmt: skip
    weights = log.weights()
    for self_normal, estimator in ((True, self_normalised), (False, inverse_propensity)):
        found = objective(log.reward, weights, log.group, RiskWeights(), self_normalised=self_normal)
        assert found.terms.mean == pytest.approx(estimator(log).value)


def test_without_any_weight_the_baseline_is_left():
    found = objective(np.ones(4), np.zeros(4), np.array([0, 0, 1, 1]), RiskWeights(), baseline=np.full(4, 0.3))
    assert found.terms.mean == pytest.approx(0.3)
    assert not found.credit.any()


def test_sessions_without_evidence_count_as_sessions():
    found = objective(
        np.array([1.0]), np.array([1.0]), np.array([1]), RiskWeights(), self_normalised=False,
        decisions=np.array([2, 2]), expected=np.zeros(2),
    )  # fmt: skip
    np.testing.assert_allclose(found.sessions, [0.0, 0.5])
    assert found.value == pytest.approx(0.25)


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        objective(np.array([np.nan]), np.array([1.0]), np.array([0]), RiskWeights())


@given(st.lists(st.integers(-1, ACTIONS - 1), min_size=1, max_size=30), st.booleans(), st.floats(0, 2), st.floats(0, 1))
def test_size_costs_what_it_says(actions, weigh, penalty, free):
    risk = RiskWeights(leverage=penalty, free_leverage=free, weigh_by_size=weigh)
    found = shaped(np.full(len(actions), 2.0), np.array(actions), risk)
    for action, value in zip(actions, found, strict=True):
        size = 0.0 if action == FLAT else float(decode(np.array(action)).size) / SIZES[-1]
        earned = 2.0 * size if weigh else 2.0
        assert value == pytest.approx(earned - penalty * max(0.0, size - free))
