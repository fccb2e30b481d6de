"""Sessions against three witnesses: the calendar library itself, the exchange's own files, and dates known by hand."""

import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from realdata import market_file

from odin_core.market.calendar import NotASession, OutsideCalendar, SessionCalendar, session_calendar
from odin_core.market.calendar_rules import library_rules, rules_of
from odin_core.market.profile import PROFILES, BadProfile, MarketProfile, load_profile, profile_names

NSE = session_calendar(load_profile("nse"))
DAYS = st.dates(NSE.first, NSE.last)
DAILY_FILES = ("nse_daily_unadjusted.parquet", "nse_daily_adjusted.parquet")
MINUTE_FILES = ("nse_index_1m.parquet", "nse_equity_1m_2015.parquet", "nse_equity_1m_2021.parquet")


def market(
    calendar: str, zone: str, first: date, last: date, opens: time, closes: time, day_before: bool = False
) -> MarketProfile:
    return MarketProfile(
        name="test",
        calendar=calendar,
        calendar_first=first,
        calendar_last=last,
        first_partition=first,
        timezone=zone,
        open=opens,
        close=closes,
        opens_day_before=day_before,
        currency="USD",
        volume="traded",
        tick_size=0.01,
        lot_size=1,
        source={"kind": "files"},
        costs={},
        execution={},
        capital=1e6,
    )


def recorded_days(name: str) -> set[date]:
    local = pl.col("ts").dt.convert_time_zone("Asia/Kolkata").dt.date()
    return set(pl.scan_parquet(market_file(name)).select(local.unique()).collect().to_series().to_list())


@pytest.mark.parametrize(
    ("calendar", "zone", "opens", "closes"),
    [
        ("XBOM", "Asia/Kolkata", time(9, 15), time(15, 30)),
        ("XNYS", "America/New_York", time(9, 30), time(16, 0)),
        ("XLON", "Europe/London", time(8, 0), time(16, 30)),
        ("24/7", "UTC", time(0), time(0)),
    ],
)
def test_sessions_and_hours_are_the_library_s_where_the_profile_corrects_nothing(calendar, zone, opens, closes):
    import exchange_calendars

    first, last = date(2018, 1, 1), date(2025, 12, 31)
    ours = session_calendar(market(calendar, zone, first, last, opens, closes))
    theirs = exchange_calendars.get_calendar(calendar, start=first, end=last)
    assert ours.sessions() == [stamp.date() for stamp in theirs.sessions]
    assert [ours.hours(s) for s in ours.sessions()] == list(zip(theirs.opens, theirs.closes, strict=True))


@pytest.mark.parametrize(("zone", "edge"), [("America/Chicago", time(17)), ("America/New_York", time(18))])
def test_sessions_that_open_the_day_before_are_the_library_s_in_whichever_zone_they_are_told(zone, edge):
    """The library's early closes are noon in Chicago."""
    import exchange_calendars

    first, last = date(2016, 1, 1), date(2026, 12, 31)
    ours = session_calendar(market("CMES", zone, first, last, edge, edge, day_before=True))
    theirs = exchange_calendars.get_calendar("CMES", start=first, end=last)
    assert [ours.hours(s) for s in ours.sessions()] == list(zip(theirs.opens, theirs.closes, strict=True))


@pytest.mark.parametrize("name", [*DAILY_FILES, *MINUTE_FILES])
def test_every_date_with_recorded_nse_bars_is_a_session(name):
    days = recorded_days(name)
    assert [day for day in sorted(days) if not NSE.is_session(day)] == []


def test_no_session_of_ten_years_is_without_recorded_bars():
    recorded = set().union(*(recorded_days(name) for name in (*DAILY_FILES, "nse_index_1m.parquet")))
    missing = {s for s in NSE.sessions(date(2016, 1, 1), max(recorded)) if s not in recorded}
    # before October 2019 the only witness is a vendor's file, which skips two ordinary days and a Sunday evening
    assert missing == {date(2016, 10, 30), date(2019, 2, 13), date(2019, 3, 29)}


@pytest.mark.parametrize(
    ("session", "opens", "closes"),
    [
        pytest.param(date(2020, 11, 14), time(18, 15), time(19, 15), id="Muhurat on a Saturday evening"),
        pytest.param(date(2021, 11, 4), time(18, 15), time(19, 15), id="Muhurat on a holiday evening"),
        pytest.param(date(2020, 2, 1), time(9, 15), time(15, 30), id="budget on a Saturday"),
        pytest.param(date(2021, 2, 24), time(9, 15), time(17, 0), id="outage, later close"),
        pytest.param(date(2022, 3, 8), time(9, 15), time(15, 30), id="ordinary"),
    ],
)
def test_recorded_index_minutes_run_from_the_open_to_the_close(session, opens, closes):
    local = pl.col("ts").dt.convert_time_zone("Asia/Kolkata")
    bars = pl.scan_parquet(market_file("nse_index_1m.parquet")).filter(
        (pl.col("symbol") == "NIFTY") & (local.dt.date() == session)
    )
    recorded = bars.select(pl.col("ts").sort()).collect()["ts"].to_list()
    start, end = NSE.hours(session)
    inside = [ts for ts in recorded if start <= ts < end]
    assert inside[0] == start == datetime.combine(session, opens, start.tzinfo) - timedelta(hours=5, minutes=30)
    assert inside[-1] == end - timedelta(minutes=1) == datetime.combine(session, closes, UTC) - timedelta(minutes=331)
    assert len(recorded) - len(inside) <= 5  # a pre-open print and closing prints


def recorded_nifty(session: date) -> list[datetime]:
    local = pl.col("ts").dt.convert_time_zone("Asia/Kolkata").dt.date()
    bars = pl.scan_parquet(market_file("nse_index_1m.parquet"))
    return bars.filter((pl.col("symbol") == "NIFTY") & (local == session)).sort("ts").collect()["ts"].to_list()


@pytest.mark.parametrize("session", [date(2020, 3, 13), date(2020, 3, 23), date(2021, 2, 24)])
def test_a_halt_runs_from_the_last_recorded_minute_before_it_to_the_first_after_the_new_pre_open(session):
    recorded = recorded_nifty(session)
    opens, closes = NSE.hours(session)
    (halt,) = NSE.halts(session)
    assert halt.open - timedelta(minutes=1) in recorded
    assert {halt.close + timedelta(minutes=n) for n in range(1, 60)} <= set(recorded)
    assert sum(halt.open <= ts < halt.close for ts in recorded) <= 8  # prints of the pre-open
    expected = sum(opens <= ts < closes and not halt.open <= ts < halt.close for ts in recorded)
    assert NSE.minutes(session) - 1 <= expected <= NSE.minutes(session)


def test_without_its_halts_the_test_of_the_recovery_site_had_two_short_sittings():
    session = date(2024, 3, 2)
    assert NSE.minutes(session) == 45 + 60
    assert [(h.close - h.open).seconds // 60 for h in NSE.halts(session)] == [90]
    assert NSE.halts(date(2024, 3, 4)) == ()


@pytest.mark.parametrize("start", ["09:00", "15:20"], ids=["before the open", "over the close"])
def test_a_halt_outside_its_session_is_the_profile_s_fault(tmp_path, start):
    halt = f'{{date: 2023-01-04, start: "{start}", end: "15:45", why: test}}'
    (tmp_path / "shut.yaml").write_text(f"base: nse\nhalts: [{halt}]\n")
    with pytest.raises(BadProfile, match=r"halts is '2023-01-04 .*inside a session.*/shut\.yaml$"):
        session_calendar(load_profile("shut", (tmp_path, PROFILES)))


def test_a_close_that_was_moved_is_told_with_the_close_before():
    moved = NSE.moved_close(date(2021, 2, 24))
    assert moved is not None
    assert moved.announced_at == datetime(2021, 2, 24, 9, 47, tzinfo=UTC)
    assert moved.planned == datetime(2021, 2, 24, 10, 0, tzinfo=UTC) < NSE.hours(date(2021, 2, 24)).close
    assert [s for s in NSE.sessions() if NSE.moved_close(s)] == [date(2021, 2, 24)]
    with pytest.raises(NotASession):
        NSE.moved_close(date(2021, 2, 27))


@pytest.mark.parametrize("day", ["2024-11-29", "2024-11-26"], ids=["a short day of the library", "an ordinary day"])
def test_until_it_is_moved_the_close_is_the_library_s(tmp_path, day):
    special = f'{{date: {day}, open: "09:30", close: "17:00", announced: "12:00", why: test}}'
    (tmp_path / "late.yaml").write_text(f"base: us\nspecial_sessions: [{special}]\n")
    session, late = date.fromisoformat(day), session_calendar(load_profile("late", (tmp_path, PROFILES)))
    moved = late.moved_close(session)
    assert moved is not None
    assert moved.planned == session_calendar(load_profile("us")).hours(session).close < late.hours(session).close
    assert moved.announced_at == datetime.combine(session, time(17), UTC)


@pytest.mark.parametrize(
    ("announced", "close"),
    [("09:00", "17:00"), ("15:45", "17:00"), ("12:30", "12:00")],
    ids=["before the open", "after the planned close", "after the new close"],
)
def test_an_announcement_outside_its_session_is_the_profile_s_fault(tmp_path, announced, close):
    special = f'{{date: 2023-01-04, open: "09:15", close: "{close}", announced: "{announced}", why: test}}'
    (tmp_path / "told.yaml").write_text(f"base: nse\nspecial_sessions: [{special}]\nhalts: []\n")
    with pytest.raises(
        BadProfile, match=r"special_sessions is '2023-01-04 announced.*before the planned.*/told\.yaml$"
    ):
        session_calendar(load_profile("told", (tmp_path, PROFILES)))


@pytest.mark.parametrize("name", MINUTE_FILES)
def test_bars_within_hours_are_nearly_all_that_was_recorded(name):
    local = pl.col("ts").dt.convert_time_zone("Asia/Kolkata").dt.date()
    days = sorted(recorded_days(name))
    hours = pl.DataFrame(
        {"day": days, "open": [NSE.hours(d).open for d in days], "close": [NSE.hours(d).close for d in days]}
    )
    bars = pl.scan_parquet(market_file(name)).select("ts", day=local).join(hours.lazy(), on="day")
    inside = bars.select((pl.col("ts").is_between("open", "close", closed="left")).mean()).collect().item()
    assert inside > 0.97


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date(2015, 2, 28), True),
        (date(2024, 1, 20), True),
        (date(2024, 5, 18), True),
        (date(2025, 2, 1), True),
        (date(2026, 2, 1), True),
        (date(2023, 1, 1), False),
        (date(2023, 1, 26), False),
        (date(2024, 1, 22), False),
        (date(2024, 11, 2), False),
    ],
)
def test_dates_known_by_hand(day, expected):
    assert NSE.is_session(day) is expected


def test_the_demo_range_has_the_sessions_that_nse_had():
    first_half_of_2023 = NSE.sessions(date(2023, 1, 2), date(2023, 6, 30))
    assert len(first_half_of_2023) == 122  # 130 weekdays less eight holidays
    assert {NSE.minutes(s) for s in first_half_of_2023} == {375}
    assert NSE.minutes(date(2022, 10, 24)) == 60


@given(DAYS, DAYS)
def test_sessions_and_non_sessions_share_out_every_date_of_a_range(one, other):
    first, last = min(one, other), max(one, other)
    together = sorted(NSE.sessions(first, last) + NSE.non_sessions(first, last))
    assert together == [first + timedelta(days=i) for i in range((last - first).days + 1)]


@given(DAYS)
def test_next_and_previous_skip_no_session(day):
    sessions = NSE.sessions()
    after = [s for s in sessions if s > day]
    before = [s for s in sessions if s < day]
    if after:
        assert NSE.next(day) == after[0]
        assert NSE.previous(after[0]) == (day if NSE.is_session(day) else before[-1] if before else after[0])
    if len(before) >= 3:
        assert NSE.previous(day, steps=3) == before[-3]


@given(DAYS)
def test_a_week_has_one_last_session_and_starts_on_its_monday(day):
    week = NSE.sessions_of_week(day)
    assert NSE.week_of(day).weekday() == 0
    assert all(NSE.week_of(s) == NSE.week_of(day) for s in week)
    assert [NSE.is_last_session_of_week(s) for s in week] == [False] * (len(week) - 1) + [True] * bool(week)


def test_a_week_s_last_session_may_be_a_thursday_or_a_sunday_evening():
    assert NSE.is_last_session_of_week(date(2023, 4, 6))  # Good Friday follows
    assert not NSE.is_last_session_of_week(date(2023, 11, 10))  # a Friday, before the Muhurat Sunday
    assert NSE.is_last_session_of_week(date(2023, 11, 12))
    assert NSE.week_of(date(2023, 11, 12)) == date(2023, 11, 6)


def test_a_date_without_trading_is_refused_with_its_neighbours():
    with pytest.raises(NotASession, match=r"2023-01-01 is no session of market 'nse'.*2022-12-30 and 2023-01-02"):
        NSE.hours(date(2023, 1, 1))


@pytest.mark.parametrize(
    "asked",
    [
        lambda calendar: calendar.sessions(date(2010, 1, 1), date(2020, 1, 1)),
        lambda calendar: calendar.non_sessions(date(2020, 1, 1), date(2030, 1, 1)),
        lambda calendar: calendar.is_session(date(2030, 1, 1)),
        lambda calendar: calendar.next(calendar.sessions()[-1]),
        lambda calendar: calendar.previous(calendar.sessions()[0]),
    ],
)
def test_dates_outside_the_calendar_are_refused_with_its_bounds(asked):
    with pytest.raises(OutsideCalendar, match=r"market 'nse'.*2014-10-01 to 2026-12-31"):
        asked(NSE)


def test_a_range_that_ends_before_it_starts_is_empty():
    assert NSE.sessions(date(2023, 2, 1), date(2023, 1, 1)) == []


@pytest.mark.parametrize(
    ("calendar", "last", "message"),
    [
        ("XBOMB", date(2025, 1, 1), "did you mean XBOM"),
        ("XBOM", date(2040, 1, 1), "calendar_last is '2040-01-01'.*XBOM to 2026-12-31"),
    ],
)
def test_a_calendar_that_the_library_lacks_is_the_profile_s_fault(calendar, last, message):
    with pytest.raises(BadProfile, match=message):
        session_calendar(market(calendar, "Asia/Kolkata", date(2020, 1, 1), last, time(9, 15), time(15, 30)))


def test_a_closed_date_of_the_profile_is_no_session(tmp_path):
    (tmp_path / "shut.yaml").write_text("base: nse\nnon_sessions: [2023-01-04]\n")
    shut = session_calendar(load_profile("shut", (tmp_path, PROFILES)))
    assert set(NSE.sessions()) - set(shut.sessions()) == {date(2023, 1, 4)}


def test_the_same_facts_share_one_calendar():
    assert session_calendar(load_profile("nse")) is NSE
    assert isinstance(NSE, SessionCalendar)


def test_importing_the_modules_loads_neither_the_library_nor_pandas():
    code = "import sys, odin_core.market.calendar as c; assert not {'exchange_calendars', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", profile_names((PROFILES,)))
def test_what_is_kept_of_the_library_is_what_the_library_says(name):
    """After a change of a profile's calendar or of the library: python -m odin_core.market.calendar_rules"""
    profile = load_profile(name)
    asked = (profile.calendar, profile.calendar_first, profile.calendar_last)
    kept, said = rules_of(*asked), library_rules(*asked)
    assert kept.days == said.days
    assert kept.zone == said.zone
    for ours, theirs in ((kept.opens, said.opens), (kept.closes, said.closes)):
        assert ours == {day: at for day, at in theirs.items() if asked[1] <= day <= asked[2]}


def test_the_calendars_of_the_package_need_neither_the_library_nor_pandas():
    code = (
        "import sys; from odin_core.market.calendar import session_calendar as c; "
        "from odin_core.market.profile import PROFILES, load_profile as p, profile_names; "
        "assert all(c(p(name)).sessions() for name in profile_names((PROFILES,))); "
        "assert not {'exchange_calendars', 'pandas'} & set(sys.modules), 'a calendar is not kept'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_twelve_years_have_their_exclusions():
    assert len(session_calendar(load_profile("nse")).non_sessions()) > 1400
