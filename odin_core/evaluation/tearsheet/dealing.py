"""Tables of a tear sheet by trade and by decision: who traded what, what it cost, how sure it was, and what it learned.

What comes in: `Records`, whose trades are decisions that were taken, filled and closed in the range. `basis points` are
of a trade's notional, `share of capital` is of the life's fixed capital; rewards are in units of risk (the net return
over the 60-minute ATR at the decision)."""

import numpy as np
import polars as pl

from odin_core.evaluation import metrics
from odin_core.evaluation.sequential import cluster_mean_interval
from odin_core.evaluation.tearsheet.records import FRICTION, FloatArray, Records
from odin_core.evaluation.tearsheet.returns import ALPHA, floats
from odin_core.replay.record import STATUS


def summary_of_trades(records: Records) -> dict[str, float | int | None]:
    """Numbers of all trades together; what they cannot answer is None."""
    trades = records.trades
    net, gross = floats(trades, "net_return"), floats(trades, "gross_return")
    notional, paid = float(trades["notional"].sum()), float((trades["cost"] * trades["notional"]).sum())
    taken = records.decisions.filter(pl.col("status") == "taken")
    numbers = {
        "trades": trades.height,
        "unfilled": taken.height - trades.height,
        "open": records.held.filter(pl.col("resolved").is_null()).height,
        "won": metrics.hit_rate(net),
        "profit_factor": metrics.profit_factor(floats(trades, "profit")),
        "net_of_notional": float(trades["profit"].sum()) / notional if notional > 0 else metrics.NAN,
        "cost_of_notional": paid / notional if notional > 0 else metrics.NAN,
        "mean_net": metrics.expectancy(net),
        "mean_gross": metrics.expectancy(gross),
        "mean_cost": metrics.expectancy(floats(trades, "cost")),
        "mean_won": metrics.expectancy(net[net > 0]),
        "mean_lost": metrics.expectancy(net[net < 0]),
        "payoff": metrics.payoff_ratio(net),
        "mean_reward": metrics.expectancy(floats(trades, "reward")),
        "median_minutes": float(np.median(floats(trades, "minutes"))) if trades.height else metrics.NAN,
        "over_night": int((trades["resolved"] > trades["entered"]).sum()),
        "best": float(net.max()) if net.size else metrics.NAN,
        "worst": float(net.min()) if net.size else metrics.NAN,
        "profit": float(trades["profit"].sum()),
    }
    return {name: value if np.isfinite(value) else None for name, value in numbers.items()}


def by(records: Records, column: str) -> pl.DataFrame:
    """Trades by a column of TRADES, the most profitable first: number, share won, profit over capital, mean returns as
    fractions of the notional, mean reward with its 95 % interval over sessions, median holding time in minutes."""
    rows = []
    for (group,), part in records.trades.group_by(column, maintain_order=True):
        found = cluster_mean_interval(floats(part, "reward"), part["resolved"].to_numpy(), ALPHA)
        rows.append(
            {
                "group": _label(group), "trades": part.height,
                "won": metrics.hit_rate(floats(part, "net_return")),
                "profit": float(part["profit"].sum()) / records.capital,
                "gross_return": part["gross_return"].mean(), "cost": part["cost"].mean(),
                "net_return": part["net_return"].mean(), "reward": found.mean,
                "lower": _finite(found.lower), "upper": _finite(found.upper), "minutes": part["minutes"].median(),
            }
        )  # fmt: skip
    names = ("won", "profit", "gross_return", "cost", "net_return", "reward", "lower", "upper", "minutes")
    schema = {"group": pl.String(), "trades": pl.Int64()} | dict.fromkeys(names, pl.Float64())
    return pl.DataFrame(rows, schema=schema).sort(["profit", "group"], descending=[True, False])


def costs(records: Records) -> pl.DataFrame:
    """What trading cost, each part apart: currency, share of capital, fraction of the traded notional (both legs) and
    of the gross profit (null where there is none), and the mean of a trade as a fraction of its notional."""
    trades = records.trades
    notional = float(trades["notional"].sum())
    gross = float((trades["gross_return"] * trades["notional"]).sum())
    amounts = {name: float(trades[name].sum()) for name in FRICTION}
    amounts |= {"all costs": sum(amounts.values()), "gross profit": gross, "net profit": float(trades["profit"].sum())}
    if (dividends := float(trades["dividends"].sum())) != 0:
        amounts["of which dividends, in the gross profit"] = dividends
    rows = [
        {
            "part": name, "amount": amount, "of_capital": amount / records.capital,
            "of_notional": amount / notional if notional > 0 else None,
            "of_gross": amount / gross if gross > 0 else None,
        }
        for name, amount in amounts.items()
    ]  # fmt: skip
    names = ("amount", "of_capital", "of_notional", "of_gross")
    return pl.DataFrame(rows, schema={"part": pl.String()} | dict.fromkeys(names, pl.Float64()))


def distribution(records: Records) -> pl.DataFrame:
    """Quantiles over trades of the net return (fraction of the notional), the reward and the holding time (minutes)."""
    levels = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    rows = []
    for name in ("net_return", "gross_return", "cost", "reward", "minutes", "notional"):
        values = floats(records.trades, name)
        found = np.quantile(values, levels).tolist() if values.size else [None] * len(levels)
        rows.append((name, *found))
    names = ["what", *(f"q{round(level * 100)}" for level in levels)]
    return pl.DataFrame(
        rows, schema=dict(zip(names, [pl.String, *[pl.Float64] * len(levels)], strict=True)), orient="row"
    )


def decided(records: Records) -> pl.DataFrame:
    """Decisions by status and reason of a refusal: how many, and what they earned or would have earned."""
    return (
        records.decisions.group_by("status", "reject_reason")
        .agg(
            decisions=pl.len(), outcomes=pl.col("complete").sum(),
            reward=pl.col("reward").mean(),
            net_return=pl.col("net_return").mean(),
        )
        .sort(pl.col("status").replace_strict(STATUS, range(len(STATUS))), "reject_reason", nulls_last=True)
    )  # fmt: skip


def calibration(records: Records, bins: int) -> pl.DataFrame:
    """Stated confidence against the share of decisions that ended above their costs, taken or not, in bins of equally
    many rows: `evaluation.calibration.TABLE`, with 95 % intervals over sessions."""
    from odin_core.evaluation.calibration import reliability_table

    confidence, won, session = _forecasts(records)
    return reliability_table(confidence, won, bins, by="count", session=session, alpha=ALPHA)


def calibration_scores(records: Records) -> dict[str, float | int]:
    """Rows, Brier score and expected calibration error (ten bins) of the stated confidences; NaN without any."""
    from odin_core.evaluation.calibration import brier_score, expected_calibration_error

    confidence, won, _ = _forecasts(records)
    return {
        "rows": int(confidence.size),
        "brier": brier_score(confidence, won),
        "error": expected_calibration_error(confidence, won, by="count"),
    }


def _forecasts(records: Records) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Confidence, outcome (1 where the net return was above zero) and session of decisions that a model made."""
    told = records.decisions.filter(pl.col("confidence").is_not_null() & pl.col("complete"))
    won = (floats(told, "net_return") > 0).astype(np.float64)
    return floats(told, "confidence"), won, told["session"].to_numpy()


def retrains(records: Records) -> pl.DataFrame:
    """One row per evaluation in the range: session, candidate, rows learned from, outcome and its reason."""
    names = ("session", "version", "contexts", "outcome", "reason")
    return (
        records.reports.filter(records.within("session")).unique("session", keep="first").sort("session").select(names)
    )


def phases(records: Records) -> pl.DataFrame:
    """Changes of phase in the range: session, from, to, reason."""
    moved = records.sessions.filter(pl.col("phase") != pl.col("phase_before"))
    return moved.select("session", pl.col("phase_before").alias("from"), pl.col("phase").alias("to"), "reason")


def evidence(records: Records) -> pl.DataFrame:
    """Mean reward of a session's decisions against random actions and the rules on the same contexts, of the champions
    in force and of the newest candidates, on sessions after their training: the unit of evidence is the session."""
    scores = records.scores.filter(records.within("session"))
    rows = []
    for who, flag in (("champion in force", "champion"), ("newest candidate", "candidate")):
        part = scores.filter(pl.col(flag)).unique(["session", "version"], maintain_order=True)
        for baseline in ("random", "rules"):
            excess = floats(part, "reward") - floats(part, baseline)
            found = cluster_mean_interval(excess, part["session"].to_numpy(), ALPHA)
            rows.append(
                {
                    "who": who, "baseline": baseline, "sessions": found.clusters,
                    "decisions": int(part["decisions"].sum()), "reward": part["reward"].mean(),
                    "theirs": part[baseline].mean(), "excess": _finite(found.mean),
                    "lower": _finite(found.lower), "upper": _finite(found.upper), "ic": part["ic"].mean(),
                }
            )  # fmt: skip
    names = ("reward", "theirs", "excess", "lower", "upper", "ic")
    schema = {"who": pl.String(), "baseline": pl.String(), "sessions": pl.Int64(), "decisions": pl.Int64()}
    return pl.DataFrame(rows, schema=schema | dict.fromkeys(names, pl.Float64()))


def _label(group: object) -> str:
    if isinstance(group, float):
        return f"{group * 100:.2g} %"
    return "not known" if group is None else str(group)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
