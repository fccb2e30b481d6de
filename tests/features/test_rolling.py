"""Rolling kernels against exact arithmetic on each window, on runs that overlap; what a NaN and a far past may do."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runcases import assert_follows_from_its_run_alone, bars_and_runs, row_by_row, runs_of, sessions_of_bars

from odin_core.features import rolling
from odin_core.features.series import Runs

WINDOWS = st.integers(1, 30)


def exact_fast_stochastic(high: list[float], low: list[float], close: list[float]) -> float:
    reach = max(high) - min(low)
    return (close[-1] - min(low)) / reach if reach else math.nan


def exact_z_score(values: list[float], count: int) -> float:
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return sum(v - mean for v in values[-count:]) / (deviation * math.sqrt(count)) if deviation else math.nan


EXACT = {
    "sum": (lambda x, r, w: rolling.rolling_sum(x, r, w), math.fsum),
    "mean": (lambda x, r, w: rolling.rolling_mean(x, r, w), statistics.fmean),
    "mean of moments": (lambda x, r, w: rolling.rolling_moments(x, r, w, 0)[0], statistics.fmean),
    "population deviation": (lambda x, r, w: rolling.rolling_moments(x, r, w, 0)[1], statistics.pstdev),
    "sample deviation": (
        lambda x, r, w: rolling.rolling_moments(x, r, w, 1)[1],
        lambda window: statistics.stdev(window) if len(window) > 1 else math.nan,
    ),
    "maximum": (lambda x, r, w: rolling.rolling_maximum(x, r, w), max),
    "minimum": (lambda x, r, w: rolling.rolling_minimum(x, r, w), min),
    "short mean": (lambda x, r, w: rolling.short_mean(x, r, w), statistics.fmean),
    "mean deviation": (
        lambda x, r, w: rolling.mean_deviation(x, rolling.rolling_mean(x, r, w), r, w),
        lambda window: statistics.fmean(abs(v - statistics.fmean(window)) for v in window),
    ),
}


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=40)
@given(case=bars_and_runs(), window=WINDOWS)
def test_a_rolling_kernel_agrees_with_exact_arithmetic_on_each_window(name: str, case, window: int):
    (bars, runs), (kernel, exact) = case, EXACT[name]
    values = bars.close.tolist()
    expected = row_by_row(
        runs,
        lambda rows: exact(values[rows][-window:]) if rows.stop - rows.start >= window else math.nan,
        len(bars),
    )
    np.testing.assert_allclose(kernel(bars.close, runs, window), expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=40)
@given(bars_and_runs(), st.integers(2, 30), st.data())
def test_the_z_score_of_the_last_few_agrees_with_exact_arithmetic(case, window: int, data: st.DataObject):
    bars, runs = case
    count, values = data.draw(st.integers(1, window - 1)), bars.volume.tolist()
    expected = row_by_row(
        runs,
        lambda rows: exact_z_score(values[rows][-window:], count) if rows.stop - rows.start >= window else math.nan,
        len(bars),
    )
    actual = rolling.rolling_z_score(bars.volume, runs, count, window)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=40)
@given(bars_and_runs(), WINDOWS)
def test_the_position_in_the_range_agrees_with_its_definition(case, window: int):
    bars, runs = case
    h, l, c = bars.high.tolist(), bars.low.tolist(), bars.close.tolist()  # noqa: E741

    def exact(rows: slice) -> float:
        enough = rows.stop - rows.start >= window
        return exact_fast_stochastic(*(x[rows][-window:] for x in (h, l, c))) if enough else math.nan

    actual = rolling.fast_stochastic(bars.high, bars.low, bars.close, runs, window)
    np.testing.assert_array_equal(actual, row_by_row(runs, exact, len(bars)))


@settings(max_examples=40)
@given(bars_and_runs(), st.integers(0, 30))
def test_a_lag_is_the_value_so_many_rows_before_in_the_same_run(case, count: int):
    bars, runs = case
    expected = row_by_row(
        runs, lambda rows: bars.close[rows.stop - 1 - count] if rows.stop - rows.start > count else math.nan, len(bars)
    )
    np.testing.assert_array_equal(rolling.lag(bars.close, runs, count), expected)


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=15)
@given(case=bars_and_runs(), window=WINDOWS)
def test_a_rolling_value_is_the_same_bits_from_the_rows_of_its_run_alone(name: str, case, window: int):
    assert_follows_from_its_run_alone(lambda bars, runs: EXACT[name][0](bars.close, runs, window), *case)


@pytest.mark.parametrize("kernel", [rolling.rolling_maximum, rolling.rolling_minimum, rolling.short_mean])
@settings(max_examples=15)
@given(bars=st.builds(sessions_of_bars, st.lists(st.integers(1, 20), min_size=2, max_size=5)), window=WINDOWS)
def test_values_of_overlapping_runs_that_are_all_wanted_are_those_of_one_long_run(kernel, bars, window: int):
    """Also where the look-back of a run ends inside what another one has written."""
    values, whole = bars.close, Runs(*(np.array([x]) for x in (0, 0, len(bars))))
    overlapping = rolling.throughout(runs_of(bars, window - 1))
    np.testing.assert_array_equal(kernel(values, overlapping, window), kernel(values, whole, window))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("window", [1, 2, 5, 8])
def test_exactly_the_windows_that_hold_an_unknown_value_are_nan(name: str, window: int):
    bars = sessions_of_bars([40])
    runs, values, unknown = runs_of(bars, 0), bars.volume.copy(), [0, 11, 12, 29]
    values[unknown] = np.nan
    without = EXACT[name][0](bars.volume, runs, window)
    holds = np.array([any(i - window < u <= i for u in unknown) for i in range(40)])
    np.testing.assert_array_equal(np.isnan(EXACT[name][0](values, runs, window)), holds | np.isnan(without))


@pytest.mark.parametrize("value", [100.1, 1e-9, 3e15, 0.1 + 0.2])
def test_equal_values_have_exactly_their_mean_and_no_deviation_after_whatever_came_before(value: float):
    before = np.random.default_rng(3).normal(1e6, 1e5, 1000)
    values = np.concatenate([before, np.full(100, value)])
    runs = Runs(*(np.array([x]) for x in (0, 0, len(values))))
    means, deviations = rolling.rolling_moments(values, runs, 20, 1)
    assert set(means[1019:].tolist()) == {value}
    assert set(rolling.rolling_mean(values, runs, 20)[1019:].tolist()) == {value}
    assert set(deviations[1019:].tolist()) == {0.0}
    assert (deviations[19:1019] > 0).all()
    assert np.isnan(rolling.rolling_z_score(values, runs, 2, 20)[1019:]).all()


def test_a_deviation_at_a_great_level_keeps_its_digits():
    """Values of 10¹² apart by some units: squares of the values themselves would have lost every digit."""
    units = np.random.default_rng(5).integers(0, 10, 500).astype(float)
    runs = Runs(*(np.array([x]) for x in (0, 0, 500)))
    small, great = (rolling.rolling_moments(units + level, runs, 20, 1)[1] for level in (0.0, 1e12))
    np.testing.assert_allclose(great, small, rtol=1e-12)


def test_a_ratio_to_nothing_is_nan():
    value, base = np.array([1.0, 0.0, 3.0]), np.array([0.0, 0.0, 2.0])
    np.testing.assert_array_equal(rolling.ratio(value, base), [np.nan, np.nan, 1.5])
    np.testing.assert_array_equal(rolling.relative(value, base), [np.nan, np.nan, 0.5])


def test_z_score_of_a_volume_spike_worked_by_hand():
    # values 1, 1, 1, 5: mean 2, squares 1 + 1 + 1 + 9 = 12, std √(12 / 3) = 2, so (5 − 2) / 2
    runs = Runs(*(np.array([x]) for x in (0, 0, 4)))
    assert rolling.rolling_z_score(np.array([1.0, 1, 1, 5]), runs, 1, 4)[-1] == 1.5


def test_no_rows_and_no_runs_give_nothing():
    nothing, no_runs = np.empty(0), Runs(*(np.empty(0, np.int64) for _ in range(3)))
    for kernel, _ in EXACT.values():
        assert kernel(nothing, no_runs, 5).shape == (0,)
        assert np.isnan(kernel(np.ones(3), no_runs, 5)).all()
