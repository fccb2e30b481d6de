"""Random sessions for tests of features: minute bars with gaps and jumps, larger bars made of them, and their hours.

Sessions are short, 65 minutes, so that a hundred of them, which features of day bars look back over, are few rows."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from odin_core.features.catalogue import INTERVALS, Feature, all_features
from odin_core.features.engine import NO_ACTIONS, Rows, evaluate, sessions_needed
from odin_core.features.filling import Span
from odin_core.lake import logical_hash
from odin_core.market.bars import BARS, resample_sessions
from odin_core.market.calendar import Hours
from odin_core.market.reference.actions import EFFECTIVE

MINUTES = 65
PER_SESSION: Mapping[str, int] = {"1m": 65, "5m": 13, "15m": 5, "60m": 2, "day": 1}
SYMBOLS = ("AXIS", "CIPLA", "ITC", "SBIN")
NUMBERS = ("open", "high", "low", "close", "volume", "oi")
Edit = Callable[[pl.DataFrame], pl.DataFrame]


def of_bars(*intervals: str) -> tuple[Feature, ...]:
    """Every feature of the catalogue that follows from bars, of these intervals (default: all)."""
    return tuple(
        f for f in all_features().values() if f.definition.kind != "facts" and f.interval in (intervals or INTERVALS)
    )


@dataclass(frozen=True)
class History:
    """Consecutive sessions of bars by interval, and what features say of them."""

    hours: tuple[Hours, ...]
    tables: Mapping[str, pl.DataFrame]
    actions: pl.DataFrame = field(default_factory=NO_ACTIONS.clone)

    def values(
        self,
        first: int,
        last: int,
        grid: str,
        features: Sequence[Feature],
        *,
        before: int | None = None,
        threads: int | None = None,
    ) -> pl.DataFrame:
        """Rows of sessions first to last (places in `hours`; -1 is the last one), from that many sessions before them
        (default: those that are needed): symbol, known_at, session, and each feature as Float32, NaN where unknown."""
        first, last = first % len(self.hours), last % len(self.hours)
        needed = sessions_needed(features, grid, PER_SESSION) if before is None else before
        start = max(first - needed, 0)
        span = Span(self.hours[start : last + 1], first - start, PER_SESSION)
        rows = evaluate(self.between(start, last), features, grid, span, actions=self.actions, threads=threads)
        return frame_of(rows).with_columns(pl.col("session") + start)

    def between(self, first: int, last: int) -> dict[str, pl.DataFrame]:
        inside = pl.col("ts").is_between(self.hours[first].open, self.hours[last].close, closed="left")
        return {interval: bars.filter(inside) for interval, bars in self.tables.items()}

    def edited(self, edit: Edit, *intervals: str) -> "History":
        """With other bars of these intervals (default: all)."""
        chosen = intervals or tuple(self.tables)
        return replace(self, tables={i: edit(t) if i in chosen else t for i, t in self.tables.items()})

    def without(self, rows: pl.Expr) -> "History":
        return self.edited(lambda bars: bars.filter(~rows))

    def in_sessions(self, *places: int) -> pl.Expr:
        """The bars of these sessions."""
        spans = (self.hours[place] for place in places)
        return pl.any_horizontal(pl.col("ts").is_between(h.open, h.close, closed="left") for h in spans)

    def acted(self, *actions: dict[str, Any]) -> "History":
        """With corporate actions: symbol, session (its place, at whose open it takes effect), kind; known a minute
        before unless `known_at` says otherwise."""
        rows = []
        for action in actions:
            ex_at = self.hours[action["session"]].open
            told = {"known_at": ex_at - timedelta(minutes=1), "origin": "by hand", "origin_id": "0" * 16} | action
            rows.append({**dict.fromkeys(EFFECTIVE), **told, "ex_at": ex_at, "ex_date": ex_at.date()})
        frame = pl.DataFrame([{name: row[name] for name in EFFECTIVE} for row in rows], schema=EFFECTIVE)
        return replace(self, actions=frame.sort("ex_at", "symbol", "kind"))


def frame_of(rows: Rows) -> pl.DataFrame:
    return rows.keys.hstack([pl.Series(f.name, v) for f, v in zip(rows.features, rows.values, strict=True)])


def random_history(sessions: int, *, seed: int = 1, missing: float = 0.03, symbols: Sequence[str] = SYMBOLS) -> History:
    """`sessions` consecutive days; each minute of a symbol is missing with the given probability. A symbol's bars come
    from its own stream, so it has the same bars in whatever company."""
    hours = tuple(_hours(date(2023, 1, 2) + timedelta(days=i)) for i in range(sessions))
    minutes = pl.concat([_minute_bars(symbol, hours, seed, missing) for symbol in symbols])
    return made_of(minutes, hours)


@cache
def long_history() -> History:
    """As many sessions as day features and twenty sessions need, the same for every test; not to be changed."""
    return random_history(sessions_needed(of_bars(), "1m", PER_SESSION) + 20)


def made_of(minutes: pl.DataFrame, hours: Sequence[Hours]) -> History:
    """Minute bars and the larger ones that are made of them."""
    ordered = minutes.sort("symbol", "ts")
    larger = {i: resample_sessions(ordered, i, hours).select(BARS.names()).sort("symbol", "ts") for i in INTERVALS[1:]}
    return History(tuple(hours), {"1m": ordered, **larger})


def scrambled(bars: pl.DataFrame, rows: pl.Expr, seed: int = 0) -> pl.DataFrame:
    """The same bars with other prices, volumes and open interest in `rows`; a bar's high and low still enclose it."""
    key = pl.struct("symbol", "ts")
    factor = {name: key.hash(100 * seed + i) % 1000 / 500 + 0.1 for i, name in enumerate(NUMBERS)}
    mixed = bars.with_columns(
        pl.when(rows).then(pl.col(name) * by).otherwise(pl.col(name)) for name, by in factor.items()
    )
    return mixed.with_columns(high=pl.max_horizontal("open", "high", "low", "close")).with_columns(
        low=pl.min_horizontal("open", "high", "low", "close")
    )


def assert_same_bits(left: pl.DataFrame, right: pl.DataFrame) -> None:
    assert_frame_equal(left, right, check_exact=True)
    assert logical_hash(left) == logical_hash(right)


def differing(left: pl.DataFrame, right: pl.DataFrame) -> set[str]:
    """Columns of two frames with equal keys that differ in any bit."""
    return {c for c in left.columns[3:] if left[c].to_numpy().tobytes() != right[c].to_numpy().tobytes()}


def by_warm_up(features: Iterable[Feature]) -> dict[int, list[Feature]]:
    groups = defaultdict(list)
    for feature in features:
        groups[feature.bars].append(feature)
    return groups


def age_before(history: History, session: int) -> pl.Expr:
    """How many bars of its symbol a bar lies before the session: 1 for the last one before it, 0 inside."""
    is_before = pl.col("ts") < history.hours[session].open
    return pl.when(is_before).then(pl.col("ts").rank("ordinal", descending=True).over("symbol", is_before)).otherwise(0)


def _hours(day: date) -> Hours:
    open_at = datetime.combine(day, time(3, 45), UTC)
    return Hours(open_at, open_at + timedelta(minutes=MINUTES))


def _minute_bars(symbol: str, hours: Sequence[Hours], seed: int, missing: float) -> pl.DataFrame:
    rng = np.random.default_rng([seed, *symbol.encode()])
    n = len(hours) * MINUTES
    steps = rng.normal(0, 0.001, n) * rng.choice([0.0, 1.0, 8.0], n, p=[0.1, 0.88, 0.02])
    close = 250.0 * np.exp(np.cumsum(steps))
    open_ = np.concatenate([[250.0], close[:-1]]) * np.exp(rng.normal(0, 0.0002, n))
    ts = [h.open + timedelta(minutes=i) for h in hours for i in range(MINUTES)]
    bars = pl.DataFrame(
        {
            "symbol": symbol,
            "ts": pl.Series(ts, dtype=pl.Datetime("us", "UTC")),
            "open": open_,
            "high": np.maximum(open_, close) * (1 + rng.exponential(0.0003, n)),
            "low": np.minimum(open_, close) * (1 - rng.exponential(0.0003, n)),
            "close": close,
            "volume": rng.integers(0, 5000, n).astype(float),
            "oi": 1e6 + np.cumsum(rng.integers(-500, 500, n)).astype(float),
        }
    )
    bars = bars.with_columns(known_at=pl.col("ts") + timedelta(minutes=1)).select(BARS.names()).cast(BARS)
    return bars.filter(rng.random(n) >= missing)
