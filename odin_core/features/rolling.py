"""Statistics over the last bars of a run, the current one included: sums, moments, extremes. Recursions are elsewhere.

Kernels take arrays (rows,) and `Runs`, and return (rows,) float64 that is NaN where it is not wanted and where the run
has no `window` rows yet. A NaN makes exactly those results NaN whose window holds it. Nothing before a run's start is
read, and nothing is carried from one run to the next.

A window is the end of one block of `window` rows and the beginning of the next, and a statistic of it is put together
from both (van Herk 1992, Gil & Werman 1993). So nothing is ever subtracted from a running sum: no error builds up in
long runs, and equal values have a deviation of exactly zero."""

import math

import numpy as np

from odin_core.features.series import FloatArray, Runs, compiled


def later(runs: Runs, bars: int) -> Runs:
    """The runs without their first `bars` rows, for statistics of values that need so many bars before their own."""
    return Runs(runs.start + bars, runs.first, runs.end)


def throughout(runs: Runs) -> Runs:
    """The same runs, but all their rows are wanted: for values that are read again.

    Runs overlap, so this is only for `fast_stochastic`, `short_mean` and what else is the same bits in every run that
    holds its window."""
    return Runs(runs.start, runs.start, runs.end)


@compiled
def ratio(value: FloatArray, base: FloatArray) -> FloatArray:
    """value / base, row by row; NaN where the base is zero."""
    out = np.empty(len(value))
    for i in range(len(value)):
        out[i] = value[i] / base[i] if base[i] != 0.0 else np.nan
    return out


@compiled
def relative(value: FloatArray, base: FloatArray) -> FloatArray:
    """value / base − 1, row by row; NaN where the base is zero."""
    out = np.empty(len(value))
    for i in range(len(value)):
        out[i] = value[i] / base[i] - 1.0 if base[i] != 0.0 else np.nan
    return out


@compiled
def typical_price(high: FloatArray, low: FloatArray, close: FloatArray) -> FloatArray:
    """(high + low + close) / 3 of each bar."""
    out = np.empty(len(close))
    for i in range(len(close)):
        out[i] = (high[i] + low[i] + close[i]) / 3.0
    return out


@compiled
def difference(values: FloatArray) -> FloatArray:
    """Each row minus the row before, whatever the run: to be read in `later(runs, 1)`. NaN in the first row."""
    out = np.empty(len(values))
    out[:1] = np.nan
    for i in range(1, len(values)):
        out[i] = values[i] - values[i - 1]
    return out


@compiled
def lag(values: FloatArray, runs: Runs, bars: int) -> FloatArray:
    """The value `bars` rows before, in the same run."""
    out = np.full(len(values), np.nan)
    for r in range(len(runs.start)):
        for i in range(max(runs.first[r], runs.start[r] + bars), runs.end[r]):
            out[i] = values[i - bars]
    return out


@compiled
def rolling_sum(values: FloatArray, runs: Runs, window: int) -> FloatArray:
    """Sum of the last `window` values; zero only where all that were added up are zero or cancel out exactly."""
    out = np.full(len(values), np.nan)
    older = np.zeros(window + 1)  # [k]: of the block before, the values from its k-th on
    for r in range(len(runs.start)):
        start, end = runs.start[r], runs.end[r]
        begin = max(runs.first[r], start + window - 1)
        for block in range(start, end, window):
            if block > start:
                for k in range(window - 1, 0, -1):
                    older[k] = older[k + 1] + values[block - window + k]
            newer = 0.0
            for i in range(block, min(block + window, end)):
                newer += values[i]
                if i >= begin:
                    out[i] = newer + older[i - block + 1]
    return out


@compiled
def rolling_mean(values: FloatArray, runs: Runs, window: int) -> FloatArray:
    """Arithmetic mean of the last `window` values; exactly the value where all are equal."""
    out = np.full(len(values), np.nan)
    older = np.zeros(window + 1)
    for r in range(len(runs.start)):
        start, end = runs.start[r], runs.end[r]
        begin = max(runs.first[r], start + window - 1)
        for block in range(start, end, window):
            origin = values[block]
            if block > start:
                for k in range(window - 1, 0, -1):
                    older[k] = older[k + 1] + (values[block - window + k] - origin)
            newer = 0.0
            for i in range(block, min(block + window, end)):
                newer += values[i] - origin
                if i >= begin:
                    out[i] = origin + (newer + older[i - block + 1]) / window
    return out


@compiled
def rolling_moments(values: FloatArray, runs: Runs, window: int, ddof: int) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation, √(Σ(x − mean)² / (window − ddof)), of the last `window` values.

    The deviation is zero exactly where all are equal. NaN everywhere where `window` is not above `ddof`."""
    means, deviations = np.full(len(values), np.nan), np.full(len(values), np.nan)
    older, older_squares = np.zeros(window + 1), np.zeros(window + 1)
    degrees = window - ddof if window > ddof else np.nan
    for r in range(len(runs.start)):
        start, end = runs.start[r], runs.end[r]
        begin = max(runs.first[r], start + window - 1)
        for block in range(start, end, window):
            origin = values[block]  # in every window that ends in this block: the squares stay as small as the variance
            if block > start:
                for k in range(window - 1, 0, -1):
                    shifted = values[block - window + k] - origin
                    older[k] = older[k + 1] + shifted
                    older_squares[k] = older_squares[k + 1] + shifted * shifted
            newer, newer_squares = 0.0, 0.0
            for i in range(block, min(block + window, end)):
                shifted = values[i] - origin
                newer += shifted
                newer_squares += shifted * shifted
                if i >= begin:
                    mean = (newer + older[i - block + 1]) / window
                    squares = newer_squares + older_squares[i - block + 1] - window * mean * mean
                    means[i] = origin + mean
                    deviations[i] = math.sqrt(abs(squares) / degrees)
    return means, deviations


def rolling_z_score(values: FloatArray, runs: Runs, count: int, window: int) -> FloatArray:
    """How unusual the sum of the last `count` values is among the last `window`: (Σ − count · mean) / (std · √count),
    ddof 1, the last ones included in mean and std. NaN where all `window` values are equal."""
    mean, deviation = rolling_moments(values, runs, window, 1)
    return ratio(rolling_sum(values, runs, count) - count * mean, deviation * math.sqrt(count))


@compiled
def rolling_maximum(values: FloatArray, runs: Runs, window: int) -> FloatArray:
    """Largest of the last `window` values."""
    out = np.full(len(values), np.nan)
    older = np.full(window + 1, -np.inf)
    for r in range(len(runs.start)):
        start, end = runs.start[r], runs.end[r]
        begin = max(runs.first[r], start + window - 1)
        for block in range(start, end, window):
            if block > start:
                for k in range(window - 1, 0, -1):
                    value, largest = values[block - window + k], older[k + 1]
                    older[k] = largest if largest >= value or largest != largest else value
            newer = -np.inf
            for i in range(block, min(block + window, end)):
                value = values[i]
                newer = newer if newer >= value or newer != newer else value
                if i >= begin:
                    largest = older[i - block + 1]
                    out[i] = newer if newer >= largest or newer != newer else largest
    return out


def rolling_minimum(values: FloatArray, runs: Runs, window: int) -> FloatArray:
    """Smallest of the last `window` values."""
    return -rolling_maximum(-values, runs, window)


def fast_stochastic(high: FloatArray, low: FloatArray, close: FloatArray, runs: Runs, window: int) -> FloatArray:
    """(close − lowest low) / (highest high − lowest low) of the last `window` bars, 0 to 1; NaN where that range is
    zero. Source: Lane 1984."""
    lowest = rolling_minimum(low, runs, window)
    return ratio(close - lowest, rolling_maximum(high, runs, window) - lowest)


@compiled
def short_mean(values: FloatArray, runs: Runs, window: int) -> FloatArray:
    """Mean of the last few values, each window added up anew from its oldest: the same bits in every run."""
    out = np.full(len(values), np.nan)
    for r in range(len(runs.start)):
        for i in range(max(runs.first[r], runs.start[r] + window - 1), runs.end[r]):
            total = 0.0
            for k in range(i - window + 1, i + 1):
                total += values[k]
            out[i] = total / window
    return out


@compiled
def mean_deviation(values: FloatArray, means: FloatArray, runs: Runs, window: int) -> FloatArray:
    """Mean of |value − mean| over the last `window` values, `means` being the `rolling_mean` of the same window."""
    out = np.full(len(values), np.nan)
    for r in range(len(runs.start)):
        for i in range(max(runs.first[r], runs.start[r] + window - 1), runs.end[r]):
            mean, k = means[i], i - window + 1
            a, b, c, d = 0.0, 0.0, 0.0, 0.0  # four sums side by side: one alone would wait for each addition
            while k + 3 <= i:
                a += abs(values[k] - mean)
                b += abs(values[k + 1] - mean)
                c += abs(values[k + 2] - mean)
                d += abs(values[k + 3] - mean)
                k += 4
            while k <= i:
                a += abs(values[k] - mean)
                k += 1
            out[i] = ((a + b) + (c + d)) / window
    return out
