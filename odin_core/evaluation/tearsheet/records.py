"""What a tear sheet is made of: a life's tables, and from them one row per session and one per closed trade.

Tables come as `lifecycle.report` reads them; nothing here knows files. What the rows mean for a quant is said in
`returns` (sessions) and `dealing` (trades). Returns are fractions of the life's fixed capital, so they add up and
nothing compounds; notional is the entry's reference price times its quantity."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

FloatArray = npt.NDArray[np.float64]
FRICTION: Final = ("spread", "slippage", "charges")
BAND: Final = (0.05, 0.95)  # of the random portfolios

TRADES: Final = pl.Schema(
    {
        "decision_id": pl.String(),
        "symbol": pl.String(),
        "side": pl.String(),
        "source": pl.String(),
        "phase": pl.Int8(),  # in which it was decided
        "regime": pl.String(),  # of volatility, as known at the decision
        "size": pl.Float64(),  # meant, fraction of capital
        "confidence": pl.Float64(),
        "entered": pl.Date(),  # session of the entry
        "resolved": pl.Date(),  # session of the exit
        "minutes": pl.Float64(),  # from the entry's bar to the exit's, nights included
        "exit_reason": pl.String(),
        "notional": pl.Float64(),  # currency
        "gross_return": pl.Float64(),  # fraction of the notional, as in the record
        "cost": pl.Float64(),
        "net_return": pl.Float64(),
        "reward": pl.Float64(),  # net return in units of risk
        "profit": pl.Float64(),  # currency, after costs
        "spread": pl.Float64(),  # currency, both legs; so the next two
        "slippage": pl.Float64(),
        "charges": pl.Float64(),
        "dividends": pl.Float64(),  # currency; part of the gross return
    }
)


@dataclass(frozen=True, kw_only=True)
class Records:
    """The tables of a life and what surrounds them.

    `states` holds every session of the life up to `last`, because a session's regime and phase are those of the close
    before; `replay` and `executions` may begin earlier than `first`. Beside its own columns `replay` has `resolved`
    (Date), the session in which the outcome became known, and `executions` and `reports` (of evaluations) have the
    `session` that they were written in. Frames may be empty but have their columns."""

    market: str
    life: str
    currency: str
    capital: float
    states: pl.DataFrame
    replay: pl.DataFrame
    executions: pl.DataFrame
    scores: pl.DataFrame
    reports: pl.DataFrame
    first: date | None = None  # None: the life's first session
    last: date | None = None
    periods: float = 252.0  # sessions a year
    facts: Mapping[str, str] = field(default_factory=dict)  # settings to show beside the title

    @cached_property
    def sessions(self) -> pl.DataFrame:
        """`states` within the range, with `decided_regime` and `decided_phase`, those of the close before."""
        told = self.replay.group_by("session").agg(decided_regime=pl.col("vol_regime").drop_nulls().first())
        decided = self.states.sort("session").join(told, on="session", how="left", maintain_order="left")
        return decided.with_columns(
            decided_regime=pl.coalesce("decided_regime", pl.col("vol_regime").shift(1)),
            decided_phase=pl.col("phase_before"),
        ).filter(self.within("session"))

    def within(self, column: str) -> pl.Expr:
        """Whether a date lies in the range, both ends included."""
        return pl.col(column).is_between(self.first or date.min, self.last or date.max)

    @property
    def trials(self) -> int:
        """Candidates that were trained up to the range's end, each one a trial."""
        return self.reports.filter(pl.col("session") <= (self.last or date.max))["version"].drop_nulls().n_unique()

    @cached_property
    def decisions(self) -> pl.DataFrame:
        """Replay rows that were resolved in the range."""
        return self.replay.filter(self.within("resolved"))

    @cached_property
    def random(self) -> FloatArray:
        """Returns of the random portfolios, shape (portfolios, sessions); (0, sessions) where there are none."""
        drawn = self.sessions["random_returns"].to_list()
        widest = max(map(len, drawn), default=0)
        padded = [row + [0.0] * (widest - len(row)) for row in drawn]
        return np.array(padded, dtype=np.float64).reshape(len(drawn), widest).T

    @cached_property
    def trades(self) -> pl.DataFrame:
        """TRADES: decisions that were taken, filled and closed in the range, by exit and id."""
        closed = self.decisions.filter((pl.col("status") == "taken") & pl.col("complete"))
        legs = self._by_decision()
        joined = closed.join(legs, on="decision_id", how="left").with_columns(
            regime="vol_regime",
            entered="session",
            minutes=(pl.col("exit_ts") - pl.col("entry_ts")).dt.total_seconds() / 60,
            profit=pl.col("net_return") * pl.col("notional"),
        )
        return joined.select(TRADES.names()).cast(TRADES).sort("resolved", "decision_id")

    def _by_decision(self) -> pl.DataFrame:
        """Notional and friction of each decision that was carried out, currency."""
        entry, dividend = pl.col("leg") == "entry", pl.col("leg") == "dividend"
        value = pl.col("reference") * pl.col("quantity")
        direction = pl.when(pl.col("side") == "long").then(1.0).otherwise(-1.0)
        return self.executions.group_by("decision_id", maintain_order=True).agg(
            notional=value.filter(entry).sum(),
            spread=(pl.col("half_spread") * pl.col("quantity")).sum(),
            slippage=(pl.col("slippage") * pl.col("quantity")).sum(),
            charges=pl.col("charges").sum(),
            dividends=(value * direction).filter(dividend).sum(),
        )

    @cached_property
    def held(self) -> pl.DataFrame:
        """Positions that were entered up to the range's end: `side`, `notional`, `entered`, `resolved` (null while the
        outcome is not known)."""
        entries = self.executions.filter(pl.col("leg") == "entry").select(
            "decision_id", "side", notional=pl.col("reference") * pl.col("quantity"), entered="session"
        )
        return entries.join(self.replay.select("decision_id", "resolved"), on="decision_id", how="left")
