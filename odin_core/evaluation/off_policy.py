"""Off-policy evaluation: what a policy would have earned, from decisions that another one made and logged.

What comes in: rows of the replay buffer with the probability that their choice had (propensity), and the probability
that the policy in question, the *target*, gives to the same choice. It is used where no simulation is possible: for
what was really filled, where a policy's own orders moved prices, or where the bars of a decision are gone. Where bars
are at hand, the outcomes of all actions (`lifecycle.outcomes`, tables `action_outcomes`) answer the same question
without weights: on 120 sessions of the demo exchange with an interval 6 times narrower for the uniform policy, and 20
times for one that always knows what to do. `gate` judges by those.

Which estimator: `doubly_robust` where there is a model of rewards that explains some of them; else `self_normalised`;
`inverse_propensity` where the answer must be unbiased. Sessions are the unit of evidence, because symbols of one
session move together."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.errors import OdinError
from odin_core.evaluation.splits import PurgedKFold
from odin_core.policies.actions import FLAT, PER_SIDE, Proposals

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Method = Literal["student", "bootstrap"]
Match = Literal["action", "side"]
NAN = float("nan")
FEW_ROWS = 30.0  # effective ones, below which an estimate is doubted
HEAVY = 0.1  # share of all weight that one row may carry without a doubt
MUCH_CLIPPED = 0.05  # share of rows


class NothingLogged(OdinError):
    def __init__(self, rows: int) -> None:
        super().__init__(
            f"none of {rows} logged decision(s) has a known outcome, so no policy can be valued by them; "
            f"run the life on until decisions are resolved, or choose more sessions"
        )


@dataclass(frozen=True, kw_only=True)
class Logged:
    """A logged bandit: one row per decision. All arrays (n,), float64; `session` of any sortable type.

    `propensity` in (0, 1] is the probability with which the logging policy made the choice it made, `target` in [0, 1]
    what the policy in question gives to that choice, `reward` what it earned, any unit. Raises ValueError for lengths
    that differ, numbers out of range, NaN."""

    reward: FloatArray
    propensity: FloatArray
    target: FloatArray
    session: npt.NDArray[np.generic]

    def __post_init__(self) -> None:
        n = self.reward.shape
        if len(n) != 1 or not self.propensity.shape == self.target.shape == self.session.shape == n:
            shapes = [a.shape for a in (self.reward, self.propensity, self.target, self.session)]
            raise ValueError(f"reward, propensity, target, session of shapes {shapes}: one row per decision")
        if not np.isfinite(self.reward).all():
            raise ValueError("a reward is not finite; leave out decisions without a known outcome")
        if not ((self.propensity > 0) & (self.propensity <= 1 + 1e-12)).all():
            raise ValueError("a propensity lies in (0, 1]: what was chosen had a chance to be")
        if not ((self.target >= 0) & (self.target <= 1 + 1e-12)).all():
            raise ValueError("the target's probabilities lie in [0, 1]")

    def weights(self, clip: float | None = None) -> FloatArray:
        """target / propensity, (n,), at most `clip`."""
        if clip is not None and not clip > 0:
            raise ValueError(f"clip={clip}: weights are cut at a number above 0; None for no cut")
        return np.minimum(self.target / self.propensity, math.inf if clip is None else clip).astype(np.float64)

    @cached_property
    def group(self) -> IntArray:
        """Number of each row's session."""
        return np.unique(self.session, return_inverse=True)[1].astype(np.int64)

    def by_session(self, values: FloatArray) -> FloatArray:
        """Sums of `values` (n,) over each session."""
        return np.bincount(self.group, weights=values).astype(np.float64)


class Confidence(NamedTuple):
    """How the two-sided 1 − alpha interval is made, of the mean (or ratio) of sessions.

    student     normal theory with Student's quantile of sessions − 1 degrees
    bootstrap   the studentised statistic on sessions drawn with replacement, for weights so skewed that `doubts` speaks

    Measured share of 300 logs whose 95 % interval holds the true value; sessions of the demo exchange drawn with
    replacement, 50 decisions each, chosen uniformly from 128 actions and taken with chance 0.35. Targets: any action, a
    side with any size and exit, one action per context.

        sessions   target   effective rows   student: IPS   SNIPS   DR     bootstrap: IPS   SNIPS   DR
        10         any           175                 0.95   0.95   0.95               0.93   0.94   0.94
        10         side           87                 0.93   0.94   0.93               0.92   0.93   0.94
        10         one             1                 0.73   0.53   0.71               0.95   0.92   0.92
        30         one             4                 0.94   0.74   0.92               0.88   0.93   0.87
        120        any         2,100                 0.96   0.95   0.95               0.95   0.95   0.94
        120        side        1,050                 0.95   0.94   0.95               0.95   0.95   0.95
        120        one            16                 0.94   0.92   0.94               0.90   1.00   0.92

    Below some 30 effective rows no interval is to be trusted; the bootstrap's is at least honestly huge."""

    method: Method = "student"
    alpha: float = 0.05
    draws: int = 2_000
    seed: int = 0


class Estimate(NamedTuple):
    """Value per decision (a flat one counts, with 0) in the reward's unit, and what there is to doubt."""

    value: float
    error: float  # standard error, by session
    lower: float
    upper: float
    rows: int
    sessions: int
    effective_rows: float  # (Σ weight)² / Σ weight²
    mean_weight: float  # 1 but for chance, where the propensities are right and cover the target
    mean_weight_error: float
    heaviest: float  # largest share of all weight in one row
    without_overlap: float  # share of rows whose choice the target never makes
    clipped: float  # share of rows

    @property
    def doubts(self) -> tuple[str, ...]:
        """What makes the estimate untrustworthy, in words; empty where nothing was found."""
        found = []
        if self.effective_rows < FEW_ROWS:
            found.append(
                f"the weights leave {self.effective_rows:.0f} effective of {self.rows} rows: the target makes choices "
                f"that were hardly logged; value a policy nearer to the logging one, or log more exploration"
            )
        if self.heaviest > HEAVY:
            found.append(f"one row carries {self.heaviest:.0%} of all weight; clip the weights, or use doubly_robust")
        if self.clipped > MUCH_CLIPPED:
            found.append(f"{self.clipped:.0%} of the weights are clipped, which draws the value towards 0; clip higher")
        if self.clipped == 0 and abs(self.mean_weight - 1) > 3 * self.mean_weight_error:
            found.append(
                f"the mean weight is {self.mean_weight:.2f} ± {self.mean_weight_error:.2f}, not 1: propensities are "
                f"wrong, or the target makes choices that were hardly ever logged"
            )
        return tuple(found)


DEFAULT = Confidence()


def inverse_propensity(logged: Logged, *, clip: float | None = None, confidence: Confidence = DEFAULT) -> Estimate:
    """IPS: mean of weight · reward. Unbiased for right propensities above 0 wherever the target chooses; a `clip` of
    the weights trades that for less variance and draws the value towards 0.
    Source: Horvitz & Thompson 1952; clipping: Ionides 2008. Oracle: enumeration of a small bandit."""
    weight = logged.weights(clip)
    return _estimate(logged, weight, weight * logged.reward, np.ones_like(weight), clip, confidence)


def self_normalised(logged: Logged, *, clip: float | None = None, confidence: Confidence = DEFAULT) -> Estimate:
    """SNIPS: Σ weight · reward / Σ weight. Stays inside the rewards and moves with their zero point; biased by O(1/n),
    exact on a log that holds every choice in proportion to its propensity. NaN where all weights are 0.
    The error is that of a ratio (delta method). Source: Swaminathan & Joachims 2015. Oracle: as above."""
    weight = logged.weights(clip)
    return _estimate(logged, weight, weight * logged.reward, weight, clip, confidence)


def doubly_robust(
    logged: Logged,
    predicted: npt.ArrayLike,
    expected: npt.ArrayLike,
    *,
    clip: float | None = None,
    confidence: Confidence = DEFAULT,
) -> Estimate:
    """DR: mean of expected + weight · (reward − predicted), where a model of rewards gives `predicted` (n,) for the
    logged choices and `expected` (n,) under the target (`expected_reward`). Right on average if the propensities are
    right *or* the model is; fit the model on other sessions than those it is used on.
    Source: Dudík, Langford & Li 2011. Oracle: as above."""
    q, v = np.asarray(predicted, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if not q.shape == v.shape == logged.reward.shape:
        raise ValueError(
            f"predicted {q.shape} and expected {v.shape} for {logged.reward.size} rows: one number per row"
        )
    if not (np.isfinite(q).all() and np.isfinite(v).all()):
        raise ValueError(
            "a predicted or expected reward is not finite; leave out decisions that the model cannot value"
        )
    weight = logged.weights(clip)
    values = v + weight * (logged.reward - q)
    return _estimate(logged, weight, values, np.ones_like(weight), clip, confidence)


def expected_reward(model: npt.ArrayLike, target: npt.ArrayLike) -> FloatArray:
    """Σ over choices of target · model, (n,), of predicted rewards and probabilities of shape (n, choices)."""
    q, probability = np.asarray(model, dtype=np.float64), np.asarray(target, dtype=np.float64)
    return np.where(probability > 0, q * probability, 0.0).sum(axis=1)


def choices(replay: pl.DataFrame) -> IntArray:
    """(n,) what was chosen: the grid index of a decision taken or rejected (the guardrails came after the choice), FLAT
    of one skipped. It is this choice that the record's propensity belongs to."""
    action = replay["action"].cast(pl.Int64).to_numpy()
    return np.where((replay["status"] == "skipped").to_numpy(), FLAT, action)


def earned(replay: pl.DataFrame) -> FloatArray:
    """(n,) reward of each record's choice: 0 for a decision skipped and for an order that never filled, else the
    record's `reward` (units of risk), of rejected ones what would have been. NaN for orders without a known outcome,
    such as those that never closed."""
    nothing = (pl.col("status") == "skipped") | (pl.col("exit_reason") == "unfilled")
    reward = pl.when(nothing.fill_null(False)).then(0.0).when("complete").then("reward")
    return replay.select(reward.cast(pl.Float64).fill_null(NAN)).to_series().to_numpy()


def from_replay(replay: pl.DataFrame, target: npt.ArrayLike) -> Logged:
    """Decision records (REPLAY, any order) as a logged bandit; `target` (n,) is the probability that the policy in
    question gives to each row's choice (`choices`), known at the decision. Records without a known outcome, those that
    are NaN in `earned`, are left out, the others keep their order. Raises NothingLogged.

    Choose records by what was known before the choice (session, phase, symbol, regime), never by the choice, its
    `source` or its `status`: the propensity is that of exploring and exploiting together, so of the explored records
    alone the mean weight is about 1/ε, not 1."""
    probability, reward = np.asarray(target, dtype=np.float64), earned(replay)
    if probability.shape != reward.shape:
        raise ValueError(f"target of shape {probability.shape} for {reward.size} records: one probability per record")
    known = ~np.isnan(reward)
    if not known.any():
        raise NothingLogged(replay.height)
    return Logged(
        reward=reward[known],
        propensity=replay["propensity"].to_numpy()[known],
        target=probability[known],
        session=replay["session"].to_numpy()[known],
    )


def linear_rewards(
    features: npt.ArrayLike,
    chosen: npt.ArrayLike,
    reward: npt.ArrayLike,
    session: npt.ArrayLike,
    sides: npt.ArrayLike,
    *,
    splitter: Any = None,
    ridge: float = 200.0,
) -> tuple[FloatArray, FloatArray]:
    """`predicted` and `expected` (n,) for `doubly_robust`, of a model that was fitted on other sessions' rows.

    The reward of a side is enter(x) ± direction(x), both linear in the standardised features (n, k), NaN read as their
    mean, by least squares with so much `ridge`; a flat choice earns 0. `chosen` (n,) holds grid indices or FLAT,
    `reward` (n,) what each earned (NaN: takes no part in the fit), `sides` (n, 2) the target's probabilities of buying
    and selling. `splitter` is one of `splits` that tests every row once (default PurgedKFold(5)); what it does not test
    is NaN. Raises what the splitter raises.

    A trade's reward is nearly all chance: on the demo exchange the model explains less than 1 % of its variance, and
    `doubly_robust` with it is as wide as `self_normalised`, no wider; it pays where choices differ by more."""
    x, r = np.nan_to_num(_standardised(np.asarray(features, dtype=np.float64))), np.asarray(reward, dtype=np.float64)
    choice, probability = np.asarray(chosen), np.asarray(sides, dtype=np.float64)
    sign = np.where(choice == FLAT, 0.0, np.where(choice < PER_SIDE, 1.0, -1.0))
    base = np.column_stack([np.ones(r.size), x])
    bought, sold = np.hstack([base, base]), np.hstack([base, -base])
    taken = np.where((sign < 0)[:, None], sold, bought)
    strength = np.diag(np.where(np.arange(bought.shape[1]) % base.shape[1] == 0, 1e-6, ridge))
    predicted, expected = np.full((2, r.size), NAN)
    folds = PurgedKFold(5) if splitter is None else splitter
    for train, test in folds.split(x, None, np.asarray(session)):
        fit = train[(sign[train] != 0) & ~np.isnan(r[train])]
        weights = np.linalg.solve(taken[fit].T @ taken[fit] + strength, taken[fit].T @ r[fit])
        predicted[test] = np.where(sign[test] == 0, 0.0, taken[test] @ weights)
        expected[test] = probability[test, 0] * (bought[test] @ weights) + probability[test, 1] * (sold[test] @ weights)
    return predicted, expected


def _standardised(x: FloatArray) -> FloatArray:
    if x.ndim != 2:
        raise ValueError(f"features of shape {x.shape}: rows are decisions, columns are features")
    known = np.isfinite(x)
    count = np.maximum(known.sum(axis=0), 1)
    centred = x - np.where(known, x, 0.0).sum(axis=0) / count
    deviation = np.sqrt((np.where(known, centred, 0.0) ** 2).sum(axis=0) / count)
    return np.where(known, centred / np.where(deviation > 0, deviation, 1.0), NAN)


def value_of(
    proposals: Proposals,
    replay: pl.DataFrame,
    *,
    match: Match = "action",
    clip: float | None = None,
    confidence: Confidence = DEFAULT,
) -> Estimate:
    """What a policy that does what it proposes (n,) for the contexts of `replay`'s rows, in their order, would have
    earned per decision: `self_normalised`.

    Only rows count in which it agrees with the log. With `match` "action" that is one of 128 actions, and hardly any
    row is left of a small log; with "side" the question is the value of the policy that takes the proposed sides with
    size, stop and target drawn uniformly, for which 64 times as many rows speak. Look at `doubts`."""
    target = agreement(np.asarray(proposals.action), choices(replay), match)
    return self_normalised(from_replay(replay, target), clip=clip, confidence=confidence)


def agreement(proposed: IntArray, chosen: IntArray, match: Match = "action") -> FloatArray:
    """(n,) probability that the policy of `value_of` gives to `chosen` where it proposes `proposed`; both grid indices
    or FLAT."""
    if match == "action":
        return (proposed == chosen).astype(np.float64)
    if match != "side":
        raise ValueError(f"match={match!r}: 'action' for the whole action, 'side' for its side only")
    traded = (proposed != FLAT) & (chosen != FLAT)
    same = traded & (proposed // PER_SIDE == chosen // PER_SIDE)
    return np.where(same, 1 / PER_SIDE, ((proposed == FLAT) & (chosen == FLAT)).astype(np.float64))


def _estimate(
    logged: Logged,
    weight: FloatArray,
    numerator: FloatArray,
    denominator: FloatArray,
    clip: float | None,
    confidence: Confidence,
) -> Estimate:
    """Σ numerator / Σ denominator, its interval by session, and the diagnostics of the weights."""
    n, total = weight.size, float(weight.sum())
    if n == 0:
        return Estimate(NAN, NAN, -math.inf, math.inf, 0, 0, 0.0, NAN, NAN, NAN, NAN, NAN)
    above, below = logged.by_session(numerator), logged.by_session(denominator)
    value = float(above.sum() / below.sum()) if below.sum() > 0 else NAN
    error = _ratio_error(above, below)
    lower, upper = _interval(value, error, above, below, confidence)
    rows = logged.by_session(np.ones(n))
    squares = float(weight @ weight)
    return Estimate(
        value=value,
        error=error,
        lower=lower,
        upper=upper,
        rows=n,
        sessions=len(rows),
        effective_rows=total**2 / squares if squares > 0 else 0.0,
        mean_weight=total / n,
        mean_weight_error=_ratio_error(logged.by_session(weight), rows),
        heaviest=float(weight.max()) / total if total > 0 else NAN,
        without_overlap=float(np.mean(logged.target == 0)),
        clipped=0.0 if clip is None else float(np.mean(logged.weights() > clip)),
    )


def _ratio_error(above: FloatArray, below: FloatArray) -> float:
    """Standard error of Σ above / Σ below over sessions; NaN for fewer than two, or nothing below."""
    g, whole = above.size, float(below.sum())
    if g < 2 or not whole > 0:
        return NAN
    residual = above - float(above.sum()) / whole * below
    return math.sqrt(g / (g - 1) * float(residual @ residual)) / whole


def _interval(
    value: float,
    error: float,
    above: FloatArray,
    below: FloatArray,
    confidence: Confidence,
) -> tuple[float, float]:
    if not 0 < confidence.alpha < 1:
        raise ValueError(f"alpha={confidence.alpha}: an error rate lies between 0 and 1")
    if math.isnan(error):
        return -math.inf, math.inf
    if confidence.method == "bootstrap":
        return _bootstrap(value, error, above, below, confidence)
    from scipy.special import stdtrit

    half = float(stdtrit(above.size - 1, 1 - confidence.alpha / 2)) * error
    return value - half, value + half


def _bootstrap(
    value: float, error: float, above: FloatArray, below: FloatArray, confidence: Confidence
) -> tuple[float, float]:
    """Studentised: quantiles of (value* − value) / error* over resampled sessions, turned round."""
    g = above.size
    rng = np.random.default_rng(confidence.seed)
    times = rng.multinomial(g, np.full(g, 1 / g), size=confidence.draws).astype(np.float64)
    a, b = times @ above, times @ below
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = a / b
        squares = times @ above**2 - 2 * drawn * (times @ (above * below)) + drawn**2 * (times @ below**2)
        t = (drawn - value) / (np.sqrt(np.maximum(g / (g - 1) * squares, 0)) / b)
    t = t[np.isfinite(t)]
    if t.size < confidence.draws / 2:
        return -math.inf, math.inf
    low, high = np.quantile(t, [confidence.alpha / 2, 1 - confidence.alpha / 2])
    return value - float(high) * error, value - float(low) * error
