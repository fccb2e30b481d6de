"""Sensitivity where the answer is known: constant learners, noise, one feature with all the signal, costs in closed
form."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odin_core.evaluation.metrics import information_coefficient
from odin_core.evaluation.sensitivity import (
    FAMILIES,
    Variation,
    break_even,
    cost_sensitivity,
    excess_of,
    families,
    feature_ablation,
    head_ablation,
    parameter_sensitivity,
    seed_spread,
    variations,
)
from odin_core.evaluation.splits import TooFewSessions
from odin_core.features.catalogue import DEFINITIONS
from odin_core.lifecycle.config import LearnerConfig
from odin_core.lifecycle.fold import INPUTS
from odin_core.policies.actions import FLAT, SHAPE, FloatArray
from odin_core.policies.joint import walk_forward
from odin_core.training.window import SessionContexts, TrainingWindow

NAMES = ("simple_return_18_5m", "rsi_14_15m", "natr_14_60m", "volume_z_18_75_5m")
CONFIG = LearnerConfig(trees=15, leaves=7)
EACH = 40


def window(direction: FloatArray, enter: FloatArray, X: FloatArray) -> TrainingWindow:
    """Long earns enter + direction and short enter − direction, whatever the exit; all (sessions · EACH,)."""
    side = np.stack([enter + direction, enter - direction], axis=1)
    rewards = np.broadcast_to(side[:, :, None, None, None], (len(X), *SHAPE)).reshape(len(X), -1).astype(np.float32)
    return TrainingWindow(
        [
            SessionContexts(date(2023, 1, 2) + timedelta(days=i), NAMES, X[of].astype(np.float32), rewards[of],
                            np.full(EACH, FLAT), ())
            for i in range(len(X) // EACH)
            for of in [slice(i * EACH, (i + 1) * EACH)]
        ]
    )  # fmt: skip


def drawn(sessions: int, seed: int = 3) -> tuple[FloatArray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((sessions * EACH, len(NAMES))) * [0.01, 1, 0.001, 1] + [0, 50, 0.005, 0], rng


def signal(sessions: int = 24, level: float = 0.05) -> TrainingWindow:
    """All that can be known of the direction is in the first feature; `level` is what both sides earn on average."""
    X, rng = drawn(sessions)
    direction = np.sign(X[:, 0]) + 0.5 * rng.standard_normal(len(X))
    return window(direction, np.full(len(X), level), X)


def noise(sessions: int = 16, seed: int = 3) -> TrainingWindow:
    X, rng = drawn(sessions, seed)
    return window(rng.standard_normal(len(X)), np.full(len(X), 0.02), X)


def constant(sessions: int = 12) -> TrainingWindow:
    """Contexts that cannot be told apart: every learner says the same."""
    X = np.tile(np.linspace(1, 2, len(NAMES)) * [0, 50, 1, 1], (sessions * EACH, 1))
    return window(np.full(len(X), 0.5), np.full(len(X), 0.1), X)


def test_a_learner_that_can_learn_nothing_has_no_sensitivity():
    same = constant()
    seeds = seed_spread(same, CONFIG, range(5))
    assert seeds["seed"].to_list() == [0, 1, 2, 3, 4]
    assert seeds["excess"].to_list() == pytest.approx([0.5] * 5)
    assert seeds["excess"].n_unique() == 1
    changed = parameter_sensitivity(same, CONFIG, 7)
    assert changed["kept"].to_list() == pytest.approx([1.0] * 9)
    lost = feature_ablation(same, CONFIG, 7)
    assert lost["lost_excess"].to_list() == pytest.approx([0.0] * lost.height, abs=1e-12)


def test_the_one_feature_with_signal_is_the_one_whose_loss_shows():
    lost = feature_ablation(signal(), CONFIG, 7, {name: (name,) for name in NAMES})
    assert lost["group"][0] == "simple_return_18_5m"
    assert lost["lost_excess"][0] > 0.8
    assert lost["lost_ic"][0] > 0.5
    assert (lost["lost_excess"][1:].abs() < 0.05).all()
    assert lost["ic"][0] == pytest.approx(0.0, abs=0.15)


def test_without_what_makes_a_trade_worth_its_costs_nothing_is_traded_and_that_comes_first():
    lost = feature_ablation(signal(level=-0.2), CONFIG, 7, {name: (name,) for name in NAMES})
    assert lost["group"][0] == "simple_return_18_5m"
    assert np.isnan(lost["excess"][0])
    assert (lost["excess"][1:] > 0.8).all()


def test_what_only_luck_made_is_a_spread_across_zero_and_what_can_be_known_is_not():
    lucky = seed_spread(noise(), replace(CONFIG, learning_rate=0.3), range(8))["excess"]
    assert lucky.min() < 0 < lucky.max()
    found = seed_spread(signal(), CONFIG, range(8))["excess"]
    assert found.min() > 0.8
    assert found.std() < 0.05


def test_both_numbers_are_those_of_the_walk_forward_taken_row_by_row():
    where = signal()
    walk = walk_forward(where, CONFIG, 5)
    taken = [r for r, e in zip(walk.reward, walk.expected, strict=True) if e > 0]
    sessions = where.session_index[walk.rows]
    ics = [
        information_coefficient(walk.score[sessions == s], walk.outcome[sessions == s]) for s in sorted(set(sessions))
    ]
    row = seed_spread(where, CONFIG, [5]).row(0, named=True)
    assert row["excess"] == pytest.approx(sum(taken) / len(taken) - sum(walk.random) / len(walk.random))
    assert row["ic"] == pytest.approx(np.mean(ics))


def test_a_learner_that_trades_nothing_has_no_excess_rather_than_a_good_one():
    X, rng = drawn(12)
    hopeless = window(0.1 * rng.standard_normal(len(X)), np.full(len(X), -3.0), X)
    assert np.isnan(seed_spread(hopeless, CONFIG, [1])["excess"][0])
    assert np.isnan(parameter_sensitivity(hopeless, CONFIG, 1, [Variation("trees", 5)])["kept"][0])
    assert np.isnan(excess_of(np.array([1.0]), np.array([0.0]), np.array([False])))


def test_a_window_too_short_for_the_walk_forward_is_refused():
    with pytest.raises(TooFewSessions):
        seed_spread(TrainingWindow(signal().sessions[:4]), CONFIG, [1])


def test_each_variation_changes_the_learner_as_it_says():
    where = signal()
    changed = parameter_sensitivity(where, CONFIG, 7)
    assert [tuple(v) for v in variations(CONFIG, 24)] == list(changed.select("parameter", "value").iter_rows())
    assert changed["parameter"].unique(maintain_order=True).to_list() == [
        "trees", "leaves", "min_leaf", "learning_rate", "lookback_sessions",
    ]  # fmt: skip
    for row in changed.iter_rows(named=True):
        name, value = row["parameter"], row["value"]
        told = {} if name == "lookback_sessions" else {name: value if name == "learning_rate" else int(value)}
        lookback = None if told else int(value)
        alone = seed_spread(where, replace(CONFIG, **told), [7])["excess"][0] if told else None
        walk = walk_forward(where, CONFIG, 7, lookback=lookback)
        expected = alone if told else excess_of(walk.reward, walk.random, walk.expected > 0)
        assert row["excess"] == expected
        assert row["value"] != row["unchanged"]
    whole = seed_spread(where, CONFIG, [7])["excess"][0]
    assert changed["kept"].to_list() == pytest.approx((changed["excess"] / whole).to_list())


def test_a_shorter_look_back_is_one_for_every_fold():
    where = noise(24)
    row = parameter_sensitivity(where, CONFIG, 7, [Variation("lookback_sessions", 3)]).row(0, named=True)
    walk = walk_forward(where, CONFIG, 7, lookback=3)
    assert row["excess"] == excess_of(walk.reward, walk.random, walk.expected > 0)
    assert row["excess"] != seed_spread(where, CONFIG, [7])["excess"][0]
    assert (row["value"], row["unchanged"]) == (3, 24)


def test_a_parameter_that_the_learner_does_not_have_is_refused():
    with pytest.raises(ValueError, match="no parameter depth"):
        parameter_sensitivity(constant(), CONFIG, 7, [Variation("depth", 3)])


def test_the_direction_head_is_all_there_is_where_only_the_side_matters():
    lost = {row["head"]: row for row in head_ablation(walk_forward(signal(), CONFIG, 7)).iter_rows(named=True)}
    assert lost["direction"]["excess"] == pytest.approx(0.0, abs=1e-6)
    assert lost["direction"]["lost_excess"] > 0.8
    assert lost["enter"]["lost_excess"] == pytest.approx(0.0, abs=0.05)


def test_the_enter_head_is_all_there_is_where_only_the_moment_matters():
    X, rng = drawn(24)
    moment = np.where(X[:, 3] > 0, 0.8, -1.0)
    lost = head_ablation(walk_forward(window(0.1 * rng.standard_normal(len(X)), moment, X), CONFIG, 7))
    by_head = {row["head"]: row for row in lost.iter_rows(named=True)}
    assert by_head["enter"]["lost_excess"] > 0.6
    assert by_head["direction"]["lost_excess"] == pytest.approx(0.0, abs=0.05)


def test_every_input_of_a_life_has_a_family_and_every_family_names_what_there_is():
    grouped = families(INPUTS)
    assert set(grouped) <= set(FAMILIES)
    assert [name for of in grouped.values() for name in of] == [n for g in grouped for n in INPUTS if n in grouped[g]]
    assert sorted(name for of in grouped.values() for name in of) == sorted(INPUTS)
    named = {definition for of in FAMILIES.values() for definition in of}
    assert named - set(DEFINITIONS) <= {"market_volatility"}


def test_a_column_without_a_family_stands_alone():
    assert families(("moon", "rsi_14_15m", "market_volatility")) == {
        "moon": ("moon",), "momentum": ("rsi_14_15m",), "market": ("market_volatility",),
    }  # fmt: skip


MONEY = st.lists(st.tuples(st.floats(-0.1, 0.1), st.floats(1e-4, 0.05), st.integers(0, 5)), min_size=2, max_size=40)


@given(MONEY)
def test_the_mean_falls_along_a_line_in_the_costs_and_crosses_zero_at_the_break_even(trades):
    gross, cost, session = (np.array(column) for column in zip(*trades, strict=True))
    even = break_even(gross, cost)
    table = cost_sensitivity(gross, cost, session, (0.0, 1.0, 2.0, even))
    means = table["mean"].to_numpy()
    assert means[:3] == pytest.approx([gross.mean() - m * cost.mean() for m in (0, 1, 2)])
    assert means[3] == pytest.approx(0, abs=1e-12)
    assert ((table["lower"] <= table["mean"]) & (table["mean"] <= table["upper"])).all()


def test_what_is_not_known_is_left_out_and_nothing_known_is_nan():
    gross, cost = np.array([0.02, np.nan, 0.04]), np.array([0.01, 0.5, 0.01])
    assert break_even(gross, cost) == pytest.approx(3.0)
    assert cost_sensitivity(gross, cost, np.array([0, 0, 1]), (1.0,))["mean"][0] == pytest.approx(0.02)
    assert np.isnan(break_even(np.array([np.nan]), np.array([0.1])))
    assert np.isnan(break_even(np.array([0.1]), np.array([0.0])))
