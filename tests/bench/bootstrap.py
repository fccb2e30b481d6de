"""The demo bootstrap as a user starts it, and beside it a plain Python loop that does one small part of the work.

`odin bootstrap`, 122 sessions × 50 symbols × 375 minutes on a fresh home: bars made and checked, features, decisions,
outcomes of the action grid, 26 weeks of training, all recorded in Dagster, report and digest. The peer only finds where
the 128 actions would have ended, bar by bar and without costs; it runs over a sample and is scaled."""

import statistics
import time
from typing import Any

from demo_life import FIRST, LAST, through_dagster

from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile
from odin_core.market.synthetic import SyntheticExchange
from odin_core.policies.actions import GRID

REPEATS = 3
SAMPLE = 2  # sessions that the peer runs over
RISK = 0.005  # one stop distance, fraction of price
PUBLISHED_BARS = 2_000  # a second

Candle = tuple[float, float, float, float]  # open, high, low, close


def run() -> list[dict[str, Any]]:
    """Two rows of one value, the seconds of the whole command, median of three: beside the loop, and beside what this
    input would take at the figure published for a backtest that retrains itself, which is not measured here."""
    profile = load_profile("demo")
    exchange = SyntheticExchange(profile, seed=7, edge=0.5)
    sessions = session_calendar(profile).sessions(FIRST, LAST)
    sample = [exchange.bars(session).partition_by("symbol") for session in sessions[:SAMPLE]]
    candles = [c.select("open", "high", "low", "close").rows() for day in sample for c in day]
    started = time.perf_counter()
    for symbol in candles:
        grid_outcomes(symbol)
    peer = (time.perf_counter() - started) * len(sessions) / SAMPLE
    bars = sum(map(len, candles)) * len(sessions) / SAMPLE
    seconds = statistics.median(through_dagster().seconds for _ in range(REPEATS))
    peers = {
        f"plain Python loop, outcomes of the grid only, {SAMPLE} sessions scaled to {len(sessions)}": peer,
        f"not measured: {PUBLISHED_BARS:,} bars/s, published for a self-retraining backtest": bars / PUBLISHED_BARS,
    }
    return [
        {"bench": "bootstrap", "value": seconds, "unit": "s", "peer": name, "peer_value": value}
        for name, value in peers.items()
    ]


def grid_outcomes(candles: list[Candle]) -> list[float]:
    """Gross return of each action over one symbol's session, an event per bar."""
    entry, outcomes = candles[0][0], []
    for side, stop, target in zip(GRID.side.tolist(), GRID.stop.tolist(), GRID.target.tolist(), strict=True):
        stop_at, target_at = entry * (1 - side * RISK * stop), entry * (1 + side * RISK * stop * target)
        left = candles[-1][3]
        for _, high, low, _ in candles:
            worst, best = (low, high) if side > 0 else (high, low)
            if side * (worst - stop_at) <= 0:
                left = stop_at
                break
            if side * (best - target_at) >= 0:
                left = target_at
                break
        outcomes.append(side * (left / entry - 1))
    return outcomes
