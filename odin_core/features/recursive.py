"""Recursions along a run: exponential and Wilder's averages, accumulations, and what a session has seen so far.

Kernels take arrays (rows,) and `Runs`, and return (rows,) float64 that is NaN where it is not wanted and before its
seed is complete. Each begins anew at a run's start, reads nothing before it, and sums in the order of time. A NaN stays
until the run's end, or the session's where the kernel says so. Wilder's averages are those of *New Concepts in
Technical Trading Systems* (1978): the mean of the first `period` values, then x ← ((period − 1) · x + new) / period."""

import numpy as np

from odin_core.features.series import FloatArray, IntArray, Runs, compiled


@compiled
def exponential_mean(values: FloatArray, runs: Runs, period: int) -> FloatArray:
    """Exponential moving average, weight 2 / (period + 1) on the newest value, seeded with the mean of the first
    `period` values."""
    out = np.full(len(values), np.nan)
    weight = 2.0 / (period + 1.0)
    for r in range(len(runs.start)):
        start, first, end = runs.start[r], runs.first[r], runs.end[r]
        seed, average = 0.0, 0.0
        for i in range(start, end):
            if i < start + period:
                seed += values[i] - values[start]
                average = values[start] + seed / period
            else:
                average += weight * (values[i] - average)
            if i >= first and i >= start + period - 1:
                out[i] = average
    return out


@compiled
def macd_lines(values: FloatArray, runs: Runs, fast: int, slow: int, signal: int) -> tuple[FloatArray, FloatArray]:
    """Line, EMA(fast) − EMA(slow), and its signal, the EMA of the line seeded with the mean of its first `signal`
    values. Both averages begin at the run's start. Source: Appel 1979."""
    lines, signals = np.full(len(values), np.nan), np.full(len(values), np.nan)
    longer = max(fast, slow)
    weight_fast, weight_slow, weight = 2.0 / (fast + 1.0), 2.0 / (slow + 1.0), 2.0 / (signal + 1.0)
    for r in range(len(runs.start)):
        start, first, end = runs.start[r], runs.first[r], runs.end[r]
        short, long, total, smooth = (
            0.0,
            0.0,
            0.0,
            0.0,
        )  # averages relative to the run's first value until they are seeded
        for i in range(start, end):
            age, value = i - start + 1, values[i] - values[start]
            short = short + value / fast if age <= fast else short + weight_fast * (value - short)
            long = long + value / slow if age <= slow else long + weight_slow * (value - long)
            if age < longer:
                continue
            line = short - long
            if age < longer + signal:
                total += line
                smooth = total / signal
            else:
                smooth += weight * (line - smooth)
            if i >= first:
                lines[i] = line
                if age >= longer + signal - 1:
                    signals[i] = smooth
    return lines, signals


@compiled
def wilder_rsi(values: FloatArray, runs: Runs, period: int) -> FloatArray:
    """Relative strength index, 100 · gain / (gain + loss), of Wilder's averages of rises and falls. 0 to 100; NaN where
    no value has changed yet, and in a run's first `period` rows. Source: Wilder 1978, section VI."""
    out = np.full(len(values), np.nan)
    share, keep = 1.0 / period, 1.0 - 1.0 / period
    for r in range(len(runs.start)):
        start, first, end = runs.start[r], runs.first[r], runs.end[r]
        gain, loss = 0.0, 0.0
        for i in range(start + 1, end):
            change = values[i] - values[i - 1]
            up, down = 0.5 * (abs(change) + change), 0.5 * (abs(change) - change)
            if i <= start + period:
                gain, loss = gain + share * up, loss + share * down
            else:
                gain, loss = keep * gain + share * up, keep * loss + share * down
            if i >= first and i >= start + period and gain + loss != 0.0:
                out[i] = 100.0 * (gain / (gain + loss))
    return out


@compiled
def true_ranges(high: FloatArray, low: FloatArray, close: FloatArray, runs: Runs) -> FloatArray:
    """max(high, previous close) − min(low, previous close); NaN in a run's first row.
    Source: Wilder 1978, section III."""
    out = np.full(len(close), np.nan)
    for r in range(len(runs.start)):
        for i in range(max(runs.first[r], runs.start[r] + 1), runs.end[r]):
            out[i] = max(high[i], close[i - 1]) - min(low[i], close[i - 1])
    return out


@compiled
def wilder_atr(high: FloatArray, low: FloatArray, close: FloatArray, runs: Runs, period: int) -> FloatArray:
    """Average true range, Wilder's average of `true_ranges`; NaN in a run's first `period` rows, 0 on constant prices.
    Source: Wilder 1978, section III."""
    out = np.full(len(close), np.nan)
    share, keep = 1.0 / period, 1.0 - 1.0 / period
    for r in range(len(runs.start)):
        start, first, end = runs.start[r], runs.first[r], runs.end[r]
        average = 0.0
        for i in range(start + 1, end):
            reach = max(high[i], close[i - 1]) - min(low[i], close[i - 1])
            average = average + share * reach if i <= start + period else keep * average + share * reach
            if i >= first and i >= start + period:
                out[i] = average
    return out


@compiled
def directional_movement(
    high: FloatArray, low: FloatArray, close: FloatArray, runs: Runs, period: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """+DI, −DI and ADX, each 0 to 100. A bar's upward movement is high − previous high where that is positive and more
    than the downward one, previous low − low, else zero; and the other way round. Movements that differ by less than a
    part in 10¹² of the price are equal, as in `signed`.

    ±DI = 100 · Wilder's average of the movement / that of the true range; NaN in a run's first `period` rows and while
    there was no true range. DX = 100 · |+DI − −DI| / (+DI + −DI), zero where nothing moved; ADX is Wilder's average
    of DX, NaN in the first 2 · period − 1 rows. Source: Wilder 1978, section IV."""
    rows = len(close)
    ups, downs, adx = np.full(rows, np.nan), np.full(rows, np.nan), np.full(rows, np.nan)
    share, keep = 1.0 / period, 1.0 - 1.0 / period
    for r in range(len(runs.start)):
        start, first, end = runs.start[r], runs.first[r], runs.end[r]
        up, down, reach, average = 0.0, 0.0, 0.0, 0.0
        for i in range(start + 1, end):
            rise, fall = high[i] - high[i - 1], low[i - 1] - low[i]
            old, lead = 1.0 if i <= start + period else keep, 1e-12 * high[i]
            up = old * up + (share * rise if rise - fall > lead and rise > 0.0 else 0.0)
            down = old * down + (share * fall if fall - rise > lead and fall > 0.0 else 0.0)
            reach = old * reach + share * (max(high[i], close[i - 1]) - min(low[i], close[i - 1]))
            if i < start + period:
                continue
            strength = 100.0 * (abs(up - down) / (up + down)) if up + down > 0.0 else 0.0
            average = (1.0 if i < start + 2 * period else keep) * average + share * strength
            if i >= first and reach != 0.0:
                ups[i], downs[i] = 100.0 * (up / reach), 100.0 * (down / reach)
            if i >= first and i >= start + 2 * period - 1:
                adx[i] = min(average, 100.0)  # which rounding passes
    return ups, downs, adx


@compiled
def signed(amount: FloatArray, price: FloatArray) -> FloatArray:
    """The amount, with the sign of the price's change from the row before, zero where there is none, whatever the run:
    to be read in `later(runs, 1)`. NaN in the first row.

    Less than a part in 10¹² is no change: means of prices that are equal in decimals may differ by so much."""
    out = np.empty(len(amount))
    out[:1] = np.nan
    for i in range(1, len(amount)):
        change = price[i] - price[i - 1]
        out[i] = amount[i] * (np.sign(change) if abs(change) > 1e-12 * price[i] else 0.0)
    return out


@compiled
def accumulated(values: FloatArray, runs: Runs) -> FloatArray:
    """Sum of all values since the run's first row, which itself counts as zero."""
    out = np.full(len(values), np.nan)
    for r in range(len(runs.start)):
        total = 0.0
        for i in range(runs.start[r], runs.end[r]):
            total += values[i] if i > runs.start[r] else 0.0
            if i >= runs.first[r]:
                out[i] = total
    return out


@compiled
def session_vwap(price: FloatArray, volume: FloatArray, session: IntArray, runs: Runs) -> FloatArray:
    """Σ price · volume / Σ volume over the session's rows so far. NaN until something is traded, and from an unknown
    volume on until the session's end. A session that began before the run's start is counted from that start."""
    out = np.full(len(price), np.nan)
    for r in range(len(runs.start)):
        start = runs.start[r]
        value, traded, origin = 0.0, 0.0, 0.0
        for i in range(start, runs.end[r]):
            if i == start or session[i] != session[i - 1]:
                value, traded, origin = 0.0, 0.0, price[i]
            value += (price[i] - origin) * volume[i]
            traded += volume[i]
            if i >= runs.first[r] and traded != 0.0:
                out[i] = origin + value / traded
    return out


@compiled
def session_open(opens: FloatArray, session: IntArray, runs: Runs) -> FloatArray:
    """The open of the session's first row in the run."""
    out = np.full(len(opens), np.nan)
    for r in range(len(runs.start)):
        start = runs.start[r]
        latest = np.nan
        for i in range(start, runs.end[r]):
            if i == start or session[i] != session[i - 1]:
                latest = opens[i]
            if i >= runs.first[r]:
                out[i] = latest
    return out


@compiled
def close_before_session(closes: FloatArray, session: IntArray, runs: Runs) -> FloatArray:
    """The last close before the session's first row; NaN in the first session that a run reads of."""
    out = np.full(len(closes), np.nan)
    for r in range(len(runs.start)):
        latest = np.nan
        for i in range(runs.start[r] + 1, runs.end[r]):
            if session[i] != session[i - 1]:
                latest = closes[i - 1]
            if i >= runs.first[r]:
                out[i] = latest
    return out
