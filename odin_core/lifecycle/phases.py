"""Phases: who decides, when the next phase begins, and why it does not yet. All numbers are in `PhaseConfig`.

A gate is a list of criteria, each with its value and what it needs, so that its distance to passing can be printed.
They are looked at every session, so every bound is one that holds at all looks together (`evaluation.sequential`)."""

import math
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from odin_core.evaluation import metrics
from odin_core.evaluation.gate import deflated
from odin_core.evaluation.sequential import lower_confidence_sequence, upper_confidence_sequence
from odin_core.lifecycle.config import ExplorationConfig, LifeConfig
from odin_core.lifecycle.state import REGIMES, LoopState

WAYS_OUT = {
    "executed trades": [
        "run more sessions",
        "widen the universe",
        "loosen the filter (filter.min_volatility, filter.min_traded_value)",
    ],
    "a first model": [
        "run more sessions: training needs learner.min_sessions and learner.min_contexts",
        "inject synthetic trades from a demo life",
    ],
    "a champion": ["run more sessions: the weekly gate has not found enough evidence", "widen the universe"],
    "champion's sessions out of sample": ["run more sessions"],
    "champion beats random": ["run more sessions", "widen the universe"],
    "rank agreement of candidates": [
        "run more sessions: candidates still disagree",
        "lengthen learner.lookback_sessions",
    ],
    "replay rows": ["run more sessions", "loosen the filter"],
    "regimes covered": ["run more sessions in the regime that is missing"],
    "information coefficient": ["run more sessions"],
    "deflated Sharpe ratio": ["run more sessions: portfolio evidence grows slowly"],
    "drawdown": ["lower guardrails.max_exposure"],
}


@dataclass(frozen=True)
class Criterion:
    name: str
    value: float
    needed: float
    at_least: bool = True

    @property
    def passed(self) -> bool:
        return bool(self.value >= self.needed if self.at_least else self.value <= self.needed)

    def __str__(self) -> str:
        return f"{self.name} {_number(self.value)} {'<' if self.at_least else '>'} {_number(self.needed)}"


@dataclass(frozen=True)
class Outlook:
    """The phase after the session, why, and the distance of the gate that was tried."""

    phase: int
    reason: str
    criteria: tuple[Criterion, ...]
    suggestions: tuple[str, ...]


def outlook(state: LoopState, config: LifeConfig, filtered: int, barred: int = 0) -> Outlook:
    """Judge the gate out of `state.phase` on what is known after the session; going back is judged first. `filtered`:
    symbols that may be decided on; `barred`: those that only `filter.fundamentals` keeps out."""
    if (why := _demotion(state, config)) is not None:
        return Outlook(1, why, (), ("run more sessions: rules trade while candidates learn",))
    if state.phase == 3:
        return Outlook(3, "phase 3 is the last one: drift or drawdown demotes", (), ())
    criteria = (_leaves_0, _leaves_1, _leaves_2)[state.phase](state, config)
    missing = [c for c in criteria if not c.passed]
    if not missing:
        met = "; ".join(f"{c.name} {_number(c.value)}" for c in criteria)
        return Outlook(state.phase + 1, met, criteria, ())
    reason = "; ".join(map(str, missing))
    ways = [way for c in missing for way in WAYS_OUT[c.name]]
    if filtered < config.filter.min_symbols:
        kept_out = f", filter.fundamentals keeps out {barred}" if barred else ""
        reason = f"only {filtered} symbols pass the filter (low volatility or too little trading{kept_out}); {reason}"
        ways = [*(["loosen filter.fundamentals"] if barred else []), "loosen the filter", "widen the universe", *ways]
    return Outlook(state.phase, reason, criteria, tuple(dict.fromkeys(ways)))


def _leaves_0(state: LoopState, config: LifeConfig) -> tuple[Criterion, ...]:
    return (
        Criterion("executed trades", state.executed, config.phases.executed_trades + 1),
        Criterion("a first model", len(state.candidates), 1),
    )


def _leaves_1(state: LoopState, config: LifeConfig) -> tuple[Criterion, ...]:
    needed = config.phases
    since, excess = _champion_excess(state, config, state.champion_through)
    agreement = state.rank_agreement if state.rank_agreement is not None else math.nan
    return (
        Criterion("a champion", float(state.champion is not None), 1),
        Criterion("champion's sessions out of sample", since, needed.min_sessions),
        Criterion("champion beats random", excess, 0.0),
        Criterion("rank agreement of candidates", agreement, needed.rank_agreement),
    )


def _leaves_2(state: LoopState, config: LifeConfig) -> tuple[Criterion, ...]:
    needed = config.phases
    since, excess = _champion_excess(state, config, state.phase_since)
    ic = _scores(state, state.champion_through)["ic"].drop_nulls().to_numpy()
    ic_bounds = lower_confidence_sequence(ic, needed.confidence, burn_in=needed.min_sessions)
    share = np.array(state.regime_sessions) / max(sum(state.regime_sessions), 1)
    owed = [r for r, s, rows in zip(REGIMES, share, state.regime_rows, strict=True)
            if s >= needed.regime_share and rows < needed.regime_rows]  # fmt: skip
    returns = np.array(state.returns)
    deepest = -float(metrics.max_drawdown(returns, compounded=False)) if len(returns) else math.nan
    return (
        Criterion("replay rows", state.replay_rows, needed.replay_rows),
        Criterion("regimes covered", len(REGIMES) - len(owed), len(REGIMES)),
        Criterion("champion's sessions out of sample", since, needed.min_sessions),
        Criterion("champion beats random", excess, 0.0),
        Criterion("information coefficient", float(ic_bounds[-1]) if len(ic) else math.nan, 0.0),
        Criterion("deflated Sharpe ratio", _deflated(returns, state), needed.deflated_sharpe),
        Criterion("drawdown", deepest, needed.max_drawdown, at_least=False),
    )


def _deflated(returns: np.ndarray, state: LoopState) -> float:
    """Deflated Sharpe ratio of the sessions since the phase began; every candidate so far counts as a trial."""
    return deflated(returns, max(state.trials, 1))


def _scores(state: LoopState, after: date | None) -> pl.DataFrame:
    """Scores of the champion in force on sessions after `after`."""
    return state.scores.filter(
        (pl.col("version") == (state.champion or "")) & (pl.col("session") > (after or date.min))
    ).unique("session", maintain_order=True)


def _champion_excess(state: LoopState, config: LifeConfig, after: date | None) -> tuple[int, float]:
    """Sessions, and the lower confidence bound of the champion's mean reward above the random baseline's."""
    excess = _scores(state, after).select(pl.col("reward") - pl.col("random")).to_series().drop_nulls().to_numpy()
    bound = lower_confidence_sequence(excess, config.phases.confidence, burn_in=config.phases.min_sessions)
    return len(excess), float(bound[-1]) if len(excess) >= config.phases.min_sessions else math.nan


def _demotion(state: LoopState, config: LifeConfig) -> str | None:
    if state.phase < 2:
        return None
    if -state.drawdown >= config.guardrails.max_drawdown:
        return f"demoted: drawdown {-state.drawdown:.2%} reached the cap of {config.guardrails.max_drawdown:.2%}"
    if state.drift_alarms >= config.drift.demote_after:
        return f"demoted: the champion's features have drifted for {state.drift_alarms} sessions in a row"
    recent = _scores(state, state.champion_through).tail(config.phases.demotion_sessions)
    excess = recent.select(pl.col("reward") - pl.col("random")).to_series().drop_nulls().to_numpy()
    if len(excess) >= config.phases.demotion_sessions:
        upper = float(upper_confidence_sequence(excess, config.phases.confidence)[-1])
        if upper < 0:
            return (
                f"demoted: the champion's mean reward is surely below random's over {len(excess)} sessions "
                f"(upper bound {upper:+.3f})"
            )
    return None


def epsilon(state: LoopState, config: ExplorationConfig, regime: str | None) -> float:
    """Share of random proposals planned at this close. Phase 2: decays with evidence, rises while a regime is rare.
    From phase 1 on it falls where volatility is high, as a random trade costs most there, and rises where it is low."""
    if state.phase == 0:
        return 1.0
    damping = 1 + config.volatility_damping * {"low": 1, "high": -1}.get(regime or "", 0)
    return min(_undamped(state, config, regime) * damping, 1.0)


def _undamped(state: LoopState, config: ExplorationConfig, regime: str | None) -> float:
    if state.phase == 1:
        return config.epsilon_rules
    if state.phase == 3:
        return config.epsilon_floor
    decay = 0.5 ** (state.phase_rows / config.epsilon_half_life)
    rows = dict(zip(REGIMES, state.regime_rows, strict=True)).get(regime or "", 0)
    novelty = max(0.0, 1 - len(REGIMES) * rows / max(sum(state.regime_rows), 1))
    usual = config.epsilon_floor + (config.epsilon_start - config.epsilon_floor) * decay
    return usual + config.novelty_gain * novelty


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "unknown"
