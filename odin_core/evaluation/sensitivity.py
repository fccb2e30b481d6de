"""What a learner's result hangs on: the seed, a parameter, a group of features, one of its heads, the costs.

What comes in is a `TrainingWindow` (contexts with the reward of every action); each question runs the purged
walk-forward of `policies.joint` once more with one thing changed and compares two numbers, both out of sample:

    excess  mean reward of the contexts that would have been traded, less the mean reward of drawing context and action
            at random, in units of risk (60-minute ATR); NaN where nothing would have been traded
    ic      mean over sessions of Spearman's correlation of predicted and realised direction; NaN where none is known

Same window, configuration and seed give the same numbers. What a stored model did on later sessions is examined in
`lifecycle.examination`; thresholds and findings are in `robustness`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.evaluation.metrics import information_coefficient
from odin_core.evaluation.robustness import kept
from odin_core.evaluation.sequential import cluster_mean_interval
from odin_core.policies.joint import WalkForward, walk_forward

if TYPE_CHECKING:
    from odin_core.lifecycle.config import LearnerConfig
    from odin_core.training.window import TrainingWindow

FloatArray = NDArray[np.float64]

FAMILIES: Final[dict[str, tuple[str, ...]]] = {  # definitions of the catalogue by what they measure
    "momentum": ("rsi", "stoch_k", "stoch_d", "cci", "willr", "simple_return", "log_return", "session_return", "trend"),
    "averages": ("sma_gap", "ema_gap", "sma_cross", "ema_cross", "macd_share", "macd_share_signal", "macd_histogram"),
    "volatility": ("natr", "realised_volatility", "parkinson", "garman_klass", "rogers_satchell", "yang_zhang"),
    "volume": ("volume_z", "mfi", "obv_slope", "vwap_gap"),
    "range": ("range_position", "percent_b", "gap", "bar_gap", "bar_range", "body", "upper_wick", "lower_wick"),
    "market": ("market_volatility", "volatility_ratio"),
}
COST_MULTIPLES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


class Score(NamedTuple):
    """The two numbers of a walk-forward; the module says what they are."""

    excess: float
    ic: float


def score_of(walk: WalkForward, session: NDArray[np.int64]) -> Score:
    """`session` (n,) is that of every row of the window that `walk` was made on."""
    return Score(excess_of(walk.reward, walk.random, walk.expected > 0), _mean_ic(walk, session[walk.rows]))


def excess_of(reward: FloatArray, random: FloatArray, chosen: NDArray[np.bool_]) -> float:
    """Mean `reward` (n,) of what is chosen less the mean of `random` (n,); NaN rows are left out, NaN for no choice."""
    taken, all_ = reward[chosen & np.isfinite(reward)], random[np.isfinite(random)]
    return float(taken.mean() - all_.mean()) if taken.size and all_.size else float("nan")


def _mean_ic(walk: WalkForward, session: NDArray[np.int64]) -> float:
    each = [information_coefficient(walk.score[of], walk.outcome[of]) for of in _rows_of(session)]
    known = [ic for ic in each if np.isfinite(ic)]
    return float(np.mean(known)) if known else float("nan")


def _rows_of(session: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each session."""
    order = np.argsort(session, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(session[order])) + 1)


def seed_spread(window: "TrainingWindow", config: "LearnerConfig", seeds: Sequence[int]) -> pl.DataFrame:
    """One row per seed, in the order given: seed (Int64), excess and ic (Float64). A result that only a lucky seed has
    shows as a spread across zero. Raises TooFewSessions where the window is too short for the walk-forward."""
    rows = [{"seed": seed, **_run(window, config, seed)._asdict()} for seed in seeds]
    return pl.DataFrame(rows, schema={"seed": pl.Int64, "excess": pl.Float64, "ic": pl.Float64})


class Variation(NamedTuple):
    """One setting of `LearnerConfig` with another value."""

    parameter: str
    value: float


def variations(config: "LearnerConfig", sessions: int, step: float = 1.5) -> list[Variation]:
    """Trees, leaves, smallest leaf and learning rate divided and multiplied by `step`, and a look-back of half of a
    window of `sessions` (it cannot be made longer than what there is)."""
    whole = [(name, getattr(config, name)) for name in ("trees", "leaves", "min_leaf")]
    changed = [Variation(name, max(round(now * by), 2)) for name, now in whole for by in (1 / step, step)]
    rate = [Variation("learning_rate", config.learning_rate * by) for by in (1 / step, step)]
    return [*changed, *rate, Variation("lookback_sessions", max(sessions // 2, 1))]


def parameter_sensitivity(
    window: "TrainingWindow", config: "LearnerConfig", seed: int, changes: Iterable[Variation] | None = None
) -> pl.DataFrame:
    """One row per change (default: `variations`): parameter, value, unchanged (its value now), excess, ic, and kept,
    the share of the unchanged learner's excess that is left (NaN where that had none). Every row is tested on the same
    sessions. Raises TooFewSessions, and ValueError for a parameter that LearnerConfig does not have."""
    base, sessions = _run(window, config, seed), len(window.sessions)
    rows = []
    for parameter, value in variations(config, sessions) if changes is None else changes:
        now = getattr(config, parameter, None)
        if now is None:
            raise ValueError(f"LearnerConfig has no parameter {parameter}")
        lookback = parameter == "lookback_sessions"
        told = config if lookback else replace(config, **{parameter: type(now)(value)})
        walk = walk_forward(window, told, seed, lookback=int(value) if lookback else None)
        score = score_of(walk, window.session_index)
        unchanged = min(now, sessions) if lookback else now
        rows.append({"parameter": parameter, "value": float(value), "unchanged": float(unchanged), **score._asdict(),
                     "kept": kept(score.excess, base.excess)})  # fmt: skip
    numbers = ("value", "unchanged", "excess", "ic", "kept")
    return pl.DataFrame(rows, schema={"parameter": pl.String, **dict.fromkeys(numbers, pl.Float64)})


def families(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The features `names` by what they measure (`FAMILIES`), in the order of the names; what has no family stands
    alone under its own name."""
    from odin_core.features.catalogue import UnknownFeature, named  # brings numba

    family = {definition: of for of, definitions in FAMILIES.items() for definition in definitions}
    grouped: dict[str, tuple[str, ...]] = {}
    for name in names:
        try:
            definition = named(name).definition.name
        except UnknownFeature:
            definition = name
        group = family.get(name) or family.get(definition, name)
        grouped[group] = (*grouped.get(group, ()), name)
    return grouped


def feature_ablation(
    window: "TrainingWindow",
    config: "LearnerConfig",
    seed: int,
    groups: Mapping[str, Collection[str]] | None = None,
) -> pl.DataFrame:
    """What the walk-forward is worth to a learner that does not see one group of features (default: `families`).

    One row per group, the largest loss first: group, features (how many), excess, ic, and lost_excess, lost_ic: the
    score with all features less the score without the group. Where nothing would be traded any more, the excess and its
    loss are NaN and come first. Features of different groups may say the same, so small losses do not add up.
    Raises ValueError for a group that leaves no feature."""
    groups = families(window.names) if groups is None else groups
    base = _run(window, config, seed)
    rows = []
    for group, features in groups.items():
        left = _run(window, config, seed, features)
        lost = {"lost_excess": base.excess - left.excess, "lost_ic": base.ic - left.ic}
        rows.append({"group": group, "features": len(features), **left._asdict(), **lost})
    numbers = dict.fromkeys(("excess", "ic", "lost_excess", "lost_ic"), pl.Float64)
    schema = {"group": pl.String, "features": pl.Int64, **numbers}
    return pl.DataFrame(rows, schema=schema).sort("lost_excess", "group", descending=[True, False])


def head_ablation(walk: WalkForward) -> pl.DataFrame:
    """What the two heads of the walk-forward add: head, excess without it, lost_excess. Without `direction` the side of
    each trade is drawn, without `enter` every context is traded. The other heads need a trained policy:
    `lifecycle.examination`."""
    chosen = walk.expected > 0
    whole = excess_of(walk.reward, walk.random, chosen)
    without = {
        "direction": excess_of(walk.random, walk.random, chosen),
        "enter": excess_of(walk.reward, walk.random, np.ones(len(walk.rows), np.bool_)),
    }
    rows = [{"head": head, "excess": left, "lost_excess": whole - left} for head, left in without.items()]
    return pl.DataFrame(rows, schema={"head": pl.String, "excess": pl.Float64, "lost_excess": pl.Float64})


def cost_sensitivity(
    gross: FloatArray,
    cost: FloatArray,
    session: NDArray[np.generic],
    multiples: Sequence[float] = COST_MULTIPLES,
    alpha: float = 0.05,
) -> pl.DataFrame:
    """Mean of `gross` − multiple · `cost` over trades, with its two-sided 1 − alpha interval, trades of one session
    moving together: multiple, mean, lower, upper.

    `gross` and `cost` (n,) in one unit, `session` (n,); NaN rows are left out. Fills are taken as they were; that
    dearer ones become others is what `lifecycle.examination` adds."""
    rows = []
    for multiple in multiples:
        found = cluster_mean_interval(gross - multiple * cost, session, alpha)
        rows.append({"multiple": multiple, "mean": found.mean, "lower": found.lower, "upper": found.upper})
    return pl.DataFrame(rows, schema=dict.fromkeys(("multiple", "mean", "lower", "upper"), pl.Float64))


def break_even(gross: FloatArray, cost: FloatArray) -> float:
    """The multiple of its costs at which the mean trade earns nothing, mean gross / mean cost; NaN without costs.
    1.3 means that 30 % dearer trades would eat everything; below 1 they do already."""
    known = np.isfinite(gross) & np.isfinite(cost)
    paid = float(cost[known].mean()) if known.any() else 0.0
    return float(gross[known].mean()) / paid if paid > 0 else float("nan")


def _run(window: "TrainingWindow", config: "LearnerConfig", seed: int, without: Collection[str] = ()) -> Score:
    return score_of(walk_forward(window, config, seed, without=without), window.session_index)
