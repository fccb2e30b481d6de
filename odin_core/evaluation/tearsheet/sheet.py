"""The tear sheet: all its tables and numbers as values, from the tables of a life.

`tear_sheet(records)` computes; `page` and `markdown` write it up, `drawing` makes the pictures. Same tables, same
bytes: no clock, no randomness, no paths."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import polars as pl

from odin_core.evaluation import metrics
from odin_core.evaluation.tearsheet import dealing, returns
from odin_core.evaluation.tearsheet.records import Records

FEW_SESSIONS: Final = 30  # below it, ratios and intervals say little
FEW_TRADES: Final = 30
CONFIDENCE_BINS: Final = 8
SHOWN: Final = ("source", "size", "side", "exit_reason", "regime", "symbol")


@dataclass(frozen=True, kw_only=True)
class TearSheet:
    """Numbers and tables of one life between two sessions. Returns are fractions of fixed capital; a table's columns
    are said by the function of `returns` or `dealing` that makes it. `missing` says in words what is not there."""

    market: str
    life: str
    currency: str
    capital: float
    periods: float
    first: date | None
    last: date | None
    made_from: Mapping[str, int]  # table → rows that were read
    facts: Mapping[str, str]
    headline: Mapping[str, float | int | str | None]
    tables: Mapping[str, pl.DataFrame]
    trades: pl.DataFrame  # TRADES
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single trades, in plain values."""
        return {
            "market": self.market, "life": self.life, "first": self.first, "last": self.last,
            "currency": self.currency, "capital": self.capital, "periods": self.periods,
            "made_from": dict(self.made_from), "facts": dict(self.facts), "headline": dict(self.headline),
            "missing": list(self.missing), **{name: table.to_dicts() for name, table in self.tables.items()},
        }  # fmt: skip

    @property
    def title(self) -> str:
        return f"{self.market}, life {self.life}"

    @property
    def is_empty(self) -> bool:
        return self.tables["curve"].is_empty()


def tear_sheet(records: Records) -> TearSheet:
    """Everything that a life's tables say about it between `records.first` and `records.last`."""
    sessions = records.sessions["session"].to_list()
    tables = {
        "curve": returns.curve(records),
        "performance": returns.performance(records),
        "against": returns.against(records),
        "months": returns.months(records),
        "drawdowns": returns.drawdowns(records),
        "sessions_by_regime": returns.by_group(records, "decided_regime"),
        "sessions_by_phase": returns.by_group(records, "decided_phase"),
        **{f"trades_by_{column}": dealing.by(records, column) for column in SHOWN},
        "costs": dealing.costs(records),
        "distribution": dealing.distribution(records),
        "decisions": dealing.decided(records),
        "calibration": dealing.calibration(records, CONFIDENCE_BINS),
        "evidence": dealing.evidence(records),
        "retrains": dealing.retrains(records),
        "phases": dealing.phases(records),
    }
    return TearSheet(
        market=records.market,
        life=records.life,
        currency=records.currency,
        capital=records.capital,
        periods=records.periods,
        first=sessions[0] if sessions else records.first,
        last=sessions[-1] if sessions else records.last,
        made_from={
            "phase_state": len(sessions),
            "replay_buffer": records.decisions.height,
            "executions": records.executions.filter(records.within("session")).height,
            "candidate_scores": records.scores.filter(records.within("session")).height,
            "evaluation_report": records.reports.filter(records.within("session")).height,
        },
        facts=dict(records.facts),
        headline=_headline(records, tables),
        tables=tables,
        trades=records.trades,
        missing=_missing(records),
    )


def _headline(records: Records, tables: Mapping[str, pl.DataFrame]) -> dict[str, float | int | str | None]:
    states, curve = records.sessions, tables["curve"]
    mine = returns.floats(states, "session_return")
    of = dict(tables["performance"].select("metric", "odin").iter_rows())
    last = states.row(-1, named=True) if states.height else {"phase": None, "champion": None, "epsilon": None}
    numbers = {
        "sessions": states.height,
        "sessions_without_data": states.filter(pl.col("status") == "no_data").height,
        "total_return": of.get("total return"),
        "annual_return": of.get("mean a year"),
        "annual_volatility": of.get("volatility a year"),
        "sharpe": of.get("Sharpe ratio"),
        "trials": records.trials,
        **_of_sessions(mine, returns.floats(states, "hold_return"), records.trials, records.periods),
        "max_drawdown": of.get("deepest drawdown"),
        "mean_turnover": states["traded_notional"].mean(),
        "mean_exposure": curve.select((pl.col("long") + pl.col("short")).mean()).item(),
        "largest_exposure": curve.select((pl.col("long") + pl.col("short")).max()).item(),
        "mean_net_exposure": curve.select((pl.col("long") - pl.col("short")).mean()).item(),
        "rolling_window": returns.rolling_window(states.height),
        "phase": last["phase"],
        "champion": last["champion"],
        "epsilon": last["epsilon"],
        **{f"calibration_{name}": value for name, value in dealing.calibration_scores(records).items()},
        **dealing.summary_of_trades(records),
    }
    return {name: _known(value) for name, value in numbers.items()}


def _known(value: Any) -> float | int | str | None:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _of_sessions(mine: returns.FloatArray, hold: returns.FloatArray, trials: int, periods: float) -> dict[str, Any]:
    """What the returns of the sessions say beside the table of metrics. The deflated Sharpe ratio takes 1/n for the
    variance of the trials' Sharpe ratios, which is that of trials without skill."""
    names = ("sharpe_error", "sharpe_above_zero", "sharpe_deflated", "under_water_now", "market_beta")
    if not mine.size:
        return dict.fromkeys(names, metrics.NAN)
    sharpe, skew, kurtosis = metrics.sharpe_ratio(mine, 1.0), metrics.skewness(mine), metrics.kurtosis(mine)
    found = (
        metrics.sharpe_standard_error(sharpe, mine.size, skew, kurtosis) * np.sqrt(periods),
        metrics.probabilistic_sharpe_ratio(sharpe, mine.size, skew, kurtosis),
        metrics.deflated_sharpe_ratio(sharpe, mine.size, max(trials, 1), 1 / mine.size, skew, kurtosis),
        int(metrics.time_under_water(mine, compounded=False).current),
        metrics.beta(mine, hold),
    )
    return dict(zip(names, found, strict=True))


def _missing(records: Records) -> tuple[str, ...]:
    """What a reader might look for in vain, and why."""
    states, trades = records.sessions, records.trades
    n = states.height
    if n == 0:
        return ("no finished session lies in the range, so there is nothing to show",)
    told = []
    if n < FEW_SESSIONS:
        told.append(f"{n} sessions are few: ratios and intervals below say little before {FEW_SESSIONS} or more")
    if returns.rolling_window(n) is None:
        told.append(f"no rolling Sharpe ratio: it begins with {returns.WINDOWS[-1][0]} sessions")
    if trades.is_empty():
        told.append("no trade was closed in the range, so there are no costs, holding times or distributions")
    elif trades.height < FEW_TRADES:
        told.append(f"{trades.height} trades are few: what is said of groups of them may be chance")
    if not records.random.shape[0]:
        told.append("no random portfolios were drawn in this life, so ODIN is not compared with chance")
    if records.decisions["confidence"].null_count() == records.decisions.height:
        told.append("no model decided in the range, so there is no confidence to check against outcomes")
    if records.scores.filter(records.within("session")).is_empty():
        told.append("no candidate was scored on later sessions in the range")
    if records.reports.filter(records.within("session")).is_empty():
        told.append("no week ended in the range, so nothing was trained")
    gone = states.filter(pl.col("status") == "no_data").height
    if gone:
        told.append(f"{gone} of {n} sessions have no bars: they count with a return of zero")
    return tuple(told)
