"""`odin database`: a market's bars and fundamentals in PostgreSQL."""

import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odin_core import text
from odin_core.commands.common import SESSION, around, as_json, common, data_of, emit, now, the_home
from odin_core.errors import in_order
from odin_core.market.profile import load_profile

if TYPE_CHECKING:
    from odin_core.lake import Lake
    from odin_core.market.database.connection import Database


@click.group()
def database() -> None:
    """PostgreSQL: make its tables, load the lake into them, see what they hold.

    Its address is the secret ODIN_MARKET_DATABASE_URL, in the environment or a .env file."""


@database.command("migrate")
@common
@as_json
def migrate(home: Path, market: str, json_output: bool) -> None:
    """Make the market's schema and tables, or bring them up to date; data stays."""
    from odin_core.market.database.schema import migrate as upgrade

    opened = _database(market)
    before, after = upgrade(opened)
    emit({"database": opened.where, "before": before, "after": after}, json_output, text.table_of_values)


@database.command("load")
@common
@click.option("--start", type=SESSION, help="First session; default: the first that the lake has.")
@click.option("--end", type=SESSION, help="Last session; default: the last that the lake has.")
@as_json
def load(home: Path, market: str, start: date | None, end: date | None, json_output: bool) -> None:
    """Load the market's bars of every interval, and its fundamentals, from the lake: all of them or none."""
    from odin_core.market.database import schema, transfer

    in_order(start, end)
    lake, opened = _lake(home, market), _database(market)
    schema.require_migrated(opened)
    with text.progress_bar("load", sys.stderr.isatty()) as progress:
        loaded = transfer.load(lake, opened, first=start, last=end, progress=progress)
    tables = [report.to_dict() for report in loaded]
    emit({"database": opened.where, "tables": tables}, json_output, lambda result: _shown(result, "tables"))


@database.command("fundamentals")
@common
@as_json
def fundamentals(home: Path, market: str, json_output: bool) -> None:
    """Bring the fundamentals that the database knows by now into the lake, by the rules of `odin data fundamentals`.

    Bars come in by `odin data fetch`, where the market's profile has `source: {kind: postgres}`."""
    from zoneinfo import ZoneInfo

    from odin_core.lake import logical_hash
    from odin_core.market.calendar import session_calendar
    from odin_core.market.database import transfer
    from odin_core.market.intake.knowntables import SourceFile
    from odin_core.market.reference.fundamentalfiles import store_fundamentals

    profile, opened, found = load_profile(market), the_home(home), _database(market)
    rows = transfer.read_fundamentals(found, as_of=now())
    page = SourceFile("postgres stock_fundamentals", logical_hash(rows)[:16], rows.drop("origin"))
    with opened.writer(f"odin database fundamentals --market {market}"):
        (report,) = store_fundamentals(
            [page], lake=opened.lake(market), calendar=session_calendar(profile), zone=ZoneInfo(profile.timezone)
        )
    emit(report.to_dict(), json_output, lambda _: report.to_text())


@database.command("status")
@common
@as_json
def status(home: Path, market: str, json_output: bool) -> None:
    """Which revision the tables have, and what they hold of each interval."""
    from odin_core.market.database import schema, transfer

    opened = _database(market)
    found, newest = schema.revisions(opened)
    held = [holding._asdict() for holding in transfer.holdings(opened)] if found == newest else []
    result = {"database": opened.where, "revision": found, "newest": newest, "intervals": held}
    emit(result, json_output, lambda result: _shown(result, "intervals"))


def _database(market: str) -> "Database":
    from odin_core.market.database.connection import Database
    from odin_core.market.sources.postgres import KIND, SECRETS, schema_of

    (url,) = around().require(KIND, SECRETS).values()
    return Database(url, schema_of(load_profile(market).source, market))


def _lake(home: Path, market: str) -> "Lake":
    _, data = data_of(home, market)
    return data.lake


def _shown(result: dict[str, Any], rows: str) -> str:
    """The values, and below them the rows as a table."""
    values = {name: value for name, value in result.items() if name != rows}
    return f"{text.table_of_values(values)}\n{text.table(result[rows])}"
