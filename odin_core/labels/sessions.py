"""Bars of consecutive sessions as arrays by session and symbol, and how prices of one session compare with another's.

`column` and `factor` chain a symbol over splits, bonuses, dividends and new names: what was known and had taken effect
by the open of the later of two sessions, so nothing within a session depends on what became known later in it."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from odin_core.labels.kernels import Blocks, FloatArray, IntArray, Links
from odin_core.market.bars import UTC
from odin_core.market.calendar import Hours
from odin_core.market.reference import actions as corporate

LONGEST: Final = 5
"""Sessions after a decision's own in which every label ends, if need be without a value."""
VOLATILITY_SESSIONS: Final = 20
"""Sessions before a decision's own that the daily volatility follows from."""


def instants(moments: Sequence[object]) -> IntArray:
    """Microseconds since 1970."""
    return pl.Series(moments, dtype=UTC).to_physical().to_numpy()


def blocks_of(bars: pl.DataFrame, names: pl.Series, opens: IntArray) -> Blocks:
    """Bars (BARS or INTERVAL_BARS) of sessions that begin at `opens`, whose symbols are all in `names`, ascending.
    ValueError for a bar before the first session."""
    ts = bars["ts"].to_physical().to_numpy()
    session = np.searchsorted(opens, ts, side="right") - 1
    if len(ts) and session.min() < 0:
        raise ValueError(f"a bar starts at {bars['ts'].min()}, before the first session")
    symbol = places(bars["symbol"], names)
    key = session * len(names) + symbol
    known_at = bars["known_at"].to_physical().to_numpy()
    opened, high, low, close = (bars[name].to_numpy() for name in ("open", "high", "low", "close"))
    if not _ascends(key, ts):
        order = np.lexsort((ts, key))
        known_at, session, symbol, key = known_at[order], session[order], symbol[order], key[order]
        opened, high, low, close = opened[order], high[order], low[order], close[order]
    edges = np.searchsorted(key, np.arange(len(opens) * len(names) + 1))
    shape = (len(opens), len(names))
    start, end = edges[:-1].reshape(shape), edges[1:].reshape(shape)
    return Blocks(known_at, opened, high, low, close, session, symbol, start, end)


def places(symbols: pl.Series, names: pl.Series) -> IntArray:
    """The place of each symbol in `names`, which holds them all."""
    runs = symbols.rle().struct.unnest()
    return np.repeat(names.search_sorted(runs["value"]).to_numpy().astype(np.int64), runs["len"].to_numpy())


def matrix(values: pl.Series, session: IntArray, symbol: IntArray, shape: tuple[int, int]) -> FloatArray:
    """Values of day bars as (sessions, symbols), NaN where there is none."""
    out = np.full(shape, np.nan)
    out[session, symbol] = values.cast(pl.Float64).to_numpy()
    return out


def links(
    actions: pl.DataFrame, days: pl.DataFrame, names: pl.Series, hours: Sequence[Hours], first: int
) -> tuple[Links, Links]:
    """Forward by up to LONGEST sessions, for paths, and backward by up to VOLATILITY_SESSIONS.

    actions: EFFECTIVE; days: day bars with `session`, the place of each in `hours`; first: sessions before it are left
    without actions, because nobody asks about them. A dividend is compared with the last close of at most
    VOLATILITY_SESSIONS sessions before, so that the result depends on no more than those."""
    backward = _unlinked(len(hours), VOLATILITY_SESSIONS, len(names))
    forward = _unlinked(len(hours), LONGEST, len(names))
    for j in range(first, len(hours)):
        if _link_back(backward, actions, days, names, hours, j):
            for d in range(1, min(LONGEST, j) + 1):
                _link_forward(forward, backward, j, d)
    return forward, backward


def _unlinked(sessions: int, steps: int, symbols: int) -> Links:
    """Every symbol keeps its name and its scale."""
    shape = (sessions, steps + 1, symbols)
    return Links(np.broadcast_to(np.arange(symbols), shape).copy(), np.ones(shape))


def _link_back(
    backward: Links, actions: pl.DataFrame, days: pl.DataFrame, names: pl.Series, hours: Sequence[Hours], j: int
) -> bool:
    """Whether anything had taken effect by session j that its symbols' past must be seen through."""
    oldest = max(0, j - VOLATILITY_SESSIONS)
    seen = corporate.as_of(actions, hours[j].open).filter(pl.col("ex_at") > hours[oldest].open)
    if seen.is_empty():
        return False
    steps = corporate.steps(seen, days.filter(pl.col("session").is_between(oldest, j)).select("symbol", "ts", "close"))
    renames = seen.filter(pl.col("kind") == "rename")
    place = {name: k for k, name in enumerate(names)}
    for d in range(1, j - oldest + 1):
        then = hours[j - d].open
        before = corporate.former_names(names.to_list(), renames, then)
        backward.column[j, d] = [place.get(name, -1) for name in before]
        for symbol, ex_at, split, dividend, _ in steps.iter_rows():
            if symbol in place and ex_at > then:
                backward.factor[j, d, place[symbol]] *= split * dividend
    return True


def _link_forward(forward: Links, backward: Links, j: int, d: int) -> None:
    """The same link as `backward` has from session j to j − d, seen from there."""
    before = backward.column[j, d]
    column = np.arange(len(before))
    moved = np.flatnonzero(before != column)
    column[moved] = -1  # under this name another company traded then
    known = moved[before[moved] >= 0]
    column[before[known]] = known
    forward.column[j - d, d] = column
    forward.factor[j - d, d] = np.where(column >= 0, backward.factor[j, d, column], 1.0)


def _ascends(key: IntArray, ts: IntArray) -> bool:
    step = np.diff(key)
    return bool(((step > 0) | ((step == 0) & (np.diff(ts) > 0))).all())
