"""Speed of the single environment through Gymnasium's interface, random actions, real fills, 305 columns observed.

The peer is the plain alternative: an environment in pure Python on the same tape, with the same observation, that looks
for stop, target and the session's last bar, and knows neither partial fills, latency, limits nor the reward's terms."""

from typing import Any

import numpy as np
from timing import seconds

from odin_core.rl.choices import DIMENSIONS, SIDES, SIZES, STOPS, TARGETS
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.environment import TradingEnv
from odin_core.rl.tape import Tape, planted

STEPS, EPISODE = 10_000, 375


def run() -> list[dict[str, Any]]:
    """One row: steps per second, resets included; medians, compilation excluded."""
    tape = planted(symbols=20, sessions=60, state=256, heatmap=32)
    rng = np.random.default_rng(1)
    actions = np.stack([rng.integers(0, size, 1024) for size in DIMENSIONS], axis=1)
    env, peer = TradingEnv(tape, EnvironmentConfig(episode_bars=EPISODE)), Plain(tape, rng)

    def drive(one: TradingEnv | Plain) -> None:
        one.reset()
        for k in range(STEPS):
            _, _, terminated, truncated, _ = one.step(actions[k % 1024])
            if terminated or truncated:
                one.reset()

    return [
        {
            "bench": "env_single",
            "value": STEPS / seconds(lambda: drive(env), 7),
            "unit": "steps/s",
            "peer": "environment in pure Python, no partial fills",
            "peer_value": STEPS / seconds(lambda: drive(peer), 7),
        }
    ]


class Plain:
    """One position, bought at the next open, a fixed cost per side."""

    COST = 0.0005

    def __init__(self, tape: Tape, rng: np.random.Generator) -> None:
        self.tape, self.rng = tape, rng
        self.open, self.high, self.low, self.close, _ = (column.tolist() for column in tape.bars)
        self.ends, self.unit = tape.session_end.tolist(), tape.risk_unit.tolist()

    def reset(self) -> np.ndarray:
        self.row = int(self.rng.integers(0, self.tape.rows - EPISODE - 1))
        self.end, self.equity, self.peak, self.side, self.quantity = self.row + EPISODE, 1e6, 1e6, 0, 0.0
        return self.observe()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, float]]:
        position, size, stop, target = action.tolist()
        wanted, before = SIDES[position], self.equity
        close, self.row = self.close[self.row], self.row + 1
        price, leave = self.open[self.row], False
        if self.side and wanted != self.side:
            self.trade(price)
        elif not self.side and wanted:
            away = STOPS[stop] * self.unit[self.row - 1] * close
            self.side, self.entry, self.quantity = wanted, price, SIZES[size] * self.equity // price
            self.stop, self.target = price - wanted * away, price + wanted * away * TARGETS[target]
            self.equity -= self.COST * price * self.quantity
        if self.side:
            worst, best = (self.low, self.high) if self.side > 0 else (self.high, self.low)
            if self.side * (worst[self.row] - self.stop) <= 0:
                price, leave = self.stop, True
            elif self.side * (best[self.row] - self.target) >= 0:
                price, leave = self.target, True
            elif self.row == self.ends[self.row]:
                price, leave = self.close[self.row], True
        if leave:
            self.trade(price)
        self.peak = max(self.peak, self.equity)
        reward = float(np.log(self.equity / before))
        return self.observe(), reward, False, self.row >= self.end, {"equity": self.equity}

    def trade(self, price: float) -> None:
        self.equity += self.side * (price - self.entry) * self.quantity - self.COST * price * self.quantity
        self.side, self.quantity = 0, 0.0

    def observe(self) -> np.ndarray:
        row = self.row
        account = np.zeros(17, np.float32)
        account[0], account[1] = self.side, self.quantity * self.close[row] / self.equity
        account[2], account[3] = self.equity / 1e6 - 1, self.equity / self.peak - 1
        return np.concatenate([self.tape.state[row], self.tape.heatmap[row], account])
