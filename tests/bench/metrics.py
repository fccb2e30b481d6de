"""All metrics of 10,000 return series of 1,260 sessions at once, without and with a benchmark; and the probability of
backtest overfitting of 200 trials over the 12,870 splits of 16 blocks.

Peers: each series by itself in plain numpy, the same metrics but the inference, measured on 200 series and scaled; and
the splits one by one, each half's rows taken out of the array, measured on 200 splits and scaled."""

import math
import statistics
import time
from collections.abc import Callable
from itertools import combinations, islice
from typing import Any

import numpy as np

from odin_core.evaluation.metrics import summary
from odin_core.evaluation.overfitting import probability_of_backtest_overfitting

SERIES, SESSIONS, PERIODS = 10_000, 1260, 252
TRIALS, BLOCKS = 200, 16
SAMPLE = 200
REPEATS = 5


def run() -> list[dict[str, Any]]:
    """Seconds; medians of five after one that is not counted."""
    rng = np.random.default_rng(3)
    returns = rng.normal(0, 0.01, (SERIES, SESSIONS))
    benchmark = rng.normal(0, 0.01, SESSIONS)
    plain = seconds(lambda: [one_by_one(row, None) for row in returns[:SAMPLE]]) * SERIES / SAMPLE
    compared = seconds(lambda: [one_by_one(row, benchmark) for row in returns[:SAMPLE]]) * SERIES / SAMPLE
    trials = np.ascontiguousarray(returns[:TRIALS].T)
    splits = seconds(lambda: split_by_split(trials)) * math.comb(BLOCKS, BLOCKS // 2) / SAMPLE
    peer, scaled = "numpy, series by series (scaled)", "numpy, split by split (scaled)"
    return [
        row("metrics", seconds(lambda: summary(returns, PERIODS)), peer, plain),
        row("metrics_with_benchmark", seconds(lambda: summary(returns, PERIODS, benchmark=benchmark)), peer, compared),
        row(
            "backtest_overfitting", seconds(lambda: probability_of_backtest_overfitting(trials, BLOCKS)), scaled, splits
        ),
    ]


def row(bench: str, value: float, peer: str, peer_value: float) -> dict[str, Any]:
    return {"bench": bench, "value": value, "unit": "s", "peer": peer, "peer_value": peer_value}


def seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def one_by_one(r: np.ndarray, benchmark: np.ndarray | None) -> dict[str, float]:
    """What a quant writes for one series without gaps, nothing computed twice."""
    mean, std, year = r.mean(), r.std(ddof=1), math.sqrt(PERIODS)
    wealth = np.cumprod(1 + r)
    depths = wealth / np.maximum(np.maximum.accumulate(wealth), 1) - 1
    under = np.flatnonzero(np.concatenate([[True], depths >= 0, [True]]))
    gains, losses, z = r[r > 0], -r[r < 0], (r - mean) / r.std()
    low, high = np.quantile(r, [0.05, 0.95])
    annual = wealth[-1] ** (PERIODS / len(r)) - 1
    shortfall = math.sqrt(np.mean(np.minimum(r, 0) ** 2))
    found = {
        "sharpe": mean / std * year, "sortino": mean / shortfall * year, "volatility": std * year,
        "downside": shortfall * year, "total": wealth[-1] - 1, "annual": annual, "drawdown": depths.min(),
        "average_drawdown": depths.mean(), "ulcer": math.sqrt(np.mean(depths**2)), "calmar": -annual / depths.min(),
        "longest": np.diff(under).max() - 1, "current": under[-1] - under[-2] - 1, "hits": len(gains) / len(r),
        "profit_factor": gains.sum() / losses.sum(), "payoff": gains.mean() / losses.mean(),
        "gain_to_pain": r.sum() / losses.sum(), "skew": np.mean(z**3), "kurtosis": np.mean(z**4), "var": low,
        "cvar": r[r <= low].mean(), "tail": high / -low, "expectancy": mean,
    }  # fmt: skip
    if benchmark is not None:
        covariance = np.cov(r, benchmark)
        beta, active = covariance[0, 1] / covariance[1, 1], r - benchmark
        found |= {"beta": beta, "alpha": (mean - beta * benchmark.mean()) * PERIODS,
                  "correlation": covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]),
                  "tracking_error": active.std(ddof=1) * year,
                  "information": active.mean() / active.std(ddof=1) * year}  # fmt: skip
    return found


def split_by_split(trials: np.ndarray) -> list[tuple[float, float]]:
    """Rank and metric out of sample of each split's best, for the first `SAMPLE` splits."""
    blocks = np.array_split(np.arange(len(trials)), BLOCKS)
    found = []
    for chosen in islice(combinations(range(BLOCKS), BLOCKS // 2), SAMPLE):
        inside = np.concatenate([blocks[i] for i in chosen])
        outside = np.setdiff1d(np.arange(len(trials)), inside)
        seen, then = (trials[rows].mean(axis=0) / trials[rows].std(axis=0, ddof=1) for rows in (inside, outside))
        best = seen.argmax()
        found.append((np.mean(then <= then[best]), then[best]))
    return found
