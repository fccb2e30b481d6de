"""`odin structure show|levels|plot` and `odin labels show`: regimes, levels and outcomes of a session."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odin_core import text
from odin_core.commands.common import SESSION, as_json, common, data_of, emit, names, require_table_file, write_table
from odin_core.errors import OdinError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from odin_core.home import Home
    from odin_core.market.data import MarketData
    from odin_core.structure.table import Structure

SHORT = "unknown: regimes need 130 sessions of a symbol before the week, and a price that moves"
SHOWN_ROWS = 20  # of a label's rows
session_option = click.option("--session", type=SESSION, help="As known at its close; default: the last that has bars.")
symbols_option = click.option("--symbols", help="Only these, separated by commas; default: all.")


class NoBarsThen(OdinError):
    def __init__(self, market: str, session: date, have: "Sequence[date]") -> None:
        super().__init__(
            f"{market} has no bars in session {session}; it has {len(have)} sessions with bars, {have[0]} to {have[-1]}"
        )


class NotInSession(OdinError):
    def __init__(self, what: str, name: str, session: date, known: "Sequence[str]") -> None:
        others = nearest(name, known) if known else "nor any other"
        super().__init__(f"there is no {what} {name!r} in session {session}; {others}")


class NotAPicture(OdinError):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} names no picture; end it with .png")


@click.group()
def structure() -> None:
    """Structure: regimes, change points, support and resistance, as known at a session's close."""


@structure.command("show")
@common
@session_option
@symbols_option
@as_json
def show_structure(home: Path, market: str, session: date | None, symbols: str | None, json_output: bool) -> None:
    """One line a symbol: its regimes, whether they just changed, and the nearest levels.

    Behind a regime stands its probability; under "just changed" the probabilities that return and volatility did in the
    last five sessions; behind a level its distance from the close in mean true ranges of 15 minutes, and its strength,
    1 for the symbol's densest."""
    import polars as pl

    _, data, day = _at(home, market, session)
    rows = _structure(data, day).rows
    rows = rows.filter(pl.col("symbol").is_in(_asked(symbols, rows, day)))
    told = f"{market} at the close of {day}"
    short = f"\n{SHORT}" if rows["regime"].is_null().any() else ""
    emit(rows.to_dicts(), json_output, lambda found: f"{told}\n\n{text.table([_line(row) for row in found])}{short}")


@structure.command("levels")
@click.argument("symbol")
@common
@session_option
@as_json
def show_levels(symbol: str, home: Path, market: str, session: date | None, json_output: bool) -> None:
    """All levels of support and resistance of a symbol, the highest price first."""
    _, data, day = _at(home, market, session)
    found = _structure(data, day)
    _asked(symbol, found.rows, day)
    rows = found.levels.filter(symbol=symbol).sort("price", descending=True).to_dicts()
    [known] = found.rows.filter(symbol=symbol).to_dicts()
    told = f"{symbol} closed at {known['close']:,.2f} on {day}"
    emit(rows, json_output, lambda levels: f"{told}\n\n{text.table([_level(level, known, data) for level in levels])}")


@structure.command("plot")
@click.argument("symbol")
@common
@session_option
@click.option("--out", type=click.Path(path_type=Path), help="A .png file; default: in the home's reports.")
@as_json
def plot(symbol: str, home: Path, market: str, session: date | None, out: Path | None, json_output: bool) -> None:
    """Draw the last sessions of a symbol with its levels, heatmap and regimes, and print where the picture is."""
    from odin_core.structure.drawing import structure_picture

    if out is not None and out.suffix != ".png":
        raise NotAPicture(out)
    opened, data, day = _at(home, market, session)
    _asked(symbol, _structure(data, day).rows, day)
    picture = structure_picture(data, symbol, day)
    path = out or opened.reports / f"structure_{market}_{symbol.replace('/', '-')}_{day}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)
    emit({"picture": path, "symbol": symbol, "session": day}, json_output, lambda _: str(path))


@click.group()
def labels() -> None:
    """Labels: what became of decisions, in the session in which it became known."""


@labels.command("show")
@common
@session_option
@click.option("--label", help="Rows of this one, e.g. return_5m; default: a summary of all.")
@symbols_option
@click.option("--out", type=click.Path(path_type=Path), help="Write all rows to this .parquet or .csv file.")
@as_json
def show_labels(
    home: Path,
    market: str,
    session: date | None,
    label: str | None,
    symbols: str | None,
    out: Path | None,
    json_output: bool,
) -> None:
    """Labels that became known in a session: a summary, the rows of one label, or a file with all rows.

    decided_at is the end of the bar that was decided at, so labels join features of that interval by symbol and
    decided_at = known_at."""
    import polars as pl

    from odin_core.labels import labels_at

    require_table_file(out)
    _, data, day = _at(home, market, session)
    rows = labels_at(data, day)
    chosen = rows.filter(pl.col("symbol").is_in(_asked(symbols, rows, day)))
    if label is not None:
        if label not in (known := rows["label"].unique().to_list()):
            raise NotInSession("label", label, day, known)
        chosen = chosen.filter(label=label)
    if out is not None:
        write_table(chosen, out)
        emit({"file": out, "rows": chosen.height}, json_output, lambda _: f"{out}: {chosen.height:,} rows")
    elif label is not None:
        head = chosen.select(_local(data, "decided_at"), "symbol", "value", _local(data, "label_end"), "reason")
        told = f"{chosen.height:,} rows of {label} that became known in {day}; --out FILE writes all"
        emit(
            chosen.to_dicts() if json_output else None,
            json_output,
            lambda _: f"{text.frame(head.head(SHOWN_ROWS))}\n{told}",
        )
    else:
        told = f"{chosen.height:,} labels of {market} became known in {day}"
        emit(_summary(chosen), json_output, lambda lines: f"{told}\n\n{text.table([_summarised(n) for n in lines])}")


def _at(home: Path, market: str, session: date | None) -> "tuple[Home, MarketData, date]":
    """The data that the market's current life sees, and the session that is meant. Raises NoData and NotASession."""
    opened, data = data_of(home, market)
    return opened, data, data.calendar.require(session) if session else _with_bars(data)[-1]


def _with_bars(data: "MarketData") -> list[date]:
    from odin_core.features.report.sample import sessions_with_bars

    return sessions_with_bars(data)


def _structure(data: "MarketData", session: date) -> "Structure":
    """Raises NoData and NoBarsThen."""
    from odin_core.structure.table import structure_at

    found = structure_at(data, session)
    if found.rows.is_empty():
        raise NoBarsThen(data.profile.name, session, _with_bars(data))
    return found


def _asked(symbols: str | None, rows: "pl.DataFrame", session: date) -> list[str]:
    """The symbols that are meant, of those that have rows. Raises NotInSession."""
    known = rows["symbol"].unique().sort().to_list()
    for name in names(symbols):
        if name not in known:
            raise NotInSession("symbol", name, session, known)
    return list(names(symbols)) or known


def _line(row: dict[str, Any]) -> dict[str, Any]:
    told = {"symbol": row["symbol"], "close": f"{row['close']:,.2f}"}
    for column, tag in (("regime", "regime"), ("volatility", "volatility_regime")):
        told[column] = f"{row[tag]} {row[f'p_{row[tag]}']:.0%}" if row[tag] else "unknown"
    changes = [row[f"{what}_change_probability"] for what in ("return", "volatility")]
    told["just changed"] = " / ".join("–" if change is None else f"{change:.0%}" for change in changes)
    for kind in ("support", "resistance"):
        price, distance, strength = (row[f"{kind}_{what}"] for what in ("price", "distance", "strength"))
        told[kind] = "–" if price is None else f"{price:,.2f} ({distance:.1f} away, {strength:.2f})"
    return told


def _level(level: dict[str, Any], known: dict[str, Any], data: "MarketData") -> dict[str, Any]:
    """A line of `structure levels`."""
    from zoneinfo import ZoneInfo

    zone, away = ZoneInfo(data.profile.timezone), level["price"] - known["close"]
    touches = {name: f"{level[name].astimezone(zone):%Y-%m-%d %H:%M}" for name in ("first_touch", "last_touch")}
    distance = {"from close": f"{away / known['close']:+.2%}", "in ranges": f"{away / known['width']:+.1f}"}
    told = {
        "price": f"{level['price']:,.2f}",
        "kind": level["kind"],
        **distance,
        "strength": f"{level['strength']:.2f}",
    }
    return told | {"touches": level["touches"], "age": f"{level['age']} bars"} | touches


def _summary(rows: "pl.DataFrame") -> list[dict[str, Any]]:
    """By interval and label: how many, why without a value, and the distribution of the values."""
    import polars as pl

    value = pl.col("value")
    return (
        rows.group_by("interval", "label")
        .agg(
            rows=pl.len(),
            session_closed=(pl.col("reason") == "session_closed").sum(),
            no_bars=(pl.col("reason") == "no_bars").sum(),
            mean=value.mean(),
            deviation=value.std(),
            above_zero=(value > 0).mean(),
            below_zero=(value < 0).mean(),
        )
        .sort("interval", "label")
        .to_dicts()
    )


def _summarised(line: dict[str, Any]) -> dict[str, Any]:
    shares = {name: "–" if line[name] is None else f"{line[name]:.1%}" for name in ("above_zero", "below_zero")}
    moments = {name: "–" if line[name] is None else f"{line[name]:+.5f}" for name in ("mean", "deviation")}
    return line | moments | shares


def _local(data: "MarketData", column: str) -> "pl.Expr":
    """A time on the market's clock."""
    import polars as pl

    return pl.col(column).dt.convert_time_zone(data.profile.timezone)
