"""Where episodes begin: rows of a tape at which decisions were once made, taken or not, drawn by a curriculum.

What comes in are decision records (`replay.record`) and a tape; what goes out are rows with regimes, and weights that
change while a policy is trained (`training.curriculum`). The environments draw with them; nothing is drawn here."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.errors import OdinError
from odin_core.replay.record import REGIME
from odin_core.training.curriculum import start_weights

if TYPE_CHECKING:
    from odin_core.rl.callbacks import Ended
    from odin_core.rl.tape import Tape

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

EPOCH = date(1970, 1, 1).toordinal()
FORGETTING = 0.9
"""Weight of the past in a regime's mean reward, per rollout in which episodes began in it."""


class NoStarts(OdinError):
    def __init__(self, contexts: int, symbols: Sequence[str]) -> None:
        super().__init__(
            f"none of the {contexts} contexts lies on the tape of {', '.join(symbols[:5])} with a bar after it; take a "
            f"tape of the sessions that were decided for, or start anywhere"
        )


@dataclass(frozen=True, eq=False)
class Starts:
    """Rows of one tape, ascending, each once."""

    rows: IntArray  # (n,) the decision's row: the last bar known when it was made
    regime: tuple[str | None, ...]  # (n,) of REGIME; None where it was not known
    taken: npt.NDArray[np.bool_]  # (n,) whether any decision there was taken

    @classmethod
    def of_replay(cls, tape: "Tape", replay: pl.DataFrame, known_at: npt.NDArray[np.datetime64] | None = None) -> Self:
        """The contexts of decision records: taken, skipped and rejected ones alike, several decisions of one context
        once. `replay` needs symbol, session, decided_at, vol_regime and status. `known_at` (rows,), UTC: when each
        row's bar was known; without it a decision counts as made at the close before its session, as daily ones are.

        Left out: symbols and times that the tape does not have, rows in which nothing may be entered, and a symbol's
        last row. Raises NoStarts where nothing remains."""
        contexts = (
            replay.group_by("symbol", "session", "decided_at")
            .agg(pl.col("vol_regime").drop_nulls().first(), taken=(pl.col("status") == "taken").any())
            .sort("symbol", "decided_at", "session")
        )
        names = contexts["symbol"].to_list()
        if known_at is None:
            found = rows_before_session(tape, names, contexts["session"].cast(pl.Date).to_numpy())
        else:
            found = rows_known(tape, known_at, names, contexts["decided_at"].dt.replace_time_zone(None).to_numpy())
        last = np.isin(found, tape.starts[1:] - 1)
        usable = (found >= 0) & ~last
        usable[usable] = tape.decidable[found[usable]]
        if not usable.any():
            raise NoStarts(contexts.height, tape.symbols)
        rows, place = np.unique(found[usable], return_index=True)
        kept = contexts.filter(usable)[place]
        taken = np.zeros(tape.rows, bool)
        taken[found[usable & contexts["taken"].to_numpy()]] = True
        return cls(rows, tuple(kept["vol_regime"].to_list()), taken[rows])

    @property
    def digest(self) -> str:
        """Twelve hex digits over rows and regimes."""
        told = f"{self.rows.tolist()} {self.regime}"
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    def weights(self, reward: Mapping[str, float], progress: float, hardness: float) -> FloatArray:
        """(n,) probabilities, by `training.curriculum.start_weights`. Contexts without a regime are left out while any
        has one; where none has, all are equal."""
        if not any(self.regime):
            return np.full(len(self.rows), 1.0 / len(self.rows))
        return start_weights(self.regime, reward, progress, hardness=hardness)


def rows_known(
    tape: "Tape", known_at: npt.NDArray[np.datetime64], symbols: Sequence[str], at: npt.NDArray[np.datetime64]
) -> IntArray:
    """(n,) for each symbol and instant (UTC) the last row known by then, in the day that ends there; −1 for none."""
    found = np.full(len(symbols), -1, np.int64)
    instants, known = at.astype("datetime64[us]"), known_at.astype("datetime64[us]")
    for name, places in _by_symbol(tape, symbols).items():
        first, end = tape.rows_of(name)
        row = first + np.searchsorted(known[first:end], instants[places], side="right") - 1
        fresh = (row >= first) & (instants[places] - known[np.maximum(row, first)] < np.timedelta64(1, "D"))
        found[places] = np.where(fresh, row, -1)
    return found


def rows_before_session(tape: "Tape", symbols: Sequence[str], sessions: npt.NDArray[Any]) -> IntArray:
    """(n,) the last row of the symbol's last session before each of these dates, a week before at most; −1 for none."""
    found = np.full(len(symbols), -1, np.int64)
    ordinals = sessions.astype("datetime64[D]").astype(np.int64) + EPOCH
    for name, places in _by_symbol(tape, symbols).items():
        first, end = tape.rows_of(name)
        row = first + np.searchsorted(tape.session[first:end], ordinals[places], side="left") - 1
        fresh = (row >= first) & (ordinals[places] - tape.session[np.maximum(row, first)] <= 7)
        found[places] = np.where(fresh, row, -1)
    return found


def _by_symbol(tape: "Tape", symbols: Sequence[str]) -> dict[str, list[int]]:
    """Places of each symbol that the tape has."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(symbols):
        places[name].append(place)
    return {name: where for name, where in places.items() if name in tape.symbols}


class TakesStarts(Protocol):
    """Environments whose next episodes begin at given rows, drawn with given weights."""

    def set_starts(self, rows: IntArray, weights: FloatArray) -> None: ...


class Curriculum:
    """Steers where episodes begin (`ppo.Steering`): as contexts were frequent at first, by rarity and difficulty later.

    Difficulty is each regime's mean reward per bar of the episodes that began in it, later rollouts weighing more."""

    def __init__(self, environments: TakesStarts, starts: Starts, hardness: float, reward_scale: float = 1.0) -> None:
        self.environments, self.starts, self.hardness, self.scale = environments, starts, hardness, reward_scale
        self.reward = np.full(len(REGIME), np.nan)
        self._regime = dict(zip(starts.rows.tolist(), starts.regime, strict=True))

    def before_rollout(self, progress: float) -> None:
        known = {name: float(value) * self.scale for name, value in zip(REGIME, self.reward, strict=True)}
        self.environments.set_starts(self.starts.rows, self.starts.weights(known, progress, self.hardness))

    def after_rollout(self, ended: Sequence["Ended"]) -> None:
        """Of the episodes that ended, those whose `info` told their start count."""
        for place, name in enumerate(REGIME):
            mine = [one for one in ended if one.start_row is not None and self._regime.get(one.start_row) == name]
            bars = sum(one.length for one in mine)
            if bars:
                mean = sum(one.reward for one in mine) / bars
                before = self.reward[place]
                self.reward[place] = mean if np.isnan(before) else FORGETTING * before + (1 - FORGETTING) * mean

    def state(self) -> dict[str, npt.NDArray[Any]]:
        return {"reward": self.reward.copy()}

    def set_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        self.reward = state["reward"].copy()
