"""Small files of NSE bars for tests: the synthetic exchange's, under other names, moved to NSE's sessions of 2021."""

from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path

import polars as pl
from smalllives import small_profile

from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile
from odin_core.market.synthetic import SyntheticExchange

COLUMNS = ("ts", "symbol", "open", "high", "low", "close", "volume")
NAMES = ("INFY", "RELIANCE", "SBIN", "TCS")
CALENDAR = session_calendar(load_profile("nse"))
FIRST, LAST = date(2021, 4, 1), date(2021, 4, 13)  # the life; two weeks of warm-up lie before
WARM_UP = CALENDAR.previous(FIRST, 13)


@cache
def bars() -> pl.DataFrame:
    """Columns as in an import: 375 minutes of each symbol and session from the warm-up's first to LAST."""
    exchange = SyntheticExchange(small_profile(len(NAMES)), seed=7, edge=0.5, symbols=len(NAMES))
    source = session_calendar(load_profile("demo"))
    sessions = CALENDAR.sessions(WARM_UP, LAST)
    frames = []
    for session, origin in zip(sessions, source.sessions(date(2022, 11, 1))[: len(sessions)], strict=True):
        shift = CALENDAR.hours(session).open - source.hours(origin).open
        frames.append(exchange.bars(origin).with_columns(pl.col("ts") + shift))
    whole = pl.concat(frames)
    names = dict(zip(sorted(whole["symbol"].unique()), NAMES, strict=True))
    return whole.with_columns(pl.col("symbol").replace_strict(names)).select(COLUMNS)


def of(sessions: Sequence[date], *symbols: str) -> pl.DataFrame:
    return bars().filter(pl.col("ts").dt.date().is_in(sessions) & pl.col("symbol").is_in(symbols or NAMES))


def written(frame: pl.DataFrame, path: Path) -> Path:
    frame.write_parquet(path)
    return path
