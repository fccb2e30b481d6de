"""The replay record of a life as arrays: each status with its own propensity and reward, and nothing of the future."""

from dataclasses import fields
from datetime import date

import numpy as np
import polars as pl
import pytest
from plantedlogs import planted_log
from smalllives import CLIMBED, begin, climbed, quick, run_to

from odin_core.evaluation.off_policy import choices, earned
from odin_core.policies import uniform
from odin_core.policies.actions import ACTIONS, FLAT
from odin_core.replay.record import STATUS
from odin_core.rl.offline_data import (
    OfflineData,
    TooFewDecisions,
    TooFewToSplit,
    chance_of_exploring,
    column,
    grid_reward,
    offline_data,
    require_enough,
)

MIDWAY = date(2023, 1, 25)


def same(one: OfflineData, other: OfflineData) -> None:
    for field in fields(OfflineData):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        np.testing.assert_array_equal(mine, theirs, err_msg=field.name)


def test_every_resolved_decision_is_there_with_its_choice_propensity_and_reward():
    life, data = climbed()
    found = offline_data(life, data)
    replay = life.read_many("replay_buffer", life.commits()).sort("session", "symbol")
    known = replay.filter(pl.Series(np.isfinite(earned(replay))))
    assert len(found) == known.height > 200
    np.testing.assert_array_equal(found.choice, choices(known))
    np.testing.assert_array_equal(found.reward, earned(known))
    np.testing.assert_allclose(found.propensity, known["propensity"].to_numpy())
    assert [date.fromordinal(int(day)) for day in found.session] == known["session"].to_list()
    assert [STATUS[i] for i in found.status] == known["status"].to_list()
    assert {STATUS[i] for i in found.status} == set(STATUS)


def test_skipped_is_flat_and_earns_nothing_while_rejected_keeps_its_action():
    found = offline_data(*climbed())
    skipped, rejected = found.status == STATUS.index("skipped"), found.status == STATUS.index("rejected")
    assert (found.choice[skipped] == FLAT).all()
    assert not found.reward[skipped].any()
    assert np.isfinite(found.counterfactual[skipped]).any()
    np.testing.assert_array_equal(found.choice[rejected], found.lean[rejected])
    filled = np.isfinite(found.counterfactual)
    np.testing.assert_array_equal(found.reward[rejected & filled], found.counterfactual[rejected & filled])


def test_what_would_have_been_is_what_the_grid_says():
    found = offline_data(*climbed())
    of_lean = found.grid[np.arange(len(found)), found.lean].astype(np.float64)
    both = np.isfinite(of_lean) & np.isfinite(found.counterfactual)
    assert both.mean() > 0.9
    np.testing.assert_allclose(found.counterfactual[both], of_lean[both], atol=1e-5)


def test_features_are_those_known_at_the_close_before():
    from odin_core.lifecycle.run import contexts_with_outcomes

    life, data = climbed()
    found = offline_data(life, data)
    for session in (life.commits()[2], MIDWAY):
        rows = found.session == session.toordinal()
        contexts = contexts_with_outcomes(life, data, session)
        symbols = life.read("action_outcomes", session)["symbol"].to_list()
        replay = life.read_many("replay_buffer", life.commits()).filter(session=session).sort("symbol")
        at = [symbols.index(s) for s in replay.filter(pl.Series(np.isfinite(earned(replay))))["symbol"]]
        np.testing.assert_array_equal(found.features[rows], contexts.features[at])
        np.testing.assert_array_equal(found.grid[rows], contexts.rewards[at])


def test_the_chance_of_exploring_is_that_of_the_session_before():
    life, data = climbed()
    found = offline_data(life, data)
    explored = np.isfinite(found.chance)
    assert (found.chance[found.phase == 0] == 1).all()
    for session in life.commits():
        rows = explored & (found.session == session.toordinal()) & np.isin(found.phase, (1, 2))
        if rows.any():
            before = data.calendar.previous(session)
            epsilon = life.read("phase_state", before)["epsilon"][0]
            np.testing.assert_allclose(found.chance[rows], epsilon, atol=1e-9)
    assert np.isfinite(found.chance[found.phase > 0]).any()


@pytest.mark.parametrize("base", [FLAT, 17], ids=["in charge stays flat", "in charge trades"])
@pytest.mark.parametrize("take", [0.1, 0.35, 0.9])
def test_the_chance_is_read_off_the_propensity_whatever_the_policy_in_charge_does(base, take):
    chance = 0.12
    choice = np.array([FLAT, 17, 3])
    propensity = chance * uniform.probability(choice, take) + (1 - chance) * (choice == base)
    found = chance_of_exploring(propensity, choice, np.array([True, True, True]), take)
    np.testing.assert_allclose(found, chance)
    assert np.isnan(chance_of_exploring(propensity, choice, np.zeros(3, bool), take)).all()


def test_as_of_a_session_it_says_what_a_life_that_ended_there_says(tmp_path):
    long, data = begin(tmp_path / "long", quick("phases.executed_trades=20"))
    sessions = data.calendar.sessions(long.first_session, date(2023, 1, 12))
    run_to(long, data, sessions[-1])
    short, short_data = begin(tmp_path / "short", quick("phases.executed_trades=20"))
    run_to(short, short_data, sessions[5])
    same(offline_data(long, data, as_of=sessions[5]), offline_data(short, short_data))
    assert len(offline_data(long, data)) > len(offline_data(short, short_data))


def test_nothing_that_was_resolved_later_is_seen():
    life, data = climbed()
    whole, cut = offline_data(life, data), offline_data(life, data, as_of=MIDWAY)
    assert cut.last_session <= MIDWAY
    same(cut, whole.take(whole.resolved <= MIDWAY.toordinal()))
    assert len(offline_data(life, data, as_of=date(2022, 1, 1))) == 0


def test_too_few_decisions_are_told_of_with_the_way_out():
    life, data = climbed()
    found = offline_data(life, data, as_of=life.commits()[1])
    with pytest.raises(TooFewDecisions, match=rf"{len(found)} resolved decision.*min_decisions"):
        require_enough(found, life.id, (300, 20), life.commits()[1])
    require_enough(found, life.id, (1, 1))


def test_parts_follow_one_another_and_nothing_reaches_into_a_later_one():
    found = planted_log(0.5, sessions=40, each=3)
    late = found.session.copy()
    late[found.group == 10] += 25  # its outcome became known among the sessions of the validation
    parts = found.__class__(**{f.name: getattr(found, f.name) for f in fields(found)} | {"resolved": late}).split(
        0.2, 0.25, 2
    )
    spans = [(found.group[rows].min(), found.group[rows].max()) for rows in parts]
    assert spans == [(0, 17), (20, 27), (30, 39)]
    assert 10 not in found.group[parts.train]
    assert found.split(0.2, 0.0, 0).test.size == 0
    with pytest.raises(TooFewToSplit, match="cannot be parted"):
        found.take(found.group < 3).split(0.4, 0.4, 1)


def test_rewards_of_a_policy_by_the_grid_count_flat_as_nothing():
    found = planted_log(0.5, sessions=2, each=4)
    flat = np.zeros((len(found), ACTIONS + 1))
    flat[:, ACTIONS] = 1
    assert not grid_reward(found, flat).any()
    sure = np.eye(ACTIONS + 1)[column(found.lean)]
    np.testing.assert_allclose(grid_reward(found, sure), found.counterfactual, atol=1e-6)
    assert climbed()[0].head == CLIMBED
