"""The cross-section: all symbols at one instant, and the kernels that work on it.

An instant's values follow from its own rows alone and are summed in the rows' order, so they are the same bits whatever
other instants are computed beside it. A row whose input is NaN counts nowhere. Features made of these are in
`cross_section`."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from odin_core.features.series import FloatArray, IntArray, compiled

BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Panel:
    """Features of all symbols, instant after instant: rows sorted by known_at, then symbol.

    values: the inputs, each (rows,) float64; starts: (instants + 1,) int64, instant k is rows [starts[k], starts[k+1]);
    is_index: (rows,), the rows of the market's index, at most one of an instant; all False where it has none."""

    values: tuple[FloatArray, ...]
    starts: IntArray
    is_index: BoolArray

    @property
    def members(self) -> FloatArray:
        """The first input, (rows,), with NaN in the rows of the index, which is no member of the cross-section."""
        return np.where(self.is_index, np.nan, self.values[0])


@compiled
def rank(x: FloatArray, starts: IntArray) -> FloatArray:
    """Rank of each value among its instant's, (average rank − ½) / count: in (0, 1), mean ½, ½ for one alone.
    Equal values share the mean of their ranks. NaN where the value is. (rows,) float64."""
    out = np.full(len(x), np.nan)
    for k in range(len(starts) - 1):
        first, end = starts[k], starts[k + 1]
        order = np.argsort(x[first:end], kind="mergesort")  # NaN last
        count = 0
        while count < end - first and not np.isnan(x[first + order[count]]):
            count += 1
        low = 0
        while low < count:
            value, high = x[first + order[low]], low + 1
            while high < count and x[first + order[high]] == value:
                high += 1
            for j in range(low, high):
                out[first + order[j]] = 0.5 * (low + high) / count
            low = high
    return out


@compiled
def mean(x: FloatArray, starts: IntArray) -> FloatArray:
    """Mean of each instant's known values, in each of its rows; NaN where none is known. (rows,) float64."""
    out = np.full(len(x), np.nan)
    for k in range(len(starts) - 1):
        total, count = 0.0, 0
        for i in range(starts[k], starts[k + 1]):
            if not np.isnan(x[i]):
                total += x[i]
                count += 1
        if count > 0:
            out[starts[k] : starts[k + 1]] = total / count
    return out


@compiled
def share_positive(x: FloatArray, starts: IntArray) -> FloatArray:
    """Share of each instant's known values that lie above zero, those that are zero counting half, in each of its rows:
    0 to 1. NaN where none is known. (rows,) float64."""
    out = np.full(len(x), np.nan)
    for k in range(len(starts) - 1):
        halves, count = 0, 0
        for i in range(starts[k], starts[k + 1]):
            if not np.isnan(x[i]):
                halves += 2 if x[i] > 0.0 else (1 if x[i] == 0.0 else 0)
                count += 1
        if count > 0:
            out[starts[k] : starts[k + 1]] = 0.5 * halves / count
    return out


@compiled
def standard_deviation(x: FloatArray, starts: IntArray) -> FloatArray:
    """Standard deviation of each instant's known values, ddof 1, in each of its rows; exactly 0 where all are equal,
    NaN with fewer than two. (rows,) float64."""
    out = np.full(len(x), np.nan)
    for k in range(len(starts) - 1):
        shift, total, count = np.nan, 0.0, 0
        for i in range(starts[k], starts[k + 1]):
            if not np.isnan(x[i]):
                if count == 0:
                    shift = x[i]
                total += x[i] - shift
                count += 1
        if count > 1:
            centre, squares = total / count, 0.0
            for i in range(starts[k], starts[k + 1]):
                if not np.isnan(x[i]):
                    squares += (x[i] - shift - centre) ** 2
            out[starts[k] : starts[k + 1]] = np.sqrt(squares / (count - 1))
    return out


@compiled
def of_index(x: FloatArray, starts: IntArray, is_index: BoolArray) -> FloatArray:
    """The index's value at each instant, in each of its rows; NaN where it has no row. (rows,) float64."""
    out = np.full(len(x), np.nan)
    for k in range(len(starts) - 1):
        for i in range(starts[k], starts[k + 1]):
            if is_index[i]:
                out[starts[k] : starts[k + 1]] = x[i]
    return out
