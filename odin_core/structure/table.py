"""The structure of a market by session: regimes, change points and levels of each symbol, as known at the close.

Two tables: `structure`, one row per symbol, and `levels`, one row per level of support or resistance. Both are computed
on a miss and stored. Prices are on the scale of the session's close."""

import sys
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from odin_core.market.bars import UTC
from odin_core.market.derived import derived, mark_of_bars, version_of
from odin_core.structure import changepoint, density, heatmap, hidden_markov, levels, observations, pivots, regimes

if TYPE_CHECKING:
    from odin_core.market.data import MarketData

LEVEL_INTERVAL: Final = "15m"
LEVEL_SESSIONS: Final = 30
"""Sessions whose 15-minute bars levels are looked for in; of those the last `density.LOOK_BACK` bars count."""
HISTORY: Final = observations.SESSIONS_NEEDED + 5  # of which a symbol may miss five
MODULES: Final = (changepoint, density, heatmap, hidden_markov, levels, observations, pivots, regimes)

NEAREST: Final = {
    f"{kind}_{what}": pl.Float64() for kind in ("support", "resistance") for what in ("price", "distance", "strength")
}
STRUCTURE: Final = pl.Schema(
    {
        "symbol": pl.String(),
        "session": pl.Date(),
        "decided_at": UTC,
        **{n: t for n, t in regimes.REGIMES.items() if n not in ("symbol", "session")},
        **{n: t for n, t in changepoint.CHANGE_POINTS.items() if n not in ("symbol", "session")},
        "close": pl.Float64(),
        "width": pl.Float64(),  # mean true range of the 15-minute bars that levels are looked for in; null where none
        "levels": pl.Int64(),
        **NEAREST,  # the nearest level below and above: its price, distance from the close in widths, strength
        "heatmap": pl.List(pl.Float32()),  # `structure.heatmap`, bins from below the close to above; null as `width`
    }
)


class Structure(NamedTuple):
    """What is known of a market's structure at a session's close."""

    rows: pl.DataFrame  # STRUCTURE, sorted by symbol
    levels: pl.DataFrame  # levels.LEVELS with session, sorted by symbol and price


def structure_at(data: "MarketData", session: date) -> Structure:
    """The structure of every symbol that has a bar in `session`, from the lake if its inputs are unchanged, else
    computed and stored. Raises NotASession and PartitionUnreadable."""
    lake, version = data.lake, structure_version()
    history = _history(data, data.calendar.require(session))
    data.generate(history)
    mark = mark_of_bars(data, history)
    made: list[Structure] = []

    def make() -> Structure:
        if not made:
            made.append(compute_structure(data, session))
        return made[0]

    return Structure(
        derived(lake, f"structure_{version}", session, mark, lambda: make().rows),
        derived(lake, f"levels_{version}", session, mark, lambda: make().levels),
    )


def compute_structure(data: "MarketData", session: date) -> Structure:
    """`structure_at` without the lake's tables; bars are read and, in a synthetic market, generated."""
    close, history = data.calendar.hours(session).close, _history(data, session)

    def looked_at(interval: str, sessions: list[date]) -> pl.DataFrame:
        bars = pl.concat([data.bars_of(s, interval).with_columns(session=pl.lit(s)) for s in sessions])
        names = bars.filter(session=session)["symbol"].unique().implode()
        return data.actions.adjusted(bars, close).filter(pl.col("symbol").is_in(names))

    days, quarters = looked_at("day", history), looked_at(LEVEL_INTERVAL, history[-LEVEL_SESSIONS:])
    if days.is_empty():
        return Structure(STRUCTURE.to_frame(), _with_session(levels.LEVELS.to_frame(), session))
    seen = observations.session_observations(days)
    rows = days.filter(session=session).select("symbol", "session", "close", decided_at=pl.lit(close, UTC))
    found = levels.levels(quarters, as_of=close)
    around = heatmap.heatmap(quarters, as_of=close)
    heat = pl.DataFrame(
        {"symbol": around.symbols, "width": around.width, "heatmap": list(around.share)},
        schema={"symbol": pl.String, "width": pl.Float64, "heatmap": pl.List(pl.Float32)},
    ).filter(pl.col("width").is_not_nan())
    for table in (
        regimes.regimes(seen, first=session).drop("session"),
        changepoint.change_points(seen, first=session).drop("session"),
        heat,
        found.group_by("symbol").agg(levels=pl.len().cast(pl.Int64)),
    ):
        rows = rows.join(table, on="symbol", how="left")
    rows = _with_nearest(rows.with_columns(pl.col("levels").fill_null(0)), found)
    return Structure(rows.select(*STRUCTURE).cast(STRUCTURE).sort("symbol"), _with_session(found, session))


def _with_nearest(rows: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """With the columns NEAREST: the highest level at or below the close, and the lowest above it."""
    ordered = found.sort("symbol", "price")
    for kind, end in (("support", "last"), ("resistance", "first")):
        of_kind = ordered.filter(kind=kind).group_by("symbol", maintain_order=True)
        nearest = of_kind.last() if end == "last" else of_kind.first()
        named = nearest.select("symbol", pl.col("price", "strength").name.prefix(f"{kind}_"))
        distance = (pl.col(f"{kind}_price") - pl.col("close")).abs() / pl.col("width")
        rows = rows.join(named, on="symbol", how="left").with_columns(distance.alias(f"{kind}_distance"))
    return rows


def _with_session(found: pl.DataFrame, session: date) -> pl.DataFrame:
    return found.select(pl.lit(session).alias("session"), pl.all())


def _history(data: "MarketData", session: date) -> list[date]:
    """The sessions that a session's structure follows from, itself included."""
    earliest = min(max(data.profile.first_partition, data.calendar.first), session)
    return data.calendar.sessions(earliest, session)[-HISTORY:]


@lru_cache(maxsize=1)
def structure_version() -> str:
    """Twelve hex digits that change with the text of any definition. Rows of different versions are not comparable."""
    return version_of(sys.modules[__name__], *MODULES)
