"""Support and resistance: prices at which confirmed pivots gather, with how firm, how often and how long ago.

That trends stop at levels more often than at arbitrary prices: Osler 2000, Support for Resistance (exchange rates).
A level is a peak of the density of pivots over price (`density`); highs and lows count alike, because a price that held
from below may hold from above."""

from datetime import datetime
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.features.series import FloatArray, IntArray
from odin_core.market.bars import UTC
from odin_core.market.history import require_aware
from odin_core.structure.density import LOOK_BACK, decay, mean_between, peaks_of, true_ranges
from odin_core.structure.pivots import LEFT, RIGHT, by_symbol, peaks, prices, symbol_rows

LEVELS: Final = pl.Schema(
    {
        "symbol": pl.String(),
        "price": pl.Float64(),
        "kind": pl.String(),  # "support" at or below the last close, "resistance" above it
        "strength": pl.Float64(),  # density of pivots there over that of the symbol's densest level: above 0, up to 1
        "touches": pl.Int64(),  # confirmed pivots that gather there; each pivot touches one level
        "age": pl.Int64(),  # bars from the last touch's to the last one
        "first_touch": UTC,  # start of the bar of the earliest of those pivots
        "last_touch": UTC,
    }
)

APART: Final = 1.0
"""Mean true ranges between two levels at least: nearer ones are crossed by a usual bar."""


def levels(bars: pl.DataFrame, *, as_of: datetime, look_back: int = LOOK_BACK) -> pl.DataFrame:
    """Levels of each symbol as of an instant: schema LEVELS, by symbol and price.

    bars: any number of symbols and one interval, with symbol, ts, known_at, high, low, close; prices on one scale.
    `as_of`: aware; bars whose `known_at` is later are not looked at. What is found follows from the last `look_back`
    bars that remain of each symbol: from pivots that stand and are confirmed within them, and from their mean true
    range, which is the half-width of the density's kernel and the least distance of two levels. So c · prices give
    c · levels, and prices + c give levels + c, with everything else the same. A symbol without a pivot in its look-back
    has no rows, and neither has one with a price there that is null or NaN. Raises NaiveMoment, MissingBarColumns."""
    rows = last_known(bars, as_of, look_back)
    weight = decay(look_back)
    high, low, close = (prices(rows, name) for name in ("high", "low", "close"))
    parts = [LEVELS.to_frame()]
    for start, end in zip(*symbol_rows(rows), strict=True):
        seen = slice(start, end)
        found = _levels(high[seen], low[seen], close[seen], weight)
        first, last = found.pop("first"), found.pop("last")
        touched = rows["ts"][seen]
        parts.append(
            pl.DataFrame(found)
            .with_columns(
                symbol=pl.lit(rows["symbol"][int(start)], pl.String),
                kind=pl.when(pl.col("price") > close[end - 1]).then(pl.lit("resistance")).otherwise(pl.lit("support")),
                first_touch=touched.gather(first),
                last_touch=touched.gather(last),
            )
            .select(LEVELS.names())
            .cast(LEVELS)
        )
    return pl.concat(parts)


def last_known(bars: pl.DataFrame, as_of: datetime, look_back: int) -> pl.DataFrame:
    """The last `look_back` bars of each symbol that have ended by then, symbol after symbol. Raises NaiveMoment,
    MissingBarColumns."""
    require_aware("as_of", as_of)
    rows = by_symbol(bars, ("symbol", "ts", "known_at", "high", "low", "close"))
    return rows.filter(pl.col("known_at") <= as_of).group_by("symbol", maintain_order=True).tail(look_back)


def _levels(high: FloatArray, low: FloatArray, close: FloatArray, weight: FloatArray) -> dict[str, NDArray[np.generic]]:
    """Levels of one symbol's bars, ascending: price, strength, touches, age, and the rows of the first and last touch.
    `weight` is by age, that of the last bar first."""
    width = mean_between(true_ranges(high, low, close), 1, len(close))
    highs, lows = np.flatnonzero(peaks(high, LEFT, RIGHT)), np.flatnonzero(peaks(-low, LEFT, RIGHT))
    if not width > 0.0:  # no price moved, or one is NaN
        highs = lows = highs[:0]
    row = np.concatenate((highs, lows))
    place = (np.concatenate((high[highs], low[lows])) - close[-1]) / width
    by_place = np.argsort(place, kind="stable")
    row, place, now = row[by_place], place[by_place], len(close) - 1
    peak, height = peaks_of(place, weight[now - row])
    kept = _densest_apart(peak, height)
    at, density = peak[kept], height[kept]
    member = np.abs(peak[:, None] - at).argmin(axis=1) if len(at) else kept
    begins = np.searchsorted(member, np.arange(len(at)))
    last = np.maximum.reduceat(row, begins)
    return {
        "price": close[-1] + at * width,
        "strength": density / density.max(initial=0.0),
        "touches": np.bincount(member, minlength=len(at)),
        "age": now - last,
        "first": np.minimum.reduceat(row, begins),
        "last": last,
    }


def _densest_apart(at: FloatArray, density: FloatArray) -> IntArray:
    """Which peaks are levels, ascending: the densest, then always the densest of those APART from it and all before."""
    left, kept = density.copy(), list[int]()
    while left.any():
        kept.append(int(left.argmax()))
        left[np.abs(at - at[kept[-1]]) < APART] = 0.0
    return np.sort(np.array(kept, np.int64))
