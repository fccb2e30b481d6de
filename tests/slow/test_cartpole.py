"""The project's own PPO on an environment that everybody knows: CartPole-v1 with the settings of the RL Zoo."""

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env

from odin_core.rl.learner_config import PPOConfig
from odin_core.rl.policy import TradingPolicy
from odin_core.rl.ppo import train

ZOO = PPOConfig(
    environments=8, rollout=32, batch=256, epochs=20, steps=100_000, discount=0.98, gae_lambda=0.8, entropy_weight=0.0,
    learning_rate=1e-3, learning_rate_schedule="linear", clip=0.2, clip_schedule="linear", reward_scale=1.0, threads=1,
)  # fmt: skip
"""https://github.com/DLR-RM/rl-baselines3-zoo, hyperparams/ppo.yml, CartPole-v1."""


def episode(policy: TradingPolicy, seed: int) -> float:
    environment = gymnasium.make("CartPole-v1")
    seen, _ = environment.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        seen, reward, terminated, truncated, _ = environment.step(int(policy.actions(seen[None])[0, 0]))
        total, over = total + float(reward), terminated or truncated
    return total


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cartpole_stands_for_all_500_steps_after_100_thousand(seed: int):
    found = train(make_vec_env("CartPole-v1", ZOO.environments), ZOO, seed=seed)
    assert np.mean([episode(found.policy, 1000 + i) for i in range(20)]) == 500
    assert found.curve["steps"][-1] <= 100_000 + ZOO.environments * ZOO.rollout
