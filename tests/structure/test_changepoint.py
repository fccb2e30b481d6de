"""Run lengths against their definition, a sum over all ways to cut the past into runs; and planted changes."""

import math
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from plantedregimes import bars_of, days, high_low_close, planted_market
from polars.testing import assert_frame_equal
from scipy.special import gammaln

from odin_core.structure.changepoint import (
    CHANGE_POINTS,
    MEAN_RUN,
    PRIOR_SHAPE,
    PRIOR_WEIGHT,
    RECENT,
    change_points,
    run_lengths,
)
from odin_core.structure.observations import SESSIONS_NEEDED, session_observations

FloatArray = NDArray[np.float64]
KEY = ["symbol", "session"]


def evidence(values: FloatArray) -> float:
    """ln p(values of one run), Normal-Gamma prior of expected variance 1: Murphy 2007, equations 85 to 89 and 95."""
    n = len(values)
    if n == 0:
        return 0.0
    rate = PRIOR_SHAPE - 1.0
    mean = values.mean()
    shape = PRIOR_SHAPE + n / 2
    rate_after = rate + 0.5 * ((values - mean) ** 2).sum()
    rate_after += PRIOR_WEIGHT * n * mean**2 / (2 * (PRIOR_WEIGHT + n))
    gammas = gammaln(shape) - gammaln(PRIOR_SHAPE) + PRIOR_SHAPE * math.log(rate) - shape * math.log(rate_after)
    return float(gammas + 0.5 * math.log(PRIOR_WEIGHT / (PRIOR_WEIGHT + n)) - n / 2 * math.log(2 * math.pi))


def run_lengths_by_hand(values: FloatArray) -> FloatArray:
    """Posterior after the last value. `ended[s]`: ln p(first s values, a run ended right after them)."""
    n, hazard = len(values), 1.0 / MEAN_RUN
    ended = [0.0]
    for s in range(1, n + 1):
        ways = [
            ended[b] + evidence(values[b:s]) + (s - b - 1) * math.log(1 - hazard) + math.log(hazard) for b in range(s)
        ]
        ended.append(float(np.logaddexp.reduce(ways)))
    lengths = range(n + 1)
    joint = np.array([ended[n - run] + evidence(values[n - run :]) + run * math.log(1 - hazard) for run in lengths])
    return np.exp(joint - np.logaddexp.reduce(joint))


@settings(max_examples=60)
@given(hnp.arrays(np.float64, st.integers(1, 25), elements=st.floats(-8, 8)))
def test_run_lengths_are_a_sum_over_all_cuts(values):
    posterior = run_lengths(values)
    for t in {0, len(values) // 2, len(values) - 1}:
        np.testing.assert_allclose(posterior[t, : t + 2], run_lengths_by_hand(values[: t + 1]), atol=1e-9)
        assert (posterior[t, t + 2 :] == 0.0).all()


@given(hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6)), st.data())
def test_each_row_is_a_distribution_and_knows_nothing_of_later_ones(values, data):
    posterior = run_lengths(values)
    np.testing.assert_allclose(posterior.sum(axis=1), 1.0, atol=1e-9)
    cut = data.draw(st.integers(1, len(values)))
    assert np.array_equal(run_lengths(values[:cut]), posterior[:cut, : cut + 1])


def test_a_missing_value_is_no_observation():
    values = np.random.default_rng(0).normal(size=40)
    holes = np.insert(values, [7, 7, 30], [np.nan, np.inf, np.nan])
    kept = np.isfinite(holes)
    assert np.array_equal(run_lengths(holes)[kept][:, :41], run_lengths(values))
    assert np.array_equal(run_lengths(holes)[7], run_lengths(holes)[6])


@pytest.mark.parametrize(
    ("mean", "spread", "within"),
    [
        pytest.param(4.0, 1.0, 3, id="mean"),
        pytest.param(0.0, 5.0, 6, id="variance"),
    ],
)
def test_a_planted_shift_is_seen_soon_and_its_age_is_right(mean, spread, within):
    rng = np.random.default_rng(1)
    seen, ages, before = [], [], []
    for _ in range(40):
        values = np.concatenate([rng.normal(size=80), rng.normal(mean, spread, size=20)])
        posterior = run_lengths(values)
        recent = posterior[:, : RECENT + 1].sum(axis=1)
        before.append(recent[79])
        seen.append(recent[80 : 80 + within].max())
        ages.append(posterior[94] @ np.arange(101.0))
    assert np.median(before) < 0.1
    assert np.median(seen) > 0.8
    assert np.median(ages) == pytest.approx(15, abs=3)


def test_noise_rarely_alarms():
    """Normal values without a change: of six samples like this one, 0.3 to 0.5 % of the rows were called a change."""
    rng = np.random.default_rng(2)
    recent = [run_lengths(rng.normal(size=100))[40:, : RECENT + 1].sum(axis=1) for _ in range(50)]
    assert (np.concatenate(recent) > 0.5).mean() < 0.01


@pytest.fixture(scope="module")
def market() -> pl.DataFrame:
    return session_observations(planted_market(symbols=6, sessions=260, seed=11))


def test_the_table_is_the_detector_on_standardised_look_backs(market):
    table = change_points(market)
    assert table.schema == CHANGE_POINTS
    assert table.select(KEY).equals(market.select(KEY))
    row = 163  # a Thursday: its week begins at 160, the look-back at 40
    for name, column in (("return", "log_return"), ("volatility", "log_range")):
        values = market[column].to_numpy()[40 : row + 1]
        past = values[:120]
        posterior = run_lengths((values - past.mean()) / past.std())[-1]
        found = table.row(row, named=True)
        assert found[f"{name}_change_probability"] == pytest.approx(posterior[: RECENT + 1].sum(), rel=1e-9)
        assert found[f"{name}_run_length"] == pytest.approx(posterior @ np.arange(len(posterior)), rel=1e-9)


def test_planted_changes_of_volatility_stand_out():
    market = planted_market(symbols=10, sessions=300, seed=12)
    table = change_points(session_observations(market)).join(market, on=KEY)
    wild = (table["state"] == 2).to_numpy()
    age = pl.Series(
        np.arange(table.height)
        - np.maximum.accumulate(np.where(np.diff(wild, prepend=wild[0]), np.arange(table.height), 0))
    )
    probability, length = table["volatility_change_probability"], table["volatility_run_length"]
    assert probability.filter(age.is_between(2, 4)).mean() > 0.6
    assert probability.filter(age > 12).mean() < 0.15
    assert length.filter(age.is_between(2, 4)).mean() < 0.5 * length.filter(age > 12).mean()


@settings(max_examples=10)
@given(st.integers(140, 255))
def test_later_sessions_change_nothing(market, cut):
    last = market["session"][cut]
    known = pl.col("session") <= last
    whole = change_points(market).filter(known)
    assert_frame_equal(change_points(market.filter(known)), whole, check_exact=True)
    moment = datetime(last.year, last.month, last.day, 10, tzinfo=UTC)
    assert_frame_equal(change_points(market, as_of=moment), whole, check_exact=True)


def test_a_session_follows_from_its_last_sessions_alone():
    bars = planted_market(symbols=2, sessions=190, seed=13, every_day=True).drop("state")
    sessions = bars["session"].unique().sort()
    whole = change_points(session_observations(bars))
    for at in range(SESSIONS_NEEDED - 1, 190, 3):
        needed = bars.filter(pl.col("session").is_between(sessions[at - SESSIONS_NEEDED + 1], sessions[at]))
        one = change_points(session_observations(needed), first=sessions[at])
        assert_frame_equal(one, whole.filter(pl.col("session") == sessions[at]), check_exact=True)
        assert one.null_count().sum_horizontal().item() == 0


def test_a_price_scale_changes_nothing():
    bars = planted_market(symbols=3, sessions=200, seed=14)
    scaled = bars.with_columns(pl.col("high", "low", "close") * 0.37)
    plain = change_points(session_observations(bars))
    assert plain["return_run_length"].drop_nulls().len() > 100
    assert_frame_equal(change_points(session_observations(scaled)), plain, abs_tol=1e-7)


@pytest.mark.filterwarnings("error")
def test_where_nothing_is_known_there_is_no_probability(market):
    assert change_points(market.clear()).schema == CHANGE_POINTS
    assert change_points(market.head(130)).drop(KEY).null_count().row(0) == (130,) * 4
    unknown = market.with_columns(log_return=None, log_range=pl.lit(-4.0))
    assert change_points(unknown).drop(KEY).null_count().row(0) == (market.height,) * 4
    gap = market.with_columns(log_range=pl.when(pl.int_range(pl.len()) != 150).then("log_range"))
    table = change_points(gap.head(200))
    assert table["volatility_run_length"].is_null().arg_true().to_list() == [*range(130), 150]
    assert table["return_run_length"].null_count() == 130


def test_a_crash_out_of_calm_is_a_change_of_both():
    rng = np.random.default_rng(15)
    calm = high_low_close(np.ones(200, dtype=np.int64), rng)
    calm[180:] *= np.exp(-0.06 * np.arange(1, 21))[:, None]
    last = change_points(session_observations(bars_of("ONE", days(200), calm)))[183]
    assert last["return_change_probability"][0] > 0.8
    assert last["volatility_change_probability"][0] > 0.8
