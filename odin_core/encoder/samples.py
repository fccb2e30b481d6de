"""What the encoder learns from: rows of features with their labels, out of a market's bars, and how they are divided.

A window is up to `length` rows of one symbol; its rows and labels never leave the samples that it was drawn from, so
two samples that share no row share nothing. Labels are computed in `targets`, the loop that learns is `training`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.encoder.targets import UNKNOWN, BarRows, RowTargets, row_targets
from odin_core.errors import OdinError
from odin_core.features.catalogue import features_of
from odin_core.features.series import FloatArray, IntArray
from odin_core.features.windows import BoolArray, Float32Array, SequenceWindows
from odin_core.market.bars import BARS, MICROSECOND
from odin_core.market.calendar import SessionCalendar
from odin_core.market.reference import actions as corporate

if TYPE_CHECKING:
    from odin_core.encoder.config import EncoderConfig
    from odin_core.market.data import MarketData

SET: Final = "sequence"
SHARES_OF_RANGE: Final = ("body", "upper_wick", "lower_wick")


class TooFewSessions(OdinError):
    def __init__(self, have: int, needed: int, embargo: int) -> None:
        super().__init__(
            f"samples of {have} sessions cannot be divided: training, an embargo of {embargo} and validation need "
            f"{needed} or more; bring more history, or lower validation_share or embargo"
        )


class NoUsableRows(OdinError):
    def __init__(self, what: str, never_known: Sequence[str]) -> None:
        of = f": {', '.join(never_known)} are known nowhere" if never_known else ""
        super().__init__(f"no row {what} has all its features{of}; bring more history before it")


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Rows of one interval, symbol after symbol, each symbol's ascending in time; arrays are not to be written to."""

    features: tuple[str, ...]
    symbols: tuple[str, ...]
    starts: IntArray
    """(symbols + 1,): where each symbol's rows begin"""
    session: IntArray
    """(rows,) ordinal day"""
    values: Float32Array
    """(rows, features), not scaled; 0 where not valid"""
    valid: BoolArray
    """(rows,): every feature of the row is known"""
    targets: RowTargets
    horizons: tuple[int, ...]
    """Bars ahead that the columns of `targets.returns` look"""
    turn_bars: int
    """Bars ahead that `targets.turns` looks"""
    length: int

    def __len__(self) -> int:
        return len(self.session)

    @cached_property
    def sessions(self) -> list[date]:
        """Ascending."""
        return [date.fromordinal(day) for day in np.unique(self.session).tolist()]

    @cached_property
    def end(self) -> IntArray:
        """(rows,): the row after the last one of each row's symbol."""
        return np.repeat(self.starts[1:], np.diff(self.starts))

    @cached_property
    def first(self) -> IntArray:
        """(rows,): the first row of each row's symbol."""
        return np.repeat(self.starts[:-1], np.diff(self.starts))

    def window_ends(self, step: int) -> IntArray:
        """Rows that a window may end with: every `step`-th row of a symbol, counted so that the end of its first full
        window is one (of a symbol with fewer rows, its last), if it is usable and so are at least half of the rows of
        the window up to it; where no symbol has `length` rows, half of the rows of the one that has most."""
        counted = np.concatenate([[0], np.cumsum(self.valid)])
        row = np.arange(len(self))
        usable = counted[row + 1] - counted[np.maximum(self.first, row + 1 - self.length)]
        longest = min(self.length, int(np.diff(self.starts).max(initial=0)))
        is_next = (row + 1 - self.first - np.minimum(self.length, self.end - self.first)) % step == 0
        return np.flatnonzero(is_next & self.valid & (usable >= max(longest // 2, 1)))

    @cached_property
    def tiles(self) -> IntArray:
        """Ends of windows that cover each row once, symbol after symbol from its newest row back."""
        ends = [np.arange(stop - 1, start - 1, -self.length) for start, stop in pairwise(self.starts)]
        return np.concatenate([np.empty(0, np.int64), *ends]).astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits of everything that can be learned here."""
        digest = hashlib.sha256(
            repr((self.features, self.symbols, self.horizons, self.turn_bars, self.length)).encode()
        )
        for array in (self.starts, self.session, self.values, self.valid, *self.targets):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def between(self, first: date, last: date) -> "Samples":
        """The rows of these sessions, both ends included. A label that follows from a row after them is unknown."""
        day = self.session
        kept = np.flatnonzero((day >= first.toordinal()) & (day <= last.toordinal()))
        starts = np.searchsorted(kept, self.starts)
        targets = self.targets.at(kept)
        part = replace(
            self,
            starts=starts,
            session=day[kept],
            values=self.values[kept],
            valid=self.valid[kept],
            targets=targets,
        )
        ahead = part.end - np.arange(len(kept))  # bars that are left, the row's own included
        returns = np.where(ahead[:, None] > np.array(self.horizons), targets.returns, np.float32(np.nan))
        turns = np.where(ahead > self.turn_bars, targets.turns, UNKNOWN)
        return replace(part, targets=targets._replace(returns=returns, turns=turns))


def split(samples: Samples, validation_share: float, embargo: int) -> tuple[Samples, Samples]:
    """Training and validation rows: the newest sessions, ⌈share · sessions⌉, validate; before them `embargo` sessions
    are left out, since features look back; what is earlier trains. No row is in both, and no label of the first
    follows from a row that is not its own. Raises TooFewSessions."""
    sessions = samples.sessions
    validation = max(1, int(np.ceil(validation_share * len(sessions))))
    training = len(sessions) - validation - embargo
    if training < 1:
        raise TooFewSessions(len(sessions), validation + embargo + 1, embargo)
    return (
        samples.between(sessions[0], sessions[training - 1]),
        samples.between(sessions[-validation], sessions[-1]),
    )


def masked_spans(rng: np.random.Generator, windows: int, length: int, share: float, span: int) -> BoolArray:
    """Which rows of each window are hidden: (windows, length). Time is divided into spans of `span` rows, at another
    phase in each window, and about `share` of the spans, drawn without repetition and at least one, are hidden; none
    where `share` is 0."""
    count = -(-length // span) + 1
    hidden = max(1, round(share * count)) if share else 0
    order = np.argsort(rng.random((windows, count)), axis=1)[:, :hidden]
    spans = np.zeros((windows, count), np.bool_)
    np.put_along_axis(spans, order, True, axis=1)
    phase = rng.integers(0, span, windows)
    return np.take_along_axis(spans, (np.arange(length) + phase[:, None]) // span, axis=1)


def window_rows(samples: Samples, ends: IntArray) -> tuple[IntArray, BoolArray]:
    """Of windows that end with the rows `ends` (windows,): their rows, (windows, length), and which of these there are.
    Where the symbol's rows begin later the window is padded on its left with rows that are not there, numbered 0."""
    rows = ends[:, None] + np.arange(1 - samples.length, 1)
    exists = rows >= samples.first[ends][:, None]
    return np.where(exists, rows, 0), exists


def market_samples(data: "MarketData", config: "EncoderConfig", through: date, first: date | None = None) -> Samples:
    """All rows of a market from session `first` (None: all there is) to the close of `through`, as known then: prices
    and names as they looked at that close, and nothing later. Raises NotASession, NoUsableRows and what
    `MarketData.features` and `read` raise."""
    close = data.calendar.hours(data.calendar.require(through)).close
    sessions = data.sessions(first, through)
    if not sessions:
        raise NoUsableRows(f"of {data.profile.name} up to {through}", ())
    frame = sequence_rows(data, sessions[0], through, config.interval, as_of=close)
    bars = data.actions.adjusted(data.read(None, sessions[0], through, config.interval, as_of=close), close)
    return samples_from(frame, bars, data.calendar, config, as_of=close)


def sequence_rows(data: "MarketData", first: date, last: date, interval: str, *, as_of: datetime) -> pl.DataFrame:
    """Features of the set `sequence` as `MarketData.features` gives them, each series under its name as of `as_of`.
    The shares of a bar that has no range are 0 here: it has no body and no wicks, which is known."""
    flat = [
        pl.when(pl.col(f"bar_range_{f.interval}") == 0.0).then(0.0).otherwise(f.name).cast(pl.Float32).alias(f.name)
        for f in features_of(SET)
        if f.definition.name in SHARES_OF_RANGE
    ]
    frame = data.features(None, interval, first, last, SET, as_of)
    # Where no night lies between, the bar before a rename ends at the very instant of it.
    frame = frame.with_columns(inside=pl.col("known_at") - MICROSECOND)
    renames = corporate.as_of(data.actions.rows, as_of).filter(pl.col("kind") == "rename")
    return corporate.under_last_name(frame, renames, "inside").drop("inside").with_columns(flat)


def samples_from(
    frame: pl.DataFrame, bars: pl.DataFrame, calendar: SessionCalendar, config: "EncoderConfig", *, as_of: datetime
) -> Samples:
    """Samples out of features (symbol, known_at, session, numbers) and the bars of the same interval (BARS, prices of a
    series on one scale, whole sessions). Rows that are in only one of the two, or not known by `as_of` (aware), are
    left out. Raises NoUsableRows."""
    names = [name for name in frame.columns if name not in (*BARS, "session")]
    prices = bars.select("symbol", "known_at", pl.col("high", "low", "close").cast(pl.Float64))
    joined = frame.join(prices, on=["symbol", "known_at"], how="inner").sort("symbol", "known_at")
    joined = joined.filter(pl.col("known_at") <= as_of)
    if joined.is_empty():
        raise NoUsableRows(f"known by {as_of}", ())
    windows = SequenceWindows.of(joined, names, calendar, config.interval, length=config.length)
    if not len(windows):
        raise NoUsableRows(f"known by {as_of}", windows.never_known)
    session = joined["session"].to_physical().to_numpy().astype(np.int64) + date(1970, 1, 1).toordinal()
    high, low, close = (_column(joined, name) for name in ("high", "low", "close"))
    rows = BarRows(high, low, close, session, windows.starts)
    return Samples(
        features=windows.features,
        symbols=windows.symbols,
        starts=windows.starts,
        session=session,
        values=windows.rows.values,
        valid=windows.rows.valid,
        targets=row_targets(rows, config.horizons, config.turn_bars, config.range_bars),
        horizons=tuple(config.horizons),
        turn_bars=config.turn_bars,
        length=config.length,
    )


def _column(frame: pl.DataFrame, name: str) -> FloatArray:
    values: NDArray[np.float64] = frame[name].fill_null(np.nan).to_numpy()
    return np.where(values > 0.0, values, np.nan)
