"""The joint policy where the answer is known: what it finds, what it leaves alone, and that nothing in it is chance."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from plantedwindows import AGAINST_EXIT, BEST_EXIT, CENTRE, COST, NAMES, Planted, contexts, interaction, planted

from odin_core.lifecycle.config import LearnerConfig
from odin_core.policies import joint
from odin_core.policies.actions import FLAT, SIZES, STOPS, TARGETS, decode
from odin_core.policies.joint import JointPolicy, train_joint, version_of
from odin_core.training.window import SessionContexts, TrainingWindow

CONFIG = LearnerConfig()
FRESH = contexts(2000, np.random.default_rng(99))


@pytest.fixture(scope="module")
def found() -> tuple[JointPolicy, Planted]:
    truth = planted(1.0, exit_edge=0.3)
    return train_joint(truth.window, CONFIG, 7)[0], truth


def test_a_planted_interaction_is_found_and_earns_more_than_its_costs_on_fresh_contexts(found):
    policy, _ = found
    made, direction = policy.propose(FRESH), interaction(FRESH, 1.0)
    assert np.corrcoef(made.score, direction)[0, 1] > 0.8
    taken = made.action != FLAT
    earned = decode(made.lean).side * direction - COST
    assert taken.mean() > 0.5
    assert earned[taken].mean() > 0.5 > (-COST)
    assert (made.lean[taken] == made.action[taken]).all()


def test_confidence_is_how_often_the_lean_wins(found):
    made, rng = found[0].propose(FRESH), np.random.default_rng(5)
    outcome = interaction(FRESH, 1.0) + rng.standard_normal(len(FRESH)) * np.sqrt(1.25)  # as in the window
    won = decode(made.lean).side * outcome - COST + 0.3 / 16 > 0
    assert ((made.confidence > 0) & (made.confidence < 1)).all()
    assert made.confidence.mean() == pytest.approx(won.mean(), abs=0.06)


def test_the_exit_that_pays_more_is_chosen(found):
    meaning = decode(found[0].propose(FRESH).lean)
    best = (meaning.stop == STOPS[BEST_EXIT[0]]) & (meaning.target == TARGETS[BEST_EXIT[1]])
    assert best.mean() > 0.9


def test_the_exit_is_chosen_as_seen_from_the_side_that_is_taken():
    policy, _ = train_joint(planted(1.0, exit_edge=0.5, exit_by_move=True).window, CONFIG, 7)
    meaning = decode(policy.propose(FRESH).lean)
    along = meaning.side * FRESH[:, 1] > 0
    clear = np.abs(FRESH[:, 1]) > 0.002
    for chosen, exit_ in ((along, BEST_EXIT), (~along, AGAINST_EXIT)):
        right = (meaning.stop == STOPS[exit_[0]]) & (meaning.target == TARGETS[exit_[1]])
        for side in (1, -1):
            assert right[clear & chosen & (meaning.side == side)].mean() > 0.9


def test_more_expected_reward_for_its_scale_never_takes_a_smaller_size(found):
    policy, _ = found
    made, enter = policy.propose(FRESH), policy._predict("enter", FRESH)
    utility = (enter + np.abs(made.score)) / np.exp(policy._predict("size", FRESH))
    size = decode(made.lean).size[np.argsort(utility)]
    assert (np.diff(size) >= 0).all()
    assert {float(s) for s in size} == set(SIZES)


def test_a_mirrored_context_gets_the_opposite_score_and_the_other_side(found):
    policy, _ = found
    mirrored = np.where(np.isnan(CENTRE), FRESH, 2 * CENTRE - FRESH).astype(np.float32)
    made, turned = policy.propose(FRESH), policy.propose(mirrored)
    np.testing.assert_allclose(turned.score, -made.score, atol=1e-9)
    clear = np.abs(made.score) > 1e-9
    assert (decode(turned.lean).side[clear] == -decode(made.lean).side[clear]).all()


def test_noise_with_costs_is_left_alone():
    policy, _ = train_joint(planted(0.0, sessions=60).window, CONFIG, 7)
    made = policy.propose(FRESH)
    assert np.mean(made.action == FLAT) > 0.9
    assert ((made.lean >= 0) & (made.lean < 128)).all()


def test_the_same_window_configuration_and_seed_give_the_same_bytes(found):
    policy, truth = found
    joint.booster_of.cache_clear()
    again = train_joint(planted(1.0, exit_edge=0.3).window, CONFIG, 7)[0]
    assert again.to_json() == policy.to_json()
    assert version_of(again) == version_of(policy)
    assert train_joint(truth.window, CONFIG, 8)[0].to_json() != policy.to_json()
    assert train_joint(truth.window, replace(CONFIG, trees=59), 7)[0].to_json() != policy.to_json()


def test_a_policy_survives_its_own_text_bit_for_bit(found):
    policy, _ = found
    back = JointPolicy.from_json(policy.to_json())
    assert back == policy
    assert back.to_json() == policy.to_json()
    for mine, theirs in zip(policy.propose(FRESH), back.propose(FRESH), strict=True):
        assert (mine == theirs).all()


def test_a_policy_knows_its_features_and_the_last_session_it_learned_from(found):
    policy, truth = found
    assert policy.features == NAMES
    assert policy.trained_through == truth.window.sessions[-1].session


def test_unknown_features_and_unknown_rewards_are_no_obstacle():
    truth = planted(1.0, unknown=0.4)
    policy, _ = train_joint(truth.window, CONFIG, 7)
    made = policy.propose(FRESH)
    assert np.corrcoef(made.score, interaction(FRESH, 1.0))[0, 1] > 0.8
    blank = policy.propose(np.full((3, len(NAMES)), np.nan, np.float32))
    assert np.isfinite(blank.score).all()
    assert np.isfinite(blank.confidence).all()


def test_contexts_without_any_known_outcome_of_one_side_are_no_part_of_the_window():
    truth = planted(1.0, sessions=6, each=10)
    first = truth.window.sessions[0]
    rewards = first.rewards.copy()
    rewards[0, :64] = np.nan  # long unknown
    rewards[1, 64:] = np.nan  # short unknown
    rewards[2, :] = np.nan
    rewards[3, 1:64] = np.nan  # one long outcome is enough
    cut = TrainingWindow([replace(first, rewards=rewards), *truth.window.sessions[1:]])
    assert len(cut) == len(truth.window) - 3 == len(cut.features) == len(cut.rewards) == len(cut.session_index)
    assert cut.session_index.tolist() == [0] * 7 + [i for i in range(1, 6) for _ in range(10)]
    assert (cut.features[0] == first.features[3]).all()


def test_a_window_of_empty_sessions_is_empty():
    nothing = SessionContexts(
        date(2023, 1, 2), NAMES, np.empty((0, 4), np.float32), np.empty((0, 128), np.float32), np.empty(0, int), ()
    )
    assert len(TrainingWindow([nothing, nothing])) == 0
    assert np.isnan(nothing.random_reward)


def test_the_walk_forward_of_a_fold_does_not_change_with_what_came_after_it():
    truth = planted(0.5, sessions=12, each=30)
    sessions = truth.window.sessions
    later = [
        replace(s, rewards=-3 * s.rewards[::-1] + 1, features=s.features[::-1].copy()) for s in sessions[9:]
    ]  # the test block of the last of three folds
    walk = train_joint(truth.window, CONFIG, 7)[1]
    changed = train_joint(TrainingWindow([*sessions[:9], *later]), CONFIG, 7)[1]
    early = walk.fold < 2
    assert (changed.rows[early] == walk.rows[early]).all()
    for name in ("expected", "score", "reward", "random", "outcome"):
        assert (getattr(changed, name)[early] == getattr(walk, name)[early]).all(), name


def test_the_walk_forward_tests_whole_sessions_after_a_purged_past():
    truth = planted(0.5, sessions=12, each=30)
    walk = train_joint(truth.window, CONFIG, 7)[1]
    session = truth.window.session_index[walk.rows]
    assert [sorted(set(session[walk.fold == fold].tolist())) for fold in range(3)] == [
        [3, 4, 5],
        [6, 7, 8],
        [9, 10, 11],
    ]
    assert (np.bincount(session, minlength=12)[3:] == 30).all()


@pytest.mark.parametrize("won", [True, False])
def test_confidence_stays_a_number_where_every_trade_won_or_lost(won: bool):
    sign = 1.0 if won else -1.0
    truth = planted(0.0, sessions=8, each=20, noise=0.0)
    sessions = [replace(s, rewards=np.full_like(s.rewards, sign)) for s in truth.window.sessions]
    made = train_joint(TrainingWindow(sessions), CONFIG, 7)[0].propose(FRESH)
    assert np.isfinite(made.confidence).all()
    assert ((made.confidence > 0.5) == won).all()
    assert ((made.action != FLAT) == won).all()


def test_input_is_not_modified(found):
    policy, truth = found
    X = FRESH.copy()
    policy.propose(X)
    assert (X == FRESH).all()
    assert (truth.window.features == planted(1.0, exit_edge=0.3).window.features).all()
