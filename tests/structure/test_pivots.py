"""Pivots against a search bar by bar, and what may never happen: one that is known before its confirmation."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pathsofbars import bars, paths, upside_down, with_rows_replaced
from polars.testing import assert_frame_equal
from realdata import market_file

from odin_core.structure.pivots import MissingBarColumns, TooFewNeighbours, fractal_pivots

NEIGHBOURS = st.integers(1, 4)


def slowly(frame, left, right):
    """(symbol, kind, index, confirmed index, price) of each pivot, by looking at every bar and each neighbour."""
    out = []
    for (symbol,), rows in frame.sort("symbol", "ts").group_by("symbol", maintain_order=True):
        high, low = rows["high"].to_list(), rows["low"].to_list()
        for i in range(left, len(high) - right):
            others = [j for j in range(i - left, i + right + 1) if j != i]
            if all(high[i] > high[j] for j in others):
                out.append((symbol, "high", i, i + right, high[i]))
            if all(low[i] < low[j] for j in others):
                out.append((symbol, "low", i, i + right, low[i]))
    return out


def found(frame, left=2, right=2):
    pivots = fractal_pivots(frame, left, right)
    return pivots.select("symbol", "kind", "index", "confirmed_index", "price").rows()


@given(paths(symbol="A"), paths(symbol="B"), NEIGHBOURS, NEIGHBOURS, st.randoms(use_true_random=False))
def test_pivots_are_those_of_a_search_bar_by_bar_whatever_the_order_of_rows(a, b, left, right, random):
    both = pl.concat([a, b])
    order = list(range(both.height))
    random.shuffle(order)
    assert found(both[order], left, right) == slowly(both, left, right)


@given(paths(least=5), NEIGHBOURS, NEIGHBOURS, st.data())
def test_what_is_known_by_a_bar_follows_from_the_bars_up_to_it(frame, left, right, data):
    rows = data.draw(st.integers(1, frame.height))
    known = fractal_pivots(frame, left, right).filter(pl.col("confirmed_index") < rows)
    assert_frame_equal(fractal_pivots(frame.head(rows), left, right), known)
    other_future = with_rows_replaced(frame, rows, frame.height)
    assert_frame_equal(
        fractal_pivots(other_future, left, right).filter(pl.col("confirmed_index") < rows), known, check_exact=True
    )


@given(paths(), NEIGHBOURS, NEIGHBOURS)
def test_upside_down_highs_are_lows(frame, left, right):
    mirrored = [(kind, i, -price) for _, kind, i, _, price in found(upside_down(frame), left, right)]
    swapped = [({"high": "low", "low": "high"}[kind], i, price) for _, kind, i, _, price in found(frame, left, right)]
    assert sorted(mirrored) == sorted(swapped)


@given(paths(), NEIGHBOURS, NEIGHBOURS)
def test_two_highs_are_further_apart_than_the_neighbours_that_both_beat(frame, left, right):
    for kind in ("high", "low"):
        index = fractal_pivots(frame, left, right).filter(kind=kind)["index"].to_numpy()
        assert (np.diff(index) > min(left, right)).all()


def test_a_pivot_is_known_when_the_bar_that_confirms_it_has_ended():
    high = np.array([10.0, 11, 15, 12, 9, 8])
    frame = bars(high, high - 20, high - 1)
    pivot = fractal_pivots(frame, 2, 1).filter(kind="high").row(0, named=True)
    assert pivot["ts"] == frame["ts"][2]
    assert pivot["confirmed_at"] == frame["known_at"][3]
    assert pivot["confirmed_at"] - pivot["ts"] == timedelta(minutes=2)


def test_equal_highs_are_no_pivot_and_an_outside_bar_is_both():
    plateau = np.array([1.0, 2, 5, 5, 2, 1])
    assert found(bars(plateau, np.zeros(6), plateau)) == []
    wide = bars(np.array([2.0, 2, 9, 2, 2]), np.array([1.0, 1, -5, 1, 1]), np.full(5, 1.5))
    assert found(wide) == [("A", "high", 2, 4, 9.0), ("A", "low", 2, 4, -5.0)]


@pytest.mark.parametrize("unknown", [None, float("nan")], ids=["null", "NaN"])
def test_a_price_that_is_unknown_is_no_pivot_and_confirms_none(unknown):
    high = [1.0, 2, 5, 2, 1]
    for at in range(5):
        frame = pl.DataFrame({"high": [unknown if i == at else h for i, h in enumerate(high)], "low": [0.0] * 5})
        assert found(frame) == []


def test_bars_without_symbol_and_times_are_one_series():
    pivots = fractal_pivots(pl.DataFrame({"high": [1, 2, 5, 2, 1], "low": [0, 0, 0, 0, 0]}))
    assert pivots.columns == ["symbol", "kind", "index", "confirmed_index", "price"]
    assert pivots.rows() == [(None, "high", 2, 4, 5.0)]
    assert pivots.dtypes == [pl.String, pl.String, pl.Int64, pl.Int64, pl.Float64]


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_too_few_bars_have_no_pivots_and_all_columns(rows):
    frame = fractal_pivots(bars(*np.arange(15.0).reshape(3, 5)).head(rows))
    assert frame.is_empty()
    assert frame.columns == ["symbol", "kind", "index", "confirmed_index", "price", "ts", "confirmed_at"]


def test_mistakes_are_named():
    with pytest.raises(MissingBarColumns, match=r"lack the columns low; they have high"):
        fractal_pivots(pl.DataFrame({"high": [1.0]}))
    with pytest.raises(TooFewNeighbours, match="right is 0"):
        fractal_pivots(pl.DataFrame({"high": [1.0], "low": [1.0]}), 2, 0)


def test_pivots_of_a_whole_market_are_those_of_rolling_extremes():
    frame = pl.read_parquet(market_file("nse_equity_1m_2021.parquet")).sort("symbol", "ts")
    high, low = pl.col("high"), pl.col("low")
    others = [n for n in (-2, -1, 1, 2)]
    marked = frame.with_columns(
        is_high=pl.all_horizontal(high > high.shift(n).over("symbol") for n in others).fill_null(False),
        is_low=pl.all_horizontal(low < low.shift(n).over("symbol") for n in others).fill_null(False),
    )
    pivots = fractal_pivots(frame)
    assert pivots.height > 50_000
    for kind, name in (("high", "is_high"), ("low", "is_low")):
        expected = marked.filter(name).select("symbol", "ts", price=kind)
        assert_frame_equal(pivots.filter(kind=kind).select("symbol", "ts", "price"), expected, check_exact=True)
