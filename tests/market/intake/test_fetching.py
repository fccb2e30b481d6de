"""Fetching: what is missing and nothing else, the same lake after a stop, late corrections found."""

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from recordedsource import RecordedSource, recorded

from odin_core.lake import Lake
from odin_core.market.bars import BARS
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.fetching import FetchProgress, FetchReport, NoSymbols, NotOverYet, fetch
from odin_core.market.profile import load_profile
from odin_core.market.sources.source import SOURCE_BARS, SourceUnavailable

CALENDAR = session_calendar(load_profile("nse"))
SESSIONS = CALENDAR.sessions(date(2021, 4, 26), date(2021, 5, 6))  # nine sessions in two months
SYMBOLS = ["HDFC", "M&M", "TCS"]
AFTER = datetime(2021, 5, 7, tzinfo=UTC)


@pytest.fixture(scope="module")
def record() -> pl.DataFrame:
    return recorded(SYMBOLS, SESSIONS, CALENDAR)


def load(source, folder: Path, sessions=SESSIONS, symbols=SYMBOLS, **options) -> FetchReport:
    given = {"lake": Lake(folder / "lake"), "calendar": CALENDAR, "staging": folder / "staging", "as_of": AFTER}
    return fetch(lambda: source, "recorded", symbols, sessions, **given | options)


def content(folder: Path) -> pl.DataFrame:
    lake = Lake(folder / "lake")
    return lake.read_many("price_history", lake.sessions("price_history"))


def test_a_first_fetch_brings_everything_and_a_second_asks_for_nothing(record, tmp_path):
    source = RecordedSource(record)
    report = load(source, tmp_path)
    assert (report.asked, report.known, report.kept) == (27, 0, record.height)
    assert [name for name, *_ in source.asked] == [*SYMBOLS, *SYMBOLS]  # once per symbol and month
    expected = record.with_columns(known_at=pl.col("ts") + timedelta(minutes=1)).select(*BARS)
    assert_frame_equal(content(tmp_path), expected.sort(pl.col("ts").dt.date(), "symbol", "ts"))
    assert Lake(tmp_path / "lake").read("instruments", SESSIONS[0])["symbol"].to_list() == SYMBOLS

    def nobody():
        raise AssertionError("nothing is missing, so nobody may be called")

    again = fetch(nobody, "recorded", SYMBOLS, SESSIONS, lake=Lake(tmp_path / "lake"), calendar=CALENDAR,
                  staging=tmp_path / "staging", as_of=AFTER)  # fmt: skip
    assert (again.asked, again.known, again.changed_sessions) == (0, 27, [])


def test_only_the_missing_symbols_and_sessions_are_asked_for(record, tmp_path):
    load(RecordedSource(record), tmp_path, sessions=SESSIONS[:4], symbols=["TCS"])
    source = RecordedSource(record)
    report = load(source, tmp_path, sessions=SESSIONS[2:6])
    assert (report.asked, report.known) == (10, 2)
    assert ("TCS", SESSIONS[4], SESSIONS[4]) in source.asked
    assert ("HDFC", SESSIONS[2], SESSIONS[4]) in source.asked
    assert content(tmp_path).group_by("symbol").len().sort("symbol")["len"].to_list() == [4 * 375, 4 * 375, 6 * 375]


def test_one_fetch_and_many_small_ones_give_the_same_bars(record, tmp_path):
    load(RecordedSource(record), tmp_path / "one")
    for session in reversed(SESSIONS):
        for symbol in SYMBOLS:
            load(RecordedSource(record), tmp_path / "many", sessions=[session], symbols=[symbol])
    assert_frame_equal(content(tmp_path / "one"), content(tmp_path / "many"))


@pytest.mark.parametrize("answers", range(6))
def test_a_fetch_that_was_cut_off_goes_on_where_it_was(record, tmp_path, answers):
    load(RecordedSource(record), tmp_path / "whole")
    with pytest.raises(SourceUnavailable):
        load(RecordedSource(record, fails_after=answers), tmp_path / "cut")
    source = RecordedSource(record)
    report = load(source, tmp_path / "cut")
    assert len(source.asked) == 6 - answers
    assert report.resumed == answers % 3
    assert_frame_equal(content(tmp_path / "cut"), content(tmp_path / "whole"))
    assert not list((tmp_path / "cut" / "staging").rglob("*.parquet"))


def test_a_late_correction_is_found_by_a_recheck_and_named(record, tmp_path):
    load(RecordedSource(record), tmp_path)
    wrong = (pl.col("symbol") == "TCS") & (pl.col("ts").dt.date() == SESSIONS[-1])
    corrected = record.with_columns(volume=pl.when(wrong).then(pl.col("volume") + 1).otherwise("volume"))
    assert load(RecordedSource(corrected), tmp_path).changed_sessions == []
    report = load(RecordedSource(corrected), tmp_path, recheck=2)
    assert report.changed_sessions == [SESSIONS[-1]]
    assert (report.corrected, report.asked) == (375, 6)
    assert load(RecordedSource(corrected), tmp_path, recheck=2).changed_sessions == []


def test_bars_that_the_source_takes_back_are_kept_and_counted(record, tmp_path):
    load(RecordedSource(record), tmp_path)
    before = content(tmp_path)
    shorter = record.filter(~((pl.col("symbol") == "HDFC") & (pl.col("ts") >= CALENDAR.hours(SESSIONS[-1]).open)))
    report = load(RecordedSource(shorter), tmp_path, recheck=1)
    assert (report.vanished, report.empty) == (375, 1)
    assert_frame_equal(content(tmp_path), before)


def test_a_refused_symbol_is_reported_and_asked_for_again_while_the_others_go_on(record, tmp_path):
    report = load(RecordedSource(record, refuses=["M&M"]), tmp_path)
    assert list(report.refused) == ["M&M"]
    assert "no subscription" in report.to_text()
    assert set(content(tmp_path)["symbol"]) == {"HDFC", "TCS"}
    source = RecordedSource(record)
    load(source, tmp_path)
    assert {symbol for symbol, *_ in source.asked} == {"M&M"}


def test_sessions_without_an_answer_are_covered_and_not_asked_for_again(record, tmp_path):
    first = load(RecordedSource(record), tmp_path, symbols=["TCS", "LISTEDLATER"])
    assert first.empty == len(SESSIONS)
    source = RecordedSource(record)
    assert load(source, tmp_path, symbols=["TCS", "LISTEDLATER"]).asked == 0
    assert source.asked == []


def test_rows_that_break_a_rule_go_to_quarantine_with_the_request_that_brought_them(record, tmp_path):
    broken = record.with_columns(high=pl.when(pl.int_range(pl.len()) == 5).then(1.0).otherwise("high"))
    report = load(RecordedSource(broken), tmp_path)
    assert report.quarantined == {"high_below_low": 1}
    held = Lake(tmp_path / "lake").read("quarantine", SESSIONS[0])
    assert held["origin"].to_list() == [
        f"recorded 1m {SESSIONS[0]} to {CALENDAR.sessions(SESSIONS[0], date(2021, 4, 30))[-1]}"
    ]


def test_progress_is_told_per_symbol_and_ends_complete(record, tmp_path):
    steps: list[FetchProgress] = []
    load(RecordedSource(record), tmp_path, progress=steps.append)
    assert [(s.symbol, s.window) for s in steps] == [(n, w) for w in ("2021-04", "2021-05") for n in SYMBOLS]
    assert [s.done for s in steps] == [1, 2, 3, 4, 5, 6]
    assert {s.total for s in steps} == {6}


def test_a_session_that_is_not_over_is_refused_with_its_close(record, tmp_path):
    noon = datetime(2021, 5, 6, 6, 30, tzinfo=UTC)
    with pytest.raises(NotOverYet, match=r"2021-05-06 of nse closes at 2021-05-06 10:00 UTC"):
        load(RecordedSource(record), tmp_path, as_of=noon)
    assert content(tmp_path).is_empty()


def test_a_market_without_symbols_says_where_to_list_them(record, tmp_path):
    with pytest.raises(NoSymbols, match=r"source\.symbols"):
        load(RecordedSource(record), tmp_path, symbols=[])


def test_day_bars_stamped_with_their_local_midnight_belong_to_their_own_session(tmp_path):
    stamps = [datetime.combine(session, time(), ZoneInfo("Asia/Kolkata")) for session in SESSIONS]
    days = pl.DataFrame({"symbol": "TCS", "ts": stamps, "open": 9.0, "high": 11.0, "low": 8.0, "close": 10.0,
                         "volume": 5.0, "oi": None}).cast(SOURCE_BARS)  # fmt: skip
    source = RecordedSource(days, opens_early=timedelta(hours=12))
    report = load(source, tmp_path, symbols=["TCS"], interval="day")
    assert (report.kept, report.empty) == (9, 0)
    lake = Lake(tmp_path / "lake")
    assert lake.sessions("bars_day") == SESSIONS
    assert [lake.read("bars_day", s)["ts"].item() for s in SESSIONS] == [CALENDAR.hours(s).open for s in SESSIONS]
    again = load(source, tmp_path, symbols=["TCS"], interval="day", recheck=3)
    assert (again.asked, again.vanished, again.changed_sessions) == (3, 0, [])
