"""The batched environment in Stable-Baselines3's form; Gymnasium's is `rl.gymnasium_vector`, without torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import Wrapper
from numpy.typing import ArrayLike
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from odin_core.execution.costs import CostSchedule
from odin_core.execution.orders import ExecutionRules
from odin_core.rl.batch import ANYWHERE, Batch, Episode
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.gymnasium_vector import TradingVectorEnv, action_space, observation_space
from odin_core.rl.kernel_values import SUMMARY, TERMS, Bools, Float32s, Floats, Ints
from odin_core.rl.tape import Tape, planted

__all__ = ["TradingVecEnv", "TradingVectorEnv"]


class TradingVecEnv(VecEnv):
    """`num_envs` trading environments in one compiled step; an episode that ends is followed by the next at once.

    Without a tape it trades a planted one (`edge`, see `rl.tape.planted`). `infos` are empty but where an episode
    ended: `terminal_observation`, `TimeLimit.truncated`, `episode` (r: reward, l: bars) as of a Monitor, and `summary`,
    the fields of SUMMARY with the totals of the reward's TERMS. Of every step and environment they are in `terms`."""

    def __init__(
        self,
        tape: Tape | None = None,
        config: EnvironmentConfig | None = None,
        num_envs: int = 1,
        *,
        rules: ExecutionRules | None = None,
        costs: CostSchedule | None = None,
        seed: int = 0,
        edge: float = 0.3,
        record: bool = False,
        threads: int | None = None,
    ) -> None:
        self.batch = Batch(
            planted(seed, edge=edge) if tape is None else tape, config or EnvironmentConfig(), num_envs,
            rules=rules, costs=costs, seed=seed, record=record, threads=threads,
        )  # fmt: skip
        self.render_mode = None
        super().__init__(num_envs, observation_space(self.batch.width), action_space())
        self._actions: Ints = np.zeros((num_envs, 4), np.int64)

    # --- what Stable-Baselines3 calls ---------------------------------------------------------------------------------

    def reset(self) -> Float32s:
        if any(seed is not None for seed in self._seeds):
            self.batch.seed(self._asked_seed)
        rows = [options.get("row", ANYWHERE) for options in self._options]
        self._reset_seeds()
        self._reset_options()
        return self.batch.reset(rows=rows)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """At the next reset, environment i is seeded by (seed, i)."""
        self._asked_seed = 0 if seed is None else seed
        self._seeds = [self._asked_seed] * self.num_envs
        return self._seeds

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.ascontiguousarray(actions, np.int64)

    def step_wait(self) -> VecEnvStepReturn:
        seen = self.batch.step(self._actions, again=True)
        out = self.batch.out
        ended = out.terminated | out.truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(ended):
            infos[i] = self._ending(int(i))
        return seen, out.reward.copy(), ended, infos

    def _ending(self, i: int) -> dict[str, Any]:
        out = self.batch.out
        summary = {name: out.summary[name][i].item() for name in SUMMARY.names or () if name != "totals"}
        summary |= dict(zip(TERMS, out.summary["totals"][i].tolist(), strict=True))
        return {
            "terminal_observation": self.batch.final[i].copy(),
            "TimeLimit.truncated": bool(out.truncated[i]),
            "episode": {"r": float(out.summary["totals"][i].sum()), "l": summary["end"] - summary["start"]},
            "summary": summary,
        }

    def close(self) -> None:
        self.batch.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return [getattr(self, attr_name)] * len(self._places(indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """All environments are one object, so an attribute is set for all of them. ValueError for some of them."""
        if len(self._places(indices)) != self.num_envs:
            raise ValueError(f"{attr_name} cannot be set for some of the environments: they are moved as one")
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """`action_masks` of each environment; other methods are called once and their answer is every one's."""
        places = self._places(indices)
        if method_name == "action_masks":
            return list(self.batch.masks()[places])
        return [getattr(self, method_name)(*method_args, **method_kwargs)] * len(places)

    def env_is_wrapped(self, wrapper_class: type[Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        return [False] * len(self._places(indices))

    def _places(self, indices: VecEnvIndices) -> list[int]:
        return list(self._get_indices(indices))

    # --- what learners use besides ------------------------------------------------------------------------------------

    @property
    def terms(self) -> Floats:
        """The reward's TERMS of the last step, (num_envs, 6)."""
        return self.batch.out.terms.copy()

    @property
    def denied(self) -> Bools:
        """Whether limits changed the last action, (num_envs,)."""
        return self.batch.out.denied.copy()

    def action_masks(self) -> Bools:
        """Which actions are allowed now: bool (num_envs, 15), the dimensions of the action side by side."""
        return self.batch.masks()

    def set_starts(self, rows: ArrayLike, weights: ArrayLike | None = None, *, in_order: bool = False) -> None:
        """See `Batch.set_starts`; it counts from the next episode on."""
        self.batch.set_starts(rows, weights, in_order=in_order)

    def episode(self, index: int, *, finished: bool = True) -> Episode:
        """See `Batch.episode`."""
        return self.batch.episode(index, finished=finished)
