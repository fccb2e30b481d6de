"""What versions would have earned on sessions after their training, session by session: the evidence of the gate.

Every context's whole grid of rewards is known, so a version's choices, random ones and the rules' are judged on the
same contexts. Who is promoted on it is `learning`'s."""

import math
from datetime import date
from typing import Any, Final

import numpy as np
import polars as pl

from odin_core.evaluation.evidence import Ranking
from odin_core.evaluation.metrics import information_coefficient
from odin_core.lifecycle.config import LifeConfig
from odin_core.lifecycle.state import SCORES, LoopState
from odin_core.policies.actions import FLAT, FloatArray, IntArray, known_mean
from odin_core.policies.joint import JointPolicy
from odin_core.training.window import SessionContexts

TOP: Final = 5
"""Most confident contexts of a session, whose share of wins is the precision at the top."""
BINS: Final = 10


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


def _score(contexts: SessionContexts, model: JointPolicy, most: int) -> dict[str, Any]:
    proposals = model.propose(contexts.features)
    confident = np.lexsort((np.arange(len(proposals.action)), -proposals.confidence))
    chosen = [i for i in confident if proposals.action[i] != FLAT][:most]
    rewards = contexts.rewards.astype(np.float64)
    ruled = np.flatnonzero(contexts.rule_choice != FLAT)
    by_side = known_mean(rewards.reshape(len(rewards), 2, -1), 2)
    earned = rewards[chosen, proposals.action[chosen]]
    earnings = rewards[np.isfinite(rewards)]
    return {
        "decisions": len(chosen),
        "reward": known_or_none(earned),
        "random": known_or_none(rewards.ravel()),
        "rules": known_or_none(rewards[ruled, contexts.rule_choice[ruled]]),
        "ic": or_null(information_coefficient(proposals.score, (by_side[:, 0] - by_side[:, 1]) / 2)),
        "outcomes": int(np.count_nonzero(np.isfinite(earned))),
        "won": int(np.count_nonzero(earned > 0)),
        "random_won": float(np.mean(earnings > 0)) if earnings.size else None,
        **_confidence(proposals.confidence, rewards[np.arange(len(rewards)), proposals.lean], confident),
    }


def _confidence(confidence: FloatArray, reward: FloatArray, confident: IntArray) -> dict[str, Any]:
    """Confidence (n,) beside what became of what each context leaned to (n,), NaN where unknown."""
    known = np.isfinite(reward)
    p, won = confidence[known], reward[known] > 0
    top = [i for i in confident if known[i]][:TOP]
    place = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    q = np.clip(p, 1e-12, 1 - 1e-12)
    bits = -(q * np.log2(q) + (1 - q) * np.log2(1 - q))
    return {
        "contexts": int(p.size),
        "lean_won": int(won.sum()),
        "top": len(top),
        "top_won": int(np.count_nonzero(reward[top] > 0)),
        "bin_contexts": np.bincount(place, minlength=BINS).tolist(),
        "bin_confidence": np.bincount(place, weights=p, minlength=BINS).tolist(),
        "bin_won": np.bincount(place, weights=won, minlength=BINS).astype(np.int64).tolist(),
        "squared_error": float(((p - won) ** 2).sum()),
        "entropy": float(bits.mean()) if p.size else None,
    }


def ranking_of(scores: pl.DataFrame) -> Ranking:
    """Shares over the sessions of `scores` (SCORES, one version a session); sessions that older code scored, without
    counts, are left out. The calibration error is Σ n_b/N · |won_b/n_b − mean confidence_b| over bins b of confidence
    (Naeini et al. 2015)."""
    counted = scores.filter(pl.col("outcomes").is_not_null())
    n, outcomes, won, leaned, top = (
        int(counted[name].sum()) for name in ("contexts", "outcomes", "won", "lean_won", "top")
    )
    bins = {name: _summed(counted[name]) for name in ("bin_contexts", "bin_confidence", "bin_won")}
    gap = np.abs(bins["bin_won"] - bins["bin_confidence"]).sum()
    random = counted["random_won"].mean()
    return Ranking(
        hit_rate=_share(won, outcomes),
        random_hit_rate=float(random) if isinstance(random, float) else math.nan,
        precision=_share(int(counted["top_won"].sum()), top),
        base_rate=_share(leaned, n),
        f1=_share(2 * won, outcomes + leaned),
        calibration_error=_share(float(gap), n),
        brier=_share(float(counted["squared_error"].sum()), n),
    )


def _summed(lists: pl.Series) -> FloatArray:
    return np.array(lists.to_list(), float).sum(axis=0) if len(lists) else np.zeros(BINS)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def known_or_none(values: FloatArray) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def or_null(value: float | None) -> float | None:
    """A number as tables have it: null where it is not known."""
    return None if value is None or np.isnan(value) else float(value)
