"""Markets for tests of the tables of structure: one minute bar every quarter of an hour, so that a history is few rows;
regimes are planted in its last 95 sessions."""

import os
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from plantedregimes import high_low_close

from odin_core.lake import Lake
from odin_core.market.bars import BARS, MINUTE, MINUTE_TABLE
from odin_core.market.calendar import SessionCalendar, session_calendar
from odin_core.market.data import MarketData
from odin_core.market.profile import MarketProfile, load_profile
from odin_core.structure.table import HISTORY

NSE = load_profile("nse")
CALENDAR = session_calendar(NSE)
LAST = date(2021, 11, 16)
SESSIONS = CALENDAR.sessions(CALENDAR.previous(LAST, HISTORY + 9), LAST)
NSE_SYMBOLS = {"INFY": 1, "ITC": 2, "TCS": 0}  # and the planted regime of their last 20 sessions


def bars_at(symbol: str, starts: pl.Series, close: np.ndarray, wick: np.ndarray) -> pl.DataFrame:
    """Minute bars (BARS) that start there, each of which opens at the close before."""
    opened = np.append(close[0], close[:-1])
    prices = {"open": opened, "high": np.maximum(opened, close) * wick, "low": np.minimum(opened, close) / wick}
    columns = {"symbol": pl.lit(symbol), "ts": starts, "known_at": starts + MINUTE, **prices, "close": close}
    return pl.select(**columns, volume=pl.lit(1.0), oi=pl.lit(None, pl.Float64)).select(BARS.names())


def quarter_hours(calendar: SessionCalendar, sessions: Sequence[date]) -> list[pl.Series]:
    return [
        pl.datetime_range(*calendar.hours(s), "15m", closed="left", time_unit="us", time_zone="UTC", eager=True)
        for s in sessions
    ]


def market_of(calendar: SessionCalendar, sessions: Sequence[date], symbols: dict[str, int]) -> dict[date, pl.DataFrame]:
    """One minute bar every quarter of an hour; calm but for the last 20 sessions, which are of the planted regime."""
    starts = quarter_hours(calendar, sessions)
    lengths = [len(s) for s in starts]
    made = []
    for number, (symbol, state) in enumerate(symbols.items()):
        rng = np.random.default_rng([number, 1])
        states = np.repeat([1, 0, 2, 1, state], [len(sessions) - 95, 25, 25, 25, 20])
        daily = np.log(high_low_close(states, rng)[:, 2])
        steps = np.repeat(np.diff(daily, prepend=daily[0]) / lengths, lengths)
        noise = np.repeat(np.where(states == 2, 0.004, 0.0012), lengths) * rng.normal(size=len(steps))
        close = np.exp(np.cumsum(steps) + daily[0] + noise)
        made.append(bars_at(symbol, pl.concat(starts), close, 1 + rng.exponential(5e-4, len(close))))
    whole = pl.concat(made)
    hours = [calendar.hours(s) for s in sessions]
    return {
        session: whole.filter(pl.col("ts").is_between(*hour, closed="left")).sort("symbol", "ts")
        for session, hour in zip(sessions, hours, strict=True)
    }


def linked(source: Path, root: Path) -> MarketData:
    """A lake of its own with the same files: they are replaced, never changed."""
    shutil.copytree(source, root, copy_function=os.link)
    return MarketData(Lake(root), NSE)


def stored(root: Path, bars: dict[date, pl.DataFrame], profile: MarketProfile = NSE) -> MarketData:
    lake = Lake(root)
    for session, frame in bars.items():
        lake.write(MINUTE_TABLE, session, frame)
    return MarketData(lake, profile)
