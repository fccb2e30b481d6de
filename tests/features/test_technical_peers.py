"""The technical set against TA-Lib, on minute bars and daily bars of NSE shares.

Where TA-Lib has another convention, the peer is put together from its parts and the difference is said beside it:
TA-Lib seeds MACD's fast average later (peer: the difference of its two EMAs), seeds ADX one bar early (peer: after the
difference has died out), lets rounding decide which of two equal movements is the larger (peer: of prices in whole
numbers), begins OBV with the first volume, and gives 0 where we say NaN: a range, a deviation or a flow
of zero. Its sums and squares run on by subtraction, which costs it digits: hence the tolerances."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import polars as pl
import pytest
import talib
from numpy.typing import NDArray
from realdata import market_file

from odin_core.features.catalogue import DEFINITIONS
from odin_core.features.engine import compute

Array: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = dict[str, Array]
CONVERGED = 400  # rows after which what TA-Lib seeds otherwise is the same: (13/14)^400 is 1e-13


def ema_of_the_defined(values: Array, period: int) -> Array:
    out, start = np.full(len(values), np.nan), int(np.isnan(values).sum())
    out[start:] = talib.EMA(values[start:], period)
    return out


def line(c: Columns) -> Array:
    return talib.EMA(c["close"], 12) - talib.EMA(c["close"], 26)


def signal(c: Columns) -> Array:
    return ema_of_the_defined(line(c), 9)


def bands(c: Columns) -> tuple[Array, Array, Array]:
    return talib.BBANDS(c["close"], 20, 2, 2)


def stochastic(c: Columns, smoothing: int) -> tuple[Array, Array]:
    return talib.STOCH(*hlc(c), 14, 3, 0, smoothing, 0)  # both NaN until the second is defined


def hlc(c: Columns) -> tuple[Array, Array, Array]:
    return c["high"], c["low"], c["close"]


def in_whole_numbers(c: Columns) -> tuple[Array, Array, Array]:
    high, low, close = (np.round(x * 1e8) for x in hlc(c))
    return high, low, close


def sum_z(volume: Array, count: int, window: int) -> Array:
    deviation = talib.STDDEV(volume, window) * np.sqrt(window / (window - 1))  # TA-Lib's has ddof 0
    total = np.convolve(volume, np.ones(count))[: len(volume)]
    return (total - count * talib.SMA(volume, window)) / (deviation * np.sqrt(count))


def straightness(close: Array, count: int) -> Array:
    squares = np.diff(np.log(close), prepend=np.nan) ** 2
    total = np.concatenate([[np.nan], talib.SUM(squares[1:], count)])
    return talib.ROCP(close, count) / np.sqrt(total)


def by_session(c: Columns, expression: pl.Expr) -> Array:
    frame = pl.DataFrame(c).with_columns(typical=(pl.col("high") + pl.col("low") + pl.col("close")) / 3)
    return frame.select(expression.over("day")).to_series().to_numpy()


PEERS: dict[str, Callable[[Columns], Array]] = {
    "sma_20": lambda c: talib.SMA(c["close"], 20),
    "ema_20": lambda c: talib.EMA(c["close"], 20),
    "sma_gap_20": lambda c: c["close"] / talib.SMA(c["close"], 20) - 1,
    "ema_gap_20": lambda c: c["close"] / talib.EMA(c["close"], 20) - 1,
    "sma_cross_5_20": lambda c: talib.SMA(c["close"], 5) / talib.SMA(c["close"], 20) - 1,
    "ema_cross_12_26": lambda c: talib.EMA(c["close"], 12) / talib.EMA(c["close"], 26) - 1,
    "macd_12_26_9": line,
    "macd_12_26_9_signal": signal,
    "macd_12_26_9_histogram": lambda c: line(c) - signal(c),
    "macd_share_12_26_9": lambda c: line(c) / c["close"],
    "macd_share_12_26_9_signal": lambda c: signal(c) / c["close"],
    "macd_share_12_26_9_histogram": lambda c: (line(c) - signal(c)) / c["close"],
    "rsi_14": lambda c: talib.RSI(c["close"], 14),
    "stoch_k_14_3_3": lambda c: stochastic(c, 1)[0],
    "stoch_d_14_3_3": lambda c: stochastic(c, 3)[1],
    "cci_20": lambda c: talib.CCI(*hlc(c), 20),
    "willr_14": lambda c: talib.WILLR(*hlc(c), 14),
    "bb_upper_20_2": lambda c: bands(c)[0],
    "bb_lower_20_2": lambda c: bands(c)[2],
    "percent_b_20_2": lambda c: (c["close"] - bands(c)[2]) / (bands(c)[0] - bands(c)[2]),
    "bandwidth_20_2": lambda c: (bands(c)[0] - bands(c)[2]) / bands(c)[1],
    "true_range": lambda c: talib.TRANGE(*hlc(c)),
    "atr_14": lambda c: talib.ATR(*hlc(c), 14),
    "natr_14": lambda c: talib.NATR(*hlc(c), 14) / 100,
    "range_position_5": lambda c: 1 + talib.WILLR(*hlc(c), 5) / 100,
    "adx_14": lambda c: talib.ADX(*in_whole_numbers(c), 14),
    "plus_di_14": lambda c: talib.PLUS_DI(*in_whole_numbers(c), 14),
    "minus_di_14": lambda c: talib.MINUS_DI(*in_whole_numbers(c), 14),
    "simple_return_18": lambda c: talib.ROCP(c["close"], 18),
    "trend_18": lambda c: straightness(c["close"], 18),
    "mfi_14": lambda c: talib.MFI(*hlc(c), c["volume"], 14),
    "obv": lambda c: talib.OBV(c["close"], c["volume"]) - c["volume"][0],
    "obv_slope_20": lambda c: (
        talib.MOM(talib.OBV(c["close"], c["volume"]), 20) / talib.SUM(c["volume"], 20)
    ),
    "volume_z_1_20": lambda c: sum_z(c["volume"], 1, 20),
    "volume_z_18_75": lambda c: sum_z(c["volume"], 18, 75),
    "vwap_gap": lambda c: by_session(
        c,
        pl.col("close") / ((pl.col("typical") * pl.col("volume")).cum_sum() / pl.col("volume").cum_sum()) - 1,
    ),
    "gap": lambda c: (
        by_session(c, pl.col("open").first())
        / by_session(c | {"before": np.append(np.nan, c["close"][:-1])}, pl.col("before").first())
        - 1
    ),
    "session_return": lambda c: c["close"] / by_session(c, pl.col("open").first()) - 1,
}  # fmt: skip

SEEDED_OTHERWISE = {"adx_14", "plus_di_14", "minus_di_14"}


@pytest.fixture(scope="module", params=["minutes", "days"])
def bars(request: pytest.FixtureRequest) -> pl.DataFrame:
    """Bars of one share. Of the minutes, those that nothing was traded in are left out."""
    if request.param == "days":
        frame = pl.read_parquet(market_file("nse_daily_adjusted.parquet")).filter(symbol="TCS")
    else:
        frame = pl.read_parquet(market_file("nse_equity_1m_2021.parquet")).filter(symbol="HDFCLIFE")
    return (
        frame.filter(pl.col("volume") > 0).sort("ts").select("symbol", "ts", "open", "high", "low", "close", "volume")
    )


@pytest.mark.parametrize("name", PEERS)
def test_an_indicator_agrees_with_its_peer_on_real_bars(bars: pl.DataFrame, name: str):
    columns = {field: bars[field].to_numpy() for field in ("open", "high", "low", "close", "volume")}
    columns["day"] = bars["ts"].dt.date().to_physical().cast(pl.Float64).to_numpy()
    actual = compute(bars, [name])[name].fill_null(np.nan).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = PEERS[name](columns)
    begin = CONVERGED if name in SEEDED_OTHERWISE else 0
    known = np.isfinite(actual) & (np.arange(len(bars)) >= begin)
    assert known.mean() > 0.7
    assert not (np.isfinite(expected) & np.isnan(actual))[begin:].mean() > 0.01, "only where the peer fills in a zero"
    size = np.abs(actual[known]).max()
    np.testing.assert_allclose(actual[known], expected[known], rtol=1e-6, atol=1e-8 * size)


def test_every_function_of_the_set_has_a_peer():
    ours = {d.name for d in DEFINITIONS.values() if d.set == "technical"}
    parts = {name.rstrip("0123456789_") for name in PEERS} | {"macd_signal", "macd_histogram"}
    parts |= {"macd_share_signal", "macd_share_histogram"}
    assert ours <= parts
