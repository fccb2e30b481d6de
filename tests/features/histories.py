"""Random sessions for tests of features: minute bars with gaps, made into the larger bars of each session."""

from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl

from odin_core.market.bars import session_bars

MINUTES = 375
SYMBOLS = ("AXIS", "CIPLA", "ITC", "SBIN", "TCS", "WIPRO")


class Day(NamedTuple):
    session: date
    bars: pl.DataFrame  # of session_bars
    close_at: datetime


def random_days(count: int, *, seed: int = 1, missing: float = 0.02, symbols: tuple[str, ...] = SYMBOLS) -> list[Day]:
    """`count` consecutive sessions; each minute of a symbol is missing with the given probability. A symbol's bars come
    from its own stream, so it has the same bars in whatever company."""
    days = [date(2023, 1, 2) + timedelta(days=i) for i in range(count)]
    minutes = pl.concat([_minute_bars(symbol, days, seed, missing) for symbol in symbols])
    out = []
    for day in days:
        open_at, close_at = _hours(day)
        known = minutes.filter(pl.col("ts").is_between(open_at, close_at, closed="left"))
        out.append(Day(day, session_bars(known, open_at, close_at), close_at))
    return out


def _hours(day: date) -> tuple[datetime, datetime]:
    open_at = datetime.combine(day, time(3, 45), UTC)
    return open_at, open_at + timedelta(minutes=MINUTES)


def _minute_bars(symbol: str, days: list[date], seed: int, missing: float) -> pl.DataFrame:
    rng = np.random.default_rng([seed, *symbol.encode()])
    n = len(days) * MINUTES
    close = 250.0 * np.exp(np.cumsum(rng.normal(0, 0.001, n)))
    open_ = np.concatenate([[250.0], close[:-1]]) * np.exp(rng.normal(0, 0.0002, n))
    ts = [_hours(day)[0] + timedelta(minutes=i) for day in days for i in range(MINUTES)]
    bars = pl.DataFrame(
        {
            "symbol": symbol,
            "ts": pl.Series(ts, dtype=pl.Datetime("us", "UTC")),
            "open": open_,
            "high": np.maximum(open_, close) * (1 + rng.exponential(0.0003, n)),
            "low": np.minimum(open_, close) * (1 - rng.exponential(0.0003, n)),
            "close": close,
            "volume": rng.integers(0, 5000, n).astype(float),
            "oi": None,
        }
    )
    bars = bars.with_columns(known_at=pl.col("ts") + timedelta(minutes=1))
    return bars.filter(rng.random(n) >= missing)
