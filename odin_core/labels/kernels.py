"""Arithmetic of labels over arrays of bars, compiled: each loop is the textbook's, in one thread and in row order.

First over bars symbol after symbol, each symbol's ascending in time, `starts` (symbols + 1,) saying where each begins;
how frames become such arrays is in `frames`. Then what became of decisions, session by session, over `Blocks` of bars
through `Links`, made in `sessions`: for each decision (n,) a value, when it was known (-1: not within these sessions)
and, where it has none, why: SESSION_CLOSED or NO_BARS. Times are microseconds since 1970 and say when a bar is known.

All in one file, because numba's cache of a function does not see a change of what it calls in another."""

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from odin_core.features.series import FloatArray, IntArray, compiled

Outcomes: TypeAlias = tuple[FloatArray, IntArray, NDArray[np.int8]]

STOP, VERTICAL, PROFIT = -1, 0, 1
COMPLETE, SESSION_CLOSED, NO_BARS = 0, 1, 2


class Blocks(NamedTuple):
    """Bars of one interval, (rows,), those of each session and symbol together and ascending in time."""

    known_at: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    session: IntArray
    symbol: IntArray
    start: IntArray  # (sessions, symbols), the first row of each
    end: IntArray  # (sessions, symbols), the row after its last one


class Links(NamedTuple):
    """Where a symbol of a session is found in the session d later (or d earlier), and what its prices there are
    compared with: arrays (sessions, d + 1, symbols)."""

    column: IntArray  # the symbol's place there, -1 where it has none
    factor: FloatArray  # brings the earlier session's prices onto the later one's scale


class Decisions(NamedTuple):
    """Arrays (n,). The entry is the close of the bar decided at."""

    session: IntArray
    symbol: IntArray
    row: IntArray  # of its bar, in blocks of the decisions' own interval; -1 where they are not of blocks
    time: IntArray  # the end of that bar
    entry: FloatArray


@compiled
def first_at_or_after(time: IntArray, moment: int, first: int, end: int) -> int:
    """The first row of [first, end) whose time is not before `moment`; `end` where there is none."""
    while first < end:
        middle = (first + end) // 2
        if time[middle] < moment:
            first = middle + 1
        else:
            end = middle
    return first


@compiled
def rows_at_or_after(time: IntArray, starts: IntArray, symbol: IntArray, moments: IntArray) -> IntArray:
    """For each pair of `symbol` and `moments` (n,), the first row of that symbol whose time is not before the moment,
    or the row after its last one. A symbol of -1 gives -1. Pairs in order are found by walking on, others by search."""
    out = np.empty(len(moments), np.int64)
    row, walked = 0, -1
    for i in range(len(moments)):
        s, moment = symbol[i], moments[i]
        if s < 0:
            out[i] = -1
            continue
        first, end = int(starts[s]), int(starts[s + 1])
        if s != walked or (row > first and time[row - 1] >= moment):
            row, walked = first_at_or_after(time, moment, first, end), s
        steps = 0
        while row < end and time[row] < moment:
            row += 1
            steps += 1
            if steps == 64:
                row = first_at_or_after(time, moment, row, end)
        out[i] = row
    return out


@compiled
def levels(entry: float, width: float, long: bool, profit: float, stop: float, strict: bool) -> tuple[float, float]:
    """Prices of the upper and the lower barrier, `profit` and `stop` times `width` (a fraction) away from `entry`, to
    be met at or beyond them; `strict`: only what lies beyond meets them."""
    above, below = (profit, stop) if long else (stop, profit)
    up, down = entry * (1.0 + above * width), entry * (1.0 - below * width)
    return (np.nextafter(up, np.inf), np.nextafter(down, -np.inf)) if strict else (up, down)


@compiled
def first_beyond(high: FloatArray, low: FloatArray, first: int, end: int, up: float, down: float) -> int:
    """The first row of [first, end) that meets a level; `end`, if not before `first`, where none does."""
    row, last, one = np.uint64(first), np.uint64(end), np.uint64(1)  # unsigned: an index that cannot count from the end
    while row < last and low[row] > down and high[row] < up:
        row += one
    return int(np.int64(row))


@compiled
def first_touch(
    prices: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    row: IntArray,
    vertical: IntArray,
    end: IntArray,
    width: FloatArray,
    long: NDArray[np.bool_],
    profit: float,
    stop: float,
    strict: bool,
) -> tuple[IntArray, FloatArray, NDArray[np.int8]]:
    """Which of three barriers each event meets first: the exit's row, its price over the entry's − 1, and STOP,
    VERTICAL or PROFIT.

    prices: open, high, low, close, (rows,). Per event (n,): its own `row`, whose close is the entry and after which the
    search begins; the row of the `vertical` barrier, whose own prices still count; the `end` of its symbol's rows; and
    what `levels` takes. Row -1 and NaN where the bars end first, and where the vertical is the event's own row."""
    opened, high, low, closed = prices
    n = len(row)
    exit_row, change, kind = np.full(n, -1, np.int64), np.full(n, np.nan), np.zeros(n, np.int8)
    for i in range(n):
        entry = float(closed[row[i]])
        up, down = levels(entry, width[i], long[i], profit, stop, strict)
        last = min(vertical[i], end[i] - 1)
        r = first_beyond(high, low, row[i] + 1, last + 1, up, down)
        if r <= last:
            price, kind[i] = exit_at(float(opened[r]), float(high[r]), float(low[r]), up, down, long[i])
            exit_row[i], change[i] = r, price / entry - 1.0
        elif row[i] < vertical[i] < end[i]:
            exit_row[i], change[i] = last, closed[last] / entry - 1.0
    return exit_row, change, kind


@compiled
def exit_at(opened: float, high: float, low: float, up: float, down: float, long: bool) -> tuple[float, int]:
    """Price and kind of the exit in a bar that meets at least one of two levels: at the open where that lies at or
    beyond a level, else at the level; the stop where the bar meets both."""
    above, below = (PROFIT, STOP) if long else (STOP, PROFIT)
    if opened <= down:
        return opened, below
    if opened >= up:
        return opened, above
    if low <= down and (long or high < up):
        return down, below
    return up, above


@compiled
def weighted_deviation(values: FloatArray, span: float) -> FloatArray:
    """Exponentially weighted standard deviation of `values` (n,) up to each one, weights (1 − 2 / (span + 1))^age,
    bias corrected; NaN at the first. The same as pandas' `ewm(span).std()`."""
    out = np.full(len(values), np.nan)
    keep = 1.0 - 2.0 / (span + 1.0)
    mean, variance, weight, squares = 0.0, 0.0, 0.0, 0.0
    for i in range(len(values)):
        weight, squares = weight * keep, squares * keep * keep
        before = mean
        mean = (weight * before + values[i]) / (weight + 1.0)
        variance = (weight * (variance + (before - mean) ** 2) + (values[i] - mean) ** 2) / (weight + 1.0)
        weight, squares = weight + 1.0, squares + 1.0
        if i > 0:
            out[i] = math.sqrt(variance * weight * weight / (weight * weight - squares))
    return out


@compiled
def returns_over(time: IntArray, close: FloatArray, starts: IntArray, span: int) -> FloatArray:
    """close / close of the last bar whose time is before time − span, − 1; (rows,), NaN where there is no such bar."""
    out = np.full(len(close), np.nan)
    for s in range(len(starts) - 1):
        before = starts[s]
        for i in range(starts[s], starts[s + 1]):
            while time[before] < time[i] - span:
                before += 1
            if before > starts[s]:
                out[i] = close[i] / close[before - 1] - 1.0
    return out


@compiled
def cusum_rows(close: FloatArray, starts: IntArray, threshold: float) -> NDArray[np.bool_]:
    """Whether the symmetric CUSUM filter fires at each row (rows,): the sums of log returns up and down begin anew with
    each symbol, and the one that passes the threshold begins anew after it."""
    out = np.zeros(len(close), np.bool_)
    for s in range(len(starts) - 1):
        up, down = 0.0, 0.0
        for i in range(starts[s] + 1, starts[s + 1]):
            change = math.log(close[i]) - math.log(close[i - 1])
            up, down = max(0.0, up + change), min(0.0, down + change)
            if down < -threshold:
                down, out[i] = 0.0, True
            elif up > threshold:
                up, out[i] = 0.0, True
    return out


@compiled
def concurrency(first: IntArray, last: IntArray, rows: int) -> IntArray:
    """How many labels' spans [first, last] (rows, both included) each of the bars lies in, (rows,)."""
    change = np.zeros(rows + 1, np.int64)
    for i in range(len(first)):
        change[first[i]] += 1
        change[last[i] + 1] -= 1
    return np.cumsum(change)[:rows]


@compiled
def sums_over_spans(values: FloatArray, first: IntArray, last: IntArray) -> FloatArray:
    """The sum of `values` (rows,) over each span [first, last], both included, in row order."""
    out = np.zeros(len(first))
    for i in range(len(first)):
        for r in range(first[i], last[i] + 1):
            out[i] += values[r]
    return out


@compiled
def nothing_known(n: int) -> Outcomes:
    return np.full(n, np.nan), np.full(n, -1, np.int64), np.zeros(n, np.int8)


@compiled
def after_minutes(decisions: Decisions, minutes: Blocks, closes: IntArray, horizon: int, delay: int) -> Outcomes:
    """Return to the first bar known at or after `horizon` microseconds, in the same session and at most `delay`
    microseconds late: else NO_BARS, then or at the close. At the close itself there is no decision left to make."""
    value, known, reason = nothing_known(len(decisions.time))
    for n in range(len(value)):
        i, k = decisions.session[n], decisions.symbol[n]
        moment = decisions.time[n] + horizon
        if decisions.time[n] >= closes[i]:
            continue
        known[n] = min(moment + delay, closes[i])
        if moment > closes[i]:
            reason[n] = SESSION_CLOSED
            continue
        row = first_at_or_after(minutes.known_at, moment, int(minutes.start[i, k]), int(minutes.end[i, k]))
        if row == minutes.end[i, k] or minutes.known_at[row] > known[n]:
            reason[n] = NO_BARS
        else:
            value[n], known[n] = minutes.close[row] / decisions.entry[n] - 1.0, minutes.known_at[row]
    return value, known, reason


@compiled
def after_bars(decisions: Decisions, bars: Blocks, closes: IntArray, onward: Links, count: int) -> Outcomes:
    """Return to the bar `count` later, over sessions; NO_BARS at the close of the last session that may be searched."""
    value, known, reason = nothing_known(len(decisions.time))
    for n in range(len(value)):
        i, k = decisions.session[n], decisions.symbol[n]
        missing = count
        for d in range(onward.column.shape[1]):
            if i + d >= len(closes):
                break
            there = onward.column[i, d, k]
            first, end = (bars.start[i + d, there], bars.end[i + d, there]) if there >= 0 else (0, 0)
            if d == 0:
                first = decisions.row[n] + 1
            if missing <= end - first:
                row = first + missing - 1
                value[n] = bars.close[row] / (decisions.entry[n] * onward.factor[i, d, k]) - 1.0
                known[n] = bars.known_at[row]
                break
            missing -= end - first
            if d == onward.column.shape[1] - 1:
                known[n], reason[n] = closes[i + d], NO_BARS
    return value, known, reason


@compiled
def after_sessions(
    decisions: Decisions, start: FloatArray, later: FloatArray, closes: IntArray, onward: Links, count: int
) -> Outcomes:
    """later / start − 1 to the session `count` later. start: (n,), put on the later session's scale; later: values by
    session and symbol, NaN where there is none."""
    value, known, reason = nothing_known(len(decisions.time))
    for n in range(len(value)):
        i, k = decisions.session[n], decisions.symbol[n]
        if i + count >= len(closes):
            continue
        there = onward.column[i, count, k]
        known[n], reason[n] = closes[i + count], NO_BARS
        if there >= 0 and not math.isnan(later[i + count, there]):
            value[n], reason[n] = later[i + count, there] / (start[n] * onward.factor[i, count, k]) - 1.0, COMPLETE
    return value, known, reason


@compiled
def first_barrier(
    decisions: Decisions,
    width: FloatArray,
    side: int,
    multiples: tuple[float, float],
    vertical: IntArray,
    sessions: int,
    minutes: Blocks,
    closes: IntArray,
    onward: Links,
) -> Outcomes:
    """The barrier that a position of `side` meets first: 1 profit, −1 stop, 0 vertical; `exit_at` says which in
    one bar. The vertical barrier is the time `vertical` (n,) in the session `sessions` later, or its close if that is
    earlier: bars known by it count. NO_BARS, known then, where the symbol had none in that session since the decision.
    """
    value, known, reason = nothing_known(len(decisions.time))
    for n in range(len(value)):
        i, k = decisions.session[n], decisions.symbol[n]
        if decisions.time[n] >= closes[i] and sessions == 0:
            continue
        for d in range(sessions + 1):
            if i + d >= len(closes):
                break
            there = onward.column[i, d, k]
            first, end = (minutes.start[i + d, there], minutes.end[i + d, there]) if there >= 0 else (0, 0)
            if d == 0:
                first = first_at_or_after(minutes.known_at, decisions.time[n] + 1, int(first), int(end))
            until = min(vertical[n], closes[i + d])
            end = first_at_or_after(minutes.known_at, until + 1, int(first), int(end))
            entry = decisions.entry[n] * onward.factor[i, d, k]
            up, down = levels(entry, width[n], side > 0, multiples[0], multiples[1], False)
            row = first_beyond(minutes.high, minutes.low, int(first), int(end), up, down)
            if row < end:
                high, low = minutes.high[row], minutes.low[row]
                value[n] = exit_at(minutes.open[row], high, low, up, down, side > 0)[1]
                known[n] = minutes.known_at[row]
                break
            if d == sessions:
                known[n] = until
                if end > first:
                    value[n] = 0.0
                else:
                    reason[n] = NO_BARS
    return value, known, reason


@compiled
def realised_volatility(bars: Blocks, returns: int, sessions: int) -> FloatArray:
    """Root of the mean square of the last `returns` log returns between bars of one session, up to each bar, (rows,):
    those of its own session, then of up to `sessions` before it; NaN where there are fewer. Zero mean, per bar."""
    out = np.full(len(bars.close), np.nan)
    for row in range(len(out)):
        i, k = bars.session[row], bars.symbol[row]
        total, found = 0.0, 0
        for d in range(min(sessions, i) + 1):
            last = row if d == 0 else bars.end[i - d, k] - 1
            for r in range(last, bars.start[i - d, k], -1):
                change = math.log(bars.close[r] / bars.close[r - 1])
                total, found = total + change * change, found + 1
                if found == returns:
                    break
            if found == returns:
                out[row] = math.sqrt(total / returns)
                break
    return out


@compiled
def daily_volatility_at(decisions: Decisions, close: FloatArray, back: Links, least: int) -> FloatArray:
    """`weighted_deviation` of the daily returns up to each decision, over as many sessions as `back` goes, with
    their number as span; NaN with fewer than `least` returns. close: (sessions, symbols); returns are between
    successive closes that the symbol has, on the scale of the decision's session."""
    reach = back.column.shape[1] - 1
    out = np.full(len(decisions.time), np.nan)
    window = np.empty(reach)
    for n in range(len(out)):
        i, k = decisions.session[n], decisions.symbol[n]
        found, before = 0, math.nan
        for d in range(min(reach, i), -1, -1):
            there = back.column[i, d, k]
            now = close[i - d, there] * back.factor[i, d, k] if there >= 0 else math.nan
            if math.isnan(now):
                continue
            if not math.isnan(before):
                window[found] = now / before - 1.0
                found += 1
            before = now
        if found >= least:
            out[n] = weighted_deviation(window[:found], float(reach))[found - 1]
    return out
