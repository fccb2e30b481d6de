"""Arithmetic over windows of bars, compiled: one row per symbol, bars oldest first, each row summed in its own order.

No parallel loop, no fast-math and no sum across rows, so a row's result is the same bits whichever rows stand beside
it. Which kernel a feature uses, over how many bars, is in `technical`; the median over symbols is in `regime`.
Prices are (symbols, N) float64; results are (symbols,). A NaN price or volume gives NaN."""

import math
from typing import TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

compiled = numba.njit(cache=True, error_model="numpy")


def relative(value: FloatArray, base: FloatArray) -> FloatArray:
    """value / base − 1, element by element; NaN where the base is zero."""
    return value / np.where(base == 0.0, np.nan, base) - 1.0


def position(close: FloatArray, high: FloatArray, low: FloatArray) -> FloatArray:
    """(close − lowest low) / (highest high − lowest low) of each row, 0 to 1; NaN where that range is zero.
    `close` is (symbols,), `high` and `low` are (symbols, N)."""
    bottom, top = low.min(axis=1), high.max(axis=1)
    return (close - bottom) / np.where(top == bottom, np.nan, top - bottom)


@compiled
def wilder_rsi(close: FloatArray, period: int) -> FloatArray:
    """Relative strength index, 100 · gain / (gain + loss), of smoothed gains and losses. Both are seeded with the mean
    of the window's first `period` changes, then x ← ((period − 1) · x + new) / period. 0 to 100.
    NaN where no price changed, or with fewer than period + 1 bars. Source: Wilder 1978."""
    rows, bars = close.shape
    out = np.full(rows, np.nan)
    for s in range(rows):
        gain, loss = 0.0, 0.0
        for i in range(1, bars):
            change = close[s, i] - close[s, i - 1]
            up, down = 0.5 * (abs(change) + change), 0.5 * (abs(change) - change)
            if i <= period:
                gain, loss = gain + up / period, loss + down / period
            else:
                gain, loss = (gain * (period - 1) + up) / period, (loss * (period - 1) + down) / period
        if bars > period and gain + loss > 0.0:
            out[s] = 100.0 * gain / (gain + loss)
    return out


@compiled
def wilder_atr(high: FloatArray, low: FloatArray, close: FloatArray, period: int) -> FloatArray:
    """Average true range in price units; true range = max(high − low, |high − previous close|, |low − previous close|).
    The window's first bar gives only a previous close; seed and smoothing as in `wilder_rsi`.
    NaN with fewer than period + 1 bars; 0 on constant prices. Source: Wilder 1978."""
    rows, bars = close.shape
    out = np.full(rows, np.nan)
    for s in range(rows):
        average = 0.0
        for i in range(1, bars):
            before = close[s, i - 1]
            reach = max(high[s, i] - low[s, i], abs(high[s, i] - before), abs(low[s, i] - before))
            average = average + reach / period if i <= period else (average * (period - 1) + reach) / period
        if bars > period:
            out[s] = average
    return out


@compiled
def tail_mean(values: FloatArray, count: int) -> FloatArray:
    """Mean of the last `count` values of each row."""
    rows, bars = values.shape
    out = np.empty(rows)
    for s in range(rows):
        total = 0.0
        for i in range(bars - count, bars):
            total += values[s, i]
        out[s] = total / count
    return out


@compiled
def exponential_mean(values: FloatArray, period: int) -> FloatArray:
    """Last exponential moving average of each row, weight 2 / (period + 1) on the newest, seeded with the mean of the
    window's first `period` values. NaN with fewer than `period` values."""
    rows, bars = values.shape
    out = np.full(rows, np.nan)
    weight = 2.0 / (period + 1.0)
    for s in range(rows):
        average = 0.0
        for i in range(bars):
            if i < period:
                average += values[s, i] / period
            else:
                average += weight * (values[s, i] - average)
        if bars >= period:
            out[s] = average
    return out


@compiled
def realised_volatility(close: FloatArray) -> FloatArray:
    """√Σ ln(cᵢ / cᵢ₋₁)² over the N − 1 returns of each row: fraction over the whole window, not annualised, mean taken
    as zero. Source: Andersen & Bollerslev 1998."""
    rows, bars = close.shape
    out = np.empty(rows)
    for s in range(rows):
        total = 0.0
        for i in range(1, bars):
            change = math.log(close[s, i] / close[s, i - 1])
            total += change * change
        out[s] = math.sqrt(total)
    return out


@compiled
def parkinson_volatility(high: FloatArray, low: FloatArray) -> FloatArray:
    """√(mean ln(high / low)² / (4 ln 2)): fraction per bar. Source: Parkinson 1980."""
    rows, bars = high.shape
    out = np.empty(rows)
    for s in range(rows):
        total = 0.0
        for i in range(bars):
            spread = math.log(high[s, i] / low[s, i])
            total += spread * spread
        out[s] = math.sqrt(total / bars / (4.0 * math.log(2.0)))
    return out


@compiled
def tail_z_score(values: FloatArray, count: int) -> FloatArray:
    """How unusual the sum of the last `count` values is among the N of its row: (Σ − count · mean) / (std · √count),
    ddof 1, the last ones included in mean and std. NaN where all values are equal."""
    rows, bars = values.shape
    out = np.full(rows, np.nan)
    for s in range(rows):
        total, tail = 0.0, 0.0
        for i in range(bars):
            total += values[s, i]
            if i >= bars - count:
                tail += values[s, i]
        mean, squares, equal = total / bars, 0.0, True
        for i in range(bars):
            squares += (values[s, i] - mean) ** 2
            equal = equal and values[s, i] == values[s, 0]
        if not equal:
            out[s] = (tail - count * mean) / math.sqrt(squares / (bars - 1) * count)
    return out


@compiled
def volatility_per_five_minutes(bars: FloatArray, starts: IntArray, spans: FloatArray) -> FloatArray:
    """√(Σ r² / span) of each symbol's 5-minute bars of one session: r = ln(close / open) of its first bar, then
    ln(cᵢ / cᵢ₋₁). A session cut short, or with bars missing, is so on the scale of a whole one.

    bars: (5, all bars), rows open, high, low, close, volume, symbol after symbol; starts: (symbols + 1,), where each
    symbol begins; spans: (symbols,), five-minute steps from its first bar's start to its last bar's end."""
    symbols = len(starts) - 1
    out = np.empty(symbols)
    for s in range(symbols):
        total, before = 0.0, bars[0, starts[s]]
        for i in range(starts[s], starts[s + 1]):
            change = math.log(bars[3, i] / before)
            total += change * change
            before = bars[3, i]
        out[s] = math.sqrt(total / spans[s])
    return out


@compiled
def fill_back(bars: FloatArray, starts: IntArray, rows: IntArray, window: FloatArray, filled: IntArray) -> None:
    """Prepend one session's bars, newest first, to the windows that are not full yet. Writes `window` and `filled`.

    bars, starts: as in `volatility_per_five_minutes`; rows: (symbols,), each window's symbol in `starts`, −1 for none;
    window: (5, symbols, N), filled from the right; filled: (symbols,), bars already there."""
    length = window.shape[2]
    for s in range(len(rows)):
        if rows[s] < 0:
            continue
        first, bar = starts[rows[s]], starts[rows[s] + 1] - 1
        while bar >= first and filled[s] < length:
            filled[s] += 1
            for field in range(5):
                window[field, s, length - filled[s]] = bars[field, bar]
            bar -= 1
