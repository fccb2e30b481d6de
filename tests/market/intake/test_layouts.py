"""Layouts: each raw file of the recorded data loads or is refused with its reason, and what a layout may say."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from odincommand import odin
from weekdaybars import SOURCE, THURSDAY, Weekdays, at, day_of, row

from odin_core.errors import OdinError
from odin_core.lake import Lake
from odin_core.market.bars import table_of
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.barfiles import NaiveTimestamps, NoBars, NotSaid, Said
from odin_core.market.intake.importing import PageReport, import_files
from odin_core.market.intake.layout import BadLayout, UnknownLayout, layout_names, load_layout, parse_layout
from odin_core.market.profile import load_profile


class Raw(NamedTuple):
    """What is said of a raw file, and what becomes of it."""

    market: str
    said: Said
    layout: str
    rows: int
    bars: int
    quarantined: dict[str, int]


KOLKATA, NEW_YORK = "Asia/Kolkata", "America/New_York"
HDFC, RELIANCE, AAPL = Said(symbol="HDFCBANK"), Said(symbol="RELIANCE"), Said(symbol="AAPL")
RAW = {
    "nse_reliance_1m_out_of_order_rows_spaces.csv": Raw(
        "nse", Said(symbol="RELIANCE", timezone=KOLKATA), "minutes", 375, 375, {}
    ),
    "nifty_1m_headerless_bar_end_labels_outage_day.txt": Raw(
        "nse", Said(), "india_index_text", 7312, 7254, {"outside_hours": 58}
    ),
    "nifty_1m_evening_muhurat_session.txt": Raw("nse", Said(), "india_index_text", 61, 60, {"outside_hours": 1}),
    "banknifty_1m_wrong_magnitude_rest_of_day.txt": Raw("nse", Said(), "india_index_text", 7835, 7835, {}),
    "nse_tcs_ticks_epoch_zero_row.csv": Raw(
        "nse", Said(symbol="TCS"), "nse_ticks", 20_200, 351, {"outside_hours": 102, "outside_calendar": 1}
    ),
    "xauusd_1m_buddhist_calendar_12h_clock.csv": Raw(
        "metals", Said(symbol="XAUUSD", timezone="UTC"), "thai_minutes", 14_891, 14_891, {}
    ),
    "spy_1m_extended_hours_offset_changes_at_dst.csv": Raw(
        "us", Said(symbol="SPY"), "minutes", 49_720, 24_570, {"outside_hours": 25_150}
    ),
    "aapl_1m_descending_bar_end_labels.csv": Raw(
        "us", Said(symbol="AAPL", timezone=NEW_YORK, stamps="end"), "minutes", 1948, 1948, {}
    ),
    "nse_futures_eod_zero_padded_with_footnote.csv": Raw(
        "nse_options",
        Said(date=date(2025, 11, 14)),
        "nse_futures_eod",
        633,
        630,
        {"open_close_outside_range": 2, "not_a_bar": 1},
    ),
    "aapl_1d_trailing_garbage_line.csv": Raw(
        "us", AAPL, "daily", 5037, 4277, {"outside_calendar": 759, "not_a_bar": 1}
    ),
    "hdfcbank_1d_header_repeated_inside.csv": Raw(
        "nse", Said(), "nse_security_archive", 2926, 657, {"outside_calendar": 2259, "not_a_bar": 10}
    ),
    "reliance_1d_quoted_padded_fields.csv": Raw("nse", Said(), "nse_security_archive", 250, 250, {}),
    "hdfcbank_1d_descending_thousands_separators.csv": Raw("nse", HDFC, "nse_security_history", 747, 747, {}),
    "hdfcbank_1d_headerless_scaled_integers.csv": Raw(
        "nse", HDFC, "lean_daily", 1761, 1555, {"outside_calendar": 125, "not_a_session": 81}
    ),
    "hdfcbank_1d_ticker_text_row_at_end.csv": Raw("nse", Said(), "daily", 203, 202, {"not_a_bar": 1}),
    "reliance_1d_three_line_header.csv": Raw("nse", RELIANCE, "yahoo_daily_three_headers", 123, 123, {}),
    "hdfcbank_1d_transposed_dates_as_columns.csv": Raw("nse", HDFC, "transposed_daily", 2000, 2000, {}),
    "bcheur_trades_headerless_epoch.csv": Raw("crypto", Said(symbol="BCHEUR"), "kraken_trades", 148, 78, {}),
}


def brought(path: Path, market: str, lake: Lake, said: Said | None = None) -> PageReport:
    """The report of one file, imported into a market's lake."""
    return import_files([path], lake=lake, calendar=session_calendar(load_profile(market)), said=said).files[0]


def stored(lake: Lake, interval: str = "1m") -> pl.DataFrame:
    table = table_of(interval)
    return lake.read_many(table, lake.sessions(table))


THOUSANDS_OF_SESSIONS = (
    "aapl_1d_trailing_garbage_line.csv",
    "hdfcbank_1d_headerless_scaled_integers.csv",
    "hdfcbank_1d_transposed_dates_as_columns.csv",
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in THOUSANDS_OF_SESSIONS else ()) for n in RAW]
)
def test_each_raw_file_loads_with_every_row_a_bar_or_accounted_for(
    lake: Lake, market_file: Callable[[str], Path], name: str
):
    path, expected = market_file(f"raw/{name}"), RAW[name]
    report = brought(path, expected.market, lake, expected.said)
    assert (report.layout, report.rows, report.bars) == (expected.layout, expected.rows, expected.bars)
    assert report.quarantined == expected.quarantined
    assert report.kept + sum(report.quarantined.values()) == report.rows
    assert stored(lake, report.interval).height == report.bars
    held = sum(lake.read("quarantine", s).height for s in lake.sessions("quarantine"))
    assert held == sum(expected.quarantined.values())


REFUSED: dict[str, tuple[str, Said, type[OdinError], str]] = {
    "aapl_factor_file_future_sentinel_date.csv": ("us", Said(), NoBars, "no bars; import it with `odin data actions`"),
    "xauusd_1m_buddhist_calendar_12h_clock.csv": ("metals", Said(symbol="X"), NaiveTimestamps, "--timezone"),
    "nse_futures_eod_zero_padded_with_footnote.csv": ("nse_options", Said(), NotSaid, "--date YYYY-MM-DD"),
    "nse_tcs_ticks_epoch_zero_row.csv": ("nse", Said(), NotSaid, "--symbol NAME"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_raw_file_is_refused_with_what_it_does_not_say_and_the_option_that_does(
    lake: Lake, market_file: Callable[[str], Path], name: str
):
    market, said, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        brought(market_file(f"raw/{name}"), market, lake, said)
    assert lake.tables() == []


def test_every_raw_file_is_tried(market_file: Callable[[str], Path]):
    folder = market_file("raw/nifty_1m_evening_muhurat_session.txt").parent
    assert {path.name for path in folder.iterdir()} == RAW.keys() | {"aapl_factor_file_future_sentinel_date.csv"}


def test_bars_of_raw_ticks_are_those_that_another_hand_made_of_them(lake: Lake, market_file: Callable[[str], Path]):
    """The recorded minute bars of 2021 were aggregated from the same recorder's ticks, independently."""
    brought(market_file("raw/nse_tcs_ticks_epoch_zero_row.csv"), "nse", lake, Said(symbol="TCS"))
    mine = stored(lake).select(*SOURCE)
    other = pl.read_parquet(market_file("nse_equity_1m_2021.parquet")).filter(symbol="TCS")
    same_day = other.join(mine, on="ts", how="semi").select(*SOURCE).sort("ts")
    assert mine.height == 351
    assert mine.equals(same_day)


def test_a_file_without_a_header_and_one_with_the_same_bars_agree(lake: Lake, market_file: Callable[[str], Path]):
    """The index minutes of 2021 were made from these text files: their ends became starts."""
    brought(market_file("raw/nifty_1m_headerless_bar_end_labels_outage_day.txt"), "nse", lake)
    other = pl.read_parquet(market_file("nse_index_1m.parquet")).filter(symbol="NIFTY")
    mine = stored(lake)
    both = mine.join(other, on="ts", suffix="_other")
    assert both.height == mine.height == 7254
    assert all(both[name].equals(both[f"{name}_other"].alias(name)) for name in ("open", "high", "low", "close"))


@pytest.mark.slow
def test_prices_stored_times_ten_thousand_are_those_of_another_share(lake: Lake, market_file: Callable[[str], Path]):
    """The file is called HDFCBANK, but holds Alphabet's US prices: 81 of its days are no sessions of NSE, which the
    report says. Read into the US market it is GOOGL, price for price."""
    path = market_file("raw/hdfcbank_1d_headerless_scaled_integers.csv")
    foreign = brought(path, "nse", Lake(lake.root / "nse"), HDFC)
    assert "81 of its days are no sessions of this market" in foreign.to_text()
    brought(path, "us", lake, Said(symbol="GOOGL"))
    mine = stored(lake, "day").with_columns(pl.col("ts").dt.date().alias("day"))
    other = pl.read_parquet(market_file("us_daily_unadjusted.parquet")).filter(symbol="GOOGL")
    both = mine.join(other.with_columns(pl.col("ts").dt.date().alias("day")), on="day", suffix="_other")
    assert both.height == mine.height == 1761
    assert (both["close"] - both["close_other"]).abs().max() < 1e-9


def test_daily_bars_of_one_share_agree_with_the_exchanges_file(tmp_path: Path, market_file: Callable[[str], Path]):
    """NSE's history page, with its commas and newest first, against the exchange's file of every day."""
    other = pl.read_parquet(market_file("nse_daily_unadjusted.parquet")).filter(symbol="HDFCBANK")
    lake = Lake(tmp_path)
    brought(market_file("raw/hdfcbank_1d_descending_thousands_separators.csv"), "nse", lake, HDFC)
    mine = stored(lake, "day").with_columns(pl.col("ts").dt.date().alias("day"))
    both = mine.join(other.with_columns(pl.col("ts").dt.date().alias("day")), on="day", suffix="_other")
    assert both.height > 740
    assert both["close"].equals(both["close_other"].alias("close"))
    assert (both["volume"] == both["volume_other"]).all()


def test_a_row_of_another_series_is_another_symbol(lake: Lake, market_file: Callable[[str], Path]):
    brought(market_file("raw/hdfcbank_1d_header_repeated_inside.csv"), "nse", lake)
    counts = dict(stored(lake, "day")["symbol"].value_counts().iter_rows())
    assert counts == {"HDFCBANK": 553, "HDFCBANK-IL": 104}


def test_a_day_bar_reaches_from_the_open_to_the_close_of_its_session(lake: Lake, market_file: Callable[[str], Path]):
    brought(market_file("raw/reliance_1d_quoted_padded_fields.csv"), "nse", lake)
    bar = lake.read("bars_day", date(2017, 11, 3)).row(0, named=True)
    assert (bar["ts"], bar["known_at"]) == (
        datetime(2017, 11, 3, 3, 45, tzinfo=UTC),
        datetime(2017, 11, 3, 10, tzinfo=UTC),
    )
    assert (bar["open"], bar["close"], bar["volume"]) == (955.95, 945.30, 2_193_730)


def test_futures_get_their_symbol_from_their_terms_and_are_instruments(lake: Lake, market_file: Callable[[str], Path]):
    name = "raw/nse_futures_eod_zero_padded_with_footnote.csv"
    brought(market_file(name), "nse_options", lake, Said(date=date(2025, 11, 14)))
    bar = lake.read("bars_day", date(2025, 11, 14)).row(
        by_predicate=pl.col("symbol") == "BANKNIFTY25NOV25FUT", named=True
    )
    assert (bar["open"], bar["close"], bar["oi"], bar["volume"]) == (58_384.0, 58_644.4, 1_713_110, 946_715)
    terms = lake.read("instruments", date(2025, 11, 14)).row(
        by_predicate=pl.col("symbol") == "BANKNIFTY25NOV25FUT", named=True
    )
    assert (terms["kind"], terms["underlying"], terms["expiry"]) == ("future", "BANKNIFTY", date(2025, 11, 25))
    assert lake.read("instruments", date(2025, 11, 14)).height == 630


def test_options_with_terms_in_columns_are_instruments_of_each_session(lake: Lake, market_file: Callable[[str], Path]):
    brought(market_file("nse_options_1m.parquet"), "nse_options", lake)
    for session in lake.sessions("price_history"):
        symbols = lake.read("price_history", session)["symbol"].unique().sort()
        assert lake.read("instruments", session)["symbol"].to_list() == symbols.to_list()
    terms = lake.read("instruments", date(2024, 1, 24)).row(
        by_predicate=pl.col("symbol") == "NIFTY01FEB2420450PE", named=True
    )
    assert (terms["kind"], terms["right"], terms["strike"], terms["expiry"]) == (
        "option",
        "P",
        20450.0,
        date(2024, 2, 1),
    )


def test_larger_bars_lie_in_a_table_of_their_own_and_end_at_the_close(lake: Lake, tmp_path: Path):
    path = tmp_path / "hours.parquet"
    pl.DataFrame([row("A", minute) for minute in range(0, 375, 60)], schema=SOURCE).write_parquet(path)
    report = import_files([path], lake=lake, calendar=Weekdays(), said=Said(interval="60m")).files[0]
    bars = lake.read("bars_60m", THURSDAY)
    assert (report.kept, lake.has("price_history", THURSDAY)) == (7, False)
    assert bars["known_at"].to_list() == [at(min(minute + 60, 375)) for minute in range(0, 375, 60)]


def test_a_layout_of_ones_own_reads_what_no_built_in_one_does(lake: Lake, tmp_path: Path):
    layout = tmp_path / "mine.yaml"
    layout.write_text(
        "about: semicolons, German names, day first\nseparator: ';'\nthousands: '.'\ndecimal: ','\n"
        "timezone: Europe/Berlin\n"
        "time_formats: ['%d.%m.%Y %H:%M']\nsymbol_from: '^([A-Z]+)_'\n"
        "columns: {ts: Tag, clock: Uhrzeit, open: Eröffnung, high: Hoch, low: Tief, close: Schluss, volume: Stück}\n"
    )
    path = tmp_path / "BMW_2021.csv"
    path.write_text("Tag;Uhrzeit;Eröffnung;Hoch;Tief;Schluss;Stück\n01.04.2021;05:45;1.000;1.010;990;1.005;12.000\n")
    import_files([path], lake=lake, calendar=Weekdays(), said=Said(layout=str(layout)))
    bar = lake.read("price_history", THURSDAY).row(0, named=True)
    assert (bar["symbol"], bar["ts"], bar["close"], bar["volume"]) == ("BMW", at(0), 1005.0, 12_000.0)


def test_only_the_symbols_that_were_asked_for_come_in_and_the_others_are_counted(lake: Lake, tmp_path: Path):
    path = tmp_path / "bars.parquet"
    pl.DataFrame(day_of("A") + day_of("B"), schema=SOURCE).write_parquet(path)
    report = import_files([path], lake=lake, calendar=Weekdays(), said=Said(symbols=("B",))).files[0]
    assert (report.rows, report.kept, report.left_out, report.symbols) == (375, 375, 375, ("B",))
    assert "375 rows of symbols that were not asked for were left out" in report.to_text()


def test_a_clock_that_was_shown_twice_is_no_time(lake: Lake, tmp_path: Path):
    path = tmp_path / "bars.csv"
    lines = [f"2021-10-{stamp},1,1,1,1,1" for stamp in ("31 02:30:00", "29 06:45:00", "29 06:46:00")]
    path.write_text("\n".join(["datetime,open,high,low,close,volume", *lines]))
    said = Said(symbol="A", timezone="Europe/Berlin")
    report = import_files([path], lake=lake, calendar=Weekdays(), said=said).files[0]
    assert report.quarantined["ts_missing"] == 1


GOOD = {"about": "x", "columns": {"ts": "t", "open": "o", "high": "h", "low": "l", "close": "c"}}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"colums": {}}, "colums.*no such field exists.*columns"),
    ({"columns": {"ts": "t"}}, "columns.*it lacks open, high, low, close"),
    ({"columns": GOOD["columns"] | {"clse": "c"}}, "'clse', but there is no such column of bars.*close"),
    ({"interval": "5 minutes"}, "interval is '5 minutes'.*15m"),
    ({"timezone": "Mars"}, "timezone is 'Mars', but it must be an IANA name"),
    ({"stamps": "middle"}, "stamps is 'middle', but it must be one of start, end"),
    ({"rows": "candles"}, "rows is 'candles', but it must be one of bars, ticks, trades"),
    ({"rows": "ticks"}, "columns.*it lacks price, volume"),
    ({"header_lines": 0}, "names is .*header_lines: 0"),
    ({"names": ["t", "o", "h", "l", "c"]}, "names is .*header_lines: 0"),
    ({"names": ["t", "o", "h", "l"], "header_lines": 0}, "names has none of c for close"),
    ({"price_divisor": 0}, "price_divisor is 0.0, but it must be positive"),
    ({"separator": "::"}, "separator is '::', but it must be one character"),
    ({"symbol_from": "["}, "symbol_from is .*no pattern"),
    ({"symbol_from": "abc"}, "symbol_from.*needs a group"),
    ({"symbol_form": "{expiry}"}, "symbol_form.*columns names only no terms"),
    ({"year_offset": "543"}, "year_offset is '543', but it must be a whole number"),
    ({"transposed": "yes"}, "transposed is 'yes', but it must be true or false"),
    ({"symbol": 7}, "symbol is 7, but it must be text"),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=[str(list(change)) for change, _ in BAD])
def test_a_layout_that_makes_no_sense_is_named_with_field_value_and_rule(change: dict[str, Any], words: str):
    with pytest.raises(BadLayout, match=words):
        parse_layout("mine", GOOD | change)


def test_a_layout_needs_to_say_what_it_is_about():
    with pytest.raises(BadLayout, match="about is None, but it is required"):
        parse_layout("mine", {"columns": GOOD["columns"]})


def test_an_unknown_layout_is_named_with_the_nearest(tmp_path: Path):
    with pytest.raises(UnknownLayout, match=r"'minute'.*minutes"):
        load_layout("minute")
    with pytest.raises(BadLayout, match="no such file"):
        load_layout(str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize("name", layout_names())
def test_every_built_in_layout_is_sound(name: str):
    assert load_layout(name).about


def test_the_command_takes_what_a_file_does_not_say(tmp_path: Path, market_file: Callable[[str], Path]):
    path = market_file("raw/nse_reliance_1m_out_of_order_rows_spaces.csv")
    words = ("data", "import", path, "--market", "nse")
    home = tmp_path / "home"
    assert "--symbol NAME" in odin(*words, home=home).mistake
    assert "--timezone Asia/Kolkata" in odin(*words, "--symbol", "RELIANCE", home=home).mistake
    told = (*words, "--symbol", "RELIANCE", "--timezone", "Asia/Kolkata", "--layout", "minutes", "--interval", "1m")
    (report,) = odin(*told, "--json", home=home).json["files"]
    assert (report["layout"], report["kept"], report["out_of_order"]) == ("minutes", 375, 2)
    assert "no built-in layout is called 'minute'" in odin(*words, "--layout", "minute", home=home).mistake
