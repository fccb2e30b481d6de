"""Kills while a load runs, of the loader and of its server's process: nothing half, and the same rows in the end."""

import subprocess
import sys
import time

import polars as pl
import psycopg2
import pytest
from marketdatabases import FIRST, lake_of, new_database

from odin_core.lake import Lake, logical_hash
from odin_core.market.database import transfer
from odin_core.market.database.connection import Database, DatabaseUnavailable, literal
from odin_core.market.database.transfer import holdings, load

SESSIONS = 6
DIES = """
import os, signal, sys
from pathlib import Path
from odin_core.lake import Lake
from odin_core.market.database import transfer
from odin_core.market.database.connection import Database

transfer.BATCH_ROWS = 1  # a session

def progress(done, total):
    print(done, flush=True)
    if done == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

transfer.load(Lake(Path(sys.argv[1])), Database(sys.argv[2], sys.argv[3]), progress=progress)
"""


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    return lake_of(tmp_path_factory.mktemp("lake"), SESSIONS, minutes=300)


@pytest.fixture
def database(lake: Lake) -> Database:
    """The first session is there, with other values."""
    database = new_database()
    load(lake, database, last=FIRST)
    execute(database, f"update \"{database.schema}\".stock_price_history set close = close + 1 where symbol = 'A'")
    return database


def execute(database: Database, statement: str) -> None:
    with psycopg2.connect(database.url) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


def digest(database: Database) -> str:
    with psycopg2.connect(database.url) as connection, connection.cursor() as cursor:
        cursor.execute(f'select * from "{database.schema}".stock_price_history order by symbol, "interval", ts')
        return logical_hash(pl.DataFrame(cursor.fetchall(), orient="row", infer_schema_length=None))


@pytest.fixture(scope="module")
def whole(lake: Lake) -> str:
    """The digest of a load that nobody disturbs."""
    database = new_database()
    load(lake, database)
    return digest(database)


@pytest.mark.parametrize("at", [1, 3, SESSIONS])
def test_a_load_killed_at_any_batch_leaves_what_was_there_and_the_next_one_makes_it_whole(
    lake: Lake, database: Database, whole: str, at: int
):
    before = digest(database)
    killed = subprocess.run(
        [sys.executable, "-c", DIES, lake.root, database.url, database.schema, str(at)], capture_output=True, text=True
    )
    assert killed.returncode == -9, killed.stderr
    assert killed.stdout.split()[-1] == str(at)
    assert digest(database) == before
    load(lake, database)
    assert digest(database) == whole


def test_a_connection_that_the_server_cuts_is_said_and_leaves_nothing_half(
    lake: Lake, database: Database, whole: str, monkeypatch
):
    monkeypatch.setattr(transfer, "BATCH_ROWS", 1)
    before = digest(database)

    def cut(done: int, total: int) -> None:
        if done == 3:
            execute(database, "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() "
                    f"and query like {literal('%stock_price_history%')} and datname = current_database()")  # fmt: skip

    with pytest.raises(DatabaseUnavailable, match="run it again when the server is up"):
        load(lake, database, progress=cut)
    assert digest(database) == before
    load(lake, database)
    assert digest(database) == whole


def test_two_loads_at_once_queue_and_agree(lake: Lake, whole: str):
    database = new_database()
    words = [sys.executable, "-c", DIES, lake.root, database.url, database.schema, "0"]
    both = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    deadline = time.monotonic() + 60
    for process in both:
        said = process.communicate(timeout=deadline - time.monotonic())[1]
        assert process.returncode == 0, said
    assert digest(database) == whole
    assert [h.rows for h in holdings(database)] == [SESSIONS * 900]
