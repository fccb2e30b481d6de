"""Distillation: teachers with a known rule, the student that mimics them, and the loss that is reported."""

from datetime import date

import numpy as np
import pytest
from plantedlogs import CONTEXTS, contexts, planted_window
from smalllives import climbed

from odin_core.evaluation.splits import TooFewSessions
from odin_core.lifecycle.config import LearnerConfig
from odin_core.lifecycle.shadow_learners import GridShadow
from odin_core.policies.actions import ACTIONS, FLAT, SHAPE, decode, encode
from odin_core.policies.joint import JointPolicy, version_of
from odin_core.rl import choices as environment
from odin_core.rl.choices import Choices
from odin_core.rl.distillation import TeacherHardlyTrades, agreement_of, distil
from odin_core.rl.teaching import Taught, grid_actions, lesson, nearest_actions, position_of, taught_by

LEARNER = LearnerConfig(trees=40, min_leaf=10)
STRENGTH = 1.0


def zeros(n: int) -> np.ndarray:
    return np.zeros(n, np.int64)


def by_rule(X: np.ndarray, size: int = 2, stop: int = 1, target: int = 2) -> np.ndarray:
    """Trades where the last 90 minutes moved by more than half a percent: with it on high volume, else against it."""
    side = np.where(np.sign(X[:, 1]) * np.sign(X[:, 2]) > 0, 0, 1)
    n = len(X)
    action = encode(side, np.full(n, size), np.full(n, stop), np.full(n, target))
    return np.where(np.abs(X[:, 1]) > 0.005, action, FLAT)


@pytest.fixture(scope="module")
def window():
    return planted_window(STRENGTH)


@pytest.fixture(scope="module")
def distilled(window):
    return distil(window, Taught.sure("rule", by_rule(window.features), date(2022, 12, 31)), LEARNER, 7)


def test_the_student_does_what_the_teacher_does(window, distilled):
    fresh = contexts(2000, np.random.default_rng(99))
    student, teacher = distilled.policy.propose(fresh).action, by_rule(fresh)
    found = agreement_of(teacher, student)
    assert found["position"] > 0.8
    assert found["side"] > 0.95
    assert found["size"] > 0.8
    assert found["stop"] == found["target"] == 1
    assert abs((student != FLAT).mean() - (teacher != FLAT).mean()) < 0.1
    assert distilled.report.agreement["position"] > 0.75


@pytest.mark.parametrize("size", range(SHAPE[1]))
def test_each_size_is_mimicked(window, size):
    fresh = contexts(500, np.random.default_rng(5))
    action = by_rule(window.features, size=size)
    student = distil(window, Taught.sure("rule", action), LEARNER, 7).policy.propose(fresh).action
    sizes = np.unravel_index(student[student != FLAT], SHAPE)[1]
    assert (sizes == size).mean() > 0.75


def test_exits_that_depend_on_the_context_are_mimicked(window):
    X = window.features
    action = np.where(X[:, 2] > 0, by_rule(X, stop=0, target=3), by_rule(X, stop=3, target=0))
    student = distil(window, Taught.sure("rule", action), LEARNER, 7)
    fresh = contexts(1000, np.random.default_rng(4))
    mine = student.policy.propose(fresh).action
    traded = mine != FLAT
    stops = decode(mine[traded]).stop
    assert (stops == np.where(fresh[traded, 2] > 0, 1.0, 3.0)).mean() > 0.9


def test_loss_and_gain_are_those_of_the_actions_on_later_sessions(window, distilled):
    report = distilled.report
    later = window.session_index >= len(window.sessions) - report.sessions
    action = by_rule(window.features)[later]
    rewards = window.rewards[later]
    earned = np.where(action == FLAT, 0.0, rewards[np.arange(len(action)), np.maximum(action, 0)])
    teacher, student, outcomes = report.compared.to_dicts()
    assert (teacher["policy"], student["policy"]) == ("teacher", "student")
    assert teacher["reward"] == pytest.approx(earned.mean())
    assert teacher["trades"] == pytest.approx((action != FLAT).mean())
    assert teacher["per_trade"] == pytest.approx(earned[action != FLAT].mean())
    assert report.loss["difference"] == pytest.approx(student["reward"] - teacher["reward"])
    assert report.over_joint["difference"] == pytest.approx(student["reward"] - outcomes["reward"])
    assert abs(report.loss["difference"]) < 0.15
    assert student["lower"] < student["reward"] < student["upper"]
    assert report.first == window.sessions[-report.sessions].session


def test_the_student_is_a_candidate_like_any_other(window, distilled):
    policy = distilled.policy
    assert isinstance(policy, JointPolicy)
    assert policy.trained_through == window.last_session
    assert policy.features == CONTEXTS
    assert JointPolicy.from_json(policy.to_json()) == policy
    assert distilled.report.student == version_of(policy)
    walk = distilled.walk
    assert len(walk.rows) == len(walk.expected) == len(walk.reward)
    assert np.mean(walk.reward[walk.expected > 0]) > np.mean(walk.random)
    proposals = policy.propose(window.features)
    won = proposals.confidence[proposals.action != FLAT].mean()
    assert 0.4 < won < 1


def test_the_same_again_is_the_same_text(window):
    taught = Taught.sure("rule", by_rule(window.features))
    one, other = (distil(window, taught, LearnerConfig(trees=5), 3) for _ in range(2))
    assert one.policy.to_json() == other.policy.to_json()
    assert one.report.to_dict() == other.report.to_dict()


def test_confidence_is_of_outcomes_and_not_of_the_teachers_word(window):
    """A teacher that always takes the wrong side is mimicked, and not believed."""
    action = by_rule(window.features)
    wrong = np.where(action == FLAT, FLAT, (action + ACTIONS // 2) % ACTIONS)
    found = distil(window, Taught.sure("wrong", wrong), LEARNER, 7)
    proposals = found.policy.propose(window.features)
    traded = proposals.action != FLAT
    assert agreement_of(wrong, proposals.action)["side"] > 0.95
    assert proposals.confidence[traded].mean() < 0.3
    assert found.report.compared["reward"][1] < 0


def test_probabilities_teach_more_softly_than_choices(window):
    action = by_rule(window.features)
    position = position_of(action)
    soft = np.full((len(action), 3), 0.2)
    soft[np.arange(len(action)), position] = 0.6
    found = distil(window, Taught("soft", action, soft), LEARNER, 7)
    fresh = contexts(1000, np.random.default_rng(1))
    assert agreement_of(by_rule(fresh), found.policy.propose(fresh).action)["position"] > 0.75
    with pytest.raises(ValueError, match="sum to 1"):
        Taught("odd", action, soft * 2)


def test_a_teacher_that_had_seen_the_sessions_is_noted(window):
    taught = Taught.sure("late", by_rule(window.features), window.last_session)
    assert any("had seen" in note for note in distil(window, taught, LearnerConfig(trees=5), 1).report.notes)
    between = window.sessions[len(window.sessions) // 2].session  # before what is held out, not before all folds
    taught = Taught.sure("half", by_rule(window.features), between)
    notes = distil(window, taught, LearnerConfig(trees=5), 1).report.notes
    assert [note.partition(" was fitted")[0] for note in notes] == ["The student's confidence"]
    unknown = Taught.sure("unknown", by_rule(window.features))
    report = distil(window, unknown, LearnerConfig(trees=5), 1).report
    assert any("not known" in note for note in report.notes)
    assert "Agreement with the teacher" in report.markdown()


def test_choices_of_the_environment_go_to_the_nearest_of_the_grid():
    n = 4
    long = np.full(n, environment.LONG)
    for axis, wanted in (
        ("size", [0.0025, 0.005, 0.01, 0.01]), ("stop", [1.0, 1.5, 2.0, 3.0]), ("target", [1.5, 2.0, 3.0, 3.0]),
    ):  # fmt: skip
        chosen = Choices(long, *(np.arange(n) if name == axis else zeros(n) for name in ("size", "stop", "target")))
        assert list(getattr(decode(grid_actions(chosen)), axis)) == wanted
    positions = np.array([environment.FLAT, environment.LONG, environment.SHORT])
    found = grid_actions(Choices(positions, zeros(3), zeros(3), zeros(3)))
    assert found[0] == FLAT
    assert list(position_of(found)) == [0, 1, 2]


def test_a_policy_of_the_environment_is_asked_for_its_choices():
    class Always:
        def choose(self, observations):
            n = len(observations)
            return Choices(np.full(n, environment.SHORT), *(np.ones(n, np.int64),) * 3)

    taught = taught_by(Always(), np.zeros((5, 9)), "always-1", date(2023, 1, 2))
    assert (position_of(taught.action) == 2).all()
    assert (taught.sides == [0, 0, 1]).all()
    assert (taught.name, taught.trained_through) == ("always-1", date(2023, 1, 2))
    unknown = np.zeros((2, 9), np.float32)
    unknown[1, 3] = np.nan
    assert list(position_of(taught_by(Always(), unknown, "always-1").action)) == [2, 0]


def test_every_action_of_the_grid_is_nearest_to_itself():
    every = np.arange(ACTIONS)
    np.testing.assert_array_equal(nearest_actions(*decode(every)), every)


def test_a_life_s_contexts_are_those_that_the_window_holds_and_asked_at_the_close_before():
    life, data = climbed()
    model = life.registry.model(life.registry.versions()[-1])
    asked = []

    class Watched(GridShadow):
        def choose(self, contexts, as_of):
            asked.append((contexts["session"][0], as_of))
            return super().choose(contexts, as_of)

    window, taught = lesson(life, data, Watched("joint", "joint-1", model))
    np.testing.assert_array_equal(taught.action, model.propose(window.features).action)
    assert taught.trained_through == model.trained_through
    assert [session for session, _ in asked] == [data.calendar.previous(s.session) for s in window.sessions]
    assert all(as_of == data.calendar.hours(session).close for session, as_of in asked)
    midway = life.commits()[9]
    assert lesson(life, data, Watched("joint", "joint-1", model), through=midway)[0].last_session <= midway


def test_agreement_counts_what_it_says():
    same = int(encode(*(np.array(i) for i in (0, 1, 2, 3))))
    other_size = int(encode(*(np.array(i) for i in (0, 2, 2, 3))))
    short = int(encode(*(np.array(i) for i in (1, 1, 2, 3))))
    found = agreement_of(np.array([FLAT, same, same, same]), np.array([FLAT, same, other_size, short]))
    assert found == {"position": 0.75, "action": 0.5, "side": pytest.approx(2 / 3), "size": 0.5, "stop": 1, "target": 1}


def test_what_cannot_be_taught_is_refused(window):
    n = len(window)
    with pytest.raises(TeacherHardlyTrades, match="trades 0 time"):
        distil(window, Taught.sure("idle", np.full(n, FLAT)), LEARNER, 1)
    with pytest.raises(ValueError, match="one choice per context"):
        distil(window, Taught.sure("short", np.full(3, FLAT)), LEARNER, 1)
    few = planted_window(STRENGTH, sessions=3)
    with pytest.raises(TooFewSessions):
        distil(few, Taught.sure("rule", by_rule(few.features)), LEARNER, 1)
