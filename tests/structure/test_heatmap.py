"""The heatmap against an integral over each bin, and its laws: whose weight it holds, what moves it, what may not."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pathsofbars import arrays, bars, known_after, moved, paths, upside_down, walk, with_rows_replaced
from realdata import market_file
from scipy.integrate import quad

from odin_core.features.series import Runs
from odin_core.market.history import NaiveMoment
from odin_core.structure.heatmap import BINS, REACH, bin_edges, heatmap, rolling_heatmap
from odin_core.structure.levels import levels
from odin_core.structure.pivots import fractal_pivots

LOOK_BACK = 24


def rolling(frame, runs=None, bins=BINS, look_back=LOOK_BACK):
    return rolling_heatmap(*arrays(frame), runs, bins=bins, look_back=look_back)


def one_run(start, first, end):
    return Runs(*(np.array([row]) for row in (start, first, end)))


def biweight(u):
    return 15 / 16 * (1 - u * u) ** 2 if abs(u) < 1 else 0.0


def slowly(frame, bins, look_back):
    """The last row: numerical integrals of each pivot's kernel over each bin, of the pivots of the last bars."""
    window = frame.tail(look_back)
    before = pl.col("close").shift(1)
    ranges = window.select(pl.max_horizontal("high", before) - pl.min_horizontal("low", before)).to_series().slice(1)
    width = ranges.mean() if ranges.len() else 0.0
    if not width:
        return np.full(bins, np.nan)
    edges, mass, total = bin_edges(bins), np.zeros(bins), 0.0
    for pivot in fractal_pivots(window).iter_rows(named=True):
        place = (pivot["price"] - window["close"][-1]) / width
        weight = 0.5 ** (4 * (window.height - 1 - pivot["index"]) / look_back)
        total += weight
        for b in range(bins):
            low, high = max(edges[b], place - 1), min(edges[b + 1], place + 1)
            if low < high:
                mass[b] += weight * quad(lambda x, at=place: biweight(x - at), low, high)[0]
    return mass / total if total else mass


@pytest.mark.parametrize(("bins", "look_back"), [(32, 60), (7, 60), (64, 24), (1, 200)])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_row_is_the_integral_of_the_density_over_its_bins(bins, look_back, seed):
    frame = walk(120, seed)
    found = rolling(frame, bins=bins, look_back=look_back)
    assert found.shape == (120, bins)
    assert found.dtype == np.float32
    for rows in (1, 2, 5, 30, 75, 120):
        expected = slowly(frame.head(rows), bins, look_back)
        np.testing.assert_allclose(found[rows - 1], expected, atol=1e-6, err_msg=f"row {rows - 1}")


@given(paths(most=30))
def test_a_row_is_that_integral_on_any_path(frame):
    np.testing.assert_allclose(rolling(frame)[-1], slowly(frame, BINS, LOOK_BACK), atol=1e-6)


@given(paths(least=2), st.integers(1, 64))
def test_a_row_sums_to_the_share_of_the_weight_within_reach(frame, bins):
    found = heatmap(frame, as_of=known_after(frame.height), bins=bins, look_back=LOOK_BACK)
    pivots = fractal_pivots(frame.tail(LOOK_BACK))
    total = found.share[0].sum(dtype=np.float64)
    if np.isnan(found.width[0]):
        assert np.isnan(found.share).all()
    elif pivots.is_empty():
        assert total == 0
    else:
        assert (found.share >= 0).all()
        assert total <= 1 + 1e-6
        distance = (pivots["price"] - found.close[0]).abs() / found.width[0]
        if distance.max() < REACH - 1:
            assert total == pytest.approx(1, abs=1e-6)
        if distance.min() > REACH + 1:
            assert total == 0


@given(paths(least=2), st.data())
def test_a_row_follows_from_the_bars_up_to_it(frame, data):
    rows = data.draw(st.integers(1, frame.height))
    known = rolling(frame)[:rows]
    assert np.array_equal(rolling(frame.head(rows)), known, equal_nan=True)
    assert np.array_equal(rolling(with_rows_replaced(frame, rows, frame.height))[:rows], known, equal_nan=True)


@given(paths(least=LOOK_BACK + 1), st.data())
def test_a_row_follows_from_the_last_bars_of_the_look_back(frame, data):
    whole = rolling(frame)
    first = data.draw(st.integers(LOOK_BACK - 1, frame.height - 1))
    earlier = first - LOOK_BACK + 1
    assert np.array_equal(rolling(with_rows_replaced(frame, 0, earlier))[first:], whole[first:], equal_nan=True)
    assert np.array_equal(rolling(frame[earlier:])[LOOK_BACK - 1 :], whole[first:], equal_nan=True)
    run = rolling(frame, one_run(earlier, first, frame.height))
    assert np.array_equal(run[first:], whole[first:], equal_nan=True)
    assert np.isnan(run[:first]).all()


@given(paths(least=3, symbol="A"), paths(least=3, symbol="B"), st.data())
def test_a_run_reads_nothing_before_its_start_and_nothing_of_its_neighbours(a, b, data):
    start = data.draw(st.integers(0, a.height - 1))
    first = data.draw(st.integers(start, a.height - 1))
    both, seam = pl.concat([a, b]), a.height
    runs = Runs(np.array([start, seam]), np.array([first, seam]), np.array([seam, both.height]))
    found = rolling(both, runs)
    assert np.array_equal(found[first:seam], rolling(a[start:])[first - start :], equal_nan=True)
    assert np.array_equal(found[seam:], rolling(b), equal_nan=True)


@given(paths(), st.sampled_from([0.25, 8.0]), st.integers(-80, 1000))
def test_scale_and_shift_of_prices_change_nothing(frame, factor, shift):
    found = rolling(frame)
    assert np.array_equal(rolling(moved(frame, factor, shift)), found, equal_nan=True)
    rounded = rolling(moved(frame, 0.3, 0.7))
    np.testing.assert_allclose(rounded, found, atol=1e-5)


@given(paths())
def test_upside_down_it_is_upside_down(frame):
    np.testing.assert_allclose(rolling(upside_down(frame)), rolling(frame)[:, ::-1], atol=1e-6)


@given(paths(symbol="A"), paths(symbol="B"), st.integers(0, 60))
def test_as_of_an_instant_it_is_the_last_row_of_each_symbol(a, b, rows):
    found = heatmap(pl.concat([b, a]), as_of=known_after(rows), look_back=LOOK_BACK)
    known = [frame.head(rows) for frame in (a, b) if frame.head(rows).height]
    assert found.symbols == [frame["symbol"][0] for frame in known]
    assert found.close.tolist() == [frame["close"][-1] for frame in known]
    assert found.share.shape == (len(known), BINS)
    for share, frame in zip(found.share, known, strict=True):
        assert np.array_equal(share, rolling(frame)[-1], equal_nan=True)


def test_bins_hold_the_prices_that_their_edges_say():
    """Pivots at 100 and 110 only; the last close at 105."""
    close = 100 + 10 * np.abs(np.arange(149) % 16 - 8) / 8
    found = heatmap(bars(close, close, close), as_of=known_after(149), bins=64)
    edges = found.close[0] + found.width[0] * bin_edges(64)
    assert found.close[0] == 105
    assert found.width[0] == pytest.approx(1.25)
    middle = (edges[1:] + edges[:-1]) / 2
    near = np.minimum(abs(middle - 100), abs(middle - 110)) < 1.25
    assert found.share[0][near].sum() == pytest.approx(1, abs=1e-3)
    assert (found.share[0][np.minimum(abs(middle - 100), abs(middle - 110)) > 1.25 + 0.2] == 0).all()
    assert found.share[0][middle < 105].sum() == pytest.approx(0.5, abs=0.05)


def test_a_naive_instant_is_refused():
    with pytest.raises(NaiveMoment, match="as_of"):
        heatmap(walk(20, 1), as_of=datetime(2023, 1, 2))


def test_an_unknown_price_makes_rows_unknown_for_the_look_back():
    frame = walk(100, 2).with_columns(high=pl.when(pl.int_range(pl.len()) == 40).then(float("nan")).otherwise("high"))
    unknown = np.isnan(rolling(frame)).any(axis=1)
    assert np.flatnonzero(unknown).tolist() == [0, *range(40, 40 + LOOK_BACK - 1)]


def test_the_heatmap_of_a_recorded_market_is_brightest_near_its_levels():
    frame = pl.read_parquet(market_file("nse_equity_1m_2021.parquet")).with_columns(
        known_at=pl.col("ts") + timedelta(minutes=1)
    )
    as_of = datetime(2021, 6, 1, 10, tzinfo=UTC)
    found, strong = heatmap(frame, as_of=as_of), levels(frame, as_of=as_of)
    assert len(found.symbols) > 30
    total = found.share.sum(axis=1)
    assert total.min() > 0.1
    assert total.max() <= 1 + 1e-5
    step, compared = 2 * REACH / BINS, 0
    for s, symbol in enumerate(found.symbols):
        strongest = strong.filter(symbol=symbol, strength=1.0)["price"][0]
        place = (strongest - found.close[s]) / found.width[s]
        if abs(place) < REACH - 1:
            compared += 1
            brightest = bin_edges()[found.share[s].argmax()] + step / 2
            assert abs(place - brightest) <= 1.5 * step, symbol
    assert compared > 25
