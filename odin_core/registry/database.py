"""Where the registry is kept: a file of the home, `registry.db` (SQLite), or a PostgreSQL by its URL.

One database belongs to one home. A new file appears whole, with its tables; an older database is brought to the newest
revision when it is opened, a newer one is refused. Writers queue, readers see the state before a change or after it,
never half of it. No message ever holds a password. The tables are in `tables`, what is asked of them in `store`."""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, inspect, make_url, pool, select

from odin_core.errors import OdinError
from odin_core.home import REGISTRY_URL, Home
from odin_core.registry.tables import REVISIONS, VERSION_TABLE, make_append_only, metadata, revision_table
from odin_core.secrets import HIDDEN

MIGRATIONS: Final = Path(__file__).with_name("migrations")
BUSY_SECONDS: Final = 30.0  # that a writer waits for another one
CONNECT_SECONDS: Final = 10  # that a server may take to answer, unless its address says otherwise (connect_timeout)
QUEUE: Final = 0x0D1_0D2  # the advisory lock that writers of a PostgreSQL queue at
DAMAGE: Final = ("malformed", "not a database", "no such table", "no such column")


class BadRegistryAddress(OdinError):
    def __init__(self) -> None:
        super().__init__(
            f"{REGISTRY_URL} is no address of a PostgreSQL; it looks like postgresql://user:password@host:5432/name "
            f"and has @ : / % of a password as %40 %3A %2F %25. Without it the registry is registry.db in the home"
        )


class RegistryUnavailable(OdinError):
    """No answer, or none in time: it may pass."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"the registry ({where}) cannot be used now: {why}. Nothing was changed; run it again later")


class RegistryDamaged(OdinError):
    def __init__(self, where: str, why: str) -> None:
        super().__init__(
            f"the registry ({where}) is damaged: {why}. Restore it from a backup of the home. Without one, move it "
            f"away: a life that is rewound to before its first training (odin life rewind) trains its models again"
        )


class RegistryTooNew(OdinError):
    def __init__(self, where: str, found: str) -> None:
        super().__init__(
            f"the registry ({where}) has revision {found!r}, which this ODIN does not know (its newest is "
            f"{REVISIONS[-1]}); use the ODIN that wrote it"
        )


class RegistryDatabase:
    """An opened database with the newest tables. Make one with `open_registry`."""

    def __init__(self, engine: Engine, where: str, password: str | None = None) -> None:
        self.where, self._password = where, password
        self._is_file = engine.dialect.name == "sqlite"
        self._readers = engine if self._is_file else engine.execution_options(isolation_level="REPEATABLE READ")
        self._writers = engine.execution_options(begin="BEGIN IMMEDIATE") if self._is_file else engine

    def __repr__(self) -> str:
        return f"RegistryDatabase({self.where})"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which every question is answered from the same state.
        Raises RegistryUnavailable, RegistryDamaged."""
        with self._in_our_words(), self._readers.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that no other writer runs beside; undone when the block raises.
        Raises RegistryUnavailable, RegistryDamaged."""
        with self._in_our_words(), self._writers.begin() as connection:
            if not self._is_file:
                connection.exec_driver_sql(f"set local lock_timeout = '{BUSY_SECONDS:g}s'")
                connection.exec_driver_sql(f"select pg_advisory_xact_lock({QUEUE})")
            yield connection

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            why = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
            why = why.replace(self._password, HIDDEN) if self._password else why
            if self._is_file and any(sign in why for sign in DAMAGE):
                raise RegistryDamaged(self.where, why) from None
            raise RegistryUnavailable(self.where, why) from None

    def bring_up_to_date(self) -> None:
        """Make the tables, or those that a newer revision adds. Raises RegistryTooNew."""
        with self.reading() as connection:
            if self._revision(connection) == REVISIONS[-1]:
                return
        with self.writing() as connection:
            if self._revision(connection) != REVISIONS[-1]:  # by another process while this one queued
                _upgrade(connection)

    def _revision(self, connection: Connection) -> str | None:
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        found = connection.execute(select(revision_table.c.version_num)).scalar()
        if found is not None and found not in REVISIONS:
            raise RegistryTooNew(self.where, found)
        return found


_opened: dict[tuple[object, ...], RegistryDatabase] = {}
_guard = threading.Lock()


def open_registry(home: Home) -> RegistryDatabase:
    """The registry of a home, made where there is none; one object for each database and process.
    Raises BadRegistryAddress, RegistryUnavailable, RegistryDamaged, RegistryTooNew."""
    with _guard:
        if home.registry_url is not None:
            key: tuple[object, ...] = (home.registry_url, os.getpid())  # a fork must not use its parent's connections
        else:
            key = (*_file_of(home), os.getpid())
        if key not in _opened:
            url = home.registry_url
            database = _server(url) if url is not None else sqlite_registry(home.registry)
            database.bring_up_to_date()
            _opened[key] = database
        return _opened[key]


def _file_of(home: Home) -> tuple[Path, int, int]:
    """Path and identity of the home's file: another file of that name is another database."""
    path = home.registry
    try:
        if not path.is_file():
            _make_file(path)
        found = path.stat()
    except (OSError, sqlite3.Error) as error:
        raise RegistryUnavailable(str(path), str(error)) from error
    return path, found.st_dev, found.st_ino


def _make_file(path: Path) -> None:
    """A new file under its name only when it is whole; a process that comes second finds the first one's."""
    folder = os.open(path.parent, os.O_RDONLY)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if path.is_file():
            return
        temporary.unlink(missing_ok=True)  # of a process that died here
        engine = _engine(temporary)
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("commit")
                connection.exec_driver_sql("pragma journal_mode = wal")
            with engine.begin() as connection:
                metadata.create_all(connection)
                make_append_only(connection)
                connection.execute(revision_table.insert().values(version_num=REVISIONS[-1]))
        finally:
            engine.dispose()  # the last connection folds the write-ahead log into the file
        os.replace(temporary, path)
    finally:
        os.close(folder)  # and with it the lock


def sqlite_registry(path: Path) -> RegistryDatabase:
    """A file that is there, as it is."""
    return RegistryDatabase(_engine(path), str(path))


def _engine(path: Path) -> Engine:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    engine = create_engine("sqlite+pysqlite://", creator=connect, poolclass=pool.QueuePool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def _server(address: str) -> RegistryDatabase:
    url = _parsed(address)
    waits = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_SECONDS}
    engine = create_engine(url, pool_pre_ping=True, connect_args=waits)
    where = f"PostgreSQL on {url.host or url.query.get('host', 'the local server')}, database {url.database}"
    return RegistryDatabase(engine, where, str(url.password) if url.password else None)


def _parsed(address: str) -> URL:
    try:
        url = make_url(address)
    except (exc.ArgumentError, ValueError):
        raise BadRegistryAddress from None  # the original would quote the address
    if url.get_backend_name() not in ("postgresql", "postgres") or not url.database:
        raise BadRegistryAddress
    return url.set(drivername="postgresql+psycopg2")


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    command.upgrade(config, "head")
