"""One trading environment: the compiled step of `rl.kernel` with a single account, in Gymnasium's form."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from odin_core.execution.costs import CostSchedule
from odin_core.execution.orders import ExecutionRules, Orders
from odin_core.rl.batch import Batch, Episode
from odin_core.rl.config import EnvironmentConfig
from odin_core.rl.gymnasium_vector import action_space, observation_space
from odin_core.rl.kernel_values import TERMS, Bools, Float32s
from odin_core.rl.tape import Tape, planted


class TradingEnv(gymnasium.Env[Float32s, np.ndarray]):
    """A position in one symbol at a time, decided on at the end of each bar.

    Without a tape it trades a planted one (`edge`, see `rl.tape.planted`). Environment `index` of a batch with the same
    seed gives the same bits. `info` of a step has the reward's TERMS, `denied` (limits changed the action), `row` and
    `equity` after it. An episode ends `terminated` in ruin, `truncated` after
    `episode_bars` or with its symbol's last bar; the position is not closed then, but valued at the close."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        tape: Tape | None = None,
        config: EnvironmentConfig | None = None,
        *,
        rules: ExecutionRules | None = None,
        costs: CostSchedule | None = None,
        seed: int = 0,
        edge: float = 0.3,
        index: int = 0,
        record: bool = True,
    ) -> None:
        self.batch = Batch(
            planted(seed, edge=edge) if tape is None else tape, config or EnvironmentConfig(), 1,
            rules=rules, costs=costs, seed=seed, first_index=index, record=record,
        )  # fmt: skip
        self.observation_space = observation_space(self.batch.width)
        self.action_space = action_space()
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32s, dict[str, Any]]:
        """`seed` begins randomness anew, else the next episode of the last seed follows. `options`: `row`, at whose
        end the first decision is."""
        super().reset(seed=seed)
        if seed is not None:
            self.batch.seed(seed)
        seen = self.batch.reset(rows=(options or {}).get("row"))
        self._over = False
        return seen[0], {"row": int(self.batch.accounts["row"][0]), "equity": float(self.batch.accounts["equity"][0])}

    def step(self, action: np.ndarray) -> tuple[Float32s, float, bool, bool, dict[str, Any]]:
        """One bar on. Raises ResetNeeded after an episode's end."""
        if self._over:
            raise ResetNeeded("the episode is over, or none has begun: call reset()")
        seen = self.batch.step(np.asarray(action, np.int64).reshape(1, 4), again=False)
        out, account = self.batch.out, self.batch.accounts[0]
        terminated, truncated = bool(out.terminated[0]), bool(out.truncated[0])
        self._over = terminated or truncated
        info = dict(zip(TERMS, out.terms[0].tolist(), strict=True))
        info |= {"denied": bool(out.denied[0]), "row": int(account["row"]), "equity": float(account["equity"])}
        return seen[0], float(out.reward[0]), terminated, truncated, info

    def action_masks(self) -> Bools:
        """Which actions are allowed now: bool (15,), the dimensions of the action side by side."""
        return self.batch.masks()[0]

    def set_starts(self, rows: Any, weights: Any = None, *, in_order: bool = False) -> None:
        """See `Batch.set_starts`."""
        self.batch.set_starts(rows, weights, in_order=in_order)

    def orders(self) -> Orders:
        """The current episode's orders so far, rows of the tape."""
        return self.episode().orders

    def episode(self) -> Episode:
        """The current episode so far: orders, equity, conditions; for `execution.backtest`."""
        return self.batch.episode(0, finished=False)
