"""The first technical set: momentum, trend, range, volatility, volume and liquidity of one symbol over four intervals.

Each function is one feature of the catalogue: it gets the last N bars of its interval as a Window, (symbols, N), the
last bar being the last one of the session, and returns (symbols,) float64. Prices are on the scale of the last session,
earlier ones adjusted for what was known by then; nothing is annualised. A window reaches over the night into earlier
sessions. Formulas with a loop are in `kernels`."""

import numpy as np

from odin_core.features.catalogue import Window, feature
from odin_core.features.kernels import (
    FloatArray,
    exponential_mean,
    parkinson_volatility,
    position,
    realised_volatility,
    relative,
    tail_mean,
    tail_z_score,
    wilder_atr,
    wilder_rsi,
)


@feature(interval="5m", bars=76, unit="0 to 100", mirror=50.0)
def rsi_5m(window: Window) -> FloatArray:
    """RSI(14) of 5-minute closes, Wilder's smoothing seeded inside the window. NaN where no close changed."""
    return wilder_rsi(window.close, 14)


@feature(interval="15m", bars=60, unit="0 to 100", mirror=50.0)
def rsi_15m(window: Window) -> FloatArray:
    """RSI(14) of 15-minute closes, Wilder's smoothing seeded inside the window. NaN where no close changed."""
    return wilder_rsi(window.close, 14)


@feature(interval="60m", bars=36, unit="0 to 100", mirror=50.0)
def rsi_60m(window: Window) -> FloatArray:
    """RSI(14) of hourly closes, Wilder's smoothing seeded inside the window. NaN where no close changed."""
    return wilder_rsi(window.close, 14)


@feature(interval="15m", bars=20, unit="fraction", mirror=0.0)
def sma_cross_15m(window: Window) -> FloatArray:
    """Mean of the last 5 closes over the mean of the last 20, − 1; its sign changes where the averages cross.
    Never NaN on positive prices."""
    return relative(tail_mean(window.close, 5), tail_mean(window.close, 20))


@feature(interval="60m", bars=20, unit="fraction", mirror=0.0)
def sma_cross_60m(window: Window) -> FloatArray:
    """Mean of the last 5 hourly closes over the mean of the last 20, − 1. Never NaN on positive prices."""
    return relative(tail_mean(window.close, 5), tail_mean(window.close, 20))


@feature(interval="15m", bars=60, unit="fraction", mirror=0.0)
def ema_cross_15m(window: Window) -> FloatArray:
    """EMA(12) over EMA(26) of closes, − 1; each seeded with the mean of the window's first 12 and 26 closes.
    Never NaN on positive prices. Source: the pair of Appel's MACD (1979), as a ratio."""
    return relative(exponential_mean(window.close, 12), exponential_mean(window.close, 26))


@feature(interval="5m", bars=76, unit="fraction of close")
def atr_5m(window: Window) -> FloatArray:
    """ATR(14) of 5-minute bars over the last close. Never NaN on positive prices; 0 on constant ones."""
    return wilder_atr(window.high, window.low, window.close, 14) / window.close[:, -1]


@feature(interval="15m", bars=60, unit="fraction of close")
def atr_15m(window: Window) -> FloatArray:
    """ATR(14) of 15-minute bars over the last close. Never NaN on positive prices; 0 on constant ones."""
    return wilder_atr(window.high, window.low, window.close, 14) / window.close[:, -1]


@feature(interval="60m", bars=36, unit="fraction of close")
def atr_60m(window: Window) -> FloatArray:
    """ATR(14) of hourly bars over the last close; `atr_60m * close` is in price units, the yardstick of stops.
    Never NaN on positive prices; 0 on constant ones."""
    return wilder_atr(window.high, window.low, window.close, 14) / window.close[:, -1]


@feature(interval="5m", bars=76, unit="fraction over 75 bars")
def realised_vol_session(window: Window) -> FloatArray:
    """√Σr² of the last 75 five-minute log returns: one NSE session, the overnight gap before it included.
    Never NaN on positive prices."""
    return realised_volatility(window.close)


@feature(interval="5m", bars=19, unit="fraction over 18 bars")
def realised_vol_90m(window: Window) -> FloatArray:
    """√Σr² of the last 18 five-minute log returns. Never NaN on positive prices."""
    return realised_volatility(window.close)


@feature(interval="60m", bars=21, unit="fraction per bar")
def parkinson_60m(window: Window) -> FloatArray:
    """Parkinson volatility of the last 21 hourly bars (three NSE sessions). Never NaN on positive prices."""
    return parkinson_volatility(window.high, window.low)


@feature(interval="5m", bars=75, unit="standard deviations", needs_volume=True)
def volume_z_5m(window: Window) -> FloatArray:
    """Volume of the last 18 five-minute bars against the last 75, as a z-score of their sum (`kernels.tail_z_score`).
    NaN where all 75 are equal or one is missing."""
    return tail_z_score(window.volume, 18)


@feature(interval="15m", bars=60, unit="standard deviations", needs_volume=True)
def volume_z_15m(window: Window) -> FloatArray:
    """Volume of the last two 15-minute bars against the last 60, as a z-score of their sum.
    NaN where all 60 are equal or one is missing."""
    return tail_z_score(window.volume, 2)


@feature(interval="day", bars=10, unit="standard deviations", needs_volume=True)
def volume_z_day(window: Window) -> FloatArray:
    """The session's volume against the last ten, itself included, as a z-score. NaN where all ten are equal or
    one is missing."""
    return tail_z_score(window.volume, 1)


@feature(interval="day", bars=2, unit="fraction", mirror=0.0)
def gap(window: Window) -> FloatArray:
    """The session's open over the previous close, − 1. Never NaN on positive prices."""
    return relative(window.open[:, -1], window.close[:, -2])


@feature(interval="5m", bars=19, unit="fraction", mirror=0.0)
def return_90m(window: Window) -> FloatArray:
    """Simple return over the last 18 five-minute bars, close to close. Never NaN on positive prices."""
    return relative(window.close[:, -1], window.close[:, -19])


@feature(interval="5m", bars=19, unit="standard deviations", mirror=0.0)
def trend_90m(window: Window) -> FloatArray:
    """`return_90m` over `realised_vol_90m`: how straight the last 18 bars went, √18 at most in size.

    NaN where no close changed."""
    volatility = realised_vol_90m(window)
    return np.divide(return_90m(window), volatility, out=np.full(len(volatility), np.nan), where=volatility > 0)


@feature(interval="day", bars=1, unit="fraction", mirror=0.0)
def return_session(window: Window) -> FloatArray:
    """The session's close over its open, − 1. Never NaN on positive prices."""
    return relative(window.close[:, -1], window.open[:, -1])


@feature(interval="day", bars=4, unit="fraction", mirror=0.0)
def return_3d(window: Window) -> FloatArray:
    """Simple return over three sessions, close to close. Never NaN on positive prices."""
    return relative(window.close[:, -1], window.close[:, -4])


@feature(interval="day", bars=6, unit="fraction", mirror=0.0)
def return_5d(window: Window) -> FloatArray:
    """Simple return over five sessions, close to close. Never NaN on positive prices."""
    return relative(window.close[:, -1], window.close[:, -6])


@feature(interval="day", bars=1, unit="0 to 1", mirror=0.5)
def range_position(window: Window) -> FloatArray:
    """The close within the session's low to high. NaN where the session had no range."""
    return position(window.close[:, -1], window.high, window.low)


@feature(interval="day", bars=5, unit="0 to 1", mirror=0.5)
def range_position_5d(window: Window) -> FloatArray:
    """The close within the lowest low to highest high of five sessions. NaN where they had no range."""
    return position(window.close[:, -1], window.high, window.low)


@feature(interval="day", bars=1, unit="price")
def close(window: Window) -> FloatArray:
    """The session's last close. Never NaN."""
    return window.close[:, -1]


@feature(interval="day", bars=5, unit="currency per session", needs_volume=True)
def traded_value(window: Window) -> FloatArray:
    """Median of close × volume over five sessions, for the liquidity filter. Never NaN where all have volume."""
    return np.median(window.close * window.volume, axis=1)
