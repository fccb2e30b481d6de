"""The stationary bootstrap against its closed forms, second implementations and its own coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from odin_core.evaluation import metrics
from odin_core.evaluation.blocks import optimal_block_length, stationary_indices
from odin_core.evaluation.bootstrap import bootstrap_difference, bootstrap_metric, stationary_bootstrap

PERIODS = 252
PLAIN = {
    "mean": lambda r: float(np.mean(r)),
    "sharpe": lambda r: metrics.sharpe_ratio(r, PERIODS),
    "sortino": lambda r: metrics.sortino_ratio(r, PERIODS),
    "max_drawdown": metrics.max_drawdown,
    "max_drawdown_summed": lambda r: metrics.max_drawdown(r, compounded=False),
}


def autoregressive(phi, n, seed, streams=None):
    """Streams of mean 0 and variance 1 whose neighbours are correlated by phi."""
    noise = np.random.default_rng(seed).normal(size=(streams or 1, n + 60)) * math.sqrt(1 - phi**2)
    for t in range(1, n + 60):
        noise[:, t] += phi * noise[:, t - 1]
    return noise[:, 60:] if streams else noise[0, 60:]


def returns(n=250, seed=3):
    return 0.0006 + 0.01 * autoregressive(0.2, n, seed)


def rng(seed=0):
    return np.random.default_rng(seed)


def published_block_length(x):
    """Politis & White 2004 with the correction of 2009, term by term."""
    n, mean = len(x), sum(x) / len(x)
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    last = min(math.ceil(math.sqrt(n)) + run, n - 1)

    def autocovariance(k):
        return sum((x[i] - mean) * (x[i + abs(k)] - mean) for i in range(n - abs(k))) / n

    def flat_top(t):
        return 1.0 if abs(t) <= 0.5 else 2 * (1 - abs(t)) if abs(t) <= 1 else 0.0

    limit = 2 * math.sqrt(math.log10(n) / n)
    beyond = {k for k in range(1, last + 1) if abs(autocovariance(k) / autocovariance(0)) >= limit}
    quiet = [m for m in range(last - run + 1) if not beyond & set(range(m + 1, m + run + 1))]
    m = quiet[0] if quiet else max(beyond, default=0)
    M = min(2 * max(m, 1), last)
    lags = range(-M, M + 1)
    G = sum(flat_top(k / M) * abs(k) * autocovariance(k) for k in lags)
    spectrum = sum(flat_top(k / M) * autocovariance(k) for k in lags)
    length = (2 * G**2 / (2 * spectrum**2)) ** (1 / 3) * n ** (1 / 3)
    return min(max(length, 1.0), math.ceil(min(3 * math.sqrt(n), n / 3)))


@given(st.integers(6, 90), st.floats(-0.8, 0.95), st.integers(0, 10_000))
def test_the_block_length_is_the_published_one(n, phi, seed):
    x = autoregressive(phi, n, seed)
    assert optimal_block_length(x) == pytest.approx(published_block_length(x.tolist()), rel=1e-6)


@pytest.mark.parametrize("phi", [0.3, 0.6])
def test_blocks_of_an_autoregression_approach_their_closed_form(phi):
    n = 20_000
    found = np.mean([optimal_block_length(x) for x in autoregressive(phi, n, seed=1, streams=40)])
    assert found == pytest.approx((2 * phi / (1 - phi**2)) ** (2 / 3) * n ** (1 / 3), rel=0.1)


def test_blocks_of_independent_sessions_are_short_and_grow_with_dependence():
    streams = [autoregressive(phi, 1260, seed=2, streams=40) for phi in (0, 0.3, 0.7)]
    lengths = [np.mean([optimal_block_length(x) for x in several]) for several in streams]
    assert lengths[0] < 2
    assert lengths[0] < lengths[1] < lengths[2]


def test_the_block_length_ignores_unit_level_and_missing_sessions():
    x = autoregressive(0.5, 300, seed=4)
    length = optimal_block_length(x)
    assert optimal_block_length(100 - 7 * x) == pytest.approx(length)
    assert optimal_block_length(np.insert(x, [0, 17, 300], np.nan)) == length
    assert optimal_block_length(np.full(50, 0.01)) == 1.0
    assert optimal_block_length([0.1, 0.2]) == 1.0


@given(st.integers(1, 40), st.integers(1, 150), st.floats(1, 30), st.integers(0, 100))
def test_paths_are_rows_of_the_series_and_the_same_for_the_same_generator(n, n_paths, block, seed):
    rows = stationary_indices(n, n_paths, block=block, rng=rng(seed))
    assert rows.shape == (n_paths, n)
    assert rows.min() >= 0
    assert rows.max() < n
    fewer = (n_paths + 1) // 2  # paths of a shorter draw are the first ones of a longer
    assert rows[:fewer].tolist() == stationary_indices(n, fewer, block=block, rng=rng(seed)).tolist()


def test_blocks_have_the_asked_mean_length_and_start_anywhere():
    n, block = 400, 8.0
    rows = stationary_indices(n, 3_000, block=block, rng=rng())
    breaks = np.diff(rows, axis=1) % n != 1
    assert 1 / breaks.mean() == pytest.approx(block / (1 - 1 / n), rel=0.01)  # one new start in n goes on by chance
    starts = rows[:, 1:][breaks]
    assert stats.chisquare(np.bincount(starts // 40, minlength=10)).pvalue > 0.001
    assert stats.chisquare(np.bincount(rows[:, 0] // 40, minlength=10)).pvalue > 0.001


@pytest.mark.parametrize("block", [1.0, 4.0, 20.0])
def test_the_spread_of_the_mean_is_politis_and_romanos(block):
    """Politis & Romano 1994, lemma 1: the variance of √n·mean over all paths, given the series."""
    x = autoregressive(0.5, 200, seed=6)
    n, p, centred = len(x), 1 / block, x - x.mean()
    variance = centred @ centred / n
    for k in range(1, n):
        weight = (1 - k / n) * (1 - p) ** k + k / n * (1 - p) ** (n - k)
        variance += 2 * weight * (centred[k:] @ centred[:-k]) / n
    draws = stationary_bootstrap(x, 40_000, metric="mean", block=block, rng=rng())
    assert n * draws.var() == pytest.approx(variance, rel=0.04)
    assert draws.mean() == pytest.approx(x.mean(), abs=5 * math.sqrt(variance / n / 40_000))


@pytest.mark.parametrize("metric", PLAIN)
@given(st.integers(1, 60), st.sampled_from([0.1, 2.0]), st.integers(0, 1_000))
def test_compiled_metrics_are_the_metrics_of_each_path(metric, n, scale, seed):
    x = np.round(rng(seed).normal(0.1, 1, n), 1) * scale  # coarse: some paths are constant, or lose nothing, or all
    fast = stationary_bootstrap(x, 20, metric=metric, periods=PERIODS, block=2.5, rng=rng(seed))
    slow = stationary_bootstrap(x, 20, metric=PLAIN[metric], block=2.5, rng=rng(seed))
    paths = x[stationary_indices(n, 20, block=2.5, rng=rng(seed))]
    np.testing.assert_allclose(slow, [PLAIN[metric](path) for path in paths])
    np.testing.assert_allclose(fast, slow, rtol=1e-9, atol=1e-13)


def test_percentile_and_basic_intervals_follow_from_the_paths():
    x = returns()
    draws = stationary_bootstrap(x, 2_000, metric="sharpe", periods=PERIODS, rng=rng(5))
    low, high = np.quantile(draws, [0.05, 0.95])
    options = {"periods": PERIODS, "level": 0.9, "n_paths": 2_000}
    percentile = bootstrap_metric(x, "sharpe", method="percentile", rng=rng(5), **options)
    basic = bootstrap_metric(x, "sharpe", method="basic", rng=rng(5), **options)
    assert percentile.estimate == pytest.approx(metrics.sharpe_ratio(x, PERIODS))
    assert (percentile.lower, percentile.upper) == pytest.approx((low, high))
    assert (basic.lower, basic.upper) == pytest.approx((2 * basic.estimate - high, 2 * basic.estimate - low))
    assert percentile.standard_error == pytest.approx(draws.std(ddof=1))
    assert percentile.block == optimal_block_length(x)
    assert (percentile.sessions, percentile.defined) == (250, 1.0)


@pytest.mark.parametrize("metric", ["mean", "sharpe"])
def test_without_blocks_bca_is_scipys(metric):
    x = rng(8).gamma(1.5, 1.0, 80)
    ours = bootstrap_metric(x, metric, method="bca", block=1, n_paths=40_000, rng=rng(1))
    theirs = stats.bootstrap(
        (x,),
        (lambda s, axis: s.mean(axis)) if metric == "mean" else (lambda s, axis: s.mean(axis) / s.std(axis, ddof=1)),
        n_resamples=40_000,
        rng=rng(2),
    ).confidence_interval
    assert (ours.lower, ours.upper) == pytest.approx((theirs.low, theirs.high), abs=0.04 * (theirs.high - theirs.low))


def test_missing_sessions_are_left_out_and_the_same_seed_gives_the_same_interval():
    x = returns()
    whole = bootstrap_metric(x, rng=rng(), n_paths=500)
    assert bootstrap_metric(np.insert(x, [0, 9, 250], np.nan), rng=rng(), n_paths=500) == whole
    assert bootstrap_metric(x, rng=rng(1), n_paths=500) != whole


@pytest.mark.parametrize(
    ("series", "metric"),
    [
        pytest.param([], "sharpe", id="no session"),
        pytest.param(returns(9), "mean", id="nine sessions"),
        pytest.param(np.full(40, 0.01), "sharpe", id="constant"),
        pytest.param(np.append(np.full(39, 0.01), 0.02), "sharpe", id="constant on most paths"),
        pytest.param(np.abs(returns(40)), "sortino", id="no loss"),
        pytest.param(np.arange(40), lambda r: float(np.all(np.diff(r) > 0)), id="every path on one side"),
    ],
)
def test_what_cannot_be_answered_has_no_bounds(series, metric):
    interval = bootstrap_metric(series, metric, rng=rng(), n_paths=400)
    assert math.isnan(interval.lower)
    assert math.isnan(interval.upper)


def test_a_comparison_of_too_few_sessions_has_no_bound():
    for n in (0, 9):
        answer = bootstrap_difference(np.arange(n) + 1.0, np.arange(n), "mean", rng=rng(), n_paths=100)
        assert math.isnan(answer.lower)
        assert math.isnan(answer.p_value)


@pytest.mark.parametrize("metric", PLAIN)
def test_a_tie_keeps_the_incumbent(metric):
    x = returns()
    answer = bootstrap_difference(x, x, metric, rng=rng(), n_paths=300)
    assert (answer.difference, answer.lower, answer.p_value) == (0.0, 0.0, 1.0)


@given(st.floats(0.1, 10))
def test_the_incumbent_with_leverage_is_no_better(leverage):
    x = returns(60)
    answer = bootstrap_difference(leverage * x, x, "sharpe", rng=rng(), n_paths=100)
    assert (answer.difference, answer.lower, answer.p_value) == (0.0, 0.0, 1.0)


def test_a_sure_gain_on_every_session_is_seen_through_shared_noise():
    market = 0.05 * autoregressive(0.0, 120, seed=1)
    answer = bootstrap_difference(market + 0.001, market, "mean", alpha=0.01, rng=rng(), n_paths=999)
    assert answer.difference == pytest.approx(0.001)
    assert answer.lower == pytest.approx(0.001)
    assert answer.p_value == 0.001
    assert bootstrap_metric(market + 0.001, "mean", rng=rng()).lower < 0  # alone it is lost in the noise


def test_only_sessions_that_both_have_are_compared():
    ours, theirs = returns(seed=1), returns(seed=2)
    gaps, others = ours.copy(), theirs.copy()
    gaps[[3, 50]], others[[50, 99]] = np.nan, np.nan
    kept = np.delete(np.arange(250), [3, 50, 99])
    with_gaps = bootstrap_difference(gaps, others, rng=rng(), n_paths=300)
    assert with_gaps == bootstrap_difference(ours[kept], theirs[kept], rng=rng(), n_paths=300)
    assert with_gaps.sessions == 247


@given(st.integers(0, 300), st.floats(-0.4, 0.4), st.sampled_from([0.01, 0.05, 0.2]))
def test_bound_and_p_value_say_the_same(seed, gain, alpha):
    noise = rng(seed).normal(size=(2, 60))
    answer = bootstrap_difference(noise[0] + gain, noise[1], "sharpe", alpha=alpha, rng=rng(seed), n_paths=499)
    if answer.p_value < alpha - 1.5 / 500:
        assert answer.lower > 0
    if answer.p_value > alpha + 1.5 / 500:
        assert answer.lower <= 0


def test_the_difference_is_that_of_the_paths():
    ours, theirs = returns(seed=1), returns(seed=2)
    rows = stationary_indices(250, 400, block=5, rng=rng())
    draws = [metrics.sharpe_ratio(ours[r], PERIODS) - metrics.sharpe_ratio(theirs[r], PERIODS) for r in rows]
    answer = bootstrap_difference(ours, theirs, periods=PERIODS, alpha=0.1, block=5, n_paths=400, rng=rng())
    assert answer.lower == pytest.approx(2 * answer.difference - np.quantile(draws, 0.9))
    assert answer.p_value == pytest.approx((1 + sum(d >= 2 * answer.difference for d in draws)) / 401)
    assert answer.difference == answer.candidate - answer.incumbent


@pytest.mark.parametrize(("phi", "n", "least", "most"), [(0.0, 120, 0.92, 0.98), (0.3, 120, 0.86, 0.95)])
def test_intervals_cover_the_truth_about_as_often_as_stated(phi, n, least, most):
    streams = autoregressive(phi, n, seed=7, streams=400) + 0.1
    found = [bootstrap_metric(x, "sharpe", n_paths=400, rng=rng(i)) for i, x in enumerate(streams)]
    covered = np.mean([i.lower <= 0.1 <= i.upper for i in found])
    assert least <= covered <= most


def test_an_equal_candidate_is_seldom_called_better_and_a_better_one_often():
    incumbent = autoregressive(0.0, 120, seed=9, streams=300) + 0.1
    own = autoregressive(0.0, 120, seed=10, streams=300) + 0.1
    candidate = 0.1 + 0.6 * (incumbent - 0.1) + 0.8 * (own - 0.1)

    def share(gain):
        pairs = enumerate(zip(candidate + gain, incumbent, strict=True))
        return np.mean([bootstrap_difference(c, i, n_paths=400, rng=rng(k)).lower > 0 for k, (c, i) in pairs])

    assert 0.01 <= share(0.0) <= 0.09
    assert share(0.3) > 0.9


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda x: bootstrap_metric(x, "sharp", rng=rng()), "did you mean sharpe"),
        (lambda x: bootstrap_metric(x, method="bias", rng=rng()), "method='bias'"),
        (lambda x: bootstrap_metric(x, level=95, rng=rng()), "level=95"),
        (lambda x: bootstrap_difference(x, x, alpha=0, rng=rng()), "alpha=0"),
        (lambda x: bootstrap_difference(x, x[1:], rng=rng()), "one row per session"),
        (lambda x: stationary_bootstrap(x, block=0.5, rng=rng()), "block=0.5"),
        (lambda x: stationary_bootstrap(x, 0, rng=rng()), "n_paths=0"),
        (lambda x: stationary_bootstrap(np.append(x, np.inf), rng=rng()), "infinite"),
        (lambda x: stationary_bootstrap(x[:, None], rng=rng()), "one series at a time"),
        (lambda x: stationary_indices(0, 5, block=1, rng=rng()), "empty"),
    ],
)
def test_what_makes_no_sense_is_refused(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call(returns(30))


@pytest.mark.parametrize("method", ["percentile", "basic", "bca"])
def test_a_metric_that_is_no_number_on_many_paths_has_no_bounds(method):
    mostly_flat = np.append(np.full(39, 0.01), 0.02)  # every third path misses the one that differs
    interval = bootstrap_metric(mostly_flat, "sharpe", method=method, rng=rng(), n_paths=400)
    assert 0.5 < interval.defined < 0.75
    assert math.isnan(interval.lower)
    assert math.isnan(interval.upper)
