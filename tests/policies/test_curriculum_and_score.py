"""Start sessions by regime: probabilities, from how often regimes are to how hard they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odin_core.policies.unified import PRIOR, unified_score
from odin_core.training.curriculum import start_weights

REGIMES = ["low"] * 6 + ["medium"] * 3 + ["high"] + [None]


def by_regime(weights: np.ndarray) -> dict[str, float]:
    return {
        name: float(sum(w for w, r in zip(weights, REGIMES, strict=True) if r == name)) for name in set(REGIMES[:-1])
    }


def test_at_the_beginning_sessions_are_as_frequent_as_they_were():
    weights = start_weights(REGIMES, {"low": 1.0, "high": -1.0}, 0.0)
    assert weights[:-1] == pytest.approx(0.1)
    assert weights[-1] == 0.0


def test_at_the_end_every_regime_gets_its_share_and_the_hard_ones_more():
    even = by_regime(start_weights(REGIMES, dict.fromkeys(("low", "medium", "high"), 0.2), 1.0))
    assert even == pytest.approx(dict.fromkeys(even, 1 / 3))
    hard = by_regime(start_weights(REGIMES, {"low": 0.5, "medium": 0.0, "high": -0.5}, 1.0))
    assert hard["high"] > hard["medium"] > hard["low"]
    assert hard["high"] / hard["low"] == pytest.approx(np.e)


def test_a_regime_that_was_never_tried_counts_as_the_worst():
    tried = by_regime(start_weights(REGIMES, {"low": 0.5, "medium": -0.5, "high": -0.5}, 0.7))
    assert by_regime(start_weights(REGIMES, {"low": 0.5, "medium": -0.5}, 0.7)) == pytest.approx(tried)
    unknown = {"low": 0.5, "medium": -0.5, "high": float("nan")}
    assert by_regime(start_weights(REGIMES, unknown, 0.7)) == pytest.approx(tried)


@given(
    st.lists(st.sampled_from(["low", "medium", "high", None]), min_size=1).filter(any),
    st.dictionaries(st.sampled_from(["low", "medium", "high"]), st.floats(-5, 5)),
    st.floats(0, 1),
)
def test_weights_are_probabilities(regimes: list[str | None], reward: dict[str, float], progress: float):
    weights = start_weights(regimes, reward, progress)
    assert weights.sum() == pytest.approx(1.0)
    assert all((w > 0) == (r is not None) for w, r in zip(weights, regimes, strict=True))


@pytest.mark.parametrize(("regimes", "progress"), [([None], 0.5), ([], 0.5), (["low"], 1.1)])
def test_what_cannot_be_weighted_is_refused(regimes: list[str | None], progress: float):
    with pytest.raises(ValueError, match=r"regime|progress"):
        start_weights(regimes, {}, progress)


@given(st.lists(st.floats(0.01, 0.99), min_size=2, max_size=20))
def test_the_unified_score_orders_one_source_by_confidence(confidence: list[float]):
    p = np.array(confidence)
    score = unified_score(p, (30, 45.0, 60, 50.0))
    assert (np.diff(score[np.argsort(p)]) >= 0).all()


def test_the_unified_score_is_the_expected_reward_of_the_outcomes_so_far():
    many = 1_000_000
    assert unified_score(np.array([0.6]), (many, 2.0 * many, many, 1.0 * many)) == pytest.approx(
        0.6 * 2 - 0.4, abs=1e-3
    )
    assert unified_score(np.array([0.5]), (0, 0.0, 0, 0.0)) == pytest.approx(0.0), "nothing is known yet"
    doubled = unified_score(np.array([1.0]), (PRIOR, 3.0 * PRIOR, 0, 0.0))
    assert doubled == pytest.approx(2.0), "as many wins as the prior has move the gain half the way"
