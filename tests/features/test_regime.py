"""The volatility tag: thresholds, warm-up, sessions without bars."""

import math

import numpy as np
import pytest

from odin_core.features.regime import HIGH_ABOVE, LOW_BELOW, market_volatility, volatility_ratio, volatility_regime

ORDINARY = [0.01] * 9


@pytest.mark.parametrize(
    ("today", "tag"),
    [
        pytest.param(0.0084, "low", id="below the lower threshold"),
        pytest.param(0.01 * LOW_BELOW, "medium", id="on the lower threshold"),
        pytest.param(0.01, "medium", id="ordinary"),
        pytest.param(0.01 * HIGH_ABOVE, "medium", id="on the upper threshold"),
        pytest.param(0.0121, "high", id="above the upper threshold"),
    ],
)
def test_the_tag_compares_today_with_the_median_of_ten_sessions(today: float, tag: str):
    assert volatility_regime(np.array([*ORDINARY, today])) == tag


def test_the_ratio_is_today_over_the_median_today_included():
    history = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    assert volatility_ratio(history) == 10 / 5.5


def test_with_fewer_than_ten_sessions_there_is_no_tag():
    assert volatility_regime(np.array(ORDINARY)) is None
    assert volatility_regime(np.array([])) is None


def test_a_session_without_bars_does_not_count_but_an_older_one_takes_its_place():
    assert volatility_regime(np.array([math.nan, *ORDINARY])) is None
    assert volatility_ratio(np.array([0.03, math.nan, *ORDINARY])) == 1.0


def test_a_day_without_bars_has_no_tag():
    assert volatility_regime(np.array([*ORDINARY, 0.01, math.nan])) is None


def test_only_the_last_ten_sessions_matter():
    assert volatility_ratio(np.array([9.0, 9.0, 9.0, *ORDINARY, 0.02])) == 2.0


def test_a_market_that_never_moves_has_no_tag():
    assert volatility_regime(np.zeros(10)) is None


def test_market_volatility_is_the_median_symbol_and_leaves_the_night_out():
    move = np.exp([0.01, 0.02, 0.05])  # one bar each
    bars = np.array([[100.0] * 3, [0] * 3, [0] * 3, 100 * move, [0] * 3])
    assert market_volatility(bars, np.arange(4), np.ones(3)) == pytest.approx(0.02)
    assert math.isnan(market_volatility(np.zeros((5, 0)), np.zeros(1, np.int64), np.zeros(0)))


def test_the_history_comes_back_untouched():
    history = np.array([*ORDINARY, 0.02])
    copy = history.copy()
    volatility_regime(history)
    np.testing.assert_array_equal(history, copy)
