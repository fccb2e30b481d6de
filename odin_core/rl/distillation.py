"""Distillation: a teacher's choices (PPO, REINFORCE, any policy) taught to the joint policy, and what that costs.

The joint policy decides fast, without torch, and passes the gate like any candidate; what a slow learner found is put
into its heads. Per context the teacher says flat, long or short with probabilities F, L, S (1 for its choice where it
gives none). The joint policy trades where e + |s| > 0, on the side of s, so its heads learn

    s = L − S,   e = −F + offset:

where the teacher surely trades e + |s| = 1 > 0, where it surely stays flat −1 < 0. Trees that are unsure predict less
of both, so `offset` is set such that the student trades as often as the teacher on sessions that its walk-forward folds
had not seen. The *exit* head learns which stop and target the teacher takes, the *size* head the scale at which the
joint policy's own rule gives the teacher's size. *Confidence* is Platt's of realised outcomes, as
`policies.joint` does it, on sessions that the student's folds had not seen: a teacher is never trusted on its own word.
Where the teacher had seen them, that confidence is too high, and the report says so. e and s are preferences here, not
rewards; what uses a policy's score uses its order. Source: Hinton, Vinyals & Dean 2015; of policies Rusu et al. 2016.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.errors import OdinError
from odin_core.evaluation.bootstrap import bootstrap_difference, bootstrap_metric
from odin_core.evaluation.splits import PurgedWalkForward, TooFewSessions
from odin_core.lifecycle.config import LearnerConfig
from odin_core.policies import joint
from odin_core.policies.actions import FLAT, PER_SIDE, SHAPE, TARGETS, FloatArray, IntArray, Proposals
from odin_core.policies.joint import JointPolicy, WalkForward, train_joint, version_of
from odin_core.rl.teaching import Taught, position_of
from odin_core.training.window import TrainingWindow

FEWEST_TRADES = 30  # of the teacher in the sessions learned from
EXIT_CONTEXTS = 4000  # contexts at most that teach the exit head, 16 rows each
SIZE_CENTRES = np.array([0.05, 0.175, 0.375, 0.75])
"""Utility over FULL_SIZE_UTILITY in the middle of what gives each of the grid's sizes."""

COMPARED = pl.Schema(
    {
        "policy": pl.String(),
        "reward": pl.Float64(),  # per decision, units of risk, FLAT earns 0; mean over sessions
        "lower": pl.Float64(),  # two-sided 95 %, bootstrap of sessions
        "upper": pl.Float64(),
        "trades": pl.Float64(),  # share of the contexts
        "per_trade": pl.Float64(),  # mean reward of a trade; null without any
    }
)


class TeacherHardlyTrades(OdinError):
    def __init__(self, name: str, trades: int) -> None:
        super().__init__(
            f"{name} trades {trades} time(s) in the sessions to learn from; distillation asks for {FEWEST_TRADES}. "
            f"Train the teacher longer, or give more sessions"
        )


class _Fitted(NamedTuple):
    heads: dict[str, str]
    platt: tuple[float, float]
    walk: WalkForward


@dataclass(frozen=True, eq=False)
class DistillationReport:
    """The loss of performance, measured with a student that learned from the earlier sessions only."""

    teacher: str
    student: str  # version of the student that is handed on, which learned from all sessions
    sessions: int  # held out
    first: date
    last: date
    contexts: int  # held out
    agreement: dict[str, float]  # shares; NaN where nothing compares
    compared: pl.DataFrame  # COMPARED
    loss: dict[str, float]  # student less teacher: difference, lower (one-sided 95 %), p_value of "no better"
    over_joint: dict[str, float]  # student less a joint policy trained on outcomes, likewise
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "teacher": self.teacher, "student": self.student, "sessions": self.sessions, "first": self.first,
            "last": self.last, "contexts": self.contexts, "agreement": self.agreement,
            "compared": self.compared.to_dicts(), "loss": self.loss, "over_joint": self.over_joint,
            "notes": list(self.notes),
        }  # fmt: skip

    def markdown(self) -> str:
        lines = [
            f"**{self.student}**, distilled from {self.teacher}; compared on {self.contexts:,} contexts of "
            f"{self.sessions} later sessions ({self.first} to {self.last})",
            "",
            "| policy | reward per decision | 95 % | trades | reward per trade |",
            "|---|---:|---:|---:|---:|",
        ]
        for row in self.compared.iter_rows(named=True):
            per_trade = "–" if row["per_trade"] is None else f"{row['per_trade']:+.3f}"
            span = "–" if row["lower"] is None else f"{row['lower']:+.3f} to {row['upper']:+.3f}"
            lines.append(f"| {row['policy']} | {row['reward']:+.4f} | {span} | {row['trades']:.0%} | {per_trade} |")
        told = ", ".join(f"{name} {value:.0%}" for name, value in self.agreement.items() if not math.isnan(value))
        lines += [
            "",
            f"Agreement with the teacher: {told}.",
            f"Student less teacher {self.loss['difference']:+.4f} (at least {self.loss['lower']:+.4f} at 95 %), less "
            f"the joint policy that learned from outcomes {self.over_joint['difference']:+.4f} "
            f"(at least {self.over_joint['lower']:+.4f}).",
            *(f"\n{note}" for note in self.notes),
        ]
        return "\n".join(lines) + "\n"


class Distilled(NamedTuple):
    policy: JointPolicy  # learned from every session of the window
    walk: WalkForward  # its walk-forward, as `train_joint` gives one; evidence if the teacher saw none of its sessions
    report: DistillationReport


def distil(
    window: TrainingWindow, taught: Taught, config: LearnerConfig, seed: int, *, held_out: float = 0.25
) -> Distilled:
    """Teach the joint policy what `taught` does with the contexts of `window` (n of them, those of `window.features`).

    The report's student learns from the sessions before the last `held_out` share, `config.purge_sessions` left out in
    between, and so does the joint policy that it is compared with; the policy handed on learns from all. Same inputs,
    same model text. Raises TeacherHardlyTrades, TooFewSessions; ValueError where contexts and choices differ in number.
    """
    session = window.session_index
    if taught.action.size != session.size:
        raise ValueError(
            f"{taught.action.size} choices for a window of {session.size} contexts: one choice per context"
        )
    count = len(window.sessions)
    ahead = max(round(count * held_out), 1)
    earlier_until = count - ahead - config.purge_sessions
    if earlier_until < 2:
        raise TooFewSessions(count, ahead + config.purge_sessions + 2, 1, "held-out")
    earlier, later = session < earlier_until, session >= count - ahead
    part = TrainingWindow(window.sessions[:earlier_until])
    student = _policy(part, _take(taught, earlier), config, seed)[0]
    baseline, _ = train_joint(part, config, seed)
    whole, fitted = _policy(window, taught, config, seed)
    walked = window.sessions[int(session[fitted.walk.rows].min())].session
    report = _report(window, taught, later, student, baseline, version_of(whole), seed, walked)
    return Distilled(whole, fitted.walk, report)


def _take(taught: Taught, rows: NDArray[np.bool_]) -> Taught:
    return Taught(taught.name, taught.action[rows], taught.sides[rows], taught.trained_through)


def _policy(window: TrainingWindow, taught: Taught, config: LearnerConfig, seed: int) -> tuple[JointPolicy, _Fitted]:
    if (trades := int((taught.action != FLAT).sum())) < FEWEST_TRADES:
        raise TeacherHardlyTrades(taught.name, trades)
    fitted = _fitted(window, taught, functools.partial(joint.fit_head, config=config, seed=seed), config, seed)
    return JointPolicy(window.names, window.last_session, fitted.heads, fitted.platt), fitted


def _fitted(
    window: TrainingWindow, taught: Taught, fit: Callable[..., str], config: LearnerConfig, seed: int
) -> _Fitted:
    X, names = window.features, window.names
    s, e = taught.sides[:, 1] - taught.sides[:, 2], -taught.sides[:, 0]
    walk = _walk(window, s, e, fit, config)
    offset = _offset(walk.expected, float(np.mean(taught.action[walk.rows] != FLAT)))
    walk = replace(walk, expected=walk.expected + offset)
    heads = {"direction": joint.fit_direction(X, s, names, fit), "enter": fit(X, e + offset)}
    traded = np.flatnonzero(taught.action != FLAT)
    expected = _expected(heads, X[traded], names)
    _, size, stop, target = np.unravel_index(taught.action[traded], SHAPE)
    scale = np.maximum(expected, 0.02) / (joint.FULL_SIZE_UTILITY * SIZE_CENTRES[size])
    heads["size"] = fit(X[traded], np.log(scale))
    heads["exit"] = fit(*_exit_rows(X[traded], taught.action[traded] >= PER_SIDE, stop, target, names, seed))
    utility = walk.expected / np.exp(joint.predict(joint.booster_of(heads["size"]), X[walk.rows]))
    return _Fitted(heads, joint.platt_scaling(utility, walk.reward > 0), walk)


def _expected(heads: dict[str, str], X: joint.Matrix, names: tuple[str, ...]) -> FloatArray:
    """(n,) e + |s| as the joint policy reckons it."""
    return joint.predict(joint.booster_of(heads["enter"]), X) + np.abs(_direction(heads["direction"], X, names))


def _direction(head: str, X: joint.Matrix, names: tuple[str, ...]) -> FloatArray:
    booster = joint.booster_of(head)
    return (joint.predict(booster, X) - joint.predict(booster, joint.mirrored_contexts(X, names))) / 2


def _walk(
    window: TrainingWindow, s: FloatArray, e: FloatArray, fit: Callable[..., str], config: LearnerConfig
) -> WalkForward:
    """Folds as `joint.walk_forward` makes them, of heads that learn the teacher; outcomes are the realised ones."""
    X, names, session = window.features, window.names, window.session_index
    outcome = joint.targets_of(window).outcome
    splitter = PurgedWalkForward(n_splits=config.walk_forward_folds, embargo=config.purge_sessions)
    spans = np.stack([session, session], axis=1)
    parts = []
    for fold, (train, test) in enumerate(splitter.split(X, groups=session, label_spans=spans)):
        heads = {"direction": joint.fit_direction(X[train], s[train], names, fit), "enter": fit(X[train], e[train])}
        score = _direction(heads["direction"], X[test], names)
        reward = outcome.enter[test] + np.where(score >= 0, 1, -1) * outcome.direction[test]
        parts.append((
            test, np.full(len(test), fold), _expected(heads, X[test], names), reward, outcome.enter[test], score,
            outcome.direction[test],
        ))  # fmt: skip
    return WalkForward(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _offset(expected: FloatArray, share: float) -> float:
    """What makes `share` of (n,) predictions positive."""
    return -float(np.quantile(expected, np.clip(1 - share, 0, 1)))


def _exit_rows(
    X: joint.Matrix, short: NDArray[np.bool_], stop: IntArray, target: IntArray, names: tuple[str, ...], seed: int
) -> tuple[joint.Matrix, FloatArray]:
    """Rows (context seen from its side, exit): 1 for the exit that the teacher takes, 0 for the others."""
    seen = np.where(short[:, None], joint.mirrored_contexts(X, names), X)
    taken = stop * len(TARGETS) + target
    if len(seen) > EXIT_CONTEXTS:
        kept = np.sort(np.random.default_rng([seed, len(seen)]).choice(len(seen), EXIT_CONTEXTS, replace=False))
        seen, taken = seen[kept], taken[kept]
    exits = len(joint.EXITS)
    rows = np.column_stack([np.repeat(seen, exits, axis=0), np.tile(joint.EXITS, (len(seen), 1))])
    return rows.astype(np.float32), (np.arange(exits)[None] == taken[:, None]).astype(np.float64).ravel()


def _report(
    window: TrainingWindow, taught: Taught, later: NDArray[np.bool_], student: JointPolicy, baseline: JointPolicy,
    version: str, seed: int, walked: date,
) -> DistillationReport:  # fmt: skip
    X, rewards, session = window.features[later], window.rewards[later], window.session_index[later]
    teacher = taught.action[later]
    mine: Proposals = student.propose(X)
    actions = {
        "teacher": teacher,
        "student": mine.action,
        "joint, learned from outcomes": baseline.propose(X).action,
    }
    by_session = {name: _by_session(rewards, action, session) for name, action in actions.items()}
    rows = [_compared(name, actions[name], rewards, by_session[name], seed) for name in actions]
    days = [window.sessions[i].session for i in np.unique(session)]
    rng = np.random.default_rng([seed, len(days)])
    differences = [
        bootstrap_difference(by_session["student"], by_session[other], metric="mean", rng=rng)
        for other in ("teacher", "joint, learned from outcomes")
    ]
    loss, over_joint = (
        {"difference": found.difference, "lower": found.lower, "p_value": found.p_value} for found in differences
    )
    return DistillationReport(
        teacher=taught.name, student=version, sessions=len(days), first=days[0], last=days[-1], contexts=len(X),
        agreement=agreement_of(teacher, mine.action), compared=pl.DataFrame(rows, schema=COMPARED), loss=loss,
        over_joint=over_joint, notes=_notes(taught, days[0], len(days), walked),
    )  # fmt: skip


def _by_session(rewards: FloatArray, action: IntArray, session: IntArray) -> FloatArray:
    """(sessions,) mean reward per decision; FLAT and what is not known earn 0."""
    earned = _earned(rewards, action)
    numbers = np.unique(session, return_inverse=True)[1]
    return np.bincount(numbers, weights=earned) / np.bincount(numbers)


def _earned(rewards: FloatArray, action: IntArray) -> FloatArray:
    """(n,) reward of each action by the grid (n, ACTIONS); 0 for FLAT and where it is not known."""
    taken = rewards[np.arange(len(action)), np.maximum(action, 0)]
    return np.where(action == FLAT, 0.0, np.nan_to_num(taken))


def _compared(name: str, action: IntArray, rewards: FloatArray, by_session: FloatArray, seed: int) -> dict[str, Any]:
    found = bootstrap_metric(by_session, "mean", rng=np.random.default_rng([seed, by_session.size]))
    trades = action != FLAT
    return {
        "policy": name, "reward": found.estimate,
        "lower": None if math.isnan(found.lower) else found.lower,
        "upper": None if math.isnan(found.upper) else found.upper,
        "trades": float(trades.mean()),
        "per_trade": float(_earned(rewards, action)[trades].mean()) if trades.any() else None,
    }  # fmt: skip


def agreement_of(teacher: IntArray, student: IntArray) -> dict[str, float]:
    """Shares of contexts in which two policies (n,), grid indices or FLAT, agree: on the position (flat, long, short)
    and the whole action; of those that both trade, on the side; of those with the same side, on size, stop and target.
    NaN where there is nothing to compare."""
    one, other = position_of(teacher), position_of(student)
    both = (one > 0) & (other > 0)
    same = both & (one == other)
    axes = [np.unravel_index(np.where(a == FLAT, 0, a), SHAPE) for a in (teacher, student)]
    share = lambda agree, of: float(agree[of].mean()) if of.any() else math.nan  # noqa: E731
    found = {
        "position": share(one == other, np.ones(one.size, np.bool_)),
        "action": share(teacher == student, np.ones(one.size, np.bool_)),
        "side": share(one == other, both),
    }
    return found | {
        name: share(axes[0][i] == axes[1][i], same) for i, name in ((1, "size"), (2, "stop"), (3, "target"))
    }


def _notes(taught: Taught, first: date, sessions: int, walked: date) -> tuple[str, ...]:
    """`first` of the `sessions` held out; `walked`, the first of those by which the student's confidence was fitted."""
    notes = []
    if taught.trained_through is None:
        notes.append("Until when the teacher learned is not known: where it saw these sessions its reward flatters.")
    elif taught.trained_through >= first:
        notes.append(
            f"The teacher learned through {taught.trained_through}, so it had seen sessions it is compared on: its "
            f"reward flatters, and the loss is overstated."
        )
    if taught.trained_through is None or taught.trained_through >= walked:
        notes.append(f"The student's confidence was fitted on sessions from {walked} on: it is too high where the "
                     f"teacher learned from them.")  # fmt: skip
    if sessions < 10:
        notes.append(f"{sessions} sessions are too few for intervals.")
    return tuple(notes)
