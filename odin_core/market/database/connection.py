"""Opening a database, and what can go wrong with one; no message ever holds its password.

Rows travel through ADBC, which speaks PostgreSQL's binary COPY with Arrow at both ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from odin_core.errors import OdinError

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection

URL = "ODIN_MARKET_DATABASE_URL"  # the name of the secret
LOST = ("08", "40", "53", "57P")  # SQLSTATE: connection lost, deadlock, out of resources, server going up or down
UNKNOWN_TABLE = "42P01"
UNKNOWN_TABLE_REMEDY = (
    "; make the tables with `odin database migrate`, or say where they lie: source: {kind: postgres, schema: …}"
)
COMING_UP = ("terminating connection", "the database system is", "too many clients", "remaining connection slots")


class BadAddress(OdinError):
    def __init__(self) -> None:
        super().__init__(
            f"{URL} is no address that PostgreSQL understands; it looks like postgresql://user:password@host:5432/name "
            f"and has @ : / % of a password as %40 %3A %2F %25"
        )


class DatabaseUnavailable(OdinError):
    """No answer, or none to the end: it may pass."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(
            f"{where} does not answer: {why}. Nothing of this was kept there; run it again when the server is up"
        )


class DatabaseRefused(OdinError):
    """The server says no, and would say so again."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where} refused: {why}")


class Database:
    """A database by its URL, and the schema in it that holds one market's tables."""

    def __init__(self, url: str, schema: str) -> None:
        """Raises BadAddress. `url`: as libpq takes it; nothing is opened yet."""
        from psycopg2 import ProgrammingError
        from psycopg2.extensions import parse_dsn

        try:
            self._parts: dict[str, Any] = parse_dsn(url)
        except ProgrammingError:
            raise BadAddress from None  # the original would quote a part of the address
        self.url, self.schema = url, schema

    def __repr__(self) -> str:
        return f"Database({self.where})"

    @property
    def where(self) -> str:
        """For people: which database on which server; without the password."""
        host, name = self._parts.get("host", "the local server"), self._parts.get("dbname", "its default")
        return f"PostgreSQL on {host}, database {name}, schema {self.schema}"

    @contextmanager
    def transaction(self) -> Iterator["Connection"]:
        """An ADBC connection, committed when the block ends and undone when it raises; `search_path` is the schema.
        Raises DatabaseUnavailable, DatabaseRefused."""
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi

        try:
            with dbapi.connect(self.url) as connection:
                with connection.cursor() as cursor:
                    cursor.execute("set standard_conforming_strings = on")  # `literal` relies on it
                    cursor.execute(f"set search_path to {identifier(self.schema)}")
                    cursor.execute("set timezone to 'UTC'")
                yield connection
                connection.commit()
        except Error as error:
            raise self._in_our_words(error) from None

    def _in_our_words(self, error: Any) -> OdinError:
        state, message = error.sqlstate or "", str(error)
        passing = state.startswith(LOST) if state else "FATAL:" not in message or any(s in message for s in COMING_UP)
        remedy = UNKNOWN_TABLE_REMEDY if state == UNKNOWN_TABLE else ""
        return (DatabaseUnavailable if passing else DatabaseRefused)(self.where, self.safe(message) + remedy)

    def safe(self, message: str) -> str:
        """The first line that says why, without the password."""
        lines = [line.partition("Query was:")[0].strip() for line in message.splitlines()]
        text = next((line for line in lines if line), "it gave no reason").rstrip(". ")
        for marker in ("ERROR:", "FATAL:", "failed:"):
            text = text.rpartition(marker)[2].strip() if marker in text else text
        secret = self._parts.get("password")
        return text.replace(secret, "[secret]") if secret else text


def literal(text: str) -> str:
    """A text as SQL writes it. Rows are read by COPY, which takes no parameters. ValueError for a NUL."""
    if "\0" in text:
        raise ValueError(f"{text!r} holds a NUL, which PostgreSQL has no way to write")
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
