"""What is noted while a policy is trained: episodes as they end, and one row of the learning curve per update."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

CURVE: Final = pl.Schema(
    {
        "update": pl.Int64(),  # 1 for the first
        "steps": pl.Int64(),  # bars so far, all environments together
        "seconds": pl.Float64(),  # by the clock that the caller gave; the only column that a second run changes
        "reward": pl.Float64(),  # mean of a bar, in the environment's unit
        "episodes": pl.Int64(),  # that ended in this rollout
        "episode_reward": pl.Float64(),  # mean sum of rewards of those episodes; null where none ended
        "episode_length": pl.Float64(),  # their mean length in bars
        "episode_equity": pl.Float64(),  # their mean final equity, by `info["summary"]`; null where it tells none
        "entropy": pl.Float64(),  # nats, mean over the update; null for SAC
        "policy_loss": pl.Float64(),
        "value_loss": pl.Float64(),  # squared error in the learner's reward scale
        "explained_variance": pl.Float64(),  # of the returns by the critic before the update; null for SAC
        "kl": pl.Float64(),  # approximate divergence of the updated policy; null for SAC
        "clip_fraction": pl.Float64(),  # share of decisions at the clip; null for SAC
        "learning_rate": pl.Float64(),
    }
)

SB3_NAMES: Final = {
    "train/policy_gradient_loss": "policy_loss",
    "train/actor_loss": "policy_loss",
    "train/critic_loss": "value_loss",
    "train/value_loss": "value_loss",
    "train/explained_variance": "explained_variance",
    "train/approx_kl": "kl",
    "train/clip_fraction": "clip_fraction",
    "train/learning_rate": "learning_rate",
}

Row = dict[str, float | int | None]


class Progress(Protocol):
    """Told one row of CURVE after each update, say to log it; what it raises ends the training."""

    def __call__(self, row: Mapping[str, float | int | None], /) -> None: ...


class Ended(NamedTuple):
    """One episode that is over, in the environment's unit of reward."""

    reward: float
    length: int  # bars
    equity: float | None  # what it ended with, as `info["summary"]` tells it
    start_row: int | None  # of the tape, likewise


class Episodes:
    """Sums of the episodes that run, and of those that ended since the last `row`. Vectorised over environments."""

    def __init__(self, environments: int) -> None:
        self.reward = np.zeros(environments)
        self.length = np.zeros(environments, np.int64)
        self._forget()

    def _forget(self) -> None:
        self.ended: list[Ended] = []
        self.bar_reward, self.bars = 0.0, 0

    def add(self, rewards: npt.NDArray[Any], dones: npt.NDArray[Any], infos: Sequence[Mapping[str, Any]]) -> None:
        """One step of all environments: rewards (n,) in their own unit, ended (n,) and what they said."""
        self.reward += rewards
        self.length += 1
        self.bar_reward += float(np.sum(rewards, dtype=np.float64))
        self.bars += len(rewards)
        for i in np.flatnonzero(dones).tolist():
            told = infos[i].get("summary", {})
            equity, start = told.get("equity"), told.get("start")
            ended = Ended(
                float(self.reward[i]), int(self.length[i]), _float(equity), None if start is None else int(start)
            )
            self.ended.append(ended)
        self.reward[dones] = 0.0
        self.length[dones] = 0

    def row(self) -> Row:
        """The episode columns of CURVE; what has ended is forgotten."""
        told: Row = {
            "reward": self.bar_reward / self.bars if self.bars else None,
            "episodes": len(self.ended),
            "episode_reward": _mean([one.reward for one in self.ended]),
            "episode_length": _mean([one.length for one in self.ended]),
            "episode_equity": _mean([one.equity for one in self.ended if one.equity is not None]),
        }
        self._forget()
        return told

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What runs; to be taken between `row` and the next `add`, when nothing that has ended is held."""
        return {"reward": self.reward.copy(), "length": self.length.copy()}

    def set_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        self.reward, self.length = state["reward"].copy(), state["length"].copy()
        self._forget()


def learner_row(logged: Mapping[str, Any]) -> Row:
    """The learner's columns of CURVE out of what Stable-Baselines3 logged in one update."""
    told: Row = {ours: known(float(logged[theirs])) for theirs, ours in SB3_NAMES.items() if theirs in logged}
    if "train/entropy_loss" in logged:
        told["entropy"] = known(-float(logged["train/entropy_loss"]))
    return told


def curve_of(rows: Sequence[Mapping[str, float | int | None]]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in CURVE} for row in rows], schema=CURVE)


def known(value: float) -> float | None:
    """None for what is no number, as JSON and tables have it."""
    return value if math.isfinite(value) else None


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
