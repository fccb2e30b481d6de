"""Scores of probabilities: against scikit-learn and worked numbers, their algebra, and how often their tests err."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import ndtri
from smalllives import climbed

from odin_core.evaluation import calibration
from odin_core.evaluation.calibration import (
    GROUPED,
    TABLE,
    brier_parts,
    brier_score,
    calibration_by,
    calibration_error_by_chance,
    calibration_line,
    expected_calibration_error,
    forecasts_of,
    log_loss,
    maximum_calibration_error,
    reliability_diagram,
    reliability_table,
    wilson_interval,
)

PROBABILITY = st.floats(0, 1) | st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
FORECASTS = st.integers(1, 60).flatmap(
    lambda n: st.tuples(hnp.arrays(np.float64, n, elements=PROBABILITY), hnp.arrays(np.bool_, n))
)


def forecasts(seed: int, sessions: int = 60, each: int = 20, correlation: float = 0.2):
    """Calibrated forecasts between 0.2 and 0.8, outcomes that move together within a session, and the session."""
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(sessions), each)
    p = rng.uniform(0.2, 0.8, session.size)
    common = rng.standard_normal(sessions)[session]
    noise = math.sqrt(correlation) * common + math.sqrt(1 - correlation) * rng.standard_normal(session.size)
    return p, noise < ndtri(p), session


def test_a_forecast_worked_out_by_hand():
    """Four forecasts; the second line of each is the sum written out."""
    p, y = [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]
    assert brier_score(p, y) == pytest.approx((0.01 + 0.16 + 0.4225 + 0.04) / 4)
    assert log_loss(p, y) == pytest.approx(-(math.log(0.9) + math.log(0.6) + math.log(0.35) + math.log(0.8)) / 4)
    assert expected_calibration_error(p, y, 2) == pytest.approx(3 / 4 * abs(1 / 3 - 0.85 / 3) + 1 / 4 * 0.2)
    assert maximum_calibration_error(p, y, 2) == pytest.approx(0.2)
    assert maximum_calibration_error(p, y, 2, fewest=2) == pytest.approx(abs(1 / 3 - 0.85 / 3))


@given(FORECASTS)
def test_brier_score_and_log_loss_are_those_of_scikit_learn(drawn):
    sklearn = pytest.importorskip("sklearn.metrics")
    p, y = drawn
    assert brier_score(p, y) == pytest.approx(sklearn.brier_score_loss(y, p, pos_label=True))
    inside = np.clip(p, 1e-6, 1 - 1e-6)
    assert log_loss(inside, y) == pytest.approx(sklearn.log_loss(y, inside, labels=[False, True]))


@given(FORECASTS, st.integers(1, 12), st.sampled_from(["width", "count"]))
def test_the_reliability_table_is_the_loop_over_its_bins(drawn, bins, by):
    p, y = drawn
    table = reliability_table(p, y, bins, by=by)
    assert table.schema == TABLE
    assert table["rows"].sum() == p.size
    last = table["high"][-1]
    for low, high, rows, mean, happened in table.select("low", "high", "rows", "probability", "happened").iter_rows():
        mine = (p >= low) & ((p < high) | (high == last))
        assert rows == mine.sum()
        assert mean == pytest.approx(p[mine].mean())
        assert happened == pytest.approx(y[mine].mean())
    gap = (table["happened"] - table["probability"]).abs()
    assert expected_calibration_error(p, y, bins, by=by) == pytest.approx(float((gap * table["rows"]).sum() / p.size))
    assert maximum_calibration_error(p, y, bins, by=by) == pytest.approx(gap.max())


def test_bins_of_equal_width_hold_what_scikit_learn_puts_into_them():
    sklearn = pytest.importorskip("sklearn.calibration")
    p, y, _ = forecasts(3)
    happened, forecast = sklearn.calibration_curve(y, p, n_bins=10)
    table = reliability_table(p, y, 10)
    np.testing.assert_allclose(table["happened"], happened)
    np.testing.assert_allclose(table["probability"], forecast)


def test_bins_of_equal_count_hold_equally_many_rows():
    p, y, _ = forecasts(4)
    assert reliability_table(p, y, 8, by="count")["rows"].to_list() == pytest.approx([150] * 8, abs=1)


@given(FORECASTS, st.integers(1, 12) | st.none())
def test_the_parts_of_the_brier_score_add_up_to_it(drawn, bins):
    p, y = drawn
    parts = brier_parts(p, y, bins)
    assert parts.brier == pytest.approx(brier_score(p, y))
    assert parts.reliability - parts.resolution + parts.uncertainty + parts.within == pytest.approx(
        parts.brier, abs=1e-12
    )
    assert min(parts.reliability, parts.resolution, parts.uncertainty) >= 0
    if bins is None:
        assert parts.within == pytest.approx(0, abs=1e-12)


def test_a_forecast_of_the_share_has_no_resolution_and_perfect_foresight_all_of_it():
    y = np.array([0, 0, 1, 1, 1])
    share = brier_parts(np.full(5, 0.6), y)
    assert share == pytest.approx((0.24, 0, 0, 0.24, 0), abs=1e-12)
    seer = brier_parts(y.astype(float), y)
    assert seer == pytest.approx((0, 0, 0.24, 0.24, 0), abs=1e-12)


def test_rows_with_a_nan_are_dropped_and_no_rows_give_nan():
    p, y = np.array([0.2, math.nan, 0.7]), np.array([0.0, 1.0, math.nan])
    assert brier_score(p, y) == pytest.approx(0.04)
    for score in (brier_score, log_loss, expected_calibration_error, maximum_calibration_error):
        assert math.isnan(score([], []))
    assert math.isnan(calibration_error_by_chance([math.nan], [1]))
    assert all(math.isnan(v) for v in brier_parts([], []))
    assert reliability_table([], []).is_empty()
    assert math.isnan(calibration_line([0.5], [1]).p_value)


@pytest.mark.parametrize(
    ("p", "y", "said"),
    [
        pytest.param([0.5, 1.2], [0, 1], "between 0 and 1", id="a probability above 1"),
        pytest.param([0.5, 0.6], [0, 0.4], "0 or 1, not 0.4", id="an outcome that is a number"),
        pytest.param([0.5], [0, 1], "one length", id="lengths differ"),
    ],
)
def test_what_is_no_forecast_is_refused(p, y, said):
    with pytest.raises(ValueError, match=said):
        brier_score(p, y)


def test_unknown_bins_are_refused():
    with pytest.raises(ValueError, match="at least one bin"):
        reliability_table([0.5], [1], 0)
    with pytest.raises(ValueError, match="'width' for equal steps"):
        reliability_table([0.5], [1], by="weight")  # pyright: ignore[reportArgumentType]


def test_the_interval_of_a_share_is_wilsons():
    """Newcombe 1998, table I: 81 of 263, 95 %: 0.2553 to 0.3662; 0 of 20: 0 to 0.1611."""
    lower, upper = wilson_interval(np.array([81 / 263, 0.0]), np.array([263.0, 20.0]), 1.959964)
    np.testing.assert_allclose(lower, [0.2553, 0], atol=5e-5)
    np.testing.assert_allclose(upper, [0.3662, 0.1611], atol=5e-5)


def test_intervals_that_know_the_session_hold_the_truth_where_those_that_do_not_miss_it():
    inside, naive = [], []
    for seed in range(60):
        p, y, session = forecasts(seed)
        aware, unaware = reliability_table(p, y, 5, session=session), reliability_table(p, y, 5)
        inside.append(aware.select(pl.col("probability").is_between("lower", "upper").mean()).item())
        naive.append(unaware.select(pl.col("probability").is_between("lower", "upper").mean()).item())
    assert np.mean(inside) > 0.91
    assert np.mean(naive) < 0.89


def test_a_bin_of_one_session_says_nothing():
    table = reliability_table([0.1, 0.1, 0.9, 0.9], [0, 1, 1, 1], 2, session=[1, 1, 1, 2])
    assert table.select("lower", "upper").row(0) == (0.0, 1.0)


def test_calibrated_forecasts_exceed_the_error_of_chance_as_seldom_as_said():
    exceeded, naive = [], []
    for seed in range(120):
        p, y, session = forecasts(seed)
        error = expected_calibration_error(p, y)
        exceeded.append(error > calibration_error_by_chance(p, y, session, draws=300, seed=seed))
        naive.append(error > calibration_error_by_chance(p, y, draws=300, seed=seed))
    assert np.mean(exceeded) < 0.13
    assert np.mean(naive) > 0.12


def test_forecasts_too_bold_by_half_exceed_the_error_of_chance():
    found = []
    for seed in range(20):
        p, y, session = forecasts(seed)
        bold = np.clip(0.5 + 1.6 * (p - 0.5), 0, 1)
        found.append(expected_calibration_error(bold, y) > calibration_error_by_chance(bold, y, session, draws=300))
    assert np.mean(found) > 0.8


def test_the_line_of_log_odds_refuses_calibrated_forecasts_seldom_and_bold_ones_almost_always():
    refused, found = [], []
    for seed in range(120):
        p, y, session = forecasts(seed)
        odds = (p / (1 - p)) ** 2
        refused.append(calibration_line(p, y, session).p_value < 0.05)
        found.append(calibration_line(odds / (1 + odds), y, session))
    assert np.mean(refused) < 0.12
    assert np.mean([line.p_value < 0.05 for line in found]) > 0.95
    assert np.mean([line.slope for line in found]) == pytest.approx(0.5, abs=0.05)


def test_the_error_of_chance_does_not_depend_on_how_many_draws_fit_into_memory(monkeypatch):
    p, y, session = forecasts(8)
    whole = calibration_error_by_chance(p, y, session, draws=101)
    monkeypatch.setattr(calibration, "DRAWN_AT_ONCE", 200)
    assert calibration_error_by_chance(p, y, session, draws=101) == pytest.approx(whole)


@pytest.mark.filterwarnings("error")
def test_forecasts_that_part_the_outcomes_give_a_line_of_numbers():
    line = calibration_line(np.repeat([0.3, 0.7], 10), np.repeat([0, 1], 10))
    assert line.slope > 5
    assert np.isfinite(line[:5]).all()


def test_the_line_of_log_odds_is_a_logistic_regression_with_clustered_errors():
    statsmodels = pytest.importorskip("statsmodels.api", reason="statsmodels is the second opinion")
    p, y, session = forecasts(11, sessions=15)
    design = statsmodels.add_constant(np.log(p / (1 - p)))
    fit = statsmodels.Logit(y.astype(float), design).fit(
        disp=0, cov_type="cluster", cov_kwds={"groups": session, "use_correction": False}
    )
    line = calibration_line(p, y, session)
    assert (line.intercept, line.slope) == pytest.approx(tuple(fit.params), rel=1e-5, abs=1e-7)
    np.testing.assert_allclose([line.intercept_error, line.slope_error], fit.bse * math.sqrt(15 / 14), rtol=1e-5)


def test_forecasts_by_group_are_the_scores_of_each_groups_rows():
    p, y, session = forecasts(5)
    model = np.where(np.arange(p.size) % 3 == 0, "a", "b")
    frame = pl.DataFrame({"session": session, "model_version": model, "confidence": p, "won": y})
    frame = pl.concat([frame, frame.head(2).with_columns(confidence=pl.lit(None, pl.Float64))])
    table = calibration_by(frame, ["model_version"])
    assert table["model_version"].to_list() == ["a", "b"]
    for name, row in zip("ab", table.iter_rows(named=True), strict=True):
        mine = model == name
        assert row["rows"] == mine.sum()
        assert row["brier"] == pytest.approx(brier_score(p[mine], y[mine]))
        assert row["skill"] == pytest.approx(1 - row["brier"] / (y[mine].mean() * (1 - y[mine].mean())))
        assert row["calibration_error"] == pytest.approx(expected_calibration_error(p[mine], y[mine]))
        assert row["slope"] == pytest.approx(calibration_line(p[mine], y[mine], session[mine]).slope)
    assert calibration_by(frame, []).schema == GROUPED
    assert calibration_by(frame.clear(), ["model_version"]).is_empty()


def test_the_forecasts_of_a_life_are_its_models_confidences_with_what_would_have_been():
    life, _ = climbed()
    replay = life.read_many("replay_buffer", life.commits())
    rows = forecasts_of(replay)
    joint = replay.filter(pl.col("source") == "joint", "complete")
    assert rows.height == joint.height > 0
    assert rows["won"].to_list() == (joint["net_return"] > 0).to_list()
    table = calibration_by(rows, ["model_version", "vol_regime"])
    assert table["rows"].sum() == rows.height
    assert table["brier"].is_between(0, 1).all()


def test_the_diagram_is_a_small_picture_and_the_same_one_each_time():
    p, y, session = forecasts(6)
    table = reliability_table(p, y, session=session)
    picture = reliability_diagram(table, "demo")
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 50_000
    assert picture == reliability_diagram(table, "demo")
    assert picture != reliability_diagram(reliability_table(p, ~y, session=session), "demo")
    assert reliability_diagram(reliability_table([], [])).startswith(b"\x89PNG")
