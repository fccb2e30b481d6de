"""PPO over five seeds: an edge that is there is exploited out of sample after costs, by all seeds and not by one lucky
one; one that is not there earns nothing; a cheating column earns nearly what the best rule on it does. SAC too."""

from functools import cache

import numpy as np
import pytest
from learnedtapes import QUICK, TASK, learned, tape

from odin_core.rl.choices import Choices
from odin_core.rl.evaluation import SeedEvaluation, evaluate, evaluate_seeds
from odin_core.rl.learner_config import PPOConfig, SACConfig
from odin_core.rl.observation import layout
from odin_core.rl.sac import train_sac
from odin_core.rl.tape import SIGNAL
from odin_core.rl.vector import TradingVecEnv

LONGER = QUICK.model_copy(update={"steps": 300_000})


@cache
def over_seeds(edge: float, config: PPOConfig = LONGER) -> SeedEvaluation:
    return evaluate_seeds({seed: learned(config, seed, edge) for seed in range(5)}, tape(2, edge), TASK)


@pytest.mark.slow
def test_an_edge_is_exploited_by_every_seed():
    found = over_seeds(0.3)
    assert (found.seeds["net_return"] > 0).all()
    assert (found.seeds["t"] > 4).all()
    assert (found.seeds["p_value"] < 0.05).all()
    told = found.summary.row(0, named=True)
    assert told["positive"] == 1
    assert not told["lucky"]
    assert told["without_best"] > 0.5 * told["mean"]


@pytest.mark.slow
def test_without_an_edge_no_seed_earns_anything():
    found = over_seeds(0.0)
    assert (found.seeds["net_return"] <= 1e-3).all()
    for seed in range(5):
        returns = evaluate(learned(LONGER, seed, 0.0), tape(2, 0.0), TASK, draws=0).sessions["net_return"].to_numpy()
        assert returns.mean() <= 2.6 * returns.std() / np.sqrt(len(returns))  # 1 % of error over five seeds, one-sided


class Foresight:
    """Knows the next bar: enters where it pays for the costs and stays until the next one turns against it."""

    def __init__(self, enter: float, stay: float) -> None:
        self.enter, self.stay = enter, stay
        self.side = layout(TASK, tape(2, 0.0))["position"].start

    def choose(self, observations: np.ndarray) -> Choices:
        ahead, held = observations[:, SIGNAL], observations[:, self.side]
        entered = np.where(ahead > self.enter, 1, np.where(ahead < -self.enter, 2, 0))
        kept = np.where(held * ahead > self.stay, np.where(held > 0, 1, 2), 0)
        return Choices.of_actions(np.column_stack([np.where(held == 0, entered, kept), np.full((held.size, 3), 3)]))


def earned(policy: object) -> float:
    found = evaluate(policy, tape(2, 0.0, cheat=True), TASK, draws=0)  # pyright: ignore[reportArgumentType]
    return float(found.sessions["net_return"].to_numpy().mean())


@pytest.mark.slow
def test_a_cheating_column_earns_nearly_what_the_best_rule_on_it_does():
    best = max(earned(Foresight(e, s)) for e in (0.2, 0.4, 0.6, 0.8, 1.0) for s in (-0.6, -0.4, -0.2, 0.0))
    assert earned(learned(LONGER, 0, 0.0, cheat=True)) > 0.9 * best > 0.02


@pytest.mark.slow
def test_sac_finds_the_edge_too():
    config = SACConfig(environments=16, steps=40_000, warm_up=4000, buffer=40_000, batch=256, gradient_steps=2,
                       learning_rate=1e-3, hidden=(32, 32), discount=0.97, threads=1)  # fmt: skip
    found = train_sac(TradingVecEnv(tape(1, 0.4), TASK, 16, threads=1), config, seed=0)
    told = evaluate(found.policy, tape(2, 0.4), TASK)
    assert told.summary["net_return"][0] > 0
    assert told.p_value < 0.05
