"""Metrics against numbers that others published, against laws, and against slow twins. Each case names its source."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import f1_score

from odin_core.evaluation import metrics as m

NAN = float("nan")
EMPYRICAL = np.array([NAN, 1, 10, -4, 2, 3, 2, 1, -10]) / 100  # empyrical tests/test_stats.py: mixed_returns
EMPYRICAL_WEEKS = np.array([0, 1, 10, -4, 2, 3, 2, 1, -10]) / 100  # there: weekly_returns, monthly_returns
RETURNS = hnp.arrays(np.float64, st.integers(0, 60), elements=st.floats(-0.2, 0.2) | st.just(NAN))
DSR = {"sharpe": 2.5 / math.sqrt(250), "n_obs": 1250, "var_sharpe": 0.5 / 250, "skew": -3, "kurtosis": 10}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(m.sharpe_ratio(EMPYRICAL, 252), 1.7238613961706866, id="sharpe, empyrical"),
        pytest.param(m.sortino_ratio(EMPYRICAL, 252), 2.605531251673693, id="sortino, empyrical"),
        pytest.param(m.annual_volatility(EMPYRICAL, 252), 0.9136465399704637, id="volatility, empyrical"),
        pytest.param(m.max_drawdown(EMPYRICAL), -0.1, id="max drawdown, empyrical"),
        pytest.param(m.value_at_risk([1, 81, 82, 83, 84, 85], 0.1), 41, id="VaR 0.1, empyrical"),
        pytest.param(m.value_at_risk([1, 81, 82, 83, 84, 85], 0.2), 81, id="VaR 0.2, empyrical"),
        pytest.param(m.conditional_value_at_risk([1, 81, 82, 83, 84, 85], 0.2), 41, id="CVaR: (1 + 81) / 2"),
        pytest.param(m.downside_deviation(EMPYRICAL, 252), 0.60448325038829653, id="downside deviation, empyrical"),
        pytest.param(m.downside_deviation(EMPYRICAL, 252, 0.1), 1.7161730681956295, id="below 0.1, empyrical"),
        pytest.param(m.downside_deviation(EMPYRICAL_WEEKS, 52), 0.25888650451930134, id="of weeks, empyrical"),
        pytest.param(m.downside_deviation(EMPYRICAL_WEEKS, 52, 0.1), 0.7733045971672482, id="below 0.1, of weeks"),
        pytest.param(m.downside_deviation(EMPYRICAL_WEEKS, 12), 0.1243650540411842, id="of months, empyrical"),
        pytest.param(
            m.information_ratio(EMPYRICAL, np.zeros(9), 1), 0.10859306069076737, id="excess Sharpe over 0, empyrical"
        ),
        pytest.param(
            m.information_ratio(EMPYRICAL, np.full(9, 0.01), 1), -0.06515583641446039, id="over 1 %, empyrical"
        ),
        pytest.param(m.tail_ratio([0.01]), 1.0, id="tail ratio of one return, empyrical"),
        pytest.param(m.tail_ratio([-0.04, 0.0, 0.02], 0.0), 0.5, id="tail ratio: best over worst"),
        pytest.param(m.gain_to_pain([0.1, -0.04, 0.02, -0.02]), 1.0, id="gain to pain: 6 / 6"),
        pytest.param(m.payoff_ratio([0.1, -0.04, 0.02, -0.02]), 2.0, id="payoff: 6 / 3"),
        pytest.param(m.total_return([0.1, -0.5]), -0.45, id="total return: 1.1 · 0.5 − 1"),
        pytest.param(m.average_drawdown([0.1, -0.5, -0.3, 0.8]), -0.3800, id="mean of skfolio's drawdowns"),
        pytest.param(m.ulcer_index([100, 90, 100]), math.sqrt(100 / 3), id="ulcer index in percent, ffn"),
        pytest.param(m.kelly_fraction(0.53), 0.06, id="Kelly at even odds, mlfinlab"),
        pytest.param(m.kelly_fraction(0.5, 2.0), 0.25, id="Kelly: 0.5 − 0.5 / 2"),
        pytest.param(m.omega_ratio([0.1, -0.04, 0.02, -0.02]), 2.0, id="omega: 12 / 6"),
        pytest.param(m.omega_ratio([0.1, -0.04, 0.02, -0.02], 0.02), 0.8, id="omega above 0.02: 8 / 10"),
        pytest.param(m.profit_factor([0.1, -0.04, 0.02, -0.02]), 2.0, id="profit factor: 12 / 6"),
        pytest.param(m.hit_rate([0.1, -0.04, 0.0, NAN]), 1 / 3, id="a zero return is no hit, a NaN no trade"),
        pytest.param(m.expectancy([0.1, -0.04, 0.0, NAN]), 0.02, id="expectancy: 6 / 3"),
        pytest.param(
            m.calmar_ratio([0.1, -0.1, NAN], 2), 0.1 * -0.1 / 0.1, id="a NaN row is no time: one year of −1 %"
        ),
        pytest.param(m.turnover([[0, 0], [1, -0.5], [1, NAN]]), 1.0, id="turnover: (1.5 + 0.5) / 2"),
    ],
)
def test_a_metric_gives_the_published_number(value, expected):
    assert value == pytest.approx(expected, rel=1e-12)


def test_drawdowns_are_those_of_skfolio():
    np.testing.assert_allclose(m.drawdown_series([0.1, -0.5, -0.3, 0.8]), [0, -0.5, -0.65, -0.37], atol=1e-12)


def test_the_starting_capital_is_the_first_peak():
    np.testing.assert_allclose(m.drawdown_series([-0.1, 0.05]), [-0.1, -0.055], atol=1e-12)
    np.testing.assert_allclose(m.drawdown_series([-0.1, 0.05], compounded=False), [-0.1, -0.05], atol=1e-12)


# Bailey & López de Prado 2014, "The deflated Sharpe ratio", their worked example.
def test_the_deflated_sharpe_ratio_of_the_paper():
    assert m.expected_maximum_sharpe(n_trials=100) == pytest.approx(2.5306028932016846, rel=1e-12)
    assert m.expected_maximum_sharpe(100, 0.5 / 250) == pytest.approx(0.113172, abs=5e-7)
    assert m.deflated_sharpe_ratio(**DSR, n_trials=100) == pytest.approx(0.90039683444939034, rel=1e-12)
    assert m.deflated_sharpe_ratio(**DSR, n_trials=46) == pytest.approx(0.9505017, abs=5e-8)


def test_one_trial_deflates_nothing():
    assert m.expected_maximum_sharpe(1) == 0
    plain = m.probabilistic_sharpe_ratio(DSR["sharpe"], 1250, -3, 10)
    assert m.deflated_sharpe_ratio(**DSR, n_trials=1) == plain


def test_the_expected_maximum_is_close_to_the_simulated_one():
    best = np.random.default_rng(1).standard_normal((20_000, 100)).max(axis=1).mean()
    assert m.expected_maximum_sharpe(100) == pytest.approx(best, rel=0.015)


# Bailey & López de Prado 2012, "The Sharpe ratio efficient frontier".
def test_the_probabilistic_sharpe_ratio_of_the_paper():
    psr = m.probabilistic_sharpe_ratio(sharpe=0.458, n_obs=24, skew=0, kurtosis=3, benchmark=0)
    assert psr == pytest.approx(0.98167, abs=5e-6)


def test_a_sharpe_ratio_at_its_benchmark_is_an_even_bet():
    assert m.probabilistic_sharpe_ratio(sharpe=0.1, n_obs=24, skew=-1, kurtosis=7, benchmark=0.1) == 0.5


@pytest.mark.parametrize(("periods", "years"), [(252, 2.73), (52, 2.83), (12, 3.24)])
def test_the_minimum_track_record_of_an_annual_sharpe_of_two_against_one(periods, years):
    """The same paper: 2.73 years of daily, 2.83 of weekly, 3.24 of monthly normal returns at 95 %."""
    length = m.minimum_track_record_length(2 / math.sqrt(periods), benchmark=1 / math.sqrt(periods), alpha=0.05)
    assert length / periods == pytest.approx(years, abs=0.005)


@settings(deadline=None)
@given(st.floats(0.05, 0.5), st.floats(-0.5, 0.5), st.floats(3, 8), st.floats(0.01, 0.3))
def test_at_the_minimum_length_the_probabilistic_sharpe_ratio_is_one_minus_alpha(sharpe, skew, kurtosis, alpha):
    length = m.minimum_track_record_length(sharpe, skew, kurtosis, 0.01, alpha)
    if length > 2:
        psr = m.probabilistic_sharpe_ratio(sharpe, length, skew, kurtosis, 0.01)
        assert psr == pytest.approx(1 - alpha, abs=1e-9)


def test_no_track_record_is_long_enough_for_a_sharpe_below_its_benchmark():
    assert m.minimum_track_record_length(0.1, benchmark=0.1) == math.inf


def test_kelly_maximises_growth():
    """mlfinlab: growth 0.001801 at p = 0.53."""
    stakes = np.linspace(0, 0.2, 2001)
    growth = 0.53 * np.log1p(stakes) + 0.47 * np.log1p(-stakes)
    assert stakes[growth.argmax()] == pytest.approx(m.kelly_fraction(0.53))
    assert growth.max() == pytest.approx(0.001801, abs=5e-7)


@pytest.mark.parametrize("metric", [m.sharpe_ratio, m.sortino_ratio])
@pytest.mark.parametrize("returns", [[0.1] * 7, [0.0] * 5, [0.1], [NAN, NAN], []], ids=str)
def test_a_series_without_spread_has_no_ratio(metric, returns):
    """ffn: NaN, never 1.0."""
    assert math.isnan(metric(returns, 252))


def test_nothing_is_inferred_from_a_missing_sharpe_ratio():
    assert math.isnan(m.probabilistic_sharpe_ratio(NAN, 24))
    assert math.isnan(m.deflated_sharpe_ratio(**{**DSR, "sharpe": NAN}, n_trials=100))
    assert math.isnan(m.minimum_track_record_length(NAN))
    assert math.isnan(m.probabilistic_sharpe_ratio(0.1, 1))


@pytest.mark.parametrize("metric", [m.sortino_ratio, m.calmar_ratio])
def test_without_a_loss_there_is_no_ratio_to_losses(metric):
    assert math.isnan(metric([0.1, 0.2, 0.1], 252))
    assert math.isnan(m.omega_ratio([0.1, 0.2]))
    assert math.isnan(m.profit_factor([0.1, 0.2]))


ANNUAL = [m.sharpe_ratio, m.sortino_ratio, m.annual_volatility, m.annual_return, m.calmar_ratio]
PLAIN = [m.max_drawdown, m.omega_ratio, m.value_at_risk, m.cvar, m.hit_rate, m.profit_factor, m.expectancy]
ALL = [*((lambda r, f=f: f(r, 252)) for f in ANNUAL), *PLAIN]


@pytest.mark.parametrize("metric", ALL)
def test_no_return_gives_no_number(metric):
    assert math.isnan(metric([]))
    assert math.isnan(metric([NAN]))


@pytest.mark.parametrize("metric", ALL)
@settings(deadline=None)
@given(returns=RETURNS)
def test_a_metric_ignores_nan_rows_and_leaves_its_input_alone(metric, returns):
    before = returns.copy()
    np.testing.assert_equal(metric(returns), metric(returns[~np.isnan(returns)]))
    np.testing.assert_array_equal(returns, before)


@settings(deadline=None)
@given(RETURNS)
def test_drawdowns_agree_with_their_loop_twins(returns):
    compounded, summed = [], []
    wealth = peak = 1.0
    total = top = 0.0
    for r in returns[~np.isnan(returns)]:
        wealth *= 1 + r
        peak = max(peak, wealth)
        compounded.append(wealth / peak - 1)
        total += r
        top = max(top, total)
        summed.append(total - top)
    np.testing.assert_allclose(m.drawdown_series(returns), compounded, atol=1e-12)
    np.testing.assert_allclose(m.drawdown_series(returns, compounded=False), summed, atol=1e-12)


@settings(deadline=None)
@given(hnp.arrays(np.float64, st.integers(3, 40), elements=st.floats(-0.2, 0.2)), st.floats(0.1, 10))
def test_sharpe_and_sortino_do_not_depend_on_leverage(returns, leverage):
    for ratio in (m.sharpe_ratio, m.sortino_ratio):
        if np.ptp(returns) > 1e-6 and np.minimum(returns, 0).sum() < -1e-6:
            assert ratio(leverage * returns, 252) == pytest.approx(ratio(returns, 252), rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-0.2, 0.2)), st.floats(0.01, 0.99))
def test_the_mean_beyond_the_value_at_risk_is_never_above_it(returns, level):
    assert m.conditional_value_at_risk(returns, level) <= m.value_at_risk(returns, level) + 1e-15


def test_cvar_is_the_short_name():
    assert m.cvar is m.conditional_value_at_risk


@settings(deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-0.2, 0.2)))
def test_expectancy_is_hits_times_gain_less_misses_times_loss(returns):
    gains, losses = returns[returns > 0], returns[returns < 0]
    by_hand = (gains.sum() if gains.size else 0.0) / returns.size - (
        -losses.sum() if losses.size else 0.0
    ) / returns.size
    assert m.expectancy(returns) == pytest.approx(by_hand, abs=1e-12)


def test_ruin_is_a_loss_of_everything():
    assert m.annual_return([0.1, -1.0, 0.5], 252) == -1.0


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, 12, elements=st.integers(-3, 3).map(float) | st.just(NAN)),
    hnp.arrays(np.float64, 12, elements=st.integers(-3, 3).map(float) | st.just(NAN)),
)
def test_the_information_coefficient_is_spearmans_with_average_ranks(scores, outcomes):
    both = ~(np.isnan(scores) | np.isnan(outcomes))
    x, y = scores[both], outcomes[both]
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert math.isnan(m.information_coefficient(scores, outcomes))
    else:
        expected = stats.spearmanr(x, y).statistic  # pyright: ignore[reportAttributeAccessIssue]
        assert m.information_coefficient(scores, outcomes) == pytest.approx(expected, abs=1e-12)


def test_ranks_do_not_see_a_monotone_change_of_scale():
    x = np.random.default_rng(3).standard_normal(30)
    assert m.information_coefficient(x, np.exp(x)) == 1.0
    assert m.information_coefficient(x, -(x**3)) == -1.0


def test_scores_and_outcomes_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one length"):
        m.information_coefficient([1, 2, 3], [1, 2])


# Lo 2002, "The statistics of Sharpe ratios": for independent normal returns the variance times n is 1 + SR² / 2.
@pytest.mark.parametrize(("sharpe", "times_n"), [(0.5, 1.125), (1.0, 1.5), (2.0, 3.0)])
def test_the_standard_error_of_a_normal_sharpe_ratio_is_los(sharpe, times_n):
    assert m.sharpe_standard_error(sharpe, 61) == pytest.approx(math.sqrt(times_n / 60), rel=1e-12)


def test_the_probabilistic_sharpe_ratio_counts_standard_errors():
    error = m.sharpe_standard_error(0.458, 24, -0.5, 4)
    assert m.probabilistic_sharpe_ratio(0.458, 24, -0.5, 4) == pytest.approx(stats.norm.cdf(0.458 / error), rel=1e-12)


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda rng, shape: rng.normal(0.2, 1, shape), id="normal"),
        pytest.param(lambda rng, shape: 0.3 + rng.standard_t(8, shape), id="fat tails"),
        pytest.param(lambda rng, shape: 0.1 - rng.gamma(4, 0.5, shape) + 2, id="skewed to the left"),
    ],
)
def test_the_standard_error_is_how_far_sharpe_ratios_scatter(draw):
    """Mertens 2002, at the moments of the distribution: 10,000 track records of 400 returns."""
    rng = np.random.default_rng(11)
    records = draw(rng, (10_000, 400))
    many = draw(rng, 2_000_000)
    expected = m.sharpe_standard_error(m.sharpe_ratio(many, 1), 400, m.skewness(many), m.kurtosis(many))
    assert m.sharpe_ratio(records, 1).std() == pytest.approx(expected, rel=0.03)


@given(RETURNS)
def test_skewness_and_kurtosis_are_those_of_scipy(returns):
    r = returns[~np.isnan(returns)]
    if r.size and np.ptp(r) > 1e-6:
        assert m.skewness(returns) == pytest.approx(stats.skew(r), rel=1e-6, abs=1e-9)
        assert m.kurtosis(returns) == pytest.approx(stats.kurtosis(r, fisher=False), rel=1e-6)


@given(hnp.arrays(np.bool_, (2, 25)))
def test_f1_is_that_of_scikit_learn(classes):
    predicted, realised = classes
    expected = f1_score(realised, predicted) if classes.any() else NAN
    assert m.f1_score(predicted, realised) == pytest.approx(expected, nan_ok=True)


def test_the_metrics_load_without_scipy_pandas_or_numba():
    check = "import sys, odin_core.evaluation.metrics; sys.exit(bool({'scipy', 'pandas', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
