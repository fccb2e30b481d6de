"""Phases: each gate one criterion short, going back, the reasons that are given, and how much is explored."""

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopstates import in_phase, scores

from odin_core.lifecycle.config import ExplorationConfig, LifeConfig
from odin_core.lifecycle.phases import WAYS_OUT, Criterion, epsilon, outlook
from odin_core.lifecycle.state import LoopState

CONFIG = LifeConfig()
ENOUGH = 20  # symbols that pass the filter
TRAINED = date(2023, 1, 31)  # scores begin the day after
GOOD = [0.5 + 0.05 * (-1) ** i for i in range(40)]  # surely above random's zero
MISSES = [1.0, -1.2] * 20  # about zero


def ready_for_1() -> LoopState:
    return in_phase(0, executed=201, candidates=("joint-0",))


def ready_for_2() -> LoopState:
    return in_phase(1, object(), champion_through=TRAINED, rank_agreement=0.5, scores=scores(GOOD))


def ready_for_3() -> LoopState:
    return in_phase(
        2, object(), champion_through=TRAINED, phase_since=TRAINED, replay_rows=1000, regime_rows=(300, 400, 300),
        regime_sessions=(10, 20, 10), scores=scores(GOOD), returns=tuple(0.002 + 0.001 * (-1) ** i for i in range(40)),
    )  # fmt: skip


def gate(state: LoopState, filtered: int = ENOUGH) -> tuple[int, set[str]]:
    """The phase afterwards and the criteria that were not met."""
    view = outlook(state, CONFIG, filtered)
    return view.phase, {c.name for c in view.criteria if not c.passed}


@pytest.mark.parametrize("ready", [ready_for_1, ready_for_2, ready_for_3])
def test_a_phase_is_left_when_every_criterion_is_met_and_the_numbers_are_the_reason(ready: Any):
    state = ready()
    view = outlook(state, CONFIG, ENOUGH)
    assert view.phase == state.phase + 1
    assert all(c.passed for c in view.criteria)
    assert all(c.name in view.reason for c in view.criteria)
    assert view.suggestions == ()


SHORT: list[tuple[Any, str, dict[str, Any]]] = [
    (ready_for_1, "executed trades", {"executed": 200}),
    (ready_for_1, "a first model", {"candidates": ()}),
    (ready_for_2, "a champion", {"champion": None}),
    (ready_for_2, "champion's sessions out of sample", {"scores": scores(GOOD[:9])}),
    (ready_for_2, "champion's sessions out of sample", {"champion_through": date(2023, 3, 5)}),
    (ready_for_2, "champion beats random", {"scores": scores(MISSES)}),
    (ready_for_2, "champion beats random", {"scores": scores(GOOD, random=0.6)}),
    (ready_for_2, "champion beats random", {"scores": scores([-x for x in GOOD])}),
    (ready_for_2, "rank agreement of candidates", {"rank_agreement": 0.499}),
    (ready_for_2, "rank agreement of candidates", {"rank_agreement": None}),
    (ready_for_2, "rank agreement of candidates", {"rank_agreement": float("nan")}),
    (ready_for_3, "replay rows", {"replay_rows": 999}),
    (ready_for_3, "regimes covered", {"regime_rows": (49, 400, 300)}),
    (ready_for_3, "champion's sessions out of sample", {"phase_since": date(2023, 3, 5)}),
    (ready_for_3, "champion beats random", {"scores": scores(MISSES)}),
    (ready_for_3, "information coefficient", {"scores": scores(GOOD, ic=[0.3 * (-1) ** i for i in range(40)])}),
    (ready_for_3, "information coefficient", {"scores": scores(GOOD, ic=[None] * 40)}),
    (ready_for_3, "information coefficient", {"scores": scores(GOOD, ic=[-0.05 - 0.01 * (i % 2) for i in range(40)])}),
    (ready_for_3, "deflated Sharpe ratio", {"returns": tuple(0.01 * (-1) ** i for i in range(40))}),
    (ready_for_3, "deflated Sharpe ratio", {"returns": ()}),
    (ready_for_3, "drawdown", {"returns": (*(0.004 + 0.001 * (-1) ** i for i in range(60)), -0.031)}),
    (ready_for_3, "drawdown", {"returns": ()}),
]


@pytest.mark.parametrize(("ready", "criterion", "change"), SHORT, ids=[f"{c}-{i}" for i, (_, c, _) in enumerate(SHORT)])
def test_one_criterion_short_keeps_the_phase_and_says_which_and_what_would_help(
    ready: Any, criterion: str, change: dict[str, Any]
):
    state = replace(ready(), **change)
    view = outlook(state, CONFIG, ENOUGH)
    assert view.phase == state.phase
    missing = [c for c in view.criteria if not c.passed]
    assert criterion in {c.name for c in missing}
    assert all(c.name in view.reason for c in missing)
    assert set(WAYS_OUT[criterion]) <= set(view.suggestions)


def test_a_rare_regime_need_not_be_covered_and_a_frequent_one_must():
    rare = replace(ready_for_3(), regime_sessions=(3, 27, 10), regime_rows=(0, 400, 300))
    frequent = replace(rare, regime_sessions=(4, 26, 10))
    assert gate(rare) == (3, set())
    assert gate(frequent) == (2, {"regimes covered"})


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_a_state_that_knows_nothing_stays_and_says_why(phase: int):
    view = outlook(in_phase(phase), CONFIG, ENOUGH)
    assert view.phase == phase
    assert view.reason
    assert view.suggestions
    assert all(str(c) for c in view.criteria)


def test_few_symbols_are_named_as_the_reason_with_the_ways_to_get_more():
    view = outlook(in_phase(0), CONFIG, CONFIG.filter.min_symbols - 1)
    assert view.reason.startswith("only 4 symbols pass the filter")
    assert view.suggestions[:2] == ("loosen the filter", "widen the universe")
    assert len(set(view.suggestions)) == len(view.suggestions)


def test_phase_3_is_the_last_and_is_left_only_backwards():
    steady = replace(ready_for_3(), phase=3)
    assert outlook(steady, CONFIG, ENOUGH).phase == 3
    assert outlook(steady, CONFIG, ENOUGH).reason


@pytest.mark.parametrize("phase", [0, 1, 2, 3])
def test_drawdown_at_its_cap_demotes_from_phase_2_on(phase: int):
    cap = CONFIG.guardrails.max_drawdown
    for equity, falls in ((1.1 - cap - 1e-9, True), (1.1 - cap + 1e-6, False)):
        view = outlook(replace(ready_for_3(), phase=phase, equity=equity, peak=1.1), CONFIG, ENOUGH)
        assert ("demoted: drawdown" in view.reason) == (falls and phase >= 2)
        if falls and phase >= 2:
            assert view.phase == 1
            assert view.suggestions


@pytest.mark.parametrize("phase", [2, 3])
def test_a_champion_surely_worse_than_random_is_demoted(phase: int):
    worse = [-x for x in GOOD]
    state = replace(ready_for_3(), phase=phase, scores=scores(worse))
    assert outlook(state, CONFIG, ENOUGH).phase == 1
    assert "surely below random's over 20 sessions" in outlook(state, CONFIG, ENOUGH).reason
    assert outlook(replace(state, scores=scores(worse[:19])), CONFIG, ENOUGH).phase == phase  # too few to tell
    assert outlook(replace(state, scores=scores(MISSES)), CONFIG, ENOUGH).phase == phase  # not sure
    assert outlook(replace(state, champion_through=date(2023, 4, 1)), CONFIG, ENOUGH).phase == phase  # in sample
    assert outlook(replace(state, scores=scores(worse, version="joint-other")), CONFIG, ENOUGH).phase == phase
    assert outlook(replace(state, scores=scores(worse + GOOD[:20])), CONFIG, ENOUGH).phase == phase


def test_scores_of_other_versions_and_of_the_training_window_do_not_count():
    others = scores(GOOD, version="joint-other")
    assert "champion beats random" in gate(replace(ready_for_2(), scores=others))[1]
    before = scores(GOOD, first=date(2022, 12, 1))
    assert "champion beats random" in gate(replace(ready_for_2(), scores=before))[1]


def test_sessions_in_which_the_champion_chose_nothing_are_no_evidence():
    some: list[float | None] = [x if i % 2 else None for i, x in enumerate(GOOD)]
    view = outlook(replace(ready_for_2(), scores=scores(some)), CONFIG, ENOUGH)
    assert next(c.value for c in view.criteria if c.name == "champion's sessions out of sample") == 20


def test_a_large_loss_is_not_convergence_and_a_small_steady_gain_is():
    loss = [-10.0 + 0.1 * (-1) ** i for i in range(40)]
    gain = [0.01 + 0.001 * (-1) ** i for i in range(40)]
    assert gate(replace(ready_for_2(), scores=scores(loss)))[0] == 1
    assert gate(replace(ready_for_2(), scores=scores(gain)))[0] == 2


def test_the_bound_of_convergence_lies_below_the_mean_and_rises_with_evidence():
    def bound(n: int) -> float:
        rewards = [0.2 + 0.5 * (-1) ** i for i in range(n)]
        view = outlook(replace(ready_for_2(), scores=scores(list(rewards))), CONFIG, ENOUGH)
        return next(c.value for c in view.criteria if c.name == "champion beats random")

    bounds = [bound(n) for n in (10, 20, 40, 80, 160)]
    assert np.isfinite(bounds).all()
    assert bounds == sorted(bounds)
    assert bounds[0] < 0 < bounds[-1] < 0.2


def test_convergence_holds_at_every_look_together():
    """A champion as good as random: over 60 looks fewer than one life in twenty may ever seem to beat it."""
    rng, fooled, lives = np.random.default_rng(3), 0, 200
    for _ in range(lives):
        rewards = rng.standard_normal(60).round(6).tolist()
        looks = (outlook(replace(ready_for_2(), scores=scores(rewards[:n])), CONFIG, ENOUGH) for n in range(10, 61, 10))
        fooled += any(view.phase == 2 for view in looks)
    assert fooled / lives < CONFIG.phases.confidence + 2 * np.sqrt(0.05 * 0.95 / lives)


EXPLORING = ExplorationConfig(volatility_damping=0.0)


def test_exploration_by_phase():
    for phase, expected in ((0, 1.0), (1, EXPLORING.epsilon_rules), (3, EXPLORING.epsilon_floor)):
        assert epsilon(in_phase(phase), EXPLORING, "low") == expected


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.lists(st.integers(0, 500), min_size=3, max_size=3))
def test_in_phase_2_exploration_decays_with_rows_and_rises_while_a_regime_is_rare(n: int, more: int, rows: list[int]):
    state = in_phase(2, phase_rows=n, regime_rows=tuple(rows))
    values = {r: epsilon(state, EXPLORING, r) for r in ("low", "medium", "high")}
    later = epsilon(replace(state, phase_rows=n + more), EXPLORING, "low")
    assert later <= values["low"]
    assert all(EXPLORING.epsilon_floor <= v <= 1 for v in values.values())
    by_rarity = sorted(("low", "medium", "high"), key=lambda r: rows[("low", "medium", "high").index(r)])
    assert values[by_rarity[0]] >= values[by_rarity[1]] >= values[by_rarity[2]]
    unseen = epsilon(replace(state, regime_rows=(0, 10, 10)), EXPLORING, "low")
    assert unseen == max(unseen, values["low"])
    assert epsilon(state, EXPLORING, None) == pytest.approx(unseen)


def test_exploration_halves_its_excess_over_the_floor_in_a_half_life():
    even = in_phase(2, regime_rows=(5, 5, 5))
    start, floor = EXPLORING.epsilon_start, EXPLORING.epsilon_floor
    for halvings in range(4):
        state = replace(even, phase_rows=halvings * EXPLORING.epsilon_half_life)
        assert epsilon(state, EXPLORING, "low") == pytest.approx(floor + (start - floor) / 2**halvings)


@pytest.mark.parametrize("phase", [1, 2, 3])
def test_exploration_falls_where_volatility_is_high_and_rises_where_it_is_low(phase: int):
    state = in_phase(phase, regime_rows=(5, 5, 5))
    low, medium, high = (
        epsilon(state, ExplorationConfig(volatility_damping=0.4), r) for r in ("low", "medium", "high")
    )
    assert (low, high) == pytest.approx((1.4 * medium, 0.6 * medium))
    assert medium == epsilon(state, EXPLORING, "medium")


def test_exploration_is_a_probability_whatever_the_settings_add_up_to():
    wild = ExplorationConfig(epsilon_start=1.0, novelty_gain=1.0)
    assert epsilon(in_phase(2), wild, "low") == 1.0


def test_a_bound_that_does_not_exist_yet_is_unknown():
    state = replace(ready_for_3(), scores=scores(GOOD, ic=[0.05] * 40))  # no spread, so no bound
    assert "information coefficient unknown < 0" in outlook(state, CONFIG, ENOUGH).reason


def test_a_criterion_prints_its_value_its_relation_and_what_it_needs():
    assert str(Criterion("replay rows", 10, 1000)) == "replay rows 10 < 1000"
    assert str(Criterion("drawdown", 0.04, 0.03, at_least=False)) == "drawdown 0.04 > 0.03"
    assert str(Criterion("champion beats random", float("nan"), 0.0)) == "champion beats random unknown < 0"
    assert not Criterion("drawdown", float("nan"), 0.03, at_least=False).passed
