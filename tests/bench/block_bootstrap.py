"""Time for the Sharpe ratio of 10,000 paths of 1,260 sessions, resampled in blocks, on one core; and for the whole
comparison of a candidate with an incumbent on as many paths of both.

The peer is numpy, one path at a time, measured on 200 paths and scaled."""

import math
from typing import Any

import numpy as np
from timing import seconds

from odin_core.evaluation.bootstrap import bootstrap_difference, stationary_bootstrap

SESSIONS, PATHS, BLOCK = 1_260, 10_000, 8.0
PEER_PATHS = 200
REPEATS = 5


def run() -> list[dict[str, Any]]:
    """Seconds, medians."""
    candidate, incumbent = np.random.default_rng(0).normal(0.0005, 0.01, (2, SESSIONS))
    scale = PATHS / PEER_PATHS

    def sharpe() -> object:
        rng = np.random.default_rng(1)
        return stationary_bootstrap(candidate, PATHS, metric="sharpe", periods=252, block=BLOCK, rng=rng)

    def difference() -> object:
        return bootstrap_difference(candidate, incumbent, block=BLOCK, n_paths=PATHS, rng=np.random.default_rng(1))

    one = scale * seconds(lambda: path_by_path(candidate), 3)
    both = scale * seconds(lambda: (path_by_path(candidate), path_by_path(incumbent)), 3)
    named = (("block_bootstrap", "Sharpe", sharpe, one), ("block_bootstrap_difference", "comparison", difference, both))
    return [
        {
            "bench": name,
            "value": seconds(work, REPEATS),
            "unit": f"s, {what}, 10,000 paths of 1,260 sessions",
            "peer": "numpy path by path, scaled",
            "peer_value": peer,
        }
        for name, what, work, peer in named
    ]


def path_by_path(returns: np.ndarray) -> np.ndarray:
    rng, n = np.random.default_rng(1), len(returns)
    out = np.empty(PEER_PATHS)
    for path in range(PEER_PATHS):
        begins = rng.random(n) < 1 / BLOCK
        begins[0] = True
        block = np.cumsum(begins) - 1
        first = np.flatnonzero(begins)
        drawn = returns[(rng.integers(0, n, len(first))[block] + np.arange(n) - first[block]) % n]
        out[path] = drawn.mean() / drawn.std(ddof=1) * math.sqrt(252)
    return out
