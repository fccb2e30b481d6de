"""The environment's slow twin: one account in plain Python, written from the documentation and not from the kernel.

Without randomness (noise 0, no randomisation). Fills are the engine's own, everything around them is told anew."""

import math
from dataclasses import dataclass, field

import numpy as np

from odin_core.execution.costs import ChargeRates, CostSchedule, charges
from odin_core.execution.fills import end_session, step
from odin_core.execution.orders import NEW, ExecutionRules, ExitReason, Order, State
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.tape import Tape

SIZES, STOPS, TARGETS = (0.25, 0.5, 0.75, 1.0), (1.0, 1.5, 2.0, 2.5), (1.5, 2.0, 3.0, 4.0)


@dataclass
class Position:
    order: Order
    state: State = NEW
    leave_from: int | None = None
    carried: bool = False
    worth: float = 0.0
    cost: float = 0.0

    @property
    def held(self) -> float:
        return self.state.entry.quantity - self.state.exit.quantity


@dataclass
class Account:
    tape: Tape
    config: EnvironmentConfig
    rules: ExecutionRules
    costs: CostSchedule
    row: int
    banked: float = field(init=False)
    position: Position | None = None
    trades_today: int = 0

    def __post_init__(self) -> None:
        self.banked = self.config.capital
        self.path = [self.config.capital]
        self.end = min(self.row + self.config.episode_bars, int(self.tape.starts[self.tape.symbol[self.row] + 1]) - 1)

    @property
    def equity(self) -> float:
        return self.path[-1]

    @property
    def deepest(self) -> float:
        peaks = np.maximum.accumulate(self.path)
        return float(((peaks - self.path) / peaks).max())

    def step(self, action: list[int]) -> dict[str, float]:
        """The reward's terms, and `denied`."""
        denied = self._decide(*action)
        before, deepest, position = self.equity, self.deepest, self.position
        cost_before = position.cost if position else 0.0
        bought_before = position.state.entry.quantity if position else 0.0
        if self.tape.session[self.row] != self.tape.session[self.row + 1]:
            self.trades_today = 0
        self.row += 1
        if position:
            self._one_bar(position)
        self.path.append(self.banked + (position.worth if position else 0.0))
        cost = position.cost - cost_before if position else 0.0
        entered = position is not None and bought_before == 0 and position.state.entry.quantity > 0
        self.trades_today += entered
        notional = position.held * self.tape.bars.close[self.row] if position else 0.0
        committed = position.state.entry.quantity * position.state.entry.price if position else math.nan
        terms = {
            "growth": math.log(1 + (self.equity - before + cost) / before),
            "drawdown": -self.config.lambda_drawdown * (self.deepest - deepest),
            "trade": -self.config.lambda_trade * entered,
            "hold": -self.config.lambda_hold * notional / self.equity,
            "costs": -cost / before,
            "efficiency": self.config.efficiency * (self.equity - before) / committed if committed > 0 else 0.0,
            "denied": float(denied),
        }
        if position and self._is_over(position):
            self.banked = self.equity
            self.position = None
        return terms

    def _decide(self, direction: int, size: int, stop: int, target: int) -> bool:
        wanted = {0: 0, 1: 1, 2: -1}[direction]
        if self.position:
            leaving = self.position.leave_from is not None or self.position.state.leaving != ExitReason.OPEN
            if not leaving and wanted != self.position.order.side:
                self.position.leave_from = self.row + 1 + self.rules.latency_bars
                self.position.order = self.position.order._replace(leave=self.position.leave_from)
            return leaving and wanted != 0
        if wanted == 0:
            return False
        close, lot = float(self.tape.bars.close[self.row]), float(self.tape.lot[self.tape.symbol[self.row]])
        lots = [math.floor(s * self.config.max_position * self.equity / close / lot) for s in SIZES]
        small = [s * self.config.max_position <= self.config.max_exposure for s in SIZES]
        allowed = [i for i in range(4) if lots[i] >= 1 and small[i]]
        new_session = self.tape.session[self.row] != self.tape.session[self.row + 1]
        peak = max(self.path)
        halted = (0 if new_session else self.trades_today) >= self.config.max_trades
        halted = halted or (peak - self.equity) / peak >= self.config.max_drawdown
        if halted or not self.tape.decidable[self.row] or not allowed:
            return True
        nearest = min(allowed, key=lambda i: abs(i - size))
        unit = float(self.tape.risk_unit[self.row]) * close
        last = int(self.tape.session_end[self.row + 1])
        self.position = Position(
            Order(
                side=wanted, kind=0, quantity=lots[nearest] * lot, price=math.nan, stop_distance=STOPS[stop] * unit,
                target_distance=TARGETS[target] * (STOPS[stop] * unit), first=self.row + 1, last=last, due=last,
                entry_bars=self.config.entry_bars, volatility=float(self.tape.volatility[self.row]), noise_entry=0.0,
                noise_exit=0.0, lot=lot,
            )
        )  # fmt: skip
        return nearest != size

    def _one_bar(self, position: Position) -> None:
        last = int(self.tape.session_end[self.row])
        position.order = position.order._replace(last=last)
        state, _ = step(position.state, position.order, self.tape.bars.bar(self.row), self.rules.compiled)
        position.state = end_session(state, position.order) if self.row == last else state
        if self.row == last and position.held > 0:
            position.carried = True
        entry, out, side = position.state.entry, position.state.exit, position.order.side
        if entry.quantity == 0:
            return
        rates: ChargeRates = self.costs.delivery if position.carried else self.costs.intraday
        paid = float(charges(rates, side > 0, entry.quantity * entry.price))
        spread = entry.quantity * (entry.half_spread + entry.slippage)
        profit = side * position.held * (float(self.tape.bars.close[self.row]) - entry.price)
        if out.quantity > 0:
            paid += float(charges(rates, side < 0, out.quantity * out.price))
            spread += out.quantity * (out.half_spread + out.slippage)
            profit += side * out.quantity * (out.price - entry.price)
        position.worth, position.cost = profit - paid, paid + spread

    def _is_over(self, position: Position) -> bool:
        """Nothing is held, and nothing will be."""
        order, state, following = position.order, position.state, self.row + 1
        window = order.first + self.rules.latency_bars + order.entry_bars
        waits = (
            state.leaving == ExitReason.OPEN
            and not state.entry_over
            and following < window
            and following <= order.due
            and following < order.leave
        )
        return position.held == 0 and not (waits and state.entry.quantity < order.quantity)
