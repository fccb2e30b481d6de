"""Rows between the lake and a database, in bulk and in bounded memory, whatever the length of the history.

A load is one transaction: killed at any moment it leaves what was there before. Rows go in by COPY, straight into the
table where it has none of their symbols and times yet, otherwise through a temporary table that is merged by key. Loads
queue for the table's lock; readers never wait."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from odin_core.lake import Lake
from odin_core.market.bars import UTC, interval_of
from odin_core.market.database.connection import Database, literal
from odin_core.market.sources.source import SOURCE_BARS

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection

BATCH_ROWS = 250_000  # of bars at once: 20 MB
INTERVALS = ("1m", "5m", "15m", "60m", "day")
FUNDAMENTALS = "fundamentals"
STORED_FUNDAMENTALS = pl.Schema(
    {
        "symbol": pl.String(),
        "figure": pl.String(),
        "period": pl.String(),  # empty where nobody says
        "known_at": UTC,
        "origin": pl.String(),
        "value": pl.Float64(),  # null: known to be unavailable
    }
)


class _Target(NamedTuple):
    table: str
    key: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.key, *self.values)


PRICE_HISTORY = _Target(
    "stock_price_history", ("symbol", "interval", "ts"), ("open", "high", "low", "close", "volume", "oi")
)
STOCK_FUNDAMENTALS = _Target("stock_fundamentals", ("symbol", "figure", "period", "known_at", "origin"), ("value",))


@dataclass(kw_only=True)
class Loaded:
    """What one table of the lake became. `new`: rows that were not there; `corrected`: rows that got other values."""

    table: str
    sessions: int = 0
    rows: int = 0
    new: int = 0
    corrected: int = 0

    @property
    def unchanged(self) -> int:
        return self.rows - self.new - self.corrected

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"unchanged": self.unchanged}


class Holding(NamedTuple):
    """What a database has of one interval. `first`, `last`: starts of bars, UTC."""

    interval: str
    rows: int
    symbols: int
    first: datetime
    last: datetime


def load(
    lake: Lake,
    database: Database,
    *,
    first: date | None = None,
    last: date | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Loaded]:
    """Bring the sessions first..last (default: all) of every table of bars, and of the fundamentals, into a migrated
    database: all of it or, on any error, nothing. Rows that are there get the lake's values; rows that the lake does
    not have stay. `known_at` of a bar is not kept: it follows from interval and calendar.
    `progress` gets sessions done and in all. Raises DatabaseUnavailable, DatabaseRefused, PartitionUnreadable."""
    wanted = {
        table: [s for s in lake.sessions(table) if (first or date.min) <= s <= (last or date.max)]
        for table in lake.tables()
        if table == FUNDAMENTALS or interval_of(table)
    }
    total, before, done = sum(map(len, wanted.values())), 0, []
    with database.transaction() as connection:
        tables = f"{PRICE_HISTORY.table}, {STOCK_FUNDAMENTALS.table}"  # both at once, so that two loads cannot cross
        _execute(connection, f"lock table {tables} in share row exclusive mode")
        for table, sessions in wanted.items():
            report = Loaded(table=table)
            target = STOCK_FUNDAMENTALS if table == FUNDAMENTALS else PRICE_HISTORY
            for batch, last_of_batch in _batches(lake, table, sessions):
                new, corrected = _put(connection, target, batch)
                report.rows, report.new, report.corrected = (
                    report.rows + batch.height, report.new + new, report.corrected + corrected
                )  # fmt: skip
                report.sessions = last_of_batch
                if progress is not None:
                    progress(before + report.sessions, total)
            before += len(sessions)
            done.append(report)
    return done


def read_bars(
    database: Database, symbols: Sequence[str], interval: str, start: datetime, end: datetime
) -> Iterator[pl.DataFrame]:
    """Bars (SOURCE_BARS) of the symbols that start in [start, end), by symbol and time, in frames of some 16 MB as the
    server sends them. `start`, `end`: aware. Raises DatabaseUnavailable, DatabaseRefused."""
    if not symbols:
        return
    query = (
        f'select {", ".join(SOURCE_BARS)} from {PRICE_HISTORY.table} where "interval" = {literal(interval)} '
        f"and symbol in ({', '.join(map(literal, symbols))}) "
        f"and ts >= {_moment(start)} and ts < {_moment(end)} order by symbol, ts"
    )
    yield from _frames(database, query, SOURCE_BARS)


def read_fundamentals(database: Database, *, as_of: datetime) -> pl.DataFrame:
    """Every value known at `as_of` (aware): STORED_FUNDAMENTALS, in the order of its columns."""
    columns = ", ".join(STORED_FUNDAMENTALS)
    query = f"select {columns} from {STOCK_FUNDAMENTALS.table} where known_at <= {_moment(as_of)} order by {columns}"
    return pl.concat([STORED_FUNDAMENTALS.to_frame(), *_frames(database, query, STORED_FUNDAMENTALS)])


def intervals(database: Database) -> list[str]:
    """Those of INTERVALS that have a bar."""
    tests = ", ".join(f"exists (select 1 from {PRICE_HISTORY.table} where {_of(name)})" for name in INTERVALS)
    with database.transaction() as connection:
        (found,) = _rows(connection, f"select {tests}")
    return [name for name, has in zip(INTERVALS, found, strict=True) if has]


def symbols(database: Database, interval: str) -> list[str]:
    """Symbols that have a bar of an interval, ascending. One look into the key for each: nothing is scanned."""
    of, table = _of(interval), PRICE_HISTORY.table
    query = (
        f"with recursive found(symbol) as ("
        f"(select symbol from {table} where {of} order by symbol limit 1) union all "
        f"select (select h.symbol from {table} h where {of} and h.symbol > found.symbol order by h.symbol limit 1) "
        f"from found where found.symbol is not null) select symbol from found where symbol is not null"
    )
    with database.transaction() as connection:
        return sorted(row[0] for row in _rows(connection, query))


def holdings(database: Database) -> list[Holding]:
    """What there is of each interval; counting reads the whole table."""
    query = (
        f'select "interval", count(*), count(distinct symbol), min(ts), max(ts) '
        f'from {PRICE_HISTORY.table} group by "interval" order by "interval"'
    )
    with database.transaction() as connection:
        return [Holding(*row) for row in _rows(connection, query)]


def _batches(lake: Lake, table: str, sessions: Sequence[date]) -> Iterator[tuple[pl.DataFrame, int]]:
    """The sessions' rows as the database has them, BATCH_ROWS or a session more at once, and how many sessions these
    and the ones before are."""
    parts: list[pl.DataFrame] = []
    for number, session in enumerate(sessions, 1):
        parts.append(_as_stored(table, lake.read(table, session)))
        if sum(part.height for part in parts) >= BATCH_ROWS or number == len(sessions):
            yield pl.concat(parts), number
            parts = []


def _as_stored(table: str, rows: pl.DataFrame) -> pl.DataFrame:
    if table == FUNDAMENTALS:
        return rows.select(
            pl.col(name).fill_null("") if name in ("period", "origin") else name for name in STORED_FUNDAMENTALS
        )
    interval = interval_of(table)
    return rows.with_columns(pl.lit(interval).alias("interval")).select(PRICE_HISTORY.columns)


def _put(connection: "Connection", target: _Target, rows: pl.DataFrame) -> tuple[int, int]:
    """Rows into a table; how many are new there and how many got other values."""
    if rows.is_empty():
        return 0, 0
    if target is PRICE_HISTORY and not _meets(connection, rows):
        _copy(connection, target.table, rows, temporary=False)
        return rows.height, 0
    incoming = "odin_incoming"
    _execute(connection, f"create temporary table {incoming} (like {target.table})")
    _copy(connection, incoming, rows, temporary=True)
    key, columns = (", ".join(f'"{name}"' for name in names) for names in (target.key, target.columns))
    new_values = ", ".join(f"{name} = excluded.{name}" for name in target.values)
    was, becomes = (", ".join(f"{of}.{name}" for name in target.values) for of in (target.table, "excluded"))
    same_key = " and ".join(f'i."{name}" = t."{name}"' for name in target.key)
    ((new, written),) = _rows(  # all of one statement sees the table as it was before it
        connection,
        f"with put as (insert into {target.table} ({columns}) select {columns} from {incoming} "
        f"on conflict ({key}) do update set {new_values} where ({was}) is distinct from ({becomes}) returning 1) "
        f"select (select count(*) from {incoming} i "
        f"where not exists (select 1 from {target.table} t where {same_key})), (select count(*) from put)",
    )
    _execute(connection, f"drop table {incoming}")
    return new, written - new


def _meets(connection: "Connection", bars: pl.DataFrame) -> bool:
    """Whether the table has any bar of these symbols between the first and the last of these bars."""
    first, last = bars.select(first=pl.col("ts").min(), last=pl.col("ts").max()).row(0)
    names = ", ".join(map(literal, bars["symbol"].unique().sort()))
    ((met,),) = _rows(
        connection,
        f"select exists (select 1 from {PRICE_HISTORY.table} where {_of(bars['interval'][0])} and symbol in ({names}) "
        f"and ts between {_moment(first)} and {_moment(last)})",
    )
    return met


def _of(interval: str) -> str:
    return f'"interval" = {literal(interval)}'


def _moment(moment: datetime) -> str:
    """An instant as SQL writes it. ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone; give it in UTC")
    return f"timestamptz {literal(moment.isoformat())}"


def _copy(connection: "Connection", table: str, rows: pl.DataFrame, *, temporary: bool) -> None:
    with connection.cursor() as cursor:
        cursor.adbc_ingest(table, rows.to_arrow(), mode="append", temporary=temporary)


def _execute(connection: "Connection", statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _rows(connection: "Connection", query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        # An answer of few rows is asked for without COPY, which takes no statement that writes.
        cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
        cursor.execute(query)
        return [tuple(row) for row in cursor.fetchall()]


def _frames(database: Database, query: str, schema: pl.Schema) -> Iterator[pl.DataFrame]:
    with database.transaction() as connection, connection.cursor() as cursor:
        cursor.execute(query)
        for batch in cursor.fetch_record_batch():
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
