"""What is wrong with a file of bars as a whole, seen on its rows batch by batch and told before anything is stored.

A file is judged by its majority: a few bad rows are quarantined one by one (`intake.judging`), but one that is of
another market, another interval or stamped the other way would be quarantined as a whole, or stored one minute off."""

import threading
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from odin_core.errors import OdinError
from odin_core.market.bars import MICROSECOND, MINUTE, minutes_of
from odin_core.market.intake.judging import Hours, Places
from odin_core.market.intake.layout import Layout, Stamps

MAJORITY = 0.8  # share of symbol-days or of rows from which a file is refused as a whole
SPARSE = 0.05  # with a smaller share of neighbours one interval apart, bars are of another one
STEPS_SEEN = 50_000  # rows of each batch that are looked at for the length of bars
ENOUGH = 100  # rows that it takes to judge a file by its rows
HALF_A_DAY = 720  # minutes; bars that are further apart are daily ones


class WrongStamps(OdinError):
    def __init__(self, path: Path, given: Stamps, share: float) -> None:
        seen, way_out = {
            "start": (
                "ENDS (one at the close, none at the open)",
                "import it with `--stamps end`, which moves them back by one bar",
            ),
            "end": ("STARTS (one at the open, none at the close)", "import it without `--stamps end`"),
        }[given]
        super().__init__(f"{path}: on {share:.0%} of its symbol-days the stamps look like bar {seen}; {way_out}")


class WrongBarLength(OdinError):
    def __init__(self, path: Path, interval: str, minutes: int) -> None:
        other = "day" if minutes >= HALF_A_DAY else f"{minutes}m"
        super().__init__(
            f"{path}: most of its bars are {minutes} minutes apart, which are no bars of interval {interval}; "
            f"import it with `--interval {other}` if that is what they are"
        )


class WrongMarket(OdinError):
    def __init__(self, path: Path, share: float, first: datetime, last: datetime) -> None:
        super().__init__(
            f"{path}: {share:.0%} of its rows, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, lie outside the "
            f"sessions of this market; import it into the market that it was recorded in, choose the --symbols of "
            f"this one, mend the time zone of the stamps, or widen calendar_first and calendar_last in its profile"
        )


class FileCheck:
    """Sees the batches of one file (`add`), then raises what is wrong with it, if anything is (`require`)."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path, self._layout = path, layout
        self._minutes = minutes_of(layout.interval) if layout.rows == "bars" else None
        self._rows = self._outside = 0
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._days: list[pl.DataFrame] = []
        self._steps: list[pl.DataFrame] = []
        self._lock = threading.Lock()

    def add(self, bars: pl.DataFrame, hours: Hours, places: Places) -> None:
        """`bars` (SOURCE_BARS) of one batch, with the sessions around them and the place of each; from any thread."""
        outside = bars["ts"].filter(places.misplaced.is_not_null() & bars["ts"].is_not_null())
        steps = _steps(bars.head(STEPS_SEEN)) if self._layout.rows == "bars" else None
        days = self._stamped_edges(bars, hours, places) if self._minutes is not None and hours.sessions else None
        with self._lock:
            edges = [at for at in (self._first, self._last, outside.min(), outside.max()) if isinstance(at, datetime)]
            self._first, self._last = min(edges, default=None), max(edges, default=None)
            self._rows += len(bars)
            self._outside += len(outside)
            self._steps += [] if steps is None else [steps]
            self._days += [] if days is None else [days]

    def require(self) -> None:
        """Raises WrongBarLength, WrongStamps, WrongMarket."""
        self._check_length()
        self._check_stamps()
        enough = self._outside >= max(ENOUGH, MAJORITY * self._rows)
        if enough and self._first is not None and self._last is not None:
            raise WrongMarket(self._path, self._outside / self._rows, self._first, self._last)

    def _stamped_edges(self, bars: pl.DataFrame, hours: Hours, places: Places) -> pl.DataFrame:
        """Per symbol and session: is its open stamped, the minute after its open, its close? A market that never closes
        says nothing."""
        step = (self._minutes or 1) * MINUTE // MICROSECOND
        instant = bars["ts"].to_physical().fill_null(0).to_numpy() + (step if self._layout.stamps == "end" else 0)
        at = np.minimum(places.at, len(hours.sessions) - 1)
        since_open, until_close = instant - hours.opens[at], hours.closes[at] - instant
        meets = np.isin(hours.opens, hours.closes) | np.isin(hours.closes, hours.opens)
        edge = ((since_open == 0) | (since_open == step) | (until_close == 0)) & ~meets[at]
        edges = pl.DataFrame(
            {
                "symbol": bars["symbol"].filter(pl.Series(edge)),
                "open": hours.opens[at[edge]],
                "at_open": since_open[edge] == 0,
                "after_open": since_open[edge] == step,
                "at_close": until_close[edge] == 0,
            }
        )
        return _any_of_day(edges)

    def _check_stamps(self) -> None:
        """Of the symbol-days with a stamp at their open or close, those with a close and no open say "ends" (where the
        minute after the open is stamped too), those with an open and no close say "starts"."""
        if not self._days:
            return
        days = _any_of_day(pl.concat(self._days)).filter(pl.col("at_open") | pl.col("at_close"))
        ends = pl.col("at_close") & pl.col("after_open") & ~pl.col("at_open")
        starts = pl.col("at_open") & ~pl.col("at_close")
        share = days.select((ends if self._layout.stamps == "start" else starts).mean()).item()
        if share is not None and share >= MAJORITY:
            raise WrongStamps(self._path, self._layout.stamps, share)

    def _check_length(self) -> None:
        if not self._steps:
            return
        steps = pl.concat(self._steps).group_by("minutes").agg(pl.col("len").sum())
        neighbours = int(steps["len"].sum())
        minutes = pl.col("minutes")
        fits = minutes >= HALF_A_DAY if self._minutes is None else minutes == self._minutes
        if neighbours >= ENOUGH and steps.filter(fits)["len"].sum() < SPARSE * neighbours:
            most = steps.sort("len", "minutes", descending=[True, False])["minutes"][0]
            raise WrongBarLength(self._path, self._layout.interval, most)


def _steps(bars: pl.DataFrame) -> pl.DataFrame:
    """How many neighbours of one symbol are so many minutes apart: minutes, len."""
    ordered = bars.select("symbol", "ts").drop_nulls().sort("symbol", "ts")
    step = pl.col("ts").diff().dt.total_minutes()
    same = pl.col("symbol") == pl.col("symbol").shift()
    return ordered.select(step.filter(same & (step > 0)).alias("minutes")).group_by("minutes").len()


def _any_of_day(edges: pl.DataFrame) -> pl.DataFrame:
    return edges.group_by("symbol", "open").agg(pl.col("at_open", "after_open", "at_close").any())
