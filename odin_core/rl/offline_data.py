"""The replay record of a life as arrays: what offline learners and off-policy values start from.

One row per resolved decision, whatever became of it. What each status means here, and why its propensity is right:

* *taken*: the choice is its action, the reward what it earned.
* *rejected*: the choice is its action too. The guardrails came after the choice, so the propensity, which belongs to
  the choice, stands; the reward is what the action would have earned. So a policy is valued before the guardrails.
* *skipped*: the choice is FLAT, with the propensity of skipping and the reward 0. What the action leaned to would have
  earned is `counterfactual`: it teaches a model of rewards (the outcome does not depend on the status, as all come
  from one fill engine), but never stands beside the propensity of FLAT.

The propensity is that of exploring and exploiting together. Orders that never filled earned 0. Beside the record lies
the grid: what the fill engine says of every action of the context. It serves to check what is learned from the record
alone and to calibrate confidence; no gradient sees it."""

from dataclasses import dataclass, fields
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.errors import OdinError
from odin_core.evaluation.off_policy import Logged, choices, earned
from odin_core.policies.actions import ACTIONS, FLAT, GRID, FloatArray, IntArray
from odin_core.replay.record import REGIME, REPLAY, STATUS

if TYPE_CHECKING:
    from odin_core.lifecycle.life import Life
    from odin_core.market.data import MarketData

Matrix = NDArray[np.float32]


class TooFewDecisions(OdinError):
    def __init__(self, life: str, decisions: int, sessions: int, needed: tuple[int, int], as_of: date | None) -> None:
        super().__init__(
            f"life {life} has {decisions} resolved decision(s) in {sessions} session(s)"
            f"{f' as of {as_of}' if as_of else ''}; offline learning asks for {needed[0]} in {needed[1]}. Run the life "
            f"on, or lower min_decisions and min_sessions in the file of --config"
        )


class TooFewToSplit(OdinError):
    def __init__(self, sessions: int, parts: tuple[int, int, int], embargo: int) -> None:
        super().__init__(
            f"{sessions} session(s) of decisions cannot be parted into {parts[0]} to learn from, {parts[1]} to stop by "
            f"and {parts[2]} to report on with {embargo} left out in between; each part that is asked for needs one. "
            f"Change validation_share, test_share or embargo"
        )


class Parts(NamedTuple):
    """Row positions, ascending; the sessions of each part lie before those of the next."""

    train: IntArray
    validation: IntArray
    test: IntArray


@dataclass(frozen=True, eq=False)
class OfflineData:
    """n decisions, by session and symbol. Arrays of n rows unless said otherwise; read-only by convention."""

    names: tuple[str, ...]  # of the features
    features: Matrix  # (n, features) known at the decision; NaN where unknown
    choice: IntArray  # grid index, or FLAT where it was skipped
    lean: IntArray  # grid index: the action recorded, taken or not
    propensity: FloatArray  # in (0, 1], of `choice`
    chance: FloatArray  # probability with which chance, not a policy, decided; NaN where a policy did
    reward: FloatArray  # of `choice`, units of risk; 0 for FLAT and for orders that never filled
    counterfactual: FloatArray  # of `lean`, units of risk; NaN where it never filled
    session: IntArray  # ordinal of the day decided for
    resolved: IntArray  # ordinal of the session in which the outcome became known
    regime: IntArray  # position in `replay.record.REGIME`; −1 where unknown
    status: IntArray  # position in `replay.record.STATUS`
    phase: IntArray
    allowed: NDArray[np.bool_]  # (n, ACTIONS) whether the action buys a lot at least, by the close at the decision
    grid: Matrix  # (n, ACTIONS) reward of every action; NaN where not known

    def __len__(self) -> int:
        return self.choice.size

    @cached_property
    def sessions(self) -> IntArray:
        """Ordinals of the sessions decided for, ascending, each once."""
        return np.unique(self.session)

    @cached_property
    def group(self) -> IntArray:
        """(n,) position of each row's session in `sessions`."""
        return np.searchsorted(self.sessions, self.session).astype(np.int64)

    @property
    def last_session(self) -> date:
        """The last session of which anything is known: that of the latest outcome."""
        return date.fromordinal(int(self.resolved.max()))

    def take(self, rows: IntArray | NDArray[np.bool_]) -> Self:
        """The same of some rows."""
        kept: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{name: value if name == "names" else value[rows] for name, value in kept.items()})

    def logged(self, target: FloatArray) -> Logged:
        """As `evaluation.off_policy` takes it; `target` (n,) is a policy's probability of each row's `choice`."""
        return Logged(reward=self.reward, propensity=self.propensity, target=target, session=self.session)

    def split(self, validation_share: float, test_share: float, embargo: int) -> Parts:
        """Earlier sessions to learn from, later ones to stop by, the last ones to report on; `embargo` sessions before
        the second and the third are left out, and so is every row whose outcome became known in a later part.
        Raises TooFewToSplit."""
        count = len(self.sessions)
        tested = round(count * test_share)
        validated = max(round(count * validation_share), 1)
        at_test = count - tested
        at_validation = at_test - validated - (embargo if tested else 0)
        learned = at_validation - embargo
        if learned < 1 or (test_share > 0 and tested < 1):
            raise TooFewToSplit(count, (max(learned, 0), validated, tested), embargo)
        spans = (0, learned), (at_validation, at_validation + validated), (at_test, count)
        following = (self.sessions[at_validation], self.sessions[at_test] if tested else np.iinfo(np.int64).max, None)
        parts = []
        for (first, end), barrier in zip(spans, following, strict=True):
            inside = (self.group >= first) & (self.group < end)
            parts.append(np.flatnonzero(inside if barrier is None else inside & (self.resolved < barrier)))
        return Parts(*parts)


def offline_data(life: "Life", data: "MarketData", as_of: date | None = None) -> OfflineData:
    """Every decision of a life whose outcome was known at the close of session `as_of` (default: the life's head), with
    what was known at each decision. Decisions still open then are missing, as are those without a known outcome and
    those of sessions without stored outcomes. Raises BarsVanished, SessionDamaged."""
    finished = [s for s in life.commits() if as_of is None or s <= as_of]
    replay = [life.read("replay_buffer", s).select(REPLAY.names()).with_columns(resolved=pl.lit(s)) for s in finished]
    record = pl.concat(replay) if replay else REPLAY.to_frame().with_columns(resolved=pl.lit(None, pl.Date))
    parts = [_session(life, data, s, record.filter(session=s)) for s in finished]
    return _joined([part for part in parts if part is not None])


def require_enough(found: OfflineData, life: str, needed: tuple[int, int], as_of: date | None = None) -> None:
    """Raise TooFewDecisions unless there are so many decisions in so many sessions."""
    if len(found) < needed[0] or len(found.sessions) < needed[1]:
        raise TooFewDecisions(life, len(found), len(found.sessions), needed, as_of)


def _session(life: "Life", data: "MarketData", session: date, decided: pl.DataFrame) -> OfflineData | None:
    """The decisions for one session, symbols ascending; None without any."""
    from odin_core.lifecycle.fold import INPUTS, inputs
    from odin_core.lifecycle.run import BarsVanished

    if decided.is_empty():
        return None
    before, grid = data.calendar.previous(session), life.read("action_outcomes", session)
    rows = data.decision_rows(before).join(grid, on="symbol", how="inner").sort("symbol")
    if rows.height != grid.height:
        raise BarsVanished(life, before, sorted(set(grid["symbol"]) - set(rows["symbol"])))
    place = pl.DataFrame({"symbol": rows["symbol"]}).with_row_index("place")
    decided = decided.join(place, on="symbol", how="inner").sort("symbol")
    result = earned(decided)
    known = np.isfinite(result)
    decided, result = decided.filter(pl.Series(known)), result[known]
    at = decided["place"].to_numpy()
    net = rows["net_return"].cast(pl.Array(pl.Float32, ACTIONS)).to_numpy()
    lot = np.array(data.profile.lot_sizes(rows["symbol"], session), float)
    lots = np.floor(GRID.size * data.profile.capital / rows["close"].to_numpy()[:, None] / lot[:, None])
    choice, propensity = choices(decided).astype(np.int64), np.minimum(decided["propensity"].to_numpy(), 1.0)
    explored = (decided["source"] == "random").to_numpy()
    counterfactual = decided.select(pl.when("complete").then("reward").cast(pl.Float64).fill_null(float("nan")))
    return OfflineData(
        names=INPUTS,
        features=inputs(rows)[at],
        choice=choice,
        lean=decided["action"].cast(pl.Int64).to_numpy(),
        propensity=propensity,
        chance=chance_of_exploring(propensity, choice, explored, life.config.exploration.take_probability),
        reward=result,
        counterfactual=counterfactual.to_series().to_numpy(),
        session=np.full(len(at), session.toordinal(), np.int64),
        resolved=np.array([day.toordinal() for day in decided["resolved"]], np.int64),
        regime=_position(decided["vol_regime"], REGIME),
        status=_position(decided["status"], STATUS),
        phase=decided["phase"].cast(pl.Int64).to_numpy(),
        allowed=(lots >= 1)[at],
        grid=(net / rows["natr_14_60m"].to_numpy()[:, None]).astype(np.float32)[at],
    )


def _position(words: pl.Series, vocabulary: tuple[str, ...]) -> IntArray:
    places = {word: place for place, word in enumerate(vocabulary)}
    return np.array([places.get(word, -1) for word in words], np.int64)


def _joined(parts: list[OfflineData]) -> OfflineData:
    if not parts:
        none, nothing = np.empty(0), np.empty(0, np.int64)
        each, wide = np.empty((0, 0), np.float32), np.empty((0, ACTIONS), np.float32)
        return OfflineData(
            (), each, nothing, nothing, none, none, none, none, nothing, nothing, nothing, nothing, nothing,
            wide.astype(np.bool_), wide,
        )  # fmt: skip
    stacked: dict[str, Any] = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts])
        for f in fields(OfflineData)
        if f.name != "names"
    }
    return OfflineData(names=parts[-1].names, **stacked)


def grid_reward(found: OfflineData, probability: FloatArray) -> FloatArray:
    """(n,) what a policy with `probability` (n, ACTIONS + 1), FLAT last, would have earned on average, by the outcomes
    of all actions; an action whose outcome is not known counts as having earned nothing, as FLAT does."""
    return (np.nan_to_num(found.grid.astype(np.float64)) * probability[:, :ACTIONS]).sum(axis=1)


def column(choice: IntArray) -> IntArray:
    """(n,) columns of a softmax policy that grid indices and FLAT belong to: FLAT is the last one."""
    return np.where(choice == FLAT, ACTIONS, choice).astype(np.int64)


def chance_of_exploring(
    propensity: FloatArray, choice: IntArray, explored: NDArray[np.bool_], take_probability: float
) -> FloatArray:
    """(n,) probability c with which chance made a decision that it made; NaN for others. With q the probability that
    exploring gives the choice (`policies.uniform.probability`) the log says c·q where the policy in charge would have
    chosen otherwise and c·q + 1 − c where it would have chosen the same; the second is above q and the first is not."""
    q = np.where(choice == FLAT, 1 - take_probability, take_probability / ACTIONS)
    with np.errstate(divide="ignore", invalid="ignore"):
        c = np.where(propensity > q, (1 - propensity) / (1 - q), propensity / q)
    return np.where(explored, np.clip(c, 0.0, 1.0), np.nan)
