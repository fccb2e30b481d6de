"""Tables of a tear sheet by session: the curve, metrics beside the baselines, months, drawdowns, regimes and phases.

What comes in: `Records`. Returns are fractions of fixed capital, so curves are sums (a month is the sum of its
sessions) and drawdowns are fractions of that capital, not of a peak. Baselines are the life's own: random portfolios
with as many trades of the same sizes, buying and holding every symbol with equal weights (all of the capital, no
costs), and doing nothing. Formulas are those of `evaluation.metrics`."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import polars as pl

from odin_core.evaluation import metrics
from odin_core.evaluation.sequential import cluster_mean_interval
from odin_core.evaluation.tearsheet.records import BAND, FRICTION, FloatArray, Records

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DRAWDOWNS: Final = 5  # the deepest ones that are listed
ALPHA: Final = 0.05  # of two-sided intervals
PATHS: Final = 2_000  # of the bootstrap
SHORTEST: Final = 10  # sessions of a bootstrap
ORDER: Final = {"low": "0 low", "medium": "1 medium", "high": "2 high"}  # of regimes
SEED: Final = 0  # of the bootstrap: the same tables give the same bounds
WINDOWS: Final = ((126, 63), (30, 21), (12, 10))  # from so many sessions on, so many in a rolling window

Metric = Callable[[FloatArray, float], Any]


def over_drawdown(returns: FloatArray, periods: float) -> Any:
    """Mean a year over the size of the deepest drawdown: the Calmar ratio without compounding; NaN without."""
    depth = -np.asarray(metrics.max_drawdown(returns, compounded=False))
    mean = np.asarray(metrics.expectancy(returns)) * periods
    return np.divide(mean, depth, out=np.full(depth.shape, np.nan), where=depth > 0)


METRICS: Final[dict[str, tuple[str, Metric]]] = {  # name → unit, formula of (returns (…, sessions), periods)
    "total return": ("percent", lambda r, _: np.nansum(r, axis=-1)),
    "mean a year": ("percent", lambda r, periods: metrics.expectancy(r) * periods),
    "volatility a year": ("percent", metrics.annual_volatility),
    "Sharpe ratio": ("two_digits", metrics.sharpe_ratio),
    "Sortino ratio": ("two_digits", metrics.sortino_ratio),
    "deepest drawdown": ("percent", lambda r, _: metrics.max_drawdown(r, compounded=False)),
    "mean drawdown": ("percent", lambda r, _: metrics.average_drawdown(r, compounded=False)),
    "mean a year over deepest drawdown": ("two_digits", over_drawdown),
    "longest under water, sessions": ("whole", lambda r, _: metrics.time_under_water(r, compounded=False).longest),
    "sessions above zero": ("share", lambda r, _: metrics.hit_rate(r)),
    "value at risk, 5 %": ("fine_percent", lambda r, _: metrics.value_at_risk(r, 0.05)),
    "conditional value at risk, 5 %": ("fine_percent", lambda r, _: metrics.conditional_value_at_risk(r, 0.05)),
    "omega ratio": ("two_digits", lambda r, _: metrics.omega_ratio(r)),
    "tail ratio": ("two_digits", lambda r, _: metrics.tail_ratio(r)),
    "skewness": ("two_digits", lambda r, _: metrics.skewness(r)),
    "kurtosis, 3 for a normal": ("two_digits", lambda r, _: metrics.kurtosis(r)),
}


def curve(records: Records) -> pl.DataFrame:
    """One row per session: `return`, running sums of it and of the baselines (`total`, `random`, `random_low`,
    `random_high`, `hold`), `drawdown` (≤ 0), `rolling_sharpe` (null before its window is full), what was traded, held
    (`long`, `short`: notional over capital of all positions open at any time of the session) and paid."""
    states = records.sessions
    mine = floats(states, "session_return")
    random = np.cumsum(records.random, axis=1)
    drawn = random.shape[0] > 0
    low, high = np.quantile(random, BAND, axis=0) if drawn else (np.full(mine.size, np.nan),) * 2
    long, short = exposure(records)
    frame = states.select(
        "session", "status", "epsilon", "trades", "champion",
        regime="decided_regime", phase="decided_phase", turnover="traded_notional",
    ).with_columns(
        pl.Series("return", mine),
        total=np.cumsum(np.nan_to_num(mine)),
        drawdown=metrics.drawdown_series(np.nan_to_num(mine), compounded=False),
        random=random.mean(axis=0) if drawn else np.full(mine.size, np.nan),
        random_low=low,
        random_high=high,
        hold=np.cumsum(np.nan_to_num(floats(states, "hold_return"))),
        rolling_sharpe=rolling_sharpe(records),
        long=long,
        short=short,
    )  # fmt: skip
    whole = frame.join(_paid(records), on="session", how="left", maintain_order="left")
    return whole.with_columns(pl.col("gross", *FRICTION).fill_null(0.0)).with_columns(pl.col(pl.Float64).fill_nan(None))


def _paid(records: Records) -> pl.DataFrame:
    """By session of the exit: profit before costs, and the costs, all over capital."""
    return records.trades.group_by(session="resolved").agg(
        pl.col(FRICTION).sum() / records.capital,
        gross=(pl.col("gross_return") * pl.col("notional")).sum() / records.capital,
    )


def exposure(records: Records) -> tuple[FloatArray, FloatArray]:
    """Notional over capital, long and short, of positions that were open at any time of each session, (sessions,)."""
    days = records.sessions["session"].to_numpy()
    held = records.held
    first = np.searchsorted(days, held["entered"].to_numpy(), side="left")
    ends = held["resolved"].to_numpy()
    after = np.where(np.isnat(ends), days.size, np.searchsorted(days, ends, side="right")) if held.height else first
    sides = []
    for side in ("long", "short"):
        of = held["side"].to_numpy() == side
        change = np.zeros(days.size + 1)
        weight = held["notional"].to_numpy()[of] / records.capital
        np.add.at(change, first[of], weight)
        np.add.at(change, np.maximum(after[of], first[of]), -weight)
        sides.append(np.cumsum(change)[: days.size])
    return sides[0], sides[1]


def rolling_window(sessions: int) -> int | None:
    """Sessions of a rolling window for a life of so many; None where it is too short for one."""
    return next((window for least, window in WINDOWS if sessions >= least), None)


def rolling_sharpe(records: Records) -> FloatArray:
    """Annualised Sharpe ratio of the last `rolling_window` sessions, shape (sessions,); NaN before it is full."""
    mine, window = floats(records.sessions, "session_return"), rolling_window(records.sessions.height)
    answer = np.full(mine.size, np.nan)
    if window is not None:
        known = np.isfinite(mine)
        answer[known] = metrics.rolling_sharpe(mine[known], records.periods, window)
    return answer


def performance(records: Records) -> pl.DataFrame:
    """A row per metric: `odin`, the random portfolios' mean and band, the share of them that are below ODIN, `hold`."""
    mine, hold = floats(records.sessions, "session_return"), floats(records.sessions, "hold_return")
    rows = []
    for name, (unit, formula) in METRICS.items() if mine.size else ():
        value, of_hold = float(formula(mine, records.periods)), float(formula(hold, records.periods))
        random = np.asarray(formula(records.random, records.periods)) if len(records.random) else np.empty(0)
        known = random[np.isfinite(random)]
        low, high = np.quantile(known, BAND) if known.size else (np.nan, np.nan)
        below = float(np.mean(known < value)) if known.size and np.isfinite(value) else np.nan
        mean = float(known.mean()) if known.size else np.nan
        rows.append((name, unit, value, mean, float(low), float(high), below, of_hold))
    names = ["odin", "random", "random_low", "random_high", "below", "hold"]
    schema = {"metric": pl.String(), "unit": pl.String()} | dict.fromkeys(names, pl.Float64())
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col(pl.Float64).fill_nan(None))


def against(records: Records) -> pl.DataFrame:
    """ODIN less each baseline, the session being the unit: `difference` of the mean returns with Student's 95 %
    interval, and of the Sharpe ratios with that of `sharpe_difference`. Bounds that sessions cannot give are null."""
    mine, hold = floats(records.sessions, "session_return"), floats(records.sessions, "hold_return")
    baselines = {
        "random portfolios": records.random,
        "buy and hold": hold[None],
        "doing nothing": np.zeros((1, mine.size)),
    }
    rows = []
    for name, theirs in baselines.items() if mine.size else ():
        gain = mine - theirs.mean(axis=0) if len(theirs) else np.full(mine.size, np.nan)
        found = cluster_mean_interval(gain, np.arange(mine.size), ALPHA)
        numbers = (found.mean, found.lower, found.upper, *sharpe_difference(mine, theirs, records.periods))
        rows.append((name, found.clusters, *(v if np.isfinite(v) else None for v in numbers)))
    names = ["difference", "lower", "upper", "sharpe_difference", "sharpe_lower", "sharpe_upper"]
    schema = {"baseline": pl.String(), "sessions": pl.Int64()} | dict.fromkeys(names, pl.Float64())
    return pl.DataFrame(rows, schema=schema, orient="row")


def sharpe_difference(mine: FloatArray, theirs: FloatArray, periods: float) -> tuple[float, float, float]:
    """Annualised Sharpe ratio of `mine` (sessions,) less the mean of those of `theirs` (series, sessions), and its
    two-sided 1 − ALPHA interval by the stationary block bootstrap: every path draws the same sessions of all series;
    bounds are 2·difference − quantile. A constant series (doing nothing) has Sharpe ratio 0 here. Bounds are NaN below
    SHORTEST sessions. Measured of 300 pairs each with a common factor: 94 % hold at 60 and at 120 sessions, against one
    baseline and against 20; 90 % with autocorrelation 0.3 at 120.
    Source: Politis & Romano 1994; Davison & Hinkley 1997, equation 5.6."""
    from odin_core.evaluation.blocks import optimal_block_length, stationary_indices

    known = np.isfinite(mine) & np.isfinite(theirs).all(axis=0)
    ours, others = mine[known], theirs[:, known]
    if ours.size < 2 or not len(others):
        return metrics.NAN, metrics.NAN, metrics.NAN

    def difference(chosen: Any) -> Any:
        mean = np.mean([np.nan_to_num(metrics.sharpe_ratio(series[chosen], periods)) for series in others], axis=0)
        return metrics.sharpe_ratio(ours[chosen], periods) - mean

    found = float(difference(np.arange(ours.size)))
    if ours.size < SHORTEST or not np.isfinite(found):
        return found, metrics.NAN, metrics.NAN
    mean = others.mean(axis=0)
    block = max(map(optimal_block_length, (ours, mean, ours - mean)))
    drawn = difference(stationary_indices(ours.size, PATHS, block=block, rng=np.random.default_rng(SEED)))
    low, high = np.nanquantile(drawn, (ALPHA / 2, 1 - ALPHA / 2))
    return found, 2 * found - float(high), 2 * found - float(low)


def random_mean(records: Records) -> FloatArray:
    """The random portfolios' mean return of each session, (sessions,); NaN where none was drawn."""
    random = records.random
    return random.mean(axis=0) if random.shape[0] else np.full(records.sessions.height, np.nan)


def months(records: Records) -> pl.DataFrame:
    """Sum of returns by year and month (null where there was no session), and the year's of ODIN, random and hold."""
    days = records.sessions.select(
        "session_return", "hold_return", year=pl.col("session").dt.year(), month=pl.col("session").dt.month()
    ).with_columns(random=pl.Series(random_mean(records), nan_to_null=True))
    cells = {name: pl.col("session_return").filter(pl.col("month") == n + 1).sum() for n, name in enumerate(MONTHS)}
    there = {name: (pl.col("month") == n + 1).any() for n, name in enumerate(MONTHS)}
    return (
        days.group_by("year")
        .agg(
            **{name: pl.when(there[name]).then(cells[name]) for name in MONTHS},
            total=pl.col("session_return").sum(), random=pl.col("random").sum(), hold=pl.col("hold_return").sum(),
        )
        .sort("year")
    )  # fmt: skip


def drawdowns(records: Records) -> pl.DataFrame:
    """The deepest spells below an earlier peak: `peak` is the last session before it (null: the beginning), `trough`
    its deepest session, `recovered` the first session at or above the peak (null: not yet), and its sessions."""
    states = records.sessions
    mine = np.nan_to_num(floats(states, "session_return"))
    depth = metrics.drawdown_series(mine, compounded=False)
    days = [*states["session"].to_list(), None]
    edges = np.flatnonzero(np.diff(np.concatenate(([False], depth < 0, [False])).astype(np.int8)))
    spells = [
        (days[begin - 1] if begin else None, days[begin + int(depth[begin:end].argmin())], days[end],
         float(depth[begin:end].min()), int(end - begin))
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    ]  # fmt: skip
    schema = {
        "peak": pl.Date(),
        "trough": pl.Date(),
        "recovered": pl.Date(),
        "depth": pl.Float64(),
        "sessions": pl.Int64(),
    }
    return pl.DataFrame(spells, schema=schema, orient="row").sort("depth", maintain_order=True).head(DRAWDOWNS)


def by_group(records: Records, column: str) -> pl.DataFrame:
    """Sessions by `decided_regime` or `decided_phase`: their returns, ODIN's and the random mean's, and trades."""
    states = records.sessions
    frame = states.select("session_return", "hold_return", "trades", group=pl.col(column).cast(pl.String)).with_columns(
        random=pl.Series(random_mean(records), nan_to_null=True)
    )
    rows = []
    for (group,), part in frame.sort(pl.col("group").replace(ORDER), nulls_last=True, maintain_order=True).group_by(
        "group", maintain_order=True
    ):
        mine = floats(part, "session_return")
        rows.append(
            {
                "group": group if group is not None else "not known", "sessions": part.height,
                "trades": int(part["trades"].sum()), "total": float(np.nansum(mine)),
                "mean": metrics.expectancy(mine), "sharpe": metrics.sharpe_ratio(mine, records.periods),
                "drawdown": metrics.max_drawdown(mine, compounded=False), "hit_rate": metrics.hit_rate(mine),
                "random": float(part["random"].sum()), "hold": float(part["hold_return"].sum()),
            }
        )  # fmt: skip
    types = {"group": pl.String(), "sessions": pl.Int64(), "trades": pl.Int64()}
    names = ("total", "mean", "sharpe", "drawdown", "hit_rate", "random", "hold")
    schema = types | dict.fromkeys(names, pl.Float64())
    return pl.DataFrame(rows, schema=schema).with_columns(pl.col(pl.Float64).fill_nan(None))


def floats(frame: pl.DataFrame, column: str) -> FloatArray:
    """A column as float64 (n,), null as NaN."""
    return frame[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()
