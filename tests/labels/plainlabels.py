"""Labels once more, in plain Python and as slowly as the definitions read, and random bars of short sessions."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from odin_core.market.bars import BARS
from odin_core.market.calendar import Hours

MINUTE = timedelta(minutes=1)
LENGTH = 90  # minutes of a session
SYMBOLS = ("ITC", "SBIN", "TCS")

Row = dict[str, Any]
Plain = dict[tuple[str, datetime, str, str], tuple[float | None, datetime, str | None]]


def hours_of(count: int) -> list[Hours]:
    """Consecutive sessions from 03:45 to 05:15 UTC."""
    first = datetime(2023, 1, 2, 3, 45, tzinfo=UTC)
    opens = [first + timedelta(days=i) for i in range(count)]
    return [Hours(at, at + LENGTH * MINUTE) for at in opens]


def random_minutes(
    hours: Sequence[Hours], *, seed: int = 1, missing: float = 0.1, absent: float = 0.05, tick: float = 0.05
) -> pl.DataFrame:
    """Minute bars on a coarse tick, so that levels are met exactly too; minutes and whole sessions of a symbol are
    missing. Open interest is known for the first symbol only."""
    rows: list[Row] = []
    for number, symbol in enumerate(SYMBOLS):
        rng = np.random.default_rng([seed, number])
        price = 100.0
        for session in hours:
            gone = rng.random() < absent
            for minute in range(LENGTH):
                opened = price + tick * rng.integers(-2, 3) * (rng.random() < 0.2)
                price = round(max(opened + tick * rng.integers(-3, 4), 10.0), 2)
                high = max(opened, price) + tick * rng.integers(0, 3)
                low = min(opened, price) - tick * rng.integers(0, 3)
                if gone or rng.random() < missing:
                    continue
                ts = session.open + minute * MINUTE
                rows.append({
                    "symbol": symbol, "ts": ts, "known_at": ts + MINUTE, "open": opened, "high": high, "low": low,
                    "close": price, "volume": 1.0, "oi": float(rng.integers(0, 50)) if number == 0 else None,
                })  # fmt: skip
    return pl.DataFrame(rows, schema=BARS)


def plain_barrier(path: Sequence[Row], entry: float, width: float, side: int = 1) -> tuple[int, int, float] | None:
    """Place in the path, 1 for profit or −1 for stop, and the price; None where neither is met. Multiples are 1."""
    up, down = entry * (1 + width), entry * (1 - width)
    for place, bar in enumerate(path):
        for price, met in ((down, bar["open"] <= down), (up, bar["open"] >= up)):
            if met:
                return place, 1 if (price == up) == (side > 0) else -1, bar["open"]
        hit = [p for p, met in ((up, bar["high"] >= up), (down, bar["low"] <= down)) if met]
        if hit:
            stop = down if side > 0 else up
            price = stop if stop in hit else hit[0]
            return place, -1 if price == stop else 1, price
    return None


def plain_labels(minutes: pl.DataFrame, hours: Sequence[Hours]) -> Plain:
    """Every label of bars without corporate actions that is known by the last session's close."""
    out: Plain = {}
    for symbol in minutes["symbol"].unique():
        bars = minutes.filter(pl.col("symbol") == symbol).sort("ts").rows(named=True)
        days = [[b for b in bars if s.open <= b["ts"] < s.close] for s in hours]
        grid = [_grid(day, s) for day, s in zip(days, hours, strict=True)]
        for i in range(len(hours)):
            for at in range(len(grid[i])):
                for label, came in _of_grid(i, at, days, grid, hours):
                    out[symbol, grid[i][at]["known_at"], "5m", label] = came
            for label, came in _of_day(i, days, hours) if days[i] else []:
                out[symbol, hours[i].close, "day", label] = came
    return {key: came for key, came in out.items() if came[1] <= hours[-1].close}


def _grid(day: Sequence[Row], session: Hours) -> list[Row]:
    buckets: dict[int, list[Row]] = {}
    for bar in day:
        buckets.setdefault((bar["ts"] - session.open) // (5 * MINUTE), []).append(bar)
    return [
        {"close": rows[-1]["close"], "known_at": min(session.open + (b + 1) * 5 * MINUTE, session.close)}
        for b, rows in sorted(buckets.items())
    ]


def _of_grid(i: int, at: int, days: list[list[Row]], grid: list[list[Row]], hours: Sequence[Hours]):
    now, entry, close = grid[i][at]["known_at"], grid[i][at]["close"], hours[i].close
    after = [b for b in days[i] if b["known_at"] > now]
    for count in (3, 5, 15, 30) if now < close else ():
        name, moment = f"return_{count}m", now + count * MINUTE
        latest = min(moment + 5 * MINUTE, close)
        later = [b for b in after if moment <= b["known_at"] <= latest]
        if moment > close:
            yield name, (None, close, "session_closed")
        elif not later:
            yield name, (None, latest, "no_bars")
        else:
            yield name, (later[0]["close"] / entry - 1, later[0]["known_at"], None)
    following = [b for day in ([grid[i][at + 1 :], *grid[i + 1 : i + 6]]) for b in day]
    for count in (12, 60):
        if len(following) >= count:
            bar = following[count - 1]
            yield f"return_{count}_bars", (bar["close"] / entry - 1, bar["known_at"], None)
        elif i + 5 < len(hours):
            yield f"return_{count}_bars", (None, hours[i + 5].close, "no_bars")
    changes = [
        math.log(b["close"] / a["close"])
        for day in ([*grid[max(0, i - 5) : i], grid[i][: at + 1]])
        for a, b in pairwise(day)
    ][-75:]
    if len(changes) == 75 and now < close and any(changes):
        width = math.sqrt(sum(x * x for x in changes) / 75) * math.sqrt(12)
        vertical = min(now + 60 * MINUTE, close)
        path = [b for b in after if b["known_at"] <= vertical]
        found = plain_barrier(path, entry, width)
        if found:
            came = (float(found[1]), path[found[0]]["known_at"], None)
        else:
            came = (0.0, vertical, None) if path else (None, vertical, "no_bars")
        yield "triple_barrier_60m", came


def _of_day(i: int, days: list[list[Row]], hours: Sequence[Hours]):
    entry = days[i][-1]["close"]
    for count in (1, 3, 5):
        name = f"return_{count}_session{'s' * (count > 1)}"
        if i + count < len(hours):
            end, then = hours[i + count].close, days[i + count]
            yield name, (then[-1]["close"] / entry - 1, end, None) if then else (None, end, "no_bars")
    interest = days[i][-1]["oi"]
    if interest and i + 1 < len(hours):
        then = days[i + 1]
        came = (then[-1]["oi"] / interest - 1, None) if then else (None, "no_bars")
        yield "oi_change_1_session", (came[0], hours[i + 1].close, came[1])
    closes = pd.Series([day[-1]["close"] for day in days[max(0, i - 20) : i + 1] if day])
    width = closes.pct_change().dropna().ewm(span=20).std().iloc[-1] * math.sqrt(5) if len(closes) > 10 else 0.0
    path = [b for day in days[i + 1 : i + 6] for b in day]
    for name, side in (("triple_barrier", 1), ("meta_long", 1), ("meta_short", -1)) if width > 0 else ():
        found = plain_barrier(path, entry, width, side)
        if found:
            value = float(found[1]) if name == "triple_barrier" else float(found[1] == 1)
            yield f"{name}_5_sessions", (value, path[found[0]]["known_at"], None)
        elif i + 5 < len(hours):
            has_price = bool(days[i + 5])
            yield f"{name}_5_sessions", (0.0, hours[i + 5].close, None) if has_price else (
                None, hours[i + 5].close, "no_bars",
            )  # fmt: skip
