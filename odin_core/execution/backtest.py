"""Backtest: what a sequence of orders in one symbol is worth at each bar's close, by the fill engine alone.

It looks an order's state up at every bar by running `simulate` to that bar, so it shares nothing with the bookkeeping
of the environment (`rl`), whose episodes it repeats to the last bit. Several symbols are several backtests."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from odin_core.execution.costs import ChargeRates, CostSchedule, charges
from odin_core.execution.fills import simulate
from odin_core.execution.orders import Bars, ExecutionRules, Fills, Floats, Ints, Orders


class Backtest(NamedTuple):
    """At the closes of rows `start` … `end`: float64 (end − start + 1,) each."""

    equity: Floats  # currency: capital, realised and unrealised profit, charges taken off
    held: Floats  # quantity, negative when short
    cost: Floats  # charges, half-spread and slippage so far, currency; equity has them taken off already


class _Marks(NamedTuple):
    """One order at one row each, (n,): worth and cost so far, quantity held, whether it is open."""

    order: Ints
    row: Ints
    worth: Floats
    cost: Floats
    held: Floats
    open: NDArray[np.bool_]


def backtest(
    bars: Bars,
    orders: Orders,
    *,
    session_end: Ints,
    start: int,
    end: int,
    rules: ExecutionRules,
    costs: CostSchedule,
    capital: float,
    cost_factor: float = 1.0,
) -> Backtest:
    """Equity at each close from row `start`, before any order, to `end`. Rows are those of one symbol.

    `session_end` (rows,) is the last row of each row's session; `last` of an order is that of its `first`. What is
    held then is carried (delivery rates from that close on) and goes on in the next session. A position is worth its
    profit at the close, less charges of what was executed, times `cost_factor`; the exit to come is not charged
    before. Orders come in sequence, each beginning after the one before is over. Raises ValueError for others."""
    equity = np.full(end - start + 1, float(capital))
    held, cost = np.zeros_like(equity), np.zeros_like(equity)
    _require_sequence(orders, start)
    marks = _marks(bars, orders, session_end, end, rules, costs, cost_factor)
    bounds = np.searchsorted(marks.order, np.arange(orders.side.size + 1))
    realised, spent = float(capital), 0.0
    for k, (a, b) in enumerate(pairwise(bounds)):
        following = int(orders.first[k + 1]) if k + 1 < orders.side.size else end + 1
        b = min(b, a + max(0, following - int(orders.first[k])))
        if a == b:
            continue
        if following <= end and marks.open[b - 1]:
            raise ValueError(f"order {k + 1} begins at row {following}, before order {k} is over")
        span = slice(marks.row[a] - start, marks.row[b - 1] - start + 1)
        equity[span], held[span] = realised + marks.worth[a:b], marks.held[a:b]
        cost[span] = spent + marks.cost[a:b]
        realised, spent = equity[span.stop - 1], cost[span.stop - 1]
        equity[span.stop :], cost[span.stop :] = realised, spent
    return Backtest(equity, held, cost)


def _require_sequence(orders: Orders, start: int) -> None:
    early = np.flatnonzero(orders.first <= np.r_[start, orders.first[:-1]])
    if early.size:
        k = int(early[0])
        before = f"the backtest's start, {start}" if k == 0 else f"the first row of order {k - 1}"
        raise ValueError(f"order {k}: first={orders.first[k]}; it must lie after {before}")


def _marks(
    bars: Bars, orders: Orders, session_end: Ints, end: int, rules: ExecutionRules, costs: CostSchedule, factor: float
) -> _Marks:
    """Every order at every row from its first to the end of the session in which it is over, sorted by both."""
    found: list[_Marks] = []
    order = np.flatnonzero(orders.first <= end)
    first, state, carried = orders.first[order], None, np.zeros(order.size, np.bool_)
    while order.size:
        last = session_end[first]
        rows = np.minimum(last, end) - first + 1
        each = np.repeat(np.arange(order.size), rows)
        row = np.arange(each.size) - np.repeat(np.cumsum(rows) - rows, rows) + first[each]
        placed = Orders._make(column[order[each]] for column in orders)._replace(first=first[each], last=row)
        fills = simulate(bars, placed, rules, None if state is None else state.take(each))
        overnight = carried[each] | (fills.open & (row == last[each]))
        found.append(_mark(order[each], row, fills, placed.side, bars.close[row], overnight, costs, factor))
        tail = np.cumsum(rows) - 1
        on = fills.open[tail] & (last < end)
        order, first, carried = order[on], last[on] + 1, np.ones(int(on.sum()), np.bool_)
        state = fills.take(tail[on])
    if not found:
        none = np.empty(0)
        return _Marks(none.astype(np.int64), none.astype(np.int64), none, none, none, none.astype(np.bool_))
    joined = _Marks._make(np.concatenate(columns) for columns in zip(*found, strict=True))
    return _Marks._make(column[np.lexsort((joined.row, joined.order))] for column in joined)


def _mark(
    order: Ints,
    row: Ints,
    fills: Fills,
    side: Ints,
    close: Floats,
    overnight: NDArray[np.bool_],
    costs: CostSchedule,
    factor: float,
) -> _Marks:
    entered, left = fills.entry_quantity > 0, fills.exit_quantity > 0
    known = lambda where, values: np.where(where, values, 0.0)  # noqa: E731
    bought = known(entered, fills.entry_quantity * fills.entry_price)
    sold = known(left, fills.exit_quantity * fills.exit_price)

    def charged(rates: ChargeRates) -> Floats:
        return charges(rates, side > 0, bought) + charges(rates, side < 0, sold)

    charge = factor * np.where(overnight, charged(costs.delivery), charged(costs.intraday))
    quantity = fills.entry_quantity - fills.exit_quantity
    gained = known(left, fills.exit_quantity * (fills.exit_price - fills.entry_price))
    gross = gained + known(entered, quantity * (close - fills.entry_price))
    friction = known(left, fills.exit_quantity * (fills.exit_half_spread + fills.exit_slippage))
    friction = friction + known(entered, fills.entry_quantity * (fills.entry_half_spread + fills.entry_slippage))
    return _Marks(order, row, side * gross - charge, charge + friction, side * quantity, fills.open)
