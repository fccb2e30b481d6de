"""The tables of a market's schema: which revision a database has, and bringing it to the newest.

Each revision is a file in `migrations/versions`. One run is one transaction, so a kill leaves the revision before; two
runs at once queue. There is no way down: a database that is not wanted as it is comes back from a backup."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from odin_core.errors import OdinError
from odin_core.market.database.connection import Database, DatabaseRefused, DatabaseUnavailable, identifier

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).with_name("migrations")
VERSION_TABLE = "odin_revision"
QUEUE = 0x0D1_0D1  # the advisory lock that runs queue at


class NotMigrated(OdinError):
    def __init__(self, database: Database, found: str | None, wanted: str) -> None:
        has = f"has revision {found}" if found else "has no tables of ODIN yet"
        super().__init__(f"{database.where} {has}, and this ODIN needs {wanted}; run `odin database migrate` first")


class Revisions(NamedTuple):
    """`found`: None where the schema has none. `newest`: what this ODIN needs."""

    found: str | None
    newest: str


def revisions(database: Database) -> Revisions:
    """Raises DatabaseUnavailable, DatabaseRefused."""
    with _opened(database) as connection:
        return Revisions(_found(connection, database), _newest(_config(database)))


def require_migrated(database: Database) -> None:
    """Raise NotMigrated unless the schema has the newest revision."""
    state = revisions(database)
    if state.found != state.newest:
        raise NotMigrated(database, state.found, state.newest)


def migrate(database: Database) -> Revisions:
    """Bring the schema, made where it is missing, to the newest revision; `found` is the one from before.
    Raises DatabaseUnavailable, and DatabaseRefused where tables of that name are there that ODIN did not make."""
    from alembic import command

    config = _config(database)
    with _opened(database) as connection:
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({QUEUE})")
        connection.exec_driver_sql(f"create schema if not exists {identifier(database.schema)}")
        connection.exec_driver_sql(f"set local search_path to {identifier(database.schema)}")
        before = _found(connection, database)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return Revisions(before, _newest(config))


def _config(database: Database) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["schema"] = database.schema
    config.attributes["version_table"] = VERSION_TABLE
    return config


def _newest(config: "Config") -> str:
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(config).get_current_head()
    assert head is not None
    return head


def _found(connection: "Connection", database: Database) -> str | None:
    from alembic.migration import MigrationContext

    options = {"version_table": VERSION_TABLE, "version_table_schema": database.schema}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


@contextmanager
def _opened(database: Database) -> Iterator["Connection"]:
    """A transaction for what alembic does: committed when the block ends, undone when it raises."""
    import psycopg2
    from sqlalchemy import create_engine, exc, pool

    engine = create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(database.url),
                           poolclass=pool.NullPool)  # fmt: skip
    try:
        with engine.begin() as connection:
            yield connection
    except exc.OperationalError as error:
        raise DatabaseUnavailable(database.where, database.safe(str(error.orig))) from None
    except exc.ProgrammingError as error:
        raise DatabaseRefused(database.where, database.safe(str(error.orig))) from None
