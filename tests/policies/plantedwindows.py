"""Training windows with a known answer: which side pays, by how much, and with which exit."""

from datetime import date, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from odin_core.policies.actions import FLAT, SHAPE, FloatArray
from odin_core.training.window import SessionContexts, TrainingWindow

NAMES = ("rsi_14_15m", "simple_return_18_5m", "volume_z_18_75_5m", "natr_14_60m")
CENTRE = np.array([50.0, 0.0, np.nan, np.nan], np.float32)  # about which a feature is mirrored
COST = 0.2
BEST_EXIT = (3, 0)  # positions on the axes of stops and targets
AGAINST_EXIT = (0, 3)  # the better one for a trade against the last 90 minutes, where exits depend on that


class Planted(NamedTuple):
    window: TrainingWindow
    direction: FloatArray  # (n,) what was planted: long earns it, short its negative, both pay the cost


def contexts(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    z = rng.standard_normal((n, len(NAMES)))
    return np.column_stack([50 + 15 * z[:, 0], 0.01 * z[:, 1], z[:, 2], 0.005 + 0.001 * np.abs(z[:, 3])]).astype(
        np.float32
    )


def interaction(X: NDArray[np.float32], strength: float) -> FloatArray:
    """The move of the last 90 minutes goes on where volume is high and turns round where it is low."""
    return strength * np.sign(X[:, 1]) * np.sign(X[:, 2]).astype(np.float64)


def planted(
    strength: float,
    *,
    sessions: int = 24,
    each: int = 40,
    seed: int = 3,
    exit_edge: float = 0.0,
    exit_by_move: bool = False,
    noise: float = 1.0,
    unknown: float = 0.0,
) -> Planted:
    """`unknown` is the share of rewards that are NaN; `exit_edge` is what BEST_EXIT earns above the others, with
    `exit_by_move` only for a trade with the move of the last 90 minutes; one against it earns it with AGAINST_EXIT."""
    rng = np.random.default_rng(seed)
    parts, directions = [], []
    for i in range(sessions):
        X = contexts(each, rng)
        direction = interaction(X, strength)
        outcome = direction + noise * (rng.standard_normal(each) + 0.5 * rng.standard_normal())
        reward = np.empty((each, *SHAPE))
        reward[:, 0], reward[:, 1] = (sign * outcome[:, None, None, None] - COST for sign in (1, -1))
        for side, sign in enumerate((1, -1)):
            along = (sign * X[:, 1] > 0) | (not exit_by_move)
            reward[along, side, :, BEST_EXIT[0], BEST_EXIT[1]] += exit_edge
            reward[~along, side, :, AGAINST_EXIT[0], AGAINST_EXIT[1]] += exit_edge
        flat = reward.reshape(each, -1).astype(np.float32)
        flat[rng.random(flat.shape) < unknown] = np.nan
        day = date(2023, 1, 2) + timedelta(days=i)
        parts.append(SessionContexts(day, NAMES, X, flat, np.full(each, FLAT), ()))
        directions.append(direction)
    return Planted(TrainingWindow(parts), np.concatenate(directions))
