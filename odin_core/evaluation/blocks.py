"""Blocks of consecutive sessions for the stationary bootstrap: how long they should be, and which rows each path draws.

What comes in: a series, oldest first, one number per session. What is computed on the paths is in `bootstrap`."""

import math
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from odin_core.features.series import FloatArray, compiled

Indices: TypeAlias = npt.NDArray[np.intp]
BATCH = 64  # paths at a time, for the cache; no result depends on it


def optimal_block_length(x: npt.ArrayLike) -> float:
    """Expected block length that estimates the variance of a mean best by the stationary bootstrap, in rows, from 1 to
    ⌈min(3√n, n/3)⌉:

        b = (2Ĝ²/D)^⅓·n^⅓,   Ĝ = Σ λ(k/M)·|k|·R(k),   D = 2·(Σ λ(k/M)·R(k))²,   k = −M … M

    with R(k) the autocovariances (divisor n) and λ the flat-top window, 1 up to ½, then falling to 0 at 1. M = 2m, m
    the lag after which K = max(5, √log₁₀n) autocorrelations lie within 2√(log₁₀n/n); where there is none, the largest
    lag outside. `x` (n,), NaN rows are dropped; 1 for a constant series and for fewer than 4 rows. For an AR(1) with
    coefficient φ it estimates (2φ/(1 − φ²))^⅔·n^⅓.
    Source: Politis & White 2004, sections 3.2 and 3.3, with the D of Patton, Politis & White 2009."""
    values = series(x)
    n = values.size
    centred = values - values.mean() if n else values
    if n < 4 or np.ptp(values) == 0:
        return 1.0
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    last = min(math.ceil(math.sqrt(n)) + run, n - 1)
    covariance = np.array([centred[k:] @ centred[: n - k] for k in range(last + 1)]) / n
    outside = np.abs(covariance[1:] / covariance[0]) >= 2 * math.sqrt(math.log10(n) / n)  # lags 1 … last
    m = _last_relevant_lag(outside, run)
    width = min(2 * max(m, 1), last)
    k = np.arange(1, width + 1)
    window = np.minimum(1.0, 2 * (1 - k / width))
    G = 2 * float(np.sum(window * k * covariance[1 : width + 1]))
    spectrum = float(covariance[0] + 2 * np.sum(window * covariance[1 : width + 1]))
    longest = math.ceil(min(3 * math.sqrt(n), n / 3))
    if spectrum == 0:
        return float(longest)
    return float(np.clip(np.cbrt((G / spectrum) ** 2 * n), 1, longest))


def _last_relevant_lag(outside: npt.NDArray[np.bool_], run: int) -> int:
    """The smallest m after which `run` lags in a row are not `outside` (its place 0 is lag 1), else the largest lag
    outside."""
    count = np.concatenate([[0], np.cumsum(outside)])
    quiet = np.flatnonzero(count[run:] == count[:-run]) if outside.size >= run else []
    if len(quiet):
        return int(quiet[0])
    return int(np.flatnonzero(outside)[-1]) + 1 if outside.any() else 0


def stationary_indices(n: int, n_paths: int, *, block: float, rng: np.random.Generator) -> Indices:
    """Rows of a series of length n ≥ 1 for each path, shape (n_paths, n): blocks from uniform starts, of geometric
    length with mean `block` ≥ 1 (1 draws single rows), the first row following the last.
    Source: Politis & Romano 1994."""
    return np.concatenate(list(batches(n, n_paths, block, rng)))


def batches(n: int, n_paths: int, block: float, rng: np.random.Generator) -> Iterator[Indices]:
    """`stationary_indices` piece by piece, the same rows from the same generator."""
    if n < 1:
        raise ValueError("an empty series cannot be resampled")
    if not block >= 1:
        raise ValueError(f"block={block}: a mean length of at least 1 session")
    if n_paths < 1:
        raise ValueError(f"n_paths={n_paths}: at least one path")
    for first in range(0, n_paths, BATCH):
        uniforms = rng.random((min(BATCH, n_paths - first), n))
        yield _blocks(uniforms, 1.0 / block)


def series(x: npt.ArrayLike) -> FloatArray:
    """`x` as one contiguous series without its NaN rows."""
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"one series at a time: shape {values.shape} has {values.ndim} dimensions")
    if np.isinf(values).any():
        raise ValueError("a return is infinite; a session without one is NaN")
    return np.ascontiguousarray(values[~np.isnan(values)])


@compiled
def _blocks(uniforms, restart):
    """Rows (paths, n) from one uniform each: below `restart` a new block begins, and how far below says where."""
    paths, n = uniforms.shape
    rows = np.empty((paths, n), np.intp)
    scale = n / restart
    for path in range(paths):
        row = min(int(uniforms[path, 0] * n), n - 1)
        rows[path, 0] = row
        for t in range(1, n):
            u = uniforms[path, t]
            row = min(int(u * scale), n - 1) if u < restart else row + 1
            if row == n:
                row = 0
            rows[path, t] = row
    return rows
