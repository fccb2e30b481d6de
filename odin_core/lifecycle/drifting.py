"""Drift as the fold sees it: is the champion deciding in the market that it learned from?

Alarms in a row halt new entries, never exits, and call for a retrain; a long row of them demotes (`phases`). What an
alarm is, is `monitoring.reference`'s."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import polars as pl

from odin_core.lifecycle.config import DriftConfig, LifeConfig
from odin_core.lifecycle.learning import drift_rows
from odin_core.lifecycle.state import LoopState
from odin_core.monitoring.reference import DriftScores, Reference, drift_of
from odin_core.policies.joint import JointPolicy
from odin_core.training.window import SessionContexts

MODEL_DECIDES = 2  # the first phase in which the champion trades, so that its drift matters


class Watch(NamedTuple):
    state: LoopState
    table: pl.DataFrame | None  # DRIFT and the champion's version; None where there is nothing to compare
    facts: dict[str, object]  # columns of PHASE_STATE
    call: str | None  # why a retrain is called for


def watch(state: LoopState, config: LifeConfig) -> Watch:
    """Compare the contexts of the last sessions, today's included, with what the champion was trained on."""
    reference = state.references.get(state.champion or "")
    recent = [s for s in state.window if len(s.features)][-config.drift.window_sessions :]
    if reference is None or not recent or recent[-1].session != state.session:
        return Watch(state, None, {}, None)
    found = measured(reference, state.models[state.champion or ""], recent)
    if found.judged:
        state = replace(state, drift_alarms=state.drift_alarms + 1 if found.alarm else 0)
    call = None
    if halts(state, config.drift) and _rested(state, config.drift):
        call = f"drift: {found.reason}"
        state = replace(state, drift_retrained=state.session)
    table = found.table.select(pl.lit(state.champion).alias("version"), pl.all())
    return Watch(state, table, {"drift_score": found.statistic, "drift_subject": found.worst}, call)


def measured(reference: Reference, model: JointPolicy, sessions: Sequence[SessionContexts]) -> DriftScores:
    """Scores of these sessions' contexts, at least one, against what `model` was trained on."""
    features = np.concatenate([s.features for s in sessions])
    rewards = np.concatenate([s.rewards for s in sessions])
    session = np.repeat([s.session.toordinal() for s in sessions], [len(s.features) for s in sessions])
    return drift_of(reference, drift_rows(features, model.score(features), rewards), session)


def halts(state: LoopState, config: DriftConfig) -> bool:
    """Whether drift halts new entries."""
    return state.phase >= MODEL_DECIDES and state.drift_alarms >= config.alarms


def _rested(state: LoopState, config: DriftConfig) -> bool:
    """Whether the last retrain for drift lies far enough back, counted in sessions of the window; a shorter window
    shortens the rest."""
    if state.drift_retrained is None:
        return True
    since = sum(s.session > state.drift_retrained for s in state.window)
    return since > min(config.cooldown_sessions, len(state.window) - 1)
