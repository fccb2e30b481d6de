"""Larger intervals out of minute bars, against a loop over rows."""

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from odin_core.market.bars import (
    BARS,
    INTERVAL_BARS,
    INTERVALS,
    NotAnInterval,
    fingerprint,
    interval_of,
    resample,
    resample_sessions,
    session_bars,
    table_of,
)
from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile

OPEN = datetime(2021, 4, 1, 3, 45, tzinfo=UTC)
CLOSE = datetime(2021, 4, 1, 10, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
WIDTHS = {"1m": 1, "5m": 5, "7m": 7, "15m": 15, "60m": 60, "240m": 240, "1000m": 1000, "day": 375}


def bar(symbol: str, minute: int, price: float, volume: float | None, oi: float | None = None) -> dict[str, Any]:
    ts = OPEN + minute * MINUTE
    prices = {"open": price, "high": price + 2, "low": price - 1, "close": price + 1}
    return {"symbol": symbol, "ts": ts, "known_at": ts + MINUTE, **prices, "volume": volume, "oi": oi}


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=BARS)


def by_hand(bars: pl.DataFrame, interval: str) -> pl.DataFrame:
    """One dictionary per bucket, filled row by row."""
    buckets: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in bars.sort("symbol", "ts").iter_rows(named=True):
        minute = int((row["ts"] - OPEN).total_seconds() // 60)
        buckets.setdefault((row["symbol"], minute // WIDTHS[interval]), []).append(row)
    made = []
    for (symbol, number), rows in buckets.items():
        start = OPEN + number * WIDTHS[interval] * MINUTE
        volumes = [r["volume"] for r in rows if r["volume"] is not None]
        interests = [r["oi"] for r in rows if r["oi"] is not None]
        made.append(
            {
                "symbol": symbol,
                "interval": interval,
                "ts": start,
                "known_at": min(start + WIDTHS[interval] * MINUTE, CLOSE),
                "open": rows[0]["open"],
                "high": max(r["high"] for r in rows),
                "low": min(r["low"] for r in rows),
                "close": rows[-1]["close"],
                "volume": math.fsum(volumes) if volumes else None,
                "oi": interests[-1] if interests else None,
            }
        )
    return pl.DataFrame(made, schema=INTERVAL_BARS)


COUNTS = st.one_of(st.none(), st.floats(0, 1e6))
VALUES = st.tuples(st.floats(2, 1e4), COUNTS, COUNTS)
ROWS = st.dictionaries(st.tuples(st.sampled_from("ABC"), st.integers(0, 374)), VALUES)


def drawn(rows: dict[tuple[str, int], tuple[float, float | None, float | None]]) -> pl.DataFrame:
    return frame([bar(symbol, minute, *values) for (symbol, minute), values in rows.items()])


@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from(sorted(WIDTHS)))
def test_a_larger_interval_agrees_with_its_loop_twin(rows: dict[Any, Any], interval: str):
    bars = drawn(rows)
    before = bars.clone()
    assert_frame_equal(resample(bars, interval, open_at=OPEN, close_at=CLOSE), by_hand(bars, interval), rel_tol=1e-12)
    assert_frame_equal(bars, before)


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_the_stacked_table_holds_each_interval_bit_for_bit(rows: dict[Any, Any]):
    bars = drawn(rows)
    stacked = session_bars(bars, OPEN, CLOSE)
    apart = pl.concat([resample(bars, interval, open_at=OPEN, close_at=CLOSE) for interval in INTERVALS])
    assert_frame_equal(stacked, apart, check_exact=True)


@settings(max_examples=40, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4), st.sampled_from(sorted(WIDTHS)), st.integers(0, 3))
def test_a_range_of_sessions_is_its_sessions_one_by_one(days: list[Any], interval: str, cut: int):
    """Sessions a day apart, so that the last bars of one and the first of the next never share a bucket."""
    shift = [timedelta(days=n) for n in range(len(days))]
    hours = [(OPEN + by, CLOSE + by) for by in shift]
    moved = [drawn(rows).with_columns(pl.col("ts", "known_at") + by) for rows, by in zip(days, shift, strict=True)]
    alone = [resample(m, interval, open_at=a, close_at=b) for m, (a, b) in zip(moved, hours, strict=True)]
    whole = resample_sessions(pl.concat(moved), interval, hours)
    assert_frame_equal(whole, pl.concat(alone), check_exact=True)
    first, second = pl.concat([BARS.to_frame(), *moved[:cut]]), pl.concat([BARS.to_frame(), *moved[cut:]])
    halves = pl.concat([resample_sessions(half, interval, hours) for half in (first, second)])
    assert_frame_equal(whole, halves, check_exact=True)
    by_symbol = pl.concat(moved).sort("symbol", "ts")
    assert_frame_equal(whole, resample_sessions(by_symbol, interval, hours), check_exact=True)


@settings(max_examples=30, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_row_order_chunks_and_other_symbols_do_not_show(rows: dict[Any, Any], random: Any):
    bars = drawn(rows)
    order = list(range(len(bars)))
    random.shuffle(order)
    chunked = pl.concat([bars[order][n : n + 3] for n in range(0, max(len(bars), 1), 3)], rechunk=False)
    whole = session_bars(bars, OPEN, CLOSE)
    assert_frame_equal(session_bars(chunked, OPEN, CLOSE), whole, check_exact=True)
    for symbol in "ABC":
        alone = session_bars(bars.filter(pl.col("symbol") == symbol), OPEN, CLOSE)
        assert_frame_equal(alone, whole.filter(pl.col("symbol") == symbol), check_exact=True)


def test_an_hour_starts_at_the_open_and_the_last_one_is_short():
    bars = frame([bar("A", minute, 100.0 + minute, 1.0) for minute in range(375)])
    hours = resample(bars, "60m", open_at=OPEN, close_at=CLOSE)
    assert hours["ts"].dt.strftime("%H:%M").to_list() == ["03:45", "04:45", "05:45", "06:45", "07:45", "08:45", "09:45"]
    assert hours["known_at"].to_list() == [*(OPEN + timedelta(hours=n) for n in range(1, 7)), CLOSE]
    assert hours["volume"].to_list() == [60.0] * 6 + [15.0]
    first = hours.row(0, named=True)
    assert (first["open"], first["high"], first["low"], first["close"]) == (100.0, 161.0, 99.0, 160.0)


def test_the_day_is_known_at_the_close_even_where_its_last_minutes_are_missing():
    day = resample(frame([bar("A", 3, 100.0, 1.0)]), "day", open_at=OPEN, close_at=CLOSE).row(0, named=True)
    assert (day["ts"], day["known_at"]) == (OPEN, CLOSE)


def test_a_bucket_without_bars_has_no_row():
    bars = frame([bar("A", 0, 100.0, 1.0), bar("A", 14, 100.0, 1.0)])
    assert resample(bars, "5m", open_at=OPEN, close_at=CLOSE)["ts"].to_list() == [OPEN, OPEN + 10 * MINUTE]


def test_a_minute_that_was_not_known_by_the_end_of_a_bucket_does_not_count_in_it():
    late = bar("A", 1, 200.0, 5.0) | {"known_at": OPEN + 7 * MINUTE}
    made = session_bars(frame([bar("A", 0, 100.0, 1.0), late, bar("A", 6, 101.0, 2.0)]), OPEN, CLOSE)
    seen = {row["interval"]: (row["high"], row["volume"]) for row in made.unique("interval", keep="first").to_dicts()}
    assert seen["5m"] == (102.0, 1.0)
    assert seen["15m"] == seen["60m"] == seen["day"] == (202.0, 8.0)


def test_volume_is_null_only_where_every_minute_lacks_it():
    bars = frame([bar("A", 0, 1.5, None), bar("A", 1, 1.5, 7.0), bar("A", 5, 1.5, None), bar("A", 10, 1.5, 0.0)])
    assert resample(bars, "5m", open_at=OPEN, close_at=CLOSE)["volume"].to_list() == [7.0, None, 0.0]


def test_open_interest_is_the_last_that_is_known_and_null_where_none_is():
    interest = {0: 100.0, 1: 130.0, 2: None, 5: None, 6: None, 10: 90.0}
    bars = frame([bar("A", minute, 1.5, 1.0, oi) for minute, oi in interest.items()])
    assert resample(bars, "5m", open_at=OPEN, close_at=CLOSE)["oi"].to_list() == [130.0, None, 90.0]


def test_buckets_keep_their_place_through_a_halt():
    """2021-02-24: nothing from 10:08 to 15:45, a close at 17:00. The hour that the market reopens in began at 15:15."""
    calendar, day = session_calendar(load_profile("nse")), date(2021, 2, 24)
    opens, closes = calendar.hours(day)
    (halt,) = calendar.halts(day)
    minutes = [opens + n * MINUTE for n in range((closes - opens) // MINUTE)]
    traded = [ts for ts in minutes if not halt.open <= ts < halt.close]
    bars = frame([bar("A", 0, 1.5, 1.0) | {"ts": ts, "known_at": ts + MINUTE} for ts in traded])
    made = resample(bars, "60m", open_at=opens, close_at=closes)
    local = made["ts"].dt.convert_time_zone("Asia/Kolkata").dt.strftime("%H:%M").to_list()
    assert local == ["09:15", "15:15", "16:15"]
    assert made["volume"].to_list() == [53.0, 30.0, 45.0]
    assert made["known_at"].to_list()[-1] == closes
    assert made["volume"].sum() == calendar.minutes(day)


def test_the_edges_of_a_day_of_1440_minutes_are_midnight():
    calendar, day = session_calendar(load_profile("crypto")), date(2021, 8, 9)
    opens, closes = calendar.hours(day)
    rows = [bar("BTCUSDT", 0, 1.5, 1.0) | {"ts": opens + n * MINUTE} for n in range(1440)]
    made = resample(frame(rows), "240m", open_at=opens, close_at=closes)
    assert made["ts"].dt.hour().to_list() == [0, 4, 8, 12, 16, 20]
    assert made["known_at"].to_list()[-1] == closes == opens + timedelta(days=1)


@pytest.mark.parametrize("interval", ["5", "0m", "1h", "-5m", "daily", "1.5m", ""])
def test_what_is_no_interval_is_refused(interval: str):
    with pytest.raises(NotAnInterval, match="number of minutes, or day"):
        resample(frame([bar("A", 0, 1.5, 1.0)]), interval, open_at=OPEN, close_at=CLOSE)


def test_nothing_known_later_enters_a_bucket_that_is_known():
    bars = frame([bar("A", minute, 100.0 + minute % 7, 1.0) for minute in range(375)])
    whole = session_bars(bars, OPEN, CLOSE)
    for cut in (1, 17, 60, 61, 374):
        at = OPEN + cut * MINUTE
        earlier = session_bars(bars.filter(pl.col("known_at") <= at), OPEN, CLOSE)
        known = pl.col("known_at") <= at
        assert_frame_equal(earlier.filter(known), whole.filter(known), check_exact=True)


@pytest.mark.parametrize("minute", [-1, 375], ids=["before the open", "at the close"])
def test_a_bar_outside_the_session_is_refused(minute: int):
    with pytest.raises(ValueError, match="not all inside the session"):
        resample(frame([bar("A", minute, 1.5, 1.0)]), "5m", open_at=OPEN, close_at=CLOSE)


def test_no_bars_make_no_bars_of_the_same_schema():
    empty = session_bars(BARS.to_frame(), OPEN, CLOSE)
    assert empty.is_empty()
    assert empty.schema == INTERVAL_BARS


def test_the_fingerprint_sees_a_value_and_not_the_order():
    bars = frame([bar("A", 0, 1.5, None), bar("A", 1, 1.5, 0.0), bar("B", 0, 1.5, 1.0)])
    assert fingerprint(bars) == fingerprint(bars.reverse())
    assert fingerprint(bars) != fingerprint(bars.with_columns(pl.col("volume").fill_null(0.0)))


@pytest.mark.parametrize("interval", ["1m", "5m", "90m", "day"])
def test_a_table_of_bars_names_its_interval_and_other_tables_none(interval: str):
    assert interval_of(table_of(interval)) == interval
    assert interval_of("data_quality") is None
