"""Choices: what a policy says at the end of a bar, as indices, and what the indices mean.

The action space is `MultiDiscrete(DIMENSIONS)`: position × size × stop × target. The grid of the daily decision, with
its own sizes, is `policies.actions`."""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

FLAT, LONG, SHORT = 0, 1, 2
SIDES = (0, 1, -1)  # by position
SIZES = (0.25, 0.5, 0.75, 1.0)  # fractions of the largest position that the configuration allows
STOPS = (1.0, 1.5, 2.0, 2.5)  # multiples of the ATR at the decision
TARGETS = (1.5, 2.0, 3.0, 4.0)  # multiples of the stop
DIMENSIONS = (len(SIDES), len(SIZES), len(STOPS), len(TARGETS))


class Choices(NamedTuple):
    """n decisions: int64 (n,) each, indices into SIDES, SIZES, STOPS and TARGETS.

    >>> Choices.of_actions([[1, 3, 0, 2]]).meaning()
    (array([1]), array([1.]), array([1.]), array([3.]))
    """

    position: IntArray
    size: IntArray
    stop: IntArray
    target: IntArray

    @classmethod
    def of_actions(cls, actions: np.typing.ArrayLike) -> Self:
        """From actions of the environment, integers (n, 4) or (4,)."""
        columns = np.asarray(actions, np.int64).reshape(-1, len(DIMENSIONS))
        return cls(*(np.ascontiguousarray(columns[:, i]) for i in range(len(DIMENSIONS))))

    @classmethod
    def flat(cls, n: int) -> Self:
        """n times: no position."""
        return cls(*(np.zeros(n, np.int64) for _ in DIMENSIONS))

    def actions(self) -> IntArray:
        """As actions of the environment, int64 (n, 4)."""
        return np.stack(self, axis=1)

    def meaning(self) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
        """(side +1, −1 or 0, size as a fraction, stop in ATR, target in stops), (n,) each."""
        return (
            np.array(SIDES)[self.position],
            np.array(SIZES)[self.size],
            np.array(STOPS)[self.stop],
            np.array(TARGETS)[self.target],
        )
