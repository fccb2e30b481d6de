"""Bars by symbol and range out of a lake, against filters over everything that was stored."""

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from odin_core.home import Home
from odin_core.lake import Lake, PartitionUnreadable
from odin_core.lifecycle.config import LifeConfig
from odin_core.market.bars import BARS, MINUTE, NotAnInterval, resample, table_of
from odin_core.market.calendar import session_calendar
from odin_core.market.data import MarketData, holdings
from odin_core.market.history import NaiveMoment, read_bars
from odin_core.market.profile import load_profile
from odin_core.text import holdings as as_text

CALENDAR = session_calendar(load_profile("metals"))  # sessions begin the day before
SESSIONS = CALENDAR.sessions(date(2026, 4, 13), date(2026, 4, 20))
SYMBOLS = ["A", "B", "C", "D", "E"]


def walk(session: date, symbols: list[str], step: int = 1, seed: int = 1) -> pl.DataFrame:
    """Bars of `step` minutes of a random walk, two in three of the session's."""
    rng = np.random.default_rng([seed, session.toordinal()])
    opens, closes = CALENDAR.hours(session)
    parts = []
    for symbol in symbols:
        at = np.flatnonzero(rng.random((closes - opens) // (step * MINUTE)) < 2 / 3) * step
        close = 100 + np.cumsum(rng.normal(0, 0.1, at.size)).round(2)
        ts = [opens + int(n) * MINUTE for n in at]
        parts.append({
            "symbol": symbol, "ts": ts, "known_at": [t + step * MINUTE for t in ts], "open": close, "high": close + 0.2,
            "low": close - 0.2, "close": close, "volume": rng.integers(0, 50, at.size).astype(float), "oi": None,
        })  # fmt: skip
    return pl.concat([pl.DataFrame(part, schema=BARS) for part in parts])


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Minutes of A to D but on the third session, which has none; five-minute bars of E and a few of the others; daily
    bars of A everywhere and of D on the third session."""
    lake = Lake(tmp_path_factory.mktemp("lake"))
    for n, session in enumerate(SESSIONS):
        if n != 2:
            lake.write("price_history", session, walk(session, ["A", "B", "C", "D"]))
        lake.write("bars_5m", session, walk(session, ["B", "E"], step=5, seed=2))
    for session in SESSIONS:
        minutes = (CALENDAR.hours(session).close - CALENDAR.hours(session).open) // MINUTE
        lake.write("bars_day", session, walk(session, ["A", "D"], step=minutes, seed=4).head(2))
    return lake


def stored(lake: Lake, table: str, sessions: list[date], symbols: list[str]) -> pl.DataFrame:
    frames = [lake.read(table, s) for s in sessions if lake.has(table, s)]
    return pl.concat([BARS.to_frame(), *frames]).filter(pl.col("symbol").is_in(symbols))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([*SYMBOLS, "unknown"]), unique=True), st.integers(0, 5), st.integers(0, 5))
def test_minute_bars_are_those_of_the_symbols_and_the_range(lake: Lake, symbols: list[str], first: int, last: int):
    sessions = SESSIONS[first : last + 1]
    read = read_bars(lake, CALENDAR, sessions, symbols=symbols)
    assert_frame_equal(read, stored(lake, "price_history", sessions, symbols), check_exact=True)


def test_a_symbol_s_rows_ascend_in_time_and_all_symbols_are_read_where_none_is_named(lake: Lake):
    everything = read_bars(lake, CALENDAR, SESSIONS)
    assert_frame_equal(everything, stored(lake, "price_history", SESSIONS, SYMBOLS), check_exact=True)
    assert everything.select((pl.col("ts").diff() > pl.duration()).over("symbol").all()).item()


@pytest.mark.parametrize("interval", ["5m", "15m", "60m", "240m"])
def test_larger_bars_come_from_minutes_else_from_the_vendor_s_else_from_its_smaller_ones(lake: Lake, interval: str):
    expected = []
    for session in SESSIONS:
        hours = CALENDAR.hours(session)
        fine = stored(lake, "price_history", [session], SYMBOLS)
        coarse = stored(lake, "bars_5m", [session], SYMBOLS).filter(
            ~pl.col("symbol").is_in(fine["symbol"].unique().implode())
        )
        for bars in (fine, coarse):
            made = resample(bars, interval, open_at=hours.open, close_at=hours.close).select(BARS.names())
            expected.append(bars if interval == "5m" and bars is coarse else made)
    read = read_bars(lake, CALENDAR, SESSIONS, interval=interval)
    assert_frame_equal(read.sort("symbol", "ts"), pl.concat(expected).sort("symbol", "ts"), check_exact=True)
    assert_frame_equal(read, pl.concat(read_bars(lake, CALENDAR, [s], interval=interval) for s in SESSIONS))


def test_the_vendor_s_day_stands_in_only_where_there_are_no_minutes(lake: Lake):
    days = read_bars(lake, CALENDAR, SESSIONS, symbols=["A", "E"], interval="day")
    native = stored(lake, "bars_day", SESSIONS, ["A"])
    third = CALENDAR.hours(SESSIONS[2])
    for symbol, count in (("A", len(SESSIONS)), ("E", len(SESSIONS))):
        assert days.filter(pl.col("symbol") == symbol).height <= count
    of_a = days.filter((pl.col("symbol") == "A") & (pl.col("ts") == third.open))
    assert_frame_equal(of_a, native.filter(pl.col("ts") == third.open), check_exact=True)
    others = days.filter((pl.col("symbol") == "A") & (pl.col("ts") != third.open))
    assert others.join(native, on=list(BARS), how="semi", nulls_equal=True).is_empty()
    assert (days["known_at"] == pl.Series([CALENDAR.hours(s).close for s in SESSIONS for _ in range(2)])).all()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["1m", "5m", "60m", "day"]), st.integers(0, 6 * 1440))
def test_as_of_an_instant_only_what_was_known_is_read(lake: Lake, interval: str, minutes: int):
    as_of = CALENDAR.hours(SESSIONS[0]).open + minutes * MINUTE
    whole = read_bars(lake, CALENDAR, SESSIONS, symbols=["A", "B"], interval=interval)
    read = read_bars(lake, CALENDAR, SESSIONS, symbols=["A", "B"], interval=interval, as_of=as_of)
    assert (read["known_at"] <= as_of).all()
    same = read.join(whole, on=list(BARS), how="semi", nulls_equal=True)
    assert same.height == read.height == whole.filter(pl.col("known_at") <= as_of).height


def test_a_range_without_sessions_or_a_lake_without_tables_gives_no_rows(lake: Lake, tmp_path: Path):
    for interval in ("1m", "5m", "day"):
        assert read_bars(lake, CALENDAR, [], interval=interval).equals(BARS.to_frame())
        assert read_bars(Lake(tmp_path), CALENDAR, SESSIONS, interval=interval).equals(BARS.to_frame())


def test_what_is_no_interval_is_refused(lake: Lake):
    with pytest.raises(NotAnInterval, match="5 minutes"):
        read_bars(lake, CALENDAR, SESSIONS, interval="5 minutes")


@pytest.mark.parametrize("damage", ["cut off", "other columns"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str):
    lake = Lake(tmp_path)
    for session in SESSIONS[:3]:
        lake.write("price_history", session, walk(session, ["A"]))
    path = lake.path("price_history", SESSIONS[1])
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        lake.write("price_history", SESSIONS[1], walk(SESSIONS[1], ["A"]).drop("oi"))
    with pytest.raises(PartitionUnreadable, match=f"session={SESSIONS[1]}"):
        read_bars(lake, CALENDAR, SESSIONS[:3], symbols=["A"])


def test_the_table_of_an_interval_has_its_name():
    assert [table_of(i) for i in ("1m", "5m", "day")] == ["price_history", "bars_5m", "bars_day"]


def test_a_market_of_synthetic_bars_makes_what_is_read(tmp_path: Path):
    data = MarketData.of(Home(tmp_path), "demo", LifeConfig())
    sessions = data.calendar.sessions(date(2022, 10, 3), date(2022, 10, 6))
    read = data.read(["SYN001", "SYN002"], sessions[0], sessions[-1])
    assert_frame_equal(
        read, pl.concat([data.bars(s) for s in sessions]).filter(pl.col("symbol").is_in(["SYN001", "SYN002"]))
    )
    hours = data.calendar.hours(sessions[0])
    fives = resample(data.bars(sessions[0]), "5m", open_at=hours.open, close_at=hours.close).drop("interval")
    assert_frame_equal(data.bars_of(sessions[0], "5m"), fives)
    assert_frame_equal(data.bars_of(sessions[0], "1m"), data.bars(sessions[0]))
    noon = datetime.combine(sessions[0], hours.open.timetz()) + timedelta(hours=3)
    assert data.read(None, sessions[0], sessions[-1], as_of=noon)["known_at"].max() == noon


@pytest.mark.parametrize("read", [MarketData.read, MarketData.adjusted])
def test_a_moment_without_a_time_zone_is_refused_and_no_file_is_called_damaged(lake: Lake, read):
    data = MarketData(lake, load_profile("metals"))
    with pytest.raises(NaiveMoment, match=r"as_of is 2026-04-16 00:00:00, which has no time zone.*tzinfo=UTC"):
        read(data, ["A"], SESSIONS[0], SESSIONS[-1], as_of=datetime(2026, 4, 16))


def test_a_mistake_in_the_call_is_not_taken_for_damage(lake: Lake):
    with pytest.raises(pl.exceptions.InvalidOperationError):
        read_bars(lake, CALENDAR, SESSIONS, symbols=[1])  # pyright: ignore[reportArgumentType]


def test_what_a_lake_holds_is_counted_by_interval_and_symbol(lake: Lake):
    """Against each file by itself: minutes, the vendor's larger bars, and the sessions with bars of any of them."""
    shown = holdings(lake, "metals")
    assert list(shown["bars"]) == ["1m", "5m", "day"]
    assert (shown["sessions"], shown["first"], shown["last"]) == (len(SESSIONS), SESSIONS[0], SESSIONS[-1])
    for interval, held in shown["bars"].items():
        table = table_of(interval)
        sessions = lake.sessions(table)
        whole = stored(lake, table, sessions, SYMBOLS)
        assert (held["sessions"], held["first"], held["last"]) == (len(sessions), sessions[0], sessions[-1])
        assert held["rows"] == whole.height
        assert [row["symbol"] for row in held["symbols"]] == sorted(whole["symbol"].unique())
        for row in held["symbols"]:
            mine = whole.filter(pl.col("symbol") == row["symbol"])
            files = [s for s in sessions if row["symbol"] in lake.read(table, s)["symbol"]]
            expected = {
                "sessions": len(files),
                "rows": mine.height,
                "first": mine["ts"].min(),
                "last": mine["ts"].max(),
            }
            assert row == {"symbol": row["symbol"], **expected}


def test_a_market_of_larger_bars_only_has_sessions_too_and_an_empty_one_has_none(lake: Lake, tmp_path: Path):
    other = Lake(tmp_path / "fives")
    other.write("bars_5m", SESSIONS[1], lake.read("bars_5m", SESSIONS[1]))
    shown = holdings(other, "indices")
    assert (shown["sessions"], shown["first"], list(shown["bars"])) == (1, SESSIONS[1], ["5m"])
    text = as_text(shown)
    assert "5m bars\nsymbol  sessions" in text
    assert len([line for line in text.splitlines() if line.startswith(("B ", "E "))]) == 2
    nothing = holdings(Lake(tmp_path / "none"), "indices")
    assert (nothing["sessions"], nothing["first"], nothing["bars"]) == (0, None, {})
    assert {"sessions: 0", "findings: none"} <= set(as_text(nothing).splitlines())


def test_a_damaged_file_is_named_by_what_counts_them_too(tmp_path: Path):
    lake = Lake(tmp_path)
    for session in SESSIONS[:2]:
        lake.write("bars_day", session, walk(session, ["A"]))
    lake.path("bars_day", SESSIONS[1]).write_bytes(b"PAR1")
    with pytest.raises(PartitionUnreadable, match=f"session={SESSIONS[1]}"):
        holdings(lake, "metals")
