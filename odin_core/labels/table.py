"""The table of labels in the lake: every label of a market, in the session in which it became known.

One row per symbol, decided_at, interval and label (`grids.LABELS`). (symbol, decided_at) are the symbol and known_at of
the bar that was decided at, so labels join features of that interval by them. Partition D holds the labels whose
`label_end` lies in D: what was known at its close, from bars and actions of D and of HISTORY − 1 sessions before."""

import hashlib
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from odin_core.labels import grids, kernels, sessions
from odin_core.labels.grids import HISTORY, labels_of
from odin_core.labels.sessions import LONGEST
from odin_core.lake import PartitionUnreadable, write_parquet
from odin_core.market.bars import MINUTE_TABLE, table_of
from odin_core.market.history import larger_intervals

if TYPE_CHECKING:
    from odin_core.market.data import MarketData

INPUTS_MARK: Final = "odin.inputs"  # key in a partition's metadata: which files it was computed from


def labels_at(data: "MarketData", session: date) -> pl.DataFrame:
    """Labels that became known in `session`, `labels_of` after the close before it up to its own close: from the lake
    if their inputs are unchanged, else computed and stored. Raises NotASession and PartitionUnreadable."""
    close = data.calendar.hours(session).close
    earliest = min(max(data.profile.first_partition, data.calendar.first), session)
    history = data.calendar.sessions(earliest, session)[-HISTORY:]
    for day in history:
        if not data.lake.has(MINUTE_TABLE, day):
            data.bars(day)  # a synthetic market makes them now, so that the mark sees their files
    table, mark = labels_table(), _inputs_mark(data, history)
    path = data.lake.path(table, session)
    if path.is_file() and _mark_of(path) == mark:
        return data.lake.read(table, session)
    minutes = data.read(None, history[-1 - LONGEST :][0], session, as_of=close)
    days = data.read(None, history[0], session, "day", as_of=close)
    hours = [data.calendar.hours(day) for day in history]
    since = hours[-2].close if len(hours) > 1 else hours[0].open
    frame = labels_of(minutes, days, hours, since=since, as_of=close, actions=data.actions.rows)
    write_parquet(frame, path, {INPUTS_MARK: mark})
    return frame


def labels_table() -> str:
    """The lake's table of labels of this version."""
    return f"labels_{labels_version()}"


@lru_cache(maxsize=1)
def labels_version() -> str:
    """Twelve hex digits that change with the text of any definition. Rows of different versions are not comparable."""
    modules = (grids, kernels, sessions)
    text = "\0".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _inputs_mark(data: "MarketData", history: Sequence[date]) -> str:
    """Which files of bars, of which size and time, and which corporate actions the labels follow from."""
    tables = [MINUTE_TABLE, *(table_of(interval) for interval in larger_intervals(data.lake))]
    parts = []
    for table in tables:
        for session in history:
            path = data.lake.path(table, session)
            if path.is_file():
                status = path.stat()
                parts.append(f"{table} {session}:{status.st_size}:{status.st_mtime_ns}")
    hours = data.calendar.hours
    return ";".join([*parts, str(history[0]), data.actions.mark(hours(history[0]).open, hours(history[-1]).close)])


def _mark_of(path: Path) -> str | None:
    try:
        return pl.read_parquet_metadata(path).get(INPUTS_MARK)
    except (pl.exceptions.ComputeError, OSError) as error:
        raise PartitionUnreadable(path, str(error).splitlines()[0]) from error
