"""Random exploration: an action drawn uniformly from the grid for every context, taken with a fixed probability."""

import numpy as np

from odin_core.policies.actions import ACTIONS, FLAT, FloatArray, IntArray, Proposals


def propose(count: int, take_probability: float, rng: np.random.Generator) -> Proposals:
    lean = rng.integers(0, ACTIONS, size=count)
    taken = rng.random(count) < take_probability
    nothing = np.full(count, 0.5)
    return Proposals(np.where(taken, lean, FLAT), lean, nothing, np.zeros(count))


def probability(action: IntArray, take_probability: float) -> FloatArray:
    """Probability with which `propose` gives each action (FLAT included)."""
    return np.where(action == FLAT, 1 - take_probability, take_probability / ACTIONS)
