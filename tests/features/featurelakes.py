"""Lakes for tests of features: a market's bars in their places, and what files of features lie there."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from odin_core.home import open_home
from odin_core.lake import Lake
from odin_core.market.bars import BARS
from odin_core.market.calendar import SessionCalendar, session_calendar
from odin_core.market.data import PRICES, MarketData
from odin_core.market.profile import load_profile


def tables(lake: Lake) -> dict[str, tuple[int, int]]:
    """Every file of features with its number and time: another number is another file."""
    found = (
        p for p in lake.root.rglob("*") if p.is_file() and p.relative_to(lake.root).parts[0].startswith("features")
    )
    return {str(p.relative_to(lake.root)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in sorted(found)}


def lake_of(folder: Path, market: str, bars: pl.DataFrame, table: str = PRICES) -> MarketData:
    """A market's lake with these bars, each session's in its place."""
    profile = load_profile(market)
    lake, calendar = open_home(folder).lake(market), session_calendar(profile)
    first, last = (bars["ts"].dt.date().min(), bars["ts"].dt.date().max())
    assert isinstance(first, date)
    assert isinstance(last, date)
    for session in calendar.sessions(first, last):
        own = bars.filter(pl.col("ts").is_between(*calendar.hours(session), closed="left"))
        if own.height:
            lake.write(table, session, own)
    return MarketData(lake, profile)


def walks(
    calendar: SessionCalendar, sessions: Sequence[date], symbols: Sequence[str], minutes: int = 1
) -> pl.DataFrame:
    """Random walks: bars of so many minutes, all of each session."""
    rng, frames = np.random.default_rng(3), []
    for symbol in symbols:
        step = f"{minutes}m"
        hours = [calendar.hours(session) for session in sessions]
        ts = pl.concat(pl.datetime_range(*h, step, closed="left", time_unit="us", eager=True) for h in hours)
        close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, len(ts))))
        bars = pl.DataFrame({"symbol": symbol, "ts": ts, "open": np.roll(close, 1), "close": close, "volume": 5.0})
        frames.append(
            bars.with_columns(
                known_at=pl.col("ts") + timedelta(minutes=minutes),
                high=pl.max_horizontal("open", "close"),
                low=pl.min_horizontal("open", "close"),
                oi=None,
            )
        )
    return pl.concat(frame.select(BARS.names()).cast(BARS) for frame in frames)
