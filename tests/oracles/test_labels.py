"""Labels against numbers that others published: mlfinpy's on a thousand dollar bars, and hand-worked bars."""

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from odin_core.labels import cusum_events, daily_volatility, triple_barrier

DOLLAR_BARS = Path(__file__).resolve().parents[2].parent / "shared" / "oracles" / "dollar_bars_1000.csv"
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def closes() -> pl.DataFrame:
    """Close-only bars: mlfinpy knows no others."""
    if not DOLLAR_BARS.is_file():
        pytest.skip(f"needs the dollar bars that mlfinpy publishes, which are not beside this checkout ({DOLLAR_BARS})")
    return pl.read_csv(DOLLAR_BARS, try_parse_dates=True).select("close", ts="date_time")


def labels(closes: pl.DataFrame, *, pt_sl: tuple[float, float] = (1, 1), min_ret: float = 0.005) -> pl.DataFrame:
    events, target = cusum_events(closes, 0.02), daily_volatility(closes, 100)
    return triple_barrier(closes, events, target=target, pt_sl=pt_sl, min_ret=min_ret, vertical=DAY)


def test_daily_volatility_ends_where_mlfinpy_ends(closes: pl.DataFrame):
    assert daily_volatility(closes, 100)[-1] == pytest.approx(0.00896823893217064, rel=1e-12)


def test_the_cusum_filter_and_the_smallest_return_leave_eight_events_with_the_published_bins(closes: pl.DataFrame):
    assert cusum_events(closes, 0.02).height == 9
    assert labels(closes)["bin"].to_list() == [0, 1, -1, 1, 0, -1, 1, -1]
    assert labels(closes, min_ret=0.0).height == 9


def test_barriers_far_away_are_never_met_and_barriers_at_hand_always(closes: pl.DataFrame):
    assert labels(closes, pt_sl=(1000, 1000))["bin"].to_list() == [0] * 7  # the eighth day ends after the last bar
    assert 0 not in labels(closes, pt_sl=(1e-8, 1e-8))["bin"].to_list()


def test_row_order_symbols_and_time_zones_change_nothing(closes: pl.DataFrame):
    expected = labels(closes)
    both = pl.concat([closes.with_columns(symbol=pl.lit(s)) for s in ("B", "A")]).sample(
        fraction=1, shuffle=True, seed=1
    )
    events = cusum_events(both.with_columns(pl.col("ts").dt.replace_time_zone("UTC")), 0.02)
    many = triple_barrier(
        both.with_columns(pl.col("ts").dt.replace_time_zone("UTC")), events, target=daily_volatility(both, 100),
        pt_sl=(1, 1), min_ret=0.005, vertical=DAY,
    )  # fmt: skip
    for symbol in ("A", "B"):
        mine = many.filter(pl.col("symbol") == symbol).drop("symbol")
        assert mine.select("target", "ret", "bin").equals(expected.select("target", "ret", "bin"))
        assert mine["label_end"].dt.replace_time_zone(None).equals(expected["label_end"])


@pytest.mark.parametrize(
    ("bar", "side", "expected"),
    [
        pytest.param((100, 102, 98, 100), None, (-0.02, -1), id="both barriers in one bar: the stop"),
        pytest.param((100, 102, 98, 100), -1, (-0.02, 0), id="both, seen from the short side: its stop is above"),
        pytest.param((100, 102, 99, 100), None, (0.02, 1), id="met exactly, left at the barrier"),
        pytest.param((100, 102, 99, 100), -1, (-0.02, 0), id="a short stopped at the upper barrier"),
        pytest.param((100, 101, 97, 97.5), -1, (0.02, 1), id="a short's profit is the lower barrier"),
        pytest.param((104, 105, 90, 91), None, (0.04, 1), id="opens above the profit: left at the open"),
        pytest.param((95, 110, 94, 109), None, (-0.05, -1), id="opens below the stop: left at the open"),
        pytest.param((100, 101.99, 98.01, 101), None, (0.01, 0), id="neither: the vertical barrier, at the close"),
        pytest.param((100, 101.99, 98.01, 101), 1, (0.01, 0), id="a meta-label is 1 only where profit was met"),
    ],
)
def test_a_bar_worked_by_hand(bar: tuple[float, ...], side: int | None, expected: tuple[float, int]):
    start = datetime(2024, 1, 1)
    rows = [(100.0, 200.0, 50.0, 100.0), bar]  # what the bar decided at did before does not matter
    bars = pl.DataFrame(rows, schema=["open", "high", "low", "close"], orient="row").cast(pl.Float64)
    bars = bars.with_columns(ts=pl.Series([start, start + DAY]))
    events = pl.DataFrame({"decided_at": [start]} | ({} if side is None else {"side": [side]}))
    row = triple_barrier(bars, events, target=0.02, pt_sl=(1, 1), min_ret=0.0, vertical=1).row(0, named=True)
    assert (row["ret"], row["bin"]) == (pytest.approx(expected[0], abs=1e-12), expected[1])
    assert row["label_end"] == start + DAY
