"""Fundamental figures as of an instant: per symbol the values that were known latest by then.

The table is long, one row per symbol, figure and time of knowledge, so a figure that changes does not change what was
seen before. Amounts of money are in the market's currency, not in lakh or crore. A null value says that the figure was
known to be unavailable, and hides the older one. Files are read in `fundamentalfiles`, rules written in `figures`."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from functools import cached_property
from typing import Final

import polars as pl

from odin_core.errors import OdinError, nearest
from odin_core.lake import Lake
from odin_core.market.bars import UTC
from odin_core.market.calendar import SessionCalendar
from odin_core.market.reference.actions import ActionBook, as_of, under_last_name
from odin_core.market.reference.figures import Rule

TABLE: Final = "fundamentals"  # a partition is the session at whose close its rows were first known

FUNDAMENTALS = pl.Schema(
    {
        "symbol": pl.String(),
        "known_at": UTC,
        "figure": pl.String(),
        "value": pl.Float64(),  # null: known to be unavailable
        "period": pl.String(),  # what the value is about, as the source says it; null where it does not
        "origin": pl.String(),  # the file that told it
        "origin_id": pl.String(),  # 16 hex digits of a hash of that file's content
    }
)
KEY: Final = ("symbol", "figure", "known_at")
PASSES, FAILS, UNKNOWN = "passes", "fails", "unknown"


class UnknownFigure(OdinError):
    def __init__(self, market: str, figure: str, known: Sequence[str]) -> None:
        way_out = (
            nearest(figure, known)
            if known
            else f"{market} has no fundamentals at all; bring them in with `odin data fundamentals FILE`"
        )
        super().__init__(f"filter.fundamentals names {figure!r}, which no row of {market} has; {way_out}")


def fundamentals_as_of(rows: pl.DataFrame, instant: datetime) -> pl.DataFrame:
    """`rows` (FUNDAMENTALS) as they were known at an instant (aware): one row per symbol, sorted, one Float64 column
    per figure, alphabetical, with the value known latest; null where it was unavailable or not known yet. Of values
    known at the same time the later period counts. A figure never expires."""
    seen = rows.filter(pl.col("known_at") <= instant).sort("symbol", "figure", "known_at", "period", "origin")
    if seen.is_empty():
        return pl.DataFrame(schema={"symbol": pl.String})
    latest = seen.group_by("symbol", "figure", maintain_order=True).agg(pl.col("value").last())
    wide = latest.pivot(on="figure", index="symbol", values="value").sort("symbol")
    return wide.select("symbol", *sorted(name for name in wide.columns if name != "symbol"))


def judged(symbols: pl.Series, figures: pl.DataFrame, rules: Sequence[Rule]) -> pl.Series:
    """For each of `symbols` whether all rules hold: "passes", "fails" (one is broken) or "unknown" (none is broken, but
    a figure is not known). figures: as of `fundamentals_as_of`; a figure without a column is known of nobody."""
    if not rules or not figures.width:
        return pl.Series([UNKNOWN if rules else PASSES] * len(symbols), dtype=pl.String)
    own = symbols.to_frame("symbol").join(figures, on="symbol", how="left", maintain_order="left")
    holds = [_holds(rule) if rule.figure in own.columns else pl.lit(None, pl.Boolean) for rule in rules]
    every = pl.all_horizontal(holds)  # Kleene: false where one is, null where none is but one is null
    verdict = pl.when(every).then(pl.lit(PASSES)).when(~every).then(pl.lit(FAILS)).otherwise(pl.lit(UNKNOWN))
    return own.select(verdict=verdict)["verdict"]


class FundamentalBook:
    """A market's stored fundamentals, read once; what was known when is asked of it."""

    def __init__(self, lake: Lake, calendar: SessionCalendar) -> None:
        self._lake, self._calendar = lake, calendar

    @cached_property
    def rows(self) -> pl.DataFrame:
        return read_fundamentals(self._lake)

    def at_close(self, session: date, actions: ActionBook) -> pl.DataFrame:
        """`fundamentals_as_of` the close of a session, each symbol under its name of then."""
        close = self._calendar.hours(session).close
        return fundamentals_as_of(self.told(close, actions), close)

    def told(self, instant: datetime, actions: ActionBook) -> pl.DataFrame:
        """All rows under the names that the symbols had at an instant (aware), of those known later too."""
        renames = as_of(actions.rows, instant).filter(pl.col("kind") == "rename")
        return under_last_name(self.rows, renames, "known_at")

    def require(self, rules: Iterable[Rule]) -> None:
        """Raise UnknownFigure for a rule about a figure that no row has, whenever it was known."""
        known = self.rows["figure"].unique().sort().to_list()
        for rule in rules:
            if rule.figure not in known:
                raise UnknownFigure(self._calendar.market, rule.figure, known)


def read_fundamentals(lake: Lake) -> pl.DataFrame:
    """All fundamentals that a market's lake holds, FUNDAMENTALS, sorted by KEY; empty where there are none."""
    sessions = lake.sessions(TABLE)
    return (lake.read_many(TABLE, sessions) if sessions else FUNDAMENTALS.to_frame()).sort(*KEY, "period", "origin")


def _holds(rule: Rule) -> pl.Expr:
    figure = pl.col(rule.figure)
    known = pl.when(figure.is_not_nan()).then(figure)
    comparisons = {
        "<=": known <= rule.bound,
        ">=": known >= rule.bound,
        "<": known < rule.bound,
        ">": known > rule.bound,
    }
    return comparisons[rule.operator]
