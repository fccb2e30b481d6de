"""Change points: whether a series has just begun to behave differently, told from nothing but its past.

Bayesian online detection (Adams & MacKay 2007): the posterior of the run length, the number of observations since mean
and variance last changed. What is watched is of `observations`."""

import math
from datetime import date, datetime
from typing import Final

import numpy as np
import polars as pl

from odin_core.features.series import FloatArray, Runs, compiled
from odin_core.structure.observations import KNOWN_NEEDED, OBSERVATIONS, known_observations, weeks_of
from odin_core.structure.pivots import prices

RECENT: Final = 5
"""A change counts as just happened while the run has at most this many observations: one week."""
MEAN_RUN: Final = 60.0
"""Observations between changes expected beforehand; 1 / MEAN_RUN is the hazard."""
PRIOR_WEIGHT: Final = 0.25
"""Observations that the prior's mean is worth: a run's own mean is believed from the first few on."""
PRIOR_SHAPE: Final = 2.0
"""Shape of the Gamma prior of the precision; its scale gives the look-back's variance as expected variance."""

WATCHED: Final = {"return": "log_return", "volatility": "log_range"}
CHANGE_POINTS: Final = pl.Schema(
    {
        "symbol": OBSERVATIONS["symbol"],
        "session": OBSERVATIONS["session"],
        **{f"{name}_{column}": pl.Float64() for name in WATCHED for column in ("change_probability", "run_length")},
    }
)


def change_points(
    observations: pl.DataFrame, *, first: date | None = None, as_of: datetime | None = None
) -> pl.DataFrame:
    """CHANGE_POINTS of each symbol and session from `first` on (None: all), sorted by symbol and session.

    observations: OBSERVATIONS, of `session_observations`. as_of: aware; rows with a later `known_at` do not exist.
    return_…: of the log returns, so a change of drift or of variance; volatility_…: of the log range, so a change of
    volatility, which shows there soonest. …_change_probability: P(the last change lies at most RECENT sessions back |
    data up to the session's close); …_run_length: expected sessions since it.

    In a week (Monday to Sunday) the detector runs from the 120 rows of the symbol before that week on, in units of
    their mean and standard deviation. So a value follows from exactly the last SESSIONS_NEEDED sessions, bit for bit,
    and no run is longer than those. Null by the rule of `regimes`. Values are taken as normal within a run, so a lone
    large one looks like a change until the next ones: of rows without a change, 0.4 % have a probability above a half
    where values are normal, and 3 % where they are Student's t with four degrees of freedom.
    Raises NaiveMoment, MissingSessionColumns and RepeatedSession."""
    ordered = known_observations(observations, as_of)
    weeks = weeks_of(ordered, first)
    columns: list[pl.Series] = []
    for name, column in WATCHED.items():
        found = change_probabilities(prices(ordered, column), weeks, KNOWN_NEEDED)
        columns.append(pl.Series(f"{name}_change_probability", found[:, 0]).fill_nan(None))
        columns.append(pl.Series(f"{name}_run_length", found[:, 1]).fill_nan(None))
    table = ordered.select("symbol", "session").with_columns(columns)
    return table if first is None else table.filter(pl.col("session") >= first)


@compiled
def change_probabilities(values: FloatArray, weeks: Runs, known_needed: int) -> FloatArray:
    """(n, 2) of values (n,): P(run length ≤ RECENT) and expected run length, for rows [first, end) of each week, of a
    detector that begins at `start`. NaN outside the weeks, where the value itself is NaN, and where fewer than
    `known_needed` values before the week are known or these are all equal."""
    out = np.full((len(values), 2), math.nan)
    for r in range(len(weeks.start)):
        start, first, end = weeks.start[r], weeks.first[r], weeks.end[r]
        past = values[start:first]
        past = past[np.isfinite(past)]
        if len(past) < known_needed or not np.ptp(past) > 0.0:
            continue
        posterior = run_lengths((values[start:end] - past.mean()) / past.std())
        for i in range(first, end):
            if math.isfinite(values[i]):
                row = posterior[i - start]
                out[i, 0] = row[: RECENT + 1].sum()
                out[i, 1] = 0.0
                for length in range(len(row)):
                    out[i, 1] += length * row[length]
    return out


@compiled
def run_lengths(values: FloatArray) -> FloatArray:
    """Posterior (n, n + 1) of the run length after each of values (n,), which are about standardised: row t, column l
    is P(the last l of the observations up to t are the present run | values up to t), 0 for l > t + 1.

    A run's values are normal with unknown mean and precision (prior: Normal-Gamma, mean 0, PRIOR_WEIGHT, PRIOR_SHAPE);
    after each one the run ends with probability 1 / MEAN_RUN. A run begins before the first value. A value that is not
    finite is no observation: its row repeats the one before. Source: Adams & MacKay 2007, algorithm 1; the predictive
    distribution is Murphy 2007, "Conjugate Bayesian analysis of the Gaussian distribution", equation 110."""
    n = len(values)
    out = np.zeros((n, n + 1))
    present = np.zeros(n + 1)
    present[0] = 1.0
    constants = _predictive_constants(n + 1)
    mean, scale = np.zeros(n + 1), np.full(n + 1, PRIOR_SHAPE - 1.0)
    logs = np.empty(n + 1)
    seen = 0  # observations so far: runs have 0 to `seen` of them
    for t in range(n):
        if math.isfinite(values[t]):
            _advance(values[t], seen, present, mean, scale, constants, logs)
            seen += 1
        out[t] = present
    return out


@compiled
def _predictive_constants(count: int) -> FloatArray:
    """(count, 3) for runs of 0, 1, … observations: the log density of a Student t at its centre for unit scale, its
    exponent (degrees of freedom + 1) / 2, and the factor of squared distance / scale in its argument."""
    out = np.empty((count, 3))
    for length in range(count):
        weight, shape = PRIOR_WEIGHT + length, PRIOR_SHAPE + 0.5 * length
        factor = weight / (2.0 * (weight + 1.0))
        out[length, 0] = math.lgamma(shape + 0.5) - math.lgamma(shape) + 0.5 * math.log(factor / math.pi)
        out[length, 1] = shape + 0.5
        out[length, 2] = factor
    return out


@compiled
def _advance(
    value: float,
    seen: int,
    present: FloatArray,
    mean: FloatArray,
    scale: FloatArray,
    constants: FloatArray,
    logs: FloatArray,
) -> None:
    """One observation: `present`, `mean` and `scale`, by run length, become those after it."""
    top = -math.inf
    for length in range(seen + 1):
        distance = value - mean[length]
        argument = constants[length, 2] * distance * distance / scale[length]
        logs[length] = (
            constants[length, 0] - 0.5 * math.log(scale[length]) - constants[length, 1] * math.log1p(argument)
        )
        if present[length] > 0.0 and logs[length] > top:
            top = logs[length]
    total = 0.0
    for length in range(seen + 1):
        present[length] = present[length] * math.exp(logs[length] - top) if present[length] > 0.0 else 0.0
        total += present[length]
    for length in range(seen, -1, -1):  # runs grow by one, the longest first, so that each is read before it is written
        distance = value - mean[length]
        present[length + 1] = present[length] / total * (1.0 - 1.0 / MEAN_RUN)
        weight = PRIOR_WEIGHT + length
        mean[length + 1] = mean[length] + distance / (weight + 1.0)
        scale[length + 1] = scale[length] + 0.5 * weight / (weight + 1.0) * distance * distance
    present[0] = 1.0 / MEAN_RUN
