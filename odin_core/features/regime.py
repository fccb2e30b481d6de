"""The volatility regime of the market: how today's volatility compares with that of the last ten sessions.

One tag per session, the same for all symbols. A symbol's own volatility is a feature in `technical`."""

from typing import Final, Literal, TypeAlias

import numpy as np

from odin_core.features.kernels import FloatArray, IntArray, volatility_per_five_minutes

Regime: TypeAlias = Literal["low", "medium", "high"]

SESSIONS: Final = 10
"""Sessions that today is compared with, today included."""
LOW_BELOW: Final = 0.85
HIGH_ABOVE: Final = 1.2


def market_volatility(bars: FloatArray, starts: IntArray, spans: FloatArray) -> float:
    """Median over symbols of the realised volatility of one session's own 5-minute bars, in fractions per √(5 minutes).

    The overnight gap stays out. Shapes as in `kernels.volatility_per_five_minutes`. NaN for a session without bars.
    It is the one number here that depends on which symbols the market has."""
    volatility = volatility_per_five_minutes(bars, starts, spans)
    known = volatility[np.isfinite(volatility)]
    return float(np.median(known)) if known.size else float("nan")


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
