"""One door to a market's data: minute bars of a session and the features known at its close, made on a miss and stored.

The command line, the assets, the fold and a notebook all come in here, so they get the same answer. Tables, under
`<home>/lake/<dataset>/`: price_history, data_quality, quarantine, features_<version>. A synthetic market's dataset
carries its edge and seed in the name, so lives with other settings never share bars."""

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Self

import polars as pl

from odin_core.errors import OdinError
from odin_core.home import Home
from odin_core.lake import Lake, PartitionUnreadable
from odin_core.lifecycle.config import LifeConfig
from odin_core.market.bars import BARS, table_of
from odin_core.market.calendar import SessionCalendar, session_calendar
from odin_core.market.derived import derived, status_of
from odin_core.market.history import held, larger_intervals, read_bars, require_aware
from odin_core.market.profile import MarketProfile, load_profile
from odin_core.market.quality.assessing import FINDINGS, assess_session, find_defects
from odin_core.market.reference.actions import ActionBook
from odin_core.market.reference.fundamentals import FundamentalBook

if TYPE_CHECKING:
    from odin_core.features.decision import DecisionRows
    from odin_core.features.provider import FeatureProvider
    from odin_core.market.synthetic import SyntheticExchange

PRICES, QUALITY, QUARANTINE = "price_history", "data_quality", "quarantine"


class NoData(OdinError):
    def __init__(self, market: str, first: date, last: date, have: list[date], larger: Sequence[str]) -> None:
        span = f"it has {have[0]} to {have[-1]} ({len(have)} sessions)" if have else "it has none at all"
        beside = f", though bars of {', '.join(larger)}: orders are filled minute by minute" if larger else ""
        super().__init__(
            f"{market}: no minute bars between {first} and {last}; {span}{beside}. Import them first "
            f"(odin data import FILE… --market {market}) or choose a range inside"
        )


class MarketData:
    """Bars and features of one dataset. Sessions without data give empty frames; damaged files raise."""

    def __init__(
        self, lake: Lake, profile: MarketProfile, generate: Callable[[date], pl.DataFrame] | None = None
    ) -> None:
        self.lake, self.profile, self._generate = lake, profile, generate
        self.calendar: SessionCalendar = session_calendar(profile)
        self.actions = ActionBook(lake, self.calendar)
        self.figures = FundamentalBook(lake, self.calendar)
        self._recent: dict[date, tuple[str, pl.DataFrame]] = {}

    @classmethod
    def of(cls, home: Home, market: str, config: LifeConfig) -> Self:
        """The data that a life with this configuration sees."""
        profile = load_profile(market)
        if profile.source["kind"] != "synthetic":
            return cls(home.lake(market), profile)
        exchange = _exchange(market, config.seed, config.edge)
        return cls(home.lake(f"{market}-edge{config.edge:g}-seed{config.seed}"), profile, exchange.bars)

    @cached_property
    def features_table(self) -> str:
        """The lake's table of what lives decide on, by the version of its definitions."""
        from odin_core.features.decision import decision_version  # brings numba, as the next two

        return f"features_{decision_version()}"

    @cached_property
    def _provider(self) -> "FeatureProvider":
        from odin_core.features.provider import FeatureProvider

        return FeatureProvider(self)

    @cached_property
    def _decisions(self) -> "DecisionRows":
        from odin_core.features.decision import DecisionRows

        return DecisionRows(self._provider)

    @property
    def per_session(self) -> dict[str, int]:
        """How many bars of each interval that features know a session of usual hours has."""
        return self._provider.per_session

    def sessions_before(self, session: date, set_name: str, interval: str) -> list[date]:
        """The sessions before one that the values of a set on an interval may follow from. Raises UnknownSet."""
        from odin_core.features.catalogue import features_of

        return self._provider.sessions_before(session, features_of(set_name), interval)

    def has(self, session: date) -> bool:
        """Whether the session has bars, in the lake or from the exchange."""
        return self.lake.has(PRICES, session) or (
            self._generate is not None and session >= self.profile.first_partition
        )

    def has_any(self, session: date) -> bool:
        """Whether the session has bars of any interval."""
        tables = (table_of(interval) for interval in larger_intervals(self.lake))
        return self.has(session) or any(self.lake.has(table, session) for table in tables)

    def sessions(self, first: date | None = None, last: date | None = None) -> list[date]:
        """Sessions for which there are bars."""
        if self._generate is not None:
            return self.calendar.sessions(first or self.profile.first_partition, last)
        return [s for s in self.lake.sessions(PRICES) if (first or date.min) <= s <= (last or date.max)]

    def newest(self) -> date:
        """The newest session whose minute bars lie in the lake. Raises NoData."""
        have = self.lake.sessions(PRICES)
        if not have:
            raise self._no_data(self.profile.first_partition, self.calendar.last)
        return have[-1]

    def default_range(self) -> tuple[date, date]:
        """What a life covers where nobody says: the profile's range, or all there is."""
        if self.profile.range_first and self.profile.range_last:
            return self.profile.range_first, self.profile.range_last
        have = self.sessions()
        if not have:
            raise self._no_data(self.profile.first_partition, self.calendar.last)
        return have[0], have[-1]

    def require(self, first: date, last: date) -> None:
        """Raise NoData unless at least one session of the range has bars."""
        if not self.sessions(first, last):
            raise self._no_data(first, last)

    def _no_data(self, first: date, last: date) -> NoData:
        return NoData(self.profile.name, first, last, self.sessions(), larger_intervals(self.lake))

    def bars(self, session: date) -> pl.DataFrame:
        """Minute bars (BARS) of a session; generated and stored where the market is synthetic. Empty without data."""
        status = status_of(self.lake.path(PRICES, session))
        if session in self._recent and self._recent[session][0] == status:
            return self._recent[session][1]
        if self.lake.has(PRICES, session):
            frame = self.lake.read(PRICES, session)
            if frame.schema != BARS:
                raise PartitionUnreadable(self.lake.path(PRICES, session), "its columns are not those of minute bars")
        elif self._generate is not None and session >= self.profile.first_partition:
            frame = self._generate(session)
            status = status_of(self.lake.write(PRICES, session, frame))
        else:
            return BARS.to_frame()
        self._recent.pop(session, None)
        while len(self._recent) >= 2:
            self._recent.pop(next(iter(self._recent)))
        self._recent[session] = (status, frame)
        return frame

    def generate(self, sessions: Iterable[date]) -> None:
        """Store the minute bars of `sessions` that a synthetic market has and the lake does not; else nothing."""
        if self._generate is not None:
            for session in sessions:
                if not self.lake.has(PRICES, session):
                    self.bars(session)

    def bars_of(self, session: date, interval: str) -> pl.DataFrame:
        """Bars (BARS) of any interval of one session, as `read` gives them. Raises NotAnInterval."""
        return self._provider.bars(session, interval)

    def read(
        self,
        symbols: Sequence[str] | None,
        first: date,
        last: date,
        interval: str = "1m",
        *,
        as_of: datetime | None = None,
    ) -> pl.DataFrame:
        """Bars (BARS, raw prices) by symbol (None: all) and range of sessions, both ends included; `history.read_bars`
        says where larger ones come from. Rows lie session after session, so a symbol's ascend in time. `as_of`
        (aware): only bars known by then. Symbols and sessions without bars have no rows. Raises NotAnInterval,
        NaiveMoment, and PartitionUnreadable for damaged files."""
        sessions = self.calendar.sessions(max(first, self.calendar.first), min(last, self.calendar.last))
        self.generate(sessions)
        return read_bars(self.lake, self.calendar, sessions, symbols=symbols, interval=interval, as_of=as_of)

    def adjusted(
        self, symbols: Sequence[str], first: date, last: date, interval: str = "1m", *, as_of: datetime
    ) -> pl.DataFrame:
        """`read` as the series of `symbols` looked at `as_of`: `reference.actions.adjusted`, former names included.
        Raises as `read` does."""
        require_aware("as_of", as_of)
        bars = self.read(self.actions.names(symbols, as_of), first, last, interval, as_of=as_of)
        return self.actions.adjusted(bars, as_of).filter(pl.col("symbol").is_in(list(symbols)))

    def defects(self, session: date) -> pl.DataFrame:
        """The session's findings, from its bars and what its imports left; computed and stored where missing."""
        if self.lake.has(QUALITY, session):
            stored = self.lake.read(QUALITY, session)
            if stored.schema == FINDINGS:  # else an older version wrote it
                return stored
        bars = self.bars(session)
        if self._generate is None:
            found = assess_session(self.lake, self.calendar, session)
        else:  # which other sessions lie in the lake is chance
            found = find_defects(bars, self.calendar, session)
        self.lake.write(QUALITY, session, found)
        return found

    def features(
        self,
        symbols: Sequence[str] | None,
        interval: str,
        first: date,
        last: date,
        set_name: str = "decision",
        as_of: datetime | None = None,
    ) -> pl.DataFrame:
        """Features of a set on bars of an interval, by symbol (None: all) and range of sessions, both ends included:
        symbol, known_at (the bar's end, UTC), session, then Float32, null where unknown; session after session, there
        by symbol and time. Each row is as it was known at `known_at`.

        interval: 1m, 5m, 15m, 60m or day; features of other intervals have the value of their last bar. What is not in
        the lake is computed and stored, for all symbols of the market. `as_of` (aware): only what was known by then; a
        session that was not over is computed and not stored. A year of 50 symbols on minutes is gigabytes: ask for
        fewer symbols, or month by month. Raises UnknownSet, NoBarsOfFeatures, NaiveMoment."""
        return self._provider.rows(symbols, interval, first, last, set_name, as_of)

    def decision_rows(self, session: date) -> pl.DataFrame:
        """What a life decides on (`features.decision`), as known at the close of `session`; from the lake if its inputs
        are unchanged, else computed and stored."""
        self.generate(self._decisions.history(session))
        mark = self._decisions.mark(session)
        return derived(self.lake, self.features_table, session, mark, lambda: self._decisions.of(session))

    def fundamentals(self, session: date) -> pl.DataFrame:
        """Figures as known at the close of `session`, one row per symbol by its name of then."""
        return self.figures.at_close(session, self.actions)


@lru_cache(maxsize=2)
def _exchange(market: str, seed: int, edge: float) -> "SyntheticExchange":
    """The exchange of a synthetic market, whose whole past it computes at once; every asset of a run asks for it."""
    from odin_core.market.synthetic import SyntheticExchange

    profile = load_profile(market)
    return SyntheticExchange(profile, seed=seed, edge=edge, symbols=profile.source.get("symbols", 50))


def holdings(lake: Lake, market: str) -> dict[str, Any]:
    """What a market's lake holds: bars by interval (symbols, sessions, rows, from when to when), findings by rule and
    quarantined rows by rule. `sessions`: those with bars of any interval. Raises PartitionUnreadable."""
    bars = held(lake)
    sessions = sorted({session for interval in bars for session in lake.sessions(table_of(interval))})
    rows = {table: lake.read_many(table, lake.sessions(table)) for table in (QUALITY, QUARANTINE)}
    counts = {
        table: dict(frame["rule"].value_counts(sort=True).iter_rows()) if frame.height else {}
        for table, frame in rows.items()
    }
    return {
        "market": market, "sessions": len(sessions), "first": sessions[0] if sessions else None,
        "last": sessions[-1] if sessions else None,
        "bars": {interval: _of_interval(lake, interval, found) for interval, found in bars.items()},
        "findings": counts[QUALITY], "quarantined": counts[QUARANTINE],
    }  # fmt: skip


def _of_interval(lake: Lake, interval: str, found: pl.DataFrame) -> dict[str, Any]:
    sessions = lake.sessions(table_of(interval))
    return {
        "sessions": len(sessions), "first": sessions[0], "last": sessions[-1], "rows": found["rows"].sum(),
        "symbols": found.rows(named=True),
    }  # fmt: skip
