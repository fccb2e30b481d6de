"""A market's PostgreSQL: its tables, what a load leaves there, and what is said when it cannot."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from alembic import command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marketdatabases import FIRST, ask, bars_of, empty_database, lake_of, new_database, server
from polars.testing import assert_frame_equal

from odin_core.lake import Lake
from odin_core.market.bars import BARS
from odin_core.market.bars import UTC as UTC_TIME
from odin_core.market.calendar import session_calendar
from odin_core.market.database import schema
from odin_core.market.database.connection import (
    BadAddress,
    Database,
    DatabaseRefused,
    DatabaseUnavailable,
    identifier,
    literal,
)
from odin_core.market.database.transfer import (
    STORED_FUNDAMENTALS,
    Loaded,
    holdings,
    intervals,
    load,
    read_bars,
    read_fundamentals,
    symbols,
)
from odin_core.market.intake.importing import import_files
from odin_core.market.profile import load_profile

LONG_AGO, FAR_AHEAD = datetime(1900, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def stored(database: Database, interval: str = "1m") -> pl.DataFrame:
    """All bars of an interval, by symbol and time."""
    names = symbols(database, interval)
    found = list(read_bars(database, names, interval, LONG_AGO, FAR_AHEAD))
    return pl.concat(found) if found else BARS.to_frame().drop("known_at")


def in_lake(lake: Lake, table: str = "price_history") -> pl.DataFrame:
    return lake.read_many(table, lake.sessions(table)).drop("known_at").sort("symbol", "ts")


def tables_of(database: Database) -> set[str]:
    return {name for (name,) in ask(f"select tablename from pg_tables where schemaname = {literal(database.schema)}")}


def test_a_migration_makes_the_tables_once_and_says_where_it_came_from():
    database = empty_database()
    assert schema.revisions(database).found is None
    newest = schema.revisions(database).newest
    assert schema.migrate(database) == (None, newest)
    assert {"stock_price_history", "stock_price_history_1m", "stock_price_history_day"} <= tables_of(database)
    assert "stock_fundamentals" in tables_of(database)
    assert schema.migrate(database) == (newest, newest)
    schema.require_migrated(database)


def test_a_database_of_an_earlier_revision_is_brought_up_to_date_and_keeps_its_rows():
    database = empty_database()
    ask(f"create schema {identifier(database.schema)}")
    config = schema._config(database)
    with schema._opened(database) as connection:
        connection.exec_driver_sql(f"set local search_path to {identifier(database.schema)}")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001_price_history")
    assert "stock_fundamentals" not in tables_of(database)
    with pytest.raises(schema.NotMigrated, match=r"has revision 0001_price_history.*odin database migrate"):
        schema.require_migrated(database)
    ask(
        f"insert into {identifier(database.schema)}.stock_price_history "
        "values ('A', '1m', '2024-01-01 10:00+00', 1, 2, 0.5, 1.5, null, 7)"
    )
    assert schema.migrate(database).found == "0001_price_history"
    assert "stock_fundamentals" in tables_of(database)
    at = datetime(2024, 1, 1, 10, tzinfo=UTC)
    assert stored(database).rows() == [("A", at, 1.0, 2.0, 0.5, 1.5, None, 7.0)]


def test_a_table_that_somebody_else_made_is_left_alone():
    database = empty_database()
    ask(f"create schema {identifier(database.schema)}")
    ask(f"create table {identifier(database.schema)}.stock_price_history as select 7 as kept")
    with pytest.raises(DatabaseRefused, match="already exists"):
        schema.migrate(database)
    assert ask(f"select kept from {identifier(database.schema)}.stock_price_history") == [(7,)]
    assert schema.revisions(database).found is None


def test_migrations_at_the_same_time_queue():
    database, outcomes = empty_database(), []
    threads = [threading.Thread(target=lambda: outcomes.append(schema.migrate(database).found)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    newest = schema.revisions(database).newest
    assert sorted(outcomes, key=str) == [newest, newest, None]


def test_what_was_loaded_is_what_the_lake_has_in_every_interval(tmp_path: Path):
    database = new_database()
    lake = lake_of(tmp_path)
    for interval in (5, 60, 30):
        lake_of(tmp_path, table=f"bars_{interval}m", minutes=2, interval=interval)
    lake_of(tmp_path, table="bars_day", minutes=1, interval=1440)
    reports = load(lake, database)
    assert {r.table: (r.sessions, r.rows, r.new) for r in reports} == {
        "price_history": (3, 45, 45), "bars_day": (3, 9, 9),
        **dict.fromkeys(("bars_5m", "bars_60m", "bars_30m"), (3, 18, 18)),
    }  # fmt: skip
    for interval in ("5m", "60m", "30m", "day"):
        assert_frame_equal(stored(database, interval), in_lake(lake, f"bars_{interval}"))
    assert_frame_equal(stored(database), in_lake(lake))
    assert intervals(database) == ["1m", "5m", "60m", "day"]
    held = {h.interval: h for h in holdings(database)}
    first, last = in_lake(lake)["ts"].min(), in_lake(lake)["ts"].max()
    assert held["1m"] == ("1m", 45, 3, first, last)


def test_markets_with_the_same_symbol_do_not_meet(tmp_path: Path):
    ours, theirs = new_database(), new_database()
    load(lake_of(tmp_path / "ours", seed=1), ours)
    load(lake_of(tmp_path / "theirs", seed=2), theirs)
    assert_frame_equal(stored(ours), in_lake(Lake(tmp_path / "ours")))
    assert_frame_equal(stored(theirs), in_lake(Lake(tmp_path / "theirs")))


def test_a_second_load_changes_nothing(tmp_path: Path):
    database, lake = new_database(), lake_of(tmp_path)
    load(lake, database)
    before = stored(database)
    assert load(lake, database) == [Loaded(table="price_history", sessions=3, rows=45, new=0, corrected=0)]
    assert_frame_equal(stored(database), before)


def test_a_correction_replaces_the_bar_and_what_the_lake_no_longer_has_stays(tmp_path: Path):
    database, lake = new_database(), lake_of(tmp_path)
    load(lake, database)
    second = FIRST + timedelta(days=1)
    whole = lake.read("price_history", second)
    wrong = (pl.col("symbol") == "B") & (pl.col("volume") == 20.0)
    lake.write("price_history", second, whole.filter(pl.col("symbol") != "C").with_columns(
        close=pl.when(wrong).then(99.0).otherwise("close"), volume=pl.when(wrong).then(None).otherwise("volume")
    ))  # fmt: skip
    later = FIRST + timedelta(days=3)
    lake.write("price_history", later, bars_of(later, "A", "D"))
    (report,) = load(lake, database, first=second)
    assert (report.sessions, report.rows, report.new, report.corrected, report.unchanged) == (3, 35, 10, 1, 24)
    after = stored(database)
    day = after.filter(pl.col("ts").dt.date() == second)
    assert day.filter(pl.col("symbol") == "C").height == 5
    assert day.filter((pl.col("symbol") == "B") & (pl.col("close") == 99.0))["volume"].to_list() == [None]
    assert after.filter(pl.col("symbol") == "D").height == 5


@pytest.fixture
def emptied() -> Callable[[], Database]:
    """One database for all examples of a test, empty again at each call."""
    database = new_database()

    def empty() -> Database:
        ask(f"truncate {identifier(database.schema)}.stock_price_history")
        return database

    return empty


values = st.one_of(st.none(), st.floats(allow_nan=False), st.floats(0, 1e6))
written = st.dictionaries(
    st.tuples(st.sampled_from(["A", "B'", 'C"\\', "ü %s"]), st.integers(0, 7)),
    st.tuples(st.floats(allow_nan=False, allow_infinity=False), values, values),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lakes=st.lists(written, min_size=1, max_size=4))
def test_any_loads_one_after_another_leave_the_last_value_of_each_bar(
    emptied: Callable[[], Database], lakes: list[dict[Any, Any]], tmp_path: Path
):
    """Against a dictionary that is updated."""
    database, lake, expected = emptied(), Lake(tmp_path), {}
    for bars in lakes:
        expected |= bars
        rows = [
            (symbol, datetime(2024, 1, 1, 10, minute, tzinfo=UTC), None, price, price, price, price, volume, oi)
            for (symbol, minute), (price, volume, oi) in bars.items()
        ]
        lake.write("price_history", FIRST, pl.DataFrame(rows, schema=BARS, orient="row").sort("symbol", "ts"))
        load(lake, database)
    found = {
        (row["symbol"], row["ts"].minute): (row["close"], row["volume"], row["oi"])
        for row in stored(database).iter_rows(named=True)
    }
    assert found == expected


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
@settings(max_examples=50, deadline=None)
def test_any_text_comes_back_from_sql_as_it_was(text: str):
    assert ask("select " + literal(text)) == [(text,)]


def test_a_text_that_the_database_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="NUL"):
        literal("A\0B")


def test_recorded_bars_with_open_interest_survive_the_way_there_and_back(tmp_path: Path, market_file):
    lake, database = Lake(tmp_path), new_database()
    calendar = session_calendar(load_profile("nse"))
    import_files([market_file("nse_futures_index_1m.parquet")], lake=lake, calendar=calendar)
    load(lake, database)
    assert stored(database)["oi"].drop_nulls().len() > 5000
    assert_frame_equal(stored(database), in_lake(lake), check_exact=True)


def test_a_long_history_comes_in_pieces(tmp_path: Path):
    database, lake = new_database(), Lake(tmp_path)
    for day in range(3):
        session = FIRST + timedelta(days=day)
        lake.write("price_history", session, bars_of(session, *map(str, range(150)), minutes=800))
    (report,) = load(lake, database)
    assert report.rows == report.new == 360_000
    pieces = [frame.height for frame in read_bars(database, symbols(database, "1m"), "1m", LONG_AGO, FAR_AHEAD)]
    assert sum(pieces) == 360_000
    assert len(pieces) > 1
    assert max(pieces) < 300_000


def test_nothing_of_a_load_that_fails_is_kept(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("odin_core.market.database.transfer.BATCH_ROWS", 1)
    database, lake = new_database(), lake_of(tmp_path, sessions=4)
    load(lake, database, last=FIRST)
    before = stored(database)
    lake.path("price_history", FIRST + timedelta(days=3)).write_bytes(b"PAR1 damaged")
    with pytest.raises(Exception, match="not a readable Parquet"):
        load(lake, database)
    assert_frame_equal(stored(database), before)


def test_a_row_that_breaks_a_rule_of_the_table_takes_the_whole_load_back(tmp_path: Path):
    database, lake = new_database(), lake_of(tmp_path)
    last = FIRST + timedelta(days=2)
    lake.write("price_history", last, lake.read("price_history", last).with_columns(open=pl.lit(None, pl.Float64)))
    with pytest.raises(DatabaseRefused, match=r'null value in column "open"'):
        load(lake, database)
    assert holdings(database) == []


def test_fundamentals_are_read_as_they_were_known(tmp_path: Path):
    database, lake = new_database(), Lake(tmp_path)
    known = datetime(2024, 1, 1, 12, tzinfo=UTC)
    rows = pl.DataFrame(
        {"symbol": ["A", "A", "B"], "known_at": [known, known + timedelta(days=90), known], "figure": ["pe"] * 3,
         "value": [11.5, 12.5, None], "period": ["2023Q4", "2024Q1", None], "origin": ["one.csv"] * 3},
        schema_overrides={"known_at": UTC_TIME},
    )  # fmt: skip
    lake.write("fundamentals", FIRST, rows)
    assert load(lake, database)[0].new == 3
    assert load(lake, database)[0].unchanged == 3
    early = read_fundamentals(database, as_of=known)
    assert early.schema == STORED_FUNDAMENTALS
    assert early.rows() == [("A", "pe", "2023Q4", known, "one.csv", 11.5), ("B", "pe", "", known, "one.csv", None)]
    assert read_fundamentals(database, as_of=known + timedelta(days=90)).height == 3
    assert read_fundamentals(database, as_of=known - timedelta(microseconds=1)).is_empty()


@pytest.mark.parametrize("password", ["geheim", "50%zz", "a b'c"])
def test_no_message_holds_the_password(tmp_path: Path, password: str):
    for url in (f"postgresql://me:{password}@localhost:1/none", f"host=localhost port=1 password='{password}'",
                f"postgresql://me:{password}@localhost:abc/none", f"{password}"):  # fmt: skip
        with pytest.raises((BadAddress, DatabaseUnavailable)) as refused:
            schema.migrate(Database(url, "s"))
        assert password not in str(refused.value)
        with pytest.raises((BadAddress, DatabaseUnavailable)) as refused:
            holdings(Database(url, "s"))
        assert password not in str(refused.value)
        assert refused.value.__cause__ is None
    assert "geheim" not in repr(Database("postgresql://me:geheim@h/d", "s"))


def test_an_unknown_database_is_a_refusal_and_a_silent_server_is_not():
    with pytest.raises(DatabaseRefused, match='database "nobody" does not exist'):
        holdings(Database(server().replace("/postgres?", "/nobody?"), "s"))
    with pytest.raises(DatabaseUnavailable, match="run it again when the server is up"):
        holdings(Database("postgresql://me@localhost:1/none", "s"))
    with pytest.raises(DatabaseRefused, match="odin database migrate"):
        holdings(empty_database())
