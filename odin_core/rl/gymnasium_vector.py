"""The batched environment in Gymnasium's vector form; `rl.vector` has Stable-Baselines3's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike

from odin_core.execution.costs import CostSchedule
from odin_core.execution.orders import ExecutionRules
from odin_core.rl.batch import Batch, Episode
from odin_core.rl.choices import DIMENSIONS
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.kernel_values import SUMMARY, TERMS, Bools, Float32s
from odin_core.rl.tape import BOUND, Tape, planted


def observation_space(width: int) -> Any:
    """Of one environment; the sections are in `rl.observation`."""
    return spaces.Box(-BOUND, BOUND, (width,), np.float32)


def action_space() -> Any:
    """Of one environment: position, size, stop, target (`rl.choices`)."""
    return spaces.MultiDiscrete(list(DIMENSIONS))


class TradingVectorEnv(VectorEnv[Float32s, np.ndarray, np.ndarray]):
    """`num_envs` trading environments in one compiled step, same-step autoreset.

    Without a tape it trades a planted one (`edge`, see `rl.tape.planted`). `reset(seed=s)` seeds environment i by
    (s, i), a list of seeds each by its own, as `TradingEnv(seed=…)`; of those with None the next episode follows.
    `info` of a step has the reward's TERMS and `denied` as arrays (num_envs,); where episodes ended, `final_obs`
    (num_envs, D), `final_info` with the summary's fields, and the masks `_final_obs`, `_final_info`."""

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        tape: Tape | None = None,
        config: EnvironmentConfig | None = None,
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
        self.num_envs = num_envs
        self.single_observation_space = observation_space(self.batch.width)
        self.single_action_space = action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32s, dict[str, Any]]:
        """`options`: `row`, at whose end the first decision is, one or (num_envs,); `reset_mask`, bool (num_envs,), of
        the environments that begin anew."""
        options = options or {}
        if seed is not None:
            self.batch.seed(seed)
        return self.batch.reset(options.get("reset_mask"), options.get("row")), {}

    def step(self, actions: ArrayLike) -> tuple[Float32s, np.ndarray, Bools, Bools, dict[str, Any]]:
        seen = self.batch.step(np.ascontiguousarray(actions, np.int64), again=True)
        out = self.batch.out
        terminated, truncated = out.terminated.copy(), out.truncated.copy()
        info: dict[str, Any] = dict(zip(TERMS, out.terms.T.copy(), strict=True)) | {"denied": out.denied.copy()}
        ended = terminated | truncated
        if ended.any():
            info |= {"final_obs": self.batch.final.copy(), "_final_obs": ended, "_final_info": ended}
            info["final_info"] = {name: out.summary[name].copy() for name in SUMMARY.names or ()}
        return seen, out.reward.astype(np.float64), terminated, truncated, info

    def action_masks(self) -> Bools:
        """Which actions are allowed now: bool (num_envs, 15), the dimensions of the action side by side."""
        return self.batch.masks()

    def set_starts(self, rows: ArrayLike, weights: ArrayLike | None = None, *, in_order: bool = False) -> None:
        """See `Batch.set_starts`."""
        self.batch.set_starts(rows, weights, in_order=in_order)

    def episode(self, index: int, *, finished: bool = True) -> Episode:
        """See `Batch.episode`."""
        return self.batch.episode(index, finished=finished)

    def close_extras(self, **kwargs: Any) -> None:
        self.batch.close()
