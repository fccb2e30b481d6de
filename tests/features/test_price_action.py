"""Price action: each feature against plain Python, what all of them keep, and the real market through `compute`."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import market_file
from sessionbars import (
    MINUTE,
    assert_each_run_follows_from_its_own_rows,
    assert_no_row_follows_from_later_ones,
    assert_warm_up_is_what_is_needed,
    by_session,
    of_bars,
    random_bars,
    rows_of,
    scaled,
    upside_down,
    values,
)

from odin_core.features.catalogue import Feature, named
from odin_core.features.engine import compute
from odin_core.features.series import Bars, whole_series
from odin_core.market.centres import CENTRES, business_hours, session_flags

FEATURES = of_bars("price_action")
EACH = pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.name)
LONG = max(f.bars for f in FEATURES)
SHARE_OF_A_TICK = 1e-8  # logarithms of prices have 15 digits, so that shares of a tiny range have fewer
SEEDS = st.integers(0, 2**32 - 1)
STILLNESS = st.sampled_from([0.0, 0.4, 0.95, 1.0])


def by_hand(name: str, bars: Bars, i: int, *numbers: int) -> float:
    """The feature in row i of one symbol's bars, by its definition, the whole series being at hand; NaN where it is
    not defined."""
    o, h, low, c = (x.tolist() for x in (bars.open, bars.high, bars.low, bars.close))
    returns = [math.log(b / a) for a, b in pairwise(c)]  # [k] is bar k + 1's
    hours = (bars.closes[bars.session[i]] - bars.opens[bars.session[i]]) / (60 * MINUTE)
    to_close = (bars.closes[bars.session[i]] - bars.known_at[i]) / (60 * MINUTE)
    at = datetime.fromtimestamp(int(bars.ts[i]) / 1e6, UTC)
    angle = 2 * math.pi * at.weekday() / 7
    reach = math.log(h[i] / low[i])

    def root(count: int) -> float:
        return math.sqrt(math.fsum(r * r for r in returns[i - count : i])) if i >= count else math.nan

    formulas: dict[str, Callable[..., float]] = {
        "log_return": lambda count: math.log(c[i] / c[i - count]) if i >= count else math.nan,
        "bar_gap": lambda: math.log(o[i] / c[i - 1]) if i else math.nan,
        "bar_range": lambda: reach,
        "body": lambda: math.log(c[i] / o[i]) / reach if reach else math.nan,
        "upper_wick": lambda: math.log(h[i] / max(o[i], c[i])) / reach if reach else math.nan,
        "lower_wick": lambda: math.log(min(o[i], c[i]) / low[i]) / reach if reach else math.nan,
        "realised_volatility": root,
        "volatility_ratio": lambda short, long: root(short) / root(long) * math.sqrt(long / short)
        if root(long) else math.nan,
        "session_elapsed": lambda: 1 - to_close / hours,
        "hours_to_close": lambda: to_close,
        "weekday_sine": lambda: math.sin(angle),
        "weekday_cosine": lambda: math.cos(angle),
    }  # fmt: skip
    return formulas[name](*numbers)


ESTIMATORS = ("parkinson", "garman_klass", "rogers_satchell", "yang_zhang")  # by hand in test_volatility_estimators
CENTRES_HOURS = ("asia_hours", "london_hours", "new_york_hours")  # in test_business_hours_…
BY_HAND = [f for f in FEATURES if f.definition.name not in (*ESTIMATORS, *CENTRES_HOURS)]


@pytest.mark.parametrize("feature", BY_HAND, ids=lambda f: f.name)
@settings(max_examples=8)
@given(SEEDS, STILLNESS)
def test_a_feature_agrees_with_its_definition(feature: Feature, seed: int, still: float):
    bars = random_bars(seed, symbols=1, sessions=3, per_session=29, still=still)
    expected = [by_hand(feature.definition.name, bars, i, *map(int, feature.parameters)) for i in range(len(bars))]
    np.testing.assert_allclose(values(feature, bars), expected, rtol=1e-8, atol=SHARE_OF_A_TICK)


@EACH
@settings(max_examples=5)
@given(SEEDS, STILLNESS)
def test_a_session_follows_from_its_own_bars_and_those_of_the_warm_up_bit_for_bit(
    feature: Feature, seed: int, still: float
):
    assert_each_run_follows_from_its_own_rows(feature, random_bars(seed, per_session=31, still=still))


@EACH
@settings(max_examples=5)
@given(SEEDS, st.integers(1, 30))
def test_no_row_follows_from_later_ones(feature: Feature, seed: int, cut: int):
    assert_no_row_follows_from_later_ones(feature, random_bars(seed, sessions=3, per_session=31), cut)


@EACH
def test_the_warm_up_is_what_is_needed(feature: Feature):
    assert_warm_up_is_what_is_needed(feature, random_bars(1, per_session=40))


@EACH
@settings(max_examples=5)
@given(SEEDS, STILLNESS)
def test_values_lie_within_their_bounds(feature: Feature, seed: int, still: float):
    found = values(feature, random_bars(seed, still=still))
    low, high = feature.definition.bounds
    known = found[~np.isnan(found)]
    assert np.isfinite(known).all()
    assert ((known >= low - 1e-12) & (known <= high + 1e-12)).all()


@EACH
@settings(max_examples=5)
@given(SEEDS, STILLNESS, st.sampled_from([1e-4, 0.37, 83.0, 1e6]))
def test_neither_the_currency_nor_the_unit_of_volume_changes_a_value(
    feature: Feature, seed: int, still: float, times: float
):
    bars = random_bars(seed, still=still)
    np.testing.assert_allclose(
        values(feature, scaled(bars, times, 1 / times)), values(feature, bars), rtol=1e-8, atol=SHARE_OF_A_TICK
    )


@pytest.mark.parametrize("feature", [f for f in FEATURES if f.definition.mirror is not None], ids=lambda f: f.name)
@given(SEEDS, STILLNESS)
@settings(max_examples=10)
def test_with_prices_upside_down_a_value_is_mirrored(feature: Feature, seed: int, still: float):
    bars, mirror = random_bars(seed, still=still), feature.definition.mirror
    assert mirror is not None
    expected = 2 * mirror - values(feature, bars)
    np.testing.assert_allclose(values(feature, upside_down(bars)), expected, rtol=1e-8, atol=SHARE_OF_A_TICK)


@EACH
def test_constant_prices_give_what_the_docstring_says(feature: Feature):
    bars = random_bars(3, still=1.0)
    assert np.ptp(np.concatenate([bars.high, bars.low])) == 0
    later = values(feature, bars, by_session(bars, LONG))[bars.session >= 2]
    if "NaN where the bar has no range" in feature.definition.says or "NaN where no close" in feature.definition.says:
        assert np.isnan(later).all()
    else:
        assert "Never NaN" in feature.definition.says
        assert not np.isnan(later).any()
        if feature.definition.unit.startswith(("log", "fraction")):
            assert (later == 0).all()


@given(SEEDS)
@settings(max_examples=20)
def test_body_and_wicks_make_up_the_range(seed: int):
    bars = random_bars(seed)
    body, upper, lower = (values(named(name), bars) for name in ("body", "upper_wick", "lower_wick"))
    np.testing.assert_allclose(np.abs(body) + upper + lower, 1.0, atol=SHARE_OF_A_TICK)


@given(SEEDS)
@settings(max_examples=20)
def test_log_returns_add_up_and_a_gap_is_their_part(seed: int):
    bars = random_bars(seed, symbols=1)
    one, three, gap = (values(named(name), bars) for name in ("log_return_1", "log_return_3", "bar_gap"))
    np.testing.assert_allclose(three[3:], one[3:] + one[2:-1] + one[1:-2], atol=1e-12)
    np.testing.assert_allclose(one[1:], gap[1:] + np.log(bars.close / bars.open)[1:], atol=1e-12)


def test_an_unknown_price_makes_nan_only_while_it_is_in_the_window():
    bars = random_bars(5, symbols=1)
    for field in ("open", "high", "low", "close"):
        getattr(bars, field)[60] = np.nan
    for name in ("realised_volatility_18", "parkinson_20", "garman_klass_20", "rogers_satchell_20", "yang_zhang_20"):
        feature = named(name)
        unknown = np.flatnonzero(np.isnan(values(feature, bars)[feature.bars :])) + feature.bars
        reach = 20 if name != "realised_volatility_18" else 19  # the bar after it has no return, nor a gap
        assert unknown.tolist() == list(range(60, 60 + reach + (name == "yang_zhang_20")))


INSTANTS = st.lists(
    st.one_of(
        st.integers(0, 200_000).map(lambda hours: datetime(2005, 1, 1, tzinfo=UTC) + timedelta(hours=hours)),
        st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
        st.datetimes(datetime(2024, 3, 8), datetime(2024, 4, 2), timezones=st.just(UTC)),  # clocks change
    ),
    min_size=1,
    max_size=40,
)


@given(INSTANTS)
@settings(max_examples=60)
def test_business_hours_are_those_of_the_centres(stamps: list[datetime]):
    ts = pl.Series("ts", sorted(set(stamps)), dtype=pl.Datetime("us", "UTC"))
    day = pl.DataFrame({"symbol": ["A"] * len(ts), "ts": ts, **dict.fromkeys(("open", "high", "low", "close"), 1.0)})
    found = compute(day, [f"{name}_hours" for name in CENTRES])
    flags = session_flags(ts)
    for name in CENTRES:
        assert found[f"{name}_hours"].to_list() == flags[name].cast(pl.Float64).to_list()


def test_business_hours_of_a_date_are_on_the_local_clock():
    begin, end = business_hours("new_york", date(2024, 3, 9), date(2024, 3, 11))
    opened = [datetime(2024, 3, day, hour, tzinfo=UTC) for day, hour in ((9, 13), (10, 12), (11, 12))]
    assert begin.tolist() == [int(at.timestamp() * 1e6) for at in opened]
    assert end.tolist() == [int((at + timedelta(hours=9)).timestamp() * 1e6) for at in opened]
    with pytest.raises(ValueError, match="read-only"):
        begin[0] = 0


def test_sessions_that_begin_the_evening_before_have_the_weekday_of_their_middle():
    bars = random_bars(1, symbols=1, sessions=1, per_session=2)
    evening = int(datetime(2024, 1, 1, 23, tzinfo=UTC).timestamp() * 1e6)  # a Monday
    bars.opens[:], bars.closes[:] = evening, evening + 23 * 60 * MINUTE
    assert values(named("weekday_sine"), bars)[0] == pytest.approx(math.sin(2 * math.pi / 7))  # Tuesday


def test_no_bars_give_no_values():
    none = rows_of(random_bars(1), slice(0, 0))
    for feature in FEATURES:
        assert values(feature, none, whole_series(none)).shape == (0,)


@pytest.mark.parametrize("symbol", ["RELIANCE", "SBIN"])
def test_real_minutes_agree_with_polars_expressions(symbol: str):
    bars = pl.scan_parquet(market_file("nse_equity_1m_2021.parquet")).filter(pl.col("symbol") == symbol).collect()
    o, h, low, c = (pl.col(name).log() for name in ("open", "high", "low", "close"))
    inside = (h - c) * (h - o) + (low - c) * (low - o)
    k = 0.34 / (1.34 + 21 / 19)
    squared = {
        "realised_volatility_75": (c.diff() ** 2).rolling_sum(75),
        "parkinson_20": ((h - low) ** 2).rolling_mean(20) / (4 * math.log(2)),
        "garman_klass_20": (0.5 * (h - low) ** 2 - (2 * math.log(2) - 1) * (c - o) ** 2).rolling_mean(20),
        "rogers_satchell_20": inside.rolling_mean(20),
        "yang_zhang_20": (
            (o - c.shift(1)).rolling_var(20) + k * (c - o).rolling_var(20) + (1 - k) * inside.rolling_mean(20)
        ),
    }
    # polars subtracts from running sums: where nothing was traded for a while it errs by their rounding, downwards too
    roots = {name: variance.clip(lower_bound=0).sqrt() for name, variance in squared.items()}
    expected = {"log_return_12": c - c.shift(12), "bar_gap": o - c.shift(1), **roots}
    found = compute(bars, list(expected))
    for name, expression in expected.items():
        told = bars.select(expression.alias(name)).to_series().to_numpy()
        np.testing.assert_allclose(found[name].to_numpy(), told, rtol=1e-6, atol=1e-7)
        assert found[name].null_count() == named(name).bars


def test_parameters_that_no_set_has_are_computed_by_name():
    frame = pl.DataFrame(
        {"symbol": ["A"] * 30, "ts": [datetime(2024, 1, 1) + timedelta(minutes=i) for i in range(30)]}
    ).with_columns(open=1.0, high=2.0, low=1.0, close=2.0)
    found = compute(frame, ["parkinson_21"])["parkinson_21"]
    assert found.null_count() == 20
    assert found[-1] == pytest.approx(math.sqrt(math.log(2) / 4))
