"""What a teacher does with the contexts that the joint policy is to learn from, on the joint policy's own grid.

Teachers are policies of the trading environment, or anything that can run in the champion's shadow
(`lifecycle.shadow_choices.ShadowPolicy`). How their choices are learned is in `distillation`."""

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from odin_core.policies.actions import (
    ACTIONS,
    FLAT,
    PER_SIDE,
    SHAPE,
    SIZES,
    STOPS,
    TARGETS,
    FloatArray,
    IntArray,
    encode,
    known_mean,
)
from odin_core.rl.choices import Choices

if TYPE_CHECKING:
    from odin_core.lifecycle.life import Life
    from odin_core.lifecycle.shadow_choices import ShadowPolicy
    from odin_core.market.data import MarketData
    from odin_core.training.window import TrainingWindow


class Teacher(Protocol):
    """A policy of the trading environment. `rl.policy.TradingPolicy` is one."""

    def choose(self, observations: Any) -> Choices:
        """Choices (n,) for observations (n, columns), without chance."""
        ...


@dataclass(frozen=True, eq=False)
class Taught:
    """What a teacher does with the n contexts of a window, in their order."""

    name: str
    action: IntArray  # (n,) grid index or FLAT
    sides: FloatArray  # (n, 3) probabilities of flat, long, short
    trained_through: date | None = None  # the last session that the teacher learned from; None: not known

    def __post_init__(self) -> None:
        n = self.action.size
        if self.sides.shape != (n, 3) or not np.allclose(self.sides.sum(axis=1), 1, atol=1e-6):
            raise ValueError(f"sides {self.sides.shape} for {n} actions: three probabilities per context that sum to 1")
        if n and not ((self.action >= FLAT) & (self.action < ACTIONS)).all():
            raise ValueError(f"an action is neither FLAT nor one of 0 … {ACTIONS - 1}")

    @classmethod
    def sure(cls, name: str, action: IntArray, trained_through: date | None = None) -> "Taught":
        """By choices alone."""
        return cls(name, action, np.eye(3)[position_of(action)], trained_through)


def position_of(action: IntArray) -> IntArray:
    """(n,) 0 flat, 1 long, 2 short, of grid indices or FLAT."""
    return np.where(action == FLAT, 0, np.where(action < PER_SIDE, 1, 2)).astype(np.int64)


def nearest_actions(side: FloatArray, size: FloatArray, stop: FloatArray, target: FloatArray) -> IntArray:
    """(n,) the grid action nearest to each choice, FLAT where `side` is 0. Nearest by ratio, since all three are
    multiples: `size` a fraction of capital, `stop` of the 60-minute ATR, `target` of the stop, above 0 where there is a
    side; halfway the smaller one."""
    flat = np.asarray(side) == 0
    places = [
        _nearest(np.where(flat, axis[0], np.asarray(values, float)), axis)
        for values, axis in ((size, SIZES), (stop, STOPS), (target, TARGETS))
    ]
    return np.where(flat, FLAT, encode(np.where(np.asarray(side) < 0, 1, 0), *places))


def _nearest(values: FloatArray, grid: tuple[float, ...]) -> IntArray:
    away = np.abs(np.log(values)[:, None] - np.log(np.array(grid))[None])
    return away.argmin(axis=1).astype(np.int64)


def grid_actions(chosen: Choices) -> IntArray:
    """(n,) the grid action nearest to each choice of the environment, its largest size being the grid's largest: sizes
    .25, .5, .75 and 1 become 0.25, 0.5, 1 and 1 % of capital, stops 2.5 become 3, targets 4 become 3, others stay."""
    side, size, stop, target = chosen.meaning()
    return nearest_actions(side.astype(np.float64), size * SIZES[-1], stop, target)


def taught_by(teacher: Teacher, observations: Any, name: str, trained_through: date | None = None) -> Taught:
    """What an environment's policy does with contexts; `observations` (n, columns) are the same contexts as the
    environment shows them to a flat account (`rl.observation.flat_observations`). A row with NaN is left flat."""
    seen = np.asarray(observations, np.float32)
    known = np.all(np.isfinite(seen), axis=1)
    action = grid_actions(teacher.choose(np.where(known[:, None], seen, np.float32(0))))
    return Taught.sure(name, np.where(known, action, FLAT), trained_through)


def lesson(
    life: "Life", data: "MarketData", teacher: "ShadowPolicy", *, through: date | None = None
) -> "tuple[TrainingWindow, Taught]":
    """The window that a candidate trained through session `through` (default: the life's head) learns from, and what
    `teacher` does with its contexts, each asked at the close before its session with what was known then.
    Raises BarsVanished, SessionDamaged."""
    from odin_core.lifecycle.refilling import learned_from

    end = through or life.head
    window = learned_from(life, data, end or date.min)
    actions = [np.empty(0, np.int64)]
    for session in window.sessions:
        before = data.calendar.previous(session.session)
        symbols = life.read("action_outcomes", session.session)["symbol"]
        contexts = data.decision_rows(before).join(symbols.to_frame(), on="symbol", how="semi").sort("symbol")
        asked = teacher.choose(contexts, data.calendar.hours(before).close)
        asked.require_fit(teacher.version, contexts.height)
        side = np.where(asked.takes, asked.side, 0.0)
        sides = session.rewards.reshape(len(session.rewards), SHAPE[0], -1).astype(np.float64)
        known = np.isfinite(known_mean(sides, 2)).all(axis=1)
        actions.append(nearest_actions(side, asked.size, asked.stop, asked.target)[known])
    return window, Taught.sure(teacher.version, np.concatenate(actions), teacher.trained_through)
