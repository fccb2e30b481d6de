"""Sessions whose regime is known, because it was planted: 0 a trend, 1 a range, 2 volatile."""

from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
STEPS = 50  # within a session, for its high and low
CALM, WILD, DRIFT, PULL = 0.01, 0.03, 0.9, 0.5  # volatilities of a session; drift in calm ones; pull back to the middle


def days(count: int, every_day: bool = False) -> list[date]:
    """`count` sessions from Monday 2018-01-01 on, weekends included or not."""
    monday = date(2018, 1, 1)
    if every_day:
        return [monday + timedelta(days=i) for i in range(count)]
    return [monday + timedelta(days=7 * (i // 5) + i % 5) for i in range(count)]


def planted_states(sessions: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """States that last at least eight sessions and 25 on average."""
    states: list[int] = []
    while len(states) < sessions:
        states += [int(rng.integers(3))] * max(8, int(rng.exponential(25)))
    return np.array(states[:sessions])


def high_low_close(states: NDArray[np.int64], rng: np.random.Generator) -> FloatArray:
    """(sessions, 3), a random walk of STEPS a session; a drift's sign and a range's middle are new in each regime."""
    prices = np.empty((len(states), 3))
    level, middle, sign = 0.0, 0.0, 1.0
    clock = np.linspace(0.0, 1.0, STEPS)
    for t, state in enumerate(states):
        if t and state != states[t - 1]:
            middle, sign = level, float(rng.choice([-1.0, 1.0]))
        path = level + np.cumsum(rng.normal(size=STEPS)) * (WILD if state == 2 else CALM) / np.sqrt(STEPS)
        if state == 0:
            path += clock * sign * DRIFT * CALM
        if state == 1:
            path -= clock * PULL * (level - middle)
        prices[t] = path.max(), path.min(), path[-1]
        level = path[-1]
    return 100.0 * np.exp(prices)


def bars_of(symbol: str, sessions: list[date], prices: FloatArray) -> pl.DataFrame:
    """One row per session, known at 10:00 UTC of its day."""
    known_at = pl.col("session").cast(pl.Datetime("us", "UTC")) + pl.duration(hours=10)
    columns = {"symbol": [symbol] * len(sessions), "session": sessions}
    columns |= {name: prices[:, i] for i, name in enumerate(("high", "low", "close"))}
    return pl.DataFrame(columns).with_columns(known_at=known_at)


def planted_market(symbols: int, sessions: int, seed: int, every_day: bool = False) -> pl.DataFrame:
    """Bars of several symbols and the planted `state` of each row."""
    rng = np.random.default_rng(seed)
    parts = []
    for number in range(symbols):
        states = planted_states(sessions, rng)
        bars = bars_of(f"S{number:02}", days(sessions, every_day), high_low_close(states, rng))
        parts.append(bars.with_columns(state=pl.Series(states)))
    return pl.concat(parts)
