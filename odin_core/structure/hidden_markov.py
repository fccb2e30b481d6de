"""A hidden Markov model with Gaussian observations: its estimation and its filter, compiled.

The filter gives P(state at t | observations up to t) and never looks back from the end (no smoothing, no most likely
path), so a row follows from itself and the rows before it. What the states mean is in `regimes`. Everything is
deterministic: estimation starts from quantiles of the data, not from random draws, and takes a fixed number of steps.

Sources: Baum, Petrie, Soules & Weiss 1970; Rabiner 1989, sections III and V (scaling); Hamilton 1989 (the filter)."""

import math
from typing import Final, NamedTuple

import numpy as np

from odin_core.features.series import FloatArray, Runs, compiled

SHORT_RUN: Final = 5
"""Steps taken from each starting point; the best of them goes on (Biernacki, Celeux & Govaert 2003)."""
LONG_RUN: Final = 25
"""Further steps of the best one."""
STAY: Final = 0.9
"""Probability of staying in a state at the starting points."""
SMALLEST_VARIANCE: Final = 0.01
"""A state's variance is at least this share of the column's: a state of a single observation explains nothing."""


class HiddenMarkov(NamedTuple):
    """Parameters of a model of K states and D observed columns, float64; all NaN where none could be estimated."""

    start: FloatArray  # (K,), probabilities of the states at the first observation
    transitions: FloatArray  # (K, K), from row to column, rows sum to 1
    means: FloatArray  # (K, D)
    variances: FloatArray  # (K, D), columns are independent within a state


def filter_probabilities(model: HiddenMarkov, observations: FloatArray) -> FloatArray:
    """P(state at row t | rows 0 to t), (n, K), of observations (n, D), ascending in time, regularly spaced.

    A row with a value that is not finite says nothing: its probabilities are those predicted from the rows before it.
    NaN for a model of NaN. Source: Hamilton 1989, equations 4 to 6; Rabiner 1989, equation 19, scaled."""
    filtered = np.empty((len(observations), len(model.start)))
    _forward(model, np.ascontiguousarray(observations), filtered, np.empty_like(filtered))
    return filtered


def log_likelihood(model: HiddenMarkov, observations: FloatArray) -> float:
    """ln p(observations), natural logarithm, of observations (n, D); rows that are not finite are left out of it.
    Source: Rabiner 1989, equation 103."""
    filtered = np.empty((len(observations), len(model.start)))
    return _forward(model, np.ascontiguousarray(observations), filtered, np.empty_like(filtered))


def fit(observations: FloatArray, states: int, prior_counts: FloatArray | None = None) -> HiddenMarkov:
    """The model of `states` states that explains observations (n, D) best, by expectation maximisation (Baum-Welch).

    prior_counts: (states, states), transitions that count as seen beside those of the data (a Dirichlet prior; none:
    maximum likelihood). Every row is used, so give it the past only; a row with a value that is not finite counts as
    missing. Several starting points: along each column, and along each sum and difference of two, the rows are cut into
    as many equal parts as there are states. All NaN where fewer than two rows a state are known, or a column is
    constant. Multiplying a column by c or adding c to it changes its means and variances, and nothing else."""
    counts = np.zeros((states, states)) if prior_counts is None else np.asarray(prior_counts, dtype=np.float64)
    return _estimate(np.ascontiguousarray(observations, dtype=np.float64), counts)


def baum_welch_step(
    model: HiddenMarkov, observations: FloatArray, prior_counts: FloatArray, smallest_variance: FloatArray
) -> HiddenMarkov:
    """One step of expectation maximisation: a model that explains observations (n, D) at least as well.

    What never falls is log_likelihood + Σ prior_counts · ln transitions, as long as the given variances are at least
    `smallest_variance` (D,). Source: Rabiner 1989, equations 40 and 52 to 54, with the prior's counts added."""
    better = HiddenMarkov(*(part.copy() for part in model))
    work = np.empty((2, len(observations), len(model.start)))
    _improve(better, np.ascontiguousarray(observations), prior_counts, smallest_variance, work[0], work[1])
    return better


@compiled
def filter_runs(
    observations: FloatArray, runs: Runs, prior_counts: FloatArray, known_needed: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """For each of R runs the model that `fit` finds in rows [start, first) of observations (n, D), and what its filter,
    begun at `start`, says of rows [first, end): probabilities (n, K), means (R, K, D) of the states, and the standard
    deviation (R, D) of each column in the rows of the fit (ddof 0).

    Probabilities are NaN outside the runs, in rows that are not finite, and where there is no model: fewer than
    `known_needed` finite rows, or as in `fit`."""
    rows, columns = observations.shape
    states = len(prior_counts)
    out = np.full((rows, states), math.nan)
    means = np.full((len(runs.start), states, columns), math.nan)
    spreads = np.full((len(runs.start), columns), math.nan)
    for r in range(len(runs.start)):
        start, first, end = runs.start[r], runs.first[r], runs.end[r]
        _, spread, known = _moments(observations[start:first])
        if known < known_needed:
            continue
        model = _estimate(observations[start:first], prior_counts)
        means[r], spreads[r] = model.means, spread
        filtered = np.empty((end - start, states))
        _forward(model, observations[start:end], filtered, np.empty_like(filtered))
        for i in range(first, end):
            if _known(observations[i]):
                out[i] = filtered[i - start]
    return out, means, spreads


@compiled
def _forward(model: HiddenMarkov, observations: FloatArray, filtered: FloatArray, densities: FloatArray) -> float:
    """The filter: writes `filtered` (n, K) and `densities` (n, K), each row's p(observation | state) divided by that
    row's p(observation | rows before it), and returns the log likelihood.

    Densities are taken relative to the largest one of a possible state, so no total is ever zero."""
    rows, columns = observations.shape
    states = len(model.start)
    predicted = model.start.copy()
    logs, constants = np.empty(states), np.zeros(states)
    for k in range(states):
        for d in range(columns):
            constants[k] -= 0.5 * math.log(2.0 * math.pi * model.variances[k, d])
    likelihood = 0.0
    for t in range(rows):
        if t > 0:
            for j in range(states):
                predicted[j] = 0.0
                for i in range(states):
                    predicted[j] += filtered[t - 1, i] * model.transitions[i, j]
        _log_densities(model, constants, observations[t], logs)
        top = -math.inf
        for k in range(states):
            if predicted[k] > 0.0 and logs[k] > top:
                top = logs[k]
        total = 0.0
        for k in range(states):
            densities[t, k] = math.exp(logs[k] - top) if predicted[k] != 0.0 else 0.0
            filtered[t, k] = predicted[k] * densities[t, k]
            total += filtered[t, k]
        for k in range(states):
            densities[t, k] /= total
            filtered[t, k] /= total
        likelihood += math.log(total) + top
    return likelihood


@compiled
def _known(observation: FloatArray) -> bool:
    """Whether every column of one observation (D,) is finite."""
    known = True
    for value in observation:
        known = known and math.isfinite(value)
    return known


@compiled
def _log_densities(model: HiddenMarkov, constants: FloatArray, observation: FloatArray, logs: FloatArray) -> None:
    """ln p(observation | state) of each state; 0 for an observation that is missing."""
    known = _known(observation)
    for k in range(len(logs)):
        logs[k] = constants[k] if known else 0.0
        if known:
            for d in range(len(observation)):
                distance = observation[d] - model.means[k, d]
                logs[k] -= 0.5 * distance * distance / model.variances[k, d]


@compiled
def _improve(
    model: HiddenMarkov,
    observations: FloatArray,
    prior_counts: FloatArray,
    smallest_variance: FloatArray,
    filtered: FloatArray,
    densities: FloatArray,
) -> float:
    """`baum_welch_step` in place; `filtered` and `densities` (n, K) are room to work in. Returns what it raised: the
    given model's log likelihood + Σ prior_counts · ln transitions."""
    rows = len(observations)
    states = len(model.start)
    goal = _forward(model, observations, filtered, densities)
    counts = prior_counts.copy()
    for i in range(states):
        for j in range(states):
            if prior_counts[i, j] > 0.0:
                goal += prior_counts[i, j] * math.log(model.transitions[i, j])
    after = np.ones(states)  # p(later rows | state), over p(later rows | rows so far)
    seen = np.empty(states)
    for t in range(rows - 1, -1, -1):  # `filtered` becomes P(state | all rows)
        if t < rows - 1:
            for j in range(states):
                seen[j] = densities[t + 1, j] * after[j]
            for i in range(states):
                after[i] = 0.0
                for j in range(states):
                    step = model.transitions[i, j] * seen[j]
                    after[i] += step
                    counts[i, j] += filtered[t, i] * step
        for i in range(states):
            filtered[t, i] *= after[i]
    _maximise(model, observations, filtered, counts, smallest_variance)
    return goal


@compiled
def _maximise(
    model: HiddenMarkov, observations: FloatArray, weights: FloatArray, counts: FloatArray, floor: FloatArray
) -> None:
    """Parameters out of expected counts: `weights` (n, K) = P(state | all rows), `counts` (K, K) of transitions."""
    states, columns = model.means.shape
    for k in range(states):
        model.start[k] = weights[0, k]
        leaving = counts[k].sum()
        if leaving > 0.0:
            for j in range(states):
                model.transitions[k, j] = counts[k, j] / leaving
        for d in range(columns):
            model.means[k, d], model.variances[k, d] = _weighted_moments(
                observations, weights, k, d, model.means[k, d], model.variances[k, d], floor[d]
            )


@compiled
def _weighted_moments(
    observations: FloatArray, weights: FloatArray, k: int, d: int, mean: float, variance: float, floor: float
) -> tuple[float, float]:
    """Mean and variance of column d under the weights of state k; the given ones where the state has no weight."""
    total, first, second = 0.0, 0.0, 0.0
    for t in range(len(observations)):
        if _known(observations[t]):
            total += weights[t, k]
            first += weights[t, k] * observations[t, d]
    if not total > 0.0:
        return mean, variance
    mean = first / total
    for t in range(len(observations)):
        if _known(observations[t]):
            distance = observations[t, d] - mean
            second += weights[t, k] * distance * distance
    return mean, max(second / total, floor)


@compiled
def _estimate(observations: FloatArray, prior_counts: FloatArray) -> HiddenMarkov:
    """`fit`, compiled; as many states as `prior_counts` (K, K) has rows."""
    rows, columns = observations.shape
    states = len(prior_counts)
    best = _unknown(states, columns)
    centre, spread, known = _moments(observations)
    if known < 2 * states or not np.all(spread > 0.0):
        return best
    floor = SMALLEST_VARIANCE * spread * spread
    filtered, densities = np.empty((rows, states)), np.empty((rows, states))
    highest = -math.inf
    for first in range(columns):
        for second in range(first, columns):
            for sign in (1.0, -1.0):
                if second == first and sign < 0.0:
                    continue
                score = (observations[:, first] - centre[first]) / spread[first]
                if second != first:
                    score += sign * (observations[:, second] - centre[second]) / spread[second]
                model = _start(observations, score, known, floor, states)
                goal = -math.inf
                for _ in range(SHORT_RUN):
                    goal = _improve(model, observations, prior_counts, floor, filtered, densities)
                if goal > highest:
                    best, highest = model, goal
    for _ in range(LONG_RUN):
        _improve(best, observations, prior_counts, floor, filtered, densities)
    return best


@compiled
def _start(observations: FloatArray, score: FloatArray, known: int, floor: FloatArray, states: int) -> HiddenMarkov:
    """A model whose states are equal parts of the known rows, in the order of `score` (n,), which is
    overwritten where a row is not known."""
    model = _unknown(states, observations.shape[1])
    for t in range(len(observations)):
        if not _known(observations[t]):
            score[t] = math.inf
    order = np.argsort(score, kind="mergesort")
    weights = np.zeros((len(observations), states))
    for place in range(known):
        weights[order[place], place * states // known] = 1.0
    for k in range(states):
        model.start[k] = 1.0 / states
        for j in range(states):
            model.transitions[k, j] = STAY if j == k else (1.0 - STAY) / max(states - 1, 1)
        for d in range(observations.shape[1]):
            model.means[k, d], model.variances[k, d] = _weighted_moments(
                observations, weights, k, d, math.nan, math.nan, floor[d]
            )
    return model


@compiled
def _unknown(states: int, columns: int) -> HiddenMarkov:
    return HiddenMarkov(
        np.full(states, math.nan),
        np.full((states, states), math.nan),
        np.full((states, columns), math.nan),
        np.full((states, columns), math.nan),
    )


@compiled
def _moments(observations: FloatArray) -> tuple[FloatArray, FloatArray, int]:
    """Mean and standard deviation (ddof 0) of each column over the known rows, and how many these are."""
    columns = observations.shape[1]
    centre, spread = np.zeros(columns), np.zeros(columns)
    known = 0
    for t in range(len(observations)):
        if _known(observations[t]):
            known += 1
            centre += (observations[t] - centre) / known
    for t in range(len(observations)):
        if _known(observations[t]):
            spread += (observations[t] - centre) ** 2
    return centre, np.sqrt(spread / max(known, 1)), known
