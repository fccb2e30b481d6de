"""The learner's window: contexts and full-information rewards of the last sessions, in memory, of bounded length."""

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odin_core.policies.actions import known_mean


@dataclass(frozen=True)
class SessionContexts:
    """The contexts decided on for one session, symbols ascending, with the outcome of every action."""

    session: date
    names: tuple[str, ...]  # of the features
    features: NDArray[np.float32]  # (n, features), as known at the decision
    rewards: NDArray[np.float32]  # (n, actions), NaN where the outcome is not known
    rule_choice: NDArray[np.int64]  # (n,) what the rules would have done, FLAT included
    files: tuple[dict[str, Any], ...]  # table, session, path, rows and logical hash of the tables behind this

    @property
    def random_reward(self) -> float:
        """Mean reward of an action drawn uniformly from contexts and grid; NaN without any known outcome."""
        return float(known_mean(self.rewards.astype(np.float64), (0, 1)))


class TrainingWindow:
    """A view over the sessions of a look-back, concatenated on demand, without contexts of no known outcome."""

    def __init__(self, sessions: list[SessionContexts]) -> None:
        self.sessions = [s for s in sessions if len(s.features)]

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Of each context of `sessions`, whether an outcome is known on each side: those that are learned from."""
        sides = np.concatenate([s.rewards.reshape(len(s.rewards), 2, -1) for s in self.sessions])
        known: NDArray[np.bool_] = np.isfinite(sides)
        return np.all(known.any(axis=2), axis=1)

    @cached_property
    def features(self) -> NDArray[np.float32]:
        return np.concatenate([s.features for s in self.sessions])[self.known]

    @cached_property
    def rewards(self) -> NDArray[np.float64]:
        return np.concatenate([s.rewards for s in self.sessions])[self.known].astype(np.float64)

    @cached_property
    def session_index(self) -> NDArray[np.int64]:
        """(n,) position of each row's session within the window."""
        return np.repeat(np.arange(len(self.sessions)), [len(s.features) for s in self.sessions])[self.known]

    @property
    def names(self) -> tuple[str, ...]:
        return self.sessions[-1].names

    @property
    def last_session(self) -> date:
        return self.sessions[-1].session

    def __len__(self) -> int:
        """Contexts with at least one known outcome on each side."""
        return int(self.known.sum()) if self.sessions else 0
