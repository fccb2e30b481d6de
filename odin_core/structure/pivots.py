"""Fractal pivots: the bars that stand out from their neighbours on both sides, known only once the later ones ended.

What pivots add up to is `levels` and `heatmap`. Bars are of one interval, prices on one scale (adjust them before)."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.errors import OdinError
from odin_core.features.series import FloatArray, IntArray, compiled
from odin_core.market.bars import MissingBarColumns

LEFT: Final = 2
RIGHT: Final = 2
"""How many bars before and after a pivot it must stand out from: Williams' five-bar fractal."""

KIND: Final = ("high", "low")


class TooFewNeighbours(OdinError):
    def __init__(self, left: int, right: int) -> None:
        super().__init__(
            f"a pivot stands out from bars on both sides, but left is {left} and right is {right}; give at least 1 each"
        )


def fractal_pivots(bars: pl.DataFrame, left: int = LEFT, right: int = RIGHT) -> pl.DataFrame:
    """Bars whose high lies strictly above, or whose low lies strictly below, those of ALL `left` bars before and
    `right` bars after: one row per pivot, by symbol and index; a bar that is both has two rows, the high first.

    bars: `high`, `low` and, where there are several symbols, `symbol`; in time's order within a symbol, by `ts` where
    they have it. Columns of the answer: `symbol` (null where bars have none), `kind` ("high" or "low"), `index` (Int64,
    the pivot's row within its symbol), `confirmed_index` = index + right, `price` (Float64, the extreme); `ts`, the
    start of the pivot's bar, and `confirmed_at`, the end of the bar that confirms it, where bars have `ts`, `known_at`.
    A pivot may be used from `confirmed_at` on, never from its own bar's end. Null or NaN prices are no pivots and let
    no neighbour be one. Raises MissingBarColumns, TooFewNeighbours. Source: Williams 1995, Trading Chaos."""
    if left < 1 or right < 1:
        raise TooFewNeighbours(left, right)
    rows = by_symbol(bars, ("high", "low"))
    starts, ends = symbol_rows(rows)
    is_pivot = np.column_stack((peaks(prices(rows, "high"), left, right), peaks(-prices(rows, "low"), left, right)))
    symbol = np.repeat(np.arange(len(starts)), ends - starts)
    at, kind = np.nonzero(is_pivot)
    inside = (at - left >= starts[symbol[at]]) & (at + right < ends[symbol[at]])
    at, kind = at[inside], kind[inside]
    index = at - starts[symbol[at]]
    columns = {
        "symbol": rows["symbol"].gather(at),
        "kind": pl.Series(KIND, dtype=pl.String).gather(kind),
        "index": pl.Series(index, dtype=pl.Int64),
        "confirmed_index": pl.Series(index + right, dtype=pl.Int64),
        "price": pl.Series(np.where(kind == 0, prices(rows, "high")[at], prices(rows, "low")[at]), dtype=pl.Float64),
    }
    if "ts" in rows.columns:
        columns["ts"] = rows["ts"].gather(at)
    if "known_at" in rows.columns:
        columns["confirmed_at"] = rows["known_at"].gather(at + right)
    return pl.DataFrame(columns)


def by_symbol(bars: pl.DataFrame, needed: Iterable[str]) -> pl.DataFrame:
    """The bars, symbol after symbol and each in time's order. Raises MissingBarColumns."""
    missing = [name for name in needed if name not in bars.columns]
    if missing:
        raise MissingBarColumns(missing, bars.columns)
    if "symbol" not in bars.columns:
        bars = bars.with_columns(symbol=pl.lit(None, pl.String))
    return bars.sort([name for name in ("symbol", "ts") if name in bars.columns], maintain_order=True)


def symbol_rows(rows: pl.DataFrame) -> tuple[IntArray, IntArray]:
    """First row of each symbol and the row after its last, int64 (symbols,), of rows that `by_symbol` gave."""
    lengths = rows["symbol"].rle().struct.field("len").to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    return ends - lengths, ends


def prices(rows: pl.DataFrame, name: str) -> FloatArray:
    """A column as contiguous float64 (rows,), NaN for null."""
    return np.ascontiguousarray(rows[name].cast(pl.Float64).fill_null(np.nan).to_numpy())


@compiled
def peaks(values: FloatArray, left: int, right: int) -> NDArray[np.bool_]:
    """Which values lie strictly above all `left` before and `right` after them; (rows,). The first `left` and the last
    `right` rows do not. Where rows of several series lie one after the other, the caller drops those at the seams."""
    out = np.zeros(len(values), np.bool_)
    for i in range(left, len(values) - right):
        above = True
        for j in range(i - left, i + right + 1):
            if j != i and not values[i] > values[j]:
                above = False
                break
        out[i] = above
    return out
