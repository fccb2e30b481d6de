"""Risk-adjusted rewards: one number for a policy's weighted decisions, and each decision's part in it.

In come rewards of single decisions with importance weights; they become a reward per session, the sessions a mean, a
Sharpe ratio, a Sortino ratio and a drawdown, and these one objective J. Because J depends on the policy only through
the weights wᵢ = π(aᵢ|xᵢ)/μᵢ, and ∇wᵢ = wᵢ ∇ log π(aᵢ|xᵢ), its gradient is

    ∇J = Σᵢ (∂J/∂wᵢ) wᵢ ∇ log π(aᵢ|xᵢ),

which is REINFORCE with the credit ∂J/∂wᵢ in place of the reward. The credits are closed forms, so nothing here needs a
differentiating library. What is learned with them is in `reinforce`; metrics of returns for people are in
`evaluation.metrics`."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odin_core.policies.actions import FLAT, GRID, SIZES, FloatArray, IntArray
from odin_core.rl.offline_config import RiskWeights

DEVIATION_FLOOR = 0.05
"""Units of risk added (in squares) to a deviation: sessions that are all alike have no infinite ratio."""


class Terms(NamedTuple):
    """What J is made of, of T sessions' rewards."""

    mean: float  # units of risk
    sharpe: float  # per session, not annualised
    sortino: float  # per session, not annualised
    drawdown: float  # deepest fall of the summed rewards from their peak (the start included), over T; units of risk


class Objective(NamedTuple):
    """J with its parts. `leverage` is inside the rewards."""

    value: float
    terms: Terms
    sessions: FloatArray  # (T,) reward of each session
    credit: FloatArray  # (n,) ∂J/∂wᵢ


def sharpe(rewards: FloatArray) -> tuple[float, FloatArray]:
    """m / √(s² + floor²) of (T,) rewards, m their mean and s their standard deviation (ddof 1), and its gradient (T,):
    1/(T·d) − m·(R − m)/((T − 1)·d³) with d the root. Zero for fewer than two sessions.
    Source: Sharpe 1994, ex post form; as an objective of learning Moody & Saffell 2001."""
    n = rewards.size
    if n < 2:
        return 0.0, np.zeros(n)
    m = rewards.mean()
    away = rewards - m
    d = np.sqrt(away @ away / (n - 1) + DEVIATION_FLOOR**2)
    return float(m / d), 1 / (n * d) - m * away / ((n - 1) * d**3)


def sortino(rewards: FloatArray) -> tuple[float, FloatArray]:
    """m / √(Σ min(R, 0)²/T + floor²) of (T,) rewards, and its gradient (T,): 1/(T·d) − m·min(R, 0)/(T·d³). The target
    is 0. Zero without sessions. Source: Sortino & van der Meer 1991."""
    n = rewards.size
    if n == 0:
        return 0.0, np.zeros(0)
    m, losses = rewards.mean(), np.minimum(rewards, 0.0)
    d = np.sqrt(losses @ losses / n + DEVIATION_FLOOR**2)
    return float(m / d), 1 / (n * d) - m * losses / (n * d**3)


def drawdown(rewards: FloatArray) -> tuple[float, FloatArray]:
    """max over s ≤ t of (C_s − C_t) / T, C being the summed (T,) rewards with C_0 = 0, and a subgradient (T,): −1/T for
    the sessions after the peak up to the trough, 0 for others; of several deepest ones the first counts.
    Source: Magdon-Ismail & Atiya 2004, of summed instead of compounded returns."""
    n = rewards.size
    wealth = np.concatenate([[0.0], np.cumsum(rewards)])
    below = np.maximum.accumulate(wealth) - wealth
    trough = int(np.argmax(below))
    peak = int(np.argmax(wealth[: trough + 1]))
    gradient = np.zeros(n)
    gradient[peak:trough] = -1 / n
    return float(below[trough] / max(n, 1)), gradient


def of_sessions(rewards: FloatArray, risk: RiskWeights) -> tuple[float, Terms, FloatArray]:
    """J = mean·m + sharpe·S + sortino·So − drawdown·D of sessions' rewards (T,) in order of time, its terms, and
    ∂J/∂R (T,). Raises ValueError for rewards that are not finite."""
    if not np.isfinite(rewards).all():
        raise ValueError("a session's reward is not finite")
    n = max(rewards.size, 1)
    terms = {"sharpe": sharpe(rewards), "sortino": sortino(rewards), "drawdown": drawdown(rewards)}
    mean = float(rewards.sum() / n)
    value = risk.mean * mean
    gradient = np.full(rewards.size, risk.mean / n)
    for name, (found, slope) in terms.items():
        weight = -risk.drawdown if name == "drawdown" else float(getattr(risk, name))
        value, gradient = value + weight * found, gradient + weight * slope
    return value, Terms(mean, **{name: found for name, (found, _) in terms.items()}), gradient


def sizes(choice: IntArray) -> FloatArray:
    """(n,) size of each choice, as a share of the grid's largest; 0 for FLAT."""
    flat = choice == FLAT
    return np.where(flat, 0.0, GRID.size[np.where(flat, 0, choice)] / SIZES[-1])


def shaped(reward: npt.ArrayLike, choice: npt.ArrayLike, risk: RiskWeights) -> FloatArray:
    """(n,) rewards after what size does to them: r·s where `weigh_by_size`, less leverage·max(0, s − free_leverage), s
    being `sizes`. `reward` (n,) in units of risk, `choice` (n,) grid indices or FLAT."""
    r, size = np.asarray(reward, dtype=np.float64), sizes(np.asarray(choice, dtype=np.int64))
    return (r * size if risk.weigh_by_size else r) - risk.leverage * np.maximum(size - risk.free_leverage, 0.0)


def objective(
    reward: FloatArray,
    weight: FloatArray,
    session: IntArray,
    risk: RiskWeights,
    *,
    self_normalised: bool = True,
    baseline: FloatArray | None = None,
    decisions: IntArray | None = None,
    expected: FloatArray | None = None,
) -> Objective:
    """J of n weighted outcomes and each one's credit.

    `reward` (n,) as shaped, `weight` (n,) importance weights, `session` (n,) numbers 0 … T − 1 in order of time,
    `baseline` (n,) what was expected without knowing the choice (default 0); `decisions` (T,) how many each session has
    (default: its rows) and `expected` (T,) the sum of their baselines (default: of its rows). With D all decisions and
    N the sum of the weights where `self_normalised`, otherwise D, session t has

        R_t = T·Σ_{i∈t} wᵢ(rᵢ − bᵢ) / N + T·expected_t / D,

    whose mean over sessions is the SNIPS or IPS value (Swaminathan & Joachims 2015). With g = ∂J/∂R the credit is
    (T·g_t·(rᵢ − bᵢ) − [self-normalised] T·Σ_j g_j·wⱼ(rⱼ − bⱼ)/N) / N: there the value itself is a baseline. Weights
    that are all 0 leave the baseline alone, and credit 0. Tested against finite differences."""
    base = np.zeros(reward.size) if baseline is None else baseline
    if decisions is None:
        decisions = np.bincount(session)
    count, whole = decisions.size, float(max(decisions.sum(), 1))
    if expected is None:
        expected = np.bincount(session, weights=base, minlength=count).astype(np.float64)
    known = expected * (count / whole)
    total = float(weight.sum()) if self_normalised else whole
    if total <= 0:
        value, terms, _ = of_sessions(known, risk)
        return Objective(value, terms, known, np.zeros(reward.size))
    away = reward - base
    earned = count / total * np.bincount(session, weights=weight * away, minlength=count)
    value, terms, gradient = of_sessions(earned + known, risk)
    common = float(gradient @ earned) if self_normalised else 0.0
    return Objective(value, terms, earned + known, (count * gradient[session] * away - common) / total)
