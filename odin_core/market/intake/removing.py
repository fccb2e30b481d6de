"""Taking bars out of the lake again: what an import brought by mistake, or a session that never was.

Bars do not say where they came from; the table `arrivals` says which symbols' sessions an origin brought bars of. These
are removed whole, bars of other origins among them too, which is said, so that they can be brought in again. With the
bars go their quarantined rows, their arrivals, their instruments, what was accepted about them and what the table
`coverage` says was fetched. A kill leaves each partition whole, and the same call again finishes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import polars as pl

from odin_core.errors import OdinError, nearest
from odin_core.lake import Lake
from odin_core.market.bars import table_of
from odin_core.market.intake.storing import Findings, without_bars
from odin_core.market.quality.assessing import ARRIVALS, SessionHours, bar_tables


class NothingToRemove(OdinError):
    def __init__(self, what: str, way_out: str) -> None:
        super().__init__(f"the lake holds nothing of {what}; {way_out}")


class Part(NamedTuple):
    """The bars of one symbol and session in an interval's table."""

    session: date
    interval: str
    symbol: str
    bars: int


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What a removal takes, or took. `others`: origins that brought bars of the same symbols and sessions."""

    origin: str | None
    sessions: tuple[date, ...]
    parts: tuple[Part, ...]
    quarantined: int
    others: tuple[str, ...]

    @property
    def bars(self) -> int:
        return sum(part.bars for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        return {
            "bars": self.bars,
            "symbols": len({part.symbol for part in self.parts}),
            "sessions": [str(session) for session in self.sessions],
            "quarantined": self.quarantined,
            "also_from": list(self.others),
        }

    def to_text(self) -> str:
        symbols = len({part.symbol for part in self.parts})
        span = f"{len(self.sessions)} sessions {self.sessions[0]} to {self.sessions[-1]}"
        lines = [f"{self.bars:,} bars of {symbols} symbols and {self.quarantined:,} quarantined rows, {span}"]
        if self.others:
            lines.append(
                f"  bars of the same symbols and sessions came from {', '.join(self.others)} too and go as well"
            )
        return "\n".join(lines)


def plan_removal(
    lake: Lake, *, origin: str | None = None, session: date | None = None, symbols: Sequence[str] = ()
) -> Removal:
    """What belongs to an origin, or lies in a session, or both; of all symbols where none is named. Nothing is written.
    Raises NothingToRemove."""
    asked = [session] if session is not None else _sessions(lake)
    parts: list[Part] = []
    touched, others, quarantined = set[date](), set[str](), 0
    for day in asked:
        came, held = (_of(lake, table, day, symbols) for table in ("arrivals", "quarantine"))
        if origin is not None:
            came, held = came.filter(origin=origin), held.filter(origin=origin)
        of_day = _parts(lake, day, symbols, came if origin is not None else None)
        if of_day or held.height or came.height:
            touched.add(day)
        parts += of_day
        quarantined += held.height
        if origin is not None and of_day:
            others |= _others(lake, day, of_day, origin)
    if not touched:
        raise _nothing(lake, origin, session, symbols)
    return Removal(
        origin=origin, sessions=tuple(sorted(touched)), parts=tuple(parts), quarantined=quarantined,
        others=tuple(sorted(others)),
    )  # fmt: skip


def remove(
    lake: Lake, calendar: SessionHours, *, origin: str | None = None, session: date | None = None,
    symbols: Sequence[str] = (),
) -> Removal:  # fmt: skip
    """Take out what `plan_removal` names, and bring the findings up to date. Raises NothingToRemove."""
    plan = plan_removal(lake, origin=origin, session=session, symbols=symbols)
    parts: dict[date, list[Part]] = {}
    for part in plan.parts:
        parts.setdefault(part.session, []).append(part)
    left: dict[date, pl.DataFrame] = {}
    for day in plan.sessions:
        of_day = parts.get(day, [])
        _remove_bars(lake, day, of_day)
        if lake.has("quarantine", day):
            _write(lake, "quarantine", day, lake.read("quarantine", day).filter(~_is_of(origin, symbols)))
        left[day] = _arrivals_left(lake, day, of_day, _is_of(origin, symbols))
    with Findings(lake, calendar) as findings:
        for day in plan.sessions:
            findings.touch(day, {"arrivals": left[day]})
    for day in plan.sessions:  # arrivals last: they name what is to be removed
        if not (bar_tables(lake, day) or lake.has("quarantine", day) or left[day].height):
            lake.remove("data_quality", day)
        _write(lake, "arrivals", day, left[day])
    return plan


def _arrivals_left(lake: Lake, session: date, parts: Sequence[Part], is_removed: pl.Expr) -> pl.DataFrame:
    came = lake.read_or_empty("arrivals", session, ARRIVALS)
    left = came.filter(~is_removed)
    for interval in {part.interval for part in parts}:
        left = without_bars(left, interval, [part.symbol for part in parts if part.interval == interval])
    return left


def _is_of(origin: str | None, symbols: Sequence[str]) -> pl.Expr:
    of_origin = pl.col("origin") == origin if origin is not None else pl.lit(True)
    return (of_origin & (pl.col("symbol").is_in(symbols) if symbols else pl.lit(True))).fill_null(False)


def _sessions(lake: Lake) -> list[date]:
    return sorted({*lake.sessions("arrivals"), *lake.sessions("quarantine")})


def _held(lake: Lake, table: str, session: date) -> pl.DataFrame | None:
    return lake.read(table, session) if lake.has(table, session) else None


def _of(lake: Lake, table: str, session: date, symbols: Sequence[str]) -> pl.DataFrame:
    rows = _held(lake, table, session)
    if rows is None:
        return pl.DataFrame(schema={"origin": pl.String(), "symbol": pl.String(), "interval": pl.String()})
    return rows.filter(pl.col("symbol").is_in(symbols)) if symbols else rows


def _parts(lake: Lake, session: date, symbols: Sequence[str], came: pl.DataFrame | None) -> list[Part]:
    """The bars of a session by interval and symbol; `came`: only those that these arrivals brought."""
    found: list[Part] = []
    for interval, table in bar_tables(lake, session).items():
        counts = lake.read(table, session).group_by("symbol").len().sort("symbol")
        wanted = counts.filter(pl.col("symbol").is_in(symbols)) if symbols else counts
        if came is not None:
            mine = came.filter((pl.col("interval") == interval) & (pl.col("kept") > 0)) if came.height else came
            wanted = wanted.filter(pl.col("symbol").is_in(mine["symbol"].to_list()))
        found += [Part(session, interval, symbol, count) for symbol, count in wanted.iter_rows()]
    return found


def _others(lake: Lake, session: date, parts: Sequence[Part], origin: str) -> set[str]:
    came = lake.read("arrivals", session).filter((pl.col("origin") != origin) & (pl.col("kept") > 0))
    places = {(part.interval, part.symbol) for part in parts}
    rows = came.select("interval", "symbol", "origin").iter_rows()
    return {other for interval, symbol, other in rows if (interval, symbol) in places}


def _remove_bars(lake: Lake, session: date, parts: Sequence[Part]) -> None:
    for interval in sorted({part.interval for part in parts}):
        gone = [part.symbol for part in parts if part.interval == interval]
        table = table_of(interval)
        is_gone = pl.col("symbol").is_in(gone)
        for about in ("accepted_findings", "coverage"):
            rows = _held(lake, about, session)
            if rows is not None:
                _write(lake, about, session, rows.filter(~(is_gone & (pl.col("interval") == interval))))
        _write(lake, table, session, lake.read(table, session).filter(~is_gone))
    terms = _held(lake, "instruments", session)
    if parts and terms is not None:
        left = {s for table in bar_tables(lake, session).values() for s in lake.read(table, session)["symbol"].unique()}
        _write(lake, "instruments", session, terms.filter(pl.col("symbol").is_in(list(left))))


def _write(lake: Lake, table: str, session: date, rows: pl.DataFrame) -> None:
    if rows.height:
        lake.write(table, session, rows)
    else:
        lake.remove(table, session)


def _nothing(lake: Lake, origin: str | None, session: date | None, symbols: Sequence[str]) -> NothingToRemove:
    named = [f"origin {origin}"] if origin is not None else []
    named += [f"session {session}"] if session is not None else []
    named += [f"symbol {', '.join(symbols)}"] if symbols else []
    what = ", ".join(named)
    if origin is not None and lake.sessions("arrivals"):
        known = lake.scan("arrivals").select(pl.col("origin").unique()).collect()["origin"].to_list()
        return NothingToRemove(what, nearest(origin, known))
    return NothingToRemove(what, "`odin data show` lists what it holds")
