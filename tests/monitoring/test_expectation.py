"""The expected band: how often it is left without a reason, how soon with one, and its formula written out again."""

import math
from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from odin_core.evaluation.sequential import BURN_IN, boundary, lower_confidence_sequence, tightest_rho
from odin_core.monitoring.expectation import TIGHTEST_AT, Band, expected_band

VALUES = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-5, 5).filter(lambda v: abs(v) > 1e-6 or v == 0))


def days(n: int) -> tuple[date, ...]:
    return tuple(date(2026, 1, 1) + timedelta(days=i) for i in range(n))


def band(backtest: np.ndarray, live: np.ndarray, confidence: float = 0.95) -> Band:
    return expected_band(days(len(live)), backtest, live, confidence)


def ever(kept: Band) -> tuple[bool, bool]:
    return bool((kept.live < kept.lower).any()), bool((kept.live > kept.upper).any())


def share_outside(backtests: np.ndarray, lives: np.ndarray) -> tuple[float, float]:
    below, above = zip(*(ever(band(b, v)) for b, v in zip(backtests, lives, strict=True)), strict=True)
    return float(np.mean(below)), float(np.mean(above))


@pytest.mark.parametrize("n", [BURN_IN, 15, 60])
@pytest.mark.parametrize("kind", ["normal", "fat tails", "left skew"])
def test_without_a_change_the_band_is_rarely_left_at_any_look(n, kind):
    rng = np.random.default_rng([n, len(kind)])
    draw = {
        "normal": rng.standard_normal,
        "fat tails": lambda size: rng.standard_t(4, size),
        "left skew": lambda size: 1 - rng.standard_exponential(size),
    }[kind]
    below, above = share_outside(0.3 + draw((600, n)), 0.3 + draw((600, 120)))
    assert below + above <= 0.05  # measured 0.02 to 0.03; one in a hundred draws of 600 would see 0.045


def test_a_backtest_that_was_stopped_because_it_looked_good_is_borne():
    rng = np.random.default_rng(1)
    streams = 0.3 + rng.standard_normal((900, 120))
    bounds = lower_confidence_sequence(streams, 0.025)
    stopped = [
        (stream[: t + 1], 0.3 + rng.standard_normal(120))
        for stream, bound in zip(streams, bounds, strict=True)
        for t in [next((t for t in range(14, 120, 5) if bound[t] > 0), None)]
        if t is not None
    ]
    outside = [any(ever(band(backtest, live))) for backtest, live in stopped]
    assert len(stopped) > 400
    assert np.mean(outside) <= 0.05


@pytest.mark.parametrize(("n", "fall", "at_least"), [(30, 0.9, 0.88), (60, 0.6, 0.78), (120, 0.6, 0.93)])
def test_a_fall_is_found_with_the_stated_power(n, fall, at_least):
    rng = np.random.default_rng([n, int(fall * 10)])
    backtest, live = 0.3 + rng.standard_normal((400, n)), 0.3 - fall + rng.standard_normal((400, 120))
    below, above = share_outside(backtest, live)
    assert below >= at_least
    assert above <= 0.01


def test_a_life_that_is_too_good_leaves_it_above():
    rng = np.random.default_rng(3)
    below, above = share_outside(rng.standard_normal((100, 60)), 1.5 + rng.standard_normal((100, 60)))
    assert (below, above) == (0.0, 1.0)


def by_hand(backtest: np.ndarray, live: np.ndarray, confidence: float) -> list[tuple[float, float, float]]:
    """Live sum, lower and upper end at each look, from scratch."""
    rows, n, error = [], len(backtest), (1 - confidence) / 2
    for t in range(1, len(live) + 1):
        seen = live[:t]
        squares = sum((backtest - backtest.mean()) ** 2) + sum((seen - seen.mean()) ** 2)
        effective = 1 / (1 / n + 1 / t)
        critical = float(boundary(effective, error, tightest_rho(error, at=TIGHTEST_AT)))
        half = math.sqrt(squares / (n + t - 2)) * critical * math.sqrt(1 / n + 1 / t)
        rows.append((sum(seen), t * (backtest.mean() - half), t * (backtest.mean() + half)))
    return rows


@given(VALUES.filter(lambda v: len(v) >= BURN_IN and np.ptp(v) > 1e-3), VALUES, st.floats(0.5, 0.999))
def test_it_is_its_formula(backtest, live, confidence):
    kept = band(backtest, live, confidence)
    np.testing.assert_allclose(
        np.array([kept.live, kept.lower, kept.upper]).T, by_hand(backtest, live, confidence), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(kept.expected, (kept.lower + kept.upper) / 2, rtol=1e-9, atol=1e-9)


@given(VALUES.filter(lambda v: len(v) >= BURN_IN and np.ptp(v) > 1e-3), VALUES, st.integers(1, 40))
def test_a_look_reads_no_later_session(backtest, live, cut):
    whole, part = band(backtest, live), band(backtest, live[:cut])
    np.testing.assert_array_equal(part.lower, whole.lower[:cut])
    np.testing.assert_array_equal(part.upper, whole.upper[:cut])


@given(VALUES.filter(lambda v: len(v) >= BURN_IN and np.ptp(v) > 1e-3), VALUES, st.floats(0.1, 10), st.floats(-3, 3))
def test_another_unit_and_another_level_move_everything_alike(backtest, live, unit, level):
    before, after = band(backtest, live), band(unit * backtest + level, unit * live + level)
    moved = level * np.arange(1, len(live) + 1)
    np.testing.assert_allclose(after.lower, unit * before.lower + moved, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(after.upper, unit * before.upper + moved, rtol=1e-6, atol=1e-6)


def test_the_width_grows_like_the_root_at_first_and_a_longer_backtest_narrows_it():
    rng = np.random.default_rng(2)
    live, backtest = rng.standard_normal(400), rng.standard_normal(4000)
    kept = band(backtest, live)
    width = kept.upper - kept.lower
    assert (np.diff(width[20:]) > 0).all()
    assert 1.5 < width[399] / width[99] < 2.8  # 2 by the root; the live deviation settles meanwhile
    final = [(b := band(backtest[:n], live)).upper[-1] - b.lower[-1] for n in (20, 80, 320, 1280)]
    assert all(long < short for short, long in pairwise(final))


def test_more_confidence_is_a_wider_band():
    rng = np.random.default_rng(4)
    backtest, live = rng.standard_normal(30), rng.standard_normal(30)
    widths = [(b := band(backtest, live, c)).upper - b.lower for c in (0.8, 0.95, 0.99)]
    assert all((wide > narrow).all() for narrow, wide in pairwise(widths))


@pytest.mark.parametrize(
    "backtest", [np.empty(0), np.arange(BURN_IN - 1.0), np.full(30, np.nan), np.r_[np.arange(5.0), np.full(20, np.nan)]]
)
def test_a_backtest_that_is_too_short_says_nothing(backtest):
    kept = band(backtest, np.arange(5.0))
    assert kept.inside is None
    assert np.isinf(kept.lower).all()
    assert np.isinf(kept.upper).all()
    assert kept.live.tolist() == [0, 1, 3, 6, 10]


def test_a_backtest_without_spread_says_nothing_until_life_has_some():
    kept = band(np.full(20, 0.1), np.array([0.1, 0.1, 0.4]))
    assert np.isinf(kept.lower).tolist() == [True, True, False]


def test_before_the_first_live_session_there_is_nothing_to_be_inside_of():
    kept = band(np.arange(20.0), np.empty(0))
    assert kept.inside is None
    assert kept.live.size == 0


def test_missing_sessions_of_the_backtest_do_not_count_and_those_of_life_are_a_mistake():
    rng = np.random.default_rng(6)
    backtest, live = rng.standard_normal(20), rng.standard_normal(10)
    holes = np.insert(backtest, [3, 7, 20], np.nan)
    np.testing.assert_array_equal(band(holes, live).lower, band(backtest, live).lower)
    with pytest.raises(ValueError, match="leave it out"):
        band(backtest, np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="confidence"):
        band(backtest, live, 1.0)
