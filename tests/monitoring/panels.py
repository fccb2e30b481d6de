"""Panels of features without drift: symbols of one session move together, and sessions resemble their neighbours."""

import numpy as np
from numpy.typing import NDArray

SLOW = [(0.8, 0.9)] * 8 + [(1.0, 0.85), (1.0, 0.8)]  # volatilities, and two that all symbols share
QUICK = [(0.2, 0.0)] * 8 + [(0.2, 0.5)] * 4 + [(0.22, 0.7)] * 3  # returns and the like
MIX = SLOW + QUICK


def panel(
    seed: int, sessions: int, symbols: int = 50, mix: list[tuple[float, float]] = MIX
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Values (sessions · symbols, features) and each row's session. A feature is (share of variance that a session has
    in common, autocorrelation of that part); half of the slow ones' common part is one market's."""
    rng = np.random.default_rng(seed)
    market = levels(sessions, 0.9, rng)
    columns = []
    for share, persistence in mix:
        common = levels(sessions, persistence, rng)
        if persistence > 0.75:
            common = np.sqrt(0.5) * common + np.sqrt(0.5) * market
        own = rng.standard_normal((sessions, symbols))
        columns.append(np.sqrt(share) * common[:, None] + np.sqrt(1 - share) * own)
    values = np.stack(columns, axis=-1).reshape(-1, len(mix)).astype(np.float32)
    return values, np.repeat(np.arange(sessions), symbols)


def levels(sessions: int, persistence: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A stationary first-order autoregressive series of variance 1."""
    steps = rng.standard_normal(sessions)
    out = np.empty(sessions)
    out[0] = steps[0]
    for t in range(1, sessions):
        out[t] = persistence * out[t - 1] + np.sqrt(1 - persistence**2) * steps[t]
    return out
