"""One further session of 50 symbols, given the bars that its features look back on: what a live market asks every day.

The 40 features of minute bars of bench `features`, and whole sets on their usual grids, in memory. The peer is the same
on all the sessions that there are, as one computes who cannot begin in the middle."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import features
import polars as pl
from yearofbars import CALENDAR, SESSIONS, session

from odin_core.features.catalogue import INTERVALS, Feature, features_of
from odin_core.features.engine import evaluate, sessions_needed, with_inputs
from odin_core.features.filling import Span
from odin_core.market.bars import BARS, resample_sessions

USED = SESSIONS[:71]  # the last is the further one; day features look back on about as many before it
HOURS = [CALENDAR.hours(day) for day in USED]
REPEATS = 15


def run() -> list[dict[str, Any]]:
    """Milliseconds, medians of fifteen; the peer's once."""
    whole = bars_of_all()
    asked: dict[str, tuple[Sequence[Feature], str]] = {
        "features_one_session": (features.features(), "1m"),
        "features_one_session_technical": (features_of("technical"), "5m"),
        "features_one_session_decision": (features_of("decision"), "day"),
    }
    rows = []
    for name, (of, grid) in asked.items():
        before = min(sessions_needed(of, grid, features.PER_SESSION), len(USED) - 1)
        first = len(USED) - 1 - before
        recent = {interval: needed(bars, interval, of, grid) for interval, bars in whole.items()}
        span = Span(HOURS[first:], before, features.PER_SESSION)
        evaluate(recent, of, grid, span)
        taken = statistics.median(seconds(recent, of, grid, span) for _ in range(REPEATS))
        every = seconds(whole, of, grid, Span(HOURS, 0, features.PER_SESSION))
        unit, peer = f"ms, {len(of)} features on {grid}", f"all {len(USED)} sessions"
        rows.append(features.row(name, 1e3 * taken, unit, peer, 1e3 * every))
    return rows


def bars_of_all() -> dict[str, pl.DataFrame]:
    minutes = pl.concat([session(day) for day in USED]).sort("symbol", "ts")
    larger = {i: resample_sessions(minutes, i, HOURS).select(BARS.names()).sort("symbol", "ts") for i in INTERVALS[1:]}
    return {"1m": minutes, **larger}


def needed(bars: pl.DataFrame, interval: str, of: Sequence[Feature], grid: str) -> pl.DataFrame:
    """The further session's bars and those of as many before it as the interval's features need."""
    own = [f for f in with_inputs(of) if f.interval == interval]
    reach = min(sessions_needed(own, grid, features.PER_SESSION), len(USED) - 1)
    return bars.filter(pl.col("ts") >= HOURS[-1 - reach].open)


def seconds(bars: Mapping[str, pl.DataFrame], of: Sequence[Feature], grid: str, span: Span) -> float:
    return features.seconds(lambda: evaluate(bars, of, grid, span))
