"""Features of a session: from the last sessions' larger bars to one row per symbol, as known at the session's close.

In come frames of `odin_core.market.bars.session_bars`, one per session (symbol, interval, ts = start, known_at = end,
open, high, low, close, volume, null where the source has none), raw, and the market's corporate actions. Nothing here
knows a formula (`technical`), a path or the clock. Bars of different sessions meet only in a window, where those before
an ex-date are scaled (`odin_core.market.reference.actions`), so a range costs one pass over its bars."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.features import regime
from odin_core.features.catalogue import FEATURES, SESSIONS_NEEDED, Window
from odin_core.features.kernels import FloatArray, IntArray, fill_back
from odin_core.market import bars as market_bars
from odin_core.market.bars import INTERVAL_BARS, INTERVALS
from odin_core.market.reference import actions as corporate

__all__ = ["SESSIONS_NEEDED", "FeatureStream", "feature_schema", "session_features"]

FIELDS: Final = ("open", "high", "low", "close", "volume")
PRICE_FIELDS: Final = 4  # the first ones
FIVE_MINUTES: Final = 300_000_000  # microseconds
NO_ACTIONS: Final = corporate.EFFECTIVE.to_frame()


def feature_schema() -> pl.Schema:
    """Columns of a session's features. Units of the features are in the catalogue.

    bars_5m: 5-minute bars the symbol has in this session. market_volatility, volatility_ratio, vol_regime: of the
    market, equal in all rows (`regime`), null in warm-up. complete: every feature and the ratio are known; features
    that need volume are exempt for a symbol without any volume in its windows."""
    head = {"symbol": pl.String(), "session": pl.Date(), "decided_at": market_bars.UTC}
    tail = {
        "bars_5m": pl.Int64(),
        "market_volatility": pl.Float64(),
        "volatility_ratio": pl.Float64(),
        "vol_regime": pl.String(),
        "complete": pl.Boolean(),
    }
    return pl.Schema(head | {name: pl.Float64() for name in FEATURES} | tail)


def session_features(
    history: Sequence[pl.DataFrame], session: date, decided_at: datetime, actions: pl.DataFrame = NO_ACTIONS
) -> pl.DataFrame:
    """Features of every symbol that has a bar in `session`, sorted by symbol; columns of `feature_schema`.

    history: one frame per session of the calendar, oldest first, the session's own last (an empty frame where a session
    has no bars); only the last `SESSIONS_NEEDED` are read, and a feature whose N bars are not found there is null.
    decided_at: aware; bars with a later `known_at` do not exist. A session without bars gives an empty frame.
    actions: EFFECTIVE; those known and in effect by `decided_at` scale the bars before them, prices for splits, bonuses
    and dividends, volumes for splits and bonuses, and chain a series over its former names.
    ValueError for an empty history or a naive `decided_at`."""
    if not history:
        raise ValueError(f"features of {session}: the history must hold at least the session's own bars")
    return FeatureStream(history[:-1]).advance(history[-1], session, decided_at, actions)


class FeatureStream:
    """Features session by session, in order, each session's bars prepared once; the values are `session_features`'s.

    >>> stream = FeatureStream(history_before_the_first)  # at most the last SESSIONS_NEEDED - 1 matter
    >>> rows = stream.advance(bars, session, decided_at)  # once per session of the calendar, empty frames included
    """

    def __init__(self, history: Sequence[pl.DataFrame] = ()) -> None:
        self._sessions: deque[_SessionBars] = deque(maxlen=SESSIONS_NEEDED)
        for frame in history[-SESSIONS_NEEDED:]:
            self._take_in(frame)

    def advance(
        self, bars: pl.DataFrame, session: date, decided_at: datetime, actions: pl.DataFrame = NO_ACTIONS
    ) -> pl.DataFrame:
        """Take in the next session's bars and return its features, as `session_features` does. ValueError where they
        do not begin after the bars of the session before, so that no session counts twice."""
        if decided_at.tzinfo is None:
            raise ValueError(f"features of {session}: decided_at {decided_at} has no time zone; give it in UTC")
        self._take_in(bars)
        days = [day.known(as_of=decided_at) for day in self._sessions]
        return _features(days, session, decided_at.astimezone(UTC), corporate.as_of(actions, decided_at))

    def _take_in(self, bars: pl.DataFrame) -> None:
        day = _NO_BARS if bars.is_empty() else _SessionBars(bars)
        earlier = [d.extent.last_start for d in self._sessions if d.extent is not None]
        if day.extent is not None and earlier and day.extent.first_start <= max(earlier):
            raise ValueError(
                f"bars from {day.extent.first_start} follow bars of {max(earlier)}; "
                f"give each session's bars once, oldest session first"
            )
        self._sessions.append(day)


class _Table(NamedTuple):
    """One session's bars of one interval, symbol after symbol, oldest first."""

    row: Mapping[str, int]  # symbol to its place, in alphabetical order
    starts: IntArray  # (symbols + 1,), where each symbol's bars begin
    bars: FloatArray  # (5, bars): FIELDS
    spans: FloatArray  # (symbols,), five-minute steps from first start to last end


class _Extent(NamedTuple):
    first_start: datetime
    last_start: datetime
    last_end: datetime


@dataclass(frozen=True)
class _SessionBars:
    """One session's bars, ready to be searched. The frame is kept, because a bar may come to be known later."""

    frame: pl.DataFrame

    def known(self, *, as_of: datetime) -> "_SessionBars":
        """What had been known of this session by `as_of`: the only door by which bars come in."""
        if self.extent is None or self.extent.last_end <= as_of:
            return self
        return _SessionBars(self.frame.filter(pl.col("known_at") <= as_of))

    @cached_property
    def extent(self) -> _Extent | None:
        if self.frame.is_empty():
            return None
        ts, known_at = pl.col("ts"), pl.col("known_at")
        return _Extent(*self.frame.select(ts.min(), ts.max().alias("last_start"), known_at.max()).row(0))

    @cached_property
    def tables(self) -> dict[str, _Table]:
        """By interval; each of INTERVALS is there, if need be without a symbol."""
        ordered = self.frame.sort("interval", "symbol", "ts")
        bars = np.array([ordered[field].cast(pl.Float64).to_numpy() for field in FIELDS])
        runs = ordered.group_by("interval", "symbol", maintain_order=True).agg(
            pl.len().alias("count"),
            (pl.col("known_at").last() - pl.col("ts").first()).dt.total_microseconds().alias("span"),
        )
        starts = np.concatenate([[0], np.cumsum(runs["count"].to_numpy(), dtype=np.int64)])
        return {interval: _table(runs, starts, bars, interval) for interval in INTERVALS}

    @cached_property
    def market_volatility(self) -> float:
        table = self.tables["5m"]
        return regime.market_volatility(table.bars, table.starts, table.spans)


_NO_BARS = _SessionBars(INTERVAL_BARS.to_frame())


def _table(runs: pl.DataFrame, starts: IntArray, bars: FloatArray, interval: str) -> _Table:
    """One interval's part of a session's sorted bars; `runs` and `starts` say where each interval and symbol begins."""
    mine = np.flatnonzero((runs["interval"] == interval).to_numpy())
    edges = starts[mine[0] : mine[-1] + 2] if mine.size else starts[:1]
    row = {symbol: i for i, symbol in enumerate(runs["symbol"].gather(mine))}
    spans = runs["span"].to_numpy()[mine] / FIVE_MINUTES
    return _Table(row, edges - edges[0], np.ascontiguousarray(bars[:, edges[0] : edges[-1]]), spans)


class _Past(NamedTuple):
    """What one session's bars are to the symbols of today."""

    names: Sequence[str]  # under which each traded then
    price: FloatArray  # (symbols,), multiplies open, high, low and close; 1 for nothing
    volume: FloatArray  # (symbols,)


class _Windows(NamedTuple):
    """The last bars of one interval, one row per symbol, filled from the right."""

    bars: FloatArray  # (5, symbols, N), NaN where there is none
    filled: IntArray  # (symbols,)


def _windows(days: Sequence[_SessionBars], past: Sequence[_Past], interval: str, length: int) -> _Windows:
    count = len(past[-1].names)
    windows = _Windows(np.full((len(FIELDS), count, length), np.nan), np.zeros(count, np.int64))
    for day, then in zip(reversed(days), reversed(past), strict=True):
        table = day.tables[interval]
        rows = np.array([table.row.get(name, -1) for name in then.names], np.int64)
        before = windows.filled.copy()
        fill_back(table.bars, table.starts, rows, windows.bars, windows.filled)
        for s in np.flatnonzero((then.price != 1.0) | (then.volume != 1.0)):
            added = windows.bars[:, s, length - windows.filled[s] : length - before[s]]
            added[:PRICE_FIELDS] *= then.price[s]
            added[PRICE_FIELDS:] *= then.volume[s]
        if windows.filled.min() == length:
            break
    return windows


def _pasts(days: Sequence[_SessionBars], symbols: Sequence[str], actions: pl.DataFrame) -> list[_Past]:
    """For each day, how its bars enter today's windows. `actions`: EFFECTIVE, in effect by the decision."""
    ones = np.ones(len(symbols))
    pasts = [_Past(symbols, ones, ones) for _ in days]
    begin = min(day.extent.first_start for day in days if day.extent is not None)
    relevant = actions.filter(pl.col("ex_at") > begin)
    if relevant.is_empty():
        return pasts
    closes = pl.concat([day.frame.select("symbol", "ts", "known_at", "close") for day in days])
    last = closes.sort("known_at", "ts").group_by("symbol", "known_at", maintain_order=True).last()
    made = corporate.steps(relevant, last)
    renames = relevant.filter(pl.col("kind") == "rename")
    for i, day in enumerate(days):
        if day.extent is None:
            continue
        start = day.extent.first_start
        when = pl.DataFrame({"symbol": symbols, "ts": start}, schema={"symbol": pl.String, "ts": market_bars.UTC})
        found = corporate.factors_at(when, made)
        price = found.select(pl.col("split") * pl.col("dividend")).to_series().to_numpy()
        pasts[i] = _Past(corporate.former_names(symbols, renames, start), price, found["volume"].to_numpy())
    return pasts


def _features(days: Sequence[_SessionBars], session: date, decided_at: datetime, actions: pl.DataFrame) -> pl.DataFrame:
    today = days[-1].tables["5m"]
    symbols = list(today.row)
    if not symbols:
        return feature_schema().to_frame()
    lengths = {i: max((f.bars for f in FEATURES.values() if f.interval == i), default=0) for i in INTERVALS}
    past = _pasts(days, symbols, actions)
    windows = {interval: _windows(days, past, interval, length) for interval, length in lengths.items()}
    features = {name: _column(name, windows) for name in FEATURES}
    volatility = np.array([day.market_volatility for day in days])
    ratio = regime.volatility_ratio(volatility)
    shared = {
        "session": session,
        "decided_at": decided_at,
        "market_volatility": float(volatility[-1]),
        "volatility_ratio": ratio,
        "vol_regime": regime.regime_of(ratio),
    }
    data = {name: [value] * len(symbols) for name, value in shared.items()}
    complete = _all_known(features, windows) & (ratio is not None)
    data |= {"symbol": symbols, "bars_5m": np.diff(today.starts), "complete": complete, **features}
    schema = feature_schema()
    return pl.DataFrame({name: data[name] for name in schema}, schema=schema, nan_to_null=True)


def _all_known(features: Mapping[str, FloatArray], windows: Mapping[str, _Windows]) -> NDArray[np.bool_]:
    """(symbols,): every feature has a value, those that need volume only where the symbol has any in its windows."""
    volume = FIELDS.index("volume")
    has_volume = np.any([~np.isnan(w.bars[volume]).all(axis=1) for w in windows.values()], axis=0)
    known = [~np.isnan(values) | (FEATURES[name].needs_volume & ~has_volume) for name, values in features.items()]
    return np.all(known, axis=0)


def _column(name: str, windows: Mapping[str, _Windows]) -> FloatArray:
    """One feature of all symbols; NaN where the window is not full or the value is not a finite number."""
    feature = FEATURES[name]
    bars, filled = windows[feature.interval]
    ready = np.flatnonzero(filled >= feature.bars)
    column = np.full(len(filled), np.nan)
    if ready.size:
        fields = np.ascontiguousarray(bars[:, ready, bars.shape[2] - feature.bars :])
        values = feature.formula(Window(*fields))
        column[ready] = np.where(np.isfinite(values), values, np.nan)
    return column
