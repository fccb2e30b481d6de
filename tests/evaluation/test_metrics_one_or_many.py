"""One series or many, one by one or all at once: the metrics against each other, against laws, and a plain twin."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba.core.dispatcher import Dispatcher
from plainmetrics import plain_comparison, plain_summary

from odin_core.evaluation import metrics as m
from odin_core.evaluation import passes
from odin_core.evaluation.return_series import ReturnSeries

NAN = float("nan")
PERIODS = 252
CELLS = st.integers(-200, 200).map(lambda r: r / 1024) | st.just(NAN)  # sums are exact, so 0 is 0 in any order
RETURNS = hnp.arrays(np.float64, st.integers(0, 40), elements=CELLS)
PANELS = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=12), elements=CELLS)

FEWER = settings(max_examples=20)  # for what is asked of every metric

ANNUAL = [m.annual_return, m.annual_volatility, m.downside_deviation, m.sharpe_ratio, m.sortino_ratio, m.calmar_ratio,
          m.autocorrelation_adjusted_sharpe]  # fmt: skip
PLAIN = [m.total_return, m.max_drawdown, m.average_drawdown, m.hit_rate, m.expectancy, m.payoff_ratio, m.profit_factor,
         m.gain_to_pain, m.omega_ratio, m.value_at_risk, m.conditional_value_at_risk, m.tail_ratio, m.skewness,
         m.kurtosis, m.autocorrelation]  # fmt: skip
ANNUAL_AGAINST = [m.alpha, m.tracking_error, m.information_ratio]
AGAINST = [m.beta, m.correlation, *(partial(f, periods=PERIODS) for f in ANNUAL_AGAINST)]
NUMBERS: dict[str, Callable] = {
    **{f.__name__: partial(f, periods=PERIODS) for f in ANNUAL},
    **{f.__name__: f for f in PLAIN},
    "longest_time_under_water": lambda r: m.time_under_water(r).longest,
    "current_time_under_water": lambda r: m.time_under_water(r).current,
}
SUMS: dict[str, Callable] = {
    f"{name}, summed": partial(NUMBERS[name], compounded=False)
    for name in ("total_return", "annual_return", "calmar_ratio", "max_drawdown", "average_drawdown")
}
PATHS: dict[str, Callable] = {
    "drawdown_series": m.drawdown_series,
    "drawdown_series, summed": partial(m.drawdown_series, compounded=False),
    "drawdown_durations": m.drawdown_durations,
    "rolling_sharpe": partial(m.rolling_sharpe, periods=PERIODS, window=3),
}
INFERRED = {"observations", "ulcer_index", "sharpe_standard_error", "probabilistic_sharpe_ratio",
            "minimum_track_record_length"}  # fmt: skip


def named(functions: dict[str, Callable]) -> list:
    return [pytest.param(f, id=name) for name, f in functions.items()]


def test_every_function_of_returns_is_in_one_of_these_lists():
    """So that a new one is tested by all that follows."""
    against = {m.beta, m.correlation, *ANNUAL_AGAINST}
    listed = {f.__name__ for f in (*ANNUAL, *PLAIN, *against)} | {name.split(",")[0] for name in PATHS}
    functions = [f for _, f in inspect.getmembers(m, inspect.isfunction) if f.__module__ == m.__name__]
    of_returns = {f.__name__ for f in functions if "returns" in inspect.signature(f).parameters}
    assert {name for name in of_returns if name[0] != "_"} == listed | {"time_under_water", "summary"}


@pytest.mark.parametrize("metric", named(NUMBERS | SUMS))
@FEWER
@given(panel=PANELS)
def test_many_series_give_what_each_gives_alone(metric, panel):
    before = panel.copy()
    alone = [metric(row) for row in panel.reshape(-1, panel.shape[-1])]
    assert all(isinstance(value, float) for value in alone)
    together = metric(panel)
    assert together.shape == panel.shape[:-1]
    np.testing.assert_array_equal(together.ravel(), alone)
    np.testing.assert_array_equal(panel, before)


@pytest.mark.parametrize("path", named(PATHS))
@FEWER
@given(panel=PANELS)
def test_paths_of_many_series_keep_the_place_of_rows_that_are_missing(path, panel):
    together = path(panel)
    assert together.shape == panel.shape
    for many, row in zip(together.reshape(-1, panel.shape[-1]), panel.reshape(-1, panel.shape[-1]), strict=True):
        np.testing.assert_array_equal(many[~np.isnan(row)], path(row))
        assert np.isnan(many[np.isnan(row)]).all()


@pytest.mark.parametrize("metric", named(NUMBERS | SUMS | PATHS))
@FEWER
@given(returns=RETURNS)
def test_a_missing_row_is_neither_a_return_nor_time(metric, returns):
    np.testing.assert_array_equal(metric(returns), metric(returns[~np.isnan(returns)]))


@pytest.mark.parametrize("metric", named(NUMBERS | SUMS))
@pytest.mark.parametrize("returns", [[], [NAN, NAN]], ids=str)
def test_no_return_gives_no_number(metric, returns):
    assert math.isnan(metric(returns))


@pytest.mark.parametrize("metric", named(NUMBERS | SUMS | PATHS))
def test_order_in_memory_shared_passes_and_lists_change_nothing(metric):
    panel = np.random.default_rng(5).normal(0, 0.01, (30, 4))
    expected = metric(np.ascontiguousarray(panel.T))
    np.testing.assert_array_equal(metric(panel.T), expected)
    np.testing.assert_array_equal(metric(panel.T.tolist()), expected)
    series = ReturnSeries(panel.T)
    np.testing.assert_array_equal([metric(series), metric(series)], [expected, expected])


@pytest.mark.parametrize("metric", named(NUMBERS))
def test_one_number_has_no_time(metric):
    with pytest.raises(ValueError, match="last axis"):
        metric(0.01)


@pytest.mark.parametrize("metric", named(NUMBERS | PATHS))
def test_an_infinite_return_is_refused(metric):
    with pytest.raises(ValueError, match="1 infinite returns: mend the prices"):
        metric([0.1, math.inf, -0.5])


@pytest.mark.parametrize("metric", named(NUMBERS | PATHS))
def test_whole_numbers_single_precision_and_columns_of_a_table_are_taken(metric):
    whole = np.array([1, -1, 0, 2, -1])
    expected = metric(whole.astype(np.float64))
    for given_as in (whole, whole.astype(np.float32), pl.Series([1, -1, 0, None, 2, -1])):
        np.testing.assert_array_equal(metric(given_as), expected)


def test_no_kind_of_array_is_compiled_for_twice():
    column = pl.Series(np.random.default_rng(7).normal(0, 0.01, 50)).to_numpy()  # not writeable
    for returns in (column, np.vstack([column, column]), np.asfortranarray(np.vstack([column, column]))):
        m.summary(returns, PERIODS, benchmark=column)
        m.rolling_sharpe(returns, PERIODS, 5)
        m.drawdown_durations(returns)
    kernels = [kernel for kernel in vars(passes).values() if isinstance(kernel, Dispatcher)]
    assert max(len(kernel.signatures) for kernel in kernels) == 1


def test_no_series_at_all_give_no_numbers():
    empty = np.zeros((0, 7))
    assert m.sharpe_ratio(empty, PERIODS).shape == (0,)
    assert m.rolling_sharpe(empty, PERIODS, 3).shape == (0, 7)
    assert all(values.shape == (0,) for values in m.summary(empty, PERIODS, benchmark=np.zeros(7)).values())


@given(PANELS)
def test_the_summary_is_what_its_functions_say(panel):
    found = m.summary(panel, PERIODS)
    assert set(found) == set(NUMBERS) | INFERRED
    for name, metric in NUMBERS.items():
        np.testing.assert_array_equal(found[name], metric(panel), err_msg=name)
    sharpe = np.asarray(m.sharpe_ratio(panel, 1))
    shape = (m.skewness(panel), m.kurtosis(panel))
    count = (~np.isnan(panel)).sum(axis=-1)
    np.testing.assert_array_equal(found["observations"], count)
    error = m.sharpe_standard_error(sharpe, count, *shape) * math.sqrt(PERIODS)
    np.testing.assert_array_equal(found["sharpe_standard_error"], error)
    np.testing.assert_array_equal(
        found["probabilistic_sharpe_ratio"], m.probabilistic_sharpe_ratio(sharpe, count, *shape)
    )
    np.testing.assert_array_equal(found["minimum_track_record_length"], m.minimum_track_record_length(sharpe, *shape))
    wealth = np.where(np.isnan(panel), NAN, np.cumprod(1 + np.nan_to_num(panel), axis=-1))
    prices = np.concatenate([np.where(count > 0, 1.0, NAN)[..., None], wealth], axis=-1)
    np.testing.assert_allclose(found["ulcer_index"], m.ulcer_index(prices), rtol=1e-9, atol=1e-9)


@settings(max_examples=60)
@given(PANELS, st.booleans())
def test_the_summary_agrees_with_a_plain_one(panel, compounded):
    found = m.summary(panel, PERIODS, compounded=compounded)
    rows = panel.reshape(-1, panel.shape[-1])
    for i, row in enumerate(rows):
        plain = plain_summary(row, PERIODS, compounded)
        del plain["autocorrelation_adjusted_sharpe"]  # divides by what may be rounding; it is compared below
        for name, expected in plain.items():
            assert found[name].ravel()[i] == pytest.approx(expected, rel=1e-7, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("periods_known", [4, 6, 8, 40, 300])
def test_the_adjustment_for_autocorrelation_agrees_with_a_plain_one(periods_known):
    panel = np.random.default_rng(periods_known).normal(0.001, 0.01, (20, periods_known))
    found = m.autocorrelation_adjusted_sharpe(panel, PERIODS)
    expected = [plain_summary(row, PERIODS)["autocorrelation_adjusted_sharpe"] for row in panel]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@given(PANELS)
def test_a_summary_of_returns_that_are_not_reinvested_is_what_its_functions_say(panel):
    found = m.summary(panel, PERIODS, compounded=False)
    for name, metric in SUMS.items():
        np.testing.assert_array_equal(found[name.split(",")[0]], metric(panel), err_msg=name)
    under_water = m.time_under_water(panel, compounded=False)
    np.testing.assert_array_equal(found["longest_time_under_water"], under_water.longest)
    np.testing.assert_array_equal(found["current_time_under_water"], under_water.current)
    np.testing.assert_array_equal(found["sharpe_ratio"], m.sharpe_ratio(panel, PERIODS))


@given(hnp.arrays(np.float64, (2, 30), elements=CELLS))
def test_a_comparison_agrees_with_a_regression(pair):
    returns, benchmark = pair
    both = ~np.isnan(pair).any(axis=0)
    if both.sum() < 3 or min(np.ptp(returns[both]), np.ptp(benchmark[both])) < 1e-3:
        return
    found = m.summary(returns, PERIODS, benchmark=benchmark)
    for name, expected in plain_comparison(returns, benchmark, PERIODS).items():
        assert found[name] == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("metric", AGAINST)
@FEWER
@given(panel=hnp.arrays(np.float64, (3, 2, 9), elements=CELLS))
def test_many_series_compare_with_one_benchmark_or_each_with_its_own(metric, panel):
    one, each = panel[0, 0], np.roll(panel, 1, axis=0)
    against_one, against_each = metric(panel, benchmark=one), metric(panel, benchmark=each)
    assert against_one.shape == against_each.shape == (3, 2)
    for place in np.ndindex(3, 2):
        np.testing.assert_array_equal(against_one[place], metric(panel[place], benchmark=one))
        np.testing.assert_array_equal(against_each[place], metric(panel[place], benchmark=each[place]))


def test_the_summary_compares_more_series_than_it_takes_at_a_time():
    panel = np.random.default_rng(6).normal(0, 0.01, (2 * m.CHUNK + 3, 20))
    for benchmark in (panel[7], panel[::-1]):
        found = m.summary(panel, PERIODS, benchmark=benchmark)
        np.testing.assert_array_equal(found["beta"], m.beta(panel, benchmark))
        np.testing.assert_array_equal(found["information_ratio"], m.information_ratio(panel, benchmark, PERIODS))
        np.testing.assert_array_equal(found["sharpe_ratio"], m.sharpe_ratio(panel, PERIODS))


@given(hnp.arrays(np.float64, 20, elements=st.floats(-0.2, 0.2).map(lambda r: round(r, 4))), st.floats(0.1, 3))
def test_a_levered_benchmark_has_its_leverage_as_beta_and_no_alpha(benchmark, leverage):
    if np.ptp(benchmark) < 1e-3:
        return
    assert m.beta(leverage * benchmark, benchmark) == pytest.approx(leverage)
    assert m.alpha(leverage * benchmark + 0.001, benchmark, PERIODS) == pytest.approx(0.252, abs=1e-9)
    assert m.correlation(leverage * benchmark, benchmark) == pytest.approx(1)


@given(hnp.arrays(np.float64, (2, 20), elements=CELLS))
def test_the_information_ratio_is_the_sharpe_ratio_of_the_difference(pair):
    returns, benchmark = pair
    difference = m.sharpe_ratio(returns - benchmark, PERIODS)
    np.testing.assert_allclose(m.information_ratio(returns, benchmark, PERIODS), difference, rtol=1e-9)


def test_a_constant_benchmark_explains_nothing():
    flat = np.full(10, 0.01)
    moving = np.random.default_rng(1).normal(0, 0.01, 10)
    assert all(math.isnan(metric(moving, benchmark=flat)) for metric in (m.beta, m.correlation))
    assert math.isnan(m.alpha(moving, flat, PERIODS))
    assert math.isnan(m.information_ratio(moving, moving, PERIODS))
    assert m.tracking_error(moving, moving, PERIODS) == 0


@pytest.mark.parametrize("shape", [(4,), (3, 5), (1, 5), ()], ids=str)
def test_a_benchmark_of_other_periods_or_series_is_refused(shape):
    with pytest.raises(ValueError, match=r"a benchmark of shape .* for returns of shape \(2, 5\)"):
        m.beta(np.zeros((2, 5)), np.zeros(shape))


@pytest.mark.parametrize("persistence", [-0.4, 0.0, 0.4])
def test_returns_that_follow_one_another_are_annualised_by_their_years(persistence):
    """An AR(1) of many years: its autocorrelations are powers of the persistence; the adjusted ratio is the Sharpe
    ratio of whole years, where the square root of time is not."""
    shocks = np.random.default_rng(8).normal(0, 1, 2_000_000)
    returns = np.empty_like(shocks)
    last = 0.0
    for t, shock in enumerate(shocks):
        returns[t] = last = persistence * last + shock
    returns += 0.05
    assert m.autocorrelation(returns) == pytest.approx(persistence, abs=3e-3)
    assert m.autocorrelation(returns, 2) == pytest.approx(persistence**2, abs=3e-3)
    years = returns.reshape(-1, 20).sum(axis=1)
    of_years = years.mean() / years.std(ddof=1)
    assert m.autocorrelation_adjusted_sharpe(returns, 20, lags=10) == pytest.approx(of_years, rel=0.01)
    if persistence:
        assert m.sharpe_ratio(returns, 20) != pytest.approx(of_years, rel=0.1)


def test_as_many_lags_as_returns_are_too_many():
    returns = [0.1, 0.2, -0.1]
    assert not math.isnan(m.autocorrelation(returns, 2))
    assert math.isnan(m.autocorrelation(returns, 3))
    assert math.isnan(m.autocorrelation_adjusted_sharpe(returns, 252, lags=3))
    with pytest.raises(ValueError, match="0 lags"):
        m.autocorrelation(returns, 0)


def test_time_under_water_worked_by_hand():
    """Peaks at 1.1 and 1.2; wealth 1, 1.1 | 1.0, 1.05, 1.1 (recovered) | 1.2 | 1.19, 1.18."""
    wealth = np.array([1, 1.1, 1.0, 1.05, 1.1, 1.2, 1.19, 1.18])
    gained = np.diff(wealth)
    assert m.drawdown_durations(gained, compounded=False).tolist() == [0, 1, 2, 0, 0, 1, 2]
    assert m.time_under_water(gained, compounded=False) == (2, 2)
    assert m.time_under_water([-0.1, 0.05, NAN, 0.01, 0.3, 0.1]) == (3, 0)
    assert m.time_under_water([0.1, 0.0, 0.1]) == (0, 0)


def test_rounding_is_not_under_water():
    lost_and_regained = [0.01, -0.08, 0.08, 0.0, 0.0]  # 0.01 − 0.08 + 0.08 is 0.009999999999999995
    assert m.drawdown_series(lost_and_regained, compounded=False)[-1] < 0
    assert m.time_under_water(lost_and_regained, compounded=False) == (1, 0)


@given(RETURNS, st.integers(2, 6))
def test_rolling_ratios_are_those_of_their_windows(returns, window):
    r = returns[~np.isnan(returns)]
    alone = [m.sharpe_ratio(r[: i + 1][-window:], PERIODS) if i + 1 >= window else NAN for i in range(len(r))]
    np.testing.assert_allclose(m.rolling_sharpe(returns, PERIODS, window), alone, rtol=1e-6, atol=1e-9)


def test_a_window_takes_two_returns():
    with pytest.raises(ValueError, match="window=1"):
        m.rolling_sharpe([0.1, 0.2], PERIODS, 1)


@pytest.mark.parametrize("metric", [m.value_at_risk, m.conditional_value_at_risk, m.tail_ratio])
def test_a_level_outside_zero_to_one_is_refused(metric):
    with pytest.raises(ValueError, match=r"level=1\.5"):
        metric([0.1, 0.2], 1.5)


@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-0.2, 0.2)), st.floats(0, 1))
def test_quantiles_are_those_of_numpy_bit_by_bit(returns, level):
    assert m.value_at_risk(returns, level) == np.quantile(returns, level)


@pytest.mark.parametrize("constant", [0.1, -0.03, 0.0])
def test_a_constant_series_has_no_shape_and_no_spread(constant):
    flat = np.full(13, constant)
    assert m.annual_volatility(flat, PERIODS) == 0
    assert m.expectancy(flat) == constant
    assert all(math.isnan(f(flat)) for f in (m.skewness, m.kurtosis, partial(m.sharpe_ratio, periods=1)))


def test_a_tiny_spread_on_a_large_mean_is_not_lost():
    """The first sum of a million rounds; the second pass takes that out."""
    noise = np.random.default_rng(2).normal(0, 1e-9, 100_000)
    assert m.annual_volatility(1.0 + noise, 1) == pytest.approx(np.std(1.0 + noise, ddof=1), rel=1e-9)
    assert m.expectancy(1.0 + noise) == pytest.approx(np.mean(1.0 + noise), rel=1e-15)


def test_wealth_that_was_lost_stays_lost():
    assert m.total_return([-1.5, -1.5]) == -1.0
    assert m.annual_return([0.1, -1.0, 0.5], PERIODS) == -1.0


@pytest.fixture(scope="module")
def nse_panel(market_file: Callable[[str], Path]) -> np.ndarray:
    """Returns of NSE shares (symbols, sessions), NaN where a symbol did not trade."""
    prices = pl.read_parquet(market_file("nse_daily_adjusted.parquet")).pivot("symbol", index="ts", values="close")
    closes = prices.sort("ts").drop("ts").to_numpy().T.astype(np.float64)
    returns = closes[:, 1:] / closes[:, :-1] - 1
    return returns[np.count_nonzero(~np.isnan(returns), axis=1) > 250]


def test_real_shares_agree_with_the_plain_twin(nse_panel):
    found = m.summary(nse_panel, PERIODS, benchmark=np.nanmean(nse_panel, axis=0))
    assert np.isnan(nse_panel).any()
    for i in range(0, len(nse_panel), 7):
        for name, expected in plain_summary(nse_panel[i], PERIODS).items():
            assert found[name][i] == pytest.approx(expected, rel=1e-9, abs=1e-11, nan_ok=True), name
        for name, expected in plain_comparison(nse_panel[i], np.nanmean(nse_panel, axis=0), PERIODS).items():
            assert found[name][i] == pytest.approx(expected, rel=1e-6, nan_ok=True), name
    assert (found["max_drawdown"] <= found["average_drawdown"]).all()
    assert (found["conditional_value_at_risk"] <= found["value_at_risk"]).all()
