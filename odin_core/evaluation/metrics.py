"""Metrics of a return series, of a ranking and of a set of weights: one formula, one function.

What comes in: 1-D float arrays (or lists) of simple per-period returns as fractions (0.01 is 1 %), oldest first; rows
that are NaN are dropped before anything else, so they count neither as a return nor as time. `periods` is the number
of periods a year. What a series cannot answer (too few rows, no spread, no loss to divide by) is NaN, never a
flattering number. Inference over time lives in `sequential`, verdicts in `gate`; oracles in tests/oracles."""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
NAN = float("nan")
EULER_GAMMA = float(np.euler_gamma)
_NORMAL = NormalDist()


def sharpe_ratio(returns: npt.ArrayLike, periods: float) -> float:
    """Annualised Sharpe ratio, mean / std · √periods, ddof 1, no risk-free rate.
    NaN for fewer than two rows or a constant series. Source: Sharpe 1994, ex post form. Oracle: empyrical."""
    r = _rows(returns)
    if r.size < 2 or np.ptp(r) == 0:
        return NAN
    std = float(r.std(ddof=1))
    return float(r.mean()) / std * math.sqrt(periods) if std > 0 else NAN


def sortino_ratio(returns: npt.ArrayLike, periods: float, required: float = 0.0) -> float:
    """Annualised Sortino ratio: mean excess over `required` (per period) / downside deviation · √periods.
    The downside deviation is √mean(min(excess, 0)²) over all rows. NaN for fewer than two rows, a constant series, or
    one that never falls short. Source: Sortino & Price 1994. Oracle: empyrical."""
    r = _rows(returns)
    if r.size < 2 or np.ptp(r) == 0:
        return NAN
    excess = r - required
    downside = math.sqrt(np.mean(np.minimum(excess, 0.0) ** 2))
    return float(excess.mean() / downside * math.sqrt(periods)) if downside > 0 else NAN


def annual_volatility(returns: npt.ArrayLike, periods: float) -> float:
    """Standard deviation (ddof 1) · √periods; 0 for a constant series, NaN below two rows. Oracle: empyrical."""
    r = _rows(returns)
    return float(r.std(ddof=1) * math.sqrt(periods)) if r.size >= 2 else NAN


def annual_return(returns: npt.ArrayLike, periods: float) -> float:
    """Compound growth a year, (Π(1 + r))^(periods / n) − 1, n rows that are not NaN; NaN for none, −1 after ruin."""
    r = _rows(returns)
    if r.size == 0:
        return NAN
    wealth = float(np.prod(1.0 + r))
    return wealth ** (periods / r.size) - 1.0 if wealth > 0 else -1.0


def drawdown_series(returns: npt.ArrayLike, *, compounded: bool = True) -> FloatArray:
    """Distance from the highest wealth so far, the starting capital included: shape (n,), n rows not NaN, each ≤ 0.
    Compounded: wealth Π(1 + r), drawdown as a fraction of the peak. Otherwise wealth Σ r, drawdown in the unit of
    `returns` (for rewards that are not reinvested). Oracle: skfolio."""
    r = _rows(returns)
    if compounded:
        wealth = np.cumprod(1.0 + r)
        return wealth / np.maximum(np.maximum.accumulate(wealth), 1.0) - 1.0
    total = np.cumsum(r)
    return total - np.maximum(np.maximum.accumulate(total), 0.0)


def max_drawdown(returns: npt.ArrayLike, *, compounded: bool = True) -> float:
    """Deepest point of `drawdown_series`, a number ≤ 0; NaN for no rows. Oracle: empyrical."""
    depth = drawdown_series(returns, compounded=compounded)
    return float(depth.min()) if depth.size else NAN


def omega_ratio(returns: npt.ArrayLike, required: float = 0.0) -> float:
    """Σ gains above `required` (per period) / Σ shortfalls below it; NaN when nothing falls short.
    Source: Keating & Shadwick 2002, discrete form."""
    excess = _rows(returns) - required
    shortfall = -float(np.minimum(excess, 0.0).sum())
    return float(np.maximum(excess, 0.0).sum()) / shortfall if shortfall > 0 else NAN


def calmar_ratio(returns: npt.ArrayLike, periods: float) -> float:
    """`annual_return` / |`max_drawdown`|; NaN without a drawdown. Source: Young 1991, over the whole series."""
    depth = max_drawdown(returns)
    return annual_return(returns, periods) / -depth if depth < 0 else NAN


def value_at_risk(returns: npt.ArrayLike, level: float = 0.05) -> float:
    """The `level` quantile of the returns themselves, linear interpolation: a loss is negative. NaN for no rows.
    Oracle: empyrical."""
    r = _rows(returns)
    return float(np.quantile(r, level)) if r.size else NAN


def conditional_value_at_risk(returns: npt.ArrayLike, level: float = 0.05) -> float:
    """Mean of the returns ≤ `value_at_risk`; never above it. NaN for no rows. Source: Rockafellar & Uryasev 2000."""
    r = _rows(returns)
    return float(r[r <= np.quantile(r, level)].mean()) if r.size else NAN


cvar = conditional_value_at_risk


def hit_rate(returns: npt.ArrayLike) -> float:
    """Share of rows above zero, 0 to 1; a zero return is a row but no hit. NaN for no rows."""
    r = _rows(returns)
    return float(np.mean(r > 0)) if r.size else NAN


def profit_factor(returns: npt.ArrayLike) -> float:
    """Σ gains / |Σ losses|, the omega ratio at 0; NaN when nothing was lost."""
    return omega_ratio(returns, 0.0)


def expectancy(returns: npt.ArrayLike) -> float:
    """What one trade is worth: P(win) · mean win − P(loss) · mean |loss|, which is the mean. NaN for no rows."""
    r = _rows(returns)
    return float(r.mean()) if r.size else NAN


def probabilistic_sharpe_ratio(
    sharpe: float, n_obs: float, skew: float = 0.0, kurtosis: float = 3.0, benchmark: float = 0.0
) -> float:
    """P(true Sharpe > benchmark), Φ((SR − SR*)·√(n − 1) / √(1 − γ₃·SR + (γ₄ − 1)/4·SR²)).
    `sharpe` and `benchmark` per period, `kurtosis` raw (3 for a normal). NaN when any input is, for n_obs < 2, or for
    moments that no distribution has. Source: Bailey & López de Prado 2012."""
    variance = _sharpe_variance(sharpe, skew, kurtosis)
    if not variance > 0 or not n_obs >= 2:
        return NAN
    z = (sharpe - benchmark) * math.sqrt(n_obs - 1) / math.sqrt(variance)
    return _NORMAL.cdf(z)


def expected_maximum_sharpe(n_trials: int, var_sharpe: float = 1.0) -> float:
    """Expected best Sharpe ratio of `n_trials` without skill, √V·((1 − γ)·Φ⁻¹(1 − 1/N) + γ·Φ⁻¹(1 − 1/(N·e))).
    `var_sharpe` is the variance of the trials' Sharpe ratios; with the default 1 the answer is in their standard
    deviations. 0 for one trial. Source: Bailey & López de Prado 2014, equation 1."""
    if n_trials < 1:
        raise ValueError(f"n_trials={n_trials}: at least the trial that is judged counts")
    if n_trials == 1:
        return 0.0
    typical = (1 - EULER_GAMMA) * _NORMAL.inv_cdf(1 - 1 / n_trials)
    tail = EULER_GAMMA * _NORMAL.inv_cdf(1 - 1 / (n_trials * math.e))
    return math.sqrt(var_sharpe) * (typical + tail)


def deflated_sharpe_ratio(
    sharpe: float, n_obs: float, n_trials: int, var_sharpe: float, skew: float = 0.0, kurtosis: float = 3.0
) -> float:
    """Probabilistic Sharpe ratio against the best that `n_trials` without skill would show; conventions as there.
    `sharpe` and `var_sharpe` (variance across trials) per period. Source: Bailey & López de Prado 2014, equation 2."""
    return probabilistic_sharpe_ratio(sharpe, n_obs, skew, kurtosis, expected_maximum_sharpe(n_trials, var_sharpe))


def minimum_track_record_length(
    sharpe: float, skew: float = 0.0, kurtosis: float = 3.0, benchmark: float = 0.0, alpha: float = 0.05
) -> float:
    """Observations after which the probabilistic Sharpe ratio reaches 1 − alpha if the estimates stay:
    1 + (1 − γ₃·SR + (γ₄ − 1)/4·SR²)·(Φ⁻¹(1 − α) / (SR − SR*))². Inputs per period, kurtosis raw. Infinite when
    `sharpe` does not exceed `benchmark`; NaN when an input is. Source: Bailey & López de Prado 2012, equation 13."""
    variance = _sharpe_variance(sharpe, skew, kurtosis)
    if math.isnan(benchmark) or not variance > 0:
        return NAN
    if sharpe <= benchmark:
        return math.inf
    return 1 + variance * (_NORMAL.inv_cdf(1 - alpha) / (sharpe - benchmark)) ** 2


def ulcer_index(prices: npt.ArrayLike) -> float:
    """√mean(drawdown²) of a price series, drawdown in percent of the highest price so far; NaN for no rows.
    Source: Martin & McCann 1989. Oracle: ffn."""
    p = _rows(prices)
    if p.size == 0:
        return NAN
    percent = 100.0 * (p / np.maximum.accumulate(p) - 1.0)
    return float(np.sqrt(np.mean(percent**2)))


def kelly_fraction(p: float, odds: float = 1.0) -> float:
    """Share of capital that maximises log growth, p − (1 − p) / odds: a bet wins `odds` per unit with probability p.
    Negative where the bet is not worth taking. Source: Kelly 1956. Oracle: mlfinlab."""
    return p - (1.0 - p) / odds


def information_coefficient(scores: npt.ArrayLike, outcomes: npt.ArrayLike) -> float:
    """Spearman's rank correlation of forecasts with outcomes, −1 to 1; both shape (n,), ties get their average rank.
    A pair with a NaN on either side is dropped; NaN for fewer than two pairs or where a side is constant.
    Oracle: scipy.stats.spearmanr."""
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"scores {x.shape} and outcomes {y.shape} must be of one length and one dimension")
    both = ~(np.isnan(x) | np.isnan(y))
    if np.count_nonzero(both) < 2:
        return NAN
    a, b = _centred_ranks(x[both]), _centred_ranks(y[both])
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(np.clip(a @ b / scale, -1.0, 1.0)) if scale > 0 else NAN


def turnover(weights: npt.ArrayLike) -> float:
    """Mean over periods of Σ |w[t] − w[t−1]|, bought and sold value both counted, as a fraction of capital.
    `weights` has shape (periods, assets), signed; NaN is "not held", 0. NaN for fewer than two periods."""
    w = np.asarray(weights, dtype=np.float64)
    if w.ndim != 2:
        raise ValueError(f"weights of shape {w.shape}: rows are periods, columns are assets")
    if w.shape[0] < 2:
        return NAN
    return float(np.abs(np.diff(np.nan_to_num(w), axis=0)).sum(axis=1).mean())


def _rows(returns: npt.ArrayLike) -> FloatArray:
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"one series at a time: shape {values.shape} has {values.ndim} dimensions")
    return values[~np.isnan(values)]


def _sharpe_variance(sharpe: float, skew: float, kurtosis: float) -> float:
    return 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2


def _centred_ranks(values: FloatArray) -> FloatArray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    average = np.cumsum(counts) - (counts - 1) / 2
    return average[place] - (values.size + 1) / 2
