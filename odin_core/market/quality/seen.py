"""One session's bars as they are assessed: arrays, what is known from earlier sessions, and what a finding is.

The numbers come from `quality.measures`; rules about them are in `quality.defects` (the session by
itself) and `quality.continuity` (against earlier sessions, corporate actions and the other symbols)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from odin_core.market.quality.measures import Coverage, Floats, Grid, Ints, Moves, Rows, Runs, coverage, levels, moves

Severity = Literal["info", "warning", "error"]
WHOLE = "*"  # the symbol of a finding about the session as a whole

LEVEL = 1.8  # a step of the price from one bar to the next that asks which side is right
SAME_LEVEL = 1.4  # prices within this ratio are at one level
MEMORY = timedelta(days=10)  # a close is compared with for so long; over more time prices may really move that far


class Finding(NamedTuple):
    symbol: str
    rule: str
    severity: Severity
    times: int
    detail: str


class Known(NamedTuple):
    """What an earlier session tells about a symbol. Prices are raw; `volume` is the mean over bars that have any."""

    session: date
    open: float
    close: float
    volume: float
    turnover: float  # sum of close times volume
    bars: int
    mark: tuple[float, ...]  # sums of open, high, low, close and volume: equal for equal bars
    tail: int  # bars from its last gap to the close; 0 where the last bar is earlier or there is no gap


class Action(NamedTuple):
    """A corporate action that takes effect in the session, or after the session before it that has bars."""

    kind: str
    ratio: float | None  # new shares for each old one
    amount: float | None  # cash per share
    known: bool  # by the session's close

    @property
    def price_factor(self) -> float | None:
        """By what raw prices are multiplied on the ex-date; None where the action does not say."""
        return 1 / self.ratio if self.kind in ("split", "bonus") and self.ratio else None


class Level(NamedTuple):
    """A run of bars at a level that is not the symbol's. `reference`: what it was compared with."""

    symbol: int
    first: int
    length: int
    ratio: float
    reference: str


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One session's bars as they are assessed, with what is known besides."""

    session: date
    rows: Rows
    grid: Grid
    interval: str
    minutes: int | None  # of a bar; None for one bar a session
    before: Mapping[str, Known] = field(default_factory=dict)
    actions: Mapping[str, Sequence[tuple[date, Action]]] = field(default_factory=dict)  # symbol: ex-date and action
    is_option: Callable[[str], bool] = lambda symbol: False

    @cached_property
    def coverage(self) -> Coverage:
        return coverage(self.rows, self.grid)

    @cached_property
    def moves(self) -> Moves:
        return moves(self.rows)

    @cached_property
    def levels(self) -> list[Level]:
        return _wrong_levels(self)

    def each(self, counts: Ints) -> Iterator[tuple[int, str, int]]:
        """Position, name and count of the symbols whose count is above zero."""
        for at in np.flatnonzero(counts > 0).tolist():
            yield at, self.rows.symbols[at], int(counts[at])

    def clock(self, instants: Ints, at: int | np.integer[Any]) -> str:
        return f"{datetime.fromtimestamp(int(instants[at]) / 1_000_000, UTC):%H:%M} UTC"

    @cached_property
    def known(self) -> dict[str, Known]:
        return _summaries(self)


def _wrong_levels(seen: Seen) -> list[Level]:
    """The right level is the one of the close before; where there is none, the one that most bars have."""
    runs: Runs = levels(seen.rows, LEVEL)
    if len(runs.first) == len(seen.rows.symbols):
        return []
    found = []
    for at in np.flatnonzero(np.bincount(runs.symbol) > 1).tolist():
        symbol = seen.rows.symbols[at]
        if seen.is_option(symbol):
            continue
        mine = np.flatnonzero(runs.symbol == at)
        spans = [(int(runs.first[i]), int(runs.length[i])) for i in mine]
        prices = np.array([float(np.median(seen.rows.close[first : first + n])) for first, n in spans])
        right, reference = _right_level(seen.before.get(symbol), prices, np.array([n for _, n in spans]))
        for (first, length), price in zip(spans, prices.tolist(), strict=True):
            if apart(price, right) > SAME_LEVEL:
                found.append(Level(at, first, length, price / right, reference))
    return found


def _right_level(known: Known | None, prices: Floats, lengths: Ints) -> tuple[float, str]:
    if known is not None:
        near = [price for price in (known.close, known.open) if min(apart(p, price) for p in prices) <= SAME_LEVEL]
        if near:
            return near[0], "the session before"
    return float(prices[lengths.argmax()]), "most of the session"


def apart(price: float, other: float) -> float:
    """How far two prices are apart, as a ratio of at least 1; infinite where one is not positive."""
    return max(price / other, other / price) if price > 0 and other > 0 else float("inf")


def _summaries(seen: Seen) -> dict[str, Known]:
    """What the session leaves for later ones: nothing but its bars enters, so it is the same whoever asks."""
    r, g = seen.rows, seen.grid
    last = r.first + r.count - 1
    has_volume = r.volume > 0
    traded = np.where(has_volume, r.volume, 0.0)
    marks = [np.add.reduceat(x, r.first).tolist() for x in (r.open, r.high, r.low, r.close, traded)]
    volume = np.array(marks[-1]) / np.maximum(r.sums(has_volume), 1)
    place = np.arange(len(r.ts))
    breaks = r.is_first | (np.diff(r.slot, prepend=r.slot[0]) > 1)
    since = place - np.maximum.accumulate(np.where(breaks, place, 0)) + 1
    to_close = g.expected[np.minimum(r.slot[last] + 1, len(g.trades))] == g.total
    from_open = g.expected[r.slot[last - since[last] + 1]] == 0
    tail = np.where(to_close & ~from_open, since[last], 0)
    turnover = np.add.reduceat(r.close * traded, r.first)
    columns = (r.open[r.first], r.close[last], volume, turnover, r.count)
    values = zip(*(c.tolist() for c in columns), zip(*marks, strict=True), tail.tolist(), strict=True)
    return {symbol: Known(seen.session, *row) for symbol, row in zip(r.symbols, values, strict=True)}


def actions_in(actions: pl.DataFrame | None, session: date, close_at: datetime) -> dict[str, list[tuple[date, Action]]]:
    """By symbol, what takes effect on a date within MEMORY up to the session."""
    found: dict[str, list[tuple[date, Action]]] = {}
    if actions is None:
        return found
    recent = actions.filter(pl.col("ex_date").is_between(session - MEMORY, session))
    columns = ("symbol", "ex_date", "kind", "ratio", "amount", "known_at")
    for symbol, ex_date, kind, ratio, amount, known_at in recent.select(columns).sort(columns).iter_rows():
        found.setdefault(symbol, []).append((ex_date, Action(kind, ratio, amount, known_at <= close_at)))
    return found
