"""The fill engine's slow twin: plain Python, written from the rules and not from the engine. Lists of executions, names
for reasons, and one bar told as a story: what the open does, what may happen inside, what the close does."""

import math
from dataclasses import dataclass, field

from odin_core.execution.orders import Bar, ExecutionRules, Order, OrderKind


@dataclass
class Execution:
    row: int
    quantity: float
    reference: float
    half_spread: float
    slippage: float
    price: float


@dataclass
class Trade:
    entries: list[Execution] = field(default_factory=list)
    exits: list[Execution] = field(default_factory=list)
    bought: float = 0.0  # what the entry filled, on either side
    sold: float = 0.0  # what the exit filled
    leaving: str | None = None
    armed: bool = False
    cancelled: bool = False

    @property
    def holding(self) -> bool:
        return self.bought > self.sold

    @property
    def reason(self) -> str:
        if not self.entries:
            return "UNFILLED"
        return "OPEN" if self.holding or self.leaving is None else self.leaving


def mean(executions: list[Execution], name: str) -> float:
    """Quantity-weighted, added up in order of time."""
    total, value = 0.0, math.nan
    for e in executions:
        total += e.quantity
        value = getattr(e, name) if math.isnan(value) else value + (getattr(e, name) - value) * (e.quantity / total)
    return value


def run_session(bars: list[Bar], order: Order, rules: ExecutionRules, trade: Trade | None = None) -> Trade:
    """`bars[i]` has row i. A trade that is given comes from an earlier session."""
    trade = Trade() if trade is None else trade
    for row in range(order.first, order.last + 1):
        one_bar(trade, bars[row], order, rules)
    trade.cancelled = True
    if trade.holding and trade.leaving is None and (order.due <= order.last or order.leave <= order.last):
        trade.leaving = "TIME"
    return trade


def one_bar(trade: Trade, bar: Bar, order: Order, rules: ExecutionRules) -> None:
    counted = rules.volume == "traded"
    if counted and (math.isnan(bar.volume) or bar.volume == 0):
        return
    left = bar.volume * rules.max_participation if counted else math.inf
    long = order.side == 1

    if trade.holding and (trade.leaving or bar.row > order.due or bar.row >= order.leave):
        trade.leaving = trade.leaving or "TIME"
        sell(trade, bar, order, rules, left, moved_open(bar, order, order.noise_exit, rules), None)
        return
    if trade.holding:
        stop = stop_level(trade, order)
        if (long and bar.open <= stop) or (not long and bar.open >= stop):
            trade.leaving = "STOP"
            sell(trade, bar, order, rules, left, bar.open, None)
            return

    when, bought = enter(trade, bar, order, rules, left)
    if not trade.holding:
        return
    left -= bought

    stop, target = stop_level(trade, order), target_level(trade, order)
    if (long and bar.low <= stop) or (not long and bar.high >= stop):
        trade.leaving = "STOP"
        sell(trade, bar, order, rules, left, stop, None)
        return
    reached = bar.high >= target if long else bar.low <= target
    if reached and when != "inside" and portion(trade.bought - trade.sold, left, order, rules) > 0:
        beyond = bar.open > target if long else bar.open < target
        trade.leaving = "TARGET"
        sell(trade, bar, order, rules, left, bar.open if beyond and when == "not" else target, target)
        return
    if bar.row == order.due:
        trade.leaving = "TIME"
        sell(trade, bar, order, rules, left, bar.close, None)


def enter(trade: Trade, bar: Bar, order: Order, rules: ExecutionRules, left: float) -> tuple[str, float]:
    """When the entry filled in this bar ("not", "open", "inside"), and how much."""
    begins = order.first + rules.latency_bars
    works = not trade.cancelled and trade.leaving is None and begins <= bar.row <= order.due and bar.row < order.leave
    if not works or bar.row - begins >= order.entry_bars or trade.bought >= order.quantity:
        return "not", 0.0
    buys, limit = order.side == 1, None
    if order.kind == OrderKind.MARKET or trade.armed:
        reference, when = moved_open(bar, order, order.noise_entry, rules), "open"
    elif order.kind == OrderKind.LIMIT:
        limit = order.price
        if (buys and bar.low > limit) or (not buys and bar.high < limit):
            return "not", 0.0
        good_open = bar.open <= limit if buys else bar.open >= limit
        reference, when = (bar.open, "open") if good_open else (limit, "inside")
    else:
        if (buys and bar.high < order.price) or (not buys and bar.low > order.price):
            return "not", 0.0
        trade.armed = True
        jumped = bar.open >= order.price if buys else bar.open <= order.price
        reference, when = (bar.open, "open") if jumped else (order.price, "inside")
    wanted = order.quantity - trade.bought
    quantity = portion(wanted, left, order, rules)
    if quantity == 0:
        return "not", 0.0
    trade.entries.append(priced(quantity, reference, limit, buys, order.noise_entry, bar, order, rules))
    trade.bought = order.quantity if quantity == wanted else trade.bought + quantity
    return when, quantity


def sell(
    trade: Trade, bar: Bar, order: Order, rules: ExecutionRules, left: float, reference: float, limit: float | None
) -> None:
    wanted = trade.bought - trade.sold
    quantity = portion(wanted, left, order, rules)
    if quantity > 0:
        trade.exits.append(priced(quantity, reference, limit, order.side == -1, order.noise_exit, bar, order, rules))
        trade.sold = trade.bought if quantity == wanted else trade.sold + quantity


def portion(wanted: float, left: float, order: Order, rules: ExecutionRules) -> float:
    lot = rules.lot if math.isnan(order.lot) else order.lot
    if wanted <= left or lot == 0:
        return min(wanted, left)
    return min(left, lot * math.floor(left / lot))


def moved_open(bar: Bar, order: Order, noise: float, rules: ExecutionRules) -> float:
    moved = bar.open * (1 + rules.noise * order.volatility * noise)
    return sorted((bar.low, moved, bar.high))[1]


def stop_level(trade: Trade, order: Order) -> float:
    away = order.stop_distance
    return mean(trade.entries, "reference") + (-away if order.side == 1 else away)


def target_level(trade: Trade, order: Order) -> float:
    away = order.target_distance
    return mean(trade.entries, "reference") + (away if order.side == 1 else -away)


def priced(
    quantity: float,
    reference: float,
    limit: float | None,
    buys: bool,
    noise: float,
    bar: Bar,
    order: Order,
    rules: ExecutionRules,
) -> Execution:
    """Half-spread first, then slippage, on top of the reference, up to the limit."""
    share = quantity / bar.volume if rules.volume == "traded" else 0.0
    half_spread = reference * rules.half_spread_bps / 10_000
    slippage = reference * order.volatility * (rules.slippage_volatility + rules.impact * math.sqrt(share))
    slippage *= max(0.0, 1 + rules.noise * noise)
    if limit is not None:
        spare = abs(limit - reference)
        half_spread = min(half_spread, spare)
        slippage = min(slippage, spare - half_spread)
    price = reference + half_spread + slippage if buys else reference - half_spread - slippage
    return Execution(bar.row, quantity, reference, half_spread, slippage, price)
