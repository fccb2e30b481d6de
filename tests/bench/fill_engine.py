"""Speed of the fill engine: a year of 25 symbols, one trade per symbol and session, on one core.

The peer is the plain alternative: a bare Python loop over the same bars, bar by bar, that only looks for stop, target
and the last bar, without costs, partial fills or latency; it runs over a sample and is scaled to bars per second."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from odin_core.execution.fills import simulate
from odin_core.execution.orders import Bars, ExecutionRules, Orders

SESSIONS, MINUTES = 6300, 375
SAMPLE = 60  # sessions that the peer runs over
SIGMA = 0.0006  # per minute
DISTANCE = 0.016  # of stop and target, fraction: two in three trades last to the time exit


def run() -> list[dict[str, Any]]:
    """One row: bars of the market per second, a trade's whole session counted; medians, compilation excluded."""
    bars, orders = market(SESSIONS), trades(SESSIONS)
    rules = ExecutionRules()
    simulate(bars, orders, rules)
    seconds = median_seconds(lambda: simulate(bars, orders, rules), 15)
    lists = [column[: SAMPLE * MINUTES].tolist() for column in bars[:4]]
    peer_seconds = median_seconds(lambda: event_loop(*lists), 5)
    return [
        {
            "bench": "fill_engine",
            "value": SESSIONS * MINUTES / seconds,
            "unit": "bars/s",
            "peer": f"bare Python loop over {SAMPLE * MINUTES} bars",
            "peer_value": SAMPLE * MINUTES / peer_seconds,
        }
    ]


def market(sessions: int) -> Bars:
    """A random walk of minute bars, each session from 100; volume 1,000 to 10,000 shares."""
    rng = np.random.default_rng(2)
    close = 100 * np.exp(np.cumsum(rng.normal(0, SIGMA, (sessions, MINUTES)), axis=1))
    open_ = np.hstack([np.full((sessions, 1), 100.0), close[:, :-1]])
    wick = 100 * SIGMA / 2 * np.abs(rng.normal(size=(2, sessions, MINUTES)))
    high, low = np.maximum(open_, close) + wick[0], np.minimum(open_, close) - wick[1]
    volume = rng.integers(1_000, 10_000, (sessions, MINUTES)).astype(np.float64)
    return Bars(*(column.ravel() for column in (open_, high, low, close, volume)))


def trades(sessions: int) -> Orders:
    """A market order at each session's open, alternately long and short, out at the last close."""
    rng = np.random.default_rng(3)
    first = np.arange(sessions) * MINUTES
    return Orders.of(
        side=np.where(np.arange(sessions) % 2 == 0, 1, -1),
        quantity=50.0,
        first=first,
        last=first + MINUTES - 1,
        due=first + MINUTES - 1,
        stop_distance=100 * DISTANCE,
        target_distance=100 * DISTANCE,
        volatility=SIGMA,
        noise_entry=rng.normal(size=sessions),
        noise_exit=rng.normal(size=sessions),
    )


def event_loop(opens: list[float], highs: list[float], lows: list[float], closes: list[float]) -> float:
    """The sum of the gross returns of the same trades, an event per bar."""
    total, side, entry, stop, target, held = 0.0, 1, 0.0, 0.0, 0.0, False
    for row, (open_, high, low, close) in enumerate(zip(opens, highs, lows, closes, strict=True)):
        minute = row % MINUTES
        if minute == 0:
            side, entry, held = 1 if row // MINUTES % 2 == 0 else -1, open_, True
            stop, target = entry - side * 100 * DISTANCE, entry + side * 100 * DISTANCE
        if not held:
            continue
        worst, best = (low, high) if side > 0 else (high, low)
        if side * (worst - stop) <= 0:
            total, held = total + side * (stop - entry), False
        elif side * (best - target) >= 0:
            total, held = total + side * (target - entry), False
        elif minute == MINUTES - 1:
            total, held = total + side * (close - entry), False
    return total


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return statistics.median(once() for _ in range(repeats))
