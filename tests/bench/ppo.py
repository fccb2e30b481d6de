"""Speed of PPO end to end on the trading environment, with the settings that the learner uses (`PPOConfig`: 256
environments, its batch, epochs and networks) and observations as wide as an encoder's state makes them, on one thread.

Peer: Stable-Baselines3's own PPO in the same run, with the same settings, shapes and network, on a batch of
environments that does nothing: it shows the same observations and pays nothing. Both in turns, because a machine is not
equally fast all the time; compilation and the first rollout of each do not count."""

import statistics
import time
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.isolation import isolated
from odin_core.rl.learner_config import PPOConfig
from odin_core.rl.ppo import learner, train
from odin_core.rl.tape import planted
from odin_core.rl.vector import TradingVecEnv

ROUNDS = 5
UPDATES = 12
STATE, HEATMAP = 256, 24  # columns: an embedding and the bins around the price


class Nothing(VecEnv):
    """Shows the same numbers at each bar and never ends."""

    render_mode = None

    def __init__(self, environments: int, like: VecEnv) -> None:
        super().__init__(environments, like.observation_space, like.action_space)
        shape = (environments, *(like.observation_space.shape or ()))
        self.shown = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        self.zero, self.never = np.zeros(environments, np.float32), np.zeros(environments, bool)
        self.told: list[dict[str, Any]] = [{} for _ in range(environments)]

    def reset(self) -> np.ndarray:
        return self.shown.copy()

    def step_async(self, actions: np.ndarray) -> None:
        del actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        return self.shown.copy(), self.zero.copy(), self.never.copy(), self.told

    def seed(self, seed: int | None = None) -> list[int | None]:
        return [seed] * self.num_envs

    def close(self) -> None: ...

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def run() -> list[dict[str, Any]]:
    """Bars per second of collecting and learning together; medians."""
    told = PPOConfig()
    config = PPOConfig(steps=UPDATES * told.rollout * told.environments, threads=1)
    tape = planted(0, symbols=8, sessions=40, state=STATE, heatmap=HEATMAP)
    environments = TradingVecEnv(tape, EnvironmentConfig(), config.environments, threads=1)
    nothing = Nothing(config.environments, environments)
    ours, theirs = zip(
        *((_ours(environments, config), _theirs(nothing, config)) for _ in range(ROUNDS + 1)), strict=True
    )
    environments.close()
    return [{
        "bench": "ppo", "value": statistics.median(ours[1:]), "unit": "bars/s",
        "peer": "Stable-Baselines3 on an environment that does nothing", "peer_value": statistics.median(theirs[1:]),
    }]  # fmt: skip


def _ours(environments: TradingVecEnv, config: PPOConfig) -> float:
    curve = train(environments, config, seed=0).curve
    return (curve["steps"][-1] - curve["steps"][0]) / (curve["seconds"][-1] - curve["seconds"][0])


def _theirs(nothing: Nothing, config: PPOConfig) -> float:
    with isolated(config.threads):
        torch.distributions.Distribution.set_default_validate_args(True)  # as it comes
        model = learner(nothing, config, 0)
        model.learn(config.rollout * config.environments)
        before, since = model.num_timesteps, time.perf_counter()
        model.learn(config.steps - before, reset_num_timesteps=False)
        return (model.num_timesteps - before) / (time.perf_counter() - since)
