"""Drift statistics: how far a sample lies from the one that a model was trained on. Pure functions on arrays.

What comes in: samples, or counts of rows per bin; columns are *subjects*, a feature, prediction or label. What a model
was trained on is remembered by `reference`, which also says from where on a score is an alarm; people read it through
`drift_page`. Unless said otherwise NaN rows are dropped first and an empty sample gives NaN."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from odin_core.features.series import compiled

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
FLOOR = 1e-6  # least share of a bin: an empty one would make the index infinite
CONFIDENCE = 0.99  # of the floor of the population stability index
AT_LEAST = 0.1  # the credit scorers' rule of thumb, below which a shift does not matter
THREADS_FROM = 200_000  # values from which a second thread pays


class Tested(NamedTuple):
    statistic: float
    p_value: float  # asymptotic, of independent rows: symbols of one session are not, so it is too small for them


def population_stability_index(reference: npt.ArrayLike, current: npt.ArrayLike) -> Any:
    """Σ (q − p)·ln(q / p) over the bins of the last axis, p and q being shares of `reference` and `current`.

    Counts or shares, shapes (…, bins) that broadcast; the answer has shape (…), a float for one pair. Each side is
    divided by its sum and then floored at FLOOR. NaN where a side has no rows. Symmetric, never negative, 0 for equal
    shares. Source: Siddiqi 2006; the sum of both Kullback-Leibler divergences (Jeffreys). 0.04456085 for .4, .3, .3
    against .35, .25, .4. Raises ValueError for another number of bins."""
    p, q = _shares(reference), _shares(current)
    if p.shape[-1] != q.shape[-1]:
        raise ValueError(f"{p.shape[-1]} bins of the reference and {q.shape[-1]} now: both sides need the same bins")
    return _plain(((q - p) * np.log(q / p)).sum(axis=-1))


def psi_threshold(n_reference: Any, n_current: Any, n_bins: Any = 10) -> Any:
    """max(0.1, χ²₀.₉₉(bins − 1)·(1/n + 1/m)): what the index of two samples of n and m *independent* rows of one
    distribution exceeds once in a hundred, but never less than 0.1. Broadcasts; infinite without rows.

    Only a floor: rows of one session move together, so a market's rows carry far less than n of them (`reference`).
    With 75 rows against 5,000 and ten bins, 0.1 alone would misfire in 64 % of draws.
    Source: Yurdakul & Naranjo 2020."""
    from scipy.special import chdtri

    n, m = np.asarray(n_reference, float), np.asarray(n_current, float)
    degrees = np.maximum(np.asarray(n_bins, float) - 1, 1)
    with np.errstate(divide="ignore"):
        spread = 1 / n + 1 / m
    return _plain(np.maximum(AT_LEAST, chdtri(degrees, 1 - CONFIDENCE) * spread))


def kullback_leibler(reference: npt.ArrayLike, current: npt.ArrayLike) -> Any:
    """Σ q·ln(q / p), nats: what `current` (q) tells beyond `reference` (p). Shapes and floor as the index above.
    Source: Kullback & Leibler 1951."""
    p, q = _shares(reference), _shares(current)
    return _plain((q * np.log(q / p)).sum(axis=-1))


def jensen_shannon(reference: npt.ArrayLike, current: npt.ArrayLike) -> Any:
    """Mean of both divergences to the mixture ½(p + q), nats, from 0 to ln 2; its root is a distance. Shapes and floor
    as the index above. Source: Lin 1991."""
    p, q = _shares(reference), _shares(current)
    mixed = (p + q) / 2
    return _plain((p * np.log(p / mixed) + q * np.log(q / mixed)).sum(axis=-1) / 2)


def chi_square(reference: npt.ArrayLike, current: npt.ArrayLike) -> Tested:
    """Pearson's test that two rows of *counts* per category (categories,) come from one distribution; degrees of
    freedom: the categories that either side knows, less one. NaN with fewer than two of them or an empty side.
    Source: Pearson 1900; the 2 × categories contingency table. Oracle: scipy.stats.chi2_contingency."""
    from scipy.special import chdtrc

    table = np.stack([np.asarray(reference, float), np.asarray(current, float)])
    if (table < 0).any():
        raise ValueError("counts are never negative")
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return Tested(float("nan"), float("nan"))
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return Tested(statistic, float(chdtrc(table.shape[1] - 1, statistic)))


def kolmogorov_smirnov(reference: npt.ArrayLike, current: npt.ArrayLike, n_reference: float | None = None) -> Tested:
    """Greatest distance of two samples' distribution functions and its p value by Kolmogorov's limit law.

    1-D samples. `n_reference`: rows that `reference` stands for where it is a sketch of quantiles (default: its
    length); with s quantiles the statistic is within 1/(2s) of the whole sample's, ties included.
    Source: Smirnov 1948, statistic·√(n·m/(n+m)). Oracle: scipy.stats.ks_2samp(method="asymp")."""
    a, b = known(reference), known(current)
    if not a.size or not b.size:
        return Tested(float("nan"), float("nan"))
    a.sort()
    b.sort()
    statistic = _distance(a, b)
    return Tested(statistic, kolmogorov_smirnov_p(statistic, n_reference or a.size, b.size))


def kolmogorov_smirnov_p(statistic: float, n: float, m: float) -> float:
    """P(a statistic at least as great) under Kolmogorov's limit law, samples of n and m independent rows."""
    from scipy.special import kolmogorov

    return float(kolmogorov(statistic * np.sqrt(n * m / (n + m))))


def wasserstein(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """∫ |F − G|, the mean distance that mass must move, in the samples' unit. 1-D samples, also of unlike lengths.
    Source: Vallender 1974. Oracle: scipy.stats.wasserstein_distance."""
    a, b = known(reference), known(current)
    if not a.size or not b.size:
        return float("nan")
    a.sort()
    b.sort()
    return float(_area(a, b))


def rolling_z_score(values: npt.ArrayLike, window: int, *, burn_in: int | None = None) -> FloatArray:
    """(mean of the last `window` values − mean before them) / standard error, of a series (…, sessions).

    What comes before is everything known earlier, at least `burn_in` values (default 2·window); NaN until then. NaN
    values are left out. The standard error is s·√(1/window + 1/earlier), s (ddof 1) of the earlier values: right for
    sessions that do not hang together; `reference` measures the error where they do."""
    x = np.asarray(values, np.float64)
    if window < 1 or (burn_in is not None and burn_in < 2):
        raise ValueError(f"window={window}, burn_in={burn_in}: at least 1 session, and 2 before it")
    least = 2 * window if burn_in is None else burn_in
    is_known = np.isfinite(x)
    pad = np.zeros((*x.shape[:-1], 1))
    mean = np.where(is_known, x, 0).sum(axis=-1, keepdims=True) / np.maximum(is_known.sum(axis=-1, keepdims=True), 1)
    centred = np.where(is_known, x - mean, 0.0)  # so that squares keep their digits
    count, total, square = (
        np.concatenate([pad, np.cumsum(v, axis=-1)], -1) for v in (is_known.astype(float), centred, centred**2)
    )
    out = np.full(x.shape, np.nan)
    if x.shape[-1] < window:
        return out
    n, s, q = (v[..., : x.shape[-1] - window + 1] for v in (count, total, square))
    m, t = count[..., window:] - n, total[..., window:] - s
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.maximum(q - s**2 / n, 0) / (n - 1)
        z = (t / m - s / n) / np.sqrt(variance * (1 / m + 1 / n))
    out[..., window - 1 :] = np.where((n >= max(least, 2)) & (m > 0) & (variance > 0), z, np.nan)
    return out


def missing_rate(values: npt.ArrayLike) -> FloatArray:
    """Share of NaN in each column of (n, k); NaN without rows."""
    x = np.asarray(values)
    return np.isnan(x).mean(axis=0) if len(x) else np.full(x.shape[1:], np.nan)


def out_of_range(values: npt.ArrayLike, minimum: npt.ArrayLike, maximum: npt.ArrayLike) -> FloatArray:
    """Share of the known values in each column of (n, k) below `minimum` or above `maximum` (k,); NaN without any."""
    x = np.asarray(values)
    outside = ((x < np.asarray(minimum)) | (x > np.asarray(maximum))).sum(axis=0)
    count = np.isfinite(x).sum(axis=0) + np.isinf(x).sum(axis=0)
    return np.where(count > 0, outside / np.maximum(count, 1), np.nan)


def bin_counts(values: npt.NDArray[Any], edges: FloatArray, group: IntArray | None = None, groups: int = 1) -> IntArray:
    """Rows per bin of each column: (groups, k, bins + 1) int64, the last bin for NaN.

    `values` (n, k) float32 or float64; `edges` (k, bins − 1) ascending, a bin holds what is above its lower edge and at
    or below its upper one, the outer two are open; shorter lists of edges end in +inf, whose bins stay empty. `group`
    (n,) int64: each row's group, 0 to groups − 1 (None: one group). One compiled pass, on two threads where large:
    100,000 rows × 60 columns × 10 bins take 0.006 s on two cores."""
    x = np.ascontiguousarray(values if np.asarray(values).dtype == np.float32 else np.asarray(values, np.float64))
    if x.ndim != 2 or edges.shape[0] != x.shape[1]:
        raise ValueError(f"values of shape {x.shape} do not fit edges of shape {edges.shape}: (n, k) and (k, bins - 1)")
    where = np.zeros(len(x), np.int64) if group is None else np.ascontiguousarray(group, np.int64)
    if len(where) != len(x) or (len(where) and (where.min() < 0 or where.max() >= groups)):
        raise ValueError(f"{len(where)} groups for {len(x)} rows, each from 0 to {groups - 1}")
    levels = np.ascontiguousarray(edges.T.astype(x.dtype)) if x.dtype == np.float64 else _float32_edges(edges)
    if x.size < THREADS_FROM:
        return _count(x, levels, where, groups)
    half = len(x) // 2
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(_count, x[:half], levels, where[:half], groups)
        second = pool.submit(_count, x[half:], levels, where[half:], groups)
        return first.result() + second.result()


def known(values: npt.ArrayLike) -> FloatArray:
    """A new 1-D float64 array without the NaN."""
    x = np.asarray(values, np.float64).ravel()
    return x[~np.isnan(x)]


def _float32_edges(edges: FloatArray) -> npt.NDArray[np.float32]:
    """(bins − 1, k): the greatest float32 at or below each edge, so that x > edge says the same of a float32 x."""
    rounded = edges.astype(np.float32)
    above = rounded.astype(np.float64) > edges
    return np.ascontiguousarray(np.where(above, np.nextafter(rounded, np.float32(-np.inf)), rounded).T)


def _shares(counts: npt.ArrayLike) -> FloatArray:
    x = np.asarray(counts, np.float64)
    if x.shape[-1:] in ((), (0,)) or (x < 0).any():
        raise ValueError("counts or shares of at least one bin, never negative")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.maximum(x / x.sum(axis=-1, keepdims=True), FLOOR)


def _plain(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else value


@compiled
def _count(x: npt.NDArray[Any], edges: npt.NDArray[Any], group: IntArray, groups: int) -> IntArray:
    n, k = x.shape
    n_edges = edges.shape[0]
    counts = np.zeros((groups, k, n_edges + 2), np.int64)
    place = np.zeros(k, np.int32)
    for i in range(n):
        for j in range(k):
            place[j] = (n_edges + 1) * (x[i, j] != x[i, j])
        for e in range(n_edges):
            for j in range(k):
                place[j] += x[i, j] > edges[e, j]
        for j in range(k):
            counts[group[i], j, place[j]] += 1
    return counts


@compiled
def _distance(a: FloatArray, b: FloatArray) -> float:
    i = j = 0
    n, m = len(a), len(b)
    most = 0.0
    while i < n and j < m:
        x = min(a[i], b[j])
        while i < n and a[i] <= x:
            i += 1
        while j < m and b[j] <= x:
            j += 1
        most = max(most, abs(i / n - j / m))
    return most


@compiled
def _area(a: FloatArray, b: FloatArray) -> float:
    i = j = 0
    n, m = len(a), len(b)
    area = 0.0
    before = min(a[0], b[0])
    while i < n or j < m:
        x = b[j] if i == n else a[i] if j == m else min(a[i], b[j])
        area += (x - before) * abs(i / n - j / m)
        before = x
        while i < n and a[i] <= x:
            i += 1
        while j < m and b[j] <= x:
            j += 1
    return area
