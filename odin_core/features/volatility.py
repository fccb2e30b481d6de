"""Estimators of volatility over the last bars of a run, per bar of their interval and not annualised.

All take logarithms of prices, arrays (rows,) float64 as `Bars` caches them, and return (rows,) float64: NaN until a run
has the bars that are read, and while a price among them is NaN; exactly 0 where no price moved. A bar's high and low
enclose its open and close. Features made of these are in `price_action`."""

import math
from typing import NamedTuple

import numpy as np

from odin_core.features.rolling import difference, later, rolling_sum
from odin_core.features.series import Bars, FloatArray, Runs, compiled


class Logs(NamedTuple):
    """ln open, high, low, close, each (rows,) float64."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray

    @classmethod
    def of(cls, bars: Bars) -> "Logs":
        return cls(bars.log_open, bars.log_high, bars.log_low, bars.log_close)


def sum_of_squares(log_close: FloatArray, runs: Runs, window: int) -> FloatArray:
    """Σr² of the last `window` log returns of closes, which are read from window + 1 bars. The return of a session's
    first bar is the one over night, and the mean is taken as 0. Source: Andersen & Bollerslev 1998."""
    change = difference(log_close)
    return rolling_sum(change * change, later(runs, 1), window)


def parkinson(logs: Logs, runs: Runs, window: int) -> FloatArray:
    """√(mean of ln(h/l)² / (4 ln 2)) over the last `window` bars: its square is unbiased without drift and gaps.
    Source: Parkinson 1980."""
    reach = logs.high - logs.low
    return np.sqrt(rolling_sum(reach * reach, runs, window) / (window * 4.0 * math.log(2.0)))


def garman_klass(logs: Logs, runs: Runs, window: int) -> FloatArray:
    """√(mean of ½ ln(h/l)² − (2 ln 2 − 1) ln(c/o)²) over the last `window` bars: its square is unbiased without drift
    and gaps. Source: Garman & Klass 1980, the practical estimator without the cross term."""
    return _root_of_mean(_garman_klass_terms(*logs), runs, window)


def rogers_satchell(logs: Logs, runs: Runs, window: int) -> FloatArray:
    """√(mean of ln(h/c) ln(h/o) + ln(l/c) ln(l/o)) over the last `window` bars: its square is unbiased whatever the
    drift, without gaps. Source: Rogers & Satchell 1991."""
    return _root_of_mean(_rogers_satchell_terms(*logs), runs, window)


def yang_zhang(logs: Logs, runs: Runs, window: int) -> FloatArray:
    """√(V_o + k V_c + (1 − k) V_rs), V_o and V_c the variances (ddof 1) of ln(open / close before) and ln(close / open)
    over the last `window` bars, V_rs the mean of the Rogers-Satchell terms, k = 0.34 / (1.34 + (n + 1) / (n − 1)): its
    square is unbiased whatever the drift, gaps included. window + 1 bars are read. NaN for a window of 1.
    Source: Yang & Zhang 2000."""
    return np.sqrt(_yang_zhang_variance(logs.open, logs.close, _rogers_satchell_terms(*logs), later(runs, 1), window))


def _root_of_mean(terms: FloatArray, runs: Runs, window: int) -> FloatArray:
    return np.sqrt(rolling_sum(terms, runs, window) / window)


@compiled
def _yang_zhang_variance(o: FloatArray, c: FloatArray, inside: FloatArray, runs: Runs, window: int) -> FloatArray:
    """The three variances in one pass, each window put together from two blocks as in `rolling`."""
    out = np.full(len(c), np.nan)
    older = np.zeros((window + 1, 5))  # [k]: of the block before from its k-th row on, Σ of what `newer` sums
    k0 = 0.34 / (1.34 + (window + 1.0) / (window - 1.0))
    for r in range(len(runs.start)):
        start, end = runs.start[r], runs.end[r]
        begin = max(runs.first[r], start + window - 1)
        for block in range(start, end, window):
            gap0, body0 = o[block] - c[block - 1], c[block] - o[block]  # in all windows that end here: small squares
            if block > start:
                for k in range(window - 1, 0, -1):
                    i = block - window + k
                    gap, body = o[i] - c[i - 1] - gap0, c[i] - o[i] - body0
                    older[k, 0] = older[k + 1, 0] + gap
                    older[k, 1] = older[k + 1, 1] + gap * gap
                    older[k, 2] = older[k + 1, 2] + body
                    older[k, 3] = older[k + 1, 3] + body * body
                    older[k, 4] = older[k + 1, 4] + inside[i]
            gaps, gap_squares, bodies, body_squares, ranges = 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(block, min(block + window, end)):
                gap, body = o[i] - c[i - 1] - gap0, c[i] - o[i] - body0
                gaps, gap_squares = gaps + gap, gap_squares + gap * gap
                bodies, body_squares = bodies + body, body_squares + body * body
                ranges += inside[i]
                if i >= begin:
                    k = i - block + 1
                    gap, body = gaps + older[k, 0], bodies + older[k, 2]
                    of_gaps = abs(gap_squares + older[k, 1] - gap * gap / window)
                    of_bodies = abs(body_squares + older[k, 3] - body * body / window)
                    within = (ranges + older[k, 4]) / window
                    out[i] = (of_gaps + k0 * of_bodies) / (window - 1.0) + (1.0 - k0) * within
    return out


@compiled
def _garman_klass_terms(o: FloatArray, h: FloatArray, low: FloatArray, c: FloatArray) -> FloatArray:
    out = np.empty(len(c))
    for i in range(len(c)):
        reach, body = h[i] - low[i], c[i] - o[i]
        out[i] = 0.5 * reach * reach - (2.0 * math.log(2.0) - 1.0) * body * body
    return out


@compiled
def _rogers_satchell_terms(o: FloatArray, h: FloatArray, low: FloatArray, c: FloatArray) -> FloatArray:
    out = np.empty(len(c))
    for i in range(len(c)):
        out[i] = (h[i] - c[i]) * (h[i] - o[i]) + (low[i] - c[i]) * (low[i] - o[i])
    return out
