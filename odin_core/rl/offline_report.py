"""What offline learning came to: a policy valued on sessions that it never saw, beside what else could be done.

Values come from the log (`evaluation.off_policy`) and, because the market is simulated bar by bar, from the outcomes of
all actions, which tell whether the log's answer was right. The page for people is in `offline_page`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from odin_core.evaluation.off_policy import (
    Estimate,
    Logged,
    doubly_robust,
    inverse_propensity,
    linear_rewards,
    self_normalised,
)
from odin_core.policies.actions import ACTIONS, FLAT, PER_SIDE, FloatArray, IntArray
from odin_core.rl.offline_config import ReinforceConfig
from odin_core.rl.offline_data import OfflineData, Parts, column, grid_reward
from odin_core.rl.offline_evidence import evidence
from odin_core.rl.reinforce_policy import ReinforcePolicy

if TYPE_CHECKING:
    from odin_core.lifecycle.life import Life
    from odin_core.policies.joint import JointPolicy
    from odin_core.rl.reinforce import Learned

VALUES = pl.Schema(
    {
        "policy": pl.String(),
        "estimator": pl.String(),
        "value": pl.Float64(),  # units of risk per decision, FLAT earns 0
        "lower": pl.Float64(),  # two-sided 95 %, by session; null where there is none
        "upper": pl.Float64(),
        "rows": pl.Int64(),
        "effective_rows": pl.Float64(),
        "mean_weight": pl.Float64(),
        "doubts": pl.List(pl.String()),
    }
)
BY_SESSION = pl.Schema(
    {
        "session": pl.Date(),
        "long": pl.Float64(),  # mean probability of the policy
        "short": pl.Float64(),
        "flat": pl.Float64(),
        "learned": pl.Float64(),  # mean reward per decision by the outcomes of all actions
        "logged": pl.Float64(),  # that of the log's own choices
        "random": pl.Float64(),
        "part": pl.String(),  # train, validation, test or left out
    }
)
FOLDS = 5  # of the model of rewards that DR uses
ALL_OUTCOMES = "all outcomes"
LEARNED, DECIDED, LOGGED, RANDOM = "REINFORCE", "REINFORCE, likeliest action", "logged policy", "random"


@dataclass(frozen=True, eq=False)
class OfflineReport:
    market: str
    life: str
    config: ReinforceConfig
    policy: ReinforcePolicy
    curves: pl.DataFrame  # CURVE of each seed, with `seed`
    seeds: pl.DataFrame  # seed, best_step, stopped, value by all outcomes on the sessions valued
    values: pl.DataFrame  # VALUES, on the sessions valued
    sessions: pl.DataFrame  # BY_SESSION
    weights: FloatArray  # importance weights of the log's choices on the sessions valued, not cut
    decisions: Mapping[str, int]  # by part
    valued: str  # test, or validation where there is no test
    first: date  # of the sessions valued
    last: date
    notes: tuple[str, ...]

    def value(self, policy: str, estimator: str = ALL_OUTCOMES) -> dict[str, Any]:
        """The row of `values` for a policy and an estimator."""
        return self.values.row(
            by_predicate=(pl.col("policy") == policy) & (pl.col("estimator") == estimator), named=True
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "market": self.market, "life": self.life, "version": self.policy.version,
            "trained_through": self.policy.trained_through, "valued_on": self.valued, "first_session": self.first,
            "last_session": self.last, "decisions": dict(self.decisions), "seeds": self.seeds.to_dicts(),
            "values": self.values.to_dicts(), "notes": list(self.notes), "config": self.config.model_dump(mode="json"),
        }  # fmt: skip


def one_hot(action: IntArray) -> FloatArray:
    """(n, ACTIONS + 1) probabilities of a policy that surely does `action` (n,), grid indices or FLAT."""
    return np.eye(ACTIONS + 1)[column(action)]


def sides_of(action: IntArray) -> FloatArray:
    """(n, ACTIONS + 1) of a policy that takes the side of `action` (n,) with size, stop and target drawn uniformly."""
    chance = np.zeros((len(action), ACTIONS + 1))
    chance[:, ACTIONS] = action == FLAT
    chance[:, :PER_SIDE] = ((action != FLAT) & (action < PER_SIDE))[:, None] / PER_SIDE
    chance[:, PER_SIDE:ACTIONS] = (action >= PER_SIDE)[:, None] / PER_SIDE
    return chance


def values_of(found: OfflineData, policies: Mapping[str, FloatArray], clip: float) -> pl.DataFrame:
    """VALUES of policies given by their probabilities (n, ACTIONS + 1) for the decisions of `found`, and of the log
    itself. By estimator: IPS, SNIPS and DR of the logged choices (the first two cut at `clip`, DR not), SNIPS of what
    was explored, and the mean over the outcomes of all actions."""
    rows = [_row(LOGGED, "mean of the log", _mean(found, found.reward))]
    logged = np.nan_to_num(grid_reward(found, one_hot(found.choice)))
    rows.append(_row(LOGGED, ALL_OUTCOMES, _mean(found, logged)))
    for name, chance in policies.items():
        target = chance[np.arange(len(found)), column(found.choice)]
        log, unseen = found.logged(target), _unseen(found.choice, chance, target)
        rows.append(_row(name, "IPS", inverse_propensity(log, clip=clip), *unseen))
        rows.append(_row(name, "SNIPS", self_normalised(log, clip=clip), *unseen))
        sides = np.stack([chance[:, :PER_SIDE].sum(axis=1), chance[:, PER_SIDE:ACTIONS].sum(axis=1)], axis=1)
        if len(found.sessions) >= FOLDS:
            model = linear_rewards(found.features, found.choice, found.reward, found.session, sides)
            rows.append(_row(name, "DR", doubly_robust(log, *model), *unseen))
        rows += _explored(name, found, chance, clip)
        rows.append(_row(name, ALL_OUTCOMES, _mean(found, grid_reward(found, chance))))
    return pl.DataFrame(rows, schema=VALUES)


def _unseen(choice: IntArray, chance: FloatArray, target: FloatArray) -> tuple[str, ...]:
    """A doubt where a policy trades but none of its trades was ever logged: then only its flat choices are valued.
    `target` is what it gives to `choice`."""
    if ((choice != FLAT) & (target > 0)).any() or not chance[:, :ACTIONS].any():
        return ()
    return ("none of its trades was ever logged, so only what it leaves out is valued",)


def _explored(name: str, found: OfflineData, chance: FloatArray, clip: float) -> list[dict[str, Any]]:
    """A row by what chance decided, none where it decided nothing; its mean weight is per decision of the log, so that
    it is 1 but for chance, as of choices."""
    known = evidence(found, "explored")
    if not known.row.size:
        return []
    target = chance[known.row, column(known.choice)]
    log = Logged(reward=known.reward, propensity=known.propensity, target=target, session=found.session[known.row])
    value, share = self_normalised(log, clip=clip), known.row.size / len(found)
    value = value._replace(mean_weight=value.mean_weight * share, mean_weight_error=value.mean_weight_error * share)
    return [_row(name, "SNIPS, explored", value, *_unseen(known.choice, chance, target))]


def _mean(found: OfflineData, reward: FloatArray) -> Estimate:
    """Of rewards (n,) that need no weights, with its interval by session."""
    sure = np.ones(len(found))
    return inverse_propensity(Logged(reward=reward, propensity=sure, target=sure, session=found.session))


def _row(policy: str, estimator: str, found: Estimate, *doubts: str) -> dict[str, Any]:
    known = {name: _known(getattr(found, name)) for name in ("value", "lower", "upper", "mean_weight")}
    return {
        "policy": policy, "estimator": estimator, **known, "rows": found.rows, "effective_rows": found.effective_rows,
        "doubts": [*doubts, *found.doubts],
    }  # fmt: skip


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def joint_before(life: "Life", session: date) -> tuple[str, "JointPolicy"] | None:
    """The joint policy to compare with on `session` and after it: the champion in force then, else the newest candidate
    trained before; None where there is none. Either was trained on earlier sessions only."""
    earlier = [s for s in life.commits() if s < session]
    champion = life.read("phase_state", earlier[-1])["champion"][0] if earlier else None
    if champion is not None:
        return champion, life.registry.model(champion)
    known = [(version, life.registry.model(version)) for version in life.registry.versions()]
    fit = [(model.trained_through, version, model) for version, model in known if model.trained_through < session]
    return max(fit, key=lambda found: found[:2])[1:] if fit else None


def offline_report(
    found: OfflineData,
    parts: Parts,
    runs: Sequence["Learned"],
    config: ReinforceConfig,
    *,
    market: str,
    life: str,
    take_probability: float,
    joint: tuple[str, "JointPolicy"] | None = None,
) -> OfflineReport:
    """Value what `learn` found on the sessions that it did not see. `runs`: one for each seed, `config.seed` first;
    that one's policy is the one reported, never the best. `take_probability` is that of random exploration; `joint`
    what `joint_before` gives. Where no session is left for a test the sessions that it stopped by are valued, and a
    note says so."""
    valued = "test" if parts.test.size else "validation"
    held = found.take(parts.test if parts.test.size else parts.validation)
    policy = runs[0].policy
    chance = policy.probabilities(held.features, held.allowed)
    random = np.append(np.full(ACTIONS, take_probability / ACTIONS), 1 - take_probability)
    compared = {
        LEARNED: chance,
        DECIDED: one_hot(policy.propose(held.features, held.allowed).action),
        RANDOM: np.tile(random, (len(held), 1)),
    }
    if joint is not None:
        action = joint[1].propose(held.features).action
        compared |= {f"joint {joint[0]}": one_hot(action), "joint, only its sides": sides_of(action)}
    values = values_of(held, compared, config.clip)
    placed = column(held.choice)
    return OfflineReport(
        market=market,
        life=life,
        config=config,
        policy=policy,
        curves=pl.concat([run.curve.with_columns(seed=pl.lit(_seed(run), pl.Int64)) for run in runs]),
        seeds=_seeds(held, runs),
        values=values,
        sessions=_by_session(found, parts, policy, random),
        weights=chance[np.arange(len(held)), placed] / held.propensity,
        decisions={name: int(rows.size) for name, rows in parts._asdict().items()},
        valued=valued,
        first=date.fromordinal(int(held.sessions[0])),
        last=date.fromordinal(int(held.sessions[-1])),
        notes=tuple(_notes(held, runs, values, valued, joint)),
    )


def _seed(run: "Learned") -> int:
    return int(run.policy.facts["seed"])


def _seeds(held: OfflineData, runs: Sequence["Learned"]) -> pl.DataFrame:
    rows = [
        {
            "seed": _seed(run), "version": run.policy.version, "best_step": run.best_step, "stopped": run.stopped,
            "value": float(grid_reward(held, run.policy.probabilities(held.features, held.allowed)).mean()),
        }
        for run in runs
    ]  # fmt: skip
    return pl.DataFrame(rows)


def _by_session(found: OfflineData, parts: Parts, policy: ReinforcePolicy, random: FloatArray) -> pl.DataFrame:
    chance = policy.probabilities(found.features, found.allowed)
    part = np.full(len(found), "left out", dtype=object)
    for name, rows in parts._asdict().items():
        part[rows] = name
    columns = {
        "long": chance[:, :PER_SIDE].sum(axis=1),
        "short": chance[:, PER_SIDE:ACTIONS].sum(axis=1),
        "flat": chance[:, ACTIONS],
        "learned": grid_reward(found, chance),
        "logged": grid_reward(found, one_hot(found.choice)),
        "random": grid_reward(found, np.tile(random, (len(found), 1))),
    }
    frame = pl.DataFrame(
        {"session": [date.fromordinal(int(day)) for day in found.session], **columns, "part": part.tolist()}
    )
    means = [pl.col(name).mean() for name in columns]
    return frame.group_by("session").agg(*means, pl.col("part").mode().sort().first()).sort("session").cast(BY_SESSION)


def _notes(
    held: OfflineData,
    runs: Sequence["Learned"],
    values: pl.DataFrame,
    valued: str,
    joint: tuple[str, "JointPolicy"] | None,
) -> list[str]:
    notes = []
    truth = {row["policy"]: row for row in values.filter(estimator=ALL_OUTCOMES).to_dicts()}
    mine, random = truth[LEARNED], truth[RANDOM]
    lower = mine["lower"] if mine["lower"] is not None else -math.inf
    if runs[0].best_step == 0:
        notes.append("On later sessions nothing was surely better than the prior, so the policy is the prior itself.")
    if lower <= 0:
        notes.append(
            f"Nothing is proven: the mean reward of {mine['value']:+.3f} units of risk per decision is not above doing "
            f"nothing (lower bound {lower:+.3f})."
        )
    if lower <= random["value"]:
        notes.append(f"It is not surely better than random, which earns {random['value']:+.3f}.")
    if valued == "validation":
        notes.append("No session was left for a test; these sessions decided when to stop, so the values flatter.")
    if joint is None:
        notes.append("There is no joint policy trained before these sessions to compare with.")
    doubts = values.filter(policy=LEARNED, estimator="SNIPS")["doubts"][0]
    notes += [f"Of the log's own answer (SNIPS): {doubt}." for doubt in doubts]
    unknown = float(np.isnan(held.grid).mean())
    notes.append(
        f"Values are before the guardrails on number and exposure of trades, on {len(held.sessions)} sessions; "
        f"intervals are 95 %, by session. Of the outcomes of all actions {unknown:.1%} are not known (never filled, or "
        f"not closed on the day) and count as nothing earned."
    )
    return notes
