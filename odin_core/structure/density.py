"""The density of confirmed pivots over price, compiled. `levels` are its peaks, `heatmap` is its mass between edges.

Prices enter as distances from the last close in *widths*, the mean true range of the look-back: so whatever is added to
all prices, or multiplied with them, drops out. Each pivot spreads over one width to both sides (Silverman 1986, eq.
2.2a, with the biweight kernel of table 3.1) and weighs half as much for every half-life of its age.

Everything at a row follows from the last `look_back` bars up to it, or from all of a symbol that has fewer: pivots that
stand and are confirmed within them, and their true ranges. No sum is carried from row to row.

Kernels that call one another lie in this one file, because numba's cache on disk does not see changes in another."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from odin_core.features.series import FloatArray, IntArray, Runs, compiled

LOOK_BACK: Final = 500
"""Bars, the row's own included, that structure follows from."""

HALF_LIVES: Final = 4
"""How often a pivot's weight halves over the look-back: one that is about to leave it weighs a sixteenth."""

ARRIVED: Final = 1e-9  # widths; an ascent that moves less is at its peak
MOST_STEPS: Final = 1000


def decay(look_back: int) -> FloatArray:
    """Weight of a pivot by the age of its bar, 0 to look_back − 1: 1 at age 0."""
    return np.exp2(-np.arange(look_back) * (HALF_LIVES / look_back))


@compiled
def true_ranges(high: FloatArray, low: FloatArray, close: FloatArray) -> FloatArray:
    """max(high, previous close) − min(low, previous close) of each row; (rows,). NaN in the first row and where one of
    the three is. Source: Wilder 1978."""
    out = np.full(len(close), np.nan)
    for i in range(1, len(close)):
        out[i] = np.maximum(high[i], close[i - 1]) - np.minimum(low[i], close[i - 1])
    return out


@compiled
def mean_between(values: FloatArray, start: int, end: int) -> float:
    """Mean of values[start:end], summed in that order; NaN where there are none."""
    total = 0.0
    for i in range(start, end):
        total += values[i]
    return total / (end - start)


@compiled
def mass_below(distance: float) -> float:
    """How much of a pivot's weight lies below a price `distance` widths above it, 0 to 1: the biweight's integral,
    1/2 + 15/16 (u − 2u³/3 + u⁵/5)."""
    if distance <= -1.0:
        return 0.0
    if distance >= 1.0:
        return 1.0
    square = distance * distance
    return 0.5 + 0.9375 * distance * (1.0 - square * (2.0 / 3.0 - 0.2 * square))


@compiled
def density_at(place: float, places: FloatArray, weights: FloatArray) -> float:
    """Σ w (1 − u²)², u the distance of each place within one width, up to a constant factor. `places` ascend."""
    total = 0.0
    for j in range(np.searchsorted(places, place - 1.0), len(places)):
        distance = places[j] - place
        if distance >= 1.0:
            break
        closeness = 1.0 - distance * distance
        total += weights[j] * closeness * closeness
    return total


@compiled
def ascend(place: float, places: FloatArray, weights: FloatArray) -> float:
    """The peak of the density that mean shift climbs to: to the mean of what lies within one width, weighted with
    w (1 − u²), until that moves no more. Source: Comaniciu & Meer 2002, with the biweight's shadow."""
    for _ in range(MOST_STEPS):
        moment, weight = 0.0, 0.0
        for j in range(np.searchsorted(places, place - 1.0), len(places)):
            distance = places[j] - place
            if distance >= 1.0:
                break
            closeness = weights[j] * (1.0 - distance * distance)
            moment += closeness * distance
            weight += closeness
        if not weight > 0.0:
            break
        place += moment / weight
        if abs(moment / weight) < ARRIVED:
            break
    return place


@compiled
def peaks_of(places: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The peak of the density that each place climbs to, and the density there; (n,) each.

    places: (n,), ascending, in widths; weights: (n,)."""
    at, density = np.empty(len(places)), np.empty(len(places))
    for j in range(len(places)):
        at[j] = ascend(places[j], places, weights)
        density[j] = density_at(at[j], places, weights)
    return at, density


@compiled
def add_mass(mass: FloatArray, place: float, weight: float, reach: float) -> None:
    """Add what a pivot at `place` (widths) weighs to each bin of `mass`, (bins,), equal bins from −reach to reach."""
    bins = len(mass)
    step = 2.0 * reach / bins
    first = max(math.floor((place - 1.0 + reach) / step), 0)
    last = min(math.floor((place + 1.0 + reach) / step), bins - 1)
    below = mass_below(first * step - reach - place)
    for b in range(first, last + 1):
        upto = mass_below((b + 1) * step - reach - place)
        mass[b] += weight * (upto - below)
        below = upto


@compiled
def shares(
    close: FloatArray,
    ranges: FloatArray,
    row: IntArray,
    price: FloatArray,
    runs: Runs,
    weight: FloatArray,
    sides: tuple[int, int],
    bins: int,
    reach: float,
) -> tuple[NDArray[np.float32], FloatArray]:
    """Of each wanted row, the share of its pivots' weight in each bin around its close, (rows, bins), and its width,
    (rows,); NaN in other rows and where the width is not above 0.

    ranges: `true_ranges`; row, price: pivots, (pivots,), ascending by row; weight: by age, as long as the look-back;
    sides: how many bars before a pivot it stands out from, and how many after it confirm it."""
    share, widths = np.full((len(close), bins), np.float32(np.nan)), np.full(len(close), np.nan)
    mass = np.empty(bins)
    for r in range(len(runs.start)):
        for i in range(runs.first[r], runs.end[r]):
            start = max(runs.start[r], i - len(weight) + 1)
            width = mean_between(ranges, start + 1, i + 1)
            if not width > 0.0:
                continue
            mass[:] = 0.0
            total = 0.0
            for p in range(np.searchsorted(row, start + sides[0]), np.searchsorted(row, i - sides[1] + 1)):
                of_pivot = float(weight[i - row[p]])
                total += of_pivot
                add_mass(mass, (price[p] - close[i]) / width, of_pivot, reach)
            widths[i] = width
            for b in range(bins):
                share[i, b] = mass[b] / total if total > 0.0 else 0.0
    return share, widths
