"""What regimes and change points are told of a session, and how far back they look.

Everything here is relative: multiplying a symbol's prices by a constant changes nothing. The models are in `regimes`
and `changepoint`."""

import math
from datetime import date, datetime
from typing import Final

import numpy as np
import polars as pl

from odin_core.errors import OdinError
from odin_core.features.series import FloatArray, IntArray, Runs, compiled
from odin_core.market.bars import UTC
from odin_core.market.history import require_aware
from odin_core.structure.pivots import prices, symbol_rows

LOOK_BACK: Final = 120
"""Rows of a symbol, before the week of the row in question, that estimate what holds in that week."""
KNOWN_NEEDED: Final = 90
"""How many of them must be known; a symbol that stood still on a session has no range there."""
EFFICIENCY_WINDOW: Final = 10
"""Changes that the efficiency ratio is taken over, Kaufman's own choice."""
SESSIONS_NEEDED: Final = EFFICIENCY_WINDOW + LOOK_BACK + 7
"""A value follows from this many of the symbol's last sessions, its own included: seven is the longest week."""

BARS_NEEDED: Final = ("symbol", "session", "known_at", "high", "low", "close")
OBSERVATIONS: Final = pl.Schema(
    {
        "symbol": pl.String(),
        "session": pl.Date(),
        "known_at": UTC,
        "log_return": pl.Float64(),
        "log_range": pl.Float64(),
        "efficiency": pl.Float64(),
    }
)
GRID: Final = float(2**30)
"""Observations are multiples of 1 / GRID, so that the last bits, which a price's scale moves, do not show."""


class MissingSessionColumns(OdinError):
    def __init__(self, table: str, missing: list[str], found: list[str]) -> None:
        super().__init__(
            f"these {table} lack the columns {', '.join(missing)}; they have {', '.join(found)}; "
            f"give one row per symbol and session, with its date as `session` and its end as `known_at`"
        )


class RepeatedSession(OdinError):
    def __init__(self, table: str, symbol: str, session: date) -> None:
        super().__init__(f"the {table} have {symbol} in session {session} more than once; give one row a session")


def session_observations(bars: pl.DataFrame) -> pl.DataFrame:
    """OBSERVATIONS of each row of `bars`, sorted by symbol and session; each follows from the symbol's row and at most
    the ten before it.

    bars: one row per symbol and session: symbol, session (date), known_at (end of the session), high, low, close, on
    one scale within the ten sessions; a session in which the symbol has no bar has no row.

    log_return: ln(close / previous close).
    log_range: ln of the true range ln(max(high, previous close) / min(low, previous close)), which is close to normally
    distributed (Alizadeh, Brandt & Diebold 2002); the true range is Wilder's, of logarithms.
    efficiency: |ln(close / close ten rows ago)| / Σ |ln(close / previous close)| over these rows, 0 to 1 (Kaufman 1995,
    of logarithms).
    Null where a price is missing or not positive, where nothing moved, and in a symbol's first row (efficiency: ten).
    Raises MissingSessionColumns and RepeatedSession."""
    ordered = require_sessions(bars, "bars", BARS_NEEDED)
    starts, ends = symbol_rows(ordered)
    given = (prices(ordered, name) for name in ("close", "high", "low"))
    close, high, low = (np.where((price > 0.0) & (price < math.inf), price, math.nan) for price in given)
    values = _observe(close, high, low, starts, ends)
    columns = [pl.Series(name, values[:, i]).fill_nan(None) for i, name in enumerate(OBSERVATIONS.names()[3:])]
    return ordered.select(*OBSERVATIONS.names()[:3]).with_columns(columns).match_to_schema(OBSERVATIONS)


def require_sessions(rows: pl.DataFrame, table: str, needed: tuple[str, ...]) -> pl.DataFrame:
    """The needed columns of `rows`, sorted by symbol and session. Raises MissingSessionColumns and RepeatedSession."""
    if missing := [name for name in needed if name not in rows.columns]:
        raise MissingSessionColumns(table, missing, rows.columns)
    ordered = rows.select(needed).sort("symbol", "session")
    repeated = ordered.filter(pl.struct("symbol", "session").is_duplicated())
    if repeated.height:
        raise RepeatedSession(table, repeated["symbol"][0], repeated["session"][0])
    return ordered


def known_observations(observations: pl.DataFrame, as_of: datetime | None) -> pl.DataFrame:
    """Sorted OBSERVATIONS of which each was known by `as_of` (aware; None: all).
    Raises NaiveMoment, MissingSessionColumns and RepeatedSession."""
    ordered = require_sessions(observations, "observations", tuple(OBSERVATIONS.names()))
    if as_of is None:
        return ordered
    require_aware("as_of", as_of)
    return ordered.filter(pl.col("known_at") <= as_of)


def weeks_of(ordered: pl.DataFrame, first: date | None = None) -> Runs:
    """One run for each week (Monday to Sunday) of a symbol's sorted rows that has a session from `first` on (None:
    any): what holds in the week is estimated from the LOOK_BACK rows before it, from `start` on.

    Weeks are those of the calendar, so they do not depend on where the rows begin. A week has no run where rows are
    missing that its look-back, or that one's first observation, follows from: no value rather than another one."""
    days = ordered["session"].cast(pl.Int64).to_numpy()
    starts, ends = symbol_rows(ordered)
    week = (days + 3) // 7  # day 0, 1970-01-01, was a Thursday
    begins = np.diff(week, prepend=-1) != 0
    begins[starts] = True
    head = np.flatnonzero(begins)
    end = np.append(head[1:], len(days))[: len(head)]
    kept = head - np.repeat(starts, ends - starts)[head] >= EFFICIENCY_WINDOW + LOOK_BACK
    if first is not None:
        kept &= days[end - 1] >= first.toordinal() - date(1970, 1, 1).toordinal()
    return Runs(head[kept] - LOOK_BACK, head[kept], end[kept])


@compiled
def _observe(close: FloatArray, high: FloatArray, low: FloatArray, starts: IntArray, ends: IntArray) -> FloatArray:
    """(n, 3): log return, log range, efficiency; NaN where undefined."""
    out = np.full((len(close), 3), math.nan)
    for s in range(len(starts)):
        for i in range(starts[s] + 1, ends[s]):
            out[i, 0] = math.log(close[i] / close[i - 1])
            top, bottom = max(high[i], close[i - 1]), min(low[i], close[i - 1])
            if top > bottom and not math.isnan(high[i] + low[i] + close[i - 1]):  # `max` and `min` may drop a NaN
                out[i, 1] = math.log(math.log(top / bottom))
            if i - starts[s] >= EFFICIENCY_WINDOW:
                path = 0.0
                for j in range(i - EFFICIENCY_WINDOW + 1, i + 1):
                    path += abs(math.log(close[j] / close[j - 1]))
                way = abs(math.log(close[i] / close[i - EFFICIENCY_WINDOW]))
                out[i, 2] = way / path if path > 0.0 else math.nan
            for k in range(3):
                out[i, k] = math.floor(out[i, k] * GRID + 0.5) / GRID if math.isfinite(out[i, k]) else math.nan
    return out
