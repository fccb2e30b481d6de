"""Levels against peaks of a density drawn point by point, planted ones, and laws: what moves them, and what may not."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pathsofbars import START, bars, known_after, moved, paths, upside_down, walk, with_rows_replaced
from polars.testing import assert_frame_equal
from realdata import market_file

from odin_core.market.history import NaiveMoment
from odin_core.structure.levels import LEVELS, levels
from odin_core.structure.pivots import MissingBarColumns, fractal_pivots

LOOK_BACK = 24
COUNTED = ("kind", "touches", "age", "first_touch", "last_touch")


def of(frame, rows=None, look_back=LOOK_BACK):
    return levels(frame, as_of=known_after(frame.height if rows is None else rows), look_back=look_back)


def mean_true_range(frame):
    before = pl.col("close").shift(1)
    true_range = pl.max_horizontal("high", before) - pl.min_horizontal("low", before)
    return frame.select(true_range.slice(1).mean()).item()


def bouncing(rows=120, floor=100.0, ceiling=110.0):
    """Closes that go from floor to ceiling and back in eight bars."""
    close = floor + (ceiling - floor) * np.abs(np.arange(rows) % 16 - 8) / 8
    return bars(close, close, close)


def test_a_price_that_bounces_between_two_prices_has_these_two_levels():
    frame = bouncing()
    found = of(frame, look_back=500)
    assert found["price"].to_list() == pytest.approx([100.0, 110.0], abs=1e-9)
    assert found["kind"].to_list() == ["support", "resistance"]
    assert found["touches"].to_list() == [7, 7]  # of the lows at 8, 24, … and the highs at 16, 32, …
    assert found["age"].to_list() == [119 - 104, 119 - 112]
    assert found["first_touch"].to_list() == [START + timedelta(minutes=8), START + timedelta(minutes=16)]
    assert found["last_touch"].to_list() == [START + timedelta(minutes=104), START + timedelta(minutes=112)]
    assert found["strength"].to_list() == pytest.approx([2 ** (-4 * 8 / 500), 1.0])  # the floor's touches are older


def test_planted_levels_are_found_among_other_pivots():
    """Half of the swings turn at one of two prices, the others anywhere."""
    rng = np.random.default_rng(5)
    turns = np.where(rng.random(120) < 0.5, np.arange(120) % 2 * 20.0, rng.uniform(-5, 25, 120)) + 100
    swings = [np.linspace(a, b, 6)[:-1] for a, b in pairwise(turns)]
    close = np.concatenate(swings)
    found = of(bars(close, close, close), look_back=500)
    most = found.sort("touches").tail(2)
    assert sorted(most["price"].to_list()) == pytest.approx([100.0, 120.0], abs=0.5)
    assert found["strength"].top_k(2).sort().to_list() == most["strength"].sort().to_list()


@pytest.mark.parametrize("seed", range(6))
def test_levels_are_the_peaks_of_the_density(seed):
    """Its formula drawn on a grid of a thousandth of the kernel's half-width."""
    frame = walk(600, seed).tail(500)
    width = mean_true_range(frame)
    pivots = fractal_pivots(frame)
    price, age = pivots["price"].to_numpy(), 499 - pivots["index"].to_numpy()
    grid = np.arange(price.min() - width, price.max() + width, width / 1000)
    u = np.clip((grid[:, None] - price) / width, -1, 1)
    density = ((1 - u * u) ** 2 * 0.5 ** (age / 125)).sum(axis=1)
    peak = np.flatnonzero((density[1:-1] > density[:-2]) & (density[1:-1] >= density[2:])) + 1
    found = of(frame, 600, 500)
    nearest = np.abs(grid[peak][:, None] - found["price"].to_numpy()) / width
    assert (nearest.min(axis=0) < 2e-3).all(), "a level that is no peak"
    assert (nearest.min(axis=1) < 1).all(), "a peak without a level"
    assert (np.diff(found["price"]) / width >= 1).all(), "two levels that a usual bar crosses"
    assert found.height > 3
    of_levels = density[peak[nearest.argmin(axis=0)]]
    np.testing.assert_allclose(found["strength"], of_levels / of_levels.max(), rtol=1e-4)


@given(paths(), st.sampled_from([5, 12, LOOK_BACK, 100]))
def test_each_pivot_of_the_look_back_touches_one_level(frame, look_back):
    found = of(frame, look_back=look_back)
    window = frame.tail(look_back)
    pivots = fractal_pivots(window)
    assert found["touches"].sum() == pivots.height
    if pivots.height:
        assert found["strength"].max() == 1.0
        assert found["strength"].min() > 0
        assert found["age"].min() == window.height - 1 - pivots["index"].max()
        assert found["last_touch"].max() == pivots["ts"].max()
        assert found["first_touch"].min() == pivots["ts"].min()
        assert pivots["price"].min() <= found["price"].min() + 1e-9
        assert found["price"].max() <= pivots["price"].max() + 1e-9
    assert found["price"].is_sorted()
    assert ((found["price"] > frame["close"][-1]) == (found["kind"] == "resistance")).all()


@given(paths(), st.sampled_from([0.25, 8.0]), st.integers(-80, 1000))
def test_levels_scale_and_shift_with_prices(frame, factor, shift):
    found, after = of(frame), of(moved(frame, factor, shift))
    assert_frame_equal(found.select(*COUNTED, "strength"), after.select(*COUNTED, "strength"), check_exact=True)
    np.testing.assert_allclose(after["price"], found["price"] * factor + shift, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("seed", range(20))
def test_upside_down_support_is_resistance(seed):
    frame = walk(300, seed)
    found, mirrored = of(frame, look_back=300), of(upside_down(frame), look_back=300).reverse()
    np.testing.assert_allclose(mirrored["price"], -found["price"], rtol=1e-9)
    np.testing.assert_allclose(mirrored["strength"], found["strength"], rtol=1e-9)
    assert (mirrored["kind"] != found["kind"]).all()
    assert_frame_equal(mirrored.select(COUNTED[1:]), found.select(COUNTED[1:]))


@given(paths(least=2), st.data())
def test_what_comes_later_changes_nothing(frame, data):
    rows = data.draw(st.integers(1, frame.height))
    found = of(frame.head(rows))
    assert_frame_equal(of(frame, rows), found, check_exact=True)
    assert_frame_equal(of(with_rows_replaced(frame, rows, frame.height), rows), found, check_exact=True)


@given(paths(least=LOOK_BACK + 1))
def test_what_lies_before_the_look_back_changes_nothing(frame):
    found, earlier = of(frame), frame.height - LOOK_BACK
    assert_frame_equal(of(with_rows_replaced(frame, 0, earlier)), found, check_exact=True)
    assert_frame_equal(of(frame.tail(LOOK_BACK), frame.height), found, check_exact=True)


@given(paths(symbol="A"), paths(symbol="B"), st.randoms(use_true_random=False))
def test_a_symbol_has_the_same_levels_in_any_company_and_order(a, b, random):
    both = pl.concat([a, b])
    order = list(range(both.height))
    random.shuffle(order)
    found = levels(both[order], as_of=known_after(100), look_back=LOOK_BACK)
    alone = [levels(frame, as_of=known_after(100), look_back=LOOK_BACK) for frame in (a, b)]
    assert_frame_equal(found, pl.concat(alone), check_exact=True)


def test_a_pivot_counts_from_the_end_of_the_bar_that_confirms_it():
    high = np.array([10.0, 11, 15, 12, 9, 8])
    frame = bars(high, high - 1, high - 1)
    just_before = known_after(5) - timedelta(microseconds=1)
    assert levels(frame, as_of=just_before).is_empty()
    assert levels(frame, as_of=known_after(5))["price"].to_list() == [15.0]


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(walk(20, 1).head(0), id="no bars"),
        pytest.param(walk(4, 1), id="too few for a pivot"),
        pytest.param(bars(*np.full((3, 50), 7.0)), id="a price that stands still"),
        pytest.param(
            walk(50, 1).with_columns(high=pl.when(pl.col("ts") > known_after(20)).then("high")),
            id="a price that is unknown",
        ),
    ],
)
def test_without_pivots_there_are_no_levels(frame):
    found = levels(frame, as_of=known_after(50))
    assert found.is_empty()
    assert found.schema == LEVELS


def test_mistakes_are_named():
    frame = walk(20, 1)
    with pytest.raises(NaiveMoment, match="as_of"):
        levels(frame, as_of=datetime(2023, 1, 2))
    with pytest.raises(MissingBarColumns, match="known_at"):
        levels(frame.drop("known_at"), as_of=known_after(20))


def test_levels_of_a_recorded_market():
    frame = pl.read_parquet(market_file("nse_equity_1m_2021.parquet")).with_columns(
        known_at=pl.col("ts") + timedelta(minutes=1)
    )
    as_of = datetime(2021, 6, 1, 10, tzinfo=UTC)
    found = levels(frame, as_of=as_of)
    known = frame.filter(pl.col("known_at") <= as_of).sort("symbol", "ts").group_by("symbol", maintain_order=True)
    traded = known.tail(500).group_by("symbol").agg(bottom=pl.col("low").min(), top=pl.col("high").max())
    assert found["symbol"].n_unique() == traded.height > 30
    ranges = found.join(traded, on="symbol")
    assert ranges.select(pl.col("price").is_between("bottom", "top").all()).item()
    per_symbol = found.group_by("symbol").agg(pl.len(), pl.col("strength").max(), pl.col("touches").max())
    assert per_symbol["len"].min() >= 2
    assert per_symbol["len"].max() <= 40
    assert (per_symbol["strength"] == 1.0).all()
    assert per_symbol["touches"].min() >= 5
    rupees = levels(moved(frame, 0.01), as_of=as_of)  # not a binary fraction: equal but for rounding
    np.testing.assert_allclose(rupees["price"] * 100, found["price"], rtol=1e-9)


def test_the_bars_given_are_left_as_they_are():
    frame = walk(100, 3)
    before = frame.rows()
    levels(frame, as_of=known_after(100))
    assert frame.rows() == before
