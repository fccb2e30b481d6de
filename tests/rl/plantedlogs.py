"""Logged decisions with a known answer: which side pays in which context, drawn by chance as phase 0 draws."""

from dataclasses import replace
from datetime import date

import numpy as np

from odin_core.policies.actions import ACTIONS, FLAT
from odin_core.rl.offline_data import OfflineData
from odin_core.training.window import SessionContexts, TrainingWindow

TAKE = 0.35
COST = 0.15
NAMES = ("first", "second", "third")
MIRRORED = ("simple_return_18_5m", "volume_z_18_75_5m", "natr_14_60m")  # only the first turns with the price
START = date(2023, 1, 2).toordinal()


def planted_log(
    edge: float,
    *,
    sessions: int = 60,
    each: int = 30,
    seed: int = 1,
    names: tuple[str, ...] = NAMES,
    noise: float = 1.0,
) -> OfflineData:
    """Long earns edge·sign(first feature), short its negative, both pay COST; what is left is chance."""
    rng = np.random.default_rng(seed)
    n = sessions * each
    X = rng.standard_normal((n, len(names))).astype(np.float32)
    move = edge * np.sign(X[:, 0]) + noise * rng.standard_normal(n)
    grid = np.empty((n, 2, ACTIONS // 2), np.float32)
    grid[:, 0], grid[:, 1] = (move - COST)[:, None], (-move - COST)[:, None]
    grid = grid.reshape(n, ACTIONS)
    lean = rng.integers(0, ACTIONS, n)
    taken = rng.random(n) < TAKE
    day = START + np.repeat(np.arange(sessions), each)
    result = grid[np.arange(n), lean].astype(np.float64)
    return OfflineData(
        names=names,
        features=X,
        choice=np.where(taken, lean, FLAT).astype(np.int64),
        lean=lean.astype(np.int64),
        propensity=np.where(taken, TAKE / ACTIONS, 1 - TAKE),
        chance=np.ones(n),
        reward=np.where(taken, result, 0.0),
        counterfactual=result,
        session=day,
        resolved=day,
        regime=np.zeros(n, np.int64),
        status=np.where(taken, 0, 1),
        phase=np.zeros(n, np.int64),
        allowed=np.ones((n, ACTIONS), np.bool_),
        grid=grid,
    )


def shuffled(found: OfflineData, seed: int) -> OfflineData:
    """The same log with the outcomes of all actions dealt out anew among the decisions."""
    order = np.random.default_rng(seed).permutation(len(found))
    grid = found.grid[order]
    result = grid[np.arange(len(found)), found.lean].astype(np.float64)
    return replace(found, grid=grid, counterfactual=result, reward=np.where(found.choice == FLAT, 0.0, result))


CONTEXTS = ("rsi_14_15m", "simple_return_18_5m", "volume_z_18_75_5m")  # mirrored about 50, about 0, not at all


def contexts(n: int, rng: np.random.Generator) -> np.ndarray:
    z = rng.standard_normal((n, len(CONTEXTS)))
    return np.column_stack([50 + 15 * z[:, 0], 0.01 * z[:, 1], z[:, 2]]).astype(np.float32)


def planted_window(strength: float, *, sessions: int = 40, each: int = 40, seed: int = 3) -> TrainingWindow:
    """The move of the last 90 minutes goes on by `strength` where volume is high and turns round where it is low."""
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(sessions):
        X = contexts(each, rng)
        move = strength * np.sign(X[:, 1]) * np.sign(X[:, 2]) + rng.standard_normal(each)
        sides = np.stack([move - COST, -move - COST], axis=1)
        rewards = np.repeat(sides, ACTIONS // 2, axis=1).astype(np.float32)
        day = date.fromordinal(START + i)
        parts.append(SessionContexts(day, CONTEXTS, X, rewards, np.full(each, FLAT), ()))
    return TrainingWindow(parts)
