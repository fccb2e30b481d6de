"""What the fold carries from one session to the next, and what one session leaves behind.

The scalars of `LoopState` are columns of the table `phase_state`, so a state is read back from the lake; `window`,
`scores`, `models`, `references` and `returns` are memory of what the registry and other tables hold and are rebuilt
from them (`restore` in `run`)."""

from dataclasses import dataclass, field, fields
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from odin_core.market.bars import UTC
from odin_core.market.reference.actions import EFFECTIVE
from odin_core.policies.joint import JointPolicy
from odin_core.policies.unified import COUNTS
from odin_core.replay.record import DECISION, SOURCE
from odin_core.training.window import SessionContexts

if TYPE_CHECKING:
    from odin_core.monitoring.reference import Reference

POSITIONS = pl.Schema(  # decisions whose outcome is not known yet, taken or not
    DECISION
    | {
        "entry_ts": UTC,
        "quantity": pl.Float64(),
        "volatility": pl.Float64(),  # of a one-minute return, as at the decision
        "engine": pl.List(pl.Float64()),  # the fill engine's own state, its columns in order
        "held_as": pl.String(),  # the name it trades under now; another than `symbol` after a rename or a merger
        "dividends": pl.Float64(),  # paid since the entry, currency; negative for a short position
    }
)

SCORES = pl.Schema(
    {
        "session": pl.Date(),
        "version": pl.String(),
        "candidate": pl.Boolean(),  # the newest candidate at that session
        "champion": pl.Boolean(),
        "trained_through": pl.Date(),
        "decisions": pl.Int64(),  # that the version would have taken
        "reward": pl.Float64(),  # their mean reward; null where it would have taken none
        "random": pl.Float64(),  # mean reward over all contexts and actions
        "rules": pl.Float64(),  # mean reward of the rules' choices; null where they chose none
        "ic": pl.Float64(),  # Spearman of score and outcome over the session's contexts
        "contexts": pl.Int64(),  # whose action, taken or leaned to, has a known reward; the counts below are of them
        "outcomes": pl.Int64(),  # decisions whose reward is known
        "won": pl.Int64(),  # decisions whose reward is above 0
        "lean_won": pl.Int64(),  # contexts whose reward is above 0
        "random_won": pl.Float64(),  # share of all contexts and actions whose reward is above 0
        "top": pl.Int64(),  # most confident contexts, at most TOP
        "top_won": pl.Int64(),
        "bin_contexts": pl.List(pl.Int64()),  # by confidence, BINS of equal width from 0 to 1
        "bin_confidence": pl.List(pl.Float64()),  # sum of it
        "bin_won": pl.List(pl.Int64()),
        "squared_error": pl.Float64(),  # of confidence against what became of it, summed
        "entropy": pl.Float64(),  # mean of −p·log₂ p − (1 − p)·log₂(1 − p) over contexts, p the confidence
    }
)

PHASE_STATE = pl.Schema(
    {
        "session": pl.Date(),
        "status": pl.String(),  # ok, no_data or warm_up
        "phase": pl.Int8(),
        "phase_before": pl.Int8(),
        "phase_since": pl.Date(),
        "reason": pl.String(),  # of the transition, or why the phase was not left
        "suggestions": pl.List(pl.String()),
        "distance": pl.String(),  # JSON: criterion → [value, needed]
        "epsilon": pl.Float64(),
        "champion": pl.String(),
        "champion_since": pl.Date(),
        "champion_through": pl.Date(),
        "hypothesis": pl.Int64(),
        "hypothesis_since": pl.Date(),
        "sessions": pl.Int64(),
        "executed": pl.Int64(),
        "replay_rows": pl.Int64(),
        "phase_rows": pl.Int64(),
        "candidates": pl.List(pl.String()),  # the last k, oldest first
        "rank_agreement": pl.Float64(),
        "vol_regime": pl.String(),
        "regime_sessions": pl.List(pl.Int64()),  # low, medium, high
        "regime_rows": pl.List(pl.Int64()),
        "filtered": pl.Int64(),  # symbols that may be decided on
        "fundamentals_failed": pl.Int64(),  # symbols that only a rule of filter.fundamentals kept out
        "fundamentals_unknown": pl.Int64(),  # symbols kept out because a figure of such a rule is not known
        "widening": pl.Int64(),
        "equity": pl.Float64(),  # 1 + profit and loss of closed trades over capital
        "peak": pl.Float64(),
        "drawdown": pl.Float64(),  # ≤ 0, from the peak
        "halt_left": pl.Int64(),
        "session_return": pl.Float64(),
        "traded_notional": pl.Float64(),  # entries and exits over capital
        "trades": pl.Int64(),
        "random_returns": pl.List(pl.Float64()),  # one per random portfolio
        "hold_return": pl.Float64(),  # equal weights, close to close; null on the first session
        "mean_reward": pl.Float64(),
        "trials": pl.Int64(),  # candidates trained so far
        "payoffs": pl.List(pl.Float64()),  # by source: won, their rewards, lost, their rewards
        "drift_score": pl.Float64(),  # the largest of the champion's features, 1 is an alarm; null: not to be judged
        "drift_subject": pl.String(),  # the feature that drifted most
        "drift_alarms": pl.Int64(),  # in a row
        "drift_retrained": pl.Date(),  # when drift last asked for a retrain
        "retrain_because": pl.String(),  # what calls for a retrain: at the next close, in a live life from outside
        "retrained_because": pl.String(),  # what this close's retrain was for; null where there was none
    }
)

CLOSES = pl.Schema({"symbol": pl.String(), "close": pl.Float64(), "decided_at": UTC})

WEEKS_END: Final = "the week's end"
"""What a retrain is for that nothing else called for."""

REGIMES: Final[tuple[str, ...]] = ("low", "medium", "high")


@dataclass(frozen=True, kw_only=True)
class LoopState:
    """State after a session's close. `plan` is for the next session."""

    session: date | None = None
    phase: int = 0
    phase_since: date | None = None
    champion: str | None = None
    champion_since: date | None = None
    champion_through: date | None = None
    hypothesis: int = 1  # which incumbent the candidates are tried against: 1 is "none yet"
    hypothesis_since: date | None = None  # first session whose scores count for it; None is the beginning
    sessions: int = 0
    executed: int = 0
    replay_rows: int = 0
    phase_rows: int = 0
    candidates: tuple[str, ...] = ()
    rank_agreement: float | None = None
    regime_sessions: tuple[int, ...] = (0, 0, 0)
    regime_rows: tuple[int, ...] = (0, 0, 0)
    widening: int = 0
    equity: float = 1.0
    peak: float = 1.0
    halt_left: int = 0
    trials: int = 0
    payoffs: tuple[float, ...] = (0.0,) * (COUNTS * len(SOURCE))  # of each source, for the unified score
    drift_alarms: int = 0
    drift_retrained: date | None = None
    retrain_because: str | None = None

    plan: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DECISION))
    positions: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=POSITIONS))
    contexts: pl.DataFrame = field(default_factory=pl.DataFrame)  # features behind the plan, same symbols and order
    closes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CLOSES))  # the last ones, restated since

    window: tuple[SessionContexts, ...] = ()
    scores: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SCORES))
    models: dict[str, JointPolicy] = field(default_factory=dict)
    references: dict[str, "Reference"] = field(default_factory=dict)  # what the models were trained on, for drift
    returns: tuple[float, ...] = ()  # per session since the phase began

    @property
    def drawdown(self) -> float:
        return self.equity - self.peak


CARRIED: Final = tuple(f.name for f in fields(LoopState) if f.name in PHASE_STATE.names())


def carried_from(row: dict[str, Any]) -> dict[str, Any]:
    """The scalars of a LoopState out of a row of `phase_state`; one that older code did not know has its default."""
    values = {name: row[name] for name in CARRIED if name in row}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def completed(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """A stored table in today's schema: columns that older code did not know are null."""
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in schema.items() if name not in frame.columns]
    return frame.with_columns(missing).select(schema.names()) if missing else frame


@dataclass(frozen=True, kw_only=True)
class Day:
    """Everything the world says on one session. Empty `bars` mean that there is no data."""

    session: date
    opens: datetime
    minutes: int  # that the market was open, halts left out
    next_session: date
    ends_week: bool
    bars: pl.DataFrame  # BARS
    features: pl.DataFrame  # known at the close
    actions: pl.DataFrame = field(default_factory=EFFECTIVE.to_frame)  # corporate actions that this session feels
    fundamentals: pl.DataFrame = field(default_factory=pl.DataFrame)  # symbol and figures, known at the close
    promotions: tuple[dict[str, Any], ...] = ()  # by a person, effective from the next session on; with their model


@dataclass(frozen=True, kw_only=True)
class DayRecord:
    """What the fold leaves behind for one session: frames by table name, models by version, and a summary to show."""

    tables: dict[str, pl.DataFrame]
    models: dict[str, JointPolicy]
    summary: dict[str, float | int | str]
    references: dict[str, str] = field(default_factory=dict)  # JSON by version, see `monitoring.reference`
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # of new models by version: dataset, trials, metrics
    reports: dict[str, str] = field(default_factory=dict)  # pages by file name, for people
    trained: bool = False
