"""Recursions against loops over lists, on runs that overlap; published and hand-worked numbers; sessions."""

import itertools
import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runcases import assert_follows_from_its_run_alone, bars_and_runs, row_by_row

from odin_core.features import recursive
from odin_core.features.series import Bars, FloatArray, Runs

# StockCharts' worked example of Wilder's RSI(14), with its published values for the 15th to 20th close.
RSI_CLOSES = [44.3389, 44.0902, 44.1497, 43.6124, 44.3278, 44.8264, 45.0955, 45.4245, 45.8433, 46.0826,
              45.8931, 46.0328, 45.6140, 46.2820, 46.2820, 46.0028, 46.0328, 46.4116, 46.2222, 45.6439]  # fmt: skip
RSI_PUBLISHED = [70.53, 66.32, 66.55, 69.41, 66.36, 57.97]


def one_run(rows: int) -> Runs:
    return Runs(np.array([0]), np.array([0]), np.array([rows]))


def ema_by_hand(values: list[float], period: int) -> float:
    if len(values) < period:
        return math.nan
    average = statistics.fmean(values[:period])
    for value in values[period:]:
        average = value * 2 / (period + 1) + average * (1 - 2 / (period + 1))
    return average


def macd_by_hand(values: list[float], fast: int, slow: int) -> list[float]:
    lengths = range(max(fast, slow), len(values) + 1)
    return [ema_by_hand(values[:n], fast) - ema_by_hand(values[:n], slow) for n in lengths]


def wilder_by_hand(values: list[float], period: int) -> float:
    if len(values) < period:
        return math.nan
    average = statistics.fmean(values[:period])
    for value in values[period:]:
        average = (average * (period - 1) + value) / period
    return average


def rsi_by_hand(close: list[float], period: int) -> float:
    changes = [b - a for a, b in itertools.pairwise(close)]
    gain = wilder_by_hand([max(c, 0.0) for c in changes], period)
    loss = wilder_by_hand([max(-c, 0.0) for c in changes], period)
    return math.nan if gain + loss == 0 else 100.0 if loss == 0 else 100 - 100 / (1 + gain / loss)


def ranges_by_hand(high: list[float], low: list[float], close: list[float]) -> list[float]:
    return [max(h - l, abs(h - c), abs(l - c)) for h, l, c in zip(high[1:], low[1:], close, strict=False)]  # noqa: E741


def directions_by_hand(high: list[float], low: list[float], close: list[float], period: int) -> list[float]:
    """+DI, −DI, DX of the last bar."""
    rises, falls = np.diff(high).tolist(), (-np.diff(low)).tolist()
    up = wilder_by_hand([r if r > f and r > 0 else 0.0 for r, f in zip(rises, falls, strict=True)], period)
    down = wilder_by_hand([f if f > r and f > 0 else 0.0 for r, f in zip(rises, falls, strict=True)], period)
    reach = wilder_by_hand(ranges_by_hand(high, low, close), period)
    plus, minus = (math.nan if reach == 0 else 100 * x / reach for x in (up, down))
    dx = 100 * abs(up - down) / (up + down) if up + down > 0 else up + down  # zero, or NaN before the seed
    return [plus, minus, dx]


def adx_by_hand(high: list[float], low: list[float], close: list[float], period: int) -> float:
    each = [directions_by_hand(high[:n], low[:n], close[:n], period)[2] for n in range(period + 1, len(close) + 1)]
    return wilder_by_hand(each, period)


def vwap_by_hand(price: list[float], volume: list[float], session: list[int]) -> float:
    own = [(p, v) for p, v, s in zip(price, volume, session, strict=True) if s == session[-1]]
    traded = sum(v for _, v in own)
    return sum(p * v for p, v in own) / traded if traded else math.nan


def before_session_by_hand(close: list[float], session: list[int]) -> float:
    return next((c for c, s in zip(close[::-1], session[::-1], strict=True) if s != session[-1]), math.nan)


def hlc(bars: Bars, rows: slice) -> tuple[list[float], ...]:
    return bars.high[rows].tolist(), bars.low[rows].tolist(), bars.close[rows].tolist()


Kernel = Callable[[Bars, Runs, int], FloatArray]
ByHand = Callable[[Bars, slice, int], float]
CASES: dict[str, tuple[Kernel, ByHand]] = {
    "ema": (
        lambda b, r, p: recursive.exponential_mean(b.close, r, p),
        lambda b, rows, p: ema_by_hand(b.close[rows].tolist(), p),
    ),
    "macd": (
        lambda b, r, p: recursive.macd_lines(b.close, r, p, p + 3, 4)[0],
        lambda b, rows, p: (macd_by_hand(b.close[rows].tolist(), p, p + 3) or [math.nan])[-1],
    ),
    "macd with the slower one first": (
        lambda b, r, p: recursive.macd_lines(b.close, r, p + 3, p, 4)[0],
        lambda b, rows, p: (macd_by_hand(b.close[rows].tolist(), p + 3, p) or [math.nan])[-1],
    ),
    "macd signal": (
        lambda b, r, p: recursive.macd_lines(b.close, r, p, p + 3, 4)[1],
        lambda b, rows, p: ema_by_hand(macd_by_hand(b.close[rows].tolist(), p, p + 3), 4),
    ),
    "rsi": (
        lambda b, r, p: recursive.wilder_rsi(b.close, r, p),
        lambda b, rows, p: rsi_by_hand(b.close[rows].tolist(), p),
    ),
    "true range": (
        lambda b, r, _: recursive.true_ranges(b.high, b.low, b.close, r),
        lambda b, rows, _: ([math.nan, *ranges_by_hand(*hlc(b, rows))])[-1],
    ),
    "atr": (
        lambda b, r, p: recursive.wilder_atr(b.high, b.low, b.close, r, p),
        lambda b, rows, p: wilder_by_hand(ranges_by_hand(*hlc(b, rows)), p),
    ),
    "plus di": (
        lambda b, r, p: recursive.directional_movement(b.high, b.low, b.close, r, p)[0],
        lambda b, rows, p: directions_by_hand(*hlc(b, rows), p)[0],
    ),
    "minus di": (
        lambda b, r, p: recursive.directional_movement(b.high, b.low, b.close, r, p)[1],
        lambda b, rows, p: directions_by_hand(*hlc(b, rows), p)[1],
    ),
    "adx": (
        lambda b, r, p: recursive.directional_movement(b.high, b.low, b.close, r, p)[2],
        lambda b, rows, p: adx_by_hand(*hlc(b, rows), p),
    ),
    "accumulated": (
        lambda b, r, _: recursive.accumulated(b.volume, r),
        lambda b, rows, _: math.fsum(b.volume[rows][1:].tolist()),
    ),
    "vwap": (
        lambda b, r, _: recursive.session_vwap(b.close, b.volume, b.session, r),
        lambda b, rows, _: vwap_by_hand(b.close[rows].tolist(), b.volume[rows].tolist(), b.session[rows].tolist()),
    ),
    "session's open": (
        lambda b, r, _: recursive.session_open(b.open, b.session, r),
        lambda b, rows, _: b.open[rows][b.session[rows] == b.session[rows][-1]][0],
    ),
    "close before the session": (
        lambda b, r, _: recursive.close_before_session(b.close, b.session, r),
        lambda b, rows, _: before_session_by_hand(b.close[rows].tolist(), b.session[rows].tolist()),
    ),
}


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=20)
@given(case=bars_and_runs(), period=st.integers(1, 16))
def test_a_recursion_agrees_with_a_loop_over_each_rows_own_past(name: str, case, period: int):
    (bars, runs), (kernel, by_hand) = case, CASES[name]
    expected = row_by_row(runs, lambda rows: by_hand(bars, rows, period), len(bars))
    np.testing.assert_allclose(kernel(bars, runs, period), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=15)
@given(case=bars_and_runs(), period=st.integers(1, 16))
def test_a_recursion_is_the_same_bits_from_the_rows_of_its_run_alone(name: str, case, period: int):
    assert_follows_from_its_run_alone(lambda bars, runs: CASES[name][0](bars, runs, period), *case)


@settings(max_examples=30)
@given(bars_and_runs())
def test_a_signed_amount_has_the_sign_of_the_prices_change(case):
    bars, _ = case
    close, volume = bars.close.tolist(), bars.volume.tolist()
    changes = zip(volume[1:], itertools.pairwise(close), strict=True)
    expected = [math.nan, *(v if b > a else -v if b < a else 0.0 for v, (a, b) in changes)]
    np.testing.assert_array_equal(recursive.signed(bars.volume, bars.close), expected)


def test_means_of_prices_that_are_equal_in_decimals_have_not_changed():
    """Seen on NSE minute bars: two bars with the typical price 686.1, the second one's less by a rounding error."""
    typical = np.array([(686.1 + 686.0 + 686.2) / 3, np.nextafter(686.1, 0), 686.1 * (1 + 1e-9)])
    np.testing.assert_array_equal(recursive.signed(np.full(3, 7.0), typical)[1:], [0.0, 7.0])


def test_rsi_gives_the_published_values_of_the_worked_example():
    values = recursive.wilder_rsi(np.array(RSI_CLOSES), one_run(20), 14)
    assert np.isnan(values[:14]).all()
    np.testing.assert_allclose(values[14:], RSI_PUBLISHED, atol=0.005)


def test_average_true_range_of_four_bars_worked_by_hand():
    high, low, close = np.array([11.0, 12, 15, 13]), np.array([9.0, 10, 13, 9]), np.array([10.0, 11, 14, 10])
    # true ranges 12 − 10 = 2, 15 − 11 = 4, 14 − 9 = 5; seed (2 + 4) / 2 = 3, then (3 · 1 + 5) / 2 = 4
    assert recursive.wilder_atr(high, low, close, one_run(4), 2)[-1] == 4.0


def test_exponential_mean_of_four_values_worked_by_hand():
    # seed (1 + 3) / 2 = 2, weight 2/3: 2 + 2/3 · (5 − 2) = 4, then 4 + 2/3 · (1 − 4) = 2
    values = recursive.exponential_mean(np.array([1.0, 3, 5, 1]), one_run(4), 2)
    np.testing.assert_allclose(values, [np.nan, 2, 4, 2])


def test_a_market_that_only_rises_has_all_direction_upwards():
    close = np.arange(100.0, 160.0)
    plus, minus, adx = recursive.directional_movement(close + 0.5, close - 0.5, close, one_run(60), 14)
    assert set(minus[14:].tolist()) == {0.0}
    np.testing.assert_allclose(plus[14:], 100 / 1.5)  # each bar: movement 1, true range 1.5
    np.testing.assert_allclose(adx[27:], 100)
    assert np.isnan(adx[:27]).all()


@pytest.mark.parametrize("scale", [1.0, 1e-7, 1 / 3])
def test_equal_movements_of_decimal_prices_count_as_equal(scale: float):
    """Prices in whole ticks are exact; as decimals a third of the equal movements differ by a rounding error."""
    rng = np.random.default_rng(2)
    close = (50_000 + np.cumsum(rng.integers(-2, 3, 4000))).astype(np.float64)
    high, low = (close + side * rng.integers(0, 3, 4000).astype(np.float64) for side in (1.0, -1.0))
    h, l, c = ((x * 0.05).round(2) * scale for x in (high, low, close))  # noqa: E741
    is_broken = (np.diff(high) == -np.diff(low)) & (np.diff(high) > 0) & (np.diff(h) != -np.diff(l))
    assert is_broken.sum() > 50
    found = recursive.directional_movement(h, l, c, one_run(4000), 14)
    exact = recursive.directional_movement(high, low, close, one_run(4000), 14)
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-6)


def test_rounding_does_not_push_the_directional_index_beyond_a_hundred():
    close = np.arange(100.0, 400.0)
    indices = [recursive.directional_movement(close, close, close, one_run(300), p)[2] for p in range(2, 60)]
    assert np.nanmax(indices) == 100.0


def test_volume_weighted_prices_begin_anew_in_each_session_and_wait_for_volume():
    price, session = np.array([10.0, 20, 30, 40, 50]), np.array([0, 0, 1, 1, 1])
    vwap = recursive.session_vwap(price, np.array([1.0, 3, 0, 2, 2]), session, one_run(5))
    np.testing.assert_allclose(vwap, [10, (10 + 60) / 4, np.nan, 40, 45])


def test_an_unknown_volume_ends_the_volume_weighted_price_of_its_session_only():
    price, session = np.array([10.0, 20, 30, 40, 50]), np.array([0, 0, 0, 1, 1])
    vwap = recursive.session_vwap(price, np.array([1.0, np.nan, 1, 1, 1]), session, one_run(5))
    np.testing.assert_allclose(vwap, [10, np.nan, np.nan, 40, 45])


def test_an_unknown_value_ends_a_recursion():
    values = np.array([1.0, 2, 3, np.nan, 5, 6, 7, 8])
    for series in (
        recursive.exponential_mean(values, one_run(8), 2),
        recursive.wilder_rsi(values, one_run(8), 2),
        recursive.macd_lines(values, one_run(8), 1, 2, 1)[1],
        recursive.accumulated(values, one_run(8)),
    ):
        assert np.isfinite(series[2])
        assert np.isnan(series[3:]).all()
