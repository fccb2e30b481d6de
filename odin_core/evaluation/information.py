"""The information coefficient: how well scores rank what comes next, session by session, and when that is too good.

What comes in: one row per symbol and session, with scores (n,), outcomes (n,) in any unit and the session (n,) of any
sortable type, rows in any order. A row with a NaN on either side is dropped. One session gives one rank correlation,
and sessions, not rows, are the evidence: symbols of a session move together. Whether single features know the future is
asked in `leaks.ranking`; whether probabilities hold, in `calibration`. Loading this module loads numba."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.evaluation.sequential import TIGHTEST_AT, lower_confidence_sequence, tightest_rho
from odin_core.features.series import FloatArray, IntArray, compiled

NAN = float("nan")
FEWEST_SYMBOLS = 5  # of a session, below which it is not ranked
CEILING = 0.1  # an honest daily information coefficient is 0.02 to 0.06

BY_HORIZON = pl.Schema(
    {
        "horizon": pl.Int64(),  # sessions ahead
        "sessions": pl.Int64(),  # that could be ranked
        "ic": pl.Float64(),  # mean over sessions
        "deviation": pl.Float64(),  # between sessions
        "error": pl.Float64(),  # Newey-West standard error of the mean
        "t": pl.Float64(),
        "lower": pl.Float64(),
        "upper": pl.Float64(),
        "positive": pl.Float64(),  # share of sessions with an IC above 0
        "spread": pl.Float64(),  # mean outcome of the top quantile less that of the bottom one
        "spread_hit": pl.Float64(),  # share of sessions in which it was above 0
        "decay": pl.Float64(),  # ic over the first horizon's
    }
)


class DailyIC(NamedTuple):
    """One value per session, ascending."""

    session: npt.NDArray[np.generic]  # (sessions,)
    ic: FloatArray  # (sessions,) NaN where fewer than the fewest symbols are known, or a side is constant
    symbols: IntArray  # (sessions,) known pairs


class MeanIC(NamedTuple):
    mean: float
    deviation: float  # between sessions, ddof 1
    error: float  # Newey-West
    t: float
    lower: float
    upper: float
    sessions: int
    lags: int


class LeakAlarm(NamedTuple):
    alarm: bool
    mean: float
    lower: float  # confidence bound of the mean, valid at all looks
    ceiling: float
    alpha: float
    sessions: int

    @property
    def text(self) -> str:
        """One line for people."""
        said = f"mean daily IC {self.mean:.3f} over {self.sessions} sessions, lower bound {self.lower:.3f}"
        if self.alarm:
            return f"{said}, above {self.ceiling:g}: too good to be honest; look for a leak (odin features check)"
        return f"{said}; a leak is suspected when the bound exceeds {self.ceiling:g}"


class QuantileSpread(NamedTuple):
    """What each quantile of the scores earned; quantile 0 holds the lowest scores."""

    mean: FloatArray  # (quantiles,) mean over sessions of the quantile's mean outcome
    session: npt.NDArray[np.generic]  # (sessions,) in which every quantile has a row
    spread: FloatArray  # (sessions,) top quantile less bottom one
    hit: float  # share of sessions with a spread above 0
    monotonic: float  # rank correlation of quantile and mean outcome


def daily_rank_ic(
    scores: npt.ArrayLike, outcomes: npt.ArrayLike, session: npt.ArrayLike, *, fewest: int = FEWEST_SYMBOLS
) -> DailyIC:
    """Spearman's rank correlation within each session, ties at their average rank. All sessions at once: a million rows
    of 5,000 sessions take 0.2 s on one core. Equals `ranking.information_coefficient` of each session's rows.
    Oracle: scipy.stats.spearmanr."""
    x, y, names, group = _rows(scores, outcomes, session)
    if not x.size:
        return DailyIC(names, np.full(len(names), NAN), np.zeros(len(names), np.int64))
    start = np.searchsorted(group, np.arange(len(names) + 1))
    return DailyIC(names, _rank_ic(x, y, start, max(fewest, 2)), np.diff(start))


def mean_ic(ic: npt.ArrayLike, *, horizon: int = 1, lags: int | None = None, alpha: float = 0.05) -> MeanIC:
    """Mean of a daily IC (sessions,), oldest first, its t statistic and two-sided 1 − alpha interval at *one* look.

    The error is Newey and West's with Bartlett weights and `lags` lags, by default the larger of ⌊4(T/100)^(2/9)⌋ and
    2·(horizon − 1): outcomes over h sessions overlap in h − 1 of them, and Bartlett's weights need about twice as many
    lags to count them. Student's quantile of T − 1 degrees, error times √(T/(T − 1)). NaN sessions are dropped; NaN
    for fewer than two, or all equal. Source: Newey & West 1987, 1994."""
    values = np.asarray(ic, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"ic of shape {values.shape}: one value per session")
    values = values[~np.isnan(values)]
    n = values.size
    mean = float(values.mean()) if n else NAN
    used = newey_west_lags(n, horizon) if lags is None else min(lags, max(n - 1, 0))
    if n < 2 or np.ptp(values) == 0:
        return MeanIC(mean, NAN, NAN, NAN, NAN, NAN, n, used)
    from scipy.special import stdtrit

    deviation = float(values.std(ddof=1))
    error = newey_west_error(values, used)
    half = float(stdtrit(n - 1, 1 - alpha / 2)) * error
    return MeanIC(mean, deviation, error, mean / error if error > 0 else NAN, mean - half, mean + half, n, used)


def newey_west_lags(observations: int, horizon: int = 1) -> int:
    """Lags that `mean_ic` takes by default."""
    automatic = int(4 * (observations / 100) ** (2 / 9)) if observations else 0
    return max(min(max(automatic, 2 * (horizon - 1)), observations - 1), 0)


def newey_west_error(values: FloatArray, lags: int) -> float:
    """Standard error of the mean of `values` (n,): √((γ₀ + 2·Σ (1 − k/(L + 1))·γₖ) / n · n/(n − 1)), γₖ the
    autocovariances with divisor n. Oracle: statsmodels' HAC errors of a constant."""
    d = values - values.mean()
    n = d.size
    total = float(d @ d)
    for k in range(1, lags + 1):
        total += 2 * (1 - k / (lags + 1)) * float(d[k:] @ d[:-k])
    return math.sqrt(max(total, 0.0) / n / (n - 1))


def ic_by_horizon(
    scores: npt.ArrayLike,
    outcomes: Mapping[int, npt.ArrayLike],
    session: npt.ArrayLike,
    *,
    quantiles: int = 5,
    fewest: int = FEWEST_SYMBOLS,
    alpha: float = 0.05,
) -> pl.DataFrame:
    """One row (BY_HORIZON) per horizon, ascending. `outcomes[h]` (n,): what each row's symbol did over the `h` sessions
    after its own, NaN where that is not known yet; overlapping horizons are allowed for in the errors."""
    rows = []
    for horizon in sorted(outcomes):
        daily = daily_rank_ic(scores, outcomes[horizon], session, fewest=fewest)
        summary = mean_ic(daily.ic, horizon=horizon, alpha=alpha)
        spread = quantile_spread(scores, outcomes[horizon], session, quantiles=quantiles)
        ranked = daily.ic[~np.isnan(daily.ic)]
        rows.append(
            {
                "horizon": horizon, "sessions": summary.sessions, "ic": summary.mean, "deviation": summary.deviation,
                "error": summary.error, "t": summary.t, "lower": summary.lower, "upper": summary.upper,
                "positive": float(np.mean(ranked > 0)) if ranked.size else NAN,
                "spread": float(spread.spread.mean()) if spread.spread.size else NAN, "spread_hit": spread.hit,
            }
        )  # fmt: skip
    first = rows[0]["ic"] if rows else NAN
    return pl.DataFrame([row | {"decay": row["ic"] / first if first else NAN} for row in rows], schema=BY_HORIZON)


def quantile_spread(
    scores: npt.ArrayLike, outcomes: npt.ArrayLike, session: npt.ArrayLike, *, quantiles: int = 5
) -> QuantileSpread:
    """Mean outcome by quantile of the score within its session: rank r (from 0, ties at their average) of n goes to
    quantile ⌊(r + ½)·q/n⌋, so quantiles hold equally many symbols to within one. Sessions in which a quantile stays
    empty (ties, fewer symbols than quantiles) are left out."""
    if quantiles < 2:
        raise ValueError(f"quantiles={quantiles}: a spread needs at least two")
    x, y, names, group = _rows(scores, outcomes, session)
    start = np.searchsorted(group, np.arange(len(names) + 1))
    place = _quantile(x, start, quantiles)
    cell = group * quantiles + place
    shape = (len(names), quantiles)
    rows = np.bincount(cell, minlength=len(names) * quantiles).reshape(shape)
    total = np.bincount(cell, weights=y, minlength=len(names) * quantiles).reshape(shape)
    full = (rows > 0).all(axis=1)
    if not full.any():
        return QuantileSpread(np.full(quantiles, NAN), names[:0], np.empty(0), NAN, NAN)
    mean = total[full] / rows[full]
    spread = mean[:, -1] - mean[:, 0]
    average = mean.mean(axis=0)
    order = _rank_ic(np.arange(quantiles, dtype=np.float64), average, np.array([0, quantiles]), 2)
    return QuantileSpread(average, names[full], spread, float(np.mean(spread > 0)), float(order[0]))


def half_life(horizon: npt.ArrayLike, ic: npt.ArrayLike) -> float:
    """Sessions after which an information coefficient has halved, from the line of ln IC over the horizon by least
    squares. Points without a positive IC are left out; NaN for fewer than two, infinite where it does not fall."""
    h, value = np.asarray(horizon, dtype=np.float64), np.asarray(ic, dtype=np.float64)
    known = value > 0
    if np.count_nonzero(known) < 2:
        return NAN
    h, log = h[known] - h[known].mean(), np.log(value[known])
    slope = float(h @ log / (h @ h)) if h.any() else NAN
    return math.inf if slope >= 0 else -math.log(2) / slope


def leak_alarm(ic: npt.ArrayLike, ceiling: float = CEILING, *, alpha: float = 0.05) -> LeakAlarm:
    """Is the mean daily IC (sessions,), oldest first, too high to be honest? The alarm looks at the interval: it is
    raised when the lower confidence bound of the mean lies above `ceiling`, and that bound is valid at all looks
    (`sequential.lower_confidence_sequence`), so it may be asked after each session. No alarm before 10 sessions.

    Measured share of lives of 120 sessions with 50 symbols that ever raise it, asked after each session at alpha 0.05,
    and the median session; beside it the rule "mean above 0.1" asked as often. Calm: chance alone moves the daily IC
    (deviation 0.14); restless: its true value wanders too (0.23). 1,000 lives at 0.05 and 0.10, else 300:

        true IC     calm: share   session   point rule     restless: share   session   point rule
        0.03            0.000        –         0.10                0.000        –         0.31
        0.05            0.002        –         0.20                0.002        –         0.43
        0.08            0.003        –         0.58                0.013        –         0.72
        0.10            0.032        –         0.86                0.028        –         0.89
        0.15            0.88        52         1.00                0.49         –         1.00
        0.20            1.00        17         1.00                0.97        36         1.00
        0.30            1.00        10         1.00                1.00        14         1.00

    So an honest IC of 0.05 raises a false alarm in one life of 500, where the point rule does in one of 2 to 5. The
    bound is of the mean so far: where the true value itself wanders for weeks (deviation 0.1, autocorrelation 0.9), it
    does lie above 0.1 for a while, and 8 % of lives of mean 0.05 raise the alarm (48 % by the point rule)."""
    values = np.asarray(ic, dtype=np.float64)
    values = values[~np.isnan(values)]
    bounds = lower_confidence_sequence(values, alpha, tightest_rho(alpha, TIGHTEST_AT))
    lower = float(bounds[-1]) if values.size else -math.inf
    mean = float(values.mean()) if values.size else NAN
    return LeakAlarm(lower > ceiling, mean, lower, ceiling, alpha, values.size)


def _rows(
    scores: npt.ArrayLike, outcomes: npt.ArrayLike, session: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.generic], IntArray]:
    """Known pairs sorted by session, the sessions' names (those without a known pair too) and each pair's number."""
    x, y, label = np.asarray(scores, np.float64), np.asarray(outcomes, np.float64), np.asarray(session)
    if x.ndim != 1 or not x.shape == y.shape == label.shape:
        raise ValueError(f"scores {x.shape}, outcomes {y.shape} and session {label.shape} must be of one length")
    names, group = np.unique(label, return_inverse=True)
    known = np.flatnonzero(~(np.isnan(x) | np.isnan(y)))
    order = known[np.argsort(group[known], kind="stable")]
    return x[order], y[order], names, group[order].astype(np.int64)


@compiled
def _average_ranks(values: FloatArray, out: FloatArray) -> None:
    """Ranks from 0, ties at their average."""
    order = np.argsort(values)
    i, n = 0, len(values)
    while i < n:
        j = i
        while j + 1 < n and values[order[j + 1]] == values[order[i]]:
            j += 1
        for k in range(i, j + 1):
            out[order[k]] = 0.5 * (i + j)
        i = j + 1


@compiled
def _rank_ic(x: FloatArray, y: FloatArray, start: IntArray, fewest: int) -> FloatArray:
    """Rank correlation of each segment [start[i], start[i + 1])."""
    sessions = len(start) - 1
    out = np.full(sessions, np.nan)
    a, b = np.empty(len(x)), np.empty(len(x))
    for s in range(sessions):
        n = start[s + 1] - start[s]
        if n < fewest:
            continue
        _average_ranks(x[start[s] : start[s + 1]], a)
        _average_ranks(y[start[s] : start[s + 1]], b)
        middle, xx, yy, xy = 0.5 * (n - 1), 0.0, 0.0, 0.0
        for i in range(n):
            u, v = a[i] - middle, b[i] - middle
            xx += u * u
            yy += v * v
            xy += u * v
        if xx > 0.0 and yy > 0.0:
            out[s] = min(1.0, max(-1.0, xy / np.sqrt(xx * yy)))
    return out


@compiled
def _quantile(x: FloatArray, start: IntArray, quantiles: int) -> IntArray:
    """Quantile of each row within its segment."""
    place = np.zeros(len(x), np.int64)
    rank = np.empty(len(x))
    for s in range(len(start) - 1):
        n = start[s + 1] - start[s]
        _average_ranks(x[start[s] : start[s + 1]], rank)
        for i in range(n):
            place[start[s] + i] = int((rank[i] + 0.5) * quantiles / n)
    return place
