"""Minute bars: their schema, and larger intervals made from them.

A bar is stamped with its *start* (`ts`) and may be used from its *end* (`known_at`), both UTC. Prices are raw, as they
were traded; `reference.actions` adjusts them as of a date. Where they come from is `intake` and `synthetic`, what is
wrong with them `quality`."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.errors import OdinError
from odin_core.lake import logical_hash

UTC = pl.Datetime("us", "UTC")
MINUTE = timedelta(minutes=1)
MICROSECOND = timedelta(microseconds=1)

BARS = pl.Schema(
    {
        "symbol": pl.String(),
        "ts": UTC,  # start of the bar
        "known_at": UTC,  # end of the bar
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),  # null where the source has none
        "oi": pl.Float64(),  # open interest at the end of the bar; null where the source has none
    }
)
KEY = ("symbol", "ts")
MINUTE_TABLE, LARGER_TABLES = "price_history", "bars_"  # of minutes, and before the interval of larger ones

Interval = Literal["5m", "15m", "60m", "day"]  # the larger ones that features are made from
INTERVALS: tuple[Interval, ...] = get_args(Interval)
INTERVAL_BARS = pl.Schema({"symbol": BARS["symbol"], "interval": pl.String(), **BARS})


class NotAnInterval(OdinError):
    def __init__(self, interval: str) -> None:
        super().__init__(
            f"{interval!r} is no interval of bars; write 1m, 5m, 15m, 60m, any other number of minutes, or day"
        )


class MissingBarColumns(OdinError):
    def __init__(self, missing: Iterable[str], found: Iterable[str]) -> None:
        super().__init__(
            f"these bars lack the columns {', '.join(missing)}; they have {', '.join(found)}; "
            f"rename columns to those of the bars that `read_bars` gives, or add them"
        )


class RepeatedBars(OdinError):
    def __init__(self, symbol: str, ts: object) -> None:
        super().__init__(
            f"several bars of {symbol} start at {ts}; keep one of them, as bars.unique(['symbol', 'ts']) does"
        )


def minutes_of(interval: str) -> int | None:
    """The length of a bar in minutes, None for "day", a whole session. Raises NotAnInterval."""
    if interval == "day":
        return None
    if not (interval.endswith("m") and interval[:-1].isdecimal() and int(interval[:-1]) > 0):
        raise NotAnInterval(interval)
    return int(interval[:-1])


def table_of(interval: str) -> str:
    """The lake's table of bars of an interval that a source gave as such. Raises NotAnInterval."""
    return MINUTE_TABLE if minutes_of(interval) == 1 else f"{LARGER_TABLES}{interval}"


def interval_of(table: str) -> str | None:
    """The interval of the bars that a table of the lake holds; None for a table of something else."""
    if table == MINUTE_TABLE:
        return "1m"
    return table.removeprefix(LARGER_TABLES) if table.startswith(LARGER_TABLES) else None


def resample(bars: pl.DataFrame, interval: str, *, open_at: datetime, close_at: datetime) -> pl.DataFrame:
    """Bars of a larger interval out of the minute bars of ONE session: schema INTERVAL_BARS, sorted by symbol, ts.

    Buckets are anchored at `open_at`: 60m bars of 09:15-15:30 start at 09:15, 10:15, … and the last is short; a halt
    shifts none. `ts` is the bucket's start and `known_at` its end, at most `close_at`, whether or not its last minutes
    have bars; a bar that was not known by then does not count. A bucket without a bar has no row. `volume` is the sum,
    `oi` the last that is known; each is null where all of the bucket's minutes' are. Prices may not be null or NaN.
    The result depends on nothing but the rows: sums run in row order, so threads and chunks do not show.
    `interval`: "5m", any other number of minutes, or "day".
    `open_at`, `close_at`: aware, UTC. Raises NotAnInterval, and ValueError for a bar outside [open_at, close_at)."""
    return _resampled(bars, (interval,), [(open_at, close_at)])


def resample_sessions(bars: pl.DataFrame, interval: str, sessions: Sequence[tuple[datetime, datetime]]) -> pl.DataFrame:
    """`resample` for the minute bars of any number of sessions: the rows of one session after the other, bit for bit.
    `sessions`: their hours (open, close), UTC, ascending, not overlapping."""
    return _resampled(bars, (interval,), sessions)


def session_bars(bars: pl.DataFrame, open_at: datetime, close_at: datetime) -> pl.DataFrame:
    """`resample` for every interval of INTERVALS, stacked in that order (column `interval`)."""
    return _resampled(bars, INTERVALS, [(open_at, close_at)])


def fingerprint(bars: pl.DataFrame) -> str:
    """SHA-256 (hex) of the bars' logical content, whatever their row and column order and their chunks."""
    return logical_hash(bars, KEY)


class _Minutes(NamedTuple):
    """The columns of sorted minute bars as arrays, shape (rows,), and the hours of their sessions."""

    at: npt.NDArray[np.int64]  # which session
    opens: npt.NDArray[np.int64]  # (sessions,), microseconds since 1970
    lengths: npt.NDArray[np.int64]  # (sessions,), minutes
    minute: npt.NDArray[np.int64]  # since the open
    new: npt.NDArray[np.bool_]  # the row is its symbol's first in its session
    open: npt.NDArray[np.float64]
    close: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    known_late: pl.Series | None  # microseconds; None where each row was known a minute after its start
    volume: npt.NDArray[np.float64] | None  # null as 0; None where all are null
    has_volume: npt.NDArray[np.int64] | None  # 0 or 1; None where all are alike
    oi_row: npt.NDArray[np.int64] | None  # the last row up to this one with open interest, -1 before; None: all alike


def _resampled(
    bars: pl.DataFrame, intervals: Sequence[str], sessions: Sequence[tuple[datetime, datetime]]
) -> pl.DataFrame:
    widths = [minutes_of(interval) for interval in intervals]
    if bars.is_empty():
        return INTERVAL_BARS.to_frame()
    ordered, minutes = _minutes(bars, sessions)
    if minutes.known_late is not None:
        known = [ordered.filter(minutes.known_late <= _ends(minutes, width)) for width in widths]
        if any(part.height < ordered.height for part in known):
            each = [_resampled(part, (i,), sessions) for part, i in zip(known, intervals, strict=True)]
            return pl.concat(each)
    parts = [_buckets(minutes, width) for width in widths]
    made = _Buckets(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    which = np.repeat(np.arange(len(parts)), [len(part.first) for part in parts])
    return pl.DataFrame(
        {
            "symbol": ordered["symbol"].gather(made.first),
            "interval": pl.Series(intervals).gather(which),
            "ts": pl.Series(made.ts).cast(UTC),
            "known_at": pl.Series(made.known_at).cast(UTC),
            "open": minutes.open[made.first],
            "high": made.high,
            "low": made.low,
            "close": minutes.close[made.last],
            "volume": _known(made.volume, made.has_volume),
            "oi": _last_oi(ordered["oi"], minutes.oi_row, made),
        }
    )


def _ends(minutes: _Minutes, width: int | None) -> pl.Series:
    """When each row's bucket ends, microseconds since 1970."""
    lengths = minutes.lengths[minutes.at]
    end = lengths if width is None else np.minimum((minutes.minute // width + 1) * width, lengths)
    return pl.Series(minutes.opens[minutes.at] + end * (MINUTE // MICROSECOND))


class _Buckets(NamedTuple):
    """Larger bars as arrays, shape (buckets,)."""

    first: npt.NDArray[np.int64]  # rows of the minute bars
    last: npt.NDArray[np.int64]
    ts: npt.NDArray[np.int64]  # microseconds since 1970
    known_at: npt.NDArray[np.int64]
    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    volume: npt.NDArray[np.float64]
    has_volume: npt.NDArray[np.bool_]


def _known(values: npt.NDArray[np.generic], is_known: npt.NDArray[np.bool_]) -> pl.Series:
    series = pl.Series(values)
    return series if is_known.all() else series.set(pl.Series(~is_known), None)


def _last_oi(oi: pl.Series, oi_row: npt.NDArray[np.int64] | None, made: _Buckets) -> pl.Series:
    """Of each bucket, the open interest of its last row that has any."""
    if oi_row is None:  # no row lacks it, or all do
        return oi.gather(made.last)
    row = oi_row[made.last]
    return oi.gather(_known(row, row >= made.first))


def _buckets(minutes: _Minutes, width: int | None) -> _Buckets:
    """Rows are sorted, so a bucket is a run of rows: its first and last row, its edges, its values."""
    if width is None:
        first = np.flatnonzero(minutes.new)
        at = minutes.at[first]
        start, end = np.zeros(len(first), np.int64), minutes.lengths[at]
    else:
        bucket = minutes.minute // width
        changes = minutes.new.copy()
        changes[1:] |= bucket[1:] != bucket[:-1]
        first = np.flatnonzero(changes)
        at = minutes.at[first]
        start = bucket[first] * width
        end = np.minimum(start + width, minutes.lengths[at])
    last = np.append(first[1:], len(minutes.minute)) - 1
    opened, step = minutes.opens[at], MINUTE // MICROSECOND
    volume, counted = minutes.volume, minutes.has_volume
    any_volume = volume is not None
    return _Buckets(
        first=first,
        last=last,
        ts=opened + start * step,
        known_at=opened + end * step,
        high=np.maximum.reduceat(minutes.high, first),
        low=np.minimum.reduceat(minutes.low, first),
        volume=np.zeros(len(first)) if volume is None else np.add.reduceat(volume, first),
        has_volume=np.full(len(first), any_volume) if counted is None else np.add.reduceat(counted, first) > 0,
    )


def _minutes(bars: pl.DataFrame, sessions: Sequence[tuple[datetime, datetime]]) -> tuple[pl.DataFrame, _Minutes]:
    """The bars, session after session and there by KEY (a copy only where they are not), and their arrays. Raises
    ValueError for a bar outside every session."""
    opens, closes = (pl.Series(edge, dtype=UTC).to_physical().to_numpy() for edge in zip(*sessions, strict=True))
    instant = bars["ts"].to_physical().to_numpy()
    at = _sessions_at(instant, opens)
    if at.min() < 0 or (instant >= (closes[at] if len(closes) > 1 else closes[0])).any():
        of = "session" if len(sessions) == 1 else f"{len(sessions)} sessions between"
        first, last = bars["ts"].min(), bars["ts"].max()
        raise ValueError(
            f"bars from {first} to {last} are not all inside the {of} {sessions[0][0]} to {sessions[-1][1]}"
        )
    new, is_ordered = _runs(bars["symbol"], instant, at)
    if not is_ordered:
        by = pl.Series("session", at)
        return _minutes(bars.with_columns(by).sort(by.name, *KEY).drop(by.name), sessions)
    ordered = bars
    volume, oi = ordered["volume"], ordered["oi"]
    known_at = ordered["known_at"].to_physical()
    is_usual = bool((known_at.to_numpy() - ordered["ts"].to_physical().to_numpy() <= MINUTE // MICROSECOND).all())
    gaps, oi_gaps = (0 < c.null_count() < len(c) for c in (volume, oi))
    return ordered, _Minutes(
        at=at,
        opens=opens,
        lengths=(closes - opens) // (MINUTE // MICROSECOND),
        minute=(instant - (opens[at] if len(opens) > 1 else opens[0])) // (MINUTE // MICROSECOND),
        new=new,
        open=ordered["open"].to_numpy(),
        close=ordered["close"].to_numpy(),
        high=ordered["high"].to_numpy(),
        low=ordered["low"].to_numpy(),
        known_late=None if is_usual else known_at,
        volume=None if volume.null_count() == len(volume) else (volume.fill_null(0.0) if gaps else volume).to_numpy(),
        has_volume=volume.is_not_null().to_numpy().astype(np.int64) if gaps else None,
        oi_row=_last_known(oi) if oi_gaps else None,
    )


def _last_known(values: pl.Series) -> npt.NDArray[np.int64]:
    """Of each row, the last one up to it that is not null; -1 where there is none."""
    return np.maximum.accumulate(np.where(values.is_not_null().to_numpy(), np.arange(len(values)), -1))


def _sessions_at(instant: npt.NDArray[np.int64], opens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which session began last before each instant, -1 for none."""
    if len(opens) == 1:
        return (instant >= opens[0]).astype(np.int64) - 1
    return np.searchsorted(opens, instant, side="right") - 1


def _runs(
    symbol: pl.Series, instant: npt.NDArray[np.int64], at: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], bool]:
    """Which rows are the first of their symbol in their session, and whether rows lie by session, symbol, ts."""
    new = np.zeros(len(instant), np.bool_)
    lengths = symbol.rle().struct.field("len").to_numpy().astype(np.int64)
    new[np.cumsum(lengths) - lengths] = True
    step = np.diff(at)
    new[1:] |= step != 0
    is_within_order = (np.diff(instant) >= 0) | new[1:]
    first = np.flatnonzero(new)
    names = symbol.gather(first)
    is_next = (names.slice(1) > names.head(len(first) - 1)).to_numpy() | (np.diff(at[first]) > 0)
    return new, bool((step >= 0).all() and is_within_order.all() and is_next.all())
