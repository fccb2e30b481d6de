"""One account over one bar, compiled: an episode's beginning, what an action becomes, fills, equity, reward.

Each account is moved by itself, so any number of environments and threads gives the same bits. Random numbers are
functions of (key, episode, purpose, number), never carried. What is read and written is in `rl.kernel_values`; nothing
here is cached by itself (see `rl.kernel`)."""

from typing import Any

import numpy as np
from numba import njit

from odin_core.execution.charging import Rates, charge
from odin_core.execution.fills import end_session, entry_window, step
from odin_core.execution.orders import NEVER, Bar, Leg, Order, OrderKind, Rules, State
from odin_core.rl.choices import SIDES, SIZES, STOPS, TARGETS
from odin_core.rl.kernel_values import Floats, Ints, Records, Starts, World

_START, _COST, _SLIPPAGE, _LATENCY, _ENTRY_NOISE, _EXIT_NOISE = range(6)  # purposes of randomness
_MARKET, OPEN = int(OrderKind.MARKET), 0
LEAST_GROWTH = 1e-6  # of equity in one bar, so that the logarithm is finite
_INCREMENT, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))

COMPILED: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}
"""How everything is compiled: without fast-math, and without counting references to arrays (nothing here allocates;
the counts, shared by all threads, took four times as long as the step)."""
inlined = njit(forceinline=True, **COMPILED)


@inlined
def mixed(key: np.uint64, value: int) -> np.uint64:
    """The next key: splitmix64 of key and value (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
    generators", OOPSLA)."""
    z = key + _INCREMENT * (np.uint64(value) + np.uint64(1))
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


@inlined
def _uniform(account: Any, purpose: int, number: int) -> float:
    """In [0, 1), of this account's episode."""
    key = mixed(mixed(mixed(account.key, account.episode), purpose), number)
    return float(key >> np.uint64(11)) * 2.0**-53


@inlined
def _normal(account: Any, purpose: int, number: int) -> float:
    radius = np.sqrt(-2.0 * np.log(1.0 - _uniform(account, purpose, 2 * number)))
    return radius * np.cos(2.0 * np.pi * _uniform(account, purpose, 2 * number + 1))


@inlined
def _between(account: Any, purpose: int, low: float, high: float) -> float:
    return low + (high - low) * _uniform(account, purpose, 0)


# --- an episode's beginning -------------------------------------------------------------------------------------------


@inlined
def _first_row(account: Any, starts: Starts) -> int:
    if account.wanted_start >= 0:
        return account.wanted_start
    place: int = (account.index + account.episode * starts.stride) % starts.rows.size
    if not starts.in_order:
        place = int(np.searchsorted(starts.cumulative, _uniform(account, _START, 0), side="right"))
    return starts.rows[place]


@inlined
def begin(account: Any, world: World, task: Any, starts: Starts) -> None:
    """A new episode: its row, its randomised conditions, and an account without past."""
    account.row = _first_row(account, starts)
    account.wanted_start = -1
    account.start = account.row
    last = world.starts[world.symbol[account.row] + 1] - 1
    account.end = min(account.row + task.episode_bars, last)
    account.cost_factor = _between(account, _COST, task.cost_low, task.cost_high)
    account.slippage_factor = _between(account, _SLIPPAGE, task.slippage_low, task.slippage_high)
    spread = task.latency_high - task.latency_low + 1
    account.latency = task.latency_bars + task.latency_low + int(_uniform(account, _LATENCY, 0) * spread)
    account.half_spread = (task.half_spread_bps * account.cost_factor) * 1e-4
    account.slippage_volatility = task.slippage_volatility * account.slippage_factor
    account.impact = task.impact * account.slippage_factor
    account.realised, account.equity, account.peak = task.capital, task.capital, task.capital
    account.max_drawdown, account.trades, account.entered = 0.0, 0, 0
    account.ordered, account.denied = 0, 0
    account.totals[:] = 0.0
    _no_order(account)


@inlined
def _no_order(account: Any) -> None:
    account.live, account.carried = False, False
    account.worth, account.cost, account.unit, account.decided = 0.0, 0.0, 0.0, -1
    account.side, account.quantity, account.leave = 0, 0.0, NEVER
    nothing = Leg(0.0, np.nan, np.nan, np.nan, np.nan, -1)
    _keep(account, State(nothing, nothing, OPEN, False, False))


# --- the order as the engine takes it ---------------------------------------------------------------------------------


@inlined
def order_of(account: Any) -> Order:
    a = account
    return Order(
        a.side, a.kind, a.quantity, a.price, a.stop_distance, a.target_distance, a.first, a.last, a.entry_bars, a.due,
        a.volatility, a.noise_entry, a.noise_exit, a.lot, a.leave,
    )  # fmt: skip


@inlined
def state_of(account: Any) -> State:
    a = account
    entry = Leg(a.entry_quantity, a.entry_reference, a.entry_half_spread, a.entry_slippage, a.entry_price, a.entry_row)
    out = Leg(a.exit_quantity, a.exit_reference, a.exit_half_spread, a.exit_slippage, a.exit_price, a.exit_row)
    return State(entry, out, a.leaving, a.triggered, a.entry_over)


@inlined
def _keep(account: Any, state: State) -> None:
    a, entry, out = account, state.entry, state.exit
    a.entry_quantity, a.entry_reference, a.entry_price = entry.quantity, entry.reference, entry.price
    a.entry_half_spread, a.entry_slippage, a.entry_row = entry.half_spread, entry.slippage, entry.row
    a.exit_quantity, a.exit_reference, a.exit_price = out.quantity, out.reference, out.price
    a.exit_half_spread, a.exit_slippage, a.exit_row = out.half_spread, out.slippage, out.row
    a.leaving, a.triggered, a.entry_over = state.leaving, state.triggered, state.entry_over


# --- what is allowed, and what an action becomes ----------------------------------------------------------------------


@inlined
def drawdown(account: Any) -> float:
    return (account.peak - account.equity) / account.peak


@inlined
def halted(account: Any, world: World, task: Any) -> bool:
    """Whether limits forbid to enter: too many trades in the session in which an order would work, or drawdown."""
    trades = 0 if account.row == world.session_end[account.row] else account.trades
    return trades >= task.max_trades or drawdown(account) >= task.max_drawdown


@inlined
def _lots(account: Any, world: World, task: Any, size: int) -> float:
    notional = SIZES[size] * task.max_position * account.equity
    return np.floor(notional / world.close[account.row] / world.lot[world.symbol[account.row]])


@inlined
def allowed_sizes(account: Any, world: World, task: Any) -> tuple[int, int]:
    """(first, last + 1) of the sizes that may be entered: at least a lot, not more than the largest exposure."""
    if not world.decidable[account.row] or halted(account, world, task):
        return 0, 0
    first, end = 0, len(SIZES)
    while first < end and _lots(account, world, task, first) < 1.0:
        first += 1
    while end > first and SIZES[end - 1] * task.max_position > task.max_exposure:
        end -= 1
    return first, end


@inlined
def is_leaving(account: Any) -> bool:
    return account.leaving != OPEN or account.leave != NEVER


@inlined
def act(account: Any, world: World, task: Any, action: Ints, kept: Records) -> bool:
    """Place the order that the action asks for, or ask it to leave; whether limits made it another action. `kept`
    (2, bars) is the account's part of the journal."""
    side = SIDES[action[0]]
    slot, recorded = account.episode & 1, kept.shape[1] > 0
    if account.live:
        if is_leaving(account):
            return side != 0
        if side != account.side:
            account.leave = account.row + 1 + account.latency
            if recorded:
                noted: Any = kept[slot, account.ordered - 1]
                noted.leave = account.leave
        return False
    if side == 0:
        return False
    first, end = allowed_sizes(account, world, task)
    if end <= first:
        return True
    size = min(max(action[1], first), end - 1)
    _place(account, world, task, side, size, action[2], action[3])
    if recorded:
        _note(kept[slot, account.ordered - 1], account)
    return size != action[1]


@inlined
def _place(account: Any, world: World, task: Any, side: int, size: int, stop: int, target: int) -> None:
    row = account.row
    lot = world.lot[world.symbol[row]]
    account.quantity = _lots(account, world, task, size) * lot
    account.unit = world.risk_unit[row] * world.close[row]
    account.live, account.carried, account.decided = True, False, row
    account.side, account.kind, account.price, account.lot = side, _MARKET, np.nan, lot
    account.stop_distance = STOPS[stop] * account.unit
    account.target_distance = TARGETS[target] * account.stop_distance
    account.first, account.last = row + 1, world.session_end[row + 1]
    account.due, account.leave = account.last, NEVER
    account.entry_bars, account.volatility = task.entry_bars, world.volatility[row]
    account.noise_entry = _normal(account, _ENTRY_NOISE, account.ordered)
    account.noise_exit = _normal(account, _EXIT_NOISE, account.ordered)
    account.ordered += 1


@inlined
def _note(place: Any, account: Any) -> None:
    place.side, place.kind, place.quantity, place.price = account.side, account.kind, account.quantity, account.price
    place.stop_distance, place.target_distance = account.stop_distance, account.target_distance
    place.first, place.last, place.entry_bars, place.due = account.first, account.last, account.entry_bars, account.due
    place.volatility, place.noise_entry, place.noise_exit = account.volatility, account.noise_entry, account.noise_exit
    place.lot, place.leave = account.lot, account.leave


# --- one bar ----------------------------------------------------------------------------------------------------------


@inlined
def _fill(account: Any, world: World, task: Any) -> None:
    """The live order over the bar of the account's row, and what it is worth at the bar's close."""
    row: int = account.row
    if account.last < row:  # carried overnight
        account.last = world.session_end[row]
    order = order_of(account)
    rules = Rules(
        account.half_spread, account.slippage_volatility, account.impact, task.noise, task.max_participation,
        account.lot, account.latency, task.traded,
    )  # fmt: skip
    bar = Bar(row, world.open[row], world.high[row], world.low[row], world.close[row], world.volume[row])
    state, _ = step(state_of(account), order, bar, rules)
    if row == order.last:
        state = end_session(state, order)
        account.carried = account.carried or state.entry.quantity > state.exit.quantity
    _keep(account, state)
    rates: Any = task.delivery if account.carried else task.intraday
    _value(account, state, _rates(rates), bar.close)
    over = state.leaving != OPEN or state.entry_over or row + 1 >= entry_window(order, rules)[1]
    if over and state.entry.quantity == state.exit.quantity:
        account.live = False


@inlined
def _rates(r: Any) -> Rates:
    return Rates(r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7])


@inlined
def _value(account: Any, state: State, rates: Rates, close: float) -> None:
    entry, out, side = state.entry, state.exit, account.side
    if entry.quantity == 0.0:
        return
    gross, friction = (entry.quantity - out.quantity) * (close - entry.price), 0.0
    charges = charge(rates, side > 0, entry.quantity * entry.price)
    if out.quantity > 0.0:
        gross = out.quantity * (out.price - entry.price) + gross
        charges = charges + charge(rates, side < 0, out.quantity * out.price)
        friction = out.quantity * (out.half_spread + out.slippage)
    charges = account.cost_factor * charges
    account.worth = side * gross - charges
    account.cost = charges + (friction + entry.quantity * (entry.half_spread + entry.slippage))


@inlined
def move(account: Any, world: World, task: Any, terms: Floats) -> float:
    """One bar on: fills, equity, and the reward with its terms."""
    before, cost_before, entered = account.equity, account.cost, account.entry_quantity > 0.0
    account.row += 1
    if account.row - 1 == world.session_end[account.row - 1]:
        account.trades = 0
    if account.live:
        _fill(account, world, task)
    equity = account.realised + account.worth
    cost = account.cost - cost_before
    traded = account.entry_quantity > 0.0 and not entered
    if traded:
        account.trades += 1
        account.entered += 1
    account.equity = equity
    account.peak = max(account.peak, equity)
    deepest = max(account.max_drawdown, drawdown(account))
    deeper, account.max_drawdown = deepest - account.max_drawdown, deepest
    held = account.entry_quantity - account.exit_quantity
    committed = account.entry_quantity * account.entry_price if account.entry_quantity > 0.0 else np.inf
    terms[0] = np.log(max(LEAST_GROWTH, 1.0 + ((equity - before) + cost) / before))
    terms[1] = -task.lambda_drawdown * deeper
    terms[2] = -task.lambda_trade if traded else 0.0
    terms[3] = -task.lambda_hold * (held * world.close[account.row] / equity) if equity > 0.0 else 0.0
    terms[4] = -cost / before
    terms[5] = task.efficiency * (equity - before) / committed
    if not account.live and account.side != 0:
        account.realised = equity
        _no_order(account)
    reward = 0.0
    for i in range(terms.size):
        reward += terms[i]
        account.totals[i] += terms[i]
    return reward
