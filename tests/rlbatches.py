"""Small batches of environments for tests of learners: every number follows from seed and counters, so that their
state is a few arrays."""

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv


class Batch(VecEnv):
    """What the abstract methods of a VecEnv are where there is nothing behind them."""

    render_mode = None

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.asarray(actions)

    def close(self) -> None: ...

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class Signals(Batch):
    """Each bar shows `columns` normal numbers; the first action dimension earns 1 where it names their largest of the
    first three, else 0, less `price` × the second dimension. Episodes last `length` bars and are cut by time."""

    def __init__(
        self,
        environments: int = 4,
        columns: int = 5,
        length: int = 7,
        price: float = 0.1,
        actions: tuple[int, ...] = (3, 4),
    ) -> None:
        self.columns, self.length, self.price = columns, length, price
        self._base = 0
        self.clock = np.zeros(1, np.int64)
        self.age = np.zeros(environments, np.int64)
        seen = spaces.Box(-np.inf, np.inf, (columns,), np.float32)
        super().__init__(environments, seen, spaces.MultiDiscrete(actions))

    def seed(self, seed: int | None = None) -> list[int | None]:
        self._base = seed or 0
        return [seed] * self.num_envs

    def reset(self) -> np.ndarray:
        self.clock[:] = 0
        self.age[:] = np.arange(self.num_envs) % self.length
        return self._seen()

    def _seen(self) -> np.ndarray:
        drawn = np.random.default_rng([self._base, int(self.clock[0])])
        return drawn.normal(size=(self.num_envs, self.columns)).astype(np.float32)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        shown = self._seen()
        rewards = (shown[:, :3].argmax(axis=1) == self._actions[:, 0]) - self.price * self._actions[:, 1]
        self.clock += 1
        self.age += 1
        dones = self.age == self.length
        self.age[dones] = 0
        seen = self._seen()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(dones):
            infos[i] = {
                "TimeLimit.truncated": True,
                "terminal_observation": seen[i] + 1,
                "summary": {"equity": 100.0 + i},
            }
        return seen, rewards.astype(np.float32), dones, infos

    def state(self) -> dict[str, np.ndarray]:
        return {"clock": self.clock.copy(), "age": self.age.copy(), "base": np.array([self._base])}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        self.clock[:], self.age[:], self._base = state["clock"], state["age"], int(state["base"][0])


class Script(Batch):
    """One environment that plays given rewards and ends, one column: the number of the bar."""

    def __init__(self, rewards: list[float], ends: dict[int, bool]) -> None:
        """`ends`: bar → whether it was cut by time (else it ended for good)."""
        self.rewards, self.ends, self.at = rewards, ends, 0
        super().__init__(1, spaces.Box(-np.inf, np.inf, (1,), np.float32), spaces.MultiDiscrete([2]))

    def reset(self) -> np.ndarray:
        return np.array([[0.0]], np.float32)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        bar = self.at
        self.at += 1
        ended = bar in self.ends
        last = {"TimeLimit.truncated": self.ends.get(bar), "terminal_observation": np.array([50.0], np.float32)}
        seen = np.array([[self.at]], np.float32)
        return seen, np.array([self.rewards[bar]], np.float32), np.array([ended]), [last if ended else {}]
