"""Speed of larger bars out of minute bars, session by session as everywhere, 50 symbols each.

The peer is the plain alternative: polars' `group_by_dynamic` over all the sessions at once, on the clock's grid; it
knows no session's edge, no `known_at` and no missing volume."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import polars as pl
from yearofbars import CALENDAR, SESSIONS, session

from odin_core.market.bars import INTERVALS, resample, session_bars

USED = SESSIONS[:40]
REPEATS = 7


def run() -> list[dict[str, Any]]:
    """Rows of minute bars read per second: to one interval, and to all four at once; medians of seven."""
    days = [(session(day), *CALENDAR.hours(day)) for day in USED]
    whole = pl.concat([bars for bars, _, _ in days]).sort("symbol", "ts")
    rows = [
        {
            "bench": f"resample_{interval}",
            "value": rate(whole, lambda i=interval: [resample(b, i, open_at=o, close_at=c) for b, o, c in days]),
            "unit": "bars/s",
            "peer": "polars group_by_dynamic, no sessions",
            "peer_value": rate(whole, lambda i=interval: dynamic(whole, i)),
        }
        for interval in ("5m", "15m", "60m")
    ]
    return [
        *rows,
        {
            "bench": "resample",
            "value": rate(whole, lambda: [session_bars(b, o, c) for b, o, c in days]),
            "unit": f"bars/s, to {', '.join(INTERVALS)} at once",
            "peer": "polars group_by_dynamic to 5m, 15m, 60m",
            "peer_value": rate(whole, lambda: [dynamic(whole, i) for i in ("5m", "15m", "60m")]),
        },
    ]


def dynamic(bars: pl.DataFrame, interval: str) -> pl.DataFrame:
    first, last, top, low = pl.col("open").first(), pl.col("close").last(), pl.col("high").max(), pl.col("low").min()
    return bars.group_by_dynamic("ts", every=interval, group_by="symbol").agg(first, top, low, last, pl.sum("volume"))


def rate(bars: pl.DataFrame, work: Callable[[], object]) -> float:
    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return bars.height / statistics.median(once() for _ in range(REPEATS))
