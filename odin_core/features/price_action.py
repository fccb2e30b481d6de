"""The price-action set: what bars say by themselves, without a lagging average. Returns, candles, gaps, ranges,
volatility, and where in the session, the week and the world's business day a bar lies.

Candles are measured in logarithms, so that a bar upside down has exactly the opposite body. Kernels of volatility are
in `volatility`; the gap over night, the session's return, simple returns and range position are in `technical`."""

from datetime import date, timedelta
from typing import Final

import numpy as np

from odin_core.features import volatility
from odin_core.features.catalogue import INTERVALS, INTRADAY, feature
from odin_core.features.rolling import lag, ratio
from odin_core.features.series import DAY, Bars, FloatArray, IntArray, Runs, compiled
from odin_core.features.volatility import Logs
from odin_core.market.centres import business_hours

CLOCK: Final = ("1m", "5m")  # the time of a bar; larger bars, and rows of a larger grid, would only repeat it
WEEKDAY: Final = ("5m", "day")
CANDLES: Final = "Nison 1991, Japanese Candlestick Charting Techniques, chapter 3; here in logarithms"
HOUR: Final = 3_600_000_000  # microseconds
EPOCH: Final = date(1970, 1, 1)


@feature(
    intervals=INTERVALS, variants=((1,), (3,), (12,), (60,)), warm_up=lambda count: count, unit="log of a ratio",
    mirror=0.0, source="Campbell, Lo & MacKinlay 1997, section 1.4",
)  # fmt: skip
def log_return(bars: Bars, runs: Runs, count: int = 1) -> FloatArray:
    """ln(close / close `count` bars before), over nights too. Never NaN on positive prices."""
    return bars.log_close - lag(bars.log_close, runs, count)


@feature(
    intervals=INTERVALS,
    warm_up=lambda: 1,
    unit="log of a ratio",
    mirror=0.0,
    source="the opening jump of Yang & Zhang 2000",
)
def bar_gap(bars: Bars, runs: Runs) -> FloatArray:
    """ln(open / close of the bar before). Of day bars and at a session's first bar that is the gap over night; later in
    a session it is more than a tick or two only where bars are missing. Never NaN on positive prices."""
    return bars.log_open - lag(bars.log_close, runs, 1)


@feature(intervals=INTERVALS, warm_up=lambda: 0, unit="log of a ratio", bounds=(0.0, np.inf), source=CANDLES)
def bar_range(bars: Bars, runs: Runs) -> FloatArray:
    """ln(high / low), which is the range over the close but for its square. Never NaN on positive prices."""
    return bars.log_high - bars.log_low


@feature(
    intervals=INTERVALS, warm_up=lambda: 0, unit="share of the range", bounds=(-1.0, 1.0), mirror=0.0, source=CANDLES
)
def body(bars: Bars, runs: Runs) -> FloatArray:
    """ln(close / open) / ln(high / low): 1 where the bar rose from its low to its high, −1 where it fell all the way.
    NaN where the bar has no range."""
    return ratio(bars.log_close - bars.log_open, bars.log_high - bars.log_low)


@feature(intervals=INTERVALS, warm_up=lambda: 0, unit="share of the range", bounds=(0.0, 1.0), source=CANDLES)
def upper_wick(bars: Bars, runs: Runs) -> FloatArray:
    """ln(high / the higher of open and close) / ln(high / low). NaN where the bar has no range."""
    return ratio(bars.log_high - np.maximum(bars.log_open, bars.log_close), bars.log_high - bars.log_low)


@feature(intervals=INTERVALS, warm_up=lambda: 0, unit="share of the range", bounds=(0.0, 1.0), source=CANDLES)
def lower_wick(bars: Bars, runs: Runs) -> FloatArray:
    """ln(the lower of open and close / low) / ln(high / low). NaN where the bar has no range."""
    return ratio(np.minimum(bars.log_open, bars.log_close) - bars.log_low, bars.log_high - bars.log_low)


@feature(
    intervals=INTRADAY, variants=((18,), (75,)), warm_up=lambda count: count, unit="fraction over the window",
    bounds=(0.0, np.inf), source="Andersen & Bollerslev 1998",
)  # fmt: skip
def realised_volatility(bars: Bars, runs: Runs, count: int = 18) -> FloatArray:
    """√Σr² of the last `count` log returns, the one over night included; not annualised, and growing with the window.
    Of five minutes, 18 bars are an hour and a half, 75 one NSE session. Never NaN on positive prices."""
    return np.sqrt(volatility.sum_of_squares(bars.log_close, runs, count))


@feature(
    intervals=INTERVALS, warm_up=lambda count: count - 1, unit="fraction per √bar", bounds=(0.0, np.inf),
    source="Parkinson 1980",
)  # fmt: skip
def parkinson(bars: Bars, runs: Runs, count: int = 20) -> FloatArray:
    """√(mean of ln(high/low)² / (4 ln 2)) of the last `count` bars; too low where prices gap or are seldom sampled,
    too high where they drift. Never NaN on positive prices."""
    return volatility.parkinson(Logs.of(bars), runs, count)


@feature(
    intervals=INTERVALS, warm_up=lambda count: count - 1, unit="fraction per √bar", bounds=(0.0, np.inf),
    source="Garman & Klass 1980, without the cross term",
)  # fmt: skip
def garman_klass(bars: Bars, runs: Runs, count: int = 20) -> FloatArray:
    """√(mean of ½ ln(high/low)² − (2 ln 2 − 1) ln(close/open)²) of the last `count` bars; gaps are left out, drift is
    taken as none. Never NaN on positive prices."""
    return volatility.garman_klass(Logs.of(bars), runs, count)


@feature(
    intervals=INTERVALS, warm_up=lambda count: count - 1, unit="fraction per √bar", bounds=(0.0, np.inf),
    source="Rogers & Satchell 1991",
)  # fmt: skip
def rogers_satchell(bars: Bars, runs: Runs, count: int = 20) -> FloatArray:
    """√(mean of ln(h/c) ln(h/o) + ln(l/c) ln(l/o)) of the last `count` bars; right under any drift, gaps are left out.
    Never NaN on positive prices."""
    return volatility.rogers_satchell(Logs.of(bars), runs, count)


@feature(
    intervals=INTERVALS, warm_up=lambda count: count, unit="fraction per √bar", bounds=(0.0, np.inf),
    source="Yang & Zhang 2000",
)  # fmt: skip
def yang_zhang(bars: Bars, runs: Runs, count: int = 20) -> FloatArray:
    """√(V_open + k V_close + (1 − k) V_rs) of the last `count` bars, as in `volatility.yang_zhang`: right under any
    drift and with gaps. Never NaN on positive prices but for a `count` of 1, which has no variance."""
    return volatility.yang_zhang(Logs.of(bars), runs, count)


@feature(
    intervals=INTERVALS, warm_up=lambda short, long: long, unit="ratio", bounds=(0.0, np.inf),
    source="ratio of two realised volatilities, Andersen & Bollerslev 1998",
)  # fmt: skip
def volatility_ratio(bars: Bars, runs: Runs, short: int = 12, long: int = 60) -> FloatArray:
    """Realised volatility per √bar of the last `short` bars over that of the last `long`, which include them; at most
    √(long / short). NaN where no close of the long window changed."""
    recent, usual = (volatility.sum_of_squares(bars.log_close, runs, count) for count in (short, long))
    return np.sqrt(ratio(recent, usual) * (long / short))


@feature(intervals=CLOCK, warm_up=lambda: 0, unit="share of the session", bounds=(0.0, 1.0), source="by definition")
def session_elapsed(bars: Bars, runs: Runs) -> FloatArray:
    """How much of its session is over at the end of the bar, by the calendar's hours; a close that was moved counts
    from when that was announced. Never NaN."""
    opens = bars.opens[bars.session]
    return (bars.known_at - opens) / (_close_as_known(bars) - opens)


@feature(intervals=CLOCK, warm_up=lambda: 0, unit="hours", bounds=(0.0, np.inf), source="by definition")
def hours_to_close(bars: Bars, runs: Runs) -> FloatArray:
    """Hours from the end of the bar to the close of its session, by the calendar; a close that was moved counts from
    when that was announced. Never NaN."""
    return (_close_as_known(bars) - bars.known_at) / HOUR


@feature(intervals=WEEKDAY, warm_up=lambda: 0, unit="sine", bounds=(-1.0, 1.0), source="by definition")
def weekday_sine(bars: Bars, runs: Runs) -> FloatArray:
    """sin(2π · weekday / 7), Monday 0 to Sunday 6, of the bar's session (the UTC date of its middle, as planned at its
    open). With the cosine it places days on a circle, so that no two neighbours are far apart, whichever days a market
    trades. Never NaN. In a row within a session the last day bar, and so its weekday, is the session before's."""
    return np.sin(_weekday_angles(bars))[bars.session]


@feature(intervals=WEEKDAY, warm_up=lambda: 0, unit="cosine", bounds=(-1.0, 1.0), source="by definition")
def weekday_cosine(bars: Bars, runs: Runs) -> FloatArray:
    """cos(2π · weekday / 7), as `weekday_sine`. Never NaN."""
    return np.cos(_weekday_angles(bars))[bars.session]


@feature(intervals=CLOCK, warm_up=lambda: 0, unit="0 or 1", bounds=(0.0, 1.0), source="BIS Triennial Survey 2019")
def asia_hours(bars: Bars, runs: Runs) -> FloatArray:
    """1 where the bar starts in Tokyo's business hours (`market.centres`), else 0. Never NaN."""
    return _in_business(bars.ts, "asia", runs)


@feature(intervals=CLOCK, warm_up=lambda: 0, unit="0 or 1", bounds=(0.0, 1.0), source="BIS Triennial Survey 2019")
def london_hours(bars: Bars, runs: Runs) -> FloatArray:
    """1 where the bar starts in London's business hours (`market.centres`), else 0. Never NaN."""
    return _in_business(bars.ts, "london", runs)


@feature(intervals=CLOCK, warm_up=lambda: 0, unit="0 or 1", bounds=(0.0, 1.0), source="BIS Triennial Survey 2019")
def new_york_hours(bars: Bars, runs: Runs) -> FloatArray:
    """1 where the bar starts in New York's business hours (`market.centres`), else 0. Never NaN."""
    return _in_business(bars.ts, "new_york", runs)


def _close_as_known(bars: Bars) -> IntArray:
    """(rows,) the close of each row's session, by what was known at the row."""
    closes = bars.closes[bars.session]
    for session, (announced_at, planned) in bars.moved_closes.items():
        closes[(bars.session == session) & (bars.known_at < announced_at)] = planned
    return closes


def _weekday_angles(bars: Bars) -> FloatArray:
    closes = bars.closes.copy()
    for session, (_, planned) in bars.moved_closes.items():
        closes[session] = planned
    days = (bars.opens + (closes - bars.opens) // 2) // DAY
    return (2.0 * np.pi / 7.0) * ((days + 3) % 7).astype(np.float64)  # 1 January 1970 was a Thursday


def _in_business(ts: IntArray, centre: str, runs: Runs) -> FloatArray:
    if not len(ts):
        return np.empty(0)
    first, last = (EPOCH + timedelta(days=int(at // DAY)) for at in (ts.min(), ts.max()))
    begin, end = business_hours(centre, first - timedelta(days=1), last + timedelta(days=1))
    return _inside(ts, begin, end, runs)


@compiled
def _inside(ts: IntArray, begin: IntArray, end: IntArray, runs: Runs) -> FloatArray:
    """1 in rows whose time lies in one of the spans [begin, end), which ascend, else 0."""
    out = np.full(len(ts), np.nan)
    for r in range(len(runs.first)):
        k = 0 if runs.first[r] == runs.end[r] else np.searchsorted(end, ts[runs.first[r]], side="right")
        for i in range(runs.first[r], runs.end[r]):
            while k < len(end) and ts[i] >= end[k]:
                k += 1
            out[i] = 1.0 if k < len(end) and ts[i] >= begin[k] else 0.0
    return out
