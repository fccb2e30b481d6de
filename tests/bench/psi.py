"""Speed of the population stability index: 100,000 rows × 60 features against a reference's stored edges, and of making
a reference for a life's window, 126 sessions × 50 symbols × 28 features.

Peers: numpy, one feature after another (`searchsorted`, `bincount`); and Evidently's drift preset on 20,000 rows × 20,
scaled by rows × features, its page not rendered. The peer of the reference is the index in numpy, once for
each of its resamples, seen on twenty and scaled."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from odin_core.monitoring.drift import bin_counts, population_stability_index
from odin_core.monitoring.reference import RESAMPLES, fit_reference

ROWS, FEATURES, BINS = 100_000, 60, 10
SESSIONS, SYMBOLS, COLUMNS = 126, 50, 28
SCALED_ROWS, SCALED_FEATURES = 20_000, 20
REPEATS = 9


def run() -> list[dict[str, Any]]:
    """Seconds; medians of nine for ours, of three for numpy, one run of Evidently."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((ROWS, FEATURES)).astype(np.float32)
    edges = np.quantile(values, np.arange(1, BINS) / BINS, axis=0).T.astype(np.float64)
    reference = np.full((FEATURES, BINS + 1), ROWS // BINS)
    reference[:, -1] = 0
    ours = seconds(lambda: population_stability_index(reference, bin_counts(values, edges)[0]))
    unit = f"s, {ROWS:,} rows × {FEATURES} features"
    plain = seconds(lambda: [by_numpy(c, e) for c, e in zip(values.T, edges, strict=True)], 3)
    scale = ROWS * FEATURES / (SCALED_ROWS * SCALED_FEATURES)
    by_evidently(values[:100, :2])  # imports
    preset = timed(lambda: by_evidently(values[:SCALED_ROWS, :SCALED_FEATURES])) * scale
    window = rng.standard_normal((SESSIONS * SYMBOLS, COLUMNS)).astype(np.float32)
    session = np.repeat(np.arange(SESSIONS), SYMBOLS)
    names = [f"f{i}" for i in range(COLUMNS)]
    fit = seconds(lambda: fit_reference(window, names, None, session, seed=1))
    twenty = seconds(lambda: [by_numpy(c, edges[0]) for _ in range(20) for c in window.T], 3)
    return [
        {"bench": "psi", "value": ours, "unit": unit, "peer": "numpy, by feature", "peer_value": plain},
        {"bench": "psi", "value": ours, "unit": unit, "peer": "Evidently's preset, scaled", "peer_value": preset},
        {
            "bench": "drift_reference",
            "value": fit,
            "unit": f"s, {SESSIONS} sessions × {SYMBOLS} symbols × {COLUMNS} features, {RESAMPLES:,} resamples",
            "peer": "numpy, by resample and feature",
            "peer_value": twenty * RESAMPLES / 20,
        },
    ]


def by_numpy(column: np.ndarray, edges: np.ndarray) -> float:
    counts = np.bincount(np.searchsorted(edges, column), minlength=BINS)
    return population_stability_index(np.full(BINS, 1.0), counts)


def by_evidently(values: np.ndarray) -> object:
    from evidently import Report
    from evidently.presets import DataDriftPreset

    frame = pd.DataFrame(values, columns=[f"f{i}" for i in range(values.shape[1])])
    return Report([DataDriftPreset(method="psi")]).run(frame, frame.copy()).dict()


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    work()
    return statistics.median(timed(work) for _ in range(repeats))


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
