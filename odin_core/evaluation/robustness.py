"""Robustness: the worst windows that a market really had, what a return series did in them, and findings with numbers.

What comes in are minute bars (BARS, `market.bars`) or frames with one row per session. Nothing here knows of lives or
models; synthetic shocks are in `shocks`, what a learner hangs on in `sensitivity`, and `lifecycle.examination` brings
all of it to a stored model. Returns are simple and fractions, sessions ascend, unknown is null in and out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.evaluation.metrics import max_drawdown
from odin_core.evaluation.sequential import cluster_mean_interval

FloatArray = NDArray[np.float64]

FACTS = pl.Schema(
    {
        "session": pl.Date(),
        "market_return": pl.Float64(),  # equal weights, last price to last price
        "volatility": pl.Float64(),  # median over symbols of the session's realised volatility, fraction
        "spread": pl.Float64(),  # median over symbols of the estimated spread, fraction of the price
    }
)
WINDOWS = pl.Schema(
    {
        "kind": pl.String(),  # of KINDS
        "rank": pl.Int64(),  # 1 is the worst of its kind
        "first": pl.Date(),
        "last": pl.Date(),
        "sessions": pl.Int64(),
        "value": pl.Float64(),  # what makes it the worst: compound return, mean volatility, drawdown or mean spread
    }
)
KINDS: Final = ("return", "volatility", "drawdown", "spread")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One answer: the number, what it had to be (`value` ≥ `needed` passes), and what it means in words.

    A number that cannot be told (NaN) does not pass: no evidence is no proof of robustness."""

    name: str
    value: float
    needed: float
    explanation: str

    @property
    def passed(self) -> bool:
        return bool(self.value >= self.needed)


def findings_table(findings: Sequence[Finding]) -> pl.DataFrame:
    """One row per finding: name, value, needed, passed, explanation."""
    schema = {"name": pl.String, "value": pl.Float64, "needed": pl.Float64, "passed": pl.Boolean,
              "explanation": pl.String}  # fmt: skip
    rows = [{name: getattr(f, name) for name in schema} for f in findings]
    return pl.DataFrame(rows, schema=schema).with_columns(pl.col("value").fill_nan(None))


def session_facts(session: date, bars: pl.DataFrame, closes_before: pl.DataFrame) -> dict[str, Any]:
    """One row of FACTS from a session's minute bars. `closes_before` (symbol, close): where each symbol stood before,
    on today's scale; a symbol that is not there does not count for the return. Null where nothing is known."""
    if bars.is_empty():
        return dict.fromkeys(FACTS.names()) | {"session": session}
    ordered = bars.sort("symbol", "ts")
    step = (pl.col("close") / pl.col("close").shift(1).over("symbol")).log()
    by_symbol = (
        ordered.with_columns(squared=step**2, spread=_bar_spread())
        .group_by("symbol", maintain_order=True)
        .agg(now=pl.col("close").last(), volatility=pl.col("squared").sum().sqrt(), spread=pl.col("spread").mean())
    )
    both = by_symbol.join(closes_before.select("symbol", before="close"), on="symbol")
    return {
        "session": session,
        "market_return": both.select((pl.col("now") / pl.col("before") - 1).mean()).item(),
        "volatility": by_symbol["volatility"].median(),
        "spread": by_symbol["spread"].median(),
    }


def _bar_spread() -> pl.Expr:
    """The spread that a bar and the one before it imply, fraction of the price, 0 where the estimate is negative.

    S = 2(e^α − 1)/(1 + e^α), α = (√(2β) − √β)/(3 − 2√2) − √(γ/(3 − 2√2)), with β the sum of both squared log ranges and
    γ the squared log range of both bars together. Source: Corwin & Schultz 2012, equations 14 and 18, on minutes
    instead of days. A measure for ranking sessions; with prices that never bounce it tells noise, not a spread."""
    high, low = pl.col("high"), pl.col("low")
    earlier_high, earlier_low = high.shift(1).over("symbol"), low.shift(1).over("symbol")
    beta = (high / low).log() ** 2 + (earlier_high / earlier_low).log() ** 2
    gamma = (pl.max_horizontal(high, earlier_high) / pl.min_horizontal(low, earlier_low)).log() ** 2
    root = 3 - 2 * np.sqrt(2)
    alpha = ((2 * beta).sqrt() - beta.sqrt()) / root - (gamma / root).sqrt()
    spread = 2 * (alpha.exp() - 1) / (1 + alpha.exp())
    return pl.when(earlier_high.is_not_null()).then(spread.clip(lower_bound=0.0))


def stress_windows(facts: pl.DataFrame, *, length: int = 5, count: int = 2) -> pl.DataFrame:
    """The worst windows of a market, WINDOWS, by kind and rank; those of one kind do not overlap.

    `facts` is FACTS. Windows of `length` sessions with the lowest compound return, the highest mean volatility and the
    highest mean spread; of `drawdown`, from the session after a peak to the lowest point below it, however long. Fewer
    than `count` where there are not as many; a window with an unknown value does not count, and neither does one in
    which the market gained (return) or nothing was lost (drawdown); for a drawdown an unknown return is none."""
    if length < 1 or count < 1:
        raise ValueError(f"length={length}, count={count}: at least one session and one window")
    facts = facts.sort("session")
    sessions = facts["session"].to_list()
    found: list[tuple[str, int, int, int, float]] = []
    for kind, name in (("return", "market_return"), ("volatility", "volatility"), ("spread", "spread")):
        values = facts[name].to_numpy().astype(float)
        found += [(kind, *window) for window in _worst(kind, values, length, count)]
    market = np.nan_to_num(facts["market_return"].to_numpy().astype(float))
    found += [("drawdown", *window) for window in _drawdowns(market, count)]
    order = {kind: place for place, kind in enumerate(KINDS)}
    rows = [
        {"kind": kind, "rank": rank, "first": sessions[first], "last": sessions[last], "sessions": last - first + 1,
         "value": value}
        for kind, rank, first, last, value in sorted(found, key=lambda window: (order[window[0]], window[1]))
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=WINDOWS)


def _worst(kind: str, values: FloatArray, length: int, count: int) -> list[tuple[int, int, int, float]]:
    """(rank, first, last, value) of the worst windows, none overlapping a worse one."""
    if len(values) < length:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(values, length)
    score = np.prod(1 + windows, axis=1) - 1 if kind == "return" else windows.mean(axis=1)
    badness = np.where(np.isfinite(score), -score if kind == "return" else score, -np.inf)
    taken: list[int] = []
    for start in np.argsort(-badness, kind="stable"):
        loses = kind != "return" or badness[start] > 0
        if np.isfinite(badness[start]) and loses and all(abs(int(start) - t) >= length for t in taken):
            taken.append(int(start))
        if len(taken) == count:
            break
    return [(rank, s, s + length - 1, float(score[s])) for rank, s in enumerate(taken, 1)]


def _drawdowns(returns: FloatArray, count: int) -> list[tuple[int, int, int, float]]:
    """(rank, first, last, depth) of the deepest falls from a peak to the lowest point before it is seen again."""
    wealth = np.concatenate([[1.0], np.cumprod(1 + returns)])
    below = wealth / np.maximum.accumulate(wealth) - 1
    falls = []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], below < 0, [False]]).astype(int)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        lowest = start + int(np.argmin(below[start:stop]))
        falls.append((int(start) - 1, lowest - 1, float(below[lowest])))  # wealth has one row more than returns
    falls.sort(key=lambda fall: fall[2])
    return [(rank, first, last, depth) for rank, (first, last, depth) in enumerate(falls[:count], 1)]


def returns_in(windows: pl.DataFrame, series: pl.DataFrame) -> pl.DataFrame:
    """`windows` with what a series did in them: known (sessions with a value), total, mean and worst session, drawdown
    (deepest, not compounded, ≤ 0), baseline (mean over the same sessions) and excess (mean − baseline).

    `series` has session, value and baseline, one row per session, in any additive unit; null in a window without any
    known session."""
    rows = []
    for window in windows.iter_rows(named=True):
        inside = series.filter(pl.col("session").is_between(window["first"], window["last"])).sort("session")
        known = inside.drop_nulls("value")
        value = known["value"].to_numpy()
        paired = known.drop_nulls("baseline")
        did = {"total": value.sum(), "mean": value.mean(), "worst": value.min()} if known.height else {}
        did["drawdown"] = max_drawdown(value, compounded=False) if known.height else None
        did["baseline"] = paired["baseline"].mean()
        did["excess"] = (paired["value"] - paired["baseline"]).mean()
        rows.append({**window, "known": known.height, **did})
    numbers = ("total", "mean", "worst", "drawdown", "baseline", "excess")
    return pl.DataFrame(rows, schema={**WINDOWS, "known": pl.Int64, **dict.fromkeys(numbers, pl.Float64)})


class Excess(NamedTuple):
    """Mean of candidate − random over sessions, and its two-sided interval at one look."""

    mean: float
    lower: float
    upper: float
    sessions: int


def excess_over(candidate: FloatArray, random: FloatArray, alpha: float = 0.05) -> Excess:
    """Both (sessions,), NaN where a side did nothing; a session is one observation."""
    difference = candidate - random
    found = cluster_mean_interval(difference, np.arange(len(difference)), alpha)
    return Excess(*found)


def kept(value: float, base: float) -> float:
    """The share of a result above zero that is left, value / base; NaN where there was none to lose."""
    return value / base if base > 0 else float("nan")
