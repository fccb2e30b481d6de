"""The metrics once more, as one writes them in a notebook: one series at a time, in functions of numpy and Python."""

import math
from statistics import NormalDist

import numpy as np

NAN = float("nan")


def plain_summary(returns: np.ndarray, periods: float, compounded: bool = True) -> dict[str, float]:
    """What `metrics.summary` says of one series without a benchmark."""
    r = returns[~np.isnan(returns)]
    n = len(r)
    moves = n > 1 and np.ptp(r) > 0
    std = (r.std(ddof=1) if moves else 0.0) if n > 1 else NAN
    sharpe = r.mean() / std if moves and std > 0 else NAN
    shortfall = math.sqrt(np.mean(np.minimum(r, 0) ** 2)) if n else NAN
    wealth = np.concatenate([[1.0], np.cumprod(1 + r)] if compounded else [[0.0], np.cumsum(r)])
    peaks = np.maximum.accumulate(wealth)
    depths = (wealth / peaks - 1 if compounded else wealth - peaks)[1:]
    ruined = compounded and wealth.min() <= 0
    total = (-1.0 if ruined else wealth[-1] - compounded) if n else NAN
    annual = ((1 + total) ** (periods / n) - 1 if compounded else r.mean() * periods) if n else NAN
    deepest = depths.min() if n else NAN
    gains, losses = r[r > 0], -r[r < 0]
    spread = math.sqrt(np.mean((r - r.mean()) ** 2)) if moves else NAN
    skew, kurt = (np.mean((r - r.mean()) ** p) / over(spread**p) if moves else NAN for p in (3, 4))
    tail = np.quantile(r, 0.05) if n else NAN
    follows = [autocorrelation(r, k) for k in range(1, 6)]
    adjusted = periods + 2 * sum((periods - k) * follow for k, follow in enumerate(follows, 1))
    variance = 1 - skew * sharpe + (kurt - 1) / 4 * sharpe**2
    known = variance > 0
    longest, current = under_water(depths)
    return {
        "observations": n,
        "annual_return": annual,
        "annual_volatility": std * math.sqrt(periods),
        "downside_deviation": shortfall * math.sqrt(periods),
        "sharpe_ratio": sharpe * math.sqrt(periods),
        "autocorrelation_adjusted_sharpe": sharpe * periods / math.sqrt(adjusted) if adjusted > 0 else NAN,
        "autocorrelation": follows[0],
        "sortino_ratio": r.mean() / shortfall * math.sqrt(periods) if moves and shortfall > 0 else NAN,
        "calmar_ratio": annual / -deepest if deepest < 0 else NAN,
        "total_return": total,
        "max_drawdown": deepest,
        "average_drawdown": depths.mean() if n else NAN,
        "hit_rate": len(gains) / n if n else NAN,
        "expectancy": r.mean() if n else NAN,
        "payoff_ratio": gains.mean() / losses.mean() if len(gains) and len(losses) else NAN,
        "profit_factor": gains.sum() / over(losses.sum()),
        "gain_to_pain": r.sum() / over(losses.sum()),
        "omega_ratio": gains.sum() / over(losses.sum()),
        "value_at_risk": tail,
        "conditional_value_at_risk": r[r <= tail].mean() if n else NAN,
        "tail_ratio": abs(np.quantile(r, 0.95)) / over(abs(tail)) if n else NAN,
        "skewness": skew,
        "kurtosis": kurt,
        "longest_time_under_water": longest if n else NAN,
        "current_time_under_water": current if n else NAN,
        "ulcer_index": math.sqrt(np.sum((100 * depths) ** 2) / (n + 1)) if n else NAN,
        "sharpe_standard_error": math.sqrt(variance / (n - 1) * periods) if known else NAN,
        "probabilistic_sharpe_ratio": NormalDist().cdf(sharpe / math.sqrt(variance / (n - 1))) if known else NAN,
        "minimum_track_record_length": track_record(sharpe, variance) if known else NAN,
    }


def plain_comparison(returns: np.ndarray, benchmark: np.ndarray, periods: float) -> dict[str, float]:
    """What a benchmark adds, by a regression and the covariance matrix; two pairs or more, neither side constant."""
    both = ~(np.isnan(returns) | np.isnan(benchmark))
    x, y = returns[both], benchmark[both]
    slope, intercept = np.linalg.lstsq(np.column_stack([y, np.ones(len(y))]), x, rcond=None)[0]
    active = (x - y).std(ddof=1) if np.ptp(x - y) > 0 else 0.0
    return {
        "alpha": intercept * periods,
        "beta": slope,
        "correlation": np.corrcoef(x, y)[0, 1],
        "tracking_error": active * math.sqrt(periods),
        "information_ratio": (x - y).mean() / over(active) * math.sqrt(periods),
    }


def under_water(depths: np.ndarray) -> tuple[int, int]:
    """Longest and last run of depths below 0 by more than rounding."""
    runs = "".join("w" if depth < -1e-12 else " " for depth in depths)
    return max(map(len, runs.split()), default=0), len(runs) - len(runs.rstrip("w"))


def autocorrelation(r: np.ndarray, lag: int) -> float:
    if len(r) <= lag or np.ptp(r) == 0:
        return NAN
    d = r - r.mean()
    return float(d[lag:] @ d[:-lag] / (d @ d))


def track_record(sharpe: float, variance: float) -> float:
    return 1 + variance * (NormalDist().inv_cdf(0.95) / sharpe) ** 2 if sharpe > 0 else math.inf


def over(denominator: float) -> float:
    return denominator if denominator > 0 else NAN
