"""What the gate is told and what it answers: thresholds, evidence, criteria, a verdict. Made into one by `gate`."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import polars as pl

Outcome = Literal["promoted", "refused", "insufficient"]
Relation = Literal[">", ">=", "<="]
SESSION_COLUMNS = ("session", "decisions", "candidate", "random", "rules", "incumbent", "ic")
FOLD_COLUMNS = ("fold", "decisions", "candidate", "random")
SEED_COLUMNS = ("seed", "excess")
REWARD = "reward per decision"
SIGNS: dict[Relation, str] = {">": ">", ">=": "≥", "<=": "≤"}


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    alpha_total: float = 0.05  # error of a whole life
    min_sessions: int = 15  # out of sample, in which the candidate decided
    min_decisions: int = 100
    walk_forward_min_excess: float = 0.0  # over random, mean reward per decision of a fold
    walk_forward_min_share: float = 0.6  # of the folds: two of three
    ic_floor: float = 0.0
    ic_ceiling: float = 0.1  # mean daily IC above which a leak is suspected; a market's profile may raise it
    tightest_at: int = 60  # sessions at which the bounds are tightest
    burn_in: int = 10  # sessions before the first bound
    # None: not asked.
    sharpe_margin: float | None = None  # by which the candidate's Sharpe ratio per session exceeds the incumbent's
    drawdown_tolerance: float | None = None  # by which its drawdown of summed rewards may exceed the incumbent's
    hit_rate_margin: float | None = None  # of its decisions over random actions on the same contexts
    precision_margin: float | None = None  # of its most confident contexts over all contexts
    max_calibration_error: float | None = None  # expected calibration error of its confidence
    min_deflated_sharpe: float | None = None  # of rewards by session, with the number of trials
    min_seeds: int = 0  # 0 for a learner without randomness
    seeds_min_share: float = 0.8  # of the seeds, whose walk-forward excess over random is above 0
    needs_findings: tuple[str, ...] = ()  # kinds of `Evidence.findings` without which nothing is promoted

    def __post_init__(self) -> None:
        if not 0 < self.alpha_total < 1:
            raise ValueError(f"alpha_total={self.alpha_total}: an error rate lies between 0 and 1")
        if self.min_sessions < self.burn_in:
            raise ValueError(f"min_sessions={self.min_sessions}: no bound exists before burn_in={self.burn_in}")
        if self.ic_ceiling <= self.ic_floor:
            raise ValueError(f"ic_ceiling={self.ic_ceiling} leaves nothing above ic_floor={self.ic_floor}")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a candidate out of sample. Rewards are net of costs, fractions; NaN is read as null.

    `sessions`, one row per session, any order: `session` (date), `decisions` (chosen by the candidate), mean rewards of
    the decisions chosen that session, each by the version in force *before* it, and `ic`, the session's rank
    correlation of forecast and outcome (null when undefined). A null reward means: `candidate` chose nothing, which is
    no evidence, the row is left out; `random`, the row is left out of that comparison; `rules` chose nothing, which
    earns 0; `incumbent`, there was none, left out of that comparison (one that chose nothing earned 0.0, not null).
    `walk_forward`, one row per purged fold: `fold`, `decisions`, and mean rewards `candidate`, `random`."""

    candidate: str
    hypothesis: int  # j = 1, 2, …: the incumbents this life has had, plus one
    sessions: pl.DataFrame
    walk_forward: pl.DataFrame
    incumbent: str | None = None
    mean_cost: float | None = None  # per decision, already inside the rewards
    selected_from: int = 1  # alternatives compared on these very sessions, of which this is the best
    trials: int = 1  # candidates tried so far, this one included: what the deflated Sharpe ratio has to know
    ranking: "Ranking | None" = None
    seeds: pl.DataFrame | None = None  # one row per seed of the same learner: `seed`, walk-forward `excess` over random
    findings: Mapping[str, tuple["Criterion", ...]] = field(default_factory=dict)  # measured elsewhere, by kind

    def __post_init__(self) -> None:
        if self.selected_from < 1 or self.trials < 1:
            raise ValueError(f"selected_from={self.selected_from}, trials={self.trials}: the candidate itself is one")
        tables = {"sessions": SESSION_COLUMNS, "walk_forward": FOLD_COLUMNS, "seeds": SEED_COLUMNS}
        for name, columns in tables.items():
            frame: pl.DataFrame | None = getattr(self, name)
            if frame is None:
                continue
            missing = [c for c in columns if c not in frame.columns]
            if missing:
                raise ValueError(f"{name} lacks {', '.join(missing)}; it needs {', '.join(columns)}")
            if frame[columns[0]].is_duplicated().any():
                raise ValueError(f"{name} has one {columns[0]} twice; one row per {columns[0]}")


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What became of single decisions and contexts in the sessions of an `Evidence`, all shares 0 to 1, NaN unknown."""

    hit_rate: float  # decisions that ended above their costs
    random_hit_rate: float  # random actions on the same contexts that did
    precision: float  # of each session's most confident contexts
    base_rate: float  # of all contexts, each with the action it leaned to
    f1: float  # of entering, with contexts that would have won as the truth
    calibration_error: float
    brier: float


@dataclass(frozen=True, kw_only=True)
class Criterion:
    name: str
    value: float | None  # None: cannot be computed yet
    relation: Relation = ">"
    threshold: float = 0.0
    unit: str = REWARD
    explanation: str
    amount: bool = False  # asks how much evidence there is, not what it says

    @property
    def passed(self) -> bool:
        if self.value is None:
            return False
        if self.relation == ">":
            return self.value > self.threshold
        return self.value >= self.threshold if self.relation == ">=" else self.value <= self.threshold

    @property
    def distance(self) -> float | None:
        """How far the value lies beyond the threshold's wrong side, in its unit; 0 if passed, None without a value."""
        if self.value is None:
            return None
        return 0.0 if self.passed else abs(self.value - self.threshold)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed, "distance": self.distance}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    candidate: str
    incumbent: str | None
    hypothesis: int
    alpha: float  # spent on this hypothesis
    criteria: tuple[Criterion, ...]
    facts: Mapping[str, float | str | None]

    @property
    def failed(self) -> tuple[Criterion, ...]:
        return tuple(c for c in self.criteria if not c.passed)

    @property
    def outcome(self) -> Outcome:
        """`insufficient`: an amount is too small or a number cannot be computed yet. `refused`: the numbers say no."""
        if not self.failed:
            return "promoted"
        return "insufficient" if any(c.amount or c.value is None for c in self.failed) else "refused"

    @property
    def reason(self) -> str:
        """One line for a ledger: the unmet criteria with value and threshold."""
        if not self.failed:
            return f"all {len(self.criteria)} criteria met at error {number(self.alpha)}"
        return "; ".join(f"{c.name} {number(c.value)}, needs {needs(c)}" for c in self.failed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; no NaN, no infinity."""
        return {
            "candidate": self.candidate,
            "incumbent": self.incumbent,
            "hypothesis": self.hypothesis,
            "alpha": self.alpha,
            "outcome": self.outcome,
            "reason": self.reason,
            "criteria": [c.to_dict() for c in self.criteria],
            "facts": dict(self.facts),
        }


def number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.4g}"


def needs(c: Criterion) -> str:
    return f"{SIGNS[c.relation]} {number(c.threshold)}"
