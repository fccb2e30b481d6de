"""The technical set: moving averages, momentum, bands, trend, volume and the session, of one symbol's own bars.

Each function is one indicator of the catalogue and says its formula. What is in price or share units has no interval:
`compute` finds it by name, and its relative that is free of scale is in the set. Prices of a run are on the scale of
its own session; nothing is annualised. Kernels are in `rolling` and `recursive`, what lags nothing in `price_action`.

`mirror` is meant for small moves: with each price p turned into K − p, high and low exchanged, the value becomes
2 · mirror − value to first order in the size of the moves. An indicator without it keeps its value, or its pair's."""

from odin_core.features.catalogue import INTERVALS, INTRADAY, feature
from odin_core.features.recursive import (
    accumulated,
    close_before_session,
    directional_movement,
    exponential_mean,
    macd_lines,
    session_open,
    session_vwap,
    signed,
    true_ranges,
    wilder_atr,
    wilder_rsi,
)
from odin_core.features.rolling import (
    difference,
    fast_stochastic,
    lag,
    later,
    mean_deviation,
    ratio,
    relative,
    rolling_maximum,
    rolling_mean,
    rolling_minimum,
    rolling_moments,
    rolling_sum,
    rolling_z_score,
    short_mean,
    throughout,
    typical_price,
)
from odin_core.features.series import Bars, FloatArray, Runs

BY_NAME = ()  # in price or share units: in no set
PERCENT = {"unit": "0 to 100", "bounds": (0.0, 100.0)}

WILDER = "Wilder 1978, New Concepts in Technical Trading Systems"
APPEL = "Appel 1979, The Moving Average Convergence-Divergence Method"
BOLLINGER = "Bollinger 2001, Bollinger on Bollinger Bands"
LANE = "Lane 1984, Lane's Stochastics"
GRANVILLE = "Granville 1963, New Key to Stock Market Profits"
MURPHY = "Murphy 1999, Technical Analysis of the Financial Markets"


def _windowed(window: int, *_: float) -> int:
    return window - 1


def _changes(count: int) -> int:
    return count


def _smoothed(*periods: int) -> int:
    return 3 * max(periods)


def _wilder(period: int) -> int:
    return 5 * period


def _macd(fast: int, slow: int, signal: int) -> int:
    return 3 * max(fast, slow) + signal


@feature(intervals=BY_NAME, unit="price", warm_up=_windowed, source=MURPHY)
def sma(bars: Bars, runs: Runs, window: int = 20) -> FloatArray:
    """Mean of the last `window` closes. Never NaN on positive prices."""
    return rolling_mean(bars.close, runs, window)


@feature(intervals=BY_NAME, unit="price", warm_up=_smoothed, source=MURPHY)
def ema(bars: Bars, runs: Runs, period: int = 20) -> FloatArray:
    """Exponential moving average of closes, weight 2 / (period + 1) on the newest, seeded with the mean of the first
    `period`. Never NaN on positive prices."""
    return exponential_mean(bars.close, runs, period)


@feature(
    intervals=INTERVALS, variants=((20,), (50,)), unit="fraction of the mean", warm_up=_windowed, source=MURPHY,
    mirror=0.0,
)  # fmt: skip
def sma_gap(bars: Bars, runs: Runs, window: int) -> FloatArray:
    """Close over the mean of the last `window` closes, − 1. Never NaN on positive prices."""
    return relative(bars.close, rolling_mean(bars.close, runs, window))


@feature(intervals=INTERVALS, unit="fraction of the mean", warm_up=_smoothed, source=MURPHY, mirror=0.0)
def ema_gap(bars: Bars, runs: Runs, period: int = 20) -> FloatArray:
    """Close over the exponential moving average of closes, − 1. Never NaN on positive prices."""
    return relative(bars.close, exponential_mean(bars.close, runs, period))


@feature(
    intervals=INTERVALS, variants=((5, 20), (20, 50)), unit="fraction", warm_up=lambda fast, slow: max(fast, slow) - 1,
    source=MURPHY, mirror=0.0,
)  # fmt: skip
def sma_cross(bars: Bars, runs: Runs, fast: int, slow: int) -> FloatArray:
    """Mean of the last `fast` closes over the mean of the last `slow`, − 1; its sign changes where they cross.
    Never NaN on positive prices."""
    return relative(rolling_mean(bars.close, runs, fast), rolling_mean(bars.close, runs, slow))


@feature(intervals=INTERVALS, unit="fraction", warm_up=_smoothed, source=APPEL, mirror=0.0)
def ema_cross(bars: Bars, runs: Runs, fast: int = 12, slow: int = 26) -> FloatArray:
    """EMA(fast) over EMA(slow) of closes, − 1, the pair of MACD as a ratio. Never NaN on positive prices."""
    return relative(exponential_mean(bars.close, runs, fast), exponential_mean(bars.close, runs, slow))


@feature(intervals=BY_NAME, unit="price", warm_up=_macd, source=APPEL)
def macd(bars: Bars, runs: Runs, fast: int = 12, slow: int = 26, signal: int = 9) -> FloatArray:
    """EMA(fast) − EMA(slow) of closes. Never NaN on positive prices."""
    return macd_lines(bars.close, runs, fast, slow, signal)[0]


@feature(intervals=BY_NAME, unit="price", warm_up=_macd, source=APPEL)
def macd_signal(bars: Bars, runs: Runs, fast: int = 12, slow: int = 26, signal: int = 9) -> FloatArray:
    """EMA(signal) of the MACD line, seeded with the mean of its first `signal` values. Never NaN on positive prices."""
    return macd_lines(bars.close, runs, fast, slow, signal)[1]


@feature(intervals=BY_NAME, unit="price", warm_up=_macd, source=APPEL)
def macd_histogram(bars: Bars, runs: Runs, fast: int = 12, slow: int = 26, signal: int = 9) -> FloatArray:
    """MACD line − its signal. Never NaN on positive prices."""
    line, smooth = macd_lines(bars.close, runs, fast, slow, signal)
    return line - smooth


@feature(intervals=INTERVALS, unit="fraction of close", warm_up=_macd, source=APPEL, mirror=0.0)
def macd_share(bars: Bars, runs: Runs, fast: int = 12, slow: int = 26, signal: int = 9) -> FloatArray:
    """`macd` over the close. Never NaN on positive prices."""
    return ratio(macd_lines(bars.close, runs, fast, slow, signal)[0], bars.close)


@feature(intervals=INTERVALS, unit="fraction of close", warm_up=_macd, source=APPEL, mirror=0.0)
def macd_share_signal(bars: Bars, runs: Runs, fast: int = 12, slow: int = 26, signal: int = 9) -> FloatArray:
    """`macd_signal` over the close. Never NaN on positive prices."""
    return ratio(macd_lines(bars.close, runs, fast, slow, signal)[1], bars.close)


@feature(intervals=INTERVALS, unit="fraction of close", warm_up=_macd, source=APPEL, mirror=0.0)
def macd_share_histogram(bars: Bars, runs: Runs, fast: int = 12, slow: int = 26, signal: int = 9) -> FloatArray:
    """`macd_histogram` over the close. Never NaN on positive prices."""
    line, smooth = macd_lines(bars.close, runs, fast, slow, signal)
    return ratio(line - smooth, bars.close)


@feature(intervals=INTERVALS, **PERCENT, warm_up=_wilder, source=WILDER, mirror=50.0)
def rsi(bars: Bars, runs: Runs, period: int = 14) -> FloatArray:
    """Relative strength index: 100 · gain / (gain + loss) of Wilder's averages of rises and falls of the close.
    NaN where no close has changed."""
    return wilder_rsi(bars.close, runs, period)


def _stochastic_bars(window: int, slowing: int, smoothing: int) -> int:
    return window + slowing + smoothing - 3


@feature(intervals=INTERVALS, **PERCENT, warm_up=_stochastic_bars, source=LANE, mirror=50.0)
def stoch_k(bars: Bars, runs: Runs, window: int = 14, slowing: int = 3, smoothing: int = 3) -> FloatArray:
    """Slow stochastic %K: mean over `slowing` bars of 100 · (close − lowest low) / (highest high − lowest low) of the
    last `window`. `smoothing` is %D's. NaN where one of these ranges is zero."""
    raw = fast_stochastic(bars.high, bars.low, bars.close, throughout(runs), window)
    return 100.0 * short_mean(raw, later(runs, window - 1), slowing)


@feature(intervals=INTERVALS, **PERCENT, warm_up=_stochastic_bars, source=LANE, mirror=50.0)
def stoch_d(bars: Bars, runs: Runs, window: int = 14, slowing: int = 3, smoothing: int = 3) -> FloatArray:
    """Slow stochastic %D: mean of %K over `smoothing` bars. NaN where one of its ranges is zero."""
    raw = fast_stochastic(bars.high, bars.low, bars.close, throughout(runs), window)
    slow = short_mean(raw, throughout(later(runs, window - 1)), slowing)
    return 100.0 * short_mean(slow, later(runs, window + slowing - 2), smoothing)


@feature(
    intervals=INTERVALS, unit="1 / 0.015 mean deviations", warm_up=_windowed,
    source="Lambert 1980, Commodities Channel Index", mirror=0.0,
)  # fmt: skip
def cci(bars: Bars, runs: Runs, window: int = 20) -> FloatArray:
    """Commodity channel index: (typical − mean) / (0.015 · mean |typical − mean|) over the last `window` bars, typical
    being (high + low + close) / 3. NaN where all typical prices are equal."""
    typical = typical_price(bars.high, bars.low, bars.close)
    mean = rolling_mean(typical, runs, window)
    return ratio(typical - mean, 0.015 * mean_deviation(typical, mean, runs, window))


@feature(
    intervals=INTERVALS, unit="−100 to 0", bounds=(-100.0, 0.0), warm_up=_windowed,
    source="Williams 1979, How I Made One Million Dollars", mirror=-50.0,
)  # fmt: skip
def willr(bars: Bars, runs: Runs, window: int = 14) -> FloatArray:
    """Williams %R: −100 · (highest high − close) / (highest high − lowest low) of the last `window` bars.
    NaN where that range is zero."""
    highest = rolling_maximum(bars.high, runs, window)
    return -100.0 * ratio(highest - bars.close, highest - rolling_minimum(bars.low, runs, window))


@feature(intervals=BY_NAME, unit="price", warm_up=_windowed, source=BOLLINGER)
def bb_upper(bars: Bars, runs: Runs, window: int = 20, width: float = 2) -> FloatArray:
    """Upper Bollinger band: mean + width · standard deviation (ddof 0) of the last `window` closes.
    Never NaN on positive prices."""
    mean, deviation = rolling_moments(bars.close, runs, window, 0)
    return mean + width * deviation


@feature(intervals=BY_NAME, unit="price", warm_up=_windowed, source=BOLLINGER)
def bb_lower(bars: Bars, runs: Runs, window: int = 20, width: float = 2) -> FloatArray:
    """Lower Bollinger band: mean − width · standard deviation (ddof 0) of the last `window` closes.
    Never NaN on positive prices."""
    mean, deviation = rolling_moments(bars.close, runs, window, 0)
    return mean - width * deviation


@feature(
    intervals=INTERVALS, unit="0 at the lower band, 1 at the upper", warm_up=_windowed, source=BOLLINGER, mirror=0.5
)
def percent_b(bars: Bars, runs: Runs, window: int = 20, width: float = 2) -> FloatArray:
    """Bollinger %b: (close − lower band) / (upper band − lower band). NaN where all `window` closes are equal."""
    mean, deviation = rolling_moments(bars.close, runs, window, 0)
    return 0.5 + ratio(bars.close - mean, 2.0 * width * deviation)


@feature(intervals=INTERVALS, unit="fraction of the mean", warm_up=_windowed, source=BOLLINGER)
def bandwidth(bars: Bars, runs: Runs, window: int = 20, width: float = 2) -> FloatArray:
    """Bollinger bandwidth: (upper band − lower band) / mean. Never NaN on positive prices."""
    mean, deviation = rolling_moments(bars.close, runs, window, 0)
    return ratio(2.0 * width * deviation, mean)


@feature(intervals=BY_NAME, unit="price", warm_up=lambda: 1, source=WILDER)
def true_range(bars: Bars, runs: Runs) -> FloatArray:
    """max(high, previous close) − min(low, previous close). Never NaN on positive prices."""
    return true_ranges(bars.high, bars.low, bars.close, runs)


@feature(intervals=BY_NAME, unit="price", warm_up=_wilder, source=WILDER)
def atr(bars: Bars, runs: Runs, period: int = 14) -> FloatArray:
    """Average true range, Wilder's average of `true_range`. Never NaN on positive prices."""
    return wilder_atr(bars.high, bars.low, bars.close, runs, period)


@feature(intervals=INTERVALS, unit="fraction of close", warm_up=_wilder, source=WILDER)
def natr(bars: Bars, runs: Runs, period: int = 14) -> FloatArray:
    """Normalised average true range: `atr` over the close; `natr * close` is in price units, the yardstick of stops.
    Never NaN on positive prices; 0 on constant ones."""
    return ratio(wilder_atr(bars.high, bars.low, bars.close, runs, period), bars.close)


@feature(
    intervals=("day",), variants=((1,), (5,)), unit="0 to 1", bounds=(0.0, 1.0), warm_up=_windowed,
    source="%K of one window: Lane 1984", mirror=0.5,
)  # fmt: skip
def range_position(bars: Bars, runs: Runs, window: int) -> FloatArray:
    """The close within the lowest low to highest high of the last `window` bars. NaN where they had no range."""
    return fast_stochastic(bars.high, bars.low, bars.close, runs, window)


@feature(intervals=INTERVALS, **PERCENT, warm_up=_wilder, source=WILDER)
def adx(bars: Bars, runs: Runs, period: int = 14) -> FloatArray:
    """Average directional index: Wilder's average of DX = 100 · |+DI − −DI| / (+DI + −DI), DX being 0 where nothing
    moved. Never NaN on positive prices."""
    return directional_movement(bars.high, bars.low, bars.close, runs, period)[2]


@feature(intervals=INTERVALS, **PERCENT, warm_up=_wilder, source=WILDER)
def plus_di(bars: Bars, runs: Runs, period: int = 14) -> FloatArray:
    """+DI: 100 · Wilder's average of upward movement / that of the true range; `minus_di` of prices upside down.
    NaN where no bar had a true range."""
    return directional_movement(bars.high, bars.low, bars.close, runs, period)[0]


@feature(intervals=INTERVALS, **PERCENT, warm_up=_wilder, source=WILDER)
def minus_di(bars: Bars, runs: Runs, period: int = 14) -> FloatArray:
    """−DI: 100 · Wilder's average of downward movement / that of the true range; `plus_di` of prices upside down.
    NaN where no bar had a true range."""
    return directional_movement(bars.high, bars.low, bars.close, runs, period)[1]


@feature(
    intervals=("5m", "day"), variants=((3,), (5,), (18,)), unit="fraction", warm_up=_changes, source="by definition",
    mirror=0.0,
)  # fmt: skip
def simple_return(bars: Bars, runs: Runs, count: int) -> FloatArray:
    """Close over the close `count` bars before, − 1. Never NaN on positive prices."""
    return relative(bars.close, lag(bars.close, runs, count))


@feature(
    intervals=INTERVALS, unit="realised volatilities", warm_up=_changes,
    source="a return over its realised volatility: Andersen & Bollerslev 1998", mirror=0.0,
)  # fmt: skip
def trend(bars: Bars, runs: Runs, count: int = 18) -> FloatArray:
    """`simple_return` over √Σr² of the same `count` bars' log returns: how straight they went, about √count at most in
    size. NaN where no close changed."""
    change = relative(bars.close, lag(bars.close, runs, count))
    squares = rolling_sum(difference(bars.log_close) ** 2, later(runs, 1), count)
    return ratio(change, squares**0.5)


@feature(
    intervals=INTERVALS, **PERCENT, warm_up=_changes, needs={"volume"},
    source="Quong & Soudack 1989, Volume-Weighted RSI: Money Flow", mirror=50.0,
)  # fmt: skip
def mfi(bars: Bars, runs: Runs, period: int = 14) -> FloatArray:
    """Money flow index: 100 · flow of rising bars / flow of rising and falling ones among the last `period`; a bar's
    flow is typical price · volume, and it rises or falls as its typical price does. NaN where none rose or fell with
    volume, or a volume is unknown."""
    typical = typical_price(bars.high, bars.low, bars.close)
    flow, after = signed(typical * bars.volume, typical), later(runs, 1)
    return 100.0 * ratio(rolling_sum(flow.clip(0.0), after, period), rolling_sum(abs(flow), after, period))


@feature(intervals=BY_NAME, unit="shares", warm_up=lambda: 0, needs={"volume"}, source=GRANVILLE)
def obv(bars: Bars, runs: Runs) -> FloatArray:
    """On-balance volume since the run's first bar, which counts as 0: plus the volume of a bar that closed higher than
    the one before, minus that of one that closed lower. NaN from an unknown volume on, else Never NaN."""
    return accumulated(signed(bars.volume, bars.close), runs)


@feature(
    intervals=INTERVALS, unit="−1 to 1", bounds=(-1.0, 1.0), warm_up=_changes, needs={"volume"}, source=GRANVILLE,
    mirror=0.0,
)  # fmt: skip
def obv_slope(bars: Bars, runs: Runs, count: int = 20) -> FloatArray:
    """Change of on-balance volume over the last `count` bars, over their volume. Never NaN where all of it is known
    and some is not zero."""
    after = later(runs, 1)
    change = rolling_sum(signed(bars.volume, bars.close), after, count)
    return ratio(change, rolling_sum(bars.volume, after, count))


@feature(
    intervals=INTERVALS, variants=((1, 20),), unit="standard deviations",
    warm_up=lambda count, window: max(count, window) - 1, needs={"volume"}, source="by definition",
)  # fmt: skip
def volume_z(bars: Bars, runs: Runs, count: int, window: int) -> FloatArray:
    """Volume of the last `count` bars against the last `window`, as a z-score of their sum: (Σ − count · mean) /
    (std · √count), ddof 1, the last ones included. NaN where all `window` are equal or one is unknown."""
    return rolling_z_score(bars.volume, runs, count, window)


@feature(
    intervals=INTRADAY, unit="fraction", warm_up=lambda: 0, needs={"volume"},
    source="Berkowitz, Logue & Noser 1988, The Total Cost of Transactions on the NYSE", mirror=0.0,
)  # fmt: skip
def vwap_gap(bars: Bars, runs: Runs) -> FloatArray:
    """Close over the session's volume-weighted average price so far, − 1, a bar's price being (high + low + close) / 3.
    Never NaN once something was traded; NaN from an unknown volume on until the session's end."""
    typical = typical_price(bars.high, bars.low, bars.close)
    return relative(bars.close, session_vwap(typical, bars.volume, bars.session, runs))


@feature(intervals=("5m", "day"), unit="fraction", warm_up=lambda: 1, source="by definition", mirror=0.0)
def gap(bars: Bars, runs: Runs) -> FloatArray:
    """The open of the session's first bar over the last close before it, − 1; the same in all bars of the session.
    Never NaN on positive prices where the symbol has a bar in one of the sessions that are searched before: not in its
    first one, nor after it has missed more of them."""
    return relative(session_open(bars.open, bars.session, runs), close_before_session(bars.close, bars.session, runs))


@feature(intervals=("day",), unit="fraction", warm_up=lambda: 0, source="by definition", mirror=0.0)
def session_return(bars: Bars, runs: Runs) -> FloatArray:
    """Close over the open of the session's first bar, − 1. Never NaN on positive prices."""
    return relative(bars.close, session_open(bars.open, bars.session, runs))
