"""The decision record: one schema for decisions taken, skipped and rejected, with its vocabulary, checked on write."""

from collections.abc import Sequence
from typing import Final

import polars as pl

from odin_core.errors import OdinError
from odin_core.market.bars import UTC

STATUS: Final = ("taken", "skipped", "rejected")
SOURCE: Final = ("random", "rule", "joint")
EXPLORATION: Final = ("uniform", "epsilon", "uncertainty", "none")
REGIME: Final = ("low", "medium", "high")
SIDE: Final = ("long", "short")
REJECTION: Final = ("max_trades", "max_exposure", "drawdown", "drift", "not_tradable", "too_small")
EXIT: Final = ("stop", "target", "time", "carried", "unfilled")

VOCABULARY: Final[dict[str, Sequence[str]]] = {
    "status": STATUS,
    "source": SOURCE,
    "exploration_type": EXPLORATION,
    "vol_regime": REGIME,
    "side": SIDE,
    "reject_reason": REJECTION,
    "exit_reason": EXIT,
}

DECISION = pl.Schema(
    {
        "decision_id": pl.String(),
        "session": pl.Date(),  # the session it is meant for
        "symbol": pl.String(),
        "decided_at": UTC,
        "phase": pl.Int8(),
        "source": pl.String(),
        "exploration_type": pl.String(),
        "vol_regime": pl.String(),
        "policy": pl.String(),
        "model_version": pl.String(),  # null where no model decided
        "side": pl.String(),
        "size": pl.Float64(),  # fraction of capital
        "stop_atr": pl.Float64(),
        "target_mult": pl.Float64(),
        "confidence": pl.Float64(),  # null where no model decided
        "propensity": pl.Float64(),  # probability of this choice (this action, or of skipping)
        "status": pl.String(),
        "reject_reason": pl.String(),
        "features_version": pl.String(),
        "action": pl.Int16(),  # grid index of side, size, stop and target
        "risk_unit": pl.Float64(),  # 60-minute ATR over close
        "score": pl.Float64(),  # unified: expected reward after costs, see `policies.unified`; null for exploration
        "reference_close": pl.Float64(),  # close at the decision, once there is an outcome per share of its exit
    }
)

OUTCOME = pl.Schema(
    {
        "entry_ts": UTC,  # start of the first entry bar; null where nothing filled
        "entry_price": pl.Float64(),
        "exit_ts": UTC,
        "exit_price": pl.Float64(),
        "exit_reason": pl.String(),
        "quantity": pl.Float64(),
        "gross_return": pl.Float64(),  # between the reference prices, with dividends; fraction of the entry's notional
        "cost": pl.Float64(),  # spread, slippage, commission and taxes, same unit
        "net_return": pl.Float64(),  # gross_return − cost
        "reward": pl.Float64(),  # net_return / risk_unit
        "counterfactual": pl.Boolean(),  # true for skipped and rejected: what would have been
        "complete": pl.Boolean(),  # false where the order never filled
    }
)

REPLAY = pl.Schema(DECISION | OUTCOME)
KEY: Final = ("decision_id",)
NUMBERS: Final = ("entry_price", "exit_price", "quantity", "gross_return", "cost", "net_return", "reward")


class InvalidRecord(OdinError):
    def __init__(self, rule: str, rows: int, example: object) -> None:
        super().__init__(
            f"replay buffer: {rows} row(s) break the rule “{rule}”, for example {example}; nothing was written"
        )


def validate(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame, sorted by its key, if every row obeys schema and vocabulary; raises InvalidRecord otherwise."""
    if frame.schema != REPLAY:
        raise InvalidRecord("the columns and types of REPLAY, in order", frame.height, dict(frame.schema))
    rules: dict[str, pl.Expr] = {
        f"{column} is one of {', '.join(words)}": pl.col(column).is_null() | pl.col(column).is_in(list(words))
        for column, words in VOCABULARY.items()
    }
    required = ("decision_id", "session", "symbol", "decided_at", "phase", "source", "exploration_type", "policy",
                "side", "size", "propensity", "status", "counterfactual", "complete", "features_version")  # fmt: skip
    rules |= {f"{c} is known": pl.col(c).is_not_null() for c in required}
    rules |= {
        "0 < propensity <= 1": (pl.col("propensity") > 0) & (pl.col("propensity") <= 1 + 1e-12),
        "a reject reason if and only if rejected": pl.col("reject_reason").is_not_null()
        == (pl.col("status") == "rejected"),
        "counterfactual if and only if not taken": pl.col("counterfactual") == (pl.col("status") != "taken"),
        "complete rows have entry, exit and returns": ~pl.col("complete")
        | (
            pl.all_horizontal(pl.col("entry_ts", "exit_ts", "exit_reason").is_not_null())
            & pl.all_horizontal(pl.col(NUMBERS).is_finite().fill_null(False))
        ),
        "net_return = gross_return − cost": ~pl.col("complete")
        | ((pl.col("gross_return") - pl.col("cost") - pl.col("net_return")).abs() < 1e-9),
        "exit is not before entry": pl.col("exit_ts").is_null()
        | (pl.col("exit_ts") >= pl.col("entry_ts")).fill_null(False),
        "decided before its entry": pl.col("entry_ts").is_null() | (pl.col("decided_at") <= pl.col("entry_ts")),
        "decision_id is unique": pl.col("decision_id").is_unique(),
    }
    is_broken = frame.select((~holds).any().alias(rule) for rule, holds in rules.items()).row(0, named=True)
    for rule, found in is_broken.items():
        if found:
            broken = frame.filter(~rules[rule])
            raise InvalidRecord(rule, broken.height, broken["decision_id"][0])
    return frame.sort(KEY)
