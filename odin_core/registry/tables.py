"""The registry's tables, the same in SQLite and PostgreSQL. What their rows mean is in `store`; revisions of a database
that is there already are in `migrations`. JSON and instants are text, so that both databases keep them byte by byte."""

from typing import Final

from sqlalchemy import (
    Column,
    Connection,
    Date,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

VERSION_TABLE: Final = "odin_registry_revision"
REVISIONS: Final = ("0001_registry", "0002_append_only")  # oldest first
APPEND_ONLY: Final = ("artefacts", "bundles", "deployments")

metadata = MetaData()

artefacts = Table(
    "artefacts",
    metadata,
    Column("sha256", Text, nullable=False),
    Column("copy", Integer, nullable=False),  # 0; one more each time that a damaged content was stored again
    Column("kind", Text, nullable=False),
    Column("size", Integer, nullable=False),  # bytes
    Column("content", LargeBinary, nullable=False),
    Column("added_at", Text, nullable=False),
    PrimaryKeyConstraint("sha256", "copy"),
)

bundles = Table(
    "bundles",
    metadata,
    Column("life", Text, nullable=False),
    Column("horizon", Text, nullable=False),
    Column("number", Integer, nullable=False),  # 1, 2, … within life and horizon, in the order of storing
    Column("id", Text, nullable=False),  # by content
    Column("market", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("parts", Text, nullable=False),  # JSON: kind → sha256 of the artefact
    Column("facts", Text, nullable=False),  # JSON
    Column("made_at", Text, nullable=False),
    PrimaryKeyConstraint("life", "horizon", "number"),
)

deployments = Table(
    "deployments",
    metadata,
    Column("life", Text, nullable=False),
    Column("horizon", Text, nullable=False),
    Column("revision", Integer, nullable=False),  # 1, 2, … without holes
    Column("market", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("from_version", Text),
    Column("to_version", Text),
    Column("effective", Date),  # null: none is in force and none is to come
    Column("why", Text, nullable=False),
    Column("metrics", Text, nullable=False),  # JSON
    PrimaryKeyConstraint("life", "horizon", "revision"),
)

pointers = Table(
    "pointers",
    metadata,
    Column("life", Text, nullable=False),
    Column("horizon", Text, nullable=False),
    Column("version", Text),
    Column("effective", Date),
    Column("revision", Integer, nullable=False),  # of the deployment that moved it last; 0 before the first
    Column("generation", Integer, nullable=False),  # of the life, as followed
    Column("followed", Date),  # last session of the life whose registry_history is in the deployments
    PrimaryKeyConstraint("life", "horizon"),
)

revision_table = Table(
    VERSION_TABLE, metadata, Column("version_num", Text, nullable=False), PrimaryKeyConstraint("version_num")
)


def make_append_only(connection: Connection) -> None:
    """Let the database itself refuse to change or remove a row of what is only ever added to."""
    if connection.dialect.name == "sqlite":
        for table in APPEND_ONLY:
            for verb in ("update", "delete"):
                connection.exec_driver_sql(
                    f"create trigger {table}_no_{verb} before {verb} on {table} begin "
                    f"select raise(abort, '{table} is only ever added to'); end"
                )
        return
    connection.exec_driver_sql(
        "create function odin_registry_only_adds() returns trigger language plpgsql as "
        "$$ begin raise exception '%% is only ever added to', tg_table_name; end $$"
    )
    for table in APPEND_ONLY:
        connection.exec_driver_sql(
            f"create trigger {table}_no_change before update or delete or truncate on {table} "
            f"for each statement execute function odin_registry_only_adds()"
        )
