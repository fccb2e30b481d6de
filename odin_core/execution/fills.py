"""Fills: what an order becomes on bars. The only fill engine; bootstrap, backtest, environment, paper, labels use it.

`step` moves one order over one bar, `simulate` many orders over many bars with the same `step`, calling it only where
something can happen. Its values are in `execution.orders`, fees in `execution.costs`. Bars are unadjusted.
Compiled code is cached and numba watches this file only: after a change in `execution.orders`, delete `__pycache__`.

The rules, in the order in which one bar is gone through:

1. A bar without a row, or with traded volume 0 (or NaN), fills nothing and triggers nothing.
2. One order takes at most `max_participation` of a bar's traded volume, entry and exit together; partial fills are
   whole lots. What is left over works on in the next bars.
3. An exit under way, or overdue, goes on at market. From row `leave` on every position is left so, reason TIME.
4. A stop that the open has jumped fills at the open. Any exit cancels what is left of the entry.
5. The entry works from row `first + latency_bars` for `entry_bars` rows, not beyond `due` nor the session, and only
   before `leave`. References: market, the open moved by noise inside the bar (in time it is the open); limit and stop,
   their price when it lies inside the bar, the open when the open is beyond it. A touch fills.
6. Stop and target lie at their distance from the mean entry reference. The stop comes first, also when the bar opened
   beyond the target. A target is a limit: its reference is its level, or a better open; it needs volume left.
   In a bar in which the entry filled away from the open, only the stop may trigger (`due` still ends at the close).
   Where the entry filled, an open before it jumps nothing: reference = level.
7. In the bar `due` the rest leaves at the close.

The reference lies in [low, high]. Half-spread and slippage are added to it and recorded apart; a limit (entry or
target) pays only as much of them as its price leaves room for."""

import numpy as np
from numba import njit

from odin_core.execution.orders import (
    DTYPES,
    NO_FILL,
    NO_LEG,
    Bar,
    Bars,
    ExecutionRules,
    ExitReason,
    Fill,
    Fills,
    Floats,
    Leg,
    Order,
    OrderKind,
    Orders,
    Rules,
    State,
    require_valid,
)

_OPEN, _STOP, _TARGET, _TIME = (int(r) for r in (ExitReason.OPEN, ExitReason.STOP, ExitReason.TARGET, ExitReason.TIME))
_UNFILLED = int(ExitReason.UNFILLED)
_MARKET, _LIMIT = int(OrderKind.MARKET), int(OrderKind.LIMIT)


@njit(cache=True)
def levels(state: State, order: Order) -> tuple[float, float]:
    """(stop, target), price units; infinite where there is none, NaN before the entry."""
    mean = state.entry.reference
    return mean - order.side * order.stop_distance, mean + order.side * order.target_distance


@njit(cache=True)
def entry_window(order: Order, rules: Rules) -> tuple[int, int]:
    """(first row, last row + 1) in which the entry works; empty where the second is not larger."""
    start = order.first + rules.latency_bars
    return start, start + min(order.entry_bars, min(min(order.due, order.last) + 1, order.leave) - start)


@njit(cache=True)
def _wants_entry(state: State, order: Order) -> bool:
    return state.leaving == _OPEN and not state.entry_over and state.entry.quantity < order.quantity


@njit(cache=True)
def _fitting(wanted: float, room: float, order: Order, rules: Rules) -> float:
    if wanted <= room:
        return wanted
    lot = rules.lot if np.isnan(order.lot) else order.lot
    return room if lot == 0.0 else min(room, np.floor(room / lot) * lot)


@njit(cache=True)
def _inside(price: float, bar: Bar) -> float:
    return min(max(price, bar.low), bar.high)


@njit(cache=True)
def _at_market(order: Order, bar: Bar, noise: float, rules: Rules) -> float:
    return _inside(bar.open * (1.0 + rules.noise * order.volatility * noise), bar)


@njit(cache=True)
def slippage_rate(volatility: float, participation: float, noise: float, rules: Rules) -> float:
    """Slippage as a fraction of the reference price, 0 or more; formula and source at `ExecutionRules`."""
    size = rules.slippage_volatility + rules.impact * np.sqrt(participation)
    return volatility * size * max(0.0, 1.0 + rules.noise * noise)


@njit(cache=True)
def _execute(
    direction: int,
    quantity: float,
    reference: float,
    limit: float,
    volatility: float,
    noise: float,
    bar: Bar,
    rules: Rules,
) -> Leg:
    participation = quantity / bar.volume if rules.traded else 0.0
    allowed = max(0.0, direction * (limit - reference))
    half_spread = min(reference * rules.half_spread, allowed)
    slippage = min(reference * slippage_rate(volatility, participation, noise, rules), allowed - half_spread)
    price = reference + direction * (half_spread + slippage)
    price = min(price, limit) if direction > 0 else max(price, limit)
    return Leg(quantity, reference, half_spread, slippage, price, bar.row)


@njit(cache=True)
def _merge(leg: Leg, new: Leg, total: float, row: int) -> Leg:
    if leg.quantity == 0.0:
        return Leg(total, new.reference, new.half_spread, new.slippage, new.price, row)
    weight = new.quantity / total
    return Leg(
        total,
        leg.reference + (new.reference - leg.reference) * weight,
        leg.half_spread + (new.half_spread - leg.half_spread) * weight,
        leg.slippage + (new.slippage - leg.slippage) * weight,
        leg.price + (new.price - leg.price) * weight,
        row,
    )


@njit(cache=True)
def _touched(order: Order, high: float, low: float) -> bool:
    falling = (order.kind == _LIMIT) == (order.side > 0)
    return low <= order.price if falling else high >= order.price


@njit(cache=True)
def _enter(state: State, order: Order, bar: Bar, room: float, rules: Rules) -> tuple[State, Leg, bool]:
    """The state and the execution after the entry's turn in this bar, and whether it was at the open."""
    start, end = entry_window(order, rules)
    if not (_wants_entry(state, order) and start <= bar.row < end):
        return state, NO_LEG, True
    triggered, at_open, limit = state.triggered, True, order.side * np.inf
    if order.kind == _MARKET or triggered:
        reference = _at_market(order, bar, order.noise_entry, rules)
    elif not _touched(order, bar.high, bar.low):
        return state, NO_LEG, True
    else:
        is_limit = order.kind == _LIMIT
        ahead = order.side * (order.price - bar.open)  # how far the open has yet to rise, for a buy, to the price
        at_open = ahead >= 0.0 if is_limit else ahead <= 0.0
        reference = bar.open if at_open else order.price
        limit = order.price if is_limit else limit
        triggered = not is_limit
    wanted = order.quantity - state.entry.quantity
    quantity = _fitting(wanted, room, order, rules)
    if quantity == 0.0:
        return State(state.entry, state.exit, state.leaving, triggered, state.entry_over), NO_LEG, True
    leg = _execute(order.side, quantity, reference, limit, order.volatility, order.noise_entry, bar, rules)
    total = order.quantity if quantity == wanted else state.entry.quantity + quantity
    first_row = bar.row if state.entry.row < 0 else state.entry.row
    entry = _merge(state.entry, leg, total, first_row)
    return State(entry, state.exit, state.leaving, triggered, state.entry_over), leg, at_open


@njit(cache=True)
def _leave(
    state: State, order: Order, bar: Bar, room: float, rules: Rules, reason: int, reference: float, limit: float
) -> tuple[State, Leg]:
    """Begin or go on with the exit for `reason`, as far as `room` goes."""
    held = state.entry.quantity - state.exit.quantity
    quantity = _fitting(held, room, order, rules)
    if quantity == 0.0:
        return State(state.entry, state.exit, reason, state.triggered, state.entry_over), NO_LEG
    leg = _execute(-order.side, quantity, reference, limit, order.volatility, order.noise_exit, bar, rules)
    total = state.entry.quantity if quantity == held else state.exit.quantity + quantity
    exit_ = _merge(state.exit, leg, total, bar.row)
    return State(state.entry, exit_, reason, state.triggered, state.entry_over), leg


@njit(cache=True)
def _trigger(
    state: State, order: Order, bar: Bar, room: float, rules: Rules, entered: bool, at_open: bool
) -> tuple[int, float, float]:
    """(reason, reference, limit) of the exit that this bar sets off after the entry's turn; reason OPEN for none."""
    stop, target = levels(state, order)
    no_limit = -order.side * np.inf
    worst, best = (bar.low, bar.high) if order.side > 0 else (bar.high, bar.low)
    if order.side * (worst - stop) <= 0.0:
        return _STOP, _inside(stop, bar), no_limit
    has_room = _fitting(state.entry.quantity - state.exit.quantity, room, order, rules) > 0.0
    if order.side * (best - target) >= 0.0 and has_room and (at_open or not entered):
        better_open = not entered and order.side * (bar.open - target) > 0.0
        return _TARGET, bar.open if better_open else _inside(target, bar), target
    if bar.row == order.due:
        return _TIME, bar.close, no_limit
    return _OPEN, np.nan, np.nan


@njit(cache=True)
def step(state: State, order: Order, bar: Bar, rules: Rules) -> tuple[State, Fill]:
    """One order over one bar, by the module's rules. Pure; bars come in ascending row, each once.

    From Python: begin with `NEW`, take `rules` from `ExecutionRules.compiled`, and end the session with
    `end_session`. A bar in which nothing can happen gives the state back unchanged."""
    if rules.traded and not bar.volume > 0.0:
        return state, NO_FILL
    room = rules.max_participation * bar.volume if rules.traded else np.inf
    held, no_limit = state.entry.quantity - state.exit.quantity, -order.side * np.inf
    if held > 0.0 and (state.leaving != _OPEN or bar.row > order.due or bar.row >= order.leave):
        reason = _TIME if state.leaving == _OPEN else state.leaving
        reference = _at_market(order, bar, order.noise_exit, rules)
        state, leg = _leave(state, order, bar, room, rules, reason, reference, no_limit)
        return state, Fill(NO_LEG, leg)
    if held > 0.0 and order.side * (bar.open - levels(state, order)[0]) <= 0.0:
        state, leg = _leave(state, order, bar, room, rules, _STOP, bar.open, no_limit)
        return state, Fill(NO_LEG, leg)
    state, entry, at_open = _enter(state, order, bar, room, rules)
    if state.entry.quantity - state.exit.quantity <= 0.0:
        return state, Fill(entry, NO_LEG)
    room -= entry.quantity
    reason, reference, limit = _trigger(state, order, bar, room, rules, entry.quantity > 0.0, at_open)
    if reason == _OPEN:
        return state, Fill(entry, NO_LEG)
    state, leg = _leave(state, order, bar, room, rules, reason, reference, limit)
    return state, Fill(entry, leg)


@njit(cache=True)
def end_session(state: State, order: Order) -> State:
    """The state overnight: the entry is cancelled, and what should have been out by now leaves at the next open."""
    due = min(order.due, order.leave)
    overdue = state.entry.quantity > state.exit.quantity and state.leaving == _OPEN and due <= order.last
    return State(state.entry, state.exit, _TIME if overdue else state.leaving, state.triggered, True)


@njit(cache=True)
def _scan(high: Floats, low: Floats, row: int, stop: int, above: float, below: float) -> int:
    """The first row from `row` on, before `stop`, whose bar reaches `above` or `below`; `stop` if none does."""
    while row < stop and not (high[row] >= above or low[row] <= below):
        row += 1
    return row


@njit(cache=True)
def _next_event(state: State, order: Order, bars: Bars, row: int, rules: Rules) -> int:
    """The first row from `row` on in which `step` may change the state; beyond `order.last` if there is none."""
    held = state.entry.quantity > state.exit.quantity
    start, end = entry_window(order, rules)
    if not held:
        row = max(row, start)
    if _wants_entry(state, order) and start <= row < end:
        if held or state.triggered or order.kind == _MARKET:
            return row
        falling = (order.kind == _LIMIT) == (order.side > 0)
        above, below = (np.inf, order.price) if falling else (order.price, -np.inf)
        row = _scan(bars.high, bars.low, row, end, above, below)
        return row if row < end else order.last + 1
    if not held:
        return order.last + 1
    if state.leaving != _OPEN or row >= min(order.due, order.leave):
        return row
    stop, target = levels(state, order)
    above, below = (target, stop) if order.side > 0 else (stop, target)
    return _scan(bars.high, bars.low, row, min(order.due, order.leave, order.last + 1), above, below)


@njit(cache=True)
def _run(bars: Bars, order: Order, state: State, rules: Rules) -> State:
    row = _next_event(state, order, bars, order.first, rules)
    while row <= order.last:
        bar = Bar(row, bars.open[row], bars.high[row], bars.low[row], bars.close[row], bars.volume[row])
        state, _ = step(state, order, bar, rules)
        row = _next_event(state, order, bars, row + 1, rules)
    return end_session(state, order)


@njit(cache=True)
def _read(fills: Fills, i: int, entry_over: bool) -> State:
    f = fills
    entry = Leg(
        f.entry_quantity[i],
        f.entry_reference[i],
        f.entry_half_spread[i],
        f.entry_slippage[i],
        f.entry_price[i],
        f.entry_row[i],
    )
    exit_ = Leg(
        f.exit_quantity[i],
        f.exit_reference[i],
        f.exit_half_spread[i],
        f.exit_slippage[i],
        f.exit_price[i],
        f.exit_row[i],
    )
    return State(entry, exit_, f.leaving[i], False, entry_over)


@njit(cache=True)
def _write(fills: Fills, i: int, state: State) -> None:
    f, entry, exit_ = fills, state.entry, state.exit
    f.entry_quantity[i], f.entry_reference[i], f.entry_price[i] = entry.quantity, entry.reference, entry.price
    f.entry_half_spread[i], f.entry_slippage[i], f.entry_row[i] = entry.half_spread, entry.slippage, entry.row
    f.exit_quantity[i], f.exit_reference[i], f.exit_price[i] = exit_.quantity, exit_.reference, exit_.price
    f.exit_half_spread[i], f.exit_slippage[i], f.exit_row[i] = exit_.half_spread, exit_.slippage, exit_.row
    f.leaving[i], f.open[i] = state.leaving, entry.quantity > exit_.quantity
    f.reason[i] = _UNFILLED if entry.quantity == 0.0 else _OPEN if f.open[i] else state.leaving


@njit(cache=True)
def _run_all(bars: Bars, orders: Orders, rules: Rules, resumed: bool, fills: Fills) -> None:
    o = orders
    for i in range(o.side.size):
        order = Order(
            o.side[i],
            o.kind[i],
            o.quantity[i],
            o.price[i],
            o.stop_distance[i],
            o.target_distance[i],
            o.first[i],
            o.last[i],
            o.entry_bars[i],
            o.due[i],
            o.volatility[i],
            o.noise_entry[i],
            o.noise_exit[i],
            o.lot[i],
            o.leave[i],
        )
        _write(fills, i, _run(bars, order, _read(fills, i, resumed), rules))


def _read_only(column: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    """A view that cannot be written; one type for writeable and read-only arrays, so that code is compiled once."""
    view = np.ascontiguousarray(column, dtype).view()
    view.flags.writeable = False
    return view


def simulate(bars: Bars, orders: Orders, rules: ExecutionRules, state: Fills | None = None) -> Fills:
    """Run each order over its rows `first` … `last` to the end of its session; orders do not see each other.

    The same bits as `step` over every row and `end_session` after the last. What is still held at `last` is OPEN and
    may be resumed: `simulate(next_bars, next_orders, rules, state=fills)` with the same orders in the same sequence
    (`fills.take`) and `first`, `last`, `due`, `leave` as rows of the next bars. A resumed order enters no more; its
    stop and target go on at their levels, and an exit that had begun, or was overdue, goes on at market at the first
    open.
    Prices of both sessions must be on one scale. Inputs are not modified. Raises ValueError for an order or a column
    that the engine cannot take (field, index and value are named)."""
    columns = Bars._make(_read_only(column, np.float64) for column in bars)
    orders = Orders._make(map(_read_only, orders, DTYPES))
    rows, n = columns.open.size, orders.side.size
    if any(column.shape != (rows,) for column in columns) or any(column.shape != (n,) for column in orders):
        raise ValueError("the columns of bars, and those of orders, must be one-dimensional and of one length each")
    if state is not None and state.reason.size != n:
        raise ValueError(f"{n} orders cannot go on from the state of {state.reason.size}")
    require_valid(orders, rows)
    fills = Fills.none(n) if state is None else Fills._make(column.copy() for column in state)
    _run_all(columns, orders, rules.compiled, state is not None, fills)
    return fills
