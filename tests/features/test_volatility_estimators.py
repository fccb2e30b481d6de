"""Estimators of volatility: their definitions term by term, and what their authors proved of them, on Brownian motion
of known variance with exact extremes between its steps."""

import math
import statistics
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sessionbars import of_bars, random_bars, values

from odin_core.features.catalogue import Feature, named
from odin_core.features.series import Bars, FloatArray, whole_series
from odin_core.features.volatility import Logs, garman_klass, parkinson, rogers_satchell, yang_zhang

ESTIMATORS = {"parkinson": parkinson, "garman_klass": garman_klass, "rogers_satchell": rogers_satchell}
SEEDS = st.integers(0, 2**32 - 1)
BARS, STEPS, SIGMA = 20_000, 60, 0.01


def by_hand(name: str, logs: list[tuple[float, float, float, float]]) -> float:
    """Of a whole window; Yang & Zhang's has a bar more, of which only the close counts."""
    n = len(logs) - (name == "yang_zhang")
    window = logs[-n:]
    inside = statistics.fmean((h - c) * (h - o) + (low - c) * (low - o) for o, h, low, c in window)
    match name:
        case "parkinson":
            variance = math.fsum((h - low) ** 2 for _, h, low, _ in window) / (4 * n * math.log(2))
        case "garman_klass":
            terms = (0.5 * (h - low) ** 2 - (2 * math.log(2) - 1) * (c - o) ** 2 for o, h, low, c in window)
            variance = math.fsum(terms) / n
        case "rogers_satchell":
            variance = inside
        case _:
            gaps = [bar[0] - before[3] for before, bar in zip(logs, window, strict=False)]
            k = 0.34 / (1.34 + (n + 1) / (n - 1))
            body = statistics.variance(c - o for o, _, _, c in window)
            variance = statistics.variance(gaps) + k * body + (1 - k) * inside
    return math.sqrt(variance)


@pytest.mark.parametrize("name", [*ESTIMATORS, "yang_zhang"])
@settings(max_examples=15)
@given(SEEDS, st.integers(2, 33), st.sampled_from([0.0, 0.5, 0.97]))
def test_an_estimate_agrees_with_its_definition(name: str, seed: int, window: int, still: float):
    bars = random_bars(seed, symbols=1, sessions=2, still=still)
    logs = list(zip(*(np.log(x).tolist() for x in (bars.open, bars.high, bars.low, bars.close)), strict=True))
    length = window + (name == "yang_zhang")
    expected = [math.nan] * (length - 1) + [by_hand(name, logs[i - length : i]) for i in range(length, len(bars) + 1)]
    np.testing.assert_allclose(values(named(f"{name}_{window}"), bars), expected, rtol=1e-8, atol=1e-12)


class Market(NamedTuple):
    """Brownian motion, bar by bar: what the estimators are told, and nothing of how it came about."""

    bars: Bars
    total: float  # variance of a bar, gap included


def brownian(*, drift: float = 0.0, gap: float = 0.0, seed: int = 11) -> Market:
    """ln prices of BARS bars with variance SIGMA² and `drift`, each after a jump of deviation `gap`. Highs and lows
    between steps are drawn from the law of the bridge's extremes (Karatzas & Shreve 1991, problem 2.8.9)."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(drift / STEPS, SIGMA / math.sqrt(STEPS), (BARS, STEPS))
    path = np.concatenate([np.zeros((BARS, 1)), np.cumsum(steps, axis=1)], axis=1)
    reach = -2 * SIGMA**2 / STEPS * np.log(rng.random((2, BARS, STEPS)))
    middle = (path[:, 1:] + path[:, :-1]) / 2
    above, below = (middle + side * np.sqrt(steps**2 + reach[s]) / 2 for s, side in enumerate((1, -1)))
    close = np.cumsum(path[:, -1] + (jumps := rng.normal(0, gap, BARS)))
    open_ = close - path[:, -1]
    assert np.allclose(open_[1:] - close[:-1], jumps[1:])
    o, h, low, c = (np.exp(x) for x in (open_, open_ + above.max(axis=1), open_ + below.min(axis=1), close))
    one = random_bars(1, symbols=1, sessions=1, per_session=BARS)
    return Market(replace(one, open=o, high=h, low=low, close=c), SIGMA**2 + gap**2)


def one_by_one(name: str, bars: Bars) -> FloatArray:
    """The estimate of the variance from each bar alone."""
    return ESTIMATORS[name](Logs.of(bars), whole_series(bars), 1) ** 2


def errors(estimates: FloatArray, truth: float) -> float:
    """How many standard errors the mean of independent estimates lies from the truth."""
    return (estimates.mean() - truth) / (estimates.std() / math.sqrt(len(estimates)))


def windows_of(feature: Feature, bars: Bars) -> FloatArray:
    """Squared estimates from windows that have no bar in common."""
    length = feature.bars + 1
    return values(feature, bars)[length - 1 :: length] ** 2


@pytest.mark.parametrize("name", ESTIMATORS)
def test_without_drift_and_gaps_the_range_gives_the_variance(name: str):
    market = brownian()
    assert abs(errors(one_by_one(name, market.bars), market.total)) < 3.5


@pytest.mark.parametrize(("name", "relative_variance"), [
    ("parkinson", 0.407), ("garman_klass", 0.270), ("rogers_satchell", 0.331),
])  # fmt: skip
def test_an_estimator_is_as_efficient_as_its_authors_say(name: str, relative_variance: float):
    """Variance of one bar's estimate over σ⁴; that of the squared return is 2, so that Parkinson's is 4.9, Garman and
    Klass's 7.4 and Rogers and Satchell's 6.0 times better."""
    estimates = one_by_one(name, brownian().bars) / SIGMA**2
    assert estimates.var() == pytest.approx(relative_variance, rel=0.08)


def test_drift_misleads_parkinson_and_garman_klass_but_not_rogers_satchell():
    market = brownian(drift=SIGMA)
    assert errors(one_by_one("parkinson", market.bars), market.total) > 20
    assert errors(one_by_one("garman_klass", market.bars), market.total) > 5
    assert abs(errors(one_by_one("rogers_satchell", market.bars), market.total)) < 3.5


@pytest.mark.parametrize("drift", [0.0, SIGMA])
@pytest.mark.parametrize("gap", [0.0, 0.7 * SIGMA])
def test_yang_zhang_gives_the_variance_whatever_the_drift_and_the_gaps(drift: float, gap: float):
    market = brownian(drift=drift, gap=gap)
    assert abs(errors(windows_of(named("yang_zhang_20"), market.bars), market.total)) < 3.5


def test_what_is_inside_the_bar_misses_the_gaps():
    market = brownian(gap=0.7 * SIGMA)
    for name in ("garman_klass_20", "rogers_satchell_20"):
        assert errors(windows_of(named(name), market.bars), market.total) < -20


def test_yang_zhang_needs_a_seventh_of_the_bars_that_closes_need():
    """Peak efficiency against the variance of closes is 1 + 1/k (Yang & Zhang 2000): about 8.5 for ten bars."""
    market = brownian(gap=0.5 * SIGMA)
    ours = windows_of(named("yang_zhang_10"), market.bars)
    changes = np.diff(np.log(market.bars.close))
    usual = np.array([changes[i : i + 10].var(ddof=1) for i in range(0, len(changes) - 10, 11)])
    assert usual.var() / ours.var() > 6


@settings(max_examples=20)
@given(SEEDS, st.floats(-0.02, 0.02), st.floats(-0.02, 0.02))
def test_a_constant_jump_at_each_open_changes_neither_yang_zhang_nor_what_is_inside_bars(
    seed: int, first: float, second: float
):
    bars = random_bars(seed, symbols=1)
    for name in ("yang_zhang_20", "rogers_satchell_20", "parkinson_20", "garman_klass_20"):
        estimates = []
        for jump in (first, second):
            times = np.exp(jump * np.arange(len(bars)))
            moved = {field: getattr(bars, field) * times for field in ("open", "high", "low", "close")}
            estimates.append(values(named(name), replace(bars, **moved)))
        np.testing.assert_allclose(*estimates, rtol=1e-7)


@pytest.mark.parametrize("feature", [f for f in of_bars("price_action") if "√bar" in f.definition.unit],
                         ids=lambda f: f.name)  # fmt: skip
def test_volatility_of_the_market_is_that_of_the_simulation(feature: Feature):
    market = brownian()
    mean = np.nanmean(values(feature, market.bars) ** 2)
    assert math.sqrt(mean) == pytest.approx(SIGMA, rel=0.03)


def test_a_window_of_one_bar_has_no_variance_of_gaps():
    bars = random_bars(2)
    assert np.isnan(yang_zhang(Logs.of(bars), whole_series(bars), 1)).all()
