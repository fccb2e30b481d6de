"""Black's formula for European options on a forward (Black 1976), and the volatility that a price implies.

Everything is vectorised and broadcasts; prices, forwards and strikes are in one currency, `years` is the time to expiry
in years, `rate` per year and continuously compounded, a volatility per square root of a year (0.2 is 20 %)."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LOWEST, HIGHEST = 1e-9, 40.0  # volatility times √years, which is searched
STEPS = 100
DIGITS = 1e-15
TOLERANCE = 1e-14  # of the logarithm of the price, and relative of the volatility


def price(
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    years: npt.ArrayLike,
    rate: npt.ArrayLike,
    volatility: npt.ArrayLike,
    is_call: npt.ArrayLike,
) -> FloatArray:
    """Price today: e^(−rate·years) times F·N(d1) − K·N(d2) for a call, K·N(−d2) − F·N(−d1) for a put, with
    d1 = ln(F/K)/s + s/2, d2 = d1 − s, s = volatility·√years. Without time or volatility it is the discounted intrinsic
    value. NaN where an argument is NaN, a forward or strike is not positive, or time or volatility is negative.
    Source: Black 1976, equation 16. Oracle: Haug, Hull and MathWorks' examples, tests/oracles/test_options.py."""
    f, k, t, r, v, call = np.broadcast_arrays(*_floats(forward, strike, years, rate, volatility), np.asarray(is_call))
    usable = (f > 0) & (k > 0) & (t >= 0) & (v >= 0)
    f, k, t, v = (np.where(usable, values, np.nan) for values in (f, k, t, v))
    sign = np.where(call, 1.0, -1.0)
    intrinsic = np.maximum(sign * (f - k), 0.0)
    return np.exp(-r * t) * (intrinsic + np.sqrt(f * k) * _time_value(np.log(f / k), v * np.sqrt(t)))


def implied_volatility(
    price: npt.ArrayLike,
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    years: npt.ArrayLike,
    rate: npt.ArrayLike,
    is_call: npt.ArrayLike,
) -> FloatArray:
    """The volatility at which Black's formula gives the price. NaN where none does: a price at or below the discounted
    intrinsic value or at or above its limit (the discounted forward for a call, strike for a put), no time left, a
    forward or strike that is not positive, or NaN.

    The price above the intrinsic value, over √(F·K), is brought to its target by Newton's method on logarithms, where
    it is nearly straight however far out of the money, inside a bracket that is halved where a step leaves it. An
    option deep in the money has few digits above its intrinsic value, and its volatility as many.
    Source: normalised as in Jäckel 2015, 'Let's be rational'. Oracle: bisection with 50 digits, tests/oracles."""
    p, f, k, t, r, call = np.broadcast_arrays(*_floats(price, forward, strike, years, rate), np.asarray(is_call))
    usable = (f > 0) & (k > 0) & (t > 0) & np.isfinite([p, f, k, t, r]).all(axis=0)
    result = np.full(p.shape, np.nan)
    if not usable.any():
        return result
    p, f, k, t, r, call = (values[usable] for values in (p, f, k, t, r, call))
    intrinsic = np.maximum(np.where(call, f - k, k - f), 0.0)
    moneyness = np.abs(np.log(f / k))
    undiscounted = p * np.exp(r * t)
    time_value = undiscounted - intrinsic
    digits = time_value > DIGITS * undiscounted  # less is what rounding leaves
    target = np.where(digits, time_value, 0.0) / np.sqrt(f * k)
    result[usable] = _deviation(moneyness, target) / np.sqrt(t)
    return result


def delta(
    forward: npt.ArrayLike,
    strike: npt.ArrayLike,
    years: npt.ArrayLike,
    volatility: npt.ArrayLike,
    is_call: npt.ArrayLike,
) -> FloatArray:
    """Change of the undiscounted price with the forward: N(d1) for a call, N(d1) − 1 for a put. NaN where an argument
    is NaN or not positive."""
    from scipy.special import ndtr

    f, k, t, v, call = np.broadcast_arrays(*_floats(forward, strike, years, volatility), np.asarray(is_call))
    usable = (f > 0) & (k > 0) & (t > 0) & (v > 0)
    f, k, s = np.where(usable, f, 1.0), np.where(usable, k, 1.0), np.where(usable, v * np.sqrt(np.abs(t)), 1.0)
    d1 = np.log(f / k) / s + s / 2
    return np.where(usable, np.where(call, ndtr(d1), -ndtr(-d1)), np.nan)


def _floats(*values: npt.ArrayLike) -> list[FloatArray]:
    return [np.asarray(value, np.float64) for value in values]


def _time_value(log_moneyness: FloatArray, s: FloatArray) -> FloatArray:
    """Value above the intrinsic one over √(F·K), undiscounted; s is volatility times √years. The same for a put."""
    some = s > 0
    value = np.exp(_log_time_value(np.abs(log_moneyness), np.where(some, s, 1.0))[0])
    return np.where(some, value, 0.0 * s)


def _log_time_value(x: FloatArray, s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Logarithm of `_time_value` and its derivative by s, for x = |ln(F/K)|. Differences of the scaled complementary
    error function keep their digits where those of the normal distribution would vanish."""
    from scipy.special import erfcx  # here, because importing it takes a tenth of a second

    h, half = x / s, s / 2
    difference = erfcx((h - half) / np.sqrt(2)) - erfcx((h + half) / np.sqrt(2))
    with np.errstate(divide="ignore"):  # no difference is left where the value is below all floats
        return -(h**2 + half**2) / 2 + np.log(difference / 2), np.sqrt(2 / np.pi) / difference


def _deviation(x: FloatArray, target: FloatArray) -> FloatArray:
    """s with `_time_value(x, s) == target`; NaN where there is none."""
    possible = (target > 0) & (target < np.exp(-x / 2))
    s = np.where(possible, np.maximum(np.sqrt(2 * x), np.minimum(target, 1.0) * np.sqrt(2 * np.pi)), np.nan)
    goal = np.log(np.where(possible, target, 1.0))
    low, high = np.full(s.shape, LOWEST), np.full(s.shape, HIGHEST)
    for _ in range(STEPS):
        value, slope = _log_time_value(x, s)
        error = value - goal
        low, high = np.where(error < 0, s, low), np.where(error > 0, s, high)
        with np.errstate(invalid="ignore"):  # -inf / inf: the bracket is halved
            step = s - error / slope
        inside = (step >= low) & (step <= high)
        following = np.where(error == 0, s, np.where(inside, step, (low + high) / 2))
        done = (np.abs(error) <= TOLERANCE) | (np.abs(following - s) <= TOLERANCE * s) | ~possible
        s = following
        if done.all():
            break
    return np.where(possible, s, np.nan)
