"""Where a life got to, in numbers: what `odin bootstrap --json` prints. From tables; durations from the ledger."""

from datetime import date
from typing import Any

import numpy as np
import polars as pl

from odin_core.evaluation import metrics
from odin_core.evaluation.sequential import cluster_mean_interval
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.state import WEEKS_END
from odin_core.replay.record import STATUS

PERIODS = 252  # sessions a year, for annualised ratios


def phase_table(life: Life, through: date | None = None) -> pl.DataFrame:
    """`phase_state` of all finished sessions up to `through`, oldest first."""
    sessions = [s for s in life.commits() if s <= (through or date.max)]
    return life.read_many("phase_state", sessions)


def summarise(life: Life, through: date | None = None) -> dict[str, Any]:
    """One object: sessions, decisions, phase, retrains, champion, performance, timings."""
    states = phase_table(life, through)
    if states.is_empty():
        return {"life": life.id, "market": life.market, "sessions": 0, "champion": None, "retrains": [],
                "decisions": dict.fromkeys(STATUS, 0), "phase": {"final": 0, "transitions": []},
                "performance": None, "timings": {}}  # fmt: skip
    sessions = states["session"].to_list()
    replay = life.read_many("replay_buffer", sessions)
    counts = dict(replay["status"].value_counts().iter_rows())
    moved = states.filter(pl.col("phase") != pl.col("phase_before"))
    last = states.row(-1, named=True)
    return {
        "life": life.id,
        "market": life.market,
        "first_session": str(sessions[0]),
        "last_session": str(sessions[-1]),
        "sessions": len(sessions),
        "no_data": states.filter(pl.col("status") == "no_data").height,
        "decisions": {status: counts.get(status, 0) for status in STATUS},
        "phase": {
            "final": last["phase"],
            "transitions": [
                {"session": str(r["session"]), "from": r["phase_before"], "to": r["phase"], "reason": r["reason"]}
                for r in moved.iter_rows(named=True)
            ],
            "next": last["reason"],
            "suggestions": last["suggestions"],
        },
        "retrains": retrains(life, sessions),
        "champion": _champion(life, last, sessions),
        "performance": _performance(states, replay),
        "timings": _timings(life, sessions),
    }


def retrains(life: Life, sessions: list[date]) -> list[dict[str, Any]]:
    """Each retrain: session, what it was for, rows, seconds, outcome, reason."""
    seconds = {e["session"]: e["seconds"] for e in life.notes("session")}
    done = []
    for session in (s for s in life.sessions_with("evaluation_report") if s <= sessions[-1]):
        row = life.read("evaluation_report", session).row(0, named=True)
        done.append({"session": str(session), "why": row.get("why", WEEKS_END), "rows": row["contexts"],
                     "seconds": seconds.get(str(session)), "outcome": row["outcome"], "candidate": row["version"],
                     "reason": row["reason"]})  # fmt: skip
    return done


def _champion(life: Life, last: dict[str, Any], sessions: list[date]) -> dict[str, Any] | None:
    if last["champion"] is None:
        return None
    weekly = [s for s in life.sessions_with("candidate_scores") if s <= sessions[-1]]
    scored = life.read_many("candidate_scores", weekly)
    mine = scored.filter((pl.col("version") == last["champion"]) & pl.col("reward").is_not_null())
    mine = mine.unique("session", maintain_order=True)
    excess = (mine["reward"] - mine["random"]).to_numpy()
    interval = cluster_mean_interval(excess, np.arange(len(excess)), 0.1)
    return {
        "version": last["champion"],
        "since": str(last["champion_since"]),
        "out_of_sample": {
            "sessions": len(excess), "decisions": int(mine["decisions"].sum()),
            "reward": mine["reward"].mean(), "random": mine["random"].mean(), "rules": mine["rules"].mean(),
            "excess_over_random": _known(interval.mean), "lower_bound_95": _known(interval.lower),
            "ic": mine["ic"].mean(),
        },
    }  # fmt: skip


def _performance(states: pl.DataFrame, replay: pl.DataFrame) -> dict[str, Any]:
    """Ratios are annualised over 252 sessions; returns are fractions of capital and costs are inside."""
    mine = states["session_return"].to_numpy()
    random = np.array(states["random_returns"].to_list()).T  # (portfolios, sessions)
    hold = states["hold_return"].fill_null(0.0).to_numpy()
    sharpe = metrics.sharpe_ratio(mine, PERIODS)
    sharpe_random = float(np.mean([metrics.sharpe_ratio(r, PERIODS) for r in random]))
    sharpe_hold = metrics.sharpe_ratio(hold, PERIODS)
    difference = cluster_mean_interval(mine - random.mean(axis=0), np.arange(len(mine)), 0.1)
    doing_nothing = cluster_mean_interval(mine, np.arange(len(mine)), 0.1)
    taken = replay.filter((pl.col("status") == "taken") & pl.col("complete"))
    return {
        "sharpe": _known(sharpe),
        "max_drawdown": _known(metrics.max_drawdown(mine, compounded=False)),
        "total_return": float(mine.sum()),
        "turnover": states.select(pl.col("traded_notional").mean()).item() or 0.0,
        "trades": taken.height,
        "mean_reward": taken["reward"].mean(),
        "mean_cost": taken["cost"].mean(),
        "vs_random": {
            "sharpe": _known(sharpe_random), "sharpe_difference": _known(sharpe - sharpe_random),
            "mean_return_difference": _known(difference.mean), "lower_bound_95": _known(difference.lower),
        },
        "vs_hold": {
            "sharpe": _known(sharpe_hold), "sharpe_difference": _known(sharpe - sharpe_hold),
            "total_return": float(hold.sum()), "max_drawdown": _known(metrics.max_drawdown(hold, compounded=False)),
        },
        "vs_nothing": {"mean_return": _known(doing_nothing.mean), "lower_bound_95": _known(doing_nothing.lower)},
    }  # fmt: skip


def _timings(life: Life, sessions: list[date]) -> dict[str, float]:
    mine = {str(s) for s in sessions}
    notes = [e for e in life.notes("session") if e["session"] in mine]
    last = {e["session"]: e for e in notes}.values()
    return {
        "loop_seconds": round(sum(e["seconds"] for e in last), 3),
        "of_which_weekly_sessions": round(sum(e["seconds"] for e in last if e["trained"]), 3),
    }


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
