"""The volatility tag: thresholds, warm-up, sessions without bars."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from odin_core.features.regime import HIGH_ABOVE, LOW_BELOW, market_volatility, volatility_ratio, volatility_regime
from odin_core.market.bars import BARS

FIVE = timedelta(minutes=5)
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


def five_minute_bars(*moves: list[float], symbols: str = "ABCDEF", minutes: int = 5) -> pl.DataFrame:
    """One symbol for each list of log moves of its bars, the first one from its open to its close; every night it
    jumps, every bar opens at the close before. `minutes`: how long the last bar of each is."""
    opened, frames = datetime(2023, 1, 2, 3, 45, tzinfo=UTC), []
    for symbol, steps in zip(symbols, moves, strict=False):
        close = 100.0 * np.exp(np.cumsum(steps))
        ts = [opened + i * FIVE for i in range(len(steps))]
        ends = [*ts[1:], ts[-1] + minutes * FIVE / 5]
        bars = {"symbol": symbol, "ts": ts, "known_at": ends, "open": [100.0, *close[:-1]], "close": close}
        frames.append(pl.DataFrame(bars).with_columns(high=pl.col("close"), low=pl.col("close"), volume=1.0, oi=None))
    return pl.concat([BARS.to_frame(), *(frame.select(BARS.names()).cast(BARS) for frame in frames)])


def test_market_volatility_is_the_median_symbol_per_five_minutes_from_its_first_open_on():
    assert market_volatility(five_minute_bars([0.01], [0.02], [0.05])) == pytest.approx(0.02)
    assert market_volatility(five_minute_bars([0.01], [0.03])) == pytest.approx(0.02)
    assert market_volatility(five_minute_bars([0.03, -0.04, 0.0, 0.0])) == pytest.approx(0.05 / 2)
    assert math.isnan(market_volatility(BARS.to_frame()))
    assert market_volatility(five_minute_bars([0.0, 0.0])) == 0.0


def test_a_session_cut_short_and_one_with_missing_bars_are_on_the_scale_of_a_whole_one():
    whole = five_minute_bars([0.01] * 40)
    assert market_volatility(whole) == pytest.approx(0.01)
    assert market_volatility(whole.head(10)) == pytest.approx(0.01)
    straight = whole[[0, 39]]  # what happened between is one move of 39 steps
    assert market_volatility(straight) == pytest.approx(math.sqrt((0.01**2 + 0.39**2) / 40))
    short = five_minute_bars([0.01, 0.01], minutes=2)
    assert market_volatility(short) == pytest.approx(math.sqrt(2e-4 / 1.4))


def test_market_volatility_agrees_with_a_loop_over_random_bars():
    rng = np.random.default_rng(4)
    moves = [list(rng.normal(0, 0.002, rng.integers(1, 75))) for _ in "ABCDE"]
    by_hand = [math.sqrt(sum(move * move for move in own) / len(own)) for own in moves]
    assert market_volatility(five_minute_bars(*moves)) == pytest.approx(np.median(by_hand), rel=1e-9)


def test_the_history_comes_back_untouched():
    history = np.array([*ORDINARY, 0.02])
    copy = history.copy()
    volatility_regime(history)
    np.testing.assert_array_equal(history, copy)
