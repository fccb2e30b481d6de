"""The information coefficient: scipy session by session, errors against statsmodels, and how often its alarm errs."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from odin_core.evaluation.information import (
    BY_HORIZON,
    daily_rank_ic,
    half_life,
    ic_by_horizon,
    leak_alarm,
    mean_ic,
    newey_west_error,
    newey_west_lags,
    quantile_spread,
)
from odin_core.evaluation.ranking import information_coefficient

NUMBER = st.integers(-4, 4).map(float) | st.just(math.nan)
PANEL = st.integers(0, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, n, elements=NUMBER),
        hnp.arrays(np.float64, n, elements=NUMBER),
        hnp.arrays(np.int64, n, elements=st.integers(0, 4)),
    )
)


def panel(ic: float, sessions: int = 120, symbols: int = 50, seed: int = 0):
    """Scores and outcomes whose rank correlation within a session is `ic` on average, and the session."""
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(sessions), symbols)
    rho = 2 * math.sin(math.pi * ic / 6)  # Pearson's for a normal pair of that rank correlation
    x, noise = rng.standard_normal((2, session.size))
    return x, rho * x + math.sqrt(1 - rho**2) * noise, session


@given(PANEL, st.integers(2, 6))
def test_each_session_is_ranked_as_if_it_were_alone(drawn, fewest):
    x, y, session = drawn
    daily = daily_rank_ic(x, y, session, fewest=fewest)
    assert daily.session.tolist() == sorted(set(session.tolist()))
    for name, ic, symbols in zip(daily.session, daily.ic, daily.symbols, strict=True):
        mine = session == name
        both = mine & ~np.isnan(x) & ~np.isnan(y)
        assert symbols == both.sum()
        expected = information_coefficient(x[mine], y[mine]) if symbols >= fewest else math.nan
        assert ic == pytest.approx(expected, nan_ok=True, abs=1e-12)


def test_the_daily_coefficient_is_scipys_in_any_order_of_rows_and_of_days_as_dates():
    stats = pytest.importorskip("scipy.stats")
    x, y, session = panel(0.1, sessions=8)
    x = np.round(x, 1)  # ties
    shuffled = np.random.default_rng(1).permutation(x.size)
    day = np.datetime64("2023-01-02") + session[shuffled]
    daily = daily_rank_ic(x[shuffled], y[shuffled], day)
    assert daily.session[0] == np.datetime64("2023-01-02")
    expected = [stats.spearmanr(x[session == s], y[session == s]).statistic for s in range(8)]
    np.testing.assert_allclose(daily.ic, expected, atol=1e-12)


def test_a_session_of_too_few_symbols_has_no_coefficient():
    x, y, session = panel(0.5, sessions=3, symbols=5)
    x[0] = math.nan
    daily = daily_rank_ic(x, y, session)
    assert daily.symbols.tolist() == [4, 5, 5]
    assert np.isnan(daily.ic).tolist() == [True, False, False]
    assert np.isnan(daily_rank_ic([math.nan], [1.0], [1]).ic).all()
    assert daily_rank_ic([], [], []).ic.shape == (0,)


@given(hnp.arrays(np.float64, st.integers(3, 40), elements=st.floats(-1, 1)), st.integers(0, 6))
def test_the_newey_west_error_is_the_double_sum_over_pairs(values, lags):
    lags = min(lags, values.size - 1)
    d = values - values.mean()
    apart = np.abs(np.subtract.outer(np.arange(d.size), np.arange(d.size)))
    weight = np.maximum(1 - apart / (lags + 1), 0)
    variance = float(d @ weight @ d) / d.size / (d.size - 1)
    assert newey_west_error(values, lags) ** 2 == pytest.approx(max(variance, 0), abs=1e-12)


def test_the_mean_coefficient_is_statsmodels_constant_with_its_errors():
    statsmodels = pytest.importorskip("statsmodels.regression.linear_model", reason="statsmodels is the second opinion")
    ic = np.random.default_rng(2).standard_normal(60).cumsum() / 50 + 0.03
    fit = statsmodels.OLS(ic, np.ones(60)).fit(
        cov_type="HAC", cov_kwds={"maxlags": 5, "use_correction": True}, use_t=True
    )
    found = mean_ic(ic, lags=5)
    assert (found.mean, found.error, found.t) == pytest.approx((fit.params[0], fit.bse[0], fit.tvalues[0]))
    assert (found.lower, found.upper) == pytest.approx(tuple(fit.conf_int()[0]))


def test_the_mean_drops_sessions_without_a_coefficient_and_needs_two():
    assert mean_ic([0.1, math.nan, 0.3]).mean == pytest.approx(0.2)
    assert mean_ic([0.1, math.nan]).sessions == 1
    assert math.isnan(mean_ic([0.1]).t)
    assert math.isnan(mean_ic([]).mean)
    assert math.isnan(mean_ic([0.1, 0.1, 0.1]).t)


@pytest.mark.parametrize(("n", "horizon", "lags"), [(100, 1, 4), (1_000, 1, 6), (100, 10, 18), (5, 10, 4), (0, 1, 0)])
def test_the_lags_follow_the_sample_and_the_overlap_of_outcomes(n, horizon, lags):
    assert newey_west_lags(n, horizon) == lags


def test_overlapping_outcomes_are_counted_once():
    """A score without skill that keeps its ranks, on outcomes over five sessions: without lags a t of 2 comes often."""
    plain, aware = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        step = rng.standard_normal((130, 20))
        ahead = np.stack([step[t + 1 : t + 6].sum(axis=0) for t in range(120)])
        score = np.tile(rng.standard_normal(20), 120)
        ic = daily_rank_ic(score, ahead.ravel(), np.repeat(np.arange(120), 20)).ic
        plain.append(abs(mean_ic(ic, lags=0).t) > 1.98)
        aware.append(abs(mean_ic(ic, horizon=5).t) > 1.98)
    assert np.mean(plain) > 0.3
    assert np.mean(aware) < 0.15


def test_the_table_by_horizon_shows_where_the_skill_lies_and_how_it_fades():
    rng = np.random.default_rng(4)
    sessions, symbols = 250, 40
    score = rng.standard_normal((sessions, symbols))
    step = rng.standard_normal((sessions + 20, symbols))
    step[1 : sessions + 1] += 0.3 * score  # only the next session's outcome
    session = np.repeat(np.arange(sessions), symbols)
    outcomes = {}
    for horizon in (5, 1, 20):
        ahead = np.stack([step[t + 1 : t + 1 + horizon].sum(axis=0) for t in range(sessions)])
        ahead[sessions - horizon :] = math.nan  # not known yet
        outcomes[horizon] = ahead.ravel()
    table = ic_by_horizon(score.ravel(), outcomes, session)
    assert table.schema == BY_HORIZON
    assert table["horizon"].to_list() == [1, 5, 20]
    assert table["sessions"].to_list() == [249, 245, 230]
    first, second, third = table.iter_rows(named=True)
    assert first["ic"] == pytest.approx(6 / math.pi * math.asin(0.3 / math.sqrt(1.09) / 2), abs=0.02)
    assert first["lower"] > 0
    assert first["positive"] > 0.9
    assert first["spread_hit"] > 0.9
    assert second["ic"] == pytest.approx(first["ic"] / math.sqrt(5), abs=0.03)
    assert third["decay"] < second["decay"] < first["decay"] == 1
    assert 2 < half_life(table["horizon"].to_numpy(), table["ic"].to_numpy()) < 20
    alone = mean_ic(daily_rank_ic(score.ravel(), outcomes[5], session).ic, horizon=5)
    assert (second["t"], second["lower"]) == (alone.t, alone.lower)
    assert ic_by_horizon(score.ravel(), {}, session).is_empty()


@given(st.integers(2, 6), st.integers(0, 12), st.integers(0, 99))
def test_the_quantiles_of_a_session_hold_equally_many_and_earn_what_a_loop_says(quantiles, symbols, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, 3 * symbols))
    session = np.repeat([10, 20, 30], symbols)
    found = quantile_spread(x, y, session, quantiles=quantiles)
    if symbols < quantiles:
        assert found.session.size == 0
        assert math.isnan(found.hit)
        return
    means = []
    for name in (10, 20, 30):
        order = np.argsort(x[session == name])
        part = (np.arange(symbols) + 0.5) * quantiles // symbols
        assert np.ptp(np.bincount(part.astype(int))) <= 1
        means.append([y[session == name][order][part == q].mean() for q in range(quantiles)])
    np.testing.assert_allclose(found.mean, np.mean(means, axis=0))
    np.testing.assert_allclose(found.spread, [m[-1] - m[0] for m in means])
    assert found.hit == np.mean(found.spread > 0)
    assert found.monotonic == pytest.approx(information_coefficient(np.arange(quantiles), np.mean(means, axis=0)))


def test_a_session_in_which_ties_leave_a_quantile_empty_is_left_out():
    found = quantile_spread([1, 1, 1, 1, 1, 2, 3, 4], [0, 0, 0, 0, 1, 2, 3, 4], [0] * 4 + [1] * 4, quantiles=2)
    assert found.session.tolist() == [1]
    assert found.spread.tolist() == [2.0]
    with pytest.raises(ValueError, match="at least two"):
        quantile_spread([1.0], [1.0], [0], quantiles=1)


def test_an_exponential_decay_gives_back_its_half_life():
    h = np.array([1, 2, 5, 10])
    assert half_life(h, 0.08 * 0.5 ** (h / 3)) == pytest.approx(3)
    assert half_life(h, [0.01, 0.02, 0.03, 0.04]) == math.inf
    assert half_life([1, 2, 4], [0.08, 0.04, -0.01]) == pytest.approx(1)
    assert math.isnan(half_life([1, 2], [0.08, -0.04]))


def ever(ic: float, lives: int, symbols: int = 50) -> tuple[float, float]:
    """Share of lives that ever raise the alarm when asked each fifth session, and that ever have a mean above 0.1."""
    alarm, point = [], []
    for life in range(lives):
        daily = daily_rank_ic(*panel(ic, sessions=60, symbols=symbols, seed=life)).ic
        looks = range(10, 61, 5)
        alarm.append(any(leak_alarm(daily[:t]).alarm for t in looks))
        point.append(any(daily[:t].mean() > 0.1 for t in looks))
    return float(np.mean(alarm)), float(np.mean(point))


def test_honest_skill_raises_no_alarm_where_the_plain_mean_would():
    alarm, point = ever(0.05, 150)
    assert alarm <= 0.01
    assert point > 0.1


def test_skill_at_the_ceiling_is_alarming_in_at_most_the_stated_share_of_lives():
    assert ever(0.1, 150)[0] <= 0.06


def test_a_leak_raises_the_alarm_within_weeks():
    assert ever(0.25, 60)[0] == 1.0


def test_the_alarm_is_a_pure_function_of_the_sessions_so_far_and_says_its_numbers():
    daily = daily_rank_ic(*panel(0.4, sessions=30)).ic
    found = leak_alarm(daily)
    assert found.alarm
    assert found.lower > 0.1
    assert "look for a leak" in found.text
    assert not leak_alarm(daily, 0.9).alarm
    assert not leak_alarm(daily[:9]).alarm
    assert not leak_alarm([]).alarm
    with_gap = np.insert(daily, 7, math.nan)
    assert leak_alarm(with_gap) == found


def test_real_shares_have_honest_skill_and_a_feature_that_knows_tomorrow_has_not(market_file):
    """NSE daily closes: reversal over five sessions ranks the next a little; tomorrow's move plus noise, too well."""
    daily = (
        pl.scan_parquet(market_file("nse_daily_adjusted.parquet"))
        .select("symbol", pl.col("ts").dt.date().alias("session"), "close")
        .filter(pl.col("session").is_between(pl.date(2018, 1, 1), pl.date(2019, 12, 31)))
        .sort("symbol", "session")
        .with_columns(
            reversal=-(pl.col("close").log() - pl.col("close").log().shift(5)).over("symbol"),
            ahead=(pl.col("close").shift(-1) / pl.col("close") - 1).over("symbol"),
        )
        .drop_nulls()
        .collect()
    )
    assert daily["session"].n_unique() > 200
    honest = daily_rank_ic(daily["reversal"], daily["ahead"], daily["session"])
    assert not leak_alarm(honest.ic).alarm
    assert abs(mean_ic(honest.ic).mean) < 0.1
    noise = np.random.default_rng(0).standard_normal(daily.height)
    ahead = daily["ahead"].to_numpy()
    leaked = daily_rank_ic(ahead / ahead.std() + 2 * noise, ahead, daily["session"])
    assert leak_alarm(leaked.ic[:60]).alarm
