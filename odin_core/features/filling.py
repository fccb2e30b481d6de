"""The values of one interval's features: all sessions of a range side by side, and those that looked otherwise anew.

Most sessions are computed together, on raw bars that lie side by side. A session in whose look-back an ex-date lies, or
a bar that came late, is computed again by itself, on bars as they looked then."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.features.catalogue import Feature
from odin_core.features.intervals import IntervalRows
from odin_core.features.panel import Panel
from odin_core.features.series import FIELDS, Bars, FloatArray, IntArray, MovedCloses, Runs, compiled
from odin_core.market.bars import UTC
from odin_core.market.calendar import Hours, MovedClose
from odin_core.market.reference import actions as corporate

Matrix: TypeAlias = NDArray[np.float32]
Column: TypeAlias = NDArray[np.float32]

SESSIONS_MISSED: Final = 2
"""How many sessions a symbol may miss, within those that N bars take up, and still have a value."""
CHUNK: Final = 1 << 15  # rows that one task works on, so that its columns stay in a core's cache


@dataclass(frozen=True)
class Span:
    """Sessions of the calendar that bars are given for, oldest first, as hours; rows are wanted of those from
    `first_wanted` on. `per_session`: how many bars of each interval a usual session has. `moved_closes`: by the place
    of a session in `hours`, where its close was moved after its open."""

    hours: Sequence[Hours]
    first_wanted: int
    per_session: Mapping[str, int]
    moved_closes: Mapping[int, MovedClose] = field(default_factory=dict)

    @cached_property
    def edges(self) -> tuple[IntArray, IntArray, MovedCloses]:
        """Opens and closes (sessions,), and the moved ones as in `Bars`, microseconds since 1970."""
        moved = {place: tuple(_instants(move).tolist()) for place, move in self.moved_closes.items()}
        return _instants(h.open for h in self.hours), _instants(h.close for h in self.hours), moved


def _instants(moments: Iterable[datetime]) -> IntArray:
    return pl.Series(list(moments), dtype=UTC).to_physical().to_numpy()


def sessions_before(feature: Feature, per_session: Mapping[str, int]) -> int:
    """How many sessions before its own are searched for a feature's N bars; none for what reads its own only."""
    inputs = max((sessions_before(f, per_session) for f in feature.inputs), default=0)
    if not feature.interval or not feature.bars:
        return inputs
    return max(inputs, math.ceil(feature.bars / per_session[feature.interval]) + SESSIONS_MISSED)


def fill(
    out: Sequence[Column],
    features: Sequence[Feature],
    rows: IntervalRows,
    span: Span,
    *,
    actions: pl.DataFrame,
    index: str | None,
    threads: int | None,
) -> None:
    """Write the features of one interval, inputs before what reads them, into `out`, one (wanted rows,) for each."""
    if not len(rows):
        return
    of_bars = [(column, f) for column, f in zip(out, features, strict=True) if f.definition.kind == "bars"]
    plans = [(column, f, _runs(rows, f, span)) for column, f in of_bars]
    chunks = _chunks(rows.bars.symbol)

    def work(chunk: slice) -> None:
        mine = slice(*np.searchsorted(rows.blocks.first, [chunk.start, chunk.stop]))
        at = rows.blocks.at[mine]
        bars, is_wanted = _part(rows.bars, chunk), at >= 0
        for column, feature, runs in plans:
            own = Runs(*(edge[mine][is_wanted] - chunk.start for edge in runs))
            _store(_values(feature, bars, own), own, feature.bars, at[is_wanted], column)

    if len(chunks) > 1 and threads != 1:
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            list(pool.map(work, chunks))
    else:
        for chunk in chunks:
            work(chunk)
    _mend(of_bars, rows, span, actions)
    late = rows.late[rows.wanted]
    if late.any():
        for column in out:
            column[late] = np.nan  # a row that there will not be counts in no cross-section
    place = {feature: column for column, feature in zip(out, features, strict=True)}
    of_panels = [f for f in features if f.definition.kind == "panel"]
    if of_panels:
        known_at, symbol = rows.bars.known_at[rows.wanted], rows.bars.symbol[rows.wanted]
        is_index = (symbol == rows.names.index(index)) & ~late if index in rows.names else np.zeros(len(late), np.bool_)
        for feature in of_panels:
            inputs = [place[f].astype(np.float64) for f in feature.inputs]
            place[feature][:] = across(feature, inputs, known_at, symbol, is_index)


def _runs(rows: IntervalRows, feature: Feature, span: Span) -> Runs:
    return rows.blocks.runs(rows.reach(sessions_before(feature, span.per_session)), feature.bars)


def _values(feature: Feature, bars: Bars, runs: Runs) -> FloatArray:
    return feature.definition.formula(bars, runs, *feature.parameters)


def _chunks(symbol: IntArray) -> list[slice]:
    """The rows in pieces of about CHUNK, no symbol divided."""
    edges = np.append(np.flatnonzero(np.diff(symbol, prepend=-1)), len(symbol))
    pieces, start = [], 0
    for edge in edges[1:].tolist():
        if edge - start >= CHUNK or edge == len(symbol):
            pieces.append(slice(start, edge))
            start = edge
    return pieces


def _part(bars: Bars, rows: slice) -> Bars:
    columns = {name: getattr(bars, name)[rows] for name in (*FIELDS, "ts", "known_at", "symbol", "session")}
    return replace(bars, **columns)


@compiled
def _store(values: FloatArray, runs: Runs, warm_up: int, at: IntArray, out: Column) -> None:
    """Round the wanted values to float32 and put them in their places; NaN what is not finite, or has fewer than
    `warm_up` bars before it."""
    for r in range(len(runs.first)):
        shift, ready = at[r] - runs.first[r], runs.start[r] + warm_up
        for i in range(runs.first[r], runs.end[r]):
            value = values[i]
            out[i + shift] = value if i >= ready and np.isfinite(value) else np.nan


def across(
    feature: Feature,
    inputs: Sequence[FloatArray],
    known_at: IntArray,
    symbol: IntArray,
    is_index: NDArray[np.bool_],
) -> FloatArray:
    """A feature of all symbols at once (rows,): rows are gathered by instant, and the values put back."""
    order = np.lexsort((symbol, known_at))
    starts = np.append(np.flatnonzero(np.diff(known_at[order], prepend=-1)), len(order))
    panel = Panel(values=tuple(values[order] for values in inputs), starts=starts, is_index=is_index[order])
    out = np.empty(len(order))
    out[order] = feature.definition.formula(panel, *feature.parameters)
    return out


def _mend(of_bars: Sequence[tuple[Column, Feature]], rows: IntervalRows, span: Span, actions: pl.DataFrame) -> None:
    """Compute again the sessions whose bars looked otherwise then: adjusted, renamed, or not all known. A row sees the
    actions, and the bars of sessions before, that were known at its own instant."""
    if actions.is_empty() and not rows.late.any():
        return
    look_back = max((sessions_before(f, span.per_session) for _, f in of_bars), default=0)
    for session in range(rows.wanted_from, len(span.hours)):
        first, close = max(session - look_back, 0), span.hours[session].close
        acted = corporate.as_of(actions, close).filter(pl.col("ex_at") > span.hours[first].open)
        is_late = rows.late & (rows.bars.session >= first) & (rows.bars.session <= session)
        names = {name for column in ("symbol", "other") for name in acted[column] if name is not None}
        names |= {rows.names[s] for s in np.unique(rows.bars.symbol[is_late])}
        if names.isdisjoint(rows.names):
            continue
        is_before = rows.bars.session < session
        out_of_it = (rows.bars.session < first) | (rows.bars.session > session) | (is_late & ~is_before)
        part = rows.ordered.with_columns(is_before=pl.Series(is_before))
        part = part.filter(~pl.Series(out_of_it), pl.col("symbol").is_in(names))
        arrived = [acted["known_at"], part.filter("is_before")["known_at"]]
        for moment in _moments(span.hours[session], arrived):
            known = part.filter(~pl.col("is_before") | (pl.col("known_at") <= moment)).drop("is_before")
            looked = corporate.looked(known, corporate.as_of(acted, moment))
            _compute_again(of_bars, IntervalRows.of(looked, *span.edges, session), rows, span, moment)


def _moments(hours: Hours, arrived: Iterable[pl.Series]) -> list[datetime]:
    """The open of a session, and when in it something became known of what was before it, ascending."""
    inside = (known_at.filter((known_at > hours.open) & (known_at <= hours.close)) for known_at in arrived)
    return sorted({hours.open, *(moment for moments in inside for moment in moments.unique())})


def _compute_again(
    of_bars: Sequence[tuple[Column, Feature]],
    again: IntervalRows,
    rows: IntervalRows,
    span: Span,
    since: datetime,
) -> None:
    """Replace the values of the wanted rows of `again`, one session of some of the symbols, from a moment on."""
    is_own = again.blocks.at >= 0
    is_new = again.bars.known_at[again.wanted] >= _instants([since])[0]
    places = _places(again, rows)[is_new]
    for column, feature in of_bars:
        runs = Runs(*(edge[is_own] for edge in _runs(again, feature, span)))
        fresh = np.empty(len(again), np.float32)
        _store(_values(feature, again.bars, runs), runs, feature.bars, again.blocks.at[is_own], fresh)
        column[places] = fresh[is_new]


def _places(again: IntervalRows, rows: IntervalRows) -> IntArray:
    """Where each wanted row of `again`, one session of some of the symbols, lies among the wanted rows of `rows`."""
    at = rows.keys.with_row_index("at").filter(~pl.Series(rows.late[rows.wanted]))
    found = again.keys.join(at, on=["symbol", "known_at"], how="left", maintain_order="left")
    return found["at"].to_numpy().astype(np.int64)
