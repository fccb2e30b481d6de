"""Files of corporate actions: each recorded one, what is told twice or wrongly, imports again and in another order."""

import gzip
import json
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from companyevents import CALENDAR, INDIA, NSE, US_CALENDAR, action, actions, daily, recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from odincommand import odin

from odin_core.lake import Lake
from odin_core.market.bars import BARS
from odin_core.market.intake.knowntables import NO_SESSION, UnreadableTable
from odin_core.market.reference.actionchecks import PRICES, check_events
from odin_core.market.reference.actionfiles import EVENTS, RULES, NoFactorSymbol, UnknownActionLayout
from odin_core.market.reference.actionimport import ActionReport, import_actions
from odin_core.market.reference.actions import ACTIONS, TABLE, read_actions

Find = Callable[[str], Path]


def bring(folder: Path, *paths: Path, symbol: str | None = None) -> list[ActionReport]:
    return import_actions(paths, lake=Lake(folder), calendar=CALENDAR, zone=INDIA, symbol=symbol)


def written(
    folder: Path, name: str, *lines: str, header: str = "symbol,ex_date,kind,ratio,amount,other,known_at"
) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def held_back(folder: Path) -> dict[int, str]:
    rows = Lake(folder).read("quarantine_actions", NO_SESSION)
    return dict(rows.select("row", "rule").iter_rows())


def stored(folder: Path) -> pl.DataFrame:
    return read_actions(Lake(folder)).drop("origin_id")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.parquet"))}


def splits_of(events: pl.DataFrame, symbol: str) -> dict[date, str | None]:
    own = events.filter(pl.col("symbol") == symbol, pl.col("kind") == "split")
    return dict(own.sort("row").select("ex_date", "rule").iter_rows())


@pytest.mark.parametrize("prices", ["nse_daily_unadjusted.parquet", None])
def test_the_events_that_the_vendor_tells_twice_are_found_with_prices_and_without(
    market_file: Find, prices: str | None
):
    events = recorded(market_file, "nse_corporate_actions.parquet", prices)
    assert splits_of(events, "NYKAA") == {date(2022, 11, 2): "repeated", date(2022, 11, 10): None}
    assert splits_of(events, "LODHA") == {date(2023, 5, 26): "repeated", date(2023, 5, 31): None}
    chola = splits_of(events.filter(pl.col("ex_date").dt.year() == 2019), "CHOLAFIN")
    assert chola == {date(2019, 6, 14): None, date(2019, 7, 22): "repeated"}
    assert events.height == 2717 + 15  # fifteen rows tell a split and a dividend
    assert events["rule"].value_counts(sort=True).rows() == [(None, 2646), ("repeated", 86)]


def test_dividends_of_the_vendors_last_shares_become_those_of_the_ex_date(market_file: Find):
    """Amounts as the companies declared them: TCS 29 before its bonus of the same day, INFY 29.50 likewise and before
    another bonus in 2018, BRITANNIA 25 before a split, told with 12.50 and 25 on two days."""
    events = recorded(market_file, "nse_corporate_actions.parquet", "nse_daily_unadjusted.parquet")
    paid = events.filter(pl.col("kind") == "dividend", pl.col("rule").is_null())

    def amount(symbol: str, first: date, last: date) -> list[float]:
        return paid.filter(pl.col("symbol") == symbol, pl.col("ex_date").is_between(first, last))["amount"].to_list()

    assert amount("TCS", date(2018, 5, 31), date(2018, 5, 31)) == pytest.approx([29.0])
    assert amount("INFY", date(2015, 6, 15), date(2015, 6, 15)) == pytest.approx([29.5])
    assert amount("BRITANNIA", date(2018, 7, 27), date(2018, 7, 30)) == pytest.approx([25.0])
    assert amount("TATASTEEL", date(2022, 6, 15), date(2022, 6, 16)) == pytest.approx([51.0])


def test_a_bonus_told_three_sessions_late_moves_to_where_minute_prices_show_it(tmp_path: Path, market_file: Find):
    """FEDERALBNK opens at half its price on 2015-07-03, and the vendor says 2015-07-08."""
    minutes = pl.read_parquet(market_file("nse_equity_1m_2015.parquet")).filter(pl.col("symbol") == "FEDERALBNK")
    bars = minutes.with_columns(known_at=pl.col("ts") + timedelta(minutes=1), oi=pl.lit(None, pl.Float64))
    lake = Lake(tmp_path)
    for session in CALENDAR.sessions(date(2015, 6, 25), date(2015, 7, 14)):
        lake.write("price_history", session, bars.filter(pl.col("ts").dt.date() == session).select(BARS.names()))
    (report,) = bring(tmp_path, market_file("nse_corporate_actions.parquet"))
    own = stored(tmp_path).filter(pl.col("symbol") == "FEDERALBNK", pl.col("ex_date").dt.year() == 2015)
    split = own.filter(pl.col("kind") == "split")
    assert split.select("ex_date", "ratio").rows() == [(date(2015, 7, 3), 2.0)]
    assert any("FEDERALBNK" in note and "moved to 2015-07-03" in note for note in report.notes)
    assert lake.read(TABLE, date(2015, 7, 3)).filter(pl.col("symbol") == "FEDERALBNK").height == 1


def test_prices_that_come_later_correct_what_was_stored_without_them(tmp_path: Path, market_file: Find):
    events = written(tmp_path / "in", "events.csv", "FEDERALBNK,2015-07-08,bonus,2,,,")
    bring(tmp_path / "lake", events)
    assert stored(tmp_path / "lake")["ex_date"].to_list() == [date(2015, 7, 8)]
    raw = pl.read_parquet(market_file("nse_equity_1m_2015.parquet")).filter(pl.col("symbol") == "FEDERALBNK")
    bars = raw.with_columns(known_at=pl.col("ts") + timedelta(minutes=1), oi=pl.lit(None, pl.Float64)).select(
        BARS.names()
    )
    for session in (date(2015, 7, 2), date(2015, 7, 3), date(2015, 7, 7), date(2015, 7, 8)):
        Lake(tmp_path / "lake").write("price_history", session, bars.filter(pl.col("ts").dt.date() == session))
    bring(tmp_path / "lake", events)
    assert stored(tmp_path / "lake")["ex_date"].to_list() == [date(2015, 7, 3)]
    assert Lake(tmp_path / "lake").sessions(TABLE) == [date(2015, 7, 3)]


def test_a_split_that_prices_do_not_show_anywhere_near_goes_to_quarantine(tmp_path: Path, market_file: Find):
    raw = daily(market_file("nse_daily_unadjusted.parquet"))
    row = {"row": 0, "symbol": "RELIANCE", "ex_date": date(2022, 5, 10), "kind": "split", "ratio": 2.0}
    event = pl.DataFrame([{**dict.fromkeys(EVENTS), **row, "per_last_share": False}], schema=EVENTS)
    checked = check_events(event, raw)
    assert checked.events["rule"].to_list() == ["contradicted"]
    assert checked.notes == ["RELIANCE: split of ratio 2 on 2022-05-10 is not in the prices"]
    assert check_events(event, raw.clear()).events["rule"].to_list() == [None]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([0.1, 0.5, 1.5, 2.0, 5.0, 10.0]),
    st.lists(st.floats(-0.03, 0.03), min_size=24, max_size=24),
    st.integers(-8, 8),
)
def test_a_split_told_within_ten_days_of_its_own_is_found_in_prices(ratio: float, nights: list[float], told: int):
    sessions = CALENDAR.sessions(date(2021, 3, 1), date(2021, 4, 8))[:24]
    ex = sessions[12]
    level, rows = 100.0, []
    for session, night in zip(sessions, nights, strict=True):
        level = level * (1 + night) / (ratio if session == ex else 1.0)
        rows.append({"symbol": "A", "session": session, "open": level, "close": level})
    row = {"row": 0, "symbol": "A", "ex_date": ex + timedelta(days=told), "kind": "split", "ratio": ratio}
    event = pl.DataFrame([{**dict.fromkeys(EVENTS), **row, "per_last_share": False}], schema=EVENTS)
    (found,) = check_events(event, pl.DataFrame(rows, schema=PRICES)).events.to_dicts()
    first_traded = next(s for s in sessions if s >= found["ex_date"])
    assert (found["rule"], first_traded) == (None, ex)


def test_a_split_and_a_bonus_on_one_day_both_count_and_a_split_told_as_a_bonus_too_counts_once(tmp_path: Path):
    both = written(tmp_path / "in", "both.csv", "A,2022-09-13,split,5,,,", "A,2022-09-13,bonus,2,,,")
    twice = written(tmp_path / "in", "twice.csv", "B,2022-09-13,split,2,,,", "B,2022-09-13,bonus,2,,,")
    bring(tmp_path / "lake", both, twice)
    assert stored(tmp_path / "lake").select("symbol", "kind", "ratio").rows() == [
        ("A", "bonus", 2.0), ("A", "split", 5.0), ("B", "split", 2.0)
    ]  # fmt: skip


def test_a_bonus_that_another_files_split_lacks_explains_what_the_price_did(tmp_path: Path, market_file: Find):
    raw = daily(market_file("nse_daily_unadjusted.parquet")).filter(pl.col("symbol") == "BAJAJFINSV")
    split = {"row": 0, "symbol": "BAJAJFINSV", "ex_date": date(2022, 9, 13), "kind": "split", "ratio": 5.0}
    bonus = split | {"kind": "bonus", "ratio": 2.0}
    events = [
        pl.DataFrame([{**dict.fromkeys(EVENTS), **e, "per_last_share": False}], schema=EVENTS) for e in (split, bonus)
    ]
    (note,) = check_events(events[0], raw).notes
    assert "the price went to 0.1024" in note
    told = actions(action("BAJAJFINSV", date(2022, 9, 13), "split", ratio=5.0))
    both = check_events(events[1], raw, told)
    assert (both.events["rule"].to_list(), both.notes) == ([None], [])


BROKEN = {
    ",2022-01-03,split,2,,,": "no_symbol",
    "A,soon,split,2,,,": "bad_date",
    "A,2022-01-04,split,2,,,tomorrow": "bad_known_at",
    "A,2022-01-05,demerger,2,,,": "unknown_kind",
    "A,2022-01-06,split,,,,": "bad_ratio",
    "A,2022-01-07,bonus,1,,,": "bad_ratio",
    "A,2022-01-10,merger,-1,,B,": "bad_ratio",
    "A,2022-01-11,dividend,,0,,": "bad_amount",
    "A,2022-01-12,dividend,,NaN,,": "bad_amount",
    "A,2022-01-13,rename,,,,": "no_other",
    "A,2031-01-13,dividend,,3,,": "outside_calendar",
}


def test_every_row_is_kept_or_lies_in_quarantine_with_its_rule_and_its_content(tmp_path: Path):
    sound = ["A,2022-02-01,dividend,,3,,", "A,2022-02-01,rename,,,AA,", "C,20220301,merger,1.68,,D,2022-02-11"]
    again = ["A,2022-02-01,dividend,,3,,", "A,2022-02-01,dividend,,4,,"]
    (report,) = bring(tmp_path / "lake", written(tmp_path / "in", "rows.csv", *BROKEN, *sound, *again))
    rules = held_back(tmp_path / "lake")
    assert [rules[i] for i in range(len(BROKEN))] == list(BROKEN.values())
    assert {rules[len(BROKEN) + len(sound)], rules[len(BROKEN) + len(sound) + 1]} == {"duplicate", "conflict"}
    assert report.events == report.rows == sum(report.kept.values()) + sum(report.quarantined.values())
    content = Lake(tmp_path / "lake").read("quarantine_actions", NO_SESSION)["content"]
    assert json.loads(content[1])["ex_date"] == "soon"
    assert set(report.quarantined) <= set(RULES)
    merger = stored(tmp_path / "lake").filter(pl.col("kind") == "merger").row(0, named=True)
    assert merger["known_at"] == datetime(2022, 2, 12, tzinfo=INDIA)  # a date is known when it is over


def test_a_row_lies_in_the_session_at_whose_close_it_was_first_known(tmp_path: Path, market_file: Find):
    bring(tmp_path, market_file("nse_corporate_actions.parquet"))
    lake = Lake(tmp_path)
    for session in lake.sessions(TABLE):
        rows = lake.read(TABLE, session)
        assert rows.schema == ACTIONS
        assert (rows["known_at"] <= CALENDAR.hours(session).close).all()
        if session > CALENDAR.sessions()[0]:
            assert (rows["known_at"] > CALENDAR.hours(CALENDAR.previous(session)).close).all()
    assert read_actions(lake).height == 2646


def test_the_same_import_again_writes_nothing_and_brings_back_what_a_kill_left_out(tmp_path: Path, market_file: Find):
    source = market_file("nse_corporate_actions.parquet")
    bring(tmp_path / "lake", source)
    before = bytes_of(tmp_path / "lake")
    (again,) = bring(tmp_path / "lake", source)
    assert again.sessions == ()
    assert bytes_of(tmp_path / "lake") == before
    Lake(tmp_path / "lake").remove(TABLE, date(2022, 11, 10))  # as if a kill had come in between
    bring(tmp_path / "lake", source)
    assert bytes_of(tmp_path / "lake") == before


def test_of_two_files_the_later_corrects_the_same_event_and_does_not_repeat_one_nearby(tmp_path: Path):
    first = written(tmp_path / "in", "first.csv", "A,2022-03-01,dividend,,3,,", "A,2022-06-01,split,2,,,")
    second = written(
        tmp_path / "in", "second.csv",
        "A,2022-03-01,dividend,,3.5,,", "A,2022-06-03,bonus,2,,,", "B,2022-03-03,dividend,,3,,",
    )  # fmt: skip
    reports = bring(tmp_path / "lake", first, second)
    assert [r.corrected for r in reports] == [0, 1]
    assert stored(tmp_path / "lake").select("symbol", "ex_date", "kind", "amount", "origin").rows() == [
        ("A", date(2022, 3, 1), "dividend", 3.5, "second.csv"), ("A", date(2022, 6, 1), "split", None, "first.csv"),
        ("B", date(2022, 3, 3), "dividend", 3.0, "second.csv"),
    ]  # fmt: skip
    assert reports[1].quarantined == {"repeated": 1}


def test_two_dividends_of_one_week_are_one_only_if_they_are_equal_or_a_vendor_forgot_to_adjust_one(tmp_path: Path):
    split = "A,2022-06-01,split,2,,,"
    real = written(tmp_path / "in", "real.csv", "A,2022-03-01,dividend,,1,,", "A,2022-03-03,dividend,,2,,", split)
    header = "symbol,date,dividend,split"
    vendor = written(
        tmp_path / "in", "v.csv", "A,2022-03-01,1,0", "A,2022-03-03,2,0", "A,2022-06-01,0,2", header=header
    )
    bring(tmp_path / "real", real)
    bring(tmp_path / "vendor", vendor)
    paid = pl.col("kind") == "dividend"
    assert stored(tmp_path / "real").filter(paid)["amount"].to_list() == [1.0, 2.0]
    told = stored(tmp_path / "vendor").filter(paid)
    assert told.select("ex_date", "amount").rows() == [(date(2022, 3, 3), 2.0)]


def test_a_factor_file_without_header_says_what_the_collected_one_says(tmp_path: Path, market_file: Find):
    alone = market_file("raw/aapl_factor_file_future_sentinel_date.csv")
    with pytest.raises(NoFactorSymbol, match="--symbol"):
        bring(tmp_path / "none", alone)
    collected = market_file("us_factors.parquet")
    for folder, path in (("alone", alone), ("collected", collected)):
        import_actions([path], lake=Lake(tmp_path / folder), calendar=US_CALENDAR, zone=INDIA, symbol="AAPL")
    own = stored(tmp_path / "collected").filter(pl.col("symbol") == "AAPL").drop("origin")
    assert own.equals(stored(tmp_path / "alone").drop("origin"))
    splits = own.filter(pl.col("kind") == "split").select("ex_date", pl.col("ratio").round(3)).rows()
    assert splits == [
        (date(2000, 6, 21), 2.0),
        (date(2005, 2, 28), 2.0),
        (date(2014, 6, 9), 7.0),
        (date(2020, 8, 31), 4.0),
    ]
    paid = own.filter(pl.col("ex_date") == date(2020, 11, 6))["amount"].item()
    assert paid == pytest.approx(0.205, abs=2e-3)  # what Apple declared


def test_files_that_are_no_actions_are_refused_before_anything_is_written(tmp_path: Path, market_file: Find):
    good = written(tmp_path / "in", "good.csv", "A,2022-03-01,dividend,,3,,")
    with pytest.raises(UnknownActionLayout, match="no corporate actions; give symbol, ex_date, kind"):
        bring(tmp_path / "lake", good, market_file("nse_daily_adjusted.parquet"))
    empty = written(tmp_path / "in", "empty.csv")
    with pytest.raises(UnreadableTable, match="has no rows"):
        bring(tmp_path / "lake", empty)
    assert not (tmp_path / "lake").exists()


LINES = "symbol,ex_date,kind,ratio,amount,other\nA,2022-01-11,dividend,,1,\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(None, "no such file", id="absent"),
        pytest.param(gzip.compress(LINES.encode()), r"it is compressed; unpack it first: gunzip told\.csv", id="gzip"),
        pytest.param((LINES + "Å,2022-01-11,dividend,,1,\n").encode("latin-1"),
                     r"line 3 is not UTF-8 text; .* iconv -f LATIN1 -t UTF-8 told\.csv", id="Latin-1"),
        pytest.param((LINES + 'B,2022-01-12,dividend,,"1,234",,too,much\n').encode(),
                     "line 3 has 8 fields and the first line 6; quote a field that holds a comma", id="long line"),
        pytest.param(b"", "not a readable Parquet or CSV file", id="no bytes"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_is_refused_with_what_to_do_about_it(tmp_path: Path, content: bytes | None, why: str):
    path = tmp_path / "told.csv"
    if content is not None:
        path.write_bytes(content)
    for command in ("actions", "fundamentals"):
        said = odin("data", command, path, "--market", NSE.name, home=tmp_path / "home").mistake
        assert re.search(why, said), said


def test_a_byte_order_mark_is_no_part_of_the_first_columns_name(tmp_path: Path):
    (tmp_path / "told.csv").write_bytes(b"\xef\xbb\xbf" + LINES.encode())
    (report,) = bring(tmp_path / "lake", tmp_path / "told.csv")
    assert report.kept == {"dividend": 1}


@pytest.mark.parametrize("table", ["bars_day", "price_history"])
def test_a_dividend_of_the_whole_price_or_more_goes_to_quarantine(tmp_path: Path, table: str):
    """The close is 100 on the days before; a dividend just below it stays, and one without prices near it, too."""
    for day in CALENDAR.sessions(date(2021, 4, 15), date(2021, 4, 22)):
        hours = CALENDAR.hours(day)
        level = 100.0 if day < date(2021, 4, 22) else 5000.0  # the ex-date's own close says nothing
        prices = dict.fromkeys(("open", "high", "low", "close"), level)
        rows = [{"symbol": s, "ts": hours.open, "known_at": hours.close, **prices} for s in ("TCS", "INFY")]
        Lake(tmp_path / "lake").write(table, day, pl.DataFrame(rows, schema=BARS))
    told = ("TCS,2021-04-22,dividend,,100,,", "INFY,2021-04-22,dividend,,99.9,,", "TCS,2021-07-15,dividend,,99999,,",
            "SBIN,2021-04-22,dividend,,99999,,")  # fmt: skip
    (report,) = bring(tmp_path / "lake", written(tmp_path / "in", "a.csv", *told))
    assert (report.kept, report.quarantined) == ({"dividend": 3}, {"above_price": 1})
    assert held_back(tmp_path / "lake") == {0: "above_price"}
    assert "a dividend of the last raw close before it or more" in report.to_text()


def test_the_command_says_what_was_done_as_text_and_json(tmp_path: Path):
    path = written(tmp_path / "in", "a.csv", "A,2022-01-11,dividend,,0,,", "A,2022-02-01,dividend,,3,,")
    command = ("data", "actions", path, "--market", NSE.name)
    told = odin(*command, home=tmp_path / "home")
    assert "2 rows tell 2 events; kept 1 dividend; 1 quarantined" in told.out
    (file,) = odin(*command, "--json", home=tmp_path / "home").json["files"]
    assert (file["quarantined"], file["sessions"]) == ({"bad_amount": 1}, 0)
    assert "makes its own bars" in odin("data", "actions", path, "--market", "demo", home=tmp_path / "home").mistake
