"""The bars of one interval, ready for formulas: which rows are wanted, and which a session's values may read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.features.series import Bars, IntArray, MovedCloses, Runs, compiled

Mask: TypeAlias = NDArray[np.bool_]


class Blocks(NamedTuple):
    """One entry per session of a symbol that has bars: int64 arrays (blocks,), by symbol and session. Rows
    [first, end) of the bars; `at` is the first of the block's places among the wanted rows."""

    symbol: IntArray
    session: IntArray
    first: IntArray
    end: IntArray
    at: IntArray

    def runs(self, reach: IntArray, warm_up: int) -> Runs:
        """Runs of these blocks that begin `warm_up` rows before them, but not before rows `reach` (blocks,)."""
        return Runs(np.maximum(self.first - warm_up, reach), self.first, self.end)


@dataclass(frozen=True)
class IntervalRows:
    """Bars of one interval, and which of their sessions' rows are wanted: those of sessions from `wanted_from` on.

    names: the symbols, ascending; ordered: the bars as a frame, sorted by symbol and ts."""

    bars: Bars
    names: Sequence[str]
    ordered: pl.DataFrame
    wanted_from: int

    @classmethod
    def of(
        cls,
        frame: pl.DataFrame,
        opens: IntArray,
        closes: IntArray,
        moved_closes: MovedCloses,
        wanted_from: int,
    ) -> "IntervalRows":
        """Out of BARS in any order, all inside the sessions."""
        ordered = frame if _is_ordered(frame) else frame.sort("symbol", "ts")
        bars = Bars.of(ordered, opens, closes, moved_closes)
        return cls(bars, ordered["symbol"].rle().struct.field("value").to_list(), ordered, wanted_from)

    @cached_property
    def blocks(self) -> Blocks:
        """All sessions of all symbols, wanted or not; `at` is -1 where not wanted."""
        symbol, session = self.bars.symbol, self.bars.session
        new = np.ones(len(symbol), np.bool_)
        new[1:] = (symbol[1:] != symbol[:-1]) | (session[1:] != session[:-1])
        first = np.flatnonzero(new)
        end = np.append(first[1:], len(symbol))
        is_wanted = session[first] >= self.wanted_from
        counted = np.where(is_wanted, end - first, 0)
        at = np.where(is_wanted, np.cumsum(counted) - counted, -1)
        return Blocks(symbol[first], session[first], first, end, at)

    @cached_property
    def wanted(self) -> Mask:
        return self.bars.session >= self.wanted_from

    def __len__(self) -> int:
        """How many rows are wanted."""
        return int(self.wanted.sum())

    def reach(self, sessions: int) -> IntArray:
        """(blocks,) the first row of each block's symbol that lies at most so many sessions before the block's own."""
        blocks, count = self.blocks, len(self.bars.opens)
        key = blocks.symbol * count + blocks.session
        earliest = blocks.symbol * count + np.maximum(blocks.session - sessions, 0)
        return blocks.first[np.searchsorted(key, earliest)]

    @cached_property
    def late(self) -> Mask:
        """(rows,) bars that were not known before the next ones of their session, or by its close."""
        return _late(self.bars.known_at, self.bars.symbol, self.bars.session, self.bars.closes)

    @cached_property
    def keys(self) -> pl.DataFrame:
        """symbol, known_at and session (place of the session) of the wanted rows."""
        keys = self.ordered.select("symbol", "known_at").with_columns(session=pl.Series(self.bars.session))
        return keys if self.wanted.all() else keys.filter(pl.Series(self.wanted))

    def latest_at(self, target: "IntervalRows", renames: pl.DataFrame) -> IntArray:
        """For each wanted row of `target` the place among the wanted rows here of the last bar of its symbol that was
        known, of the same session or the one before; -1 for none. In a session at whose open a symbol got its name,
        the one before is that of its name until then. renames: EFFECTIVE."""
        edges = np.searchsorted(self.bars.symbol[self.wanted], np.arange(len(self.names) + 1))
        place = {name: i for i, name in enumerate(self.names)}
        mine = np.array([place.get(name, -1) for name in target.names], np.int64)
        theirs, ours = target.bars, self.bars
        latest = _latest(
            theirs.known_at[target.wanted],
            theirs.session[target.wanted],
            np.where(target.late, -1, mine[theirs.symbol])[target.wanted] if len(mine) else np.empty(0, np.int64),
            ours.known_at[self.wanted],
            ours.session[self.wanted],
            self.late[self.wanted],
            edges,
        )
        for old, new, ex_at, known_at in renames.select("symbol", "other", "ex_at", "known_at").iter_rows():
            if new in target.names:
                self._take_over(latest, target, old, new, *pl.Series([ex_at, known_at]).to_physical())
        return latest

    def _take_over(
        self, latest: IntArray, target: "IntervalRows", old: str, new: str, ex_at: int, known_at: int
    ) -> None:
        """Let the rows of a new name, in the session that begins with it, see the old one's last bar before."""
        session = int(np.searchsorted(self.bars.opens, ex_at))
        of_session = self.bars.session[self.wanted]
        is_theirs = (target.bars.symbol == target.names.index(new)) & (target.bars.session == session)
        is_told = np.maximum(target.bars.known_at, ex_at) >= known_at
        rows = np.flatnonzero((is_theirs & is_told)[target.wanted])
        rows = rows[(latest[rows] < 0) | (of_session[latest[rows]] < session)]
        symbol = self.names.index(old) if old in self.names else -1
        known = (self.bars.symbol[self.wanted] == symbol) & (of_session == session - 1) & ~self.late[self.wanted]
        latest[rows] = max(np.flatnonzero(known), default=-1)


def _is_ordered(frame: pl.DataFrame) -> bool:
    runs = frame["symbol"].rle().struct.unnest()
    names, lengths = runs["value"], runs["len"].to_numpy().astype(np.int64)
    is_ascending = (names.slice(1) > names.head(max(len(names) - 1, 0))).all()
    return is_ascending and _ascends(frame["ts"].to_physical().to_numpy(), lengths)


@compiled
def _ascends(ts: IntArray, lengths: IntArray) -> bool:
    start = 0
    for length in lengths:
        for i in range(start + 1, start + length):
            if ts[i] <= ts[i - 1]:
                return False
        start += length
    return True


@compiled
def _late(known_at: IntArray, symbol: IntArray, session: IntArray, closes: IntArray) -> Mask:
    rows = len(known_at)
    out = np.zeros(rows, np.bool_)
    earliest = 0
    for i in range(rows - 1, -1, -1):
        if i == rows - 1 or symbol[i] != symbol[i + 1] or session[i] != session[i + 1]:
            earliest = closes[session[i]] + 1
        out[i] = known_at[i] >= earliest
        earliest = min(earliest, known_at[i])
    return out


@compiled
def _latest(
    at: IntArray,
    session: IntArray,
    symbol: IntArray,
    known_at: IntArray,
    of_session: IntArray,
    late: Mask,
    edges: IntArray,
) -> IntArray:
    out = np.full(len(at), -1, np.int64)
    before, row, best = -1, 0, -1
    for i in range(len(at)):
        if symbol[i] < 0:
            continue
        if symbol[i] != before:
            before, row, best = symbol[i], edges[symbol[i]], -1
        while row < edges[symbol[i] + 1] and (late[row] or known_at[row] <= at[i]):
            if not late[row]:
                best = row
            row += 1
        if best >= 0 and of_session[best] >= session[i] - 1:
            out[i] = best
    return out
