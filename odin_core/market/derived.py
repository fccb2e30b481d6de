"""Tables that follow from others: read where they are current, else made and stored.

A derived file carries in its metadata a mark of what it was made from. Where the mark is another one today, the file is
made again. Files are replaced whole and follow from their inputs alone, so any number of processes may do this."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

import polars as pl

from odin_core.lake import Lake, PartitionUnreadable, write_parquet
from odin_core.market.bars import MINUTE_TABLE, table_of
from odin_core.market.history import larger_intervals

if TYPE_CHECKING:
    from odin_core.market.data import MarketData

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


def mark_of_bars(data: "MarketData", history: Sequence[date]) -> str:
    """What a partition follows from that reads the bars of these sessions, ascending, and the corporate actions known
    at the last one's close."""
    tables = [MINUTE_TABLE, *map(table_of, larger_intervals(data.lake))]
    hours = [data.calendar.hours(session) for session in history]
    acted = data.actions.mark(hours[0].open, hours[-1].close)
    return mark_of([*files_of(data.lake, tables, history), *map(str, hours), acted])


def version_of(*modules: ModuleType) -> str:
    """Twelve hex digits that change with the text of any of these modules."""
    text = "\0".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def status_of(path: Path) -> str:
    """A file's size and time; "none" where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return "none"
    return f"{status.st_size}:{status.st_mtime_ns}"
