"""Tables of a life that never was, for `performance_at`: random but of the right shape, with holes where lives have
them."""

from datetime import date, timedelta

import numpy as np
import polars as pl

from odin_core.monitoring.performance import DECISIONS, SCORED, STATES, Tables

FIRST = date(2026, 1, 1)
STOPS = (1.0, 2.0)


def day(i: int) -> date:
    return FIRST + timedelta(days=i)


def made_up(sessions: int = 90, *, trades: int = 8, champion_from: int | None = 40, seed: int = 0) -> Tables:
    """Daily sessions from FIRST on; every fifth ends a week, in which candidates are scored. Session 25 has no data."""
    rng = np.random.default_rng(seed)
    since = None if champion_from is None else day(champion_from)
    returns = rng.normal(0.0, 0.01, sessions)
    if sessions > 25:
        returns[25] = 0.0
    equity = 1 + np.cumsum(returns)
    peak = np.maximum(np.maximum.accumulate(equity), 1.0)
    phases = np.minimum(np.arange(sessions) // 20, 3)
    crowned = [since if since and day(i) >= since - timedelta(days=1) else None for i in range(sessions)]
    states = pl.DataFrame(
        {
            "session": [day(i) for i in range(sessions)],
            "status": ["no_data" if i == 25 else "ok" for i in range(sessions)],
            "phase": pl.Series(phases, dtype=pl.Int8),
            "phase_before": pl.Series(np.r_[0, phases[:-1]], dtype=pl.Int8),
            "vol_regime": [None if i < 9 else ("low", "medium", "high")[i % 3] for i in range(sessions)],
            "epsilon": np.full(sessions, 0.1),
            "champion": ["joint-a" if c else None for c in crowned],
            "champion_since": pl.Series(crowned, dtype=pl.Date),
            "session_return": returns,
            "equity": equity,
            "drawdown": equity - peak,
            "traded_notional": rng.uniform(0, 0.2, sessions),
        }
    ).with_columns(known="session")
    return Tables(states=states.select(*STATES, "known"), replay=_replay(rng, sessions, trades, since),
                  scores=_scores(rng, sessions, since))  # fmt: skip


def _replay(rng: np.random.Generator, sessions: int, trades: int, since: date | None) -> pl.DataFrame:
    rows = []
    for i in (i for i in range(1, sessions) if i != 25):
        for k in range(trades):
            complete, learned = rng.random() > 0.1, bool(since and day(i) >= since and k % 3)
            late = 2 if rng.random() < 0.05 else 0  # carried over: its outcome is known later
            if i + late >= sessions:
                continue
            rows.append({
                "session": day(i), "symbol": f"S{rng.integers(5)}",
                "vol_regime": ("low", "medium", "high")[(i - 1) % 3],
                "model_version": "joint-a" if learned else None, "side": ("long", "short")[int(rng.integers(2))],
                "size": 0.01, "stop_atr": STOPS[int(rng.integers(2))], "target_mult": 1.5,
                "confidence": float(rng.uniform()) if learned else None,
                "status": ("taken", "skipped", "rejected")[min(k % 4, 2)], "risk_unit": float(rng.uniform(0.001, 0.01)),
                "cost": 0.001 if complete else None, "reward": float(rng.normal()) if complete else None,
                "complete": complete, "known": day(i + late),
            })  # fmt: skip
    types = {"session": pl.Date, "symbol": pl.String, "vol_regime": pl.String, "model_version": pl.String,
             "side": pl.String, "size": pl.Float64, "stop_atr": pl.Float64, "target_mult": pl.Float64,
             "confidence": pl.Float64, "status": pl.String, "risk_unit": pl.Float64, "cost": pl.Float64,
             "reward": pl.Float64, "complete": pl.Boolean, "known": pl.Date}  # fmt: skip
    return pl.DataFrame(rows, schema=types).select(*DECISIONS, "known").sort("known", maintain_order=True)


def _scores(rng: np.random.Generator, sessions: int, since: date | None) -> pl.DataFrame:
    rows = []
    for i in range(20, sessions):
        week = i + (4 - i % 5)
        crowned = bool(since and day(i) >= since)
        for version in ("joint-z", *(("joint-a",) if crowned else ())):
            rows.append({"session": day(i), "version": version, "candidate": version == "joint-z",
                         "champion": version == "joint-a", "reward": None if i % 7 == 0 else float(rng.normal(0.3)),
                         "ic": float(rng.normal(0.05, 0.1)), "known": day(week)})  # fmt: skip
    types = {"session": pl.Date, "version": pl.String, "candidate": pl.Boolean, "champion": pl.Boolean,
             "reward": pl.Float64, "ic": pl.Float64, "known": pl.Date}  # fmt: skip
    frame = pl.DataFrame(rows, schema=types).select(*SCORED, "known").filter(pl.col("known") < day(sessions))
    return frame.sort("known", maintain_order=True)
