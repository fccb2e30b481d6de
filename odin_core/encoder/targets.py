"""What the encoder is asked about each bar: the future that a row's label tells, and the structure known at the row.

Labels lie in a row's future and are never among its inputs; `samples` says which rows are learned from, and purges
labels that cross a split. In come bars of one interval as arrays, symbol after symbol; how heads are scored is `heads`.
The structure's own regime needs half a year of sessions before it has a first value, so the regime here is measured on
the bars of the session itself."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from odin_core.features.regime import HIGH_ABOVE, SESSIONS
from odin_core.features.series import FloatArray, IntArray, Runs, compiled
from odin_core.structure.heatmap import rolling_heatmap

VOLATILITY_BARS: Final = 75
"""Bars whose changes say what one bar's change usually is: of five minutes, one NSE session."""
TREND, RANGE, VOLATILE = 0, 1, 2
"""Regimes, numbered as `config.REGIMES` lists them."""
NONE, BREAKOUT_UP, BREAKOUT_DOWN, REVERSAL_UP, REVERSAL_DOWN = range(5)
"""Turns, numbered as `config.TURNS` lists them."""
UNKNOWN: Final = -1


class BarRows(NamedTuple):
    """Bars of one interval, symbol after symbol, each symbol's ascending in time and of whole sessions; prices of a
    symbol on one scale. Arrays (rows,); `starts` (symbols + 1,)."""

    high: FloatArray
    low: FloatArray
    close: FloatArray
    session: IntArray  # ordinal day
    starts: IntArray  # where each symbol's rows begin


class RowTargets(NamedTuple):
    """Labels of each row. `regime`, `turns`: (rows,) int64, −1 unknown. `heatmap` (rows, BINS) and `returns`
    (rows, horizons): float32, NaN unknown. `volatility`: (rows,) float64, what returns are measured in."""

    regime: IntArray
    heatmap: NDArray[np.float32]
    returns: NDArray[np.float32]
    turns: IntArray
    volatility: FloatArray

    def at(self, rows: IntArray) -> "RowTargets":
        """Of these rows, copied."""
        regime, heatmap, returns, turns, volatility = self
        return RowTargets(regime[rows], heatmap[rows], returns[rows], turns[rows], volatility[rows])


def row_targets(bars: BarRows, horizons: Sequence[int], turn_bars: int, range_bars: int) -> RowTargets:
    """All labels of each row: `session_regimes`, `rolling_heatmap` (as known at the row), `forward_returns`, `turns`.

    horizons: bars ahead, each at least 1. A label never follows from another symbol's bars; where its own future does
    not exist yet it is unknown."""
    volatility = trailing_volatility(bars.close, bars.starts, VOLATILITY_BARS)
    runs = Runs(bars.starts[:-1], bars.starts[:-1], bars.starts[1:])
    return RowTargets(
        regime=session_regimes(bars),
        heatmap=np.maximum(rolling_heatmap(bars.high, bars.low, bars.close, runs), 0.0),  # its sums may round below 0
        returns=forward_returns(bars.close, volatility, bars.starts, horizons),
        turns=turns(bars, volatility, turn_bars, range_bars),
        volatility=volatility,
    )


@compiled
def trailing_volatility(close: FloatArray, starts: IntArray, window: int) -> FloatArray:
    """√(mean of r²) of the last `window` log changes of closes up to each row, nights included, mean taken as 0; per
    bar, (rows,). NaN until a symbol has so many and where a price among them is not known; 0 where nothing moved."""
    out = np.full(len(close), np.nan)
    for s in range(len(starts) - 1):
        for i in range(starts[s] + window, starts[s + 1]):
            total = 0.0
            for j in range(i - window + 1, i + 1):
                change = math.log(close[j] / close[j - 1])
                total += change * change
            out[i] = math.sqrt(total / window)
    return out


def forward_returns(
    close: FloatArray, volatility: FloatArray, starts: IntArray, horizons: Sequence[int]
) -> NDArray[np.float32]:
    """ln(close h bars ahead / close) / (volatility · √h) for each horizon h: (rows, horizons), so that 1 is one
    standard deviation of a random walk. NaN where the symbol has no such bar yet, or volatility is 0 or unknown."""
    out = np.full((len(close), len(horizons)), np.nan, np.float32)
    end = np.repeat(starts[1:], np.diff(starts))
    row = np.arange(len(close))
    scale = np.where(volatility > 0.0, volatility, np.nan)
    logs = np.log(close)
    for column, horizon in enumerate(horizons):
        known = row[row + horizon < end]
        out[known, column] = (logs[known + horizon] - logs[known]) / (scale[known] * math.sqrt(horizon))
    return out


def turns(bars: BarRows, volatility: FloatArray, ahead: int, behind: int) -> IntArray:
    """What becomes of the range of the last `behind` bars within the next `ahead`: (rows,), a class of `config.TURNS`.

    breakout up or down: the close `ahead` bars on lies above the range's high or below its low. reversal up or down: it
    lies inside, but the price had moved by more than one standard deviation of a random walk (volatility · √behind)
    over the last `behind` bars and then moves by more than one (volatility · √ahead) the other way, up or down being
    the way of the later move. Else none. −1 where the symbol has too few bars before or after, or no volatility."""
    return _turns(bars.high, bars.low, bars.close, volatility, bars.starts, ahead, behind)


@compiled
def _turns(
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    volatility: FloatArray,
    starts: IntArray,
    ahead: int,
    behind: int,
) -> IntArray:
    out = np.full(len(close), UNKNOWN, np.int64)
    for s in range(len(starts) - 1):
        for i in range(starts[s] + behind, starts[s + 1] - ahead):
            top, bottom, later = high[i], low[i], close[i + ahead]
            for j in range(i - behind + 1, i):
                top, bottom = np.maximum(top, high[j]), np.minimum(bottom, low[j])
            usual = volatility[i]
            if not (usual > 0.0 and math.isfinite(top + bottom + later + close[i] + close[i - behind])):
                continue
            before = math.log(close[i] / close[i - behind]) / (usual * math.sqrt(behind))
            after = math.log(later / close[i]) / (usual * math.sqrt(ahead))
            if later > top:
                out[i] = BREAKOUT_UP
            elif later < bottom:
                out[i] = BREAKOUT_DOWN
            elif before < -1.0 and after > 1.0:
                out[i] = REVERSAL_UP
            elif before > 1.0 and after < -1.0:
                out[i] = REVERSAL_DOWN
            else:
                out[i] = NONE
    return out


def session_regimes(bars: BarRows) -> IntArray:
    """The regime of each row's whole session, known at its close: (rows,), TREND, RANGE or VOLATILE.

    Of the session's own log changes r between bars, the night left out: VOLATILE where √(mean r²) is above HIGH_ABOVE
    times its median over the symbol's last ten sessions, this one included (as `features.regime` has it of the market);
    else TREND where |Σr| > √(Σr²), which a random walk does in a third of sessions; else RANGE. −1 in a symbol's first
    nine sessions, where a session has no change of price, and where a price in the ten sessions is not known."""
    first = np.ones(len(bars.session), np.bool_)
    first[1:] = np.diff(bars.session) != 0
    first[bars.starts[:-1][np.diff(bars.starts) > 0]] = True
    begin = np.flatnonzero(first)
    end = np.append(begin[1:], len(first))
    symbol = np.searchsorted(bars.starts, begin, side="right") - 1
    return _regimes(np.log(bars.close), begin, end, symbol, SESSIONS, HIGH_ABOVE)


@compiled
def _regimes(
    logs: FloatArray, begin: IntArray, end: IntArray, symbol: IntArray, sessions: int, high_above: float
) -> IntArray:
    out = np.full(len(logs), UNKNOWN, np.int64)
    volatility = np.empty(len(begin))
    for k in range(len(begin)):
        squares, way = 0.0, 0.0
        for i in range(begin[k] + 1, end[k]):
            change = logs[i] - logs[i - 1]
            squares += change * change
            way += change
        volatility[k] = math.sqrt(squares / max(end[k] - begin[k] - 1, 1))
        if k < sessions - 1 or symbol[k - sessions + 1] != symbol[k] or not squares > 0.0:
            continue
        compared = volatility[k - sessions + 1 : k + 1]
        if math.isnan(compared.sum()):  # a median may drop a NaN
            continue
        calm = TREND if abs(way) > math.sqrt(squares) else RANGE
        out[begin[k] : end[k]] = VOLATILE if volatility[k] > high_above * np.median(compared) else calm
    return out
