"""What can be counted about the bars of one session, by symbol. What the numbers mean is `quality.defects`.

All of it is numpy over rows sorted by symbol and time: a session has many short columns, and an assessment may take no
longer than reading the session's file. Instants are microseconds since 1970 UTC; ratios of prices are at least 1."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.market.bars import KEY, MICROSECOND, MINUTE

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NEIGHBOURS = 5  # bars that are at most this many slots apart are compared with each other


class Grid(NamedTuple):
    """The bars that a session should have: `slots` stretches of `step` from the open on, halts left out."""

    open_at: int
    close_at: int
    step: int
    trades: Bools  # shape (slots,): whether the slot lies outside every halt
    expected: Ints  # shape (slots + 1,): bars expected before each slot, and in all

    @property
    def begins(self) -> Ints:
        return self.open_at + self.step * np.arange(len(self.trades))

    @property
    def total(self) -> int:
        return int(self.expected[-1])

    def slot(self, instants: Ints) -> Ints:
        """The slot that each instant lies in, cut at both ends: 0 to slots."""
        apart = (instants - self.open_at) / self.step  # exact enough: microseconds of a session are far below 2**53
        return np.clip(apart.astype(np.int64), 0, len(self.trades))


def session_grid(
    open_at: datetime, close_at: datetime, minutes: int | None, halts: Iterable[tuple[datetime, datetime]] = ()
) -> Grid:
    """The grid of bars of `minutes` each, or of one bar for the whole session (None). A slot is left out where a halt
    covers all of it."""
    start, end = _instant(open_at), _instant(close_at)
    step = end - start if minutes is None else minutes * (MINUTE // MICROSECOND)
    begins = np.arange(start, end, step)
    trades = np.ones(len(begins), dtype=np.bool_)
    for halted_from, halted_to in halts:
        trades &= (begins < _instant(halted_from)) | (np.minimum(begins + step, end) > _instant(halted_to))
    return Grid(start, end, step, trades, np.concatenate(([0], np.cumsum(trades))))


def _instant(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One session's bars as arrays of shape (rows,), sorted by symbol and ts; a null is NaN.
    `first`, `count`: shape (symbols,), where each symbol's rows begin and how many there are."""

    symbols: list[str]
    first: Ints
    count: Ints
    ts: Ints
    known_at: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    oi: Floats
    slot: Ints
    is_first: Bools  # of its symbol
    is_last: Bools

    def sums(self, of: npt.NDArray[np.generic]) -> Ints:
        """By symbol, how many rows a mask marks."""
        return np.add.reduceat(of, self.first, dtype=np.int64)

    def before(self, values: Floats) -> Floats:
        """The value one row earlier; of a symbol's first row that row's own."""
        shifted = np.empty_like(values)
        shifted[0], shifted[1:] = values[0], values[:-1]
        return np.where(self.is_first, values, shifted)

    def table(self, values: Floats) -> Floats:
        """The values as one line per symbol, shape (symbols, largest count), filled up with infinity."""
        width = int(self.count.max())
        lines = np.full((len(self.first), width), np.inf)
        lines[np.arange(width) < self.count[:, None]] = values
        return lines


def rows_of(bars: pl.DataFrame, grid: Grid) -> Rows:
    """Bars (BARS) of one session as arrays; sorted first where they are not. There must be one at least."""
    symbol, ts = bars["symbol"], bars["ts"].to_numpy().view(np.int64)
    is_first, is_last = np.ones((2, bars.height), dtype=np.bool_)
    is_first[1:] = (symbol.slice(1) != symbol.slice(0, bars.height - 1)).to_numpy()
    is_last[:-1] = is_first[1:]
    first = np.flatnonzero(is_first)
    symbols: list[str] = symbol[first].to_list()
    falls = (ts[1:] < ts[:-1]) & ~is_first[1:]
    if falls.any() or any(a >= b for a, b in pairwise(symbols)):
        return rows_of(bars.sort(KEY, maintain_order=True), grid)
    return Rows(
        symbols=symbols,
        first=first,
        count=np.diff(np.append(first, bars.height)),
        ts=ts,
        known_at=bars["known_at"].to_numpy().view(np.int64),
        slot=grid.slot(ts),
        is_first=is_first,
        is_last=is_last,
        **{name: bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume", "oi")},
    )


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """By symbol, shape (symbols,). Gaps are counted in bars that the grid expects, so a halt is none.
    `repeated`: rows that share their time with the one before. `longest_from`: instant where the longest gap begins."""

    inside: Ints  # rows within the session's hours
    halted: Ints  # rows within a halt
    repeated: Ints
    missing: Ints
    at_start: Ints
    at_end: Ints
    longest_between: Ints  # the longest gap that lies between two bars
    longest: Ints
    longest_from: Ints
    closest: Ints  # smallest distance of two bars, in slots; 0 where a symbol has one bar


def coverage(rows: Rows, grid: Grid) -> Coverage:
    inside = (rows.ts >= grid.open_at) & (rows.ts < grid.close_at)
    trades = np.append(grid.trades, False)[rows.slot]
    slots_before = np.append(0, rows.slot[:-1])
    repeated = (rows.ts == np.append(rows.ts[:1], rows.ts[:-1])) & ~rows.is_first
    after = np.minimum(rows.slot + 1, len(grid.trades))
    gap = grid.expected[rows.slot] - grid.expected[np.where(rows.is_first, 0, np.append(0, after[:-1]))]
    gap = np.maximum(gap, 0)
    last = rows.first + rows.count - 1
    at_start, at_end = gap[rows.first], grid.total - grid.expected[after[last]]
    between = np.where(rows.is_first, 0, gap)
    longest_before = np.maximum.reduceat(gap, rows.first)
    is_at_end = at_end > longest_before
    begins = np.where(rows.is_first, grid.open_at, np.append(0, rows.known_at[:-1]))
    where = _first_of(gap == np.repeat(longest_before, rows.count), rows)
    distance = np.where(rows.is_first, len(grid.trades) + 1, rows.slot - slots_before)
    return Coverage(
        inside=rows.sums(inside),
        halted=rows.sums(inside & ~trades),
        repeated=rows.sums(repeated),
        missing=grid.total - rows.sums(inside & trades & ~repeated),
        at_start=at_start,
        at_end=at_end,
        longest_between=np.maximum.reduceat(between, rows.first),
        longest=np.maximum(longest_before, at_end),
        longest_from=np.where(is_at_end, rows.known_at[last], begins[where]),
        closest=np.where(rows.count > 1, np.minimum.reduceat(distance, rows.first), 0),
    )


def uncovered(rows: Rows, grid: Grid) -> tuple[int, int, int]:
    """Slots in which no symbol has a bar: how many, the longest run of them and its first slot."""
    covered = np.zeros(len(grid.trades) + 1, dtype=np.bool_)
    covered[rows.slot[rows.ts >= grid.open_at]] = True
    holes = grid.trades & ~covered[:-1]
    if not holes.any():
        return 0, 0, 0
    edges = np.flatnonzero(np.diff(np.concatenate(([False], holes, [False]))))
    lengths = edges[1::2] - edges[::2]
    longest = int(lengths.argmax())
    return int(holes.sum()), int(lengths[longest]), int(edges[2 * longest])


@dataclass(frozen=True, kw_only=True)
class Moves:
    """True ranges: max(high, close before) / min(low, close before), by row and their median by symbol."""

    ratio: Floats  # shape (rows,)
    median: Floats  # shape (symbols,)
    largest: Ints  # row of each symbol's largest


def moves(rows: Rows) -> Moves:
    before = rows.before(rows.close)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.maximum(rows.high, before) / np.minimum(rows.low, before)
    ratio = np.where((ratio >= 1) & np.isfinite(ratio), ratio, 1.0)
    largest = np.maximum.reduceat(ratio, rows.first)
    where = _first_of(ratio == np.repeat(largest, rows.count), rows)
    return Moves(ratio=ratio, median=_medians(rows, ratio), largest=where)


def excursions(rows: Rows) -> Floats:
    """By row, how far the bar alone goes beyond both of its neighbours, as a ratio: high over their higher high, or
    their lower low over its low. 1 for a symbol's first and last bar and where a neighbour is too far away in time."""
    if len(rows.ts) < 3:
        return np.ones(len(rows.ts))
    inner = slice(1, -1)
    apart = np.diff(rows.slot) > NEIGHBOURS
    alone = rows.is_first[inner] | rows.is_last[inner] | apart[:-1] | apart[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        above = rows.high[inner] / np.maximum(rows.high[:-2], rows.high[2:])
        below = np.minimum(rows.low[:-2], rows.low[2:]) / rows.low[inner]
    beyond = np.maximum(above, below)
    result = np.ones(len(rows.ts))
    result[inner] = np.where(alone | ~np.isfinite(beyond), 1.0, np.maximum(beyond, 1.0))
    return result


class Runs(NamedTuple):
    """Stretches of rows of one symbol: where each begins, how long it is, the symbol's position."""

    first: Ints
    length: Ints
    symbol: Ints


def still_runs(rows: Rows, at_least: int) -> Runs:
    """Runs of bars that repeat every price of the one before, without new volume (null, 0, or the same again)."""
    same = ~rows.is_first
    for values in (rows.open, rows.high, rows.low, rows.close):
        same &= values == np.append(np.nan, values[:-1])
    same &= np.isnan(rows.volume) | (rows.volume == 0) | (rows.volume == np.append(np.nan, rows.volume[:-1]))
    return _runs(rows, np.flatnonzero(~same), at_least)


def unbroken_runs(rows: Rows) -> Runs:
    """Runs of bars without a gap between them."""
    return _runs(rows, np.flatnonzero(rows.is_first | (np.diff(rows.slot, prepend=rows.slot[0]) > 1)), 1)


def levels(rows: Rows, ratio: float) -> Runs:
    """Runs of bars between two of which the price steps by more than `ratio`: from the close before to the open, or
    from close to close. One run per symbol where there is no such step."""
    before = rows.before(rows.close)
    is_step = rows.is_first.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        for step in (np.where(rows.is_first, 1.0, rows.open / before), rows.close / before):
            is_step |= (step > ratio) | (step < 1 / ratio)
    return _runs(rows, np.flatnonzero(is_step), 1)


def _runs(rows: Rows, starts: Ints, at_least: int) -> Runs:
    lengths = np.diff(np.append(starts, len(rows.ts)))
    long = lengths >= at_least
    first = starts[long]
    return Runs(first, lengths[long], np.searchsorted(rows.first, first, side="right") - 1)


def _medians(rows: Rows, values: Floats) -> Floats:
    """By symbol; of an even number of values the mean of the two in the middle."""
    lines = np.sort(rows.table(values), axis=1)
    at = np.arange(len(rows.first))
    return (lines[at, (rows.count - 1) // 2] + lines[at, rows.count // 2]) / 2


def _first_of(marked: Bools, rows: Rows) -> Ints:
    """By symbol, the first marked row; each symbol must have one."""
    at = np.flatnonzero(marked)
    return at[np.searchsorted(at, rows.first)]


class Lag(NamedTuple):
    """The delay at which a symbol's returns resemble the mean of the others best: positive, it runs behind them."""

    symbol: int
    slots: int
    correlation: float
    returns: int  # that enter it, at most


def lags_behind_others(rows: Rows, grid: Grid, in_step: float, at_least: int) -> Iterator[Lag]:
    """Delays of those symbols whose correlation without delay is below `in_step`, of at least so many returns.

    Returns are from slot to slot, each cut at three times its symbol's mean size, in units of that size; the mean of
    the others leaves the symbol itself out. All delays are tried at once (correlation theorem)."""
    returns = _returns(rows, grid)
    total = returns.sum(axis=0)
    others = total - returns
    norm = np.sqrt((returns**2).sum(axis=1) * (others**2).sum(axis=1))
    counts = (returns != 0).sum(axis=1)
    at_zero = (returns * others).sum(axis=1) / np.where(norm > 0, norm, np.inf)
    suspects = np.flatnonzero((at_zero < in_step) & (counts >= at_least) & (norm > 0))
    if not len(suspects):
        return
    length = 2 * returns.shape[1]
    spectra = np.fft.rfft(returns[suspects], length)
    by_delay = np.fft.irfft(spectra * np.conj(np.fft.rfft(total, length) - spectra), length)
    best = by_delay.argmax(axis=1)
    delays = np.where(2 * best < length, best, best - length)
    found = by_delay[np.arange(len(suspects)), best] / norm[suspects]
    yield from map(Lag, suspects.tolist(), delays.tolist(), found.tolist(), counts[suspects].tolist())


def _returns(rows: Rows, grid: Grid) -> Floats:
    """Shape (symbols, slots): 0 where the slot or the one before it has no bar."""
    width = len(grid.trades) + 1
    returns = np.zeros(len(rows.first) * width)
    follows = np.flatnonzero((np.diff(rows.slot) == 1) & ~rows.is_first[1:]) + 1
    line = np.repeat(np.arange(len(rows.first)) * width, rows.count)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = rows.close[follows] / rows.close[follows - 1] - 1
    returns[line[follows] + rows.slot[follows]] = np.where(np.isfinite(change), change, 0.0)
    lines = returns.reshape(-1, width)[:, :-1]
    limit = 3 * np.abs(lines).mean(axis=1, keepdims=True)
    return np.clip(lines / np.where(limit > 0, limit, 1.0), -1, 1)
