"""How sure a Sharpe ratio is: its standard error, the probability that it is above another, and what many trials take.

What comes in: Sharpe ratios *per period*, not annualised, the number of observations behind them, and the skewness and
raw kurtosis (3 for a normal) of their returns, as `metrics` computes them. Each argument is a number, or an array that
broadcasts with the others; the answer is a float for numbers, an array otherwise. NaN where an input is."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

NAN = float("nan")
EULER_GAMMA = float(np.euler_gamma)
_NORMAL = NormalDist()


def sharpe_standard_error(
    sharpe: npt.ArrayLike, n_obs: npt.ArrayLike, skew: npt.ArrayLike = 0.0, kurtosis: npt.ArrayLike = 3.0
) -> Any:
    """√((1 − γ₃·SR + (γ₄ − 1)/4·SR²) / (n − 1)), per period; times √periods for an annualised ratio. With the defaults
    it is Lo's (2002, equation 9) for independent normal returns, √((1 + SR²/2) / (n − 1)). NaN for n_obs < 2.
    Source: Mertens 2002; the n − 1 as in Bailey & López de Prado 2012."""
    return _each(_standard_error, sharpe, n_obs, skew, kurtosis)


def probabilistic_sharpe_ratio(
    sharpe: npt.ArrayLike,
    n_obs: npt.ArrayLike,
    skew: npt.ArrayLike = 0.0,
    kurtosis: npt.ArrayLike = 3.0,
    benchmark: npt.ArrayLike = 0.0,
) -> Any:
    """P(true Sharpe > benchmark), Φ((SR − SR*)·√(n − 1) / √(1 − γ₃·SR + (γ₄ − 1)/4·SR²)); the benchmark per period.
    NaN for n_obs < 2, or for moments that no distribution has. Source: Bailey & López de Prado 2012."""
    return _each(_probabilistic, sharpe, n_obs, skew, kurtosis, benchmark)


def expected_maximum_sharpe(n_trials: int, var_sharpe: float = 1.0) -> float:
    """Expected best Sharpe ratio of `n_trials` without skill, √V·((1 − γ)·Φ⁻¹(1 − 1/N) + γ·Φ⁻¹(1 − 1/(N·e))).
    `var_sharpe` is the variance of the trials' Sharpe ratios; with the default 1 the answer is in their standard
    deviations. 0 for one trial; ValueError for none. Source: Bailey & López de Prado 2014, equation 1."""
    if n_trials < 1:
        raise ValueError(f"n_trials={n_trials}: at least the trial that is judged counts")
    if n_trials == 1:
        return 0.0
    typical = (1 - EULER_GAMMA) * _NORMAL.inv_cdf(1 - 1 / n_trials)
    tail = EULER_GAMMA * _NORMAL.inv_cdf(1 - 1 / (n_trials * math.e))
    return math.sqrt(var_sharpe) * (typical + tail)


def deflated_sharpe_ratio(
    sharpe: npt.ArrayLike,
    n_obs: npt.ArrayLike,
    n_trials: int,
    var_sharpe: float,
    skew: npt.ArrayLike = 0.0,
    kurtosis: npt.ArrayLike = 3.0,
) -> Any:
    """Probabilistic Sharpe ratio against the best that `n_trials` without skill would show; conventions as there.
    `var_sharpe` (variance across trials) per period. Source: Bailey & López de Prado 2014, equation 2."""
    return probabilistic_sharpe_ratio(sharpe, n_obs, skew, kurtosis, expected_maximum_sharpe(n_trials, var_sharpe))


def minimum_track_record_length(
    sharpe: npt.ArrayLike,
    skew: npt.ArrayLike = 0.0,
    kurtosis: npt.ArrayLike = 3.0,
    benchmark: npt.ArrayLike = 0.0,
    alpha: npt.ArrayLike = 0.05,
) -> Any:
    """Observations after which the probabilistic Sharpe ratio reaches 1 − alpha if the estimates stay:
    1 + (1 − γ₃·SR + (γ₄ − 1)/4·SR²)·(Φ⁻¹(1 − α) / (SR − SR*))². The benchmark per period. Infinite when
    `sharpe` does not exceed `benchmark`. Source: Bailey & López de Prado 2012, equation 13."""
    return _each(_track_record, sharpe, skew, kurtosis, benchmark, alpha)


def _each(formula: Callable[..., float], *arguments: npt.ArrayLike) -> Any:
    """A formula of numbers, for each place of arrays that broadcast."""
    if all(np.ndim(argument) == 0 for argument in arguments):
        return formula(*map(float, arguments))  # pyright: ignore[reportArgumentType]
    places = np.broadcast(*arguments)
    return np.fromiter((formula(*map(float, place)) for place in places), np.float64, places.size).reshape(places.shape)


def _variance(sharpe: float, skew: float, kurtosis: float) -> float:
    """Of the estimate, times n − 1."""
    return 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2


def _standard_error(sharpe: float, n_obs: float, skew: float, kurtosis: float) -> float:
    variance = _variance(sharpe, skew, kurtosis)
    return math.sqrt(variance / (n_obs - 1)) if variance > 0 and n_obs >= 2 else NAN


def _probabilistic(sharpe: float, n_obs: float, skew: float, kurtosis: float, benchmark: float) -> float:
    variance = _variance(sharpe, skew, kurtosis)
    if not variance > 0 or not n_obs >= 2:
        return NAN
    return _NORMAL.cdf((sharpe - benchmark) * math.sqrt(n_obs - 1) / math.sqrt(variance))


def _track_record(sharpe: float, skew: float, kurtosis: float, benchmark: float, alpha: float) -> float:
    variance = _variance(sharpe, skew, kurtosis)
    if math.isnan(benchmark) or not variance > 0:
        return NAN
    if sharpe <= benchmark:
        return math.inf
    return 1 + variance * (_NORMAL.inv_cdf(1 - alpha) / (sharpe - benchmark)) ** 2
