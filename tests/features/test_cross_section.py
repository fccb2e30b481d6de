"""The cross-section: kernels against SciPy and plain Python, each instant by itself, and the market through polars."""

import math
import statistics

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import market_file
from scipy.stats import rankdata
from sessionbars import random_bars

from odin_core.features import panel
from odin_core.features.catalogue import Feature, features_of
from odin_core.features.engine import compute
from odin_core.features.panel import Panel
from odin_core.features.series import FloatArray

FEATURES = list({f.definition.name: f for f in features_of("cross_section")}.values())
EACH = pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.definition.name)
VALUE = st.one_of(st.just(math.nan), st.sampled_from([-0.02, 0.0, 0.01]), st.floats(-0.1, 0.1))
ROW = st.tuples(VALUE, st.just(False))
INSTANT = st.tuples(st.lists(ROW, max_size=7), st.none() | st.tuples(VALUE, st.just(True)))


@st.composite
def panels(draw: st.DrawFn) -> Panel:
    """Instants of up to eight symbols, one of which may be the index; some values are equal, some unknown."""
    instants = [[*rows, *([index] if index else [])] for rows, index in draw(st.lists(INSTANT, max_size=6))]
    rows = [row for instant in instants for row in instant]
    starts = np.cumsum([0, *(len(instant) for instant in instants)])
    return Panel((np.array([v for v, _ in rows]),), starts, np.array([i for _, i in rows], dtype=np.bool_))


def value_of(feature: Feature, given_panel: Panel) -> FloatArray:
    with np.errstate(all="raise", under="ignore"):
        return feature.definition.formula(given_panel, *feature.parameters)


def by_hand(name: str, values: list[float], index: list[bool]) -> list[float]:
    """Of one instant, by the definition."""
    members = [math.nan if i else v for v, i in zip(values, index, strict=True)]
    known = [m for m in members if not math.isnan(m)]
    match name:
        case "return_rank" | "volatility_rank" | "volume_rank":
            ranks = iter((rankdata(known) - 0.5) / max(len(known), 1))
            return [math.nan if math.isnan(m) else next(ranks) for m in members]
        case "advancing" | "above_average":
            share = statistics.fmean((m > 0) + (m == 0) / 2 for m in known) if known else math.nan
        case "dispersion":
            share = statistics.stdev(known) if len(known) > 1 else math.nan
        case "relative_strength":
            of_index = [v for v, i in zip(values, index, strict=True) if i and not math.isnan(v)]
            market = of_index[0] if of_index else statistics.fmean(known) if known else math.nan
            return [v - market for v in values]
        case _:
            raise KeyError(name)
    return [share] * len(values)


def instants_of(whole: Panel) -> list[slice]:
    return [slice(a, b) for a, b in zip(whole.starts[:-1].tolist(), whole.starts[1:].tolist(), strict=True)]


@EACH
@settings(max_examples=40)
@given(panels())
def test_a_feature_agrees_with_its_definition(feature: Feature, whole: Panel):
    found = value_of(feature, whole)
    for rows in instants_of(whole):
        expected = by_hand(feature.definition.name, whole.values[0][rows].tolist(), whole.is_index[rows].tolist())
        np.testing.assert_allclose(found[rows], expected, rtol=1e-9, atol=1e-12)


@EACH
@settings(max_examples=25)
@given(panels())
def test_an_instant_follows_from_its_own_rows_bit_for_bit(feature: Feature, whole: Panel):
    found = value_of(feature, whole)
    for rows in instants_of(whole):
        one = Panel((whole.values[0][rows].copy(),), np.array([0, rows.stop - rows.start]), whole.is_index[rows].copy())
        np.testing.assert_array_equal(found[rows], value_of(feature, one))


@EACH
@settings(max_examples=25)
@given(panels())
def test_values_lie_within_their_bounds_and_inputs_come_back_untouched(feature: Feature, whole: Panel):
    before = whole.values[0].copy()
    found = value_of(feature, whole)
    known = found[~np.isnan(found)]
    assert ((known >= feature.definition.bounds[0]) & (known <= feature.definition.bounds[1])).all()
    np.testing.assert_array_equal(whole.values[0], before)


@pytest.mark.parametrize("feature", [f for f in FEATURES if f.definition.mirror is not None],
                         ids=lambda f: f.definition.name)  # fmt: skip
@settings(max_examples=30)
@given(panels())
def test_with_opposite_inputs_a_value_is_mirrored(feature: Feature, whole: Panel):
    assert feature.definition.mirror is not None
    opposite = Panel((-whole.values[0],), whole.starts, whole.is_index)
    expected = 2 * feature.definition.mirror - value_of(feature, whole)
    np.testing.assert_allclose(value_of(feature, opposite), expected, atol=1e-12)


@EACH
def test_the_warm_up_is_that_of_what_it_reads(feature: Feature):
    assert feature.inputs
    assert feature.bars == max(read.bars for read in feature.inputs)
    assert all(read.interval == feature.interval for read in feature.inputs)
    assert feature.definition.needs == frozenset().union(*(read.definition.needs for read in feature.inputs))


@settings(max_examples=25)
@given(panels(), st.sampled_from([np.exp, np.cbrt, lambda x: 5 * x - 3]))
def test_a_rank_is_the_same_whatever_the_scale(whole: Panel, rising):
    x = np.round(whole.values[0], 3)  # so that what is rising stays so in floating point
    np.testing.assert_array_equal(panel.rank(rising(x), whole.starts), panel.rank(x, whole.starts))


def test_equal_returns_have_no_dispersion_and_equal_ranks():
    whole = Panel((np.full(7, 0.1) * 3,), np.array([0, 7]), np.zeros(7, np.bool_))
    dispersion, rank = (next(f for f in FEATURES if f.definition.name == n) for n in ("dispersion", "return_rank"))
    assert value_of(dispersion, whole).tolist() == [0.0] * 7
    assert value_of(rank, whole).tolist() == [0.5] * 7


def test_the_index_is_no_member_but_what_strength_is_measured_against():
    whole = Panel((np.array([0.02, -0.01, 0.005]),), np.array([0, 3]), np.array([False, False, True]))
    found = {f.definition.name: value_of(f, whole).tolist() for f in FEATURES}
    assert found["return_rank"][:2] == [0.75, 0.25]
    assert math.isnan(found["return_rank"][2])
    assert found["advancing"] == [0.5] * 3
    assert found["relative_strength"] == pytest.approx([0.015, -0.015, 0.0])


def test_real_minutes_of_many_symbols_agree_with_polars():
    frame = pl.scan_parquet(market_file("nse_equity_1m_2021.parquet"))
    days = pl.col("ts").dt.date().is_between(pl.date(2021, 5, 3), pl.date(2021, 5, 4))
    bars = frame.filter(days).collect().sort("symbol", "ts")
    returns = pl.col("close").log().diff(12).over("symbol")
    above = (pl.col("close") / pl.col("close").rolling_mean(20).over("symbol") - 1).round(12)
    own = bars.select("symbol", "ts", r=returns, a=above)
    known = pl.col("r").is_not_null()
    rank = (pl.col("r").rank() - 0.5) / known.sum()
    halves = pl.when(pl.col("r") > 0).then(1.0).when(pl.col("r") == 0).then(0.5).when(known).then(0.0)
    over = pl.when(pl.col("a") > 0).then(1.0).when(pl.col("a") == 0).then(0.5).when(pl.col("a") < 0).then(0.0)
    expected = own.select(
        return_rank_12=rank.over("ts"),
        advancing_12=halves.mean().over("ts"),
        above_average_20=over.mean().over("ts"),
        dispersion_12=pl.col("r").std().over("ts"),
        relative_strength_12=pl.col("r") - pl.col("r").mean().over("ts"),
    )
    found = compute(bars, expected.columns)
    assert found["symbol"].n_unique() > 15
    for name in expected.columns:
        told = expected[name].fill_null(np.nan).to_numpy()
        np.testing.assert_allclose(found[name].fill_null(np.nan).to_numpy(), told, rtol=1e-6, atol=1e-9, err_msg=name)


def test_ranks_of_volatility_and_volume_are_those_of_their_inputs():
    bars = random_bars(4, symbols=6)
    frame = pl.DataFrame(
        {"symbol": bars.symbol.astype(str), "ts": pl.Series(bars.ts).cast(pl.Datetime("us")), "open": bars.open,
         "high": bars.high, "low": bars.low, "close": bars.close, "volume": bars.volume}
    )  # fmt: skip
    found = compute(frame, ["volatility_rank_18", "volume_rank_1_20", "realised_volatility_18", "volume_z_1_20"])
    for rank, read in (("volatility_rank_18", "realised_volatility_18"), ("volume_rank_1_20", "volume_z_1_20")):
        expected = found.select(((pl.col(read).rank() - 0.5) / pl.col(read).count()).over("ts")).to_series()
        np.testing.assert_allclose(found[rank].to_numpy(), expected.to_numpy(), rtol=1e-12)


def test_inputs_of_bars_and_of_the_panel_meet_in_the_same_rows():
    """Symbols that miss different minutes: each instant holds whoever has a bar."""
    bars = random_bars(8, symbols=3, sessions=1)
    keep = np.random.default_rng(8).random(len(bars)) < 0.7
    frame = pl.DataFrame({"symbol": bars.symbol.astype(str), "ts": pl.Series(bars.ts).cast(pl.Datetime("us")),
                          "close": bars.close}).with_columns(open="close", high="close", low="close")  # fmt: skip
    frame = frame.filter(pl.Series(keep))
    found = compute(frame, ["log_return_1", "relative_strength_1"])
    mean = found.select(pl.col("log_return_1").mean().over("ts")).to_series()
    np.testing.assert_allclose(
        found["relative_strength_1"].to_numpy(), (found["log_return_1"] - mean).to_numpy(), atol=1e-15
    )
