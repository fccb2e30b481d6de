"""A real PostgreSQL for tests, one server per test process; every test gets a schema of its own."""

import atexit
import os
import shutil
import tempfile
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg2
from sqlalchemy import make_url

from odin_assets.postgres import serve
from odin_core.lake import Lake
from odin_core.market.bars import BARS
from odin_core.market.database.connection import Database
from odin_core.market.database.schema import migrate

FIRST = date(2024, 1, 1)
_numbers = count()


@cache
def server() -> str:
    """The URL of a server that ends with this process."""
    folder, stack = Path(tempfile.mkdtemp(prefix="odin-market-database-")), ExitStack()
    atexit.register(_end, os.getpid(), folder, stack)
    return stack.enter_context(serve(folder / "postgres"))


def _end(owner: int, folder: Path, stack: ExitStack) -> None:
    if os.getpid() == owner:  # a forked child leaves its parent's server alone
        stack.close()
        shutil.rmtree(folder, ignore_errors=True)


def ask(query: str) -> list[tuple[Any, ...]]:
    """The rows that a query gives, on a connection of its own."""
    with psycopg2.connect(server()) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall() if cursor.description else []


def empty_database() -> Database:
    """A schema that is not there yet."""
    return Database(server(), f"schema {next(_numbers)}")


def new_database() -> Database:
    """A schema with the newest tables and nothing in them."""
    database = empty_database()
    migrate(database)
    return database


def bars_of(session: date, *symbols: str, minutes: int = 5, seed: int = 0, interval: int = 1) -> pl.DataFrame:
    """Bars (BARS) from 10:00 UTC on; every third volume and every second open interest is null."""
    rng = np.random.default_rng([seed, session.toordinal()])
    rows = minutes * len(symbols)
    start = datetime(session.year, session.month, session.day, 10, tzinfo=UTC)
    minute = np.tile(np.arange(minutes), len(symbols))
    close = np.round(100 + rng.standard_normal(rows), 2)
    frame = pl.DataFrame({"symbol": np.repeat(sorted(symbols), minutes), "minute": minute, "close": close})
    ts = pl.lit(start) + pl.duration(minutes=pl.col("minute") * interval)
    return frame.select(
        "symbol", ts=ts, known_at=ts + timedelta(minutes=interval), open=pl.col("close") - 0.5,
        high=pl.col("close") + 1, low=pl.col("close") - 1, close="close",
        volume=pl.when(pl.col("minute") % 3 > 0).then(pl.col("minute") * 10.0),
        oi=pl.when(pl.col("minute") % 2 > 0).then(pl.col("minute") + 0.5),
    ).cast(dict(BARS))  # fmt: skip


def lake_of(folder: Path, sessions: int = 3, table: str = "price_history", **options: int) -> Lake:
    """A lake with as many days of bars of A, B and C from FIRST on."""
    lake = Lake(folder)
    for day in range(sessions):
        session = FIRST + timedelta(days=day)
        lake.write(table, session, bars_of(session, "A", "B", "C", **options))
    return lake


def new_server_database() -> str:
    """The URL of a new, empty database on that server."""
    name = f"registry{next(_numbers)}"
    connection = psycopg2.connect(server())
    connection.autocommit = True  # PostgreSQL makes databases outside transactions only
    with connection.cursor() as cursor:
        cursor.execute(f"create database {name}")
    connection.close()
    return make_url(server()).set(database=name).render_as_string(hide_password=False)
