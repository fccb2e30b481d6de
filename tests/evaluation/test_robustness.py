"""Stress windows against a search that tries every window, the estimated spread against one that is known, findings."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odin_core.evaluation.robustness import (
    FACTS,
    KINDS,
    WINDOWS,
    Finding,
    excess_over,
    findings_table,
    kept,
    returns_in,
    session_facts,
    stress_windows,
)
from odin_core.market.bars import BARS, MINUTE

FIRST = date(2023, 1, 2)
NUMBERS = st.lists(st.floats(-0.1, 0.1).map(lambda x: round(x, 4)), min_size=0, max_size=30)


def facts(returns, volatility=None, spread=None) -> pl.DataFrame:
    n = len(returns)
    columns = {
        "session": [FIRST + timedelta(days=i) for i in range(n)], "market_return": returns,
        "volatility": volatility or [0.01] * n, "spread": spread or [None] * n,
    }  # fmt: skip
    return pl.DataFrame(columns, schema=FACTS)


def day(i: int) -> date:
    return FIRST + timedelta(days=i)


@given(NUMBERS, st.integers(1, 6), st.integers(1, 4))
def test_the_worst_windows_are_those_of_a_search_that_takes_the_worst_and_then_the_worst_that_is_left(
    returns, n, count
):
    found = stress_windows(facts(returns), length=n, count=count).filter(kind="return")
    left = {i: np.prod([1 + r for r in returns[i : i + n]]) - 1 for i in range(len(returns) - n + 1)}
    for row in found.iter_rows(named=True):
        worst = min(left.values())
        assert row["value"] == pytest.approx(worst)
        start = (row["first"] - FIRST).days
        assert row["last"] == day(start + n - 1)
        left = {i: v for i, v in left.items() if abs(i - start) >= n}
    if found.height < count:
        assert all(value >= -1e-12 for value in left.values())


@given(NUMBERS)
def test_drawdowns_run_from_the_session_after_a_peak_to_the_lowest_point_and_do_not_overlap(returns):
    found = stress_windows(facts(returns), count=3).filter(kind="drawdown")
    wealth = np.cumprod([1.0, *(1 + r for r in returns)])
    if found.height:
        assert found["value"][0] == pytest.approx((wealth / np.maximum.accumulate(wealth) - 1).min())
    for row in found.iter_rows(named=True):
        first, last = ((row[end] - FIRST).days for end in ("first", "last"))
        assert wealth[first] == wealth[: last + 2].max()
        assert wealth[last + 1] / wealth[first] - 1 == pytest.approx(row["value"])
        assert row["sessions"] == last - first + 1
    ordered = found.sort("first").select("first", "last").rows()
    assert all(earlier[1] < later[0] for earlier, later in pairwise(ordered))


def test_each_kind_finds_what_was_planted():
    volatility, spread = [0.01] * 40, [0.001] * 40
    volatility[20:23], spread[30:33] = [0.05] * 3, [0.01] * 3
    returns = [0.001] * 40
    returns[5:8] = [-0.03, -0.04, -0.02]
    found = stress_windows(facts(returns, volatility, spread), length=3, count=1)
    assert found.schema == WINDOWS
    assert found["kind"].to_list() == list(KINDS)
    at = {row["kind"]: (row["first"], row["last"]) for row in found.iter_rows(named=True)}
    assert at["return"] == at["drawdown"] == (day(5), day(7))
    assert at["volatility"] == (day(20), day(22))
    assert at["spread"] == (day(30), day(32))
    assert found.filter(kind="volatility")["value"][0] == pytest.approx(0.05)


def test_a_market_that_only_rises_has_no_worst_return_and_no_drawdown_and_an_unknown_session_is_no_window():
    assert set(stress_windows(facts([0.01] * 10))["kind"]) == {"volatility"}
    holed = facts([0.01, -0.02, None, -0.01, 0.02])
    assert stress_windows(holed, length=2, count=3).filter(kind="return")["first"].to_list() == [day(0)]
    assert stress_windows(facts([])).is_empty()
    with pytest.raises(ValueError, match="length=0"):
        stress_windows(holed, length=0)


def minute_bars(closes: dict[str, list[float]], spread: float = 0.0) -> pl.DataFrame:
    """Bars without movement inside but for the bounce between bid and ask."""
    ts = datetime(2023, 1, 2, 3, 45, tzinfo=UTC)
    rows = [
        {"symbol": symbol, "ts": ts + i * MINUTE, "known_at": ts + (i + 1) * MINUTE, "open": p,
         "high": p * (1 + spread / 2), "low": p * (1 - spread / 2), "close": p, "volume": 1.0, "oi": None}
        for symbol, prices in closes.items() for i, p in enumerate(prices)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=BARS)


@pytest.mark.parametrize("spread", [0.0, 0.001, 0.02])
def test_a_price_that_only_bounces_between_bid_and_ask_has_just_that_spread(spread):
    found = session_facts(FIRST, minute_bars({"A": [100.0] * 30, "B": [7.0] * 30}, spread), pl.DataFrame(
        {"symbol": ["A"], "close": [100.0]}
    ))  # fmt: skip
    assert found["spread"] == pytest.approx(spread, abs=1e-9)
    assert found["market_return"] == 0


def test_facts_of_a_session_by_hand():
    bars = minute_bars({"A": [100.0, 101.0, 99.0], "B": [50.0, 50.0, 55.0], "new": [10.0, 10.0, 20.0]})
    before = pl.DataFrame({"symbol": ["A", "B", "gone"], "close": [110.0, 50.0, 1.0]})
    found = session_facts(FIRST, bars, before)
    assert found["market_return"] == pytest.approx(((99 / 110 - 1) + (55 / 50 - 1)) / 2)
    each = [np.hypot(np.log(1.01), np.log(99 / 101)), np.log(1.1), np.log(2)]
    assert found["volatility"] == pytest.approx(sorted(each)[1])
    shuffled = bars.sample(fraction=1, shuffle=True, seed=1)
    assert not shuffled.equals(bars)
    assert session_facts(FIRST, shuffled, before) == found


def test_a_session_without_bars_has_no_facts():
    empty = session_facts(FIRST, BARS.to_frame(), pl.DataFrame({"symbol": ["A"], "close": [1.0]}))
    assert empty == {"session": FIRST, "market_return": None, "volatility": None, "spread": None}


def test_what_a_series_did_in_a_window_is_recomputed_from_its_sessions():
    windows = stress_windows(facts([0.01, -0.02, -0.03, 0.01, 0.02, 0.01]), length=2, count=1)
    series = pl.DataFrame({
        "session": [day(i) for i in range(6)], "value": [1.0, -1.0, 0.5, 2.0, None, 1.0],
        "baseline": [0.0, -0.5, None, 0.0, 0.0, 0.0],
    })  # fmt: skip
    row = returns_in(windows, series).filter(kind="return").row(0, named=True)
    assert (row["first"], row["last"]) == (day(1), day(2))
    expected = {"known": 2, "total": -0.5, "mean": -0.25, "worst": -1.0, "drawdown": -1.0, "baseline": -0.5,
                "excess": -0.5}  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_a_window_in_which_nothing_is_known_says_so():
    windows = stress_windows(facts([0.01, -0.02, 0.01]), length=1, count=1)
    series = pl.DataFrame({"session": [day(0)], "value": [1.0], "baseline": [0.0]})
    row = returns_in(windows, series).filter(kind="return").row(0, named=True)
    assert row["known"] == 0
    assert [row[n] for n in ("total", "mean", "worst", "drawdown", "baseline", "excess")] == [None] * 6


@pytest.mark.parametrize(
    ("value", "needed", "passed"),
    [(1.0, 1.0, True), (0.999, 1.0, False), (-0.01, -0.02, True), (float("nan"), -1e9, False)],
    ids=["just enough", "short", "loss within its limit", "unknown"],
)
def test_a_finding_passes_where_its_number_reaches_what_is_needed_and_is_known(value, needed, passed):
    finding = Finding(name="x", value=value, needed=needed, explanation="why")
    assert finding.passed is passed
    row = findings_table([finding]).row(0, named=True)
    assert row == {"name": "x", "value": None if value != value else value, "needed": needed, "passed": passed,
                   "explanation": "why"}  # fmt: skip


def test_the_excess_counts_sessions_and_leaves_out_those_without_a_trade():
    found = excess_over(np.array([1.0, np.nan, 2.0, 3.0]), np.array([0.0, 5.0, 1.0, 0.5]))
    assert found.sessions == 3
    assert found.mean == pytest.approx((1 + 1 + 2.5) / 3)
    assert found.lower < found.mean < found.upper


def test_what_is_left_of_nothing_is_not_known():
    assert kept(0.1, 0.2) == 0.5
    assert np.isnan(kept(0.1, 0.0))
    assert np.isnan(kept(0.1, -0.2))
    assert np.isnan(kept(0.1, float("nan")))
