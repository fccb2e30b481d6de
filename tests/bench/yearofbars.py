"""A year of minute bars of 50 symbols for benches: random walks in NSE's sessions, on the tick, with whole volumes."""

from datetime import date

import numpy as np
import polars as pl

from odin_core.market.bars import BARS, MINUTE
from odin_core.market.calendar import SessionCalendar, session_calendar
from odin_core.market.profile import load_profile

SYMBOLS = [f"SYM{n:03d}" for n in range(50)]
CALENDAR: SessionCalendar = session_calendar(load_profile("nse"))
SESSIONS = CALENDAR.sessions(date(2022, 1, 1), date(2022, 12, 31))


def session(day: date) -> pl.DataFrame:
    """The bars (BARS) of one session, every minute of every symbol."""
    rng = np.random.default_rng(day.toordinal())
    opens, closes = CALENDAR.hours(day)
    minutes = (closes - opens) // MINUTE
    shape = (len(SYMBOLS), minutes)
    close = np.round(500 * np.exp(np.cumsum(rng.normal(0, 6e-4, shape), axis=1)) * 20) / 20
    open_ = np.hstack([np.full((len(SYMBOLS), 1), 500.0), close[:, :-1]])
    wick = np.round(rng.exponential(0.2, (2, *shape)) * 20) / 20
    ts = pl.datetime_range(opens, closes, "1m", closed="left", time_unit="us", time_zone="UTC", eager=True)
    stamps = pl.concat([ts] * len(SYMBOLS))
    return pl.DataFrame(
        {
            "symbol": np.repeat(SYMBOLS, minutes),
            "ts": stamps,
            "known_at": stamps + MINUTE,
            "open": open_.ravel(),
            "high": (np.maximum(open_, close) + wick[0]).ravel(),
            "low": (np.minimum(open_, close) - wick[1]).ravel(),
            "close": close.ravel(),
            "volume": rng.integers(0, 20_000, shape).astype(np.float64).ravel(),
            "oi": None,
        },
        schema=BARS,
    )
