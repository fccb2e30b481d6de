"""A retrain inside the fold: score what is in force, train a candidate, judge it, point the registry.

It happens at each week's end, and in a simulated life also when a change of phase, drift or drawdown calls for it. The
weekly assets show what this leaves behind; they never compute it a second way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from odin_core.evaluation.evidence import Criterion, Evidence, GateConfig, Verdict
from odin_core.evaluation.gate import judge, open_questions
from odin_core.evaluation.gate_report import report_html, report_json, report_markdown
from odin_core.evaluation.metrics import information_coefficient
from odin_core.evaluation.sensitivity import seed_spread
from odin_core.evaluation.splits import TooFewSessions
from odin_core.lifecycle.config import LifeConfig, identity
from odin_core.lifecycle.scoring import or_null, ranking_of, score_sessions
from odin_core.lifecycle.state import WEEKS_END, Day, LoopState
from odin_core.monitoring.reference import Reference, fit_reference, to_json
from odin_core.policies.actions import known_mean
from odin_core.policies.joint import JointPolicy, WalkForward, train_joint, version_of
from odin_core.registry.history import HISTORY
from odin_core.training.window import SessionContexts, TrainingWindow

MANIFEST = pl.Schema(
    {
        "version": pl.String(),
        "table": pl.String(),
        "session": pl.Date(),
        "path": pl.String(),  # relative to the life's generation; of features, to the market's dataset
        "rows": pl.Int64(),
        "hash": pl.String(),  # logical
    }
)

EVALUATION = pl.Schema(
    {
        "version": pl.String(),  # the candidate; null where none could be trained
        "outcome": pl.String(),  # promoted, refused, insufficient or not_trained
        "reason": pl.String(),
        "why": pl.String(),  # what the retrain was for
        "dataset": pl.String(),
        "contexts": pl.Int64(),
        "criterion": pl.String(),
        "value": pl.Float64(),
        "threshold": pl.Float64(),
        "passed": pl.Boolean(),
        "explanation": pl.String(),
        "report": pl.String(),  # Markdown, in the first row
    }
)


Findings = Callable[[], Mapping[str, tuple[Criterion, ...]]]
"""Measures, of a candidate that meets everything else, what level `money` asks besides, by kind."""


MONEY_DEFLATED_SHARPE = 0.95
MONEY_FINDINGS = ("robustness", "leak_wall")


@dataclass(frozen=True)
class Retrain:
    """What a retrain leaves behind; without one, the state alone."""

    state: LoopState
    tables: dict[str, pl.DataFrame] = field(default_factory=dict)
    models: dict[str, JointPolicy] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)  # JSON by version
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # by version
    reports: dict[str, str] = field(default_factory=dict)  # pages by file name
    asks: str | None = None  # what the candidate lacks that is measured outside the fold, where it lacks nothing else


class Judged(NamedTuple):
    version: str
    model: JointPolicy
    reference: Reference
    evidence: Evidence
    verdict: Verdict


class Trial(NamedTuple):
    """A look at the gate with everything that `state` knows. `judged` is None where there is too little to train on."""

    state: LoopState  # with the sessions scored that were not
    scores: pl.DataFrame  # those sessions
    manifest: pl.DataFrame
    dataset: str
    contexts: int
    judged: Judged | None
    reason: str

    @property
    def outcome(self) -> str:
        """promoted, refused, insufficient or not_trained"""
        return self.judged.verdict.outcome if self.judged else "not_trained"

    def reports(self, session: date, why: str) -> dict[str, str]:
        """The verdict as a page and as JSON by file name, looked at after the close of `session`."""
        assert self.judged is not None
        version, _, _, evidence, verdict = self.judged
        context = {"session": session, "why": why, "dataset": self.dataset, "contexts": self.contexts}
        return {
            f"{session}-{version}.html": report_html(verdict, evidence, context),
            f"{session}-{version}.json": report_json(verdict, context),
        }

    def facts(self, seed: int) -> dict[str, Any]:
        """What the registry keeps beside the model."""
        assert self.judged is not None
        verdict = self.judged.verdict
        asked = {c.name: c.value for c in verdict.criteria if c.value is not None}
        besides = {name: value for name, value in verdict.facts.items() if isinstance(value, float)}
        if "deflated_sharpe" in asked:
            besides.pop("deflated_sharpe_ratio", None)
        return {
            "dataset": self.dataset,
            "contexts": self.contexts,
            "seeds": [seed],
            "trials": self.judged.evidence.trials,
            "outcome": self.outcome,
            "metrics": besides | asked,
        }


def try_candidate(state: LoopState, config: LifeConfig, ceiling: float, findings: Findings | None = None) -> Trial:
    """Score what is in force, train a candidate on the window and judge it; nothing is promoted here. Above an
    information coefficient of `ceiling` a leak is suspected. What takes long is measured only of a candidate that meets
    the rest."""
    fresh = score_sessions(state, config)
    state = replace(state, scores=pl.concat([state.scores, fresh]))
    window = TrainingWindow(list(state.window))
    manifest, dataset = _manifest(state.window, config)
    judged, reason = None, _too_little(window, config)
    if not reason:
        try:
            model, walk = train_joint(window, config.learner, config.seed)
        except TooFewSessions as error:  # sessions without a known outcome, as those without bars, do not count
            reason = str(error)
        else:
            gate = gate_config(config, ceiling)
            evidence = _evidence(state, version_of(model), walk)
            verdict = judge(evidence, gate)
            if open_questions(verdict):
                seeds = seed_spread(window, config.learner, [config.seed + i for i in range(gate.min_seeds)])
                evidence = replace(evidence, seeds=seeds, findings=findings() if findings else {})
                verdict = judge(evidence, gate)
            judged = Judged(version_of(model), model, reference_of(window, walk, config), evidence, verdict)
            reason = verdict.reason
    return Trial(state, fresh, manifest, dataset, len(window), judged, reason)


def _too_little(window: TrainingWindow, config: LifeConfig) -> str:
    """Why the window is not enough to train on; empty where it is."""
    needed = config.learner
    if len(window.sessions) >= needed.min_sessions and len(window) >= needed.min_contexts:
        return ""
    return (
        f"{len(window)} contexts over {len(window.sessions)} sessions; training needs "
        f"{needed.min_contexts} over {needed.min_sessions}"
    )


def retrain(state: LoopState, day: Day, config: LifeConfig, ceiling: float, why: str = WEEKS_END) -> Retrain:
    """Score, train, judge and point. `ceiling` as in `try_candidate`."""
    trial = try_candidate(state, config, ceiling)
    report = _report(trial, why)
    tables = {"candidate_scores": trial.scores, "training_dataset": trial.manifest, "evaluation_report": report}
    if trial.judged is None:
        return Retrain(trial.state, tables)
    version, model, reference, _, verdict = trial.judged
    promoted = verdict.outcome == "promoted"
    tables["registry_history"] = pl.DataFrame(
        [{
            "event": verdict.outcome, "version": version, "champion_before": state.champion,
            "champion_after": version if promoted else state.champion, "effective": day.next_session,
            "trained_through": model.trained_through, "hypothesis": state.hypothesis, "reason": verdict.reason,
        }],
        schema=HISTORY,
    )  # fmt: skip
    return Retrain(
        _with_candidate(trial.state, trial.judged, day.next_session if promoted else None, config),
        tables,
        {version: model},
        {version: to_json(reference)},
        {version: trial.facts(config.seed)},
        trial.reports(day.session, why),
        f"the gate asks for {', '.join(c.name for c in verdict.failed)}" if open_questions(verdict) else None,
    )


def _with_candidate(state: LoopState, judged: Judged, champion_from: date | None, config: LifeConfig) -> LoopState:
    """The state with one more candidate, and with it as champion where it has a first session to decide on."""
    version, model = judged.version, judged.model
    candidates = tuple(dict.fromkeys((*state.candidates, version)))[-config.phases.candidates :]
    models, references = state.models | {version: model}, state.references | {version: judged.reference}
    trials = trials_with(state, version)
    state = replace(state, candidates=candidates, models=models, references=references, trials=trials)
    if champion_from:
        state = replace(state, champion=version, champion_since=champion_from, champion_through=model.trained_through,
                        hypothesis=state.hypothesis + 1, hypothesis_since=champion_from, drift_alarms=0)  # fmt: skip
    return replace(state, rank_agreement=_rank_agreement(state, config.phases.candidates))


def _evidence(state: LoopState, version: str, walk: WalkForward) -> Evidence:
    """Sessions on which the newest candidate of the day was scored; a new hypothesis begins with fresh sessions."""
    mine = state.scores.filter("candidate")
    if state.hypothesis_since is not None:
        mine = mine.filter(pl.col("session") >= state.hypothesis_since)
    incumbent = (
        state.scores.filter("champion").select("session", incumbent=pl.col("reward").fill_null(0.0)).unique("session")
    )
    sessions = mine.join(incumbent, on="session", how="left").sort("session")
    sessions = sessions.select(
        "session", "decisions", pl.col("reward").alias("candidate"), "random", "rules",
        pl.col("incumbent") if state.champion else pl.lit(None, pl.Float64).alias("incumbent"), "ic",
    )  # fmt: skip
    chosen = walk.expected > 0
    folds = pl.DataFrame(
        {"fold": walk.fold, "reward": np.where(chosen, walk.reward, np.nan), "random": walk.random, "chosen": chosen}
    )
    by_fold = folds.group_by("fold").agg(
        decisions=pl.col("chosen").sum().cast(pl.Int64),
        candidate=pl.col("reward").fill_nan(None).mean(),
        random=pl.col("random").mean(),
    )
    return Evidence(
        candidate=version,
        hypothesis=state.hypothesis,
        sessions=sessions,
        walk_forward=by_fold.sort("fold"),
        incumbent=state.champion,
        trials=trials_with(state, version),
        ranking=ranking_of(mine),
    )


def trials_with(state: LoopState, version: str) -> int:
    """Candidates tried so far, `version` included: the same model trained again is no new one."""
    return state.trials + (version not in state.candidates)


def gate_config(config: LifeConfig, ceiling: float) -> GateConfig:
    """The thresholds of a life; level `money` asks for portfolio evidence besides."""
    promotion, money = config.promotion, config.promotion.level == "money"
    return GateConfig(
        alpha_total=promotion.alpha,
        min_sessions=promotion.min_sessions,
        min_decisions=promotion.min_decisions,
        ic_ceiling=ceiling,
        sharpe_margin=promotion.sharpe_margin,
        drawdown_tolerance=promotion.drawdown_tolerance,
        hit_rate_margin=promotion.hit_rate_margin,
        precision_margin=promotion.precision_margin,
        max_calibration_error=promotion.max_calibration_error,
        min_deflated_sharpe=max(promotion.min_deflated_sharpe, MONEY_DEFLATED_SHARPE * money),
        min_seeds=promotion.seeds,
        seeds_min_share=promotion.seeds_min_share,
        needs_findings=MONEY_FINDINGS if money else (),
    )


def reference_of(window: TrainingWindow, walk: WalkForward, config: LifeConfig) -> Reference:
    """What drift is measured against: the model's features, the walk-forward's scores, and what became of contexts."""
    score = np.full(len(window), np.nan)
    score[walk.rows] = walk.score
    return fit_reference(
        drift_rows(window.features, score, window.rewards),
        (*window.names, "score", "outcome"),
        ("feature",) * len(window.names) + ("prediction", "label"),
        window.session_index,
        seed=config.seed,
        window_sessions=config.drift.window_sessions,
    )


def drift_rows(features: np.ndarray, score: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """(n, features + 2) float64: contexts as a drift reference knows them, with the model's `score` (n,) and half of
    what long earned above short."""
    sides = known_mean(rewards.astype(np.float64).reshape(len(rewards), 2, -1), 2)
    return np.column_stack([features.astype(np.float64), score, (sides[:, 0] - sides[:, 1]) / 2])


def _rank_agreement(state: LoopState, k: int) -> float | None:
    """Median Spearman correlation, over pairs of the last k candidates, of their scores on the same recent contexts."""
    if len(state.candidates) < k:
        return None
    X = np.concatenate([s.features for s in state.window[-10:]])
    if not len(X):
        return None
    scores = [state.models[v].propose(X).score for v in state.candidates]
    return float(np.median([information_coefficient(a, b) for a, b in combinations(scores, 2)]))


def _manifest(window: tuple[SessionContexts, ...], config: LifeConfig) -> tuple[pl.DataFrame, str]:
    rows = [file for contexts in window for file in contexts.files]
    version = f"dataset-{identity([(f['path'], f['hash']) for f in rows], config.learner.lookback_sessions)}"
    return pl.DataFrame([{"version": version, **f} for f in rows], schema=MANIFEST), version


def _report(trial: Trial, why: str) -> pl.DataFrame:
    """One row per criterion (one without criterion where nothing could be judged)."""
    version, verdict = (trial.judged.version, trial.judged.verdict) if trial.judged else (None, None)
    head = {"version": version, "outcome": trial.outcome, "reason": trial.reason, "why": why,
            "dataset": trial.dataset, "contexts": trial.contexts}  # fmt: skip
    criteria = verdict.criteria if verdict else ()
    rows = [head | {"criterion": c.name, "value": or_null(c.value), "threshold": c.threshold, "passed": c.passed,
                    "explanation": c.explanation} for c in criteria]  # fmt: skip
    rows = rows or [head]
    context = {"why": why, "dataset": trial.dataset, "contexts": trial.contexts}
    rows[0]["report"] = report_markdown(verdict, context) if verdict else trial.reason
    return pl.DataFrame(rows, schema=EVALUATION)
