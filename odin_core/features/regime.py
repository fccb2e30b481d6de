"""The volatility regime of the market: how today's volatility compares with that of the last ten sessions.

One tag per session, the same for all symbols. A symbol's own regime is in `structure.regimes`."""

import math
from typing import Final, Literal, TypeAlias

import numpy as np
import polars as pl

from odin_core.features.series import FloatArray, IntArray, compiled

Regime: TypeAlias = Literal["low", "medium", "high"]

SESSIONS: Final = 10
"""Sessions that today is compared with, today included."""
FIVE_MINUTES: Final = 300_000_000  # microseconds
LOW_BELOW: Final = 0.85
HIGH_ABOVE: Final = 1.2


def market_volatility(bars: pl.DataFrame) -> float:
    """Median over symbols of the realised volatility of one session's own 5-minute bars, in fractions per √(5 minutes).

    bars: BARS of 5 minutes of the session, sorted by symbol and ts. The overnight gap stays out. NaN without bars.
    It is the one number here that depends on which symbols the market has."""
    if bars.is_empty():
        return math.nan
    lengths = bars["symbol"].rle().struct.field("len").to_numpy().astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ts, known_at = (bars[c].to_physical().to_numpy() for c in ("ts", "known_at"))
    spans = (known_at[starts[1:] - 1] - ts[starts[:-1]]) / FIVE_MINUTES
    volatility = _volatility(bars["open"].to_numpy(), bars["close"].to_numpy(), starts, spans)
    known = volatility[np.isfinite(volatility)]
    return float(np.median(known)) if known.size else math.nan


@compiled
def _volatility(opens: FloatArray, close: FloatArray, starts: IntArray, spans: FloatArray) -> FloatArray:
    """√(Σ r² / span) of each symbol's bars: r = ln(close / open) of its first one, then ln(cᵢ / cᵢ₋₁). A session cut
    short, or with bars missing, is so on the scale of a whole one. starts: (symbols + 1,), where each symbol begins;
    spans: (symbols,), five-minute steps from its first bar's start to its last bar's end."""
    symbols = len(starts) - 1
    out = np.empty(symbols)
    for s in range(symbols):
        total, before = 0.0, opens[starts[s]]
        for i in range(starts[s], starts[s + 1]):
            change = math.log(close[i] / before)
            total += change * change
            before = close[i]
        out[s] = math.sqrt(total / spans[s])
    return out


def volatility_ratio(market_volatility_history: FloatArray) -> float | None:
    """Today's market volatility over the median of the last ten sessions', today included; 1 is ordinary.

    `market_volatility_history`: (n,), oldest first, today last; NaN for a session without bars, which does not count.
    None while fewer than ten sessions count, where today has no bars, or where that median is zero."""
    history = np.asarray(market_volatility_history, dtype=np.float64)
    counted = history[np.isfinite(history)][-SESSIONS:]
    if counted.size < SESSIONS or not np.isfinite(history[-1]):
        return None
    usual = float(np.median(counted))
    return float(counted[-1]) / usual if usual > 0.0 else None


def volatility_regime(market_volatility_history: FloatArray) -> Regime | None:
    """`low` for a `volatility_ratio` below 0.85, `high` above 1.2, else `medium`; None where there is no ratio."""
    return regime_of(volatility_ratio(market_volatility_history))


def regime_of(ratio: float | None) -> Regime | None:
    """The tag of a ratio; a ratio on a threshold is `medium`."""
    if ratio is None:
        return None
    if ratio < LOW_BELOW:
        return "low"
    return "high" if ratio > HIGH_ABOVE else "medium"
