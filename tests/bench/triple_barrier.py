"""Speed of triple-barrier labels: one on every minute bar, vertical barrier 60 bars later, on one core; and of all
labels of one further session of 50 symbols.

The peer of the first is numpy over windows of 60 bars, 16,384 at a time: highs and lows are compared with the levels
and the first place is found; no open, no exit price. (mlfinpy, which asks pandas event by event, was seen at 2,000
labels/s.) That of the second is the labels of all the sessions that are read for it."""

from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view
from timing import seconds
from yearofbars import CALENDAR, SESSIONS, session

from odin_core.labels import labels_of, triple_barrier
from odin_core.labels.grids import HISTORY
from odin_core.labels.kernels import first_touch
from odin_core.labels.sessions import LONGEST
from odin_core.market.bars import BARS, resample_sessions

USED = SESSIONS[:126]  # 2.36 million bars
WIDTH, VERTICAL = 0.002, 60
CHUNK = 16_384
REPEATS = 7


def run() -> list[dict[str, Any]]:
    """Labels per second by the compiled search and by the function on frames, and seconds of a session; medians."""
    bars = pl.concat([session(day) for day in USED]).sort("symbol", "ts")
    row = np.arange(bars.height)
    symbols = bars["symbol"].rle().struct.field("len").to_numpy().astype(np.int64)
    end = np.repeat(np.cumsum(symbols), symbols)
    opened, high, low, close = (bars[name].to_numpy() for name in ("open", "high", "low", "close"))
    width, is_long = np.full(bars.height, WIDTH), np.ones(bars.height, np.bool_)
    events = bars.select("symbol", decided_at="known_at")
    prices = (opened, high, low, close)
    peer = bars.height / seconds(lambda: windows(high, low, close, np.cumsum(symbols)), 3)

    def search() -> object:
        return first_touch(prices, row, row + VERTICAL, end, width, is_long, 1.0, 1.0, False)

    def on_frames() -> object:
        return triple_barrier(bars, events, target=WIDTH, pt_sl=(1, 1), min_ret=0.0, vertical=VERTICAL)

    rows = [
        {
            "bench": name,
            "value": bars.height / seconds(work, REPEATS),
            "unit": f"labels/s, {what} in and out",
            "peer": "numpy windows",
            "peer_value": peer,
        }
        for name, what, work in (("triple_barrier", "arrays", search), ("triple_barrier_frames", "frames", on_frames))
    ]
    return [*rows, one_session()]


def windows(high: np.ndarray, low: np.ndarray, close: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """1, −1 or 0 for each bar; 0 also where the symbol's bars end before its vertical barrier."""
    out, start = np.zeros(len(close), np.int8), 0
    for end in ends:
        above, below = (sliding_window_view(prices[start + 1 : end], VERTICAL) for prices in (high, low))
        for first in range(0, len(above), CHUNK):
            entry = close[start + first : start + first + CHUNK][: len(above) - first, None]
            up = above[first : first + CHUNK] >= entry * (1 + WIDTH)
            down = below[first : first + CHUNK] <= entry * (1 - WIDTH)
            met = up | down
            at, every = met.argmax(axis=1), np.arange(len(met))
            kind = np.where(down[every, at], -1, up[every, at])
            out[start + first : start + first + len(met)] = kind
        start = end
    return out


def one_session() -> dict[str, Any]:
    days = USED[:HISTORY]
    hours = [CALENDAR.hours(day) for day in days]
    bars = [session(day) for day in days]
    every, recent = pl.concat(bars), pl.concat(bars[-1 - LONGEST :])
    whole = resample_sessions(every, "day", hours).select(BARS.names())

    def since(minutes: pl.DataFrame, moment: datetime) -> float:
        return seconds(lambda: labels_of(minutes, whole, hours, since=moment, as_of=hours[-1].close), 5)

    return {
        "bench": "labels_one_session",
        "value": since(recent, hours[-2].close),
        "unit": "s, every label of 50 symbols",
        "peer": f"all of {HISTORY} sessions",
        "peer_value": since(every, hours[0].open),
    }
