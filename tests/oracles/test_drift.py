"""Drift statistics against published numbers and against scipy. Each case names its source."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from odin_core.monitoring import drift

SAMPLE = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(-50, 50).map(lambda v: round(v, 1)))
COUNTS = hnp.arrays(np.int64, 7, elements=st.integers(0, 40)).filter(lambda c: c.sum() > 0)


def test_the_index_of_given_shares():  # ORACLES
    assert drift.population_stability_index([0.4, 0.3, 0.3], [0.35, 0.25, 0.4]) == pytest.approx(0.04456085, abs=5e-9)


def test_the_index_of_counts():  # ORACLES
    assert drift.population_stability_index([6, 5], [5, 4]) == pytest.approx(0.00041234, abs=5e-9)


def test_the_floor_of_independent_rows():  # ORACLES: max(0.1, χ²₀.₉₉(9)·(1/n + 1/m))
    expected = stats.chi2.ppf(0.99, 9) * (1 / 5000 + 1 / 75)
    assert drift.psi_threshold(n_reference=5000, n_current=75, n_bins=10) == pytest.approx(expected, rel=1e-12)
    assert drift.psi_threshold(100_000, 100_000, 10) == 0.1


def test_a_tenth_alone_misfires_on_small_samples_and_the_floor_does_not():  # DESIGN: 64 % of draws of 75 rows
    rng = np.random.default_rng(5)
    reference = rng.multinomial(5000, [0.1] * 10, 4000)
    index = drift.population_stability_index(reference, rng.multinomial(75, [0.1] * 10, 4000))
    assert (index > 0.1).mean() == pytest.approx(0.64, abs=0.03)
    assert (index > drift.psi_threshold(5000, 75, 10)).mean() < 0.04


@given(COUNTS, COUNTS)
def test_divergences_are_those_of_scipy(then, now):
    p, q = (np.maximum(c / c.sum(), drift.FLOOR) for c in (then, now))
    both = (stats.entropy(p, q), stats.entropy(q, p))  # scipy divides by the sum, which the floor moves a little
    assert drift.kullback_leibler(then, now) == pytest.approx(both[1], abs=1e-4)
    assert drift.population_stability_index(then, now) == pytest.approx(sum(both), abs=2e-4)
    mixed = (p + q) / 2
    expected = (stats.entropy(p, mixed) + stats.entropy(q, mixed)) / 2
    assert drift.jensen_shannon(then, now) == pytest.approx(expected, abs=1e-4)


@given(COUNTS, COUNTS)
def test_chi_square_is_that_of_a_contingency_table(then, now):
    table = np.stack([then, now])[:, (then + now) > 0]
    if table.shape[1] < 2:
        assert np.isnan(drift.chi_square(then, now).statistic)
        return
    expected = stats.chi2_contingency(table, correction=False)
    assert drift.chi_square(then, now) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9, abs=1e-12)


@given(SAMPLE, SAMPLE)
def test_kolmogorov_smirnov_and_wasserstein_are_those_of_scipy(then, now):
    found = drift.kolmogorov_smirnov(then, now)
    assert found.statistic == pytest.approx(stats.ks_2samp(then, now).statistic, abs=1e-12)
    n = then.size * now.size / (then.size + now.size)
    assert found.p_value == pytest.approx(stats.kstwobign.sf(found.statistic * np.sqrt(n)), abs=1e-9)
    assert drift.wasserstein(then, now) == pytest.approx(stats.wasserstein_distance(then, now), abs=1e-9)
