"""What can happen to a registry's file from outside, for tests: the database itself refuses to change what it holds."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from odin_core.lifecycle.life import Life


def change_bytes(life: Life, version: str, change: Callable[[bytes], bytes], kind: str = "model") -> None:
    """Change the content of a stored part, as a bad disk would."""
    name = life.registry.parts(version)[kind]
    with connected(life.home.registry) as connection:
        (content,) = connection.execute("select content from artefacts where sha256 = ?", (name,)).fetchone()
        without_triggers(connection, "artefacts")
        connection.execute("update artefacts set content = ? where sha256 = ?", (change(content), name))


def change_a_leaf(life: Life, version: str) -> None:
    change_bytes(life, version, lambda content: content.replace(b"leaf_value=", b"leaf_value=1", 1))


def change_row(life: Life, table: str, assignment: str, where: str = "1") -> None:
    """An update or, with an empty assignment, a deletion that the triggers would refuse."""
    with connected(life.home.registry) as connection:
        without_triggers(connection, table)
        verb = f"update {table} set {assignment}" if assignment else f"delete from {table}"
        connection.execute(f"{verb} where {where}")


def connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path)


def without_triggers(connection: sqlite3.Connection, table: str) -> None:
    for verb in ("update", "delete"):
        connection.execute(f"drop trigger if exists {table}_no_{verb}")
