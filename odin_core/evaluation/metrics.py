"""Metrics of return series, one formula, one function; `summary` has all of them at once.

What comes in: float arrays (or lists) of simple per-period returns as fractions (0.01 is 1 %), oldest first. One
series, shape (periods,), gives a float; many, shape (…, periods), give an array of the leading shape. Rows that are NaN
are dropped from their series before anything else, so they count neither as a return nor as time. `periods` is the
number of periods a year. What a series cannot answer (too few rows, no spread, no loss to divide by) is NaN, never a
flattering number. A `ReturnSeries` in place of the array shares its passes among several calls.

Forecasts against outcomes live in `ranking`, the inference on a Sharpe ratio in `significance` (both are also reached
from here), inference over time in `sequential`, verdicts in `gate`; oracles in tests/oracles."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from odin_core.evaluation.ranking import f1_score as f1_score
from odin_core.evaluation.ranking import information_coefficient as information_coefficient
from odin_core.evaluation.ranking import precision_at_k as precision_at_k
from odin_core.evaluation.return_series import NAN, FloatArray, ReturnSeries, ratio
from odin_core.evaluation.significance import deflated_sharpe_ratio as deflated_sharpe_ratio
from odin_core.evaluation.significance import expected_maximum_sharpe as expected_maximum_sharpe
from odin_core.evaluation.significance import minimum_track_record_length as minimum_track_record_length
from odin_core.evaluation.significance import probabilistic_sharpe_ratio as probabilistic_sharpe_ratio
from odin_core.evaluation.significance import sharpe_standard_error as sharpe_standard_error

Returns: TypeAlias = npt.ArrayLike | ReturnSeries
CHUNK = 512
"""How many series `summary` passes over at a time, so that they stay in the processor's cache."""


def sharpe_ratio(returns: Returns, periods: float) -> Any:
    """Annualised Sharpe ratio, mean / std · √periods, ddof 1, no risk-free rate.
    NaN for fewer than two rows or a constant series. Source: Sharpe 1994, ex post form. Oracle: empyrical."""
    series = _series(returns)
    return series.answer(ratio(series.moments.mean, series.moments.std) * np.sqrt(periods))


def autocorrelation_adjusted_sharpe(returns: Returns, periods: float, lags: int = 5) -> Any:
    """`sharpe_ratio`, annualised for returns that follow one another: per period · q / √(q + 2·Σ (q − k)·ρ_k), with
    q = `periods` and the first `lags` autocorrelations, further ones taken as 0. Gains that come in runs make it
    smaller. NaN where that ratio is, for too few rows, and where the root is of a negative number.
    Source: Lo 2002, equation 20."""
    series = _series(returns)
    lag = np.arange(1, lags + 1)
    sums = periods + 2 * (series.autocorrelations(lags) * np.maximum(periods - lag, 0.0)).sum(axis=1)
    scale = np.sqrt(np.where(sums > 0, sums, NAN))
    return series.answer(ratio(series.moments.mean, series.moments.std) * ratio(periods, scale))


def autocorrelation(returns: Returns, lag: int = 1) -> Any:
    """Correlation of the rows with those `lag` rows earlier, −1 to 1, both about the mean of all rows and over the sum
    of squares of all. NaN for a constant series and for fewer than lag + 1 rows. Source: Box & Jenkins 1970."""
    series = _series(returns)
    return series.answer(series.autocorrelations(lag)[:, lag - 1])


def sortino_ratio(returns: Returns, periods: float, required: float = 0.0) -> Any:
    """Annualised Sortino ratio: mean excess over `required` (per period) / downside deviation · √periods.
    The downside deviation is √mean(min(excess, 0)²) over all rows. NaN for fewer than two rows, a constant series, or
    one that never falls short. Source: Sortino & Price 1994. Oracle: empyrical."""
    series = _series(returns)
    moments = series.moments
    downside = np.where(moments.std > 0, _downside(series, required), NAN)
    return series.answer(ratio(moments.mean - required, downside) * np.sqrt(periods))


def annual_volatility(returns: Returns, periods: float) -> Any:
    """Standard deviation (ddof 1) · √periods; 0 for a constant series, NaN below two rows. Oracle: empyrical."""
    series = _series(returns)
    return series.answer(series.moments.std * np.sqrt(periods))


def downside_deviation(returns: Returns, periods: float, required: float = 0.0) -> Any:
    """√mean(min(r − required, 0)²) over all rows · √periods, `required` per period; 0 without a shortfall, NaN for no
    rows. Source: Sortino & Price 1994."""
    series = _series(returns)
    return series.answer(_downside(series, required) * np.sqrt(periods))


def total_return(returns: Returns, *, compounded: bool = True) -> Any:
    """Growth over the whole series: Π(1 + r) − 1, and −1 once all is lost; not compounded Σ r. NaN for no rows."""
    series = _series(returns)
    return series.answer(_growth(series, compounded))


def annual_return(returns: Returns, periods: float, *, compounded: bool = True) -> Any:
    """Growth a year: (Π(1 + r))^(periods / n) − 1, n rows that are not NaN, and −1 after ruin; not compounded
    mean · periods. NaN for no rows."""
    series = _series(returns)
    return series.answer(_annual_growth(series, periods, compounded))


def drawdown_series(returns: Returns, *, compounded: bool = True) -> FloatArray:
    """Distance from the highest wealth so far, the starting capital included, each ≤ 0. One series: shape (n,), n rows
    not NaN; many: the shape of `returns`, NaN where the row is. Compounded: wealth Π(1 + r), drawdown as a fraction of
    the peak. Otherwise wealth Σ r, drawdown in the unit of `returns` (for rewards that are not reinvested).
    Oracle: skfolio."""
    series = _series(returns)
    return series.paths(series.depths(compounded))


def max_drawdown(returns: Returns, *, compounded: bool = True) -> Any:
    """Deepest point of `drawdown_series`, a number ≤ 0; NaN for no rows. Oracle: empyrical."""
    series = _series(returns)
    drawdowns = series.drawdowns(compounded)
    return series.answer(np.where(drawdowns.n_obs > 0, drawdowns.deepest, NAN))


def average_drawdown(returns: Returns, *, compounded: bool = True) -> Any:
    """Mean of `drawdown_series` over all rows, those at a peak included, a number ≤ 0; NaN for no rows.
    Source: Chekhlov, Uryasev & Zabarankin 2005. Oracle: skfolio."""
    series = _series(returns)
    drawdowns = series.drawdowns(compounded)
    return series.answer(ratio(drawdowns.total, drawdowns.n_obs))


def drawdown_durations(returns: Returns, *, compounded: bool = True) -> FloatArray:
    """How many sessions in a row wealth has been below its highest, at each row; 0 at a peak, and where less than 1e-12
    is missing, which is rounding. Shape as `drawdown_series`. A drawdown's duration is the last number before a 0."""
    from odin_core.evaluation.passes import sessions_under_water

    series = _series(returns)
    return series.paths(sessions_under_water(series.depths(compounded)))


class TimeUnderWater(NamedTuple):
    """Sessions in a row below the highest wealth so far: a float each, or float64 (…); NaN for no rows."""

    longest: Any
    current: Any  # at the last row; 0 at a peak


def time_under_water(returns: Returns, *, compounded: bool = True) -> TimeUnderWater:
    """Longest and current `drawdown_durations`. Rows are sessions; one that falls at once counts from the first."""
    series = _series(returns)
    drawdowns = series.drawdowns(compounded)
    some = drawdowns.n_obs > 0
    longest, current = (np.where(some, age, NAN) for age in (drawdowns.longest, drawdowns.current))
    return TimeUnderWater(series.answer(longest), series.answer(current))


def ulcer_index(prices: npt.ArrayLike) -> Any:
    """√mean(drawdown²) of price series (…, n), drawdown in percent of the highest price so far; NaN for no rows.
    Source: Martin & McCann 1989. Oracle: ffn."""
    values = np.asarray(prices, dtype=np.float64)
    percent = 100.0 * (values / np.fmax.accumulate(values, axis=-1) - 1.0)
    mean_square = ratio(np.nansum(percent**2, axis=-1), np.count_nonzero(~np.isnan(values), axis=-1))
    return np.sqrt(mean_square) if values.ndim > 1 else float(np.sqrt(mean_square))


def calmar_ratio(returns: Returns, periods: float, *, compounded: bool = True) -> Any:
    """`annual_return` / |`max_drawdown`|; NaN without a drawdown. Source: Young 1991, over the whole series."""
    series = _series(returns)
    return series.answer(ratio(_annual_growth(series, periods, compounded), -series.drawdowns(compounded).deepest))


def omega_ratio(returns: Returns, required: float = 0.0) -> Any:
    """Σ gains above `required` (per period) / Σ shortfalls below it; NaN when nothing falls short.
    Source: Keating & Shadwick 2002, discrete form."""
    series = _series(returns)
    partial = series.partial(required)
    return series.answer(ratio(partial.gains, partial.losses))


def profit_factor(returns: Returns) -> Any:
    """Σ gains / |Σ losses|, the omega ratio at 0; NaN when nothing was lost."""
    return omega_ratio(returns, 0.0)


def gain_to_pain(returns: Returns) -> Any:
    """Σ returns / |Σ losses|, which is `profit_factor` − 1; NaN when nothing was lost. Source: Schwager 2012."""
    series = _series(returns)
    partial = series.partial(0.0)
    return series.answer(ratio(partial.gains - partial.losses, partial.losses))


def payoff_ratio(returns: Returns) -> Any:
    """Mean gain / |mean loss|; NaN without a loss or without a gain."""
    series = _series(returns)
    partial = series.partial(0.0)
    return series.answer(ratio(ratio(partial.gains, partial.above), ratio(partial.losses, partial.below)))


def hit_rate(returns: Returns) -> Any:
    """Share of rows above zero, 0 to 1; a zero return is a row but no hit. NaN for no rows."""
    series = _series(returns)
    return series.answer(ratio(series.partial(0.0).above, series.moments.n_obs))


def expectancy(returns: Returns) -> Any:
    """What one trade is worth: P(win) · mean win − P(loss) · mean |loss|, which is the mean. NaN for no rows."""
    series = _series(returns)
    return series.answer(series.moments.mean)


def skewness(returns: Returns) -> Any:
    """Third standardised moment of the population, m₃ / m₂^1.5 (no small-sample correction), as the probabilistic
    Sharpe ratio takes it. NaN for a constant series. Oracle: scipy.stats.skew."""
    series = _series(returns)
    return series.answer(series.moments.skewness)


def kurtosis(returns: Returns) -> Any:
    """Fourth standardised moment of the population, m₄ / m₂², raw: 3 for a normal. NaN for a constant series.
    Oracle: scipy.stats.kurtosis(fisher=False)."""
    series = _series(returns)
    return series.answer(series.moments.kurtosis)


def value_at_risk(returns: Returns, level: float = 0.05) -> Any:
    """The `level` quantile of the returns themselves, linear interpolation: a loss is negative. NaN for no rows.
    ValueError for a level outside 0 to 1. Oracle: empyrical."""
    series = _series(returns)
    return series.answer(series.quantile(level))


def conditional_value_at_risk(returns: Returns, level: float = 0.05) -> Any:
    """Mean of the returns ≤ `value_at_risk`; never above it. NaN for no rows. Source: Rockafellar & Uryasev 2000."""
    series = _series(returns)
    tail = series.ascending <= series.quantile(level)[:, None]
    return series.answer(ratio(np.sum(series.ascending, axis=1, where=tail), tail.sum(axis=1)))


cvar = conditional_value_at_risk


def tail_ratio(returns: Returns, level: float = 0.05) -> Any:
    """|quantile 1 − level| / |quantile level|: above 1 the good tail is the longer. NaN where the lower quantile is 0
    or there are no rows. Oracle: empyrical."""
    series = _series(returns)
    lower = np.abs(series.quantile(level))
    return series.answer(ratio(np.abs(series.quantile(1 - level)), lower))


def rolling_sharpe(returns: Returns, periods: float, window: int) -> FloatArray:
    """`sharpe_ratio` of the last `window` rows that are not NaN, at each row; shape as `drawdown_series`. NaN before
    there are `window` of them and where they are all equal. ValueError for a window below two."""
    from odin_core.evaluation.passes import rolling_ratio

    if window < 2:
        raise ValueError(f"window={window}: a standard deviation takes at least two returns")
    series = _series(returns)
    return series.paths(rolling_ratio(series.rows, window) * np.sqrt(periods))


def beta(returns: Returns, benchmark: npt.ArrayLike) -> Any:
    """Covariance with the benchmark / variance of the benchmark. NaN where the benchmark is constant. `benchmark`, here
    and below: shape (periods,), one for all, or that of `returns`; rows where either is NaN are dropped.
    Source: Sharpe 1964. Oracle: empyrical."""
    series = _series(returns)
    joint = series.joint(benchmark)
    return series.answer(ratio(joint.covariance, joint.benchmark_variance))


def alpha(returns: Returns, benchmark: npt.ArrayLike, periods: float) -> Any:
    """Jensen's alpha a year, (mean − beta · mean of the benchmark) · periods, not compounded, no risk-free rate.
    NaN where the benchmark is constant. Source: Jensen 1968."""
    series = _series(returns)
    joint = series.joint(benchmark)
    slope = ratio(joint.covariance, joint.benchmark_variance)
    return series.answer((joint.mean - slope * joint.benchmark_mean) * periods)


def correlation(returns: Returns, benchmark: npt.ArrayLike) -> Any:
    """Pearson's correlation with the benchmark, −1 to 1. NaN where a side is constant."""
    series = _series(returns)
    joint = series.joint(benchmark)
    scale = np.sqrt(joint.variance) * np.sqrt(joint.benchmark_variance)
    return series.answer(np.clip(ratio(joint.covariance, scale), -1.0, 1.0))


def tracking_error(returns: Returns, benchmark: npt.ArrayLike, periods: float) -> Any:
    """Standard deviation (ddof 1) of the returns over the benchmark's · √periods; NaN below two rows."""
    series = _series(returns)
    return series.answer(_active_std(series, benchmark) * np.sqrt(periods))


def information_ratio(returns: Returns, benchmark: npt.ArrayLike, periods: float) -> Any:
    """Annualised mean return over the benchmark's / `tracking_error`; NaN for a constant difference.
    Source: Goodwin 1998, arithmetic form; it is the Sharpe ratio of the difference."""
    series = _series(returns)
    joint = series.joint(benchmark)
    return series.answer(ratio(joint.active_mean, _active_std(series, benchmark)) * np.sqrt(periods))


_ANNUAL_PATH = (annual_return, calmar_ratio)
_ANNUAL = (annual_volatility, downside_deviation, sharpe_ratio, autocorrelation_adjusted_sharpe, sortino_ratio)
_PATH = (total_return, max_drawdown, average_drawdown)
_PLAIN = (hit_rate, expectancy, payoff_ratio, profit_factor, gain_to_pain, omega_ratio, value_at_risk,
          conditional_value_at_risk, tail_ratio, skewness, kurtosis, autocorrelation)  # fmt: skip
_ANNUAL_AGAINST = (alpha, tracking_error, information_ratio)
_AGAINST = (beta, correlation)


def summary(
    returns: Returns, periods: float, *, benchmark: npt.ArrayLike | None = None, compounded: bool = True
) -> dict[str, Any]:
    """Every metric of a return series at once, by the name of its function and with its defaults: floats for one
    series, arrays (…) for many. Besides them `observations` (rows that are not NaN), `longest_time_under_water` and
    `current_time_under_water` in sessions, `ulcer_index` of wealth from the starting capital on, in percent, and of the
    Sharpe ratio `sharpe_standard_error` (annualised, as the ratio is), `probabilistic_sharpe_ratio` above 0 and
    `minimum_track_record_length` in observations. With a benchmark also alpha, beta, correlation, tracking error and
    information ratio. The passes are shared: 10,000 × 1,260 returns take well under a second."""
    series = _series(returns)
    against = None if benchmark is None else series.beside(benchmark)
    parts = []
    for first in range(0, max(len(series.rows), 1), CHUNK):
        some = slice(first, first + CHUNK)
        part = ReturnSeries(series.rows[some])
        parts.append(_alone(part, periods, compounded))
        if against is not None:
            parts[-1] |= _against(part, against[0] if len(against) == 1 else against[some], periods)
    return {name: series.answer(np.concatenate([part[name] for part in parts])) for name in parts[0]}


def kelly_fraction(p: float, odds: float = 1.0) -> float:
    """Share of capital that maximises log growth, p − (1 − p) / odds: a bet wins `odds` per unit with probability p.
    Negative where the bet is not worth taking. Source: Kelly 1956. Oracle: mlfinlab."""
    return p - (1.0 - p) / odds


def turnover(weights: npt.ArrayLike) -> float:
    """Mean over periods of Σ |w[t] − w[t−1]|, bought and sold value both counted, as a fraction of capital.
    `weights` has shape (periods, assets), signed; NaN is "not held", 0. NaN for fewer than two periods."""
    w = np.asarray(weights, dtype=np.float64)
    if w.ndim != 2:
        raise ValueError(f"weights of shape {w.shape}: rows are periods, columns are assets")
    if w.shape[0] < 2:
        return NAN
    return float(np.abs(np.diff(np.nan_to_num(w), axis=0)).sum(axis=1).mean())


def _series(returns: Returns) -> ReturnSeries:
    return returns if isinstance(returns, ReturnSeries) else ReturnSeries(returns)


def _downside(series: ReturnSeries, required: float) -> FloatArray:
    return np.sqrt(ratio(series.partial(required).squares, series.moments.n_obs))


def _growth(series: ReturnSeries, compounded: bool) -> FloatArray:
    moments = series.moments
    if not compounded:
        return moments.mean * moments.n_obs
    return np.where(moments.n_obs > 0, np.where(moments.poorest > 0, moments.wealth, 0.0) - 1.0, NAN)


def _annual_growth(series: ReturnSeries, periods: float, compounded: bool) -> FloatArray:
    if not compounded:
        return series.moments.mean * periods
    with np.errstate(over="ignore"):  # a good day is infinitely good a year
        return (1.0 + _growth(series, True)) ** ratio(periods, series.moments.n_obs) - 1.0


def _active_std(series: ReturnSeries, benchmark: npt.ArrayLike) -> FloatArray:
    joint = series.joint(benchmark)
    return np.sqrt(ratio(joint.n_obs * joint.active_variance, joint.n_obs - 1))


def _alone(series: ReturnSeries, periods: float, compounded: bool) -> dict[str, FloatArray]:
    moments, drawdowns = series.moments, series.drawdowns(compounded)
    under_water = time_under_water(series, compounded=compounded)
    points = np.where(drawdowns.n_obs > 0, drawdowns.n_obs + 1, 0)  # the starting capital is one
    sharpe = (ratio(moments.mean, moments.std), moments.n_obs, moments.skewness, moments.kurtosis)
    return {
        "observations": moments.n_obs,
        **{metric.__name__: metric(series, periods, compounded=compounded) for metric in _ANNUAL_PATH},
        **{metric.__name__: metric(series, periods) for metric in _ANNUAL},
        **{metric.__name__: metric(series, compounded=compounded) for metric in _PATH},
        **{metric.__name__: metric(series) for metric in _PLAIN},
        "longest_time_under_water": under_water.longest,
        "current_time_under_water": under_water.current,
        "ulcer_index": 100.0 * np.sqrt(ratio(drawdowns.squares, points)),
        "sharpe_standard_error": sharpe_standard_error(*sharpe) * np.sqrt(periods),
        "probabilistic_sharpe_ratio": probabilistic_sharpe_ratio(*sharpe),
        "minimum_track_record_length": minimum_track_record_length(sharpe[0], *sharpe[2:]),
    }


def _against(series: ReturnSeries, benchmark: FloatArray, periods: float) -> dict[str, FloatArray]:
    return {
        **{metric.__name__: metric(series, benchmark, periods) for metric in _ANNUAL_AGAINST},
        **{metric.__name__: metric(series, benchmark) for metric in _AGAINST},
    }
