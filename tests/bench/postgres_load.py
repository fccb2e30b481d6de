"""Speed and memory of `odin database load`: a lake of a million minute bars into an empty table of a real server.

Peers, each taken in turn with ours: a bare COPY of the same rows, in the same order, from one prepared file into a
table of the same shape and key, once as text and once in PostgreSQL's binary form, which spares the server the parsing.
Ours reads the lake's Parquet besides. Memory: the highest of a process that loads all, beside one that loads a third.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg2

from odin_assets.postgres import serve
from odin_core.lake import Lake
from odin_core.market.bars import BARS
from odin_core.market.database.connection import Database
from odin_core.market.database.schema import migrate
from odin_core.market.database.transfer import PRICE_HISTORY, load

SESSIONS, SYMBOLS, MINUTES = 27, 100, 375
ROUNDS = 5
FIRST = date(2024, 1, 1)
TABLE, BARE = "stock_price_history", "bare"
FORMS = ("text", "binary")
PEAK = """
import resource, sys
from datetime import date
from pathlib import Path
from odin_core.lake import Lake
from odin_core.market.database.connection import Database
from odin_core.market.database.transfer import load
load(Lake(Path(sys.argv[1])), Database(sys.argv[2], "bench"), last=date.fromisoformat(sys.argv[3]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def run() -> list[dict[str, Any]]:
    """Three rows: rows per second against COPY of text and of binary, medians of five; peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder) / "postgres") as url:
        lake, database = lake_of_bars(Path(folder) / "lake"), Database(url, "bench")
        migrate(database)
        execute(url, f'create table bench.{BARE} (like bench.{TABLE} including all) partition by list ("interval")')
        execute(url, f"create table bench.bare_1m partition of bench.{BARE} for values in ('1m')")
        files = prepared(url, lake, database, Path(folder))
        works: dict[str, Callable[[], object]] = {"ours": lambda: load(lake, database)}
        works |= {form: lambda form=form: bare_copy(url, files[form], form) for form in FORMS}
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(ROUNDS):
            for name, work in works.items():
                execute(url, f"truncate bench.{TABLE}, bench.{BARE}; checkpoint")
                seconds[name].append(timed(work))
        rate = {name: SESSIONS * SYMBOLS * MINUTES / statistics.median(each) for name, each in seconds.items()}
        peaks = [peak_mb(url, lake, sessions) for sessions in (SESSIONS, SESSIONS // 3)]
    rows = [
        {"bench": "postgres_load", "value": rate["ours"], "unit": "rows/s", "peer": f"bare COPY of the rows as {form}",
         "peer_value": rate[form]} for form in FORMS
    ]  # fmt: skip
    return [*rows, {"bench": "postgres_load_peak_mb", "value": peaks[0], "unit": "MB", "peer": "a third of the rows",
                    "peer_value": peaks[1]}]  # fmt: skip


def lake_of_bars(root: Path) -> Lake:
    """Random walks of 100 symbols, prices of two decimals, volume always known, no open interest."""
    lake, rng = Lake(root), np.random.default_rng(5)
    names = np.repeat([f"SYM{i:03}" for i in range(SYMBOLS)], MINUTES)
    for day in range(SESSIONS):
        session = FIRST + timedelta(days=day)
        start = datetime(session.year, session.month, session.day, 3, 45, tzinfo=UTC)
        close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 6e-4, (SYMBOLS, MINUTES)), axis=1)), 2).ravel()
        frame = pl.DataFrame({"symbol": names, "minute": np.tile(np.arange(MINUTES), SYMBOLS), "close": close})
        ts = pl.lit(start) + pl.duration(minutes="minute")
        bars = frame.select(
            "symbol", ts=ts, known_at=ts + timedelta(minutes=1), open="close", high=pl.col("close") + 0.05,
            low=pl.col("close") - 0.05, close="close", volume=pl.lit(rng.integers(1, 10_000, frame.height)).cast(float),
            oi=pl.lit(None, pl.Float64),
        )  # fmt: skip
        lake.write("price_history", session, bars.select(*BARS))
    return lake


def prepared(url: str, lake: Lake, database: Database, folder: Path) -> dict[str, Path]:
    """The rows as files that COPY takes, written by the server itself in the order of the lake."""
    load(lake, database)
    paths = {form: folder / f"rows.{form}" for form in FORMS}
    columns = ", ".join(f'"{name}"' for name in PRICE_HISTORY.columns)
    for form, path in paths.items():
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor, path.open("wb") as file:
            query = f"select {columns} from bench.{TABLE} order by ts::date, symbol, ts"
            cursor.copy_expert(f"copy ({query}) to stdout (format {form})", file)
    return paths


def bare_copy(url: str, path: Path, form: str) -> None:
    columns = ", ".join(f'"{name}"' for name in PRICE_HISTORY.columns)
    with psycopg2.connect(url) as connection, connection.cursor() as cursor, path.open("rb") as file:
        cursor.copy_expert(f"copy bench.{BARE} ({columns}) from stdin (format {form})", file, size=1 << 16)


def execute(url: str, statements: str) -> None:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements.split(";"):
                cursor.execute(statement)


def peak_mb(url: str, lake: Lake, sessions: int) -> float:
    execute(url, f"truncate bench.{TABLE}")
    last = str(FIRST + timedelta(days=sessions - 1))
    words = [sys.executable, "-c", PEAK, str(lake.root), url, last]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
