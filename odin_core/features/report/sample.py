"""One symbol of a lake with the values of every feature on it: what the catalogue's plots show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from odin_core.errors import OdinError, nearest
from odin_core.features.catalogue import DEFINITIONS, Definition, Feature
from odin_core.features.engine import compute
from odin_core.features.provider import FeatureProvider
from odin_core.features.report.drawing import TimeAxis, price_panel
from odin_core.features.series import FloatArray
from odin_core.market.bars import interval_of
from odin_core.market.data import MarketData

INTRADAY: Final = "5m"
SESSIONS: Final = {INTRADAY: 5, "day": 60}  # how many are shown of each grid
BEFORE: Final = {INTRADAY: 10, "day": 120}  # and how many lie before, for features that are computed by name
LABELS: Final = 5


class NoBarsOf(OdinError):
    def __init__(self, symbol: str, session: date, known: Sequence[str]) -> None:
        others = f"; {nearest(symbol, known)}" if known else ", nor of any other"
        super().__init__(f"there are no bars of {symbol!r} in the sessions up to {session}{others}")


class Shown(NamedTuple):
    """A feature as it is drawn: its name, the bars it lies on, the panel with their price, its values (rows,)."""

    name: str
    grid: str
    panel: str
    axis: TimeAxis
    values: FloatArray


class Grid(NamedTuple):
    """The bars shown of one interval, adjusted as of the last close, with values by feature (rows,)."""

    bars: pl.DataFrame
    sessions: int
    axis: TimeAxis
    values: Mapping[str, FloatArray]


@dataclass(frozen=True)
class SampleOfSymbol:
    """The last sessions of one symbol. `grids` by interval, those that it has bars of: 5m, day."""

    market: str
    symbol: str
    last: date
    per_session: Mapping[str, int]
    grids: Mapping[str, Grid]

    @property
    def says(self) -> str:
        """Which sessions are shown."""
        spans = [f"{grid.sessions} sessions of {name} bars" for name, grid in self.grids.items()]
        return f"{' or '.join(spans)} to {self.last}"

    def panels(self) -> str:
        """The prices, drawn once for all plots."""
        drawn = [price_panel(f"price-{name}", g.axis, g.bars["close"].to_numpy()) for name, g in self.grids.items()]
        return f'<svg class="drawn-once">{"".join(drawn)}</svg>'

    def shown(self, definition: Definition) -> Shown | str:
        """The function's first variant on the finest grid that it and the symbol have, or why there is none."""
        for name in (i for i in (INTRADAY, "day") if i in self.grids):
            feature = shown_on(definition, name)
            if feature is None:
                continue
            values = self.grids[name].values[feature]
            if np.isfinite(values).any():
                return Shown(feature, name, f"price-{name}", self.grids[name].axis, values)
            needs = ", ".join(f"`{n}`" for n in sorted(definition.needs))
            why = (
                f"it needs {needs}"
                if needs
                else f"it needs {Feature(definition, definition.variants[0], '').bars} bars"
            )
            return f"`{feature}` has no value on {self.symbol} here: {why}."
        return f"It is made of bars of {', '.join(definition.intervals)}, which {self.symbol} does not have here."


def shown_on(definition: Definition, grid: str) -> str | None:
    """The name under which a function's first variant is drawn on bars of `grid`; None where it is not."""
    if definition.kind == "facts":
        return definition.name if grid == "day" else None
    if definition.intervals and grid not in definition.intervals:
        return None
    return Feature(definition, definition.variants[0], grid if definition.intervals else "").name


def sessions_with_bars(data: MarketData) -> list[date]:
    """Sessions that have bars of any interval; of an exchange that makes its bars and made none, the usual range.
    Raises NoData where there are none."""
    lake = data.lake
    stored = {session for table in lake.tables() if interval_of(table) for session in lake.sessions(table)}
    return sorted(stored) or data.sessions(*data.default_range())


def most_traded(data: MarketData, session: date) -> str:
    """The tradable symbol with the largest turnover of the session; the first by name where no volume is known."""
    bars = data.read(None, session, session, "day").filter(~pl.col("symbol").is_in(list(data.profile.untradable)))
    turnover = (pl.col("close") * pl.col("volume")).fill_nan(None).fill_null(0.0)
    ranked = bars.sort(turnover, "symbol", descending=[True, False])
    return ranked["symbol"][0] if ranked.height else ""


def sample_of(data: MarketData, symbol: str | None = None, session: date | None = None) -> SampleOfSymbol:
    """The sessions up to `session` (None: the last with bars) of `symbol` (None: the one most traded in it), with all
    features, from the lake or computed and stored. Raises NoData, NoBarsOf."""
    have = [s for s in sessions_with_bars(data) if session is None or s <= session]
    if not have:
        data.require(session or date.max, session or date.max)
    last = have[-1]
    chosen = symbol or most_traded(data, last)
    grids: dict[str, Grid] = {}
    for name in SESSIONS:
        drawn = {d.name for d in DEFINITIONS.values() if INTRADAY in grids and shown_on(d, INTRADAY)}
        wanted = {d.name: d for d in DEFINITIONS.values() if d.name not in drawn and shown_on(d, name)}
        grid = _grid(data, chosen, name, have, list(wanted.values()))
        if grid.bars.height:
            grids[name] = grid
    if not grids:
        raise NoBarsOf(chosen, last, data.read(None, last, last, "day")["symbol"].to_list())
    return SampleOfSymbol(data.profile.name, chosen, last, FeatureProvider(data).per_session, grids)


def _grid(data: MarketData, symbol: str, name: str, have: Sequence[date], definitions: Sequence[Definition]) -> Grid:
    """The last sessions' bars of `symbol`, with what of `definitions` is drawn on them."""
    shown, first = have[-SESSIONS[name] :], have[-SESSIONS[name] - BEFORE[name] :][0]
    hours = [data.calendar.hours(session) for session in shown]
    bars = data.adjusted([symbol], first, shown[-1], name, as_of=hours[-1].close)
    rows = bars.filter(pl.col("ts") >= hours[0].open)
    if rows.is_empty():
        return Grid(rows, len(shown), TimeAxis(0, np.empty(0, np.intp), ()), {})
    by_name = [title for d in definitions if not d.intervals and (title := shown_on(d, name))]
    frame = rows.select("ts", "known_at").join(
        compute(bars, by_name).drop("symbol"), on="ts", how="left", maintain_order="left"
    )
    for set_name in dict.fromkeys(d.set for d in definitions if d.intervals):
        columns = [title for d in definitions if d.intervals and d.set == set_name and (title := shown_on(d, name))]
        stored = data.features([symbol], name, shown[0], shown[-1], set_name).select("known_at", *columns)
        frame = frame.join(stored, on="known_at", how="left", maintain_order="left")
    places = pl.Series([h.open for h in hours], dtype=rows.schema["ts"]).search_sorted(rows["ts"], side="right")
    values = frame.drop("ts", "known_at").cast(pl.Float64).fill_null(np.nan)
    return Grid(rows, len(shown), _axis(name, shown, (places - 1).to_list()), {c.name: c.to_numpy() for c in values})


def _axis(name: str, shown: Sequence[date], places: Sequence[int]) -> TimeAxis:
    """Labels in the middle of each session; of day bars a few, and the line goes through."""
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    if name != INTRADAY:
        rows = range(len(places) // (2 * LABELS), len(places), -(-len(places) // LABELS))
        return TimeAxis(len(places), starts[:1], [(row, day_of(shown[places[row]])) for row in rows])
    middles = (starts + np.append(starts[1:], len(places))) // 2
    return TimeAxis(len(places), starts, [(row, day_of(shown[places[row]])) for row in middles.tolist()])


def day_of(session: date) -> str:
    """A session below an axis: 7 Jun."""
    return f"{session.day} {session:%b}"
