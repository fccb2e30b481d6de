"""The walk-forward by itself: what the policy is calibrated on, and what it is without a feature or with less past."""

from dataclasses import replace

import numpy as np
import pytest
from plantedwindows import NAMES, planted

from odin_core.evaluation.splits import TooFewSessions
from odin_core.lifecycle.config import LearnerConfig
from odin_core.policies.joint import WalkForward, train_joint, walk_forward
from odin_core.training.window import TrainingWindow

CONFIG = LearnerConfig(trees=15, leaves=7)
WINDOW = planted(1.0).window


def same(one: WalkForward, other: WalkForward) -> bool:
    return all(np.array_equal(vars(one)[name], vars(other)[name], equal_nan=True) for name in vars(one))


def cut(window: TrainingWindow, names: tuple[str, ...]) -> TrainingWindow:
    """The window as it would be had only these features been there."""
    keep = [window.names.index(name) for name in names]
    return TrainingWindow([replace(s, names=names, features=s.features[:, keep]) for s in window.sessions])


def test_it_is_the_walk_forward_that_the_policy_is_calibrated_on():
    assert same(walk_forward(WINDOW, CONFIG, 7), train_joint(WINDOW, CONFIG, 7)[1])


def test_every_session_after_the_first_block_is_predicted_once_and_in_order():
    walk, session = walk_forward(WINDOW, CONFIG, 7), WINDOW.session_index
    assert sorted(set(session[walk.rows])) == list(range(6, 24))
    assert len(np.unique(walk.rows)) == len(walk.rows)
    assert (np.diff(session[walk.rows]) >= 0).all()


@pytest.mark.parametrize("without", [("rsi_14_15m",), ("simple_return_18_5m", "natr_14_60m")], ids=["one", "two"])
def test_a_feature_left_out_is_as_if_it_had_never_been_there(without):
    left = tuple(name for name in NAMES if name not in without)
    assert same(walk_forward(WINDOW, CONFIG, 7, without=without), walk_forward(cut(WINDOW, left), CONFIG, 7))


def test_a_look_back_over_everything_changes_nothing():
    assert same(walk_forward(WINDOW, CONFIG, 7, lookback=24), walk_forward(WINDOW, CONFIG, 7))


def test_what_came_before_the_look_back_has_no_say():
    rng = np.random.default_rng(0)
    first, *rest = WINDOW.sessions
    scrambled = TrainingWindow([replace(first, rewards=rng.permutation(first.rewards)), *rest])
    tested = walk_forward(WINDOW, CONFIG, 7, lookback=4).rows
    assert np.array_equal(tested, walk_forward(WINDOW, CONFIG, 7).rows)
    assert same(walk_forward(WINDOW, CONFIG, 7, lookback=4), walk_forward(scrambled, CONFIG, 7, lookback=4))
    assert not same(walk_forward(WINDOW, CONFIG, 7), walk_forward(scrambled, CONFIG, 7))


def test_an_unknown_feature_and_no_feature_left_are_refused():
    with pytest.raises(ValueError, match=r"no feature rsi_15m; it has rsi_14_15m"):
        walk_forward(WINDOW, CONFIG, 7, without=("rsi_15m",))
    with pytest.raises(ValueError, match="no feature is left"):
        walk_forward(WINDOW, CONFIG, 7, without=NAMES)


def test_too_short_a_window_is_refused():
    with pytest.raises(TooFewSessions):
        walk_forward(TrainingWindow(WINDOW.sessions[:4]), CONFIG, 7)
