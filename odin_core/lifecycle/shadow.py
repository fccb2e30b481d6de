"""Shadow inference: what every version that is not in charge would have done, asked at the same close about the same
contexts, with the outcome that it would have had.

`shadow_session` of a finished session D does two things. It asks each version that exists as of D's close for its
choice on exactly the contexts of `recommendations[D]`, and it carries out on D's bars what was logged at the close
before, by the fold's own fills, noise and charges (`outcomes.settle`), on the action grid or off it. Versions are the
champion alone (without the exploration that its plan had, as what the others are compared with), the last joint
candidates, the rules, random, and whatever learners the caller brings (`shadow_choices.ShadowPolicy`). It reads and
decides nothing; `write_shadow` stores three tables that are no part of the life's commits or digest. How versions
compare is in `shadow_report`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import Any, Final

import numpy as np
import polars as pl

from odin_core.errors import OdinError
from odin_core.lifecycle import fold, outcomes
from odin_core.lifecycle.life import Life, generation_on_disk
from odin_core.lifecycle.run import BarsVanished, RewoundMeanwhile, loop_rules
from odin_core.lifecycle.shadow_choices import ShadowChoices, ShadowPolicy
from odin_core.lifecycle.state import POSITIONS, LoopState, carried_from, completed
from odin_core.market.data import MarketData
from odin_core.policies import rules, uniform
from odin_core.policies.actions import SIZES, STOPS, TARGETS, Proposals, encode
from odin_core.policies.unified import COUNTS, unified_score
from odin_core.randomness import stream
from odin_core.registry.history import HISTORY_TABLE
from odin_core.replay.record import DECISION, REPLAY, SIDE, SOURCE

NEWEST: Final = 5
"""How many versions of one learner are asked: the newest joint candidates, and the newest of each learner brought."""
ROLES: Final = ("champion", "candidate", "rules", "random", "learner")
RECOMMENDATIONS_TABLE: Final = "shadow_recommendations"
REPLAY_TABLE: Final = "shadow_replay"
OPEN_TABLE: Final = "shadow_open"

WHO: Final = pl.Schema(
    {
        "version": pl.String(),  # with `decision_id` the key; "rules" and "uniform" have no other version
        "role": pl.String(),  # of ROLES, as of the close at which it was asked
        "trained_through": pl.Date(),  # null where nothing was learned
    }
)
SHADOW_RECOMMENDATIONS: Final = pl.Schema(  # choices made at a session's close for the next session
    WHO | DECISION | {"volatility": pl.Float64()}  # of a one-minute return, as at the decision
)
SHADOW_REPLAY: Final = pl.Schema(WHO | REPLAY)  # choices whose outcome became known in a session
SHADOW_OPEN: Final = pl.Schema(WHO | POSITIONS)  # choices that could not be sold yet


class NotFinished(OdinError):
    def __init__(self, life: Life, session: date) -> None:
        super().__init__(
            f"life {life.id} of {life.market} has not finished session {session} (its head is {life.head}): shadows "
            f"follow it. Run it there first: odin bootstrap --market {life.market} --end {session}"
        )


class ShadowsDiffer(OdinError):
    def __init__(self, life: Life, session: date, symbols: Sequence[str]) -> None:
        super().__init__(
            f"life {life.id}: on session {session} shadow choices in {', '.join(symbols[:5])} come to other outcomes "
            f"than `action_outcomes` has, so bars or code changed since; beside the champion's they would prove "
            f"nothing, and none was kept. To recompute: odin life rewind --market {life.market} --to <the session "
            f"before>, then run on"
        )


@dataclass(frozen=True, kw_only=True)
class ShadowSession:
    """What shadows did at one session. `follows`: whether choices were logged at the close before, without which there
    is nothing to carry out."""

    session: date
    recommendations: pl.DataFrame  # SHADOW_RECOMMENDATIONS, versions one after another, symbols ascending
    replay: pl.DataFrame  # SHADOW_REPLAY, by decision_id and version
    open: pl.DataFrame  # SHADOW_OPEN, by decision_id and version
    follows: bool

    @property
    def tables(self) -> dict[str, pl.DataFrame]:
        return {RECOMMENDATIONS_TABLE: self.recommendations, REPLAY_TABLE: self.replay, OPEN_TABLE: self.open}


@dataclass(frozen=True)
class _Asked:
    """One version's answer."""

    version: str
    role: str
    source: str
    policy: str
    choices: ShadowChoices
    trained_through: date | None = None

    @property
    def model_version(self) -> str | None:
        return self.version if self.trained_through else None


def shadow_session(
    life: Life, data: MarketData, session: date, policies: Sequence[ShadowPolicy] = (), *, newest: int = NEWEST
) -> ShadowSession:
    """Shadows of the finished `session`: choices at its close, and what became of those logged at the close before.

    Nothing later than the session is read: not a version trained after it, not a line of history. What is asked at
    session D depends on nothing that is logged, what is carried out on nothing but the log and D's bars. Choices still
    open are taken up from the session before. Nothing is written.
    Raises NotFinished, ShadowsDiffer, BarsVanished, ModelCorrupt; ValueError where a policy breaks its contract."""
    if life.committed(session) is None:
        raise NotFinished(life, session)
    before = data.calendar.previous(session)
    logged = life.lake.has(RECOMMENDATIONS_TABLE, before)
    settled = _carry_out(life, data, session, before)
    return ShadowSession(
        session=session,
        recommendations=_choices(life, data, session, policies, newest),
        replay=settled.resolved.sort("decision_id", "version"),
        open=settled.positions.sort("decision_id", "version"),
        follows=logged,
    )


def write_shadow(life: Life, shadow: ShadowSession, *, wait: float = 10.0) -> dict[str, bool]:
    """Store a session's shadows; by table, whether it was written: one that holds just these rows stays untouched.
    Raises HomeBusy after `wait` seconds in which another process writes, RewoundMeanwhile."""
    with life.home.writer(f"the shadows of {life.market}, session {shadow.session}", wait=wait):
        if generation_on_disk(life) != life.generation:
            raise RewoundMeanwhile(life)
        return {name: life.lake.write_changed(name, shadow.session, frame) for name, frame in shadow.tables.items()}


def known_versions(life: Life, session: date) -> Iterator[str]:
    """Joint versions that the life's own history knows as of the close of `session`, the newest event first."""
    seen: set[str] = set()
    for known in reversed([s for s in life.lake.sessions(HISTORY_TABLE) if s <= session]):
        events = life.read(HISTORY_TABLE, known).filter(pl.col("trained_through") <= session)
        for version in reversed(events["version"].to_list()):
            if version is not None and version not in seen:
                seen.add(version)
                yield version


def _choices(
    life: Life, data: MarketData, session: date, policies: Sequence[ShadowPolicy], newest: int
) -> pl.DataFrame:
    """SHADOW_RECOMMENDATIONS of a close."""
    plan = completed(life.read("recommendations", session), DECISION)
    if plan.is_empty():
        return SHADOW_RECOMMENDATIONS.to_frame()
    contexts = data.decision_rows(session).filter(pl.col("symbol").is_in(plan["symbol"].to_list())).sort("symbol")
    if contexts.height != plan.height:
        raise BarsVanished(life, session, sorted(set(plan["symbol"]) - set(contexts["symbol"])))
    per_minute = contexts["realised_volatility_75_5m"].to_numpy() / np.sqrt(fold.MINUTES_IN_FEATURE)
    base = plan.with_columns(volatility=pl.Series(per_minute, dtype=pl.Float64))
    asked = list(_answers(life, data, session, contexts, plan["session"][0], policies, newest))
    versions = [a.version for a in asked]
    if len(set(versions)) != len(versions):
        raise ValueError(f"versions must differ, and these do not: {', '.join(sorted(versions))}")
    return pl.concat([_rows(base, a, life, data) for a in asked])


def _answers(
    life: Life,
    data: MarketData,
    session: date,
    contexts: pl.DataFrame,
    following: date,
    policies: Sequence[ShadowPolicy] = (),
    newest: int = NEWEST,
) -> Iterator[_Asked]:
    """The answers of all versions that exist as of the close of `session` on `contexts` (its features, symbols
    ascending), for session `following`: the champion, candidates, the rules, random, learners."""
    state = LoopState(**carried_from(life.read("phase_state", session).row(0, named=True)))
    matrix, champion = fold.inputs(contexts), state.champion
    others = islice((version for version in known_versions(life, session) if version != champion), newest)
    for version in (*([champion] if champion else []), *others):
        model = life.registry.model(version)
        choices = _certain(model.propose(matrix), "joint", state.payoffs)
        role = "champion" if version == champion else "candidate"
        yield _Asked(version, role, "joint", model.name, choices, model.trained_through)
    yield _Asked("rules", "rules", "rule", "rules", _certain(rules.propose(contexts), "rule", state.payoffs))
    chance = life.config.exploration.take_probability
    drawn = uniform.propose(contexts.height, chance, stream(life.config.seed, following, "shadow/uniform"))
    known = ShadowChoices.of_proposals(drawn, propensity=uniform.probability(drawn.action, chance))
    yield _Asked("uniform", "random", "random", "uniform", known)
    as_of = data.calendar.hours(session).close
    for policy in _trained(policies, session, newest):
        chosen = policy.choose(contexts, as_of)
        chosen.require_fit(f"{policy.name} {policy.version}", contexts.height)
        yield _Asked(policy.version, "learner", policy.name, policy.name, chosen, policy.trained_through)


def _certain(proposals: Proposals, source: str, payoffs: Sequence[float]) -> ShadowChoices:
    """Choices that are what they are with probability one, with the unified score of their source."""
    place = SOURCE.index(source) * COUNTS
    score = unified_score(proposals.confidence, payoffs[place : place + COUNTS])
    confidence = proposals.confidence if source == "joint" else None
    return ShadowChoices.of_proposals(proposals, confidence=confidence, score=score)


def _trained(policies: Sequence[ShadowPolicy], session: date, newest: int) -> list[ShadowPolicy]:
    """Of each learner the `newest` versions that had been trained by the close of `session`, oldest first."""
    trained = (p for p in policies if p.trained_through <= session)
    known = sorted(trained, key=lambda p: (p.name, p.trained_through, p.version))
    for policy in known:
        if policy.name in SOURCE:
            raise ValueError(f"policy {policy.version} is named {policy.name!r}, which is a source of the fold's own")
    by_name = {name: [p for p in known if p.name == name] for name in dict.fromkeys(p.name for p in known)}
    return [policy for of in by_name.values() for policy in of[-newest:]] if newest else []


def _rows(base: pl.DataFrame, asked: _Asked, life: Life, data: MarketData) -> pl.DataFrame:
    """The plan's rows with one version's choices."""
    of, session = asked.choices, base["session"][0]
    status, reason = _limited(base, asked, life, data)
    known = of.side != 0
    number = lambda values: pl.Series(np.where(known, values, np.nan)).fill_nan(None)  # noqa: E731
    values: dict[str, Any] = {
        "version": asked.version, "role": asked.role, "trained_through": asked.trained_through,
        "source": asked.source, "exploration_type": "uniform" if asked.role == "random" else "none",
        "policy": asked.policy, "model_version": asked.model_version,
        "side": pl.Series([SIDE[0] if s > 0 else SIDE[1] if s < 0 else None for s in of.side], dtype=pl.String),
        "size": number(of.size), "stop_atr": number(of.stop), "target_mult": number(of.target),
        "confidence": pl.Series(of.confidence).fill_nan(None), "propensity": pl.Series(of.propensity),
        "status": pl.Series(status), "reject_reason": pl.Series(reason, dtype=pl.String),
        "action": pl.Series(_on_grid(of), dtype=pl.Int16), "score": pl.Series(of.score).fill_nan(None),
        "session": session,
    }  # fmt: skip
    columns = [v.alias(name) if isinstance(v, pl.Series) else pl.lit(v).alias(name) for name, v in values.items()]
    return base.with_columns(columns).select(SHADOW_RECOMMENDATIONS.names()).cast(SHADOW_RECOMMENDATIONS)


def _on_grid(choices: ShadowChoices) -> list[int | None]:
    """Each choice as an index of the action grid; None where it is off the grid or has no side."""
    places = []
    for values, axis in ((choices.size, SIZES), (choices.stop, STOPS), (choices.target, TARGETS)):
        at = np.minimum(np.searchsorted(axis, values), len(axis) - 1)
        places.append(np.where(np.asarray(axis)[at] == values, at, -1))
    on = (choices.side != 0) & np.all([p >= 0 for p in places], axis=0)
    index = encode((choices.side < 0).astype(np.int64), *(np.maximum(p, 0) for p in places))
    return [int(i) if is_on else None for i, is_on in zip(index, on, strict=True)]


def _limited(
    base: pl.DataFrame, asked: _Asked, life: Life, data: MarketData
) -> tuple[list[str], list[str | None]]:  # fmt: skip
    """Status and reject reason of each choice: a version is held to the life's limits on trades and exposure as if the
    session were its own, the highest score first, then the most confident, then at random. The life's halts and what
    it has open are its own business."""
    of, limits, session = asked.choices, life.config.guardrails, base["session"][0]
    draw = stream(life.config.seed, session, f"shadow/{asked.version}").permutation(base.height)
    last_of_all = lambda values: np.where(np.isnan(values), np.inf, -values)  # noqa: E731
    served = np.lexsort((draw, last_of_all(of.confidence), last_of_all(of.score)))
    lot = np.array(data.profile.lot_sizes(base["symbol"], session), float)
    small = np.floor(of.size * data.profile.capital / base["reference_close"].to_numpy() / lot) < 1
    status: list[str] = ["skipped"] * base.height
    reasons: list[str | None] = [None] * base.height
    trades, exposure = 0, 0.0
    for i in served[of.takes[served]]:
        if small[i]:
            reasons[i] = "too_small"
        elif trades >= limits.max_trades:
            reasons[i] = "max_trades"
        elif exposure + of.size[i] > limits.max_exposure + 1e-12:
            reasons[i] = "max_exposure"
        else:
            trades, exposure = trades + 1, exposure + float(of.size[i])
        status[i] = "rejected" if reasons[i] else "taken"
    return status, reasons


def _carry_out(life: Life, data: MarketData, session: date, before: date) -> outcomes.Settled:
    """Choices logged at the close of `before`, and those open since earlier, on the bars of `session`."""
    choices = life.lake.read_or_empty(RECOMMENDATIONS_TABLE, before, SHADOW_RECOMMENDATIONS)
    open_before = life.lake.read_or_empty(OPEN_TABLE, before, SHADOW_OPEN)
    if choices.is_empty() and open_before.is_empty():
        return outcomes.Settled(SHADOW_REPLAY.to_frame(), SHADOW_OPEN.to_frame())
    has_side = pl.col("side").is_not_null()
    settled = outcomes.settle(
        choices.filter(has_side), open_before, data.bars(session), loop_rules(life, data.profile).venue,
        life.config.seed, session, data.actions.taking_effect(session),
    )  # fmt: skip
    _require_same(life, session, choices, settled)
    return settled._replace(resolved=pl.concat([settled.resolved, _flat(choices.filter(~has_side))]))


def _flat(choices: pl.DataFrame) -> pl.DataFrame:
    """Choices without a side as rows of SHADOW_REPLAY: nothing was bought, and nothing is known of what would have
    been."""
    unknown = [pl.lit(None, kind).alias(name) for name, kind in SHADOW_REPLAY.items() if name not in choices.columns]
    flat = choices.with_columns(unknown).with_columns(counterfactual=pl.lit(True), complete=pl.lit(False))
    return flat.select(SHADOW_REPLAY.names())


def _require_same(life: Life, session: date, choices: pl.DataFrame, settled: outcomes.Settled) -> None:
    """Raise ShadowsDiffer unless each choice on the grid came to what the life's own table of all actions has."""
    table, on_grid = life.read("action_outcomes", session), choices.filter(pl.col("action").is_not_null())
    if on_grid.is_empty():
        return
    key = ["decision_id", "version"]
    found = on_grid.join(settled.resolved.select(*key, "net_return"), on=key, how="left", maintain_order="left")
    row = found.join(
        table.with_row_index("row").select("symbol", "row"), on="symbol", how="left", maintain_order="left"
    )
    known = np.array(table["net_return"].to_list(), np.float32)
    if row["row"].null_count():
        raise ShadowsDiffer(life, session, row.filter(pl.col("row").is_null())["symbol"].unique().sort().to_list())
    told = known[row["row"].to_numpy(), row["action"].to_numpy()]
    mine = found["net_return"].fill_null(float("nan")).to_numpy().astype(np.float32)
    differs = (told != mine) & ~(np.isnan(told) & np.isnan(mine))
    if differs.any():
        raise ShadowsDiffer(life, session, found.filter(pl.Series(differs))["symbol"].unique().sort().to_list())
