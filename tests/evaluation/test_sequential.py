"""The bounds that the gate looks at every week: their algebra, their error without an effect, their power with one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from odin_core.evaluation.sequential import (
    boundary,
    cluster_mean_interval,
    lower_confidence_sequence,
    sessions_to_detection,
    spend,
    tightest_rho,
    upper_confidence_sequence,
)

STREAMS, SESSIONS = 4_000, 120
DIFFERENCES = hnp.arrays(
    np.float64, st.integers(0, 40), elements=st.floats(-1, 1).map(lambda v: round(v, 4)) | st.just(math.nan)
)


def bound_by_hand(values: list[float], alpha: float, rho: float) -> float:
    """The docstring's equation for all values of one stream at once, from textbook moments."""
    v = np.array(values)
    t = len(v)
    mean, std = v.mean(), v.std(ddof=1)
    skew = t / ((t - 1) * (t - 2)) * (((v - mean) / std) ** 3).sum()
    c = math.sqrt(2 * (t * rho**2 + 1) / (t * rho**2) * math.log(1 + math.sqrt(t * rho**2 + 1) / (2 * alpha)))
    x = c + max(0.0, -skew) * (2 * c**2 + 1) / (6 * math.sqrt(t))
    return mean - std * x / math.sqrt(t)


@settings(deadline=None)
@given(DIFFERENCES)
def test_the_bounds_agree_with_the_equation_worked_out_session_by_session(differences):
    bounds = lower_confidence_sequence(differences, 0.05, 0.3)
    for t in range(len(differences)):
        seen = [v for v in differences[: t + 1] if not math.isnan(v)]
        if len(seen) < 10 or max(seen) - min(seen) == 0:
            assert bounds[t] == -math.inf
        else:
            assert bounds[t] == pytest.approx(bound_by_hand(seen, 0.05, 0.3), rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(DIFFERENCES, st.integers(0, 39))
def test_a_bound_does_not_change_when_the_future_is_cut_off(differences, cut):
    whole = lower_confidence_sequence(differences, 0.05)
    np.testing.assert_array_equal(lower_confidence_sequence(differences[:cut], 0.05), whole[:cut])


def test_many_streams_at_once_are_the_streams_one_by_one():
    d = np.random.default_rng(2).standard_normal((5, 30))
    d[1, :4] = d[3, 7] = np.nan
    together = lower_confidence_sequence(d, 0.05)
    np.testing.assert_array_equal(together, [lower_confidence_sequence(row, 0.05) for row in d])


def test_a_bound_moves_with_the_unit_and_the_level_of_its_stream():
    d = np.random.default_rng(3).standard_normal(40)
    plain = lower_confidence_sequence(d, 0.05)
    np.testing.assert_allclose(lower_confidence_sequence(1e-4 * d + 7e-4, 0.05)[9:], 1e-4 * plain[9:] + 7e-4)


def test_the_upper_bounds_mirror_the_lower_ones():
    d = np.random.default_rng(4).standard_exponential(40)
    np.testing.assert_array_equal(upper_confidence_sequence(d, 0.05), -lower_confidence_sequence(-d, 0.05))
    assert (upper_confidence_sequence(d, 0.05) > lower_confidence_sequence(d, 0.05)).all()


def test_a_session_without_an_outcome_repeats_the_bound_before_it():
    d = np.random.default_rng(5).standard_normal(30)
    with_gap = lower_confidence_sequence(np.insert(d, 20, np.nan), 0.05)
    assert with_gap[20] == with_gap[19]
    np.testing.assert_array_equal(np.delete(with_gap, 20), lower_confidence_sequence(d, 0.05))


def test_left_skew_widens_a_bound_and_right_skew_does_not_narrow_it():
    gains = np.random.default_rng(6).standard_exponential(60)
    gains = (gains - gains.mean()) / gains.std(ddof=1)
    symmetric = -boundary(60, 0.05, 0.3) / math.sqrt(60)
    assert lower_confidence_sequence(-gains, 0.05, 0.3)[-1] < symmetric
    assert lower_confidence_sequence(gains, 0.05, 0.3)[-1] == pytest.approx(symmetric)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e-7])
def test_equal_differences_prove_nothing(value):
    assert (lower_confidence_sequence(np.full(50, value), 0.05) == -math.inf).all()


def test_no_bound_is_finite_before_the_burn_in():
    bounds = lower_confidence_sequence(np.random.default_rng(7).standard_normal(30) + 9, 0.05, burn_in=12)
    assert np.isinf(bounds[:11]).all()
    assert np.isfinite(bounds[11:]).all()


@pytest.mark.parametrize("alpha", [0.05, 0.025, 0.003])
def test_the_default_rho_is_tightest_around_sixty_sessions(alpha):
    widths = [float(boundary(60, alpha, rho)) for rho in np.linspace(0.05, 2, 400)]
    assert float(boundary(60, alpha, tightest_rho(alpha))) <= 1.01 * min(widths)


def null_streams(kind: str) -> np.ndarray:
    rng = np.random.default_rng(20230102)
    if kind == "t4":
        return rng.standard_t(4, (STREAMS, SESSIONS))
    if kind == "volatility":
        steps = 0.1 * rng.standard_normal((STREAMS, SESSIONS))
        return np.exp(np.cumsum(steps, axis=1)) * rng.standard_normal((STREAMS, SESSIONS))
    return rng.standard_normal((STREAMS, SESSIONS))


@pytest.mark.parametrize("alpha", [0.05, 0.025])
@pytest.mark.parametrize("kind", ["normal", "t4", "volatility"])
def test_without_an_effect_no_more_than_alpha_of_the_streams_ever_cross(kind, alpha):
    d = null_streams(kind)
    assert np.mean((lower_confidence_sequence(d, alpha) > 0).any(axis=1)) <= alpha
    assert np.mean((upper_confidence_sequence(d, alpha) < 0).any(axis=1)) <= alpha


def test_a_fixed_interval_looked_at_every_session_would_err_far_more_often():
    d = null_streams("normal")
    t = np.arange(1, SESSIONS + 1)
    fixed = np.cumsum(d, axis=1) / t - 1.645 / np.sqrt(t)
    assert np.mean((fixed[:, 9:] > 0).any(axis=1)) > 0.15


@pytest.mark.parametrize(
    ("alpha", "effect", "median", "share"),
    [(0.05, 0.3, 66, 0.79), (0.05, 0.45, 33, 0.99), (0.025, 0.45, 39, 0.98), (0.025, 0.6, 24, 1.0)],
)
def test_an_effect_is_found_in_the_stated_number_of_sessions(alpha, effect, median, share):
    crossed = lower_confidence_sequence(null_streams("normal") + effect, alpha) > 0
    first = np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1.0, np.inf)
    assert np.median(first) == pytest.approx(median, abs=3)
    assert np.isfinite(first).mean() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(("effect", "alpha", "sessions"), [(0.3, 0.05, 87), (0.45, 0.025, 46), (0.6, 0.0125, 31)])
def test_the_table_of_sessions_to_detection_holds(effect, alpha, sessions):
    assert sessions_to_detection(effect, alpha) == sessions
    rho = tightest_rho(alpha)
    assert effect * math.sqrt(sessions) > boundary(sessions, alpha, rho)
    assert effect * math.sqrt(sessions - 1) <= boundary(sessions - 1, alpha, rho)


def test_an_effect_of_nothing_is_never_detected():
    assert sessions_to_detection(0.0, 0.05) is None


@settings(deadline=None)
@given(st.floats(0.001, 0.5), st.integers(1, 60))
def test_all_hypotheses_together_spend_less_than_the_whole_error(alpha, hypotheses):
    spent = [spend(alpha, j) for j in range(1, hypotheses + 1)]
    assert spent[0] == alpha / 2
    assert sum(spent) <= alpha


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: spend(0.05, 0), id="hypothesis 0"),
        pytest.param(lambda: spend(1.5, 1), id="error above 1"),
        pytest.param(lambda: lower_confidence_sequence([1.0, 2.0], 0.0), id="no error at all"),
        pytest.param(lambda: lower_confidence_sequence([1.0, 2.0], 0.05, 0.0), id="rho 0"),
        pytest.param(lambda: lower_confidence_sequence([1.0, math.inf], 0.05), id="an infinite outcome"),
        pytest.param(lambda: lower_confidence_sequence([1.0, 2.0], 0.05, burn_in=2), id="burn-in below 3"),
        pytest.param(lambda: cluster_mean_interval([1.0, 2.0], [1]), id="rows and clusters differ"),
    ],
)
def test_arguments_without_meaning_are_refused(call):
    with pytest.raises(ValueError, match=r"alpha|rho|infinite|burn_in|hypotheses|length"):
        call()


def test_with_one_row_a_cluster_the_interval_is_students():
    """Student 1908, table of additional hours of sleep, drug 2: mean 2.33, standard deviation 2.002, ten patients.
    t(0.975, 9) = 2.262 from the printed tables."""
    sleep = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    interval = cluster_mean_interval(sleep, range(10))
    half = 2.262157 * np.std(sleep, ddof=1) / math.sqrt(10)
    assert interval == pytest.approx((2.33, 2.33 - half, 2.33 + half, 10), rel=1e-6)


def test_the_clustered_interval_is_that_of_a_regression_on_a_constant():
    statsmodels = pytest.importorskip("statsmodels.regression.linear_model", reason="statsmodels is the second opinion")
    rng = np.random.default_rng(8)
    session = rng.integers(0, 9, 80)
    values = rng.standard_normal(80) + 0.5 * session
    fit = statsmodels.OLS(values, np.ones(80)).fit(
        cov_type="cluster", cov_kwds={"groups": session, "use_correction": False}, use_t=True
    )
    interval = cluster_mean_interval(values, session)
    assert interval.mean == pytest.approx(fit.params[0])
    expected = fit.bse[0] * math.sqrt(9 / 8) * 2.306004  # t(0.975, 8)
    assert interval.upper - interval.mean == pytest.approx(expected, rel=1e-6)


def test_copies_of_a_row_inside_its_cluster_add_no_certainty():
    values, session = np.array([0.3, -0.2, 0.5, 0.1]), np.arange(4)
    assert cluster_mean_interval(np.repeat(values, 50), np.repeat(session, 50)) == pytest.approx(
        cluster_mean_interval(values, session)
    )


def test_one_cluster_says_nothing_about_the_spread():
    assert cluster_mean_interval([1.0, 2.0, math.nan], ["a", "a", "b"]) == (1.5, -math.inf, math.inf, 1)
    assert math.isnan(cluster_mean_interval([], []).mean)


def test_ninety_five_percent_intervals_hold_the_mean_ninety_five_times_in_a_hundred():
    rng = np.random.default_rng(9)
    session = np.repeat(np.arange(20), 10)
    held = 0
    for _ in range(1_000):
        interval = cluster_mean_interval(rng.standard_normal(20)[session] + rng.standard_normal(200), session)
        held += interval.lower <= 0 <= interval.upper
    assert 0.93 <= held / 1_000 <= 0.97
