"""Return series as the metrics read them: one or many, NaN rows stepped over, each pass made once and remembered.

`metrics` takes plain arrays and wraps them itself; wrap them here, and hand the result to several metrics, to share
the passes: `series = ReturnSeries(returns); sharpe_ratio(series, 252); max_drawdown(series)`."""

from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
NAN = float("nan")


class Moments(NamedTuple):
    """Float64 (series,): rows that are not NaN, their mean, std (ddof 1; 0 for a constant), population skewness and
    raw kurtosis, Π(1 + r), and the lowest that product was, the start of 1 included. NaN for too few rows."""

    n_obs: FloatArray
    mean: FloatArray
    std: FloatArray
    skewness: FloatArray
    kurtosis: FloatArray
    wealth: FloatArray
    poorest: FloatArray


class Partial(NamedTuple):
    """Float64 (series,) about one required return: Σ above, Σ below, Σ below², and the counts of rows."""

    gains: FloatArray
    losses: FloatArray
    squares: FloatArray
    above: FloatArray
    below: FloatArray


class Drawdowns(NamedTuple):
    """Float64 (series,): rows, deepest, Σ depth, Σ depth², longest and current time under water."""

    n_obs: FloatArray
    deepest: FloatArray
    total: FloatArray
    squares: FloatArray
    longest: FloatArray
    current: FloatArray


class Joint(NamedTuple):
    """Float64 (series,) of rows where both are known: count, means, population variances, covariance, and the mean
    and population variance of the difference."""

    n_obs: FloatArray
    mean: FloatArray
    benchmark_mean: FloatArray
    variance: FloatArray
    benchmark_variance: FloatArray
    covariance: FloatArray
    active_mean: FloatArray
    active_variance: FloatArray


class ReturnSeries:
    """Simple per-period returns, shape (periods,) or (…, periods), oldest first, fractions; not to be written to
    while this is used. ValueError for a single number, which has no time axis, and for infinite rows: they come from a
    price of 0, and a drawdown or a mean that passes over them would flatter."""

    def __init__(self, returns: npt.ArrayLike) -> None:
        values = np.asarray(returns, dtype=np.float64)
        if values.ndim == 0:
            raise ValueError(f"returns={returns!r} is one number; a series has its periods along the last axis")
        if np.isinf(values).any():
            raise ValueError(f"{np.count_nonzero(np.isinf(values))} infinite returns: mend the prices, or say NaN")
        self.shape = values.shape[:-1]
        self.rows = _rows(values)
        self._partial: dict[float, Partial] = {}
        self._depths: dict[bool, FloatArray] = {}
        self._drawdowns: dict[bool, Drawdowns] = {}
        self._autocorrelations: dict[int, FloatArray] = {}
        self._joint: tuple[object, Joint] | None = None

    def answer(self, values: FloatArray) -> Any:
        """One number for each series: a float for one series, an array of the leading shape for many."""
        return values.reshape(self.shape) if self.shape else float(values[0])

    def paths(self, values: FloatArray) -> FloatArray:
        """One number for each row: of the rows that are not NaN for one series, NaN in their place for many."""
        return values.reshape(*self.shape, values.shape[1]) if self.shape else values[0][~np.isnan(self.rows[0])]

    @cached_property
    def moments(self) -> Moments:
        from odin_core.evaluation.passes import central_moments

        count, mean, second, third, fourth, wealth, poorest = central_moments(self.rows).T
        std = np.sqrt(ratio(count * second, count - 1))
        return Moments(count, mean, std, ratio(third, second**1.5), ratio(fourth, second**2), wealth, poorest)

    @cached_property
    def ascending(self) -> FloatArray:
        """(series, periods): each series' rows in ascending order, NaN last."""
        return np.sort(self.rows, axis=1)

    def quantile(self, level: float) -> FloatArray:
        """(series,): linear interpolation between the neighbouring order statistics, numpy's default."""
        if not 0 <= level <= 1:
            raise ValueError(f"level={level}: a quantile's level lies between 0 and 1")
        count = self.moments.n_obs
        place = np.maximum(count - 1, 0) * level
        below = place.astype(np.int64)
        if not self.rows.shape[1]:
            return np.full(len(count), NAN)
        low = np.take_along_axis(self.ascending, below[:, None], 1)[:, 0]
        above = np.minimum(below + 1, np.maximum(count - 1, 0)).astype(np.int64)
        high = np.take_along_axis(self.ascending, above[:, None], 1)[:, 0]
        share = place - below
        return np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))

    def partial(self, required: float) -> Partial:
        from odin_core.evaluation.passes import partial_moments

        if required not in self._partial:
            self._partial[required] = Partial(*partial_moments(self.rows, float(required)).T)
        return self._partial[required]

    def depths(self, compounded: bool) -> FloatArray:
        """(series, periods): wealth against its highest so far, NaN where the row is."""
        from odin_core.evaluation.passes import drawdown_paths

        if compounded not in self._depths:
            self._depths[compounded] = drawdown_paths(self.rows, compounded)
        return self._depths[compounded]

    def drawdowns(self, compounded: bool) -> Drawdowns:
        from odin_core.evaluation.passes import drawdown_summary

        if compounded not in self._drawdowns:
            self._drawdowns[compounded] = Drawdowns(*drawdown_summary(self.depths(compounded)).T)
        return self._drawdowns[compounded]

    def autocorrelations(self, lags: int) -> FloatArray:
        """(series, lags), with the rows 1 … `lags` rows earlier."""
        from odin_core.evaluation.passes import autocorrelations

        if lags < 1:
            raise ValueError(f"{lags} lags: a return is compared with one at least one row earlier")
        if lags not in self._autocorrelations:
            self._autocorrelations[lags] = autocorrelations(self.rows, lags)
        return self._autocorrelations[lags]

    def beside(self, benchmark: npt.ArrayLike) -> FloatArray:
        """A benchmark as rows, (1, periods) for all or (series, periods); ValueError for any other shape."""
        values, periods = np.asarray(benchmark, dtype=np.float64), self.rows.shape[1]
        if values.shape not in ((periods,), (*self.shape, periods)):
            raise ValueError(
                f"a benchmark of shape {values.shape} for returns of shape {(*self.shape, periods)}: "
                f"it has their shape, or that of one series, ({periods},)"
            )
        return _rows(values)

    def joint(self, benchmark: npt.ArrayLike) -> Joint:
        """With a benchmark of the same periods: one for all, or one for each series."""
        from odin_core.evaluation.passes import joint_moments

        if self._joint is None or self._joint[0] is not benchmark:
            self._joint = (benchmark, Joint(*joint_moments(self.rows, self.beside(benchmark)).T))
        return self._joint[1]


def _rows(values: FloatArray) -> FloatArray:
    """(series, periods) as the passes are compiled for: C order, and writeable, which columns of a table are not."""
    flat = np.require(values, requirements=["C_CONTIGUOUS", "WRITEABLE"])
    return flat.reshape(int(np.prod(values.shape[:-1])), values.shape[-1])


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """Numerator / denominator where the denominator is above 0, NaN elsewhere; shape (series,)."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    with np.errstate(over="ignore"):  # infinite where the denominator is next to nothing
        return np.divide(top, bottom, out=np.full(bottom.shape, NAN), where=bottom > 0)
