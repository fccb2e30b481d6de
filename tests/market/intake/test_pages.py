"""Pages of any origin: where the rows of each interval go, which session a daily stamp names, what a page replaces."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest
from weekdaybars import FRIDAY, THURSDAY, Weekdays, at, contents, day_of, row

from odin_core.lake import Lake
from odin_core.market.bars import BARS, NotAnInterval, table_of
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.importing import PageReport, store_page
from odin_core.market.intake.pages import Page
from odin_core.market.profile import load_profile
from odin_core.market.sources.source import INSTRUMENTS, SOURCE_BARS

CALENDAR = Weekdays()


def page(rows: list[dict[str, Any]], origin: str = "kite 1m 2021-04", **others: Any) -> Page:
    bars = pl.DataFrame([{"oi": None} | r for r in rows], schema=SOURCE_BARS)
    return Page(origin, f"{abs(hash(str(rows))):016x}"[:16], bars, bars, **others)


def put(lake: Lake, a_page: Page, interval: str = "1m") -> PageReport:
    return store_page(a_page, lake=lake, calendar=CALENDAR, interval=interval)


def test_a_page_is_stored_like_a_file_and_a_second_time_writes_nothing(lake: Lake):
    rows = [*day_of("A"), row("A", 400), row("A", 3, close=102.5), row("A", 1, day=FRIDAY)]
    first = put(lake, page(rows))
    before = {p: p.stat().st_mtime_ns for p in lake.root.rglob("*.parquet")}
    again = put(lake, page(rows))
    assert (first.kept, first.quarantined) == (376, {"duplicate_conflict": 1, "outside_hours": 1})
    assert (first.written, again.written, again.unchanged) == ((THURSDAY, FRIDAY), (), (THURSDAY, FRIDAY))
    assert {p: p.stat().st_mtime_ns for p in lake.root.rglob("*.parquet")} == before
    assert lake.read("quarantine", THURSDAY)["origin"].unique().to_list() == ["kite 1m 2021-04"]


def test_intervals_have_tables_of_their_own_and_do_not_replace_each_other(lake: Lake):
    rows = [row("A", 0), row("A", 5), row("A", 400)]
    for interval in ("1m", "5m", "day"):
        put(lake, page(rows), interval)
    assert {"price_history", "bars_5m", "bars_day"} <= set(lake.tables())
    held = lake.read("quarantine", THURSDAY).select("interval", "rule").rows()
    assert sorted(held)[:2] == [("1m", "outside_hours"), ("5m", "outside_hours")]
    assert sorted(held)[2:] == [("day", "duplicate_conflict")] * 2


@pytest.mark.parametrize("interval", ["0m", "5", "m", "1h", "days", "-5m", ""])
def test_what_is_no_interval_is_refused(interval: str):
    with pytest.raises(NotAnInterval):
        table_of(interval)


IST, EST = timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-4))
NAMES = {
    "a date": datetime(2021, 4, 1, tzinfo=UTC),
    "midnight in India": datetime(2021, 4, 1, tzinfo=IST),
    "the open": at(0),
    "a time inside": at(200),
    "the close": at(375),
    "a time soon after the close": at(400),
}


@pytest.mark.parametrize("stamp", NAMES)
def test_a_daily_stamp_names_its_session_however_the_vendor_writes_it(lake: Lake, stamp: str):
    put(lake, page([row("A", 0) | {"ts": NAMES[stamp]}]), "day")
    bar = lake.read("bars_day", THURSDAY).row(0, named=True)
    assert (bar["ts"], bar["known_at"]) == CALENDAR.hours(THURSDAY)


def test_a_daily_stamp_of_a_market_that_opens_the_day_before_names_the_session_not_the_opening_day(lake: Lake):
    calendar = session_calendar(load_profile("metals"))
    session = date(2024, 1, 10)
    bars = page([row("XAUUSD", 0) | {"ts": datetime(2024, 1, 10, tzinfo=UTC)}])
    store_page(bars, lake=lake, calendar=calendar, interval="day")
    assert lake.sessions("bars_day") == [session]


def test_daily_stamps_of_days_without_trading_are_held_back(lake: Lake):
    saturday, sunday = datetime(2021, 4, 3, tzinfo=UTC), datetime(2021, 4, 4, tzinfo=IST)
    report = put(lake, page([row("A", 0) | {"ts": saturday}, row("A", 0) | {"ts": sunday}]), "day")
    assert report.quarantined == {"not_a_session": 2}


def test_instruments_are_those_of_the_symbols_that_have_bars_in_the_session(lake: Lake):
    known = pl.DataFrame({"symbol": ["A", "B"], "lot_size": [25.0, 50.0]}).select(
        pl.col(n).cast(t) if n in ("symbol", "lot_size") else pl.lit(None, t).alias(n) for n, t in INSTRUMENTS.items()
    )
    put(lake, page([row("A", 0), row("B", 0, day=FRIDAY)], instruments=known))
    changed = known.with_columns(lot_size=pl.lit(75.0))
    put(lake, page([row("A", 1), row("A", 1, day=FRIDAY)], instruments=changed))
    assert lake.read("instruments", THURSDAY).select("symbol", "lot_size").rows() == [("A", 75.0)]
    assert lake.read("instruments", FRIDAY).select("symbol", "lot_size").rows() == [("A", 75.0), ("B", 50.0)]


def test_trades_become_minute_bars_and_bad_ones_are_held_back_one_by_one(lake: Lake):
    second = timedelta(seconds=1)
    prices = [(0, 100.0, 5.0), (20, 101.0, 1.0), (20, 101.0, 1.0), (70, -1.0, 1.0), (75, 99.0, 2.0), (23_000, 5.0, 1.0)]
    rows = [
        {"symbol": "A", "ts": at(0) + s * second, **dict.fromkeys(("open", "high", "low", "close"), p), "volume": v}
        for s, p, v in prices
    ]
    report = put(lake, page(rows, kind="trades"))
    assert (report.kept, report.bars, report.quarantined) == (4, 2, {"outside_hours": 1, "price_not_positive": 1})
    bars = lake.read("price_history", THURSDAY)
    assert bars.schema == BARS
    assert bars.select("open", "high", "low", "close", "volume").rows() == [
        (100.0, 101.0, 100.0, 101.0, 7.0),
        (99.0, 99.0, 99.0, 99.0, 2.0),
    ]


def test_ticks_without_any_sound_one_leave_no_bars(lake: Lake):
    rows = [{"symbol": "A", "ts": None, **dict.fromkeys(("open", "high", "low", "close"), 1.0), "volume": 1.0}]
    report = put(lake, page(rows, kind="ticks"))
    assert (report.kept, report.bars, report.quarantined) == (0, 0, {"ts_missing": 1})
    assert contents(lake).keys() == {"quarantine 1970-01-01", "arrivals 1970-01-01"}
