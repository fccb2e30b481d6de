"""A heatmap of structure: how the weight of confirmed pivots is spread over prices around the last close.

The picture is in widths, the mean true range of the look-back, so that it looks alike for every symbol and at every
price. It is the same density whose peaks are `levels`."""

from datetime import datetime
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.features.series import FloatArray, Runs
from odin_core.structure.density import LOOK_BACK, decay, shares, true_ranges
from odin_core.structure.levels import last_known
from odin_core.structure.pivots import LEFT, RIGHT, peaks, prices, symbol_rows

BINS: Final = 32
REACH: Final = 8.0
"""How far the heatmap reaches to both sides of the close, in widths."""


class Heatmap(NamedTuple):
    """Shares (symbols, bins) float32 as `rolling_heatmap` has them, of `symbols`, ascending; `close` and `width`,
    (symbols,) float64, in the currency of the prices: bin b of symbol s lies between
    close[s] + width[s] · bin_edges(bins)[b] and that of b + 1."""

    symbols: list[str]
    close: FloatArray
    width: FloatArray
    share: NDArray[np.float32]


def bin_edges(bins: int = BINS) -> FloatArray:
    """Edges of the bins, (bins + 1,), from −REACH to REACH in widths from the close."""
    return np.linspace(-REACH, REACH, bins + 1)


def heatmap(bars: pl.DataFrame, *, as_of: datetime, bins: int = BINS, look_back: int = LOOK_BACK) -> Heatmap:
    """Where the confirmed pivots of each symbol lie around its last close, as of an instant.

    bars: as for `levels`; `as_of`: aware; bars whose `known_at` is later are not looked at. Each symbol's row is the
    last row of its `rolling_heatmap`. Raises NaiveMoment, MissingBarColumns."""
    rows = last_known(bars, as_of, look_back)
    starts, ends = symbol_rows(rows)
    high, low, close = (prices(rows, name) for name in ("high", "low", "close"))
    share, width = _shares(high, low, close, Runs(starts, ends - 1, ends), bins, look_back)
    now = ends - 1
    return Heatmap(rows["symbol"].gather(now).to_list(), close[now], width[now], share[now])


def rolling_heatmap(
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    runs: Runs | None = None,
    *,
    bins: int = BINS,
    look_back: int = LOOK_BACK,
) -> NDArray[np.float32]:
    """Of each bar, where the pivots confirmed by its end lie around its close: (rows, bins) float32, 0 to 1, bins of
    equal width from REACH widths below the close to REACH above.

    A bin holds its share of the weight of ALL pivots of the look-back, so a row sums to what lies within reach, at most
    1; a row without a pivot is 0. A pivot spreads over one width to both sides and weighs half as much for every
    quarter of the look-back that has passed since its bar. high, low, close: (rows,) float64, prices on one scale;
    runs: None for bars of one symbol. Causal: a row follows from the last `look_back` bars up to it, no further than
    its run's start: pivots that stand and are confirmed within them, and their mean true range. NaN in a run's first
    bar, where that range is 0 or a price is NaN, and in rows that no run wants. c · prices or prices + c give the
    same."""
    if runs is None:
        runs = Runs(np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([len(close)]))
    return _shares(high, low, close, runs, bins, look_back)[0]


def _shares(
    high: FloatArray, low: FloatArray, close: FloatArray, runs: Runs, bins: int, look_back: int
) -> tuple[NDArray[np.float32], FloatArray]:
    """Shares (rows, bins) and widths (rows,)."""
    row, kind = np.nonzero(np.column_stack((peaks(high, LEFT, RIGHT), peaks(-low, LEFT, RIGHT))))
    price = np.where(kind == 0, high[row], low[row])
    ranges = true_ranges(high, low, close)
    return shares(close, ranges, row, price, runs, decay(look_back), (LEFT, RIGHT), bins, REACH)
