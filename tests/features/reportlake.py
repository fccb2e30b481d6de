"""For the pages of features: a small lake of NSE minute bars (three symbols, a gap, an index without volume), and what
a page draws and names."""

import re
from datetime import date
from html.parser import HTMLParser
from typing import Any

import numpy as np
import polars as pl

from odin_core.features.report.drawing import VALUE
from odin_core.lake import Lake
from odin_core.market.bars import BARS, MINUTE
from odin_core.market.calendar import session_calendar
from odin_core.market.data import MarketData
from odin_core.market.profile import load_profile

PROFILE = load_profile("nse")
CALENDAR = session_calendar(PROFILE)
SESSIONS = CALENDAR.sessions(date(2021, 4, 1), date(2021, 4, 23))
FIRST, LAST = SESSIONS[0], SESSIONS[-1]
SILENT = SESSIONS[6:10]  # sessions in which BB is not there
SYMBOLS = ("AA", "BB", "NIFTY")


def bars_of(session: date, symbol: str, level: float) -> pl.DataFrame:
    """A random walk of a session's 375 minutes; NIFTY, the index, has no volume."""
    rng = np.random.default_rng([session.toordinal(), len(symbol), ord(symbol[0])])
    path = level * np.exp(np.cumsum(rng.normal(0, 5e-4, 376)))
    open_, close = path[:-1], path[1:]
    wicks = 1 + rng.exponential(2e-4, (2, 375))
    frame = pl.DataFrame(
        {
            "symbol": symbol,
            "ts": [CALENDAR.hours(session).open + MINUTE * n for n in range(375)],
            "open": open_,
            "high": np.maximum(open_, close) * wicks[0],
            "low": np.minimum(open_, close) / wicks[1],
            "close": close,
            "volume": None if symbol == "NIFTY" else rng.integers(1, 900, 375) * (10.0 if symbol == "AA" else 1.0),
            "oi": None,
        }
    ).with_columns(known_at=pl.col("ts") + MINUTE)
    return frame.select(pl.col(name).cast(dtype) for name, dtype in BARS.items())


def fill(lake: Lake) -> MarketData:
    for session in SESSIONS:
        present = [s for s in SYMBOLS if s != "BB" or session not in SILENT]
        lake.write("price_history", session, pl.concat([bars_of(session, s, 100.0) for s in present]))
    return MarketData(lake, PROFILE)


RESOURCES = ("src", "href", "data", "srcset", "poster")


class Parts(HTMLParser):
    """What a page names: the ids in it, and everything that it would load or go to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.ids += [value for name, value in attrs if name == "id"]
        self.sources += [value for name, value in attrs if name in RESOURCES]


def entry_of(page: str, name: str) -> str:
    return page.split(f'<section class="entry" id="{name}">')[1].split("</section>")[0]


def points_of(drawing: str, kind: str = "value") -> np.ndarray:
    """(points, 2) of the line of that class."""
    path = re.search(rf'class="{kind}" d="([^"]*)"', drawing)
    assert path
    return np.array(re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path[1]), float).reshape(-1, 2)


def drawn(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return VALUE[1] - (values - low) / (high - low) * (VALUE[1] - VALUE[0])
