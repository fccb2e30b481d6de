"""The table of labels in the lake: every label of a market, in the session in which it became known.

One row per symbol, decided_at, interval and label (`grids.LABELS`). (symbol, decided_at) are the symbol and known_at of
the bar that was decided at, so labels join features of that interval by them. Partition D holds the labels whose
`label_end` lies in D: what was known at its close, from bars and actions of D and of HISTORY − 1 sessions before."""

from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING

import polars as pl

from odin_core.labels import grids, kernels, sessions
from odin_core.labels.grids import HISTORY, labels_of
from odin_core.labels.sessions import LONGEST
from odin_core.market.derived import derived, mark_of_bars, version_of

if TYPE_CHECKING:
    from odin_core.market.data import MarketData


def labels_at(data: "MarketData", session: date) -> pl.DataFrame:
    """Labels that became known in `session`, `labels_of` after the close before it up to its own close: from the lake
    if their inputs are unchanged, else computed and stored. Raises NotASession and PartitionUnreadable."""
    data.calendar.require(session)
    earliest = min(max(data.profile.first_partition, data.calendar.first), session)
    history = data.calendar.sessions(earliest, session)[-HISTORY:]
    data.generate(history)
    return derived(data.lake, labels_table(), session, mark_of_bars(data, history), lambda: _made(data, history))


def _made(data: "MarketData", history: Sequence[date]) -> pl.DataFrame:
    minutes, days = (
        pl.concat(data.bars_of(session, interval) for session in sessions_read)
        for interval, sessions_read in (("1m", history[-1 - LONGEST :]), ("day", history))
    )
    hours = [data.calendar.hours(day) for day in history]
    since = hours[-2].close if len(hours) > 1 else hours[0].open
    return labels_of(minutes, days, hours, since=since, as_of=hours[-1].close, actions=data.actions.rows)


def labels_table() -> str:
    """The lake's table of labels of this version."""
    return f"labels_{labels_version()}"


@lru_cache(maxsize=1)
def labels_version() -> str:
    """Twelve hex digits that change with the text of any definition. Rows of different versions are not comparable."""
    return version_of(grids, kernels, sessions)
