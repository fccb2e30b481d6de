"""Compiled passes over many return series: sums, paths and windows that the formulas in `metrics` are made of.

What comes in: C-contiguous float64 (series, periods), oldest first; a NaN row is stepped over, as if it were not there.
`ReturnSeries` calls these once for each array and remembers; nobody else needs to. Loading this module loads numba, so
it is imported where it is called."""

import math

import numpy as np

from odin_core.features.series import FloatArray, compiled

DUST = 1e-12  # of the capital; what a sum and its reversal leave behind is no drawdown


@compiled
def central_moments(rows: FloatArray) -> FloatArray:
    """(series, 7): rows that are not NaN; their mean; mean squared, cubed and fourth deviation from it; Π(1 + r), and
    the lowest that product ever was. A constant series has deviations of exactly 0; an empty one a mean of NaN."""
    series, periods = rows.shape
    out = np.zeros((series, 7))
    kept = np.empty(periods)
    for s in range(series):
        count = 0
        total, lowest, highest, wealth, poorest = 0.0, math.inf, -math.inf, 1.0, 1.0
        for t in range(periods):
            r = rows[s, t]
            if not math.isnan(r):
                kept[count] = r
                count += 1
                total += r
                wealth *= 1.0 + r
                lowest, highest, poorest = min(lowest, r), max(highest, r), min(poorest, wealth)
        out[s, 0], out[s, 5], out[s, 6] = count, wealth, poorest
        out[s, 1] = total / count if lowest < highest else (lowest if count else math.nan)
        if lowest < highest:
            _deviations(kept[:count], out[s])
    return out


@compiled
def _deviations(kept: FloatArray, out: FloatArray) -> None:
    """Fill in the mean, corrected for what the first sum rounded, and the deviations from it."""
    mean, rest = out[1], 0.0
    for r in kept:
        rest += r - mean
    mean += rest / kept.size
    second, third, fourth = 0.0, 0.0, 0.0
    for r in kept:
        deviation = r - mean
        square = deviation * deviation
        second += square
        third += square * deviation
        fourth += square * square
    out[1], out[2], out[3], out[4] = mean, second / kept.size, third / kept.size, fourth / kept.size


@compiled
def partial_moments(rows: FloatArray, required: float) -> FloatArray:
    """(series, 5): Σ of what exceeds `required`, Σ of what falls short (both ≥ 0), Σ shortfall², and how many do so."""
    series, periods = rows.shape
    out = np.zeros((series, 5))
    for s in range(series):
        gains, losses, squares, above, below = 0.0, 0.0, 0.0, 0, 0
        for t in range(periods):
            excess = rows[s, t] - required
            gain, loss = (excess if excess > 0 else 0.0), (-excess if excess < 0 else 0.0)  # both 0 for NaN
            gains += gain
            losses += loss
            squares += loss * loss
            above += excess > 0
            below += excess < 0
        out[s, 0], out[s, 1], out[s, 2], out[s, 3], out[s, 4] = gains, losses, squares, above, below
    return out


@compiled
def drawdown_paths(rows: FloatArray, compounded: bool) -> FloatArray:
    """(series, periods): wealth against its highest so far, the start included; NaN where the row is."""
    series, periods = rows.shape
    out = np.empty((series, periods))
    for s in range(series):
        wealth = peak = 1.0 if compounded else 0.0
        for t in range(periods):
            r = rows[s, t]
            if math.isnan(r):
                out[s, t] = math.nan
                continue
            wealth = wealth * (1.0 + r) if compounded else wealth + r
            peak = max(peak, wealth)
            out[s, t] = wealth / peak - 1.0 if compounded else wealth - peak
    return out


@compiled
def sessions_under_water(depths: FloatArray) -> FloatArray:
    """(series, periods) of `drawdown_paths`: how many rows in a row, this one included, lie below 0 by more than
    rounding; NaN stays NaN."""
    series, periods = depths.shape
    out = np.empty((series, periods))
    for s in range(series):
        age = 0
        for t in range(periods):
            if math.isnan(depths[s, t]):
                out[s, t] = math.nan
                continue
            age = age + 1 if depths[s, t] < -DUST else 0
            out[s, t] = age
    return out


@compiled
def drawdown_summary(depths: FloatArray) -> FloatArray:
    """(series, 6) of `drawdown_paths`: rows, deepest, Σ depth, Σ depth², longest time under water and the current."""
    series, periods = depths.shape
    out = np.empty((series, 6))
    for s in range(series):
        count, age, longest = 0, 0, 0
        deepest, total, squares = 0.0, 0.0, 0.0
        for t in range(periods):
            depth = depths[s, t]
            if math.isnan(depth):
                continue
            count += 1
            total += depth
            squares += depth * depth
            deepest = min(deepest, depth)
            age = age + 1 if depth < -DUST else 0
            longest = max(longest, age)
        out[s, 0], out[s, 1], out[s, 2], out[s, 3], out[s, 4], out[s, 5] = count, deepest, total, squares, longest, age
    return out


@compiled
def joint_moments(rows: FloatArray, benchmark: FloatArray) -> FloatArray:
    """(series, 8) of the rows where neither side is NaN: how many, both means, both mean squared deviations, the mean
    product of the deviations, and the mean and mean squared deviation of the difference. `benchmark`: (1 or series,
    periods). A constant side, or a constant difference, deviates by exactly 0."""
    series, periods = rows.shape
    out = np.zeros((series, 8))
    ours, theirs = np.empty(periods), np.empty(periods)
    for s in range(series):
        b = s if benchmark.shape[0] > 1 else 0
        count = 0
        for t in range(periods):
            if not (math.isnan(rows[s, t]) or math.isnan(benchmark[b, t])):
                ours[count], theirs[count] = rows[s, t], benchmark[b, t]
                count += 1
        x, y = ours[:count], theirs[:count]
        own, other, active = _mean(x), _mean(y), _mean(x - y)
        out[s, 0], out[s, 1], out[s, 2], out[s, 6] = count, own, other, active
        for t in range(count):
            out[s, 3] += (x[t] - own) ** 2 / count
            out[s, 4] += (y[t] - other) ** 2 / count
            out[s, 5] += (x[t] - own) * (y[t] - other) / count
            out[s, 7] += (x[t] - y[t] - active) ** 2 / count
    return out


@compiled
def autocorrelations(rows: FloatArray, lags: int) -> FloatArray:
    """(series, lags): Σ d[t]·d[t − k] / Σ d² for k = 1 … lags, d the deviations of the rows that are not NaN from their
    mean; NaN for a constant series and where there is no pair."""
    series, periods = rows.shape
    out = np.full((series, lags), math.nan)
    kept = np.empty(periods)
    for s in range(series):
        count = 0
        for t in range(periods):
            if not math.isnan(rows[s, t]):
                kept[count] = rows[s, t]
                count += 1
        deviations = kept[:count] - _mean(kept[:count])
        total = 0.0
        for d in deviations:
            total += d * d
        for k in range(1, min(lags, count - 1) + 1):
            product = 0.0
            for t in range(k, count):
                product += deviations[t] * deviations[t - k]
            if total > 0:
                out[s, k - 1] = product / total
    return out


@compiled
def _mean(values: FloatArray) -> float:
    """NaN for none; of equal values exactly that value."""
    if values.size == 0:
        return math.nan
    lowest, highest, total = math.inf, -math.inf, 0.0
    for value in values:
        total += value
        lowest, highest = min(lowest, value), max(highest, value)
    return total / values.size if lowest < highest else lowest


@compiled
def rolling_ratio(rows: FloatArray, window: int) -> FloatArray:
    """(series, periods): mean / std (ddof 1) of the last `window` rows that are not NaN; NaN before there are as many,
    where they are all equal, and where the row is NaN. Each window is summed anew, so nothing drifts."""
    series, periods = rows.shape
    out = np.full((series, periods), math.nan)
    kept = np.empty(periods)
    for s in range(series):
        count, equal = 0, 0
        for t in range(periods):
            if math.isnan(rows[s, t]):
                continue
            equal = equal + 1 if count and kept[count - 1] == rows[s, t] else 1
            kept[count] = rows[s, t]
            count += 1
            if count < window or equal >= window:
                continue
            inside = kept[count - window : count]
            mean, square = inside.mean(), 0.0
            for r in inside:
                square += (r - mean) ** 2
            if square > 0:
                out[s, t] = mean / math.sqrt(square / (window - 1))
    return out
