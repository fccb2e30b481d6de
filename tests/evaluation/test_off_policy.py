"""What a policy would have earned by another one's log: enumerated bandits, and logs of real lives beside the truth."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from odin_core.errors import OdinError
from odin_core.evaluation.off_policy import (
    Confidence,
    Logged,
    NothingLogged,
    agreement,
    choices,
    doubly_robust,
    earned,
    expected_reward,
    from_replay,
    inverse_propensity,
    linear_rewards,
    self_normalised,
)
from odin_core.evaluation.sequential import cluster_mean_interval
from odin_core.policies import uniform
from odin_core.policies.actions import ACTIONS, FLAT
from odin_core.replay.record import REPLAY

CONTEXTS, CHOICES = 2, 3
REWARD = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
LOGGING = np.array([[2, 1, 1], [1, 1, 2]]) / 4  # propensities in quarters
TARGET = np.array([[0.1, 0.6, 0.3], [0.5, 0.5, 0.0]])
TRUTH = float((TARGET * REWARD).sum(axis=1).mean())  # contexts equally likely
MODELS = {"right": REWARD, "wrong": np.array([[5.0, 1.0, -3.0], [2.0, 2.0, 7.0]])}
EVERYTHING = np.array([(x, a) for x in range(CONTEXTS) for a in range(CHOICES) for _ in range(int(4 * LOGGING[x, a]))])


def logged(rows: np.ndarray, propensity: np.ndarray = LOGGING, reward: np.ndarray = REWARD) -> Logged:
    """A log of (context, choice) rows, each its own session."""
    at = (rows[:, 0], rows[:, 1])
    return Logged(reward=reward[at], propensity=propensity[at], target=TARGET[at], session=np.arange(len(rows)))


def by_model(rows: np.ndarray, model: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `model` predicts for the rows' choices, and expects of the target there."""
    return model[rows[:, 0], rows[:, 1]], expected_reward(model[rows[:, 0]], TARGET[rows[:, 0]])


def every_log(rows: int):
    """Every log of so many rows, with its probability."""
    one = [((x, a), LOGGING[x, a] / CONTEXTS) for x in range(CONTEXTS) for a in range(CHOICES)]
    for drawn in itertools.product(one, repeat=rows):
        yield np.array([pair for pair, _ in drawn]), math.prod(chance for _, chance in drawn)


def test_on_a_log_with_every_choice_as_often_as_its_propensity_says_all_three_are_exact():
    log = logged(EVERYTHING)
    assert inverse_propensity(log).value == pytest.approx(TRUTH)
    assert self_normalised(log).value == pytest.approx(TRUTH)
    for model in MODELS.values():
        assert doubly_robust(log, *by_model(EVERYTHING, model)).value == pytest.approx(TRUTH)
    assert inverse_propensity(log).mean_weight == pytest.approx(1)


@pytest.mark.parametrize("model", MODELS)
def test_over_all_possible_logs_ips_and_dr_are_unbiased_whatever_the_model(model):
    total = chance = ips = dr = 0.0
    for rows, probability in every_log(3):
        log = logged(rows)
        chance += probability
        ips += probability * inverse_propensity(log).value
        dr += probability * doubly_robust(log, *by_model(rows, MODELS[model])).value
        total += probability * log.reward.mean()
    assert chance == pytest.approx(1)
    assert ips == pytest.approx(TRUTH)
    assert dr == pytest.approx(TRUTH)
    assert total != pytest.approx(TRUTH, abs=0.05)  # what the logging policy earned is another number


def test_over_all_possible_logs_the_bias_of_snips_shrinks_with_their_length():
    bias = []
    for length in (1, 3, 5):
        found = [(self_normalised(logged(rows)).value, p) for rows, p in every_log(length)]
        known = [(v, p) for v, p in found if not math.isnan(v)]
        bias.append(abs(sum(v * p for v, p in known) / sum(p for _, p in known) - TRUTH))
    assert bias[0] > bias[1] > bias[2]
    assert bias[2] < 0.45 * bias[0]


def test_with_wrong_propensities_only_the_right_model_is_right():
    wrong = np.array([[0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])
    log = logged(EVERYTHING, wrong)
    assert doubly_robust(log, *by_model(EVERYTHING, MODELS["right"])).value == pytest.approx(TRUTH)
    assert doubly_robust(log, *by_model(EVERYTHING, MODELS["wrong"])).value != pytest.approx(TRUTH, abs=0.1)
    assert inverse_propensity(log).value != pytest.approx(TRUTH, abs=0.1)
    assert self_normalised(log).value != pytest.approx(TRUTH, abs=0.1)


def test_a_good_model_takes_the_noise_of_the_weights_away():
    rng = np.random.default_rng(1)
    rows = np.stack([rng.integers(0, CONTEXTS, 400), rng.integers(0, CHOICES, 400)], axis=1)
    flat = np.full((CONTEXTS, CHOICES), 1 / CHOICES)
    plain = inverse_propensity(logged(rows, flat))
    helped = doubly_robust(logged(rows, flat), *by_model(rows, MODELS["right"]))
    assert helped.error < 0.6 * plain.error
    assert helped.lower < TRUTH < helped.upper


LOGS = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, n, elements=st.floats(-3, 3)),
        hnp.arrays(np.float64, n, elements=st.floats(0.05, 1)),
        hnp.arrays(np.float64, n, elements=st.floats(1e-6, 1) | st.just(0.0)),
        hnp.arrays(np.int64, n, elements=st.integers(0, 6)),
    )
)


def of(drawn: tuple[np.ndarray, ...]) -> Logged:
    reward, propensity, target, session = drawn
    return Logged(reward=reward, propensity=propensity, target=target, session=session)


@given(LOGS)
def test_ips_is_a_mean_with_the_interval_of_a_mean_of_clusters(drawn):
    log = of(drawn)
    found = inverse_propensity(log)
    expected = cluster_mean_interval(log.target / log.propensity * log.reward, log.session)
    assert (found.value, found.lower, found.upper, found.sessions) == pytest.approx(expected, abs=1e-9)


@given(LOGS, st.floats(-5, 5), st.floats(0.1, 3))
def test_snips_moves_with_the_rewards_zero_and_unit_and_stays_inside_them(drawn, shift, scale):
    log = of(drawn)
    found = self_normalised(log)
    if not log.target.any():
        assert math.isnan(found.value)
        return
    moved = self_normalised(of((scale * log.reward + shift, *drawn[1:])))
    assert moved.value == pytest.approx(scale * found.value + shift, abs=1e-9)
    assert moved.error == pytest.approx(scale * found.error, abs=1e-9, nan_ok=True)
    told = log.reward[log.target > 0]
    assert told.min() - 1e-9 <= found.value <= told.max() + 1e-9


@given(LOGS)
def test_with_a_model_that_predicts_nothing_dr_is_ips_and_with_itself_as_target_ips_is_the_mean(drawn):
    log = of(drawn)
    nothing = np.zeros(log.reward.size)
    assert doubly_robust(log, nothing, nothing) == inverse_propensity(log)
    itself = Logged(reward=log.reward, propensity=log.propensity, target=log.propensity, session=log.session)
    assert inverse_propensity(itself).value == pytest.approx(log.reward.mean())
    assert inverse_propensity(itself).effective_rows == pytest.approx(log.reward.size)


@given(LOGS, st.floats(0.2, 5))
def test_clipped_weights_are_at_most_the_clip_and_are_counted(drawn, clip):
    log = of(drawn)
    weight = log.target / log.propensity
    assert log.weights(clip).max() <= clip
    found = inverse_propensity(log, clip=clip)
    assert found.value == pytest.approx(np.mean(np.minimum(weight, clip) * log.reward))
    assert found.clipped == np.mean(weight > clip)
    assert found.effective_rows >= inverse_propensity(log).effective_rows - 1e-9
    assert self_normalised(log, clip=1e9)[:4] == pytest.approx(self_normalised(log)[:4], nan_ok=True)


def bandit(seed: int, sessions: int, each: int = 15, sharp: float = 1.0) -> tuple[Logged, float]:
    """A log of correlated sessions with right-skewed rewards, and the target's true value. `sharp`: how far the target
    lies from the uniform logging policy over four choices."""
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(sessions), each)
    target = np.exp(sharp * np.arange(4)) / np.exp(sharp * np.arange(4)).sum()
    choice = rng.integers(0, 4, session.size)
    common = rng.exponential(1.0, sessions)[session] - 1
    reward = 0.5 * choice + common + rng.standard_normal(session.size)
    quarter = np.full(session.size, 0.25)
    log = Logged(reward=reward, propensity=quarter, target=target[choice], session=session)
    return log, float(0.5 * target @ np.arange(4))


@pytest.mark.parametrize("method", ["student", "bootstrap"])
@pytest.mark.parametrize("estimator", [inverse_propensity, self_normalised])
@pytest.mark.parametrize("sessions", [12, 60])
def test_the_intervals_hold_the_truth_about_as_often_as_they_say(sessions, estimator, method):
    held = []
    for seed in range(150):
        log, truth = bandit(seed, sessions)
        found = estimator(log, confidence=Confidence(method, draws=300, seed=seed))
        held.append(found.lower <= truth <= found.upper)
    assert np.mean(held) >= 0.88


def test_rows_taken_for_independent_would_promise_too_much():
    held = []
    for seed in range(150):
        log, truth = bandit(seed, 30)
        alone = Logged(
            reward=log.reward, propensity=log.propensity, target=log.target, session=np.arange(log.reward.size)
        )
        found = inverse_propensity(alone)
        held.append(found.lower <= truth <= found.upper)
    assert np.mean(held) < 0.85


def test_the_bootstrap_is_the_same_for_the_same_seed_and_leans_with_the_skew():
    log, _ = bandit(3, 15)
    told = Confidence("bootstrap", seed=5)
    found = inverse_propensity(log, confidence=told)
    assert found == inverse_propensity(log, confidence=told)
    assert found.upper - found.value > found.value - found.lower  # exponential common moves: long on the right


def test_too_little_to_say_anything_gives_all_numbers():
    one = Logged(reward=np.ones(3), propensity=np.ones(3), target=np.ones(3), session=np.zeros(3))
    for method in ("student", "bootstrap"):
        found = inverse_propensity(one, confidence=Confidence(method))
        assert (found.value, found.lower, found.upper) == (1.0, -math.inf, math.inf)
    never = Logged(reward=np.ones(3), propensity=np.ones(3), target=np.zeros(3), session=np.arange(3))
    assert math.isnan(self_normalised(never).value)
    assert never.weights().sum() == 0
    assert inverse_propensity(never).without_overlap == 1
    with pytest.raises(ValueError, match="error rate"):
        inverse_propensity(one, confidence=Confidence(alpha=0))


def test_doubts_are_said_where_they_are_due_and_not_elsewhere():
    log, _ = bandit(1, 60)
    assert inverse_propensity(log).doubts == ()
    few, _ = bandit(1, 1)
    assert "effective" in inverse_propensity(few).doubts[0]
    halved = Logged(reward=log.reward, propensity=log.propensity / 2, target=log.target, session=log.session)
    assert any("mean weight is 2" in doubt for doubt in inverse_propensity(halved).doubts)
    propensity = log.propensity.copy()
    propensity[0] = 1e-5
    heavy = Logged(reward=log.reward, propensity=propensity, target=log.target, session=log.session)
    assert any("one row carries" in doubt for doubt in inverse_propensity(heavy).doubts)
    assert not any("one row" in doubt for doubt in inverse_propensity(heavy, clip=4).doubts)
    assert any("towards 0" in doubt for doubt in inverse_propensity(log, clip=1).doubts)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"propensity": np.array([0.0, 1.0])}, "had a chance", id="propensity 0"),
        pytest.param({"propensity": np.array([0.5, math.nan])}, "had a chance", id="propensity unknown"),
        pytest.param({"target": np.array([0.5, 1.5])}, r"\[0, 1\]", id="target above 1"),
        pytest.param({"reward": np.array([0.5, math.nan])}, "not finite", id="reward unknown"),
        pytest.param({"session": np.array([1])}, "one row per decision", id="lengths differ"),
    ],
)
def test_a_log_that_cannot_be_is_refused(change, said):
    right = {"reward": np.ones(2), "propensity": np.ones(2), "target": np.ones(2), "session": np.arange(2)}
    with pytest.raises(ValueError, match=said):
        Logged(**(right | change))
    with pytest.raises(ValueError, match="above 0"):
        Logged(**right).weights(0.0)
    with pytest.raises(ValueError, match="one number per row"):
        doubly_robust(Logged(**right), [1.0], [1.0])
    with pytest.raises(ValueError, match="cannot value"):
        doubly_robust(Logged(**right), [1.0, math.nan], [1.0, 1.0])


def planted(seed: int = 0, sessions: int = 40, each: int = 25):
    """Choices of the uniform policy, rewards that follow x₀ with the side and x₁ whatever the side."""
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(sessions), each)
    x = 5 * rng.standard_normal((session.size, 3)) + 100
    drawn = uniform.propose(session.size, 0.5, rng)
    side = np.where(drawn.action < ACTIONS // 2, 1.0, -1.0)
    mean = 0.2 * (x[:, 1] - 100) + side * 0.3 * (x[:, 0] - 100)
    noise = 0.5 * rng.standard_normal(session.size)
    reward = np.where(drawn.action == FLAT, 0.0, mean + noise)
    buys = 0.2 * (x[:, 1] - 100) + 0.3 * (x[:, 0] - 100)
    return x, drawn.action, reward, session, float(buys.mean())


def test_a_linear_model_of_rewards_finds_what_is_linear_and_narrows_the_interval():
    x, chosen, reward, session, truth = planted()
    sides = np.tile([1.0, 0.0], (len(chosen), 1))
    predicted, expected = linear_rewards(x, chosen, reward, session, sides)
    assert (predicted[chosen == FLAT] == 0).all()
    traded = chosen != FLAT
    assert np.corrcoef(predicted[traded], reward[traded])[0, 1] > 0.95
    bought = agreement(np.zeros(len(chosen), np.int64), chosen, "side")
    log = Logged(reward=reward, propensity=uniform.probability(chosen, 0.5), target=bought, session=session)
    plain, helped = inverse_propensity(log), doubly_robust(log, predicted, expected)
    assert helped.lower < truth < helped.upper
    assert helped.error < 0.75 * plain.error


def test_no_row_is_predicted_by_a_model_that_saw_its_session():
    x, chosen, reward, session, _ = planted()
    sides = np.full((len(chosen), 2), 0.5)
    before = linear_rewards(x, chosen, reward, session, sides)
    fold = session < 8  # the first of five
    after = linear_rewards(x, chosen, np.where(fold, 99.0, reward), session, sides)
    np.testing.assert_array_equal(after[0][fold], before[0][fold])
    np.testing.assert_array_equal(after[1][fold], before[1][fold])
    assert (after[0][~fold & (chosen != FLAT)] != before[0][~fold & (chosen != FLAT)]).all()


def test_unknown_rewards_and_features_take_no_part_in_the_model():
    x, chosen, reward, session, _ = planted()
    sides = np.full((len(chosen), 2), 0.5)
    x[:, 2], x[5, 0] = 7.0, math.nan  # one feature is constant
    unknown = np.where(np.arange(len(reward)) % 9 == 0, math.nan, reward)
    predicted, expected = linear_rewards(x, chosen, unknown, session, sides)
    assert np.isfinite(predicted).all()
    assert np.isfinite(expected).all()
    with pytest.raises(ValueError, match="columns are features"):
        linear_rewards(reward, chosen, reward, session, sides)


def records(**columns: list) -> pl.DataFrame:
    """Decision records with what off-policy evaluation reads of them."""
    n = len(columns["status"])
    frame = pl.DataFrame(columns | {"session": list(range(n))})
    return frame.cast({c: REPLAY[c] for c in frame.columns if c != "session"})


RECORDS = {
    "status": ["taken", "skipped", "rejected", "taken", "taken"],
    "action": [5, 9, 70, 3, 4],
    "propensity": [0.1, 0.65, 0.1, 0.1, 0.1],
    "reward": [1.5, 9.0, -2.0, None, None],
    "complete": [True, True, True, False, False],
    "exit_reason": ["time", "time", "stop", "unfilled", None],
}


def test_a_choice_is_the_action_of_what_was_taken_or_rejected_and_flat_for_what_was_skipped():
    assert choices(records(**RECORDS)).tolist() == [5, FLAT, 70, 3, 4]


def test_skipping_and_never_filled_orders_earn_nothing_and_unknown_outcomes_are_left_out():
    log = from_replay(records(**RECORDS), np.full(5, 0.2))
    assert log.reward.tolist() == [1.5, 0.0, -2.0, 0.0]
    assert log.session.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(earned(records(**RECORDS)), [1.5, 0.0, -2.0, 0.0, math.nan])
    with pytest.raises(NothingLogged, match="run the life on") as refused:
        from_replay(records(**RECORDS)[4:], [0.2])
    assert isinstance(refused.value, OdinError)
    with pytest.raises(ValueError, match="one probability per record"):
        from_replay(records(**RECORDS), [0.2])


def test_agreement_is_a_probability_over_all_choices():
    everything = np.arange(-1, ACTIONS)
    for proposed in (FLAT, 0, 63, 64, ACTIONS - 1):
        for match in ("action", "side"):
            given_to = agreement(np.full(ACTIONS + 1, proposed), everything, match)
            assert given_to.sum() == pytest.approx(1)
            assert given_to[proposed + 1] > 0
    with pytest.raises(ValueError, match="'action' for the whole action"):
        agreement(everything, everything, "size")  # pyright: ignore[reportArgumentType]
