"""The one way to features: a set's rows by symbol and range, out of the lake where they are, else computed and stored.

The command line, the assets, the fold and a notebook ask here (through `market.data.MarketData`), so they get the same
answer. A stored session carries a mark of the files that it follows from; where these have changed it is computed
again. Files are replaced whole, so any number of processes may ask at once. How values are made is `engine`."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Final

import polars as pl

from odin_core.errors import OdinError
from odin_core.features.catalogue import INTERVALS, Feature, features_of, set_version
from odin_core.features.engine import FACTS, evaluate, sessions_needed, with_inputs
from odin_core.features.filling import Span
from odin_core.lake import Lake, logical_hash
from odin_core.market.bars import (
    BARS,
    MICROSECOND,
    MINUTE_TABLE,
    UTC,
    minutes_of,
    session_bars,
    table_of,
)
from odin_core.market.derived import files_of, is_current, mark_of, store
from odin_core.market.history import larger_intervals, require_aware
from odin_core.market.options.open_interest import OPEN_INTEREST, OPEN_INTEREST_TABLE
from odin_core.market.profile import load_profile, profile_names
from odin_core.market.reference import actions as corporate

if TYPE_CHECKING:
    from odin_core.market.data import MarketData

AT_ONCE: Final = 20  # sessions that are computed in one go
FIGURES: Final = "fundamental"  # the set whose facts are figures of the fundamentals
KEPT: Final = 160  # sessions of larger bars that are kept in memory
MINUTES_OF_DAY: Final = 24 * 60
DAYS_PER_SESSION: Final = timedelta(days=3)  # more than weekends and holidays take
KEYS: Final = {"symbol": pl.String(), "known_at": UTC, "session": pl.Date()}


class NoBarsOfFeatures(OdinError):
    def __init__(self, interval: str) -> None:
        super().__init__(f"features are computed on bars of {', '.join(INTERVALS)}, and not of {interval!r}")


class FeatureProvider:
    """Features of one market. Sessions without bars give no rows; damaged files raise."""

    def __init__(self, data: "MarketData") -> None:
        self._data = data
        self._larger: dict[date, tuple[str, dict[str, pl.DataFrame]]] = {}

    def rows(
        self,
        symbols: Sequence[str] | None,
        interval: str,
        first: date,
        last: date,
        set_name: str,
        as_of: datetime | None,
    ) -> pl.DataFrame:
        """`MarketData.features` says what."""
        features = features_of(set_name)
        if interval not in INTERVALS:
            raise NoBarsOfFeatures(interval)
        if as_of is not None:
            require_aware("as_of", as_of)
        calendar = self._data.calendar
        sessions = calendar.sessions(max(first, calendar.first), min(last, calendar.last))
        symbols = [symbols] if isinstance(symbols, str) else symbols
        keep = pl.lit(True) if symbols is None else pl.col("symbol").is_in(list(symbols))
        table = f"features_{set_name}_{interval}_{set_version(set_name)}"
        found = self._frames(sessions, features, interval, table, as_of)
        return pl.concat([schema_of(features).to_frame(), *(frame.filter(keep) for frame in found)])

    def _frames(
        self,
        sessions: Sequence[date],
        features: Sequence[Feature],
        interval: str,
        table: str,
        as_of: datetime | None,
    ) -> Iterator[pl.DataFrame]:
        """The rows of all symbols, session after session; what is missing of closed ones is computed and stored."""
        data = self._data

        def state(session: date) -> str:
            hours = data.calendar.hours(session)
            if as_of is not None and hours.close > as_of:
                return "going on" if hours.open < as_of else "to come"
            if not data.has_any(session):
                return "no bars"
            is_there = is_current(data.lake, table, session, self.mark(session, features, interval))
            return "stored" if is_there else "missing"

        for is_what, group in groupby(sessions, state):
            if is_what == "stored":
                yield from (data.lake.read(table, session) for session in group)
            elif is_what == "missing":
                every = list(group)
                for begin in range(0, len(every), AT_ONCE):
                    yield from self._stored(every[begin : begin + AT_ONCE], features, interval, table)
            elif is_what == "going on":
                yield from self.computed(list(group), features, interval, as_of)

    def _stored(
        self, sessions: Sequence[date], features: Sequence[Feature], interval: str, table: str
    ) -> list[pl.DataFrame]:
        """Compute the rows of consecutive sessions and store them."""
        self._data.generate([*self.sessions_before(sessions[0], features, interval), *sessions])
        marks = [self.mark(session, features, interval) for session in sessions]  # before the files are read
        frames = self.computed(sessions, features, interval)
        for session, mark, frame in zip(sessions, marks, frames, strict=True):
            store(self._data.lake, table, session, frame, mark)
        return frames

    def computed(
        self, sessions: Sequence[date], features: Sequence[Feature], interval: str, as_of: datetime | None = None
    ) -> list[pl.DataFrame]:
        """The rows of consecutive sessions of the calendar, a frame for each."""
        if len(sessions) > 1 and self._renamed_within(sessions, features):
            return [frame for s in sessions for frame in self.computed([s], features, interval, as_of)]
        if not sessions:
            return []
        data, schema = self._data, schema_of(features)
        before = self.sessions_before(sessions[0], features, interval)
        span = self._span(before, sessions)
        tables = self.tables(before, sessions, features, interval, as_of)
        actions = data.actions.rows
        if as_of is not None:
            actions = actions.filter(pl.col("known_at") <= as_of)
        facts = self._facts(sessions, features)
        found = evaluate(tables, features, interval, span, actions=actions, facts=facts, index=data.profile.index)
        values = pl.DataFrame(list(found.values), schema=[f.name for f in features], nan_to_null=True)
        frame = found.keys.hstack(values).partition_by("session", as_dict=True, maintain_order=True)
        empty = schema.to_frame()
        places = {session: len(before) + i for i, session in enumerate(sessions)}
        return [
            frame[(at,)].with_columns(session=pl.lit(session)).select(*schema) if (at,) in frame else empty
            for session, at in places.items()
        ]

    def _span(self, before: Sequence[date], sessions: Sequence[date]) -> Span:
        calendar, every = self._data.calendar, [*before, *sessions]
        moved = {i: move for i, session in enumerate(every) if (move := calendar.moved_close(session))}
        return Span([calendar.hours(s) for s in every], len(before), self.per_session, moved)

    def _renamed_within(self, sessions: Sequence[date], features: Sequence[Feature]) -> bool:
        """Whether facts are read and a symbol's name changes on the way, so that they are told under two names."""
        renames = self._data.actions.rows.filter(pl.col("kind") == "rename")
        hours = self._data.calendar.hours
        is_within = pl.max_horizontal("known_at", "ex_at").is_between(
            hours(sessions[0]).open, hours(sessions[-1]).open, closed="right"
        )
        return any(f.definition.kind == "facts" for f in features) and not renames.filter(is_within).is_empty()

    @cached_property
    def per_session(self) -> dict[str, int]:
        """How many bars of each interval a session of usual hours has."""
        profile = self._data.profile
        hours = datetime.combine(date.min, profile.close) - datetime.combine(date.min, profile.open)
        minutes = hours // timedelta(minutes=1) % MINUTES_OF_DAY or MINUTES_OF_DAY
        return {i: -(-minutes // (minutes_of(i) or minutes)) for i in INTERVALS}

    def sessions_before(self, session: date, features: Sequence[Feature], interval: str) -> list[date]:
        """The sessions before one that its values may follow from."""
        data = self._data
        first = max(data.profile.first_partition, data.calendar.first)
        if session <= first:
            return []
        needed = sessions_needed(features, interval, self.per_session)
        earlier = data.calendar.sessions(max(first, session - DAYS_PER_SESSION * (needed + 10)), session)[:-1]
        return earlier[-needed:] if needed else []

    def tables(
        self,
        before: Sequence[date],
        sessions: Sequence[date],
        features: Sequence[Feature],
        interval: str,
        as_of: datetime | None = None,
    ) -> dict[str, pl.DataFrame]:
        """Bars by interval: of `sessions`, and of as many of `before` as the interval's features need."""
        found = {}
        for name in dict.fromkeys([interval, *(f.interval for f in with_inputs(features) if f.interval)]):
            own = [f for f in features if f.interval == name]
            reach = sessions_needed(own, interval, self.per_session)
            needed = [*(before[-reach:] if reach else ()), *sessions]
            frame = pl.concat([BARS.to_frame(), *(self.bars(s, name) for s in needed)])
            found[name] = frame if as_of is None else frame.filter(pl.col("known_at") <= as_of)
        return found

    def bars(self, session: date, interval: str) -> pl.DataFrame:
        """`MarketData.bars_of`."""
        if interval == "1m":
            return self._data.bars(session)
        if interval not in INTERVALS:
            return self._data.read(None, session, session, interval)
        self._data.generate([session])
        status = self._status(session, self._tables())
        if session not in self._larger or self._larger[session][0] != status:
            self._larger.pop(session, None)
            while len(self._larger) >= KEPT:
                self._larger.pop(next(iter(self._larger)))
            self._larger[session] = (status, self._made(session))
        return self._larger[session][1][interval]

    def under_names_of(self, session: date, bars: pl.DataFrame) -> pl.DataFrame:
        """Bars of a session and of ones before it, each series under its name at the session's close."""
        seen = corporate.as_of(self._data.actions.rows, self._data.calendar.hours(session).close)
        return corporate.under_last_name(bars, seen.filter(pl.col("kind") == "rename"), "ts")

    def _tables(self) -> list[str]:
        """Where bars may lie."""
        return [MINUTE_TABLE, *(table_of(interval) for interval in larger_intervals(self._data.lake))]

    def _status(self, session: date, tables: Sequence[str]) -> str:
        """Which bars lie in the lake: their files by size and time."""
        return ";".join(files_of(self._data.lake, tables, [session]))

    def _made(self, session: date) -> dict[str, pl.DataFrame]:
        """All larger bars of a session: of its minutes, and what a vendor gave as such of symbols without minutes."""
        data = self._data
        larger = [i for i in INTERVALS if i != "1m"]
        if larger_intervals(data.lake):
            return {i: data.read(None, session, session, i) for i in larger}
        made = session_bars(data.bars(session), *data.calendar.hours(session)).partition_by("interval", as_dict=True)
        return {i: made[(i,)].select(*BARS) if (i,) in made else BARS.to_frame() for i in larger}

    def mark(self, session: date, features: Sequence[Feature], interval: str) -> str:
        """What the session's rows follow from: files by size and time, actions and facts known by the close."""
        data = self._data
        history = [*self.sessions_before(session, features, interval), session]
        hours, tables = data.calendar.hours, self._tables()
        parts = [f"{self._status(s, tables)};{hours(s)};{data.calendar.moved_close(s)}" for s in history]
        parts += [data.actions.mark(hours(history[0]).open, hours(session).close), str(data.profile.index)]
        facts = self._facts([session], features)
        parts += [logical_hash(facts)] if facts is not None else []
        return mark_of(parts)

    def _facts(self, sessions: Sequence[date], features: Sequence[Feature]) -> pl.DataFrame | None:
        """FACTS that features of these sessions may read, in the order in which they became known. Figures are told to
        features of the set `fundamental`, and option series to the others, whatever their columns are called."""
        needs: dict[bool, frozenset[str]] = {True: frozenset(), False: frozenset()}
        for definition in (f.definition for f in features if f.definition.kind == "facts"):
            needs[definition.set == FIGURES] |= definition.needs
        if not any(needs.values()):
            return None
        data, hours = self._data, self._data.calendar.hours(sessions[-1])
        figures = data.figures.told(hours.open, data.actions).filter(pl.col("figure").is_in(needs[True]))
        told = pl.concat([figures.select(*FACTS), *self._option_series(sessions, needs[False])])
        return told.filter(pl.col("known_at") <= hours.close).sort("known_at", maintain_order=True)

    def _option_series(self, sessions: Sequence[date], needs: frozenset[str]) -> list[pl.DataFrame]:
        """FACTS of option chains, from the session before on. What a session does not say again is unknown from its
        close on, so that a row follows from its own session and the one before, whatever else is computed with it."""
        calendar = self._data.calendar
        first = calendar.previous(sessions[0]) if sessions[0] > calendar.sessions()[0] else sessions[0]
        told, before = [], FACTS.to_frame()
        for session in calendar.sessions(first, sessions[-1]):
            said = pl.concat([FACTS.to_frame(), *(_series(lake, session, needs) for lake in self._option_lakes)])
            silent = before.unique(["symbol", "figure"]).join(said, on=["symbol", "figure"], how="anti")
            end = pl.lit(calendar.hours(session).close + MICROSECOND, FACTS["known_at"])
            told += [said, silent.with_columns(known_at=end, value=pl.lit(None, pl.Float64))]
            before = said
        return told

    @cached_property
    def _option_lakes(self) -> list[Lake]:
        """Where option series of this market's symbols may lie: here, and in options markets on them."""
        own = self._data.lake
        names = [n for n in profile_names() if self._data.profile.name in load_profile(n).underlyings_in]
        return [own, *(Lake(own.root.parent / name) for name in names if (own.root.parent / name).is_dir())]


def _series(lake: Lake, session: date, needs: frozenset[str]) -> pl.DataFrame:
    series = lake.read_or_empty(OPEN_INTEREST_TABLE, session, OPEN_INTEREST)
    columns = sorted(needs & frozenset(series.columns))
    long = series.unpivot(columns, index=["underlying", "known_at"], variable_name="figure", value_name="value")
    return long.rename({"underlying": "symbol"}).select(*FACTS).cast(FACTS) if columns else FACTS.to_frame()


def schema_of(features: Sequence[Feature]) -> pl.Schema:
    """Columns of a set's rows: symbol, known_at (end of the grid's bar, UTC), session, and its features as Float32."""
    return pl.Schema(KEYS | {f.name: pl.Float32() for f in features})
