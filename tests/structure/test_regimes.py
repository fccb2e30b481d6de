"""Regimes that were planted are found without the future, and follow from the last sessions alone."""

import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plantedregimes import bars_of, days, high_low_close, planted_market
from polars.testing import assert_frame_equal
from realdata import market_file

from odin_core.market.history import NaiveMoment
from odin_core.structure.observations import (
    LOOK_BACK,
    OBSERVATIONS,
    SESSIONS_NEEDED,
    MissingSessionColumns,
    RepeatedSession,
    session_observations,
)
from odin_core.structure.regimes import DIRECTIONS, REGIMES, VOLATILITIES, name_directions, regimes

KEY = ["symbol", "session"]
P_DIRECTIONS = [f"p_{name}" for name in DIRECTIONS]
P_VOLATILITIES = [f"p_{name}" for name in VOLATILITIES]


@pytest.fixture(scope="module")
def market() -> pl.DataFrame:
    return planted_market(symbols=12, sessions=300, seed=1)


@pytest.fixture(scope="module")
def one_symbol() -> pl.DataFrame:
    return planted_market(symbols=1, sessions=200, seed=2).drop("state")


def known(bars: pl.DataFrame, by: date) -> pl.DataFrame:
    return bars.filter(pl.col("session") <= by)


def test_planted_regimes_are_found_out_of_sample(market):
    """Three states: 0.33 is chance. Fifty symbols of 380 sessions gave 0.72, and 0.91 for high volatility."""
    found = regimes(session_observations(market)).join(market, on=KEY).drop_nulls("regime")
    planted = pl.Series(DIRECTIONS).gather(found["state"])
    assert (found["regime"] == planted).mean() > 0.6
    for name in DIRECTIONS:
        assert (found["regime"] == planted).filter(planted == name).mean() > 0.5
    assert ((found["volatility_regime"] == "high") == (planted == "volatile")).mean() > 0.8


def test_a_market_without_regimes_is_not_called_with_the_same_confidence(market):
    """The planted states in random order: what is left of the accuracy is chance."""
    found = regimes(session_observations(market)).join(market, on=KEY).drop_nulls("regime")
    shuffled = np.random.default_rng(0).permutation(found["state"].to_numpy())
    assert (found["regime"] == pl.Series(DIRECTIONS).gather(shuffled)).mean() < 0.4


def test_a_regime_is_the_likeliest_of_probabilities_that_add_up_to_one(market):
    table = regimes(session_observations(market))
    assert table.schema == REGIMES
    assert table.select(KEY).equals(market.select(KEY))
    for tag, names, columns in (
        ("regime", DIRECTIONS, P_DIRECTIONS),
        ("volatility_regime", VOLATILITIES, P_VOLATILITIES),
    ):
        given_ = table.drop_nulls(tag)
        values = given_.select(columns).to_numpy()
        np.testing.assert_allclose(values.sum(axis=1), 1.0, atol=1e-12)
        assert given_[tag].to_list() == [names[k] for k in values.argmax(axis=1)]
        assert (
            table.filter(pl.col(tag).is_null()).select(pl.all_horizontal(pl.col(columns).is_null())).to_series().all()
        )


def test_names_of_volatility_are_in_order_of_what_is_seen(market):
    observations = session_observations(market)
    seen = (
        regimes(observations).join(observations, on=KEY).group_by("volatility_regime").agg(pl.col("log_range").mean())
    )
    mean = dict(seen.iter_rows())
    assert mean["low"] < mean["medium"] < mean["high"]


@given(st.permutations([0, 1, 2]), st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_names_of_directions_do_not_depend_on_the_order_of_states(order, range_unit, efficiency_unit):
    """By hand: state 0 is quiet and efficient, 1 quiet and inefficient, 2 loud and a little more efficient than 0."""
    means = np.array([[-0.5, 1.0], [-0.6, -1.0], [1.5, 1.1]])[order] * [range_unit, efficiency_unit]
    named = name_directions(means[None], np.array([[range_unit, efficiency_unit]]))
    assert [order[state] for state in named[0]] == [0, 1, 2]


@settings(max_examples=15)
@given(st.integers(LOOK_BACK + 12, 198), st.integers(0, 10**6))
def test_later_sessions_change_nothing(one_symbol, cut, seed):
    whole = regimes(session_observations(one_symbol))
    last = one_symbol["session"][cut]
    assert_frame_equal(regimes(session_observations(known(one_symbol, last))), known(whole, last), check_exact=True)
    noise = np.random.default_rng(seed).uniform(0.5, 2.0, size=one_symbol.height)
    factor = pl.Series(np.where(one_symbol["session"] > last, noise, 1.0))
    scrambled = one_symbol.with_columns(pl.col("high", "low", "close") * factor)
    assert_frame_equal(known(regimes(session_observations(scrambled)), last), known(whole, last), check_exact=True)


def test_as_of_is_the_table_of_what_was_known(one_symbol):
    observations = session_observations(one_symbol)
    session = one_symbol["session"][170]
    close = datetime(session.year, session.month, session.day, 10, tzinfo=UTC)
    assert_frame_equal(regimes(observations, as_of=close), known(regimes(observations), session), check_exact=True)
    a_moment_before = regimes(observations, as_of=close - timedelta(microseconds=1))
    assert a_moment_before["session"].max() == one_symbol["session"][169]


@pytest.mark.parametrize("every_day", [False, True])
def test_a_session_follows_from_its_last_sessions_alone(every_day):
    bars = planted_market(symbols=3, sessions=190, seed=5, every_day=every_day).drop("state")
    sessions = bars["session"].unique().sort()
    whole = regimes(session_observations(bars))
    for at in range(SESSIONS_NEEDED - 1, 190, 4):
        needed = bars.filter(pl.col("session").is_between(sessions[at - SESSIONS_NEEDED + 1], sessions[at]))
        one = regimes(session_observations(needed), first=sessions[at])
        assert one.height == 3
        assert_frame_equal(one, whole.filter(pl.col("session") == sessions[at]), check_exact=True)


def test_no_fewer_sessions_would_do():
    """Weeks of seven sessions: a Sunday needs them all."""
    bars = planted_market(symbols=1, sessions=SESSIONS_NEEDED + 12, seed=6, every_day=True).drop("state")
    sunday = next(day for day in bars["session"].reverse() if day.isoweekday() == 7)
    needed = known(bars, sunday).tail(SESSIONS_NEEDED)
    assert regimes(session_observations(needed), first=sunday)["p_low"].null_count() == 0
    fewer = regimes(session_observations(needed.tail(SESSIONS_NEEDED - 1)), first=sunday)
    assert fewer["p_low"].null_count() == 1  # no value rather than another one


@pytest.mark.parametrize("factor", [0.25, 0.37, 1024.0])
def test_a_price_scale_changes_nothing(market, factor):
    scaled = market.with_columns(pl.col("high", "low", "close") * factor)
    assert_frame_equal(session_observations(scaled), session_observations(market), check_exact=True)
    assert_frame_equal(regimes(session_observations(scaled)), regimes(session_observations(market)), check_exact=True)


def test_company_order_and_threads_change_no_bit(market):
    observations = session_observations(market)
    whole = regimes(observations)
    with ThreadPoolExecutor(4) as pool:
        apart = list(pool.map(regimes, observations.partition_by("symbol")))
    assert_frame_equal(pl.concat(apart), whole, check_exact=True)
    assert_frame_equal(regimes(observations.sample(fraction=1.0, shuffle=True, seed=3)), whole, check_exact=True)


def test_a_symbol_that_begins_in_the_week_in_which_the_one_before_it_ended_has_nothing_of_it(one_symbol):
    newcomer = one_symbol.tail(2).with_columns(symbol=pl.lit("S99"))
    table = regimes(session_observations(pl.concat([one_symbol, newcomer])))
    assert table["p_low"].tail(2).null_count() == 2
    assert_frame_equal(table.head(-2), regimes(session_observations(one_symbol)), check_exact=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(pl.lit(100.0), id="constant"),
        pytest.param(pl.lit(None, pl.Float64), id="unknown"),
        pytest.param(pl.lit(math.nan), id="NaN"),
        pytest.param(pl.lit(0.0), id="zero"),
        pytest.param(pl.lit(-1.0), id="negative"),
        pytest.param(pl.lit(math.inf), id="infinite"),
    ],
)
def test_prices_that_say_nothing_have_no_regime(one_symbol, spoil):
    bars = one_symbol.with_columns(spoil.alias(name) for name in ("high", "low", "close"))
    table = regimes(session_observations(bars))
    assert table.height == bars.height
    assert table.drop(KEY).null_count().row(0) == (bars.height,) * 8


@pytest.mark.filterwarnings("error")
def test_a_gap_is_null_and_what_follows_is_known_while_enough_is():
    bars = planted_market(symbols=1, sessions=220, seed=7).drop("state")
    still = pl.int_range(pl.len()).is_between(150, 154)
    flat = bars.with_columns(
        pl.when(~still).then(c).otherwise(bars["close"][149]).alias(c) for c in ("high", "low", "close")
    )
    table = regimes(session_observations(flat))
    assert table["volatility_regime"].is_null().arg_true().to_list() == [*range(130), *range(150, 155)]
    thinned = bars.with_columns(pl.when(pl.int_range(pl.len()) % 3 == 0).then("high").alias("high"))
    assert regimes(session_observations(thinned))["regime"].null_count() == 220  # 40 of 120 are too few
    thinned = bars.with_columns(pl.when(pl.int_range(pl.len()) % 5 != 2).then("low").alias("low"))
    assert regimes(session_observations(thinned))["regime"].null_count() == 130 + 18  # 96 are enough


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [0, 1, 2, LOOK_BACK + 10])
def test_few_rows_have_no_regime(one_symbol, rows):
    table = regimes(session_observations(one_symbol.head(rows)))
    assert table.schema == REGIMES
    assert table.height == rows
    assert table["regime"].null_count() == rows


def test_observations_are_their_formulas(market):
    bars = market.filter(pl.col("symbol") == "S03")
    high, low, close = (bars[name].to_list() for name in ("high", "low", "close"))
    made = session_observations(bars)
    assert made.schema == OBSERVATIONS
    for i in (1, 9, 10, 57, 299):
        row = made.row(i, named=True)
        reach = max(high[i] - low[i], high[i] - close[i - 1], close[i - 1] - low[i])  # Wilder, in prices
        top, bottom = max(high[i], close[i - 1]), min(low[i], close[i - 1])
        assert reach == pytest.approx(top - bottom)
        assert row["log_range"] == pytest.approx(math.log(math.log(top / bottom)), abs=2e-9)
        assert row["log_return"] == pytest.approx(math.log(close[i] / close[i - 1]), abs=2e-9)
        if i >= 10:
            path = sum(abs(math.log(close[j] / close[j - 1])) for j in range(i - 9, i + 1))
            assert row["efficiency"] == pytest.approx(abs(math.log(close[i] / close[i - 10])) / path, abs=2e-9)
    assert made["efficiency"].null_count() == 10
    assert made["log_range"].null_count() == 1


@pytest.mark.parametrize("spoiled", [None, math.nan, 0.0, -1.0, math.inf])
def test_one_price_unknown_leaves_unknown_what_follows_from_it_and_nothing_else(one_symbol, spoiled):
    plain = session_observations(one_symbol)
    rows = {"high": {"log_range": [50]}, "low": {"log_range": [50]}}
    rows["close"] = {"log_range": [51], "log_return": [50, 51], "efficiency": list(range(50, 61))}
    for price, gone in rows.items():
        at = pl.int_range(pl.len()) == 50
        bars = one_symbol.with_columns(pl.when(at).then(spoiled).otherwise(price).alias(price))
        made = session_observations(bars)
        for column in ("log_return", "log_range", "efficiency"):
            unknown = pl.int_range(pl.len()).is_in(gone.get(column, []))
            expected = plain.select(pl.when(~unknown).then(column).alias(column))
            assert_frame_equal(made.select(column), expected, check_exact=True)


def test_a_straight_way_is_efficient_and_a_return_to_the_start_is_not():
    ramp = [100.0 * 1.01**i for i in range(11)]
    zigzag = [100.0 + i % 2 for i in range(11)]
    prices = np.array([[p + 1, p - 1, p] for p in ramp + zigzag])
    bars = pl.concat([bars_of("RAMP", days(11), prices[:11]), bars_of("ZIGZAG", days(11), prices[11:])])
    last = session_observations(bars).group_by("symbol", maintain_order=True).last()
    assert last["efficiency"].to_list() == pytest.approx([1.0, 0.0], abs=1e-9)


def test_mistakes_are_named(one_symbol):
    observations = session_observations(one_symbol)
    with pytest.raises(MissingSessionColumns, match="lack the columns session, low"):
        session_observations(one_symbol.drop("session", "low"))
    with pytest.raises(MissingSessionColumns, match="lack the columns efficiency"):
        regimes(observations.drop("efficiency"))
    with pytest.raises(RepeatedSession, match="S00 in session 2018-01-03 more than once"):
        session_observations(pl.concat([one_symbol, one_symbol[2:3]]))
    with pytest.raises(NaiveMoment, match="as_of"):
        regimes(observations, as_of=datetime(2018, 6, 1))


def test_inputs_come_back_untouched(one_symbol):
    observations = session_observations(one_symbol)
    copy = observations.clone()
    regimes(observations)
    assert_frame_equal(observations, copy, check_exact=True)


def test_a_calm_and_then_wild_market_goes_from_low_to_high():
    """Nothing but volatility changes, thirty sessions before the end."""
    rng = np.random.default_rng(9)
    states = np.where(np.arange(240) % 80 < 50, 1, 2)
    bars = bars_of("ONE", days(240), high_low_close(states, rng))
    table = regimes(session_observations(bars))
    tags = table["volatility_regime"].to_numpy()
    assert (tags[195:210] == "high").mean() < 0.2
    assert (tags[213:240] == "high").mean() > 0.6


def test_high_volatility_of_real_stocks_goes_on():
    bars = pl.read_parquet(market_file("nse_daily_adjusted.parquet"))
    chosen = bars["symbol"].unique().sort()[::18].to_list()
    known_at = pl.col("ts") + pl.duration(hours=10)
    bars = bars.filter(pl.col("symbol").is_in(chosen)).with_columns(session=pl.col("ts").dt.date(), known_at=known_at)
    observations = session_observations(bars.filter(pl.col("session").dt.year() < 2019))
    next_range = pl.col("log_range").shift(-1).over("symbol")
    seen = observations.with_columns(next_range=next_range).join(regimes(observations), on=KEY)
    mean = dict(seen.group_by("volatility_regime").agg(pl.col("next_range").mean()).iter_rows())
    assert mean["low"] + 0.1 < mean["medium"] + 0.05 < mean["high"]
    assert seen["regime"].drop_nulls().value_counts(normalize=True)["proportion"].min() > 0.1
