"""Environments and policies that several tests of the environment share."""

from collections.abc import Callable
from typing import Any

import numpy as np

from odin_core.execution.backtest import Backtest, backtest
from odin_core.rl.batch import Episode
from odin_core.rl.choices import DIMENSIONS, FLAT, LONG, SHORT
from odin_core.rl.environment import TradingEnv
from odin_core.rl.tape import SIGNAL, Tape

Policy = Callable[[np.ndarray], np.ndarray]


def random_actions(rng: np.random.Generator, n: int, flat: float = 1 / 3) -> np.ndarray:
    """(n, 4)"""
    columns = [rng.choice(3, n, p=[flat, (1 - flat) / 2, (1 - flat) / 2])]
    return np.stack(columns + [rng.integers(0, size, n) for size in DIMENSIONS[1:]], axis=1)


def oracle(threshold: float = 0.5) -> Policy:
    """Follows the planted signal while it is strong: full size, wide stop, far target. Observations (n, D)."""

    def choose(seen: np.ndarray) -> np.ndarray:
        signal = seen[:, SIGNAL]
        position = np.where(signal > threshold, LONG, np.where(signal < -threshold, SHORT, FLAT))
        return np.stack([position, *np.full((3, len(seen)), 3)], axis=1)

    return choose


def episode_of(env: TradingEnv, actions: np.ndarray, **reset: Any) -> tuple[list[np.ndarray], list[float], list[dict]]:
    """Observations (one more than the others), rewards and infos until the episode or the actions end."""
    seen, infos, rewards = [env.reset(**reset)[0]], [], []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append(observation)
        rewards.append(reward)
        infos.append(info)
        if terminated or truncated:
            break
    return seen, rewards, infos


def again(tape: Tape, episode: Episode) -> Backtest:
    """The episode's orders through the backtester, over its rows."""
    return backtest(
        tape.bars,
        episode.orders,
        session_end=tape.session_end,
        start=episode.start,
        end=episode.start + episode.equity.size - 1,
        rules=episode.rules,
        costs=episode.costs,
        capital=episode.equity[0],
        cost_factor=episode.cost_factor,
    )
