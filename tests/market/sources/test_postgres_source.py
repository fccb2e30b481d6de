"""PostgreSQL as a source, against a real server."""

from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import nsefiles
import numpy as np
import polars as pl
import psycopg2
import pytest
from marketdatabases import FIRST, empty_database, lake_of, new_database, server
from polars.testing import assert_frame_equal

from odin_assets.postgres import serve
from odin_core.home import open_home
from odin_core.lake import Lake
from odin_core.market.database.connection import URL, BadAddress, Database
from odin_core.market.database.schema import migrate
from odin_core.market.database.transfer import load
from odin_core.market.intake.fetching import fetch_market
from odin_core.market.intake.importing import import_files
from odin_core.market.profile import load_profile
from odin_core.market.sources.source import (
    INSTRUMENTS,
    SOURCE_BARS,
    Around,
    MissingSecrets,
    Source,
    SourceRefused,
    SourceUnavailable,
    UnknownSymbols,
    open_source,
    secrets_of,
    source_kinds,
)

NOW = datetime(2024, 2, 1, tzinfo=UTC)
DAYS = 4


class Waits:
    """A clock that stands still; `sleep` keeps what was asked for and does what a test wants to happen meanwhile."""

    def __init__(self, meanwhile=lambda: None) -> None:
        self.slept: list[float] = []
        self._meanwhile = meanwhile

    def around(self, url: str) -> Around:
        return Around(secrets={URL: url}, now=lambda: NOW, sleep=self.sleep, rng=np.random.default_rng(0))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._meanwhile()


def source_of(database: Database, waits: Waits | None = None) -> Source:
    settings = {"kind": "postgres", "schema": database.schema}
    return open_source(settings, (waits or Waits()).around(database.url))


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    lake = lake_of(tmp_path_factory.mktemp("lake"), DAYS)
    lake_of(lake.root, DAYS, "bars_day", minutes=1, interval=375)
    return lake


@pytest.fixture(scope="module")
def database(lake: Lake) -> Database:
    database = new_database()
    load(lake, database)
    return database


def bars_in(lake: Lake, table: str = "price_history") -> pl.DataFrame:
    return lake.read_many(table, lake.sessions(table)).select(*SOURCE_BARS).sort("symbol", "ts")


def at(day: date, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


def test_the_kind_is_found_by_its_name_and_says_what_it_needs():
    assert "postgres" in source_kinds()
    assert list(secrets_of("postgres")) == [URL]
    with pytest.raises(MissingSecrets, match=URL):
        open_source({"kind": "postgres"}, Around(secrets={}, now=lambda: NOW, sleep=print, rng=np.random.default_rng()))
    with pytest.raises(BadAddress) as refused:
        open_source({"kind": "postgres"}, Waits().around("postgresql://me:geh%zeim@h/d"))
    assert "geh" not in str(refused.value)


@pytest.mark.parametrize(("interval", "table"), [("1m", "price_history"), ("day", "bars_day")])
def test_bars_are_those_of_the_table(database: Database, lake: Lake, interval: str, table: str):
    bars = source_of(database).bars(["A", "B", "C"], interval, at(FIRST), at(FIRST + timedelta(days=DAYS)))
    assert bars.schema == SOURCE_BARS
    assert_frame_equal(bars, bars_in(lake, table), check_exact=True)


def test_a_range_holds_its_start_and_not_its_end(database: Database, lake: Lake):
    """Every range between two bars of a day, against a filter over all of them."""
    source, whole = source_of(database), bars_in(lake)
    for first in range(6):
        for last in range(first, 6, 2):
            start, end = at(FIRST, 10, first), at(FIRST, 10, last)
            expected = whole.filter((pl.col("symbol") == "B") & (pl.col("ts") >= start) & (pl.col("ts") < end))
            assert_frame_equal(source.bars(["B"], "1m", start, end), expected)


def test_ranges_one_after_another_give_what_one_range_gives(database: Database):
    source, names = source_of(database), ["C", "A"]
    edges = [at(FIRST) + timedelta(hours=7 * i) for i in range(14)]
    parts = [source.bars(names, "1m", a, b) for a, b in pairwise(edges)]
    whole = source.bars(names, "1m", edges[0], edges[-1])
    assert_frame_equal(pl.concat(parts).sort("symbol", "ts"), whole)


def test_it_says_which_intervals_and_symbols_it_has(database: Database):
    source = source_of(database)
    assert list(source.intervals) == ["1m", "day"]
    instruments = source.instruments()
    assert instruments.schema == INSTRUMENTS
    assert instruments["symbol"].to_list() == instruments["source_id"].to_list() == ["A", "B", "C"]
    empty = source_of(new_database())
    assert list(empty.intervals) == []
    assert empty.instruments().schema == INSTRUMENTS
    assert empty.instruments().is_empty()


def test_an_unknown_symbol_is_named_and_a_silent_one_is_not(database: Database):
    source, before = source_of(database), at(date(2020, 1, 1))
    with pytest.raises(UnknownSymbols, match=r"AA.*did you mean A"):
        source.bars(["A", "AA"], "1m", at(FIRST), at(FIRST + timedelta(days=1)))
    assert source.bars(["A"], "1m", before, before + timedelta(days=1)).schema == SOURCE_BARS
    assert source.bars([], "1m", before, NOW).is_empty()


def test_a_database_without_tables_is_refused_with_the_way_out():
    with pytest.raises(SourceRefused, match="odin database migrate"):
        source_of(empty_database()).bars(["A"], "1m", at(FIRST), NOW)


def test_a_server_that_never_comes_up_is_given_up(tmp_path: Path):
    waits = Waits()
    nowhere = Database(f"postgresql://me:geheim@/d?host={tmp_path}", "public")
    with pytest.raises(SourceUnavailable, match="in 6 attempts") as given_up:
        source_of(nowhere, waits).bars(["A"], "1m", at(FIRST), NOW)
    assert len(waits.slept) == 5
    assert "geheim" not in str(given_up.value)


def test_a_server_that_comes_up_while_it_waits_answers_once(tmp_path: Path, lake: Lake):
    with serve(tmp_path / "postgres") as url:
        database = Database(url, "nse")
        migrate(database)
        load(lake, database)
    with ExitStack() as stack:
        waits = Waits(lambda: stack.enter_context(serve(tmp_path / "postgres")))
        bars = source_of(database, waits).bars(["A", "B", "C"], "1m", at(FIRST), NOW)
        assert_frame_equal(bars, bars_in(lake))
        assert len(waits.slept) == 1


@pytest.mark.parametrize("symbols", [("INFY", "SBIN", "TCS"), ("SBIN",)])
def test_a_fetch_brings_a_lake_that_was_loaded_into_another_one(tmp_path: Path, symbols: tuple[str, ...]):
    sessions, lake, database = nsefiles.CALENDAR.sessions(nsefiles.FIRST, nsefiles.LAST), Lake(tmp_path), new_database()
    file = nsefiles.written(nsefiles.of(sessions), tmp_path / "bars.parquet")
    import_files([file], lake=lake, calendar=nsefiles.CALENDAR)
    load(lake, database)
    settings = {"kind": "postgres", "schema": database.schema, "symbols": list(symbols)}
    profile, home = replace(load_profile("nse"), source=settings), open_home(tmp_path / "home")
    there = lake.read_many("price_history", sessions).filter(pl.col("symbol").is_in(symbols)).height
    for expected in (there, 0):
        assert fetch_market(home, profile, Waits().around(database.url), sessions).kept == expected
    for session in sessions:
        theirs = lake.read("price_history", session).filter(pl.col("symbol").is_in(symbols))
        assert_frame_equal(home.lake("nse").read("price_history", session), theirs, check_exact=True)


def test_tables_that_somebody_else_made_in_public_are_read_as_they_are():
    """Single precision, local time zone and a missing primary key are a user's own affair."""
    with psycopg2.connect(server()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "set timezone to 'Asia/Kolkata'; drop table if exists public.stock_price_history; "
            "create table public.stock_price_history (id serial, symbol varchar(20), interval varchar(5), "
            "ts timestamptz, open real, high real, low real, close real, volume bigint, oi bigint); "
            "insert into public.stock_price_history (symbol, interval, ts, open, high, low, close, volume, oi) "
            "values ('INFY', '1m', '2024-01-01 09:15', 1.5, null, 1.5, 1.5, 7, null)"
        )
    settings = {"kind": "postgres", "schema": "public"}
    bars = open_source(settings, Waits().around(server())).bars(["INFY"], "1m", at(FIRST), NOW)
    assert bars.schema == SOURCE_BARS
    assert bars.rows() == [("INFY", at(FIRST, 3, 45), 1.5, None, 1.5, 1.5, 7.0, None)]
