"""The learner's two checks: what leaks make of them, what a learner that cheats or sees nothing does, and chance."""

from dataclasses import replace
from datetime import date

import leakyfeatures as toys
import numpy as np
import polars as pl
import pytest
from leakyfeatures import linear, random_walks, rows_of

from odin_core.evaluation.metrics import FloatArray
from odin_core.leaks import (
    Sample,
    cheat_feature,
    joint_learner,
    next_returns,
    sample_of,
    sample_of_window,
    shuffled_labels,
)
from odin_core.lifecycle.config import LearnerConfig
from odin_core.policies.actions import ACTIONS, FLAT
from odin_core.training.window import SessionContexts, TrainingWindow

SYMBOLS = tuple(f"S{i:02}" for i in range(12))
SMALL = LearnerConfig(trees=30, leaves=7, walk_forward_folds=3, purge_sessions=1)
HORIZON = 6


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return random_walks(30, symbols=SYMBOLS, seed=5)


def with_leak(bars: pl.DataFrame, name: str) -> Sample:
    horizon = 1 if name == "centred_mean" else HORIZON
    return sample_of(rows_of(**toys.HONEST, **{name: toys.LEAKS[name]})(bars), bars, horizon)


@pytest.fixture(scope="module")
def honest(bars: pl.DataFrame) -> Sample:
    return sample_of(rows_of(**toys.HONEST)(bars), bars, HORIZON)


def noise(times: int, each: int, seed: int, columns: int = 4) -> Sample:
    draw = np.random.default_rng(seed)
    n = times * each
    features = draw.normal(size=(n, columns)).astype(np.float32)
    names = tuple(f"noise_{i}" for i in range(columns))
    return Sample(names, features, draw.normal(size=n), np.repeat(np.arange(times), each))


def test_a_sample_is_the_rows_of_times_whose_outcomes_do_not_overlap(bars: pl.DataFrame, honest: Sample):
    rows = rows_of(**toys.HONEST)(bars)
    assert honest.names == tuple(toys.HONEST)
    frame = rows.with_columns(next_returns(rows, bars, HORIZON).alias("next")).sort("known_at", "symbol")
    every_sixth = frame["known_at"].unique().sort().gather_every(HORIZON, HORIZON - 1)
    kept = frame.filter(pl.col("known_at").is_in(every_sixth.implode())).drop_nulls("next")
    np.testing.assert_array_equal(honest.outcomes, kept["next"].to_numpy())
    np.testing.assert_array_equal(honest.features, kept.select(list(toys.HONEST)).cast(pl.Float32).to_numpy())
    assert (np.bincount(honest.times)[np.unique(honest.times)] == len(SYMBOLS)).all()


@pytest.mark.parametrize("name", toys.LEAKS)
def test_both_checks_find_each_leak_and_name_it(bars: pl.DataFrame, name: str):
    sample = with_leak(bars, name)
    for verdict in (shuffled_labels(linear, sample, rng()), cheat_feature(linear, sample, rng())):
        assert not verdict.passed
        assert f"{name} most of all" in verdict.detail


@pytest.mark.parametrize("name", ["next_change_with_noise", "high_of_the_whole_day"])
def test_both_checks_find_a_leak_through_the_joint_policy(bars: pl.DataFrame, name: str):
    sample, learner = with_leak(bars, name), joint_learner(SMALL, 1)
    assert not shuffled_labels(learner, sample, rng()).passed
    assert not cheat_feature(learner, sample, rng()).passed


def test_honest_features_pass_both_through_the_joint_policy(honest: Sample):
    learner = joint_learner(SMALL, 1)
    shuffled, cheat = shuffled_labels(learner, honest, rng()), cheat_feature(learner, honest, rng())
    assert shuffled.passed
    assert cheat.passed
    assert cheat.numbers["gain"] > 0.35


def test_the_joint_learner_answers_twice_the_same_and_only_out_of_sample(honest: Sample):
    learner = joint_learner(SMALL, 1)
    first = learner(honest)
    np.testing.assert_array_equal(first, learner(honest))
    times = np.unique(honest.times)
    assert np.isfinite(first[honest.times >= times[len(times) // 2]]).all()
    assert np.isnan(first[honest.times <= times[len(times) // 5]]).all()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("times", "each"), [(60, 12), (300, 1)], ids=["symbols at each time", "one symbol"])
def test_noise_passes_both(times: int, each: int, seed: int):
    sample = noise(times, each, seed)
    assert shuffled_labels(linear, sample, rng()).passed
    assert cheat_feature(linear, sample, rng()).passed


def test_so_few_rows_that_chance_alone_exceeds_the_alarm_raise_none():
    verdicts = [shuffled_labels(linear, noise(20, 4, seed), rng()) for seed in range(20)]
    assert all(v.passed for v in verdicts)
    assert max(v.numbers["ic"] for v in verdicts) > 0.1


def in_sample(sample: Sample) -> FloatArray:
    """A learner that is judged on what it was trained on: the row's own outcome, remembered in part."""
    return sample.outcomes + 2.0 * np.random.default_rng(0).normal(size=len(sample.outcomes)) * sample.outcomes.std()


def encoding_targets(sample: Sample) -> FloatArray:
    """A category's mean outcome over all rows, the row's own included, as the prediction."""
    category = np.random.default_rng(0).integers(0, len(sample.outcomes) // 4, len(sample.outcomes))
    totals = np.bincount(category, weights=sample.outcomes)
    return (totals / np.maximum(np.bincount(category), 1))[category]


@pytest.mark.parametrize("learner", [in_sample, encoding_targets])
def test_a_learner_that_has_seen_the_outcomes_finds_something_in_shuffled_ones(learner):
    verdict = shuffled_labels(learner, noise(60, 12, 1), rng())
    assert not verdict.passed
    assert verdict.numbers["shuffled_ic"] > 4 * verdict.numbers["shuffled_sigma"]
    assert "seen the labels" in verdict.detail


def test_a_learner_that_has_seen_a_little_is_found_where_its_coefficient_is_still_under_the_alarm():
    def peeking(sample: Sample) -> FloatArray:
        return 0.07 * sample.outcomes + np.random.default_rng(0).normal(size=len(sample.outcomes))

    verdict = shuffled_labels(peeking, noise(200, 50, 1), rng())
    assert not verdict.passed
    assert 0 < verdict.numbers["ic"] < 0.1


def blind(sample: Sample) -> FloatArray:
    return np.random.default_rng(1).normal(size=len(sample.outcomes))


def test_a_learner_that_sees_nothing_does_not_find_the_cheat():
    verdict = cheat_feature(blind, noise(60, 12, 1), rng())
    assert not verdict.passed
    assert "does not find what is there" in verdict.detail


@pytest.mark.parametrize("check", [shuffled_labels, cheat_feature])
def test_a_learner_that_predicts_nothing_shows_nothing(check):
    verdict = check(lambda sample: np.full(len(sample.outcomes), np.nan), noise(20, 5, 1), rng())
    assert not verdict.passed
    assert "nothing was shown" in verdict.detail


def test_chance_is_as_wide_as_it_says():
    z = []
    for seed in range(150):
        verdict = shuffled_labels(linear, noise(40, 5, seed, columns=3), np.random.default_rng(seed))
        z.append(verdict.numbers["shuffled_ic"] / verdict.numbers["shuffled_sigma"])
    assert np.std(z) == pytest.approx(0.95, abs=0.2)
    assert abs(np.mean(z)) < 4 / np.sqrt(150)


def test_what_features_know_already_the_cheat_cannot_add():
    sample = noise(100, 12, 3)
    gains = []
    for strength in (0.0, 0.3, 0.6, 0.95):
        known = strength * sample.outcomes + np.sqrt(1 - strength**2) * np.random.default_rng(4).normal(size=1200)
        verdict = cheat_feature(
            linear, replace(sample, features=known[:, None].astype(np.float32), names=("f",)), rng()
        )
        assert verdict.passed == (strength == 0.0)
        gains.append(verdict.numbers["gain"])
    assert gains == sorted(gains, reverse=True)
    assert gains[0] == pytest.approx(0.48, abs=0.08)


def test_an_alarm_raised_for_a_planted_edge_lets_it_pass():
    sample = noise(100, 12, 3)
    known = 0.3 * sample.outcomes + np.random.default_rng(4).normal(size=1200)
    edge = replace(sample, features=known[:, None].astype(np.float32), names=("edge",))
    for check in (shuffled_labels, cheat_feature):
        assert not check(linear, edge, rng()).passed
        assert check(linear, edge, rng(), alarm=0.45).passed


def life_window(strength: float) -> tuple[TrainingWindow, FloatArray]:
    """Sessions of thirty contexts; the first feature tells `strength` times which side pays, stops and sizes differ.
    With it, what long earns before costs."""
    draw, parts, earned = np.random.default_rng(3), [], []
    for day in range(16):
        features = draw.normal(size=(30, 3)).astype(np.float32)
        long = strength * features[:, 0] + draw.normal(size=30)
        grid = (
            draw.normal(0, 0.1, (30, ACTIONS)) - 0.2 + np.repeat(np.column_stack([long, -long]), ACTIONS // 2, axis=1)
        )
        session, rules = date.fromordinal(738_000 + day), np.full(30, FLAT)
        parts.append(SessionContexts(session, ("a", "b", "c"), features, grid.astype(np.float32), rules, ()))
        earned.append(long)
    return TrainingWindow(parts), np.concatenate(earned)


def test_a_window_of_a_life_is_a_sample_and_its_planted_edge_is_an_alarm():
    window, earned = life_window(1.0)
    sample = sample_of_window(window)
    assert sample.names == ("a", "b", "c")
    assert sample.times.tolist() == [i for i in range(16) for _ in range(30)]
    np.testing.assert_allclose(sample.outcomes, earned, atol=0.05)  # 64 cells of noise 0.1 on either side
    assert not shuffled_labels(joint_learner(SMALL, 1), sample, rng()).passed
    assert shuffled_labels(joint_learner(SMALL, 1), sample_of_window(life_window(0.0)[0]), rng()).passed


def test_a_sample_that_does_not_fit_together_is_refused():
    sample = noise(5, 3, 1)
    with pytest.raises(ValueError, match="15 outcomes and 3 names need"):
        replace(sample, names=("a", "b", "c"))
    with pytest.raises(ValueError, match="times ascending"):
        replace(sample, times=sample.times[::-1].copy())
    with pytest.raises(ValueError, match="must be finite"):
        replace(sample, outcomes=np.full(15, np.nan))
