"""Minute bars: their schema, and larger intervals made from them.

A bar is stamped with its *start* (`ts`) and may be used from its *end* (`known_at`), both UTC. Prices are raw, as they
were traded; `market.actions` adjusts them as of a date. Where bars come from is `market.importing`, `market.fetching`
and `market.synthetic`, what is wrong with them `market.quality`."""

from datetime import datetime, timedelta
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

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

Interval = Literal["5m", "15m", "60m", "day"]
INTERVALS: tuple[Interval, ...] = get_args(Interval)
MINUTES: dict[Interval, int] = {"5m": 5, "15m": 15, "60m": 60}  # "day" is the whole session
INTERVAL_BARS = pl.Schema({"symbol": BARS["symbol"], "interval": pl.String(), **BARS})


def resample(bars: pl.DataFrame, interval: Interval, *, open_at: datetime, close_at: datetime) -> pl.DataFrame:
    """Bars of a larger interval out of the minute bars of ONE session: schema INTERVAL_BARS, sorted by symbol, ts.

    Buckets are anchored at `open_at`: 60m bars of 09:15-15:30 start at 09:15, 10:15, … and the last is short. `ts` is
    the bucket's start and `known_at` its end, at most `close_at`, whether or not its last minutes have bars; a bucket
    without a bar has no row. `volume` is null where all of its minutes' are. Prices may not be null or NaN.
    The result depends on nothing but the rows: sums run in row order, so threads and chunks do not show.
    `open_at`, `close_at`: aware, UTC. Raises ValueError for a bar outside [open_at, close_at)."""
    return _resampled(bars, (interval,), open_at, close_at)


def session_bars(bars: pl.DataFrame, open_at: datetime, close_at: datetime) -> pl.DataFrame:
    """`resample` for every interval of INTERVALS, stacked in that order (column `interval`): the table `bars`."""
    return _resampled(bars, INTERVALS, open_at, close_at)


def fingerprint(bars: pl.DataFrame) -> str:
    """SHA-256 (hex) of the bars' logical content, whatever their row and column order and their chunks."""
    return logical_hash(bars, KEY)


class _Session(NamedTuple):
    """The columns of one session's sorted bars as arrays, shape (rows,)."""

    minute: npt.NDArray[np.int64]  # since the open
    new_symbol: npt.NDArray[np.bool_]  # the row is its symbol's first
    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    volume: npt.NDArray[np.float64]  # null as 0
    has_volume: npt.NDArray[np.int64]  # 0 or 1


def _resampled(
    bars: pl.DataFrame, intervals: tuple[Interval, ...], open_at: datetime, close_at: datetime
) -> pl.DataFrame:
    if bars.is_empty():
        return INTERVAL_BARS.to_frame()
    ordered, new_symbol = _in_hours_and_order(bars, open_at, close_at)
    session = _Session(
        minute=((ordered["ts"] - open_at).to_physical() // (MINUTE // MICROSECOND)).to_numpy(),
        new_symbol=new_symbol,
        high=ordered["high"].to_numpy(),
        low=ordered["low"].to_numpy(),
        volume=ordered["volume"].fill_null(0.0).to_numpy(),
        has_volume=ordered["volume"].is_not_null().to_numpy().astype(np.int64),
    )
    minutes = (close_at - open_at) // MINUTE
    widths = [minutes if interval == "day" else MINUTES[interval] for interval in intervals]
    parts = [_buckets(session, width, minutes) for width in widths]
    names = [pl.repeat(name, len(part["first"]), eager=True) for name, part in zip(intervals, parts, strict=True)]
    bucket = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    made = pl.DataFrame({"symbol": ordered["symbol"].gather(bucket["first"]), "interval": pl.concat(names)} | bucket)
    at_open = pl.lit(open_at, dtype=UTC)
    return made.select(
        "symbol",
        "interval",
        ts=at_open + pl.duration(minutes="start"),
        known_at=at_open + pl.duration(minutes="end"),
        open=ordered["open"].gather(bucket["first"]),
        high="high",
        low="low",
        close=ordered["close"].gather(bucket["last"]),
        volume=pl.when("has_volume").then("volume"),
        oi=ordered["oi"].gather(bucket["last"]),
    )


def _buckets(session: _Session, width: int, minutes: int) -> dict[str, npt.NDArray[np.generic]]:
    """Rows are sorted, so a bucket is a run of rows: its first and last row, its minutes since the open, its values."""
    bucket = session.minute // width
    first = np.flatnonzero(session.new_symbol | (np.diff(bucket, prepend=-1) != 0))
    return {
        "first": first,
        "last": np.append(first[1:], len(bucket)) - 1,
        "start": bucket[first] * width,
        "end": np.minimum((bucket[first] + 1) * width, minutes),
        "high": np.maximum.reduceat(session.high, first),
        "low": np.minimum.reduceat(session.low, first),
        "volume": np.add.reduceat(session.volume, first),
        "has_volume": np.add.reduceat(session.has_volume, first) > 0,
    }


def _in_hours_and_order(
    bars: pl.DataFrame, open_at: datetime, close_at: datetime
) -> tuple[pl.DataFrame, npt.NDArray[np.bool_]]:
    """Bars sorted by KEY (a copy only where they are not), and which rows are the first of their symbol."""
    first, last = bars["ts"].min(), bars["ts"].max()
    if isinstance(first, datetime) and isinstance(last, datetime) and (first < open_at or last >= close_at):
        raise ValueError(f"bars from {first} to {last} are not all inside the session {open_at} to {close_at}")
    before, ts_before = pl.col("symbol").shift(), pl.col("ts").shift()
    new = pl.col("symbol") != before
    marks = bars.select(
        new.fill_null(True).alias("new"),
        ((pl.col("symbol") < before) | (~new & (pl.col("ts") < ts_before))).alias("misplaced"),
    )
    if marks["misplaced"].any():
        return _in_hours_and_order(bars.sort(KEY), open_at, close_at)
    return bars, marks["new"].to_numpy()
