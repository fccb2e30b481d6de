"""Off-policy values from the decisions of a life, beside the outcomes of all actions, which a simulation knows."""

from dataclasses import replace

import numpy as np
import polars as pl
from smalllives import climbed

from odin_core.evaluation.off_policy import (
    Confidence,
    Logged,
    choices,
    expected_reward,
    from_replay,
    inverse_propensity,
    self_normalised,
    value_of,
)
from odin_core.lifecycle.config import LifeConfig
from odin_core.policies import uniform
from odin_core.policies.actions import ACTIONS, FLAT, Proposals
from odin_core.replay.record import REPLAY


def full_information() -> tuple[pl.DataFrame, np.ndarray]:
    """Replay rows of a life whose decisions were made by chance, rules and models, and the rewards (n, ACTIONS) of
    every action of their context."""
    life, _ = climbed()
    tables = [life.read("action_outcomes", s).with_columns(session=pl.lit(s)) for s in life.commits()]
    grid = pl.concat(tables).rename({"net_return": "grid"})
    replay = life.read_many("replay_buffer", life.commits()).filter("complete")
    rows = replay.join(grid, on=["session", "symbol"], how="inner", maintain_order="left")
    reward = np.array(rows["grid"].to_list()) / rows["risk_unit"].to_numpy()[:, None]
    known = np.isfinite(reward).all(axis=1)
    return rows.filter(known).select(REPLAY.names()), reward[known]


SURE = Confidence(alpha=0.001)
TAKE = LifeConfig().exploration.take_probability


def test_the_log_of_a_life_values_other_policies_as_the_outcomes_of_all_their_actions_do():
    replay, reward = full_information()
    assert replay["phase"].n_unique() > 1
    chosen = choices(replay)
    everything = np.where(chosen == FLAT, 0.0, 1 / ACTIONS)
    for estimator in (inverse_propensity, self_normalised):
        found = estimator(from_replay(replay, everything), confidence=SURE)
        assert found.lower < reward.mean() < found.upper
        assert found.effective_rows > 15
    buys = proposing(np.zeros(len(chosen), np.int64))
    found = value_of(buys, replay, match="side", confidence=SURE)
    assert found.lower < reward[:, : ACTIONS // 2].mean() < found.upper
    whole = value_of(buys, replay)
    assert whole.effective_rows < found.effective_rows / 10
    assert whole.doubts


def test_explored_decisions_alone_need_the_propensity_of_exploring():
    replay, reward = full_information()
    explored = ((replay["source"] == "random") & (replay["phase"] < 3)).to_numpy()
    chosen = choices(replay)[explored]
    target = np.where(chosen == FLAT, 0.0, 1 / ACTIONS)
    recorded = from_replay(replay.filter(explored), target)
    mixed = inverse_propensity(recorded)
    drawn = replace(recorded, propensity=uniform.probability(chosen, TAKE))
    found = inverse_propensity(drawn, confidence=SURE)
    assert found.lower < reward[explored].mean() < found.upper
    assert abs(found.mean_weight - 1) < 4 * found.mean_weight_error
    assert mixed.mean_weight > 1.3 * found.mean_weight


def test_the_propensities_of_a_life_give_every_target_a_mean_weight_of_one():
    replay, _ = full_information()
    chosen = choices(replay)
    targets = {
        "uniform": uniform.probability(chosen, TAKE),
        "flat": chosen == FLAT,
        "trade": (chosen != FLAT) / ACTIONS,
    }
    for name, target in targets.items():
        found = inverse_propensity(from_replay(replay, target))
        assert abs(found.mean_weight - 1) < 4 * found.mean_weight_error, name


def test_the_uniform_policys_log_of_real_outcomes_is_unbiased_for_any_target():
    """Decisions drawn again and again as phase 0 draws them, rewards read from what every action would have earned."""
    replay, reward = full_information()
    n = len(reward)
    rng = np.random.default_rng(0)
    policies = {
        "uniform": np.full((n, ACTIONS), 1 / ACTIONS),
        "buys": np.repeat(np.array([2.0, 0.0]) / ACTIONS, ACTIONS // 2)[None, :].repeat(n, axis=0),
    }
    for name, policy in policies.items():
        truth, values, held = expected_reward(reward, policy).mean(), [], []
        for _ in range(300):
            drawn = uniform.propose(n, TAKE, rng)
            at = np.arange(n), np.maximum(drawn.action, 0)
            log = Logged(
                reward=np.where(drawn.action == FLAT, 0.0, reward[at]),
                propensity=uniform.probability(drawn.action, TAKE),
                target=np.where(drawn.action == FLAT, 0.0, policy[at]),
                session=replay["session"].to_numpy(),
            )
            found = inverse_propensity(log)
            values.append(found.value)
            held.append(found.lower <= truth <= found.upper)
        assert abs(np.mean(values) - truth) < 4 * np.std(values) / np.sqrt(len(values)), name
        assert np.mean(held) > 0.9, name


def proposing(action: np.ndarray) -> Proposals:
    return Proposals(action, action, np.full(len(action), 0.5), np.zeros(len(action)))
