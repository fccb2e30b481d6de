"""The action grid: two sides × four sizes × four stops × four targets. An action is its index; `FLAT` is no trade.

The grid is what a random policy draws from, what every context's outcomes are computed over, and what learners choose
in. Sizes are fractions of the life's capital, stops multiples of the 60-minute ATR, targets multiples of the stop."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FLAT = -1
SIDES = (1, -1)
SIZES = (0.001, 0.0025, 0.005, 0.01)
STOPS = (1.0, 1.5, 2.0, 3.0)
TARGETS = (1.0, 1.5, 2.0, 3.0)
SHAPE = (len(SIDES), len(SIZES), len(STOPS), len(TARGETS))
ACTIONS = int(np.prod(SHAPE))
PER_SIDE = ACTIONS // SHAPE[0]  # the first so many are long, the others short

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class Action(NamedTuple):
    """Arrays of one shape: what the indices mean."""

    side: FloatArray  # +1 long, −1 short
    size: FloatArray
    stop: FloatArray
    target: FloatArray


def decode(index: IntArray) -> Action:
    """Meaning of grid indices in [0, ACTIONS). FLAT has none: replace it first."""
    side, size, stop, target = np.unravel_index(index, SHAPE)
    return Action(np.array(SIDES, float)[side], np.array(SIZES)[size], np.array(STOPS)[stop], np.array(TARGETS)[target])


def encode(side: IntArray, size: IntArray, stop: IntArray, target: IntArray) -> IntArray:
    """Grid index from the positions on the four axes (side 0 is long)."""
    return np.ravel_multi_index((side, size, stop, target), SHAPE).astype(np.int64)


GRID = decode(np.arange(ACTIONS))


def known_mean(values: FloatArray, axis: int | tuple[int, ...]) -> FloatArray:
    """Mean over `axis` of what is known (not NaN); NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


class Proposals(NamedTuple):
    """What a policy proposes for n contexts."""

    action: IntArray  # (n,) grid index or FLAT
    lean: IntArray  # (n,) grid index: the action, or what it would have been had the policy not stayed flat
    confidence: FloatArray  # (n,) probability in [0, 1] that the lean ends above its costs
    score: FloatArray  # (n,) expected reward of long minus short, halved; ranks contexts


class RewardGrid(NamedTuple):
    """Full-information outcomes of n contexts over the grid."""

    net_return: NDArray[np.float32]  # (n, ACTIONS) fraction of the entry's notional after costs; NaN while unknown
    risk_unit: FloatArray  # (n,) 60-minute ATR over close at the decision

    @property
    def reward(self) -> FloatArray:
        """(n, ACTIONS) net return in units of risk, so that symbols and regimes compare."""
        return self.net_return.astype(np.float64) / self.risk_unit[:, None]
