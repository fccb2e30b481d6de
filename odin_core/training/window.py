"""The learner's window: contexts and their full-information rewards of the last sessions, in memory, of bounded length."""

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
        return float(np.nanmean(self.rewards, dtype=np.float64)) if np.isfinite(self.rewards).any() else float("nan")


class TrainingWindow:
    """A view over the sessions of a look-back, concatenated on demand; contexts without any known outcome are left out."""

    def __init__(self, sessions: list[SessionContexts]) -> None:
        self.sessions = [s for s in sessions if len(s.features)]

    @cached_property
    def _known(self) -> NDArray[np.bool_]:
        sides = np.concatenate([s.rewards.reshape(len(s.rewards), 2, -1) for s in self.sessions])
        return np.isfinite(sides).any(axis=2).all(axis=1)

    @cached_property
    def features(self) -> NDArray[np.float32]:
        return np.concatenate([s.features for s in self.sessions])[self._known]

    @cached_property
    def rewards(self) -> NDArray[np.float64]:
        return np.concatenate([s.rewards for s in self.sessions])[self._known].astype(np.float64)

    @cached_property
    def session_index(self) -> NDArray[np.int64]:
        """(n,) position of each row's session within the window."""
        return np.repeat(np.arange(len(self.sessions)), [len(s.features) for s in self.sessions])[self._known]

    @property
    def names(self) -> tuple[str, ...]:
        return self.sessions[-1].names

    @property
    def last_session(self) -> date:
        return self.sessions[-1].session

    def __len__(self) -> int:
        """Contexts with at least one known outcome on each side."""
        return int(self._known.sum()) if self.sessions else 0
