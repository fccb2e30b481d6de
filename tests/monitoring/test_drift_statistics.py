"""Drift statistics: laws, slow twins, and what they say where nothing can be said."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from odin_core.monitoring import drift

NAN = float("nan")
COUNTS = hnp.arrays(np.int64, (3, 6), elements=st.integers(0, 30))
SERIES = hnp.arrays(np.float64, st.integers(0, 60), elements=st.floats(-5, 5) | st.just(NAN))


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, edges filled with inf, and groups; few distinct values, so that many lie on an edge."""
    columns, rows = draw(st.integers(1, 4)), draw(st.integers(0, 40))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    value = st.sampled_from([NAN, -np.inf, np.inf, *np.linspace(-1, 1, 9)])
    values = draw(hnp.arrays(np.float64, (rows, columns), elements=value)).astype(dtype)
    some = st.lists(st.sampled_from([*list(np.linspace(-1, 1, 17)), 0.1, 1 / 3]), unique=True, max_size=4).map(sorted)
    edges = np.array([[*e, *[np.inf] * (4 - len(e))] for e in (draw(some) for _ in range(columns))])
    group = draw(hnp.arrays(np.int64, rows, elements=st.integers(0, 2)))
    return values, edges, group


@given(tables())
def test_bins_are_those_of_a_search_row_by_row(table):
    values, edges, group = table
    counts = drift.bin_counts(values, edges, group, 3)
    expected = np.zeros((3, values.shape[1], edges.shape[1] + 2), np.int64)
    for i, row in enumerate(values):
        for j, value in enumerate(row.tolist()):
            place = -1 if np.isnan(value) else sum(value > e for e in edges[j])
            expected[group[i], j, place] += 1
    np.testing.assert_array_equal(counts, expected)


def test_two_threads_count_as_one_does():
    values = np.random.default_rng(0).standard_normal((30_001, 11)).astype(np.float32)
    edges = np.tile(np.linspace(-1, 1, 5), (11, 1))
    parts = [drift.bin_counts(values[at : at + 997], edges) for at in range(0, len(values), 997)]
    assert values.size > drift.THREADS_FROM
    np.testing.assert_array_equal(drift.bin_counts(values, edges), np.sum(parts, axis=0))


def test_columns_of_a_frame_in_either_memory_order_give_the_same_and_come_back_untouched():
    values = np.random.default_rng(1).standard_normal((500, 4))
    edges, before = np.tile([-1.0, 0.0, 1.0], (4, 1)), values.copy()
    by_column = np.asfortranarray(values)
    np.testing.assert_array_equal(drift.bin_counts(values, edges), drift.bin_counts(by_column, edges))
    np.testing.assert_array_equal(values, before)


def test_edges_and_groups_that_do_not_fit_are_refused():
    values = np.zeros((3, 2))
    with pytest.raises(ValueError, match="do not fit edges"):
        drift.bin_counts(values, np.zeros((1, 4)))
    with pytest.raises(ValueError, match="from 0 to 1"):
        drift.bin_counts(values, np.zeros((2, 4)), np.array([0, 1, 2]), 2)


@given(COUNTS, COUNTS)
def test_the_index_is_symmetric_never_negative_and_the_same_for_one_pair_or_many(then, now):
    with np.errstate(invalid="ignore"):
        many = drift.population_stability_index(then, now)
        np.testing.assert_allclose(many, drift.population_stability_index(now, then), atol=1e-12)
    for one, p, q in zip(many, then, now, strict=True):
        if p.sum() and q.sum():
            assert one >= 0
            assert one == pytest.approx(drift.population_stability_index(p, q), abs=1e-12)
            assert drift.population_stability_index(p, p * 7) == pytest.approx(0, abs=1e-12)
        else:
            assert np.isnan(one)


@given(st.integers(2, 12), st.floats(0, 4))
def test_jensen_shannon_lies_between_nothing_and_ln_2(bins, power):
    p = np.arange(1, bins + 1) ** power
    assert 0 <= drift.jensen_shannon(p, p[::-1]) <= np.log(2)
    assert drift.jensen_shannon([1, 0], [0, 1]) == pytest.approx(np.log(2), abs=1e-4)


def test_samples_without_a_value_give_nan():
    nothing = np.array([NAN, NAN])
    assert np.isnan(drift.wasserstein(nothing, [1.0]))
    assert all(np.isnan(drift.kolmogorov_smirnov([1.0], nothing)))
    assert np.isnan(drift.population_stability_index([0, 0], [1, 2]))
    assert all(np.isnan(drift.chi_square([5, 0], [7, 0])))


def test_a_sketch_of_quantiles_stands_for_its_sample():
    rng = np.random.default_rng(3)
    then, now = rng.gamma(2, size=20_000), rng.gamma(2.3, size=900)
    sketch = np.quantile(then, (np.arange(100) + 0.5) / 100)
    whole = drift.kolmogorov_smirnov(then, now)
    short = drift.kolmogorov_smirnov(sketch, now, n_reference=then.size)
    assert short.statistic == pytest.approx(whole.statistic, abs=1 / 200 + 1e-3)
    assert drift.wasserstein(sketch, now) == pytest.approx(drift.wasserstein(then, now), abs=0.02)


@given(SERIES, st.integers(1, 6))
def test_the_rolling_z_score_is_that_of_a_loop(series, window):
    found = drift.rolling_z_score(series, window, burn_in=3)
    for t in range(series.size):
        recent, before = (
            v[~np.isnan(v)] for v in (series[max(t - window + 1, 0) : t + 1], series[: max(t - window + 1, 0)])
        )
        if t + 1 < window or recent.size == 0 or before.size < 3:
            assert np.isnan(found[t])
        elif before.std(ddof=1) > 1e-3:
            error = before.std(ddof=1) * np.sqrt(1 / recent.size + 1 / before.size)
            assert found[t] == pytest.approx((recent.mean() - before.mean()) / error, rel=1e-6, abs=1e-6)


def test_the_rolling_z_score_of_many_series_is_that_of_each():
    many = np.random.default_rng(2).standard_normal((4, 50))
    found = drift.rolling_z_score(many, 5)
    for one, z in zip(many, found, strict=True):
        np.testing.assert_allclose(drift.rolling_z_score(one, 5), z)
    with pytest.raises(ValueError, match="at least 1 session"):
        drift.rolling_z_score(many, 0)


def test_missing_rate_and_range():
    values = np.array([[1.0, NAN], [5.0, NAN], [-1.0, 2.0], [NAN, 2.0]])
    np.testing.assert_array_equal(drift.missing_rate(values), [0.25, 0.5])
    np.testing.assert_allclose(drift.out_of_range(values, [0, 2], [4, 2]), [2 / 3, 0])
    assert np.isnan(drift.missing_rate(values[:0])).all()
    assert np.isnan(drift.out_of_range(values[:0], [0, 2], [4, 2])).all()
