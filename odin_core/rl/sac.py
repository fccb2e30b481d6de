"""Soft actor-critic on a continuous form of the action, to compare PPO with: the same environment, the same evaluation.

A continuous action has four numbers in [−1, 1]. The first is the position in thirds: short, flat, long; the others go
through the sizes, stops and targets in quarters. Training has no checkpoints: it is a comparison, not a candidate."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor, nn

from odin_core.rl.callbacks import Episodes, Progress, Row, curve_of, learner_row
from odin_core.rl.choices import DIMENSIONS, FLAT, LONG, SHORT, Choices
from odin_core.rl.isolation import isolated
from odin_core.rl.learner_config import SACConfig
from odin_core.rl.policy import ObservationMismatch, digest

if TYPE_CHECKING:
    from stable_baselines3.sac.policies import Actor

Floats = npt.NDArray[np.float32]

THIRDS: Final = (SHORT, FLAT, LONG)


def to_choices(actions: npt.ArrayLike) -> Choices:
    """Continuous actions (n, 4), each in [−1, 1] (what lies outside counts as the end), as choices.

    >>> to_choices([[-1, -1, -1, -1], [0, 0, 0, 0], [1, 1, 1, 1]]).actions().tolist()
    [[2, 0, 0, 0], [0, 2, 2, 2], [1, 3, 3, 3]]
    """
    share = (np.clip(np.asarray(actions, np.float64), -1.0, 1.0) + 1.0) / 2.0
    place = np.minimum((share * DIMENSIONS).astype(np.int64), np.array(DIMENSIONS) - 1)
    return Choices.of_actions(np.column_stack([np.array(THIRDS)[place[:, 0]], place[:, 1:]]))


class ContinuousActions(VecEnvWrapper):
    """The trading environments with a continuous action and rewards times `reward_scale`; `episodes` sums them."""

    def __init__(self, venv: VecEnv, reward_scale: float) -> None:
        super().__init__(venv, action_space=spaces.Box(-1.0, 1.0, (len(DIMENSIONS),), np.float32))
        self.reward_scale = reward_scale
        self.episodes = Episodes(venv.num_envs)

    def reset(self) -> Any:
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        self.venv.step_async(to_choices(actions).actions())

    def step_wait(self) -> Any:
        seen, rewards, dones, infos = self.venv.step_wait()
        self.episodes.add(rewards, dones, infos)
        return seen, rewards.astype(np.float32) * np.float32(self.reward_scale), dones, infos


@dataclass(frozen=True, eq=False)
class ContinuousPolicy:
    """The deterministic part of SAC's actor: a perceptron with ReLU, tanh of the mean, then `to_choices`.

    `weights`: float32, weight (out, in) and bias (out,) of each layer in turn."""

    weights: tuple[Tensor, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def version(self) -> str:
        """ "sac-" and ten hex digits of the weights."""
        return f"sac-{digest({}, {f'{i:02d}': weight for i, weight in enumerate(self.weights)})[:10]}"

    def continuous(self, observations: Floats) -> Floats:
        """(n, columns) → (n, 4) in [−1, 1]. Raises ObservationMismatch."""
        needed = self.weights[0].shape[1]
        if observations.ndim != 2 or observations.shape[1] != needed:
            raise ObservationMismatch(observations.shape, needed)
        values = torch.tensor(observations, dtype=torch.float32)
        with torch.no_grad():
            for weight, bias in zip(self.weights[:-2:2], self.weights[1:-2:2], strict=True):
                values = torch.relu(nn.functional.linear(values, weight, bias))
            return torch.tanh(nn.functional.linear(values, *self.weights[-2:])).numpy()

    def choose(self, observations: Floats) -> Choices:
        """(n, columns) → what the policy would do, nothing drawn. Raises ObservationMismatch."""
        return to_choices(self.continuous(observations))


class TrainedSAC(NamedTuple):
    """`curve` has the columns `callbacks.CURVE`, a row every `curve_every` bars; PPO's own columns are null."""

    policy: ContinuousPolicy
    curve: pl.DataFrame


class _Curve(BaseCallback):
    """One row every so many bars, out of what the environments summed and the learner logged."""

    def __init__(self, environments: ContinuousActions, every: int, progress: Progress | None,
                 clock: Callable[[], float]) -> None:  # fmt: skip
        super().__init__()
        self.environments, self.every, self.progress, self.clock = environments, every, progress, clock
        self.rows: list[Row] = []
        self.began = clock()

    def _on_step(self) -> bool:
        if self.n_calls % self.every == 0:
            head: Row = {"update": len(self.rows) + 1, "steps": self.num_timesteps,
                         "seconds": self.clock() - self.began}  # fmt: skip
            self.rows.append(head | self.environments.episodes.row() | learner_row(self.logger.name_to_value))
            if self.progress is not None:
                self.progress(self.rows[-1])
        return True


def train_sac(
    venv: VecEnv,
    config: SACConfig,
    *,
    seed: int,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> TrainedSAC:
    """SAC on trading environments in their discrete form, which are wrapped here and not closed.

    The same arguments give the same weights on one machine, `config.threads` included."""
    with isolated(config.threads):
        environments = ContinuousActions(venv, config.reward_scale)
        model = SAC(
            "MlpPolicy", environments, learning_rate=config.learning_rate, buffer_size=config.buffer,
            learning_starts=config.warm_up, batch_size=config.batch, tau=config.target_rate, gamma=config.discount,
            train_freq=1, gradient_steps=config.gradient_steps, seed=seed, device="cpu", verbose=0,
            policy_kwargs={"net_arch": list(config.hidden)},
        )  # fmt: skip
        model.set_logger(Logger(folder=None, output_formats=[]))
        curve = _Curve(environments, config.curve_every, progress, clock)
        model.learn(config.bars * venv.num_envs, callback=curve, log_interval=10**9)
        weights = _actor_weights(model.actor)
    told = {"learner": "sac", "seed": seed, "steps": model.num_timesteps, "reward_scale": config.reward_scale,
            "config": config.model_dump(mode="json")}  # fmt: skip
    return TrainedSAC(ContinuousPolicy(weights, told | dict(facts or {})), curve_of(curve.rows))


def _actor_weights(actor: "Actor") -> tuple[Tensor, ...]:
    layers: Sequence[nn.Module] = [*actor.latent_pi, actor.mu]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return tuple(part.detach().clone() for layer in linear for part in (layer.weight, layer.bias))
