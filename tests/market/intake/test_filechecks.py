"""Files that are wrong as a whole are refused before anything is stored; odd files that are right are not."""

import gzip
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odincommand import odin
from weekdaybars import FRIDAY, SOURCE, THURSDAY, at, contents, day_of, load, row

from odin_core.lake import Lake
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.barfiles import BadOption, Said, UnreadableFile, ZoneInStamps
from odin_core.market.intake.filechecks import (
    DailyStamps,
    NotAskedFor,
    NothingSound,
    SwappedDates,
    WrongBarLength,
    WrongFormat,
    WrongStamps,
    WrongZone,
)
from odin_core.market.intake.importing import import_files
from odin_core.market.intake.layout import parse_layout
from odin_core.market.intake.reading import read_by
from odin_core.market.profile import load_profile

KOLKATA = ZoneInfo("Asia/Kolkata")


def moved(rows: list[dict[str, Any]], minutes: int) -> list[dict[str, Any]]:
    return [r | {"ts": r["ts"] + timedelta(minutes=minutes)} for r in rows]


def days(*minutes: range) -> list[dict[str, Any]]:
    """A and B on two days, with bars in these minutes after the open."""
    chosen = [m for part in minutes for m in part]
    return [r for symbol in "AB" for day in (THURSDAY, FRIDAY) for r in day_of(symbol, day, chosen)]


# Hours of another zone


@pytest.mark.parametrize("shift", [-240, -60, -30, 30, 60, 210])
def test_a_day_moved_by_another_zone_is_refused_with_how_far_it_is_off(
    lake: Lake, parquet: Callable[..., Path], shift: int
):
    where = f"{abs(shift) // 60}:{abs(shift) % 60:02d} h {'before' if shift < 0 else 'after'}"
    with pytest.raises(WrongZone, match=rf"first bar is {where} the open and the last {where} the close.*--timezone"):
        load(lake, parquet(moved(days(range(375)), shift)))
    with pytest.raises(WrongZone):
        load(lake, parquet(moved(day_of("A"), shift), "one_session.parquet"))
    assert lake.tables() == []


def test_a_wrong_zone_is_seen_by_the_days_that_it_moves(lake: Lake, parquet: Callable[..., Path]):
    summer = [r for n in range(6) for r in moved(day_of("A", date(2021, 6, 14 + n % 5)), 60)]
    with pytest.raises(WrongZone, match="75% of its rows"):
        load(lake, parquet(summer[: 3 * 375] + day_of("A")))


RIGHT = {
    "extended hours": days(range(-200, 575)),
    "bars before the open and no more": days(range(-200, 375)),
    "bars after the close and no more": days(range(575)),
    "a recorder that started late and ran on": [*day_of("A", minutes=range(200, 500)), *day_of("B"), *day_of("C")],
    "a morning from before the open": day_of("A", minutes=range(-60, 120)),
    "prints of the opening auction and a recorder that stopped": days(range(-8, -7), range(80)),
    "a short day": days(range(100)),
}


@pytest.mark.parametrize("case", RIGHT)
def test_bars_outside_the_hours_or_missing_ones_are_no_wrong_zone(lake: Lake, parquet: Callable[..., Path], case: str):
    report = load(lake, parquet(RIGHT[case])).files[0]
    inside = sum(at(0, r["ts"].date()) <= r["ts"] < at(375, r["ts"].date()) for r in RIGHT[case])
    assert (report.kept, report.rows) == (inside, len(RIGHT[case]))


@given(
    first=st.integers(-14, 374), length=st.integers(1, 388), minutes=st.sampled_from([1, 5, 15, 60]),
    stamps=st.sampled_from(["start", "end"]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_no_day_that_lies_within_its_session_is_taken_for_one_of_another_zone(
    tmp_path_factory: pytest.TempPathFactory, first: int, length: int, minutes: int, stamps: Any
):
    folder = tmp_path_factory.mktemp("days")
    rows = [r for day in (THURSDAY, FRIDAY) for r in day_of("A", day, range(first, min(first + length, 375), minutes))]
    shifted = moved(rows, minutes if stamps == "end" else 0)
    pl.DataFrame(shifted, schema=SOURCE).write_parquet(folder / "bars.parquet")
    others = (UnreadableFile, WrongBarLength, WrongStamps, DailyStamps, NothingSound)
    with suppress(*others):  # and no WrongZone
        load(Lake(folder / "lake"), folder / "bars.parquet", interval=f"{minutes}m", stamps=stamps)


def test_a_wrong_zone_is_said_before_the_stamps_that_follow_from_it(lake: Lake, market_file: Callable[[str], Path]):
    path, calendar = market_file("raw/aapl_1m_descending_bar_end_labels.csv"), session_calendar(load_profile("us"))
    for stamps in ("start", "end"):
        said = Said(symbol="AAPL", timezone="Europe/London", stamps=stamps)
        with pytest.raises(WrongZone, match=r"before the open and the last .* before the close"):
            import_files([path], lake=lake, calendar=calendar, said=said)
    assert lake.tables() == []


@pytest.mark.parametrize("zone", ["Asia/Dhaka", "Asia/Karachi", "Asia/Dubai"])
def test_recorded_minutes_read_in_a_neighbouring_zone_are_refused(
    lake: Lake, market_file: Callable[[str], Path], zone: str
):
    path = market_file("raw/nifty_1m_headerless_bar_end_labels_outage_day.txt")
    with pytest.raises(WrongZone):
        import_files([path], lake=lake, calendar=session_calendar(load_profile("nse")), said=Said(timezone=zone))


def test_a_refused_file_changes_no_bar_that_is_there(lake: Lake, parquet: Callable[..., Path]):
    load(lake, parquet(days(range(375))))
    before = contents(lake)
    with pytest.raises(WrongZone):
        load(lake, parquet(moved(days(range(375)), -60), "again.parquet"))
    assert contents(lake) == before


# How stamps and numbers are written

HEADER = "Tag;Uhrzeit;Eröffnung;Hoch;Tief;Schluss;Stück\n"
GERMAN: dict[str, Any] = {
    "about": "semicolons, German names, day first",
    "separator": ";",
    "thousands": ".",
    "decimal": ",",
    "timezone": "Asia/Kolkata",
    "time_formats": ["%d.%m.%Y %H:%M"],
    "symbol": "BMW",
    "columns": {
        "ts": "Tag", "clock": "Uhrzeit", "open": "Eröffnung", "high": "Hoch", "low": "Tief", "close": "Schluss",
        "volume": "Stück",
    },
}  # fmt: skip


@pytest.fixture
def german(tmp_path: Path) -> Callable[..., tuple[Path, str]]:
    """A file of minutes, with a German layout; `price` says how its prices are written, `stamp` its stamps."""

    def write(price: str, stamp: str = "%d.%m.%Y;%H:%M", count: int = 5, **changes: Any) -> tuple[Path, str]:
        stamps = [at(n % 375, date(2021, 4, 1 + n // 375)).astimezone(KOLKATA).strftime(stamp) for n in range(count)]
        path, layout = tmp_path / "bars.csv", tmp_path / "german.yaml"
        path.write_text(HEADER + "\n".join(f"{s};{price};{price};{price};{price};12.000" for s in stamps))
        import yaml

        layout.write_text(yaml.safe_dump(GERMAN | changes, allow_unicode=True))
        return path, str(layout)

    return write


@pytest.mark.parametrize(("written", "price"), [("1.290,27", 1290.27), ("100,01", 100.01), ("1.000", 1000.0)])
def test_decimals_after_a_comma_are_read(lake: Lake, german: Callable[..., Any], written: str, price: float):
    path, layout = german(written)
    load(lake, path, layout=layout)
    bars = lake.read("price_history", THURSDAY)
    assert (bars["close"].to_list(), bars["volume"].to_list()) == ([price] * 5, [12_000.0] * 5)


@pytest.mark.parametrize("written", ["100.01", "1,290.27", "1.29", "1.2345,0", "1290,27,5"])
def test_a_price_with_decimals_written_another_way_is_refused_and_not_multiplied(
    lake: Lake, german: Callable[..., Any], written: str
):
    path, layout = german(written)
    with pytest.raises(WrongFormat, match=r"100% of its rows.*'Eröffnung .*decimal, thousands"):
        load(lake, path, layout=layout)
    assert lake.tables() == []


@given(
    value=st.decimals(0, 10**9, places=2), thousands=st.sampled_from([",", ".", "'", " ", "\u202f", "_"]),
    decimal=st.sampled_from([".", ","]), is_indian=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_what_is_written_with_groups_is_read_back(value: Any, thousands: str, decimal: str, is_indian: bool):
    if thousands == decimal:
        return
    whole, cents = f"{value:.2f}".split(".")
    head, groups = whole[:-3], [whole[-3:]]
    size = 2 if is_indian else 3
    while head:
        head, group = head[:-size], head[-size:]
        groups.insert(0, group)
    written = thousands.join(groups) + decimal + cents
    columns = {name: name for name in ("ts", "open", "high", "low", "close")}
    layout = parse_layout("x", {"about": "", "columns": columns, "thousands": thousands, "decimal": decimal})
    raw = pl.DataFrame({name: [written] for name in columns})
    reading = read_by(layout, columns, raw.with_columns(ts=pl.lit("2021-04-01T03:45:00Z")))
    assert reading.bars["close"].item() == float(value)
    assert reading.unread is not None
    assert reading.unread.null_count() == 1


def test_stamps_of_another_format_are_refused_with_one_of_them(lake: Lake, german: Callable[..., Any]):
    path, layout = german("100,5", stamp="%Y/%m/%d;%H:%M")
    with pytest.raises(WrongFormat, match=r"'Tag 2021/04/01 09:15'.*time_formats"):
        load(lake, path, layout=layout)


def test_day_and_month_swapped_are_refused_where_days_are_no_months(lake: Lake, german: Callable[..., Any]):
    path, layout = german("100,5", count=30 * 375, time_formats=["%m.%d.%Y %H:%M"])
    with pytest.raises(WrongFormat, match=r"60% of its rows.*'Tag 13\.04\.2021 09:15'"):
        load(lake, path, layout=layout)


def test_day_and_month_swapped_are_refused_where_every_day_is_a_month(lake: Lake, german: Callable[..., Any]):
    path, layout = german("100,5", count=12 * 375, time_formats=["%m.%d.%Y %H:%M"])
    with pytest.raises(SwappedDates, match=r"sessions are all day 4 of a month \(2021-01-04, .*time_formats"):
        load(lake, path, layout=layout)


def test_what_stands_for_a_missing_number_is_no_wrong_format(lake: Lake, tmp_path: Path):
    path = tmp_path / "bars.csv"
    gaps = ["", " ", "-", "NaN", "null", "N/A"]
    lines = [f"{at(n).isoformat()},A,{','.join([gaps[n % 6]] * 4)},1" for n in range(60)]
    path.write_text("\n".join(["ts,symbol,open,high,low,close,volume", *lines, f"{at(60).isoformat()},A,1,1,1,1,1"]))
    report = load(lake, path).files[0]
    assert (report.kept, report.quarantined) == (1, {"price_missing": 60})


def test_a_file_without_one_sound_row_is_refused_with_the_rules_that_it_breaks(
    lake: Lake, parquet: Callable[..., Path]
):
    bad = [row("A", n, high=1.0) for n in range(20)] + [row("A", 30, close=-1.0)]
    with pytest.raises(NothingSound, match=r"none of its 21 rows.*20 high_below_low: .*1 price_not_positive: "):
        load(lake, parquet(bad))
    assert lake.tables() == []
    assert load(lake, parquet([*bad, row("A", 31)])).kept == 1


# Bars of another length


def test_daily_stamps_read_as_minutes_are_refused_with_the_interval(lake: Lake, parquet: Callable[..., Path]):
    stamped = [row(s, 0) | {"ts": datetime(2021, 4, 1, tzinfo=at(0).tzinfo)} for s in "ABC"]
    with pytest.raises(DailyStamps, match=r"all its stamps are at 00:00 UTC.*--interval day"):
        load(lake, parquet(stamped))
    assert load(lake, parquet(stamped), interval="day").kept == 3


def test_a_recorded_day_of_contracts_is_refused_as_minutes_with_the_interval(
    lake: Lake, market_file: Callable[[str], Path]
):
    calendar = session_calendar(load_profile("nse_options"))
    with pytest.raises(DailyStamps, match="--interval day"):
        import_files([market_file("nse_options_eod.parquet")], lake=lake, calendar=calendar)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_minutes_read_as_days_are_refused_with_the_interval(lake: Lake, tmp_path: Path, kind: str):
    path, frame = tmp_path / f"bars.{kind}", pl.DataFrame(day_of("A"), schema=SOURCE)
    frame.write_parquet(path) if kind == "parquet" else frame.write_csv(path)
    with pytest.raises(WrongBarLength, match=r"1 minute apart.*interval day.*--interval 1m"):
        load(lake, path, interval="day")


# What is said, and what a file is


def test_a_file_without_a_symbol_that_was_asked_for_is_refused_with_those_that_it_has(
    lake: Lake, parquet: Callable[..., Path]
):
    path = parquet(day_of("US30") + day_of("NAS100"))
    with pytest.raises(NotAskedFor, match=r"no row is of the --symbols asked for; it holds NAS100, US30\."):
        load(lake, path, symbols=("US300",))
    assert lake.tables() == []
    assert load(lake, path, symbols=("US30", "US300")).kept == 375


def test_a_zone_that_does_not_exist_is_told_by_its_option(lake: Lake):
    with pytest.raises(BadOption, match=r"^--timezone is 'Asia/Kolkatta', but .* as Asia/Kolkata$"):
        load(lake, timezone="Asia/Kolkatta")
    with pytest.raises(BadOption, match=r"^--interval is '5 minutes'"):
        load(lake, interval="5 minutes")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_zone_given_for_stamps_that_carry_one_is_refused(lake: Lake, tmp_path: Path, kind: str):
    path, frame = tmp_path / f"bars.{kind}", pl.DataFrame(day_of("A"), schema=SOURCE)
    frame.write_parquet(path) if kind == "parquet" else frame.write_csv(path)
    with pytest.raises(ZoneInStamps, match="--timezone Asia/Kolkata would change nothing; leave it out"):
        load(lake, path, timezone="Asia/Kolkata")
    assert load(lake, path).kept == 375


def test_a_zone_given_for_stamps_of_which_some_carry_one_counts_for_the_others(lake: Lake, tmp_path: Path):
    path = tmp_path / "bars.csv"
    lines = ["2021-04-01T03:45:00Z,A,1,1,1,1,1", "2021-04-01 09:16:00,A,1,1,1,1,1"]
    path.write_text("\n".join(["ts,symbol,open,high,low,close,volume", *lines]))
    load(lake, path, timezone="Asia/Kolkata")
    assert lake.read("price_history", THURSDAY)["ts"].to_list() == [at(0), at(1)]


TEXT = "ts,symbol,open,high,low,close,volume\n2021-04-01T03:45:00Z,Börse,1,1,1,1,1\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(TEXT.encode()), r"compressed \(gzip\), unpack it first \(gunzip\)"),
        (b"PK\x03\x04 and so on", "zip archive or a spreadsheet"),
        (TEXT.encode("utf-16"), "UTF-16.*iconv -f UTF-16 -t UTF-8"),
        (TEXT.encode("latin-1"), "byte 0xf6.*iconv -f WINDOWS-1252 -t UTF-8"),
        ((TEXT + "2021-04-01T03:46:00Z,A,1,1,1,1,1\n" * 500).encode() + TEXT.encode("latin-1"), "byte 0xf6.*iconv"),
        ((TEXT + "2021-04-01T03:46:00Z,A,1,290,1,1,1,1\n").encode(), "line 3 has 8 fields, but there are 7 columns"),
    ],
    ids=["gzip", "zip", "utf-16", "latin-1", "latin-1 far below", "a comma too many"],
)
def test_a_file_that_is_no_text_says_what_it_is_and_the_way_out(lake: Lake, tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "bars.csv"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=words):
        load(lake, path)


def test_parquet_under_another_name_is_told(lake: Lake, parquet: Callable[..., Path]):
    with pytest.raises(UnreadableFile, match=r"rename it to end in \.parquet"):
        load(lake, parquet(day_of("A"), "bars.csv"))


def test_the_command_refuses_a_wrong_file_with_a_status_and_stores_nothing(tmp_path: Path, market_file: Any):
    path = market_file("raw/aapl_1m_descending_bar_end_labels.csv")
    words = ("data", "import", path, "--market", "us", "--symbol", "AAPL")
    assert "Mend the time zone" in odin(*words, "--timezone", "Europe/London", home=tmp_path / "home").mistake
    assert "--timezone is 'Mars'" in odin(*words, "--timezone", "Mars", home=tmp_path / "home").mistake
