"""The week's end inside the fold: score what is in force, train a candidate, judge it, point the registry.

The weekly assets show what this leaves behind; they never compute it a second way."""

from dataclasses import replace
from datetime import date
from itertools import combinations
from typing import NamedTuple

import numpy as np
import polars as pl

from odin_core.evaluation.gate import Evidence, GateConfig, Verdict, judge, report_html, report_markdown
from odin_core.evaluation.metrics import information_coefficient
from odin_core.evaluation.splits import TooFewSessions
from odin_core.lifecycle.config import LifeConfig, identity
from odin_core.lifecycle.state import SCORES, Day, LoopState
from odin_core.policies.actions import FLAT, known_mean
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


class Week(NamedTuple):
    state: LoopState
    tables: dict[str, pl.DataFrame]
    models: dict[str, JointPolicy]
    reports: dict[str, str]  # pages by name


class Judged(NamedTuple):
    version: str
    model: JointPolicy
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

    def page(self, session: date) -> str:
        """The verdict as a page, looked at after the close of `session`."""
        assert self.judged is not None
        context = {"session": session, "dataset": self.dataset, "contexts": self.contexts}
        return report_html(self.judged.verdict, self.judged.evidence, context)


def try_candidate(state: LoopState, config: LifeConfig, ceiling: float) -> Trial:
    """Score what is in force, train a candidate on the window and judge it; nothing is promoted here. Above an
    information coefficient of `ceiling` a leak is suspected."""
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
            version = version_of(model)
            evidence = _evidence(state, version, walk)
            judged = Judged(version, model, evidence, judge(evidence, _gate(config, ceiling)))
            reason = judged.verdict.reason
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


def end_week(state: LoopState, day: Day, config: LifeConfig, ceiling: float) -> Week:
    """Score, train, judge and point. `ceiling` as in `try_candidate`."""
    trial = try_candidate(state, config, ceiling)
    tables = {"candidate_scores": trial.scores, "training_dataset": trial.manifest, "evaluation_report": _report(trial)}
    if trial.judged is None:
        return Week(trial.state, tables, {}, {})
    version, model, _, verdict = trial.judged
    promoted = verdict.outcome == "promoted"
    tables["registry_history"] = pl.DataFrame(
        [{
            "event": verdict.outcome, "version": version, "champion_before": state.champion,
            "champion_after": version if promoted else state.champion, "effective": day.next_session,
            "trained_through": model.trained_through, "hypothesis": state.hypothesis, "reason": verdict.reason,
        }],
        schema=HISTORY,
    )  # fmt: skip
    return Week(
        _with_candidate(trial.state, version, model, day.next_session if promoted else None, config),
        tables,
        {version: model},
        {f"{day.session}-{version}.html": trial.page(day.session)},
    )


def _with_candidate(
    state: LoopState, version: str, model: JointPolicy, champion_from: date | None, config: LifeConfig
) -> LoopState:
    """The state with one more candidate, and with it as champion where it has a first session to decide on."""
    candidates = tuple(dict.fromkeys((*state.candidates, version)))[-config.phases.candidates :]
    models = state.models | {version: model}
    state = replace(state, candidates=candidates, models=models)
    if champion_from:
        state = replace(state, champion=version, champion_since=champion_from, champion_through=model.trained_through,
                        hypothesis=state.hypothesis + 1, hypothesis_since=champion_from)  # fmt: skip
    return replace(state, rank_agreement=_rank_agreement(state, config.phases.candidates))


def score_sessions(state: LoopState, config: LifeConfig) -> pl.DataFrame:
    """What the newest candidate and the champion would have earned on the sessions not scored yet, all later than their
    training: the choices they would have made, at most `max_trades` of them, the most confident first."""
    done = state.scores["session"].max()
    newest = state.candidates[-1] if state.candidates else None
    rows = []
    for contexts in state.window:
        if isinstance(done, date) and contexts.session <= done:
            continue
        for version in dict.fromkeys(v for v in (newest, state.champion) if v):
            model = state.models[version]
            if contexts.session > model.trained_through and len(contexts.features):
                score = _score(contexts, model, config.guardrails.max_trades)
                rows.append({
                    "session": contexts.session, "version": version, "candidate": version == newest,
                    "champion": version == state.champion, "trained_through": model.trained_through, **score,
                })  # fmt: skip
    return pl.DataFrame(rows, schema=SCORES)


def _score(contexts: SessionContexts, model: JointPolicy, most: int) -> dict[str, float | int | None]:
    proposals = model.propose(contexts.features)
    confident = np.lexsort((np.arange(len(proposals.action)), -proposals.confidence))
    chosen = [i for i in confident if proposals.action[i] != FLAT][:most]
    rewards = contexts.rewards.astype(np.float64)
    ruled = np.flatnonzero(contexts.rule_choice != FLAT)
    by_side = known_mean(rewards.reshape(len(rewards), 2, -1), 2)
    return {
        "decisions": len(chosen),
        "reward": _mean(rewards[chosen, proposals.action[chosen]]),
        "random": _mean(rewards.ravel()),
        "rules": _mean(rewards[ruled, contexts.rule_choice[ruled]]),
        "ic": _known(information_coefficient(proposals.score, (by_side[:, 0] - by_side[:, 1]) / 2)),
    }


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
    )


def _gate(config: LifeConfig, ceiling: float) -> GateConfig:
    promotion = config.promotion
    return GateConfig(
        alpha_total=promotion.alpha,
        min_sessions=promotion.min_sessions,
        min_decisions=promotion.min_decisions,
        ic_ceiling=ceiling,
    )


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


def _report(trial: Trial) -> pl.DataFrame:
    """One row per criterion (one without criterion where nothing could be judged)."""
    version, verdict = (trial.judged.version, trial.judged.verdict) if trial.judged else (None, None)
    head = {"version": version, "outcome": trial.outcome, "reason": trial.reason, "dataset": trial.dataset,
            "contexts": trial.contexts}  # fmt: skip
    criteria = verdict.criteria if verdict else ()
    rows = [head | {"criterion": c.name, "value": _known(c.value), "threshold": c.threshold, "passed": c.passed,
                    "explanation": c.explanation} for c in criteria]  # fmt: skip
    rows = rows or [head]
    context = {"dataset": trial.dataset, "contexts": trial.contexts}
    rows[0]["report"] = report_markdown(verdict, context) if verdict else trial.reason
    return pl.DataFrame(rows, schema=EVALUATION)


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _known(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)
