"""Tables that follow from others: read where they are current, else made and stored.

A derived file carries in its metadata a mark of what it was made from. Where the mark is another one today, the file is
made again. Files are replaced whole and follow from their inputs alone, so any number of processes may do this."""

import hashlib
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Final

import polars as pl

from odin_core.lake import Lake, PartitionUnreadable, write_parquet

INPUTS_MARK: Final = "odin.inputs"  # key in a file's metadata


def derived(lake: Lake, table: str, session: date, mark: str, make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """The table's partition, made and stored unless it is current. `mark` is of before the inputs are read, so that a
    change meanwhile is seen the next time. Raises PartitionUnreadable."""
    if is_current(lake, table, session, mark):
        return lake.read(table, session)
    frame = make()
    store(lake, table, session, frame, mark)
    return frame


def is_current(lake: Lake, table: str, session: date, mark: str) -> bool:
    """Whether the table's partition is there and was made from what `mark` says. Raises PartitionUnreadable."""
    path = lake.path(table, session)
    if not path.is_file():
        return False
    try:
        return pl.read_parquet_metadata(path).get(INPUTS_MARK) == mark
    except (pl.exceptions.ComputeError, OSError) as error:
        raise PartitionUnreadable(path, str(error).splitlines()[0]) from error


def store(lake: Lake, table: str, session: date, frame: pl.DataFrame, mark: str) -> None:
    """Write a partition whole or not at all, with its mark."""
    write_parquet(frame, lake.path(table, session), {INPUTS_MARK: mark})


def mark_of(parts: Iterable[str]) -> str:
    """Sixteen hex digits of what a partition follows from."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def files_of(lake: Lake, tables: Iterable[str], sessions: Iterable[date]) -> list[str]:
    """Each file of the tables and sessions by size and time; for `mark_of`."""
    every = list(sessions)
    return [f"{session}:{status_of(lake.path(table, session))}" for table in tables for session in every]


def status_of(path: Path) -> str:
    """A file's size and time; "none" where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return "none"
    return f"{status.st_size}:{status.st_mtime_ns}"
