"""Performance: how a life does, one row a session, and whether live results are what the backtest led one to expect.

What comes in: `phase_state`, `replay_buffer` and `candidate_scores` of a life (`Tables`), each row with the session at
whose close it was known (`known`), so that a row of session D reads nothing later, whatever else the tables hold. The
page that people read is `performance_page`; what is alarming is for `rules`. Ratios come from `evaluation.metrics`,
bounds that hold at all looks from `evaluation.sequential`. Returns are fractions of capital, rewards net returns over
the risk unit, costs fractions of a trade's notional."""

import math
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from odin_core.evaluation import metrics
from odin_core.evaluation.sequential import BURN_IN, FloatArray, cluster_mean_interval
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.state import REGIMES
from odin_core.lifecycle.summary import PERIODS
from odin_core.monitoring.expectation import Band, expected_band

NONE: Final = ""  # a champion that there is not

PERFORMANCE: Final = pl.Schema(
    {
        "session": pl.Date(),
        "status": pl.String(),  # ok, no_data or warm_up
        "phase": pl.Int8(),
        "vol_regime": pl.String(),
        "epsilon": pl.Float64(),
        "champion": pl.String(),
        "champion_since": pl.Date(),
        "session_return": pl.Float64(),
        "equity": pl.Float64(),
        "drawdown": pl.Float64(),  # ≤ 0, from the peak
        "sharpe": pl.Float64(),  # annualised, of the trailing window; null where it has no meaning
        "sharpe_low": pl.Float64(),  # of its sessions that were decided on in this volatility regime
        "sharpe_medium": pl.Float64(),
        "sharpe_high": pl.Float64(),
        "sharpe_phase": pl.Float64(),  # of its sessions that were decided on in the phase of this one
        "sharpe_champion": pl.Float64(),  # of all sessions since the champion's first
        "trades": pl.Int64(),  # entries of the trailing window, unfilled ones included
        "complete_trades": pl.Int64(),  # with an outcome, of the last recent sessions
        "wins": pl.Int64(),  # of those
        "win_rate": pl.Float64(),
        "mean_reward": pl.Float64(),  # of complete trades of the trailing window
        "mean_cost": pl.Float64(),
        "turnover": pl.Float64(),  # a session, entries and exits over capital
        "unfilled": pl.Float64(),  # share of entries that never filled
        "coverage": pl.Float64(),  # entropy of the cells decided on over the largest possible, 0 to 1
        "cells": pl.Int64(),  # of regime × volatility with at least `cell_rows` decisions
        "sides": pl.Float64(),  # effective numbers, e to the entropy of the trailing window's entries
        "sizes": pl.Float64(),
        "exits": pl.Float64(),  # pairs of stop and target
        "symbols": pl.Float64(),
        "ic": pl.Float64(),  # mean rank information coefficient of the champion's last recent scored sessions
        "ic_sessions": pl.Int64(),
        "ic_lower": pl.Float64(),  # of the 95 % interval, at one look
        "predictive_entropy": pl.Float64(),  # of the champion's confidences, bits, 0 (sure) to 1 (a coin)
        "unusual_returns": pl.Int64(),  # sessions of the trailing window
        "no_data": pl.Int64(),  # sessions of the trailing window
        "anomalies": pl.List(pl.String()),  # of this session
        "live_sessions": pl.Int64(),  # of the champion with an outcome
        "live_reward": pl.Float64(),  # sum of their mean rewards
        "expected_reward": pl.Float64(),  # of as many sessions, by the backtest
        "expected_lower": pl.Float64(),  # null before either side has enough sessions
        "expected_upper": pl.Float64(),
        "inside": pl.Boolean(),  # null before
    }
)


@dataclass(frozen=True, kw_only=True)
class PerformanceConfig:
    trailing: int = 60  # sessions of the window that most columns are of
    recent: int = 20  # sessions of win rate, information coefficient and predictive entropy
    periods: int = PERIODS  # sessions a year
    least_sessions: int = 5  # of a Sharpe ratio; fewer give null
    confidence: float = 0.95  # of the expected band, at all looks together
    robust_deviations: float = 4.0  # from the median of the sessions before: unusual
    least_returns: int = 20  # sessions before a return can be called unusual
    cell_rows: int = 20  # decisions that make a cell of the coverage count


@dataclass(frozen=True, kw_only=True)
class Tables:
    """A life's tables, rows in order of `known`."""

    states: pl.DataFrame  # columns STATES of PHASE_STATE, and `known`, which is their session
    replay: pl.DataFrame  # columns DECISIONS of REPLAY, and `known`
    scores: pl.DataFrame  # columns SCORED of SCORES, and `known`


@dataclass(frozen=True, kw_only=True)
class Details:
    """The tables behind a row."""

    sharpe: pl.DataFrame  # window (trailing, champion), by (all, regime, phase), group, sessions, sharpe
    coverage: pl.DataFrame  # vol_regime, volatility (low, medium, high), decisions, share
    diversity: pl.DataFrame  # of (sides, …), kind, trades, share
    anomalies: pl.DataFrame  # session, kind, text; of the trailing window
    returns: pl.DataFrame  # session, session_return, equity, drawdown, epsilon, phase; of the trailing window
    band: Band


class Performance(NamedTuple):
    row: pl.DataFrame  # PERFORMANCE, one row
    details: Details


STATES: Final = ("session", "status", "phase", "phase_before", "vol_regime", "epsilon", "champion", "champion_since",
                 "session_return", "equity", "drawdown", "traded_notional")  # fmt: skip
DECISIONS: Final = ("session", "symbol", "vol_regime", "model_version", "side", "size", "stop_atr", "target_mult",
                    "confidence", "status", "risk_unit", "cost", "reward", "complete")  # fmt: skip
SCORED: Final = ("session", "version", "candidate", "champion", "reward", "ic")
KINDS: Final = {"sides": ("side",), "sizes": ("size",), "exits": ("stop_atr", "target_mult"), "symbols": ("symbol",)}


def tables_of(life: Life, through: date | None = None) -> Tables:
    """What `performance_at` needs of a life's finished sessions up to `through` (default: the head).
    Raises SessionDamaged."""
    sessions = [s for s in life.commits() if s <= (through or date.max)]
    weeks = [s for s in life.sessions_with("candidate_scores") if s <= (through or date.max)]
    return Tables(
        states=_read(life, "phase_state", sessions, STATES),
        replay=_read(life, "replay_buffer", sessions, DECISIONS),
        scores=_read(life, "candidate_scores", weeks, SCORED),
    )


def performance_of(life: Life, session: date | None = None, config: PerformanceConfig | None = None) -> Performance:
    """`performance_at` of a finished session (default: the head). For many sessions read `tables_of` once."""
    at = session or life.head
    if at is None:
        raise ValueError(f"life {life.id} has no finished session")
    return performance_at(tables_of(life, at), at, config)


def performance_at(tables: Tables, session: date, config: PerformanceConfig | None = None) -> Performance:
    """The row of a session and what is behind it, from rows known at its close. The same input gives the same bytes.
    Raises ValueError for a session that `tables.states` lacks."""
    told = config or PerformanceConfig()
    known = Tables(
        states=tables.states.filter(pl.col("known") <= session),
        replay=tables.replay.filter(pl.col("known") <= session),
        scores=tables.scores.filter(pl.col("known") <= session),
    )
    if known.states.is_empty() or known.states["session"][-1] != session:
        raise ValueError(f"{session} is not among the sessions of phase_state")
    state = known.states.row(-1, named=True)
    trailing = known.states.tail(told.trailing)
    first = trailing["session"][0]
    decided = known.replay.filter(pl.col("session") >= first)
    taken = decided.filter(pl.col("status") == "taken")
    sharpe = _sharpe(known.states, state, told)
    coverage = _coverage(known.replay, decided)
    diversity = _diversity(taken)
    anomalies = _anomalies(known.states, trailing, taken, told)
    band = _expectation(known, state["champion"], state["champion_since"], told.confidence)
    details = Details(
        sharpe=sharpe, coverage=coverage, diversity=diversity, anomalies=anomalies, band=band,
        returns=trailing.select("session", "session_return", "equity", "drawdown", "epsilon", "phase"),
    )  # fmt: skip
    values = {name: state[name] for name in STATE_COLUMNS}
    values |= _sharpe_columns(sharpe, state["phase_before"]) | _trading(taken, trailing, told)
    values |= _coverage_columns(coverage, told) | {name: _effective(diversity, name) for name in KINDS}
    values |= _champion(known, state, told) | _anomaly_columns(anomalies, session) | _band_columns(band)
    return Performance(pl.DataFrame([values], schema=PERFORMANCE), details)


STATE_COLUMNS: Final = ("session", "status", "phase", "vol_regime", "epsilon", "champion", "champion_since",
                        "session_return", "equity", "drawdown")  # fmt: skip


def _expectation(known: Tables, champion: str | None, since: date | None, confidence: float) -> Band:
    """The champion's own complete trades since its first session, one mean a session, against its backtest."""
    if champion is None or since is None:
        return expected_band((), np.empty(0), np.empty(0), confidence)
    own = (pl.col("model_version") == champion) & (pl.col("status") == "taken") & pl.col("complete")
    live = known.replay.filter(own & (pl.col("session") >= since)).group_by("session").agg(pl.col("reward").mean())
    live = live.drop_nulls().sort("session")
    return expected_band(
        tuple(live["session"]), _backtest(known.scores, champion, since), live["reward"].to_numpy(), confidence
    )


def _backtest(scores: pl.DataFrame, champion: str, since: date) -> FloatArray:
    """The champion's mean rewards on sessions before its first one, as far as they were known then; where these are
    fewer than BURN_IN, those of the weekly candidates whose lineage it continues: what the gate promoted it on."""
    before = scores.filter((pl.col("known") < since) & (pl.col("session") < since)).drop_nulls("reward")
    own = before.filter(version=champion).unique("session", maintain_order=True)
    if own.height < BURN_IN:
        own = before.filter("candidate").unique("session", maintain_order=True)
    return own["reward"].to_numpy()


def _sharpe(states: pl.DataFrame, state: dict[str, Any], told: PerformanceConfig) -> pl.DataFrame:
    """By the regime and the phase in which a session's trades were decided, at the close before it."""
    sessions, returns = states["session"].to_numpy(), states["session_return"].fill_null(np.nan).to_numpy()
    regime = np.array([None, *states["vol_regime"].to_list()[:-1]], dtype=object)
    phase = states["phase_before"].to_numpy()
    trailing = np.arange(len(sessions)) >= len(sessions) - told.trailing
    windows = {"trailing": trailing}
    if state["champion_since"] is not None:
        windows["champion"] = sessions >= np.datetime64(state["champion_since"])
    rows = []
    for window, inside in windows.items():
        groups = [("all", "all", inside)]
        groups += [("regime", name, inside & (regime == name)) for name in REGIMES]
        groups += [("phase", str(p), inside & (phase == p)) for p in sorted(set(phase[inside].tolist()))]
        for by, group, chosen in groups:
            series = returns[chosen]
            n = int(np.isfinite(series).sum())
            ratio = float(metrics.sharpe_ratio(series, told.periods)) if n >= told.least_sessions else math.nan
            rows.append((window, by, group, n, _finite(ratio)))
    return pl.DataFrame(rows, schema=["window", "by", "group", "sessions", "sharpe"], orient="row",
                        schema_overrides={"sessions": pl.Int64, "sharpe": pl.Float64})  # fmt: skip


def _sharpe_columns(table: pl.DataFrame, phase: int) -> dict[str, float | None]:
    value = {(window, by, group): ratio for window, by, group, _, ratio in table.iter_rows()}
    return {
        "sharpe": value["trailing", "all", "all"],
        **{f"sharpe_{name}": value["trailing", "regime", name] for name in REGIMES},
        "sharpe_phase": value.get(("trailing", "phase", str(phase))),
        "sharpe_champion": value.get(("champion", "all", "all")),
    }


def _trading(taken: pl.DataFrame, trailing: pl.DataFrame, told: PerformanceConfig) -> dict[str, Any]:
    recent = trailing.tail(told.recent)["session"][0]
    complete = taken.filter("complete")
    last = complete.filter(pl.col("session") >= recent)
    wins = int((last["reward"] > 0).sum())
    return {
        "trades": taken.height,
        "complete_trades": last.height,
        "wins": wins,
        "win_rate": wins / last.height if last.height else None,
        "mean_reward": complete["reward"].mean(),
        "mean_cost": complete["cost"].mean(),
        "turnover": trailing["traded_notional"].mean(),
        "unfilled": 1 - complete.height / taken.height if taken.height else None,
    }


def _coverage(known: pl.DataFrame, decided: pl.DataFrame) -> pl.DataFrame:
    """Entries of the trailing window by market regime and the symbol's own volatility: its risk unit against the
    thirds of all decisions so far."""
    units = known["risk_unit"].drop_nulls().drop_nans().to_numpy()
    taken = decided.filter(pl.col("status") == "taken").drop_nulls(["vol_regime", "risk_unit"])
    counts = np.zeros((len(REGIMES), len(REGIMES)), dtype=np.int64)
    if units.size and taken.height:
        edges = np.quantile(units, [1 / 3, 2 / 3])
        regime = taken["vol_regime"].replace_strict({name: i for i, name in enumerate(REGIMES)}, default=None)
        third = np.searchsorted(edges, taken["risk_unit"].to_numpy())
        np.add.at(counts, (regime.cast(pl.Int64).to_numpy(), third), 1)
    share = counts / max(counts.sum(), 1)
    return pl.DataFrame(
        {"vol_regime": np.repeat(REGIMES, len(REGIMES)), "volatility": np.tile(REGIMES, len(REGIMES)),
         "decisions": counts.ravel(), "share": share.ravel()}
    )  # fmt: skip


def _coverage_columns(table: pl.DataFrame, told: PerformanceConfig) -> dict[str, Any]:
    share = table["share"].to_numpy()
    return {
        "coverage": entropy(share) / math.log(len(share)) if share.sum() > 0 else None,
        "cells": int((table["decisions"] >= told.cell_rows).sum()),
    }


def _diversity(taken: pl.DataFrame) -> pl.DataFrame:
    frames = []
    for name, columns in KINDS.items():
        kind = pl.format(" × ".join("{}" for _ in columns), *columns) if len(columns) > 1 else pl.col(*columns)
        counted = taken.group_by(kind.cast(pl.String).alias("kind")).agg(trades=pl.len().cast(pl.Int64))
        share = pl.col("trades") / pl.col("trades").sum()
        frames.append(counted.sort("kind").select(pl.lit(name).alias("of"), "kind", "trades", share=share))
    return pl.concat(frames)


def _effective(table: pl.DataFrame, name: str) -> float | None:
    share = table.filter(of=name)["share"].to_numpy()
    return math.exp(entropy(share)) if share.size else None


def entropy(share: FloatArray) -> float:
    """−Σ p·ln p in nats, of shares (n,) that sum to 1; zero shares count nothing. Source: Shannon 1948. Its exponential
    is the effective number of kinds (Hill 1973, order 1)."""
    p = np.asarray(share, dtype=np.float64)
    p = p[p > 0]
    return float(-(p * np.log(p)).sum()) + 0.0


def _champion(known: Tables, state: dict[str, Any], told: PerformanceConfig) -> dict[str, Any]:
    """Of the champion in force: information coefficient on scored sessions, entropy of its confidences."""
    version = state["champion"] or NONE
    scored = known.scores.filter(version=version).drop_nulls("ic").unique("session", maintain_order=True)
    ic = scored.tail(told.recent)["ic"].to_numpy()
    interval = cluster_mean_interval(ic, np.arange(len(ic)), 0.05)
    recent = known.states.tail(told.recent)["session"][0]
    sure = known.replay.filter((pl.col("model_version") == version) & (pl.col("session") >= recent))
    p = sure["confidence"].drop_nulls().to_numpy()
    bits = -(_xlogx(p) + _xlogx(1 - p)) / math.log(2)
    return {
        "ic": _finite(interval.mean),
        "ic_sessions": len(ic),
        "ic_lower": _finite(interval.lower),
        "predictive_entropy": float(bits.mean()) if p.size else None,
    }


def _xlogx(p: FloatArray) -> FloatArray:
    return p * np.log(np.where(p > 0, p, 1.0))


def _anomalies(
    states: pl.DataFrame, trailing: pl.DataFrame, taken: pl.DataFrame, told: PerformanceConfig
) -> pl.DataFrame:
    """Of the trailing window: returns far from the median of the sessions before, sessions without data, sessions in
    which more than half of the entries did not fill."""
    rows = [(s, "no_data", "the session has no bars") for s in trailing.filter(status="no_data")["session"]]
    sessions, returns = states["session"].to_list(), states["session_return"].fill_null(np.nan).to_numpy()
    for i in range(max(len(sessions) - told.trailing, told.least_returns), len(sessions)):
        away = _robust_deviations(returns[max(i - told.trailing, 0) : i], returns[i], told.least_returns)
        if abs(away) > told.robust_deviations:
            text = f"return {returns[i]:+.3%} of capital, {away:+.1f} robust deviations from the median"
            rows.append((sessions[i], "unusual_return", text))
    filled = taken.group_by("session").agg(n=pl.len(), done=pl.col("complete").sum())
    for s, n, done in filled.iter_rows():
        if done < n / 2:
            rows.append((s, "unfilled", f"{n - done} of {n} entries did not fill"))
    schema = {"session": pl.Date, "kind": pl.String, "text": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("session", "kind")


def _robust_deviations(before: FloatArray, value: float, least: int) -> float:
    """How many robust standard deviations (1.4826·MAD) `value` lies from the median of `before`; 0 where that cannot be
    told."""
    seen = before[np.isfinite(before)]
    if seen.size < least or not math.isfinite(value):
        return 0.0
    middle = np.median(seen)
    spread = 1.4826 * float(np.median(np.abs(seen - middle)))
    return float(value - middle) / spread if spread > 0 else 0.0


def _anomaly_columns(table: pl.DataFrame, session: date) -> dict[str, Any]:
    return {
        "unusual_returns": int((table["kind"] == "unusual_return").sum()),
        "no_data": int((table["kind"] == "no_data").sum()),
        "anomalies": table.filter(session=session)["text"].to_list(),
    }


def _band_columns(band: Band) -> dict[str, Any]:
    known = bool(len(band.live))
    return {
        "live_sessions": len(band.live),
        "live_reward": float(band.live[-1]) if known else None,
        "expected_reward": _finite(band.expected[-1]) if known else None,
        "expected_lower": _finite(band.lower[-1]) if known else None,
        "expected_upper": _finite(band.upper[-1]) if known else None,
        "inside": band.inside,
    }


def _read(life: Life, table: str, sessions: list[date], columns: tuple[str, ...]) -> pl.DataFrame:
    """These columns of a table of several sessions, with the session of each file as `known`."""
    if not sessions:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.Null) | {"known": pl.Date})
    paths = [life.lake.path(table, session) for session in sessions]
    try:  # one call for all files takes a fifth of the time
        scan = pl.scan_parquet(paths, hive_partitioning=False, include_file_paths="file")
        day = pl.col("file").str.extract(r"session=([\d-]{10})/part\.parquet$").str.to_date()
        return scan.select(*columns, known=day).collect()
    except (pl.exceptions.PolarsError, OSError):
        life.read_many(table, sessions)  # says which session is damaged, and what to do
        raise


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
