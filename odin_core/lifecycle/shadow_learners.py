"""Learners' policies as `ShadowPolicy`: those that choose on the action grid, and those of the trading environment.

A policy of the environment is asked at the session's last bar, where an order works from the next open on, as an
account that has not traded yet. Its sizes are shares of the largest position; here that is the largest of the grid, so
that it risks what the others may risk. Brings no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.lifecycle.shadow_choices import ShadowChoices
from odin_core.policies.actions import SIZES, Proposals

if TYPE_CHECKING:
    from odin_core.rl.choices import Choices
    from odin_core.rl.config import EnvironmentConfig
    from odin_core.rl.tape import Tape

Matrix = NDArray[np.float32]
Observe = Callable[[pl.DataFrame, datetime], Matrix]
"""(contexts, as_of) → float32 (n, D), what a flat account sees of each context; a row with NaN: nothing is known."""


class ProposesOnGrid(Protocol):
    """What `GridShadow` asks of a policy; JointPolicy and ReinforcePolicy have it."""

    @property
    def features(self) -> tuple[str, ...]: ...
    @property
    def trained_through(self) -> date: ...
    def propose(self, X: Matrix) -> Proposals: ...


class ChoosesFromObservations(Protocol):
    """What `EnvironmentShadow` asks of a policy; TradingPolicy has it."""

    def choose(self, observations: Any) -> "Choices": ...


@dataclass(frozen=True)
class GridShadow:
    """A policy on the action grid that chooses without chance from the decision features."""

    name: str
    version: str
    policy: ProposesOnGrid

    @property
    def trained_through(self) -> date:
        return self.policy.trained_through

    def choose(self, contexts: pl.DataFrame, as_of: datetime) -> ShadowChoices:
        known = contexts.select(pl.col(self.policy.features).cast(pl.Float32).fill_null(float("nan")))
        proposals = self.policy.propose(known.to_numpy())
        return ShadowChoices.of_proposals(proposals, confidence=proposals.confidence)


@dataclass(frozen=True)
class EnvironmentShadow:
    """A policy of the trading environment, its likeliest choice. What `observe` does not know it leaves alone."""

    name: str
    version: str
    trained_through: date
    policy: ChoosesFromObservations
    observe: Observe

    def choose(self, contexts: pl.DataFrame, as_of: datetime) -> ShadowChoices:
        seen = self.observe(contexts, as_of)
        known = np.asarray(np.isfinite(seen).all(axis=1))
        side, size, stop, target = self.policy.choose(np.where(known[:, None], seen, np.float32(0))).meaning()
        return ShadowChoices.of(side=np.where(known, side, 0), size=size * SIZES[-1], stop=stop, target=target)


def at_the_close(tape: "Tape", config: "EnvironmentConfig") -> Observe:
    """Observations of the last bar that a tape has of the contexts' session, symbol by symbol; unknown for a symbol or
    session that is not on it, and where the tape says that nothing may be entered. Rows after that session are not
    read."""
    from odin_core.rl.observation import flat_observations  # here, so that lives without learners do not load it

    def observe(contexts: pl.DataFrame, as_of: datetime) -> Matrix:
        rows = np.array([_last_row(tape, *of) for of in contexts.select("symbol", "session").iter_rows()], np.int64)
        known = (rows >= 0) & tape.decidable[np.maximum(rows, 0)]
        seen = flat_observations(tape, np.maximum(rows, 0), config)
        return np.where(known[:, None], seen, np.float32(np.nan))

    return observe


def _last_row(tape: "Tape", symbol: str, session: date) -> int:
    """Of a symbol's session; −1 where the tape has none."""
    if symbol not in tape.symbols:
        return -1
    first, end = tape.rows_of(symbol)
    row = first + int(np.searchsorted(tape.session[first:end], session.toordinal(), side="right")) - 1
    return row if row >= first and tape.session[row] == session.toordinal() else -1
