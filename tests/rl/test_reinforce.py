"""REINFORCE on logged decisions, where the answer is known: enumerated bandits, planted edges, shuffled outcomes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from plantedlogs import COST, MIRRORED, planted_log, shuffled

from odin_core.evaluation.off_policy import Logged, inverse_propensity
from odin_core.policies.actions import ACTIONS, FLAT
from odin_core.rl.checkpoint import CheckpointOfAnother
from odin_core.rl.offline_config import ReinforceConfig
from odin_core.rl.offline_data import column, grid_reward
from odin_core.rl.offline_evidence import (
    NothingToLearnFrom,
    NothingTurns,
    baseline,
    evidence,
    learned_from,
    relative_reward,
)
from odin_core.rl.reinforce import Batch, Softmax, learn, one_thread, reinforce_step
from odin_core.rl.reinforce_policy import PolicyUnreadable, ReinforcePolicy, Scaling, log_prior
from odin_core.rl.reward_engine import objective

ARMS = (5, FLAT)
PAYS = {5: 1.5, FLAT: -0.5}
PROPENSITY = {5: 0.2, FLAT: 0.8}
PLAIN = {"sharpe": 0.0, "drawdown": 0.0, "entropy": 0.0, "self_normalised": False, "baseline": "none", "clip": 1e9}
QUICK = ReinforceConfig(steps=150, hidden=4, mirrored=False, learning_rate=0.03)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def bandit(chosen: tuple[int, ...], constant: float = 0.0) -> Batch:
    n = len(chosen)
    allowed = torch.zeros(n, ACTIONS + 1, dtype=torch.bool)
    allowed[:, [5, ACTIONS]] = True
    return Batch(
        torch.zeros(n, 1, dtype=torch.float64),
        allowed,
        torch.from_numpy(column(np.array(chosen))),
        np.array([PROPENSITY[a] for a in chosen]),
        np.array([PAYS[a] for a in chosen]),
        np.arange(n),
        np.full(n, constant),
        np.ones(n, np.int64),
        np.full(n, constant),
    )


def gradient(chosen: tuple[int, ...], theta: np.ndarray, config: ReinforceConfig, constant: float = 0.0) -> np.ndarray:
    """Of −loss in the two arms' logits."""
    batch, logits = bandit(chosen, constant), torch.tensor(theta, requires_grad=True)
    whole = torch.full((len(chosen), ACTIONS + 1), -torch.inf, dtype=torch.float64)
    whole[:, 5], whole[:, ACTIONS] = logits[0], logits[1]
    step = reinforce_step(torch.log_softmax(whole, dim=1), batch, torch.from_numpy(log_prior(0.5)), config)
    (found,) = torch.autograd.grad(-step.loss, logits)
    return found.numpy()


@pytest.mark.parametrize("constant", [0.0, 0.7], ids=["no baseline", "a baseline"])
def test_over_all_possible_logs_the_mean_gradient_is_the_analytic_one(constant):
    theta = np.array([0.3, -0.4])
    chance = np.exp(theta) / np.exp(theta).sum()
    worth = np.array([PAYS[a] for a in ARMS])
    analytic = chance * (worth - chance @ worth)
    mean = np.zeros(2)
    for chosen in itertools.product(ARMS, repeat=3):
        probability = np.prod([PROPENSITY[a] for a in chosen])
        mean += probability * gradient(chosen, theta, ReinforceConfig(**PLAIN), constant)
    np.testing.assert_allclose(mean, analytic, atol=1e-12)


def test_the_self_normalised_gradient_is_the_slope_of_the_self_normalised_value():
    config = ReinforceConfig(**(PLAIN | {"self_normalised": True, "sharpe": 0.4, "drawdown": 0.3}))
    chosen, theta = (5, FLAT, 5, FLAT, FLAT), np.array([0.3, -0.4])

    def value(at: np.ndarray) -> float:
        chance = dict(zip(ARMS, np.exp(at) / np.exp(at).sum(), strict=True))
        weights = np.array([chance[a] / PROPENSITY[a] for a in chosen])
        return objective(np.array([PAYS[a] for a in chosen]), weights, np.arange(5), config.risk).value

    numeric = [(value(theta + move) - value(theta - move)) / 2e-6 for move in np.eye(2) * 1e-6]
    np.testing.assert_allclose(gradient(chosen, theta, config), numeric, atol=1e-6)


def test_the_bonus_pulls_towards_the_prior():
    config = ReinforceConfig(**(PLAIN | {"entropy": 1.0, "mean": 0.0}))
    towards = gradient((5, FLAT), np.array([2.0, -2.0]), config)
    assert towards[0] < 0 < towards[1]


@pytest.mark.parametrize("kind", ["explored", "choices"])
def test_evidence_of_either_kind_values_a_policy_without_bias(kind):
    found = planted_log(0.5, sessions=300, each=40, noise=0.1)
    target = np.append(np.full(ACTIONS // 2, 0.6 / 64), np.append(np.full(ACTIONS // 2, 0.1 / 64), 0.3))
    known = evidence(found, kind)
    log = Logged(
        reward=known.reward, propensity=known.propensity, target=target[column(known.choice)],
        session=found.session[known.row],
    )  # fmt: skip
    truth = grid_reward(found, np.tile(target, (len(found), 1))).mean()
    per_decision = len(known.row) / len(found)
    value = inverse_propensity(log)
    assert abs(value.value * per_decision - truth) < 4 * value.error * per_decision
    assert value.error * per_decision < 0.03


def test_what_was_skipped_teaches_as_much_as_what_was_taken():
    found = planted_log(0.5)
    assert set(evidence(found, "choices").choice) != {FLAT}
    known = evidence(found, "explored")
    actions = known.choice != FLAT
    assert actions.sum() == len(found)
    np.testing.assert_array_equal(known.reward[actions], found.counterfactual)
    assert not known.reward[~actions].any()


def value_on_test(found, config: ReinforceConfig) -> float:
    parts = found.split(config.validation_share, config.test_share, config.embargo)
    learned = learn(found, parts, config)
    held = found.take(parts.test)
    return float(grid_reward(held, learned.policy.probabilities(held.features, held.allowed)).mean())


@pytest.mark.parametrize("kind", ["explored", "choices"])
def test_a_planted_edge_is_found_offline(kind):
    found = planted_log(1.0, sessions=90)
    config = QUICK.model_copy(update={"evidence": kind})
    assert value_on_test(found, config) > 0.5 * (1.0 - COST)


def test_a_side_that_turns_with_the_price_is_learned_from_both_ways_up():
    found = planted_log(1.0, sessions=60, names=MIRRORED)
    held = found.take(found.split(0.2, 0.25, 1).test)
    learned = learn(found, found.split(0.2, 0.25, 1), QUICK.model_copy(update={"mirrored": True}))
    chance = learned.policy.probabilities(held.features)
    assert grid_reward(held, chance).mean() > 0.5 * (1.0 - COST)
    one_way = learn(found, found.split(0.2, 0.25, 1), QUICK)
    upside_down = held.features * np.array([-1, 1, 1], np.float32)

    def uneven(policy: ReinforcePolicy) -> float:
        straight, turned = (policy.propose(X).score for X in (held.features, upside_down))
        return float(np.abs(straight + turned).mean())

    assert uneven(learned.policy) < uneven(one_way.policy)


def test_nothing_is_found_where_outcomes_are_dealt_out_anew():
    values = [
        value_on_test(shuffled(planted_log(1.0, seed=s), s), QUICK.model_copy(update={"seed": s})) for s in range(5)
    ]
    prior = -QUICK.trade_probability * COST
    assert np.mean(values) < 0.08
    assert np.mean(values) > 2 * prior


@pytest.mark.parametrize("batch", [0, 10])
def test_the_same_again_is_the_same_to_the_last_bit_and_another_seed_is_not(batch):
    found, config = planted_log(0.5, sessions=30), QUICK.model_copy(update={"steps": 30, "batch_sessions": batch})
    parts = found.split(0.2, 0.2, 1)
    first, again = learn(found, parts, config), learn(found, parts, config)
    assert first.policy.to_bytes() == again.policy.to_bytes()
    assert first.curve.equals(again.curve)
    other = learn(found, parts, config.model_copy(update={"seed": 8}))
    assert other.policy.version != first.policy.version


def test_a_run_that_was_stopped_goes_on_to_the_same_policy(tmp_path):
    found, config = planted_log(0.5, sessions=30), QUICK.model_copy(update={"steps": 40, "batch_sessions": 8})
    parts = found.split(0.2, 0.2, 1)
    whole = learn(found, parts, config)
    stopped = learn(found, parts, config, folder=tmp_path, until=20)
    assert stopped.stopped == "not finished"
    assert stopped.curve["step"].max() == 20
    resumed = learn(found, parts, config, folder=tmp_path)
    assert resumed.policy.to_bytes() == whole.policy.to_bytes()
    assert resumed.curve.equals(whole.curve)
    with pytest.raises(CheckpointOfAnother):
        learn(found, parts, config.model_copy(update={"entropy": 0.5}), folder=tmp_path)
    with pytest.raises(CheckpointOfAnother):
        learn(shuffled(found, 1), parts, config, folder=tmp_path)


def test_learning_leaves_seed_and_threads_of_torch_alone():
    found = planted_log(0.5, sessions=20, each=10)
    torch.manual_seed(3)
    torch.set_num_threads(2)
    before = torch.get_rng_state()
    learn(found, found.split(0.2, 0.2, 1), QUICK.model_copy(update={"steps": 5}))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == 2


def test_the_sessions_of_the_test_change_nothing_that_is_learned():
    found = planted_log(0.5, sessions=30)
    parts = found.split(0.2, 0.2, 1)
    config = QUICK.model_copy(update={"steps": 30})
    told = learn(found, parts, config)
    other = found.reward.copy()
    other[parts.test] += 9.0
    changed = replace(found, reward=other, counterfactual=np.where(other == found.reward, found.counterfactual, 9.0))
    assert learn(changed, parts, config).policy.to_bytes() == told.policy.to_bytes()


@pytest.mark.parametrize("heads", ["side", "factored", "joint"])
def test_a_policy_comes_back_from_its_file_and_decides_the_same(heads):
    found = planted_log(1.0, sessions=30)
    config = QUICK.model_copy(update={"steps": 20, "heads": heads})
    policy = learn(found, found.split(0.2, 0.2, 1), config).policy
    back = ReinforcePolicy.from_bytes(policy.to_bytes())
    assert back.version == policy.version
    assert back.facts == policy.facts
    assert back.to_bytes() == policy.to_bytes()
    chance = policy.probabilities(found.features)
    np.testing.assert_array_equal(back.probabilities(found.features), chance)
    np.testing.assert_allclose(chance.sum(axis=1), 1)
    for part, whole in zip(back.propose(found.features), policy.propose(found.features), strict=True):
        np.testing.assert_array_equal(part, whole)


def test_torch_and_numpy_say_the_same_probabilities():
    found = planted_log(1.0, sessions=5, each=10)
    network = Softmax(3, QUICK, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for value in network.parameters():
            value.normal_(generator=torch.Generator().manual_seed(2))
    scaling = Scaling.of(found.features)
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    policy = ReinforcePolicy(found.names, found.last_session, "side", 0.5, scaling, weights, (0.0, 0.0))
    allowed = np.random.default_rng(0).random((50, ACTIONS)) < 0.5
    mask = torch.from_numpy(np.hstack([allowed, np.ones((50, 1), bool)]))
    by_torch = network(torch.from_numpy(scaling.apply(found.features)), mask).exp().detach().numpy()
    np.testing.assert_allclose(policy.probabilities(found.features, allowed), by_torch, atol=1e-12)
    assert not policy.probabilities(found.features, allowed)[:, :ACTIONS][~allowed].any()


def test_where_nothing_may_be_done_it_stays_flat_and_unknown_features_are_the_mean():
    found = planted_log(1.0, sessions=40)
    policy = learn(found, found.split(0.2, 0.2, 1), QUICK).policy
    nothing = np.zeros((len(found), ACTIONS), bool)
    assert (policy.propose(found.features, nothing).action == FLAT).all()
    unknown = np.full((1, 3), np.nan, np.float32)
    mean = policy.scaling.mean[None].astype(np.float32)
    np.testing.assert_allclose(policy.probabilities(unknown), policy.probabilities(mean), atol=1e-6)
    proposals = policy.propose(found.features)
    assert ((proposals.action == proposals.lean) | (proposals.action == FLAT)).all()
    assert ((proposals.confidence >= 0) & (proposals.confidence <= 1)).all()
    assert np.corrcoef(proposals.score, found.features[:, 0])[0, 1] > 0.5


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_file_that_is_no_policy_is_told_of(content):
    with pytest.raises(PolicyUnreadable, match="no stored REINFORCE policy"):
        ReinforcePolicy.from_bytes(content)


def test_a_baseline_does_not_know_its_own_session():
    found = planted_log(0.5, sessions=20)
    for kind in ("mean", "linear"):
        config = QUICK.model_copy(update={"baseline": kind})
        before = baseline(found, config)
        own = found.session == found.session[0]
        changed = replace(
            found, reward=np.where(own, 50.0, found.reward), counterfactual=np.where(own, 50.0, found.counterfactual)
        )
        after = baseline(changed, config)
        np.testing.assert_allclose(after[own], before[own], atol=1e-9)
        assert not np.allclose(after[~own], before[~own])


def test_what_cannot_be_learned_from_is_told_of_with_the_way_out():
    found = planted_log(0.5, sessions=20)
    parts = found.split(0.2, 0.2, 1)
    never = replace(found, chance=np.full(len(found), np.nan))
    with pytest.raises(NothingToLearnFrom, match="earlier sessions hold no evidence"):
        learn(never, parts, QUICK)
    with pytest.raises(NothingTurns, match="mirrored: false"):
        learn(found, parts, QUICK.model_copy(update={"mirrored": True}))


def test_what_moves_the_whole_market_alike_changes_nothing_that_is_learned():
    found = planted_log(1.0, sessions=20)
    config = QUICK.model_copy(update={"steps": 20})
    side = np.where(np.arange(ACTIONS) < ACTIONS // 2, 1.0, -1.0)
    market = np.random.default_rng(0).normal(0, 3, len(found.sessions))[found.group]
    grid = (found.grid + market[:, None] * side).astype(np.float32)
    result = found.counterfactual + market * side[found.lean]
    moved = replace(found, grid=grid, counterfactual=result, reward=np.where(found.choice == FLAT, 0.0, result))
    for kind in ("explored", "choices"):
        told = config.model_copy(update={"evidence": kind})
        np.testing.assert_allclose(learned_from(moved, told).reward, learned_from(found, told).reward, atol=1e-9)
        absolute = told.model_copy(update={"relative": False})
        assert not np.allclose(learned_from(moved, absolute).reward, learned_from(found, absolute).reward)


def test_relative_rewards_are_those_of_the_loop():
    found = planted_log(0.5, sessions=4, each=5)
    found = replace(found, counterfactual=np.where(np.arange(20) % 6 == 0, np.nan, found.counterfactual))
    known = evidence(found, "explored")
    sign = np.where(found.lean < ACTIONS // 2, 1.0, -1.0)
    for i, row in enumerate(known.row):
        peers = [
            sign[j] * found.counterfactual[j]
            for j in range(20)
            if found.session[j] == found.session[row] and j != row and np.isfinite(found.counterfactual[j])
        ]
        trade = known.choice[i] != FLAT and np.isfinite(found.counterfactual[row])
        wanted = known.reward[i] - (sign[row] * np.mean(peers) if trade and peers else 0.0)
        assert relative_reward(found, known)[i] == pytest.approx(wanted)


def test_where_nothing_beats_the_prior_the_policy_is_the_prior_and_does_not_trade():
    found = planted_log(0.0, sessions=20, each=10)
    parts = found.split(0.2, 0.2, 1)
    learned = learn(found, parts, QUICK.model_copy(update={"steps": 20, "caution": 10.0}))
    assert learned.best_step == 0
    np.testing.assert_allclose(
        learned.policy.probabilities(found.features), np.exp(log_prior(0.5))[None].repeat(200, 0)
    )
    assert (learned.policy.propose(found.features).action == FLAT).all()
