"""Open interest: of a symbol's own bars by hand and on recorded futures, of option chains from their columns."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import market_file
from sessionbars import (
    assert_each_run_follows_from_its_own_rows,
    assert_no_row_follows_from_later_ones,
    assert_warm_up_is_what_is_needed,
    of_bars,
    random_bars,
    scaled,
    upside_down,
    values,
)

from odin_core.features.catalogue import Feature, features_of
from odin_core.features.engine import compute
from odin_core.features.facts import Facts
from odin_core.features.series import FloatArray
from odin_core.market.options.open_interest import OPEN_INTEREST

OF_BARS = of_bars("open_interest")
EACH = pytest.mark.parametrize("feature", OF_BARS, ids=lambda f: f.name)
OF_CHAINS = [f for f in features_of("open_interest") if f.definition.kind == "facts"]
SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.sampled_from([0.0, 0.3, 1.0])


def told(**columns: list[float]) -> Facts:
    known = {name: np.array(x) for name, x in columns.items()}
    rows = max(map(len, columns.values()))
    return Facts(known, {name: np.where(np.isnan(x), np.nan, 1.0) for name, x in known.items()}, np.full(rows, 100.0))


def of_chain(name: str, facts: Facts) -> FloatArray:
    (feature,) = (f for f in OF_CHAINS if f.name == name)
    with np.errstate(all="raise"):
        return feature.definition.formula(facts)


def by_hand(name: str, close: list[float], oi: list[float], i: int, count: int) -> float:
    if i < count or math.isnan(oi[i]) or math.isnan(oi[i - count]):
        return math.nan
    if name == "oi_change":
        return oi[i] / oi[i - count] - 1 if oi[i - count] else math.nan
    rose, more = close[i] - close[i - count], oi[i] - oi[i - count]
    if rose == 0 or more == 0:
        return 0.0
    return {(True, True): 1.0, (True, False): 0.5, (False, False): -0.5, (False, True): -1.0}[rose > 0, more > 0]


@EACH
@settings(max_examples=20)
@given(SEEDS, SHARES, SHARES)
def test_a_feature_agrees_with_its_definition(feature: Feature, seed: int, still: float, unknown: float):
    bars = random_bars(seed, symbols=1, sessions=2, per_session=30, still=still, unknown=unknown)
    bars.oi[:] = np.round(bars.oi / 300)  # often the same, sometimes none
    close, oi = bars.close.tolist(), bars.oi.tolist()
    count = int(feature.parameters[0])
    expected = [by_hand(feature.definition.name, close, oi, i, count) for i in range(len(bars))]
    np.testing.assert_allclose(values(feature, bars), expected, rtol=1e-12)


@EACH
@settings(max_examples=8)
@given(SEEDS, SHARES, st.integers(1, 40))
def test_a_session_follows_from_its_own_bars_and_those_of_the_warm_up(
    feature: Feature, seed: int, unknown: float, cut: int
):
    bars = random_bars(seed, unknown=unknown)
    assert_each_run_follows_from_its_own_rows(feature, bars)
    assert_no_row_follows_from_later_ones(feature, bars, cut)


@EACH
def test_the_warm_up_is_what_is_needed(feature: Feature):
    assert_warm_up_is_what_is_needed(feature, random_bars(1))


@EACH
@settings(max_examples=10)
@given(SEEDS, SHARES, st.sampled_from([1e-3, 0.7, 400.0]))
def test_values_are_bounded_free_of_units_and_mirrored(feature: Feature, seed: int, unknown: float, times: float):
    bars = random_bars(seed, unknown=unknown)
    found = values(feature, bars)
    low, high = feature.definition.bounds
    known = found[~np.isnan(found)]
    assert ((known >= low) & (known <= high)).all()
    np.testing.assert_allclose(values(feature, scaled(bars, times, times)), found, rtol=1e-9, atol=1e-12)
    if feature.definition.mirror is not None:
        mirrored = 2 * feature.definition.mirror - found
        np.testing.assert_allclose(values(feature, upside_down(bars)), mirrored, atol=1e-12)


def test_recorded_futures_build_up_and_unwind():
    bars = pl.scan_parquet(market_file("nse_futures_index_1m.parquet")).filter(pl.col("symbol") == "NIFTY-I").collect()
    found = compute(bars, ["oi_change_12", "oi_buildup_12"])
    rose, more = pl.col("close").diff(12), pl.col("oi").diff(12)
    expected = bars.select(
        change=pl.col("oi") / pl.col("oi").shift(12) - 1,
        long_build_up=((rose > 0) & (more > 0)).sum(),
        short_build_up=((rose < 0) & (more > 0)).sum(),
        short_covering=((rose > 0) & (more < 0)).sum(),
        long_unwinding=((rose < 0) & (more < 0)).sum(),
    )
    np.testing.assert_allclose(found["oi_change_12"].to_numpy(), expected["change"].to_numpy(), rtol=1e-12)
    counts = dict(found["oi_buildup_12"].drop_nulls().value_counts(name="rows").iter_rows())
    for value, name in ((1.0, "long_build_up"), (-1.0, "short_build_up"), (0.5, "short_covering"),
                        (-0.5, "long_unwinding")):  # fmt: skip
        assert counts[value] == expected[name][0] > 300


def test_stocks_without_open_interest_have_none_of_it():
    frame = pl.DataFrame({"symbol": ["A"] * 20, "ts": pl.Series(range(20)).cast(pl.Datetime("us"))})
    frame = frame.with_columns(open=1.0, high=1.0, low=1.0, close=1.0)
    for name, column in compute(frame, [f.name for f in OF_BARS]).drop("symbol", "ts").to_dict().items():
        assert column.null_count() == 20, name


@pytest.mark.parametrize("feature", OF_CHAINS, ids=lambda f: f.name)
def test_a_feature_of_chains_reads_what_it_needs_and_gives_nan_for_what_is_not_known(feature: Feature):
    needs = feature.definition.needs
    assert needs <= {name for name, dtype in OPEN_INTEREST.items() if dtype == pl.Float64}
    assert np.isnan(of_chain(feature.name, told(**{need: [math.nan, math.nan] for need in needs}))).all()
    known = of_chain(feature.name, told(**{need: [0.25] for need in needs}))
    assert np.isfinite(known).all()
    for missing in needs:  # each of them alone is enough to know nothing
        one = told(**{name: [math.nan if name == missing else 0.25] for name in needs})
        assert np.isnan(of_chain(feature.name, one)).all()


@pytest.mark.parametrize(
    ("name", "columns", "expected"),
    [
        ("put_call_oi", {"put_call_oi": 1.3}, 1.3),
        ("put_call_volume", {"put_call_volume": 0.8}, 0.8),
        ("max_pain_distance", {"max_pain_distance": -0.004}, -0.004),
        ("implied_volatility", {"volatility_30d": 0.14}, 0.14),
        ("implied_slope", {"volatility": 0.21, "volatility_30d": 0.14}, 0.5),
        ("implied_skew", {"skew": 0.03}, 0.03),
        ("variance_index", {"variance_index": 15.0}, 0.15),
        ("india_vix", {"india_vix": 13.5}, 0.135),
        ("put_call_oi_change",
         {"put_oi": 300.0, "call_oi": 100.0, "put_oi_change": 50.0, "call_oi_change": -30.0}, 0.2),
    ],
)  # fmt: skip
def test_a_feature_of_chains_has_the_value_and_the_unit_that_it_says(
    name: str, columns: dict[str, float], expected: float
):
    assert of_chain(name, told(**{column: [value] for column, value in columns.items()})) == pytest.approx(expected)


def test_where_nothing_is_held_there_is_no_change_of_what_is_held():
    nothing = told(put_oi=[0.0], call_oi=[0.0], put_oi_change=[0.0], call_oi_change=[0.0])
    assert np.isnan(of_chain("put_call_oi_change", nothing)).all()
