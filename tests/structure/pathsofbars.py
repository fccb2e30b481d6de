"""Bars for tests of structure: drawn paths on a grid of binary fractions, where sums and differences are exact, so that
what should be equal can be asked to be equal in every bit; and long random walks."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from hypothesis import strategies as st
from numpy.typing import NDArray

START = datetime(2023, 1, 2, 3, 45, tzinfo=UTC)
TICK = 1 / 64


def bars(high: NDArray, low: NDArray, close: NDArray, symbol: str = "A") -> pl.DataFrame:
    """Minute bars of one symbol."""
    ts = pl.Series([START + timedelta(minutes=i) for i in range(len(high))], dtype=pl.Datetime("us", "UTC"))
    frame = pl.DataFrame({"ts": ts, "known_at": ts + timedelta(minutes=1), "high": high, "low": low, "close": close})
    return frame.select(pl.lit(symbol).alias("symbol"), pl.all())


def known_after(rows: int) -> datetime:
    """When the first `rows` bars have ended."""
    return START + timedelta(minutes=rows)


@st.composite
def paths(draw: st.DrawFn, least: int = 1, most: int = 60, symbol: str = "A") -> pl.DataFrame:
    """Bars whose closes walk a few ticks at a time, so that equal highs and lows, outside bars and halts are common."""
    bar = st.tuples(st.integers(-4, 4), st.integers(0, 3), st.integers(0, 3))
    step, above, below = np.array(draw(st.lists(bar, min_size=least, max_size=most))).T
    close = 100 + TICK * np.cumsum(step)
    return bars(close + TICK * above, close - TICK * below, close, symbol)


def walk(rows: int, seed: int, symbol: str = "A") -> pl.DataFrame:
    """A random walk of closes around 100, about 0.1 a bar."""
    rng = np.random.default_rng([seed, *symbol.encode()])
    close = 100 + np.cumsum(rng.normal(0, 0.1, rows))
    return bars(close + rng.exponential(0.05, rows), close - rng.exponential(0.05, rows), close, symbol)


def arrays(frame: pl.DataFrame) -> tuple[NDArray, NDArray, NDArray]:
    return frame["high"].to_numpy(), frame["low"].to_numpy(), frame["close"].to_numpy()


def moved(frame: pl.DataFrame, factor: float = 1.0, shift: float = 0.0) -> pl.DataFrame:
    """The same bars at factor · price + shift."""
    return frame.with_columns(pl.col("high", "low", "close") * factor + shift)


def upside_down(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(high=-pl.col("low"), low=-pl.col("high"), close=-pl.col("close"))


def with_rows_replaced(frame: pl.DataFrame, first: int, end: int) -> pl.DataFrame:
    """The same bars, but rows [first, end) somewhere else altogether."""
    inside = pl.int_range(pl.len()).is_between(first, end, closed="left")
    other = 7 + 3 * pl.col("close") % 5
    return frame.with_columns(
        high=pl.when(inside).then(other + 9).otherwise("high"),
        low=pl.when(inside).then(other - 2).otherwise("low"),
        close=pl.when(inside).then(other).otherwise("close"),
    )
