"""The registry's database: made whole, brought up to date, refused when newer or damaged; no password in any text."""

import socket
import sqlite3
from pathlib import Path

import marketdatabases
import pytest
from alembic.script import ScriptDirectory
from smalllives import begin
from sqlalchemy import create_engine, inspect

from odin_core.home import Home, open_home
from odin_core.lifecycle.life import Life
from odin_core.registry import database, tables
from odin_core.registry.database import (
    BadRegistryAddress,
    RegistryDamaged,
    RegistryTooNew,
    RegistryUnavailable,
    open_registry,
)

OLD = database.MIGRATIONS


def migrated(url: str, revision: str) -> None:
    """A database at an earlier revision, as an earlier ODIN would have made it."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(OLD))
    config.attributes["version_table"] = tables.VERSION_TABLE
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def shape(url: str) -> dict[str, object]:
    """Tables with columns, types, nullability and keys; and the triggers."""
    engine = create_engine(url)
    found = inspect(engine)
    shown: dict[str, object] = {
        name: (
            sorted((c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(name)),
            found.get_pk_constraint(name)["constrained_columns"],
        )
        for name in found.get_table_names()
        if name != tables.VERSION_TABLE
    }
    with engine.connect() as connection:
        query = (
            "select name from sqlite_master where type = 'trigger'"
            if engine.dialect.name == "sqlite"
            else "select tgname from pg_trigger where not tgisinternal"
        )
        shown["triggers"] = sorted(connection.exec_driver_sql(query).scalars())
    engine.dispose()
    return shown


def test_the_revisions_are_those_of_the_migrations():
    scripts = list(ScriptDirectory(str(OLD)).walk_revisions())
    assert [script.revision for script in reversed(scripts)] == list(tables.REVISIONS)


def test_a_new_file_has_the_tables_that_migrations_make(tmp_path: Path):
    home = open_home(tmp_path / "home")
    open_registry(home)
    migrated(f"sqlite:///{tmp_path}/migrated.db", "head")
    made, old = shape(f"sqlite:///{home.registry}"), shape(f"sqlite:///{tmp_path}/migrated.db")
    assert made == old
    assert len(made) == 5
    assert len(made["triggers"]) == 6  # pyright: ignore[reportArgumentType]
    assert sqlite3.connect(home.registry).execute("pragma journal_mode").fetchone() == ("wal",)


def test_an_older_file_is_brought_up_to_date_and_keeps_what_it_holds(tmp_path: Path):
    home = open_home(tmp_path / "home")
    migrated(f"sqlite:///{home.registry}", tables.REVISIONS[0])
    with sqlite3.connect(home.registry) as connection:
        connection.execute("insert into pointers values ('a life', 'session', null, null, 0, 1, null)")
    open_registry(home)
    with sqlite3.connect(home.registry) as connection:
        assert connection.execute("select life from pointers").fetchall() == [("a life",)]
        assert connection.execute(f"select * from {tables.VERSION_TABLE}").fetchall() == [(tables.REVISIONS[-1],)]
    assert len(shape(f"sqlite:///{home.registry}")["triggers"]) == 6  # pyright: ignore[reportArgumentType]


def test_an_older_postgresql_is_brought_up_to_date(tmp_path: Path):
    old, new = marketdatabases.new_server_database(), marketdatabases.new_server_database()
    migrated(old, tables.REVISIONS[0])
    for url in (old, new):
        open_registry(open_home(tmp_path / "home", registry_url=url))
    assert shape(old) == shape(new)
    assert len(shape(old)["triggers"]) == 3  # pyright: ignore[reportArgumentType]


def test_a_newer_registry_is_refused_and_left_alone(tmp_path: Path):
    home = open_home(tmp_path / "home")
    migrated(f"sqlite:///{home.registry}", "head")
    with sqlite3.connect(home.registry) as connection:
        connection.execute(f"update {tables.VERSION_TABLE} set version_num = '9999_future'")
    with pytest.raises(RegistryTooNew, match=r"registry\.db.*'9999_future'.*use the ODIN that wrote it"):
        open_registry(home)


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_named_with_the_ways_out(tmp_path: Path, content: bytes):
    home = open_home(tmp_path / "home")
    home.registry.write_bytes(content)
    with pytest.raises(RegistryDamaged, match=r"registry\.db.*is damaged.*odin life rewind"):
        open_registry(home)


def test_a_file_that_was_exchanged_is_another_database(tmp_path: Path):
    life, _ = begin(tmp_path / "home")
    first = open_registry(life.home)
    assert open_registry(life.home) is first
    for path in life.home.root.glob("registry.db*"):
        path.unlink()
    assert open_registry(life.home) is not first


@pytest.mark.parametrize(
    "url", ["mysql://me:tiger7@h/d", "tiger7", "postgresql://me:tiger7@h:port/d", "postgresql://me:tiger7@h", ""]
)
def test_an_address_that_is_none_is_refused_without_repeating_it(tmp_path: Path, url: str):
    with pytest.raises(BadRegistryAddress, match=r"ODIN_REGISTRY_URL.*postgresql://user:password@host") as refusal:
        open_registry(open_home(tmp_path / "home", registry_url=url))
    assert "tiger7" not in str(refusal.value)


def test_no_text_holds_the_password(tmp_path: Path):
    home = open_home(tmp_path / "home", registry_url="postgresql://me:tiger7@127.0.0.1:1/odin")
    with pytest.raises(RegistryUnavailable, match=r"PostgreSQL on 127\.0\.0\.1, database odin") as refusal:
        open_registry(home)
    assert "tiger7" not in str(refusal.value) + repr(home) + str(refusal.value.__cause__)
    assert refusal.value.__suppress_context__


def test_a_server_that_never_answers_is_waited_for_for_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sensors ask every half minute; one that hung would hold up those of every market."""
    monkeypatch.setattr(database, "CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"postgresql://me:tiger7@127.0.0.1:{silent.getsockname()[1]}/odin"
        with pytest.raises(RegistryUnavailable, match="timeout"):
            open_registry(open_home(tmp_path / "home", registry_url=address))


def test_a_writer_that_another_one_keeps_waiting_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = open_registry(open_home(tmp_path / "home", registry_url=marketdatabases.new_server_database()))
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    with opened.writing(), pytest.raises(RegistryUnavailable, match="lock timeout"), opened.writing():
        raise AssertionError("two writers at once")
    with opened.writing():
        """The queue is free again."""


def test_a_life_runs_on_postgresql_too(tmp_path: Path):
    life, _ = begin(tmp_path / "home")
    url = marketdatabases.new_server_database()
    there = Life(Home(life.home.root, url), life.market, life.config, life.first_session)
    assert there.registry.pointer().revision == 0
    assert "PostgreSQL" in repr(there.registry.database)
    assert not life.home.registry.exists()
    assert there.registry.verify() == []
