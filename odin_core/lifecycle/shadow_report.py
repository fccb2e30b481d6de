"""How shadows compare: every version over a range of sessions, as a table, as Markdown and as a picture.

What comes in are the life's tables `shadow_replay`; nothing is filled again. A *trade* is a choice to trade, whether or
not the limits would have left room for it. Two footings, because they answer two questions: `reward` is the mean over
trades, what a version earns when it acts, and `difference` is the mean over contexts that the champion was asked about
too, where leaving one alone earns 0, so that the one good trade of a version that hardly trades does not win. A
*series* is what one would have had with the newest version of a learner at each close. Rewards are net returns in
units of risk (60-minute ATR over close). Intervals are for one look at one version: with twenty versions one of them
will leave out 0 by chance, and the gate is what promotes."""

import math
from collections.abc import Iterable
from datetime import date
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from odin_core.errors import OdinError, in_order
from odin_core.evaluation.sequential import cluster_mean_interval
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.scoring import or_null
from odin_core.lifecycle.shadow import REPLAY_TABLE
from odin_core.pictures import png
from odin_core.policies.actions import FloatArray

PICTURE_BYTES: Final = 50_000
CHAMPION: Final = "champion"
COLOURS: Final = ("#0b6bcb", "#1a7f37", "#8250df", "#bf8700", "#cf222e", "#0a7ea4")  # of learners, in turn

COMPARED: Final = {
    "sessions": pl.Int64(),  # decided for
    "choices": pl.Int64(),  # asked for
    "trades": pl.Int64(),
    "known": pl.Int64(),  # of the trades, with an outcome
    "reward": pl.Float64(),  # mean of those; null without any
    "reward_lower": pl.Float64(),  # of the interval clustered by session; null with fewer than two sessions
    "reward_upper": pl.Float64(),
    "hit_rate": pl.Float64(),  # share of those above 0
    "capital_return": pl.Float64(),  # Σ size · net return of trades within the life's limits, fraction of capital
    "paired": pl.Int64(),  # contexts on which the champion's outcome is known too
    "difference": pl.Float64(),  # mean of its reward less the champion's; null for the champion itself
    "lower": pl.Float64(),
    "upper": pl.Float64(),
}
VERSIONS: Final = pl.Schema(  # a version that came to be champion has a row for each role
    {
        "version": pl.String(),
        "role": pl.String(),
        "policy": pl.String(),
        "trained_through": pl.Date(),
        "first": pl.Date(),
        "last": pl.Date(),
    }
    | COMPARED
)
SERIES: Final = pl.Schema({"series": pl.String()} | COMPARED)
BY_SESSION: Final = pl.Schema(
    {
        "series": pl.String(),
        "session": pl.Date(),
        "trades": pl.Int64(),
        "reward": pl.Float64(),  # mean of the session's trades with an outcome; null without any
        "cumulative": pl.Float64(),  # sum of those means so far
    }
)


class NothingShadowed(OdinError):
    def __init__(self, life: Life, first: date | None, last: date | None) -> None:
        have = life.lake.sessions(REPLAY_TABLE)
        known = f"they cover {have[0]} to {have[-1]}" if have else "it has none yet"
        asked = f"{first or 'its beginning'} to {last or 'its head'}"
        super().__init__(
            f"life {life.id} of {life.market} has no shadow choice with an outcome in {asked}: {known}. Materialise "
            f"the asset shadow_decisions of these sessions; the first has choices only, outcomes come with the next"
        )


class Comparison(NamedTuple):
    """What `compare` found."""

    versions: pl.DataFrame  # VERSIONS: the champion first, then by trained_through, newest first, then by name
    series: pl.DataFrame  # SERIES: the champion, newest of each learner, rules, uniform
    by_session: pl.DataFrame  # BY_SESSION, in the order of `series`, sessions ascending


def compare(life: Life, first: date | None = None, last: date | None = None, *, alpha: float = 0.05) -> Comparison:
    """Versions over the sessions decided for from `first` to `last` (default: all), by what was known at the close of
    `last`: choices that were open then are not counted. Intervals are two-sided, 1 − `alpha`.
    Raises NothingShadowed, EmptyRange."""
    in_order(first, last)
    begin, end = first or date.min, last or date.max
    sessions = [s for s in life.lake.sessions(REPLAY_TABLE) if begin <= s <= end]
    frames = [life.lake.read(REPLAY_TABLE, s).select(_READ).filter(pl.col("session") >= begin) for s in sessions]
    rows = pl.concat(frames) if frames else pl.DataFrame()
    if rows.is_empty():
        raise NothingShadowed(life, first, last)
    return compared(rows, alpha)


_READ = ("version", "role", "trained_through", "decision_id", "session", "policy", "size", "status", "complete",
         "net_return", "reward")  # fmt: skip


def compared(rows: pl.DataFrame, alpha: float = 0.05) -> Comparison:
    """`compare` of rows of SHADOW_REPLAY that lie at hand, in any order."""
    trades = pl.col("status") != "skipped"
    known = trades & pl.col("complete")
    rows = rows.with_columns(
        trade=trades,
        known=known,
        earned=pl.when(known).then(pl.col("reward")),
        kept=pl.when(~trades).then(0.0).when(known).then(pl.col("reward")),
    ).sort("session", "decision_id", "version")
    champion = rows.filter(role=CHAMPION).select("decision_id", champion="kept")
    rows = rows.join(champion, on="decision_id", how="left", maintain_order="left")
    versions = [_version(of, alpha) for of in rows.partition_by("version", "role", maintain_order=True)]
    names, parts = zip(*_series(rows), strict=True)
    series = [{"series": name} | _numbers(of, alpha) for name, of in zip(names, parts, strict=True)]
    return Comparison(
        _ordered(pl.DataFrame(versions, schema=VERSIONS)),
        pl.DataFrame(series, schema=SERIES),
        pl.concat(_by_session(name, of) for name, of in zip(names, parts, strict=True)),
    )


def _version(of: pl.DataFrame, alpha: float) -> dict[str, Any]:
    head = of.row(0, named=True)
    named = {name: head[name] for name in ("version", "role", "policy", "trained_through")}
    return named | {"first": of["session"].min(), "last": of["session"].max()} | _numbers(of, alpha)


def _numbers(of: pl.DataFrame, alpha: float) -> dict[str, Any]:
    """COMPARED of one version's or series' rows."""
    session = of["session"].to_physical().to_numpy()
    earned = _floats(of["earned"])
    reward = cluster_mean_interval(earned, session, alpha)
    mine = of["role"].to_numpy() == CHAMPION
    difference = np.full(len(of), np.nan) if mine.all() else _floats(of["kept"]) - _floats(of["champion"])
    against = cluster_mean_interval(difference, session, alpha)
    won = earned[np.isfinite(earned)] > 0
    taken = of.filter(pl.col("known") & (pl.col("status") == "taken"))
    return {
        "sessions": of["session"].n_unique(), "choices": of.height, "trades": int(of["trade"].sum()),
        "known": len(won), "reward": or_null(reward.mean),
        "reward_lower": _bound(reward.lower), "reward_upper": _bound(reward.upper),
        "hit_rate": float(won.mean()) if len(won) else None,
        "capital_return": float((taken["size"] * taken["net_return"]).sum()),
        "paired": int(np.isfinite(difference).sum()), "difference": or_null(against.mean),
        "lower": _bound(against.lower), "upper": _bound(against.upper),
    }  # fmt: skip


def _series(rows: pl.DataFrame) -> Iterable[tuple[str, pl.DataFrame]]:
    """Name and rows of each series, in the order in which it is shown; the champion may be the newest of its kind."""
    champion = rows.filter(role=CHAMPION)
    if champion.height:
        yield CHAMPION, champion
    learned = rows.filter(pl.col("trained_through").is_not_null())
    newest = learned.group_by("policy", "session").agg(
        pl.col("version").sort_by("trained_through", "version").last()
    )  # fmt: skip
    lineage = learned.join(newest, on=["policy", "session", "version"], how="semi", maintain_order="left")
    for policy in lineage["policy"].unique().sort():
        yield f"newest {policy}", lineage.filter(policy=policy)
    for role in ("rules", "random"):
        found = rows.filter(role=role)
        if found.height:
            yield found["policy"][0], found


def _by_session(name: str, of: pl.DataFrame) -> pl.DataFrame:
    means = of.group_by("session").agg(trades=pl.col("trade").sum().cast(pl.Int64), reward=pl.col("earned").mean())
    told = means.sort("session").with_columns(series=pl.lit(name), cumulative=pl.col("reward").fill_null(0.0).cum_sum())
    return told.select(BY_SESSION.names()).cast(BY_SESSION)


def _ordered(versions: pl.DataFrame) -> pl.DataFrame:
    is_champion = pl.col("role") == CHAMPION
    return versions.sort(is_champion, "trained_through", "version", descending=[True, True, False], nulls_last=True)


def _floats(column: pl.Series) -> FloatArray:
    """Null becomes NaN."""
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _bound(value: float) -> float | None:
    """Null where the interval is all numbers, or nothing is known."""
    return float(value) if math.isfinite(value) else None


def shadow_markdown(table: pl.DataFrame) -> str:
    """`Comparison.versions` or `.series` as a Markdown table; a difference whose interval leaves out 0 is bold."""
    lines = [
        "| version | role | sessions | trades | reward | interval | hit rate | minus champion | interval |",
        "|---|---|---:|---:|---:|:---:|---:|---:|:---:|",
    ]
    for row in table.iter_rows(named=True):
        told = row["lower"] is not None and (row["lower"] > 0 or row["upper"] < 0)
        difference = _text(row["difference"], "+.3f")
        cells = (
            row.get("version") or row["series"], row.get("role") or "series", str(row["sessions"]),
            f"{row['known']:,}", _text(row["reward"], "+.3f"),
            _span(row["reward_lower"], row["reward_upper"]), _text(row["hit_rate"], ".0%"),
            f"**{difference}**" if told else difference, _span(row["lower"], row["upper"]),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _text(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _span(lower: float | None, upper: float | None) -> str:
    return "–" if lower is None or upper is None else f"{lower:+.3f} to {upper:+.3f}"


def shadow_picture(by_session: pl.DataFrame) -> bytes:
    """PNG of at most 50 kB: each series' cumulative reward over sessions (BY_SESSION). The same rows give the same
    bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    fixed = {CHAMPION: "black", "rules": "#888888", "uniform": "#c8c8c8"}
    free = iter(COLOURS * (by_session["series"].n_unique() // len(COLOURS) + 1))
    for name in by_session["series"].unique(maintain_order=True):
        of = by_session.filter(series=name)
        width = 2.0 if name == CHAMPION else 1.2
        label = f"{name}  {of['cumulative'][-1]:+.1f}"
        axes.plot(of["session"], of["cumulative"], color=fixed.get(name) or next(free), linewidth=width, label=label)
    axes.axhline(0, color="#444444", linewidth=0.6)
    axes.set_title("mean reward of each session's trades, summed (units of risk, after costs)", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, frameon=False)
    return png(figure, PICTURE_BYTES)
