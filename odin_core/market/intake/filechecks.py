"""What is wrong with a file of bars as a whole, seen on its rows batch by batch and told before anything is stored.

A file is judged by its majority: a few bad rows are quarantined one by one (`intake.judging`), but one that is of
another market, time zone or interval, written another way or stamped the other way would be quarantined as a whole, or
what is left of it stored at the wrong time."""

import threading
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.errors import OdinError
from odin_core.market.bars import MICROSECOND, MINUTE, minutes_of
from odin_core.market.intake.barfiles import FileRows
from odin_core.market.intake.judging import Hours, Places
from odin_core.market.intake.layout import Layout, Stamps
from odin_core.market.quality.assessing import RULES, broken_rule

MAJORITY = 0.8  # share of symbol-days or of rows from which a file is refused as a whole
SPARSE = 0.05  # with a smaller share of neighbours one interval apart, bars are of another one
STEPS_SEEN = 50_000  # rows of each batch that are looked at for the length of bars
ENOUGH = 100  # rows that it takes to judge a file by its rows
HALF_A_DAY = 720  # minutes; bars that are further apart are daily ones
UNREAD = 0.2  # share of rows with a stamp or price that stands there and cannot be read, from which a format is wrong
HALF = 0.5  # share of rows on symbol-days that begin and end too early, or too late, from which a zone is wrong
NOTABLE = 0.02  # share of rows outside the sessions from which a batch is looked at for its zone
A_QUARTER = 15  # minutes; no two time zones are nearer
DAY = 86_400_000_000  # microseconds
FEW = 10  # rows that are no reason to refuse a file
SHOWN = 20  # symbols that a message names
DAYS = 3  # sessions that cannot all be the same day of a month


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
        apart = f"{minutes} minute{'' if minutes == 1 else 's'}"
        super().__init__(
            f"{path}: most of its bars are {apart} apart, which are no bars of interval {interval}; "
            f"import it with `--interval {other}` if that is what they are"
        )


class WrongMarket(OdinError):
    def __init__(self, path: Path, share: float, first: datetime, last: datetime) -> None:
        super().__init__(
            f"{path}: {share:.0%} of its rows, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, lie outside the "
            f"sessions of this market; import it into the market that it was recorded in, choose the --symbols of "
            f"this one, mend the time zone of the stamps, or widen calendar_first and calendar_last in its profile"
        )


class WrongZone(OdinError):
    def __init__(self, path: Path, share: float, shifts: pl.DataFrame) -> None:
        begin, end = (_apart(int(np.median(shifts[name].to_numpy()))) for name in ("begin", "end"))
        super().__init__(
            f"{path}: {share:.0%} of its rows are of days that do not fit the sessions of this market: typically the "
            f"first bar is {begin} the open and the last {end} the close. Mend the time zone of the stamps "
            f"(--timezone), or, if they are right, leave out the rows outside the sessions"
        )


class DailyStamps(OdinError):
    def __init__(self, path: Path, at: str, interval: str) -> None:
        super().__init__(
            f"{path}: all its stamps are at {at} UTC, outside the sessions of this market, as those of daily bars are, "
            f"and it was read as bars of interval {interval}; import it with `--interval day` if that is what they are"
        )


class WrongFormat(OdinError):
    def __init__(self, path: Path, share: float, example: str) -> None:
        super().__init__(
            f"{path}: on {share:.0%} of its rows a stamp or price cannot be read, for example {example!r}; say in a "
            f"layout how they are written: time_formats, decimal, thousands (docs/files.md)"
        )


class SwappedDates(OdinError):
    def __init__(self, path: Path, days: list[date]) -> None:
        shown = ", ".join(map(str, days[:DAYS]))
        super().__init__(
            f"{path}: its {len(days)} sessions are all day {days[0].day} of a month ({shown}, …), so day and month "
            f"look swapped; mend time_formats in its layout"
        )


class NotAskedFor(OdinError):
    def __init__(self, path: Path, others: list[str]) -> None:
        more = f" and {len(others) - SHOWN:,} more" if len(others) > SHOWN else ""
        super().__init__(
            f"{path}: no row is of the --symbols asked for; it holds {', '.join(others[:SHOWN])}{more}. Mend "
            f"--symbols, or leave the file out"
        )


class NothingSound(OdinError):
    def __init__(self, path: Path, rows: int, rules: pl.DataFrame) -> None:
        why = "; ".join(f"{n:,} {rule}: {RULES[rule]}" for rule, n in rules.iter_rows())
        super().__init__(
            f"{path}: none of its {rows:,} rows is a bar of this market ({why}); nothing was stored. Mend its layout, "
            f"its time zone or the file, or import it into the market that it was recorded in"
        )


class FileCheck:
    """Sees the batches of one file (`add`), then raises what is wrong with it, if anything is (`require`)."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path, self._layout = path, layout
        self._minutes = minutes_of(layout.interval) if layout.rows == "bars" else None
        self._rows = self._outside = self._unread = 0
        self._example = ""
        self._is_sound = False  # some row is
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._clocks: set[int] = set()  # earliest and latest time of day, microseconds
        self._seen: set[date] = set()  # sessions
        self._others: set[str] = set()  # symbols of batches without a row that was asked for
        self._days: list[pl.DataFrame] = []
        self._spanned: list[pl.DataFrame] = []
        self._steps: list[pl.DataFrame] = []
        self._rules: list[pl.DataFrame] = []
        self._lock = threading.Lock()

    def add(self, rows: FileRows, hours: Hours, places: Places) -> None:
        """Rows of one batch, with the sessions around them and the place of each; from any thread."""
        bars = rows.bars
        outside = bars["ts"].filter(places.misplaced.is_not_null() & bars["ts"].is_not_null())
        steps = _steps(bars.head(STEPS_SEEN)) if self._layout.rows == "bars" else None
        by_minute = self._minutes is not None and bool(hours.sessions)
        days = self._stamped_edges(bars, hours, places) if by_minute else None
        is_apart = by_minute and len(outside) > NOTABLE * len(bars)
        spans = self._spans(bars, hours, places) if is_apart else None
        counts = np.bincount(places.at, minlength=len(hours.sessions))
        unread = pl.Series([], dtype=pl.String) if rows.unread is None else rows.unread.drop_nulls()
        rules = None if self._is_sound else self._broken(bars, places)
        clock = bars["ts"].to_physical() % DAY
        with self._lock:
            edges = [at for at in (self._first, self._last, outside.min(), outside.max()) if isinstance(at, datetime)]
            self._first, self._last = min(edges, default=None), max(edges, default=None)
            self._clocks = {at for at in (*self._clocks, clock.min(), clock.max()) if isinstance(at, int)}
            self._clocks = {min(self._clocks), max(self._clocks)} if self._clocks else set()
            self._seen |= {session for session, n in zip(hours.sessions, counts, strict=False) if n}
            self._others |= set(rows.others)
            self._rows += len(bars)
            self._outside += len(outside)
            self._unread += len(unread)
            self._example = self._example or next(iter(unread), "")
            self._is_sound |= rules is None
            self._rules += [] if rules is None else [rules]
            self._steps += [] if steps is None else [steps]
            self._days += [] if days is None else [days]
            self._spanned += [] if spans is None else [spans]

    def require(self) -> None:
        """Raises NotAskedFor, WrongFormat, WrongBarLength, SwappedDates, DailyStamps, WrongMarket, WrongZone,
        WrongStamps, NothingSound: what others follow from comes first."""
        if not self._rows:
            raise NotAskedFor(self._path, sorted(self._others))
        if self._unread >= max(FEW, UNREAD * self._rows) or (not self._is_sound and self._unread > HALF * self._rows):
            raise WrongFormat(self._path, self._unread / self._rows, self._example)
        self._check_length()
        self._check_days()
        enough = self._outside >= max(ENOUGH, MAJORITY * self._rows)
        if enough and self._first is not None and self._last is not None:
            raise WrongMarket(self._path, self._outside / self._rows, self._first, self._last)
        self._check_zone()
        self._check_stamps()
        if not self._is_sound:
            rules = pl.concat(self._rules).group_by("rule").agg(pl.col("len").sum())
            raise NothingSound(self._path, self._rows, rules.sort("len", "rule", descending=[True, False]))

    def _broken(self, bars: pl.DataFrame, places: Places) -> pl.DataFrame | None:
        """How many rows break each rule: rule, len. None where a row breaks none."""
        at = pl.col("ts") if self._layout.rows == "bars" and self._minutes else pl.col("ts").dt.truncate("1m")
        judged = bars.with_columns(places.misplaced, at)
        for part in (judged.head(ENOUGH), judged):  # mostly the first rows tell
            rules = part.select(broken_rule().alias("rule")).group_by("rule").len()
            if rules["rule"].null_count():
                return None
        return rules

    def _check_days(self) -> None:
        seen = sorted(self._seen)
        if len(seen) >= DAYS and len({day.day for day in seen}) == 1:
            raise SwappedDates(self._path, seen)
        is_one_clock = self._rows > 1 and len(self._clocks) == 1 and self._minutes is not None
        if is_one_clock and self._outside >= MAJORITY * self._rows:
            at = datetime.min + timedelta(microseconds=min(self._clocks))
            raise DailyStamps(self._path, f"{at:%H:%M}", self._layout.interval)

    def _check_zone(self) -> None:
        """A day whose bars begin well before the open and also end well before the close, or both after, was read in
        another zone; of a single session the two must be alike. Bars before and after the session, as of extended
        hours, or missing ones at one side or both, are no such sign."""
        if not self._spanned or self._minutes is None:
            return
        days = (
            pl.concat(self._spanned)
            .group_by("symbol", "open")
            .agg(pl.col("begin").min(), pl.col("end").max(), pl.col("last").max(), pl.col("rows").sum())
        )
        step = self._minutes
        slack = max(A_QUARTER, 2 * step if self._layout.stamps == "end" else step)
        early = (pl.col("begin") <= -slack) & (pl.col("end") <= -slack)
        late = (pl.col("begin") >= slack) & (pl.col("last") >= slack)
        shifted = days.filter(early | late)
        if shifted["open"].n_unique() == 1:
            shifted = shifted.filter((pl.col("begin") - pl.col("end")).abs() <= max(2 * A_QUARTER, step))
        rows = int(shifted["rows"].sum())
        if rows >= max(FEW, HALF * self._rows):
            raise WrongZone(self._path, rows / self._rows, shifted)

    def _stamped_edges(self, bars: pl.DataFrame, hours: Hours, places: Places) -> pl.DataFrame:
        """Per symbol and session: is its open stamped, the minute after its open, its close? A market that never closes
        says nothing."""
        step = (self._minutes or 1) * MINUTE // MICROSECOND
        instant = bars["ts"].to_physical().fill_null(0).to_numpy() + (step if self._layout.stamps == "end" else 0)
        at = np.minimum(places.at, len(hours.sessions) - 1)
        since_open, until_close = instant - hours.opens[at], hours.closes[at] - instant
        edge = ((since_open == 0) | (since_open == step) | (until_close == 0)) & ~_meets(hours)[at]
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

    def _spans(self, bars: pl.DataFrame, hours: Hours, places: Places) -> pl.DataFrame:
        """Per symbol and session, with the rows outside its hours: minutes from the open to the first bar (begin), from
        the close to the last stamp and to the end of its bar (last, end), and rows. None of a market that never
        closes."""
        apart = np.append(~_meets(hours), False)
        edges = [pl.Series(np.append(edge, 0)).gather(places.at) for edge in (hours.opens, hours.closes)]
        at = pl.col("ts").to_physical()
        minutes = MINUTE // MICROSECOND
        return (
            bars.select("symbol", "ts", edges[0].alias("open"), edges[1].alias("close"))
            .filter(pl.Series(apart[places.at]) & pl.col("ts").is_not_null())
            .group_by("symbol", "open")
            .agg(
                ((at.min() - pl.col("open").first()) // minutes).alias("begin"),
                ((at.max() - pl.col("close").first()) // minutes).alias("last"),
                pl.len().alias("rows"),
            )
            .with_columns(end=pl.col("last") + (self._minutes or 0))
        )

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


def _meets(hours: Hours) -> npt.NDArray[np.bool_]:
    """Of each session, whether another follows it, or went before, without a break."""
    return np.isin(hours.opens, hours.closes) | np.isin(hours.closes, hours.opens)


def _apart(minutes: int) -> str:
    """-95 as "1:35 h before"."""
    return f"{abs(minutes) // 60}:{abs(minutes) % 60:02d} h {'before' if minutes < 0 else 'after'}"


def _any_of_day(edges: pl.DataFrame) -> pl.DataFrame:
    return edges.group_by("symbol", "open").agg(pl.col("at_open", "after_open", "at_close").any())
