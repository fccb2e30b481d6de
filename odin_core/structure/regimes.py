"""The regime of each symbol by session: trend, range or volatile; and low, medium or high volatility.

Two hidden Markov models of three states a symbol, estimated anew for every week from the sessions before it and then
only filtered, so a row follows from itself and the past. The regime of the whole market, one tag a session, is in
`features.regime`; what the models are told is in `observations`, their arithmetic in `hidden_markov`."""

from collections.abc import Callable
from datetime import date, datetime
from itertools import permutations
from typing import Final

import numpy as np
import polars as pl

from odin_core.features.series import FloatArray, IntArray, Runs
from odin_core.structure.hidden_markov import filter_runs
from odin_core.structure.observations import KNOWN_NEEDED, OBSERVATIONS, known_observations, weeks_of
from odin_core.structure.pivots import prices

DIRECTIONS: Final = ("trend", "range", "volatile")
VOLATILITIES: Final = ("low", "medium", "high")
REGIMES: Final = pl.Schema(
    {
        "symbol": OBSERVATIONS["symbol"],
        "session": OBSERVATIONS["session"],
        "regime": pl.String(),
        **{f"p_{name}": pl.Float64() for name in DIRECTIONS},
        "volatility_regime": pl.String(),
        **{f"p_{name}": pl.Float64() for name in VOLATILITIES},
    }
)
PRIOR_COUNTS: Final = np.full((3, 3), 1.0) + np.diag(np.full(3, 18.0))
"""Transitions that count as seen: regimes last about ten sessions, unless the data say otherwise."""
WAYS: Final = tuple(permutations(range(3)))
"""All ways to name three states."""


def regimes(observations: pl.DataFrame, *, first: date | None = None, as_of: datetime | None = None) -> pl.DataFrame:
    """REGIMES of each symbol and session from `first` on (None: all), sorted by symbol and session.

    observations: OBSERVATIONS, of `session_observations`. as_of: aware; rows with a later `known_at` do not exist.
    regime, volatility_regime: the name of the likeliest state; p_…: P(state | data up to the session's close), each
    three adding up to 1. Names follow from the estimated parameters: low, medium, high by mean log range; trend,
    volatile and range as in `name_directions`.

    In a week (Monday to Sunday) the models are those of the 120 rows of the symbol before that week, filtered through
    them and the week. So a value follows from exactly the last SESSIONS_NEEDED sessions, bit for bit, whichever range
    is asked for. Null where the symbol has fewer than 130 rows before the week or fewer than 90 known observations
    among the 120, where the session's own observation is null, and where nothing varies.
    Raises NaiveMoment, MissingSessionColumns and RepeatedSession."""
    ordered = known_observations(observations, as_of)
    weeks = weeks_of(ordered, first)
    columns: list[pl.Series] = []
    for tag, names, inputs, name in (
        ("regime", DIRECTIONS, ("log_range", "efficiency"), name_directions),
        ("volatility_regime", VOLATILITIES, ("log_range",), name_volatilities),
    ):
        found = _probabilities(np.column_stack([prices(ordered, column) for column in inputs]), weeks, name)
        likeliest = pl.Series(np.where(np.isnan(found[:, 0]), -1, np.argmax(found, axis=1)))
        columns.append(likeliest.replace_strict(range(3), names, default=None, return_dtype=pl.String()).alias(tag))
        columns += [pl.Series(f"p_{state}", found[:, k]).fill_nan(None) for k, state in enumerate(names)]
    table = ordered.select("symbol", "session").with_columns(columns).select(REGIMES.names())
    return table if first is None else table.filter(pl.col("session") >= first)


def name_directions(means: FloatArray, spreads: FloatArray) -> IntArray:
    """Which states are trend, range and volatile: (R, 3) out of R models' means (R, 3, 2) of log range and efficiency.

    Of all ways to name the states, the one with the largest sum of mean efficiency of `trend` and mean log range of
    `volatile`, each in units of `spreads` (R, 2), the column's standard deviation."""
    log_range, efficiency = np.moveaxis(means / spreads[:, None, :], 2, 0)
    sums = [efficiency[:, trend] + log_range[:, volatile] for trend, _, volatile in WAYS]
    return np.array(WAYS)[np.argmax(sums, axis=0)]


def name_volatilities(means: FloatArray, spreads: FloatArray) -> IntArray:
    """Which states are low, medium and high: (R, 3), by the means (R, 3, 1) of log range, ascending."""
    return np.argsort(means[:, :, 0], axis=1, kind="stable")


def _probabilities(values: FloatArray, weeks: Runs, name: Callable[[FloatArray, FloatArray], IntArray]) -> FloatArray:
    """(n, 3), in the order of names."""
    filtered, means, spreads = filter_runs(values, weeks, PRIOR_COUNTS, KNOWN_NEEDED)
    lengths = weeks.end - weeks.first
    week = np.repeat(np.arange(len(lengths)), lengths)
    rows = np.arange(len(week)) + np.repeat(weeks.first - (np.cumsum(lengths) - lengths), lengths)
    filtered[rows] = np.take_along_axis(filtered[rows], name(means, spreads)[week], axis=1)
    return filtered
