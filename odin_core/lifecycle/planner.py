"""The plan for the next session: which symbols may be decided on, what each policy proposes, what the guardrails allow.

Everything here reads only what is known at the close before: that session's features and the fundamentals as of it."""

from datetime import date
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.lifecycle import drifting
from odin_core.lifecycle.config import FilterConfig, LifeConfig
from odin_core.lifecycle.state import LoopState
from odin_core.market.profile import MarketProfile
from odin_core.market.reference.figures import parse_rules
from odin_core.market.reference.fundamentals import FAILS, PASSES, UNKNOWN, judged
from odin_core.policies import rules, uniform
from odin_core.policies.actions import FLAT, FloatArray, Proposals, decode
from odin_core.policies.unified import COUNTS, unified_score
from odin_core.randomness import stream
from odin_core.replay.record import DECISION, SIDE, SOURCE

POLICY = {"random": "uniform", "rule": "rules", "joint": "joint"}


class Admitted(NamedTuple):
    """Who may be decided on, and how many symbols only the rules of `filter.fundamentals` kept out."""

    contexts: pl.DataFrame  # rows of the features, symbols ascending
    failed: int  # a rule is broken
    unknown: int  # a figure of a rule is not known

    @property
    def barred(self) -> int:
        return self.failed + self.unknown


def admit(
    features: pl.DataFrame,
    profile: MarketProfile,
    config: FilterConfig,
    widening: int,
    bars: int,
    fundamentals: pl.DataFrame,
) -> Admitted:
    """Rows of `features` (one session, known at its close) that may be decided on for the next; `bars` is the number of
    5-minute bars of a full session, `fundamentals` the figures known at the same close, one row per symbol. What cannot
    be judged is left out: unknown volume where volume is traded, warm-up, an unknown figure that a rule names.
    """
    if features.is_empty() or not profile.tradable:
        return Admitted(features.clear(), 0, 0)
    loosened = 0.5**widening
    keep = (
        pl.col("complete")
        & pl.col("vol_regime").is_not_null()
        & ~pl.col("symbol").is_in(list(profile.untradable))
        & (pl.col("bars_5m") >= config.min_bars_share * bars)
        & (pl.col("realised_volatility_75_5m") >= config.min_volatility * loosened)
        & (pl.col("natr_14_60m") > 0)
    )
    if profile.knows_trades:
        units = pl.Series(profile.volume_units(features["symbol"], features["session"][0]), dtype=pl.Float64)
        keep = keep & (pl.col("traded_value").fill_null(0) * units >= config.min_traded_value * loosened)
    lively = features.filter(keep).sort("symbol")
    verdict = judged(lively["symbol"], fundamentals, parse_rules(config.fundamentals))
    return Admitted(lively.filter(verdict == PASSES), int((verdict == FAILS).sum()), int((verdict == UNKNOWN).sum()))


def plan_session(
    state: LoopState,
    contexts: pl.DataFrame,
    matrix: NDArray[np.float32],
    session: date,
    profile: MarketProfile,
    config: LifeConfig,
    epsilon: float,
    features_version: str,
) -> pl.DataFrame:
    """Decisions (DECISION) for `session`, one per context, symbols ascending."""
    n = contexts.height
    if n == 0:
        return pl.DataFrame(schema=DECISION)
    rng = stream(config.seed, session, "plan")
    drawn = uniform.propose(n, config.exploration.take_probability, rng)
    base, source, version = _exploit(state, contexts, matrix, drawn)
    chance = _exploration_chance(state.phase, epsilon, base)
    explored = rng.random(n) < chance
    order = rng.permutation(n)
    action, lean = np.where(explored, drawn.action, base.action), np.where(explored, drawn.lean, base.lean)
    from_uniform = uniform.probability(action, config.exploration.take_probability)
    propensity = chance * from_uniform + (1 - chance) * (action == base.action)
    meaning = decode(lean)
    close = contexts["close"].to_numpy()
    confidence = np.where(explored, np.nan if source == "joint" else 0.5, base.confidence)
    place = SOURCE.index(source) * COUNTS
    score = np.where(explored, np.nan, unified_score(base.confidence, state.payoffs[place : place + COUNTS]))
    lot = np.array(profile.lot_sizes(contexts["symbol"], session), float)
    small = np.floor(meaning.size * profile.capital / close / lot) < 1
    open_exposure = float(state.positions.filter(pl.col("status") == "taken")["size"].sum())
    status, reason = _guard(action, meaning.size, _served(score, order), small, state, config, open_exposure)
    return pl.DataFrame(
        {
            "decision_id": [f"{session}/{s}/{t:%H%M}" for s, t in contexts.select("symbol", "decided_at").iter_rows()],
            "session": [session] * n,
            "symbol": contexts["symbol"],
            "decided_at": contexts["decided_at"],
            "phase": [state.phase] * n,
            "source": np.where(explored, "random", source),
            "exploration_type": np.where(
                explored, {0: "uniform", 3: "uncertainty"}.get(state.phase, "epsilon"), "none"
            ),
            "vol_regime": contexts["vol_regime"],
            "policy": np.where(explored, POLICY["random"], POLICY[source]),
            "model_version": [None if e else version for e in explored],
            "side": np.where(meaning.side > 0, *SIDE),
            "size": meaning.size,
            "stop_atr": meaning.stop,
            "target_mult": meaning.target,
            "confidence": [
                None if e or source != "joint" else float(c) for e, c in zip(explored, confidence, strict=True)
            ],
            "propensity": propensity,
            "status": status,
            "reject_reason": reason,
            "features_version": [features_version] * n,
            "action": lean,
            "risk_unit": contexts["natr_14_60m"],
            "score": pl.Series(score).fill_nan(None),
            "reference_close": close,
        },
        schema=DECISION,
    )


def _exploit(
    state: LoopState, contexts: pl.DataFrame, matrix: NDArray[np.float32], drawn: Proposals
) -> tuple[Proposals, str, str | None]:
    """What the phase's own policy proposes, its source and model version."""
    if state.phase == 0:
        return drawn, "random", None
    if state.phase == 1 or state.champion is None:
        return rules.propose(contexts), "rule", None
    return state.models[state.champion].propose(matrix), "joint", state.champion


def _exploration_chance(phase: int, epsilon: float, base: Proposals) -> FloatArray:
    """(n,) probability of a random proposal; in phase 3 aimed at contexts whose confidence is near one half, mean ε."""
    if phase < 3:
        return np.full(len(base.action), epsilon)
    doubt = 1 - 2 * np.abs(base.confidence - 0.5) + 1e-6
    return np.clip(epsilon * doubt / doubt.mean(), 0, 1)


def _served(score: FloatArray, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) contexts in the order in which they are served: the highest unified score first, ties in random `order`;
    explored ones, whose score is NaN, at random places between them, so that they are neither starved nor preferred."""
    explored = np.isnan(score)
    best_first = np.lexsort((order, np.where(explored, np.inf, -score)))
    place = np.empty(len(score))
    place[best_first] = np.arange(len(score))
    place[explored] = order[explored] - 0.5
    return np.argsort(place, kind="stable")


def _guard(
    action: NDArray[np.int64],
    size: FloatArray,
    served: NDArray[np.int64],
    small: NDArray[np.bool_],
    state: LoopState,
    config: LifeConfig,
    exposure: float,
) -> tuple[list[str], list[str | None]]:
    """Status and reject reason of each decision, limits used up in the order `served`."""
    limits = config.guardrails
    status, reason = ["skipped"] * len(action), [None] * len(action)
    reasons: list[str | None] = list(reason)
    trades = 0
    halted = "drawdown" if state.halt_left > 0 else "drift" if drifting.halts(state, config.drift) else None
    for i in served[action[served] != FLAT]:
        if halted:
            reasons[i] = halted
        elif small[i]:
            reasons[i] = "too_small"
        elif trades >= limits.max_trades:
            reasons[i] = "max_trades"
        elif exposure + size[i] > limits.max_exposure + 1e-12:
            reasons[i] = "max_exposure"
        else:
            trades, exposure = trades + 1, exposure + float(size[i])
        status[i] = "rejected" if reasons[i] else "taken"
    return status, reasons
